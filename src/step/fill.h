/*
 * step/fill.h
 *	  Digests of rows that the log has not told of: of tables that were captured by trigger
 *	  before, and of columns that came later.
 *
 * In the collector, some objects at a time: ent_fill_read, then all that has been
 * committed meanwhile is read from the log and folded, then ent_fill_write. An object
 * that is still what it was has not changed since it was read, for all that is folded.
 */
#ifndef ENT_STEP_FILL_H
#define ENT_STEP_FILL_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef struct EntFill
{
	int32		rel;			/* being filled; 0: none */
	int			natts;			/* ... as it was when that began */
	bytea	   *after;			/* key reached, in TopMemoryContext; NULL: none */
	bool		passed_over;	/* objects changed meanwhile: one more pass */
	List	   *rows;			/* read and not written, in context */
	MemoryContext context;		/* the caller's; lasts from read to write */
} EntFill;

/* Is there anything to fill? Needs a transaction. */
extern bool ent_fill_wanted(EntFill *fill);

/*
 * Both in a transaction of their own, SPI connected, with an active snapshot.
 */
extern void ent_fill_read(EntFill *fill);
extern void ent_fill_write(EntFill *fill);

#endif							/* ENT_STEP_FILL_H */
