/*
 * link/outdata.c
 *	  The sending end: objects into a batch.
 *
 * Only what is taken from the queue at this moment is read, as it is at this
 * moment, as the peer's role; nothing waits in encoded form.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/durable.h"
#include "base/quiet.h"
#include "guard/show.h"
#include "link/outdata_private.h"
#include "store/query.h"
#include "store/value.h"

#define MAX_TAKE	2048		/* objects extracted at a time, for which the log of
								 * changes is looked through */
#define LEAST_LARGE	2048		/* bytes of an object that may be too large */

static int
by_table_and_owner(const void *a, const void *b)
{
	const EntOutTaken *x = a,
			   *y = b;

	if (x->entry.rel != y->entry.rel)
		return x->entry.rel < y->entry.rel ? -1 : 1;
	if (x->entry.owner != y->entry.owner)
		return x->entry.owner < y->entry.owner ? -1 : 1;
	return 0;
}

/*
 * Is this object, of another owner, among the n taken? hashes: of their keys, and of
 * its, which is at n. one: the owner of all so far, or 0.
 */
static bool
other_owner_taken(const EntOutTaken *taken, uint32 *hashes, int n, const EntQueueEntry *e,
				  int32 *one)
{
	hashes[n] = hash_bytes(e->key, e->keylen);
	if (n == 0)
		*one = e->owner;
	if (e->owner == *one)
		return false;
	*one = 0;
	for (int i = 0; i < n; i++)
	{
		const EntQueueEntry *t = &taken[i].entry;

		if (hashes[i] == hashes[n] && t->owner != e->owner && t->rel == e->rel &&
			t->keylen == e->keylen && memcmp(t->key, e->key, e->keylen) == 0)
			return true;
	}
	return false;
}

/*
 * Takes up to max entries off the queue, sorted by table and owner. What dies
 * under one owner and is born under another is not taken together: death has to
 * be told first.
 */
static int
take(EntOutbound *ob, EntQueue *queue, EntOutTaken *taken, int max)
{
	uint8	   *keybuf = palloc(ENT_WIRE_MAX_KEY);
	uint32	   *hashes = palloc(max * sizeof(uint32));
	int			n = 0;
	int32		one = 0;

	while (n < max && ent_queue_pop(queue, &taken[n].entry, keybuf))
	{
		EntQueueEntry *e = &taken[n].entry;
		EntOutOwner *o = hash_search(ob->owners, &e->owner, HASH_FIND, NULL);
		EntOutTable *t = hash_search(ob->tables, &e->rel, HASH_FIND, NULL);
		uint8	   *key;

		if (o == NULL || !o->wanted || t == NULL || !t->known)
			continue;
		if (ent_outbound_is_in_transit(ob, e))
		{
			ent_queue_push(ob->behind, e);
			continue;
		}
		(void) ent_queue_take(ob->large, e);
		if (other_owner_taken(taken, hashes, n, e, &one))
		{
			ent_queue_push(queue, e);
			break;
		}
		key = palloc(e->keylen);
		memcpy(key, keybuf, e->keylen);
		e->key = key;
		taken[n++].extract = NULL;
	}
	pfree(hashes);
	pfree(keybuf);
	qsort(taken, n, sizeof(EntOutTaken), by_table_and_owner);
	return n;
}

static void
tell_unsendable(EntOutbound *ob, EntRelation *rel, const char *sqlstate,
				const char *message)
{
	int64		more;
	char	   *detail;

	ent_shmem_set_error(ob->slot, sqlstate, message);
	if (!ent_quiet_due(ob->peer, psprintf("unsent %s", sqlstate), rel->no, &more))
		return;
	detail = ent_quiet_more(more);
	ereport(LOG, (errmsg("%s", message), detail ? errdetail("%s", detail) : 0));
}

/* A row that can never be sent is reported and left out, alone. */
static bool
sendable(EntOutbound *ob, EntRelation *rel, EntExtract *x)
{
	size_t		size = ent_outbound_row_size(rel, x);

	if (size < ENT_WIRE_MAX_BATCH / 2)
		return true;
	tell_unsendable(ob, rel, "54000",
					psprintf("object %s of table \"%s.%s\" is too large to be sent: about %zu bytes",
							 ent_key_text(rel, x->key, x->keylen), rel->schema,
							 rel->name, size));
	return false;
}

/*
 * What was queued after the cut had been asked for may be missing in it. If
 * so, the version that is in it goes now, and the newer one with another cut. What
 * was withdrawn since has the version it had, so of what is owed this does not tell.
 */
static bool
not_in_cut(EntOutSection *s, EntOutTaken *t)
{
	return s->source->cut && t->entry.round >= s->ob->round &&
		(t->extract->serial < t->entry.newest || (t->entry.flags & ENT_ROW_LATE));
}

