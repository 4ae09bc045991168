/*
 * rule/pace.h
 *	  How much may be sent, and when: rate, round trip, window, budget.
 *
 * Pure C; the caller brings a clock (microseconds) that should not go back.
 * One batch is in flight at a time, so it is acknowledged after
 *
 *		elapsed = round trip + bytes / rate
 *
 * plus noise, which only ever adds. Rate and round trip are the line that
 * lies as close as it can below all samples remembered. The time a peer
 * takes to apply grows with the bytes and so counts as transmission, not as
 * round trip. A configured bandwidth is a token bucket on top.
 *
 * The window is ENT_PACE_WINDOW bandwidth-delay products. Between batches
 * the link is idle for one round trip, so with one batch of w products in
 * flight it is used at w / (w + 1) at most, however well it is paced: 2 gives
 * 67 %; 90 % would take 9, with nine round trips of queue in the path.
 */
#ifndef ENT_RULE_PACE_H
#define ENT_RULE_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENT_PACE_MIN_BATCH	4096	/* bytes; never asks for less */
#define ENT_PACE_WINDOW		2		/* bandwidth-delay products in flight */
#define ENT_PACE_SAMPLES	20		/* remembered of each size */
#define ENT_PACE_MEMORY_US	60000000	/* and for how long */

typedef struct EntPaceSample
{
	int64_t		at;				/* us, when acknowledged */
	double		bytes;
	double		elapsed;		/* us */
} EntPaceSample;

typedef struct EntPaceRing
{
	EntPaceSample samples[ENT_PACE_SAMPLES];
	unsigned	count;			/* ever added; the newest is count - 1 */
} EntPaceRing;

typedef struct EntPace
{
	int64_t		bandwidth;		/* bytes/s allowed, 0: no limit */
	double		debt;			/* bytes sent ahead of the bandwidth */
	int64_t		refilled_at;	/* us; debt is as of then */
	EntPaceRing large;			/* batches of at least ENT_PACE_MIN_BATCH */
	EntPaceRing small;			/* the others, which displace none of those */
	double		rate;			/* bytes/s, estimated; 0: no sample yet */
	double		rtt;			/* us, estimated */
	double		ceiling;		/* bytes; no batch is larger, whatever is
								 * estimated */
	unsigned	batches;		/* acknowledged */
	int			late;			/* of them, in a row, later than estimated */
	int64_t		sent_at;		/* us; of the batch in flight */
	size_t		in_flight;		/* bytes */
} EntPace;

extern void ent_pace_init(EntPace *p, int64_t bandwidth, int64_t now);
extern void ent_pace_set_bandwidth(EntPace *p, int64_t bandwidth, int64_t now);
/*
 * Bytes the next batch should have at most (>= ENT_PACE_MIN_BATCH, and above
 * all <= max_batch): the window, at most twice the greatest batch
 * remembered (so a new link starts at the minimum and doubles), and at most
 * what a configured bandwidth carries in a quarter of a second or in
 * ENT_PACE_WINDOW round trips, whichever is more. Every fourth
 * batch is half as large, which keeps round trip and rate apart.
 */
extern size_t ent_pace_batch_size(const EntPace *p, size_t max_batch);
/*
 * Microseconds until the configured bandwidth lets something be sent; 0: now.
 * Whether a batch is still in flight is for the caller to know.
 */
extern int64_t ent_pace_wait(EntPace *p, int64_t now);
extern void ent_pace_sent(EntPace *p, size_t bytes, int64_t now);
/*
 * The batch in flight was acknowledged. Without one it does nothing. Three in
 * a row that took half again as long as estimated mean that the path has
 * changed: what was remembered is forgotten.
 */
extern void ent_pace_acked(EntPace *p, size_t bytes, int64_t now);
extern double ent_pace_rate(const EntPace *p);	/* bytes/s; 0: no sample yet */
extern int64_t ent_pace_rtt(const EntPace *p);	/* us; -1: no sample yet */

#endif							/* ENT_RULE_PACE_H */
