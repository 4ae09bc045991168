# What a change costs does not grow with the number of objects or tombstones: nothing reads
# all of them for each batch or answer. Nor does anything read all that is owed, all
# tombstones or requests again and again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

# plans are made without statistics, as in a first copy
my $cluster = Entanglement::Node->cluster('cost', conf => "autovacuum = off\nentanglement.heartbeat = '1s'\nentanglement.prune_interval = '100ms'\n");
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $rows = 5000;
my $changes = 40;
my $read = q(SELECT coalesce(sum(idx_tup_read), 0)
  + (SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = 'entanglement.object'::regclass)
  FROM pg_stat_all_indexes WHERE relid = 'entanglement.object'::regclass);
my $updated = q(SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 'entanglement.object'::regclass);

link_nodes($alice, $bob);
$_->define('CREATE TABLE item (id int PRIMARY KEY, v int)', 'item') foreach $alice, $bob;
$alice->sql("INSERT INTO item SELECT i, 0 FROM generate_series(1, $rows) i");
$alice->drain('bob');
$bob->sql('INSERT INTO item VALUES (0, 0)');
$bob->drain('alice');

# How much of something a node reads for some changes; of objects, entries of indexes and rows.
sub reads
{
	my ($node, $what) = @_;
	$what //= $read;
	my ($was, $before) = ($node->sql($updated), $node->sql($what));

	for my $i (1 .. $changes)
	{
		$alice->sql("UPDATE item SET v = v + 1 WHERE id = $i * 100");
		$alice->drain('bob');
	}
	$node->wait_until("SELECT ($updated) - $was >= $changes", 't', 'statistics of ' . $node->name);
	return $node->sql($what) - $before;
}

foreach my $node ($bob, $alice)
{
	my $name = $node->name;

	# statistics come late: what was done before may be told with the first of these
	wait_for("$name does not read all objects for each change", sub { reads($node) < $rows });
	pass("$name does not read all objects for each change");
	wait_for("$name looks for no tombstone of what lives", sub {
		reads($node, q(SELECT idx_scan FROM pg_stat_all_indexes
			WHERE indexrelid = 'entanglement.tombstone_pkey'::regclass)) < $changes;
	});
	pass("$name looks for no tombstone of what lives");
}

# ---- the log of changes ----

# Folded a few at a time, what is left of many is not read for each batch again.
my $many = $rows;
my $log = q(SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = 'entanglement.change'::regclass);
my $taken = q(SELECT n_tup_del FROM pg_stat_all_tables WHERE relid = 'entanglement.change'::regclass);
$alice->sql(q(ALTER SYSTEM SET entanglement.fold_limit = 50));
$alice->sql(q(SELECT pg_reload_conf()));
$alice->drain('bob');
my ($was, $before) = ($alice->sql($taken), $alice->sql($log));
$alice->sql('UPDATE item SET v = v + 1 WHERE id > 0');
$alice->drain('bob');
$alice->wait_until("SELECT ($taken) - $was >= $many", 't', 'statistics of the fold');
reads($alice);
cmp_ok($alice->sql($log) - $before, '<', 3 * $many, 'what is not folded yet is not read again and again');
is($bob->sql('SELECT md5(string_agg(item::text, \',\' ORDER BY id)) FROM item'),
	$alice->sql('SELECT md5(string_agg(item::text, \',\' ORDER BY id)) FROM item'), 'and all arrived');

# ---- a copy while rows are made ----

