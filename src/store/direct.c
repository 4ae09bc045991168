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

struct EntDirect
{
	Relation	heap;
	Relation	index;			/* or NULL */
	Snapshot	snapshot;
	bool		newest;			/* it is registered here */
	BlockNumber blocks;			/* all that the snapshot shows is in these */
	int			nkeys;
	ScanKeyData keys[INDEX_MAX_KEYS];
	IndexScanDesc scan;			/* NULL: nothing was looked up yet */
	TupleTableSlot *slot;
	/* for writing, NULL until then */
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *row;
};

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

static void
open_index(EntDirect *d, EntCatalog which)
{
	d->index = index_open(ent_catalog_oid(which), AccessShareLock);
	d->nkeys = ent_direct_keys(d->index, d->keys);
}

EntDirect *
ent_direct_open(EntCatalog table, EntCatalog index, LOCKMODE lock,
				Snapshot snapshot)
{
	EntDirect  *d = palloc0(sizeof(EntDirect));

	d->heap = ent_catalog_open(table, lock);
	if (index != ENT_CATALOGS)
		open_index(d, index);
	d->newest = snapshot == NULL;
	if (d->newest)
	{
		CommandCounterIncrement();
		snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
									GetTransactionSnapshot() : GetLatestSnapshot());
	}
	d->snapshot = snapshot;
	d->blocks = d->index != NULL ? RelationGetNumberOfBlocks(d->heap) : 0;
	d->slot = table_slot_create(d->heap, NULL);
	return d;
}

static void
end_writing(EntDirect *d)
{
	if (d->estate == NULL)
		return;
	ExecDropSingleTupleTableSlot(d->row);
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

static bool
look_up(EntDirect *d, int n, const Datum *key)
{
	if (d->blocks == 0)
		return false;
	for (int i = 0; i < n; i++)
		d->keys[i].sk_argument = key[i];
	if (d->scan == NULL)
		d->scan = ent_compat_index_beginscan(d->heap, d->index, d->snapshot, n);
	index_rescan(d->scan, d->keys, n, NULL, 0);
	return index_getnext_slot(d->scan, ForwardScanDirection, d->slot);
}

TupleTableSlot *
ent_direct_find(EntDirect *d, const Datum *key)
{
	return look_up(d, d->nkeys, key) ? d->slot : NULL;
}

/* The page is tidied first, as index scans do, or there would be no room for new versions. */
TupleTableSlot *
ent_direct_at(EntDirect *d, const ItemPointerData *tid)
{
	ItemPointerData at = *tid;
	Buffer		buffer;
	bool		found;

	if (ItemPointerGetBlockNumber(&at) >= d->blocks)
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

static void
begin_writing(EntDirect *d)
{
	if (d->estate != NULL)
		return;
	d->estate = CreateExecutorState();
	d->result = makeNode(ResultRelInfo);
	InitResultRelInfo(d->result, d->heap, 0, NULL, 0);
	ExecOpenIndices(d->result, false);
	d->row = MakeSingleTupleTableSlot(RelationGetDescr(d->heap), &TTSOpsVirtual);
}

static void
fill_row(EntDirect *d, const Datum *values, const bool *nulls)
{
	int			n = RelationGetDescr(d->heap)->natts;

	ExecClearTuple(d->row);
	memcpy(d->row->tts_values, values, n * sizeof(Datum));
	memcpy(d->row->tts_isnull, nulls, n * sizeof(bool));
	ExecStoreVirtualTuple(d->row);
}

/* Entries in the indexes; false: there is such a key in a unique one. */
static bool
index_row(EntDirect *d)
{
	List	   *conflicts = ent_compat_insert_index_tuples(d->result, d->row,
														   d->estate);

	ResetPerTupleExprContext(d->estate);
	return conflicts == NIL;
}

/*
 * The same for a new version of a row, whose key in unique indexes is what it was: so
 * nobody else can have it, and the executor would look for that in vain.
 */
static void
index_version(EntDirect *d)
{
	ExprContext *context = GetPerTupleExprContext(d->estate);
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	context->ecxt_scantuple = d->row;
	for (int i = 0; i < d->result->ri_NumIndices; i++)
	{
		IndexInfo  *info = d->result->ri_IndexRelationInfo[i];

		if (info->ii_Predicate != NIL && info->ii_PredicateState == NULL)
			info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, d->estate);
		if (info->ii_Predicate != NIL && !ExecQual(info->ii_PredicateState, context))
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

	begin_writing(d);
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

bool
ent_direct_lock(EntDirect *d, const ItemPointerData *tid)
{
	ItemPointerData at = *tid;
	TupleTableSlot *locked = table_slot_create(d->heap, NULL);
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(d->heap, &at, d->snapshot, locked,
							  GetCurrentCommandId(true), LockTupleNoKeyExclusive,
							  LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							  &failure);
	ExecDropSingleTupleTableSlot(locked);
	if (result != TM_Ok && result != TM_Deleted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not lock a row of \"%s\" because of a concurrent change",
						RelationGetRelationName(d->heap))));
	return result == TM_Ok;
}

void
ent_direct_insert(EntDirect *d, const Datum *values, const bool *nulls)
{
	begin_writing(d);
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
