/*
 * test/sim_route.c
 *	  Routes to one owner in random networks whose links are cut and healed.
 *
 * Node 0 is the owner's home. Each link has two ends at each node, as the
 * extension has them: one that offers and claims, one that looks at offers. An
 * end acts at any time, on what its node knows at that moment; what it says
 * arrives later, in order, or never, when the link is cut. Checked after each
 * step: the pointers form no circle, whether their links are up or not.
 *
 * So that the simulator itself is trusted, a rule that follows whoever is
 * nearer goes through the same, and must be seen to go in circles.
 */
#include <stdio.h>
#include <string.h>

#include "rule/route.h"
#include "tap.h"

#define MAX_NODES	9
#define MAX_WIRE	6			/* messages under way, each way */
#define LIMIT		32
#define NOBODY		(-1)

typedef enum Kind
{
	OFFER, CLAIM, SEEK
} Kind;

typedef struct Message
{
	Kind		kind;
	EntRouteOffer offer;		/* of a claim and a seek: epoch and serial */
} Message;

/* What node a has to do with node b. */
typedef struct Link
{
	bool		exists;
	bool		up;
	Message		wire[MAX_WIRE]; /* from a to b */
	int			length;

	/* a offers to b */
	bool		offered;
	int32_t		said_epoch,		/* when last offered */
				said_distance;
	bool		said_lost;
	int32_t		asked_epoch;	/* b seeks more than this; 0: no */
	int64_t		asked_serial;
	int32_t		claimed_epoch;
	int64_t		claimed_serial;

	/* b offered to a */
	bool		known;
	EntRouteOffer offer;
	int32_t		sought_epoch;	/* a has told b that it seeks more than this */
	int64_t		sought_serial;
} Link;

typedef struct Node
{
	EntRoute	route;
	int			pointer;
	int32_t		pending_epoch;	/* others seek more than this of it */
	int64_t		pending_serial;
} Node;

typedef EntRouteVerdict (*Judge) (const EntRoute *, const EntRouteOffer *, int32_t);

static Node nodes[MAX_NODES];
static Link links[MAX_NODES][MAX_NODES];
static int	n;
static unsigned restless;		/* a link comes or goes once in so many steps */
static Judge judge;
static Random rnd;
static long said[3];			/* messages by kind */

static bool
once_in(unsigned times)
{
	return random_below(&rnd, times) == 0;
}

static bool
node_up(int a)
{
	int			p = nodes[a].pointer;

	return a == 0 || (p != NOBODY && links[a][p].up && nodes[a].route.up);
}

static bool
say(int a, int b, Kind kind, EntRouteOffer offer)
{
	Link	   *l = &links[a][b];

	if (l->length == MAX_WIRE)
		return false;
	l->wire[l->length].kind = kind;
	l->wire[l->length++].offer = offer;
	said[kind]++;
	return true;
}

/* ---- the end that offers and claims ---- */

static bool
offer_due(int a, Link *l, bool lost)
{
	EntRoute   *r = &nodes[a].route;

	return !l->offered || l->said_epoch != r->epoch ||
		l->said_distance != r->distance || l->said_lost != lost ||
		(l->asked_epoch != 0 && ent_route_farther(r->epoch, r->serial, l->asked_epoch, l->asked_serial));
}

static void
send_from(int a, int b)
{
	Link	   *l = &links[a][b];
	EntRoute   *r = &nodes[a].route;
	bool		lost = !node_up(a);
	EntRouteOffer o = {r->epoch, r->serial, r->distance, lost};

	if (!l->up || l->length + 2 > MAX_WIRE)
		return;
	if (a != 0 && (!r->pointed || nodes[a].pointer == b || r->distance >= LIMIT))
	{
		o.lost = true;
		if (l->offered)
			say(a, b, OFFER, o);
		l->offered = false;
		return;
	}
	if (offer_due(a, l, lost))
	{
		say(a, b, OFFER, o);
		l->offered = true;
		l->said_epoch = r->epoch;
		l->said_distance = r->distance;
		l->said_lost = lost;
		if (ent_route_farther(r->epoch, r->serial, l->asked_epoch, l->asked_serial))
			l->asked_epoch = 0;
	}
	/* all it has, or some of it */
	if (once_in(2) && ent_route_farther(r->epoch, r->serial, l->claimed_epoch, l->claimed_serial))
	{
		if (l->claimed_epoch == r->epoch && once_in(2))
			o.serial -= random_below(&rnd, r->serial - l->claimed_serial);
		say(a, b, CLAIM, o);
		l->claimed_epoch = o.epoch;
		l->claimed_serial = o.serial;
	}
}

