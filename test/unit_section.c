/*
 * test/unit_section.c
 *	  Promises of rule/wire.h about what is in the sections.
 *
 * The bytes of one example of each section are written out, so that no change
 * of the protocol happens by accident.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "batch.h"
#include "rule/wire.h"
#include "tap.h"

static AllocState memory;

static const EntWireUuid node = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
14, 15}};
#define NODE "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"

/* ---- the bytes of each section ---- */

static void
write_example_hello(EntWriter *w)
{
	EntWireHello h = {3, 1, {{0}}, "alice", "entanglement 0.1.0"};

	h.node = node;
	ent_wire_write_hello(w, &h);
}

static void
write_example_owner(EntWriter *w)
{
	EntWireOwner o = {2, {{0}}, {{0}}, "red", 7, 300, 1, true, true, 2,
	{{6, 298}, {4, 9}}};

	o.id = o.home = node;
	ent_wire_write_owner(w, &o);
}

static void
write_example_table(EntWriter *w)
{
	EntWireColumn columns[3] = {
		{"id", "pg_catalog", "int4", ENT_FORMAT_BINARY, 2, true},
		{"n", "", "mood", ENT_FORMAT_TEXT, 0, false},
		{"k", "pg_catalog", "float8", ENT_FORMAT_BINARY, 1, false},
	};
	EntWireTable t = {5, "public", "t", 3, 2, columns};

	ent_wire_write_table(w, &t);
}

static void
write_example_objects(EntWriter *w)
{
	EntWireObjects o = {5, 2, 7};
	uint8_t		set[1] = {0x02};
	EntWireRow	rows[6] = {
		{ENT_ROW_FULL, ENT_ROW_REFRESH | ENT_ROW_LATE, 300, 0,
		(const uint8_t *) "\x01" "a", 2, NULL, 0, {{0}}, 0, 0, {{0}}, 0, 0},
		{ENT_ROW_DELTA, ENT_ROW_AHEAD, 299, 290, (const uint8_t *) "\x01" "b", 2, set, 1,
			{{0}}, 0, 0, {{0}}, 0, 0},
		{ENT_ROW_DELETE, 0, 301, 0, (const uint8_t *) "\x01" "c", 2, NULL, 0,
			{{0}}, 0, 0, {{0}}, 0, 0},
		{ENT_ROW_DELETE, ENT_ROW_HEIR, 302, 0, (const uint8_t *) "\x01" "d", 2,
			NULL, 0, {{0xb0, 0xb1}}, 4, 200, {{0}}, 0, 0},
		{ENT_ROW_DELETE, ENT_ROW_FROM, 303, 0, (const uint8_t *) "\x01" "e", 2,
			NULL, 0, {{0}}, 0, 0, {{0xc0}}, 1, 2},
		{ENT_ROW_WITHDRAW, 0, 0, 0, (const uint8_t *) "\x01" "f", 2, NULL, 0,
			{{0}}, 0, 0, {{0}}, 0, 0},
	};
	int64_t		last = 0;
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_OBJECTS);

	ent_wire_write_objects(w, &o);
	ent_wire_write_row(w, &rows[0], &last);
	ent_wire_write_value(w, NULL, 0);
	ent_wire_write_value(w, "", 0);
	ent_wire_write_row(w, &rows[1], &last);
	ent_wire_write_value(w, "xy", 2);
	ent_wire_write_row(w, &rows[2], &last);
	ent_wire_write_row(w, &rows[3], &last);
	ent_wire_write_row(w, &rows[4], &last);
	ent_wire_write_row(w, &rows[5], &last);
	ent_wire_close_section(w, mark);
}

static void
write_example_claim(EntWriter *w)
{
	EntWireClaim c = {2, 7, 300};

	ent_wire_write_claim(w, ENT_SECTION_CLAIM, &c);
}

static void
write_example_seek(EntWriter *w)
{
	EntWireClaim c = {2, 7, 300};

	ent_wire_write_claim(w, ENT_SECTION_SEEK, &c);
}

static void
write_example_kept(EntWriter *w)
{
	EntWireClaim c = {2, 7, 300};

	ent_wire_write_claim(w, ENT_SECTION_KEPT, &c);
}

static void
write_example_arrears(EntWriter *w)
{
	EntWireArrears a = {2, 5};

	ent_wire_write_arrears(w, ENT_SECTION_ARREARS, &a);
	ent_wire_write_arrears(w, ENT_SECTION_ARREARS_DONE, &a);
}

static void
write_example_fragment(EntWriter *w)
{
	EntWireFragment p = {2, 300, 5};

	ent_wire_write_fragment(w, &p, "abc", 3);
}

static void
write_example_present(EntWriter *w)
{
	EntWirePresent p = {2, 5, 300, false, true, NULL, 0,
	(const uint8_t *) "\x01z", 2};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_PRESENT);

	ent_wire_write_present(w, &p);
	ent_wire_write_bytes(w, "\x01" "a", 2);
	ent_wire_close_section(w, mark);
}

static void
write_example_want(EntWriter *w)
{
	EntWireWant x = {2, true, 7, 299};

	ent_wire_write_want(w, &x);
}

static void
write_example_table_state(EntWriter *w)
{
	EntWireTableState s = {5, true};

	ent_wire_write_table_state(w, &s);
}

static void
write_example_confirm(EntWriter *w)
{
	EntWireConfirm c = {{5, 2, (const uint8_t *) "\x01q", 2}, 7, 200, {{0}}, 1, 300};

	c.from = node;
	ent_wire_write_confirm(w, &c);
}

static void
write_example_again(EntWriter *w)
{
	EntWireAgain a = {5, 2, (const uint8_t *) "\x01q", 2};

	ent_wire_write_again(w, &a);
}

static void
write_example_request(EntWriter *w)
{
	EntWireRequest q = {{{0}}, {{0}}, ENT_REQUEST_FORWARD, 300, "public", "t",
	1, 2};
	EntWireField fields[3] = {
		{"id", (const uint8_t *) "7", 1}, {"n", NULL, 0},
		{"x", (const uint8_t *) "", 0},
	};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_REQUEST);

	q.id = q.owner = node;
	ent_wire_write_request(w, &q);
	for (int i = 0; i < 3; i++)
		ent_wire_write_field(w, &fields[i]);
	ent_wire_close_section(w, mark);
}

