/*
 * link/outdata.c
 *	  The sending end: objects and claims into a batch.
 *
 * Only what is taken from the queue at this moment is read, as it is at this
 * moment, as the peer's role; nothing waits in encoded form.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/guc.h"
#include "link/outbound_private.h"
#include "step/extract.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/value.h"

#define MAX_TAKE	128			/* objects extracted at a time */

typedef enum Fate
{
	FATE_DONE,					/* nothing to tell */
	FATE_SENT,
	FATE_LATER					/* did not fit into this batch */
} Fate;

#define GAPS_MS			100		/* gaps are looked for at most this often */

static EntQuery gaps_query = {
	"SELECT o.sure OPERATOR(pg_catalog.<) o.told "
	"OR EXISTS (SELECT 1 FROM entanglement.parked p WHERE p.owner OPERATOR(pg_catalog.=) $1) "
	"OR EXISTS (SELECT 1 FROM entanglement.owed d WHERE d.owner OPERATOR(pg_catalog.=) $1 "
	"AND d.peer OPERATOR(pg_catalog.=) $2) "
	"FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT4OID}, NULL
};

typedef struct Taken
{
	EntQueueEntry entry;
	EntExtract *extract;		/* set once extracted */
	Fate		fate;
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
take(EntOutbound *ob, Taken *taken, int max)
{
	uint8	   *keybuf = palloc(ENT_WIRE_MAX_KEY);
	int			n = 0;

	while (n < max && ent_queue_pop(ob->queue, &taken[n].entry, keybuf))
	{
		EntQueueEntry *e = &taken[n].entry;
		EntOutOwner *o = hash_search(ob->owners, &e->owner, HASH_FIND, NULL);
		EntOutTable *t = hash_search(ob->tables, &e->rel, HASH_FIND, NULL);
		uint8	   *key;

		if (o == NULL || !o->wanted || t == NULL || !t->known)
			continue;
		if (other_owner_taken(taken, n, e))
		{
			ent_queue_push(ob->queue, e);
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

	if (x->set == NULL)
		return size;
	for (int i = 0; i < rel->ncolumns; i++)
		if (x->set[i] && !x->nulls[i])
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
	EntExtract *x = taken->extract;
	uint8		bitmap[ENT_WIRE_MAX_COLUMNS / 8];
	EntWireRow	row = {
		.op = x->kind == ENT_EXTRACT_DEAD ? ENT_ROW_DELETE :
		x->kind == ENT_EXTRACT_FULL ? ENT_ROW_FULL : ENT_ROW_DELTA,
		.flags = taken->entry.flags & (ENT_ROW_REFRESH | ENT_ROW_LATE),
		.serial = x->serial, .base = x->base
	};

	row.key = ent_key_to_wire(rel, x->key, x->keylen, &row.keylen);
	if (row.op == ENT_ROW_DELTA)
	{
		row.set = bitmap;
		row.setlen = wire_set(t, rel, x, bitmap);
	}
	name_hands(&row, x);
	ent_wire_write_row(w, &row, last);
	if (row.op != ENT_ROW_DELETE)
		write_values(w, rel, x);
}

/* A row that can never be sent is reported and left out, alone. */
static bool
sendable(EntOutbound *ob, EntRelation *rel, EntExtract *x)
{
	size_t		size = row_size(rel, x);
	char	   *message;

	if (size < ENT_WIRE_MAX_BATCH / 2)
		return true;
	message = psprintf("object %s of table \"%s.%s\" is too large to be sent: about %zu bytes",
					   ent_key_text(rel, x->key, x->keylen), rel->schema,
					   rel->name, size);
	ent_shmem_set_error(ob->slot, "54000", message);
	ereport(LOG, (errmsg("%s", message)));
	return false;
}

static List *
note_sent(EntOutbound *ob, List *list, Taken *taken)
{
	EntQueueEntry *e = &taken->entry;
	MemoryContext old = MemoryContextSwitchTo(ob->context);
	EntOutLate *late = palloc(sizeof(EntOutLate));

	late->rel = e->rel;
	late->owner = e->owner;
	/* a version that came since is a debt of its own */
	late->serial = taken->fate == FATE_SENT ? taken->extract->serial : PG_INT64_MAX;
	late->key = palloc(VARHDRSZ + e->keylen);
	SET_VARSIZE(late->key, VARHDRSZ + e->keylen);
	memcpy(VARDATA(late->key), e->key, e->keylen);
	list = lappend(list, late);
	MemoryContextSwitchTo(old);
	return list;
}

/* What is in flight counts for age, acknowledgement and debts. */
static void
note_flight(EntOutbound *ob, Taken *taken)
{
	EntQueueEntry *e = &taken->entry;

	ob->flight_min = Min(ob->flight_min, e->position);
	ob->flight_oldest = Min(ob->flight_oldest, e->stale_at);
	if (e->flags & ENT_ROW_LATE)
		ob->flight_late = note_sent(ob, ob->flight_late, taken);
	if (taken->fate == FATE_SENT && taken->extract->kind == ENT_EXTRACT_FULL &&
		taken->extract->heir.owner != 0 && ent_object_owner_is_local(e->owner))
		ob->flight_handed = note_sent(ob, ob->flight_handed, taken);
}

typedef struct Section
{
	EntOutbound *ob;
	EntWriter  *w;
	EntRelation *rel;
	EntOutTable *table;
	Taken	   *taken;
	int			n;
	Snapshot	snapshot;
	size_t		max_bytes;
} Section;

/* Reads the objects of a section as they are now. */
static void
extract_section(Section *s)
{
	EntExtract *items = palloc0(s->n * sizeof(EntExtract));

	for (int i = 0; i < s->n; i++)
	{
		EntQueueEntry *e = &s->taken[i].entry;

		items[i].key = e->key;
		items[i].keylen = e->keylen;
		items[i].owner = e->owner;
		items[i].since = e->since;
		s->taken[i].extract = &items[i];
		s->taken[i].fate = FATE_DONE;
	}
	if (ent_extract(s->rel, s->ob->role, s->table->may, s->snapshot, items, s->n))
	{
		/* the commit that precedes sending makes all that is visible durable */
		(void) GetTopTransactionId();
		ForceSyncCommit();
	}
}

/* Encodes a section, and notes what became of each object. */
static void
encode_section(void *section)
{
	Section    *s = section;
	EntWireObjects head = {.table = s->rel->no, .owner = s->taken[0].entry.owner};
	EntWriter  *w = s->w;
	size_t		mark = 0;
	int64		last = 0;

	extract_section(s);
	for (int i = 0; i < s->n; i++)
	{
		Taken	   *t = &s->taken[i];
		EntExtract *x = t->extract;

		if (x->kind == ENT_EXTRACT_NOTHING || x->passed || !sendable(s->ob, s->rel, x))
			continue;
		if (w->len > s->max_bytes &&
			w->len + row_size(s->rel, x) > 2 * s->max_bytes)
		{
			t->fate = FATE_LATER;
			continue;
		}
		if (mark != 0 && x->epoch != head.epoch)
		{
			ent_wire_close_section(w, mark);
			mark = 0;
		}
		if (mark == 0)
		{
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

/* Is this error about some row, so that the others can go without it? */
static bool
about_a_row(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return true;
	}
}

ErrorData *
ent_outbound_try(void (*run) (void *), void *arg, EntWriter *w)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	size_t		start = w->len;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		run(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		w->len = start;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error && !about_a_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* A row that cannot be read or encoded is reported and left out, alone. */
static void
report_unsendable(Section *s, ErrorData *error)
{
	EntQueueEntry *e = &s->taken[0].entry;
	char	   *message =
		psprintf("object %s of table \"%s.%s\" could not be sent: %s",
				 ent_key_text(s->rel, e->key, e->keylen), s->rel->schema,
				 s->rel->name, error->message);

	ent_shmem_set_error(s->ob->slot, unpack_sql_state(error->sqlerrcode), message);
	ereport(LOG, (errmsg("%s", message)));
	s->taken[0].fate = FATE_DONE;
}

static void
settle_section(Section *s, size_t bytes)
{
	int			sent = 0;

	for (int i = 0; i < s->n; i++)
	{
		if (s->taken[i].fate == FATE_LATER)
			ent_queue_push(s->ob->queue, &s->taken[i].entry);
		else
			note_flight(s->ob, &s->taken[i]);
		if (s->taken[i].fate == FATE_SENT)
			sent++;
	}
	if (sent > 0)
		s->ob->row_bytes = (s->ob->row_bytes * 7 + bytes / sent) / 8 + 1;
	pg_atomic_fetch_add_u64(&s->ob->slot->objects_sent, sent);
}

/*
 * One section: taken[0 .. n-1] are of one table and owner. Entries that do
 * not fit any more go back to where they were. Needs ent_value_enter.
 */
static void
write_section(EntOutbound *ob, EntWriter *w, Taken *taken, int n,
			  Snapshot snapshot, size_t max_bytes)
{
	Section		s = {
		.ob = ob, .w = w, .rel = ent_relinfo_get(taken[0].entry.rel),
		.table = hash_search(ob->tables, &taken[0].entry.rel, HASH_FIND, NULL),
		.taken = taken, .n = n, .snapshot = snapshot, .max_bytes = max_bytes
	};
	size_t		start = w->len;

	if (s.rel == NULL || s.table->generation != s.rel->generation)
	{
		/* the table changed under us: announce it again first */
		ob->adverts_due = true;
		ob->adverts_position = ob->ring_position;
		for (int i = 0; s.rel != NULL && i < n; i++)
			ent_queue_push(ob->queue, &taken[i].entry);
		return;
	}
	if (ent_outbound_try(encode_section, &s, w) == NULL)
	{
		settle_section(&s, w->len - start);
		return;
	}
	s.n = 1;
	for (int i = 0; i < n; i++)
	{
		ErrorData  *error;

		s.taken = &taken[i];
		start = w->len;
		error = ent_outbound_try(encode_section, &s, w);
		if (error)
			report_unsendable(&s, error);
		settle_section(&s, w->len - start);
	}
}

void
ent_outbound_write_objects(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	Taken	   *taken = palloc(MAX_TAKE * sizeof(Taken));
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement chunk",
												ALLOCSET_DEFAULT_SIZES);

	while (w->len < max_bytes && ent_queue_length(ob->queue) > 0 &&
		   !ob->adverts_due)
	{
		size_t		room = (max_bytes - w->len) / Max(ob->row_bytes, 16) + 1;
		MemoryContext old = MemoryContextSwitchTo(chunk);
		Snapshot	snapshot;
		int			n,
					level;

		n = take(ob, taken, Min(room, MAX_TAKE));
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		level = ent_value_enter();
		for (int from = 0, to; from < n; from = to)
		{
			for (to = from + 1; to < n &&
				 by_table_and_owner(&taken[from], &taken[to]) == 0; to++)
				;
			write_section(ob, w, taken + from, to - from, snapshot, max_bytes);
		}
		ent_value_leave(level);
		UnregisterSnapshot(snapshot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(chunk);
	}
	MemoryContextDelete(chunk);
	pfree(taken);
}

/* ---- claims ---- */

/*
 * A remote owner's claim covers objects that this node still waits for itself
 * (parked), or that came late and are owed to the peer. Both have tables of
 * their own, so that haves need not wait for them; but the peer must know, or it
 * would never ask another route for what this one then forgets.
 */
static bool
has_gaps(EntOutbound *ob, int32 owner)
{
	Datum		args[2] = {Int32GetDatum(owner), Int32GetDatum(ob->peer)};
	bool		gaps;

	if (ent_object_owner_is_local(owner))
		return false;
	ent_query_run(&gaps_query, args, NULL, SPI_OK_SELECT, NULL);
	gaps = SPI_processed > 0 && ent_query_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return gaps;
}

static void
write_claim(EntOutbound *ob, EntWriter *w, EntOutOwner *o, int64 serial)
{
	EntWireClaim claim = {.owner = o->no, .epoch = o->epoch, .serial = serial};
	MemoryContext old;

	o->gapped = has_gaps(ob, o->no);
	ent_wire_write_claim(w, o->gapped ? ENT_SECTION_CLAIM_GAPS : ENT_SECTION_CLAIM,
						 &claim);
	old = MemoryContextSwitchTo(ob->context);
	o->claiming_serial = serial;
	ob->flight_claims = lappend(ob->flight_claims, o);
	MemoryContextSwitchTo(old);
}

/* What was claimed with gaps has none any more. */
static void
write_closed_gaps(EntOutbound *ob, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;

	if (!TimestampDifferenceExceeds(ob->gaps_at, GetCurrentTimestamp(), GAPS_MS))
		return;
	ob->gaps_at = GetCurrentTimestamp();
	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		if (o->gapped && o->wanted && !o->withheld && !o->scanning &&
			o->claimed > 0 && o->claiming_serial <= o->claimed &&
			!has_gaps(ob, o->no))
			write_claim(ob, w, o, o->claimed);
}

static void
write_owner_claims(EntOutbound *ob, EntWriter *w, uint64 unsent)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &ob->claiming)
	{
		EntOutOwner *o = dlist_container(EntOutOwner, node, iter.cur);
		int64		serial = 0;

		if (ent_outbound_presents_left(ob, o->no))
			continue;
		if (o->current.serial > 0 && o->current.position < unsent)
		{
			serial = o->current.serial;
			o->current = o->next;
			memset(&o->next, 0, sizeof(o->next));
		}
		if (o->current.serial > 0 && o->current.position < unsent)
		{
			serial = o->current.serial;
			memset(&o->current, 0, sizeof(o->current));
		}
		if (serial > o->claimed && o->wanted)
			write_claim(ob, w, o, serial);
		if (o->current.serial == 0)
		{
			o->claiming = false;
			dlist_delete(&o->node);
		}
	}
}

void
ent_outbound_write_claims(EntOutbound *ob, EntWriter *w)
{
	uint64		unsent = ent_queue_min_position(ob->queue);
	dlist_mutable_iter iter;

	write_owner_claims(ob, w, unsent);
	write_closed_gaps(ob, w);
	ob->claimed_at = GetCurrentTimestamp();
	dlist_foreach_modify(iter, &ob->arrears)
	{
		EntOutArrears *a = dlist_container(EntOutArrears, node, iter.cur);
		EntOutOwner *o = hash_search(ob->owners, &a->owner, HASH_FIND, NULL);
		EntWireArrears done = {.owner = a->owner, .table = a->rel};

		if (!a->queued || a->position >= unsent || (o && o->withheld) ||
			ent_outbound_presents_left(ob, a->owner))
			continue;
		ent_wire_write_arrears(w, ENT_SECTION_ARREARS_DONE, &done);
		ob->flight_arrears = true;
		if (a->resend)
			ent_outbound_note_resent(ob, a);
		dlist_delete(&a->node);
		pfree(a);
	}
}
