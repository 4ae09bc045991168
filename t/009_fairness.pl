# Freshness on a slow link: alice may send 20 kB/s to bob.
#
# Promise: an update storm on one row does not delay another row; among hot
# rows none starves; what is superseded is never sent; nothing waits in queues
# longer than the link needs; requests and their answers go before objects.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('fairness');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);

link_nodes($alice, $bob);
foreach my $node ($alice, $bob)
{
	$node->define(
		'CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text);'
		  . 'ALTER TABLE item ALTER body SET STORAGE EXTERNAL',
		'item');
}
$bob->audit('item');
$alice->sql('INSERT INTO item (id) SELECT generate_series(0, 100)');
converge([ $alice, $bob ], ['item'], 'in step');
$alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => 20000)");

# Runs a script of pgbench at alice until stopped.
sub storm
{
	my ($script, @args) = @_;
	my $file = $cluster->basedir . '/storm.sql';

	unlink $file;
	append_to_file($file, $script);
	my ($in, $out) = ('', '');
	return IPC::Run::start(
		[
			$cluster->installed_command('pgbench'),
			'-h', $cluster->host, '-p', $cluster->port, '-n', @args,
			'-T', deadline(), '-f', $file, $alice->db
		],
		'<', \undef, '>&', \$out);
}

sub calm
{
	my ($storm) = @_;

	$storm->signal('INT');
	$storm->finish;
	return;
}

# Number of times an update of row 1 has arrived at bob.
my $arrivals =
  q(SELECT count(*) FROM audit_item WHERE op = 'UPDATE' AND (body->>'id')::int = 1);

subtest 'an update storm on one row does not delay another' => sub {
	my $before = $alice->peer('bob');
	my $storm = storm(
		"UPDATE item SET n = n + 1, body = repeat(md5(random()::text), 30) WHERE id = 1;\n",
		'-c', 2);

	$bob->wait_until("SELECT ($arrivals) > 5", 't', 'storm');
	foreach my $i (1 .. 5)
	{
		# both are databases of one cluster, so clocks can be compared
		my $committed = $alice->sql(
			"UPDATE item SET n = $i WHERE id = 100; SELECT clock_timestamp()");

		$bob->wait_until('SELECT n FROM item WHERE id = 100', $i, 'calm row');
		my $overtook = $bob->sql(<<"SQL");
SELECT count(*) FROM audit_item
 WHERE op = 'UPDATE' AND (body->>'id')::int = 1 AND at > '$committed'
   AND n < (SELECT min(n) FROM audit_item
			 WHERE (body->>'id')::int = 100 AND (body->>'n')::int = $i)
SQL
		cmp_ok($overtook, '<=', 3,
			"the calm row waited for three states of the hot one at most ($i)");
	}
	ok($storm->pumpable, 'while the storm went on');
	calm($storm);
	converge([ $alice, $bob ], ['item'], 'the last state of the hot row arrived');
	my $d = Entanglement::Node::counted($before, $alice->peer('bob'));
	my $updates = $alice->sql('SELECT n FROM item WHERE id = 1');
	cmp_ok($d->{objects_sent}, '<', $updates / 4,
		"$updates updates became $d->{objects_sent} objects");
	is($bob->sql(<<'SQL'), 0, 'the hot row never went back');
SELECT count(*) FROM (
	SELECT (body->>'n')::int - lag((body->>'n')::int) OVER (ORDER BY n) AS d
	  FROM audit_item WHERE (body->>'id')::int = 1) x
 WHERE d < 0
SQL
};

