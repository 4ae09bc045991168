-- Promise: nodes that are databases of one server, in a chain a - b - c linked
-- over the Unix socket, hold the same rows; each row can be changed at its
-- owner's home alone; an extension that is dropped while links are up comes
-- back as a new node.
\set ECHO none
SET client_min_messages = warning;
\set home :DBNAME
-- Peers log in over the Unix socket without a password; three collectors and
-- two dialers run. Where pg_hba.conf does not let them in, as Debian's own does
-- not, or no worker is left for them, there is nothing to wait for.
SELECT coalesce((SELECT auth_method FROM pg_hba_file_rules
        WHERE type = 'local' AND 'all' = ANY (database)
            AND ARRAY['all', 'regress_a'] && user_name
        ORDER BY line_number LIMIT 1), '') <> 'trust'
    OR current_setting('max_worker_processes')::integer - 5 <
        (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type ~ '^(entanglement|logical replication) ')
    AS passed_over \gset
\if :passed_over
\echo passed over: it takes local connections by trust, and five free background workers
\quit
\endif
DROP DATABASE IF EXISTS regress_a;
DROP DATABASE IF EXISTS regress_b;
DROP DATABASE IF EXISTS regress_c;
DROP DATABASE IF EXISTS regress_d;
CREATE ROLE regress_a LOGIN;
CREATE ROLE regress_b LOGIN;
CREATE ROLE regress_c LOGIN;
CREATE DATABASE regress_a TEMPLATE template0;
CREATE DATABASE regress_b TEMPLATE template0;
CREATE DATABASE regress_c TEMPLATE template0;
SELECT format('host=%s port=%s', trim(split_part(
           current_setting('unix_socket_directories'), ',', 1)),
       current_setting('port')) AS socket \gset
\pset format unaligned
\pset tuples_only on
\pset null NULL
-- Each node has the same tables, open to the peers.
\set setup 'SET client_min_messages = warning; CREATE EXTENSION entanglement; CREATE TABLE item (id integer PRIMARY KEY, v text, n integer); GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; SELECT FROM entanglement.synchronize(\'item\');'
\set wait 'CREATE FUNCTION wait_for(condition text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE deadline timestamptz := clock_timestamp() + \'60 s\'; met boolean; BEGIN WHILE clock_timestamp() < deadline LOOP EXECUTE \'SELECT \' || condition INTO met; IF met THEN RETURN \'so it is\'; END IF; PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); END LOOP; RETURN \'not within a minute\'; END $$;'
\set items 'SELECT id, v, n, entanglement.owner_of(i) FROM item i ORDER BY id;'
\c regress_a
:setup
:wait
SELECT FROM entanglement.set_node_name('a');
\c regress_b
:setup
:wait
SELECT FROM entanglement.set_node_name('b');
\c regress_c
:setup
:wait
SELECT FROM entanglement.set_node_name('c');
\set ECHO all

-- a dials b
\c regress_a
INSERT INTO item VALUES (1, 'a', 1), (4, 'a', 4);
SELECT entanglement.add_peer('b', :'socket' || ' dbname=regress_b user=regress_a', 'regress_b');
\c regress_b
INSERT INTO item VALUES (2, 'b', 2);
SELECT state FROM entanglement.peers;
SELECT entanglement.add_peer('a', role => 'regress_a');
SELECT wait_for($$state = 'connected' FROM entanglement.peers$$);
SELECT wait_for('count(*) = 3 FROM item');
SELECT entanglement.drain('a');
:items
\c regress_a
:items
SELECT name, role, dialed, state, last_error, waiting_for, fingerprint, queued,
       objects_sent, objects_received FROM entanglement.peers;
SELECT name, local, peer, distance, epoch FROM entanglement.owners ORDER BY name;

-- changed columns, a changed key, a deletion
UPDATE item SET v = 'changed' WHERE id = 1;
SELECT entanglement.drain('b');
UPDATE item SET n = 10 WHERE id = 1;
UPDATE item SET id = 5 WHERE id = 4;
SELECT entanglement.drain('b');
\c regress_b
:items
\c regress_a
DELETE FROM item WHERE id = 5;
SELECT entanglement.drain('b');
\c regress_b
:items

-- b dials c: all that b has goes on
SELECT entanglement.add_peer('c', :'socket' || ' dbname=regress_c user=regress_b', 'regress_c');
\c regress_c
SELECT entanglement.add_peer('b', role => 'regress_b');
INSERT INTO item VALUES (3, 'c', 3);
SELECT wait_for('count(*) = 3 FROM item');
:items
SELECT wait_for('count(*) = 3 FROM entanglement.owners');
SELECT name, local, peer, distance FROM entanglement.owners ORDER BY name;
SELECT entanglement.drain();
\c regress_b
SELECT entanglement.drain();
SELECT name, local, peer, distance FROM entanglement.owners ORDER BY name;
\c regress_a
SELECT wait_for('count(*) = 3 FROM item');
:items
SELECT name, local, peer, distance FROM entanglement.owners ORDER BY name;

