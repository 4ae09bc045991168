# Three nodes in a chain over mutual TLS, alice - hub - bob: alice and bob dial
# hub and do not know each other.
#
# Promise: what one node commits, every node shows, with the same key, owner
# and serial; owners are known everywhere; nobody but the owner writes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;

my $pki = Entanglement::PKI->new;
my ($alice, $hub, $bob) =
  map { Entanglement::Node->create($_, pki => $pki) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);
my $ddl = <<'SQL';
CREATE TABLE location (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	name text NOT NULL,
	lat float8,
	lon float8
);
SQL

link_nodes($alice, $hub);
link_nodes($bob, $hub, host => '127.0.0.1', hostaddr => undef);
$_->define($ddl, 'location') foreach @all;

subtest 'links are mutual TLS and show it' => sub {
	is( $hub->sql(
			q(SELECT string_agg(DISTINCT usename || ' ' || client_dn, ', ' ORDER BY usename || ' ' || client_dn)
			    FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
			   WHERE ssl AND backend_type = 'client backend' AND client_addr IS NOT NULL)
		),
		'alice /CN=alice, bob /CN=bob',
		'hub serves alice and bob over TLS with client certificates');
	is($alice->peer('hub')->{fingerprint},
		$pki->fingerprint('hub-server'), 'alice pinned the certificate of hub');
	is($hub->peer('alice')->{fingerprint},
		$pki->fingerprint('alice'), 'hub pinned the certificate of alice');
	ok($alice->peer('hub')->{dialed}, 'alice dials hub');
	ok(!$hub->peer('alice')->{dialed}, 'hub does not dial alice');
	is($alice->peer('hub')->{last_error}, undef, 'no error is remembered');
};

subtest 'a row born at one end appears at the other as the same object' => sub {
	$alice->sql(
		"INSERT INTO location (name, lat, lon) VALUES ('lighthouse', 54.1, 7.9)");
	$bob->wait_until(
		"SELECT name, lat, lon FROM location",
		'lighthouse|54.1|7.9',
		'row of alice');
	is($bob->sql('SELECT id FROM location'),
		$alice->sql('SELECT id FROM location'), 'same key');
	is($bob->sql('SELECT entanglement.owner_of(l) FROM location l'),
		'alice', 'bob says that alice owns it');
	is($bob->versions('location'), $alice->versions('location'),
		'same owner, epoch and serial at the far end');
	is($hub->versions('location'), $alice->versions('location'),
		'and in the middle');
};

subtest 'three nodes each commit one row and everybody shows all three' => sub {
	$hub->sql("INSERT INTO location (name) VALUES ('row of hub')");
	$bob->sql("INSERT INTO location (name) VALUES ('row of bob')");
	foreach my $node (@all)
	{
		$node->wait_until(
			'SELECT entanglement.owner_of(l), name FROM location l ORDER BY 1',
			"alice|lighthouse\nbob|row of bob\nhub|row of hub",
			'three rows');
	}
	converge(\@all, ['location'], 'rows are equal');
	is($_->versions('location'), $hub->versions('location'),
		'versions at ' . $_->name)
	  foreach $alice, $bob;
};

subtest 'an update travels both ways through the middle' => sub {
	$alice->sql("UPDATE location SET lat = 55 WHERE name = 'lighthouse'");
	$bob->sql("UPDATE location SET lon = -3 WHERE name = 'row of bob'");
	$_->wait_until(
		'SELECT name, lat, lon FROM location WHERE lat IS NOT NULL OR lon IS NOT NULL ORDER BY 1',
		"lighthouse|55|7.9\nrow of bob||-3", 'both updates')
	  foreach @all;
};

subtest 'each node learns exactly the owners that exist' => sub {
	my $ids = 'SELECT name, id FROM entanglement.owners ORDER BY id';
	my $spare = $bob->sql("SELECT entanglement.create_owner('spare')");

	$_->wait_until(
		"SELECT string_agg(name, ' ' ORDER BY name) FROM entanglement.owners",
		'alice bob hub spare', 'four owners')
	  foreach @all;
	is($alice->sql($ids), $bob->sql($ids), 'alice and bob know the same');
	is($hub->sql($ids), $bob->sql($ids), 'hub too');
	is( $alice->sql(
			'SELECT name, local, peer, distance FROM entanglement.owners ORDER BY name'
		),
		"alice|t||0\nbob|f|hub|2\nhub|f|hub|1\nspare|f|hub|2",
		'alice reaches them through hub');
	is( $hub->sql(
			'SELECT name, local, peer, distance FROM entanglement.owners ORDER BY name'
		),
		"alice|f|alice|1\nbob|f|bob|1\nhub|t||0\nspare|f|bob|1",
		'hub has one route to each');
	$bob->sql(
		"SET entanglement.owner = 'spare'; INSERT INTO location (name) VALUES ('spare row')");
	$alice->wait_until(
		"SELECT entanglement.owner_of(l) FROM location l WHERE name = 'spare row'",
		'spare', 'row of the second owner of bob');
	is($alice->sql("SELECT id FROM entanglement.owners WHERE name = 'spare'"),
		$spare, 'its id is what create_owner returned');
};

