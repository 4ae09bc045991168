/*
 * link/outanswer.c
 *	  The sending end: what the receiver answers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "link/outbound_private.h"
#include "rule/route.h"
#include "store/epoch.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/refusal.h"
#include "store/seek.h"
#include "store/shown.h"
#include "store/value.h"

#define MAX_LOST_EPOCHS		100		/* a peer that claims more is not believed */
#define SAVE_INTERVAL_MS	5000	/* haves are written at most this often */
#define SEEK_REST_MS		1000	/* between two that a peer has us pass on */
#define MAX_ASKED			1000000 /* a peer may have asked for so many objects */
#define MAX_ASKED_BYTES		(256 * 1024 * 1024)	/* ... with such long keys, and
												 * not got them; it asks again later */

static EntQuery save_query = {
	"INSERT INTO entanglement.peer_owner (peer, owner, epoch, have) "
	"SELECT $1, u.owner, u.epoch, u.have FROM unnest($2, $3, $4) AS u(owner, epoch, have) "
	"WHERE EXISTS (SELECT 1 FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) u.owner) "
	"ON CONFLICT (peer, owner) DO UPDATE SET epoch = EXCLUDED.epoch, have = EXCLUDED.have",
	4, {INT4OID, INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID}, NULL
};

void
ent_outbound_check(EntReader *r, const char *what)
{
	if (r->error != ENT_WIRE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed answer from peer"),
				 errdetail("In %s: %s.", what, ent_wire_error_text(r->error))));
}

/*
 * The peer holds what we do not know of a local owner: this database was restored from
 * an older state. A new epoch puts everybody right. That is not cheap, and happens once
 * to a link if it is true.
 */
static void
begin_epoch(EntOutbound *ob, EntOutOwner *o, EntOwner *owner, uint32 epoch,
			int64 serial)
{
	ereport(LOG,
			(errmsg("owner \"%s\" starts epoch %u: a peer holds newer state of it than this node",
					owner->name, epoch + 1),
			 errdetail("The peer has serial %lld of epoch %u; here the newest is %lld of epoch %d. This database was restored from an older state.",
					   (long long) serial, epoch,
					   (long long) owner->serial, owner->epoch)));
	ent_epoch_begin(owner->no, epoch + 1);
	o->lost_history = true;
	ob->adverts_due = true;
	ob->adverts_position = ob->ring_position;
}

/* Serials that we may have given out without remembering it. */
static int64
at_risk(void)
{
	EntDatabaseSlot *slot = ent_shmem_database(false);

	return ent_shared->crashed && !(slot && slot->refolded) ? ENT_SERIALS_AT_RISK : 0;
}

/* Is it more than we ever gave out? */
static bool
history_lost(EntOutbound *ob, EntOutOwner *o, EntOwner *owner,
			 const EntWireWant *want)
{
	if (!owner->local || o->lost_history || want->epoch < owner->epoch ||
		(want->epoch == owner->epoch && want->have <= owner->serial + at_risk()) ||
		want->epoch > (uint32) owner->epoch + MAX_LOST_EPOCHS)
		return false;
	begin_epoch(ob, o, owner, want->epoch, want->have);
	return true;
}

/* Serials have been given out again: only the object shows it. */
static void
take_kept(EntOutbound *ob, EntReader *r)
{
	EntWireClaim kept;
	EntOutOwner *o;
	EntOwner   *owner;
	int32		no;

	ent_wire_read_claim(r, &kept);
	ent_outbound_check(r, "kept");
	no = kept.owner;
	o = hash_search(ob->owners, &no, HASH_FIND, NULL);
	owner = o ? ent_owner_get(no) : NULL;
	if (owner != NULL && owner->local && !o->lost_history &&
		kept.epoch == (uint32) owner->epoch)
		begin_epoch(ob, o, owner, kept.epoch, kept.serial);
}

static void
take_want(EntOutbound *ob, EntReader *r)
{
	EntWireWant want;
	EntOutOwner *o;
	EntOwner   *owner;
	int32		no;

	ent_wire_read_want(r, &want);
	ent_outbound_check(r, "want");
	no = want.owner;
	o = hash_search(ob->owners, &no, HASH_FIND, NULL);
	if (o == NULL)
		return;
	/* what was owed while this was not known can be told from what is not */
	ent_outbound_wishes_heard(ob);
	ob->owed_due |= !o->answered || want.wanted != o->wanted;
	ob->resend_due |= !o->answered;
	o->answered = true;
	owner = ent_owner_get(no);
	if (owner == NULL || history_lost(ob, o, owner, &want))
		return;
	if (!want.wanted)
		ent_outbound_unwant(ob, o);
	/* a claim of this batch may have been ignored: this is what it has */
	ent_outbound_void_claims(ob, o, false);
	/* by another way it may have heard more of a remote owner than we have */
	o->claimed = want.epoch == o->epoch ? want.have : 0;
	o->unsaved = true;
	ob->saved_at = 0;
	if (!want.wanted || o->wanted)
		return;
	o->wanted = true;
	o->gapped = !owner->local && want.have > 0;	/* as far as is known */
	o->withheld = owner->arrears;
	if (want.have > 0 && (want.epoch != o->epoch || want.have < owner->pruned))
		ent_outbound_start_presents(ob, o);
	ent_outbound_start_scan(ob, o, o->claimed,
							Min(ent_outbound_flight_position(ob), ob->ring_position));
}

