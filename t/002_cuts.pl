# Cuts, crashes and restarts in a chain over mutual TLS: alice dials hub through
# a proxy that can cut and freeze; bob hears through hub.
#
# Promise: losing any batch, any answer, any process changes nothing in the
# final state, and catching up costs objects, not changes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;
use Entanglement::Proxy;

my $pki = Entanglement::PKI->new;
my $crash = "restart_after_crash = on\nentanglement.compression_level = 0\n"; # cuts are counted in bytes
my $alice = Entanglement::Node->create('alice', pki => $pki, conf => $crash);
my $hub = Entanglement::Node->create('hub', pki => $pki, conf => $crash);
my $bob = Entanglement::Node->create('bob', pki => $pki);
my $proxy = Entanglement::Proxy->new(port => $hub->cluster_of->port);
my @all = ($alice, $hub, $bob);

link_nodes($alice, $hub, port => $proxy->port);
link_nodes($bob, $hub);
foreach my $node (@all)
{
	$node->define(
		'CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text);'
		  . 'ALTER TABLE item ALTER body SET STORAGE EXTERNAL',
		'item');
}

# 100 rows of alice, 100 of hub, of about 4 kB that do not compress
my $fill = <<'SQL';
INSERT INTO item
SELECT i, 0, (SELECT string_agg(md5(i::text || j::text), '')
				FROM generate_series(1, 128) j)
  FROM generate_series(%d, %d) i
SQL
$alice->sql(sprintf $fill, 1, 100);
$hub->sql(sprintf $fill, 101, 200);
$_->wait_until('SELECT count(*) FROM item', '200', 'all rows') foreach @all;
converge(\@all, ['item'], 'everything is in step at the start');

# Changes 50 rows of a node's own.
sub touch
{
	my ($node) = @_;

	$node->sql(<<'SQL');
UPDATE item i SET n = n + 1, body = reverse(body) || n
 WHERE entanglement.owner_of(i) = current_database() AND id % 2 = 0
SQL
	return;
}

sub touch_all
{
	touch($_) foreach $alice, $hub;
	return;
}

subtest 'a node restarted' => sub {
	$hub->cluster_of->stop('fast');
	touch($alice);
	$hub->cluster_of->start;
	touch($hub);
	converge(\@all, ['item'], 'hub restarted');
	touch($hub);
	$alice->cluster_of->restart;
	touch($alice);
	converge(\@all, ['item'], 'alice restarted');
	ok($hub->sql('SELECT min(n) FROM item WHERE id % 2 = 0') == 2,
		'with the newest state');
};

subtest 'a node crashed' => sub {
	touch_all;
	$hub->cluster_of->stop('immediate');
	touch($alice);
	$hub->cluster_of->start;
	touch_all;
	$alice->cluster_of->stop('immediate');
	$alice->cluster_of->start;
	converge(\@all, ['item'], 'both nodes crashed in turn');
};

subtest 'its workers ended' => sub {
	$alice->wait_connected('hub');
	my @old = $alice->workers('.');

	cmp_ok(scalar @old, '>=', 3, 'launcher, collector, dialer run');
	$alice->sql("SELECT pg_terminate_backend($_)") foreach @old;
	touch_all;
	converge(\@all, ['item'], 'all workers of alice ended');
	$alice->wait_connected('hub');
	my %old = map { $_ => 1 } @old;
	my @new = $alice->workers('.');
	is(scalar(grep { $old{$_} } @new), 0, 'new processes took over');
	is(scalar @new, scalar @old, 'as many as before');
};

