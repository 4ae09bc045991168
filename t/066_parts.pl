# A node between two ways of which one does not show a table, or a column, at all:
# white - (red | blue) - scout. red and blue may see different things at white.
#
# Promise: whatever scout's way to white is, scout has what its way has: what the way
# before showed and this one does not goes, what it did not show comes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('parts', conf => "entanglement.dead_after = '60s'\n");
my %node = map { $_ => Entanglement::Node->database($cluster, $_) } qw(white red blue scout);
my ($white, $red, $blue, $scout) = @node{qw(white red blue scout)};

$_->define(<<'SQL', qw(unit base)) foreach values %node;
CREATE TABLE unit (id int PRIMARY KEY, place text, note text);
CREATE TABLE base (id int PRIMARY KEY, place text);
SQL
$white->sql(<<'SQL');
INSERT INTO unit SELECT i, 'here', 'of old' FROM generate_series(1, 5) i;
INSERT INTO base SELECT i, 'there' FROM generate_series(1, 5) i;
SQL
link_nodes($red, $white);
link_nodes($blue, $white);
link_nodes($scout, $red);
link_nodes($scout, $blue);
# else what one shows the other could have through scout
$_->sql("SELECT entanglement.bind_owner('white', 'white')") foreach $red, $blue;

sub rows
{
	my ($node) = @_;

	return join "\n", map { $node->sql("SELECT t::text FROM $_ t ORDER BY id") } qw(unit base);
}

# scout's way is the one by $way, and no other.
sub go
{
	my ($way) = @_;
	my $other = $way eq 'red' ? 'blue' : 'red';

	$scout->sql("SELECT entanglement.resume_peer('$way'); SELECT entanglement.pause_peer('$other')");
	$scout->wait_until("SELECT peer FROM entanglement.owners WHERE name = 'white'", $way, "goes by $way");
	# what it has by then is complete
	$white->sql('UPDATE base SET place = place WHERE id = 1');
	$_->drain('scout') foreach $white->drain($way) ? $node{$way} : ();
	return;
}

# By either way, to and fro.
sub both_ways
{
	my ($what, $name, %expected) = @_;

	foreach my $way (qw(red blue red))
	{
		go($way);
		my $seen = "$what by $way";

		$scout->wait_until($name, $expected{$way}, $seen);
		my $ok = eval { wait_for($seen, sub { rows($scout) eq rows($node{$way}) }) };
		ok($ok, "$seen: scout has what its way has") or diag rows($scout), "\n-\n", rows($node{$way});
	}
	return;
}

my $units = 'SELECT count(*) FROM unit';

both_ways('all', $units, red => 5, blue => 5);

$white->sql('REVOKE SELECT ON unit FROM blue');
$blue->wait_until($units, 0, 'blue has lost its units');
both_ways('units taken away', $units, red => 5, blue => 0);

$white->sql('GRANT SELECT (id, place) ON unit TO blue');
$blue->wait_until($units, 5, 'blue has them again, in part');
my $notes = q(SELECT string_agg(coalesce(note, '-'), ' ' ORDER BY id) FROM unit);

both_ways('a column hidden', $notes, red => join(' ', ('of old') x 5), blue => '- - - - -');

$white->sql('GRANT SELECT ON unit TO blue');
$blue->wait_until($notes, join(' ', ('of old') x 5), 'blue has all');
both_ways('all again', $notes, red => join(' ', ('of old') x 5), blue => join(' ', ('of old') x 5));

# red's way becomes a whole one, but what it had hidden is long on its way to scout
$white->sql(<<'SQL');
ALTER TABLE unit ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON unit USING (current_user <> 'red' OR note = 'of old');
INSERT INTO unit SELECT i, string_agg(md5(random()::text), ''), 'large'
  FROM generate_series(6, 8) i, generate_series(1, 5000) GROUP BY i;
SQL
$blue->wait_until($units, 8, 'blue has large ones');
go('red');
$scout->wait_until($units, 5, 'scout has not');
$red->sql("SELECT entanglement.alter_peer('scout', bandwidth => 40000)");
$white->sql('ALTER TABLE unit DISABLE ROW LEVEL SECURITY');
foreach my $way ($red, $blue)
{
	$way->wait_until("$units WHERE note = 'large'", 3, 'has large ones');
	$way->wait_until("SELECT partial FROM entanglement.owner WHERE name = 'white'", 'f', 'is shown all');
}
$white->sql("UPDATE base SET place = 'meanwhile' WHERE id = 2");
$scout->wait_until('SELECT place FROM base WHERE id = 2', 'meanwhile', 'what is small goes before');
cmp_ok($scout->sql($units), '<', 8, 'what is large does not');
$scout->sql("SELECT entanglement.resume_peer('blue'); SELECT entanglement.pause_peer('red')");
$scout->wait_until($units, 8, 'it comes by the other way');

# scout turns to red, which has not heard yet of what scout has by blue, and is not to have
my $way = q(SELECT peer FROM entanglement.owners WHERE name = 'white');

$white->sql('ALTER TABLE unit ENABLE ROW LEVEL SECURITY');
$red->wait_until($units, 5, 'red is shown a part again');
$scout->sql("SELECT entanglement.resume_peer('red')");
$scout->wait_connected('red');
$white->drain;
$_->drain('scout') foreach $red, $blue;
# blue claims nothing while it is in arrears
$blue->sql(q(INSERT INTO entanglement.arrears (owner, rel)
	SELECT o.no, r.no FROM entanglement.owner o, entanglement.relation r WHERE o.name = 'white' AND r.relid = 'base'::regclass));
my $holder = $red->session;

$holder->query_safe(q(BEGIN; SELECT FROM entanglement.owner WHERE name = 'white' FOR UPDATE));
$white->sql("INSERT INTO unit VALUES (9, 'there', 'large')");
$scout->wait_until("$units WHERE id = 9", 1, 'it comes by blue');
$red->wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = 'red' AND backend_type ~ 'dialer' AND wait_event_type = 'Lock'", 1,
	'red is told, and waits');
$scout->sql("SELECT entanglement.pause_peer('blue')");
$scout->wait_until($way, 'red', 'turns to red');
my $batches = $scout->sql("SELECT batches_received FROM entanglement.peers WHERE name = 'red'");

$scout->wait_until("SELECT batches_received > $batches + 4 FROM entanglement.peers WHERE name = 'red'", 't', 'and is told what there is');
$holder->query_safe('COMMIT');
$holder->quit;
$red->drain('scout');
$scout->wait_until("$units WHERE id = 9", 0, 'what red is not to have has gone');
$scout->wait_until('SELECT count(*) FROM entanglement.arrears', 0, 'all has been compared');

done_testing();
