/*
 * step/fold.c
 *	  Captured changes become versions of objects.
 *
 * Runs in one REPEATABLE READ transaction, so the changes taken from the log
 * and the rows looked at belong to one snapshot: whether an object lives is
 * decided by what was committed, not by the order in which changes were
 * written. There is no cursor on the log; rows of transactions still
 * running are seen by a later fold.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ring.h"
#include "base/wake.h"
#include "rule/coalesce.h"
#include "rule/colserial.h"
#include "step/fold.h"
#include "store/handover.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/request.h"
#include "store/rowquery.h"
#include "store/seek.h"
#include "store/value.h"
#include "store/version.h"

typedef struct FoldKey
{
	int32		rel;
	int32		len;
	const uint8 *key;
} FoldKey;

/* One touched object. */
typedef struct FoldEntry
{
	FoldKey		k;				/* hash key */
	EntFolded	folded;
	EntRelation *rel;
	EntVerdict	verdict;
	bytea	   *image;			/* the key as a datum */
	bool		exists;			/* has an object row: */
	bool		local;			/* ... with a local owner */
	int32		owner;			/* of that row, then of the new version */
	int32		epoch;
	int64		serial;			/* of that row, then the new one */
	int64		born;
	bytea	   *columns;		/* packed column serials */
	int32		old_owner;		/* birth under another owner: whose tombstone
								 * stays; else 0 */
	bool		handed;			/* a hand-over is among the changes: */
	bool		heir_local;
	EntHand		heir;			/* owner 0: to nobody, after all */
	EntHand		from;			/* who had handed it over to the owner that has
								 * it no more */
} FoldEntry;

/* A local owner touched by this fold. */
typedef struct FoldOwner
{
	int32		no;
	int32		epoch;
	int64		next;			/* serial to give out */
	int64		last;
	int64		wanted;			/* how many serials */
	bool		local;
} FoldOwner;

typedef struct Fold
{
	HTAB	   *objects;
	List	   *entries;		/* of FoldEntry *, in order of arrival */
	HTAB	   *owners;
	bool		complete;		/* the log was read to its end */
	bool		doubt;			/* an earlier fold may have taken a death */
	bool		integrity;		/* an object is of a table that keeps its foreign
								 * keys */
	bool		gone;			/* this one has: an object was found gone,
								 * or a table truncated */
	int			handed;			/* how many were handed over */
	int32		default_owner;	/* of rows written before they were objects */
} Fold;

static EntQuery take_query = {
	"DELETE FROM entanglement.change WHERE ctid OPERATOR(pg_catalog.=) ANY ("
	"ARRAY(SELECT ctid FROM entanglement.change LIMIT $1)) "
	"RETURNING xmin, rel, owner, op, key, columns",
	1, {INT8OID}, NULL
};
static EntQuery take_rest_query = {
	"DELETE FROM entanglement.change c USING unnest($1, $2) AS u(rel, key) "
	"WHERE c.rel OPERATOR(pg_catalog.=) u.rel AND c.key OPERATOR(pg_catalog.=) u.key "
	"RETURNING c.xmin, c.rel, c.owner, c.op, c.key, c.columns",
	2, {INT4ARRAYOID, BYTEAARRAYOID}, NULL
};
static EntQuery truncated_query = {
	"SELECT o.key FROM entanglement.object o JOIN entanglement.owner w "
	"ON w.no OPERATOR(pg_catalog.=) o.owner AND w.local "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery existing_query = {
	"SELECT u.n, o.owner, o.epoch, o.serial, o.born, o.column_serials, o.local "
	"FROM unnest($1, $2) WITH ORDINALITY AS u(rel, key, n), LATERAL ("
	"SELECT o.owner, o.epoch, o.serial, o.born, o.column_serials, "
	"(SELECT w.local FROM entanglement.owner w WHERE w.no OPERATOR(pg_catalog.=) o.owner) AS local "
	"FROM entanglement.object o "
	"WHERE o.rel OPERATOR(pg_catalog.=) u.rel AND o.key OPERATOR(pg_catalog.=) u.key "
	"OFFSET 0) o",
	2, {INT4ARRAYOID, BYTEAARRAYOID}, NULL
};
static EntQuery allocate_query = {
	"UPDATE entanglement.owner SET serial = serial OPERATOR(pg_catalog.+) $2 "
	"WHERE no OPERATOR(pg_catalog.=) $1 AND local RETURNING serial, epoch",
	2, {INT4OID, INT8OID}, NULL
};
static EntQuery strange_query = {
	"INSERT INTO entanglement.parked (rel, key, owner, peer, epoch, serial, sqlstate, message) "
	"VALUES ($1, $2, $3, 0, $4, $5, '55000', "
	"'the row was written here although its owner is elsewhere') "
	"ON CONFLICT DO NOTHING",
	5, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID}, NULL
};

