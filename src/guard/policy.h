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

#endif							/* ENT_GUARD_POLICY_H */
