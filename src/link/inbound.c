/*
 * link/inbound.c
 *	  The receiving end of one direction of a link.
 *
 * The conductor of the data's way in: batch -> decode -> authorize -> apply
 * -> answer, all of a batch in one transaction, so that a have is durable
 * together with what it covers (I3). What comes from a peer is data: numbers are
 * looked up, never trusted; an owner's state is taken only from its route.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "base/ring.h"
#include "base/wake.h"
#include "guard/show.h"
#include "link/inbound_private.h"
#include "store/life.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/value.h"

#define MAX_AGAIN		1000	/* parked objects asked for at a time */
#define MAX_HELPED		100000	/* ... and because something has come */

static EntQuery parked_query = {
	"SELECT p.rel, o.id, p.key, p.foreign_key FROM entanglement.parked p "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) p.owner "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1 AND p.sqlstate "
	"OPERATOR(pg_catalog.<>) ALL (ARRAY['22P05', '22021']::pg_catalog.text[]) "
	"AND NOT (p.foreign_key AND p.sqlstate OPERATOR(pg_catalog.=) '54000') "
	"ORDER BY p.tries, p.since LIMIT $2",
	2, {INT4OID, INT8OID}, NULL
};
static EntQuery helped_query = {
	"SELECT p.rel, o.id, p.key, p.foreign_key FROM entanglement.parked p "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) p.owner "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1 "
	"AND p.waits_for OPERATOR(pg_catalog.=) ANY ($3) LIMIT $2",
	3, {INT4OID, INT8OID, INT8ARRAYOID}, NULL
};

EntInbound *
ent_inbound_create(int32 peer, Oid role, EntPeerSlot *slot)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "entanglement inbound",
												  ALLOCSET_DEFAULT_SIZES);
	EntInbound *ib = MemoryContextAllocZero(context, sizeof(EntInbound));
	HASHCTL		ctl = {.keysize = sizeof(uint32), .hcxt = context};

	ib->context = context;
	ib->peer = peer;
	ib->role = role;
	ib->slot = slot;
	ib->arrears_due = true;
	ib->subscriptions_due = true;
	ctl.entrysize = sizeof(EntInOwner);
	ib->owners = hash_create("entanglement owners received", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(EntInTable);
	ib->tables = hash_create("entanglement tables received", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ib->asked = ent_inbound_asked_create(context);
	return ib;
}

void
ent_inbound_meanwhile(EntInbound *ib, void (*fn) (void *arg), void *arg)
{
	ib->meanwhile = fn;
	ib->meanwhile_arg = arg;
}

void
ent_inbound_destroy(EntInbound *ib)
{
	MemoryContextDelete(ib->context);
}

void
ent_inbound_check(EntReader *r, const char *what)
{
	if (r->error != ENT_WIRE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("In %s: %s.", what, ent_wire_error_text(r->error))));
}

/* ---- authorization ---- */

void
ent_inbound_violation(EntRefusal kind, EntInOwner *in, int32 rel)
{
	ent_refusal_note(kind, in->known, rel, ent_name_from_wire(in->name));
}

/*
 * Two peers may speak for an owner while its route changes. What one of them
 * claims and what the other one stores must come one after the other, else an
 * object could come late without anybody noticing; and what was under way
 * when the route changed may be long dead here. A peer that is not the route any
 * more is told so by the answer.
 */
static void
hold_owner(EntInbound *ib, EntInOwner *in, const EntOwner *o)
{
	if (o == NULL || o->gone)
	{
		ent_inbound_ignore(in);
		return;
	}
	in->epoch = o->epoch;
	in->have = o->serial;
	in->told = o->told;
	if (!in->wanted || o->peer == ib->peer)
		return;
	in->wanted = in->answered = false;
	in->ignored = true;
}

