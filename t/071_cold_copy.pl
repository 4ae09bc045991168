# The files of a node are put back as they were: bob is its peer, carol is behind bob.
#
# Promise: nothing tells such a node from the one it was, and it gives out again what
# serials peers have already; but resync, at either end, puts everybody right.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use File::Path qw(rmtree);
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Agreement;
use Entanglement::Node;
use Entanglement::PKI;

my $pki = Entanglement::PKI->new;
my $conf = "wal_level = logical\nmax_wal_senders = 4\nmax_replication_slots = 8\noutput_plugin_libraries = 'entanglement'\n";
my ($alice, $bob, $carol) =
  map { Entanglement::Node->create($_, pki => $pki, conf => $_ eq 'alice' ? $conf : '') } qw(alice bob carol);
my @all = ($alice, $bob, $carol);
my @tables = qw(told logged);
my $behind = q(SELECT count(*) > 0 FROM entanglement.change);
my $epoch = q(SELECT epoch FROM entanglement.owners WHERE name = 'alice');

link_nodes($alice, $bob);
link_nodes($carol, $bob);
foreach my $node (@all)
{
	$node->define("CREATE TABLE $_ (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0)", $_) foreach @tables;
}
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

# What alice writes is lost, $later is written instead before bob hears of it.
sub put_back
{
	my ($name, $lost, $later) = @_;
	my $cluster = $alice->cluster_of;
	my $files = $cluster->data_dir;
	my $copy = $cluster->basedir . "/$name";

	$cluster->stop;
	PostgreSQL::Test::RecursiveCopy::copypath($files, $copy);
	$cluster->start;
	$alice->wait_connected('bob');
	both($alice, $lost);
	agree("$name: before");
	$_->cluster_of->stop foreach $alice, $bob;
	rmtree($files);
	rename $copy, $files or die "$copy: $!";
	chmod 0700, $files;
	$cluster->start;
	both($alice, $later);
	$alice->wait_until($behind, 'f', "$name: all is read");
	$bob->cluster_of->start;
	$_->wait_connected('bob') foreach $alice, $carol;
	$alice->drain('bob');
	return;
}

both($alice, q(INSERT INTO ? SELECT i, repeat('x', 200) FROM generate_series(1, 300) i));
both($bob, q(INSERT INTO ? SELECT i, 'bob' FROM generate_series(4001, 4005) i));
agree('in step');
is($alice->sql($epoch), '1', 'in the first epoch');

# Serials have been given out again, and more.
my $more = q(UPDATE ? SET n = n + 1 WHERE id BETWEEN 100 AND 160);
my %lost = (
	changed => q(UPDATE ? SET v = 'lost' WHERE id BETWEEN 20 AND 24),
	died => q(DELETE FROM ? WHERE id BETWEEN 30 AND 34),
	born => q(INSERT INTO ? SELECT i, 'lost' FROM generate_series(6001, 6005) i));

foreach my $what (sort keys %lost)
{
	put_back($what, $lost{$what}, $more);
	isnt(differences(\@all, @tables), '', "$what: it is not noticed");
	$what eq 'died'
	  ? $bob->sql(q(SELECT entanglement.resync('alice')))
	  : $alice->sql(q(SELECT entanglement.resync('bob')));
	agree("$what: compared");
	is($carol->sql("SELECT count(*) FROM $_ WHERE v = 'lost'"), '0', "$what: nothing of $_ is there that was lost") foreach @tables;
	both($alice, q(UPDATE ? SET n = n + 1 WHERE id BETWEEN 1 AND 40; INSERT INTO ? VALUES (6001, 'born') ON CONFLICT (id) DO UPDATE SET v = excluded.v));
	agree("$what: it goes on");
}

# what is as it should be starts no epoch
my $was = $alice->sql($epoch);
$alice->sql(q(SELECT entanglement.resync('bob')));
$bob->sql(q(SELECT entanglement.resync('alice')));
$_->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'compared') foreach $alice, $bob;
is($alice->sql($epoch), $was, 'nothing was to be undone');
cmp_ok($was, '>', 1, 'as it was before');

done_testing();
