/*
 * test/fuzz_wire.c
 *	  Whatever bytes come in place of a batch, reading them is safe, and what
 *	  is accepted has one meaning and one spelling.
 */
#include <string.h>

#include "batch.h"
#include "fuzz.h"

const char *const fuzz_promise =
	"fuzz: any bytes are read safely as a batch, and those accepted are "
	"written again as they were";
const int	fuzz_rounds = 700000;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AllocState	memory;
	EntWriter	out;

	alloc_init(&memory);
	ent_wire_writer_init(&out, alloc_for_wire(&memory));
	if (batch_echo(data, size, &out, &memory) == ENT_WIRE_OK)
	{
		FUZZ_CHECK(out.len == size);
		FUZZ_CHECK(memcmp(out.data, data, size) == 0);
	}
	alloc_release(&memory, out.data);
	FUZZ_CHECK(memory.pieces == 0);
	FUZZ_CHECK(memory.asked <= 4096 + 200 * size);
	return 0;
}

size_t
fuzz_good_input(Random *r, uint8_t *buf)
{
	AllocState	memory;
	EntWriter	w;
	size_t		len;

	alloc_init(&memory);
	ent_wire_writer_init(&w, alloc_for_wire(&memory));
	batch_random(&w, r, 5);
	len = w.len < FUZZ_MAX_INPUT ? w.len : FUZZ_MAX_INPUT;
	memcpy(buf, w.data, len);
	alloc_release(&memory, w.data);
	return len;
}
