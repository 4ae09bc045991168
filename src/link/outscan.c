/*
 * link/outscan.c
 *	  The sending end: what we offer, and catching up from the object table.
 *
 * A scan goes by serial in chunks; the next chunk is taken only when all of
 * the chunk before has been sent, so memory stays bounded and each chunk's
 * progress becomes durable with its own claim.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/guc.h"
#include "link/describe.h"
#include "link/outbound_private.h"
#include "rule/route.h"
#include "store/epoch.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/value.h"
#include "store/version.h"

static EntQuery state_query = {
	"SELECT o.serial, EXISTS (SELECT 1 FROM entanglement.arrears a "
	"WHERE a.owner OPERATOR(pg_catalog.=) o.no), o.distance, o.epoch "
	"FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery objects_query = {
	"SELECT rel, key, serial, changed_at, ctid FROM entanglement.object "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND serial OPERATOR(pg_catalog.>) $2 "
	"ORDER BY serial LIMIT $3",
	3, {INT4OID, INT8OID, INT8OID}, NULL
};
static EntQuery graves_query = {
	"SELECT rel, key, serial, changed_at FROM entanglement.tombstone "
	"WHERE (owner OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) $1 AND serial OPERATOR(pg_catalog.>) $2 "
	"AND ($4 OR heir IS NOT NULL OR from_owner IS NOT NULL) ORDER BY serial LIMIT $3",
	4, {INT4OID, INT8OID, INT8OID, BOOLOID}, NULL
};
/* What he has handed over comes to who joins late in no other way. */
static EntQuery arrears_query = {
	"(SELECT rel, key, serial, changed_at FROM entanglement.object "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND serial OPERATOR(pg_catalog.>) $2 "
	"AND rel OPERATOR(pg_catalog.=) $4 ORDER BY serial LIMIT $3) UNION ALL "
	"(SELECT rel, key, serial, changed_at FROM entanglement.tombstone "
	"WHERE (owner OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) $1 "
	"AND serial OPERATOR(pg_catalog.>) $2 AND rel OPERATOR(pg_catalog.=) $4 "
	"AND heir IS NOT NULL ORDER BY serial LIMIT $3) ORDER BY serial LIMIT $3",
	4, {INT4OID, INT8OID, INT8OID, INT4OID}, NULL
};

/* What has died as well: the peer may not have been told. */
static EntQuery review_query = {
	"(SELECT rel, key, serial, changed_at FROM entanglement.object "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND serial OPERATOR(pg_catalog.>) $2 "
	"AND rel OPERATOR(pg_catalog.=) $4 ORDER BY serial LIMIT $3) UNION ALL "
	"(SELECT rel, key, serial, changed_at FROM entanglement.tombstone "
	"WHERE (owner OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) $1 "
	"AND serial OPERATOR(pg_catalog.>) $2 AND rel OPERATOR(pg_catalog.=) $4 "
	"ORDER BY serial LIMIT $3) ORDER BY serial LIMIT $3",
	4, {INT4OID, INT8OID, INT8OID, INT4OID}, NULL
};

static void
scan_begins(EntOutbound *ob, uint64 position)
{
	ob->catch_position = Max(ob->catch_position, position);
	if (ob->scans++ == 0 || position < ob->scan_position)
		ob->scan_position = position;
}

static void
scan_ends(EntOutbound *ob)
{
	ob->scans--;
}

void
ent_outbound_unwant(EntOutbound *ob, EntOutOwner *o)
{
	if (o->scanning)
		scan_ends(ob);
	o->scanning = false;
	o->wanted = false;
	o->position = 0;
	ent_outbound_forget_sent(o);
	ent_outbound_void_claims(ob, o, true);
	memset(&o->current, 0, sizeof(o->current));
	memset(&o->next, 0, sizeof(o->next));
}

/* ---- adverts ---- */

static uint32
owner_digest(EntOwner *o, bool lost, bool partial)
{
	uint32		h = hash_bytes((const unsigned char *) o->name, strlen(o->name));

	h = hash_combine(h, hash_bytes((const unsigned char *) &o->home, sizeof(o->home)));
	h = hash_combine(h, hash_uint32(o->epoch));
	h = hash_combine(h, hash_uint32(lost + 2 * partial));
	return hash_combine(h, hash_uint32(o->distance));
}