/* b seeks more from a. */
static void
take_seek(int a, int b, const EntRouteOffer *o)
{
	Link	   *l = &links[a][b];
	Node	   *node = &nodes[a];

	if (ent_route_farther(o->epoch, o->serial, l->asked_epoch, l->asked_serial))
	{
		l->asked_epoch = o->epoch;
		l->asked_serial = o->serial;
	}
	if (ent_route_farther(node->route.epoch, node->route.serial, o->epoch, o->serial))
		return;
	if (a == 0)
	{
		if (o->epoch == node->route.epoch && o->serial == node->route.serial)
			node->route.serial++;
	}
	else if (node->pointer != b &&
			 ent_route_farther(o->epoch, o->serial, node->pending_epoch, node->pending_serial))
	{
		node->pending_epoch = o->epoch;
		node->pending_serial = o->serial;
	}
}

/* ---- the end that looks at offers ---- */

/* a asks b for more than that, unless it has; again: it may have been lost. */
static void
seek(int a, int b, int32_t epoch, int64_t serial, bool again)
{
	Link	   *l = &links[a][b];
	EntRouteOffer o = {epoch, serial, 0, false};

	if (!again && !ent_route_farther(epoch, serial, l->sought_epoch, l->sought_serial))
		return;
	if (!say(a, b, SEEK, o))
		return;
	l->sought_epoch = epoch;
	l->sought_serial = serial;
}

static void
look_at(int a, int b)
{
	Link	   *l = &links[a][b];
	Node	   *node = &nodes[a];
	EntRoute	r = node->route;
	bool		again = once_in(20);

	if (a == 0 || !l->up || !l->known)
		return;
	r.up = node_up(a);
	if (node->pointer == b)
	{
		ent_route_follow(&node->route, &l->offer, LIMIT);
		if (node->pending_epoch != 0 &&
			!ent_route_farther(r.epoch, r.serial, node->pending_epoch, node->pending_serial))
			seek(a, b, node->pending_epoch, node->pending_serial, again && !l->offer.lost);
		return;
	}
	switch (judge(&r, &l->offer, LIMIT))
	{
		case ENT_ROUTE_FOLLOW:
			ent_route_follow(&node->route, &l->offer, LIMIT);
			node->pointer = b;
			break;
		case ENT_ROUTE_SEEK:
			seek(a, b, r.epoch, r.serial, again && !l->offer.lost);
			break;
		case ENT_ROUTE_SEEK_LATER:
			if (again)
				seek(a, b, r.epoch, r.serial, true);
			break;
		default:
			break;
	}
}

/* The next message from a arrives at b. */
static void
deliver(int a, int b)
{
	Link	   *l = &links[a][b];
	Link	   *back = &links[b][a];
	Message		m = l->wire[0];

	if (l->length == 0)
		return;
	memmove(l->wire, l->wire + 1, --l->length * sizeof(Message));
	switch (m.kind)
	{
		case OFFER:
			if (back->known && back->offer.lost && !m.offer.lost)
				back->sought_epoch = 0;
			back->known = true;
			back->offer = m.offer;
			look_at(b, a);
			break;
		case CLAIM:
			if (nodes[b].pointer == a)
				ent_route_reach(&nodes[b].route, m.offer.epoch, m.offer.serial);
			else				/* b will say so, and what it has */
				l->claimed_epoch = 0;
			break;
		case SEEK:
			take_seek(b, a, &m.offer);
			break;
	}
}

