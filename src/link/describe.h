/*
 * link/describe.h
 *	  What a peer is told of our tables and owners.
 */
#ifndef ENT_LINK_DESCRIBE_H
#define ENT_LINK_DESCRIBE_H

#include "postgres.h"

#include "rule/wire.h"
#include "store/owner.h"
#include "store/relinfo.h"

/*
 * The announcement of a table, with the columns that the role may see; may is
 * filled by column. wire->columns are palloc'd. False when it may not see
 * the table.
 */
extern bool ent_describe_table(EntRelation *rel, Oid role, bool *may,
							   EntWireTable *wire);
/* ... with the columns that are in may, among them the key. */
extern void ent_describe_columns(EntRelation *rel, const bool *may,
								 EntWireTable *wire);
extern void ent_describe_owner(const EntOwner *o, EntWireOwner *wire);

#endif							/* ENT_LINK_DESCRIBE_H */
