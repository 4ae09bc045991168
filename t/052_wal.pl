# Tables captured from the log (capture => 'wal').
#
# Promise: whatever the way a row is written, its peer shows what capture by
# trigger would have shown; no change is lost when the way of capture changes
# or the slot is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('wal', conf => <<'CONF');
wal_level = logical
max_wal_senders = 4
max_replication_slots = 8
output_plugin_libraries = 'entanglement'
CONF
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);

link_nodes($alice, $bob);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'item');
CREATE TABLE item (id int PRIMARY KEY, v text, n int);
SQL
}
$alice->sql(q(SELECT entanglement.set_capture('item', 'wal')));
$alice->wait_until(q(SELECT wal FROM entanglement.relation), 't', 'the table is captured from the log');

sub arrives
{
	my ($promise, $sql, $query, $want) = @_;

	$alice->sql($sql);
	$alice->drain('bob');
	is($bob->sql($query), $want, $promise);
}

arrives('a row', q(INSERT INTO item VALUES (1, 'one', 1)), q(SELECT * FROM item), '1|one|1');
arrives('an update', q(UPDATE item SET v = 'uno' WHERE id = 1), q(SELECT * FROM item), '1|uno|1');
arrives('a change of the key', q(UPDATE item SET id = 2), q(SELECT * FROM item), '2|uno|1');
arrives('a delete', q(DELETE FROM item), q(SELECT count(*) FROM item), '0');
arrives(
	'savepoints, released and rolled back',
	q(INSERT INTO item SELECT i, 'v', 0 FROM generate_series(1, 4) i;
	  BEGIN; SAVEPOINT a; UPDATE item SET v = 'kept' WHERE id = 1; RELEASE a;
	  SAVEPOINT b; UPDATE item SET v = 'never' WHERE id = 2; INSERT INTO item VALUES (5, 'never', 0);
	  ROLLBACK TO b; DELETE FROM item WHERE id = 3; COMMIT;
	  BEGIN; DELETE FROM item; ROLLBACK),
	q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item), '1kept 2v 4v');
arrives(
	'rows born, gone and replaced in one transaction',
	q(BEGIN; INSERT INTO item VALUES (6, 'brief', 0); DELETE FROM item WHERE id = 6;
	  DELETE FROM item WHERE id = 4; INSERT INTO item VALUES (4, 'again', 1); COMMIT),
	q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item), '1kept 2v 4again');
arrives(
	'a prepared transaction',
	q(BEGIN; UPDATE item SET n = 7 WHERE id = 1; PREPARE TRANSACTION 'p';
	  COMMIT PREPARED 'p'; UPDATE item SET n = 8 WHERE id = 2),
	q(SELECT string_agg(n::text, ' ' ORDER BY id) FROM item), '7 8 1');
arrives(
	'asynchronous commits',
	q(SET synchronous_commit = off; UPDATE item SET n = 9 WHERE id = 1),
	q(SELECT n FROM item WHERE id = 1), '9');
arrives(
	'TRUNCATE, and rows after it',
	q(TRUNCATE item; INSERT INTO item VALUES (1, 'new', 1)),
	q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item), '1new');
arrives(
	'columns stored apart, one of them unchanged',
	q(ALTER TABLE item ALTER v SET STORAGE EXTERNAL;
	  INSERT INTO item VALUES (2, repeat('x', 100000), 1);
	  UPDATE item SET n = 2 WHERE id = 2),
	q(SELECT length(v), n FROM item WHERE id = 2), '100000|2');
arrives(
	'the whole old row in the log',
	q(ALTER TABLE item REPLICA IDENTITY FULL;
	  UPDATE item SET n = 3, id = 3 WHERE id = 2; DELETE FROM item WHERE id = 1),
	q(SELECT id, length(v), n FROM item), '3|100000|3');
arrives(
	'columns that are dropped and added in between',
	q(ALTER TABLE item REPLICA IDENTITY DEFAULT;
	  BEGIN; UPDATE item SET n = 4; ALTER TABLE item ADD w int; UPDATE item SET n = 5; COMMIT;
	  ALTER TABLE item DROP w; UPDATE item SET v = 'short'),
	q(SELECT id, v, n FROM item), '3|short|5');

