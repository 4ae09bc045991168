/*
 * store/direct.c
 *	  Our own tables by key, without a plan.
 *
 * Writes go through the table access method and leave entries in all indexes, as
 * the executor would. Our tables have no triggers that these writes would have to
 * fire, no constraints but NOT NULL and unique ones, and no generated columns.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
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

struct EntDirect
{
	Relation	heap;
	EntCatalog	by;				/* index to look up by; ENT_CATALOGS: none */
	Snapshot	snapshot;
	bool		newest;			/* it is registered here */
	BlockNumber blocks;			/* all that the snapshot shows is in these; invalid:
								 * not asked yet */
	TupleTableSlot *slot;
	/* NULL until it is looked up by */
	Relation	index;
	IndexScanDesc scan;
	int			nkeys;
	ScanKeyData keys[MAX_KEYS];
	/* for writing, NULL until then */
	TupleTableSlot *row;
	/* for writing into indexes, likewise */
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

int
ent_direct_keys(Relation index, ScanKeyData *keys)
{
	int			n = IndexRelationGetNumberOfKeyAttributes(index);

	for (int i = 0; i < n; i++)
	{
		Oid			type = index->rd_opcintype[i];
		Oid			op = get_opfamily_member(index->rd_opfamily[i], type, type,
											 BTEqualStrategyNumber);

		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber,
							   type, index->rd_indcollation[i], get_opcode(op),
							   (Datum) 0);
	}
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

/* By the first n columns of the index; 0: by all. */
static void
begin_scan(EntDirect *d, int n)
{
	const Keys *k;

	d->index = index_open(ent_catalog_oid(d->by), AccessShareLock);
	k = keys_of(d->by, d->index);
	d->nkeys = n > 0 ? n : k->n;
	memcpy(d->keys, k->keys, d->nkeys * sizeof(ScanKeyData));
	d->scan = ent_compat_index_beginscan(d->heap, d->index, d->snapshot, d->nkeys);
}

EntDirect *
ent_direct_open(EntCatalog table, EntCatalog index, LOCKMODE lock,
				Snapshot snapshot)
{
	EntDirect  *d = palloc0(sizeof(EntDirect));

	d->heap = ent_catalog_open(table, lock);
	d->by = index;
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

static void
end_writing(EntDirect *d)
{
	if (d->row != NULL)
		ExecDropSingleTupleTableSlot(d->row);
	if (d->estate == NULL)
		return;
	ExecCloseIndices(d->result);
	FreeExecutorState(d->estate);
}

void
ent_direct_close(EntDirect *d)
{
	end_writing(d);
	if (d->scan != NULL)
		index_endscan(d->scan);
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

static bool
look_up(EntDirect *d, int n, const Datum *key)
{
	if (blocks(d) == 0)
		return false;
	if (d->scan == NULL)
		begin_scan(d, n);
	for (int i = 0; i < d->nkeys; i++)
		d->keys[i].sk_argument = key[i];
	index_rescan(d->scan, d->keys, d->nkeys, NULL, 0);
	return index_getnext_slot(d->scan, ForwardScanDirection, d->slot);
}

TupleTableSlot *
ent_direct_find(EntDirect *d, const Datum *key)
{
	return look_up(d, 0, key) ? d->slot : NULL;
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
	if (d->estate != NULL)
		return;
	d->estate = CreateExecutorState();
	d->result = makeNode(ResultRelInfo);
	InitResultRelInfo(d->result, d->heap, 0, NULL, 0);
	ExecOpenIndices(d->result, false);
}

static void
fill_row(EntDirect *d, const Datum *values, const bool *nulls)
{
	int			n = RelationGetDescr(d->heap)->natts;

	if (d->row == NULL)
		d->row = MakeSingleTupleTableSlot(RelationGetDescr(d->heap), &TTSOpsVirtual);
	ExecClearTuple(d->row);
	memcpy(d->row->tts_values, values, n * sizeof(Datum));
	memcpy(d->row->tts_isnull, nulls, n * sizeof(bool));
	ExecStoreVirtualTuple(d->row);
}

/* Entries in the indexes; false: there is such a key in a unique one. */
static bool
index_row(EntDirect *d)
{
	List	   *conflicts;

	open_indexes(d);
	conflicts = ent_compat_insert_index_tuples(d->result, d->row, d->estate);
	ResetPerTupleExprContext(d->estate);
	return conflicts == NIL;
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

/*
 * The same for a new version of a row, whose key in unique indexes is what it was: so
 * nobody else can have it, and the executor would look for that in vain.
 */
static void
index_version(EntDirect *d)
{
	ExprContext *context;
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	open_indexes(d);
	context = GetPerTupleExprContext(d->estate);
	context->ecxt_scantuple = d->row;
	for (int i = 0; i < d->result->ri_NumIndices; i++)
	{
		IndexInfo  *info = d->result->ri_IndexRelationInfo[i];

		if (!belongs(d, info, context))
			continue;
		FormIndexDatum(info, d->row, d->estate, values, nulls);
		index_insert(d->result->ri_IndexRelationDescs[i], values, nulls,
					 &d->row->tts_tid, d->heap, UNIQUE_CHECK_NO, true, info);
	}
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

	fill_row(d, values, nulls);
	result = ent_compat_tuple_update(d->heap, &at, d->row, d->snapshot, &failure,
									 &indexes);
	if (result == TM_Ok && indexes)
		index_version(d);
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
	fill_row(d, values, nulls);
	table_tuple_insert(d->heap, d->row, GetCurrentCommandId(true), 0, NULL);
	if (!index_row(d))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("a row of \"%s\" was added meanwhile, or twice",
						RelationGetRelationName(d->heap))));
}

const ItemPointerData *
ent_direct_written(const EntDirect *d)
{
	return &d->row->tts_tid;
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
