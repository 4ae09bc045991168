# Batches compressed with the link's history.
#
# Promise: with compression on, off, or on at one end only rows arrive the same; a
# change of a large value that is like its last version costs little; small changes
# cost less; a link that was cut begins anew; what cannot be unpacked, or would
# become too much, ends the link with a clear error.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;
use Entanglement::Stream;
use Entanglement::Wire;

my $pki = Entanglement::PKI->new;
my ($alice, $bob) = map { Entanglement::Node->create($_, pki => $pki) } qw(alice bob);

$_->define('CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text);'
	  . 'ALTER TABLE item ALTER body SET STORAGE EXTERNAL', 'item') foreach $alice, $bob;
link_nodes($alice, $bob);

sub level
{
	my ($node, $level, $window) = @_;

	$node->cluster_of->append_conf('postgresql.conf', "entanglement.compression_level = $level\nentanglement.compression_window = '" . ($window // '512kB') . "'\n");
	$node->cluster_of->reload;
	$node->wait_until('SHOW entanglement.compression_level', $level, "level $level");
	return;
}

# A link with those settings.
sub anew
{
	$alice->sql("SELECT entanglement.pause_peer('bob')");
	$alice->sql("SELECT entanglement.resume_peer('bob')");
	$alice->wait_connected('bob');
	return;
}

# Bytes that a statement at a node makes it send to the other one.
sub costs
{
	my ($node, $peer, $sql) = @_;
	my $before = $node->peer($peer);

	$node->sql($sql);
	$node->drain($peer);
	return Entanglement::Node::counted($before, $node->peer($peer))->{bytes_sent};
}

my $random = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 3125) i)";

foreach my $case ([ 1, 1 ], [ 0, 0 ], [ 1, 0 ], [ 0, 1 ], [ 19, 3 ])
{
	my ($at_alice, $at_bob) = @$case;

	subtest "level $at_alice at alice, $at_bob at bob" => sub {
		level($alice, $at_alice);
		level($bob, $at_bob, '64kB');
		anew();
		$alice->sql("INSERT INTO item SELECT i + coalesce((SELECT max(id) FROM item), 0), i, 'body ' || i FROM generate_series(1, 500) i");
		$bob->sql("INSERT INTO item SELECT -i + coalesce((SELECT min(id) FROM item), 0), i, 'body ' || i FROM generate_series(1, 500) i");
		$alice->sql("INSERT INTO item SELECT max(id) + 1, 0, $random FROM item");
		$bob->sql("INSERT INTO item SELECT min(id) - 1, 0, repeat('x', 1000000) FROM item");
		converge([ $alice, $bob ], ['item'], 'rows arrive');
		foreach my $i (1 .. 30)
		{
			$alice->sql("UPDATE item SET n = n + $i WHERE id = $i");
			$bob->sql("UPDATE item SET n = n + $i WHERE id = -$i");
		}
		converge([ $alice, $bob ], ['item'], 'changes one by one');
	};
}

subtest 'what it saves' => sub {
	my %cost;

	foreach my $level (0, 1)
	{
		level($_, $level) foreach $alice, $bob;
		anew();
		$alice->sql("UPDATE item SET body = $random WHERE id = 1");
		$alice->drain('bob');
		# appended to, and changed in the middle
		$cost{large}[$level] = costs($alice, 'bob', "UPDATE item SET body = overlay(body placing 'changed' from 50000) || 'more' WHERE id = 1");
		$cost{many}[$level] = costs($alice, 'bob', 'UPDATE item SET n = n + 1 WHERE id BETWEEN 100 AND 400');
	}
	cmp_ok($cost{large}[0], '>', 100_000, 'a value of 100 kB');
	cmp_ok($cost{large}[1], '<', 5_000, "... that is almost the last one: $cost{large}[1] bytes");
	cmp_ok($cost{many}[1], '<', $cost{many}[0] * 0.7, "301 counters: $cost{many}[1] bytes, not $cost{many}[0]");
	converge([ $alice, $bob ], ['item'], 'rows are right');
};