static void
write_owner(EntWriter *w, EntOwner *o, bool lost, bool partial)
{
	EntWireOwner wire = {
		.number = o->no, .epoch = o->epoch, .serial = ent_owner_reached(o),
		.distance = o->distance, .lost = lost, .partial = partial
	};

	memcpy(wire.id.bytes, o->id.data, UUID_LEN);
	memcpy(wire.home.bytes, o->home.data, UUID_LEN);
	strlcpy(wire.name, ent_name_to_wire(o->name), sizeof(wire.name));
	if (o->epoch > 1)			/* owners may be many */
		wire.nancestors = ent_epoch_ancestors(o->no, wire.ancestors);
	ent_wire_write_owner(w, &wire);
}

/* Has the peer asked for an offer that we can make by now? */
static bool
is_sought(EntOutOwner *out, EntOwner *o)
{
	if (out->sought_epoch == 0 ||
		!ent_route_farther(o->epoch, ent_owner_reached(o),
						   out->sought_epoch, out->sought_serial))
		return false;
	out->sought_epoch = 0;
	return true;
}

static void
advertise_owner(EntOutbound *ob, EntWriter *w, EntOwner *o)
{
	bool		found;
	EntOutOwner *out = hash_search(ob->owners, &o->no, HASH_ENTER, &found);
	bool		lost = !ent_owner_up(o);
	bool		partial;
	uint32		digest;

	if (!found)
	{
		memset((char *) out + sizeof(int32), 0, sizeof(EntOutOwner) - sizeof(int32));
		out->epoch = o->epoch;
	}
	partial = ent_outbound_gives_part(ob, out, o);
	digest = owner_digest(o, lost, partial);
	if (out->withheld && !o->arrears && out->wanted && !out->scanning)
		ent_outbound_start_scan(ob, out, out->claimed, ob->ring_position);
	out->withheld = o->arrears;
	if (!is_sought(out, o) && out->offered && out->digest == digest)
		return;
	if (found && out->epoch != o->epoch)
	{
		ent_outbound_unwant(ob, out);	/* the peer will ask again */
		out->epoch = o->epoch;
		out->claimed = 0;
	}
	out->digest = digest;
	out->distance = o->distance;
	out->offered = true;
	out->answered = false;
	write_owner(w, o, lost, partial);
}

/*
 * Not back to where it comes from, and only what can be reached. A peer to
 * which it was offered must know: it must not count on us.
 */
static bool
withdraw_owner(EntOutbound *ob, EntWriter *w, EntOwner *o)
{
	EntOutOwner *out;

	if (o->local || (o->peer != ob->peer && o->distance < ENT_MAX_DISTANCE &&
					 o->nearest != ENT_ROUTE_NEVER && !o->gone))
		return false;
	out = hash_search(ob->owners, &o->no, HASH_FIND, NULL);
	if (out && o->gone)
	{
		ent_outbound_unwant(ob, out);	/* the peer hears why */
		out->offered = false;
	}
	else if (out && out->offered)
	{
		ent_outbound_unwant(ob, out);
		out->offered = false;
		write_owner(w, o, true, false);
	}
	/* nothing is owed to where it comes from */
	ob->owed_due |= o->peer == ob->peer;
	return true;
}

static void
note_withheld(EntOutbound *ob, const EntOwner *o)
{
	MemoryContext old = MemoryContextSwitchTo(ob->context);

	ob->withheld = bms_add_member(ob->withheld, o->no);
	MemoryContextSwitchTo(old);
}

