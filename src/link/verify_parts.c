/*
 * link/verify_parts.c
 *	  What differs: our rows against the parts that the peer tells of.
 *
 * The peer divides a range at keys of its own; we count and sum up our rows
 * between the same keys. A part that has rows on both sides, and more than one
 * on the peer's, is divided further; of a part with one row of the peer's all is
 * known. A row whose version differs is not wrong, only on its way.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "link/verify_private.h"
#include "store/owner.h"
#include "store/value.h"

#define PARTS	16				/* a range is divided into so many */

EntVerifyFinding *
ent_verify_add(EntVerify *v, EntVerifyTable *table, EntVerifyOwner *owner,
			   const char *what, int64 ours, int64 theirs)
{
	MemoryContext old = MemoryContextSwitchTo(v->context);
	EntVerifyFinding *f = palloc0(sizeof(EntVerifyFinding));

	f->d.what = what;
	f->d.ours = ours;
	f->d.theirs = theirs;
	f->table = table;
	f->owner = owner;
	if (table)
	{
		f->d.relation = table->name;
		f->d.rel = table->rel->no;
	}
	if (owner)
		f->d.owner = owner->name;
	v->findings = lappend(v->findings, f);
	MemoryContextSwitchTo(old);
	return f;
}

static bytea *
key_copy(EntVerify *v, const void *key, size_t len)
{
	bytea	   *b = MemoryContextAlloc(v->context, VARHDRSZ + len);

	SET_VARSIZE(b, VARHDRSZ + len);
	memcpy(VARDATA(b), key, len);
	return b;
}

static void
set_keys(EntVerify *v, EntVerifyFinding *f, const EntWirePart *part)
{
	EntRelation *rel = f->table->rel;
	Datum		values[ENT_WIRE_MAX_KEYS];
	MemoryContext old;

	/* where text is encoded otherwise, the order of keys means nothing */
	if (part->count == 0 || !f->table->ordered)
		return;
	/* what comes from a peer is to be shown: it must be a key */
	old = MemoryContextSwitchTo(v->context);
	f->d.first = ent_key_from_wire(rel, v->peer->role, part->first,
								   part->firstlen, values);
	f->d.last = ent_key_from_wire(rel, v->peer->role, part->last,
								  part->lastlen, values);
	MemoryContextSwitchTo(old);
}

static bool
newer(int32 epoch, int64 serial, int32 than_epoch, int64 than_serial)
{
	return epoch > than_epoch || (epoch == than_epoch && serial > than_serial);
}

static bool
same_sum(EntWireSum a, EntWireSum b)
{
	return a.high == b.high && a.low == b.low;
}

/* ---- totals ---- */

typedef struct Total
{
	pg_uuid_t	id;				/* of the owner, hash key; zeros: nobody */
	int32		no;				/* ours; 0: not known here */
	EntTally	ours;
	bool		told;			/* by the peer: */
	EntWirePart theirs;
} Total;

typedef struct Totals
{
	HTAB	   *all;			/* Total */
	MemoryContext context;
	int32		last_owner;		/* looked up last */
	pg_uuid_t	last_id;
} Totals;

static Total *
find_total(Totals *t, const pg_uuid_t *id)
{
	bool		found;
	Total	   *total = hash_search(t->all, id, HASH_ENTER, &found);

	if (!found)
		memset((char *) total + sizeof(pg_uuid_t), 0,
			   sizeof(Total) - sizeof(pg_uuid_t));
	return total;
}

static void
add_ours(void *arg, const EntDigestRow *row)
{
	Totals	   *t = arg;
	Total	   *total;

	if (row->owner != t->last_owner)
	{
		EntOwner   *o = row->owner == 0 ? NULL : ent_owner_get(row->owner);

		memset(&t->last_id, 0, sizeof(t->last_id));
		if (o != NULL)
			t->last_id = o->id;
		t->last_owner = row->owner;
	}
	total = find_total(t, &t->last_id);
	total->no = row->owner;
	ent_tally_add(&total->ours, row, t->context);
}

EntDigestJob
ent_verify_job(EntVerify *v, EntVerifyTable *table)
{
	EntDigestJob job = {
		.rel = table->rel, .peer = v->peer->no, .role = v->peer->role,
		.filter = table->show.filter, .nothing = table->show.nothing,
		.ncolumns = table->ncolumns, .columns = table->columns
	};

	return job;
}

