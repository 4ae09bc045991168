# A streaming standby of a node that takes its place, or a backup recovered to a point
# in time; bob is its peer, carol is behind bob.
#
# Promise: what it has is neither lost nor copied as a whole, also if nobody had read
# it; what it has not is undone everywhere, however much it has written when peers hear
# of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Agreement;
use Entanglement::Node;
use Entanglement::PKI;

my $pki = Entanglement::PKI->new;
my $alice = Entanglement::Node->create('alice', pki => $pki,
	hba => "local replication all trust\nhostssl all all 127.0.0.1/32 cert",
	conf => <<'CONF');
wal_level = logical
max_wal_senders = 4
max_replication_slots = 8
output_plugin_libraries = 'entanglement'
CONF
my $bob = Entanglement::Node->create('bob', pki => $pki);
my $carol = Entanglement::Node->create('carol', pki => $pki);
my @tables = qw(told logged);
my $behind = q(SELECT count(*) > 0 FROM entanglement.change);

link_nodes($alice, $bob);
link_nodes($carol, $bob);
foreach my $node ($alice, $bob, $carol)
{
	$node->define("CREATE TABLE $_ (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0)", $_) foreach @tables;
	$node->sql('CREATE TABLE event (id int PRIMARY KEY, n int)');
	$node->sql(q(SELECT entanglement.synchronize('event', every_state => true)));
}
$carol->audit('event');
$alice->sql('INSERT INTO event VALUES (1, 0)');
$alice->sql(q(SELECT entanglement.set_capture('logged', 'wal')));
$alice->wait_until(q(SELECT wal FROM entanglement.relation WHERE relid = 'logged'::regclass), 't', 'captured from the log');

# To both tables: ? is the table.
sub both
{
	my ($node, $sql) = @_;

	return $node->sql_each($sql, @tables);
}

sub agree
{
	my ($what) = @_;
	my @all = ($alice, $bob, $carol);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$alice->drain('bob');
	$bob->drain('alice');
	$bob->drain('carol');
	converge(\@all, \@tables, $what);
	my $rest = eval {
		Entanglement::Node::wait_for('objects that agree', sub { return differences(\@all, @tables) eq ''; });
		'';
	} // differences(\@all, @tables);
	is($rest, '', "$what: objects, too, and nothing is left");
	return;
}

# A standby that streams and has replayed what there is.
sub standby
{
	my ($name) = @_;
	my $primary = $alice->cluster_of;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$primary->backup($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->start;
	$primary->wait_for_catchup($standby, 'replay');
	return $standby;
}

# A server that is what there is now, and can be recovered to that.
sub recoverable
{
	my ($name) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);

	$alice->cluster_of->backup($name);
	$server->init_from_backup($alice->cluster_of, $name);
	$server->append_conf('postgresql.conf', "restore_command = 'false'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'");
	$server->set_recovery_mode;
	return $server;
}

# Alice is what that server is.
sub promote
{
	my ($server, $recovered) = @_;

	if ($recovered)
	{
		$server->start;
		$server->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'not recovered';
		$server->adjust_conf('postgresql.conf', $_, undef) foreach qw(restore_command recovery_target recovery_target_action);
	}
	else
	{
		$server->start unless defined $server->{_pid};
		$server->promote;
	}
	$alice = bless { %$alice, cluster => $server }, ref $alice;
	return;
}

# How many objects bob has been sent by alice, carol by bob, since they were started.
sub counters
{
	return map { $_->{objects_received} } $bob->peer('alice'), $carol->peer('bob');
}

# anew: bob was started meanwhile.
sub cheap
{
	my ($what, $anew, @before) = @_;
	my @after = counters();

	$before[0] = 0 if $anew;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $i (0, 1)
	{
		my $received = $after[$i] - $before[$i];

		note "$what: $received objects travelled to " . (qw(bob carol))[$i];
		cmp_ok($received, '<', 150, "$what: what was as it was did not travel to " . (qw(bob carol))[$i]);
	}
	return;
}

