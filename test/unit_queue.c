/*
 * test/unit_queue.c
 *	  Promises of rule/queue.h. That it does what a plain array would do is
 *	  tried by fuzz_queue.c, and what it is for by sim_queue.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "alloc.h"
#include "rule/queue.h"
#include "tap.h"

static AllocState memory;

static EntQueueEntry
entry(int32_t rel, uint32_t key, int32_t priority, uint64_t position)
{
	static uint8_t bytes[4];
	EntQueueEntry e;

	memset(&e, 0, sizeof(e));
	memcpy(bytes, &key, sizeof(key));
	e.rel = rel;
	e.owner = 1;
	e.priority = priority;
	e.position = position;
	e.since = 50;
	e.stale_at = (int64_t) position;
	e.key = bytes;
	e.keylen = sizeof(bytes);
	return e;
}

static bool
push(EntQueue *q, uint32_t key, int32_t priority, uint64_t position)
{
	EntQueueEntry e = entry(1, key, priority, position);

	return ent_queue_push(q, &e);
}

/* The key of the next entry, -1 when there is none. */
static int64_t
pop(EntQueue *q, EntQueueEntry *e)
{
	uint8_t		keybuf[ENT_QUEUE_MAX_KEY];
	uint32_t	key;

	if (!ent_queue_pop(q, e, keybuf))
		return -1;
	memcpy(&key, e->key, sizeof(key));
	e->key = NULL;
	return key;
}

static bool
pops(EntQueue *q, const int *keys, size_t n)
{
	EntQueueEntry e;
	bool		good = true;

	for (size_t i = 0; i < n; i++)
		good = pop(q, &e) == keys[i] && good;
	return pop(q, &e) == -1 && good;
}

#define POPS(q, ...) \
	pops(q, (const int[]) {__VA_ARGS__}, \
		 sizeof((const int[]) {__VA_ARGS__}) / sizeof(int))

static void
check_empty(EntQueue *q)
{
	EntQueueEntry e;

	tap_promise("queue: an empty one says so");
	CHECK(ent_queue_length(q) == 0 && ent_queue_peek(q) == NULL);
	CHECK(pop(q, &e) == -1);
	CHECK(ent_queue_min_position(q) == UINT64_MAX);
	CHECK(ent_queue_oldest(q) == INT64_MAX);
	CHECK(ent_queue_memory(q) > 0);
}

static void
check_order(EntQueue *q)
{
	tap_promise("queue: priority first, then position, then who came first");
	push(q, 1, 5, 10);
	push(q, 2, 5, 10);
	push(q, 3, -1, 30);
	push(q, 4, 5, 5);
	push(q, 5, 5, 20);
	push(q, 6, 5, 10);
	push(q, 7, -1, 30);
	push(q, 8, INT32_MIN, 99);
	push(q, 9, INT32_MAX, 0);
	CHECK(ent_queue_length(q) == 9);
	CHECK(ent_queue_min_position(q) == 0);
	CHECK(POPS(q, 8, 3, 7, 4, 1, 2, 6, 5, 9));
}

static void
check_joins(EntQueue *q)
{
	EntQueueEntry e = entry(1, 7, 0, 10);
	EntQueueEntry out;

	tap_promise("queue: an object is in it once, with the least of all its "
				"positions, sinces and ages, the newest version and "
				"round, and all its flags");
	e.flags = 4;
	e.newest = 50;
	e.round = 3;
	CHECK(!ent_queue_push(q, &e));
	e.position = 20;
	e.since = 40;
	e.stale_at = 9;
	e.flags = 8;
	e.newest = 70;
	e.round = 2;
	CHECK(ent_queue_push(q, &e));
	e.position = 15;
	e.since = 60;
	e.stale_at = 12;
	e.flags = 0;
	e.newest = 0;
	e.round = 0;
	CHECK(ent_queue_push(q, &e));
	CHECK(ent_queue_length(q) == 1);
	CHECK(pop(q, &out) == 7);
	CHECK(out.position == 10 && out.since == 40 && out.stale_at == 9);
	CHECK(out.flags == 12 && out.owner == 1);
	CHECK(out.newest == 70 && out.round == 3);
	CHECK(!ent_queue_push(q, &e));
	CHECK(pop(q, &out) == 7 && out.position == 15 && out.since == 60);
}

static void
check_owner(EntQueue *q)
{
	EntQueueEntry e = entry(1, 7, 0, 10);
	EntQueueEntry out;

	tap_promise("queue: what dies under one owner and is born under another "
				"is told of both, in this order");
	ent_queue_push(q, &e);
	e.owner = 2;
	e.position = 11;
	e.since = 70;
	CHECK(!ent_queue_push(q, &e));
	CHECK(pop(q, &out) == 7 && out.owner == 1 && out.since == 50);
	CHECK(pop(q, &out) == 7 && out.owner == 2 && out.since == 70);
}

static void
check_places(EntQueue *q)
{
	tap_promise("queue: an object that changes again keeps its place, one "
				"found older or of another priority moves");
	push(q, 1, 0, 10);
	push(q, 2, 0, 20);
	push(q, 3, 0, 30);
	push(q, 4, 0, 40);
	for (uint64_t position = 50; position < 1000; position++)
		push(q, 1, 0, position);
	push(q, 4, 0, 15);
	push(q, 3, -1, 99);
	CHECK(ent_queue_min_position(q) == 10);
	CHECK(POPS(q, 3, 1, 4, 2));
}

static void
push_bulk(EntQueue *q, uint32_t key, int32_t priority, uint64_t position)
{
	EntQueueEntry e = entry(1, key, priority, position);

	e.bulk = true;
	ent_queue_push(q, &e);
}

