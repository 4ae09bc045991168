# Comparing without changing: alice dials hub; rows are damaged behind our
# back (session_replication_role = replica, so that nothing is captured).
#
# Promise: verify lists exactly the ranges that differ, as far as both may see
# them, changes nothing, and asks the peer little when little differs.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;
use Entanglement::Wire;

my $pki = Entanglement::PKI->new;
my ($alice, $hub) = map { Entanglement::Node->create($_, pki => $pki) } qw(alice hub);
my @both = ($alice, $hub);

link_nodes($alice, $hub);
$_->define(<<'SQL', 'item', 'part', 'words') foreach @both;
CREATE TABLE item (id int PRIMARY KEY, v text, w numeric, at timestamptz);
CREATE TABLE part (k text, n int, v text, PRIMARY KEY (k, n)) PARTITION BY LIST (k);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b');
CREATE TABLE words (word text PRIMARY KEY, v jsonb, m box);
SQL
$alice->sql(<<'SQL');
INSERT INTO item SELECT i, 'row ' || i, i / 7.0, '2020-01-01'::timestamptz + i * interval '1 s' FROM generate_series(1, 20000) i;
INSERT INTO part SELECT CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i, 'alice' FROM generate_series(1, 100) i;
INSERT INTO words SELECT md5(i::text), jsonb_build_object('n', i), box(point(i, 0), point(0, i)) FROM generate_series(1, 300) i;
SQL
$hub->sql("INSERT INTO item SELECT i, 'hub ' || i FROM generate_series(30001, 30200) i");
converge(\@both, [ 'item', 'part', 'words' ], 'in step');
$_->drain foreach @both;

sub damage
{
	my ($node, $sql) = @_;

	$node->sql("SET session_replication_role = replica;\n$sql");
	return;
}

# The differences as text, and how many questions and bytes they took.
sub verify
{
	my ($node, $peer) = @_;
	my ($rc, $out, $err) = $node->try(
		"SET client_min_messages = debug1; SELECT relation, owner, difference, lo, hi, ours, theirs FROM entanglement.verify('$peer')");

	die $err if $rc != 0;
	my @cost = $err =~ /verified in (\d+) exchanges: (\d+) bytes sent, (\d+) received/;

	return ($out, @cost);
}

# What is in the tables, users' and ours, but for what links do by themselves.
sub everything
{
	my ($node) = @_;

	return join "\n", (map { $node->digest($_) } qw(item part words)),
	  (map { $node->versions($_) } qw(item part words)),
	  map { $node->digest("entanglement.$_") } qw(arrears resend owed parked change tombstone relation peer);
}

subtest 'nothing differs' => sub {
	my ($out, $exchanges, $sent, $received) = verify($alice, 'hub');

	is($out, '', 'nothing is listed');
	is($exchanges, 2, 'two questions: what there is, and the totals');
	cmp_ok($sent + $received, '<', 3000, "few bytes ($sent sent, $received received)");
};

subtest 'one of 20,000 rows differs' => sub {
	damage($hub, "UPDATE item SET w = w + 1 WHERE id = 12345");
	my @before = map { everything($_) } @both;
	my ($out, $exchanges, $sent, $received) = verify($alice, 'hub');

	is($out, 'public.item|alice|differs|{"id": 12345}|{"id": 12345}|1|1', 'exactly that one is listed');
	# totals, then 20,000 / 16 / 16 / 16 / 16, and a look again
	cmp_ok($exchanges, '<=', 2 + 4 + 2, "few questions: $exchanges");
	cmp_ok($sent, '<', 2000, "few bytes sent: $sent");
	cmp_ok($received, '<', 8000, "and received: $received");
	is_deeply([ map { everything($_) } @both ], \@before, 'nothing has changed');
	damage($hub, "UPDATE item SET w = w - 1 WHERE id = 12345");
	is((verify($alice, 'hub'))[0], '', 'nothing is listed when it is right again');
};