subtest 'nobody but the owner writes' => sub {
	my $before = $alice->digest('location');

	is( $alice->sql(<<'SQL'), "$before\nf", 'what others write to a row of bob is left as it was');
BEGIN;
UPDATE location SET lat = 1 WHERE name = 'row of bob';
DELETE FROM location WHERE name = 'row of bob';
SELECT count(*) || ':' || coalesce(md5(string_agg(md5(t::text), ''
	ORDER BY t::text COLLATE "C")), '-') FROM location t;
SELECT EXISTS (SELECT FROM entanglement.change);
ROLLBACK;
SQL
	is($alice->digest('location'), $before, 'and nothing changed');
};

subtest 'a request crosses the chain, and its answer comes back' => sub {
	is( $alice->sql(<<'SQL'), "accepted\n12.5", 'accepted, and the row is as the owner has it');
UPDATE location SET lat = 12.5 WHERE name = 'row of bob';
SELECT entanglement.wait_for(entanglement.last_request());
SELECT lat FROM location WHERE name = 'row of bob';
SQL
	is($bob->sql("SELECT lat, entanglement.owner_of(l) FROM location l WHERE name = 'row of bob'"),
		'12.5|bob', 'who has it');
	$bob->sql("ALTER TABLE location ADD CONSTRAINT north CHECK (lat <= 90)");
	$alice->fails(
		"UPDATE location SET lat = 91 WHERE name = 'row of bob'; SELECT entanglement.wait_for(entanglement.last_request())",
		'23514', 'violates check constraint "north"', 'refused under the SQLSTATE of the owner');
	$bob->sql('ALTER TABLE location DROP CONSTRAINT north');
	converge(\@all, ['location'], 'all agree');
};

subtest 'drain means durable at the peer' => sub {
	foreach my $i (1 .. 10)
	{
		$alice->sql("UPDATE location SET lon = $i WHERE name = 'lighthouse'");
		$alice->drain('hub');
		is($hub->sql("SELECT lon FROM location WHERE name = 'lighthouse'"),
			$i, "value $i is at hub when drain returns");
	}
	$hub->drain;
	is($bob->sql("SELECT lon FROM location WHERE name = 'lighthouse'"),
		10, 'and at bob after drain of all peers of hub');

	# what was sent but cannot be stored yet: pushed to hub, pulled by bob
	foreach my $way ([ $alice, $hub, 'lighthouse' ], [ $hub, $bob, 'row of hub' ])
	{
		my ($from, $to, $row) = @$way;
		my $to_name = $to->name;
		my $lock = $to->session;

		$lock->query_safe('BEGIN; LOCK TABLE location');
		$from->sql("UPDATE location SET lon = 11 WHERE name = '$row'");
		$to->wait_until(
			q(SELECT count(*) > 0 FROM pg_locks
			   WHERE NOT granted AND relation = 'location'::regclass),
			't', "$to_name waits for the table");
		is($from->sql("SELECT entanglement.drain('$to_name', '1 s')"),
			'f', "and drain for $to_name");
		$lock->query_safe('COMMIT');
		$lock->quit;
		$from->drain($to_name);
	}
};

subtest 'each node deletes its own row while connected' => sub {
	$alice->sql("DELETE FROM location WHERE name = 'lighthouse'");
	$hub->sql("DELETE FROM location WHERE name = 'row of hub'");
	$bob->sql("DELETE FROM location WHERE name IN ('row of bob', 'spare row')");
	$_->wait_until('SELECT count(*) FROM location', '0', 'no rows') foreach @all;
	is($_->versions('location'), '', 'no objects at ' . $_->name)
	  foreach @all;
};

subtest 'each node deletes its own row while disconnected' => sub {
	$_->sql("INSERT INTO location (name) VALUES ('" . $_->name . "')")
	  foreach @all;
	$_->wait_until('SELECT count(*) FROM location', '3', 'three rows')
	  foreach @all;

	$_->sql("SELECT entanglement.pause_peer('hub')") foreach $alice, $bob;
	$hub->wait_until(
		"SELECT count(*) FROM entanglement.peers WHERE state = 'connected'",
		'0', 'loss of both links');
	$_->sql("DELETE FROM location WHERE name = '" . $_->name . "'")
	  foreach @all;
	foreach my $node (@all)
	{
		is( $node->sql(
				"SELECT string_agg(name, ' ' ORDER BY name) FROM location"),
			join(' ', grep { $_ ne $node->name } qw(alice bob hub)),
			$node->name . ' still shows the other two');
	}

	$alice->sql("SELECT entanglement.resume_peer('hub')");
	$_->wait_until('SELECT name FROM location', 'bob',
		'only the row of bob, who is away')
	  foreach $alice, $hub;
	is($bob->sql('SELECT count(*) FROM location'), 2, 'bob has not heard');
	$bob->sql("SELECT entanglement.resume_peer('hub')");
	$_->wait_until('SELECT count(*) FROM location', '0', 'no rows') foreach @all;
};

