/*
 * rule/wire_section.c
 *	  The batch header and the sections: every write beside its read.
 *
 * Contract in rule/wire.h, byte tables in docs/protocol.md. A read accepts
 * exactly what the write beside it can produce from meaningful values.
 */
#include "rule/wire_private.h"

#include <string.h>

/* ---- fields several sections have ---- */

static uint32_t
read_table_number(EntReader *r)
{
	return (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_TABLES);
}

static uint32_t
read_owner_number(EntReader *r)
{
	return (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_OWNERS);
}

static uint32_t
read_epoch(EntReader *r)
{
	return (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_EPOCH);
}

/* One byte of which only the bits of mask may be set. */
static unsigned
read_bits(EntReader *r, unsigned mask)
{
	unsigned	bits = ent_wire_read_u8(r);

	if ((bits & ~mask) != 0)
	{
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
		bits = 0;
	}
	return bits;
}

void
ent_wire_write_uuid(EntWriter *w, const EntWireUuid *id)
{
	ent_wire_write_raw(w, id->bytes, sizeof(id->bytes));
}

void
ent_wire_read_uuid(EntReader *r, EntWireUuid *id)
{
	const uint8_t *p = ent_wire_read_raw(r, sizeof(id->bytes));

	if (p != NULL)
		memcpy(id->bytes, p, sizeof(id->bytes));
	else
		memset(id->bytes, 0, sizeof(id->bytes));
}

void
ent_wire_read_name(EntReader *r, char *buf)
{
	ent_wire_read_string(r, buf, ENT_WIRE_MAX_NAME);
	if (buf[0] == '\0')
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
}

/* ---- batch header ---- */

void
ent_wire_write_header(EntWriter *w, const EntWireHeader *h)
{
	uint64_t	behind = h->version == 1 && h->heard < h->number ?
	h->number - 1 - h->heard : 0;

	ent_wire_write_u8(w, ENT_WIRE_MAGIC);
	ent_wire_write_varint(w, h->version);
	ent_wire_write_varint(w, h->version != 1 ? h->flags :
						  behind > 0 ? ENT_HEADER_HEARD : 0);
	ent_wire_write_varint(w, h->number);
	if (behind > 0)
		ent_wire_write_varint(w, behind);
}

void
ent_wire_read_header(EntReader *r, EntWireHeader *h)
{
	uint64_t	behind;

	if (ent_wire_read_u8(r) != ENT_WIRE_MAGIC)
		ent_wire_fail(r, ENT_WIRE_BAD_MAGIC);
	h->version = (unsigned) ent_wire_read_bounded(r, UINT16_MAX);
	h->flags = (unsigned) ent_wire_read_bounded(r, UINT32_MAX);
	h->number = ent_wire_read_varint(r);
	if (h->version == 0 || (h->version == 1 && (h->flags & ~ENT_HEADER_HEARD) != 0))
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	h->heard = h->number > 0 ? h->number - 1 : 0;
	if (h->version != 1 || (h->flags & ENT_HEADER_HEARD) == 0)
		return;
	behind = ent_wire_read_varint(r);
	if (behind == 0 || behind > h->heard)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	else
		h->heard -= behind;
}

/* ---- HELLO ---- */

void
ent_wire_write_hello(EntWriter *w, const EntWireHello *h)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_HELLO);

	ent_wire_write_varint(w, h->max_version);
	ent_wire_write_varint(w, h->min_version);
	ent_wire_write_uuid(w, &h->node);
	ent_wire_write_string(w, h->name);
	ent_wire_write_string(w, h->software);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_hello(EntReader *r, EntWireHello *h)
{
	h->max_version = (unsigned) ent_wire_read_bounded(r, UINT16_MAX);
	h->min_version = (unsigned) ent_wire_read_bounded(r, UINT16_MAX);
	if (h->min_version == 0 || h->min_version > h->max_version)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	ent_wire_read_uuid(r, &h->node);
	ent_wire_read_string(r, h->name, ENT_WIRE_MAX_NAME);
	ent_wire_read_string(r, h->software, ENT_WIRE_MAX_NAME);
}

/* ---- OWNER ---- */

#define OWNER_LOST			0x01
#define OWNER_PARTIAL		0x02
#define OWNER_DESCENDS		0x04

