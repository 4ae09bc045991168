/*
 * link/outsettle.c
 *	  The sending end: what has become of the objects of a section.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/memutils.h"

#include "link/outdata_private.h"
#include "store/object.h"
#include "store/query.h"
#include "store/shown.h"

static void
note_sent(EntOutbound *ob, List **list, EntOutTaken *taken)
{
	EntQueueEntry *e = &taken->entry;
	EntOutLate *late = ent_outbound_note(ob, list, sizeof(EntOutLate));

	late->rel = e->rel;
	late->owner = e->owner;
	/* a version that came since is a debt of its own */
	late->serial = taken->fate == ENT_OUT_FATE_SENT ? taken->extract->serial : e->newest;
	late->key = MemoryContextAlloc(ob->context, VARHDRSZ + e->keylen);
	SET_VARSIZE(late->key, VARHDRSZ + e->keylen);
	memcpy(VARDATA(late->key), e->key, e->keylen);
}

/* What is in flight counts for age, acknowledgement and debts. */
static void
note_flight(EntOutbound *ob, EntOutTaken *taken)
{
	EntQueueEntry *e = &taken->entry;

	ob->flight->min_position = Min(ob->flight->min_position, e->position);
	ob->flight->oldest = Min(ob->flight->oldest, e->stale_at);
	if ((e->flags & ENT_ROW_LATE) && !taken->again)
		note_sent(ob, &ob->flight->late, taken);
	if (taken->fate == ENT_OUT_FATE_SENT && taken->extract->kind == ENT_EXTRACT_FULL &&
		taken->extract->heir.owner != 0)
		note_sent(ob, &ob->flight->handed, taken);
}

/* Back into the queue, once all that is to go has been taken from it. */
static void
put_off(EntOutSection *s, const EntQueueEntry *e)
{
	MemoryContext old = MemoryContextSwitchTo(s->source->context);
	EntQueueEntry *copy = palloc(sizeof(EntQueueEntry));
	uint8	   *key = palloc(e->keylen);

	memcpy(key, e->key, e->keylen);
	*copy = *e;
	copy->key = key;
	s->source->later = lappend(s->source->later, copy);
	MemoryContextSwitchTo(old);
}

/*
 * What is missing in the cut has come after it was asked for: from there on
 * claims wait for it, however often that happens to a hot object.
 */
static void
put_off_rest(EntOutSection *s, EntOutTaken *t)
{
	EntQueueEntry rest = t->entry;

	rest.position = Max(rest.position, s->ob->cut_position);
	rest.stale_at = Max(rest.stale_at, s->ob->cut_at);
	if (t->fate == ENT_OUT_FATE_SENT)
	{
		rest.since = Max(rest.since, t->extract->serial);
		rest.flags = 0;
	}
	put_off(s, &rest);
}

/*
 * The next state goes as soon as there is room, by turns with what changes: a long
 * row of them holds up nobody. Claims wait for the last one.
 */
static void
put_back_rest(EntOutSection *s, EntOutTaken *t)
{
	MemoryContext old = MemoryContextSwitchTo(s->source->context);
	EntQueueEntry *rest = palloc(sizeof(EntQueueEntry));
	uint8	   *key = palloc(t->entry.keylen);

	memcpy(key, t->entry.key, t->entry.keylen);
	*rest = t->entry;
	rest->key = key;
	rest->newest = Max(rest->newest, t->extract->serial);
	rest->since = t->extract->serial;
	rest->bulk = true;
	s->source->rest = lappend(s->source->rest, rest);
	MemoryContextSwitchTo(old);
}

/*
 * What the peer is told of for the first time is held by it from before the
 * batch leaves; what it is to forget, until it has answered that batch, though
 * from now on it may be gone.
 */
