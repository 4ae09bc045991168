# A withdrawal that comes to a middle node just as the cut is made that the next link
# waits for: alice - bob - carol, tables with integrity.
#
# Promise: what is owed to a peer counts as told only by a cut that shows it, although
# a withdrawn object has the version that it had. Who waits for a peer (drain) waits until
# it is committed that nothing is owed. Nothing stays owed to a peer that is dropped.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('owed', conf => <<'CONF');
wal_level = replica
max_wal_senders = 1
synchronous_commit = local
synchronous_standby_names = 'nobody'
CONF
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

# ---- drain ----

# A commit that has something to NOTIFY waits for whoever does the same, and that is who
# waits for a standby that there is none of.
$bob->sql(<<'SQL');
CREATE FUNCTION settle() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN PERFORM pg_catalog.pg_notify('settled', ''); RETURN OLD; END$$;
CREATE TRIGGER settle BEFORE DELETE ON entanglement.owed FOR EACH ROW EXECUTE FUNCTION settle();
SQL
my $turn = q(FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass
	AND objid = 0 AND mode = 'AccessExclusiveLock');

# From now on, or when those before have committed, nothing that is owed can be settled.
sub hold
{
	my ($what) = @_;
	my $session = $bob->session;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->{stdin} .= "SET synchronous_commit = on;\nBEGIN;\nSELECT pg_logical_emit_message(true, '', '');\nNOTIFY settled;\nCOMMIT;\n";
	$session->{run}->pump_nb;
	$bob->wait_until("SELECT count(*) $turn AND pid = $pid", 1, $what);
	return ($session, $pid);
}

# What bob has to tell $to of one of $from's rows, late: it was changed behind our back.
sub owe
{
	my ($id, $from, $to) = @_;
	my $name = $to->name;

	$bob->sql("SET session_replication_role = replica; UPDATE unit SET n = -1 WHERE id = $id");
	$bob->sql("SELECT entanglement.resync('@{[ $from->name ]}')");
	$bob->wait_until("SELECT n FROM unit WHERE id = $id", 0, "$id is healed, which is owed to $name");
	return;
}

# Once with a link that was dialed from the other end, once with one that bob dials.
foreach my $way ([ $alice, $carol, 20 ], [ $carol, $alice, 30 ])
{
	my ($from, $to, $id) = @$way;
	my $name = $to->name;
	my $waiter = $bob->session;
	my ($first, $second, $pid, $next);

	$from->sql("INSERT INTO unit VALUES ($_, 'all')") foreach $id, $id + 1;
	$_->wait_until("SELECT count(*) FROM unit WHERE id IN ($id, $id + 1)", 2, 'two more') foreach $bob, $to;
	($first, $pid) = hold('settling is held');
	owe($id, $from, $to);
	$bob->wait_until("SELECT count(*) $turn AND NOT granted", 1, "$name has answered, which is about to be committed");
	# the link sends nothing until it is let go
	owe($id + 1, $from, $to);
	$waiter->{stdin} .= "SELECT entanglement.drain('$name');\nSELECT count(*) FROM entanglement.owed;\n\\echo done\n";
	$waiter->{run}->pump_nb;
	# asked later than the one above
	is($bob->sql("SELECT entanglement.drain('$name', '1s')"), 'f', 'drain waits for it');
	($second, $next) = hold('settling is held the next time');
	$bob->sql("SELECT pg_cancel_backend($pid)");
	$bob->wait_until("SELECT count(*) $turn AND granted AND pid = $next", 1, 'the first is settled');
	$bob->wait_until("SELECT count(*) $turn AND NOT granted", 1, "$name has answered once more");
	is($bob->sql("SELECT entanglement.drain('$name', '1s')"), 'f', 'drain waits for that, too');
	$bob->sql("SELECT pg_cancel_backend($next)");
	pump_until($waiter->{run}, $waiter->{timeout}, \$waiter->{stdout}, qr/done/) or BAIL_OUT('drain does not return');
	is($waiter->{stdout}, "t\n0\ndone\n", "nothing is owed to $name when drain returns");
	$_->quit foreach $waiter, $first, $second;
}
$bob->sql('DROP TRIGGER settle ON entanglement.owed');

# ---- dropped ----

# what is stored for carol by a transaction that does not know yet that she is no peer
$alice->sql("INSERT INTO unit VALUES (10, 'all'), (11, 'all')");
$_->wait_until('SELECT count(*) FROM unit WHERE id IN (10, 11)', 2, 'two more') foreach $bob, $carol;
$bob->sql('SET session_replication_role = replica; UPDATE unit SET n = -1 WHERE id IN (10, 11)');
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
