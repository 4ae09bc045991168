/*
 * rule/wire_life.c
 *	  The end of owners on the wire: every write beside its read.
 *
 * Contract in rule/wire.h, byte tables in docs/protocol.md. A read accepts
 * exactly what the write beside it can produce from meaningful values.
 */
#include "rule/wire_private.h"

/* ---- GONE ---- */

void
ent_wire_write_gone(EntWriter *w, const EntWireGone *g)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_GONE);

	ent_wire_write_uuid(w, &g->id);
	ent_wire_write_uuid(w, &g->home);
	ent_wire_write_varint(w, g->epoch);
	ent_wire_close_section(w, mark);
}

void
ent_wire_read_gone(EntReader *r, EntWireGone *g)
{
	ent_wire_read_uuid(r, &g->id);
	ent_wire_read_uuid(r, &g->home);
	g->epoch = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_EPOCH);
	if (g->epoch == 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
}

/* ---- HOMES ---- */

void
ent_wire_write_homes(EntWriter *w, const EntWireHomes *h)
{
	ent_wire_write_varint(w, h->here);
}

void
ent_wire_read_homes(EntReader *r, EntWireHomes *h)
{
	h->here = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_OWNERS);
}

void
ent_wire_write_elsewhere(EntWriter *w, const EntWireUuid *id)
{
	ent_wire_write_uuid(w, id);
}

void
ent_wire_read_elsewhere(EntReader *r, EntWireUuid *id)
{
	ent_wire_read_uuid(r, id);
}
