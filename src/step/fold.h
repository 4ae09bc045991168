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
 * Folds up to limit changes, and what else there is of their objects. The caller has started a transaction in READ
 * COMMITTED with SPI connected and commits it. Returns the number of changes
 * consumed; *more is set when some may be left.
 *
 * The log is in no order. When a fold that leaves some has taken a TRUNCATE, what
 * came before may be among those left, and a later fold must not take it for a birth. *doubt carries this from each fold to the next, and is
 * kept (store/doubt.h): as it was there for the first one, and after one that
 * failed. told: the log tells of tables, later than others do.
 *
 * *given: how many serials of an owner were given out at most, or -1: should a crash take
 * the fold away, it will not be done again in a way that makes no difference to those who
 * have heard of it.
 */
extern uint64 ent_fold(int limit, bool told, bool *more, bool *doubt, int64 *given);

#endif							/* ENT_STEP_FOLD_H */
