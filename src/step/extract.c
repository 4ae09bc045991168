/*
 * step/extract.c
 *	  The newest state of objects, read by key as a peer's role.
 *
 * Our tables are read as their owner, the user's table as the peer's role in
 * a security-restricted context, all under one snapshot.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"

#include "rule/coalesce.h"
#include "rule/colserial.h"
#include "step/extract.h"
#include "store/direct.h"
#include "store/handover.h"
#include "store/object.h"
#include "store/query.h"
#include "store/rowdigest.h"
#include "store/rowquery.h"
#include "store/rowset.h"
#include "store/shown.h"
#include "store/unfolded.h"
#include "store/value.h"
#include "store/version.h"

static EntQuery grave_query = {
	"SELECT u.n, t.epoch, t.serial, t.heir, t.heir_epoch, t.heir_serial, "
	"t.from_owner, t.from_epoch, t.from_serial "
	"FROM unnest($2, $3) WITH ORDINALITY AS u(key, owner, n), LATERAL ("
	"SELECT t.* FROM entanglement.tombstone t "
	"WHERE t.owner OPERATOR(pg_catalog.=) u.owner AND t.rel OPERATOR(pg_catalog.=) $1 "
	"AND t.key OPERATOR(pg_catalog.=) u.key OFFSET 0) t",
	3, {INT4OID, BYTEAARRAYOID, INT4ARRAYOID}, NULL
};
/*
 * What this node knows of the owner, if it would know of such an object. Up to which
 * version it would, if it is given all of the table: of what it is not shown it knows no end.
 * $7: nothing that is parked counts, but for what somebody else holds here ($4).
 */
static EntQuery gone_query = {
	"SELECT u.n, o.epoch, CASE WHEN o.local THEN o.serial "
	"WHEN NOT o.partial AND EXISTS (SELECT FROM entanglement.peer_table f "
	"WHERE f.peer OPERATOR(pg_catalog.=) o.peer AND f.known "
	"AND f.schema_name OPERATOR(pg_catalog.=) $5 AND f.table_name OPERATOR(pg_catalog.=) $6) "
	"THEN o.sure END "
	"FROM unnest($2, $3, $4) WITH ORDINALITY AS u(key, owner, held, n) "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) u.owner "
	"WHERE (o.local OR o.sure OPERATOR(pg_catalog.>=) o.told) "
	"AND NOT EXISTS (SELECT FROM entanglement.arrears a "
	"WHERE a.owner OPERATOR(pg_catalog.=) o.no AND a.rel OPERATOR(pg_catalog.=) $1) "
	"AND ($7 AND NOT u.held OR NOT EXISTS (SELECT FROM entanglement.parked p "
	"WHERE p.rel OPERATOR(pg_catalog.=) $1 AND p.key OPERATOR(pg_catalog.=) u.key "
	"AND p.owner OPERATOR(pg_catalog.=) o.no))",
	7, {INT4OID, BYTEAARRAYOID, INT4ARRAYOID, BOOLARRAYOID, TEXTOID, TEXTOID, BOOLOID}, NULL
};
/* What extraction of one object knows beyond its answer. */
typedef struct Version
{
	bool		found;
	int32		holder;			/* whose it is, this owner's or another one's; */
	bool		unconfirmed;	/* ... who got it handed over */
	EntHand		hand;			/* ... or has it in a later version than this */
	int64		born;
	bytea	   *columns;
	EntDigest  *digests;		/* what of it has been folded; NULL: the log of
								 * changes has all that has not */
} Version;

typedef struct Job
{
	EntRelation *rel;
	const EntExtractFor *whom;
	EntHooks   *hooks;			/* NULL: none */
	EntExtract *items;
	int			n;
	Version    *versions;
	Datum	   *images;			/* keys */
	Datum		keys;			/* the same as bytea[] */
	Snapshot	snapshot;
} Job;

static bytea *
key_image(const EntExtract *x)
{
	bytea	   *b = palloc(VARHDRSZ + x->keylen);

	SET_VARSIZE(b, VARHDRSZ + x->keylen);
	memcpy(VARDATA(b), x->key, x->keylen);
	return b;
}

/*
 * Captured from the log, a change may be visible before it has been read there. It shows
 * in what the row is.
 */
static void
read_digests(EntRelation *rel, TupleTableSlot *row, Version *v)
{
	bytea	   *packed = ent_direct_bytea(row, ENT_OBJECT_DIGESTS);

	if (packed == NULL && !rel->wal)
		return;
	v->digests = palloc(rel->natts * sizeof(EntDigest));
	ent_digest_unpack(packed, v->digests, rel->natts);
}