static void
announce_table(EntOutbound *ob, EntWriter *w, EntRelation *rel)
{
	bool		found;
	EntOutTable *t = hash_search(ob->tables, &rel->no, HASH_ENTER, &found);
	EntWireTable wire;
	size_t		start = w->len;
	uint32		digest;

	if (!found)
		memset((char *) t + sizeof(int32), 0, sizeof(EntOutTable) - sizeof(int32));
	t->priority = rel->priority;
	t->integrity = rel->integrity;
	t->withheld = !ent_outbound_show_table(ob, rel, t);
	if (t->withheld)
	{
		t->known = false;
		t->digest = 0;
		t->announced = false;
		return;
	}
	ent_describe_columns(rel, t->may, &wire);
	ent_wire_write_table(w, &wire);
	digest = hash_bytes(w->data + start, w->len - start);
	if (t->announced && t->digest == digest)
		w->len = start;			/* nothing new */
	else
	{
		t->known = true;		/* until the peer says otherwise */
		if (t->unknown)
			ent_outbound_look_anew(ob, t->no);
		t->unknown = false;
		t->announced = t->named = true;
		t->digest = digest;
	}
	if (wire.columns)
		pfree(wire.columns);
}

void
ent_outbound_advertise(EntOutbound *ob, EntWriter *w)
{
	List	   *owners = ent_owner_all();
	ListCell   *lc;

	foreach(lc, ent_relinfo_all())
		announce_table(ob, w, lfirst(lc));
	ent_outbound_look_for_parts(ob);
	ent_outbound_write_graves(ob, w);
	ent_outbound_unwant_missing(ob, owners);
	bms_free(ob->withheld);
	ob->withheld = NULL;
	foreach(lc, owners)
		if (withdraw_owner(ob, w, lfirst(lc)))
			note_withheld(ob, lfirst(lc));
		else
			advertise_owner(ob, w, lfirst(lc));
	ent_outbound_write_homes(ob, w, owners);
	ob->adverts_due = false;
}

/* ---- scans ---- */

void
ent_outbound_start_scan(EntOutbound *ob, EntOutOwner *o, int64 from,
						uint64 position)
{
	ent_outbound_forget_states(ob);
	ent_outbound_forget_sent(o);
	if (!o->scanning)
		scan_begins(ob, position);
	o->scanning = true;
	o->floor = from;
	o->scanned = from;
	o->counted = false;
	o->position = Min(position, o->position == 0 ? position : o->position);
	o->run_position = 0;
	memset(&o->current, 0, sizeof(o->current));
	memset(&o->next, 0, sizeof(o->next));
}

void
ent_outbound_scan_on(EntOutbound *ob, EntOutOwner *o, int64 since, uint64 position)
{
	o->counted = false;
	if (o->scanning)
	{
		if (o->run_position == 0)
		{
			o->run_since = since;
			o->run_position = position;
		}
		return;
	}
	scan_begins(ob, position);
	o->scanning = true;
	/* what has been queued or sent is not scanned again */
	o->floor = o->scanned = Max(since, o->scanned);
	o->position = position;
	o->run_position = 0;
}

/*
 * All is queued that there was before objects were made of which an event has told
 * meanwhile: what waits for earlier ones need not wait for them.
 */
static void
pass_run(EntOutbound *ob, EntOutOwner *o)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *other;
	dlist_iter	iter;

	if (!o->scanning || o->run_position == 0 || o->scanned < o->run_since)
		return;
	o->position = o->run_position;
	o->run_position = 0;
	ob->scan_position = o->position;
	hash_seq_init(&seq, ob->owners);
	while ((other = hash_seq_search(&seq)) != NULL)
		if (other->scanning)
			ob->scan_position = Min(ob->scan_position, other->position);
	dlist_foreach(iter, &ob->arrears)
	{
		EntOutArrears *a = dlist_container(EntOutArrears, node, iter.cur);

		if (!a->queued)
			ob->scan_position = Min(ob->scan_position, a->position);
	}
}

