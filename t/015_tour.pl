# docs/tour.md, step by step on two clusters.
#
# Promise: every command of the tour works in the order in which it stands,
# every output is what the tour shows, and each mistake that it explains is
# met with the message that stands there.
#
# How blocks are marked: Entanglement::Page.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Page;

my $tour = slurp_file("$FindBin::RealBin/../docs/tour.md");
my $folder = PostgreSQL::Test::Utils::tempdir_short;
my $user = getpwuid $>;
my %cluster = map { $_ => PostgreSQL::Test::Cluster->new($_) } qw(hub alice);

foreach my $name (sort keys %cluster)
{
	mkdir "$folder/$name" or die "$folder/$name: $!";
	$cluster{$name}->init;
	Entanglement::Node::set_hba($cluster{$name}, '');
	$cluster{$name}->start;
}

# ---- from the tour's machines to two clusters on loopback ----

sub here
{
	my ($name, $text) = @_;
	my $port = $cluster{hub}->port;
	my $pg_ctl = sprintf "pg_ctl -s -w -D '%s' -l '%s'",
	  $cluster{$name}->data_dir, $cluster{$name}->logfile;

	$text =~ s/\bsudo systemctl (\w+) postgresql\@15-main/$pg_ctl $1/g;
	$text =~ s/\bscp\b/cp/g;
	$text =~ s{hub\.example:/var/lib/postgresql}{$folder/hub}g;
	$text =~ s{/var/lib/postgresql}{$folder/$name}g;
	$text =~ s/hub\.example/localhost/g;
	$text =~ s{192\.0\.2\.7/32}{127.0.0.1/32}g;
	$text =~ s/(listen_addresses = )'\*'/$1'127.0.0.1'/;
	$text =~ s/port=5432/port=$port/g;
	$text =~ s/ postgres / $user /g;
	return $text;
}

sub as_pattern
{
	my ($name, $text) = @_;

	return pattern_of(here($name, $text));
}

# ---- a block on a machine; what it prints ----

sub run_block
{
	my ($kind, $name, $text) = @_;
	my @command =
	  $kind eq 'sql'
	  ? qw(psql -X -v ON_ERROR_STOP=1 -d app)
	  : qw(bash -eu);
	my $out = '';

	local %ENV = $cluster{$name}->_get_env(PGAPPNAME => undef);
	IPC::Run::run(\@command, '<', \here($name, $text), '>&', \$out,
		IPC::Run::timeout(deadline()));
	return ($out, $?);
}

sub look
{
	my ($name, $query) = @_;

	return $cluster{$name}->safe_psql('app', here($name, $query));
}

# Lines of a file: pg_hba.conf's go to the top, where they count first.
sub configure
{
	my ($name, $file, $text) = @_;
	my $path = $cluster{$name}->data_dir . "/$file";
	my $old = slurp_file($path);

	$text = here($name, $text);
	open my $fh, '>', $path or die "$path: $!";
	print $fh $file eq 'pg_hba.conf' ? $text . $old : $old . $text;
	close $fh or die "$path: $!";
	return;
}

sub follow
{
	my ($kind, $name, $text, $shown) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return follow_block($name, $text, $shown,
		sub { run_block($kind, $name, $text) });
}

# ---- the mistakes: how each is made, where its message shows, the mend ----

