/*
 * rule/colserial.c
 *	  One serial per column of an object, packed.
 *
 * Contract in rule/colserial.h. Uses the wire's varints; what cannot be read
 * counts as changed just now, which costs bytes and never a change.
 */
#include "rule/colserial.h"

#include "rule/wire.h"

static bool
unpack_columns(const uint8_t *data, size_t len, int64_t serial, int64_t *out,
			   int natts)
{
	EntReader	r;

	ent_wire_reader_init(&r, data, len);
	for (int i = 0; !ent_wire_at_end(&r); i++)
	{
		uint64_t	behind = ent_wire_read_bounded(&r, (uint64_t) serial);

		if (i < natts)
			out[i] = serial - (int64_t) behind;
	}
	return r.error == ENT_WIRE_OK;
}

bool
ent_colserial_unpack(const uint8_t *data, size_t len, int64_t serial,
					 int64_t born, int64_t *out, int natts)
{
	for (int i = 0; i < natts; i++)
		out[i] = born;
	if (serial >= 0 && unpack_columns(data, len, serial, out, natts))
		return true;
	for (int i = 0; i < natts; i++)
		out[i] = serial;
	return false;
}

static int64_t
clamp(int64_t value, int64_t serial)
{
	if (value > serial)
		return serial;
	return value > 0 ? value : 0;
}

size_t
ent_colserial_pack(const int64_t *in, int natts, int64_t serial, int64_t born,
				   uint8_t *buf)
{
	uint8_t    *p = buf;

	while (natts > 0 && clamp(in[natts - 1], serial) == born)
		natts--;
	for (int i = 0; i < natts; i++)
		p += ent_wire_encode_varint(p, (uint64_t) (serial -
												   clamp(in[i], serial)));
	return (size_t) (p - buf);
}

int64_t
ent_colserial_base(const int64_t *in, int natts, int64_t since)
{
	int64_t		base = 0;

	for (int i = 0; i < natts; i++)
		if (in[i] <= since && in[i] > base)
			base = in[i];
	return base;
}
