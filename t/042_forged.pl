# What mallory may make up about hand-overs, ends and lives: she speaks the
# protocol by hand with hub; alice is an honest peer of hub.
#
# Promise: hub loses no row of alice's, and shows none of mallory's as alice's
# once alice has said otherwise; who has ended stays ended; what she can make hub
# do or remember is little.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('forged', conf => "entanglement.dead_after = '60 s'\n");
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);
my $me = '66600000-0000-4000-8000-000000000001';
my $mine = '66600000-0000-4000-8000-0000000000aa';
my @item = (name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]);
my $max = 2**62;

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
foreach my $node ($alice, $hub)
{
	$node->sql(<<'SQL');
CREATE TABLE item (id int PRIMARY KEY, v text);
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent);
SQL
	$node->sql("SELECT entanglement.synchronize('item'), entanglement.synchronize('child', integrity => true)");
}
$hub->sql('GRANT SELECT, INSERT, UPDATE, DELETE ON item, parent, child TO mallory');
$hub->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
link_nodes($alice, $hub);
$alice->sql("INSERT INTO item VALUES (1, 'alice')");
converge([ $alice, $hub ], ['item'], 'in step');

my %id = map { my $n = $_; $n->name => $n->sql('SELECT id FROM entanglement.owners WHERE local') } $alice, $hub;
my %home = map { my $n = $_; $n->name => $n->sql('SELECT id FROM entanglement.node') } $alice, $hub;

sub session
{
	my ($direction) = @_;
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);

	$s->query_safe("SELECT entanglement.hello('$direction', " . literal(hello($me, 'mallory')) . ')');
	return { psql => $s, number => 0 };
}

