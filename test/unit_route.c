/*
 * test/unit_route.c
 *	  Promises of rule/route.h, case by case. What they add up to is simulated
 *	  by test/sim_route.c.
 */
#include <stdio.h>

#include "rule/route.h"
#include "tap.h"

#define LIMIT	32
#define NEVER	ENT_ROUTE_NEVER

/* The usual one: at serial 100 of epoch 2, three links away. */
#define UP		{2, 100, 3, 3, true, true}
#define DOWN	{2, 100, 3, 3, true, false}
#define BARE	{2, 100, 3, 3, false, false}
#define NOTHING	{2, 0, NEVER, 0, false, false}

static const struct
{
	const char *name;
	EntRoute	route;
	EntRouteOffer offer;
	EntRouteVerdict verdict;
}			cases[] = {
	/* nothing yet: anything will do */
	{"the first offer", NOTHING, {2, 0, 0, false}, ENT_ROUTE_FOLLOW},
	{"the first offer, far away", NOTHING, {2, 0, 30, false}, ENT_ROUTE_FOLLOW},
	{"the first offer, too far away", NOTHING, {2, 0, 31, false}, ENT_ROUTE_LEAVE},
	{"the first offer, of who is lost", NOTHING, {2, 50, 1, true}, ENT_ROUTE_FOLLOW},
	{"the first offer, of an older epoch", NOTHING, {1, 50, 1, false}, ENT_ROUTE_LEAVE},

	/* a way that leads there: only a nearer one */
	{"as near", UP, {2, 100, 2, false}, ENT_ROUTE_LEAVE},
	{"nearer", UP, {2, 100, 1, false}, ENT_ROUTE_FOLLOW},
	{"nearer and farther on", UP, {2, 101, 1, false}, ENT_ROUTE_FOLLOW},
	{"farther on, but not nearer", UP, {2, 200, 2, false}, ENT_ROUTE_LEAVE},
	{"a newer epoch, but not nearer", UP, {3, 0, 2, false}, ENT_ROUTE_LEAVE},
	{"nearer, in a newer epoch", UP, {3, 0, 1, false}, ENT_ROUTE_FOLLOW},
	{"nearer, but behind", UP, {2, 99, 1, false}, ENT_ROUTE_SEEK_LATER},
	{"nearer, but lost", UP, {2, 101, 0, true}, ENT_ROUTE_LEAVE},
	{"nearer than it is, not than it was", {2, 100, 2, 5, true, true}, {2, 100, 3, false}, ENT_ROUTE_SEEK_LATER},
	{"nearer than it was", {2, 100, 2, 5, true, true}, {2, 100, 1, false}, ENT_ROUTE_FOLLOW},

	/* a way that leads there no more */
	{"lost: as far on and nearer", DOWN, {2, 100, 2, false}, ENT_ROUTE_FOLLOW},
	{"lost: as far on and as near", DOWN, {2, 100, 3, false}, ENT_ROUTE_SEEK},
	{"lost: behind, however near", DOWN, {2, 99, 0, false}, ENT_ROUTE_SEEK},
	{"lost: farther on, however far away", DOWN, {2, 101, 30, false}, ENT_ROUTE_FOLLOW},
	{"lost: farther on, too far away", DOWN, {2, 101, 31, false}, ENT_ROUTE_LEAVE},
	{"lost: a newer epoch", DOWN, {3, 0, 9, false}, ENT_ROUTE_FOLLOW},
	{"lost: an older epoch", DOWN, {1, 999, 0, false}, ENT_ROUTE_LEAVE},

	/* who is lost, too, may know more */
	{"both lost: farther on", DOWN, {2, 101, 9, true}, ENT_ROUTE_FOLLOW},
	{"both lost: as far on and nearer", DOWN, {2, 100, 0, true}, ENT_ROUTE_SEEK},

	/* the peer it came from was dropped */
	{"no way: as far on and nearer", BARE, {2, 100, 2, true}, ENT_ROUTE_FOLLOW},
	{"no way: as far on, as near", BARE, {2, 100, 3, false}, ENT_ROUTE_SEEK},
	{"no way: behind and lost", BARE, {2, 99, 0, true}, ENT_ROUTE_SEEK},
	{"no way: behind", BARE, {2, 99, 0, false}, ENT_ROUTE_SEEK},
};

static void
check_judge(void)
{
	tap_promise("route: who is followed stands higher; who may be of use is asked to");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		CHECK_CASE(ent_route_judge(&cases[i].route, &cases[i].offer, LIMIT) ==
				   cases[i].verdict, cases[i].name);
}

static void
check_follow(void)
{
	EntRoute	r = NOTHING;
	EntRouteOffer o = {2, 100, 4, false};

	tap_promise("route: following makes it nearer, never farther than it was");
	ent_route_follow(&r, &o, LIMIT);
	CHECK(r.pointed && r.up && r.distance == 5 && r.nearest == 5);
	CHECK(r.serial == 0);		/* it has come nowhere by that */
	o.distance = 1;
	ent_route_follow(&r, &o, LIMIT);
	CHECK(r.distance == 2 && r.nearest == 2);
	o.distance = 7;
	o.lost = true;
	ent_route_follow(&r, &o, LIMIT);
	CHECK(r.distance == 8 && r.nearest == 2 && !r.up && r.pointed);
	o.distance = 31;
	o.lost = false;
	ent_route_follow(&r, &o, LIMIT);
	CHECK(r.distance == LIMIT && !r.up && r.pointed);
	o.distance = INT32_MAX;
	ent_route_follow(&r, &o, LIMIT);
	CHECK(r.distance == LIMIT && !r.up && r.nearest == 2);
}

static void
check_reach(void)
{
	EntRoute	r = {2, 100, 2, 5, true, true};

	tap_promise("route: who has come farther begins anew with the distance it has");
	ent_route_reach(&r, 2, 100);
	CHECK(r.serial == 100 && r.nearest == 2);
	ent_route_reach(&r, 2, 99);
	CHECK(r.serial == 100 && r.nearest == 2);
	ent_route_reach(&r, 1, 1000);
	CHECK(r.epoch == 2 && r.serial == 100 && r.nearest == 2);
	ent_route_reach(&r, 2, 101);
	CHECK(r.serial == 101 && r.nearest == 5);
	r.distance = 9;
	ent_route_reach(&r, 3, 1);
	CHECK(r.epoch == 3 && r.serial == 1 && r.nearest == 9);
}

int
main(void)
{
	check_judge();
	check_follow();
	check_reach();
	return tap_done();
}
