/*
 * worker/collector.c
 *	  One background worker per database: folds captured changes, starts
 *	  dialers, deletes what dropped owners leave, collects tombstones.
 *
 * Sleeps on its latch, which writers set at commit; a slow fallback covers
 * what cannot wake it. Each round is its own transaction and its own memory;
 * an error ends the round, is logged, and the work is tried again.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "access/xact.h"
#include "commands/vacuum.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/cut.h"
#include "base/durable.h"
#include "base/guc.h"
#include "base/reuse.h"
#include "base/ring.h"
#include "base/shmem.h"
#include "guard/show.h"
#include "rule/rest.h"
#include "step/clear.h"
#include "step/decode.h"
#include "step/fill.h"
#include "step/fold.h"
#include "store/doubt.h"
#include "store/identity.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/timeline.h"
#include "worker/collector.h"
#include "worker/decoder.h"
#include "worker/dialer.h"
#include "store/journal.h"
#include "worker/prune.h"

#define NAPS		16			/* of a rest: somebody may want it to end */
#define RETRY_MS	1000		/* pause after a failed round */
#define VACUUM_EVERY 20000		/* changes consumed */

typedef struct Collector
{
	EntDatabaseSlot *slot;
	MemoryContext tick;			/* reset after each round */
	uint64		routes;			/* counter when dialers were last started */
	TimestampTz pruned_at;
	bool		known;			/* the extension was found */
	bool		ready;			/* this database is the node, and in use */
	bool		undecided;		/* ... or a copy, which waits to be told */
	bool		unsettled;		/* does the slot suit the tables? */
	bool		undecoded;		/* decoding failed */
	bool		wal;			/* tables are captured from the log */
	EntFill		fill;
	bool		doubt;			/* of ent_fold */
	bool		gone;			/* owners that are no more may have rows here */
	bool		later;			/* ... but one of these is locked */
	int64		at_risk;		/* serials of an owner that were given out, perhaps not
								 * on disk before the log is up to */
	XLogRecPtr	risked_to;		/* ... there */
	uint64		consumed;		/* changes since the log was last vacuumed */
	EntRest		rest;
} Collector;

static void
look(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	look();
}

static void
commit(void *arg)
{
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
}

static void
finish(void)
{
	commit(NULL);
}

/*
 * Changes that the log tells of become rows of the change log; *more: not all
 * of them yet. False when that failed, which must not keep others from being
 * folded: it is logged, and tried again.
 */
static bool
decode(Collector *c, bool *more)
{
	volatile bool ok = true;
	volatile bool result = false;

	if (!c->wal && !c->unsettled)
		return true;
	PG_TRY();
	{
		if (c->unsettled)
			c->wal = ent_decoder_settle();
		c->unsettled = false;
		if (c->wal)
			result = ent_decoder_run(ent_fold_limit);
		ent_shmem_set_decode_error(c->slot, NULL, NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(c->tick);
		HOLD_INTERRUPTS();
		error = CopyErrorData();
		ent_shmem_set_decode_error(c->slot, unpack_sql_state(error->sqlerrcode),
								   error->message);
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		ent_decode_release();
		c->unsettled = c->undecoded = true;
		RESUME_INTERRUPTS();
		ok = false;
	}
	PG_END_TRY();
	*more = result;
	return ok;
}

/* Who may see what is added is known before it is. */
static void
begin_fold(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!ent_show_is_settled())
	{
		look();
		ent_show_settle_if_changed();
		finish();
		StartTransactionCommand();
	}
	XactIsoLevel = XACT_REPEATABLE_READ;
	look();
}

/*
 * Commits a fold, which whoever sends it flushes first, so the sooner it is done the
 * better; unless it has given out few serials (-1: see ent_fold) and would be done again.
 */
static void
commit_fold(Collector *c, int64 given, bool flush)
{
	if (ent_durable_already(c->risked_to))
		c->at_risk = 0;
	c->at_risk += given;
	if (given < 0 || c->at_risk > ENT_SERIALS_AT_RISK)
	{
		ent_durable_commit_later(commit, NULL);
		flush = true;
	}
	else
		ent_durable_commit_repeatable(commit, NULL);
	c->risked_to = ent_durable_end();
	if (!flush)
		return;
	ent_durable_flush();
	c->at_risk = 0;
}

/*
 * Folds until nothing is left. Tickets taken before the last snapshot are
 * then done.
 */
