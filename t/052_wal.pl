# Tables captured from the log (capture => 'wal').
#
# Promise: whatever the way a row is written, its peer shows what capture by
# trigger would have shown; no change is lost when the way of capture changes
# or the slot is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('wal', conf => <<'CONF');
wal_level = logical
max_wal_senders = 4
max_replication_slots = 8
output_plugin_libraries = 'entanglement'
CONF
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);

link_nodes($alice, $bob);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'item');
CREATE TABLE item (id int PRIMARY KEY, v text, n int);
SQL
}
$alice->sql(q(SELECT entanglement.set_capture('item', 'wal')));
$alice->wait_until(q(SELECT wal FROM entanglement.relation), 't', 'the table is captured from the log');

sub arrives
{
	my ($promise, $sql, $query, $want) = @_;

	$alice->sql($sql);
	$alice->drain('bob');
	is($bob->sql($query), $want, $promise);
}

arrives('a row', q(INSERT INTO item VALUES (1, 'one', 1)), q(SELECT * FROM item), '1|one|1');
arrives('an update', q(UPDATE item SET v = 'uno' WHERE id = 1), q(SELECT * FROM item), '1|uno|1');
arrives('a change of the key', q(UPDATE item SET id = 2), q(SELECT * FROM item), '2|uno|1');
arrives('a delete', q(DELETE FROM item), q(SELECT count(*) FROM item), '0');

done_testing();
