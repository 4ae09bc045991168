/*
 * link/outsent.c
 *	  The sending end: which versions were sent while an owner's objects are scanned.
 *
 * A scan and the events behind its start tell of the same objects, and each that is made
 * meanwhile would be sent twice. A version is the owner's serial, and what has been sent on
 * this link arrives before what is said of it later. So it is told once; what is forgotten
 * here costs bytes only, since the receiver has it already.
 */
#include "postgres.h"

#include "link/outbound_private.h"

#define FIRST_RANGES	64
#define MAX_RANGES		8192	/* then the oldest half is forgotten */

struct EntOutRange
{
	int64		from;
	int64		to;
};

/* The first range that does not end before the serial. */
static int
find_range(const EntOutOwner *o, int64 serial)
{
	int			lo = 0,
				hi = o->nsent;

	while (lo < hi)
	{
		int			mid = lo + (hi - lo) / 2;

		if (o->sent[mid].to < serial)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool
ent_outbound_was_sent(const EntOutOwner *o, int64 serial)
{
	int			i = find_range(o, serial);

	return i < o->nsent && o->sent[i].from <= serial;
}

static void
make_room(EntOutbound *ob, EntOutOwner *o)
{
	if (o->sent == NULL)
	{
		o->maxsent = FIRST_RANGES;
		o->sent = MemoryContextAlloc(ob->context, o->maxsent * sizeof(EntOutRange));
	}
	else if (o->maxsent < MAX_RANGES)
	{
		o->maxsent *= 2;
		o->sent = repalloc(o->sent, o->maxsent * sizeof(EntOutRange));
	}
	else
	{
		o->nsent -= MAX_RANGES / 2;
		memmove(o->sent, o->sent + MAX_RANGES / 2, o->nsent * sizeof(EntOutRange));
	}
}

static void
drop_range(EntOutOwner *o, int i)
{
	o->nsent--;
	memmove(&o->sent[i], &o->sent[i + 1], (o->nsent - i) * sizeof(EntOutRange));
}

void
ent_outbound_note_sent(EntOutbound *ob, EntOutOwner *o, int64 serial)
{
	int			i;

	if (ent_outbound_was_sent(o, serial))
		return;
	if (o->nsent == o->maxsent)
		make_room(ob, o);
	i = find_range(o, serial);
	if (i > 0 && o->sent[i - 1].to == serial - 1)
	{
		o->sent[i - 1].to = serial;
		if (i < o->nsent && o->sent[i].from == serial + 1)
		{
			o->sent[i - 1].to = o->sent[i].to;
			drop_range(o, i);
		}
	}
	else if (i < o->nsent && o->sent[i].from == serial + 1)
		o->sent[i].from = serial;
	else
	{
		memmove(&o->sent[i + 1], &o->sent[i], (o->nsent - i) * sizeof(EntOutRange));
		o->sent[i] = (EntOutRange) {serial, serial};
		o->nsent++;
	}
}

void
ent_outbound_forget_sent(EntOutOwner *o)
{
	if (o->sent != NULL)
		pfree(o->sent);
	o->sent = NULL;
	o->nsent = o->maxsent = 0;
}
