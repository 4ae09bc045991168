# Trojans of a table's owner: tom owns tables at alice and bob, with code in
# all that may be hung on them, which notes who runs it and tries to make him a
# superuser. alice dials bob; what can be done with rows is done.
#
# Promise: no code of tom's runs with more rights than tom's, or those of the
# role that stands for a peer, whoever calls what: peers, workers on either
# side, or an administrator who is a superuser.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('trojans');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);

# tom and an administrator log in themselves: nobody can RESET to more.
sub as
{
	my ($role, $node, $sql) = @_;
	my ($rc, $out, $err) = $node->try($sql, extra_params => [ '-U', $role, '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose' ]);

	is($rc, 0, "$role at " . $node->name . ': ' . ($sql =~ /^\s*(.{1,60})/)[0]) or diag $err;
	return $out;
}

$cluster->safe_psql('postgres', 'CREATE ROLE tom LOGIN; CREATE ROLE admin LOGIN SUPERUSER');
link_nodes($alice, $bob);
foreach my $node (@all)
{
	$node->sql(<<'SQL');
GRANT CREATE ON SCHEMA public TO tom;
GRANT EXECUTE ON FUNCTION entanglement.synchronize, entanglement.capture_trigger,
	entanglement.request_trigger, entanglement.truncate_trigger TO tom;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM alice, bob;
SQL
	as('tom', $node, <<'SQL');
CREATE TABLE seen (what text, who text, super boolean, process text);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION note(what text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	attempt text;
BEGIN
	FOREACH attempt IN ARRAY ARRAY['RESET SESSION AUTHORIZATION', 'RESET ROLE',
		'SET ROLE admin', 'SET SESSION AUTHORIZATION admin',
		'ALTER ROLE tom SUPERUSER', 'GRANT admin TO tom']
	LOOP
		BEGIN
			EXECUTE attempt;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	INSERT INTO public.seen
	SELECT what, current_user, r.rolsuper, session_user || ', ' || a.backend_type
	  FROM pg_catalog.pg_roles r, pg_catalog.pg_stat_activity a
	 WHERE r.rolname = current_user AND a.pid = pg_catalog.pg_backend_pid();
	RETURN true;
END $$;
CREATE FUNCTION lie(what text, i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.note(what);
	RETURN i;
END $$;
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(tg_argv[0]);
	RETURN CASE tg_op WHEN 'DELETE' THEN old ELSE new END;
END $$;
CREATE FUNCTION same(a int, b int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.note('operator');
	RETURN a = b;
END $$;
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION mood_json(m mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.note('cast');
	RETURN '1';
END $$;
CREATE FUNCTION mood_text(m mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM public.note('cast');
	RETURN 'x';
END $$;
CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
CREATE CAST (mood AS text) WITH FUNCTION mood_text(mood) AS IMPLICIT;
CREATE DOMAIN number AS int CHECK (public.note('domain') AND VALUE > 0);
CREATE VIEW watch AS SELECT public.note('view') AS ok;
GRANT SELECT ON watch TO PUBLIC;
CREATE TABLE item (id number PRIMARY KEY, v text, w int, m mood,
	d boolean DEFAULT public.note('default'),
	g int GENERATED ALWAYS AS (public.lie('generated column', w)) STORED,
	CHECK (w === w));
-- a constant would be evaluated by whoever plans a SELECT, as PostgreSQL does
CREATE INDEX ON item (public.lie('index', w));
CREATE INDEX ON item (w) WHERE public.lie('index predicate', w) > 0;
CREATE TABLE kid (id int PRIMARY KEY, item number REFERENCES item ON DELETE CASCADE);
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON item USING (public.note('policy') AND (SELECT ok FROM watch));
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE OR DELETE ON item
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	EXECUTE FUNCTION note_change('deferred trigger');
CREATE TRIGGER a_before BEFORE INSERT OR UPDATE OR DELETE ON item
	FOR EACH ROW EXECUTE FUNCTION note_change('trigger before');
CREATE TRIGGER soon AFTER INSERT OR UPDATE OR DELETE ON item
	FOR EACH ROW EXECUTE FUNCTION note_change('trigger after');
ALTER TABLE item ENABLE ALWAYS TRIGGER late, ENABLE ALWAYS TRIGGER soon, ENABLE ALWAYS TRIGGER a_before;
GRANT SELECT, INSERT, UPDATE, DELETE ON kid TO alice, bob;
GRANT SELECT (id, v, w, m), INSERT (id, v, w, m), UPDATE (id, v, w, m), DELETE ON item TO alice, bob;
SELECT entanglement.synchronize('item', integrity => true);
SELECT entanglement.synchronize('kid', integrity => true);
INSERT INTO seen SELECT 'begun', 'tom', false, '';
SQL
}

as('tom', $alice, "INSERT INTO item SELECT i, 'alice', i, 'good' FROM generate_series(1, 20) i; INSERT INTO kid SELECT i, i FROM generate_series(1, 5) i");
as('tom', $bob, "INSERT INTO item SELECT i, 'bob', i, 'bad' FROM generate_series(101, 120) i; INSERT INTO kid VALUES (101, 101)");
converge(\@all, { item => 'id, v, w', kid => '*' }, 'rows of both are at both');
as('tom', $alice, "UPDATE item SET v = 'new', m = 'bad' WHERE id BETWEEN 3 AND 6; DELETE FROM item WHERE id = 1");
as('tom', $bob, "UPDATE item SET v = 'new' WHERE id BETWEEN 103 AND 106; DELETE FROM item WHERE id = 102");
converge(\@all, { item => 'id, v, w', kid => '*' }, 'changed and deleted');

# requests, done and refused
as('tom', $alice, "UPDATE item SET v = 'asked', m = 'good' WHERE id = 110; DELETE FROM item WHERE id = 111");
as('tom', $bob, "UPDATE item SET v = 'asked' WHERE id = 10; DELETE FROM item WHERE id = 11; UPDATE item SET w = 7 WHERE id = 12");
$_->wait_until("SELECT count(*) FROM entanglement.requests WHERE state IN ('waiting', 'sent', 'applied')", 0, 'answered') foreach @all;
converge(\@all, { item => 'id, v, w', kid => '*' }, 'asked');

# what is parked, and comes in the end
$bob->sql("ALTER TABLE item ADD CHECK (v <> 'refused')");
as('tom', $alice, "UPDATE item SET v = 'refused' WHERE id IN (13, 14); INSERT INTO item VALUES (30, 'refused', 1)");
$bob->wait_until('SELECT count(*) FROM entanglement.parked', 3, 'parked');
as('tom', $alice, "UPDATE item SET v = 'fine' WHERE v = 'refused'");
converge(\@all, { item => 'id, v, w' }, 'parked rows came in the end');

# an administrator looks, compares, repairs, hands over, ends
foreach my $node (@all)
{
	my $other = $node == $alice ? 'bob' : 'alice';

	as('admin', $node, "SELECT * FROM entanglement.peers; SELECT * FROM entanglement.requests; SELECT * FROM entanglement.parked_rows; SELECT * FROM entanglement.tables");
	as('admin', $node, "SELECT entanglement.may_see('$other'), entanglement.owner_of(i) FROM item i");
	as('admin', $node, "SELECT entanglement.resync('$other')");
	$node->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'compared');
	as('admin', $node, "SELECT entanglement.refresh('$other')");
	as('admin', $node, "SELECT entanglement.alter_peer('$other', role => '$other')");
}
as('admin', $alice, "SELECT * FROM entanglement.verify('bob')");
as('admin', $alice, "SELECT entanglement.transfer(i, 'bob') FROM item i WHERE id IN (7, 8)");
$bob->wait_until("SELECT count(*) FROM item i WHERE id IN (7, 8) AND entanglement.owner_of(i) = 'bob'", 2, 'handed over');
as('admin', $alice, "SELECT entanglement.create_owner('brief')");
as('tom', $alice, "SET entanglement.owner = 'brief'; INSERT INTO item SELECT i, 'brief', i, 'good' FROM generate_series(200, 210) i");
$bob->wait_until("SELECT count(*) FROM item WHERE v = 'brief'", 11, 'an owner more');
as('tom', $alice, "DELETE FROM item WHERE v = 'brief' AND id > 205");
$bob->wait_until("SELECT count(*) FROM item WHERE v = 'brief'", 6, 'some of his rows go');
$cluster->stop('immediate');
$cluster->start;
$_->[0]->wait_connected($_->[1]) foreach [ $alice, 'bob' ], [ $bob, 'alice' ];
as('tom', $alice, "UPDATE item SET v = 'at last' WHERE id IN (15, 16); DELETE FROM item WHERE id = 17");
# a row that has become nobody's is removed by who repairs
$bob->wait_until("SELECT v FROM item WHERE id = 16", 'at last', 'on again');
is($bob->sql("DELETE FROM entanglement.object WHERE key = '\\x0400000012' AND rel = (SELECT no FROM entanglement.relation WHERE relid = 'item'::regclass) RETURNING 1"), 1, 'a row without an object');
# which fails where a deferred trigger cannot be fired under restrictions
$bob->sql('ALTER TABLE item DISABLE TRIGGER late');
as('admin', $bob, "SELECT entanglement.resync('alice')");
$_->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'compared') foreach @all;
converge(\@all, { item => 'id, v, w', kid => '*' }, 'all agree');
# the end of an owner elsewhere: its rows are deleted by the collector
$alice->sql("ALTER TABLE item DISABLE TRIGGER late, DISABLE TRIGGER soon, DISABLE TRIGGER a_before");
$alice->sql("SELECT entanglement.drop_owner('brief')");
$bob->wait_until("SELECT count(*) FROM item WHERE v = 'brief'", 0, 'gone with its owner');

foreach my $node (@all)
{
	my $name = $node->name;

	is($node->sql('SELECT DISTINCT what, who, process FROM seen WHERE super ORDER BY 1, 2, 3'), '', "$name: nothing of tom's ran as a superuser");
	is($node->sql("SELECT DISTINCT who FROM seen WHERE who NOT IN ('tom', 'alice', 'bob')"), '', "$name: but as himself, or as a peer's role");
	is($node->sql("SELECT string_agg(DISTINCT what, ', ' ORDER BY what) FROM seen WHERE who IN ('alice', 'bob')"),
		'default, deferred trigger, domain, generated column, index, index predicate, operator, policy, trigger after, trigger before, view',
		"$name: for peers all of it ran");
}
is($alice->sql("SELECT rolsuper, pg_has_role('tom', 'admin', 'MEMBER') FROM pg_roles WHERE rolname = 'tom'"), 'f|f', 'and tom is who he was');

done_testing();
