# Links that must not come about, and what they say.
#
# Promise: a wrong authority, host name, certificate, protocol, address,
# version or node gives one precise error in entanglement.peers.last_error
# (or at once), with SQLSTATE and hint; nothing is exchanged, and everything
# else stays as it was. What is secret in a conninfo is shown to nobody.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::PKI;
use Entanglement::Proxy;

my $pki = Entanglement::PKI->new;
my $alice = Entanglement::Node->create(
	'alice',
	pki => $pki,
	conf => "entanglement.connect_timeout = 1000\n");
my $hub = Entanglement::Node->create(
	'hub',
	pki => $pki,
	hba => "hostssl all alice 127.0.0.1/32 cert\n"
	  . "hostssl all secret 127.0.0.1/32 scram-sha-256\n"
	  . 'hostnossl all alice 127.0.0.1/32 trust');
my $good = conninfo($alice, $hub);
my $table = 'CREATE TABLE item (id int PRIMARY KEY, v text)';

$alice->allow_peer('hub', 0);
$hub->allow_peer('alice', 1);
$hub->sql("SELECT entanglement.add_peer('alice', NULL, 'alice')");
$_->define($table, 'item') foreach $alice, $hub;
$alice->sql("INSERT INTO item VALUES (1, 'from alice')");
$hub->sql("INSERT INTO item VALUES (2, 'from hub')");

# A certificate for hub's server, taken into use at once.
sub serve_with
{
	my ($file) = @_;

	$hub->cluster_of->append_conf('postgresql.conf',
		Entanglement::Node::tls_conf($pki, $file));
	my $mark = $hub->log_mark;
	$hub->cluster_of->reload;
	wait_for('reload',
		sub { $hub->log_since($mark) =~ /parameter "ssl_cert_file" changed/ });
	return;
}

# A server on loopback that answers each connection with that text: its pid
# and port. It ends with the test, whatever happens.
sub speaks
{
	my ($text) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 5,
		Proto => 'tcp');
	my $pid = fork // die "fork: $!";

	return ($pid, $listener->sockport) if $pid;
	alarm deadline();
	$SIG{PIPE} = 'IGNORE';
	$SIG{TERM} = 'DEFAULT';		# since 17 it would stop our parent's servers
	while (my $client = $listener->accept)
	{
		$client->sysread(my $request, 8);
		$client->syswrite($text);
	}
	POSIX::_exit(0);
}

# Dials with $info and tests that the link fails with an error that matches.
sub refused
{
	my ($info, $error, $name, %o) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$info =~ s/'/''/g;
	$alice->sql("SELECT entanglement.add_peer('hub', '$info', 'hub')");
	my $ok = eval {
		$alice->wait_until(
			"SELECT last_error <> '' AND state NOT IN ('connected', 'idle') FROM entanglement.peers",
			't', "error ($name)");
	};
	my $peer = $alice->peer('hub');

	like($peer->{last_error}, qr/^$error/, $name);
	like($peer->{last_error}, qr/^[0-9A-Z]{5}: \S.* HINT: \S/,
		"$name: with SQLSTATE and hint");
	isnt($peer->{state}, 'connected', "$name: not connected");
	unlike($peer->{last_error}, qr/hunter2/, "$name: nothing secret is shown");
	is($peer->{fingerprint}, undef, "$name: no certificate is pinned");
	foreach my $node ($alice, $hub)
	{
		is( $node->sql(
				'SELECT (SELECT count(*) FROM item), (SELECT count(*) FROM entanglement.owners WHERE NOT local)'
			),
			'1|0',
			"$name: no row and no owner came to " . $node->name);
	}
	$alice->sql("SELECT entanglement.drop_peer('hub')");
	is($alice->sql('SELECT count(*) FROM entanglement.peers'),
		0, "$name: the peer can be dropped");
	return;
}

