/*
 * test/sim_pace.c
 *	  A sender with more to say than any link carries, on simulated links.
 *
 * A batch of b bytes is acknowledged round trip + b / rate after it left,
 * plus seeded noise. With one batch in flight a link of rate R and round trip
 * T is used at w / (w + 1) at most when w R T bytes are in flight: a law, not
 * a property of ours. So what is promised here is 90 % of that for w = 2,
 * and no more in flight than w says.
 */
#include <math.h>
#include <stdio.h>

#include "rule/pace.h"
#include "tap.h"

#define MAX_BATCH	((size_t) 64 << 20)

typedef struct Link
{
	const char *name;
	double		rate;			/* bytes/s */
	double		rtt;			/* us */
	double		jitter;			/* mean of the exponential noise, us */
	double		service;		/* us the peer takes per byte */
} Link;

/* bytes/s the link and the peer behind it carry */
static double
carried(const Link *l)
{
	return 1e6 / (1e6 / l->rate + l->service);
}

static double
bdp(const Link *l)
{
	return carried(l) * l->rtt / 1e6;
}

typedef struct Run
{
	EntPace		pace;
	Random		random;
	int64_t		now;
	int64_t		since;			/* measuring began */
	double		bytes;			/* sent since then */
	size_t		greatest;		/* batch since then */
	int			batches;		/* since then */
} Run;

static void
run_start(Run *run, int64_t bandwidth)
{
	run->random.state = 42;
	run->now = 1000;
	ent_pace_init(&run->pace, bandwidth, run->now);
}

static void
measure_from_here(Run *run)
{
	run->bytes = 0;
	run->since = run->now;
	run->greatest = 0;
	run->batches = 0;
}

static void
send_one(Run *run, const Link *l, size_t bytes)
{
	double		noise = -log(1 - random_unit(&run->random)) * l->jitter;

	run->now += ent_pace_wait(&run->pace, run->now);
	ent_pace_sent(&run->pace, bytes, run->now);
	run->now += (int64_t) (l->rtt + (double) bytes / carried(l) * 1e6 + noise);
	ent_pace_acked(&run->pace, bytes, run->now);
	run->bytes += (double) bytes;
	run->batches++;
	if (bytes > run->greatest)
		run->greatest = bytes;
}

static void
send_full(Run *run, const Link *l, int batches)
{
	for (int i = 0; i < batches; i++)
		send_one(run, l, ent_pace_batch_size(&run->pace, MAX_BATCH));
}

static double
throughput(const Run *run)
{
	return run->bytes / ((double) (run->now - run->since) / 1e6);
}

/* Share of the link that one window in flight at a time can use. */
static double
attainable(const Link *l)
{
	double		w = ENT_PACE_WINDOW * bdp(l);

	if (w < ENT_PACE_MIN_BATCH)
		w = ENT_PACE_MIN_BATCH;
	return w / (w + carried(l) * (l->rtt + l->jitter) / 1e6);
}

static const Link links[] = {
	{"64 kbit/s, 600 ms", 8e3, 600e3, 0, 0},
	{"64 kbit/s, 600 ms, noisy", 8e3, 600e3, 60e3, 0},
	{"1 Mbit/s, 300 ms", 125e3, 300e3, 0, 0},
	{"1 Mbit/s, 300 ms, noisy", 125e3, 300e3, 60e3, 0},
	{"10 Mbit/s, 50 ms", 1.25e6, 50e3, 0, 0},
	{"10 Mbit/s, 50 ms, very noisy", 1.25e6, 50e3, 25e3, 0},
	{"100 Mbit/s, 20 ms, noisy", 12.5e6, 20e3, 2e3, 0},
	{"1 Gbit/s, 100 ms", 125e6, 100e3, 0, 0},
	{"1 Gbit/s, 100 ms, peer applies 2 MB/s", 125e6, 100e3, 5e3, 0.5},
	{"1 Gbit/s, 0.3 ms, noisy", 125e6, 300, 100, 0},
	{"local, peer applies 2 MB/s, noisy", 1e9, 100, 50, 0.5},
	{"9.6 kbit/s, 100 ms", 1200, 100e3, 0, 0},
};

