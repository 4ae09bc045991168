# What a change costs does not grow with the number of objects: nothing reads all of
# them for each batch or answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

# plans are made without statistics, as in a first copy
my $cluster = Entanglement::Node->cluster('cost', conf => "autovacuum = off\nentanglement.heartbeat = '1s'\n");
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $rows = 5000;
my $changes = 40;
my $read = q(SELECT coalesce(sum(idx_tup_read), 0)
  + (SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = 'entanglement.object'::regclass)
  FROM pg_stat_all_indexes WHERE relid = 'entanglement.object'::regclass);
my $updated = q(SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 'entanglement.object'::regclass);

link_nodes($alice, $bob);
$_->define('CREATE TABLE item (id int PRIMARY KEY, v int)', 'item') foreach $alice, $bob;
$alice->sql("INSERT INTO item SELECT i, 0 FROM generate_series(1, $rows) i");
$alice->drain('bob');
$bob->sql('INSERT INTO item VALUES (0, 0)');
$bob->drain('alice');

# How many entries of indexes, and rows, of objects a node reads for some changes.
sub reads
{
	my ($node) = @_;
	my ($was, $before) = ($node->sql($updated), $node->sql($read));

	for my $i (1 .. $changes)
	{
		$alice->sql("UPDATE item SET v = v + 1 WHERE id = $i * 100");
		$alice->drain('bob');
	}
	$node->wait_until("SELECT ($updated) - $was >= $changes", 't', 'statistics of ' . $node->name);
	return $node->sql($read) - $before;
}

foreach my $node ($bob, $alice)
{
	my $name = $node->name;

	# statistics come late: what was done before may be told with the first of these
	wait_for("$name does not read all objects for each change", sub { reads($node) < $rows });
	pass("$name does not read all objects for each change");
}

# ---- the log of changes ----

# Folded a few at a time, what is left of many is not read for each batch again.
my $many = $rows;
my $log = q(SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = 'entanglement.change'::regclass);
my $taken = q(SELECT n_tup_del FROM pg_stat_all_tables WHERE relid = 'entanglement.change'::regclass);
$alice->sql(q(ALTER SYSTEM SET entanglement.fold_limit = 50));
$alice->sql(q(SELECT pg_reload_conf()));
$alice->drain('bob');
my ($was, $before) = ($alice->sql($taken), $alice->sql($log));
$alice->sql('UPDATE item SET v = v + 1 WHERE id > 0');
$alice->drain('bob');
$alice->wait_until("SELECT ($taken) - $was >= $many", 't', 'statistics of the fold');
reads($alice);
cmp_ok($alice->sql($log) - $before, '<', 3 * $many, 'what is not folded yet is not read again and again');
is($bob->sql('SELECT md5(string_agg(item::text, \',\' ORDER BY id)) FROM item'),
	$alice->sql('SELECT md5(string_agg(item::text, \',\' ORDER BY id)) FROM item'), 'and all arrived');

# ---- a copy of what is being folded ----

# What comes to be while a peer catches up is told of by events and found by the scan.
my $sent = q(SELECT objects_sent FROM entanglement.peers WHERE name = 'bob');
my $copied = 20000;
$alice->sql(q(ALTER SYSTEM SET entanglement.fold_limit = 500));
$alice->sql(q(ALTER SYSTEM SET entanglement.scan_chunk = 500));
$alice->sql(q(SELECT pg_reload_conf()));
$_->define('CREATE TABLE copied (id int PRIMARY KEY, v int)', 'copied') foreach $alice, $bob;
$alice->drain('bob');
$alice->sql(q(SELECT entanglement.pause_peer('bob')));
$alice->wait_state('bob', 'paused');
$alice->sql("INSERT INTO copied SELECT i, i FROM generate_series(1, $copied) i");
$before = $alice->sql($sent);
$alice->sql(q(SELECT entanglement.resume_peer('bob')));
$alice->drain('bob');
is($bob->digest('copied'), $alice->digest('copied'), 'a copy of what is being folded');
cmp_ok($alice->sql($sent) - $before, '<', 1.1 * $copied, 'each row has been sent once');

done_testing();
