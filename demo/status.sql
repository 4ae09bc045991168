-- What the picture shows of a node, in one row: rows, owners, age in
-- milliseconds of the oldest stale copy at its peers, bytes sent and
-- received so far, its links.
SELECT (SELECT count(*) FROM pgbench_accounts)
         + (SELECT count(*) FROM pgbench_branches)
         + (SELECT count(*) FROM pgbench_tellers)
         + (SELECT count(*) FROM place),
       (SELECT count(*) FROM entanglement.owners),
       coalesce(round(extract(epoch FROM max(oldest)) * 1000), 0),
       coalesce(sum(bytes_sent), 0),
       coalesce(sum(bytes_received), 0),
       string_agg(name || ':' || state, ' ' ORDER BY name)
  FROM entanglement.peers;
