-- entanglement: what a dump takes along, and how it is loaded.

-- pg_dump copies what is in our tables after CREATE EXTENSION and after the
-- tables of users have their rows, but before these have keys and triggers. What
-- CREATE EXTENSION put there gives way. Until everything is there this node is
-- not in use, and then undecided: see entanglement.become.
CREATE FUNCTION entanglement.load_trigger() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM entanglement.identity WHERE used AND place = entanglement.place()) THEN
        RETURN NEW;
    END IF;
    CASE TG_TABLE_NAME
        WHEN 'identity' THEN
            DELETE FROM entanglement.identity;
            NEW.place := '';
            NEW.timeline := 0;
        WHEN 'owner' THEN
            DELETE FROM entanglement.owner WHERE initial;
            NEW.initial := false;
        WHEN 'change' THEN
            -- not captured here
            NEW.op := lower(NEW.op::text)::"char";
            NEW.place := NULL;
            NEW.xid := NULL;
            NEW.image := NULL;
    END CASE;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION entanglement.load_trigger() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.load_trigger() IS
'Lets what a dump carries of a node take the place of what CREATE EXTENSION made, and marks it.';
CREATE TRIGGER load BEFORE INSERT ON entanglement.identity
    FOR EACH ROW EXECUTE FUNCTION entanglement.load_trigger();
COMMENT ON TRIGGER load ON entanglement.identity IS 'A dump is loaded.';
CREATE TRIGGER load BEFORE INSERT ON entanglement.owner
    FOR EACH ROW EXECUTE FUNCTION entanglement.load_trigger();
COMMENT ON TRIGGER load ON entanglement.owner IS 'A dump is loaded.';
CREATE TRIGGER load BEFORE INSERT ON entanglement.change
    FOR EACH ROW EXECUTE FUNCTION entanglement.load_trigger();
COMMENT ON TRIGGER load ON entanglement.change IS 'A dump is loaded; what is captured fires no triggers.';
ALTER TABLE entanglement.identity ENABLE ALWAYS TRIGGER load;
ALTER TABLE entanglement.owner ENABLE ALWAYS TRIGGER load;
ALTER TABLE entanglement.change ENABLE ALWAYS TRIGGER load;

CREATE FUNCTION entanglement.names_changed() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regclass('entanglement.identity') IS NULL
       OR NOT EXISTS (SELECT FROM entanglement.identity WHERE used AND place = entanglement.place()) THEN
        RETURN;
    END IF;
    UPDATE entanglement.relation r SET key_index = c.relname
      FROM pg_trigger t
      JOIN pg_depend d ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
       AND d.refclassid = 'pg_class'::regclass
      JOIN pg_index i ON i.indexrelid = d.refobjid
      JOIN pg_class c ON c.oid = i.indexrelid
     WHERE t.tgrelid = r.relid AND t.tgname = 'entanglement_capture' AND r.key_index <> c.relname;
    UPDATE entanglement.relation r SET owner_column_name = a.attname
      FROM pg_attribute a
     WHERE a.attrelid = r.relid AND a.attnum = r.owner_column AND r.owner_column_name <> a.attname;
END $$;
REVOKE ALL ON FUNCTION entanglement.names_changed() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.names_changed() IS
'Keeps the names by which a restored dump finds keys and owner columns.';
CREATE EVENT TRIGGER entanglement_names_changed ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX')
    EXECUTE FUNCTION entanglement.names_changed();
COMMENT ON EVENT TRIGGER entanglement_names_changed IS 'Keeps names that a dump carries.';

-- All there is, but for what does not survive a crash either, what is said of
-- this server's log, and the journal: numbers of columns are others in the copy,
-- and the epoch is.
DO $$
DECLARE
    what regclass;
BEGIN
    FOR what IN SELECT c.oid FROM pg_catalog.pg_class c
                 WHERE c.relnamespace OPERATOR(pg_catalog.=) 'entanglement'::regnamespace
                   AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,S}')
                   AND c.relname OPERATOR(pg_catalog.<>) ALL ('{journal,journal_no_seq,journal_loss,log_position}')
                   AND c.relpersistence OPERATOR(pg_catalog.=) 'p' ORDER BY c.oid LOOP
        PERFORM pg_catalog.pg_extension_config_dump(what, '');
    END LOOP;
END $$;
