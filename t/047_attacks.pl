# Attacks on what a peer may touch: mallory is a role that stands for a peer at
# hub, and speaks the protocol and SQL by hand. alice is an honest peer of hub.
#
# Promise: what mallory's role may not do is not done for her, whatever she
# sends, asks or calls, and from the very next batch on when a right is taken
# away; what she sends again, or in excess, changes nothing more; hub and its
# honest links go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('attacks');
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);
my $me = '66600000-0000-4000-8000-000000000001';
my $last = '9223372036854775807';

link_nodes($alice, $hub);
foreach my $node ($alice, $hub)
{
	$node->define(<<'SQL', qw(beat item closed halfway team));
CREATE TABLE beat (id int PRIMARY KEY, n int NOT NULL);
CREATE TABLE item (id int PRIMARY KEY, v text, w text);
CREATE TABLE closed (id int PRIMARY KEY, v text, w text);
CREATE TABLE halfway (id int PRIMARY KEY, v text, w text);
CREATE TABLE team (id int PRIMARY KEY, v text, w text);
SQL
	$node->wait_until('SELECT count(*) FROM entanglement.owners', 2, 'owners known');
}
$hub->sql(<<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE plain LOGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON item, team TO mallory;
GRANT SELECT, DELETE, INSERT (id, v), UPDATE (v) ON halfway TO mallory;
ALTER TABLE team ENABLE ROW LEVEL SECURITY;
CREATE POLICY hers ON team TO mallory USING (v = 'red') WITH CHECK (v = 'red');
CREATE POLICY others ON team TO alice USING (true);
SELECT entanglement.add_peer('mallory', NULL, 'mallory');
INSERT INTO beat VALUES (1, 0);
INSERT INTO item VALUES (101, 'hub', 'hub');
INSERT INTO closed VALUES (101, 'hub', 'hub');
INSERT INTO halfway VALUES (101, 'hub', 'hub');
INSERT INTO team VALUES (101, 'blue', 'hub'), (102, 'red', 'hub');
SQL
$alice->sql("INSERT INTO beat VALUES (2, 0); INSERT INTO item VALUES (1, 'alice', 'alice'); INSERT INTO closed VALUES (1, 'alice', 'alice'); INSERT INTO team VALUES (1, 'blue', 'alice')");
converge([ $alice, $hub ], [qw(beat item closed halfway team)], 'in step');

# ---- mallory ----

my @columns = ([ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ], [ 'w', 'text', 1, 0 ]);
my %number = (item => 1, closed => 2, halfway => 3, team => 4);
my $tables = join '', map { table(number => $number{$_}, name => $_, columns => \@columns) } sort keys %number;
my $mine = '66600000-0000-4000-8000-0000000000aa';
my $offer = owner(number => 7, id => $mine, home => $me, name => 'mallory') . $tables;
my $serial = 0;

sub session
{
	my ($direction, $role) = @_;
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', $role // 'mallory', '-v', 'VERBOSITY=verbose' ]);

	$s->query_safe("SELECT entanglement.hello('$direction', " . literal(hello($me, 'mallory')) . ')') if $direction;
	return { psql => $s, number => 0 };
}
sub quit { $_[0]->{psql}->quit; return; }

# The error of a batch, '' if it was taken.
sub push_batch
{
	my ($s, @sections) = @_;

	$s->{psql}->query('SELECT entanglement.push(' . literal(batch(++$s->{number}, @sections)) . ') IS NULL');
	my ($error) = $s->{psql}->{stderr} =~ /ERROR:  (.*)/;

	$s->{psql}->{stderr} = '';
	return $error // '';
}

# each in a section of its own: serials are differences within one
sub rows { my ($table, @rows) = @_; return join '', map { objects($number{$table}, 7, 1, $_) } @rows; }
sub full { my ($id, @values) = @_; return row(op => 2, serial => ++$serial, key => [ pack 'N', $id ], values => \@values); }
sub delta { my ($id, $set, @values) = @_; ++$serial; return row(op => 1, serial => $serial, behind => $serial, key => [ pack 'N', $id ], set => $set, values => \@values); }
sub dead { my ($id) = @_; return row(op => 0, serial => ++$serial, key => [ pack 'N', $id ]); }

# ---- what must not change ----

sub others
{
	return $hub->sql(join(' UNION ALL ', map { "SELECT '$_ ' || concat_ws(' ', t, entanglement.owner_of(t)) FROM $_ t WHERE entanglement.owner_of(t) IS DISTINCT FROM 'mallory'" } sort keys %number) . ' ORDER BY 1');
}
sub hers { my ($table) = @_; return $hub->sql("SELECT string_agg(concat_ws(' ', id, v, w), ',' ORDER BY id) FROM $table t WHERE entanglement.owner_of(t) = 'mallory'"); }
sub parked { return $hub->sql("SELECT string_agg(relation || key || sqlstate, ' ' ORDER BY relation::text, key) FROM entanglement.parked_rows"); }

my $others = others();
my $server = $hub->sql('SELECT pg_postmaster_start_time()');
my $log = $hub->log_mark;

sub unharmed
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(others(), $others, "$what: nobody else's row has changed");
	is($hub->sql('SELECT pg_postmaster_start_time()'), $server, "$what: the server goes on");
	$alice->sql('UPDATE beat SET n = n + 1 WHERE id = 2');
	$hub->sql('UPDATE beat SET n = n + 1 WHERE id = 1');
	converge([ $alice, $hub ], ['beat'], "$what: so does the honest link");
	return;
}

