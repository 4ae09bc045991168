/*
 * step/digest.h
 *	  The rows of a table in the order of their keys, each as a hash: what two
 *	  nodes compare.
 *
 * Rows are read as a role, and those it does not see do not count, nor those that the
 * peer does not want or a should_send hook forbids, unless they come from itself. A hash is
 * 128 bits of SHA-256 over the key image, the owner's id and the values in
 * wire form, so it is the same at both nodes if the rows are. Everything of one
 * call belongs to one snapshot.
 */
#ifndef ENT_STEP_DIGEST_H
#define ENT_STEP_DIGEST_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "rule/wire.h"
#include "store/relinfo.h"

typedef struct EntDigestRow
{
	int32		owner;
	const uint8 *key;			/* image, as here and on the wire */
	size_t		keylen;
	int32		epoch;
	int64		serial;
	bool		unfolded;		/* it has changed, or been parked, since */
	EntWireSum	hash;
} EntDigestRow;

typedef struct EntDigestJob
{
	EntRelation *rel;
	int32		peer;
	Oid			role;
	const char *filter;			/* of rows of owners that do not come from the peer,
								 * as ent_filter_sql made it, or NULL */
	bool		nothing;		/* none of these rows */
	int			ncolumns;
	const int  *columns;		/* indexes into rel->columns; hashed in this order */
	int32		owner;			/* 0: of all owners */
	bytea	   *lo;				/* keys after this one; NULL: from the first on */
	bytea	   *hi;				/* up to this one; NULL: to the last */
	Snapshot	snapshot;
	void		(*visit) (void *arg, const EntDigestRow *row);
	void	   *arg;
} EntDigestJob;

/* Objects, by rising keys. SPI connected. */
extern void ent_digest_objects(EntDigestJob *job);

/*
 * Rows that are no objects, in any order: owner 0, no hash, no version. Not
 * those that are captured and not folded yet, or parked. lo and hi are ignored.
 */
extern void ent_digest_strangers(EntDigestJob *job);

/*
 * Are key images here what they are on the wire, so that their order is the
 * same at any node? Not those with text in some encodings.
 */
extern bool ent_digest_ordered(EntRelation *rel);

#endif							/* ENT_STEP_DIGEST_H */