static void
write_example_accepted(EntWriter *w)
{
	EntWireResponse s = {{{0}}, true, false, {{0}}, 7, 300, "", "", "", "", 1};
	EntWireField key = {"id", (const uint8_t *) "7", 1};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_RESPONSE);

	s.id = node;
	s.owner = node;
	ent_wire_write_response(w, &s);
	ent_wire_write_field(w, &key);
	ent_wire_close_section(w, mark);
}

static void
write_example_refused(EntWriter *w)
{
	EntWireResponse s = {{{0}}, false, false, {{0}}, 0, 0, "23P01", "no", "", "t_x", 0};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_RESPONSE);

	s.id = node;
	ent_wire_write_response(w, &s);
	ent_wire_close_section(w, mark);
}

static void
write_example_gone(EntWriter *w)
{
	EntWireGone g = {{{0}}, {{0}}, 300};

	g.id = g.home = node;
	ent_wire_write_gone(w, &g);
}

static void
write_example_subscribe(EntWriter *w)
{
	EntWireSubscribe s = {true};
	EntWireWish wishes[2] = {
		{5, 300, (const uint8_t *) "x > 3", 5}, {6, 1, NULL, 0},
	};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_SUBSCRIBE);

	ent_wire_write_subscribe(w, &s);
	for (int i = 0; i < 2; i++)
		ent_wire_write_wish(w, &wishes[i]);
	ent_wire_close_section(w, mark);
}

static void
write_example_filter_state(EntWriter *w)
{
	EntWireFilterState s = {5, 300, "42703", "no"};

	ent_wire_write_filter_state(w, &s);
}

static void
write_example_homes(EntWriter *w)
{
	EntWireHomes h = {300};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_HOMES);

	ent_wire_write_homes(w, &h);
	ent_wire_write_elsewhere(w, &node);
	ent_wire_close_section(w, mark);
}

static void
write_example_nudge(EntWriter *w)
{
	ent_wire_close_section(w, ent_wire_open_section(w, ENT_SECTION_NUDGE));
}

static void
write_example_compare(EntWriter *w)
{
	EntWireCompare c = {"public", "t", 2};
	EntWireRange range = {{{0}}, true, false, (const uint8_t *) "\x01" "a", 2,
	NULL, 0, 300};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_COMPARE);

	range.owner = node;
	ent_wire_write_compare(w, &c);
	ent_wire_write_string(w, "id");
	ent_wire_write_string(w, "x");
	ent_wire_write_range(w, &range);
	ent_wire_close_section(w, mark);
}

static void
write_example_digest(EntWriter *w)
{
	EntWireDigest d = {1, 2, {{0}}};
	EntWirePart parts[3] = {
		{2, true, (const uint8_t *) "\x01" "a", 2, (const uint8_t *) "\x01" "b", 2,
		7, 300, {0x0102030405060708, 0x090a0b0c0d0e0f10}},
		{1, false, NULL, 0, (const uint8_t *) "\x01" "c", 2, 7, 301, {0, 1}},
		{0}
	};
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_DIGEST);

	d.owner = node;
	ent_wire_write_digest(w, &d);
	for (int i = 0; i < 3; i++)
		ent_wire_write_part(w, &parts[i]);
	ent_wire_close_section(w, mark);
}

#define BYTES(s) s, sizeof(s) - 1

static const struct
{
	const char *name;
	void		(*write) (EntWriter *w);
	const char *bytes;
	size_t		len;
}			examples[] = {
	{"hello", write_example_hello,
	BYTES("\x01\x2b\x03\x01" NODE "\x05" "alice" "\x12" "entanglement 0.1.0")},
	{"owner", write_example_owner,
	BYTES("\x02\x30\x02" NODE NODE "\x03red\x07\xac\x02\x01\x07\x02\x06\xaa\x02\x04\x09")},
	{"table", write_example_table,
		BYTES("\x03\x41\x05\x06public\x01t\x02\x03"
			  "\x02id\x0apg_catalog\x04int4\x03\x02"
			  "\x01n\x00\x04mood\x00\x00"
			  "\x01k\x0apg_catalog\x06" "float8\x01\x01")},
	{"objects", write_example_objects,
		BYTES("\x04\x4e\x05\x02\x07"
			  "\x0e\xd8\x04\x02\x01" "a\x00\x01"
			  "\x41\x01\x02\x01" "b\x09\x01\x02\x03xy"
			  "\x00\x04\x02\x01" "c"
			  "\x10\x02\x02\x01" "d" "\xb0\xb1\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
			  "\x04\xc8\x01"
			  "\x20\x02\x02\x01" "e" "\xc0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
			  "\x01\x02"
			  "\x03\x02\x01" "f")},
	{"claim", write_example_claim, BYTES("\x05\x04\x02\x07\xac\x02")},
	{"arrears", write_example_arrears, BYTES("\x09\x02\x02\x05\x06\x02\x02\x05")},
	{"present", write_example_present,
	BYTES("\x07\x0b\x02\x05\xac\x02\x02\x02\x01z\x02\x01" "a")},
	{"want", write_example_want, BYTES("\x08\x05\x02\x01\x07\xab\x02")},
	{"table state", write_example_table_state, BYTES("\x0a\x02\x05\x01")},
	{"again", write_example_again, BYTES("\x0b\x05\x05\x02\x02\x01q")},
	{"nudge", write_example_nudge, BYTES("\x4c\x00")},
	{"request", write_example_request,
		BYTES("\x0d\x39" NODE NODE "\x01\xac\x02\x06public\x01t\x01\x02"
			  "\x02id\x02" "7\x01n\x00\x01x\x01")},
	{"response: accepted", write_example_accepted,
	BYTES("\x0e\x2a" NODE "\x01" NODE "\x07\xac\x02\x01\x02id\x02" "7")},
	{"response: refused", write_example_refused,
	BYTES("\x0e\x1f" NODE "\x00" "23P01\x02no\x00\x03t_x\x00")},
	{"compare", write_example_compare,
		BYTES("\x20\x25\x06public\x01t\x02\x02id\x01x" NODE
			  "\x01\x02\x01" "a\xac\x02")},
	{"digest", write_example_digest,
		BYTES("\x21\x46\x01\x02" NODE
			  "\x02\x01\x02\x01" "b\x02\x01" "a\x07\xac\x02"
			  "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"
			  "\x01\x00\x02\x01" "c\x07\xad\x02"
			  "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01" "\x00")},
	{"confirm", write_example_confirm,
	BYTES("\x11\x1b\x05\x02\x02\x01q\x07\xc8\x01" NODE "\x01\xac\x02")},
	{"seek", write_example_seek, BYTES("\x50\x04\x02\x07\xac\x02")},
	{"gone", write_example_gone, BYTES("\x18\x22" NODE NODE "\xac\x02")},
	{"homes", write_example_homes, BYTES("\x19\x12\xac\x02" NODE)},
	{"subscribe", write_example_subscribe,
	BYTES("\x12\x0d\x01\x05\xac\x02\x06x > 3\x06\x01\x00")},
	{"filter state", write_example_filter_state,
	BYTES("\x53\x0b\x05\xac\x02" "42703\x02no")},
	{"kept", write_example_kept, BYTES("\x55\x04\x02\x07\xac\x02")},
	{"fragment", write_example_fragment, BYTES("\x14\x07\x02\xac\x02\x05" "abc")},
};

