/*
 * store/handover.h
 *	  entanglement.handover: objects handed over by transactions that have
 *	  committed and are not folded yet.
 *
 * The row is what makes everybody here see the heir as the owner from the
 * commit on; a change row along with it has the fold do it. Rows are only
 * added, so that no session's transaction ever keeps the fold waiting; of
 * several for one key the newest counts. Whoever adds one holds the lock of
 * the user's row.
 */
#ifndef ENT_STORE_HANDOVER_H
#define ENT_STORE_HANDOVER_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "store/version.h"

/* Notes it, and wakes the collector at commit. Needs SPI. */
extern void ent_handover_make(int32 rel, bytea *key, int32 heir);

/* The heir of that object, under the active snapshot; 0: none. */
extern int32 ent_handover_heir(int32 rel, bytea *key);

/* An owner elsewhere that is an heir in that table; 0: none. As above. */
extern int32 ent_handover_remote_in(int32 rel);

/* What the fold reads of one: */
typedef struct EntHandover
{
	int			n;				/* which of the asked */
	int32		heir;
	bool		local;
	int32		epoch;			/* of the heir, as far as is known here, */
	int64		serial;			/* ... and the newest serial of his that may be
								 * older than the hand-over */
} EntHandover;

/*
 * Takes those of n keys that the transaction's snapshot sees out of the table;
 * returns how many, in the current context. An heir that is no longer known
 * is left out. Needs SPI.
 */
extern int	ent_handover_take(Datum rels, Datum keys, EntHandover **out);

/*
 * Follows what the heir did with the object since, as far as tombstones tell:
 * leaves its last owner in *heir. False: deleted. Needs SPI.
 */
extern bool ent_handover_follow(int32 rel, bytea *key, EntHand *heir,
								Snapshot snapshot);

/*
 * The serial in which the heir is to hold it here until he confirms it: what the
 * giver says, but none that the heir is not known to have come to. Else who makes
 * one up would keep the heir's own versions out. Needs SPI.
 */
extern int64 ent_handover_believable(int32 rel, bytea *key, const EntHand *heir);

/*
 * From whom an owner has got an object: noted as long as a local one has it, or
 * until another one has confirmed it (requests for it may go then).
 */
extern void ent_handover_inherited(int32 rel, bytea *key, EntHand from);
extern void ent_handover_confirmed(int32 rel, bytea *key);
/* The giver is at home here, and that peer has received it. */
extern void ent_handover_delivered(int32 rel, bytea *key, int32 from, int32 peer);
/* Takes that note away; owner 0: there was none. Arrays of n. */
extern void ent_handover_take_inherited(Datum rels, Datum keys, EntHand *from);

#endif							/* ENT_STORE_HANDOVER_H */
