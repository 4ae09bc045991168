/*
 * test/unit_wire.c
 *	  Promises of rule/wire.h: numbers, bytes, sections. What is in the
 *	  sections is tested in unit_section.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "rule/wire.h"
#include "tap.h"

static AllocState memory;

/* A reader of a copy of exactly this size, so that a sanitizer sees more. */
static uint8_t *
read_copy(EntReader *r, const void *data, size_t len)
{
	uint8_t    *copy = malloc(len > 0 ? len : 1);

	if (len > 0)
		memcpy(copy, data, len);
	ent_wire_reader_init(r, copy, len);
	return copy;
}

static void
check_texts(void)
{
	tap_promise("wire: every error has a text of its own");
	for (int i = 0; i < ENT_WIRE_ERRORS; i++)
	{
		const char *text = ent_wire_error_text((EntWireError) i);

		CHECK(text != NULL && strcmp(text, "unknown error") != 0);
		for (int j = 0; j < i; j++)
			CHECK(strcmp(text, ent_wire_error_text((EntWireError) j)) != 0);
	}
	CHECK(strcmp(ent_wire_error_text(ENT_WIRE_ERRORS), "unknown error") == 0);
	CHECK(strcmp(ent_wire_error_text((EntWireError) -1), "unknown error") == 0);
}

static const struct
{
	uint64_t	value;
	size_t		len;
}			numbers[] = {
	{0, 1},
	{1, 1},
	{127, 1},
	{128, 2},
	{16383, 2},
	{16384, 3},
	{UINT32_MAX, 5},
	{INT64_MAX, 9},
	{(uint64_t) INT64_MAX + 1, 10},
	{UINT64_MAX, 10},
};

static void
check_numbers(void)
{
	EntWriter	w;
	EntReader	r;

	tap_promise("wire: numbers take as few bytes as they need and come back");
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
	{
		ent_wire_writer_init(&w, alloc_for_wire(&memory));
		ent_wire_write_varint(&w, numbers[i].value);
		CHECK(w.len == numbers[i].len);
		ent_wire_reader_init(&r, w.data, w.len);
		CHECK(ent_wire_read_varint(&r) == numbers[i].value);
		CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
		alloc_release(&memory, w.data);
	}
}

static void
check_random_numbers(void)
{
	EntWriter	w;
	EntReader	r;
	Random		random = {3};
	uint64_t	values[1000];

	tap_promise("wire: random numbers, signed or not, come back");
	ent_wire_writer_init(&w, alloc_for_wire(&memory));
	for (int i = 0; i < 1000; i++)
	{
		values[i] = random_any_size(&random);
		ent_wire_write_varint(&w, values[i]);
		ent_wire_write_zigzag(&w, (int64_t) values[i]);
		ent_wire_write_zigzag(&w, -(int64_t) (values[i] >> 1));
	}
	ent_wire_reader_init(&r, w.data, w.len);
	for (int i = 0; i < 1000; i++)
	{
		CHECK(ent_wire_read_varint(&r) == values[i]);
		CHECK(ent_wire_read_zigzag(&r) == (int64_t) values[i]);
		CHECK(ent_wire_read_zigzag(&r) == -(int64_t) (values[i] >> 1));
	}
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	alloc_release(&memory, w.data);
}

static void
check_zigzag(void)
{
	static const struct
	{
		int64_t		value;
		uint64_t	coded;
	}			cases[] = {
		{0, 0},
		{-1, 1},
		{1, 2},
		{-2, 3},
		{INT64_MAX, UINT64_MAX - 1},
		{INT64_MIN, UINT64_MAX},
	};

	tap_promise("wire: signed numbers near zero are short");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		EntWriter	w;
		EntReader	r;

		ent_wire_writer_init(&w, alloc_for_wire(&memory));
		ent_wire_write_zigzag(&w, cases[i].value);
		ent_wire_reader_init(&r, w.data, w.len);
		CHECK(ent_wire_read_varint(&r) == cases[i].coded);
		ent_wire_reader_init(&r, w.data, w.len);
		CHECK(ent_wire_read_zigzag(&r) == cases[i].value);
		alloc_release(&memory, w.data);
	}
}