static void
write_ancestors(EntWriter *w, const EntWireOwner *o)
{
	ent_wire_write_varint(w, o->nancestors);
	for (unsigned i = 0; i < o->nancestors; i++)
	{
		ent_wire_write_varint(w, o->ancestors[i].epoch);
		ent_wire_write_varint(w, (uint64_t) o->ancestors[i].serial);
	}
}

/* Each is older than the one before. */
static void
read_ancestors(EntReader *r, EntWireOwner *o)
{
	unsigned	n = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_ANCESTORS);
	uint32_t	later = o->epoch;

	if (n == 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	for (unsigned i = 0; i < n; i++)
	{
		o->ancestors[i].epoch = read_epoch(r);
		o->ancestors[i].serial = ent_wire_read_serial(r);
		if (o->ancestors[i].epoch == 0 || o->ancestors[i].epoch >= later)
			ent_wire_fail(r, ENT_WIRE_MALFORMED);
		later = o->ancestors[i].epoch;
	}
	o->nancestors = r->error == ENT_WIRE_OK ? n : 0;
}

void
ent_wire_write_owner(EntWriter *w, const EntWireOwner *o)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_OWNER);

	ent_wire_write_varint(w, o->number);
	ent_wire_write_uuid(w, &o->id);
	ent_wire_write_uuid(w, &o->home);
	ent_wire_write_string(w, o->name);
	ent_wire_write_varint(w, o->epoch);
	ent_wire_write_varint(w, (uint64_t) o->serial);
	ent_wire_write_varint(w, o->distance);
	ent_wire_write_u8(w, (uint8_t) ((o->lost ? OWNER_LOST : 0) |
									(o->partial ? OWNER_PARTIAL : 0) |
									(o->nancestors > 0 ? OWNER_DESCENDS : 0)));
	if (o->nancestors > 0)
		write_ancestors(w, o);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_owner(EntReader *r, EntWireOwner *o)
{
	unsigned	bits;

	o->number = read_owner_number(r);
	ent_wire_read_uuid(r, &o->id);
	ent_wire_read_uuid(r, &o->home);
	ent_wire_read_name(r, o->name);
	o->epoch = read_epoch(r);
	o->serial = ent_wire_read_serial(r);
	o->distance = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_DISTANCE);
	bits = read_bits(r, OWNER_LOST | OWNER_PARTIAL | OWNER_DESCENDS);
	o->lost = (bits & OWNER_LOST) != 0;
	o->partial = (bits & OWNER_PARTIAL) != 0;
	memset(o->ancestors, 0, sizeof(o->ancestors));
	o->nancestors = 0;
	if (bits & OWNER_DESCENDS)
		read_ancestors(r, o);
}

/* ---- TABLE ---- */

#define COLUMN_BINARY		0x01
#define COLUMN_KEY_ONLY		0x02
#define COLUMN_MIN_BYTES	6	/* a name of one byte, all else empty */

static void
write_column(EntWriter *w, const EntWireColumn *c)
{
	ent_wire_write_string(w, c->name);
	ent_wire_write_string(w, c->type_schema);
	ent_wire_write_string(w, c->type_name);
	ent_wire_write_u8(w, (uint8_t)
					  ((c->format == ENT_FORMAT_BINARY ? COLUMN_BINARY : 0) |
					   (c->in_key_only ? COLUMN_KEY_ONLY : 0)));
	ent_wire_write_varint(w, c->key);
}

static void
read_column(EntReader *r, EntWireColumn *c, unsigned nkeys)
{
	unsigned	bits;

	ent_wire_read_name(r, c->name);
	ent_wire_read_string(r, c->type_schema, ENT_WIRE_MAX_NAME);
	ent_wire_read_string(r, c->type_name, ENT_WIRE_MAX_NAME);
	bits = read_bits(r, COLUMN_BINARY | COLUMN_KEY_ONLY);
	c->format = bits & COLUMN_BINARY ? ENT_FORMAT_BINARY : ENT_FORMAT_TEXT;
	c->in_key_only = (bits & COLUMN_KEY_ONLY) != 0;
	c->key = (unsigned) ent_wire_read_bounded(r, nkeys);
	if (c->in_key_only && c->key == 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
}

void
ent_wire_write_table(EntWriter *w, const EntWireTable *t)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_TABLE);

	ent_wire_write_varint(w, t->number);
	ent_wire_write_string(w, t->schema);
	ent_wire_write_string(w, t->name);
	ent_wire_write_varint(w, t->nkeys);
	ent_wire_write_varint(w, t->ncolumns);
	for (unsigned i = 0; i < t->ncolumns; i++)
		write_column(w, &t->columns[i]);
	ent_wire_close_section(w, mark);
}

