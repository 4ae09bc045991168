/*
 * test/sim_pace.c
 *	  A sender with more to say than any link carries, on simulated links.
 *
 * A link is a queue in front of a bottleneck, then half a round trip to the peer,
 * who applies a batch after the other, then half a round trip back and seeded
 * noise that keeps the order. Promised is how much of the link is used, and how
 * long a batch waits in the queue: what an object is older than it need be.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "rule/pace.h"
#include "tap.h"

#define MAX_BATCH	((size_t) 64 << 20)
#define WARM_ROUNDS	60
#define ROUNDS		400

typedef struct Link
{
	const char *name;
	double		rate;			/* bytes/s */
	double		rtt;			/* us */
	double		jitter;			/* mean of the exponential noise, us */
	double		service;		/* us the peer takes per byte */
	double		least;			/* share of the link to be used */
} Link;

typedef struct Run
{
	EntPace		pace;
	size_t		most;			/* bytes there are to send at a time, and */
	size_t		backlog;		/* ... at all */
	double		making;			/* us that a batch needs before it leaves */
	double		storing;		/* us from when the peer has applied one until it answers,
								 * at most; it applies the next one meanwhile */
	Random		random;
	double		now;
	double		link_free;		/* the bottleneck is, from then on */
	double		peer_free;
	double		acked_at;		/* of the batch sent last */
	double		acks[ENT_PACE_FLIGHTS];
	int			first,
				count;
	double		since;
	double		bytes;			/* on the wire, since then */
	double		waited;			/* in queues, since then, us */
	int			batches;
} Run;

static double
later(double a, double b)
{
	return a > b ? a : b;
}

static void
run_start(Run *run, int64_t bandwidth)
{
	memset(run, 0, sizeof(*run));
	run->random.state = 42;
	run->most = run->backlog = MAX_BATCH;
	run->now = 1000;
	ent_pace_init(&run->pace, bandwidth, (int64_t) run->now);
}

static void
send_one(Run *run, const Link *l)
{
	/* how many bytes it will have is a guess before it is packed */
	double		guess = 0.7 + 0.4 * random_unit(&run->random);
	size_t		payload = (size_t) ((double) ent_pace_batch_size(&run->pace, run->most) * guess);
	double		bytes = ent_pace_wire(payload);
	double		noise = -log(1 - random_unit(&run->random)) * l->jitter;
	double		there,
				done;
	double		storing = run->storing > 0 ? run->storing * random_unit(&run->random) : 0;

	run->now += run->making;
	ent_pace_sent(&run->pace, payload, run->backlog, (int64_t) run->now);
	run->waited += later(run->link_free - run->now, 0);
	run->link_free = later(run->now, run->link_free) + bytes / l->rate * 1e6;
	there = run->link_free + l->rtt / 2;
	run->waited += later(run->peer_free - there, 0);
	done = later(there, run->peer_free) + bytes * l->service;
	run->peer_free = done;
	run->acked_at = later(run->acked_at, done + storing + l->rtt / 2 + noise);
	run->acks[(run->first + run->count++) % ENT_PACE_FLIGHTS] = run->acked_at;
	run->bytes += bytes;
	run->batches++;
}

/* Until that time. */
static void
run_for(Run *run, const Link *l, double us)
{
	double		until = run->now + us;

	while (run->now < until)
	{
		int64_t		wait = ent_pace_wait(&run->pace, (int64_t) run->now, run->backlog);
		double		next = run->count > 0 ? run->acks[run->first] : INFINITY;

		if (wait == 0)
		{
			send_one(run, l);
			continue;
		}
		if (wait != INT64_MAX && run->now + (double) wait < next)
		{
			run->now += (double) wait;
			continue;
		}
		run->now = later(run->now, next);
		ent_pace_acked(&run->pace, (int64_t) run->now);
		run->first = (run->first + 1) % ENT_PACE_FLIGHTS;
		run->count--;
	}
}

/* For so many us, once so many have passed. */
static void
measure(Run *run, const Link *l, double after, double us)
{
	run_for(run, l, after);
	run->since = run->now;
	run->bytes = run->waited = 0;
	run->batches = 0;
	run_for(run, l, us);
}

static double
carried(const Link *l)
{
	return 1e6 / later(1e6 / l->rate, l->service);
}

static double
throughput(const Run *run)
{
	return run->bytes / (run->now - run->since) * 1e6;
}

static double
round_time(const Link *l)
{
	return later(l->rtt, ENT_PACE_BATCH_US);
}

/* An eighth of the round trip, or the smallest batch. */
static double
batch_time(const Link *l)
{
	return later(later(l->rtt / 8, ENT_PACE_BATCH_US),
				 ent_pace_wire(ENT_PACE_MIN_BATCH) / carried(l) * 1e6);
}

