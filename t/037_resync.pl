# Resynchronization: alice and bob dial hub; rows are damaged behind our back
# (session_replication_role = replica, so that nothing is captured).
#
# Promise: resync repairs what differs, on both ends of the link, whatever was
# done to rows and objects; rows that are right are there all the time, changes
# go on meanwhile, and a restart in the middle loses nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('resync');
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);
my $rest = 'SELECT (SELECT count(*) FROM entanglement.change), '
  . join ', ', map { "(SELECT count(*) FROM entanglement.$_)" } qw(arrears resend owed parked);

link_nodes($alice, $hub);
link_nodes($bob, $hub);
$_->define(<<'SQL', 'item', 'part') foreach @all;
CREATE TABLE item (id int PRIMARY KEY, v text, w numeric(10, 2), big text);
CREATE TABLE part (k text, n int, v text, PRIMARY KEY (k, n)) PARTITION BY LIST (k);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b');
SQL
$alice->sql(<<'SQL');
INSERT INTO item SELECT i, 'alice ' || i, i / 3.0,
	CASE WHEN i % 500 = 0 THEN (SELECT string_agg(md5(i || ' ' || j), '') FROM generate_series(1, 300) j) END
	FROM generate_series(1, 5000) i;
INSERT INTO part SELECT CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i, 'alice' FROM generate_series(1, 100) i;
SQL
$bob->sql("INSERT INTO item SELECT i, 'bob ' || i FROM generate_series(10001, 10500) i");
converge(\@all, [ 'item', 'part' ], 'in step');

# Runs statements that nothing captures.
sub damage
{
	my ($node, $sql) = @_;

	$node->sql("SET session_replication_role = replica;\n$sql");
	return;
}

# resync, and what it says.
sub resync
{
	my ($node, @arguments) = @_;
	my ($rc, $out, $err) = $node->try('SELECT entanglement.resync('
		  . join(', ', map { "'$_'" } @arguments) . ')');

	is($rc, 0, 'resync at ' . $node->name . ' of ' . join ', ', @arguments);
	return $err;
}

sub at_rest
{
	$_->wait_until($rest, '0|0|0|0|0', 'nothing is left to do') foreach @all;
	return;
}

my ($versions, $versions_at_hub) = map { $_->versions('item') } $alice, $hub;

subtest 'rows damaged where they were received' => sub {
	damage($hub, <<'SQL');
UPDATE item SET v = 'wrong', big = NULL WHERE id IN (7, 8, 500, 10010);
UPDATE item SET w = w + 1 WHERE id = 4000;
DELETE FROM item WHERE id BETWEEN 100 AND 120 OR id = 10100;
INSERT INTO item VALUES (0, 'nobody''s'), (6000, 'nobody''s'), (20000, 'nobody''s');
UPDATE part SET v = 'wrong' WHERE n = 3;
DELETE FROM part WHERE n = 4;
INSERT INTO part VALUES ('a', 1000, 'nobody''s'), ('b', 1001, 'nobody''s'), ('b', 1002, 'nobody''s');
SQL
	my $err = resync($hub, 'alice');

	like($err, qr/NOTICE:  00000: removed 3 rows of table public\.item that were no objects/,
		'rows that are no objects are removed and counted');
	like($err, qr/removed 3 rows of table public\.part/, 'also those of partitions');
	converge([ $alice, $hub ], ['part'], 'partitions are healed');
	$hub->wait_until('SELECT count(*) FROM item WHERE id IN (0, 6000, 20000)', 0, 'too many no more');
	$hub->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'all has been compared');
	is( $hub->sql("SELECT count(*) FROM item WHERE v = 'wrong' OR id = 4000 AND w <> 1333.33"),
		1, 'rows of bob are not alice\'s to heal');
	like(resync($hub, 'bob', 'bob'), qr/^$/, 'one owner, without a word');
	converge(\@all, [ 'item', 'part' ], 'all of them are healed');
	is($alice->versions('item'), $versions, 'no version was given out for it');
	is($hub->versions('item'), $versions_at_hub, 'objects are what they were');
	at_rest();
};

