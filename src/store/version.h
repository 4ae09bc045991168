/*
 * store/version.h
 *	  New versions of objects, gathered and written set-wise.
 *
 * The one writer of entanglement.object and entanglement.tombstone besides
 * pruning. Keys and column serials are kept by reference until written.
 */
#ifndef ENT_STORE_VERSION_H
#define ENT_STORE_VERSION_H

#include "postgres.h"

#include "storage/itemptr.h"

#include "store/direct.h"

typedef struct EntVersions EntVersions;

/*
 * Whose hands an object comes into, and a version that is older than his first
 * one of it but newer than those he may have had of it before; or whose hands
 * it came from, with his last version.
 */
typedef struct EntHand
{
	int32		owner;			/* local number; 0: nobody's */
	int32		epoch;
	int64		serial;
} EntHand;

/*
 * An object's row as ent_direct_find, of a table of objects opened by key. What was written
 * not long ago is found without the index.
 */
extern TupleTableSlot *ent_versions_find(EntDirect *objects, int32 rel, bytea *key);
/*
 * The least and the greatest of some keys of a table, by which it is seen at once that
 * none of them has an object: keys that come in order, as in a first copy, do not have
 * to be looked for one by one.
 */
typedef struct EntKeyRange
{
	int			n;				/* of so many keys */
	const bytea *least;
	const bytea *greatest;
} EntKeyRange;

/* Of two keys of a table, in the order of the index: negative, 0 or positive. */
extern int	ent_versions_compare(const bytea *a, const bytea *b);
extern void ent_versions_widen(EntKeyRange *range, const bytea *key);
/* May there be one in the range? Few keys are better looked for: true. */
extern bool ent_versions_any(EntDirect *objects, int32 rel, const EntKeyRange *range);
/* It has just been seen there, and is looked for soon. */
extern void ent_versions_note(int32 rel, bytea *key, const ItemPointerData *at);

/* Column serials of an object none of whose columns has changed since it was born. */
extern bytea *ent_versions_all_born(void);

extern EntVersions *ent_versions_create(void);	/* in the current context */

/*
 * A live object's new version; removes that owner's tombstone for the key.
 * born 0: handed over to that owner, who has not confirmed it. digests: of
 * ent_digest_pack, or NULL. at: where the object's row was found within this
 * transaction, or NULL.
 */
extern void ent_versions_put(EntVersions *v, int32 rel, int32 owner,
							 int32 epoch, int64 serial, int64 born,
							 bytea *key, bytea *columns, bytea *digests,
							 const ItemPointerData *at);
/*
 * The same for an object that has neither a row nor a tombstone of that owner: they
 * are not looked for.
 */
extern void ent_versions_add(EntVersions *v, int32 rel, int32 owner,
							 int32 epoch, int64 serial, bytea *key,
							 bytea *columns);
/*
 * The one put last was this owner's before, in a version of his own: he has no tombstone
 * for it, and none is looked for among all that may be kept.
 */
extern void ent_versions_no_grave(EntVersions *v);
/* The object is no more. */
extern void ent_versions_drop(EntVersions *v, int32 rel, bytea *key);
/*
 * A tombstone; replaces the owner's older one for that key. heir: owner 0, or the
 * object lives on as his. from: owner 0, or who had handed it over before; until
 * that has been heard of, the tombstone is not removed.
 */
extern void ent_versions_bury(EntVersions *v, int32 rel, int32 owner,
							  int32 epoch, int64 serial, bytea *key,
							  EntHand heir, EntHand from);
/*
 * ... which was said last is of an object that is in this version, perhaps with newer
 * values: it was only withdrawn.
 */
extern void ent_versions_bury_ahead(EntVersions *v);

/*
 * Writes everything gathered (in the order unbury, put, drop, bury) and empties it. SPI connected. A key
 * may be put once per call: else ERRCODE_CARDINALITY_VIOLATION or
 * ERRCODE_UNIQUE_VIOLATION, the latter also when somebody else adds it meanwhile.
 */
extern void ent_versions_write(EntVersions *v);

#endif							/* ENT_STORE_VERSION_H */
