/*
 * step/apply.c
 *	  Rows from a peer become rows here.
 *
 * One row, whatever becomes of it; apply_section.c tries many together. It is stored
 * only if its (epoch, serial) is newer than what is here (I2), a delta only
 * on a copy it fits on (I1); otherwise the sender is asked again.
 */
#include "postgres.h"

#include "base/compat.h"
#include "guard/policy.h"
#include "rule/colserial.h"
#include "step/apply_private.h"
#include "store/direct.h"
#include "store/handover.h"
#include "store/object.h"
#include "store/rowset.h"
#include "store/version.h"

typedef EntApplyCopy Copy;

/* Our tables, while copies are looked for in them. */
typedef struct Tables
{
	EntDirect  *objects,
			   *parked,
			   *graves;
} Tables;

static bool
is_grave_ahead(TupleTableSlot *grave)
{
	bool		null;

	return DatumGetBool(slot_getattr(grave, ENT_TOMBSTONE_AHEAD, &null));
}

/*
 * Is it a version of this owner's own? Then he has no tombstone for it. One handed over
 * back to who gave it has, until he confirms it.
 */
static bool
lives_on(const EntApply *a, const Copy *c)
{
	return c->exists && c->owner == a->owner && c->born != 0;
}

/* any: there may be an object with that key. */
static void
find_copy(EntApply *a, Tables *t, Copy *c, bool any)
{
	Datum		object[2] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key)};
	Datum		parked[3] = {object[0], object[1], Int32GetDatum(a->owner)};
	Datum		grave[3] = {Int32GetDatum(a->owner), object[0], object[1]};
	TupleTableSlot *row = any ? ent_versions_find(t->objects, a->rel->no, c->key) : NULL;

	c->exists = row != NULL;
	if (c->exists)
	{
		c->at = row->tts_tid;
		c->owner = ent_direct_int4(row, ENT_OBJECT_OWNER);
		c->epoch = ent_direct_int4(row, ENT_OBJECT_EPOCH);
		c->serial = ent_direct_int8(row, ENT_OBJECT_SERIAL);
		c->born = ent_direct_int8(row, ENT_OBJECT_BORN);
		c->ahead = ent_object_is_ahead(row);
		c->columns = ent_direct_bytea(row, ENT_OBJECT_COLUMN_SERIALS);
	}
	c->parked = ent_direct_find(t->parked, parked) != NULL;
	row = lives_on(a, c) ? NULL : ent_direct_find(t->graves, grave);
	c->buried = row != NULL;
	if (c->buried)
	{
		c->grave_epoch = ent_direct_int4(row, ENT_TOMBSTONE_EPOCH);
		c->grave_serial = ent_direct_int8(row, ENT_TOMBSTONE_SERIAL);
		c->grave_ahead = is_grave_ahead(row);
	}
}

/* May there be an object with one of these keys? */
static bool
any_object(int32 rel, Tables *t, const Copy *copies, int n)
{
	EntKeyRange range = {0};

	for (int i = 0; i < n; i++)
		if (copies[i].key)
			ent_versions_widen(&range, copies[i].key);
	return ent_versions_any(t->objects, rel, &range);
}

/* Of so many, from the first one on, the keys rise, as far as there are any. */
static int
rising(const Copy *copies, int n)
{
	int			run = 1;

	while (run < n && (copies[run - 1].key == NULL || copies[run].key == NULL ||
					   ent_versions_compare(copies[run - 1].key, copies[run].key) < 0))
		run++;
	return run;
}

void
ent_apply_find_copies(const EntApplyRow *rows, Copy *copies, int n)
{
	int32		rel = rows[0].a->rel->no;
	Tables		t;
	bool		any;

	t.objects = ent_direct_open(ENT_CATALOG_OBJECT, ENT_CATALOG_OBJECT_KEY,
								AccessShareLock, NULL);
	t.parked = ent_direct_open(ENT_CATALOG_PARKED, ENT_CATALOG_PARKED_KEY,
							   AccessShareLock, NULL);
	t.graves = ent_direct_open(ENT_CATALOG_TOMBSTONE, ENT_CATALOG_TOMBSTONE_KEY,
							   AccessShareLock, NULL);
	any = any_object(rel, &t, copies, n);
	for (int from = 0, to; from < n; from = to)
	{
		bool		some;

		/* changes, and what a scan brought: each may lie between what is here */
		to = any ? from + rising(copies + from, n - from) : n;
		some = any && any_object(rel, &t, copies + from, to - from);
		for (int i = from; i < to; i++)
			if (copies[i].key)
				find_copy(rows[i].a, &t, &copies[i], some);
	}
	ent_direct_close(t.graves);
	ent_direct_close(t.parked);
	ent_direct_close(t.objects);
}

