# Objects change hands: a chain of databases alice - hub - bob, and carol beyond
# bob.
#
# Promise: an owner hands objects over, one or many, to anybody whom his node
# knows; from the commit on everybody sees the new owner, whoever looks and
# wherever, the row is there all the time, nothing written before is lost, and
# what the old owner writes from then on is a request.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('transfer');
my @names = qw(alice hub bob carol);
my %node = map { $_ => Entanglement::Node->database($cluster, $_) } @names;
my ($alice, $hub, $bob, $carol) = @node{@names};
my @all = ($alice, $hub, $bob, $carol);

link_nodes($alice, $hub);
link_nodes($bob, $hub);
link_nodes($carol, $bob);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'machine');
CREATE TABLE machine (id int PRIMARY KEY, place text, n int NOT NULL DEFAULT 0);
SQL
	$node->audit('machine');
	$node->wait_until('SELECT count(*) FROM entanglement.owners', 4, 'owners known');
}
$alice->sql("SELECT entanglement.create_owner('alice too')");
$alice->sql("INSERT INTO machine SELECT i, 'start' FROM generate_series(1, 20) i");
converge(\@all, ['machine'], 'in step');

sub transfer
{
	my ($node, $owner, $where) = @_;

	return $node->sql("SELECT entanglement.transfer(m, '$owner') FROM machine m WHERE $where");
}

sub owners
{
	my ($node, $where) = @_;

	return $node->sql("SELECT string_agg(DISTINCT entanglement.owner_of(m), ',') FROM machine m WHERE $where");
}

# Waits until every node says that this owner has these rows, as confirmed.
sub owned
{
	my ($owner, $where, $name) = @_;

	foreach my $node (@all)
	{
		$node->wait_until(
			"SELECT string_agg(DISTINCT entanglement.owner_of(m), ',') FROM machine m WHERE $where",
			$owner, "$name: " . $node->name . " says so");
		$node->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0',
			0, "$name: confirmed at " . $node->name);
	}
	converge(\@all, ['machine'], "$name: the same everywhere");
	return;
}

sub ask
{
	my ($node, $sql) = @_;

	return $node->sql("$sql; SELECT entanglement.last_request() AS id \\gset\n"
		  . "SELECT entanglement.wait_for(:'id')");
}

# Rows that went for a moment, anywhere, in the whole test.
sub nothing_went
{
	my ($name) = @_;

	is($_->sql("SELECT count(*) FROM audit_machine WHERE op = 'DELETE' AND body->>'id' <> '21'"),
		0, "$name: no row went for a moment at " . $_->name)
	  foreach @all;
	return;
}

subtest 'one object, across a node' => sub {
	is($alice->sql(<<'SQL'), "bob\n1\nstart\nbob", 'handed over by SQL; writes become requests');
BEGIN;
SELECT entanglement.transfer(m, 'bob') FROM machine m WHERE id = 1 \g /dev/null
SELECT entanglement.owner_of(m) FROM machine m WHERE id = 1;
UPDATE machine SET place = 'too late' WHERE id = 1 RETURNING 1 \g /dev/null
SELECT count(*) FROM entanglement.requests WHERE owner = 'bob';
SELECT place FROM machine WHERE id = 1;
COMMIT;
SELECT entanglement.owner_of(m) FROM machine m WHERE id = 1;
SQL
	owned('bob', 'id = 1', 'one');
	$alice->wait_until("SELECT string_agg(state, ',') FROM entanglement.requests",
		'accepted', 'what the old owner asked for waited for the new one');
	$_->wait_until('SELECT place FROM machine WHERE id = 1', 'too late', 'done at ' . $_->name)
	  foreach @all;
	is($bob->sql("UPDATE machine SET place = 'mine' WHERE id = 1; SELECT place FROM machine WHERE id = 1"),
		'mine', 'the new owner writes');
	is(ask($carol, "UPDATE machine SET n = 5 WHERE id = 1"), 'accepted', 'who asks, asks him');
	converge(\@all, ['machine'], 'and everybody has it');
	my ($rc, $out, $err) =
	  $alice->try("SELECT entanglement.transfer(m, 'alice') FROM machine m WHERE id = 1");
	like($err, qr/55000: row of table "machine" is owned by "bob"/, 'only he may hand it on');
	nothing_went('one');
};