subtest 'conninfo that does not parse is refused at once' => sub {
	$alice->fails("SELECT entanglement.add_peer('hub', 'nonsense', 'hub')",
		'42601', 'conninfo', 'no equals sign');
	$alice->fails("SELECT entanglement.add_peer('hub', 'hots=1', 'hub')",
		'42601', 'conninfo.*hots', 'an unknown keyword, which is named');
	$alice->fails("SELECT entanglement.add_peer('hub', '', 'hub')",
		'22023', 'empty', 'an empty one');
	my ($rc, $out, $err) = $alice->try(
		"SELECT entanglement.add_peer('hub', 'host=x password=hunter2 hots=1', 'hub')");
	like($err, qr/ERROR:  42601/, 'one with a password is refused');
	unlike($err =~ s/^LINE .*//msr, qr/hunter2/, 'without showing it');
	is($alice->sql('SELECT count(*) FROM entanglement.peers'),
		0, 'no peer was added');
};

subtest 'wrong certificate authority' => sub {
	my $other = Entanglement::PKI->new(cn => 'another authority');

	refused(
		conninfo($alice, $hub, sslrootcert => $other->ca),
		qr/08001: could not connect: .*certificate verify failed DETAIL: The server's certificate is not trusted: .*sslrootcert/,
		'the server has a certificate of an authority not trusted');
	$other->client('alice');
	refused(
		conninfo(
			$alice, $hub,
			sslcert => $other->crt('alice'),
			sslkey => $other->key('alice')),
		qr/08001: could not connect: .*(unknown ca|tlsv1 alert|certificate)/i,
		'the client has');
};

subtest 'wrong host name' => sub {
	$pki->server('elsewhere', san => ['DNS:elsewhere.example']);
	serve_with('elsewhere');
	refused(
		$good,
		qr/08001: could not connect: .*server certificate for "elsewhere.*" does not match host name "localhost"/,
		'a certificate of another host');
};

subtest 'expired certificates' => sub {
	$pki->server('expired', expired => 1);
	serve_with('expired');
	refused($good,
		qr/08001: could not connect: .*DETAIL: The server's certificate is not trusted: certificate has expired/,
		'of the server');
	serve_with('hub-server');
	$pki->client('alice-expired', cn => 'alice', expired => 1);
	refused(
		conninfo(
			$alice, $hub,
			sslcert => $pki->crt('alice-expired'),
			sslkey => $pki->key('alice-expired')),
		qr/08001: could not connect: .*certificate expired/,
		'of the client');
};

subtest 'a certificate for another role' => sub {
	$pki->client('mallory');
	refused(
		conninfo(
			$alice, $hub,
			sslcert => $pki->crt('mallory'),
			sslkey => $pki->key('mallory')),
		qr/08001: could not connect: .*certificate authentication failed for user "alice"/,
		'the name in it is another');
	refused(
		conninfo($alice, $hub, sslcert => '/nonexistent', sslkey => '/nonexistent'),
		qr/08001: could not connect: .*certificate/,
		'no certificate at all');
};

subtest 'plain TCP' => sub {
	refused(
		conninfo($alice, $hub, sslmode => 'disable'),
		qr/28000: the connection would not be encrypted.* DETAIL: .*require_tls/,
		'is refused by who dials');
	$alice->sql('ALTER SYSTEM SET entanglement.require_tls = off');
	$alice->cluster_of->reload;
	$alice->wait_until('SHOW entanglement.require_tls', 'off', 'the setting');
	refused(
		conninfo($alice, $hub, sslmode => 'disable'),
		qr/28000: the connection is not encrypted DETAIL: .*require_tls/,
		'and by who is dialed');
	$hub->sql('ALTER SYSTEM SET entanglement.require_tls = off');
	$hub->cluster_of->reload;
	$hub->wait_until('SHOW entanglement.require_tls', 'off', 'the setting');
	my $info = conninfo($alice, $hub, sslmode => 'disable') =~ s/'/''/gr;
	$alice->sql("SELECT entanglement.add_peer('hub', '$info', 'hub')");
	$alice->wait_connected('hub');
	converge([ $alice, $hub ], ['item'],
		'unless both allow it with entanglement.require_tls = off');
	foreach my $node ($alice, $hub)
	{
		$node->sql('ALTER SYSTEM RESET entanglement.require_tls');
		$node->cluster_of->reload;
		$node->wait_until('SHOW entanglement.require_tls', 'on', 'the setting');
	}
	$alice->sql("SELECT entanglement.drop_peer('hub')");
	$hub->sql("SELECT entanglement.drop_peer('alice')");
};

# From here on hub is known to alice and the rows are in step; new nodes so
# that "no row came" can be seen again.
my $fresh = $alice->cluster_of;
$alice = Entanglement::Node->database($fresh, 'alice2');
$alice->{name} = 'alice';
$alice->{pki} = $pki;
$hub = Entanglement::Node->database($hub->cluster_of, 'hub2');
$hub->{pki} = $pki;
$good = conninfo($alice, $hub);
$alice->allow_peer('hub', 0);
$hub->allow_peer('alice', 1);
$hub->sql("SELECT entanglement.add_peer('alice', NULL, 'alice')");
$_->define($table, 'item') foreach $alice, $hub;
$alice->sql("INSERT INTO item VALUES (1, 'from alice')");
$hub->sql("INSERT INTO item VALUES (2, 'from hub')");

subtest 'addresses' => sub {
	my $silent = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 5,
		Proto => 'tcp');
	refused(
		conninfo($alice, $hub, port => $silent->sockport),
		qr/08001: could not connect: timed out after 1000 ms DETAIL: The host did not answer/,
		'a host that does not answer');
	my $port = $silent->sockport;
	close $silent;
	refused(
		conninfo($alice, $hub, port => $port),
		qr/08001: could not connect: .*Connection refused/,
		'a port where nobody listens');
	my ($web, $web_port) = speaks("HTTP/1.1 400 Bad Request\r\n\r\n");
	refused(
		conninfo($alice, $hub, port => $web_port),
		qr/08001: could not connect: .*invalid response to SSL negotiation/,
		'a server of another kind');
	kill 'TERM', $web;
	waitpid $web, 0;
	refused(
		conninfo(
			$alice, $hub,
			host => 'no-such-host.invalid',
			hostaddr => undef),
		qr/08001: could not connect: could not translate host name "no-such-host.invalid"/,
		'a host name that does not exist');
	my $proxy = Entanglement::Proxy->new(port => $hub->cluster_of->port);
	$proxy->cut_after(up => 200);
	refused(
		conninfo($alice, $hub, port => $proxy->port),
		qr/08001: could not connect: .*(closed|reset|refused|SSL)/i,
		'a link that breaks during the handshake');
};