/* Number of the owner a section speaks of, as we know it; else 0. */
static int32
owner_spoken_of(EntInbound *ib, unsigned type, EntReader body)
{
	uint32		number;
	EntInOwner *in;

	switch (type)
	{
		case ENT_SECTION_OBJECTS:
			(void) ent_wire_read_varint(&body); /* table */
			break;
		case ENT_SECTION_PRESENT:
		case ENT_SECTION_CLAIM:
		case ENT_SECTION_CLAIM_GAPS:
		case ENT_SECTION_ARREARS_DONE:
		case ENT_SECTION_FRAGMENT:
			break;
		default:
			return 0;
	}
	number = (uint32) ent_wire_read_bounded(&body, ENT_WIRE_MAX_OWNERS);
	if (body.error != ENT_WIRE_OK)
		return 0;
	in = hash_search(ib->owners, &number, HASH_FIND, NULL);
	return in ? in->no : 0;
}

static EntOwner *
held_as(List *held, int32 no)
{
	ListCell   *lc;

	foreach(lc, held)
	{
		EntOwner   *o = lfirst(lc);

		if (o->no == no)
			return o;
	}
	return NULL;
}

/*
 * Locks the owners that the batch speaks of, or all if routes may change, before
 * anything else and in one order: sessions of several peers never wait for
 * each other's owners in a circle.
 */
static void
hold_owners(EntInbound *ib, EntReader r, bool all)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;
	EntReader	body;
	unsigned	type;
	Bitmapset  *nos = NULL;
	List	   *held = NIL;
	int			no;

	while (ent_wire_read_section(&r, &type, &body))
	{
		all |= type == ENT_SECTION_OWNER || type == ENT_SECTION_GONE ||
			type == ENT_SECTION_HOMES;
		no = owner_spoken_of(ib, type, body);
		if (no != 0)
			nos = bms_add_member(nos, no);
	}
	if (all)
		ent_owner_hold_all();
	else if (nos != NULL)
		held = ent_owner_hold(nos);
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (in->no != 0 && (all || bms_is_member(in->no, nos)))
			hold_owner(ib, in, all ? ent_owner_get(in->no) : held_as(held, in->no));
}

/*
 * What is under way while a route changes is no violation: only when the peer
 * has been told that we do not want it, and sends it all the same.
 */
EntInOwner *
ent_inbound_authorized_owner(EntInbound *ib, uint32 number, int32 rel)
{
	EntInOwner *in = hash_search(ib->owners, &number, HASH_FIND, NULL);

	if (in == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("Owner number %u was never announced.", number)));
	/*
	 * What left before the sender had heard is passed over: it will begin again
	 * from the have that it was told.
	 */
	if (ib->heard < in->told_in)
		return NULL;
	if (in->no != 0 && in->wanted)
		return in;
	if (!in->told_wanted)
		ent_inbound_violation(in->local ? ENT_REFUSED_LOCAL :
							  in->sender_epoch < in->epoch ?
							  ENT_REFUSED_EPOCH : ENT_REFUSED_SPEAKER, in, rel);
	return NULL;
}

/*
 * A node on the way may hold copies that the new epoch has not come to yet; the
 * home may not, nor does anybody claim in an epoch that he has left.
 */
bool
ent_inbound_epoch_counts(EntInbound *ib, EntInOwner *in, uint32 epoch,
						 int32 rel)
{
	if (epoch <= PG_INT32_MAX && (int32) epoch >= in->epoch)
		return true;
	if (in->distance == 0 || rel == 0)
		ent_inbound_violation(ENT_REFUSED_EPOCH, in, rel);
	return false;
}

EntInTable *
ent_inbound_announced_table(EntInbound *ib, uint32 number)
{
	EntInTable *t = hash_search(ib->tables, &number, HASH_FIND, NULL);

	if (t == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("Table number %u was never announced.", number)));
	return t;
}

/* ---- haves ---- */

static bool
newer(int32 epoch, int64 serial, int32 than_epoch, int64 than_serial)
{
	return epoch > than_epoch || (epoch == than_epoch && serial > than_serial);
}

