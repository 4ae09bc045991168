/*
 * guard/policy.h
 *	  What a peer's role may see and do here: PostgreSQL's own rights.
 */
#ifndef ENT_GUARD_POLICY_H
#define ENT_GUARD_POLICY_H

#include "postgres.h"

#include "store/relinfo.h"

/*
 * Marks in may[0 .. rel->ncolumns-1] the columns the role may SELECT. Returns
 * false when it may not see the table at all: no USAGE on the schema, or not every
 * key column readable.
 */
extern bool ent_policy_columns(EntRelation *rel, Oid role, bool *may);

/*
 * Does the role see that row? filter: SQL that it must fulfil besides, or NULL. One
 * that cannot be read is not seen; errors that are not about the row are raised. In
 * a transaction with SPI.
 */
extern bool ent_policy_sees_row(EntRelation *rel, Oid role, const char *filter,
								const Datum *key);

#endif							/* ENT_GUARD_POLICY_H */
