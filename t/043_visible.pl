# What peers may see: an exercise with a white cell, whose database has all units,
# the teams red and blue, each of which sees its own, and scout, who gets from red
# whatever red has.
#
# Promise: a peer has just the rows that its role may see now. What stops being visible is
# withdrawn, also from those who have it through that peer, and lives on where
# it is seen; what becomes visible comes, in the version it has. No trace of a key
# that a peer was never allowed to see is ever found on it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('visible', conf => "entanglement.policy_interval = '1s'\n");
my ($white, $red, $blue, $scout) =
  map { Entanglement::Node->database($cluster, $_) } qw(white red blue scout);
my @all = ($white, $red, $blue, $scout);
my $table = 'CREATE TABLE unit (id text PRIMARY KEY, team text NOT NULL, place text)';

link_nodes($red, $white);
link_nodes($blue, $white);
link_nodes($scout, $red);
$white->sql(<<"SQL");
$table;
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON unit USING (team = current_user);
CREATE POLICY open ON unit USING (team = 'all');
SQL
$_->sql($table) foreach $red, $blue, $scout;
$_->sql(<<'SQL') foreach @all;
SELECT entanglement.synchronize('unit');
CREATE TABLE base (id text PRIMARY KEY, place text);
SELECT entanglement.synchronize('base');
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO PUBLIC;
SQL

