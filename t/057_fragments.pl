# Large objects on a slow link: alice may send 20 kB/s to bob.
#
# Promise: an object that is too large for what the link carries at a time goes in
# fragments, between which small ones go; it arrives whole and as its owner last
# left it, whatever happens to it, to its table, to rights or to the link
# meanwhile; what the peer may not see any more does not arrive.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('fragments');
my ($alice, $bob) = map { Entanglement::Node->database($cluster, $_) } qw(alice bob);

foreach my $node ($alice, $bob)
{
	$node->define('CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text);'
		  . 'ALTER TABLE item ALTER body SET STORAGE EXTERNAL', 'item');
}
link_nodes($alice, $bob);
$alice->sql('INSERT INTO item (id) SELECT generate_series(1, 10)');
converge([ $alice, $bob ], ['item'], 'in step');

# 300 kB that do not compress: 15 s
sub large { my ($id) = @_; return "(SELECT string_agg(md5(i || ' $id ' || random()), '') FROM generate_series(1, 9600) i)"; }
sub slow { return $alice->sql("SELECT entanglement.alter_peer('bob', bandwidth => 20000)"); }
sub fast { return $alice->sql("SELECT entanglement.alter_peer('bob', reset => '{bandwidth}')"); }
sub there { my ($id) = @_; return $bob->sql("SELECT count(*) FROM item WHERE id = $id AND body IS NOT NULL"); }

# A small change after which it is certain that the first fragments have gone.
my $small = 0;
sub under_way
{
	my ($id, $what) = @_;

	$small++;
	$alice->sql("UPDATE item SET n = $small WHERE id = 1");
	$bob->wait_until('SELECT n FROM item WHERE id = 1', $small, "$what: a small change overtakes it");
	is(there($id), 0, "$what: it is not there yet");
	return;
}

subtest 'small ones overtake it' => sub {
	slow();
	$alice->sql("INSERT INTO item VALUES (100, 0, @{[ large(100) ]})");
	under_way(100, 'once') foreach 1 .. 5;
	cmp_ok($alice->peer('bob')->{bytes_sent}, '<', 300_000, 'the object has not gone at once');
	isnt($alice->sql("SELECT oldest FROM entanglement.peers WHERE name = 'bob'"), '', 'it counts as stale');
	fast();
	converge([ $alice, $bob ], ['item'], 'it arrives');
};

my @cases = (
	[ 'changed', sub { $alice->sql("UPDATE item SET n = 77 WHERE id = $_[0]") } ],
	[ 'replaced', sub { $alice->sql("UPDATE item SET body = @{[ large($_[0]) ]} WHERE id = $_[0]") } ],
	[ 'deleted', sub { $alice->sql("DELETE FROM item WHERE id = $_[0]") } ],
	[ 'born again', sub { $alice->sql("DELETE FROM item WHERE id = $_[0]; INSERT INTO item VALUES ($_[0], 5, 'small')") } ],
	[ 'followed by another', sub { $alice->sql("INSERT INTO item VALUES ($_[0] + 1, 0, @{[ large(7) ]})") } ],
	[ 'cut', sub { $alice->sql("SELECT entanglement.pause_peer('bob')"); $alice->sql("SELECT entanglement.resume_peer('bob')") } ],
	[ 'its table altered', sub { $_->sql("ALTER TABLE item ADD c$_[0] int DEFAULT 3") foreach $bob, $alice; $alice->sql("UPDATE item SET c$_[0] = 4 WHERE id = $_[0]") } ],
	[ 'given to another owner', sub { $alice->sql("SELECT entanglement.create_owner('other $_[0]')"); $alice->sql("SELECT entanglement.transfer(item, 'other $_[0]') FROM item WHERE id = $_[0]") } ],
);
my $id = 200;
foreach (@cases)
{
	my ($what, $do) = @$_;

	subtest $what => sub {
		slow();
		$alice->sql("INSERT INTO item VALUES ($id, 0, @{[ large($id) ]})");
		under_way($id, $what);
		$do->($id);
		fast();
		converge([ $alice, $bob ], ['item'], 'both agree in the end');
		$id += 10;
	};
}

subtest 'a right that is taken meanwhile' => sub {
	$alice->sql('ALTER TABLE item ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON item USING (true)');
	converge([ $alice, $bob ], ['item'], 'in step');
	slow();
	$alice->sql("INSERT INTO item VALUES ($id, 0, @{[ large($id) ]})");
	under_way($id, 'before');
	$alice->sql("DROP POLICY all_rows ON item; CREATE POLICY not_that_one ON item USING (id <> $id)");
	fast();
	$alice->sql('UPDATE item SET n = 1234 WHERE id = 2');
	$bob->wait_until('SELECT n FROM item WHERE id = 2', '1234', 'what it may see comes');
	$alice->drain('bob');
	is($bob->sql("SELECT count(*) FROM item WHERE id = $id"), 0, 'what it may not see does not');
};

done_testing();