subtest 'not a node of entanglement' => sub {
	refused(
		conninfo($alice, $hub, dbname => 'postgres'),
		qr/3F000: schema "entanglement" does not exist HINT: The database reached is not a node of entanglement/,
		'a database without the extension');
	refused(
		conninfo($alice, $hub, dbname => 'nowhere'),
		qr/08001: could not connect: .*database "nowhere" does not exist/,
		'a database that does not exist');

	# something that only looks like a node
	my $fake = Entanglement::Node->database($hub->cluster_of, 'fake', bare => 1);
	my $says = sub {
		my ($hex) = @_;
		$fake->sql(<<"SQL");
CREATE SCHEMA IF NOT EXISTS entanglement;
GRANT USAGE ON SCHEMA entanglement TO PUBLIC;
CREATE OR REPLACE FUNCTION entanglement.hello(text, bytea) RETURNS bytea LANGUAGE sql AS \$\$ SELECT '$hex'::bytea \$\$;
SQL
	};
	$says->('\x00');
	refused(conninfo($alice, $hub, dbname => 'fake'),
		qr/08P01: what the other side sent is not a hello of entanglement DETAIL: It is malformed/, 'a hello that is none');
	$says->('\xe7');
	refused(conninfo($alice, $hub, dbname => 'fake'),
		qr/08P01: what the other side sent is not a hello of entanglement DETAIL: It is malformed/, 'a hello that ends early');

	# header: magic, version, flags, number; section 1: newest and oldest
	# version, then what only the future knows
	my $future = '\xe7' . '630000' . '01' . '05' . '6363' . 'aabbcc';
	$says->($future);
	refused(
		conninfo($alice, $hub, dbname => 'fake'),
		qr/0A000: the nodes have no protocol version in common DETAIL: The other node speaks versions 99 to 99, this one 1 to 1\. HINT: Update/,
		'a peer of a future protocol version');
	$hub->fails(
		"SET ROLE alice; SELECT entanglement.hello('push', '$future')",
		'0A000', 'no protocol version in common\nDETAIL:  The other node speaks versions 99 to 99.*HINT:  Update', 'the same when it dials us');
};

