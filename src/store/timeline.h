/*
 * store/timeline.h
 *	  This database went back to what it was at an earlier moment, and goes on from
 *	  there.
 *
 * What it told its peers after that moment it does not know: serials that it gave
 * out, and what they gave it and forgot since. So it is where a standby is promoted,
 * or a backup recovered to a point in time, which the timeline of the log tells; and
 * where a dump becomes the node.
 */
#ifndef ENT_STORE_TIMELINE_H
#define ENT_STORE_TIMELINE_H

#include "postgres.h"

#include "store/identity.h"

/*
 * Is the log on another timeline than was noted last? Then each local owner goes on
 * in a new epoch, before anything is given a serial or told. Needs a transaction and
 * SPI, and that nothing is exchanged meanwhile (ent_identity_refuse_branched).
 */
extern void ent_timeline_settle(const EntIdentity *id);

/*
 * What was exchanged of others' objects after that moment is put right. local: what
 * peers are shown a part of is compared with them for local owners, too.
 */
extern void ent_timeline_went_back(bool local);

/* An epoch after that one that nobody has started from the same moment, most likely. */
extern int32 ent_timeline_epoch_after(int32 epoch, int32 branches);

#endif							/* ENT_STORE_TIMELINE_H */
