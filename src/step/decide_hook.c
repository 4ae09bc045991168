/*
 * step/decide_hook.c
 *	  Hooks are asked about what a request asks, and about what came of it.
 *
 * The latter after it has been done, when triggers and defaults have had their
 * say; a no undoes all of it. What the requester hears is the hook's name, nothing
 * that it said.
 */
#include "postgres.h"

#include "step/decide_private.h"
#include "store/rowquery.h"

static void
refuse(EntAsked *asked, const EntHookRefusal *why)
{
	asked->refusal = palloc(sizeof(EntHookRefusal));
	*asked->refusal = *why;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg_internal("%s", ent_hook_refusal_text(why))));
}

static void
ask_listen(EntAsked *asked)
{
	EntHooks   *hooks = ent_hooks_for(ENT_HOOK_LISTEN, asked->rel, asked->peer,
									  asked->role);
	EntHookRow	values = {asked->set, asked->values, asked->nulls};
	EntHookRefusal why;

	if (hooks == NULL)
		return;
	if (!ent_hook_may_listen(hooks, asked->owner,
							 asked->op == ENT_REQUEST_OP_CREATE ? "insert" :
							 asked->op == ENT_REQUEST_OP_FORWARD ? "update" : "delete",
							 asked->op == ENT_REQUEST_OP_CREATE ? NULL : asked->key,
							 asked->op == ENT_REQUEST_OP_DELETE ? NULL : &values,
							 &why))
		refuse(asked, &why);
}

/* The row with that key, as far as the role may see it; NULL: not at all. */
static EntHookRow *
read_row(EntAsked *asked, EntHooks *hooks, const Datum *key)
{
	const bool *may = ent_hooks_visible(hooks);
	Datum	   *values = palloc0(asked->rel->ncolumns * sizeof(Datum));
	bool	   *nulls = palloc0(asked->rel->ncolumns * sizeof(bool));
	EntHookRow *row = palloc(sizeof(EntHookRow));

	if (may == NULL ||
		!ent_rowquery_read(asked->rel, may, NULL, key, NULL, values, nulls))
		return NULL;
	*row = (EntHookRow) {may, values, nulls};
	return row;
}

void
ent_decide_ask_before(EntAsked *asked, EntDecideLook *look)
{
	asked->refusal = NULL;
	ask_listen(asked);
	look->constructed = ent_hooks_for(ENT_HOOK_CONSTRUCTED, asked->rel,
									  asked->peer, asked->role);
	if (look->constructed == NULL || asked->op == ENT_REQUEST_OP_CREATE)
		return;
	/* what it looks at is what will be changed */
	if (asked->op == ENT_REQUEST_OP_FORWARD)
		(void) ent_rowquery_lock(asked->rel, asked->key);
	look->old = read_row(asked, look->constructed, asked->key);
}

void
ent_decide_ask_after(EntAsked *asked, EntDecideLook *look, const Datum *key)
{
	EntHookRow	set = {asked->set, asked->values, asked->nulls},
			   *new = NULL;
	EntHookRefusal why;

	if (look->constructed == NULL)
		return;
	/* what the role has set it knows, also where it may not look */
	if (asked->op != ENT_REQUEST_OP_DELETE)
		new = ent_hook_row(asked->rel, read_row(asked, look->constructed, key),
						   key, &set);
	if (!ent_hook_may_construct(look->constructed, asked->owner, look->old, new,
								&why))
		refuse(asked, &why);
}
