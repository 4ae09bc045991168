/*
 * link/inobject.c
 *	  The receiving end: objects, and which keys live.
 *
 * Rows are read and applied a thousand at a time, so that memory stays
 * bounded. Those of an owner that this peer may not speak for, or of a table
 * that does not fit, are read all the same: the batch is checked to its end.
 * What cannot be stored as it came is asked for again by the answer.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "link/inbound_private.h"
#include "step/apply.h"
#include "store/life.h"
#include "store/owner.h"
#include "store/value.h"

#define MAX_ASKED		1000000 /* objects of one batch asked for; others of
								 * it are parked and asked for later */
#define MAX_ROWS		1000	/* rows read and applied at a time */

/* ---- rows ---- */

/* Reads a row's values into arrays by our columns. */
static void
read_values(EntReader *body, EntInTable *t, EntRelation *rel,
			const EntWireRow *wire, EntApplyRow *row)
{
	for (unsigned i = 0; i < t->wire.ncolumns; i++)
	{
		const uint8 *data;
		size_t		len;
		bool		isnull;
		int			c;

		if (wire->op == ENT_ROW_DELTA ?
			!ent_wire_in_set(wire->set, wire->setlen, i) :
			t->wire.columns[i].in_key_only)
			continue;
		data = ent_wire_read_value(body, &len, &isnull);
		ent_inbound_check(body, "value");
		if (rel == NULL || (c = t->map[i]) < 0)
			continue;
		row->set[c] = true;
		row->data[c] = isnull ? NULL : (const char *) data;
		row->len[c] = len;
	}
}

/*
 * In an epoch of which we have not heard an owner is not known here. dead: he
 * is no more.
 */
static EntHand
hand_of(const EntWireUuid *wire, uint32 epoch, int64 serial, bool *dead)
{
	EntHand		hand = {.epoch = epoch,.serial = serial};
	EntOwner   *owner;
	EntGrave	grave;
	pg_uuid_t	id;

	memcpy(id.data, wire->bytes, UUID_LEN);
	owner = ent_owner_by_id(&id);
	*dead = (owner == NULL || owner->gone) && ent_life_grave(&id, &grave) &&
		grave.epoch >= hand.epoch;
	if (owner != NULL && !*dead && hand.epoch > 0 && hand.epoch <= owner->epoch)
		hand.owner = owner->no;
	return hand;
}

/* Reads one row; rel NULL: only checks it. */
static void
read_row(EntReader *body, EntInTable *t, EntRelation *rel, EntApplyRow *r,
		 int64 *last)
{
	EntWireRow	wire;
	bool		dead = false;

	ent_wire_read_row(body, &wire, last);
	ent_inbound_check(body, "row");
	memset(r, 0, sizeof(EntApplyRow));
	r->op = wire.op;
	r->flags = wire.flags;
	r->serial = wire.serial;
	r->base = wire.base;
	r->wirekey = wire.key;
	r->wirekeylen = wire.keylen;
	if (wire.op == ENT_ROW_WITHDRAW)
	{
		r->op = ENT_ROW_DELETE;
		r->flags = ENT_ROW_REFRESH | ENT_ROW_LATE;
		r->withdrawn = true;
		return;
	}
	if (rel && (wire.flags & ENT_ROW_HEIR))
		r->heir = hand_of(&wire.heir, wire.heir_epoch, wire.heir_serial, &dead);
	if (dead)
	{
		/* he has taken it along */
		r->op = ENT_ROW_DELETE;
		r->flags &= ~ENT_ROW_HEIR;
	}
	if (rel && (wire.flags & ENT_ROW_FROM))
		r->from = hand_of(&wire.from, wire.from_epoch, wire.from_serial, &dead);
	if (wire.op == ENT_ROW_DELETE)
		return;
	if (rel)
	{
		r->set = palloc0(rel->ncolumns * sizeof(bool));
		r->data = palloc0(rel->ncolumns * sizeof(char *));
		r->len = palloc0(rel->ncolumns * sizeof(size_t));
	}
	read_values(body, t, rel, &wire, r);
}

static void
ask_again(EntInbound *ib, EntInTable *t, EntInOwner *in, EntApplyRow *r)
{
	MemoryContext old = MemoryContextSwitchTo(ib->batch);
	EntInAgain *a = palloc(sizeof(EntInAgain));

	a->table = t->number;
	a->owner = in->number;
	a->key = r->wirekey;
	a->keylen = r->wirekeylen;
	ib->again = lappend(ib->again, a);
	MemoryContextSwitchTo(old);
}

