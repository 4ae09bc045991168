-- Promise: whatever a function is given, by whom and for what relation, it
-- answers with what it is there for or with a precise error, and a refusal
-- leaves everything as it was. A function without a case here fails the test.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
CREATE ROLE regress_plain;
CREATE ROLE regress_peer LOGIN;
CREATE TABLE item (id integer PRIMARY KEY, v text);
CREATE TABLE plain (id integer PRIMARY KEY);
CREATE VIEW item_view AS SELECT * FROM item;
CREATE TEMPORARY TABLE temporary (id integer PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_server FOREIGN DATA WRAPPER regress_wrapper;
CREATE FOREIGN TABLE far (id integer) SERVER regress_server;
SELECT entanglement.set_node_name('here');
CREATE FUNCTION fits(text, text, regclass, jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION text_back(text, text, regclass, jsonb, jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''true''';
CREATE FUNCTION set_back(text, text, regclass, jsonb, jsonb) RETURNS SETOF boolean LANGUAGE sql AS 'SELECT true';
CREATE PROCEDURE no_function(text, text, regclass, jsonb, jsonb) LANGUAGE sql AS 'SELECT true';
CREATE TABLE parts (id integer PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parts DEFAULT;
SELECT entanglement.synchronize('item');
SELECT entanglement.add_peer('peer', role => 'regress_peer');
-- Each function with its cases: arguments as in a call.
CREATE TEMPORARY TABLE cases (n integer GENERATED ALWAYS AS IDENTITY,
    function regprocedure, arguments text);
CREATE FUNCTION pg_temp.cases(function regprocedure, VARIADIC arguments text[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO cases (function, arguments)
    SELECT function, a FROM unnest(arguments) WITH ORDINALITY u (a, n) ORDER BY n
$$;
\set ECHO all
SELECT pg_temp.cases('entanglement.set_node_name(text)', 'NULL', '''''', 'repeat(''n'', 64)', '1', '');
SELECT pg_temp.cases('entanglement.create_owner(text, uuid)', 'NULL', '''''', 'repeat(''n'', 64)',
    '''here''', '''x'', NULL', '''x'', ''y''', '1', '');
SELECT pg_temp.cases('entanglement.bind_owner(text, text[])', 'NULL', '''''', '''missing''',
    '''missing'', ''peer''', '''here'', ''missing''', '''here'', NULL',
    '''here'', VARIADIC NULL', '''here'', VARIADIC ''{NULL}''', '''here'', ''peer''', '''here''', '1', '');
SELECT pg_temp.cases('entanglement.drop_owner(text)', 'NULL', '''''', '''missing''', '''here''', '1', '');
SELECT pg_temp.cases('entanglement.adopt(text, uuid)', 'NULL, NULL', '''missing'', NULL',
    '''missing'', gen_random_uuid()', '''here'', gen_random_uuid()',
    '''here'', (SELECT id FROM entanglement.node)', '''here'', ''x''', '1', '');
SELECT pg_temp.cases('entanglement.become(text)', 'NULL', '''''', '''old''', '''new''', '''replacement''', '1', '');
SELECT pg_temp.cases('entanglement.place()', '1');
SELECT pg_temp.cases('entanglement.owner_of(record)', '1', 'ROW(1)', '''(1)''', '(1)::plain',
    '(SELECT v FROM item_view v LIMIT 1)', '(SELECT c FROM pg_class c LIMIT 1)',
    'ROW(1)::temporary', 'ROW(1)::far',
    '(SELECT entanglement.owner_of(i) FROM item i LIMIT 1)', '');
SELECT pg_temp.cases('entanglement.synchronize(regclass, text, integer, regclass, boolean, boolean, boolean, name, boolean)',
    'NULL', '''missing''', '''item''', '''item_view''', '''temporary''', '''far''', '''pg_class''',
    '''entanglement.object''', '1', '''plain'', NULL', '''plain'', ''x''', '''plain'', ''wal''',
    '''plain'', index => ''item_pkey''', '''plain'', index => ''missing''',
    '''plain'', priority => 9999999999', '''plain'', take_over => ''perhaps''', '''plain'', integrity => ''perhaps''',
    '''plain'', owner_column => ''missing''', '''plain'', owner_column => ''ctid''', '''plain'', owner_column => ''id''',
    '''plain'', every_state => ''perhaps''', '''plain'', every_state => true, integrity => true', '''plain'', every_state => true, capture => ''wal''', '');
SELECT pg_temp.cases('entanglement.set_every_state(regclass, boolean)', 'NULL, true', '''item'', NULL',
    '''missing'', true', '''plain'', true', '''item_view'', true', '''pg_class'', true', '1', '');
SELECT pg_temp.cases('entanglement.set_capture(regclass, text)', 'NULL, ''wal''', '''plain'', NULL',
    '''missing'', ''wal''', '''plain'', ''x''', '''plain'', ''trigger''', '''item_view'', ''trigger''', '''item'', ''trigger''',
    '''far'', ''trigger''', '''pg_class'', ''trigger''', '''entanglement.object'', ''wal''', '1, ''wal''', '');
SELECT pg_temp.cases('entanglement.desynchronize(regclass)', 'NULL', '''missing''', '''plain''',
    '''item_view''', '''temporary''', '''far''', '''pg_class''', '''entanglement.object''', '1', '');
SELECT pg_temp.cases('entanglement.add_peer(text, text, regrole, bigint, boolean)', 'NULL', '''''',
    'repeat(''n'', 64)', '''peer'', role => ''regress_peer''', '''x'', ''''', '''x'', ''nonsense''',
    '''x'', role => ''regress_missing''', '''x'', bandwidth => 0', '''x'', bandwidth => -1', '1', '');
SELECT pg_temp.cases('entanglement.alter_peer(text, text, regrole, bigint, text, text, text[], boolean)',
    'NULL', '''missing''', '''peer'', ''''', '''peer'', ''nonsense''', '''peer'', bandwidth => 0',
    '''peer'', role => ''regress_missing''', '''peer'', fingerprint => ''''',
    '''peer'', new_name => ''''', '''peer'', reset => ''{x}''', '''peer'', reset => ''{{NULL}}''',
    '''peer'', reset => ''x''', '');
SELECT pg_temp.cases('entanglement.drop_peer(text)', 'NULL', '''missing''', '''''', '1', '');
SELECT pg_temp.cases('entanglement.pause_peer(text)', 'NULL', '''missing''', '''''', '1', '');
SELECT pg_temp.cases('entanglement.resume_peer(text)', 'NULL', '''missing''', '''''', '1', '');
SELECT pg_temp.cases('entanglement.refresh(text)', 'NULL', '''missing''', '''''');
SELECT pg_temp.cases('entanglement.resync(text, text)', 'NULL', '''missing''', '''''', '''peer'', ''missing''',
    '''peer'', ''''', '1', '');
SELECT pg_temp.cases('entanglement.add_hook(text, regprocedure, regclass, text, integer)',
    'NULL, ''fits''', '''should_send'', NULL', '''x'', ''fits(text,text,regclass,jsonb,jsonb)''', '''should_send'', ''missing()''',
    '''should_send'', 0', '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', ordinal => NULL',
    '''should_listen'', ''fits(text,text,regclass,jsonb,jsonb)''', '''should_send'', ''pg_catalog.lower(text)''',
    '''should_listen_constructed'', ''set_back(text,text,regclass,jsonb,jsonb)''', '''should_send'', ''text_back(text,text,regclass,jsonb,jsonb)''',
    '''should_send'', ''no_function(text,text,regclass,jsonb,jsonb)''', '''should_send'', ''pg_catalog.bool_and(boolean)''',
    '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', ''missing''', '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', ''item_view''',
    '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', ''entanglement.object''', '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', ''part''',
    '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', 1', '''should_send'', ''fits(text,text,regclass,jsonb,jsonb)'', peer => ''missing''', '1', '');
SELECT pg_temp.cases('entanglement.remove_hook(integer)', 'NULL', '0', '''x''', '');
SELECT pg_temp.cases('entanglement.hooks_dropped()', '', '1');
SELECT pg_temp.cases('entanglement.explain_send(record, text)', 'NULL, ''peer''', 'ROW(1), ''peer''', 'ROW(1)::plain, ''peer''',
    'jsonb_populate_record(NULL::item, ''{"id": 1}''), NULL', 'jsonb_populate_record(NULL::item, ''{"id": 1}''), ''missing''',
    'jsonb_populate_record(NULL::item, ''{}''), ''peer''', '');
SELECT pg_temp.cases('entanglement.explain_listen(text, text, regclass, text, jsonb, jsonb)', 'NULL, ''here'', ''item'', ''delete'', ''{}''',
    '''peer'', NULL, ''item'', ''delete'', ''{}''', '''peer'', ''here'', NULL, ''delete'', ''{}''', '''peer'', ''here'', ''item'', NULL, ''{}''',
    '''missing'', ''here'', ''item'', ''delete'', ''{}''', '''peer'', ''missing'', ''item'', ''delete'', ''{}''', '''peer'', ''here'', ''plain'', ''delete'', ''{}''',
    '''peer'', ''here'', 1, ''delete'', ''{}''', '''peer'', ''here'', ''item'', ''x'', ''{}''', '''peer'', ''here'', ''item'', ''delete'', NULL', '''peer'', ''here'', ''item'', ''delete'', ''1''',
    '''peer'', ''here'', ''item'', ''delete'', ''{"v": "x"}''', '''peer'', ''here'', ''item'', ''delete'', ''{"id": null}''',
    '''peer'', ''here'', ''item'', ''update'', ''{"id": 1}'', ''[]''', '''peer'', ''here'', ''item'', ''update'', ''{"id": 1}'', ''{"missing": 1}''', '');
SELECT pg_temp.cases('entanglement.subscribe(text, regclass, text)', 'NULL, ''item''', '''peer'', NULL',
    '''missing'', ''item''', '''peer'', ''missing''', '''peer'', ''plain''', '''peer'', ''item_view''',
    '''peer'', 1', '''peer'', ''item'', ''''', '''peer'', ''item'', ''id =''', '''peer'', ''item'', ''id; id''',
    '''peer'', ''item'', repeat(''x'', 8193)', '''peer''', '');
SELECT pg_temp.cases('entanglement.unsubscribe(text, regclass)', 'NULL, ''item''', '''peer'', NULL',
    '''missing'', ''item''', '''peer'', ''item''', '''peer'', 1', '''peer''', '');
SELECT pg_temp.cases('entanglement.check_filter(text, regclass, regrole)', 'NULL, ''item''', '''true'', NULL',
    '''true'', ''missing''', '''true'', ''plain''', '''true'', 1', '''true'', ''item'', 1', '''true'', ''item'', ''regress_missing''',
    ''''', ''item''', '''id'', ''item''', '''missing'', ''item''', 'repeat(''x'', 8193), ''item''', '');
SELECT pg_temp.cases('entanglement.verify(text)', 'NULL', '''missing''', '''''', '''peer''', '1', '');
SELECT pg_temp.cases('entanglement.digest(bytea)', 'NULL', '''''', '''garbage''', '1', '');
SELECT pg_temp.cases('entanglement.hello(text, bytea)', 'NULL, NULL', '''push'', NULL', '''x'', ''''',
    '''push'', ''''', '''pull'', ''garbage''', '1, 2', '');
SELECT pg_temp.cases('entanglement.push(bytea)', 'NULL', '''''', '''garbage''', '1', '');
SELECT pg_temp.cases('entanglement.pull(bytea, bytea)', 'NULL', '''''', '1', '');
SELECT pg_temp.cases('entanglement.stream(text)', 'NULL', '''''', '''sideways''', '''push''', '1', '');
SELECT pg_temp.cases('entanglement.drain(text, interval)', '''missing''', '''''', '''peer'', NULL',
    '''peer'', ''-1 s''', '''peer'', ''soon''', '1', 'NULL, NULL');
SELECT pg_temp.cases('entanglement.may_see(regrole)', '''regress_missing''', '1, 2');
SELECT pg_temp.cases('entanglement.key_text(integer, bytea)', '(SELECT no FROM entanglement.relation), ''garbage''', '(SELECT no FROM entanglement.relation), ''''', '''x'', NULL', '');
SELECT pg_temp.cases('entanglement.start_worker()', '1');
SELECT pg_temp.cases('entanglement.link_states()', '1');
SELECT pg_temp.cases('entanglement.copies()', '1');
SELECT pg_temp.cases('entanglement.is_preloaded()', '1');
SELECT pg_temp.cases('entanglement.log_capture_error()', '1');
SELECT pg_temp.cases('entanglement.topology()', '1');
SELECT pg_temp.cases('entanglement.topology_dot()', '1');
SELECT pg_temp.cases('entanglement.rights_changed()', '', '1');
SELECT pg_temp.cases('entanglement.capture_trigger()', '', '1');
SELECT pg_temp.cases('entanglement.change_trigger()', '', '1');
SELECT pg_temp.cases('entanglement.truncate_trigger()', '', '1');
SELECT pg_temp.cases('entanglement.request_trigger()', '', '1');
SELECT pg_temp.cases('entanglement.key_values(integer, bytea)', '(SELECT no FROM entanglement.relation), ''garbage''', '''x'', NULL', '');
SELECT pg_temp.cases('entanglement.row_json(regclass, text[], text[])', '1', '''item'', ''{}'', ''x''');
SELECT pg_temp.cases('entanglement.request_key(integer, regclass, bytea)', '1', '(SELECT no FROM entanglement.relation), ''item'', ''garbage''');
SELECT pg_temp.cases('entanglement.last_request()', '1');
SELECT pg_temp.cases('entanglement.wait_for(uuid, interval)', 'NULL', '''x''', 'gen_random_uuid(), NULL',
    '''00000000-0000-0000-0000-000000000000''', '''00000000-0000-0000-0000-000000000000'', ''soon''', '');
SELECT pg_temp.cases('entanglement.cancel_request(uuid)', 'NULL', '''x''',
    '''00000000-0000-0000-0000-000000000000''', '');
SELECT pg_temp.cases('entanglement.transfer(record, text)', 'NULL, ''red''', 'ROW(1), ''red''', 'ROW(1)::plain, ''red''',
    'jsonb_populate_record(NULL::item, ''{"id": 1}''), NULL', 'jsonb_populate_record(NULL::item, ''{"id": 1}''), ''missing''', 'jsonb_populate_record(NULL::item, ''{"id": 1}''), ''here''', 'jsonb_populate_record(NULL::item, ''{}''), ''here''', '');
SELECT pg_temp.cases('entanglement.table_dropped()', '', '1');
SELECT pg_temp.cases('entanglement.partitions_changed()', '', '1');
SELECT pg_temp.cases('entanglement.foreign_keys_changed()', '', '1');
SELECT pg_temp.cases('entanglement.names_changed()', '', '1');
SELECT pg_temp.cases('entanglement.load_trigger()', '', '1');

-- every function has cases
SELECT oid::regprocedure FROM pg_proc
 WHERE pronamespace = 'entanglement'::regnamespace
   AND oid NOT IN (SELECT function FROM cases)
 ORDER BY 1;

-- as a superuser: each is refused
CREATE TEMPORARY TABLE before AS SELECT * FROM pg_temp.counts();
SELECT concat(proname, '(', arguments, ')'),
       pg_temp.attempt(concat(CASE prokind WHEN 'p' THEN 'CALL ' ELSE 'SELECT ' END,
           'entanglement.', proname, '(', arguments, ')'))
  FROM cases JOIN pg_proc ON oid = function ORDER BY n;
SELECT * FROM pg_temp.counts() EXCEPT SELECT * FROM before;

-- as anybody: permission is denied, but for owner_of (key_text is not even
-- called: it is strict)
SELECT concat(proname, '(', a, ')'),
       pg_temp.attempt(concat(CASE prokind WHEN 'p' THEN 'CALL ' ELSE 'SELECT ' END,
           'entanglement.', proname, '(', a, ')'), 'regress_plain')
  FROM pg_proc, LATERAL (SELECT string_agg(CASE WHEN provariadic <> 0 AND n = pronargs
          THEN 'VARIADIC ' ELSE '' END || 'NULL::' || t::regtype, ', ' ORDER BY n)
      FROM unnest(proargtypes) WITH ORDINALITY x (t, n)) u (a)
 WHERE pronamespace = 'entanglement'::regnamespace
   AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
 ORDER BY proname;
-- nor may they read or write the tables, or attach the triggers
SELECT relname, pg_temp.attempt(format('SELECT FROM entanglement.%I', relname), 'regress_plain')
  FROM pg_class WHERE relnamespace = 'entanglement'::regnamespace
   AND relkind IN ('r', 'v', 'S') ORDER BY relname;
ALTER TABLE plain OWNER TO regress_plain;
SELECT pg_temp.attempt('CREATE TRIGGER t AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION entanglement.capture_trigger()',
    'regress_plain');
-- triggers where they do not belong
CREATE TRIGGER t BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION entanglement.capture_trigger();
SELECT pg_temp.attempt('INSERT INTO plain VALUES (1)');
DROP TRIGGER t ON plain;
CREATE TRIGGER t AFTER INSERT ON plain EXECUTE FUNCTION entanglement.capture_trigger();
SELECT pg_temp.attempt('INSERT INTO plain VALUES (1)');
DROP TRIGGER t ON plain;
CREATE TRIGGER t BEFORE INSERT ON plain EXECUTE FUNCTION entanglement.change_trigger();
SELECT pg_temp.attempt('INSERT INTO plain VALUES (1)');
DROP TRIGGER t ON plain;
CREATE TRIGGER t AFTER TRUNCATE ON plain EXECUTE FUNCTION entanglement.truncate_trigger();
SELECT pg_temp.attempt('TRUNCATE plain');
DROP TRIGGER t ON plain;
SELECT * FROM pg_temp.counts() EXCEPT SELECT * FROM before;

SELECT entanglement.drop_peer('peer');
DROP FOREIGN DATA WRAPPER regress_wrapper CASCADE;
DROP VIEW item_view;
DROP TABLE item, plain, parts;
DROP FUNCTION fits, text_back, set_back;
DROP PROCEDURE no_function;
DROP ROLE regress_plain, regress_peer;
SELECT entanglement.set_node_name(current_database());
