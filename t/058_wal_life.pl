# The life of a slot and of tables captured from the log.
#
# Promise: partitions that come and go, a slot that is dropped or invalidated,
# and ways of capture that change while many write, lose nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('wal_life', conf => <<'CONF');
wal_level = logical
max_wal_senders = 4
max_replication_slots = 8
max_wal_size = 64MB
min_wal_size = 32MB
output_plugin_libraries = 'entanglement'
CONF
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);

sub captured_by
{
	my ($way, @tables) = @_;

	$alice->sql("SELECT entanglement.set_capture('$_', '$way')") foreach @tables;
	$alice->wait_until(
		'SELECT bool_and(wal) FROM entanglement.relation WHERE relid = ANY (ARRAY['
		  . join(', ', map { "'$_'::regclass" } @tables) . '])',
		$way eq 'wal' ? 't' : 'f', "captured by $way");
	return;
}

sub arrives
{
	my ($promise, $sql, $query, $want) = @_;

	$alice->sql($sql);
	$alice->drain('bob');
	is($bob->sql($query), $want, $promise);
	return;
}

sub slot
{
	my ($what) = @_;

	return $alice->sql("SELECT $what FROM pg_replication_slots WHERE slot_name = 'entanglement_' || "
		  . '(SELECT oid FROM pg_database WHERE datname = current_database())');
}

link_nodes($alice, $bob);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'item', 'part');
CREATE TABLE item (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0);
CREATE TABLE part (area int, id int, v text, PRIMARY KEY (id, area)) PARTITION BY LIST (area);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 (gone int, v text, id int NOT NULL, area int NOT NULL);
ALTER TABLE part_2 DROP gone;
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2);
SQL
}
captured_by('wal', 'item', 'part');

# ---- partitions ----

my $rows = q(SELECT string_agg(concat(area, id, v), ' ' ORDER BY area, id) FROM part);
arrives('rows of partitions, one with its columns in another order',
	q(INSERT INTO part SELECT 1 + i % 2, i, 'a' FROM generate_series(1, 4) i),
	$rows, '12a 14a 21a 23a');
arrives('updates and deletes there', q(UPDATE part SET v = 'b' WHERE id < 3; DELETE FROM part_2 WHERE id = 3),
	$rows, '12b 14a 21b');
arrives('a row that moves between them', q(UPDATE part SET area = 2 WHERE id = 4), $rows, '12b 21b 24a');
arrives('TRUNCATE of one, and rows after it',
	q(BEGIN; TRUNCATE part_1; INSERT INTO part VALUES (1, 6, 'c'); COMMIT), $rows, '16c 21b 24a');
$bob->sql('CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3)');
arrives('a partition that comes with rows, written before and after',
	q(CREATE TABLE part_3 (LIKE part INCLUDING ALL); INSERT INTO part_3 VALUES (3, 7, 'd'), (3, 8, 'd');
	  BEGIN; UPDATE part_3 SET v = 'e'; ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES IN (3);
	  UPDATE part SET v = 'f' WHERE id = 8; COMMIT; INSERT INTO part VALUES (3, 9, 'g')),
	$rows, '16c 21b 24a 37e 38f 39g');
arrives('one that goes with its rows, written before and after',
	q(BEGIN; UPDATE part SET v = 'h' WHERE id IN (1, 7); ALTER TABLE part DETACH PARTITION part_3;
	  UPDATE part_3 SET v = 'i'; COMMIT; DELETE FROM part_3 WHERE id = 8),
	$rows, '16c 21h 24a');
arrives('one that comes again', q(ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES IN (3)),
	$rows, '16c 21h 24a 37i 39i');
arrives('one that is dropped', q(DROP TABLE part_3), $rows, '16c 21h 24a');

# ---- what the log must tell ----

my $silent = 'Its replica identity does not tell the columns of its key|cannot be captured from the log';
$alice->fails('ALTER TABLE item REPLICA IDENTITY NOTHING', '55006', $silent,
	'a replica identity that tells the key no more');
$alice->fails('ALTER TABLE part_1 REPLICA IDENTITY NOTHING', '55006', $silent, 'nor that of a partition');
$alice->sql(q(CREATE UNIQUE INDEX item_wide ON item (n, id); ALTER TABLE item REPLICA IDENTITY USING INDEX item_wide));
$alice->fails('DROP INDEX item_wide', '55006', $silent, 'nor the index that does');
$alice->sql(q(ALTER TABLE item REPLICA IDENTITY DEFAULT; DROP INDEX item_wide));
$alice->fails(
	q(CREATE TABLE part_4 (LIKE part INCLUDING ALL); ALTER TABLE part_4 REPLICA IDENTITY NOTHING;
	  ALTER TABLE part ATTACH PARTITION part_4 FOR VALUES IN (4)),
	'55006', $silent, 'nor a partition that comes');
