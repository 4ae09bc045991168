/*
 * link/outrow.c
 *	  The sending end: one object as bytes.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "utils/memutils.h"

#include "link/outdata_private.h"
#include "store/owner.h"
#include "store/value.h"

size_t
ent_outbound_row_size(const EntRelation *rel, const EntExtract *x)
{
	size_t		size = x->keylen + 32;

	if (x->kind != ENT_EXTRACT_DELTA && x->kind != ENT_EXTRACT_FULL)
		return size;			/* values have not been read */
	for (int i = 0; i < rel->ncolumns; i++)
		if (x->raw != NULL)
			size += x->set[i] ? x->rawlen[i] : 0;
		else if (x->set[i] && !x->nulls[i])
			size += rel->columns[i].typlen == -1 ?
				toast_raw_datum_size(x->values[i]) : 40;
	return size;
}

/* The announcement's column numbers of the set, as a bitmap. */
static size_t
wire_set(EntOutTable *t, EntRelation *rel, EntExtract *x, uint8 *bitmap)
{
	int			number = 0;
	size_t		len = 0;

	memset(bitmap, 0, ENT_WIRE_MAX_COLUMNS / 8);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		if (!t->may[i])
			continue;
		if (x->set[i])
		{
			bitmap[number / 8] |= 1 << (number % 8);
			len = number / 8 + 1;
		}
		number++;
	}
	return len;
}

/* Send functions take a kilobyte for each value, and leave more. */
static MemoryContext
scratch(void)
{
	static MemoryContext context = NULL;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "entanglement value",
										ALLOCSET_DEFAULT_SIZES);
	return context;
}

static void
write_value(EntWriter *w, EntColumn *col, Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(scratch());
	size_t		len;
	const char *data = ent_value_encode(col, value, &len);

	MemoryContextSwitchTo(old);
	ent_wire_write_value(w, data, len);
}

static void
write_values(EntWriter *w, EntRelation *rel, EntExtract *x)
{
	for (int i = 0; i < rel->ncolumns; i++)
	{
		if (!x->set[i])
			continue;
		if (x->nulls[i])
			ent_wire_write_value(w, NULL, 0);
		else if (x->raw != NULL)
			ent_wire_write_value(w, x->raw[i], x->rawlen[i]);
		else
			write_value(w, &rel->columns[i], x->values[i]);
	}
	MemoryContextReset(scratch());
}

/* Names an owner to whom an object came, or from whom; false: he is no more. */
static bool
name_hand(const EntHand *hand, EntWireUuid *owner, uint32 *epoch,
		  int64_t *serial)
{
	EntOwner   *o = hand->owner == 0 ? NULL : ent_owner_get(hand->owner);

	if (o == NULL || o->gone)
		return false;
	memcpy(owner->bytes, o->id.data, UUID_LEN);
	*epoch = hand->epoch;
	*serial = hand->serial;
	return true;
}

static void
name_hands(EntWireRow *row, EntExtract *x)
{
	if (name_hand(&x->heir, &row->heir, &row->heir_epoch, &row->heir_serial))
		row->flags |= ENT_ROW_HEIR;
	else if (x->heir.owner != 0)
		row->op = ENT_ROW_DELETE;	/* he has taken it along */
	if (name_hand(&x->from, &row->from, &row->from_epoch, &row->from_serial))
		row->flags |= ENT_ROW_FROM;
}

bool
ent_outbound_write_row(EntWriter *w, EntRelation *rel, EntOutTable *t,
					   EntExtract *x, unsigned flags, int64 *last)
{
	static const EntRowOp ops[] = {
		[ENT_EXTRACT_DEAD] = ENT_ROW_DELETE,[ENT_EXTRACT_DELTA] = ENT_ROW_DELTA,
		[ENT_EXTRACT_FULL] = ENT_ROW_FULL,[ENT_EXTRACT_WITHDRAWN] = ENT_ROW_WITHDRAW
	};
	uint8		bitmap[ENT_WIRE_MAX_COLUMNS / 8];
	EntWireRow	row = {
		.op = ops[x->kind], .flags = flags, .serial = x->serial, .base = x->base
	};

	row.key = ent_key_to_wire(rel, x->key, x->keylen, &row.keylen);
	if (row.op == ENT_ROW_DELTA)
	{
		row.set = bitmap;
		row.setlen = wire_set(t, rel, x, bitmap);
	}
	else if (row.op == ENT_ROW_WITHDRAW)
		row.flags = 0;
	else
		name_hands(&row, x);
	if (x->ahead && (row.op == ENT_ROW_DELTA ||
					 (row.op == ENT_ROW_FULL && (row.flags & ENT_ROW_HEIR) == 0)))
		row.flags |= ENT_ROW_AHEAD;
	/* it may have had, and lost, this very version */
	if (row.op == ENT_ROW_FULL && t->partial && (!x->held || x->leaving))
		row.flags |= ENT_ROW_REFRESH;
	ent_wire_write_row(w, &row, last);
	if (row.op == ENT_ROW_DELTA || row.op == ENT_ROW_FULL)
		write_values(w, rel, x);
	return !x->elsewhere && (row.op == ENT_ROW_WITHDRAW ||
							 (row.op == ENT_ROW_DELETE &&
							  (row.flags & ENT_ROW_HEIR) == 0));
}
