/*
 * link/outshow.c
 *	  The sending end: what the peer may see of each table, and what becomes of
 *	  what it holds when that changes.
 *
 * Rights are looked at before each batch, and before each piece of one: a change is
 * known before anything that was written after it can be read. When the rules are
 * other ones than the peer was last shown the table under, all its objects are
 * looked at again (a review), and what they hide is withdrawn.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "guard/show.h"
#include "link/outbound_private.h"
#include "step/extract.h"
#include "store/query.h"
#include "store/shown.h"

bool
ent_outbound_show_due(const EntOutbound *ob)
{
	return TimestampDifferenceExceeds(ob->show_at, GetCurrentTimestamp(),
									  ent_policy_interval);
}

void
ent_outbound_look_at_rights(EntOutbound *ob)
{
	uint64		version = ent_show_version();

	ob->show_at = GetCurrentTimestamp();
	if (ob->show_version == version)
		return;
	ob->show_version = version;
	if (!ob->adverts_due)
		ob->adverts_position = ob->ring_position;
	ob->adverts_due = true;
}

void
ent_outbound_look_anew(EntOutbound *ob, int32 rel)
{
	HASH_SEQ_STATUS seq;
	EntOutTable *t;

	hash_seq_init(&seq, ob->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (rel == 0 || t->no == rel)
			t->show_version = 0;
	ob->show_version = 0;
}

/* Other rules than it was last shown under: everything is looked at again. */
static void
review(EntOutbound *ob, int32 rel, EntShown *shown, const EntShown *now)
{
	if (shown->kind == ENT_SHOWN_ALL)
		(void) ent_shown_narrow(ob->peer, rel);
	shown->kind = ENT_SHOWN_SOME;
	shown->target = now->target;
	shown->digest = now->digest;
	ent_shown_put(ob->peer, rel, shown);
	ent_shown_review(ob->peer, rel);
	ob->resend_due = true;
	if (ent_shown_reviewed(ob->peer, rel))
		shown->kind = shown->target;
}

/*
 * It has had something of these owners before we remember what: it was another
 * peer here, perhaps, which was dropped, or had the table under another number.
 */
