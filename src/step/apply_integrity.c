/*
 * step/apply_integrity.c
 *	  Foreign keys of tables with integrity, over a whole batch.
 *
 * While rows are applied their foreign-key triggers sleep. Here it is noted
 * what they touch, and at the end each child must have its parent, and nothing
 * that a parent was must be missed by a child. A row that breaks this is held
 * back: all is rolled back and done again without it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "step/apply_private.h"
#include "store/fkquery.h"
#include "store/foreignkey.h"
#include "store/query.h"
#include "store/value.h"

typedef struct RowKey
{
	int32		rel;
	int32		owner;
	bytea	   *key;
} RowKey;

typedef struct Excluded
{
	RowKey		k;				/* hash key */
	EntApplyReason why;
	EntRelation *rel;
	bool		fresh;			/* did not wait before */
} Excluded;

/* A row that was (to be) written. */
typedef struct Touched
{
	EntApply	apply;			/* as far as it says whose row, and as whom */
	bytea	   *key;
	EntRowOp	op;
	bool		born;			/* was not here before */
	bool		excluded;		/* found to break something in this try */
} Touched;

/* Values that a touched row had and perhaps has no more. */
typedef struct Gone
{
	EntForeignKey *fk;
	Datum	   *values;
	Touched    *by;
} Gone;

struct EntIntegrity
{
	MemoryContext context;		/* as long as the run */
	MemoryContext try_context;	/* touched, gone, left */
	List	   *fks;
	bool		waits;			/* some parked row waits for another */
	HTAB	   *excluded;
	List	   *touched;		/* of Touched * */
	List	   *gone;			/* of Gone *: of parents */
	List	   *left;			/* of Gone *: of children, if some wait for that */
	Touched    *current;		/* being looked at */
	int			found;			/* excluded by this check */
};

static EntQuery waits_query = {
	"SELECT 1 FROM entanglement.parked WHERE waits_for IS NOT NULL LIMIT 1",
	0, {0}, NULL
};

static EntQuery waited_query = {
	"SELECT waits_for FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 AND owner OPERATOR(pg_catalog.=) $3",
	3, {INT4OID, BYTEAOID, INT4OID}, NULL
};

/* ---- life ---- */

static uint32
hash_row(const void *key, Size size)
{
	const RowKey *k = key;

	return DatumGetUInt32(hash_any_extended((unsigned char *) VARDATA_ANY(k->key),
											VARSIZE_ANY_EXHDR(k->key),
											((uint64) k->rel << 32) | (uint32) k->owner));
}

static int
match_row(const void *a, const void *b, Size size)
{
	const RowKey *x = a,
			   *y = b;

	if (x->rel != y->rel || x->owner != y->owner ||
		VARSIZE_ANY_EXHDR(x->key) != VARSIZE_ANY_EXHDR(y->key))
		return 1;
	return memcmp(VARDATA_ANY(x->key), VARDATA_ANY(y->key),
				  VARSIZE_ANY_EXHDR(x->key));
}

EntIntegrity *
ent_integrity_begin(void)
{
	List	   *fks = ent_foreignkey_all();
	EntIntegrity *in;
	HASHCTL		ctl = {.keysize = sizeof(RowKey), .entrysize = sizeof(Excluded),
		.hash = hash_row, .match = match_row, .hcxt = CurrentMemoryContext
	};

	if (fks == NIL)
		return NULL;
	in = palloc0(sizeof(EntIntegrity));
	in->context = CurrentMemoryContext;
	in->try_context = AllocSetContextCreate(CurrentMemoryContext,
											"entanglement integrity",
											ALLOCSET_DEFAULT_SIZES);
	in->fks = fks;
	in->excluded = hash_create("entanglement rows held back", 16, &ctl,
							   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
							   HASH_CONTEXT);
	ent_fkquery_refresh();
	ent_query_run(&waits_query, NULL, NULL, SPI_OK_SELECT, NULL);
	in->waits = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return in;
}

void
ent_integrity_reset(EntIntegrity *in)
{
	MemoryContextReset(in->try_context);
	in->touched = in->gone = in->left = NIL;
	in->current = NULL;
	in->found = 0;
}

/* ---- noting ---- */

