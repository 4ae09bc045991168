/*
 * step/apply_hook.c
 *	  Hooks are asked about what a peer's batch is about to write.
 *
 * Asked before anything is written, so that a row that is refused costs no more
 * than one that is stored, and parked like any other that cannot be. What has been
 * taken out to make room has been asked about; what we may not see any more is
 * not ours to keep.
 */
#include "postgres.h"

#include "step/apply_private.h"

static const char *
operation(EntApplyWrite *w)
{
	if (w->r->op == ENT_ROW_DELETE)
		return "delete";
	return w->c->exists ? "update" : "insert";
}

/* The log has a line per peer of what hooks refuse, so none per row here. */
static void
refuse(EntApplyWrite *w, EntHookRefusal *why)
{
	bool		asked_for = w->c->parked && (w->r->flags & ENT_ROW_REFRESH);
	char	   *detail = NULL;

	if (why->failed)
		detail = psprintf("It failed with %s: %s", why->sqlstate, why->message);
	ent_apply_note_parked(w->a, w->c, w->r, "42501", ent_hook_refusal_text(why),
						  detail);
	if (!asked_for)
		ent_hook_note_refusal(why, w->a->owner, w->a->rel->no, false);
}

static bool
ask_constructed(EntApplyWrite *w, EntHookRefusal *why)
{
	EntApply   *a = w->a;
	const bool *may = ent_hooks_visible(a->constructed);
	Datum	   *values = palloc0(a->rel->ncolumns * sizeof(Datum));
	bool	   *nulls = palloc0(a->rel->ncolumns * sizeof(bool));
	EntHookRow	old = {may, values, nulls},
				set = {w->r->set, w->values, w->nulls},
			   *new = NULL;
	bool		found = may && w->c->exists &&
		ent_apply_read(w, may, values, nulls);

	if (w->r->op != ENT_ROW_DELETE)
		new = ent_hook_row(a->rel, &set, w->c->values, found ? &old : NULL);
	return ent_hook_may_construct(a->constructed, a->owner, found ? &old : NULL,
								  new, why);
}

bool
ent_apply_ask_hooks(EntApplyWrite *w)
{
	EntApply   *a = w->a;
	EntHookRefusal why;
	bool		ok = true;

	if ((a->listen == NULL && a->constructed == NULL) || w->c->taken_out ||
		w->r->withdrawn)
		return true;
	if (w->r->op != ENT_ROW_DELETE)
		ent_apply_decode(w);
	if (a->listen)
	{
		EntHookRow	values = {w->r->set, w->values, w->nulls};

		ok = ent_hook_may_listen(a->listen, a->owner, operation(w), w->c->values,
								 w->r->op == ENT_ROW_DELETE ? NULL : &values,
								 &why);
	}
	if (ok && a->constructed)
		ok = ask_constructed(w, &why);
	if (!ok)
		refuse(w, &why);
	return ok;
}
