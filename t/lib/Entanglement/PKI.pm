# Entanglement::PKI
#	  A certificate authority for tests: made with openssl in a directory of
#	  its own, issues server and client certificates, also bad ones.
#
# Keys are on a curve, so issuing one takes milliseconds.

package Entanglement::PKI;

use strict;
use warnings;

use File::Temp ();
use IPC::Run ();

# new(%options): cn => name of the authority, dir => where (a temporary
# directory by default)
sub new
{
	my ($class, %o) = @_;
	my $self = bless {
		cn => $o{cn} // 'entanglement test authority',
		serial => 100
	}, $class;

	if (defined $o{dir})
	{
		$self->{dir} = $o{dir};
	}
	else
	{
		$self->{temp} = File::Temp->newdir('entpkiXXXXXX', TMPDIR => 1);
		$self->{dir} = $self->{temp}->dirname;
	}
	$self->_write('openssl.cnf', <<'CNF');
[req]
distinguished_name = dn
prompt = no
[dn]
CN = unused
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
CNF
	$self->_openssl('req', '-x509', $self->_new_key('ca'),
		'-extensions', 'authority', '-days', 3650,
		'-subj', "/CN=$self->{cn}", '-out', $self->ca);
	return $self;
}

sub dir { return $_[0]->{dir}; }
sub ca { return "$_[0]->{dir}/ca.crt"; }
sub crt { return "$_[0]->{dir}/$_[1].crt"; }
sub key { return "$_[0]->{dir}/$_[1].key"; }

# Issues $file.crt and $file.key. Options: cn (default: $file), san (list of
# names as openssl writes them), use (serverAuth or clientAuth), expired
# (a true value: it was valid for a day, long ago).
sub issue
{
	my ($self, $file, %o) = @_;
	my $cn = $o{cn} // $file;
	my $ext = "basicConstraints = CA:FALSE\n"
	  . "keyUsage = critical, digitalSignature\n"
	  . "extendedKeyUsage = "
	  . ($o{use} // 'serverAuth, clientAuth') . "\n";

	$ext .= 'subjectAltName = ' . join(', ', @{ $o{san} }) . "\n"
	  if $o{san} && @{ $o{san} };
	$self->_write("$file.ext", $ext);
	$self->_openssl('req', '-new', $self->_new_key($file),
		'-subj', "/CN=$cn", '-out', "$self->{dir}/$file.csr");
	return $self->_issue_expired($file) if $o{expired};
	$self->_openssl(
		'x509', '-req', '-in', "$self->{dir}/$file.csr",
		'-CA', $self->ca, '-CAkey', $self->key('ca'),
		'-set_serial', $self->{serial}++, '-days', 365,
		'-extfile', "$self->{dir}/$file.ext", '-out', $self->crt($file));
	return $file;
}

# openssl x509 takes no dates before 3.4, and no negative days since; openssl
# ca has always taken dates, but wants files around it.
sub _issue_expired
{
	my ($self, $file) = @_;
	my $dir = $self->{dir};

	$self->_write("$file.index", '');
	$self->_write("$file.cnf", <<"END");
[ca]
default_ca = authority
[authority]
database = $dir/$file.index
new_certs_dir = $dir
rand_serial = yes
default_md = default
policy = any
[any]
commonName = supplied
END
	$self->_openssl(
		'ca', '-batch', '-notext', '-config', "$dir/$file.cnf",
		'-in', "$dir/$file.csr", '-cert', $self->ca,
		'-keyfile', $self->key('ca'),
		'-startdate', '20200101000000Z', '-enddate', '20200102000000Z',
		'-extfile', "$dir/$file.ext", '-out', $self->crt($file));
	return $file;
}

# A server certificate for localhost and 127.0.0.1.
sub server
{
	my ($self, $file, %o) = @_;

	return $self->issue(
		$file,
		use => 'serverAuth',
		san => [ 'DNS:localhost', 'IP:127.0.0.1' ],
		%o);
}

# A client certificate; its CN is the role that pg_hba.conf's cert method
# lets in.
sub client
{
	my ($self, $file, %o) = @_;

	return $self->issue($file, use => 'clientAuth', %o);
}

# SHA-256 of a certificate, as 64 hex digits in lower case.
sub fingerprint
{
	my ($self, $file) = @_;
	my $out = $self->_openssl('x509', '-in', $self->crt($file), '-noout',
		'-fingerprint', '-sha256');

	$out =~ s/^.*=//s;
	$out =~ s/[^0-9A-Fa-f]//g;
	return lc $out;
}

sub _new_key
{
	my ($self, $file) = @_;

	return (
		'-config', "$self->{dir}/openssl.cnf",
		'-newkey', 'ec',
		'-pkeyopt', 'ec_paramgen_curve:prime256v1',
		'-nodes', '-keyout', $self->key($file));
}

sub _openssl
{
	my ($self, @args) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $mask = umask 0077;
	my $ok = IPC::Run::run([ 'openssl', @args ], \$in, \$out, \$err);

	umask $mask;
	die "openssl @args failed: $err" unless $ok;
	return $out;
}

sub _write
{
	my ($self, $file, $text) = @_;

	open my $fh, '>', "$self->{dir}/$file" or die "$self->{dir}/$file: $!";
	print $fh $text;
	close $fh or die "$self->{dir}/$file: $!";
	return;
}

1;
