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

typedef struct EntObject
{
	int32		owner;
	int32		epoch;
	int64		serial;
	int64		born;
} EntObject;

/*
 * The object's row under the current snapshot by a direct index scan, no
 * SPI, no rights checked. false: no such object (yet).
 */
extern bool ent_object_find(int32 rel, bytea *key, EntObject *out);

/* Is that owner local? Cached; no SPI. */
extern bool ent_object_owner_is_local(int32 owner);

#endif							/* ENT_STORE_OBJECT_H */
