/*
 * step/fold_take.c
 *	  What the fold gathers: changes out of the log, joined by object, and what
 *	  our tables say of these objects.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "step/fold_private.h"
#include "store/direct.h"
#include "store/handover.h"
#include "store/query.h"
#include "store/unfolded.h"
#include "store/version.h"

#define RUN		1000			/* entries looked for together */

static EntQuery truncated_query = {
	"SELECT o.key FROM entanglement.object o JOIN entanglement.owner w "
	"ON w.no OPERATOR(pg_catalog.=) o.owner AND w.local "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};

static uint32
hash_fold_key(const void *key, Size size)
{
	const EntFoldKey *k = key;

	return DatumGetUInt32(hash_any_extended(k->key, k->len, k->rel));
}

static int
match_fold_key(const void *a, const void *b, Size size)
{
	const EntFoldKey *x = a,
			   *y = b;

	if (x->rel != y->rel || x->len != y->len)
		return 1;
	return memcmp(x->key, y->key, x->len);
}

EntFold *
ent_fold_create(void)
{
	EntFold	   *f = palloc0(sizeof(EntFold));
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(EntFoldKey);
	ctl.entrysize = sizeof(EntFoldEntry);
	ctl.hash = hash_fold_key;
	ctl.match = match_fold_key;
	ctl.hcxt = CurrentMemoryContext;
	f->objects = hash_create("entanglement fold", 64, &ctl,
							 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
							 HASH_CONTEXT);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(EntFoldOwner);
	f->owners = hash_create("entanglement fold owners", 16, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return f;
}

/* The object's entry, made when new. key is copied then. */
static EntFoldEntry *
find_entry(EntFold *f, int32 rel, const uint8 *key, int len)
{
	EntFoldKey		k = {rel, len, key};
	bool		found;
	EntFoldEntry  *e = hash_search(f->objects, &k, HASH_ENTER, &found);

	if (!found)
	{
		memset((char *) e + sizeof(EntFoldKey), 0, sizeof(EntFoldEntry) - sizeof(EntFoldKey));
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
add_truncated(EntFold *f, int32 rel)
{
	Datum		args[1] = {Int32GetDatum(rel)};
	SPITupleTable *rows;
	uint64		n;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

		if (e->k.rel == rel)
		{
			e->verdict = ENT_VERDICT_LOOK;
			ent_fold_disorder(f, e);
		}
	}
	ent_query_run(&truncated_query, args, NULL, SPI_OK_SELECT, NULL);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		bytea	   *key = DatumGetByteaPP(SPI_getbinval(rows->vals[i],
														rows->tupdesc, 1, &null));
		EntFoldEntry  *e = find_entry(f, rel, (uint8 *) VARDATA_ANY(key),
								   VARSIZE_ANY_EXHDR(key));

		ent_coalesce_add(&e->folded, ENT_CHANGE_DELETE, 0, 0, NULL, 0);
		e->verdict = ENT_VERDICT_LOOK;
	}
	SPI_freetuptable(rows);
}

/* A row of the log. */
typedef struct Change
{
	const Datum *values;		/* by column */
	const bool *nulls;
	TransactionId xmin;
} Change;

static bytea *
change_bytea(const Change *c, EntChangeAttribute which)
{
	return c->nulls[which - 1] ? NULL : DatumGetByteaPP(c->values[which - 1]);
}

/*
 * Of a table with every_state. True: nothing was changed by it. What has no place is
 * older than what has one; only a birth can be that alone (an heir's first version).
 */
static bool
add_step(EntFold *f, EntFoldEntry *e, const Change *c, char op, bytea *columns)
{
	bool		placed = !c->nulls[ENT_CHANGE_PLACE - 1];

	if (!placed && op != ENT_CHANGE_INSERT)
	{
		ent_fold_disorder(f, e);
		return false;
	}
	ent_fold_add_step(f, e,
					  placed ? DatumGetLSN(c->values[ENT_CHANGE_PLACE - 1]) : 0,
					  placed ? DatumGetTransactionId(c->values[ENT_CHANGE_XID - 1]) :
					  c->xmin,
					  op, DatumGetInt32(c->values[ENT_CHANGE_OWNER - 1]), columns,
					  change_bytea(c, ENT_CHANGE_IMAGE));
	return op == ENT_CHANGE_UPDATE && (columns == NULL || VARSIZE_ANY_EXHDR(columns) == 0);
}

/* One change of an object. */
static void
add_object(EntFold *f, const Change *c, int32 rel, char op, bytea *key)
{
	EntFoldEntry *e = find_entry(f, rel, (uint8 *) VARDATA_ANY(key),
								 VARSIZE_ANY_EXHDR(key));
	bytea	   *s = change_bytea(c, ENT_CHANGE_COLUMNS);
	bytea	   *digests = change_bytea(c, ENT_CHANGE_DIGESTS);

	if (op == ENT_CHANGE_HANDOVER)
	{
		f->handed += e->handed ? 0 : 1;
		e->handed = true;
		return;
	}
	if (e->rel && e->rel->every_state && add_step(f, e, c, op, s))
		return;
	if (digests != NULL)
		ent_fold_note_told(e, DatumGetLSN(c->values[ENT_CHANGE_PLACE - 1]), op,
						   digests, s);
	else if (e->rel && e->rel->wal)
		ent_fold_note_blind(e, op, s);
	ent_coalesce_add(&e->folded, op,
					 DatumGetInt32(c->values[ENT_CHANGE_OWNER - 1]), c->xmin,
					 s ? (uint8 *) VARDATA_ANY(s) : NULL,
					 s ? VARSIZE_ANY_EXHDR(s) : 0);
}

static void
add_change(EntFold *f, const Change *c, List **truncated)
{
	int32		rel = DatumGetInt32(c->values[ENT_CHANGE_REL - 1]);
	char		op = DatumGetChar(c->values[ENT_CHANGE_OP - 1]);
	bytea	   *key = change_bytea(c, ENT_CHANGE_KEY);

	if (op == ENT_CHANGE_TRUNCATE || key == NULL)
		*truncated = list_append_unique_int(*truncated, rel);
	else
		add_object(f, c, rel, op, key);
}

/* Changes are taken until there are so many. */
typedef struct Taking
{
	EntFold    *f;
	EntDirect  *log;
	uint64		limit;
	uint64		taken;
	List	   *truncated;
} Taking;

static void
take_change(Taking *t, TupleTableSlot *slot)
{
	bool		null;
	Change		c;

	slot_getallattrs(slot);
	c.values = slot->tts_values;
	c.nulls = slot->tts_isnull;
	c.xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
												   &null));
	add_change(t->f, &c, &t->truncated);
	if (ent_direct_delete(t->log, &slot->tts_tid) != ENT_DIRECT_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("somebody else has taken a change out of the log")));
	t->taken++;
}