/* Is every key position 1 .. nkeys held by exactly one column? */
static bool
keys_complete(const EntWireTable *t)
{
	uint64_t	seen = 0;
	unsigned	count = 0;

	for (unsigned i = 0; i < t->ncolumns; i++)
	{
		if (t->columns[i].key == 0)
			continue;
		seen |= UINT64_C(1) << t->columns[i].key;
		count++;
	}
	return count == t->nkeys && seen == (UINT64_C(2) << t->nkeys) - 2;
}

static void
read_table_counts(EntReader *r, EntWireTable *t)
{
	t->nkeys = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_KEYS);
	t->ncolumns = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_COLUMNS);
	if (t->nkeys == 0 || t->nkeys > t->ncolumns)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	if (t->ncolumns > (size_t) (r->end - r->p) / COLUMN_MIN_BYTES)
		ent_wire_fail(r, ENT_WIRE_TRUNCATED);
}

void
ent_wire_read_table(EntReader *r, EntWireTable *t, EntWireAllocator alloc)
{
	t->columns = NULL;
	t->number = read_table_number(r);
	ent_wire_read_name(r, t->schema);
	ent_wire_read_name(r, t->name);
	read_table_counts(r, t);
	if (r->error == ENT_WIRE_OK)
		t->columns = alloc.grow(alloc.ctx, NULL,
								t->ncolumns * sizeof(EntWireColumn));
	for (unsigned i = 0; i < t->ncolumns && r->error == ENT_WIRE_OK; i++)
		read_column(r, &t->columns[i], t->nkeys);
	if (r->error == ENT_WIRE_OK && !keys_complete(t))
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	if (r->error != ENT_WIRE_OK)
		t->ncolumns = t->nkeys = 0;
}

static void
write_hand(EntWriter *w, const EntWireUuid *owner, uint32_t epoch,
		   int64_t serial)
{
	ent_wire_write_uuid(w, owner);
	ent_wire_write_varint(w, epoch);
	ent_wire_write_varint(w, (uint64_t) serial);
}

static void
read_hand(EntReader *r, EntWireUuid *owner, uint32_t *epoch, int64_t *serial)
{
	ent_wire_read_uuid(r, owner);
	*epoch = read_epoch(r);
	*serial = ent_wire_read_serial(r);
}

/* ---- OBJECTS: fields, rows, values ---- */

void
ent_wire_write_objects(EntWriter *w, const EntWireObjects *o)
{
	ent_wire_write_varint(w, o->table);
	ent_wire_write_varint(w, o->owner);
	ent_wire_write_varint(w, o->epoch);
}

void
ent_wire_read_objects(EntReader *r, EntWireObjects *o)
{
	o->table = read_table_number(r);
	o->owner = read_owner_number(r);
	o->epoch = read_epoch(r);
}

void
ent_wire_write_row(EntWriter *w, const EntWireRow *row, int64_t *last)
{
	ent_wire_write_u8(w, (uint8_t) (row->op | row->flags));
	if (row->op == ENT_ROW_WITHDRAW)
	{
		ent_wire_write_bytes(w, row->key, row->keylen);
		return;
	}
	ent_wire_write_zigzag(w, row->serial - *last);
	ent_wire_write_bytes(w, row->key, row->keylen);
	if (row->op == ENT_ROW_DELTA)
	{
		ent_wire_write_varint(w, (uint64_t) (row->serial - row->base));
		ent_wire_write_bytes(w, row->set, row->setlen);
	}
	if (row->flags & ENT_ROW_HEIR)
		write_hand(w, &row->heir, row->heir_epoch, row->heir_serial);
	if (row->flags & ENT_ROW_FROM)
		write_hand(w, &row->from, row->from_epoch, row->from_serial);
	*last = row->serial;
}

/* last + difference, which has to be a serial again */
static int64_t
read_serial_after(EntReader *r, int64_t last)
{
	int64_t		difference = ent_wire_read_zigzag(r);

	if (difference > ENT_WIRE_MAX_SERIAL - last || difference < -last)
	{
		ent_wire_fail(r, ENT_WIRE_OVERFLOW);
		return 0;
	}
	return last + difference;
}

