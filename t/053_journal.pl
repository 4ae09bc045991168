# Tables of which no committed state is left out: alice and carol hold them,
# hub passes on, bob receives.
#
# Promise: of a table with every_state a peer gets every state that its owner
# committed, in order of commit for each object, over a middle node, cuts and
# savepoints, beside tables that coalesce; beyond entanglement.journal_limit the
# oldest are given up, which is told, and the newest arrives.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('journal');
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);

foreach my $node ($alice, $hub, $bob)
{
	$node->sql(<<'SQL');
CREATE TABLE event (id int PRIMARY KEY, n int, body text);
CREATE TABLE state (id int PRIMARY KEY, n int);
SELECT entanglement.synchronize('event', every_state => true);
SELECT entanglement.synchronize('state');
SQL
}
link_nodes($alice, $hub);
link_nodes($hub, $bob);
$bob->audit('event');

sub drain_all
{
	$alice->drain('hub');
	$hub->drain('bob');
	return;
}

# What bob was shown of a row, state by state, since it last looked.
my $looked = 0;
sub shown
{
	my $now = $bob->sql('SELECT coalesce(max(n), 0) FROM audit_event');
	my $text = $bob->sql(<<"SQL");
SELECT string_agg(CASE op WHEN 'DELETE' THEN 'x' ELSE coalesce(body->>'n', '-') END
	|| coalesce(nullif('/' || coalesce(body->>'body', ''), '/'), ''), ' ' ORDER BY n)
FROM audit_event WHERE n > $looked AND n <= $now
SQL

	$looked = $now;
	return $text;
}

subtest 'every state in order of commit' => sub {
	$alice->sql('INSERT INTO event VALUES (1, 0)');
	$alice->sql(join ';', map { "UPDATE event SET n = $_ WHERE id = 1" } 1 .. 200);
	drain_all();
	is(shown(), join(' ', 0 .. 200), 'those of one row');
	$alice->sql('UPDATE event SET body = $$a$$ WHERE id = 1; UPDATE event SET body = NULL, n = 1 WHERE id = 1; DELETE FROM event WHERE id = 1');
	drain_all();
	is(shown(), '200/a 1 x', 'NULLs, a deletion');
};

subtest 'compared while a deletion has not been folded' => sub {
	my $collector = $alice->sql(q(SELECT pid FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type LIKE 'entanglement collector%'));

	$alice->sql('INSERT INTO event VALUES (99, 1)');
	drain_all();
	is(shown(), '1', 'a row');
	$hub->audit('event');
	kill 'STOP', $collector or BAIL_OUT('the collector has gone');
	$alice->sql('UPDATE event SET n = 2 WHERE id = 99');
	$alice->sql('DELETE FROM event WHERE id = 99');
	$hub->sql("SELECT entanglement.resync('alice')");
	$hub->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'compared');
	kill 'CONT', $collector;
	drain_all();
	is(shown(), '2 x', 'its states come all the same, one after the other');
	is($hub->sql("SELECT string_agg(op || (body->>'n'), ' ' ORDER BY n) FROM audit_event"), 'UPDATE2 DELETE2', 'so they came to hub');
	$hub->sql('DROP TRIGGER audit ON event');
};