static bool
take_any(void *arg, TupleTableSlot *slot)
{
	Taking	   *t = arg;

	if (t->taken == t->limit)
		return false;
	take_change(t, slot);
	return true;
}

/* Of an object of which something has been taken. */
static bool
take_more(void *arg, TupleTableSlot *slot)
{
	Taking	   *t = arg;
	bytea	   *key = ent_direct_bytea(slot, ENT_CHANGE_KEY);
	EntFoldKey	k;

	if (key == NULL)
		return true;
	k.rel = ent_direct_int4(slot, ENT_CHANGE_REL);
	k.len = VARSIZE_ANY_EXHDR(key);
	k.key = (uint8 *) VARDATA_ANY(key);
	if (hash_search(t->f->objects, &k, HASH_FIND, NULL) != NULL)
		take_change(t, slot);
	return true;
}

/*
 * The log is in no order, so of an object all is taken that is there: whose it is, the
 * row at its birth alone says, and of what was told the newest counts.
 */
static void
take_rest(Taking *t)
{
	uint32	   *hashes = palloc(list_length(t->f->entries) * sizeof(uint32));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, t->f->entries)
	{
		const EntFoldEntry *e = lfirst(lc);

		hashes[n++] = ent_unfolded_hash(e->k.key, e->k.len);
	}
	/* what has been taken is not to be seen any more */
	CommandCounterIncrement();
	PushCopiedSnapshot(GetActiveSnapshot());
	UpdateActiveSnapshotCommandId();
	ent_unfolded_find(GetActiveSnapshot(), hashes, n, take_more, t);
	PopActiveSnapshot();
	pfree(hashes);
}