# ---- it has everything ----

both($alice, q(INSERT INTO ? SELECT i, repeat('x', 200) FROM generate_series(1, 500) i));
agree('500 rows each');
my $standby = standby('second');
my ($dialer) = $alice->workers('dialer');
my ($collector) = $alice->workers('collector');
my @before = counters();

kill 'STOP', $dialer;
both($alice, q(UPDATE ? SET v = 'read' WHERE id = 1; DELETE FROM ? WHERE id = 2; INSERT INTO ? VALUES (1001, 'read'), (1004, 'x')));
my $folded = q(SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE o.born > 0);
$alice->wait_until($folded, '1003', 'read, and not sent');
kill 'STOP', $collector;
both($alice, q(UPDATE ? SET v = 'unread' WHERE id IN (1, 3); DELETE FROM ? WHERE id IN (4, 5);
	INSERT INTO ? VALUES (5, 'unread'), (1002, 'unread'); UPDATE ? SET id = 1003 WHERE id = 6));
is($alice->sql($behind), 't', 'written, and not read');
$alice->cluster_of->wait_for_catchup($standby, 'replay');
$alice->cluster_of->stop('immediate');
promote($standby);
both($alice, q(UPDATE ? SET n = 1 WHERE id IN (1, 3, 5, 7, 1001, 1003); DELETE FROM ? WHERE id = 8;
	INSERT INTO ? VALUES (2, 'promoted'), (4, 'promoted'), (2001, 'promoted')));
$alice->wait_connected('bob');
agree('a standby that had everything');
is( $bob->sql("SELECT string_agg(concat(id, v, n), ' ' ORDER BY id) FROM $_ WHERE v !~ 'x' OR n > 0 AND id <> 7"),
	'1unread1 2promoted0 3unread1 4promoted0 5unread1 1001read1 1002unread0 1003' . ('x' x 200) . '1 2001promoted0',
	"every change of $_ arrived") foreach @tables;
cheap('a standby that had everything', 0, @before);
is($alice->sql('SELECT last_error FROM entanglement.log_capture'), '', 'nothing is wrong');
both($alice, q(UPDATE ? SET n = 2 WHERE id = 10));
both($bob, q(INSERT INTO ? VALUES (3001, 'bob')));
agree('it goes on');

