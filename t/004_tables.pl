# Tables of every shape, between databases of one cluster: alice dials bob,
# carol dials bob.
#
# Promise: composite keys, partitions, other column orders, generated and
# identity columns, dropped and added columns, strange names and huge values
# all arrive; what the other side does not know is reported there, once,
# holds nothing up, and flows when it appears.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('tables');
my ($alice, $bob, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob carol);
my @all = ($alice, $bob, $carol);

link_nodes($alice, $bob);
link_nodes($carol, $bob);

subtest 'composite keys, key columns anywhere' => sub {
	$_->define(<<'SQL', 'stock') foreach @all;
CREATE TABLE stock (
	qty int, shop text, note text, item bigint, day date,
	PRIMARY KEY (item, shop, day)
);
SQL
	$alice->sql(<<'SQL');
INSERT INTO stock
SELECT i, 'shop ' || i % 3, NULL, i / 3, '2024-01-01'::date + i % 5
  FROM generate_series(1, 300) i;
UPDATE stock SET qty = qty + 1000 WHERE item = 7;
DELETE FROM stock WHERE shop = 'shop 2';
UPDATE stock SET day = day + 10, note = 'moved' WHERE item % 10 = 0;
SQL
	converge(\@all, ['stock'], 'composite keys arrive at both');
};

subtest 'only key columns' => sub {
	$_->define('CREATE TABLE member (a int, b text, PRIMARY KEY (b, a))',
		'member')
	  foreach @all;
	$alice->sql("INSERT INTO member VALUES (1, 'x'), (2, 'y'), (3, 'z')");
	$bob->wait_until('SELECT count(*) FROM member', '3', 'rows of keys only');
	$alice->sql("DELETE FROM member WHERE a = 2");
	$alice->sql("UPDATE member SET a = 4 WHERE a = 3");
	converge(\@all, ['member'], 'rows that are nothing but a key');
};

subtest 'a unique not-null index instead of a primary key' => sub {
	$_->sql(<<'SQL') foreach @all;
CREATE TABLE badge (code text NOT NULL, owner text);
CREATE UNIQUE INDEX badge_code ON badge (code);
SQL
	$alice->fails("SELECT entanglement.synchronize('badge')",
		'[0-9A-Z]{5}', 'HINT: ', 'without a primary key it is refused with a hint');
	my $named = $alice->sql(<<'SQL');
SELECT name FROM (
	SELECT unnest(proargnames) AS name FROM pg_proc
	 WHERE oid = 'entanglement.synchronize'::regproc) a
 WHERE name ~ 'index' OR name ~ 'key' LIMIT 1
SQL
	ok($named ne '', 'synchronize has an argument for the index');
	$_->sql("SELECT entanglement.synchronize('badge', $named => 'badge_code')")
	  foreach @all;
	$alice->sql("INSERT INTO badge VALUES ('b1', 'ann'), ('b2', 'ben')");
	$alice->sql("UPDATE badge SET owner = 'bea' WHERE code = 'b2'");
	converge(\@all, ['badge'], 'with the index named it flows');
};

