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

/* Is no standby waited for? */
static bool
disk_only(void)
{
	return SyncRepStandbyNames == NULL || SyncRepStandbyNames[0] == '\0';
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
