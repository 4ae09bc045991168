# Entanglement::Proxy
#	  A TCP relay on loopback, in a process of its own, that can do to a link
#	  what networks do: cut it after so many bytes, freeze it, refuse it; and
#	  write down what passes.
#
# Each command is answered, so that its effect is there when the method
# returns. Core Perl only. "up" is from who connects to the proxy towards the
# target, "down" the other way.

package Entanglement::Proxy;

use strict;
use warnings;

use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);

# Bytes read and kept in one direction at a time; small, so that a frozen
# link holds little.
use constant CHUNK => 16 * 1024;

# new(host => , port => ): a relay to that address. record => a folder: for what
# passes, a file for each connection and direction.
sub new
{
	my ($class, %o) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 16,
		Proto => 'tcp') or die "could not listen: $@";

	socketpair(my $mine, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
	  or die "socketpair: $!";
	$_->autoflush(1) for $mine, $theirs;

	my $pid = fork;
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		close $mine;
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', '/dev/null';
		$SIG{PIPE} = 'IGNORE';
		my $ok = eval {
			_serve(
				{
					listener => $listener,
					control => $theirs,
					host => $o{host} // '127.0.0.1',
					port => $o{port},
					record => $o{record},
					mode => 'open',
					pairs => [],
					bytes => { up => 0, down => 0 },
					budget => {},
					conns => 0,
					cuts => 0
				});
			1;
		};
		print STDERR "proxy: $@" unless $ok;
		POSIX::_exit($ok ? 0 : 1);
	}
	close $theirs;
	return bless {
		pid => $pid,
		control => $mine,
		port => $listener->sockport,
		parent => $$
	}, $class;
}

sub port { return $_[0]->{port}; }

# Resets all connections and refuses new ones until open.
sub cut { return $_[0]->_command('cut'); }

# Lets everything pass; forgets budgets.
sub open { return $_[0]->_command('open'); }

# Nothing passes, nothing is closed.
sub freeze { return $_[0]->_command('freeze'); }

# Cuts when that many more bytes have passed in that direction.
sub cut_after { return $_[0]->_command("after $_[1] $_[2]"); }

# Hash of up and down (bytes passed), conns (connections so far), cuts, live.
sub stats
{
	my ($self) = @_;
	my @s = split / /, $self->_command('stats');

	return {
		up => $s[0],
		down => $s[1],
		conns => $s[2],
		cuts => $s[3],
		live => $s[4]
	};
}