subtest 'from the other end of the link' => sub {
	damage($hub, "UPDATE item SET v = 'wrong' WHERE id % 100 = 0; DELETE FROM item WHERE id % 100 = 1");
	damage($bob, "UPDATE item SET v = 'wrong too' WHERE id % 100 = 2");
	resync($alice, 'hub');
	converge([ $alice, $hub ], { item => "CASE WHEN id <= 10000 THEN item END" }, 'alice has healed hub');
	resync($hub, 'bob');
	converge(\@all, ['item'], 'hub has healed bob, and bob hub');
	at_rest();
};

subtest 'what was healed is passed on, what was right is not' => sub {
	damage($bob, "UPDATE item SET v = 'wrong' WHERE id = 30");
	damage($hub, "UPDATE item SET v = 'wrong' WHERE id BETWEEN 30 AND 32");
	my $before = $hub->peer('bob');

	resync($hub, 'alice', 'alice');
	converge(\@all, ['item'], 'healed at hub, and from there at bob');
	at_rest();
	my $sent = Entanglement::Node::counted($before, $hub->peer('bob'));

	cmp_ok($sent->{objects_sent}, '<', 10, 'only those that differed were sent on');
};

subtest 'objects and rows that do not belong together' => sub {
	# the row is there, its object is not; and the other way round
	damage($hub, <<'SQL');
DELETE FROM entanglement.object WHERE rel = (SELECT no FROM entanglement.relation WHERE relid = 'item'::regclass)
	AND key IN (SELECT key FROM entanglement.object ORDER BY key LIMIT 5);
DELETE FROM entanglement.object o USING entanglement.relation r
	WHERE r.no = o.rel AND r.relid = 'item'::regclass AND o.key = '\x0400000009';
UPDATE item SET v = 'wrong' WHERE id = 9;
SQL
	# rows without objects whose owner has them are healed, not removed
	resync($hub, 'alice', 'alice');
	converge(\@all, ['item'], 'rows become objects again');
	is($hub->versions('item'), $alice->versions('item'), 'and the objects are there again');
	at_rest();
};

subtest 'a row that was not to be seen for a while' => sub {
	my $there = 'SELECT count(*) FROM item WHERE id BETWEEN 70 AND 72';
	my $before = $bob->versions('item');

	$alice->sql('ALTER TABLE item ENABLE ROW LEVEL SECURITY; CREATE POLICY shown ON item USING (id NOT BETWEEN 70 AND 72)');
	resync($alice, 'hub', 'alice');
	$_->wait_until($there, 0, 'goes') foreach $hub, $bob;
	$alice->sql('DROP POLICY shown ON item; ALTER TABLE item DISABLE ROW LEVEL SECURITY');
	resync($alice, 'hub', 'alice');
	converge(\@all, ['item'], 'comes back');
	is($bob->versions('item'), $before, 'as the version that it was');
	at_rest();
};

subtest 'at home the table is the truth' => sub {
	damage($alice, <<'SQL');
UPDATE item SET v = 'as alice wants it' WHERE id = 50;
DELETE FROM item WHERE id IN (51, 52);
INSERT INTO item VALUES (7000, 'new'), (7001, 'new');
SQL
	my $err = resync($alice, 'hub', 'alice');

	like($err, qr/2 rows of table public\.item become objects/, 'rows that are no objects become the owner\'s');
	like($err, qr/2 objects of table public\.item have no row any more/, 'objects without a row are dead');
	converge(\@all, ['item'], 'everybody sees the table as it is');
	is( $bob->sql('SELECT id, v, entanglement.owner_of(item) FROM item WHERE id IN (50, 51, 52, 7000, 7001) ORDER BY id'),
		"50|as alice wants it|alice\n7000|new|alice\n7001|new|alice", 'two links away as well');
	at_rest();
};

