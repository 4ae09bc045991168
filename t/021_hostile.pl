# A peer that means harm: mallory is a role that stands for a peer at hub, and
# speaks the protocol by hand. alice is an honest peer of hub.
#
# Promise: what mallory may not see is not told to her, by whatever she asks;
# whatever she sends is refused with a precise error or does harm to nothing
# but her own; hub and its other links go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('hostile', conf => "entanglement.dead_after = '60 s'\n");
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);
my $me = '66600000-0000-4000-8000-000000000001';

sub id { return $_[0]->sql('SELECT id FROM entanglement.node'); }

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN; CREATE ROLE alice; CREATE ROLE hub');
foreach my $node ($alice, $hub)
{
	$node->define(<<'SQL', 'item', 'secret');
CREATE TABLE item (id int PRIMARY KEY, v text, w int);
CREATE TABLE secret (id int PRIMARY KEY, v text, open boolean NOT NULL);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret TO alice, hub USING (true);
CREATE POLICY few ON secret TO mallory USING (open);
GRANT SELECT, INSERT, UPDATE, DELETE ON item, secret TO mallory;
SQL
	$node->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
}
link_nodes($alice, $hub);

# A session of mallory's; hello of the direction said.
sub mallory
{
	my ($node, $direction) = @_;
	my $s = $cluster->background_psql($node->db,
		on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);

	$s->query_safe("SELECT entanglement.hello('$direction', "
		  . literal(hello($me, 'mallory')) . ')');
	return $s;
}

