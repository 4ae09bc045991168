/*
 * rule/pace.c
 *	  How much may be sent, and when.
 *
 * Contract and model in rule/pace.h. A sample of the rate is what was
 * acknowledged while a batch was in flight, divided by that time or by the time it
 * took to send the same, whichever is longer: acknowledgements that come
 * together make no rate that was never sent. Samples of a time when there was too
 * little to send count only if they are greater. Once the path is full, means of whole
 * rounds count in their place. The round trip creeps up with what we queue ourselves:
 * when it was not seen as small for long, less is sent for a while. Batches leave at the
 * rate, not when there is room; what is in flight is bounded besides, by rate and round
 * trip, and by what round trips differ from their own mean: not by what they are more
 * than the least, since a queue of our own would so make itself grow.
 */
#include "rule/pace.h"

#include <math.h>
#include <string.h>

#define US_PER_S		1000000.0
#define START_GAIN		2.9		/* of the window, until the path is full: the
								 * rate can double in each round */
#define FLIGHT_US		8000.0	/* of the round trip for each batch more in flight */
#define BATCHES			8		/* on a path that is longer than they need; */
#define MANY_BATCHES	16		/* ... if all there is to send takes no longer than */
#define SHORT_US		1000000.0	/* ... this: it grows old in a batch */
#define MEAN_ROUNDS		2		/* over which rates are taken */
#define PROBE_ROUNDS	16		/* in the first of them a batch more is in flight: is there
								 * more? and */
#define DRAIN_GAIN		0.9		/* ... in the next one less */
#define MORE			1.04	/* of the rate: there is, so the next one asks again */
#define PROBE_RTT_GAIN	0.5		/* while the round trip is looked for */
#define LESS			0.9		/* of the round trip: it was not one */
#define SAME			1.05	/* times the round trip are as small */
#define OWN_SHARE		0.5		/* of what a batch takes itself: the rest is lost
								 * if the rate is twice what we think */
#define NOISE_SHARE		1.8		/* of the noise, let into the window; */
#define PROBE_NOISE		4.0		/* ... while more is tried */
#define NOISE_OVER		16		/* batches that its mean is taken over */
#define SPACING			1.03	/* of the rate, at which batches leave, */
#define PROBE_SPACING	1.25	/* ... while more is tried */
#define TIMER_US		2000.0	/* they may be later than they should */
#define GROWTH			1.25	/* of the rate, less is none */
#define LATE			1.5		/* times later than estimated */
#define CROWDED			1.75	/* times longer than alone */
#define IN_A_ROW		4		/* of such batches mean something, */
#define ROW_SHARE		0.6		/* ... if they came in more than this share of a round
								 * trip: what delays one delays those behind it */
#define FULL_ROUNDS		3		/* without growth: the path is full */

void
ent_pace_init(EntPace *p, int64_t bandwidth, int64_t now)
{
	memset(p, 0, sizeof(*p));
	p->bandwidth = bandwidth > 0 ? bandwidth : 0;
	p->refilled_at = p->delivered_at = p->first_sent_at = now;
}

double
ent_pace_wire(size_t bytes)
{
	size_t		sent = bytes + 5 + 22 * (1 + bytes / 8192);

	return (double) sent + 52.0 * (double) (1 + sent / 1448);
}

static double
least(double a, double b)
{
	return a < b ? a : b;
}

