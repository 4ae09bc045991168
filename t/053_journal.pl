# Tables of which no committed state is left out: alice and carol hold them,
# hub passes on, bob receives.
#
# Promise: of a table with every_state a peer gets every state that its owner
# committed, in order of commit for each object, over a middle node, cuts and
# savepoints, beside tables that coalesce; beyond entanglement.journal_limit the
# oldest are given up, which is told, and the newest arrives.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('journal');
my ($alice, $hub, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub bob);

foreach my $node ($alice, $hub, $bob)
{
	$node->sql(<<'SQL');
CREATE TABLE event (id int PRIMARY KEY, n int, body text);
CREATE TABLE state (id int PRIMARY KEY, n int);
SELECT entanglement.synchronize('event', every_state => true);
SELECT entanglement.synchronize('state');
SQL
}
link_nodes($alice, $hub);
link_nodes($hub, $bob);
$bob->audit('event');

sub drain_all
{
	$alice->drain('hub');
	$hub->drain('bob');
	return;
}

# What bob was shown of a row, state by state, since it last looked.
my $looked = 0;
sub shown
{
	my $now = $bob->sql('SELECT coalesce(max(n), 0) FROM audit_event');
	my $text = $bob->sql(<<"SQL");
SELECT string_agg(CASE op WHEN 'DELETE' THEN 'x' ELSE coalesce(body->>'n', '-') END
	|| coalesce(nullif('/' || coalesce(body->>'body', ''), '/'), ''), ' ' ORDER BY n)
FROM audit_event WHERE n > $looked AND n <= $now
SQL

	$looked = $now;
	return $text;
}

subtest 'every state in order of commit' => sub {
	$alice->sql('INSERT INTO event VALUES (1, 0)');
	$alice->sql(join ';', map { "UPDATE event SET n = $_ WHERE id = 1" } 1 .. 200);
	drain_all();
	is(shown(), join(' ', 0 .. 200), 'those of one row');
	$alice->sql('UPDATE event SET body = $$a$$ WHERE id = 1; UPDATE event SET body = NULL, n = 1 WHERE id = 1; DELETE FROM event WHERE id = 1');
	drain_all();
	is(shown(), '200/a 1 x', 'NULLs, a deletion');
};

done_testing();
