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
/*
 * Which rows the capture trigger notes: all; births only, since the log does not
 * tell whose they are; births whose owner the session names.
 */
typedef enum EntTriggersCapture
{
	ENT_TRIGGERS_ALL,
	ENT_TRIGGERS_BIRTHS,
	ENT_TRIGGERS_OWNERS
} EntTriggersCapture;

/* Replaces it, as the extension's owner. */
extern void ent_triggers_set_capture(Relation rel, Oid key_index,
									 EntTriggersCapture what);
extern void ent_triggers_drop(Oid relid);

/* TRUNCATE of a partition by itself; with the rights of the extension's owner. */
extern void ent_triggers_create_on_partition(Oid relid);
extern void ent_triggers_drop_on_partition(Oid relid);

#endif							/* ENT_API_TRIGGERS_H */