static double
most(double a, double b)
{
	return a > b ? a : b;
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

/* ---- estimation ---- */

static double
elapsed_since(int64_t then, int64_t now)
{
	return now > then ? (double) (now - then) : 1;
}

/*
 * The rate is known now, and with it what the batch took that showed the round trip. It
 * is that of the best batches, and is believed until there are means of rounds.
 */
static void
fill(EntPace *p)
{
	p->filled = p->probe_due = true;
	p->phase = MEAN_ROUNDS;
	memset(p->rates, 0, sizeof(p->rates));
	p->rates[(p->round + 2 * MEAN_ROUNDS) % ENT_PACE_ROUNDS] = p->rate;
	/* with a budget the path may be much faster than what was seen */
	if (p->bandwidth == 0)
		p->rtt -= least(p->rtt_bytes / p->rate * US_PER_S, p->rtt / 2);
}

/* Do batches take so much longer that they must be waiting for each other? */
static void
look_for_queue(EntPace *p, const EntPaceFlight *f, double elapsed, int64_t now)
{
	if (p->rate == 0 || f->alone ||
		elapsed < CROWDED * (p->rtt + f->bytes / p->rate * US_PER_S + ENT_PACE_BATCH_US))
	{
		p->crowded = 0;
		return;
	}
	if (p->crowded++ == 0)
		p->crowded_since = now;
	if (p->crowded >= IN_A_ROW && elapsed_since(p->crowded_since, now) >= ROW_SHARE * p->rtt)
		fill(p);
}

static void
end_round(EntPace *p)
{
	p->round_end = p->delivered + p->in_flight;
	if (p->filled || !p->round_full)
		return;
	if (p->rate >= GROWTH * p->full_rate)
	{
		p->full_rate = p->rate;
		p->full_rounds = 0;
	}
	else if (++p->full_rounds >= FULL_ROUNDS)
		fill(p);
}

/* A round in which nothing was learned is not one. */
static void
next_round(EntPace *p)
{
	end_round(p);
	if (!p->round_full)
		return;
	p->round_full = false;
	p->round++;
	p->rates[p->round % ENT_PACE_ROUNDS] = 0;
}

/*
 * A round is over. The mean of the last two tells the rate of a full path better than the
 * best of their batches, whose acknowledgements come early or late: what is late in one
 * round makes the next one look fast.
 */
static void
take_round(EntPace *p, int64_t now)
{
	double		mean = (p->delivered - p->before_began) /
		elapsed_since(p->before_began_at, now) * US_PER_S;
	bool		more = p->filled && mean > MORE * p->rate;

	if (p->filled && (p->round_full || mean > p->rate))
		p->rates[p->round % ENT_PACE_ROUNDS] = mean;
	p->phase = more ? 0 : (p->phase + 1) % PROBE_ROUNDS;
	next_round(p);
	p->before_began = p->round_began;
	p->before_began_at = p->round_began_at;
	p->round_began = p->delivered;
	p->round_began_at = now;
}

static void
learn_rate(EntPace *p, const EntPaceFlight *f, int64_t now)
{
	double		took = most(elapsed_since(f->delivered_at, now),
							elapsed_since(f->first_sent_at, f->sent_at));
	double		rate = (p->delivered - f->delivered) / took * US_PER_S;
	double		greatest;
	double	   *best;

	/* it was sent in this round: the last one is over */
	if (f->delivered >= p->round_end)
		take_round(p, now);
	best = &p->rates[p->round % ENT_PACE_ROUNDS];
	p->round_full |= !f->limited;
	if (!p->filled && (!f->limited || rate > p->rate))
		*best = most(*best, rate);
	greatest = 0;
	for (int i = 0; i < ENT_PACE_ROUNDS; i++)
		greatest = most(greatest, p->rates[i]);
	if (greatest > 0)
		p->rate = greatest;
}

/*
 * A round trip that was not seen as small for long may have become longer, or never
 * have been without our own queue: for two of them, and until what was in flight has
 * come, less is sent; the least that is seen then is the round trip. Much less than
 * before, and it is done once more.
 */
static void
probe_rtt(EntPace *p, const EntPaceFlight *f, double rtt, int64_t now)
{
	bool		less;

	if (p->probe_end == 0)
	{
		if (!p->filled || (!p->probe_due && now - p->rtt_at < ENT_PACE_MEMORY_US))
			return;
		p->probe_end = now + (int64_t) (2 * most(p->rtt, p->usual) + ENT_PACE_BATCH_US);
		p->probe_mark = p->delivered + p->in_flight;
		p->probed = rtt;
	}
	p->probed = least(p->probed, rtt);
	if (now < p->probe_end || f->delivered < p->probe_mark)
		return;
	less = p->probed < LESS * p->rtt;
	p->rtt = p->probed;
	p->probe_due = false;
	if (p->usual == 0)
		p->usual = p->rtt;
	p->rtt_at = less ? now - ENT_PACE_MEMORY_US : now;
	p->probe_end = 0;
}

/*
 * What they differ from their mean is the noise; what the mean is more than the least may
 * be our own queue.
 */
static void
learn_noise(EntPace *p, double rtt)
{
	if (p->usual == 0)
		return;
	p->usual += (rtt - p->usual) / NOISE_OVER;
	p->noise += (fabs(rtt - p->usual) - p->noise) / NOISE_OVER;
}

/* Without what the batch itself took, as far as that is known. */
static void
learn_rtt(EntPace *p, const EntPaceFlight *f, int64_t now)
{
	double		elapsed = elapsed_since(f->sent_at, now);
	double		own = p->filled ? OWN_SHARE * f->bytes / p->rate * US_PER_S : 0;
	double		rtt = elapsed - least(own, elapsed / 2);

	if (!p->filled && p->measured)
		look_for_queue(p, f, elapsed, now);
	if (p->filled && p->probe_end == 0)
		learn_noise(p, rtt);
	if (p->measured)
		probe_rtt(p, f, rtt, now);
	if (p->measured && rtt <= SAME * p->rtt)
		p->rtt_at = now;
	if (p->measured ? rtt > p->rtt : !f->alone)
		return;
	p->rtt = rtt;
	p->rtt_bytes = p->filled ? 0 : f->bytes;
	p->rtt_at = now;
	p->measured = true;
}

/* Is it later than it should be acknowledged? Not told from what is not known. */
static bool
is_late(const EntPace *p, const EntPaceFlight *f, int64_t now)
{
	return p->rate > 0 && p->measured &&
		elapsed_since(f->sent_at, now) > LATE *
		(most(p->rtt, p->usual) + ENT_PACE_BATCH_US + f->ahead / p->rate * US_PER_S);
}

/*
 * An acknowledgement that is heard of when a batch has just been made may have come
 * when that began.
 */
static int64_t
may_have_come(const EntPace *p, int64_t now)
{
	bool		busy = now - p->sent_at < p->sent_at - p->began_at;

	return busy ? p->began_at : now;
}

/*
 * So many so late mean that the path is another one, or much slower: what was
 * learned of it is forgotten.
 */
static void
look_for_change(EntPace *p, const EntPaceFlight *f, int64_t now)
{
	if (!is_late(p, f, may_have_come(p, now)))
	{
		p->late = 0;
		return;
	}
	if (p->late == 0)
		p->late_since = now;
	p->late += f->alone ? 2 : 1;
	if (p->late >= IN_A_ROW && elapsed_since(p->late_since, now) >= ROW_SHARE * p->rtt)
	{
		memset(p->rates, 0, sizeof(p->rates));
		p->rate = p->full_rate = p->usual = p->noise = 0;
		p->late = p->full_rounds = p->crowded = 0;
		p->filled = p->measured = p->round_full = false;
		p->probe_end = 0;
	}
}

void
ent_pace_acked(EntPace *p, int64_t now)
{
	EntPaceFlight *f = &p->flights[p->first];

	if (p->count == 0)
		return;
	p->first = (p->first + 1) % ENT_PACE_FLIGHTS;
	p->count--;
	p->in_flight -= f->bytes;
	p->payload -= f->payload;
	if (p->count == 0)
		p->in_flight = 0;
	p->delivered += f->bytes;
	look_for_change(p, f, now);
	learn_rate(p, f, now);
	learn_rtt(p, f, now);
	p->delivered_at = now;
	p->first_sent_at = f->sent_at;
}

/* ---- batches ---- */

/* What we take the path to carry; 0: not known. */
static double
usable_rate(const EntPace *p)
{
	if (p->bandwidth == 0)
		return p->rate;
	return p->rate > 0 ? least(p->rate, (double) p->bandwidth) :
		(double) p->bandwidth;
}

/* What a batch takes on its way, about. */
static double
batch_us(const EntPace *p)
{
	if (p->backlog < usable_rate(p) * SHORT_US / US_PER_S)
		return most(p->rtt / MANY_BATCHES, ENT_PACE_SHORT_US);
	return most(p->rtt / BATCHES, ENT_PACE_BATCH_US);
}

size_t
ent_pace_batch_size(const EntPace *p, size_t max_batch)
{
	double		bytes = least(usable_rate(p) * batch_us(p) / US_PER_S, (double) max_batch);

	if (bytes < ENT_PACE_MIN_BATCH)
		bytes = ENT_PACE_MIN_BATCH;
	return bytes < (double) max_batch ? (size_t) bytes : max_batch;
}

/* Is it a round in which more is tried? */
static bool
probes(const EntPace *p)
{
	return p->filled && p->phase < MEAN_ROUNDS && p->probe_end == 0;
}

static double
gain(const EntPace *p)
{
	if (!p->filled)
		return START_GAIN;
	if (p->probe_end != 0)
		return PROBE_RTT_GAIN;
	return p->phase == MEAN_ROUNDS ? DRAIN_GAIN : 1;
}

/*
 * Bytes that may be in flight, before one more batch goes. One more that is tried is a whole
 * one, though the least batch may take longer than batches should.
 */
static double
window(const EntPace *p)
{
	double		noise = (probes(p) ? PROBE_NOISE : NOISE_SHARE) * p->noise;
	double		us = p->rtt + least(noise, p->rtt + ENT_PACE_BATCH_US);

	return usable_rate(p) * gain(p) * most(us, ENT_PACE_BATCH_US) / US_PER_S +
		(probes(p) ? ent_pace_wire(ent_pace_batch_size(p, SIZE_MAX)) : 0);
}

/* Is there so much to send that it grows old anyway? */
static bool
is_behind(const EntPace *p)
{
	return p->filled && p->backlog >= usable_rate(p) * SHORT_US / US_PER_S;
}

/* Is there room for one more batch? */
static bool
has_room(const EntPace *p, int64_t now)
{
	if (p->count == 0)
		return true;
	/* while the oldest is late nobody knows how slow the path has become */
	if (p->count >= least(ENT_PACE_FLIGHTS, ENT_PACE_SHORT_FLIGHTS + (int) (p->rtt / FLIGHT_US)) ||
		!p->measured ||
		is_late(p, &p->flights[p->first], now))
		return false;
	if (p->count <= (is_behind(p) ? 2 : 1) && p->probe_end == 0)
		return true;
	return p->in_flight <= window(p);
}

/*
 * Acknowledgements come in bunches; batches that left so would wait for each other on
 * the way, and grow old. When may the one after this be made? Who comes a little late,
 * for timers are coarse, makes up for it.
 */
static double
next_due(const EntPace *p, double bytes)
{
	double		rate = usable_rate(p) * (probes(p) ? PROBE_SPACING : SPACING * gain(p));

	if (!p->filled)
		return 0;
	return most(p->due_at, (double) p->began_at - TIMER_US) + bytes / rate * US_PER_S;
}

static void
hold(EntPace *p, int64_t now)
{
	if (p->held_at == 0)
		p->held_at = now;
}

int64_t
ent_pace_wait(EntPace *p, int64_t now, size_t backlog)
{
	double		us = 0;

	repay(p, now);
	p->backlog = backlog;
	if (!has_room(p, now))
	{
		hold(p, now);
		return INT64_MAX;
	}
	if (p->debt > 0)
	{
		/* it is the budget that holds us back, not the path */
		us = p->debt / (double) p->bandwidth * US_PER_S + 1;
		p->limited_until = p->delivered + p->in_flight;
	}
	if (p->count > (is_behind(p) ? 2 : 1) && p->due_at > (double) now)
	{
		hold(p, now);
		us = most(us, p->due_at - (double) now);
	}
	if (p->count > 0 && backlog < ent_pace_batch_size(p, SIZE_MAX))
		us = most(us, (double) (p->sent_at - now) +
				  most(ENT_PACE_GATHER_US, p->rtt / 16));
	if (us > 0)
		return (int64_t) us;
	p->began_at = now;
	p->held = p->held_at != 0 ? elapsed_since(p->held_at, now) : 0;
	return 0;
}

void
ent_pace_sent(EntPace *p, size_t bytes, size_t backlog, int64_t now)
{
	EntPaceFlight *f = &p->flights[(p->first + p->count) % ENT_PACE_FLIGHTS];

	repay(p, now);
	f->bytes = ent_pace_wire(bytes);
	f->payload = bytes;
	if (p->bandwidth > 0)
		p->debt += f->bytes;
	p->due_at = next_due(p, f->bytes);
	f->alone = p->count == 0;
	if (f->alone)
		p->delivered_at = p->first_sent_at = now;
	f->sent_at = p->sent_at = now;
	f->delivered = p->delivered;
	f->delivered_at = p->delivered_at;
	f->first_sent_at = p->first_sent_at;
	p->count++;
	p->in_flight += f->bytes;
	p->payload += bytes;
	if (backlog == 0 && has_room(p, now))
		p->limited_until = p->delivered + p->in_flight;
	f->ahead = p->in_flight;
	/* it took longer to be made than it was held back: the sender is what is slow */
	f->limited = p->limited_until > p->delivered ||
		p->held <= elapsed_since(p->began_at, now);
	p->held_at = 0;
}

bool
ent_pace_has_slot(const EntPace *p)
{
	return p->count < ENT_PACE_FLIGHTS;
}

size_t
ent_pace_in_flight(const EntPace *p)
{
	return p->payload;
}

double
ent_pace_rate(const EntPace *p)
{
	return p->rate;
}

int64_t
ent_pace_rtt(const EntPace *p)
{
	return p->measured ? (int64_t) p->rtt : -1;
}
