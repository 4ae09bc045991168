/*
 * test/batch.c
 *	  Whole batches, made at random and read; contract in batch.h.
 */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

#define KNOWN_TABLES	8

/* What the rows of a table need to be read. */
typedef struct Shape
{
	unsigned	ncolumns;		/* 0: not announced */
	uint8_t		in_key_only[ENT_WIRE_MAX_SET];
} Shape;

static bool
has_value(const Shape *shape, const EntWireRow *row, unsigned column)
{
	if (ent_wire_in_set(shape->in_key_only, ENT_WIRE_MAX_SET, column))
		return false;
	return row->op == ENT_ROW_FULL ||
		(row->op == ENT_ROW_DELTA &&
		 ent_wire_in_set(row->set, row->setlen, column));
}

static void
note_shape(Shape *shapes, const EntWireTable *t)
{
	Shape	   *shape = &shapes[t->number % KNOWN_TABLES];

	memset(shape, 0, sizeof(*shape));
	shape->ncolumns = t->ncolumns;
	for (unsigned i = 0; i < t->ncolumns; i++)
		if (t->columns[i].in_key_only)
			shape->in_key_only[i / 8] |= (uint8_t) (1 << i % 8);
}

/* ---- at random ---- */

static uint32_t
any_number(Random *r, uint32_t max)
{
	return (uint32_t) (random_any_size(r) % ((uint64_t) max + 1));
}

static int64_t
any_serial(Random *r)
{
	return (int64_t) (random_any_size(r) >> 1);
}

static void
any_name(Random *r, char *buf)
{
	size_t		len = random_below(r, 20) == 0 ? ENT_WIRE_MAX_NAME :
		random_below(r, 12) + 1;

	for (size_t i = 0; i < len; i++)
		buf[i] = (char) (random_below(r, 255) + 1);
	buf[len] = '\0';
}

/* Bytes in a buffer good until the next call with the same slot. */
static const uint8_t *
any_bytes(Random *r, size_t max, size_t *len, int slot)
{
	static uint8_t buf[3][ENT_WIRE_MAX_KEY];

	*len = random_below(r, 200) == 0 ? max :
		random_below(r, max < 24 ? max + 1 : 24);
	random_fill(r, buf[slot], *len);
	return buf[slot];
}

static void
add_hello(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireHello h;

	(void) shapes;
	memset(&h, 0, sizeof(h));
	h.min_version = 1 + any_number(r, 100);
	h.max_version = h.min_version + any_number(r, 100);
	random_fill(r, &h.node, sizeof(h.node));
	any_name(r, h.name);
	any_name(r, h.software);
	ent_wire_write_hello(w, &h);
}

static void
add_owner(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireOwner o;

	(void) shapes;
	memset(&o, 0, sizeof(o));
	o.number = any_number(r, ENT_WIRE_MAX_OWNERS);
	random_fill(r, &o.id, sizeof(o.id));
	random_fill(r, &o.home, sizeof(o.home));
	any_name(r, o.name);
	o.epoch = any_number(r, ENT_WIRE_MAX_EPOCH);
	o.serial = any_serial(r);
	o.distance = any_number(r, ENT_WIRE_MAX_DISTANCE);
	o.lost = random_below(r, 2);
	o.partial = random_below(r, 2);
	o.nancestors = (unsigned) random_below(r, ENT_WIRE_MAX_ANCESTORS + 1);
	if (o.epoch <= o.nancestors)
		o.nancestors = 0;
	for (unsigned i = 0; i < o.nancestors; i++)
	{
		o.ancestors[i].epoch = o.epoch - i - 1;
		o.ancestors[i].serial = any_serial(r);
	}
	ent_wire_write_owner(w, &o);
}

static void
any_column(Random *r, EntWireColumn *c, unsigned key)
{
	memset(c, 0, sizeof(*c));
	any_name(r, c->name);
	any_name(r, c->type_name);
	if (random_below(r, 2))
		any_name(r, c->type_schema);
	c->format = (EntWireFormat) random_below(r, 2);
	c->key = key;
	c->in_key_only = key > 0 && random_below(r, 2);
}

