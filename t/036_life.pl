# The life of owners: alice, hub, bob and carol in a chain, alice, hub and bob
# in a ring besides.
#
# Promise: only its home ends an owner; then its rows are gone wherever they had
# spread, whoever was away meanwhile, and it does not come back; an owner whose
# home is lost for good is led by the node that adopts it, the old home follows
# those it was told to believe, and nobody takes a living owner.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use File::Path qw(rmtree);
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('life');
my @names = qw(alice hub bob carol);
my %node = map { $_ => Entanglement::Node->database($cluster, $_) } @names;
my ($alice, $hub, $bob, $carol) = @node{@names};
my @all = @node{@names};

link_nodes($alice, $hub);
link_nodes($bob, $hub);
link_nodes($alice, $bob);
link_nodes($carol, $bob);
$_->define(<<'SQL', 'item', 'part') foreach @all;
CREATE TABLE item (id int PRIMARY KEY, v text);
CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item);
SQL

# What a node remembers of the owner with that number.
sub traces
{
	my ($no) = @_;

	return join ' UNION ALL ', map {
		"SELECT '$_', count(*) FROM entanglement.$_ WHERE owner = $no HAVING count(*) > 0"
	} qw(object tombstone arrears owed parked peer_owner);
}

sub number { return $_[0]->sql("SELECT no FROM entanglement.owner WHERE name = '$_[1]'"); }