/* One table of an owner, from its start. */
static EntOutArrears *
start_table(EntOutbound *ob, int32 owner, int32 rel, uint64 position)
{
	dlist_iter	iter;
	EntOutArrears *a;

	ent_outbound_forget_states(ob);
	dlist_foreach(iter, &ob->arrears)
	{
		a = dlist_container(EntOutArrears, node, iter.cur);
		if (a->owner == owner && a->rel == rel)
		{
			/* asked again: from the start */
			if (a->queued)
				scan_begins(ob, position);
			a->queued = false;
			a->scanned = 0;
			a->counted = false;
			a->position = position;
			return a;
		}
	}
	a = MemoryContextAllocZero(ob->context, sizeof(EntOutArrears));
	a->owner = owner;
	a->rel = rel;
	a->position = position;
	a->review = true;
	dlist_push_tail(&ob->arrears, &a->node);
	scan_begins(ob, position);
	return a;
}

EntOutArrears *
ent_outbound_start_arrears(EntOutbound *ob, int32 owner, int32 rel,
						   uint64 position)
{
	EntOutArrears *a;

	ent_outbound_start_present(ob, owner, rel);
	a = start_table(ob, owner, rel, position);
	a->review = false;
	return a;
}

EntOutArrears *
ent_outbound_start_review(EntOutbound *ob, int32 owner, int32 rel,
						  uint64 position)
{
	return start_table(ob, owner, rel, position);
}

/*
 * Queues what the query returned, up to serial upto. sent: without what this owner has
 * sent already; NULL: all.
 */
static void
queue_rows(EntOutbound *ob, int32 owner, int64 since, unsigned flags,
		   uint64 position, int64 upto, const EntOutOwner *sent)
{
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int32		rel = ent_query_int4(row, 1, NULL);
		EntOutTable *t = hash_search(ob->tables, &rel, HASH_FIND, NULL);
		bool		null;
		bytea	   *key = DatumGetByteaPP(ent_query_datum(row, 2, &null));
		EntQueueEntry e = {
			.rel = rel, .owner = owner, .flags = flags, .position = position,
			.since = since, .newest = ent_query_int8(row, 3, NULL), .bulk = true,
			.stale_at = DatumGetTimestampTz(ent_query_datum(row, 4, &null)),
			.keylen = VARSIZE_ANY_EXHDR(key), .key = (uint8 *) VARDATA_ANY(key)
		};

		if (ent_query_int8(row, 3, NULL) > upto)
			break;
		if (t == NULL || !t->known || t->idle)
			continue;
		if (sent != NULL && ent_outbound_was_sent(sent, e.newest))
		{
			if (flags & ENT_OUT_COPY)
				ent_outbound_copied(ob, t);
			continue;
		}
		/* it is read there soon */
		if (SPI_tuptable->tupdesc->natts > 4)
			ent_versions_note(rel, key, (ItemPointer) DatumGetPointer(ent_query_datum(row, 5, &null)));
		ent_outbound_push(ob, t, &e);
	}
}

/* The serial up to which a limited query's answer is complete. */
static int64
complete_upto(uint64 limit)
{
	if (SPI_processed < limit)
		return PG_INT64_MAX;
	return ent_query_int8(SPI_processed - 1, 3, NULL);
}

