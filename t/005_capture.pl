# Every way a row can be written, as seen at a peer.
#
# Promise: what commits arrives, however it was written; what is not
# committed, rolled back or superseded is never sent. t/060_wal_capture.pl
# says the same of capture from the log, and sets ENT_TEST_CAPTURE.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $wal = ($ENV{ENT_TEST_CAPTURE} // 'trigger') eq 'wal';
my $cluster = Entanglement::Node->cluster('capture', $wal ? (conf => <<'CONF') : ());
wal_level = logical
max_replication_slots = 8
output_plugin_libraries = 'entanglement'
CONF
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);

link_nodes($alice, $bob);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'item', 'parent', 'child');
CREATE TABLE item (id int PRIMARY KEY, v text, n int);
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (
	id int PRIMARY KEY,
	parent int REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE,
	v text
);
SQL
}
$bob->audit('item');
if ($wal)
{
	$alice->sql("SELECT entanglement.set_capture('$_', 'wal')")
	  foreach qw(item parent child);
	$alice->wait_until('SELECT bool_and(wal) FROM entanglement.relation',
		't', 'the tables are captured from the log');
}

# Values of item.v that were ever stored at bob.
sub ever_at_bob
{
	my ($pattern) = @_;

	return $bob->sql(
		"SELECT string_agg(DISTINCT body->>'v', ' ' ORDER BY body->>'v') FROM audit_item WHERE body->>'v' LIKE '$pattern'"
	);
}

