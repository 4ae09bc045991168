# Entanglement::Agreement
#	Do nodes agree on everything, and is nothing left to do?

package Entanglement::Agreement;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(differences);

my $left = join ' UNION ALL ',
  map { /^(\w+)/; "SELECT '$1', count(*) FROM entanglement.$_ HAVING count(*) > 0" }
  qw(change handover owed parked arrears),
  'object WHERE born = 0',
  q(request WHERE state IN ('waiting', 'sent', 'applied') OR untold <> '{}');

sub state_query
{
	my (@tables) = @_;
	my $rows = join ' UNION ALL ', map { "SELECT '$_: ' || t::text FROM $_ t" } @tables;

	return <<"SQL";
SELECT string_agg(line, E'\\n' ORDER BY line COLLATE "C") FROM (
	$rows
	UNION ALL
	SELECT 'object: ' || concat_ws(' ', r.relid, encode(o.key, 'hex'), w.name, o.epoch, o.serial)
	  FROM entanglement.object o
	  JOIN entanglement.owner w ON w.no = o.owner
	  JOIN entanglement.relation r ON r.no = o.rel
	UNION ALL
	SELECT 'owner: ' || concat_ws(' ', name, id, epoch, serial)
	  FROM entanglement.owner) AS s(line)
SQL
}

# What differs between the first node and others in rows of these tables, in
# objects and in owners, and what is left over. '': nothing.
sub differences
{
	my ($nodes, @tables) = @_;
	my $state = state_query(@tables);
	my @lines = map { { map { $_ => 1 } split /\n/, $_->sql($state) } } @$nodes;
	my $all = '';

	foreach my $i (1 .. $#$nodes)
	{
		my @less = grep { !$lines[$i]{$_} } sort keys %{ $lines[0] };
		my @more = grep { !$lines[0]{$_} } sort keys %{ $lines[$i] };

		$all .= $nodes->[$i]->name . " lacks $_\n" foreach @less;
		$all .= $nodes->[$i]->name . " has $_\n" foreach @more;
	}
	foreach my $node (@$nodes)
	{
		my $rest = $node->sql($left);

		$all .= $node->name . " has left: $rest\n" if $rest ne '';
	}
	return $all;
}

1;
