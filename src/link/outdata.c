/*
 * link/outdata.c
 *	  The sending end: objects into a batch.
 *
 * Only what is taken from the queue at this moment is read, as it is at this
 * moment, as the peer's role; nothing waits in encoded form.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/durable.h"
#include "base/quiet.h"
#include "link/outbound_private.h"
#include "guard/show.h"
#include "step/extract.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/shown.h"
#include "store/value.h"

#define MAX_TAKE	2048		/* objects extracted at a time, for which the log of
								 * changes is looked through */
#define LEAST_LARGE	2048		/* bytes of an object that may be too large */

typedef enum Fate
{
	FATE_DONE,					/* nothing to tell */
	FATE_SENT,
	FATE_LATER,					/* did not fit into this batch */
	FATE_LARGE					/* goes in fragments */
} Fate;

typedef struct Taken
{
	EntQueueEntry entry;
	EntExtract *extract;		/* set once extracted */
	Fate		fate;
	bool		again;			/* the cut does not have the newest version */
	bool		more;			/* sent or passed over: there are newer states */
	bool		forgets;		/* sent: the peer does not hold it afterwards */
} Taken;

static int
by_table_and_owner(const void *a, const void *b)
{
	const Taken *x = a,
			   *y = b;

	if (x->entry.rel != y->entry.rel)
		return x->entry.rel < y->entry.rel ? -1 : 1;
	if (x->entry.owner != y->entry.owner)
		return x->entry.owner < y->entry.owner ? -1 : 1;
	return 0;
}

/* Is this object, of another owner, among the n taken? */
static bool
other_owner_taken(const Taken *taken, int n, const EntQueueEntry *e)
{
	for (int i = 0; i < n; i++)
	{
		const EntQueueEntry *t = &taken[i].entry;

		if (t->owner != e->owner && t->rel == e->rel &&
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
take(EntOutbound *ob, EntQueue *queue, Taken *taken, int max)
{
	uint8	   *keybuf = palloc(ENT_WIRE_MAX_KEY);
	int			n = 0;

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
		if (other_owner_taken(taken, n, e))
		{
			ent_queue_push(queue, e);
			break;
		}
		key = palloc(e->keylen);
		memcpy(key, keybuf, e->keylen);
		e->key = key;
		taken[n++].extract = NULL;
	}
	pfree(keybuf);
	qsort(taken, n, sizeof(Taken), by_table_and_owner);
	return n;
}

static size_t
row_size(EntRelation *rel, EntExtract *x)
{
	size_t		size = x->keylen + 32;

	if (x->kind != ENT_EXTRACT_DELTA && x->kind != ENT_EXTRACT_FULL)
		return size;			/* values have not been read */
	for (int i = 0; i < rel->ncolumns; i++)
		if (x->raw != NULL)
			size += x->set[i] ? x->rawlen[i] : 0;
		else if (x->set[i] && !x->nulls[i])
			size += rel->columns[i].typlen == -1 ?
				toast_raw_datum_size(x->values[i]) : 40;
	return size;
}

/* The announcement's column numbers of the set, as a bitmap. */
static size_t
wire_set(EntOutTable *t, EntRelation *rel, EntExtract *x, uint8 *bitmap)
{
	int			number = 0;
	size_t		len = 0;

	memset(bitmap, 0, ENT_WIRE_MAX_COLUMNS / 8);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		if (!t->may[i])
			continue;
		if (x->set[i])
		{
			bitmap[number / 8] |= 1 << (number % 8);
			len = number / 8 + 1;
		}
		number++;
	}
	return len;
}

static void
write_values(EntWriter *w, EntRelation *rel, EntExtract *x)
{
	for (int i = 0; i < rel->ncolumns; i++)
	{
		const char *data;
		size_t		len;

		if (!x->set[i])
			continue;
		if (x->nulls[i])
		{
			ent_wire_write_value(w, NULL, 0);
			continue;
		}
		if (x->raw != NULL)
		{
			ent_wire_write_value(w, x->raw[i], x->rawlen[i]);
			continue;
		}
		data = ent_value_encode(&rel->columns[i], x->values[i], &len);
		if (len > ENT_WIRE_MAX_VALUE)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("value of column \"%s\" is too large to be sent", rel->columns[i].name),
					 errdetail("It has %zu bytes; at most %u are possible.",
							   len, ENT_WIRE_MAX_VALUE)));
		ent_wire_write_value(w, data, len);
	}
}