static bytea *
copy_key(const bytea *key)
{
	bytea	   *copy = palloc(VARSIZE_ANY(key));

	memcpy(copy, key, VARSIZE_ANY(key));
	return copy;
}

/* The referenced values of a row that is known by its key alone. */
static Datum *
values_by_key(EntForeignKey *fk, EntRelation *parent, const bytea *key)
{
	Datum	   *values = palloc(fk->nkeys * sizeof(Datum));
	Datum		keys[ENT_WIRE_MAX_KEYS];

	ent_key_values(parent, (const uint8 *) VARDATA_ANY(key),
				   VARSIZE_ANY_EXHDR(key), keys);
	for (int i = 0; i < fk->nkeys; i++)
		values[i] = keys[parent->columns[fk->parent_columns[i]].key - 1];
	return values;
}

static bool
any_null(const bool *nulls, int n)
{
	for (int i = 0; i < n; i++)
		if (nulls[i])
			return true;
	return false;
}

/* Referenced values of a row as it is now; NULL: none that can be referenced. */
static Datum *
referenced_values(EntForeignKey *fk, EntRelation *parent, const bytea *key)
{
	Datum	   *values;
	Datum		keys[ENT_WIRE_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	if (fk->by_key)
		return values_by_key(fk, parent, key);
	values = palloc0(fk->nkeys * sizeof(Datum));
	ent_key_values(parent, (const uint8 *) VARDATA_ANY(key),
				   VARSIZE_ANY_EXHDR(key), keys);
	if (!ent_fkquery_parent_values(fk, parent, keys, values, nulls) ||
		any_null(nulls, fk->nkeys))
		return NULL;
	return values;
}

static Datum *
referencing_values(EntForeignKey *fk, EntRelation *child, const bytea *key,
				   bool *nulls)
{
	Datum	   *values = palloc0(fk->nkeys * sizeof(Datum));
	Datum		keys[ENT_WIRE_MAX_KEYS];

	ent_key_values(child, (const uint8 *) VARDATA_ANY(key),
				   VARSIZE_ANY_EXHDR(key), keys);
	return ent_fkquery_child_values(fk, child, keys, values, nulls) ? values : NULL;
}

static void
note(List **list, EntForeignKey *fk, Datum *values, Touched *by)
{
	Gone	   *gone = palloc(sizeof(Gone));

	gone->fk = fk;
	gone->values = values;
	gone->by = by;
	*list = lappend(*list, gone);
}

/* Can the write change what the foreign key references? */
static bool
may_change(EntForeignKey *fk, EntApplyRow *r)
{
	if (r->op == ENT_ROW_DELETE)
		return true;
	if (fk->by_key)
		return false;
	for (int i = 0; i < fk->nkeys; i++)
		if (fk->parent_columns[i] < 0 || r->set[fk->parent_columns[i]])
			return true;
	return false;
}

/* What the row is before it is written. */
static void
note_before(EntIntegrity *in, Touched *t, EntApplyRow *r)
{
	EntRelation *rel = t->apply.rel;
	ListCell   *lc;

	foreach(lc, in->fks)
	{
		EntForeignKey *fk = lfirst(lc);
		Datum	   *values;
		bool		nulls[INDEX_MAX_KEYS];

		if (fk->parent_rel == rel->no && may_change(fk, r) &&
			(values = referenced_values(fk, rel, t->key)) != NULL)
			note(&in->gone, fk, values, t);
		if (in->waits && fk->child_rel == rel->no && !t->born &&
			(values = referencing_values(fk, rel, t->key, nulls)) != NULL &&
			!any_null(nulls, fk->nkeys))
			note(&in->left, fk, values, t);
	}
}

/* Has it been parked for a foreign key already? */
static bool
waited(EntApply *a, EntApplyCopy *c)
{
	Datum		args[3] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key),
	Int32GetDatum(a->owner)};
	bool		none = true;

	ent_query_run(&waited_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		(void) ent_query_int8(0, 1, &none);
	SPI_freetuptable(SPI_tuptable);
	return !none;
}

