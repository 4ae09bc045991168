/*
 * rule/wire.c
 *	  The bytes on the wire: numbers, bytes, sections.
 *
 * Contract in rule/wire.h; what the sections contain is in wire_section.c.
 * Every read checks what it needs against what is left by subtraction from
 * the end, never by addition to the pointer, so no length can overflow; a
 * reader that failed stands at its end and yields zeros.
 */
#include "rule/wire.h"

#include <string.h>

/* A row per error. */
static const char *const error_texts[ENT_WIRE_ERRORS] = {
	[ENT_WIRE_OK] = "no error",
	[ENT_WIRE_TRUNCATED] = "a field runs past the end of the message",
	[ENT_WIRE_OVERFLOW] = "a number does not fit its field",
	[ENT_WIRE_LIMIT] = "a limit of the protocol is exceeded",
	[ENT_WIRE_MALFORMED] = "a value has no meaning in the protocol",
	[ENT_WIRE_BAD_MAGIC] = "the message does not begin like a batch",
};

const char *
ent_wire_error_text(EntWireError error)
{
	if ((unsigned) error >= ENT_WIRE_ERRORS || error_texts[error] == NULL)
		return "unknown error";
	return error_texts[error];
}

/* ---- writing ---- */

#define WRITER_FIRST_CAP	1024

void
ent_wire_writer_init(EntWriter *w, EntWireAllocator alloc)
{
	w->data = NULL;
	w->len = 0;
	w->cap = 0;
	w->alloc = alloc;
}

/* Grows by half, so that the largest batch stays below 1 GB of buffer. */
static size_t
next_capacity(size_t cap, size_t need)
{
	size_t		next = cap < WRITER_FIRST_CAP ? WRITER_FIRST_CAP : cap;

	if (next <= SIZE_MAX - next / 2)
		next += next / 2;
	return next > need ? next : need;
}

/* Room for more bytes behind the end; a sum beyond SIZE_MAX asks for that. */
static uint8_t *
reserve(EntWriter *w, size_t more)
{
	if (more > w->cap - w->len)
	{
		size_t		need = more > SIZE_MAX - w->len ? SIZE_MAX : w->len + more;
		size_t		cap = next_capacity(w->cap, need);

		w->data = w->alloc.grow(w->alloc.ctx, w->data, cap);
		w->cap = cap;
	}
	return w->data + w->len;
}

size_t
ent_wire_encode_varint(uint8_t *buf, uint64_t v)
{
	size_t		n = 0;

	for (; v >= 0x80; v >>= 7)
		buf[n++] = (uint8_t) (v | 0x80);
	buf[n++] = (uint8_t) v;
	return n;
}

void
ent_wire_write_u8(EntWriter *w, uint8_t v)
{
	*reserve(w, 1) = v;
	w->len++;
}

void
ent_wire_write_varint(EntWriter *w, uint64_t v)
{
	w->len += ent_wire_encode_varint(reserve(w, ENT_WIRE_MAX_VARINT), v);
}

void
ent_wire_write_zigzag(EntWriter *w, int64_t v)
{
	uint64_t	u = (uint64_t) v << 1;

	ent_wire_write_varint(w, v < 0 ? ~u : u);
}

void
ent_wire_write_raw(EntWriter *w, const void *data, size_t len)
{
	if (len == 0)
		return;
	memcpy(reserve(w, len), data, len);
	w->len += len;
}

void
ent_wire_write_bytes(EntWriter *w, const void *data, size_t len)
{
	ent_wire_write_varint(w, len);
	ent_wire_write_raw(w, data, len);
}

void
ent_wire_write_string(EntWriter *w, const char *s)
{
	ent_wire_write_bytes(w, s, strlen(s));
}

size_t
ent_wire_open_section(EntWriter *w, EntSectionType type)
{
	size_t		mark = w->len;

	reserve(w, 1 + ENT_WIRE_MAX_VARINT)[0] = (uint8_t) type;
	w->len += 1 + ENT_WIRE_MAX_VARINT;
	return mark;
}

