/*
 * step/capture.c
 *	  In the writer's transaction: note which object changed.
 *
 * What a writer pays for: one look into a cache by table, the key's bytes,
 * one heap tuple without an index.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "rule/coalesce.h"
#include "step/capture.h"
#include "store/changelog.h"
#include "store/image.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/triggered.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_capture_trigger);
PG_FUNCTION_INFO_V1(ent_sql_truncate_trigger);

/* The table that this subtransaction marked as a whole last. */
static struct
{
	int32		rel;
	TransactionId xid;
	SubTransactionId subxid;
}			marked;

/* image: what the row was before, or NULL */
static void
write_change(EntTriggered *t, int32 owner, char op, bytea *key, bytea *columns,
			 bytea *image)
{
	if (t->root->every_state)
		ent_changelog_write_state(t->root->no, owner, op, key, columns, image);
	else
		ent_changelog_write(t->root->no, owner, op, key, columns);
}

/*
 * The state that is about to be replaced, where none may be left out: what this
 * transaction itself wrote never was one.
 */
static bytea *
old_state(EntTriggered *t, TupleTableSlot *slot)
{
	HeapTuple	tuple;
	bool		copied;
	bool		ours;

	if (!t->root->every_state)
		return NULL;
	tuple = ExecFetchSlotHeapTuple(slot, false, &copied);
	ours = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
	if (copied)
		heap_freetuple(tuple);
	return ours ? NULL : ent_image_make(t, slot);
}

#define ROWS_TOGETHER	256		/* of a table that is captured as a whole */

/* ---- one row ---- */

/*
 * Promise one: nobody but its owner changes an object. Where the trigger that
 * makes requests has not seen to it, what is done to a row of a remote owner ends
 * here.
 */
static void
check_ours(EntTriggered *t, bytea *key)
{
	int32		owner = ent_object_remote_owner(t->root->no, key);
	const char *name;

	if (owner == 0)
		return;
	name = ent_object_owner_name(owner);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("row of table \"%s\" is owned by \"%s\", not by this node",
					t->root->name, name ? name : "?"),
			 errdetail("Key %s.", ent_key_text(t->root, (uint8 *) VARDATA_ANY(key),
											   VARSIZE_ANY_EXHDR(key))),
			 errhint("Change it at the node that is its owner's home.")));
}

/* A remote owner's new row is asked for (step/propose.c), never made here. */
static void
capture_insert(EntTriggered *t, TupleTableSlot *slot, int32 owner)
{
	if (!ent_object_owner_is_local(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("owner \"%s\" is not at home here", ent_object_owner_name(owner)),
				 errdetail("A row of table \"%s\" was to be made here for him.", t->root->name),
				 t->owner_column == 0 ?
				 errhint("SET entanglement.owner to one of: SELECT name FROM entanglement.owners WHERE local.") :
				 errhint("Set the column that names the owner of new rows, or entanglement.owner if it is NULL, to one of: SELECT name FROM entanglement.owners WHERE local.")));
	write_change(t, owner, ENT_CHANGE_INSERT, ent_triggered_key(t, slot), NULL, NULL);
}

static void
capture_delete(EntTriggered *t, TupleTableSlot *slot, bool guarded)
{
	bytea	   *key = ent_triggered_key(t, slot);

	if (!guarded)
		check_ours(t, key);
	write_change(t, 0, ENT_CHANGE_DELETE, key, NULL, old_state(t, slot));
}

static bytea *
no_columns(void)
{
	bytea	   *none = palloc(VARHDRSZ);

	SET_VARSIZE(none, VARHDRSZ);
	return none;
}

static void
capture_update(EntTriggered *t, TupleDesc desc, TupleTableSlot *old,
			   TupleTableSlot *new, bool guarded)
{
	bytea	   *columns = ent_triggered_changed(t, desc, old, new);
	bytea	   *image = old_state(t, old);
	bytea	   *key;

	if (columns == NULL && image == NULL)
		return;
	/* the same values in a row of our own: what comes next must not miss them */
	if (columns == NULL)
		columns = no_columns();
	key = ent_triggered_key(t, old);
	if (!guarded)
		check_ours(t, key);
	if (ent_triggered_touches_key(t, columns) && !ent_triggered_same_key(key, ent_triggered_key(t, new)))
	{
		write_change(t, 0, ENT_CHANGE_DELETE, key, NULL, image);
		capture_insert(t, new, ent_triggered_new_owner(t, new));
	}
	else
		write_change(t, 0, ENT_CHANGE_UPDATE, key, columns, image);
}

