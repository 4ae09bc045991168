/*
 * step/capture.c
 *	  In the writer's transaction: note which object changed.
 *
 * What a writer pays for: one look into a cache by table, the key's bytes,
 * one heap tuple without an index. Columns are compared as they are stored:
 * a column that only looks changed costs bytes later, one that is missed
 * would be lost. What is stored apart is read only when it was written anew
 * and has the size it had.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/wake.h"
#include "rule/coalesce.h"
#include "step/capture.h"
#include "store/catalog.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_capture_trigger);
PG_FUNCTION_INFO_V1(ent_sql_truncate_trigger);

/* A table with rows as capture sees it: one of ours, or a partition of one. */
typedef struct Table
{
	Oid			relid;			/* hash key */
	bool		is_root;		/* some partition's entry depends on it */
	uint32		marks;			/* grows with each invalidation */
	uint32		read_at;		/* marks when it was read; */
	uint64		read_in;		/* ... and the epoch */
	MemoryContext context;		/* holds what follows; NULL: nothing yet */
	EntRelation *root;			/* NULL: not synchronized */
	int			natts;
	AttrNumber *root_attnum;	/* by attnum - 1; 0: no column of ours */
	AttrNumber	keys[ENT_WIRE_MAX_KEYS];	/* attnums here, in key order */
	AttrNumber	last_key;		/* the greatest of them */
} Table;

static HTAB *tables = NULL;
static Table *last_table = NULL;
static uint64 epoch = 1;		/* entries read in an earlier one are stale */

/* The table that this subtransaction marked as a whole last. */
static struct
{
	int32		rel;
	TransactionId xid;
	SubTransactionId subxid;
}			marked;

/* ---- the cache of tables ---- */

static void
relation_invalidated(Oid relid)
{
	Table	   *t;

	if (!OidIsValid(relid) || ent_catalog_is(ENT_CATALOG_RELATION, relid))
	{
		epoch++;
		return;
	}
	t = hash_search(tables, &relid, HASH_FIND, NULL);
	if (t == NULL)
		return;
	t->marks++;
	if (t->is_root)
		epoch++;
}

static Table *
find_table(Oid relid)
{
	bool		found;
	Table	   *t;

	if (tables == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(Table)};

		tables = hash_create("entanglement captured tables", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS);
		ent_catalog_watch(relation_invalidated);
	}
	t = hash_search(tables, &relid, HASH_ENTER, &found);
	if (!found)
		memset((char *) t + sizeof(Oid), 0, sizeof(Table) - sizeof(Oid));
	return t;
}

/* The synchronized table this one is, or is a partition of; or NULL. */
static EntRelation *
find_root(Relation rel)
{
	EntRelation *root = ent_relinfo_read_by_oid(RelationGetRelid(rel));
	List	   *ancestors;
	ListCell   *lc;

	if (root != NULL || !rel->rd_rel->relispartition)
		return root;
	ancestors = get_partition_ancestors(RelationGetRelid(rel));
	foreach(lc, ancestors)
		if (root == NULL)
			root = ent_relinfo_read_by_oid(lfirst_oid(lc));
	return root;
}

/* Partitions may have their columns in another order than the root. */
static void
map_columns(Table *t, TupleDesc desc)
{
	t->natts = desc->natts;
	t->root_attnum = palloc0(desc->natts * sizeof(AttrNumber));
	t->last_key = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col = NULL;

		if (!att->attisdropped)
			col = ent_relinfo_column(t->root, NameStr(att->attname));
		if (col == NULL)
			continue;
		t->root_attnum[i] = col->attnum;
		if (col->key > 0)
		{
			t->keys[col->key - 1] = i + 1;
			t->last_key = Max(t->last_key, i + 1);
		}
	}
}

/* Reads an entry anew. root: NULL to find out. */
static void
read_table(Table *t, Relation rel, int32 root)
{
	uint32		marks = t->marks;
	uint64		now = epoch;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "entanglement captured table",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	/* a call of ours further up the stack may be using what was here */
	if (t->context != NULL)
		MemoryContextSetParent(t->context, TopTransactionContext);
	t->context = NULL;
	t->root = root != 0 ? ent_relinfo_read(root) : find_root(rel);
	if (t->root != NULL)
	{
		map_columns(t, RelationGetDescr(rel));
		if (t->root->relid != t->relid)
			find_table(t->root->relid)->is_root = true;
	}
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, TopMemoryContext);
	t->context = context;
	t->read_at = marks;
	t->read_in = now;
}

static inline bool
is_fresh(const Table *t)
{
	return t->context != NULL && t->read_in == epoch && t->read_at == t->marks;
}

