/*
 * base/durable.h
 *	  What leaves over a link is durable first.
 *
 * Fold and apply commit without waiting for the disk, so that what they did is to
 * be seen, and read for others, meanwhile. Whatever tells another node of it waits:
 * a batch or an answer leaves after ent_durable_flush. Excepted is what a crash would
 * make the collector do once more, with nothing different for those who have heard of it.
 */
#ifndef ENT_BASE_DURABLE_H
#define ENT_BASE_DURABLE_H

#include "postgres.h"

#include "access/xlogdefs.h"

/*
 * Runs fn, which commits the current transaction, without waiting until that is on
 * disk.
 */
extern void ent_durable_commit_later(void (*fn) (void *arg), void *arg);

/* The same for what would be done again after a crash: nobody waits for that. */
extern void ent_durable_commit_repeatable(void (*fn) (void *arg), void *arg);

/* In each process, so that it is known who commits without waiting. */
extern void ent_durable_init(void);

/*
 * Up to where the log is to be on disk for all that is to be seen now, in a snapshot
 * taken before, but for what would be done again.
 */
extern XLogRecPtr ent_durable_seen(void);

/* Where the log ends now: whatever anybody has committed is in it up to there. */
extern XLogRecPtr ent_durable_end(void);

/*
 * All that anybody has committed, or written to the log, before this call is on
 * disk when it returns, and with synchronous_standby_names at the standbys, as the
 * process's synchronous_commit says. Outside of transactions, or in one that holds no
 * lock that others wait for, or has only read (below). Not in recovery.
 */
extern void ent_durable_flush(void);
/* Has the WAL writer begin with that, if much has been written since the last time. */
extern void ent_durable_start(void);
/* Would the same return at once, and nobody be waited for, with that end of the log? */
extern bool ent_durable_already(XLogRecPtr end);
/* The same for what was before that end of the log (InvalidXLogRecPtr: this one). */
extern void ent_durable_flush_to(XLogRecPtr end);

/*
 * Has the transaction written nothing that must be there before anybody hears of it, and
 * does a flush wait for the disk only? Then it can as well end when what it has read has
 * left.
 */
extern bool ent_durable_has_only_read(void);

#endif							/* ENT_BASE_DURABLE_H */
