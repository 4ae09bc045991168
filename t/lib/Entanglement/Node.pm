# Entanglement::Node
#	  A node for tests: a database with the extension, in a cluster of its own
#	  (TLS on loopback) or beside others in one cluster (Unix socket), and what
#	  tests ask of it.
#
# Waiting is always for a condition, with a deadline. Roles stand for nodes of
# the same name, and may read and write every table of schema public.

package Entanglement::Node;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use Entanglement::PKI;

our @EXPORT = qw(link_nodes conninfo wait_for converge deadline);

# Settings that make links notice and retry quickly.
my $quick = <<'CONF';
shared_preload_libraries = 'entanglement'
max_worker_processes = 32
max_prepared_transactions = 8
wal_level = minimal
shared_buffers = 64MB
max_wal_size = 512MB
log_statement = none
log_min_duration_statement = -1
autovacuum_naptime = 5s
entanglement.heartbeat = 500
entanglement.dead_after = 3000
entanglement.connect_timeout = 3000
entanglement.reconnect_max = 500
entanglement.retry_parked = 500
entanglement.prune_interval = 500
CONF

# Seconds any wait may take.
sub deadline
{
	return $ENV{PG_TEST_TIMEOUT_DEFAULT} || 60;
}

# Polls $condition (a sub) until it returns true; dies with $what otherwise,
# after printing what $explain (a sub, optional) says.
sub wait_for
{
	my ($what, $condition, $explain) = @_;
	my $end = Time::HiRes::time() + deadline();
	my $pause = 5_000;

	while (1)
	{
		my $value = $condition->();
		return $value if $value;
		last if Time::HiRes::time() > $end;
		Time::HiRes::usleep($pause);
		$pause = $pause * 2 > 100_000 ? 100_000 : $pause * 2;
	}
	diag "no $what within " . deadline() . ' s';
	diag $explain->() if $explain;
	croak "timed out waiting for $what";
}

# ---- making nodes ----

