# A hand-over that could not be stored when it came, asked for when the giver's end of it
# is forgotten: alice - hub - bob, and carol, to whom rows go, at hub.
#
# Promise: who could not store it gets to know that somebody else has the object by
# now, keeps the row meanwhile, and in the end nothing is parked. What the heir is not shown
# does not die of that.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('handed', conf => <<'CONF');
entanglement.prune_interval = '100ms'
entanglement.retry_parked = '1h'
CONF
my ($alice, $hub, $bob, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob carol);
my @all = ($alice, $hub, $bob, $carol);

link_nodes($_, $hub) foreach $alice, $bob, $carol;
foreach my $node (@all)
{
	$node->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item');
	$node->wait_until('SELECT count(*) FROM entanglement.owners', 4, 'owners known at ' . $node->name);
}
$alice->sql("INSERT INTO item SELECT i, 'of alice' FROM generate_series(1, 8) i");
converge(\@all, ['item'], 'in step');
$bob->audit('item');

my $parked = "SELECT string_agg(DISTINCT o.name, ',' ORDER BY o.name) FROM entanglement.parked p JOIN entanglement.owner o ON o.no = p.owner";

# How long what is parked waits until it is asked for again.
sub retry_after
{
	my ($time) = @_;

	$cluster->safe_psql('postgres', "ALTER SYSTEM SET entanglement.retry_parked = '$time'");
	$cluster->reload;
	return;
}

# Gives carol these rows; bob hears of it while he can store nothing of them.
sub hand_over_unstored
{
	my ($ids) = @_;

	retry_after('1h');
	$hub->sql("SELECT entanglement.pause_peer('carol')");
	$bob->sql('ALTER TABLE item ENABLE ROW LEVEL SECURITY');
	$alice->sql("SELECT entanglement.transfer(i, 'carol') FROM item i WHERE id IN ($ids)");
	$bob->wait_until($parked, 'alice', "$ids: bob cannot store the hand-over");
	$hub->sql("SELECT entanglement.resume_peer('carol')");
	$carol->wait_until("SELECT count(*) FROM item i WHERE id IN ($ids) AND entanglement.owner_of(i) = 'carol'",
		2, "$ids: carol has them");
	$carol->sql("UPDATE item SET v = 'of carol' WHERE id IN ($ids)");
	$bob->wait_until($parked, 'alice,carol', "$ids: nor what carol made of it");
	$hub->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, "$ids: hub has forgotten the hand-over");
	return;
}

sub all_well
{
	my ($name) = @_;

	$bob->sql('ALTER TABLE item DISABLE ROW LEVEL SECURITY');
	retry_after('200ms');
	$bob->wait_until('SELECT count(*) FROM entanglement.parked', 0, "$name: nothing is parked any more");
	converge(\@all, ['item'], "$name: all agree");
	$_->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0', 0, "$name: confirmed at " . $_->name)
	  foreach @all;
	return;
}

subtest 'rights that come back' => sub {
	hand_over_unstored('1, 2');
	all_well('rights');
	is($bob->sql("SELECT count(*) FROM audit_item WHERE op = 'DELETE'"), 0, 'no row went for a moment');
};

subtest 'what has died since' => sub {
	hand_over_unstored('3, 4');
	$carol->sql('DELETE FROM item WHERE id = 3');
	$hub->wait_until('SELECT count(*) FROM item WHERE id = 3', 0, 'hub knows');
	all_well('dead');
	is($bob->sql('SELECT count(*) FROM item WHERE id = 3'), 0, 'it has gone');
};

# What is shown in part at one link or the other: every row, as it happens.
foreach ([ $hub, '5, 6' ], [ $alice, '7, 8' ])
{
	my ($node, $ids) = @$_;
	my $name = $node->name;

	subtest "shown in part by $name" => sub {
		$node->sql(<<'SQL');
CREATE POLICY all_rows ON item USING (true) WITH CHECK (true);
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
SQL
		hand_over_unstored($ids);
		all_well($name);
		is($bob->sql("SELECT string_agg(DISTINCT v, ',') FROM item WHERE id IN ($ids)"), 'of carol', 'they are there');
	};
}

# ---- an heir who is not shown it ----

# A row that hub never takes is asked for again and again, in the answers in which hub
# asks what became of what it holds unconfirmed.
foreach my $node ($hub, $carol)
{
	$node->sql('CREATE TABLE pebble (id int PRIMARY KEY)');
	$node->sql('INSERT INTO pebble VALUES (-1)') if $node == $carol;
	$node->sql('ALTER TABLE pebble ADD CHECK (id > 0) NOT VALID');
	$node->sql("SELECT entanglement.synchronize('pebble')");
}
my $tries = q(SELECT coalesce(max(tries), 0) FROM entanglement.parked WHERE message ~ 'pebble');

subtest 'not wanted by the heir' => sub {
	$alice->sql("INSERT INTO item VALUES (11, 'of alice'), (12, 'of alice')");
	converge(\@all, ['item'], 'there');
	$carol->sql("SELECT entanglement.subscribe('hub', 'item', 'id <> 11')");
	$carol->wait_until('SELECT count(*) FROM item WHERE id = 11', 0, 'withdrawn from carol');
	$alice->sql("SELECT entanglement.transfer(i, 'carol') FROM item i WHERE id IN (11, 12)");
	$_->wait_until("SELECT string_agg(DISTINCT entanglement.owner_of(i), ',') FROM item i WHERE id IN (11, 12)",
		'carol', 'handed over: ' . $_->name)
	  foreach $alice, $hub, $bob;
	my $asked = $hub->sql($tries);

	$hub->wait_until("SELECT ($tries) >= $asked + 5", 't', 'hub has asked carol for what it lacks');
	is($_->sql('SELECT count(*) FROM item WHERE id = 11'), 1, 'the row is there at ' . $_->name)
	  foreach $alice, $hub, $bob;
	$carol->sql("SELECT entanglement.subscribe('hub', 'item', 'true')");
	all_well('wanted');
	is($carol->sql('SELECT entanglement.owner_of(i) FROM item i WHERE id = 11'), 'carol', 'it comes to her');
};

done_testing();
