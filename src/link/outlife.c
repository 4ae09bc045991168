/*
 * link/outlife.c
 *	  The sending end: owners that are no more, and which are at home here.
 *
 * A grave is told until the batch that says so has been acknowledged.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/memutils.h"

#include "link/outbound_private.h"
#include "store/life.h"
#include "store/owner.h"
#include "store/query.h"

/* Does a batch in flight say so? */
static bool
being_told(EntOutbound *ob, const EntGrave *g)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
	{
		ListCell   *lc;

		foreach(lc, dlist_container(EntOutFlight, node, iter.cur)->graves)
		{
			EntGrave   *told = lfirst(lc);

			if (told->epoch == g->epoch && memcmp(&told->id, &g->id, UUID_LEN) == 0)
				return true;
		}
	}
	return false;
}

void
ent_outbound_write_graves(EntOutbound *ob, EntWriter *w)
{
	List	   *untold = ent_life_untold(ob->peer, ENT_WIRE_MAX_GONE);
	ListCell   *lc;

	ob->graves_left = list_length(untold) == ENT_WIRE_MAX_GONE;
	foreach(lc, untold)
	{
		EntGrave   *g = lfirst(lc);
		EntWireGone gone = {.epoch = g->epoch};

		if (being_told(ob, g))
			continue;
		*(EntGrave *) ent_outbound_note(ob, &ob->flight->graves, sizeof(EntGrave)) = *g;
		memcpy(gone.id.bytes, g->id.data, UUID_LEN);
		memcpy(gone.home.bytes, g->home.data, UUID_LEN);
		ent_wire_write_gone(w, &gone);
	}
}

void
ent_outbound_settle_graves(EntOutbound *ob, EntOutFlight *f)
{
	if (f->graves == NIL)
		return;
	ent_life_told(f->graves, ob->peer);
	if (ob->graves_left && !ob->adverts_due)
	{
		ob->adverts_due = true;
		ob->adverts_position = ob->ring_position;
	}
	list_free_deep(f->graves);
}

/* After the first adverts: the peer may forget what it has of ours besides. */
void
ent_outbound_write_homes(EntOutbound *ob, EntWriter *w, List *owners)
{
	EntWireHomes homes = {0};
	size_t		mark;
	ListCell   *lc;

	if (ob->homes_told)
		return;
	ob->homes_told = true;
	foreach(lc, owners)
		if (((EntOwner *) lfirst(lc))->local)
			homes.here++;
	mark = ent_wire_open_section(w, ENT_SECTION_HOMES);
	ent_wire_write_homes(w, &homes);
	foreach(lc, owners)
	{
		EntOwner   *o = lfirst(lc);
		EntOutOwner *out = hash_search(ob->owners, &o->no, HASH_FIND, NULL);
		EntWireUuid id;

		/* what is taken from the peer itself it knows */
		if (o->local || o->gone || o->peer == ob->peer ||
			(out != NULL && out->offered))
			continue;
		memcpy(id.bytes, o->id.data, UUID_LEN);
		ent_wire_write_elsewhere(w, &id);
	}
	ent_wire_close_section(w, mark);
}

/* What is no longer there is not sent any more. */
void
ent_outbound_unwant_missing(EntOutbound *ob, List *owners)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *out;
	ListCell   *lc;

	hash_seq_init(&seq, ob->owners);
	while ((out = hash_seq_search(&seq)) != NULL)
		out->there = false;
	foreach(lc, owners)
	{
		out = hash_search(ob->owners, &((EntOwner *) lfirst(lc))->no, HASH_FIND,
						  NULL);
		if (out)
			out->there = true;
	}
	hash_seq_init(&seq, ob->owners);
	while ((out = hash_seq_search(&seq)) != NULL)
		if (!out->there)
		{
			ent_outbound_unwant(ob, out);
			out->unsaved = false;
		}
}
