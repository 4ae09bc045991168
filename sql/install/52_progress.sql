-- entanglement: how far peers are that are brought up.

CREATE FUNCTION entanglement.copies(
    OUT peer integer,
    OUT relation_no integer,
    OUT done bigint,
    OUT total bigint,
    OUT since timestamptz
) RETURNS SETOF record
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_copies';
REVOKE ALL ON FUNCTION entanglement.copies() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.copies() TO pg_monitor;
COMMENT ON FUNCTION entanglement.copies() IS
'What peers of this database are sent as a whole as shared memory has it, for the view progress.';

CREATE VIEW entanglement.progress AS
SELECT r.relid AS relation,
    p.name AS peer,
    c.done,
    c.total,
    c.since,
    pg_catalog.round(c.done::pg_catalog.numeric OPERATOR(pg_catalog./)
        GREATEST(s.seconds, 0.001), 1) AS rate,
    CASE
        WHEN c.done OPERATOR(pg_catalog.>) 0
        THEN pg_catalog.make_interval(secs => pg_catalog.round(
            (c.total OPERATOR(pg_catalog.-) c.done)::pg_catalog.numeric
            OPERATOR(pg_catalog.*) s.seconds OPERATOR(pg_catalog./) c.done)::pg_catalog.float8)
    END AS estimate
FROM entanglement.copies() c
CROSS JOIN LATERAL (
    SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) c.since)
) s (seconds)
JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) c.relation_no
JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) c.peer;
REVOKE ALL ON entanglement.progress FROM PUBLIC;
GRANT SELECT ON entanglement.progress TO pg_monitor;
COMMENT ON VIEW entanglement.progress IS
'Tables that peers are being sent as a whole, or a great part of: objects sent and in all, since when, objects per second, and how long it will take at this rate.';