subtest 'partitioned here, differently there, not at all elsewhere' => sub {
	$alice->define(<<'SQL', 'reading');
CREATE TABLE reading (id int, region text, value float8, PRIMARY KEY (id, region))
	PARTITION BY LIST (region);
CREATE TABLE reading_eu PARTITION OF reading FOR VALUES IN ('eu', 'uk');
CREATE TABLE reading_rest (value float8, region text NOT NULL, junk int, id int NOT NULL);
ALTER TABLE reading_rest DROP COLUMN junk;
ALTER TABLE reading ATTACH PARTITION reading_rest DEFAULT;
SQL
	$bob->define(<<'SQL', 'reading');
CREATE TABLE reading (id int, region text, value float8, PRIMARY KEY (id, region))
	PARTITION BY HASH (id);
CREATE TABLE reading_0 PARTITION OF reading FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE reading_1 PARTITION OF reading FOR VALUES WITH (MODULUS 2, REMAINDER 1)
	PARTITION BY RANGE (id);
CREATE TABLE reading_1_low PARTITION OF reading_1 FOR VALUES FROM (MINVALUE) TO (50);
CREATE TABLE reading_1_high PARTITION OF reading_1 FOR VALUES FROM (50) TO (MAXVALUE);
SQL
	$carol->define(
		'CREATE TABLE reading (id int, region text, value float8, PRIMARY KEY (id, region))',
		'reading');
	$alice->fails("SELECT entanglement.synchronize('reading_eu')",
		'42809', 'HINT:  Synchronize the partitioned table',
		'a partition by itself is refused with a hint');
	$alice->sql(<<'SQL');
INSERT INTO reading SELECT i, (ARRAY['eu', 'uk', 'us', 'jp'])[1 + i % 4], i
  FROM generate_series(1, 200) i;
UPDATE reading SET value = -value WHERE id % 5 = 0;
INSERT INTO reading_eu VALUES (1001, 'eu', 1);
UPDATE reading_rest SET value = 7 WHERE id = 2;
DELETE FROM reading_eu WHERE id = 4;
SQL
	$carol->sql("INSERT INTO reading VALUES (2001, 'eu', 5), (2002, 'mars', 6)");
	my %same = (reading => 'id, region, value');
	converge(\@all, \%same, 'all three hold the same');
	$alice->sql(
		"UPDATE reading SET region = 'us' WHERE id % 7 = 0 AND region = 'eu' AND entanglement.owner_of(reading) = 'alice'");
	converge(\@all, \%same, 'a row moved to another partition');
	is( $alice->sql(
			"SELECT tableoid::regclass FROM reading WHERE id IN (2001, 2002) ORDER BY id"
		),
		"reading_eu\nreading_rest",
		'foreign rows are routed to partitions');
	$alice->sql("CREATE TABLE reading_new PARTITION OF reading FOR VALUES IN ('cn')");
	$alice->sql("INSERT INTO reading VALUES (3001, 'cn', 1)");
	converge(\@all, \%same, 'a partition added later is captured too');
	$alice->sql("DELETE FROM reading WHERE region IN ('eu', 'uk') AND id <= 1001");
	converge(\@all, \%same, 'deletes through the root');
};

