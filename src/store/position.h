/*
 * store/position.h
 *	  entanglement.log_position: how far the log has been read for capture.
 */
#ifndef ENT_STORE_POSITION_H
#define ENT_STORE_POSITION_H

#include "postgres.h"

#include "access/transam.h"
#include "access/xlogdefs.h"

/*
 * What was committed before read_to is captured, and so is all that transactions
 * before horizon did, whenever it was written to the log. Invalid: not known.
 */
typedef struct EntPosition
{
	XLogRecPtr	read_to;
	FullTransactionId horizon;
} EntPosition;

/* All of it invalid: nothing was read yet. Needs a transaction. */
extern EntPosition ent_position_read(void);
/* Durable with the transaction; by the collector only. */
extern void ent_position_write(const EntPosition *position);

#endif							/* ENT_STORE_POSITION_H */