#define FF9 "\xff\xff\xff\xff\xff\xff\xff\xff\xff"

static const struct
{
	const char *name;
	const char *bytes;
	size_t		len;
	EntWireError error;
}			bad_numbers[] = {
	{"nothing there", "", 0, ENT_WIRE_TRUNCATED},
	{"cut after one byte", "\x80", 1, ENT_WIRE_TRUNCATED},
	{"cut after nine bytes", FF9, 9, ENT_WIRE_TRUNCATED},
	{"65 bits", FF9 "\x02", 10, ENT_WIRE_OVERFLOW},
	{"70 bits", FF9 "\x7f", 10, ENT_WIRE_OVERFLOW},
	{"eleven bytes", FF9 "\x81\x00", 11, ENT_WIRE_OVERFLOW},
	{"endless", FF9 FF9 FF9, 27, ENT_WIRE_OVERFLOW},
	{"zero in two bytes", "\x80\x00", 2, ENT_WIRE_MALFORMED},
	{"one in three bytes", "\x81\x80\x00", 3, ENT_WIRE_MALFORMED},
	{"63 bits in ten bytes", FF9 "\x00", 10, ENT_WIRE_MALFORMED},
};

static void
check_bad_numbers(void)
{
	tap_promise("wire: numbers that are cut, too large or written longer than "
				"they need are refused");
	for (size_t i = 0; i < sizeof(bad_numbers) / sizeof(bad_numbers[0]); i++)
	{
		EntReader	r;
		uint8_t    *copy = read_copy(&r, bad_numbers[i].bytes,
									 bad_numbers[i].len);

		CHECK_CASE(ent_wire_read_varint(&r) == 0, bad_numbers[i].name);
		CHECK_CASE(r.error == bad_numbers[i].error, bad_numbers[i].name);
		free(copy);
	}
}

static void
check_bounds(void)
{
	EntReader	r;
	uint8_t    *copy;

	tap_promise("wire: a number beyond its limit is refused, one at it is not");
	copy = read_copy(&r, "\x0a\x0b", 2);
	CHECK(ent_wire_read_bounded(&r, 10) == 10);
	CHECK(ent_wire_read_bounded(&r, 10) == 0 && r.error == ENT_WIRE_LIMIT);
	free(copy);
	copy = read_copy(&r, "\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
					 "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 19);
	CHECK(ent_wire_read_serial(&r) == INT64_MAX);
	CHECK(ent_wire_read_serial(&r) == 0 && r.error == ENT_WIRE_OVERFLOW);
	free(copy);
}

static void
check_sticky(void)
{
	EntReader	r,
				body;
	size_t		len = 77;
	unsigned	type = 77;
	bool		isnull = false;
	char		buf[11] = "untouched";
	uint8_t    *copy = read_copy(&r, "\x05\x05\x05\x05\x05\x05\x05", 7);

	tap_promise("wire: a reader that has failed stays failed and yields zeros");
	ent_wire_fail(&r, ENT_WIRE_LIMIT);
	ent_wire_fail(&r, ENT_WIRE_MALFORMED);
	CHECK(ent_wire_at_end(&r));
	CHECK(ent_wire_read_u8(&r) == 0);
	CHECK(ent_wire_read_varint(&r) == 0);
	CHECK(ent_wire_read_zigzag(&r) == 0);
	CHECK(ent_wire_read_serial(&r) == 0);
	CHECK(ent_wire_read_raw(&r, 0) == NULL);
	CHECK(ent_wire_read_bytes(&r, 10, &len) == NULL && len == 0);
	len = 77;
	CHECK(ent_wire_read_value(&r, &len, &isnull) == NULL && len == 0 && isnull);
	ent_wire_read_string(&r, buf, 10);
	CHECK(buf[0] == '\0');
	CHECK(!ent_wire_read_section(&r, &type, &body));
	CHECK(type == 0 && ent_wire_at_end(&body));
	CHECK(r.error == ENT_WIRE_LIMIT);
	free(copy);
}

static void
check_bytes(void)
{
	static const struct
	{
		const char *name;
		const char *bytes;
		size_t		len;
		size_t		max;
		EntWireError error;
		size_t		got;
	}			cases[] = {
		{"empty", "\x00", 1, 10, ENT_WIRE_OK, 0},
		{"all there", "\x03" "abc", 4, 10, ENT_WIRE_OK, 3},
		{"at the limit", "\x03" "abc", 4, 3, ENT_WIRE_OK, 3},
		{"beyond the limit", "\x03" "abc", 4, 2, ENT_WIRE_LIMIT, 0},
		{"one byte short", "\x04" "abc", 4, 10, ENT_WIRE_TRUNCATED, 0},
		{"huge length", FF9 "\x01" "abc", 13, SIZE_MAX, ENT_WIRE_TRUNCATED, 0},
		{"no length", "", 0, 10, ENT_WIRE_TRUNCATED, 0},
	};

	tap_promise("wire: bytes are given out within their limit and the message, "
				"or not at all");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		EntReader	r;
		size_t		len;
		uint8_t    *copy = read_copy(&r, cases[i].bytes, cases[i].len);
		const uint8_t *p = ent_wire_read_bytes(&r, cases[i].max, &len);

		CHECK_CASE(r.error == cases[i].error, cases[i].name);
		CHECK_CASE(len == cases[i].got, cases[i].name);
		CHECK_CASE((p != NULL) == (r.error == ENT_WIRE_OK), cases[i].name);
		free(copy);
	}
}