static const Link links[] = {
	{"64 kbit/s, 200 ms", 8e3, 200e3, 0, 0, 0.95},
	{"64 kbit/s, 200 ms, noisy", 8e3, 200e3, 15e3, 0, 0.9},
	{"64 kbit/s, 600 ms", 8e3, 600e3, 0, 0, 0.95},
	{"64 kbit/s, 600 ms, noisy", 8e3, 600e3, 60e3, 0, 0.85},
	{"256 kbit/s, 200 ms", 32e3, 200e3, 0, 0, 0.95},
	{"1 Mbit/s, 300 ms", 125e3, 300e3, 0, 0, 0.95},
	{"1 Mbit/s, 300 ms, noisy", 125e3, 300e3, 60e3, 0, 0.7},
	{"10 Mbit/s, 50 ms", 1.25e6, 50e3, 0, 0, 0.95},
	{"10 Mbit/s, 50 ms, very noisy", 1.25e6, 50e3, 25e3, 0, 0.65},
	{"100 Mbit/s, 20 ms, noisy", 12.5e6, 20e3, 2e3, 0, 0.92},
	{"1 Gbit/s, 100 ms", 125e6, 100e3, 0, 0, 0.95},
	{"1 Gbit/s, 100 ms, peer applies 2 MB/s", 125e6, 100e3, 5e3, 0.5, 0.92},
	{"1 Gbit/s, 0.3 ms, noisy", 125e6, 300, 100, 0, 0.97},
	{"local, peer applies 2 MB/s, noisy", 1e9, 100, 50, 0.5, 0.97},
	{"9.6 kbit/s, 100 ms", 1200, 100e3, 0, 0, 0.9},
};

#define NLINKS	(sizeof(links) / sizeof(links[0]))

static void
links_are_used(void)
{
	tap_promise("pace: a link is used, and no batch waits longer in a queue than "
				"two and a half of them take, and what the noise is");
	for (size_t i = 0; i < NLINKS; i++)
	{
		const Link *l = &links[i];
		Run			run;
		double		share,
					waited;

		run_start(&run, 0);
		measure(&run, l, WARM_ROUNDS * round_time(l), ROUNDS * round_time(l));
		share = throughput(&run) / carried(l);
		waited = run.waited / run.batches;
		tap_note("%-40s used %5.1f %%, in queues %.0f us (%.2f batches), rate %.2f, "
				 "round trip %.2f of the truth", l->name, 100 * share, waited,
				 waited / batch_time(l), ent_pace_rate(&run.pace) / carried(l),
				 (double) ent_pace_rtt(&run.pace) / l->rtt);
		CHECK_CASE(share >= l->least, l->name);
		CHECK_CASE(waited <= 2.5 * batch_time(l) + 2 * l->jitter, l->name);
	}
}

typedef struct Change
{
	const char *name;
	Link		before;
	Link		after;
} Change;

static const Change changes[] = {
	{"ten times slower", {"", 1.25e6, 100e3, 0, 0, 0}, {"", 125e3, 100e3, 0, 0, 0.85}},
	{"ten times faster", {"", 125e3, 100e3, 0, 0, 0}, {"", 1.25e6, 100e3, 0, 0, 0.5}},
	{"onto a satellite", {"", 1.25e6, 20e3, 0, 0, 0}, {"", 125e3, 600e3, 0, 0, 0.85}},
	{"off a satellite", {"", 125e3, 600e3, 0, 0, 0}, {"", 1.25e6, 20e3, 0, 0, 0.5}},
	{"shorter", {"", 1.25e6, 200e3, 0, 0, 0}, {"", 1.25e6, 20e3, 0, 0, 0.85}},
};

#define NCHANGES	(sizeof(changes) / sizeof(changes[0]))

static void
changes_are_followed(void)
{
	tap_promise("pace: a path that changes is followed within a minute");
	for (size_t i = 0; i < NCHANGES; i++)
	{
		const Change *c = &changes[i];
		Run			run;
		double		share,
					waited;

		run_start(&run, 0);
		run_for(&run, &c->before, 30e6);
		measure(&run, &c->after, 60e6, 30e6);
		share = throughput(&run) / carried(&c->after);
		waited = run.waited / run.batches;
		tap_note("%-20s used %5.1f %%, in queues %.0f us", c->name, 100 * share, waited);
		CHECK_CASE(share >= c->after.least, c->name);
		CHECK_CASE(waited <= 3 * batch_time(&c->after), c->name);
	}
}

/* Is that share of the link used, and does a batch wait less than so many of them take? */
static void
check_use(const Run *run, const Link *l, double share, double batches)
{
	double		waited = run->waited / run->batches;

	tap_note("used %.1f %%, %.0f us a batch, in queues %.0f us", 100 * throughput(run) / carried(l),
			 run->bytes / run->batches / carried(l) * 1e6, waited);
	CHECK(throughput(run) > share * carried(l));
	CHECK(waited < batches * batch_time(l));
}

