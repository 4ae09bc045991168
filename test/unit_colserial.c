/*
 * test/unit_colserial.c
 *	  Promises of rule/colserial.h.
 */
#include <stdio.h>
#include <string.h>

#include "rule/colserial.h"
#include "tap.h"

#define MAX_ATTS	1600

static void
check_round_trips(void)
{
	static int64_t in[MAX_ATTS],
				out[MAX_ATTS];
	static uint8_t buf[ENT_COLSERIAL_MAX_BYTES(MAX_ATTS)];
	Random		r = {2};

	tap_promise("colserial: what was packed is unpacked");
	for (int round = 0; round < 3000; round++)
	{
		int			natts = (int) random_below(&r, round % 100 == 0 ?
											   MAX_ATTS + 1 : 40);
		int64_t		serial = (int64_t) (random_any_size(&r) >> 1);
		int64_t		born = (int64_t) random_below(&r, (uint64_t) serial + 1);
		size_t		len;

		for (int i = 0; i < natts; i++)
			in[i] = random_below(&r, 2) ? born : born +
				(int64_t) random_below(&r, (uint64_t) (serial - born) + 1);
		len = ent_colserial_pack(in, natts, serial, born, buf);
		CHECK(len <= ENT_COLSERIAL_MAX_BYTES(natts));
		CHECK(ent_colserial_unpack(buf, len, serial, born, out, natts));
		CHECK(memcmp(in, out, (size_t) natts * sizeof(int64_t)) == 0);
	}
}

static void
check_short_vectors(void)
{
	int64_t		in[4] = {5, 9, 5, 5};
	int64_t		out[6];
	uint8_t		buf[ENT_COLSERIAL_MAX_BYTES(4)];
	size_t		len;

	tap_promise("colserial: columns that never changed take no bytes, columns "
				"added later count as of birth, dropped ones do no harm");
	len = ent_colserial_pack(in, 4, 9, 5, buf);
	CHECK(len == 2);
	CHECK(ent_colserial_unpack(buf, len, 9, 5, out, 6));
	CHECK(out[0] == 5 && out[1] == 9 && out[2] == 5 && out[5] == 5);
	CHECK(ent_colserial_unpack(buf, len, 9, 5, out, 1));
	CHECK(out[0] == 5);
	CHECK(ent_colserial_unpack(NULL, 0, 9, 5, out, 6) && out[3] == 5);
	CHECK(ent_colserial_pack(in, 0, 9, 5, buf) == 0);
}

static void
check_clamped(void)
{
	int64_t		in[3] = {100, -7, 3};
	int64_t		out[3];
	uint8_t		buf[ENT_COLSERIAL_MAX_BYTES(3)];
	size_t		len = ent_colserial_pack(in, 3, 9, 3, buf);

	tap_promise("colserial: what is newer than its object is as new as it");
	CHECK(ent_colserial_unpack(buf, len, 9, 3, out, 3));
	CHECK(out[0] == 9 && out[1] == 0 && out[2] == 3);
}

static void
check_damage(void)
{
	static const struct
	{
		const char *name;
		const char *bytes;
		size_t		len;
	}			cases[] = {
		{"cut number", "\x01\x80", 2},
		{"number written too long", "\x80\x00", 2},
		{"older than time", "\x0a", 1},
		{"overflow", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10},
		{"endless", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11},
		{"damage behind what is asked for", "\x00\x00\x00\x80", 4},
	};

	tap_promise("colserial: damaged bytes count as changed just now");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		int64_t		out[2] = {-1, -1};

		CHECK_CASE(!ent_colserial_unpack((const uint8_t *) cases[i].bytes,
										 cases[i].len, 9, 3, out, 2),
				   cases[i].name);
		CHECK_CASE(out[0] == 9 && out[1] == 9, cases[i].name);
	}
}

static void
check_base(void)
{
	static const struct
	{
		const char *name;
		int64_t		since,
					base;
	}			cases[] = {
		{"before all", 2, 0},
		{"at one", 3, 3},
		{"between", 6, 5},
		{"after all", 100, 9},
	};
	const int64_t in[4] = {5, 9, 3, 5};

	tap_promise("colserial: a delta fits on the newest version whose columns "
				"are not in it");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		CHECK_CASE(ent_colserial_base(in, 4, cases[i].since) == cases[i].base,
				   cases[i].name);
	CHECK(ent_colserial_base(in, 0, 50) == 0);
}

int
main(void)
{
	check_round_trips();
	check_short_vectors();
	check_clamped();
	check_damage();
	check_base();
	return tap_done();
}