static void
check_strings(void)
{
	static const struct
	{
		const char *name;
		const char *bytes;
		size_t		len;
		EntWireError error;
		const char *got;
	}			cases[] = {
		{"empty", "\x00", 1, ENT_WIRE_OK, ""},
		{"short", "\x02hi", 3, ENT_WIRE_OK, "hi"},
		{"at the limit", "\x05" "hello", 6, ENT_WIRE_OK, "hello"},
		{"beyond the limit", "\x06" "hello!", 7, ENT_WIRE_LIMIT, ""},
		{"with a NUL", "\x03" "a\0b", 4, ENT_WIRE_MALFORMED, ""},
		{"with a NUL at its end", "\x02" "a\0", 3, ENT_WIRE_MALFORMED, ""},
		{"cut", "\x05hell", 5, ENT_WIRE_TRUNCATED, ""},
	};

	tap_promise("wire: strings are copied whole, with a NUL behind and none "
				"inside");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		EntReader	r;
		char	   *buf = malloc(6);
		uint8_t    *copy = read_copy(&r, cases[i].bytes, cases[i].len);

		memset(buf, 'x', 6);
		ent_wire_read_string(&r, buf, 5);
		CHECK_CASE(r.error == cases[i].error, cases[i].name);
		CHECK_CASE(strcmp(buf, cases[i].got) == 0, cases[i].name);
		free(copy);
		free(buf);
	}
}

