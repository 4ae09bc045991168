/*
 * link/outdata_private.h
 *	  What the files that put objects into a batch share: taking and encoding them
 *	  (outdata.c), one as bytes (outrow.c), what has become of them (outsettle.c).
 */
#ifndef ENT_LINK_OUTDATA_PRIVATE_H
#define ENT_LINK_OUTDATA_PRIVATE_H

#include "postgres.h"

#include "link/outbound_private.h"
#include "step/extract.h"

typedef enum EntOutFate
{
	ENT_OUT_FATE_DONE,					/* nothing to tell */
	ENT_OUT_FATE_SENT,
	ENT_OUT_FATE_LATER,					/* did not fit into this batch */
	ENT_OUT_FATE_LARGE					/* goes in fragments */
} EntOutFate;

typedef struct EntOutTaken
{
	EntQueueEntry entry;
	EntExtract *extract;		/* set once extracted */
	EntOutFate	fate;
	bool		again;			/* the cut does not have the newest version */
	bool		more;			/* sent or passed over: there are newer states */
	bool		forgets;		/* sent: the peer does not hold it afterwards */
} EntOutTaken;

/* What goes of one table. */
typedef struct EntOutSection
{
	EntOutbound *ob;
	EntWriter  *w;
	EntRelation *rel;
	EntOutTable *table;
	EntOutTaken *taken;
	int			n;
	EntOutSource *source;
	bool		denied;			/* may not be seen, since it cannot be read */
} EntOutSection;

/* About how many bytes it takes. */
extern size_t ent_outbound_row_size(const EntRelation *rel, const EntExtract *x);

/*
 * Writes what was extracted, with these flags; *last is the section's last serial. True:
 * the peer does not hold the object when it has got this. Raises what output functions
 * raise, and ERRCODE_PROGRAM_LIMIT_EXCEEDED for a value that is too large.
 */
extern bool ent_outbound_write_row(EntWriter *w, EntRelation *rel, EntOutTable *t,
								   EntExtract *x, unsigned flags, int64 *last);

/*
 * What has been encoded, in so many bytes, is in flight; what was not goes back into the
 * queue, once all that is to go has been taken from it.
 */
extern void ent_outbound_settle_section(EntOutSection *s, size_t bytes);
/* The table, or who may see it, changed under us: all of it goes back. */
extern void ent_outbound_look_first(EntOutSection *s);

#endif							/* ENT_LINK_OUTDATA_PRIVATE_H */