subtest 'all kinds of damage' => sub {
	damage($hub, <<'SQL');
UPDATE item SET v = 'wrong' WHERE id BETWEEN 101 AND 103;
UPDATE item SET at = at + interval '1 us' WHERE id = 20000;
DELETE FROM item WHERE id BETWEEN 5001 AND 9000 OR id = 1;
DELETE FROM entanglement.object WHERE key = '\x040000000f';
INSERT INTO item VALUES (40000, 'nobody''s'), (40001, 'nobody''s'), (0, 'nobody''s');
UPDATE item SET v = NULL WHERE id = 30007;
UPDATE part SET v = 'wrong' WHERE n = 4;
UPDATE words SET v = '{"n": 0}', m = NULL WHERE word = md5('7');
DELETE FROM words WHERE word = md5('8');
SQL
	damage($alice, 'DELETE FROM item WHERE id = 30100');
	my @before = map { everything($_) } @both;
	my ($seven, $eight) = map { $alice->sql("SELECT md5('$_')") } 7, 8;
	my ($out) = verify($alice, 'hub');

	is( $out, join("\n",
		'public.item||no object there|{"id": 0}|{"id": 40001}||4',
		'public.item|alice|missing there|{"id": 1}|{"id": 1}|1|0',
		'public.item|alice|missing there|{"id": 15}|{"id": 15}|1|0',
		'public.item|alice|differs|{"id": 101}|{"id": 103}|3|3',
		'public.item|alice|missing there|{"id": 5001}|{"id": 9000}|4000|0',
		'public.item|alice|differs|{"id": 20000}|{"id": 20000}|1|1',
		'public.item|hub|differs|{"id": 30007}|{"id": 30007}|1|1',
		'public.item|hub|missing here|{"id": 30100}|{"id": 30100}|0|1',
		'public.part|alice|differs|{"k": "a", "n": 4}|{"k": "a", "n": 4}|1|1',
		(map { $_->[1] } sort { $a->[0] cmp $b->[0] }
			[ $seven, qq(public.words|alice|differs|{"word": "$seven"}|{"word": "$seven"}|1|1) ],
			[ $eight, qq(public.words|alice|missing there|{"word": "$eight"}|{"word": "$eight"}|1|0) ])),
		'each is listed, and nothing else');
	is_deeply([ map { everything($_) } @both ], \@before, 'nothing has changed');
	$hub->sql("SELECT entanglement.resync('alice')");
	$alice->sql("SELECT entanglement.resync('hub')");
	$_->wait_until('SELECT count(*) FROM entanglement.comparisons', 0, 'resynchronized') foreach @both;
	converge(\@both, [ 'item', 'part', 'words' ], 'healed');
	$_->drain foreach @both;
	is((verify($alice, 'hub'))[0], '', 'nothing differs any more');
};

subtest 'what is on its way is no difference' => sub {
	my $writer = $alice->session;

	$alice->sql('CREATE TABLE stop ()');
	$writer->query_until(qr/writing/, <<'SQL');
\echo writing
DO $$ BEGIN
	WHILE to_regclass('stop') IS NOT NULL LOOP
		UPDATE item SET w = w + 1 WHERE id % 1000 = 3;
		DELETE FROM item WHERE id = 50000;
		COMMIT;
		INSERT INTO item VALUES (50000, 'now and then');
		COMMIT;
	END LOOP;
END $$;
SQL
	$hub->wait_until('SELECT w > 3 FROM item WHERE id = 3', 't', 'changes');
	my @out = map { grep { !/\|newer (here|there)\|/ && !/"id": 50000/ } split /\n/, (verify($alice, 'hub'))[0] } 1 .. 3;

	$alice->sql('DROP TABLE stop');
	$writer->quit;
	is_deeply(\@out, [], 'no row that changes counts as different');
	$alice->sql('DELETE FROM item WHERE id = 50000');
	$alice->drain('hub');
	is((verify($alice, 'hub'))[0], '', 'and nothing differs when it has arrived');

	# on a link as slow as this it stays on its way; digests have a connection of their own
	$alice->sql("SELECT entanglement.alter_peer('hub', bandwidth => 1)");
	$alice->sql("UPDATE item SET v = 'newer' WHERE id = 9; INSERT INTO item VALUES (60000, 'newer')");
	$alice->wait_folded;
	is( (verify($alice, 'hub'))[0],
		"public.item|alice|newer here|{\"id\": 9}|{\"id\": 9}|1|1\npublic.item|alice|newer here|{\"id\": 60000}|{\"id\": 60000}|1|0",
		'what waits is called newer, not different');
	$alice->sql("SELECT entanglement.alter_peer('hub', reset => '{bandwidth}')");
	converge(\@both, ['item'], 'it arrives');
	$alice->drain('hub');
	is((verify($alice, 'hub'))[0], '', 'and is gone from the list');
};

