/*
 * link/inlife.c
 *	  The receiving end: owners that are no more, and owners that moved.
 *
 * Nobody but its home ends an owner. Of that we hear from the home itself, or
 * from the peer that the owner is taken from, which could say as well that all
 * of its objects are gone. What another peer says of a living owner is kept in
 * mind, since that peer may become the route. A home that finds itself
 * buried lives on.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/quiet.h"
#include "base/report.h"
#include "link/inbound_private.h"
#include "store/epoch.h"
#include "store/identity.h"
#include "store/life.h"
#include "store/owner.h"
#include "store/value.h"

/* Epochs that a peer may be ahead of us; one that claims more is not believed. */
#define MAX_AHEAD		100

static int32
believable(int32 epoch, int32 ours)
{
	return epoch > ours && epoch - ours > MAX_AHEAD ? ours + MAX_AHEAD : epoch;
}

static void
report(EntInbound *ib, const char *sqlstate, const char *message,
	   const char *hint)
{
	int64		more;
	char	   *detail;

	ent_shmem_set_error(ib->slot, sqlstate, ent_report_text(message, NULL, hint));
	if (!ent_quiet_due(ib->peer, "life", 0, &more))
		return;
	detail = ent_quiet_more(more);
	ereport(LOG, (errmsg("%s", message), detail ? errdetail("%s", detail) : 0,
				  errhint("%s", hint)));
}

/* ---- the end ---- */

/* Is the peer the one we take the owner from, or could it be? */
static bool
may_be_route(EntInbound *ib, const EntOwner *o)
{
	return o->peer == ib->peer || !ent_owner_up(o);
}

/*
 * The home, or the route, unless it is pinned to others. As long as the home is
 * a peer of ours that is merely away, others do not speak in its place.
 */
static bool
speaks_for(EntInbound *ib, const EntOwner *o)
{
	return ent_owner_may_speak(o, ib->peer) &&
		(ent_inbound_is_node(ib, &o->home) || o->peer == ib->peer ||
		 (may_be_route(ib, o) && !ent_life_home_is_peer(o)));
}

static void
end_owner(EntInbound *ib, const EntOwner *o, int32 epoch)
{
	EntInOwner *in = ent_inbound_owner_of(ib, &o->id);

	if (!ent_life_end(o, believable(epoch, o->epoch), ib->peer, ib->role))
		return;
	if (in != NULL)
		ent_inbound_ignore(in);
	ereport(LOG,
			(errmsg("owner \"%s\" is no more: its rows are deleted here", o->name)));
}

/*
 * A peer has buried an owner that is at home here. When that was done in our
 * name, this database was restored from an older state: it goes on from there.
 */
static void
live_on(EntInbound *ib, const EntOwner *o, const EntGrave *g)
{
	int32		epoch = believable(g->epoch, o->epoch) + 1;

	if (epoch <= g->epoch)
		return;					/* nobody is so far ahead */
	if (memcmp(&g->home, &o->home, sizeof(pg_uuid_t)) == 0)
	{
		MemoryContext old;

		/* told once, it knows better: it was offered the new life */
		if (list_member_int(ib->lived_on, o->no))
			return;
		old = MemoryContextSwitchTo(ib->context);
		ib->lived_on = lappend_int(ib->lived_on, o->no);
		MemoryContextSwitchTo(old);
		ereport(LOG,
				(errmsg("owner \"%s\" starts epoch %d: a peer was told that it is no more",
						o->name, epoch),
				 errdetail("This database was restored from an older state. If the owner is not to be: entanglement.drop_owner.")));
		ent_epoch_begin(o->no, epoch);
	}
	else if (ent_life_may_move(o, ib->peer, false))
	{
		ent_life_move(o, &g->home);
		end_owner(ib, ent_owner_get(o->no), g->epoch);
	}
	else
		report(ib, "55000",
			   psprintf("owner \"%s\" was adopted and dropped elsewhere, as the peer says; this node goes on as its home",
						o->name),
			   "If that is right: SELECT entanglement.drop_owner(...).");
}