# What comes to be while a peer catches up is told of by events, and found by the scan.
my $carol = Entanglement::Node->database($cluster, 'carol');
my $made = 2000;
my $all = $rows + $made + 1;
$alice->sql(q(ALTER SYSTEM RESET entanglement.fold_limit));
$alice->sql(q(ALTER SYSTEM SET entanglement.scan_chunk = 500));
$alice->sql(q(SELECT pg_reload_conf()));
$carol->define('CREATE TABLE item (id int PRIMARY KEY, v int)', 'item');
link_nodes($alice, $carol, nowait => 1);
$alice->sql(q(SELECT entanglement.alter_peer('carol', bandwidth => 20000)));
$carol->wait_until('SELECT count(*) > 500 FROM item', 't', 'the copy has begun');
$alice->sql("INSERT INTO item SELECT i, 0 FROM generate_series($rows + 1, $rows + $made) i");
$alice->drain('carol');
is($carol->digest('item'), $alice->digest('item'), 'what was made meanwhile is there, too');
my $sent = $alice->peer('carol')->{objects_sent};
cmp_ok($sent, '<', 1.1 * $all, "it has been sent once: $sent for $all objects");

# ---- what is owed ----

# As when the objects came late, and what is owed is not told yet.
my $owed = q(SELECT i.idx_scan, i.idx_tup_read + t.seq_tup_read, b.idx_blks_hit + b.idx_blks_read
  FROM pg_stat_all_indexes i JOIN pg_stat_all_tables t USING (relid) JOIN pg_statio_all_indexes b USING (indexrelid)
  WHERE i.relid = 'entanglement.owed'::regclass);
my $swept = q(SELECT n_tup_del FROM pg_stat_all_tables WHERE relid = 'entanglement.arrears'::regclass);

# Waits for so many rounds of collecting what may go.
sub rounds
{
	my ($node, $n) = @_;
	my $done = $node->sql($swept);

	for my $round (1 .. $n)
	{
		# of an owner that is no more
		$node->sql('INSERT INTO entanglement.arrears (owner, rel) VALUES (0, 0)');
		# not asked of the table itself: that would be counted
		$node->wait_until("SELECT ($swept) - $done", $round, "round $round");
	}
	return;
}

my $owe = q(INSERT INTO entanglement.owed (peer, rel, owner, key, serial)
  SELECT p.no, o.rel, o.owner, o.key, o.serial FROM entanglement.object o
  JOIN entanglement.owner w ON w.no = o.owner AND w.local JOIN entanglement.peer p ON p.name = 'bob');

$alice->sql($owe);
$alice->sql('DELETE FROM item WHERE id <= 100');
$alice->drain('bob');
my @before = split /\|/, $alice->sql($owed);
rounds($alice, 10);
my @now = split /\|/, $alice->sql($owed);
my ($scans, $entries, $pages) = map { $now[$_] - $before[$_] } 0 .. 2;
note("$scans scans, $entries rows, $pages pages");
# of an index that has some 30 pages
cmp_ok($entries, '<', 10 * $scans, 'what is owed is not read as a whole each time');
cmp_ok($pages, '<', 10 * $scans, '... nor is its index');
is($alice->sql('SELECT count(*) FROM entanglement.tombstone'), 100, 'nor forgotten: tombstones stay');
$alice->sql('DELETE FROM entanglement.owed');
$alice->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, '... until it is not owed any more');

# ---- what is kept ----

