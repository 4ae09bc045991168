# What peers want: a hub with everything, and peers with different roles, filters and
# columns over one of its tables at once.
#
# Promise: a peer has just the tables that it has subscribed to, and of them just the
# rows for which its filter is true at the hub, under the role that stands for it there; whatever
# it subscribes with, and whenever it changes its mind. A filter that is
# refused lets nothing through, says why, and holds up nothing else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('subscribe', conf => "entanglement.policy_interval = '1s'\n");
my ($hub, $all, $near, $ships, $names) =
  map { Entanglement::Node->database($cluster, $_) } qw(hub all near ships names);
my @peers = ($all, $near, $ships, $names);
my $table = 'CREATE TABLE thing (id int PRIMARY KEY, kind text, x int, y int, secret text)';
my $other = 'CREATE TABLE other (id int PRIMARY KEY, v text)';

$_->sql("$table; $other") foreach $hub, @peers;
$hub->sql("SELECT entanglement.synchronize('thing'), entanglement.synchronize('other')");
link_nodes($_, $hub) foreach @peers;
$hub->sql(<<'SQL');
REVOKE ALL ON thing FROM PUBLIC, near, ships, names;
GRANT SELECT (id, kind, x, y) ON thing TO near, ships;
GRANT SELECT (id, kind) ON thing TO names;
GRANT INSERT, UPDATE, DELETE ON thing TO near;
INSERT INTO thing SELECT i, (ARRAY['ship', 'buoy', 'bird'])[i % 3 + 1], i, -i, 'secret ' || i
  FROM generate_series(1, 30) i;
INSERT INTO other SELECT i, 'other' FROM generate_series(1, 5) i;
SQL

# The rows that the peer should have: those of the hub under a condition.
sub has
{
	my ($peer, $condition, $name) = @_;
	my $ids = "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), 'none') FROM thing";

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $peer->wait_until($ids, $hub->sql("$ids WHERE $condition"), $name);
}

