/*
 * worker/prune.h
 *	  Collecting tombstones once every peer has heard.
 */
#ifndef ENT_WORKER_PRUNE_H
#define ENT_WORKER_PRUNE_H

#include "postgres.h"

/*
 * Deletes tombstones that every peer which is not the owner's route has
 * acknowledged, and remembers in owner.pruned the newest serial among them: a peer that comes with less
 * is told which keys live instead. SPI connected, in a transaction.
 */
extern void ent_prune(void);

#endif							/* ENT_WORKER_PRUNE_H */
