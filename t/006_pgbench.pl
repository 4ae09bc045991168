# The workload everybody has: pgbench on alice, an application that knows
# nothing of us, while objects move on bob. alice and bob dial hub over TLS.
#
# Promise: when the writers stop, all three nodes hold equal rows;
# pgbench_history, which has no key, is refused with a hint.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;

my $pki = Entanglement::PKI->new;
my ($alice, $hub, $bob) =
  map { Entanglement::Node->create($_, pki => $pki) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);
my @bench = qw(pgbench_accounts pgbench_branches pgbench_tellers);
my %tables = ((map { $_ => undef } @bench), mover => undef);

sub pgbench
{
	my ($node, @args) = @_;

	return [
		$node->cluster_of->installed_command('pgbench'),
		'-h', $node->cluster_of->host,
		'-p', $node->cluster_of->port,
		@args, $node->db
	];
}

sub run_ok
{
	my ($command, $name) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run($command, '<', \undef, '>', \$out, '2>', \$err);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($ok, $name) or diag $out, $err;
	return $out . $err;
}

link_nodes($alice, $hub);
link_nodes($bob, $hub);
run_ok(pgbench($alice, '-i', '-q', '-s', 1), 'pgbench -i on alice');
run_ok(pgbench($_, '-i', '-q', '-I', 'dtp'), 'tables on ' . $_->name)
  foreach $hub, $bob;
foreach my $node (@all)
{
	# bob holds its rows before alice's come, hub in the end
	$node->define(
		'CREATE TABLE mover (id int PRIMARY KEY, lat float8, lon float8, heading float4, moved timestamptz)',
		'mover');
	$node->sql("SELECT entanglement.synchronize('$_')") foreach @bench;
	$node->fails(
		"SELECT entanglement.synchronize('pgbench_history')",
		'55000',
		'table "pgbench_history" has no primary key\nHINT:  Add one, or name a unique index',
		'pgbench_history is refused at ' . $node->name);
}
is( $alice->sql(
		"SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pgbench_history'::regclass"
	),
	0,
	'and stays an ordinary table');
converge(\@all, \%tables, 'what pgbench -i made is at all three');
is($bob->sql('SELECT count(*) FROM pgbench_accounts'),
	100_000, '100,000 accounts');

$bob->sql(<<'SQL');
INSERT INTO mover
SELECT i, 50 + i * 0.01, 8 + i * 0.01, i % 360, now() FROM generate_series(1, 200) i
SQL
my $script = $bob->cluster_of->basedir . '/move.sql';
append_to_file($script, <<'SQL');
\set id random(1, 200)
UPDATE mover SET
	lat = lat + 0.001 * cos(radians(heading)),
	lon = lon + 0.001 * sin(radians(heading)),
	heading = heading + random() * 10 - 5,
	moved = clock_timestamp()
 WHERE id = :id;
SQL

my ($out1, $out2) = ('', '');
my $first = IPC::Run::start(
	pgbench($alice, '-n', '-c', 4, '-j', 2, '-t', 500, '-P', 1),
	'<', \undef, '>&', \$out1);
my $second = IPC::Run::start(
	pgbench($bob, '-n', '-c', 2, '-t', 2000, '-f', $script),
	'<', \undef, '>&', \$out2);
ok($first->finish, 'pgbench ran on alice') or diag $out1;
ok($second->finish, 'objects moved on bob') or diag $out2;
unlike($out1, qr/ERROR|failed: [1-9]/, 'without an error');
unlike($out2, qr/ERROR|failed: [1-9]/, 'nor there');
is($alice->sql('SELECT count(*) FROM pgbench_history'),
	2000, 'every transaction is in the history');
converge(\@all, \%tables, 'all three nodes hold equal rows');
foreach my $node (@all)
{
	is( $node->sql(
			'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)'
		),
		't',
		'the books balance at ' . $node->name);
}
is($hub->sql('SELECT DISTINCT entanglement.owner_of(m) FROM mover m'),
	'bob', 'movers belong to bob');
is( $hub->sql(
		'SELECT DISTINCT entanglement.owner_of(b) FROM pgbench_branches b'),
	'alice',
	'branches to alice');
cmp_ok($hub->peer('bob')->{objects_received},
	'<=', 4200, 'no change travelled twice');

# truncate, COPY and vacuum of a table in step
run_ok(pgbench($alice, '-i', '-q', '-I', 'gv'), 'pgbench -i -I gv');
converge(\@all, \%tables, 'data generated anew (TRUNCATE and COPY) follow');

# an application without rights on anything of ours
$alice->sql(<<'SQL');
CREATE ROLE app LOGIN;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
SQL
run_ok(
	pgbench($alice, '-n', '-U', 'app', '-c', 2, '-t', 100),
	'pgbench as a role that has rights on its tables only');
converge(\@all, \%tables, 'its transactions follow too');

done_testing();