static void
add_table(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireTable t;

	memset(&t, 0, sizeof(t));
	t.number = any_number(r, ENT_WIRE_MAX_TABLES);
	any_name(r, t.schema);
	any_name(r, t.name);
	t.ncolumns = (unsigned) random_below(r, random_below(r, 50) == 0 ?
										 ENT_WIRE_MAX_COLUMNS : 12) + 1;
	t.nkeys = (unsigned) random_below(r, t.ncolumns < ENT_WIRE_MAX_KEYS ?
									  t.ncolumns : ENT_WIRE_MAX_KEYS) + 1;
	t.columns = malloc(t.ncolumns * sizeof(EntWireColumn));
	for (unsigned i = 0; i < t.ncolumns; i++)
		any_column(r, &t.columns[i], i < t.nkeys ? t.nkeys - i : 0);
	ent_wire_write_table(w, &t);
	note_shape(shapes, &t);
	free(t.columns);
}

static void
add_row(EntWriter *w, Random *r, const Shape *shape, int64_t *last)
{
	EntWireRow	row;

	memset(&row, 0, sizeof(row));
	row.op = (EntRowOp) random_below(r, ENT_ROW_OPS);
	row.key = any_bytes(r, ENT_WIRE_MAX_KEY, &row.keylen, 0);
	if (row.op == ENT_ROW_WITHDRAW)
	{
		ent_wire_write_row(w, &row, last);
		return;
	}
	row.flags = (unsigned) random_below(r, 4) * ENT_ROW_REFRESH;
	row.serial = any_serial(r);
	if (row.op == ENT_ROW_DELTA)
	{
		row.base = (int64_t) random_below(r, (uint64_t) row.serial + 1);
		row.set = any_bytes(r, ENT_WIRE_MAX_SET, &row.setlen, 1);
	}
	else if (random_below(r, 4) == 0)
	{
		row.flags |= ENT_ROW_HEIR;
		row.heir_epoch = 3;
		row.heir_serial = any_serial(r);
	}
	if (row.op == ENT_ROW_DELETE || (row.flags & ENT_ROW_HEIR))
	{
		row.flags |= (unsigned) random_below(r, 2) * ENT_ROW_FROM;
		if (row.flags & ENT_ROW_FROM)
			row.from_serial = any_serial(r);
	}
	if (row.op != ENT_ROW_DELETE && (row.flags & ENT_ROW_HEIR) == 0)
		row.flags |= (unsigned) random_below(r, 2) * ENT_ROW_AHEAD;
	ent_wire_write_row(w, &row, last);
	for (unsigned i = 0; i < shape->ncolumns; i++)
	{
		size_t		len;
		const uint8_t *value = any_bytes(r, 20, &len, 2);

		if (has_value(shape, &row, i))
			ent_wire_write_value(w, random_below(r, 4) ? value : NULL, len);
	}
}

static void
add_objects(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireObjects o;
	const Shape *shape;
	int64_t		last = 0;
	size_t		mark;

	o.table = any_number(r, ENT_WIRE_MAX_TABLES);
	o.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	o.epoch = any_number(r, ENT_WIRE_MAX_EPOCH);
	shape = &shapes[o.table % KNOWN_TABLES];
	if (shape->ncolumns == 0)
		return;
	mark = ent_wire_open_section(w, ENT_SECTION_OBJECTS);
	ent_wire_write_objects(w, &o);
	for (int n = (int) random_below(r, 6); n > 0; n--)
		add_row(w, r, shape, &last);
	ent_wire_close_section(w, mark);
}

static void
add_claim(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireClaim c;

	(void) shapes;
	c.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	c.epoch = any_number(r, ENT_WIRE_MAX_EPOCH);
	c.serial = any_serial(r);
	switch (random_below(r, 4))
	{
		case 0:
			ent_wire_write_claim(w, ENT_SECTION_CLAIM, &c);
			break;
		case 1:
			ent_wire_write_claim(w, ENT_SECTION_CLAIM_GAPS, &c);
			break;
		case 2:
			ent_wire_write_claim(w, ENT_SECTION_KEPT, &c);
			break;
		default:
			ent_wire_write_claim(w, ENT_SECTION_SEEK, &c);
	}
}

