# Which columns changed, in tables captured from the log.
#
# Promise: exactly those travel that changed, whatever the replica identity and
# however the row came to be captured from the log; and a row at a peer is at every
# moment one that was committed, although what is in the log may not have been read.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('walcolumns', conf => <<'CONF');
wal_level = logical
max_wal_senders = 4
max_replication_slots = 8
output_plugin_libraries = 'entanglement'
entanglement.compression_level = 0
CONF
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);
my $wide = q((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100)));
my $digested = q(SELECT bool_and(digested > 0) FROM entanglement.relation WHERE wal);

link_nodes($alice, $bob);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'item');
CREATE TABLE item (id int PRIMARY KEY, a int, b int, wide text, apart text);
ALTER TABLE item ALTER apart SET STORAGE EXTERNAL;
SQL
	$node->define(<<'SQL', 'part');
CREATE TABLE part (id int, a int, wide text, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE part_0 (wide text, id int NOT NULL, gone int, a int);
ALTER TABLE part_0 DROP gone;
ALTER TABLE part ATTACH PARTITION part_0 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SQL
}

# What $sql sends to bob: (objects, bytes).
sub cost
{
	my ($sql) = @_;

	$alice->drain('bob');
	my $before = $alice->peer('bob');
	$alice->sql($sql);
	$alice->drain('bob');
	my $d = Entanglement::Node::counted($before, $alice->peer('bob'));
	return ($d->{objects_sent}, $d->{bytes_sent});
}

sub costs
{
	my ($what, $sql, $objects, $most) = @_;
	my ($n, $bytes) = cost($sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($n, $objects, "$what: $objects objects");
	cmp_ok($bytes, '<=', $most, "$what: at most $most bytes");
	converge(\@all, ['item'], $what);
	return;
}

sub to_wal
{
	my ($table) = @_;

	$alice->sql(qq(SELECT entanglement.set_capture('$table', 'wal')));
	$alice->wait_until(qq(SELECT wal FROM entanglement.relation WHERE relid = '$table'::regclass),
		't', "$table is captured from the log");
	$alice->wait_until($digested, 't', 'its rows are known');
	return;
}

# ---- rows that were there before ----

$alice->sql(qq(INSERT INTO item SELECT i, 0, 0, $wide, repeat(md5(i::text), 1000) FROM generate_series(1, 5) i));
$alice->sql(qq(INSERT INTO part SELECT i, 0, $wide FROM generate_series(1, 5) i));
to_wal('item');
to_wal('part');
costs('a row captured by trigger before', 'UPDATE item SET a = 1 WHERE id = 1', 1, 200);
costs('a row of a partition with other column numbers', 'UPDATE part SET a = 1 WHERE id = 1', 1, 200);
converge(\@all, ['part'], 'partitions agree');
costs('a row written as it was', 'UPDATE item SET a = a, wide = wide WHERE id <= 3', 0, 50);
costs('a row born since', qq(INSERT INTO item VALUES (6, 0, 0, $wide, repeat('x', 40000))), 1, 50000);
costs('its first change', 'UPDATE item SET b = 1 WHERE id = 6', 1, 200);

# ---- what memory does not outlive ----

$alice->sql("SELECT pg_terminate_backend($_)") foreach $alice->workers('collector');
costs('after the collector was restarted', 'UPDATE item SET a = 2 WHERE id <= 2', 2, 300);
$alice->sql('CREATE TABLE other (x int); ALTER TABLE item ADD c int DEFAULT 7');
$bob->sql('ALTER TABLE item ADD c int DEFAULT 7');
$alice->wait_until(
	q(SELECT r.digested >= (SELECT max(attnum) FROM pg_attribute WHERE attrelid = r.relid)
		FROM entanglement.relation r WHERE relid = 'item'::regclass),
	't', 'the new column is known');
costs('after a column was added', 'UPDATE item SET a = 3 WHERE id <= 2', 2, 500);
costs('the new column', 'UPDATE item SET c = 8 WHERE id = 2', 1, 200);
costs('a value set to NULL', 'UPDATE item SET b = NULL WHERE id = 2', 1, 200);
costs('a value that goes back in one transaction',
	'BEGIN; UPDATE item SET b = 5 WHERE id = 2; UPDATE item SET b = NULL WHERE id = 2; COMMIT', 1, 200);

# ---- by trigger, and back ----

$alice->sql(q(SELECT entanglement.set_capture('item', 'trigger')));
$alice->wait_until(q(SELECT wal FROM entanglement.relation WHERE relid = 'item'::regclass), 'f', 'by trigger');
costs('by trigger', 'UPDATE item SET a = 0 WHERE id = 1', 1, 200);
to_wal('item');
# what was told last by the log is not what peers hold
costs('a value that the log told before', 'UPDATE item SET a = 3 WHERE id = 1', 1, 200);

# ---- rows that come from a peer ----

$bob->sql(qq(INSERT INTO item VALUES (20, 0, 0, $wide, repeat('y', 40000), 7)));
$bob->sql(q(SELECT entanglement.create_owner('red')));
$bob->drain('alice');
$bob->sql(q(UPDATE item SET a = 1 WHERE id = 20));
$bob->drain('alice');
$alice->sql(q(SELECT entanglement.create_owner('blue')));
$alice->drain('bob');
$bob->wait_until(q(SELECT count(*) FROM entanglement.owners WHERE name = 'blue'), '1', 'bob knows blue');
$bob->sql(q(SELECT entanglement.transfer(i, 'blue') FROM item i WHERE id = 20));
$alice->wait_until(q(SELECT entanglement.owner_of(i) FROM item i WHERE id = 20), 'blue', 'handed over');
$bob->drain('alice');
costs('a row that was handed over to us', 'UPDATE item SET a = 2 WHERE id = 20', 1, 200);

# ---- what has not been read ----

my ($dialer) = $alice->workers('dialer');
my ($collector) = $alice->workers('collector');
my $serial = q(SELECT max(serial) FROM entanglement.object);
my $was = $alice->sql($serial);

kill 'STOP', $dialer;
$alice->sql('UPDATE item SET a = 10 WHERE id = 1');
$alice->wait_until("$serial HAVING max(serial) > $was", $was + 1, 'its first change is folded');
kill 'STOP', $collector;
$alice->sql('UPDATE item SET a = 11, b = 11 WHERE id = 1');
kill 'CONT', $dialer;
$bob->wait_until(q(SELECT a > 3 FROM item WHERE id = 1), 't', 'the row arrives while the log is not read');
is($bob->sql('SELECT a, b FROM item WHERE id = 1'), '11|11', 'as it was committed');
kill 'CONT', $collector;
converge(\@all, ['item'], 'and all agree');

done_testing();
