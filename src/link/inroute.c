/*
 * link/inroute.c
 *	  The receiving end: which owners we take from this peer.
 *
 * An owner's objects are taken from one peer at a time, its route. Which one
 * that is, rule/route.h decides on what the peers offered, so that routes never
 * form a loop; here is who may be asked at all. Several sessions decide about
 * one owner: each holds its row.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "base/guc.h"
#include "base/ring.h"
#include "base/wake.h"
#include "link/inbound_private.h"
#include "rule/route.h"
#include "store/epoch.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/seek.h"
#include "store/value.h"

#define MIN_OFFERS		100000

static EntQuery switch_arrears_query = {
	"INSERT INTO entanglement.arrears (owner, rel) "
	"SELECT $1, r.no FROM entanglement.relation r "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.relid "
	"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
	"JOIN entanglement.peer_table f ON f.peer OPERATOR(pg_catalog.=) $2 AND f.known "
	"AND f.schema_name OPERATOR(pg_catalog.=) n.nspname "
	"AND f.table_name OPERATOR(pg_catalog.=) c.relname "
	"WHERE $3 OR NOT EXISTS (SELECT 1 FROM entanglement.owner o "
	"JOIN entanglement.peer_table p ON p.peer OPERATOR(pg_catalog.=) COALESCE(o.peer, o.held) "
	"WHERE o.no OPERATOR(pg_catalog.=) $1 AND p.known "
	"AND p.schema_name OPERATOR(pg_catalog.=) n.nspname "
	"AND p.table_name OPERATOR(pg_catalog.=) c.relname "
	"AND f.mapped OPERATOR(pg_catalog.<@) p.mapped) ON CONFLICT DO NOTHING",
	3, {INT4OID, INT4OID, BOOLOID}, NULL
};

/* ---- owners ---- */

static void
take_route(EntInbound *ib, EntInOwner *in, EntOwner *o, const EntRoute *r)
{
	char	   *name = ent_name_from_wire(in->name);
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = o->no};
	bool		lost = !r->up;

	if (o->peer == ib->peer && o->distance == r->distance &&
		o->lost == lost && o->partial == in->partial &&
		strcmp(o->name, name) == 0)
		return;
	if (o->peer != ib->peer && o->serial > 0)
	{
		/*
		 * The new route may offer tables or columns that the old one did not,
		 * and other objects.
		 */
		Datum		args[3] = {Int32GetDatum(o->no), Int32GetDatum(ib->peer),
		BoolGetDatum(o->partial || in->partial)};

		ent_query_run(&switch_arrears_query, args, NULL, SPI_OK_INSERT, NULL);
	}
	ent_owner_set_route(o->no, ib->peer, r->distance, r->nearest, lost,
						in->partial, name);
	if (o->peer != ib->peer)
		in->have = o->sure;		/* the route before still owed the rest */
	ent_wake_post_at_commit(&ev);	/* advertise it further */
	ent_wake_routes_at_commit();
}

void
ent_inbound_note_ancestors(EntInOwner *in, int32 epoch)
{
	bool		known = epoch == in->sender_epoch;

	ent_epoch_set_ancestors(in->no, in->epoch, in->ancestors,
							known ? in->nancestors : 0);
}

/* What the offered epoch has of that one; NULL: nothing. */
static EntWireAncestor *
ancestor(EntInOwner *in, int32 epoch)
{
	for (int i = 0; i < in->nancestors; i++)
		if ((int32) in->ancestors[i].epoch == epoch)
			return &in->ancestors[i];
	return NULL;
}

/*
 * The epoch that is offered may go on from ours: then what both have is not compared.
 * The peer must have come as far as we have with that, or we would stand higher than
 * the one whom our pointer leads to.
 */
static void
go_on(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	EntWireAncestor *a = in->sender_epoch > o->epoch ? ancestor(in, o->epoch) : NULL;

	if (a == NULL || in->compared || in->sender_serial < Min(a->serial, o->told))
		return;
	in->compared = !ent_epoch_adopt(o, in->sender_epoch, a->serial, ib->peer);
	if (in->compared)
		return;
	ent_inbound_note_ancestors(in, in->sender_epoch);
	in->epoch = in->sender_epoch;
	in->have = Min(in->have, a->serial);
	in->told = Min(in->told, a->serial);
	ib->ask_all = true;
}

/* Keeps the first error of its kind where the administrator looks. */
static void
report(EntInbound *ib, bool *reported, const char *sqlstate, const char *message)
{
	if (*reported)
		return;
	*reported = true;
	ent_shmem_set_error(ib->slot, sqlstate, message);
	ereport(LOG, (errmsg("%s", message)));
}

