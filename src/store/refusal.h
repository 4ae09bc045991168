/*
 * store/refusal.h
 *	  What peers said or asked and had no right to (entanglement.violation).
 */
#ifndef ENT_STORE_REFUSAL_H
#define ENT_STORE_REFUSAL_H

#include "postgres.h"

#include "base/shmem.h"

typedef enum EntRefusal
{
	ENT_REFUSED_HOME,			/* offers as its own what is at home elsewhere */
	ENT_REFUSED_LOCAL,			/* state of a local owner */
	ENT_REFUSED_SPEAKER,		/* state of an owner that it may not speak for */
	ENT_REFUSED_EPOCH,			/* state of an older epoch */
	ENT_REFUSED_WRITE,			/* a row that its role may not write */
	ENT_REFUSED_REQUEST,		/* a request for what its role may not do */
	ENT_REFUSED_ASK,			/* asks for a table that it was not told of */
	ENT_REFUSED_HOOK,			/* what a hook said no to */
	ENT_REFUSED_HOOK_FAILED,	/* ... by an error */
	ENT_REFUSALS
} EntRefusal;

/*
 * Once more in this transaction; what a subtransaction noted goes with it.
 * owner, rel: numbers here, 0: none. what: named in the log, copied; NULL:
 * nothing, or whoever calls tells the log.
 */
extern void ent_refusal_note(EntRefusal kind, int32 owner, int32 rel,
							 const char *what);

/* Writes down what was noted of this peer, and logs what is due. SPI. */
extern void ent_refusal_write(int32 peer, EntPeerSlot *slot);

#endif							/* ENT_STORE_REFUSAL_H */
