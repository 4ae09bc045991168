# explain_send and explain_listen: which rule decides.
#
# Promise: for each rule that can say no, they name it, and what they decide is
# what becomes of the row; to ask has no effects.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('explain');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);

# bob's role for alice: all columns but one, rows by a policy, some of the rights
foreach my $node ($alice, $bob)
{
	$node->define(<<'SQL', 'item');
CREATE TABLE item (id int PRIMARY KEY, v text CHECK (v <> 'impossible'), hidden text, tags text[]);
CREATE TABLE fired (n int);
CREATE SCHEMA guard;
GRANT USAGE ON SCHEMA guard TO PUBLIC;
CREATE FUNCTION guard.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fired VALUES (1); RETURN NULL; END $$;
CREATE TRIGGER fire AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION guard.fire();
SQL
}
link_nodes($alice, $bob);
$alice->sql("INSERT INTO item VALUES (1, 'alice')");
$bob->sql("INSERT INTO item VALUES (101, 'bob'), (102, 'secret')");
converge([ $alice, $bob ], ['item'], 'in step');
$cluster->safe_psql('postgres', 'CREATE ROLE carol');
$bob->sql("SELECT entanglement.add_peer('carol', NULL, 'carol')");

# rule => verdict, of those that say something else than yes; then the decision
sub explained
{
	my ($node, $call) = @_;
	my @lines = split /\n/, $node->sql("SELECT rule, verdict FROM $call");
	my $decision = pop @lines;

	like($decision, qr/^decision\|/, 'the last line is the decision');
	return join ' ', (map { s/\|/: /r } grep { !/\|yes$/ } @lines), $decision =~ s/.*\|/-> /r;
}

sub send_to { return explained($bob, "item t, entanglement.explain_send(t, '$_[1]') x WHERE id = $_[0]"); }

# ---- explain_send ----

my @rules = split /\n/, $bob->sql("SELECT rule FROM item t, entanglement.explain_send(t, 'alice') WHERE id = 101");
is("@rules", 'link object route schema columns row-level security subscription should_send decision', 'the rules, in order');

$bob->sql("CREATE FUNCTION guard.hook(text, text, regclass, jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT \$4 ->> ''id'' <> ''101'''");

# what is done first, of row id => what is explained, then what undoes it
my @sends = (
	[ '', 101, 'should_send: neutral -> yes', '' ],
	[ '', 1, 'route: no should_send: neutral -> no', '' ],
	[ 'ALTER TABLE item DISABLE TRIGGER entanglement_capture; INSERT INTO item VALUES (900); ALTER TABLE item ENABLE TRIGGER entanglement_capture',
		900, 'object: no route: neutral should_send: neutral -> no', 'ALTER TABLE item DISABLE TRIGGER entanglement_capture; DELETE FROM item WHERE id = 900; ALTER TABLE item ENABLE TRIGGER entanglement_capture' ],
	[ 'REVOKE USAGE ON SCHEMA public FROM PUBLIC, alice', 101, 'schema: no columns: no row-level security: neutral should_send: neutral -> no',
		'GRANT USAGE ON SCHEMA public TO PUBLIC, alice' ],
	[ 'REVOKE SELECT ON item FROM alice; GRANT SELECT (v) ON item TO alice', 101, 'columns: no row-level security: neutral should_send: neutral -> no',
		'GRANT SELECT ON item TO alice' ],
	[ "ALTER TABLE item ENABLE ROW LEVEL SECURITY; CREATE POLICY public_rows ON item USING (v <> 'secret')", 102,
		'row-level security: no should_send: neutral -> no', '' ],
	[ '', 101, 'should_send: neutral -> yes', '' ],
	[ "SELECT entanglement.add_hook('should_send', 'guard.hook(text,text,regclass,jsonb,jsonb)')", 101,
		'should_send, hook 1: no -> no', '' ],
	[ "SELECT entanglement.add_hook('should_send', 'guard.hook(text,text,regclass,jsonb,jsonb)', peer => 'alice', ordinal => 1)", 101,
		'should_send, hook 2: no should_send, hook 1: no -> no', 'SELECT entanglement.remove_hook(number) FROM entanglement.hooks; DROP POLICY public_rows ON item; ALTER TABLE item DISABLE ROW LEVEL SECURITY' ],
	[ "SELECT entanglement.pause_peer('alice')", 101, 'link: neutral should_send: neutral -> yes', "SELECT entanglement.resume_peer('alice')" ]);