# each: promise, statements, what bob must show for $query
my @cases = (
	[
		'INSERT of many rows',
		q(INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 10) i),
		q(SELECT count(*), min(v) FROM item), '10|v1'
	],
	[
		'UPDATE and DELETE', q(UPDATE item SET v = 'w1' WHERE id = 1; DELETE FROM item WHERE id = 2),
		q(SELECT count(*), min(v), max(v) FROM item), '9|v10|w1'
	],
	[
		'several writes of one row in one transaction',
		q(BEGIN; UPDATE item SET v = 'never-between' WHERE id = 3; UPDATE item SET n = 5 WHERE id = 3;
		  DELETE FROM item WHERE id = 3; INSERT INTO item VALUES (3, 'again', 6); COMMIT),
		q(SELECT v, n FROM item WHERE id = 3), 'again|6'
	],
	[
		'a row born and gone in one transaction',
		q(BEGIN; INSERT INTO item VALUES (50, 'brief', 0); DELETE FROM item WHERE id = 50; COMMIT),
		q(SELECT count(*) FROM item WHERE id = 50), '0'
	],
	[
		'COPY',
		qq(COPY item FROM STDIN;\n11\tcopied\t1\n12\t\\N\t2\n\\.\n),
		q(SELECT id, v, n FROM item WHERE id IN (11, 12) ORDER BY id),
		"11|copied|1\n12||2"
	],
	[
		'a change of the key',
		q(UPDATE item SET id = 20 WHERE id = 11),
		q(SELECT id, v FROM item WHERE id IN (11, 20)), '20|copied'
	],
	[
		'keys that move over each other',
		q(BEGIN; UPDATE item SET id = -id WHERE id IN (4, 5);
		  UPDATE item SET id = 9 + id WHERE id IN (-4, -5); COMMIT),
		q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item WHERE v IN ('v4', 'v5')),
		'4v5 5v4'
	],
	[
		'ON CONFLICT DO UPDATE and DO NOTHING',
		q(INSERT INTO item VALUES (1, 'conflict', 1), (30, 'fresh', 1)
		    ON CONFLICT (id) DO UPDATE SET v = excluded.v;
		  INSERT INTO item VALUES (1, 'ignored', 1), (31, 'fresh too', 1) ON CONFLICT DO NOTHING),
		q(SELECT string_agg(v, ',' ORDER BY id) FROM item WHERE id IN (1, 30, 31)),
		'conflict,fresh,fresh too'
	],
	[
		'MERGE',
		q(MERGE INTO item t USING (VALUES (1, 'merged'), (6, NULL), (40, 'born')) s(id, v) ON t.id = s.id
		  WHEN MATCHED AND s.v IS NULL THEN DELETE
		  WHEN MATCHED THEN UPDATE SET v = s.v
		  WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v, 0)),
		q(SELECT string_agg(id || v, ',' ORDER BY id) FROM item WHERE id IN (1, 6, 40)),
		'1merged,40born'
	],
	[
		'WITH ... RETURNING and UPDATE ... FROM',
		q(WITH d AS (DELETE FROM item WHERE id = 31 RETURNING v)
		  UPDATE item SET v = d.v || '!' FROM d WHERE item.id = 30),
		q(SELECT string_agg(v, ',') FROM item WHERE id IN (30, 31)), 'fresh too!'
	],
	[
		'savepoints, released and rolled back',
		q(BEGIN; SAVEPOINT a; UPDATE item SET v = 'kept' WHERE id = 7; RELEASE a;
		  SAVEPOINT b; UPDATE item SET v = 'never-savepoint' WHERE id = 8;
		  SAVEPOINT c; INSERT INTO item VALUES (60, 'never-nested', 0); RELEASE c;
		  ROLLBACK TO b; UPDATE item SET n = 8 WHERE id = 8; COMMIT),
		q(SELECT string_agg(concat(id, v, n), ',' ORDER BY id) FROM item WHERE id IN (7, 8, 60)),
		'7kept0,8v88'
	],
	[
		'PL blocks, with and without exceptions',
		q(DO $$ BEGIN
			UPDATE item SET v = 'from pl' WHERE id = 9;
			BEGIN
				UPDATE item SET v = 'never-exception' WHERE id = 10;
				RAISE division_by_zero;
			EXCEPTION WHEN division_by_zero THEN
				UPDATE item SET n = 10 WHERE id = 10;
			END;
		  END $$),
		q(SELECT string_agg(concat(id, v, n), ',' ORDER BY id) FROM item WHERE id IN (9, 10)),
		'9from pl0,10v1010'
	],
	[
		'functions in SQL and PL/pgSQL, a procedure that commits and rolls back',
		q(CREATE FUNCTION put(int, text) RETURNS void LANGUAGE sql
			AS $$ INSERT INTO item VALUES ($1, $2, 0) $$;
		  CREATE FUNCTION rename(i int, t text) RETURNS int LANGUAGE plpgsql
			AS $$ BEGIN EXECUTE 'UPDATE item SET v = $2 WHERE id = $1' USING i, t; RETURN i; END $$;
		  CREATE PROCEDURE several() LANGUAGE plpgsql AS $$ BEGIN
			PERFORM put(33, 'by a procedure'); COMMIT;
			PERFORM rename(33, 'never-by-procedure'), put(34, 'never-by-procedure'); ROLLBACK;
			PERFORM put(35, 'and another'); END $$;
		  SELECT put(32, 'never-put'), rename(32, 'by functions');
		  CALL several()),
		q(SELECT string_agg(id || v, ',' ORDER BY id) FROM item WHERE id BETWEEN 32 AND 35),
		'32by functions,33by a procedure,35and another'
	],
	[
		'a trigger of the application that writes another table',
		q(CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql
			AS $$ BEGIN INSERT INTO item VALUES (1000 + new.id, new.v, 0); RETURN NULL; END $$;
		  CREATE TRIGGER echo AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION echo();
		  INSERT INTO parent VALUES (9, 'echoed'); DELETE FROM parent WHERE id = 9;
		  DROP TRIGGER echo ON parent),
		q(SELECT (SELECT count(*) FROM parent), (SELECT v FROM item WHERE id = 1009)), '0|echoed'
	],
	[
		'a trigger of the application that changes the row',
		q(CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.v := upper(new.v); RETURN new; END $$;
		  CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION shout();
		  UPDATE item SET v = 'loud' WHERE id = 12; DROP TRIGGER shout ON item),
		q(SELECT v FROM item WHERE id = 12), 'LOUD'
	],
	[
		'a view with rules of its own',
		q(CREATE VIEW item_view AS SELECT id, v FROM item; UPDATE item_view SET v = 'by view' WHERE id = 12;
		  INSERT INTO item_view VALUES (70, 'view born')),
		q(SELECT string_agg(v, ',' ORDER BY id) FROM item WHERE id IN (12, 70)), 'by view,view born'
	],
	[
		'a foreign key that cascades',
		q(INSERT INTO parent SELECT i, 'p' || i FROM generate_series(1, 3) i;
		  INSERT INTO child SELECT i, 1 + i % 3, 'c' || i FROM generate_series(1, 9) i;
		  UPDATE parent SET id = 20 WHERE id = 2; DELETE FROM parent WHERE id = 3),
		q(SELECT (SELECT string_agg(id::text, ',' ORDER BY id) FROM parent),
			(SELECT string_agg(id || '-' || parent, ',' ORDER BY id) FROM child)),
		'1,20|1-20,3-1,4-20,6-1,7-20,9-1'
	],
	[
		'one that sets NULL or the default',
		q(ALTER TABLE child DROP CONSTRAINT child_parent_fkey, ALTER parent SET DEFAULT 1,
			ADD FOREIGN KEY (parent) REFERENCES parent ON UPDATE SET NULL ON DELETE SET DEFAULT;
		  INSERT INTO parent VALUES (4, 'p4'), (5, 'p5');
		  INSERT INTO child VALUES (14, 4, 'c14'), (15, 5, 'c15');
		  UPDATE parent SET id = 40 WHERE id = 4; DELETE FROM parent WHERE id = 5),
		q(SELECT string_agg(concat(id, '-', parent), ',' ORDER BY id) FROM child WHERE id > 9), '14-,15-1'
	],
);

