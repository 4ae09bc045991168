/*
 * step/apply_section.c
 *	  The rows of a table: all at once, or one by one.
 *
 * First all in one subtransaction; when that fails, each in its own, so that a bad row
 * is parked alone.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "base/ring.h"
#include "base/wake.h"
#include "step/apply_private.h"
#include "store/query.h"
#include "store/value.h"
#include "store/version.h"

#define MAX_TRIES_TOGETHER	100

static EntQuery pending_query = {
	"SELECT 1 FROM entanglement.change WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 LIMIT 1",
	2, {INT4OID, BYTEAOID}, NULL
};

typedef struct Section
{
	EntApplyRow *rows;
	EntApplyCopy *copies;
	int			from,
				to;
	bool		careful;
	bool		together;		/* take all out before any is put in */
	int			at;				/* the row being stored */
} Section;

static void
post(EntApply *a, EntApplyCopy *c, EntApplyRow *r, int64 since)
{
	EntEvent	ev = {
		.kind = ENT_EVENT_OBJECT, .owner = a->owner, .rel = a->rel->no,
		.serial = r->serial, .since = since,
		.flags = ent_apply_late(a, r) ? ENT_ROW_REFRESH | ENT_ROW_LATE :
		r->flags & ENT_ROW_REFRESH,
		.keylen = VARSIZE_ANY_EXHDR(c->key), .key = (uint8 *) VARDATA_ANY(c->key)
	};

	ent_wake_post_at_commit(&ev);
}

/*
 * The row is here although no object says so: somebody's local row not yet
 * folded, or a copy made by other means, which becomes the owner's.
 */
static bool
pending_locally(EntApply *a, EntApplyCopy *c)
{
	Datum		args[2] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key)};
	bool		found;

	ent_query_run(&pending_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* Rows whose places in a unique index depend on each other make room. */
static void
take_out_rows(Section *s)
{
	for (int i = s->from; i < s->to; i++)
	{
		EntApplyWrite w = {.a = s->rows[i].a, .c = &s->copies[i], .r = &s->rows[i]};

		if (w.c->exists && w.c->owner == w.a->owner)
			ent_apply_take_out(&w);
	}
}

static void
apply_rows(void *section)
{
	Section    *s = section;
	EntVersions *versions = ent_versions_create();
	EntApplyTogether together = {.max = s->careful || s->together ? 0 : s->to - s->from};

	together.w = palloc0((together.max + 1) * sizeof(EntApplyWrite));
	for (int i = s->from; i < s->to; i++)
	{
		EntApplyCopy *c = &s->copies[i];
		EntApplyRow *r = &s->rows[i];

		memset(c, 0, sizeof(EntApplyCopy));
		r->again = false;
		r->kept = 0;
		c->key = ent_key_from_wire(r->a->rel, r->a->role, r->wirekey,
								   r->wirekeylen, c->values);
	}
	ent_apply_find_copies(s->rows + s->from, s->copies + s->from, s->to - s->from);
	if (s->together)
		take_out_rows(s);
	for (int i = s->from; i < s->to; i++)
	{
		s->at = i;
		ent_apply_row(s->rows[i].a, &s->copies[i], &s->rows[i], versions, s->careful, &together);
		if (s->copies[i].taken_out && !s->copies[i].stored)
			elog(ERROR, "a row that was taken out was not put in again");
	}
	ent_apply_together(&together, versions);
	ent_versions_write(versions);
}

bool
ent_apply_about_the_row(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return true;
	}
}

/*
 * Runs apply_rows in a subtransaction. NULL: done; else the error, in the
 * caller's context. Errors that are not about the data are raised again.
 */