/* ---- the network ---- */

static void
cut(int a, int b)
{
	for (int way = 0; way < 2; way++)
	{
		Link	   *l = way == 0 ? &links[a][b] : &links[b][a];

		memset(l, 0, sizeof(*l));
		l->exists = true;
	}
}

static void
heal(int a, int b)
{
	if (links[a][b].up)
		return;
	links[a][b].up = links[b][a].up = true;
}

static void
toggle(int a, int b)
{
	if (!links[a][b].exists)
		return;
	if (links[a][b].up)
		cut(a, b);
	else
		heal(a, b);
}

/* A tree, so that all is connected, and some more links. */
static void
make_network(void)
{
	int			more;

	memset(nodes, 0, sizeof(nodes));
	memset(links, 0, sizeof(links));
	n = 3 + random_below(&rnd, MAX_NODES - 2);
	restless = 5 << random_below(&rnd, 6);
	for (int a = 0; a < n; a++)
	{
		nodes[a].pointer = NOBODY;
		nodes[a].route.epoch = 1;
		nodes[a].route.nearest = a == 0 ? 0 : ENT_ROUTE_NEVER;
		nodes[a].route.up = a == 0;
		if (a > 0)
			cut(a, random_below(&rnd, a));
	}
	more = random_below(&rnd, 2 * n);
	for (int i = 0; i < more; i++)
	{
		int			a = random_below(&rnd, n),
					b = random_below(&rnd, n);

		if (a != b)
			cut(a, b);
	}
}

static bool
circular(void)
{
	for (int a = 0; a < n; a++)
	{
		int			at = a;

		for (int steps = 0; at != NOBODY; steps++)
		{
			if (steps > n)
				return true;
			at = nodes[at].pointer;
		}
	}
	return false;
}

/* Anything may happen, except to the links. */
static void
step(void)
{
	int			a,
				b;

	do
	{
		a = random_below(&rnd, n);
		b = random_below(&rnd, n);
	} while (!links[a][b].exists);
	switch (random_below(&rnd, 4))
	{
		case 0:
			send_from(a, b);
			break;
		case 1:
			look_at(a, b);
			break;
		default:
			deliver(a, b);
	}
}

/* Steps with changes and cuts; false when a circle was seen. */
static bool
disturb(int steps)
{
	for (int i = 0; i < steps; i++)
	{
		step();
		if (once_in(10))
			nodes[0].route.serial++;
		if (once_in(2000))
			nodes[0].route.epoch++;
		if (once_in(restless))
			toggle(random_below(&rnd, n), random_below(&rnd, n));
		if (circular())
			return false;
	}
	return true;
}

/* Links to the home by links that are up; LIMIT: none. */
static void
measure(int *distance)
{
	for (int a = 0; a < n; a++)
		distance[a] = a == 0 ? 0 : LIMIT;
	for (int round = 0; round < n; round++)
		for (int a = 0; a < n; a++)
			for (int b = 0; b < n; b++)
				if (links[a][b].up && distance[b] + 1 < distance[a])
					distance[a] = distance[b] + 1;
}

/* Does every node know, rightly, whether and how it gets to the home? */
static bool
settled(const int *distance)
{
	for (int a = 1; a < n; a++)
	{
		if (node_up(a) != (distance[a] < LIMIT))
			return false;
		if (node_up(a) && nodes[a].route.distance != distance[a])
			return false;
	}
	return true;
}

/* Undisturbed, all is well after some time. 0: never, else how many steps. */
static long
calm(void)
{
	int			distance[MAX_NODES];

	measure(distance);
	for (long i = 1; i < 100000; i++)
	{
		step();
		if (circular())
			return 0;
		if (i % 50 == 0 && settled(distance))
			return i;
	}
	return 0;
}

static void
heal_all(void)
{
	for (int a = 0; a < n; a++)
		for (int b = 0; b < n; b++)
			if (links[a][b].exists)
				heal(a, b);
}