static void
add_arrears(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireArrears a;

	(void) shapes;
	a.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	a.table = any_number(r, ENT_WIRE_MAX_TABLES);
	ent_wire_write_arrears(w, random_below(r, 2) ? ENT_SECTION_ARREARS :
						   ENT_SECTION_ARREARS_DONE, &a);
}

static void
add_fragment(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireFragment p;
	uint8_t		bytes[16] = {0};

	(void) shapes;
	p.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	p.total = 1 + any_number(r, ENT_WIRE_MAX_BATCH - 1);
	p.offset = random_below(r, p.total);
	ent_wire_write_fragment(w, &p, bytes, (size_t) random_below(r, p.total - p.offset < 16 ?
															p.total - p.offset + 1 : 16));
}

static void
add_present(EntWriter *w, Random *r, Shape *shapes)
{
	EntWirePresent p;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_PRESENT);

	(void) shapes;
	memset(&p, 0, sizeof(p));
	p.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	p.table = any_number(r, ENT_WIRE_MAX_TABLES);
	p.serial = any_serial(r);
	p.has_lo = random_below(r, 2);
	p.has_hi = random_below(r, 2);
	p.lo = any_bytes(r, ENT_WIRE_MAX_KEY, &p.lolen, 0);
	p.hi = any_bytes(r, ENT_WIRE_MAX_KEY, &p.hilen, 1);
	ent_wire_write_present(w, &p);
	for (int n = (int) random_below(r, 6); n > 0; n--)
	{
		size_t		len;
		const uint8_t *key = any_bytes(r, ENT_WIRE_MAX_KEY, &len, 2);

		ent_wire_write_bytes(w, key, len);
	}
	ent_wire_close_section(w, mark);
}

static void
add_want(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireWant x;

	(void) shapes;
	x.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	x.wanted = random_below(r, 2);
	x.epoch = any_number(r, ENT_WIRE_MAX_EPOCH);
	x.have = any_serial(r);
	ent_wire_write_want(w, &x);
}

static void
add_table_state(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireTableState s;

	(void) shapes;
	s.table = any_number(r, ENT_WIRE_MAX_TABLES);
	s.known = random_below(r, 2);
	ent_wire_write_table_state(w, &s);
}

static void
add_confirm(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireConfirm c;

	(void) shapes;
	memset(&c, 0, sizeof(c));
	c.object.table = any_number(r, ENT_WIRE_MAX_TABLES);
	c.object.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	c.object.key = any_bytes(r, ENT_WIRE_MAX_KEY, &c.object.keylen, 0);
	c.epoch = c.from_epoch = 7;
	c.serial = any_serial(r);
	c.from_serial = any_serial(r);
	ent_wire_write_confirm(w, &c);
}

static void
add_again(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireAgain a;

	(void) shapes;
	a.table = any_number(r, ENT_WIRE_MAX_TABLES);
	a.owner = any_number(r, ENT_WIRE_MAX_OWNERS);
	a.key = any_bytes(r, ENT_WIRE_MAX_KEY, &a.keylen, 0);
	ent_wire_write_again(w, &a);
}

static void
add_fields(EntWriter *w, Random *r, unsigned n)
{
	while (n-- > 0)
	{
		EntWireField f;
		const uint8_t *value = any_bytes(r, 300, &f.len, 0);

		any_name(r, f.name);
		f.value = random_below(r, 4) ? value : NULL;
		ent_wire_write_field(w, &f);
	}
}

static unsigned
any_count(Random *r, unsigned min, unsigned max)
{
	return min + (unsigned) random_below(r, random_below(r, 50) == 0 ?
										 max - min + 1 : 4);
}