static void
read_version(EntRelation *rel, TupleTableSlot *row, EntExtract *x, Version *v)
{
	int32		owner = ent_direct_int4(row, ENT_OBJECT_OWNER);
	int64		born = ent_direct_int8(row, ENT_OBJECT_BORN);

	/* what he was handed over is told by who did it, until he confirms it */
	v->holder = owner;
	v->unconfirmed = born == 0;
	v->hand = (EntHand) {owner, ent_direct_int4(row, ENT_OBJECT_EPOCH),
	ent_direct_int8(row, ENT_OBJECT_SERIAL) - 1};
	x->elsewhere = owner != x->owner;
	if (born == 0 || owner != x->owner)
		return;
	v->found = true;
	x->epoch = ent_direct_int4(row, ENT_OBJECT_EPOCH);
	x->serial = ent_direct_int8(row, ENT_OBJECT_SERIAL);
	v->born = born;
	v->columns = ent_direct_bytea(row, ENT_OBJECT_COLUMN_SERIALS);
	if (ent_object_owner_is_local(owner))
		read_digests(rel, row, v);
	else
		x->ahead = ent_object_is_ahead(row);
}

static void
read_versions(Job *j)
{
	EntDirect  *objects = ent_direct_open(ENT_CATALOG_OBJECT,
										  ENT_CATALOG_OBJECT_KEY,
										  AccessShareLock, j->snapshot);

	for (int i = 0; i < j->n; i++)
	{
		TupleTableSlot *row = ent_versions_find(objects, j->rel->no,
												DatumGetByteaPP(j->images[i]));

		if (row != NULL)
			read_version(j->rel, row, &j->items[i], &j->versions[i]);
	}
	ent_direct_close(objects);
}

static EntHand
hand_at(uint64 row, int col)
{
	EntHand		hand = {0};
	bool		none;
	int32		owner = ent_query_int4(row, col, &none);

	if (none)
		return hand;
	hand.owner = owner;
	hand.epoch = ent_query_int4(row, col + 1, NULL);
	hand.serial = ent_query_int8(row, col + 2, NULL);
	return hand;
}

/*
 * Of what has been handed over the one who holds it now is told. When nobody
 * does it has died since, of which the peer may never hear otherwise.
 */
static void
find_holders(Job *j)
{
	for (int i = 0; i < j->n; i++)
	{
		EntExtract *x = &j->items[i];
		Version    *v = &j->versions[i];
		bytea	   *key;

		if (x->kind != ENT_EXTRACT_DEAD || x->heir.owner == 0)
			continue;
		key = key_image(x);
		if (x->heir.owner != v->holder &&
			!ent_handover_follow(j->rel->no, key, &x->heir, j->snapshot))
			x->heir.owner = 0;
		if (x->heir.owner != v->holder)
			x->heir.owner = 0;
		/* what the row holds is what it was last, until the heir makes it his */
		if (x->heir.owner != 0 && v->unconfirmed)
			x->kind = ENT_EXTRACT_FULL;
	}
}

/*
 * Tombstones of what is not alive. They are told whether or not the peer can
 * hold the object: it may hold an earlier life of it.
 */
static void
read_graves(Job *j)
{
	Datum	   *owners = palloc(j->n * sizeof(Datum));
	Datum		args[3] = {Int32GetDatum(j->rel->no), j->keys, 0};
	bool		any = false;

	for (int i = 0; i < j->n; i++)
	{
		owners[i] = Int32GetDatum(j->items[i].owner);
		any |= !j->versions[i].found;
	}
	if (!any)
		return;
	args[2] = ent_query_array(INT4OID, owners, NULL, j->n);
	ent_query_run(&grave_query, args, NULL, SPI_OK_SELECT, j->snapshot);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntExtract *x = &j->items[ent_query_int8(row, 1, NULL) - 1];

		if (j->versions[x - j->items].found)
			continue;
		x->epoch = ent_query_int4(row, 2, NULL);
		x->serial = ent_query_int8(row, 3, NULL);
		x->kind = ENT_EXTRACT_DEAD;
		x->heir = hand_at(row, 4);
		x->from = hand_at(row, 7);
	}
	SPI_freetuptable(SPI_tuptable);
	find_holders(j);
}

/*
 * Is it not to be had, for all that this peer may know? Who is shown a part of a
 * table gets one answer whether there is no such object or it may not see it.
 */
static bool
is_gone(Job *j, int i)
{
	EntExtract *x = &j->items[i];
	Version    *v = &j->versions[i];

	if (j->whom->partial && !x->held)
		return true;
	return !v->found && v->holder == 0;
}

