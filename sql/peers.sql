-- Promise: a peer is what an administrator said, or the call is refused with
-- the reason; secrets stay with superusers; rights on the exchange come and
-- go with the peers of a role.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
CREATE ROLE regress_peer LOGIN;
CREATE ROLE regress_nologin;
CREATE ROLE regress_bypass LOGIN BYPASSRLS;
CREATE ROLE regress_super LOGIN SUPERUSER;
CREATE ROLE regress_replication LOGIN REPLICATION;
CREATE ROLE regress_reach LOGIN IN ROLE pg_read_all_data, regress_bypass;
CREATE ROLE regress_plain;
CREATE ROLE regress_granted;
CREATE ROLE regress_monitor IN ROLE pg_monitor;
GRANT EXECUTE ON FUNCTION entanglement.add_peer, entanglement.alter_peer,
    entanglement.drop_peer, entanglement.pause_peer, entanglement.resume_peer
    TO regress_granted;
CREATE FUNCTION pg_temp.rights(role text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ',
        has_function_privilege(role, 'entanglement.hello(text, bytea)', 'EXECUTE'),
        has_function_privilege(role, 'entanglement.push(bytea)', 'EXECUTE'),
        has_function_privilege(role, 'entanglement.pull(bytea, bytea)', 'EXECUTE'))
$$;
CREATE TEMPORARY TABLE before AS SELECT * FROM pg_temp.counts();
\set ECHO all

-- add_peer: names
SELECT pg_temp.attempt($$SELECT entanglement.add_peer(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('', role => 'regress_peer')$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer(repeat('p', 64), role => 'regress_peer')$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer(repeat('p', 63), role => 'regress_peer')$$);
SELECT entanglement.add_peer('alice', role => 'regress_peer', bandwidth => 8000);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('alice', role => 'regress_peer')$$);
SELECT name, role, dialed, state, fingerprint, bandwidth, waiting_for
  FROM entanglement.peers ORDER BY name;
SELECT pg_temp.rights('regress_peer');

-- roles
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => 'regress_missing')$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => '1')$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => '-')$$);
SELECT entanglement.add_peer('nologin', role => 'regress_nologin');
-- none with more than grants, unless told so
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('super', role => 'regress_super')$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('super')$$, 'regress_super');
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('super', role => 'regress_super', privileged => NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('bypass', role => 'regress_bypass')$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => 'regress_replication')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', role => 'regress_bypass')$$);
SELECT entanglement.add_peer('super', role => 'regress_super', privileged => true);
SELECT entanglement.add_peer('bypass', role => 'regress_bypass', privileged => true);
SELECT entanglement.alter_peer('bypass', role => 'regress_replication', privileged => true);
SELECT entanglement.alter_peer('bypass', bandwidth => 8000);
SELECT entanglement.add_peer('reach', role => 'regress_reach');
SELECT name, role, may_see FROM entanglement.peers WHERE name IN ('bypass', 'reach', 'super') ORDER BY name;
SELECT entanglement.drop_peer('reach');

-- what the role can see
SET client_min_messages = notice;
CREATE SCHEMA far;
CREATE TABLE a (id int PRIMARY KEY, v text);
CREATE TABLE far.b (id int PRIMARY KEY, v text);
SELECT count(entanglement.synchronize(t)::text) FROM unnest('{a,far.b}'::regclass[]) t;
SELECT entanglement.add_peer('sees', role => 'regress_reach');
SELECT entanglement.drop_peer('sees');
REVOKE pg_read_all_data, regress_bypass FROM regress_reach;
SELECT entanglement.add_peer('sees', role => 'regress_reach');
SELECT may_see FROM entanglement.peers WHERE name = 'sees';
GRANT SELECT ON far.b TO regress_reach;
GRANT SELECT (v) ON a TO regress_reach;
SELECT entanglement.alter_peer('sees', role => 'regress_nologin');
SELECT entanglement.alter_peer('sees', role => 'regress_reach');
GRANT SELECT (id) ON a TO regress_reach;
SELECT entanglement.may_see('regress_reach');
GRANT USAGE ON SCHEMA far TO regress_reach;
REVOKE SELECT (v) ON a FROM regress_reach;
ALTER TABLE far.b ENABLE ROW LEVEL SECURITY;
SELECT entanglement.alter_peer('sees', role => 'regress_nologin'),
       entanglement.alter_peer('sees', role => 'regress_reach');
