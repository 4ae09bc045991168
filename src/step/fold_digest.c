/*
 * step/fold_digest.c
 *	  Which columns changed, of rows that the log tells new values of.
 *
 * What the log told, change by change, is compared with what it told last, which the
 * object keeps. A column that became another one and then again what it was did change:
 * a peer may have been sent what was between.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "base/compat.h"
#include "step/fold_private.h"
#include "store/rowdigest.h"
#include "store/value.h"

/* One change that the log told. */
typedef struct Told
{
	uint64		place;			/* in the log */
	bool		birth;			/* an INSERT */
	bool		exact;			/* it came with the columns that changed */
	bytea	   *digests;
} Told;

struct EntFoldDigests
{
	List	   *told;			/* of Told * */
	uint8		blind[ENT_SET_MAX_BYTES];	/* changed to what nobody told */
	bytea	   *stored;			/* the object's, or NULL */
	EntDigest  *now;			/* by attribute number less one, once compared */
	bool		changes;		/* something changed, or may have */
};

static EntFoldDigests *
digests_of(EntFoldEntry *e)
{
	if (e->digests == NULL)
		e->digests = palloc0(sizeof(EntFoldDigests));
	return e->digests;
}

static bytea *
copy_bytea(const bytea *b)
{
	bytea	   *copy = palloc(VARSIZE_ANY(b));

	memcpy(copy, b, VARSIZE_ANY(b));
	return copy;
}

void
ent_fold_note_told(EntFoldEntry *e, uint64 place, char op, const bytea *digests,
				   const bytea *columns)
{
	EntFoldDigests *d = digests_of(e);
	Told	   *t = palloc(sizeof(Told));

	t->place = place;
	t->birth = op == ENT_CHANGE_INSERT;
	t->exact = columns != NULL;
	t->digests = copy_bytea(digests);
	d->told = lappend(d->told, t);
	d->changes |= op != ENT_CHANGE_UPDATE || columns != NULL;
}

void
ent_fold_note_blind(EntFoldEntry *e, char op, const bytea *columns)
{
	EntFoldDigests *d = digests_of(e);
	const uint8 *set = columns ? (const uint8 *) VARDATA_ANY(columns) : NULL;
	int			len = columns ? Min(VARSIZE_ANY_EXHDR(columns), ENT_SET_MAX_BYTES) : 0;

	for (int i = 0; i < len; i++)
		d->blind[i] |= set[i];
	d->changes |= op != ENT_CHANGE_UPDATE || len > 0;
}

void
ent_fold_note_stored(EntFoldEntry *e, bytea *digests)
{
	digests_of(e)->stored = digests;
}

static int
by_place(const ListCell *a, const ListCell *b)
{
	const Told *x = lfirst(a),
			   *y = lfirst(b);

	return (x->place > y->place) - (x->place < y->place);
}

/* What one change told; adds the columns that it changed. */
static void
follow(EntFoldEntry *e, const Told *t)
{
	EntFoldDigests *d = e->digests;
	int			natts = e->rel->natts;
	EntDigest  *said = palloc(natts * sizeof(EntDigest));

	ent_digest_unpack(t->digests, said, natts);
	if (t->birth)
		memset(d->now, 0, natts * sizeof(EntDigest));
	for (int i = 0; i < natts; i++)
	{
		if (!ent_digest_known(&said[i]))
			continue;			/* stored apart, and as it was */
		if (!t->birth && !t->exact && !ent_digest_same(&d->now[i], &said[i]))
		{
			ent_coalesce_column(&e->folded, i);
			d->changes = true;
		}
		d->now[i] = said[i];
	}
	pfree(said);
}

void
ent_fold_compare(EntFoldEntry *e)
{
	EntFoldDigests *d = e->digests;
	ListCell   *lc;

	if (d == NULL || e->rel == NULL)
		return;
	d->now = palloc(e->rel->natts * sizeof(EntDigest));
	ent_digest_unpack(d->stored, d->now, e->rel->natts);
	list_sort(d->told, by_place);
	foreach(lc, d->told)
		follow(e, lfirst(lc));
	for (int i = 0; i < e->rel->natts; i++)
		if (ent_wire_in_set(d->blind, ENT_SET_MAX_BYTES, i))
			memset(&d->now[i], 0, sizeof(EntDigest));
}

bool
ent_fold_is_same(const EntFoldEntry *e)
{
	return e->digests != NULL && e->digests->told != NIL && !e->digests->changes;
}

/* Is something not known of a column that travels? */
static bool
is_incomplete(const EntFoldEntry *e, const EntDigest *now)
{
	for (int i = 0; i < e->rel->ncolumns; i++)
		if (!ent_digest_known(&now[e->rel->columns[i].attnum - 1]))
			return true;
	return false;
}

/*
 * Of a birth all is read that the log did not tell: whoever gets the object gets it as it
 * is now, or newer.
 */
bytea *
ent_fold_digests(EntFoldEntry *e)
{
	EntDigest  *now;

	if (!e->rel->wal)
		return NULL;
	now = e->digests ? e->digests->now : palloc0(e->rel->natts * sizeof(EntDigest));
	if (e->verdict == ENT_VERDICT_BIRTH && is_incomplete(e, now))
	{
		Datum		key[ENT_WIRE_MAX_KEYS];

		ent_key_values(e->rel, e->k.key, e->k.len, key);
		(void) ent_digest_read(e->rel, key, GetActiveSnapshot(), now);
	}
	return ent_digest_pack(now, e->rel->natts);
}
