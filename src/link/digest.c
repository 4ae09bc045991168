/*
 * link/digest.c
 *	  What a peer that compares its rows with ours is told of them.
 *
 * The asked side of entanglement.verify. It keeps nothing between two
 * questions. A range is divided where a row is that the role may see, so the
 * keys that bound the parts tell nothing new (I5).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "guard/show.h"
#include "link/describe.h"
#include "link/digest.h"
#include "link/tally.h"
#include "store/owner.h"
#include "store/value.h"

typedef struct Answer
{
	const EntPeer *peer;
	EntWriter	w;
	Snapshot	snapshot;
} Answer;

/* A table's columns as a COMPARE names them. */
typedef struct Asked
{
	EntRelation *rel;
	EntShow		show;
	int			ncolumns;
	int		   *columns;
} Asked;

static void *
writer_grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc_huge(old, size) : MemoryContextAllocHuge(ctx, size);
}

static void
check(EntReader *r, const char *what)
{
	if (r->error != ENT_WIRE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed message from peer"),
				 errdetail("In %s: %s.", what, ent_wire_error_text(r->error))));
}

/* ---- what there is ---- */

static void
describe_all(Answer *a)
{
	ListCell   *lc;

	foreach(lc, ent_relinfo_all())
	{
		EntRelation *rel = lfirst(lc);
		bool	   *may = palloc0(rel->ncolumns * sizeof(bool));
		EntWireTable wire;

		if (ent_describe_table(rel, a->peer->role, may, &wire))
			ent_wire_write_table(&a->w, &wire);
	}
	foreach(lc, ent_owner_all())
	{
		EntOwner   *o = lfirst(lc);
		EntWireOwner wire;

		if (!o->local && o->peer == 0)
			continue;			/* nobody is told of those either */
		ent_describe_owner(o, &wire);
		wire.lost = o->peer == a->peer->no;	/* he comes from who asks */
		ent_wire_write_owner(&a->w, &wire);
	}
}

static EntDigestJob
digest_job(const Answer *a, const Asked *asked)
{
	EntDigestJob job = {
		.rel = asked->rel, .peer = a->peer->no, .role = a->peer->role,
		.filter = asked->show.filter, .nothing = asked->show.nothing,
		.ncolumns = asked->ncolumns, .columns = asked->columns,
		.snapshot = a->snapshot
	};

	return job;
}

/* ---- totals ---- */

typedef struct OwnerTally
{
	int32		owner;			/* hash key; 0: nobody */
	EntTally	tally;
} OwnerTally;

typedef struct Totals
{
	HTAB	   *owners;			/* OwnerTally */
	MemoryContext context;
} Totals;

static void
add_to_owner(void *arg, const EntDigestRow *row)
{
	Totals	   *t = arg;
	bool		found;
	OwnerTally *o = hash_search(t->owners, &row->owner, HASH_ENTER, &found);

	if (!found)
		memset(&o->tally, 0, sizeof(o->tally));
	ent_tally_add(&o->tally, row, t->context);
}

static void
write_digest(Answer *a, uint32 compare, uint32 range, int32 owner,
			 const EntTally *tally)
{
	EntWireDigest d = {.compare = compare, .range = range};
	EntOwner   *o = owner == 0 ? NULL : ent_owner_get(owner);
	EntWirePart part;
	size_t		mark = ent_wire_open_section(&a->w, ENT_SECTION_DIGEST);

	if (o != NULL)
		memcpy(d.owner.bytes, o->id.data, UUID_LEN);
	ent_wire_write_digest(&a->w, &d);
	ent_tally_part(tally, &part);
	ent_wire_write_part(&a->w, &part);
	ent_wire_close_section(&a->w, mark);
}

