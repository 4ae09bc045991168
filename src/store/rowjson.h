/*
 * store/rowjson.h
 *	  Rows and keys as jsonb, for users' functions.
 */
#ifndef ENT_STORE_ROWJSON_H
#define ENT_STORE_ROWJSON_H

#include "postgres.h"

#include "store/relinfo.h"

/*
 * An object with the columns that which[] marks, as to_jsonb() makes them of
 * their values; in the current context. That may run a cast of a type's owner: call
 * it as the peer's role, in a security-restricted operation.
 */
extern Datum ent_rowjson(EntRelation *rel, const bool *which,
						 const Datum *values, const bool *nulls);

/* The same of a key: rel->nkeys values, in key order. */
extern Datum ent_rowjson_key(EntRelation *rel, const Datum *key);

#endif							/* ENT_STORE_ROWJSON_H */
