# Many rows that come at once.
#
# Promise: they are read and written without a statement where that comes to the same.
# Whatever a table's owner has said of its rows counts as if each had come alone, and
# runs with the rights of the peer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('many');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $rows = 600;

link_nodes($alice, $bob);

$bob->sql(<<'SQL');
CREATE TABLE seen (what text, who text);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION note(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.seen VALUES (what, current_user);
	RETURN true;
END $$;
CREATE FUNCTION lie(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.note('index');
	RETURN i;
END $$;
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note('trigger');
	RETURN new;
END $$;
CREATE FUNCTION note_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note('statement');
	RETURN NULL;
END $$;
SQL

my $mine = q(SELECT entanglement.drain('bob', '60 s'));
my $all = "SELECT count(*) FROM ?";
my $role = 'alice';
my $parked = q(SELECT string_agg(DISTINCT p.sqlstate || ' ' || k.n, ',') FROM entanglement.parked p,
	LATERAL (SELECT count(*) AS n FROM entanglement.parked) k);

# Of each: the table at bob after "id int PRIMARY KEY, v int", what else is said of it, and
# what is to be seen there when all of alice's rows have come.
my @cases = (
	[ 'a plain one', '', '', $all, $rows ],
	[ 'one with other columns between, and one dropped', ', mine int, w int',
		'ALTER TABLE ? DROP mine', $all, $rows ],
	[ 'a default', q(, mine text DEFAULT 'mine'), '',
		"SELECT count(*) FROM ? WHERE mine = 'mine'", $rows ],
	[ 'a generated column', ', twice int GENERATED ALWAYS AS (2 * v) STORED', '',
		'SELECT count(*) FROM ? WHERE twice IS NOT DISTINCT FROM 2 * v', $rows ],
	[ 'a check', ', CHECK (v <> 7)', '', $all, $rows - 1, '23514 1' ],
	[ 'a column that must not be NULL', '', 'ALTER TABLE ? ADD mine int NOT NULL DEFAULT 1',
		$all, $rows ],
	[ 'one without NULLs', '', 'ALTER TABLE ? ALTER v SET NOT NULL', $all, $rows - 1, '23502 1' ],
	[ 'an index that is unique', '', 'CREATE UNIQUE INDEX ON ? (nullif(v % 599, 5))', $all,
		$rows - 1, '23505 1' ],
	[ 'one that excludes', ', EXCLUDE USING btree (v WITH =)', '', $all, $rows ],
	[ 'a constraint that is deferred', ', UNIQUE (v) DEFERRABLE INITIALLY DEFERRED', '', $all,
		$rows ],
	[ 'a check that is code', ", CHECK (public.note('check'))", '',
		"SELECT count(*) >= $rows, count(DISTINCT who), min(who) FROM seen", "t|1|$role" ],
	[ 'an index that is code', '', 'CREATE INDEX ON ? (public.lie(v))',
		"SELECT count(*) >= $rows, count(DISTINCT who), min(who) FROM seen", "t|1|$role" ],
	[ 'a trigger that sleeps', '',
		'CREATE TRIGGER t BEFORE INSERT ON ? FOR EACH ROW EXECUTE FUNCTION note_row()',
		'SELECT count(*) FROM seen', 0 ],
	[ 'one that does not', '', <<'SQL',
CREATE TRIGGER t BEFORE INSERT ON ? FOR EACH ROW EXECUTE FUNCTION note_row();
ALTER TABLE ? ENABLE ALWAYS TRIGGER t
SQL
		"SELECT count(*) >= $rows, count(DISTINCT who), min(who) FROM seen", "t|1|$role" ],
	[ 'one for statements', '', <<'SQL',
CREATE TRIGGER t AFTER INSERT ON ? FOR EACH STATEMENT EXECUTE FUNCTION note_statement();
ALTER TABLE ? ENABLE REPLICA TRIGGER t
SQL
		'SELECT count(*) > 0, count(DISTINCT who), min(who) FROM seen', "t|1|$role" ],
	[ 'a rule that sleeps', '', q(CREATE RULE r AS ON INSERT TO ? DO ALSO INSERT INTO seen VALUES ('rule', new.v::text)),
		'SELECT count(*) FROM seen', 0 ],
	[ 'a rule that does not sleep', '', <<'SQL',
CREATE RULE r AS ON INSERT TO ? DO ALSO INSERT INTO seen VALUES ('rule', new.v::text);
ALTER TABLE ? ENABLE ALWAYS RULE r
SQL
		'SELECT count(*) FROM seen', $rows ],
	[ 'a policy', '', <<"SQL",
ALTER TABLE ? ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON ? TO $role USING (true) WITH CHECK (v IS DISTINCT FROM 7)
SQL
		$all, $rows - 1, '42501 1' ],
	[ 'rights to some columns', '', <<"SQL",
REVOKE ALL ON ? FROM $role;
GRANT INSERT (id, v), SELECT (id, v), UPDATE (id, v) ON ? TO $role
SQL
		$all, $rows ],
	[ 'no rights to one of them', '', <<"SQL",
REVOKE ALL ON ? FROM $role;
GRANT INSERT (id), SELECT, UPDATE ON ? TO $role
SQL
		$all, 0, "42501 $rows" ],
	[ 'no rights', '', "REVOKE INSERT ON ? FROM $role", $all, 0, "42501 $rows" ],
);

my $n = 0;
foreach my $case (@cases)
{
	my ($what, $columns, $ddl, $look, $expected, $stays) = @$case;
	my $table = 'many_' . ++$n;

	s/\?/$table/g foreach $ddl, $look;
	$bob->sql('DELETE FROM seen');
	# to analyze an index that is code calls it
	$bob->define("CREATE TABLE $table (id int PRIMARY KEY, v int$columns) WITH (autovacuum_enabled = off); $ddl", $table);
	$alice->sql(<<"SQL");
CREATE TABLE $table (id int PRIMARY KEY, v int);
INSERT INTO $table SELECT i, nullif(i, 9) FROM generate_series(1, $rows) i;
SQL
	$alice->define('', $table);
	is($alice->sql($mine), 't', "$what: all has been sent");
	is($bob->sql($look), $expected, $what);
	is($bob->sql($parked), $stays // '', "$what: and the others are waited for") ;
	$_->sql("SELECT entanglement.desynchronize('$table')") foreach $alice, $bob;
}

# ---- types ----

# A value is as long as the table says.
$bob->define('CREATE TABLE typed (id numeric(6, 2) PRIMARY KEY, a varchar(4), b numeric(5, 1), c char(3), d timestamptz(0))', 'typed');
$alice->define('CREATE TABLE typed (id numeric PRIMARY KEY, a varchar, b numeric, c char(3), d timestamptz)', 'typed');
$alice->sql(<<"SQL");
INSERT INTO typed SELECT i, CASE i WHEN 5 THEN 'too long' ELSE 'a' || i % 9 || '    ' END, i + 0.26, i % 7,
	'2030-01-01 12:00:00.4Z' FROM generate_series(1, 100) i
SQL
is($alice->sql($mine), 't', 'types: all has been sent');
is($bob->sql(q(SELECT count(*), max(length(a)), max(b - id), max(octet_length(c)), max(d) = '2030-01-01 12:00:00Z',
	min(id)::text FROM typed)), '99|4|0.30|3|t|1.00', 'values are made as the table says');
is($bob->sql($parked), '22001 1', 'the one that is too long is waited for');

# ---- reading ----

# Changed rows lie among others, and among what has been deleted.
$_->define('CREATE TABLE mixed (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off)', 'mixed') foreach $alice, $bob;
$alice->sql("INSERT INTO mixed SELECT i, i FROM generate_series(-$rows, 2 * $rows) i");
foreach my $change ('DELETE FROM mixed WHERE id % 3 = 0', 'UPDATE mixed SET v = v + 1 WHERE id % 2 = 0',
	'UPDATE mixed SET v = v + 1 WHERE id % 7 = 0', "DELETE FROM mixed WHERE id BETWEEN 20 AND $rows",
	'UPDATE mixed SET v = v + 1 WHERE id < 30 OR id % 20 = 0',
	'UPDATE mixed SET v = v + 1; DELETE FROM mixed WHERE id % 5 = 0; INSERT INTO mixed SELECT i, i FROM generate_series(21, 90) i')
{
	$alice->sql($change);
	is($alice->sql($mine), 't', "$change: all has been sent");
	is($bob->digest('mixed'), $alice->digest('mixed'), $change);
}

# Who may not read all of a table is asked nothing else.
$_->define('CREATE TABLE part (id int PRIMARY KEY, v int, secret text)', 'part') foreach $alice, $bob;
$alice->sql(<<"SQL");
REVOKE ALL ON part FROM bob;
GRANT SELECT (id, v) ON part TO bob;
INSERT INTO part SELECT i, i, 'secret' FROM generate_series(1, $rows) i;
SQL
is($alice->sql($mine), 't', 'part: all has been sent');
is($bob->sql('SELECT count(*), sum(v), count(secret) FROM part'),
	"$rows|" . $rows * ($rows + 1) / 2 . '|0', 'what may not be read has not come');
$alice->sql('UPDATE part SET v = -v; REVOKE SELECT (id, v) ON part FROM bob');
$alice->sql($mine);
$alice->sql('GRANT SELECT ON part TO bob');
is($alice->sql($mine), 't', 'part: all has been sent');
is($bob->sql('SELECT count(*), sum(v), count(secret) FROM part'),
	"$rows|" . -$rows * ($rows + 1) / 2 . "|$rows", 'and comes when it may be');

done_testing();
