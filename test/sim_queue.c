/*
 * test/sim_queue.c
 *	  The queue on a link that carries less than what changes.
 *
 * Time is simulated. Objects change at random; the link takes the next object
 * from the queue whenever it is free. The age of a copy is the time since
 * the peer's copy became stale. A round is the time the link needs for one
 * object each.
 *
 * So that the simulator itself is trusted, two other disciplines go through
 * the same: one where a change moves an object to the back, one that serves
 * the last change first. Both must be seen to starve.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "rule/queue.h"
#include "tap.h"

#define MAX_OBJECTS	1000
#define SECOND		1000000.0

/* ---- disciplines ---- */

typedef struct Discipline
{
	const char *name;
	void		(*changed) (int object, int64_t now);
	int			(*next) (void);	/* -1: nothing to say */
} Discipline;

static AllocState memory;
static EntQueue *queue;
static uint64_t position;

static void
queue_changed(int object, int64_t now)
{
	EntQueueEntry e;

	memset(&e, 0, sizeof(e));
	e.rel = 1;
	e.position = position++;
	e.stale_at = now;
	e.key = (const uint8_t *) &object;
	e.keylen = sizeof(object);
	ent_queue_push(queue, &e);
}

static int
queue_next(void)
{
	EntQueueEntry e;
	uint8_t		keybuf[ENT_QUEUE_MAX_KEY];
	int			object;

	if (!ent_queue_pop(queue, &e, keybuf))
		return -1;
	memcpy(&object, e.key, sizeof(object));
	return object;
}

/* The time of the last change of what waits; 0: does not wait. */
static int64_t last_change[MAX_OBJECTS];

static void
note_change(int object, int64_t now)
{
	last_change[object] = now;
}

static int
extreme(bool newest)
{
	int			best = -1;

	for (int i = 0; i < MAX_OBJECTS; i++)
		if (last_change[i] > 0 &&
			(best < 0 || (last_change[i] > last_change[best]) == newest))
			best = i;
	if (best >= 0)
		last_change[best] = 0;
	return best;
}

static int
least_recent(void)
{
	return extreme(false);
}

static int
most_recent(void)
{
	return extreme(true);
}

static const Discipline the_queue = {"the queue", queue_changed, queue_next};
static const Discipline to_the_back = {"to the back", note_change, least_recent};
static const Discipline last_first = {"last first", note_change, most_recent};

/* ---- the simulator ---- */

typedef struct World
{
	int			objects;
	double		changes;		/* a second */
	double		capacity;		/* objects a second */
	int			burst;			/* objects sent at once, as in a batch */
	double		storm;			/* share of all changes that object 0 gets */
	double		seconds;
} World;

typedef struct Seen
{
	double		oldest;			/* age of any copy, s */
	double		oldest_calm;	/* without object 0 */
	long		sent;
	long		least_sent;		/* of one object */
} Seen;

static int64_t stale_since[MAX_OBJECTS];	/* 0: fresh */
static long sent[MAX_OBJECTS];

static void
look_at_ages(const World *w, Seen *seen, int64_t now)
{
	for (int i = 0; i < w->objects; i++)
	{
		double		age = stale_since[i] == 0 ? 0 :
			(double) (now - stale_since[i]) / SECOND;

		if (age > seen->oldest)
			seen->oldest = age;
		if (i > 0 && age > seen->oldest_calm)
			seen->oldest_calm = age;
	}
}

static void
change_one(const Discipline *d, const World *w, Random *r, int64_t now)
{
	int			object = random_unit(r) < w->storm ? 0 :
		(int) random_below(r, (uint64_t) w->objects);

	if (stale_since[object] == 0)
		stale_since[object] = now;
	d->changed(object, now);
}

static void
send_some(const Discipline *d, const World *w, Seen *seen, int64_t now)
{
	look_at_ages(w, seen, now);
	for (int i = 0; i < w->burst; i++)
	{
		int			object = d->next();

		if (object < 0)
			return;
		stale_since[object] = 0;
		sent[object]++;
		seen->sent++;
	}
}