/* What we know of the table a trigger fired on; NULL: not synchronized. */
static Table *
table_of(Relation rel)
{
	Table	   *t = last_table;

	/* without this a cached plan might not notice a new remote owner */
	AcceptInvalidationMessages();
	if (t == NULL || t->relid != RelationGetRelid(rel))
		t = last_table = find_table(RelationGetRelid(rel));
	if (!is_fresh(t))
		read_table(t, rel, 0);
	return t->root == NULL ? NULL : t;
}

/* ---- the log ---- */

static void
write_change(Table *t, int32 owner, char op, bytea *key, bytea *columns)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_CHANGE);
	Relation	log;
	Datum		values[ENT_CHANGE_ATTRIBUTES];
	bool		nulls[ENT_CHANGE_ATTRIBUTES] = {false};
	HeapTuple	tup;

	values[ENT_CHANGE_REL - 1] = Int32GetDatum(t->root->no);
	values[ENT_CHANGE_OWNER - 1] = Int32GetDatum(owner);
	values[ENT_CHANGE_OP - 1] = CharGetDatum(op);
	values[ENT_CHANGE_KEY - 1] = PointerGetDatum(key);
	nulls[ENT_CHANGE_KEY - 1] = key == NULL;
	values[ENT_CHANGE_COLUMNS - 1] = PointerGetDatum(columns);
	nulls[ENT_CHANGE_COLUMNS - 1] = columns == NULL;

	log = table_open(relid, RowExclusiveLock);
	tup = heap_form_tuple(RelationGetDescr(log), values, nulls);
	simple_heap_insert(log, tup);
	heap_freetuple(tup);
	table_close(log, NoLock);
	ent_wake_collector_at_commit();
}

/* ---- one row ---- */

static bytea *
key_of(Table *t, TupleTableSlot *slot)
{
	Datum		values[ENT_WIRE_MAX_KEYS];

	slot_getsomeattrs(slot, t->last_key);
	for (int i = 0; i < t->root->nkeys; i++)
	{
		int			n = t->keys[i] - 1;

		if (slot->tts_isnull[n])
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("null value in key column \"%s\" of synchronized table \"%s\"",
							t->root->columns[t->root->keys[i]].name,
							t->root->name)));
		values[i] = slot->tts_values[n];
	}
	return ent_key_image(t->root, values);
}

/* The remote owner of the object with that key, or 0. */
static int32
remote_owner(Table *t, bytea *key)
{
	EntObject	object;
	bool		found;

	if (!ent_object_any_remote())
		return 0;
	/* the row may have become somebody's after our statement began */
	PushActiveSnapshot(GetLatestSnapshot());
	found = ent_object_find(t->root->no, key, &object);
	PopActiveSnapshot();
	return found && !ent_object_owner_is_local(object.owner) ? object.owner : 0;
}

/*
 * Promise one: nobody but its owner changes an object. What is done to a row of a
 * remote owner ends here.
 */
static void
check_ours(Table *t, bytea *key)
{
	int32		owner = remote_owner(t, key);
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

static void
capture_insert(Table *t, TupleTableSlot *slot, int32 owner)
{
	write_change(t, owner, ENT_CHANGE_INSERT, key_of(t, slot), NULL);
}

static void
capture_delete(Table *t, TupleTableSlot *slot)
{
	bytea	   *key = key_of(t, slot);

	check_ours(t, key);
	write_change(t, 0, ENT_CHANGE_DELETE, key, NULL);
}

/* Are these equal as they are stored, in the row or apart? */
static bool
same_value(Datum a, Datum b, Form_pg_attribute att)
{
	struct varlena *x,
			   *y;
	bool		same;

	if (datumIsEqual(a, b, att->attbyval, att->attlen))
		return true;
	if (att->attlen != -1 ||
		!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(a)) ||
		!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(b)) ||
		toast_raw_datum_size(a) != toast_raw_datum_size(b) ||
		toast_datum_size(a) != toast_datum_size(b))
		return false;
	x = detoast_external_attr((struct varlena *) DatumGetPointer(a));
	y = detoast_external_attr((struct varlena *) DatumGetPointer(b));
	same = datumIsEqual(PointerGetDatum(x), PointerGetDatum(y), false, -1);
	pfree(x);
	pfree(y);
	return same;
}

/* Bitmap of the root's columns that differ; NULL: none. */
static bytea *
changed_columns(Table *t, TupleDesc desc, TupleTableSlot *old,
				TupleTableSlot *new)
{
	bytea	   *result = palloc0(VARHDRSZ + ENT_SET_MAX_BYTES);
	uint8	   *set = (uint8 *) VARDATA(result);
	int			len = 0;

	slot_getallattrs(old);
	slot_getallattrs(new);
	for (int i = 0; i < t->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int			bit = t->root_attnum[i] - 1;

		if (bit < 0)
			continue;
		if (old->tts_isnull[i] == new->tts_isnull[i] &&
			(old->tts_isnull[i] ||
			 same_value(old->tts_values[i], new->tts_values[i], att)))
			continue;
		set[bit / 8] |= 1 << (bit % 8);
		len = Max(len, bit / 8 + 1);
	}
	SET_VARSIZE(result, VARHDRSZ + len);
	return len == 0 ? NULL : result;
}