subtest 'the wrong node' => sub {
	refused(
		conninfo($alice, $hub, user => 'nobody', sslmode => 'verify-full'),
		qr/08001: could not connect: .*nobody/,
		'a role that does not exist');
	my $self = conninfo($alice, $hub,
		user => 'itself',
		hostaddr => undef,
		host => $alice->cluster_of->host,
		port => $alice->cluster_of->port,
		dbname => $alice->db);
	$alice->sql(<<'SQL');
DROP ROLE IF EXISTS itself;
CREATE ROLE itself LOGIN;
GRANT EXECUTE ON FUNCTION entanglement.hello(text, bytea) TO itself;
SQL
	refused($self, qr/28000: the node reached is this node itself DETAIL: Both ends/, 'this node itself');
	$hub->sql("SELECT entanglement.drop_peer('alice')");
	refused($good,
		qr/42501: permission denied for function hello HINT: .*add_peer/,
		'a node that does not know us');
	$hub->sql("SELECT entanglement.add_peer('carol', NULL, 'alice')");
	$hub->sql("UPDATE entanglement.peer SET node = gen_random_uuid()");
	refused($good,
		qr/28000: peer "carol" is another node than before DETAIL: .*reset => '\{node\}'/,
		'nor knows our role by another node');
	$hub->sql("SELECT entanglement.add_peer('dora', NULL, 'alice')");
	$hub->sql('UPDATE entanglement.peer SET node = gen_random_uuid()');
	refused(
		$good,
		qr/28000: role "alice" does not stand for a peer named "alice2" here DETAIL: .*HINT: .*add_peer/,
		'or by several');
	$hub->sql("SELECT entanglement.drop_peer('carol'), entanglement.drop_peer('dora')");
	$hub->sql("SELECT entanglement.add_peer('alice', NULL, 'alice')");
	$hub->sql("SELECT entanglement.pause_peer('alice')");
	refused($good, qr/57P03: peer "alice" is paused/, 'a node that has paused us');
	$hub->sql("SELECT entanglement.resume_peer('alice')");
};

# The password in the conninfo of the link that is up is shown to nobody,
# also when a statement with it fails.
sub show_nothing
{
	my ($admin, $info, $mark) = @_;

	$alice->fails("SELECT entanglement.add_peer('hub', '$info', 'hub')",
		'42710', 'peer "hub" already exists', 'added again');
	$alice->fails("SELECT entanglement.alter_peer('hub2', '$info')",
		'42704', 'peer "hub2" does not exist', 'another altered');
	$alice->fails(
		"DO \$\$ BEGIN PERFORM entanglement.add_peer('', '$info', 'hub'); END \$\$",
		'42602', 'name must not be empty', 'added by a function');
	$alice->sql(<<'SQL');
CREATE ROLE curious;
CREATE ROLE watcher IN ROLE pg_monitor;
SQL
	foreach my $sql (
		'TABLE entanglement.peers',
		'SELECT * FROM entanglement.link_states()',
		'TABLE pg_stat_activity',
		'SELECT * FROM entanglement.peer',
		'SELECT conninfo FROM entanglement.peer')
	{
		foreach my $role (qw(curious watcher))
		{
			my ($rc, $out, $err) = $alice->try("SET ROLE $role; $sql");
			unlike($out . $err, qr/hunter2/, "not shown to $role by $sql");
		}
	}
	$admin->query_safe("SELECT entanglement.alter_peer('hub', '$info')");
	is( $alice->sql(
			"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%hunter2%' AND pid <> pg_backend_pid()"
		),
		0,
		'nor by pg_stat_activity of the session that set it');
	like($alice->log_since($mark), qr/42710|already exists/, 'what failed is logged');
	unlike(slurp_file($alice->cluster_of->logfile),
		qr/hunter2/, 'the password is not');
	return;
}

