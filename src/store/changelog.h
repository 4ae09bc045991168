/*
 * store/changelog.h
 *	  entanglement.change: what was written and is not folded yet.
 */
#ifndef ENT_STORE_CHANGELOG_H
#define ENT_STORE_CHANGELOG_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "utils/snapshot.h"

/*
 * Adds a change (rule/coalesce.h) of table rel by a direct insertion, no SPI,
 * and wakes the collector at commit. owner: who an INSERT is born to, else 0.
 * key NULL: of the whole table. columns: bitmap of an UPDATE, else NULL.
 */
extern void ent_changelog_write(int32 rel, int32 owner, char op, bytea *key,
								bytea *columns);

/*
 * The same of a table with every_state, for one row. image: what the row was
 * before (store/image.h), if a transaction that has ended left it so; else NULL.
 */
extern void ent_changelog_write_state(int32 rel, int32 owner, char op,
									  bytea *key, bytea *columns, bytea *image);

/*
 * What the log told at that place. digests: of ent_digest_pack, of the columns that it
 * told, or NULL. An UPDATE without columns changed those whose digests are others
 * than the object's.
 */
extern void ent_changelog_write_told(int32 rel, char op, bytea *key,
									 bytea *columns, XLogRecPtr place,
									 bytea *digests);

/*
 * Runs fn, whose changes are written many at a time: what they point to has to stay until
 * ent_changelog_flush has been called. An active snapshot is needed.
 */
extern void ent_changelog_together(void (*fn) (void *arg), void *arg);
extern void ent_changelog_flush(void);

/* A statement has written rows into the log (change_trigger). */
extern void ent_changelog_written(void);

/* Keys of rows of one table, sorted. */
typedef struct EntKeySet
{
	bytea	  **keys;
	int			n;
} EntKeySet;

/*
 * Those with a change in the log under the snapshot, and those parked: of
 * these rows something is still to come. In the current context; needs SPI.
 */
extern void ent_changelog_keys(int32 rel, Snapshot snapshot, EntKeySet *set);
extern bool ent_changelog_has(const EntKeySet *set, bytea *key);

#endif							/* ENT_STORE_CHANGELOG_H */