subtest 'backends of a link ended at the dialed node' => sub {
	$hub->sql(
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
	touch_all;
	converge(\@all, ['item'], 'backends of alice ended');
};

subtest 'a worker killed' => sub {
	foreach my $kind (qw(collector dialer launcher))
	{
		$alice->wait_connected('hub');
		my ($pid) = $alice->workers($kind);

		ok($pid, "there is a $kind");
		my $since = $hub->peer('alice')->{since};
		touch($alice);
		kill 'KILL', $pid or diag "kill $pid: $!";
		$hub->wait_until(
			"SELECT since <> '$since' FROM entanglement.peers WHERE name = 'alice'",
			't', 'end of the link');
		wait_for('alice to recover',
			sub { ($alice->try('SELECT 1'))[0] == 0 });
		touch($alice);
		touch($hub);
		converge(\@all, ['item'], "$kind killed");
	}
};

subtest 'a link cut in the middle of a batch' => sub {
	foreach my $case (
		[ up => 1 ],
		[ up => 700 ],
		[ up => 20_000 ],
		[ up => 90_000 ],
		[ down => 1 ],
		[ down => 700 ],
		[ down => 20_000 ],
		[ down => 90_000 ])
	{
		my ($way, $bytes) = @$case;

		$alice->wait_connected('hub');
		my $cuts = $proxy->stats->{cuts};
		$proxy->cut_after($way, $bytes);
		touch_all;
		wait_for('cut', sub { $proxy->stats->{cuts} > $cuts });
		$alice->wait_until(
			"SELECT state <> 'connected' FROM entanglement.peers", 't', 'loss');
		touch($hub);
		$proxy->open;
		converge(\@all, ['item'], "cut after $bytes bytes $way");
	}
};

subtest 'cut again and again while changes go on' => sub {
	foreach my $bytes (5_000, 9_000, 30_000, 60_000, 100_000)
	{
		my $cuts = $proxy->stats->{cuts};

		$proxy->cut_after(up => $bytes);
		touch_all;
		wait_for('cut', sub { $proxy->stats->{cuts} > $cuts });
		$proxy->open;
	}
	converge(\@all, ['item'], 'five cuts in a row');
	is($alice->versions('item'), $hub->versions('item'),
		'versions agree too');
};

subtest 'a frozen link is noticed by its silence' => sub {
	$alice->wait_connected('hub');
	$proxy->freeze;
	touch_all;
	$alice->wait_until(
		"SELECT state <> 'connected' AND last_error IS NOT NULL FROM entanglement.peers",
		't', 'silence noticed by the dialer');
	$hub->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'",
		't', 'silence noticed by the dialed node');
	$proxy->open;
	converge(\@all, ['item'], 'thawed');
};

# Cuts the link and waits until both sides know.
sub disconnect
{
	$proxy->cut;
	$alice->wait_until("SELECT state <> 'connected' FROM entanglement.peers",
		't', 'loss at alice');
	$hub->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'",
		't', 'loss at hub');
	return;
}

sub reconnect
{
	$proxy->open;
	$alice->wait_connected('hub');
	$hub->wait_connected('alice');
	$alice->drain('hub');
	$hub->drain('alice');
	$hub->drain('bob');
	return;
}

subtest 'reconnecting without changes sends no rows' => sub {
	reconnect();
	my ($a, $h) = ($alice->peer('hub'), $hub->peer('alice'));

	foreach (1 .. 3) { disconnect(); reconnect(); }
	my $da = Entanglement::Node::counted($a, $alice->peer('hub'));
	my $dh = Entanglement::Node::counted($h, $hub->peer('alice'));

	is($da->{objects_sent}, 0, 'alice sent no object');
	is($dh->{objects_sent}, 0, 'hub sent no object');
	is($da->{objects_received}, 0, 'alice received no object');
	is($dh->{objects_received}, 0, 'hub received no object');
	cmp_ok($da->{batches_sent}, '>', 0, 'though they spoke');
	cmp_ok($da->{bytes_sent}, '<', 6000, 'and spoke little');
};

subtest 'a row updated 10,000 times while the peer is away arrives as one object'
  => sub {
	disconnect();
	my ($a, $h, $b) =
	  ($alice->peer('hub'), $hub->peer('alice'), $hub->peer('bob'));

	$alice->sql(<<'SQL');
DO $$ BEGIN
	FOR i IN 1..10000 LOOP
		UPDATE item SET n = 100000 + i WHERE id = 1;
		COMMIT;
	END LOOP;
END $$
SQL
	$alice->wait_folded;
	reconnect();
	is($bob->sql('SELECT n FROM item WHERE id = 1'),
		110000, 'the last value is at bob');
	my $da = Entanglement::Node::counted($a, $alice->peer('hub'));
	my $dh = Entanglement::Node::counted($h, $hub->peer('alice'));
	my $db = Entanglement::Node::counted($b, $hub->peer('bob'));
	is($da->{objects_sent}, 1, 'alice sent one object');
	is($dh->{objects_received}, 1, 'hub received one object');
	is($db->{objects_sent}, 1, 'hub sent one object on');
	cmp_ok($da->{bytes_sent}, '<', 3000, 'in few bytes');
  };

