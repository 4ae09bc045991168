/*
 * rule/route.h
 *	  Which peer's offer of an owner to follow, so that no loop ever forms.
 *
 * Pure C. A node's standing with an owner is how far it has come (epoch,
 * serial) and the least distance from the home at which it has been since it
 * came so far. Along every pointer from a node to the one it takes the owner
 * from, the standing rises: farther, or as far and nearer. So pointers end at
 * the home or nowhere. docs/architecture.md has the argument, and whose it is.
 */
#ifndef ENT_RULE_ROUTE_H
#define ENT_RULE_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#define ENT_ROUTE_NEVER		INT32_MAX	/* nearest of a node that never had one */

typedef struct EntRoute
{
	int32_t		epoch;			/* reached; rises, the serial within it, too */
	int64_t		serial;
	int32_t		nearest;		/* least distance since that was reached */
	int32_t		distance;		/* to the home, by the pointer */
	bool		pointed;		/* there is a pointer */
	bool		up;				/* it leads to the home, as far as is known */
} EntRoute;

/* What a peer says, or once said: it was true when it was said. */
typedef struct EntRouteOffer
{
	int32_t		epoch;			/* how far it had come */
	int64_t		serial;
	int32_t		distance;		/* its own */
	bool		lost;			/* its own pointer leads nowhere */
} EntRouteOffer;

typedef enum EntRouteVerdict
{
	ENT_ROUTE_LEAVE,			/* not this one */
	ENT_ROUTE_FOLLOW,			/* take the owner from this peer */
	ENT_ROUTE_SEEK,				/* would be of use, but might close a loop: ask
								 * for an offer that is farther than we are */
	ENT_ROUTE_SEEK_LATER,		/* likewise, but there is no hurry */
	ENT_ROUTE_VERDICTS
} EntRouteVerdict;

/* Is (epoch, serial) farther than the other one? */
static inline bool
ent_route_farther(int32_t epoch, int64_t serial, int32_t than_epoch,
				  int64_t than_serial)
{
	return epoch > than_epoch || (epoch == than_epoch && serial > than_serial);
}

/*
 * What to do about the offer of a peer that the pointer does not lead to.
 * limit: a distance that is not to be reached.
 */
extern EntRouteVerdict ent_route_judge(const EntRoute *r,
									   const EntRouteOffer *o, int32_t limit);
/*
 * The pointer leads to the peer that made this offer: by that verdict, or as
 * before, when it offers again what it offered.
 */
extern void ent_route_follow(EntRoute *r, const EntRouteOffer *o,
							 int32_t limit);
/* It has come so far by the pointer; nothing, unless that is farther. */
extern void ent_route_reach(EntRoute *r, int32_t epoch, int64_t serial);

#endif							/* ENT_RULE_ROUTE_H */
