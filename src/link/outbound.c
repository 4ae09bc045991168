/*
 * link/outbound.c
 *	  The sending end of one direction of a link.
 *
 * The conductor of the data's way out: ring and object table -> queue ->
 * extract -> batch. Nothing here is durable; the receiver's haves are. The
 * order of business for a newly wanted owner is: note the ring position,
 * then scan under a later snapshot, then go on with the ring from the noted position, so that
 * nothing falls between the two. A claim ("you now have this owner up to
 * S") goes out only when every entry with a position up to the claim's has
 * been sent (I3).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/ring.h"
#include "guard/policy.h"
#include "link/outbound.h"
#include "link/outbound_private.h"
#include "rule/queue.h"
#include "rule/wire.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/refusal.h"
#include "store/relinfo.h"
#include "store/value.h"

#define READ_EVENTS		256		/* ring entries read at a time */
#define FIRST_ROW		64		/* bytes that a row is taken to have at first */

static EntQuery owed_query = {
	"SELECT rel, owner, key, serial FROM entanglement.owed WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery remit_query = {
	"DELETE FROM entanglement.owed WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND (owner OPERATOR(pg_catalog.=) ANY ($2) OR owner OPERATOR(pg_catalog.=) ANY "
	"(SELECT no FROM entanglement.owner WHERE peer OPERATOR(pg_catalog.=) $1))",
	2, {INT4OID, INT4ARRAYOID}, NULL
};

/* ---- life ---- */

static void *
queue_alloc(void *ctx, size_t size)
{
	return MemoryContextAllocHuge(ctx, size);
}

static void
queue_release(void *ctx, void *p)
{
	pfree(p);
}

EntOutbound *
ent_outbound_create(int32 peer, Oid role, EntPeerSlot *slot)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "entanglement outbound",
												  ALLOCSET_DEFAULT_SIZES);
	EntOutbound *ob = MemoryContextAllocZero(context, sizeof(EntOutbound));
	EntQueueAllocator alloc = {queue_alloc, queue_release, context};
	HASHCTL		ctl = {.keysize = sizeof(int32), .hcxt = context};

	ob->context = context;
	ob->peer = peer;
	ob->role = role;
	ob->slot = slot;
	ob->queue = ent_queue_create(alloc);
	ob->together = ent_queue_create(alloc);
	ob->large = ent_queue_create(alloc);
	ob->behind = ent_queue_create(alloc);
	ctl.entrysize = sizeof(EntOutOwner);
	ob->owners = hash_create("entanglement owners sent", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(EntOutTable);
	ob->tables = hash_create("entanglement tables sent", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&ob->claiming);
	dlist_init(&ob->arrears);
	dlist_init(&ob->presents);
	ob->ring_position = ent_ring_head();
	ob->adverts_due = true;
	ob->owed_due = true;
	ob->resend_due = true;
	ob->requests_due = ob->again_due = true;
	ob->row_bytes = FIRST_ROW;
	dlist_init(&ob->flights);
	ent_outbound_begin_flight(ob);
	ob->asked = pg_atomic_read_u64(&slot->heard);
	pg_atomic_write_u64(&slot->acked, 0);
	return ob;
}

void
ent_outbound_destroy(EntOutbound *ob)
{
	uint64		oldest = pg_atomic_read_u64(&ob->slot->oldest);
	uint64		none = 0;

	if (oldest != 0)
		(void) pg_atomic_compare_exchange_u64(&ob->slot->stale_since, &none, oldest);
	pg_atomic_write_u64(&ob->slot->acked, 0);
	pg_atomic_write_u64(&ob->slot->queued, 0);
	pg_atomic_write_u64(&ob->slot->oldest, 0);
	if (ob->copying)
		ent_shmem_show_copies(ob->slot, NULL, 0);
	MemoryContextDelete(ob->context);
}

/* ---- from the ring into the queue ---- */