my $error = q(SELECT last_error FROM entanglement.peers);
my @mistakes = (
	{
		make => sub { preload('') },
		see => sub { (run_block('sql', 'alice', 'SELECT entanglement.drain()'))[0] },
		mend => sub { preload('entanglement') }
	},
	{
		make => sub { dial('host=hub.example', 'host=127.0.0.1') },
		see => sub { look('alice', $error) },
		mend => sub { dial() }
	},
	{
		make => sub { dial('dbname=app', 'dbname=postgres') },
		see => sub { look('alice', $error) },
		mend => sub { dial() }
	},
	{
		make => sub {
			run_block('sh', 'hub', <<'SH');
cd /var/lib/postgresql/tls
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -subj "/CN=alice.example" -keyout other.key -out other.csr
openssl x509 -req -in other.csr -CA ca.crt -CAkey ca.key -out other.crt
SH
			run_block('sh', 'alice',
				"cd /var/lib/postgresql/tls; scp hub.example:/var/lib/postgresql/tls/other.* .");
			dial('tls/alice.', 'tls/other.');
		},
		see => sub { look('alice', $error) },
		mend => sub { dial() }
	},
	{
		make => sub { key_mode(640) },
		see => sub { look('alice', $error) },
		mend => sub { key_mode(600) }
	},
	{
		make => sub { look('hub', q(SELECT entanglement.drop_peer('alice'))) },
		see => sub { look('alice', $error) },
		mend => sub {
			look('hub', q(SELECT entanglement.add_peer('alice', role => 'alice')));
		}
	},
	{
		make => sub {
			look('hub', <<'SQL');
CREATE TABLE buoy (id int PRIMARY KEY);
GRANT SELECT, INSERT, UPDATE, DELETE ON buoy TO alice;
SELECT entanglement.synchronize('buoy');
SQL
		},
		see => sub { look('alice', 'SELECT waiting_for FROM entanglement.peers') },
		mend => sub { look('hub', 'DROP TABLE buoy') }
	},
	{
		make => sub {
			look('alice', 'REVOKE INSERT ON location FROM hub');
			look('hub', "INSERT INTO location VALUES (3, 'rock', 1, 1)");
		},
		see => sub {
			look('alice',
				q(SELECT sqlstate || ': ' || message FROM entanglement.parked_rows));
		},
		mend => sub {
			look('alice', 'GRANT INSERT ON location TO hub');
			look('hub', 'DELETE FROM location WHERE id = 3');
			follow('sql', 'alice',
				'SELECT count(*) FROM entanglement.parked_rows', qr/.*\b0\b.*/s);
		}
	});

sub preload
{
	my ($library) = @_;

	configure('alice', 'postgresql.conf',
		"shared_preload_libraries = '$library'\n");
	run_block('sh', 'alice', 'sudo systemctl restart postgresql@15-main');
	return;
}

sub key_mode
{
	my ($mode) = @_;

	run_block('sh', 'alice', "chmod $mode /var/lib/postgresql/tls/alice.key");
	look('alice', "SELECT entanglement.pause_peer('hub')");
	look('alice', "SELECT entanglement.resume_peer('hub')");
	return;
}

# Changes what alice dials, from the conninfo of the tour.
sub dial
{
	my ($from, $to) = @_;
	my ($conninfo) = $tour =~ /conninfo =>\s+'([^']+)'/;

	$conninfo =~ s/\Q$from\E/$to/g if defined $from;
	look('alice',
		"SELECT entanglement.alter_peer('hub', conninfo => '$conninfo')");
	return;
}

sub mistake
{
	my ($shown) = @_;
	my $m = shift @mistakes or return fail('the tour explains a mistake more');
	my $said = '';

	$m->{make}->();
	eval {
		wait_for('message', sub { ($said = $m->{see}->()) =~ $shown });
	};
	like($said, $shown, 'a mistake is met with what the tour shows');
	$m->{mend}->();
	return;
}

# ---- the tour ----

my @blocks = read_page($tour, qw(hub alice));
cmp_ok(scalar @blocks, '>', 30, 'the tour has blocks');

foreach my $block (@blocks)
{
	if ($block->{mistake})
	{
		mistake(as_pattern('alice', $block->{text} =~ s/\s+\z//r));
		next;
	}
	foreach my $name (@{ $block->{machines} })
	{
		if ($block->{file})
		{
			configure($name, $block->{file}, $block->{text});
			next;
		}
		follow($block->{kind}, $name, $block->{text},
			defined $block->{shown} ? as_pattern($name, $block->{shown}) : undef);
	}
}
is(scalar @mistakes, 0, 'the tour explains every mistake');

done_testing();
