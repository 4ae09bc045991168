/*
 * base/durable.c
 *	  What leaves over a link is durable first.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "replication/syncrep.h"

#include "base/durable.h"
#include "base/shmem.h"

#define MUCH	(256 * 1024)	/* bytes of log, for which the WAL writer is woken */

static bool repeatable = false; /* what is committed now would be done again */
static bool counted = false;	/* among those that commit now */

/* Is no standby waited for? */
static bool
disk_only(void)
{
	return SyncRepStandbyNames == NULL || SyncRepStandbyNames[0] == '\0';
}

/* Is a commit of this process to be seen before it is safe? */
static bool
is_seen_early(void)
{
	return synchronous_commit == SYNCHRONOUS_COMMIT_OFF ||
		(synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH && !disk_only());
}

static void
raise_committed(XLogRecPtr end)
{
	uint64		was = pg_atomic_read_u64(&ent_shared->committed);

	while (was < end &&
		   !pg_atomic_compare_exchange_u64(&ent_shared->committed, &was, end))
		;
}

/* Before it is to be seen it is counted, and until its end in the log is noted. */
static void
watch_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && !repeatable &&
		TransactionIdIsValid(GetTopTransactionIdIfAny()) && is_seen_early())
	{
		counted = true;
		pg_atomic_fetch_add_u32(&ent_shared->committing, 1);
	}
	if (!counted || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	if (event == XACT_EVENT_COMMIT)
		raise_committed(XactLastCommitEnd);
	counted = false;
	pg_atomic_fetch_sub_u32(&ent_shared->committing, 1);
}

void
ent_durable_init(void)
{
	RegisterXactCallback(watch_commit, NULL);
}

XLogRecPtr
ent_durable_seen(void)
{
	/* a full barrier: who is seen was counted by then */
	if (pg_atomic_fetch_add_u32(&ent_shared->committing, 0) > 0)
		return ent_durable_end();
	return pg_atomic_read_u64(&ent_shared->committed);
}

void
ent_durable_commit_later(void (*fn) (void *arg), void *arg)
{
	int			save = synchronous_commit;

	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	PG_TRY();
	{
		fn(arg);
	}
	PG_FINALLY();
	{
		synchronous_commit = save;
	}
	PG_END_TRY();
}

void
ent_durable_commit_repeatable(void (*fn) (void *arg), void *arg)
{
	repeatable = true;
	PG_TRY();
	{
		ent_durable_commit_later(fn, arg);
	}
	PG_FINALLY();
	{
		repeatable = false;
	}
	PG_END_TRY();
}

bool
ent_durable_has_only_read(void)
{
	return !TransactionIdIsValid(GetTopTransactionIdIfAny()) && disk_only();
}

/*
 * Where the last record ends. The next one will begin behind the header of the page,
 * if that page is not begun yet: nobody can flush up to there.
 */
XLogRecPtr
ent_durable_end(void)
{
	XLogRecPtr	next = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(next, wal_segment_size) == SizeOfXLogLongPHD)
		return next - SizeOfXLogLongPHD;
	if (next % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return next - SizeOfXLogShortPHD;
	return next;
}

void
ent_durable_flush(void)
{
	ent_durable_flush_to(InvalidXLogRecPtr);
}

void
ent_durable_start(void)
{
	static XLogRecPtr started = 0;
	XLogRecPtr	end = ent_durable_end();

	if (end - started < MUCH)
		return;
	started = end;
	XLogSetAsyncXactLSN(end);
}

bool
ent_durable_already(XLogRecPtr end)
{
	return GetFlushRecPtr(NULL) >= end && disk_only();
}

void
ent_durable_flush_to(XLogRecPtr end)
{
	if (XLogRecPtrIsInvalid(end))
		end = ent_durable_end();
	XLogFlush(end);
	HOLD_INTERRUPTS();			/* which that expects */
	SyncRepWaitForLSN(end, true);
	RESUME_INTERRUPTS();
}
