/*
 * base/ring.h
 *	  The ring: what changed just now, for the links of all databases.
 *
 * An accelerator, never the truth: a reader that was overtaken learns so and
 * goes back to the object table. Entries have variable length in a byte
 * ring; positions are 64-bit byte offsets that never wrap. Writers hold
 * ring_lock exclusively while they copy, readers shared.
 */
#ifndef ENT_BASE_RING_H
#define ENT_BASE_RING_H

#include "postgres.h"

typedef enum EntEventKind
{
	ENT_EVENT_OBJECT = 1,		/* an object has a new state, or died */
	ENT_EVENT_OWNER = 2,		/* an owner is new, gone, or owner.serial (have)
								 * advanced to serial: claims may follow */
	ENT_EVENT_REQUEST = 3,		/* there are requests or answers to be sent */
	ENT_EVENT_RUN = 4,			/* the owner has so many new objects, behind since up to
								 * serial, that the object table tells them better */
} EntEventKind;

typedef struct EntEvent
{
	EntEventKind kind;
	int32		owner;			/* owner.no */
	int32		rel;			/* relation.no, OBJECT */
	int64		serial;
	int64		since;			/* RUN: see there; OBJECT: copies complete up to here
								 * need what is newer than it; 0: send in full */
	uint16		flags;			/* ENT_ROW_* for the wire */
	uint16		keylen;			/* OBJECT */
	const uint8 *key;
	uint64		position;		/* set by the reader: where the entry begins */
} EntEvent;

extern Size ent_ring_shmem_size(void);
extern void ent_ring_shmem_startup(void *memory, bool found);

/* The position the next entry will get. */
extern uint64 ent_ring_head(void);

/*
 * Appends entries of this database in one go (more than fits in half the
 * ring is cut into several). To be called after the commit that made them
 * true. Does not wake anybody. Does nothing when not preloaded.
 */
extern void ent_ring_post(const EntEvent *events, int nevents);

/*
 * Reads entries of this database from *position on into events (at most
 * max), with keys copied into a buffer in the current memory context, returned
 * through *keys (never NULL; pfree it). Advances *position behind the last
 * entry looked at, foreign entries included. Returns the number read, or -1
 * when the reader has been overtaken: then *position is the head and it must
 * rescan.
 */
extern int	ent_ring_read(uint64 *position, EntEvent *events, int max,
						  char **keys);

#endif							/* ENT_BASE_RING_H */
