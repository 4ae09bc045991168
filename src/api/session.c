/*
 * api/session.c
 *	  A peer's session on one connection of the exchange.
 *
 * Place: api. All state of a direction is here and dies with the connection;
 * a newer connection takes its place. A session whose transaction aborted is
 * not used again: what is in memory may be ahead of what is durable.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "api/session.h"
#include "base/wake.h"
#include "guard/role.h"
#include "store/identity.h"

static EntSession sessions[2];

int64
ent_session_clock(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MICROSEC(t);
}

EntDirection
ent_session_direction(const char *text)
{
	if (strcmp(text, "push") == 0)
		return ENT_PUSH;
	if (strcmp(text, "pull") == 0)
		return ENT_PULL;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("direction must be \"push\" or \"pull\", not \"%s\"",
					text)));
	return ENT_PUSH;
}

/* Gives back the end of the link, if it is still ours. */
static void
leave_link(EntSession *s)
{
	if (!ent_shmem_holds(s->end, s->generation))
		return;
	ent_shmem_release(s->end, s->generation);
	if (s->end == &s->slot->sender)
		ent_shmem_acked(s->slot, 0);
	if (s->slot->state == ENT_LINK_CONNECTED ||
		s->slot->state == ENT_LINK_CONNECTING)
		ent_shmem_set_state(s->slot, s->slot->dialer.pid != 0 ?
							ENT_LINK_DOWN : ENT_LINK_WAITING, NULL, NULL);
	ent_shmem_routes_changed();
}

/* May be called at any time. */
static void
close_session(EntSession *s)
{
	EntSession		was = *s;

	if (!was.open)
		return;
	memset(s, 0, sizeof(*s));
	leave_link(&was);
	if (was.in != NULL)
		ent_inbound_destroy(was.in);
	if (was.out != NULL)
		ent_outbound_destroy(was.out);
	MemoryContextDelete(was.context);
}

static void
leave_at_exit(int code, Datum arg)
{
	for (int i = 0; i < lengthof(sessions); i++)
		if (sessions[i].open)
			leave_link(&sessions[i]);
}

static void
end_transaction(bool committed, SubTransactionId level)
{
	for (int i = 0; i < lengthof(sessions); i++)
	{
		if (!sessions[i].dirty || sessions[i].used_in < level)
			continue;
		sessions[i].dirty = false;
		if (!committed)
			close_session(&sessions[i]);
	}
}

static void
at_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		end_transaction(true, TopSubTransactionId);
	else if (event == XACT_EVENT_ABORT)
		end_transaction(false, TopSubTransactionId);
}

static void
at_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				  SubTransactionId parentSubid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		end_transaction(false, mySubid);
}

static void
watch(void)
{
	static bool watching = false;

	if (!watching)
	{
		before_shmem_exit(leave_at_exit, (Datum) 0);
		RegisterXactCallback(at_transaction, NULL);
		RegisterSubXactCallback(at_subtransaction, NULL);
	}
	watching = true;
}

uint64
ent_session_routes(void)
{
	EntDatabaseSlot *database = ent_shmem_database(true);

	return database ? pg_atomic_read_u64(&database->routes) : 0;
}

/* A copy of the peer that lasts as long as the session. */
static void
keep_peer(EntSession *s, const EntPeer *peer)
{
	MemoryContext old = MemoryContextSwitchTo(s->context);
	EntPeer    *copy = palloc(sizeof(EntPeer));

	*copy = *peer;
	copy->conninfo = NULL;
	copy->name = pstrdup(peer->name);
	copy->fingerprint = peer->fingerprint ? pstrdup(peer->fingerprint) : NULL;
	s->peer = copy;
	MemoryContextSwitchTo(old);
}

void
ent_session_open(EntDirection direction, int32 no)
{
	EntSession *s = &sessions[direction];
	EntPeer    *peer = ent_peer_get(no);	/* bound by now */
	MemoryContext old;

	close_session(s);
	watch();
	memset(s, 0, sizeof(*s));
	s->slot = ent_shmem_peer(no, true);
	if (peer == NULL || s->slot == NULL)
		elog(ERROR, "peer %d has gone", no);
	s->context = AllocSetContextCreate(TopMemoryContext,
									   "entanglement exchange",
									   ALLOCSET_SMALL_SIZES);
	s->routes = ent_session_routes();
	keep_peer(s, peer);

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (direction == ENT_PUSH)
	{
		s->in = ent_inbound_create(peer->no, peer->role, s->slot);
		ent_inbound_begin(s->in);
		s->unpacker = ent_unpack_create(s->context);
		ent_role_log_excess(peer->role, peer->name);
	}
	else
	{
		s->out = ent_outbound_create(peer->no, peer->role, s->slot);
		s->packer = ent_pack_create(s->context);
	}
	MemoryContextSwitchTo(old);
	ent_pace_init(&s->pace, peer->bandwidth, ent_session_clock());

	s->end = direction == ENT_PUSH ? &s->slot->receiver : &s->slot->sender;
	s->generation = ent_shmem_take(s->end);
	ent_shmem_expect_call(s->end, true);
	s->open = s->dirty = true;
	s->used_in = GetCurrentSubTransactionId();
	if (s->slot->sender.pid != 0 && s->slot->receiver.pid != 0)
	{
		ent_shmem_set_state(s->slot, ENT_LINK_CONNECTED, "", "");
		ent_wake_routes_at_commit();
	}
	else
		ent_shmem_set_state(s->slot, ENT_LINK_CONNECTING, NULL, NULL);
}

void
ent_session_check(EntSession *s)
{
	if (s->slot->database != MyDatabaseId || s->slot->peer != s->peer->no)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("peer \"%s\" was dropped", s->peer->name)));
	if (!ent_shmem_holds(s->end, s->generation))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("this connection of peer \"%s\" was superseded by a newer one",
						s->peer->name)));
}

void
ent_session_look(EntSession *s)
{
	EntPeer    *peer = ent_peer_get(s->peer->no);
	EntPeer    *was = s->peer;

	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("peer \"%s\" was dropped", was->name)));
	if (peer->paused)
	{
		ent_shmem_set_state(s->slot, ENT_LINK_PAUSED, NULL, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("peer \"%s\" is paused", peer->name),
				 errhint("On the node that reports this: SELECT entanglement.resume_peer(%s).",
						 quote_literal_cstr(peer->name))));
	}
	if (peer->role != was->role || !peer->has_node ||
		memcmp(&peer->node, &was->node, sizeof(pg_uuid_t)) != 0 ||
		(peer->fingerprint == NULL) != (was->fingerprint == NULL) ||
		(peer->fingerprint != NULL &&
		 strcmp(peer->fingerprint, was->fingerprint) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("peer \"%s\" was altered; it must connect anew",
						peer->name)));
	if (peer->bandwidth != was->bandwidth)
	{
		ent_pace_set_bandwidth(&s->pace, peer->bandwidth, ent_session_clock());
		was->bandwidth = peer->bandwidth;
	}
}

EntSession *
ent_session_use(EntDirection direction)
{
	EntSession    *s = &sessions[direction];

	ent_shmem_require("entanglement's exchange");
	if (!s->open)
		ent_identity_refuse_undecided();
	if (!s->open)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no %s session on this connection",
						direction == ENT_PUSH ? "push" : "pull"),
				 errdetail("It begins with entanglement.hello and ends with the first error."),
				 errhint("The exchange is for nodes of entanglement, not for people.")));
	s->dirty = true;			/* from here on an error ends it */
	s->used_in = GetCurrentSubTransactionId();
	ent_session_check(s);
	ent_shmem_expect_call(s->end, false);
	return s;
}
