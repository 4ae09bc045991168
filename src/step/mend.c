/*
 * step/mend.c
 *	  Rows and objects that do not belong together.
 *
 * Why no row is taken whose capture is on its way: a row, its change in the
 * log, and later its object row are written by transactions such that one
 * snapshot shows the row together with its change or its object (the fold
 * takes the change and writes the object at once; apply writes row and object
 * together). Rows of running transactions are not visible. So what a snapshot
 * shows without either was written behind our back. It may become somebody's
 * before it is deleted: it is locked first, and then looked at once more, so
 * that who adopts it waits for us and finds it gone, or has come before us and
 * is seen.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "replication/origin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "rule/coalesce.h"
#include "step/mend.h"
#include "store/changelog.h"
#include "store/object.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/triggered.h"
#include "store/value.h"

#define MAX_OBJECTS 1000		/* looked at at a time */

static EntQuery claimed_query = {
	"SELECT 1 FROM entanglement.change WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 "
	"UNION ALL SELECT 1 FROM entanglement.object WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 "
	"UNION ALL SELECT 1 FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, BYTEAOID}, NULL
};
static EntQuery objects_query = {
	"SELECT o.key FROM entanglement.object o JOIN entanglement.owner w "
	"ON w.no OPERATOR(pg_catalog.=) o.owner AND w.local "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 "
	"AND ($2 OPERATOR(pg_catalog.=) 0 OR o.owner OPERATOR(pg_catalog.=) $2) "
	"AND ($3 IS NULL OR o.key OPERATOR(pg_catalog.>) $3) "
	"ORDER BY o.key LIMIT $4",
	4, {INT4OID, INT4OID, BYTEAOID, INT8OID}, NULL
};

typedef struct Job
{
	EntRelation *rel;
	EntMend    *m;
	Oid			table_owner;
	Snapshot	snapshot;
	EntKeySet	spoken_for;		/* captured or parked */
	Datum	   *key;			/* of the row being deleted */
	uint64		deleted;
} Job;

/* Is the row somebody's by now, whatever the snapshot showed? */
static bool
is_claimed(Job *j, bytea *key)
{
	Datum		args[2] = {Int32GetDatum(j->rel->no), PointerGetDatum(key)};
	Snapshot	now;
	bool		found;

	CommandCounterIncrement();
	now = RegisterSnapshot(GetLatestSnapshot());
	ent_query_run(&claimed_query, args, NULL, SPI_OK_SELECT, now);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	UnregisterSnapshot(now);
	return found;
}

/* ---- rows that are no objects ---- */

/* As apply deletes: captured by nobody, ordinary triggers asleep. */
static void
delete_row(void *arg)
{
	Job		   *j = arg;
	int			save_role = SessionReplicationRole;
	bool		save_applying = ent_rowquery_applying;
	RepOriginId save_origin = replorigin_session_origin;

	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	ent_rowquery_applying = true;
	replorigin_session_origin = DoNotReplicateId;
	PG_TRY();
	{
		j->deleted = ent_rowquery_delete(j->rel, j->key);
	}
	PG_FINALLY();
	{
		ent_rowquery_applying = save_applying;
		replorigin_session_origin = save_origin;
		SessionReplicationRole = save_role;
	}
	PG_END_TRY();
}

/* false: it changed since the snapshot, so somebody has it in hand. */
static bool
lock_row(Job *j, Relation r, TupleTableSlot *slot)
{
	TupleTableSlot *locked = table_slot_create(r, NULL);
	ItemPointerData tid = slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(r, &tid, j->snapshot, locked,
							  GetCurrentCommandId(true), LockTupleExclusive,
							  LockWaitBlock, 0, &failure);
	ExecDropSingleTupleTableSlot(locked);
	return result == TM_Ok;
}

static void
take_stranger(Job *j, Relation r, EntTriggered *t, TupleTableSlot *slot,
			  bytea *key)
{
	Datum		values[ENT_WIRE_MAX_KEYS];
	int			level;

	if (j->m->rows == ENT_MEND_ADOPT)
	{
		ent_changelog_write(j->rel->no, j->m->owner, ENT_CHANGE_INSERT, key, NULL);
		j->m->nrows++;
		return;
	}
	if (!lock_row(j, r, slot) || is_claimed(j, key))
		return;
	for (int i = 0; i < t->root->nkeys; i++)
		values[i] = slot->tts_values[t->keys[i] - 1];
	j->key = values;
	j->deleted = 0;
	level = ent_query_plain_path();
	ent_query_as(j->table_owner, delete_row, j);
	AtEOXact_GUC(true, level);
	j->m->nrows += j->deleted;
}