# ---- which columns ----

arrives('a wide row',
	q(INSERT INTO item SELECT 200, string_agg(md5(i::text), ''), 0 FROM generate_series(1, 50) i),
	q(SELECT length(v) FROM item WHERE id = 200), '1600');
my $sent = q(SELECT bytes_sent FROM entanglement.peers WHERE name = 'bob');
my $bytes = $alice->sql($sent);
arrives('a change of its narrow column', q(UPDATE item SET n = 1 WHERE id = 200),
	q(SELECT n FROM item WHERE id = 200), '1');
$bytes = $alice->sql($sent) - $bytes;
cmp_ok($bytes, '<', 800, 'costs what changed only: the log is not taken at its word');
arrives('a value that goes back', q(UPDATE item SET n = 0 WHERE id = 200),
	q(SELECT n FROM item WHERE id = 200), '0');

# ---- whose rows they are ----

$alice->sql(q(SELECT entanglement.create_owner('red')));
arrives('a row of an owner whom the session names',
	q(SET entanglement.owner = 'red'; INSERT INTO item VALUES (10, 'red', 0)),
	q(SELECT entanglement.owner_of(i) FROM item i WHERE id = 10), 'red');

# ---- what comes from a peer does not go back ----

$bob->sql(q(SELECT entanglement.set_capture('item', 'wal')));
$bob->wait_until(q(SELECT wal FROM entanglement.relation), 't', 'both capture from the log');
$bob->sql(q(INSERT INTO item VALUES (20, 'of bob', 0)));
$bob->drain('alice');
is($alice->sql(q(SELECT v FROM item WHERE id = 20)), 'of bob', 'the other direction');
arrives('a row that the other has asked for',
	q(UPDATE item SET v = 'wanted' WHERE id = 20),
	q(SELECT count(*) FROM item WHERE id = 20), '1');
$alice->wait_until(q(SELECT v FROM item WHERE id = 20), 'wanted', 'a request to its owner');
my $serials = q(SELECT string_agg(name || serial, ' ' ORDER BY name) FROM entanglement.owners WHERE local);
my $before = $bob->sql($serials);
$alice->sql(q(UPDATE item SET n = n + 1 WHERE id = 10)) for 1 .. 20;
$alice->drain('bob');
$bob->drain('alice');
is($bob->sql($serials), $before, 'what is applied is not captured again');
is($alice->sql(q(SELECT count(*) FROM entanglement.parked)) . $bob->sql(q(SELECT count(*) FROM entanglement.parked)),
	'00', 'nor taken for a write of a stranger');

# ---- the way of capture changes while rows are written ----

$alice->sql(q(INSERT INTO item SELECT i, 'hot', 0 FROM generate_series(101, 110) i));
my $writer = $alice->session;
$writer->query_until(qr/started/, <<'SQL');
\echo started
DO $$ BEGIN FOR i IN 1 .. 3000 LOOP
	UPDATE item SET n = n + 1 WHERE id = 101 + i % 10; COMMIT;
END LOOP; END $$;
SELECT 'written';
SQL
foreach my $way (qw(trigger wal trigger wal))
{
	$alice->sql("SELECT entanglement.set_capture('item', '$way')");
	$alice->wait_until(q(SELECT wal FROM entanglement.relation),
		$way eq 'wal' ? 't' : 'f', "captured by $way");
}
$writer->query_until(qr/written/, '');
$writer->quit;
arrives('every change while the way of capture changed', '',
	q(SELECT sum(n) FROM item WHERE id BETWEEN 101 AND 110), '3000');

# ---- crashes ----

$cluster->stop('immediate');
$cluster->start;
$alice->wait_connected('bob');
arrives('rows after a crash', q(UPDATE item SET n = -1 WHERE id = 101),
	q(SELECT n FROM item WHERE id = 101), '-1');

# ---- the slot is lost ----