static void
fold_all(Collector *c)
{
	bool		more;

	do
	{
		uint64		asked = pg_atomic_read_u64(&c->slot->fold_asked);
		EntCutDraft *cut = NULL;
		bool		wanted,
					decoded,
					more_log = false;
		uint64		n;
		int64		given;

		/* the ticket is read before the snapshot is taken */
		pg_memory_barrier();
		decoded = decode(c, &more_log);
		begin_fold();
		n = ent_fold(ent_fold_limit, c->wal, &more, &c->doubt, &given);
		more |= more_log;
		wanted = !more && ent_cut_wanted(c->slot);
		if (wanted)
			cut = ent_cut_draft(c->tick);
		commit_fold(c, given, wanted);
		if (wanted)
			ent_cut_publish(c->slot, cut, asked);
		if (n > 0)
		{
			pg_atomic_fetch_add_u64(&c->slot->folded, n);
			c->consumed += n;
			pgstat_report_stat(false);
		}
		if (!more && decoded)
		{
			c->slot->refolded = true;
			ent_shmem_folded(c->slot, asked);
		}
		CHECK_FOR_INTERRUPTS();
	} while (more);
}

/*
 * What rows are that the log has not told of, for some of them. All that was committed
 * when they were read has been folded when it is noted.
 */
static void
fill(Collector *c)
{
	bool		wanted;

	if (!c->wal)
		return;
	begin();
	c->fill.context = c->tick;
	wanted = ent_fill_wanted(&c->fill);
	if (wanted)
		ent_fill_read(&c->fill);
	finish();
	if (!wanted)
		return;
	fold_all(c);
	if (!c->undecoded)
	{
		begin();
		ent_fill_write(&c->fill);
		finish();
	}
	SetLatch(MyLatch);
}

/*
 * So that what is captured goes into pages that were consumed, not into ever new ones
 * until autovacuum comes by. Leaves giving pages back to autovacuum, which may wait for
 * the lock that takes.
 */
static void
vacuum_log(Collector *c)
{
	VacuumStmt *stmt = makeNode(VacuumStmt);
	ParseState *pstate = make_parsestate(NULL);

	stmt->is_vacuumcmd = true;
	stmt->options = list_make1(makeDefElem("truncate",
										   (Node *) makeBoolean(false), -1));
	stmt->rels = list_make1(makeVacuumRelation(makeRangeVar(pstrdup(ENT_SCHEMA),
															pstrdup("change"), -1),
											   InvalidOid, NIL));
	c->consumed = 0;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ExecVacuum(pstate, stmt, true);
	CommitTransactionCommand();
}

/* Is the extension (still) there? */
static bool
installed(void)
{
	bool		result;

	begin();
	result = ent_query_installed();
	finish();
	return result;
}

/*
 * Is there anything to do here yet? A dump that is being restored brings our
 * tables one by one, into a node that is not in use: they are left alone until
 * all is there and somebody says what the copy is.
 */
static void
look_who_we_are(Collector *c)
{
	EntIdentity *id;
	bool		was = c->undecided;

	begin();
	id = ent_identity_get();
	c->ready = id->used && id->here;
	c->undecided = ent_identity_undecided(id);
	if (c->ready)
		ent_timeline_settle(id);
	c->doubt = ent_doubt_get();
	if (c->undecided && !was)
		ereport(LOG,
				(errmsg("the collector found a copy of node \"%s\", which waits to be told what it is",
						id->name),
				 errhint("See entanglement.become.")));
	ent_durable_commit_later(commit, NULL);
}

/* The extension may have been dropped, or never been there. */
static void
leave_unless_installed(Collector *c)
{
	uint32		asked;

	do
	{
		asked = c->slot->asked;
		pg_memory_barrier();
		if (installed())
			return;
	} while (!ent_shmem_collector_leave(asked));
	ent_decode_drop_slot();
	proc_exit(0);
}

/* Deletes some rows of owners that are no more; the fold comes in between. */
static void
clear(Collector *c)
{
	EntClearResult result;

	begin();
	result = ent_clear();
	finish();
	c->gone = result != ENT_CLEAR_DONE;
	c->later = result == ENT_CLEAR_LATER;
	if (result == ENT_CLEAR_MORE)
		SetLatch(MyLatch);
}

/*
 * Peers that dialed us and have fallen silent, though their connections are
 * up: frozen, or behind something that keeps connections open.
 */
static void
end_silent_links(void)
{
	int64		ms = (int64) ent_heartbeat + ent_dead_after;
	int32		no;

	while ((no = ent_shmem_end_silent(ms)) != 0)
	{
		EntPeer    *peer;

		begin();
		peer = ent_peer_get(no);
		ent_shmem_set_error(ent_shmem_peer(no, false), "08006",
							"nothing was heard from the peer for too long");
		ereport(LOG,
				(errmsg("nothing was heard from peer \"%s\" for too long; its connections are ended",
						peer ? peer->name : "?"),
				 errdetail("entanglement.dead_after is %d ms; the peer's entanglement.heartbeat should be well below it.",
						   ent_dead_after)));
		finish();
	}
}

