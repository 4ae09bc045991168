# Networks of several shapes in one cluster: chain, star, ring, full mesh, and
# one drawn by lot.
#
# Promise: every node learns every owner, by a shortest way; each object comes
# to each node once, however many links it has, and so does each change; when a
# link goes, others take over and nothing is sent again; routes never form a
# loop, not even when a home is cut off.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use List::Util qw(shuffle sum0);
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $seed = $ENV{ENT_SEED} // (time() ^ ($$ << 8)) % 1_000_000;

srand($seed);
note "ENT_SEED=$seed";

my $cluster = Entanglement::Node->cluster('shapes');
my %made;
my $shapes = 0;

# ---- networks ----

# Nodes linked as the pairs say, each with one row of its own.
sub network
{
	my ($n, @links) = @_;
	my $shape = 'abcdefgh';
	my $set = ++$shapes;
	my @nodes = map { Entanglement::Node->database($cluster, substr($shape, $_, 1) . $set) } 0 .. $n - 1;

	$_->define('CREATE TABLE item (id int PRIMARY KEY, v int)', 'item') foreach @nodes;
	link_nodes($nodes[ $_->[0] ], $nodes[ $_->[1] ], nowait => 1) foreach @links;
	return { nodes => \@nodes, links => [@links] };
}

# The nodes are no more, so that the cluster has workers for others.
sub drop_network
{
	my ($net) = @_;

	foreach my $node (@{ $net->{nodes} })
	{
		$cluster->safe_psql('postgres', 'DROP DATABASE ' . $node->db . ' WITH (FORCE)');
	}
	return;
}

# Distance from each node to each other, by the links there are.
sub distances
{
	my ($net) = @_;
	my $n = @{ $net->{nodes} };
	my @d = map { my $i = $_; [ map { $_ == $i ? 0 : 99 } 0 .. $n - 1 ] } 0 .. $n - 1;

	foreach (1 .. $n)
	{
		foreach my $link (@{ $net->{links} })
		{
			my ($x, $y) = @$link;

			foreach my $to (0 .. $n - 1)
			{
				$d[$x][$to] = $d[$y][$to] + 1 if $d[$y][$to] + 1 < $d[$x][$to];
				$d[$y][$to] = $d[$x][$to] + 1 if $d[$x][$to] + 1 < $d[$y][$to];
			}
		}
	}
	return @d;
}

