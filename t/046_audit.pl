# What is refused to whom is counted and logged: alice dials hub, mallory asks by
# hand.
#
# Promise: rows, requests and questions that a peer's role has no rights for
# are counted in the view violations, once each; the log has one line per peer,
# kind and table in entanglement.log_interval, however many rows it is about,
# whatever kept them from being stored or sent; and it says when a peer's role
# has more rights than grants.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('audit', conf => "entanglement.log_interval = '1h'\n");
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);

link_nodes($alice, $hub);
foreach my $node ($alice, $hub)
{
	$node->define(<<'SQL', 'item', 'checked', 'rls', 'unread');
CREATE TABLE item (id int PRIMARY KEY, v text);
CREATE TABLE checked (id int PRIMARY KEY, v text);
CREATE TABLE rls (id int PRIMARY KEY, v text);
CREATE TABLE unread (id int PRIMARY KEY, v text);
SQL
	$node->wait_until('SELECT count(*) FROM entanglement.owners', 2, 'owners known');
}
$hub->sql("INSERT INTO item SELECT i, 'hub' FROM generate_series(101, 120) i");
converge([ $alice, $hub ], ['item'], 'in step');

sub violations
{
	my ($peer) = @_;

	return $hub->sql("SELECT kind, owner, relation, count FROM entanglement.violations WHERE peer = '$peer' ORDER BY 1, 2, 3");
}

# Lines of hub's log since the mark that match.
sub lines
{
	my ($mark, $pattern) = @_;
	my @lines = grep { /LOG:  / && /$pattern/ } split /\n/, $hub->log_since($mark);

	return scalar @lines;
}

# Everything parked at hub has been tried some times more.
sub tried_again
{
	my ($n) = @_;
	my $tries = $hub->sql('SELECT min(tries) + 3 FROM entanglement.parked');

	return $hub->wait_until("SELECT count(*) FILTER (WHERE tries >= $tries) FROM entanglement.parked", $n, 'tried again');
}

subtest 'rows that the role may not write' => sub {
	my $mark = $hub->log_mark;

	$hub->sql('REVOKE INSERT ON item FROM alice');
	$hub->sql('ALTER TABLE rls ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON rls TO alice USING (true) WITH CHECK (id < 1000)');
	$alice->sql("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 50) i");
	$alice->sql("INSERT INTO rls SELECT i, 'x' FROM generate_series(990, 1009) i");
	$hub->wait_until('SELECT count(*) FROM entanglement.parked', 60, 'parked');
	is($hub->sql('SELECT count(*) FROM rls'), 10, 'the others are stored');
	$alice->sql("UPDATE item SET v = 'y' WHERE id <= 10");
	$alice->drain('hub');
	tried_again(60);
	is(violations('alice'), "write|alice|item|50\nwrite|alice|rls|10", 'counted once each, by table');
	is(lines($mark, 'could not be stored: permission denied for table item'), 1, 'one line');
	is(lines($mark, 'could not be stored: new row violates row-level security policy'), 1, 'one of the other table');
	is(lines($mark, 'could not be stored'), 2, 'and no more');
	$hub->sql('GRANT INSERT ON item TO alice; ALTER TABLE rls DISABLE ROW LEVEL SECURITY');
	converge([ $alice, $hub ], [ 'item', 'rls' ], 'with the rights they come');
	is(violations('alice'), "write|alice|item|50\nwrite|alice|rls|10", 'what was, stays to be seen');
	$hub->sql('REVOKE UPDATE ON item FROM alice');
	$alice->sql("UPDATE item SET v = 'z' WHERE id <= 5");
	$hub->wait_until('SELECT count(*) FROM entanglement.parked', 5, 'parked anew');
	is(violations('alice'), "write|alice|item|55\nwrite|alice|rls|10", 'counted anew');
	$hub->sql('GRANT UPDATE ON item TO alice');
	converge([ $alice, $hub ], ['item'], 'in step again');
};

subtest 'rows that cannot be stored for another reason' => sub {
	my $mark = $hub->log_mark;
	my $before = violations('alice');

	$hub->sql('ALTER TABLE checked ADD CHECK (id > 30)');
	$alice->sql("INSERT INTO checked SELECT i, 'x' FROM generate_series(1, 40) i");
	$hub->wait_until('SELECT count(*) FROM entanglement.parked', 30, 'parked');
	is(lines($mark, 'of table "public.checked" could not be stored'), 1, 'one line');
	is(violations('alice'), $before, 'nobody had no right to');
	$alice->sql('DELETE FROM checked WHERE id <= 30');
	converge([ $alice, $hub ], ['checked'], 'gone');
};

subtest 'rows that cannot be sent' => sub {
	my $mark = $hub->log_mark;

	$hub->sql('ALTER TABLE rls ENABLE ROW LEVEL SECURITY; CREATE POLICY bad ON rls TO alice USING (1 / (id - id) > 0); DROP POLICY p ON rls');
	$hub->sql("INSERT INTO rls SELECT i, 'hub' FROM generate_series(2001, 2020) i");
	$hub->drain('alice');
	is(lines($mark, 'of table "public.rls" could not be sent: division by zero'), 1, 'one line');
	is($alice->sql('SELECT count(*) FROM rls WHERE id > 2000'), 0, 'none came');
	$hub->sql('ALTER TABLE rls DISABLE ROW LEVEL SECURITY; UPDATE rls SET v = v || 1 WHERE id > 2000');
	converge([ $alice, $hub ], ['rls'], 'in step again');
};