/*
 * Does somebody else hold it, who has confirmed that? Before he has, the tombstone of
 * whom he has it from is kept, and is the answer.
 */
static bool
is_anothers(Job *j, int i)
{
	Version    *v = &j->versions[i];

	return v->holder != 0 && v->holder != j->items[i].owner && !v->unconfirmed;
}

/*
 * What the peer asks for and is not to be had died before the peer could take
 * its death (its tombstone is gone), or is not for it. What somebody else holds came
 * to him: the peer keeps the row, as his, if all of its owner has come here.
 */
static void
take_gone(Job *j, int i, int32 epoch, int64 serial, bool complete)
{
	EntExtract *x = &j->items[i];

	x->epoch = epoch;
	x->kind = ENT_EXTRACT_WITHDRAWN;
	if (is_gone(j, i) || !complete)
		return;
	x->kind = ENT_EXTRACT_DEAD;
	x->serial = serial;
	x->heir = j->versions[i].hand;
}

static void
tell_gone(Job *j)
{
	Datum	   *keys = palloc(j->n * sizeof(Datum));
	Datum	   *owners = palloc(j->n * sizeof(Datum));
	Datum	   *held = palloc(j->n * sizeof(Datum));
	int		   *index = palloc(j->n * sizeof(int));
	Datum		args[7] = {Int32GetDatum(j->rel->no)};
	int			n = 0;

	for (int i = 0; i < j->n; i++)
	{
		EntExtract *x = &j->items[i];

		if (!x->asked || x->kind != ENT_EXTRACT_NOTHING ||
			!(is_gone(j, i) || is_anothers(j, i)))
			continue;
		keys[n] = PointerGetDatum(key_image(x));
		owners[n] = Int32GetDatum(x->owner);
		held[n] = BoolGetDatum(!is_gone(j, i));
		index[n++] = i;
	}
	if (n == 0)
		return;
	args[1] = ent_query_array(BYTEAOID, keys, NULL, n);
	args[2] = ent_query_array(INT4OID, owners, NULL, n);
	args[3] = ent_query_array(BOOLOID, held, NULL, n);
	args[4] = CStringGetTextDatum(j->rel->schema);
	args[5] = CStringGetTextDatum(j->rel->name);
	args[6] = BoolGetDatum(j->whom->partial);
	ent_query_run(&gone_query, args, NULL, SPI_OK_SELECT, j->snapshot);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		none;
		int64		serial = ent_query_int8(row, 3, &none);

		take_gone(j, index[ent_query_int8(row, 1, NULL) - 1],
				  ent_query_int4(row, 2, NULL), serial, !none);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Decides full or delta, and for a delta which columns. */
static void
decide(Job *j, int i)
{
	EntExtract *x = &j->items[i];
	Version    *v = &j->versions[i];
	EntRelation *rel = j->rel;
	int64	   *serials;

	x->set = palloc0(rel->ncolumns * sizeof(bool));
	x->values = palloc0(rel->ncolumns * sizeof(Datum));
	x->nulls = palloc0(rel->ncolumns * sizeof(bool));
	if (!v->found)
		return;
	if (x->since <= 0 || v->born > x->since)
	{
		x->kind = ENT_EXTRACT_FULL;
		return;
	}
	x->kind = ENT_EXTRACT_DELTA;
	serials = palloc(rel->natts * sizeof(int64));
	ent_colserial_unpack((uint8 *) VARDATA_ANY(v->columns),
						 VARSIZE_ANY_EXHDR(v->columns), x->serial, v->born,
						 serials, rel->natts);
	for (int c = 0; c < rel->ncolumns; c++)
		x->set[c] = serials[rel->columns[c].attnum - 1] > x->since;
	x->base = ent_colserial_base(serials, rel->natts, x->since);
	pfree(serials);
}

/* Of a change that the log told: what is not as it was folded. */
static void
add_told(Job *j, EntExtract *x, const bytea *digests)
{
	EntRelation *rel = j->rel;
	const Version *v = &j->versions[x - j->items];
	EntDigest  *said = palloc(rel->natts * sizeof(EntDigest));

	ent_digest_unpack(digests, said, rel->natts);
	for (int c = 0; c < rel->ncolumns; c++)
	{
		int			i = rel->columns[c].attnum - 1;

		x->set[c] |= ent_digest_known(&said[i]) &&
			(v->digests == NULL || !ent_digest_same(&said[i], &v->digests[i]));
	}
	pfree(said);
}

/*
 * A committed, unfolded change of this object: its columns go along. When the
 * key went to another owner, the fold will bury this owner's object.
 */
static void
add_pending(Job *j, EntExtract *x, char op, int32 owner, const bytea *columns,
			const bytea *digests)
{
	const uint8 *set = columns ? (const uint8 *) VARDATA_ANY(columns) : NULL;
	size_t		setlen = columns ? VARSIZE_ANY_EXHDR(columns) : 0;

	if (x->kind != ENT_EXTRACT_DELTA && x->kind != ENT_EXTRACT_FULL)
		return;
	if (op == ENT_CHANGE_HANDOVER || x->heir.owner != 0)
		return;
	x->ahead = true;
	if (op == ENT_CHANGE_INSERT && owner != x->owner)
		x->passed = true;
	if (x->kind == ENT_EXTRACT_FULL)
		return;
	if (op != ENT_CHANGE_UPDATE)
	{
		x->kind = ENT_EXTRACT_FULL;
		return;
	}
	for (int c = 0; c < j->rel->ncolumns; c++)
		if (ent_wire_in_set(set, setlen, j->rel->columns[c].attnum - 1))
			x->set[c] = true;
	if (columns == NULL && digests != NULL)
		add_told(j, x, digests);
}

/* The items by their keys, to find those of changes that are not folded. */
typedef struct Pending
{
	Job		   *j;
	uint32		mask;
	int		   *places;			/* mask + 1 of them, by hash: items + 1, or 0 */
} Pending;

static uint32
place_of(const Pending *p, uint32 hash, const uint8 *key, size_t keylen)
{
	uint32		place = hash & p->mask;

	while (p->places[place] != 0)
	{
		EntExtract *x = &p->j->items[p->places[place] - 1];

		if (x->keylen == keylen && memcmp(x->key, key, keylen) == 0)
			break;
		place = (place + 1) & p->mask;
	}
	return place;
}

static void
place_items(Pending *p, const uint32 *hashes)
{
	p->mask = pg_nextpower2_32(p->j->n * 2) - 1;
	p->places = palloc0((p->mask + 1) * sizeof(int));
	for (int i = 0; i < p->j->n; i++)
	{
		EntExtract *x = &p->j->items[i];

		p->places[place_of(p, hashes[i], x->key, x->keylen)] = i + 1;
	}
}

static bool
take_pending(void *arg, TupleTableSlot *slot)
{
	Pending    *p = arg;
	bytea	   *key = ent_direct_bytea(slot, ENT_CHANGE_KEY);
	const uint8 *bytes;
	size_t		len;
	int			item;
	bool		null;

	/* rows that are there after a TRUNCATE were born, and say so themselves */
	if (key == NULL || ent_direct_int4(slot, ENT_CHANGE_REL) != p->j->rel->no)
		return true;
	bytes = (uint8 *) VARDATA_ANY(key);
	len = VARSIZE_ANY_EXHDR(key);
	item = p->places[place_of(p, ent_unfolded_hash(bytes, len), bytes, len)];
	if (item == 0)
		return true;
	add_pending(p->j, &p->j->items[item - 1],
				DatumGetChar(slot_getattr(slot, ENT_CHANGE_OP, &null)),
				ent_direct_int4(slot, ENT_CHANGE_OWNER),
				ent_direct_bytea(slot, ENT_CHANGE_COLUMNS),
				ent_direct_bytea(slot, ENT_CHANGE_DIGESTS));
	return true;
}

static void
read_pending(Job *j)
{
	Pending		p = {.j = j};
	uint32	   *hashes = palloc(j->n * sizeof(uint32));

	for (int i = 0; i < j->n; i++)
		hashes[i] = ent_unfolded_hash(j->items[i].key, j->items[i].keylen);
	place_items(&p, hashes);
	ent_unfolded_find(j->snapshot, hashes, j->n, take_pending, &p);
}

/*
 * What the peer does not hold yet it gets in full; what it may not see is
 * taken from it, if it holds it.
 */
static void
settle_visible(Job *j, EntExtract *x, bool visible)
{
	if (visible && j->whom->partial && (!x->held || x->leaving))
		x->kind = ENT_EXTRACT_FULL;
	else if (!visible)
		x->kind = x->held ? ENT_EXTRACT_WITHDRAWN : ENT_EXTRACT_NOTHING;
}

static bool
hooks_agree(Job *j, EntExtract *x, const Datum *key)
{
	EntHookRow	row = {j->whom->may, x->values, x->nulls};
	EntHookRefusal why;

	if (j->hooks == NULL ||
		ent_hook_may_send(j->hooks, x->owner, key, &row, &why))
		return true;
	if (why.failed)
		ent_hook_note_refusal(&why, x->owner, j->rel->no, true);
	return false;
}

/* What is not as it was folded goes along, whether or not the log has been read so far. */
static void
add_unread(Job *j, EntExtract *x, const bool *may)
{
	const EntDigest *folded = j->versions[x - j->items].digests;

	if (folded == NULL || x->heir.owner != 0 ||
		(x->kind != ENT_EXTRACT_DELTA && x->kind != ENT_EXTRACT_FULL))
		return;
	for (int c = 0; c < j->rel->ncolumns; c++)
	{
		EntColumn  *col = &j->rel->columns[c];
		EntDigest	is;

		if (!may[c] || col->in_key_only)
			continue;
		is = ent_digest_of(x->values[c], x->nulls[c], col->typbyval, col->typlen);
		if (ent_digest_same(&is, &folded[col->attnum - 1]))
			continue;
		x->set[c] = x->ahead = true;
	}
}

/* What a read row means for the peer. */
static void
take_row(Job *j, EntExtract *x, const EntRowsetRow *row)
{
	const bool *may = j->whom->may;

	settle_visible(j, x, row->found && hooks_agree(j, x, row->key));
	add_unread(j, x, may);
	for (int c = 0; c < j->rel->ncolumns; c++)
		x->set[c] = may[c] && !j->rel->columns[c].in_key_only &&
			(x->kind == ENT_EXTRACT_FULL || x->set[c]);
}

/* To be called as the peer's role. */
static void
read_rows(void *arg)
{
	Job		   *j = arg;
	EntRowsetRow *rows = palloc0(j->n * sizeof(EntRowsetRow));
	EntExtract **items = palloc(j->n * sizeof(EntExtract *));
	int			n = 0;

	for (int i = 0; i < j->n; i++)
	{
		EntExtract *x = &j->items[i];
		Datum	   *key;

		if (x->kind != ENT_EXTRACT_DELTA && x->kind != ENT_EXTRACT_FULL)
			continue;
		key = palloc(j->rel->nkeys * sizeof(Datum));
		ent_key_values(j->rel, x->key, x->keylen, key);
		items[n] = x;
		rows[n].key = key;
		rows[n].values = x->values;
		rows[n++].nulls = x->nulls;
	}
	if (n > 1 && !j->whom->nothing)
		ent_rowset_read(j->rel, j->whom->may, j->whom->filter, rows, n, j->snapshot);
	else if (n == 1 && !j->whom->nothing)
		rows[0].found = ent_rowquery_read(j->rel, j->whom->may, j->whom->filter,
										  rows[0].key, j->snapshot, rows[0].values,
										  rows[0].nulls);
	for (int i = 0; i < n; i++)
		take_row(j, items[i], &rows[i]);
}

/* Of the dead that the peer has not been told of it is not told now. */
static void
read_held(Job *j)
{
	bool	   *held = palloc0(j->n * sizeof(bool));
	bool	   *leaving = palloc0(j->n * sizeof(bool));

	if (!j->whom->partial)
		return;
	ent_shown_held(j->whom->peer, j->rel->no, j->keys, held, leaving);
	for (int i = 0; i < j->n; i++)
	{
		EntExtract *x = &j->items[i];

		x->held = held[i];
		x->leaving = leaving[i];
		if (x->kind == ENT_EXTRACT_DEAD && !x->held)
			x->kind = ENT_EXTRACT_NOTHING;
	}
}

void
ent_extract(EntRelation *rel, const EntExtractFor *whom, Snapshot snapshot,
			EntExtract *items, int n)
{
	Job			j = {.rel = rel, .whom = whom, .items = items, .n = n,
	.snapshot = snapshot};

	j.images = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		j.images[i] = PointerGetDatum(key_image(&items[i]));
		items[i].kind = ENT_EXTRACT_NOTHING;
		items[i].elsewhere = items[i].ahead = false;
	}
	j.keys = ent_query_array(BYTEAOID, j.images, NULL, n);
	j.versions = palloc0(n * sizeof(Version));

	j.hooks = ent_hooks_for(ENT_HOOK_SEND, rel, whom->peer, whom->role);
	read_versions(&j);
	read_graves(&j);
	read_held(&j);
	for (int i = 0; i < n; i++)
		if (j.versions[i].found || items[i].kind == ENT_EXTRACT_FULL)
			decide(&j, i);
	read_pending(&j);
	ent_query_as(whom->role, read_rows, &j);
	tell_gone(&j);
}
