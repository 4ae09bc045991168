/*
 * worker/decoder.h
 *	  The collector's part in capture from the log: the slot and the rounds.
 */
#ifndef ENT_WORKER_DECODER_H
#define ENT_WORKER_DECODER_H

#include "postgres.h"

/*
 * Makes, replaces or drops the slot as the synchronized tables want it; where
 * it was lost, has their rows compared. Outside a transaction. Returns whether
 * any table is captured from the log.
 */
extern bool ent_decoder_settle(void);

/* Decodes in a transaction of its own; returns whether there is more. */
extern bool ent_decoder_run(int limit);

#endif							/* ENT_WORKER_DECODER_H */
