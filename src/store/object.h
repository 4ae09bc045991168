/*
 * store/object.h
 *	  entanglement.object: looking up one object's owner cheaply.
 *
 * Set-based reading and writing of objects belongs to the steps' queries; this
 * is for triggers and functions that ask about one row.
 */
#ifndef ENT_STORE_OBJECT_H
#define ENT_STORE_OBJECT_H

#include "postgres.h"

#include "executor/tuptable.h"

#include "store/relinfo.h"

typedef struct EntObject
{
	int32		owner;
	int32		epoch;
	int64		serial;
	int64		born;
} EntObject;

/*
 * The object's row under the active snapshot by a direct index scan, no
 * SPI, no rights checked. false: no such object (yet).
 */
extern bool ent_object_find(int32 rel, bytea *key, EntObject *out);

/*
 * Its owner under the active snapshot: the heir once it has been handed over,
 * also before that is folded. 0: no such object (yet).
 */
extern int32 ent_object_owner(int32 rel, bytea *key);

/*
 * Its owner if that is a remote one, as of now rather than as of the statement's
 * snapshot; 0: it has none.
 */
extern int32 ent_object_remote_owner(int32 rel, bytea *key);

/*
 * The owner of some object of the table whose owner is remote, hand-overs
 * included; 0: none. Under the active snapshot.
 */
extern int32 ent_object_remote_in(int32 rel);

/*
 * May objects of that table have a remote owner? marking: of ent_wake_is_marking, asked
 * before rel was read or looked whether it is still right. Costs nothing.
 */
static inline bool
ent_object_may_be_remote(const EntRelation *rel, bool marking)
{
	return rel->remote || marking;
}

/*
 * An object of that table (0: of any) is about to get, or to be handed over to, a
 * remote owner. Needs SPI.
 */
extern void ent_object_note_remote(int32 rel);

/*
 * May there be objects with a remote owner at all? Cached until somebody learns
 * of an owner; the answer to most questions of the guard.
 */
extern bool ent_object_any_remote(void);

/* Is that owner local? Cached; no SPI. */
extern bool ent_object_owner_is_local(int32 owner);

/*
 * Of a remote owner's object: may its row be newer than the version says? So it is
 * when it was told before a change had been folded at the home. ahead: digests that
 * say so.
 */
extern bool ent_object_is_ahead(TupleTableSlot *object);
extern bytea *ent_object_ahead(void);

/* Its name, in the current context; NULL when it has gone. */
extern char *ent_object_owner_name(int32 owner);

#endif							/* ENT_STORE_OBJECT_H */
