/*
 * link/tally.c
 *	  Rows of a range, counted and summed up.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "link/tally.h"

int
ent_tally_compare(const void *a, size_t alen, const void *b, size_t blen)
{
	int			c = memcmp(a, b, Min(alen, blen));

	return c != 0 ? c : (alen > blen) - (alen < blen);
}

static void
set_key(StringInfo key, const EntDigestRow *row, MemoryContext context)
{
	if (key->data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		initStringInfo(key);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(key);
	appendBinaryStringInfo(key, (const char *) row->key, row->keylen);
}

void
ent_tally_add(EntTally *t, const EntDigestRow *row, MemoryContext context)
{
	if (t->count == 0 ||
		ent_tally_compare(row->key, row->keylen, t->first.data, t->first.len) < 0)
		set_key(&t->first, row, context);
	if (t->count == 0 ||
		ent_tally_compare(row->key, row->keylen, t->last.data, t->last.len) > 0)
		set_key(&t->last, row, context);
	if (t->count == 0 || row->epoch < t->epoch ||
		(row->epoch == t->epoch && row->serial < t->serial))
	{
		t->epoch = row->epoch;
		t->serial = row->serial;
	}
	t->unfolded |= row->unfolded;
	ent_wire_sum_add(&t->sum, row->hash);
	t->count++;
}

void
ent_tally_reset(EntTally *t)
{
	t->count = 0;
	t->unfolded = false;
	t->epoch = 0;
	t->serial = 0;
	memset(&t->sum, 0, sizeof(t->sum));
}

void
ent_tally_part(const EntTally *t, EntWirePart *part)
{
	memset(part, 0, sizeof(*part));
	part->count = t->count;
	if (t->count == 0)
		return;
	part->unfolded = t->unfolded;
	part->first = (const uint8 *) t->first.data;
	part->firstlen = t->first.len;
	part->last = (const uint8 *) t->last.data;
	part->lastlen = t->last.len;
	part->epoch = t->epoch;
	part->serial = t->serial;
	part->sum = t->sum;
}
