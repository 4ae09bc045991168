/*
 * store/direct.c
 *	  Tables by key, without a plan.
 *
 * Writes go through the table access method and leave entries in all indexes, as
 * the executor would. Our tables have no triggers that these writes would have to
 * fire, no constraints but NOT NULL and unique ones, and no generated columns; of
 * others the caller knows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/nbtree.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "store/direct.h"

#define MAX_KEYS	3			/* columns of our indexes */
#define FORMED_BLOCK	(64 * 1024)	/* many rows mostly fit in */

struct EntDirect
{
	Relation	heap;
	bool		ours;			/* ... that is */
	EntCatalog	by;				/* index of ours to look up by, or ENT_CATALOGS: */
	Oid			by_oid;			/* ... another one, or invalid: none */
	Snapshot	snapshot;
	bool		newest;			/* it is registered here */
	BlockNumber blocks;			/* all that the snapshot shows is in these; invalid:
								 * not asked yet */
	TupleTableSlot *slot;
	MemoryContext context;		/* holds all of this */
	/* NULL until something is looked up */
	Relation	index;
	ScanKeyData *keys;			/* on all of its columns */
	int			nkeys;
	IndexScanDesc scan;
	int			nscan;			/* by the first so many of them */
	bool		range;			/* it goes through a range */
	/* for writing, NULL until then */
	TupleDesc	shape;			/* a copy, which nobody counts references to */
	TupleTableSlot *rows[ENT_DIRECT_MANY];	/* as many as were needed so far */
	int			nrows;
	MemoryContext formed;		/* of many rows, as they are stored */
	/* for entries in indexes, likewise */
	EState	   *estate;
	ResultRelInfo *result;
};

/* The conditions on an index of ours, which are the same each time. */
typedef struct Keys
{
	Oid			index;			/* of which they are */
	int			n;
	ScanKeyData keys[MAX_KEYS];
} Keys;

static Keys known[ENT_CATALOGS];

static void
init_key(Relation index, int i, StrategyNumber strategy, ScanKeyData *key)
{
	Oid			type = index->rd_opcintype[i];
	Oid			op = get_opfamily_member(index->rd_opfamily[i], type, type, strategy);

	ScanKeyEntryInitialize(key, 0, i + 1, strategy, type, index->rd_indcollation[i],
						   get_opcode(op), (Datum) 0);
}

int
ent_direct_keys(Relation index, ScanKeyData *keys)
{
	int			n = IndexRelationGetNumberOfKeyAttributes(index);

	for (int i = 0; i < n; i++)
		init_key(index, i, BTEqualStrategyNumber, &keys[i]);
	return n;
}

static const Keys *
keys_of(EntCatalog which, Relation index)
{
	Keys	   *k = &known[which];
	MemoryContext old;

	if (k->index == RelationGetRelid(index))
		return k;
	if (IndexRelationGetNumberOfKeyAttributes(index) > MAX_KEYS)
		elog(ERROR, "index \"%s\" has too many columns", RelationGetRelationName(index));
	k->index = InvalidOid;
	old = MemoryContextSwitchTo(TopMemoryContext);
	k->n = ent_direct_keys(index, k->keys);
	MemoryContextSwitchTo(old);
	k->index = RelationGetRelid(index);
	return k;
}

static void
open_index(EntDirect *d)
{
	const Keys *k;

	if (d->index != NULL)
		return;
	d->index = index_open(d->by != ENT_CATALOGS ? ent_catalog_oid(d->by) : d->by_oid,
						  AccessShareLock);
	d->keys = MemoryContextAlloc(d->context, INDEX_MAX_KEYS * sizeof(ScanKeyData));
	if (d->by == ENT_CATALOGS)
	{
		d->nkeys = ent_direct_keys(d->index, d->keys);
		return;
	}
	k = keys_of(d->by, d->index);
	d->nkeys = k->n;
	memcpy(d->keys, k->keys, k->n * sizeof(ScanKeyData));
}

static EntDirect *
open_as(Relation heap, EntCatalog by, Oid by_oid, Snapshot snapshot)
{
	EntDirect  *d = palloc0(sizeof(EntDirect));

	d->context = CurrentMemoryContext;
	d->heap = heap;
	d->by = by;
	d->by_oid = by_oid;
	d->newest = snapshot == NULL;
	if (d->newest)
	{
		CommandCounterIncrement();
		snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
									GetTransactionSnapshot() : GetLatestSnapshot());
	}
	d->snapshot = snapshot;
	d->blocks = InvalidBlockNumber;
	d->slot = table_slot_create(d->heap, NULL);
	return d;
}

