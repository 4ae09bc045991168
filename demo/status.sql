-- What the picture shows of a node, in one row: rows, owners, age in
-- milliseconds of the oldest stale copy at its peers, bytes sent and
-- received so far, its links.
WITH link AS (
    SELECT l.*, p.no
      FROM entanglement.peers l JOIN entanglement.peer p USING (name)
), stale (age) AS (
    SELECT oldest FROM link
    UNION ALL
    -- a link that is down shows no age: look what its peer has not got
    SELECT now() - min(o.changed_at)
      FROM link l
      JOIN entanglement.peer_owner h ON h.peer = l.no
      JOIN entanglement.owner w ON w.no = h.owner AND w.peer IS DISTINCT FROM l.no
      JOIN entanglement.object o ON o.owner = h.owner AND o.serial > h.have
     WHERE l.state <> 'connected'
)
SELECT (SELECT count(*) FROM pgbench_accounts)
         + (SELECT count(*) FROM pgbench_branches)
         + (SELECT count(*) FROM pgbench_tellers)
         + (SELECT count(*) FROM place),
       (SELECT count(*) FROM entanglement.owners),
       (SELECT coalesce(round(extract(epoch FROM max(age)) * 1000), 0) FROM stale),
       coalesce(sum(bytes_sent), 0),
       coalesce(sum(bytes_received), 0),
       string_agg(name || ':' || state, ' ' ORDER BY name)
  FROM link;