static void
note_held(EntOutSection *s)
{
	Datum	   *told = palloc(s->n * sizeof(Datum));
	Datum	   *leaving = palloc(s->n * sizeof(Datum));
	int			n = 0,
				m = 0;

	for (int i = 0; i < s->n; i++)
	{
		EntOutTaken *t = &s->taken[i];
		EntExtract *x = t->extract;

		if (t->fate != ENT_OUT_FATE_SENT)
			continue;
		if (t->forgets)
			note_sent(s->ob, &s->ob->flight->forgotten, t);
		if (t->forgets || x->kind == ENT_EXTRACT_WITHDRAWN)
		{
			if (x->held && !x->leaving)
				leaving[m++] = ent_outbound_key(t->entry.key, t->entry.keylen);
		}
		else if (!x->held || x->leaving)
		{
			told[n++] = ent_outbound_key(t->entry.key, t->entry.keylen);
			if (x->leaving)
				ent_outbound_holds_again(s->ob, &t->entry);
		}
	}
	if (n > 0)
		ent_shown_hold(s->ob->peer, s->rel->no,
					   ent_query_array(BYTEAOID, told, NULL, n));
	if (m > 0)
		ent_shown_leave(s->ob->peer, s->rel->no,
						ent_query_array(BYTEAOID, leaving, NULL, m));
}

/*
 * While its owner is scanned, a version that has been sent is not sent again, if it was as
 * completely as the scan would. Of what is shown in part, or told state by state, that is
 * not for versions to say.
 */
static void
note_version(EntOutSection *s, const EntOutTaken *t, EntOutOwner **last)
{
	const EntExtract *x = t->extract;

	if (s->table->partial || s->rel->every_state ||
		(x->kind != ENT_EXTRACT_FULL && x->kind != ENT_EXTRACT_DELTA))
		return;
	if (*last == NULL || (*last)->no != t->entry.owner)
		*last = hash_search(s->ob->owners, &t->entry.owner, HASH_FIND, NULL);
	if (*last != NULL && (*last)->scanning && t->entry.since <= (*last)->floor &&
		!x->elsewhere && x->heir.owner == 0)
		ent_outbound_note_sent(s->ob, *last, x->serial);
}

void
ent_outbound_settle_section(EntOutSection *s, size_t bytes)
{
	EntOutOwner *last = NULL;
	int			sent = 0;

	for (int i = 0; i < s->n; i++)
	{
		if (s->taken[i].fate == ENT_OUT_FATE_LATER)
			put_off(s, &s->taken[i].entry);
		else if (s->taken[i].fate == ENT_OUT_FATE_LARGE)
			ent_queue_push(s->ob->large, &s->taken[i].entry);
		else if (s->taken[i].more)
			put_back_rest(s, &s->taken[i]);
		else if (s->taken[i].again)
			put_off_rest(s, &s->taken[i]);
		if (s->taken[i].fate == ENT_OUT_FATE_SENT ||
			(s->taken[i].fate == ENT_OUT_FATE_DONE && !s->taken[i].again))
		{
			note_flight(s->ob, &s->taken[i]);
			if ((s->taken[i].entry.flags & ENT_OUT_COPY) && !s->taken[i].more)
				ent_outbound_copied(s->ob, s->table);
		}
		if (s->taken[i].fate == ENT_OUT_FATE_SENT)
		{
			note_version(s, &s->taken[i], &last);
			sent++;
		}
		if (s->taken[i].fate == ENT_OUT_FATE_SENT && s->rel->every_state && !s->table->partial)
			ent_outbound_note_state(s->ob, &s->taken[i].entry,
									s->taken[i].extract->serial);
	}
	if (s->table->partial)
		note_held(s);
	if (sent > 0)
		s->ob->row_bytes = (s->ob->row_bytes * 7 + bytes / sent) / 8 + 1;
	pg_atomic_fetch_add_u64(&s->ob->slot->objects_sent, sent);
}

void
ent_outbound_look_first(EntOutSection *s)
{
	s->ob->adverts_due = true;
	s->ob->adverts_position = s->ob->ring_position;
	for (int i = 0; s->rel != NULL && i < s->n; i++)
		put_off(s, &s->taken[i].entry);
}
