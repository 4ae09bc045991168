# More than one way: alice, hub and bob in a triangle, and two nodes that dial
# each other.
#
# Promise: with redundant links every object still travels once to each node;
# when a route dies another takes over from where it stood; no row goes round.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('routes');
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);

link_nodes($alice, $hub);
link_nodes($bob, $hub);
link_nodes($alice, $bob);
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item')
  foreach @all;

# Objects all nodes have received so far.
sub received
{
	my $sum = 0;

	$sum += $_->sql('SELECT sum(objects_received) FROM entanglement.peers')
	  foreach @all;
	return $sum;
}

# Everybody knows the shortest way to everybody.
sub wait_routes
{
	my ($want) = @_;

	foreach my $node (@all)
	{
		$node->wait_until(
			"SELECT string_agg(name || '>' || coalesce(peer, '-') || distance, ' ' ORDER BY name) FROM entanglement.owners WHERE NOT local",
			$want->{ $node->name },
			'routes');
	}
	return;
}

subtest 'in a triangle each object travels once to each node' => sub {
	wait_routes(
		{
			alice => 'bob>bob1 hub>hub1',
			hub => 'alice>alice1 bob>bob1',
			bob => 'alice>alice1 hub>hub1'
		});
	my $before = received();

	$alice->sql("INSERT INTO item SELECT i, 'alice' FROM generate_series(1, 100) i");
	$bob->sql("INSERT INTO item SELECT i, 'bob' FROM generate_series(101, 150) i");
	converge(\@all, ['item'], 'all hold all');
	$_->drain foreach @all;
	is(received() - $before, 300, '150 objects were received by two nodes each');
};

subtest 'a route that dies is replaced, from where it stood' => sub {
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	wait_routes(
		{
			alice => 'bob>hub2 hub>hub1',
			hub => 'alice>alice1 bob>bob1',
			bob => 'alice>hub2 hub>hub1'
		});
	my $before = received();

	$alice->sql("UPDATE item SET v = 'by hub' WHERE id <= 10");
	converge(\@all, ['item'], 'the long way');
	$_->drain foreach @all;
	is(received() - $before, 20, 'ten objects to two nodes, nothing anew');

	$alice->sql("SELECT entanglement.resume_peer('bob')");
	wait_routes(
		{
			alice => 'bob>bob1 hub>hub1',
			hub => 'alice>alice1 bob>bob1',
			bob => 'alice>alice1 hub>hub1'
		});
	$alice->sql("DELETE FROM item WHERE id <= 5");
	$bob->sql("UPDATE item SET v = 'straight' WHERE id = 101");
	converge(\@all, ['item'], 'the short way again');
	$_->drain foreach @all;
	is(received() - $before, 32, 'six more objects to two nodes, nothing anew');
};

subtest 'tombstones go once all have heard, by whatever way' => sub {
	$alice->sql('DELETE FROM item WHERE id BETWEEN 11 AND 20');
	converge(\@all, ['item'], 'ten objects deleted');
	$_->wait_until('SELECT count(*) FROM entanglement.tombstone',
		'0', 'all tombstones collected')
	  foreach @all;
};

subtest 'also when routes were looked at before that was told' => sub {
	my $conf = sub {
		$cluster->append_conf('postgresql.conf', "entanglement.prune_interval = $_[0]");
		$cluster->reload;
		$cluster->poll_query_until('postgres',
			"SELECT setting = '$_[1]' FROM pg_settings WHERE name = 'entanglement.prune_interval'")
		  or die "no prune_interval of $_[0]";
	};

	$conf->('1h', 3600000);
	$hub->define('CREATE TABLE extra (id int PRIMARY KEY)', 'extra');
	$bob->wait_until("SELECT waiting_for FROM entanglement.peers WHERE name = 'hub'",
		'public.extra', 'a table that bob lacks');
	$alice->sql('DELETE FROM item WHERE id BETWEEN 21 AND 30');
	$alice->drain;
	# this has bob look at everything that hub offers
	$bob->define('CREATE TABLE extra (id int PRIMARY KEY)', 'extra');
	$bob->wait_until("SELECT waiting_for FROM entanglement.peers WHERE name = 'hub'",
		'', 'the table is there');
	isnt($hub->sql('SELECT count(*) FROM entanglement.tombstone'),
		0, 'hub remembers what it does not know bob to have heard');
	$conf->('500ms', 500);
	$_->wait_until('SELECT count(*) FROM entanglement.tombstone',
		'0', 'all tombstones collected')
	  foreach @all;
};

