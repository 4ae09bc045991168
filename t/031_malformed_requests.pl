# Requests that no node of ours would send: a peer's role, its batches made by
# hand.
#
# Promise: what a peer names wrongly is refused with an answer; nothing changes,
# and neither the server nor the connection suffers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('malformed');
my $home = Entanglement::Node->database($cluster, 'home');

$home->allow_peer('mallory', 1);
$home->define(<<'SQL', 'pair');
CREATE TABLE pair (a int, b text, v text, w text, PRIMARY KEY (a, b));
INSERT INTO pair VALUES (1, 'x', 'as it was');
SQL
$home->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
my $owner = $home->sql("SELECT replace(id::text, '-', '') FROM entanglement.owner WHERE name = 'home'");

# ---- bytes: docs/protocol.md ----

sub varint
{
	my ($v) = @_;
	my $bytes = '';

	for (; $v >= 128; $v >>= 7)
	{
		$bytes .= chr($v & 127 | 128);
	}
	return $bytes . chr $v;
}

sub bytes { return varint(length $_[0]) . $_[0]; }
sub value { return defined $_[0] ? varint(1 + length $_[0]) . $_[0] : "\0"; }
sub section { return chr($_[0]) . bytes($_[1]); }

my $requests = 0;

# A REQUEST of table pair: operation, columns of the key, names and values.
sub request
{
	my ($op, $nkeys, @fields) = @_;
	my $body = pack('x12 N', ++$requests) . pack('H*', $owner) . chr($op)
	  . varint(60_000) . bytes('public') . bytes('pair') . varint($nkeys)
	  . varint(@fields / 2 - $nkeys);

	while (my ($name, $value) = splice @fields, 0, 2)
	{
		$body .= bytes($name) . value($value);
	}
	return section(13, $body);
}

# mallory says hello and pushes one batch.
sub push_batch
{
	my $hello = "\xE7\1\0\0"
	  . section(1, "\1\1" . 'M' x 16 . bytes('mallory') . bytes('by hand'));
	my $batch = "\xE7\1\0\1" . join '', @_;

	return $home->try(
		sprintf "SET SESSION AUTHORIZATION mallory;\nSELECT entanglement.hello('push', '\\x%s') IS NULL;\nSELECT entanglement.push('\\x%s') IS NULL;\n",
		unpack('H*', $hello), unpack('H*', $batch));
}

my ($create, $forward, $delete) = (0, 1, 2);
my @cases = (
	[ '42701', $forward, 2, a => 1, a => 1, v => 'bad' ],
	[ '42701', $delete, 2, b => 'x', b => 'x' ],
	[ '42701', $forward, 2, a => 1, b => 'x', v => 'bad', v => 'worse' ],
	[ '42701', $create, 0, v => 'bad', v => 'worse' ],
	[ '42804', $forward, 1, a => 1, v => 'bad' ],
	[ '42804', $forward, 3, a => 1, b => 'x', a => 1, v => 'bad' ],
	[ '42804', $forward, 2, a => 1, v => 'x', w => 'bad' ],
	[ '42804', $forward, 2, a => undef, b => 'x', v => 'bad' ],
	[ '42703', $forward, 2, a => 1, b => 'x', nowhere => 'bad' ],
	[ '42703', $forward, 2, a => 1, b => 'x', ctid => '(0,1)' ],
	[ '22P02', $forward, 2, a => 'one', b => 'x', v => 'bad' ],
	[ '22021', $forward, 2, a => 1, b => 'x', v => "\xC3\x28" ],
	[ '22021', $forward, 2, a => 1, b => 'x', v => "bad\0" ],
	[ '0A000', $forward, 2, a => 1, b => 'x', a => 2 ],
	[ 'P0002', $forward, 2, a => 2, b => 'x', v => 'bad' ]);

my ($rc, $out, $err) = push_batch(map { request(@{$_}[ 1 .. $#$_ ]) } @cases);
is($out, "f\nf", 'a batch of requests that name things wrongly is answered');
is($err, '', 'without an error');
is( $home->sql("SELECT string_agg(state || ' ' || sqlstate, E'\\n' ORDER BY no) FROM entanglement.request"),
	join("\n", map { "refused $_->[0]" } @cases),
	'each of them is refused for the right reason');
is($home->sql('SELECT * FROM pair'), '1|x|as it was|', 'nothing changed');

push_batch(request($forward, 2, b => 'x', a => 1, v => 'good'));
is($home->sql('SELECT * FROM pair'), '1|x|good|', 'the key in another order is as good');

done_testing();