EntOutTable *
ent_outbound_asked_table(EntOutbound *ob, int32 no)
{
	EntOutTable *t = hash_search(ob->tables, &no, HASH_FIND, NULL);

	if (t != NULL && t->named)
		return t;
	ent_refusal_note(ENT_REFUSED_ASK, 0, t ? no : 0, psprintf("%d", no));
	return NULL;
}

static void
take_arrears(EntOutbound *ob, EntReader *r)
{
	EntWireArrears a;
	int32		owner,
				table;

	ent_wire_read_arrears(r, &a);
	ent_outbound_check(r, "arrears");
	owner = a.owner;
	table = a.table;
	if (hash_search(ob->owners, &owner, HASH_FIND, NULL) == NULL ||
		ent_outbound_asked_table(ob, table) == NULL)
		return;					/* of nothing we ever offered */
	(void) ent_outbound_start_arrears(ob, a.owner, a.table,
									  Min(ent_outbound_flight_position(ob), ob->ring_position));
}

static void
take_table_state(EntOutbound *ob, EntReader *r)
{
	EntWireTableState s;
	EntOutTable *t;
	int32		no;

	ent_wire_read_table_state(r, &s);
	ent_outbound_check(r, "table state");
	no = s.table;
	t = hash_search(ob->tables, &no, HASH_FIND, NULL);
	if (t && t->announced)
	{
		ob->owed_due |= s.known && !t->known;
		t->known = s.known;
		t->unknown = !s.known;
		if (t->unknown)
			ent_shown_forget(ob->peer, no);
		ent_outbound_look_anew(ob, no);
	}
	ob->requests_due = true;
}

void
ent_outbound_ask_again(EntOutbound *ob, EntOutTable *t, int32 owner, bytea *key)
{
	EntQueueEntry e = {
		.rel = t->no, .owner = owner,
		.flags = ENT_ROW_REFRESH | ENT_ROW_LATE | ENT_OUT_ASKED,
		.position = ob->ring_position,
		.stale_at = GetCurrentTimestamp(),
		.keylen = VARSIZE_ANY_EXHDR(key), .key = (uint8 *) VARDATA_ANY(key)
	};

	if (ent_outbound_queued(ob) < MAX_ASKED &&
		ent_queue_memory(ob->queue) + ent_queue_memory(ob->together) < MAX_ASKED_BYTES)
		ent_outbound_push(ob, t, &e);
}

static void
take_again(EntOutbound *ob, EntReader *r)
{
	EntWireAgain a;
	EntRelation *rel;
	EntOutTable *t;
	Datum		values[ENT_WIRE_MAX_KEYS];
	bytea	   *key;

	ent_wire_read_again(r, &a);
	ent_outbound_check(r, "again");
	t = ent_outbound_asked_table(ob, a.table);
	rel = ent_relinfo_get(a.table);
	if (t == NULL || !t->known || rel == NULL)
		return;
	key = ent_key_from_wire(rel, ob->role, a.key, a.keylen, values);
	ent_outbound_ask_again(ob, t, a.owner, key);
}

/* ---- what it seeks ---- */

static void
take_seek(EntOutbound *ob, EntReader *r)
{
	EntWireClaim seek;
	EntOutOwner *o;
	int32		no;

	ent_wire_read_claim(r, &seek);
	ent_outbound_check(r, "seek");
	no = seek.owner;
	o = hash_search(ob->owners, &no, HASH_FIND, NULL);
	if (o == NULL || !o->offered || seek.epoch == 0)
		return;
	if (!ent_route_farther(o->sought_epoch, o->sought_serial, seek.epoch, seek.serial))
	{
		o->sought_epoch = seek.epoch;
		o->sought_serial = seek.serial;
	}
	o->sought = ob->seeks_due = true;
}

static int
by_number(const ListCell *a, const ListCell *b)
{
	return ((EntOutOwner *) lfirst(a))->no - ((EntOutOwner *) lfirst(b))->no;
}

/* An offer beyond that: made at once, or asked of who can make one. */
static void
serve_seek(EntOutbound *ob, EntOutOwner *o)
{
	EntOwner   *owner = ent_owner_get(o->no);

	o->sought = false;
	if (owner == NULL)
		return;
	if (ent_route_farther(owner->epoch, ent_owner_reached(owner),
						  o->sought_epoch, o->sought_serial))
	{
		if (!ob->adverts_due)
			ob->adverts_position = ob->ring_position;
		ob->adverts_due = true;
	}
	else if (owner->peer != ob->peer)
	{
		ent_seek_note(owner, o->sought_epoch, o->sought_serial);
		o->passed_on_at = GetCurrentTimestamp();
	}
}