subtest 'requests for what the role may not do' => sub {
	my $mark = $hub->log_mark;

	$hub->sql('REVOKE UPDATE ON item FROM alice');
	$alice->sql("UPDATE item SET v = 'asked' WHERE id > 100");
	$alice->wait_until("SELECT count(*) FROM entanglement.requests WHERE state = 'refused' AND sqlstate = '42501'", 20, 'refused');
	is(violations('alice'), "request|hub|item|20\nwrite|alice|item|55\nwrite|alice|rls|10", 'counted');
	is(lines($mark, 'the peer asked for what its role may not do: permission denied for table item'), 1, 'one line');
	like($hub->peer('alice')->{last_error}, qr/^42501: the peer asked for what its role may not do/, 'the view of peers says so');
	$hub->sql('GRANT UPDATE ON item TO alice');
	$alice->sql("UPDATE item SET v = 'asked' WHERE id = 999");
	$alice->sql("SELECT entanglement.drain()");
	is(violations('alice'), "request|hub|item|20\nwrite|alice|item|55\nwrite|alice|rls|10", 'and nothing else');
};

subtest 'questions about what was not told' => sub {
	my $mark = $hub->log_mark;
	my $no = $hub->sql("SELECT no FROM entanglement.relation WHERE relid = 'unread'::regclass");
	my $owner = $hub->sql("SELECT no FROM entanglement.owner WHERE local");
	my $seen = $hub->sql("SELECT no FROM entanglement.relation WHERE relid = 'item'::regclass");
	my ($number, @sections) = (0);

	$hub->sql("CREATE ROLE mallory LOGIN; GRANT SELECT ON item TO mallory; SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
	$hub->sql("INSERT INTO unread VALUES (1, 'secret')");
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);
	my $pull = sub {
		my $out = $s->query_safe('CALL entanglement.pull(' . literal(batch($number, @_)) . ', NULL)');
		my $b = read_batch(pack 'H*', $out =~ s/^\\x//r);

		$number = $b->{number};
		return @{ $b->{sections} };
	};

	$s->query_safe(q{SELECT entanglement.hello('pull', } . literal(hello('66600000-0000-4000-8000-000000000001', 'mallory')) . ')');
	@sections = $pull->();
	is_deeply([ map { $_->{name} } grep { $_->{type} == 3 } @sections ], ['item'], 'she is told of one table');
	push @sections, $pull->(want($owner, 1, 0, 0), map { again($no, $owner, bytes(pack 'N', $_)) } 1 .. 10);
	push @sections, $pull->(arrears($owner, $no), again(9999, $owner, bytes(pack('N', 1))), again($seen, $owner, bytes(pack('N', 101))));
	push @sections, $pull->();
	is(violations('mallory'), "ask||unread|11\nask|||1", 'counted, by table if there is one');
	is(lines($mark, 'the peer asked for a table that it was not told of'), 1, 'one line');
	is_deeply([ grep { defined && /secret/ } map { values %$_ } @sections ], [], 'and she hears nothing of it');
	$s->quit;
};

subtest 'the interval' => sub {
	$cluster->append_conf('postgresql.conf', "entanglement.log_interval = 0\n");
	$cluster->reload;
	$hub->wait_until('SHOW entanglement.log_interval', '0', 'each is logged');
	# sessions of peers read settings between two batches
	$hub->sql('REVOKE INSERT ON item FROM alice');
	my $mark = $hub->log_mark;
	$alice->sql("INSERT INTO item SELECT i, 'x' FROM generate_series(5001, 5010) i");
	$hub->wait_until('SELECT count(*) FROM entanglement.parked', 10, 'parked');
	is(lines($mark, 'could not be stored: permission denied for table item'), 10, 'a line each');
	like($hub->log_since($mark), qr/DETAIL:  Since the last such line 5\d more were not logged\./, 'the first one counts those that had none');
	$hub->sql('GRANT INSERT ON item TO alice');
	converge([ $alice, $hub ], ['item'], 'in step again');
};

subtest 'a role that gets more rights later' => sub {
	my $mark = $hub->log_mark;

	like($hub->peer('alice')->{may_see}, qr/^\d of 4 tables$/, 'nothing above grants');
	$hub->sql('ALTER ROLE alice BYPASSRLS; ALTER ROLE hub REPLICATION');
	is($hub->peer('alice')->{may_see}, '4 of 4 tables, as BYPASSRLS', 'shown at once');
	is($alice->peer('hub')->{may_see}, '4 of 4 tables, as REPLICATION', 'on the other side, too');
	foreach my $n (1, 2)
	{
		$alice->sql("SELECT entanglement.pause_peer('hub')");
		$hub->wait_state('alice', 'waiting');
		$alice->sql("SELECT entanglement.resume_peer('hub')");
		$_->[0]->wait_connected($_->[1]) foreach [ $alice, 'hub' ], [ $hub, 'alice' ];
		is(lines($mark, 'role "alice" of peer "alice" has more rights than a peer should have'), $n, "logged per connection: $n, where it is dialed");
		is(lines($mark, 'role "hub" of peer "hub" has more rights than a peer should have'), $n, '... and where it dials');
	}
	$hub->sql('ALTER ROLE alice NOBYPASSRLS; ALTER ROLE hub NOREPLICATION');
};

done_testing();