subtest 'what is captured but not folded stays' => sub {
	my $lock = $alice->session;
	my $running = $alice->session;

	# the fold waits for the owner's row
	$lock->query_safe("BEGIN; SELECT 1 FROM entanglement.owner WHERE name = 'alice' FOR NO KEY UPDATE");
	$running->query_safe("BEGIN; INSERT INTO item VALUES (8001, 'running')");
	$alice->sql("INSERT INTO item VALUES (8000, 'not folded'); DELETE FROM item WHERE id = 60");
	is(resync($alice, 'hub'), '', 'nothing is removed, nothing counts as deleted');
	my ($rc, $out, $err) = $alice->try(<<'SQL');
BEGIN;
INSERT INTO item VALUES (8002, 'mine');
SELECT entanglement.resync('hub');
COMMIT;
SQL
	is($err, '', 'neither are rows of the same transaction');
	$running->query_safe('COMMIT');
	$lock->query_safe('COMMIT');
	$_->quit foreach $lock, $running;
	converge(\@all, ['item'], 'they arrive');
	is($bob->sql('SELECT count(*) FROM item WHERE id BETWEEN 8000 AND 8002'), 3, 'all three');
	at_rest();
};

subtest 'right rows are there all the time, and changes go on' => sub {
	my $right = 'id <= 5000 AND id % 10 <> 3 AND id % 10 <> 4';
	my $count = $hub->sql("SELECT count(*) FROM item WHERE $right AND v LIKE 'alice%'");

	$hub->sql('CREATE TABLE watched (n int, at timestamptz DEFAULT clock_timestamp()); CREATE TABLE stop ()');
	my $watcher = $hub->session;
	my $writer = $alice->session;

	$watcher->query_until(qr/watching/, <<"SQL");
\\echo watching
DO \$\$ BEGIN
	WHILE to_regclass('stop') IS NOT NULL LOOP
		INSERT INTO watched SELECT count(*) FROM item WHERE $right AND v LIKE 'alice%';
		COMMIT;
	END LOOP;
END \$\$;
SQL
	$alice->sql('CREATE TABLE stop ()');
	$writer->query_until(qr/writing/, <<'SQL');
\echo writing
DO $$ BEGIN
	WHILE to_regclass('stop') IS NOT NULL LOOP
		UPDATE item SET w = w + 1 WHERE id % 10 = 3;
		COMMIT;
		PERFORM pg_sleep(0.01);	-- leaves the machine to those who heal
	END LOOP;
END $$;
SQL
	$hub->wait_until('SELECT count(*) > 3 FROM watched', 't', 'somebody watches');
	damage($hub, "UPDATE item SET v = 'wrong' WHERE id % 10 = 3 AND id <= 5000; DELETE FROM item WHERE id % 10 = 4 AND id <= 5000");
	resync($hub, 'alice');
	$hub->wait_until("SELECT count(*) FROM item WHERE id <= 5000 AND v LIKE 'alice%'",
		$alice->sql("SELECT count(*) FROM item WHERE id <= 5000 AND v LIKE 'alice%'"),
		'healed while changes go on');
	$hub->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'compared to the end');
	my $seen = $hub->sql('SELECT count(*) FROM watched');
	$hub->wait_until("SELECT count(*) > $seen FROM watched", 't', 'and after');
	$_->sql('DROP TABLE stop') foreach $alice, $hub;
	$_->quit foreach $watcher, $writer;
	is($hub->sql('SELECT min(n), max(n) FROM watched'), "$count|$count",
		'no reader ever missed a row that was right');
	converge(\@all, ['item'], 'all agree');
	at_rest();
};

subtest 'a restart in the middle' => sub {
	# so slow that it takes a while
	$alice->sql("SELECT entanglement.alter_peer('hub', bandwidth => 20000)");
	damage($hub, "UPDATE item SET v = 'wrong' WHERE id % 7 = 0 AND id <= 5000; DELETE FROM item WHERE id % 7 = 1 AND id <= 5000");
	my $wrong = "SELECT count(*) FROM item WHERE v = 'wrong'";
	my $all = $hub->sql($wrong);

	resync($hub, 'alice');
	resync($alice, 'hub');
	$hub->wait_until("SELECT n > 0 AND n < $all FROM ($wrong) x (n)", 't', 'under way');
	is($hub->sql("SELECT direction, owner, relation FROM entanglement.comparisons WHERE peer = 'alice' AND relation = 'item'::regclass"),
		'received|alice|item', 'the view says so');
	is($alice->sql("SELECT direction, owner, relation FROM entanglement.comparisons WHERE relation = 'item'::regclass AND owner = 'alice'"),
		'sent|alice|item', 'also at the other end');
	$cluster->stop('immediate');
	$cluster->start;
	cmp_ok($hub->sql($wrong), '>', 0, 'stopped in the middle');
	$alice->sql("SELECT entanglement.alter_peer('hub', reset => '{bandwidth}')");
	converge(\@all, ['item'], 'it goes on by itself');
	at_rest();
};