/* gaps: what it covers is not all here yet, the sender will send the rest. */
static void
take_claim(EntInbound *ib, EntReader *body, bool gaps)
{
	EntWireClaim c;
	EntInOwner *in;
	EntEvent	ev = {.kind = ENT_EVENT_OWNER};

	ent_wire_read_claim(body, &c);
	ent_inbound_check(body, "claim");
	in = ent_inbound_authorized_owner(ib, c.owner, 0);
	if (in == NULL || !ent_inbound_epoch_counts(ib, in, c.epoch, 0))
		return;
	if (newer(c.epoch, c.serial, in->base_epoch, in->base_have))
	{
		in->base_epoch = c.epoch;
		in->base_have = c.serial;
	}
	if (newer(in->epoch, in->have, c.epoch, c.serial))
		return;
	ent_owner_set_have(in->no, c.epoch, c.serial, gaps);
	ev.owner = in->no;
	if (in->epoch != (int32) c.epoch)
	{
		ent_inbound_note_ancestors(in, c.epoch);
		ent_wake_post_at_commit(&ev);	/* to be offered anew */
	}
	in->told = in->epoch == (int32) c.epoch ? Max(in->told, c.serial) : c.serial;
	in->epoch = c.epoch;
	in->have = c.serial;
	ib->arrears_due |= in->behind;
	if (ent_owner_in_arrears(in->no))
		return;
	ev.serial = c.serial;
	ent_wake_post_at_commit(&ev);
}

void
ent_inbound_may_claim(int32 owner)
{
	EntOwner   *o = ent_owner_get(owner);
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = owner};

	ent_wake_routes_at_commit();
	if (o == NULL || o->arrears || o->serial == 0)
		return;
	ev.serial = o->serial;
	ent_wake_post_at_commit(&ev);
}

static uint64
routes_now(void)
{
	EntDatabaseSlot *db = ent_shmem_database(false);

	return db ? pg_atomic_read_u64(&db->routes) : 0;
}

/* ---- a batch ---- */

static void
take_section(EntInbound *ib, unsigned type, EntReader *body)
{
	switch (type)
	{
		case ENT_SECTION_OWNER:
			ent_inbound_take_owner(ib, body);
			break;
		case ENT_SECTION_TABLE:
			ent_inbound_take_table(ib, body);
			break;
		case ENT_SECTION_CLAIM:
			take_claim(ib, body, false);
			break;
		case ENT_SECTION_CLAIM_GAPS:
			take_claim(ib, body, true);
			break;
		case ENT_SECTION_ARREARS_DONE:
			ent_inbound_take_arrears_done(ib, body);
			break;
		case ENT_SECTION_FRAGMENT:
			ent_inbound_take_fragment(ib, body);
			break;
		case ENT_SECTION_REQUEST:
			ent_inbound_take_request(ib, body);
			break;
		case ENT_SECTION_RESPONSE:
			ent_inbound_take_response(ib, body);
			break;
		case ENT_SECTION_GONE:
			ent_inbound_take_gone(ib, body);
			break;
		case ENT_SECTION_HOMES:
			ent_inbound_take_homes(ib, body);
			break;
		case ENT_SECTION_FILTER_STATE:
			ent_inbound_take_filter_state(ib, body);
			break;
		case ENT_SECTION_NUDGE:
			ib->slot->called = true;
			if (ib->slot->sender.latch)
				SetLatch(ib->slot->sender.latch);
			break;
		default:
			if (type & ENT_SECTION_OPTIONAL)
				break;
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("batch from peer has a section of unknown type %u", type),
					 errhint("The peer may run a newer version of entanglement.")));
	}
}

