/*
 * rule/route.c
 *	  Which peer's offer of an owner to follow.
 *
 * Contract in rule/route.h. An offer stays good evidence for as long as it is
 * kept: the standing of who made it only rises after that.
 */
#include "rule/route.h"

/* Does who made the offer stand higher than we do? */
static bool
is_feasible(const EntRoute *r, const EntRouteOffer *o)
{
	return ent_route_farther(o->epoch, o->serial, r->epoch, r->serial) ||
		(o->epoch == r->epoch && o->serial == r->serial &&
		 o->distance < r->nearest);
}

EntRouteVerdict
ent_route_judge(const EntRoute *r, const EntRouteOffer *o, int32_t limit)
{
	bool		feasible = is_feasible(r, o);

	if (o->distance >= limit - 1 || o->epoch < r->epoch)
		return ENT_ROUTE_LEAVE;
	if (r->pointed && r->up)
	{
		if (o->lost || o->distance + 1 >= r->distance)
			return ENT_ROUTE_LEAVE;
		return feasible ? ENT_ROUTE_FOLLOW : ENT_ROUTE_SEEK_LATER;
	}
	if (!o->lost || !r->pointed)
		return feasible ? ENT_ROUTE_FOLLOW : ENT_ROUTE_SEEK;
	/* it leads nowhere either, but may know more than we do */
	return ent_route_farther(o->epoch, o->serial, r->epoch, r->serial) ?
		ENT_ROUTE_FOLLOW : ENT_ROUTE_SEEK;
}

void
ent_route_follow(EntRoute *r, const EntRouteOffer *o, int32_t limit)
{
	bool		too_far = o->distance >= limit - 1;

	r->pointed = true;
	r->up = !o->lost && !too_far;
	r->distance = too_far ? limit : o->distance + 1;
	if (r->distance < r->nearest)
		r->nearest = r->distance;
}

void
ent_route_reach(EntRoute *r, int32_t epoch, int64_t serial)
{
	if (!ent_route_farther(epoch, serial, r->epoch, r->serial))
		return;
	r->epoch = epoch;
	r->serial = serial;
	r->nearest = r->distance;
}
