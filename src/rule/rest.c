/*
 * rule/rest.c
 *	  How long the collector rests after a fold.
 *
 * Contract in rule/rest.h. The limit doubles with each fold that finds the processors
 * busy, and halves with each that does not.
 */
#include "rule/rest.h"

#define SHORT_US	5000		/* who wakes up may be let through at any time: that says
								 * nothing of so short a fold */
#define SLICE_US	10000		/* of the processor, after which it has to, about,
								 * if somebody else wants it */

void
ent_rest_init(EntRest *r)
{
	r->owed = r->owed_at = 0;
	r->limit = ENT_REST_LIMIT_US;
}

static int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t
most(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static bool
is_busy(int64_t took, int64_t switches)
{
	return took > SHORT_US && switches > 0 && took / switches <= SLICE_US;
}

int64_t
ent_rest_after(EntRest *r, int64_t now, int64_t took, int64_t switches, int64_t busy_limit)
{
	r->limit = is_busy(took, switches) ? r->limit * 2 : r->limit / 2;
	r->limit = most(least(r->limit, busy_limit), ENT_REST_LIMIT_US);
	r->owed += took * ENT_REST_TIMES - (now - r->owed_at);
	r->owed = least(most(r->owed, -ENT_REST_LIMIT_US), r->limit);
	r->owed_at = now;
	return most(r->owed, ENT_REST_MIN_US);
}
