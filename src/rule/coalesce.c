/*
 * rule/coalesce.c
 *	  Many captured changes of one object become one.
 *
 * Contract in rule/coalesce.h. Everything is a union or a maximum, so the
 * order in which changes are added does not matter, except between several
 * INSERTs of one transaction (of which the last one added counts).
 */
#include "rule/coalesce.h"

#include <string.h>

void
ent_coalesce_init(EntFolded *f)
{
	memset(f, 0, sizeof(*f));
}

/* Transaction numbers wrap around: younger is less than half a circle on. */
static bool
not_older(uint32_t xid, uint32_t than)
{
	return (int32_t) (xid - than) >= 0;
}

static void
join_set(EntFolded *f, const uint8_t *set, size_t setlen)
{
	if (setlen > ENT_SET_MAX_BYTES)
		setlen = ENT_SET_MAX_BYTES;
	for (size_t i = 0; i < setlen; i++)
		f->set[i] |= set[i];
	if (setlen > f->setlen)
		f->setlen = (uint16_t) setlen;
}

static void
add_insert(EntFolded *f, int32_t owner, uint32_t xid)
{
	/* the log does not tell whose it is: 0, which must not hide what was told */
	if (owner == 0 && f->owner != 0)
		f->born = true;
	else if (!f->born || not_older(xid, f->insert_xid))
	{
		f->owner = owner;
		f->insert_xid = xid;
	}
	f->born = true;
}

static void
add_delete(EntFolded *f, uint32_t xid)
{
	if (!f->died || not_older(xid, f->delete_xid))
		f->delete_xid = xid;
	f->died = true;
}

void
ent_coalesce_add(EntFolded *f, char op, int32_t owner, uint32_t xid,
				 const uint8_t *set, size_t setlen)
{
	if (op == ENT_CHANGE_INSERT)
		add_insert(f, owner, xid);
	else if (op == ENT_CHANGE_DELETE || op == ENT_CHANGE_TRUNCATE)
		add_delete(f, xid);
	join_set(f, set, setlen);
	if (f->changes < UINT32_MAX)
		f->changes++;
}

void
ent_coalesce_column(EntFolded *f, int bit)
{
	if (bit < 0 || bit / 8 >= ENT_SET_MAX_BYTES)
		return;
	f->set[bit / 8] |= 1 << (bit % 8);
	if (bit / 8 >= f->setlen)
		f->setlen = (uint16_t) (bit / 8 + 1);
}

EntVerdict
ent_coalesce_verdict(const EntFolded *f)
{
	if (!f->died)
		return f->born ? ENT_VERDICT_BIRTH : ENT_VERDICT_TOUCH;
	return f->born ? ENT_VERDICT_LOOK : ENT_VERDICT_DEATH;
}