static void
add_request(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireRequest q;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_REQUEST);

	(void) shapes;
	memset(&q, 0, sizeof(q));
	random_fill(r, &q.id, sizeof(q.id));
	random_fill(r, &q.owner, sizeof(q.owner));
	q.op = (EntWireOperation) random_below(r, ENT_REQUEST_OPERATIONS);
	q.left = random_any_size(r) >> 1;
	any_name(r, q.schema);
	any_name(r, q.table);
	if (q.op != ENT_REQUEST_CREATE)
		q.nkeys = any_count(r, 1, ENT_WIRE_MAX_KEYS);
	if (q.op != ENT_REQUEST_DELETE)
		q.ncolumns = any_count(r, q.op == ENT_REQUEST_FORWARD,
							   ENT_WIRE_MAX_COLUMNS);
	ent_wire_write_request(w, &q);
	add_fields(w, r, q.nkeys + q.ncolumns);
	ent_wire_close_section(w, mark);
}

static void
any_text(Random *r, char *buf)
{
	size_t		len = random_below(r, 20) == 0 ? ENT_WIRE_MAX_TEXT :
		random_below(r, 30);

	for (size_t i = 0; i < len; i++)
		buf[i] = (char) (random_below(r, 255) + 1);
	buf[len] = '\0';
}

static void
any_refusal(Random *r, EntWireResponse *s)
{
	static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

	for (int i = 0; i < 5; i++)
		s->sqlstate[i] = letters[random_below(r, sizeof(letters) - 1)];
	any_text(r, s->message);
	any_text(r, s->detail);
	if (random_below(r, 2))
		any_name(r, s->constraint);
}

static void
add_response(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireResponse s;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_RESPONSE);

	(void) shapes;
	memset(&s, 0, sizeof(s));
	random_fill(r, &s.id, sizeof(s.id));
	s.accepted = random_below(r, 2);
	s.on_the_way = !s.accepted && random_below(r, 2);
	if (s.accepted)
	{
		random_fill(r, &s.owner, sizeof(s.owner));
		s.epoch = any_number(r, ENT_WIRE_MAX_EPOCH);
		s.serial = any_serial(r);
		s.nkeys = any_count(r, 0, ENT_WIRE_MAX_KEYS);
	}
	else
		any_refusal(r, &s);
	ent_wire_write_response(w, &s);
	add_fields(w, r, s.nkeys);
	ent_wire_close_section(w, mark);
}

static void
add_gone(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireGone g;

	(void) shapes;
	random_fill(r, &g.id, sizeof(g.id));
	random_fill(r, &g.home, sizeof(g.home));
	g.epoch = 1 + any_number(r, ENT_WIRE_MAX_EPOCH - 1);
	ent_wire_write_gone(w, &g);
}

static void
add_subscribe(EntWriter *w, Random *r, Shape *shapes)
{
	static uint8_t text[ENT_WIRE_MAX_FILTER];
	EntWireSubscribe s;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_SUBSCRIBE);

	(void) shapes;
	s.selective = random_below(r, 2);
	ent_wire_write_subscribe(w, &s);
	for (int n = (int) random_below(r, 5); n > 0; n--)
	{
		EntWireWish wish;

		wish.table = any_number(r, ENT_WIRE_MAX_TABLES);
		wish.round = any_serial(r);
		wish.len = random_below(r, 100) == 0 ? sizeof(text) :
			random_below(r, 30) + 1;
		for (size_t i = 0; i < wish.len; i++)
			text[i] = (uint8_t) (random_below(r, 255) + 1);
		wish.filter = random_below(r, 3) ? text : NULL;
		ent_wire_write_wish(w, &wish);
	}
	ent_wire_close_section(w, mark);
}

static void
add_filter_state(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireFilterState s;
	EntWireResponse refusal;

	(void) shapes;
	memset(&s, 0, sizeof(s));
	s.table = any_number(r, ENT_WIRE_MAX_TABLES);
	s.round = any_serial(r);
	any_refusal(r, &refusal);
	memcpy(s.sqlstate, refusal.sqlstate, 5);
	any_text(r, s.message);
	ent_wire_write_filter_state(w, &s);
}

