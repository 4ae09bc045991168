/*
 * store/triggered.c
 *	  A synchronized table as its triggers see it.
 *
 * Columns are compared as they are stored: a column that only looks changed
 * costs bytes later, one that is missed would be lost. What is stored apart is
 * read only when it was written anew and has the size it had.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "rule/coalesce.h"
#include "store/catalog.h"
#include "store/owner.h"
#include "store/triggered.h"
#include "store/value.h"

static HTAB *tables = NULL;
static EntTriggered *last_table = NULL;
static uint64 epoch = 1;		/* entries read in an earlier one are stale */

/* ---- the cache of tables ---- */

static void
relation_invalidated(Oid relid)
{
	EntTriggered *t;

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

static EntTriggered *
find_table(Oid relid)
{
	bool		found;
	EntTriggered *t;

	if (tables == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(EntTriggered)};

		tables = hash_create("entanglement captured tables", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS);
		ent_catalog_watch(relation_invalidated);
	}
	t = hash_search(tables, &relid, HASH_ENTER, &found);
	if (!found)
		memset((char *) t + sizeof(Oid), 0, sizeof(EntTriggered) - sizeof(Oid));
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
map_columns(EntTriggered *t, TupleDesc desc)
{
	t->natts = desc->natts;
	t->root_attnum = palloc0(desc->natts * sizeof(AttrNumber));
	t->last_key = 0;
	t->owner_column = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col = NULL;

		if (!att->attisdropped)
			col = ent_relinfo_column(t->root, NameStr(att->attname));
		if (col == NULL)
			continue;
		t->root_attnum[i] = col->attnum;
		if (col->attnum == t->root->owner_column)
			t->owner_column = i + 1;
		if (col->key > 0)
		{
			t->keys[col->key - 1] = i + 1;
			t->last_key = Max(t->last_key, i + 1);
		}
	}
}

/* Fires our trigger BEFORE ROW in sessions that are no replicas? */
static bool
is_guarded(Relation rel)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
		if (strcmp(desc->triggers[i].tgname, ENT_REQUEST_TRIGGER) == 0 &&
			(desc->triggers[i].tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
			 desc->triggers[i].tgenabled == TRIGGER_FIRES_ALWAYS))
			return true;
	return false;
}

/* Reads an entry anew. root: NULL to find out. */
static void
read_table(EntTriggered *t, Relation rel, int32 root)
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
		t->guarded = is_guarded(rel);
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
is_fresh(const EntTriggered *t)
{
	return t->context != NULL && t->read_in == epoch && t->read_at == t->marks;
}

EntTriggered *
ent_triggered(Relation rel)
{
	EntTriggered *t = last_table;

	/* without this a cached plan might not notice a new remote owner */
	AcceptInvalidationMessages();
	if (t == NULL || t->relid != RelationGetRelid(rel))
		t = last_table = find_table(RelationGetRelid(rel));
	if (!is_fresh(t))
		read_table(t, rel, 0);
	return t->root == NULL ? NULL : t;
}

EntTriggered *
ent_triggered_as(Relation rel, int32 root)
{
	EntTriggered *t = find_table(RelationGetRelid(rel));

	read_table(t, rel, root);
	return t->root == NULL ? NULL : t;
}

void
ent_triggered_forget(Oid relid)
{
	find_table(relid)->marks++;
}

/* ---- one row ---- */

bytea *
ent_triggered_key(EntTriggered *t, TupleTableSlot *slot)
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

int32
ent_triggered_new_owner(EntTriggered *t, TupleTableSlot *slot)
{
	int			n = t->owner_column - 1;
	Form_pg_attribute att;
	Oid			output;
	bool		varlena;

	if (n < 0 || ent_owner_forced != 0)
		return ent_owner_current();
	slot_getsomeattrs(slot, n + 1);
	if (slot->tts_isnull[n])
		return ent_owner_current();
	att = TupleDescAttr(slot->tts_tupleDescriptor, n);
	getTypeOutputInfo(att->atttypid, &output, &varlena);
	return ent_owner_look_up(OidOutputFunctionCall(output, slot->tts_values[n]),
							 psprintf("Column \"%s\" of table \"%s\" names the owner of new rows.",
									  NameStr(att->attname), t->root->name));
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

bytea *
ent_triggered_changed(EntTriggered *t, TupleDesc desc, TupleTableSlot *old,
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

bool
ent_triggered_touches_key(EntTriggered *t, bytea *columns)
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

bool
ent_triggered_same_key(bytea *a, bytea *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}
