/*
 * link/outpresent.c
 *	  The sending end: which keys live, for a peer that may have missed deaths.
 *
 * It missed them if the tombstones it needed are gone, or if it did not take
 * the table when they passed by. Only keys of rows that the peer's role may
 * see are told (I5): a range ends with such a key, however many others have to
 * be looked at before. None are told while we are in arrears with the owner
 * ourselves: what has not come here yet is not dead.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "link/outbound_private.h"
#include "step/extract.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

#define MAX_PRESENT 1000		/* keys looked at at a time */
#define MAX_LOOKS	100			/* times for one batch */

/* What was handed over stays: what became of it is told by its tombstone. */
static EntQuery live_query = {
	"(SELECT o.key FROM entanglement.object o "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 AND o.owner OPERATOR(pg_catalog.=) $2 "
	"AND ($3 IS NULL OR o.key OPERATOR(pg_catalog.>) $3) "
	"ORDER BY o.key LIMIT $4) UNION ALL "
	"(SELECT t.key FROM entanglement.tombstone t "
	"WHERE t.rel OPERATOR(pg_catalog.=) $1 AND t.owner OPERATOR(pg_catalog.=) $2 "
	"AND ($3 IS NULL OR t.key OPERATOR(pg_catalog.>) $3) AND t.heir IS NOT NULL "
	"ORDER BY t.key LIMIT $4) ORDER BY 1 LIMIT $4",
	4, {INT4OID, INT4OID, BYTEAOID, INT8OID}, NULL
};
static EntQuery state_query = {
	"SELECT o.serial, EXISTS (SELECT 1 FROM entanglement.arrears a "
	"WHERE a.owner OPERATOR(pg_catalog.=) o.no) "
	"FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};

/* A piece of a table's keys, under one snapshot. */
typedef struct Range
{
	EntOutbound *ob;
	EntOutPresent *present;
	EntOutTable *table;
	EntRelation *rel;
	Snapshot	snapshot;
	bytea	  **keys;
	EntExtract *items;
	bool	   *visible;
	int			n;
	int			from,
				to;				/* which of them are looked at */
	int			told;			/* how many the section covers */
	bool		last;			/* none come behind them */
} Range;

static void
forget_place(EntOutPresent *p)
{
	if (p->lo)
		pfree(p->lo);
	if (p->seen)
		pfree(p->seen);
	p->lo = p->seen = NULL;
	if (p->sorted_context)
		MemoryContextDelete(p->sorted_context);
	p->sorted_context = NULL;
}

void
ent_outbound_start_present(EntOutbound *ob, int32 owner, int32 rel)
{
	dlist_iter	iter;
	EntOutPresent *p;

	dlist_foreach(iter, &ob->presents)
	{
		p = dlist_container(EntOutPresent, node, iter.cur);
		if (p->owner == owner && p->rel == rel)
		{
			forget_place(p);
			return;
		}
	}
	p = MemoryContextAllocZero(ob->context, sizeof(EntOutPresent));
	p->owner = owner;
	p->rel = rel;
	dlist_push_tail(&ob->presents, &p->node);
}

void
ent_outbound_start_presents(EntOutbound *ob, EntOutOwner *o)
{
	ListCell   *lc;

	foreach(lc, ent_relinfo_all())
		ent_outbound_start_present(ob, o->no, ((EntRelation *) lfirst(lc))->no);
}

/* Reads the serial the list is to be of; false: no list can be made now. */
static bool
read_state(EntOutOwner *o, Snapshot snapshot, int64 *serial)
{
	Datum		args[1] = {Int32GetDatum(o->no)};
	bool		found;

	ent_query_run(&state_query, args, NULL, SPI_OK_SELECT, snapshot);
	found = SPI_processed == 1;
	if (found)
	{
		*serial = ent_query_int8(0, 1, NULL);
		o->withheld = ent_query_bool(0, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	return found && !o->withheld;
}

static const uint8 *
wire_key(Range *r, bytea *key, size_t *len)
{
	return ent_key_to_wire(r->rel, (uint8 *) VARDATA_ANY(key),
						   VARSIZE_ANY_EXHDR(key), len);
}

/* Keys, with their images as they travel, to be sorted. */
typedef struct WireKey
{
	bytea	   *key;
	const uint8 *wire;
	size_t		len;
} WireKey;

static int
by_wire(const void *a, const void *b)
{
	const WireKey *x = a,
			   *y = b;
	int			c = memcmp(x->wire, y->wire, Min(x->len, y->len));

	return c != 0 ? c : (x->len > y->len) - (x->len < y->len);
}

static uint64
query_keys(Range *r, bytea *after, int64 limit)
{
	Datum		args[4] = {Int32GetDatum(r->present->rel),
		Int32GetDatum(r->present->owner), PointerGetDatum(after),
	Int64GetDatum(limit)};

	ent_query_run(&live_query, args, after ? "    " : "  n ", SPI_OK_SELECT,
				  r->snapshot);
	return SPI_processed;
}

/*
 * Images in another encoding than the wire's have another order: all keys
 * are read once and sorted as the receiver sorts them.
 */
static void
sort_keys(Range *r)
{
	EntOutPresent *p = r->present;
	uint64		n = query_keys(r, NULL, PG_INT64_MAX);
	WireKey    *keys = MemoryContextAllocHuge(CurrentMemoryContext,
											  (n + 1) * sizeof(WireKey));
	MemoryContext old;

	p->sorted_context = AllocSetContextCreate(r->ob->context, "entanglement keys",
											  ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(p->sorted_context);
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;

		keys[i].key = DatumGetByteaPCopy(ent_query_datum(i, 1, &null));
	}
	p->sorted = MemoryContextAllocHuge(p->sorted_context, (n + 1) * sizeof(bytea *));
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
	for (uint64 i = 0; i < n; i++)
		keys[i].wire = wire_key(r, keys[i].key, &keys[i].len);
	qsort(keys, n, sizeof(WireKey), by_wire);
	for (uint64 i = 0; i < n; i++)
		p->sorted[i] = keys[i].key;
	p->nsorted = n;
	p->next = 0;
}

/* The next keys, and whether they are the last. */
static void
take_keys(Range *r)
{
	EntOutPresent *p = r->present;

	if (ent_key_is_wire(r->rel))
	{
		r->n = query_keys(r, p->seen ? p->seen : p->lo, MAX_PRESENT);
		r->last = r->n < MAX_PRESENT;
	}
	else
	{
		if (p->sorted_context == NULL)
			sort_keys(r);
		r->n = Min(MAX_PRESENT, p->nsorted - p->next);
		r->last = p->next + r->n == p->nsorted;
	}
	r->keys = palloc((r->n + 1) * sizeof(bytea *));
	for (int i = 0; i < r->n; i++)
	{
		bool		null;

		r->keys[i] = p->sorted_context ? p->sorted[p->next + i] :
			DatumGetByteaPCopy(ent_query_datum(i, 1, &null));
	}
	if (p->sorted_context)
		p->next += r->n;
	else
		SPI_freetuptable(SPI_tuptable);
}

static void
read_keys(Range *r)
{
	take_keys(r);
	r->items = palloc0((r->n + 1) * sizeof(EntExtract));
	r->visible = palloc0((r->n + 1) * sizeof(bool));
	for (int i = 0; i < r->n; i++)
	{
		r->items[i].key = (uint8 *) VARDATA_ANY(r->keys[i]);
		r->items[i].keylen = VARSIZE_ANY_EXHDR(r->keys[i]);
		r->items[i].owner = r->present->owner;
		/* no values are needed */
		r->items[i].since = r->items[i].after = PG_INT64_MAX;
	}
}

/* Of what was handed over nothing is read but whether the role may see it. */
static void
look_at_handed(void *range)
{
	Range	   *r = range;
	Datum		key[ENT_WIRE_MAX_KEYS];

	for (int i = r->from; i < r->to; i++)
	{
		EntExtract *x = &r->items[i];

		if (x->kind != ENT_EXTRACT_DEAD || x->heir.owner == 0)
			continue;
		ent_key_values(r->rel, x->key, x->keylen, key);
		r->visible[i] = !r->table->nothing && !r->table->idle &&
			ent_rowquery_visible(r->rel, r->table->filter, key);
	}
}

static void
look(void *range)
{
	Range	   *r = range;

	EntExtractFor whom = ent_outbound_whom(r->ob, r->table);

	/* where every state is told, a death counts when its turn comes */
	(r->rel->every_state ? ent_extract_states : ent_extract)
		(r->rel, &whom, r->snapshot, r->items + r->from, r->to - r->from);
	for (int i = r->from; i < r->to; i++)
		r->visible[i] = r->items[i].kind == ENT_EXTRACT_DELTA ||
			r->items[i].kind == ENT_EXTRACT_FULL;
	ent_query_as(r->ob->role, look_at_handed, r);
}

/* Which rows the role may see; one that cannot be read it may not. */
static void
look_at_rows(Range *r, EntWriter *w)
{
	if (r->n == 0)
		return;
	r->to = r->n;
	if (ent_outbound_try(look, r, w) == NULL)
		return;
	for (int i = 0; i < r->n; i++)
	{
		r->from = i;
		r->to = i + 1;
		if (ent_outbound_try(look, r, w) != NULL)
			r->visible[i] = false;
	}
}

/*
 * Up to which key the range can be told: to the end of the table, or else to
 * the last one that the role may see, which ends it.
 */
static int
countable(Range *r)
{
	int			n = r->n;

	if (!r->last)
		while (n > 0 && !r->visible[n - 1])
			n--;
	return n;
}

static void
write_range(Range *r, EntWriter *w)
{
	EntOutPresent *p = r->present;
	EntWirePresent head = {.owner = p->owner, .table = p->rel, .serial = p->serial};
	size_t		mark,
				len;

	head.has_lo = p->lo != NULL;
	if (head.has_lo)
		head.lo = wire_key(r, p->lo, &head.lolen);
	head.has_hi = !r->last;
	if (head.has_hi)
		head.hi = wire_key(r, r->keys[r->told - 1], &head.hilen);
	mark = ent_wire_open_section(w, ENT_SECTION_PRESENT);
	ent_wire_write_present(w, &head);
	for (int i = 0; i < r->told; i++)
		if (r->visible[i])
		{
			const uint8 *key = wire_key(r, r->keys[i], &len);

			ent_wire_write_bytes(w, key, len);
		}
	ent_wire_close_section(w, mark);
}

static void
keep_key(EntOutbound *ob, bytea **place, bytea *key)
{
	if (*place)
		pfree(*place);
	*place = MemoryContextAlloc(ob->context, VARSIZE_ANY(key));
	memcpy(*place, key, VARSIZE_ANY(key));
}

/* Looks at the next keys, and tells those that can be. True: there are more. */
static bool
list_keys(Range *r, EntWriter *w, int64 serial)
{
	EntOutPresent *p = r->present;

	/* keys sorted before are those of that time */
	if (p->seen == NULL || (serial < p->serial && p->sorted_context == NULL))
		p->serial = serial;
	read_keys(r);
	look_at_rows(r, w);
	r->told = countable(r);
	if (r->told > 0 || r->last)
		write_range(r, w);
	if (r->last)
		return false;
	if (r->told > 0)
	{
		keep_key(r->ob, &p->lo, r->keys[r->told - 1]);
		if (p->sorted_context == NULL)
			p->serial = serial;
	}
	keep_key(r->ob, &p->seen, r->keys[r->n - 1]);
	return true;
}

typedef enum Progress
{
	MORE,						/* of this table can be listed at once */
	DONE,
	NOT_NOW						/* but when we are out of arrears */
} Progress;

static Progress
write_present(EntOutbound *ob, EntWriter *w, EntOutPresent *p)
{
	EntOutOwner *o = hash_search(ob->owners, &p->owner, HASH_FIND, NULL);
	Range		r = {
		.ob = ob, .present = p, .rel = ent_relinfo_get(p->rel),
		.table = hash_search(ob->tables, &p->rel, HASH_FIND, NULL)
	};
	int64		serial = 0;
	int			level;
	Progress	result = NOT_NOW;

	if (r.rel == NULL || r.table == NULL || !r.table->known ||
		o == NULL || !o->wanted)
		return DONE;
	if (o->withheld || r.table->generation != r.rel->generation)
		return NOT_NOW;
	r.snapshot = RegisterSnapshot(GetLatestSnapshot());
	level = ent_value_enter();
	if (read_state(o, r.snapshot, &serial))
		result = list_keys(&r, w, serial) ? MORE : DONE;
	ent_value_leave(level);
	UnregisterSnapshot(r.snapshot);
	return result;
}

void
ent_outbound_write_presents(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	dlist_mutable_iter iter;
	int			looks = 0;

	ob->looked = false;
	dlist_foreach_modify(iter, &ob->presents)
	{
		EntOutPresent *p = dlist_container(EntOutPresent, node, iter.cur);
		Progress	progress = MORE;

		while (progress == MORE && w->len < max_bytes && looks < MAX_LOOKS)
		{
			progress = write_present(ob, w, p);
			looks += progress == MORE;
		}
		if (progress == MORE)
		{
			ob->looked = looks > 0;
			return;
		}
		if (progress == NOT_NOW)
			continue;
		dlist_delete(&p->node);
		forget_place(p);
		pfree(p);
	}
}

bool
ent_outbound_presents_due(EntOutbound *ob)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->presents)
	{
		EntOutPresent *p = dlist_container(EntOutPresent, node, iter.cur);
		EntOutOwner *o = hash_search(ob->owners, &p->owner, HASH_FIND, NULL);

		if (o == NULL || !o->withheld)
			return true;
	}
	return false;
}

bool
ent_outbound_presents_left(EntOutbound *ob, int32 owner)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->presents)
		if (dlist_container(EntOutPresent, node, iter.cur)->owner == owner)
			return true;
	return false;
}