# A cluster without nodes. Options: conf => lines, pki => an authority (then
# it listens on 127.0.0.1 with TLS), hba => lines instead of the usual ones,
# initdb => [options]
sub cluster
{
	my ($class, $name, %o) = @_;
	my $cluster = PostgreSQL::Test::Cluster->new($name);

	$cluster->init(extra => $o{initdb} // [ '--no-locale', '-E', 'UTF8' ]);
	$cluster->append_conf('postgresql.conf', $quick);
	if ($o{pki})
	{
		my $pki = $o{pki};

		$pki->server("$name-server") unless -e $pki->crt("$name-server");
		$cluster->append_conf(
			'postgresql.conf',
			"listen_addresses = '127.0.0.1'\nssl = on\n"
			  . "ssl_ca_file = '" . $pki->ca . "'\n"
			  . tls_conf($pki, "$name-server"));
	}
	$cluster->append_conf('postgresql.conf', $o{conf}) if $o{conf};
	set_hba($cluster,
		$o{hba} // ($o{pki} ? ('hostssl all all 127.0.0.1/32 cert') : ''));
	$cluster->start;
	return $cluster;
}

# Settings that make $file the server's certificate.
sub tls_conf
{
	my ($pki, $file) = @_;

	return "ssl_cert_file = '" . $pki->crt($file) . "'\n"
	  . "ssl_key_file = '" . $pki->key($file) . "'\n";
}

# The Unix socket is open to all roles, TCP as the lines say.
sub set_hba
{
	my ($cluster, $lines) = @_;
	my $file = $cluster->data_dir . '/pg_hba.conf';

	open my $fh, '>', $file or die "$file: $!";
	print $fh "local all all trust\n$lines\n";
	close $fh or die "$file: $!";
	return;
}

# create(name, pki => authority, conf => lines): a node in a cluster of its
# own. The database has the node's name.
sub create
{
	my ($class, $name, %o) = @_;
	my $cluster = $class->cluster($name, %o);
	my $self = $class->database($cluster, $name, %o);

	$self->{own} = 1;
	if ($o{pki})
	{
		$self->{pki} = $o{pki};
		$o{pki}->client($name) unless -e $o{pki}->crt($name);
	}
	return $self;
}

# database(cluster, name, encoding => ): a node beside others in a cluster
sub database
{
	my ($class, $cluster, $name, %o) = @_;
	my $self = bless { cluster => $cluster, name => $name, db => $name }, $class;

	$cluster->safe_psql('postgres',
			qq(CREATE DATABASE "$name" TEMPLATE template0)
		  . ($o{encoding} ? " ENCODING '$o{encoding}' LOCALE 'C'" : ''));
	return $self if $o{bare};
	$self->sql('CREATE EXTENSION entanglement');
	$self->sql("SELECT entanglement.set_node_name('$name')");
	return $self;
}

sub cluster_of { return $_[0]->{cluster}; }
sub name { return $_[0]->{name}; }
sub db { return $_[0]->{db}; }
sub pki { return $_[0]->{pki}; }

# ---- talking to a node ----

# Runs statements; returns what psql prints; dies on the first error.
sub sql
{
	my ($self, $sql, %o) = @_;

	return $self->{cluster}->safe_psql($self->{db}, $sql, %o);
}

# The same statements for each table, whose name is ? in them.
sub sql_each
{
	my ($self, $sql, @tables) = @_;

	return $self->sql(join ';', map { $sql =~ s/\?/$_/gr } @tables);
}

# Runs statements; returns (exit code, output, error text with SQLSTATE).
sub try
{
	my ($self, $sql, %o) = @_;
	my ($out, $err) = ('', '');
	my $rc = $self->{cluster}->psql(
		$self->{db}, $sql,
		stdout => \$out,
		stderr => \$err,
		extra_params => [ '-v', 'VERBOSITY=verbose' ],
		%o);

	return ($rc, $out, $err);
}

# A psql session that stays open (PostgreSQL::Test::BackgroundPsql).
sub session
{
	my ($self) = @_;

	return $self->{cluster}->background_psql($self->{db}, on_error_stop => 0);
}

# Tests that $sql fails with that SQLSTATE and a message that matches.
sub fails
{
	my ($self, $sql, $state, $message, $name) = @_;
	my ($rc, $out, $err) = $self->try($sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($err, qr/ERROR:  $state: .*$message/s, $name);
}

# Waits until $query returns $expected ('t'); dies at the deadline. A test
# that passes, named $what.
sub wait_until
{
	my ($self, $query, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->_await($query, $expected, $what);
	return pass("$self->{name}: $what");
}

sub _await
{
	my ($self, $query, $expected, $what) = @_;
	my ($out, $err);

	return wait_for(
		"$self->{name}: $what",
		sub {
			$out = $err = '';
			$self->{cluster}->psql(
				$self->{db}, $query,
				stdout => \$out,
				stderr => \$err,
				timeout => deadline(),
				timed_out => \my $late);
			return $out eq $expected && $err eq '';
		},
		sub {
			return "query: $query\nexpected: $expected\ngot: $out\n$err\n"
			  . $self->report;
		});
}

# What a person would look at first.
sub report
{
	my ($self) = @_;
	my $text = '';

	foreach my $q (
		'SELECT name, state, last_error, waiting_for, queued, oldest, bytes_sent, bytes_received, objects_sent, objects_received FROM entanglement.peers',
		'SELECT name, local, peer, distance, epoch, serial, have FROM entanglement.owners',
		'SELECT * FROM entanglement.parked',
		'SELECT * FROM entanglement.arrears',
		'SELECT w.name, count(*), min(t.serial), max(t.serial) FROM entanglement.tombstone t JOIN entanglement.owner w ON w.no = t.owner GROUP BY w.name',
		'SELECT p.name, w.name, h.epoch, h.have FROM entanglement.peer_owner h JOIN entanglement.owner w ON w.no = h.owner JOIN entanglement.peer p ON p.no = h.peer ORDER BY 1, 2',
		'SELECT count(*) AS changes FROM entanglement.change',
		"SELECT q.id, q.state, q.op, o.name AS owner, q.peers, q.untold, q.sent_to, q.carrier, q.joint, q.alone FROM entanglement.request q LEFT JOIN entanglement.owner o ON o.no = q.owner WHERE q.state IN ('waiting', 'sent', 'applied') OR q.untold <> '{}'",
		"SELECT pid, usename, backend_type, state, wait_event, left(query, 60) FROM pg_stat_activity WHERE datname = current_database() OR backend_type ~ 'entangl'"
	  )
	{
		my ($out, $err) = ('', '');

		$self->{cluster}->psql(
			$self->{db}, $q,
			stdout => \$out,
			stderr => \$err,
			timeout => 10,
			timed_out => \my $late);
		$text .= "$self->{name}: $q\n$out$err\n";
	}
	return $text;
}

# One row of the peers view as a hash, intervals and times as text.
sub peer
{
	my ($self, $peer) = @_;
	my $json = $self->sql(
		"SELECT to_jsonb(p) FROM entanglement.peers p WHERE name = '$peer'");

	return $json eq '' ? undef : JSON::PP::decode_json($json);
}

# Difference of two peer() results, counter by counter.
sub counted
{
	my ($before, $after) = @_;

	return {
		map { $_ => $after->{$_} - $before->{$_} }
		  qw(bytes_sent bytes_received batches_sent batches_received
		  objects_sent objects_received coalesced)
	};
}

# Everything committed here so far is durable at the peer (NULL: at all).
sub drain
{
	my ($self, $peer) = @_;
	my $arg = defined $peer ? "'$peer'" : 'NULL';
	my $ok = $self->sql(
		"SELECT entanglement.drain($arg, '" . deadline() . " s')");

	croak "$self->{name} could not drain "
	  . ($peer // 'to all') . "\n"
	  . $self->report
	  if $ok ne 't';
	return 1;
}

sub wait_connected
{
	my ($self, $peer) = @_;

	return $self->_await(
		"SELECT state FROM entanglement.peers WHERE name = '$peer'",
		'connected', "link to $peer");
}

sub wait_state
{
	my ($self, $peer, $state) = @_;

	return $self->_await(
		"SELECT state FROM entanglement.peers WHERE name = '$peer'",
		$state, "state $state of $peer");
}

# Everything captured has been folded.
sub wait_folded
{
	my ($self) = @_;

	return $self->_await('SELECT count(*) = 0 FROM entanglement.change',
		't', 'fold');
}

# ---- looking at rows and versions ----

# Settings under which equal values of two nodes print equally, whatever
# their databases and roles are set to.
sub plain
{
	return <<'SQL';
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content';
SET quote_all_identifiers = off; SET search_path = public; SET lc_monetary = 'C';
SQL
}

# Number of rows and ordered hash of a table (or of these columns of it).
sub digest
{
	my ($self, $table, $columns) = @_;
	my $from =
	  defined $columns ? "(SELECT $columns FROM $table) t" : "$table t";

	return $self->sql(plain() . <<"SQL");
SELECT count(*) || ':' || coalesce(md5(string_agg(md5(t::text), ''
	ORDER BY t::text COLLATE "C")), '-') FROM $from
SQL
}

# The objects of a table with owner, epoch, serial: one line each, by key.
sub versions
{
	my ($self, $table) = @_;

	return $self->sql(<<"SQL");
SELECT encode(o.key, 'hex'), w.name, w.id, o.epoch, o.serial
  FROM entanglement.object o
  JOIN entanglement.owner w ON w.no = o.owner
  JOIN entanglement.relation r ON r.no = o.rel
 WHERE r.relid = '$table'::regclass
 ORDER BY o.key
SQL
}

# Runs statements and synchronizes the tables named.
sub define
{
	my ($self, $ddl, @tables) = @_;

	$self->sql($ddl) if $ddl ne '';
	$self->sql("SELECT entanglement.synchronize('$_')") foreach @tables;
	return;
}

# Writes down every value that apply stores in a table: a table audit_$table
# with the operation, the time and the row as jsonb, in order of arrival.
sub audit
{
	my ($self, $table) = @_;

	$self->sql(<<"SQL");
CREATE TABLE audit_$table (n bigint GENERATED ALWAYS AS IDENTITY, op text,
	body jsonb, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION audit_$table() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS \$\$
BEGIN
	INSERT INTO public.audit_$table (op, body)
		VALUES (tg_op, to_jsonb(CASE tg_op WHEN 'DELETE' THEN old ELSE new END));
	RETURN NULL;
END \$\$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON $table
	FOR EACH ROW EXECUTE FUNCTION audit_$table();
ALTER TABLE $table ENABLE ALWAYS TRIGGER audit;
SQL
	return;
}

# ---- several nodes ----

# The role that stands for a node of that name, with rights on public.
sub allow_peer
{
	my ($self, $role, $login) = @_;
	my $kind = $login ? 'LOGIN' : 'NOLOGIN';

	$self->sql(<<"SQL");
DO \$\$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$role') THEN
		CREATE ROLE "$role" $kind;
	ELSIF '$kind' = 'LOGIN' THEN
		ALTER ROLE "$role" LOGIN;
	END IF;
END \$\$;
GRANT USAGE ON SCHEMA public TO "$role";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "$role";
ALTER DEFAULT PRIVILEGES IN SCHEMA public
	GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "$role";
SQL
	return;
}

# How $from dials $to. Options: host, port, role, sslmode and any other
# libpq parameter (undef removes one).
sub conninfo
{
	my ($from, $to, %o) = @_;
	my %p = (dbname => $to->db, user => $from->name);

	if ($from->pki && $to->pki)
	{
		%p = (
			%p,
			host => 'localhost',
			port => $to->cluster_of->port,
			sslmode => 'verify-full',
			sslrootcert => $from->pki->ca,
			sslcert => $from->pki->crt($from->name),
			sslkey => $from->pki->key($from->name));
		# names resolve differently from machine to machine
		$p{hostaddr} = '127.0.0.1';
	}
	else
	{
		%p = (
			%p,
			host => $to->cluster_of->host,
			port => $to->cluster_of->port);
	}
	%p = (%p, %o);
	return join ' ', map { "$_='$p{$_}'" } grep { defined $p{$_} } sort keys %p;
}

# $from dials $to; options as for conninfo, and nowait => 1.
sub link_nodes
{
	my ($from, $to, %o) = @_;
	my $nowait = delete $o{nowait};
	my $info = conninfo($from, $to, %o);

	$to->allow_peer($from->name, 1);
	$from->allow_peer($to->name, 0);
	$info =~ s/'/''/g;
	$to->sql("SELECT entanglement.add_peer('"
		  . $from->name
		  . "', NULL, '"
		  . $from->name
		  . "')");
	$from->sql("SELECT entanglement.add_peer('"
		  . $to->name
		  . "', '$info', '"
		  . $to->name
		  . "')");
	return if $nowait;
	$from->wait_connected($to->name);
	$to->wait_connected($from->name);
	return;
}

# Tests that tables are, or become, equal on all nodes. $tables: names, or
# name => columns in a hash.
sub converge
{
	my ($nodes, $tables, $name) = @_;
	my %columns = ref $tables eq 'HASH' ? %$tables : map { $_ => undef } @$tables;
	my (@seen, $bad);
	my $ok = eval {
		wait_for(
			$name,
			sub {
				foreach my $table (sort keys %columns)
				{
					@seen =
					  map { $_->digest($table, $columns{$table}) } @$nodes;
					$bad = $table;
					return 0 if grep { $_ ne $seen[0] } @seen;
				}
				return 1;
			});
	};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(1, $name) if $ok;
	diag $@;
	diag "$bad: "
	  . join ' ', map { $nodes->[$_]->name . " $seen[$_]" } 0 .. $#seen;
	diag $_->report foreach @$nodes;
	return ok(0, $name);
}

# Process ids of entanglement's workers whose backend_type matches.
sub workers
{
	my ($self, $pattern) = @_;
	my $pids = $self->sql(<<"SQL");
SELECT pid FROM pg_stat_activity
 WHERE backend_type ~ 'entanglement' AND backend_type ~ '$pattern'
 ORDER BY pid
SQL
	return split /\n/, $pids;
}

# Text that was logged since the mark (log_mark), and the mark.
sub log_mark
{
	my ($self) = @_;

	return -s $self->{cluster}->logfile || 0;
}

sub log_since
{
	my ($self, $mark) = @_;

	return slurp_file($self->{cluster}->logfile, $mark);
}

1;