foreach my $case (@cases)
{
	my ($name, $sql, $query, $expected) = @$case;

	$alice->sql($sql);
	$alice->drain('bob');
	is($bob->sql($query), $expected, $name);
}
converge(\@all, [qw(item parent child)], 'everything agrees');
is(ever_at_bob('never%'), '', 'what was rolled back never came');
is(ever_at_bob('brief'), '', 'nor what was born and gone');
is( $bob->sql(
		"SELECT string_agg(op || ' ' || (body->>'id'), ', ' ORDER BY op) FROM audit_item WHERE body->>'v' = 'copied' AND n > (SELECT min(n) FROM audit_item WHERE body->>'v' = 'copied')"
	),
	'DELETE 11, INSERT 20',
	'a change of the key was the death of one object and the birth of another');
is( $alice->sql(
		"SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'item'::regclass"
	),
	$alice->sql('SELECT count(*) FROM item'),
	'each row is an object, and nothing else is');

subtest 'a session_replication_role of replica is not captured' => sub {
	plan skip_all => 'the log tells of such rows, too' if $wal;
	$alice->sql(
		"SET session_replication_role = replica; INSERT INTO item VALUES (80, 'replica', 0); UPDATE item SET v = 'replica' WHERE id = 1"
	);
	$alice->drain('bob');
	is($bob->sql("SELECT count(*) FROM item WHERE v = 'replica'"),
		0, 'not captured');
	my $trigger = $alice->sql(
		q(SELECT string_agg(format('ALTER TABLE item ENABLE ALWAYS TRIGGER %I', tgname), ';')
		    FROM pg_trigger WHERE tgrelid = 'item'::regclass AND NOT tgisinternal AND tgname LIKE 'entanglement%')
	);
	like($trigger, qr/ENABLE ALWAYS/, 'its triggers are found by name');
	$alice->sql($trigger);
	$alice->sql(
		"SET session_replication_role = replica; UPDATE item SET v = 'always' WHERE id = 1; UPDATE item SET v = 'always' WHERE id = 80"
	);
	$alice->drain('bob');
	is($bob->sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM item WHERE v = 'always'"),
		'1,80', 'unless its triggers are enabled always');
	is($bob->sql('SELECT n FROM item WHERE id = 80'),
		'0', 'then a row the peer never saw arrives whole');
};

subtest 'PREPARE TRANSACTION' => sub {
	$alice->sql(<<'SQL');
BEGIN;
UPDATE item SET v = 'prepared' WHERE id = 1;
INSERT INTO item VALUES (90, 'prepared', 0);
PREPARE TRANSACTION 'now';
BEGIN;
UPDATE item SET v = 'never-prepared' WHERE id = 7;
PREPARE TRANSACTION 'no';
BEGIN;
UPDATE item SET v = 'survived' WHERE id = 8;
DELETE FROM item WHERE id = 9;
PREPARE TRANSACTION 'later';
UPDATE item SET n = 42 WHERE id = 10;
SQL
	$alice->drain('bob');
	is($bob->sql('SELECT n FROM item WHERE id = 10'),
		42, 'other transactions are not held up');
	is(ever_at_bob('prepared'), '', 'what is prepared is not sent');
	$alice->sql("COMMIT PREPARED 'now'");
	$alice->drain('bob');
	is($bob->sql("SELECT count(*) FROM item WHERE v = 'prepared'"),
		2, 'COMMIT PREPARED sends it');
	$alice->sql("ROLLBACK PREPARED 'no'");
	$cluster->restart;
	$_->wait_connected($_ == $alice ? 'bob' : 'alice') foreach @all;
	is(ever_at_bob('survived'), '', 'nothing of it after a restart');
	$alice->sql("COMMIT PREPARED 'later'");
	$bob->wait_until(
		'SELECT (SELECT v FROM item WHERE id = 8), (SELECT count(*) FROM item WHERE id = 9)',
		'survived|0', 'COMMIT PREPARED after a restart, without drain');
	$alice->drain('bob');
	is(ever_at_bob('never%'), '', 'what was rolled back never came');
};