EntDirect *
ent_direct_open(EntCatalog table, EntCatalog index, LOCKMODE lock,
				Snapshot snapshot)
{
	EntDirect  *d = open_as(ent_catalog_open(table, lock), index, InvalidOid, snapshot);

	d->ours = true;
	return d;
}

EntDirect *
ent_direct_open_table(Oid table, Oid index, LOCKMODE lock, Snapshot snapshot)
{
	return open_as(table_open(table, lock), ENT_CATALOGS, index, snapshot);
}

Relation
ent_direct_heap(const EntDirect *d)
{
	return d->heap;
}

static void
end_writing(EntDirect *d)
{
	for (int i = 0; i < d->nrows; i++)
		ExecDropSingleTupleTableSlot(d->rows[i]);
	if (d->shape != NULL)
		FreeTupleDesc(d->shape);
	if (d->formed != NULL)
		MemoryContextDelete(d->formed);
	if (d->estate == NULL)
		return;
	ExecCloseIndices(d->result);
	FreeExecutorState(d->estate);
}

/* The next search begins anew. */
static void
end_scan(EntDirect *d)
{
	if (d->scan != NULL)
		index_endscan(d->scan);
	d->scan = NULL;
	d->range = false;
}

void
ent_direct_close(EntDirect *d)
{
	end_writing(d);
	end_scan(d);
	ExecDropSingleTupleTableSlot(d->slot);
	if (d->newest)
		UnregisterSnapshot(d->snapshot);
	if (d->index != NULL)
		index_close(d->index, AccessShareLock);
	table_close(d->heap, NoLock);
	pfree(d);
}

static BlockNumber
blocks(EntDirect *d)
{
	if (d->blocks == InvalidBlockNumber)
		d->blocks = RelationGetNumberOfBlocks(d->heap);
	return d->blocks;
}

/* By the first n columns of the index; 0: by all. */
static bool
look_up(EntDirect *d, int n, const Datum *key)
{
	if (blocks(d) == 0)
		return false;
	if (d->range)
		end_scan(d);
	if (d->scan == NULL)
	{
		open_index(d);
		d->nscan = n > 0 ? n : d->nkeys;
		d->scan = ent_compat_index_beginscan(d->heap, d->index, d->snapshot, d->nscan);
	}
	for (int i = 0; i < d->nscan; i++)
		d->keys[i].sk_argument = key[i];
	index_rescan(d->scan, d->keys, d->nscan, NULL, 0);
	return index_getnext_slot(d->scan, ForwardScanDirection, d->slot);
}

TupleTableSlot *
ent_direct_find(EntDirect *d, const Datum *key)
{
	return look_up(d, 0, key) ? d->slot : NULL;
}

bool
ent_direct_is_simple(EntDirect *d)
{
	open_index(d);
	return d->nkeys == 1 && (d->index->rd_indoption[0] & INDOPTION_DESC) == 0;
}

void
ent_direct_begin_range(EntDirect *d, Datum lo, Datum hi)
{
	ScanKeyData keys[2];

	open_index(d);
	init_key(d->index, 0, BTGreaterEqualStrategyNumber, &keys[0]);
	init_key(d->index, 0, BTLessEqualStrategyNumber, &keys[1]);
	keys[0].sk_argument = lo;
	keys[1].sk_argument = hi;
	end_scan(d);
	d->scan = ent_compat_index_beginscan(d->heap, d->index, d->snapshot, 2);
	d->scan->ignore_killed_tuples = false;
	index_rescan(d->scan, keys, 2, NULL, 0);
	d->range = true;
}

TupleTableSlot *
ent_direct_next(EntDirect *d, int *left)
{
	while (*left > 0 && index_getnext_tid(d->scan, ForwardScanDirection) != NULL)
	{
		(*left)--;
		if (index_fetch_heap(d->scan, d->slot))
			return d->slot;
	}
	return NULL;
}

int
ent_direct_compare(EntDirect *d, Datum a, Datum b)
{
	open_index(d);
	return DatumGetInt32(FunctionCall2Coll(index_getprocinfo(d->index, 1, BTORDER_PROC),
										   d->index->rd_indcollation[0], a, b));
}

/* The page is tidied first, as index scans do, or there would be no room for new versions. */
TupleTableSlot *
ent_direct_at(EntDirect *d, const ItemPointerData *tid)
{
	ItemPointerData at = *tid;
	Buffer		buffer;
	bool		found;

	if (ItemPointerGetBlockNumber(&at) >= blocks(d))
		return NULL;
	buffer = ReadBuffer(d->heap, ItemPointerGetBlockNumber(&at));
	heap_page_prune_opt(d->heap, buffer);
	found = table_tuple_fetch_row_version(d->heap, &at, d->snapshot, d->slot);
	ReleaseBuffer(buffer);
	return found ? d->slot : NULL;
}