/* Sections with state are taken as far as they follow each other. */
static void
take_state(EntInbound *ib, EntReader *r, unsigned type, EntReader body)
{
	int			n = 0,
				max = 16;
	EntInSection *sections = palloc(max * sizeof(EntInSection));
	EntReader	next;

	do
	{
		if (n == max)
			sections = repalloc_huge(sections, (max *= 2) * sizeof(EntInSection));
		sections[n].type = type;
		sections[n++].body = body;
		next = *r;
		if (!ent_wire_read_section(&next, &type, &body) ||
			!ent_inbound_is_state(type))
			break;
		*r = next;
	} while (true);
	ent_inbound_take_run(ib, sections, n);
}

/* ---- the answer ---- */

static void *
writer_grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc_huge(old, size) : MemoryContextAllocHuge(ctx, size);
}

static void
write_again(EntInbound *ib, EntWriter *w)
{
	ListCell   *lc;

	foreach(lc, ib->again)
	{
		EntInAgain *in = lfirst(lc);
		EntWireAgain a = {.table = in->table, .owner = in->owner,
		.key = in->key, .keylen = in->keylen};

		ent_wire_write_again(w, &a);
	}
	ib->again = NIL;
}

bool
ent_inbound_sender_numbers(EntInbound *ib, const pg_uuid_t *owner, int32 rel,
						   EntWireAgain *a)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;
	EntInTable *t;
	bool		owner_found = false,
				table_found = false;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (in->wanted && memcmp(&in->id, owner, sizeof(pg_uuid_t)) == 0)
		{
			a->owner = in->number;
			owner_found = true;
		}
	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known && t->rel == rel)
		{
			a->table = t->number;
			table_found = true;
		}
	return owner_found && table_found;
}

static bool
parked_due(EntInbound *ib)
{
	return TimestampDifferenceExceeds(ib->parked_at, GetCurrentTimestamp(),
									  ent_retry_parked);
}