/* Each costs a serial, and what goes with it everywhere: not again at once. */
static bool
seek_rests(EntOutOwner *o)
{
	return o->passed_on_at != 0 &&
		!TimestampDifferenceExceeds(o->passed_on_at, GetCurrentTimestamp(),
									SEEK_REST_MS);
}

/* In one order: two links may be asked for the same owners. */
static void
serve_seeks(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;
	List	   *due = NIL;
	ListCell   *lc;

	ob->seeks_due = false;
	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		if (!o->sought)
			continue;
		if (seek_rests(o))
			ob->seeks_due = true;	/* with another answer, later */
		else
			due = lappend(due, o);
	}
	list_sort(due, by_number);
	foreach(lc, due)
		serve_seek(ob, lfirst(lc));
}

/* What the peer has, for those who collect tombstones, and who ask what it was told. */
void
ent_outbound_save_haves(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;
	long		max = hash_get_num_entries(ob->owners);
	Datum	   *owners = palloc(max * sizeof(Datum)),
			   *epochs = palloc(max * sizeof(Datum)),
			   *haves = palloc(max * sizeof(Datum));
	Datum		args[4] = {Int32GetDatum(ob->peer)};
	int			n = 0;

	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		if (!o->unsaved)
			continue;
		owners[n] = Int32GetDatum(o->no);
		epochs[n] = Int32GetDatum(o->epoch);
		haves[n++] = Int64GetDatum(o->claimed);
		o->unsaved = false;
	}
	if (n > 0)
	{
		args[1] = ent_query_array(INT4OID, owners, NULL, n);
		args[2] = ent_query_array(INT4OID, epochs, NULL, n);
		args[3] = ent_query_array(INT8OID, haves, NULL, n);
		ent_query_run(&save_query, args, NULL, SPI_OK_INSERT, NULL);
	}
	ob->saved_at = GetCurrentTimestamp();
}

static void
take_section(EntOutbound *ob, unsigned type, EntReader *body)
{
	switch (type)
	{
		case ENT_SECTION_WANT:
			take_want(ob, body);
			break;
		case ENT_SECTION_ARREARS:
			take_arrears(ob, body);
			break;
		case ENT_SECTION_TABLE_STATE:
			take_table_state(ob, body);
			break;
		case ENT_SECTION_CONFIRM:
			ent_outbound_take_confirm(ob, body);
			break;
		case ENT_SECTION_AGAIN:
			take_again(ob, body);
			break;
		case ENT_SECTION_SEEK:
			take_seek(ob, body);
			break;
		case ENT_SECTION_KEPT:
			take_kept(ob, body);
			break;
		case ENT_SECTION_SUBSCRIBE:
			ent_outbound_take_subscribe(ob, body);
			break;
		default:
			if (type & ENT_SECTION_OPTIONAL)
				break;
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("answer from peer has a section of unknown type %u", type),
					 errhint("The peer may run a newer version of entanglement.")));
	}
}

void
ent_outbound_answered(EntOutbound *ob, const void *data, size_t len)
{
	EntReader	r,
				body;
	EntWireHeader header;
	unsigned	type;
	MemoryContext section,
				old;
	EntOutFlight *f = dlist_is_empty(&ob->flights) ? NULL :
	dlist_head_element(EntOutFlight, node, &ob->flights);
	uint64		expected = f ? f->number : 0;
	uint64		asked = f ? f->asked : 0;

	ent_wire_reader_init(&r, data, len);
	ent_wire_read_header(&r, &header);
	ent_outbound_check(&r, "header");
	if (header.number != expected)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("answer from peer does not match the batch in flight"),
				 errdetail("It answers batch %llu; batch %llu is the oldest in flight.",
						   (unsigned long long) header.number,
						   (unsigned long long) expected)));
	ent_relinfo_refresh();
	section = AllocSetContextCreate(CurrentMemoryContext, "entanglement section",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(section);
	while (ent_wire_read_section(&r, &type, &body))
	{
		CHECK_FOR_INTERRUPTS();
		take_section(ob, type, &body);
		MemoryContextReset(section);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(section);
	ent_outbound_check(&r, "sections");
	ent_refusal_write(ob->peer, ob->slot);
	if (ob->seeks_due)
		serve_seeks(ob);
	if (expected != 0)
	{
		ent_outbound_settle_flight(ob);
		ob->answered_once = true;
	}
	if (TimestampDifferenceExceeds(ob->saved_at, GetCurrentTimestamp(),
								   SAVE_INTERVAL_MS))
	{
		ent_outbound_save_haves(ob);
		if (ob->unreviewed)
			ent_outbound_look_anew(ob, 0);
		ob->resend_due |= ob->unreviewed;
		ob->unreviewed = false;
	}
	ob->heard = asked;
	pg_atomic_fetch_add_u64(&ob->slot->bytes_received, len);
}

void
ent_outbound_heard(EntOutbound *ob)
{
	/* first what is no longer so, then that we heard */
	ent_outbound_show(ob);
	if (ob->heard != 0)
		ent_shmem_heard(ob->slot, ob->heard);
	ob->heard = 0;
}
