# Hooks: users' functions that are asked before something is stored for a peer,
# or asked of an owner at home here.
#
# Promise: a no of any of them, NULL being none, keeps out what it is about and
# nothing else; who is refused hears the hook's name and no more; an error is a
# no, and is told once. A hook runs as its function's owner and leaves nothing
# behind. What is added and removed counts at once, on live links.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use PostgreSQL::Test::Utils;
use Test::More;

use Entanglement::Node;

my $cluster = Entanglement::Node->cluster('hooks');
my ($alice, $bob) =
  map { Entanglement::Node->database($cluster, $_) } qw(alice bob);
my $listen = 'peer text, owner text, relation regclass, operation text, key jsonb, columns text[], "values" jsonb';
my $constructed = 'peer text, owner text, relation regclass, old jsonb, new jsonb';
my $send = 'peer text, owner text, relation regclass, key jsonb, "row" jsonb';

$cluster->safe_psql('postgres', 'CREATE ROLE plain; CREATE ROLE stranger');
foreach my $node ($alice, $bob)
{
	$node->define(<<'SQL', 'item');
CREATE TABLE item (id int PRIMARY KEY, v text, w int, hidden text);
CREATE TABLE other (id int PRIMARY KEY, v text);
CREATE TABLE vault (word text);
INSERT INTO vault VALUES ('sesame');
CREATE SCHEMA guard;
GRANT USAGE ON SCHEMA guard TO PUBLIC;
SQL
	$node->sql("SELECT entanglement.synchronize('other', keys_from_others => true)");
}
link_nodes($alice, $bob);
$bob->sql("SELECT entanglement.add_peer('carol', NULL, 'stranger')");

# A function that is a hook; the body is an expression or plpgsql.
sub function
{
	my ($node, $name, $kind, $body) = @_;
	my %arguments = (should_listen => $listen, should_listen_constructed => $constructed, should_send => $send);

	$body = "BEGIN RETURN $body; END" unless $body =~ /^(?:BEGIN|DECLARE)/;
	return $node->sql("CREATE OR REPLACE FUNCTION guard.$name($arguments{$kind}) RETURNS boolean LANGUAGE plpgsql AS \$\$ $body \$\$");
}

# Makes it one; returns its number.
sub add
{
	my ($node, $name, $kind, $more) = @_;

	return $node->sql("SELECT entanglement.add_hook('$kind', (SELECT oid::regprocedure FROM pg_proc WHERE proname = '$name')"
		  . (defined $more ? ", $more)" : ')'));
}

sub hook
{
	my ($node, $name, $kind, $body, $more) = @_;

	function($node, $name, $kind, $body);
	return add($node, $name, $kind, $more);
}

sub unhook
{
	my ($node, @numbers) = @_;

	$node->sql("SELECT entanglement.remove_hook($_)") foreach @numbers;
	return;
}

# What hooks have said by RAISE LOG since the mark.
sub said
{
	my ($node, $mark) = @_;

	return join "\n", $node->log_since($mark) =~ /LOG:  hook says (.*)$/mg;
}

sub parked
{
	my ($node) = @_;

	return $node->sql("SELECT key, sqlstate, message, detail FROM entanglement.parked_rows ORDER BY key");
}

# What a peer causes again and again is logged each time, or once in a minute.
sub quiet
{
	my ($node, $interval) = @_;

	$cluster->safe_psql('postgres', "ALTER SYSTEM SET entanglement.log_interval = '$interval'");
	$cluster->reload;
	$node->wait_until('SHOW entanglement.log_interval', $interval, 'the setting is there');
	# a session of a peer reads it between two calls
	$node->drain;
	return;
}

# What is counted of refusals, and the log's lines about it.
sub violations
{
	my ($node) = @_;

	return $node->sql("SELECT peer, kind, owner, relation, count FROM entanglement.violations ORDER BY 1, 2, 3, 4");
}

