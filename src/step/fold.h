/*
 * step/fold.h
 *	  Captured changes become versions of objects.
 *
 * Reads the changes its snapshot sees, coalesces them per object, gives each
 * touched object its owner's next serial, writes objects and tombstones, and
 * leaves the events for the ring with the commit. The only allocator of
 * serials of local owners: one process per database may run it.
 */
#ifndef ENT_STEP_FOLD_H
#define ENT_STEP_FOLD_H

#include "postgres.h"

/*
 * Folds up to limit changes. The caller has started a transaction in READ
 * COMMITTED with SPI connected and commits it. Returns the number of changes
 * consumed; *more is set when some may be left.
 */
extern uint64 ent_fold(int limit, bool *more);

#endif							/* ENT_STEP_FOLD_H */