/* Names an owner to whom an object came, or from whom; false: he is no more. */
static bool
name_hand(const EntHand *hand, EntWireUuid *owner, uint32 *epoch,
		  int64_t *serial)
{
	EntOwner   *o = hand->owner == 0 ? NULL : ent_owner_get(hand->owner);

	if (o == NULL || o->gone)
		return false;
	memcpy(owner->bytes, o->id.data, UUID_LEN);
	*epoch = hand->epoch;
	*serial = hand->serial;
	return true;
}

static void
name_hands(EntWireRow *row, EntExtract *x)
{
	if (name_hand(&x->heir, &row->heir, &row->heir_epoch, &row->heir_serial))
		row->flags |= ENT_ROW_HEIR;
	else if (x->heir.owner != 0)
		row->op = ENT_ROW_DELETE;	/* he has taken it along */
	if (name_hand(&x->from, &row->from, &row->from_epoch, &row->from_serial))
		row->flags |= ENT_ROW_FROM;
}

static void
write_row(EntWriter *w, EntRelation *rel, EntOutTable *t, Taken *taken,
		  int64 *last)
{
	static const EntRowOp ops[] = {
		[ENT_EXTRACT_DEAD] = ENT_ROW_DELETE,[ENT_EXTRACT_DELTA] = ENT_ROW_DELTA,
		[ENT_EXTRACT_FULL] = ENT_ROW_FULL,[ENT_EXTRACT_WITHDRAWN] = ENT_ROW_WITHDRAW
	};
	EntExtract *x = taken->extract;
	uint8		bitmap[ENT_WIRE_MAX_COLUMNS / 8];
	EntWireRow	row = {
		.op = ops[x->kind],
		.flags = taken->more ? 0 : taken->entry.flags & (ENT_ROW_REFRESH | ENT_ROW_LATE),
		.serial = x->serial, .base = x->base
	};

	row.key = ent_key_to_wire(rel, x->key, x->keylen, &row.keylen);
	if (row.op == ENT_ROW_DELTA)
	{
		row.set = bitmap;
		row.setlen = wire_set(t, rel, x, bitmap);
	}
	else if (row.op == ENT_ROW_WITHDRAW)
		row.flags = 0;
	else
		name_hands(&row, x);
	/* it may have had, and lost, this very version */
	if (row.op == ENT_ROW_FULL && t->partial && (!x->held || x->leaving))
		row.flags |= ENT_ROW_REFRESH;
	ent_wire_write_row(w, &row, last);
	if (row.op == ENT_ROW_DELTA || row.op == ENT_ROW_FULL)
		write_values(w, rel, x);
	taken->forgets = !x->elsewhere && (row.op == ENT_ROW_WITHDRAW ||
									   (row.op == ENT_ROW_DELETE &&
										(row.flags & ENT_ROW_HEIR) == 0));
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
	size_t		size = row_size(rel, x);

	if (size < ENT_WIRE_MAX_BATCH / 2)
		return true;
	tell_unsendable(ob, rel, "54000",
					psprintf("object %s of table \"%s.%s\" is too large to be sent: about %zu bytes",
							 ent_key_text(rel, x->key, x->keylen), rel->schema,
							 rel->name, size));
	return false;
}

static void
note_sent(EntOutbound *ob, List **list, Taken *taken)
{
	EntQueueEntry *e = &taken->entry;
	EntOutLate *late = ent_outbound_note(ob, list, sizeof(EntOutLate));

	late->rel = e->rel;
	late->owner = e->owner;
	/* a version that came since is a debt of its own */
	late->serial = taken->fate == FATE_SENT ? taken->extract->serial : PG_INT64_MAX;
	late->key = MemoryContextAlloc(ob->context, VARHDRSZ + e->keylen);
	SET_VARSIZE(late->key, VARHDRSZ + e->keylen);
	memcpy(VARDATA(late->key), e->key, e->keylen);
}

/* What is in flight counts for age, acknowledgement and debts. */
static void
note_flight(EntOutbound *ob, Taken *taken)
{
	EntQueueEntry *e = &taken->entry;

	ob->flight->min_position = Min(ob->flight->min_position, e->position);
	ob->flight->oldest = Min(ob->flight->oldest, e->stale_at);
	if ((e->flags & ENT_ROW_LATE) && !taken->again)
		note_sent(ob, &ob->flight->late, taken);
	if (taken->fate == FATE_SENT && taken->extract->kind == ENT_EXTRACT_FULL &&
		taken->extract->heir.owner != 0 && ent_object_owner_is_local(e->owner))
		note_sent(ob, &ob->flight->handed, taken);
}

