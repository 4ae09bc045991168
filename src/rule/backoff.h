/*
 * rule/backoff.h
 *	  When to try again: at once, then after exponentially longer, jittered
 *	  pauses up to a cap.
 *
 * Pure C. The random number comes from the caller, so tests are exact.
 */
#ifndef ENT_RULE_BACKOFF_H
#define ENT_RULE_BACKOFF_H

#include <stdint.h>

typedef struct EntBackoff
{
	int			failures;		/* in a row */
} EntBackoff;

#define ENT_BACKOFF_FIRST_US	200000	/* after the second failure */

extern void ent_backoff_reset(EntBackoff *b);
/*
 * Counts a failure and returns the microseconds to wait: 0 after the first,
 * then FIRST * 2^k up to cap_us, each multiplied by 0.5 + random, where
 * random is in [0, 1).
 */
extern int64_t ent_backoff_next(EntBackoff *b, int64_t cap_us, double random);

#endif							/* ENT_RULE_BACKOFF_H */
