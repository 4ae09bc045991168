/*
 * test/unit_rest.c
 *	  Promises of rule/rest.h.
 */
#include <stdio.h>

#include "rule/rest.h"
#include "tap.h"

#define SECOND	INT64_C(1000000)

/* Some folds one after the other, each of that cost; the last rest. */
static int64_t
folds(EntRest *r, int n, int64_t took, int64_t switches, int64_t busy_limit)
{
	int64_t		now = r->owed_at,
				rest = 0;

	for (int i = 0; i < n; i++)
	{
		now += took + rest;
		rest = ent_rest_after(r, now, took, switches, busy_limit);
	}
	return rest;
}

int
main(void)
{
	EntRest		r;

	tap_promise("rest: of changes now and then each is folded at once");
	ent_rest_init(&r);
	CHECK(ent_rest_after(&r, SECOND, 200, 0, 2 * SECOND) == ENT_REST_MIN_US);
	CHECK(ent_rest_after(&r, SECOND + 20000, 200, 0, 2 * SECOND) == ENT_REST_MIN_US);

	tap_promise("rest: folds one after the other take a small share of a processor");
	ent_rest_init(&r);
	(void) folds(&r, 100, 1000, 0, 2 * SECOND);
	CHECK(folds(&r, 1, 1000, 0, 2 * SECOND) >= 1000 * (ENT_REST_TIMES - 2));

	tap_promise("rest: what is expensive does not rest for longer than the limit");
	ent_rest_init(&r);
	CHECK(folds(&r, 100, 20000, 0, 2 * SECOND) == ENT_REST_LIMIT_US);

	tap_promise("rest: busy processors raise the limit, up to what is said");
	ent_rest_init(&r);
	CHECK(folds(&r, 1, 20000, 4, 2 * SECOND) == 2 * ENT_REST_LIMIT_US);
	CHECK(folds(&r, 20, 200000, 40, 2 * SECOND) == 2 * SECOND);
	CHECK(folds(&r, 20, 200000, 40, SECOND) == SECOND);
	CHECK(folds(&r, 1, 200000, 40, 0) == ENT_REST_LIMIT_US);

	tap_promise("rest: and idle ones lower it again");
	ent_rest_init(&r);
	(void) folds(&r, 20, 200000, 40, 2 * SECOND);
	CHECK(folds(&r, 1, 200000, 0, 2 * SECOND) == SECOND);
	CHECK(folds(&r, 10, 200000, 0, 2 * SECOND) == ENT_REST_LIMIT_US);

	tap_promise("rest: who gives way now and then, or has not had time to, is not busy");
	ent_rest_init(&r);
	CHECK(folds(&r, 20, 200000, 3, 2 * SECOND) == ENT_REST_LIMIT_US);
	CHECK(folds(&r, 20, 4000, 4, 2 * SECOND) <= ENT_REST_LIMIT_US);

	tap_promise("rest: a long rest is not saved up");
	ent_rest_init(&r);
	(void) folds(&r, 1, 1000, 0, 2 * SECOND);
	CHECK(ent_rest_after(&r, 1000 * SECOND, 10000, 0, 2 * SECOND) == ENT_REST_MIN_US);
	CHECK(ent_rest_after(&r, 1000 * SECOND + 10000, 10000, 0, 2 * SECOND) == ENT_REST_LIMIT_US);
	return tap_done();
}
