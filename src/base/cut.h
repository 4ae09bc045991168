/*
 * base/cut.h
 *	  The state of the database as of a fold, for those who send it.
 *
 * Objects that a transaction changed together have to be sent together. What a
 * link has queued is what has been folded, but its snapshots show more: what
 * was committed since. A cut is the snapshot in which both agree: what the
 * fold saw, and its own writes, and nothing else.
 *
 * Whoever takes a cut has had a snapshot of its own, still active, since
 * before the fold began: with it, it keeps vacuum from what the cut shows.
 */
#ifndef ENT_BASE_CUT_H
#define ENT_BASE_CUT_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "base/shmem.h"

extern Size ent_cut_shmem_size(void);
extern void ent_cut_shmem_startup(void *memory, bool found);

/* The slot is another database's from now on. */
extern void ent_cut_forget(EntDatabaseSlot *db);

/* ---- whoever posts events to the ring ---- */

/*
 * To be called before the commit and after the events of this transaction have
 * been posted, or not, in the end. In between a snapshot may show what no event
 * has told of yet.
 */
extern void ent_cut_posting_begins(void);
extern void ent_cut_posting_ends(void);

/* ---- the collector ---- */

typedef struct EntCutDraft EntCutDraft;

/* Has somebody asked for a cut that is not there yet? */
extern bool ent_cut_wanted(EntDatabaseSlot *db);

/*
 * At the end of a fold that has read the log completely, while its snapshot is
 * active: notes it, waits (briefly) until all that it shows has been posted.
 * Allocated in context. NULL: there can be no cut of this fold.
 */
extern EntCutDraft *ent_cut_draft(MemoryContext context);
/* After its commit. ticket: of the fold; NULL: there is none. */
extern void ent_cut_publish(EntDatabaseSlot *db, const EntCutDraft *draft,
							uint64 ticket);

/* ---- a link ---- */

/* Asks for a cut of what is committed by now, with a snapshot active. */
extern uint64 ent_cut_ask(void);
/*
 * The cut that was asked for, a registered snapshot of this transaction; waits
 * up to that many milliseconds. Every event of what it shows is in the ring
 * when it is returned. NULL: there is none; ask again later. Sets this process's latch,
 * whose setting it may have taken.
 */
extern Snapshot ent_cut_take(uint64 ticket, long ms);

#endif							/* ENT_BASE_CUT_H */
