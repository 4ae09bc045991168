/*
 * link/tally.h
 *	  Rows of a range, counted and summed up.
 */
#ifndef ENT_LINK_TALLY_H
#define ENT_LINK_TALLY_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "rule/wire.h"
#include "step/digest.h"

typedef struct EntTally
{
	uint64		count;
	bool		unfolded;
	StringInfoData first;		/* least key */
	StringInfoData last;		/* greatest; both are made at the first row */
	int32		epoch;			/* oldest version */
	int64		serial;
	EntWireSum	sum;
} EntTally;

/* Memory for keys comes from the context, which must outlast the tally. */
extern void ent_tally_add(EntTally *t, const EntDigestRow *row,
						  MemoryContext context);
/* Begins anew; keeps its memory. */
extern void ent_tally_reset(EntTally *t);
extern void ent_tally_part(const EntTally *t, EntWirePart *part);

/* Order of key images. */
extern int	ent_tally_compare(const void *a, size_t alen, const void *b,
							  size_t blen);

#endif							/* ENT_LINK_TALLY_H */