subtest 'many, and their latest changes' => sub {
	$alice->sql(<<'SQL');
BEGIN;
UPDATE machine SET place = 'last', n = id WHERE id BETWEEN 2 AND 10;
INSERT INTO machine VALUES (21, 'new');
SELECT entanglement.transfer(m, 'carol') FROM machine m WHERE id BETWEEN 2 AND 10 OR id = 21;
COMMIT;
SQL
	owned('carol', 'id BETWEEN 2 AND 10 OR id = 21', 'many');
	is( $carol->sql("SELECT string_agg(place || n, ',' ORDER BY id) FROM machine WHERE id BETWEEN 2 AND 10 OR id = 21"),
		'last2,last3,last4,last5,last6,last7,last8,last9,last10,new0',
		'with what was written in the same transaction');
	$carol->sql('DELETE FROM machine WHERE id = 21');
	converge(\@all, ['machine'], 'deleted by the new owner');
	is($alice->sql('SELECT count(*) FROM machine WHERE id = 21'), 0, 'gone everywhere');
	transfer($carol, 'alice', 'id BETWEEN 2 AND 4');
	owned('alice', 'id BETWEEN 2 AND 4', 'back');
	$alice->sql("UPDATE machine SET place = 'home again' WHERE id BETWEEN 2 AND 4");
	converge(\@all, ['machine'], 'he writes again');
	nothing_went('many');
};

subtest 'owners of one node' => sub {
	transfer($alice, 'alice too', 'id = 11');
	is(owners($alice, 'id = 11'), 'alice too', 'at once');
	owned('alice too', 'id = 11', 'here');
	$alice->sql("BEGIN; SELECT entanglement.transfer(m, 'alice') FROM machine m WHERE id = 11;"
		  . "SELECT entanglement.transfer(m, 'bob') FROM machine m WHERE id = 11; COMMIT");
	owned('bob', 'id = 11', 'twice in a transaction');
	transfer($alice, 'alice', 'id = 12');
	is($alice->sql('SELECT count(*) FROM entanglement.handover'), 0, 'to whom it belongs: nothing');
	nothing_went('one node');
};

subtest 'from hand to hand, with the links cut' => sub {
	$hub->sql("SELECT entanglement.pause_peer('bob')");
	transfer($alice, 'carol', 'id = 13');
	$alice->sql("UPDATE machine SET place = 'asked' WHERE id = 13");
	$hub->wait_until("SELECT entanglement.owner_of(m) FROM machine m WHERE id = 13", 'carol',
		'the onlooker on this side knows');
	is(owners($_, 'id = 13'), 'alice', 'the others do not yet') foreach $bob, $carol;
	$bob->sql("UPDATE machine SET place = 'by bob' WHERE id = 13");
	$cluster->stop('immediate');
	$cluster->start;
	$hub->sql("SELECT entanglement.resume_peer('bob')");
	owned('carol', 'id = 13', 'after the cut and a crash');
	$_->wait_until("SELECT count(*) FROM entanglement.requests WHERE state IN ('waiting', 'sent')",
		0, 'no request is left at ' . $_->name)
	  foreach @all;
	is($alice->sql("SELECT state FROM entanglement.requests WHERE changes->>'place' = 'asked'"),
		'accepted', 'the old owner was heard');
	is($bob->sql("SELECT state, sqlstate, message FROM entanglement.requests WHERE changes->>'place' = 'by bob'"),
		'refused|55000|the row of table "machine" has been handed over to owner "carol"',
		'a request that met the hand-over on its way is refused');
	transfer($carol, 'bob', 'id = 13');
	$bob->wait_until('SELECT entanglement.owner_of(m) FROM machine m WHERE id = 13', 'bob', 'on');
	transfer($bob, 'hub', 'id = 13');
	$hub->wait_until('SELECT entanglement.owner_of(m) FROM machine m WHERE id = 13', 'hub', 'and on');
	transfer($hub, 'alice', 'id = 13');
	owned('alice', 'id = 13', 'around');
	nothing_went('cut');
};

subtest 'a writer who waits for the row' => sub {
	my $writer = $alice->session;
	my $psql = $alice->session;

	$psql->query_safe("BEGIN; SELECT entanglement.transfer(m, 'bob') FROM machine m WHERE id = 14");
	$writer->query_until(qr/begun/, "\\echo begun\nUPDATE machine SET n = n + 1 WHERE id = 14;\n");
	$alice->wait_until("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", 1, 'he waits');
	$psql->query_safe('COMMIT');
	$psql->quit;
	$writer->quit;
	owned('bob', 'id = 14', 'waited for');
	$_->wait_until('SELECT n FROM machine WHERE id = 14', 1, 'his change was asked of the new owner')
	  foreach @all;
};