subtest 'what is not committed is never sent' => sub {
	my $open = $alice->session;

	$open->query_safe(
		"BEGIN; UPDATE item SET v = 'never-open' WHERE id = 1; INSERT INTO item VALUES (95, 'never-open', 0)"
	);
	$alice->sql("UPDATE item SET v = 'committed' WHERE id = 10");
	$alice->drain('bob');
	is($bob->sql('SELECT v FROM item WHERE id = 10'),
		'committed', 'a later transaction arrives while an earlier is open');
	$open->query_safe('ROLLBACK');
	$open->query_safe(
		"BEGIN; UPDATE item SET v = 'first writer' WHERE id = 12");
	$alice->sql("UPDATE item SET v = 'second writer' WHERE id = 10");
	$alice->drain('bob');
	$open->query_safe('COMMIT');
	$alice->drain('bob');
	is($bob->sql('SELECT v FROM item WHERE id = 12'),
		'first writer', 'one that wrote first and committed last is not lost');
	$open->quit;
	is(ever_at_bob('never%'), '', 'and the rolled back value never came');
};

subtest 'a value changed before it could leave is never sent' => sub {
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$bob->wait_until("SELECT state <> 'connected' FROM entanglement.peers",
		't', 'pause');
	$alice->sql("UPDATE item SET v = 'never-superseded' WHERE id = 1");
	$alice->wait_folded;
	$alice->sql("UPDATE item SET v = 'newest' WHERE id = 1");
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	$bob->wait_until('SELECT v FROM item WHERE id = 1', 'newest', 'newest value');
	is(ever_at_bob('never%'), '', 'the older value never came');
};

subtest 'TRUNCATE' => sub {
	$alice->sql('TRUNCATE item');
	$alice->drain('bob');
	is($bob->sql('SELECT count(*) FROM item'), 0, 'empties the peer too');
	$alice->sql(
		"BEGIN; INSERT INTO item VALUES (1, 'a', 0), (2, 'b', 0); TRUNCATE item; INSERT INTO item VALUES (2, 'c', 0); COMMIT"
	);
	$alice->drain('bob');
	is($bob->sql('SELECT id, v FROM item'), '2|c', 'in a transaction with writes');
	$alice->sql('BEGIN; TRUNCATE item; ROLLBACK');
	$alice->drain('bob');
	is($bob->sql('SELECT count(*) FROM item'), 1, 'rolled back');
	$alice->sql('TRUNCATE parent CASCADE');
	converge(\@all, [qw(item parent child)], 'cascading to other tables');
	is($bob->sql('SELECT count(*) FROM child'), 0, 'which are empty too');
	is( $alice->sql(
			"SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'item'::regclass"
		),
		1,
		'and only live objects are left');
};

