# Tables with integrity: parents and children, a tree, a circle; databases of
# one cluster, alice who owns most, bob who holds copies.
#
# Promise: at bob no child is ever without its parent, and what a transaction
# of alice's changed together is seen together; a row that cannot have that
# waits, with its reason, until it can, and nothing else waits for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

# what is parked is asked for again for a reason, not after some time
my $cluster = Entanglement::Node->cluster('integrity',
	conf => "entanglement.retry_parked = 1h\n");
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my @all = ($alice, $bob);
my @tables = qw(parent child grandchild tree egg hen);

foreach my $node (@all)
{
	$node->sql(<<'SQL');
CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, code text UNIQUE,
	hidden boolean NOT NULL DEFAULT false);
CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent, v int,
	code text REFERENCES parent (code));
CREATE TABLE grandchild (id int PRIMARY KEY, a bigint REFERENCES child, b int,
	FOREIGN KEY (b) REFERENCES child (id) MATCH FULL);
CREATE TABLE tree (id int PRIMARY KEY, above int REFERENCES tree, hidden boolean DEFAULT false);
CREATE TABLE egg (id int PRIMARY KEY, hen int);
CREATE TABLE hen (id int PRIMARY KEY, egg int REFERENCES egg DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
SQL
	$node->sql("SELECT entanglement.synchronize('$_', integrity => true)")
	  foreach qw(grandchild tree egg);
}

# Rows that break a foreign key, or a rule of the writer's, in one snapshot.
my $orphans = <<'SQL';
SELECT (SELECT count(*) FROM child c LEFT JOIN parent p ON p.id = c.parent WHERE p.id IS NULL)
	 + (SELECT count(*) FROM child c LEFT JOIN parent p ON p.code = c.code
		 WHERE p.id IS NULL AND c.code IS NOT NULL)
	 + (SELECT count(*) FROM grandchild g LEFT JOIN child c ON c.id = g.a WHERE c.id IS NULL AND g.a IS NOT NULL)
	 + (SELECT count(*) FROM tree t LEFT JOIN tree u ON u.id = t.above WHERE u.id IS NULL AND t.above IS NOT NULL)
	 + (SELECT count(*) FROM egg e LEFT JOIN hen h ON h.id = e.hen WHERE h.id IS NULL AND e.hen IS NOT NULL)
	 + (SELECT count(*) FROM hen h LEFT JOIN egg e ON e.id = h.egg WHERE e.id IS NULL AND h.egg IS NOT NULL)
SQL

sub waiting
{
	my ($node, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_until(<<'SQL', $expected, $what);
SELECT coalesce(string_agg(concat_ws(' ', relation, key, sqlstate, message, detail), E'\n'
	ORDER BY relation::text, key), 'none') FROM entanglement.parked_rows
SQL
}

# ---- the first copy ----

# parents are younger than their children: their serials do not help
$alice->sql(<<'SQL');
INSERT INTO parent SELECT i, 0, 'c' || i FROM generate_series(1, 400) i;
INSERT INTO child SELECT i, 1 + i % 400, 0, 'c' || (1 + i % 400) FROM generate_series(1, 4000) i;
INSERT INTO grandchild SELECT i, i, NULL FROM generate_series(1, 4000) i;
INSERT INTO tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 2000) i;
BEGIN;
INSERT INTO hen SELECT i, i FROM generate_series(1, 500) i;
INSERT INTO egg SELECT i, 1 + i % 500 FROM generate_series(1, 500) i;
COMMIT;
SQL
$alice->wait_folded;
$alice->sql('UPDATE parent SET n = (SELECT count(*) FROM child c WHERE c.parent = parent.id)');
$alice->sql('UPDATE tree SET hidden = false WHERE id % 2 = 1');
link_nodes($bob, $alice);
converge(\@all, \@tables, 'all arrives');
waiting($bob, 'none', 'nothing was held back');
is($bob->sql($orphans), '0', 'and every child has its parent');

# ---- what changes together is seen together ----

