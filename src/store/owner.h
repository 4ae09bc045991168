/*
 * store/owner.h
 *	  entanglement.owner.
 */
#ifndef ENT_STORE_OWNER_H
#define ENT_STORE_OWNER_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "utils/uuid.h"

typedef struct EntOwner
{
	int32		no;
	pg_uuid_t	id;
	pg_uuid_t	home;
	char	   *name;			/* database encoding */
	bool		local;
	int32		epoch;
	int64		serial;			/* last allocated, or our have */
	int64		sure;			/* remote: have without gaps */
	int64		told;			/* remote: greatest have, so far in this epoch */
	int64		pruned;			/* newest serial of a collected tombstone */
	int32		peer;			/* route; 0: none */
	int32		distance;
	int32		nearest;		/* remote: least distance since told was reached */
	bool		lost;			/* remote: the route's own route leads nowhere */
	bool		partial;		/* remote: the route gives some of its objects only */
	bool		arrears;		/* some table is incomplete: make no claims */
	bool		pinned;			/* only these peers may speak for it: */
	int			nspeakers;
	int32	   *speakers;
	bool		gone;			/* remote: is no more, its rows are being deleted */
} EntOwner;

/* How far we have come with it: its sequence number here. */
static inline int64
ent_owner_reached(const EntOwner *o)
{
	return o->local ? o->serial : o->told;
}

/*
 * Does the route lead to the home, as far as is known: is the link of the peer
 * up, and has that peer a route itself? Needs neither transaction nor SPI.
 */
extern bool ent_owner_up(const EntOwner *o);
/* Is the peer one of those it is pinned to, if it is? */
extern bool ent_owner_may_speak(const EntOwner *o, int32 peer);

/* All need a transaction and SPI; results in the caller's memory context. */
extern List *ent_owner_all(void);	/* of EntOwner * */
extern EntOwner *ent_owner_get(int32 no);	/* NULL when gone */
/* Is some table of it incomplete here? */
extern bool ent_owner_in_arrears(int32 no);
extern EntOwner *ent_owner_by_id(const pg_uuid_t *id);
/* A remote owner heard of for the first time; returns its number. */
extern int32 ent_owner_learn(const pg_uuid_t *id, const pg_uuid_t *home,
							 const char *name, int32 epoch);
/*
 * Which owners there are, or whose home is here, has changed: every session
 * forgets what it remembered of that.
 */
extern void ent_owner_invalidate(void);
/*
 * How many are known, local ones included, and those that are no more but of
 * which some peer has not heard.
 */
extern int64 ent_owner_count(void);
/* Route of a remote owner as rule/route.h decided; peer 0: none. */
extern void ent_owner_set_route(int32 no, int32 peer, int32 distance,
								int32 nearest, bool lost, bool partial,
								const char *name);
/*
 * A peer's link is new: routes through it that it does not offer any more (not
 * among the ids, which it puts in order) lead nowhere.
 */
extern void ent_owner_lose(int32 peer, pg_uuid_t *ids, int n);
/*
 * Locks remote owners until commit, all or those of a set, in the order of their
 * numbers: haves and routes stay as they are. Of a set it tells what their rows say,
 * but not of arrears and speakers; those that are no more are left out.
 */
extern void ent_owner_hold_all(void);
extern List *ent_owner_hold(const Bitmapset *nos);
/*
 * After a crash so many serials of an owner at most were told to peers by folds that are
 * to be done again (ent_durable_commit_repeatable), and may not be given out again.
 */
#define ENT_SERIALS_AT_RISK 256

/*
 * Gives out *n serials of a local owner, of which this is the last; false when it is
 * not local. The first ones since a crash are beyond those at risk; *n is with those. Raises ERRCODE_T_R_SERIALIZATION_FAILURE when somebody else has
 * written the owner's row since the transaction's snapshot.
 */
extern bool ent_owner_allocate(int32 no, int64 *n, int64 *last, int32 *epoch);
/*
 * Raises our have of an owner that is held; never lowers it within an epoch. A newer epoch resets it.
 * gaps: the route still owes some of it. A new route is asked from the have
 * without gaps on (ent_owner_set_route).
 */
extern void ent_owner_set_have(int32 no, int32 epoch, int64 serial, bool gaps);

/*
 * Number of the owner with that name (a local one before remote ones) or id.
 * Raises ERRCODE_UNDEFINED_OBJECT or ERRCODE_AMBIGUOUS_ALIAS with a hint and
 * the detail, which may be NULL.
 */
extern int32 ent_owner_named(const char *name, const char *detail);

/*
 * The same, cached, without SPI; '' is the node's default owner.
 */
extern int32 ent_owner_look_up(const char *name, const char *detail);

/*
 * Number of the owner that this session's new rows belong to: the one that
 * setting entanglement.owner names (a local one before remote ones), or the
 * node's default. Cached per setting value and catalog state; needs no SPI
 * connection of the caller. Raises ERRCODE_UNDEFINED_OBJECT or
 * ERRCODE_AMBIGUOUS_ALIAS with a hint.
 */
extern int32 ent_owner_current(void);
/* Unless 0: that one instead. To be restored, also on error. */
extern int32 ent_owner_forced;

#endif							/* ENT_STORE_OWNER_H */