static void
explain_difference(const char *name, const EntWriter *w)
{
	char		text[3 * 200 + 1] = "";

	for (size_t i = 0; i < w->len && i < 200; i++)
		sprintf(text + 3 * i, " %02x", w->data[i]);
	tap_note("%s:%s", name, text);
}

static void
check_examples(void)
{
	tap_promise("sections: their bytes are those of protocol version 1");
	for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++)
	{
		EntWriter	w;
		bool		same;

		ent_wire_writer_init(&w, alloc_for_wire(&memory));
		examples[i].write(&w);
		same = w.len == examples[i].len &&
			memcmp(w.data, examples[i].bytes, w.len) == 0;
		if (!same)
			explain_difference(examples[i].name, &w);
		CHECK_CASE(same, examples[i].name);
		alloc_release(&memory, w.data);
	}
}

/* ---- reading them back ---- */

static EntReader
example_body(size_t i)
{
	EntReader	r,
				body;
	unsigned	type;

	ent_wire_reader_init(&r, examples[i].bytes, examples[i].len);
	ent_wire_read_section(&r, &type, &body);
	return body;
}

static void
check_fields(void)
{
	EntReader	r = example_body(0);
	EntWireHello h;
	EntWireOwner o;
	EntWireTable t;

	tap_promise("sections: hello, owner and table are read as written");
	ent_wire_read_hello(&r, &h);
	CHECK(h.max_version == 3 && h.min_version == 1);
	CHECK(memcmp(&h.node, &node, 16) == 0 && strcmp(h.name, "alice") == 0);
	CHECK(strcmp(h.software, "entanglement 0.1.0") == 0);
	r = example_body(1);
	ent_wire_read_owner(&r, &o);
	CHECK(o.number == 2 && o.epoch == 7 && o.serial == 300 && o.distance == 1 && o.lost && o.partial);
	CHECK(strcmp(o.name, "red") == 0 && memcmp(&o.home, &node, 16) == 0);
	CHECK(o.nancestors == 2 && o.ancestors[0].epoch == 6 && o.ancestors[0].serial == 298);
	CHECK(o.ancestors[1].epoch == 4 && o.ancestors[1].serial == 9 && ent_wire_at_end(&r));
	r = example_body(2);
	ent_wire_read_table(&r, &t, alloc_for_wire(&memory));
	CHECK(t.number == 5 && t.ncolumns == 3 && t.nkeys == 2);
	CHECK(strcmp(t.schema, "public") == 0 && strcmp(t.name, "t") == 0);
	CHECK(strcmp(t.columns[0].name, "id") == 0 && t.columns[0].in_key_only);
	CHECK(t.columns[0].key == 2 && t.columns[1].key == 0);
	CHECK(t.columns[0].format == ENT_FORMAT_BINARY);
	CHECK(t.columns[1].format == ENT_FORMAT_TEXT);
	CHECK(t.columns[2].key == 1 && !t.columns[2].in_key_only);
	CHECK(strcmp(t.columns[2].type_name, "float8") == 0);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	alloc_release(&memory, t.columns);
}

static void
check_rows(void)
{
	EntReader	r = example_body(3);
	EntWireObjects o;
	EntWireRow	row;
	int64_t		last = 0;
	size_t		len;
	bool		isnull;

	tap_promise("sections: rows are read as written, full, delta, deletion and withdrawal");
	ent_wire_read_objects(&r, &o);
	CHECK(o.table == 5 && o.owner == 2 && o.epoch == 7);
	ent_wire_read_row(&r, &row, &last);
	CHECK(row.op == ENT_ROW_FULL && row.serial == 300 && row.keylen == 2);
	CHECK(row.flags == (ENT_ROW_REFRESH | ENT_ROW_LATE));
	CHECK(ent_wire_read_value(&r, &len, &isnull) == NULL && isnull);
	CHECK(ent_wire_read_value(&r, &len, &isnull) != NULL && len == 0);
	ent_wire_read_row(&r, &row, &last);
	CHECK(row.op == ENT_ROW_DELTA && row.serial == 299 && row.base == 290);
	CHECK(row.flags == ENT_ROW_AHEAD && row.setlen == 1 && row.key[1] == 'b');
	CHECK(!ent_wire_in_set(row.set, row.setlen, 0));
	CHECK(ent_wire_in_set(row.set, row.setlen, 1));
	CHECK(!ent_wire_in_set(row.set, row.setlen, 8));
	CHECK(ent_wire_read_value(&r, &len, &isnull) != NULL && len == 2);
	ent_wire_read_row(&r, &row, &last);
	CHECK(row.op == ENT_ROW_DELETE && row.serial == 301 && last == 301);
	CHECK(row.flags == 0 && row.heir_epoch == 0 && row.heir_serial == 0);
	ent_wire_read_row(&r, &row, &last);
	CHECK(row.op == ENT_ROW_DELETE && row.flags == ENT_ROW_HEIR);
	CHECK(row.serial == 302 && row.heir.bytes[0] == 0xb0 && row.heir.bytes[1] == 0xb1);
	CHECK(row.heir_epoch == 4 && row.heir_serial == 200);
	ent_wire_read_row(&r, &row, &last);
	CHECK(row.op == ENT_ROW_DELETE && row.flags == ENT_ROW_FROM);
	CHECK(row.from.bytes[0] == 0xc0 && row.from_epoch == 1 && row.from_serial == 2);
	ent_wire_read_row(&r, &row, &last);
	CHECK(row.op == ENT_ROW_WITHDRAW && row.flags == 0 && row.serial == 0);
	CHECK(row.keylen == 2 && row.key[1] == 'f' && last == 303);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
}