/*
 * An owner not heard of before becomes known here, as long as there is room:
 * it stays known, and is offered to all peers. NULL: there is none.
 */
static EntOwner *
learn(EntInbound *ib, EntInOwner *in)
{
	int32		no;

	if (ib->room <= 0 && !ib->full)
		ib->room = ent_max_owners - ent_owner_count();
	in->no = in->known = 0;
	in->credible = true;		/* for all we know */
	if (ib->room <= 0)
	{
		report(ib, &ib->full, "53400",
			   psprintf("too many owners: \"%s\" and others that the peer offers are not taken",
						ent_name_from_wire(in->name)));
		return NULL;
	}
	ib->room--;
	no = ent_owner_learn(&in->id, &in->home, ent_name_from_wire(in->name),
						 in->sender_epoch);
	ent_epoch_set_ancestors(no, 0, in->ancestors, in->nancestors);
	return ent_owner_get(no);
}

bool
ent_inbound_is_node(EntInbound *ib, const pg_uuid_t *id)
{
	if (!ib->node_known)
	{
		EntPeer    *peer = ent_peer_get(ib->peer);

		if (peer == NULL || !peer->has_node)
			return false;
		ib->node = peer->node;
		ib->node_known = true;
	}
	return memcmp(id, &ib->node, sizeof(pg_uuid_t)) == 0;
}

void
ent_inbound_ignore(EntInOwner *in)
{
	if (in->wanted)
		in->answered = false;
	in->wanted = false;
	in->no = 0;
	in->epoch = 0;
	in->have = in->told = 0;
	in->seek = ENT_IN_SEEK_NOT;
}

/* The owner as we know it, if what the offer says of its life and home holds. */
static EntOwner *
find_offered(EntInbound *ib, EntInOwner *in, bool fresh)
{
	EntOwner   *o = ent_owner_by_id(&in->id);

	in->credible = true;
	if (o == NULL || o->gone)
	{
		in->known = 0;
		if (ent_inbound_is_dead(ib, in, fresh) || o != NULL)
			return NULL;
		o = learn(ib, in);
	}
	if (o == NULL)
		return NULL;
	in->local = o->local;
	in->known = o->no;
	if (memcmp(&in->home, &o->home, sizeof(pg_uuid_t)) == 0)
		return o;
	return ent_inbound_moved(ib, in, o) ? ent_owner_get(o->no) : NULL;
}

/*
 * What it says now cannot be taken: a route through this peer is lost, or, when
 * it is not allowed to be one any more, is none.
 */
static void
lose_route(EntInbound *ib, EntOwner *o, bool allowed)
{
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = o->no};

	if (o->local || o->peer != ib->peer || (o->lost && allowed))
		return;
	ent_owner_set_route(o->no, allowed ? ib->peer : 0, o->distance, o->nearest,
						true, o->partial, o->name);
	ent_wake_post_at_commit(&ev);
	ent_wake_routes_at_commit();
}

/* Should it come from this peer, and if not now, is that to be sought? */
static bool
decide(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	EntRoute	r = {
		.epoch = o->epoch, .serial = o->told, .nearest = o->nearest,
		.distance = o->distance, .pointed = o->peer != 0, .up = ent_owner_up(o)
	};
	EntRouteOffer offer = {
		.epoch = in->sender_epoch, .serial = in->sender_serial,
		.distance = in->distance, .lost = in->lost
	};
	EntRouteVerdict v = o->peer == ib->peer ? ENT_ROUTE_FOLLOW :
	ent_route_judge(&r, &offer, ENT_MAX_DISTANCE);

	if (v == ENT_ROUTE_FOLLOW)
	{
		ent_route_follow(&r, &offer, ENT_MAX_DISTANCE);
		take_route(ib, in, o, &r);
	}
	else if (v != ENT_ROUTE_LEAVE)
	{
		in->seek = v == ENT_ROUTE_SEEK ? ENT_IN_SEEK_NOW : ENT_IN_SEEK_LATER;
		in->seek_epoch = o->epoch;
		in->seek_serial = o->told;
	}
	return v == ENT_ROUTE_FOLLOW;
}