# Everything that happens to one partition alone. Values go to partitions that
# all nodes have, so rows that came or went can be told apart by what is left.
subtest 'partitions that are emptied, attached, detached, dropped' => sub {
	my %same = (flow => 'id, v');
	my $rows = 'SELECT count(*) FROM flow WHERE id BETWEEN %d AND %d';

	$alice->define(<<'SQL', 'flow');
CREATE TABLE flow (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE flow_0 PARTITION OF flow FOR VALUES FROM (0) TO (100);
CREATE TABLE flow_1 PARTITION OF flow FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
CREATE TABLE flow_1_low PARTITION OF flow_1 FOR VALUES FROM (100) TO (150);
CREATE TABLE flow_1_high PARTITION OF flow_1 FOR VALUES FROM (150) TO (200);
SQL
	$_->define('CREATE TABLE flow (id int PRIMARY KEY, v text)', 'flow')
	  foreach $bob, $carol;
	$alice->sql("INSERT INTO flow SELECT i, 'born ' || i FROM generate_series(0, 199) i");
	converge(\@all, \%same, 'partitions in partitions');

	$alice->sql('TRUNCATE flow_1_low');
	converge(\@all, \%same, 'a partition truncated by itself');
	is($carol->sql(sprintf $rows, 100, 199), 50, 'takes its rows alone');
	$alice->sql('TRUNCATE flow_1');
	converge(\@all, \%same, 'with partitions of its own');
	$alice->sql("BEGIN; TRUNCATE flow; INSERT INTO flow VALUES (1, 'then'), (101, 'gone'); TRUNCATE flow_1_low; COMMIT");
	converge(\@all, \%same, 'after the whole table, in one transaction');
	is($carol->sql('SELECT id, v FROM flow'), '1|then', 'what came between is there');
	$alice->sql("BEGIN; SAVEPOINT s; TRUNCATE flow; ROLLBACK TO s; INSERT INTO flow VALUES (102, 'brief'); TRUNCATE flow_0; COMMIT");
	converge(\@all, \%same, 'nor does one that was rolled back count');
	is($carol->sql('SELECT id, v FROM flow'), '102|brief', 'for the next');

	# by the table's owner, who may read nothing of ours
	$alice->sql(<<'SQL');
CREATE ROLE builder;
GRANT CREATE ON SCHEMA public TO builder;
GRANT EXECUTE ON FUNCTION entanglement.capture_trigger, entanglement.request_trigger TO builder;
ALTER TABLE flow OWNER TO builder;
ALTER TABLE flow_1 OWNER TO builder;
SET ROLE builder;
CREATE TABLE flow_2 (v text, id int NOT NULL);
INSERT INTO flow_2 SELECT 'attached ' || i, i FROM generate_series(200, 299) i;
ALTER TABLE flow ATTACH PARTITION flow_2 FOR VALUES FROM (200) TO (300);
CREATE TABLE flow_3 PARTITION OF flow FOR VALUES FROM (300) TO (400);
INSERT INTO flow SELECT i, 'born ' || i FROM generate_series(300, 399) i;
SQL
	converge(\@all, \%same, 'rows come with a partition that is attached');
	is($carol->sql(sprintf $rows, 200, 399), 200, 'and into one that is new');
	is( $carol->sql('SELECT DISTINCT entanglement.owner_of(f) FROM flow f'),
		'alice', 'of the owner who attached it');
	$alice->sql('SET ROLE builder; UPDATE flow_2 SET v = NULL WHERE id < 210; TRUNCATE flow_3');
	converge(\@all, \%same, 'changes of both are captured');

	$alice->sql('SET ROLE builder; ALTER TABLE flow DETACH PARTITION flow_2');
	converge(\@all, \%same, 'rows go with a partition that is detached');
	is($carol->sql(sprintf $rows, 200, 299), 0, 'all of them');
	$alice->sql('UPDATE flow_2 SET v = $$free$$; TRUNCATE flow_2');
	$alice->sql("INSERT INTO flow VALUES (103, 'more'), (303, 'more')");
	$alice->sql('ALTER TABLE flow DETACH PARTITION flow_3 CONCURRENTLY');
	converge(\@all, \%same, 'also concurrently');
	is($carol->sql('SELECT id FROM flow ORDER BY id'), "102\n103", 'those and no others');
	$alice->sql('SET ROLE builder; ALTER TABLE flow ATTACH PARTITION flow_3 FOR VALUES FROM (300) TO (400)');
	converge(\@all, \%same, 'and come back with it');
	$alice->sql("SET ROLE builder; INSERT INTO flow VALUES (1, 'stays'); DROP TABLE flow_1, flow_3");
	converge(\@all, \%same, 'rows go with a partition that is dropped');
	is($carol->sql('SELECT id, v FROM flow'), '1|stays', 'and no others');
	$alice->sql("BEGIN; ALTER TABLE flow DETACH PARTITION flow_0; ROLLBACK; UPDATE flow SET v = 'still'");
	converge(\@all, \%same, 'nothing goes with a rollback');
	is( $alice->sql(
			"SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'flow'::regclass"
		),
		1,
		'no object is left without a row');

	# authority: rows of another owner do not go
	$carol->sql("INSERT INTO flow VALUES (2, 'of carol')");
	converge(\@all, \%same, 'a row of carol in it');
	$alice->fails('TRUNCATE flow_0', '55000', 'owned by "carol"', 'TRUNCATE is refused');
	$alice->fails('ALTER TABLE flow DETACH PARTITION flow_0',
		'55000', 'owned by "carol"', 'DETACH');
	$alice->fails('DROP TABLE flow_0', '55000', 'owned by "carol".*HINT:  Detach',
		'and DROP');
	converge(\@all, \%same, 'and changes nothing');
};

subtest 'an index that is built anew' => sub {
	$_->define('CREATE TABLE rebuilt (id int PRIMARY KEY, v text)', 'rebuilt') foreach @all;
	$alice->sql("INSERT INTO rebuilt SELECT i, 'v' || i FROM generate_series(1, 10) i");
	converge(\@all, ['rebuilt'], 'in step');
	foreach my $node (@all)
	{
		$node->sql("REINDEX TABLE CONCURRENTLY $_") foreach qw(rebuilt reading);
		$node->sql('VACUUM FULL rebuilt');
	}
	$alice->sql("UPDATE rebuilt SET v = 'w' WHERE id = 1; DELETE FROM rebuilt WHERE id = 2");
	$alice->sql("UPDATE reading SET value = 8 WHERE entanglement.owner_of(reading) = 'alice'");
	converge(\@all, ['rebuilt'], 'is the key as before');
	converge(\@all, { reading => 'id, region, value' }, 'also with partitions');
};

subtest 'another column order, dropped and generated and identity columns' => sub {
	$alice->define(<<'SQL', 'person');
CREATE TABLE person (
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	gone int DEFAULT 1,
	first text, last text,
	full_name text GENERATED ALWAYS AS (first || ' ' || last) STORED,
	height numeric
);
ALTER TABLE person DROP COLUMN gone;
SQL
	$bob->define(<<'SQL', 'person');
CREATE TABLE person (
	height numeric,
	full_name text GENERATED ALWAYS AS (upper(last) || ', ' || first) STORED,
	last text,
	was_here int, and_here text,
	first text,
	id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY
);
ALTER TABLE person DROP COLUMN was_here, DROP COLUMN and_here;
SQL
	$carol->define(<<'SQL', 'person');
CREATE TABLE person (
	last text, first text, height numeric,
	full_name text,
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);
SQL
	$alice->sql(<<'SQL');
INSERT INTO person (first, last, height) VALUES ('Ada', 'Lovelace', 1.65), ('Alan', 'Turing', 1.78);
UPDATE person SET last = 'King' WHERE first = 'Ada';
SQL
	my %same = (person => 'id, first, last, height');
	converge(\@all, \%same, 'columns are matched by name');
	is($bob->sql('SELECT full_name FROM person ORDER BY id'),
		"KING, Ada\nTURING, Alan", 'generated columns are computed locally');
	is($carol->sql('SELECT count(full_name) FROM person'),
		'0', 'and not sent where they are ordinary');
	$alice->sql(<<'SQL');
ALTER TABLE person DROP COLUMN height;
ALTER TABLE person ADD COLUMN height numeric DEFAULT 2;
INSERT INTO person (first, last) VALUES ('Grace', 'Hopper');
UPDATE person SET height = 1.7 WHERE first = 'Alan';
SQL
	converge(\@all, { person => 'id, first, last' },
		'a column dropped and added again holds nothing up');
	$bob->wait_until("SELECT height FROM person WHERE first = 'Alan'",
		'1.7', 'its values');
};

subtest 'identity columns beside the key' => sub {
	my %same = (ticket => 'id, n, note');

	$alice->define(
		'CREATE TABLE ticket (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, note text)',
		'ticket');
	$bob->define(
		'CREATE TABLE ticket (n int GENERATED BY DEFAULT AS IDENTITY, note text, id int PRIMARY KEY)',
		'ticket');
	$carol->define(<<'SQL', 'ticket');
CREATE TABLE ticket (
	id int, n int GENERATED ALWAYS AS IDENTITY, note text, mine text DEFAULT 'mine',
	twice int GENERATED ALWAYS AS (2 * n) STORED,
	PRIMARY KEY (id)
) PARTITION BY HASH (id);
CREATE TABLE ticket_0 PARTITION OF ticket FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SQL
	$alice->sql("INSERT INTO ticket (id, note) SELECT i, 'note ' || i FROM generate_series(1, 5) i");
	converge(\@all, \%same, 'the values of the owner are taken over');
	$alice->sql('UPDATE ticket SET n = DEFAULT WHERE id IN (2, 3)');
	$alice->sql("UPDATE ticket SET n = DEFAULT, note = 'both' WHERE id = 4");
	converge(\@all, \%same, 'also when they change');
	is($carol->sql('SELECT DISTINCT mine, twice = 2 * n FROM ticket'),
		'mine|t', 'other columns stay as they were');
	is($carol->sql("SELECT DISTINCT entanglement.owner_of(t) FROM ticket t"),
		'alice', 'and so does the owner');
};

subtest 'a column added on both sides' => sub {
	$_->sql('ALTER TABLE stock ADD COLUMN price numeric DEFAULT 9.99')
	  foreach @all;
	$alice->sql('UPDATE stock SET price = item WHERE item < 20');
	$alice->sql("INSERT INTO stock VALUES (1, 'new', NULL, 9999, '2025-01-01', 5)");
	converge(\@all, ['stock'], 'its values flow');
	$_->sql('ALTER TABLE stock DROP COLUMN note') foreach @all;
	$alice->sql('UPDATE stock SET qty = 0 WHERE item = 9999');
	converge(\@all, ['stock'], 'and a column dropped on both');
};

subtest 'quoted and non-ASCII names' => sub {
	$_->sql(<<'SQL') foreach @all;
CREATE SCHEMA "Größe & ""Maß""";
GRANT USAGE ON SCHEMA "Größe & ""Maß""" TO PUBLIC;
CREATE TABLE "Größe & ""Maß"""."sélect from 'x'" (
	"Schlüssel; --" int PRIMARY KEY, "wert %s \n" text, "SELECT" int, "日本" text[]
);
GRANT ALL ON "Größe & ""Maß"""."sélect from 'x'" TO PUBLIC;
SELECT entanglement.synchronize('"Größe & ""Maß"""."sélect from ''x''"');
SQL
	my $t = q("Größe & ""Maß"""."sélect from 'x'");

	$alice->sql(
		"INSERT INTO $t VALUES (1, 'a', 1, '{山}'), (2, NULL, NULL, NULL)");
	$alice->sql(qq(UPDATE $t SET "SELECT" = 5 WHERE "Schlüssel; --" = 2));
	converge(\@all, [$t], 'rows of a table with hard names');
};

subtest 'rows that were there before' => sub {
	$_->sql('CREATE TABLE old (id int PRIMARY KEY, v text)') foreach @all;
	$alice->sql("INSERT INTO old SELECT i, 'row ' || i FROM generate_series(1, 500) i");
	$_->sql("SELECT entanglement.synchronize('old')") foreach @all;
	$alice->drain('bob');
	is($bob->sql('SELECT count(*) FROM old'), 500,
		'drain waits for a table that the peer has just synchronized');
	$bob->drain('carol');
	is($carol->sql('SELECT count(*) FROM old'), 500, 'dialed or dialing');
	converge(\@all, ['old'], 'are taken over and sent');
	is($carol->sql('SELECT DISTINCT entanglement.owner_of(o) FROM old o'),
		'alice', 'with their owner');
};

subtest 'a table unknown on the other side' => sub {
	my $mark = $bob->log_mark;

	$alice->define('CREATE TABLE early (id int PRIMARY KEY, v text)', 'early');
	$alice->sql("INSERT INTO early SELECT i, 'early ' || i FROM generate_series(1, 50) i");
	$bob->wait_until(
		"SELECT waiting_for::text LIKE '%early%' FROM entanglement.peers WHERE name = 'alice'",
		't', 'report of the unknown table');
	$alice->sql("UPDATE stock SET qty = 77 WHERE item = 9999");
	$alice->drain('bob');
	is($bob->sql('SELECT qty FROM stock WHERE item = 9999'),
		77, 'other tables are not held up, nor is drain');
	$alice->sql("UPDATE early SET v = 'changed' WHERE id = 50");
	$alice->sql('DELETE FROM early WHERE id = 49');
	$alice->drain('bob');
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$bob->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'",
		't', 'pause');
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	$alice->wait_connected('bob');
	$bob->wait_until(
		"SELECT waiting_for::text LIKE '%early%' FROM entanglement.peers WHERE name = 'alice'",
		't', 'report after a reconnection');
	my @said = grep { /LOG:|WARNING:/ && /early/ } split /\n/,
	  $bob->log_since($mark);
	is(scalar @said, 1, 'it is logged once') or diag join "\n", @said;

	$bob->define('CREATE TABLE early (id int PRIMARY KEY, v text)', 'early');
	converge([ $alice, $bob ], ['early'], 'it flows when it appears');
	$bob->wait_until(
		"SELECT coalesce(waiting_for::text, '') NOT LIKE '%early%' FROM entanglement.peers WHERE name = 'alice'",
		't', 'end of the report');
	$carol->define('CREATE TABLE early (id int PRIMARY KEY, v text)', 'early');
	converge(\@all, ['early'], 'and to the next node when it appears there');
	$alice->sql("INSERT INTO early VALUES (1000, 'later')");
	converge(\@all, ['early'], 'and goes on');
};

