/*
 * api/triggers.h
 *	  The triggers that capture what happens to a synchronized table.
 */
#ifndef ENT_API_TRIGGERS_H
#define ENT_API_TRIGGERS_H

#include "postgres.h"

#include "utils/rel.h"

/*
 * On the table itself, with the caller's rights: capture of rows, which
 * PostgreSQL copies to partitions, and of TRUNCATE. They hold on to the key's
 * index, which cannot be dropped without them. Those that a restored dump
 * brought are replaced; somebody else's of the same name are refused by
 * PostgreSQL. SPI must be connected; the table is locked.
 */
extern void ent_triggers_create(Relation rel, Oid key_index);
extern void ent_triggers_drop(Oid relid);

/* TRUNCATE of a partition by itself; with the rights of the extension's owner. */
extern void ent_triggers_create_on_partition(Oid relid);
extern void ent_triggers_drop_on_partition(Oid relid);

#endif							/* ENT_API_TRIGGERS_H */
