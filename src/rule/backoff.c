/*
 * rule/backoff.c
 *	  When to try again: at once, then after longer and longer pauses.
 *
 * Contract in rule/backoff.h. Doubling stops at the cap, so no count of
 * failures overflows anything.
 */
#include "rule/backoff.h"

#include <limits.h>

void
ent_backoff_reset(EntBackoff *b)
{
	b->failures = 0;
}

static int64_t
pause_after(int failures, int64_t cap_us)
{
	int64_t		pause = ENT_BACKOFF_FIRST_US;

	for (int i = 2; i < failures && pause < cap_us; i++)
		pause = pause > cap_us / 2 ? cap_us : pause * 2;
	return pause < cap_us ? pause : cap_us;
}

int64_t
ent_backoff_next(EntBackoff *b, int64_t cap_us, double random)
{
	if (b->failures < INT_MAX)
		b->failures++;
	if (b->failures == 1 || cap_us <= 0)
		return 0;
	return (int64_t) ((double) pause_after(b->failures, cap_us) *
					  (0.5 + random));
}