static EntQuery stranded_query = {
	"INSERT INTO entanglement.arrears (owner, rel) VALUES ($1, $2) ON CONFLICT DO NOTHING",
	2, {INT4OID, INT4OID}, NULL
};

static EntQuery waits_query = {
	"SELECT 1 FROM entanglement.parked WHERE waits_for IS NOT NULL LIMIT 1",
	0, {0}, NULL
};

#define HELP_MS		1000		/* so often at most */

static uint32
hash_fold_key(const void *key, Size size)
{
	const FoldKey *k = key;

	return DatumGetUInt32(hash_any_extended(k->key, k->len, k->rel));
}

static int
match_fold_key(const void *a, const void *b, Size size)
{
	const FoldKey *x = a,
			   *y = b;

	if (x->rel != y->rel || x->len != y->len)
		return 1;
	return memcmp(x->key, y->key, x->len);
}

static Fold *
fold_create(void)
{
	Fold	   *f = palloc0(sizeof(Fold));
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(FoldKey);
	ctl.entrysize = sizeof(FoldEntry);
	ctl.hash = hash_fold_key;
	ctl.match = match_fold_key;
	ctl.hcxt = CurrentMemoryContext;
	f->objects = hash_create("entanglement fold", 1024, &ctl,
							 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
							 HASH_CONTEXT);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(FoldOwner);
	f->owners = hash_create("entanglement fold owners", 16, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return f;
}

/* The object's entry, made when new. key is copied then. */
static FoldEntry *
find_entry(Fold *f, int32 rel, const uint8 *key, int len)
{
	FoldKey		k = {rel, len, key};
	bool		found;
	FoldEntry  *e = hash_search(f->objects, &k, HASH_ENTER, &found);

	if (!found)
	{
		memset((char *) e + sizeof(FoldKey), 0, sizeof(FoldEntry) - sizeof(FoldKey));
		e->image = palloc(VARHDRSZ + len);
		SET_VARSIZE(e->image, VARHDRSZ + len);
		memcpy(VARDATA(e->image), key, len);
		e->k.key = (uint8 *) VARDATA(e->image);
		e->rel = ent_relinfo_get(rel);
		ent_coalesce_init(&e->folded);
		f->entries = lappend(f->entries, e);
	}
	return e;
}

/*
 * TRUNCATE: every object of ours in the table is to be looked at, those that
 * are only being born as well.
 */
static void
add_truncated(Fold *f, int32 rel)
{
	Datum		args[1] = {Int32GetDatum(rel)};
	SPITupleTable *rows;
	uint64		n;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		FoldEntry  *e = lfirst(lc);

		if (e->k.rel == rel)
			e->verdict = ENT_VERDICT_LOOK;
	}
	ent_query_run(&truncated_query, args, NULL, SPI_OK_SELECT, NULL);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		bytea	   *key = DatumGetByteaPP(SPI_getbinval(rows->vals[i],
														rows->tupdesc, 1, &null));
		FoldEntry  *e = find_entry(f, rel, (uint8 *) VARDATA_ANY(key),
								   VARSIZE_ANY_EXHDR(key));

		ent_coalesce_add(&e->folded, ENT_CHANGE_DELETE, 0, 0, NULL, 0);
		e->verdict = ENT_VERDICT_LOOK;
	}
	SPI_freetuptable(rows);
}