static void
check_turns(EntQueue *q)
{
	tap_promise("queue: what a scan brings, older than all events, and what "
				"changes take turns; a change makes an object no bulk any more");
	for (uint32_t i = 0; i < 6; i++)
		push_bulk(q, i, 0, 10);
	push(q, 10, 0, 20);
	push(q, 11, 0, 21);
	push(q, 12, 1, 5);
	push_bulk(q, 13, -1, 30);
	push(q, 5, 0, 40);
	push_bulk(q, 11, 0, 10);
	CHECK(ent_queue_min_position(q) == 5);
	CHECK(POPS(q, 13, 5, 0, 11, 1, 10, 2, 3, 4, 12));
}

static void
check_identity(EntQueue *q)
{
	uint8_t		long_key[ENT_QUEUE_MAX_KEY];
	uint8_t		keybuf[ENT_QUEUE_MAX_KEY];
	EntQueueEntry e = entry(1, 0, 0, 1);
	EntQueueEntry out;

	tap_promise("queue: objects differ by table and by every byte and the "
				"length of their key, from none to 8000");
	memset(long_key, 0, sizeof(long_key));
	e.key = long_key;
	for (size_t len = 0; len <= ENT_QUEUE_MAX_KEY; len += len < 40 ? 1 : 796)
	{
		e.keylen = len;
		e.rel = 1;
		CHECK(!ent_queue_push(q, &e));
		e.rel = 2;
		CHECK(!ent_queue_push(q, &e));
		CHECK(ent_queue_push(q, &e));
		if (len == 0)
			continue;
		long_key[len - 1] = 1;
		CHECK(!ent_queue_push(q, &e));
		long_key[len - 1] = 0;
	}
	memset(long_key, 9, sizeof(long_key));
	while (ent_queue_pop(q, &out, keybuf))
	{
		CHECK(out.key == keybuf && (out.keylen == 0 || keybuf[0] < 2));
		e = out;
	}
	CHECK(e.keylen == ENT_QUEUE_MAX_KEY && e.rel == 2);
	CHECK(e.key[ENT_QUEUE_MAX_KEY - 1] == 1);
}

static bool
is_even(const EntQueueEntry *e, void *arg)
{
	++*(int *) arg;
	return e->key[0] % 2 == 0;
}

static void
check_filter(EntQueue *q)
{
	int			calls = 0;

	tap_promise("queue: a filter sees every entry once and removes those it "
				"does not keep");
	for (uint32_t key = 0; key < 9; key++)
		push(q, key, (int32_t) key % 2, 100 - key);
	ent_queue_filter(q, is_even, &calls);
	CHECK(calls == 9 && ent_queue_length(q) == 5);
	push(q, 3, 0, 97);
	CHECK(POPS(q, 8, 6, 4, 3, 2, 0));
}

/* Seconds of processor this took so far. */
static double
cpu(void)
{
	return (double) clock() / CLOCKS_PER_SEC;
}

/*
 * The bounds of time are a hundred times what it takes; an algorithm that
 * walks would take thousands of times as long.
 */
static void
check_scans(EntQueue *q)
{
	const uint32_t n = tap_long() ? 1000000 : 200000;
	double		start = cpu();
	uint64_t	last = 0;
	EntQueueEntry e;

	tap_promise("queue: a scan that pushes behind many newer entries, while "
				"newer ones keep coming, is as fast as they are");
	for (uint32_t i = 0; i < n; i++)
		push(q, i, 0, 1000 + i);
	for (uint32_t i = 0; i < n; i++)
	{
		push(q, n + i, 0, 1500);
		push(q, i, 0, 1400);
		push(q, 2 * n + i % 100, 0, 2000 + n + i);
	}
	CHECK(ent_queue_length(q) == 2 * n + 100);
	for (size_t left = 2 * n + 100; left > 0; left--)
	{
		CHECK(pop(q, &e) >= 0 && e.position >= last);
		last = e.position;
	}
	CHECK(pop(q, &e) == -1);
	CHECK(cpu() - start < 30);
}

static void
check_memory(EntQueue *q)
{
	size_t		before = ent_queue_memory(q);
	size_t		pieces = memory.pieces;
	EntQueueEntry e;

	tap_promise("queue: what is popped is released, and memory is accounted "
				"for");
	for (uint32_t i = 0; i < 1000; i++)
		push(q, i, 0, i);
	CHECK(ent_queue_memory(q) >= before + 1000 * sizeof(EntQueueEntry));
	while (pop(q, &e) >= 0)
		continue;
	CHECK(ent_queue_memory(q) <= before);
	CHECK(memory.pieces <= pieces);
	push(q, 1, 0, 1);
	push(q, 2, 9, 1);
	ent_queue_destroy(q);
	CHECK(memory.pieces == 0);
}

/* What is taken out to be joined with an event keeps the older position, or a claim is early. */
static void
check_take(EntQueue *q)
{
	EntQueueEntry e = entry(1, 7, 0, 9);

	CHECK(!ent_queue_take(q, &e));
	push(q, 7, 0, 5);
	e.since = 60;
	CHECK(ent_queue_take(q, &e));
	CHECK(e.position == 5 && e.since == 50 && e.stale_at == 5);
	CHECK(ent_queue_length(q) == 0);
	push(q, 7, 0, 12);
	e = entry(1, 7, 0, 9);
	CHECK(ent_queue_take(q, &e));
	CHECK(e.position == 9);
}

int
main(void)
{
	EntQueue   *q;

	alloc_init(&memory);
	q = ent_queue_create(alloc_for_queue(&memory));
	check_empty(q);
	check_order(q);
	check_joins(q);
	check_take(q);
	check_owner(q);
	check_places(q);
	check_turns(q);
	check_identity(q);
	check_filter(q);
	check_scans(q);
	check_memory(q);
	return tap_done();
}
