-- Promise: a table whose rows can be objects is synchronized, with the key
-- that was asked for; any other is refused with the reason and the way out;
-- desynchronize and DROP leave nothing behind.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
CREATE ROLE regress_owner;
CREATE ROLE regress_plain;
CREATE SCHEMA tables;
GRANT USAGE, CREATE ON SCHEMA tables TO regress_owner, regress_plain;
SET search_path = tables, public;
CREATE FUNCTION pg_temp.synchronize(relation text, more text DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.attempt(format('SELECT entanglement.synchronize(%s)',
        concat_ws(', ', quote_nullable(relation), more)))
$$;
SELECT entanglement.set_node_name('here');
CREATE TEMPORARY TABLE before AS SELECT * FROM pg_temp.counts();
\set ECHO all

-- existing rows become objects of the session's owner, or wait for a peer's
CREATE TABLE taken (id integer PRIMARY KEY, v text);
CREATE TABLE waiting (LIKE taken INCLUDING ALL);
INSERT INTO taken VALUES (1, 'a'), (2, 'b');
INSERT INTO waiting SELECT * FROM taken;
SELECT pg_temp.synchronize('taken', 'priority => -3');
SELECT pg_temp.synchronize('waiting', 'take_over => false');
SELECT id, entanglement.owner_of(t) FROM taken t ORDER BY id;
SELECT id, entanglement.owner_of(w) FROM waiting w ORDER BY id;

-- keys: of several columns, by index, of a partitioned table
CREATE TABLE pair (b integer, a text, v text, PRIMARY KEY (a, b));
CREATE TABLE named (id integer PRIMARY KEY, code text NOT NULL, twice integer
    GENERATED ALWAYS AS (id * 2) STORED);
CREATE UNIQUE INDEX named_code ON named (code) INCLUDE (id);
CREATE TABLE parted (id integer PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
INSERT INTO parted VALUES (1);
SELECT pg_temp.synchronize('pair', $$capture => 'trigger'$$);
SELECT pg_temp.synchronize('named', $$index => 'named_code'$$);
SELECT pg_temp.synchronize('parted');
SELECT * FROM entanglement.tables ORDER BY relation::text;

-- only who has a right on a table sees it
SET ROLE regress_plain;
SELECT relation FROM entanglement.tables ORDER BY relation::text;
RESET ROLE;
GRANT SELECT (v) ON taken TO regress_plain;
GRANT INSERT ON pair TO regress_plain;
SET ROLE regress_plain;
SELECT relation FROM entanglement.tables ORDER BY relation::text;
RESET ROLE;

-- what is no table, or no table of the user's
CREATE TABLE nokey (id integer);
CREATE VIEW view AS SELECT * FROM taken;
CREATE MATERIALIZED VIEW matview AS SELECT * FROM taken;
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_server FOREIGN DATA WRAPPER regress_wrapper;
CREATE FOREIGN TABLE far (id integer) SERVER regress_server;
CREATE SEQUENCE sequence;
CREATE TYPE composite AS (id integer);
CREATE TEMPORARY TABLE temporary (id integer PRIMARY KEY);
CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY);
CREATE TABLE "It's" (id integer);
SELECT pg_temp.synchronize('nokey');
SELECT pg_temp.synchronize('"It''s"');
SELECT pg_temp.synchronize('view');
SELECT pg_temp.synchronize('matview');
SELECT pg_temp.synchronize('far');
SELECT pg_temp.synchronize('sequence');
SELECT pg_temp.synchronize('composite');
SELECT pg_temp.synchronize('taken_pkey');
SELECT pg_temp.synchronize('temporary');
SELECT pg_temp.synchronize('unlogged');
SELECT pg_temp.synchronize('part');
SELECT pg_temp.synchronize('pg_catalog.pg_class');
SELECT pg_temp.synchronize('information_schema.sql_features');
SELECT pg_temp.synchronize('entanglement.peer');
SELECT pg_temp.synchronize('entanglement.peers');
SELECT pg_temp.synchronize('missing');
SELECT pg_temp.synchronize('1');
SELECT pg_temp.synchronize('-');
SELECT pg_temp.synchronize(NULL);

-- who may
CREATE TABLE mine (id integer PRIMARY KEY);
ALTER TABLE mine OWNER TO regress_owner;
SELECT pg_temp.attempt($$SELECT entanglement.synchronize('mine')$$, 'regress_owner');
GRANT EXECUTE ON FUNCTION entanglement.synchronize, entanglement.desynchronize
    TO regress_owner, regress_plain;
SELECT pg_temp.attempt($$SELECT entanglement.synchronize('mine')$$, 'regress_plain');
SELECT pg_temp.attempt($$SELECT entanglement.synchronize('pg_catalog.pg_class')$$, 'regress_plain');
SELECT pg_temp.attempt($$SELECT entanglement.synchronize('mine')$$, 'regress_owner');
GRANT EXECUTE ON FUNCTION entanglement.capture_trigger, entanglement.request_trigger, entanglement.truncate_trigger
    TO regress_owner;
SELECT pg_temp.attempt($$SELECT entanglement.synchronize('mine')$$, 'regress_owner');
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('mine')$$, 'regress_plain');
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('mine')$$, 'regress_owner');

-- keys that are none
CREATE TABLE k (id integer NOT NULL, n integer, t text NOT NULL, i interval NOT NULL,
    j jsonb NOT NULL, g integer GENERATED ALWAYS AS (id + 1) STORED NOT NULL,
    later integer NOT NULL UNIQUE DEFERRABLE,
    CONSTRAINT k_primary PRIMARY KEY (id) DEFERRABLE);
