# The life of a server: databases that are dropped, renamed and copied while
# workers are connected, an extension dropped and created again, a server
# without the library preloaded.
#
# Promise: workers stand in nobody's way and come back by themselves; capture
# loses nothing while they cannot run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('servers');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $ddl = 'CREATE TABLE item (id int PRIMARY KEY, v text)';

link_nodes($bob, $alice);
$_->define($ddl, 'item') foreach $alice, $bob;
$alice->sql("INSERT INTO item VALUES (1, 'one')");
$bob->sql("INSERT INTO item VALUES (2, 'two')");
converge([ $alice, $bob ], ['item'], 'in step');

subtest 'a database renamed' => sub {
	$cluster->safe_psql('postgres', 'ALTER DATABASE bob RENAME TO robert');
	$bob->{db} = 'robert';
	$bob->wait_connected('alice');
	$bob->sql("UPDATE item SET v = 'renamed' WHERE id = 2");
	$alice->sql("UPDATE item SET v = 'also' WHERE id = 1");
	converge([ $alice, $bob ], ['item'], 'its link comes back');
	$cluster->safe_psql('postgres', 'ALTER DATABASE robert RENAME TO bob');
	$bob->{db} = 'bob';
	$bob->wait_connected('alice');
};

subtest 'a database copied' => sub {
	$cluster->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE bob');
	is($cluster->safe_psql('copy', 'SELECT count(*) FROM item'), 2, 'with its rows');
	$bob->wait_connected('alice');
	$cluster->safe_psql('postgres', 'DROP DATABASE copy');
	$bob->sql("UPDATE item SET v = 'after copy' WHERE id = 2");
	converge([ $alice, $bob ], ['item'], 'the original goes on');
};

subtest 'a database dropped' => sub {
	my $carol = Entanglement::Node->database($cluster, 'carol');

	link_nodes($carol, $alice);
	$carol->define($ddl, 'item');
	converge([ $alice, $bob, $carol ], ['item'], 'a third node');
	$cluster->safe_psql('postgres', 'DROP DATABASE carol');
	$alice->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'carol'",
		't', 'loss');
	$alice->sql("SELECT entanglement.drop_peer('carol')");
	$alice->sql("INSERT INTO item VALUES (3, 'three')");
	converge([ $alice, $bob ], ['item'], 'the others go on');
};

subtest 'the extension dropped and created again' => sub {
	my $dora = Entanglement::Node->database($cluster, 'dora');
	my $id = $dora->sql('SELECT id FROM entanglement.node');

	$dora->define($ddl, 'item');
	$dora->sql("INSERT INTO item VALUES (1, 'x')");
	$dora->sql('SELECT entanglement.drain()');
	$dora->sql('DROP EXTENSION entanglement CASCADE');
	is( $dora->sql(
			"SELECT count(*) FROM pg_trigger WHERE tgrelid = 'item'::regclass"),
		0,
		'no trigger is left');
	is($dora->sql('SELECT v FROM item'), 'x', 'the rows are');
	$dora->sql("UPDATE item SET v = 'y'");
	$dora->wait_until(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = 'dora' AND backend_type LIKE 'entanglement%'",
		'0', 'end of its worker');
	$dora->sql('CREATE EXTENSION entanglement');
	isnt($dora->sql('SELECT id FROM entanglement.node'), $id, 'a new node');
	$dora->sql("SELECT entanglement.synchronize('item')");
	is($dora->sql('SELECT entanglement.drain()'), 't', 'its worker runs');
	is($dora->sql('SELECT entanglement.owner_of(i) FROM item i'),
		'dora', 'and owns the rows');
	$cluster->safe_psql('postgres', 'DROP DATABASE dora');
};