# Rows read of a table, by whatever way.
sub rows_read
{
	my ($node, $table) = @_;

	return $node->sql("SELECT sum(i.idx_tup_read) + min(t.seq_tup_read) FROM pg_stat_all_tables t
		JOIN pg_stat_all_indexes i USING (relid) WHERE relid = 'entanglement.$table'::regclass");
}

# What a peer that is away has not heard of.
my $kept = 3000;
$alice->sql(q(SELECT entanglement.alter_peer('carol', bandwidth => 100000000)));
$alice->sql(q(SELECT entanglement.pause_peer('bob')));
# nor does it dial, since a new link looks for what is under way
$bob->sql(q(SELECT entanglement.pause_peer('alice')));
$_->wait_until(q(SELECT count(*) FROM entanglement.peers WHERE state = 'paused'), 1, 'away') foreach $alice, $bob;
$alice->sql("DELETE FROM item WHERE id > $rows - $kept AND id <= $rows");
$alice->drain('carol');
rounds($alice, 1);
$before = rows_read($alice, 'tombstone');
# statistics come late: what was read before may be told now, once
rounds($alice, 6);
cmp_ok(rows_read($alice, 'tombstone') - $before, '<', 2 * $kept, 'tombstones that stay are not looked at each time');
$alice->sql(q(INSERT INTO entanglement.tombstone (rel, owner, epoch, serial, changed_at, key)
	SELECT t.rel, t.owner, 0, 1000000000 + t.serial, now(), '\x00' || t.key
	FROM entanglement.tombstone t ORDER BY t.serial LIMIT 10));
$alice->wait_until('SELECT count(*) FROM entanglement.tombstone WHERE epoch = 0', 0, 'those of an older epoch go');
is($alice->sql('SELECT count(*) FROM entanglement.tombstone'), $kept, '... the others stay');

# What is asked of an owner whose home is away, and what has been answered.
my $asked = 1000;
$bob->sql("UPDATE item SET v = -1 WHERE id > $rows - $kept AND id <= $rows - $kept + 2 * $asked");
is($bob->sql(q(SELECT count(*) FROM entanglement.request WHERE state = 'waiting')), 2 * $asked, 'requests wait');
$bob->sql("UPDATE entanglement.request SET state = 'refused', decided_at = now() WHERE state = 'waiting' AND no % 2 = 0");
rounds($bob, 1);
$before = rows_read($bob, 'request');
rounds($bob, 6);
cmp_ok(rows_read($bob, 'request') - $before, '<', 2 * $asked, 'nor are requests');
my $state = 'SELECT count(*) FROM entanglement.request WHERE state';
my $some = '(SELECT no FROM entanglement.request WHERE state =';
$bob->sql("UPDATE entanglement.request SET expires_at = now() - interval '2 d' WHERE no IN $some 'waiting' LIMIT 5)");
$bob->wait_until("$state = 'expired'", 5, 'those whose time is over expire');
$bob->sql("UPDATE entanglement.request SET expires_at = now() - interval '2 d' WHERE no IN $some 'refused' LIMIT 7)");
rounds($bob, 1);
is($bob->sql("$state = 'refused'"), $asked, 'what was answered stays for a while');
$bob->sql("UPDATE entanglement.request SET decided_at = now() - interval '1 y'
	WHERE state = 'refused' AND expires_at < now()");
$bob->wait_until("$state = 'refused'", $asked - 7, '... and goes');
is($bob->sql("$state = 'waiting'"), $asked - 5, 'the others wait on');

$alice->sql(q(SELECT entanglement.resume_peer('bob')));
$bob->sql(q(SELECT entanglement.resume_peer('alice')));
$alice->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, 'tombstones go once all have heard');
# ---- memory ----

# What a round has given back is there for the next one: the system does not have to clear
# pages for each batch of many rows.
my $wide = 10000;
$_->define('CREATE TABLE wide (id int PRIMARY KEY, v text)', 'wide') foreach $alice, $bob;
$alice->sql("INSERT INTO wide SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, $wide) i");
$alice->drain('bob');

# Pages that the processes of a node's links and its collector were given, so far.
sub pages_given
{
	my ($node) = @_;
	my $given = 0;

	foreach my $pid (split /\n/, $node->sql(q(SELECT pid FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type LIKE 'entanglement %')))
	{
		$given += (split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //r)[7];
	}
	return $given;
}

SKIP:
{
	skip 'no /proc', 1 unless -r "/proc/$$/stat";
	my @given = map
	{
		my $before = pages_given($alice) + pages_given($bob);

		$alice->sql("UPDATE wide SET v = v || 'x'");
		$alice->drain('bob');
		pages_given($alice) + pages_given($bob) - $before;
	} 1 .. 6;
	my $least = (sort { $a <=> $b } @given)[0];
	note("pages for $wide rows: @given");
	cmp_ok($least, '<', $wide / 10, 'memory is used again');
}

done_testing();
