#!/usr/bin/perl
# bench/tool/table.pl
#   usage: table.pl RESULTS.CSV
#   Prints the results as a table. Of several rounds it shows the median. The
#   columns x/NAME tell how many times better entanglement is than system
#   NAME: above 1 it is better, whether more is better or less.
use strict;
use warnings;

my (%values, %unit, %better, @measures, %seen);
open my $in, '<', $ARGV[0] // die "usage: table.pl RESULTS.CSV\n"
  or die "$ARGV[0]: $!\n";
<$in>;
while (<$in>)
{
	chomp;
	my ($workload, $measure, $unit, $better, $system, $value) = split /,/;
	my $key = "$workload,$measure";
	push @measures, $key unless $unit{$key};
	$unit{$key} = $unit;
	$better{$key} = $better;
	$seen{$system} = 1;
	push @{ $values{$key}{$system} }, $value;
}
my @systems =
  grep { $seen{$_} } qw(none ideal entanglement entanglement-wal logical pglogical);
my @others = grep { $_ ne 'entanglement' } @systems;

sub median
{
	my $list = shift // return undef;
	return (sort { $a <=> $b } @$list)[ $#$list / 2 ];
}

sub ratio
{
	my ($better, $ours, $theirs) = @_;
	return '' unless defined $ours && defined $theirs && $ours * $theirs > 0;
	my $ratio = $better eq 'more' ? $ours / $theirs : $theirs / $ours;
	return sprintf $ratio < 10 ? '%.2f' : '%.0f', $ratio;
}

my @table = ([ qw(workload measure unit), @systems, map { "x/$_" } @others ]);
for my $key (@measures)
{
	my %median = map { $_ => median($values{$key}{$_}) } @systems;
	push @table,
	  [
		split(/,/, $key),
		$unit{$key},
		(map { $median{$_} // '' } @systems),
		map { ratio($better{$key}, $median{entanglement}, $median{$_}) } @others
	  ];
}
my @width = (0) x @{ $table[0] };
for my $row (@table)
{
	for my $i (0 .. $#$row)
	{
		$width[$i] = length $row->[$i] if length $row->[$i] > $width[$i];
	}
}
for my $row (@table)
{
	my $line = join '  ',
	  map { sprintf $_ < 3 ? "%-$width[$_]s" : "%$width[$_]s", $row->[$_] }
	  0 .. $#$row;
	print $line =~ s/ +$//r, "\n";
}
