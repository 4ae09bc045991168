/*
 * link/outbound.h
 *	  The sending end of one direction of a link: ring and object table ->
 *	  queue -> extract -> batch.
 *
 * Lives in the dialer (push) or in a backend of the peer's login (pull). All
 * state is in memory and is rebuilt from what the receiver says it has: losing
 * it costs nothing but time. Several batches may be in flight, once the first
 * has been answered; how many is the caller's business.
 *
 * "In a transaction" below means: a transaction with SPI connected; these
 * functions set snapshots and users by themselves and restore them. They
 * raise errors (also on malformed answers: ERRCODE_PROTOCOL_VIOLATION); after an error the session is to
 * be destroyed and the link started anew.
 */
#ifndef ENT_LINK_OUTBOUND_H
#define ENT_LINK_OUTBOUND_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "base/shmem.h"

typedef struct EntOutbound EntOutbound;

/* peer: peer.no; role: whose rights decide what may go. */
extern EntOutbound *ent_outbound_create(int32 peer, Oid role, EntPeerSlot *slot);
extern void ent_outbound_destroy(EntOutbound *ob);

/*
 * Reads the ring into the queue. No transaction needed, cheap; call after
 * each wake-up. Returns true when ent_outbound_build would have something to
 * say. Never true while the first batch is in flight.
 */
extern bool ent_outbound_poll(EntOutbound *ob);

/* Bytes of what is queued, about. */
extern size_t ent_outbound_backlog(const EntOutbound *ob);

/*
 * Builds the next batch, of about max_bytes at most (one larger row goes
 * alone). In a transaction. NULL: nothing to say after all, unless
 * heartbeat is set, which makes an empty batch instead. Result in the
 * current context; it counts as in flight from now on. Bytes sent are for the caller
 * to count.
 */
extern bytea *ent_outbound_build(EntOutbound *ob, size_t max_bytes,
								 bool heartbeat);

/*
 * How far the log must be flushed, once the transaction that has built the last batch is
 * committed and before the batch leaves; InvalidXLogRecPtr: to its end.
 */
extern XLogRecPtr ent_outbound_durable_to(const EntOutbound *ob);

/*
 * The receiver's answer to the oldest batch in flight (it is durable there), or at
 * the start of a pull before any batch. In a transaction.
 */
extern void ent_outbound_answered(EntOutbound *ob, const void *data, size_t len);
/* That transaction has committed: who waits for the peer (drain) is told. */
extern void ent_outbound_heard(EntOutbound *ob);

#endif							/* ENT_LINK_OUTBOUND_H */
