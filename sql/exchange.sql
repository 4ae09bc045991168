-- Promise: the exchange is for nodes. Whoever else calls it, a person or a
-- login that stands for a peer and means harm, gets a precise error and
-- changes nothing; after an error the session is over.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
CREATE ROLE regress_peer LOGIN;
CREATE ROLE regress_other LOGIN;
CREATE ROLE regress_super SUPERUSER;
CREATE TABLE item (id integer PRIMARY KEY, v text);
INSERT INTO item VALUES (1, 'one');
GRANT SELECT, INSERT, UPDATE, DELETE ON item TO regress_peer;
SELECT entanglement.set_node_name('here');
SELECT entanglement.synchronize('item');
SELECT entanglement.add_peer('mallory', role => 'regress_peer');
GRANT EXECUTE ON FUNCTION entanglement.hello, entanglement.push TO regress_other;
GRANT EXECUTE ON PROCEDURE entanglement.pull, entanglement.stream TO regress_other;
-- The bytes of a hello as docs/protocol.md has them.
CREATE FUNCTION pg_temp.hello(node uuid, name text, versions text DEFAULT '0101')
RETURNS bytea LANGUAGE sql AS $$
    SELECT '\xE701000001'::bytea || decode(lpad(to_hex(length(body)), 2, '0'), 'hex') || body
      FROM (SELECT decode(versions, 'hex') || uuid_send(node) ||
                   decode(lpad(to_hex(octet_length(name)), 2, '0'), 'hex') ||
                   convert_to(name, 'UTF8') || '\x00'::bytea) b (body)
$$;
\set there '''5e000000-0000-4000-8000-000000000001'''
SELECT quote_literal(id) AS here FROM entanglement.node \gset
CREATE TEMPORARY TABLE before AS SELECT * FROM pg_temp.counts();
GRANT SELECT ON before TO PUBLIC;
\set ECHO all