bool
ent_direct_any(EntDirect *d, int n, const Datum *key)
{
	return look_up(d, n, key);
}

bool
ent_direct_any_entry(EntDirect *d, int n, ScanKeyData *keys)
{
	IndexScanDesc scan;
	bool		found;

	if (blocks(d) == 0)
		return false;
	open_index(d);
	scan = ent_compat_index_beginscan(d->heap, d->index, d->snapshot, n);
	/* else it would go over any number of dead ones */
	scan->ignore_killed_tuples = false;
	index_rescan(scan, keys, n, NULL, 0);
	found = index_getnext_tid(scan, ForwardScanDirection) != NULL;
	index_endscan(scan);
	return found;
}

void
ent_direct_scan(EntDirect *d, bool (*fn) (void *arg, TupleTableSlot *slot),
				void *arg)
{
	TableScanDesc scan = table_beginscan_strat(d->heap, d->snapshot, 0, NULL,
											   true, false);

	while (table_scan_getnextslot(scan, ForwardScanDirection, d->slot))
		if (!fn(arg, d->slot))
			break;
	ExecClearTuple(d->slot);
	table_endscan(scan);
}

/* ---- writing ---- */

/* Most new versions of a row need no entries in indexes. */
static void
open_indexes(EntDirect *d)
{
	MemoryContext old;

	if (d->estate != NULL)
		return;
	old = MemoryContextSwitchTo(d->context);
	d->estate = CreateExecutorState();
	d->result = makeNode(ResultRelInfo);
	InitResultRelInfo(d->result, d->heap, 0, NULL, 0);
	ExecOpenIndices(d->result, false);
	MemoryContextSwitchTo(old);
}

/* The i-th of those that are written together. */
static void
fill_row(EntDirect *d, int i, const Datum *values, const bool *nulls)
{
	int			n = RelationGetDescr(d->heap)->natts;

	if (i == d->nrows)
	{
		MemoryContext old = MemoryContextSwitchTo(d->context);

		if (d->shape == NULL)
			d->shape = CreateTupleDescCopy(RelationGetDescr(d->heap));
		d->rows[d->nrows++] = MakeSingleTupleTableSlot(d->shape, &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	ExecClearTuple(d->rows[i]);
	memcpy(d->rows[i]->tts_values, values, n * sizeof(Datum));
	memcpy(d->rows[i]->tts_isnull, nulls, n * sizeof(bool));
	ExecStoreVirtualTuple(d->rows[i]);
}

/* What the relcache has of it is planned already, which the executor would do again. */
static bool
belongs(EntDirect *d, IndexInfo *info, ExprContext *context)
{
	if (info->ii_Predicate == NIL)
		return true;
	if (info->ii_PredicateState == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(d->estate->es_query_cxt);

		info->ii_PredicateState = ExecInitQual(info->ii_Predicate, NULL);
		MemoryContextSwitchTo(old);
	}
	return ExecQual(info->ii_PredicateState, context);
}

/* Entries of the first n rows in one index; false: it is unique and has such a key. */
static bool
index_rows_in(EntDirect *d, Relation index, IndexInfo *info, int n, bool fresh)
{
	ExprContext *context = GetPerTupleExprContext(d->estate);
	bool		looks = fresh && index->rd_index->indisunique;
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < n; i++)
	{
		context->ecxt_scantuple = d->rows[i];
		if (!belongs(d, info, context))
			continue;
		FormIndexDatum(info, d->rows[i], d->estate, values, nulls);
		if (!index_insert(index, values, nulls, &d->rows[i]->tts_tid, d->heap,
						  looks ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_NO, !fresh,
						  info) && looks)
			return false;
	}
	return true;
}

/*
 * fresh: not new versions of rows, whose keys in unique indexes are what they were, so that
 * nobody else can have them.
 */
static void
index_rows(EntDirect *d, int n, bool fresh)
{
	open_indexes(d);
	for (int i = 0; i < d->result->ri_NumIndices; i++)
		if (!index_rows_in(d, d->result->ri_IndexRelationDescs[i],
						   d->result->ri_IndexRelationInfo[i], n, fresh))
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("a row of \"%s\" was added meanwhile, or twice",
							RelationGetRelationName(d->heap))));
	ResetPerTupleExprContext(d->estate);
}

static EntDirectResult
result_of(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return ENT_DIRECT_DONE;
		case TM_SelfModified:
			return ENT_DIRECT_BY_US;
		default:
			return ENT_DIRECT_BY_OTHERS;
	}
}

EntDirectResult
ent_direct_update(EntDirect *d, const ItemPointerData *tid, const Datum *values,
				  const bool *nulls)
{
	ItemPointerData at = *tid;
	TM_FailureData failure;
	TM_Result	result;
	bool		indexes;

	fill_row(d, 0, values, nulls);
	result = ent_compat_tuple_update(d->heap, &at, d->rows[0], d->snapshot, &failure,
									 &indexes);
	if (result == TM_Ok && indexes)
		index_rows(d, 1, false);
	return result_of(result);
}

