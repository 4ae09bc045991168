# Entanglement::Wire
#	  Batches by hand, for tests that play a peer: docs/protocol.md in Perl.
#
# Writers return bytes; read_batch takes a batch apart. Only what tests need.

package Entanglement::Wire;

use strict;
use warnings;

use Carp;
use Exporter 'import';

our @EXPORT = qw(varint zigzag bytes section batch hello owner table objects row
  claim present want arrears again confirm gone homes table_state seek_beyond
  request uuid literal read_batch);

sub varint
{
	my ($n) = @_;
	my $out = '';

	for (; $n >= 128; $n >>= 7) { $out .= chr(($n & 127) | 128); }
	return $out . chr $n;
}

sub zigzag { return varint($_[0] < 0 ? -2 * $_[0] - 1 : 2 * $_[0]); }
sub bytes { return varint(length $_[0]) . $_[0]; }
sub uuid { return pack 'H*', $_[0] =~ s/-//gr; }
sub literal { return q('\\x) . unpack('H*', $_[0]) . q('); }

sub section { return chr($_[0]) . bytes($_[1]); }

sub batch
{
	my ($number, @sections) = @_;

	return "\xE7" . varint(1) . varint(0) . varint($number) . join '', @sections;
}

sub hello
{
	my ($node, $name) = @_;

	return batch(0,
		section(1, varint(1) . varint(1) . uuid($node) . bytes($name) . bytes('by hand')));
}

# number, id, home, name, epoch, serial, distance, lost
sub owner
{
	my (%o) = @_;

	return section(2,
		    varint($o{number})
		  . uuid($o{id})
		  . uuid($o{home})
		  . bytes($o{name})
		  . varint($o{epoch} // 1)
		  . varint($o{serial} // 0)
		  . varint($o{distance} // 0)
		  . chr($o{lost} // 0));
}

# number, schema, name, columns => [[name, type, format, key], ...]
sub table
{
	my (%t) = @_;
	my @columns = @{ $t{columns} };
	my $keys = grep { $_->[3] } @columns;

	return section(
		3,
		join '',
		varint($t{number}),
		bytes($t{schema} // 'public'),
		bytes($t{name}),
		varint($keys),
		varint(scalar @columns),
		map {
				bytes($_->[0])
			  . bytes('pg_catalog')
			  . bytes($_->[1])
			  . chr($_->[2])
			  . varint($_->[3])
		} @columns);
}

sub objects
{
	my ($table, $owner, $epoch, @rows) = @_;

	return section(4, varint($table) . varint($owner) . varint($epoch) . join '', @rows);
}

# op: operation and flags; serial: difference; key: its columns; base: serial
# minus base; set: bitmap; heir, from: [id, epoch, serial]; values: undef is NULL
sub row
{
	my (%r) = @_;

	my $flags = (defined $r{heir} ? 0x10 : 0) | (defined $r{from} ? 0x20 : 0);

	return join '', chr(($r{op} // 2) | $flags), zigzag($r{serial}),
	  bytes(join '', map { bytes($_) } @{ $r{key} }),
	  (defined $r{set} ? (varint($r{behind} // 0), bytes($r{set})) : ()),
	  (map { uuid($_->[0]) . varint($_->[1]) . varint($_->[2]) } grep { defined $_ } @r{qw(heir from)}),
	  map { defined $_ ? varint(1 + length $_) . $_ : varint(0) }
	  @{ $r{values} // [] };
}

sub claim { return section(5, join '', map { varint($_) } @_); }

# owner, table, serial, lo, hi: key images or undef, then keys: key images
sub present
{
	my ($owner, $table, $serial, $lo, $hi, @keys) = @_;

	return section(7,
		join '', varint($owner), varint($table), varint($serial),
		chr((defined $lo ? 1 : 0) | (defined $hi ? 2 : 0)),
		map { bytes($_) } grep { defined $_ } $lo, $hi, @keys);
}

# owner, wanted, epoch, have
sub want { return section(8, varint($_[0]) . chr($_[1]) . varint($_[2]) . varint($_[3])); }

# owner, table
sub arrears { return section(9, varint($_[0]) . varint($_[1])); }

# id, home, epoch
sub gone { return section(24, uuid($_[0]) . uuid($_[1]) . varint($_[2])); }

# how many at home, then ids of those elsewhere
sub homes { my ($here, @ids) = @_; return section(25, varint($here) . join '', map { uuid($_) } @ids); }

# table, known
sub table_state { return section(10, varint($_[0]) . chr($_[1])); }

# table, owner, key image
sub again { return section(11, varint($_[0]) . varint($_[1]) . bytes($_[2])); }

# table, owner, key image, epoch, serial, from: [id, epoch, serial]
sub confirm
{
	my ($table, $owner, $key, $epoch, $serial, $from) = @_;

	return section(17, varint($table) . varint($owner) . bytes($key) . varint($epoch) . varint($serial)
		  . uuid($from->[0]) . varint($from->[1]) . varint($from->[2]));
}

# owner, epoch, serial
sub seek_beyond { return section(0x50, join '', map { varint($_) } @_); }

# number: of the request; owner: id; op: 0 create, 1 forward, 2 delete; table;
# key: how many of the fields that follow, [name, value] each, are the key's
sub request
{
	my (%r) = @_;
	my @fields = @{ $r{fields} };

	return section(13,
		join '', pack('x12 N', $r{number}), uuid($r{owner}), chr($r{op}), varint(60_000),
		bytes($r{schema} // 'public'), bytes($r{table}), varint($r{key} // 0),
		varint(@fields - ($r{key} // 0)),
		map { (bytes($_->[0]), defined $_->[1] ? varint(1 + length $_->[1]) . $_->[1] : varint(0)) } @fields);
}

# ---- taking apart ----

sub _varint
{
	my ($r) = @_;
	my ($v, $shift) = (0, 0);

	while (1)
	{
		my $c = ord substr $$r, 0, 1, '';

		$v |= ($c & 127) << $shift;
		return $v if $c < 128;
		$shift += 7;
	}
}

sub _bytes
{
	my ($r) = @_;

	return substr $$r, 0, _varint($r), '';
}

# number => , sections => [{ type =>, body =>, and for OWNER, TABLE, CLAIM and
# PRESENT their first fields }]
sub read_batch
{
	my ($data) = @_;
	my @sections;

	croak 'no batch' if substr($data, 0, 3, '') ne "\xE7\x01\x00";
	my $number = _varint(\$data);
	while (length $data)
	{
		my $type = ord substr $data, 0, 1, '';
		my $body = _bytes(\$data);
		my %s = (type => $type, body => $body);

		if ($type == 2)
		{
			$s{number} = _varint(\$body);
			$s{id} = unpack 'H*', substr $body, 0, 16, '';
			$s{home} = unpack 'H*', substr $body, 0, 16, '';
			$s{name} = _bytes(\$body);
			@s{qw(epoch serial distance)} = map { _varint(\$body) } 1 .. 3;
			$s{lost} = ord $body;
		}
		elsif ($type == 3)
		{
			$s{number} = _varint(\$body);
			@s{qw(schema name)} = map { _bytes(\$body) } 1 .. 2;
		}
		elsif ($type == 5)
		{
			@s{qw(owner epoch serial)} = map { _varint(\$body) } 1 .. 3;
		}
		elsif ($type == 7)
		{
			@s{qw(owner table serial)} = map { _varint(\$body) } 1 .. 3;
			my $bits = ord substr $body, 0, 1, '';

			$s{lo} = _bytes(\$body) if $bits & 1;
			$s{hi} = _bytes(\$body) if $bits & 2;
			push @{ $s{keys} }, _bytes(\$body) while length $body;
		}
		push @sections, \%s;
	}
	return { number => $number, sections => \@sections };
}

1;