-- a person
SET SESSION AUTHORIZATION regress_super;
SELECT pg_temp.attempt($$SELECT entanglement.hello(NULL, '')$$);
SELECT pg_temp.attempt($$SELECT entanglement.hello('push', NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.hello('pop', '')$$);
SELECT hello, pg_temp.attempt(format('SELECT entanglement.hello(''push'', %L)', hello))
  FROM (VALUES ('\x'::bytea), ('\x00'), ('\xE7'), ('\xE70000'), ('\xE7010000'),
    ('\xE70100000100'), ('\xE7010000017F'), ('\xE7010100010101'),
    ('\xE70100000C00'), ('\xE701000001020100'), ('\xE701000001020001')) h (hello);
SELECT pg_temp.attempt(format($$SELECT entanglement.hello('push', %L)$$,
    pg_temp.hello(:there, '')));
SELECT pg_temp.attempt(format($$SELECT entanglement.hello('push', %L)$$,
    pg_temp.hello(:there, 'future', '0908')));
SELECT pg_temp.attempt(format($$SELECT entanglement.hello('push', %L)$$,
    pg_temp.hello(:there, 'mallory')));
SELECT replace(pg_temp.attempt(format($$SELECT entanglement.hello('pull', %L)$$,
    pg_temp.hello(:here, 'mallory'))), :here, 'here');
SELECT pg_temp.attempt($$SELECT entanglement.push(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.push('')$$);
SELECT pg_temp.attempt($$CALL entanglement.pull('')$$);
CALL entanglement.pull('', NULL);
\echo :LAST_ERROR_SQLSTATE
BEGIN;
CALL entanglement.pull('', NULL);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
CALL entanglement.stream('push');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
CALL entanglement.stream('push');
CALL entanglement.stream('verify');
RESET SESSION AUTHORIZATION;

-- roles without the right, and with the right but no peer
SELECT pg_temp.hello(:there, 'mallory') AS hello \gset
SET SESSION AUTHORIZATION regress_other;
SELECT entanglement.hello('push', :'hello');
\echo :LAST_ERROR_SQLSTATE
RESET SESSION AUTHORIZATION;
REVOKE ALL ON FUNCTION entanglement.hello, entanglement.push FROM regress_other;
REVOKE ALL ON PROCEDURE entanglement.pull, entanglement.stream FROM regress_other;
SET SESSION AUTHORIZATION regress_other;
SELECT entanglement.hello('push', '\x');
SELECT entanglement.push('\x');
CALL entanglement.pull('\x');
CALL entanglement.stream('push');
RESET SESSION AUTHORIZATION;

-- a peer's login: what it says is taken for a batch, once it said hello
SET SESSION AUTHORIZATION regress_peer;
SELECT entanglement.hello('push', :'hello') IS NOT NULL;
-- the direction is fixed
CALL entanglement.pull('\xE7010000');
\echo :LAST_ERROR_SQLSTATE
SELECT entanglement.push('\xE7010001') = '\xE7010001120100';
-- the next number is 2; an error ends the session
SELECT entanglement.push('\xE7010001');
\echo :LAST_ERROR_SQLSTATE
SELECT entanglement.push('\xE7010002');
\echo :LAST_ERROR_SQLSTATE
\set greet 'SELECT entanglement.hello(''push'', :''hello'') IS NOT NULL;'
-- garbage and pieces: nothing, no magic, another version, a flag, no number, a
-- section cut off, of an unknown type, an owner without a body, objects of
-- nothing that was announced, a claim, a hello, a section from a receiver
:greet
SELECT entanglement.push('\x');
:greet
SELECT entanglement.push('\x00010001');
:greet
SELECT entanglement.push('\xE7020001');
:greet
SELECT entanglement.push('\xE7010201');
:greet
SELECT entanglement.push('\xE70100');
:greet
SELECT entanglement.push('\xE701000104');
:greet
SELECT entanglement.push('\xE7010001047F00');
:greet
SELECT entanglement.push('\xE70100013F00');
:greet
SELECT entanglement.push('\xE70100017F00') = '\xE7010001120100';
SELECT entanglement.push('\xE70100020200');
:greet
SELECT entanglement.push('\xE70100010403000001');
:greet
SELECT entanglement.push('\xE70100010503000101');
:greet
SELECT entanglement.push('\xE70100010100');
:greet
SELECT entanglement.push('\xE70100010800');
:greet
SELECT entanglement.push(NULL);
\echo :LAST_ERROR_SQLSTATE
-- a session whose transaction is rolled back is over, too
:greet
BEGIN;
SELECT entanglement.push('\xE7010001') IS NOT NULL;
ROLLBACK;
SELECT entanglement.push('\xE7010002');
BEGIN;
:greet
ROLLBACK;
SELECT entanglement.push('\xE7010001');
-- pull: the answer must be to what was sent
SELECT entanglement.hello('pull', :'hello') IS NOT NULL;
SELECT entanglement.push('\xE7010001');
BEGIN;
CALL entanglement.pull('\xE7010000');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT entanglement.hello('pull', :'hello') IS NOT NULL;
CALL entanglement.pull(NULL);
SELECT entanglement.hello('pull', :'hello') IS NOT NULL;
CALL entanglement.pull('\x');
SELECT entanglement.hello('pull', :'hello') IS NOT NULL;
CALL entanglement.pull('\xE7010007');
SELECT entanglement.hello('pull', :'hello') IS NOT NULL;
CALL entanglement.pull('\xE7010000') \gset
SELECT substr(:'batch'::bytea, 1, 4);
CALL entanglement.pull('\xE701000104');
RESET SESSION AUTHORIZATION;

-- it got to see no more than a peer is told, and changed nothing but that the
-- peer is now bound to the node that it said it was
SELECT * FROM item;
SELECT * FROM pg_temp.counts() EXCEPT SELECT * FROM before;
SELECT name, state <> 'connected' FROM entanglement.peers;
-- one who says to be another node now is told so, and a paused one that it is
SELECT pg_temp.hello('5e000000-0000-4000-8000-000000000002', 'mallory') AS other \gset
SET SESSION AUTHORIZATION regress_peer;
SELECT entanglement.hello('push', :'other');
RESET SESSION AUTHORIZATION;
SELECT entanglement.pause_peer('mallory');
SET SESSION AUTHORIZATION regress_peer;
SELECT entanglement.hello('push', :'hello');
RESET SESSION AUTHORIZATION;

SELECT entanglement.drop_peer('mallory');
DROP TABLE item;
DROP OWNED BY regress_other;
DROP ROLE regress_peer, regress_other, regress_super;
SELECT entanglement.set_node_name(current_database());