# What 005_capture.pl shows for every way to write and 009_fairness.pl for a
# narrow link, here once along the whole chain.
subtest 'what is not committed, rolled back or superseded is never sent' => sub {
	my $open = $alice->session;
	my $id = '00000000-0000-4000-8000-000000000002';
	my $never =
	  "SELECT count(*) FROM audit_location WHERE body->>'name' LIKE 'never%'";

	$_->audit('location') foreach $hub, $bob;
	$alice->sql("INSERT INTO location VALUES ('$id', 'first')");
	$bob->wait_until('SELECT name FROM location', 'first', 'row of alice');
	$open->query_safe("BEGIN; UPDATE location SET name = 'never open'; INSERT INTO location (name) VALUES ('never born')");
	$alice->sql(<<"SQL");
BEGIN;
INSERT INTO location (name) VALUES ('never rolled back');
ROLLBACK;
BEGIN;
INSERT INTO location (name) VALUES ('kept');
SAVEPOINT s;
UPDATE location SET name = 'never to the savepoint' WHERE name = 'kept';
ROLLBACK TO s;
COMMIT;
SQL
	$alice->drain;
	$hub->drain;
	is($bob->sql("SELECT string_agg(name, ' ' ORDER BY name) FROM location"),
		'first kept', 'who commits later holds nobody up');
	$open->query_safe('ROLLBACK');
	$open->quit;

	# hub and bob are away when a value is superseded
	$alice->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'",
		't', 'pause');
	$alice->sql("UPDATE location SET name = 'never seen' WHERE id = '$id'");
	$alice->wait_folded;
	$alice->sql("UPDATE location SET name = 'last' WHERE id = '$id'");
	$alice->sql("SELECT entanglement.resume_peer('hub')");
	$bob->wait_until("SELECT name FROM location WHERE id = '$id'", 'last', 'the last value');
	is($_->sql($never), 0, 'nothing else ever came to ' . $_->name)
	  foreach $hub, $bob;
};

subtest 'an update storm on one row does not delay another row' => sub {
	my $storm = $alice->session;
	my $hot = "SELECT count(*) FROM audit_location WHERE body->>'name' = 'hot'";

	$alice->sql("INSERT INTO location (name, lat) VALUES ('hot', 0), ('calm', 0)");
	$bob->wait_until("SELECT count(*) FROM location WHERE name IN ('hot', 'calm')", '2', 'rows');
	$storm->{stdin} .= <<'SQL';
DO $$ BEGIN
	FOR i IN 1 .. 1000000 LOOP
		UPDATE location SET lat = i WHERE name = 'hot';
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM location WHERE name = 'calm' AND lat = 6);
	END LOOP;
END $$;
\echo over
SQL
	$storm->{run}->pump_nb;
	$bob->wait_until("SELECT ($hot) > 20", 't', 'storm');
	foreach my $i (1 .. 5)
	{
		my $at = $alice->sql(
			"UPDATE location SET lat = $i WHERE name = 'calm'; SELECT lat FROM location WHERE name = 'hot'");

		$bob->wait_until("SELECT lat FROM location WHERE name = 'calm'", $i, "calm row, $i");
		# of what was committed after it, only what was under way with it
		my $overtook = $bob->sql(<<"SQL");
SELECT count(*) FROM audit_location
 WHERE body->>'name' = 'hot' AND (body->>'lat')::float8 > $at
   AND n < (SELECT min(n) FROM audit_location
			 WHERE body->>'name' = 'calm' AND (body->>'lat')::float8 = $i)
SQL
		cmp_ok($overtook, '<=', 3, "overtaken by $overtook states of the hot row");
	}
	my $updates = $alice->sql("SELECT lat FROM location WHERE name = 'hot'");
	$alice->sql("UPDATE location SET lat = 6 WHERE name = 'calm'");
	PostgreSQL::Test::Utils::pump_until($storm->{run}, $storm->{timeout},
		\$storm->{stdout}, qr/over/);
	is($storm->{stderr}, '', 'the storm went on until it was told to end');
	$storm->quit;
	cmp_ok($bob->sql($hot), '<', $updates, "of $updates states not all came");
	converge(\@all, ['location'], 'the last one did');
	$alice->sql('DELETE FROM location');
	$_->wait_until('SELECT count(*) FROM location', '0', 'no rows') foreach @all;
};

subtest 'a key deleted by one owner can be born again by another' => sub {
	my $id = '00000000-0000-4000-8000-000000000001';

	$alice->sql("INSERT INTO location VALUES ('$id', 'first', 1, 1)");
	$bob->wait_until("SELECT name FROM location WHERE id = '$id'",
		'first', 'row of alice');
	$alice->sql("DELETE FROM location WHERE id = '$id'");
	$bob->wait_until("SELECT count(*) FROM location WHERE id = '$id'",
		'0', 'delete');
	$bob->sql("INSERT INTO location VALUES ('$id', 'second', 2, 2)");
	$alice->wait_until(
		"SELECT name, entanglement.owner_of(l) FROM location l WHERE id = '$id'",
		'second|bob', 'row of bob under the same key');
	converge(\@all, ['location'], 'all agree');
};

done_testing();