static void
compare_earlier(EntOutbound *ob, int32 rel)
{
	HASH_SEQ_STATUS seq;
	EntOutOwner *o;
	Datum	   *owners = palloc((hash_get_num_entries(ob->owners) + 1) * sizeof(Datum));
	int			n = 0;

	hash_seq_init(&seq, ob->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		if (o->wanted && o->claimed > 0)
			owners[n++] = Int32GetDatum(o->no);
	if (n > 0)
	{
		ent_shown_compare(ob->peer, rel, ent_query_array(INT4OID, owners, NULL, n));
		ob->resend_due = true;
	}
	pfree(owners);
}

/*
 * What counts from now on, written down if it is news. Before the peer has said
 * what it wants, and while it has no such table, it is sent nothing, and holds
 * no more than before. before: it has been shown something.
 */
static EntShownKind
compare(EntOutbound *ob, int32 rel, bool sending, const EntShow *show,
		bool *before)
{
	EntShown	shown;
	EntShown	now = {.digest = show->digest};

	now.target = !show->sees || show->nothing ? ENT_SHOWN_NOTHING :
		show->partial ? ENT_SHOWN_SOME : ENT_SHOWN_ALL;
	now.kind = now.target;
	*before = ent_shown_get(ob->peer, rel, &shown);
	if (*before)
	{
		if (shown.target != now.target || shown.digest != now.digest)
			review(ob, rel, &shown, &now);
		/* an owner that is no more may have taken the last note along */
		else if (shown.kind != shown.target && ent_shown_reviewed(ob->peer, rel))
			shown.kind = shown.target;
		ob->unreviewed |= shown.kind != shown.target;
		return shown.kind;
	}
	if (show->sees && sending)
	{
		ent_shown_put(ob->peer, rel, &now);
		if (now.kind != ENT_SHOWN_ALL)
			compare_earlier(ob, rel);
	}
	return now.kind;
}

static void
set_filter(EntOutbound *ob, EntOutTable *t, const char *filter)
{
	if (t->filter != NULL && filter != NULL && strcmp(t->filter, filter) == 0)
		return;
	if (t->filter != NULL)
		pfree(t->filter);
	t->filter = filter ? MemoryContextStrdup(ob->context, filter) : NULL;
	t->filter_failed = false;
}

bool
ent_outbound_show_table(EntOutbound *ob, EntRelation *rel, EntOutTable *t)
{
	uint64		version = ent_show_version();
	EntShow		show;
	EntShownKind kind;
	bool		before;

	if (t->show_version == version && t->generation == rel->generation)
		return !t->withheld;
	if (t->ncolumns < rel->ncolumns || t->may == NULL)
		t->may = MemoryContextAlloc(ob->context, rel->ncolumns * sizeof(bool));
	ent_show_table(rel, ob->peer, ob->role, t->may, &show);
	ent_outbound_judge(ob, t, &show);
	kind = compare(ob, rel->no, ob->wishes_heard && !t->unknown, &show, &before);
	t->ncolumns = rel->ncolumns;
	t->generation = rel->generation;
	t->show_version = version;
	t->partial = kind == ENT_SHOWN_SOME;
	t->nothing = t->partial && (!show.sees || show.nothing);
	t->idle = !t->partial && show.nothing;
	t->ended = before && kind == ENT_SHOWN_NOTHING;
	set_filter(ob, t, show.nothing ? NULL : show.filter);
	/* its name and its key are known to the peer, which holds rows of it */
	for (int i = 0; !show.sees && i < rel->ncolumns; i++)
		t->may[i] = rel->columns[i].key > 0;
	return show.sees || t->nothing;
}

EntExtractFor
ent_outbound_whom(const EntOutbound *ob, const EntOutTable *t)
{
	EntExtractFor whom = {
		.peer = ob->peer, .role = ob->role, .may = t->may, .filter = t->filter,
		.partial = t->partial || t->idle, .nothing = t->nothing || t->idle
	};

	return whom;
}

Datum
ent_outbound_key(const uint8 *key, size_t keylen)
{
	bytea	   *b = palloc(VARHDRSZ + keylen);

	SET_VARSIZE(b, VARHDRSZ + keylen);
	memcpy(VARDATA(b), key, keylen);
	return PointerGetDatum(b);
}

static int
by_rel_and_key(const ListCell *a, const ListCell *b)
{
	const EntOutLate *x = lfirst(a),
			   *y = lfirst(b);
	size_t		xlen = VARSIZE(x->key),
				ylen = VARSIZE(y->key);

	if (x->rel != y->rel)
		return x->rel < y->rel ? -1 : 1;
	if (xlen != ylen)
		return xlen < ylen ? -1 : 1;
	return memcmp(x->key, y->key, xlen);
}

/* What batches behind that one have the peer forget once more, in order. */
static List *
forgotten_again(EntOutbound *ob)
{
	List	   *all = NIL;
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
		all = list_concat(all, dlist_container(EntOutFlight, node, iter.cur)->forgotten);
	list_sort(all, by_rel_and_key);
	return all;
}

/* the same, for bsearch */
static int
by_rel_and_key_void(const void *a, const void *b)
{
	return by_rel_and_key(a, b);
}

static bool
is_in(List *sorted, const EntOutLate *f)
{
	ListCell	cell = {.ptr_value = unconstify(EntOutLate *, f)};

	return sorted != NIL &&
		bsearch(&cell, sorted->elements, list_length(sorted), sizeof(ListCell),
				by_rel_and_key_void) != NULL;
}

/*
 * One that a batch behind has it forget once more is held until that has been
 * answered: between the two it may have been told of it again.
 */
void
ent_outbound_settle_forgotten(EntOutbound *ob, EntOutFlight *flight)
{
	int			n = list_length(flight->forgotten);
	List	   *again = n > 0 ? forgotten_again(ob) : NIL;
	Datum	   *keys = palloc((n + 1) * sizeof(Datum));

	for (int i = 0, m = 0; i < n; i++)
	{
		EntOutLate *f = list_nth(flight->forgotten, i);
		EntOutLate *next = i + 1 < n ? list_nth(flight->forgotten, i + 1) : NULL;

		if (!is_in(again, f))
			keys[m++] = PointerGetDatum(f->key);
		if (m == 0 || (next != NULL && next->rel == f->rel))
			continue;
		ent_shown_release(ob->peer, f->rel,
						  ent_query_array(BYTEAOID, keys, NULL, m));
		m = 0;
	}
	for (int i = 0; i < n; i++)
		pfree(((EntOutLate *) list_nth(flight->forgotten, i))->key);
	list_free_deep(flight->forgotten);
	list_free(again);
	pfree(keys);
}