static void
remember(EntInbound *ib, const EntGrave *g)
{
	HASHCTL		ctl = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(EntGrave),
	.hcxt = ib->context};
	EntGrave   *r;

	if (ib->rumours == NULL)
		ib->rumours = hash_create("entanglement rumours", 16, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	r = hash_search(ib->rumours, &g->id, HASH_ENTER, NULL);
	r->home = g->home;
	r->epoch = g->epoch;
}

/* False: it stays a rumour. */
static bool
hear(EntInbound *ib, const EntGrave *g)
{
	EntOwner   *o = ent_owner_by_id(&g->id);

	if (o == NULL || o->gone || g->epoch < o->epoch)
		return true;
	if (o->local)
		live_on(ib, o, g);
	else if (speaks_for(ib, o))
		end_owner(ib, o, g->epoch);
	else
		return false;
	return true;
}

static void
malformed(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("malformed batch from peer"),
			 errdetail_internal("%s", detail)));
}

void
ent_inbound_take_gone(EntInbound *ib, EntReader *body)
{
	EntWireGone wire;
	EntGrave	g;

	ent_wire_read_gone(body, &wire);
	ent_inbound_check(body, "gone");
	if (++ib->ends > ENT_WIRE_MAX_GONE)
		malformed(psprintf("It speaks of more than %d owners that are no more.",
						   ENT_WIRE_MAX_GONE));
	memcpy(g.id.data, wire.id.bytes, UUID_LEN);
	memcpy(g.home.data, wire.home.bytes, UUID_LEN);
	g.epoch = wire.epoch;
	/* of owners that are known here: there cannot be too many */
	if (!hear(ib, &g))
		remember(ib, &g);
}

void
ent_inbound_reconsider_ends(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntGrave   *g;

	if (ib->rumours == NULL)
		return;
	hash_seq_init(&seq, ib->rumours);
	while ((g = hash_seq_search(&seq)) != NULL)
		if (hear(ib, g))
			(void) hash_search(ib->rumours, &g->id, HASH_REMOVE, NULL);
}

/*
 * Only its home starts an owner's next life. Of a home that is a peer of ours
 * others need not tell us.
 */
static bool
lives_again(EntInbound *ib, EntInOwner *in, const EntGrave *g)
{
	EntOwner	o = {.home = in->home};

	return in->sender_epoch > g->epoch &&
		memcmp(&in->home, &g->home, sizeof(pg_uuid_t)) == 0 &&
		(ent_inbound_is_node(ib, &in->home) ||
		 (in->distance > 0 && !ent_life_home_is_peer(&o)));
}

bool
ent_inbound_is_dead(EntInbound *ib, EntInOwner *in, bool fresh)
{
	EntGrave	g;
	bool		ours = memcmp(&in->home, &ent_identity_get()->id,
							  sizeof(pg_uuid_t)) == 0;

	if (!ent_life_grave(&in->id, &g))
		return ours;			/* what is at home here would be known here */
	if (!ours && lives_again(ib, in, &g))
	{
		if (ent_owner_by_id(&in->id) == NULL)
			ent_life_revive(&in->id);
		return false;
	}
	if (fresh)
		ent_life_remind(&in->id, ib->peer);
	return true;
}

/* ---- what a home no longer has ---- */

/* Ids of all that the peer offers; *here: how many as at home there. */
static HTAB *
offered_ids(EntInbound *ib, uint32 *here)
{
	HASHCTL		ctl = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(pg_uuid_t),
	.hcxt = CurrentMemoryContext};
	HTAB	   *ids = hash_create("entanglement owners offered", 64, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	HASH_SEQ_STATUS seq;
	EntInOwner *in;

	*here = 0;
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
	{
		(void) hash_search(ids, &in->id, HASH_ENTER, NULL);
		if (in->distance == 0 && ent_inbound_is_node(ib, &in->home))
			(*here)++;
	}
	return ids;
}

