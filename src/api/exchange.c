/*
 * api/exchange.c
 *	  The exchange as the accepting node serves it: hello, push, pull.
 *
 * Place: api; called by the peer's login, one connection per direction. All
 * state of a direction is in its session here and dies with the connection;
 * a newer connection takes it over. A session whose transaction aborted is
 * not used again: what is in memory may be ahead of what is durable.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "link/greet.h"
#include "link/hello.h"
#include "link/inbound.h"
#include "link/outbound.h"
#include "rule/pace.h"

PG_FUNCTION_INFO_V1(ent_sql_hello);
PG_FUNCTION_INFO_V1(ent_sql_push);
PG_FUNCTION_INFO_V1(ent_sql_pull);

/* Claims and parked rows fall due by themselves; looked at this often. */
#define LOOK_US		1000000

typedef enum Direction
{
	PUSH = 0,					/* the peer sends, we receive */
	PULL = 1,					/* we send, the peer receives */
} Direction;

typedef struct Session
{
	bool		open;
	bool		dirty;			/* a transaction that used it is running */
	SubTransactionId used_in;	/* ... at this level: apply rolls back levels of
								 * its own below it */
	EntPeer    *peer;			/* as of the last look */
	MemoryContext context;		/* holds peer */
	EntPeerSlot *slot;
	EntEnd	   *end;			/* of slot, ours while generation is current */
	uint32		generation;
	uint64		routes;			/* database slot's, at the last look */
	EntInbound *in;				/* PUSH */
	EntOutbound *out;			/* PULL */
	EntPace		pace;			/* PULL */
	size_t		in_flight;		/* PULL: bytes of the batch not yet answered */
} Session;

static Session sessions[2];

static int64
now_us(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MICROSEC(t);
}

/* ---- a session's life ---- */

/* Gives back the end of the link, if it is still ours. */
static void
leave_link(Session *s)
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
close_session(Session *s)
{
	Session		was = *s;

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

static uint64
current_routes(void)
{
	EntDatabaseSlot *database = ent_shmem_database(true);

	return database ? pg_atomic_read_u64(&database->routes) : 0;
}

/* A copy of the peer that lasts as long as the session. */
static void
keep_peer(Session *s, const EntPeer *peer)
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

static void
open_session(Session *s, Direction direction, int32 no)
{
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
	s->routes = current_routes();
	keep_peer(s, peer);

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (direction == PUSH)
		s->in = ent_inbound_create(peer->no, peer->role, s->slot);
	else
		s->out = ent_outbound_create(peer->no, peer->role, s->slot);
	MemoryContextSwitchTo(old);
	ent_pace_init(&s->pace, peer->bandwidth, now_us());

	s->end = direction == PUSH ? &s->slot->receiver : &s->slot->sender;
	s->generation = ent_shmem_take(s->end);
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

static void
check_held(Session *s)
{
	if (!ent_shmem_holds(s->end, s->generation))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("this connection of peer \"%s\" was superseded by a newer one",
						s->peer->name)));
}

/*
 * The configuration has changed: is the peer still what it was? In a
 * transaction with SPI.
 */
static void
look_again(Session *s)
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
		ent_pace_set_bandwidth(&s->pace, peer->bandwidth, now_us());
		was->bandwidth = peer->bandwidth;
	}
}

/* The session for this call; raises unless there is one and it is ours. */
static Session *
use_session(Direction direction)
{
	Session    *s = &sessions[direction];

	ent_shmem_require("entanglement's exchange");
	if (!s->open)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no %s session on this connection",
						direction == PUSH ? "push" : "pull"),
				 errdetail("It begins with entanglement.hello and ends with the first error."),
				 errhint("The exchange is for nodes of entanglement, not for people.")));
	s->dirty = true;			/* from here on an error ends it */
	s->used_in = GetCurrentSubTransactionId();
	check_held(s);
	return s;
}

/* ---- hello ---- */

/* What a long conversation needs, whatever the database's defaults are. */
static void
prepare_connection(void)
{
	const struct
	{
		const char *name;
		const char *value;
	}			settings[] = {
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"tcp_keepalives_idle", psprintf("%d", Max(1, ent_heartbeat / 1000))},
		{"tcp_keepalives_interval",
		psprintf("%d", Max(1, ent_dead_after / 4000))},
		{"tcp_keepalives_count", "3"},
		{"tcp_user_timeout", psprintf("%d", ent_dead_after)},
	};

	for (int i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value,
							PGC_USERSET, PGC_S_SESSION);
}

static Direction
parse_direction(const char *text)
{
	if (strcmp(text, "push") == 0)
		return PUSH;
	if (strcmp(text, "pull") == 0)
		return PULL;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("direction must be \"push\" or \"pull\", not \"%s\"",
					text)));
	return PUSH;
}

static void
refuse_null(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be NULL", argument)));
}