static void
tally_ours(EntVerify *v, EntVerifyTable *table, Totals *t)
{
	EntDigestJob job = ent_verify_job(v, table);

	job.visit = add_ours;
	job.arg = t;
	job.snapshot = RegisterSnapshot(GetLatestSnapshot());
	ent_digest_objects(&job);
	ent_digest_strangers(&job);
	UnregisterSnapshot(job.snapshot);
}

void
ent_verify_add_task(EntVerify *v, EntVerifyTable *table, EntVerifyOwner *owner,
					bytea *lo, bytea *hi, uint64 count)
{
	MemoryContext old = MemoryContextSwitchTo(v->context);
	EntVerifyTask *task = palloc0(sizeof(EntVerifyTask));

	task->table = table;
	task->owner = owner;
	task->lo = lo;
	task->hi = hi;
	/* without a common order of keys there are no parts */
	task->each = table->ordered ? Max((count + PARTS - 1) / PARTS, 1) :
		PG_INT64_MAX;
	v->tasks = lappend(v->tasks, task);
	v->ranges++;
	MemoryContextSwitchTo(old);
}

static bool
is_nobody(const pg_uuid_t *id)
{
	pg_uuid_t	none = {{0}};

	return memcmp(id, &none, sizeof(none)) == 0;
}

/* Rows that are no objects: each side's own affair. */
static void
judge_nobody(EntVerify *v, EntVerifyTable *table, Total *t)
{
	EntWirePart ours;

	ent_tally_part(&t->ours, &ours);
	if (ours.count > 0)
		set_keys(v, ent_verify_add(v, table, NULL, "no object here", ours.count, -1),
				 &ours);
	if (t->told && t->theirs.count > 0)
		set_keys(v, ent_verify_add(v, table, NULL, "no object there", -1,
								   t->theirs.count), &t->theirs);
}

/*
 * Of what one of us does not have from the other, each has what it wants from
 * somebody else, if one of us is selective.
 */
static bool
comparable(EntVerify *v, EntVerifyOwner *owner)
{
	EntOwner   *o = owner->no == 0 ? NULL : ent_owner_get(owner->no);

	return !v->selective || owner->from_us ||
		(o != NULL && o->peer == v->peer->no);
}

static void
judge_total(EntVerify *v, EntVerifyTable *table, Total *t)
{
	EntVerifyOwner *owner;

	if (is_nobody(&t->id))
	{
		judge_nobody(v, table, t);
		return;
	}
	if (t->ours.count == t->theirs.count && same_sum(t->ours.sum, t->theirs.sum))
		return;
	owner = ent_verify_owner(v, t->id.data);
	if (owner->no == 0)
		owner->no = t->no;
	if (!comparable(v, owner))
		return;
	ent_verify_add_task(v, table, owner, NULL, NULL, t->theirs.count);
}

static void
judge_table(EntVerify *v, EntVerifyTable *table, Totals *t)
{
	HASH_SEQ_STATUS seq;
	Total	   *total;

	hash_seq_init(&seq, t->all);
	while ((total = hash_seq_search(&seq)) != NULL)
		judge_total(v, table, total);
}

static void
take_total(EntReader *body, Totals **totals, int n)
{
	EntWireDigest d;
	EntWirePart part;
	pg_uuid_t	id;
	Total	   *t;

	ent_wire_read_digest(body, &d);
	ent_wire_read_part(body, &part);
	ent_verify_check(body, "digest");
	if (d.compare >= n)
		ent_verify_complain("It answers what was not asked.");
	memcpy(id.data, d.owner.bytes, UUID_LEN);
	if (hash_get_num_entries(totals[d.compare]->all) > ENT_VERIFY_MAX_OWNERS)
		ent_verify_complain("It tells of too many owners.");
	t = find_total(totals[d.compare], &id);
	if (t->told)
		ent_verify_complain("It answers twice.");
	t->told = true;
	t->theirs = part;
}