sub forget_parked { $hub->sql('DELETE FROM entanglement.parked'); return; }

subtest 'rows that she may not write' => sub {
	my $s = session('push');
	my @cases = (
		[ 'a table that is not hers: a row', rows('closed', full(2001, 'x', 'x')), 'closed(id)=(2001)42501' ],
		[ 'an end', rows('closed', dead(1)), '' ],
		[ 'a column that is not hers', rows('halfway', full(2001, 'x', 'x')), 'halfway(id)=(2001)42501' ],
		[ 'a row outside her policy', rows('team', full(2001, 'blue', 'x')), 'team(id)=(2001)42501' ],
		[ 'a key that somebody has whom she does not see', rows('team', full(101, 'red', 'x')), 'team(id)=(101)23505' ],
		[ 'ends of others', rows('team', dead(101), dead(102), dead(1)) . rows('item', dead(101), dead(1)), '' ]);

	is(push_batch($s, $offer), '', 'an offer');
	foreach (@cases)
	{
		my ($what, $sections, $expected) = @$_;

		is(push_batch($s, $sections), '', "$what: the link goes on");
		is(parked(), $expected, "$what: not stored");
		forget_parked();
	}
	is(push_batch($s, rows('item', full(2001, 'x', 'x')), rows('team', full(2002, 'red', 'x'), full(2003, 'red', 'x'))), '', 'what she may');
	is(hers('item') . hers('team'), '2001 x x2002 red x,2003 red x', 'is stored');
	is(push_batch($s, rows('team', full(2002, 'blue', 'y'))), '', 'out of her policy: the link goes on');
	is(hers('team'), '2002 red x,2003 red x', 'not stored');
	$hub->sql("SET session_replication_role = replica; UPDATE team SET v = 'blue' WHERE id = 2003");
	is(push_batch($s, rows('team', full(2003, 'red', 'y'))), '', 'a row that went out of her sight: the link goes on');
	is(hers('team'), '2002 red x,2003 blue x', 'it stays as it is');
	like(parked(), qr/team\(id\)=\(2003\)(42501|23505)$/, 'it is parked');
	is(push_batch($s, rows('team', dead(2003))), '', 'its end: the link goes on');
	is(hers('team'), '2002 red x,2003 blue x', 'it stays, and is hers');
	is(parked(), 'team(id)=(2002)42501 team(id)=(2003)42501', 'both are parked');
	forget_parked();
	quit($s);
	unharmed('rows');
};

