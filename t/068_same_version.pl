# A comparison that brings what has not been folded yet: alice - hub - bob.
#
# Promise: a row that came again under the version that it had, with what its owner
# changed since and has not folded, is passed on as a whole, never only the
# columns that this version had changed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('version');
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

done_testing();
