# A server is stopped between a commit and its reaching the disk.
#
# Promise: what a crash takes away is known to nobody else: no peer has been sent it,
# and no peer has been told that it is here; or it is done again, in a way that goes for
# those who have heard of it; so all ends alike.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;

my $rounds = 3;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $shim = "$dir/slow_wal.so";
my %flag = map { $_ => "$dir/slow_$_" } qw(home away);

system_or_bail($ENV{CC} // 'cc', '-shared', '-fPIC', '-O1', '-o', $shim, "$FindBin::RealBin/lib/slow_wal.c", '-ldl');

my $pki = Entanglement::PKI->new;
my ($home, $away) = map {
	local $ENV{LD_PRELOAD} = $shim;
	local $ENV{SLOW_WAL} = $flag{$_};
	Entanglement::Node->create($_, pki => $pki,
		conf => "wal_writer_delay = '10s'\nautovacuum = off\ncheckpoint_timeout = '1h'\n")
} qw(home away);

$_->define('CREATE TABLE place (id int PRIMARY KEY, v int NOT NULL)', 'place') foreach $home, $away;
link_nodes($away, $home);
$home->sql('INSERT INTO place SELECT i, 0 FROM generate_series(1, 10) i');
converge([ $home, $away ], ['place'], 'in step');

# From now on what this node writes to the log does not get there for a while.
sub slow
{
	my ($node) = @_;

	append_to_file($flag{ $node->name }, 'x');
	return;
}

# Stops the server as a crash would; starts it again.
sub crash
{
	my ($node) = @_;

	$node->cluster_of->stop('immediate');
	unlink $flag{ $node->name };
	return;
}

sub recover
{
	my ($node) = @_;

	local $ENV{LD_PRELOAD} = $shim;
	local $ENV{SLOW_WAL} = $flag{ $node->name };
	return $node->cluster_of->start;
}

sub value
{
	my ($node, $id) = @_;

	return $node->sql("SELECT v FROM place WHERE id = $id");
}

my $serial = "SELECT max(o.serial) FROM entanglement.object o JOIN entanglement.owner w ON w.no = o.owner WHERE w.local";

subtest 'a fold that was not on disk had been told to nobody' => sub {
	foreach my $round (1 .. $rounds)
	{
		my $was = value($home, 1);
		my $before;

		$home->drain('away');
		$before = $home->sql($serial);
		slow($home);
		$home->sql('SET synchronous_commit = off; UPDATE place SET v = v + 1 WHERE id = 1');
		$home->wait_until("SELECT ($serial) > $before", 't', 'it is folded, and to be seen here');
		crash($home);
		recover($home);
		is(value($home, 1), $was, 'the crash has taken it away');
		is($home->sql($serial), $before, '... with its serial');
		is(value($away, 1), $was, 'nobody had been sent it');
		# another state
		$home->sql('UPDATE place SET v = v + 10 WHERE id = 1');
		converge([ $home, $away ], ['place'], "in the end, $round");
	}
};

# The writer's commit is on disk, the fold of it is not.
sub told_early
{
	my ($statement, $there, $expected) = @_;
	my $holder = $home->session;
	my $before = $home->sql($serial);
	my $mark;

	$holder->query_safe('BEGIN; LOCK TABLE entanglement.owner IN SHARE MODE');
	$home->sql($statement);
	slow($home);
	$holder->query_safe('ROLLBACK');
	$away->wait_until($there, $expected, 'it is there, though not on disk here');
	crash($home);
	$holder->{run}->finish;
	$mark = $home->log_mark;
	recover($home);
	return ($before, $mark);
}

subtest 'a fold that would be done again is not waited for' => sub {
	foreach my $round (1 .. $rounds)
	{
		my ($before, $mark);

		$home->drain('away');
		($before, $mark) = told_early("UPDATE place SET v = v + 100 WHERE id = 3",
			'SELECT v FROM place WHERE id = 3', 100 * $round);
		is(value($home, 3), 100 * $round, 'the change itself was on disk');
		$home->sql("UPDATE place SET v = $round WHERE id = 4");
		converge([ $home, $away ], ['place'], "in the end, $round");
		cmp_ok($home->sql($serial), '>', $before + 256, 'no serial that was told is given out again');
		unlike($home->log_since($mark), qr/starts epoch/, 'nobody takes it for an older state');
	}
	my ($before, $mark) = told_early('DELETE FROM place WHERE id = 5',
		'SELECT count(*) FROM place WHERE id = 5', 0);
	$home->sql('INSERT INTO place VALUES (5, 5)');
	converge([ $home, $away ], ['place'], 'a death, and a birth after it');
};

# The same, but nobody may be told.
sub told_late
{
	my ($statement, $there) = @_;
	my $holder = $home->session;
	my $was = $away->sql($there);

	$holder->query_safe('BEGIN; LOCK TABLE entanglement.owner IN SHARE MODE');
	$home->sql($statement);
	slow($home);
	$holder->query_safe('ROLLBACK');
	$home->wait_until('SELECT count(*) FROM entanglement.change', 0, 'it is folded, and to be seen here');
	crash($home);
	$holder->{run}->finish;
	is($away->sql($there), $was, 'nobody had been sent it');
	recover($home);
	converge([ $home, $away ], ['place'], 'in the end');
	return;
}

subtest 'a birth is on disk before it is told' => sub {
	$home->drain('away');
	told_late('INSERT INTO place VALUES (11, 0)', 'SELECT count(*) FROM place WHERE id = 11');
};

subtest 'the first serials after a crash are on disk before they are told' => sub {
	my $collector = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'entanglement collector' AND datname = current_database()";
	my $pid = $home->sql($collector);

	$home->drain('away');
	# another one does not know either which owners got serials since
	$home->sql("SELECT pg_terminate_backend($pid)");
	$home->wait_until("SELECT count(*) FROM ($collector) c WHERE pid <> $pid", 1, 'there is another collector');
	$home->drain('away');
	told_late('UPDATE place SET v = v + 7 WHERE id = 6', 'SELECT v FROM place WHERE id = 6');
};

subtest 'what was not on disk had not been acknowledged' => sub {
	foreach my $round (1 .. $rounds)
	{
		my $before;

		$home->drain('away');
		$before = $home->sql($serial);
		slow($away);
		$home->sql("UPDATE place SET v = $round WHERE id = 2");
		$away->wait_until('SELECT v FROM place WHERE id = 2', $round, 'it is to be seen there');
		crash($away);
		cmp_ok($home->sql('SELECT max(h.have) FROM entanglement.peer_owner h JOIN entanglement.owner w ON w.no = h.owner WHERE w.local'),
			'<=', $before, 'it had not said that it has it');
		recover($away);
		converge([ $home, $away ], ['place'], "in the end, $round");
	}
};

done_testing();
