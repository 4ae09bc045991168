/*
 * store/rowdigest.h
 *	  What the columns of a row are, in a few bytes each.
 *
 * The log tells new values, mostly not the old ones. So what a row was when it was
 * told of last is kept with its object, and a column whose digest is the same has
 * not changed. Values of up to 16 bytes are their own digests; of longer ones it is the
 * first half of their SHA-256 (FIPS 180-4), so that nobody can make two values
 * that have one.
 */
#ifndef ENT_STORE_ROWDIGEST_H
#define ENT_STORE_ROWDIGEST_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "store/relinfo.h"

#define ENT_DIGEST_BYTES	16

/* All bytes count: what kind does not use is 0. */
typedef struct EntDigest
{
	uint8		kind;			/* see rowdigest.c; 0: nothing is known */
	uint8		bytes[ENT_DIGEST_BYTES];
} EntDigest;

static inline bool
ent_digest_known(const EntDigest *d)
{
	return d->kind != 0;
}

/* Is it known that both are the same? */
static inline bool
ent_digest_same(const EntDigest *a, const EntDigest *b)
{
	return a->kind != 0 && memcmp(a, b, sizeof(EntDigest)) == 0;
}

/* Of a value as it is stored, by its type's typbyval and typlen. */
extern EntDigest ent_digest_of(Datum value, bool null, bool typbyval, int16 typlen);

/*
 * Digests of a row, by attribute number of the root less one, packed: in the current
 * context; NULL if nothing is known.
 */
extern bytea *ent_digest_pack(const EntDigest *digests, int natts);
/* NULL, and what is not in it: not known. Ends at what cannot be right. */
extern void ent_digest_unpack(const bytea *packed, EntDigest *digests, int natts);

/* Of the row with that key under the snapshot; false: there is none. */
extern bool ent_digest_read(EntRelation *rel, const Datum *key, Snapshot snapshot,
							EntDigest *digests);

#endif							/* ENT_STORE_ROWDIGEST_H */