void
ent_outbound_push(EntOutbound *ob, EntOutTable *t, EntQueueEntry *e)
{
	e->priority = t->priority;
	e->round = ob->round;
	if (ent_queue_push(t->integrity ? ob->together : ob->queue, e))
		pg_atomic_fetch_add_u64(&ob->slot->coalesced, 1);
}

size_t
ent_outbound_queued(const EntOutbound *ob)
{
	return ent_queue_length(ob->queue) + ent_queue_length(ob->together) +
		ent_queue_length(ob->large) + ent_queue_length(ob->behind) +
		(ob->transit != NULL ? 1 : 0);
}

uint64
ent_outbound_min_position(const EntOutbound *ob)
{
	uint64		position = Min(ent_queue_min_position(ob->queue),
							   ent_queue_min_position(ob->together));

	position = Min(position, ent_queue_min_position(ob->large));
	position = Min(position, ent_queue_min_position(ob->behind));
	return ob->transit != NULL ? Min(position, ob->transit->flight->min_position) : position;
}

static void
take_object(EntOutbound *ob, const EntEvent *ev)
{
	EntOutOwner *o = hash_search(ob->owners, &ev->owner, HASH_FIND, NULL);
	EntOutTable *t = hash_search(ob->tables, &ev->rel, HASH_FIND, NULL);
	EntQueueEntry e = {
		.rel = ev->rel, .owner = ev->owner, .flags = ev->flags,
		.position = ev->position, .since = ev->since, .newest = ev->serial,
		.stale_at = GetCurrentTimestamp(), .keylen = ev->keylen, .key = ev->key
	};

	if (o == NULL && bms_is_member(ev->owner, ob->withheld))
		return;
	if (o == NULL || t == NULL)
	{
		ob->adverts_due = true;
		ob->owed_due |= (ev->flags & ENT_ROW_LATE) != 0;
		return;
	}
	if (t->idle)
		return;
	if (!o->wanted || !t->known)
	{
		ob->owed_due |= (ev->flags & ENT_ROW_LATE) != 0;
		return;
	}
	if (ev->flags == 0 && ent_outbound_was_sent(o, ev->serial))
		return;
	/* what the scan has not reached is only complete up to the scan's start */
	if (o->scanning && e.since > o->floor)
		e.since = o->floor;
	ent_outbound_push(ob, t, &e);
}

void
ent_outbound_claim(EntOutbound *ob, EntOutOwner *o, int64 serial,
				   uint64 position)
{
	EntOutClaim *c = o->current.serial == 0 ? &o->current : &o->next;

	if (serial <= o->claimed || serial < o->current.serial)
		return;
	if (c == &o->next && c->serial >= serial)
		return;
	c->serial = serial;
	c->position = position;
	if (!o->claiming)
	{
		o->claiming = true;
		dlist_push_tail(&ob->claiming, &o->node);
	}
}

static void
take_owner(EntOutbound *ob, const EntEvent *ev)
{
	EntOutOwner *o = hash_search(ob->owners, &ev->owner, HASH_FIND, NULL);

	if (o == NULL && ev->serial != 0 && bms_is_member(ev->owner, ob->withheld))
		return;
	if (o == NULL || ev->serial == 0)
	{
		ob->adverts_due = true;
		return;
	}
	if (o->sought_epoch != 0 && ev->serial > o->sought_serial)
		ob->adverts_due = true; /* it may be offered again */
	if (o->wanted && !o->scanning && !o->withheld)
		ent_outbound_claim(ob, o, ev->serial, ev->position);
}

/*
 * New objects, which the object table tells. A scan that is under way finds them, since its
 * snapshots are still to be taken, or has found them.
 */
static void
take_run(EntOutbound *ob, const EntEvent *ev)
{
	EntOutOwner *o = hash_search(ob->owners, &ev->owner, HASH_FIND, NULL);

	if (o == NULL)
		ob->adverts_due |= !bms_is_member(ev->owner, ob->withheld);
	else if (o->wanted && ev->serial > o->scanned)
		ent_outbound_scan_on(ob, o, ev->since, ev->position);
}

/*
 * The ring overtook us: nothing read from it since is known, so everything
 * wanted is scanned again from what the peer is known to have.
 */