bool
ent_integrity_holds_back(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	EntIntegrity *in = a->integrity;
	RowKey		k = {a->rel->no, a->owner, c->key};
	Excluded   *ex;
	MemoryContext old;
	Touched    *t;

	if (in == NULL || !a->rel->integrity ||
		(r->op == ENT_ROW_DELETE && !(c->exists && c->owner == a->owner)))
		return false;
	ex = hash_search(in->excluded, &k, HASH_FIND, NULL);
	if (ex)
	{
		ex->fresh = !c->parked || !waited(a, c);
		ent_apply_park_because(a, c, r, &ex->why);
		return true;
	}
	old = MemoryContextSwitchTo(in->try_context);
	t = palloc0(sizeof(Touched));
	t->apply = *a;
	t->key = copy_key(c->key);
	t->op = r->op;
	t->born = !c->exists;
	note_before(in, t, r);
	in->touched = lappend(in->touched, t);
	MemoryContextSwitchTo(old);
	return false;
}

/* ---- looking ---- */

static void
exclude(EntIntegrity *in, Touched *t, EntApplyReason why)
{
	MemoryContext old = MemoryContextSwitchTo(in->context);
	RowKey		k = {t->apply.rel->no, t->apply.owner, t->key};
	Excluded   *ex;
	bool		found;

	t->excluded = true;
	ex = hash_search(in->excluded, &k, HASH_ENTER, &found);
	if (!found)
	{
		ex->k.key = copy_key(t->key);
		ex->why = why;
		ex->rel = t->apply.rel;
		ex->fresh = false;
		ex->why.message = pstrdup(why.message);
		ex->why.sqlstate = pstrdup(why.sqlstate);
		if (why.detail)
			ex->why.detail = pstrdup(why.detail);
		in->found++;
	}
	MemoryContextSwitchTo(old);
}

/*
 * Until all is rolled back: what references it must not find it. As the table's
 * owner, since the peer's role may have no right to delete.
 */
static void
take_away(Touched *t)
{
	EntApplyCopy c = {.key = t->key};
	EntApplyRow r = {.op = ENT_ROW_DELETE};
	EntApply	a = t->apply;
	EntApplyWrite w = {.a = &a, .c = &c, .r = &r};
	int			level = ent_query_plain_path();

	a.role = ent_fkquery_owner(a.rel->relid);
	ent_key_values(t->apply.rel, (uint8 *) VARDATA_ANY(t->key),
				   VARSIZE_ANY_EXHDR(t->key), c.values);
	ent_apply_write(&w);
	AtEOXact_GUC(true, level);
}

static char *
child_message(EntForeignKey *fk)
{
	return psprintf("insert or update on table \"%s\" violates foreign key constraint \"%s\"",
					get_rel_name(fk->child), NameStr(fk->name));
}

/* Does the row have the parent that fk asks for? Else it is excluded. */
static bool
has_parent(EntIntegrity *in, Touched *t, EntForeignKey *fk)
{
	bool		nulls[INDEX_MAX_KEYS];
	Datum	   *values = referencing_values(fk, t->apply.rel, t->key, nulls);
	EntApplyReason why = {.sqlstate = "23503"};
	int			n = 0;

	if (values == NULL)
		return true;			/* not in this table */
	for (int i = 0; i < fk->nkeys; i++)
		n += nulls[i];
	if (n == fk->nkeys || (n > 0 && !fk->full))
		return true;
	if (n == 0 && ent_fkquery_lock_parent(fk, values))
		return true;
	why.message = child_message(fk);
	if (n > 0)
		why.detail = "MATCH FULL does not allow mixing of null and nonnull key values.";
	else
	{
		why.detail = psprintf("Key %s is not present in table \"%s\".",
							  ent_fkquery_text(fk, true, values),
							  get_rel_name(fk->parent));
		why.waits_for = ent_fkquery_hash(fk, true, true, values);
	}
	exclude(in, t, why);
	return false;
}

/*
 * Excludes children without a parent. A row that was not here before is taken
 * away at once, so that those who reference it are found in the same check.
 * True when that was so.
 */
static bool
look_at_children(EntIntegrity *in)
{
	bool		again = false;
	ListCell   *lc,
			   *lf;

	foreach(lc, in->touched)
	{
		Touched    *t = lfirst(lc);

		if (t->excluded || t->op == ENT_ROW_DELETE)
			continue;
		in->current = t;
		foreach(lf, in->fks)
		{
			EntForeignKey *fk = lfirst(lf);

			if (fk->child_rel != t->apply.rel->no || has_parent(in, t, fk))
				continue;
			if (t->born)
			{
				take_away(t);
				again = true;
			}
			break;
		}
	}
	return again;
}