-- what another node owns is changed there: a request
\unset QUIET
BEGIN;
UPDATE item SET v = 'mine' WHERE id = 3;
DELETE FROM item WHERE id = 2;
:items
SELECT operation, changes, state FROM entanglement.requests ORDER BY made_at;
ROLLBACK;
SELECT entanglement.last_request();
UPDATE item SET id = 30 WHERE id = 3;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE item;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO item VALUES (3, 'mine');
INSERT INTO item VALUES (3, 'mine', 0) ON CONFLICT (id) DO UPDATE SET v = 'mine';
SELECT entanglement.wait_for(entanglement.last_request());
INSERT INTO item VALUES (3, 'mine', 0) ON CONFLICT (id) DO NOTHING;
SET entanglement.owner = 'c';
INSERT INTO item VALUES (6, 'c', 6);
SELECT entanglement.wait_for(entanglement.last_request());
\echo :LAST_ERROR_SQLSTATE
RESET entanglement.owner;
\set QUIET on
:items
SELECT relation, key, owner, operation, changes, state, sqlstate, message, detail,
       serial IS NOT NULL AS serial, peer, decided_at >= made_at AS decided
  FROM entanglement.requests ORDER BY made_at;
\c regress_b
SELECT operation, state, sqlstate, peer, role FROM entanglement.requests ORDER BY made_at;
\c regress_a

-- a pause: nothing is lost, the last state arrives
SELECT entanglement.pause_peer('b');
SELECT state FROM entanglement.peers;
SELECT entanglement.drain('b', '0 s');
UPDATE item SET v = 'between' WHERE id = 1;
UPDATE item SET v = 'last' WHERE id = 1;
\c regress_b
SELECT wait_for($$state <> 'connected' FROM entanglement.peers WHERE name = 'a'$$);
UPDATE item SET v = 'b during the pause' WHERE id = 2;
SELECT v FROM item WHERE id = 1;
\c regress_a
SELECT entanglement.resume_peer('b');
SELECT entanglement.drain('b');
SELECT wait_for($$v = 'b during the pause' FROM item WHERE id = 2$$);
\c regress_c
SELECT wait_for($$v = 'last' FROM item WHERE id = 1$$);
:items

-- what one node has and the next lacks
\c regress_a
CREATE TABLE only_a (id integer PRIMARY KEY);
GRANT SELECT ON only_a TO PUBLIC;
SELECT entanglement.synchronize('only_a');
ALTER TABLE item ADD extra text;
INSERT INTO item VALUES (7, 'a', 7, 'more');
SELECT entanglement.drain('b');
\c regress_b
SELECT wait_for($$waiting_for = 'public.item.extra, public.only_a'
    FROM entanglement.peers WHERE name = 'a'$$);
ALTER TABLE item ADD extra text;
SELECT wait_for($$extra = 'more' FROM item WHERE id = 7$$);
SELECT wait_for($$waiting_for = 'public.only_a'
    FROM entanglement.peers WHERE name = 'a'$$);

-- a row that cannot be stored waits alone
ALTER TABLE item ADD CONSTRAINT small CHECK (n < 100);
\c regress_a
INSERT INTO item VALUES (8, 'large', 800), (9, 'small', 9);
SELECT entanglement.drain('b');
\c regress_b
SELECT id FROM item WHERE id > 7;
SELECT relation, key, owner, peer, sqlstate, message FROM entanglement.parked_rows;
\c regress_a
DELETE FROM item WHERE id = 8;
SELECT entanglement.drain('b');
\c regress_b
SELECT * FROM entanglement.parked_rows;

-- the extension dropped and created again while the link is up: a new node
\c regress_c
ALTER TABLE item ADD extra text;
SELECT wait_for($$count(*) = 5 FROM item$$);
SELECT id AS old FROM entanglement.node \gset
SET client_min_messages = warning;
DROP EXTENSION entanglement CASCADE;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'item'::regclass;
SELECT id, v FROM item ORDER BY id;
UPDATE item SET v = 'free' WHERE id = 1;
CREATE EXTENSION entanglement;
SELECT id <> :'old' FROM entanglement.node;
SELECT entanglement.set_node_name('c');
SELECT entanglement.synchronize('item', take_over => false);
SELECT entanglement.add_peer('b', role => 'regress_b');
\c regress_b
SELECT wait_for($$last_error LIKE '28000: peer "c" is another node than before%'
    FROM entanglement.peers WHERE name = 'c'$$);
SELECT entanglement.alter_peer('c', reset => '{node}');
SELECT wait_for($$state = 'connected' FROM entanglement.peers WHERE name = 'c'$$);
\c regress_c
SELECT wait_for($$v = 'last' FROM item WHERE id = 1$$);
SELECT id, v, entanglement.owner_of(i) FROM item i WHERE id < 3 ORDER BY id;

-- a database whose workers are at work is renamed, copied, dropped; one that
-- another node dials is in use by that node, until it is paused
\c regress_a
SELECT entanglement.pause_peer('b');
\c regress_b
SELECT entanglement.pause_peer('c');
SELECT wait_for($$count(*) = 0 FROM pg_stat_activity
    WHERE datname IN ('regress_b', 'regress_c') AND usename IN ('regress_a', 'regress_b')$$);
\c :home
ALTER DATABASE regress_b RENAME TO regress_d;
CREATE DATABASE regress_b TEMPLATE regress_d;
DROP DATABASE regress_d;
DROP DATABASE regress_b;
DROP DATABASE regress_a;
DROP DATABASE regress_c;
DROP ROLE regress_a, regress_b, regress_c;
