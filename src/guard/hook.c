/*
 * guard/hook.c
 *	  Users' functions are asked whether something may be sent, or stored.
 *
 * A function's code is its owner's: it runs as him, whoever's process it is,
 * and with no more than he has. The values it is told are made jsonb as the
 * peer's role before, since a type's cast is code of the type's owner, and hold
 * nothing that this role may not see or has not said itself.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "guard/hook.h"
#include "guard/policy.h"
#include "store/object.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/refusal.h"
#include "store/rowjson.h"
#include "store/value.h"

struct EntHooks
{
	EntHookKind kind;
	EntRelation *rel;
	Oid			role;
	char	   *peer;			/* name */
	int32		owner_no;		/* whose name is: */
	char	   *owner;
	List	   *list;			/* of EntHook * */
	bool		sees;
	bool	   *may;			/* by column */
	MemoryContext context;
	MemoryContext question;		/* reset after each */
	void		(*tell) (void *arg, const EntHook *hook, int answer,
						 const char *error);
	void	   *tell_arg;
};

/* ---- which apply ---- */

static bool
applies(const EntHook *h, const EntRelation *rel, int32 peer)
{
	return (!OidIsValid(h->relid) || h->relid == rel->relid) &&
		(h->peer == 0 || h->peer == peer);
}

EntHooks *
ent_hooks_for(EntHookKind kind, EntRelation *rel, int32 peer, Oid role)
{
	EntHooks   *hooks;
	EntPeer    *p;
	List	   *list = NIL;
	ListCell   *lc;

	foreach(lc, ent_hook_list(kind))
		if (applies(lfirst(lc), rel, peer))
			list = lappend(list, lfirst(lc));
	if (list == NIL)
		return NULL;
	hooks = palloc0(sizeof(EntHooks));
	hooks->kind = kind;
	hooks->rel = rel;
	hooks->role = role;
	p = ent_peer_get(peer);
	hooks->peer = p ? p->name : "";
	hooks->list = list;
	hooks->may = palloc0((rel->ncolumns + 1) * sizeof(bool));
	hooks->sees = ent_policy_columns(rel, role, hooks->may);
	hooks->context = CurrentMemoryContext;
	hooks->question = AllocSetContextCreate(CurrentMemoryContext,
											"entanglement hook",
											ALLOCSET_DEFAULT_SIZES);
	return hooks;
}

uint64
ent_hooks_digest(EntRelation *rel, int32 peer)
{
	uint64		digest = 0;
	ListCell   *lc;

	foreach(lc, ent_hook_list(ENT_HOOK_SEND))
	{
		EntHook    *h = lfirst(lc);

		if (applies(h, rel, peer))
			digest = hash_combine64(digest + 1,
									hash_combine64(hash_bytes_uint32_extended(h->no, 0),
												   hash_bytes_uint32_extended(h->version, h->function)));
	}
	return digest;
}

const bool *
ent_hooks_visible(EntHooks *hooks)
{
	return hooks->sees ? hooks->may : NULL;
}

void
ent_hooks_tell(EntHooks *hooks,
			   void (*tell) (void *arg, const EntHook *hook, int answer,
							 const char *error),
			   void *arg)
{
	hooks->tell = tell;
	hooks->tell_arg = arg;
}

/* ---- rows ---- */

EntHookRow *
ent_hook_row(EntRelation *rel, const EntHookRow *upper, const Datum *key,
			 const EntHookRow *lower)
{
	bool	   *given = palloc0((rel->ncolumns + 1) * sizeof(bool));
	Datum	   *values = palloc0((rel->ncolumns + 1) * sizeof(Datum));
	bool	   *nulls = palloc0((rel->ncolumns + 1) * sizeof(bool));
	EntHookRow *row = palloc(sizeof(EntHookRow));

	for (int i = 0; i < rel->ncolumns; i++)
	{
		bool		in_key = rel->columns[i].key > 0;
		const EntHookRow *from = upper && upper->given[i] ? upper :
			!in_key && lower && lower->given[i] ? lower : NULL;

		given[i] = in_key || from;
		if (from)
		{
			values[i] = from->values[i];
			nulls[i] = from->nulls[i];
		}
		else if (in_key)
			values[i] = key[rel->columns[i].key - 1];
	}
	*row = (EntHookRow) {given, values, nulls};
	return row;
}