subtest 'nothing is owed to the peer it comes from' => sub {
	# as when it came late by another way, before the straight one was there
	$alice->sql("SELECT entanglement.pause_peer('hub')");
	$alice->wait_state('hub', 'paused');
	is($alice->sql(<<'SQL'), 1, 'a debt');
INSERT INTO entanglement.owed (peer, rel, owner, key, serial)
SELECT p.no, o.rel, o.owner, o.key, o.serial FROM entanglement.object o
  JOIN entanglement.owner w ON w.no = o.owner AND w.name = 'bob'
  JOIN entanglement.peer p ON p.no = w.peer LIMIT 1 RETURNING 1
SQL
	$alice->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'bob' AND usename = 'alice'");
	$alice->wait_until('SELECT count(*) FROM entanglement.owed', '0', 'no debt');
	$alice->sql("SELECT entanglement.resume_peer('hub')");
	$alice->wait_connected('hub');
};

subtest 'what a route still owes is asked of the next one' => sub {
	my $route = "SELECT peer FROM entanglement.owners WHERE name = 'alice'";

	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$bob->wait_until($route, 'hub', 'bob takes alice by hub');
	$hub->sql("ALTER TABLE item ADD CONSTRAINT taste CHECK (v <> 'bitter')");
	$alice->sql("INSERT INTO item VALUES (500, 'bitter'), (501, 'sweet')");
	$bob->wait_until('SELECT v FROM item WHERE id = 501', 'sweet', 'what hub can store');
	$bob->wait_until(
		"SELECT have FROM entanglement.owners WHERE name = 'alice'",
		$alice->sql("SELECT serial FROM entanglement.owners WHERE name = 'alice'"),
		'bob has all that hub says');
	is($hub->sql('SELECT count(*) FROM entanglement.parked_rows'), 1, 'but hub could not store one');
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	$bob->wait_until($route, 'alice', 'bob takes alice from herself');
	$bob->wait_until('SELECT v FROM item WHERE id = 500', 'bitter', 'and gets what hub had owed');
	$hub->sql('ALTER TABLE item DROP CONSTRAINT taste');
	$alice->sql("UPDATE item SET v = 'sour' WHERE id = 500");
	converge(\@all, ['item'], 'all agree');
	$bob->wait_until(
		'SELECT count(*) FROM entanglement.owner WHERE NOT local AND sure <> serial',
		'0', 'no gaps are left at bob');
};

subtest 'a node in the middle stops while changes go on' => sub {
	foreach my $round (1 .. 3)
	{
		foreach my $pair ([ $alice, 'hub' ], [ $bob, 'hub' ], [ $alice, 'bob' ])
		{
			my ($node, $peer) = @$pair;

			$node->sql("SELECT entanglement.pause_peer('$peer')");
			$alice->sql("UPDATE item SET v = 'round $round' WHERE entanglement.owner_of(item) = 'alice' AND id % 7 = $round");
			$bob->sql("UPDATE item SET v = 'round $round' WHERE id > 100 AND entanglement.owner_of(item) = 'bob' AND id % 5 = $round");
			$hub->sql("INSERT INTO item VALUES (1000 + (SELECT count(*) FROM item), 'hub')");
			$node->sql("SELECT entanglement.resume_peer('$peer')");
		}
	}
	converge(\@all, ['item'], 'nine pauses in turn');
	is($hub->versions('item'), $alice->versions('item'), 'versions agree');
	is($bob->versions('item'), $alice->versions('item'), 'everywhere');
};

subtest 'two nodes that dial each other' => sub {
	my ($x, $y) =
	  map { Entanglement::Node->database($cluster, $_) } qw(xen yan);

	$x->allow_peer('yan', 1);
	$y->allow_peer('xen', 1);
	my $to_y = conninfo($x, $y) =~ s/'/''/gr;
	my $to_x = conninfo($y, $x) =~ s/'/''/gr;
	$x->sql("SELECT entanglement.add_peer('yan', '$to_y', 'yan')");
	$y->sql("SELECT entanglement.add_peer('xen', '$to_x', 'xen')");
	$_->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item')
	  foreach $x, $y;
	$x->wait_connected('yan');
	$y->wait_connected('xen');
	$x->sql("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 50) i");
	$y->sql("INSERT INTO item SELECT i, 'y' FROM generate_series(51, 100) i");
	converge([ $x, $y ], ['item'], 'exchange rows');
	$x->sql("SELECT entanglement.pause_peer('yan')");
	$y->wait_until("SELECT state <> 'connected' FROM entanglement.peers",
		't', 'pause');
	$y->sql("UPDATE item SET v = 'yy' WHERE id = 51");
	$x->sql("SELECT entanglement.resume_peer('yan')");
	converge([ $x, $y ], ['item'], 'also after a pause');
	is( $x->sql('SELECT sum(objects_received) FROM entanglement.peers')
		  + $y->sql('SELECT sum(objects_received) FROM entanglement.peers'),
		101,
		'each object once');
};

done_testing();
