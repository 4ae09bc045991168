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

# A row that is handed over, with what it holds.
sub handed
{
	my ($id, $serial, $heir, $heir_serial, $v) = @_;

	return chr(2 | 16) . zigzag($serial) . bytes(bytes(pack 'N', $id))
	  . uuid($heir) . varint(1) . varint($heir_serial) . varint(1 + length $v) . $v;
}

sub key { return bytes(pack 'N', $_[0]); }

# table, owner, key, epoch and serial, from and his version
sub confirm
{
	my ($table, $owner, $key, $epoch, $serial, $from, $from_epoch, $from_serial) = @_;

	return section(17, varint($table) . varint($owner) . bytes($key) . varint($epoch) . varint($serial)
		  . uuid($from) . varint($from_epoch) . varint($from_serial));
}

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

done_testing();