subtest 'a link that is cut' => sub {
	foreach my $i (1 .. 5)
	{
		$alice->sql('UPDATE item SET n = n + 1 WHERE id > 0');
		anew();
	}
	converge([ $alice, $bob ], ['item'], 'goes on with a new history');
};

# ---- what is no packed message ----

# A frame by hand: window (log2), blocks: [type, last, data or count].
sub frame
{
	my ($window, @blocks) = @_;
	my $out = "\x28\xB5\x2F\xFD\x00" . chr(($window - 10) << 3);

	foreach (@blocks)
	{
		my ($type, $last, $data, $size) = @$_;

		$out .= substr(pack('V', ($last ? 1 : 0) | $type << 1 | ($size // length $data) << 3), 0, 3) . $data;
	}
	return $out;
}

my $hub = Entanglement::Node->create('hub', pki => $pki);
my $me = '66600000-0000-4000-8000-000000000001';

$hub->cluster_of->append_conf('pg_hba.conf', "local all mallory trust\n");
$hub->sql('CREATE ROLE mallory LOGIN; CREATE TABLE item (id int PRIMARY KEY, v text); SELECT entanglement.synchronize($$item$$); GRANT ALL ON item TO mallory');
$hub->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");

sub stream
{
	my $s = Entanglement::Stream->new($hub->cluster_of, $hub->db, 'mallory');

	$s->query("SELECT entanglement.hello('push', " . literal(hello($me, 'mallory')) . ')');
	$s->begin('push');
	return $s;
}

subtest 'by hand' => sub {
	my $first = batch(1, table(number => 9, name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]),
		owner(number => 1, id => '66600000-0000-4000-8000-0000000000aa', home => $me, name => 'mallory', serial => 1000));
	my $s = stream();

	$s->data("\xE8" . frame(20, [ 0, 0, $first ]));
	is(read_batch($s->receive)->{number}, 1, 'a block that is stored');
	my $second = batch(2, objects(9, 1, 1, row(serial => 1, key => [ pack 'N', 1 ], values => ['x' x 100])));
	my $head = substr $second, 0, length($second) - 100;
	$s->data("\xE8" . substr(frame(20, [ 0, 0, $head ], [ 1, 0, 'x', 100 ]), 6));
	is(read_batch($s->receive)->{number}, 2, 'the frame goes on in the next message');
	is($hub->sql('SELECT v FROM item'), 'x' x 100, 'and is stored');
	$s->close;

	my $bomb = frame(20, map { [ 1, 0, "\0", 131072 ] } 1 .. 129);
	my @cases = (
		[ 'nothing behind the mark', "\xE8", qr/^08P01 malformed batch/ ],
		[ 'garbage', "\xE8garbage", qr/^08P01 malformed message/ ],
		[ 'a cut frame', "\xE8" . substr(frame(20, [ 0, 0, $first ]), 0, 12), qr/^08P01 malformed batch/ ],
		[ 'a window beyond the limit', "\xE8" . frame(22, [ 0, 0, $first ]), qr/^08P01 malformed message/ ],
		[ 'one of 2 TB', "\xE8" . frame(41, [ 0, 0, $first ]), qr/^08P01 malformed message/ ],
		[ 'what becomes 17 MB', "\xE8$bomb", qr/^08P01 malformed message/ ],
		[ 'packed twice', "\xE8" . frame(20, [ 0, 0, "\xE8" . frame(20, [ 0, 0, $first ]) ]), qr/^08P01 malformed batch/ ],
		[ 'a reserved block', "\xE8" . frame(20, [ 3, 0, $first ]), qr/^08P01 malformed message/ ],
	);
	foreach (@cases)
	{
		my ($what, $bytes, $error) = @$_;

		$s = stream();
		$s->data($bytes);
		like($s->receive, $error, $what);
		$s->close;
	}
	is($hub->sql('SELECT count(*) FROM item'), 1, 'nothing of that is stored');
};

done_testing();