static void
rescan_all(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;

	ob->adverts_due = true;
	ob->requests_due = true;
	ob->owed_due = true;
	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		if (o->wanted)
			ent_outbound_start_scan(ob, o, o->claimed, ob->ring_position);
}

void
ent_outbound_read_ring(EntOutbound *ob)
{
	bool		due = ob->adverts_due;

	EntEvent	events[READ_EVENTS];
	char	   *keys;
	int			n;

	do
	{
		keys = NULL;
		n = ent_ring_read(&ob->ring_position, events, READ_EVENTS, &keys);
		if (n < 0)
		{
			rescan_all(ob);
			break;
		}
		for (int i = 0; i < n; i++)
		{
			if (events[i].kind == ENT_EVENT_OBJECT)
				take_object(ob, &events[i]);
			else if (events[i].kind == ENT_EVENT_RUN)
				take_run(ob, &events[i]);
			else if (events[i].kind == ENT_EVENT_REQUEST)
				ob->requests_due = true;
			else
				take_owner(ob, &events[i]);
		}
		if (keys)
			pfree(keys);
	} while (n == READ_EVENTS);
	if (ob->adverts_due && !due)
		ob->adverts_position = ob->ring_position;
}

/* ---- what is durable at the peer ---- */

/* Has the peer got what it missed before this link? */
static bool
caught_up(EntOutbound *ob)
{
	return ob->answered_once && ob->scans == 0 &&
		ent_outbound_min_position(ob) > ob->catch_position &&
		ent_outbound_flight_position(ob) > ob->catch_position;
}

/* Is it on its way to the peer that a table is complete? */
static bool
completes_table(EntOutbound *ob)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
		if (dlist_container(EntOutFlight, node, iter.cur)->arrears)
			return true;
	return false;
}

void
ent_outbound_show(EntOutbound *ob)
{
	EntPeerSlot *slot = ob->slot;
	int64		oldest = Min(ent_queue_oldest(ob->queue),
							 ent_queue_oldest(ob->together));

	oldest = Min(oldest, ent_queue_oldest(ob->large));
	oldest = Min(oldest, ent_queue_oldest(ob->behind));
	oldest = Min(oldest, ent_outbound_flight_oldest(ob));
	if (ob->transit != NULL)
		oldest = Min(oldest, ob->transit->flight->oldest);
	pg_atomic_write_u64(&slot->queued, ent_outbound_queued(ob));
	pg_atomic_write_u64(&slot->oldest, oldest == PG_INT64_MAX ? 0 : oldest);
	if (caught_up(ob))
		pg_atomic_write_u64(&slot->stale_since, 0);
	if (ob->copying)
		ent_outbound_show_copies(ob, caught_up(ob));
	if (ob->answered_once)
	{
		uint64		position = Min(ent_outbound_settled(ob),
								   ent_outbound_flight_position(ob));

		/*
		 * What a table that appeared there lacks is of old; so is what notes
		 * speak of that have not been looked at.
		 */
		if (ob->resend_due || ob->owed_due || !dlist_is_empty(&ob->arrears) ||
			completes_table(ob))
			position = 0;
		ent_shmem_acked(slot, position);
	}
}

/* Everything in the ring before this position has been built into batches. */
uint64
ent_outbound_settled(EntOutbound *ob)
{
	uint64		position = ob->ring_position;
	uint64		queued = ent_outbound_min_position(ob);

	if (queued < position)
		position = queued;
	if (ob->scans > 0 && ob->scan_position < position)
		position = ob->scan_position;
	if (ob->adverts_due && ob->adverts_position < position)
		position = ob->adverts_position;
	return position;
}

static bool
claims_ready(EntOutbound *ob)
{
	return !dlist_is_empty(&ob->claiming) &&
		TimestampDifferenceExceeds(ob->claimed_at, GetCurrentTimestamp(), 1000);
}

/* Does a drain wait for the peer to be heard? */
static bool
is_asked(const EntOutbound *ob)
{
	return pg_atomic_read_u64(&ob->slot->asked) != ob->asked;
}