/* ---- asking ---- */

/* What is asked about, and how far that has come. */
typedef struct Question
{
	EntHooks   *hooks;
	const char *operation;
	const Datum *key;
	const EntHookRow *row;		/* what is sent or given; the new row */
	const EntHookRow *old;
	NullableDatum args[ENT_HOOK_MAX_ARGS];
	bool		made;			/* the arguments are */
	int			at;				/* in the list */
	int			answer;			/* 1 yes, 0 none, -1 no */
} Question;

static void
set_arg(Question *q, int i, Datum value)
{
	q->args[i].value = value;
	q->args[i].isnull = false;
}

static void
set_json(Question *q, int i, const EntHookRow *row)
{
	q->args[i].isnull = row == NULL;
	if (row)
		q->args[i].value = ent_rowjson(q->hooks->rel, row->given, row->values,
									   row->nulls);
}

static Datum
names_given(EntRelation *rel, const EntHookRow *row)
{
	char	  **names = palloc((rel->ncolumns + 1) * sizeof(char *));
	int			n = 0;

	for (int i = 0; row && i < rel->ncolumns; i++)
		if (row->given[i])
			names[n++] = rel->columns[i].name;
	return ent_query_text_array(names, n);
}

/* As the peer's role. */
static void
make_arguments(void *arg)
{
	Question   *q = arg;
	EntHooks   *hooks = q->hooks;

	set_arg(q, 0, CStringGetTextDatum(hooks->peer));
	set_arg(q, 1, CStringGetTextDatum(hooks->owner));
	set_arg(q, 2, ObjectIdGetDatum(hooks->rel->relid));
	switch (hooks->kind)
	{
		case ENT_HOOK_SEND:
			set_arg(q, 3, ent_rowjson_key(hooks->rel, q->key));
			set_json(q, 4, q->row);
			break;
		case ENT_HOOK_LISTEN:
			set_arg(q, 3, CStringGetTextDatum(q->operation));
			q->args[4].isnull = q->key == NULL;
			if (q->key)
				set_arg(q, 4, ent_rowjson_key(hooks->rel, q->key));
			set_arg(q, 5, names_given(hooks->rel, q->row));
			set_json(q, 6, q->row);
			break;
		default:
			set_json(q, 3, q->old);
			set_json(q, 4, q->row);
			break;
	}
}

static EntHook *
hook_at(Question *q)
{
	return list_nth(q->hooks->list, q->at);
}

/* As the function's owner. */
static void
call(void *arg)
{
	Question   *q = arg;
	EntHook    *h = hook_at(q);
	int			n = ent_hook_types[h->kind].nargs;
	LOCAL_FCINFO(fcinfo, ENT_HOOK_MAX_ARGS);
	Datum		result;

	q->answer = 0;
	if (h->fn.fn_oid == InvalidOid)
		fmgr_info_cxt(h->function, &h->fn, h->context);
	InitFunctionCallInfoData(*fcinfo, &h->fn, n, InvalidOid, NULL, NULL);
	for (int i = 0; i < n; i++)
	{
		if (h->fn.fn_strict && q->args[i].isnull)
			return;
		fcinfo->args[i] = q->args[i];
	}
	result = FunctionCallInvoke(fcinfo);
	if (!fcinfo->isnull)
		q->answer = DatumGetBool(result) ? 1 : -1;
}