subtest 'rights' => sub {
	damage($hub, "UPDATE item SET v = 'secret' WHERE id = 77; UPDATE item SET w = 0 WHERE id = 78; UPDATE item SET v = 'secret' WHERE id = 30005");
	$hub->sql('REVOKE SELECT ON item FROM alice; GRANT SELECT (id, w, at) ON item TO alice');
	is((verify($alice, 'hub'))[0], 'public.item|alice|differs|{"id": 78}|{"id": 78}|1|1',
		'a column that she may not see is not compared');
	$hub->sql(<<'SQL');
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY shown ON item TO alice USING (id NOT BETWEEN 78 AND 90);
SQL
	is((verify($alice, 'hub'))[0], 'public.item|alice|missing there|{"id": 78}|{"id": 90}|13|0',
		'rows that she may not see there are as good as none');
	$hub->sql('DROP POLICY shown ON item; ALTER TABLE item DISABLE ROW LEVEL SECURITY; REVOKE ALL ON item FROM alice; GRANT UPDATE, INSERT, DELETE ON item TO alice');
	$alice->sql('REVOKE SELECT ON part FROM hub');
	$hub->define('CREATE TABLE "Only" (id int PRIMARY KEY)', '"Only"');
	is((verify($alice, 'hub'))[0], join("\n", 'public."Only"||not offered here||||', 'public.item||not offered there||||',
		'public.part||not offered here||||'), 'tables that one side does not offer are listed');
	$hub->sql('GRANT SELECT ON item TO alice');
	$alice->sql('GRANT SELECT ON part TO hub; SELECT entanglement.resync($$hub$$)');
	$hub->sql('DROP TABLE "Only"; SELECT entanglement.resync($$alice$$)');
	converge(\@both, ['item'], 'healed');
};

subtest 'by whom' => sub {
	$hub->fails("SELECT * FROM entanglement.verify('alice')", '55000',
		'peer "alice" has no conninfo.*Call entanglement.verify on that node', 'who is dialed cannot ask');
	$hub->fails("SELECT * FROM entanglement.verify('nobody')", '42704', 'peer "nobody" does not exist', 'no such peer');
	$hub->sql('CREATE ROLE plain LOGIN');
	$alice->sql('CREATE ROLE plain LOGIN');
	$alice->fails("SET ROLE plain; SELECT * FROM entanglement.verify('hub')", '42501', 'permission denied', 'not everybody may');
	$hub->fails("SET ROLE plain; SELECT entanglement.digest('x')", '42501', 'permission denied', 'nor be asked');
	$hub->fails("SELECT entanglement.digest('x')", '55000', 'nobody has said hello', 'nor without a hello');
	$hub->sql("SELECT entanglement.pause_peer('alice')");
	$alice->fails("SELECT * FROM entanglement.verify('hub')", '57P03', 'peer "alice" is paused', 'nor while paused there');
	$hub->sql("SELECT entanglement.resume_peer('alice')");
	$alice->wait_connected('hub');
	is((verify($alice, 'hub'))[0], '', 'afterwards as before');
};

