/*
 * base/ring.c
 *	  The ring: what changed just now, for the links of all databases.
 *
 * Floor 0. Position p lives at byte p % size; the entries still there are
 * those in [head - size, head). An entry is a RingEntry and its key, copied
 * byte by byte, wrapping at the end, so nothing is aligned. head moves under
 * ring_lock held exclusively and is read without a lock as a hint.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "base/guc.h"
#include "base/ring.h"
#include "base/shmem.h"

typedef struct Ring
{
	uint64		size;			/* of data; fixed */
	pg_atomic_uint64 head;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Ring;

typedef struct RingEntry
{
	int64		serial;
	int64		since;
	Oid			database;
	int32		owner;
	int32		rel;
	uint16		flags;
	uint16		keylen;
	uint8		kind;
} RingEntry;

/* Entries looked at while the lock is held once. */
#define LOOKS_PER_LOCK	512

static Ring *ring = NULL;

Size
ent_ring_shmem_size(void)
{
	return add_size(offsetof(Ring, data),
					mul_size((Size) ent_ring_size, 1024));
}

void
ent_ring_shmem_startup(void *memory, bool found)
{
	ring = memory;
	if (found)
		return;
	ring->size = (uint64) ent_ring_size * 1024;
	/* no position is ever 0, which means "none" to others */
	pg_atomic_init_u64(&ring->head, ring->size);
}

uint64
ent_ring_head(void)
{
	return ring ? pg_atomic_read_u64(&ring->head) : 0;
}

static void
copy_in(uint64 position, const void *from, Size len)
{
	uint64		at = position % ring->size;
	Size		first = Min(len, ring->size - at);

	memcpy(ring->data + at, from, first);
	memcpy(ring->data, (const char *) from + first, len - first);
}

static void
copy_out(uint64 position, void *to, Size len)
{
	uint64		at = position % ring->size;
	Size		first = Min(len, ring->size - at);

	memcpy(to, ring->data + at, first);
	memcpy((char *) to + first, ring->data, len - first);
}

void
ent_ring_post(const EntEvent *events, int nevents)
{
	int			i = 0;

	if (ring == NULL)
		return;

	while (i < nevents)
	{
		uint64		head;
		uint64		stop;

		LWLockAcquire(ent_shared->ring_lock, LW_EXCLUSIVE);
		head = pg_atomic_read_u64(&ring->head);
		stop = head + ring->size / 2;
		while (i < nevents)
		{
			const EntEvent *e = &events[i];
			uint16		keylen = e->kind == ENT_EVENT_OBJECT ? e->keylen : 0;
			RingEntry	entry;

			if (head + sizeof(entry) + keylen > stop)
				break;
			memset(&entry, 0, sizeof(entry));
			entry.kind = e->kind;
			entry.database = MyDatabaseId;
			entry.owner = e->owner;
			entry.rel = e->rel;
			entry.serial = e->serial;
			entry.since = e->since;
			entry.flags = e->flags;
			entry.keylen = keylen;
			copy_in(head, &entry, sizeof(entry));
			head += sizeof(entry);
			if (keylen > 0)
				copy_in(head, e->key, keylen);
			head += keylen;
			i++;
		}
		pg_atomic_write_u64(&ring->head, head);
		LWLockRelease(ent_shared->ring_lock);
	}
}

/* What ent_ring_read has got so far. */
typedef struct Reading
{
	EntEvent   *events;			/* key is an offset into keys until the end */
	int			n;
	int			max;
	char	   *keys;
	Size		used;
	Size		size;
	bool		full;			/* keys must grow before going on */
} Reading;

/*
 * Reads on from *position while the lock is held; false when overtaken. Stops
 * early when max is reached, keys are full, or enough has been looked at.
 */
static bool
read_locked(uint64 *position, Reading *r)
{
	uint64		head = pg_atomic_read_u64(&ring->head);

	if (*position > head || head - *position > ring->size)
		return false;

	for (int looks = 0; looks < LOOKS_PER_LOCK; looks++)
	{
		RingEntry	entry;
		EntEvent   *e;

		if (*position == head || r->n == r->max)
			break;
		copy_out(*position, &entry, sizeof(entry));
		if (entry.database == MyDatabaseId)
		{
			if (r->used + entry.keylen > r->size)
			{
				r->full = true;
				break;
			}
			e = &r->events[r->n++];
			e->kind = (EntEventKind) entry.kind;
			e->owner = entry.owner;
			e->rel = entry.rel;
			e->serial = entry.serial;
			e->since = entry.since;
			e->flags = entry.flags;
			e->keylen = entry.keylen;
			e->position = *position;
			if (entry.keylen > 0)
				copy_out(*position + sizeof(entry), r->keys + r->used,
						 entry.keylen);
			r->used += entry.keylen;
		}
		*position += sizeof(entry) + entry.keylen;
	}
	return true;
}

int
ent_ring_read(uint64 *position, EntEvent *events, int max, char **keys)
{
	Reading		r = {.events = events,.max = max,.size = 1024};
	bool		overtaken = false;
	Size		offset = 0;

	r.keys = *keys = palloc(r.size);
	if (ring == NULL)
		return 0;

	while (r.n < max && *position != pg_atomic_read_u64(&ring->head))
	{
		if (r.full)
		{
			r.size *= 2;
			r.keys = *keys = repalloc(r.keys, r.size);
			r.full = false;
		}
		LWLockAcquire(ent_shared->ring_lock, LW_SHARED);
		overtaken = !read_locked(position, &r);
		LWLockRelease(ent_shared->ring_lock);
		if (overtaken)
			break;
	}

	/* What was read before being overtaken is good; the next call tells. */
	if (overtaken && r.n == 0)
	{
		*position = ent_ring_head();
		return -1;
	}
	for (int i = 0; i < r.n; i++)
	{
		events[i].key = (uint8 *) r.keys + offset;
		offset += events[i].keylen;
	}
	return r.n;
}
