/*
 * base/place.c
 *	  Where rows that many processes look for were written last.
 *
 * An entry is one word: 16 bits of the hash, the block, the line pointer, so that it
 * is read and written as a whole.
 */
#include "postgres.h"

#include "port/atomics.h"

#include "base/place.h"

#define PLACES		32768		/* a power of two */
#define TAG_SHIFT	48

static pg_atomic_uint64 *places = NULL;

Size
ent_place_shmem_size(void)
{
	return PLACES * sizeof(pg_atomic_uint64);
}

void
ent_place_shmem_startup(void *memory, bool found)
{
	places = memory;
	for (int i = 0; !found && i < PLACES; i++)
		pg_atomic_init_u64(&places[i], 0);
}

void
ent_place_note(uint64 hash, const ItemPointerData *at)
{
	if (places != NULL)
		pg_atomic_write_u64(&places[hash % PLACES],
							hash >> TAG_SHIFT << TAG_SHIFT |
							(uint64) ItemPointerGetBlockNumber(at) << 16 |
							ItemPointerGetOffsetNumber(at));
}

bool
ent_place_find(uint64 hash, ItemPointerData *at)
{
	uint64		place = places == NULL ? 0 : pg_atomic_read_u64(&places[hash % PLACES]);

	ItemPointerSet(at, (BlockNumber) (place >> 16), (OffsetNumber) place);
	return place != 0 && place >> TAG_SHIFT == hash >> TAG_SHIFT;
}