SELECT may_see FROM entanglement.peers WHERE name = 'sees';
GRANT SELECT ON a TO regress_reach;
ALTER TABLE far.b OWNER TO regress_reach;
SELECT entanglement.drop_peer('sees'), entanglement.add_peer('sees', role => 'regress_reach');
SELECT may_see FROM entanglement.peers WHERE name = 'sees';
ALTER TABLE far.b FORCE ROW LEVEL SECURITY;
SELECT may_see FROM entanglement.peers WHERE name = 'sees';
ALTER ROLE regress_reach BYPASSRLS;
SELECT may_see FROM entanglement.peers WHERE name = 'sees';
ALTER ROLE regress_reach NOBYPASSRLS;
CREATE TABLE c0 (id int PRIMARY KEY);
CREATE TABLE c1 (id int PRIMARY KEY);
CREATE TABLE "C 2" (id int PRIMARY KEY);
CREATE TABLE c3 (id int PRIMARY KEY);
CREATE TABLE c4 (id int PRIMARY KEY);
CREATE TABLE c5 (id int PRIMARY KEY);
SELECT count(entanglement.synchronize(t)::text) FROM unnest(ARRAY['c0', 'c1', '"C 2"', 'c3', 'c4', 'c5']::regclass[]) t;
SELECT entanglement.drop_peer('sees'), entanglement.add_peer('sees', role => 'regress_reach');
SELECT entanglement.drop_peer('sees');
SELECT entanglement.may_see('0');
SET client_min_messages = warning;
DROP SCHEMA far CASCADE;
DROP TABLE a, c0, c1, "C 2", c3, c4, c5;

-- bandwidth
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => 'regress_peer', bandwidth => 0)$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => 'regress_peer', bandwidth => -1)$$);
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => 'regress_peer', bandwidth => 9223372036854775808)$$);

-- conninfo; what may be a piece of a password is not repeated
SELECT conninfo, pg_temp.attempt(format(
    'SELECT entanglement.add_peer(''x'', %L, ''regress_peer'')', conninfo))
  FROM (VALUES (''), (' '), ('host'), ('nonsense=1'), ('host=''open'),
    ('replication=true host=h'), ('postgresql://u:secret@[h/db'),
    ('password=se cret host=h'), ('host=h password=''sec')) c (conninfo);

-- alter_peer
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('nobody')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', bandwidth => 0)$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', conninfo => 'host')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', role => 'regress_missing')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', new_name => '')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', new_name => repeat('p', 64))$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', new_name => 'super')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', fingerprint => 'ab:cd')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', fingerprint => repeat('g', 64))$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', reset => '{name}')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', reset => '{NULL}')$$);
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alice', bandwidth => 1, reset => '{bandwidth}')$$);
SELECT entanglement.alter_peer('alice');
SELECT entanglement.alter_peer('alice', bandwidth => 16000, new_name => 'alicia',
    fingerprint => repeat('AB:', 31) || 'ab', role => 'regress_nologin');
SELECT name, role, bandwidth, fingerprint FROM entanglement.peers WHERE name = 'alicia';
SELECT entanglement.alter_peer('alicia', reset => '{}');
SELECT entanglement.alter_peer('alicia', reset => '{bandwidth,fingerprint,node,conninfo}',
    role => 'regress_peer');
SELECT name, role, bandwidth, fingerprint FROM entanglement.peers WHERE name = 'alicia';