/* In a subtransaction: from the one at hand on, until one says no. */
static void
ask_some(void *arg)
{
	Question   *q = arg;

	/* nobody can turn that off in a subtransaction */
	XactReadOnly = true;
	MemoryContextSwitchTo(q->hooks->question);
	(void) ent_value_enter();	/* undone with the subtransaction */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!q->made)
		ent_query_as(q->hooks->role, make_arguments, q);
	q->made = true;
	do
	{
		EntHook    *h = hook_at(q);

		if (h->name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("the function of hook %d has gone or was changed",
							h->no)));
		ent_query_as(h->owner, call, q);
	} while (q->answer >= 0 && !q->hooks->tell &&
			 ++q->at < list_length(q->hooks->list));
	PopActiveSnapshot();
}

static void
refuse(Question *q, ErrorData *error, EntHookRefusal *why)
{
	EntHook    *h = hook_at(q);

	memset(why, 0, sizeof(EntHookRefusal));
	why->hook = pstrdup(h->name ? h->name : psprintf("%d", h->no));
	if (error == NULL)
		return;
	why->failed = true;
	why->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	why->message = error->message ? error->message : "unknown error";
}

/* Asks; the first that says no is q->at. True: none did. */
static bool
ask_first(Question *q, EntHookRefusal *why)
{
	ErrorData  *error = ent_query_try_and_undo(ask_some, q);

	if (error &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	if (error == NULL && q->answer >= 0)
		return true;
	refuse(q, error, why);
	return false;
}

/* Each by itself, to the end. */
static bool
ask_all(Question *q, EntHookRefusal *why)
{
	EntHooks   *hooks = q->hooks;
	bool		ok = true;

	for (q->at = 0; q->at < list_length(hooks->list); q->at++)
	{
		EntHookRefusal this = {0};
		bool		yes = ask_first(q, &this);

		hooks->tell(hooks->tell_arg, hook_at(q), yes ? q->answer : -1,
					this.failed ? psprintf("%s: %s", this.sqlstate, this.message) : NULL);
		if (!yes && ok)
			*why = this;
		ok &= yes;
	}
	return ok;
}

static bool
ask(Question *q, int32 owner, EntHookRefusal *why)
{
	EntHooks   *hooks = q->hooks;
	bool		ok;

	if (hooks->owner == NULL || hooks->owner_no != owner)
	{
		char	   *name = ent_object_owner_name(owner);

		hooks->owner = MemoryContextStrdup(hooks->context, name ? name : "");
		hooks->owner_no = owner;
	}
	ok = hooks->tell ? ask_all(q, why) : ask_first(q, why);
	MemoryContextReset(hooks->question);
	return ok;
}

bool
ent_hook_may_send(EntHooks *hooks, int32 owner, const Datum *key,
				  const EntHookRow *row, EntHookRefusal *why)
{
	Question	q = {.hooks = hooks, .key = key, .row = row};

	return ask(&q, owner, why);
}

bool
ent_hook_may_listen(EntHooks *hooks, int32 owner, const char *operation,
					const Datum *key, const EntHookRow *values,
					EntHookRefusal *why)
{
	Question	q = {.hooks = hooks, .operation = operation, .key = key,
	.row = values};

	return ask(&q, owner, why);
}

bool
ent_hook_may_construct(EntHooks *hooks, int32 owner, const EntHookRow *old,
					   const EntHookRow *new, EntHookRefusal *why)
{
	Question	q = {.hooks = hooks, .old = old, .row = new};

	return ask(&q, owner, why);
}

char *
ent_hook_refusal_text(const EntHookRefusal *why)
{
	return psprintf("refused by hook \"%s\"", why->hook);
}

void
ent_hook_note_refusal(const EntHookRefusal *why, int32 owner, int32 rel,
					  bool sending)
{
	char	   *name = ent_object_owner_name(owner);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "hook \"%s\" %s %s owner \"%s\"", why->hook,
					 why->failed ? "failed on" : "refused",
					 sending ? "what was to be sent to the peer of" :
					 "what the peer sent of", name ? name : "?");
	if (why->failed)
		appendStringInfo(&text, ", which was refused: %s: %s", why->sqlstate,
						 why->message);
	ent_refusal_note(why->failed ? ENT_REFUSED_HOOK_FAILED : ENT_REFUSED_HOOK,
					 owner, rel, text.data);
}
