/*
 * store/identity.h
 *	  entanglement.identity: which node this database is, and whether it is.
 *
 * A copy of a node's database, restored from a dump or made with CREATE
 * DATABASE TEMPLATE, has the identity of its original, which may live on. It
 * is told by the place that the identity remembers, and is undecided until
 * entanglement.become says what it is to be: it writes and captures, and
 * neither folds nor speaks. A process of such a database never sees it become
 * undecided while it runs.
 */
#ifndef ENT_STORE_IDENTITY_H
#define ENT_STORE_IDENTITY_H

#include "postgres.h"

#include "utils/uuid.h"

typedef struct EntIdentity
{
	pg_uuid_t	id;
	char	   *name;
	int32		default_owner;
	bool		used;			/* somebody else may know of it */
	bool		here;			/* it was decided in this place */
	bool		loaded;			/* it came from a dump */
	bool		upgraded;		/* the database is the same, the cluster another */
	char	   *encoding;		/* of the keys in our tables */
	int32		timeline;		/* of the log when it was looked at last; 0: never */
} EntIdentity;

/* Is it known to be this database that speaks for the node? */
static inline bool
ent_identity_undecided(const EntIdentity *i)
{
	return i->used && !i->here;
}

/* This database of this cluster, in the current context. */
extern char *ent_identity_place(void);

/* Transaction and SPI; result in the caller's memory context. */
extern EntIdentity *ent_identity_get(void);
/* The same, and keeps others from changing it until commit. */
extern EntIdentity *ent_identity_lock(void);

/*
 * These need no SPI of the caller. ready: used, and here. refuse: raises
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when undecided.
 */
extern bool ent_identity_ready(void);
extern void ent_identity_refuse_undecided(void);

/*
 * The log branches off when a standby is promoted, or a backup recovered to a point in
 * time: what the original did behind that is not known here. now: the timeline that is
 * written, 0 in recovery. refuse: raises ERRCODE_CANNOT_CONNECT_NOW when it is
 * another one than was noted; needs no SPI of the caller. note needs a transaction and
 * SPI.
 */
extern int32 ent_identity_timeline_now(void);
extern void ent_identity_refuse_branched(void);
extern void ent_identity_note_timeline(void);

/*
 * A table, peer or owner is being made: from now on a copy of this database is
 * a copy of this node. One that is a copy of something unused gets ids of its
 * own before. Transaction and SPI.
 */
extern void ent_identity_use(void);

#endif							/* ENT_STORE_IDENTITY_H */
