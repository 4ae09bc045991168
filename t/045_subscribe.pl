# What peers want: a hub with everything, and peers with different roles, filters and
# columns over one of its tables at once.
#
# Promise: a peer has just the tables that it has subscribed to, and of them just the
# rows for which its filter is true at the hub, under the role that stands for it there; whatever
# it subscribes with, and whenever it changes its mind. A filter that is
# refused lets nothing through, says why, and holds up nothing else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('subscribe', conf => "entanglement.policy_interval = '1s'\n");
my ($hub, $all, $near, $ships, $names) =
  map { Entanglement::Node->database($cluster, $_) } qw(hub all near ships names);
my @peers = ($all, $near, $ships, $names);
my $table = 'CREATE TABLE thing (id int PRIMARY KEY, kind text, x int, y int, secret text)';
my $other = 'CREATE TABLE other (id int PRIMARY KEY, v text)';

$_->sql("$table; $other") foreach $hub, @peers;
$hub->sql("SELECT entanglement.synchronize('thing'), entanglement.synchronize('other')");
link_nodes($_, $hub) foreach @peers;
$hub->sql(<<'SQL');
REVOKE ALL ON thing FROM PUBLIC, near, ships, names;
GRANT SELECT (id, kind, x, y) ON thing TO near, ships;
GRANT SELECT (id, kind) ON thing TO names;
INSERT INTO thing SELECT i, (ARRAY['ship', 'buoy', 'bird'])[i % 3 + 1], i, -i, 'secret ' || i
  FROM generate_series(1, 30) i;
INSERT INTO other SELECT i, 'other' FROM generate_series(1, 5) i;
SQL

# The rows that the peer should have: those of the hub under a condition.
sub has
{
	my ($peer, $condition, $name) = @_;
	my $ids = "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), 'none') FROM thing";

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $peer->wait_until($ids, $hub->sql("$ids WHERE $condition"), $name);
}

sub state_is
{
	my ($peer, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $peer->wait_until(<<'SQL', $expected, $name);
SELECT coalesce(string_agg(concat_ws(' ', relation, state, sqlstate), ', ' ORDER BY relation::text), 'none')
  FROM entanglement.subscriptions WHERE direction = 'ours'
SQL
}

sub subscribe
{
	my ($peer, $filter, $relation) = @_;

	$filter = defined $filter ? '$f$' . $filter . '$f$' : 'NULL';
	$peer->sql("SELECT entanglement.subscribe('hub', '" . ($relation // 'thing') . "', $filter)");
}

subtest 'from the beginning' => sub {
	my %filters = (near => 'x BETWEEN 5 AND 15 AND y < 0', ships => "kind = 'ship'",
		names => "kind IN ('buoy', 'ship')");

	# a wish is known before anything is sent
	$_->audit('thing') foreach $near, $ships, $names;
	foreach my $peer (@peers)
	{
		my $filter = $filters{$peer->name};
		my $wish = $filter ? "SELECT entanglement.subscribe('hub', 'thing', \$f\$$filter\$f\$);" : '';

		$peer->sql("BEGIN; SELECT entanglement.synchronize('thing'), entanglement.synchronize('other'); $wish COMMIT;");
	}
	has($all, 'true', 'all of it');
	has($near, 'x BETWEEN 5 AND 15', 'near');
	has($ships, "kind = 'ship'", 'ships');
	has($names, "kind IN ('buoy', 'ship')", 'names');
	state_is($_, 'thing in force', $_->name . ' knows it') foreach $near, $ships, $names;
	$_->drain foreach @peers;
	$hub->drain;
	is($near->sql('SELECT count(*) FROM audit_thing'), 11, 'nothing else ever came');
	is($names->sql('SELECT count(*) FROM thing WHERE x IS NOT NULL'), 0, 'no columns that are hidden');
	is($near->sql('SELECT count(*) FROM thing WHERE secret IS NOT NULL'), 0, 'nor there');
	is($all->sql('SELECT count(*) FROM thing WHERE secret IS NULL'), 0, 'who may see them has them');
	is($_->sql('SELECT count(*) FROM other'), 0, 'no other table') foreach $near, $ships, $names;
	is($all->sql('SELECT count(*) FROM other'), 5, 'without subscription every table');
	is($hub->sql(<<'SQL'), "names|thing|kind IN ('buoy', 'ship')|in force\nnear|thing|x BETWEEN 5 AND 15 AND y < 0|in force\nships|thing|kind = 'ship'|in force", 'the hub shows what they want');
SELECT peer, relation, filter, state FROM entanglement.subscriptions WHERE direction = 'theirs' ORDER BY peer
SQL
	is($hub->sql('SELECT count(*) FROM entanglement.holding h JOIN entanglement.peer p ON p.no = h.peer WHERE p.name = $$near$$'), 11,
		'the hub remembers just what it has sent');
};
done_testing();