CREATE UNIQUE INDEX k_expression ON k ((id + 1));
CREATE UNIQUE INDEX k_mixed ON k (id, lower(t));
CREATE UNIQUE INDEX k_condition ON k (id) WHERE n > 0;
CREATE UNIQUE INDEX k_null ON k (n);
CREATE UNIQUE INDEX k_interval ON k (i);
CREATE UNIQUE INDEX k_jsonb ON k (j);
CREATE UNIQUE INDEX k_generated ON k (g);
CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false);
CREATE UNIQUE INDEX k_loose ON k (t COLLATE loose);
CREATE INDEX k_many ON k (id);
SELECT pg_temp.synchronize('k');
SELECT pg_temp.synchronize('k', format('index => %L', x)) FROM unnest(ARRAY[
    'k_primary', 'k_later_key', 'k_expression', 'k_mixed', 'k_condition',
    'k_null', 'k_interval', 'k_jsonb', 'k_generated', 'k_loose', 'k_many',
    'taken_pkey', 'k', 'missing', '1']) x;

-- how
SELECT pg_temp.synchronize('k', $$capture => 'nonsense'$$);
SELECT pg_temp.synchronize('k', $$capture => 'wal'$$);
SELECT pg_temp.synchronize('k', 'capture => NULL');
SELECT pg_temp.synchronize('k', $$priority => 'high'$$);
SELECT pg_temp.synchronize('taken');

-- desynchronize
SELECT pg_temp.attempt('SELECT entanglement.desynchronize(NULL)');
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('nokey')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('part')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('view')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('missing')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('1')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('taken')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('taken')$$);
SELECT * FROM taken ORDER BY id;
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(t) FROM taken t$$);
SELECT tgname FROM pg_trigger WHERE tgrelid = 'taken'::regclass;
-- and again, with another key
CREATE UNIQUE INDEX taken_v ON taken (v);
ALTER TABLE taken ALTER v SET NOT NULL;
SELECT pg_temp.synchronize('taken', $$index => 'taken_v'$$);
SELECT id, entanglement.owner_of(t) FROM taken t ORDER BY id;

-- the key and the triggers stay as long as the table is synchronized; the
-- index may be built anew
SELECT pg_temp.attempt('ALTER TABLE pair DROP CONSTRAINT pair_pkey');
SELECT pg_temp.attempt('ALTER TABLE pair DROP CONSTRAINT pair_pkey CASCADE');
-- (what PostgreSQL says of it differs between versions)
SELECT left(pg_temp.attempt('ALTER TABLE pair ALTER b TYPE bigint'), 5);
SELECT pg_temp.attempt('ALTER TABLE pair DROP a');
SELECT pg_temp.attempt('DROP INDEX named_code');
SELECT pg_temp.attempt('DROP TRIGGER entanglement_capture ON pair');
SELECT pg_temp.attempt('DROP TRIGGER entanglement_truncate ON pair');
SELECT pg_temp.attempt('DROP TRIGGER entanglement_truncate ON part');
SELECT pg_temp.attempt('DROP TRIGGER entanglement_request ON pair');
SELECT pg_temp.attempt('ALTER TABLE pair SET UNLOGGED');
SELECT pg_temp.attempt('ALTER TABLE part SET UNLOGGED');
ALTER TABLE pair RENAME CONSTRAINT pair_pkey TO pair_key;
ALTER TABLE pair ALTER v TYPE varchar;
REINDEX TABLE CONCURRENTLY pair;
INSERT INTO pair VALUES (1, 'a');
SELECT entanglement.owner_of(p) FROM pair p;
SELECT key FROM entanglement.tables WHERE relation = 'pair'::regclass;

-- partitions that come and go take their triggers with them
CREATE TABLE apart (id integer PRIMARY KEY);
ALTER TABLE parted ATTACH PARTITION apart FOR VALUES FROM (10) TO (20);
CREATE TABLE born PARTITION OF parted FOR VALUES FROM (20) TO (30);
CREATE VIEW triggers AS
    SELECT tgrelid::regclass, tgname FROM pg_trigger
     WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('parted')
                       UNION SELECT 'part'::regclass) AND NOT tgisinternal
     ORDER BY tgrelid::regclass::text COLLATE "C", tgname;
TABLE triggers;
ALTER TABLE parted DETACH PARTITION part;
TABLE triggers;
DROP TABLE born;
SELECT relid FROM entanglement.partition;
-- what is not ours is not replaced
CREATE TABLE taken_name (LIKE parted INCLUDING ALL);
CREATE TRIGGER entanglement_truncate BEFORE TRUNCATE ON taken_name
    EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger();
SELECT pg_temp.attempt('ALTER TABLE parted ATTACH PARTITION taken_name FOR VALUES FROM (20) TO (30)');
CREATE TABLE also (LIKE parted INCLUDING ALL);
SELECT pg_temp.synchronize('also');
SELECT pg_temp.attempt('ALTER TABLE parted ATTACH PARTITION also FOR VALUES FROM (20) TO (30)');
DROP VIEW triggers;

-- what is dropped leaves nothing behind, whatever drops it
SELECT entanglement.drain();
DROP TABLE waiting, parted;
SET search_path = public;
DROP SCHEMA tables CASCADE;
SELECT * FROM entanglement.tables;
SELECT * FROM pg_temp.counts() EXCEPT SELECT * FROM before;
SELECT (SELECT count(*) FROM entanglement.change) +
       (SELECT count(*) FROM entanglement.object);

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA entanglement FROM regress_owner, regress_plain;
DROP FOREIGN DATA WRAPPER regress_wrapper CASCADE;
DROP ROLE regress_owner, regress_plain;
SELECT entanglement.set_node_name(current_database());