/* Those that it knows to be at home elsewhere are not missing. */
static void
add_elsewhere(HTAB *ids, EntReader *body)
{
	for (int n = 0; !ent_wire_at_end(body); n++)
	{
		EntWireUuid id;

		if (n == ENT_WIRE_MAX_OWNERS)
			ent_wire_fail(body, ENT_WIRE_LIMIT);
		ent_wire_read_elsewhere(body, &id);
		(void) hash_search(ids, &id, HASH_ENTER, NULL);
	}
	ent_inbound_check(body, "homes");
}

/*
 * The peer has offered all owners that are at home with it. Those that we knew
 * to be, before it can have looked, and that it did not offer it has no longer.
 */
void
ent_inbound_take_homes(EntInbound *ib, EntReader *body)
{
	EntWireHomes homes;
	uint32		here;
	HTAB	   *ids = offered_ids(ib, &here);
	ListCell   *lc;

	if (ib->homes_heard)
		malformed("It says twice on a connection which owners are at home there.");
	ib->homes_heard = true;
	ent_wire_read_homes(body, &homes);
	add_elsewhere(ids, body);
	if (homes.here != here)
		malformed(psprintf("It speaks of %u owners at home there; %u were offered.",
						   homes.here, here));
	foreach(lc, ent_owner_all())
	{
		EntOwner   *o = lfirst(lc);

		if (!o->local && !o->gone && o->no <= ib->newest &&
			ent_inbound_is_node(ib, &o->home) &&
			hash_search(ids, &o->id, HASH_FIND, NULL) == NULL)
			end_owner(ib, o, o->epoch);
	}
}

/* ---- another home ---- */

/* Kept in mind, and told once, where the administrator looks. */
static bool
dispute(EntInbound *ib, EntInOwner *in, const char *sqlstate,
		const char *message, const char *hint)
{
	in->credible = false;
	if (!in->disputed)
		report(ib, sqlstate, message, hint);
	in->disputed = true;
	return false;
}

/* The old home goes on, or follows the peer that it was told to believe. */
static bool
follow(EntInbound *ib, EntInOwner *in, const EntOwner *o)
{
	if (!ent_life_may_move(o, ib->peer, false))
		return dispute(ib, in, "55000",
					   psprintf("owner \"%s\" has been adopted by another node, as the peer says; this node goes on as its home",
								o->name),
					   "If that is right, let this node follow: entanglement.bind_owner names the peers that may say so.");
	ereport(LOG,
			(errmsg("owner \"%s\" has been adopted by another node: this node follows it from now on",
					o->name),
			 errdetail("It is at home at node %s now, in epoch %d. What was changed here and had not come there is lost.",
					   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&in->home))),
					   in->sender_epoch),
			 errhint("New rows of that owner are asked of it. entanglement.create_owner makes an owner of this node's own.")));
	ent_life_move(o, &in->home);
	return true;
}

bool
ent_inbound_moved(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	/*
	 * Only a home says that it is at home there. Who relays may have heard of
	 * the move before he hears of the epoch. After an epoch beyond all there could
	 * be no other home.
	 */
	in->credible = believable(in->sender_epoch, o->epoch) == in->sender_epoch &&
		(in->distance > 0 || in->sender_epoch < o->epoch ||
		 (in->sender_epoch > o->epoch && ent_inbound_is_node(ib, &in->home)));
	/* an old home, or somebody who has not heard, has nothing to say */
	if (!in->credible || in->sender_epoch <= o->epoch)
		return false;
	if (o->local)
		return follow(ib, in, o);
	if (!ent_life_may_move(o, ib->peer, may_be_route(ib, o)))
		return dispute(ib, in, "42501",
					   psprintf("the peer offers owner \"%s\", which is at home elsewhere, as adopted by another node; refused",
								o->name),
					   "If its home is lost for good: entanglement.drop_peer forgets it, or entanglement.bind_owner names the peers that may say so.");
	ereport(LOG,
			(errmsg("owner \"%s\" has been adopted by node %s", o->name,
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&in->home))))));
	ent_life_move(o, &in->home);
	return true;
}
