# A peer's role logs in, and may set in its session what it likes: mallory has a
# schema of her own, with operators of every name, before pg_catalog.
#
# Promise: nothing of ours that runs with the rights of the extension's owner
# calls what stands there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;
use Entanglement::Wire;

my $cluster = Entanglement::Node->cluster('path');
my ($alice, $hub) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice hub);
my $me = '66600000-0000-4000-8000-000000000001';
my @item = (name => 'item', columns => [ [ 'id', 'int4', 3, 1 ], [ 'v', 'text', 1, 0 ] ]);

$cluster->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');
$_->define('CREATE TABLE item (id int PRIMARY KEY, v text)', 'item') foreach $alice, $hub;
$hub->sql('GRANT SELECT, INSERT, UPDATE, DELETE ON item TO mallory; CREATE SCHEMA mallory AUTHORIZATION mallory');
$hub->sql("SELECT entanglement.add_peer('mallory', NULL, 'mallory')");
link_nodes($alice, $hub);
$alice->sql("INSERT INTO item VALUES (1, 'alice'), (2, 'alice')");
converge([ $alice, $hub ], ['item'], 'in step');

# Each notes who called it, where that could do harm.
$cluster->psql('hub', <<'SQL', extra_params => [ '-U', 'mallory' ], on_error_die => 1);
GRANT USAGE ON SCHEMA mallory TO PUBLIC;
CREATE FUNCTION mallory.caught() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF current_user OPERATOR(pg_catalog.<>) 'mallory'::name THEN
		RAISE 'called as %', current_user USING ERRCODE = 'EVIL0';
	END IF;
END $$;
DO $$
DECLARE
	o record;
BEGIN
	FOR o IN SELECT p.oprname, p.oprleft::regtype AS l, p.oprright::regtype AS r, p.oprresult::regtype AS t
	  FROM pg_operator p WHERE p.oprkind = 'b' AND p.oprcode <> 0
	  AND p.oprleft::regtype::text IN ('integer', 'bigint', 'text', '"char"', 'uuid', 'bytea', 'boolean', 'timestamp with time zone', 'name', 'oid', 'anyarray', 'text[]', 'integer[]')
	  AND p.oprnamespace = 'pg_catalog'::regnamespace
	LOOP
		EXECUTE format('CREATE FUNCTION mallory.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM mallory.caught(); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$',
			'f' || o.oprname, o.l, o.r, o.t, o.oprname);
		EXECUTE format('CREATE OPERATOR mallory.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = mallory.%I)',
			o.oprname, o.l, o.r, 'f' || o.oprname);
	END LOOP;
	FOR o IN SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS args, p.prorettype::regtype AS t
	  FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
	  AND p.proname IN ('now', 'clock_timestamp', 'array_append', 'array_remove', 'array_cat', 'format', 'cardinality', 'concat_ws')
	  AND p.provariadic = 0
	LOOP
		EXECUTE format('CREATE FUNCTION mallory.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM mallory.caught(); RETURN NULL; END $f$',
			o.proname, o.args, o.t);
	END LOOP;
END $$;
SQL

sub session
{
	my ($direction) = @_;
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory', '-v', 'VERBOSITY=verbose' ]);

	$s->query_safe('SET search_path = mallory, pg_catalog');
	is($s->query("SELECT entanglement.hello('$direction', " . literal(hello($me, 'mallory')) . ') OPERATOR(pg_catalog.<>) $$$$'), 't', "hello $direction");
	return $s;
}

