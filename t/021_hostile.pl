# A peer that means harm: mallory is a role that stands for a peer at hub, and
# speaks the protocol by hand. alice is an honest peer of hub.
#
# Promise: what mallory may not see is not told to her, by whatever she asks;
# whatever she sends is refused with a precise error or does harm to nothing
# but her own; hub and its other links go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('hostile');
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);
my $me = '66600000-0000-4000-8000-000000000001';

sub id { return $_[0]->sql('SELECT id FROM entanglement.node'); }

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN; CREATE ROLE alice; CREATE ROLE hub');
foreach my $node ($alice, $hub)
{
	$node->define(<<'SQL', 'item', 'secret');
CREATE TABLE item (id int PRIMARY KEY, v text, w int);
CREATE TABLE secret (id int PRIMARY KEY, v text, open boolean NOT NULL);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret TO alice, hub USING (true);
CREATE POLICY few ON secret TO mallory USING (open);
GRANT SELECT, INSERT, UPDATE, DELETE ON item, secret TO mallory;
SQL
	$node->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
}
link_nodes($alice, $hub);

# A session of mallory's; hello of the direction said.
sub mallory
{
	my ($node, $direction) = @_;
	my $s = $cluster->background_psql($node->db,
		on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);

	$s->query_safe("SELECT entanglement.hello('$direction', "
		  . literal(hello($me, 'mallory')) . ')');
	return $s;
}

# The next batch, after an answer to the one before.
sub pull
{
	my ($s, $number, @answer) = @_;
	my $out = $s->query_safe(
		'CALL entanglement.pull(' . literal(batch($number, @answer)) . ', NULL)');

	return read_batch(pack 'H*', $out =~ s/^\\x//r);
}

# Pulls on until a batch has a section for which $until is true; returns all
# sections. The first answer is to the batch given.
sub pull_until
{
	my ($s, $batch, $answer, $until) = @_;
	my @sections;

	while (1)
	{
		$batch = pull($s, $batch->{number}, @$answer);
		$answer = [];
		push @sections, @{ $batch->{sections} };
		return @sections if grep { $until->($_) } @{ $batch->{sections} };
	}
}

# Numbers of the owner and table of these names.
sub numbers
{
	my ($batch, $owner, $table) = @_;
	my ($o) = grep { $_->{type} == 2 && $_->{name} eq $owner } @{ $batch->{sections} };
	my ($t) = grep { $_->{type} == 3 && $_->{name} eq $table } @{ $batch->{sections} };

	return ($o->{number}, $t->{number});
}

sub int_key { return bytes(pack 'N', $_[0]); }
sub key_int { return unpack 'N', substr $_[0], 1; }

subtest 'keys of rows that she may not see are not told' => sub {
	# 3500 rows: none in the first thousand, two, none again, the last
	my @open = (1500, 1600, 3500);

	$hub->sql('INSERT INTO secret SELECT i, $$row $$ || i, i = ANY (ARRAY['
		  . join(', ', @open)
		  . ']) FROM generate_series(1, 3500) i');
	$hub->drain('alice');
	foreach my $last (3500, 1)
	{
		my $s = mallory($hub, 'pull');
		my $batch = pull($s, 0);
		my ($owner, $table) = numbers($batch, 'hub', 'secret');
		my @sections = pull_until(
			$s, $batch,
			[ want($owner, 1, 0, 0), arrears($owner, $table) ],
			sub { $_[0]->{type} == 6 });
		my @present = grep { $_->{type} == 7 && $_->{table} == $table } @sections;
		my @bounds = map { ($_->{lo}, $_->{hi}) } @present;

		ok(!defined shift @bounds && !defined pop @bounds, 'from the first key to the last');
		while (my ($hi, $lo) = splice @bounds, 0, 2)
		{
			is(key_int($lo), key_int($hi), 'ranges join at ' . key_int($hi));
		}
		is_deeply(
			[ sort { $a <=> $b } map { key_int($_) } map { @{ $_->{keys} // [] } } @present ],
			\@open, 'exactly the keys of visible rows are told');
		is_deeply(
			[ grep { my $k = $_; !grep { $_ == $k } @open }
				map { key_int($_) } grep { defined $_ } map { ($_->{lo}, $_->{hi}) } @present ],
			[], 'and none of others bounds a range');
		$s->quit;
		last if $last == 1;
		# the same when the end of the table is not to be seen
		$hub->sql('UPDATE secret SET open = false WHERE id = 3500');
		pop @open;
	}
};

done_testing();