static void
add_homes(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireHomes h;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_HOMES);

	(void) shapes;
	h.here = any_number(r, ENT_WIRE_MAX_OWNERS);
	ent_wire_write_homes(w, &h);
	for (int n = (int) random_below(r, 6); n > 0; n--)
	{
		EntWireUuid id;

		random_fill(r, &id, sizeof(id));
		ent_wire_write_elsewhere(w, &id);
	}
	ent_wire_close_section(w, mark);
}

static void
add_compare(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireCompare c;
	EntWireRange range;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_COMPARE);

	(void) shapes;
	memset(&c, 0, sizeof(c));
	any_name(r, c.schema);
	any_name(r, c.table);
	c.ncolumns = any_count(r, 0, ENT_WIRE_MAX_COLUMNS);
	ent_wire_write_compare(w, &c);
	for (unsigned i = 0; i < c.ncolumns; i++)
	{
		any_name(r, c.table);
		ent_wire_write_string(w, c.table);
	}
	for (unsigned n = (unsigned) random_below(r, 4); n > 0; n--)
	{
		memset(&range, 0, sizeof(range));
		random_fill(r, &range.owner, sizeof(range.owner));
		range.has_lo = random_below(r, 2);
		range.has_hi = random_below(r, 2);
		range.lo = any_bytes(r, ENT_WIRE_MAX_KEY, &range.lolen, 0);
		range.hi = any_bytes(r, ENT_WIRE_MAX_KEY, &range.hilen, 1);
		range.each = (random_any_size(r) >> 2) + 1;
		ent_wire_write_range(w, &range);
	}
	ent_wire_close_section(w, mark);
}

static void
add_digest(EntWriter *w, Random *r, Shape *shapes)
{
	EntWireDigest d;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_DIGEST);

	(void) shapes;
	d.compare = any_number(r, UINT32_MAX);
	d.range = any_number(r, ENT_WIRE_MAX_RANGES);
	random_fill(r, &d.owner, sizeof(d.owner));
	ent_wire_write_digest(w, &d);
	for (unsigned n = (unsigned) random_below(r, 4); n > 0; n--)
	{
		EntWirePart part;

		memset(&part, 0, sizeof(part));
		part.count = random_below(r, 2) ? random_below(r, 3) :
			random_any_size(r) >> 1;
		part.unfolded = random_below(r, 2);
		part.first = any_bytes(r, ENT_WIRE_MAX_KEY, &part.firstlen, 0);
		part.last = any_bytes(r, ENT_WIRE_MAX_KEY, &part.lastlen, 1);
		part.epoch = any_number(r, ENT_WIRE_MAX_EPOCH);
		part.serial = any_serial(r);
		random_fill(r, &part.sum, sizeof(part.sum));
		ent_wire_write_part(w, &part);
	}
	ent_wire_close_section(w, mark);
}

static void
add_unknown(EntWriter *w, Random *r, Shape *shapes)
{
	unsigned	type = (unsigned) random_below(r, 200) + 56;
	size_t		len;
	size_t		mark;
	const uint8_t *bytes = any_bytes(r, 300, &len, 0);

	(void) shapes;
	if (type == ENT_SECTION_SEEK || type == ENT_SECTION_FILTER_STATE ||
		type == ENT_SECTION_KEPT)
		type += 8;				/* those are known */
	mark = ent_wire_open_section(w, (EntSectionType) type);
	ent_wire_write_raw(w, bytes, len);
	ent_wire_close_section(w, mark);
}