sub clean
{
	my ($s, $call, $what) = @_;

	$s->{stderr} = '';
	my $out = $s->query($call);
	my ($error) = $s->{stderr} =~ /(ERROR: .*)/;
	is($error, undef, $what);
	return read_batch(pack 'H*', $out =~ s/^\\x//r) if $out =~ /^\\x/;
	return;
}

my %id = map { my $n = $_; $n->name => $n->sql('SELECT id FROM entanglement.owners WHERE local') } $alice, $hub;
my %home = map { my $n = $_; $n->name => $n->sql('SELECT id FROM entanglement.node') } $alice, $hub;
my $mine = '66600000-0000-4000-8000-0000000000aa';

subtest 'what she sends' => sub {
	my $s = session('push');
	my $n = 0;
	my $push = sub {
		my ($what, @sections) = @_;

		return clean($s, 'SELECT entanglement.push(' . literal(batch(++$n, @sections)) . ')', $what);
	};
	my $full = sub { return row(serial => $_[1], key => [ pack 'N', $_[0] ], values => ['x'], op => $_[2] // 2); };

	$push->('an owner and a table', owner(number => 1, id => $mine, home => $me, name => 'mallory'), table(number => 9, @item),
		owner(number => 2, id => $id{alice}, home => $home{alice}, name => 'alice', distance => 1), homes(1));
	$push->('rows', objects(9, 1, 1, $full->(100, 1), $full->(101, 2), row(op => 0, serial => 3, key => [ pack 'N', 100 ])), claim(1, 1, 3),
		present(1, 9, 3, undef, undef, bytes(pack 'N', 101)));
	$push->('what she may not', objects(9, 2, 1, $full->(1, 99)), claim(2, 1, 99));
	$push->('another name', owner(number => 1, id => $mine, home => $me, name => 'other', epoch => 1));
	foreach my $op (1, 2)
	{
		$push->("request $op", section(13, uuid(sprintf '66600000-0000-4000-8000-%012d', $op) . uuid($id{hub}) . chr($op)
			  . varint(100000) . bytes('public') . bytes('item') . varint(1) . varint($op == 1 ? 1 : 0)
			  . bytes('id') . varint(2) . '1' . ($op == 1 ? bytes('v') . varint(2) . 'z' : '')));
	}
	$push->('request 0', section(13, uuid('66600000-0000-4000-8000-000000000009') . uuid($id{alice}) . chr(0)
		  . varint(100000) . bytes('public') . bytes('item') . varint(0) . varint(1) . bytes('v') . varint(2) . 'z'));
	$push->('nothing', ()) for 1 .. 2;
	$push->('an end', gone($mine, $me, 1));
	$s->quit;
};

subtest 'what she takes' => sub {
	my $s = session('pull');
	my $pull = sub {
		my ($what, $number, @answer) = @_;

		return clean($s, 'CALL entanglement.pull(' . literal(batch($number, @answer)) . ', NULL)', $what);
	};
	my $b = $pull->('the first', 0);
	my ($t) = grep { $_->{type} == 3 } @{ $b->{sections} };
	my @o = grep { $_->{type} == 2 } @{ $b->{sections} };

	$b = $pull->('all', $b->{number}, (map { want($_->{number}, 1, 0, 0) } @o), seek_beyond($o[0]{number}, 1, 1),
		map { arrears($_->{number}, $t->{number}) } @o);
	$b = $pull->('more', $b->{number}, map { again($t->{number}, $_->{number}, bytes(pack 'N', 1)) } @o);
	$b = $pull->('confirm', $b->{number}, map { section(17, varint($t->{number}) . varint($_->{number}) . bytes(bytes(pack 'N', 77))
		  . varint(1) . varint(1) . uuid($id{alice}) . varint(1) . varint(1)) } @o);
	$pull->('and on', $b->{number});
	$s->quit;
};

subtest 'what she verifies' => sub {
	my $s = session('verify');

	clean($s, 'SELECT entanglement.digest(' . literal(batch(0)) . ')', 'all');
	clean($s, 'SELECT entanglement.digest(' . literal(batch(0, section(32, bytes('public') . bytes('item') . varint(1) . bytes('v')))) . ')', 'totals');
	$s->quit;
};

subtest 'what she writes' => sub {
	my $s = $cluster->background_psql('hub', on_error_stop => 0, extra_params => [ '-U', 'mallory', '-v', 'VERBOSITY=verbose' ]);

	$hub->sql('GRANT EXECUTE ON FUNCTION entanglement.transfer(record, text) TO mallory');
	# a row that the heir's way must be allowed to see, as its policy has it
	$hub->sql(<<'SQL');
CREATE FUNCTION allowed() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION may() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN allowed(); END';
CREATE TABLE guarded (id int PRIMARY KEY);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY may ON guarded USING (may());
SELECT entanglement.synchronize('guarded');
INSERT INTO guarded VALUES (1);
GRANT SELECT, UPDATE ON guarded TO mallory;
SQL
	$s->query_safe('CREATE FUNCTION mallory.allowed() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.caught(); RETURN true; END $$');
	$s->query_safe('SET search_path = mallory, pg_catalog, public');
	clean($s, $_, $_) foreach q(INSERT INTO public.item VALUES (500, 'm')),
		q(UPDATE public.item SET v = 'n' WHERE id OPERATOR(pg_catalog.=) 500),
		q(UPDATE public.item SET v = 'n' WHERE id OPERATOR(pg_catalog.=) 1),
		q(SELECT entanglement.owner_of(i) FROM public.item i),
		q(SELECT entanglement.transfer(i, 'alice') FROM public.item i WHERE id OPERATOR(pg_catalog.=) 500),
		q(SELECT state FROM entanglement.requests), q(SELECT relation FROM entanglement.tables),
		q(SELECT entanglement.transfer(g, 'alice') FROM public.guarded g),
		q(DELETE FROM public.item WHERE id OPERATOR(pg_catalog.=) 1);
	$s->quit;
};

done_testing();
