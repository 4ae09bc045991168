/*
 * test/unit_hash.c
 *	  The queue's hash spreads the keys that tables have. Looks inside, and so
 *	  includes the source.
 */
#include "rule/queue.c"

#include <stdio.h>
#include <stdlib.h>

#include "alloc.h"
#include "tap.h"

#define KEYS	65536

/* Kinds of keys, as key images: a length, then the bytes of the type. */

static size_t
counting_int4(uint32_t i, uint8_t *key)
{
	key[0] = 4;
	for (int b = 0; b < 4; b++)
		key[1 + b] = (uint8_t) (i >> (24 - 8 * b));
	return 5;
}

static size_t
counting_int8_by_4096(uint32_t i, uint8_t *key)
{
	uint64_t	v = (uint64_t) i * 4096;

	key[0] = 8;
	for (int b = 0; b < 8; b++)
		key[1 + b] = (uint8_t) (v >> (56 - 8 * b));
	return 9;
}

static size_t
numbered_name(uint32_t i, uint8_t *key)
{
	char		text[32];
	int			len = snprintf(text, sizeof(text), "vehicle/%u/position", i);

	key[0] = (uint8_t) len;
	memcpy(key + 1, text, (size_t) len);
	return (size_t) len + 1;
}

static size_t
pair_of_small_numbers(uint32_t i, uint8_t *key)
{
	size_t		len = counting_int4(i % 256, key);

	return len + counting_int4(i / 256, key + len);
}

static size_t
one_bit_of_many(uint32_t i, uint8_t *key)
{
	memset(key, 0, 8192);
	key[i / 8] = (uint8_t) (1 << i % 8);
	return 8000;
}

static const struct
{
	const char *name;
	size_t		(*make) (uint32_t i, uint8_t *key);
	uint32_t	n;
}			kinds[] = {
	{"counting int4", counting_int4, KEYS},
	{"int8 in steps of 4096", counting_int8_by_4096, KEYS},
	{"numbered names", numbered_name, KEYS},
	{"pairs of small numbers", pair_of_small_numbers, KEYS},
	{"one bit in 8000 bytes", one_bit_of_many, 4096},
};

#define NKINDS	(sizeof(kinds) / sizeof(kinds[0]))

/*
 * n balls thrown at random into n boxes leave n/e empty and put more than a
 * dozen into one box hardly ever.
 */
static void
check_spread(EntQueue *q, size_t kind, int shift)
{
	static uint8_t key[8192];
	static uint16_t boxes[KEYS];
	uint32_t	n = kinds[kind].n;
	uint32_t	empty = 0;
	uint16_t	fullest = 0;

	memset(boxes, 0, sizeof(boxes));
	for (uint32_t i = 0; i < n; i++)
	{
		size_t		len = kinds[kind].make(i, key);

		boxes[(hash_object(q, 1, 1, key, len) >> shift) % n]++;
	}
	for (uint32_t i = 0; i < n; i++)
	{
		empty += boxes[i] == 0;
		fullest = boxes[i] > fullest ? boxes[i] : fullest;
	}
	CHECK_CASE(empty > n * 0.34 && empty < n * 0.395, kinds[kind].name);
	CHECK_CASE(fullest <= 13, kinds[kind].name);
}

static void
check_seed(void)
{
	AllocState	memory;
	EntQueue   *a,
			   *b;
	uint8_t		key[5];
	size_t		len = counting_int4(7, key);

	tap_promise("hash: two queues hash differently, tables as well");
	alloc_init(&memory);
	a = ent_queue_create(alloc_for_queue(&memory));
	b = ent_queue_create(alloc_for_queue(&memory));
	CHECK(hash_object(a, 1, 1, key, len) != hash_object(b, 1, 1, key, len));
	CHECK(hash_object(a, 1, 1, key, len) != hash_object(a, 2, 1, key, len));
	CHECK(hash_object(a, 1, 1, key, len) != hash_object(a, 1, 2, key, len));
	CHECK(hash_object(a, 1, 1, key, len) == hash_object(a, 1, 1, key, len));
	ent_queue_destroy(a);
	ent_queue_destroy(b);
}

int
main(void)
{
	AllocState	memory;
	EntQueue   *q;

	alloc_init(&memory);
	q = ent_queue_create(alloc_for_queue(&memory));
	tap_promise("hash: keys as tables have them spread like random ones, in "
				"the low bits and in the high ones");
	for (size_t kind = 0; kind < NKINDS; kind++)
	{
		check_spread(q, kind, 0);
		check_spread(q, kind, 40);
	}
	ent_queue_destroy(q);
	check_seed();
	return tap_done();
}
