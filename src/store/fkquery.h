/*
 * store/fkquery.h
 *	  Statements that look whether a foreign key holds, prepared per constraint.
 *
 * As PostgreSQL's own: each runs as the owner of the table it looks into, in a
 * security-restricted context that no row-level security filters, under the
 * newest snapshot, and holds what it relies on with FOR KEY SHARE until the
 * transaction ends. All names are schema-qualified. SPI must be connected.
 * Values are by column of the constraint, in the current memory context.
 */
#ifndef ENT_STORE_FKQUERY_H
#define ENT_STORE_FKQUERY_H

#include "postgres.h"

#include "store/foreignkey.h"
#include "store/relinfo.h"

/* Whose rights count for looks into a table. */
extern Oid	ent_fkquery_owner(Oid relid);

/* The prepared statements may belong to names of before: look again. */
extern void ent_fkquery_refresh(void);

/*
 * The values in the child's (the parent's) row with that key of its root's.
 * false: there is no such row in the table that the constraint names.
 */
extern bool ent_fkquery_child_values(EntForeignKey *fk, EntRelation *child,
									 const Datum *key, Datum *values, bool *nulls);
extern bool ent_fkquery_parent_values(EntForeignKey *fk, EntRelation *parent,
									  const Datum *key, Datum *values,
									  bool *nulls);

/* Is there a parent with the child's values? It stays. */
extern bool ent_fkquery_lock_parent(EntForeignKey *fk, const Datum *values);
/* Is there a parent with a (former) parent's values? It stays. */
extern bool ent_fkquery_parent_exists(EntForeignKey *fk, const Datum *values);
/* Is there a child of a (former) parent's values? */
extern bool ent_fkquery_child_exists(EntForeignKey *fk, const Datum *values);

/* "(a, b)=(1, 2)", as PostgreSQL's errors have it. */
extern char *ent_fkquery_text(EntForeignKey *fk, bool child, const Datum *values);

/*
 * What a row waits for, as a number: that a parent with these values comes, or
 * that the last child of them goes. child: the values are of the child's types.
 */
extern int64 ent_fkquery_hash(EntForeignKey *fk, bool parent_comes, bool child,
							  const Datum *values);

#endif							/* ENT_STORE_FKQUERY_H */