# Every node knows the owner of every other one, by a shortest way that is up.
sub wait_ways
{
	my ($net, $what) = @_;
	my @nodes = @{ $net->{nodes} };
	my @d = distances($net);

	foreach my $i (0 .. $#nodes)
	{
		my $want = join ' ', map { $nodes[$_]->name . ($d[$i][$_] < 99 ? ' ' . $d[$i][$_] : ' lost') } grep { $_ != $i } 0 .. $#nodes;

		$nodes[$i]->wait_until(
			"SELECT string_agg(o.name || CASE WHEN w.lost OR s.state IS DISTINCT FROM 'connected' THEN ' lost' ELSE ' ' || o.distance END, ' ' ORDER BY o.name)"
			  . ' FROM entanglement.owners o JOIN entanglement.owner w ON w.id = o.id LEFT JOIN entanglement.peers s ON s.name = o.peer WHERE NOT o.local',
			$want, $what);
	}
	return;
}

# owner => [circle of nodes], of the pointers as they are
sub circles
{
	my ($net) = @_;
	my %next;
	my @found;

	foreach my $node (@{ $net->{nodes} })
	{
		foreach my $line (split /\n/, $node->sql('SELECT name, peer FROM entanglement.owners WHERE peer IS NOT NULL'))
		{
			my ($owner, $peer) = split /\|/, $line;

			$next{$owner}{ $node->name } = $peer;
		}
	}
	foreach my $owner (sort keys %next)
	{
		foreach my $start (sort keys %{ $next{$owner} })
		{
			my $at = $start;

			for (my $steps = 0; defined $at; $steps++)
			{
				if ($steps > @{ $net->{nodes} })
				{
					push @found, "$owner from $start";
					last;
				}
				$at = $next{$owner}{$at};
			}
		}
	}
	return @found;
}

sub received
{
	my ($net) = @_;

	return map { $_->sql('SELECT sum(objects_received) FROM entanglement.peers') } @{ $net->{nodes} };
}

sub settle
{
	my ($net, $what) = @_;

	converge($net->{nodes}, ['item'], $what);
	$_->drain foreach @{ $net->{nodes} };
	return;
}

# Runs code; returns how many objects each node received meanwhile.
sub meanwhile
{
	my ($net, $code) = @_;
	my @before = received($net);

	$code->();
	my @after = received($net);
	return map { $after[$_] - $before[$_] } 0 .. $#after;
}

sub cut
{
	my ($net, $link) = @_;
	my ($x, $y) = map { $net->{nodes}[$_] } @$link;

	$x->sql("SELECT entanglement.pause_peer('" . $y->name . "')");
	@{ $net->{links} } = grep { $_ != $link } @{ $net->{links} };
	return;
}

sub heal
{
	my ($net, $link) = @_;
	my ($x, $y) = map { $net->{nodes}[$_] } @$link;

	$x->sql("SELECT entanglement.resume_peer('" . $y->name . "')");
	push @{ $net->{links} }, $link;
	return;
}

# ---- shapes ----

my %shape = (
	chain => [ 4, [ 0, 1 ], [ 1, 2 ], [ 2, 3 ] ],
	star => [ 5, map { [ 0, $_ ] } 1 .. 4 ],
	ring => [ 5, map { [ $_, ($_ + 1) % 5 ] } 0 .. 4 ],
	mesh => [ 4, map { my $x = $_; map { [ $x, $_ ] } 0 .. $x - 1 } 1 .. 3 ],
	random => [ 6, random_links(6, 3) ]);

# A tree and some more.
sub random_links
{
	my ($n, $more) = @_;
	my %have = map { join(' ', sort $_, int rand $_) => 1 } 1 .. $n - 1;

	while ($more > 0)
	{
		my ($x, $y) = sort((shuffle(0 .. $n - 1))[ 0, 1 ]);

		next if $have{"$x $y"}++;
		$more--;
	}
	return map { [ split / / ] } sort keys %have;
}

foreach my $name (qw(chain star ring mesh random))
{
	my ($n, @links) = @{ $shape{$name} };

	subtest "$name: each object comes once to each node" => sub {
		my $net = network($n, @links);
		my @nodes = @{ $net->{nodes} };

		note join ' ', map { "$_->[0]-$_->[1]" } @links;
		wait_ways($net, 'all owners by shortest ways');
		my @got = meanwhile($net, sub {
			$nodes[$_]->sql("INSERT INTO item SELECT 100 * $_ + i, i FROM generate_series(1, 10) i") foreach 0 .. $n - 1;
			settle($net, 'new rows');
		});

		is_deeply(\@got, [ map { 10 * ($n - 1) } @nodes ], 'ten objects of each other node');
		@got = meanwhile($net, sub {
			$nodes[$_]->sql("UPDATE item SET v = v + 1 WHERE id = 100 * $_ + 1") foreach 0 .. $n - 1;
			settle($net, 'a change');
		});
		is_deeply(\@got, [ map { $n - 1 } @nodes ], 'one of each other node');
		is($_->sql('SELECT count(*), count(DISTINCT id) FROM entanglement.owners'), "$n|$n", 'every owner once at ' . $_->name)
		  foreach @nodes;
		is_deeply([ circles($net) ], [], 'no circle');

		redundant($net) if $name eq 'ring' || $name eq 'mesh';
		drop_network($net);
	};
}

# What more than one way is good for.
sub redundant
{
	my ($net) = @_;
	my @nodes = @{ $net->{nodes} };
	my $n = @nodes;
	my $link = $net->{links}[0];
	my @serials = map { $_->sql('SELECT serial FROM entanglement.owners WHERE local') } @nodes;
	my @got = meanwhile($net, sub {
		cut($net, $link);
		wait_ways($net, 'a link is cut: the next best way');
		$_->drain foreach @nodes;
	});

	is_deeply(\@got, [ map { 0 } @nodes ], 'and nothing is sent again');
	is_deeply([ circles($net) ], [], 'no circle');
	my @given = map { $_->sql('SELECT serial FROM entanglement.owners WHERE local') - shift @serials } @nodes;
	cmp_ok($_, '<=', 2 * $n, 'what was sought cost few serials') foreach @given;

	@got = meanwhile($net, sub {
		$nodes[$_]->sql("UPDATE item SET v = v + 1 WHERE id = 100 * $_ + 2") foreach 0 .. $n - 1;
		settle($net, 'a change by the next best ways');
	});
	is_deeply(\@got, [ map { $n - 1 } @nodes ], 'comes once to each node');

	@got = meanwhile($net, sub {
		heal($net, $link);
		wait_ways($net, 'the link is back: the best way');
		$nodes[$_]->sql("UPDATE item SET v = v + 1 WHERE id = 100 * $_ + 3") foreach 0 .. $n - 1;
		settle($net, 'a change by the best ways');
	});
	is_deeply(\@got, [ map { $n - 1 } @nodes ], 'comes once to each node');

	# a home is cut off: nobody passes its owner round
	my @links = grep { $_->[0] == 0 || $_->[1] == 0 } @{ $net->{links} };

	cut($net, $_) foreach @links;
	wait_ways($net, 'a home is cut off: nobody gets there');
	is_deeply([ circles($net) ], [], 'no circle');
	$nodes[0]->sql('UPDATE item SET v = -1 WHERE id = 4');
	# only one way back, so that most have to change theirs
	heal($net, $links[-1]);
	wait_ways($net, 'one way back is found by all');
	is_deeply([ circles($net) ], [], 'no circle');
	settle($net, 'what the home wrote meanwhile');
	heal($net, $_) foreach @links[ 0 .. $#links - 1 ];
	wait_ways($net, 'all links are up');
	return;
}

subtest 'who has come farther helps who has not, though the home is away' => sub {
	my $net = network(3, [ 0, 1 ], [ 1, 2 ], [ 0, 2 ]);
	my ($home, $x, $y) = @{ $net->{nodes} };
	my ($home_x, undef, $home_y) = @{ $net->{links} };
	my $between = $net->{links}[1];

	wait_ways($net, 'a triangle');
	$home->sql('INSERT INTO item SELECT i, i FROM generate_series(1, 20) i');
	settle($net, 'rows');
	cut($net, $between);
	cut($net, $home_x);
	$home->sql('UPDATE item SET v = -v WHERE id <= 5');
	$home->drain($y->name);
	cut($net, $home_y);
	$_->wait_until("SELECT bool_or(state = 'connected') FROM entanglement.peers", 'f', 'nobody has a link') foreach @{ $net->{nodes} };
	isnt($x->digest('item'), $y->digest('item'), 'one has what the other lacks');
	my @got = meanwhile($net, sub {
		heal($net, $between);
		converge([ $x, $y ], ['item'], 'two that are left agree');
	});

	is_deeply(\@got, [ 0, 5, 0 ], 'by what is lacking and no more');
	wait_ways($net, 'they know that the home is away');
	is_deeply([ circles($net) ], [], 'no circle');
	heal($net, $_) foreach $home_x, $home_y;
	$home->sql('UPDATE item SET v = 7 WHERE id = 7');
	wait_ways($net, 'all links are up');
	settle($net, 'all agree');
	drop_network($net);
};

subtest 'a ring of seven, cut again and again while all write' => sub {
	my $net = network(7, map { [ $_, ($_ + 1) % 7 ] } 0 .. 6);
	my @nodes = @{ $net->{nodes} };
	my $rounds = $ENV{ENT_LONG} ? 40 : 4;
	my @seen;

	wait_ways($net, 'all owners by shortest ways');
	$nodes[$_]->sql("INSERT INTO item SELECT 100 * $_ + i, i FROM generate_series(1, 10) i") foreach 0 .. 6;
	foreach my $round (1 .. $rounds)
	{
		my @links = shuffle @{ $net->{links} };
		my @cut = splice @links, 0, 1 + int rand 3;

		foreach my $link (@cut)
		{
			cut($net, $link);
			$nodes[ int rand 7 ]->sql('UPDATE item SET v = v + 1 WHERE entanglement.owner_of(item) = (SELECT default_owner FROM entanglement.node)');
			push @seen, circles($net);
		}
		wait_ways($net, "round $round: who gets where");
		foreach my $link (@cut)
		{
			heal($net, $link);
			push @seen, circles($net);
		}
		wait_ways($net, "round $round: the ring is whole");
		settle($net, "round $round: all agree");
	}
	# pointers are read one node after the other: what looks like a circle may
	# be none, so only what lasts counts
	is_deeply([ circles($net) ], [], 'no circle is left');
	note scalar(@seen) . ' circles seen while pointers moved';
	drop_network($net);
};

done_testing();