# Whoever gives an object to an owner whose way changes may ask any that has heard of
# it, not only the last.
subtest 'all who have heard of it are noted' => sub {
	$hub->sql("INSERT INTO machine VALUES (23, 'of the hub')");
	converge(\@all, ['machine'], 'there');
	my $collector = $carol->sql(
		"SELECT pid FROM pg_stat_activity WHERE datname = 'carol' AND backend_type ~ 'collector'");
	kill 'STOP', $collector;
	transfer($hub, 'carol', 'id = 23');
	$hub->wait_until(
		"SELECT delivered <@ array_agg(p.no) AND delivered @> array_agg(p.no)
		   FROM entanglement.inherited i, entanglement.peer p
		  WHERE i.key = '\\x0400000017' AND p.name IN ('alice', 'bob') GROUP BY delivered",
		't', 'both neighbours');
	kill 'CONT', $collector;
	owned('carol', 'id = 23', 'confirmed in the end');
};

# Each node has a row that no other takes: it is parked there, and asked for again
# in the same answers in which a node asks about what is unconfirmed.
foreach my $i (0 .. $#all)
{
	my $name = $all[$i]->name;

	$all[$i]->sql(<<"SQL");
CREATE TABLE pebble (id int PRIMARY KEY);
INSERT INTO pebble VALUES (-1 - $i);
ALTER TABLE pebble ADD CHECK (id > 0) NOT VALID;
SELECT entanglement.create_owner('$name pebble');
SET entanglement.owner = '$name pebble';
SELECT entanglement.synchronize('pebble');
SQL
}
$_->wait_until('SELECT count(*) > 0 FROM entanglement.parked', 't', 'a pebble at ' . $_->name) foreach @all;

# Waits until every node has asked every neighbour three times more. The time
# after which it does so is that after which it asks about the unconfirmed, too:
# it has at least once. What all have heard of has been forgotten as well.
sub asked_about
{
	my %tries = map {
		my $node = $_;
		map { $node->name . " $_" => $node->sql("SELECT tries FROM entanglement.parked WHERE owner = $_") }
		  split /\n/, $node->sql('SELECT owner FROM entanglement.parked ORDER BY 1')
	} @all;

	foreach (sort keys %tries)
	{
		my ($name, $owner) = split / /;

		$node{$name}->wait_until("SELECT max(tries) >= $tries{$_} + 3 FROM entanglement.parked WHERE owner = $owner",
			't', "asked again at $name");
	}
	$alice->sql("INSERT INTO machine VALUES (21); DELETE FROM machine WHERE id = 21");
	$alice->drain('hub');
	$alice->wait_until("SELECT count(*) FROM entanglement.tombstone WHERE heir IS NULL", 0, 'what all have heard is forgotten');
	return;
}

subtest 'a home that is connected, but does not hear of it for a while' => sub {
	$bob->sql("SELECT entanglement.bind_owner('alice', 'carol')");
	$bob->wait_until("SELECT peer IS NULL FROM entanglement.owners WHERE name = 'alice'", 't', 'bob takes nothing of alice');
	$alice->sql("INSERT INTO machine VALUES (22, 'unheard of')");
	transfer($alice, 'bob', 'id IN (16, 22)');
	$hub->wait_until("SELECT entanglement.owner_of(m) FROM machine m WHERE id = 22", 'bob', 'handed over');
	asked_about();
	is($_->sql('SELECT count(*) FROM machine WHERE id IN (16, 22)'), 2, 'the rows are there at ' . $_->name) foreach $alice, $hub;
	$bob->sql("SELECT entanglement.bind_owner('alice')");
	owned('bob', 'id IN (16, 22)', 'at last');
	nothing_went('not heard');
};

subtest 'a way that shows a part of the table' => sub {
	$hub->sql('ALTER TABLE machine ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON machine USING (true) WITH CHECK (true)');
	$bob->sql("SELECT entanglement.bind_owner('alice', 'carol')");
	$bob->wait_until("SELECT peer IS NULL FROM entanglement.owners WHERE name = 'alice'", 't', 'bob takes nothing of alice');
	$alice->sql("INSERT INTO machine VALUES (24, 'unheard of')");
	transfer($alice, 'bob', 'id = 24');
	$hub->wait_until("SELECT entanglement.owner_of(m) FROM machine m WHERE id = 24", 'bob', 'handed over');
	asked_about();
	is($_->sql('SELECT count(*) FROM machine WHERE id = 24'), 1, 'the row is there at ' . $_->name) foreach $alice, $hub;
	$bob->sql("SELECT entanglement.bind_owner('alice')");
	owned('bob', 'id = 24', 'at last');
	$hub->sql('DROP POLICY all_rows ON machine; ALTER TABLE machine DISABLE ROW LEVEL SECURITY');
	nothing_went('not heard');
};

subtest 'a table that is not there yet, or not any more' => sub {
	foreach my $node ($alice, $hub)
	{
		$node->define('CREATE TABLE late (id int PRIMARY KEY, v text)', 'late');
	}
	$alice->sql("INSERT INTO late SELECT i, 'start' FROM generate_series(1, 6) i");
	$hub->wait_until('SELECT count(*) FROM late', 6, 'the next node has it');
	$alice->sql("SELECT entanglement.transfer(l, 'carol') FROM late l WHERE id IN (1, 2)");
	$hub->wait_until("SELECT count(*) FROM late l WHERE entanglement.owner_of(l) = 'carol'", 2, 'handed over');
	my $id = $alice->sql("UPDATE late SET v = 'asked' WHERE id = 1; SELECT entanglement.last_request()");

	asked_about();
	foreach my $node ($bob, $carol)
	{
		$node->define('CREATE TABLE late (id int PRIMARY KEY, v text)', 'late');
	}
	is($alice->sql("SELECT entanglement.wait_for('$id')"), 'accepted', 'the heir gets the row with the table');
	converge(\@all, ['late'], 'all get it');
	is($_->sql("SELECT string_agg(DISTINCT entanglement.owner_of(l), ',') FROM late l WHERE id IN (1, 2)"),
		'carol', 'his: ' . $_->name) foreach @all;

	$hub->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql("SELECT entanglement.transfer(l, 'carol') FROM late l WHERE id IN (3, 4)");
	$hub->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0', 2, 'two more are under way');
	$hub->sql("SELECT entanglement.desynchronize('late'); SELECT entanglement.resume_peer('bob')");
	$_->wait_connected('hub') foreach $alice, $bob;
	asked_about();
	$hub->sql("SELECT entanglement.synchronize('late', take_over => false)");
	$_->wait_until("SELECT string_agg(id::text, ' ' ORDER BY id) FROM late l WHERE entanglement.owner_of(l) = 'carol'",
		'1 2 3 4', 'the way was gone for a while: ' . $_->name) foreach @all;
	$_->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0', 0, 'confirmed at ' . $_->name) foreach @all;
	converge(\@all, ['late'], 'all agree');
	$carol->sql("UPDATE late SET v = 'mine' WHERE id < 5");
	converge(\@all, ['late'], 'he writes them');
	$_->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, 'no tombstones at ' . $_->name) foreach @all;
};