static void
sudden_ends_are_noticed(void)
{
	Link		before = {"", 1.25e7, 300, 0, 0, 0},
				after = {"", 8e3, 200e3, 10e3, 0, 0};
	Run			run;

	tap_promise("pace: a hundred hot rows on a path that becomes 1500 times "
				"slower fill it, and no more, ten seconds later");
	run_start(&run, 0);
	run.most = 3000;
	run_for(&run, &before, 10e6);
	measure(&run, &after, 10e6, 30e6);
	check_use(&run, &after, 0.85, 2);
}

/* What fits into a batch leaves together, so what is first in it grows old. */
static void
little_goes_in_short_batches(void)
{
	Link		l = {"", 32e3, 200e3, 2e3, 0, 0};
	Run			run;

	tap_promise("pace: of a few hot rows a batch takes less than a tenth of the round "
				"trip, and the link is used");
	run_start(&run, 0);
	run.backlog = 2500;
	measure(&run, &l, 20e6, 60e6);
	tap_note("used %.1f %%, %.0f us a batch, in queues %.0f us", 100 * throughput(&run) / carried(&l),
			 run.bytes / run.batches / l.rate * 1e6, run.waited / run.batches);
	CHECK(throughput(&run) > 0.9 * carried(&l));
	CHECK(run.bytes / run.batches / l.rate * 1e6 < 0.1 * l.rtt);
	CHECK(run.waited / run.batches < 0.1 * l.rtt);
}

/* Its first sample may have had a queue in it, of ours or of others'. */
static void
wrong_round_trips_are_found_out(void)
{
	Link		l = {"", 8e3, 200e3, 10e3, 0, 0};
	Run			run;

	tap_promise("pace: a round trip that was measured too long, and the queue that "
				"comes of it, are gone half a minute later");
	run_start(&run, 0);
	run_for(&run, &l, 10e6);
	run.pace.rtt = 2.5 * l.rtt;
	measure(&run, &l, 30e6, 30e6);
	check_use(&run, &l, 0.9, 2);
}

/* In batches of the least size, of which few are in flight. */
static void
wrong_rates_are_found_out(void)
{
	Link		l = {"", 8e3, 213e3, 1e3, 0, 0};
	Run			run;

	tap_promise("pace: a rate that was measured too small is found out half a minute "
				"later, on a path without noise as well");
	run_start(&run, 0);
	run.most = run.backlog = 4000;
	run_for(&run, &l, 10e6);
	for (int i = 0; i < ENT_PACE_ROUNDS; i++)
		run.pace.rates[i] *= 0.75;
	run.pace.rate *= 0.75;
	measure(&run, &l, 30e6, 30e6);
	check_use(&run, &l, 0.9, 2);
}

/* A batch is being made, one is applied, and one is brought to the disk. */
static void
peers_that_store_are_kept_busy(void)
{
	Link		l = {"", 1e9, 300, 0, 0.05, 0};
	Run			run;

	tap_promise("pace: with much to send, a peer that answers only once a batch is stored "
				"is kept busy");
	run_start(&run, 0);
	run.making = 15e3;
	run.storing = 30e3;
	measure(&run, &l, 5e6, 20e6);
	check_use(&run, &l, 0.95, 3);
}

/* Who takes long to make a batch, of any size, makes it no shorter for that. */
static void
slow_senders_are_told_from_slow_links(void)
{
	Link		l = {"", 1.25e7, 1e3, 0, 0, 0};
	Run			run;

	tap_promise("pace: a sender that needs 60 ms for a batch still sends large ones");
	run_start(&run, 0);
	run_for(&run, &l, 5e6);
	run.making = 60e3;
	measure(&run, &l, 30e6, 30e6);
	tap_note("batches of %.0f bytes", run.bytes / run.batches);
	CHECK(run.bytes / run.batches > 0.7 * l.rate * ENT_PACE_BATCH_US / 1e6);
}

static void
bandwidth_is_kept(void)
{
	tap_promise("pace: a configured bandwidth is used and not exceeded, with all "
				"that protocols add");
	for (int64_t bandwidth = 2000; bandwidth <= 2000000; bandwidth *= 10)
	{
		Link		l = {"", 1.25e7, 50e3, 5e3, 0, 0};
		Run			run;
		char		name[32];
		double		share;

		snprintf(name, sizeof(name), "%d bytes/s", (int) bandwidth);
		run_start(&run, bandwidth);
		measure(&run, &l, 10e6, 60e6);
		share = throughput(&run) / (double) bandwidth;
		tap_note("%s: used %.3f", name, share);
		CHECK_CASE(share > 0.93 && share < 1.03, name);
	}
}

int
main(void)
{
	links_are_used();
	changes_are_followed();
	sudden_ends_are_noticed();
	little_goes_in_short_batches();
	wrong_round_trips_are_found_out();
	wrong_rates_are_found_out();
	peers_that_store_are_kept_busy();
	slow_senders_are_told_from_slow_links();
	bandwidth_is_kept();
	return tap_done();
}