/* ---- promises ---- */

static void
explain(unsigned long run)
{
	tap_note("run %lu, %d nodes", run, n);
	for (int a = 0; a < n; a++)
		tap_note("%d -> %d at %d.%ld, distance %d, nearest %d, %s", a, nodes[a].pointer,
				 nodes[a].route.epoch, (long) nodes[a].route.serial,
				 nodes[a].route.distance, nodes[a].route.nearest,
				 node_up(a) ? "up" : "lost");
}

static void
check_loops(void)
{
	unsigned long runs = tap_long() ? 50000 : 1000;
	long		most = 0;

	judge = ent_route_judge;
	memset(said, 0, sizeof(said));
	tap_promise("routes: no circle at any moment, whatever is cut and whenever it arrives");
	for (unsigned long run = 0; run < runs; run++)
	{
		bool		well;

		rnd.state = run;
		make_network();
		well = disturb(3000);
		for (int i = 0; well && i < 3; i++)
		{
			long		steps;

			/* cut in two, perhaps; then all together */
			if (i < 2)
				well = disturb(500);
			else
				heal_all();
			steps = well ? calm() : 0;
			well = steps > 0;
			most = steps > most ? steps : most;
		}
		if (!CHECK(well))
		{
			explain(run);
			break;
		}
	}
	tap_note("%ld offers, %ld claims, %ld seeks; at most %ld steps until all had settled",
			 said[OFFER], said[CLAIM], said[SEEK], most);
}

/*
 * A home that is silent: what makes up for a lost way is asked for, and that
 * costs little.
 */
static void
check_seeks(void)
{
	unsigned long runs = tap_long() ? 50000 : 1000;

	judge = ent_route_judge;
	tap_promise("routes: a lost way is replaced though the owner writes nothing, at little cost");
	for (unsigned long run = 0; run < runs; run++)
	{
		int			edges = 0,
					distance[MAX_NODES];
		int64_t		serial;
		bool		well;

		rnd.state = run + 1000000;
		make_network();
		heal_all();
		well = calm() > 0;
		serial = nodes[0].route.serial;
		memset(said, 0, sizeof(said));
		for (int a = 0; a < n; a++)
			for (int b = 0; b < a; b++)
				edges += links[a][b].exists;
		/* cut one that may be spared */
		for (int tries = 0; tries < 100; tries++)
		{
			int			a = random_below(&rnd, n),
						b = random_below(&rnd, n);
			bool		spare = true;

			if (!links[a][b].up)
				continue;
			cut(a, b);
			measure(distance);
			for (int i = 0; i < n; i++)
				spare &= distance[i] < LIMIT;
			if (spare)
				break;
			heal(a, b);
		}
		well = well && calm() > 0;
		/* some are asked again here, since a step knows no time */
		well = well && nodes[0].route.serial - serial <= 2 * n &&
			said[SEEK] <= 20 * edges;
		if (!CHECK(well))
		{
			explain(run);
			break;
		}
	}
}

/* As distance vectors do that know no sequence numbers. */
static EntRouteVerdict
judge_by_distance(const EntRoute *r, const EntRouteOffer *o, int32_t limit)
{
	if (o->distance >= limit - 1 || o->lost)
		return ENT_ROUTE_LEAVE;
	return !r->pointed || !r->up || o->distance + 1 < r->distance ?
		ENT_ROUTE_FOLLOW : ENT_ROUTE_LEAVE;
}

static void
check_simulator(void)
{
	int			circles = 0;

	judge = judge_by_distance;
	tap_promise("routes: who follows the nearest is seen to go in circles");
	for (unsigned long run = 0; run < 100; run++)
	{
		rnd.state = run;
		make_network();
		if (!disturb(3000))
			circles++;
	}
	CHECK(circles >= 10);
	tap_note("%d of 100 runs", circles);
}

int
main(void)
{
	check_loops();
	check_seeks();
	check_simulator();
	return tap_done();
}
