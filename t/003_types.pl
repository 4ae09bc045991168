# Values of every type, between databases and sessions with every setting.
#
# Promise: what arrives is bit-equal to what was written, whatever DateStyle,
# IntervalStyle, extra_float_digits, bytea_output, client_encoding, TimeZone
# and lc_* say on either side; between UTF8 and LATIN1, text arrives as the
# same characters, and a row that cannot be converted is refused clearly,
# alone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('types');
my $alice = Entanglement::Node->database($cluster, 'alice');
my $bob = Entanglement::Node->database($cluster, 'bob');
my $latin = Entanglement::Node->database($cluster, 'latin', encoding => 'LATIN1');

# types of the same name get other numbers on the other side
$bob->sql('CREATE TYPE spacer AS (a int); CREATE DOMAIN spacing AS int');
link_nodes($alice, $bob);
link_nodes($latin, $alice);

# name of the type => values, as literals or expressions
my @types = (
	[ 'boolean', q('t'), q('f') ],
	[ 'smallint', q('-32768'), q('32767'), q('0') ],
	[ 'integer', q('-2147483648'), q('2147483647') ],
	[ 'bigint', q('-9223372036854775808'), q('9223372036854775807') ],
	[
		'numeric', q('NaN'), q('Infinity'), q('-Infinity'), q('0'), q('0.000'),
		q('-1.500'), q('1e-1000'), q('9e3000'),
		q('123456789012345678901234567890.123456789012345678901234567890')
	],
	[ 'numeric(12,4)', q('12345678.9012'), q('-0.0001') ],
	[
		'real', q('NaN'), q('Infinity'), q('-Infinity'), q('-0'), q('1.1'),
		q('1.17549435e-38'), q('1e-45'), q('3.4028235e38')
	],
	[
		'double precision', q('NaN'), q('Infinity'), q('-Infinity'), q('-0'),
		q('0.1'), q('5e-324'), q('1.7976931348623157e308'),
		q('0.30000000000000004')
	],
	[ 'money', q('-92233720368547758.08'), q('12.34') ],
	[ 'text', q(''), q('a' || chr(10) || chr(9) || '\\'), q(repeat('long ', 5000)) ],
	[ 'varchar(20)', q('x  '), q('') ],
	[ 'char(10)', q('ab'), q('') ],
	[ 'name', q('a name') ],
	[ '"char"', q('c'), q('') ],
	[ 'bytea', q('\x00'), q('\x'), q('\xdeadbeef00ff5c27') ],
	[
		'timestamp', q('infinity'), q('-infinity'), q('4713-01-01 00:00:00 BC'),
		q('294276-12-31 23:59:59.999999'), q('2024-02-29 12:34:56.789012')
	],
	[
		'timestamptz', q('infinity'), q('-infinity'),
		q('2024-03-31 02:30:00.000001+02'), q('1901-12-13 20:45:52+00')
	],
	[ 'timestamp(0)', q('2024-02-29 12:34:56') ],
	[ 'date', q('infinity'), q('-infinity'), q('0044-03-15 BC'), q('5874897-12-31'), q('2001-02-03') ],
	[ 'time', q('00:00:00'), q('24:00:00'), q('23:59:59.999999') ],
	[ 'timetz', q('12:34:56.789+05:30'), q('23:59:59.999999-15:59') ],
	[
		'interval', q('1 year 2 months -3 days 04:05:06.789'),
		q('-1 mons +1 day -00:00:00.000001'), q('178000000 years'), q('0')
	],
	[ 'interval day to second', q('1 02:03:04.5') ],
	[ 'point', q('(1.1,-0)'), q('(Infinity,1e-310)') ],
	[ 'line', q('{1,2,3}') ],
	[ 'lseg', q('[(1,2),(3,4)]') ],
	[ 'box', q('(3,4),(1,2)') ],
	[ 'path', q('[(1,2),(3,4)]'), q('((1,2),(3,4))') ],
	[ 'polygon', q('((1,2),(3,4),(5,6.1))') ],
	[ 'circle', q('<(1,2),3.3>') ],
	[ 'inet', q('192.168.1.1/24'), q('::1'), q('::ffff:1.2.3.4/128') ],
	[ 'cidr', q('10.0.0.0/8'), q('2001:db8::/32') ],
	[ 'macaddr', q('08:00:2b:01:02:03') ],
	[ 'macaddr8', q('08:00:2b:01:02:03:04:05') ],
	[ 'bit(5)', q(B'10101') ],
	[ 'bit varying', q(B''), q(B'1'), q(B'101010101') ],
	[ 'uuid', q('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11') ],
	[ 'xml', q('<a b="c">d</a>'), q('text only') ],
	[ 'json', q('{ "b":1,  "a":[1, 2.50, null], "b":2}') ],
	[ 'jsonb', q('{"b": 1, "a": [1, 2.50, null, "\u00e9", 1e400]}'), q('"scalar"'), q('null') ],
	[ 'jsonpath', q('$.a[*] ? (@ > 3)') ],
	[ 'tsvector', q('fat:2A cat:3B,7 "quoted lex":1') ],
	[ 'tsquery', q('fat & (cat | !rat:*A) <2> dog') ],
	[ 'oid', q('4294967295') ],
	[ 'xid', q('4294967295') ],
	[ 'xid8', q('18446744073709551615') ],
	[ 'cid', q('7') ],
	[ 'tid', q('(4294967295,65535)') ],
	[ 'pg_lsn', q('FFFFFFFF/FFFFFFFF') ],
	[ 'pg_snapshot', q('10:20:10,14,15') ],
	[ 'txid_snapshot', q('10:20:10,14,15') ],
	[ 'int2vector', q('1 2 3') ],
	[ 'oidvector', q('1 2 4294967295') ],
	[ 'refcursor', q('cursor') ],
	[ 'regclass', q('pg_class'), q('shop.thing') ],
	[ 'regtype', q('integer'), q('shop.mood') ],
	[ 'regproc', q('pg_catalog.now') ],
	[ 'regprocedure', q('pg_catalog.abs(integer)') ],
	[ 'regoper', q('pg_catalog.||/') ],
	[ 'regoperator', q('pg_catalog.+(integer,integer)') ],
	[ 'regnamespace', q('pg_catalog') ],
	[ 'regrole', q('alice') ],
	[ 'regconfig', q('simple') ],
	[ 'regdictionary', q('simple') ],
	[ 'regcollation', q('"C"') ],
	[ 'aclitem', q('alice=r/bob') ],
	[ 'int4range', q{'[1,5)'}, q{'empty'}, q{'(,)'}, q{'[3,)'} ],
	[ 'int8range', q{'[-9223372036854775808,9223372036854775807)'} ],
	[ 'numrange', q{'(1.10,2.200]'}, q{'empty'} ],
	[ 'tsrange', q{'[2020-01-01,infinity)'} ],
	[ 'tstzrange', q{'[2020-01-01 00:00+03,)'} ],
	[ 'daterange', q{'[2020-01-01,2020-12-31]'} ],
	[ 'int4multirange', q{'{[1,3),[7,9)}'}, q{'{}'} ],
	[ 'int8multirange', q{'{(,1),[5,)}'} ],
	[ 'nummultirange', q{'{[1.0,2.00]}'} ],
	[ 'tsmultirange', q{'{[2020-01-01,2021-01-01)}'} ],
	[ 'tstzmultirange', q{'{[2020-01-01 00:00+00,)}'} ],
	[ 'datemultirange', q{'{[2020-01-01,2020-02-01)}'} ],
	[ 'shop.mood', q('sad'), q('it''s, "quoted" \ fine') ],
	[ 'shop.pair', q(ROW(1, 'a,(b)"c"', NULL, 'sad')), q(ROW(NULL, NULL, NULL, NULL)) ],
	[ 'shop.posint', q(42) ],
	[ 'shop.moods', q(ARRAY['sad', NULL]::shop.mood[]) ],
	[ 'shop.floatrange', q{'[1.5,2.5e300)'}, q{'empty'} ],
	[ 'shop.floatmultirange', q{'{[1.5,2.5),[3,4)}'} ],
	[ 'integer[]', q('{}'), q('{1,NULL,3}'), q('[2:3][-1:0]={{1,2},{3,4}}') ],
	[ 'text[]', q('{"a,b","c\"d",NULL,"NULL",""}') ],
	[ 'bytea[]', q(ARRAY['\x00ff'::bytea, '\x']) ],
	[ 'numeric[]', q('{NaN,1.10,-0.0}') ],
	[ 'timestamptz[]', q('{infinity,"2024-03-31 02:30+02"}') ],
	[ 'jsonb[]', q(ARRAY['{"a": 1}'::jsonb, 'null']) ],
	[ 'shop.pair[]', q(ARRAY[ROW(1, 'x', '2 days', 'sad')::shop.pair, NULL]) ],
	[ 'shop.posint[]', q(ARRAY[1, 2]::shop.posint[]) ],
	[ 'shop.floatrange[]', q{ARRAY['[1,2)'::shop.floatrange]} ],
	[ 'int4range[]', q{ARRAY['[1,2)'::int4range, 'empty']} ],
	[ 'regclass[]', q(ARRAY['pg_class'::regclass]) ],
);