/* ---- one row ---- */

/* The column serials of the copy once the row is stored. */
static bytea *
new_columns(EntApply *a, Copy *c, EntApplyRow *r)
{
	int			natts = a->rel->natts;
	int64	   *v;
	bytea	   *out;

	if (r->op != ENT_ROW_DELTA)
		return ent_versions_all_born();
	v = palloc(natts * sizeof(int64));
	out = palloc(VARHDRSZ + ENT_COLSERIAL_MAX_BYTES(natts));
	ent_colserial_unpack((uint8 *) VARDATA_ANY(c->columns),
						 VARSIZE_ANY_EXHDR(c->columns), c->serial, c->born,
						 v, natts);
	for (int i = 0; i < a->rel->ncolumns; i++)
		if (r->set[i])
			v[a->rel->columns[i].attnum - 1] = r->serial;
	SET_VARSIZE(out, VARHDRSZ + ent_colserial_pack(v, natts, r->serial, c->born,
												   (uint8 *) VARDATA(out)));
	pfree(v);
	return out;
}

/*
 * What was asked for counts although it is no newer: the object in full, and
 * that it is not to be had any more, which has no version of its own
 * (ent_apply_present). So one that was not to be seen for a while comes back
 * under the version it had. A hand-over is a version of its own.
 */
bool
ent_apply_stale(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	bool		refresh = (r->flags & ENT_ROW_REFRESH) != 0;
	bool		again = refresh &&
		(r->op == ENT_ROW_FULL ||
		 (r->op == ENT_ROW_DELETE &&
		  ((r->flags & ENT_ROW_HEIR) == 0 || c->born == 0)));

	/* the version of what is unconfirmed is nobody's: it may have died with it */
	if (c->exists)
		return !ent_apply_newer(a->epoch, r->serial, c->epoch, c->serial) &&
			!(again && a->epoch == c->epoch && r->serial == c->serial);
	if (c->buried && !ent_apply_newer(a->epoch, r->serial, c->grave_epoch, c->grave_serial))
		return !(again && r->op == ENT_ROW_FULL &&
				 (r->flags & ENT_ROW_HEIR) == 0 &&
				 a->epoch == c->grave_epoch && r->serial == c->grave_serial);
	/* not here although the peer knew that we had it: it was deleted since */
	return !refresh && !c->parked && r->serial <= a->base;
}

/*
 * A delta without the copy it belongs to: the sender is asked for the whole
 * object. The note outlives an answer that is lost on the way, since a have
 * may cover the object from now on.
 */
static void
ask_again(EntApply *a, Copy *c, EntApplyRow *r)
{
	r->again = true;
	ent_apply_note_parked(a, c, r, "55000", "the object came in part, its copy here is missing or too old",
				NULL);
}

/* Not asked for at once: it would come as it is until there is a newer version. */
static void
note_older(EntApply *a, Copy *c, EntApplyRow *r)
{
	ent_apply_note_parked(a, c, r, "55000", "the object is, or was, here in this version, perhaps with newer values",
				NULL);
}

/*
 * If it is the home that sends it, what is here came from there, before: it cannot be
 * newer, unless the home does not know any more what it told.
 */
static int64
kept_instead(EntApply *a, Copy *c, EntApplyRow *r)
{
	if (r->op != ENT_ROW_FULL || (r->flags & ENT_ROW_REFRESH) == 0)
		return 0;
	if (c->exists)
		return c->epoch == a->epoch && c->born != 0 && c->serial > r->serial ?
			c->serial : 0;
	return c->buried && c->grave_epoch == a->epoch && c->grave_serial > r->serial ?
		c->grave_serial : 0;
}

/*
 * What is to be seen again was withdrawn in this version, and was ahead of it. Who is not
 * ahead himself has it as it was before, unless he is at home.
 */
static bool
was_newer(EntApply *a, Copy *c, EntApplyRow *r)
{
	return !c->exists && c->buried && c->grave_ahead && !a->home &&
		c->grave_epoch == a->epoch && c->grave_serial == r->serial &&
		r->op == ENT_ROW_FULL && (r->flags & ENT_ROW_AHEAD) == 0;
}

