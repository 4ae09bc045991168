/*
 * rule/queue.h
 *	  What one peer is still to be told: each object once, the copy that has
 *	  been stale longest first.
 *
 * Pure C. A hash by (relation, owner, key) and, per priority, an order by the
 * time the peer's copy first became stale, first come first among equals. What a
 * scan brings has an order of its own, and the two take turns: else all that
 * changes would wait until a long copy is done, being younger. What dies under one owner and is born under another is two entries. An object that changes again keeps its place, so hot objects neither starve
 * nor are starved. Positions are ring positions: events come in
 * non-decreasing order, while scans may push entries at the position noted
 * when the scan began.
 */
#ifndef ENT_RULE_QUEUE_H
#define ENT_RULE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct EntQueue EntQueue;

typedef struct EntQueueEntry
{
	int32_t		rel;
	int32_t		owner;
	int32_t		priority;		/* lower goes first */
	uint16_t	flags;			/* ENT_ROW_* for the wire, joined on merge */
	uint64_t	position;		/* of the first event since the copy was last
								 * fresh; least on merge */
	int64_t		since;			/* the peer's copy is complete up to here;
								 * least on merge */
	int64_t		stale_at;		/* microseconds, any clock; least on merge */
	int64_t		newest;			/* serial of the newest version told of; greatest
								 * on merge */
	uint64_t	round;			/* in which it was told of; greatest on merge */
	bool		bulk;			/* a scan brought it, no event so far */
	size_t		keylen;
	const uint8_t *key;			/* owned by the queue while queued */
} EntQueueEntry;

/* Memory: as malloc and free; alloc never returns NULL. */
typedef struct EntQueueAllocator
{
	void	   *(*alloc) (void *ctx, size_t size);
	void		(*release) (void *ctx, void *p);
	void	   *ctx;
} EntQueueAllocator;

extern EntQueue *ent_queue_create(EntQueueAllocator alloc);
extern void ent_queue_destroy(EntQueue *q);

#define ENT_QUEUE_MAX_KEY	8000	/* bytes; as ENT_WIRE_MAX_KEY */

/*
 * Adds an object, or joins it to the entry that is there (returns true then:
 * coalesced). A changed priority moves the entry. The key is copied; keylen
 * must not exceed ENT_QUEUE_MAX_KEY.
 *
 * Constant time for an object that keeps its place and, on average, for one
 * that goes to the end; otherwise, and for pop, logarithmic.
 */
extern bool ent_queue_push(EntQueue *q, const EntQueueEntry *e);

/*
 * Takes the first entry by (priority, position) into *e, of what is bulk and what
 * is not by turns; false when empty.
 * The key is copied into keybuf (ENT_QUEUE_MAX_KEY bytes), e->key points
 * there.
 */
extern bool ent_queue_pop(EntQueue *q, EntQueueEntry *e, uint8_t *keybuf);

/*
 * Takes out the object of *e, if it is there, and joins what is known of it to *e, which
 * gets the lower of both positions.
 * Constant or logarithmic time.
 */
extern bool ent_queue_take(EntQueue *q, EntQueueEntry *e);

/* The first entry without taking it, or NULL; valid until the next call. */
extern const EntQueueEntry *ent_queue_peek(const EntQueue *q);

/* Entries for which keep() says false are removed; keep must not touch q. */
extern void ent_queue_filter(EntQueue *q,
							 bool (*keep) (const EntQueueEntry *e, void *arg),
							 void *arg);

extern size_t ent_queue_length(const EntQueue *q);
/* Least position of all entries; UINT64_MAX when empty. O(priorities). */
extern uint64_t ent_queue_min_position(const EntQueue *q);
/*
 * Least stale_at of the first of each order; INT64_MAX when empty.
 * O(priorities).
 */
extern int64_t ent_queue_oldest(const EntQueue *q);
/* Bytes of memory held. */
extern size_t ent_queue_memory(const EntQueue *q);

#endif							/* ENT_RULE_QUEUE_H */
