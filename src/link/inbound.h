/*
 * link/inbound.h
 *	  The receiving end of one direction of a link: batch -> authorize ->
 *	  apply -> answer.
 *
 * Lives in a backend of the peer's login (push) or in the dialer (pull).
 * Transactions and errors as in link/outbound.h.
 */
#ifndef ENT_LINK_INBOUND_H
#define ENT_LINK_INBOUND_H

#include "postgres.h"

#include "base/shmem.h"

typedef struct EntInbound EntInbound;

/* role: under whose rights rows are written. */
extern EntInbound *ent_inbound_create(int32 peer, Oid role, EntPeerSlot *slot);
extern void ent_inbound_destroy(EntInbound *ib);

/*
 * fn is called now and then while a batch is applied, in its transaction: it must not
 * wait, nor touch the database.
 */
extern void ent_inbound_meanwhile(EntInbound *ib, void (*fn) (void *arg), void *arg);

/*
 * Before the peer can have said anything, in a transaction: owners known by now
 * are those that it may say it has no longer.
 */
extern void ent_inbound_begin(EntInbound *ib);

/*
 * Applies a batch and returns the answer (current context), which may be
 * sent only after the caller committed. In a transaction. A row that cannot be stored is
 * parked; only a malformed batch raises.
 */
extern bytea *ent_inbound_apply(EntInbound *ib, const void *data, size_t len);

/*
 * Is there something to tell the sender although no batch came (a table or
 * column appeared, a route changed, parked objects are due)? Cheap, no
 * transaction; then call ent_inbound_answer and send it with the next call
 * (pull), or make the peer push (nudge).
 */
extern bool ent_inbound_has_news(EntInbound *ib);

/* An answer without a batch (number 0 at the start). In a transaction. */
extern bytea *ent_inbound_answer(EntInbound *ib);

#endif							/* ENT_LINK_INBOUND_H */