subtest 'a password instead of a certificate' => sub {
	$hub->sql("CREATE ROLE secret LOGIN PASSWORD 'hunter2'");
	$hub->allow_peer('secret', 1);
	my %scram = (
		user => 'secret',
		sslcert => undef,
		sslkey => undef);
	refused(conninfo($alice, $hub, %scram, password => 'hunter2x'),
		qr/08001: could not connect: .*password authentication failed/, 'a wrong one');
	$hub->sql("SELECT entanglement.alter_peer('alice', role => 'secret')");
	my $info = conninfo($alice, $hub, %scram, password => 'hunter2') =~ s/'/''/gr;
	my $admin = $alice->session;
	my $mark = $alice->log_mark;
	$admin->query_safe("SET client_min_messages = warning; SELECT entanglement.add_peer('hub', '$info', 'hub')");
	$alice->wait_connected('hub');
	converge([ $alice, $hub ], ['item'], 'the right one links them');
	show_nothing($admin, $info, $mark);
	$admin->quit;
	$alice->sql("SELECT entanglement.drop_peer('hub')");
	$hub->sql("SELECT entanglement.alter_peer('alice', role => 'alice')");
};

subtest 'a certificate other than the one pinned' => sub {
	my $info = $good =~ s/'/''/gr;

	$alice->sql("SELECT entanglement.add_peer('hub', '$info', 'hub')");
	$alice->wait_connected('hub');
	my $old = $pki->fingerprint('hub-server');
	is($alice->peer('hub')->{fingerprint}, $old, 'pinned at the first contact');

	$pki->server('hub-renewed');
	my $new = $pki->fingerprint('hub-renewed');
	serve_with('hub-renewed');
	$hub->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
	$alice->wait_state('hub', 'refused');
	like($alice->peer('hub')->{last_error},
		qr/$old.*$new/s, 'both fingerprints are named');
	$hub->sql("INSERT INTO item VALUES (3, 'after renewal')");
	$hub->wait_folded;
	is($alice->sql('SELECT count(*) FROM item WHERE id = 3'),
		0, 'nothing is exchanged');
	$alice->sql("SELECT entanglement.alter_peer('hub', fingerprint => '$new')");
	$alice->wait_connected('hub');
	converge([ $alice, $hub ], ['item'], 'until an administrator accepts it');
	is($alice->peer('hub')->{last_error} // '', '', 'the error is forgotten');

	# and the other way round: alice shows another certificate
	$pki->client('alice-renewed', cn => 'alice');
	my $renewed = conninfo(
		$alice, $hub,
		sslcert => $pki->crt('alice-renewed'),
		sslkey => $pki->key('alice-renewed')) =~ s/'/''/gr;
	$alice->sql("SELECT entanglement.alter_peer('hub', conninfo => '$renewed')");
	$hub->wait_state('alice', 'refused');
	like(
		$hub->peer('alice')->{last_error},
		qr/another certificate.*@{[$pki->fingerprint('alice-renewed')]}/s,
		'the dialed node refuses another certificate too');
	$alice->wait_until(
		"SELECT last_error LIKE '%certificate%' FROM entanglement.peers",
		't', 'and the dialer is told');
	$hub->sql("SELECT entanglement.alter_peer('alice', reset => '{fingerprint}')");
	$alice->wait_connected('hub');
	$hub->wait_connected('alice');
	$alice->sql("UPDATE item SET v = 'new certificate' WHERE id = 1");
	converge([ $alice, $hub ], ['item'], 'until its fingerprint is reset');
	is($hub->peer('alice')->{fingerprint},
		$pki->fingerprint('alice-renewed'), 'and the new one pinned');
};

done_testing();