static EntApply
apply_to(EntInbound *ib, EntInTable *t, EntInOwner *in, EntRelation *rel,
		 int32 epoch)
{
	EntApply	a = {
		.rel = rel, .role = ib->role, .peer = ib->peer, .owner = in->no,
		.epoch = epoch, .have = in->epoch == epoch ? in->told : 0,
		.base = in->base_epoch == epoch ? in->base_have : 0,
		.home = in->distance == 0,
		.formats = t->formats, .sender_types = t->sender_types,
		.integrity = ib->integrity,
		.listen = ent_hooks_for(ENT_HOOK_LISTEN, rel, ib->peer, ib->role),
		.constructed = ent_hooks_for(ENT_HOOK_CONSTRUCTED, rel, ib->peer, ib->role)
	};

	return a;
}

/* Applies the next rows of the section; a NULL: only checks them. */
static void
take_rows(EntInbound *ib, EntReader *body, EntInTable *t, EntInOwner *in,
		  EntApply *a, int64 *last)
{
	EntApplyRow *rows = palloc(MAX_ROWS * sizeof(EntApplyRow));
	int			n = 0,
				level;

	CHECK_FOR_INTERRUPTS();
	if (ib->meanwhile != NULL)
		ib->meanwhile(ib->meanwhile_arg);
	while (n < MAX_ROWS && !ent_wire_at_end(body))
		read_row(body, t, a ? a->rel : NULL, &rows[n++], last);
	if (a == NULL)
		return;
	level = ent_value_enter();
	ent_apply(a, rows, n);
	ent_value_leave(level);
	for (int i = 0; i < n; i++)
	{
		if (rows[i].again && list_length(ib->again) < MAX_ASKED)
			ask_again(ib, t, in, &rows[i]);
		if (rows[i].kept > in->kept && in->distance == 0)
		{
			in->kept_epoch = a->epoch;
			in->kept = rows[i].kept;
		}
	}
	pg_atomic_fetch_add_u64(&ib->slot->objects_received, n);
}

void
ent_inbound_take_objects(EntInbound *ib, EntReader *body)
{
	EntWireObjects head;
	EntInTable *t;
	EntInOwner *in;
	EntRelation *rel;
	EntApply	a;
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement rows",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	int64		last = 0;

	ent_wire_read_objects(body, &head);
	ent_inbound_check(body, "objects");
	t = ent_inbound_announced_table(ib, head.table);
	in = ent_inbound_authorized_owner(ib, head.owner, t->rel);
	rel = ent_inbound_relation(ib, t);
	if (in && !ent_inbound_epoch_counts(ib, in, head.epoch, t->rel))
		in = NULL;				/* an older epoch has nothing to say */
	if (in && rel)
		a = apply_to(ib, t, in, rel, head.epoch);
	old = MemoryContextSwitchTo(chunk);
	while (!ent_wire_at_end(body))
	{
		take_rows(ib, body, t, in, in && rel ? &a : NULL, &last);
		MemoryContextReset(chunk);
	}
	MemoryContextSwitchTo(old);
	ent_inbound_check(body, "objects");
}

/* ---- which keys live ---- */

void
ent_inbound_take_present(EntInbound *ib, EntReader *body)
{
	EntWirePresent p;
	EntInTable *t;
	EntInOwner *in;
	EntRelation *rel;
	EntApply	a;
	EntApplyPresent here = {0};

	ent_wire_read_present(body, &p);
	ent_inbound_check(body, "present");
	t = ent_inbound_announced_table(ib, p.table);
	in = ent_inbound_authorized_owner(ib, p.owner, t->rel);
	rel = ent_inbound_relation(ib, t);
	if (in == NULL || rel == NULL)
		return;
	here.lo = (EntApplyKey) {p.has_lo ? p.lo : NULL, p.lolen};
	here.hi = (EntApplyKey) {p.has_hi ? p.hi : NULL, p.hilen};
	here.keys = palloc(ENT_WIRE_MAX_PRESENT * sizeof(EntApplyKey));
	while (!ent_wire_at_end(body))
	{
		EntApplyKey key;

		key.data = ent_wire_read_bytes(body, ENT_WIRE_MAX_KEY, &key.len);
		if (here.nkeys == ENT_WIRE_MAX_PRESENT)
			ent_wire_fail(body, ENT_WIRE_LIMIT);
		ent_inbound_check(body, "present");
		here.keys[here.nkeys++] = key;
	}
	ent_inbound_check(body, "present");
	a = apply_to(ib, t, in, rel, in->sender_epoch);
	ent_apply_present(&a, &here, p.serial);
}