foreach my $case (@sends)
{
	my ($before, $id, $expected, $after) = @$case;

	$bob->sql($before) if $before ne '';
	is(send_to($id, 'alice'), $expected, "row $id: $expected");
	$bob->sql($after) if $after ne '';
}

is($bob->sql("SELECT x.detail FROM item t, entanglement.explain_send(t, 'alice') x WHERE id = 101 AND rule = 'columns'"),
	'role "alice" may SELECT all columns', 'which columns go');
$bob->sql('REVOKE SELECT ON item FROM alice; GRANT SELECT (id, v) ON item TO alice');
is($bob->sql("SELECT x.detail FROM item t, entanglement.explain_send(t, 'alice') x WHERE id = 101 AND rule = 'columns'"),
	'role "alice" may not SELECT hidden, tags, which are left out', '... and which do not');
$bob->sql('GRANT SELECT ON item TO alice');
$alice->wait_connected('bob');
$bob->wait_connected('alice');
converge([ $alice, $bob ], ['item'], 'in step again');
$bob->sql('DELETE FROM fired');

# what the peer wants
$alice->sql(q{SELECT entanglement.subscribe('bob', 'item', $$v <> 'secret'$$)});
$bob->wait_until("SELECT filter FROM entanglement.subscriptions WHERE direction = 'theirs'", q{v <> 'secret'}, 'the wish has come');
is(send_to(101, 'alice'), 'should_send: neutral -> yes', 'a row that is wanted');
is(send_to(102, 'alice'), 'subscription: no should_send: neutral -> no', 'a row that is not');
$alice->sql("SELECT entanglement.unsubscribe('bob', 'item')");
converge([ $alice, $bob ], ['item'], 'all is wanted again');
$bob->sql('DELETE FROM fired');

# ---- explain_listen ----

sub listen_to { return explained($bob, "entanglement.explain_listen('alice', $_[0])"); }

is( join(' ', split /\n/, $bob->sql(q(SELECT rule FROM entanglement.explain_listen('alice', 'alice', 'item', 'update', '{"id": 1}', '{"v": "x"}')))),
	'link owner route speaker object schema rights should_listen should_listen_constructed trial decision', 'the rules, in order');
is( $bob->sql(q(SELECT detail FROM entanglement.explain_listen('alice', 'alice', 'item', 'update', '{"id": 1}', '{"v": "impossible"}') WHERE rule = 'trial')),
	'23514: new row for relation "item" violates check constraint "item_v_check" (Failing row contains (1, impossible, null, null).)', 'a trial says why it fails');

