-- entanglement: tables. Internal; users look through the views.
\echo Use "CREATE EXTENSION entanglement" to load this file. \quit

COMMENT ON SCHEMA entanglement IS 'Rows kept in step with other databases: views and functions of the extension entanglement, and what it keeps in tables.';

CREATE FUNCTION entanglement.place() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'ent_sql_place';
REVOKE ALL ON FUNCTION entanglement.place() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.place() TO PUBLIC;
COMMENT ON FUNCTION entanglement.place() IS
'Which database of which cluster this is: system identifier and OID. A node whose identity says otherwise is a copy.';

-- This database as a node: exactly one row, written by CREATE EXTENSION.
CREATE TABLE entanglement.identity (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL,
    name text NOT NULL,
    default_owner integer NOT NULL,
    used boolean NOT NULL DEFAULT false,
    place text NOT NULL DEFAULT entanglement.place(),
    encoding name NOT NULL DEFAULT pg_catalog.getdatabaseencoding(),
    timeline integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE entanglement.identity IS 'This database as a node: its id, name and default owner. One row. used: somebody else may know of it, by a table, peer or owner that was made; place: where it was at home when that was decided last, empty when it was loaded from a dump; encoding: of keys; timeline: of the write-ahead log when the collector looked last, 0 never.';

-- Owners, local and remote. serial: for a local owner the last one given out,
-- for a remote one our have (complete up to here, as far as we may see).
CREATE TABLE entanglement.owner (
    no integer GENERATED ALWAYS AS IDENTITY (START WITH 2) PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    name text NOT NULL,
    local boolean NOT NULL,
    home uuid NOT NULL,
    epoch integer NOT NULL DEFAULT 1 CHECK (epoch > 0),
    serial bigint NOT NULL DEFAULT 0 CHECK (serial >= 0),
    sure bigint NOT NULL DEFAULT 0,
    told bigint NOT NULL DEFAULT 0,
    pruned bigint NOT NULL DEFAULT 0,
    peer integer,
    distance integer NOT NULL DEFAULT 0,
    nearest integer NOT NULL DEFAULT 2147483647,
    lost boolean NOT NULL DEFAULT false,
    gone_as regrole,
    initial boolean NOT NULL DEFAULT false,
    held integer,
    partial boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX owner_local_name ON entanglement.owner (name) WHERE local;
CREATE INDEX owner_name ON entanglement.owner (name);
COMMENT ON TABLE entanglement.owner IS 'Authorities for objects; serial is the last allocated (local) or our have (remote), pruned the newest serial of a collected tombstone, peer the route. Of a remote one: sure is the have without gaps, told the greatest have there was in this epoch, nearest the least distance since then, lost what the peer says of its own route, partial that it gives some of the objects only. gone_as: it is no more, and its rows are being deleted with the rights of that role. initial: made by CREATE EXTENSION, to give way to a dump that is loaded. held: while it has no route because this became another node, whose rows of peer_table say what of its objects is here (0: those of no peer, for owners that were at home here).';

-- Written where a standby is promoted, and passed on with the owner.
CREATE TABLE entanglement.ancestor (
    owner integer NOT NULL,
    epoch integer NOT NULL,
    serial bigint NOT NULL,
    PRIMARY KEY (owner, epoch)
);
COMMENT ON TABLE entanglement.ancestor IS 'Earlier epochs that an owner''s present one goes on from: versions of that epoch up to that serial are versions of the present one as well.';

-- Gone after a crash, as are those who asked: they ask again.
CREATE UNLOGGED TABLE entanglement.seek (
    owner integer PRIMARY KEY,
    local boolean NOT NULL,
    epoch integer NOT NULL,
    serial bigint NOT NULL
);
CREATE INDEX seek_local ON entanglement.seek (owner) WHERE local;
COMMENT ON TABLE entanglement.seek IS 'Owners of which peers seek an offer beyond that serial, so that they may change their route: of a remote one it is asked of our own route, for a local one the next fold gives out a serial.';

CREATE TABLE entanglement.speaker (
    owner integer PRIMARY KEY,
    peers integer[] NOT NULL
);
COMMENT ON TABLE entanglement.speaker IS 'Owners that are pinned to the peers that may speak for them.';

CREATE TABLE entanglement.violation (
    peer integer NOT NULL,
    kind text NOT NULL,
    owner integer NOT NULL,
    rel integer NOT NULL,
    count bigint NOT NULL,
    latest timestamptz NOT NULL,
    PRIMARY KEY (peer, kind, owner, rel)
);
COMMENT ON TABLE entanglement.violation IS 'What peers sent or asked that they had no right to, and how often; owner and rel are 0 where it is about none, or about more than are kept of one peer.';

CREATE TABLE entanglement.relation (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid regclass NOT NULL UNIQUE,
    key_index name NOT NULL,
    capture text NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    keys_from_others boolean NOT NULL DEFAULT false,
    integrity boolean NOT NULL DEFAULT false,
    priority_given boolean NOT NULL DEFAULT false,
    owner_column smallint,
    owner_column_name name,
    every_state boolean NOT NULL DEFAULT false,
    wal boolean NOT NULL DEFAULT false,
    remote boolean NOT NULL DEFAULT false,
    digested smallint NOT NULL DEFAULT 0,
    CONSTRAINT every_state_or_integrity CHECK (NOT (every_state AND integrity))
);
COMMENT ON TABLE entanglement.relation IS 'Synchronized tables. key_index is in the table''s schema. What a dump carries is found by its name again: numbers of columns are others after it. every_state: no committed state is left out, as far as the journal goes. remote: objects of remote owners have been in it, so writers look whose a row is. digested: with capture from the log, the columns of our objects have their digests up to this attribute number.';

-- Changes with DDL: what came or went since is told by the difference.
CREATE TABLE entanglement.partition (
    relid regclass PRIMARY KEY,
    rel integer NOT NULL
);
COMMENT ON TABLE entanglement.partition IS 'Partitions with rows of synchronized tables.';

-- The log that capture writes and the collector folds. No index on purpose.
CREATE TABLE entanglement.change (
    rel integer NOT NULL,
    owner integer NOT NULL,
    op "char" NOT NULL,
    key bytea,
    columns bytea,
    place pg_lsn,
    xid xid,
    image bytea,
    digests bytea
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE entanglement.change IS 'Captured changes not yet folded: operation I, U, D, T or H (handed over), key image, bitmap of changed columns by attribute number. Of tables with every_state: place, which tells the order of an object''s changes, the transaction, and what the row was before if that had been committed. Of tables captured from the log: place, and digests of the columns that it told.';

-- At most one row.
CREATE TABLE entanglement.doubt (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
COMMENT ON TABLE entanglement.doubt IS 'A row while a fold that left changes in the log has taken a death: what came before that may be among these, and is no birth.';

-- At most one row. Not in dumps: where one is loaded is another log.
CREATE TABLE entanglement.log_position (
    read_to pg_lsn NOT NULL,
    horizon xid8 NOT NULL
);
COMMENT ON TABLE entanglement.log_position IS 'How far the write-ahead log has been read for capture: commits before read_to are captured, and all that transactions before horizon did (0: not known). What a new slot does not tell is found by it.';

-- What objects of tables with every_state were before: committed states that a
-- newer one has replaced.
CREATE TABLE entanglement.journal (
    no bigint GENERATED ALWAYS AS IDENTITY,
    rel integer NOT NULL,
    owner integer NOT NULL,
    epoch integer NOT NULL,
    serial bigint NOT NULL,
    born bigint NOT NULL,
    key bytea NOT NULL,
    column_serials bytea NOT NULL,
    image bytea,
    PRIMARY KEY (rel, key, owner, epoch, serial)
);
CREATE INDEX journal_owner_serial ON entanglement.journal (owner, serial);
COMMENT ON TABLE entanglement.journal IS 'Versions of objects that newer ones have replaced, until every peer has them, as far as entanglement.journal_limit goes. image: the values of the row by column; NULL: it was deleted.';

CREATE TABLE entanglement.journal_loss (
    peer integer NOT NULL,
    rel integer NOT NULL,
    states bigint NOT NULL,
    latest timestamptz NOT NULL,
    PRIMARY KEY (peer, rel)
);
COMMENT ON TABLE entanglement.journal_loss IS 'How many states of tables with every_state peers have not received and never will, because of entanglement.journal_limit.';

CREATE TABLE entanglement.object (
    rel integer NOT NULL,
    owner integer NOT NULL,
    epoch integer NOT NULL,
    serial bigint NOT NULL,
    born bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    key bytea NOT NULL,
    column_serials bytea NOT NULL,
    digests bytea,
    PRIMARY KEY (rel, key)
) WITH (fillfactor = 80);
CREATE INDEX object_owner_serial ON entanglement.object (owner, serial);
CREATE INDEX object_unconfirmed ON entanglement.object (rel, key) WHERE born OPERATOR(pg_catalog.=) 0;
COMMENT ON TABLE entanglement.object IS 'State of every live object: owner, version, birth, and the serial at which each column last changed. born 0: it has been handed over to this owner, who has not confirmed it yet by a version of his. digests: what the columns were when the log told of them last, of local owners'' objects in tables captured from the log; empty, of a remote owner''s object: the row may be newer than its version, which was told before the change had a serial.';

CREATE TABLE entanglement.tombstone (
    rel integer NOT NULL,
    owner integer NOT NULL,
    epoch integer NOT NULL,
    serial bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    key bytea NOT NULL,
    heir integer,
    heir_epoch integer,
    heir_serial bigint,
    from_owner integer,
    from_epoch integer,
    from_serial bigint,
    ahead boolean NOT NULL DEFAULT false,
    PRIMARY KEY (owner, rel, key)
);
-- owner + 0: no plan made while the table is empty takes it for one by key.
CREATE INDEX tombstone_owner_serial ON entanglement.tombstone ((owner + 0), serial);
-- What is of an older epoch may go whatever its serial.
CREATE INDEX tombstone_owner_epoch ON entanglement.tombstone ((owner + 0), epoch);
COMMENT ON TABLE entanglement.tombstone IS 'What remains of deleted objects until every peer has heard, and of those handed over to an heir, whose first version of it is newer than heir_epoch, heir_serial. from_owner: who had handed it over before, with the version that said so: until that has been heard here the tombstone is needed. ahead: it was withdrawn in the version it had, and the row was perhaps newer than that.';

-- Objects that others had before: those of local owners, and those whose new owner
-- has not confirmed them yet. delivered: the peers to which it has been
-- brought from here.
CREATE TABLE entanglement.inherited (
    rel integer NOT NULL,
    key bytea NOT NULL,
    from_owner integer NOT NULL,
    from_epoch integer NOT NULL,
    from_serial bigint NOT NULL,
    delivered integer[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (rel, key)
);
COMMENT ON TABLE entanglement.inherited IS 'Objects that were handed over, to local owners or to ones who have not confirmed it: by whom, and his version that said so; delivered: peers that have received it from here.';

-- Objects whose owner has handed them over, until the fold does it; the newest counts.
CREATE TABLE entanglement.handover (
    no bigint GENERATED ALWAYS AS IDENTITY,
    rel integer NOT NULL,
    key bytea NOT NULL,
    heir integer NOT NULL
);
CREATE INDEX handover_key ON entanglement.handover (rel, key);
COMMENT ON TABLE entanglement.handover IS 'Objects handed over by a committed transaction and not folded yet: from then on their owner is the heir.';

CREATE TABLE entanglement.peer (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> ''),
    conninfo text,
    role regrole NOT NULL,
    bandwidth bigint CHECK (bandwidth > 0),
    paused boolean NOT NULL DEFAULT false,
    node uuid,
    fingerprint text
);
CREATE UNIQUE INDEX peer_node ON entanglement.peer (node);
COMMENT ON TABLE entanglement.peer IS 'Other nodes this node exchanges batches with. conninfo may hold secrets: superusers only.';

CREATE TABLE entanglement.peer_owner (
    peer integer NOT NULL,
    owner integer NOT NULL,
    epoch integer NOT NULL,
    have bigint NOT NULL,
    PRIMARY KEY (peer, owner)
);
COMMENT ON TABLE entanglement.peer_owner IS 'What each peer last said it holds of each owner; decides which tombstones may go.';

CREATE TABLE entanglement.peer_table (
    peer integer NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    number integer NOT NULL,
    known boolean NOT NULL,
    mapped text[] NOT NULL,
    missing text[] NOT NULL,
    PRIMARY KEY (peer, schema_name, table_name)
);
COMMENT ON TABLE entanglement.peer_table IS 'Tables a peer announced: under which number, whether we have them, which columns fit and which are missing here.';

CREATE TABLE entanglement.arrears (
    owner integer NOT NULL,
    rel integer NOT NULL,
    round bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (owner, rel)
);
COMMENT ON TABLE entanglement.arrears IS 'Tables whose objects of an owner must be fetched anew, because the table or a column appeared here after they had passed by, or to be compared as a whole; round grows when that is wanted once more.';

CREATE TABLE entanglement.resend (
    peer integer NOT NULL,
    owner integer NOT NULL,
    rel integer NOT NULL,
    round bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    compare boolean NOT NULL DEFAULT true,
    PRIMARY KEY (peer, owner, rel)
);
COMMENT ON TABLE entanglement.resend IS 'Tables whose objects of an owner are to be looked at again for a peer: compare: sent anew, to be compared as a whole; else only what it may see now and did not before, or the other way round. round grows when that is wanted once more.';

CREATE TABLE entanglement.shown (
    peer integer NOT NULL,
    rel integer NOT NULL,
    kind "char" NOT NULL,
    target "char" NOT NULL,
    digest bigint NOT NULL,
    PRIMARY KEY (peer, rel)
);
COMMENT ON TABLE entanglement.shown IS 'What peers have been shown of tables: a all, s some of the rows, n nothing any more; target: what it will be when all objects have been looked at again. digest: of the rules that decide which.';

CREATE TABLE entanglement.holding (
    peer integer NOT NULL,
    rel integer NOT NULL,
    key bytea NOT NULL,
    leaving boolean NOT NULL DEFAULT false,
    PRIMARY KEY (rel, key, peer)
);
COMMENT ON TABLE entanglement.holding IS 'Objects that a peer which is shown some rows of a table may have been told of. Others are never named to it. leaving: it was told to give it up, and has not answered, so that it may have it or not.';

CREATE TABLE entanglement.owed (
    peer integer NOT NULL,
    rel integer NOT NULL,
    owner integer NOT NULL,
    key bytea NOT NULL,
    serial bigint NOT NULL,
    PRIMARY KEY (peer, owner, rel, key)
);
COMMENT ON TABLE entanglement.owed IS 'Objects to be sent in full, or as deleted, to a peer whatever it has, because they came late to us; serial is the version that is owed.';

CREATE TABLE entanglement.parked (
    rel integer NOT NULL,
    key bytea NOT NULL,
    foreign_key boolean NOT NULL DEFAULT false,
    owner integer NOT NULL,
    peer integer NOT NULL,
    epoch integer NOT NULL,
    serial bigint NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    detail text,
    since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    tries integer NOT NULL DEFAULT 1,
    waits_for bigint,
    PRIMARY KEY (rel, key, owner)
);
CREATE INDEX parked_waits_for ON entanglement.parked (waits_for) WHERE waits_for IS NOT NULL;
COMMENT ON TABLE entanglement.parked IS 'Objects that could not be stored here, and why; asked for again from time to time. foreign_key: the key is as the peer sent it, since it has no equivalent in the encoding of this database. waits_for: digest of a foreign key and the values whose coming or going would help.';

-- What this node wants from a peer. relid, not a number: whoever leaves
-- synchronization and joins it again still wants the same.
CREATE TABLE entanglement.subscription (
    peer integer NOT NULL,
    relid regclass NOT NULL,
    filter text,
    round bigint GENERATED ALWAYS AS IDENTITY,
    sqlstate text,
    message text,
    PRIMARY KEY (peer, relid)
);
COMMENT ON TABLE entanglement.subscription IS 'Tables that are wanted from a peer, instead of all, and which of their rows. round: each wish has another one. sqlstate: what the peer said became of it, 00000 it is in force, NULL nothing yet.';

CREATE TABLE entanglement.wanted (
    peer integer NOT NULL,
    rel integer NOT NULL,
    filter text,
    round bigint NOT NULL,
    sqlstate text,
    message text,
    PRIMARY KEY (peer, rel)
);
COMMENT ON TABLE entanglement.wanted IS 'What peers said they want from us: a row with rel 0 says that it is nothing but the others. sqlstate: why the filter is refused, 00000 it is in force, NULL it has not been looked at.';

COMMENT ON SEQUENCE entanglement.subscription_round_seq IS 'Rounds of subscriptions.';
COMMENT ON SEQUENCE entanglement.handover_no_seq IS 'Order of hand-overs.';
COMMENT ON SEQUENCE entanglement.journal_no_seq IS 'Order in which states were replaced.';
COMMENT ON SEQUENCE entanglement.owner_no_seq IS 'Local numbers of owners.';
COMMENT ON SEQUENCE entanglement.relation_no_seq IS 'Local numbers of synchronized tables.';
COMMENT ON SEQUENCE entanglement.peer_no_seq IS 'Local numbers of peers.';

REVOKE ALL ON ALL TABLES IN SCHEMA entanglement FROM PUBLIC;
GRANT USAGE ON SCHEMA entanglement TO PUBLIC;