/*
 * Is the row to be stored? Sets r->again when the sender has to send it in
 * full first; parks what another owner's object keeps out.
 */
static bool
acceptable(EntApply *a, Copy *c, EntApplyRow *r)
{
	if (c->exists && c->owner != a->owner)
	{
		if (r->op == ENT_ROW_DELETE)
			return true;		/* concerns only tombstone and parked row */
		if (c->buried && !ent_apply_newer(a->epoch, r->serial, c->grave_epoch,
										  c->grave_serial))
			return false;		/* it was, before it became the other one's */
		ent_apply_park(a, c, r, "23505", "another owner has an object with this key here",
			 NULL);
		return false;
	}
	if (ent_apply_stale(a, c, r))
	{
		r->kept = kept_instead(a, c, r);
		return false;
	}
	if (was_newer(a, c, r))
	{
		note_older(a, c, r);
		return false;
	}
	if (r->op == ENT_ROW_DELTA &&
		(!c->exists || c->parked || c->epoch != a->epoch || c->serial < r->base))
	{
		ask_again(a, c, r);
		return false;
	}
	return true;
}

/* He knows that it was handed over to him. */
static void
confirm(EntApply *a, Copy *c)
{
	if (c->exists && c->owner == a->owner && c->born == 0)
		ent_handover_confirmed(a->rel->no, c->key);
}

static void
note_deleted(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions)
{
	bool		mine = c->exists && c->owner == a->owner;

	if (mine)
		ent_versions_drop(versions, a->rel->no, c->key);
	ent_versions_bury(versions, a->rel->no, a->owner, a->epoch, r->serial,
					  c->key, r->heir, r->from);
	/* in the version that is here: it was withdrawn */
	if (mine && c->ahead && c->epoch == a->epoch && c->serial == r->serial)
		ent_versions_bury_ahead(versions);
	confirm(a, c);
	ent_apply_unpark(a, c, r);
	if (mine)
		ent_apply_wake_parked(a, c);
	if (mine && ent_apply_late(a, r))
		ent_apply_owe_others(a, c, r);
}

/*
 * What comes in full counts as changed in all columns, also when it is the version that
 * was here: it holds what its owner changed and had not folded when it was read, in
 * columns that nobody named. A delta of the columns that the version did change would
 * leave these out.
 */
static void
note_stored(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions)
{
	bytea	   *ahead = r->flags & ENT_ROW_AHEAD ? ent_object_ahead() : NULL;

	if (!c->exists && !c->buried && r->op == ENT_ROW_FULL && ahead == NULL)
		ent_versions_add(versions, a->rel->no, a->owner, a->epoch, r->serial, c->key,
						 new_columns(a, c, r));
	else
		ent_versions_put(versions, a->rel->no, a->owner, a->epoch, r->serial,
						 r->op == ENT_ROW_DELTA ? c->born : r->serial, c->key,
						 new_columns(a, c, r), ahead, c->exists ? &c->at : NULL);
	if (lives_on(a, c))
		ent_versions_no_grave(versions);
	confirm(a, c);
	ent_apply_unpark(a, c, r);
	if (ent_apply_late(a, r))
		ent_apply_owe_others(a, c, r);
}

bool
ent_apply_may_compare(EntApply *a)
{
	if (!a->looked)
	{
		bool	   *may = palloc0(a->rel->ncolumns * sizeof(bool));

		a->may_read = ent_policy_columns(a->rel, a->role, may);
		for (int i = 0; i < a->rel->ncolumns; i++)
			a->may_read &= may[i];
		a->looked = true;
		pfree(may);
	}
	return a->may_read;
}

/*
 * What comes again although this very version is here mostly is as it should
 * be: then nothing is written, and nothing is passed on. If it is not, which is the
 * newer one is not known when the copy is ahead: who sends it may have got it earlier,
 * unless he is at home.
 */
static void
look_at_version(EntApplyWrite *w)
{
	EntApply   *a = w->a;
	Copy	   *c = w->c;

	if (w->r->op != ENT_ROW_FULL || !c->exists || c->owner != a->owner ||
		c->epoch != a->epoch || c->serial != w->r->serial || c->born == 0)
		return;
	w->compare = ent_apply_may_compare(a);
	w->keep = c->ahead && !a->home;
}

