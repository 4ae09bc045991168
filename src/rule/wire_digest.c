/*
 * rule/wire_digest.c
 *	  Comparing two nodes' rows on the wire: every write beside its read.
 *
 * Contract in rule/wire.h, byte tables in docs/protocol.md. A read accepts
 * exactly what the write beside it can produce from meaningful values.
 */
#include "rule/wire_private.h"

#include <string.h>

#define RANGE_LO		0x01
#define RANGE_HI		0x02
#define PART_UNFOLDED	0x01

static unsigned
read_bits(EntReader *r, unsigned known)
{
	uint8_t		bits = ent_wire_read_u8(r);

	if ((bits & ~known) != 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	return r->error == ENT_WIRE_OK ? bits : 0;
}

static uint64_t
read_positive(EntReader *r)
{
	uint64_t	n = ent_wire_read_bounded(r, INT64_MAX);

	if (n == 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	return n;
}

/* ---- COMPARE ---- */

void
ent_wire_write_compare(EntWriter *w, const EntWireCompare *c)
{
	ent_wire_write_string(w, c->schema);
	ent_wire_write_string(w, c->table);
	ent_wire_write_varint(w, c->ncolumns);
}

void
ent_wire_read_compare(EntReader *r, EntWireCompare *c)
{
	ent_wire_read_name(r, c->schema);
	ent_wire_read_name(r, c->table);
	c->ncolumns = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_COLUMNS);
}

void
ent_wire_write_range(EntWriter *w, const EntWireRange *range)
{
	ent_wire_write_uuid(w, &range->owner);
	ent_wire_write_u8(w, (uint8_t) ((range->has_lo ? RANGE_LO : 0) |
									(range->has_hi ? RANGE_HI : 0)));
	if (range->has_lo)
		ent_wire_write_bytes(w, range->lo, range->lolen);
	if (range->has_hi)
		ent_wire_write_bytes(w, range->hi, range->hilen);
	ent_wire_write_varint(w, range->each);
}

void
ent_wire_read_range(EntReader *r, EntWireRange *range)
{
	unsigned	bits;

	memset(range, 0, sizeof(*range));
	ent_wire_read_uuid(r, &range->owner);
	bits = read_bits(r, RANGE_LO | RANGE_HI);
	range->has_lo = (bits & RANGE_LO) != 0;
	range->has_hi = (bits & RANGE_HI) != 0;
	if (range->has_lo)
		range->lo = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &range->lolen);
	if (range->has_hi)
		range->hi = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &range->hilen);
	range->each = read_positive(r);
}

/* ---- DIGEST ---- */

void
ent_wire_write_digest(EntWriter *w, const EntWireDigest *d)
{
	ent_wire_write_varint(w, d->compare);
	ent_wire_write_varint(w, d->range);
	ent_wire_write_uuid(w, &d->owner);
}

void
ent_wire_read_digest(EntReader *r, EntWireDigest *d)
{
	d->compare = (uint32_t) ent_wire_read_bounded(r, UINT32_MAX);
	d->range = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_RANGES);
	ent_wire_read_uuid(r, &d->owner);
}

static void
write_sum(EntWriter *w, EntWireSum sum)
{
	uint8_t		bytes[16];

	for (int i = 0; i < 8; i++)
	{
		bytes[i] = (uint8_t) (sum.high >> (56 - 8 * i));
		bytes[8 + i] = (uint8_t) (sum.low >> (56 - 8 * i));
	}
	ent_wire_write_raw(w, bytes, sizeof(bytes));
}

static void
read_sum(EntReader *r, EntWireSum *sum)
{
	const uint8_t *p = ent_wire_read_raw(r, 16);

	for (int i = 0; p != NULL && i < 8; i++)
	{
		sum->high = sum->high << 8 | p[i];
		sum->low = sum->low << 8 | p[8 + i];
	}
}

void
ent_wire_write_part(EntWriter *w, const EntWirePart *part)
{
	ent_wire_write_varint(w, part->count);
	if (part->count == 0)
		return;
	ent_wire_write_u8(w, part->unfolded ? PART_UNFOLDED : 0);
	ent_wire_write_bytes(w, part->last, part->lastlen);
	if (part->count > 1)
		ent_wire_write_bytes(w, part->first, part->firstlen);
	ent_wire_write_varint(w, part->epoch);
	ent_wire_write_varint(w, (uint64_t) part->serial);
	write_sum(w, part->sum);
}

void
ent_wire_read_part(EntReader *r, EntWirePart *part)
{
	memset(part, 0, sizeof(*part));
	part->count = ent_wire_read_bounded(r, INT64_MAX);
	if (part->count == 0)
		return;
	part->unfolded = read_bits(r, PART_UNFOLDED) != 0;
	part->last = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &part->lastlen);
	part->first = part->last;
	part->firstlen = part->lastlen;
	if (part->count > 1)
		part->first = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &part->firstlen);
	part->epoch = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_EPOCH);
	part->serial = ent_wire_read_serial(r);
	read_sum(r, &part->sum);
}
