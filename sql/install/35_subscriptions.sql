-- entanglement: what is wanted from peers, and what they want.

CREATE FUNCTION entanglement.subscribe(
    peer text,
    relation regclass,
    filter text DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_subscribe';
REVOKE ALL ON FUNCTION entanglement.subscribe(text, regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.subscribe(text, regclass, text) IS
'Wants from a peer this table, and no others than those subscribed to; filter: of its rows those for which this SQL expression over the table''s columns is true there. Without any subscription everything is wanted that the peer lets this node see. Again: the new filter replaces the old one. Takes effect at commit, or when the link is up: what does not match is withdrawn here. State: the view subscriptions.';

CREATE FUNCTION entanglement.unsubscribe(
    peer text,
    relation regclass
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_unsubscribe';
REVOKE ALL ON FUNCTION entanglement.unsubscribe(text, regclass) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.unsubscribe(text, regclass) IS
'Ends a subscription. The table is not wanted from that peer any more, unless it was the last one: then everything is. Takes effect at commit.';

CREATE FUNCTION entanglement.check_filter(
    filter text,
    relation regclass,
    role regrole DEFAULT NULL
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_check_filter';
REVOKE ALL ON FUNCTION entanglement.check_filter(text, regclass, regrole) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.check_filter(text, regclass, regrole) IS
'What a filter that a peer of that role (default: the current user) subscribes with would be run as here, or the error that it would be told.';

CREATE VIEW entanglement.subscriptions AS
SELECT p.name AS peer,
    'ours'::text AS direction,
    s.relid AS relation,
    s.filter,
    CASE
        WHEN s.sqlstate IS NULL THEN 'waiting'
        WHEN s.sqlstate OPERATOR(pg_catalog.=) '00000' THEN 'in force'
        ELSE 'refused'
    END AS state,
    CASE WHEN s.sqlstate OPERATOR(pg_catalog.<>) '00000' THEN s.sqlstate END AS sqlstate,
    s.message
  FROM entanglement.subscription s
  JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) s.peer
UNION ALL
SELECT p.name,
    'theirs',
    r.relid,
    w.filter,
    CASE
        WHEN w.sqlstate IS NULL THEN 'waiting'
        WHEN w.sqlstate OPERATOR(pg_catalog.=) '00000' THEN 'in force'
        ELSE 'refused'
    END,
    CASE WHEN w.sqlstate OPERATOR(pg_catalog.<>) '00000' THEN w.sqlstate END,
    w.message
  FROM entanglement.wanted w
  JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) w.peer
  LEFT JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) w.rel
 WHERE w.rel OPERATOR(pg_catalog.<>) 0 OR NOT EXISTS (
    SELECT FROM entanglement.wanted o
     WHERE o.peer OPERATOR(pg_catalog.=) w.peer AND o.rel OPERATOR(pg_catalog.<>) 0);
REVOKE ALL ON entanglement.subscriptions FROM PUBLIC;
GRANT SELECT ON entanglement.subscriptions TO pg_monitor;
COMMENT ON VIEW entanglement.subscriptions IS
'Tables that this node wants from a peer (direction ours), or a peer from this node (theirs), with their filters. state: waiting (the sender has not said), in force, refused (why: sqlstate and message; nothing of the table is sent). Of a peer that has no rows everything is wanted; a row of theirs without a relation: nothing that is here.';
