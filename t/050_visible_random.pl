# What peers may see, at random: white has all units; red and blue see some of
# them through links that are written down; scout has what red or blue have,
# whichever is its way to white. Rows, policies, grants, memberships and what
# policies read change, links are cut at any byte, the server crashes.
#
# Promise: in the end each has just what its role sees at white, scout just what its
# way has; and nothing that passed on a link, as it is before encryption, holds a
# key or a value that the peer's role had not been able to see by then.
#
# Seeds are printed; ENT_SEED repeats one, ENT_ROUNDS is how many rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Proxy;

my $seed = $ENV{ENT_SEED} // (time() ^ ($$ << 8)) % 1_000_000;
my $rounds = $ENV{ENT_ROUNDS} // ($ENV{ENT_LONG} ? 40 : 3);
my $steps = 50;
my @teams = qw(red blue white all);
my @roles = qw(red blue);

note "seed $seed";
srand $seed;

sub any { return $_[ int rand @_ ]; }
sub once_in { return rand($_[0]) < 1; }

my $cluster = Entanglement::Node->cluster('visible',
	hba => 'host all all 127.0.0.1/32 trust',
	conf => "listen_addresses = '127.0.0.1'\nentanglement.require_tls = off\nentanglement.policy_interval = '1s'\n"
	  # what is written down has to be legible
	  . "entanglement.compression_level = 0\n");
my %node = map { $_ => Entanglement::Node->database($cluster, $_) } qw(white red blue scout);
my $white = $node{white};
my %record = map { $_ => PostgreSQL::Test::Utils::tempdir } @roles;
my %proxy = map { $_ => Entanglement::Proxy->new(port => $cluster->port, record => $record{$_}) } @roles;
my $schema = <<'SQL';
CREATE TABLE unit (id text PRIMARY KEY, team text NOT NULL, place text, note text);
CREATE TABLE base (id text PRIMARY KEY, place text);
SQL

$white->sql(<<"SQL");
$schema
CREATE TABLE shared (id text, team text);
CREATE ROLE staff;
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON unit USING (team = current_user);
CREATE POLICY staff ON unit TO staff USING (team = 'white');
CREATE POLICY shared ON unit USING (id IN (SELECT s.id FROM shared s WHERE s.team = current_user));
CREATE FUNCTION seen_by(who text, which regclass) RETURNS text LANGUAGE plpgsql AS \$\$
DECLARE result text;
BEGIN
	PERFORM set_config('role', who, true);
	EXECUTE format('SELECT string_agg(t::text, E''\\n'' ORDER BY id) FROM %s t', which) INTO result;
	PERFORM set_config('role', 'none', true);
	RETURN coalesce(result, '');
EXCEPTION WHEN insufficient_privilege THEN
	PERFORM set_config('role', 'none', true);
	RETURN '';
END \$\$;
SQL
$node{$_}->sql($schema) foreach qw(red blue scout);
$_->sql("SELECT entanglement.synchronize('unit'); SELECT entanglement.synchronize('base')") foreach values %node;
link_nodes($node{$_}, $white, host => 'localhost', hostaddr => '127.0.0.1',
	port => $proxy{$_}->port, sslmode => 'disable') foreach @roles;
link_nodes($node{scout}, $node{$_}) foreach @roles;
# else red could see through scout what blue does
$node{$_}->sql("SELECT entanglement.bind_owner('white', 'white')") foreach @roles;

# ---- what happens ----

my $tokens = 0;

# A word that is not like any other.
sub token { return sprintf '%s%06dq', $_[0], ++$tokens; }

my %seen = map { $_ => {} } @roles;
my %can = map { $_ => '' } @roles;
my $psql;

# In a session that stays open until the server crashes.
sub white
{
	my ($sql) = @_;

	$psql //= $white->session;
	return $psql->query_safe("SET client_min_messages = error;\n$sql");
}

sub crash
{
	$cluster->stop('immediate');
	eval { $psql->quit };
	undef $psql;
	$cluster->start;
	return '';
}

# What the roles can see now.
sub look
{
	foreach my $role (@roles)
	{
		my $all = white("SELECT seen_by('$role', 'unit') UNION ALL SELECT seen_by('$role', 'base')");

		$seen{$role}{$_} = 1 foreach $all =~ /[kv]\d{6}q/g;
		$can{$role} = $all;
	}
	return;
}

my @keys;

sub insert
{
	my $id = @keys && once_in(4) ? any(@keys) : token('k');

	push @keys, $id;
	return sprintf "INSERT INTO unit VALUES ('%s', '%s', '%s', '%s') ON CONFLICT DO NOTHING",
	  $id, any(@teams), token('v'), token('v');
}

