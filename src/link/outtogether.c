/*
 * link/outtogether.c
 *	  The sending end: objects of tables with integrity, as of one cut.
 *
 * All that is queued of them goes into one batch, read under a snapshot that
 * shows exactly what has been folded, so that what a transaction changed arrives
 * with all of it. What is queued after the cut was asked for is in it or
 * not; what is not stays queued.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "base/cut.h"
#include "link/outbound_private.h"

#define CUT_WAIT_MS		1000	/* for the collector's next fold */

/*
 * What one batch takes; more goes in several, parents first. The receiver must
 * be done with it before it is taken for dead.
 */
#define MAX_BYTES		((size_t) 32 * 1024 * 1024)
#define MAX_OBJECTS		200000

/* A scan brings all there is before the first of it goes. */
static bool
ready(EntOutbound *ob)
{
	size_t		n = ent_queue_length(ob->together);

	return n > 0 && !ob->adverts_due && (ob->scans == 0 || n >= MAX_OBJECTS);
}

void
ent_outbound_ask_cut(EntOutbound *ob)
{
	ob->cut_ticket = 0;
	if (!ready(ob))
		return;
	ob->round++;
	ob->cut_position = ob->ring_position;
	ob->cut_at = GetCurrentTimestamp();
	ob->cut_ticket = ent_cut_ask();
}

void
ent_outbound_write_together(EntOutbound *ob, EntWriter *w)
{
	EntOutSource source = {
		.queue = ob->together, .cut = true, .max_bytes = w->len + MAX_BYTES,
		.max_objects = MAX_OBJECTS, .large = SIZE_MAX
	};

	if (ob->cut_ticket == 0)
		return;
	source.snapshot = ent_cut_take(ob->cut_ticket, CUT_WAIT_MS);
	if (source.snapshot == NULL)
		return;					/* try again, with the next batch */
	/* the events of the fold that the cut is of */
	ent_outbound_read_ring(ob);
	ob->shown_at = InvalidXLogRecPtr;	/* claims may be of what came since */
	if (ready(ob))
		ent_outbound_write_source(ob, w, &source);
	UnregisterSnapshot(source.snapshot);
}

bool
ent_outbound_together_full(EntOutbound *ob)
{
	return ent_queue_length(ob->together) >= MAX_OBJECTS;
}