static bool
touches_key(Table *t, bytea *columns)
{
	uint8	   *set = (uint8 *) VARDATA(columns);

	for (int i = 0; i < t->root->nkeys; i++)
	{
		int			bit = t->root_attnum[t->keys[i] - 1] - 1;

		if (bit / 8 < VARSIZE(columns) - VARHDRSZ &&
			(set[bit / 8] & 1 << (bit % 8)))
			return true;
	}
	return false;
}

static bool
same_key(bytea *a, bytea *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static void
capture_update(Table *t, TupleDesc desc, TupleTableSlot *old,
			   TupleTableSlot *new)
{
	bytea	   *columns = changed_columns(t, desc, old, new);
	bytea	   *key;

	if (columns == NULL)
		return;
	key = key_of(t, old);
	check_ours(t, key);
	if (touches_key(t, columns) && !same_key(key, key_of(t, new)))
	{
		write_change(t, 0, ENT_CHANGE_DELETE, key, NULL);
		capture_insert(t, new, ent_owner_current());
	}
	else
		write_change(t, 0, ENT_CHANGE_UPDATE, key, columns);
}

Datum
ent_sql_capture_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Table	   *t;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.capture_trigger() must be called by a trigger AFTER ... FOR EACH ROW"),
				 errhint("Use entanglement.synchronize().")));
	if (ent_rowquery_applying)
		PG_RETURN_POINTER(NULL);
	t = table_of(data->tg_relation);
	if (t == NULL)
		PG_RETURN_POINTER(NULL);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		capture_insert(t, data->tg_trigslot, ent_owner_current());
	else if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		capture_update(t, RelationGetDescr(data->tg_relation),
					   data->tg_trigslot, data->tg_newslot);
	else
		capture_delete(t, data->tg_trigslot);
	PG_RETURN_POINTER(NULL);
}

/* ---- whole tables ---- */

/* All columns of ours, as a bitmap. */
static bytea *
all_columns(Table *t)
{
	int			len = (t->root->natts + 7) / 8;
	bytea	   *result = palloc(VARHDRSZ + len);

	memset(VARDATA(result), 0xff, len);
	SET_VARSIZE(result, VARHDRSZ + len);
	return result;
}

static void
capture_row(Table *t, TupleTableSlot *slot, char op, int32 owner,
			bytea *columns)
{
	bytea	   *key;

	if (op == ENT_CHANGE_INSERT)
		capture_insert(t, slot, owner);
	else if (op == ENT_CHANGE_DELETE)
		capture_delete(t, slot);
	else
	{
		key = key_of(t, slot);
		if (remote_owner(t, key) == 0)
			write_change(t, 0, ENT_CHANGE_UPDATE, key, columns);
	}
}

static uint64
capture_rows(Table *t, Relation rel, char op, int32 owner)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bytea	   *columns = all_columns(t);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "entanglement row",
											  ALLOCSET_DEFAULT_SIZES);
	uint64		n = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(row);

		CHECK_FOR_INTERRUPTS();
		capture_row(t, slot, op, owner, columns);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
		n++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(row);
	return n;
}

uint64
ent_capture_rows(Oid relid, int32 rel, char op, int32 owner)
{
	Relation	r = table_open(relid, NoLock);
	Table	   *t = find_table(relid);
	uint64		n = 0;

	read_table(t, r, rel);
	if (t->root != NULL)
		n = capture_rows(t, r, op, owner);
	/* it may have been a partition: whose table it is, the next call finds out */
	t->marks++;
	table_close(r, NoLock);
	return n;
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

/* A Table good enough to write a change of no object in particular. */
static void
write_vanished(EntRelation *root)
{
	Table		t = {.root = root};

	write_change(&t, 0, ENT_CHANGE_TRUNCATE, NULL, NULL);
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
	Table	   *t;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.truncate_trigger() must be called by a trigger BEFORE TRUNCATE"),
				 errhint("Use entanglement.synchronize().")));
	if (ent_rowquery_applying)
		PG_RETURN_POINTER(NULL);
	t = table_of(data->tg_relation);
	if (t == NULL)
		PG_RETURN_POINTER(NULL);
	if (t->root->relid == t->relid)
		truncate_whole(t->root);
	else if (!is_marked(t->root))
		capture_rows(t, data->tg_relation, ENT_CHANGE_DELETE, 0);
	PG_RETURN_POINTER(NULL);
}