my $user_types = <<'SQL';
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
CREATE TABLE shop.thing (id int);
CREATE TYPE shop.mood AS ENUM ('sad', 'it''s, "quoted" \ fine');
CREATE TYPE shop.pair AS (a int, b text, c interval, d shop.mood);
CREATE DOMAIN shop.posint AS int CHECK (value > 0);
CREATE DOMAIN shop.moods AS shop.mood[];
CREATE TYPE shop.floatrange AS RANGE (subtype = float8);
SQL

is( $alice->sql($user_types . <<"SQL"), '', 'every built-in type of columns is here');
SELECT format_type(t.oid, NULL) FROM pg_type t
 WHERE t.typnamespace = 'pg_catalog'::regnamespace
   AND t.typtype IN ('b', 'r', 'm')
   AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
   AND t.typname NOT IN ('gtsvector', 'pg_brin_bloom_summary',
	   'pg_brin_minmax_multi_summary', 'pg_dependencies', 'pg_mcv_list',
	   'pg_ndistinct', 'pg_node_tree')  -- which no user can write values of
   AND t.oid <> ALL (ARRAY[@{[ join ', ', map { "'" . ($_->[0] =~ s/\(.*//r) . "'::regtype" } @types ]}])
SQL

# one row per type and value, one column per type; a NULL in all others
my @columns = map { "c$_ $types[$_][0]" } 0 .. $#types;
my $table =
  'CREATE TABLE every (id int PRIMARY KEY, ' . join(', ', @columns) . ')';

# session settings a writer or a reader may have
my @moods = (
	'',
	"SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'America/St_Johns';",
	"SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = -15; SET bytea_output = 'escape';",
	"SET DateStyle = 'Postgres, MDY'; SET client_encoding = 'LATIN1'; SET quote_all_identifiers = on; SET TimeZone = 'Asia/Kathmandu';",
	"SET search_path = shop; SET xmloption = 'document'; SET lc_monetary = 'C.UTF-8'; SET lc_numeric = 'C'; SET lc_time = 'C'; SET standard_conforming_strings = on; SET array_nulls = on;",
);

# What every session of the test itself reads and prints values with.
my $plain = Entanglement::Node::plain();

sub fill
{
	my ($base, $mood) = @_;
	my ($sql, $id) = ('', $base);

	foreach my $i (0 .. $#types)
	{
		my ($type, @values) = @{ $types[$i] };

		$sql .= "INSERT INTO public.every (id, c$i) VALUES (" . $id++ . ", $_);\n"
		  foreach @values;
	}
	# literals are read under plain settings, the rows written under the
	# session's
	return "${plain}CREATE TEMP TABLE source AS TABLE public.every WITH NO DATA;\n"
	  . ($sql =~ s/INSERT INTO public\.every/INSERT INTO source/gr)
	  . "$mood\nINSERT INTO public.every TABLE pg_temp.source;\n";
}

# Each value's bytes: what the type's send function gives, or for those whose
# bytes contain numbers of this database's catalog, the text.
sub bits
{
	my ($node) = @_;
	my %send = map { split /\|/ } split /\n/, $node->sql($plain . <<'SQL');
SELECT a.attname || '|' || CASE
	WHEN t.typsend <> 0
	 AND format_type(a.atttypid, NULL) !~ '^(shop\.|reg|aclitem|refcursor)'
	 AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem
					  AND t.typcategory = 'A'
					  AND (e.typtype <> 'b' OR format_type(e.oid, NULL) ~ '^reg'))
	THEN 'encode(' || t.typsend::regproc || '(' || a.attname || '), ''hex'')'
	ELSE a.attname || '::text' END
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
 WHERE attrelid = 'public.every'::regclass AND attnum > 1
SQL
	my @lines = map {
		"SELECT id, '$types[$_][0]', $send{\"c$_\"} FROM every WHERE num_nonnulls(c$_) > 0"
	} 0 .. $#types;

	return $node->sql($plain . 'SELECT * FROM ('
		  . join(' UNION ALL ', @lines)
		  . ') x ORDER BY 1, 2');
}

$bob->sql($user_types);
$_->sql($table) foreach $alice, $bob;
$_->sql("SELECT entanglement.synchronize('every')") foreach $alice, $bob;

foreach my $i (0 .. $#moods)
{
	my $from = $i % 2 ? $bob : $alice;
	my $to = $i % 2 ? $alice : $bob;
	my $base = 1000 * ($i + 1);

	# the receiver's workers and sessions have odd settings as well
	foreach my $set (split /;\s*/, $moods[ ($i + 2) % @moods ])
	{
		$to->sql('ALTER DATABASE ' . $to->db . " $set")
		  if $set !~ /search_path|client_encoding/;
		$to->sql('ALTER ROLE ' . $from->name . ' IN DATABASE ' . $to->db . " $set");
	}
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	$from->sql(fill($base, $moods[$i]));
	$from->drain($to->name);
	my $want = bits($from);
	my $got = bits($to);
	my @want = split /\n/, $want;
	my @got = split /\n/, $got;
	my %got = map { (split /\|/)[0] => $_ } @got;
	my @bad = grep { ($got{ (split /\|/)[0] } // '') ne $_ } @want;

	is(scalar @want, scalar(map { @$_[ 1 .. $#$_ ] } @types) * ($i + 1),
		"all values were written, settings $i");
	is(scalar @bad, 0, "all arrive bit-equal, settings $i: $moods[$i]")
	  or diag join "\n",
	  map { "wrote $_\n  got " . ($got{ (split /\|/)[0] } // 'nothing') }
	  @bad[ 0 .. ($#bad > 9 ? 9 : $#bad) ];
	is(scalar @got, scalar @want, 'and nothing else');
}
is($_->sql('SELECT count(*) FROM entanglement.parked'),
	0, 'nothing is parked at ' . $_->name)
  foreach $alice, $bob;

subtest 'a value updated to each other value and to NULL and back' => sub {
	$alice->sql(<<'SQL');
UPDATE every SET c0 = NULL, c9 = 'now text', c14 = '\x00' WHERE id = 1000;
UPDATE every SET c9 = NULL WHERE id = 1000;
UPDATE every SET c1 = -1 WHERE id = 1000;
SQL
	converge([ $alice, $bob ], ['every'], 'updates of the columns');
	is( $bob->sql(
			$plain
			  . 'SELECT c0 IS NULL, c1, c9 IS NULL, c14 FROM every WHERE id = 1000'
		),
		't|-1|t|\x00', 'arrived column by column');
};

subtest 'keys of every kind of type' => sub {
	my @keys = (
		[ 'numeric', q(1.50), q(1.5), q(-0.0) ],
		[ 'float8', q('-0'), q(0), q('NaN') ],
		[ 'char(6)', q('ab'), q('ab  ') ],
		[ 'varchar', q('ab'), q('ab ') ],
		[ 'text', q(''), q('Ünïcödé ☃') ],
		[ 'bytea', q('\x00'), q('\xff00') ],
		[ 'timestamptz', q('infinity'), q('2024-03-31 02:30+02') ],
		[ 'interval', q('1 mon'), q('2 days') ],
		[ 'date', q('infinity'), q('0044-03-15 BC') ],
		[ 'uuid', q('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11') ],
		[ 'inet', q('10.0.0.1/8'), q('::1') ],
		[ 'shop.mood', q('sad') ],
		[ 'shop.posint', q(7) ],
		[ 'bool', q(true), q(false) ],
		[ 'jsonb', q('{"a": 1}') ],
		[ 'int4range', q{'[1,3)'}, q('empty') ],
		[ 'integer[]', q('{1,2}'), q('{}') ]);
	my $n = 0;

	foreach my $key (@keys)
	{
		my ($type, @values) = @$key;
		my $t = 'key' . $n++;
		my ($rc, $out, $err) = (0, '', '');

		foreach my $node ($alice, $bob)
		{
			$node->sql("CREATE TABLE $t (k $type PRIMARY KEY, v int)");
			($rc, $out, $err) = $node->try("SELECT entanglement.synchronize('$t')");
		}
		if ($rc != 0)
		{
			# a type whose equality is not that of its bytes is refused
			like($err, qr/ERROR:  0A000: .*HINT: /s,
				"$type in a key is refused with a hint");
			next;
		}
		$alice->sql(
			"INSERT INTO $t VALUES ($_, 1) ON CONFLICT (k) DO UPDATE SET v = $t.v + 1")
		  foreach @values;
		converge([ $alice, $bob ], [$t], "$type as key: insert");
		$alice->sql("UPDATE $t SET v = 100 WHERE k = $values[0]");
		$alice->sql("DELETE FROM $t WHERE k = $values[-1]") if @values > 1;
		converge([ $alice, $bob ], [$t], "$type as key: update and delete");
		is($bob->sql("SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = '$t'::regclass"),
			$bob->sql("SELECT count(*) FROM $t"), "$type as key: one object per row");
	}
};

subtest 'between UTF8 and LATIN1' => sub {
	foreach my $node ($alice, $bob, $latin)
	{
		$node->sql(<<'SQL');
SET client_encoding = 'UTF8';
CREATE TABLE "größe" (k text PRIMARY KEY, "wert é" text, doc jsonb, tags text[], n int);
SELECT entanglement.synchronize('"größe"');
SQL
	}
	$alice->sql(<<'SQL');
SET client_encoding = 'UTF8';
INSERT INTO "größe" VALUES ('Zürich', 'façade', '{"é": "ü"}', '{"ä",b}', 1), ('plain', NULL, NULL, NULL, 2);
SQL
	$latin->sql(<<'SQL');
SET client_encoding = 'UTF8';
INSERT INTO "größe" VALUES ('Ærø', 'Ødegård', '{"å": 1}', '{"¿"}', 3);
SQL
	my $all = q(SET client_encoding = 'UTF8'; SELECT * FROM "größe" ORDER BY n);
	my $want = join "\n", 'Zürich|façade|{"é": "ü"}|{ä,b}|1', 'plain||||2',
	  'Ærø|Ødegård|{"å": 1}|{¿}|3';

	$_->wait_until($all, $want, 'the same characters')
	  foreach $alice, $latin, $bob;
	is( $latin->sql(
			q(SET client_encoding = 'UTF8'; SELECT encode(convert_to(k, 'LATIN1'), 'hex') FROM "größe" WHERE n = 1)
		),
		'5afc72696368',
		'in bytes of LATIN1 there');

	$alice->sql(<<'SQL');
SET client_encoding = 'UTF8';
INSERT INTO "größe" VALUES ('euro', '€ 5', NULL, NULL, 4), ('after', 'fine', NULL, NULL, 5);
UPDATE "größe" SET "wert é" = '☃' WHERE k = 'plain';
SQL
	$latin->wait_until(
		q(SET client_encoding = 'UTF8'; SELECT k FROM "größe" WHERE n = 5),
		'after', 'the row behind');
	$latin->wait_until('SELECT count(*) FROM entanglement.parked', '2',
		'rows that cannot be converted');
	is( $latin->sql('SELECT DISTINCT sqlstate FROM entanglement.parked'),
		'22P05', 'parked as untranslatable');
	like(
		$latin->sql('SELECT message FROM entanglement.parked LIMIT 1'),
		qr/no equivalent in encoding "LATIN1"/,
		'with the reason');
	$bob->wait_until(
		q(SET client_encoding = 'UTF8'; SELECT "wert é" FROM "größe" WHERE n IN (2, 4) ORDER BY n),
		"☃\n€ 5", 'UTF8 peers are not held up');

	$alice->sql(<<'SQL');
SET client_encoding = 'UTF8';
UPDATE "größe" SET "wert é" = '5 EUR' WHERE n = 4;
UPDATE "größe" SET "wert é" = 'snow' WHERE n = 2;
SQL
	$latin->wait_until(
		q(SET client_encoding = 'UTF8'; SELECT "wert é" FROM "größe" WHERE n IN (2, 4) ORDER BY n),
		"snow\n5 EUR", 'a later value that can be converted');
	$latin->wait_until('SELECT count(*) FROM entanglement.parked', '0',
		'nothing parked any more');

	$alice->sql(<<'SQL');
SET client_encoding = 'UTF8';
INSERT INTO "größe" VALUES ('☃', 'key', NULL, NULL, 6), ('behind', 'key', NULL, NULL, 7);
SQL
	$latin->wait_until(
		q(SET client_encoding = 'UTF8'; SELECT k FROM "größe" WHERE n = 7),
		'behind', 'the row behind one whose key cannot be converted');
	$latin->wait_until(
		'SELECT key, sqlstate FROM entanglement.parked_rows',
		'\\x03e29883|22P05', 'which is parked under its bytes');
	$bob->wait_until(
		q(SET client_encoding = 'UTF8'; SELECT k FROM "größe" WHERE n = 6),
		'☃', 'UTF8 peers have it');
	$alice->sql(q(DELETE FROM "größe" WHERE n = 6));
	$latin->wait_until('SELECT count(*) FROM entanglement.parked', '0',
		'until it is deleted');
};

# Both ends compare which keys live in pieces, whose order differs between
# encodings.
subtest 'thousands of keys are compared between UTF8 and LATIN1' => sub {
	my $keys = q(SELECT x || repeat(chr(233), i % 4) || i FROM generate_series(1, 1500) i, unnest(ARRAY['a', 'é', 'ü']) x);
	my $gone = q(k LIKE '%7');

	foreach my $node ($alice, $latin)
	{
		$node->define('CREATE TABLE word (k text PRIMARY KEY, n int)', 'word');
		$node->audit('word');
	}
	$_->sql("SET client_encoding = 'UTF8'; INSERT INTO word SELECT '" . $_->name . " ' || w, 1 FROM ($keys) s (w)")
	  foreach $alice, $latin;
	# neither can be here, nor are they in the way of what can
	$alice->sql("SET client_encoding = 'UTF8'; INSERT INTO word SELECT 'alice ' || chr(9731) || i, 2 FROM generate_series(1, 30) i");
	$_->wait_until('SELECT count(*) FROM word WHERE n = 1',
		9000, 'all keys at ' . $_->name)
	  foreach $alice, $latin;
	# deaths that are told by what lives: each forgets the other, and tombstones go
	$alice->sql("SELECT entanglement.drop_peer('latin')");
	$_->sql("DELETE FROM word WHERE $gone AND k LIKE '" . $_->name . " %'") foreach $alice, $latin;
	$latin->sql("SELECT entanglement.drop_peer('alice')");
	$_->wait_until('SELECT count(*) FROM entanglement.tombstone t JOIN entanglement.owner o ON o.no = t.owner WHERE o.local',
		0, 'tombstones went at ' . $_->name)
	  foreach $alice, $latin;
	link_nodes($latin, $alice);
	foreach my $node ($alice, $latin)
	{
		$node->wait_until("SELECT count(*) FROM word WHERE $gone", 0, 'the dead rows went at ' . $node->name);
		is($node->sql("SELECT count(*) FROM audit_word WHERE op = 'DELETE' AND NOT body->>'k' LIKE '%7'"),
			0, 'no living one did at ' . $node->name);
		is($node->sql("SELECT count(*) FROM word WHERE k LIKE 'alice %' AND n = 1"), 4050, 'they are all there');
	}
	is($latin->peer('alice')->{state}, 'connected', 'the link is up');
};

subtest 'names that LATIN1 lacks' => sub {
	$alice->sql(<<'SQL');
SET client_encoding = 'UTF8';
CREATE TABLE "☃" (k int PRIMARY KEY, v int);
CREATE TABLE named (k int PRIMARY KEY, "日" int);
SELECT entanglement.synchronize('"☃"'), entanglement.synchronize('named');
SELECT entanglement.create_owner('émil ☃');
SET entanglement.owner = 'émil ☃';
INSERT INTO "☃" VALUES (1, 1);
INSERT INTO named VALUES (1, 1);
SQL
	$latin->define('CREATE TABLE named (k int PRIMARY KEY)', 'named');
	$latin->wait_until(
		q(SET client_encoding = 'UTF8'; SELECT entanglement.owner_of(n) FROM named n),
		'émil \\2603', 'do not keep out what is not named so');
	$latin->wait_until(
		"SELECT waiting_for LIKE '%\"\\\\2603\"%' AND waiting_for LIKE '%named.\"\\\\65E5\"%' FROM entanglement.peers WHERE name = 'alice'",
		't', 'and are waited for, escaped');
	is($latin->peer('alice')->{state}, 'connected', 'the link is up');
};

done_testing();
