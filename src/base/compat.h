/*
 * base/compat.h
 *	  What differs between PostgreSQL 15 and 18.
 *
 * Floor 0, and the only file that looks at PG_VERSION_NUM: the rest of the
 * code is written for the newest spelling, which this file gives to older
 * majors.
 */
#ifndef ENT_BASE_COMPAT_H
#define ENT_BASE_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "entanglement needs PostgreSQL 15, 16, 17 or 18"
#endif

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/rangetypes.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Since 16 postgres.h leaves out SET_VARSIZE, VARDATA and their like. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Since 16 one function checks the ownership of any object. */
static inline bool
ent_compat_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

/*
 * Raises ERRCODE_INSUFFICIENT_PRIVILEGE unless member may become role. Since 16
 * membership alone does not suffice: it may be granted without SET.
 */
static inline void
ent_compat_check_can_set_role(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	check_can_set_role(member, role);
#else
	check_is_member_of_role(member, role);
#endif
}

static inline bool
ent_compat_owns_table(Oid relation, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relation, role);
#else
	return pg_class_ownercheck(relation, role);
#endif
}

/* Since 16 one function checks the rights on any object. */
static inline bool
ent_compat_schema_usage(Oid schema, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, role,
						   ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK;
#endif
}

static inline bool
ent_compat_may_execute(Oid function, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, role,
						   ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* Since 16 errors may be caught softly; we want them raised. */
static inline RangeType *
ent_compat_make_range(TypeCacheEntry *cache, RangeBound *lower,
					  RangeBound *upper, bool empty)
{
#if PG_VERSION_NUM >= 160000
	return make_range(cache, lower, upper, empty, NULL);
#else
	return make_range(cache, lower, upper, empty);
#endif
}

/* 0: none, or a deferrable one, which 18 would name to who asks for it. */
static inline Oid
ent_compat_primary_key_index(Relation relation)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(relation, false);
#else
	return RelationGetPrimaryKeyIndex(relation);
#endif
}

/* Since 18 an index scan counts what it does for EXPLAIN. */
static inline IndexScanDesc
ent_compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot,
						   int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/*
 * Since 16 an update says that only summarizing indexes need an entry, of which our
 * tables have none. Waits for what others do to the row.
 */
static inline TM_Result
ent_compat_tuple_update(Relation heap, ItemPointer tid, TupleTableSlot *slot,
						Snapshot snapshot, TM_FailureData *failure,
						bool *indexes)
{
	LockTupleMode mode;
	TM_Result	result;

#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes which;

	result = table_tuple_update(heap, tid, slot, GetCurrentCommandId(true),
								snapshot, InvalidSnapshot, true, failure,
								&mode, &which);
	*indexes = which == TU_All;
#else
	result = table_tuple_update(heap, tid, slot, GetCurrentCommandId(true),
								snapshot, InvalidSnapshot, true, failure,
								&mode, indexes);
#endif
	return result;
}

/* Which of the server's processes this is; since 17 told by a variable. */
static inline int
ent_compat_proc_number(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc ? MyProc->pgprocno : -1;
#endif
}

/*
 * Until 16 a snapshot knows when it was taken, for old_snapshot_threshold: one
 * that is made takes that from another.
 */
static inline void
ent_compat_snapshot_age(Snapshot to, Snapshot from)
{
#if PG_VERSION_NUM < 170000
	to->whenTaken = from->whenTaken;
	to->lsn = from->lsn;
#endif
}

/*
 * Since 18 a foreign key may be NOT ENFORCED, or compare periods, which takes
 * more than equality.
 */
static inline bool
ent_compat_foreign_key_enforced(Form_pg_constraint form)
{
#if PG_VERSION_NUM >= 180000
	return form->conenforced;
#else
	return true;
#endif
}

static inline bool
ent_compat_foreign_key_temporal(Form_pg_constraint form)
{
#if PG_VERSION_NUM >= 180000
	return form->conperiod;
#else
	return false;
#endif
}

/* Until 16 a set of wait events lives in a memory context. */
static inline WaitEventSet *
ent_compat_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);	/* no resource owner */
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* Until 16 only whether bytes of a client are left that are read already. */
#if PG_VERSION_NUM < 170000
#define pq_buffer_remaining_data() (pq_buffer_has_data() ? 1 : 0)
#endif

/* Until 17 functions that do not return are marked after their parameters. */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/* The connection limit of a half-dropped database, since 15.4. */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/*
 * An ExecutorRun_hook: its parameters as they are declared and as they are
 * passed on.
 */
#if PG_VERSION_NUM >= 180000
#define ENT_COMPAT_RUN_PARAMETERS \
	QueryDesc *query, ScanDirection direction, uint64 count
#define ENT_COMPAT_RUN_ARGUMENTS query, direction, count
#else
#define ENT_COMPAT_RUN_PARAMETERS \
	QueryDesc *query, ScanDirection direction, uint64 count, bool once
#define ENT_COMPAT_RUN_ARGUMENTS query, direction, count, once
#endif

/* Since 17 a decoded row is a plain tuple. */
static inline HeapTuple
ent_compat_old_tuple(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.oldtuple;
#else
	return change->data.tp.oldtuple ? &change->data.tp.oldtuple->tuple : NULL;
#endif
}

static inline HeapTuple
ent_compat_new_tuple(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.newtuple;
#else
	return change->data.tp.newtuple ? &change->data.tp.newtuple->tuple : NULL;
#endif
}

/* Replication slots learned to fail over in 17. */
static inline void
ent_compat_slot_create(const char *name)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(name, true, RS_EPHEMERAL, false, false, false);
#else
	ReplicationSlotCreate(name, true, RS_EPHEMERAL, false);
#endif
}

/* Since 18 whoever takes a slot says what happens if it is invalid. */
static inline void
ent_compat_slot_acquire(const char *name)
{
#if PG_VERSION_NUM >= 180000
	ReplicationSlotAcquire(name, true, true);
#else
	ReplicationSlotAcquire(name, true);
#endif
}

#endif							/* ENT_BASE_COMPAT_H */
