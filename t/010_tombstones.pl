# Deletes: a chain of databases alice - hub - bob, and carol who comes late.
#
# Promise: a delete is remembered until every peer has heard, and no longer;
# who missed it, however long ago, still ends with the rows that live.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('tombstones');
my ($alice, $hub, $bob, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob carol);
my @all = ($alice, $hub, $bob);
my $count = 'SELECT count(*) FROM entanglement.tombstone';

link_nodes($alice, $hub);
link_nodes($bob, $hub);
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item')
  foreach @all, $carol;
$alice->sql("INSERT INTO item SELECT i, 'alice' FROM generate_series(1, 100) i");
$bob->sql("INSERT INTO item SELECT i, 'bob' FROM generate_series(101, 200) i");
converge(\@all, ['item'], 'in step');

subtest 'tombstones go when everybody has heard' => sub {
	$alice->sql('DELETE FROM item WHERE id <= 10');
	$bob->sql('DELETE FROM item WHERE id > 190');
	converge(\@all, ['item'], 'deletes arrive');
	$_->wait_until($count, '0', 'tombstones collected') foreach @all;
	is($hub->sql('SELECT count(*) FROM item'), 180, 'the rows are gone');
};

subtest 'they stay while a peer has not heard' => sub {
	$bob->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'bob'",
		't', 'pause');
	$alice->sql('DELETE FROM item WHERE id BETWEEN 11 AND 20');
	converge([ $alice, $hub ], { item => 'id, v' }, 'hub has heard');
	$alice->wait_until($count, '0', 'alice forgets: her only peer has heard');
	# a second round of deletes is collected only if the first could be
	is($hub->sql($count), 10, 'hub remembers for bob');
	$hub->cluster_of->restart;
	$hub->wait_connected('alice');
	is($hub->sql($count), 10, 'also after a restart');
	$bob->sql("SELECT entanglement.resume_peer('hub')");
	converge(\@all, ['item'], 'bob hears when he returns');
	$_->wait_until($count, '0', 'tombstones collected') foreach @all;
};

subtest 'a peer that is dropped holds nothing up' => sub {
	$bob->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until(
		"SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'bob'",
		't', 'pause');
	$alice->sql('DELETE FROM item WHERE id BETWEEN 21 AND 30');
	$hub->wait_until("SELECT count(*) FROM item WHERE id BETWEEN 21 AND 30",
		'0', 'deletes at hub');
	is($hub->sql($count), 10, 'hub remembers for bob');
	$hub->sql("SELECT entanglement.drop_peer('bob')");
	$hub->wait_until($count, '0', 'tombstones collected once bob is dropped');
	is($bob->sql("SELECT count(*) FROM item WHERE id BETWEEN 21 AND 30"),
		10, 'bob still has the rows');
};

subtest 'who returns after the tombstones have gone drops the dead rows' => sub {
	$alice->sql("UPDATE item SET v = 'changed' WHERE id = 31");
	$alice->drain('hub');
	$hub->sql("SELECT entanglement.add_peer('bob', NULL, 'bob')");
	$bob->sql("SELECT entanglement.resume_peer('hub')");
	converge(\@all, ['item'], 'bob drops what no longer lives');
	is($bob->sql('SELECT count(*) FROM item'), 160, '70 of alice, 90 of bob');
	is($alice->sql("SELECT count(*) FROM item WHERE v = 'bob'"),
		90, 'rows of bob were not touched');
	$_->wait_until($count, '0', 'no tombstones') foreach @all;
};

subtest 'who comes first after the tombstones have gone' => sub {
	link_nodes($carol, $hub);
	converge([ @all, $carol ], ['item'], 'carol gets the living rows');
	$alice->sql('DELETE FROM item WHERE id = 31');
	$carol->wait_until('SELECT count(*) FROM item WHERE id = 31',
		'0', 'and hears of deletes from then on');
	$_->wait_until($count, '0', 'no tombstones') foreach @all, $carol;
};

subtest 'delete and birth in turn' => sub {
	$carol->sql("SELECT entanglement.pause_peer('hub')");
	$alice->sql(<<'SQL');
DO $$ BEGIN
	FOR i IN 1..50 LOOP
		DELETE FROM item WHERE id = 40;
		COMMIT;
		INSERT INTO item VALUES (40, 'life ' || i);
		COMMIT;
	END LOOP;
END $$;
DELETE FROM item WHERE id = 41;
INSERT INTO item VALUES (42000, 'brief');
DELETE FROM item WHERE id = 42000;
SQL
	converge(\@all, ['item'], 'the last life is everywhere');
	is($bob->sql('SELECT v FROM item WHERE id = 40'), 'life 50', 'the fiftieth');
	$carol->sql("SELECT entanglement.resume_peer('hub')");
	converge([ @all, $carol ], ['item'], 'also for who was away');
	$_->wait_until($count, '0', 'no tombstones') foreach @all, $carol;
};