my @happens = (
	[ 8, \&insert ],
	[ 8, sub { sprintf "UPDATE unit SET place = '%s' WHERE id = '%s'", token('v'), any(@keys) } ],
	[ 6, sub { sprintf "UPDATE unit SET team = '%s' WHERE id = '%s'", any(@teams), any(@keys) } ],
	[ 2, sub { sprintf "UPDATE unit SET team = '%s', note = '%s'", any(@teams), token('v') } ],
	[ 5, sub { sprintf "DELETE FROM unit WHERE id = '%s'", any(@keys) } ],
	[ 3, sub { once_in(2) ? 'DROP POLICY IF EXISTS open ON unit' :
		  "DROP POLICY IF EXISTS open ON unit; CREATE POLICY open ON unit USING (team = 'all')" } ],
	[ 3, sub { (once_in(2) ? 'GRANT staff TO ' : 'REVOKE staff FROM ') . any(@roles) } ],
	[ 2, sub { (once_in(3) ? 'REVOKE SELECT ON unit FROM ' : 'GRANT SELECT ON unit TO ') . any(@roles) } ],
	[ 1, sub { 'ALTER TABLE unit ' . (once_in(3) ? 'DISABLE' : 'ENABLE') . ' ROW LEVEL SECURITY' } ],
	[ 3, sub { sprintf "INSERT INTO base VALUES ('%s', '%s')", token('k'), token('v') } ],
	[ 1, sub { sprintf "DELETE FROM base WHERE id = (SELECT min(id) FROM base)" } ],
	[ 2, sub { once_in(2) ? 'ALTER TABLE base DISABLE ROW LEVEL SECURITY; DROP POLICY IF EXISTS part ON base' :
		  "DROP POLICY IF EXISTS part ON base; CREATE POLICY part ON base USING (id > '" . any(@keys) . "'); ALTER TABLE base ENABLE ROW LEVEL SECURITY" } ],
	[ 3, sub { my $role = any(@roles); sprintf "%s; SELECT entanglement.refresh('%s')",
		  once_in(2) ? "DELETE FROM shared WHERE team = '$role'" :
		  sprintf("INSERT INTO shared VALUES ('%s', '%s')", any(@keys), $role), $role } ],
	[ 3, sub { $proxy{ any(@roles) }->cut; '' } ],
	[ 3, sub { $proxy{$_}->open foreach @roles; '' } ],
	[ 3, sub { $proxy{ any(@roles) }->cut_after(any('up', 'down'), int rand 4000); '' } ],
	[ 1, \&crash ],
	[ 1, sub { sprintf "SELECT entanglement.resync('%s')", any(@roles) } ]);

sub step
{
	my $n = 0;

	$n += $_->[0] foreach @happens;
	my $at = int rand $n;

	foreach (@happens)
	{
		$at -= $_->[0];
		next if $at >= 0;
		my $sql = $_->[1]->();

		note "  $sql" if $sql ne '';
		white($sql) if $sql ne '';
		last;
	}
	look();
	return;
}

# ---- what is true in the end ----

sub rows
{
	my ($node) = @_;

	return join '', map { $node->sql("SELECT t::text FROM $_ t ORDER BY id") . "\n" } qw(unit base);
}

# What passed on a peer's link so far and should not have.
sub leaks
{
	my ($role) = @_;
	my %leak;

	foreach my $file (glob "$record{$role}/*")
	{
		my $bytes = slurp_file($file);

		$leak{$_} = $file foreach grep { !$seen{$role}{$_} } $bytes =~ /[kv]\d{6}q/g;
	}
	return join ', ', map { "$_ in $leak{$_}" } sort keys %leak;
}

push @keys, token('k');
foreach my $round (1 .. $rounds)
{
	note "round $round";
	step() foreach 1 .. $steps;
	$proxy{$_}->open foreach @roles;
	# whatever is compared, too
	white("SELECT entanglement.resync('$_')") foreach @roles;
	# a policy that depends on another table may have been overtaken
	white("SELECT entanglement.refresh('$_')") foreach @roles;
	look();
	foreach my $role (@roles)
	{
		# what is withdrawn may leave nothing
		(my $expected = $can{$role}) =~ s/^\n+|\n+$//g;
		my $is = '';
		my $ok = eval {
			wait_for("$role to have what it may see", sub {
				($is = rows($node{$role})) =~ s/^\n+|\n+$//g;
				return $is eq $expected;
			});
		};

		ok($ok, "round $round: $role has what it may see") or diag "is:\n$is\nmay see:\n$expected\n", $white->report, $node{$role}->report;
	}
	my ($way, $is, $expected);
	my $ok = eval {
		wait_for('scout to have what its way has', sub {
			$way = $node{scout}->sql("SELECT peer FROM entanglement.owners WHERE name = 'white'");
			return 0 unless $node{$way};
			($is, $expected) = (rows($node{scout}), rows($node{$way}));
			return $is eq $expected;
		});
	};
	ok($ok, "round $round: scout has what its way ($way) has") or diag "is:\n$is\nshould be:\n$expected\n", $node{scout}->report;
	is(leaks($_), '', "round $round: nothing else passed to $_") foreach @roles;
	last if !Test::More->builder->is_passing;
}
is($_->sql('SELECT count(*) FROM entanglement.parked'), 0, 'nothing is parked at ' . $_->name) foreach values %node;
cmp_ok($tokens, '>', 20, 'something happened');
$psql->quit;
$_->stop foreach values %proxy;

done_testing();