Datum
ent_sql_capture_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	EntTriggered *t;
	bool		guarded;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.capture_trigger() must be called by a trigger AFTER ... FOR EACH ROW"),
				 errhint("Use entanglement.synchronize().")));
	if (ent_rowquery_applying)
		PG_RETURN_POINTER(NULL);
	t = ent_triggered(data->tg_relation);
	if (t == NULL)
		PG_RETURN_POINTER(NULL);
	guarded = t->guarded &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		capture_insert(t, data->tg_trigslot,
					   ent_triggered_new_owner(t, data->tg_trigslot));
	else if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		capture_update(t, RelationGetDescr(data->tg_relation),
					   data->tg_trigslot, data->tg_newslot, guarded);
	else
		capture_delete(t, data->tg_trigslot, guarded);
	PG_RETURN_POINTER(NULL);
}

/* ---- whole tables ---- */

/* All columns of ours, as a bitmap. */
static bytea *
all_columns(EntTriggered *t)
{
	int			len = (t->root->natts + 7) / 8;
	bytea	   *result = palloc(VARHDRSZ + len);

	memset(VARDATA(result), 0xff, len);
	SET_VARSIZE(result, VARHDRSZ + len);
	return result;
}

static void
capture_row(EntTriggered *t, TupleTableSlot *slot, char op, int32 owner,
			bytea *columns)
{
	bytea	   *key;

	if (op == ENT_CHANGE_INSERT)
		capture_insert(t, slot, t->owner_column == 0 ? owner :
					   ent_triggered_new_owner(t, slot));
	else if (op == ENT_CHANGE_DELETE)
		capture_delete(t, slot, false);
	else
	{
		key = ent_triggered_key(t, slot);
		if (ent_object_remote_owner(t->root->no, key) == 0)
			/* nothing of it was replaced */
			ent_changelog_write(t->root->no, 0, ENT_CHANGE_UPDATE, key, columns);
	}
}

/* Rows written by transactions that are at most so old. */
typedef struct Since
{
	TransactionId next;
	uint64		age;
} Since;

/* To be called when the snapshot has been taken. */
static Since
since_of(FullTransactionId first)
{
	FullTransactionId next = ReadNextFullTransactionId();
	Since		s = {XidFromFullTransactionId(next), PG_UINT64_MAX};

	if (FullTransactionIdIsValid(first))
		s.age = U64FromFullTransactionId(next) - U64FromFullTransactionId(first);
	return s;
}

/*
 * Also true of rows of which nobody can tell. Freezing leaves the number of the
 * transaction where it is; one that was used long ago may look newer than it is.
 */
static bool
is_since(const Since *s, TupleTableSlot *slot)
{
	HeapTuple	tuple;
	TransactionId xmin;
	bool		copied;

	if (s->age >= PG_INT32_MAX)
		return true;
	tuple = ExecFetchSlotHeapTuple(slot, false, &copied);
	xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	if (copied)
		heap_freetuple(tuple);
	if (!TransactionIdIsNormal(xmin))
		return xmin != FrozenTransactionId;
	return (uint32) (s->next - xmin) <= s->age;
}

typedef struct Rows
{
	EntTriggered *t;
	Relation	rel;
	char		op;
	int32		owner;
	FullTransactionId first;
	uint64		n;				/* that were captured */
} Rows;