# Change rows lie in the log as pages had room for them. Here a transaction
# turns its own round, and each is folded by itself.
subtest 'a log in another order, read in parts' => sub {
	my $objects =
	  "SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'item'::regclass";
	my $turn =
	  'CREATE TEMP TABLE t ON COMMIT DROP AS SELECT row_number() OVER () AS i, c.* FROM entanglement.change c;
		DELETE FROM entanglement.change;
		INSERT INTO entanglement.change SELECT rel, owner, op, key, columns FROM t ORDER BY i DESC;';

	$alice->sql("INSERT INTO item VALUES (61, 'a', 0), (62, 'b', 0), (63, 'c', 0)");
	$alice->wait_folded;
	$alice->sql('ALTER SYSTEM SET entanglement.fold_limit = 1');
	$cluster->reload;
	$alice->wait_until('SHOW entanglement.fold_limit', '1', 'the setting');
	$alice->sql(<<"SQL");
BEGIN;
INSERT INTO item VALUES (64, 'brief', 0), (65, 'stays', 0);
UPDATE item SET n = 1 WHERE id IN (61, 62, 65);
DELETE FROM item WHERE id IN (61, 64);
UPDATE item SET id = 66 WHERE id = 63;
$turn
COMMIT;
SQL
	$alice->drain('bob');
	is($bob->sql(q(SELECT string_agg(id || v, ',' ORDER BY id) FROM item WHERE id BETWEEN 61 AND 69)),
		'62b,65stays,66c', 'what was deleted is gone, what was born is there');
	is($alice->sql($objects), $alice->sql('SELECT count(*) FROM item'),
		'no object is left without a row');
	$alice->sql("BEGIN; INSERT INTO item VALUES (67, 'brief', 0); TRUNCATE item; INSERT INTO item VALUES (2, 'c', 0); $turn COMMIT");
	$alice->drain('bob');
	is($bob->sql('SELECT id, v FROM item'), '2|c', 'nor by TRUNCATE');
	is($alice->sql($objects), 1, 'in a transaction with writes');
	$alice->sql('DELETE FROM item');
	$alice->wait_folded;
	$alice->sql("BEGIN; INSERT INTO item VALUES (68, 'brief', 0); TRUNCATE item; $turn COMMIT");
	$alice->drain('bob');
	is($alice->sql($objects), 0, 'nor in one of a table that was empty');

	# what is known of an object's birth is not left in the log
	$alice->sql("SELECT entanglement.create_owner('turned')");
	$alice->sql("BEGIN; SET LOCAL entanglement.owner = 'turned'; INSERT INTO item VALUES (69, 'his', 0); UPDATE item SET n = 1; $turn COMMIT");
	$alice->drain('bob');
	is($alice->sql("SELECT entanglement.owner_of(i) FROM item i WHERE id = 69"), 'turned', 'nor one of another owner than it was born for');
	$alice->sql('DELETE FROM item');
	$alice->wait_folded;
	$alice->sql('ALTER SYSTEM RESET entanglement.fold_limit');
	$cluster->reload;
	$alice->wait_until('SHOW entanglement.fold_limit', '10000', 'the setting');
};

# What is written while many changes wait does not wait for all of them.
subtest 'a long log and a change' => sub {
	my $serials = q(SELECT o.serial FROM entanglement.object o
		JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'item'::regclass ORDER BY 1 DESC LIMIT 1);
	my $many = 10000;

	$alice->sql('CREATE TABLE many (id int PRIMARY KEY)');
	$alice->sql("SELECT entanglement.synchronize('many')");
	$alice->sql('ALTER SYSTEM SET entanglement.fold_limit = 1');
	$cluster->reload;
	$alice->wait_until('SHOW entanglement.fold_limit', '1', 'the setting');
	$alice->sql("INSERT INTO many SELECT generate_series(1, $many)");
	$alice->sql("INSERT INTO item VALUES (70, 'meanwhile', 0)");
	$alice->wait_until("SELECT count(*) > 0 FROM ($serials) o", 't', 'the change');
	my $left = $alice->sql('SELECT count(*) FROM entanglement.change');
	cmp_ok($left, '>', 0, "it was taken while $left of $many waited");
	$alice->sql('ALTER SYSTEM RESET entanglement.fold_limit');
	$cluster->reload;
	$alice->wait_folded;
	is($alice->sql(q(SELECT count(*) FROM entanglement.object o
		JOIN entanglement.relation r ON r.no = o.rel WHERE r.relid = 'many'::regclass)), $many, 'which were taken as well');
	$alice->sql(q(SELECT entanglement.desynchronize('many')));
	$alice->sql('DROP TABLE many; DELETE FROM item');
};

subtest 'rights' => sub {
	$alice->sql(<<'SQL');
CREATE ROLE app LOGIN;
GRANT USAGE ON SCHEMA public TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON item TO app;
SQL
	$alice->sql(
		"SET ROLE app; INSERT INTO item VALUES (100, 'by app', 0); UPDATE item SET n = 1 WHERE id = 100; SELECT entanglement.owner_of(i) FROM item i WHERE id = 100"
	);
	$alice->drain('bob');
	is($bob->sql('SELECT v, n FROM item WHERE id = 100'),
		'by app|1', 'a role that knows nothing of us writes as ever');
	$alice->fails('SET ROLE app; SELECT * FROM entanglement.change',
		'42501', 'permission denied', 'and cannot read what is internal');
	$alice->fails("SET ROLE app; INSERT INTO entanglement.change VALUES (1, 1, 'D', '', NULL)",
		'42501', 'permission denied', 'nor forge a change');
};

subtest 'a column that did not change does not travel, one set to itself neither' => sub {
	$alice->drain('bob');
	my $before = $alice->peer('bob');

	$alice->sql('UPDATE item SET v = v, n = n');
	$alice->drain('bob');
	is(Entanglement::Node::counted($before, $alice->peer('bob'))->{objects_sent},
		0, 'an update that changes nothing sends nothing');
};

converge(\@all, [qw(item parent child)], 'everything agrees at the end');

done_testing();