static void
read_row_delta(EntReader *r, EntWireRow *row)
{
	int64_t		behind = ent_wire_read_serial(r);

	if (behind > row->serial)
		ent_wire_fail(r, ENT_WIRE_OVERFLOW);
	row->set = ent_wire_read_bytes(r, ENT_WIRE_MAX_SET, &row->setlen);
	if (r->error == ENT_WIRE_OK)
		row->base = row->serial - behind;
}

/* What lives on as its owner's is in nobody else's hands. */
static void
read_hands(EntReader *r, EntWireRow *row)
{
	bool		heir = (row->flags & ENT_ROW_HEIR) != 0,
				from = (row->flags & ENT_ROW_FROM) != 0;

	if ((heir && row->op == ENT_ROW_DELTA) ||
		(from && !heir && row->op != ENT_ROW_DELETE))
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	if (heir)
		read_hand(r, &row->heir, &row->heir_epoch, &row->heir_serial);
	if (from)
		read_hand(r, &row->from, &row->from_epoch, &row->from_serial);
}

void
ent_wire_read_row(EntReader *r, EntWireRow *row, int64_t *last)
{
	unsigned	bits = read_bits(r, ENT_ROW_OP_MASK | ENT_ROW_REFRESH |
								 ENT_ROW_LATE | ENT_ROW_HEIR |
								 ENT_ROW_FROM | ENT_ROW_AHEAD);

	memset(row, 0, sizeof(*row));
	row->op = (EntRowOp) (bits & ENT_ROW_OP_MASK);
	row->flags = bits & ~(unsigned) ENT_ROW_OP_MASK;
	if (row->op == ENT_ROW_WITHDRAW && row->flags != 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	if ((row->flags & ENT_ROW_AHEAD) &&
		(row->op == ENT_ROW_DELETE || (row->flags & ENT_ROW_HEIR)))
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	if (row->op != ENT_ROW_WITHDRAW)
		row->serial = read_serial_after(r, *last);
	row->key = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &row->keylen);
	if (row->op == ENT_ROW_DELTA)
		read_row_delta(r, row);
	read_hands(r, row);
	if (r->error != ENT_WIRE_OK)
		memset(row, 0, sizeof(*row));
	if (row->op != ENT_ROW_WITHDRAW)
		*last = row->serial;
}

void
ent_wire_write_value(EntWriter *w, const void *data, size_t len)
{
	if (data == NULL)
	{
		ent_wire_write_u8(w, 0);
		return;
	}
	ent_wire_write_varint(w, (uint64_t) len + 1);
	ent_wire_write_raw(w, data, len);
}

const uint8_t *
ent_wire_read_value(EntReader *r, size_t *len, bool *isnull)
{
	size_t		n = (size_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_VALUE + 1);
	const uint8_t *p = n > 0 ? ent_wire_read_raw(r, n - 1) : NULL;

	*isnull = p == NULL;
	*len = p != NULL ? n - 1 : 0;
	return p;
}

/* ---- CLAIM, CLAIM_GAPS, SEEK ---- */

void
ent_wire_write_claim(EntWriter *w, EntSectionType type, const EntWireClaim *c)
{
	size_t		mark = ent_wire_open_section(w, type);

	ent_wire_write_varint(w, c->owner);
	ent_wire_write_varint(w, c->epoch);
	ent_wire_write_varint(w, (uint64_t) c->serial);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_claim(EntReader *r, EntWireClaim *c)
{
	c->owner = read_owner_number(r);
	c->epoch = read_epoch(r);
	c->serial = ent_wire_read_serial(r);
}

/* ---- FRAGMENT ---- */

void
ent_wire_write_fragment(EntWriter *w, const EntWireFragment *p, const void *bytes, size_t len)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_FRAGMENT);

	ent_wire_write_varint(w, p->owner);
	ent_wire_write_varint(w, p->total);
	ent_wire_write_varint(w, p->offset);
	ent_wire_write_raw(w, bytes, len);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_fragment(EntReader *r, EntWireFragment *p)
{
	p->owner = read_owner_number(r);
	p->total = ent_wire_read_bounded(r, ENT_WIRE_MAX_BATCH);
	p->offset = ent_wire_read_bounded(r, ENT_WIRE_MAX_BATCH);
	if (p->offset >= p->total || (uint64_t) (r->end - r->p) > p->total - p->offset)
	{
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
		p->total = p->offset = 0;
	}
}