subtest 'databases of different encodings' => sub {
	my $cluster = Entanglement::Node->cluster('encodings');
	my $latin = Entanglement::Node->database($cluster, 'latin', encoding => 'LATIN1');
	my $utf = Entanglement::Node->database($cluster, 'utf');

	link_nodes($latin, $utf);
	$_->define(<<'SQL', 'word', 'number') foreach $latin, $utf;
CREATE TABLE word (w text PRIMARY KEY, v text);
CREATE TABLE number (n int PRIMARY KEY, v text);
SQL
	$latin->sql(<<'SQL');
INSERT INTO word SELECT chr(97 + i / 26) || chr(224 + i % 26), 'v' || chr(233) FROM generate_series(0, 500) i;
INSERT INTO number SELECT i, chr(233) || i FROM generate_series(1, 500) i;
SQL
	$utf->wait_until('SELECT count(*) FROM word, (SELECT count(*) FROM number) n (n) WHERE n = 500', 501, 'in step');
	$latin->drain('utf');
	is((verify($latin, 'utf'))[0], '', 'the same characters are the same');
	damage($utf, "UPDATE word SET v = 'wrong' WHERE w = 'b' || chr(230); UPDATE number SET v = 'wrong' WHERE n = 7");
	is((verify($latin, 'utf'))[0],
		"public.number|latin|differs|{\"n\": 7}|{\"n\": 7}|1|1\npublic.word|latin|differs|||501|501",
		'keys with text are not divided, others are');
	# both dial each other: one link is used, both may ask
	$cluster->safe_psql('postgres', 'ALTER ROLE utf LOGIN');
	my $info = conninfo($utf, $latin) =~ s/'/''/gr;

	$utf->sql("SELECT entanglement.alter_peer('latin', '$info')");
	like((verify($utf, 'latin'))[0], qr/^public\.number\|latin\|differs\|\{"n": 7\}.*^public\.word\|latin\|differs\|.*\|501\|501$/ms,
		'when both dial both can ask');
	is((verify($latin, 'utf'))[0] =~ tr/\n//, 1, 'likewise');
	$latin->wait_connected('utf');
	$cluster->stop;
};

# mallory is a role that stands for a peer at hub; and a node that lies.
subtest 'questions that make no sense' => sub {
	$hub->sql('CREATE ROLE mallory LOGIN; GRANT SELECT (id) ON item TO mallory');
	$hub->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
	my $hello = "SET SESSION AUTHORIZATION mallory; SELECT entanglement.hello('verify', "
	  . literal(hello('66600000-0000-4000-8000-000000000001', 'mallory')) . ') IS NULL;';
	my $owner = uuid($hub->sql("SELECT id FROM entanglement.owners WHERE name = 'alice'"));
	my $compare = sub {
		my ($table, $columns, @ranges) = @_;

		return section(32, join '', bytes('public'), bytes($table), varint(scalar @$columns),
			(map { bytes($_) } @$columns), @ranges);
	};
	my $range = sub { return $owner . "\0" . varint($_[0]); };
	my $ask = sub {
		my ($rc, $out, $err) = $hub->try("$hello\nSELECT encode(entanglement.digest(" . literal($_[0]) . "), 'hex')");

		return $err =~ /ERROR:  (\w+)/ ? $1 : $out =~ s/^f\n//r;
	};

	is($ask->('garbage'), '08P01', 'no message');
	is($ask->(batch(0, section(32, 'x'))), '08P01', 'no question');
	is($ask->(batch(0, section(31, 'x'))), '08P01', 'something unknown');
	is($ask->(batch(0, $compare->('item', [], $range->(0)))), '08P01', 'parts of nothing');
	is($ask->(batch(0, map { $compare->('item', []) } 1 .. 257)), '08P01', 'too many questions');
	is($ask->(batch(0, $compare->('item', [], map { $range->(1) } 1 .. 257))), '08P01', 'too many ranges');
	my $empty = unpack 'H*', batch(0);

	is($ask->(batch(0, $compare->('item', ['v']))), $empty, 'a column that she may not see');
	is($ask->(batch(0, $compare->('item', ['nonsense'], $range->(1)))), $empty, 'one that is not there');
	is($ask->(batch(0, $compare->('words', []))), $empty, 'a table that she may not see');
	is($ask->(batch(0, $compare->('pg_class', []))), $empty, 'one that is none of ours');
	unlike(pack('H*', $ask->(batch(0))), qr/words|part/, 'she is told only of tables that she may see');
	my @parts = $ask->(batch(0, $compare->('item', [], $range->(1))));

	cmp_ok(length($parts[0]), '<', 4000, 'a range is divided into few parts, whatever is asked for');
};

subtest 'answers that make no sense' => sub {
	my $liar = Entanglement::Node->create('liar', pki => $pki);

	$liar->sql(<<'SQL');
CREATE ROLE alice LOGIN;
CREATE TABLE public.answers (n int GENERATED ALWAYS AS IDENTITY, body bytea);
GRANT ALL ON public.answers TO alice;
SQL
	$liar->sql("SELECT entanglement.add_peer('alice', NULL, 'alice')");
	my $info = conninfo($alice, $liar) =~ s/'/''/gr;

	$alice->define(<<'LIES', 'lies');
CREATE TABLE lies (id int PRIMARY KEY, v text);
INSERT INTO lies SELECT i, 'true' FROM generate_series(1, 2000) i;
CREATE ROLE liar;
GRANT SELECT ON lies TO liar;
LIES
	$alice->wait_folded;
	$alice->sql("SELECT entanglement.add_peer('liar', '$info', 'liar')");
	$alice->wait_connected('liar');
	$liar->sql(<<'SQL');
ALTER EXTENSION entanglement DROP FUNCTION entanglement.digest(bytea);
DROP FUNCTION entanglement.digest(bytea);
CREATE FUNCTION entanglement.digest(question bytea) RETURNS bytea LANGUAGE sql SECURITY DEFINER AS $$
	DELETE FROM public.answers WHERE n = (SELECT min(n) FROM public.answers) RETURNING body
$$;
SQL
	my $id = $alice->sql("SELECT id FROM entanglement.node");
	my $o = $alice->sql("SELECT id FROM entanglement.owners WHERE name = 'alice'");
	my @what = (
		table(number => 1, name => 'lies',
			columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]),
		owner(number => 1, id => $o, home => $id, name => 'alice'));
	my $part = sub {
		my ($count, $last, $first) = @_;

		return varint($count) . "\0" . bytes(bytes(pack 'N', $last))
		  . ($count > 1 ? bytes(bytes(pack 'N', $first)) : '') . varint(1) . varint(1) . 'x' x 16;
	};
	my $digest = sub { return section(33, varint($_[0]) . varint($_[1]) . uuid($o) . join '', @_[2 .. $#_]); };
	my $total = batch(0, $digest->(0, 0, $part->(20000, 20000, 1)));
	my $lies = sub {
		my ($name, $expected, @answers) = @_;

		$liar->sql('TRUNCATE answers; ' . join '', map { 'INSERT INTO answers (body) VALUES (' . literal($_) . ');' } @answers);
		$alice->fails("SELECT * FROM entanglement.verify('liar')", '08P01', $expected, $name);
	};

	$lies->('no answer', 'sent no answer');
	$lies->('garbage', 'malformed digest', 'garbage');
	$lies->('a batch', 'something unknown', batch(0, section(5, 'xyz')));
	$lies->('half an owner', 'malformed digest', batch(0, section(2, 'xyz')));
	$lies->('no totals', 'malformed digest', batch(0, @what), 'nonsense');
	$lies->('totals twice', 'answers twice', batch(0, @what), batch(0, map { $digest->(0, 0, $part->(1, 1)) } 1, 2));
	$lies->('totals of another table', 'what was not asked', batch(0, @what), batch(0, $digest->(7, 0, $part->(1, 1))));
	$lies->('parts out of order', 'out of order', batch(0, @what), $total,
		batch(0, $digest->(0, 0, $part->(2, 10, 5), $part->(1, 3))));
	$lies->('a part that ends before it begins', 'out of order', batch(0, @what), $total,
		batch(0, $digest->(0, 0, $part->(2, 10, 15), $part->(1, 30))));
	$lies->('too many parts', 'make no sense', batch(0, @what), $total,
		batch(0, $digest->(0, 0, map { $part->(1, $_) } 1 .. 33)));
	$lies->('no parts', 'has no parts', batch(0, @what), $total, batch(0, $digest->(0, 0)));
	$lies->('parts of what was not asked', 'what was not asked', batch(0, @what), $total,
		batch(0, $digest->(0, 1, $part->(1, 1))));
	# an endless story: what is divided has a part again that is to be divided;
	# it is cut short, and when asked again the peer contradicts itself
	$lies->('an endless story', 'out of order', batch(0, @what), $total,
		map { batch(0, $digest->(0, 0, $part->(1, $_), $part->(5, 20000 - $_, $_ + 1))) } 1 .. 1000);
	cmp_ok($liar->sql('SELECT count(*) FROM answers'), '>', 890, 'ends soon');
	$alice->sql('DROP TABLE lies');
	is((verify($alice, 'hub'))[0], '', 'honest peers are compared as before');
};

done_testing();
