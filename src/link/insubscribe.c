/*
 * link/insubscribe.c
 *	  The receiving end: which tables of the peer's are wanted, and which of
 *	  their rows.
 *
 * The whole set is said, with the first answer to a batch and whenever it has
 * become another one: because of subscribe and unsubscribe, or because the
 * peer's tables, or ours, have other numbers. What the peer says became of it is
 * written down for the view subscriptions.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "link/inbound_private.h"
#include "store/subscription.h"
#include "store/value.h"

static EntInTable *
table_of(EntInbound *ib, int32 rel)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known && t->rel == rel)
		{
			hash_seq_term(&seq);
			return t;
		}
	return NULL;
}

static void
write_wishes(EntInbound *ib, EntWriter *w, List *wishes)
{
	ListCell   *lc;

	foreach(lc, wishes)
	{
		EntWish    *wish = lfirst(lc);
		EntInTable *t = table_of(ib, wish->rel);
		EntWireWish wire = {.round = wish->round};

		if (t == NULL)
			continue;			/* the peer does not offer it */
		wire.table = t->number;
		if (wish->filter != NULL)
		{
			wire.filter = (const uint8_t *) ent_name_to_wire(wish->filter);
			wire.len = strlen((const char *) wire.filter);
		}
		ent_wire_write_wish(w, &wire);
	}
}

void
ent_inbound_write_subscriptions(EntInbound *ib, EntWriter *w)
{
	EntWireSubscribe s;
	List	   *wishes;
	size_t		start = w->len,
				mark;

	if (ib->number == 0 || !ib->subscriptions_due)
		return;
	wishes = ent_subscription_all(ib->peer, &s.selective);
	mark = ent_wire_open_section(w, ENT_SECTION_SUBSCRIBE);
	ent_wire_write_subscribe(w, &s);
	write_wishes(ib, w, wishes);
	ent_wire_close_section(w, mark);
	ib->subscriptions_due = false;
	if (ib->subscribed != NULL && ib->subscribed_len == w->len - start &&
		memcmp(ib->subscribed, w->data + start, ib->subscribed_len) == 0)
	{
		w->len = start;			/* as it was said before */
		return;
	}
	if (ib->subscribed != NULL)
		pfree(ib->subscribed);
	ib->subscribed_len = w->len - start;
	ib->subscribed = MemoryContextAllocHuge(ib->context, ib->subscribed_len);
	memcpy(ib->subscribed, w->data + start, ib->subscribed_len);
}

void
ent_inbound_take_filter_state(EntInbound *ib, EntReader *body)
{
	EntWireFilterState s;
	EntInTable *t;

	ent_wire_read_filter_state(body, &s);
	ent_inbound_check(body, "filter state");
	t = hash_search(ib->tables, &s.table, HASH_FIND, NULL);
	if (t == NULL || !t->known)
		return;					/* it has another number by now */
	ent_subscription_judged(ib->peer, t->rel, s.round, s.sqlstate,
							s.message[0] == '\0' ? NULL : ent_name_from_wire(s.message));
}