#define EXAMPLE_COMPARE		14
#define EXAMPLE_DIGEST		15

static void
check_digests(void)
{
	EntReader	r = example_body(EXAMPLE_COMPARE);
	EntWireCompare c;
	EntWireRange range;
	EntWireDigest d;
	EntWirePart part;
	EntWireSum	sum = {1, UINT64_MAX};
	char		name[ENT_WIRE_MAX_NAME + 1];

	tap_promise("sections: what is compared, and digests, are read as written");
	ent_wire_read_compare(&r, &c);
	CHECK(strcmp(c.schema, "public") == 0 && strcmp(c.table, "t") == 0);
	CHECK(c.ncolumns == 2);
	ent_wire_read_string(&r, name, ENT_WIRE_MAX_NAME);
	CHECK(strcmp(name, "id") == 0);
	ent_wire_read_string(&r, name, ENT_WIRE_MAX_NAME);
	CHECK(strcmp(name, "x") == 0);
	ent_wire_read_range(&r, &range);
	CHECK(memcmp(&range.owner, &node, 16) == 0 && range.each == 300);
	CHECK(range.has_lo && !range.has_hi && range.lolen == 2 && range.lo[1] == 'a');
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	r = example_body(EXAMPLE_DIGEST);
	ent_wire_read_digest(&r, &d);
	CHECK(d.compare == 1 && d.range == 2 && memcmp(&d.owner, &node, 16) == 0);
	ent_wire_read_part(&r, &part);
	CHECK(part.count == 2 && part.unfolded && part.epoch == 7 && part.serial == 300);
	CHECK(part.first[1] == 'a' && part.last[1] == 'b');
	CHECK(part.sum.high == 0x0102030405060708 && part.sum.low == 0x090a0b0c0d0e0f10);
	ent_wire_sum_add(&sum, part.sum);
	CHECK(sum.high == 0x010203040506070a && sum.low == 0x090a0b0c0d0e0f0f);
	ent_wire_read_part(&r, &part);
	CHECK(part.count == 1 && !part.unfolded && part.first == part.last);
	ent_wire_read_part(&r, &part);
	CHECK(part.count == 0 && part.last == NULL);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
}

#define EXAMPLE_REQUEST		11
#define EXAMPLE_ACCEPTED	12
#define EXAMPLE_REFUSED		13

static bool
field_is(EntReader *r, const char *name, const char *value)
{
	EntWireField f;

	ent_wire_read_field(r, &f);
	return strcmp(f.name, name) == 0 && (value == NULL ?
										 f.value == NULL && f.len == 0 :
										 f.value != NULL && f.len == strlen(value) &&
										 memcmp(f.value, value, f.len) == 0);
}

static void
check_requests(void)
{
	EntReader	r = example_body(EXAMPLE_REQUEST);
	EntWireRequest q;
	EntWireResponse s;

	tap_promise("sections: requests and responses are read as written, with "
				"the columns behind them");
	ent_wire_read_request(&r, &q);
	CHECK(memcmp(&q.id, &node, 16) == 0 && memcmp(&q.owner, &node, 16) == 0);
	CHECK(q.op == ENT_REQUEST_FORWARD && q.left == 300);
	CHECK(strcmp(q.schema, "public") == 0 && strcmp(q.table, "t") == 0);
	CHECK(q.nkeys == 1 && q.ncolumns == 2);
	CHECK(field_is(&r, "id", "7"));
	CHECK(field_is(&r, "n", NULL));
	CHECK(field_is(&r, "x", ""));
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	r = example_body(EXAMPLE_ACCEPTED);
	ent_wire_read_response(&r, &s);
	CHECK(memcmp(&s.id, &node, 16) == 0 && s.accepted && s.nkeys == 1);
	CHECK(s.epoch == 7 && s.serial == 300 && s.sqlstate[0] == '\0');
	CHECK(field_is(&r, "id", "7"));
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	r = example_body(EXAMPLE_REFUSED);
	ent_wire_read_response(&r, &s);
	CHECK(!s.accepted && s.epoch == 0 && s.serial == 0 && s.nkeys == 0);
	CHECK(strcmp(s.sqlstate, "23P01") == 0 && strcmp(s.message, "no") == 0);
	CHECK(s.detail[0] == '\0' && strcmp(s.constraint, "t_x") == 0);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
}

#define EXAMPLE_GONE		18
#define EXAMPLE_HOMES		19

