/*
 * test/batch.h
 *	  Whole batches: made at random, and read the way a link reads them.
 */
#ifndef ENT_TEST_BATCH_H
#define ENT_TEST_BATCH_H

#include "alloc.h"
#include "rule/wire.h"
#include "tap.h"

/* Appends a batch with up to max_sections sections of all kinds. */
extern void batch_random(EntWriter *w, Random *r, unsigned max_sections);

/*
 * Reads a batch, every field of it, and writes what it read to out. Bytes
 * it has no meaning for (sections of unknown type, rows of unknown tables,
 * bytes behind the known fields) are copied. As every number has one
 * spelling, out is the batch itself when the result is ENT_WIRE_OK.
 */
extern EntWireError batch_echo(const uint8_t *data, size_t len, EntWriter *out,
							   AllocState *memory);

#endif							/* ENT_TEST_BATCH_H */