subtest 'a column unknown on the other side' => sub {
	my $mark = $bob->log_mark;

	$alice->define(
		'CREATE TABLE wide (id int PRIMARY KEY, a text, b text, c text)',
		'wide');
	$_->define('CREATE TABLE wide (id int PRIMARY KEY, a text)', 'wide')
	  foreach $bob, $carol;
	$alice->sql(
		"INSERT INTO wide SELECT i, 'a' || i, 'b' || i, 'c' || i FROM generate_series(1, 20) i");
	converge(\@all, { wide => 'id, a' }, 'the known columns flow');
	$bob->wait_until(
		"SELECT waiting_for::text LIKE '%wide%b%' FROM entanglement.peers WHERE name = 'alice'",
		't', 'report of the unknown columns');
	$alice->sql("UPDATE wide SET a = 'A', b = 'B' WHERE id = 3");
	converge(\@all, { wide => 'id, a' }, 'so do updates of both kinds');
	my @said = grep { /LOG:.* columns of table "public.wide".*: "b", "c"$/ }
	  split /\n/, $bob->log_since($mark);
	is(scalar @said, 1, 'they are logged once, by name') or diag join "\n", @said;
	$bob->sql('ALTER TABLE wide ADD COLUMN b text');
	converge([ $alice, $bob ], { wide => 'id, a, b' },
		'a column that appears is filled');
	$carol->sql('ALTER TABLE wide ADD COLUMN b text');
	converge(\@all, { wide => 'id, a, b' }, 'also at the next node');
	$_->sql('ALTER TABLE wide ADD COLUMN c text') foreach $bob, $carol;
	converge(\@all, ['wide'], 'until all are equal');
	is( $bob->sql(
			"SELECT coalesce(waiting_for::text, '{}') FROM entanglement.peers WHERE name = 'alice'"
		) =~ /wide/ ? 1 : 0,
		0,
		'nothing is waited for');
};