/* Excludes what takes away a parent that a child still has. */
static void
look_at_parents(EntIntegrity *in)
{
	ListCell   *lc;

	foreach(lc, in->gone)
	{
		Gone	   *g = lfirst(lc);
		EntApplyReason why = {.sqlstate = "23503"};

		in->current = g->by;
		if (g->by->excluded || ent_fkquery_parent_exists(g->fk, g->values) ||
			!ent_fkquery_child_exists(g->fk, g->values))
			continue;
		why.message = psprintf("update or delete on table \"%s\" violates foreign key constraint \"%s\" on table \"%s\"",
							   get_rel_name(g->fk->parent), NameStr(g->fk->name),
							   get_rel_name(g->fk->child));
		why.detail = psprintf("Key %s is still referenced from table \"%s\".",
							  ent_fkquery_text(g->fk, false, g->values),
							  get_rel_name(g->fk->child));
		why.waits_for = ent_fkquery_hash(g->fk, false, false, g->values);
		exclude(in, g->by, why);
	}
}

static void
look(EntIntegrity *in)
{
	while (look_at_children(in))
		CHECK_FOR_INTERRUPTS();
	look_at_parents(in);
}

/* A look that failed says nothing of the others: all of the table stay out. */
static void
exclude_table(EntIntegrity *in, ErrorData *error)
{
	EntApplyReason why = {unpack_sql_state(error->sqlerrcode), error->message,
	error->detail, 0};
	int32		rel = in->current->apply.rel->no;
	ListCell   *lc;

	foreach(lc, in->touched)
	{
		Touched    *t = lfirst(lc);

		if (t->apply.rel->no == rel)
			exclude(in, t, why);
	}
}

bool
ent_integrity_check(EntIntegrity *in)
{
	MemoryContext old = MemoryContextSwitchTo(in->try_context);
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(in->try_context);
	PG_TRY();
	{
		look(in);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(in->try_context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(in->try_context);
	if (error && (in->current == NULL || !ent_apply_about_the_row(error->sqlerrcode)))
		ReThrowError(error);
	if (error)
		exclude_table(in, error);
	MemoryContextSwitchTo(old);
	return in->found == 0;
}

/* ---- helping ---- */

static void
add_help(List **list, int64 hash)
{
	int64	   *h = palloc(sizeof(int64));

	*h = hash;
	*list = lappend(*list, h);
}

List *
ent_integrity_helped(EntIntegrity *in)
{
	List	   *helped = NIL;
	ListCell   *lc,
			   *lf;

	if (!in->waits)
		return NIL;
	foreach(lc, in->touched)
	{
		Touched    *t = lfirst(lc);

		if (t->op == ENT_ROW_DELETE)
			continue;
		foreach(lf, in->fks)
		{
			EntForeignKey *fk = lfirst(lf);
			Datum	   *values;

			if (fk->parent_rel == t->apply.rel->no &&
				(values = referenced_values(fk, t->apply.rel, t->key)) != NULL)
				add_help(&helped, ent_fkquery_hash(fk, true, false, values));
		}
	}
	foreach(lc, in->left)
	{
		Gone	   *g = lfirst(lc);

		add_help(&helped, ent_fkquery_hash(g->fk, false, true, g->values));
	}
	return helped;
}

List *
ent_integrity_missed(EntIntegrity *in)
{
	List	   *missed = NIL;
	HASH_SEQ_STATUS seq;
	Excluded   *ex;

	if (!in->waits)
		return NIL;
	hash_seq_init(&seq, in->excluded);
	while ((ex = hash_seq_search(&seq)) != NULL)
	{
		ListCell   *lc;

		if (!ex->fresh)
			continue;
		foreach(lc, in->fks)
		{
			EntForeignKey *fk = lfirst(lc);

			if (fk->parent_rel == ex->k.rel && fk->by_key)
				add_help(&missed, ent_fkquery_hash(fk, true, false,
												   values_by_key(fk, ex->rel, ex->k.key)));
		}
	}
	return missed;
}
