# A streaming standby of a node that takes its place.
#
# Promise: what the standby has replayed is neither lost nor copied as a whole, also
# if nobody had read it; what it had not is undone at a peer that has more than the
# promoted server has given out when they meet.

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
my @tables = qw(told logged);
my $behind = q(SELECT count(*) > 0 FROM entanglement.change);

link_nodes($alice, $bob);
foreach my $node ($alice, $bob)
{
	$node->define("CREATE TABLE $_ (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0)", $_) foreach @tables;
}
$alice->sql(q(SELECT entanglement.set_capture('logged', 'wal')));
$alice->wait_until(q(SELECT wal FROM entanglement.relation WHERE relid = 'logged'::regclass), 't', 'captured from the log');

# To both tables: ? is the table.
sub both
{
	my ($node, $sql) = @_;

	$node->sql(join ';', map { $sql =~ s/\?/$_/gr } @tables);
	return;
}

sub agree
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$alice->drain('bob');
	$bob->drain('alice');
	converge([ $alice, $bob ], \@tables, $what);
	my $rest = eval {
		Entanglement::Node::wait_for('objects that agree', sub { return differences([ $alice, $bob ], @tables) eq ''; });
		'';
	} // differences([ $alice, $bob ], @tables);
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

# Alice is what that server is.
sub promote
{
	my ($standby) = @_;

	$standby->promote;
	$alice = bless { %$alice, cluster => $standby }, ref $alice;
	return;
}

sub received_since
{
	my ($before) = @_;

	return Entanglement::Node::counted($before, $bob->peer('alice'))->{objects_received};
}

# ---- it has everything ----

both($alice, q(INSERT INTO ? SELECT i, repeat('x', 200) FROM generate_series(1, 500) i));
agree('500 rows each');
my $standby = standby('second');
my ($dialer) = $alice->workers('dialer');
my ($collector) = $alice->workers('collector');
my $before = $bob->peer('alice');

kill 'STOP', $dialer;
both($alice, q(UPDATE ? SET v = 'read' WHERE id = 1; DELETE FROM ? WHERE id = 2; INSERT INTO ? VALUES (1001, 'read'), (1004, 'x')));
my $folded = q(SELECT count(*) FROM entanglement.object o JOIN entanglement.relation r ON r.no = o.rel WHERE o.born > 0);
$alice->wait_until($folded, '1002', 'read, and not sent');
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
cmp_ok(received_since($before), '<', 60, 'what was as it was did not travel');
is($alice->sql('SELECT last_error FROM entanglement.log_capture'), '', 'nothing is wrong');
both($alice, q(UPDATE ? SET n = 2 WHERE id = 10));
both($bob, q(INSERT INTO ? VALUES (3001, 'bob')));
agree('it goes on');

# ---- it lagged ----

# What alice wrote, bob has and the standby has not is undone: bob has more than the
# promoted server has given out when they meet.
$standby = standby('third');
$standby->stop;
both($alice, q(UPDATE ? SET v = 'lost' WHERE id BETWEEN 20 AND 24; DELETE FROM ? WHERE id = 25;
	INSERT INTO ? SELECT i, 'lost' FROM generate_series(6001, 6005) i));
both($bob, q(INSERT INTO ? VALUES (4001, 'from bob')));
agree('what the standby will not have');
$alice->cluster_of->stop('immediate');
$standby->start;
promote($standby);
$alice->wait_connected('bob');
both($alice, q(UPDATE ? SET n = 3 WHERE id BETWEEN 23 AND 30; INSERT INTO ? VALUES (5001, 'promoted')));
agree('a standby that lagged');
foreach my $table (@tables)
{
	is($bob->sql("SELECT count(*) FROM $table WHERE v = 'lost'"), '0', "nothing in $table is there that was lost");
	is($bob->sql("SELECT count(*) FROM $table WHERE n = 3"), '8', 'what was written since is');
	is($alice->sql("SELECT v FROM $table WHERE id = 4001"), 'from bob', 'and what bob had written');
}

done_testing();
