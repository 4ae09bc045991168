# Copies of a node: dumps, restored in every way, and databases copied.
#
# Promise: a copy does not speak, nor lose what is written to it, until it is told
# what it is. As a replacement it takes the old one's place, and everybody ends
# with what the dump had and what came since; as a new node it lives beside the
# old one, which sends it only what is newer than the dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my %cluster =
  map { $_ => Entanglement::Node->cluster($_) } qw(old far new);
my ($alice, $dora) =
  map { Entanglement::Node->database($cluster{old}, $_) } qw(alice dora);
my ($bob, $carol) =
  map { Entanglement::Node->database($cluster{far}, $_) } qw(bob carol);
my $dumps = PostgreSQL::Test::Utils::tempdir();
my $undecided = 'is a copy of node "\w+" and has not been told what it is';

# Column numbers of a restored table are others: one was dropped.
my $ddl = <<'SQL';
CREATE TABLE item (id int PRIMARY KEY, gone int, v text, w text, team text);
ALTER TABLE item DROP COLUMN gone;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int NOT NULL, parent int NOT NULL REFERENCES parent, v text);
CREATE UNIQUE INDEX child_id ON child (id);
CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
SQL
my @tables = qw(item parent child part);

sub define
{
	my ($node) = @_;

	$node->sql($ddl);
	$node->sql("SELECT entanglement.synchronize('item', owner_column => 'team')");
	$node->sql("SELECT entanglement.synchronize('child', index => 'child_id', integrity => true)");
	$node->sql("SELECT entanglement.synchronize('part')");
	# names that a dump carries are those of the day
	$node->sql('ALTER INDEX child_id RENAME TO child_key; ALTER TABLE item RENAME COLUMN team TO crew');
	return;
}

# Runs a program of PostgreSQL's against a cluster.
sub program
{
	my ($cluster, $name, @command) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $cluster->command_ok(\@command, $name);
}

# A node where the database is restored, or copied.
sub copy_of
{
	my ($node, $cluster, $db) = @_;

	return bless { %$node, cluster => $cluster, name => $db, db => $db }, ref $node;
}

sub dialers
{
	my ($node) = @_;

	return $node->sql(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = '"
		  . $node->db
		  . "' AND backend_type = 'entanglement dialer'");
}

sub roles
{
	my ($from, $to) = @_;
	my $file = "$dumps/roles.sql";

	$from->command_ok([ 'pg_dumpall', '--roles-only', '-f', $file ], 'roles are dumped');
	$to->psql('postgres', slurp_file($file), on_error_stop => 0);
	return;
}

# What a decided node does at once works, and what it holds is as it was.
sub works
{
	my ($node, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(
		$node->sql('SELECT state, entanglement.drain() FROM entanglement.node'),
		'ready|t', $what);
}

define($_) foreach $alice, $bob, $carol;
link_nodes($bob, $alice);
link_nodes($alice, $carol);
$alice->sql("SELECT entanglement.create_owner('team')");
$alice->sql(<<'SQL');
INSERT INTO item SELECT g, 'v' || g, 'w' || g, CASE WHEN g % 2 = 0 THEN 'team' END FROM generate_series(1, 40) g;
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1, 'first'), (2, 2, 'second');
INSERT INTO part VALUES (1, 'part');
SQL
$bob->sql("INSERT INTO item VALUES (101, 'bob', 'bob', NULL), (102, 'bob', 'bob', NULL)");
converge([ $alice, $bob, $carol ], \@tables, 'three nodes in step');

my ($collector) = grep { $_ } $cluster{old}->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE datname = 'alice' AND backend_type = 'entanglement collector'");
my $id = $alice->sql('SELECT id FROM entanglement.node');

subtest 'a node that is none' => sub {
	$alice->fails("SELECT entanglement.become('new')", '55000', 'is node "alice" already',
		'an original is told nothing');
	$alice->fails("SELECT entanglement.become('old')", '22023', 'cannot become "old"',
		'nor is nonsense');
};