$alice->sql('DROP TABLE part_4');
$alice->fails('ALTER TABLE item ALTER id TYPE bigint', '2BP01', 'trigger entanglement_capture', 'nor another type of the key');
captured_by('trigger', 'part');
$alice->sql('ALTER TABLE part_1 REPLICA IDENTITY NOTHING');
$alice->fails(q(SELECT entanglement.set_capture('part', 'wal')), '55000', $silent, 'every partition has to tell it');
$alice->sql('ALTER TABLE part_1 REPLICA IDENTITY DEFAULT');
captured_by('wal', 'part');

my $quiet = 'SET session_replication_role = replica';	# event triggers sleep
arrives('rows whose key the log does not tell nevertheless',
	qq(INSERT INTO item SELECT i, 'quiet', 0 FROM generate_series(1, 9) i;
	  BEGIN; $quiet; ALTER TABLE item REPLICA IDENTITY NOTHING; RESET session_replication_role;
	  UPDATE item SET id = 10 WHERE id = 1; DELETE FROM item WHERE id = 2; UPDATE item SET v = 'new' WHERE id = 3;
	  UPDATE item SET id = 1, v = 'moved' WHERE id = 4; INSERT INTO item VALUES (11, 'new', 0); COMMIT),
	q(SELECT string_agg(concat(id, v), ' ' ORDER BY id) FROM item),
	'1moved 3new 5quiet 6quiet 7quiet 8quiet 9quiet 10quiet 11new');
arrives('and later', q(UPDATE item SET id = 12 WHERE id = 10; DELETE FROM item WHERE id > 4 AND id < 9),
	q(SELECT string_agg(concat(id, v), ' ' ORDER BY id) FROM item), '1moved 3new 9quiet 11new 12quiet');
$alice->sql('ALTER TABLE item REPLICA IDENTITY DEFAULT; DELETE FROM item');

# read when the table is synchronized already with another key
$alice->define('CREATE TABLE other (id int PRIMARY KEY, n int)', 'other');
captured_by('wal', 'other');
$alice->sql(q(INSERT INTO other VALUES (1, 0), (2, 0)));
$alice->drain('bob');
$alice->sql(<<'SQL');
BEGIN;
UPDATE other SET n = 1;
INSERT INTO other VALUES (3, 1);
SELECT entanglement.desynchronize('other');
ALTER TABLE other ALTER id TYPE bigint;
SELECT entanglement.synchronize('other', capture => 'wal');
COMMIT;
SQL
arrives('a key of another type stops nobody', q(INSERT INTO item VALUES (1, 'on', 0); DELETE FROM other WHERE id = 2),
	'SELECT v FROM item', 'on');
is($alice->sql('SELECT last_error FROM entanglement.log_capture'), '', 'nothing is wrong');
is($alice->sql(q(SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel
	WHERE r.relid = 'other'::regclass)), '2', 'each of its rows is an object');
$alice->sql('DROP TABLE other; DELETE FROM item');

# ---- the slot is lost ----

$alice->sql(q(INSERT INTO item SELECT i, repeat('x', 1000), 0 FROM generate_series(1, 500) i));
$alice->drain('bob');

# The collector can write nothing meanwhile, so it lets the slot go when it reads
# the log. If it waits for the lock to fold, it does not: then it is let past.
sub with_slot_free
{
	my ($do) = @_;
	my $lock = $alice->session;

	Entanglement::Node::wait_for(
		'a slot that nobody reads',
		sub {
			$lock->query_safe('BEGIN; LOCK TABLE entanglement.change IN SHARE MODE');
			$alice->sql('UPDATE item SET n = n + 1 WHERE id = 1');
			Entanglement::Node::wait_for('the collector', sub {
				return slot('active') eq 'f' || folds_blocked();
			});
			return 1 if slot('active') eq 'f';
			$lock->query_safe('ROLLBACK');
			return 0;
		});
	$do->();
	$lock->quit;
	return;
}

# Does the collector wait for a lock without an end, which it does outside decoding?
sub folds_blocked
{
	my $wait = q(SELECT bool_or(now() - l.waitstart > '700ms') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE NOT l.granted AND a.backend_type LIKE 'entanglement collector%');

	return $alice->sql($wait) eq 't';
}

# The collector tries again and again, so the slot is not free all the time.
sub on_slot
{
	my ($sql) = @_;
	my $name = slot('slot_name');

	$sql =~ s/\?/'$name'/;
	Entanglement::Node::wait_for($sql, sub { return ($alice->try($sql))[0] == 0 });
	return;
}

my $unseen = q(UPDATE item SET v = 'unseen' WHERE id = 2; DELETE FROM item WHERE id = 3;
	UPDATE item SET id = 1000 WHERE id = 4; INSERT INTO item VALUES (1001, 'unseen', 0);
	DELETE FROM item WHERE id = 5; INSERT INTO item VALUES (5, 'unseen', 5);
	UPDATE part SET v = 'unseen' WHERE id = 1; DELETE FROM part WHERE id = 6);

