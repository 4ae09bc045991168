/*
 * link/infragment.c
 *	  The receiving end: objects that come in fragments.
 *
 * One at a time is put together, in memory that grows with what has come; the
 * last fragment has it applied as if it stood there.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "link/inbound_private.h"

typedef struct EntInFragment
{
	uint32		owner;			/* the sender's number */
	size_t		total;
	size_t		len;			/* has come */
	size_t		size;			/* of data */
	uint8	   *data;
} EntInFragment;

static void
forget(EntInbound *ib)
{
	if (ib->fragment == NULL)
		return;
	if (ib->fragment->data != NULL)
		pfree(ib->fragment->data);
	pfree(ib->fragment);
	ib->fragment = NULL;
}

static void
append(EntInbound *ib, const uint8 *bytes, size_t len)
{
	EntInFragment  *p = ib->fragment;

	if (p->len + len > p->size)
	{
		p->size = Min(Max(p->len + len, p->size * 2), p->total);
		p->data = p->data == NULL ? MemoryContextAllocHuge(ib->context, p->size) :
			repalloc_huge(p->data, p->size);
	}
	memcpy(p->data + p->len, bytes, len);
	p->len += len;
}

static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("malformed batch from peer"),
			 errdetail_internal("In fragment: %s", detail)));
}

/* It is a section of objects of that owner, and nothing else. */
static void
take_whole(EntInbound *ib)
{
	EntReader	r;
	EntInSection section;
	EntReader	body;
	EntWireObjects head;

	ent_wire_reader_init(&r, ib->fragment->data, ib->fragment->len);
	if (!ent_wire_read_section(&r, &section.type, &section.body) ||
		section.type != ENT_SECTION_OBJECTS)
		refuse("Together they are no section of objects.");
	body = section.body;
	ent_wire_read_objects(&body, &head);
	ent_inbound_check(&body, "fragment");
	if (head.owner != ib->fragment->owner || !ent_wire_at_end(&r))
		refuse("Together they are more than objects of one owner.");
	ent_inbound_take_run(ib, &section, 1);
}

void
ent_inbound_take_fragment(EntInbound *ib, EntReader *body)
{
	EntWireFragment f;
	size_t		len;

	ent_wire_read_fragment(body, &f);
	ent_inbound_check(body, "fragment");
	len = body->end - body->p;
	if (f.offset == 0)
	{
		forget(ib);
		ib->fragment = MemoryContextAllocZero(ib->context, sizeof(EntInFragment));
		ib->fragment->owner = f.owner;
		ib->fragment->total = f.total;
	}
	if (ib->fragment == NULL || f.owner != ib->fragment->owner ||
		f.total != ib->fragment->total || f.offset != ib->fragment->len)
		refuse("It does not continue what has come.");
	append(ib, body->p, len);
	if (ib->fragment->len < ib->fragment->total)
		return;
	take_whole(ib);
	forget(ib);
}