subtest 'catching up after long absence costs objects, not changes' => sub {
	disconnect();
	my ($a, $h) = ($alice->peer('hub'), $hub->peer('alice'));

	$alice->sql(<<'SQL');
DO $$ BEGIN
	FOR i IN 1..100 LOOP
		UPDATE item SET n = n + 1 WHERE id BETWEEN 11 AND 40;
		COMMIT;
	END LOOP;
END $$;
INSERT INTO item (id) VALUES (1001), (1002), (1003);
DELETE FROM item WHERE id IN (1003, 41, 42);
INSERT INTO item (id, n) VALUES (42, 1);
SQL
	$hub->sql(<<'SQL');
DO $$ BEGIN
	FOR i IN 1..100 LOOP
		UPDATE item SET n = n + 1 WHERE id BETWEEN 101 AND 107;
		COMMIT;
	END LOOP;
END $$;
SQL
	$_->wait_folded foreach $alice, $hub;
	reconnect();
	converge(\@all, ['item'], 'caught up');
	my $da = Entanglement::Node::counted($a, $alice->peer('hub'));
	my $dh = Entanglement::Node::counted($h, $hub->peer('alice'));
	my $changes = 30 * 100;

	# 30 updated, 2 born, 1 deleted, 1 deleted and born again; and perhaps the
	# tombstone of the one that was born and died in between
	cmp_ok($da->{objects_sent}, '>=', 34, 'alice sent every changed object');
	cmp_ok($da->{objects_sent}, '<=', 35, "once, not $changes changes");
	is($dh->{objects_sent}, 7, 'hub sent seven objects for 700 changes');
	cmp_ok($da->{bytes_sent}, '<', 12_000,
		'bodies that did not change stayed at home');
};

subtest 'rows received beyond what was claimed, deleted before the next contact'
  => sub {
	# small batches, so that a cut falls between rows and the claim that
	# covers them
	$alice->sql('ALTER SYSTEM SET entanglement.max_batch = 8');
	$alice->sql('ALTER SYSTEM SET entanglement.scan_chunk = 10');
	$alice->cluster_of->reload;
	foreach my $bytes (10_000, 40_000, 70_000)
	{
		disconnect();
		$alice->sql(
			"INSERT INTO item SELECT i, 0, repeat('x', 100) FROM generate_series(5000, 5999) i");
		$alice->wait_folded;
		my $cuts = $proxy->stats->{cuts};
		$proxy->open;
		$proxy->cut_after(up => $bytes);
		wait_for('cut', sub { $proxy->stats->{cuts} > $cuts });
		$hub->wait_until(
			"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'",
			't', 'loss at hub');
		note $hub->sql('SELECT count(*) FROM item WHERE id >= 5000'),
		  ' rows were received';
		$alice->sql('DELETE FROM item WHERE id >= 5000');
		$alice->wait_folded;
		$proxy->open;
		converge(\@all, ['item'], "cut after $bytes bytes: all agree");
		is($hub->sql('SELECT count(*) FROM item WHERE id >= 5000'),
			0, 'none of them lives on');
	}
	$alice->sql('ALTER SYSTEM RESET ALL');
	$alice->cluster_of->reload;
  };

subtest 'nothing is in flight, owed or parked at the end' => sub {
	converge(\@all, ['item'], 'all agree');
	foreach my $node (@all)
	{
		$node->drain;
		is( $node->sql(
				'SELECT (SELECT count(*) FROM entanglement.change), (SELECT count(*) FROM entanglement.owed), (SELECT count(*) FROM entanglement.parked), (SELECT count(*) FROM entanglement.arrears)'
			),
			'0|0|0|0',
			$node->name . ' is at rest');
		is( $node->sql(
				'SELECT count(*) FROM entanglement.peers WHERE queued > 0 OR oldest IS NOT NULL'
			),
			0,
			$node->name . ' has no stale copy at a peer');
	}
};

done_testing();
