/*
 * store/life.h
 *	  The end of owners, and owners that change their home.
 *
 * Both are announced once, by owner, not by object. An owner is known to be
 * no more from the moment its grave is there; what it had here goes after
 * that, in pieces (step/clear.c). All need a transaction and SPI; events at
 * commit. The caller holds the owners (ent_owner_hold) unless said otherwise.
 */
#ifndef ENT_STORE_LIFE_H
#define ENT_STORE_LIFE_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/uuid.h"

#include "store/owner.h"

typedef struct EntGrave
{
	pg_uuid_t	id;
	pg_uuid_t	home;			/* its last one */
	int32		epoch;			/* its last one; a greater one is a new life */
} EntGrave;

/* Is an owner of that id no more? Holding nothing. */
extern bool ent_life_grave(const pg_uuid_t *id, EntGrave *out);
/* It lives again. */
extern void ent_life_revive(const pg_uuid_t *id);

/* The peer speaks of it as if it lived: it is told (again). */
extern void ent_life_remind(const pg_uuid_t *id, int32 peer);
/* What that peer is to be told, at most max: List of EntGrave *. */
extern List *ent_life_untold(int32 peer, int max);
/* It has heard of these. */
extern void ent_life_told(const List *graves, int32 peer);

/*
 * A remote owner, as it was read, is no more in any epoch up to this one; all
 * peers but that one (0: all) are to be told, requests for it are refused, and
 * the collector deletes its rows as the role. False: it has become younger, or
 * is gone already.
 */
extern bool ent_life_end(const EntOwner *o, int32 epoch, int32 peer, Oid role);
/* The same for a local owner, of which nothing is left here afterwards. */
extern void ent_life_end_local(const EntOwner *o);

/* The next owner whose rows are to be deleted, and as whom; 0: none. */
extern int32 ent_life_next_gone(int32 after, Oid *role);
/* Nothing of it is left but objects that nobody has looked at: forget it. */
extern void ent_life_forget(int32 owner);
/* Removes the oldest graves beyond that number, unless somebody has to hear. */
extern void ent_life_prune(int64 keep);

/* Is the owner's home a node that we have, or had, a link with? */
extern bool ent_life_home_is_peer(const EntOwner *o);
/*
 * May that peer say that the owner has another home now? route: we take the
 * owner from it, or might. As long as its home is a peer of ours, or is here,
 * only if the administrator said so.
 */
extern bool ent_life_may_move(const EntOwner *o, int32 peer, bool route);
/* It has: a local owner becomes a remote one without route. */
extern void ent_life_move(const EntOwner *o, const pg_uuid_t *home);
/*
 * A remote owner's home is here now, in a new epoch, which is returned. *lost:
 * objects known but not stored, of which nothing will come any more.
 */
extern int32 ent_life_adopt(const EntOwner *o, int64 *lost);

/* Numbers of owners go up to here. Holding nothing. */
extern int32 ent_life_newest(void);

#endif							/* ENT_STORE_LIFE_H */
