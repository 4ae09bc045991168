/*
 * link/outflight.c
 *	  The sending end: batches on their way.
 *
 * Several may be: each has a note of what its answer will settle. Answers come
 * in order, and nothing counts as done before its own has come (I3).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "link/outbound_private.h"
#include "store/handover.h"
#include "store/query.h"

static EntQuery paid_query = {
	"DELETE FROM entanglement.owed WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.=) $2 AND owner OPERATOR(pg_catalog.=) $3 "
	"AND key OPERATOR(pg_catalog.=) $4 AND serial OPERATOR(pg_catalog.<=) $5",
	5, {INT4OID, INT4OID, INT4OID, BYTEAOID, INT8OID}, NULL
};

void
ent_outbound_begin_flight(EntOutbound *ob)
{
	ob->flight = MemoryContextAllocZero(ob->context, sizeof(EntOutFlight));
	ob->flight->min_position = UINT64_MAX;
	ob->flight->oldest = PG_INT64_MAX;
}

void
ent_outbound_join_flight(EntOutbound *ob, EntOutFlight *to, EntOutFlight *from)
{
	MemoryContext old = MemoryContextSwitchTo(ob->context);

	to->min_position = Min(to->min_position, from->min_position);
	to->oldest = Min(to->oldest, from->oldest);
	to->late = list_concat(to->late, from->late);
	to->handed = list_concat(to->handed, from->handed);
	to->forgotten = list_concat(to->forgotten, from->forgotten);
	list_free(from->late);
	list_free(from->handed);
	list_free(from->forgotten);
	pfree(from);
	MemoryContextSwitchTo(old);
}

uint64
ent_outbound_flight_position(EntOutbound *ob)
{
	uint64		position = UINT64_MAX;
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
		position = Min(position, dlist_container(EntOutFlight, node, iter.cur)->min_position);
	return position;
}

int64
ent_outbound_flight_oldest(EntOutbound *ob)
{
	int64		oldest = PG_INT64_MAX;
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
		oldest = Min(oldest, dlist_container(EntOutFlight, node, iter.cur)->oldest);
	return oldest;
}

void *
ent_outbound_note(EntOutbound *ob, List **list, size_t size)
{
	MemoryContext old = MemoryContextSwitchTo(ob->context);
	void	   *note = palloc0(size);

	*list = lappend(*list, note);
	MemoryContextSwitchTo(old);
	return note;
}

/* ---- claims ---- */

void
ent_outbound_note_claim(EntOutbound *ob, EntOutOwner *o, int64 serial)
{
	EntOutClaimed *c = ent_outbound_note(ob, &ob->flight->claims, sizeof(EntOutClaimed));

	c->owner = o;
	c->serial = serial;
	o->claiming_serial = Max(o->claiming_serial, serial);
}

void
ent_outbound_void_claims(EntOutbound *ob, EntOutOwner *o, bool all)
{
	dlist_iter	iter;
	bool		first = true;

	o->claiming_serial = 0;
	dlist_foreach(iter, &ob->flights)
	{
		ListCell   *lc;

		foreach(lc, dlist_container(EntOutFlight, node, iter.cur)->claims)
		{
			EntOutClaimed *c = lfirst(lc);

			if (c->owner != o)
				continue;
			if (all || first)
				c->owner = NULL;
			else
				o->claiming_serial = Max(o->claiming_serial, c->serial);
		}
		first = false;
	}
}

/* ---- what the peer holds ---- */

static List *
without(List *forgotten, const EntQueueEntry *e)
{
	ListCell   *lc;

	foreach(lc, forgotten)
	{
		EntOutLate *f = lfirst(lc);

		if (f->rel != e->rel || VARSIZE(f->key) - VARHDRSZ != e->keylen ||
			memcmp(VARDATA(f->key), e->key, e->keylen) != 0)
			continue;
		pfree(f->key);
		pfree(f);
		forgotten = foreach_delete_current(forgotten, lc);
	}
	return forgotten;
}

void
ent_outbound_holds_again(EntOutbound *ob, const EntQueueEntry *e)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
	{
		EntOutFlight *f = dlist_container(EntOutFlight, node, iter.cur);

		f->forgotten = without(f->forgotten, e);
	}
	ob->flight->forgotten = without(ob->flight->forgotten, e);
}

/* ---- the answer has come ---- */

static void
settle_claims(EntOutFlight *f)
{
	ListCell   *lc;

	foreach(lc, f->claims)
	{
		EntOutClaimed *c = lfirst(lc);

		if (c->owner == NULL)
			continue;
		c->owner->claimed = Max(c->owner->claimed, c->serial);
		c->owner->unsaved = true;
	}
	list_free_deep(f->claims);
}

static void
settle_late(EntOutbound *ob, EntOutFlight *f)
{
	ListCell   *lc;

	foreach(lc, f->late)
	{
		EntOutLate *late = lfirst(lc);
		Datum		args[5] = {Int32GetDatum(ob->peer), Int32GetDatum(late->rel),
			Int32GetDatum(late->owner), PointerGetDatum(late->key),
		Int64GetDatum(late->serial)};

		ent_query_run(&paid_query, args, NULL, SPI_OK_DELETE, NULL);
		pfree(late->key);
	}
	if (f->late != NIL)
		ent_outbound_complete(ob);
	list_free_deep(f->late);
}

static void
settle_handed(EntOutbound *ob, EntOutFlight *f)
{
	ListCell   *lc;

	foreach(lc, f->handed)
	{
		EntOutLate *handed = lfirst(lc);

		ent_handover_delivered(handed->rel, handed->key, handed->owner, ob->peer);
		pfree(handed->key);
	}
	list_free_deep(f->handed);
}

void
ent_outbound_settle_flight(EntOutbound *ob)
{
	EntOutFlight *f = dlist_container(EntOutFlight, node,
									  dlist_pop_head_node(&ob->flights));

	settle_claims(f);
	settle_late(ob, f);
	settle_handed(ob, f);
	ent_outbound_settle_forgotten(ob, f);
	ent_outbound_settle_resent(ob, f);
	ent_outbound_settle_requests(ob, f);
	ent_outbound_settle_graves(ob, f);
	pfree(f);
}