subtest 'a transaction is one state' => sub {
	$alice->sql(<<'SQL');
INSERT INTO event VALUES (2, 1);
BEGIN;
UPDATE event SET n = 100 WHERE id = 2;
SAVEPOINT a;
UPDATE event SET n = 101 WHERE id = 2;
ROLLBACK TO a;
UPDATE event SET body = 'x' WHERE id = 2;
SAVEPOINT b;
UPDATE event SET n = 2 WHERE id = 2;
RELEASE b;
COMMIT;
BEGIN; UPDATE event SET n = 55 WHERE id = 2; ROLLBACK;
UPDATE event SET n = n WHERE id = 2;
BEGIN; UPDATE event SET n = n WHERE id = 2; UPDATE event SET n = 3 WHERE id = 2; COMMIT;
BEGIN; DELETE FROM event WHERE id = 2; INSERT INTO event VALUES (2, 4); COMMIT;
BEGIN; DELETE FROM event WHERE id = 2; INSERT INTO event VALUES (2, 44); DELETE FROM event WHERE id = 2; COMMIT;
INSERT INTO event VALUES (2, 5);
BEGIN; SAVEPOINT c; UPDATE event SET n = 66 WHERE id = 2; ROLLBACK TO c; UPDATE event SET n = 6 WHERE id = 2; COMMIT;
BEGIN; INSERT INTO event VALUES (3, 1); UPDATE event SET n = 2 WHERE id = 3; DELETE FROM event WHERE id = 3; COMMIT;
UPDATE event SET n = 7 WHERE id = 2;
SQL
	drain_all();
	is(shown(), '1 2/x 3/x 4 x 5 6 7', 'the last one of each');
	$alice->sql('INSERT INTO event VALUES (3, 1)');
	$alice->sql('UPDATE event SET n = 2 WHERE id = 3');
	$alice->sql('DELETE FROM event WHERE id = 3');
	drain_all();
	is(shown(), '1 2 x', 'born and died');
	$alice->sql('UPDATE event SET id = 4, n = 8 WHERE id = 2');
	$alice->sql('UPDATE event SET id = 2, n = 9 WHERE id = 4');
	drain_all();
	like(shown(), qr/^(x 8 x 9|8 x 9 x|x 8 9 x|8 x x 9)$/, 'another key is another object');
};

subtest 'long values, tables with partitions' => sub {
	foreach my $node ($alice, $hub, $bob)
	{
		$node->sql(<<'SQL');
ALTER TABLE event ALTER body SET STORAGE EXTERNAL;
CREATE TABLE part (n int, id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_low (id int NOT NULL, gone text, n int);
ALTER TABLE part_low DROP gone;
ALTER TABLE part ATTACH PARTITION part_low FOR VALUES FROM (0) TO (100);
CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200);
SELECT entanglement.synchronize('part', every_state => true);
SQL
	}
	$bob->audit('part');
	$alice->sql('INSERT INTO event VALUES (5, 0)');
	$alice->sql(join ';',
		map { "UPDATE event SET n = $_, body = repeat('$_', 300000) WHERE id = 5" } 1 .. 5);
	$alice->sql('UPDATE event SET body = NULL WHERE id = 5');
	$alice->sql('INSERT INTO part VALUES (1, 7)');
	$alice->sql("UPDATE part SET n = $_ WHERE id = 7") foreach 2 .. 4;
	$alice->sql('UPDATE part SET id = 107 WHERE id = 7');
	$alice->sql('UPDATE part SET n = n + 1 WHERE id = 107');
	drain_all();
	is(shown(), join(' ', 0, (map { "$_/" . $_ x 300000 } 1 .. 5), 5), 'of 300 kB');
	like( $bob->sql("SELECT string_agg(CASE op WHEN 'DELETE' THEN 'x' ELSE body->>'n' END, ' ' ORDER BY n) FROM audit_part"),
		qr/^1 2 3 4 (x 4|4 x) 5$/, 'of a partition with other columns');
	converge([ $alice, $hub, $bob ], [ 'event', 'part' ], 'in step');
};

subtest 'what triggers do within a statement is the same state' => sub {
	$alice->sql(<<'SQL');
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.n % 10 = 0 THEN
		UPDATE event SET n = new.n + 1 WHERE id = new.id;
	ELSIF new.n % 10 = 9 THEN
		DELETE FROM event WHERE id = new.id;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER aaa AFTER INSERT OR UPDATE ON event FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO event VALUES (10, 10);
UPDATE event SET n = 20 WHERE id = 10;
UPDATE event SET n = 25 WHERE id = 10;
UPDATE event SET n = 39, body = 'gone' WHERE id = 10;
INSERT INTO event VALUES (10, 99);
INSERT INTO event VALUES (10, 41);
DROP TRIGGER aaa ON event;
DROP FUNCTION again();
SQL
	drain_all();
	is(shown(), '11 21 25 x 41', 'the one at commit');
};

