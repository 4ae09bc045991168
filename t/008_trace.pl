# Real positions: the principal locations of the world's time zones, from the
# tzdata package, as objects that travel along the list. alice moves those of
# the northern half, bob those of the southern; both dial hub.
#
# Promise: every position any node shows was committed by its owner, later
# ones replace earlier ones only, and at the end all agree with the list.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my ($tab) = grep { -r $_ } map { "/usr/share/zoneinfo/$_" } qw(zone1970.tab zone.tab);

plan skip_all => 'no zone table of tzdata' unless $tab;

# ISO 6709 sign-degrees-minutes-seconds to degrees
sub degrees
{
	my ($sign, $digits, $width) = @_;
	my $d = substr($digits, 0, $width) + substr($digits, $width, 2) / 60;

	$d += substr($digits, $width + 2, 2) / 3600 if length $digits > $width + 2;
	return sprintf '%.6f', $sign eq '-' ? -$d : $d;
}

my @zones;
foreach my $line (split /\n/, slurp_file($tab))
{
	next if $line =~ /^#/;
	my ($codes, $where, $name) = split /\t/, $line;
	my ($s1, $lat, $s2, $lon) = $where =~ /^([+-])(\d+)([+-])(\d+)$/ or next;

	push @zones,
	  [ $name, $codes, degrees($s1, $lat, 2), degrees($s2, $lon, 3) ];
}
cmp_ok(scalar @zones, '>', 250, "read $tab");

my $cluster = Entanglement::Node->cluster('trace');
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);
my @all = ($alice, $hub, $bob);

link_nodes($alice, $hub);
link_nodes($bob, $hub);
foreach my $node (@all)
{
	$node->define(<<'SQL', 'zone');
CREATE TABLE zone (
	name text PRIMARY KEY,
	countries char(2)[] NOT NULL,
	place point NOT NULL,
	step int NOT NULL DEFAULT 0
);
SQL
	# the route, known to all, not synchronized
	$node->sql('CREATE TABLE stop (n int PRIMARY KEY, name text, countries char(2)[], place point)');
	$node->sql('COPY stop FROM STDIN;' . "\n"
		  . join('', map { "$_\t$zones[$_][0]\t{$zones[$_][1]}\t($zones[$_][3],$zones[$_][2])\n" }
			  0 .. $#zones)
		  . "\\.\n");
}
$hub->audit('zone');

my $half = {
	alice => 'place[1] >= 0',
	bob => 'place[1] < 0'
};
foreach my $node ($alice, $bob)
{
	$node->sql('INSERT INTO zone SELECT name, countries, place FROM stop WHERE '
		  . $half->{ $node->name });
}
my %same = (zone => 'name, countries, place::text, step');
converge(\@all, \%same, 'every zone is everywhere');
is($hub->sql('SELECT count(*) FROM zone'), scalar @zones, 'all of them');
is( $hub->sql(
		'SELECT string_agg(DISTINCT entanglement.owner_of(z), $$ $$ ORDER BY entanglement.owner_of(z)) FROM zone z'
	),
	'alice bob',
	'of two owners');

# Each object moves to the next place on the list, and on, 40 times.
my $move = <<'SQL';
DO $$
DECLARE stops int := (SELECT count(*) FROM stop);
BEGIN
	FOR i IN 1..40 LOOP
		UPDATE zone z SET step = z.step + 1, place = t.place
		  FROM stop s, stop t
		 WHERE s.name = z.name AND t.n = (s.n + z.step + 1) % stops
		   AND entanglement.owner_of(z) = current_database()
		   AND (s.n + i) % 4 = 0;
		COMMIT;
	END LOOP;
END $$;
SQL
my @sessions = map { $_->session } $alice, $bob;
$_->{stdin} .= "$move\n\\echo moved\n" foreach @sessions;
foreach my $s (@sessions)
{
	PostgreSQL::Test::Utils::pump_until($s->{run}, $s->{timeout}, \$s->{stdout},
		qr/moved/);
	is($s->{stderr}, '', 'moved without an error');
}
converge(\@all, \%same, 'after 40 moves all nodes agree');
$_->quit foreach @sessions;

is( $hub->sql(<<'SQL'), 0, 'every position ever shown was on the list, at its step');
SELECT count(*)
  FROM audit_zone a, stop s, stop t
 WHERE a.op <> 'DELETE' AND s.name = a.body->>'name'
   AND t.n = (s.n + (a.body->>'step')::int) % (SELECT count(*) FROM stop)
   AND t.place::text <> a.body->>'place'
SQL
# A row read after its next change was committed, but before that change got
# its serial, goes twice: the same version again is not a step back.
is($hub->sql(<<'SQL'), 0, 'no object ever went back');
SELECT count(*) FROM (
	SELECT body, (body->>'step')::int AS step, lag(body) OVER w AS before,
		lag((body->>'step')::int) OVER w AS step_before
	  FROM audit_zone WINDOW w AS (PARTITION BY body->>'name' ORDER BY n)) x
 WHERE step < step_before OR (step = step_before AND body <> before)
SQL
is($hub->sql('SELECT min(step), max(step) FROM zone'), '10|10',
	'everybody made ten moves');

done_testing();