static void
finish(const World *w, Seen *seen)
{
	seen->least_sent = sent[0];
	for (int i = 0; i < w->objects; i++)
		if (sent[i] < seen->least_sent)
			seen->least_sent = sent[i];
}

static Seen
simulate(const Discipline *d, const World *w)
{
	Random		r = {8};
	Seen		seen = {0, 0, 0, 0};
	double		change_at = 1,
				send_at = 1;

	queue = ent_queue_create(alloc_for_queue(&memory));
	memset(stale_since, 0, sizeof(stale_since));
	memset(last_change, 0, sizeof(last_change));
	memset(sent, 0, sizeof(sent));
	while (send_at < w->seconds * SECOND)
	{
		if (change_at <= send_at)
		{
			change_one(d, w, &r, (int64_t) change_at);
			change_at += SECOND / w->changes * 2 * random_unit(&r);
		}
		else
		{
			send_some(d, w, &seen, (int64_t) send_at);
			send_at += SECOND / w->capacity * w->burst;
		}
	}
	finish(w, &seen);
	ent_queue_destroy(queue);
	return seen;
}

static Seen
report(const Discipline *d, const World *w)
{
	Seen		seen = simulate(d, w);
	double		round = w->objects / w->capacity;

	tap_note("%-12s %4d objects, %6.0f changes/s, %4.0f sent/s in bursts of "
			 "%3d: oldest copy %7.2f rounds, least sent object %ld times",
			 d->name, w->objects, w->changes, w->capacity, w->burst,
			 seen.oldest / round, seen.least_sent);
	return seen;
}

/* ---- promises ---- */

static void
check_rounds(void)
{
	static const World worlds[] = {
		{100, 5000, 60, 1, 0, 600},
		{100, 5000, 60, 1, 0.9, 600},
		{1000, 5000, 60, 1, 0.5, 600},
		{10, 5000, 60, 1, 0, 600},
		{100, 50, 60, 1, 0, 600},
		{100, 100000, 60, 1, 0, 20},
	};

	tap_promise("queue: however often objects change, no copy is older than "
				"1.1 rounds of the link, and each gets its share");
	for (size_t i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++)
	{
		const World *w = &worlds[i];
		Seen		seen = report(&the_queue, w);
		double		round = w->objects / w->capacity;

		CHECK(seen.oldest <= 1.1 * round);
		CHECK(w->changes < w->capacity ||
			  (double) seen.sent >= 0.999 * w->seconds * w->capacity - 1);
		CHECK(w->changes < 20 * w->capacity ||
			  (double) seen.least_sent >= w->seconds / round * 0.9 - 2);
	}
}

static void
check_bursts(void)
{
	const World w = {100, 5000, 60, 30, 0, 600};
	Seen		seen = report(&the_queue, &w);

	tap_promise("queue: sent in batches of 30, no copy is older than a round "
				"and a batch");
	CHECK(seen.oldest <= (100 + 30) / 60.0 * 1.01);
}

static void
check_storm(void)
{
	/* one object changes 100000 times a second, the other ten times */
	static const World w = {2, 100000, 60, 1, 0.9998, 100};
	Seen		seen = report(&the_queue, &w);

	tap_promise("queue: a storm of changes on one object delays another by "
				"one object at most");
	tap_note("oldest copy of the calm object: %.4f s, two objects take %.4f s",
			 seen.oldest_calm, 2 / w.capacity);
	CHECK(seen.oldest_calm > 0 && seen.oldest_calm <= 2 / w.capacity + 1e-5);
}

static void
check_others(void)
{
	const World w = {100, 5000, 60, 1, 0, 600};

	tap_promise("simulator: disciplines that starve are seen to starve");
	CHECK(report(&to_the_back, &w).oldest > 3 * 100 / 60.0);
	CHECK(report(&last_first, &w).oldest > 3 * 100 / 60.0);
}

int
main(void)
{
	alloc_init(&memory);
	check_rounds();
	check_bursts();
	check_storm();
	check_others();
	return tap_done();
}