/* Decides whether this owner is to come from this peer; all are held. */
static void
consider(EntInbound *ib, EntInOwner *in, bool fresh)
{
	EntOwner   *o = find_offered(ib, in, fresh);
	bool		allowed,
				want;

	if (o == NULL)
	{
		ent_inbound_ignore(in);
		return;
	}
	/* only its home says that it is at home there */
	in->credible = in->distance > 0 || ent_inbound_is_node(ib, &in->home);
	in->local = o->local;
	in->no = o->local ? 0 : o->no;
	in->epoch = o->epoch;
	in->have = o->serial;
	in->told = o->told;
	in->seek = ENT_IN_SEEK_NOT;
	allowed = ent_owner_may_speak(o, ib->peer);
	want = !o->local && allowed && in->credible && in->sender_epoch >= o->epoch;
	if (want)
		want = decide(ib, in, o);
	if (want)
		go_on(ib, in, o);
	else
		lose_route(ib, o, allowed);
	if (want != in->wanted)
	{
		in->answered = false;
		ent_inbound_forget_asked(ib, in);
	}
	in->wanted = want;
}

/* Offers are looked at again and again, while everybody else waits. */
static void
check_room(EntInbound *ib)
{
	long		max = Max(MIN_OFFERS, 10L * ent_max_owners);

	if (hash_get_num_entries(ib->owners) <= max)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("peer offers too many owners"),
			 errdetail("At most %ld are looked at on a connection.", max),
			 errhint("If it means well, increase \"entanglement.max_owners\".")));
}

static void
keep_ancestors(EntInbound *ib, EntInOwner *in, const EntWireOwner *wire)
{
	size_t		size = wire->nancestors * sizeof(EntWireAncestor);

	if (in->ancestors)
		pfree(in->ancestors);
	in->ancestors = size > 0 ? MemoryContextAlloc(ib->context, size) : NULL;
	if (size > 0)
		memcpy(in->ancestors, wire->ancestors, size);
	in->nancestors = wire->nancestors;
	in->compared = false;
}

void
ent_inbound_take_owner(EntInbound *ib, EntReader *body)
{
	EntWireOwner wire;
	EntInOwner *in;
	bool		found;

	ent_wire_read_owner(body, &wire);
	ent_inbound_check(body, "owner");
	if (!OidIsValid(wire.epoch) || wire.epoch > PG_INT32_MAX || wire.name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("An owner has no name or no epoch.")));
	in = hash_search(ib->owners, &wire.number, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) in + sizeof(uint32), 0, sizeof(EntInOwner) - sizeof(uint32));
		check_room(ib);
	}
	else if (memcmp(in->id.data, wire.id.bytes, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("Owner number %u is another owner than before.",
						   wire.number)));
	memcpy(in->id.data, wire.id.bytes, UUID_LEN);
	memcpy(in->home.data, wire.home.bytes, UUID_LEN);
	strlcpy(in->name, wire.name, sizeof(in->name));
	if (in->sender_epoch != (int32) wire.epoch)
		in->based = false;		/* it begins anew */
	keep_ancestors(ib, in, &wire);
	in->sender_epoch = wire.epoch;
	in->sender_serial = wire.serial;
	in->distance = Min(wire.distance, ENT_MAX_DISTANCE);
	if (in->lost && !wire.lost)
		in->sought_epoch = 0;	/* what was in vain is worth another try */
	in->lost = wire.lost;
	in->partial = wire.partial;
	in->answered = false;
	consider(ib, in, true);
	/* who has not heard of the newest epoch may not know better */
	if (!in->credible && in->sender_epoch >= in->epoch)
		ent_inbound_violation(ENT_REFUSED_HOME, in, 0);
}

/* ---- looking again ---- */

/* What others seek is asked of the route. */
static void
seek_for_others(EntInbound *ib)
{
	ListCell   *lc;

	foreach(lc, ent_seek_through(ib->peer))
	{
		EntSeek    *s = lfirst(lc);
		EntInOwner *in = ent_inbound_owner_of(ib, &s->owner);

		if (in == NULL || !in->wanted)
			continue;
		in->seek = ENT_IN_SEEK_NOW;
		in->seek_epoch = s->epoch;
		in->seek_serial = s->serial;
	}
}

void
ent_inbound_reconsider(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;

	ent_inbound_reconsider_tables(ib);
	ent_inbound_reconsider_ends(ib);
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		consider(ib, in, false);
	seek_for_others(ib);
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (in->seek == ENT_IN_SEEK_NOT)
		{
			/* if it has to be sought again, it is asked again */
			in->sought_at = 0;
			in->sought_epoch = 0;
			in->sought_serial = 0;
		}
	/* a table that joined here may be one that this peer does not offer */
	ib->arrears_due = true;
}

void
ent_inbound_first_offers(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;
	pg_uuid_t  *ids = palloc((hash_get_num_entries(ib->owners) + 1) * sizeof(pg_uuid_t));
	int			n = 0;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		ids[n++] = in->id;
	ent_owner_lose(ib->peer, ids, n);
}