static void
scan_rows(void *arg)
{
	Rows	   *r = arg;
	TupleTableSlot *slot = table_slot_create(r->rel, NULL);
	TableScanDesc scan = table_beginscan(r->rel, GetActiveSnapshot(), 0, NULL);
	Since		since = since_of(r->first);
	bytea	   *columns = all_columns(r->t);
	MemoryContext some = AllocSetContextCreate(CurrentMemoryContext,
											   "entanglement rows",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(some);

	for (uint64 seen = 0; table_scan_getnextslot(scan, ForwardScanDirection, slot); seen++)
	{
		CHECK_FOR_INTERRUPTS();
		if (seen % ROWS_TOGETHER == 0)
		{
			ent_changelog_flush();
			MemoryContextReset(some);
		}
		if (!is_since(&since, slot))
			continue;
		capture_row(r->t, slot, r->op, r->owner, columns);
		r->n++;
	}
	ent_changelog_flush();
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(some);
}

static uint64
capture_rows(EntTriggered *t, Relation rel, char op, int32 owner,
			 FullTransactionId first)
{
	Rows		r = {t, rel, op, owner, first, 0};

	PushActiveSnapshot(GetLatestSnapshot());
	ent_changelog_together(scan_rows, &r);
	PopActiveSnapshot();
	return r.n;
}

static uint64
capture_table(Oid relid, int32 rel, char op, int32 owner, FullTransactionId first)
{
	Relation	r = table_open(relid, NoLock);
	EntTriggered *t = ent_triggered_as(r, rel);
	uint64		n = 0;

	if (t != NULL)
		n = capture_rows(t, r, op, owner, first);
	ent_triggered_forget(relid);
	table_close(r, NoLock);
	return n;
}

uint64
ent_capture_rows(Oid relid, int32 rel, char op, int32 owner)
{
	return capture_table(relid, rel, op, owner, InvalidFullTransactionId);
}

uint64
ent_capture_rows_since(Oid relid, int32 rel, FullTransactionId first)
{
	return capture_table(relid, rel, ENT_CHANGE_UPDATE, 0, first);
}

uint64
ent_capture_existing(int32 rel, int32 owner)
{
	EntRelation *root = ent_relinfo_read(rel);
	List	   *relids;
	ListCell   *lc;
	uint64		n = 0;

	if (root == NULL)
		return 0;
	if (root->partitioned)
		relids = find_all_inheritors(root->relid, ShareRowExclusiveLock, NULL);
	else
		relids = list_make1_oid(root->relid);
	foreach(lc, relids)
	{
		Relation	r = table_open(lfirst_oid(lc), NoLock);
		bool		has_rows = r->rd_rel->relkind == RELKIND_RELATION;

		table_close(r, NoLock);
		if (has_rows)
			n += ent_capture_rows(lfirst_oid(lc), rel, ENT_CHANGE_INSERT, owner);
	}
	return n;
}

static void
write_vanished(EntRelation *root)
{
	ent_changelog_write(root->no, 0, ENT_CHANGE_TRUNCATE, NULL, NULL);
}

static void
check_all_ours(EntRelation *root, const char *hint)
{
	int32		owner;
	const char *name;

	if (!ent_object_any_remote())
		return;
	PushActiveSnapshot(GetLatestSnapshot());
	owner = ent_object_remote_in(root->no);
	PopActiveSnapshot();
	if (owner == 0)
		return;
	name = ent_object_owner_name(owner);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" holds rows owned by \"%s\", not by this node",
					root->name, name ? name : "?"),
			 errhint("%s", hint)));
}

void
ent_capture_vanished(int32 rel)
{
	EntRelation *root = ent_relinfo_read(rel);

	if (root == NULL)
		return;
	check_all_ours(root, "Detach the partition before it is dropped, so that its rows can be looked at.");
	write_vanished(root);
}

/*
 * A table of ours is marked as a whole: the fold looks which of its objects
 * are left. Its partitions' triggers come after, in the same statement.
 */
static void
truncate_whole(EntRelation *root)
{
	check_all_ours(root, "Delete only the rows whose entanglement.owner_of() is a local owner.");
	write_vanished(root);
	marked.rel = root->no;
	marked.xid = GetTopTransactionId();
	marked.subxid = GetCurrentSubTransactionId();
}

static bool
is_marked(EntRelation *root)
{
	return marked.rel == root->no && marked.xid == GetTopTransactionId() &&
		marked.subxid == GetCurrentSubTransactionId();
}

/* A partition's rows are known one by one only before they go. */
Datum
ent_sql_truncate_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	EntTriggered *t;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.truncate_trigger() must be called by a trigger BEFORE TRUNCATE"),
				 errhint("Use entanglement.synchronize().")));
	if (ent_rowquery_applying)
		PG_RETURN_POINTER(NULL);
	t = ent_triggered(data->tg_relation);
	if (t == NULL)
		PG_RETURN_POINTER(NULL);
	if (t->root->relid == t->relid)
		truncate_whole(t->root);
	else if (!is_marked(t->root))
		capture_rows(t, data->tg_relation, ENT_CHANGE_DELETE, 0,
					 InvalidFullTransactionId);
	PG_RETURN_POINTER(NULL);
}