/* One chunk of an owner's objects and tombstones, under one snapshot. */
static void
scan_owner(EntOutbound *ob, EntOutOwner *o, Snapshot snapshot)
{
	Datum		args[4] = {Int32GetDatum(o->no), Int64GetDatum(o->scanned),
	Int64GetDatum(ent_scan_chunk), BoolGetDatum(o->floor > 0)};
	Datum		state_args[1] = {Int32GetDatum(o->no)};
	int64		serial = 0,
				upto = PG_INT64_MAX;
	SPITupleTable *objects;
	uint64		nobjects;
	bool		moved = false;

	ent_query_run(&state_query, state_args, NULL, SPI_OK_SELECT, snapshot);
	if (SPI_processed == 1)
	{
		serial = ent_query_int8(0, 1, NULL);
		o->withheld = ent_query_bool(0, 2);
		moved = ent_query_int4(0, 3, NULL) != o->distance ||
			ent_query_int4(0, 4, NULL) != o->epoch;
	}
	SPI_freetuptable(SPI_tuptable);
	if (moved)
	{
		/* no claim before the peer knows at which distance it was reached, or in what epoch */
		ob->adverts_due = true;
		ob->adverts_position = ob->ring_position;
		return;
	}
	ent_query_run(&objects_query, args, NULL, SPI_OK_SELECT, snapshot);
	objects = SPI_tuptable;
	nobjects = SPI_processed;
	upto = complete_upto(ent_scan_chunk);
	/* who has nothing of him needs no deaths, but what has changed hands */
	ent_query_run(&graves_query, args, NULL, SPI_OK_SELECT, snapshot);
	upto = Min(upto, complete_upto(ent_scan_chunk));
	if (nobjects == ent_scan_chunk && !o->counted)
	{
		SPITupleTable *graves = SPI_tuptable;
		uint64		ngraves = SPI_processed;

		if (!ob->copying)
			o->counted_to = 0;
		ent_outbound_count_copies(ob, o->no, 0, Max(o->scanned, o->counted_to), snapshot);
		o->counted = true;
		o->counted_to = serial;
		SPI_tuptable = graves;
		SPI_processed = ngraves;
	}
	queue_rows(ob, o->no, o->floor, 0, o->position, upto, NULL);
	SPI_freetuptable(SPI_tuptable);
	SPI_tuptable = objects;
	SPI_processed = nobjects;
	queue_rows(ob, o->no, o->floor, o->counted ? ENT_OUT_COPY : 0, o->position, upto, o);
	SPI_freetuptable(objects);
	if (upto == PG_INT64_MAX)
	{
		o->scanning = false;
		o->scanned = serial;
		scan_ends(ob);
	}
	else
		o->scanned = upto;
	if (!o->withheld)
		ent_outbound_claim(ob, o, Min(o->scanned, serial), o->position);
	if (!o->scanning)
		o->position = 0;
	pass_run(ob, o);
}

static void
scan_arrears(EntOutbound *ob, EntOutArrears *a, Snapshot snapshot)
{
	Datum		args[4] = {Int32GetDatum(a->owner), Int64GetDatum(a->scanned),
	Int64GetDatum(ent_scan_chunk), Int32GetDatum(a->rel)};
	EntOutOwner *o = hash_search(ob->owners, &a->owner, HASH_FIND, NULL);
	int64		upto;
	unsigned	flags = a->review ? 0 : ENT_ROW_REFRESH | ENT_ROW_LATE;

	ent_query_run(a->review ? &review_query : &arrears_query, args, NULL,
				  SPI_OK_SELECT, snapshot);
	upto = complete_upto(ent_scan_chunk);
	if (upto != PG_INT64_MAX && !a->counted)
	{
		SPITupleTable *found = SPI_tuptable;
		uint64		n = SPI_processed;

		ent_outbound_count_copies(ob, a->owner, a->rel, a->scanned, snapshot);
		a->counted = true;
		SPI_tuptable = found;
		SPI_processed = n;
	}
	flags |= a->counted ? ENT_OUT_COPY : 0;
	queue_rows(ob, a->owner, a->review && o ? o->claimed : 0, flags, a->position, upto, NULL);
	SPI_freetuptable(SPI_tuptable);
	if (upto == PG_INT64_MAX)
	{
		a->queued = true;
		scan_ends(ob);
	}
	a->scanned = upto;
}

static void
scan_chunks(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;
	dlist_iter	iter;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		if (o->scanning && o->wanted)
			scan_owner(ob, o, snapshot);
	dlist_foreach(iter, &ob->arrears)
	{
		EntOutArrears *a = dlist_container(EntOutArrears, node, iter.cur);

		if (!a->queued)
			scan_arrears(ob, a, snapshot);
	}
	UnregisterSnapshot(snapshot);
}

/*
 * Takes the next chunk of every scan once the chunks before have been sent. What
 * goes together waits for the end of the scans, so it is no reason to wait.
 */
void
ent_outbound_scan(EntOutbound *ob)
{
	size_t		before;

	do
	{
		before = ent_queue_length(ob->together);
		if (ob->scans == 0 || ent_outbound_together_full(ob) ||
			ent_queue_min_position(ob->queue) <= ob->scan_position)
			break;
		CHECK_FOR_INTERRUPTS();
		scan_chunks(ob);
	} while (ent_queue_length(ob->together) > before);
}
