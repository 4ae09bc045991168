/*
 * rule/wire_request.c
 *	  Requests and their responses on the wire: every write beside its read.
 *
 * Contract in rule/wire.h, byte tables in docs/protocol.md. A read accepts
 * exactly what the write beside it can produce from meaningful values.
 */
#include "rule/wire_private.h"

#include <string.h>

#define FIELD_MIN_BYTES		3	/* a name of one byte, NULL */

/* Can the bytes left hold that many fields? The caller makes room for them. */
static void
check_count(EntReader *r, unsigned n)
{
	if (n > (size_t) (r->end - r->p) / FIELD_MIN_BYTES)
		ent_wire_fail(r, ENT_WIRE_TRUNCATED);
}

/* ---- REQUEST ---- */

void
ent_wire_write_request(EntWriter *w, const EntWireRequest *q)
{
	ent_wire_write_uuid(w, &q->id);
	ent_wire_write_uuid(w, &q->owner);
	ent_wire_write_u8(w, q->op);
	ent_wire_write_varint(w, q->left);
	ent_wire_write_string(w, q->schema);
	ent_wire_write_string(w, q->table);
	ent_wire_write_varint(w, q->nkeys);
	ent_wire_write_varint(w, q->ncolumns);
}

void
ent_wire_read_request(EntReader *r, EntWireRequest *q)
{
	uint8_t		op;

	ent_wire_read_uuid(r, &q->id);
	ent_wire_read_uuid(r, &q->owner);
	op = ent_wire_read_u8(r);
	if (op >= ENT_REQUEST_OPERATIONS)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	q->left = ent_wire_read_bounded(r, INT64_MAX);
	ent_wire_read_name(r, q->schema);
	ent_wire_read_name(r, q->table);
	q->nkeys = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_KEYS);
	q->ncolumns = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_COLUMNS);
	if ((op == ENT_REQUEST_CREATE) != (q->nkeys == 0) ||
		(op == ENT_REQUEST_DELETE && q->ncolumns != 0) ||
		(op == ENT_REQUEST_FORWARD && q->ncolumns == 0))
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	check_count(r, q->nkeys + q->ncolumns);
	if (r->error != ENT_WIRE_OK)
		q->nkeys = q->ncolumns = 0;
	q->op = r->error == ENT_WIRE_OK ? (EntWireOperation) op : ENT_REQUEST_CREATE;
}

void
ent_wire_write_field(EntWriter *w, const EntWireField *f)
{
	ent_wire_write_string(w, f->name);
	ent_wire_write_value(w, f->value, f->len);
}

void
ent_wire_read_field(EntReader *r, EntWireField *f)
{
	bool		isnull;

	ent_wire_read_name(r, f->name);
	f->value = ent_wire_read_value(r, &f->len, &isnull);
}

/* ---- RESPONSE ---- */

void
ent_wire_write_response(EntWriter *w, const EntWireResponse *s)
{
	ent_wire_write_uuid(w, &s->id);
	ent_wire_write_u8(w, s->accepted ? 1 : s->on_the_way ? 2 : 0);
	if (s->accepted)
	{
		ent_wire_write_uuid(w, &s->owner);
		ent_wire_write_varint(w, s->epoch);
		ent_wire_write_varint(w, (uint64_t) s->serial);
	}
	else
	{
		ent_wire_write_raw(w, s->sqlstate, 5);
		ent_wire_write_string(w, s->message);
		ent_wire_write_string(w, s->detail);
		ent_wire_write_string(w, s->constraint);
	}
	ent_wire_write_varint(w, s->nkeys);
}

void
ent_wire_read_sqlstate(EntReader *r, char *sqlstate)
{
	const uint8_t *p = ent_wire_read_raw(r, 5);

	for (int i = 0; p != NULL && i < 5; i++)
	{
		bool		digit = p[i] >= '0' && p[i] <= '9';
		bool		letter = p[i] >= 'A' && p[i] <= 'Z';

		if (!digit && !letter)
		{
			ent_wire_fail(r, ENT_WIRE_MALFORMED);
			p = NULL;
		}
	}
	if (p != NULL)
		memcpy(sqlstate, p, 5);
}

void
ent_wire_read_response(EntReader *r, EntWireResponse *s)
{
	uint8_t		verdict;

	memset(s, 0, sizeof(*s));
	ent_wire_read_uuid(r, &s->id);
	verdict = ent_wire_read_u8(r);
	if (verdict > 2)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	s->accepted = verdict == 1;
	s->on_the_way = verdict == 2;
	if (s->accepted)
	{
		ent_wire_read_uuid(r, &s->owner);
		s->epoch = (uint32_t) ent_wire_read_bounded(r, ENT_WIRE_MAX_EPOCH);
		s->serial = ent_wire_read_serial(r);
	}
	else
	{
		ent_wire_read_sqlstate(r, s->sqlstate);
		ent_wire_read_string(r, s->message, ENT_WIRE_MAX_TEXT);
		ent_wire_read_string(r, s->detail, ENT_WIRE_MAX_TEXT);
		ent_wire_read_string(r, s->constraint, ENT_WIRE_MAX_NAME);
	}
	s->nkeys = (unsigned) ent_wire_read_bounded(r, ENT_WIRE_MAX_KEYS);
	if (!s->accepted && s->nkeys != 0)
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	check_count(r, s->nkeys);
	if (r->error != ENT_WIRE_OK)
		s->nkeys = 0;
}