static void
check_values(void)
{
	static const struct
	{
		const char *name;
		const char *bytes;
		size_t		len;
		EntWireError error;
		size_t		got;
		bool		isnull;
	}			cases[] = {
		{"NULL", "\x00", 1, ENT_WIRE_OK, 0, true},
		{"empty", "\x01", 1, ENT_WIRE_OK, 0, false},
		{"three bytes", "\x04" "abc", 4, ENT_WIRE_OK, 3, false},
		{"cut", "\x05" "abc", 4, ENT_WIRE_TRUNCATED, 0, true},
		{"256 MB, cut", "\x81\x80\x80\x80\x01", 5, ENT_WIRE_TRUNCATED, 0, true},
		{"more than 256 MB", "\x82\x80\x80\x80\x01", 5, ENT_WIRE_LIMIT, 0, true},
	};

	tap_promise("wire: NULL is not the empty value, and no value is larger "
				"than 256 MB");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		EntReader	r;
		size_t		len;
		bool		isnull;
		uint8_t    *copy = read_copy(&r, cases[i].bytes, cases[i].len);
		const uint8_t *p = ent_wire_read_value(&r, &len, &isnull);

		CHECK_CASE(r.error == cases[i].error, cases[i].name);
		CHECK_CASE(len == cases[i].got, cases[i].name);
		CHECK_CASE(isnull == cases[i].isnull, cases[i].name);
		CHECK_CASE((p == NULL) == isnull, cases[i].name);
		free(copy);
	}
}

/* One section with so many bytes, between two others. */
static void
check_section_of(size_t len)
{
	EntWriter	w;
	EntReader	r,
				body;
	unsigned	type;
	uint8_t    *payload = malloc(len + 1);
	size_t		mark;

	memset(payload, 0x5a, len + 1);
	ent_wire_writer_init(&w, alloc_for_wire(&memory));
	ent_wire_close_section(&w, ent_wire_open_section(&w, ENT_SECTION_NUDGE));
	mark = ent_wire_open_section(&w, ENT_SECTION_AGAIN);
	ent_wire_write_raw(&w, payload, len);
	ent_wire_close_section(&w, mark);
	mark = ent_wire_open_section(&w, ENT_SECTION_OBJECTS);
	w.len = mark;
	ent_wire_close_section(&w, ent_wire_open_section(&w, ENT_SECTION_CLAIM));

	ent_wire_reader_init(&r, w.data, w.len);
	CHECK(ent_wire_read_section(&r, &type, &body));
	CHECK(type == ENT_SECTION_NUDGE && ent_wire_at_end(&body));
	CHECK(ent_wire_read_section(&r, &type, &body));
	CHECK(type == ENT_SECTION_AGAIN && (size_t) (body.end - body.p) == len);
	CHECK(memcmp(body.p, payload, len) == 0);
	CHECK(ent_wire_read_section(&r, &type, &body));
	CHECK(type == ENT_SECTION_CLAIM);
	CHECK(!ent_wire_read_section(&r, &type, &body));
	CHECK(r.error == ENT_WIRE_OK);
	alloc_release(&memory, w.data);
	free(payload);
}

static void
check_sections(void)
{
	static const size_t lengths[] = {0, 1, 127, 128, 16383, 16384, 3000000};

	tap_promise("wire: sections of any length follow each other, and one "
				"begun can be taken back");
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		check_section_of(lengths[i]);
}

static void
check_bad_sections(void)
{
	static const struct
	{
		const char *name;
		const char *bytes;
		size_t		len;
		EntWireError error;
	}			cases[] = {
		{"no length", "\x05", 1, ENT_WIRE_TRUNCATED},
		{"one byte short", "\x05\x03" "ab", 4, ENT_WIRE_TRUNCATED},
		{"more than 512 MB", "\x05\x81\x80\x80\x80\x02", 6, ENT_WIRE_LIMIT},
		{"no length at all", "\x05" FF9 "\x7f", 11, ENT_WIRE_OVERFLOW},
	};

	tap_promise("wire: a section that runs past its batch is refused");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		EntReader	r,
					body;
		unsigned	type;
		uint8_t    *copy = read_copy(&r, cases[i].bytes, cases[i].len);

		CHECK_CASE(!ent_wire_read_section(&r, &type, &body), cases[i].name);
		CHECK_CASE(r.error == cases[i].error, cases[i].name);
		CHECK_CASE(ent_wire_at_end(&body), cases[i].name);
		free(copy);
	}
}

