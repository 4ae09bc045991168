/*
 * store/doubt.h
 *	  entanglement.doubt: has a fold taken a TRUNCATE, and left changes in the log?
 *
 * The log is in no order, so what came before it may be among them, and is no birth. Kept with what the fold did, for whoever folds after a crash. Transaction
 * and SPI.
 */
#ifndef ENT_STORE_DOUBT_H
#define ENT_STORE_DOUBT_H

#include "postgres.h"

extern bool ent_doubt_get(void);
extern void ent_doubt_set(bool doubt);

#endif							/* ENT_STORE_DOUBT_H */
