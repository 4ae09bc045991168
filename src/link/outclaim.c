/*
 * link/outclaim.c
 *	  The sending end: what the peer may count on.
 *
 * A claim goes out when no entry with a position up to its own is left in a
 * queue: all that it covers has been sent then, in this batch or before (I3).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "link/outbound_private.h"
#include "store/object.h"
#include "store/query.h"

#define GAPS_MS			100		/* gaps are looked for at most this often */

static EntQuery gaps_query = {
	"SELECT o.sure OPERATOR(pg_catalog.<) o.told "
	"OR EXISTS (SELECT 1 FROM entanglement.parked p WHERE p.owner OPERATOR(pg_catalog.=) $1) "
	"OR EXISTS (SELECT 1 FROM entanglement.owed d WHERE d.owner OPERATOR(pg_catalog.=) $1 "
	"AND d.peer OPERATOR(pg_catalog.=) $2) "
	"FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT4OID}, NULL
};

/*
 * A remote owner's claim covers objects that this node still waits for itself
 * (parked), or that came late and are owed to the peer. Both have tables of
 * their own, so that haves need not wait for them; but the peer must know, or it
 * would never ask another route for what this one then forgets.
 */
static bool
has_gaps(EntOutbound *ob, int32 owner)
{
	Datum		args[2] = {Int32GetDatum(owner), Int32GetDatum(ob->peer)};
	bool		gaps;

	if (ent_object_owner_is_local(owner))
		return false;
	ent_query_run(&gaps_query, args, NULL, SPI_OK_SELECT, NULL);
	gaps = SPI_processed > 0 && ent_query_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return gaps;
}

static void
write_claim(EntOutbound *ob, EntWriter *w, EntOutOwner *o, int64 serial)
{
	EntWireClaim claim = {.owner = o->no, .epoch = o->epoch, .serial = serial};

	o->gapped = has_gaps(ob, o->no);
	ent_wire_write_claim(w, o->gapped ? ENT_SECTION_CLAIM_GAPS : ENT_SECTION_CLAIM,
						 &claim);
	ent_outbound_note_claim(ob, o, serial);
}

/* What was claimed with gaps has none any more. */
static void
write_closed_gaps(EntOutbound *ob, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;

	if (!TimestampDifferenceExceeds(ob->gaps_at, GetCurrentTimestamp(), GAPS_MS))
		return;
	ob->gaps_at = GetCurrentTimestamp();
	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		if (o->gapped && o->wanted && !o->withheld && !o->scanning &&
			o->claimed > 0 && o->claiming_serial <= o->claimed &&
			!has_gaps(ob, o->no))
			write_claim(ob, w, o, o->claimed);
}

static void
write_owner_claims(EntOutbound *ob, EntWriter *w, uint64 unsent)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &ob->claiming)
	{
		EntOutOwner *o = dlist_container(EntOutOwner, node, iter.cur);
		int64		serial = 0;

		if (ent_outbound_presents_left(ob, o->no))
			continue;
		if (o->current.serial > 0 && o->current.position < unsent)
		{
			serial = o->current.serial;
			o->current = o->next;
			memset(&o->next, 0, sizeof(o->next));
		}
		if (o->current.serial > 0 && o->current.position < unsent)
		{
			serial = o->current.serial;
			memset(&o->current, 0, sizeof(o->current));
		}
		if (serial > Max(o->claimed, o->claiming_serial) && o->wanted)
			write_claim(ob, w, o, serial);
		if (o->current.serial == 0)
		{
			o->claiming = false;
			dlist_delete(&o->node);
		}
	}
}

void
ent_outbound_write_claims(EntOutbound *ob, EntWriter *w)
{
	uint64		unsent = ent_outbound_min_position(ob);
	dlist_mutable_iter iter;

	write_owner_claims(ob, w, unsent);
	write_closed_gaps(ob, w);
	ob->claimed_at = GetCurrentTimestamp();
	dlist_foreach_modify(iter, &ob->arrears)
	{
		EntOutArrears *a = dlist_container(EntOutArrears, node, iter.cur);
		EntOutOwner *o = hash_search(ob->owners, &a->owner, HASH_FIND, NULL);
		EntWireArrears done = {.owner = a->owner, .table = a->rel};

		if (!a->queued || a->position >= unsent || (o && o->withheld) ||
			ent_outbound_presents_left(ob, a->owner))
			continue;
		ent_wire_write_arrears(w, ENT_SECTION_ARREARS_DONE, &done);
		ob->flight->arrears = true;
		if (a->resend)
			ent_outbound_note_resent(ob, a);
		dlist_delete(&a->node);
		pfree(a);
	}
}