bool
ent_outbound_poll(EntOutbound *ob)
{
	EntDatabaseSlot *db = ent_shmem_database(false);
	uint64		routes = db ? pg_atomic_read_u64(&db->routes) : 0;

	if (routes != ob->routes)
	{
		ob->routes = routes;
		if (!ob->adverts_due)
			ob->adverts_position = ob->ring_position;
		ob->adverts_due = true;
		ob->resend_due = true;
		ob->requests_due = true;
	}
	ent_outbound_read_ring(ob);
	ent_outbound_show(ob);
	/* what it has must be known before anything else is said */
	if (!ob->answered_once && !dlist_is_empty(&ob->flights))
		return false;
	return ent_outbound_queued(ob) > 0 || ob->adverts_due ||
		(ob->filters_due && ob->wishes_heard) ||
		((ob->owed_due || ob->resend_due || ob->requests_due) && ob->answered_once) ||
		ob->scans > 0 || ent_outbound_presents_due(ob) || ob->slot->nudge ||
		is_asked(ob) || ent_outbound_show_due(ob) ||
		claims_ready(ob);
}

size_t
ent_outbound_backlog(const EntOutbound *ob)
{
	return ent_outbound_queued(ob) * Max(ob->row_bytes, 16);
}

/* ---- debts ---- */

/*
 * What the peer takes by another way it is owed there, if at all; what comes
 * from itself, not at all.
 */
static void
remit_owed(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;
	Datum	   *owners = palloc((hash_get_num_entries(ob->owners) + 1) * sizeof(Datum));
	Datum		args[2] = {Int32GetDatum(ob->peer)};
	int			n = 0;

	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		if (o->answered && !o->wanted)
			owners[n++] = Int32GetDatum(o->no);
	args[1] = ent_query_array(INT4OID, owners, NULL, n);
	ent_query_run(&remit_query, args, NULL, SPI_OK_DELETE, NULL);
	if (SPI_processed > 0)
		ent_outbound_complete(ob);
}

static void
load_owed(EntOutbound *ob)
{
	Datum		args[1] = {Int32GetDatum(ob->peer)};

	remit_owed(ob);
	ent_query_run(&owed_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int32		rel = ent_query_int4(row, 1, NULL);
		EntOutTable *t = hash_search(ob->tables, &rel, HASH_FIND, NULL);
		bool		null;
		bytea	   *key = DatumGetByteaPP(ent_query_datum(row, 3, &null));
		EntQueueEntry e = {
			.rel = rel, .owner = ent_query_int4(row, 2, NULL),
			.flags = ENT_ROW_REFRESH | ENT_ROW_LATE,
			.position = ob->ring_position,
			.newest = ent_query_int8(row, 4, NULL),
			.stale_at = GetCurrentTimestamp(),
			.keylen = VARSIZE_ANY_EXHDR(key), .key = (uint8 *) VARDATA_ANY(key)
		};
		EntOutOwner *o = hash_search(ob->owners, &e.owner, HASH_FIND, NULL);

		if (o && o->wanted && t && t->known)
			ent_outbound_push(ob, t, &e);
	}
	SPI_freetuptable(SPI_tuptable);
	ob->owed_due = false;
}

/* ---- building a batch ---- */

static void *
writer_grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc_huge(old, size) : MemoryContextAllocHuge(ctx, size);
}

/*
 * Does it tell nothing but state, which was read when the log ended at shown_at? Then
 * what has been written to the log since, by vacuuming on the way, say, need not be
 * waited for.
 */
static bool
tells_state_only(const bytea *batch)
{
	EntReader	r,
				body;
	EntWireHeader header;
	unsigned	type;

	ent_wire_reader_init(&r, VARDATA(batch), VARSIZE(batch) - VARHDRSZ);
	ent_wire_read_header(&r, &header);
	while (ent_wire_read_section(&r, &type, &body))
		if (type != ENT_SECTION_OBJECTS && type != ENT_SECTION_CLAIM &&
			type != ENT_SECTION_CLAIM_GAPS)
			return false;
	return true;
}