$cluster->stop;
my $slot = 'entanglement_' . do
{
	$cluster->append_conf('postgresql.conf', 'shared_preload_libraries = \'\'');
	$cluster->start;
	$alice->sql(q(SELECT oid FROM pg_database WHERE datname = current_database()));
};
$alice->sql("SELECT pg_drop_replication_slot('$slot')");
$alice->sql(q(SET session_replication_role = replica;
	UPDATE item SET v = 'unseen' WHERE id = 102; DELETE FROM item WHERE id = 103;
	INSERT INTO item VALUES (104000, 'unseen', 0)));
$cluster->stop;
$cluster->append_conf('postgresql.conf', 'shared_preload_libraries = \'entanglement\'');
$cluster->start;
$alice->wait_until("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'", '1', 'a new slot');
$alice->wait_connected('bob');
arrives('what happened without a slot', q(UPDATE item SET n = -2 WHERE id = 105),
	q(SELECT string_agg(id || v || n, ' ' ORDER BY id) FROM item WHERE v = 'unseen' AND id <> 104000 OR n = -2 OR id = 103),
	'102unseen300 105hot-2');
is($bob->sql(q(SELECT v FROM item WHERE id = 104000)), 'unseen', 'a row that was made without a slot');

# ---- the last table leaves ----

$alice->sql(q(SELECT entanglement.set_capture('item', 'trigger')));
$alice->wait_until("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'", '0', 'no slot that nobody needs');
arrives('rows after it', q(UPDATE item SET n = -3 WHERE id = 101), q(SELECT n FROM item WHERE id = 101), '-3');

# ---- the extension goes ----

$alice->sql(q(SELECT entanglement.set_capture('item', 'wal')));
$alice->wait_until(q(SELECT state FROM entanglement.log_capture WHERE active), 'reserved', 'the slot is shown');
$alice->sql(q(DROP EXTENSION entanglement CASCADE));
$alice->wait_until("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot'", '0',
	'the slot goes with the extension');
$cluster->safe_psql('postgres', 'DROP DATABASE bob');
is($cluster->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0',
	'and with the database');

# ---- what the server must allow ----

my $carol = Entanglement::Node->database($cluster, 'carol');
$carol->define('CREATE TABLE item (id int PRIMARY KEY, v text, n int)', 'item');
$carol->sql('ALTER TABLE item REPLICA IDENTITY NOTHING');
$carol->fails(q(SELECT entanglement.set_capture('item', 'wal')), '55000',
	'cannot be captured from the log', 'a replica identity that does not tell the key');
$carol->sql('ALTER TABLE item REPLICA IDENTITY DEFAULT');
SKIP:
{
	skip 'an older minor', 6
	  if $carol->sql(q(SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries')) eq '0';
	$carol->define('CREATE TABLE other (id int PRIMARY KEY)', 'other');
	$carol->sql(q(SELECT entanglement.set_capture('item', 'wal')));
	$carol->wait_until(q(SELECT active AND last_error IS NULL FROM entanglement.log_capture), 't', 'captured from the log');
	$cluster->append_conf('postgresql.conf', 'output_plugin_libraries = \'pgoutput\'');
	$cluster->reload;
	$carol->wait_until('SHOW output_plugin_libraries', 'pgoutput', 'a server that allows less');
	$carol->fails(q(SELECT entanglement.set_capture('other', 'wal')), '55000',
		'output_plugin_libraries = .pgoutput, entanglement.', 'the hint says what to set');
	$carol->sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type LIKE 'entanglement collector%'));
	$carol->sql(q(INSERT INTO item VALUES (1, 'waits', 0)));
	$carol->wait_until(q(SELECT last_error ~ '^[0-9A-Z]{5}: .*entanglement' AND failing_since IS NOT NULL FROM entanglement.log_capture),
		't', 'who looks is told why nothing is captured');
	$cluster->append_conf('postgresql.conf', 'output_plugin_libraries = \'entanglement\'');
	$cluster->reload;
	$carol->wait_until(q(SELECT active AND last_error IS NULL FROM entanglement.log_capture), 't', 'until it is again');
	$carol->wait_until('SELECT count(*) FROM entanglement.object', 1, 'and nothing is missing');
}

done_testing();
