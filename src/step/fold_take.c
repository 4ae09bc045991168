/*
 * step/fold_take.c
 *	  What the fold gathers: changes out of the log, joined by object, and what
 *	  our tables say of these objects.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"

#include "base/compat.h"
#include "step/fold_private.h"
#include "store/handover.h"
#include "store/query.h"

static EntQuery take_query = {
	"DELETE FROM entanglement.change WHERE ctid OPERATOR(pg_catalog.=) ANY ("
	"ARRAY(SELECT ctid FROM entanglement.change LIMIT $1)) "
	"RETURNING xmin, rel, owner, op, key, columns, place, xid, image",
	1, {INT8OID}, NULL
};
static EntQuery take_rest_query = {
	"DELETE FROM entanglement.change c USING unnest($1, $2) AS u(rel, key) "
	"WHERE c.rel OPERATOR(pg_catalog.=) u.rel AND c.key OPERATOR(pg_catalog.=) u.key "
	"RETURNING c.xmin, c.rel, c.owner, c.op, c.key, c.columns, c.place, c.xid, c.image",
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
	f->objects = hash_create("entanglement fold", 1024, &ctl,
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

/*
 * Of a table with every_state. True: nothing was changed by it. What has no place is
 * older than what has one; only a birth can be that alone (an heir's first version).
 */
static bool
add_step(EntFold *f, EntFoldEntry *e, HeapTuple tup, TupleDesc desc, char op,
		 bytea *columns)
{
	bool		null,
				no_image;
	Datum		image = SPI_getbinval(tup, desc, 9, &no_image);
	Datum		place = SPI_getbinval(tup, desc, 7, &null);
	int			xid = null ? 1 : 8;

	if (null && op != ENT_CHANGE_INSERT)
	{
		ent_fold_disorder(f, e);
		return false;
	}
	ent_fold_add_step(f, e, null ? 0 : DatumGetLSN(place),
					  DatumGetTransactionId(SPI_getbinval(tup, desc, xid, &null)), op,
					  DatumGetInt32(SPI_getbinval(tup, desc, 3, &null)), columns,
					  no_image ? NULL : DatumGetByteaPP(image));
	return op == ENT_CHANGE_UPDATE && (columns == NULL || VARSIZE_ANY_EXHDR(columns) == 0);
}

/* One change of an object. */
static void
add_change(EntFold *f, HeapTuple tup, TupleDesc desc, int32 rel, char op,
		   bytea *key)
{
	EntFoldEntry  *e = find_entry(f, rel, (uint8 *) VARDATA_ANY(key),
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
	if (e->rel && e->rel->every_state && add_step(f, e, tup, desc, op, s))
		return;
	ent_coalesce_add(&e->folded, op,
					 DatumGetInt32(SPI_getbinval(tup, desc, 3, &null)),
					 DatumGetTransactionId(SPI_getbinval(tup, desc, 1, &null)),
					 s ? (uint8 *) VARDATA_ANY(s) : NULL,
					 s ? VARSIZE_ANY_EXHDR(s) : 0);
}

/* Changes as a query returned them; returns how many, and truncated tables. */
static uint64
add_changes(EntFold *f, List **truncated)
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

/*
 * The entries that were handed over, and if stated those with states, and their
 * keys as arrays.
 */
static int
gather_handed(EntFold *f, bool stated, EntFoldEntry **entries, Datum *rels,
			  Datum *keys)
{
	int			max = f->handed + (stated ? f->stated : 0) + 1;
	Datum	   *r = palloc(max * sizeof(Datum));
	Datum	   *k = palloc(max * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

		if (!e->handed && !(stated && e->states != NULL))
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
	Datum		args[2] = {Int64GetDatum(limit)};
	uint64		n;
	List	   *truncated = NIL;
	ListCell   *lc;

	ent_query_run(&take_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
	n = add_changes(f, &truncated);
	f->complete = n < (uint64) limit;
	if (!f->complete && f->handed + f->stated > 0)
	{
		EntFoldEntry **entries = palloc((f->handed + f->stated) * sizeof(EntFoldEntry *));

		(void) gather_handed(f, true, entries, &args[0], &args[1]);
		ent_query_run(&take_rest_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
		n += add_changes(f, &truncated);
	}
	f->gone = truncated != NIL;
	foreach(lc, truncated)
		add_truncated(f, lfirst_int(lc));
	return n;
}

void
ent_fold_find_existing(EntFold *f)
{
	int			n = list_length(f->entries);
	Datum	   *rels = palloc(n * sizeof(Datum));
	Datum	   *keys = palloc(n * sizeof(Datum));
	Datum		args[2];
	int			i = 0;
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

		rels[i] = Int32GetDatum(e->k.rel);
		keys[i++] = PointerGetDatum(e->image);
	}
	args[0] = ent_query_array(INT4OID, rels, NULL, n);
	args[1] = ent_query_array(BYTEAOID, keys, NULL, n);
	ent_query_run(&existing_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntFoldEntry  *e = list_nth(f->entries, ent_query_int8(row, 1, NULL) - 1);
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
	(void) gather_handed(f, false, entries, &rels, &keys);
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