subtest 'many writers' => sub {
	my $file = $cluster->basedir . '/writers.sql';

	append_to_file($file, <<'SQL');
\set id random(100, 104)
\set how random(1, 10)
BEGIN;
UPDATE event SET n = n + 1 WHERE id = :id;
\if :how > 8
ROLLBACK;
\elif :how > 6
SAVEPOINT a;
UPDATE event SET n = n + 1 WHERE id = :id;
ROLLBACK TO a;
COMMIT;
\else
COMMIT;
\endif
UPDATE state SET n = n + 1 WHERE id = 1;
SQL
	$alice->sql('INSERT INTO state VALUES (1, 0); INSERT INTO event SELECT i, 0 FROM generate_series(100, 104) i');
	drain_all();
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$cluster->command_ok(
		[ 'pgbench', '-h', $cluster->host, '-p', $cluster->port, '-n', '-c', 4,
		  '-t', 500, '-f', $file, $alice->db ],
		'2000 transactions');
	drain_all();
	converge([ $alice, $hub, $bob ], [ 'event', 'state' ], 'all have the last state');
	is( $bob->sql(<<"SQL"), '0', 'and bob was shown all before it, in order');
SELECT count(*) FROM (SELECT (body->>'n')::int AS n, row_number() OVER (PARTITION BY body->>'id' ORDER BY n) AS expected
	FROM audit_event WHERE n > $looked) s WHERE n <> expected
SQL
	is( $bob->sql("SELECT count(*) FROM audit_event WHERE n > $looked"),
		$alice->sql('SELECT sum(n) FROM event WHERE id BETWEEN 100 AND 104'), 'none is missing');
	cmp_ok($alice->peer('hub')->{objects_sent}, '<', 2 * 2000 + 1500, 'the other table coalesces');
};

subtest 'a peer that was away gets all it missed' => sub {
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$hub->sql("SELECT entanglement.pause_peer('bob')");
	$hub->wait_state('bob', 'paused');
	$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob'", 0, 'and the link has ended');
	$alice->sql(join ';', map { "UPDATE event SET n = $_ WHERE id = 100" } 1 .. 50);
	$alice->drain('hub');
	$cluster->restart;
	$hub->wait_connected('alice');
	$alice->sql(join ';', map { "UPDATE event SET n = $_ WHERE id = 100" } 51 .. 60);
	$alice->sql('DELETE FROM event WHERE id = 100; INSERT INTO event VALUES (100, 61)');
	$alice->drain('hub');
	$hub->sql("SELECT entanglement.resume_peer('bob')");
	$hub->wait_connected('bob');
	drain_all();
	is(shown(), join(' ', 1 .. 60, 'x', 61), 'in order');
	foreach my $node ($alice, $hub)
	{
		$node->sql('ALTER SYSTEM SET entanglement.prune_interval = 50');
		$node->sql('SELECT pg_reload_conf()');
		$node->wait_until('SELECT count(*) FROM entanglement.journal', '0', 'what all have is removed');
	}
};

subtest 'a tunnel that is cut again and again' => sub {
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$alice->sql('UPDATE event SET n = 0 WHERE id = 101');
	foreach my $round (1 .. 10)
	{
		$alice->sql(join ';',
			map { "UPDATE event SET n = n + 1, body = repeat(md5(n::text), 20) WHERE id = 101" } 1 .. 20);
		$hub->sql(
			q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'bob' OR usename = 'alice'));
	}
	drain_all();
	is( $bob->sql("SELECT string_agg(body->>'n', ' ' ORDER BY n) FROM audit_event WHERE n > $looked"),
		join(' ', 0 .. 200), 'nothing is missing, nothing comes twice');
};

