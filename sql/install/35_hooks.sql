-- entanglement: users' functions that are asked before something is sent or stored.

CREATE TABLE entanglement.hook (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('should_send', 'should_listen', 'should_listen_constructed')),
    function text NOT NULL,
    relid regclass,
    peer integer,
    ordinal integer NOT NULL,
    added_by regrole NOT NULL
);
REVOKE ALL ON entanglement.hook FROM PUBLIC;
COMMENT ON TABLE entanglement.hook IS
'Functions that are asked before an object is sent to a peer, or stored for one; relid and peer NULL: of every table, of every peer. function: its full name and arguments, which a dump can carry.';
COMMENT ON SEQUENCE entanglement.hook_no_seq IS 'Numbers of hooks.';

CREATE FUNCTION entanglement.add_hook(
    kind text,
    function regprocedure,
    relation regclass DEFAULT NULL,
    peer text DEFAULT NULL,
    ordinal integer DEFAULT 100
) RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_add_hook';
REVOKE ALL ON FUNCTION entanglement.add_hook(text, regprocedure, regclass, text, integer) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.add_hook(text, regprocedure, regclass, text, integer) IS
'Has a function asked whether something may be sent to a peer (should_send) or stored for one (should_listen, should_listen_constructed), of one table and peer or of all (NULL); returns the hook''s number. true: yes, NULL: no opinion, false or an error: no, which wins. It is asked as its owner, reads only, and cannot allow what rights and row-level security do not. 42883, 22023: the function does not fit, and the hint says which arguments it must have. Takes effect at commit.';

CREATE FUNCTION entanglement.remove_hook(hook integer) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_remove_hook';
REVOKE ALL ON FUNCTION entanglement.remove_hook(integer) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.remove_hook(integer) IS
'Removes a hook that a role of the caller has added, by its number; a superuser any. 42704: there is none. Takes effect at commit.';

CREATE VIEW entanglement.hooks AS
SELECT h.no AS number,
    h.kind,
    pg_catalog.to_regprocedure(h.function) AS function,
    h.relid AS relation,
    p.name AS peer,
    h.ordinal,
    h.added_by
FROM entanglement.hook h
LEFT JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) h.peer;
REVOKE ALL ON entanglement.hooks FROM PUBLIC;
GRANT SELECT ON entanglement.hooks TO pg_monitor;
COMMENT ON VIEW entanglement.hooks IS
'Functions that are asked before something is sent to a peer or stored for one, in the order of ordinal and number; relation and peer NULL: of all.';

-- A gate must not open because a function has gone: as with a trigger's function,
-- the hook goes first. With its table it goes by itself.
CREATE FUNCTION entanglement.hooks_dropped() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone record;
BEGIN
    IF to_regclass('entanglement.hook') IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM entanglement.hook h USING pg_event_trigger_dropped_objects() d
     WHERE d.classid = 'pg_class'::regclass AND d.objid = h.relid::oid AND d.objsubid = 0;
    SELECT h.no, d.object_identity INTO gone
      FROM entanglement.hook h JOIN pg_event_trigger_dropped_objects() d
        ON d.classid = 'pg_proc'::regclass AND d.object_identity = h.function
     ORDER BY h.no LIMIT 1;
    IF FOUND THEN
        RAISE object_in_use USING
            MESSAGE = format('function %s is a hook of entanglement', gone.object_identity),
            HINT = format('Remove the hook first, with entanglement.remove_hook(%s).', gone.no);
    END IF;
END $$;
REVOKE ALL ON FUNCTION entanglement.hooks_dropped() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.hooks_dropped() IS
'Removes hooks of tables that were dropped; refuses to drop the function of a hook (55006).';
CREATE EVENT TRIGGER entanglement_hooks_dropped ON sql_drop
    EXECUTE FUNCTION entanglement.hooks_dropped();
COMMENT ON EVENT TRIGGER entanglement_hooks_dropped IS 'Removes hooks of tables that were dropped.';