subtest 'among a hundred hot rows none starves' => sub {
	$bob->sql('TRUNCATE audit_item');
	my $storm = storm(
		"\\set id random(1, 100)\n"
		  . "UPDATE item SET n = n + 1, body = repeat(md5(random()::text), 10) WHERE id = :id;\n",
		'-c', 2);

	$bob->wait_until(
		"SELECT count(*) > 600 FROM audit_item WHERE op = 'UPDATE'",
		't', 'six hundred arrivals');
	ok($storm->pumpable, 'the storm is still on');
	my ($least, $most) = split /\|/, $bob->sql(<<'SQL');
SELECT min(c), max(c) FROM (
	SELECT i, (SELECT count(*) FROM audit_item
				WHERE op = 'UPDATE' AND (body->>'id')::int = i) AS c
	  FROM generate_series(1, 100) i) x
SQL
	cmp_ok($least, '>=', $most / 2,
		"every row was refreshed between $least and $most times");
	my $oldest = $alice->sql(
		"SELECT extract(epoch FROM oldest) FROM entanglement.peers WHERE name = 'bob'");
	cmp_ok($oldest || 0, '<', 15, 'the oldest stale copy is one round old at most');
	cmp_ok($alice->peer('bob')->{queued}, '<=', 101,
		'the queue holds each object once');
	cmp_ok($alice->peer('bob')->{coalesced}, '>', 100, 'changes were coalesced');
	calm($storm);
	$alice->sql("SELECT entanglement.alter_peer('bob', reset => '{bandwidth}')");
	converge([ $alice, $bob ], ['item'], 'all arrive in the end');
};

subtest 'requests and answers overtake objects' => sub {
	my $asked = "; SELECT entanglement.last_request() AS id \\gset\nSELECT entanglement.wait_for(:'id')";

	$bob->sql('INSERT INTO item (id) VALUES (500)');
	$alice->sql('ALTER TABLE item ADD CHECK (n >= 0)');
	converge([ $alice, $bob ], ['item'], 'in step');
	$alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => 5000)");
	$alice->sql('UPDATE item SET body = (SELECT string_agg(md5(random()::text), $$$$) FROM generate_series(1, 90 + id * 0) j) WHERE id < 500');
	$alice->wait_folded;
	is($alice->sql("UPDATE item SET n = 5 WHERE id = 500$asked"), 'accepted', 'a request of who has much to send');
	my ($rc, $out, $err) = $bob->try("UPDATE item SET n = -1 WHERE id = 1$asked");
	like($err, qr/violates check constraint/, 'the answer to one made to him');
	cmp_ok($alice->peer('bob')->{queued}, '>', 50, 'objects wait meanwhile');
	$alice->sql("SELECT entanglement.alter_peer('bob', reset => '{bandwidth}')");
	converge([ $alice, $bob ], ['item'], 'all arrive');
};

subtest 'the oldest stale copy ages while the link is down' => sub {
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql('UPDATE item SET n = n + 1 WHERE id = 1');
	$alice->wait_until("SELECT oldest > '1 s' FROM entanglement.peers", 't', 'a second');
	$alice->sql('UPDATE item SET n = n + 1');
	cmp_ok($alice->sql('SELECT extract(epoch FROM oldest) FROM entanglement.peers'),
		'>', 1, 'a newer change makes it no younger');
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	converge([ $alice, $bob ], ['item'], 'caught up');
	$alice->wait_until('SELECT oldest IS NULL FROM entanglement.peers', 't', 'none is stale');
};

subtest 'a bandwidth is kept to' => sub {
	$alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => 100000)");
	my $before = $alice->peer('bob');
	my $start = Time::HiRes::time();

	$alice->sql(
		'UPDATE item SET body = (SELECT string_agg(md5(random()::text), $$$$) FROM generate_series(1, 100 + id * 0) j)'
	);
	$alice->drain('bob');
	my $seconds = Time::HiRes::time() - $start;
	my $sent = Entanglement::Node::counted($before, $alice->peer('bob'))->{bytes_sent};

	cmp_ok($sent, '>', 150_000, "$sent bytes were sent");
	cmp_ok($sent / $seconds, '<', 150_000,
		sprintf 'at %.0f bytes per second', $sent / $seconds);
	cmp_ok($sent / $seconds, '>', 40_000, 'which is not much less than allowed');
	$alice->sql("SELECT entanglement.alter_peer('bob', reset => '{bandwidth}')");
	converge([ $alice, $bob ], ['item'], 'all arrive');
};

done_testing();
