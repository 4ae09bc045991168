# Tables with integrity: parents and children, a tree, a circle; a chain of
# databases alice - bob - carol in one cluster, of which alice owns most.
#
# Promise: nowhere is a child ever without its parent, and what a transaction
# of alice's changed together is seen together; a row that cannot have that
# waits, with its reason, until it can, and nothing else waits for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

# what is parked is asked for again for a reason, not after some time
my $cluster = Entanglement::Node->cluster('integrity',
	conf => "entanglement.retry_parked = 1h\n");
my ($alice, $bob, $carol) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob carol);
my @all = ($alice, $bob, $carol);
my @tables = qw(parent child grandchild tree egg hen late_parent late_child);

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
CREATE INDEX ON child (parent);
CREATE INDEX ON child (code);
CREATE INDEX ON grandchild (a);
CREATE INDEX ON grandchild (b);
CREATE TABLE late_parent (id int PRIMARY KEY);
CREATE TABLE late_child (id int PRIMARY KEY, parent int REFERENCES late_parent);
SQL
	# the user wants children first
	$node->sql("SELECT entanglement.synchronize('late_child', integrity => true, priority => -5)");
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
	 + (SELECT count(*) FROM late_child c LEFT JOIN late_parent p ON p.id = c.parent WHERE p.id IS NULL)
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
INSERT INTO late_parent SELECT i FROM generate_series(1, 300) i;
INSERT INTO late_child SELECT i, i FROM generate_series(1, 300) i;
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
link_nodes($carol, $bob);
converge(\@all, \@tables, 'all arrives');
foreach my $node ($bob, $carol)
{
	waiting($node, 'none', 'nothing was held back');
	is($node->sql($orphans), '0', 'and every child has its parent');
}
is($alice->sql("SELECT string_agg(format('%s %s', relation, priority), ', ' ORDER BY priority, relation::text) FROM entanglement.tables"),
	'late_child -5, egg 0, hen 0, late_parent 0, parent 0, tree 0, child 1, grandchild 2',
	'who is referenced comes first, unless the user wants it otherwise');

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
$_->sql(<<"SQL") foreach $bob, $carol;
CREATE TABLE looks (bad text, new_have boolean);
CREATE PROCEDURE look() LANGUAGE plpgsql AS \$\$
DECLARE
	orphans bigint;
	wrong text;
	now_have bigint;
	last_have bigint;
BEGIN
	WHILE to_regclass('looking') IS NOT NULL LOOP
		SELECT ($orphans),
			   (SELECT string_agg(format('%s has %s, not %s', p.id, c.count, p.n), ', ')
				  FROM parent p LEFT JOIN (SELECT parent, count(*) FROM child GROUP BY 1) c ON c.parent = p.id
				 WHERE p.n <> coalesce(c.count, 0))
		  INTO orphans, wrong;
		SELECT have INTO now_have FROM entanglement.owners WHERE name = 'alice';
		INSERT INTO looks VALUES (CASE WHEN orphans > 0 OR wrong IS NOT NULL
			THEN concat_ws(' orphans, ', orphans, wrong) END, now_have IS DISTINCT FROM last_have);
		last_have := now_have;
		COMMIT;
		PERFORM pg_sleep(0.02);	-- leaves the machine to those who are looked at
	END LOOP;
END \$\$;
SQL
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/move.sql", "SELECT move();\n");
append_to_file("$dir/hot.sql", "UPDATE tree SET hidden = NOT hidden WHERE id = 1;\n");
append_to_file("$dir/cut.sql", <<'SQL');
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename IN ('bob', 'carol');
SQL

# Writers on alice, a look at the others again and again, until there were enough.
sub write_and_look
{
	my ($name, $haves, @scripts) = @_;
	my @lookers = ($bob, $carol);
	my @sessions = map { $_->session } @lookers;
	my $before = $alice->peer('bob')->{batches_sent};
	my ($in, $out) = ('', '');

	$_->sql('TRUNCATE looks; CREATE TABLE looking ()') foreach @lookers;
	foreach my $session (@sessions)
	{
		$session->{stdin} .= "CALL look();\n";
		$session->{run}->pump_nb;
	}
	my $writers = IPC::Run::start(
		[
			$cluster->installed_command('pgbench'), '-n',
			'-c', 4, '-T', deadline(),
			(map { ('-f', "$dir/$_") } @scripts),
			'-h', $cluster->host, '-p', $cluster->port, $alice->db
		],
		'<', \undef, '>&', \$out);
	# links that are cut again and again are up when the machine gets to it
	$_->wait_until("SELECT count(*) > 100 AND count(*) FILTER (WHERE new_have) > $haves FROM looks", 't',
		"$name: looked at often enough, and haves went on") foreach @lookers;
	wait_for("$name: batches went", sub { return $alice->peer('bob')->{batches_sent} > $before + $haves; });
	ok($writers->pumpable, "$name: writers, all the time") or diag($out);
	$writers->signal('INT');
	$writers->finish;
	$_->sql('DROP TABLE looking') foreach @lookers;
	$_->quit foreach @sessions;
	is($_->sql('SELECT bad FROM looks WHERE bad IS NOT NULL LIMIT 3'), '',
		"$name: every look found every child with its parent, and as many as it says") foreach @lookers;
	converge(\@all, \@tables, "$name: all arrives");
	waiting($_, 'none', "$name: nothing is held back") foreach @lookers;
	return;
}

