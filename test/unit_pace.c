/*
 * test/unit_pace.c
 *	  Promises of rule/pace.h that need no link; sim_pace.c has the others.
 */
#include <stdio.h>

#include "rule/pace.h"
#include "tap.h"

#define MAX_BATCH	((size_t) 1 << 20)
#define PLENTY		((size_t) 1 << 30)

/* One batch, and its acknowledgement. */
static void
exchange(EntPace *p, int64_t *now, size_t bytes, int64_t elapsed)
{
	ent_pace_sent(p, bytes, PLENTY, *now);
	*now += elapsed;
	ent_pace_acked(p, *now);
}

static void
check_start(void)
{
	EntPace		p;
	int64_t		now = 5000000;

	tap_promise("pace: a new link starts with the smallest batch, and what it is "
				"sent grows as fast as what it carries");
	ent_pace_init(&p, 0, now);
	CHECK(ent_pace_rate(&p) == 0 && ent_pace_rtt(&p) == -1);
	CHECK(ent_pace_wait(&p, now, PLENTY) == 0);
	CHECK(ent_pace_batch_size(&p, MAX_BATCH) == ENT_PACE_MIN_BATCH);
	exchange(&p, &now, 200, 100000);
	CHECK(ent_pace_rtt(&p) == 100000);
	for (int round = 0; round < 12; round++)
	{
		int			n = 0;

		for (; ent_pace_wait(&p, now, PLENTY) == 0; n++)
			ent_pace_sent(&p, ent_pace_batch_size(&p, MAX_BATCH), PLENTY, now);
		CHECK(n >= 2 && n <= ENT_PACE_FLIGHTS);
		now += 100000;
		for (; n > 0; n--)
			ent_pace_acked(&p, now);
	}
	CHECK(ent_pace_rate(&p) > 1e6);
}

static void
check_limits(void)
{
	EntPace		p;
	int64_t		now = 0;
	int			n = 0;

	tap_promise("pace: a batch is never larger than allowed, and never smaller than "
				"the least unless that is not allowed; nor are there too many");
	ent_pace_init(&p, 0, now);
	CHECK(ent_pace_batch_size(&p, 100) == 100);
	exchange(&p, &now, 1000000, 1000);
	CHECK(ent_pace_batch_size(&p, 5000) == 5000);
	exchange(&p, &now, 1, 1);
	CHECK(ent_pace_batch_size(&p, MAX_BATCH) >= ENT_PACE_MIN_BATCH);
	exchange(&p, &now, 0, 0);
	CHECK(ent_pace_batch_size(&p, MAX_BATCH) >= ENT_PACE_MIN_BATCH);
	for (; ent_pace_wait(&p, now, PLENTY) == 0; n++)
		ent_pace_sent(&p, 1, PLENTY, now);
	CHECK(n == ENT_PACE_SHORT_FLIGHTS);
	CHECK(ent_pace_wait(&p, now, PLENTY) == INT64_MAX);
	for (; ent_pace_has_slot(&p); n++)
		ent_pace_sent(&p, 1, PLENTY, now);
	CHECK(ent_pace_in_flight(&p) == ENT_PACE_FLIGHTS);
	for (; n > 0; n--)
		ent_pace_acked(&p, now += 10);
	CHECK(ent_pace_in_flight(&p) == 0);
	CHECK(ent_pace_wait(&p, now, PLENTY) == 0);
}

static void
check_strays(void)
{
	EntPace		p;
	int64_t		now = 1000;

	tap_promise("pace: an acknowledgement of nothing changes nothing, a clock "
				"that goes back does no harm");
	ent_pace_init(&p, 1000, now);
	ent_pace_acked(&p, now + 5);
	CHECK(p.delivered == 0 && ent_pace_rtt(&p) == -1);
	ent_pace_sent(&p, 5000, 0, now);
	ent_pace_acked(&p, now - 900);
	CHECK(ent_pace_rtt(&p) == 1);
	CHECK(ent_pace_wait(&p, now - 900, PLENTY) > 0);
	CHECK(ent_pace_wait(&p, now + 6000000, PLENTY) == 0);
}

