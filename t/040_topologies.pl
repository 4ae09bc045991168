# Random networks of three to seven nodes: everybody writes his own rows,
# proposes changes of others', hands rows over; links go and come.
#
# Promise: every row was decided by its owner alone: each change was made where
# its owner was at home at that time; and when all links are up, all nodes show
# what was decided last, and whose it is.
#
# The model is made of what the nodes' databases wrote down when they decided.
# Seeds are printed; ENT_SEED repeats one, ENT_ROUNDS is how many networks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Agreement;
use Entanglement::Node;

my $first = $ENV{ENT_SEED} // (time() ^ ($$ << 8)) % 1_000_000;
my $rounds = $ENV{ENT_ROUNDS} // ($ENV{ENT_LONG} ? 100 : 10);
my @all_names = qw(alice bob carol dave erin frank grace);
my $keys = 5;				# that each node makes
my $steps = 40;

sub any { return $_[ int rand @_ ]; }

# True once in $n times.
sub once_in { return rand($_[0]) < 1; }

# ---- a network ----

# A random tree, and links across.
sub topology
{
	my (@names) = @_;
	my @links = map { [ $names[$_], $names[ int rand $_ ] ] } 1 .. $#names;

	foreach my $i (0 .. $#names)
	{
		foreach my $j ($i + 1 .. $#names)
		{
			next if grep { join(' ', sort @$_) eq join(' ', sort @names[ $i, $j ]) } @links;
			push @links, [ @names[ $i, $j ] ] if once_in(scalar @names);
		}
	}
	return @links;
}

# Decisions are written down where they are made: triggers sleep while a
# peer's state is stored.
my $schema = <<'SQL';
CREATE TABLE item (id int PRIMARY KEY, a int, b text);
CREATE TABLE decision (at timestamptz DEFAULT clock_timestamp(), id int, what text, row jsonb);
CREATE FUNCTION decided() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	INSERT INTO decision (id, what, row)
	VALUES (CASE tg_op WHEN 'DELETE' THEN old.id ELSE new.id END, tg_op,
			CASE WHEN tg_op <> 'DELETE' THEN to_jsonb(new) END);
	RETURN NULL;
END $$;
CREATE TRIGGER decided AFTER INSERT OR UPDATE OR DELETE ON item
	FOR EACH ROW EXECUTE FUNCTION decided();
CREATE FUNCTION hand_over(which int, heir text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r item;
BEGIN
	SELECT * INTO r FROM item WHERE id = which FOR UPDATE;
	IF EXISTS (SELECT FROM entanglement.owners
				WHERE local AND name = entanglement.owner_of(r) AND name <> heir) THEN
		PERFORM entanglement.transfer(r, heir);
		INSERT INTO decision (id, what, row) VALUES (which, 'transfer', to_jsonb(heir));
	END IF;
END $$;
SQL

sub network
{
	my ($seed) = @_;
	my @names = @all_names[ 0 .. 2 + int rand 5 ];
	my @links = topology(@names);
	my $cluster = Entanglement::Node->cluster("topology_$seed",
		conf => "entanglement.prune_interval = '200ms'\nmax_worker_processes = 60\nmax_connections = 300\n");
	my %node = map { $_ => Entanglement::Node->database($cluster, $_) } @names;

	note "seed $seed: ", join ' ', map { join '-', @$_ } @links;
	foreach my $node (values %node)
	{
		$node->define($schema);
		$node->sql("SELECT entanglement.synchronize('item', keys_from_others => true);"
			  . "SELECT entanglement.create_owner('" . $node->name . " too')");
	}
	link_nodes($node{ $_->[0] }, $node{ $_->[1] }, nowait => 1) foreach @links;
	$_->wait_until('SELECT count(*) FROM entanglement.owners', 2 * @names, 'owners known')
	  foreach values %node;
	return {
		cluster => $cluster, names => \@names, node => \%node, links => \@links,
		paused => {}, asked => 0
	};
}

# ---- what happens ----

sub key
{
	my ($net, $name) = @_;
	my ($i) = grep { $net->{names}[$_] eq $name } 0 .. $#{ $net->{names} };

	return $i + 10 * int rand $keys;
}

# Whoever owns it now: it is a change, or a request.
sub write_row
{
	my ($net, $name) = @_;
	my $k = key($net, any(@{ $net->{names} }));

	return "DELETE FROM item WHERE id = $k" if once_in(8);
	return sprintf "UPDATE item SET a = %d WHERE id = %d", rand 1000, $k if once_in(2);
	return sprintf "UPDATE item SET b = 'asked %d' WHERE id = %d", $net->{asked}++, $k;
}

sub insert_row
{
	my ($net, $name) = @_;
	my $k = key($net, $name);

	return "INSERT INTO item VALUES ($k, 0, 'made') ON CONFLICT DO NOTHING";
}

# At another node, which makes it.
sub create_row
{
	my ($net, $name) = @_;
	my $other = any(grep { $_ ne $name } @{ $net->{names} });

	return sprintf "SET entanglement.owner = '%s'; INSERT INTO item VALUES (%d, 1, 'asked %d');"
	  . ' RESET entanglement.owner', $other, key($net, $other), $net->{asked}++;
}

sub hand_over
{
	my ($net, $name) = @_;
	my $heir = any(@{ $net->{names} });

	return sprintf "SELECT hand_over(%d, '%s')", key($net, any(@{ $net->{names} })),
	  any($heir, $heir, "$heir too");
}

sub act
{
	my ($net) = @_;
	my $name = any(@{ $net->{names} });
	my @sql = map {
		any((\&write_row) x 4, (\&insert_row) x 2, \&create_row, (\&hand_over) x 3)->($net, $name)
	} 0 .. rand 4;

	@sql = ('BEGIN', @sql, any('COMMIT', 'COMMIT', 'ROLLBACK')) if once_in(4) && !grep { /entanglement.owner/ } @sql;
	# a deadlock or a duplicate key is one side's, and the others go on
	$net->{node}{$name}->try("\\set ON_ERROR_STOP 0\n" . join ";\n", @sql, '');
	return;
}

sub pause_link
{
	my ($net) = @_;
	my ($from, $to) = @{ any(@{ $net->{links} }) };

	($from, $to) = ($to, $from) if once_in(2);
	my $verb = delete $net->{paused}{"$from $to"} ? 'resume' : 'pause';

	$net->{paused}{"$from $to"} = 1 if $verb eq 'pause';
	$net->{node}{$from}->sql("SELECT entanglement.${verb}_peer('$to')");
	return;
}

sub heal
{
	my ($net) = @_;

	foreach (keys %{ $net->{paused} })
	{
		my ($from, $to) = split / /;

		$net->{node}{$from}->sql("SELECT entanglement.resume_peer('$to')");
	}
	$net->{paused} = {};
	return;
}

# ---- the model ----

# All decisions, in the order in which they were made.
sub decisions
{
	my ($net) = @_;
	my @all;

	foreach my $name (@{ $net->{names} })
	{
		push @all, map { [ split(/\|/, $_, 4), $name ] } split /\n/,
		  $net->{node}{$name}->sql(
			"SELECT extract(epoch FROM at), id, what, row FROM decision ORDER BY at");
	}
	return sort { $a->[0] <=> $b->[0] } @all;
}

sub home
{
	my ($owner) = @_;

	return $owner =~ s/ too$//r;
}

# Replays the decisions: returns the last state, "row by owner" by id, and what
# was decided by somebody who was not the owner.
sub replay
{
	my ($net) = @_;
	my (%row, %owner, @wrong);

	foreach (decisions($net))
	{
		my ($at, $id, $what, $row, $name) = @$_;
		my $ok = $what eq 'INSERT' ? !exists $owner{$id} : exists $owner{$id} && home($owner{$id}) eq $name;

		push @wrong, "$at: $what of $id at $name, owned by " . ($owner{$id} // 'nobody') if !$ok;
		if ($what eq 'DELETE')
		{
			delete $row{$id};
			delete $owner{$id};
		}
		elsif ($what eq 'transfer')
		{
			$owner{$id} = $row =~ s/"//gr;
		}
		else
		{
			$row{$id} = $row;
			$owner{$id} = $name if $what eq 'INSERT';
		}
	}
	return (join("\n", map { "$row{$_} by $owner{$_}" } sort { $a <=> $b } keys %row),
		join "\n", @wrong);
}

sub check
{
	my ($net, $seed) = @_;
	my @nodes = @{ $net->{node} }{ @{ $net->{names} } };
	my $text;

	if (!eval { wait_for("agreement", sub { ($text = differences(\@nodes, 'item')) eq '' }) })
	{
		diag "ENT_SEED=$seed\n$text";
		diag join ' ', @$_ foreach decisions($net);
		diag $_->report foreach @nodes;
		return 0;
	}
	my ($state, $wrong) = replay($net);

	is($wrong, '', "seed $seed: only owners decided");
	is( $nodes[0]->sql("SELECT to_jsonb(i)::text || ' by ' || entanglement.owner_of(i) FROM item i ORDER BY id"),
		$state, "seed $seed: what was decided last is what all show");
	foreach my $node (@nodes)
	{
		is( $node->sql(<<'SQL'), '', "seed $seed: each request was done at most once at " . $node->name);
SELECT row->>'b' FROM (SELECT *, lag(row->>'b') OVER (PARTITION BY id ORDER BY at) AS before FROM decision
 WHERE what IN ('INSERT', 'UPDATE')) d
 WHERE row->>'b' LIKE 'asked %' AND row->>'b' IS DISTINCT FROM before
 GROUP BY row->>'b' HAVING count(*) > 1
SQL
	}
	return 1;
}

foreach my $round (1 .. $rounds)
{
	my $seed = ($first + $round - 1) % 1_000_000;

	srand($seed);
	my $net = network($seed);

	foreach (1 .. $steps)
	{
		act($net);
		pause_link($net) if once_in(4);
	}
	heal($net);
	my $agreed = check($net, $seed);

	ok($agreed, "seed $seed: all agree, nothing is left over") or BAIL_OUT("ENT_SEED=$seed");
	$net->{cluster}->stop('immediate');
}

done_testing();
