/*
 * base/place.h
 *	  Where rows that many processes look for were written last.
 *
 * A table of hints in shared memory, of fixed size and without locks: the newest one of
 * those that share an entry stays. What is found at a place must say itself that it is
 * what was looked for. Without the library preloaded there are none.
 */
#ifndef ENT_BASE_PLACE_H
#define ENT_BASE_PLACE_H

#include "postgres.h"

#include "storage/itemptr.h"

extern Size ent_place_shmem_size(void);
extern void ent_place_shmem_startup(void *memory, bool found);

/* hash: of all that tells the row from others of this server. */
extern void ent_place_note(uint64 hash, const ItemPointerData *at);
/* False: nothing is known. True: it may be there. */
extern bool ent_place_find(uint64 hash, ItemPointerData *at);

#endif							/* ENT_BASE_PLACE_H */