static void
check_ends(void)
{
	EntReader	r = example_body(EXAMPLE_GONE);
	EntWireGone g;
	EntWireHomes h;
	EntWireUuid id;

	tap_promise("sections: gone and homes are read as written");
	ent_wire_read_gone(&r, &g);
	CHECK(memcmp(&g.id, &node, 16) == 0 && memcmp(&g.home, &node, 16) == 0);
	CHECK(g.epoch == 300 && r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	r = example_body(EXAMPLE_HOMES);
	ent_wire_read_homes(&r, &h);
	CHECK(h.here == 300 && !ent_wire_at_end(&r));
	ent_wire_read_elsewhere(&r, &id);
	CHECK(memcmp(&id, &node, 16) == 0);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
}

#define EXAMPLE_SUBSCRIBE		20
#define EXAMPLE_FILTER_STATE	21

static void
check_wishes(void)
{
	EntReader	r = example_body(EXAMPLE_SUBSCRIBE);
	EntWireSubscribe s;
	EntWireWish wish;
	EntWireFilterState state;

	tap_promise("sections: subscriptions, and what becomes of them, are read as "
				"written");
	ent_wire_read_subscribe(&r, &s);
	CHECK(s.selective);
	ent_wire_read_wish(&r, &wish);
	CHECK(wish.table == 5 && wish.round == 300 && wish.len == 5);
	CHECK(memcmp(wish.filter, "x > 3", 5) == 0);
	ent_wire_read_wish(&r, &wish);
	CHECK(wish.table == 6 && wish.round == 1 && wish.filter == NULL);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
	r = example_body(EXAMPLE_FILTER_STATE);
	ent_wire_read_filter_state(&r, &state);
	CHECK(state.table == 5 && state.round == 300);
	CHECK(strcmp(state.sqlstate, "42703") == 0 && strcmp(state.message, "no") == 0);
	CHECK(r.error == ENT_WIRE_OK && ent_wire_at_end(&r));
}

/* ---- what is refused ---- */

static void
read_hello(EntReader *r)
{
	EntWireHello h;

	ent_wire_read_hello(r, &h);
}

static void
read_owner(EntReader *r)
{
	EntWireOwner o;

	ent_wire_read_owner(r, &o);
}

static void
read_table(EntReader *r)
{
	EntWireTable t;

	ent_wire_read_table(r, &t, alloc_for_wire(&memory));
	CHECK(r->error == ENT_WIRE_OK || t.ncolumns == 0);
	alloc_release(&memory, t.columns);
}

static void
read_row(EntReader *r)
{
	EntWireRow	row;
	int64_t		last = 10;

	ent_wire_read_row(r, &row, &last);
	CHECK(r->error == ENT_WIRE_OK ||
		  (row.serial == 0 && row.keylen == 0 && row.key == NULL && last == 0));
}

static void
read_late_row(EntReader *r)
{
	EntWireRow	row;
	int64_t		last = INT64_MAX - 1;

	ent_wire_read_row(r, &row, &last);
}

static void
read_present(EntReader *r)
{
	EntWirePresent p;

	ent_wire_read_present(r, &p);
}

static void
read_want(EntReader *r)
{
	EntWireWant x;

	ent_wire_read_want(r, &x);
}

static void
read_claim(EntReader *r)
{
	EntWireClaim c;

	ent_wire_read_claim(r, &c);
}

static void
read_table_state(EntReader *r)
{
	EntWireTableState s;

	ent_wire_read_table_state(r, &s);
}

static void
read_confirm(EntReader *r)
{
	EntWireConfirm c;

	ent_wire_read_confirm(r, &c);
}

static void
read_gone(EntReader *r)
{
	EntWireGone g;

	ent_wire_read_gone(r, &g);
}

static void
read_homes(EntReader *r)
{
	EntWireHomes h;
	EntWireUuid id;

	ent_wire_read_homes(r, &h);
	while (!ent_wire_at_end(r))
		ent_wire_read_elsewhere(r, &id);
}

static void
read_subscribe(EntReader *r)
{
	EntWireSubscribe s;
	EntWireWish wish;

	ent_wire_read_subscribe(r, &s);
	while (!ent_wire_at_end(r))
		ent_wire_read_wish(r, &wish);
}

static void
read_filter_state(EntReader *r)
{
	EntWireFilterState s;

	ent_wire_read_filter_state(r, &s);
}

static void
read_again(EntReader *r)
{
	EntWireAgain a;

	ent_wire_read_again(r, &a);
}

static void
read_request(EntReader *r)
{
	EntWireRequest q;

	ent_wire_read_request(r, &q);
	CHECK(r->error == ENT_WIRE_OK || (q.nkeys == 0 && q.ncolumns == 0));
}

static void
read_response(EntReader *r)
{
	EntWireResponse s;

	ent_wire_read_response(r, &s);
	CHECK(r->error == ENT_WIRE_OK || s.nkeys == 0);
}

static void
read_field(EntReader *r)
{
	EntWireField f;

	ent_wire_read_field(r, &f);
	CHECK(r->error == ENT_WIRE_OK || (f.value == NULL && f.len == 0));
}

#define HUGE "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
#define COL(key) "\x01" "c\x00\x01" "x\x00" key
#define ASK(op) NODE NODE op "\x01\x01s\x01t"
#define ASKED "\x01" "c\x00"
#define REFUSAL(sqlstate) NODE "\x00" sqlstate "\x01m\x00\x00"

static const struct
{
	const char *name;
	void		(*read) (EntReader *r);
	const char *bytes;
	size_t		len;
	EntWireError error;
}			refused[] = {
	{"hello of no version", read_hello, BYTES("\x00\x00" NODE "\x00\x00"), ENT_WIRE_MALFORMED},
	{"hello with least above greatest", read_hello, BYTES("\x01\x02" NODE "\x00\x00"), ENT_WIRE_MALFORMED},
	{"hello with half a node", read_hello, BYTES("\x01\x01\x01\x02\x03"), ENT_WIRE_TRUNCATED},
	{"owner number too large", read_owner, BYTES(HUGE), ENT_WIRE_LIMIT},
	{"owner without name", read_owner, BYTES("\x01" NODE NODE "\x00\x01\x01\x00"), ENT_WIRE_MALFORMED},
	{"owner epoch beyond 31 bits", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x80\x80\x80\x80\x08\x01\x00"), ENT_WIRE_LIMIT},
	{"owner serial beyond 63 bits", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x01" HUGE "\x00"), ENT_WIRE_OVERFLOW},
	{"owner distance beyond 31 bits", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x01\x01" HUGE), ENT_WIRE_LIMIT},
	{"owner neither lost nor not", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x01\x01\x00\x08"), ENT_WIRE_MALFORMED},
	{"epoch that goes on from none", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x09\x01\x00\x04\x00"), ENT_WIRE_MALFORMED},
	{"epoch that goes on from itself", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x09\x01\x00\x04\x01\x09\x01"), ENT_WIRE_MALFORMED},
	{"epoch that goes on from one before the first", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x09\x01\x00\x04\x01\x00\x01"), ENT_WIRE_MALFORMED},
	{"earlier epochs out of order", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x09\x01\x00\x04\x02\x05\x01\x05\x01"), ENT_WIRE_MALFORMED},
	{"more earlier epochs than are told", read_owner, BYTES("\x01" NODE NODE "\x01" "a\x19\x01\x00\x04\x09"), ENT_WIRE_LIMIT},
	{"table number too large", read_table, BYTES("\xa1\x8d\x06"), ENT_WIRE_LIMIT},
	{"table without schema", read_table, BYTES("\x01\x00\x01t\x01\x01" COL("\x01")), ENT_WIRE_MALFORMED},
	{"table without key", read_table, BYTES("\x01\x01s\x01t\x00\x01" COL("\x00")), ENT_WIRE_MALFORMED},
	{"table with more keys than columns", read_table, BYTES("\x01\x01s\x01t\x02\x01" COL("\x01")), ENT_WIRE_MALFORMED},
	{"table with 33 keys", read_table, BYTES("\x01\x01s\x01t\x21\x40"), ENT_WIRE_LIMIT},
	{"table with 1601 columns", read_table, BYTES("\x01\x01s\x01t\x01\xc1\x0c"), ENT_WIRE_LIMIT},
	{"table with more columns than bytes", read_table, BYTES("\x01\x01s\x01t\x01\x02" COL("\x01")), ENT_WIRE_TRUNCATED},
	{"table with a key twice", read_table, BYTES("\x01\x01s\x01t\x02\x02" COL("\x01") COL("\x01")), ENT_WIRE_MALFORMED},
	{"table with a key missing", read_table, BYTES("\x01\x01s\x01t\x02\x02" COL("\x01") COL("\x00")), ENT_WIRE_MALFORMED},
	{"table with a key in two columns", read_table, BYTES("\x01\x01s\x01t\x01\x02" COL("\x01") COL("\x01")), ENT_WIRE_MALFORMED},
	{"table with a key too many", read_table, BYTES("\x01\x01s\x01t\x01\x02" COL("\x01") COL("\x02")), ENT_WIRE_LIMIT},
	{"table with a column without name", read_table, BYTES("\x01\x01s\x01t\x01\x01\x00\x00\x01x\x00\x01\x00"), ENT_WIRE_MALFORMED},
	{"table with an unknown bit", read_table, BYTES("\x01\x01s\x01t\x01\x01\x01" "c\x00\x01x\x04\x01"), ENT_WIRE_MALFORMED},
	{"table with a value in no key", read_table, BYTES("\x01\x01s\x01t\x01\x02\x01" "c\x00\x01x\x02\x00" COL("\x01")), ENT_WIRE_MALFORMED},
	{"row that is withdrawn and handed over", read_row, BYTES("\x13\x01k" NODE "\x01\x01"), ENT_WIRE_MALFORMED},
	{"row that is withdrawn and fresh", read_row, BYTES("\x07\x01k"), ENT_WIRE_MALFORMED},
	{"row with an unknown flag", read_row, BYTES("\x80\x02\x01k"), ENT_WIRE_MALFORMED},
	{"row that is deleted and has more than a version", read_row, BYTES("\x40\x02\x01k"), ENT_WIRE_MALFORMED},
	{"row that is handed over and has more than a version", read_row, BYTES("\x52\x02\x01k" NODE "\x01\x01"), ENT_WIRE_MALFORMED},
	{"full row that lives, from another", read_row, BYTES("\x22\x02\x01k" NODE "\x01\x01"), ENT_WIRE_MALFORMED},
	{"delta with an heir", read_row, BYTES("\x11\x04\x01k\x00\x00" NODE "\x01\x01"), ENT_WIRE_MALFORMED},
	{"row with an heir cut off", read_row, BYTES("\x10\x02\x01k\xb0"), ENT_WIRE_TRUNCATED},
	{"row with a serial below zero", read_row, BYTES("\x00\x15\x01k"), ENT_WIRE_OVERFLOW},
	{"row with the least difference", read_row, BYTES("\x00" HUGE "\x01k"), ENT_WIRE_OVERFLOW},
	{"row with a serial beyond 63 bits", read_late_row, BYTES("\x00\x04\x01k"), ENT_WIRE_OVERFLOW},
	{"row with a key of 8001 bytes", read_row, BYTES("\x00\x02\xc1\x3e"), ENT_WIRE_LIMIT},
	{"row with a base below zero", read_row, BYTES("\x01\x00\x01k\x0b\x00"), ENT_WIRE_OVERFLOW},
	{"row with a set of 201 bytes", read_row, BYTES("\x01\x00\x01k\x01\xc9\x01"), ENT_WIRE_LIMIT},
	{"present with an unknown bit", read_present, BYTES("\x01\x01\x01\x04"), ENT_WIRE_MALFORMED},
	{"present with a bound of 8001 bytes", read_present, BYTES("\x01\x01\x01\x02\xc1\x3e"), ENT_WIRE_LIMIT},
	{"want neither yes nor no", read_want, BYTES("\x01\x02\x01\x01"), ENT_WIRE_MALFORMED},
	{"want with a have beyond 63 bits", read_want, BYTES("\x01\x01\x01" HUGE), ENT_WIRE_OVERFLOW},
	{"claim of an owner too large", read_claim, BYTES("\xc1\x84\x3d\x01\x01"), ENT_WIRE_LIMIT},
	{"table state neither yes nor no", read_table_state, BYTES("\x01\xff"), ENT_WIRE_MALFORMED},
	{"confirm cut before from", read_confirm, BYTES("\x01\x01\x01q\x01\x01"), ENT_WIRE_TRUNCATED},
	{"confirm of an epoch beyond all", read_confirm, BYTES("\x01\x01\x01q\x80\x80\x80\x80\x08\x01"), ENT_WIRE_LIMIT},
	{"again with a key of 8001 bytes", read_again, BYTES("\x01\x01\xc1\x3e"), ENT_WIRE_LIMIT},
	{"again of a key that is cut", read_again, BYTES("\x01\x01\x03" "ab"), ENT_WIRE_TRUNCATED},
	{"gone in no epoch", read_gone, BYTES(NODE NODE "\x00"), ENT_WIRE_MALFORMED},
	{"gone in an epoch beyond 31 bits", read_gone, BYTES(NODE NODE "\x80\x80\x80\x80\x08"), ENT_WIRE_LIMIT},
	{"gone without its home", read_gone, BYTES(NODE), ENT_WIRE_TRUNCATED},
	{"homes of more owners than there can be", read_homes, BYTES("\xc1\x84\x3d"), ENT_WIRE_LIMIT},
	{"homes with half an id", read_homes, BYTES("\x01" NODE "\x01\x02"), ENT_WIRE_TRUNCATED},
	{"request to create from nothing", read_request, BYTES(ASK("\x00") "\x00\x00"), ENT_WIRE_OK},
	{"request to create", read_request, BYTES(ASK("\x00") "\x00\x01" ASKED), ENT_WIRE_OK},
	{"request to create with a key", read_request, BYTES(ASK("\x00") "\x01\x00" ASKED), ENT_WIRE_MALFORMED},
	{"request to forward", read_request, BYTES(ASK("\x01") "\x01\x01" ASKED ASKED), ENT_WIRE_OK},
	{"request to forward without a key", read_request, BYTES(ASK("\x01") "\x00\x01" ASKED), ENT_WIRE_MALFORMED},
	{"request to forward nothing", read_request, BYTES(ASK("\x01") "\x01\x00" ASKED), ENT_WIRE_MALFORMED},
	{"request to delete", read_request, BYTES(ASK("\x02") "\x01\x00" ASKED), ENT_WIRE_OK},
	{"request to delete without a key", read_request, BYTES(ASK("\x02") "\x00\x00"), ENT_WIRE_MALFORMED},
	{"request to delete a column", read_request, BYTES(ASK("\x02") "\x01\x01" ASKED ASKED), ENT_WIRE_MALFORMED},
	{"request of no operation", read_request, BYTES(ASK("\x03") "\x01\x01" ASKED ASKED), ENT_WIRE_MALFORMED},
	{"request with half an owner", read_request, BYTES(NODE "\x01\x02"), ENT_WIRE_TRUNCATED},
	{"request with more time than 63 bits", read_request, BYTES(NODE NODE "\x00" HUGE "\x01s\x01t\x00\x00"), ENT_WIRE_LIMIT},
	{"request without schema", read_request, BYTES(NODE NODE "\x00\x01\x00\x01t\x00\x00"), ENT_WIRE_MALFORMED},
	{"request without table", read_request, BYTES(NODE NODE "\x00\x01\x01s\x00\x00\x00"), ENT_WIRE_MALFORMED},
	{"request of a table of 253 bytes", read_request, BYTES(NODE NODE "\x00\x01\x01s\xfd\x01"), ENT_WIRE_LIMIT},
	{"request with 33 keys", read_request, BYTES(ASK("\x02") "\x21\x00"), ENT_WIRE_LIMIT},
	{"request with 1601 columns", read_request, BYTES(ASK("\x00") "\x00\xc1\x0c"), ENT_WIRE_LIMIT},
	{"request with more columns than bytes", read_request, BYTES(ASK("\x01") "\x01\x02" ASKED ASKED), ENT_WIRE_TRUNCATED},
	{"response neither yes nor no", read_response, BYTES(NODE "\x03\x01\x01\x00"), ENT_WIRE_MALFORMED},
	{"response of half a request", read_response, BYTES("\x01\x02"), ENT_WIRE_TRUNCATED},
	{"response with an epoch beyond 31 bits", read_response, BYTES(NODE "\x01" NODE "\x80\x80\x80\x80\x08\x01\x00"), ENT_WIRE_LIMIT},
	{"response with a serial beyond 63 bits", read_response, BYTES(NODE "\x01" NODE "\x01" HUGE "\x00"), ENT_WIRE_OVERFLOW},
	{"response with 33 keys", read_response, BYTES(NODE "\x01" NODE "\x01\x01\x21"), ENT_WIRE_LIMIT},
	{"response with more keys than bytes", read_response, BYTES(NODE "\x01" NODE "\x01\x01\x02" ASKED), ENT_WIRE_TRUNCATED},
	{"refusal", read_response, BYTES(REFUSAL("0AZ9P") "\x00"), ENT_WIRE_OK},
	{"refusal with a key", read_response, BYTES(REFUSAL("23505") "\x01" ASKED), ENT_WIRE_MALFORMED},
	{"refusal with a small letter", read_response, BYTES(REFUSAL("23p01") "\x00"), ENT_WIRE_MALFORMED},
	{"refusal before the digits", read_response, BYTES(REFUSAL("2350/") "\x00"), ENT_WIRE_MALFORMED},
	{"refusal behind the digits", read_response, BYTES(REFUSAL(":3505") "\x00"), ENT_WIRE_MALFORMED},
	{"refusal before the letters", read_response, BYTES(REFUSAL("23@05") "\x00"), ENT_WIRE_MALFORMED},
	{"refusal behind the letters", read_response, BYTES(REFUSAL("235[5") "\x00"), ENT_WIRE_MALFORMED},
	{"refusal with a NUL in its SQLSTATE", read_response, BYTES(REFUSAL("2350\x00") "\x00"), ENT_WIRE_MALFORMED},
	{"refusal with half a SQLSTATE", read_response, BYTES(NODE "\x00" "235"), ENT_WIRE_TRUNCATED},
	{"refusal with a message of 1001 bytes", read_response, BYTES(NODE "\x00" "23505\xe9\x07"), ENT_WIRE_LIMIT},
	{"refusal with a detail of 1001 bytes", read_response, BYTES(NODE "\x00" "23505\x00\xe9\x07"), ENT_WIRE_LIMIT},
	{"refusal with a constraint of 253 bytes", read_response, BYTES(NODE "\x00" "23505\x00\x00\xfd\x01"), ENT_WIRE_LIMIT},
	{"refusal with a NUL in its message", read_response, BYTES(NODE "\x00" "23505\x01\x00\x00\x00\x00"), ENT_WIRE_MALFORMED},
	{"subscribe with unknown bits", read_subscribe, BYTES("\x02"), ENT_WIRE_MALFORMED},
	{"subscribe of nothing", read_subscribe, BYTES(""), ENT_WIRE_TRUNCATED},
	{"subscribe to a table beyond 100000", read_subscribe, BYTES("\x01\xa1\x8d\x06\x01\x00"), ENT_WIRE_LIMIT},
	{"subscribe with a round beyond 63 bits", read_subscribe, BYTES("\x01\x05" HUGE "\x00"), ENT_WIRE_OVERFLOW},
	{"subscribe with a filter of 8193 bytes", read_subscribe, BYTES("\x01\x05\x01\x82\x40"), ENT_WIRE_LIMIT},
	{"subscribe with an empty filter", read_subscribe, BYTES("\x01\x05\x01\x01"), ENT_WIRE_MALFORMED},
	{"subscribe with a filter that is cut", read_subscribe, BYTES("\x01\x05\x01\x04" "a"), ENT_WIRE_TRUNCATED},
	{"subscribe with a NUL in a filter", read_subscribe, BYTES("\x01\x05\x01\x03" "a\x00"), ENT_WIRE_MALFORMED},
	{"filter state with a small letter", read_filter_state, BYTES("\x05\x01" "42p01\x00"), ENT_WIRE_MALFORMED},
	{"filter state with a message of 1001 bytes", read_filter_state, BYTES("\x05\x01" "42P01\xe9\x07"), ENT_WIRE_LIMIT},
	{"filter state of a table beyond 100000", read_filter_state, BYTES("\xa1\x8d\x06\x01" "00000\x00"), ENT_WIRE_LIMIT},
	{"field without name", read_field, BYTES("\x00\x01"), ENT_WIRE_MALFORMED},
	{"field with a name of 253 bytes", read_field, BYTES("\xfd\x01"), ENT_WIRE_LIMIT},
	{"field with a NUL in its name", read_field, BYTES("\x02" "a\x00\x01"), ENT_WIRE_MALFORMED},
	{"field without value", read_field, BYTES("\x01" "c"), ENT_WIRE_TRUNCATED},
	{"field that is cut", read_field, BYTES("\x01" "c\x03" "a"), ENT_WIRE_TRUNCATED},
	{"field with a value beyond 256 MiB", read_field, BYTES("\x01" "c\x82\x80\x80\x80\x01"), ENT_WIRE_LIMIT},
};

static void
check_refused(void)
{
	tap_promise("sections: what has no meaning or exceeds a limit is refused, "
				"for the right reason, and nothing else");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		uint8_t    *copy = malloc(refused[i].len);
		EntReader	r;

		memcpy(copy, refused[i].bytes, refused[i].len);
		ent_wire_reader_init(&r, copy, refused[i].len);
		refused[i].read(&r);
		CHECK_CASE(r.error == refused[i].error, refused[i].name);
		free(copy);
	}
}

static void
check_no_early_allocation(void)
{
	EntReader	r;
	EntWireTable t;

	tap_promise("sections: no memory is asked for before the bytes are there "
				"to fill it");
	memory.asked = 0;
	ent_wire_reader_init(&r, BYTES("\x01\x01s\x01t\x20\xc0\x0c" COL("\x01")));
	ent_wire_read_table(&r, &t, alloc_for_wire(&memory));
	CHECK(r.error == ENT_WIRE_TRUNCATED && memory.asked == 0);
	CHECK(t.columns == NULL && t.ncolumns == 0);
}

/* ---- whole batches ---- */

static bool
echoes_itself(const uint8_t *data, size_t len, bool *refused_it)
{
	EntWriter	out;
	uint8_t    *copy = malloc(len > 0 ? len : 1);
	EntWireError error;
	bool		same;

	memcpy(copy, data, len);
	ent_wire_writer_init(&out, alloc_for_wire(&memory));
	error = batch_echo(copy, len, &out, &memory);
	*refused_it = error != ENT_WIRE_OK;
	same = error != ENT_WIRE_OK ||
		(out.len == len && memcmp(out.data, data, len) == 0);
	alloc_release(&memory, out.data);
	free(copy);
	return same;
}

static void
check_batches(void)
{
	Random		r = {4};
	int			rounds = tap_long() ? 100000 : 3000;

	tap_promise("sections: random batches are read as written, to the byte");
	for (int i = 0; i < rounds; i++)
	{
		EntWriter	w;
		bool		refused_it;

		ent_wire_writer_init(&w, alloc_for_wire(&memory));
		batch_random(&w, &r, 20);
		CHECK(echoes_itself(w.data, w.len, &refused_it));
		CHECK(!refused_it);
		alloc_release(&memory, w.data);
	}
}

static void
check_cuts(void)
{
	Random		r = {5};
	int			rounds = tap_long() ? 5000 : 300;
	size_t		cuts = 0,
				noticed = 0;

	tap_promise("sections: a batch cut at any byte is refused, or ends between "
				"two sections");
	for (int i = 0; i < rounds; i++)
	{
		EntWriter	w;
		bool		refused_it;

		ent_wire_writer_init(&w, alloc_for_wire(&memory));
		batch_random(&w, &r, 6);
		for (size_t len = 0; len < w.len && len < 3000; len++)
		{
			CHECK(echoes_itself(w.data, len, &refused_it));
			cuts++;
			noticed += refused_it;
		}
		alloc_release(&memory, w.data);
	}
	CHECK(cuts - noticed <= (size_t) rounds * 6);
}

int
main(void)
{
	alloc_init(&memory);
	check_examples();
	check_fields();
	check_rows();
	check_requests();
	check_digests();
	check_ends();
	check_wishes();
	check_refused();
	check_no_early_allocation();
	check_batches();
	check_cuts();
	tap_promise("sections: nothing read is kept");
	CHECK(memory.pieces == 0);
	return tap_done();
}
