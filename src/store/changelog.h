/*
 * store/changelog.h
 *	  entanglement.change: what was written and is not folded yet.
 */
#ifndef ENT_STORE_CHANGELOG_H
#define ENT_STORE_CHANGELOG_H

#include "postgres.h"

/*
 * Adds a change (rule/coalesce.h) of table rel by a direct insertion, no SPI,
 * and wakes the collector at commit. owner: who an INSERT is born to, else 0.
 * key NULL: of the whole table. columns: bitmap of an UPDATE, else NULL.
 */
extern void ent_changelog_write(int32 rel, int32 owner, char op, bytea *key,
								bytea *columns);

#endif							/* ENT_STORE_CHANGELOG_H */