-- pause_peer, resume_peer; again changes nothing
SELECT pg_temp.attempt($$SELECT entanglement.pause_peer(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.pause_peer('nobody')$$);
SELECT pg_temp.attempt($$SELECT entanglement.resume_peer(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.resume_peer('nobody')$$);
SELECT entanglement.pause_peer('alicia'), entanglement.pause_peer('alicia');
SELECT state FROM entanglement.peers WHERE name = 'alicia';
SELECT entanglement.resume_peer('alicia'), entanglement.resume_peer('alicia');
SELECT state FROM entanglement.peers WHERE name = 'alicia';

-- rights: none; EXECUTE; membership in the role
SELECT statement, pg_temp.attempt(statement, 'regress_plain')
  FROM unnest(ARRAY[$$SELECT entanglement.add_peer('x')$$,
    $$SELECT entanglement.alter_peer('alicia')$$,
    $$SELECT entanglement.drop_peer('alicia')$$,
    $$SELECT entanglement.pause_peer('alicia')$$,
    $$SELECT entanglement.resume_peer('alicia')$$,
    'SELECT * FROM entanglement.peers', 'SELECT * FROM entanglement.peer']) statement;
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', role => 'regress_peer')$$, 'regress_granted');
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('x', 'host=h password=secret', 'regress_granted')$$, 'regress_granted');
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alicia', conninfo => 'host=h')$$, 'regress_granted');
SELECT pg_temp.attempt($$SELECT entanglement.alter_peer('alicia', role => 'regress_super')$$, 'regress_granted');
GRANT regress_peer TO regress_granted;
SELECT pg_temp.attempt($$SELECT entanglement.add_peer('granted', role => 'regress_peer')$$, 'regress_granted');
SELECT pg_temp.attempt($$SELECT entanglement.drop_peer('granted')$$, 'regress_granted');

-- nobody but superusers sees the conninfo; the view has none
SELECT entanglement.add_peer('bob', 'host=/nonexistent dbname=d password=secret', 'regress_peer');
SELECT entanglement.pause_peer('bob');
SELECT pg_temp.attempt('SELECT conninfo FROM entanglement.peer', 'regress_monitor');
SELECT count(*) FROM entanglement.peers p WHERE p::text LIKE '%secret%';
SET ROLE regress_monitor;
SELECT name, dialed, state FROM entanglement.peers WHERE name = 'bob';
RESET ROLE;

-- drop_peer; the role keeps its rights on the exchange while it has a peer
SELECT pg_temp.attempt($$SELECT entanglement.drop_peer(NULL)$$);
SELECT pg_temp.attempt($$SELECT entanglement.drop_peer('nobody')$$);
SELECT pg_temp.attempt('DROP ROLE regress_peer');
SELECT entanglement.drop_peer('alicia'), entanglement.drop_peer('bob');
SELECT pg_temp.rights('regress_peer');
SELECT entanglement.drop_peer(repeat('p', 63));
SELECT pg_temp.rights('regress_peer');
SELECT entanglement.drop_peer('super'), entanglement.drop_peer('bypass');

-- a role that was dropped all the same
SELECT name FROM entanglement.peers;
DROP OWNED BY regress_nologin;
DROP ROLE regress_nologin;
SELECT name, role::text ~ '^\d+$' FROM entanglement.peers;
SELECT entanglement.alter_peer('nologin', role => 'regress_peer');
SELECT name, role FROM entanglement.peers;
DROP OWNED BY regress_peer;
DROP ROLE regress_peer;
SELECT entanglement.drop_peer('nologin');
SELECT * FROM pg_temp.counts() EXCEPT SELECT * FROM before;

DROP OWNED BY regress_granted;
DROP OWNED BY regress_reach;
DROP ROLE regress_bypass, regress_super, regress_replication, regress_reach, regress_plain, regress_granted, regress_monitor;
