/*
 * test/unit_coalesce.c
 *	  Promises of rule/coalesce.h.
 */
#include <stdio.h>
#include <string.h>

#include "rule/coalesce.h"
#include "tap.h"

/* ops: the operations folded, in this order */
static const struct
{
	const char *ops;
	EntVerdict	verdict;
}			verdicts[] = {
	{"", ENT_VERDICT_TOUCH},
	{"U", ENT_VERDICT_TOUCH},
	{"UUU", ENT_VERDICT_TOUCH},
	{"I", ENT_VERDICT_BIRTH},
	{"IU", ENT_VERDICT_BIRTH},
	{"UI", ENT_VERDICT_BIRTH},
	{"D", ENT_VERDICT_DEATH},
	{"UD", ENT_VERDICT_DEATH},
	{"DU", ENT_VERDICT_DEATH},
	{"T", ENT_VERDICT_DEATH},
	{"ID", ENT_VERDICT_LOOK},
	{"DI", ENT_VERDICT_LOOK},
	{"IUDI", ENT_VERDICT_LOOK},
	{"?", ENT_VERDICT_TOUCH},
};

static void
check_verdicts(void)
{
	tap_promise("coalesce: the verdict is right for every mixture of "
				"operations");
	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++)
	{
		EntFolded	f;

		ent_coalesce_init(&f);
		for (const char *op = verdicts[i].ops; *op != '\0'; op++)
			ent_coalesce_add(&f, *op, 1, 100, NULL, 0);
		CHECK_CASE(ent_coalesce_verdict(&f) == verdicts[i].verdict,
				   verdicts[i].ops);
		CHECK_CASE(f.changes == strlen(verdicts[i].ops), verdicts[i].ops);
	}
}

static void
check_sets(void)
{
	uint8_t		first[1] = {0x05};
	uint8_t		second[3] = {0x10, 0x00, 0x80};
	uint8_t		much[ENT_SET_MAX_BYTES + 50];
	EntFolded	f;

	tap_promise("coalesce: changed columns are joined, none beyond 1600");
	ent_coalesce_init(&f);
	ent_coalesce_add(&f, 'U', 0, 1, second, 3);
	ent_coalesce_add(&f, 'U', 0, 1, first, 1);
	CHECK(f.setlen == 3);
	CHECK(f.set[0] == 0x15 && f.set[1] == 0 && f.set[2] == 0x80);
	memset(much, 0xff, sizeof(much));
	ent_coalesce_add(&f, 'U', 0, 1, much, sizeof(much));
	CHECK(f.setlen == ENT_SET_MAX_BYTES);
	CHECK(f.set[ENT_SET_MAX_BYTES - 1] == 0xff);
}

static void
check_births(void)
{
	EntFolded	f;

	tap_promise("coalesce: of several births the youngest transaction's "
				"counts, also when transaction numbers wrap around");
	ent_coalesce_init(&f);
	ent_coalesce_add(&f, 'I', 7, 5, NULL, 0);
	ent_coalesce_add(&f, 'D', 0, 6, NULL, 0);
	ent_coalesce_add(&f, 'I', 8, UINT32_MAX - 3, NULL, 0);
	ent_coalesce_add(&f, 'D', 0, UINT32_MAX - 2, NULL, 0);
	CHECK(f.owner == 7 && f.insert_xid == 5 && f.delete_xid == 6);
	ent_coalesce_add(&f, 'I', 9, 5, NULL, 0);
	CHECK(f.owner == 9);
}

typedef struct Change
{
	char		op;
	int32_t		owner;
	uint32_t	xid;
	uint8_t		set[4];
} Change;

static void
fold(EntFolded *f, const Change *c, int n)
{
	ent_coalesce_init(f);
	for (int i = 0; i < n; i++)
		ent_coalesce_add(f, c[i].op, c[i].owner, c[i].xid, c[i].set,
						 c[i].op == 'U' ? sizeof(c[i].set) : 0);
}

static void
check_any_order(void)
{
	Random		r = {1};

	tap_promise("coalesce: changes of different transactions fold the same in "
				"any order");
	for (int round = 0; round < 2000; round++)
	{
		Change		c[8];
		int			n = (int) random_below(&r, 8) + 1;
		EntFolded	a,
					b;

		for (int i = 0; i < n; i++)
		{
			c[i].op = "IUD"[random_below(&r, 3)];
			c[i].owner = (int32_t) random_below(&r, 3) + 1;
			c[i].xid = (uint32_t) i * 1000 + UINT32_MAX - 3000;
			random_fill(&r, c[i].set, sizeof(c[i].set));
		}
		fold(&a, c, n);
		for (int i = n - 1; i > 0; i--)
		{
			int			j = (int) random_below(&r, (uint64_t) i + 1);
			Change		swap = c[i];

			c[i] = c[j];
			c[j] = swap;
		}
		fold(&b, c, n);
		CHECK(memcmp(&a, &b, sizeof(a)) == 0);
	}
}

static void
check_column(void)
{
	EntFolded	a,
				b;
	uint8_t		set[3] = {0, 0, 0x10};

	ent_coalesce_init(&a);
	ent_coalesce_init(&b);
	ent_coalesce_add(&a, 'U', 0, 1, set, sizeof(set));
	ent_coalesce_add(&b, 'U', 0, 1, NULL, 0);
	ent_coalesce_column(&b, 20);
	CHECK(memcmp(&a, &b, sizeof(a)) == 0);
	ent_coalesce_column(&b, -1);
	ent_coalesce_column(&b, ENT_SET_MAX_BYTES * 8);
	CHECK(memcmp(&a, &b, sizeof(a)) == 0);
	ent_coalesce_column(&b, ENT_SET_MAX_BYTES * 8 - 1);
	CHECK(b.setlen == ENT_SET_MAX_BYTES && b.set[ENT_SET_MAX_BYTES - 1] == 0x80);
}

int
main(void)
{
	check_column();
	check_verdicts();
	check_sets();
	check_births();
	check_any_order();
	return tap_done();
}
