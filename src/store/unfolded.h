/*
 * store/unfolded.h
 *	  Changes of some objects that are in the log and not folded yet.
 *
 * The log has no index, since every captured row would pay for it, and may be long:
 * one statement that changes a million rows leaves a million changes. So who asks
 * again and again remembers what its pages hold, and looks only into those that have
 * been written to since or hold what it asks for.
 */
#ifndef ENT_STORE_UNFOLDED_H
#define ENT_STORE_UNFOLDED_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/snapshot.h"

/* Of an object's key, as this module wants it. */
extern uint32 ent_unfolded_hash(const uint8 *key, size_t keylen);

/*
 * Calls fn with each change (a row of entanglement.change) that the snapshot sees
 * and whose key has one of these hashes (NULL: any), and with some others, some of
 * them without a key, until it returns false. In no order; but of all those come first,
 * every other time, that were written last, so that they need not wait until all others
 * have been taken. fn may delete the row, and not call this.
 */
extern void ent_unfolded_find(Snapshot snapshot, const uint32 *hashes, int n,
							  bool (*fn) (void *arg, TupleTableSlot *slot),
							  void *arg);

#endif							/* ENT_STORE_UNFOLDED_H */
