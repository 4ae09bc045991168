/*
 * rule/pace.c
 *	  How much may be sent, and when.
 *
 * Contract and model in rule/pace.h. Estimation: of all lines through two
 * samples (bytes, elapsed) of sufficiently different size that no sample lies
 * below, the one that is highest in their middle; its slope is one over the
 * rate, its value at zero bytes the round trip. While there is none (one size
 * only, or nothing but noise) both are taken from single samples, which can
 * only make the window grow, to at most twice what was tried before.
 */
#include "rule/pace.h"

#include <string.h>

#define US_PER_S		1000000.0
#define BURST_US		250000.0	/* of a configured bandwidth */
#define PROBE_EVERY		4		/* batches, one of them half as large */
#define LATE			1.5		/* times longer than estimated */
#define LATE_IN_A_ROW	3		/* after which the path has changed */
#define LEVER			1.5		/* least ratio of the sizes of two samples */
#define TOLERANCE		1.001	/* of "no sample lies below" */
#define MAX_SAMPLES		(2 * ENT_PACE_SAMPLES)

void
ent_pace_init(EntPace *p, int64_t bandwidth, int64_t now)
{
	memset(p, 0, sizeof(*p));
	p->bandwidth = bandwidth > 0 ? bandwidth : 0;
	p->refilled_at = now;
}

/* ---- estimation ---- */

typedef struct Line
{
	double		base;			/* us at no bytes */
	double		slope;			/* us per byte */
} Line;

static void
remember(EntPaceRing *ring, int64_t at, double bytes, double elapsed)
{
	EntPaceSample *s = &ring->samples[ring->count++ % ENT_PACE_SAMPLES];

	s->at = at;
	s->bytes = bytes;
	s->elapsed = elapsed;
}

/* Copies what is remembered and young enough; returns how many. */
static int
collect(const EntPaceRing *ring, int64_t now, EntPaceSample *out)
{
	unsigned	held = ring->count < ENT_PACE_SAMPLES ? ring->count :
		ENT_PACE_SAMPLES;
	int			n = 0;

	for (unsigned i = 0; i < held; i++)
		if (now - ring->samples[i].at <= ENT_PACE_MEMORY_US)
			out[n++] = ring->samples[i];
	return n;
}

static bool
below_all(const Line *line, const EntPaceSample *s, int n)
{
	for (int i = 0; i < n; i++)
		if (line->base + line->slope * s[i].bytes > s[i].elapsed * TOLERANCE)
			return false;
	return true;
}

/* The line through two samples; false if it means nothing. */
static bool
line_through(const EntPaceSample *a, const EntPaceSample *b, Line *line)
{
	if (b->bytes < a->bytes * LEVER || b->elapsed <= a->elapsed)
		return false;
	line->slope = (b->elapsed - a->elapsed) / (b->bytes - a->bytes);
	line->base = a->elapsed - line->slope * a->bytes;
	return true;
}

static double
mean_bytes(const EntPaceSample *s, int n)
{
	double		sum = 0;

	for (int i = 0; i < n; i++)
		sum += s[i].bytes;
	return sum / n;
}

/*
 * The supporting line that is highest in the middle of the samples; false,
 * with *best as it was, when there is none.
 */
static bool
fit(const EntPaceSample *s, int n, Line *best)
{
	double		middle = mean_bytes(s, n);
	double		height = 0;

	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < n; j++)
		{
			Line		line;

			if (!line_through(&s[i], &s[j], &line) ||
				line.base + line.slope * middle <= height ||
				!below_all(&line, s, n))
				continue;
			height = line.base + line.slope * middle;
			*best = line;
		}
	}
	return height > 0;
}

/* What single samples tell: bounds of rate and round trip. */
static void
estimate_bounds(EntPace *p, const EntPaceSample *s, int n, int nlarge)
{
	double		greatest = 0;

	p->rate = nlarge > 0 ? 0 : p->rate;
	if (n == 0)
		return;
	p->rtt = s[0].elapsed;
	for (int i = 0; i < n; i++)
	{
		double		rate = s[i].bytes / s[i].elapsed * US_PER_S;

		p->rate = rate > p->rate ? rate : p->rate;
		p->rtt = p->rtt < s[i].elapsed ? p->rtt : s[i].elapsed;
		greatest = s[i].bytes > greatest ? s[i].bytes : greatest;
	}
	p->ceiling = 2 * greatest;
}