subtest 'owners, requests, columns' => sub {
	$bob->sql('UPDATE event SET n = 7, body = NULL WHERE id = 102');
	drain_all();
	$bob->wait_until('SELECT n FROM event WHERE id = 102', 7, 'a request is a state');
	shown();
	$alice->sql('SELECT entanglement.transfer(e, $$bob$$) FROM event e WHERE id = 102');
	$bob->wait_until('SELECT entanglement.owner_of(e) FROM event e WHERE id = 102', 'bob', 'handed over');
	$alice->audit('event');
	# all of it in one fold, with what makes him the owner, or later
	$bob->sql(join ';', map { "UPDATE event SET n = $_ WHERE id = 102" } 1 .. 20);
	$bob->drain('hub');
	$hub->drain('alice');
	# the first one confirms what he was given
	like( $alice->sql("SELECT string_agg(body->>'n', ' ' ORDER BY n) FROM audit_event WHERE (body->>'id')::int = 102"),
		qr/^(7 )?@{[ join ' ', 1 .. 20 ]}$/, 'the heir sends every state back');
	$alice->sql('DROP TRIGGER audit ON event');
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$hub->sql("SELECT entanglement.pause_peer('bob')");
	$hub->wait_state('bob', 'paused');
	$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob'", 0, 'and the link has ended');
	$alice->sql('UPDATE event SET n = 1 WHERE id = 103');
	$alice->sql('UPDATE event SET n = 2 WHERE id = 103');
	$alice->drain('hub');
	foreach my $node ($alice, $hub, $bob)
	{
		$node->sql('ALTER TABLE event ADD more text');
	}
	$alice->sql("UPDATE event SET n = 3, more = 'more' WHERE id = 103");
	$alice->sql("UPDATE event SET n = 4 WHERE id = 103");
	$alice->drain('hub');
	$hub->sql("SELECT entanglement.resume_peer('bob')");
	$hub->wait_connected('bob');
	drain_all();
	is(shown(), '2 3 4', 'a state that lacks a column is given up');
	is($bob->sql('SELECT more FROM event WHERE id = 103'), 'more', 'and the column');
};

subtest 'a state that cannot be stored is given up for the next' => sub {
	shown();
	$bob->sql('ALTER TABLE event ADD CONSTRAINT lucky CHECK (n <> 13)');
	$alice->sql("UPDATE event SET n = $_ WHERE id = 103") foreach 12 .. 15;
	$bob->wait_until('SELECT n FROM event WHERE id = 103', 15, 'the last one is there');
	like(shown(), qr/^12 (14 )?15$/, 'without the one that is refused');
	$alice->sql("UPDATE event SET n = $_ WHERE id = 103") foreach 16 .. 20;
	drain_all();
	is(shown(), '16 17 18 19 20', 'those that come after it');
	$bob->sql('ALTER TABLE event DROP CONSTRAINT lucky');
};

subtest 'whether it is so can be changed' => sub {
	$alice->fails('SELECT entanglement.synchronize($$pg_temp.none$$, every_state => true)', '42P01|3F000', '', 'no table');
	$alice->sql('SELECT entanglement.set_every_state($$state$$, true)');
	$hub->sql('SELECT entanglement.set_every_state($$state$$, true)');
	$bob->audit('state');
	$alice->sql(join ';', map { "UPDATE state SET n = $_ WHERE id = 1" } 1 .. 50);
	drain_all();
	is( $bob->sql("SELECT string_agg(body->>'n', ' ' ORDER BY n) FROM audit_state"),
		join(' ', 1 .. 50), 'now it sends every state');
	$alice->sql('SELECT entanglement.set_every_state($$state$$, false)');
	$alice->sql('UPDATE state SET n = 51 WHERE id = 1');
	converge([ $alice, $hub, $bob ], ['state'], 'and not any more');
	$alice->sql('CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES event)');
	$alice->fails('SELECT entanglement.synchronize($$child$$, integrity => true)', '0A000', 'every_state and integrity', 'not with integrity');
};

