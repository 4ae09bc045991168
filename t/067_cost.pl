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

done_testing();
