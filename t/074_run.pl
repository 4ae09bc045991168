# Many new rows of an owner are told together: links find them in the object table, some at a
# time, whenever they come to that. What changes meanwhile does not wait for them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $chunk = 500;
my $many = 8000;
my $cluster = Entanglement::Node->cluster('run', conf => "entanglement.scan_chunk = $chunk\n");
my ($alice, $bob, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob carol);
my $slow = 20000;	# bytes a second
my $fast = 100_000_000;

# alice - bob - carol
$_->define('CREATE TABLE item (id int PRIMARY KEY, v int, note text)', 'item') foreach $alice, $bob, $carol;
link_nodes($alice, $bob);
link_nodes($bob, $carol);
$alice->sql('INSERT INTO item SELECT -i, 0 FROM generate_series(1, 10) i');
$alice->drain('bob');
$bob->drain('carol');

sub rows
{
	my ($from, $to) = @_;

	return "INSERT INTO item SELECT i, 0, md5(i::text) FROM generate_series($from, $to) i";
}

sub bandwidth
{
	my ($bytes) = @_;

	return $alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => $bytes)");
}

# How many objects that link has in its queue.
sub queued
{
	return $alice->peer('bob')->{queued};
}

# ---- some at a time ----

bandwidth($slow);
$alice->sql(rows(1, $many));
$alice->wait_folded;
$bob->wait_until('SELECT count(*) > 100 FROM item WHERE id > 0', 't', 'they are on their way');
cmp_ok(queued(), '<=', 2 * $chunk, 'some of them are queued at a time');
my $before = $bob->sql('SELECT count(*) FROM item WHERE id > 0');
$alice->sql('UPDATE item SET v = 1 WHERE id = -1');
$bob->wait_until('SELECT v FROM item WHERE id = -1', 1, 'what changes meanwhile');
my $after = $bob->sql('SELECT count(*) FROM item WHERE id > 0');
cmp_ok($after, '<', $many, 'what changes does not wait for what is new');
note("$before of $many before the change, $after with it");

# changed, deleted, born again and new before they have gone
$alice->sql("UPDATE item SET v = 2 WHERE id > $many - 100");
$alice->sql("DELETE FROM item WHERE id BETWEEN $many - 300 AND $many - 200");
$alice->sql("BEGIN; DELETE FROM item WHERE id BETWEEN $many - 500 AND $many - 400; "
	  . "INSERT INTO item SELECT i, 3 FROM generate_series($many - 500, $many - 400) i; COMMIT");
$alice->sql(rows($many + 1, $many + 1000));
$alice->wait_folded;
cmp_ok(queued(), '<=', 2 * $chunk + 1000, '... and of more of them');
bandwidth($fast);
$alice->drain('bob');
is($bob->digest('item'), $alice->digest('item'), 'all are there in the end');
$bob->drain('carol');
is($carol->digest('item'), $alice->digest('item'), '... and behind it');
is($bob->versions('item'), $alice->versions('item'), 'in their versions');

# ---- without an end ----

# New rows come faster than they go: who waits for those of before does not wait for them.
bandwidth($slow);
my $top = 2 * $many;
$alice->sql(rows($top + 1, $top + 2000));
$alice->wait_folded;
my $session = $alice->session;
$session->query_until(qr/begun/, "\\echo begun\nSELECT entanglement.drain('bob', '5 min') AS drained;\n");
my $drains = q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%AS drained%' AND state = 'active' AND pid <> pg_backend_pid());
$alice->wait_until($drains, 1, 'somebody waits');
my ($made, $came) = (2000, 0);
while ($made < 10000 && $alice->sql($drains) > 0)
{
	$alice->sql(rows($top + $made + 1, $top + $made + 600));
	$made += 600;
	$came += 300;
	wait_for('some more', sub { $bob->sql("SELECT count(*) FROM item WHERE id > $top") >= $came || $alice->sql($drains) == 0; });
}
note("$made rows were made meanwhile");
is($alice->sql($drains), 0, 'who waits for what there was does not wait for what is made meanwhile');
cmp_ok($bob->sql("SELECT count(*) FROM item WHERE id > $top"), '<', $made, '... which is not there yet');
is($bob->sql("SELECT count(*) FROM item WHERE id > $top AND id <= $top + 2000"), 2000, '... but the former is');
like($session->query('SELECT 1'), qr/t/, 'all of it, as it was told');
$session->quit;
bandwidth($fast);
$alice->drain('bob');

# ---- again and again, of several owners, with a link that goes down ----

$alice->sql(q(SELECT entanglement.create_owner('second')));
my $next = 4 * $many;
foreach my $round (1 .. 6)
{
	my ($a, $b) = ($next + 1, $next + 600);
	my $other = "SET entanglement.owner = 'second'; " . rows($b + 1, $b + 700);

	bandwidth($round % 2 ? $slow : $fast);
	$alice->sql(rows($a, $b));
	$alice->sql($other);
	$alice->sql("UPDATE item SET v = $round WHERE id < 0 OR id % 7 = 0");
	$bob->sql(q(SELECT entanglement.pause_peer('alice'))) if $round == 3;
	$alice->sql("DELETE FROM item WHERE id BETWEEN $a AND $a + 50");
	$bob->sql(q(SELECT entanglement.resume_peer('alice'))) if $round == 3;
	$next += 1300;
}
bandwidth($fast);
$alice->drain('bob');
$bob->drain('carol');
is($_->digest('item'), $alice->digest('item'), 'nothing is missing at ' . $_->name) foreach $bob, $carol;
is($_->versions('item'), $alice->versions('item'), '... nor is it older') foreach $bob, $carol;

done_testing();