typedef struct Section
{
	EntOutbound *ob;
	EntWriter  *w;
	EntRelation *rel;
	EntOutTable *table;
	Taken	   *taken;
	int			n;
	EntOutSource *source;
	bool		denied;			/* may not be seen, since it cannot be read */
} Section;

/*
 * What was queued after the cut had been asked for may be missing in it. If
 * so, the version that is in it goes now, and the newer one with another cut. What
 * was withdrawn since has the version it had, so of what is owed this does not tell.
 */
static bool
not_in_cut(Section *s, Taken *t)
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
extract_section(Section *s)
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
		s->taken[i].fate = FATE_DONE;
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
worth_telling(Section *s, Taken *t)
{
	EntExtract *x = t->extract;

	if (x->kind == ENT_EXTRACT_NOTHING || x->passed)
		return false;
	if (x->kind == ENT_EXTRACT_WITHDRAWN)
		return true;
	/* was looked at again, and is as the peer has it */
	if (x->kind == ENT_EXTRACT_DELTA && x->serial <= t->entry.since)
		return false;
	/* the peer has what is in the cut, or gets it with the next one */
	if (t->again && (x->serial <= t->entry.since || (t->entry.flags & ENT_ROW_LATE)))
		return false;
	return sendable(s->ob, s->rel, x);
}

