# A withdrawal that comes to a middle node just as the cut is made that the next link
# waits for: alice - bob - carol, tables with integrity.
#
# Promise: what is owed to a peer counts as told only by a cut that shows it, although
# a withdrawn object has the version that it had. Nothing stays owed to a peer that is
# dropped.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('owed');
my ($alice, $bob, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob carol);

foreach my $node ($alice, $bob, $carol)
{
	$node->sql(<<'SQL');
CREATE TABLE unit (id int PRIMARY KEY, team text NOT NULL, n int NOT NULL DEFAULT 0);
CREATE TABLE note (id int PRIMARY KEY, unit int REFERENCES unit);
SELECT entanglement.synchronize('note', integrity => true);
SQL
}
$alice->sql(<<'SQL');
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON unit USING (team = 'all');
INSERT INTO unit SELECT i, 'all' FROM generate_series(0, 5) i;
SQL
link_nodes($bob, $alice);
link_nodes($carol, $bob);
converge([ $alice, $bob, $carol ], ['unit'], 'in step');

my ($collector) = $bob->sql(q(SELECT pid FROM pg_stat_activity
	WHERE datname = current_database() AND backend_type LIKE 'entanglement collector%'));
my $holder = $bob->session;

foreach my $id (1 .. 5)
{
	# carol's link asks for a cut, and waits for it
	$holder->query_safe(q(BEGIN; SELECT FROM entanglement.owner WHERE local FOR UPDATE));
	kill 'STOP', $collector or BAIL_OUT("the collector has gone");
	$alice->sql("UPDATE unit SET n = $id WHERE id = 0");
	$bob->wait_until('SELECT n FROM unit WHERE id = 0', $id, "$id: something for carol");
	# the fold takes its snapshot, and waits for who holds the owner
	$bob->sql("INSERT INTO note VALUES ($id)");
	kill 'CONT', $collector;
	$bob->wait_until("SELECT count(*) FROM pg_stat_activity WHERE pid = $collector AND wait_event_type = 'Lock'", 1,
		"$id: a fold under way");
	$alice->sql("UPDATE unit SET team = 'none' WHERE id = $id");
	$bob->wait_until("SELECT count(*) FROM unit WHERE id = $id", 0, "$id: taken from bob meanwhile");
	$holder->query_safe('COMMIT');
	$carol->wait_until('SELECT max(id) FROM note', $id, "$id: the fold has reached carol");
	$carol->wait_until("SELECT count(*) FROM unit WHERE id = $id", 0, "$id: and from carol");
}
$bob->wait_until('SELECT count(*) FROM entanglement.owed', 0, 'nothing is owed in the end');

# what is stored for carol by a transaction that does not know yet that she is no peer
$alice->sql("INSERT INTO unit VALUES (10, 'all'), (11, 'all')");
$_->wait_until('SELECT count(*) FROM unit WHERE id >= 10', 2, 'two more') foreach $bob, $carol;
$bob->sql('SET session_replication_role = replica; UPDATE unit SET n = -1 WHERE id >= 10');
$holder->query_safe('BEGIN; SELECT FROM unit WHERE id = 11 FOR UPDATE');
$bob->sql("SELECT entanglement.resync('alice')");
$bob->wait_until(q(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
	AND backend_type LIKE 'entanglement dialer%' AND wait_event_type = 'Lock'), 1,
	'they are healed, which is owed to carol');
$bob->sql("SELECT entanglement.drop_peer('carol')");
$holder->query_safe('COMMIT');
$bob->wait_until('SELECT count(*) FROM unit WHERE n = -1', 0, 'carol was dropped before that was done');
$bob->wait_until('SELECT count(*) FROM entanglement.owed', 0, 'nothing is owed to who is no peer');
$holder->quit;

done_testing();