static void
estimate(EntPace *p, int64_t now)
{
	EntPaceSample s[MAX_SAMPLES];
	int			nlarge = collect(&p->large, now, s);
	int			n = nlarge + collect(&p->small, now, s + nlarge);
	Line		line = {0, 0};

	estimate_bounds(p, s, n, nlarge);
	if (!fit(s, n, &line))
		return;
	p->rtt = line.base > 0 ? line.base : 0;
	if (line.base > 0 && nlarge > 0)
		p->rate = US_PER_S / line.slope;
}

static bool
is_late(const EntPace *p, double bytes, double elapsed)
{
	return p->rate > 0 &&
		elapsed > LATE * (p->rtt + bytes / p->rate * US_PER_S);
}

/* ---- bandwidth ---- */

static void
repay(EntPace *p, int64_t now)
{
	if (now > p->refilled_at)
		p->debt -= (double) p->bandwidth * (double) (now - p->refilled_at) /
			US_PER_S;
	if (p->debt < 0 || p->bandwidth == 0)
		p->debt = 0;
	p->refilled_at = now;
}

void
ent_pace_set_bandwidth(EntPace *p, int64_t bandwidth, int64_t now)
{
	repay(p, now);
	p->bandwidth = bandwidth > 0 ? bandwidth : 0;
}

int64_t
ent_pace_wait(EntPace *p, int64_t now)
{
	repay(p, now);
	if (p->debt <= 0)
		return 0;
	return (int64_t) (p->debt / (double) p->bandwidth * US_PER_S) + 1;
}

/* ---- batches ---- */

static double
least(double a, double b)
{
	return a < b ? a : b;
}

static double
window(const EntPace *p)
{
	return least(ENT_PACE_WINDOW * p->rate * p->rtt / US_PER_S, p->ceiling);
}

/* What a configured bandwidth allows at once. */
static double
allowance(const EntPace *p)
{
	double		us = ENT_PACE_WINDOW * p->rtt;

	if (us < BURST_US)
		us = BURST_US;
	return (double) p->bandwidth * us / US_PER_S;
}

size_t
ent_pace_batch_size(const EntPace *p, size_t max_batch)
{
	double		bytes = least(window(p), (double) max_batch);

	if (p->bandwidth > 0)
		bytes = least(bytes, allowance(p));
	if (p->batches % PROBE_EVERY == PROBE_EVERY - 1)
		bytes /= 2;
	if (bytes < ENT_PACE_MIN_BATCH)
		bytes = ENT_PACE_MIN_BATCH;
	return bytes < (double) max_batch ? (size_t) bytes : max_batch;
}

void
ent_pace_sent(EntPace *p, size_t bytes, int64_t now)
{
	repay(p, now);
	if (p->bandwidth > 0)
		p->debt += (double) bytes;
	p->sent_at = now;
	p->in_flight = bytes;
}

void
ent_pace_acked(EntPace *p, size_t bytes, int64_t now)
{
	double		elapsed = now > p->sent_at ? (double) (now - p->sent_at) : 1;
	bool		late = is_late(p, (double) bytes, elapsed);

	if (p->in_flight == 0)
		return;
	p->in_flight = 0;
	p->batches++;
	p->late = late ? p->late + 1 : 0;
	if (p->late == LATE_IN_A_ROW)
		p->large.count = p->small.count = 0;
	remember(bytes < ENT_PACE_MIN_BATCH ? &p->small : &p->large, now,
			 (double) bytes, elapsed);
	estimate(p, now);
	if (p->late == LATE_IN_A_ROW)
	{
		p->ceiling = (double) bytes / 2;
		p->late = 0;
	}
}

double
ent_pace_rate(const EntPace *p)
{
	return p->rate;
}

int64_t
ent_pace_rtt(const EntPace *p)
{
	return p->batches > 0 ? (int64_t) p->rtt : -1;
}
