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

done_testing();
