/*
 * link/verify.h
 *	  Comparing our rows with a peer's, without changing anything.
 */
#ifndef ENT_LINK_VERIFY_H
#define ENT_LINK_VERIFY_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "store/peer.h"

typedef struct EntDifference
{
	const char *relation;		/* schema-qualified, quoted where necessary */
	int32		rel;			/* 0: not synchronized here */
	const char *owner;			/* name; NULL: nobody, or all */
	const char *what;
	bytea	   *first;			/* keys of the first and last row; NULL: not known */
	bytea	   *last;
	int64		ours;			/* rows; -1: does not apply */
	int64		theirs;
} EntDifference;

typedef struct EntVerified
{
	List	   *differences;	/* of EntDifference *, by table, owner, key */
	int			exchanges;		/* questions asked of the peer */
	size_t		sent;			/* bytes, without TLS and TCP */
	size_t		received;
} EntVerified;

/*
 * Dials the peer and compares. In a transaction with SPI; takes snapshots of
 * its own, and waits for the network interruptibly. Result in the current
 * context. Raises what dialing raises, and ERRCODE_PROTOCOL_VIOLATION.
 */
extern EntVerified *ent_verify(const EntPeer *peer);

#endif							/* ENT_LINK_VERIFY_H */