static void
work(Collector *c)
{
	uint64		asked = pg_atomic_read_u64(&c->slot->fold_asked);
	uint64		routes;
	TimestampTz now = GetCurrentTimestamp();

	/* whoever asks after the first table was made is not told of an idle node */
	pg_memory_barrier();
	routes = pg_atomic_read_u64(&c->slot->routes);
	if (!c->known || routes != c->routes)
	{
		leave_unless_installed(c);
		look_who_we_are(c);
		c->unsettled = true;
	}
	c->known = true;
	if (!c->ready)
	{
		c->routes = routes;
		if (!c->undecided)
			ent_shmem_folded(c->slot, asked);
		return;
	}
	c->undecoded = false;
	fold_all(c);
	fill(c);
	if (ent_journal_is_full())
	{
		begin();
		ent_journal_trim();
		finish();
	}
	if (c->consumed >= VACUUM_EVERY)
		vacuum_log(c);
	if (routes != c->routes)
	{
		c->routes = routes;
		c->gone = true;
		ent_dialer_start_missing();
	}
	if (TimestampDifferenceExceeds(c->pruned_at, now, ent_prune_interval))
	{
		c->pruned_at = now;
		begin();
		ent_prune();
		finish();
		ent_dialer_start_missing();
	}
	end_silent_links();
	if (c->gone)
		clear(c);
}

/* Runs work(); false when it failed (the error is logged). */
static bool
try_work(Collector *c)
{
	volatile bool ok = true;

	MemoryContextSwitchTo(c->tick);
	PG_TRY();
	{
		work(c);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(c->tick);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		c->known = false;
		RESUME_INTERRUPTS();
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(c->tick);
	return ok;
}

static void
set_up(Collector *c, Oid database)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	pgstat_report_appname("entanglement collector");
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_SUSET,
					PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	c->tick = AllocSetContextCreate(TopMemoryContext, "entanglement tick",
									ALLOCSET_DEFAULT_SIZES);
	c->routes = PG_UINT64_MAX;
	ent_rest_init(&c->rest);
}

/* What this process has used. */
typedef struct Used
{
	int64		us;				/* of a processor */
	int64		switches;		/* that it did not want */
} Used;

static Used
used(void)
{
	struct rusage r;

	(void) getrusage(RUSAGE_SELF, &r);
	return (Used) {
		(int64) (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * USECS_PER_SEC +
		r.ru_utime.tv_usec + r.ru_stime.tv_usec, r.ru_nivcsw
	};
}

/*
 * After a fold, before which so much had been used; cut short when somebody waits for the
 * next. Requests are not kept waiting for longer than without busy processors.
 */
static void
rest(Collector *c, Used before, uint64 asked)
{
	Used		now = used();
	int64		us = ent_rest_after(&c->rest, GetCurrentTimestamp(), now.us - before.us,
									now.switches - before.switches,
									(int64) ent_busy_rest * 1000);
	int64		nap = Max(us / NAPS, ENT_REST_MIN_US);

	for (int64 rested = 0; rested < us && !InterruptPending &&
		 pg_atomic_read_u64(&c->slot->fold_asked) == asked &&
		 !(c->slot->hurry && rested >= ENT_REST_LIMIT_US); rested += nap)
		pg_usleep(Min(us - rested, nap));
	c->slot->hurry = false;
}

/* How long it sleeps unless somebody has work. */
static long
idle_ms(void)
{
	return Min(Min(ent_fold_fallback, ent_dead_after), ent_prune_interval);
}

void
ent_collector_main(Datum arg)
{
	Collector	c = {0};

	c.slot = ent_shmem_collector_enter(DatumGetObjectId(arg));
	if (c.slot == NULL)
		proc_exit(0);
	set_up(&c, DatumGetObjectId(arg));
	ent_reuse_memory();
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		bool		ok;
		uint64		folded,
					asked;
		Used		before;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		folded = pg_atomic_read_u64(&c.slot->folded);
		asked = pg_atomic_read_u64(&c.slot->fold_asked);
		before = used();
		ok = try_work(&c);
		if (pg_atomic_read_u64(&c.slot->folded) != folded)
			rest(&c, before, asked);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ok && !c.later && !c.undecoded ? idle_ms() : RETRY_MS,
						 PG_WAIT_EXTENSION);
	}
}
