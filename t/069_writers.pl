# What a change costs the nodes it passes, told by counters: objects that have just
# changed are found without their index, rows of a batch are updated by one statement.
#
# Promise: that is so, and what one statement cannot do is done row by row: rows that
# are missing, hidden, suppressed by a trigger, or whose identity no UPDATE may set.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('writers', conf => "autovacuum = off\n");
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $rows = 60;

link_nodes($alice, $bob);
$_->define('CREATE TABLE item (id int PRIMARY KEY, v int, w text)', 'item') foreach $alice, $bob;
$_->define('CREATE TABLE numbered (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v int)',
	'numbered') foreach $alice, $bob;
$alice->sql("INSERT INTO item SELECT i, 0, 'w' FROM generate_series(1, $rows) i");
$alice->sql("INSERT INTO numbered (id, v) SELECT i, 0 FROM generate_series(1, $rows) i");
$alice->drain('bob');

# ---- one statement for many rows ----

$bob->sql(<<'SQL');
CREATE SEQUENCE statements;
CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ BEGIN PERFORM nextval('public.statements'); RETURN NULL; END $$;
CREATE TRIGGER counted AFTER UPDATE ON item FOR EACH STATEMENT EXECUTE FUNCTION count_statement();
ALTER TABLE item ENABLE ALWAYS TRIGGER counted;
SQL

sub same
{
	my ($table, $what) = @_;
	$alice->drain('bob');
	is($bob->sql("SELECT string_agg(t::text, ';' ORDER BY id) FROM $table t"),
		$alice->sql("SELECT string_agg(t::text, ';' ORDER BY id) FROM $table t"), $what);
}

$alice->sql('UPDATE item SET v = v + 1');
same('item', 'rows that were updated together arrive');
cmp_ok($bob->sql('SELECT last_value FROM statements'), '<=', $rows / 10,
	'few statements for many rows');

$alice->sql("UPDATE item SET v = v + 1, w = CASE WHEN id % 2 = 0 THEN 'even' ELSE w END");
same('item', 'rows of which other columns changed arrive');

# ---- whosever they are ----

my $owners = 60;
$alice->sql(<<"SQL");
SELECT count(entanglement.create_owner('o' || i)) FROM generate_series(1, $owners) i;
DO \$\$ BEGIN FOR i IN 1 .. $owners LOOP
	PERFORM set_config('entanglement.owner', 'o' || i, true);
	INSERT INTO item VALUES (10000 + i, 0, 'w');
END LOOP; END \$\$;
SQL
same('item', 'rows of many owners arrive');
$bob->sql(q(SELECT setval('statements', 1)));
$alice->sql('UPDATE item SET v = v + 1 WHERE id > 10000');
same('item', '... and their changes');
cmp_ok($bob->sql('SELECT last_value FROM statements'), '<=', $owners / 3, '... by few statements');

# what died under one owner and was born under another is told of both, at once
$alice->sql(q(SELECT entanglement.pause_peer('bob')));
$alice->sql('DELETE FROM item WHERE id > 10000');
$alice->sql(q(SET entanglement.owner = 'o1'; INSERT INTO item SELECT 10000 + i, i, 'again' FROM generate_series(1, 60) i));
$alice->sql(q(SELECT entanglement.resume_peer('bob')));
same('item', 'rows that went from many owners to one arrive');
is($bob->sql('SELECT string_agg(DISTINCT entanglement.owner_of(i), \',\') FROM item i WHERE id > 10000'), 'o1', '... as his');
is($bob->sql('SELECT count(*) FROM entanglement.parked'), 0, '... and nothing is in their way');
$alice->sql('DELETE FROM item WHERE id > 10000');
same('item', '... and go');

# ---- what that cannot do ----

$bob->sql('SET session_replication_role = replica; DELETE FROM item WHERE id IN (7, 23)');
$alice->sql('UPDATE item SET v = v + 1');
wait_for('rows that were missing', sub {
	$alice->drain('bob');
	return $bob->sql('SELECT count(*) FROM item') == $rows;
});
same('item', 'rows that were missing are asked for again, the others arrive');

$alice->sql('UPDATE numbered SET v = v + 1');
$alice->sql('UPDATE numbered SET n = DEFAULT WHERE id > 50');
same('numbered', 'identities that are always generated are as at the owner');

$bob->sql(<<'SQL');
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY most ON item USING (id <> 11);
SQL
$alice->sql('UPDATE item SET v = v + 1');
$alice->drain('bob');
is($bob->sql('SELECT count(*) FROM item WHERE v = 4'), $rows - 1,
	'a row that the role may not change stays behind alone');
is($bob->sql('SELECT count(*) FROM entanglement.parked'), 1, 'and is parked');
$bob->sql('ALTER TABLE item DISABLE ROW LEVEL SECURITY');
wait_for('the parked row', sub { return $bob->sql('SELECT count(*) FROM entanglement.parked') == 0; });
same('item', 'it comes when it may');

# ---- objects found without their index ----

sub lookups
{
	my ($node) = @_;
	my $changed = 20;
	my $updated = "SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 'entanglement.object'::regclass";
	my $scans = "SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelid = 'entanglement.object_pkey'::regclass";
	my ($was, $before) = ($node->sql($updated), $node->sql($scans));

	for my $i (1 .. $changed)
	{
		$alice->sql("UPDATE item SET v = v + 1 WHERE id = $i");
		$alice->drain('bob');
	}
	$node->wait_until("SELECT ($updated) - $was >= $changed", 't', 'statistics of ' . $node->name);
	return $node->sql($scans) - $before;
}

foreach my $node ($alice, $bob)
{
	# statistics come late: what was done before may be told with the first of these
	wait_for($node->name . ' looks into no index', sub { return lookups($node) < 10; });
	pass($node->name . ' finds objects that have just changed without their index');
}

done_testing();