/* Encodes a section for each owner, and notes what became of each object. */
static void
encode_section(void *section)
{
	Section    *s = section;
	EntWireObjects head = {.table = s->rel->no};
	EntWriter  *w = s->w;
	size_t		mark = 0;
	int64		last = 0;

	extract_section(s);
	for (int i = 0; i < s->n; i++)
	{
		Taken	   *t = &s->taken[i];
		EntExtract *x = t->extract;

		if (!worth_telling(s, t))
			continue;
		if (row_size(s->rel, x) > s->source->large)
		{
			t->fate = FATE_LARGE;
			continue;
		}
		if (w->len > s->source->max_bytes &&
			w->len + row_size(s->rel, x) > 2 * s->source->max_bytes)
		{
			t->fate = FATE_LATER;
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
		write_row(w, s->rel, s->table, t, &last);
		t->fate = FATE_SENT;
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
report_unsendable(Section *s, ErrorData *error)
{
	EntQueueEntry *e = &s->taken[0].entry;
	char	   *message =
		psprintf("object %s of table \"%s.%s\" could not be sent: %s",
				 ent_key_text(s->rel, e->key, e->keylen), s->rel->schema,
				 s->rel->name, error->message);

	s->taken[0].fate = FATE_DONE;
	if (s->table->filter_failed)
		return;
	s->table->filter_failed = s->table->filter != NULL;
	tell_unsendable(s->ob, s->rel, unpack_sql_state(error->sqlerrcode), message);
}

/* Back into the queue, once all that is to go has been taken from it. */
static void
put_off(Section *s, const EntQueueEntry *e)
{
	MemoryContext old = MemoryContextSwitchTo(s->source->context);
	EntQueueEntry *copy = palloc(sizeof(EntQueueEntry));
	uint8	   *key = palloc(e->keylen);

	memcpy(key, e->key, e->keylen);
	*copy = *e;
	copy->key = key;
	s->source->later = lappend(s->source->later, copy);
	MemoryContextSwitchTo(old);
}

/*
 * What is missing in the cut has come after it was asked for: from there on
 * claims wait for it, however often that happens to a hot object.
 */
static void
put_off_rest(Section *s, Taken *t)
{
	EntQueueEntry rest = t->entry;

	rest.position = Max(rest.position, s->ob->cut_position);
	rest.stale_at = Max(rest.stale_at, s->ob->cut_at);
	if (t->fate == FATE_SENT)
	{
		rest.since = Max(rest.since, t->extract->serial);
		rest.flags = 0;
	}
	put_off(s, &rest);
}

/*
 * The next state goes as soon as there is room, by turns with what changes: a long
 * row of them holds up nobody. Claims wait for the last one.
 */
static void
put_back_rest(Section *s, Taken *t)
{
	MemoryContext old = MemoryContextSwitchTo(s->source->context);
	EntQueueEntry *rest = palloc(sizeof(EntQueueEntry));
	uint8	   *key = palloc(t->entry.keylen);

	memcpy(key, t->entry.key, t->entry.keylen);
	*rest = t->entry;
	rest->key = key;
	rest->newest = Max(rest->newest, t->extract->serial);
	rest->since = t->extract->serial;
	rest->bulk = true;
	s->source->rest = lappend(s->source->rest, rest);
	MemoryContextSwitchTo(old);
}

/*
 * What the peer is told of for the first time is held by it from before the
 * batch leaves; what it is to forget, until it has answered that batch, though
 * from now on it may be gone.
 */
static void
note_held(Section *s)
{
	Datum	   *told = palloc(s->n * sizeof(Datum));
	Datum	   *leaving = palloc(s->n * sizeof(Datum));
	int			n = 0,
				m = 0;

	for (int i = 0; i < s->n; i++)
	{
		Taken	   *t = &s->taken[i];
		EntExtract *x = t->extract;

		if (t->fate != FATE_SENT)
			continue;
		if (t->forgets)
			note_sent(s->ob, &s->ob->flight->forgotten, t);
		if (t->forgets || x->kind == ENT_EXTRACT_WITHDRAWN)
		{
			if (x->held && !x->leaving)
				leaving[m++] = ent_outbound_key(t->entry.key, t->entry.keylen);
		}
		else if (!x->held || x->leaving)
		{
			told[n++] = ent_outbound_key(t->entry.key, t->entry.keylen);
			if (x->leaving)
				ent_outbound_holds_again(s->ob, &t->entry);
		}
	}
	if (n > 0)
		ent_shown_hold(s->ob->peer, s->rel->no,
					   ent_query_array(BYTEAOID, told, NULL, n));
	if (m > 0)
		ent_shown_leave(s->ob->peer, s->rel->no,
						ent_query_array(BYTEAOID, leaving, NULL, m));
}

static void
settle_section(Section *s, size_t bytes)
{
	int			sent = 0;

	for (int i = 0; i < s->n; i++)
	{
		if (s->taken[i].fate == FATE_LATER)
			put_off(s, &s->taken[i].entry);
		else if (s->taken[i].fate == FATE_LARGE)
			ent_queue_push(s->ob->large, &s->taken[i].entry);
		else if (s->taken[i].more)
			put_back_rest(s, &s->taken[i]);
		else if (s->taken[i].again)
			put_off_rest(s, &s->taken[i]);
		if (s->taken[i].fate == FATE_SENT ||
			(s->taken[i].fate == FATE_DONE && !s->taken[i].again))
		{
			note_flight(s->ob, &s->taken[i]);
			if ((s->taken[i].entry.flags & ENT_OUT_COPY) && !s->taken[i].more)
				ent_outbound_copied(s->ob, s->table);
		}
		if (s->taken[i].fate == FATE_SENT)
			sent++;
		if (s->taken[i].fate == FATE_SENT && s->rel->every_state && !s->table->partial)
			ent_outbound_note_state(s->ob, &s->taken[i].entry,
									s->taken[i].extract->serial);
	}
	if (s->table->partial)
		note_held(s);
	if (sent > 0)
		s->ob->row_bytes = (s->ob->row_bytes * 7 + bytes / sent) / 8 + 1;
	pg_atomic_fetch_add_u64(&s->ob->slot->objects_sent, sent);
}

/* The table, or who may see it, changed under us. */
static void
look_first(Section *s)
{
	s->ob->adverts_due = true;
	s->ob->adverts_position = s->ob->ring_position;
	for (int i = 0; s->rel != NULL && i < s->n; i++)
		put_off(s, &s->taken[i].entry);
}

/*
 * These of the section's objects; when that fails its halves, so that in the end the
 * one that cannot be sent is alone.
 */
static void
write_part(Section *s, Taken *taken, int n)
{
	size_t		start = s->w->len;
	ErrorData  *error;

	s->taken = taken;
	s->n = n;
	error = ent_outbound_try(encode_section, s, s->w);
	/* a right that was just taken away is no reason to leave rows out */
	if (error != NULL && s->table->show_version != ent_show_version())
	{
		look_first(s);
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
	settle_section(s, s->w->len - start);
}

/*
 * What goes of one table: taken[0 .. n-1], in the order of owners. Entries that do
 * not fit any more go back to where they were. Needs ent_value_enter.
 */
static void
write_section(EntOutbound *ob, EntWriter *w, Taken *taken, int n,
			  EntOutSource *source)
{
	Section		s = {
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
		look_first(&s);
	else
		write_part(&s, taken, n);
}

/* Extracts and writes n objects, under the source's snapshot or a fresh one. */
static void
write_taken(EntOutbound *ob, EntWriter *w, Taken *taken, int n,
			EntOutSource *source)
{
	Snapshot	fresh = NULL;
	int			level;

	if (!source->cut)
		source->snapshot = fresh = RegisterSnapshot(GetLatestSnapshot());
	ob->shown_at = ent_durable_end();
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
	Taken	   *taken = palloc0((max + 1) * sizeof(Taken));
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