# What was read is compared, what is as it was does not travel.
sub sent_since
{
	my ($before) = @_;

	return Entanglement::Node::counted($before, $alice->peer('bob'))->{objects_sent};
}

my $mark = $alice->log_mark;
my $before = $alice->peer('bob');
with_slot_free(sub {
	$alice->sql($unseen);
	on_slot('SELECT pg_drop_replication_slot(?)');
});
arrives('a slot that was dropped by hand', '',
	q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM item WHERE v = 'unseen'), '2 5 1001');
is($bob->sql($rows), '21unseen 24a', 'in partitions, too');
like($alice->log_since($mark), qr/the replication slot for capture was lost/, 'the log says so');
converge(\@all, [qw(item part)], 'everything agrees');
cmp_ok(sent_since($before), '<', 20, 'it costs what was written since, not all rows');

$before = $alice->peer('bob');
with_slot_free(sub {
	my $name = slot('slot_name');

	on_slot('SELECT pg_drop_replication_slot(?)');
	$alice->sql(q(UPDATE item SET v = 'between' WHERE id = 8; DELETE FROM item WHERE id = 9));
	# the collector may have been faster, and could not compare yet
	$alice->try("SELECT pg_create_logical_replication_slot('$name', 'entanglement')");
});
arrives('a slot that was made anew by hand', '',
	q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM item WHERE v = 'between' OR id = 9), '8');
cmp_ok(sent_since($before), '<', 20, 'at the same price');

$alice->sql('VACUUM (FREEZE) item');
$before = $alice->peer('bob');
with_slot_free(sub {
	$alice->sql(q(UPDATE item SET v = 'frozen' WHERE id = 10; DELETE FROM item WHERE id = 11));
	$alice->sql('VACUUM (FREEZE) item');
	on_slot('SELECT pg_replication_slot_advance(?, pg_current_wal_lsn())');
});
arrives('one that was moved by hand, and rows frozen since', '',
	q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM item WHERE v = 'frozen' OR id = 11), '10');
cmp_ok(sent_since($before), '<', 20, 'at the same price');

$cluster->append_conf('postgresql.conf', 'max_slot_wal_keep_size = 16MB');
$cluster->reload;
$mark = $alice->log_mark;
with_slot_free(sub {
	$alice->sql(q(UPDATE item SET v = 'again' WHERE id = 6; DELETE FROM item WHERE id = 7;
		INSERT INTO part VALUES (1, 10, 'again')));
	Entanglement::Node::wait_for('a slot that is lost', sub {
		$alice->sql('CREATE TABLE filler AS SELECT 1; DROP TABLE filler; SELECT pg_switch_wal()') for 1 .. 4;
		$alice->sql('CHECKPOINT');
		return slot('wal_status') eq 'lost';
	});
});
arrives('a slot that was invalidated by max_slot_wal_keep_size', '',
	q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM item WHERE v = 'again' OR id = 7), '6');
like($alice->log_since($mark), qr/the replication slot for capture was lost/, 'the log says so');
isnt(slot('wal_status'), 'lost', 'a new slot');
converge(\@all, [qw(item part)], 'everything agrees');

# ---- the way of capture changes while many write ----

my $script = PostgreSQL::Test::Utils::tempdir() . '/life.sql';
PostgreSQL::Test::Utils::append_to_file($script, <<'SQL');
\set id random(1, 60)
\set other random(2001, 2020)
UPDATE item SET n = n + 1, v = :client_id || 'w' WHERE id = :id;
BEGIN;
DELETE FROM item WHERE id = :other;
INSERT INTO item VALUES (:other, 'born', :id) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
SAVEPOINT s;
UPDATE part SET v = :id WHERE id = :id % 10;
COMMIT;
DELETE FROM item WHERE id = :other AND n % 3 = 0;
SQL
my ($out, $err) = ('', '');
my $writers = IPC::Run::start(
	[
		$cluster->installed_command('pgbench'), '-n', '-c', '4', '-t', '1500', '-f', $script,
		'-h', $cluster->host, '-p', $cluster->port, $alice->db
	],
	'<', \undef, '>', \$out, '2>', \$err);
foreach my $way (qw(trigger wal trigger wal trigger wal))
{
	captured_by($way, 'item', 'part');
}
ok($writers->finish, 'writers') or diag $out, $err;
$alice->drain('bob');
is($bob->digest($_), $alice->digest($_), "every change of $_ while the way of capture changed")
  foreach qw(item part);
is( $alice->sql(q(SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel
	WHERE r.relid = 'item'::regclass)),
	$alice->sql('SELECT count(*) FROM item'), 'each row is an object, and nothing else is');

done_testing();
