-- Promise: a node has one name and one default owner; owners have names that
-- are theirs alone; a row belongs to the owner that the session names, and
-- what cannot be is refused with a reason.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
DROP ROLE IF EXISTS regress_plain;
CREATE ROLE regress_plain;
\set ECHO all
SELECT n.name = pg_catalog.current_database(), n.default_owner = n.name,
       n.version = e.extversion || '.0', n.id IS NOT NULL
  FROM entanglement.node n, pg_catalog.pg_extension e
 WHERE e.extname = 'entanglement';

-- the node's name; its default owner is renamed along
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name('')$$);
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name(repeat('n', 64))$$);
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name(repeat('ö', 32))$$);
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name('x')$$, 'regress_plain');
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name(repeat('n', 63))$$);
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name('My node')$$);
SELECT name, default_owner FROM entanglement.node;

-- owners
SELECT pg_temp.attempt($$SELECT entanglement.create_owner(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.create_owner('')$$);
SELECT pg_temp.attempt($$SELECT entanglement.create_owner(repeat('o', 64))$$);
SELECT pg_temp.attempt($$SELECT entanglement.create_owner('team', NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.create_owner('team', 'no uuid')$$);
SELECT pg_temp.attempt($$SELECT entanglement.create_owner('team')$$, 'regress_plain');
SELECT entanglement.create_owner('team', '00000000-0000-4000-8000-000000000001');
SELECT pg_temp.attempt($$SELECT entanglement.create_owner('team')$$);
SELECT pg_temp.attempt($$SELECT entanglement.create_owner('other', '00000000-0000-4000-8000-000000000001')$$);
SELECT name, local, peer, distance, epoch, have FROM entanglement.owners WHERE local ORDER BY name;

-- the node cannot take a name that its default owner cannot have
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name('team')$$);
SELECT pg_temp.attempt($$SELECT entanglement.set_node_name('My node')$$);

-- who owns a new row: the session's owner, or the default one
CREATE TABLE item (id integer PRIMARY KEY, v text);
SELECT entanglement.synchronize('item');
INSERT INTO item VALUES (1, 'default');
SET entanglement.owner = 'team';
INSERT INTO item VALUES (2, 'team');
SET entanglement.owner = 'nobody';
SELECT pg_temp.attempt($$INSERT INTO item VALUES (3, 'nobody')$$);
SELECT pg_temp.attempt($$UPDATE item SET v = 'anybody' WHERE id = 2$$);
SELECT pg_temp.attempt(format('SET entanglement.owner = %L', repeat('o', 100)));
RESET entanglement.owner;
INSERT INTO item VALUES (4, 'default again');
SELECT id, entanglement.owner_of(i) FROM item i ORDER BY id;
-- the same when they are folded, and when the key changes
SELECT entanglement.drain();
UPDATE item SET id = 5 WHERE id = 2;
SELECT id, entanglement.owner_of(i) FROM item i ORDER BY id;

-- owner_of takes rows of synchronized tables, and nothing else
CREATE TABLE other (id integer PRIMARY KEY);
INSERT INTO other VALUES (1);
CREATE VIEW item_view AS SELECT * FROM item;
SELECT entanglement.owner_of(NULL::item);
SELECT entanglement.owner_of(NULL);
SELECT entanglement.owner_of((NULL, 'x')::item);
SELECT entanglement.owner_of((99, 'x')::item);
SELECT entanglement.owner_of((1, 'x')::item);
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(o) FROM other o$$);
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(w) FROM item_view AS w$$);
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(ROW(1, 'x'))$$);
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(s) FROM (SELECT id FROM item) s$$);
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(c) FROM pg_catalog.pg_class c$$);
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(1)$$);
GRANT SELECT ON item TO regress_plain;
SELECT pg_temp.attempt($$SELECT entanglement.owner_of(i) FROM item i$$, 'regress_plain');

DROP VIEW item_view;
DROP TABLE item, other;
DROP ROLE regress_plain;
SELECT entanglement.set_node_name(current_database());