sub send_batch
{
	my ($s, @sections) = @_;
	my $out = $s->{psql}->query_safe('SELECT entanglement.push(' . literal(batch(++$s->{number}, @sections)) . ')');

	return @{ read_batch(pack 'H*', $out =~ s/^\\x//r)->{sections} };
}

sub pull
{
	my ($s, @answer) = @_;
	my $out = $s->{psql}->query_safe('CALL entanglement.pull(' . literal(batch($s->{number}, @answer)) . ', NULL)');
	my $b = read_batch(pack 'H*', $out =~ s/^\\x//r);

	$s->{number} = $b->{number};
	return @{ $b->{sections} };
}

sub quit { $_[0]->{psql}->quit; return; }

sub full { return row(serial => $_[1], key => [ pack 'N', $_[0] ], values => [ $_[2] ]); }

# A row that is handed over, with what it holds.
sub handed
{
	my ($id, $serial, $heir, $heir_serial, $v) = @_;

	return row(serial => $serial, key => [ pack 'N', $id ], heir => [ $heir, 1, $heir_serial ], values => [$v]);
}

sub key { return bytes(pack 'N', $_[0]); }

sub mine { return owner(number => 1, id => $mine, home => $me, name => 'mallory', serial => 1000); }

subtest 'a version that the heir never came to keeps nothing of his out' => sub {
	my $s = session('push');

	send_batch($s, table(number => 9, @item), mine());
	send_batch($s, objects(9, 1, 1, handed(50, 1, $id{alice}, $max, 'forged'), handed(51, 2, $id{hub}, $max, 'hub')), claim(1, 1, 2));
	is($hub->sql('SELECT entanglement.owner_of(i), v FROM item i WHERE id = 50'), 'alice|forged', 'it is shown as hers, until she says otherwise');
	$alice->wait_until('SELECT v FROM item WHERE id = 50', 'forged', 'she gets it, since hub may write there');
	$alice->sql("UPDATE item SET v = 'true' WHERE id = 50");
	$hub->wait_until('SELECT v FROM item WHERE id = 50', 'true', 'what she makes of it comes');
	$alice->sql('DELETE FROM item WHERE id = 50');
	$hub->wait_until('SELECT count(*) FROM item WHERE id = 50', '0', 'and its end');
	is($hub->sql("SELECT max(serial) < 1000 FROM entanglement.object"), 't', 'nothing has a serial that nobody gave out');
	$alice->sql("REVOKE INSERT ON item FROM hub");
	send_batch($s, objects(9, 1, 1, handed(52, 3, $id{alice}, $max, 'forged')), claim(1, 1, 3));
	$alice->sql("INSERT INTO item VALUES (52, 'true')");
	$hub->wait_until('SELECT v FROM item WHERE id = 52', 'true', 'one that she does not take, and makes herself');
	$alice->sql("GRANT INSERT ON item TO hub");
	quit($s);
};

subtest 'who asks whether an object has died makes nobody lose it' => sub {
	my $s = session('pull');
	my @sections = pull($s);
	my ($o) = grep { $_->{type} == 2 && $_->{name} eq 'alice' } @sections;
	my %t = map { $_->{name} => $_->{number} } grep { $_->{type} == 3 } @sections;
	my @know = (table_state($t{item}, 1), table_state($t{child}, 1), want($o->{number}, 1, 0, 0));

	# waits at hub for its parent
	$alice->sql("ALTER TABLE parent ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON parent TO hub USING (v <> 'x')");
	$alice->sql("INSERT INTO parent VALUES (7, 'x'); INSERT INTO child VALUES (8, 7)");
	$alice->drain('hub');
	$hub->wait_until("SELECT sqlstate FROM entanglement.parked_rows WHERE relation = 'child'::regclass", '23503', 'a child waits');
	$alice->sql("UPDATE item SET v = v || '!' WHERE id = 1");
	converge([ $alice, $hub ], ['item'], 'more of hers has come');
	my $serial = $hub->sql("SELECT serial FROM entanglement.owners WHERE name = 'alice'");
	# it is not made up by somebody else meanwhile, in a version as new as any of hers
	my $p = session('push');
	send_batch($p, mine(), map { table(number => 10 + $_, name => (qw(parent child))[$_],
		columns => [ [ 'id', 'int4', 3, 1 ], [ (qw(v p))[$_], (qw(text int4))[$_], 1, 0 ] ]) } 0, 1);
	send_batch($p, objects(10, 1, 1, full(70, 10, 'mine')), objects(11, 1, 1, handed(8, 11, $id{alice}, $max, pack 'N', 70)));
	is($hub->sql('SELECT count(*) FROM child'), 0, 'nobody has it in her place');
	is($hub->sql("SELECT string_agg(sqlstate, ',' ORDER BY sqlstate) FROM entanglement.parked_rows WHERE relation = 'child'::regclass"), '23503,23505', 'what was made up waits, too');
	quit($p);
	pull($s, @know);
	pull($s, map { confirm($t{child}, $o->{number}, key(8), 1, $serial, [ $_, 0, 0 ]) } $id{hub}, $id{alice}, $mine);
	pull($s);
	is($hub->sql("SELECT count(*) FROM entanglement.tombstone t JOIN entanglement.relation r ON r.no = t.rel JOIN entanglement.owner o ON o.no = t.owner WHERE r.relid = 'child'::regclass AND o.name = 'alice'"), 0, 'no tombstone of it');
	$alice->sql("UPDATE parent SET v = 'y'");
	$hub->wait_until('SELECT * FROM child', '8|7', 'it comes with its parent');

	# who has not heard that it was handed over does not know
	my @told = pull($s, confirm($t{item}, $o->{number}, key(77), 1, 1, [ $id{hub}, 1, $max ]));
	push @told, pull($s) for 1 .. 3;
	is(scalar(grep { $_->{type} == 4 && index($_->{body}, key(77)) >= 0 } @told), 0, 'what hub cannot know it does not say');

	my $graves = $hub->sql('SELECT count(*) FROM entanglement.tombstone');
	pull($s, map { confirm($t{item}, $o->{number}, key(10000 + $_), 1, $serial, [ $mine, 0, 0 ]) } 1 .. 200);
	cmp_ok($hub->sql('SELECT count(*) FROM entanglement.tombstone'), '<=', $graves, 'of keys that she makes up nothing is remembered');
	quit($s);
};

subtest 'who has ended at a home that is a peer, or is here, stays ended' => sub {
	my $s = session('push');
	my %dead;

	$_->sql("SELECT entanglement.create_owner('dead')") foreach $alice, $hub;
	foreach my $node ($alice, $hub)
	{
		$dead{ $node->name } = $node->sql("SELECT id FROM entanglement.owners WHERE local AND name = 'dead'");
	}
	$hub->wait_until("SELECT count(*) FROM entanglement.owners WHERE name = 'dead'", '2', 'hub knows both');
	$_->sql("SELECT entanglement.drop_owner('dead')") foreach $alice, $hub;
	$_->wait_until("SELECT count(*) FROM entanglement.owners WHERE name = 'dead'", '0', 'no more') foreach $alice, $hub;
	my @answer = send_batch($s, table(number => 9, @item), map {
		owner(number => 20 + ($_ eq 'hub'), id => $dead{$_}, home => $home{$_}, name => 'dead', epoch => 2, serial => 9, distance => 1)
	} qw(alice hub));
	is_deeply([ sort map { substr $_->{body}, 0, 2 } grep { $_->{type} == 8 } @answer ], [ "\x14\0", "\x15\0" ], 'neither is wanted');
	send_batch($s, owner(number => 22, id => '66600000-0000-4000-8000-0000000000bb', home => $home{hub}, name => 'made up', serial => 9, distance => 1));
	is($hub->sql("SELECT count(*) FROM entanglement.owners WHERE name IN ('dead', 'made up')"), 0, 'none lives again, nor does one that was never here');
	quit($s);
};

subtest 'an owner starts anew once for a link, whatever it says' => sub {
	my $epoch = sub { return $hub->sql('SELECT epoch FROM entanglement.owners WHERE local'); };
	my $first = $epoch->();
	my $s = session('push');

	send_batch($s, map { gone($id{hub}, $home{hub}, $_) } $first .. $first + 50);
	cmp_ok($epoch->(), '<=', $first + 51, 'buried again and again');
	my $then = $epoch->();
	send_batch($s, gone($id{hub}, $home{hub}, $then));
	is($epoch->(), $then, 'and again');
	quit($s);
	$s = session('pull');
	my ($o) = grep { $_->{type} == 2 && $_->{name} eq 'hub' } pull($s);
	pull($s, map { want($o->{number}, 1, $then + $_, $max) } 0 .. 20);
	is($epoch->(), $then + 1, 'more than there is, again and again');
	quit($s);
	converge([ $alice, $hub ], ['item'], 'alice has heard');
};

subtest 'who is new is not a node that somebody else is' => sub {
	$cluster->safe_psql('postgres', 'CREATE ROLE judy LOGIN');
	$hub->sql("SELECT entanglement.add_peer('judy', NULL, 'judy')");
	foreach my $direction (qw(push verify))
	{
		my ($rc, $out, $err) = $hub->try("SELECT entanglement.hello('$direction', " . literal(hello($home{alice}, 'judy')) . ')',
			extra_params => [ '-U', 'judy', '-v', 'VERBOSITY=verbose' ]);

		like($err, qr/ERROR:  28000: peer "judy" says that it is a node that another peer is/, "refused: $direction");
	}
	is($hub->sql("SELECT count(*) FROM item WHERE entanglement.owner_of(item) = 'alice'") > 0, 1, 'so she ends no owner of alice by not having it');
};

subtest 'what holds up everybody else has an end' => sub {
	my $refused = sub {
		my ($what, $state, @sections) = @_;
		my $file = $cluster->basedir . '/batch.sql';
		my $err = '';

		open my $fh, '>', $file or die $!;
		print $fh "SELECT entanglement.hello('push', ", literal(hello($me, 'mallory')), ");\nSELECT entanglement.push(", literal(batch(1, @sections)), ");\n";
		close $fh or die $!;
		$cluster->psql('hub', "\\i $file", stderr => \$err, on_error_stop => 0, extra_params => [ '-U', 'mallory', '-v', 'VERBOSITY=verbose' ]);
		return like($err, qr/ERROR:  $state/, $what);
	};

	$refused->('ends', '08P01: malformed batch', map { gone($mine, $me, 1) } 0 .. 1000);
	$refused->('twice all that she has', '08P01: malformed batch', homes(0), homes(0));
	$refused->('offers', '54000: peer offers too many owners', map {
		owner(number => $_, id => sprintf('66600000-0000-4000-8000-%012d', $_), home => $me, name => 'x')
	} 0 .. 100000);
};

done_testing();
