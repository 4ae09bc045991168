# Code that belongs to a table's owner, run on behalf of peers: domains,
# deferred triggers, defaults, policies, index expressions, functions that
# pose as PostgreSQL's own.
#
# Promise: whatever a table's owner has attached to it never runs with more
# rights than those of the peer, or of the owner; on the side that dials, whose
# worker is a superuser, as on the side that is dialed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('rights');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);

$cluster->safe_psql('postgres', 'CREATE ROLE tom');
link_nodes($alice, $bob);

# tom notes who runs his code
foreach my $node (@all)
{
	$node->sql(<<'SQL');
GRANT CREATE ON SCHEMA public TO tom;
GRANT EXECUTE ON FUNCTION entanglement.synchronize, entanglement.capture_trigger,
	entanglement.request_trigger, entanglement.truncate_trigger TO tom;
GRANT USAGE ON SCHEMA entanglement TO tom;
SET SESSION AUTHORIZATION tom;
CREATE TABLE seen (what text, who text, super boolean, process text);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION note(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
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
	RETURN NULL;
END $$;
CREATE FUNCTION unnest(x bytea[]) RETURNS SETOF bytea LANGUAGE sql AS
	$$ SELECT x[i] FROM generate_subscripts(x, 1) i, public.note('unnest') $$;
CREATE FUNCTION unnest(x int[]) RETURNS SETOF int LANGUAGE sql AS
	$$ SELECT x[i] FROM generate_subscripts(x, 1) i, public.note('unnest') $$;
CREATE DOMAIN number AS int CHECK (public.note('domain') AND VALUE > 0);
CREATE TABLE item (id number PRIMARY KEY, v text, w int,
	d boolean DEFAULT public.note('default'));
CREATE INDEX ON item ((w + public.lie('index', 1)));
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON item USING (public.note('policy'));
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE OR DELETE ON item
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	EXECUTE FUNCTION note_change('deferred trigger');
CREATE TRIGGER soon AFTER INSERT OR UPDATE OR DELETE ON item
	FOR EACH ROW EXECUTE FUNCTION note_change('trigger');
ALTER TABLE item ENABLE ALWAYS TRIGGER late, ENABLE ALWAYS TRIGGER soon;
GRANT SELECT (id, v, w), INSERT (id, v, w), UPDATE (id, v, w), DELETE ON item
	TO alice, bob;
REVOKE SELECT, INSERT, UPDATE ON item FROM alice, bob;
GRANT SELECT (id, v, w), INSERT (id, v, w), UPDATE (id, v, w) ON item TO alice, bob;
SELECT entanglement.synchronize('item');
DELETE FROM seen;
SQL
}

# born, changed, born and dead within one fold, deleted: by tom himself
$alice->sql(<<'SQL');
SET SESSION AUTHORIZATION tom;
INSERT INTO item SELECT i, 'alice', i FROM generate_series(1, 20) i;
SQL
$bob->sql(<<'SQL');
SET SESSION AUTHORIZATION tom;
INSERT INTO item SELECT i, 'bob', i FROM generate_series(101, 120) i;
SQL
$_->wait_until('SELECT count(*) FROM item', '40', 'all rows') foreach @all;
foreach my $node (@all)
{
	$node->sql(<<'SQL');
SET SESSION AUTHORIZATION tom;
UPDATE item SET v = v || '!' WHERE entanglement.owner_of(item) = current_database() AND id % 2 = 0;
DO $$ BEGIN
	INSERT INTO item VALUES (1000, 'x', 1);
	DELETE FROM item WHERE id = 1000;
	COMMIT;
	DELETE FROM item WHERE id IN (1, 101) AND entanglement.owner_of(item) = current_database();
	INSERT INTO item VALUES (CASE current_database() WHEN 'alice' THEN 1 ELSE 101 END, 'again', 2);
	DELETE FROM item WHERE id IN (2, 102) AND entanglement.owner_of(item) = current_database();
END $$;
SQL
}
converge(\@all, { item => 'id, v, w' }, 'rows of both are at both');

# and once more through everything that is asked for by key
$_->sql('TRUNCATE seen') foreach @all;
$bob->sql("ALTER TABLE item ADD CHECK (v <> 'refused')");
$alice->sql(<<'SQL');
SET SESSION AUTHORIZATION tom;
UPDATE item SET v = 'refused' WHERE id IN (3, 4);
INSERT INTO item VALUES (30, 'refused', 1);
SQL
$bob->wait_until('SELECT count(*) FROM entanglement.parked', '3', 'parked');
$alice->sql("SET SESSION AUTHORIZATION tom; UPDATE item SET v = 'fine' WHERE v = 'refused'");
converge(\@all, { item => 'id, v, w' }, 'parked rows came in the end');
$_->drain foreach @all;

foreach my $node (@all)
{
	my $name = $node->name;

	# what this test itself asks as a superuser does not count
	is( $node->sql(
			"SELECT DISTINCT what, who, process FROM seen WHERE super AND process <> 'postgres, client backend'"
		),
		'',
		"$name: nothing of tom's ran as a superuser");
	is( $node->sql(
			q(SELECT DISTINCT what FROM seen WHERE what NOT IN ('index') ORDER BY 1)),
		"default\ndeferred trigger\ndomain\npolicy\ntrigger",
		"$name: though all of it ran, but for what poses as PostgreSQL's");
}

done_testing();