sub state_is
{
	my ($peer, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $peer->wait_until(<<'SQL', $expected, $name);
SELECT coalesce(string_agg(concat_ws(' ', relation, state, sqlstate), ', ' ORDER BY relation::text), 'none')
  FROM entanglement.subscriptions WHERE direction = 'ours'
SQL
}

sub subscribe
{
	my ($peer, $filter, $relation) = @_;

	$filter = defined $filter ? '$f$' . $filter . '$f$' : 'NULL';
	$peer->sql("SELECT entanglement.subscribe('hub', '" . ($relation // 'thing') . "', $filter)");
}

subtest 'from the beginning' => sub {
	my %filters = (near => 'x BETWEEN 5 AND 15 AND y < 0', ships => "kind = 'ship'",
		names => "kind IN ('buoy', 'ship')");

	# a wish is known before anything is sent
	$_->audit('thing') foreach $near, $ships, $names;
	foreach my $peer (@peers)
	{
		my $filter = $filters{$peer->name};
		my $wish = $filter ? "SELECT entanglement.subscribe('hub', 'thing', \$f\$$filter\$f\$);" : '';

		$peer->sql("BEGIN; SELECT entanglement.synchronize('thing'), entanglement.synchronize('other'); $wish COMMIT;");
	}
	has($all, 'true', 'all of it');
	has($near, 'x BETWEEN 5 AND 15', 'near');
	has($ships, "kind = 'ship'", 'ships');
	has($names, "kind IN ('buoy', 'ship')", 'names');
	state_is($_, 'thing in force', $_->name . ' knows it') foreach $near, $ships, $names;
	$_->drain foreach @peers;
	$hub->drain;
	is($near->sql('SELECT count(*) FROM audit_thing'), 11, 'nothing else ever came');
	is($names->sql('SELECT count(*) FROM thing WHERE x IS NOT NULL'), 0, 'no columns that are hidden');
	is($near->sql('SELECT count(*) FROM thing WHERE secret IS NOT NULL'), 0, 'nor there');
	is($all->sql('SELECT count(*) FROM thing WHERE secret IS NULL'), 0, 'who may see them has them');
	is($_->sql('SELECT count(*) FROM other'), 0, 'no other table') foreach $near, $ships, $names;
	is($all->sql('SELECT count(*) FROM other'), 5, 'without subscription every table');
	is($hub->sql(<<'SQL'), "names|thing|kind IN ('buoy', 'ship')|in force\nnear|thing|x BETWEEN 5 AND 15 AND y < 0|in force\nships|thing|kind = 'ship'|in force", 'the hub shows what they want');
SELECT peer, relation, filter, state FROM entanglement.subscriptions WHERE direction = 'theirs' ORDER BY peer
SQL
	is($hub->sql('SELECT count(*) FROM entanglement.holding h JOIN entanglement.peer p ON p.no = h.peer WHERE p.name = $$near$$'), 11,
		'the hub remembers just what it has sent');
};

# What verify lists, called where the link is dialed from.
sub no_difference
{
	my ($peer, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$_->drain foreach $hub, $peer;
	return is($peer->sql("SELECT relation, owner, difference, lo, ours, theirs FROM entanglement.verify('hub') WHERE difference NOT LIKE 'not offered%'"),
		'', $name);
}

subtest 'rows come and go' => sub {
	$hub->sql('UPDATE thing SET x = x + 5');
	has($near, 'x BETWEEN 5 AND 15', 'near, after all have moved');
	$hub->sql("UPDATE thing SET kind = 'ship' WHERE id % 4 = 0; DELETE FROM thing WHERE id IN (3, 4, 5); INSERT INTO thing VALUES (100, 'ship', 10, -1, 'new')");
	has($near, 'x BETWEEN 5 AND 15', 'near');
	has($ships, "kind = 'ship'", 'ships');
	has($names, "kind IN ('buoy', 'ship')", 'names');
	has($all, 'true', 'all');
	$hub->sql("UPDATE thing SET y = 1 WHERE id = 100");
	has($near, 'x BETWEEN 5 AND 15 AND y < 0', 'by the other column of the filter');
	$hub->sql("UPDATE thing SET y = -1 WHERE id = 100");
	has($near, 'x BETWEEN 5 AND 15 AND y < 0', 'and back, in a version it has had');
	is($near->sql("SELECT kind || y FROM thing WHERE id = 100"), 'ship-1', 'as it is');
	no_difference($_, $_->name . ': verify finds no difference') foreach $near, $ships, $names, $all;
	# rows of the peer's own are not wanted, but given
	$near->sql("INSERT INTO thing (id, kind, x) VALUES (200, 'own', 1000)");
	$hub->wait_until('SELECT count(*) FROM thing WHERE id = 200', 1, 'what the peer has itself goes to the hub, filter or not');
	no_difference($near, 'and counts for verify');
	is($near->sql('SELECT count(*) FROM thing WHERE id = 200'), 1, 'and stays');
	$near->sql('DELETE FROM thing WHERE id = 200');
	$hub->wait_until('SELECT count(*) FROM thing WHERE id = 200', 0, 'its end, too');
};

subtest 'another filter' => sub {
	my $batches = $near->sql("SELECT since FROM entanglement.peers WHERE name = 'hub'");
	my $writer = $hub->session;

	$writer->query_safe('BEGIN; UPDATE thing SET x = x + 1');
	subscribe($near, 'x BETWEEN 10 AND 20');
	state_is($near, 'thing in force', 'in force');
	$writer->query_safe('COMMIT');
	$writer->quit;
	has($near, 'x BETWEEN 10 AND 20', 'the rows of the new one');
	subscribe($near);
	has($near, 'true', 'no filter: every row');
	subscribe($near, 'false');
	has($near, 'false', 'none');
	for my $i (1 .. 5)
	{
		$hub->sql('UPDATE thing SET x = 50 - x');
		subscribe($near, "x % $i = 0");
		$hub->sql('UPDATE thing SET x = x + 1');
	}
	has($near, 'x % 5 = 0', 'after several, with all rows changing');
	no_difference($near, 'verify');
	is($near->sql("SELECT since FROM entanglement.peers WHERE name = 'hub'"), $batches, 'all on one link');
	# two wishes in one transaction; the later one counts
	$near->sql("BEGIN; SELECT entanglement.subscribe('hub', 'thing', 'true'), entanglement.subscribe('hub', 'thing', 'x > 20'); COMMIT");
	has($near, 'x > 20', 'the last of one transaction');
	$near->sql("BEGIN; SELECT entanglement.subscribe('hub', 'thing', 'true'); ROLLBACK");
	has($near, 'x > 20', 'what was rolled back was never wanted');
};

subtest 'tables' => sub {
	subscribe($near, undef, 'other');
	$near->wait_until('SELECT count(*) FROM other', 5, 'a second table');
	state_is($near, 'other in force, thing in force', 'both in force');
	$near->sql("SELECT entanglement.unsubscribe('hub', 'thing')");
	has($near, 'false', 'the first is withdrawn');
	is($near->sql('SELECT count(*) FROM other'), 5, 'the second stays');
	$hub->wait_until("SELECT count(*) FROM entanglement.holding h JOIN entanglement.peer p ON p.no = h.peer WHERE p.name = 'near'", 0,
		'and nothing of it is remembered');
	$hub->sql("UPDATE thing SET x = 7; INSERT INTO other VALUES (6, 'new'); DELETE FROM thing WHERE id = 30");
	$near->wait_until('SELECT count(*) FROM other', 6, 'what is wanted comes');
	is($near->sql('SELECT count(*) FROM thing'), 0, 'what is not does not');
	no_difference($near, 'verify');
	$near->sql("SELECT entanglement.unsubscribe('hub', 'other')");
	has($near, 'true', 'without any subscription everything');
	state_is($near, 'none', 'there are none');
	is($hub->sql("SELECT count(*) FROM entanglement.subscriptions WHERE peer = 'near'"), 0, 'nor at the hub');
	# left and joined again
	subscribe($near, 'id < 10');
	has($near, 'id < 10', 'a filter');
	$near->sql("SELECT entanglement.desynchronize('thing')");
	$hub->sql("INSERT INTO thing VALUES (-1, 'late', 1, 1, 'x'); UPDATE thing SET x = 8 WHERE id < 20");
	$near->drain;
	$near->sql("SELECT entanglement.synchronize('thing', take_over => false)");
	has($near, 'id < 10', 'a table that left and joined again is wanted as before');
	no_difference($near, 'verify');
};

subtest 'cuts' => sub {
	my @backends;

	subscribe($near, 'id BETWEEN 5 AND 25');
	has($near, 'id BETWEEN 5 AND 25', 'before');
	$near->sql("SELECT entanglement.pause_peer('hub')");
	subscribe($near, 'id BETWEEN 10 AND 29');
	$hub->sql("UPDATE thing SET id = id + 100 WHERE id IN (11, 12); INSERT INTO thing VALUES (11, 'again', 1, 1, 'x')");
	is($near->sql("SELECT state FROM entanglement.subscriptions"), 'waiting', 'while the link is down');
	$near->sql("SELECT entanglement.resume_peer('hub')");
	has($near, 'id BETWEEN 10 AND 29', 'changed while the link was down');
	$near->sql("SELECT entanglement.pause_peer('hub')");
	$near->sql("SELECT entanglement.unsubscribe('hub', 'thing')");
	$near->sql("SELECT entanglement.resume_peer('hub')");
	has($near, 'true', 'ended while the link was down');
	for my $i (1 .. 4)
	{
		subscribe($near, "id % 4 = $i - 1");
		$hub->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'hub' AND usename = 'near'");
	}
	has($near, 'id % 4 = 3', 'with the link cut each time');
	no_difference($near, 'verify');
};

subtest 'further on' => sub {
	my $end = Entanglement::Node->database($cluster, 'end');

	$end->sql("$table; SELECT entanglement.synchronize('thing')");
	link_nodes($end, $near);
	subscribe($near, 'id BETWEEN 10 AND 20');
	has($end, 'id BETWEEN 10 AND 20', 'who has it through the peer has what the peer has');
	$end->sql("SELECT entanglement.subscribe('near', 'thing', 'id % 2 = 0')");
	has($end, 'id BETWEEN 10 AND 20 AND id % 2 = 0', 'or less, if it wants less');
	subscribe($near, 'id BETWEEN 15 AND 25');
	has($end, 'id BETWEEN 15 AND 25 AND id % 2 = 0', 'follows');
	$end->sql("SELECT entanglement.unsubscribe('near', 'thing')");
	has($end, 'id BETWEEN 15 AND 25', 'all of it again');
};

subtest 'rights' => sub {
	subscribe($near, 'x >= 0');
	has($near, 'true', 'by a column it may see');
	$hub->sql('REVOKE SELECT (x) ON thing FROM near');
	state_is($near, 'thing refused 42703', 'that it may not see any more: refused');
	has($near, 'false', 'and what was sent is withdrawn');
	$hub->sql('GRANT SELECT (x) ON thing TO near');
	state_is($near, 'thing in force', 'granted again: in force');
	has($near, 'true', 'and sent');
	$hub->sql('ALTER TABLE thing RENAME x TO z');
	state_is($near, 'thing refused 42703', 'a column with another name');
	has($near, 'false', 'nothing');
	$hub->sql('ALTER TABLE thing RENAME z TO x');
	has($near, 'true', 'and back');
	$hub->sql("ALTER TABLE thing ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON thing USING (id % 2 = 0 OR current_user <> 'near')");
	has($near, 'id % 2 = 0', 'row-level security and the filter');
	subscribe($near, 'id > 10');
	has($near, 'id % 2 = 0 AND id > 10', 'both');
	$hub->sql('ALTER TABLE thing DISABLE ROW LEVEL SECURITY; DROP POLICY even ON thing');
	has($near, 'id > 10', 'the filter alone');
	# a filter that would show by an error what row-level security hides
	$hub->sql("ALTER TABLE thing ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON thing USING (id <> 20 OR current_user <> 'near')");
	subscribe($near, '1 / (id - 20) < 2');
	has($near, 'id <> 20', 'what row-level security hides never gets to the filter');
	$hub->sql('ALTER TABLE thing DISABLE ROW LEVEL SECURITY; DROP POLICY own ON thing');
	has($near, 'id <> 20', 'a row on which the filter fails does not match');
	$hub->sql('UPDATE thing SET x = 3');
	subscribe($near, '10 / x > 0');
	has($near, 'true', 'no row fails');
	$hub->sql('UPDATE thing SET x = 0 WHERE id % 3 = 0');
	has($near, 'id % 3 <> 0', 'those that fail are withdrawn');
	no_difference($near, 'and are none for verify');
	my $log = slurp_file($cluster->logfile);
	my $lines = () = $log =~ /could not be sent: division by zero/g;
	cmp_ok($lines, '>', 0, 'the log says so');
	cmp_ok($lines, '<', 10, 'not for each row');
};

# What the hub is to refuse; SQLSTATE => filters. Written into the table, since
# subscribe itself refuses what is no expression.
my %attacks = (
	'42601' => ['true) OR (true', 'true)', ') OR true --', 'true; DROP TABLE thing', 'true; SELECT 1', '(true', 'SELECT true',
		'true UNION SELECT true', 'true FROM other', 'true WHERE true', 'true LIMIT 1', 'true FOR UPDATE', 'true ORDER BY 1',
		'true, true', 'true AS x', '$$', "'", '/* x', ' ', ';', 'TABLE thing', '\\', "id = 1 \\g", 'id :: ', "E'\\'"],
	'42703' => ['secret IS NOT NULL', "secret = 'secret 1'", 'missing = 1', 'thing.secret IS NULL', 'thing IS NULL', 'thing.* IS NULL',
		'other.id = 1', 'pg_class.oid = 1', 'ctid IS NULL', 'xmin IS NULL', 't.id = 1', 'public.thing.id = 1', "coalesce(secret, 'x') = 'x'",
		"CASE WHEN true THEN true ELSE secret = 'x' END"],
	'0A000' => ['EXISTS (SELECT FROM other)', 'id IN (SELECT id FROM other)', 'id = (SELECT 1)', "thing.id = ANY (ARRAY(SELECT 1))",
		'pg_sleep(1000) IS NULL', 'run_me(id)', 'public.run_me(id)', 'id OPERATOR(public.=) 1', "'x'::public.evil IS NULL", "public.evil 'x' IS NULL",
		"kind LIKE kind", "repeat(kind, 1000000000) = 'x'", "kind ~ '(a*)*\$'", 'kind || kind = kind', 'random() < 0.5', "now() > '2000-01-01'",
		'current_user = kind', 'count(*) > 0', 'row_number() OVER () = 1', 'generate_series(1, 1000000000) > 0', 'id = $1', "nextval('s') > 0",
		"set_config('role', 'postgres', false) = kind", "pg_read_file('/etc/passwd') = kind", "lo_export(1, '/tmp/x') = 1",
		"query_to_xml('SELECT 1', true, true, '') IS NULL", "pg_terminate_backend(id)", "pg_advisory_lock(1) IS NULL", "'thing'::regclass IS NULL",
		"kind::char(10000000) = kind", '(id, kind) = (1, kind)', "xmlelement(name a) IS NULL", "x ^ 100000 > 1", "1e100000 > id"],
	'42883' => ['id === 1', 'id = kind', 'length(id) = 1'],
	'42804' => ['id', 'kind'],
	'22P02' => ["id = 'x'", "'perhaps'"],
	'54001' => ['NOT ' x 2000 . 'true', '- ' x 3000 . 'id = 1', 'coalesce(' x 300 . 'true' . ')' x 300],
);

subtest 'attacks' => sub {
	my $since = $near->sql("SELECT since FROM entanglement.peers WHERE name = 'hub'");
	my $n = 0;

	$hub->sql(<<'SQL');
CREATE TABLE ran (what text);
GRANT INSERT ON ran TO PUBLIC;
CREATE FUNCTION run_me(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN INSERT INTO public.ran VALUES ('function'); RETURN true; END $$;
CREATE FUNCTION run_me(int, int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN INSERT INTO public.ran VALUES ('operator'); RETURN true; END $$;
CREATE FUNCTION run_me(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN INSERT INTO public.ran VALUES ('domain'); RETURN true; END $$;
CREATE FUNCTION length(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN INSERT INTO public.ran VALUES ('overload'); RETURN 1; END $$;
CREATE OPERATOR = (FUNCTION = run_me, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR === (FUNCTION = run_me, LEFTARG = int, RIGHTARG = int);
CREATE DOMAIN evil AS text CHECK (run_me(value));
CREATE SEQUENCE s;
ALTER DATABASE hub SET search_path = public, pg_catalog;
ALTER ROLE near SET search_path = public, pg_catalog;
SQL
	foreach my $sqlstate (sort keys %attacks)
	{
		subscribe($near, 'id < 5');
		has($near, 'id < 5', "before those that are $sqlstate") or last;
		foreach my $filter (@{ $attacks{$sqlstate} })
		{
			$near->sql("BEGIN; UPDATE entanglement.subscription SET filter = \$attack\$$filter\$attack\$, round = DEFAULT, sqlstate = NULL;"
				. " SELECT entanglement.subscribe('hub', 'other', NULL); COMMIT");
			state_is($near, "other in force, thing refused $sqlstate", substr($filter, 0, 60)) or last;
			$n++;
		}
		has($near, 'false', '... and nothing comes through') or last;
	}
	cmp_ok($n, '>=', 60, "$n attacks");
	is($hub->sql('SELECT count(*) FROM ran'), 0, 'no code of users was run');
	is($hub->sql("SELECT last_value FROM s"), 1, 'no sequence moved');
	is($near->sql("SELECT since FROM entanglement.peers WHERE name = 'hub'"), $since, 'one link survived all of them');
	$hub->sql("INSERT INTO other VALUES (50, 'still')");
	$near->wait_until('SELECT count(*) FROM other WHERE id = 50', 1, 'and other tables go on');
	# with what shadows PostgreSQL's own, in the session and the role
	subscribe($near, 'id = 7 OR id IN (8, 9)');
	has($near, 'id OPERATOR(pg_catalog.=) ANY (ARRAY[7, 8, 9])', "what is run is PostgreSQL's own");
	is($hub->sql('SELECT count(*) FROM ran'), 0, 'and nobody else');
	$hub->sql(<<'SQL');
ALTER DATABASE hub RESET search_path;
ALTER ROLE near RESET search_path;
DROP OPERATOR public.= (int, int);
DROP OPERATOR public.=== (int, int);
DROP DOMAIN evil;
DROP FUNCTION run_me(int), run_me(int, int), run_me(text), length(int);
SQL
	$near->sql("SELECT entanglement.unsubscribe('hub', 'other')");
};

# ---- at random, against a model ----

my $seed = $ENV{ENT_SEED} // 45;

sub any_filter
{
	my ($depth) = @_;
	my $pick = int rand($depth > 0 ? 9 : 6);
	my $n = int rand 40;

	return "x > $n" if $pick == 0;
	return "y BETWEEN -$n AND $n" if $pick == 1;
	return "kind " . (qw(= <> < >=))[int rand 4] . " '" . (qw(ship buoy bird))[int rand 3] . "'" if $pick == 2;
	return "id % " . (1 + int rand 5) . ' = 0' if $pick == 3;
	return "kind IS " . (rand() < 0.5 ? 'NOT ' : '') . 'NULL' if $pick == 4;
	return "kind LIKE '" . (qw(%i% b% _u%))[int rand 3] . "'" if $pick == 5;
	return '(' . any_filter($depth - 1) . (rand() < 0.5 ? ' AND ' : ' OR ') . any_filter($depth - 1) . ')' if $pick < 8;
	return 'NOT (' . any_filter($depth - 1) . ')';
}

sub any_change
{
	my $id = 1 + int rand 60;
	my $pick = int rand 5;
	my $kind = (qw('ship' 'buoy' 'bird' NULL))[int rand 4];
	my $x = int rand 40;

	return "INSERT INTO thing VALUES ($id, $kind, $x, -$x, 'm') ON CONFLICT (id) DO UPDATE SET kind = EXCLUDED.kind" if $pick == 0;
	return "DELETE FROM thing WHERE id = $id" if $pick == 1;
	return "UPDATE thing SET x = $x WHERE id % 7 = " . ($id % 7) if $pick == 2;
	return "UPDATE thing SET kind = $kind, y = $x WHERE id = $id" if $pick == 3;
	return "UPDATE thing SET id = id + 60 WHERE id = $id AND NOT EXISTS (SELECT FROM thing WHERE id = $id + 60)";
}

subtest 'at random' => sub {
	my %wanted;

	srand $seed;
	note "ENT_SEED=$seed";
	$hub->sql('GRANT SELECT ON thing TO names');
	for my $round (1 .. ($ENV{ENT_LONG} ? 40 : 8))
	{
		for (1 .. 12)
		{
			my $peer = ($near, $ships, $names)[int rand 3];

			$hub->sql(any_change()) for 1 .. 1 + int rand 4;
			next if rand() < 0.5;
			$wanted{ $peer->name } = any_filter(3);
			subscribe($peer, $wanted{ $peer->name });
		}
		foreach my $peer ($near, $ships, $names)
		{
			my $filter = $wanted{ $peer->name } or next;

			has($peer, $filter, "round $round: " . $peer->name . " has just: $filter") or return;
			is($peer->digest('thing', 'id, kind, x, y'), $hub->digest("(SELECT * FROM thing WHERE $filter) thing", 'id, kind, x, y'), '... as it is')
			  or return;
		}
	}
	no_difference($_, $_->name . ': verify') foreach $near, $ships, $names;
};

done_testing();
