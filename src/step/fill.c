/*
 * step/fill.c
 *	  Digests of rows that the log has not told of.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "step/fill.h"
#include "store/direct.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowdigest.h"
#include "store/value.h"

#define CHUNK	1000			/* objects looked at a time */

static EntQuery chunk_query = {
	"SELECT o.key, o.owner, o.epoch, o.serial, o.digests, w.local "
	"FROM entanglement.object o JOIN entanglement.owner w "
	"ON w.no OPERATOR(pg_catalog.=) o.owner "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 "
	"AND ($2 IS NULL OR o.key OPERATOR(pg_catalog.>) $2) "
	"ORDER BY o.key LIMIT $3",
	3, {INT4OID, BYTEAOID, INT8OID}, NULL
};
static EntQuery done_query = {
	"UPDATE entanglement.relation SET digested = $2 WHERE no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT2OID}, NULL
};

typedef struct Row
{
	bytea	   *key;
	int32		owner;
	int32		epoch;
	int64		serial;
	EntDigest  *digests;
} Row;

static void
start(EntFill *f, EntRelation *rel)
{
	f->rel = rel ? rel->no : 0;
	f->natts = rel ? rel->natts : 0;
	f->passed_over = false;
	if (f->after != NULL)
		pfree(f->after);
	f->after = NULL;
}

bool
ent_fill_wanted(EntFill *f)
{
	EntRelation *rel = f->rel ? ent_relinfo_get(f->rel) : NULL;
	ListCell   *lc;

	f->rows = NIL;
	if (rel != NULL && rel->wal && rel->natts == f->natts && rel->digested < rel->natts)
		return true;
	foreach(lc, ent_relinfo_all())
	{
		rel = lfirst(lc);
		if (!rel->wal || rel->digested >= rel->natts)
			continue;
		start(f, rel);
		return true;
	}
	if (f->rel != 0)
		start(f, NULL);
	return false;
}

/* Is a column of it not known? */
static bool
is_incomplete(EntRelation *rel, bytea *packed)
{
	EntDigest  *known;

	if (packed == NULL)
		return true;
	known = palloc(rel->natts * sizeof(EntDigest));
	ent_digest_unpack(packed, known, rel->natts);
	for (int i = 0; i < rel->ncolumns; i++)
		if (!ent_digest_known(&known[rel->columns[i].attnum - 1]))
			return true;
	pfree(known);
	return false;
}

/* The object in a result's row: noted, if it lacks digests. */
static void
take(EntFill *f, EntRelation *rel, HeapTuple tuple, TupleDesc desc)
{
	bool		null,
				none;
	Datum		packed = SPI_getbinval(tuple, desc, 5, &none);
	Datum		values[ENT_WIRE_MAX_KEYS];
	MemoryContext old;
	Row		   *r;

	if (!DatumGetBool(SPI_getbinval(tuple, desc, 6, &null)) ||
		!is_incomplete(rel, none ? NULL : DatumGetByteaPP(packed)))
		return;
	old = MemoryContextSwitchTo(f->context);
	r = palloc0(sizeof(Row));
	r->key = DatumGetByteaPCopy(SPI_getbinval(tuple, desc, 1, &null));
	r->owner = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &null));
	r->epoch = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &null));
	r->serial = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &null));
	r->digests = palloc(rel->natts * sizeof(EntDigest));
	ent_key_values(rel, (uint8 *) VARDATA(r->key), VARSIZE_ANY_EXHDR(r->key), values);
	if (ent_digest_read(rel, values, GetActiveSnapshot(), r->digests))
		f->rows = lappend(f->rows, r);
	MemoryContextSwitchTo(old);
}

static void
reach(EntFill *f, HeapTuple tuple, TupleDesc desc)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		null;
	bytea	   *key = DatumGetByteaPCopy(SPI_getbinval(tuple, desc, 1, &null));

	MemoryContextSwitchTo(old);
	if (f->after != NULL)
		pfree(f->after);
	f->after = key;
}

/* The table's last object has been looked at. */
static void
end_pass(EntFill *f, EntRelation *rel)
{
	Datum		args[2] = {Int32GetDatum(rel->no), Int16GetDatum(f->natts)};

	if (!f->passed_over)
	{
		ent_query_run(&done_query, args, NULL, SPI_OK_UPDATE, NULL);
		ent_relinfo_invalidate();
	}
	start(f, f->passed_over ? rel : NULL);
}

void
ent_fill_read(EntFill *f)
{
	EntRelation *rel = ent_relinfo_get(f->rel);
	Datum		args[3] = {Int32GetDatum(f->rel), PointerGetDatum(f->after), Int64GetDatum(CHUNK)};
	char		nulls[3] = {' ', f->after == NULL ? 'n' : ' ', ' '};
	SPITupleTable *rows;
	uint64		n;

	if (rel == NULL)
		return;
	ent_query_run(&chunk_query, args, nulls, SPI_OK_SELECT, NULL);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
		take(f, rel, rows->vals[i], rows->tupdesc);
	if (n > 0)
		reach(f, rows->vals[n - 1], rows->tupdesc);
	SPI_freetuptable(rows);
	if (n < CHUNK && f->rows == NIL)
		end_pass(f, rel);
}

/* What is known already has been told since, or before, and is right. */
static bytea *
join(EntRelation *rel, TupleTableSlot *row, EntDigest *read)
{
	EntDigest  *known = palloc(rel->natts * sizeof(EntDigest));

	ent_digest_unpack(ent_direct_bytea(row, ENT_OBJECT_DIGESTS), known, rel->natts);
	for (int i = 0; i < rel->natts; i++)
		if (!ent_digest_known(&known[i]))
			known[i] = read[i];
	return ent_digest_pack(known, rel->natts);
}

static bool
write_row(EntDirect *objects, EntRelation *rel, Row *r)
{
	Datum		key[2] = {Int32GetDatum(rel->no), PointerGetDatum(r->key)};
	TupleTableSlot *row = ent_direct_find(objects, key);
	Datum		values[ENT_OBJECT_ATTRIBUTES];
	bool		nulls[ENT_OBJECT_ATTRIBUTES];
	ItemPointerData at;
	bytea	   *packed;

	if (row == NULL)
		return true;
	if (ent_direct_int4(row, ENT_OBJECT_OWNER) != r->owner ||
		ent_direct_int4(row, ENT_OBJECT_EPOCH) != r->epoch ||
		ent_direct_int8(row, ENT_OBJECT_SERIAL) != r->serial)
		return false;
	packed = join(rel, row, r->digests);
	slot_getallattrs(row);
	memcpy(values, row->tts_values, sizeof(values));
	memcpy(nulls, row->tts_isnull, sizeof(nulls));
	at = row->tts_tid;
	values[ENT_OBJECT_DIGESTS - 1] = PointerGetDatum(packed);
	nulls[ENT_OBJECT_DIGESTS - 1] = packed == NULL;
	return ent_direct_update(objects, &at, values, nulls) == ENT_DIRECT_DONE;
}

void
ent_fill_write(EntFill *f)
{
	EntRelation *rel = f->rel ? ent_relinfo_get(f->rel) : NULL;
	EntDirect  *objects;
	ListCell   *lc;

	if (rel == NULL || !rel->wal || rel->natts != f->natts)
		return;
	objects = ent_direct_open(ENT_CATALOG_OBJECT, ENT_CATALOG_OBJECT_KEY,
							  RowExclusiveLock, GetActiveSnapshot());
	foreach(lc, f->rows)
		f->passed_over |= !write_row(objects, rel, lfirst(lc));
	ent_direct_close(objects);
	f->rows = NIL;
}
