-- Promise: of what a peer subscribes with, what is allowed is run as it was
-- meant, and everything else is refused with a precise error: nothing of it
-- runs users' code, tells what the role may not see, or costs without bound.
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set attempt :srcdir '/sql/include/attempt.psql'
\i :attempt
CREATE ROLE regress_reader;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN score AS integer CHECK (value < 1000);
CREATE TYPE pair AS (a integer, b text);
-- users' code that says when it runs
CREATE FUNCTION run_me(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RAISE 'users'' code was run'; END $$;
CREATE FUNCTION run_me(integer, integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RAISE 'users'' code was run'; END $$;
CREATE FUNCTION lower(text, integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'users'' code was run'$$;
CREATE FUNCTION length(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$SELECT 1/0$$;
CREATE OPERATOR = (FUNCTION = run_me, LEFTARG = integer, RIGHTARG = integer);
CREATE OPERATOR === (FUNCTION = run_me, LEFTARG = integer, RIGHTARG = integer);
CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = text);
CREATE DOMAIN trap AS text CHECK (CASE WHEN value IS NOT NULL THEN run_me(value) END);
CREATE TYPE spread AS RANGE (SUBTYPE = text);
CREATE COLLATION mine FROM "C";
CREATE TABLE secret (id integer);
CREATE TABLE item (id integer PRIMARY KEY, kind text, speed float8, price numeric,
    at timestamptz, day date, stamp timestamp, tags text[], doc jsonb, place point, area polygon,
    span int4range, net inet, mood mood, moods mood[], score score, pair pair, own own,
    trap trap, spread spread, flag boolean, code uuid, raw bytea, hidden text, "Odd Name" text,
    n8 bigint GENERATED ALWAYS AS (id * 2) STORED);
SELECT entanglement.synchronize('item');
GRANT SELECT (id, kind, speed, price, at, day, stamp, tags, doc, place, area, span, net, mood, moods, score,
    pair, own, trap, spread, flag, code, raw, "Odd Name", n8) ON item TO regress_reader;
CREATE FUNCTION pg_temp.filter(f text) RETURNS text LANGUAGE sql AS $$
    SELECT entanglement.check_filter(f, 'item', 'regress_reader')
$$;
CREATE FUNCTION pg_temp.check(VARIADIC f text[]) RETURNS TABLE (filter text, answer text) LANGUAGE sql AS $$
    SELECT left(x, 70), replace(pg_temp.attempt(format('SELECT pg_temp.filter(%L)', x)), E'\n    ', ' ')
      FROM unnest(f) WITH ORDINALITY u (x, n) ORDER BY n
$$;
CREATE FUNCTION pg_temp.allowed(VARIADIC f text[]) RETURNS TABLE (filter text, runs_as text) LANGUAGE sql AS $$
    SELECT x, pg_temp.filter(x) FROM unnest(f) WITH ORDINALITY u (x, n) ORDER BY n
$$;
CREATE TABLE runs (filter text, sql text);
INSERT INTO item (id, kind, speed, price, at, day, stamp, tags, doc, place, area, span, net, mood, moods, score, flag, code, raw, "Odd Name")
SELECT n, (ARRAY['ship', 'sh', 's', 'a''b', '--', 'now', '1', NULL])[n % 8 + 1], n % 7, n * 0.5, timestamptz '2023-12-30 UTC' + n * interval '7 h',
    date '2023-12-30' + n % 5, timestamp '2023-12-30' + n * interval '9 h', (ARRAY['a', 'b', 'x', 'y'])[1 + n % 4 :], jsonb_build_object('a', n % 3, 'n', n, 'kind', 'ship'),
    point(n % 3, n % 2), polygon(box(point(0, 0), point(n % 3, 2))), int4range(n, n + 3), ('10.0.0.' || n)::inet, (ARRAY['sad', 'happy'])[n % 2 + 1]::mood,
    ARRAY['happy']::mood[], nullif(n, 7), n % 3 = 0, gen_random_uuid(), decode(lpad(n::text, 2 + n % 4, '0'), 'escape'), chr(110 + n % 20)
  FROM generate_series(1, 40) n;
CREATE FUNCTION pg_temp.ids(f text, alias text) RETURNS text LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
DECLARE ids text;
BEGIN
    EXECUTE format('SELECT string_agg(id::text, '','' ORDER BY id) FROM item %s WHERE %s', alias, f || E'\n') INTO ids;
    RETURN ids;
END $$;
\set ECHO all

-- what people want
INSERT INTO runs SELECT * FROM pg_temp.allowed('true', 'flag', 'NOT flag', 'id = 1', 'item.id = 1', 'id IN (1, 2, 3)', 'id BETWEEN 1 AND 5',
    'kind = ''ship'' AND speed > 3', 'kind LIKE ''s%''', 'kind NOT ILIKE ''%p'' ESCAPE ''!''', '"Odd Name" > ''x''',
    'speed * 1.852 > 10', 'id % 10 = 3', '-id < @ id', 'price * 1.1 < 100', 'price / 3 > 1', '(price + price) - 1 > 0',
    'at > ''2024-01-01''', 'at >= ''2024-01-01 12:00+02''', 'day - date ''2000-01-01'' > 3', 'stamp + interval ''1 day'' > ''2024-01-01''',
    'extract(year FROM day) = 2024', 'date_trunc(''day'', stamp) = ''2024-01-01''', 'tags @> ''{a,b}''', 'tags && ARRAY[''x'', ''y'']',
    '''a'' = ANY (tags)', 'tags[1] = ''a''', 'cardinality(tags) > 1', 'doc @> ''{"a": 1}''', 'doc ->> ''kind'' = ''ship''',
    'doc #>> ''{a,b}'' IS NOT NULL', 'doc ? ''a''', '(doc ->> ''n'')::integer > 3', '(doc -> ''n'')::numeric > 3', 'doc[''a''] IS NULL',
    'place <@ box ''((0,0),(1,1))''', 'place <-> point ''(0,0)'' < 5', 'area @> point ''(1,1)''', 'span @> 3', 'span && ''[1,5)''', 'lower(span) > 3',
    'net << ''10.0.0.0/8''', 'family(net) = 4', 'mood = ''happy''', 'mood > ''sad''', 'moods @> ''{happy}''', 'score > 5', 'score IS NULL',
    'own IS NULL', 'pair IS NOT NULL', 'trap IS NULL AND spread IS NULL', 'code = ''00000000-0000-0000-0000-000000000001''',
    'lower(kind) = ''ship''', 'length(kind) > 3', 'left(kind, 2) = ''sh''', 'substring(kind FROM 1 FOR 2) = ''sh''',
    'position(''x'' IN kind) > 0', 'trim(kind) <> ''''', 'starts_with(kind, ''s'')', 'kind ^@ ''s''',
    'CASE WHEN id > 3 THEN flag ELSE true END', 'CASE kind WHEN ''ship'' THEN speed > 3 ELSE false END',
    'coalesce(kind, ''none'') = ''none''', 'greatest(id, 3) = 3', 'nullif(kind, '''') IS NULL', 'kind IS DISTINCT FROM ''x''', 'flag IS NOT TRUE',
    'kind COLLATE "C" < ''b''', 'id::text = ''1''', 'kind::varchar(3) = ''shi''', 'id::float8 / 3 > 1', 'n8 = 4', 'raw = ''\x00''',
    'kind = E''a\''b''', 'kind = ''--'' -- what comes here is no part of it', 'kind = ''now''', 'id / 0 = 1',
    'octet_length(raw) > 2', 'id = ANY (ARRAY[1, 2]::bigint[])', 'moods IS NOT NULL AND mood = ANY (moods)', 'round(price, 1) = 1.5');
SELECT * FROM runs;
-- ... and what is run finds the same rows
SELECT filter FROM runs WHERE filter <> 'id / 0 = 1' AND pg_temp.ids(filter, '') IS DISTINCT FROM pg_temp.ids(sql, 't');
SELECT count(DISTINCT pg_temp.ids(sql, 't')) > 25 FROM runs WHERE filter <> 'id / 0 = 1';

-- no expression, or more than one
SELECT pg_temp.check('', ' ', ';', 'id =', 'id; id', 'id = 1;', 'id, id', 'id AS x', 'id x', '*', 'DISTINCT id', 'true FROM secret',
    'true WHERE false', 'true GROUP BY id', 'true ORDER BY id', 'true LIMIT 1', 'true FOR UPDATE', 'true UNION SELECT true',
    'true) OR (true', 'true)', '(true', 'true) UNION (SELECT true', 'SELECT true', 'WITH x AS (SELECT 1) SELECT true', 'VALUES (true)',
    'id := 1', 'DELETE FROM secret', 'id = ''', 'id = $$', '/* id', 'id = 1 /* AND (', 'true; DROP TABLE item', 'true WINDOW w AS ()',
    '= 1', 'true INTO x', 'true HAVING true', '\', 'id = 1 \g', ':id = 1');

-- no boolean
SELECT pg_temp.check('id', '1', '''x''', 'kind || ''x''', 'speed', 'NULL', '''t''');

-- columns: those that are hidden, those of the system, and none are the same
SELECT pg_temp.check('missing = 1', 'hidden = ''x''', 'hidden IS NULL', 'ctid IS NULL', 'xmin IS NULL', 'tableoid IS NULL',
    'item IS NULL', 'item.* IS NULL', 'other.id = 1', 'public.item.id = 1', 't.id = 1', 'item.hidden = ''x''', '(item).id = 1',
    '(pair).a = 1', 'id.kind = 1', 'secret.id = 1', 'kind.lower = ''x''', 'lower(item) = ''x''', 'Odd = ''x''');

-- subqueries, and what is not of the row
SELECT pg_temp.check('EXISTS (SELECT FROM secret)', 'id = (SELECT 1)', 'id IN (SELECT id FROM secret)', 'id = ANY (SELECT 1)',
    'id = ANY (ARRAY(SELECT 1))', 'count(*) > 1', 'max(id) > 1', 'row_number() OVER () = 1', 'sum(id) FILTER (WHERE true) > 1',
    'generate_series(1, 10) = 1', 'unnest(tags) = ''a''', 'id = $1', 'kind = current_user', 'kind = session_user', 'day = current_date',
    'at > now()', 'at > clock_timestamp()', 'random() < 0.5', 'at > localtimestamp', 'kind = current_setting(''search_path'')',
    'set_config(''role'', ''postgres'', false) = ''x''', 'pg_sleep(10) IS NULL', 'pg_read_file(''/etc/passwd'') IS NULL',
    'has_table_privilege(''secret'', ''SELECT'')', 'pg_advisory_lock(1) IS NULL', 'nextval(''secret'') = 1', 'nextval(''none'') = 1', 'currval(''public.secret'') = 1', 'abs(id) OVER () = 1', 'abs(DISTINCT id) = 1', 'abs(VARIADIC id) = 1', 'abs(x => id) = 1', 'int4(kind) = 1', 'txid_current() > 1',
    'lo_import(''/etc/passwd'') > 0', 'dblink(''x'') IS NULL', 'query_to_xml(''SELECT 1'', true, true, '''') IS NULL',
    'table_to_xml(''secret'', true, true, '''') IS NULL', 'pg_terminate_backend(1)', 'version() = ''x''', 'pg_typeof(id) IS NULL',
    'kind IS DOCUMENT', 'xmlelement(name a) IS NULL', 'kind IS NORMALIZED', '(id, kind) = (1, ''x'')', 'ROW(id) = ROW(1)', 'GROUPING(id) = 1');

-- users' code: functions, operators, types, casts, collations
SELECT pg_temp.check('run_me(kind)', 'public.run_me(kind)', 'lower(kind, 1) = ''x''', 'length(id) = 1', 'id OPERATOR(public.=) 1',
    'id === 1', 'id OPERATOR(public.===) 1', 'own = ''x''', '''x''::own IS NULL', '''x''::public.own IS NULL', 'public.own ''x'' IS NULL',
    'CAST (''x'' AS public.own) IS NULL', 'own::text = ''x''', 'trap = ''x''', '''x''::public.trap IS NULL', 'spread = ''[a,b]''', 'lower(spread) = ''a''',
    'ROW(1, ''x'')::public.pair IS NULL', '''(1,x)''::public.pair IS NULL', 'pair = ''(1,x)''', 'pair = pair', '1::public.score > 1',
    'kind COLLATE mine < ''b''', 'kind COLLATE public.mine < ''b''', 'coalesce(own, own) IS NULL', 'ARRAY[own] IS NULL',
    '(CASE WHEN flag THEN own END) IS NULL', 'own IS NULL AND own = ''x''', '''{x}''::public.own[] IS NULL', 'kind::regclass IS NULL',
    '''secret''::regclass IS NULL', '''pg_sleep''::regproc IS NULL', 'id::regtype IS NULL', '''<a/>''::xml IS NULL', 'kind::item.kind%TYPE = ''x''',
    '''x''::secret IS NULL', 'id::oid::regrole IS NULL', '''1''::cstring IS NULL', 'NULL::record IS NULL', '''x''::missing IS NULL', 'mood::text = ''x''');

-- what costs, or grows
SELECT pg_temp.check('repeat(kind, 1000000000) = ''x''', 'lpad(kind, 1000000000) = ''x''', 'rpad(kind, 10) = ''x''', 'kind || kind = ''x''',
    'tags || tags = tags', 'doc || doc = doc', 'concat(kind, kind) = ''x''', 'format(''%s'', kind) = ''x''', 'replace(kind, ''a'', ''bb'') = ''x''',
    'translate(kind, ''a'', ''b'') = ''x''', 'kind ~ ''(a*)*b''', 'kind ~* ''a''', 'kind !~ ''a''', 'kind SIMILAR TO ''a''', 'regexp_replace(kind, ''a'', ''b'') = ''x''',
    'substring(kind FROM ''a'') = ''x''', 'substring(kind SIMILAR ''a'' ESCAPE ''#'') = ''x''', 'price ^ price > 1', 'power(price, 3) > 1', '2 ^ id > 1', 'factorial(id) > 1',
    'price * price > 1', '1 / price > 1', 'price % 7 = 1', 'mod(price, 7) = 1', 'gcd(id, 3) = 1', 'exp(price) > 1', 'ln(price) > 1', 'sqrt(price) > 1',
    'price + 1e100000 > 1', '1e131071 > price', 'price = 1e131071::numeric', 'kind::char(10000000) = ''x''', '''x''::bpchar(10000000) = kind', 'id::bit(80000000) IS NULL',
    'array_fill(1, ''{1000000}'') IS NULL', 'tags @> tags', 'tags && tags', 'area && area', 'doc @> doc', 'kind LIKE kind', 'kind LIKE ''%'' || kind', 'position(kind IN kind) > 0',
    'strpos(''a'', kind) > 0', 'doc @? ''$.** ? (@ like_regex "a")''', 'doc @@ ''$.a > 1''', 'jsonb_path_exists(doc, ''$'')', 'to_tsvector(''english'', kind) IS NULL',
    'kind::tsvector @@ ''a''', 'md5(kind) = ''x''', 'sha256(raw) = raw', 'encode(raw, ''hex'') = ''x''', 'raw::text = ''x''', 'kind::bytea = raw', 'string_to_array(kind, '''') = tags',
    'array_to_string(tags, ''x'') = ''x''', 'jsonb_pretty(doc) = ''x''', 'jsonb_set(doc, ''{a}'', doc) = doc', 'convert_from(raw, ''utf8'') = ''x''', 'overlay(kind placing kind from 1) = ''x''');

-- what is another time each time
SELECT pg_temp.check('at > ''now''', 'at > ''NOW ''', 'day = ''today''', 'day = date ''tomorrow''', 'stamp > ''yesterday 10:00''', 'stamp > E''n\x6fw''', 'at > U&''\006eow''',
    'day = ANY (''{today}'')', 'daterange(''today'', NULL) @> day', '''[today,)''::daterange @> day', 'day = (''today''::text)::date', 'day::text = ''x''', 'kind::date = day',
    'at::date = day', 'at > stamp', 'date_trunc(''day'', at) = at', 'extract(hour FROM at) = 1', 'at + interval ''1 day'' > ''2024-01-01''', 'at > day', 'at::text = ''x''', 'to_char(at, ''YYYY'') = ''x''', 'age(stamp) IS NULL');

-- values that do not fit their types
SELECT pg_temp.check('id = ''x''', 'at > ''soon''', 'mood = ''other''', 'doc @> ''{''', 'id = kind', 'kind > 1', 'flag = 1', 'id = 99999999999999999999 AND id', 'nosuch(id)', 'id ?? 1', 'tags = ''a''', 'kind COLLATE "nosuch" = ''x''');

-- too long, too deep
SELECT pg_temp.check(repeat('(', 3000) || 'true' || repeat(')', 3000), repeat('NOT ', 2000) || 'true', repeat('- ', 4000) || 'id = 1',
    '1' || repeat('+1', 4000) || ' = id', repeat('CASE WHEN flag THEN ', 300) || 'true' || repeat(' END', 300), repeat('x', 9000),
    repeat('coalesce(', 500) || 'flag' || repeat(')', 500), repeat('tags[1', 1) || repeat('+1', 99) || '] = ''a''', repeat('abs(', 101) || 'id' || repeat(')', 101) || ' = 1',
    'id IN (' || repeat('1, ', 2500) || '1) AND missing', repeat('(', 100000) || 'true');
SELECT length(pg_temp.filter(repeat('(', 3000) || 'true' || repeat(')', 3000)));
SELECT length(pg_temp.filter('id IN (' || repeat('1, ', 2500) || '1)')) > 5000;
SELECT length(pg_temp.filter('id = 1' || repeat(' OR id = 1', 700))) > 5000;

-- the settings of the session do not matter
SET search_path = public, pg_catalog;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET transform_null_equals = on;
SET DateStyle = 'German';
SET TimeZone = 'Asia/Tokyo';
SELECT pg_temp.allowed('id = 1', 'length(kind) = 1', $$kind = 'a\'$$, 'kind = NULL', 'at > ''2024-01-02 03:04''', 'day = ''01/02/03''');
RESET ALL;
SET client_min_messages = warning;

-- what is granted counts, at each moment
SELECT pg_temp.check('hidden = ''x''', 'kind = ''x''');
GRANT SELECT ON item TO regress_reader;
REVOKE SELECT (kind) ON item FROM regress_reader;
SELECT pg_temp.check('hidden = ''x''', 'kind = ''x''');
REVOKE SELECT ON item FROM regress_reader;
SELECT pg_temp.check('hidden = ''x''', 'kind = ''x''', 'true');

DROP TABLE item, secret, runs;
DROP TYPE mood, pair, spread;
DROP DOMAIN score, trap;
DROP TYPE own CASCADE;
DROP OPERATOR public.= (integer, integer);
DROP OPERATOR public.=== (integer, integer);
DROP FUNCTION run_me(text), run_me(integer, integer), lower(text, integer), length(integer);
DROP COLLATION mine;
DROP ROLE regress_reader;