static bool
is_birth(const EntApplyWrite *w)
{
	return w->r->op == ENT_ROW_FULL && !w->c->exists && !w->c->parked &&
		!w->c->buried;
}

static bool
is_update(const EntApplyWrite *w)
{
	return w->r->op != ENT_ROW_DELETE && w->c->exists && !w->compare && !w->keep &&
		w->a->integrity == NULL && ent_rowset_updates(w->a->rel, w->r->set);
}

/* Is it one that can be stored by a statement for many? */
static bool
is_plain(const EntApplyTogether *t, const EntApplyWrite *w)
{
	return t->max > 0 && !w->a->rel->every_state && w->a->listen == NULL &&
		w->a->constructed == NULL && (is_birth(w) || is_update(w));
}

static bool
goes_with(const EntApplyTogether *t, const EntApplyWrite *w)
{
	return t->n == 0 ||
		(t->w[0].c->exists == w->c->exists &&
		 memcmp(t->w[0].r->set, w->r->set, w->a->rel->ncolumns * sizeof(bool)) == 0);
}

/* What follows from how the writing ended; true: it is stored. */
static bool
note_outcome(const EntApplyWrite *w, EntVersions *versions)
{
	switch (w->outcome)
	{
		case ENT_APPLY_MISSING:
			ask_again(w->a, w->c, w->r);
			return false;
		case ENT_APPLY_INVISIBLE:
			ent_apply_park(w->a, w->c, w->r, "42501", "the row exists but the peer's role may not change it",
						   NULL);
			return false;
		case ENT_APPLY_SAME:
			ent_apply_unpark(w->a, w->c, w->r);
			return false;
		case ENT_APPLY_OLDER:
			note_older(w->a, w->c, w->r);
			return false;
		case ENT_APPLY_STORED:
			break;
	}
	if (w->r->op == ENT_ROW_DELETE)
		note_deleted(w->a, w->c, w->r, versions);
	else
		note_stored(w->a, w->c, w->r, versions);
	return true;
}

void
ent_apply_together(EntApplyTogether *t, EntVersions *versions)
{
	if (t->n > 0)
		ent_apply_write_together(t->w, t->n);
	for (int i = 0; i < t->n; i++)
		t->w[i].c->stored = note_outcome(&t->w[i], versions);
	t->n = 0;
}

/*
 * In which version an object died is not said: it counts as that which is here, and
 * may come back in the same one. Of an older epoch's version nothing is known in this
 * one, whose versions may all be less.
 */
int64
ent_apply_last_serial(EntApply *a, int32 epoch, int64 serial)
{
	return epoch == a->epoch ? serial : 0;
}

/* It is not to be had any more: what is here of it goes, and nothing is waited for. */
static bool
withdraw(EntApply *a, Copy *c, EntApplyRow *r)
{
	if (c->exists && c->owner == a->owner)
	{
		r->serial = ent_apply_last_serial(a, c->epoch, c->serial);
		return true;
	}
	r->serial = PG_INT64_MAX;
	ent_apply_unpark(a, c, r);
	return false;
}

/* Is there something to be done about it? */
static bool
to_be_stored(EntApplyWrite *w, bool writes)
{
	return (!w->r->withdrawn || withdraw(w->a, w->c, w->r)) &&
		acceptable(w->a, w->c, w->r) &&
		(!writes || ent_apply_ask_hooks(w)) &&
		!ent_integrity_holds_back(w->a, w->c, w->r);
}

void
ent_apply_row(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions,
			  bool careful, EntApplyTogether *together)
{
	EntApplyWrite w = {.a = a, .c = c, .r = r, .careful = careful};
	bool		writes = r->op != ENT_ROW_DELETE ||
		(c->exists && c->owner == a->owner);
	EntState   *replaced;

	if (r->flags & ENT_ROW_HEIR)
	{
		c->stored = ent_apply_inherit(&w, versions);
		return;
	}
	if (!to_be_stored(&w, writes))
		return;
	look_at_version(&w);
	if (!is_plain(together, &w) || !goes_with(together, &w))
		ent_apply_together(together, versions);
	if (is_plain(together, &w))
	{
		together->w[together->n++] = w;
		return;
	}
	replaced = ent_apply_replaced(a, c, r);
	if (writes)
		ent_apply_write(&w);
	if (w.outcome == ENT_APPLY_STORED)
		ent_apply_keep(replaced);
	c->stored = note_outcome(&w, versions);
}