# Rows of that owner on all nodes; waits until each knows it.
sub spread
{
	my ($from, $owner, $low, $n) = @_;

	$from->sql("SELECT entanglement.create_owner('$owner')");
	$from->sql("SET entanglement.owner = '$owner';
		INSERT INTO item SELECT i, '$owner' FROM generate_series($low, $low + $n - 1) i;
		INSERT INTO part SELECT i, i FROM generate_series($low, $low + $n - 1) i;");
	converge(\@all, [ 'item', 'part' ], "$owner has spread");
	return;
}

sub is_gone
{
	my ($owner, $low, $n, %number) = @_;

	foreach my $node (@all)
	{
		$node->wait_until(
			"SELECT (SELECT count(*) FROM item WHERE id >= $low AND id < $low + $n)"
			  . " + (SELECT count(*) FROM part WHERE id >= $low AND id < $low + $n)"
			  . " + (SELECT count(*) FROM entanglement.owner WHERE name = '$owner')",
			0, "$owner is gone");
		$node->wait_until(traces($number{ $node->name }), '', 'nothing of it is left')
		  if $number{ $node->name };
	}
	return;
}

sub numbers { return map { $_->name => number($_, $_[0]) } @all; }

sub at_rest
{
	$_->wait_until(
		"SELECT (SELECT count(*) FROM entanglement.grave WHERE untold <> '{}')"
		  . " + (SELECT count(*) FROM entanglement.change)"
		  . " + (SELECT count(*) FROM entanglement.owner WHERE gone_as IS NOT NULL)",
		0, 'all was told') foreach @all;
	return;
}

subtest 'an owner that is dropped while all are connected' => sub {
	spread($alice, 'red', 100, 50);
	my %number = numbers('red');
	my $sent = $alice->peer('hub')->{objects_sent} + $alice->peer('bob')->{objects_sent};

	$hub->sql("SELECT entanglement.create_owner('mine')");
	$hub->fails("SELECT entanglement.drop_owner('red')", '42501', 'not at home here', 'its home alone may');
	$hub->fails("SELECT entanglement.drop_owner('hub')", '55000', 'default owner', 'not the default one');
	$alice->sql("SELECT entanglement.drop_owner('red')");
	is_gone('red', 100, 50, %number);
	$_->drain foreach @all;
	is($alice->peer('hub')->{objects_sent} + $alice->peer('bob')->{objects_sent},
		$sent, 'without a word about its objects');
	$alice->fails("SET entanglement.owner = 'red'; INSERT INTO item VALUES (1, 'x')",
		'42704', 'no owner is named', 'no more rows of it');
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'an owner that is dropped while others are away' => sub {
	spread($bob, 'blue', 200, 20);
	my %number = numbers('blue');

	$carol->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql("SELECT entanglement.pause_peer('hub')");
	$_->wait_until("SELECT count(*) FROM entanglement.peers WHERE name IN ('alice', 'carol') AND state = 'connected'",
		0, 'away') foreach $bob, $hub;
	$bob->sql("SELECT entanglement.drop_owner('blue')");
	$hub->wait_until("SELECT count(*) FROM entanglement.owner WHERE name = 'blue'", 0, 'gone at hub');
	is($_->sql('SELECT count(*) FROM item WHERE id BETWEEN 200 AND 219'), 20, $_->name . ' has not heard')
	  foreach $alice, $carol;
	# the stale copy offers itself to who knows better
	$alice->sql("SELECT entanglement.resume_peer('hub')");
	$alice->wait_connected('hub');
	$_->drain('hub') foreach $alice;
	is($hub->sql("SELECT count(*) FROM entanglement.owner WHERE name = 'blue'"), 0, 'it does not come back');
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	$carol->sql("SELECT entanglement.resume_peer('bob')");
	is_gone('blue', 200, 20, %number);
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'a peer that was forgotten meanwhile' => sub {
	spread($bob, 'pink', 250, 5);
	$bob->sql("SELECT entanglement.drop_peer('carol')");
	$carol->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'bob'", 't', 'carol is forgotten');
	$bob->sql("SELECT entanglement.drop_owner('pink')");
	is($carol->sql("SELECT count(*) FROM item WHERE v = 'pink'"), 5, 'carol has not heard');
	$bob->sql("SELECT entanglement.add_peer('carol', NULL, 'carol')");
	is_gone('pink', 250, 5);
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'rows that were handed over to it' => sub {
	spread($bob, 'teal', 270, 5);
	$alice->sql("INSERT INTO item SELECT i, 'given' FROM generate_series(280, 282) i");
	converge(\@all, ['item'], 'three rows of alice');
	$alice->sql("SELECT entanglement.transfer(i, 'teal') FROM item i WHERE id = 280");
	$_->wait_until('SELECT entanglement.owner_of(i) FROM item i WHERE id = 280', 'teal', 'one is handed over') foreach @all;
	# another one, which does not come to the heir any more
	$alice->sql("SELECT entanglement.pause_peer('$_')") foreach qw(hub bob);
	$_->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'", 't', 'alice is away')
	  foreach $hub, $bob;
	$alice->sql("SELECT entanglement.transfer(i, 'teal') FROM item i WHERE id = 281");
	$alice->wait_folded;
	$bob->sql("SELECT entanglement.drop_owner('teal')");
	$bob->wait_until('SELECT count(*) FROM item WHERE id = 280', 0, 'what he had goes');
	$alice->sql("SELECT entanglement.resume_peer('$_')") foreach qw(hub bob);
	is_gone('teal', 270, 5);
	$_->wait_until('SELECT string_agg(id::text, $$ $$) FROM item WHERE id BETWEEN 280 AND 282', '282', 'and what he was to have') foreach @all;
	$alice->fails("SELECT entanglement.transfer(i, 'teal') FROM item i WHERE id = 282", '42704', 'no owner is named', 'nothing comes to it any more');
	at_rest();
	$_->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, 'no tombstones') foreach @all;
	is($_->sql('SELECT count(*) FROM entanglement.parked'), 0, 'nothing is parked at ' . $_->name) foreach @all;
};

subtest 'rows that it had handed over' => sub {
	spread($alice, 'ruby', 290, 3);
	$carol->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql("SELECT entanglement.transfer(i, 'carol') FROM item i WHERE id IN (290, 291)");
	$alice->fails("SELECT entanglement.drop_owner('ruby')", '55000',
		'rows that owner "ruby" has handed over have not arrived yet.*2 rows, for owner "carol"',
		'must have arrived before it ends');
	$bob->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0', 2, 'they are under way');
	$carol->sql("SELECT entanglement.resume_peer('bob')");
	$alice->wait_until('SELECT count(*) FROM entanglement.object WHERE born = 0', 0, 'they have arrived');
	$alice->sql("DELETE FROM part WHERE item IN (290, 291); SELECT entanglement.drop_owner('ruby')");
	$_->wait_until("SELECT string_agg(id || ' ' || entanglement.owner_of(i), ', ' ORDER BY id) FROM item i WHERE id BETWEEN 290 AND 299",
		'290 carol, 291 carol', 'they stay') foreach @all;
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
	$carol->sql('DELETE FROM item WHERE id IN (290, 291)');
	converge(\@all, [ 'item', 'part' ], 'and are his');
};

subtest 'five owners at once' => sub {
	spread($alice, "five $_", 300 + 10 * $_, 10) foreach 0 .. 4;
	$alice->sql(join '; ', map { "SELECT entanglement.drop_owner('five $_')" } 0 .. 4);
	is_gone("five $_", 300 + 10 * $_, 10) foreach 0 .. 4;
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'requests for it are refused' => sub {
	spread($alice, 'green', 400, 5);
	$alice->sql("SELECT entanglement.pause_peer('$_')") foreach qw(hub bob);
	$_->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'", 't', 'alice is away')
	  foreach $hub, $bob;
	my %id = map { $_->name => $_->sql("UPDATE item SET v = 'asked' WHERE id = 400; UPDATE item SET v = 'twice' WHERE id = 400; SELECT entanglement.last_request()") }
	  $hub, $carol;
	$alice->sql("SELECT entanglement.drop_owner('green')");
	$alice->sql("SELECT entanglement.resume_peer('$_')") foreach qw(hub bob);
	$_->fails("SELECT entanglement.wait_for('" . $id{ $_->name } . "')", '42704', 'the owner is no more', $_->name . ' hears why')
	  foreach $hub, $carol;
	is_gone('green', 400, 5);
	at_rest();
	is($_->sql("SELECT count(*) FROM entanglement.request WHERE state IN ('waiting', 'sent', 'applied') OR untold <> '{}'"),
		0, 'no request is left at ' . $_->name) foreach @all;
};

subtest 'what its home may not do' => sub {
	$alice->sql("SELECT entanglement.create_owner('kept')");
	$alice->sql("SET entanglement.owner = 'kept'; INSERT INTO item VALUES (500, 'kept')");
	$alice->sql("INSERT INTO part VALUES (500, 500)");
	converge(\@all, [ 'item', 'part' ], 'kept has spread');
	$alice->fails("SELECT entanglement.drop_owner('kept')", '23503', 'foreign key', 'a row of another owner refers to it');
	$alice->fails("BEGIN; INSERT INTO item VALUES (501, 'x'); SELECT entanglement.drop_owner('kept')",
		'25001', 'cannot follow changes', 'nor after changes of the same transaction');
	$alice->fails("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT entanglement.drop_owner('kept')",
		'25001', 'read committed', 'nor in an old snapshot');
	$alice->sql('CREATE ROLE clerk');
	$alice->sql('GRANT USAGE ON SCHEMA entanglement TO clerk; GRANT EXECUTE ON FUNCTION entanglement.drop_owner TO clerk; GRANT SELECT ON item TO clerk');
	$alice->fails("SET ROLE clerk; SELECT entanglement.drop_owner('kept')", '42501', 'permission denied for table item', 'nor for somebody without the right');
	is($alice->sql('SELECT entanglement.owner_of(i) FROM item i WHERE id = 500'), 'kept', 'it is as it was');
	$alice->sql("ALTER TABLE part DROP CONSTRAINT part_item_fkey, ADD FOREIGN KEY (item) REFERENCES item ON DELETE CASCADE");
	$alice->sql("BEGIN; SELECT entanglement.drop_owner('kept'); ROLLBACK");
	is($alice->sql('SELECT count(*) FROM entanglement.owners WHERE name = $$kept$$'), 1, 'what is rolled back did not happen');
	$alice->sql("SELECT entanglement.drop_owner('kept')");
	is_gone('kept', 500, 1);
	converge(\@all, [ 'item', 'part' ], 'what a cascade took along is told of');
	$alice->sql('DROP OWNED BY clerk; DROP ROLE clerk');
};

# ---- a home that may be lost: dora, in a cluster of her own ----

my $dora = Entanglement::Node->create('dora');

link_nodes($dora, $hub);
$dora->define(<<'SQL', 'item', 'part');
CREATE TABLE item (id int PRIMARY KEY, v text);
CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item);
SQL
push @all, $dora;
converge(\@all, [ 'item', 'part' ], 'dora has joined');

# The cluster as it is, to be put back later.
sub save
{
	my $data = $dora->cluster_of->data_dir;

	$dora->cluster_of->stop;
	PostgreSQL::Test::RecursiveCopy::copypath($data, "$data.saved");
	return;
}

sub restore
{
	my $data = $dora->cluster_of->data_dir;

	rmtree($data);
	rename "$data.saved", $data or die "$data: $!";
	chmod 0700, $data;
	return;
}

sub start { return $dora->cluster_of->start; }

sub state_of
{
	my ($node, $owner) = @_;

	return $node->sql("SELECT local, epoch FROM entanglement.owners WHERE name = '$owner'");
}

subtest 'an owner that its home no longer has' => sub {
	save();
	start();
	$dora->wait_connected('hub');
	spread($dora, 'violet', 600, 5);
	my %number = numbers('violet');

	$dora->cluster_of->stop;
	restore();
	start();
	is_gone('violet', 600, 5, %number);
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
	is($_->sql("SELECT count(*) FROM entanglement.owners WHERE name = 'dora'"), 1, 'what it has is left alone at ' . $_->name)
	  foreach @all;
};

subtest 'a home restored from before it dropped an owner' => sub {
	spread($dora, 'indigo', 700, 5);
	save();
	start();
	$dora->wait_connected('hub');
	$dora->sql("SELECT entanglement.drop_owner('indigo')");
	is_gone('indigo', 700, 5);
	at_rest();
	$dora->cluster_of->stop;
	restore();
	start();
	$_->wait_until("SELECT count(*) FROM item WHERE v = 'indigo'", 5, 'it lives again') foreach @all;
	converge(\@all, [ 'item', 'part' ], 'all agree');
	is($_->sql("SELECT epoch FROM entanglement.owners WHERE name = 'indigo'"), 2, 'in a new epoch at ' . $_->name)
	  foreach @all;
	is($_->sql('SELECT count(*) FROM entanglement.grave WHERE name = $$indigo$$'), 0, 'without a grave at ' . $_->name)
	  foreach @all;
};

subtest 'a crash while its rows are deleted' => sub {
	spread($dora, 'cyan', 10000, 3000);
	my $log = $hub->log_mark;

	# a lock keeps the rows of hub's from going, so that the crash comes first
	my $s = $hub->session;
	$s->query_safe('BEGIN; SELECT 1 FROM item WHERE id = 12999 FOR UPDATE');
	$dora->sql("SELECT entanglement.drop_owner('cyan')");
	$hub->wait_until('SELECT count(*) FROM entanglement.owner WHERE gone_as IS NOT NULL', 1, 'it is going');
	$cluster->stop('immediate');
	$s->{run}->finish;
	$cluster->start;
	is_gone('cyan', 10000, 3000);
	at_rest();
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'rows of a role that is no more' => sub {
	spread($dora, 'brown', 850, 2);
	my $log = $hub->log_mark;
	my $s = $hub->session;

	# as when it was interrupted long enough
	$s->query_safe('BEGIN; SELECT 1 FROM item WHERE id = 850 FOR UPDATE');
	$dora->sql("SELECT entanglement.drop_owner('brown')");
	$hub->wait_until('SELECT count(*) FROM entanglement.owner WHERE gone_as IS NOT NULL', 1, 'it is going');
	$hub->sql('UPDATE entanglement.owner SET gone_as = 999999 WHERE gone_as IS NOT NULL');
	$hub->wait_until("SELECT count(*) FROM entanglement.owner WHERE name = 'brown'", 0, 'the owner is gone');
	$s->query_safe('ROLLBACK');
	$s->quit;
	like($hub->log_since($log), qr/rows of owner "brown", which is no more, could not be deleted: the role was dropped/, 'the log says why its rows are not');
	$hub->sql('DELETE FROM part WHERE item BETWEEN 850 AND 851; DELETE FROM item WHERE id BETWEEN 850 AND 851');
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'rows that the peer may not delete' => sub {
	spread($dora, 'grey', 800, 5);
	my $log = $hub->log_mark;

	$hub->sql('CREATE POLICY all_but_one ON item AS RESTRICTIVE FOR DELETE USING (id <> 802)');
	$hub->sql('CREATE POLICY everything ON item USING (true)');
	$hub->sql('ALTER TABLE item ENABLE ROW LEVEL SECURITY');
	$dora->sql("SELECT entanglement.drop_owner('grey')");
	$hub->wait_until("SELECT string_agg(id::text, ' ') FROM item WHERE v = 'grey'", '802', 'one row stays');
	$hub->wait_until("SELECT count(*) FROM entanglement.owner WHERE name = 'grey'", 0, 'the owner is gone');
	like($hub->log_since($log), qr/LOG:  1 row of owner "grey", which is no more, could not be deleted: the row exists but/, 'the log says why');
	is($hub->sql('SELECT entanglement.owner_of(i) FROM item i WHERE id = 802'), '', 'it is nobody\'s');
	$hub->sql('ALTER TABLE item DISABLE ROW LEVEL SECURITY');
	$hub->sql('DELETE FROM part WHERE item = 802; DELETE FROM item WHERE id = 802');
	converge(\@all, [ 'item', 'part' ], 'all agree');
};

subtest 'an owner whose home is lost is adopted' => sub {
	my $home = $dora->sql('SELECT id FROM entanglement.node');
	my $other = $bob->sql('SELECT id FROM entanglement.node');

	link_nodes($dora, $alice);
	spread($dora, 'gold', 900, 5);
	$alice->wait_until("SELECT peer FROM entanglement.owners WHERE name = 'gold'", 'dora', 'alice takes gold from its home');
	$dora->sql("INSERT INTO item VALUES (950, 'dora')");
	converge(\@all, [ 'item', 'part' ], 'as all others do');
	$hub->fails("SELECT entanglement.adopt('gold', '$home')", '55000', 'not lost', 'a home that is there is not lost');
	$dora->cluster_of->stop;
	$_->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'dora'", 't', 'dora is lost')
	  foreach $hub, $alice;
	$hub->fails("SELECT entanglement.adopt('gold', '$other')", '22023', "Its home is node $home", 'another home was meant');
	my $id = $bob->sql("UPDATE item SET v = 'asked' WHERE id = 901; SELECT entanglement.last_request()");
	$hub->sql("SELECT entanglement.adopt('gold', '$home')");
	is(state_of($hub, 'gold'), 't|2', 'hub is its home, in a new epoch');
	$_->wait_until("SELECT local, epoch, home = '" . $hub->sql('SELECT id FROM entanglement.node') . "' FROM entanglement.owner WHERE name = 'gold'",
		'f|2|t', 'others believe it') foreach $bob, $carol;
	$hub->sql("UPDATE item SET v = 'by hub' WHERE id = 900; SET entanglement.owner = 'gold'; INSERT INTO item VALUES (905, 'new'); DELETE FROM part WHERE id = 904");
	converge([ $hub, $bob, $carol ], [ 'item', 'part' ], 'hub leads it');

	# alice has a link with the old home: it might be merely away
	$alice->wait_until("SELECT count(*) FROM entanglement.violations WHERE peer = 'hub' AND kind = 'home' AND owner = 'gold'",
		1, 'alice does not');
	is($alice->sql('SELECT v FROM item WHERE id = 900'), 'gold', 'and keeps what the home has said');
	$alice->sql("SELECT entanglement.bind_owner('gold', 'hub')");
	converge([ $alice, $hub, $bob, $carol ], [ 'item', 'part' ], 'before it is told to');
	# it waited at the new home, or at alice, who can pass it on now
	$bob->wait_until("SELECT concat(state, sqlstate) IN ('accepted', 'refused40001') FROM entanglement.requests WHERE id = '$id'",
		't', 'who asked is answered');
	is($alice->sql("SELECT entanglement.owner_of(i) FROM item i WHERE id = 905"), 'gold', 'new rows are gold');
};

subtest 'the old home comes back' => sub {
	my $log = $dora->log_mark;

	start();
	$dora->wait_connected($_) foreach qw(hub alice);
	$dora->wait_until("SELECT count(*) > 0 FROM entanglement.violations WHERE owner = 'gold' AND kind = 'home'", 't', 'it hears of it');
	like($dora->log_since($log), qr/LOG:  owner "gold" has been adopted by another node, as the peer says; this node goes on as its home\n.*HINT:.*bind_owner/s, 'and says so');
	$dora->sql("UPDATE item SET v = 'late' WHERE id = 900; SET entanglement.owner = 'gold'; INSERT INTO item VALUES (906, 'lost')");
	$dora->wait_folded;
	$dora->drain('hub');
	is($_->sql('SELECT v FROM item WHERE id = 900'), 'by hub', 'nobody follows it: ' . $_->name)
	  foreach $hub, $alice, $bob, $carol;
	is(state_of($dora, 'gold'), 't|1', 'it has no younger epoch');

	$dora->sql("SELECT entanglement.bind_owner('gold', 'hub')");
	$dora->wait_until("SELECT local, epoch FROM entanglement.owners WHERE name = 'gold'", 'f|2', 'told whom to believe it follows');
	like($dora->log_since($log), qr/LOG:  owner "gold" has been adopted by another node: this node follows it/, 'and says so');
	converge(\@all, [ 'item', 'part' ], 'all agree, what it did alone is gone');
	$dora->sql("UPDATE item SET v = 'please' WHERE id = 902; SELECT entanglement.wait_for(entanglement.last_request())");
	$hub->sql("UPDATE item SET v = 'hub again' WHERE id = 903");
	converge(\@all, [ 'item', 'part' ], 'it asks as others do');
	is($dora->sql("SELECT string_agg(v, ' ' ORDER BY id) FROM item WHERE id IN (902, 903, 906)"), 'please hub again', 'with success');
	at_rest();
	$hub->sql("SELECT entanglement.drop_owner('gold')");
	is_gone('gold', 900, 5);
	converge(\@all, [ 'item', 'part' ], 'the new home may drop it');
};

done_testing();
