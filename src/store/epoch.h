/*
 * store/epoch.h
 *	  Epochs of owners: how one begins, and which earlier ones it goes on from.
 *
 * An epoch that begins because history was lost has nothing in common with those
 * before it: everybody compares. One that begins where the log branched off (a
 * standby was promoted) goes on from the one before: versions of that up to the
 * serial at which it branched off are versions of the new one as well, and of what a
 * receiver has only the others are in doubt.
 */
#ifndef ENT_STORE_EPOCH_H
#define ENT_STORE_EPOCH_H

#include "postgres.h"

#include "rule/wire.h"
#include "store/owner.h"

/* All need a transaction and SPI. */

/*
 * A local owner's history went back (this database was restored from an older
 * state): its objects and tombstones go on in that epoch, which makes every
 * receiver compare everything. Events at commit.
 */
extern void ent_epoch_begin(int32 no, int32 epoch);
/*
 * A local owner's serials after the last one may have been given out elsewhere:
 * the same, but the epoch goes on from the one before. Replaced states of tables
 * with every_state are kept.
 */
extern void ent_epoch_branch(const EntOwner *o, int32 epoch);

/*
 * Those that the owner's present epoch goes on from, newest first; returns how many,
 * at most ENT_WIRE_MAX_ANCESTORS.
 */
extern int	ent_epoch_ancestors(int32 no, EntWireAncestor *ancestors);
/*
 * Of a remote owner, as its route says, in the transaction in which the epoch begins;
 * was: the one before, 0: none.
 */
extern void ent_epoch_set_ancestors(int32 no, int32 was,
									const EntWireAncestor *ancestors, int n);
/*
 * A remote owner that is held goes on in another epoch, which has all versions of its
 * present one up to that serial: they are of that epoch from now on, its have included.
 * What may be of newer ones keeps its version, which is older than any of that epoch,
 * and is parked: the peer is to be asked for it. False, and nothing is done, if it
 * cannot be told what that is, or if it is much.
 */
extern bool ent_epoch_adopt(const EntOwner *o, int32 epoch, int64 upto, int32 peer);

#endif							/* ENT_STORE_EPOCH_H */
