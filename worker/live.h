/*
 * worker/live.h
 *	  A dialed link while it is up: batches out by push, batches in by pull.
 *
 * Between two connections that are STREAMING, and the link's failure. Nothing here waits; every function may raise, and then the link is to be
 * ended.
 */
#ifndef ENT_WORKER_LIVE_H
#define ENT_WORKER_LIVE_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "base/pack.h"
#include "base/shmem.h"
#include "link/inbound.h"
#include "link/outbound.h"
#include "rule/pace.h"
#include "store/peer.h"
#include "link/connection.h"

#define ENT_LIVE_ANSWERS	3		/* may wait for the disk at a time */

typedef struct EntLiveAnswer
{
	bytea	   *answer;
	XLogRecPtr	end;			/* when the log is on disk up to there it may be sent */
} EntLiveAnswer;

typedef struct EntLive
{
	bool		up;
	EntPeerSlot *slot;
	EntConnection *push;
	EntConnection *pull;
	EntOutbound *out;
	EntInbound *in;
	EntPace		pace;
	MemoryContext context;		/* holds what follows */
	EntPacker  *packer;
	EntUnpacker *unpacker;
	uint32		sender;			/* generations of the slot's ends */
	uint32		receiver;
	int64		pushed_at;		/* us, when the last push began */
	int64		since;			/* us, when the link came up */
	EntLiveAnswer answers[ENT_LIVE_ANSWERS];	/* to the last batches, the oldest first: */
	int			nanswers;		/* ... so many that were not sent yet */
	bool		asked;			/* the other side was asked to send */
	bool		more;			/* there may be more to push at once */
} EntLive;

/* Takes the slot's ends and begins; both connections STREAMING. No transaction. */
extern void ent_live_start(EntLive *l, const EntPeer *peer, EntPeerSlot *slot,
						   EntConnection *push, EntConnection *pull);

/* What the sockets had to say: ..._WRITEABLE and the like, 0 for nothing. */
extern void ent_live_advance(EntLive *l, uint32 push_events,
							 uint32 pull_events);

/* Microseconds until ent_live_advance should be called again at the latest. */
extern int64 ent_live_wait(EntLive *l);

/* Has another session taken over an end of the link? */
extern bool ent_live_superseded(const EntLive *l);

extern void ent_live_set_bandwidth(EntLive *l, int64 bandwidth);

/* Gives everything back; harmless when not up. Never raises. */
extern void ent_live_end(EntLive *l);

/*
 * A transaction with SPI and a snapshot, in which the current memory context
 * stays what it was.
 */
extern void ent_live_begin(void);
extern void ent_live_commit(void);

#endif							/* ENT_WORKER_LIVE_H */