subtest 'what comes late reaches a peer that is away' => sub {
	$alice->sql(<<'SQL');
CREATE TABLE late (id int PRIMARY KEY, v text);
REVOKE ALL ON late FROM bob;
SELECT entanglement.synchronize('late');
SQL
	$_->define('CREATE TABLE late (id int PRIMARY KEY, v text)', 'late')
	  foreach $bob, $carol;
	$alice->sql("INSERT INTO late SELECT i, 'late ' || i FROM generate_series(1, 10) i");
	$alice->sql('UPDATE stock SET qty = 78 WHERE item = 9999');
	$alice->drain('bob');
	$bob->drain('carol');
	converge(\@all, ['stock'], 'others pass by');
	is($bob->sql('SELECT count(*) FROM late'), '0', 'what the role may not see');
	$carol->wait_until(
		"SELECT have FROM entanglement.owners WHERE name = 'alice'",
		$alice->sql("SELECT serial FROM entanglement.owners WHERE name = 'alice'"),
		'has all that it could get');

	$carol->sql("SELECT entanglement.pause_peer('bob')");
	$bob->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'carol'",
		't', 'carol is away');
	$alice->sql('GRANT SELECT ON late TO bob');
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$alice->wait_state('bob', 'paused');
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	converge([ $alice, $bob ], ['late'], 'comes when it may');
	$carol->sql("SELECT entanglement.resume_peer('bob')");
	converge(\@all, ['late'], 'and also to who was away meanwhile');
};