# Bob is not there meanwhile: he hears of two new epochs at once.
@before = counters();
$bob->cluster_of->stop;
foreach my $name (qw(third fourth))
{
	$standby = standby($name);
	$alice->cluster_of->stop;
	promote($standby);
	both($alice, qq(UPDATE ? SET v = '$name' WHERE id = 11));
	$alice->sql('UPDATE event SET n = n + 1') foreach 1 .. 2;
	$alice->wait_until($behind, 'f', 'read');
}
# what bob has taken over comes in the new epoch, perhaps before carol is offered that
my $alices = q(owner = (SELECT no FROM entanglement.owner WHERE name = 'alice'));
my $epoch = $alice->sql(q(SELECT epoch FROM entanglement.owner WHERE name = 'alice'));
is($carol->sql("UPDATE entanglement.object SET epoch = $epoch WHERE $alices AND serial =
	(SELECT max(serial) FROM entanglement.object WHERE $alices) RETURNING 1"), 1, 'it has come so');
$bob->cluster_of->start;
$_->wait_connected('bob') foreach $alice, $carol;
agree('two promotions');
cheap('two promotions', 1, @before);
is($carol->sql('SELECT v FROM told WHERE id = 11'), 'fourth', 'what was written after both arrived');
is($carol->sql(q(SELECT string_agg(body->>'n', ' ' ORDER BY n) FROM audit_event)), '0 1 2 3 4', 'also each state of what must not be left out');

# ---- it lagged ----

# Options: lost: what alice writes, bob has and the new server will not have; later: what
# is written there before bob hears of it; recovered: by recovery, not promoted; dear:
# everything may be compared.
sub lagging
{
	my ($what, %o) = @_;
	(my $name = $what) =~ s/\W/_/g;
	my $server = ($o{recovered} ? \&recoverable : \&standby)->($name);

	$server->stop unless $o{recovered};
	ref $o{lost} ? $o{lost}->() : both($alice, $o{lost});
	both($bob, "INSERT INTO ? VALUES (4001, '$what') ON CONFLICT (id) DO UPDATE SET v = excluded.v");
	agree("$what: before") unless ref $o{lost};
	my @before = counters();
	$alice->cluster_of->stop('immediate');
	$bob->cluster_of->stop if $o{later};
	promote($server, $o{recovered});
	if ($o{later})
	{
		both($alice, $o{later});
		$alice->wait_until($behind, 'f', 'all is read');
		$bob->cluster_of->start;
	}
	$_->wait_connected('bob') foreach $alice, $carol;
	both($alice, "INSERT INTO ? VALUES (5001, '$what') ON CONFLICT (id) DO UPDATE SET v = excluded.v");
	agree($what);
	cheap($what, $o{later}, @before) unless $o{dear};
	# once more what was born in vain, with a serial that is less
	both($alice, "INSERT INTO ? VALUES (6005, 'again'), (6006, 'again')");
	agree("$what: born again");
	both($alice, 'DELETE FROM ? WHERE id IN (6005, 6006)');
	foreach my $table (@tables)
	{
		is($carol->sql("SELECT count(*) FROM $table WHERE v = 'lost'"), '0', "$what: nothing of $table is there that was lost");
		is($alice->sql("SELECT v FROM $table WHERE id = 4001"), $what, "$what: but what came from bob to $table is");
		is($carol->sql("SELECT v FROM $table WHERE id = 5001"), $what, "$what: as is what was written since");
	}
	return;
}

my $lost = q(UPDATE ? SET v = 'lost' WHERE id BETWEEN 20 AND 24; INSERT INTO ? SELECT i, 'lost' FROM generate_series(6001, 6005) i);
my $more = q(UPDATE ? SET n = n + 1 WHERE id BETWEEN 100 AND 110);

lagging('a standby that lagged', lost => $lost);
lagging('one that has written more than it lost', lost => $lost, later => $more);
lagging('recovered to a point in time', lost => $lost, later => $more, recovered => 1);
# those who were told that it died may have forgotten it
lagging('a lost end', lost => "$lost; DELETE FROM ? WHERE id BETWEEN 25 AND 29", later => $more, dear => 1);

# ---- what is lost had no serial yet ----

# Bob has it all the same: rows are sent as they are, under versions that the standby has.
lagging('a change that was told before it was read',
	lost => sub {
		my ($reader) = $alice->workers('collector');

		kill 'STOP', $reader;
		both($alice, q(UPDATE ? SET v = 'lost' WHERE id = 30));
		$bob->sql(q(SELECT entanglement.resync('alice', 'alice')));
		$carol->wait_until("SELECT v FROM $_ WHERE id = 30", 'lost', "it is in $_") foreach @tables;
	});

# ---- before the collector has looked ----

# Nothing is exchanged until it has started the epochs.
my $epoch = q(SELECT epoch FROM entanglement.owners WHERE name = 'bob');
my $was = $bob->sql($epoch);

my ($reader) = $bob->workers('collector');

kill 'STOP', $reader;
$bob->sql('UPDATE entanglement.identity SET timeline = timeline + 1');
$bob->sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'));
$alice->wait_until(q(SELECT last_error LIKE '%node "bob" has been promoted just now%' FROM entanglement.peers WHERE name = 'bob'),
	't', 'links are refused');
is($bob->sql($epoch), $was, 'as long as there is no new epoch');
kill 'CONT', $reader;
$_->wait_connected('bob') foreach $alice, $carol;
cmp_ok($bob->sql($epoch), '>', $was, 'which its collector starts');
both($bob, q(UPDATE ? SET v = 'looked' WHERE id = 4001));
agree('after that');

done_testing();
