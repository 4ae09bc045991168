/*
 * test/unit_backoff.c
 *	  Promises of rule/backoff.h.
 */
#include <limits.h>
#include <stdio.h>

#include "rule/backoff.h"
#include "tap.h"

static const struct
{
	const char *name;
	int			failures;		/* before */
	int64_t		cap;
	double		random;
	int64_t		wait;
}			cases[] = {
	{"first at once", 0, 60000000, 0.5, 0},
	{"second", 1, 60000000, 0.5, 200000},
	{"third doubles", 2, 60000000, 0.5, 400000},
	{"fourth doubles again", 3, 60000000, 0.5, 800000},
	{"least jitter", 3, 60000000, 0.0, 400000},
	{"most jitter", 3, 60000000, 0.999, 1199200},
	{"last below the cap", 9, 60000000, 0.5, 51200000},
	{"at the cap", 10, 60000000, 0.5, 60000000},
	{"far beyond the cap", 1000000, 60000000, 0.5, 60000000},
	{"count is full", INT_MAX, 60000000, 0.5, 60000000},
	{"cap below the first pause", 1, 1000, 0.5, 1000},
	{"cap no power of two", 5, 3000001, 0.5, 3000001},
	{"no cap to speak of", 40, INT64_MAX / 2, 0.0, (INT64_C(200000) << 39) / 2},
	{"zero cap", 5, 0, 0.5, 0},
};

int
main(void)
{
	EntBackoff	b;

	tap_promise("backoff: at once, then doubling up to the cap, with jitter");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		b.failures = cases[i].failures;
		CHECK_CASE(ent_backoff_next(&b, cases[i].cap, cases[i].random) ==
				   cases[i].wait, cases[i].name);
	}

	tap_promise("backoff: every failure counts, a success starts over");
	ent_backoff_reset(&b);
	CHECK(ent_backoff_next(&b, 1000000, 0.5) == 0);
	CHECK(ent_backoff_next(&b, 1000000, 0.5) == ENT_BACKOFF_FIRST_US);
	CHECK(b.failures == 2);
	ent_backoff_reset(&b);
	CHECK(ent_backoff_next(&b, 1000000, 0.5) == 0);
	return tap_done();
}
