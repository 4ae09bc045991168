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

#include "common/hashfn.h"
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
#define SEEN_BITS		(1 << 18)

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

/*
 * Rows of a table that are applied together, whosever they are: who has many owners has
 * few rows of each in a batch. What dies under one owner and is born under another is
 * in two sections, though, and is done in that order.
 */
typedef struct Taking
{
	EntInbound *ib;
	EntInTable *t;
	MemoryContext chunk;		/* of these: */
	EntApplyRow *rows;
	EntInOwner **owners;		/* each row's */
	int			n;
	uint8	   *seen;			/* bits of the keys' hashes */
} Taking;

static Taking
begin_taking(EntInbound *ib, EntInTable *t)
{
	Taking		k = {.ib = ib,.t = t};

	k.chunk = AllocSetContextCreate(CurrentMemoryContext, "entanglement rows",
									ALLOCSET_DEFAULT_SIZES);
	k.rows = palloc(MAX_ROWS * sizeof(EntApplyRow));
	k.owners = palloc(MAX_ROWS * sizeof(EntInOwner *));
	k.seen = palloc0(SEEN_BITS / 8);
	return k;
}

static void
note_answers(Taking *k)
{
	for (int i = 0; i < k->n; i++)
	{
		EntApplyRow *r = &k->rows[i];
		EntInOwner *in = k->owners[i];

		if (r->again && list_length(k->ib->again) < MAX_ASKED)
			ask_again(k->ib, k->t, in, r);
		if (r->kept > in->kept && in->distance == 0)
		{
			in->kept_epoch = r->a->epoch;
			in->kept = r->kept;
		}
	}
}

/* Applies what has been gathered. */
static void
apply_taken(Taking *k)
{
	int			level;

	CHECK_FOR_INTERRUPTS();
	if (k->ib->meanwhile != NULL)
		k->ib->meanwhile(k->ib->meanwhile_arg);
	if (k->n == 0)
		return;
	level = ent_value_enter();
	ent_apply(k->rows, k->n);
	ent_value_leave(level);
	note_answers(k);
	pg_atomic_fetch_add_u64(&k->ib->slot->objects_received, k->n);
	k->n = 0;
	memset(k->seen, 0, SEEN_BITS / 8);
	MemoryContextReset(k->chunk);
}

/* Is that object among those gathered, or another one with such a hash? */
static bool
seen_before(Taking *k, const EntApplyRow *r)
{
	uint32		bit = hash_bytes(r->wirekey, r->wirekeylen) % SEEN_BITS;
	bool		seen = (k->seen[bit / 8] >> bit % 8) & 1;

	k->seen[bit / 8] |= 1 << bit % 8;
	return seen && k->rows[0].a != r->a;
}

/* Gathers the next row of a section; a NULL: only checks it. */
static void
take_row(Taking *k, EntReader *body, EntInOwner *in, EntApply *a, int64 *last)
{
	EntReader	at = *body;
	int64		was = *last;
	EntApplyRow *r = &k->rows[k->n];

	read_row(body, k->t, a ? a->rel : NULL, r, last);
	if (a == NULL)
		return;
	r->a = a;
	if (seen_before(k, r))
	{
		/* it is read again, since what it holds goes with the others */
		apply_taken(k);
		*body = at;
		*last = was;
		take_row(k, body, in, a, last);
		return;
	}
	k->owners[k->n++] = in;
	if (k->n == MAX_ROWS)
		apply_taken(k);
}

static void
take_section(Taking *k, EntReader *body)
{
	EntWireObjects head;
	EntInOwner *in;
	EntRelation *rel;
	EntApply   *a = NULL;
	MemoryContext old;
	int64		last = 0;

	ent_wire_read_objects(body, &head);
	ent_inbound_check(body, "objects");
	in = ent_inbound_authorized_owner(k->ib, head.owner, k->t->rel);
	rel = ent_inbound_relation(k->ib, k->t);
	if (in && !ent_inbound_epoch_counts(k->ib, in, head.epoch, k->t->rel))
		in = NULL;				/* an older epoch has nothing to say */
	if (in && rel)
	{
		a = palloc(sizeof(EntApply));
		*a = apply_to(k->ib, k->t, in, rel, head.epoch);
	}
	old = MemoryContextSwitchTo(k->chunk);
	while (!ent_wire_at_end(body))
		take_row(k, body, in, a, &last);
	MemoryContextSwitchTo(old);
	ent_inbound_check(body, "objects");
}

/* Is it of objects, and of that table? */
static bool
goes_along(const EntInSection *s, uint32 table)
{
	EntReader	body = s->body;
	EntWireObjects head;

	if (s->type != ENT_SECTION_OBJECTS)
		return false;
	ent_wire_read_objects(&body, &head);
	return body.error == ENT_WIRE_OK && head.table == table;
}

int
ent_inbound_take_objects(EntInbound *ib, const EntInSection *sections, int n)
{
	EntReader	body = sections[0].body;
	EntWireObjects head;
	Taking		k;
	int			i = 0;

	ent_wire_read_objects(&body, &head);
	ent_inbound_check(&body, "objects");
	k = begin_taking(ib, ent_inbound_announced_table(ib, head.table));
	do
	{
		body = sections[i].body;
		take_section(&k, &body);
	} while (++i < n && goes_along(&sections[i], head.table));
	apply_taken(&k);
	return i;
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
