# What a peer has no right to say: mallory, by hand, offers what is not hers and
# sends state that nobody asked her for.
#
# Promise: each of it is refused and counted, in the view violations, in rows
# that stay few; the rest of her batches is taken; what is under way while a
# route changes is no violation; bind_owner says who may speak, at once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('violations', conf => "entanglement.log_interval = '1h'\n");
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);
my $me = '66600000-0000-4000-8000-000000000001';
my @item = (name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]);
my $table = table(number => 9, @item);

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)', 'item', 'other')
  foreach $alice, $hub;
$hub->sql("GRANT SELECT, INSERT, UPDATE, DELETE ON item, other TO mallory");
$hub->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
link_nodes($alice, $hub);
$alice->sql("INSERT INTO item VALUES (1, 'alice')");
$hub->sql("INSERT INTO item VALUES (101, 'hub')");
converge([ $alice, $hub ], ['item'], 'in step');

my %id = map { my $n = $_; $n->name => $n->sql('SELECT id FROM entanglement.owners WHERE local') } $alice, $hub;
my %home = map { my $n = $_; $n->name => $n->sql('SELECT id FROM entanglement.node') } $alice, $hub;

sub session
{
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);

	$s->query_safe(q{SELECT entanglement.hello('push', } . literal(hello($me, 'mallory')) . ')');
	return { psql => $s, number => 0 };
}