subtest 'refused' => sub {
	my @cases = (
		[ "SELECT entanglement.transfer(m, 'nobody') FROM machine m WHERE id = 15",
			qr/42704: no owner is named "nobody"/, 'an owner unknown here' ],
		[ 'SELECT entanglement.transfer(m, NULL) FROM machine m WHERE id = 15',
			qr/22004: owner must not be NULL/, 'no owner' ],
		[ "SELECT entanglement.transfer(NULL::machine, 'bob')",
			qr/22004: row must not be NULL/, 'no row' ],
		[ "SELECT entanglement.transfer(ROW(999, 'x', 1)::machine, 'bob')",
			qr/P0002: not found: no such row in table "machine"/, 'a row that is not there' ],
		[ "SELECT entanglement.transfer(ROW(1), 'bob')",
			qr/42809: the row is not of a synchronized table/, 'a row of no table' ],
		[ "TRUNCATE machine", qr/55000: table "machine" holds rows owned by/, 'TRUNCATE of the others' ]);

	foreach (@cases)
	{
		my ($sql, $error, $name) = @$_;
		my ($rc, $out, $err) = $alice->try($sql);

		like($err, $error, $name);
	}
	$alice->sql("BEGIN; SELECT entanglement.transfer(m, 'bob') FROM machine m WHERE id = 15; ROLLBACK");
	is(owners($alice, 'id = 15'), 'alice', 'rolled back: nothing happened');
	$alice->sql('REVOKE SELECT ON machine FROM hub');
	my ($rc, $out, $err) = $alice->try("SELECT entanglement.transfer(m, 'bob') FROM machine m WHERE id = 15");
	like($err, qr/42501: the row of table "machine" cannot come to owner "bob".*may not see it/s,
		'a way that may not see it');
	$alice->sql('GRANT SELECT ON machine TO hub');
	$alice->sql(<<'SQL');
CREATE ROLE clerk LOGIN;
GRANT SELECT ON machine TO clerk;
GRANT USAGE ON SCHEMA entanglement TO clerk;
GRANT EXECUTE ON FUNCTION entanglement.transfer(record, text) TO clerk;
SQL
	($rc, $out, $err) =
	  $alice->try("SET ROLE clerk; SELECT entanglement.transfer(m, 'bob') FROM machine m WHERE id = 15");
	like($err, qr/42501: permission denied for table machine/, 'who may not change the row');
};

done_testing();
