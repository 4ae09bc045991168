/*
 * step/fold_states.c
 *	  Tables of which no committed state is left out: what objects were between
 *	  the version we knew and the one that is.
 *
 * Capture keeps what each transaction replaced. Whoever changes a row holds its
 * lock until he commits, so the changes of an object in order of place are its
 * transactions in order of commit, one after the other; what a transaction
 * replaced is the state that the one before it left. The last state is in the
 * user's table, as always.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "rule/colserial.h"
#include "step/fold_private.h"
#include "store/journal.h"
#include "store/object.h"
#include "store/query.h"

/* One captured change. */
typedef struct Step
{
	uint64		place;
	TransactionId xid;
	char		op;
	int32		owner;
	bytea	   *columns;
	bytea	   *image;
} Step;

/* What one transaction did to the object, and what it replaced. */
typedef struct Visit
{
	bytea	   *image;			/* NULL: there was nothing */
	bool		born;			/* it put (also) a row there */
	int32		owner;			/* of that */
	int			balance;		/* of rows put there and taken */
	bool		touched;		/* it did something */
	uint8		set[ENT_SET_MAX_BYTES];
	int			setlen;
} Visit;

/* A state that has been replaced. */
typedef struct Planned
{
	bytea	   *image;			/* NULL: it was dead */
	bool		known;			/* it is the version in the object table */
	const Visit *by;			/* who made it; NULL: known */
} Planned;

struct EntFoldStates
{
	List	   *steps;			/* of Step * */
	bool		disorder;
	Planned    *planned;
	int			n;
	int			wanted;			/* serials */
};

static bytea *
copy(const bytea *b)
{
	bytea	   *result;

	if (b == NULL)
		return NULL;
	result = palloc(VARHDRSZ + VARSIZE_ANY_EXHDR(b));
	SET_VARSIZE(result, VARHDRSZ + VARSIZE_ANY_EXHDR(b));
	memcpy(VARDATA(result), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
	return result;
}

static struct EntFoldStates *
states_of(EntFold *f, EntFoldEntry *e)
{
	if (e->states == NULL)
	{
		e->states = palloc0(sizeof(struct EntFoldStates));
		f->stated++;
	}
	return e->states;
}

void
ent_fold_add_step(EntFold *f, EntFoldEntry *e, uint64 place, TransactionId xid,
				  char op, int32 owner, const bytea *columns, const bytea *image)
{
	Step	   *s = palloc(sizeof(Step));
	struct EntFoldStates *st = states_of(f, e);

	*s = (Step) {place, xid, op, owner, copy(columns), copy(image)};
	st->steps = lappend(st->steps, s);
}

void
ent_fold_disorder(EntFold *f, EntFoldEntry *e)
{
	if (e->rel && e->rel->every_state)
		states_of(f, e)->disorder = true;
}

static int
by_place(const ListCell *a, const ListCell *b)
{
	const Step *x = lfirst(a),
			   *y = lfirst(b);

	return (x->place > y->place) - (x->place < y->place);
}

static void
add_to_visit(Visit *v, const Step *s)
{
	if (s->image != NULL)
		v->image = s->image;
	if (s->op == ENT_CHANGE_INSERT)
	{
		v->born = true;
		v->owner = s->owner;
		v->balance++;
		v->touched = true;
	}
	else if (s->op == ENT_CHANGE_DELETE)
	{
		v->balance--;
		v->touched = true;
	}
	else if (s->columns != NULL)
	{
		int			len = Min(VARSIZE_ANY_EXHDR(s->columns), ENT_SET_MAX_BYTES);

		for (int i = 0; i < len; i++)
			v->set[i] |= ((uint8 *) VARDATA_ANY(s->columns))[i];
		v->setlen = Max(v->setlen, len);
		v->touched |= len > 0;
	}
}

/* Steps of the same transaction become a visit; those that did nothing go. */
static int
gather_visits(List *steps, Visit *visits)
{
	TransactionId xid = InvalidTransactionId;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, steps)
	{
		Step	   *s = lfirst(lc);

		if (n == 0 || s->xid != xid)
		{
			if (n > 0 && !visits[n - 1].touched)
				n--;
			memset(&visits[n++], 0, sizeof(Visit));
		}
		xid = s->xid;
		add_to_visit(&visits[n - 1], s);
	}
	if (n > 0 && !visits[n - 1].touched)
		n--;
	return n;
}

/* Was there a row when it ended? */
static bool
leaves_row(const Visit *v)
{
	return (v->image != NULL ? 1 : 0) + v->balance > 0;
}

