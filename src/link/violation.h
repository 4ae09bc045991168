/*
 * link/violation.h
 *	  What hooks refused, for the view violations and the log.
 */
#ifndef ENT_LINK_VIOLATION_H
#define ENT_LINK_VIOLATION_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "base/shmem.h"
#include "guard/hook.h"

/*
 * Notes once more that a hook said no to something of that owner and table, or
 * failed; sending: on what was to be sent to the peer. The notes live in that
 * context.
 */
extern void ent_violation_hook(List **notes, MemoryContext context, bool sending,
							   int32 owner, int32 rel, const EntHookRefusal *why);

/*
 * At the batch's end: into the table, and into the log and the peer's last error
 * what is news. A transaction that may write, SPI connected.
 */
extern void ent_violations_record(List *notes, int32 peer, EntPeerSlot *slot);

#endif							/* ENT_LINK_VIOLATION_H */
