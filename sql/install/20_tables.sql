-- entanglement: synchronized tables.

CREATE FUNCTION entanglement.capture_trigger() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_capture_trigger';
REVOKE ALL ON FUNCTION entanglement.capture_trigger() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.capture_trigger() IS
'Notes which rows of a synchronized table change.';

CREATE FUNCTION entanglement.change_trigger() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_change_trigger';
REVOKE ALL ON FUNCTION entanglement.change_trigger() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.change_trigger() IS
'A statement has written into the log of changes: whoever remembers what is in it reads it again.';
CREATE TRIGGER entanglement_change AFTER INSERT OR UPDATE ON entanglement.change
    FOR EACH STATEMENT EXECUTE FUNCTION entanglement.change_trigger();
ALTER TABLE entanglement.change ENABLE ALWAYS TRIGGER entanglement_change;

CREATE FUNCTION entanglement.truncate_trigger() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_truncate_trigger';
REVOKE ALL ON FUNCTION entanglement.truncate_trigger() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.truncate_trigger() IS
'Notes that a synchronized table is truncated; refuses it while it holds rows that another node owns (55000).';

CREATE FUNCTION entanglement.synchronize(relation regclass, capture text DEFAULT 'auto',
    priority integer DEFAULT NULL, index regclass DEFAULT NULL, take_over boolean DEFAULT true,
    keys_from_others boolean DEFAULT false, integrity boolean DEFAULT false,
    owner_column name DEFAULT NULL, every_state boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_synchronize';
REVOKE ALL ON FUNCTION entanglement.synchronize(regclass, text, integer, regclass, boolean, boolean, boolean, name, boolean) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.synchronize(regclass, text, integer, regclass, boolean, boolean, boolean, name, boolean) IS
'Synchronizes a table that the caller owns. capture: auto, trigger, or wal (from the write-ahead log). priority: lower is sent first; by default 0, with integrity one more than that of what is referenced. index: unique index over NOT NULL columns to be the key instead of the primary key. take_over: existing rows become objects of the current owner; if not, they wait for a peer''s objects with their keys. keys_from_others: who asks one of our owners for a new row may choose its key; if not, this database does. integrity: foreign keys of the table, and of those it references, which are synchronized along, hold for what comes from peers; what changed together arrives together. owner_column: names the owner of a new row, by name or id; NULL leaves it to entanglement.owner. Of type text, varchar, char, name or uuid (42804). every_state: no committed state of a row is left out, peers are given one after the other; not with integrity (0A000).';

CREATE FUNCTION entanglement.set_every_state(relation regclass, every_state boolean) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_set_every_state';
REVOKE ALL ON FUNCTION entanglement.set_every_state(regclass, boolean) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.set_every_state(regclass, boolean) IS
'From now on no committed state of a row of a synchronized table is left out, or only the newest counts: see synchronize. For the table''s owner.';

CREATE FUNCTION entanglement.set_capture(relation regclass, capture text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_set_capture';
REVOKE ALL ON FUNCTION entanglement.set_capture(regclass, text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.set_capture(regclass, text) IS
'Has the changes of a synchronized table that the caller owns captured by trigger or from the write-ahead log (wal), from now on; loses none. Waits for the table''s writers.';

CREATE FUNCTION entanglement.desynchronize(relation regclass) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_desynchronize';
REVOKE ALL ON FUNCTION entanglement.desynchronize(regclass) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.desynchronize(regclass) IS
'Ends the synchronization of a table; its rows stay, here and at the peers.';

CREATE FUNCTION entanglement.owner_of(record) RETURNS text
LANGUAGE c STRICT STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_owner_of';
REVOKE ALL ON FUNCTION entanglement.owner_of(record) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.owner_of(record) TO PUBLIC;
COMMENT ON FUNCTION entanglement.owner_of(record) IS
'Name of the owner of a row of a synchronized table: SELECT entanglement.owner_of(t) FROM t. NULL when the row is no object.';

CREATE FUNCTION entanglement.transfer("row" record, owner text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_transfer';
REVOKE ALL ON FUNCTION entanglement.transfer(record, text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.transfer(record, text) IS
'Hands a row of an owner at home here over to another owner, given by name or id: SELECT entanglement.transfer(t, ''red'') FROM t WHERE .... From commit on writes here become requests to that owner if he is elsewhere. Needs the right to UPDATE the row. Refused for a row that is owned elsewhere (55000), an owner unknown here (42704) and one who is reached through a peer that may not see the row (42501).';

CREATE VIEW entanglement.tables AS
SELECT r.relid AS relation,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i
               CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, n)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE i.indexrelid = coalesce(x.now, (SELECT n.oid FROM pg_catalog.pg_class n JOIN pg_catalog.pg_class t
                                                      ON t.relnamespace = n.relnamespace
                                                    WHERE t.oid = r.relid AND n.relname = r.key_index)) AND k.n <= i.indnkeyatts ORDER BY k.n) AS key,
       r.capture, r.priority, r.integrity,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = r.relid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
       (SELECT a.attname::text FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = r.relid AND a.attname = r.owner_column_name AND NOT a.attisdropped) AS owner_column,
       r.every_state
  FROM entanglement.relation r
  LEFT JOIN LATERAL (
        -- by name only in a copy that has not been told what it is
        SELECT d.refobjid FROM pg_catalog.pg_trigger t
          JOIN pg_catalog.pg_depend d
            ON d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = t.oid
           AND d.refclassid = 'pg_catalog.pg_class'::regclass
          JOIN pg_catalog.pg_index i ON i.indexrelid = d.refobjid
         WHERE t.tgrelid = r.relid AND t.tgname = 'entanglement_capture'
       ) x (now) ON true
 WHERE pg_catalog.has_table_privilege(r.relid, 'SELECT, INSERT, UPDATE, DELETE')
    OR pg_catalog.has_any_column_privilege(r.relid, 'SELECT');
GRANT SELECT ON entanglement.tables TO PUBLIC;
COMMENT ON VIEW entanglement.tables IS
'Synchronized tables on which the reader has any right: key columns, how changes are captured, priority, whether foreign keys are kept, columns that travel, the column that names the owner of a new row, whether every state is sent.';

-- A dropped table leaves nothing behind; one that lost its triggers, by
-- CASCADE perhaps, would be captured no more.
CREATE FUNCTION entanglement.table_dropped() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone integer[];
    bare name;
BEGIN
    IF to_regclass('entanglement.relation') IS NULL THEN
        RETURN;
    END IF;
    gone := ARRAY(SELECT r.no FROM entanglement.relation r
                    JOIN pg_event_trigger_dropped_objects() d
                      ON d.classid = 'pg_class'::regclass AND d.objid = r.relid::oid
                     AND d.objsubid = 0);
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects()
                WHERE classid = 'pg_trigger'::regclass)
       AND EXISTS (SELECT FROM entanglement.identity WHERE place = entanglement.place()) THEN
        SELECT c.relname INTO bare
          FROM (SELECT r.relid, 3 FROM entanglement.relation r
                UNION ALL
                SELECT p.relid, 1 FROM entanglement.partition p) x (relid, needs)
          JOIN pg_class c ON c.oid = x.relid
         WHERE x.needs > (SELECT count(*) FROM pg_trigger t
                           WHERE t.tgrelid = x.relid
                             AND (t.tgname = 'entanglement_truncate' OR
                                  t.tgname IN ('entanglement_capture', 'entanglement_request') AND x.needs = 3))
         LIMIT 1;
        IF FOUND THEN
            RAISE object_in_use USING
                MESSAGE = format('table "%s" is synchronized and needs its key and its triggers', bare),
                HINT = 'End its synchronization first, with entanglement.desynchronize.';
        END IF;
    END IF;
    DELETE FROM entanglement.subscription s USING pg_event_trigger_dropped_objects() d
     WHERE d.classid = 'pg_class'::regclass AND d.objid = s.relid::oid AND d.objsubid = 0;
    IF cardinality(gone) = 0 THEN
        RETURN;
    END IF;
    DELETE FROM entanglement.relation WHERE no = ANY (gone);
    DELETE FROM entanglement.partition WHERE rel = ANY (gone);
    DELETE FROM entanglement.change WHERE rel = ANY (gone);
    DELETE FROM entanglement.journal WHERE rel = ANY (gone);
    DELETE FROM entanglement.journal_loss WHERE rel = ANY (gone);
    DELETE FROM entanglement.object WHERE rel = ANY (gone);
    DELETE FROM entanglement.tombstone WHERE rel = ANY (gone);
    DELETE FROM entanglement.handover WHERE rel = ANY (gone);
    DELETE FROM entanglement.inherited WHERE rel = ANY (gone);
    DELETE FROM entanglement.arrears WHERE rel = ANY (gone);
    DELETE FROM entanglement.resend WHERE rel = ANY (gone);
    DELETE FROM entanglement.wanted WHERE rel = ANY (gone);
    DELETE FROM entanglement.shown WHERE rel = ANY (gone);
    DELETE FROM entanglement.holding WHERE rel = ANY (gone);
    DELETE FROM entanglement.owed WHERE rel = ANY (gone);
    DELETE FROM entanglement.parked WHERE rel = ANY (gone);
    DELETE FROM entanglement.request WHERE rel = ANY (gone);
END $$;
REVOKE ALL ON FUNCTION entanglement.table_dropped() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.table_dropped() IS
'Forgets synchronized tables that were dropped; refuses to take a synchronized table its triggers (55006).';
CREATE EVENT TRIGGER entanglement_table_dropped ON sql_drop
    EXECUTE FUNCTION entanglement.table_dropped();
COMMENT ON EVENT TRIGGER entanglement_table_dropped IS 'Forgets synchronized tables that were dropped.';

CREATE FUNCTION entanglement.foreign_keys_changed() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_foreign_keys_changed';
REVOKE ALL ON FUNCTION entanglement.foreign_keys_changed() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.foreign_keys_changed() IS
'Orders tables with integrity by their foreign keys; refuses one that references a table that is not synchronized (55000).';
CREATE EVENT TRIGGER entanglement_foreign_keys_changed ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION entanglement.foreign_keys_changed();
COMMENT ON EVENT TRIGGER entanglement_foreign_keys_changed IS 'Orders tables with integrity by their foreign keys.';

-- Who was shown all of a table, and is not any more.
CREATE FUNCTION entanglement.rights_changed() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_rights_changed';
REVOKE ALL ON FUNCTION entanglement.rights_changed() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.rights_changed() IS
'Notes of tables that a peer was shown whole, and may not see whole any more, which rows it may have been told of.';
CREATE EVENT TRIGGER entanglement_rights_changed ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'GRANT', 'REVOKE')
    EXECUTE FUNCTION entanglement.rights_changed();
COMMENT ON EVENT TRIGGER entanglement_rights_changed IS 'Notes which rows a peer may have been told of that may not see all any more.';

-- Partitions that are attached, detached, created or dropped.
CREATE FUNCTION entanglement.partitions_changed() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_partitions_changed';
REVOKE ALL ON FUNCTION entanglement.partitions_changed() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.partitions_changed() IS
'Captures the rows that come or go with a partition of a synchronized table; refuses it while they are owned elsewhere (55000).';
CREATE EVENT TRIGGER entanglement_partitions_changed ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION entanglement.partitions_changed();
COMMENT ON EVENT TRIGGER entanglement_partitions_changed IS 'Captures what comes or goes with a partition.';
CREATE EVENT TRIGGER entanglement_partitions_dropped ON sql_drop
    EXECUTE FUNCTION entanglement.partitions_changed();
COMMENT ON EVENT TRIGGER entanglement_partitions_dropped IS 'Captures what goes with a partition that is dropped.';
