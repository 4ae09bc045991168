/*
 * link/outfragment.c
 *	  The sending end: objects too large to go at once.
 *
 * One at a time is encoded, when its first fragment goes, and its fragments fill up the
 * batches, between which fresher objects go. What changes of it meanwhile goes
 * behind it: it is finished even if it is superseded, or an object that changes
 * often would never arrive. It is given up when the peer may see another thing
 * than it could, or numbers mean something else.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "link/outbound_private.h"
#include "store/relinfo.h"

#define LEAST_FRAGMENT	64			/* bytes that a fragment is worth its head for */

bool
ent_outbound_is_in_transit(const EntOutbound *ob, const EntQueueEntry *e)
{
	const EntQueueEntry *t = ob->transit != NULL ? &ob->transit->entry : NULL;

	return t != NULL && t->rel == e->rel && t->keylen == e->keylen &&
		memcmp(t->key, e->key, e->keylen) == 0;
}

static void *
grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc_huge(old, size) : MemoryContextAllocHuge(ctx, size);
}

/* What waited for the object in transit waits no more. */
static void
release_behind(EntOutbound *ob)
{
	uint8	   *key = palloc(ENT_QUEUE_MAX_KEY);
	EntQueueEntry e;

	while (ent_queue_pop(ob->behind, &e, key))
		(void) ent_queue_push(ob->queue, &e);
	pfree(key);
}

static void
end_transit(EntOutbound *ob)
{
	EntOutTransit *t = ob->transit;

	ob->transit = NULL;
	pfree(t->data);
	pfree(unconstify(uint8 *, t->entry.key));
	pfree(t);
	release_behind(ob);
}

/* May the fragments that are left go, and mean what the first ones did? */
static bool
still_holds(EntOutbound *ob)
{
	EntOutTransit *t = ob->transit;
	EntOutTable *table = hash_search(ob->tables, &t->entry.rel, HASH_FIND, NULL);
	EntOutOwner *owner = hash_search(ob->owners, &t->entry.owner, HASH_FIND, NULL);

	return table != NULL && table->known && table->generation == t->generation &&
		table->show_version == t->show_version && owner != NULL &&
		owner->wanted && owner->epoch == t->epoch;
}

/* It is looked at anew, if it is still wanted. */
static void
give_up(EntOutbound *ob)
{
	(void) ent_queue_push(ob->queue, &ob->transit->entry);
	/* it counts as sent since it was encoded */
	ent_outbound_forget_states(ob);
	pfree(ob->transit->flight);
	end_transit(ob);
}

static EntOutTransit *
make_transit(EntOutbound *ob, const EntQueueEntry *e)
{
	EntOutTransit *t = MemoryContextAllocZero(ob->context, sizeof(EntOutTransit));
	EntOutTable *table = hash_search(ob->tables, &e->rel, HASH_FIND, NULL);
	EntOutOwner *owner = hash_search(ob->owners, &e->owner, HASH_FIND, NULL);
	uint8	   *key = MemoryContextAlloc(ob->context, e->keylen + 1);

	memcpy(key, e->key, e->keylen);
	t->entry = *e;
	t->entry.key = key;
	if (table != NULL && owner != NULL)
	{
		t->generation = table->generation;
		t->show_version = table->show_version;
		t->epoch = owner->epoch;
	}
	return t;
}

/*
 * Encodes the next one, with what its answer is to settle in a flight of its
 * own; one that has become small goes into the batch. False: none could be had.
 */
static bool
next(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	EntWireAllocator alloc = {grow, ob->context};
	EntOutSource source = {
		.queue = ob->large, .max_bytes = SIZE_MAX, .max_objects = 1, .large = SIZE_MAX
	};
	size_t		before = ent_queue_length(ob->large);
	EntOutFlight *flight = ob->flight;
	EntOutTransit *t;
	EntWriter	side;

	if (before == 0)
		return false;
	t = make_transit(ob, ent_queue_peek(ob->large));
	ent_wire_writer_init(&side, alloc);
	ent_wire_write_raw(&side, "", 1); /* a section does not begin at 0 */
	ent_outbound_begin_flight(ob);
	ent_outbound_write_source(ob, &side, &source);
	t->flight = ob->flight;
	ob->flight = flight;
	t->data = side.data;
	t->len = side.len - 1;
	if (t->len > max_bytes - w->len)
	{
		ob->transit = t;
		return true;
	}
	if (t->len > 0)
		ent_wire_write_raw(w, t->data + 1, t->len);
	ent_outbound_join_flight(ob, flight, t->flight);
	pfree(t->data);
	pfree(unconstify(uint8 *, t->entry.key));
	pfree(t);
	return ent_queue_length(ob->large) < before;
}

static void
write_fragment(EntOutbound *ob, EntWriter *w, size_t room)
{
	EntOutTransit *t = ob->transit;
	EntWireFragment f = {.owner = t->entry.owner, .total = t->len, .offset = t->sent};
	size_t		n = Min(room, t->len - t->sent);

	ent_wire_write_fragment(w, &f, t->data + 1 + t->sent, n);
	t->sent += n;
	if (t->sent < t->len)
		return;
	ent_outbound_join_flight(ob, ob->flight, t->flight);
	end_transit(ob);
}

void
ent_outbound_write_fragments(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	while (w->len + LEAST_FRAGMENT <= max_bytes && !ob->adverts_due)
	{
		if (ob->transit != NULL && !still_holds(ob))
			give_up(ob);
		if (ob->transit != NULL)
			write_fragment(ob, w, max_bytes - w->len);
		else if (!next(ob, w, max_bytes))
			break;
	}
}