static void
look_at_rows(Job *j, Relation r)
{
	EntTriggered *t = ent_triggered(r);
	TupleTableSlot *slot = table_slot_create(r, NULL);
	TableScanDesc scan = table_beginscan(r, j->snapshot, 0, NULL);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "entanglement row",
											  ALLOCSET_DEFAULT_SIZES);

	while (t != NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(row);
		EntObject	object;
		bytea	   *key;

		CHECK_FOR_INTERRUPTS();
		key = ent_triggered_key(t, slot);
		PushActiveSnapshot(j->snapshot);
		if (!ent_object_find(j->rel->no, key, &object) && !ent_changelog_has(&j->spoken_for, key))
			take_stranger(j, r, t, slot, key);
		PopActiveSnapshot();
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row);
}

static void
look_at_all_rows(Job *j)
{
	List	   *relids;
	ListCell   *lc;

	LockRelationOid(j->rel->relid, RowExclusiveLock);
	if (j->rel->partitioned)
		relids = find_all_inheritors(j->rel->relid, RowExclusiveLock, NULL);
	else
		relids = list_make1_oid(j->rel->relid);
	foreach(lc, relids)
	{
		Relation	r = table_open(lfirst_oid(lc), NoLock);

		if (r->rd_rel->relkind == RELKIND_RELATION)
			look_at_rows(j, r);
		table_close(r, NoLock);
	}
}

/* ---- objects without a row ---- */

/* Looks at the next objects; the last key, or NULL at the end. */
static bytea *
look_at_objects(Job *j, bytea *after)
{
	Datum		args[4] = {Int32GetDatum(j->rel->no), Int32GetDatum(j->m->owner),
	PointerGetDatum(after), Int64GetDatum(MAX_OBJECTS)};
	SPITupleTable *found;
	uint64		n;
	bytea	   *key = NULL;

	CHECK_FOR_INTERRUPTS();
	ent_query_run(&objects_query, args, after ? "    " : "  n ",
				  SPI_OK_SELECT, j->snapshot);
	found = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		Datum		values[ENT_WIRE_MAX_KEYS];
		bool		null;

		key = DatumGetByteaPCopy(SPI_getbinval(found->vals[i], found->tupdesc,
											   1, &null));
		ent_key_values(j->rel, (uint8 *) VARDATA_ANY(key),
					   VARSIZE_ANY_EXHDR(key), values);
		if (ent_changelog_has(&j->spoken_for, key) ||
			ent_rowquery_exists(j->rel, values, j->snapshot))
			continue;
		ent_changelog_write(j->rel->no, 0, ENT_CHANGE_DELETE, key, NULL);
		j->m->nobjects++;
	}
	SPI_freetuptable(found);
	return n < MAX_OBJECTS ? NULL : key;
}

static void
look_at_all_objects(Job *j)
{
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement objects",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext other = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement objects",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	bytea	   *after = NULL;

	do
	{
		MemoryContext done = chunk;

		/* the last key of one chunk is needed to find the next */
		MemoryContextSwitchTo(other);
		after = look_at_objects(j, after);
		MemoryContextReset(done);
		chunk = other;
		other = done;
	} while (after != NULL);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(chunk);
	MemoryContextDelete(other);
}

void
ent_mend(EntRelation *rel, EntMend *m)
{
	HeapTuple	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(rel->relid));
	Job			j = {.rel = rel, .m = m};

	m->nrows = m->nobjects = 0;
	if (!HeapTupleIsValid(tup))
		return;
	j.table_owner = ((Form_pg_class) GETSTRUCT(tup))->relowner;
	ReleaseSysCache(tup);
	/* what this transaction has done itself is to be seen, too */
	CommandCounterIncrement();
	j.snapshot = RegisterSnapshot(GetLatestSnapshot());
	ent_changelog_keys(rel->no, j.snapshot, &j.spoken_for);
	if (m->rows != ENT_MEND_LEAVE)
		look_at_all_rows(&j);
	if (m->objects)
		look_at_all_objects(&j);
	UnregisterSnapshot(j.snapshot);
}
