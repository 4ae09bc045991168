/*
 * api/exchange.c
 *	  The exchange as the accepting node serves it: push, pull, stream.
 *
 * Place: api; called by the peer's login, one connection per direction, after
 * hello. The counterpart of worker/live.c. A stream is what nodes use; push and
 * pull are the same with one message in each call, for anything that speaks SQL.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "api/session.h"
#include "base/cert.h"
#include "base/durable.h"
#include "base/guc.h"
#include "base/reuse.h"
#include "base/shmem.h"
#include "base/stream.h"
#include "rule/wire.h"

PG_FUNCTION_INFO_V1(ent_sql_push);
PG_FUNCTION_INFO_V1(ent_sql_pull);
PG_FUNCTION_INFO_V1(ent_sql_stream);

/* Claims and parked rows fall due by themselves; looked at this often. */
#define LOOK_US		1000000
#define MAX_FIRST	4096		/* bytes of a batch that leaves before its transaction
								 * has ended */

static void
refuse_null(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be NULL", argument)));
}

static void
refuse_transaction(FunctionCallInfo fcinfo, const char *procedure)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", procedure),
				 errdetail("It waits, and must hold nothing while it does."),
				 errhint("The exchange is for nodes of entanglement, not for people.")));
}

/*
 * Ends the transaction, and with it every snapshot, and begins the next. In between, which
 * SPI_commit does not let us, the server is told what was done to tables: a call that
 * lasts for days would hide it from autovacuum.
 */
static void
commit(void *session)
{
	EntSession *s = session;
	MemoryContext context = CurrentMemoryContext;

	SPI_finish();
	ForgetPortalSnapshots();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	StartTransactionCommand();
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
	s->dirty = true;
	s->used_in = GetCurrentSubTransactionId();
}

/* Between two messages of a stream; before looking for work. */
static void
look_up(EntSession *s)
{
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	ent_session_check(s);
}

/* ---- what the peer sends ---- */

/* Needs SPI. The answer in the current context; true when committed. */
static bytea *
apply(EntSession *s, const char *batch, size_t len)
{
	MemoryContext context = CurrentMemoryContext;
	uint64		routes = ent_session_routes();

	if (routes != s->routes)
		ent_session_look(s);
	s->routes = routes;
	MemoryContextSwitchTo(context);
	return ent_inbound_apply(s->in, batch, len);
}

Datum
ent_sql_push(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	EntSession *s = ent_session_use(ENT_PUSH);
	bytea	   *batch;
	bytea	   *answer;

	if (PG_ARGISNULL(0))
		refuse_null("batch");
	batch = PG_GETARG_BYTEA_PP(0);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	pg_atomic_fetch_add_u64(&s->slot->bytes_received, VARSIZE_ANY_EXHDR(batch));
	/* the answer says what is durable, so it must be when the peer reads it */
	ForceSyncCommit();
	answer = apply(s, VARDATA_ANY(batch), VARSIZE_ANY_EXHDR(batch));
	SPI_finish();
	ent_shmem_expect_call(s->end, true);
	PG_RETURN_BYTEA_P(answer);
}

/* One batch of a stream, and its answer. */
static void
take_batch(EntSession *s, EntStream *io)
{
	bytea	   *answer;
	const char *batch = io->message.data;
	size_t		len = io->message.len;

	commit(s);					/* now() is when it has come */
	(void) ent_session_use(ENT_PUSH);
	PushActiveSnapshot(GetTransactionSnapshot());
	pg_atomic_fetch_add_u64(&s->slot->bytes_received, len);
	ent_unpack(s->unpacker, &batch, &len);
	answer = apply(s, batch, len);
	PopActiveSnapshot();
	ent_durable_commit_later(commit, s);
	ent_durable_flush();
	ent_stream_write(VARDATA_ANY(answer), VARSIZE_ANY_EXHDR(answer));
	ent_shmem_expect_call(s->end, true);
}

static void
receive(EntSession *s, EntStream *io, MemoryContext message)
{
	while (!io->ended)
	{
		look_up(s);
		if (ent_stream_read(io, ENT_WIRE_MAX_BATCH))
		{
			MemoryContextSwitchTo(message);
			take_batch(s, io);
			MemoryContextReset(message);
		}
		else if (!io->ended)
		{
			InvalidateCatalogSnapshot();
			ent_stream_wait(-1);
		}
	}
}

/* ---- what the peer is sent ---- */

static void
take_answer(EntSession *s, const char *answer, size_t len)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	ent_outbound_answered(s->out, answer, len);
	PopActiveSnapshot();
	commit(s);
	ent_outbound_heard(s->out);
	if (ent_pace_in_flight(&s->pace) == 0)
		return;
	ent_pace_acked(&s->pace, ent_session_clock());
	pg_atomic_write_u64(&s->slot->rate, (uint64) ent_pace_rate(&s->pace));
	pg_atomic_write_u64(&s->slot->round_trip, Max(ent_pace_rtt(&s->pace), 0));
}

/*
 * Can it leave before the transaction has ended? It must not be held up on its way then:
 * what was sent before has arrived, so it fits into any socket's buffer.
 */
static bool
leaves_first(EntSession *s, const bytea *batch)
{
	return batch != NULL && VARSIZE(batch) <= MAX_FIRST &&
		ent_pace_in_flight(&s->pace) == 0 && ent_durable_has_only_read();
}

/*
 * A batch in the given context, durable knowledge of ours, as it is to be sent; or
 * NULL. The transaction may have ended, and another one begun.
 */
