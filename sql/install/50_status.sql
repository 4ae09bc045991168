-- entanglement: what to look at, and drain.

CREATE FUNCTION entanglement.link_states(
    OUT peer integer,
    OUT state text,
    OUT since timestamptz,
    OUT sqlstate text,
    OUT message text,
    OUT round_trip interval,
    OUT rate bigint,
    OUT oldest interval,
    OUT queued bigint,
    OUT bytes_sent bigint,
    OUT bytes_received bigint,
    OUT batches_sent bigint,
    OUT batches_received bigint,
    OUT objects_sent bigint,
    OUT objects_received bigint,
    OUT coalesced bigint
) RETURNS SETOF record
LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_link_states';
REVOKE ALL ON FUNCTION entanglement.link_states() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.link_states() TO pg_monitor;
COMMENT ON FUNCTION entanglement.link_states() IS
'The links of this database''s peers as shared memory has them, for the view peers; no row for a peer whose link was never tried, none at all without preloading.';

CREATE FUNCTION entanglement.is_preloaded() RETURNS boolean
LANGUAGE c STRICT STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'ent_sql_is_preloaded';
REVOKE ALL ON FUNCTION entanglement.is_preloaded() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.is_preloaded() TO pg_monitor;
COMMENT ON FUNCTION entanglement.is_preloaded() IS
'Is the library in shared_preload_libraries, as the worker and the links need?';

CREATE FUNCTION entanglement.may_see(role regrole) RETURNS text
LANGUAGE c STRICT STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_may_see';
REVOKE ALL ON FUNCTION entanglement.may_see(regrole) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.may_see(regrole) TO pg_monitor;
COMMENT ON FUNCTION entanglement.may_see(regrole) IS
'How many of the synchronized tables a role''s rights let it see, how many of them in part, and what it has above all grants; NULL when there is no such role.';

CREATE VIEW entanglement.peers AS
SELECT p.name,
    p.role,
    p.conninfo IS NOT NULL AS dialed,
    CASE
        WHEN NOT entanglement.is_preloaded() THEN 'not preloaded'
        WHEN n.state OPERATOR(pg_catalog.=) 'undecided' THEN n.state
        WHEN p.paused THEN 'paused'
        WHEN s.state IS NULL OR s.state OPERATOR(pg_catalog.=) ANY (ARRAY['idle', 'paused'])
            THEN CASE WHEN p.conninfo IS NULL THEN 'waiting' ELSE 'idle' END
        ELSE s.state
    END AS state,
    s.since,
    CASE
        WHEN s.sqlstate IS NULL THEN s.message
        ELSE pg_catalog.concat(s.sqlstate, ': ', s.message)
    END AS last_error,
    (
        SELECT pg_catalog.string_agg(w.what, ', ' ORDER BY w.what COLLATE "C")
        FROM (
            SELECT pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS what
            FROM entanglement.peer_table t
            WHERE t.peer OPERATOR(pg_catalog.=) p.no AND NOT t.known
            UNION ALL
            SELECT pg_catalog.format('%I.%I.%I', t.schema_name, t.table_name, m.name)
            FROM entanglement.peer_table t,
                pg_catalog.unnest(t.missing) AS m (name)
            WHERE t.peer OPERATOR(pg_catalog.=) p.no AND t.known
        ) w
    ) AS waiting_for,
    p.fingerprint,
    p.bandwidth,
    s.round_trip,
    s.rate,
    COALESCE(s.queued, 0) AS queued,
    s.oldest,
    COALESCE(s.bytes_sent, 0) AS bytes_sent,
    COALESCE(s.bytes_received, 0) AS bytes_received,
    COALESCE(s.batches_sent, 0) AS batches_sent,
    COALESCE(s.batches_received, 0) AS batches_received,
    COALESCE(s.objects_sent, 0) AS objects_sent,
    COALESCE(s.objects_received, 0) AS objects_received,
    COALESCE(s.coalesced, 0) AS coalesced,
    entanglement.may_see(p.role) AS may_see