XLogRecPtr
ent_outbound_durable_to(const EntOutbound *ob)
{
	return ob->durable_to;
}

bytea *
ent_outbound_build(EntOutbound *ob, size_t max_bytes, bool heartbeat)
{
	EntWireAllocator alloc = {writer_grow, CurrentMemoryContext};
	EntWireHeader header = {
		.version = ENT_WIRE_VERSION, .number = ob->number + 1,
		.heard = ob->number
	};
	EntOutFlight *f = ob->flight;
	EntWriter	w;
	size_t		empty;
	bool		nudge = ob->slot->nudge;

	/* what was locked when it was looked for wakes nobody */
	ob->requests_due |= heartbeat;
	/* before the rights: who asks wants to know what they have become by then */
	f->asked = pg_atomic_read_u64(&ob->slot->asked);
	ent_relinfo_refresh();
	ent_outbound_look_at_rights(ob);
	if (!dlist_is_empty(&ob->flights))
		header.heard = dlist_head_element(EntOutFlight, node, &ob->flights)->number - 1;
	ent_wire_writer_init(&w, alloc);
	/* room for the header of a bytea: the batch is returned in place */
	ent_wire_write_raw(&w, "\0\0\0\0", VARHDRSZ);
	ent_wire_write_header(&w, &header);
	empty = w.len;

	ob->shown_at = InvalidXLogRecPtr;
	f->arrears = false;
	f->min_position = UINT64_MAX;
	f->oldest = PG_INT64_MAX;
	if (ob->tables_version != ent_relinfo_version())
	{
		ob->tables_version = ent_relinfo_version();
		if (!ob->adverts_due)
			ob->adverts_position = ob->ring_position;
		ob->adverts_due = true;
	}
	if (ob->adverts_due)
	{
		f->min_position = Min(ob->adverts_position, ob->ring_position);
		ent_outbound_advertise(ob, &w);
		ob->requests_due = ob->again_due = true;
	}
	if (ob->filters_due)
		ent_outbound_write_filter_states(ob, &w);
	if (ob->owed_due && ob->answered_once)
		load_owed(ob);
	if (ob->resend_due && ob->answered_once)
		ent_outbound_load_resend(ob);
	if ((ob->requests_due || ob->answers_held) && ob->answered_once)
		ent_outbound_write_requests(ob, &w, max_bytes);
	ent_outbound_scan(ob);
	ent_outbound_ask_cut(ob);
	ent_outbound_write_presents(ob, &w, max_bytes);
	ent_outbound_write_objects(ob, &w, max_bytes);
	ent_outbound_write_fragments(ob, &w, max_bytes);
	ent_outbound_write_together(ob, &w);
	ent_refusal_write(ob->peer, ob->slot);	/* hooks that failed */
	ent_outbound_write_claims(ob, &w);
	if (ob->answers_held && ob->answered_once)
		ent_outbound_write_answers(ob, &w, max_bytes);
	if (nudge)
	{
		size_t		mark = ent_wire_open_section(&w, ENT_SECTION_NUDGE);

		ent_wire_close_section(&w, mark);
		ob->slot->nudge = false;
	}
	/*
	 * What this batch tells counts as in flight, not as acknowledged. An empty
	 * one keeps the link alive while much is looked at in vain.
	 */
	if (w.len == empty && !heartbeat && !ob->looked && !is_asked(ob))
	{
		ent_outbound_show(ob);
		pfree(w.data);
		return NULL;
	}
	f->number = ++ob->number;
	ob->asked = f->asked;
	dlist_push_tail(&ob->flights, &f->node);
	ent_outbound_begin_flight(ob);
	ent_outbound_show(ob);
	pg_atomic_fetch_add_u64(&ob->slot->batches_sent, 1);
	SET_VARSIZE(w.data, w.len);
	ob->durable_to = TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		!tells_state_only((bytea *) w.data) ? InvalidXLogRecPtr : ob->shown_at;
	return (bytea *) w.data;
}
