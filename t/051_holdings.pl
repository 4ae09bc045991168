# What a peer holds of a table that it is shown in part: white has all units, red
# those of its team.
#
# Promise: whatever happened to the peer, the role, the owner or the hook that
# decides, what red holds and may not see any more is withdrawn, and what is deleted
# goes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('holdings', conf => "entanglement.policy_interval = '1s'\n");
my ($white, $red, $late) = map { Entanglement::Node->database($cluster, $_) } qw(white red late);

link_nodes($red, $white);
link_nodes($late, $white);
$_->sql(<<'SQL') foreach $white, $red, $late;
CREATE TABLE unit (id text PRIMARY KEY, team text NOT NULL, place text);
SELECT entanglement.synchronize('unit');
GRANT SELECT, INSERT, UPDATE, DELETE ON unit TO PUBLIC;
SQL
$white->sql(<<'SQL');
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON unit USING (team = current_user);
SELECT entanglement.create_owner('grey');
SQL

# Waits until red has just these units.
sub units
{
	my ($expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $red->wait_until("SELECT coalesce(string_agg(id, ' ' ORDER BY id), 'none') FROM unit", $expected, "$name: $expected");
}

subtest 'a peer that is dropped and added again' => sub {
	$white->sql("INSERT INTO unit SELECT 'a-' || i, 'red' FROM generate_series(1, 5) i");
	units('a-1 a-2 a-3 a-4 a-5', 'before');
	$white->sql("SELECT entanglement.drop_peer('red'); UPDATE unit SET team = 'blue' WHERE id = 'a-1'; DELETE FROM unit WHERE id = 'a-2'");
	$white->sql("SELECT entanglement.add_peer('red', NULL, 'red')");
	$red->wait_connected('white');
	$white->sql("INSERT INTO unit VALUES ('a-6', 'red')");
	units('a-3 a-4 a-5 a-6', 'what was hidden or deleted meanwhile is gone');
	$white->sql("DELETE FROM unit WHERE id = 'a-3'; UPDATE unit SET team = 'blue' WHERE id = 'a-4'");
	units('a-5 a-6', 'and what is so since');
	$white->sql('DELETE FROM unit');
	units('none', 'all');
};

subtest 'a key that has another owner' => sub {
	$white->sql("INSERT INTO unit SELECT 'b-' || i, 'red' FROM generate_series(1, 3) i");
	units('b-1 b-2 b-3', 'before');
	# whoever has not heard keeps tombstones
	$white->sql("SELECT entanglement.pause_peer('late')");
	$white->sql("BEGIN; DELETE FROM unit WHERE id = 'b-1'; SET LOCAL entanglement.owner = 'grey'; INSERT INTO unit VALUES ('b-1', 'red', 'grey'); COMMIT");
	$red->wait_until("SELECT place FROM unit WHERE id = 'b-1'", 'grey', 'it comes as the other one\'s');
	$white->drain('red');
	$white->sql("UPDATE unit SET team = 'blue' WHERE id = 'b-1'");
	units('b-2 b-3', 'and is withdrawn');

	$white->sql("DELETE FROM unit WHERE id = 'b-2'");
	units('b-3', 'one is deleted');
	$white->sql("SET entanglement.owner = 'grey'; INSERT INTO unit VALUES ('b-2', 'red', 'grey')");
	units('b-2 b-3', 'and comes back as the other one\'s');
	$white->drain('red');
	$white->sql("SELECT entanglement.refresh('red')");
	$white->wait_until('SELECT count(*) FROM entanglement.resend r JOIN entanglement.peer p ON p.no = r.peer WHERE p.name = $$red$$', 0, 'all is looked at again');
	$white->sql("UPDATE unit SET team = 'blue' WHERE id = 'b-2'");
	units('b-3', 'and is withdrawn');
	$white->sql("SELECT entanglement.resume_peer('late'); DELETE FROM unit");
	units('none', 'all');
};

# What white has written down that it shows red, a: all, n: nothing
sub wait_shown
{
	my ($kind, $name) = @_;

	return $white->wait_until(q(SELECT w.kind FROM entanglement.shown w JOIN entanglement.peer p ON p.no = w.peer WHERE p.name = 'red'),
		$kind, $name);
}

subtest 'what died unseen' => sub {
	# whoever has not heard keeps tombstones
	$white->sql("SELECT entanglement.pause_peer('late')");
	$white->sql("ALTER TABLE unit DISABLE ROW LEVEL SECURITY; INSERT INTO unit VALUES ('u-1', 'blue')");
	units('u-1', 'before');
	wait_shown('a', 'all');
	$white->sql('REVOKE SELECT ON unit FROM PUBLIC, red');
	wait_shown('n', 'nothing');
	$white->sql("INSERT INTO unit VALUES ('u-2', 'blue'), ('u-3', 'blue')");
	$white->wait_folded;
	$white->sql("DELETE FROM unit WHERE id = 'u-2'");
	$white->wait_folded;
	$white->drain('red');
	$white->sql('GRANT SELECT ON unit TO PUBLIC');
	units('u-1 u-3', 'what lives comes');
	wait_shown('a', 'all again');
	is($white->sql(<<'SQL'), 'u-1 u-3', 'what counts as held is what it was shown');
BEGIN;
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
SELECT string_agg(substring(encode(h.key, 'escape') FROM 'u-.'), ' ' ORDER BY h.key)
  FROM entanglement.holding h JOIN entanglement.peer p ON p.no = h.peer
 WHERE p.name = 'red' AND encode(h.key, 'escape') ~ 'u-';
COMMIT;
SQL
	units('none', 'and is withdrawn');
	$white->sql("SELECT entanglement.resume_peer('late'); DELETE FROM unit");
};

subtest 'a role that changes' => sub {
	$white->sql(<<'SQL');
CREATE ROLE staff;
CREATE POLICY staff ON unit TO staff USING (team = 'white');
GRANT staff TO red;
INSERT INTO unit VALUES ('c-1', 'red'), ('c-2', 'white');
SQL
	units('c-1 c-2', 'before');
	$white->sql('ALTER ROLE red NOINHERIT');
	units('c-1', 'it does not inherit') if $white->sql("SELECT current_setting('server_version_num')::int < 160000") eq 't';
	$white->sql('ALTER ROLE red INHERIT');
	units('c-1 c-2', 'and does again');
	$white->sql("ALTER POLICY staff ON unit USING (pg_has_role('staff', 'MEMBER') AND team = 'white')");
	units('c-1 c-2', 'by the name of a role');
	$white->sql("CREATE POLICY named ON unit USING (team = 'crew' AND current_user = 'red'); INSERT INTO unit VALUES ('c-3', 'crew')");
	units('c-1 c-2 c-3', 'by its own name');
	# who is logged in goes on
	$white->sql('ALTER ROLE red RENAME TO crimson');
	units('c-2', 'which is another one');
	$white->sql('ALTER ROLE crimson RENAME TO red');
	units('c-1 c-2 c-3', 'and as before');
	$white->sql('DROP POLICY named ON unit; DROP POLICY staff ON unit; DELETE FROM unit');
	units('none', 'all');
};

subtest 'memberships that change while they are looked up' => sub {
	# so many that it takes a while
	$white->sql(<<'SQL');
CREATE ROLE crew;
CREATE POLICY crew ON unit TO crew USING (team = 'white');
CREATE ROLE rank_0;
DO $$
BEGIN
	FOR i IN 1..400 LOOP
		EXECUTE format('CREATE ROLE rank_%s; GRANT rank_%s TO rank_%s', i, i, i - 1);
	END LOOP;
END $$;
GRANT rank_0 TO red;
SQL
	foreach my $i (1 .. 60)
	{
		my $work = $i * 2000;		# so that it is another moment each time

		$white->sql(<<"SQL");
GRANT crew TO red;
INSERT INTO unit VALUES ('m-$i', 'white');
SELECT count(*) FROM generate_series(1, $work);
REVOKE crew FROM red;
SELECT entanglement.refresh('red');
SQL
		eval { $red->_await('SELECT count(*) FROM unit', 0, 'all is withdrawn'); 1 } or return fail("$i: all is withdrawn");
	}
	$white->sql('REVOKE rank_0 FROM red; DROP POLICY crew ON unit; DELETE FROM unit');
	pass('all is withdrawn each time');
};

subtest 'what a hook is told' => sub {
	$white->sql(<<'SQL');
ALTER TABLE unit DISABLE ROW LEVEL SECURITY;
CREATE FUNCTION guard(peer text, owner text, relation regclass, key jsonb, "row" jsonb) RETURNS boolean
LANGUAGE sql AS $$ SELECT coalesce("row" ->> 'place', '') <> 'secret' AND peer <> 'pink' $$;
SELECT entanglement.add_hook('should_send', 'guard(text,text,regclass,jsonb,jsonb)', 'unit');
REVOKE ALL ON unit FROM PUBLIC, red;
GRANT SELECT (id, team) ON unit TO red;
INSERT INTO unit VALUES ('d-1', 'red', 'open'), ('d-2', 'red', 'secret');
SQL
	units('d-1 d-2', 'a column is not told');
	$white->sql('GRANT SELECT ON unit TO red');
	units('d-1', 'it is');
	$white->sql('REVOKE SELECT ON unit FROM red; GRANT SELECT (id, team) ON unit TO red');
	units('d-1 d-2', 'it is not again');
	$white->sql("SELECT entanglement.alter_peer('red', new_name => 'pink')");
	units('none', 'another name');
	$white->sql("SELECT entanglement.alter_peer('pink', new_name => 'red')");
	units('d-1 d-2', 'and as before');
};

# pal takes part by hand
$white->sql(<<'SQL');
CREATE ROLE pal LOGIN;
SELECT entanglement.remove_hook(number) FROM entanglement.hooks;
GRANT SELECT ON unit TO pal;
DELETE FROM unit;
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
CREATE POLICY pal ON unit TO pal USING (true);
SELECT entanglement.add_peer('pal', NULL, 'pal');
INSERT INTO unit VALUES ('e-1', 'none', 'shown');
SQL

subtest 'an answer that is lost' => sub {
	my $owner = $white->sql("SELECT no FROM entanglement.owner WHERE local AND name = 'white'");
	my ($psql, $number);
	my $pull = sub {
		my $out = $psql->query_safe('CALL entanglement.pull(' . literal(batch($number, @_)) . ', NULL)');
		my $b = read_batch(pack 'H*', $out =~ s/^\\x//r);

		$number = $b->{number};
		return join '', map { $_->{body} } grep { $_->{type} == 4 } @{ $b->{sections} };
	};
	my $begin = sub {
		my ($have) = @_;

		$psql = $cluster->background_psql('white', on_error_stop => 0, extra_params => [ '-U', 'pal' ]);
		$psql->query_safe(q{SELECT entanglement.hello('pull', } . literal(hello('66600000-0000-4000-8000-000000000002', 'pal')) . ')');
		$number = 0;
		$pull->();
		return $pull->(want($owner, 1, $have > 0 ? 1 : 0, $have));
	};
	my $comes = sub {
		my ($got, $pattern, $name) = @_;

		return ok(wait_for($name, sub { return 1 if $got =~ $pattern; $got = $pull->(); return 0 }), $name);
	};

	$comes->($begin->(0), qr/e-1.*shown/s, 'the row comes');
	$pull->();
	$white->sql("ALTER POLICY pal ON unit USING (id <> 'e-1')");
	$comes->('', qr/e-1/, 'and is withdrawn');
	# but white does not hear that
	$psql->quit;
	$white->sql('ALTER POLICY pal ON unit USING (true)');
	$comes->($begin->($white->sql("SELECT serial FROM entanglement.owner WHERE no = $owner")), qr/e-1.*shown/s, 'it comes again');
	$psql->quit;
};

done_testing();
