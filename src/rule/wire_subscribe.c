/*
 * rule/wire_subscribe.c
 *	  What a receiver wishes on the wire, and what becomes of it: every write
 *	  beside its read.
 *
 * Contract in rule/wire.h, byte tables in docs/protocol.md. A read accepts
 * exactly what the write beside it can produce from meaningful values.
 */
#include "rule/wire_private.h"

#include <string.h>

/* ---- SUBSCRIBE ---- */

void
ent_wire_write_subscribe(EntWriter *w, const EntWireSubscribe *s)
{
	ent_wire_write_u8(w, s->selective);
}

void
ent_wire_read_subscribe(EntReader *r, EntWireSubscribe *s)
{
	uint8_t		bits = ent_wire_read_u8(r);

	if (bits > 1)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	s->selective = bits == 1;
}

void
ent_wire_write_wish(EntWriter *w, const EntWireWish *wish)
{
	ent_wire_write_varint(w, wish->table);
	ent_wire_write_varint(w, (uint64_t) wish->round);
	ent_wire_write_value(w, wish->filter, wish->len);
}

/* An empty filter is none that could be meant. */
void
ent_wire_read_wish(EntReader *r, EntWireWish *wish)
{
	size_t		n;

	memset(wish, 0, sizeof(*wish));
	wish->table = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_TABLES);
	wish->round = ent_wire_read_serial(r);
	n = (size_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_FILTER + 1);
	if (n == 1)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	if (n <= 1)
		return;
	wish->filter = ent_wire_read_raw(r, n - 1);
	if (wish->filter == NULL)
		return;
	wish->len = n - 1;
	if (memchr(wish->filter, 0, wish->len) != NULL)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
}

/* ---- FILTER_STATE ---- */

void
ent_wire_write_filter_state(EntWriter *w, const EntWireFilterState *s)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_FILTER_STATE);

	ent_wire_write_varint(w, s->table);
	ent_wire_write_varint(w, (uint64_t) s->round);
	ent_wire_write_raw(w, s->sqlstate, 5);
	ent_wire_write_string(w, s->message);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_filter_state(EntReader *r, EntWireFilterState *s)
{
	memset(s, 0, sizeof(*s));
	s->table = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_TABLES);
	s->round = ent_wire_read_serial(r);
	ent_wire_read_sqlstate(r, s->sqlstate);
	ent_wire_read_string(r, s->message, ENT_WIRE_MAX_TEXT);
}