static void
answer_totals(Answer *a, uint32 compare, const Asked *asked)
{
	Totals		t = {.context = CurrentMemoryContext};
	HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(OwnerTally),
	.hcxt = CurrentMemoryContext};
	EntDigestJob job = digest_job(a, asked);
	HASH_SEQ_STATUS seq;
	OwnerTally *o;

	job.visit = add_to_owner;
	job.arg = &t;
	t.owners = hash_create("entanglement totals", 16, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ent_digest_objects(&job);
	ent_digest_strangers(&job);
	hash_seq_init(&seq, t.owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		write_digest(a, compare, 0, o->owner, &o->tally);
}

/* ---- ranges ---- */

typedef struct Divider
{
	EntWriter  *w;
	MemoryContext context;
	uint64		each;
	int			parts;			/* written so far */
	EntTally	tally;
} Divider;

static void
write_part(Divider *d)
{
	EntWirePart part;

	ent_tally_part(&d->tally, &part);
	ent_wire_write_part(d->w, &part);
	ent_tally_reset(&d->tally);
	d->parts++;
}

/* The last part takes all that is left. */
static void
divide(void *arg, const EntDigestRow *row)
{
	Divider    *d = arg;

	if (d->tally.count >= d->each && d->parts < ENT_WIRE_MAX_PARTS - 1)
		write_part(d);
	ent_tally_add(&d->tally, row, d->context);
}

static bytea *
as_bytea(const uint8 *data, size_t len)
{
	bytea	   *b = palloc(VARHDRSZ + len);

	SET_VARSIZE(b, VARHDRSZ + len);
	memcpy(VARDATA(b), data, len);
	return b;
}

static void
answer_range(Answer *a, uint32 compare, uint32 no, const Asked *asked,
			 const EntWireRange *range)
{
	EntWireDigest head = {.compare = compare, .range = no, .owner = range->owner};
	Divider		d = {.w = &a->w, .context = CurrentMemoryContext,
	.each = range->each};
	EntDigestJob job = digest_job(a, asked);
	pg_uuid_t	id;
	EntOwner   *o;
	size_t		mark = ent_wire_open_section(&a->w, ENT_SECTION_DIGEST);

	job.visit = divide;
	job.arg = &d;
	memcpy(id.data, range->owner.bytes, UUID_LEN);
	o = ent_owner_by_id(&id);
	if (!ent_digest_ordered(asked->rel))
		d.each = PG_UINT64_MAX;
	if (range->has_lo)
		job.lo = as_bytea(range->lo, range->lolen);
	if (range->has_hi)
		job.hi = as_bytea(range->hi, range->hilen);
	ent_wire_write_digest(&a->w, &head);
	if (o != NULL)
	{
		job.owner = o->no;
		ent_digest_objects(&job);
	}
	write_part(&d);
	ent_wire_close_section(&a->w, mark);
}

/* ---- a message ---- */

static void
check_compare(EntReader *body, int *ranges)
{
	EntWireCompare c;
	EntWireRange range;
	char		name[ENT_WIRE_MAX_NAME + 1];

	ent_wire_read_compare(body, &c);
	for (unsigned i = 0; i < c.ncolumns && body->error == ENT_WIRE_OK; i++)
		ent_wire_read_string(body, name, ENT_WIRE_MAX_NAME);
	while (!ent_wire_at_end(body))
	{
		if ((*ranges)++ == ENT_WIRE_MAX_RANGES)
			ent_wire_fail(body, ENT_WIRE_LIMIT);
		ent_wire_read_range(body, &range);
	}
	check(body, "compare");
}

/* All of it, before the work begins. */
static void
check_question(EntReader r)
{
	EntReader	body;
	unsigned	type;
	int			n = 0,
				ranges = 0;

	while (ent_wire_read_section(&r, &type, &body))
	{
		if (type == ENT_SECTION_COMPARE)
		{
			if (n++ == ENT_WIRE_MAX_RANGES)
				ent_wire_fail(&body, ENT_WIRE_LIMIT);
			check_compare(&body, &ranges);
		}
		else if (!(type & ENT_SECTION_OPTIONAL))
			ent_wire_fail(&r, ENT_WIRE_MALFORMED);
	}
	check(&r, "sections");
}

/* Checked before. false: it names what the role may not see, or what is not there. */
static bool
read_asked(Answer *a, EntReader *body, Asked *asked)
{
	EntWireCompare c;
	bool	   *may = NULL;
	bool		answerable;

	ent_wire_read_compare(body, &c);
	asked->rel = ent_relinfo_by_name(ent_name_from_wire(c.schema),
									 ent_name_from_wire(c.table));
	answerable = asked->rel != NULL;
	if (answerable)
	{
		may = palloc0(asked->rel->ncolumns * sizeof(bool));
		ent_show_table(asked->rel, a->peer->no, a->peer->role, may, &asked->show);
		answerable = asked->show.sees;
	}
	asked->columns = palloc((c.ncolumns + 1) * sizeof(int));
	asked->ncolumns = c.ncolumns;
	for (unsigned i = 0; i < c.ncolumns; i++)
	{
		char		name[ENT_WIRE_MAX_NAME + 1];
		EntColumn  *col = NULL;

		ent_wire_read_string(body, name, ENT_WIRE_MAX_NAME);
		if (answerable)
			col = ent_relinfo_column(asked->rel, ent_name_from_wire(name));
		answerable = col != NULL && may[col - asked->rel->columns];
		if (answerable)
			asked->columns[i] = col - asked->rel->columns;
	}
	return answerable;
}

static void
answer_compare(Answer *a, uint32 compare, EntReader *body)
{
	Asked		asked = {0};
	bool		answerable = read_asked(a, body, &asked);

	if (ent_wire_at_end(body))
	{
		if (answerable)
			answer_totals(a, compare, &asked);
		return;
	}
	for (uint32 no = 0; !ent_wire_at_end(body); no++)
	{
		EntWireRange range;

		ent_wire_read_range(body, &range);
		if (answerable)
			answer_range(a, compare, no, &asked, &range);
	}
}

static void
answer_sections(Answer *a, EntReader *r)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext section = AllocSetContextCreate(old, "entanglement section",
												  ALLOCSET_DEFAULT_SIZES);
	EntReader	body;
	unsigned	type;
	uint32		n = 0;

	while (ent_wire_read_section(r, &type, &body))
	{
		if (type != ENT_SECTION_COMPARE)
			continue;
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(section);
		answer_compare(a, n++, &body);
		MemoryContextSwitchTo(old);
		MemoryContextReset(section);
	}
	if (n == 0)
		describe_all(a);
	MemoryContextDelete(section);
}

bytea *
ent_digest_answer(const EntPeer *peer, const void *data, size_t len)
{
	EntWireAllocator alloc = {writer_grow, CurrentMemoryContext};
	Answer		a = {.peer = peer};
	EntReader	r;
	EntWireHeader header;

	ent_wire_reader_init(&r, data, len);
	ent_wire_read_header(&r, &header);
	check(&r, "header");
	check_question(r);
	ent_relinfo_refresh();
	ent_wire_writer_init(&a.w, alloc);
	/* room for the header of a bytea: the answer is returned in place */
	ent_wire_write_raw(&a.w, "\0\0\0\0", VARHDRSZ);
	header.version = ENT_WIRE_VERSION;
	ent_wire_write_header(&a.w, &header);
	a.snapshot = RegisterSnapshot(GetLatestSnapshot());
	answer_sections(&a, &r);
	UnregisterSnapshot(a.snapshot);
	SET_VARSIZE(a.w.data, a.w.len);
	return (bytea *) a.w.data;
}