subtest 'while the link is busy' => sub {
	$alice->sql("SELECT entanglement.create_owner('alice too')");
	$alice->drain('hub');
	$alice->sql("SELECT entanglement.alter_peer('hub', bandwidth => 1000)");
	# more than the link carries in a while, so that what follows waits
	$alice->sql('UPDATE item SET v = (SELECT string_agg(md5(i::text), $$$$)'
		  . ' FROM generate_series(1, 500) i) WHERE id = 50');
	$alice->wait_folded;
	foreach my $sql (
		'DELETE FROM item WHERE id IN (51, 52)',
		"INSERT INTO item VALUES (51, 'second life')",
		"SET entanglement.owner = 'alice too'; INSERT INTO item VALUES (52, 'of another')",
		'DELETE FROM item WHERE id = 51')
	{
		$alice->sql($sql);
		$alice->wait_folded;
	}
	$alice->sql("SELECT entanglement.alter_peer('hub', reset => '{bandwidth}')");
	converge([ @all, $carol ], ['item'], 'who died last is dead, who changed owner lives');
	is( $carol->sql('SELECT id, v, entanglement.owner_of(item) FROM item WHERE id IN (51, 52)'),
		'52|of another|alice too', 'under the new owner');
	is($_->sql('SELECT count(*) FROM entanglement.parked'), 0,
		'nothing stood in the way at ' . $_->name)
	  foreach @all, $carol;
	$alice->sql('DELETE FROM item WHERE id = 52');
	$_->wait_until($count, '0', 'no tombstones') foreach @all, $carol;
};

subtest 'a key that went to another owner, not yet folded' => sub {
	$hub->audit('item');
	$carol->sql("SELECT entanglement.pause_peer('hub')");
	$alice->sql("INSERT INTO item VALUES (60, 'before') ON CONFLICT (id) DO UPDATE SET v = 'before'");
	$alice->drain('hub');

	# folded, not sent
	$hub->sql("SELECT entanglement.pause_peer('alice')");
	$alice->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'hub'", 't', 'no link');
	$alice->sql("UPDATE item SET v = 'superseded' WHERE id IN (60, 61)");
	$alice->wait_folded;

	# a fold waits for the row it updates; what is read for a peer does not
	my $lock = $alice->session;
	$lock->query_safe(
		"BEGIN; SELECT 1 FROM entanglement.owner WHERE name = 'alice too' FOR NO KEY UPDATE");
	$alice->sql("SET entanglement.owner = 'alice too'; INSERT INTO item VALUES (63000, 'held')");
	$alice->wait_until(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type ~ 'collector' AND wait_event_type = 'Lock'",
		'1', 'a fold that waits');
	$alice->sql(<<'SQL');
DELETE FROM item WHERE id = 60;
SET entanglement.owner = 'alice too';
INSERT INTO item VALUES (60, 'of another');
SQL
	$alice->sql("UPDATE item SET v = 'as well' WHERE id = 61");
	$hub->sql("SELECT entanglement.resume_peer('alice')");
	$hub->wait_until("SELECT v FROM item WHERE id = 61", 'as well', 'unfolded columns travel');
	isnt($hub->sql("SELECT entanglement.owner_of(item) || v FROM item WHERE id = 60"),
		'aliceof another', 'but no row under an owner whose it never was');
	$lock->query_safe('COMMIT');
	$lock->quit;
	$carol->sql("SELECT entanglement.resume_peer('hub')");
	converge([ @all, $carol ], ['item'], 'all agree in the end');
	is( $hub->sql(
			"SELECT string_agg(op || ' ' || (body->>'v'), ', ' ORDER BY n) FROM audit_item WHERE body->>'id' = '60'"
		),
		'UPDATE before, DELETE before, INSERT of another',
		'death, then birth, and nothing between');
	$alice->sql("DELETE FROM item WHERE entanglement.owner_of(item) = 'alice too'");
	$_->wait_until($count, '0', 'no tombstones') foreach @all, $carol;
};

subtest 'everything deleted' => sub {
	$alice->sql('DELETE FROM item WHERE entanglement.owner_of(item) = $$alice$$');
	$bob->sql('DELETE FROM item WHERE entanglement.owner_of(item) = $$bob$$');
	$_->wait_until('SELECT count(*) FROM item', '0', 'an empty table')
	  foreach @all, $carol;
	$_->wait_until($count, '0', 'no tombstones') foreach @all, $carol;
	is($_->sql('SELECT count(*) FROM entanglement.object'),
		0, 'no objects at ' . $_->name)
	  foreach @all, $carol;
};

done_testing();
