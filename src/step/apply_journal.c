/*
 * step/apply_journal.c
 *	  Tables of which no committed state is left out: what a peer's version
 *	  replaces here is kept for the other peers.
 */
#include "postgres.h"

#include "step/apply_private.h"
#include "store/image.h"
#include "store/journal.h"

static bool
is_journaled(EntApply *a)
{
	if (!a->rel->every_state)
		return false;
	if (!a->looked_for_peers)
	{
		a->journaled = ent_journal_wanted(a->peer);
		a->looked_for_peers = true;
	}
	return a->journaled;
}

EntState *
ent_apply_replaced(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	EntState   *s;

	if (!is_journaled(a))
		return NULL;
	s = palloc0(sizeof(EntState));
	s->rel = a->rel->no;
	s->owner = a->owner;
	s->key = c->key;
	if (c->exists && c->owner == a->owner && c->born != 0 &&
		ent_apply_newer(a->epoch, r->serial, c->epoch, c->serial))
	{
		s->epoch = c->epoch;
		s->serial = c->serial;
		s->born = c->born;
		s->columns = c->columns;
		s->image = ent_image_of_row(a->rel, c->values);
		return s->image == NULL ? NULL : s;
	}
	if (!c->exists && c->buried && r->op == ENT_ROW_FULL)
	{
		s->epoch = c->grave_epoch;
		s->serial = c->grave_serial;
		return s;
	}
	return NULL;
}

void
ent_apply_keep(EntState *state)
{
	EntJournal *j;

	if (state == NULL)
		return;
	j = ent_journal_create();
	ent_journal_add(j, state);
	ent_journal_write(j);
}