void
ent_verify_totals(EntVerify *v, EntReader *r, int first, int n)
{
	Totals	  **totals = palloc(n * sizeof(Totals *));
	EntReader	body;
	unsigned	type;

	for (int i = 0; i < n; i++)
	{
		HASHCTL		ctl = {.keysize = sizeof(pg_uuid_t), .entrysize = sizeof(Total),
		.hcxt = CurrentMemoryContext};

		totals[i] = palloc0(sizeof(Totals));
		totals[i]->context = CurrentMemoryContext;
		totals[i]->last_owner = -1;
		totals[i]->all = hash_create("entanglement totals", 16, &ctl,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		tally_ours(v, list_nth(v->tables, first + i), totals[i]);
	}
	while (ent_wire_read_section(r, &type, &body))
	{
		if (type != ENT_SECTION_DIGEST)
			ent_verify_complain("It is not a digest.");
		take_total(&body, totals, n);
	}
	ent_verify_check(r, "sections");
	for (int i = 0; i < n; i++)
		judge_table(v, list_nth(v->tables, first + i), totals[i]);
}

/* ---- parts ---- */

/* Our rows in one part: around the peer's only row there, if it has but one. */
typedef struct Slot
{
	EntTally	before;			/* all, unless the peer has one row */
	EntTally	at;
	EntTally	after;
} Slot;

typedef struct Parts
{
	EntVerify  *v;
	EntVerifyTask *task;
	EntWirePart *parts;
	int			n;
	Slot	   *slots;
	int			current;
	MemoryContext context;
} Parts;

static int
compare_to(const EntDigestRow *row, const EntWirePart *part)
{
	return ent_tally_compare(row->key, row->keylen, part->last, part->lastlen);
}

static void
add_to_part(void *arg, const EntDigestRow *row)
{
	Parts	   *p = arg;
	Slot	   *s;
	int			c;

	while (p->current < p->n - 1 && compare_to(row, &p->parts[p->current]) > 0)
		p->current++;
	s = &p->slots[p->current];
	c = p->parts[p->current].count == 1 ?
		compare_to(row, &p->parts[p->current]) : -1;
	ent_tally_add(c < 0 ? &s->before : c == 0 ? &s->at : &s->after, row,
				  p->context);
}

/* Rises strictly, and within the range that was asked for? */
static void
check_part(Parts *p, const EntWirePart *part)
{
	EntVerifyTask *t = p->task;
	const EntWirePart *prev = p->n > 0 ? &p->parts[p->n - 1] : NULL;

	if (p->n == ENT_WIRE_MAX_PARTS || (prev && prev->count == 0) ||
		(part->count == 0 && prev))
		ent_verify_complain("It has parts that make no sense.");
	if (part->count == 0)
		return;
	if (ent_tally_compare(part->first, part->firstlen, part->last, part->lastlen) > 0 ||
		(prev && ent_tally_compare(part->first, part->firstlen,
								   prev->last, prev->lastlen) <= 0) ||
		(t->lo && ent_tally_compare(part->first, part->firstlen, VARDATA(t->lo),
									VARSIZE(t->lo) - VARHDRSZ) <= 0) ||
		(t->hi && ent_tally_compare(part->last, part->lastlen, VARDATA(t->hi),
									VARSIZE(t->hi) - VARHDRSZ) > 0))
		ent_verify_complain("Its keys are out of order.");
}

static void
read_parts(Parts *p, EntReader *body)
{
	p->parts = palloc(ENT_WIRE_MAX_PARTS * sizeof(EntWirePart));
	while (!ent_wire_at_end(body))
	{
		EntWirePart part;

		ent_wire_read_part(body, &part);
		ent_verify_check(body, "part");
		check_part(p, &part);
		p->parts[p->n++] = part;
	}
	if (p->n == 0)
		ent_verify_complain("It has no parts.");
}

static void
read_ours(Parts *p)
{
	EntVerifyTask *t = p->task;
	EntDigestJob job = ent_verify_job(p->v, t->table);

	job.owner = t->owner->no;
	job.lo = t->lo;
	job.hi = t->hi;
	job.visit = add_to_part;
	job.arg = p;
	p->slots = palloc0(p->n * sizeof(Slot));
	if (t->owner->no == 0)
		return;					/* nothing of his is here */
	job.snapshot = RegisterSnapshot(GetLatestSnapshot());
	ent_digest_objects(&job);
	UnregisterSnapshot(job.snapshot);
}

/* The range of part i. */
static bytea *
low_bound(Parts *p, int i)
{
	return i == 0 ? p->task->lo :
		key_copy(p->v, p->parts[i - 1].last, p->parts[i - 1].lastlen);
}

static bytea *
high_bound(Parts *p, int i)
{
	return i == p->n - 1 ? p->task->hi :
		key_copy(p->v, p->parts[i].last, p->parts[i].lastlen);
}

static EntVerifyFinding *
list_part(Parts *p, int i, const char *what, const EntWirePart *keys,
		  uint64 ours, uint64 theirs)
{
	EntVerifyFinding *f = ent_verify_add(p->v, p->task->table, p->task->owner,
										 what, ours, theirs);

	set_keys(p->v, f, keys);
	f->lo = low_bound(p, i);
	f->hi = high_bound(p, i);
	f->begins = f->ends = true;
	return f;
}

/* Rows of ours that the peer does not have, or not yet. */
static void
judge_surplus(Parts *p, int i, const EntTally *tally)
{
	EntVerifyOwner *o = p->task->owner;
	EntVerifyFinding *f;
	EntWirePart ours;

	if (tally->count == 0)
		return;
	ent_tally_part(tally, &ours);
	f = list_part(p, i, (tally->count == 1 && tally->unfolded) ||
				  newer(tally->epoch, tally->serial, o->epoch, o->serial) ?
				  "newer here" : "missing there", &ours, tally->count, 0);
	f->begins = tally == &p->slots[i].before;
	f->ends = p->parts[i].count == 0 || tally == &p->slots[i].after;
}

/* Rows of the peer's that we do not have, or not yet. */
static void
judge_missing(Parts *p, int i)
{
	const EntWirePart *part = &p->parts[i];
	EntOwner   *o = p->task->owner->no ? ent_owner_get(p->task->owner->no) : NULL;

	(void) list_part(p, i, (part->count == 1 && part->unfolded) || o == NULL ||
			  newer(part->epoch, part->serial, o->epoch, o->serial) ?
			  "newer there" : "missing here", part, 0, part->count);
}

/* The same row at both. */
static void
judge_row(Parts *p, int i, const EntTally *ours)
{
	const EntWirePart *theirs = &p->parts[i];
	const char *what = "differs";
	EntVerifyFinding *f;

	if (same_sum(ours->sum, theirs->sum))
		return;
	if (ours->unfolded || newer(ours->epoch, ours->serial,
								theirs->epoch, theirs->serial))
		what = "newer here";
	else if (theirs->unfolded || newer(theirs->epoch, theirs->serial,
									   ours->epoch, ours->serial))
		what = "newer there";
	f = list_part(p, i, what, theirs, 1, 1);
	f->begins = p->slots[i].before.count == 0;
	f->ends = p->slots[i].after.count == 0;
}

static void
judge_many(Parts *p, int i, const EntTally *ours)
{
	const EntWirePart *theirs = &p->parts[i];

	if (ours->count == theirs->count && same_sum(ours->sum, theirs->sum))
		return;
	if (ours->count == 0)
		judge_missing(p, i);
	else if (p->n == 1 || p->v->ranges >= ENT_VERIFY_MAX_RANGES ||
			 p->v->rounds >= ENT_VERIFY_MAX_ROUNDS)
		(void) list_part(p, i, "differs", theirs, ours->count, theirs->count);
	else
		ent_verify_add_task(p->v, p->task->table, p->task->owner,
							low_bound(p, i), high_bound(p, i), theirs->count);
}

void
ent_verify_parts(EntVerify *v, EntVerifyTask *task, EntReader *body)
{
	Parts		p = {.v = v, .task = task, .context = CurrentMemoryContext};

	read_parts(&p, body);
	read_ours(&p);
	for (int i = 0; i < p.n; i++)
	{
		Slot	   *s = &p.slots[i];

		if (p.parts[i].count > 1)
		{
			judge_many(&p, i, &s->before);
			continue;
		}
		judge_surplus(&p, i, &s->before);
		if (p.parts[i].count == 1 && s->at.count == 0)
			judge_missing(&p, i);
		else if (p.parts[i].count == 1)
			judge_row(&p, i, &s->at);
		judge_surplus(&p, i, &s->after);
	}
}