/* ---- ARREARS, ARREARS_DONE ---- */

void
ent_wire_write_arrears(EntWriter *w, EntSectionType type,
					   const EntWireArrears *a)
{
	size_t		mark = ent_wire_open_section(w, type);

	ent_wire_write_varint(w, a->owner);
	ent_wire_write_varint(w, a->table);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_arrears(EntReader *r, EntWireArrears *a)
{
	a->owner = read_owner_number(r);
	a->table = read_table_number(r);
}

/* ---- PRESENT ---- */

#define PRESENT_LO	0x01
#define PRESENT_HI	0x02

void
ent_wire_write_present(EntWriter *w, const EntWirePresent *p)
{
	ent_wire_write_varint(w, p->owner);
	ent_wire_write_varint(w, p->table);
	ent_wire_write_varint(w, (uint64_t) p->serial);
	ent_wire_write_u8(w, (uint8_t) ((p->has_lo ? PRESENT_LO : 0) |
									(p->has_hi ? PRESENT_HI : 0)));
	if (p->has_lo)
		ent_wire_write_bytes(w, p->lo, p->lolen);
	if (p->has_hi)
		ent_wire_write_bytes(w, p->hi, p->hilen);
}

void
ent_wire_read_present(EntReader *r, EntWirePresent *p)
{
	unsigned	bits;

	memset(p, 0, sizeof(*p));
	p->owner = read_owner_number(r);
	p->table = read_table_number(r);
	p->serial = ent_wire_read_serial(r);
	bits = read_bits(r, PRESENT_LO | PRESENT_HI);
	p->has_lo = (bits & PRESENT_LO) != 0;
	p->has_hi = (bits & PRESENT_HI) != 0;
	if (p->has_lo)
		p->lo = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &p->lolen);
	if (p->has_hi)
		p->hi = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &p->hilen);
}

/* ---- WANT ---- */

void
ent_wire_write_want(EntWriter *w, const EntWireWant *x)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_WANT);

	ent_wire_write_varint(w, x->owner);
	ent_wire_write_u8(w, x->wanted);
	ent_wire_write_varint(w, x->epoch);
	ent_wire_write_varint(w, (uint64_t) x->have);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_want(EntReader *r, EntWireWant *x)
{
	x->owner = read_owner_number(r);
	x->wanted = read_bits(r, 1) != 0;
	x->epoch = read_epoch(r);
	x->have = ent_wire_read_serial(r);
}

/* ---- TABLE_STATE ---- */

void
ent_wire_write_table_state(EntWriter *w, const EntWireTableState *s)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_TABLE_STATE);

	ent_wire_write_varint(w, s->table);
	ent_wire_write_u8(w, s->known);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_table_state(EntReader *r, EntWireTableState *s)
{
	s->table = read_table_number(r);
	s->known = read_bits(r, 1) != 0;
}

/* ---- AGAIN ---- */

void
ent_wire_write_again(EntWriter *w, const EntWireAgain *a)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_AGAIN);

	ent_wire_write_varint(w, a->table);
	ent_wire_write_varint(w, a->owner);
	ent_wire_write_bytes(w, a->key, a->keylen);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_again(EntReader *r, EntWireAgain *a)
{
	a->table = read_table_number(r);
	a->owner = read_owner_number(r);
	a->key = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &a->keylen);
}

/* ---- CONFIRM ---- */

void
ent_wire_write_confirm(EntWriter *w, const EntWireConfirm *c)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_CONFIRM);

	ent_wire_write_varint(w, c->object.table);
	ent_wire_write_varint(w, c->object.owner);
	ent_wire_write_bytes(w, c->object.key, c->object.keylen);
	ent_wire_write_varint(w, c->epoch);
	ent_wire_write_varint(w, (uint64_t) c->serial);
	write_hand(w, &c->from, c->from_epoch, c->from_serial);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_confirm(EntReader *r, EntWireConfirm *c)
{
	ent_wire_read_again(r, &c->object);
	c->epoch = read_epoch(r);
	c->serial = ent_wire_read_serial(r);
	read_hand(r, &c->from, &c->from_epoch, &c->from_serial);
}