subtest 'dumped in the middle of things' => sub {
	$bob->sql("SELECT entanglement.pause_peer('alice')");
	$alice->sql("UPDATE item SET w = 'asked before' WHERE id = 101");
	kill 'STOP', $collector or die "kill: $!";
	$alice->sql("UPDATE item SET w = 'unfolded' WHERE id = 1");
	$alice->sql("INSERT INTO item VALUES (50, 'unfolded', 'birth', 'team')");
	$alice->sql('DELETE FROM item WHERE id = 2');
	program($cluster{old}, 'a dump', 'pg_dump', '-Fc', '-f', "$dumps/alice.dump", 'alice');
	is($alice->sql('SELECT count(*) FROM entanglement.change'), 3, 'with changes not yet folded');
	kill 'CONT', $collector or die "kill: $!";
	$bob->sql("SELECT entanglement.resume_peer('alice')");
	$bob->wait_until("SELECT w FROM item WHERE id = 101", 'asked before', 'request');
	$alice->sql("UPDATE item SET v = 'after the dump', w = 'lost' WHERE id IN (3, 4)");
	$alice->sql("INSERT INTO item VALUES (60, 'after the dump', 'lost', NULL)");
	$alice->sql('DELETE FROM item WHERE id = 5');
	$bob->sql("UPDATE item SET v = 'after the dump' WHERE id = 102");
	$bob->sql("INSERT INTO item VALUES (103, 'after the dump', 'bob', NULL)");
	converge([ $alice, $bob, $carol ], \@tables, 'and things go on');
};
$cluster{old}->stop('immediate');

my $two = copy_of($alice, $cluster{new}, 'alice');

subtest 'restored' => sub {
	$cluster{old}->start;
	roles($cluster{old}, $cluster{new});
	$cluster{old}->stop('fast');
	$cluster{new}->safe_psql('postgres', 'CREATE DATABASE alice TEMPLATE template0');
	program($cluster{new}, 'without errors',
		'pg_restore', '--exit-on-error', '-d', 'alice', "$dumps/alice.dump");
	is($two->sql('SELECT id, state FROM entanglement.node'), "$id|undecided", 'the same node, undecided');
	is($two->sql('SELECT DISTINCT state FROM entanglement.peers'), 'undecided', 'its links say so');
	is( $two->sql("SELECT string_agg(format('%s %s', relation, key), ' ' ORDER BY relation::text) FROM entanglement.tables"),
		'child {id} item {id} parent {id} part {id}',
		'its tables are what they were');
	is($two->sql("SELECT owner_column FROM entanglement.tables WHERE relation = 'item'::regclass"),
		'crew', 'owner column, too');
};

