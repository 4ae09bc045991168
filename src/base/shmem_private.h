/*
 * base/shmem_private.h
 *	  What the files of base/shmem.h share: shmem.c, shmem_database.c and
 *	  shmem_peer.c.
 *
 * Functions without a comment of their own want ent_shared->lock held:
 * exclusively if they change anything.
 */
#ifndef ENT_BASE_SHMEM_PRIVATE_H
#define ENT_BASE_SHMEM_PRIVATE_H

#include "postgres.h"

#include "base/shmem.h"

extern EntDatabaseSlot *ent_shmem_find_database(Oid database);
/* Frees the slots of all peers of a database. */
extern void ent_shmem_free_peers(Oid database);
/* A new slot's counters: initialize the atomics; no lock needed. */
extern void ent_shmem_init_databases(EntShared *shared);
extern void ent_shmem_init_peers(EntShared *shared);

/* Sees to it that what this process enters is given back when it exits. */
extern void ent_shmem_release_at_exit(void);
/* Gives back this process's slot; returns whether it had one. */
extern bool ent_shmem_release_database(void);
/* Gives back this process's ends of links; returns whether it had any. */
extern bool ent_shmem_release_peers(void);

/* No lock needed. */
static inline void
ent_shmem_wake(Latch *latch)
{
	if (latch != NULL)
		SetLatch(latch);
}

#endif							/* ENT_BASE_SHMEM_PRIVATE_H */