# Waits until the node shows just these units.
sub units
{
	my ($node, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_until("SELECT coalesce(string_agg(id, ' ' ORDER BY id), 'none') FROM unit",
		$expected, "$name: $expected");
}

# What white remembers that a peer holds.
sub holdings
{
	my ($peer, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $white->wait_until("SELECT coalesce(string_agg(substr(encode(h.key, 'escape'), 2), ' ' ORDER BY h.key), 'none')
  FROM entanglement.holding h JOIN entanglement.peer p ON p.no = h.peer JOIN entanglement.relation r ON r.no = h.rel
 WHERE p.name = '$peer' AND r.relid = 'unit'::regclass", $expected, $name);
}

# Looks for these in all that the extension keeps there.
sub no_trace
{
	my ($node, @patterns) = @_;
	my $all = $node->sql(<<'SQL');
SELECT string_agg(query_to_xml(format('SELECT t::text FROM entanglement.%I t', relname), false, false, '')::text, E'\n')
  FROM pg_class WHERE relnamespace = 'entanglement'::regnamespace AND relkind = 'r'
SQL

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $pattern (@patterns)
	{
		my $hex = unpack 'H*', $pattern;

		unlike($all, qr/\Q$pattern\E|$hex/, "no trace of $pattern at " . $node->name);
	}
	return;
}

subtest 'each sees its own' => sub {
	$white->sql(<<'SQL');
INSERT INTO unit SELECT team || '-' || i, team, 'start'
  FROM unnest('{red,blue,white,all}'::text[]) team, generate_series(1, 2) i;
SQL
	units($white, 'all-1 all-2 blue-1 blue-2 red-1 red-2 white-1 white-2', 'white has all');
	units($red, 'all-1 all-2 red-1 red-2', 'red');
	units($blue, 'all-1 all-2 blue-1 blue-2', 'blue');
	units($scout, 'all-1 all-2 red-1 red-2', 'scout');
	holdings('red', 'all-1 all-2 red-1 red-2', 'what red holds is known');
	$white->sql("UPDATE unit SET place = 'here'");
	$_->wait_until("SELECT count(*) FROM unit WHERE place = 'here'", 4, 'changes come') foreach $red, $blue, $scout;
	$white->sql("DELETE FROM unit WHERE id IN ('white-2', 'all-2')");
	units($_, 'all-1 red-1 red-2', 'what is deleted goes') foreach $red, $scout;
	holdings('red', 'all-1 red-1 red-2', 'and is not held any more');
};

subtest 'a row changes sides' => sub {
	$white->sql("UPDATE unit SET team = 'blue', place = 'captured' WHERE id = 'red-2'");
	units($_, 'all-1 red-1', 'withdrawn') foreach $red, $scout;
	units($blue, 'all-1 blue-1 blue-2 red-2', 'comes');
	is($white->sql("SELECT team FROM unit WHERE id = 'red-2'"), 'blue', 'it lives on');
	$white->sql("UPDATE unit SET place = 'secret' WHERE id = 'red-2'");
	$blue->wait_until("SELECT place FROM unit WHERE id = 'red-2'", 'secret', 'who sees it follows');
	$white->sql("UPDATE unit SET team = 'red' WHERE id = 'red-2'");
	units($_, 'all-1 red-1 red-2', 'and back') foreach $red, $scout;
	is($red->sql("SELECT place FROM unit WHERE id = 'red-2'"), 'secret', 'with what it is by now');
	units($blue, 'all-1 blue-1 blue-2', 'gone there');
};

subtest 'a policy' => sub {
	my $version = $white->sql("SELECT string_agg(serial::text, ' ' ORDER BY key) FROM entanglement.object");

	$white->sql('DROP POLICY open ON unit');
	units($_, 'red-1 red-2', 'dropped') foreach $red, $scout;
	$white->sql("CREATE POLICY open ON unit USING (team = 'all')");
	units($_, 'all-1 red-1 red-2', 'made') foreach $red, $scout;
	$white->sql("ALTER POLICY own ON unit USING (team = current_user AND id NOT LIKE '%-2')");
	units($_, 'all-1 red-1', 'altered') foreach $red, $scout;
	units($blue, 'all-1 blue-1', 'altered');
	$white->sql("ALTER POLICY own ON unit USING (team = current_user)");
	units($_, 'all-1 red-1 red-2', 'and again') foreach $red, $scout;
	is($white->sql("SELECT string_agg(serial::text, ' ' ORDER BY key) FROM entanglement.object"),
		$version, 'the owner wrote nothing');
	is($red->sql(q{SELECT string_agg(serial::text, ' ' ORDER BY key) FROM entanglement.object}),
		$scout->sql(q{SELECT string_agg(serial::text, ' ' ORDER BY key) FROM entanglement.object}), 'versions are as before');
};

subtest 'memberships' => sub {
	$white->sql(<<'SQL');
CREATE ROLE staff;
CREATE POLICY staff ON unit TO staff USING (team = 'white');
SQL
	units($red, 'all-1 red-1 red-2', 'not a member');
	$white->sql('GRANT staff TO red');
	units($_, 'all-1 red-1 red-2 white-1', 'a member') foreach $red, $scout;
	$white->sql('REVOKE staff FROM red');
	units($_, 'all-1 red-1 red-2', 'not any more') foreach $red, $scout;
};

subtest 'grants' => sub {
	$white->sql('REVOKE SELECT ON unit FROM red, blue, PUBLIC');
	units($_, 'none', 'revoked') foreach $red, $scout, $blue;
	holdings($_, 'none', "$_ holds nothing") foreach qw(red blue);
	is($white->sql('SELECT count(*) FROM unit'), 6, 'all are here');
	$white->sql("INSERT INTO unit VALUES ('red-3', 'red', 'meanwhile')");
	$white->sql("DELETE FROM unit WHERE id = 'red-1'");
	$white->sql('GRANT SELECT ON unit TO PUBLIC');
	units($_, 'all-1 red-2 red-3', 'granted') foreach $red, $scout;
	units($blue, 'all-1 blue-1 blue-2', 'granted');
	$white->sql('REVOKE SELECT ON unit FROM PUBLIC; GRANT SELECT (id, team) ON unit TO red; GRANT SELECT ON unit TO blue');
	$white->sql("INSERT INTO unit VALUES ('red-4', 'red', 'hidden')");
	units($_, 'all-1 red-2 red-3 red-4', 'some columns') foreach $red, $scout;
	is($red->sql("SELECT place IS NULL FROM unit WHERE id = 'red-4'"), 't', 'the others do not come');
	$white->sql('GRANT SELECT ON unit TO PUBLIC');
	$_->wait_until("SELECT place FROM unit WHERE id = 'red-4'", 'hidden', 'now they do') foreach $red, $scout;
	$white->sql('REVOKE USAGE ON SCHEMA public FROM PUBLIC, red');
	units($red, 'none', 'no way into the schema');
	$white->sql('GRANT USAGE ON SCHEMA public TO PUBLIC');
	units($_, 'all-1 red-2 red-3 red-4', 'and again') foreach $red, $scout;
};

subtest 'row-level security comes and goes' => sub {
	$white->sql("INSERT INTO base SELECT 'base-' || i, 'start' FROM generate_series(1, 3) i");
	$_->wait_until('SELECT count(*) FROM base', 3, 'all') foreach @all;
	$white->wait_until("SELECT count(*) FROM entanglement.holding WHERE encode(key, 'escape') LIKE '%base%'", 0,
		'nothing need be remembered of a table that is shown whole');
	$white->sql("CREATE POLICY one ON base USING (id <> 'base-2'); ALTER TABLE base ENABLE ROW LEVEL SECURITY");
	$_->wait_until("SELECT string_agg(id, ' ' ORDER BY id) FROM base", 'base-1 base-3', 'comes') foreach $red, $scout, $blue;
	$white->sql("INSERT INTO base VALUES ('base-4', 'new'); UPDATE base SET place = 'changed'");
	$_->wait_until("SELECT string_agg(id, ' ' ORDER BY id) FROM base WHERE place = 'changed'", 'base-1 base-3 base-4', 'goes on') foreach $red, $scout, $blue;
	$white->sql('ALTER TABLE base DISABLE ROW LEVEL SECURITY');
	$_->wait_until("SELECT string_agg(id, ' ' ORDER BY id) FROM base WHERE place = 'changed'", 'base-1 base-2 base-3 base-4', 'goes') foreach $red, $scout, $blue;
	$white->wait_until("SELECT count(*) FROM entanglement.holding WHERE encode(key, 'escape') LIKE '%base%'", 0, 'nothing is remembered any more');
	$white->sql('ALTER TABLE base OWNER TO red; ALTER TABLE base ENABLE ROW LEVEL SECURITY');
	$blue->wait_until('SELECT count(*) FROM base', 3, 'who does not own it');
	is($red->sql('SELECT count(*) FROM base'), 4, 'who owns it sees all');
	$white->sql('ALTER TABLE base FORCE ROW LEVEL SECURITY');
	$red->wait_until('SELECT count(*) FROM base', 3, 'if not forced');
};

subtest 'what decides is in another table' => sub {
	$white->sql(<<'SQL');
CREATE TABLE shared (id text, team text);
GRANT SELECT ON shared TO PUBLIC;
CREATE POLICY shared ON unit USING (id IN (SELECT s.id FROM shared s WHERE s.team = current_user));
INSERT INTO shared VALUES ('blue-1', 'red');
SELECT entanglement.refresh('red');
SQL
	units($_, 'all-1 blue-1 red-2 red-3 red-4', 'shared') foreach $red, $scout;
	$white->sql("DELETE FROM shared; SELECT entanglement.refresh('red')");
	units($_, 'all-1 red-2 red-3 red-4', 'not any more') foreach $red, $scout;
};

subtest 'a policy that fails' => sub {
	my $mark = $white->log_mark;

	$white->sql("INSERT INTO unit VALUES ('red-0', 'red', '0'), ('red-9', 'red', '9')");
	units($red, 'all-1 red-0 red-2 red-3 red-4 red-9', 'all');
	$white->sql("ALTER POLICY own ON unit USING (team = current_user AND (place !~ '^[0-9]' OR 1 / place::int > -1))");
	units($_, 'all-1 red-2 red-3 red-4 red-9', 'is one that hides') foreach $red, $scout;
	like($white->log_since($mark), qr/could not be sent: division by zero/, 'and the log says why');
	$white->sql("ALTER POLICY own ON unit USING (team = current_user)");
	units($_, 'all-1 red-0 red-2 red-3 red-4 red-9', 'mended') foreach $red, $scout;
};

subtest 'while nobody is there' => sub {
	$white->sql("SELECT entanglement.pause_peer('red')");
	$white->wait_state('red', 'paused');
	$white->sql("DROP POLICY open ON unit; UPDATE unit SET place = 'later' WHERE id = 'red-2'; DELETE FROM unit WHERE id = 'red-0'");
	$white->sql("UPDATE unit SET team = 'blue' WHERE id = 'red-9'");
	units($blue, 'blue-1 blue-2 red-9', 'the others go on');
	$white->cluster_of->restart;
	$white->sql("SELECT entanglement.resume_peer('red')");
	units($_, 'red-2 red-3 red-4', 'found out when the link is up') foreach $red, $scout;
	holdings('red', 'red-2 red-3 red-4', 'held');
};

subtest 'a long way' => sub {
	$white->sql("CREATE POLICY many ON unit TO red USING (id LIKE 'many%')");
	$white->sql("INSERT INTO unit SELECT 'many-' || i, 'none', i FROM generate_series(1, 20000) i");
	$_->wait_until("SELECT count(*) FROM unit WHERE id LIKE 'many%'", 20000, 'many') foreach $red, $scout;
	my $before = $white->peer('red');

	$white->sql("DROP POLICY many ON unit");
	$_->wait_until("SELECT count(*) FROM unit WHERE id LIKE 'many%'", 0, 'withdrawn') foreach $red, $scout;
	cmp_ok($white->peer('red')->{bytes_sent} - $before->{bytes_sent}, '<', 20000 * 25, 'at the cost of their keys');
	is($white->sql("SELECT count(*) FROM unit WHERE id LIKE 'many%'"), 20000, 'here they are');
	$white->sql("DELETE FROM unit WHERE id LIKE 'many%'");
	$white->drain('red');
};

subtest 'what changes unseen is not counted' => sub {
	my %gaps;
	my $have = $red->sql("SELECT have FROM entanglement.owners WHERE name = 'white'");

	foreach my $i (1 .. 20)
	{
		$white->sql("UPDATE unit SET place = 'unseen $i' WHERE id = 'blue-1'");
		$white->drain('red');
		my $now = $red->sql("SELECT have FROM entanglement.owners WHERE name = 'white'");

		$gaps{ $now - $have }++;
		$have = $now;
	}
	cmp_ok(scalar keys %gaps, '>', 5, 'the gaps between serials are any');
	units($red, 'red-2 red-3 red-4', 'it comes to nothing else');
};

subtest 'drain waits for what rights have changed' => sub {
	foreach my $round (1 .. 3)
	{
		foreach my $change (
			[ 'ALTER POLICY own ON unit USING (false)', 0 ],
			[ 'ALTER POLICY own ON unit USING (team = current_user)', 3 ],
			[ 'REVOKE USAGE ON SCHEMA public FROM PUBLIC, red', 0 ],
			[ 'GRANT USAGE ON SCHEMA public TO PUBLIC', 3 ])
		{
			$white->sql("$change->[0]; SELECT entanglement.drain('red')");
			is($red->sql('SELECT count(*) FROM unit'), $change->[1], $change->[0]);
		}
	}
};

no_trace($_, 'white-2', 'blue-2', 'captured') foreach $red, $scout;
no_trace($blue, 'white-2', 'red-3', 'red-4', 'many');
$_->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, 'no tombstones stay') foreach @all;
is($_->sql('SELECT count(*) FROM entanglement.parked'), 0, 'nothing is parked at ' . $_->name) foreach @all;

done_testing();
