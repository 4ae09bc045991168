/*
 * api/session.h
 *	  A peer's session on one connection of the exchange.
 *
 * From hello to the first error or the end of the connection. A backend has
 * at most one for each direction.
 */
#ifndef ENT_API_SESSION_H
#define ENT_API_SESSION_H

#include "postgres.h"

#include "base/pack.h"
#include "base/shmem.h"
#include "link/inbound.h"
#include "link/outbound.h"
#include "rule/pace.h"
#include "store/peer.h"

typedef enum EntDirection
{
	ENT_PUSH = 0,				/* the peer sends, we receive */
	ENT_PULL = 1,				/* we send, the peer receives */
} EntDirection;

typedef struct EntSession
{
	bool		open;
	bool		dirty;			/* a transaction that used it is running: if it
								 * aborts, the session ends ... */
	SubTransactionId used_in;	/* ... at this level: apply rolls back levels of
								 * its own below */
	EntPeer    *peer;			/* as of the last look; without conninfo */
	MemoryContext context;		/* holds peer */
	EntPeerSlot *slot;
	EntEnd	   *end;			/* of slot, ours while generation is current */
	uint32		generation;
	uint64		routes;			/* the database's counter, at the last look */
	EntInbound *in;				/* ENT_PUSH */
	EntOutbound *out;			/* ENT_PULL */
	EntPace		pace;			/* ENT_PULL */
	EntPacker  *packer;			/* ENT_PULL, in context */
	EntUnpacker *unpacker;		/* ENT_PUSH, in context */
} EntSession;

/* "push" or "pull", else ERRCODE_INVALID_PARAMETER_VALUE. */
extern EntDirection ent_session_direction(const char *text);

/*
 * Opens a session for a peer that has been greeted, and takes its end of the
 * link from whoever had it. In a transaction with SPI.
 */
extern void ent_session_open(EntDirection direction, int32 no);

/*
 * The session for a call. Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
 * when there is none, and what ent_session_check does. From here to the
 * commit an error ends the session.
 */
extern EntSession *ent_session_use(EntDirection direction);

/*
 * Is the link's end still ours? Raises ERRCODE_CONNECTION_EXCEPTION when a
 * newer connection has it, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION when
 * the peer was dropped.
 */
extern void ent_session_check(EntSession *s);

/* The counter that grows with each change of the configuration. */
extern uint64 ent_session_routes(void);

/*
 * Is the peer still what it was, now that the configuration has changed?
 * Takes over a new bandwidth; raises for anything that ends the session. In a
 * transaction with SPI.
 */
extern void ent_session_look(EntSession *s);

/* Microseconds of a clock that only goes forward. */
extern int64 ent_session_clock(void);

#endif							/* ENT_API_SESSION_H */