FROM entanglement.peer p
CROSS JOIN entanglement.node n
LEFT JOIN entanglement.link_states() s ON s.peer OPERATOR(pg_catalog.=) p.no;
REVOKE ALL ON entanglement.peers FROM PUBLIC;
GRANT SELECT ON entanglement.peers TO pg_monitor;
COMMENT ON VIEW entanglement.peers IS
'The peers and their links: state, last error, what they send that we lack, speed, what is queued for them, counters since the server started, what their roles let them see.';

CREATE FUNCTION entanglement.key_text(relation_no integer, key bytea) RETURNS text
LANGUAGE c STRICT STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_key_text';
REVOKE ALL ON FUNCTION entanglement.key_text(integer, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.key_text(integer, bytea) TO pg_monitor;
COMMENT ON FUNCTION entanglement.key_text(integer, bytea) IS
'A stored key in readable form; NULL when its table is not synchronized.';

CREATE VIEW entanglement.parked_rows AS
SELECT r.relid AS relation,
    CASE
        WHEN k.foreign_key THEN pg_catalog.format('\x%s', pg_catalog.encode(k.key, 'hex'))
        ELSE entanglement.key_text(k.rel, k.key)
    END AS key,
    o.name AS owner,
    p.name AS peer,
    k.serial,
    k.sqlstate,
    k.message,
    k.detail,
    k.since,
    k.tries
FROM entanglement.parked k
LEFT JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) k.rel
LEFT JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) k.owner
LEFT JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) k.peer;
REVOKE ALL ON entanglement.parked_rows FROM PUBLIC;
GRANT SELECT ON entanglement.parked_rows TO pg_monitor;
COMMENT ON VIEW entanglement.parked_rows IS
'Objects that could not be stored here, and why; asked for again every entanglement.retry_parked.';

CREATE FUNCTION entanglement.log_capture_error(OUT since timestamptz, OUT error text)
RETURNS record LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_log_capture_error';
REVOKE ALL ON FUNCTION entanglement.log_capture_error() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.log_capture_error() TO pg_monitor;
COMMENT ON FUNCTION entanglement.log_capture_error() IS
'Why the collector cannot read the write-ahead log, and since when; NULLs when it can, or need not. For the view log_capture.';

CREATE VIEW entanglement.log_capture AS
SELECT s.slot_name::text AS slot,
    s.active,
    s.wal_status AS state,
    pg_catalog.pg_wal_lsn_diff(
        pg_catalog.pg_current_wal_lsn(),
        s.confirmed_flush_lsn
    )::bigint AS behind,
    pg_catalog.pg_wal_lsn_diff(
        pg_catalog.pg_current_wal_lsn(),
        s.restart_lsn
    )::bigint AS retained,
    e.since AS failing_since,
    e.error AS last_error
FROM entanglement.log_capture_error() e
LEFT JOIN (
    pg_catalog.pg_replication_slots s
    JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) s.database
        AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        AND s.slot_name OPERATOR(pg_catalog.=) pg_catalog.concat('entanglement_', d.oid)
) ON true
WHERE s.slot_name IS NOT NULL OR e.error IS NOT NULL;
REVOKE ALL ON entanglement.log_capture FROM PUBLIC;
GRANT SELECT ON entanglement.log_capture TO pg_monitor;
COMMENT ON VIEW entanglement.log_capture IS
'The replication slot of tables that are captured from the write-ahead log, if there are any: whether the collector reads it, state as in pg_replication_slots, bytes of log not read yet and bytes kept for it; why it cannot be read, and since when.';

CREATE FUNCTION entanglement.drain(
    peer text DEFAULT NULL,
    timeout interval DEFAULT '30 s'
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_drain';
REVOKE ALL ON FUNCTION entanglement.drain(text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.drain(text, interval) TO pg_monitor;
COMMENT ON FUNCTION entanglement.drain(text, interval) IS
'Waits until everything committed before the call is durable at the peer (NULL: at every connected peer), as far as it may see it; false when the timeout comes first.';

CREATE FUNCTION entanglement.start_worker() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_start_worker';
REVOKE ALL ON FUNCTION entanglement.start_worker() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.start_worker() IS
'Has this database''s worker started at commit, if it does not run; superusers only. CREATE EXTENSION does so by itself.';

SELECT entanglement.start_worker();
