# Entanglement::Stream
#	  A stream by hand, for tests that play a peer: PostgreSQL's protocol as far
#	  as it is needed, on a Unix socket that trusts.

package Entanglement::Stream;

use strict;
use warnings;

use Carp;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;

# new($cluster, $database, $role)
sub new
{
	my ($class, $cluster, $database, $role) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $cluster->host . '/.s.PGSQL.' . $cluster->port)
	  or croak "no connection: $!";
	my $self = bless { socket => $socket }, $class;
	my $startup = pack('N', 196608) . "user\0$role\0database\0$database\0\0";

	$self->raw(pack('N', 4 + length $startup) . $startup);
	$self->until('Z');
	return $self;
}

sub raw { $_[0]->{socket}->syswrite($_[1]); return; }
sub message { my ($self, $type, $body) = @_; return $self->raw($type . pack('N', 4 + length $body) . $body); }
sub data { return $_[0]->message('d', $_[1]); }
sub close { CORE::close($_[0]->{socket}); return; }

sub _read
{
	my ($self, $n) = @_;
	my $out = '';
	my $vector = '';

	vec($vector, fileno $self->{socket}, 1) = 1;
	while (length $out < $n)
	{
		select(my $ready = $vector, undef, undef, $PostgreSQL::Test::Utils::timeout_default) > 0 or croak 'nothing comes';
		$self->{socket}->sysread(my $more, $n - length $out) or return;
		$out .= $more;
	}
	return $out;
}

# The next message: type, body; nothing when the server has hung up. Notices and
# what it says of itself are passed over.
sub next
{
	my ($self) = @_;

	while (1)
	{
		my $head = $self->_read(5) // return;
		my ($type, $length) = unpack 'a N', $head;
		my $body = $length > 4 ? $self->_read($length - 4) // return : '';

		return ($type, $body) if $type !~ /[NSKRA]/ || ($type eq 'R' && unpack('N', $body) != 0);
	}
}

# Up to a message of that type; returns all of them, [type, body] each. An error
# is one more that ends it.
sub until
{
	my ($self, $type) = @_;
	my @all;

	while (my ($t, $body) = $self->next)
	{
		push @all, [ $t, $body ];
		last if $t eq $type || ($t eq 'E' && $type ne 'Z');
	}
	return @all;
}

# The body of the next CopyData; an error's SQLSTATE and message instead.
sub receive
{
	my ($self) = @_;
	my ($type, $body) = $self->next;

	return '' unless defined $type;
	return $body if $type eq 'd';
	return join ' ', map { $body =~ /\0?$_([^\0]*)\0/ ? $1 : '' } qw(C M) if $type eq 'E';
	return "message $type";
}

sub query
{
	my ($self, $sql) = @_;

	$self->message('Q', "$sql\0");
	return $self->until('Z');
}

# Turns the connection into a stream.
sub begin
{
	my ($self, $direction) = @_;

	$self->message('Q', "CALL entanglement.stream('$direction')\0");
	my @answer = $self->until('W');
	croak 'no stream' unless $answer[-1][0] eq 'W';
	return;
}

1;