# The next batch, after an answer to the one before.
sub pull
{
	my ($s, $number, @answer) = @_;
	my $out = $s->query_safe(
		'CALL entanglement.pull(' . literal(batch($number, @answer)) . ', NULL)');

	return read_batch(pack 'H*', $out =~ s/^\\x//r);
}

# Pulls on until a batch has a section for which $until is true; returns all
# sections. The first answer is to the batch given.
sub pull_until
{
	my ($s, $batch, $answer, $until) = @_;
	my @sections;

	while (1)
	{
		$batch = pull($s, $batch->{number}, @$answer);
		$answer = [];
		push @sections, @{ $batch->{sections} };
		return @sections if grep { $until->($_) } @{ $batch->{sections} };
	}
}

# Numbers of the owner and table of these names.
sub numbers
{
	my ($batch, $owner, $table) = @_;
	my ($o) = grep { $_->{type} == 2 && $_->{name} eq $owner } @{ $batch->{sections} };
	my ($t) = grep { $_->{type} == 3 && $_->{name} eq $table } @{ $batch->{sections} };

	return ($o->{number}, $t->{number});
}

sub int_key { return bytes(pack 'N', $_[0]); }
sub key_int { return unpack 'N', substr $_[0], 1; }

subtest 'keys of rows that she may not see are not told' => sub {
	# 3500 rows: none in the first thousand, two, none again, the last
	my @open = (1500, 1600, 3500);

	$hub->sql('INSERT INTO secret SELECT i, $$row $$ || i, i = ANY (ARRAY['
		  . join(', ', @open)
		  . ']) FROM generate_series(1, 3500) i');
	$hub->drain('alice');
	foreach my $last (3500, 1)
	{
		my $s = mallory($hub, 'pull');
		my $batch = pull($s, 0);
		my ($owner, $table) = numbers($batch, 'hub', 'secret');
		my @sections = pull_until(
			$s, $batch,
			[ want($owner, 1, 0, 0), arrears($owner, $table) ],
			sub { $_[0]->{type} == 6 });
		my @present = grep { $_->{type} == 7 && $_->{table} == $table } @sections;
		my @bounds = map { ($_->{lo}, $_->{hi}) } @present;

		ok(!defined shift @bounds && !defined pop @bounds, 'from the first key to the last');
		while (my ($hi, $lo) = splice @bounds, 0, 2)
		{
			is(key_int($lo), key_int($hi), 'ranges join at ' . key_int($hi));
		}
		is_deeply(
			[ sort { $a <=> $b } map { key_int($_) } map { @{ $_->{keys} // [] } } @present ],
			\@open, 'exactly the keys of visible rows are told');
		is_deeply(
			[ grep { my $k = $_; !grep { $_ == $k } @open }
				map { key_int($_) } grep { defined $_ } map { ($_->{lo}, $_->{hi}) } @present ],
			[], 'and none of others bounds a range');
		$s->quit;
		last if $last == 1;
		# the same when the end of the table is not to be seen
		$hub->sql('UPDATE secret SET open = false WHERE id = 3500');
		pop @open;
	}
};

subtest 'nor by a row that somebody makes up' => sub {
	my $as = sub {
		my ($role, $id) = @_;
		my ($rc, $out, $err) = $hub->try("SELECT entanglement.owner_of(ROW($id, 'x', true)::secret)",
			extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);

		return $out . ($err =~ /(ERROR:  \S+)/ ? $1 : '');
	};

	$cluster->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
	is($as->('mallory', 1600), 'hub', 'a row that mallory may see');
	is($as->('mallory', 1601), '', 'one that she may not see');
	is($as->('mallory', 99999), '', 'one that there is not');
	is($as->('nobody', 1600), 'ERROR:  42501:', 'one who has no right to the table');

	# also where the policy itself asks
	$hub->sql("CREATE POLICY owned ON secret TO nobody USING (entanglement.owner_of(secret) = 'hub' AND id < 10); GRANT SELECT ON secret TO nobody");
	is($as->('nobody', 5), 'hub', 'by a policy that asks for owners');
	is($as->('nobody', 15), '', 'and hides others');
	$hub->sql('DROP POLICY owned ON secret');

	# a policy of hers, on a table of hers, asks in her place
	$hub->sql(<<'SQL');
CREATE TABLE hers (id int PRIMARY KEY, v text);
ALTER TABLE hers OWNER TO mallory;
ALTER TABLE hers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT entanglement.synchronize('hers');
CREATE POLICY ask ON hers USING (v = coalesce(entanglement.owner_of(ROW(id, 'x', true)::secret), 'none'));
INSERT INTO hers VALUES (1600, 'hub'), (1601, 'hub'), (1602, 'none');
SQL
	my @told = map { $hub->sql("SELECT entanglement.owner_of(ROW($_, 'hub')::hers)", extra_params => [ '-U', 'mallory' ]) } 1600, 1601;
	is_deeply(\@told, [ 'hub', '' ], 'a policy of hers learns no more than she');
	$hub->sql('DROP TABLE hers');
};

subtest 'no text that is none comes of a key that somebody makes up' => sub {
	$hub->sql("CREATE TABLE named (id text PRIMARY KEY); SELECT entanglement.synchronize('named')");
	my $no = $hub->sql("SELECT no FROM entanglement.relation WHERE relid = 'named'::regclass");
	my ($rc, $out, $err) = $hub->try("SELECT entanglement.request_key($no, 'named', '\\x01ff')",
		extra_params => [ '-U', 'nobody', '-v', 'VERBOSITY=verbose' ]);

	like($err, qr/ERROR:  22021: /, 'refused');
	$hub->sql('DROP TABLE named');
};

# ---- what she sends ----

# Answers and errors of a list of [hello?, call] as mallory, in one session
# each; $what is for people. Returns the errors with SQLSTATE, in order.
sub tries
{
	my ($node, @batches) = @_;
	my $hello = 'SELECT entanglement.hello($$push$$, ' . literal(hello($me, 'mallory')) . ") IS NOT NULL;\n";
	my ($out, $err);

	$node->cluster_of->psql(
		$node->db,
		join('', map { $hello . 'SELECT entanglement.push(' . literal($_) . ");\n" } @batches),
		stdout => \$out,
		stderr => \$err,
		on_error_stop => 0,
		extra_params => [ '-U', 'mallory', '-v', 'VERBOSITY=verbose' ]);
	$cluster->{hostile_out} = $out;
	return $err =~ /^(?:psql:\S* )?ERROR:  (.*)/mg;
}

my $home = $me;
my @item = (name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ], [ 'w', 'int4', 1, 0 ] ]);
my $serial = 0;

# An owner of hers not seen before, so that nothing said before counts.
sub fresh
{
	my ($number, %o) = @_;

	return owner(number => $number, home => $home, name => 'o' . ++$serial,
		id => sprintf('66600000-0000-4000-8000-%012d', $serial), %o);
}

# It and the table.
sub offer { return fresh(7) . table(number => 9, @item); }
sub full
{
	my ($id, $serial, $v, $w, $flags) = @_;

	return row(op => 2 | ($flags // 0), serial => $serial, key => [ pack 'N', $id ], values => [ $v, pack('N', $w) ]);
}
sub dead { return row(op => $_[2] // 0, serial => $_[1], key => [ pack 'N', $_[0] ]); }

# Everything at a node that is alice's or hub's.
my $homes = join ', ', map { "'" . id($_) . "'" } $alice, $hub;
sub others
{
	my ($node) = @_;

	return $node->sql(<<"SQL");
SELECT string_agg(line, E'\\n' ORDER BY line COLLATE "C") FROM (
	SELECT 'object ' || concat_ws(' ', o.rel, encode(o.key, 'hex'), o.epoch, o.serial, w.id)
	  FROM entanglement.object o JOIN entanglement.owner w ON w.no = o.owner WHERE w.home IN ($homes)
	UNION ALL
	SELECT 'item ' || i::text FROM item i WHERE entanglement.owner_of(i) IN ('alice', 'hub')
	UNION ALL
	SELECT 'secret ' || s::text FROM secret s
	UNION ALL
	SELECT 'owner ' || concat_ws(' ', id, home, name, local, epoch, serial, peer) FROM entanglement.owner WHERE home IN ($homes)
	UNION ALL
	SELECT 'grave ' || concat_ws(' ', t.rel, encode(t.key, 'hex')) FROM entanglement.tombstone t
	  JOIN entanglement.owner w ON w.no = t.owner WHERE w.home IN ($homes)
	UNION ALL
	SELECT 'table ' || r.relid::text FROM entanglement.relation r) AS s(line)
SQL
}

$alice->sql("INSERT INTO item SELECT i, 'alice', i FROM generate_series(1, 20) i");
$hub->sql("INSERT INTO item SELECT i, 'hub', i FROM generate_series(101, 120) i");
converge([ $alice, $hub ], ['item'], 'in step');
$_->wait_until('SELECT count(*) FROM entanglement.tombstone', '0', 'no tombstones') foreach $alice, $hub;
my $before = others($hub);
my $log = $hub->log_mark;
my $server = $hub->sql('SELECT pg_postmaster_start_time()');

sub alice_id { return $alice->sql("SELECT id FROM entanglement.owners WHERE local AND name = 'alice'"); }

subtest 'a real batch, cut and bent' => sub {
	# all that there is in one batch
	my $real = batch(1, offer()
		  . objects(9, 7, 1, full(1001, 1, 'mine', 1), full(1002, 1, 'too', 2), dead(1003, 1))
		  . objects(9, 7, 1, row(op => 1, serial => 4, key => [ pack 'N', 1001 ], behind => 3, set => "\x02", values => ['new']))
		  . present(7, 9, 3, int_key(1000), int_key(2000), int_key(1001), int_key(1002))
		  . claim(7, 1, 4));

	is_deeply([ tries($hub, $real) ], [], 'whole, it is taken');
	is($hub->sql('SELECT count(*) FROM item WHERE id > 1000'), 2, 'her rows are there');

	my @cut = tries($hub, map { substr $real, 0, $_ } 0 .. length($real) - 1);
	my @strange = grep { !/^(08P01|22023): / } @cut;
	is_deeply(\@strange, [], 'cut anywhere: a clear error, or the sections before');
	cmp_ok(scalar @cut, '>', length($real) * 3 / 4, 'mostly an error');

	srand(1);
	my @bent = map { my $b = $real; vec($b, $_, 8) ^= 1 << int rand 8; $b } 0 .. length($real) - 1;
	push @bent, map {
		my $b = $real;
		vec($b, int rand length $b, 8) = int rand 256 foreach 0 .. rand 3;
		$b
	} 1 .. $ENV{ENT_LONG} ? 20000 : 400;
	@strange = grep { !/^(08P01|0A000|22021|22P03|54000): / } tries($hub, @bent);
	is_deeply(\@strange, [], 'bent anywhere: a clear error, or of no importance');
	$hub->sql('DELETE FROM entanglement.parked');
	is(others($hub), $before, "nothing of others' was touched");
};

subtest 'lies about numbers and order' => sub {
	my $t = table(number => 9, @item);
	my %lie = (
		'objects of an owner never announced' => [ $t . objects(9, 8, 1, full(1, 1, 'x', 1)), '08P01: malformed batch from peer' ],
		'objects of a table never announced' => [ fresh(7) . objects(8, 7, 1, full(1, 1, 'x', 1)), '08P01: malformed batch from peer' ],
		'objects before owner and table' => [ objects(9, 7, 1, full(1, 1, 'x', 1)) . offer(), '08P01: malformed batch from peer' ],
		'a claim of an owner never announced' => [ claim(8, 1, 1), '08P01: malformed batch from peer' ],
		'a hello within' => [ offer() . substr(hello($me, 'mallory'), 4), '08P01: batch from peer has a section of unknown type 1' ],
		'a receiver\'s section' => [ offer() . want(7, 1, 1, 1), '08P01: batch from peer has a section of unknown type 8' ],
		'an owner without a name' => [ fresh(7, name => ''), '08P01: malformed batch from peer' ],
		'an owner without an epoch' => [ fresh(7, epoch => 0), '08P01: malformed batch from peer' ],
		'an epoch beyond the last' => [ fresh(7, epoch => 2**31), '08P01: malformed batch from peer' ],
		'a name that is no UTF-8' => [ fresh(7, name => "\xFF\xFE"), '22021: invalid byte sequence' ],
		'a name with a NUL' => [ fresh(7, name => "a\0b"), '08P01: malformed batch from peer' ],
		'another owner under a number in use' => [ fresh(7) . fresh(7), '08P01: malformed batch from peer' ],
		'a table number beyond the last' => [ table(number => 100001, @item), '08P01: malformed batch from peer' ],
		'an owner number beyond the last' => [ fresh(1000001), '08P01: malformed batch from peer' ],
		'a table of no columns' => [ section(3, varint(9) . bytes('public') . bytes('item') . varint(1) . varint(0)), '08P01: malformed batch from peer' ],
		'2^62 columns' => [ section(3, varint(9) . bytes('public') . bytes('item') . varint(1) . varint(2**62)), '08P01: malformed batch from peer' ],
		'a section of 2^62 bytes' => [ "\x04" . varint(2**62), '08P01: malformed batch from peer' ],
		'a key of 2^62 bytes' => [ fresh(7) . $t . objects(9, 7, 1, "\x02" . zigzag(1) . varint(2**62)), '08P01: malformed batch from peer' ],
		'a value of 2^62 bytes' => [ fresh(7) . $t . objects(9, 7, 1, "\x02" . zigzag(1) . bytes(int_key(1)) . varint(2**62)), '08P01: malformed batch from peer' ],
		'a serial below zero' => [ fresh(7) . $t . objects(9, 7, 1, full(1, -1, 'x', 1)), '08P01: malformed batch from peer' ],
		'a row of operation 3' => [ fresh(7) . $t . objects(9, 7, 1, row(op => 3, serial => 1, key => ['x'])), '08P01: malformed batch from peer' ],
		'more keys present than may be' => [ fresh(7) . $t . present(7, 9, 1, undef, undef, map { int_key($_) } 1 .. 10001), '08P01: malformed batch from peer' ],
		'too many columns' => [ join('', map { table(number => $_, schema => 'no', name => "wide$_", columns => [ [ 'id', 'int4', 3, 1 ], map { [ "c$_", 'text', 1, 0 ] } 2 .. 1600 ]) } 1 .. 130), '54000: peer offers too many tables' ]);

	foreach my $name (sort keys %lie)
	{
		my ($sections, $expected) = @{ $lie{$name} };
		my @e = tries($hub, batch(1, $sections));

		like($e[0] // 'no error', qr/^$expected/, $name);
		is(scalar @e, 1, "$name: one error");
	}
	is(others($hub), $before, "nothing of others' was touched");
};

subtest "owners of others" => sub {
	my $alice_owner = alice_id();
	my $hub_owner = $hub->sql("SELECT id FROM entanglement.owners WHERE local AND name = 'hub'");
	my $t = table(number => 9, @item);
	my $rows = objects(9, 7, 2**31 - 1, full(1, 2**62, 'stolen', 0), full(101, 1, 'stolen', 0), dead(2, 1))
	  . present(7, 9, 2**62, undef, undef) . claim(7, 2**31 - 1, 2**62);
	my %as = (
		'of hub itself' => [ id => $hub_owner, home => id($hub) ],
		'of hub, at home with mallory' => [ id => $hub_owner, home => $me ],
		'of alice, at home at alice, distance 0' => [ id => $alice_owner, home => id($alice) ],
		'of alice, at home with mallory' => [ id => $alice_owner, home => $me ],
		'of alice, at distance 1' => [ id => $alice_owner, home => id($alice), distance => 1 ]);

	foreach my $name (sort keys %as)
	{
		tries($hub, batch(1, $t . owner(number => 7, name => 'alice', epoch => 2**31 - 1, serial => 2**62, @{ $as{$name} }) . $rows));
		is(others($hub), $before, "$name: nothing");
	}

	# not even while alice is away
	$alice->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'", 't', 'alice is away');
	foreach my $name (grep { !/distance 1/ } sort keys %as)
	{
		tries($hub, batch(1, $t . owner(number => 7, name => 'alice', epoch => 2**31 - 1, serial => 2**62, @{ $as{$name} }) . $rows));
		is(others($hub), $before, "$name, alice away: nothing");
	}
	like($hub->peer('mallory')->{last_error}, qr/^(42501: the peer (offers owner "alice", which is at home elsewhere|sent state of owner "alice", which is at home here)|55000: owner "hub" has been adopted by another node, as the peer says; this node goes on as its home)/, 'and it is reported');
	$alice->sql("SELECT entanglement.resume_peer('hub')");
	$hub->wait_connected('alice');
};

subtest "the end of others' owners" => sub {
	my $alice_owner = alice_id();
	my $hub_owner = $hub->sql("SELECT id FROM entanglement.owners WHERE local AND name = 'hub'");
	my $tell = sub { return tries($hub, map { batch(1, $_) } @_); };
	my @ends = map { my $epoch = $_; map { gone($alice_owner, $_, $epoch) } id($alice), $me } 1, 2, 2**31 - 1;

	is_deeply([ $tell->(@ends, homes(0)) ], [], 'is told');
	is(others($hub), $before, 'and not believed');
	$alice->sql("SELECT entanglement.pause_peer('hub')");
	$hub->wait_until("SELECT state <> 'connected' FROM entanglement.peers WHERE name = 'alice'", 't', 'alice is away');
	is_deeply([ $tell->(@ends, homes(0)) ], [], 'is told');
	is(others($hub), $before, 'nor while alice is away');
	$alice->sql("SELECT entanglement.resume_peer('hub')");
	$hub->wait_connected('alice');
	is_deeply([ map { /^(08P01: malformed batch from peer)/ } $tell->(homes(1), fresh(7) . homes(0), fresh(7) . homes(2), homes(0, $me) . 'x') ],
		[ ('08P01: malformed batch from peer') x 4 ], 'a count that is none ends the link');
	$tell->(join '', map { gone(sprintf('66600000-0000-4000-9000-%012d', $_), $me, 1) } 1 .. 2000);
	is($hub->sql("SELECT count(*) FROM entanglement.grave WHERE id::text ~ '-9000-'"), 0, 'no graves of owners that nobody knew');

	# her own
	my $offer = offer();
	my $id = sprintf('66600000-0000-4000-8000-%012d', $serial);
	my $again = sub { return owner(number => 7, home => $_[1] // $home, name => "o$serial", id => $id, epoch => $_[0]) . table(number => 9, @item) };
	my $rows = objects(9, 7, 1, full(1010, 1, 'hers', 1)) . claim(7, 1, 1);
	my $there = "SELECT (SELECT count(*) FROM item WHERE id = 1010) + (SELECT count(*) FROM entanglement.owner WHERE id = '$id')";

	$tell->($offer . $rows);
	is($hub->sql($there), 2, 'an owner of hers');
	$tell->($offer . gone($id, $me, 1));
	$hub->wait_until($there, 0, 'she may end');
	$tell->($again->(1) . $rows, $again->(2, id($alice)));
	is($hub->sql($there), 0, 'it does not come back');
	$tell->($again->(2) . objects(9, 7, 2, full(1010, 1, 'hers', 1)));
	is($hub->sql($there), 2, 'but in a younger epoch');
	$tell->(fresh(8) . homes(1));
	$hub->wait_until($there, 0, 'and goes when she has it no more');

	# of ours: nothing but another epoch may come of it
	$tell->(gone($hub_owner, $me, 1), gone($hub_owner, id($hub), 2**31 - 1));
	is(others($hub), $before, "hub's own owner: nothing");
	$tell->(gone($hub_owner, id($hub), 1));
	is($hub->sql("SELECT local, epoch FROM entanglement.owner WHERE id = '$hub_owner'"), 't|2', 'but a new epoch');
	converge([ $alice, $hub ], ['item'], 'in step');
	$alice->wait_until("SELECT epoch FROM entanglement.owners WHERE name = 'hub'", 2, 'compared');
	$before = others($hub);
};

subtest "keys of others, under an owner of her own" => sub {
	my $offer = offer();
	my $rows = objects(9, 7, 1, full(1, 10, 'stolen', 0), full(101, 1, 'stolen', 0), dead(2, 1), dead(102, 1))
	  . present(7, 9, 2**62, undef, undef) . claim(7, 1, 2**62);

	is_deeply([ tries($hub, batch(1, $offer . $rows)) ], [], 'is taken');
	is(others($hub), $before, 'but nothing is stored');
	is( $hub->sql('SELECT string_agg(key || sqlstate, $$ $$ ORDER BY key) FROM entanglement.parked_rows'),
		'(id)=(1)23505 (id)=(101)23505', 'and it is parked');

	# an earlier death, or an earlier version, is not what is missed
	tries($hub, batch(1, $offer . objects(9, 7, 1, dead(1, 5, 4 | 8), full(101, 1, 'old', 0, 4 | 8))));
	is($hub->sql('SELECT count(*) FROM entanglement.parked'), 2, 'still parked');
	$hub->sql('DELETE FROM item WHERE id = 101');
	$hub->wait_folded;
	tries($hub, batch(1, $offer . objects(9, 7, 1, full(101, 3, 'old', 0, 4 | 8))));
	is($hub->sql('SELECT v FROM item WHERE id = 101'), 'old', 'the older version is stored when there is room');
	is($hub->sql('SELECT count(*) FROM entanglement.parked'), 2, 'but the newer one still asked for');
	tries($hub, batch(1, $offer . objects(9, 7, 1, full(101, 11, 'new', 0, 4 | 8))));
	is($hub->sql('SELECT string_agg(key, $$ $$) FROM entanglement.parked_rows'), '(id)=(1)', 'until it comes');
	tries($hub, batch(1, $offer . objects(9, 7, 1, dead(1, 20), dead(101, 1))));
	is($hub->sql('SELECT count(*) FROM entanglement.parked'), 0, 'and a later death ends it');
	is($hub->sql("SELECT count(*) FROM item WHERE id IN (1, 101) AND entanglement.owner_of(item) LIKE 'o%'"), 0, 'nothing is left of hers');
	$hub->sql("INSERT INTO item VALUES (101, 'hub', 101)");
	$hub->drain('alice');
	$hub->wait_until("SELECT count(*) FROM entanglement.tombstone t JOIN entanglement.owner w ON w.no = t.owner WHERE w.home IN ($homes)", '0', 'all have heard');
	$before = others($hub);
};

subtest 'values and keys that make no sense' => sub {
	my $offer = offer();
	my %bad = (
		'a key of another length' => [ row(serial => 1, key => ['abc'], values => [ 'x', undef ]), '08P01|22P03' ],
		'a key of two columns' => [ row(serial => 1, key => [ pack('N', 5000), 'x' ], values => [ 'x', undef ]), '22P03' ],
		'no key' => [ row(serial => 1, key => [], values => [ 'x', undef ]), '22P03' ],
		'a number of three bytes' => [ row(serial => 1, key => [ pack 'N', 5001 ], values => [ 'x', 'abc' ]), '08P01|22P03' ],
		'text that is no UTF-8' => [ row(serial => 1, key => [ pack 'N', 5002 ], values => [ "\xFF", undef ]), '22021' ],
		'text with a NUL' => [ row(serial => 1, key => [ pack 'N', 5003 ], values => [ "a\0b", undef ]), '22021' ],
		'a delta on nothing' => [ row(op => 1, serial => 9, key => [ pack 'N', 5004 ], behind => 9, set => "\x02", values => ['x']), '55000' ],
		'a key too long to be one' => [ row(serial => 1, key => [ 'x' x 5000 ], values => [ 'x', undef ]), '22P03|54000' ]);

	foreach my $name (sort keys %bad)
	{
		my ($row, $state) = @{ $bad{$name} };

		is_deeply([ tries($hub, batch(1, $offer . objects(9, 7, 2, $row, full(6000 + ++$serial, 1, 'fine', 1)))) ], [], "$name: taken");
		like($hub->sql('SELECT sqlstate FROM entanglement.parked'), qr/^($state)$/, "$name: parked alone");
		is($hub->sql('SELECT count(*) FROM item WHERE id = ' . (6000 + $serial)), 1, "$name: the next row is stored");
		$hub->sql('DELETE FROM entanglement.parked');
	}
	is(others($hub), $before, "nothing of others' was touched");
};

subtest 'many owners and tables, names of all kinds' => sub {
	my $owners = $hub->sql('SELECT count(*) FROM entanglement.owner');

	$hub->cluster_of->append_conf('postgresql.conf', "entanglement.max_owners = " . ($owners + 50));
	$hub->cluster_of->reload;
	$hub->wait_until("SELECT setting::int FROM pg_settings WHERE name = 'entanglement.max_owners'", $owners + 50, 'a limit');
	is_deeply([ tries($hub, batch(1, join '', map { fresh($_, name => qq(o'"\n\\ $_)) } 1 .. 2000)) ], [], 'taken');
	is($hub->sql('SELECT count(*) FROM entanglement.owner'), $owners + 50, 'up to the limit');
	like($hub->peer('mallory')->{last_error}, qr/^53400: too many owners: "o'"/, 'and it is reported');
	is_deeply([ tries($hub, batch(1, join '', map { table(number => $_, name => qq(t'"\n\\ $_), columns => $item[3]) } 1 .. 9000)) ], [], 'tables');
	like((tries($hub, batch(1, join '', map { table(number => $_, name => qq(u $_), columns => $item[3]) } 1 .. 2000)))[0],
		qr/^54000: peer offers too many tables/, 'up to a limit, over several sessions');
	is($hub->sql("SELECT count(*) < 10001 FROM entanglement.peer_table"), 't', 'which holds');
	is(others($hub), $before, "nothing of others' was touched");
};

subtest 'memory is bounded' => sub {
	my $rss = sub { return slurp_file("/proc/$_[0]/status") =~ /^VmHWM:\s+(\d+)/m ? $1 : 0 };
	my $s = mallory($hub, 'push');
	my $pid = $s->query_safe('SELECT pg_backend_pid()');
	my $push = sub {
		return $s->query_safe('SELECT length(entanglement.push(' . literal($_[0]) . '))');
	};

	plan skip_all => 'no /proc' unless -r "/proc/$pid/status";
	$push->(batch(1, offer() . objects(9, 7, 2, full(7000, 100, 'x', 1))));
	my $rows = dead(7000, 1) x 300000;
	# of the batch there are some copies, as hexadecimal and as bytes
	my $limit = $rss->($pid) + 10 * length($rows) / 1024 + 30000;
	$push->(batch(2, objects(9, 7, 2, $rows)));
	cmp_ok($rss->($pid), '<', $limit, '300,000 deaths of what is not there');
	$push->(batch(3, join '', map { present(7, 9, 1, int_key(8000), int_key(8001)) } 1 .. 20000));
	cmp_ok($rss->($pid), '<', $limit, '20,000 ranges');
	$s->quit;

	$s = mallory($hub, 'pull');
	$pid = $s->query_safe('SELECT pg_backend_pid()');
	my $batch = pull($s, 0);
	$limit = $rss->($pid) + 60000;
	pull($s, $batch->{number}, map { arrears($_ % 1000, $_ % 99999) } 1 .. 100000);
	cmp_ok($rss->($pid), '<', $limit, '100,000 arrears in what was never offered');
	$s->quit;
};

subtest 'answers that are none' => sub {
	my ($s, $batch);
	my $try = sub {
		my ($name, $expected, @sections) = @_;

		$s = mallory($hub, 'pull');
		$batch = pull($s, 0);
		my ($owner, $table) = numbers($batch, 'hub', 'secret');
		my $answer = literal(batch($batch->{number} + (shift @sections), map { ref $_ ? $_->($owner, $table) : $_ } @sections));
		my ($out, $failed) = $s->query("\\set VERBOSITY verbose\nCALL entanglement.pull($answer, NULL)");
		like($s->{stderr}, qr/ERROR:  $expected/, $name) if $expected ne '';
		is($s->{stderr} =~ s/background_psql.*\n//gr, '', $name) if $expected eq '';
		$s->{stderr} = '';
		$s->quit;
	};

	$try->('another number', '08P01: answer from peer does not match', 1);
	$try->('a sender\'s section', '08P01: answer from peer has a section of unknown type 5', 0, claim(1, 1, 1));
	$try->('cut off', '08P01: malformed answer', 0, "\x08\x07\x01");
	$try->('a key that is none', '(22P03|08P01): ', 0, sub { again($_[1], $_[0], 'rubbish') });
	$try->('owners and tables that do not exist', '', 0, want(999, 1, 1, 1), want(2**19, 1, 1, 1), arrears(999, 999), table_state(999, 1), again(999, 999, 'x'));
	my $wish = sub {
		my ($table, $filter) = @_;

		return varint($table) . varint(1) . (defined $filter ? varint(1 + length $filter) . $filter : "\0");
	};
	$try->('wishes for tables that do not exist', '', 0, section(0x12, "\1" . $wish->(999) . $wish->(1000, 'true')));
	$try->('two wishes for one table', '08P01: malformed answer', 0, sub { section(0x12, "\1" . $wish->($_[1]) . $wish->($_[1], 'true')) });
	$try->('a filter that is no UTF-8', '22021: invalid byte sequence', 0, sub { section(0x12, "\1" . $wish->($_[1], "\xff")) });
	$try->('a filter that is too long', '08P01: malformed answer', 0, sub { section(0x12, "\1" . $wish->($_[1], 'x' x 8193)) });
	$try->('a filter that is refused', '', 0, sub { section(0x12, "\1" . $wish->($_[1], 'EXISTS (SELECT 1')) });
	$try->('an absurd have', '', 0, sub { want($_[0], 1, 2**31 - 1, 2**62) });
	$try->('nothing wanted', '', 0, sub { want($_[0], 0, 1, 1) });
	is(others($hub), $before, "nothing of others' was touched");
};

subtest 'two sessions at once' => sub {
	my $first = mallory($hub, 'push');
	my $second = mallory($hub, 'push');

	$second->query_safe('SELECT entanglement.push(' . literal(batch(1, offer())) . ')');
	$first->query('SELECT entanglement.push(' . literal(batch(1, offer())) . ')');
	like($first->{stderr}, qr/superseded by a newer one/, 'the older one is over');
	$first->{stderr} = '';
	$second->query_safe('SELECT entanglement.push(' . literal(batch(2)) . ')');
	$_->quit foreach $first, $second;
	pass('the newer one goes on');
};

# ---- and all is well ----

is($hub->sql('SELECT pg_postmaster_start_time()'), $server, 'the server goes on');
unlike($hub->log_since($log), qr/PANIC|TRAP|terminated by signal|server process .* exited/, 'no process died');
$alice->sql("UPDATE item SET v = 'still' WHERE id = 1");
$hub->sql("UPDATE item SET v = 'still' WHERE id = 101");
$_->drain($_ == $hub ? 'alice' : 'hub') foreach $alice, $hub;
is($hub->sql('SELECT v FROM item WHERE id = 1'), 'still', 'alice reaches hub');
is($alice->sql('SELECT v FROM item WHERE id = 101'), 'still', 'and hub alice');

done_testing();