/* The entries that were handed over, and their keys as arrays. */
static int
gather_handed(EntFold *f, EntFoldEntry **entries, Datum *rels, Datum *keys)
{
	Datum	   *r = palloc(f->handed * sizeof(Datum));
	Datum	   *k = palloc(f->handed * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

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

uint64
ent_fold_take(EntFold *f, int limit)
{
	Taking		t = {.f = f, .limit = limit};
	ListCell   *lc;

	t.log = ent_direct_open(ENT_CATALOG_CHANGE, ENT_CATALOGS, RowExclusiveLock,
							GetActiveSnapshot());
	ent_unfolded_find(GetActiveSnapshot(), NULL, 0, take_any, &t);
	f->complete = t.taken < t.limit;
	if (!f->complete && f->entries != NIL)
		take_rest(&t);
	ent_direct_close(t.log);
	CommandCounterIncrement();
	f->truncated = t.truncated != NIL;
	foreach(lc, t.truncated)
		add_truncated(f, lfirst_int(lc));
	return t.taken;
}

/* Is that owner at home here? Asked for one object after the other. */
typedef struct Home
{
	EntDirect  *owners;
	int32		owner;			/* asked for last; 0: none yet */
	bool		local;
} Home;

static bool
at_home(Home *home, int32 owner)
{
	Datum		key[1] = {Int32GetDatum(owner)};
	TupleTableSlot *row;

	if (owner == home->owner)
		return home->local;
	row = ent_direct_find(home->owners, key);
	home->owner = owner;
	home->local = row != NULL && ent_direct_bool(row, ENT_OWNER_LOCAL);
	return home->local;
}

/* Our tables, while entries are looked for in them. */
typedef struct Tables
{
	EntDirect  *objects;
	Home		home;
} Tables;

static void
find_existing(Tables *t, EntFoldEntry *e)
{
	TupleTableSlot *row = ent_versions_find(t->objects, e->k.rel, e->image);

	if (row == NULL)
		return;
	e->exists = true;
	e->at = row->tts_tid;
	e->owner = ent_direct_int4(row, ENT_OBJECT_OWNER);
	e->epoch = ent_direct_int4(row, ENT_OBJECT_EPOCH);
	e->serial = ent_direct_int8(row, ENT_OBJECT_SERIAL);
	e->born = ent_direct_int8(row, ENT_OBJECT_BORN);
	e->columns = ent_direct_bytea(row, ENT_OBJECT_COLUMN_SERIALS);
	e->local = at_home(&t->home, e->owner);
	if (e->rel && e->rel->wal)
		ent_fold_note_stored(e, ent_direct_bytea(row, ENT_OBJECT_DIGESTS));
}

/* Some entries of one table, from that one on; where the next begin. */
static int
find_run(EntFold *f, Tables *t, int from)
{
	EntFoldEntry *first = list_nth(f->entries, from);
	EntKeyRange range = {0};
	int			to = from;

	for (; to < list_length(f->entries) && to < from + RUN; to++)
	{
		EntFoldEntry *e = list_nth(f->entries, to);

		if (e->k.rel != first->k.rel)
			break;
		ent_versions_widen(&range, e->image);
	}
	if (ent_versions_any(t->objects, first->k.rel, &range))
		for (int i = from; i < to; i++)
			find_existing(t, list_nth(f->entries, i));
	return to;
}

void
ent_fold_find_existing(EntFold *f)
{
	Snapshot	snapshot = GetActiveSnapshot();
	Tables		t = {
		.objects = ent_direct_open(ENT_CATALOG_OBJECT, ENT_CATALOG_OBJECT_KEY,
								   AccessShareLock, snapshot),
		.home.owners = ent_direct_open(ENT_CATALOG_OWNER, ENT_CATALOG_OWNER_NO,
									   AccessShareLock, snapshot)
	};

	for (int i = 0; i < list_length(f->entries);)
		i = find_run(f, &t, i);
	ent_direct_close(t.home.owners);
	ent_direct_close(t.objects);
}

void
ent_fold_find_heirs(EntFold *f)
{
	EntFoldEntry **entries = palloc((f->handed + 1) * sizeof(EntFoldEntry *));
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
		EntFoldEntry  *e = entries[found[i].n];

		e->heir.owner = found[i].heir;
		e->heir.epoch = found[i].epoch;
		e->heir.serial = found[i].serial;
		e->heir_local = found[i].local;
	}
}
