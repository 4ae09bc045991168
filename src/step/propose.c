/*
 * step/propose.c
 *	  In the session of somebody who is not the owner: a change becomes a
 *	  request.
 *
 * The request is a row of ours, written in the transaction of the statement:
 * what rolls back was never asked for.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/wake.h"
#include "rule/wire.h"
#include "step/propose.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/request.h"
#include "store/rowquery.h"
#include "store/triggered.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_request_trigger);

/* ---- counting ---- */

static ExecutorRun_hook_type next_run = NULL;
static uint64 proposed = 0;		/* rows, by the statement that runs */

static void
run(ENT_COMPAT_RUN_PARAMETERS)
{
	uint64		outer = proposed;

	proposed = 0;
	PG_TRY();
	{
		if (next_run)
			next_run(ENT_COMPAT_RUN_ARGUMENTS);
		else
			standard_ExecutorRun(ENT_COMPAT_RUN_ARGUMENTS);
		if (proposed > 0 && query->operation != CMD_SELECT)
			query->estate->es_processed += proposed;
	}
	PG_FINALLY();
	{
		proposed = outer;
	}
	PG_END_TRY();
}

void
ent_propose_init(void)
{
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = run;
}

/* ---- the request ---- */

static char *
output(Form_pg_attribute att, Datum value)
{
	Oid			function;
	bool		varlena;

	getTypeOutputInfo(att->atttypid, &function, &varlena);
	return OidOutputFunctionCall(function, value);
}

static void
add_column(EntRequest *q, EntTriggered *t, Relation rel, TupleTableSlot *slot,
		   int i)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);

	q->columns[q->ncolumns] = pstrdup(NameStr(att->attname));
	q->values[q->ncolumns++] = slot->tts_isnull[i] ? NULL :
		output(att, slot->tts_values[i]);
}

static void
ask(EntRequest *q, EntTriggered *t, Relation rel, TupleTableSlot *slot,
	bool (*wanted) (EntTriggered *t, TupleTableSlot *slot, int i, void *arg),
	void *arg)
{
	int			level;

	q->rel = t->root->no;
	q->role = GetUserId();
	q->columns = palloc((t->natts + 1) * sizeof(char *));
	q->values = palloc((t->natts + 1) * sizeof(char *));
	if (slot != NULL)
	{
		level = ent_value_enter();
		slot_getallattrs(slot);
		for (int i = 0; i < t->natts; i++)
			if (t->root_attnum[i] != 0 && wanted(t, slot, i, arg))
				add_column(q, t, rel, slot, i);
		ent_value_leave(level);
	}
	ent_request_make(q);
	proposed++;
}

/* Has it a default here, as the key of most tables has? */
static bool
has_default(Form_pg_attribute att)
{
	return att->atthasdef || att->attidentity != '\0';
}

/*
 * NULL leaves the value to the owner's database, and so does a key that this
 * one would have made up, unless keys may be chosen by others.
 */
static bool
in_create(EntTriggered *t, TupleTableSlot *slot, int i, void *arg)
{
	if (slot->tts_isnull[i])
		return false;
	for (int k = 0; k < t->root->nkeys; k++)
		if (t->keys[k] == i + 1)
			return t->root->keys_from_others ||
				!has_default(TupleDescAttr((TupleDesc) arg, i));
	return true;
}

static void
ask_create(EntTriggered *t, Relation rel, TupleTableSlot *slot, int32 owner)
{
	EntRequest	q = {.owner = owner, .op = ENT_REQUEST_OP_CREATE};

	ask(&q, t, rel, slot, in_create, RelationGetDescr(rel));
}

static bool
in_forward(EntTriggered *t, TupleTableSlot *slot, int i, void *arg)
{
	bytea	   *columns = arg;

	return ent_wire_in_set((uint8 *) VARDATA(columns),
						   VARSIZE(columns) - VARHDRSZ, t->root_attnum[i] - 1);
}

static void
ask_forward(EntTriggered *t, Relation rel, TupleTableSlot *slot, int32 owner,
			bytea *key, bytea *columns)
{
	EntRequest	q = {.owner = owner, .op = ENT_REQUEST_OP_FORWARD, .key = key};

	ask(&q, t, rel, slot, in_forward, columns);
}

static void
ask_delete(EntTriggered *t, Relation rel, int32 owner, bytea *key)
{
	EntRequest	q = {.owner = owner, .op = ENT_REQUEST_OP_DELETE, .key = key};

	ask(&q, t, rel, NULL, NULL, NULL);
}

/* ---- the trigger: true when the row became a request ---- */

static bool
propose_insert(EntTriggered *t, Relation rel, TupleTableSlot *slot)
{
	int32		owner = ent_triggered_new_owner(t, slot);

	if (ent_object_owner_is_local(owner))
		return false;
	ask_create(t, rel, slot, owner);
	return true;
}

static bool
propose_update(EntTriggered *t, Relation rel, TupleTableSlot *old,
			   TupleTableSlot *new, bool marking)
{
	bytea	   *key;
	int32		owner;
	bytea	   *columns;

	if (!ent_object_may_be_remote(t->root, marking))
		return false;
	key = ent_triggered_key(t, old);
	owner = ent_object_remote_owner(t->root->no, key);

	if (owner == 0)
		return false;
	columns = ent_triggered_changed(t, RelationGetDescr(rel), old, new);
	if (columns == NULL)
	{
		/* nothing to ask for; what later triggers would change is not ours */
		proposed++;
		return true;
	}
	if (ent_triggered_touches_key(t, columns) &&
		!ent_triggered_same_key(key, ent_triggered_key(t, new)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the key of a row of table \"%s\" can be changed by its owner only",
						t->root->name),
				 errdetail("Key %s.", ent_key_text(t->root, (uint8 *) VARDATA_ANY(key),
												   VARSIZE_ANY_EXHDR(key))),
				 errhint("Ask for a new row and for the end of the old one.")));
	ask_forward(t, rel, new, owner, key, columns);
	return true;
}

static bool
propose_delete(EntTriggered *t, Relation rel, TupleTableSlot *slot, bool marking)
{
	bytea	   *key;
	int32		owner;

	if (!ent_object_may_be_remote(t->root, marking))
		return false;
	key = ent_triggered_key(t, slot);
	owner = ent_object_remote_owner(t->root->no, key);
	if (owner == 0)
		return false;
	ask_delete(t, rel, owner, key);
	return true;
}

static bool
propose(EntTriggered *t, TriggerData *data, bool marking)
{
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return propose_insert(t, data->tg_relation, data->tg_trigslot);
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		return propose_update(t, data->tg_relation, data->tg_trigslot,
							  data->tg_newslot, marking);
	return propose_delete(t, data->tg_relation, data->tg_trigslot, marking);
}

Datum
ent_sql_request_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	EntTriggered *t;
	HeapTuple	row;
	bool		marking;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.request_trigger() must be called by a trigger BEFORE ... FOR EACH ROW"),
				 errhint("Use entanglement.synchronize().")));
	row = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple :
		data->tg_trigtuple;
	/* where the log is captured from nobody else tells the collector */
	if (!ent_rowquery_applying)
		ent_wake_collector_at_commit();
	if (ent_rowquery_applying || !ent_object_any_remote())
		PG_RETURN_POINTER(row);
	marking = ent_wake_is_marking();
	t = ent_triggered(data->tg_relation);
	if (t == NULL || !propose(t, data, marking))
		PG_RETURN_POINTER(row);
	PG_RETURN_POINTER(NULL);
}