Datum
ent_sql_hello(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Direction	direction;
	EntWireHello hello;
	EntPeer    *peer;
	bytea	   *theirs;
	bytea	   *ours;

	if (PG_ARGISNULL(0))
		refuse_null("direction");
	if (PG_ARGISNULL(1))
		refuse_null("hello");
	direction = parse_direction(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	theirs = PG_GETARG_BYTEA_PP(1);
	ent_shmem_require("entanglement's exchange");
	ent_hello_read(VARDATA_ANY(theirs), VARSIZE_ANY_EXHDR(theirs), &hello);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	peer = ent_greet_caller(&hello);
	ours = ent_hello_build();
	open_session(&sessions[direction], direction, peer->no);
	SPI_finish();
	prepare_connection();
	PG_RETURN_BYTEA_P(ours);
}

/* ---- push ---- */

Datum
ent_sql_push(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Session    *s = use_session(PUSH);
	uint64		routes = current_routes();
	bytea	   *batch;
	bytea	   *answer;

	if (PG_ARGISNULL(0))
		refuse_null("batch");
	batch = PG_GETARG_BYTEA_PP(0);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (routes != s->routes)
		look_again(s);
	s->routes = routes;
	/* the answer says what is durable, so it must be when the peer reads it */
	ForceSyncCommit();
	MemoryContextSwitchTo(caller);
	answer = ent_inbound_apply(s->in, VARDATA_ANY(batch),
							   VARSIZE_ANY_EXHDR(batch));
	SPI_finish();
	PG_RETURN_BYTEA_P(answer);
}

/* ---- pull ---- */

static void
take_answer(Session *s, bytea *answer)
{
	if (answer == NULL)
		refuse_null("answer");
	PushActiveSnapshot(GetTransactionSnapshot());
	ent_outbound_answered(s->out, VARDATA_ANY(answer),
						  VARSIZE_ANY_EXHDR(answer));
	PopActiveSnapshot();
	if (s->in_flight > 0)
	{
		ent_pace_acked(&s->pace, s->in_flight, now_us());
		s->in_flight = 0;
		pg_atomic_write_u64(&s->slot->rate,
							(uint64) ent_pace_rate(&s->pace));
		pg_atomic_write_u64(&s->slot->round_trip,
							Max(ent_pace_rtt(&s->pace), 0));
	}
}

/* Ends the transaction, and with it every snapshot, and begins the next. */
static void
commit(Session *s)
{
	SPI_commit();
	s->dirty = true;
	s->used_in = GetCurrentSubTransactionId();
}

/* A batch in the given context, durable knowledge of ours; or NULL. */
static bytea *
build(Session *s, bool heartbeat, bool may_send, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	size_t		size = 1;
	bytea	   *batch;

	if (may_send)
		size = ent_pace_batch_size(&s->pace, (size_t) ent_max_batch * 1024);
	PushActiveSnapshot(GetTransactionSnapshot());
	batch = ent_outbound_build(s->out, size, heartbeat);
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	commit(s);
	if (batch != NULL)
	{
		s->in_flight = VARSIZE(batch) - VARHDRSZ;
		ent_pace_sent(&s->pace, s->in_flight, now_us());
	}
	return batch;
}

/* Has the configuration changed? Then the peer should push, to be told. */
static void
notice_changes(Session *s)
{
	uint64		routes = current_routes();

	if (routes == s->routes)
		return;
	s->routes = routes;
	PushActiveSnapshot(GetTransactionSnapshot());
	look_again(s);
	PopActiveSnapshot();
	commit(s);
	s->slot->nudge = true;
}

/*
 * Waits, in no transaction that anybody could mind (it has no snapshot and
 * no lock), until there is something to send or a heartbeat is due.
 */
static bytea *
next_batch(Session *s, MemoryContext context)
{
	int64		due = now_us() + (int64) ent_heartbeat * 1000;

	for (;;)
	{
		int64		now;
		int64		pause;
		bool		work;
		bool		heartbeat;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		check_held(s);
		notice_changes(s);

		now = now_us();
		work = ent_outbound_poll(s->out);
		pause = ent_pace_wait(&s->pace, now);
		heartbeat = s->slot->nudge || s->slot->called || now >= due;
		if (heartbeat || (work && pause == 0))
		{
			bytea	   *batch;

			s->slot->called = false;
			batch = build(s, heartbeat, pause == 0, context);

			if (batch != NULL)
				return batch;
		}

		pause = Min(work && pause > 0 ? pause : due - now, LOOK_US);
		InvalidateCatalogSnapshot();
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Max(pause / 1000 + 1, 1), PG_WAIT_EXTENSION);
	}
}

Datum
ent_sql_pull(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Session    *s;
	TupleDesc	tupdesc;
	Datum		values[1];
	bool		nulls[1] = {false};
	bytea	   *answer = PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0);

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("entanglement.pull cannot be called within a transaction block"),
				 errdetail("It waits, and must hold nothing while it does.")));
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	tupdesc = BlessTupleDesc(tupdesc);

	s = use_session(PULL);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	take_answer(s, answer);
	commit(s);
	values[0] = PointerGetDatum(next_batch(s, caller));
	SPI_finish();
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls)));
}