write_and_look('at full speed', 5, 'move.sql@5', 'hot.sql@5');
write_and_look('with links cut', 0, 'move.sql@25', 'hot.sql@25', 'cut.sql@1');

# ---- a parent that the peer may not see ----

$alice->sql(<<'SQL');
BEGIN;
UPDATE parent SET hidden = false WHERE hidden;
UPDATE tree SET hidden = false WHERE hidden;
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
ALTER TABLE tree ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON parent TO bob USING (NOT hidden);
CREATE POLICY seen ON tree TO bob USING (NOT hidden);
COMMIT;
BEGIN;
INSERT INTO parent VALUES (50000, 1, NULL, true), (50001, 1, NULL, false);
INSERT INTO child VALUES (50000, 50000, 0), (50001, 50001, 0);
INSERT INTO grandchild VALUES (50000, 50000, NULL), (50001, 50001, NULL);
INSERT INTO tree VALUES (50000, NULL, true), (50001, 50000, false), (50002, 50001, false), (50003, NULL, false);
COMMIT;
SQL
waiting($bob, <<'TEXT' =~ s/\n\z//r, 'children of hidden parents are held back, and theirs');
child (id)=(50000) 23503 insert or update on table "child" violates foreign key constraint "child_parent_fkey" Key (parent)=(50000) is not present in table "parent".
grandchild (id)=(50000) 23503 insert or update on table "grandchild" violates foreign key constraint "grandchild_a_fkey" Key (a)=(50000) is not present in table "child".
tree (id)=(50001) 23503 insert or update on table "tree" violates foreign key constraint "tree_above_fkey" Key (above)=(50000) is not present in table "tree".
tree (id)=(50002) 23503 insert or update on table "tree" violates foreign key constraint "tree_above_fkey" Key (above)=(50001) is not present in table "tree".
TEXT
$_->wait_until('SELECT count(*) FROM grandchild g, tree t WHERE g.id = 50001 AND t.id = 50003', '1', 'the others are not')
  foreach $bob, $carol;
$alice->sql('UPDATE child SET v = 1 WHERE id = 50000');
$alice->drain('bob');
waiting($carol, 'none', 'what is held back is not passed on');
$alice->sql('UPDATE parent SET hidden = false WHERE id = 50000');
$alice->sql('UPDATE tree SET hidden = false WHERE id = 50000');
waiting($_, 'none', 'once the parents are seen, all come') foreach $bob, $carol;
converge(\@all, \@tables, 'and all agree');
$alice->sql('ALTER TABLE parent DISABLE ROW LEVEL SECURITY; ALTER TABLE tree DISABLE ROW LEVEL SECURITY');

# rows that wait for each other in a circle come together
$alice->sql(<<'SQL');
CREATE POLICY seen ON egg TO bob USING (id < 60000);
ALTER TABLE egg ENABLE ROW LEVEL SECURITY;
BEGIN;
INSERT INTO hen VALUES (60000, 60000), (60001, 60001);
INSERT INTO egg VALUES (60000, 60001), (60001, 60000);
COMMIT;
SQL
$bob->wait_until('SELECT count(*) FROM entanglement.parked_rows', '2', 'hens wait for hidden eggs');
$alice->sql(<<'SQL');
DROP POLICY seen ON egg;
CREATE POLICY seen ON egg TO bob USING (id <> 60001);
BEGIN;
UPDATE egg SET hen = NULL WHERE id = 60000;
UPDATE egg SET hen = 60001 WHERE id = 60000;
COMMIT;
SQL
$bob->wait_until("SELECT string_agg(relation || ' ' || key, ', ' ORDER BY relation::text, key) FROM entanglement.parked_rows",
	'egg (id)=(60000), hen (id)=(60000), hen (id)=(60001)', 'one that may be seen waits with them');
$alice->sql(<<'SQL');
ALTER TABLE egg DISABLE ROW LEVEL SECURITY;
BEGIN;
UPDATE egg SET hen = NULL WHERE id = 60001;
UPDATE egg SET hen = 60000 WHERE id = 60001;
COMMIT;
SQL
waiting($_, 'none', 'with the last one they all come') foreach $bob, $carol;
converge(\@all, \@tables, 'and are the same everywhere');

# ---- a child of one owner, a parent of another ----

$bob->sql("SELECT entanglement.pause_peer('alice')");
$alice->sql('DELETE FROM grandchild WHERE id = 50001; DELETE FROM child WHERE id = 50001; DELETE FROM parent WHERE id = 50001');
$bob->sql('INSERT INTO child VALUES (60000, 50001, 0)');
$bob->wait_folded;
$bob->sql("SELECT entanglement.resume_peer('alice')");
waiting($bob, 'parent (id)=(50001) 23503 update or delete on table "parent" violates foreign key constraint "child_parent_fkey" on table "child" Key (id)=(50001) is still referenced from table "child".',
	'the end of a parent waits as long as there is a child');
waiting($alice, 'child (id)=(60000) 23503 insert or update on table "child" violates foreign key constraint "child_parent_fkey" Key (parent)=(50001) is not present in table "parent".',
	'a child whose parent has died waits');
$bob->wait_until('SELECT count(*) FROM child WHERE id = 50001', '0', 'others are gone');
is($bob->sql($orphans), '0', 'no child is without its parent');
# the owner forgets the parent's death meanwhile
$alice->wait_until('SELECT count(*) FROM entanglement.tombstone', '0', 'no tombstone is left');
$bob->sql('DELETE FROM child WHERE id = 60000');
waiting($_, 'none', 'when the child is gone, nothing waits') foreach @all;
converge(\@all, \@tables, 'and all agree again');

# ... and a local row that comes to a parent just as it goes
$bob->sql('INSERT INTO child VALUES (60001, 50000, 0)');
$alice->wait_until('SELECT count(*) FROM child WHERE id = 60001', '1', 'a child of somebody else arrives');
$alice->fails('DELETE FROM parent WHERE id = 50000', '23503', 'still referenced', 'and holds the parent at its home');
$bob->sql('UPDATE child SET parent = (SELECT min(id) FROM parent) WHERE id = 60001');
$alice->wait_until('SELECT count(*) FROM child WHERE id = 60001 AND parent = 50000', '0', 'it has moved');
$alice->sql('DELETE FROM grandchild WHERE id = 50000; DELETE FROM child WHERE id = 50000; DELETE FROM parent WHERE id = 50000');
converge(\@all, \@tables, 'so it can go');

# ---- an owner that is dropped, whose row has a child of somebody else's ----

$alice->sql(<<'SQL');
SELECT entanglement.create_owner('red'), entanglement.create_owner('blue');
SET entanglement.owner = 'red';
INSERT INTO parent SELECT i, 0, 'red ' || i FROM generate_series(70000, 70009) i;
INSERT INTO child SELECT i, i, 0, 'red ' || i FROM generate_series(70000, 70009) i;
SET entanglement.owner = 'blue';
INSERT INTO parent VALUES (70100);
SQL
converge(\@all, \@tables, 'two owners have spread');
my $log = $carol->log_mark;
$carol->sql("SELECT entanglement.pause_peer('bob')");
$carol->sql('INSERT INTO child VALUES (70010, 70005, 0)');
$alice->sql("SELECT entanglement.drop_owner('red'); SELECT entanglement.drop_owner('blue')");
$bob->wait_until('SELECT count(*) FROM parent WHERE id >= 70000', '0', 'gone where nobody misses them');
$carol->sql("SELECT entanglement.resume_peer('bob')");
$carol->wait_until('SELECT string_agg(id::text, $$ $$) FROM parent WHERE id >= 70000', '70005',
	'what is referenced stays, and holds nothing up');
$carol->wait_until("SELECT string_agg(name, ' ') FROM entanglement.owner WHERE gone_as IS NOT NULL", 'red',
	'of one that is no more');
waiting($bob, 'child (id)=(70010) 23503 insert or update on table "child" violates foreign key constraint "child_parent_fkey" Key (parent)=(70005) is not present in table "parent".',
	'the child waits elsewhere');
is($_->sql($orphans), '0', 'no child is without its parent') foreach @all;
like($carol->log_since($log), qr/LOG:  rows of owner "red", which is no more, are referenced by rows of others/, 'the log says so');
$carol->sql('DELETE FROM child WHERE id = 70010');
$carol->wait_until("SELECT count(*) FROM entanglement.owner WHERE name = 'red'", '0', 'it goes when the child is gone');
waiting($_, 'none', 'nothing waits') foreach @all;
converge(\@all, \@tables, 'and all agree');

done_testing();
