# Hooks that come and go while everything goes on, across three nodes, and with
# tables that keep their foreign keys.
#
# Promise: whatever was changed meanwhile, in the end each node holds what the
# hooks on its way let through and nothing else; what a hook keeps out keeps out
# what references it, and both come without it. No row is shown that was written
# after a hook that forbids it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('live');
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);

foreach my $node (@all)
{
	$node->sql(<<'SQL');
CREATE TABLE item (id int PRIMARY KEY, colour text, n int);
CREATE TABLE parent (id int PRIMARY KEY, colour text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE SCHEMA guard;
GRANT USAGE ON SCHEMA guard TO PUBLIC;
CREATE FUNCTION guard.no_red(peer text, owner text, relation regclass, key jsonb, "row" jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$ SELECT "row" ->> 'colour' <> 'red' $$;
CREATE FUNCTION guard.no_blue(peer text, owner text, relation regclass, old jsonb, new jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN new ->> 'colour' <> 'blue'; END $$;
SELECT entanglement.synchronize('item');
SELECT entanglement.synchronize('child', integrity => true);
SQL
}
link_nodes($alice, $hub);
link_nodes($bob, $hub);
$bob->audit('item');
$alice->sql("INSERT INTO item SELECT i, (ARRAY['red', 'green', 'blue'])[i % 3 + 1], 0 FROM generate_series(1, 60) i");
converge(\@all, ['item'], 'in step');

# ---- while rows change ----

my $send = "SELECT entanglement.add_hook('should_send', 'guard.no_red(text,text,regclass,jsonb,jsonb)', 'item', 'bob')";
my $listen = "SELECT entanglement.add_hook('should_listen_constructed', 'guard.no_blue(text,text,regclass,jsonb,jsonb)', 'item')";
my $writer = $alice->session;
$writer->query_safe(<<'SQL');
CREATE PROCEDURE churn(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	k int;
BEGIN
	FOR i IN 1..rounds LOOP
		k := 1 + random() * 59;
		CASE WHEN random() < 0.8 THEN
			INSERT INTO item VALUES (k, (ARRAY['red', 'green', 'blue'])[1 + floor(random() * 3)], i)
				ON CONFLICT (id) DO UPDATE SET colour = EXCLUDED.colour, n = EXCLUDED.n;
		ELSE
			DELETE FROM item WHERE id = k;
		END CASE;
		COMMIT;
	END LOOP;
END $$;
SQL
for my $round (1 .. 6)
{
	$writer->query_safe('CALL churn(150)');
	$hub->sql($send) if $round % 2;
	$bob->sql($listen) if $round % 3 == 1;
	$writer->query_safe('CALL churn(150)');
	next if $round == 6;
	$hub->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks') if $round % 2 == 0;
	$bob->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks') if $round % 3 == 0;
}
$hub->sql($send) if $hub->sql('SELECT count(*) FROM entanglement.hooks') eq '0';
$bob->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks');
$writer->query_safe('CALL churn(100)');
$writer->quit;
converge([ $alice, $hub ], ['item'], 'the hub has all');

# Rows of a node, but for a colour.
sub rows_but
{
	my ($node, $colour) = @_;

	return $node->sql("SELECT string_agg(item::text, ' ' ORDER BY id) FROM item WHERE colour <> '$colour'");
}

my $expected = rows_but($alice, 'red');
$bob->wait_until("SELECT string_agg(item::text, ' ' ORDER BY id) FROM item", $expected, 'bob has all but what the hub may not send');
$hub->drain('bob');
is(rows_but($bob, 'none'), $expected, '... and nothing else');

# from here on nothing red may ever be seen there
$bob->sql('TRUNCATE audit_item');
for (1 .. 6)
{
	$alice->sql('CALL churn(80)');
	$alice->drain('hub');
	$hub->drain('bob');
}
is($bob->sql("SELECT count(*) > 50, count(*) FILTER (WHERE body ->> 'colour' = 'red' AND op <> 'DELETE') FROM audit_item"),
	't|0', 'nothing was shown that the hook forbids');
is(rows_but($bob, 'none'), rows_but($alice, 'red'), 'and in step');

# ---- what one node refuses the next one has ----

$hub->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks');
converge(\@all, ['item'], 'in step again');
$bob->sql($listen);
$alice->sql("UPDATE item SET colour = 'blue', n = -1 WHERE id < 30");
$alice->drain('hub');
$hub->drain('bob');
is($hub->sql('SELECT count(*) > 10 FROM item WHERE n = -1'), 't', 'the hub takes it');
is($bob->sql('SELECT count(*) FROM item WHERE n = -1'), '0', 'bob does not');
is($bob->sql('SELECT count(*) FROM entanglement.parked'), $hub->sql('SELECT count(*) FROM item WHERE n = -1'), '... and knows of each');
$bob->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks');
converge(\@all, ['item'], 'until it does');

# ---- foreign keys ----

$bob->sql("SELECT entanglement.add_hook('should_listen_constructed', 'guard.no_blue(text,text,regclass,jsonb,jsonb)', 'parent')");
$alice->sql("INSERT INTO parent VALUES (1, 'blue'), (2, 'green'); INSERT INTO child VALUES (10, 1), (20, 2), (30, 1)");
$alice->drain('hub');
$hub->drain('bob');
is($bob->sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM child"), '20', 'children of a parent that is refused wait');
is($bob->sql('SELECT relation, key, sqlstate FROM entanglement.parked_rows ORDER BY 1, 2'),
	"parent|(id)=(1)|42501\nchild|(id)=(10)|23503\nchild|(id)=(30)|23503", '... each for its reason');
$bob->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks');
converge(\@all, [ 'parent', 'child' ], 'without the hook both come');
is($bob->sql('SELECT count(*) FROM entanglement.parked'), '0', 'nothing is parked');

done_testing();
