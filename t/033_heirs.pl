# What is told of rows that change hands, in every order in which it can come:
# mallory plays a node by hand, at which red, blue and green are at home.
#
# Promise: hub ends with the row and the owner it has in the end, whatever came
# first; the row is there as long as it lives; nothing is remembered for longer than
# it is needed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('heirs',
	conf => "entanglement.prune_interval = '100ms'\nentanglement.retry_parked = '300ms'\nentanglement.dead_after = '60s'\n");
my ($hub, $alice) = map { Entanglement::Node->database($cluster, $_) } qw(hub alice);
my $me = '66600000-0000-4000-8000-000000000001';
my %id = map { $_->[0] => "66600000-0000-4000-8000-0000000000$_->[1]" }
  [ red => '0a' ], [ blue => '0b' ], [ green => '0c' ], [ white => '0d' ];
my %number = (red => 1, blue => 2, green => 3, white => 4);

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item') foreach $hub, $alice;
$hub->audit('item');
$hub->sql('GRANT SELECT, INSERT, UPDATE, DELETE ON item TO mallory');
$hub->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");

my $psql = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);
my $batch = 0;

$psql->query_safe(q{SELECT entanglement.hello('push', } . literal(hello($me, 'mallory')) . ')');

# Sends a batch; returns the answer's sections.
sub push_batch
{
	my (@sections) = @_;
	my $out = $psql->query_safe('SELECT entanglement.push(' . literal(batch(++$batch, @sections)) . ')');

	return @{ read_batch(pack 'H*', $out =~ s/^\\x//r)->{sections} };
}

sub offer
{
	my ($name, %o) = @_;

	return owner(number => $number{$name}, id => $id{$name}, home => $me, name => $name, %o);
}

# Rows of an owner: of the last serial given to each.
sub say_of
{
	my ($name, %r) = @_;
	my $key = [ pack 'N', delete $r{id} ];
	my $v = delete $r{v};

	return objects(9, $number{$name}, 1, row(key => $key, values => defined $v ? [$v] : [], %r));
}

sub state_of
{
	my ($id) = @_;

	return $hub->sql(<<"SQL");
SELECT v, entanglement.owner_of(i),
       (SELECT born > 0 FROM entanglement.object WHERE key = '\\x04'::bytea || int4send($id))
  FROM item i WHERE id = $id
SQL
}

sub tombstones
{
	my ($id) = @_;

	return $hub->sql("SELECT string_agg(w.name || ' ' || t.serial, ',' ORDER BY w.name) FROM entanglement.tombstone t JOIN entanglement.owner w ON w.no = t.owner WHERE t.key = '\\x04'::bytea || int4send($id)");
}

# Tombstones that may go have gone.
sub pruned
{
	my ($serial) = @_;

	push_batch(say_of('green', id => 900, op => 0, serial => $serial), claim(3, 1, $serial));
	$hub->wait_until("SELECT count(*) FROM entanglement.tombstone t JOIN entanglement.owner w ON w.no = t.owner WHERE w.name = 'green' AND t.key = '\\x04'::bytea || int4send(900)",
		0, 'what may be forgotten is');
	return;
}

push_batch(table(number => 9, name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]),
	map { offer($_) } qw(red blue green));
push_batch(map { claim($number{$_}, 1, 1) } qw(red blue green));

subtest 'in order' => sub {
	push_batch(say_of('red', id => 1, serial => 2, v => 'of red'), claim(1, 1, 2));
	is(state_of(1), 'of red|red|t', 'red has it');
	push_batch(say_of('red', id => 1, serial => 3, heir => [ $id{blue}, 1, 1 ], v => 'last of red'), claim(1, 1, 3));
	is(state_of(1), 'last of red|blue|f', 'blue has it, who has not said so');
	push_batch(say_of('red', id => 1, serial => 2, v => 'old'));
	is(state_of(1), 'last of red|blue|f', 'what red said before is past');
	push_batch(say_of('blue', id => 1, serial => 2, v => 'of blue'), claim(2, 1, 2));
	is(state_of(1), 'of blue|blue|t', 'he has');
	push_batch(say_of('red', id => 1, serial => 3, heir => [ $id{blue}, 1, 1 ], v => 'last of red'));
	is(state_of(1), 'of blue|blue|t', 'said again it is nothing new');
	is($hub->sql("SELECT count(*) FROM audit_item WHERE op = 'DELETE'"), 0, 'it was there all the time');
	is($hub->sql('SELECT count(*) FROM entanglement.parked'), 0, 'nothing was refused');
};

subtest 'without content' => sub {
	push_batch(say_of('red', id => 2, serial => 4, v => 'of red'), say_of('red', id => 2, op => 0, serial => 5, heir => [ $id{blue}, 1, 2 ]));
	is(state_of(2), 'of red|blue|f', 'who has it keeps what he has');
	push_batch(say_of('red', id => 3, op => 0, serial => 6, heir => [ $id{blue}, 1, 2 ]));
	is(state_of(3), '', 'who has nothing gets nothing');
	push_batch(say_of('blue', id => 2, serial => 3, v => 'of blue'), say_of('blue', id => 3, serial => 4, v => 'of blue'));
	is(state_of($_), 'of blue|blue|t', "but from the new owner: $_") foreach 2, 3;
};

subtest 'his version first' => sub {
	push_batch(say_of('red', id => 4, serial => 7, v => 'of red'));
	my @again = push_batch(say_of('blue', id => 4, serial => 5, v => 'of blue'));

	is(state_of(4), 'of red|red|t', 'as long as red has it');
	is($hub->sql('SELECT sqlstate FROM entanglement.parked'), '23505', 'it waits');
	push_batch(say_of('red', id => 4, serial => 8, heir => [ $id{blue}, 1, 4 ], v => 'last of red'));
	is(state_of(4), 'last of red|blue|f', 'then it is his');
	wait_for('asked again', sub { grep { $_->{type} == 11 } push_batch() });
	push_batch(say_of('blue', id => 4, op => 2 | 4 | 8, serial => 5, v => 'of blue'));
	is(state_of(4), 'of blue|blue|t', 'and comes again');
	is($hub->sql('SELECT count(*) FROM entanglement.parked'), 0, 'nothing waits');
};

subtest 'its end first' => sub {
	push_batch(say_of('red', id => 5, serial => 9, v => 'of red'), claim(1, 1, 9), claim(2, 1, 5));
	push_batch(say_of('blue', id => 5, op => 0, serial => 6, from => [ $id{red}, 1, 10 ]), claim(2, 1, 6));
	pruned(2);
	is(state_of(5), 'of red|red|t', 'red has it, as far as is known');
	is(tombstones(5), 'blue 6', 'its end is remembered until red is heard');
	push_batch(say_of('red', id => 5, serial => 10, heir => [ $id{blue}, 1, 5 ], v => 'last of red'));
	is(state_of(5), '', 'then it has gone');
	push_batch(claim(1, 1, 10));
	pruned(3);
	$hub->wait_until('SELECT count(*) FROM entanglement.tombstone', 0, 'and is forgotten');
};

subtest 'handed on first' => sub {
	push_batch(say_of('red', id => 6, serial => 11, v => 'of red'), claim(1, 1, 11));
	push_batch(say_of('blue', id => 6, op => 0, serial => 7, heir => [ $id{green}, 1, 3 ], from => [ $id{red}, 1, 12 ]), claim(2, 1, 7));
	pruned(4);
	is(state_of(6), 'of red|red|t', 'red has it, as far as is known');
	push_batch(say_of('red', id => 6, serial => 12, heir => [ $id{blue}, 1, 6 ], v => 'last of red'));
	is(state_of(6), 'last of red|green|f', 'then the last one has it');
	push_batch(say_of('green', id => 6, serial => 5, v => 'of green'));
	is(state_of(6), 'of green|green|t', 'who confirms it');
};

subtest 'an owner that is not known yet' => sub {
	push_batch(say_of('red', id => 7, serial => 13, v => 'of red'));
	push_batch(say_of('red', id => 7, serial => 14, heir => [ $id{white}, 1, 0 ], v => 'last of red'));
	is($hub->sql('SELECT sqlstate, message FROM entanglement.parked'),
		'55000|it was handed over to an owner that is not known here', 'it waits');
	is(state_of(7), 'of red|red|t', 'and is red\'s');
	push_batch(say_of('red', id => 8, serial => 15, v => 'of red'),
		say_of('red', id => 8, serial => 16, heir => [ $id{blue}, 2, 0 ], v => 'last of red'));
	is(state_of(8), 'of red|red|t', 'so does one in an epoch not heard of');
	push_batch(offer('white'));
	wait_for('asked again', sub { grep { $_->{type} == 11 } push_batch() });
	push_batch(say_of('red', id => 7, op => 2 | 4 | 8, serial => 14, heir => [ $id{white}, 1, 0 ], v => 'last of red'));
	is(state_of(7), 'last of red|white|f', 'white has it when he is known');
	push_batch(say_of('white', id => 7, serial => 1, v => 'of white'));
	is(state_of(7), 'of white|white|t', 'who confirms it');
	push_batch(say_of('red', id => 8, op => 0, serial => 17));
	is(state_of(8), '', 'and red may still end the other one');
};

subtest 'to an owner who is at home here' => sub {
	link_nodes($alice, $hub);
	my $hubs = $hub->sql('SELECT id FROM entanglement.owners WHERE local');

	push_batch(say_of('red', id => 9, serial => 18, heir => [ $hubs, 1, 0 ], v => 'for hub'));
	$hub->wait_until("SELECT v || entanglement.owner_of(i) FROM item i WHERE id = 9", 'for hubhub', 'it is his at once');
	$hub->wait_until("SELECT born > 0 AND o.serial > 0 FROM entanglement.object o JOIN entanglement.owner w ON w.no = o.owner WHERE w.local AND key = '\\x0400000009'", 't', 'and gets a serial');
	is($hub->sql("UPDATE item SET v = 'by hub' WHERE id = 9; SELECT count(*) FROM entanglement.request; SELECT v FROM item WHERE id = 9"),
		"0\nby hub", 'he writes it');
	$alice->wait_until('SELECT v || entanglement.owner_of(i) FROM item i WHERE id = 9', 'by hubhub', 'others see it');
	push_batch(say_of('red', id => 9, op => 0, serial => 19), say_of('red', id => 9, serial => 20, v => 'red again'));
	is($hub->sql('SELECT v FROM item WHERE id = 9'), 'by hub', 'red has no say any more');
	$hub->sql('DELETE FROM item WHERE id = 9');
	$hub->wait_until('SELECT count(*) FROM entanglement.inherited WHERE key = $$\\x0400000009$$', 0, 'deleted, it leaves nothing');
	push_batch(say_of('red', id => 9, serial => 18, heir => [ $hubs, 1, 0 ], v => 'for hub'));
	is(state_of(9), '', 'nor does it come back with an old hand-over');
};

subtest 'nothing is heard of the new owner' => sub {
	push_batch(say_of('red', id => 10, serial => 21, v => 'of red'),
		say_of('red', id => 10, serial => 22, heir => [ $id{blue}, 1, 7 ], v => 'last of red'));
	is(state_of(10), 'last of red|blue|f', 'unconfirmed');
	my @confirm;

	wait_for('question', sub { @confirm = grep { $_->{type} == 17 } push_batch() });
	# table 9, owner 2, key 10, version 1 7, then who gave it and by which version
	is(unpack('H*', $confirm[0]->{body}), '09' . '02' . '05' . '040000000a' . '01' . '07' . ($id{red} =~ s/-//gr) . '01' . '16',
		'hub asks what has become of it');
	push_batch(say_of('blue', id => 10, op => 0 | 4 | 8, serial => 7));
	is(state_of(10), '', 'it has died since');
	is($hub->sql('SELECT count(*) FROM entanglement.inherited'), 0, 'nothing is noted any more');
};

# What hub says when it is asked the same by judy, another node by hand.
subtest 'who is asked says what it knows' => sub {
	$cluster->safe_psql('postgres', 'CREATE ROLE judy LOGIN');
	$hub->sql('GRANT SELECT ON item TO judy');
	$hub->sql("SELECT entanglement.add_peer('judy', NULL, 'judy')");
	push_batch(say_of('red', id => 20, serial => 23, v => 'of red'),
		say_of('red', id => 20, serial => 24, heir => [ $id{blue}, 1, 7 ], v => 'last of red'));
	push_batch(claim(1, 1, 24), claim(2, 1, 7));

	my $judy = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'judy' ]);
	my $number = 0;
	my $pull = sub {
		my $out = $judy->query_safe('CALL entanglement.pull(' . literal(batch($number, @_)) . ', NULL)');
		my $got = read_batch(pack 'H*', $out =~ s/^\\x//r);

		$number = $got->{number};
		return @{ $got->{sections} };
	};
	$judy->query_safe(q{SELECT entanglement.hello('pull', } . literal(hello('66600000-0000-4000-8000-000000000002', 'judy')) . ')');
	my @offers = $pull->();
	my %offered = map { $_->{name} => $_->{number} } grep { $_->{type} == 2 } @offers;
	my ($t) = map { $_->{number} } grep { $_->{type} == 3 } @offers;
	# all of blue's that there is, so that nothing more comes by itself
	$pull->(want($offered{blue}, 1, 1, 7));
	my $ask = sub {
		my ($id, @version) = @_;

		return confirm($t, $offered{blue}, "\4" . pack('N', $id), @version);
	};
	my @rows;

	wait_for('answers', sub {
		push @rows, map { unpack 'H*', $_->{body} } grep { $_->{type} == 4 } $pull->(@rows ? () : (
			# one that has died and is forgotten
			$ask->(5, 1, 5, [ $id{red}, 1, 10 ]),
			# one that somebody else has by now
			$ask->(6, 1, 6, [ $id{red}, 1, 12 ]),
			# one that is unconfirmed here, too
			$ask->(20, 1, 7, [ $id{red}, 1, 24 ]),
			# one that was given in a version of which nothing has come yet
			$ask->(21, 1, 6, [ $id{red}, 1, 25 ]),
			# ... by somebody unknown
			$ask->(22, 1, 6, [ $id{red} =~ s/0a$/ff/r, 1, 1 ]),
			# ... in a version beyond what the heir has given out
			$ask->(23, 1, 8, [ $id{red}, 1, 10 ]),
			# one that the heir has
			$ask->(1, 1, 1, [ $id{red}, 1, 3 ])));
		join('', @rows) =~ /6f6620626c7565/;
	});
	my $all = join ' ', @rows;

	like($all, qr/03050400000005/, 'what died is not to be had');
	like($all, qr/[13]c..050400000006@{[ $id{green} =~ s{-}{}gr ]}/, 'what somebody else has is his');
	like($all, qr/0e..050400000001/, 'what the heir has is sent');
	unlike($all, qr/04000000(?:14|15|16|17)/, 'of the rest nothing is said');
	is($hub->sql("SELECT count(*) FROM entanglement.tombstone WHERE key IN ('\\x0400000014', '\\x0400000015', '\\x0400000016', '\\x0400000017') AND heir IS NULL"),
		0, 'nor noted');
	$judy->quit;
};

subtest 'its end first, of a row that may not be deleted' => sub {
	my $tell = sub {
		return say_of('red', id => 30, heir => [ $id{blue}, 1, 7 ], v => 'last of red', @_);
	};

	push_batch(say_of('red', id => 30, serial => 25, v => 'of red'), claim(1, 1, 25));
	push_batch(say_of('blue', id => 30, op => 0, serial => 8, from => [ $id{red}, 1, 26 ]), claim(2, 1, 8));
	$hub->sql('ALTER TABLE item ENABLE ROW LEVEL SECURITY');
	push_batch($tell->(serial => 26), claim(1, 1, 26));
	is(state_of(30), 'of red|red|t', 'as long as it may not it is red\'s');
	is($hub->sql('SELECT sqlstate FROM entanglement.parked WHERE key = $$\x040000001e$$'), '42501', 'and waits');
	$hub->sql('ALTER TABLE item DISABLE ROW LEVEL SECURITY');
	wait_for('asked again', sub { grep { $_->{type} == 11 } push_batch() });
	push_batch($tell->(op => 2 | 4 | 8, serial => 26));
	is($hub->sql('SELECT count(*) FROM item WHERE id = 30'), 0, 'then it has gone');
	is($hub->sql('SELECT count(*) FROM entanglement.parked WHERE key = $$\x040000001e$$'), 0, 'nothing waits');
};

$psql->quit;
done_testing();