subtest 'a column the other side has in addition' => sub {
	$alice->define('CREATE TABLE slim (id int PRIMARY KEY, a text)', 'slim');
	$bob->define(
		"CREATE TABLE slim (id int PRIMARY KEY, local_note text DEFAULT 'mine', a text)",
		'slim');
	$alice->sql("INSERT INTO slim VALUES (1, 'x')");
	$bob->wait_until('SELECT id, local_note, a FROM slim',
		'1|mine|x', 'the row with the default of the column');
};

subtest 'a row that cannot be stored is parked alone and retried' => sub {
	$_->define('CREATE TABLE strict (id int PRIMARY KEY, v int)', 'strict')
	  foreach @all;
	$bob->sql('ALTER TABLE strict ADD CONSTRAINT small CHECK (v < 100)');
	$alice->sql(
		'INSERT INTO strict SELECT i, CASE i WHEN 13 THEN 1000 ELSE i END FROM generate_series(1, 30) i');
	$bob->wait_until('SELECT count(*) FROM strict', '29', 'the good rows');
	$bob->wait_until('SELECT sqlstate, message FROM entanglement.parked',
		'23514|new row for relation "strict" violates check constraint "small"',
		'the bad row with its reason');
	$alice->drain('bob');
	pass('drain does not wait for a parked row');
	$bob->sql('ALTER TABLE strict DROP CONSTRAINT small');
	converge(\@all, ['strict'], 'retried when the reason has gone');
	$bob->wait_until('SELECT count(*) FROM entanglement.parked', '0',
		'nothing parked any more');
};