subtest 'requests for what she may not do' => sub {
	my $s = session('push');
	my $owner = $hub->sql('SELECT id FROM entanglement.owners WHERE local');
	my ($create, $forward, $delete) = (0, 1, 2);
	my $n = 0;
	my @cases = (
		[ '42501', $forward, 'closed', 1, [ id => 101 ], [ v => 'x' ] ],
		[ '42501', $delete, 'closed', 1, [ id => 101 ] ],
		[ '42501', $create, 'closed', 0, [ v => 'x' ] ],
		[ '42501', $forward, 'halfway', 1, [ id => 101 ], [ w => 'x' ] ],
		[ '42501', $forward, 'halfway', 1, [ id => 101 ], [ v => 'x' ], [ w => 'x' ] ],
		[ '42501', $create, 'halfway', 0, [ w => 'x' ] ],
		[ 'P0002', $forward, 'team', 1, [ id => 101 ], [ w => 'x' ] ],
		[ 'P0002', $delete, 'team', 1, [ id => 101 ] ],
		# another node's, which she does not see either
		[ 'P0002', $forward, 'team', 1, [ id => 1 ], [ w => 'x' ] ],
		[ 'P0002', $delete, 'team', 1, [ id => 1 ] ],
		[ '55000', $delete, 'item', 1, [ id => 1 ] ],
		[ '42501', $forward, 'team', 1, [ id => 102 ], [ v => 'blue' ] ],
		[ '42501', $create, 'team', 0, [ v => 'blue' ] ],
		[ '42P01', $forward, 'pg_class', 1, [ oid => 1 ], [ relname => 'x' ] ],
		[ '42P01', $delete, 'violation', 1, [ peer => 1 ] ],
		[ '42P01', $forward, 'item; DROP TABLE item', 1, [ id => 101 ], [ v => 'x' ] ],
		[ '42703', $forward, 'item', 1, [ id => 101 ], [ 'v = v; DROP TABLE item; --' => 'x' ] ]);

	is(push_batch($s, map { request(number => ++$n, owner => $owner, op => $_->[1], table => $_->[2], key => $_->[3], fields => [ @$_[ 4 .. $#$_ ] ]) } @cases), '', 'taken');
	is($hub->sql("SELECT string_agg(sqlstate, ' ' ORDER BY no) FROM entanglement.request"), join(' ', map { $_->[0] } @cases), 'each is refused for its reason');
	quit($s);
	unharmed('requests');
};

subtest 'the last serial there is' => sub {
	my $s = session('push');
	my $end = row(op => 2, serial => $last, key => [ pack 'N', 2100 ], values => [ 'last', 'x' ]);

	push_batch($s, $offer);
	is(push_batch($s, rows('item', $end), claim(7, 1, $last)), '', 'is taken');
	$hub->wait_until('SELECT v FROM item WHERE id = 2100', 'last', 'as any other');
	is(push_batch($s, rows('item', full(2100, 'older', 'x'), full(2101, 'lower', 'x')), claim(7, 1, 1)), '', 'what is older');
	is($hub->sql('SELECT v FROM item WHERE id = 2100'), 'last', 'does not replace it');
	is($hub->sql("SELECT have FROM entanglement.owners WHERE name = 'mallory'"), $last, 'nor the have');
	is(push_batch($s, objects(1, 7, 1, row(op => 2, serial => $last, key => [ pack 'N', 2102 ], values => [ 'x', 'x' ]), row(op => 2, serial => 1, key => [ pack 'N', 2103 ], values => [ 'x', 'x' ]))),
		'08P01: malformed batch from peer', 'beyond it there is none');
	quit($s);
	$alice->wait_until('SELECT v FROM item WHERE id = 2100', 'last', 'it is passed on');
	unharmed('the last serial');
};

subtest 'the same batch a thousand times' => sub {
	my $again = batch(1, owner(number => 7, id => '66600000-0000-4000-8000-0000000000ab', home => $me, name => 'mallory')
		  . $tables . rows('item', full(2200, 'again', 'x'), full(2201, 'again', 'x'), dead(2202)) . claim(7, 1, 300));
	my $call = q{SELECT entanglement.hello('push', } . literal(hello($me, 'mallory')) . ") IS NULL;\nSELECT entanglement.push(" . literal($again) . ") IS NULL;\n";
	my $counts = q(SELECT (SELECT count(*) FROM entanglement.object), (SELECT count(*) < 10 FROM entanglement.tombstone), (SELECT count(*) FROM entanglement.owner), (SELECT count(*) FROM entanglement.owed), (SELECT count(*) FROM item));
	my $replay = sub {
		my ($n) = @_;
		my ($out, $err) = ('', '');

		$cluster->psql('hub', $call x $n, stdout => \$out, stderr => \$err, extra_params => [ '-U', 'mallory' ]);
		return $err;
	};

	is($replay->(1), '', 'once');
	$hub->wait_until('SELECT count(*) FROM item WHERE id IN (2200, 2201)', 2, 'stored');
	$hub->drain('alice');
	my $before = $hub->sql($counts);
	is($replay->(1000), '', 'and over and over');
	is($hub->sql($counts), $before, 'no more than once');
	my $s = session('push');
	push_batch($s, $offer);
	$s->{number} = 0;
	like(push_batch($s, $offer), qr/^08P01: batch from peer is out of order/, 'in one session: an error');
	quit($s);
	unharmed('again');
};

subtest 'too much' => sub {
	my $s = session('');
	my $head = varint(9) . bytes('public') . bytes('wide') . varint(1) . varint(1_000_000);
	my $column = bytes('c') . bytes('pg_catalog') . bytes('int4') . chr(1) . varint(0);

	$head = batch(1, chr(3) . varint(length($head) + 1_000_000 * length $column) . $head);
	# made before she says hello: who is silent for long is not waited for
	$s->{psql}->query_safe('CREATE TEMPORARY TABLE big AS SELECT ' . literal($head) . "::bytea || decode(repeat('" . unpack('H*', $column) . "', 1000000), 'hex') AS batch");
	$s->{psql}->query_safe(q{SELECT entanglement.hello('push', } . literal(hello($me, 'mallory')) . ')');
	$s->{psql}->query('SELECT entanglement.push((SELECT batch FROM big))');
	like($s->{psql}->{stderr}, qr/ERROR:  08P01: malformed batch from peer/, 'a table of a million columns');
	$s->{psql}->{stderr} = '';
	quit($s);
	my @sessions = map { session('push') } 1 .. 15;
	my @errors = map { push_batch($_, $offer) } @sessions;
	is(scalar(grep { /superseded by a newer one/ } @errors), 14, 'many sessions: the last one goes on');
	is($errors[-1], '', 'and is heard');
	my ($out, $err) = ('', '');
	$cluster->psql('hub', q{SELECT entanglement.hello('push', } . literal(hello($me, 'mallory')) . ") IS NULL;\n"
		  . join('', map { 'SELECT entanglement.push(' . literal(batch($_)) . ") IS NULL;\n" } 1 .. 5000),
		stdout => \$out, stderr => \$err, extra_params => [ '-U', 'mallory' ]);
	is($err, '', 'many batches of nothing');
	quit($_) foreach @sessions;
	unharmed('too much');
};

subtest 'names that are SQL' => sub {
	my @names = ("x'; DROP TABLE item; --", 'x"; DROP TABLE item; --', '$$; DROP TABLE item; $$', '\\x27; DROP TABLE item', '%s%n%1$s');
	my $n = 200;

	foreach my $name (@names)
	{
		my $s = session('');

		$s->{psql}->query_safe("SELECT entanglement.hello('push', " . literal(hello($me, $name)) . ')');
		$n++;
		is(push_batch($s, owner(number => 7, id => sprintf('66600000-0000-4000-8000-%012d', $n), home => $me, name => $name),
				$tables, table(number => 9, name => $name, columns => [ @columns, [ $name, 'text', 1, 0 ] ]),
				table(number => 10, schema => $name, name => 'item', columns => \@columns),
				table(number => 1, name => 'item', columns => [ @columns, [ $name, 'text', 1, 0 ], [ 'y', $name, 1, 0 ] ]),
				objects(1, 7, 1, row(op => 2, serial => 1, key => [ pack 'N', $n ], values => [ $name, $name, $name, 'x' ]))), '', "$name: taken");
		is($hub->sql("SELECT v FROM item WHERE id = $n"), $name, 'as what it is');
		is($hub->sql("SELECT count(*) FROM entanglement.owners WHERE name = \$q\$$name\$q\$"), 1, 'so is the owner');
		quit($s);
	}
	is($hub->sql("SELECT count(*) FROM entanglement.tables"), 5, 'no table is more, or less');
	like($hub->peer('mallory')->{waiting_for}, qr/DROP TABLE item/, 'what is unknown is shown');
	$hub->sql("SET session_replication_role = replica; DELETE FROM item WHERE id BETWEEN 200 AND 300");
	unharmed('names');
};

subtest 'rights that come and go between two batches' => sub {
	my $s = session('push');
	my $id = 3000;
	my $stored = sub {
		my ($what, $expected, @sections) = @_;

		is(push_batch($s, @sections), '', "$what: taken");
		is(parked(), $expected, "$what: " . ($expected eq '' ? 'stored' : 'not stored'));
		forget_parked();
		return;
	};
	my @ways = (
		[ 'INSERT', 'REVOKE INSERT ON item FROM mallory', 'GRANT INSERT ON item TO mallory', 'item', sub { full($_[0], 'x', 'x') } ],
		[ 'INSERT of a column', 'REVOKE INSERT ON item FROM mallory; GRANT INSERT (id, v) ON item TO mallory', 'GRANT INSERT ON item TO mallory', 'item', sub { full($_[0], 'x', 'x') } ],
		[ 'USAGE', 'REVOKE USAGE ON SCHEMA public FROM PUBLIC', 'GRANT USAGE ON SCHEMA public TO PUBLIC', 'item', sub { full($_[0], 'x', 'x') } ],
		[ 'a policy', 'ALTER POLICY hers ON team WITH CHECK (false)', "ALTER POLICY hers ON team WITH CHECK (v = 'red')", 'team', sub { full($_[0], 'red', 'x') } ],
		[ 'row-level security', "ALTER TABLE item ENABLE ROW LEVEL SECURITY", 'ALTER TABLE item DISABLE ROW LEVEL SECURITY', 'item', sub { full($_[0], 'x', 'x') } ],
		[ 'membership', 'REVOKE writers FROM mallory', 'GRANT writers TO mallory', 'closed', sub { full($_[0], 'x', 'x') } ]);

	$hub->sql('CREATE ROLE writers; GRANT SELECT, INSERT, UPDATE, DELETE ON closed TO writers; GRANT writers TO mallory');
	$serial = 10_000;
	push_batch($s, owner(number => 7, id => '66600000-0000-4000-8000-0000000000ac', home => $me, name => 'mallory'), $tables);
	foreach (@ways)
	{
		my ($what, $take, $give, $table, $row) = @$_;

		$stored->($what, '', rows($table, $row->(++$id)));
		$hub->sql($take);
		++$id;
		$stored->("$what taken away", "$table(id)=($id)42501", rows($table, $row->($id)));
		$hub->sql($give);
		$stored->("$what given back", '', rows($table, $row->(++$id)));
	}
	$stored->('UPDATE', '', rows('item', full(3001, 'y', 'y')));
	$hub->sql('REVOKE UPDATE ON item FROM mallory; GRANT UPDATE (v) ON item TO mallory');
	$stored->('of one column', 'item(id)=(3001)42501', rows('item', full(3001, 'z', 'z')));
	$hub->sql('GRANT UPDATE ON item TO mallory; REVOKE DELETE ON item FROM mallory');
	$stored->('DELETE taken away', 'item(id)=(3001)42501', rows('item', dead(3001)));
	$hub->sql('GRANT DELETE ON item TO mallory');
	$stored->('DELETE given back', '', rows('item', dead(3001)));
	quit($s);
	$hub->sql('DROP OWNED BY writers; DROP ROLE writers');
	unharmed('rights');
};

subtest 'what has become of rows that she does not see' => sub {
	my $s = session('pull');
	my $pull = sub {
		my $out = $s->{psql}->query_safe('CALL entanglement.pull(' . literal(batch($s->{number}, @_)) . ', NULL)');
		my $b = read_batch(pack 'H*', $out =~ s/^\\x//r);

		$s->{number} = $b->{number};
		return @{ $b->{sections} };
	};
	my @offers = $pull->();
	my ($team) = map { $_->{number} } grep { $_->{type} == 3 && $_->{name} eq 'team' } @offers;
	my %number = map { $_->{name} => $_->{number} } grep { $_->{type} == 2 } @offers;
	my %id = map { my $name = $_; $name => $hub->sql("SELECT id FROM entanglement.owners WHERE name = '$name'") } qw(alice hub);
	# alice's, hub's, and two that are not there
	my @keys = (1, 101, 8001, 8002);
	# of which of them something is told
	my $told = sub {
		my ($owner, $from, $serial) = @_;
		my @got = $pull->(map { confirm($team, $number{$owner}, bytes(pack 'N', $_), 1, 1, [ $id{$from}, 1, $serial ]) } @keys);

		# what was asked before is told before this
		$hub->sql("UPDATE team SET w = 'asked $owner $from $serial' WHERE id = 102");
		wait_for('the answer', sub {
			push @got, $pull->();
			return (grep { $_->{body} =~ /asked $owner $from $serial/ } @got) && $hub->peer('mallory')->{queued} == 0;
		});
		return join ' ', grep { my $key = bytes(pack 'N', $_); grep { $_->{type} == 4 && index($_->{body}, $key) >= 0 } @got } @keys;
	};

	$pull->(map { want($number{$_}, 1, 0, 0) } qw(alice hub));
	foreach ([qw(alice hub)], [qw(hub alice)])
	{
		my ($owner, $from) = @$_;

		is($told->($owner, $from, 0), "@keys", "$owner had it from $from: what is hidden is answered like what is not there");
		is($told->($owner, $from, 2**40), '', '... also when it cannot be known yet');
	}
	$hub->sql("UPDATE team SET w = 'hub' WHERE id = 102");
	quit($s);
	unharmed('questions');
};

subtest 'rights that come and go between two pulls' => sub {
	my $s = session('pull');
	my $owner = $hub->sql('SELECT no FROM entanglement.owner WHERE local');
	my $pull = sub {
		my $out = $s->{psql}->query_safe('CALL entanglement.pull(' . literal(batch($s->{number}, @_)) . ', NULL)');
		my $b = read_batch(pack 'H*', $out =~ s/^\\x//r);

		$s->{number} = $b->{number};
		return join '', map { $_->{body} } @{ $b->{sections} };
	};
	my @ways = (
		[ 'SELECT', 'REVOKE SELECT ON item FROM mallory', 'GRANT SELECT ON item TO mallory' ],
		[ 'SELECT of a column', 'REVOKE SELECT ON item FROM mallory; GRANT SELECT (id, w) ON item TO mallory', 'REVOKE SELECT (id, w) ON item FROM mallory; GRANT SELECT ON item TO mallory' ],
		[ 'row-level security', 'ALTER TABLE item ENABLE ROW LEVEL SECURITY', 'ALTER TABLE item DISABLE ROW LEVEL SECURITY' ]);
	my $comes = sub {
		my ($text) = @_;
		my $got = '';

		return wait_for($text, sub { $got .= $pull->(); return $got =~ /$text/ ? $got : '' });
	};

	$pull->();
	$pull->(want($owner, 1, 0, 0));
	foreach my $n (0 .. $#ways)
	{
		my ($what, $take, $give) = @{ $ways[$n] };

		$hub->sql("UPDATE item SET v = 'open $n' WHERE id = 101");
		ok($comes->("open $n"), "$what: seen");
		$hub->sql($take);
		$hub->sql("UPDATE item SET v = 'secret $n' WHERE id = 101; UPDATE team SET w = 'after $n' WHERE id = 102");
		unlike($comes->("after $n"), qr/secret $n/, "$what taken away: not seen");
		$hub->sql($give);
		$hub->sql("UPDATE item SET v = 'again $n' WHERE id = 101");
		unlike($comes->("again $n"), qr/secret $n/, "$what given back: seen, as it is now");
	}
	quit($s);
	$hub->sql("UPDATE item SET v = 'hub' WHERE id = 101; UPDATE team SET w = 'hub' WHERE id = 102");
	unharmed('rights to see');
};

# What each function says to a peer's role and to an ordinary one, called for
# what is not theirs. Where no error is expected nothing comes of it but what
# the caller put in.
my $request = $hub->sql("SELECT id FROM entanglement.request LIMIT 1");
my $relation = $hub->sql("SELECT no FROM entanglement.relation WHERE relid = 'closed'::regclass");
my $place = $hub->sql('SELECT entanglement.place()');
my %calls = (
	add_hook => [ q('should_send', 'pg_catalog.now()'), '42501', '42501' ],
	add_peer => [ q('x', role => 'mallory'), '42501', '42501' ],
	adopt => [ q('alice', gen_random_uuid()), '42501', '42501' ],
	alter_peer => [ q('alice', role => 'mallory'), '42501', '42501' ],
	become => [ q('new'), '42501', '42501' ],
	bind_owner => [ q('alice', 'mallory'), '42501', '42501' ],
	cancel_request => [ "'$request'", '42704', '42704' ],
	capture_trigger => [ '', '42501', '42501' ],
	change_trigger => [ '', '42501', '42501' ],
	check_filter => [ q('id > 0', 'closed', 'alice'), '42501', '42501' ],
	create_owner => [ q('x'), '42501', '42501' ],
	set_capture => [ q('closed', 'trigger'), '42501', '42501' ],
	desynchronize => [ q('closed'), '42501', '42501' ],
	digest => [ q('\xE7010000'), '55000', '42501' ],
	drain => [ q('alice', '0 s'), '42501', '42501' ],
	drop_owner => [ q('alice'), '42501', '42501' ],
	drop_peer => [ q('alice'), '42501', '42501' ],
	explain_listen => [ q('alice', 'alice', 'closed', 'delete', '{"id": 101}'), '42501', '42501' ],
	explain_send => [ q(ROW(101, 'hub', 'hub')::closed, 'alice'), '42501', '42501' ],
	foreign_keys_changed => [ '', '42501', '42501' ],
	hello => [ q('push', '\xE7010000'), '08P01', '42501' ],
	hooks_dropped => [ '', '42501', '42501' ],
	is_preloaded => [ '', '42501', '42501' ],
	log_capture_error => [ '', '42501', '42501' ],
	key_text => [ "$relation, '\\x0400000065'", '42501', '42501' ],
	key_values => [ "$relation, '\\x0400000065'", '42501', '42501' ],
	last_request => [ '', 'done: ', 'done: ' ],
	copies => [ '', '42501', '42501' ],
	link_states => [ '', '42501', '42501' ],
	load_trigger => [ '', '42501', '42501' ],
	may_see => [ q('alice'), '42501', '42501' ],
	names_changed => [ '', '42501', '42501' ],
	owner_of => [ q(ROW(101, 'hub', 'hub')::closed), '42501', '42501' ],
	partitions_changed => [ '', '42501', '42501' ],
	pause_peer => [ q('alice'), '42501', '42501' ],
	place => [ '', ("done: $place") x 2 ],
	pull => [ q('\xE7010000', NULL), '55000', '42501' ],
	push => [ q('\xE7010001'), '55000', '42501' ],
	refresh => [ q('alice'), '42501', '42501' ],
	remove_hook => [ '1', '42501', '42501' ],
	request_key => [ "$relation, 'closed', '\\x0400000065'", ('done: {"id": 101}') x 2 ],
	request_trigger => [ '', '42501', '42501' ],
	resume_peer => [ q('alice'), '42501', '42501' ],
	resync => [ q('alice'), '42501', '42501' ],
	rights_changed => [ '', '42501', '42501' ],
	row_json => [ q('closed', '{id}', '{101}'), ('done: {"id": 101}') x 2 ],
	set_node_name => [ q('x'), '42501', '42501' ],
	set_every_state => [ q('closed', true), '42501', '42501' ],
	start_worker => [ '', '42501', '42501' ],
	stream => [ q('push'), '55000', '42501' ],
	subscribe => [ q('alice', 'closed'), '42501', '42501' ],
	synchronize => [ q('closed'), '42501', '42501' ],
	table_dropped => [ '', '42501', '42501' ],
	topology => [ '', '42501', '42501' ],
	topology_dot => [ '', '42501', '42501' ],
	transfer => [ q(ROW(101, 'hub', 'hub')::closed, 'alice'), '42501', '42501' ],
	truncate_trigger => [ '', '42501', '42501' ],
	unsubscribe => [ q('alice', 'closed'), '42501', '42501' ],
	verify => [ q('alice'), '42501', '42501' ],
	wait_for => [ "'$request', '0 s'", '42704', '42704' ]);

subtest 'every function, for what is not hers' => sub {
	my @all = split /\n/, $hub->sql("SELECT proname FROM pg_proc WHERE pronamespace = 'entanglement'::regnamespace");

	is_deeply([ sort keys %calls ], [ sort @all ], 'each has a case');
	foreach my $name (sort keys %calls)
	{
		my ($arguments, %says);

		($arguments, @says{qw(mallory plain)}) = @{ $calls{$name} };
		foreach my $role (sort keys %says)
		{
			my ($rc, $out, $err) = $hub->try(($name =~ /^(pull|stream)$/ ? 'CALL' : 'SELECT') . " entanglement.$name($arguments)",
				extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
			my ($state) = $err =~ /ERROR:  (\w{5}):/;

			is($state // "done: $out", $says{$role}, "$name as $role");
		}
	}
	unharmed('functions');
};

unlike($hub->log_since($log), qr/PANIC|TRAP|terminated by signal|server process .* exited/, 'no process died');

done_testing();