subtest 'who is shown a part gets the newest state, and no more than he may see' => sub {
	my $secret = 'UPDATE event SET body = $$secret$$ WHERE id = 104';

	$hub->sql('ALTER TABLE event ENABLE ROW LEVEL SECURITY');
	$hub->sql("CREATE POLICY part ON event TO bob USING (body IS DISTINCT FROM 'secret')");
	$hub->sql('CREATE POLICY all_of_it ON event TO alice USING (true)');
	drain_all();
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$hub->sql("SELECT entanglement.pause_peer('bob')");
	$hub->wait_state('bob', 'paused');
	$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob'", 0, 'and the link has ended');
	$alice->sql("$secret; UPDATE event SET n = 1000, body = 'seen' WHERE id = 104");
	$alice->drain('hub');
	$hub->sql("SELECT entanglement.resume_peer('bob')");
	$hub->wait_connected('bob');
	drain_all();
	is(shown(), '1000/seen', 'the state that may be seen');
	$alice->sql($secret);
	drain_all();
	is(shown(), 'x/seen', 'the one that may not takes the row away');
	is($bob->sql("SELECT count(*) FROM audit_event WHERE body->>'body' = 'secret'"), '0', 'is not told');
	$hub->sql('ALTER TABLE event DISABLE ROW LEVEL SECURITY');
	$alice->sql("UPDATE event SET n = 1, body = NULL WHERE id = 104");
	converge([ $alice, $hub, $bob ], ['event'], 'all is shown again');
};

subtest 'columns of a state count as they may be seen when it is sent' => sub {
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$hub->sql("SELECT entanglement.pause_peer('bob')");
	$hub->wait_state('bob', 'paused');
	$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob'", 0, 'and the link has ended');
	$alice->sql("UPDATE event SET n = $_, body = 'hidden $_' WHERE id = 104") foreach 1001 .. 1010;
	$alice->drain('hub');
	$hub->sql('REVOKE SELECT ON event FROM bob; GRANT SELECT (id, n, more) ON event TO bob');
	$hub->sql("SELECT entanglement.resume_peer('bob')");
	$hub->wait_connected('bob');
	drain_all();
	like(shown(), qr/^(10\d\d )*1010$/, 'without the column that was taken away meanwhile');
	is($bob->sql("SELECT count(*) FROM audit_event WHERE body->>'body' LIKE 'hidden%'"), '0', 'not in any of them');
	$hub->sql('GRANT SELECT ON event TO bob');
	converge([ $alice, $hub, $bob ], ['event'], 'it comes when it may');
};

subtest 'beyond entanglement.journal_limit the oldest are given up' => sub {
	my $mark = $hub->log_mark;

	$hub->sql('ALTER SYSTEM SET entanglement.journal_limit = 64');
	$hub->sql('SELECT pg_reload_conf()');
	$looked = $bob->sql('SELECT max(n) FROM audit_event');
	$hub->sql("SELECT entanglement.pause_peer('bob')");
	$hub->wait_state('bob', 'paused');
	$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob'", 0, 'and the link has ended');
	$alice->sql(join ';',
		map { "UPDATE event SET n = $_, body = repeat('x', 1000) || $_ WHERE id = 101" } 1 .. 200);
	$alice->drain('hub');
	$hub->wait_until('SELECT relation, peer, states > 0 FROM entanglement.lost_states',
		'event|bob|t', 'which the view tells');
	like($hub->log_since($mark), qr/WARNING:  the journal has reached entanglement.journal_limit/, 'and the log');
	$hub->sql("SELECT entanglement.resume_peer('bob')");
	$hub->wait_connected('bob');
	drain_all();
	my @came = split ' ',
	  $bob->sql("SELECT string_agg(body->>'n', ' ' ORDER BY n) FROM audit_event WHERE n > $looked");
	my $lost = 0;

	$lost += $_->sql('SELECT coalesce(sum(states), 0) FROM entanglement.lost_states') foreach $alice, $hub;
	is("@came", join(' ', sort { $a <=> $b } @came), 'the newest ones arrive in order');
	is($came[-1], 200, 'the last one among them');
	cmp_ok(200 - @came, '<=', $lost, 'no more are missing than the view tells');
	converge([ $alice, $hub, $bob ], ['event'], 'and all have the last');
};

done_testing();
