# A standby of a node in the middle takes its place: bob has alice's rows, or some of
# them, and passes some on to carol; both dial him.
#
# Promise: he gets again what he has lost, also what was taken from him and has no
# version; and a peer that is shown a part has what it may see from then on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;

my $pki = Entanglement::PKI->new;
my $alice = Entanglement::Node->create('alice', pki => $pki);
my $bob = Entanglement::Node->create('bob', pki => $pki,
	hba => "local replication all trust\nhostssl all all 127.0.0.1/32 cert",
	conf => "wal_level = replica\nmax_wal_senders = 4\n");
my $carol = Entanglement::Node->create('carol', pki => $pki);
my @all = ($alice, $bob, $carol);
my $ids = q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM item);

link_nodes($_, $bob) foreach $alice, $carol;
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item') foreach @all;
$alice->sql(<<'SQL');
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY shown ON item TO bob USING (id > 0);
SQL
$bob->sql(<<'SQL');
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY stored ON item TO alice USING (true);
CREATE POLICY shown ON item TO carol USING (id > 0);
SQL
$alice->sql('INSERT INTO item SELECT i, $$x$$ FROM generate_series(1, 9) i');
$_->wait_until($ids, '1 2 3 4 5 6 7 8 9', 'all rows') foreach $bob, $carol;
foreach my $pair ([ $alice, 'bob' ], [ $bob, 'carol' ])
{
	$pair->[0]->drain($pair->[1]);
}

my $standby = PostgreSQL::Test::Cluster->new('second');

$bob->cluster_of->backup('second');
$standby->init_from_backup($bob->cluster_of, 'second', has_streaming => 1);
$standby->start;
$bob->cluster_of->wait_for_catchup($standby, 'replay');
$standby->stop;

# What the standby will not have.
$alice->sql('ALTER POLICY shown ON item USING (id <> 8)');
$_->wait_until($ids, '1 2 3 4 5 6 7 9', 'one is taken from bob') foreach $bob, $carol;
$bob->sql('ALTER POLICY shown ON item USING (id <> 7)');
$carol->wait_until($ids, '1 2 3 4 5 6 9', 'one is taken from carol');
$alice->sql('UPDATE item SET v = $$new$$ WHERE id = 1; DELETE FROM item WHERE id = 2');
$carol->wait_until(q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item WHERE id < 4), '1new 3x', 'the rest goes on');

$bob->cluster_of->stop('immediate');
$standby->start;
$standby->promote;
$bob = bless { %$bob, cluster => $standby }, ref $bob;
foreach my $node ($alice, $carol)
{
	my $info = conninfo($node, $bob) =~ s/'/''/gr;

	$node->sql("SELECT entanglement.alter_peer('bob', conninfo => '$info')");
	$node->wait_connected('bob');
}
$bob->wait_until(q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item), '1new 3x 4x 5x 6x 7x 9x', 'bob has what alice shows');
$carol->wait_until(q(SELECT string_agg(id || v, ' ' ORDER BY id) FROM item), '1new 3x 4x 5x 6x 7x 9x', 'carol has what bob shows');
$bob->sql('ALTER POLICY shown ON item USING (id <> 5)');
$alice->sql('INSERT INTO item VALUES (10, $$y$$)');
$carol->wait_until($ids, '1 3 4 6 7 9 10', 'it goes on');

done_testing();