void
batch_random(EntWriter *w, Random *r, unsigned max_sections)
{
	static void (*const add[]) (EntWriter *, Random *, Shape *) = {
		add_hello, add_owner, add_table, add_objects, add_objects, add_claim,
		add_arrears, add_fragment, add_present, add_want, add_table_state, add_again,
		add_confirm, add_request, add_response, add_gone, add_homes, add_compare,
		add_digest, add_subscribe, add_filter_state, add_unknown,
	};
	Shape		shapes[KNOWN_TABLES];
	EntWireHeader h = {.version = 1, .number = random_any_size(r)};

	memset(shapes, 0, sizeof(shapes));
	h.heard = random_below(r, 2) || h.number == 0 ? h.number : random_below(r, h.number);
	ent_wire_write_header(w, &h);
	for (uint64_t n = random_below(r, max_sections + 1); n > 0; n--)
		add[random_below(r, sizeof(add) / sizeof(add[0]))] (w, r, shapes);
}

/* ---- reading ---- */

typedef struct Echo
{
	EntWriter  *out;
	AllocState *memory;
	Shape		shapes[KNOWN_TABLES];
	unsigned	type;			/* of the section */
} Echo;

static void
echo_hello(Echo *e, EntReader *r)
{
	EntWireHello h;

	ent_wire_read_hello(r, &h);
	ent_wire_write_hello(e->out, &h);
}

static void
echo_owner(Echo *e, EntReader *r)
{
	EntWireOwner o;

	ent_wire_read_owner(r, &o);
	ent_wire_write_owner(e->out, &o);
}

static void
echo_table(Echo *e, EntReader *r)
{
	EntWireTable t;

	ent_wire_read_table(r, &t, alloc_for_wire(e->memory));
	ent_wire_write_table(e->out, &t);
	if (r->error == ENT_WIRE_OK)
		note_shape(e->shapes, &t);
	alloc_release(e->memory, t.columns);
}

static void
echo_row(Echo *e, EntReader *r, const Shape *shape, int64_t *last_read,
		 int64_t *last_written)
{
	EntWireRow	row;

	ent_wire_read_row(r, &row, last_read);
	if (r->error != ENT_WIRE_OK)
		return;
	ent_wire_write_row(e->out, &row, last_written);
	for (unsigned i = 0; i < shape->ncolumns; i++)
	{
		size_t		len;
		bool		isnull;
		const uint8_t *value;

		if (!has_value(shape, &row, i))
			continue;
		value = ent_wire_read_value(r, &len, &isnull);
		ent_wire_write_value(e->out, value, len);
	}
}

static void
echo_objects(Echo *e, EntReader *r)
{
	EntWireObjects o;
	const Shape *shape;
	int64_t		last_read = 0,
				last_written = 0;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_OBJECTS);

	ent_wire_read_objects(r, &o);
	ent_wire_write_objects(e->out, &o);
	shape = &e->shapes[o.table % KNOWN_TABLES];
	while (shape->ncolumns > 0 && !ent_wire_at_end(r))
		echo_row(e, r, shape, &last_read, &last_written);
	ent_wire_close_section(e->out, mark);
}

static void
echo_claim(Echo *e, EntReader *r)
{
	EntWireClaim c;

	ent_wire_read_claim(r, &c);
	ent_wire_write_claim(e->out, (EntSectionType) e->type, &c);
}

static void
echo_arrears(Echo *e, EntReader *r)
{
	EntWireArrears a;

	ent_wire_read_arrears(r, &a);
	ent_wire_write_arrears(e->out, (EntSectionType) e->type, &a);
}

static void
echo_fragment(Echo *e, EntReader *r)
{
	EntWireFragment p;
	size_t		len;

	ent_wire_read_fragment(r, &p);
	len = r->error == ENT_WIRE_OK ? (size_t) (r->end - r->p) : 0;
	ent_wire_write_fragment(e->out, &p, r->p, len);
	r->p = r->error == ENT_WIRE_OK ? r->end : r->p;
}

static void
echo_present(Echo *e, EntReader *r)
{
	EntWirePresent p;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_PRESENT);

	ent_wire_read_present(r, &p);
	if (r->error == ENT_WIRE_OK)
		ent_wire_write_present(e->out, &p);
	while (!ent_wire_at_end(r))
	{
		size_t		len;
		const uint8_t *key = ent_wire_read_bytes(r, ENT_WIRE_MAX_KEY, &len);

		ent_wire_write_bytes(e->out, key, len);
	}
	ent_wire_close_section(e->out, mark);
}