my $since = $bob->sql("SELECT since FROM entanglement.peers WHERE name = 'alice'");

# ---- should_listen ----

my $mark = $bob->log_mark;
my $n = hook($bob, 'see', 'should_listen', <<'SQL');
BEGIN
	RAISE LOG 'hook says % % % % % % %', peer, owner, relation, operation, key, columns, "values";
	RETURN NULL;
END
SQL
$alice->sql("INSERT INTO item VALUES (1, 'one', 1, NULL)");
$alice->drain('bob');
$alice->sql("UPDATE item SET v = 'two' WHERE id = 1");
$alice->drain('bob');
$alice->sql('DELETE FROM item WHERE id = 1');
$alice->drain('bob');
is(said($bob, $mark), <<'END' =~ s/\n\z//r, 'a should_listen hook hears what comes');
alice alice public.item insert {"id": 1} {v,w,hidden} {"v": "one", "w": 1, "hidden": null}
alice alice public.item update {"id": 1} {v} {"v": "two"}
alice alice public.item delete {"id": 1} {} <NULL>
END
unhook($bob, $n);

# true, NULL and false together; in order, up to the first false
my @n = (
	hook($bob, 'third', 'should_listen', <<'SQL', 'ordinal => 3'),
BEGIN
	RAISE LOG 'hook says third %', key;
	RETURN true;
END
SQL
	hook($bob, 'no_bad', 'should_listen', <<'SQL', 'ordinal => 2'),
BEGIN
	RAISE LOG 'hook says second %', key;
	RETURN "values" ->> 'v' IS DISTINCT FROM 'bad';
END
SQL
	hook($bob, 'first', 'should_listen', <<'SQL', 'ordinal => 1'),
BEGIN
	RAISE LOG 'hook says first %', key;
	RETURN CASE WHEN (key ->> 'id')::int % 2 = 0 THEN true END;
END
SQL
	hook($bob, 'never', 'should_listen', "BEGIN RAISE LOG 'hook says never'; RETURN false; END", "peer => 'carol', ordinal => 1"),
	add($bob, 'never', 'should_listen', "relation => 'vault', ordinal => 1"));
$mark = $bob->log_mark;
$alice->sql(<<'SQL');
INSERT INTO item SELECT i, CASE WHEN i = 3 THEN 'bad' ELSE 'good' END, i FROM generate_series(2, 4) i;
INSERT INTO other VALUES (1, 'good'), (2, 'bad');
SQL
$alice->drain('bob');
is($bob->sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM item"), '2 4', 'a no keeps one row out');
is($bob->sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM other"), '1', '... of whichever table');
my %asked;
my $said = said($bob, $mark);
push @{ $asked{$2} }, $1 while $said =~ /^(\w+) \{"id": (\d)\}/mg;
is(join(' ', @{ $asked{4} }), 'first second third', 'hooks are asked in order of their ordinal');
is(join(' ', @{ $asked{3} }[0 .. 1], scalar grep { $_ eq 'third' } @{ $asked{3} }), 'first second 0', '... up to the first that says no');
unlike(said($bob, $mark), qr/never/, 'one of another peer, or another table, is not asked');
is(parked($bob), <<'END' =~ s/\n\z//r, 'what is refused is parked');
(id)=(2)|42501|refused by hook "no_bad"|
(id)=(3)|42501|refused by hook "no_bad"|
END
is(violations($bob), "alice|hook refused|alice|item|1\nalice|hook refused|alice|other|1", '... and counted');
is($bob->peer('alice')->{last_error}, '42501: hook "no_bad" refused what the peer sent of owner "alice"', '... and told');
is(scalar(() = $bob->log_since($mark) =~ /LOG:  hook "no_bad" refused/g), 1, '... once in the log');
unlike($bob->log_since($mark), qr/could not be stored/, '... and not once per row');

# what is asked for again is asked about again, and counts once
$mark = $bob->log_mark;
my $tries = $bob->sql('SELECT max(tries) FROM entanglement.parked');
$bob->wait_until("SELECT min(tries) > greatest(2, $tries) FROM entanglement.parked", 't', 'asked for again');
is(violations($bob), "alice|hook refused|alice|item|1\nalice|hook refused|alice|other|1", 'what is asked for again is not counted again');
like(said($bob, $mark), qr/^second \{"id": 3\}/m, 'though hooks are asked');
$alice->sql("UPDATE item SET v = 'good' WHERE id = 3");
$bob->wait_until('SELECT v FROM item WHERE id = 3', 'good', 'a better version is taken');
$alice->sql("UPDATE item SET v = 'bad' WHERE id = 3");
$bob->wait_until("SELECT count(*) FROM entanglement.parked_rows WHERE relation = 'item'::regclass", '1', 'an update is refused');
is($bob->sql('SELECT v FROM item WHERE id = 3'), 'good', '... and the row stays as it was');
unhook($bob, @n);
converge([ $alice, $bob ], [ 'item', 'other' ], 'without the hook what was refused comes');
is($bob->sql('SELECT count(*) FROM entanglement.parked'), '0', '... and is parked no more');
is($bob->sql("SELECT since FROM entanglement.peers WHERE name = 'alice'"), $since, '... on the same link');

# an error is a no
$mark = $bob->log_mark;
$n = hook($bob, 'fails', 'should_listen', q(1 / ((key ->> 'id')::int - 50) IS NOT NULL));
add($bob, 'fails', 'should_listen', "ordinal => 200");
$alice->sql("INSERT INTO item SELECT i, 'x', i FROM generate_series(40, 60) i");
$alice->drain('bob');
is(parked($bob), '(id)=(50)|42501|refused by hook "fails"|It failed with 22012: division by zero', 'an error is a no');
is($bob->sql('SELECT count(*) FROM item WHERE id BETWEEN 40 AND 60'), '20', '... for the row it is about');
function($bob, 'fails', 'should_listen', q(BEGIN RAISE EXCEPTION USING ERRCODE = 'AB123', MESSAGE = 'never ' || (key ->> 'id'); END));
$alice->sql("INSERT INTO item SELECT i, 'x', i FROM generate_series(61, 160) i");
$alice->drain('bob');
is($bob->sql(q(SELECT count(*) FROM entanglement.parked_rows WHERE detail ~ '^It failed with AB123: never \d+$' AND detail !~ ' 50$')), '100', 'a function that is replaced is another one at once');
is(scalar(() = $bob->log_since($mark) =~ /LOG:  hook "fails" failed/g), 1, 'the log has one line of all that');
like($bob->log_since($mark), qr/LOG:  hook "fails" failed on what the peer sent of owner "alice", which was refused: 22012: division by zero/, '... with the error');
is($bob->sql("SELECT count FROM entanglement.violations WHERE kind = 'hook failed'"), '101', '... and violations count them');
unhook($bob, $n, $n + 1);
converge([ $alice, $bob ], [ 'item', 'other' ], 'and all comes in the end');

# ---- should_listen_constructed ----

# bob's role for alice may not see hidden, nor may the hook be told
$bob->sql('REVOKE SELECT ON item FROM alice; GRANT SELECT (id, v, w) ON item TO alice');
$mark = $bob->log_mark;
$n = hook($bob, 'up_only', 'should_listen_constructed', <<'SQL', "'item', 'alice'");
BEGIN
	RAISE LOG 'hook says % -> %', old, new;
	RETURN (new ->> 'w')::int >= (old ->> 'w')::int;
END
SQL
$alice->sql("INSERT INTO item VALUES (200, 'a', 5, 'h')");
$alice->drain('bob');
$bob->sql("SET session_replication_role = replica; UPDATE item SET hidden = 'bob only' WHERE id = 200");
foreach my $sql ('UPDATE item SET w = 6 WHERE id = 200', "UPDATE item SET hidden = 'i' WHERE id = 200", 'UPDATE item SET w = 2 WHERE id = 200')
{
	$alice->sql($sql);
	$alice->drain('bob');
}
my @said = split /\n/, said($bob, $mark);
is(join("\n", @said[0 .. 3]), <<'END' =~ s/\n\z//r, 'a constructed hook sees the row before and after, as far as the peer does');
<NULL> -> {"v": "a", "w": 5, "id": 200, "hidden": "h"}
{"v": "a", "w": 5, "id": 200} -> {"v": "a", "w": 6, "id": 200}
{"v": "a", "w": 6, "id": 200} -> {"v": "a", "w": 6, "id": 200, "hidden": "i"}
{"v": "a", "w": 6, "id": 200} -> {"v": "a", "w": 2, "id": 200}
END
is($bob->sql('SELECT w FROM item WHERE id = 200'), '6', '... and refuses what would become of it');
$alice->sql('DELETE FROM item WHERE id = 200');
$alice->drain('bob');
is($bob->sql('SELECT count(*) FROM item WHERE id = 200'), '0', 'NULL of a comparison is no opinion');
function($bob, 'up_only', 'should_listen_constructed', 'new IS NOT NULL');
$alice->sql('DELETE FROM item WHERE id = 2');
$bob->wait_until("SELECT message FROM entanglement.parked_rows WHERE key = '(id)=(2)'", 'refused by hook "up_only"', 'a deletion is refused');
is($bob->sql('SELECT v FROM item WHERE id = 2'), 'good', '... and the row stays');
unhook($bob, $n);
$bob->wait_until('SELECT count(*) FROM item WHERE id = 2', '0', 'until the hook has gone');
$bob->sql('GRANT SELECT ON item TO alice');

# ---- requests ----

$alice->sql(<<'SQL');
CREATE FUNCTION guard.round() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.w := new.w / 10 * 10; RETURN new; END $$;
CREATE TRIGGER round BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION guard.round();
SQL
$mark = $alice->log_mark;
@n = (
	hook($alice, 'ask', 'should_listen', <<'SQL'),
BEGIN
	RAISE LOG 'hook says % % % % % % %', peer, owner, relation, operation, key, columns, "values";
	IF "values" ->> 'v' = 'error' THEN
		RAISE EXCEPTION 'a secret of alice';
	END IF;
	RETURN "values" ->> 'v' <> 'bad';
END
SQL
	hook($alice, 'ask_more', 'should_listen_constructed', <<'SQL'));
BEGIN
	RAISE LOG 'hook says % -> %', old, new;
	RETURN (new ->> 'w')::int < 100;
END
SQL

# statement => how it is answered
my @requests = (
	[ "UPDATE item SET w = 17 WHERE id = 4", '' ],
	[ "UPDATE item SET v = 'bad', w = 18 WHERE id = 4", 'refused by hook "ask"' ],
	[ "UPDATE item SET v = 'error' WHERE id = 4", 'refused by hook "ask"' ],
	[ "UPDATE item SET w = 101 WHERE id = 4", 'refused by hook "ask_more"' ],
	[ "DELETE FROM item WHERE id = 40", '' ],
	[ "SET entanglement.owner = 'alice'; INSERT INTO other VALUES (9, 'new')", '' ],
	[ "SET entanglement.owner = 'alice'; INSERT INTO other VALUES (10, 'bad')", 'refused by hook "ask"' ]);
foreach my $case (@requests)
{
	my ($sql, $refusal) = @$case;
	my ($rc, $out, $err) = $bob->try("$sql; SELECT entanglement.wait_for(entanglement.last_request())");

	if ($refusal eq '')
	{
		is($out . $err, 'accepted', "$sql: is accepted");
		next;
	}
	like($err, qr/ERROR:  42501: \Q$refusal\E$/m, "$sql: is refused");
	unlike($err, qr/DETAIL|HINT|secret/, '... without a word of why');
}
is(said($alice, $mark), <<'END' =~ s/\n\z//r, 'hooks hear what is asked, and what would come of it');
bob alice public.item update {"id": 4} {w} {"w": 17}
{"v": "good", "w": 4, "id": 4, "hidden": null} -> {"v": "good", "w": 10, "id": 4, "hidden": null}
bob alice public.item update {"id": 4} {v,w} {"v": "bad", "w": 18}
bob alice public.item update {"id": 4} {v} {"v": "error"}
bob alice public.item update {"id": 4} {w} {"w": 101}
{"v": "good", "w": 10, "id": 4, "hidden": null} -> {"v": "good", "w": 100, "id": 4, "hidden": null}
bob alice public.item delete {"id": 40} {} <NULL>
{"v": "x", "w": 40, "id": 40, "hidden": null} -> <NULL>
bob alice public.other insert <NULL> {id,v} {"v": "new", "id": 9}
<NULL> -> {"v": "new", "id": 9}
bob alice public.other insert <NULL> {id,v} {"v": "bad", "id": 10}
END
is(violations($alice), "bob|hook failed|alice|item|1\nbob|hook refused|alice|item|2\nbob|hook refused|alice|other|1", 'refused requests are counted');
like($alice->log_since($mark), qr/LOG:  hook "ask" failed on what the peer sent of owner "alice", which was refused: P0001: a secret of alice/, 'an error is told at home');
converge([ $alice, $bob ], [ 'item', 'other' ], 'nothing of what was refused was done');
unhook($alice, @n);

# ---- as whom a hook runs ----

# what plain tries => what comes of it
my @attempts = (
	[ 'reads what he may not', 'PERFORM word FROM vault', '42P01' ],
	[ 'reads what he may not, by its full name', 'PERFORM word FROM public.vault', '42501' ],
	[ 'becomes another role', 'SET ROLE stranger', '42501' ],
	[ 'becomes the session user', 'RESET ROLE', '42501' ],
	[ 'becomes a superuser', "PERFORM set_config('session_authorization', session_user, true)", '42501' ],
	[ 'writes', 'INSERT INTO public.own VALUES (1)', '25006' ],
	[ 'makes a table', 'CREATE TABLE public.more ()', '25006' ],
	[ 'makes a temporary table', 'CREATE TEMPORARY TABLE more ()', '25006' ],
	[ 'wants to write', 'SET transaction_read_only = off', '25001' ],
	[ 'wants to write all the same', 'SET TRANSACTION READ WRITE', '25001' ],
	[ 'commits', 'COMMIT', '2D000' ],
	[ 'reads its own', 'PERFORM FROM public.own', '' ]);

$bob->sql('CREATE TABLE own (id int); ALTER TABLE own OWNER TO plain');
my $id = 300;
foreach my $case (@attempts)
{
	my ($what, $sql, $state) = @$case;

	function($bob, 'trojan', 'should_listen', "BEGIN $sql; RETURN true; END");
	$bob->sql("ALTER FUNCTION guard.trojan OWNER TO plain");
	$n = add($bob, 'trojan', 'should_listen', "'item'");
	$alice->sql("INSERT INTO item VALUES (" . ++$id . ", 'x')");
	$alice->drain('bob');
	is( $bob->sql("SELECT substring(detail FROM 'failed with (.....)') FROM entanglement.parked_rows UNION ALL SELECT '' FROM item WHERE id = $id"),
		$state, "a hook that $what");
	unhook($bob, $n);
	$bob->wait_until('SELECT count(*) FROM entanglement.parked', '0', 'nothing is left');
}
is($bob->sql('SELECT count(*) FROM own'), '0', 'nothing was written');

# settings are pinned, and what it sets does not stay
function($bob, 'trojan', 'should_listen', <<'SQL');
BEGIN
	RAISE LOG 'hook says % % % %', current_user, current_setting('search_path'), current_setting('DateStyle'), coalesce(current_setting('test.note', true), '');
	PERFORM set_config('test.note', 'stays', false);
	RETURN true;
END
SQL
$mark = $bob->log_mark;
$n = add($bob, 'trojan', 'should_listen', "'item'");
$alice->sql("INSERT INTO item VALUES (401, 'x'), (402, 'y')");
$alice->drain('bob');
is(said($bob, $mark) =~ s/ +$//mgr, join("\n", ('plain pg_catalog, pg_temp ISO, YMD') x 2), 'it runs as its owner, with settings that are pinned');

# ---- which come and go ----

$bob->sql('ALTER FUNCTION guard.trojan RENAME TO renamed');
$alice->sql("INSERT INTO item VALUES (403, 'z')");
$alice->drain('bob');
is(parked($bob), qq((id)=(403)|42501|refused by hook "$n"|It failed with 42883: the function of hook $n has gone or was changed), 'one that is not found says no');
$bob->sql('ALTER FUNCTION guard.renamed RENAME TO trojan');
$bob->wait_until('SELECT v FROM item WHERE id = 403', 'z', 'until it is found');

$bob->fails('DROP FUNCTION guard.trojan', '55006', 'function guard.trojan\(.*\) is a hook of entanglement.*remove_hook\(' . $n . '\)', 'the function of a hook cannot be dropped');
$bob->fails('DROP FUNCTION guard.trojan CASCADE', '55006', 'is a hook', '... by no means');
$bob->sql("CREATE TABLE brief (id int PRIMARY KEY)");
add($bob, 'trojan', 'should_listen', "'brief'");
add($bob, 'trojan', 'should_listen', "peer => 'carol'");
is($bob->sql('SELECT count(*) FROM entanglement.hooks'), '3', 'hooks of a table and of a peer');
$bob->sql("DROP TABLE brief; SELECT entanglement.drop_peer('carol')");
is($bob->sql('SELECT number, kind, function, relation, peer, ordinal, added_by FROM entanglement.hooks'),
	"$n|should_listen|guard.trojan(text,text,regclass,text,jsonb,text[],jsonb)|item||100|"
	  . $bob->sql('SELECT current_user'), 'with their table, or peer, hooks go');
unhook($bob, $n);
$bob->sql('DROP FUNCTION guard.trojan');

# ---- should_send ----

# what bob's role for alice is shown of item
sub at_alice
{
	return $alice->sql("SELECT string_agg(id || coalesce(v, '-'), ' ' ORDER BY id) FROM item WHERE id > 1000");
}

# By number: red, blue or none.
sub colour { return ('red', 'blue', '-')[ $_[0] % 3 ]; }

$bob->sql("INSERT INTO item SELECT i, CASE i % 3 WHEN 0 THEN 'red' WHEN 1 THEN 'blue' END, i FROM generate_series(1001, 1006) i");
$bob->drain('alice');
is(at_alice(), join(' ', map { $_ . colour($_) } 1001 .. 1006), 'without hooks all is sent');
$since = $bob->sql("SELECT since FROM entanglement.peers WHERE name = 'alice'");
$mark = $bob->log_mark;
$n = hook($bob, 'no_red', 'should_send', <<'SQL', "'item', 'alice'");
BEGIN
	RAISE LOG 'hook says % % % % %', peer, owner, relation, key, "row";
	RETURN "row" ->> 'v' <> 'red';
END
SQL
$alice->wait_until("SELECT string_agg(id || coalesce(v, '-'), ' ' ORDER BY id) FROM item WHERE id > 1000", join(' ', map { $_ . colour($_) } grep { colour($_) ne 'red' } 1001 .. 1006), 'what a hook forbids is withdrawn');
like(said($bob, $mark), qr/^alice bob public\.item \{"id": 1001\} \{"v": null, "w": 1001, "id": 1001, "hidden": null\}$/m, 'a should_send hook is told the row as the peer may see it');
$bob->sql("UPDATE item SET v = 'blue' WHERE id = 1005; UPDATE item SET v = 'red' WHERE id = 1004; INSERT INTO item VALUES (1007, 'red'), (1008, 'green')");
$bob->drain('alice');
is(at_alice(), '1001- 1003blue 1005blue 1006blue 1008green', 'a row goes and comes as the hook sees it');
is($bob->sql("SELECT count(*) FROM entanglement.holding h JOIN entanglement.relation r ON r.no = h.rel WHERE relid = 'item'::regclass AND encode(key, 'hex') LIKE '%' || lpad(to_hex(1007), 8, '0')"), '0', '... one that never was to be seen is never told of');
is($alice->sql("SELECT relation, difference, lo, hi FROM entanglement.verify('bob')"), '', 'verify knows that');
function($bob, 'no_red', 'should_send', q("row" ->> 'v' <> 'blue'));
$alice->wait_until("SELECT count(*) FROM item WHERE id > 1000 AND v = 'blue'", '0', 'another function: what it forbids goes');
$alice->wait_until("SELECT count(*) FROM item WHERE id > 1000 AND v = 'red'", '3', '... what it does not comes');

# an error is a no, and is told
$bob->sql('DELETE FROM entanglement.violation');
quiet($bob, 0);
$mark = $bob->log_mark;
function($bob, 'no_red', 'should_send', q(1 / (((key ->> 'id')::int) % 2) = 1));
$alice->wait_until("SELECT string_agg(DISTINCT (id % 2)::text, ' ') FROM item WHERE id > 1000", '1', 'where it fails nothing is sent');
like($bob->log_since($mark), qr/LOG:  hook "no_red" failed on what was to be sent to the peer of owner "bob", which was refused: 22012: division by zero/, '... and the log says so');
is($bob->sql("SELECT peer, owner, relation FROM entanglement.violations WHERE kind = 'hook failed' AND owner = 'bob'"), 'alice|bob|item', '... and violations');
unhook($bob, $n);
converge([ $alice, $bob ], [ 'item', 'other' ], 'without the hook all comes');
is($bob->sql("SELECT since FROM entanglement.peers WHERE name = 'alice'"), $since, '... on the same link');

# who may: who has EXECUTE, for functions that are his, or SECURITY DEFINER
$bob->sql(<<"SQL");
GRANT USAGE ON SCHEMA entanglement TO plain;
GRANT EXECUTE ON FUNCTION entanglement.add_hook, entanglement.remove_hook TO plain;
CREATE FUNCTION guard.mine($listen) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION guard.yours($listen) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION guard.definer($listen) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT true';
ALTER FUNCTION guard.mine OWNER TO plain;
SQL
my %who = (mine => '', yours => '42501', definer => '');
foreach my $name (sort keys %who)
{
	my ($rc, $out, $err) = $bob->try("SET ROLE plain; SELECT entanglement.add_hook('should_listen', 'guard.$name(text,text,regclass,text,jsonb,text[],jsonb)')");

	is($err =~ /ERROR:  (.....)/ ? $1 : '', $who{$name}, "plain adds a hook: $name");
}
$n = add($bob, 'yours', 'should_listen');
$bob->fails("SET ROLE plain; SELECT entanglement.remove_hook($n)", '42501', 'was added by another role', 'and cannot remove what others have added');
$bob->sql("SET ROLE plain; SELECT entanglement.remove_hook($n - 1)");
$bob->sql("SELECT entanglement.remove_hook(number) FROM entanglement.hooks");
$alice->sql("INSERT INTO item VALUES (500, 'x')");
converge([ $alice, $bob ], [ 'item', 'other' ], 'links go on');

done_testing();