void
ent_wire_close_section(EntWriter *w, size_t mark)
{
	uint8_t    *length = w->data + mark + 1;
	uint8_t    *payload = length + ENT_WIRE_MAX_VARINT;
	size_t		len = (size_t) (w->data + w->len - payload);
	size_t		width = ent_wire_encode_varint(length, len);

	memmove(length + width, payload, len);
	w->len = mark + 1 + width + len;
}

/* ---- reading ---- */

static size_t
left(const EntReader *r)
{
	return (size_t) (r->end - r->p);
}

void
ent_wire_reader_init(EntReader *r, const void *data, size_t len)
{
	static const uint8_t nothing[1];

	r->p = data != NULL ? data : nothing;
	r->error = ENT_WIRE_OK;
	if (len > ENT_WIRE_MAX_BATCH || data == NULL)
	{
		r->end = r->p;
		if (len > 0)
			ent_wire_fail(r, ENT_WIRE_LIMIT);
		return;
	}
	r->end = r->p + len;
}

void
ent_wire_fail(EntReader *r, EntWireError error)
{
	if (r->error == ENT_WIRE_OK)
		r->error = error;
	r->p = r->end;
}

const uint8_t *
ent_wire_read_raw(EntReader *r, size_t len)
{
	const uint8_t *p = r->p;

	if (r->error == ENT_WIRE_OK && len > left(r))
		ent_wire_fail(r, ENT_WIRE_TRUNCATED);
	if (r->error != ENT_WIRE_OK)
		return NULL;
	r->p += len;
	return p;
}

uint8_t
ent_wire_read_u8(EntReader *r)
{
	const uint8_t *p = ent_wire_read_raw(r, 1);

	return p != NULL ? *p : 0;
}

static uint64_t
fail_number(EntReader *r, EntWireError error)
{
	ent_wire_fail(r, error);
	return 0;
}

uint64_t
ent_wire_read_varint(EntReader *r)
{
	uint64_t	v = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		uint8_t		byte = ent_wire_read_u8(r);

		if (shift == 63 && byte > 1)
			break;
		v |= (uint64_t) (byte & 0x7f) << shift;
		if (byte >= 0x80)
			continue;
		if (byte == 0 && shift > 0)
			return fail_number(r, ENT_WIRE_MALFORMED);
		return v;
	}
	return fail_number(r, ENT_WIRE_OVERFLOW);
}

uint64_t
ent_wire_read_bounded(EntReader *r, uint64_t max)
{
	uint64_t	v = ent_wire_read_varint(r);

	return v <= max ? v : fail_number(r, ENT_WIRE_LIMIT);
}

int64_t
ent_wire_read_zigzag(EntReader *r)
{
	uint64_t	u = ent_wire_read_varint(r);

	return u & 1 ? -(int64_t) (u >> 1) - 1 : (int64_t) (u >> 1);
}

int64_t
ent_wire_read_serial(EntReader *r)
{
	uint64_t	v = ent_wire_read_varint(r);

	if (v > ENT_WIRE_MAX_SERIAL)
		v = fail_number(r, ENT_WIRE_OVERFLOW);
	return (int64_t) v;
}

const uint8_t *
ent_wire_read_bytes(EntReader *r, size_t max, size_t *len)
{
	size_t		n = (size_t) ent_wire_read_bounded(r, max);
	const uint8_t *p = ent_wire_read_raw(r, n);

	*len = p != NULL ? n : 0;
	return p;
}

void
ent_wire_read_string(EntReader *r, char *buf, size_t max)
{
	size_t		len;
	const uint8_t *p = ent_wire_read_bytes(r, max, &len);

	if (p != NULL && memchr(p, 0, len) != NULL)
	{
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
		len = 0;
	}
	if (len > 0)
		memcpy(buf, p, len);
	buf[len] = '\0';
}

bool
ent_wire_read_section(EntReader *r, unsigned *type, EntReader *body)
{
	size_t		len;
	const uint8_t *p;

	*type = 0;
	ent_wire_reader_init(body, NULL, 0);
	if (ent_wire_at_end(r))
		return false;
	*type = ent_wire_read_u8(r);
	p = ent_wire_read_bytes(r, ENT_WIRE_MAX_BATCH, &len);
	if (p == NULL)
		return false;
	ent_wire_reader_init(body, p, len);
	return true;
}