static bytea *
build(EntSession *s, bool heartbeat, bool may_send, MemoryContext context, bool pack)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	size_t		most = (size_t) ent_max_batch * 1024;
	size_t		size = 1;
	bytea	   *batch;

	if (may_send)
		size = Min(ent_pack_expand(s->packer, ent_pace_batch_size(&s->pace, most)), most);
	PushActiveSnapshot(GetTransactionSnapshot());
	batch = ent_outbound_build(s->out, size, heartbeat);
	PopActiveSnapshot();
	if (batch != NULL && pack)
		batch = ent_pack(s->packer, batch);
	MemoryContextSwitchTo(old);
	if (!leaves_first(s, batch))
		commit(s);
	if (batch != NULL)
	{
		ent_durable_flush_to(ent_outbound_durable_to(s->out));
		size = VARSIZE(batch) - VARHDRSZ;
		pg_atomic_fetch_add_u64(&s->slot->bytes_sent, size);
		ent_pace_sent(&s->pace, size, ent_outbound_backlog(s->out), ent_session_clock());
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

/*
 * The next batch in the given context, or NULL: then *wait is how long, in us,
 * there will be none, unless the latch is set. due: when a heartbeat is.
 */
static bytea *
next_batch(EntSession *s, int64 due, MemoryContext context, bool pack, int64 *wait)
{
	int64		now = ent_session_clock();
	bool		work = ent_outbound_poll(s->out);
	int64		pause = ent_pace_wait(&s->pace, now,
										  ent_pack_shrink(s->packer, ent_outbound_backlog(s->out)));
	bool		heartbeat = ent_pace_has_slot(&s->pace) &&
	(s->slot->nudge || s->slot->called || now >= due);
	bytea	   *batch = NULL;

	*wait = Min(work ? pause : due - now, LOOK_US);
	if (heartbeat || (work && pause == 0))
	{
		s->slot->called = false;
		batch = build(s, heartbeat, pause == 0, context, pack);
		*wait = Min(Max(due - now, 0), LOOK_US);
	}
	return batch;
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

static long
in_ms(int64 us)
{
	return (long) Max(us / 1000 + 1, 1);
}

Datum
ent_sql_pull(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	EntSession *s;
	TupleDesc	tupdesc;
	bytea	   *answer = PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0);
	bytea	   *batch = NULL;
	Datum		values[1];
	bool		nulls[1] = {false};
	int64		due = ent_session_clock() + (int64) ent_heartbeat * 1000;

	refuse_transaction(fcinfo, "entanglement.pull");
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	tupdesc = BlessTupleDesc(tupdesc);

	s = ent_session_use(ENT_PULL);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);	/* commit ends the connection, and its memory */
	if (answer == NULL)
		refuse_null("answer");
	take_answer(s, VARDATA_ANY(answer), VARSIZE_ANY_EXHDR(answer));
	while (batch == NULL)
	{
		int64		wait;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		ent_session_check(s);
		notice_changes(s);
		batch = next_batch(s, due, caller, false, &wait);
		if (batch == NULL)
			wait_for_work(in_ms(wait));
	}
	values[0] = PointerGetDatum(batch);
	SPI_finish();
	ent_shmem_expect_call(s->end, true);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls)));
}

/* The answers that have come; true: the first one has. */
static bool
take_answers(EntSession *s, EntStream *io)
{
	bool		any = false;

	while (ent_stream_read(io, ENT_WIRE_MAX_BATCH))
	{
		any = true;
		take_answer(s, io->message.data, io->message.len);
		ent_shmem_expect_call(s->end, ent_pace_in_flight(&s->pace) > 0);
	}
	return any;
}

static void
send_batches(EntSession *s, EntStream *io, MemoryContext message)
{
	int64		due = ent_session_clock();
	bool		begun = false;

	while (!io->ended)
	{
		int64		wait = LOOK_US;
		bytea	   *batch = NULL;

		look_up(s);
		MemoryContextReset(message);
		MemoryContextSwitchTo(message);
		begun |= take_answers(s, io);
		if (begun && !io->ended)
		{
			notice_changes(s);
			batch = next_batch(s, due, message, true, &wait);
		}
		if (batch != NULL)
		{
			/* from now on an answer is due */
			if (ent_pace_in_flight(&s->pace) == VARSIZE(batch) - VARHDRSZ)
				ent_shmem_expect_call(s->end, true);
			due = ent_session_clock() + (int64) ent_heartbeat * 1000;
			ent_stream_write(VARDATA(batch), VARSIZE(batch) - VARHDRSZ);
			commit(s);
		}
		else if (!io->ended)
		{
			InvalidateCatalogSnapshot();
			ent_stream_wait(in_ms(wait));
		}
	}
}

/* ---- stream ---- */

Datum
ent_sql_stream(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext message;
	EntDirection direction;
	EntSession *s;
	EntStream	io;

	refuse_transaction(fcinfo, "entanglement.stream");
	if (PG_ARGISNULL(0))
		refuse_null("direction");
	direction = ent_session_direction(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	s = ent_session_use(direction);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	message = AllocSetContextCreate(caller, "entanglement message",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(caller);
	ent_reuse_memory();
	ent_stream_begin(&io);
	ent_shmem_expect_call(s->end, true);
	commit(s);					/* the call's snapshot goes */
	MemoryContextSwitchTo(caller);
	if (direction == ENT_PUSH)
		receive(s, &io, message);
	else
		send_batches(s, &io, message);
	MemoryContextSwitchTo(caller);
	ent_stream_end();
	SPI_finish();
	PG_RETURN_VOID();
}
