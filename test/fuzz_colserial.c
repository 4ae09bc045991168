/*
 * test/fuzz_colserial.c
 *	  Whatever bytes a vector of column serials holds, it is read safely,
 *	  and never as newer than its object or older than time.
 */
#include <string.h>

#include "fuzz.h"
#include "rule/colserial.h"

#define NATTS	40

const char *const fuzz_promise =
	"fuzz: any bytes are read safely as column serials, and mean the same "
	"when packed again";
const int	fuzz_rounds = 400000;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int64_t		serial = INT64_MAX,
				born,
				first[NATTS],
				second[NATTS];
	uint8_t		buf[ENT_COLSERIAL_MAX_BYTES(NATTS)];
	bool		good;
	size_t		len;

	if (size < 16)
		return 0;
	memcpy(&serial, data, 8);
	memcpy(&born, data + 8, 8);
	serial &= INT64_MAX;
	born = serial > 0 ? (born & INT64_MAX) % serial : 0;
	good = ent_colserial_unpack(data + 16, size - 16, serial, born, first,
								NATTS);
	for (int i = 0; i < NATTS; i++)
	{
		FUZZ_CHECK(first[i] >= 0 && first[i] <= serial);
		FUZZ_CHECK(good || first[i] == serial);
	}
	len = ent_colserial_pack(first, NATTS, serial, born, buf);
	FUZZ_CHECK(len <= sizeof(buf));
	FUZZ_CHECK(ent_colserial_unpack(buf, len, serial, born, second, NATTS));
	FUZZ_CHECK(memcmp(first, second, sizeof(first)) == 0);
	FUZZ_CHECK(ent_colserial_base(first, NATTS, born) <= born);
	return 0;
}

size_t
fuzz_good_input(Random *r, uint8_t *buf)
{
	int64_t		serial = (int64_t) (random_any_size(r) >> 1);
	int64_t		born = (int64_t) random_below(r, (uint64_t) serial + 1);
	int64_t		in[NATTS];

	for (int i = 0; i < NATTS; i++)
		in[i] = (int64_t) random_below(r, (uint64_t) serial + 1);
	memcpy(buf, &serial, 8);
	memcpy(buf + 8, &born, 8);
	return 16 + ent_colserial_pack(in, NATTS, serial, born, buf + 16);
}