/* Is the object wanted for itself, not because it has changed? */
static bool
asked_for(const EntQueueEntry *e)
{
	return (e->flags & (ENT_ROW_REFRESH | ENT_ROW_LATE)) != 0;
}

/* Reads the objects of a section as they are now. */
static void
extract_section(EntOutSection *s)
{
	EntExtract *items = palloc0(s->n * sizeof(EntExtract));
	EntExtractFor whom = ent_outbound_whom(s->ob, s->table);

	whom.nothing |= s->denied;
	for (int i = 0; i < s->n; i++)
	{
		EntQueueEntry *e = &s->taken[i].entry;

		items[i].key = e->key;
		items[i].keylen = e->keylen;
		items[i].owner = e->owner;
		if (s->rel->every_state)
			e->since = Max(e->since, ent_outbound_state_sent(s->ob, e));
		items[i].since = items[i].after = e->since;
		/* what was asked for comes in full, whichever states went before it */
		if (s->rel->every_state && asked_for(e))
			items[i].since = 0;
		/* a key that it has not named itself may be one that it must not hear of */
		items[i].asked = (e->flags & (whom.partial ? ENT_OUT_ASKED : ENT_ROW_LATE)) != 0;
		s->taken[i].extract = &items[i];
		s->taken[i].fate = ENT_OUT_FATE_DONE;
		s->taken[i].more = false;
	}
	(s->rel->every_state ? ent_extract_states : ent_extract)
		(s->rel, &whom, s->source->snapshot, items, s->n);
	for (int i = 0; i < s->n; i++)
	{
		s->taken[i].again = not_in_cut(s, &s->taken[i]);
		s->taken[i].more = items[i].more;
	}
}

/* Is there something to be told of it in this batch? */
static bool
worth_telling(EntOutSection *s, EntOutTaken *t)
{
	EntExtract *x = t->extract;

	if (x->kind == ENT_EXTRACT_NOTHING || x->passed)
		return false;
	/* it goes with the next cut */
	if (t->again && (t->entry.flags & ENT_ROW_LATE))
		return false;
	if (x->kind == ENT_EXTRACT_WITHDRAWN)
		return true;
	/* was looked at again, and is as the peer has it */
	if (x->kind == ENT_EXTRACT_DELTA && x->serial <= t->entry.since)
		return false;
	/* the peer has what is in the cut */
	if (t->again && x->serial <= t->entry.since)
		return false;
	return sendable(s->ob, s->rel, x);
}

/* Encodes a section for each owner, and notes what became of each object. */
static void
encode_section(void *section)
{
	EntOutSection *s = section;
	EntWireObjects head = {.table = s->rel->no};
	EntWriter  *w = s->w;
	size_t		mark = 0;
	int64		last = 0;

	extract_section(s);
	for (int i = 0; i < s->n; i++)
	{
		EntOutTaken *t = &s->taken[i];
		EntExtract *x = t->extract;

		if (!worth_telling(s, t))
			continue;
		if (ent_outbound_row_size(s->rel, x) > s->source->large)
		{
			t->fate = ENT_OUT_FATE_LARGE;
			continue;
		}
		if (w->len > s->source->max_bytes &&
			w->len + ent_outbound_row_size(s->rel, x) > 2 * s->source->max_bytes)
		{
			t->fate = ENT_OUT_FATE_LATER;
			continue;
		}
		if (mark != 0 && (t->entry.owner != head.owner || x->epoch != head.epoch))
		{
			ent_wire_close_section(w, mark);
			mark = 0;
		}
		if (mark == 0)
		{
			head.owner = t->entry.owner;
			head.epoch = x->epoch;
			mark = ent_wire_open_section(w, ENT_SECTION_OBJECTS);
			ent_wire_write_objects(w, &head);
			last = 0;
		}
		t->forgets = ent_outbound_write_row(w, s->rel, s->table, x,
											t->more ? 0 : t->entry.flags &
											(ENT_ROW_REFRESH | ENT_ROW_LATE), &last);
		t->fate = ENT_OUT_FATE_SENT;
	}
	if (mark != 0)
		ent_wire_close_section(w, mark);
}

ErrorData *
ent_outbound_try(void (*run) (void *), void *arg, EntWriter *w)
{
	size_t		start = w->len;
	ErrorData  *error = ent_query_attempt(run, arg);

	if (error != NULL)
		w->len = start;
	return error;
}

/*
 * A row that cannot be read or encoded is reported and left out, alone. A filter may
 * fail on as many rows as its peer likes: that is told once.
 */
static void
report_unsendable(EntOutSection *s, ErrorData *error)
{
	EntQueueEntry *e = &s->taken[0].entry;
	char	   *message =
		psprintf("object %s of table \"%s.%s\" could not be sent: %s",
				 ent_key_text(s->rel, e->key, e->keylen), s->rel->schema,
				 s->rel->name, error->message);

	s->taken[0].fate = ENT_OUT_FATE_DONE;
	if (s->table->filter_failed)
		return;
	s->table->filter_failed = s->table->filter != NULL;
	tell_unsendable(s->ob, s->rel, unpack_sql_state(error->sqlerrcode), message);
}

