# Whatever happens: random changes by the owners of four nodes, requests of
# the others, and rows that change hands, over links that are cut, paused, forgotten and made again, by
# workers and servers that die.
#
# Promise: at the end all nodes agree on rows, owners, epochs and serials,
# every request has its answer and was carried out at most once, and nothing is
# left over; at every moment a row is one version that its owner committed,
# never an older one than before.
#
# The seed is printed; ENT_SEED repeats what it decides, which is everything
# but the timing. ENT_ROUNDS is how often chaos and calm take turns.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Agreement;
use Entanglement::Node;
use Entanglement::Proxy;

my $seed = $ENV{ENT_SEED} // (time() ^ ($$ << 8)) % 1_000_000;
my $rounds = $ENV{ENT_ROUNDS} // ($ENV{ENT_LONG} ? 40 : 2);
my $steps = 12;
my $keys = 6;				# of each node in each range

srand($seed);
note "ENT_SEED=$seed ENT_ROUNDS=$rounds";

sub any { return $_[ int rand @_ ]; }

# True once in $n times.
sub once_in { return rand($_[0]) < 1; }

# ---- four nodes in a ring of three with an appendix ----

# small limits make the rare paths common
my %limits = (
	fold_limit => any(1, 3, 20, 10000),
	scan_chunk => any(1, 3, 7, 5000),
	max_batch => any('4kB', '1MB'),
	compression_level => any(0, 1, 9),
	ring_size => any('256kB', '4MB'),
	prune_interval => any('50ms', '500ms'));
my $cluster = Entanglement::Node->cluster(
	'random',
	hba => 'host all all 127.0.0.1/32 trust',
	conf => "listen_addresses = '127.0.0.1'\nentanglement.require_tls = off\n"
	  . join '', map { "entanglement.$_ = $limits{$_}\n" } sort keys %limits);
note join ' ', map { "$_=$limits{$_}" } sort keys %limits;

my @names = qw(alice hub bob carol);
my %node = map { $_ => Entanglement::Node->database($cluster, $_) } @names;
my @nodes = @node{@names};
my @links = ([ 'alice', 'hub' ], [ 'bob', 'hub' ], [ 'carol', 'hub' ], [ 'carol', 'bob' ]);
my $proxy = Entanglement::Proxy->new(port => $cluster->port);
my %paused;					# "node peer"
my %prepared;				# node => 1