/* Asks again for the parked objects that a query finds. */
static void
write_parked(EntInbound *ib, EntWriter *w, EntQuery *query, int64 max,
			 Datum which)
{
	Datum		args[3] = {Int32GetDatum(ib->peer), Int64GetDatum(max), which};

	ent_query_run(query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		null;
		int32		no = ent_query_int4(row, 1, NULL);
		EntRelation *rel = ent_relinfo_get(no);
		bytea	   *key = DatumGetByteaPP(ent_query_datum(row, 3, &null));
		EntWireAgain a;

		if (rel == NULL ||
			!ent_inbound_sender_numbers(ib, DatumGetUUIDP(ent_query_datum(row, 2, &null)),
										no, &a))
			continue;
		a.key = (uint8 *) VARDATA_ANY(key);
		a.keylen = VARSIZE_ANY_EXHDR(key);
		if (!ent_query_bool(row, 4))	/* else it is as the peer sent it */
			a.key = ent_key_to_wire(rel, a.key, a.keylen, &a.keylen);
		ent_wire_write_again(w, &a);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* All of them when it is time, else those for which something has come. */
static void
ask_for_parked(EntInbound *ib, EntWriter *w, bool all)
{
	ListCell   *lc;

	if (all)
	{
		write_parked(ib, w, &parked_query, MAX_AGAIN, (Datum) 0);
		ib->parked_at = GetCurrentTimestamp();
	}
	else
		foreach(lc, ib->helped)
			write_parked(ib, w, &helped_query, MAX_HELPED,
						 PointerGetDatum(lfirst(lc)));
	ib->helped = NIL;
	ib->ask_all = false;
}

static bytea *
build_answer(EntInbound *ib, uint64 number, uint64 routes, uint64 version)
{
	EntWireAllocator alloc = {writer_grow, CurrentMemoryContext};
	EntWireHeader header = {
		.version = ENT_WIRE_VERSION, .number = number, .heard = number
	};
	EntWriter	w;
	bool		ask;
	bool		changed = routes != ib->routes || version != ib->tables_version;

	ent_wire_writer_init(&w, alloc);
	ent_wire_write_raw(&w, "\0\0\0\0", VARHDRSZ);
	ent_wire_write_header(&w, &header);
	if (changed)
	{
		ib->routes = routes;
		ib->tables_version = version;
		ib->subscriptions_due = true;
		ent_inbound_reconsider(ib);
	}
	/* before an owner is wanted: of what he brings nothing else is to come */
	ent_inbound_write_subscriptions(ib, &w);
	ent_inbound_answer_routes(ib, &w);
	write_again(ib, &w);
	ask = ib->announced && (changed || ib->ask_all || parked_due(ib));
	if (ask)
		ent_inbound_write_confirms(ib, &w);
	ask_for_parked(ib, &w, ask);
	SET_VARSIZE(w.data, w.len);
	pg_atomic_fetch_add_u64(&ib->slot->bytes_sent, w.len - VARHDRSZ);
	return (bytea *) w.data;
}

/*
 * What users' deferred triggers would do at commit they do at the end of each
 * statement, as the peer's role: at commit, a dialer is a superuser.
 */
static void
defer_nothing(void)
{
	ConstraintsSetStmt all = {.type = T_ConstraintsSetStmt};

	AfterTriggerSetState(&all);
}

bytea *
ent_inbound_apply(EntInbound *ib, const void *data, size_t len)
{
	EntReader	r,
				body;
	EntWireHeader header;
	MemoryContext section;
	unsigned	type;
	uint64		routes,
				version;

	ent_wire_reader_init(&r, data, len);
	ent_wire_read_header(&r, &header);
	ent_inbound_check(&r, "header");
	if (header.version != ENT_WIRE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("batch from peer is of protocol version %u, not %d",
						header.version, ENT_WIRE_VERSION)));
	if (header.number != ib->number + 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("batch from peer is out of order"),
				 errdetail("It has number %llu; %llu was expected.",
						   (unsigned long long) header.number,
						   (unsigned long long) ib->number + 1)));
	ent_relinfo_refresh();
	ent_show_settle_if_changed();
	defer_nothing();
	ib->heard = header.heard;
	ib->requests = ib->ends = 0;
	ib->batch = CurrentMemoryContext;
	ib->again = ib->helped = NIL;
	ib->ask_all = false;
	section = AllocSetContextCreate(ib->batch, "entanglement section",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(section);
	/* what changes from here on is for the next batch: not all owners may be held */
	routes = routes_now();
	version = ent_relinfo_version();
	hold_owners(ib, r, ib->number == 0 || routes != ib->routes ||
				version != ib->tables_version);
	while (ent_wire_read_section(&r, &type, &body))
	{
		CHECK_FOR_INTERRUPTS();
		if (ent_inbound_is_state(type))
			take_state(ib, &r, type, body);
		else
			take_section(ib, type, &body);
		MemoryContextReset(section);
	}
	MemoryContextSwitchTo(ib->batch);
	MemoryContextDelete(section);
	ent_inbound_check(&r, "sections");
	if (header.number == 1)
		ent_inbound_first_offers(ib);
	ent_refusal_write(ib->peer, ib->slot);
	ib->number = header.number;
	pg_atomic_fetch_add_u64(&ib->slot->batches_received, 1);
	return build_answer(ib, header.number, routes, version);
}

bool
ent_inbound_has_news(EntInbound *ib)
{
	return ib->number > 0 &&
		(routes_now() != ib->routes || (ib->announced && parked_due(ib)));
}

void
ent_inbound_begin(EntInbound *ib)
{
	ib->newest = ent_life_newest();
}

bytea *
ent_inbound_answer(EntInbound *ib)
{
	uint64		routes = routes_now(),
				version;

	ent_relinfo_refresh();
	version = ent_relinfo_version();
	if (routes != ib->routes || version != ib->tables_version)
		ent_owner_hold_all();
	return build_answer(ib, ib->number, routes, version);
}
