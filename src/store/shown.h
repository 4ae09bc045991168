/*
 * store/shown.h
 *	  What peers have been shown of each table: whole, or in part, and then which
 *	  objects (I5).
 *
 * A peer that is shown a part of a table is never told a key that it has not
 * been told before; so the keys it has been told are remembered (held), from before
 * they leave until it is known to have forgotten them. One that is shown all of
 * it costs nothing.
 */
#ifndef ENT_STORE_SHOWN_H
#define ENT_STORE_SHOWN_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef enum EntShownKind
{
	ENT_SHOWN_NOTHING = 'n',	/* not any more */
	ENT_SHOWN_SOME = 's',		/* what is held is remembered */
	ENT_SHOWN_ALL = 'a'
} EntShownKind;

/* Of one table and peer. While kind is not target, the table is reviewed. */
typedef struct EntShown
{
	EntShownKind kind;
	EntShownKind target;
	int64		digest;			/* of the rules; other ones: to be reviewed */
} EntShown;

/* False: nothing has been shown yet. */
extern bool ent_shown_get(int32 peer, int32 rel, EntShown *shown);
extern void ent_shown_put(int32 peer, int32 rel, const EntShown *shown);
/* The peer has no such table, and so holds nothing of it. */
extern void ent_shown_forget(int32 peer, int32 rel);
/*
 * A table that is shown whole is not, from now on: all objects that are here
 * count as held, and it is to be reviewed. False: somebody else does that.
 */
extern bool ent_shown_narrow(int32 peer, int32 rel);
/* Tables that are shown whole to a peer: List of EntShownWhole *. */
typedef struct EntShownWhole
{
	int32		peer;
	Oid			role;
	int32		rel;
} EntShownWhole;

extern List *ent_shown_whole(void);
/*
 * All objects of the table that the peer may have from us are to be looked at
 * again; kept until it has acknowledged the last of them.
 */
extern void ent_shown_review(int32 peer, int32 rel);
/* ... of all tables that it is shown in part. */
extern void ent_shown_review_all(int32 peer);
/*
 * What the peer may hold of these owners from before is to be compared with what it
 * may see. owners: int4[].
 */
extern void ent_shown_compare(int32 peer, int32 rel, Datum owners);
/*
 * If nothing is left to be reviewed, nor any death that the peer must not hear of,
 * target becomes kind; true: it was another.
 */
extern bool ent_shown_reviewed(int32 peer, int32 rel);

/*
 * keys: bytea[]; marks which of them are held, and of these those that it was told to
 * give up without an answer yet: whether it did is not known.
 */
extern void ent_shown_held(int32 peer, int32 rel, Datum keys, bool *held,
						   bool *leaving);
extern void ent_shown_hold(int32 peer, int32 rel, Datum keys);
/* It is told to give them up. */
extern void ent_shown_leave(int32 peer, int32 rel, Datum keys);
extern void ent_shown_release(int32 peer, int32 rel, Datum keys);

/*
 * A digest of the table's policies and of what the role is a member of, with
 * names, which policies compare.
 */
extern int64 ent_shown_policies(Oid relid, Oid role);

#endif							/* ENT_STORE_SHOWN_H */