static void
check_gathering(void)
{
	EntPace		p;
	int64_t		now = 0;

	tap_promise("pace: a little goes at once when nothing is in flight, else "
				"waits for more, not for long");
	ent_pace_init(&p, 0, now);
	exchange(&p, &now, 1000, 100000);
	CHECK(ent_pace_wait(&p, now, 1) == 0);
	ent_pace_sent(&p, 1, 0, now);
	CHECK(ent_pace_wait(&p, now, 1) > 0);
	CHECK(ent_pace_wait(&p, now, 1) <= 100000 / 16);
	CHECK(ent_pace_wait(&p, now, PLENTY) == 0);
	CHECK(ent_pace_wait(&p, now + 100000 / 16, 1) == 0);
	ent_pace_acked(&p, now + 1000);
	CHECK(ent_pace_wait(&p, now + 1000, 1) == 0);
}

static void
check_scarcity(void)
{
	EntPace		p;
	int64_t		now = 0;
	double		rate;

	tap_promise("pace: that there was little to send says nothing of the path");
	ent_pace_init(&p, 0, now);
	for (int i = 0; i < 40; i++)
		exchange(&p, &now, 100000, 50000 + 100000);
	rate = ent_pace_rate(&p);
	CHECK(rate > 0.6e6);
	for (int i = 0; i < 1000; i++)
	{
		ent_pace_sent(&p, 100, 0, now);
		ent_pace_acked(&p, now += 50000 + 100);
	}
	CHECK(ent_pace_rate(&p) == rate);
}

static void
check_bandwidth(void)
{
	static const int64_t bandwidths[] = {1200, 8000, 1000000, 100000000};
	EntPace		p;
	int64_t		now = 0;

	tap_promise("pace: a configured bandwidth is used up and never exceeded, with "
				"what protocols add; after idling neither");
	for (size_t i = 0; i < sizeof(bandwidths) / sizeof(bandwidths[0]); i++)
	{
		double		bytes = 0;
		double		allowed = (double) bandwidths[i] * 60;

		ent_pace_init(&p, bandwidths[i], now);
		now += 3600000000;
		for (int64_t end = now + 60000000; now < end;)
		{
			int64_t		wait = ent_pace_wait(&p, now, PLENTY);

			if (wait > 0)
			{
				CHECK(wait != INT64_MAX);
				CHECK(ent_pace_wait(&p, now + wait, PLENTY) == 0);
				now += wait;
				continue;
			}
			bytes += ent_pace_wire(ent_pace_batch_size(&p, MAX_BATCH));
			exchange(&p, &now, ent_pace_batch_size(&p, MAX_BATCH), 500);
		}
		CHECK(bytes <= allowed + 2 * ENT_PACE_MIN_BATCH + allowed / 100);
		CHECK(bytes >= allowed * 0.97);
	}
}

static void
check_bandwidth_changes(void)
{
	EntPace		p;

	tap_promise("pace: a changed bandwidth counts from the change on");
	ent_pace_init(&p, 1000, 0);
	ent_pace_sent(&p, 10000, PLENTY, 0);
	ent_pace_acked(&p, 1);
	CHECK(ent_pace_wait(&p, 0, PLENTY) > 9999000);
	ent_pace_set_bandwidth(&p, 5000, 5000000);
	CHECK(ent_pace_wait(&p, 5000000, PLENTY) > 999000);
	CHECK(ent_pace_wait(&p, 5000000, PLENTY) < 1200000);
	ent_pace_set_bandwidth(&p, 0, 5000000);
	CHECK(ent_pace_wait(&p, 5000000, PLENTY) == 0);
	ent_pace_set_bandwidth(&p, -5, 5000000);
	CHECK(ent_pace_wait(&p, 5000000, PLENTY) == 0);
}

int
main(void)
{
	check_start();
	check_limits();
	check_strays();
	check_gathering();
	check_scarcity();
	check_bandwidth();
	check_bandwidth_changes();
	return tap_done();
}