sub stop
{
	my ($self) = @_;

	return if !$self->{pid} || $self->{parent} != $$;
	# another proxy's process may hold a copy of the socket: closing is not enough
	$self->_command('stop');
	close $self->{control};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

sub DESTROY
{
	my ($self) = @_;

	local ($?, $!);
	$self->stop;
	return;
}

sub _command
{
	my ($self, $command) = @_;
	my $fh = $self->{control};

	print $fh "$command\n" or die "proxy is gone: $!";
	my $answer = <$fh>;
	die "proxy is gone" unless defined $answer;
	chomp $answer;
	die "proxy: $answer" unless $answer =~ s/^ok ?//;
	return $answer;
}

# ---- in the proxy's process ----

sub _serve
{
	my ($p) = @_;

	$p->{listener}->blocking(0);
	while (1)
	{
		my ($r, $w) = (IO::Select->new, IO::Select->new);

		$r->add($p->{control}, $p->{listener});
		if ($p->{mode} eq 'open')
		{
			foreach my $pair (@{ $p->{pairs} })
			{
				foreach my $way (values %$pair)
				{
					if (length $way->{buf}) { $w->add($way->{to}); }
					elsif (!$way->{eof}) { $r->add($way->{from}); }
				}
			}
		}
		my ($can_read, $can_write) = IO::Select->select($r, $w, undef);
		my %ready = map { fileno($_) => 1 } grep { defined fileno $_ }
		  @{ $can_read || [] }, @{ $can_write || [] };

		if ($ready{ fileno $p->{control} })
		{
			return unless _obey($p);
			next;
		}
		_accept($p) if $ready{ fileno $p->{listener} };
		_relay($p, \%ready) if $p->{mode} eq 'open';
	}
	return;
}

sub _obey
{
	my ($p) = @_;
	my $line = '';

	# one byte at a time: commands are short, and nothing is read ahead
	while ($line !~ /\n/)
	{
		my $n = sysread $p->{control}, my $c, 1;

		return 0 unless $n;
		$line .= $c;
	}
	my ($verb, @args) = split ' ', $line;
	my $answer = 'ok';

	if ($verb eq 'cut') { _cut($p); }
	elsif ($verb eq 'open') { $p->{mode} = 'open'; $p->{budget} = {}; }
	elsif ($verb eq 'freeze') { $p->{mode} = 'frozen'; }
	elsif ($verb eq 'after') { $p->{budget} = { $args[0] => $args[1] }; }
	elsif ($verb eq 'stop') { }
	elsif ($verb eq 'stats')
	{
		$answer .= ' '
		  . join ' ', $p->{bytes}{up}, $p->{bytes}{down}, $p->{conns},
		  $p->{cuts}, scalar @{ $p->{pairs} };
	}
	else { $answer = "unknown command $verb"; }
	syswrite $p->{control}, "$answer\n";
	return $verb ne 'stop';
}

sub _reset_socket
{
	my ($s) = @_;

	setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
	close $s;
	return;
}

sub _cut
{
	my ($p) = @_;

	$p->{mode} = 'cut';
	$p->{budget} = {};
	$p->{cuts}++;
	foreach my $pair (splice @{ $p->{pairs} })
	{
		_reset_socket($_) for $pair->{up}{from}, $pair->{up}{to};
	}
	return;
}

sub _accept
{
	my ($p) = @_;
	my $client = $p->{listener}->accept or return;

	if ($p->{mode} eq 'cut')
	{
		_reset_socket($client);
		return;
	}
	my $server = IO::Socket::INET->new(
		PeerAddr => $p->{host},
		PeerPort => $p->{port},
		Proto => 'tcp');

	if (!$server)
	{
		_reset_socket($client);
		return;
	}
	$p->{conns}++;
	foreach my $s ($client, $server)
	{
		$s->blocking(0);
		setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1;
	}
	push @{ $p->{pairs} },
	  {
		up => { from => $client, to => $server, buf => '', eof => 0 },
		down => { from => $server, to => $client, buf => '', eof => 0 }
	  };
	return unless defined $p->{record};
	foreach my $dir (qw(up down))
	{
		my $file = "$p->{record}/$p->{conns}.$dir";

		CORE::open(my $fh, '>:raw', $file) or die "$file: $!";
		$fh->autoflush(1);
		$p->{pairs}[-1]{$dir}{copy} = $fh;
	}
	return;
}

# Returns false when the pair is to be dropped.
sub _move
{
	my ($p, $dir, $way, $ready) = @_;

	if (length $way->{buf} == 0 && !$way->{eof} && $ready->{ fileno $way->{from} })
	{
		my $n = sysread $way->{from}, $way->{buf}, CHUNK;

		if (!defined $n)
		{
			return $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
		}
		if ($n == 0)
		{
			$way->{eof} = 1;
			shutdown $way->{to}, 1;
		}
	}
	if (length $way->{buf})
	{
		my $max = length $way->{buf};
		my $budget = $p->{budget}{$dir};

		$max = $budget if defined $budget && $budget < $max;
		my $n = $max > 0 ? syswrite($way->{to}, $way->{buf}, $max) : 0;

		if (!defined $n)
		{
			return $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
		}
		my $sent = substr $way->{buf}, 0, $n, '';

		print { $way->{copy} } $sent if $way->{copy};
		$p->{bytes}{$dir} += $n;
		if (defined $budget)
		{
			$p->{budget}{$dir} -= $n;
			_cut($p) if $p->{budget}{$dir} <= 0;
		}
	}
	return 1;
}

sub _relay
{
	my ($p, $ready) = @_;

	foreach my $pair (@{ [ @{ $p->{pairs} } ] })
	{
		my $ok = 1;

		foreach my $dir (qw(up down))
		{
			$ok &&= _move($p, $dir, $pair->{$dir}, $ready);
			return if $p->{mode} ne 'open';
		}
		next if $ok && !($pair->{up}{eof} && $pair->{down}{eof});
		if ($ok) { close $_ for $pair->{up}{from}, $pair->{up}{to}; }
		else { _reset_socket($_) for $pair->{up}{from}, $pair->{up}{to}; }
		@{ $p->{pairs} } = grep { $_ != $pair } @{ $p->{pairs} };
	}
	return;
}

1;
