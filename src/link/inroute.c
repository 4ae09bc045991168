/*
 * link/inroute.c
 *	  The receiving end: which owners we take from this peer, and what it is
 *	  told about them.
 *
 * An owner's objects are taken from one peer at a time, its route: the one
 * that offered the shortest way, as long as its link lives. What passed by
 * before a table or column was here stands in entanglement.arrears and is
 * asked for until it has come.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "base/guc.h"
#include "base/ring.h"
#include "base/wake.h"
#include "link/inbound_private.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/value.h"

static EntQuery switch_arrears_query = {
	"INSERT INTO entanglement.arrears (owner, rel) "
	"SELECT $1, r.no FROM entanglement.relation r "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.relid "
	"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
	"JOIN entanglement.peer_table f ON f.peer OPERATOR(pg_catalog.=) $3 AND f.known "
	"AND f.schema_name OPERATOR(pg_catalog.=) n.nspname "
	"AND f.table_name OPERATOR(pg_catalog.=) c.relname "
	"WHERE NOT EXISTS (SELECT 1 FROM entanglement.peer_table p "
	"WHERE p.peer OPERATOR(pg_catalog.=) $2 AND p.known "
	"AND p.schema_name OPERATOR(pg_catalog.=) n.nspname "
	"AND p.table_name OPERATOR(pg_catalog.=) c.relname "
	"AND f.mapped OPERATOR(pg_catalog.<@) p.mapped) ON CONFLICT DO NOTHING",
	3, {INT4OID, INT4OID, INT4OID}, NULL
};
static EntQuery arrears_query = {
	"SELECT o.id, a.rel FROM entanglement.arrears a "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) a.owner "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery no_arrears_query = {
	"DELETE FROM entanglement.arrears a USING entanglement.owner o "
	"WHERE o.no OPERATOR(pg_catalog.=) a.owner AND o.peer OPERATOR(pg_catalog.=) $1 "
	"AND a.rel OPERATOR(pg_catalog.<>) ALL ($2) RETURNING a.owner",
	2, {INT4OID, INT4ARRAYOID}, NULL
};

static EntQuery haves_query = {
	"SELECT u.n, o.epoch, o.serial "
	"FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(no, n) "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) u.no",
	1, {INT4ARRAYOID}, NULL
};

/* ---- owners ---- */

/* Is that peer's link up, so that it may keep the route it has? */
static bool
route_lives(int32 peer)
{
	EntPeerSlot *slot = ent_shmem_peer(peer, false);

	return slot != NULL && slot->state == ENT_LINK_CONNECTED;
}

static void
take_route(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	char	   *name = ent_name_from_wire(in->name);
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = o->no};

	if (o->peer == ib->peer && o->distance == in->distance + 1 &&
		strcmp(o->name, name) == 0)
		return;
	if (o->peer != ib->peer && o->serial > 0)
	{
		/* the new route may offer tables or columns the old one did not */
		Datum		args[3] = {Int32GetDatum(o->no), Int32GetDatum(o->peer),
		Int32GetDatum(ib->peer)};

		ent_query_run(&switch_arrears_query, args, NULL, SPI_OK_INSERT, NULL);
	}
	ent_owner_set_route(o->no, ib->peer, in->distance + 1, name);
	if (o->peer != ib->peer)
		in->have = o->sure;		/* the route before still owed the rest */
	ent_wake_post_at_commit(&ev);	/* advertise it further */
	ent_wake_routes_at_commit();
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
	return ent_owner_get(no);
}

/* Only an owner's home says that it is at home there, and homes do not change. */
static bool
credible(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	if (!ib->node_known)
	{
		EntPeer    *peer = ent_peer_get(ib->peer);

		if (peer == NULL || !peer->has_node)
			return false;
		ib->node = peer->node;
		ib->node_known = true;
	}
	return memcmp(&in->home, &o->home, sizeof(pg_uuid_t)) == 0 &&
		(in->distance > 0 || memcmp(&in->home, &ib->node, sizeof(pg_uuid_t)) == 0);
}

