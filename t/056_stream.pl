# A link as a stream: mallory speaks PostgreSQL's protocol by hand with hub.
#
# Promise: several batches may come before the first is answered, each is answered
# in its order once it is stored, and meanwhile it holds no snapshot; what its sender wrote before it heard what it was
# asked for is passed over; whatever else comes over a stream ends it with an
# error, and nothing that was not whole is stored, nor of an object that comes in
# fragments before the last one has come.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Stream;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('stream', conf => "entanglement.dead_after = '60 s'\nentanglement.heartbeat = '60 s'\nentanglement.compression_level = 0\n");
my $hub = Entanglement::Node->database($cluster, 'hub');
my $me = '66600000-0000-4000-8000-000000000001';
my $mine = '66600000-0000-4000-8000-0000000000aa';
my @item = (name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]);

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
$hub->sql(<<'SQL');
CREATE TABLE item (id int PRIMARY KEY, v text);
SELECT entanglement.synchronize('item');
GRANT SELECT, INSERT, UPDATE, DELETE ON item TO mallory;
SELECT entanglement.add_peer('mallory', NULL, 'mallory');
SQL

sub stream
{
	my ($direction) = @_;
	my $s = Entanglement::Stream->new($cluster, 'hub', 'mallory');

	$s->query("SELECT entanglement.hello('$direction', " . literal(hello($me, 'mallory')) . ')');
	$s->begin($direction);
	return $s;
}

sub offer { return (table(number => 9, @item), owner(number => 1, id => $mine, home => $me, name => 'mallory', serial => 1000)); }
sub full { return row(serial => $_[1], key => [ pack 'N', $_[0] ], values => [ $_[2] ]); }
sub answers { return read_batch($_[0]->receive)->{number}; }
sub rows { return $hub->sql("SELECT string_agg(id || v, ' ' ORDER BY id) FROM item"); }

subtest 'several at once' => sub {
	my $s = stream('push');

	$s->data(batch(1, offer()));
	is(answers($s), 1, 'the first is answered');
	$s->data(batch($_, objects(9, 1, 1, full($_, $_, 'a')))) foreach 2 .. 9;
	is(join(' ', map { answers($s) } 2 .. 9), '2 3 4 5 6 7 8 9', 'and eight that came together, in their order');
	is(rows(), '2a 3a 4a 5a 6a 7a 8a 9a', 'all are stored');

	my $whole = join '', map { my $b = batch($_, objects(9, 1, 1, full($_, $_, 'b'))); 'd' . pack('N', 4 + length $b) . $b } 10, 11;
	$s->raw($_) foreach split //, $whole;
	is(join(' ', map { answers($s) } 10, 11), '10 11', 'two that come byte by byte');

	$s->message('c', '');
	is(join(' ', map { $_->[0] } $s->until('Z')), 'c C Z', 'an end in due form');
	like(join('', map { $_->[1] } $s->query("SELECT entanglement.push('')")), qr/malformed batch/, 'leaves a session that goes on');
	$s->close;
};

subtest 'what was written before an answer was heard' => sub {
	my $s = stream('push');
	my $mark = $hub->log_mark;

	$hub->sql('DELETE FROM entanglement.violation');
	$s->data(batch(1, offer()));
	my @told = @{ read_batch($s->receive)->{sections} };
	is(scalar(grep { $_->{type} == 8 } @told), 1, 'the owner is wanted');
	# behind by one: written before that answer was there
	$s->data("\xE7" . join('', map { varint($_) } 1, 1, 2, 1) . objects(9, 1, 1, full(20, 500, 'early')) . claim(1, 1, 900));
	is(answers($s), 2, 'a batch of before is answered');
	is($hub->sql('SELECT count(*) FROM item WHERE id = 20'), '0', 'but nothing of it stored');
	is($hub->sql("SELECT max(serial) FROM entanglement.owners WHERE name = 'mallory'"), '0', 'nor claimed');
	is($hub->sql('SELECT count(*) FROM entanglement.violation'), '0', 'and no violation noted');
	$s->data(batch(3, objects(9, 1, 1, full(20, 500, 'late')) . claim(1, 1, 900)));
	is(answers($s), 3, 'one of afterwards');
	is($hub->sql('SELECT v FROM item WHERE id = 20'), 'late', 'is stored');
	is($hub->sql("SELECT max(serial) FROM entanglement.owners WHERE name = 'mallory'"), '900', 'and claimed');
	$s->close;
};