static void
plan(EntFoldEntry *e, const Visit *visits, int n)
{
	struct EntFoldStates *st = e->states;

	st->planned = palloc(n * sizeof(Planned));
	for (int i = 0; i < n; i++)
	{
		const Visit *v = &visits[i];
		Planned		p = {.image = v->image};

		if (i == 0)
		{
			/* what was there before is known, or nobody's */
			p.known = true;
			if (v->image == NULL || !e->exists || e->born == 0)
				continue;
		}
		else
		{
			p.by = &visits[i - 1];
			/* came and went in one transaction */
			if (v->image == NULL && p.by->image == NULL)
				continue;
			/* the log does not fit together: what was replaced is not known */
			if (leaves_row(p.by) != (v->image != NULL))
				continue;
			st->wanted++;
		}
		st->planned[st->n++] = p;
	}
}

/*
 * Born and died since the last fold: that was a state, and its end is one. Only
 * when there was nothing before.
 */
static void
live_briefly(EntFold *f, EntFoldEntry *e, const Visit *visits, int n)
{
	if (e->verdict != ENT_VERDICT_LOOK || e->exists || e->rel == NULL || n < 2 ||
		leaves_row(&visits[n - 1]) || !visits[0].born)
		return;
	e->verdict = ENT_VERDICT_DEATH;
	e->owner = visits[0].owner;
	e->states->wanted++;		/* of the death */
}

/* All by one owner, who has it still and before? */
static bool
of_one_owner(const EntFoldEntry *e, const Visit *visits, int n)
{
	if (e->handed || e->old_owner != 0 || e->heir.owner != 0 ||
		(e->exists && !e->local))
		return false;
	for (int i = 0; i < n; i++)
		if (visits[i].born && visits[i].image == NULL &&
			visits[i].owner != e->owner)
			return false;
	return true;
}

void
ent_fold_plan_states(EntFold *f, EntFoldEntry *e)
{
	struct EntFoldStates *st = e->states;
	Visit	   *visits;
	int			n;

	if (st == NULL || st->disorder || !f->keeps)
		return;
	list_sort(st->steps, by_place);
	visits = palloc(list_length(st->steps) * sizeof(Visit));
	n = gather_visits(st->steps, visits);
	live_briefly(f, e, visits, n);
	if (n == 0 || e->verdict == ENT_VERDICT_LOOK || !of_one_owner(e, visits, n))
		return;
	plan(e, visits, n);
}

int
ent_fold_states_wanted(const EntFoldEntry *e)
{
	return e->states == NULL ? 0 : e->states->wanted;
}

/* ---- versions ---- */

typedef struct Running
{
	int64	   *v;				/* column serials */
	int64		serial;
	int64		born;
} Running;

static void
start_from_known(EntFoldEntry *e, Running *r)
{
	r->v = palloc0(e->rel->natts * sizeof(int64));
	r->serial = e->serial;
	r->born = e->born;
	if (e->exists)
		ent_colserial_unpack((uint8 *) VARDATA_ANY(e->columns),
							 VARSIZE_ANY_EXHDR(e->columns), e->serial, e->born,
							 r->v, e->rel->natts);
}

/* What that visit made of the version before. */
static void
advance(EntFoldEntry *e, Running *r, const Planned *p, int64 serial)
{
	bool		whole = p->image == NULL || p->by->image == NULL || p->by->born;

	for (int i = 0; i < e->rel->natts; i++)
		if (whole || ent_wire_in_set(p->by->set, p->by->setlen, i))
			r->v[i] = serial;
	if (whole)
		r->born = serial;
	r->serial = serial;
}

static bytea *
pack(EntFoldEntry *e, const Running *r)
{
	bytea	   *out = palloc(VARHDRSZ + ENT_COLSERIAL_MAX_BYTES(e->rel->natts));
	size_t		len = ent_colserial_pack(r->v, e->rel->natts, r->serial, r->born,
										 (uint8 *) VARDATA(out));

	SET_VARSIZE(out, VARHDRSZ + len);
	return out;
}

void
ent_fold_settle_states(EntFold *f, EntFoldEntry *e, EntFoldOwner *o,
					   EntJournal *journal)
{
	struct EntFoldStates *st = e->states;
	Running		r;

	if (st == NULL)
		return;
	if (f->keeps && !e->exists && (e->verdict == ENT_VERDICT_BIRTH || st->n > 0))
		ent_journal_add_grave(journal, e->k.rel, o->no, e->image);
	if (st->n == 0)
		return;
	start_from_known(e, &r);
	for (int i = 0; i < st->n; i++)
	{
		Planned    *p = &st->planned[i];
		EntState	s = {
			.rel = e->k.rel, .owner = o->no, .epoch = p->known ? e->epoch : o->epoch,
			.key = e->image, .image = p->image
		};

		if (!p->known)
			advance(e, &r, p, o->next++);
		s.serial = r.serial;
		s.born = r.born;
		s.columns = pack(e, &r);
		ent_journal_add(journal, &s);
	}
}