# Nobody here waits for a retry: what depends on each other comes together.
subtest 'unique values that rows exchange' => sub {
	my %same = (place => 'id, seat, span, v');

	$_->define(<<'SQL', 'place') foreach @all;
CREATE TABLE place (
	id int PRIMARY KEY, seat int UNIQUE, span int4range, v text,
	EXCLUDE USING gist (span WITH &&)
);
SQL
	$bob->sql("ALTER TABLE place ADD mine text DEFAULT 'mine'");
	$alice->sql("INSERT INTO place SELECT i, i, int4range(10 * i, 10 * i + 10), 'v' || i FROM generate_series(1, 20) i");
	converge(\@all, \%same, 'in step');
	$bob->sql("SET session_replication_role = replica; UPDATE place SET mine = 'kept'");
	$alice->sql(<<'SQL');
BEGIN;
UPDATE place SET seat = -seat WHERE id <= 2;
UPDATE place SET seat = 3 + seat WHERE id <= 2;
COMMIT;
SQL
	converge(\@all, \%same, 'two rows');
	$alice->sql('BEGIN; UPDATE place SET seat = seat + 100; UPDATE place SET seat = 121 - seat; COMMIT');
	converge(\@all, \%same, 'all rows');
	$alice->sql('BEGIN; UPDATE place SET seat = seat + 100; UPDATE place SET seat = CASE seat WHEN 101 THEN 20 ELSE seat - 101 END; COMMIT');
	converge(\@all, \%same, 'in a circle');
	$alice->sql("BEGIN; UPDATE place SET span = NULL WHERE id IN (5, 6); UPDATE place SET span = int4range(60, 70) WHERE id = 5; UPDATE place SET span = int4range(50, 60) WHERE id = 6; COMMIT");
	converge(\@all, \%same, 'ranges that must not overlap');
	$alice->sql(<<'SQL');
BEGIN;
CREATE TEMP TABLE t ON COMMIT DROP AS SELECT seat FROM place WHERE id = 20;
DELETE FROM place WHERE id = 20;
INSERT INTO place SELECT 21, seat, NULL, 'new' FROM t;
COMMIT;
SQL
	converge(\@all, \%same, 'also with births and deaths');
	is($_->sql('SELECT count(*) FROM entanglement.parked'), 0, $_->name . ' parks nothing')
	  foreach $bob, $carol;
	is( $bob->sql(
			"SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'place'::regclass"
		),
		20,
		'each row is the object it was');

	is($bob->sql('SELECT mine, count(*) FROM place GROUP BY 1 ORDER BY 1'),
		"kept|19\nmine|1", 'with what is known here alone');

	# one that cannot come holds up none of the others
	$bob->sql('SET session_replication_role = replica; INSERT INTO place VALUES (100, 500)');
	$alice->sql(<<'SQL');
BEGIN;
CREATE TEMP TABLE t ON COMMIT DROP AS SELECT id, seat FROM place WHERE id < 3;
UPDATE place SET seat = NULL, v = 'last' WHERE id < 4;
UPDATE place SET seat = t.seat FROM t WHERE place.id = 3 - t.id;
UPDATE place SET seat = 500 WHERE id = 3;
COMMIT;
SQL
	$bob->wait_until("SELECT string_agg(id::text, ' ' ORDER BY id) FROM place WHERE v = 'last'",
		'1 2', 'two of three');
	$bob->wait_until('SELECT key, sqlstate FROM entanglement.parked_rows', '(id)=(3)|23505', 'one');
	$bob->sql('SET session_replication_role = replica; DELETE FROM place WHERE id = 100');
	converge(\@all, \%same, 'which comes when it can');
};

subtest 'a table left and joined again' => sub {
	$bob->sql("SELECT entanglement.desynchronize('old')");
	$alice->sql("UPDATE old SET v = 'while away' WHERE id <= 5");
	$alice->sql('DELETE FROM old WHERE id = 6');
	$alice->drain('bob');
	is($bob->sql('SELECT v FROM old WHERE id = 1'),
		'row 1', 'a table that was left is not written');
	$bob->sql('TRUNCATE old');
	$bob->sql("SELECT entanglement.synchronize('old')");
	converge([ $alice, $bob ], ['old'], 'and is filled when joined again');
	converge(\@all, ['old'], 'everybody agrees');
	$alice->sql("UPDATE old SET v = 'back' WHERE id = 7");
	$alice->sql('DELETE FROM old WHERE id = 8');
	converge(\@all, ['old'], 'and goes on agreeing');
	$bob->sql("BEGIN; SELECT entanglement.desynchronize('old'); TRUNCATE old; SELECT entanglement.synchronize('old'); COMMIT");
	converge(\@all, ['old'], 'also when that is one transaction');
};