# The body of a row is told by h, its age by v: both set where it is written. All
# nodes have one clock.
foreach my $node (@nodes)
{
	$node->define(<<'SQL' . join '', map { <<"SQL" } @names);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	new.v := extract(epoch FROM clock_timestamp()) * 1000000;
	IF tg_op = 'UPDATE' AND new.v <= old.v THEN
		new.v := old.v + 1;
	END IF;
	new.h := md5(concat_ws(',', new.id, new.v, new.a, new.b, new.c));
	RETURN new;
END $$;
CREATE TABLE item (id int PRIMARY KEY, a int, b text, c text, v bigint, h text);
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON item
	FOR EACH ROW EXECUTE FUNCTION stamp();
ALTER TABLE item ALTER b SET STORAGE EXTERNAL;
SQL
CREATE TABLE only_$_ (id text, n int, v int, PRIMARY KEY (n, id));
SQL
	$node->audit('item');
	foreach my $i (0 .. $#names)
	{
		$node->sql("SELECT entanglement.synchronize('only_$names[$i]', priority => $i)");
	}
	$node->sql("SELECT entanglement.synchronize('item', keys_from_others => true)");
	$node->sql("SELECT entanglement.create_owner('" . $node->name . " too')");
}
sub port { return $_[0] eq 'alice' ? $proxy->port : $cluster->port; }
link_nodes($node{ $_->[0] }, $node{ $_->[1] },
	host => '127.0.0.1', port => port($_->[0]), sslmode => 'disable')
  foreach @links;
foreach my $node (@nodes)
{
	$node->wait_until('SELECT count(*) FROM entanglement.owners', '8', 'owners known');
	# what requests did here: their texts are unique
	$node->sql(<<"SQL");
CREATE TABLE done (token text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF new.c LIKE 'asked %' AND (tg_op = 'INSERT' OR new.c IS DISTINCT FROM old.c) THEN
		INSERT INTO public.done VALUES (new.c);
	END IF;
	RETURN NULL;
END \$\$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION note();
GRANT INSERT ON done TO @{[join ', ', @names]};
SQL
}

# ---- what owners do ----

sub value { return any('NULL', "'" . any('x', 'y', 'zz') x int(rand 20) . "'"); }

# A node's keys of a range: 0 for all, 1 for prepared transactions.
sub key
{
	my ($name, $range) = @_;
	my ($i) = grep { $names[$_] eq $name } 0 .. $#names;

	return 10000 * $range + $i + 10 * int rand $keys;
}

sub columns
{
	my @set = grep { once_in(2) } 'a = ' . int(rand 100), 'b = ' . value(),
	  'c = ' . value();

	return @set ? join(', ', @set) : 'a = item.a + 1';
}

sub insert
{
	my ($k) = @_;

	return sprintf 'INSERT INTO item (id, a, b, c) VALUES (%d, %d, %s, %s)'
	  . ' ON CONFLICT (id) DO UPDATE SET %s', $k, rand 100, value(), value(), columns();
}

# One statement or several on rows of that node.
sub operation
{
	my ($name, $range) = @_;
	my $k = key($name, $range);
	my $to = key($name, $range);
	my $what = int rand($range ? 7 : 10);

	return insert($k) if $what < 2;
	return 'UPDATE item SET ' . columns() . " WHERE id = $k" if $what < 4;
	return "DELETE FROM item WHERE id = $k" if $what < 5;
	return "DELETE FROM item WHERE id = $k; " . insert($k) if $what < 6;
	return "DELETE FROM item WHERE id = $to AND id <> $k; "
	  . "UPDATE item SET id = $to WHERE id = $k"
	  if $what < 7;
	return 'UPDATE item SET '
	  . columns()
	  . " WHERE id < 10000 AND id % 10 = $k % 10"
	  if $what < 8;
	return "TRUNCATE only_$name" if once_in(4);
	return
	  "INSERT INTO only_$name SELECT 'k' || i, i % 3, i FROM generate_series(1, "
	  . int(rand 15)
	  . ') i ON CONFLICT (n, id) DO UPDATE SET v = only_'
	  . $name . '.v + 1';
}

# One statement on rows of another node.
my $asked = 0;

sub proposal
{
	my ($name) = @_;
	my $other = any(grep { $_ ne $name } @names);
	my $k = key($other, 0);
	my $set = columns() . (once_in(2) ? ", c = 'asked " . $asked++ . "'" : '');
	my $what = int rand 8;

	$set =~ s/(?:, )?c = (?!'asked)[^,]*//;
	$set =~ s/^, //;
	$set = 'a = 7' if $set eq '';
	return "DELETE FROM item WHERE id = $k" if $what < 1;
	return sprintf "SET entanglement.owner = '%s'; INSERT INTO item (id, a, c) VALUES (%d, 1, 'asked %d')"
	  . "; SET entanglement.owner = '%s'", any($other, "$other too"), $k, $asked++, $name
	  if $what < 3;
	return "UPDATE item SET $set WHERE id = $k";
}

# Rows of that node's owners, wherever they were made, go to somebody.
sub hand_over
{
	my ($name) = @_;
	my $heir = any(@names);
	my $k = key(any(@names), 0);

	$heir .= ' too' if once_in(3);
	return "SELECT entanglement.transfer(i, '$heir') FROM item i WHERE (id = $k OR id % 7 = $k % 7 AND id < 10000)"
	  . " AND entanglement.owner_of(i) IN ('$name', '$name too')";
}

sub transaction
{
	my ($name) = @_;
	my $owner = any($name, "$name too");
	my @sql = "SET entanglement.owner = '$owner'";

	return join ";\n", @sql, map { proposal($name) } 0 .. rand 3 if once_in(3);
	return join ";\n", @sql, hand_over($name) if once_in(8);

	return join ";\n", @sql, operation($name, 0) if once_in(2);
	push @sql, 'BEGIN';
	foreach (0 .. rand 4)
	{
		push @sql, once_in(8) ? hand_over($name) : operation($name, 0);
		push @sql, 'SAVEPOINT s', any(proposal($name), operation($name, 0)), any('ROLLBACK TO s', 'RELEASE s')
		  if once_in(3);
	}
	push @sql, once_in(6) ? 'ROLLBACK' : 'COMMIT';
	return join ";\n", @sql;
}

# Prepares a transaction, or ends the one that is prepared.
sub prepare
{
	my ($name) = @_;

	return any('COMMIT', 'COMMIT', 'ROLLBACK') . " PREPARED '$name'"
	  if delete $prepared{$name};
	$prepared{$name} = 1;
	return join ";\n", "SET entanglement.owner = '" . any($name, "$name too") . "'",
	  'BEGIN', (map { operation($name, 1) } 0 .. rand 3),
	  "PREPARE TRANSACTION '$name'";
}

sub change
{
	my ($name) = @_;
	my $sql = join ";\n", map { transaction($name) } 0 .. rand 6;

	$sql .= ";\n" . prepare($name) if once_in(4);
	my ($rc, $out, $err) = $node{$name}->try("\\set ON_ERROR_STOP 0\n$sql;");

	# rows of others cannot be replaced, nor their keys changed, nor what was deleted
	# at somebody's request meanwhile be handed over
	$err =~ s/^psql:\S+ ERROR:  (?:23505: dup|0A000: the key of|P0002: not found|25P02|3B001|40P01).*$//mg;
	die $err if $err =~ /ERROR|FATAL|PANIC/;
	return;
}

# ---- what else happens ----

sub pause_link
{
	my ($from, $to) = @{ any(@links) };

	($from, $to) = ($to, $from) if once_in(2);
	my $verb = $paused{"$from $to"} ? 'resume' : 'pause';
	$node{$from}->sql("SELECT entanglement.${verb}_peer('$to')");
	$paused{"$from $to"} = $verb eq 'pause';
	return "$verb $from $to";
}

sub kill_process
{
	my $of = any("backend_type ~ 'collector'", "backend_type ~ 'dialer'",
		"usename = '" . any(@names) . "'");

	$cluster->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $of");
	return "kill $of";
}

sub cut_proxy
{
	my $way = any('up', 'down');
	my $bytes = int rand 3000;
	my $how = int rand 4;

	$proxy->open;
	return 'open' if $how == 0;
	$proxy->cut_after($way, $bytes) if $how == 1;
	$proxy->freeze if $how == 2;
	$proxy->cut if $how == 3;
	return "proxy $how $way $bytes";
}

sub restart
{
	my $mode = any('fast', 'immediate');

	$cluster->stop($mode);
	$cluster->start;
	return "restart $mode";
}

# The node that is dialed forgets the other one, and learns of it anew.
sub forget
{
	my ($from, $to) = @{ any(@links) };

	$node{$to}->sql("SELECT entanglement.drop_peer('$from')");
	change($_) foreach grep { once_in(2) } @names;
	$node{$to}->sql("SELECT entanglement.add_peer('$from', NULL, '$from')");
	$paused{"$to $from"} = 0;
	return "forget $from at $to";
}

sub disturb
{
	my $what = any((\&pause_link) x 4, (\&kill_process) x 3, (\&cut_proxy) x 3,
		\&forget, \&restart);

	note 'chaos: ' . $what->();
	return;
}

sub heal
{
	$proxy->open;
	foreach my $link (grep { $paused{$_} } sort keys %paused)
	{
		my ($from, $to) = split / /, $link;

		$node{$from}->sql("SELECT entanglement.resume_peer('$to')");
		delete $paused{$link};
	}
	return;
}

# ---- what must be true ----

sub agree
{
	my ($round) = @_;
	my $text;
	my $ok = eval { wait_for("agreement in round $round", sub { ($text = differences(\@nodes, 'item', map { "only_$_" } @names)) eq '' }) };

	return ok(1, "round $round: all agree, nothing is left over") if $ok;
	diag "ENT_SEED=$seed\n$text";
	diag $_->report foreach @nodes;
	return ok(0, "round $round: all agree, nothing is left over");
}

# Counts, at each node, rows as they were shown that nobody had committed, and
# rows older than one shown before.
sub history
{
	my ($round) = @_;

	foreach my $node (@nodes)
	{
		is($node->sql('SELECT token FROM done GROUP BY token HAVING count(*) > 1'),
			'', "round $round: no request was carried out twice at " . $node->name);
		is($node->sql(<<'SQL'), '', "round $round: no mixture at " . $node->name);
SELECT n, op, body FROM audit_item
 WHERE body->>'h' <> md5(concat_ws(',', body->>'id', body->>'v', body->>'a', body->>'b', body->>'c'))
SQL
		is($node->sql(<<'SQL'), '', "round $round: nothing went back at " . $node->name);
SELECT * FROM (
	SELECT n, op, body, lag(op) OVER w AS before, lag(body->>'v') OVER w AS v
	  FROM audit_item WINDOW w AS (PARTITION BY body->>'id' ORDER BY n)) x
 WHERE (body->>'v')::bigint < v::bigint
	OR (before = 'DELETE' AND (body->>'v')::bigint = v::bigint)
SQL
	}
	return;
}

foreach my $round (1 .. $rounds)
{
	foreach (1 .. $steps)
	{
		change(any(@names)) foreach 0 .. rand 3;
		disturb() if once_in(2);
	}
	heal();
	agree($round) or BAIL_OUT("ENT_SEED=$seed");
	history($round);
}
foreach my $node (@nodes)
{
	next unless $prepared{ $node->name };
	$node->sql("COMMIT PREPARED '" . $node->name . "'");
}
agree('last');
$_->wait_until('SELECT count(*) FROM entanglement.tombstone', '0', 'no tombstones')
  foreach @nodes;
is( $_->sql('SELECT (SELECT count(*) FROM entanglement.object) - ('
		  . join(' + ', map { "(SELECT count(*) FROM $_)" } 'item', map { "only_$_" } @names)
		  . ')'),
	0, 'each row is an object at ' . $_->name)
  foreach @nodes;
$proxy->stop;

done_testing();
