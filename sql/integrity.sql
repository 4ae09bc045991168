-- Promise: a table with integrity takes along what it references, is sent after
-- it unless the user wants it otherwise, and what would break that is refused
-- with the way out.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
CREATE ROLE regress_owner;
CREATE ROLE regress_other;
CREATE SCHEMA integrity;
GRANT USAGE, CREATE ON SCHEMA integrity TO regress_owner, regress_other;
SET search_path = integrity, public;
CREATE FUNCTION pg_temp.synchronize(relation text, more text DEFAULT 'integrity => true',
    role text DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.attempt(format('SELECT entanglement.synchronize(%L, %s)', relation, more), role)
$$;
CREATE FUNCTION pg_temp.leave(VARIADIC relations regclass[])
RETURNS void LANGUAGE sql AS $$
    SELECT entanglement.desynchronize(r) FROM unnest(relations) WITH ORDINALITY u (r, n) ORDER BY n
$$;
CREATE VIEW pg_temp.ranks AS
    SELECT relation, priority, integrity FROM entanglement.tables
     WHERE relation::text NOT LIKE 'public.%' ORDER BY relation::text COLLATE "C";
SELECT entanglement.set_node_name('here');
CREATE TEMPORARY TABLE before AS SELECT * FROM pg_temp.counts();
\set ECHO all

-- what is referenced is synchronized along, and comes first
CREATE TABLE region (id integer PRIMARY KEY);
CREATE TABLE parent (id integer PRIMARY KEY, code text UNIQUE, region integer REFERENCES region);
CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent,
    code text REFERENCES parent (code), above integer REFERENCES child);
CREATE TABLE grandchild (id integer PRIMARY KEY, child integer REFERENCES child, region integer REFERENCES region);
CREATE TABLE alone (id integer PRIMARY KEY, child integer REFERENCES child);
SET client_min_messages = notice;
SELECT entanglement.synchronize('grandchild', integrity => true);
SET client_min_messages = warning;
SELECT entanglement.synchronize('alone');
SELECT * FROM pg_temp.ranks;

-- nobody leaves whom the others need
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('child')$$);
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('region')$$);
SELECT pg_temp.leave('grandchild', 'child', 'parent', 'region', 'alone');

-- rows of all tables that come along are taken over, or none are
INSERT INTO region VALUES (1);
INSERT INTO parent VALUES (1, 'a', 1);
SELECT entanglement.synchronize('parent', integrity => true, take_over => false);
SELECT entanglement.owner_of(r) FROM region r;
SELECT pg_temp.leave('parent', 'region');
SELECT entanglement.synchronize('parent', integrity => true);
SELECT entanglement.owner_of(r) FROM region r;
SELECT pg_temp.leave('parent', 'region');

-- the user's priority stays, and what references it comes after
SELECT entanglement.synchronize('parent', integrity => true, priority => 7);
SELECT entanglement.synchronize('child', integrity => true);
SELECT entanglement.synchronize('grandchild', integrity => true, priority => -1);
SELECT * FROM pg_temp.ranks;
SELECT pg_temp.leave('grandchild', 'child', 'parent', 'region');

-- circles share one; a table that takes part already gets integrity
CREATE TABLE egg (id integer PRIMARY KEY, hen integer);
CREATE TABLE hen (id integer PRIMARY KEY, egg integer REFERENCES egg DEFERRABLE INITIALLY DEFERRED,
    region integer REFERENCES region);
ALTER TABLE egg ADD CONSTRAINT egg_hen_fkey FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE feather (id integer PRIMARY KEY, hen integer REFERENCES hen);
SELECT entanglement.synchronize('region');
SELECT entanglement.synchronize('egg', integrity => true);
SELECT entanglement.synchronize('feather', integrity => true);
SELECT * FROM pg_temp.ranks;
SELECT pg_temp.attempt($$SELECT entanglement.desynchronize('hen')$$);

-- foreign keys come and go
CREATE TABLE farm (id integer PRIMARY KEY);
ALTER TABLE region ADD COLUMN farm integer;
SELECT pg_temp.attempt($$ALTER TABLE region ADD FOREIGN KEY (farm) REFERENCES farm$$);
SELECT entanglement.synchronize('farm');
ALTER TABLE region ADD FOREIGN KEY (farm) REFERENCES farm;
SELECT * FROM pg_temp.ranks;
ALTER TABLE region DROP CONSTRAINT region_farm_fkey;
ALTER TABLE egg DROP CONSTRAINT egg_hen_fkey;
SELECT * FROM pg_temp.ranks;
SELECT pg_temp.leave('feather', 'hen', 'egg', 'region', 'farm');

-- partitions, and foreign keys that only a partition has
CREATE TABLE part_parent (id integer PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_parent_1 PARTITION OF part_parent FOR VALUES FROM (0) TO (10);
CREATE TABLE part_child (id integer PRIMARY KEY, parent integer) PARTITION BY RANGE (id);
CREATE TABLE part_child_1 PARTITION OF part_child FOR VALUES FROM (0) TO (10);
ALTER TABLE part_child_1 ADD FOREIGN KEY (parent) REFERENCES part_parent_1;
SELECT entanglement.synchronize('part_child', integrity => true);
SELECT * FROM pg_temp.ranks;
SELECT pg_temp.leave('part_child', 'part_parent');

-- what cannot be synchronized keeps its children from it
CREATE TABLE nokey (id integer UNIQUE);
CREATE TABLE on_nokey (id integer PRIMARY KEY, n integer REFERENCES nokey (id));
SELECT pg_temp.synchronize('on_nokey');
SELECT pg_temp.synchronize('on_nokey', 'integrity => NULL');
SELECT pg_temp.leave('on_nokey');

-- whose tables they are
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA entanglement TO regress_other;
CREATE TABLE others (id integer PRIMARY KEY);
CREATE TABLE mine (id integer PRIMARY KEY, o integer REFERENCES others);
ALTER TABLE others OWNER TO regress_owner;
ALTER TABLE mine OWNER TO regress_other;
SELECT pg_temp.synchronize('mine', role => 'regress_other');
SELECT entanglement.synchronize('others');
SELECT pg_temp.synchronize('mine', role => 'regress_other');
SELECT pg_temp.synchronize('mine', 'integrity => false', 'regress_other');
SELECT * FROM pg_temp.ranks;
SELECT pg_temp.leave('mine', 'others');

\set ECHO none
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA entanglement FROM regress_other;
SELECT * FROM pg_temp.counts() EXCEPT SELECT * FROM before;
DROP VIEW pg_temp.ranks;
\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA integrity CASCADE;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA entanglement FROM regress_owner, regress_other;
DROP ROLE regress_owner, regress_other;
SELECT entanglement.set_node_name(current_database());