/* One change of an object. */
static void
add_change(Fold *f, HeapTuple tup, TupleDesc desc, int32 rel, char op,
		   bytea *key)
{
	FoldEntry  *e = find_entry(f, rel, (uint8 *) VARDATA_ANY(key),
							   VARSIZE_ANY_EXHDR(key));
	bool		null;
	Datum		set = SPI_getbinval(tup, desc, 6, &null);
	bytea	   *s = null ? NULL : DatumGetByteaPP(set);

	if (op == ENT_CHANGE_HANDOVER)
	{
		f->handed += e->handed ? 0 : 1;
		e->handed = true;
		return;
	}
	ent_coalesce_add(&e->folded, op,
					 DatumGetInt32(SPI_getbinval(tup, desc, 3, &null)),
					 DatumGetTransactionId(SPI_getbinval(tup, desc, 1, &null)),
					 s ? (uint8 *) VARDATA_ANY(s) : NULL,
					 s ? VARSIZE_ANY_EXHDR(s) : 0);
}

/* Changes as a query returned them; returns how many, and truncated tables. */
static uint64
add_changes(Fold *f, List **truncated)
{
	SPITupleTable *rows = SPI_tuptable;
	uint64		n = SPI_processed;

	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	tup = rows->vals[i];
		TupleDesc	desc = rows->tupdesc;
		bool		null;
		int32		rel = DatumGetInt32(SPI_getbinval(tup, desc, 2, &null));
		char		op = DatumGetChar(SPI_getbinval(tup, desc, 4, &null));
		Datum		key = SPI_getbinval(tup, desc, 5, &null);

		if (op == ENT_CHANGE_TRUNCATE || null)
			*truncated = list_append_unique_int(*truncated, rel);
		else
			add_change(f, tup, desc, rel, op, DatumGetByteaPP(key));
	}
	SPI_freetuptable(rows);
	return n;
}

/* The entries that were handed over, and their keys as arrays. */
static int
gather_handed(Fold *f, FoldEntry **entries, Datum *rels, Datum *keys)
{
	Datum	   *r = palloc((f->handed + 1) * sizeof(Datum));
	Datum	   *k = palloc((f->handed + 1) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		FoldEntry  *e = lfirst(lc);

		if (!e->handed)
			continue;
		entries[n] = e;
		r[n] = Int32GetDatum(e->k.rel);
		k[n++] = PointerGetDatum(e->image);
	}
	*rels = ent_query_array(INT4OID, r, NULL, n);
	*keys = ent_query_array(BYTEAOID, k, NULL, n);
	return n;
}

/*
 * Takes changes from the log into f; returns how many. Of what is handed over
 * all, since it is all the old owner's.
 */
