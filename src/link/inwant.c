/*
 * link/inwant.c
 *	  The receiving end: what is asked of the peer.
 *
 * Owners that are wanted from it, or not; tables that fit or do not; an offer
 * that would make it a route; what is to be fetched anew (link/inarrears.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "base/guc.h"
#include "base/wake.h"
#include "link/inbound_private.h"
#include "rule/route.h"
#include "store/owner.h"
#include "store/query.h"

static EntQuery haves_query = {
	"SELECT u.n, o.epoch, o.serial "
	"FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(no, n) "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) u.no",
	1, {INT4ARRAYOID}, NULL
};

EntInOwner *
ent_inbound_owner_of(EntInbound *ib, const pg_uuid_t *id)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (memcmp(&in->id, id, sizeof(pg_uuid_t)) == 0)
		{
			hash_seq_term(&seq);
			return in;
		}
	return NULL;
}

/*
 * A peer that is not an owner's route keeps its tombstones for us all the
 * same until it knows that we have heard by another way.
 */
static void
tell_haves(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;
	long		max = hash_get_num_entries(ib->owners) + 1;
	EntInOwner **ins = palloc(max * sizeof(EntInOwner *));
	Datum	   *nos = palloc(max * sizeof(Datum)),
				args[1];
	int			n = 0;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (in->no != 0 && !in->wanted)
		{
			ins[n] = in;
			nos[n++] = Int32GetDatum(in->no);
		}
	ib->told_at = GetCurrentTimestamp();
	if (n == 0)
		return;
	args[0] = ent_query_array(INT4OID, nos, NULL, n);
	ent_query_run(&haves_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int32		epoch = ent_query_int4(row, 2, NULL);
		int64		have = ent_query_int8(row, 3, NULL);

		in = ins[ent_query_int8(row, 1, NULL) - 1];
		if (in->told_epoch != epoch || in->told_have != have)
			in->answered = false;
		in->epoch = epoch;
		in->have = have;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * An offer beyond what we have: asked once for each, and again from time to
 * time, since it may have been lost on its way to the home. Who is lost himself
 * cannot do more than he was asked to.
 */
static void
write_seek(EntInbound *ib, EntWriter *w, EntInOwner *in)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		again = in->sought_at != 0 && !in->lost &&
		TimestampDifferenceExceeds(in->sought_at, now, ent_prune_interval);
	EntWireClaim c;
	EntOwner   *o;

	if (in->seek == ENT_IN_SEEK_LATER && in->sought_at == 0)
		in->sought_at = now;
	if (!again && (in->seek != ENT_IN_SEEK_NOW ||
				   !ent_route_farther(in->seek_epoch, in->seek_serial,
									  in->sought_epoch, in->sought_serial)))
		return;
	o = ent_owner_get(in->no);
	if (o == NULL || o->local)
		return;
	if (in->seek == ENT_IN_SEEK_LATER)
	{
		in->seek_epoch = o->epoch;
		in->seek_serial = o->told;
	}
	else if (ent_route_farther(o->epoch, o->told, in->seek_epoch, in->seek_serial))
	{
		in->seek = ENT_IN_SEEK_NOT; /* found */
		return;
	}
	c.owner = in->number;
	c.epoch = in->sought_epoch = in->seek_epoch;
	c.serial = in->sought_serial = in->seek_serial;
	in->sought_at = now;
	ent_wire_write_claim(w, ENT_SECTION_SEEK, &c);
}

static void
write_want(EntInbound *ib, EntInOwner *in, EntWriter *w)
{
	EntWireWant want = {.owner = in->number, .wanted = in->wanted,
	.epoch = in->have > 0 ? in->epoch : 0, .have = in->have};

	if (in->ignored)
	{
		/* wanted again, it must begin again */
		want.wanted = in->based = false;
		ent_wire_write_want(w, &want);
		want.wanted = in->wanted;
	}
	if (in->wanted || !in->ignored)
		ent_wire_write_want(w, &want);
	if (in->ignored || in->wanted != in->told_wanted)
		in->told_in = ib->number;
	in->answered = true;
	in->ignored = false;
	in->told_wanted = in->wanted;
	in->told_epoch = in->epoch;
	in->told_have = in->have;
	/* asked again, it goes on from where it is */
	if (in->wanted && !in->based)
	{
		in->base_epoch = in->epoch;
		in->base_have = in->have;
	}
	in->based = in->wanted;
}

/* The home has lost history: it is to start a new epoch. */
static void
write_kept(EntInOwner *in, EntWriter *w)
{
	EntWireClaim c = {.owner = in->number, .epoch = in->kept_epoch,
	.serial = in->kept};

	if (in->kept != 0)
		ent_wire_write_claim(w, ENT_SECTION_KEPT, &c);
	in->kept = 0;
}

void
ent_inbound_answer_routes(EntInbound *ib, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;
	EntInOwner *in;

	if (TimestampDifferenceExceeds(ib->told_at, GetCurrentTimestamp(),
								   ent_prune_interval))
		tell_haves(ib);
	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		EntWireTableState s = {.table = t->number, .known = t->known};

		if (t->answered)
			continue;
		ent_wire_write_table_state(w, &s);
		t->answered = true;
	}
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
	{
		if (!in->answered)
			write_want(ib, in, w);
		if (in->seek != ENT_IN_SEEK_NOT)
			write_seek(ib, w, in);
		write_kept(in, w);
	}
	if (ib->arrears_due && ib->announced)
		ent_inbound_ask_arrears(ib, w);
}