$bob->sql(<<'SQL');
CREATE FUNCTION guard.listen(text, text, regclass, text, jsonb, text[], jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT $7 ->> ''v'' <> ''no''';
CREATE FUNCTION guard.construct(text, text, regclass, jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT $5 ->> ''hidden'' IS NULL OR $4 IS NULL';
CREATE FUNCTION guard.fail(text, text, regclass, jsonb, jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT 1 / 0 = 1';
SQL

my $none = 'should_listen: neutral should_listen_constructed: neutral';
my @listens = (
	[ '', q('alice', 'item', 'update', '{"id": 1}', '{"v": "x", "tags": ["a", "b"]}'), "$none -> yes" ],
	[ '', q('alice', 'item', 'insert', '{"id": 2}', '{"v": "x"}'), "$none -> yes" ],
	[ '', q('alice', 'item', 'delete', '{"id": 1}'), "$none -> yes" ],
	[ '', q('alice', 'item', 'update', '{"id": 3}', '{"v": "x"}'), "object: neutral $none trial: no -> no" ],
	[ '', q('alice', 'item', 'update', '{"id": 101}', '{"v": "x"}'), "object: no $none -> no" ],
	[ '', q('bob', 'item', 'update', '{"id": 101}', '{"v": "x"}'), "$none -> yes" ],
	[ '', q('bob', 'item', 'insert', '{"id": 103}', '{"v": "x"}'), "key: no $none -> no" ],
	[ '', q('bob', 'item', 'insert', NULL, '{"v": "x"}'), "$none trial: no -> no" ],
	[ "SELECT entanglement.bind_owner('alice', 'carol')", q('alice', 'item', 'delete', '{"id": 1}'), "route: no speaker: no $none -> no",
		"SELECT entanglement.bind_owner('alice')" ],
	[ 'REVOKE UPDATE ON item FROM alice; GRANT UPDATE (v) ON item TO alice', q('bob', 'item', 'update', '{"id": 101}', '{"v": "x"}'), "$none -> yes" ],
	[ '', q('bob', 'item', 'update', '{"id": 101}', '{"v": "x", "hidden": "x"}'), "rights: no $none trial: no -> no", 'GRANT UPDATE ON item TO alice' ],
	[ 'REVOKE DELETE ON item FROM alice', q('bob', 'item', 'delete', '{"id": 101}'), "rights: no $none trial: no -> no", 'GRANT DELETE ON item TO alice' ],
	[ "ALTER TABLE item ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON item WITH CHECK (v <> 'mine')", q('bob', 'item', 'update', '{"id": 101}', '{"v": "mine"}'),
		"$none trial: no -> no", 'DROP POLICY all_rows ON item; ALTER TABLE item DISABLE ROW LEVEL SECURITY' ],
	[ "SELECT entanglement.add_hook('should_listen', 'guard.listen(text,text,regclass,text,jsonb,text[],jsonb)')",
		q('bob', 'item', 'update', '{"id": 101}', '{"v": "no"}'), 'should_listen, hook 3: no should_listen_constructed: neutral -> no' ],
	[ '', q('bob', 'item', 'update', '{"id": 101}', '{"hidden": "x"}'), 'should_listen, hook 3: neutral should_listen_constructed: neutral -> yes' ],
	[ "SELECT entanglement.add_hook('should_listen_constructed', 'guard.construct(text,text,regclass,jsonb,jsonb)')",
		q('bob', 'item', 'update', '{"id": 101}', '{"v": "yes", "hidden": "x"}'), 'should_listen_constructed, hook 4: no -> no' ],
	[ "SELECT entanglement.add_hook('should_listen_constructed', 'guard.fail(text,text,regclass,jsonb,jsonb)')",
		q('bob', 'item', 'update', '{"id": 101}', '{"v": "yes"}'), 'should_listen_constructed, hook 5: no -> no' ]);
foreach my $case (@listens)
{
	my ($before, $call, $expected, $after) = @$case;

	$bob->sql($before) if $before ne '';
	is(listen_to($call), $expected, "$call: $expected") if $before !~ /bind_owner/;
	like(listen_to($call), qr/^(?:link: neutral )?\Q$expected\E$/, "$call: $expected") if $before =~ /bind_owner/;
	$bob->sql($after) if defined $after;
	$bob->wait_until("SELECT peer FROM entanglement.owners WHERE name = 'alice'", 'alice', 'the route is back') if $before =~ /bind_owner/;
}
is($bob->sql(q(SELECT detail FROM entanglement.explain_listen('alice', 'bob', 'item', 'update', '{"id": 101}', '{"v": "yes"}') WHERE rule = 'should_listen_constructed, hook 5')),
	'guard.fail(text,text,regclass,jsonb,jsonb), which failed with 22012: division by zero', 'an error of a hook is shown');

# what is given wrongly
my @wrong = (
	[ q('alice', 'bob', 'item', 'merge', '{"id": 101}'), '22023', 'there is no operation "merge"' ],
	[ q('mallory', 'bob', 'item', 'delete', '{"id": 101}'), '42704', 'peer "mallory" does not exist' ],
	[ q('alice', 'mallory', 'item', 'delete', '{"id": 101}'), '42704', 'no owner is named "mallory"' ],
	[ q('alice', 'bob', 'fired', 'delete', '{"id": 101}'), '42704', 'table "fired" is not synchronized' ],
	[ q('alice', 'bob', 'item', 'delete', '{}'), '22023', 'key must name each column' ],
	[ q('alice', 'bob', 'item', 'delete', '[101]'), '22023', 'key must be an object' ],
	[ q('alice', 'bob', 'item', 'delete', '{"v": 101}'), '22023', 'column "v" is not in the key' ],
	[ q('alice', 'bob', 'item', 'delete', '{"id": null}'), '22004', 'key column "id" must not be NULL' ],
	[ q('alice', 'bob', 'item', 'delete', '{"id": "x"}'), '22P02', 'invalid input syntax' ],
	[ q('alice', 'bob', 'item', 'update', '{"id": 101}', '{"no": 1}'), '42703', 'column "no" of relation "item" does not exist' ]);
$bob->fails("SELECT entanglement.explain_listen($_->[0])", $_->[1], $_->[2], "$_->[0]: $_->[2]") foreach @wrong;

is($bob->sql('SELECT count(*) FROM fired'), '0', 'no trigger has fired');
is($bob->sql("SELECT v FROM item WHERE id = 101"), 'bob', 'nothing was done');
$bob->sql('SELECT entanglement.remove_hook(number) FROM entanglement.hooks');
converge([ $alice, $bob ], ['item'], 'in step in the end');

done_testing();
