# docs/policy.md, step by step: an exercise, a field team, a fleet. Each
# machine of the page is a database over TLS, in one of four clusters.
#
# Promise: every command of the page works in the order in which it stands,
# every output and every cell of "what each can see" is what the page shows,
# and where the page says that a peer has no trace of something, none is found in
# anything that the extension keeps there.
#
# How blocks are marked: Entanglement::Page.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Page;
use Entanglement::PKI;

my $page = slurp_file("$FindBin::RealBin/../docs/policy.md");
my %database = (
	exercise => [qw(white red blue)],
	field => [qw(centre anna ben lea)],
	fleet => [qw(company north south east)]);

# machine => its database, its cluster: the nth of each example share one
my %db = map { my $d = $_; map { $_ => $d } @{ $database{$d} } } keys %database;
my $pki = Entanglement::PKI->new;
my @cluster = map {
	Entanglement::Node->cluster(
		"policy$_",
		pki => $pki,
		conf => "entanglement.policy_interval = '1s'\n")
} 0 .. 3;
my %cluster;

foreach my $machines (values %database)
{
	$cluster{ $machines->[$_] } = $cluster[$_] foreach 0 .. $#$machines;
	$pki->client($_) foreach @$machines[ 1 .. $#$machines ];
}

# From the page's hosts and files to clusters on loopback.
sub here
{
	my ($text) = @_;
	my $dir = $pki->dir;

	$text =~ s{\bhost=(\w+)\.example\b}{
		'host=localhost hostaddr=127.0.0.1 port=' . $cluster{$1}->port}ge;
	$text =~ s{=/tls/}{=$dir/}g;
	return $text;
}

sub run_block
{
	my ($kind, $name, $text) = @_;
	my @command =
	  $kind eq 'sql'
	  ? (qw(psql -X -v ON_ERROR_STOP=1 -d), $db{$name})
	  : qw(bash -eu);
	my $out = '';

	local %ENV = $cluster{$name}->_get_env(PGAPPNAME => undef);
	IPC::Run::run(\@command, '<', \here($text), '>&', \$out,
		IPC::Run::timeout(deadline()));
	return ($out, $?);
}

# A cell of a table: what the query prints, looked at until it is so.
sub check_cell
{
	my ($name, $query, $shown) = @_;
	my $out;

	eval {
		wait_for("$name: $query",
			sub {
				$cluster{$name}->psql($db{$name}, $query, stdout => \$out);
				return $out eq $shown;
			});
	};
	return is($out, $shown, "$name: $query");
}

# ---- what is nowhere on a machine, once the table of its example is right ----

my %hidden = (
	red => [ 'Orca', 'will defect', 'out of fuel' ],
	blue => [ 'Wolf', 'Lynx', 'will defect' ],
	anna => ['snow on the ridge'],
	ben => ['wait at the bridge'],
	north => [ 'SOU-1', 'SOU-2', 'EAS-1' ],
	south => ['EAS-1'],
	east => [ 'NOR-1', 'SOU-1' ]);
my %there = (
	red => 'Perch',
	blue => 'Orca',
	anna => 'wait at the bridge',
	ben => 'snow on the ridge',
	north => 'NOR-2',
	south => 'NOR-2',
	east => 'EAS-1');

# Whether the machine's files, WAL included, have the text.
sub has_trace
{
	my ($name, $text) = @_;
	my $dir = $cluster{$name}->data_dir;
	my $out = '';

	$cluster{$name}->safe_psql('postgres', 'CHECKPOINT');
	IPC::Run::run([ qw(grep -rlaF --), $text, "$dir/base", "$dir/pg_wal" ],
		'>', \$out, '2>', \my $err);
	return $out ne '';
}

sub check_traces
{
	my ($name) = @_;

	return if !$hidden{$name};
	ok(has_trace($name, $there{$name}), "$name: '$there{$name}' is, or was, there");
	ok(!has_trace($name, $_), "$name: no trace of '$_'") foreach @{ $hidden{$name} };
	return;
}

# ---- what leaks, and mistakes: what the page says of each is so ----

my $units = 'SELECT count(*) FROM unit';
my $have = q(SELECT have FROM entanglement.owners WHERE name = 'white');
my $others = q(SELECT string_agg(name, ' ' ORDER BY name) FROM entanglement.owners WHERE NOT local);
my $latest = 'SELECT sqlstate, detail IS NULL FROM entanglement.requests ORDER BY made_at DESC LIMIT 1';
my $near = 'CREATE POLICY near ON unit AS RESTRICTIVE FOR SELECT TO team USING';

# Title in the page => steps: machine, SQL, what a query returns sooner or later
my %cases = (
	'Names of owners' => [
		[ 'red', $others, 'blue white' ],
		[ 'north', $others, 'company east south' ] ],
	'That something changed' => [
		[ 'white', q(UPDATE unit SET x = 10 WHERE name = 'Orca') ],
		[ 'red', $have, sub { look('white', 'SELECT serial FROM entanglement.owners WHERE local') } ] ],
	'Gaps in keys' => [
		[ 'red', q(SELECT string_agg(id::text, ' ' ORDER BY id) FROM unit), '2 3 6' ] ],
	'Unique values' => [
		[ 'red', q(INSERT INTO unit (team, name) VALUES ('red', 'Orca')) ],
		[ 'red', $latest, '23505|t' ] ],
	'The catalogs' => [
		[ 'white', 'ANALYZE unit' ],
		[ 'white', q(SET ROLE red; SELECT reltuples FROM pg_class WHERE oid = 'unit'::regclass), 6 ],
		[ 'white', q(SET ROLE red; SELECT count(*) FROM pg_policies WHERE tablename = 'unit'), 3 ] ],
	'What has been there' => [
		[ 'red', q(SELECT count(*) FROM unit WHERE name = 'Perch'), 0 ],
		[ 'red', 'CHECKPOINT', sub { has_trace('red', 'Perch') ? '' : 'no trace' } ] ],
	'A column whose GRANT ended' => [],
	'A superuser, or BYPASSRLS' => [
		[ 'white', 'ALTER ROLE red BYPASSRLS' ], [ 'red', $units, 6 ],
		[ 'white', 'ALTER ROLE red NOBYPASSRLS' ], [ 'red', $units, 3 ],
		[ 'white', 'ALTER ROLE red SUPERUSER' ], [ 'red', $units, 6 ],
		[ 'white', q(SELECT may_see FROM entanglement.peers WHERE name = 'red'), '1 of 1 tables, as SUPERUSER' ],
		[ 'white', q(DO $$ BEGIN PERFORM entanglement.add_peer('other', role => 'red'); EXCEPTION WHEN insufficient_privilege THEN NULL; END $$) ],
		[ 'white', q(SELECT count(*) FROM entanglement.peers WHERE name = 'other'), 0 ],
		[ 'white', 'ALTER ROLE red NOSUPERUSER' ], [ 'red', $units, 3 ] ],
	q(The table's owner) => [
		[ 'white', 'ALTER TABLE unit OWNER TO red' ], [ 'red', $units, 6 ],
		[ 'white', 'ALTER TABLE unit FORCE ROW LEVEL SECURITY' ], [ 'red', $units, 3 ],
		[ 'white', 'ALTER TABLE unit OWNER TO CURRENT_USER; ALTER TABLE unit NO FORCE ROW LEVEL SECURITY' ],
		[ 'red', $units, 3 ] ],
	'GRANT to PUBLIC' => [
		[ 'white', 'GRANT SELECT ON unit TO PUBLIC' ],
		[ 'red', 'SELECT waiting_for FROM entanglement.peers', 'public.unit.detected_by, public.unit.remark' ],
		[ 'white', 'REVOKE SELECT ON unit FROM PUBLIC' ],
		[ 'red', 'SELECT waiting_for FROM entanglement.peers', '' ] ],
	'A second policy to narrow the first' => [
		[ 'white', 'CREATE POLICY near ON unit FOR SELECT TO team USING (x < 100)' ], [ 'red', $units, 6 ],
		[ 'white', "DROP POLICY near ON unit; $near (x < 4)" ], [ 'red', $units, 1 ],
		[ 'white', 'DROP POLICY near ON unit' ], [ 'red', $units, 3 ] ],
	'A policy that depends on more than the row' => [
		[ 'white', "CREATE FUNCTION far() RETURNS int LANGUAGE sql STABLE AS 'SELECT 4'; $near (x < far())" ],
		[ 'red', $units, 1 ],
		[ 'white', "CREATE OR REPLACE FUNCTION far() RETURNS int LANGUAGE sql STABLE AS 'SELECT 100'" ],
		[ 'white', q(UPDATE unit SET y = 4 WHERE name = 'Lynx') ],
		[ 'red', q(SELECT y FROM unit WHERE name = 'Lynx'), 4 ],
		[ 'red', $units, 1 ],
		[ 'white', q(SELECT entanglement.refresh('red')), '' ], [ 'red', $units, 3 ],
		[ 'white', 'DROP POLICY near ON unit' ] ],
	'A policy that raises an error' => [
		[ 'white', "$near (1 / (x - 5)::int < 10)" ],
		[ 'red', q(SELECT string_agg(name, ' ' ORDER BY id) FROM unit), 'Pike Lynx' ],
		[ 'white', q(SELECT 1), sub { slurp_file($cluster{white}->logfile) =~ /could not be sent: division by zero/ ? 1 : 'not in the log' } ],
		[ 'white', 'DROP POLICY near ON unit' ], [ 'red', $units, 3 ] ],
	'session_user in a policy' => [
		[ 'red', q(CREATE POLICY p ON unit TO white USING (session_user = 'white'); ALTER TABLE unit ENABLE ROW LEVEL SECURITY) ],
		[ 'white', q(UPDATE unit SET y = 5 WHERE name = 'Lynx') ],
		[ 'red', 'SELECT sqlstate FROM entanglement.parked_rows', '42501' ],
		[ 'red', q(ALTER POLICY p ON unit USING (current_user = 'white')) ],
		[ 'red', q(SELECT y FROM unit WHERE name = 'Lynx'), 5 ] ],
	'A view' => [
		[ 'white', 'CREATE VIEW v AS SELECT id FROM unit; GRANT SELECT ON v TO team' ],
		[ 'white', 'SET ROLE red; SELECT count(*) FROM v', 6 ],
		[ 'white', 'ALTER VIEW v SET (security_invoker = true)' ],
		[ 'white', 'SET ROLE red; SELECT count(*) FROM v', 3 ] ],
	'A SECURITY DEFINER function' => [
		[ 'white', q(CREATE FUNCTION units() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM unit') ],
		[ 'white', 'SET ROLE red; SELECT units()', 6 ] ],
	'LEAKPROOF' => [
		[ 'white', <<'SQL' ],
CREATE TABLE told (name text);
GRANT SELECT, INSERT ON told TO team;
CREATE FUNCTION tell(name text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
$$ BEGIN INSERT INTO told VALUES (name); RETURN true; END $$;
SQL
		[ 'white', 'SET ROLE red; SELECT count(*) FROM unit WHERE tell(name)', 3 ],
		[ 'white', 'SELECT count(*) FROM told', 3 ],
		[ 'white', 'ALTER FUNCTION tell LEAKPROOF' ],
		[ 'white', 'SET ROLE red; SELECT count(*) FROM unit WHERE tell(name)', 3 ],
		[ 'white', q(SELECT count(*) FROM told WHERE name = 'Orca'), 1 ] ]);

sub look
{
	my ($name, $query) = @_;

	return $cluster{$name}->safe_psql($db{$name}, $query);
}

sub check_case
{
	my ($title) = @_;
	my $steps = delete $cases{$title};

	return fail("'$title' is tried") if !$steps;
	foreach my $step (@$steps)
	{
		my ($name, $sql, $expected) = @$step;

		if (!defined $expected) { look($name, $sql); next; }
		$expected = $expected->() if ref $expected;
		check_cell($name, $sql, $expected);
	}
	return pass("$title: as the page says");
}

# ---- the page ----

foreach my $step (read_page($page, keys %db))
{
	if ($step->{kind} eq 'table')
	{
		foreach my $row (@{ $step->{rows} })
		{
			my ($query, @cells) = @$row;

			check_cell($step->{machines}[$_], $query, $cells[$_])
			  foreach 0 .. $#cells;
		}
		check_traces($_) foreach @{ $step->{machines} };
		next;
	}
	foreach my $name (@{ $step->{machines} })
	{
		follow_block($name, $step->{text},
			defined $step->{shown} ? pattern_of($step->{shown}) : undef,
			sub { run_block($step->{kind}, $name, $step->{text}) });
	}
}

check_case($_) foreach $page =~ /^- \*\*(.+?)\*\*/mg;
is(join(', ', keys %cases), '', 'nothing is tried that the page does not say');

done_testing();
