/*
 * store/subscription.h
 *	  What is wanted from peers (entanglement.subscription), and what they have
 *	  said they want (entanglement.wanted).
 *
 * SPI connected; results in the current context.
 */
#ifndef ENT_STORE_SUBSCRIPTION_H
#define ENT_STORE_SUBSCRIPTION_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef struct EntWish
{
	int32		rel;			/* relation.no */
	int64		round;
	char	   *filter;			/* NULL: every row */
	char		sqlstate[6];	/* of theirs; empty: not looked at yet */
	char	   *message;		/* likewise; NULL: none */
} EntWish;

/* ---- ours ---- */

/* Replaces the wish there was. */
extern void ent_subscription_set(int32 peer, Oid relid, const char *filter);
/* false: there was none. */
extern bool ent_subscription_drop(int32 peer, Oid relid);
/*
 * Of EntWish *, by number: those of synchronized tables. *selective: there are
 * any, also of others.
 */
extern List *ent_subscription_all(int32 peer, bool *selective);
/* What the peer says became of that round; message NULL: nothing to say. */
extern void ent_subscription_judged(int32 peer, int32 rel, int64 round,
									const char *sqlstate, const char *message);

/* ---- theirs ---- */

/* The whole set, in place of what there was. Returns whether it differed. */
extern bool ent_wanted_set(int32 peer, bool selective, List *wishes);
/*
 * Does the peer want that table? *wish: what it said of it, or NULL, when it
 * said nothing at all and so wants everything.
 */
extern bool ent_wanted_get(int32 peer, int32 rel, EntWish **wish);
/* Of EntWish *, by number. *selective: it wants no others. */
extern List *ent_wanted_all(int32 peer, bool *selective);
/* Writes down what became of it, if that is news. */
extern void ent_wanted_judge(int32 peer, EntWish *wish, const char *sqlstate,
							 const char *message);

#endif							/* ENT_STORE_SUBSCRIPTION_H */
