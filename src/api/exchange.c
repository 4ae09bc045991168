/*
 * api/exchange.c
 *	  The exchange as the accepting node serves it: hello, push, pull.
 *
 * Place: api; called by the peer's login, one connection per direction. The
 * counterpart of worker/live.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "api/session.h"
#include "api/verify.h"
#include "base/cert.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "link/greet.h"
#include "link/hello.h"
#include "store/identity.h"

PG_FUNCTION_INFO_V1(ent_sql_hello);
PG_FUNCTION_INFO_V1(ent_sql_push);
PG_FUNCTION_INFO_V1(ent_sql_pull);

/* Claims and parked rows fall due by themselves; looked at this often. */
#define LOOK_US		1000000

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

static EntDirection
parse_direction(const char *text)
{
	if (strcmp(text, "push") == 0)
		return ENT_PUSH;
	if (strcmp(text, "pull") == 0)
		return ENT_PULL;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("direction must be \"push\", \"pull\" or \"verify\", not \"%s\"",
					text)));
	return ENT_PUSH;
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
	EntDirection direction = ENT_PUSH;
	char	   *name;
	bool		verify;
	EntWireHello hello;
	EntPeer    *peer;
	bytea	   *theirs;
	bytea	   *ours;

	if (PG_ARGISNULL(0))
		refuse_null("direction");
	if (PG_ARGISNULL(1))
		refuse_null("hello");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	verify = strcmp(name, "verify") == 0;
	if (!verify)
		direction = parse_direction(name);
	theirs = PG_GETARG_BYTEA_PP(1);
	ent_shmem_require("entanglement's exchange");
	ent_identity_refuse_undecided();
	ent_hello_read(VARDATA_ANY(theirs), VARSIZE_ANY_EXHDR(theirs), &hello);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	peer = ent_greet_caller(&hello, !verify);
	ours = ent_hello_build();
	if (verify)
		ent_verify_greeted(peer->no);
	else
		ent_session_open(direction, peer->no);
	SPI_finish();
	prepare_connection();
	PG_RETURN_BYTEA_P(ours);
}

/* ---- push ---- */

Datum
ent_sql_push(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	EntSession    *s = ent_session_use(ENT_PUSH);
	uint64		routes = ent_session_routes();
	bytea	   *batch;
	bytea	   *answer;

	if (PG_ARGISNULL(0))
		refuse_null("batch");
	batch = PG_GETARG_BYTEA_PP(0);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (routes != s->routes)
		ent_session_look(s);
	s->routes = routes;
	/* the answer says what is durable, so it must be when the peer reads it */
	ForceSyncCommit();
	MemoryContextSwitchTo(caller);
	answer = ent_inbound_apply(s->in, VARDATA_ANY(batch),
							   VARSIZE_ANY_EXHDR(batch));
	SPI_finish();
	ent_shmem_expect_call(s->end, true);
	PG_RETURN_BYTEA_P(answer);
}

/* ---- pull ---- */

static void
take_answer(EntSession *s, bytea *answer)
{
	if (answer == NULL)
		refuse_null("answer");
	PushActiveSnapshot(GetTransactionSnapshot());
	ent_outbound_answered(s->out, VARDATA_ANY(answer),
						  VARSIZE_ANY_EXHDR(answer));
	PopActiveSnapshot();
	if (s->in_flight > 0)
	{
		ent_pace_acked(&s->pace, s->in_flight, ent_session_clock());
		s->in_flight = 0;
		pg_atomic_write_u64(&s->slot->rate,
							(uint64) ent_pace_rate(&s->pace));
		pg_atomic_write_u64(&s->slot->round_trip,
							Max(ent_pace_rtt(&s->pace), 0));
	}
}

/* Ends the transaction, and with it every snapshot, and begins the next. */
static void
commit(EntSession *s)
{
	SPI_commit();
	s->dirty = true;
	s->used_in = GetCurrentSubTransactionId();
}

/* A batch in the given context, durable knowledge of ours; or NULL. */
static bytea *
build(EntSession *s, bool heartbeat, bool may_send, MemoryContext context)
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
		ent_pace_sent(&s->pace, s->in_flight, ent_session_clock());
	}
	return batch;
}

/* Has the configuration changed? Then the peer should push, to be told. */
static void
notice_changes(EntSession *s)
{
	uint64		routes = ent_session_routes();

	if (routes == s->routes)
		return;
	s->routes = routes;
	PushActiveSnapshot(GetTransactionSnapshot());
	ent_session_look(s);
	PopActiveSnapshot();
	commit(s);
	s->slot->nudge = true;
}

/* Nobody would mind this wait: no snapshot is held. */
static void
wait_for_work(long ms)
{
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;

	if (WaitEventSetCanReportClosed())
		events |= WL_SOCKET_CLOSED;
	InvalidateCatalogSnapshot();
	if (WaitLatchOrSocket(MyLatch, events, ent_cert_client_socket(), ms,
						  PG_WAIT_EXTENSION) & WL_SOCKET_CLOSED)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the peer has closed the connection")));
}

/*
 * Waits, in no transaction that anybody could mind (it has no snapshot and
 * no lock), until there is something to send or a heartbeat is due.
 */
static bytea *
next_batch(EntSession *s, MemoryContext context)
{
	int64		due = ent_session_clock() + (int64) ent_heartbeat * 1000;

	for (;;)
	{
		int64		now;
		int64		pause;
		bool		work;
		bool		heartbeat;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		ent_session_check(s);
		notice_changes(s);

		now = ent_session_clock();
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
		wait_for_work((long) Max(pause / 1000 + 1, 1));
	}
}

Datum
ent_sql_pull(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	EntSession    *s;
	TupleDesc	tupdesc;
	Datum		values[1];
	bool		nulls[1] = {false};
	bytea	   *answer = PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0);

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("entanglement.pull cannot run inside a transaction block"),
				 errdetail("It waits, and must hold nothing while it does."),
				 errhint("The exchange is for nodes of entanglement, not for people.")));
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	tupdesc = BlessTupleDesc(tupdesc);

	s = ent_session_use(ENT_PULL);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	take_answer(s, answer);
	commit(s);
	values[0] = PointerGetDatum(next_batch(s, caller));
	SPI_finish();
	ent_shmem_expect_call(s->end, true);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls)));
}