static uint64
take_changes(Fold *f, int limit)
{
	Datum		args[2] = {Int64GetDatum(limit)};
	uint64		n;
	List	   *truncated = NIL;
	ListCell   *lc;

	ent_query_run(&take_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
	n = add_changes(f, &truncated);
	f->complete = n < (uint64) limit;
	if (!f->complete && f->handed > 0)
	{
		FoldEntry **entries = palloc(f->handed * sizeof(FoldEntry *));

		(void) gather_handed(f, entries, &args[0], &args[1]);
		ent_query_run(&take_rest_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
		n += add_changes(f, &truncated);
	}
	f->gone = truncated != NIL;
	foreach(lc, truncated)
		add_truncated(f, lfirst_int(lc));
	return n;
}

/* Fills in what the object table says of the entries. */
static void
find_existing(Fold *f)
{
	int			n = list_length(f->entries);
	Datum	   *rels = palloc(n * sizeof(Datum));
	Datum	   *keys = palloc(n * sizeof(Datum));
	Datum		args[2];
	int			i = 0;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		FoldEntry  *e = lfirst(lc);

		rels[i] = Int32GetDatum(e->k.rel);
		keys[i++] = PointerGetDatum(e->image);
	}
	args[0] = ent_query_array(INT4OID, rels, NULL, n);
	args[1] = ent_query_array(BYTEAOID, keys, NULL, n);
	ent_query_run(&existing_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		FoldEntry  *e = list_nth(f->entries, ent_query_int8(row, 1, NULL) - 1);
		bool		null;

		e->exists = true;
		e->owner = ent_query_int4(row, 2, NULL);
		e->epoch = ent_query_int4(row, 3, NULL);
		e->serial = ent_query_int8(row, 4, NULL);
		e->born = ent_query_int8(row, 5, NULL);
		e->columns = DatumGetByteaPCopy(ent_query_datum(row, 6, &null));
		e->local = ent_query_bool(row, 7);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* To whom were objects handed over? */
static void
find_heirs(Fold *f)
{
	FoldEntry **entries = palloc((f->handed + 1) * sizeof(FoldEntry *));
	Datum		rels,
				keys;
	EntHandover *found;
	int			n;

	if (f->handed == 0)
		return;
	(void) gather_handed(f, entries, &rels, &keys);
	n = ent_handover_take(rels, keys, &found);
	for (int i = 0; i < n; i++)
	{
		FoldEntry  *e = entries[found[i].n];

		e->heir.owner = found[i].heir;
		e->heir.epoch = found[i].epoch;
		e->heir.serial = found[i].serial;
		e->heir_local = found[i].local;
	}
}

/* From whom did owners get what they have no more after this fold? */
static void
find_givers(Fold *f)
{
	int			n = list_length(f->entries),
				m = 0;
	Datum	   *rels = palloc(n * sizeof(Datum));
	Datum	   *keys = palloc(n * sizeof(Datum));
	FoldEntry **entries = palloc(n * sizeof(FoldEntry *));
	EntHand    *from = palloc0(n * sizeof(EntHand));
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		FoldEntry  *e = lfirst(lc);

		if (e->verdict != ENT_VERDICT_DEATH && e->old_owner == 0)
			continue;
		entries[m] = e;
		rels[m] = Int32GetDatum(e->k.rel);
		keys[m++] = PointerGetDatum(e->image);
	}
	if (m == 0)
		return;
	ent_handover_take_inherited(ent_query_array(INT4OID, rels, NULL, m),
								ent_query_array(BYTEAOID, keys, NULL, m), from);
	for (int i = 0; i < m; i++)
		entries[i]->from = from[i];
}

/* Is the row there, in this transaction's snapshot? */
static bool
row_exists(FoldEntry *e)
{
	Datum		values[ENT_WIRE_MAX_KEYS];

	ent_key_values(e->rel, e->k.key, e->k.len, values);
	return ent_rowquery_exists(e->rel, values, GetActiveSnapshot());
}

static FoldOwner *
find_owner(Fold *f, int32 no)
{
	bool		found;
	FoldOwner  *o = hash_search(f->owners, &no, HASH_ENTER, &found);

	if (!found)
		memset((char *) o + sizeof(int32), 0, sizeof(FoldOwner) - sizeof(int32));
	return o;
}

/* Has it been handed over to an owner who is not at home here? */
static bool
abroad(FoldEntry *e)
{
	return e->heir.owner != 0 && !e->heir_local;
}

/* The owner it has, or was to get, leaves a tombstone that names the heir. */
static void
hand_over(Fold *f, FoldEntry *e)
{
	if (e->old_owner == 0)
	{
		e->old_owner = e->owner;
		find_owner(f, e->old_owner)->wanted++;
	}
	e->owner = e->heir.owner;
	e->verdict = ENT_VERDICT_BIRTH;
}

/*
 * What becomes of this object? Leaves verdict TOUCH, BIRTH or DEATH, or LOOK
 * for "nothing", and asks its owners for serials.
 */
static void
judge(Fold *f, FoldEntry *e)
{
	EntVerdict	v = ent_coalesce_verdict(&e->folded, f->complete);

	if (e->verdict == ENT_VERDICT_LOOK)
		v = ENT_VERDICT_LOOK;
	e->verdict = ENT_VERDICT_LOOK;
	if (e->rel == NULL)
		return;					/* no longer synchronized */
	if (e->folded.changes == 0 && e->heir.owner == 0)
		return;					/* its heir is gone */
	if (v == ENT_VERDICT_TOUCH && !e->exists)
		v = e->folded.changes == 0 ? ENT_VERDICT_LOOK : ENT_VERDICT_BIRTH;
	if (v == ENT_VERDICT_LOOK || (v == ENT_VERDICT_BIRTH && f->doubt))
		v = row_exists(e) ? ENT_VERDICT_BIRTH : ENT_VERDICT_DEATH;
	f->gone |= v == ENT_VERDICT_DEATH;
	if (e->exists && !e->local)
	{
		Datum		args[5] = {Int32GetDatum(e->k.rel), PointerGetDatum(e->image),
			Int32GetDatum(e->owner), Int32GetDatum(e->epoch),
		Int64GetDatum(e->serial)};

		ent_query_run(&strange_query, args, NULL, SPI_OK_INSERT, NULL);
		return;
	}
	if (v == ENT_VERDICT_DEATH && !e->exists)
		return;					/* born and died between two folds */
	if (v == ENT_VERDICT_BIRTH)
	{
		int32		owner = e->folded.owner != 0 ? e->folded.owner : f->default_owner;

		/* replaced in one transaction: stays with its owner */
		if (e->exists && (!e->folded.born || !e->folded.died ||
						  e->folded.insert_xid == e->folded.delete_xid))
			owner = e->owner;
		if (e->exists && owner != e->owner)
		{
			e->old_owner = e->owner;
			find_owner(f, e->old_owner)->wanted++;
		}
		e->owner = owner;
	}
	e->verdict = v;
	if (v == ENT_VERDICT_DEATH || e->heir.owner == e->owner)
		e->heir.owner = 0;
	if (e->heir.owner != 0)
		hand_over(f, e);
	if (!abroad(e))
		find_owner(f, e->owner)->wanted++;
}

/* Reserves each owner's serials with one update. */
static void
allocate(Fold *f)
{
	HASH_SEQ_STATUS seq;
	FoldOwner  *o;

	hash_seq_init(&seq, f->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		Datum		args[2] = {Int32GetDatum(o->no), Int64GetDatum(o->wanted)};

		ent_query_run(&allocate_query, args, NULL, SPI_OK_UPDATE_RETURNING, NULL);
		o->local = SPI_processed == 1;
		if (o->local)
		{
			o->last = ent_query_int8(0, 1, NULL);
			o->next = o->last - o->wanted + 1;
			o->epoch = ent_query_int4(0, 2, NULL);
		}
	}
}

/* The column serials of the new version. */
static bytea *
new_columns(FoldEntry *e, int64 serial, int64 born)
{
	int			natts = e->rel->natts;
	int64	   *v = palloc(natts * sizeof(int64));
	bytea	   *out = palloc(VARHDRSZ + ENT_COLSERIAL_MAX_BYTES(natts));
	size_t		len = 0;

	if (e->verdict == ENT_VERDICT_TOUCH)
	{
		ent_colserial_unpack((uint8 *) VARDATA_ANY(e->columns),
							 VARSIZE_ANY_EXHDR(e->columns),
							 e->serial, born, v, natts);
		for (int i = 0; i < natts; i++)
			if (ent_wire_in_set(e->folded.set, e->folded.setlen, i))
				v[i] = serial;
		len = ent_colserial_pack(v, natts, serial, born, (uint8 *) VARDATA(out));
	}
	SET_VARSIZE(out, VARHDRSZ + len);
	return out;
}

static void
post(FoldEntry *e, int32 owner, int64 serial)
{
	EntEvent	ev = {
		.kind = ENT_EVENT_OBJECT, .owner = owner, .rel = e->k.rel,
		.serial = serial, .since = serial - 1, .keylen = e->k.len,
		.key = e->k.key
	};

	ent_wake_post_at_commit(&ev);
}

/*
 * The object of a former owner dies as his, and may live on as the heir's.
 */
static void
settle_old(Fold *f, FoldEntry *e, EntVersions *versions)
{
	FoldOwner  *old = e->old_owner == 0 ? NULL : find_owner(f, e->old_owner);
	int64		serial;

	if (old == NULL || !old->local)
		return;
	serial = old->next++;
	ent_versions_bury(versions, e->k.rel, old->no, old->epoch, serial,
					  e->image, e->heir, e->from);
	if (e->heir.owner != 0)
	{
		EntHand		from = {old->no, old->epoch, serial};

		ent_handover_inherited(e->k.rel, e->image, from);
	}
	post(e, old->no, serial);
}

/*
 * Handed over to somebody elsewhere: his until he confirms it by a version of
 * his own. We keep what it was last, for those who have not got it.
 */
static void
settle_abroad(Fold *f, FoldEntry *e, EntVersions *versions)
{
	settle_old(f, e, versions);
	ent_versions_put(versions, e->k.rel, e->heir.owner, e->heir.epoch,
					 e->heir.serial, 0, e->image, new_columns(e, 0, 0));
}

/*
 * A row was made for an owner that is at home elsewhere by now. It becomes an
 * object older than any, and the home is asked which of the table's live.
 */
static void
strand(FoldEntry *e, EntVersions *versions)
{
	Datum		args[2] = {Int32GetDatum(e->owner), Int32GetDatum(e->k.rel)};
	EntOwner   *o = ent_owner_get(e->owner);

	if (e->verdict != ENT_VERDICT_BIRTH || o == NULL || o->gone)
		return;
	ent_versions_put(versions, e->k.rel, o->no, 1, 1, 1, e->image,
					 new_columns(e, 1, 1));
	ent_query_run(&stranded_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_wake_routes_at_commit();
}

/* Gives the entry its new version and sorts it into the arrays. */
static void
settle(Fold *f, FoldEntry *e, EntVersions *versions)
{
	FoldOwner  *o;
	int64		serial;

	if (abroad(e))
	{
		settle_abroad(f, e, versions);
		return;
	}
	o = find_owner(f, e->owner);
	if (!o->local)
	{
		strand(e, versions);
		return;
	}
	serial = o->next++;
	if (e->heir.owner != 0)
	{
		e->heir.epoch = o->epoch;
		e->heir.serial = serial - 1;
	}
	settle_old(f, e, versions);
	if (e->verdict == ENT_VERDICT_DEATH)
	{
		ent_versions_drop(versions, e->k.rel, e->image);
		ent_versions_bury(versions, e->k.rel, o->no, o->epoch, serial, e->image,
						  e->heir, e->from);
	}
	else
	{
		int64		born = e->verdict == ENT_VERDICT_BIRTH ? serial : e->born;

		ent_versions_put(versions, e->k.rel, o->no, o->epoch, serial, born,
						 e->image, new_columns(e, serial, born));
	}
	post(e, o->no, serial);
}

static void
post_owners(Fold *f)
{
	HASH_SEQ_STATUS seq;
	FoldOwner  *o;

	hash_seq_init(&seq, f->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = o->no, .serial = o->last};

		if (o->local)
			ent_wake_post_at_commit(&ev);
	}
}

static void
fold_entries(Fold *f)
{
	EntVersions *versions;
	ListCell   *lc;

	f->default_owner = ent_identity_get()->default_owner;
	find_existing(f);
	find_heirs(f);
	foreach(lc, f->entries)
	{
		FoldEntry  *e = lfirst(lc);

		judge(f, e);
		f->integrity |= e->rel && e->rel->integrity;
	}
	find_givers(f);
	allocate(f);
	versions = ent_versions_create();
	foreach(lc, f->entries)
	{
		FoldEntry  *e = lfirst(lc);

		if (e->verdict != ENT_VERDICT_LOOK)
			settle(f, e, versions);
	}
	ent_versions_write(versions);
	post_owners(f);
}

/* Owners that are sought get a serial that no object has. */
static void
serve_seeks(Fold *f)
{
	ListCell   *lc;

	if (!ent_seek_any_local())
		return;
	foreach(lc, ent_seek_take_local())
		find_owner(f, lfirst_int(lc))->wanted++;
}

/* Objects that a foreign key holds back may come in: links ask for them. */
static void
help_parked(void)
{
	static TimestampTz helped_at = 0;

	if (!TimestampDifferenceExceeds(helped_at, GetCurrentTimestamp(), HELP_MS))
		return;
	ent_query_run(&waits_query, NULL, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
	{
		helped_at = GetCurrentTimestamp();
		ent_wake_routes_at_commit();
	}
	SPI_freetuptable(SPI_tuptable);
}

uint64
ent_fold(int limit, bool *more, bool *doubt)
{
	Fold	   *f = fold_create();
	uint64		taken;

	f->doubt = *doubt;
	ent_relinfo_refresh();
	taken = take_changes(f, limit);
	serve_seeks(f);
	if (f->entries != NIL || hash_get_num_entries(f->owners) > 0)
		fold_entries(f);
	if (f->integrity)
		help_parked();
	/* what they did has its version now */
	if (f->complete && ent_request_any_applied())
		ent_request_settle();
	*more = !f->complete;
	*doubt = !f->complete && (f->doubt || f->gone);
	return taken;
}