/*
 * These of the section's objects; when that fails its halves, so that in the end the
 * one that cannot be sent is alone.
 */
static void
write_part(EntOutSection *s, EntOutTaken *taken, int n)
{
	size_t		start = s->w->len;
	ErrorData  *error;

	s->taken = taken;
	s->n = n;
	error = ent_outbound_try(encode_section, s, s->w);
	/* a right that was just taken away is no reason to leave rows out */
	if (error != NULL && s->table->show_version != ent_show_version())
	{
		ent_outbound_look_first(s);
		return;
	}
	if (error != NULL && n > 1)
	{
		write_part(s, taken, n / 2);
		write_part(s, taken + n / 2, n - n / 2);
		return;
	}
	if (error != NULL)
	{
		report_unsendable(s, error);
		s->denied = s->table->partial;
		if (s->denied)
			(void) ent_outbound_try(encode_section, s, s->w);
		s->denied = false;
	}
	ent_outbound_settle_section(s, s->w->len - start);
}

/*
 * What goes of one table: taken[0 .. n-1], in the order of owners. Entries that do
 * not fit any more go back to where they were. Needs ent_value_enter.
 */
static void
write_section(EntOutbound *ob, EntWriter *w, EntOutTaken *taken, int n,
			  EntOutSource *source)
{
	EntOutSection 	s = {
		.ob = ob, .w = w, .rel = ent_relinfo_get(taken[0].entry.rel),
		.table = hash_search(ob->tables, &taken[0].entry.rel, HASH_FIND, NULL),
		.taken = taken, .n = n, .source = source
	};

	/*
	 * A cut was taken before rights were looked at for this batch: what goes
	 * together is not torn apart.
	 */
	if (s.rel == NULL || s.table->generation != s.rel->generation ||
		(!source->cut && s.table->show_version != ent_show_version()))
		ent_outbound_look_first(&s);
	else
		write_part(&s, taken, n);
}

/* Extracts and writes n objects, under the source's snapshot or a fresh one. */
static void
write_taken(EntOutbound *ob, EntWriter *w, EntOutTaken *taken, int n,
			EntOutSource *source)
{
	Snapshot	fresh = NULL;
	int			level;

	if (!source->cut)
		source->snapshot = fresh = RegisterSnapshot(GetLatestSnapshot());
	ob->shown_at = ent_durable_seen();
	level = ent_value_enter();
	for (int from = 0, to; from < n; from = to)
	{
		for (to = from + 1; to < n &&
			 taken[to].entry.rel == taken[from].entry.rel; to++)
			;
		write_section(ob, w, taken + from, to - from, source);
	}
	ent_value_leave(level);
	if (fresh)
		UnregisterSnapshot(fresh);
}

void
ent_outbound_write_source(EntOutbound *ob, EntWriter *w, EntOutSource *source)
{
	int			max = Min(MAX_TAKE, ent_queue_length(source->queue));
	EntOutTaken *taken = palloc0((max + 1) * sizeof(EntOutTaken));
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement chunk",
												ALLOCSET_DEFAULT_SIZES);
	size_t		left = source->max_objects;
	ListCell   *lc;

	source->context = CurrentMemoryContext;
	source->later = source->rest = NIL;
	while (w->len < source->max_bytes && left > 0 &&
		   ent_queue_length(source->queue) > 0 && !ob->adverts_due)
	{
		size_t		room = (source->max_bytes - w->len) / Max(ob->row_bytes, 16) + 1;
		MemoryContext old = MemoryContextSwitchTo(chunk);
		int			n = take(ob, source->queue, taken,
							 Min(Min(room, left), max));

		CHECK_FOR_INTERRUPTS();
		write_taken(ob, w, taken, n, source);
		left -= n;
		MemoryContextSwitchTo(old);
		MemoryContextReset(chunk);
		foreach(lc, source->rest)
			ent_queue_push(source->queue, lfirst(lc));
		list_free_deep(source->rest);
		source->rest = NIL;
	}
	foreach(lc, source->later)
		ent_queue_push(source->queue, lfirst(lc));
	MemoryContextDelete(chunk);
	pfree(taken);
}

void
ent_outbound_write_objects(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	EntOutSource source = {
		.queue = ob->queue, .max_bytes = max_bytes, .max_objects = SIZE_MAX,
		.large = Max(max_bytes, LEAST_LARGE)
	};

	/* half of it is for what goes in fragments */
	if (ob->transit != NULL || ent_queue_length(ob->large) > 0)
		source.max_bytes = max_bytes > w->len ? w->len + (max_bytes - w->len) / 2 : 0;
	ent_outbound_write_source(ob, w, &source);
}