subtest 'asked for again while it is under way' => sub {
	$alice->sql("SELECT entanglement.alter_peer('hub', bandwidth => 20000)");
	damage($hub, "UPDATE item SET v = 'wrong' WHERE id BETWEEN 3000 AND 5000");
	my $wrong = "SELECT count(*) FROM item WHERE v = 'wrong'";
	my $all = $hub->sql($wrong);

	resync($hub, 'alice', 'alice');
	$hub->wait_until("SELECT n < $all FROM ($wrong) x (n)", 't', 'under way');
	damage($hub, "UPDATE item SET v = 'wrong again' WHERE id BETWEEN 1 AND 100");
	resync($hub, 'alice', 'alice');
	$alice->sql("SELECT entanglement.alter_peer('hub', reset => '{bandwidth}')");
	converge(\@all, ['item'], 'what was damaged behind the first one is healed by the second');
	at_rest();
};

subtest 'while there is no link' => sub {
	$alice->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'", 't', 'pause');
	damage($hub, "UPDATE item SET v = 'wrong' WHERE id < 10");
	like(resync($hub, 'alice'), qr/NOTICE:  00000: peer "alice" is not connected.*when its link is up/s,
		'it is told that it waits');
	like(resync($alice, 'hub'), qr/NOTICE:  00000: peer "hub" is paused/, 'likewise');
	$alice->sql("SELECT entanglement.resume_peer('hub')");
	converge(\@all, ['item'], 'and done when the link is up');
	at_rest();
};

subtest 'rows that are being handed over' => sub {
	$bob->sql("SELECT entanglement.pause_peer('hub')");
	$alice->sql("SELECT entanglement.transfer(i, 'bob') FROM item i WHERE id BETWEEN 101 AND 105");
	$hub->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0', 5, 'under way');
	damage($hub, "UPDATE item SET v = 'damaged' WHERE id = 101; DELETE FROM item WHERE id = 102");
	my $before = $hub->sql('SELECT xmin FROM item WHERE id = 103');
	resync($hub, 'alice');
	$hub->wait_until('SELECT count(*) FROM entanglement.comparisons WHERE peer = $$alice$$', 0, 'compared');
	is($hub->sql("SELECT string_agg(v, ', ' ORDER BY id) FROM item WHERE id BETWEEN 101 AND 105"),
		'alice 101, alice 102, alice 103, alice 104, alice 105', 'they are repaired');
	is($hub->sql('SELECT xmin FROM item WHERE id = 103'), $before, 'those that were right are not written');
	$bob->sql("SELECT entanglement.resume_peer('hub')");
	$_->wait_until("SELECT string_agg(v || ' of ' || entanglement.owner_of(i), ', ' ORDER BY id) FROM item i WHERE id BETWEEN 101 AND 105",
		'alice 101 of bob, alice 102 of bob, alice 103 of bob, alice 104 of bob, alice 105 of bob',
		'and arrive') foreach @all;
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'what cannot be' => sub {
	$hub->fails("SELECT entanglement.resync('nobody')", '42704', 'peer "nobody" does not exist', 'no such peer');
	$hub->fails("SELECT entanglement.resync('alice', 'nobody')", '42704', 'no owner is named "nobody"', 'no such owner');
	$alice->sql("SELECT entanglement.drop_peer('hub')");
	$alice->sql("SELECT entanglement.add_peer('other', NULL, 'alice')");
	$alice->fails("SELECT entanglement.resync('other', 'bob')", '55000',
		'owner "bob" is neither taken from nor given to peer "other"', 'an owner that there is no way to');
	$alice->sql('CREATE ROLE plain');
	$alice->fails("SET ROLE plain; SELECT entanglement.resync('other')", '42501',
		'permission denied', 'not everybody may');
};

done_testing();
