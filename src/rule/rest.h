/*
 * rule/rest.h
 *	  How long the collector rests after a fold.
 *
 * A fold, and the batches that follow from it, cost about as much for one change as for
 * a hundred: from one to the next is so many times the processor's time it took. What
 * was rested too long before counts, so of changes now and then each is folded at once.
 * A rest has a limit: ENT_REST_LIMIT_US, and while the processors are busy more, up to
 * what the caller says; then changes of the same objects coalesce, and those who write
 * keep the processors. They are busy when the fold has had to give way often for its time.
 *
 * Pure C; all times in microseconds.
 */
#ifndef ENT_RULE_REST_H
#define ENT_RULE_REST_H

#include <stdbool.h>
#include <stdint.h>

#define ENT_REST_TIMES		25
#define ENT_REST_MIN_US		2000
#define ENT_REST_LIMIT_US	40000

typedef struct EntRest
{
	int64_t		owed;			/* rest, ... */
	int64_t		owed_at;		/* ... then; less than none: rested too long */
	int64_t		limit;
} EntRest;

extern void ent_rest_init(EntRest *r);

/*
 * A fold has ended now that took so much of a processor and gave way so many times
 * (involuntary context switches). How long to rest; with busy_limit, less than
 * ENT_REST_LIMIT_US being that, at most.
 */
extern int64_t ent_rest_after(EntRest *r, int64_t now, int64_t took, int64_t switches,
							  int64_t busy_limit);

#endif							/* ENT_RULE_REST_H */