# Writers give children new parents and delete the old ones, in one
# transaction; parent.n says how many children there are.
$alice->sql(<<'SQL');
CREATE SEQUENCE parents START 1000;
CREATE SEQUENCE children START 10000;
CREATE FUNCTION move() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	old record;
	other record;
	fresh int := nextval('parents');
BEGIN
	SELECT * INTO old FROM parent WHERE id > random() * 2000 LIMIT 1 FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	INSERT INTO parent VALUES (fresh, 0, 'c' || fresh);
	UPDATE child SET parent = fresh, code = 'c' || fresh WHERE parent = old.id;
	UPDATE parent SET n = old.n WHERE id = fresh;
	DELETE FROM parent WHERE id = old.id;
	SELECT * INTO other FROM parent WHERE id <> fresh AND id > random() * 2000 LIMIT 1 FOR UPDATE SKIP LOCKED;
	IF FOUND THEN
		INSERT INTO child VALUES (nextval('children'), other.id, 0, other.code);
		UPDATE parent SET n = n + 1 WHERE id = other.id;
		INSERT INTO grandchild VALUES (currval('children'), currval('children'), currval('children'));
	END IF;
	DELETE FROM grandchild WHERE a IN (SELECT id FROM child WHERE parent = fresh ORDER BY id LIMIT 1);
	WITH gone AS (DELETE FROM child WHERE id IN (SELECT id FROM child WHERE parent = fresh ORDER BY id LIMIT 1) RETURNING 1)
	UPDATE parent SET n = n - (SELECT count(*) FROM gone) WHERE id = fresh;
END $$;
SQL
$bob->sql(<<"SQL");
CREATE TABLE looks (n bigint, bad text);
CREATE PROCEDURE look(seconds int) LANGUAGE plpgsql AS \$\$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	orphans bigint;
	wrong text;
	looks bigint := 0;
BEGIN
	WHILE clock_timestamp() < until LOOP
		SELECT ($orphans),
			   (SELECT string_agg(format('%s has %s, not %s', p.id, c.count, p.n), ', ')
				  FROM parent p LEFT JOIN (SELECT parent, count(*) FROM child GROUP BY 1) c ON c.parent = p.id
				 WHERE p.n <> coalesce(c.count, 0))
		  INTO orphans, wrong;
		looks := looks + 1;
		IF orphans > 0 OR wrong IS NOT NULL THEN
			INSERT INTO looks VALUES (looks, concat_ws(' orphans, ', orphans, wrong));
		END IF;
		COMMIT;
	END LOOP;
	INSERT INTO looks VALUES (looks, NULL);
END \$\$;
SQL
my $script = PostgreSQL::Test::Utils::tempdir() . '/move.sql';
append_to_file($script, "SELECT move();\n");

# Writers on alice, a look at bob again and again, for that many seconds.
sub write_and_look
{
	my ($seconds, $name) = @_;
	my $looker = $bob->session;

	$bob->sql('TRUNCATE looks');
	$looker->{stdin} .= "CALL look($seconds + 1); SELECT 'looked';\n";
	$looker->{run}->pump_nb;
	$alice->cluster_of->command_ok(
		[
			'pgbench', '-n', '-c', 4, '-T', $seconds, '-f', $script,
			'-h', $cluster->host, '-p', $cluster->port, $alice->db
		],
		"$name: writers");
	$bob->wait_until('SELECT count(*) FROM looks WHERE bad IS NULL', '1', "$name: has been looked at");
	is($bob->sql('SELECT bad FROM looks WHERE bad IS NOT NULL LIMIT 3'), '',
		"$name: every look found every child with its parent, and as many as it says");
	cmp_ok($bob->sql('SELECT n FROM looks WHERE bad IS NULL'), '>', 20, "$name: there were enough");
	$looker->quit;
	converge(\@all, \@tables, "$name: all arrives");
	waiting($bob, 'none', "$name: nothing is held back");
	return;
}

write_and_look(5, 'at full speed');
done_testing();
