/*
 * step/decode_row.h
 *	  A row as the log tells it, in terms of the synchronized table.
 *
 * The relation is as it was when the row was written; the table as it is now.
 */
#ifndef ENT_STEP_DECODE_ROW_H
#define ENT_STEP_DECODE_ROW_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/rel.h"

#include "store/relinfo.h"

/*
 * Key image of a row; a value that the log does not tell is taken from other,
 * if that is not NULL. NULL: not told, or the columns were others then.
 */
extern bytea *ent_decode_key(EntRelation *root, Relation rel, HeapTuple row,
							 HeapTuple other);

/* Was the old key told, had it changed? It depends on the replica identity then. */
extern bool ent_decode_tells_key(EntRelation *root, Relation rel);

/*
 * Digests of what the log told of the new row, packed (store/rowdigest.h). columns: with
 * the whole old row in the log (REPLICA IDENTITY FULL) a bitmap of those that are
 * others now, perhaps empty; else NULL.
 */
extern bytea *ent_decode_digests(EntRelation *root, Relation rel, HeapTuple old,
								 HeapTuple new, bytea **columns);

#endif							/* ENT_STEP_DECODE_ROW_H */