# Sends a batch; returns the answer's sections.
sub send_batch
{
	my ($s, @sections) = @_;
	my $out = $s->{psql}->query_safe('SELECT entanglement.push(' . literal(batch(++$s->{number}, @sections)) . ')');

	return @{ read_batch(pack 'H*', $out =~ s/^\\x//r)->{sections} };
}

sub quit { $_[0]->{psql}->quit; return; }

sub full
{
	my ($id, $serial, $v) = @_;

	return row(serial => $serial, key => [ pack 'N', $id ], values => [$v]);
}

# What is hers, under number 1: to see that the rest is taken.
my $serial = 0;
sub mine { return owner(number => 1, id => '66600000-0000-4000-8000-0000000000aa', home => $me, name => 'mallory'); }
sub my_row { $serial++; return objects(9, 1, 1, full(1000 + $serial, $serial, 'mallory')) . claim(1, 1, $serial); }
sub mine_taken
{
	my ($what) = @_;

	return is($hub->sql("SELECT v FROM item WHERE id = 1000 + $serial"), 'mallory', "$what: the rest is taken");
}

sub of_alice { return owner(number => 2, id => $id{alice}, home => $home{alice}, name => 'alice', distance => 1, serial => 1, @_); }
sub of_hub { return owner(number => 3, id => $id{hub}, home => $home{hub}, name => 'hub', distance => 1, serial => 1, @_); }

sub violations
{
	return $hub->sql(q(SELECT kind, owner, relation, count FROM entanglement.violations WHERE peer = 'mallory' ORDER BY kind, owner, relation NULLS FIRST));
}
sub forget { $hub->sql('DELETE FROM entanglement.violation'); return; }

# What hub holds of others.
sub others
{
	return $hub->sql(q(SELECT string_agg(o.id || ' ' || o.v, ',' ORDER BY id) FROM item o WHERE id < 1000)) . ' '
	  . $hub->sql(q(SELECT string_agg(name || epoch || ' ' || serial || coalesce(peer, ''), ',' ORDER BY name) FROM entanglement.owners WHERE name <> 'mallory'));
}
my $before = others();

subtest 'offers of what is at home elsewhere' => sub {
	my $s = session();
	my $mark = $hub->log_mark;

	send_batch($s, $table, mine(), of_alice(distance => 0), of_hub(distance => 0), my_row());
	is(violations(), "home|alice||1\nhome|hub||1", 'as her own: recorded');
	mine_taken('as her own');
	send_batch($s, of_alice(home => $me, distance => 0), of_hub(home => $me, distance => 0), my_row());
	is(violations(), "home|alice||2\nhome|hub||2", 'at home with her: recorded');
	mine_taken('at home with her');
	send_batch($s, of_alice(), of_hub(), my_row());
	is(violations(), "home|alice||2\nhome|hub||2", 'what anybody may offer is none');
	is(others(), $before, 'nothing came of it');
	my @lines = $hub->log_since($mark) =~ /(LOG:  the peer offers owner [^\n]*)/g;
	is_deeply(\@lines, ['LOG:  the peer offers owner "alice", which is at home elsewhere, as its own; refused'], 'the log has one line');
	like($hub->peer('mallory')->{last_error}, qr/^42501: the peer offers owner "hub"/, 'and so has the view of peers');
	forget();
	quit($s);
};

subtest 'state of owners that are not hers' => sub {
	my $s = session();

	my @answer = send_batch($s, $table, mine(), of_alice(), of_hub());
	is_deeply([ sort map { substr $_->{body}, 0, 2 } grep { $_->{type} == 8 } @answer ],
		[ "\1\1", "\2\0", "\3\0" ], 'she is told what is wanted');
	send_batch($s,
		objects(9, 2, 1, full(1, 99, 'stolen'), full(2, 99, 'stolen')),
		objects(9, 3, 1, full(101, 99, 'stolen')),
		present(2, 9, 99, undef, undef), claim(2, 1, 99), claim(3, 1, 99), my_row());
	is(violations(), "local|hub||1\nlocal|hub|item|1\nspeaker|alice||1\nspeaker|alice|item|2", 'recorded by kind, owner and table');
	mine_taken('state');
	send_batch($s, claim(2, 1, 99), objects(9, 3, 1, full(101, 99, 'stolen')), my_row());
	is(violations(), "local|hub||1\nlocal|hub|item|2\nspeaker|alice||2\nspeaker|alice|item|2", 'and counted');
	mine_taken('more state');
	is(others(), $before, 'nothing came of it');
	ok($hub->sql(q(SELECT bool_and(time BETWEEN now() - interval '1 min' AND now()) FROM entanglement.violations)), 'with the time');
	quit($s);
	$s = session();
	send_batch($s, $table, of_alice(), objects(9, 2, 1, full(1, 99, 'stolen')));
	is(violations(), "local|hub||1\nlocal|hub|item|2\nspeaker|alice||2\nspeaker|alice|item|3", 'before she was told anything, too');
	forget();
	quit($s);
};

subtest 'an older epoch' => sub {
	my $s = session();
	my $new = owner(number => 1, id => '66600000-0000-4000-8000-0000000000aa', home => $me, name => 'mallory', epoch => 2);

	send_batch($s, $table, $new);
	send_batch($s, objects(9, 1, 2, full(2000, 1, 'new')), claim(1, 2, 1));
	send_batch($s, objects(9, 1, 1, full(2000, 500, 'old')), claim(1, 1, 500),
		objects(9, 1, 2, full(2001, 2, 'new')), claim(1, 2, 2));
	is(violations(), "epoch|mallory||1\nepoch|mallory|item|1", 'recorded');
	is($hub->sql('SELECT string_agg(v, $$ $$) FROM item WHERE id IN (2000, 2001)'), 'new new', 'the rest is taken');
	send_batch($s, mine());
	send_batch($s, objects(9, 1, 1, full(2000, 501, 'old')));
	is(violations(), "epoch|mallory||1\nepoch|mallory|item|2", 'also when she offers no other');
	forget();
	quit($s);
};

subtest 'who seeks gets an offer, and not more than that' => sub {
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory' ]);
	my $number = 0;
	my $pull = sub {
		my $out = $s->query_safe('CALL entanglement.pull(' . literal(batch($number, @_)) . ', NULL)');
		my $b = read_batch(pack 'H*', $out =~ s/^\\x//r);

		$number = $b->{number};
		return @{ $b->{sections} };
	};
	my $offer = sub {
		my @sections = @_;

		for (1 .. 100)
		{
			my ($o) = grep { $_->{type} == 2 && $_->{name} eq 'hub' } @sections;

			return $o if $o;
			@sections = $pull->();
		}
		return {};
	};
	my $newest = sub { return $hub->sql('SELECT serial FROM entanglement.owners WHERE local'); };

	$s->query_safe(q{SELECT entanglement.hello('pull', } . literal(hello($me, 'mallory')) . ')');
	my @sections = $pull->();
	my ($first) = grep { $_->{type} == 2 && $_->{name} eq 'hub' } @sections;
	my $no = $first->{number};

	is($first->{serial}, $newest->(), 'the first offer tells how far it is');
	is($first->{lost}, 0, 'and that it gets there');
	my $found = $offer->($pull->(seek_beyond($no, 1, $first->{serial})));
	is($found->{serial}, $first->{serial} + 1, 'who seeks more is offered more');
	is($newest->(), $first->{serial} + 1, 'a serial was given out');
	$found = $offer->($pull->(seek_beyond($no, 1, $first->{serial})));
	is($found->{serial}, $first->{serial} + 1, 'what there is is offered at once');
	is($newest->(), $first->{serial} + 1, 'and none given out for it');

	my $start = time;
	for (1 .. 200)
	{
		$s->query_safe('SELECT 1');
		$pull->(map { seek_beyond($no, 1, $newest->() + $_) } 0, 1);
		last if time - $start > 4;
	}
	cmp_ok($newest->() - $first->{serial}, '<=', 3 + (time - $start), 'over and over: one a second');
	$found = $newest->();
	$pull->(seek_beyond($no, 1, 2**62), seek_beyond($no, 2**31 - 1, 1), seek_beyond($no, 0, 0), seek_beyond(999, 1, 1));
	$hub->wait_until('SELECT count(*) FROM entanglement.seek', '0', 'what was never given out');
	$pull->();
	cmp_ok($newest->() - $found, '<=', 1, 'and nonsense: nothing');
	is($hub->sql("SELECT epoch FROM entanglement.owners WHERE local"), 1, 'no new epoch');
	$s->quit;
};

# ---- honest peers ----

my $carol = Entanglement::Node->database($cluster, 'carol');
my $third = Entanglement::Node->database($cluster, 'dave');
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)', 'item', 'other')
  foreach $carol, $third;
link_nodes($carol, $alice);
link_nodes($carol, $hub);
link_nodes($third, $hub);

sub route_is
{
	my ($node, $owner, $peer, $what) = @_;

	return $node->wait_until("SELECT coalesce(peer, '-') FROM entanglement.owners WHERE name = '$owner'", $peer, $what);
}

subtest 'bind_owner takes effect at once' => sub {
	route_is($hub, 'alice', 'alice', 'the straight way');
	$hub->sql("SELECT entanglement.bind_owner('alice', 'carol')");
	is($hub->sql("SELECT speakers FROM entanglement.owners WHERE name = 'alice'"), '{carol}', 'it shows');
	route_is($hub, 'alice', 'carol', 'only carol may: the long way');
	$alice->sql("INSERT INTO item VALUES (2, 'long way')");
	$hub->wait_until('SELECT v FROM item WHERE id = 2', 'long way', 'it comes');
	$hub->sql("SELECT entanglement.bind_owner('alice', 'dave')");
	route_is($hub, 'alice', '-', 'only dave may, who has no way');
	$alice->sql("INSERT INTO item VALUES (3, 'no way')");
	$alice->drain;
	is($hub->sql('SELECT count(*) FROM item WHERE id = 3'), 0, 'nothing comes');
	is($hub->sql(q(SELECT count(*) FROM entanglement.violations)), 0, 'and that honest peers offer it is no violation');
	$hub->sql("SELECT entanglement.bind_owner('alice', 'dave', 'alice')");
	route_is($hub, 'alice', 'alice', 'alice herself may');
	$hub->wait_until('SELECT v FROM item WHERE id = 3', 'no way', 'what was missed comes');
	$hub->sql("SELECT entanglement.bind_owner('$id{alice}')");
	is($hub->sql("SELECT speakers IS NULL FROM entanglement.owners WHERE name = 'alice'"), 't', 'let go, by id');
	$hub->sql("SELECT entanglement.bind_owner('hub', 'alice')");
	is($hub->sql("SELECT speakers FROM entanglement.owners WHERE name = 'hub'"), '{alice}', 'a local one, too');
	$hub->sql("SELECT entanglement.bind_owner('hub')");
};

subtest 'who is dropped may speak no more, nor does anybody in his place' => sub {
	$hub->sql("SELECT entanglement.bind_owner('dave', 'dave')");
	$hub->sql("SELECT entanglement.drop_peer('dave')");
	is($hub->sql("SELECT speakers FROM entanglement.owners WHERE name = 'dave'"), '{}', 'pinned to nobody');
	$hub->sql("SELECT entanglement.bind_owner('dave')");
};

subtest 'routes that change under load are no violation' => sub {
	foreach my $round (1 .. 5)
	{
		$hub->sql("SELECT entanglement.bind_owner('alice', '" . ($round % 2 ? 'carol' : 'alice') . "')");
		$alice->sql("INSERT INTO other SELECT $round * 1000 + i, 'x' FROM generate_series(1, 300) i") foreach 1;
		$alice->sql("UPDATE other SET v = v || 'y' WHERE id % 3 = $round % 3");
	}
	converge([ $alice, $carol, $hub ], ['other'], 'all is there');
	is($_->sql('SELECT * FROM entanglement.violations'), '', 'no violation at ' . $_->name) foreach $alice, $carol, $hub;
};

subtest 'topology' => sub {
	my $what = q(SELECT coalesce(name, '?') || ' ' || coalesce(via, '-') || ' ' || coalesce(distance::text, '-') || ' ' || state || ' ' || array_to_string(owners, ',') || CASE WHEN round_trip > interval '0' THEN ' timed' ELSE '' END FROM entanglement.topology());

	$hub->sql("SELECT entanglement.bind_owner('alice', 'carol')");
	route_is($hub, 'alice', 'carol', 'the long way');
	$hub->sql("SELECT entanglement.pause_peer('alice')");
	$hub->wait_until($what, "hub - 0 here hub\nalice - 1 paused \ncarol - 1 connected carol timed\nmallory - 1 waiting mallory\nalice carol 2 reached alice\n? - - lost dave", 'what hub knows');
	like($hub->sql('SELECT entanglement.topology_dot()'), qr/^graph entanglement \{\n\tnode \[shape=box\];\n(\t"[-0-9a-f]{36}" \[label="[^"]*"(, style=bold)?\];\n){5}(\t"[-0-9a-f]{36}" -- "[-0-9a-f]{36}" \[label="[^"]*"(, style=\w+)?\];\n){4}\}\n?$/, 'and as Graphviz has it');
	$hub->sql(q(SELECT entanglement.create_owner(E'odd "name" \\\\ x')));
	like($hub->sql('SELECT entanglement.topology_dot()'), qr/label="hub\\nodd \\"name\\" \\\\ x"/, 'names are quoted');
};

subtest 'a flood stays small' => sub {
	my $s = session();
	my $owners = 1200;

	send_batch($s, map { table(number => $_, @item, name => $_ == 9 ? 'item' : "t$_") } 1 .. 20);
	send_batch($s, of_alice(), map { owner(number => 100 + $_, home => $home{alice}, name => "far $_", distance => 1,
		id => sprintf('66600000-0000-4000-8000-%012d', 10000 + $_)) } 1 .. $owners);
	# pinned to nobody that is there
	$hub->sql("SELECT count(entanglement.bind_owner(id::text, 'alice')) FROM entanglement.owners WHERE name LIKE 'far %'");
	send_batch($s);
	send_batch($s, map { claim(100 + $_, 1, 9) } 1 .. $owners) foreach 1 .. 3;
	is($hub->sql('SELECT sum(count) FROM entanglement.violations'), 3 * $owners, 'each is counted');
	cmp_ok($hub->sql('SELECT count(*) FROM entanglement.violations'), '<=', 1002, 'in so many rows and no more');
	foreach my $i (1 .. 15)
	{
		my @some = map { 100 + $i * 80 - $_ } 0 .. 79;

		send_batch($s, map { (claim($_, 1, 9), objects(9, $_, 1, full(1, 1, 'x'))) } @some);
	}
	is($hub->sql('SELECT sum(count) FROM entanglement.violations'), 5 * $owners, 'each is counted');
	cmp_ok($hub->sql('SELECT count(*) FROM entanglement.violations'), '<=', 1002, 'in so many rows and no more');
	is($hub->sql('SELECT count(*) FROM entanglement.violations WHERE owner IS NULL') > 0, 1, 'the others in one without a name');
	my @lines = $hub->log_since(0) =~ /LOG:  the peer sent state of ([a-z ]+)/g;
	is_deeply([ sort @lines ], [ 'an older epoch of owner ', 'owner ', 'owner ' ], 'and the log has one line of each kind, in an hour');
	quit($s);
	$hub->sql("SELECT entanglement.drop_peer('mallory')");
	is($hub->sql('SELECT count(*) FROM entanglement.violation'), 0, 'they go with the peer');
};

done_testing();