subtest 'a value of 50 MB' => sub {
	$_->define(
		'CREATE TABLE blob (id int PRIMARY KEY, n int, body bytea);'
		  . 'ALTER TABLE blob ALTER body SET STORAGE EXTERNAL',
		'blob')
	  foreach @all;
	$alice->sql(<<'SQL');
INSERT INTO blob
SELECT 1, 0, decode(string_agg(md5(i::text), ''), 'hex')
  FROM generate_series(1, 50 * 65536) i
SQL
	$_->wait_until(
		'SELECT length(body), n FROM blob',
		(50 * 1048576) . '|0', '50 MB')
	  foreach $bob, $carol;
	is($carol->sql('SELECT md5(body) FROM blob'),
		$alice->sql('SELECT md5(body) FROM blob'), 'bit-equal two links away');
	my $before = $alice->peer('bob');
	$alice->sql('UPDATE blob SET n = 1');
	$carol->wait_until('SELECT n FROM blob', '1', 'update beside it');
	cmp_ok(
		Entanglement::Node::counted($before, $alice->peer('bob'))->{bytes_sent},
		'<', 2000, 'the big value did not travel again');
	$alice->sql('DELETE FROM blob');
	$carol->wait_until('SELECT count(*) FROM blob', '0', 'delete');
};

# What passes by before anything of its owner has been claimed is not lost.
subtest 'a table that appears in the middle of a first catching up' => sub {
	my $tardy = 'CREATE TABLE tardy (id int PRIMARY KEY, v text)';

	$_->define('CREATE TABLE bulk (id int PRIMARY KEY, body text)', 'bulk')
	  foreach @all;
	$alice->define($tardy, 'tardy');
	$alice->sql("SELECT entanglement.create_owner('slow')");
	$bob->wait_until(
		"SELECT (SELECT waiting_for LIKE '%tardy%' FROM entanglement.peers WHERE name = 'alice'), (SELECT have FROM entanglement.owners WHERE name = 'slow')",
		't|0', 'the table is offered, and a new owner');
	$alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => 5000)");
	$alice->sql(<<'SQL');
BEGIN;
SET LOCAL entanglement.owner = 'slow';
INSERT INTO tardy SELECT i, 'tardy ' || i FROM generate_series(1, 10) i;
INSERT INTO bulk SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 2000) i;
COMMIT;
SQL
	$bob->wait_until('SELECT count(*) > 0 FROM bulk', 't', 'some rows came');
	$bob->define($tardy, 'tardy');
	$bob->wait_until(
		"SELECT waiting_for IS NULL FROM entanglement.peers WHERE name = 'alice'",
		't', 'the table has appeared');
	is($bob->sql("SELECT have FROM entanglement.owners WHERE name = 'slow'"),
		0, 'before anything was claimed');
	$carol->define($tardy, 'tardy');
	$alice->sql("SELECT entanglement.alter_peer('bob', reset => '{bandwidth}')");
	converge(\@all, [qw(bulk tardy)], 'its rows come, here and further on');
};

# The sender has read of the rows, and of the serial they end with, before it
# announces their table: the claim comes along with the announcement.
subtest 'a table that appears together with the first rows of an owner' => sub {
	my $first = 'CREATE TABLE first (id int PRIMARY KEY, v text)';
	my $blocker = $bob->session;

	$_->define($first, 'first') foreach $bob, $carol;
	$alice->sql("SELECT entanglement.create_owner('newcomer')");
	$bob->wait_until("SELECT have, peer FROM entanglement.owners WHERE name = 'newcomer'", '0|alice', 'a new owner');
	$alice->drain('bob');
	$blocker->query_safe('BEGIN; LOCK TABLE bulk');
	$alice->sql("INSERT INTO bulk VALUES (3000, 'waits')");
	$bob->wait_until("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'bulk'::regclass AND NOT granted", 't', 'a batch is on its way');
	$alice->sql(<<"SQL");
BEGIN;
SET LOCAL entanglement.owner = 'newcomer';
$first;
INSERT INTO first SELECT i, 'first ' || i FROM generate_series(1, 10) i;
SELECT entanglement.synchronize('first');
COMMIT;
SQL
	$alice->wait_until("SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'first'::regclass", 10, 'they have serials');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	converge(\@all, [qw(bulk first)], 'they come, here and further on');
};

subtest 'nothing is left over' => sub {
	foreach my $node (@all)
	{
		$node->drain;
		is( $node->sql(
				'SELECT (SELECT count(*) FROM entanglement.owed), (SELECT count(*) FROM entanglement.parked), (SELECT count(*) FROM entanglement.arrears)'
			),
			'0|0|0',
			$node->name . ' owes nothing');
	}
};

done_testing();