#define NLINKS	(sizeof(links) / sizeof(links[0]))

/*
 * In flight at once, in windows of the link as it is: the greatest batch on a
 * quiet link; the average on a noisy one, and where the smallest batch is more
 * than a window, so that all are of one size but for a probe now and then.
 */
static double
windows_in_flight(const Run *run, const Link *l)
{
	double		window = ENT_PACE_WINDOW * carried(l) *
		(l->rtt + l->jitter) / 1e6;
	bool		small = window < ENT_PACE_MIN_BATCH;
	double		average = run->bytes / run->batches;

	if (small)
		window = ENT_PACE_MIN_BATCH;
	return (small || l->jitter > 0 ? average : (double) run->greatest) /
		window;
}

static void
links_are_used(void)
{
	tap_promise("pace: one batch of two bandwidth-delay products in flight "
				"at a time uses a link at 90 % of what is possible that way, "
				"with no more in flight");
	for (size_t i = 0; i < NLINKS; i++)
	{
		const Link *l = &links[i];
		Run			run;
		double		share;

		run_start(&run, 0);
		send_full(&run, l, 40);
		measure_from_here(&run);
		send_full(&run, l, 2000);
		share = throughput(&run) / carried(l);
		tap_note("%-40s used %5.1f %% of possible %5.1f %%, windows in "
				 "flight %.2f, rate %.2f, round trip %.2f of the truth",
				 l->name, 100 * share, 100 * attainable(l),
				 windows_in_flight(&run, l),
				 ent_pace_rate(&run.pace) / carried(l),
				 (double) ent_pace_rtt(&run.pace) / l->rtt);
		CHECK_CASE(share >= 0.9 * attainable(l), l->name);
		CHECK_CASE(windows_in_flight(&run, l) <= 1.1, l->name);
	}
}

typedef struct Change
{
	const char *name;
	Link		before;
	Link		after;
	int			batches;		/* within which the new window is found */
} Change;

static const Change changes[] = {
	{"ten times slower", {"", 1.25e6, 100e3, 0, 0}, {"", 125e3, 100e3, 0, 0}, 8},
	{"ten times faster", {"", 125e3, 100e3, 0, 0}, {"", 1.25e6, 100e3, 0, 0}, 24},
	{"onto a satellite", {"", 1.25e6, 20e3, 0, 0}, {"", 125e3, 600e3, 0, 0}, 24},
	{"off a satellite", {"", 125e3, 600e3, 0, 0}, {"", 1.25e6, 20e3, 0, 0}, 24},
	{"longer", {"", 1.25e6, 20e3, 0, 0}, {"", 1.25e6, 200e3, 0, 0}, 24},
	{"shorter", {"", 1.25e6, 200e3, 0, 0}, {"", 1.25e6, 20e3, 0, 0}, 24},
	{"slower, noisy", {"", 1.25e6, 100e3, 5e3, 0}, {"", 125e3, 100e3, 5e3, 0}, 8},
	{"faster, noisy", {"", 125e3, 100e3, 5e3, 0}, {"", 1.25e6, 100e3, 5e3, 0}, 24},
};

#define NCHANGES	(sizeof(changes) / sizeof(changes[0]))

static void
changes_are_followed(void)
{
	tap_promise("pace: a path that changes is followed within 24 batches, "
				"one that becomes slower within 8");
	for (size_t i = 0; i < NCHANGES; i++)
	{
		const Change *c = &changes[i];
		Run			run;
		double		windows;

		run_start(&run, 0);
		send_full(&run, &c->before, 100);
		send_full(&run, &c->after, c->batches);
		measure_from_here(&run);
		send_full(&run, &c->after, 8);
		windows = run.bytes / run.batches /
			(ENT_PACE_WINDOW * bdp(&c->after));
		tap_note("%-20s windows in flight after %d batches: %.2f", c->name,
				 c->batches, windows);
		CHECK_CASE(windows > 0.6 && windows < 1.5, c->name);
	}
}

int
main(void)
{
	links_are_used();
	changes_are_followed();
	return tap_done();
}
