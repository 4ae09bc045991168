/*
 * test/unit_pace.c
 *	  Promises of rule/pace.h that need no link; sim_pace.c has the others.
 */
#include <stdio.h>

#include "rule/pace.h"
#include "tap.h"

#define MAX_BATCH	((size_t) 1 << 20)

static void
exchange(EntPace *p, int64_t *now, size_t bytes, int64_t elapsed)
{
	ent_pace_sent(p, bytes, *now);
	*now += elapsed;
	ent_pace_acked(p, bytes, *now);
}

static void
check_start(void)
{
	EntPace		p;
	int64_t		now = 5000000;
	size_t		want = ENT_PACE_MIN_BATCH;

	tap_promise("pace: a new link starts with the smallest batch and at most "
				"doubles it");
	ent_pace_init(&p, 0, now);
	CHECK(ent_pace_rate(&p) == 0 && ent_pace_rtt(&p) == -1);
	CHECK(ent_pace_wait(&p, now) == 0);
	for (int i = 0; i < 20; i++)
	{
		size_t		size = ent_pace_batch_size(&p, MAX_BATCH);

		CHECK(size >= ENT_PACE_MIN_BATCH && size <= want);
		want = size * 2 > want ? size * 2 : want;
		exchange(&p, &now, size, 100000);
	}
	CHECK(want >= MAX_BATCH);
}

static void
check_estimates(void)
{
	EntPace		p;
	int64_t		now = 0;

	tap_promise("pace: two sizes are enough to tell rate and round trip "
				"apart, noise only adds");
	ent_pace_init(&p, 0, now);
	exchange(&p, &now, 10000, 50000 + 10000);
	exchange(&p, &now, 20000, 50000 + 20000);
	CHECK(ent_pace_rtt(&p) == 50000);
	CHECK(ent_pace_rate(&p) > 999999 && ent_pace_rate(&p) < 1000001);
	exchange(&p, &now, 15000, 50000 + 15000 + 9999);
	CHECK(ent_pace_rtt(&p) == 50000);
	for (int i = 0; i < 100; i++)
		exchange(&p, &now, 200, 50000 + 200);
	CHECK(ent_pace_rtt(&p) >= 49999 && ent_pace_rtt(&p) <= 50001);
	CHECK(ent_pace_rate(&p) > 999000 && ent_pace_rate(&p) < 1001000);
}

static void
check_limits(void)
{
	EntPace		p;
	int64_t		now = 0;

	tap_promise("pace: a batch is never larger than allowed, and never "
				"smaller than the least unless that is not allowed");
	ent_pace_init(&p, 0, now);
	CHECK(ent_pace_batch_size(&p, 100) == 100);
	exchange(&p, &now, 1000000, 1000000);
	exchange(&p, &now, 2000000, 1000001);
	CHECK(ent_pace_batch_size(&p, 5000) == 5000);
	exchange(&p, &now, 1, 1);
	CHECK(ent_pace_batch_size(&p, MAX_BATCH) >= ENT_PACE_MIN_BATCH);
	exchange(&p, &now, 0, 0);
	CHECK(ent_pace_batch_size(&p, MAX_BATCH) >= ENT_PACE_MIN_BATCH);
}

static void
check_strays(void)
{
	EntPace		p;
	EntPace		before;
	int64_t		now = 1000;

	tap_promise("pace: an acknowledgement of nothing changes nothing, a clock "
				"that goes back does no harm");
	ent_pace_init(&p, 1000, now);
	before = p;
	ent_pace_acked(&p, 5000, now + 5);
	CHECK(p.batches == before.batches && ent_pace_rtt(&p) == -1);
	ent_pace_sent(&p, 5000, now);
	ent_pace_acked(&p, 5000, now - 900);
	CHECK(ent_pace_rtt(&p) == 1);
	CHECK(ent_pace_wait(&p, now - 900) > 0);
	CHECK(ent_pace_wait(&p, now + 6000000) == 0);
}

/* Sends full batches for a while on an instant link; returns bytes sent. */
static double
send_for(EntPace *p, int64_t *now, int64_t us)
{
	int64_t		end = *now + us;
	double		bytes = 0;

	while (*now < end)
	{
		size_t		size = ent_pace_batch_size(p, MAX_BATCH);
		int64_t		wait;

		exchange(p, now, size, 500);
		bytes += (double) size;
		wait = ent_pace_wait(p, *now);
		CHECK(wait >= 0 && ent_pace_wait(p, *now + wait) == 0);
		CHECK(wait == 0 || ent_pace_wait(p, *now + wait - 2) >= 0);
		*now += wait;
	}
	return bytes;
}

static void
check_bandwidth(void)
{
	static const int64_t bandwidths[] = {1200, 8000, 1000000, 100000000};
	EntPace		p;
	int64_t		now = 0;

	tap_promise("pace: a configured bandwidth is used up and never exceeded, "
				"after idling neither");
	for (size_t i = 0; i < sizeof(bandwidths) / sizeof(bandwidths[0]); i++)
	{
		double		bytes;
		double		allowed = (double) bandwidths[i] * 60;

		ent_pace_init(&p, bandwidths[i], now);
		now += 3600000000;
		bytes = send_for(&p, &now, 60000000);
		CHECK(bytes <= allowed + ENT_PACE_MIN_BATCH + allowed / 200);
		CHECK(bytes >= allowed * 0.98);
	}
	ent_pace_init(&p, 1000, now);
	exchange(&p, &now, 5000, 1000000);
	exchange(&p, &now, 3000, 1000000);
	CHECK(ent_pace_wait(&p, now) > 5990000);
	ent_pace_set_bandwidth(&p, 0, now);
	ent_pace_sent(&p, 100000000, now);
	CHECK(ent_pace_wait(&p, now) == 0);
}

static void
check_bandwidth_changes(void)
{
	EntPace		p;

	tap_promise("pace: a changed bandwidth counts from the change on");
	ent_pace_init(&p, 1000, 0);
	ent_pace_sent(&p, 10000, 0);
	CHECK(ent_pace_wait(&p, 0) > 9999000);
	ent_pace_set_bandwidth(&p, 5000, 5000000);
	CHECK(ent_pace_wait(&p, 5000000) > 999000);
	CHECK(ent_pace_wait(&p, 5000000) < 1001000);
	ent_pace_set_bandwidth(&p, 0, 5000000);
	CHECK(ent_pace_wait(&p, 5000000) == 0);
	ent_pace_set_bandwidth(&p, -5, 5000000);
	CHECK(ent_pace_wait(&p, 5000000) == 0);
}

static void
check_long_trips(void)
{
	EntPace		p;
	int64_t		now = 0;

	tap_promise("pace: a configured bandwidth is used up over a long round "
				"trip as well");
	ent_pace_init(&p, 20000, now);
	for (int i = 0; i < 40; i++)
	{
		size_t		size = ent_pace_batch_size(&p, MAX_BATCH);

		CHECK(size <= 24100);
		exchange(&p, &now, size, 600000 + (int64_t) size);
		now += ent_pace_wait(&p, now);
	}
	CHECK(ent_pace_batch_size(&p, MAX_BATCH) > 10000);
}

int
main(void)
{
	check_start();
	check_estimates();
	check_limits();
	check_strays();
	check_bandwidth();
	check_bandwidth_changes();
	check_long_trips();
	return tap_done();
}