static ErrorData *
try_rows(Section *s)
{
	ErrorData  *error = ent_query_try(apply_rows, s);

	if (error && !ent_apply_about_the_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* Parks row i with the error that kept it out. */
static void
park_failed(Section *s, int i, ErrorData *error)
{
	EntApplyCopy *c = &s->copies[i];

	if (c->key == NULL)			/* the key itself could not be converted */
	{
		Datum		key = PointerGetDatum(cstring_to_text_with_len((const char *) s->rows[i].wirekey,
																   s->rows[i].wirekeylen));

		/* one that is too long for our index is told by its digest */
		if (s->rows[i].wirekeylen > ENT_KEY_MAX)
			key = DirectFunctionCall1(sha256_bytea, key);
		c->foreign_key = true;
		c->key = DatumGetByteaP(key);
		c->parked = s->rows[i].op == ENT_ROW_DELETE;
	}
	if (c->foreign_key && s->rows[i].op == ENT_ROW_DELETE)
	{
		if (s->rows[i].withdrawn)
			s->rows[i].serial = PG_INT64_MAX;
		ent_apply_unpark(s->rows[i].a, c, &s->rows[i]);		/* all that can be here of it */
		return;
	}
	ent_apply_park(s->rows[i].a, c, &s->rows[i],
		 c->foreign_key && s->rows[i].wirekeylen > ENT_KEY_MAX ? "54000" :
		 unpack_sql_state(error->sqlerrcode), error->message, error->detail);
}

/* NULL: it is stored, or parked for a reason of its own. */
static ErrorData *
apply_alone(Section *s, int i)
{
	ErrorData  *error;

	s->from = i;
	s->to = i + 1;
	s->careful = false;
	error = try_rows(s);
	if (error && error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		s->rows[i].op == ENT_ROW_FULL && !s->copies[i].exists)
	{
		if (pending_locally(s->rows[i].a, &s->copies[i]))
		{
			ent_apply_park(s->rows[i].a, &s->copies[i], &s->rows[i], "23505",
				 "a row of this node has the same key", NULL);
			return NULL;
		}
		s->careful = true;
		error = try_rows(s);
	}
	return error;
}

static bool
by_another_row(ErrorData *error)
{
	return error && (error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION ||
					 error->sqlerrcode == ERRCODE_EXCLUSION_VIOLATION);
}

/*
 * Rows that exchanged values of a unique column stand in each other's way
 * whatever the order: those that failed for that are tried all together. One
 * that fails even so stays behind; after some of these it is not worth it.
 */
static void
apply_mutual(Section *s, ErrorData **errors, int n)
{
	Section		t = {.together = true};
	int		   *index = palloc(n * sizeof(int));
	int			tries = 0;

	for (int i = 0; i < n; i++)
		if (by_another_row(errors[i]))
			index[t.to++] = i;
	t.rows = palloc(n * sizeof(EntApplyRow));
	t.copies = palloc(n * sizeof(EntApplyCopy));
	while (t.to > 0 && tries++ < MAX_TRIES_TOGETHER)
	{
		t.at = 0;
		for (int i = 0; i < t.to; i++)
			t.rows[i] = s->rows[index[i]];
		if (try_rows(&t) == NULL)
			break;
		t.to--;
		memmove(&index[t.at], &index[t.at + 1], (t.to - t.at) * sizeof(int));
	}
	for (int i = 0; i < t.to && tries <= MAX_TRIES_TOGETHER; i++)
	{
		s->rows[index[i]] = t.rows[i];
		s->copies[index[i]] = t.copies[i];
		errors[index[i]] = NULL;
	}
}

static void
apply_one_by_one(Section *s, int n)
{
	ErrorData **errors = palloc0(n * sizeof(ErrorData *));

	for (int i = 0; i < n; i++)
		errors[i] = apply_alone(s, i);
	apply_mutual(s, errors, n);
	for (int i = 0; i < n; i++)
		if (errors[i])
			park_failed(s, i, errors[i]);
}

void
ent_apply(EntApplyRow *rows, int n)
{
	Section		s = {.rows = rows, .to = n};

	if (n == 0)
		return;
	s.copies = palloc0(n * sizeof(EntApplyCopy));
	if (try_rows(&s) != NULL)
		apply_one_by_one(&s, n);
	for (int i = 0; i < n; i++)
		if (s.copies[i].stored)
		{
			bool		same = rows[i].op == ENT_ROW_FULL && s.copies[i].exists &&
				rows[i].serial == s.copies[i].serial;

			rows[i].a->stored++;
			post(rows[i].a, &s.copies[i], &rows[i], same ? 0 : Max(rows[i].serial - 1, 0));
		}
}