static void
check_header(void)
{
	static const struct
	{
		const char *name;
		const char *bytes;
		size_t		len;
		EntWireError error;
		uint64_t	heard;
	}			cases[] = {
		{"version 1", "\xe7\x01\x00\x05", 4, ENT_WIRE_OK, 4},
		{"one answer behind", "\xe7\x01\x01\x05\x01", 5, ENT_WIRE_OK, 3},
		{"no answer yet", "\xe7\x01\x01\x05\x04", 5, ENT_WIRE_OK, 0},
		{"future version with a flag", "\xe7\x02\x04\x05", 4, ENT_WIRE_OK, 4},
		{"empty", "", 0, ENT_WIRE_TRUNCATED, 0},
		{"text", "HTTP/1.1", 8, ENT_WIRE_BAD_MAGIC, 0},
		{"magic alone", "\xe7", 1, ENT_WIRE_TRUNCATED, 0},
		{"without number", "\xe7\x01\x00", 3, ENT_WIRE_TRUNCATED, 0},
		{"version 0", "\xe7\x00\x00\x05", 4, ENT_WIRE_MALFORMED, 0},
		{"an unknown flag", "\xe7\x01\x02\x05", 4, ENT_WIRE_MALFORMED, 0},
		{"behind by none", "\xe7\x01\x01\x05\x00", 5, ENT_WIRE_MALFORMED, 0},
		{"behind by too many", "\xe7\x01\x01\x05\x05", 5, ENT_WIRE_MALFORMED, 0},
		{"behind by how many", "\xe7\x01\x01\x05", 4, ENT_WIRE_TRUNCATED, 0},
		{"absurd version", "\xe7\xff\xff\x7f\x00\x05", 6, ENT_WIRE_LIMIT, 0},
	};

	tap_promise("wire: a batch header is known for what it is, also one of a "
				"future version");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		EntReader	r;
		EntWireHeader h;
		uint8_t    *copy = read_copy(&r, cases[i].bytes, cases[i].len);

		ent_wire_read_header(&r, &h);
		CHECK_CASE(r.error == cases[i].error, cases[i].name);
		CHECK_CASE(r.error != ENT_WIRE_OK ||
				   (h.number == 5 && h.heard == cases[i].heard), cases[i].name);
		free(copy);
	}
}

static void
check_large_batches(void)
{
	EntReader	r;

	tap_promise("wire: no batch is larger than 512 MB");
	ent_wire_reader_init(&r, "", (size_t) ENT_WIRE_MAX_BATCH + 1);
	CHECK(r.error == ENT_WIRE_LIMIT && ent_wire_at_end(&r));
	ent_wire_reader_init(&r, NULL, 0);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
}

static void
check_growth(void)
{
	EntWriter	w;
	char		piece[100] = {0};
	volatile size_t too_much = SIZE_MAX - 50;

	tap_promise("wire: a writer grows seldom, and what exceeds the address "
				"space is refused by the allocator");
	ent_wire_writer_init(&w, alloc_for_wire(&memory));
	memory.calls = 0;
	for (int i = 0; i < 100000; i++)
		ent_wire_write_raw(&w, piece, sizeof(piece));
	CHECK(w.len == 10000000 && memory.calls < 30);
	CHECK(w.cap < 16000000);
	memory.asked = 0;
	memory.armed = true;
	if (setjmp(memory.refused) == 0)
	{
		ent_wire_write_raw(&w, piece, too_much);
		CHECK(!"refused");
	}
	memory.armed = false;
	CHECK(memory.asked == SIZE_MAX && w.len == 10000000);
	alloc_release(&memory, w.data);
}

int
main(void)
{
	alloc_init(&memory);
	check_texts();
	check_numbers();
	check_random_numbers();
	check_zigzag();
	check_bad_numbers();
	check_bounds();
	check_sticky();
	check_bytes();
	check_strings();
	check_values();
	check_sections();
	check_bad_sections();
	check_header();
	check_large_batches();
	check_growth();
	tap_promise("wire: nothing but the writer's buffer is kept");
	CHECK(memory.pieces == 0);
	return tap_done();
}