/* Decides whether this owner is to come from this peer. */
static void
consider(EntInbound *ib, EntInOwner *in)
{
	EntOwner   *o = ent_owner_by_id(&in->id);
	bool		believed,
				want;

	if (o == NULL)
		o = learn(ib, in);
	if (o == NULL)
		return;
	believed = o->local || credible(ib, in, o);
	if (!believed)
		report(ib, &in->refused, "42501",
			   psprintf("the peer offers owner \"%s\", which is at home elsewhere, as its own; refused",
						ent_name_from_wire(in->name)));
	in->local = o->local;
	in->no = o->local ? 0 : o->no;
	in->epoch = o->epoch;
	in->have = o->serial;
	in->told = o->told;
	want = !o->local && believed && in->distance + 1 < ENT_MAX_DISTANCE &&
		in->sender_epoch >= o->epoch &&
		(o->peer == 0 || o->peer == ib->peer ||
		 in->distance + 1 < o->distance || !route_lives(o->peer));
	if (want != in->wanted)
	{
		in->answered = false;
		in->asked = false;
		ib->arrears_due = true;
	}
	in->wanted = want;
	if (want)
		take_route(ib, in, o);
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
		memset((char *) in + sizeof(uint32), 0, sizeof(EntInOwner) - sizeof(uint32));
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
	in->sender_epoch = wire.epoch;
	in->distance = Min(wire.distance, ENT_MAX_DISTANCE);
	in->answered = false;
	consider(ib, in);
}

/* ---- looking again, and answering ---- */

void
ent_inbound_reconsider(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;

	ent_inbound_reconsider_tables(ib);
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		consider(ib, in);
	/* a table that joined here may be one that this peer does not offer */
	ib->arrears_due = true;
}

static EntInTable *
table_of(EntInbound *ib, int32 rel)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known && t->rel == rel)
		{
			hash_seq_term(&seq);
			return t;
		}
	return NULL;
}

static EntInOwner *
owner_of(EntInbound *ib, const pg_uuid_t *id)
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

/* Arrears in tables this peer does not offer cannot be paid by it. */
static void
forget_unpayable(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;
	Datum	   *rels = palloc((hash_get_num_entries(ib->tables) + 1) * sizeof(Datum));
	int			n = 0;
	Datum		args[2] = {Int32GetDatum(ib->peer)};

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known)
			rels[n++] = Int32GetDatum(t->rel);
	args[1] = ent_query_array(INT4OID, rels, NULL, n);
	ent_query_run(&no_arrears_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
	if (SPI_processed > 0)
		ent_wake_routes_at_commit();
	SPI_freetuptable(SPI_tuptable);
}

static void
answer_arrears(EntInbound *ib, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *o;
	EntInTable *table;
	Datum		args[1] = {Int32GetDatum(ib->peer)};

	ent_query_run(&arrears_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		null;
		EntInOwner *in = owner_of(ib, DatumGetUUIDP(ent_query_datum(row, 1, &null)));
		EntInTable *t = table_of(ib, ent_query_int4(row, 2, NULL));
		EntWireArrears a;

		if (in == NULL || !in->wanted || t == NULL || (in->asked && !t->fresh))
			continue;
		a.owner = in->number;
		a.table = t->number;
		ent_wire_write_arrears(w, ENT_SECTION_ARREARS, &a);
	}
	SPI_freetuptable(SPI_tuptable);
	hash_seq_init(&seq, ib->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		o->asked = o->wanted;
	hash_seq_init(&seq, ib->tables);
	while ((table = hash_seq_search(&seq)) != NULL)
		table->fresh = false;
	ib->arrears_due = false;
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
		EntWireWant want = {.owner = in->number, .wanted = in->wanted,
		.epoch = in->have > 0 ? in->epoch : 0, .have = in->have};

		if (in->answered)
			continue;
		if (in->ignored)
		{
			/* wanted again, it must begin again */
			want.wanted = in->based = false;
			ent_wire_write_want(w, &want);
			want.wanted = in->wanted;
		}
		if (in->wanted || !in->ignored)
			ent_wire_write_want(w, &want);
		in->answered = true;
		in->ignored = false;
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
	if (!ib->arrears_due || !ib->announced)
		return;
	forget_unpayable(ib);
	answer_arrears(ib, w);
}
