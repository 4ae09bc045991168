# A long copy over a slow link: alice may send 40 kB/s to bob.
#
# Promise: entanglement.progress shows how far a peer is that is brought up, to
# the end, and nothing afterwards; what changes meanwhile does not wait for the
# end of the copy, neither a row that has been copied nor one that has not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('progress');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $rows = 6000;
my $chunk = 4000;
my $shown =
  "SELECT relation, done BETWEEN 1 AND total - 1, total = $rows, rate > 0, estimate >= '0' FROM entanglement.progress WHERE peer = 'bob'";
my $early = "SELECT relation, done < $chunk FROM entanglement.progress";

$alice->sql('ALTER SYSTEM SET entanglement.scan_chunk = ' . $chunk);
$alice->sql('SELECT pg_reload_conf()');
link_nodes($alice, $bob);
foreach my $node ($alice, $bob)
{
	$node->define('CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text)',
		'item');
}
$alice->sql('INSERT INTO item (id) VALUES (0)');
converge([ $alice, $bob ], ['item'], 'in step');
is($alice->sql('SELECT count(*) FROM entanglement.progress'), '0', 'nothing to show');

$alice->sql("SELECT entanglement.pause_peer('bob')");
$alice->wait_state('bob', 'paused');
$alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => 40000)");
$alice->sql(
	"INSERT INTO item SELECT i, 0, repeat(md5(i::text), 3) FROM generate_series(1, $rows) i");
$alice->wait_folded;
$alice->sql("SELECT entanglement.resume_peer('bob')");
$alice->wait_until($shown, 'item|t|t|t|t', 'a running copy is shown');

subtest 'what changes does not wait for the end of the copy' => sub {
	my $copied = $bob->sql('SELECT min(id) FROM item WHERE id > 0');

	foreach my $id ($copied, $rows)
	{
		$alice->sql("UPDATE item SET n = 7 WHERE id = $id");
		$bob->wait_until("SELECT n FROM item WHERE id = $id", 7, "row $id has come");
		is($alice->sql($early), 'item|t', '... before the first chunk of the copy is done');
	}
	$alice->sql('INSERT INTO item VALUES (-1, 7)');
	$bob->wait_until('SELECT n FROM item WHERE id = -1', 7, 'so has a new one');
	is($alice->sql($early), 'item|t', '... before the first chunk of the copy is done');
};

subtest 'it goes to the end and disappears' => sub {
	my ($last, $now) = (0, 0);

	while ($now ne '')
	{
		$now = $alice->sql("SELECT done FROM entanglement.progress WHERE peer = 'bob'");
		die "progress went from $last to $now" if $now ne '' && $now < $last;
		$last = $now if $now ne '';
	}
	cmp_ok($last, '>', $rows / 2, 'it only grew');
	converge([ $alice, $bob ], ['item'], 'the copy is complete');
	is($alice->sql('SELECT count(*) FROM entanglement.progress'), '0', 'nothing is left');
};

done_testing();