static void
echo_want(Echo *e, EntReader *r)
{
	EntWireWant x;

	ent_wire_read_want(r, &x);
	ent_wire_write_want(e->out, &x);
}

static void
echo_table_state(Echo *e, EntReader *r)
{
	EntWireTableState s;

	ent_wire_read_table_state(r, &s);
	ent_wire_write_table_state(e->out, &s);
}

static void
echo_again(Echo *e, EntReader *r)
{
	EntWireAgain a;

	ent_wire_read_again(r, &a);
	ent_wire_write_again(e->out, &a);
}

static void
echo_confirm(Echo *e, EntReader *r)
{
	EntWireConfirm c;

	ent_wire_read_confirm(r, &c);
	ent_wire_write_confirm(e->out, &c);
}

static void
echo_fields(Echo *e, EntReader *r, unsigned n)
{
	while (n-- > 0 && r->error == ENT_WIRE_OK)
	{
		EntWireField f;

		ent_wire_read_field(r, &f);
		ent_wire_write_field(e->out, &f);
	}
}

static void
echo_request(Echo *e, EntReader *r)
{
	EntWireRequest q;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_REQUEST);

	ent_wire_read_request(r, &q);
	ent_wire_write_request(e->out, &q);
	echo_fields(e, r, q.nkeys + q.ncolumns);
	ent_wire_close_section(e->out, mark);
}

static void
echo_response(Echo *e, EntReader *r)
{
	EntWireResponse s;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_RESPONSE);

	ent_wire_read_response(r, &s);
	ent_wire_write_response(e->out, &s);
	echo_fields(e, r, s.nkeys);
	ent_wire_close_section(e->out, mark);
}

static void
echo_gone(Echo *e, EntReader *r)
{
	EntWireGone g;

	ent_wire_read_gone(r, &g);
	ent_wire_write_gone(e->out, &g);
}

static void
echo_subscribe(Echo *e, EntReader *r)
{
	EntWireSubscribe s;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_SUBSCRIBE);

	ent_wire_read_subscribe(r, &s);
	ent_wire_write_subscribe(e->out, &s);
	while (!ent_wire_at_end(r))
	{
		EntWireWish wish;

		ent_wire_read_wish(r, &wish);
		ent_wire_write_wish(e->out, &wish);
	}
	ent_wire_close_section(e->out, mark);
}

static void
echo_filter_state(Echo *e, EntReader *r)
{
	EntWireFilterState s;

	ent_wire_read_filter_state(r, &s);
	ent_wire_write_filter_state(e->out, &s);
}

static void
echo_homes(Echo *e, EntReader *r)
{
	EntWireHomes h;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_HOMES);

	ent_wire_read_homes(r, &h);
	ent_wire_write_homes(e->out, &h);
	while (!ent_wire_at_end(r))
	{
		EntWireUuid id;

		ent_wire_read_elsewhere(r, &id);
		ent_wire_write_elsewhere(e->out, &id);
	}
	ent_wire_close_section(e->out, mark);
}

static void
echo_compare(Echo *e, EntReader *r)
{
	EntWireCompare c;
	EntWireRange range;
	char		name[ENT_WIRE_MAX_NAME + 1];
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_COMPARE);

	ent_wire_read_compare(r, &c);
	ent_wire_write_compare(e->out, &c);
	for (unsigned i = 0; i < c.ncolumns && r->error == ENT_WIRE_OK; i++)
	{
		ent_wire_read_string(r, name, ENT_WIRE_MAX_NAME);
		ent_wire_write_string(e->out, name);
	}
	while (!ent_wire_at_end(r))
	{
		ent_wire_read_range(r, &range);
		if (r->error == ENT_WIRE_OK)
			ent_wire_write_range(e->out, &range);
	}
	ent_wire_close_section(e->out, mark);
}

