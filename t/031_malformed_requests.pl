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
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('malformed');
my $home = Entanglement::Node->database($cluster, 'home');

$home->allow_peer('mallory', 1);
$home->define(<<'SQL', 'pair');
CREATE TABLE pair (a int, b text, v text, w text, PRIMARY KEY (a, b));
INSERT INTO pair VALUES (1, 'x', 'as it was');
SQL
$home->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
my $owner = $home->sql("SELECT id FROM entanglement.owner WHERE name = 'home'");

my $requests = 0;

# A REQUEST of table pair: operation, columns of the key, names and values.
sub ask
{
	my ($op, $nkeys, @fields) = @_;
	my @pairs;

	push @pairs, [ splice @fields, 0, 2 ] while @fields;
	return request(number => ++$requests, owner => $owner, op => $op, table => 'pair', key => $nkeys, fields => \@pairs);
}

# mallory says hello and pushes one batch.
sub push_batch
{
	return $home->try("SET SESSION AUTHORIZATION mallory;\n"
		  . "SELECT entanglement.hello('push', " . literal(hello('66600000-0000-4000-8000-000000000001', 'mallory')) . ") IS NULL;\n"
		  . 'SELECT entanglement.push(' . literal(batch(1, @_)) . ") IS NULL;\n");
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

my ($rc, $out, $err) = push_batch(map { ask(@{$_}[ 1 .. $#$_ ]) } @cases);
is($out, "f\nf", 'a batch of requests that name things wrongly is answered');
is($err, '', 'without an error');
is( $home->sql("SELECT string_agg(state || ' ' || sqlstate, E'\\n' ORDER BY no) FROM entanglement.request"),
	join("\n", map { "refused $_->[0]" } @cases),
	'each of them is refused for the right reason');
is($home->sql('SELECT * FROM pair'), '1|x|as it was|', 'nothing changed');

push_batch(ask($forward, 2, b => 'x', a => 1, v => 'good'));
is($home->sql('SELECT * FROM pair'), '1|x|good|', 'the key in another order is as good');

done_testing();
