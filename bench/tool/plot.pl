#!/usr/bin/perl
# bench/tool/plot.pl
#   usage: plot.pl FOLDER
#   Draws what lies in FOLDER: results.csv as one SVG of bars per workload, and
#   hot-age-SYSTEM.csv (time, mean, max) as curves in hot-age.svg.
use strict;
use warnings;

my $folder = $ARGV[0] // die "usage: plot.pl FOLDER\n";
my %colour = (
	none => '#999999',
	ideal => '#999999',
	entanglement => '#2a6fbb',
	logical => '#d9822b',
	pglogical => '#7a9a3a');
my @order = qw(none ideal entanglement logical pglogical);

sub rows
{
	my $file = shift;
	open my $in, '<', $file or die "$file: $!\n";
	return map { chomp; [ split /,/ ] } <$in>;
}

sub text
{
	my ($x, $y, $text, $more) = @_;
	return sprintf qq{<text x="%.1f" y="%.1f"%s>%s</text>\n}, $x, $y,
	  $more ? " $more" : '', $text;
}

sub write_svg
{
	my ($name, $width, $height, $body) = @_;
	open my $out, '>', "$folder/$name.svg" or die "$folder/$name.svg: $!\n";
	print $out qq{<svg xmlns="http://www.w3.org/2000/svg" width="$width" }
	  . qq{height="$height" font-family="sans-serif" font-size="12">\n}
	  . qq{<rect width="100%" height="100%" fill="white"/>\n$body</svg>\n};
	close $out or die "$folder/$name.svg: $!\n";
}

# a block of bars per measure, each to a scale of its own
sub bars
{
	my ($workload, @rows) = @_;
	my (%value, %title, @measures);
	for (@rows)
	{
		my (undef, $measure, $unit, $better, $system, $value) = @$_;
		push @measures, $measure unless $title{$measure};
		$title{$measure} = "$measure, $unit ($better is better)";
		push @{ $value{$measure}{$system} }, $value;
	}
	my $y = 28;
	my $body = text(10, 20, $workload, 'font-size="15" font-weight="bold"');
	for my $measure (@measures)
	{
		my %median = map {
			my @sorted = sort { $a <=> $b } @{ $value{$measure}{$_} };
			$_ => $sorted[ $#sorted / 2 ]
		} keys %{ $value{$measure} };
		my ($max) = sort { $b <=> $a } values %median;
		$body .= text(10, $y += 18, $title{$measure});
		for my $system (grep { defined $median{$_} } @order)
		{
			my $length = $max > 0 ? 400 * $median{$system} / $max : 0;
			$body .= text(100, ($y += 18) + 2, $system, 'text-anchor="end"');
			$body .= sprintf qq{<rect x="106" y="%d" width="%.1f" height="13" fill="%s"/>\n},
			  $y - 9, $length, $colour{$system};
			$body .= text(112 + $length, $y + 2, $median{$system});
		}
		$y += 10;
	}
	write_svg($workload, 600, $y + 10, $body);
}

# mean age of information over time, with a logarithmic axis
sub curves
{
	my %points = map { m{hot-age-(\w+)\.csv$} => [ rows($_) ] } @_;
	my ($left, $top, $width, $height) = (60, 40, 520, 260);
	my ($low, $high) = (0.1, 100);
	my ($end) = sort { $b <=> $a } map { $_->[-1][0] } values %points;
	my $x = sub { $left + $width * $_[0] / $end };
	my $y = sub {
		my $v = $_[0] < $low ? $low : $_[0] > $high ? $high : $_[0];
		$top + $height * (1 - log($v / $low) / log($high / $low));
	};
	my $body = text(10, 20, 'hot: mean age of what B shows, s, over time, s',
		'font-size="15" font-weight="bold"');
	for my $tick (0.1, 1, 10, 100)
	{
		$body .= sprintf qq{<path d="M%d %.1f h%d" stroke="#ccc"/>\n}, $left,
		  $y->($tick), $width;
		$body .= text($left - 6, $y->($tick) + 4, $tick, 'text-anchor="end"');
	}
	$body .= text($x->($_ * $end / 4), $top + $height + 18,
		sprintf('%.0f', $_ * $end / 4), 'text-anchor="middle"')
	  for 0 .. 4;
	my $at = $left;
	for my $system (grep { $points{$_} } @order)
	{
		my $path = join ' ', map { sprintf '%.1f,%.1f', $x->($_->[0]), $y->($_->[1]) }
		  @{ $points{$system} };
		$body .= qq{<polyline points="$path" fill="none" stroke-width="2" stroke="$colour{$system}"/>\n};
		$body .= text($at, $top + $height + 40, $system, qq{fill="$colour{$system}"});
		$at += 130;
	}
	write_svg('hot-age', 600, $top + $height + 55, $body);
}

my (%of, @workloads);
for (rows("$folder/results.csv"))
{
	next if $_->[0] eq 'workload';
	push @workloads, $_->[0] unless $of{ $_->[0] };
	push @{ $of{ $_->[0] } }, $_;
}
bars($_, @{ $of{$_} }) for @workloads;
my @ages = grep { -s } glob "$folder/hot-age-*.csv";
curves(@ages) if @ages;