subtest 'a dump restored' => sub {
	my $dump = PostgreSQL::Test::Utils::tempdir() . '/bob.sql';
	my $erin;

	$bob->sql(
		q(CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
		CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
		INSERT INTO part VALUES (1, 'part')));
	$bob->sql("SELECT entanglement.synchronize('part')");
	$cluster->command_ok([ 'pg_dump', '-f', $dump, $bob->db ], 'is made');
	$cluster->safe_psql('postgres', 'CREATE DATABASE erin TEMPLATE template0');
	$cluster->command_ok(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'erin' ],
		'and restored without errors');
	$erin = bless { %$bob, name => 'erin', db => 'erin' }, ref $bob;
	$erin->sql("SELECT entanglement.become('new')");
	isnt(
		$erin->sql('SELECT id FROM entanglement.node'),
		$bob->sql('SELECT id FROM entanglement.node'),
		'as another node');
	$erin->sql("INSERT INTO part VALUES (2, 'own')");
	is($erin->sql('SELECT entanglement.drain()'), 't', 'whose worker runs');
	is( $erin->sql(
			"SELECT string_agg(entanglement.owner_of(p), ' ' ORDER BY id) FROM part p"),
		'bob erin',
		'and has rows of its own');
	$erin->sql('CREATE TABLE taken (id int PRIMARY KEY)');
	$erin->sql(
		'CREATE TRIGGER entanglement_capture AFTER INSERT ON taken EXECUTE FUNCTION suppress_redundant_updates_trigger()'
	);
	$erin->fails("SELECT entanglement.synchronize('taken')",
		'42710', 'already exists', "a trigger that is not ours is not replaced");
	$cluster->safe_psql('postgres', 'DROP DATABASE erin');
	$bob->sql('DROP TABLE part');
};

subtest 'a server without the library preloaded' => sub {
	$cluster->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
	$cluster->restart;
	$alice->sql("UPDATE item SET v = 'captured' WHERE id = 1");
	$alice->sql("INSERT INTO item VALUES (4, 'four')");
	$alice->sql('DELETE FROM item WHERE id = 3');
	is($alice->sql('SELECT DISTINCT state FROM entanglement.peers'),
		'not preloaded', 'the view says so');
	# SQL that needs what is preloaded: refused, or it has its effect later
	my $hint = 'HINT:  Add .* to "shared_preload_libraries" and restart';
	my $needs = "needs the library .* to be preloaded.*$hint";
	my $later = "WARNING:  55000: nothing is exchanged .*$hint";
	foreach my $case (
		[ 'SELECT entanglement.drain()', $needs ],
		[ "SELECT entanglement.hello('push', '')", $needs ],
		[ "SELECT entanglement.push('')", $needs ],
		[ "CALL entanglement.pull('')", $needs ],
		[ "SELECT entanglement.add_peer('new', privileged => true)", $later ],
		[ "SELECT entanglement.alter_peer('new', bandwidth => 1)", $later ],
		[ "SELECT entanglement.resume_peer('new')", $later ],
		[ 'SELECT entanglement.start_worker()', $later ])
	{
		my ($sql, $says) = @$case;
		my ($rc, $out, $err) = $alice->try($sql);

		like($err, qr/$says/s, "$sql says so");
	}
	$alice->sql("SELECT entanglement.drop_peer('new')");
	is($alice->sql('SELECT count(*) FROM entanglement.change'),
		3, 'changes are captured');
	my $eve = Entanglement::Node->database($cluster, 'eve');
	link_nodes($eve, $alice, nowait => 1);
	$eve->define($ddl, 'item');
	$eve->sql("INSERT INTO item VALUES (5, 'five'), (6, 'six')");
	$eve->sql('DELETE FROM item WHERE id = 6');
	$cluster->adjust_conf('postgresql.conf', 'shared_preload_libraries',
		"'entanglement'");
	$cluster->restart;
	converge([ $alice, $bob, $eve ], ['item'], 'and arrive when it is');
	is($bob->sql('SELECT id, v FROM item ORDER BY id'),
		"1|captured\n2|after copy\n4|four\n5|five",
		'all of them, those of a new node as well');
};

done_testing();
