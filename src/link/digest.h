/*
 * link/digest.h
 *	  What a peer that compares its rows with ours is told of them.
 */
#ifndef ENT_LINK_DIGEST_H
#define ENT_LINK_DIGEST_H

#include "postgres.h"

#include "store/peer.h"

/*
 * The answer to a message of COMPARE sections: DIGEST sections; to one without
 * any, the tables that its role may see and the owners. Everything is read
 * as the role, and its own rights and what it has subscribed to limit what is told. A COMPARE of a table or
 * column that it may not see is not answered. In a transaction with SPI;
 * result in the current context. Raises ERRCODE_PROTOCOL_VIOLATION.
 */
extern bytea *ent_digest_answer(const EntPeer *peer, const void *data, size_t len);

#endif							/* ENT_LINK_DIGEST_H */