subtest 'a table that is asked for' => sub {
	my $s = stream('push');

	$hub->sql("SELECT entanglement.resync('mallory')");
	$s->data(batch(1, offer()));
	my @told = @{ read_batch($s->receive)->{sections} };
	is(scalar(grep { $_->{type} == 9 } @told), 1, 'is asked for');
	$s->data("\xE7" . join('', map { varint($_) } 1, 1, 2, 1) . section(6, varint(1) . varint(9)));
	is(answers($s), 2, 'that it is complete, said before');
	is($hub->sql('SELECT count(*) FROM entanglement.arrears'), '1', 'is not believed');
	$s->data(batch(3, section(6, varint(1) . varint(9))));
	is(answers($s), 3, 'said afterwards');
	is($hub->sql('SELECT count(*) FROM entanglement.arrears'), '0', 'it is');
	$s->close;
};

subtest 'what is no stream' => sub {
	my $good = batch(1, offer());
	my @cases = (
		[ 'garbage', 'd' . pack('N', 9) . 'hello', '08P01 malformed batch from peer' ],
		[ 'an empty message', 'd' . pack('N', 4), '08P01 malformed batch from peer' ],
		[ 'a number that was not to come', 'd' . pack('N', 4 + length batch(2)) . batch(2), '08P01 batch from peer is out of order' ],
		[ 'more than a batch may have', 'd' . pack('N', 4 + 512 * 1024 * 1024 + 1), '08P01 malformed message from peer' ],
		[ 'a length of nothing', 'd' . pack('N', 3), '08P01 malformed message from peer' ],
		[ 'a query', "Q" . pack('N', 13) . "SELECT 1\0", '08P01 malformed message from peer' ],
		[ 'a failed copy', 'f' . pack('N', 5) . "\0", '08P01 malformed message from peer' ],
		[ 'an end with something behind', 'c' . pack('N', 5) . "\0", '08P01 malformed message from peer' ],
	);
	foreach (@cases)
	{
		my ($what, $bytes, $error) = @$_;
		my $s = stream('push');

		$s->raw($bytes);
		is($s->receive, $error, $what);
		$s->close;
	}
	foreach my $direction (qw(push pull))
	{
		my $s = stream($direction);
		$s->raw('d' . pack('N', 4 + length $good) . substr($good, 0, 20));
		$s->close;
		$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'mallory'", '0', "half a message, and gone: $direction");
		$s = stream($direction);
		$s->message('X', '');
		$s->close;
		$hub->wait_until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'mallory'", '0', "an ordinary end: $direction");
	}
	my $s = stream('pull');
	$s->data(batch(7));
	is($s->receive, '08P01 answer from peer does not match the batch in flight', 'an answer to nothing');
	$s->close;
};

sub fragment { my ($owner, $total, $offset, $bytes) = @_; return section(20, varint($owner) . varint($total) . varint($offset) . $bytes); }