EntDirectResult
ent_direct_delete(EntDirect *d, const ItemPointerData *tid)
{
	ItemPointerData at = *tid;
	TM_FailureData failure;

	return result_of(table_tuple_delete(d->heap, &at, GetCurrentCommandId(true),
										d->snapshot, InvalidSnapshot, true,
										&failure, false));
}

TupleTableSlot *
ent_direct_lock(EntDirect *d, const ItemPointerData *tid)
{
	ItemPointerData at = *tid;
	TM_FailureData failure;
	TM_Result	result;

	ExecClearTuple(d->slot);
	result = table_tuple_lock(d->heap, &at, d->snapshot, d->slot,
							  GetCurrentCommandId(true), LockTupleNoKeyExclusive,
							  LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							  &failure);
	if (result != TM_Ok && result != TM_Deleted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not lock a row of \"%s\" because of a concurrent change",
						RelationGetRelationName(d->heap))));
	return result == TM_Ok ? d->slot : NULL;
}

void
ent_direct_insert(EntDirect *d, const Datum *values, const bool *nulls)
{
	fill_row(d, 0, values, nulls);
	table_tuple_insert(d->heap, d->rows[0], GetCurrentCommandId(true), 0, NULL);
	index_rows(d, 1, true);
}

bool
ent_direct_indexes_plain(EntDirect *d)
{
	open_indexes(d);
	for (int i = 0; i < d->result->ri_NumIndices; i++)
		if (!d->result->ri_IndexRelationDescs[i]->rd_index->indimmediate ||
			d->result->ri_IndexRelationInfo[i]->ii_ExclusionOps != NULL ||
			!d->result->ri_IndexRelationInfo[i]->ii_ReadyForInserts)
			return false;
	return true;
}

/*
 * Many rows at once go through a few buffers, as those of COPY do, and leave what others
 * read in the rest. They are the same ones each time; new ones would soon be all.
 */
static void
insert_in_ring(EntDirect *d, int n)
{
	static BulkInsertState ring = NULL;

	if (ring == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		ring = GetBulkInsertState();
		MemoryContextSwitchTo(old);
	}
	PG_TRY();
	{
		table_multi_insert(d->heap, d->rows, n, GetCurrentCommandId(true), 0, ring);
	}
	PG_FINALLY();
	{
		ReleaseBulkInsertStatePin(ring);
	}
	PG_END_TRY();
}

/* Page by page, then index by index. */
void
ent_direct_insert_many(EntDirect *d, int n, const Datum *values, const bool *nulls)
{
	int			natts = RelationGetDescr(d->heap)->natts;
	MemoryContext old;

	open_indexes(d);
	if (d->formed == NULL)
		d->formed = AllocSetContextCreate(d->context, "entanglement rows",
										  0, FORMED_BLOCK, ALLOCSET_DEFAULT_MAXSIZE);
	for (int i = 0; i < n; i++)
	{
		fill_row(d, i, values + i * natts, nulls + i * natts);
		if (RelationGetDescr(d->heap)->constr != NULL)
			ExecConstraints(d->result, d->rows[i], d->estate);
	}
	old = MemoryContextSwitchTo(d->formed);
	if (n == ENT_DIRECT_MANY && !d->ours)
		insert_in_ring(d, n);
	else
		table_multi_insert(d->heap, d->rows, n, GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(old);
	index_rows(d, n, true);
	MemoryContextReset(d->formed);
}

const ItemPointerData *
ent_direct_written(const EntDirect *d, int i)
{
	return &d->rows[i]->tts_tid;
}

/* ---- columns ---- */

bool
ent_direct_bool(TupleTableSlot *slot, AttrNumber attnum)
{
	bool		null;
	Datum		d = slot_getattr(slot, attnum, &null);

	return !null && DatumGetBool(d);
}

int32
ent_direct_int4(TupleTableSlot *slot, AttrNumber attnum)
{
	bool		null;
	Datum		d = slot_getattr(slot, attnum, &null);

	return null ? 0 : DatumGetInt32(d);
}

int64
ent_direct_int8(TupleTableSlot *slot, AttrNumber attnum)
{
	bool		null;
	Datum		d = slot_getattr(slot, attnum, &null);

	return null ? 0 : DatumGetInt64(d);
}

bytea *
ent_direct_bytea(TupleTableSlot *slot, AttrNumber attnum)
{
	bool		null;
	Datum		d = slot_getattr(slot, attnum, &null);

	return null ? NULL : DatumGetByteaPCopy(d);
}
