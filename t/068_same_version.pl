# A comparison that brings what has not been folded yet: alice - hub - bob.
#
# Promise: a row that came again under the version that it had, with what its owner
# changed since and has not folded, is passed on as a whole, never only the
# columns that this version had changed. What is here of it does not go back to the
# version as another node has it, which heard of no more, also when it was withdrawn meanwhile; damaged, it
# is mended with the next one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Test::More;

use Entanglement::Node;

# what was withdrawn is remembered as long as the tombstone is there
my $cluster = Entanglement::Node->cluster('version', conf => "entanglement.prune_interval = '1h'\n");
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);

link_nodes($alice, $hub);
link_nodes($bob, $hub);
$_->define('CREATE TABLE item (id int PRIMARY KEY, a text, b text)', 'item') foreach @all;
$alice->sql("INSERT INTO item VALUES (1, 'old', 'old'), (2, 'old', 'old')");
converge(\@all, ['item'], 'in step');
$bob->audit('item');

my ($collector) = $alice->sql(q(SELECT pid FROM pg_stat_activity
	WHERE datname = current_database() AND backend_type LIKE 'entanglement collector%'));

foreach my $forget (0, 1)
{
	my $id = 1 + $forget;

	$bob->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'bob'",
		't', "$id: bob is away");
	$alice->sql("UPDATE item SET a = 'first' WHERE id = $id");
	$alice->drain('hub');
	kill 'STOP', $collector or BAIL_OUT('the collector has gone');
	$alice->sql("UPDATE item SET a = 'second', b = 'second' WHERE id = $id");
	my $version = $hub->versions('item');

	$hub->sql("SELECT entanglement.resync('alice')");
	$hub->wait_until("SELECT a, b FROM item WHERE id = $id", 'second|second', "$id: compared");
	is($hub->versions('item'), $version, "$id: it is the version that it was");
	if ($forget)
	{
		# what he is owed is forgotten as well: he gets what his have does not cover
		$hub->sql("SELECT entanglement.drop_peer('bob'); SELECT entanglement.add_peer('bob', NULL, 'bob')");
	}
	$bob->sql("SELECT entanglement.resume_peer('hub')");
	$bob->wait_until("SELECT a FROM item WHERE id = $id", 'second', "$id: it comes to bob");
	is($bob->sql("SELECT body->>'a', body->>'b' FROM audit_item WHERE body->>'a' <> body->>'b'"),
		'', "$id: as one that alice committed");
	kill 'CONT', $collector;
	converge(\@all, ['item'], "$id: all agree");
}

# ---- compared with who has not heard of it ----

# alice - hub - carol and alice - west - carol
my ($west, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(west carol);
my @more = (@all, $west, $carol);
my $route = q(SELECT peer FROM entanglement.owners WHERE name = 'alice');

link_nodes($alice, $west);
$_->define('CREATE TABLE item (id int PRIMARY KEY, a text, b text)', 'item') foreach $west, $carol;
link_nodes($carol, $hub);
converge(\@more, ['item'], 'carol has all from hub');
is($carol->sql($route), 'hub', 'carol takes alice by hub');
link_nodes($carol, $west);
$carol->sql("SELECT entanglement.pause_peer('west')");
$alice->sql("UPDATE item SET a = 'first', b = 'first'");
converge(\@more, ['item'], 'a version');
$alice->drain;
$carol->audit('item');
kill 'STOP', $collector or BAIL_OUT('the collector has gone');
$alice->sql("UPDATE item SET a = 'second'");
$hub->sql("SELECT entanglement.resync('alice')");
$carol->wait_until("SELECT count(*) FROM item WHERE a = 'second'", 2, 'more than that comes by hub');
# west offers what it has when the link begins
$carol->sql("SELECT entanglement.resume_peer('west')");
$carol->wait_connected('west');
$carol->sql("SELECT entanglement.pause_peer('hub')");
$carol->wait_until($route, 'west', 'carol takes alice by west');
is($west->versions('item'), $carol->versions('item'), 'where there is the same version');
is($west->sql('SELECT DISTINCT a FROM item'), 'first', '... as it was at first');
$carol->sql("SET session_replication_role = replica; UPDATE item SET b = 'damaged' WHERE id = 2");
$carol->sql("SELECT entanglement.resync('west')");
$carol->wait_until('SELECT count(*) FROM entanglement.arrears', 0, 'compared with west');
is($carol->sql('SELECT string_agg(a, \',\') FROM item'), 'second,second', 'what carol has does not go back');
$alice->sql("UPDATE item SET a = 'third'");
$hub->sql("SELECT entanglement.resync('alice')");
$hub->wait_until("SELECT count(*) FROM item WHERE a = 'third'", 2, 'from home the newest comes, whatever is there');
kill 'CONT', $collector;
converge(\@more, ['item'], 'what was damaged is mended in the end');
is($carol->sql("SELECT count(*) FROM audit_item WHERE body->>'a' = 'first'"), 0, 'it never went back');
$carol->wait_until('SELECT count(*) FROM entanglement.parked', 0, 'nothing is missed any more');

# ---- withdrawn on one way, shown on the other ----

$carol->sql("SELECT entanglement.resume_peer('hub'); SELECT entanglement.pause_peer('west')");
$carol->wait_until($route, 'hub', 'carol takes alice by hub again');
$hub->sql('CREATE POLICY seen ON item USING (true); ALTER TABLE item ENABLE ROW LEVEL SECURITY');
$alice->sql("UPDATE item SET a = 'fourth'");
converge(\@more, ['item'], 'another version');
$alice->drain;
kill 'STOP', $collector or BAIL_OUT('the collector has gone');
$alice->sql("UPDATE item SET a = 'fifth'");
$hub->sql("SELECT entanglement.resync('alice')");
$carol->wait_until("SELECT count(*) FROM item WHERE a = 'fifth'", 2, 'more than that comes by hub');
$hub->sql('ALTER POLICY seen ON item USING (false)');
$carol->wait_until('SELECT count(*) FROM item', 0, 'withdrawn');
$hub->sql('ALTER POLICY seen ON item USING (id <> 1)');
$carol->wait_until('SELECT id, a FROM item', '2|fifth', 'by who has it like this one comes back');
$carol->sql("SELECT entanglement.resume_peer('west')");
$carol->wait_connected('west');
$carol->sql("SELECT entanglement.pause_peer('hub')");
$carol->wait_until($route, 'west', 'carol takes alice by west');
$carol->wait_until('SELECT count(*) FROM entanglement.arrears', 0, 'compared with west');
is($west->sql('SELECT DISTINCT a FROM item'), 'fourth', 'who has it as it was at first');
is($carol->sql("SELECT string_agg(DISTINCT a, ',') FROM item"), 'fifth', 'it does not come back as it was');
kill 'CONT', $collector;
converge([$alice, $west, $carol], ['item'], 'all is there in the end');
is($carol->sql("SELECT body->>'id', body->>'a' FROM audit_item WHERE n > (SELECT min(n) FROM audit_item WHERE body->>'a' = 'fifth') AND body->>'a' = 'fourth'"),
	'', 'nothing went back');
$carol->wait_until('SELECT count(*) FROM entanglement.parked', 0, 'nothing is missed');

done_testing();