subtest 'an object in fragments' => sub {
	my $whole = objects(9, 1, 1, full(60, 901, 'in pieces'));
	my $n = length $whole;
	my $s = stream('push');

	$s->data(batch(1, offer()));
	is(answers($s), 1, 'the offer');
	$s->data(batch(2, fragment(1, $n, 0, substr $whole, 0, 5)));
	$s->data(batch(3, objects(9, 1, 1, full(61, 902, 'between'))));
	is(join(' ', map { answers($s) } 2, 3), '2 3', 'a beginning, and another object');
	is($hub->sql('SELECT string_agg(v, $$ $$) FROM item WHERE id IN (60, 61)'), 'between', 'which is stored');
	$s->data(batch(4, fragment(1, 1000, 0, 'given up')));
	$s->data(batch(5, fragment(1, $n, 0, substr $whole, 0, 7), fragment(1, $n, 7, substr($whole, 7, 2)), fragment(1, $n, 9, '')));
	$s->data(batch(6, fragment(1, $n, 9, substr $whole, 9)));
	is(join(' ', map { answers($s) } 4 .. 6), '4 5 6', 'begun anew, and ended');
	is($hub->sql('SELECT v FROM item WHERE id = 60'), 'in pieces', 'it is stored');
	$s->close;

	my @cases = (
		[ 'an end without a beginning', fragment(1, $n, 5, substr $whole, 5) ],
		[ 'a gap', fragment(1, $n, 0, substr $whole, 0, 5), fragment(1, $n, 6, substr $whole, 6) ],
		[ 'another total', fragment(1, $n, 0, substr $whole, 0, 5), fragment(1, $n + 1, 5, substr $whole, 5) ],
		[ 'another owner', fragment(1, $n, 0, substr $whole, 0, 5), fragment(2, $n, 5, substr $whole, 5) ],
		[ 'more than all', fragment(1, $n - 1, 0, $whole) ],
		[ 'an offset behind the end', fragment(1, 5, 5, '') ],
		[ 'a total beyond the limit', fragment(1, 512 * 1024 * 1024 + 1, 0, 'x') ],
		[ 'an object of an owner that it did not name', fragment(3, $n, 0, $whole) ],
		[ 'a claim', fragment(1, length claim(1, 1, 950), 0, claim(1, 1, 950)) ],
		[ 'two sections', fragment(1, 2 * $n, 0, $whole . $whole) ],
		[ 'a cut section', fragment(1, $n - 1, 0, substr $whole, 0, $n - 1) ],
		[ 'a fragment', do { my $f = fragment(1, $n, 0, $whole); fragment(1, length $f, 0, $f) } ],
	);
	foreach (@cases)
	{
		my ($what, @sections) = @$_;

		$s = stream('push');
		$s->data(batch(1, offer()));
		is(answers($s), 1, 'the offer');
		$s->data(batch(2, @sections));
		is($s->receive, '08P01 malformed batch from peer', $what);
		$s->close;
	}
};

subtest 'while it waits it holds no snapshot' => sub {
	my $held = "SELECT count(backend_xmin), count(*) FROM pg_stat_activity WHERE usename = 'mallory'";
	my $s = stream('push');

	$hub->wait_until($held, '0|1', 'before the first batch');
	$s->data(batch(1, offer()));
	is(answers($s), 1, 'a batch');
	$hub->wait_until($held, '0|1', 'and after it');
	$s->close;
	$hub->wait_until($held, '0|0', 'it has gone');
	$s = stream('pull');
	$hub->wait_until($held, '0|1', 'a pulled one');
	$s->data(batch(0));
	is(read_batch($s->receive)->{number}, 1, 'a batch');
	$hub->wait_until($held, '0|1', 'and after it');
	$s->close;
};

subtest 'a pulled stream' => sub {
	my $s = stream('pull');

	$hub->sql("INSERT INTO item VALUES (100, 'hub')");
	$s->data(batch(0));
	my $first = read_batch($s->receive);
	is($first->{number}, 1, 'offers come first');
	my ($owner) = map { $_->{number} } grep { $_->{type} == 2 } @{ $first->{sections} };
	my ($table) = map { $_->{number} } grep { $_->{type} == 3 } @{ $first->{sections} };
	$s->data(batch(1, table_state($table, 1), want($owner, 1, 0, 0)));
	is(read_batch($s->receive)->{number}, 2, 'then what was wanted');
	$s->data(batch(2));
	my $other = stream('pull');
	is($s->receive, '08000 this connection of peer "mallory" was superseded by a newer one', 'until another takes its place');
	$_->close foreach $s, $other;
};

done_testing();
