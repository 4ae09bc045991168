/*
 * step/decode_digest.h
 *	  What rows were when the log told of them last: 64 bits a column.
 *
 * In memory of the process, so a row is unknown at first and after DDL.
 */
#ifndef ENT_STEP_DECODE_DIGEST_H
#define ENT_STEP_DECODE_DIGEST_H

#include "postgres.h"

#include "store/relinfo.h"

/*
 * The digests of a row, by attribute number of the root less one; 0: unknown.
 * Made where there were none.
 */
extern uint64 *ent_digest_of(EntRelation *root, bytea *key);
/* The row is gone, or was changed by others. */
extern void ent_digest_forget(EntRelation *root, bytea *key);
extern void ent_digest_forget_all(void);

/* Of a value that is not stored apart; never 0. */
extern uint64 ent_digest_value(Datum value, bool isnull, bool byval, int16 len);

#endif							/* ENT_STEP_DECODE_DIGEST_H */