subtest 'a copy does not speak' => sub {
	foreach my $sql (
		"hello('push', '')", "hello('pull', '')", "hello('verify', '')", "push('')",
		"digest('')", 'drain()', "verify('carol')", "create_owner('x')",
		"drop_owner('team')", "adopt('bob', gen_random_uuid())")
	{
		$two->fails("SELECT entanglement.$sql", '55000', $undecided, "entanglement.$sql");
	}
	$two->fails("CALL entanglement.pull('')", '55000', $undecided, 'entanglement.pull');
	$bob->sql("SELECT entanglement.alter_peer('alice', '"
		  . (conninfo($bob, $two) =~ s/'/''/gr) . "')");
	$bob->wait_until("SELECT last_error ~ '^55000: .*$undecided.*become' FROM entanglement.peers WHERE name = 'alice'",
		't', 'refusal');
};

subtest 'nor does it lose anything' => sub {
	$two->sql("INSERT INTO item VALUES (70, 'kept', 'kept', 'team'), (71, 'kept', 'kept', NULL)");
	$two->sql("UPDATE item SET w = 'kept' WHERE id = 6");
	$two->sql("UPDATE item SET w = 'kept' WHERE id = 50");
	$two->sql('DELETE FROM item WHERE id = 7');
	$two->sql("UPDATE item SET w = 'asked of bob' WHERE id = 102");
	$two->sql("UPDATE child SET v = 'kept' WHERE id = 1");
	$two->sql('ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent (id)');
	is($two->sql("SELECT count(*) FROM entanglement.change WHERE op IN ('I', 'U', 'D')"),
		6, 'what is written is captured');
	is($two->sql("SELECT count(*) FROM entanglement.requests WHERE state IN ('waiting', 'sent')"),
		2, 'or asked for');
	is(dialers($two), 0, 'nobody has dialed meanwhile');
};

subtest 'who decides' => sub {
	$two->sql('CREATE ROLE someone');
	$two->sql('GRANT EXECUTE ON FUNCTION entanglement.become TO someone');
	$two->fails("SET ROLE someone; SELECT entanglement.become('new')", '42501', 'must be superuser',
		'a superuser');
	$two->fails("SELECT entanglement.become('old')", '22023', 'cannot become "old"', 'between two');
	$two->fails('SELECT entanglement.become(NULL)', '22004', 'must not be NULL', 'not NULL');
	$two->fails("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT entanglement.become('new')",
		'25001', 'read committed', 'with open eyes');
};

subtest 'a replacement' => sub {
	$two->sql("SELECT entanglement.become('replacement')");
	is($two->sql('SELECT id, state FROM entanglement.node'), "$id|ready", 'is the node');
	$two->wait_connected('bob');
	$two->wait_connected('carol');
	converge([ $two, $bob, $carol ], \@tables, 'all are in step');
	is( $carol->sql("SELECT string_agg(format('%s %s %s', id, v, w), ', ' ORDER BY id)
			FROM item WHERE id IN (1, 2, 3, 5, 6, 7, 50, 60, 70, 71, 101, 102, 103)"),
		'1 v1 unfolded, 3 v3 w3, 5 v5 w5, 6 v6 kept, 50 unfolded kept, '
		  . '70 kept kept, 71 kept kept, 101 bob asked before, '
		  . '102 after the dump asked of bob, 103 after the dump bob',
		'on what the dump had, and what was written since');
	is( $carol->sql("SELECT string_agg(DISTINCT entanglement.owner_of(i), ' ') FROM item i WHERE id IN (50, 70)"),
		'team', 'under its owners');
	is( $carol->sql("SELECT bool_and(epoch > 1) FROM entanglement.owners WHERE name IN ('alice', 'team')"),
		't', 'in new epochs');
	$two->sql("UPDATE item SET w = 'on' WHERE id = 70");
	$two->sql("INSERT INTO child VALUES (3, 2, 'third')");
	$carol->sql("UPDATE item SET w = 'asked of alice' WHERE id = 71");
	$two->wait_until('SELECT w FROM item WHERE id = 71', 'asked of alice', 'request from another');
	converge([ $two, $bob, $carol ], \@tables, 'and go on');
	$two->fails("SELECT entanglement.become('new')", '55000', 'is node "alice" already', 'once');
};

$cluster{old}->start;

# ---- a new node ----

my $erin = copy_of($dora, $cluster{new}, 'erin');

subtest 'another dump' => sub {
	define($dora);
	$dora->sql("SELECT entanglement.create_owner('team')");
	$dora->sql("INSERT INTO item SELECT g, repeat('v', 100), 'w', CASE WHEN g % 2 = 0 THEN 'team' END
		FROM generate_series(1, 500) g; INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1, 'first')");
	$dora->drain;
	my ($pid) = $dora->sql("SELECT pid FROM pg_stat_activity WHERE datname = 'dora' AND backend_type = 'entanglement collector'");
	kill 'STOP', $pid or die "kill: $!";
	$dora->sql("UPDATE item SET w = 'unfolded' WHERE id = 1");
	$dora->sql("INSERT INTO item VALUES (501, 'unfolded', 'w', NULL)");
	program($cluster{old}, 'is made', 'pg_dump', '-Fd', '-j2', '-f', "$dumps/dora", 'dora');
	kill 'CONT', $pid or die "kill: $!";
	$dora->sql("UPDATE item SET w = 'newer' WHERE id <= 5");
	$dora->sql('DELETE FROM item WHERE id = 10');
	$dora->sql("INSERT INTO item VALUES (502, 'newer', 'w', 'team')");
	$dora->drain;
	$cluster{new}->safe_psql('postgres', 'CREATE DATABASE erin TEMPLATE template0');
	program($cluster{new}, 'and restored, by several at once',
		'pg_restore', '--exit-on-error', '-j2', '-d', 'erin', "$dumps/dora");
	is($erin->sql('SELECT state FROM entanglement.node'), 'undecided', 'undecided');
	$erin->sql("INSERT INTO item VALUES (601, 'made here', 'w', NULL), (602, 'made here', 'w', 'team')");
	$erin->sql("UPDATE item SET w = 'not mine' WHERE id = 20");
	$erin->sql("UPDATE item SET w = 'not mine' WHERE id = 501");
	$erin->sql('DELETE FROM item WHERE id = 21');
};

subtest 'becomes a new node' => sub {
	my ($writer, $decider) = map { $erin->session } 1 .. 2;

	# who writes at that moment is waited for
	$writer->query_safe("BEGIN; INSERT INTO item VALUES (603, 'under way', 'w', NULL); DELETE FROM item WHERE id = 22");
	$decider->query_until(qr/decide/, "\\echo decide\nSELECT entanglement.become('new');\n");
	$erin->wait_until(
		"SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT entanglement.become' AND wait_event_type = 'Lock'",
		'1', 'wait');
	$writer->query_safe('COMMIT');
	$erin->wait_until('SELECT state FROM entanglement.node', 'ready', 'decision');
	$_->quit foreach $writer, $decider;
	works($erin, 'which works');
	isnt($erin->sql('SELECT id FROM entanglement.node'),
		$dora->sql('SELECT id FROM entanglement.node'), 'another one');
	is($erin->sql('SELECT name, default_owner FROM entanglement.node'), 'erin|erin', 'named as its database');
	is($erin->sql("SELECT string_agg(name || ' ' || local, ', ' ORDER BY name) FROM entanglement.owners"),
		'dora false, erin true, team false', 'with an owner of its own');
	is($erin->sql('SELECT count(*) FROM entanglement.peers'), 0, 'and no peers');
	is( $erin->sql("SELECT string_agg(DISTINCT entanglement.owner_of(i), ' ') FROM item i WHERE id > 600"),
		'erin', 'what was made since is its own');
};

subtest 'beside the old one' => sub {
	link_nodes($erin, $dora);
	converge([ $dora, $erin ], \@tables, 'both are in step');
	is( $dora->sql("SELECT string_agg(format('%s %s %s', id, v, w), ', ' ORDER BY id)
			FROM item WHERE id IN (20, 21, 22, 501, 502, 601, 602, 603)"),
		join(', ', map { "$_ " . 'v' x 100 . ' w' } 20, 21, 22)
		  . ', 501 unfolded w, 502 newer w, '
		  . '601 made here w, 602 made here w, 603 under way w',
		'on what the owners have');
	$erin->wait_until('SELECT count(*) FROM entanglement.parked', '0', 'end of the repair');
	# five updates, a deletion, two births, and what was repaired here: 20 to 22
	my $peer = $erin->peer('dora');
	cmp_ok($peer->{objects_received}, '<=', 20, 'only what is newer came');
	cmp_ok($peer->{bytes_received}, '<', 12_000, 'in few bytes');
	$erin->sql("UPDATE item SET w = 'asked by erin' WHERE id IN (30, 31)");
	$dora->wait_until("SELECT count(*) FROM item WHERE w = 'asked by erin'", '2', 'requests');
	$dora->sql("UPDATE item SET w = 'asked by dora' WHERE id = 601");
	converge([ $dora, $erin ], \@tables, 'and each asks the other');
	is($erin->sql('SELECT w FROM item WHERE id = 601'), 'asked by dora', 'in vain never');
	$dora->sql("UPDATE item SET w = 'one column' WHERE id = 300");
	$erin->wait_until('SELECT w FROM item WHERE id = 300', 'one column', 'delta');
};

# ---- copies within a cluster ----

subtest 'a database copied and renamed' => sub {
	my $twin = copy_of($dora, $cluster{old}, 'twin');

	$erin->sql("SELECT entanglement.pause_peer('dora')");
	$dora->wait_until(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = 'dora' AND usename = 'erin'", '0', 'leave');
	$cluster{old}->safe_psql('postgres', 'CREATE DATABASE twin TEMPLATE dora');
	is($twin->sql('SELECT state FROM entanglement.node'), 'undecided', 'the copy is undecided');
	is($dora->sql('SELECT state FROM entanglement.node'), 'ready', 'the original is not');
	$twin->fails("SELECT entanglement.hello('push', '')", '55000', $undecided, 'nor speaks the copy');
	$twin->sql("INSERT INTO item VALUES (701, 'made there', 'w', NULL)");
	$twin->sql("UPDATE item SET w = 'not mine' WHERE id = 40");
	$cluster{old}->safe_psql('postgres', 'ALTER DATABASE dora RENAME TO dolores');
	$dora->{db} = 'dolores';
	works($dora, 'an original renamed is what it was');
	$cluster{old}->safe_psql('postgres', 'ALTER DATABASE dolores RENAME TO dora');
	$dora->{db} = 'dora';
	$twin->sql("SELECT entanglement.become('new')");
	works($twin, 'the copy can be another node');
	link_nodes($twin, $dora);
	converge([ $dora, $twin ], \@tables, 'which keeps up');
	is($dora->sql("SELECT v, entanglement.owner_of(i) FROM item i WHERE id = 701"),
		'made there|twin', 'and has its own');
	$dora->sql("SELECT entanglement.drop_peer('twin')");
	$twin->sql("SELECT entanglement.drop_peer('dora')");
	$erin->sql("SELECT entanglement.resume_peer('dora')");
	converge([ $dora, $erin ], \@tables, 'the original never noticed');
};

subtest 'a template that nobody used' => sub {
	my $template = Entanglement::Node->database($cluster{old}, 'template');
	my $made = copy_of($template, $cluster{old}, 'made');

	$cluster{old}->safe_psql('postgres', 'CREATE DATABASE made TEMPLATE template');
	is($made->sql('SELECT state FROM entanglement.node'), 'ready', 'has nothing to decide');
	$made->define('CREATE TABLE item (id int PRIMARY KEY)', 'item');
	isnt($made->sql('SELECT id FROM entanglement.node'),
		$template->sql('SELECT id FROM entanglement.node'), 'its copies are nodes of their own');
	isnt($made->sql('SELECT id FROM entanglement.owners'),
		$template->sql('SELECT id FROM entanglement.owners'), 'with owners of their own');
	works($made, 'that work');
};

# ---- ways to dump and restore ----

roles($cluster{old}, $cluster{new});

my $objects = 'SELECT md5(string_agg(md5(o::text), $$$$ ORDER BY rel, key)) FROM
	(SELECT rel, key, owner, serial, born FROM entanglement.object) o';

# name, what makes the dump, what pg_restore is told (undef: psql, and what before)
my @ways = (
	[ 'plain', [qw(-Fp)], undef ],
	[ 'as inserts', [qw(-Fp --inserts)], undef ],
	[ 'in one transaction', [qw(-Fc)], [qw(--single-transaction)] ],
	[ 'with triggers asleep', [qw(-Fp)], undef, '-c', 'SET session_replication_role = replica' ]);

foreach my $way (@ways)
{
	my ($name, $dump, $restore, @first) = @$way;

	subtest "dumped $name" => sub {
		my $file = "$dumps/way";
		my $node = copy_of($dora, $cluster{new}, 'way');

		program($cluster{old}, 'dumped', 'pg_dump', @$dump, '-f', $file, 'dora');
		$cluster{new}->safe_psql('postgres', 'CREATE DATABASE way TEMPLATE template0');
		program($cluster{new}, 'restored', $restore ?
			('pg_restore', '--exit-on-error', @$restore, '-d', 'way', $file) :
			('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @first, '-f', $file, 'way'));
		is($node->sql('SELECT state FROM entanglement.node'), 'undecided', 'undecided');
		is($node->sql('SELECT count(*) FROM entanglement.change'), 0, 'nothing was captured');
		is($node->sql($objects), $dora->sql($objects), 'the objects are the same');
		$node->sql('UPDATE entanglement.peer SET paused = true');
		$node->sql("SELECT entanglement.become('replacement')");
		works($node, 'it works');
		$cluster{new}->safe_psql('postgres', 'DROP DATABASE way WITH (FORCE)');
	};
}

subtest 'dumped in two parts' => sub {
	my $node = copy_of($dora, $cluster{new}, 'parts');

	program($cluster{old}, 'the schema', qw(pg_dump -s -f), "$dumps/schema.sql", 'dora');
	program($cluster{old}, 'the data', qw(pg_dump -a -f), "$dumps/data.sql", 'dora');
	$cluster{new}->safe_psql('postgres', 'CREATE DATABASE parts TEMPLATE template0');
	program($cluster{new}, 'the schema is restored',
		qw(psql -Xq -v ON_ERROR_STOP=1 -f), "$dumps/schema.sql", 'parts');
	is( $node->sql('SELECT count(*) FROM entanglement.tables') . ' '
		  . $node->sql('SELECT name, default_owner, state FROM entanglement.node'),
		'0 parts|parts|ready', 'which alone is a new node, with nothing set up');
	program($cluster{new}, 'the data are restored',
		qw(psql -Xq -v ON_ERROR_STOP=1 -f), "$dumps/data.sql", 'parts');
	is($node->sql('SELECT state FROM entanglement.node'), 'undecided', 'and it is undecided');
	my $given = 'SELECT sum(serial) FROM entanglement.owner WHERE local';
	my $before = $node->sql($given);
	$node->sql("UPDATE item SET w = 'mine' WHERE id = 50");
	$node->sql('UPDATE entanglement.peer SET paused = true');
	$node->sql("SELECT entanglement.become('replacement')");
	works($node, 'it works');
	is($node->sql('SELECT count(*) FROM entanglement.parked'), 0, 'rows that were loaded were not written');
	is($node->sql($given), $before + 1, 'but the one that was');
	$cluster{new}->safe_psql('postgres', 'DROP DATABASE parts WITH (FORCE)');
};

subtest 'a schema without the extension' => sub {
	my $node = Entanglement::Node->database($cluster{new}, 'plain');

	program($cluster{old}, 'dumped', qw(pg_dump -n public -f), "$dumps/public.sql", 'dora');
	$cluster{new}->psql('plain', 'DROP SCHEMA public');
	program($cluster{new}, 'restored beside it',
		qw(psql -Xq -v ON_ERROR_STOP=1 -f), "$dumps/public.sql", 'plain');
	is($node->sql('SELECT count(*) FROM entanglement.tables'), 0, 'is rows and nothing else');
	$node->define('', 'part');
	works($node, 'of a node of its own');
};

subtest 'restored over the original' => sub {
	$erin->sql("SELECT entanglement.pause_peer('dora')");
	program($cluster{new}, 'dumped', qw(pg_dump -Fp -f), "$dumps/erin.sql", 'erin');
	$erin->sql('DROP EXTENSION entanglement CASCADE');
	$erin->sql('DROP SCHEMA public CASCADE; DROP SCHEMA entanglement CASCADE; CREATE SCHEMA public');
	program($cluster{new}, 'restored', qw(psql -Xq -v ON_ERROR_STOP=1 -f), "$dumps/erin.sql", 'erin');
	is($erin->sql('SELECT state FROM entanglement.node'), 'undecided', 'it is asked all the same');
	$erin->sql("SELECT entanglement.become('replacement')");
	$erin->sql("SELECT entanglement.resume_peer('dora')");
	$dora->sql("UPDATE item SET w = 'in the end' WHERE id = 300");
	converge([ $dora, $erin ], \@tables, 'and goes on');
};

subtest 'a whole cluster' => sub {
	my $all = Entanglement::Node->cluster('all');
	my $node = copy_of($dora, $all, 'dora');

	program($cluster{old}, 'dumped', qw(pg_dumpall -f), "$dumps/all.sql");
	$all->psql('postgres', slurp_file("$dumps/all.sql"), on_error_stop => 0);
	is($node->sql('SELECT state FROM entanglement.node'), 'undecided', 'is restored with its nodes');
	is($node->sql($objects), $dora->sql($objects), 'as they were');
	$all->stop('immediate');
};

subtest 'pg_upgrade' => sub {
	plan skip_all => 'takes long' unless $ENV{ENT_LONG};

	my $next = PostgreSQL::Test::Cluster->new('next');
	my $node = copy_of($dora, $next, 'dora');
	my ($bin) = PostgreSQL::Test::Utils::run_command([ $ENV{PG_CONFIG} || 'pg_config', '--bindir' ]);
	my $epochs = 'SELECT sum(epoch) FROM entanglement.owners';
	my $before = $dora->sql($epochs);
	my $given = $dora->sql($objects);

	$next->init(extra => [ '--no-locale', '-E', 'UTF8' ]);
	$next->append_conf('postgresql.conf',
		"shared_preload_libraries = 'entanglement'\nmax_worker_processes = 32\n");
	$erin->sql("SELECT entanglement.pause_peer('dora')");
	$cluster{old}->stop;
	chdir $dumps or die "$dumps: $!";
	program($next, 'is done', 'pg_upgrade', '--no-sync', '-b', $bin, '-B', $bin,
		'-d', $cluster{old}->data_dir, '-D', $next->data_dir,
		'-p', $cluster{old}->port, '-P', $next->port);
	$next->start;
	is($node->sql('SELECT state FROM entanglement.node'), 'undecided', 'asks once');
	$node->sql("INSERT INTO item VALUES (801, 'upgraded', 'w', NULL)");
	$node->sql("SELECT entanglement.become('replacement')");
	works($node, 'and goes on');
	$node->sql('DELETE FROM item WHERE id = 801');
	$node->drain;
	is($node->sql($objects), $given, 'with all objects');
	is($node->sql($epochs), $before, 'in the epochs they had');
};

subtest 'another encoding' => sub {
	my $node = copy_of($dora, $cluster{new}, 'latin');

	$cluster{new}->safe_psql('postgres', "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
	program($cluster{new}, 'restored', 'pg_restore', '--exit-on-error', '-d', 'latin', "$dumps/dora");
	$node->fails("SELECT entanglement.become('new')", '0A000', 'cannot have another encoding',
		'keys would not be found');
};

done_testing();