static void
echo_digest(Echo *e, EntReader *r)
{
	EntWireDigest d;
	EntWirePart part;
	size_t		mark = ent_wire_open_section(e->out, ENT_SECTION_DIGEST);

	ent_wire_read_digest(r, &d);
	ent_wire_write_digest(e->out, &d);
	while (!ent_wire_at_end(r))
	{
		ent_wire_read_part(r, &part);
		if (r->error == ENT_WIRE_OK)
			ent_wire_write_part(e->out, &part);
	}
	ent_wire_close_section(e->out, mark);
}

static void
echo_unknown(Echo *e, EntReader *r)
{
	(void) r;
	ent_wire_close_section(e->out, ent_wire_open_section(e->out,
														 (EntSectionType) e->type));
}

/* A row per section. */
static void (*const echoes[]) (Echo *, EntReader *) = {
	[ENT_SECTION_HELLO] = echo_hello,
	[ENT_SECTION_OWNER] = echo_owner,
	[ENT_SECTION_TABLE] = echo_table,
	[ENT_SECTION_OBJECTS] = echo_objects,
	[ENT_SECTION_CLAIM] = echo_claim,
	[ENT_SECTION_CLAIM_GAPS] = echo_claim,
	[ENT_SECTION_SEEK] = echo_claim,
	[ENT_SECTION_KEPT] = echo_claim,
	[ENT_SECTION_ARREARS_DONE] = echo_arrears,
	[ENT_SECTION_PRESENT] = echo_present,
	[ENT_SECTION_WANT] = echo_want,
	[ENT_SECTION_FRAGMENT] = echo_fragment,
	[ENT_SECTION_ARREARS] = echo_arrears,
	[ENT_SECTION_TABLE_STATE] = echo_table_state,
	[ENT_SECTION_AGAIN] = echo_again,
	[ENT_SECTION_CONFIRM] = echo_confirm,
	[ENT_SECTION_REQUEST] = echo_request,
	[ENT_SECTION_RESPONSE] = echo_response,
	[ENT_SECTION_SUBSCRIBE] = echo_subscribe,
	[ENT_SECTION_FILTER_STATE] = echo_filter_state,
	[ENT_SECTION_GONE] = echo_gone,
	[ENT_SECTION_HOMES] = echo_homes,
	[ENT_SECTION_COMPARE] = echo_compare,
	[ENT_SECTION_DIGEST] = echo_digest,
};

/* Puts what the section's reader left behind it, and closes it anew. */
static void
echo_rest(Echo *e, EntReader *r, size_t start)
{
	EntReader	again,
				body;
	unsigned	type;
	size_t		len;
	uint8_t    *fields;
	size_t		mark;

	ent_wire_reader_init(&again, e->out->data + start, e->out->len - start);
	if (ent_wire_at_end(r) || !ent_wire_read_section(&again, &type, &body))
		return;
	len = (size_t) (body.end - body.p);
	fields = malloc(len + 1);
	memcpy(fields, body.p, len);
	e->out->len = start;
	mark = ent_wire_open_section(e->out, (EntSectionType) type);
	ent_wire_write_raw(e->out, fields, len);
	ent_wire_write_raw(e->out, r->p, (size_t) (r->end - r->p));
	ent_wire_close_section(e->out, mark);
	free(fields);
}

EntWireError
batch_echo(const uint8_t *data, size_t len, EntWriter *out, AllocState *memory)
{
	Echo		e;
	EntReader	r,
				body;
	EntWireHeader h;

	memset(&e, 0, sizeof(e));
	e.out = out;
	e.memory = memory;
	ent_wire_reader_init(&r, data, len);
	ent_wire_read_header(&r, &h);
	ent_wire_write_header(out, &h);
	while (ent_wire_read_section(&r, &e.type, &body))
	{
		bool		known = e.type < sizeof(echoes) / sizeof(echoes[0]) &&
			echoes[e.type] != NULL;
		size_t		start = out->len;

		(known ? echoes[e.type] : echo_unknown) (&e, &body);
		if (body.error != ENT_WIRE_OK)
			return body.error;
		echo_rest(&e, &body, start);
	}
	return r.error;
}
