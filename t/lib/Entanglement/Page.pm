# Entanglement::Page
#	  A page of the documentation as a list of steps, and the following of one.
#
# A fenced block belongs to the machines that its first line names: ```sql
# alice, ```sh hub, ```ini hub pg_hba.conf. ```text is what the block before
# it prints; "..." in it stands for anything. A block that names no machine
# is for readers only. A table whose first row begins with "query" shows what
# its queries print on the machines that this row names.

package Entanglement::Page;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

use Entanglement::Node;

our @EXPORT = qw(read_page pattern_of follow_block);

# The page's steps in order. Blocks: kind, text, machines, file (*.conf),
# shown (undef: nothing is), mistake (what a reader may meet, done by nobody).
# Tables: kind 'table', machines, rows => [ [ query, cell ... ] ... ].
sub read_page
{
	my ($text, @machines) = @_;
	my $names = join '|', map { quotemeta } @machines;
	my @steps;

	while ($text =~ /^```(\w+)(.*)\n((?:(?!```).*\n)*)```$|^((?:\|.*\n){3,})/mg)
	{
		my ($kind, $where, $body, $table) = ($1, $2, $3, $4);

		if (defined $table)
		{
			my ($head, $rule, @rows) = map { [ cells($_) ] } split /\n/, $table;

			next if $head->[0] ne 'query';
			shift @$head;
			push @steps, { kind => 'table', machines => $head, rows => \@rows };
			next;
		}
		if ($kind eq 'text' && $where !~ /\S/ && @steps)
		{
			$steps[-1]{shown} = $body =~ s/\s+\z//r;
			next;
		}
		push @steps,
		  {
			kind => $kind,
			text => $body,
			machines => [ $where =~ /\b($names)\b/g ],
			file => $where =~ /(\S+\.conf)/ ? $1 : undef,
			mistake => scalar($where =~ /\bmistake\b/)
		  };
	}
	return @steps;
}

# A table's line as cells, without the marks of code.
sub cells
{
	my ($line) = @_;

	$line =~ s/\A\|\s*|\s*\|\s*\z//g;
	return map { s/`//gr } split /\s*\|\s*/, $line, -1;
}

# What is shown as a pattern; "..." stands for anything.
sub pattern_of
{
	my ($text) = @_;
	my $pattern = quotemeta $text;

	$pattern =~ s/(?:\\\.){3}/.*/g;
	return qr/$pattern/;
}

# Tests that a block does and prints what is shown (a pattern; undef:
# anything but an error). $run returns what was printed and the status. What
# only looks is looked at again until it is as shown.
sub follow_block
{
	my ($name, $text, $shown, $run) = @_;
	my ($line) = split /\n/, $text;
	my ($out, $status);
	my $once = sub {
		($out, $status) = $run->();
		return defined $shown ? $out =~ /\A$shown\s*\z/ : $status == 0;
	};

	if (defined $shown && $text =~ /\A(?:SELECT|TABLE)\b/)
	{
		eval { wait_for($text, $once) };
	}
	else { $once->(); }
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($out, qr/\A$shown\s*\z/, "$name: $line") if defined $shown;
	return is($status, 0, "$name: $line") || diag $out;
}

1;
