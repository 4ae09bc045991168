/*
 * step/apply_row.c
 *	  One row of a peer's is written to its table, with the peer's rights.
 *
 * The only place of apply where code of a table's owner runs: as the peer's
 * role, in a security-restricted operation.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "utils/datum.h"

#include "step/apply_private.h"
#include "store/rowquery.h"
#include "store/rowset.h"
#include "store/value.h"

static void
decode(EntApplyWrite *w)
{
	EntApply   *a = w->a;
	EntApplyRow *r = w->r;
	int			n = a->rel->ncolumns;

	if (w->values != NULL)
		return;
	w->values = palloc0(n * sizeof(Datum));
	w->nulls = palloc0(n * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		if (!r->set[i])
			continue;
		w->nulls[i] = r->data[i] == NULL;
		if (!w->nulls[i])
			w->values[i] = ent_value_decode(&a->rel->columns[i], a->formats[i],
											a->sender_types[i], r->data[i],
											r->len[i]);
	}
}

/* A row that was taken out comes in again, with what is new. */
static void
put_in(EntApplyWrite *w)
{
	int			n = w->a->rel->ncolumns;
	bool	   *all = palloc(n * sizeof(bool));

	for (int i = 0; i < n; i++)
	{
		all[i] = true;
		if (w->r->set[i])
			continue;
		w->values[i] = w->c->old[i];
		w->nulls[i] = w->c->old_nulls[i];
	}
	ent_rowquery_insert(w->a->rel, all, w->c->values, w->values, w->nulls);
}

/* Has the row these values? They are compared as they are stored. */
static bool
has_values(EntApplyWrite *w)
{
	EntRelation *rel = w->a->rel;
	Datum	   *values = palloc0(rel->ncolumns * sizeof(Datum));
	bool	   *nulls = palloc0(rel->ncolumns * sizeof(bool));
	bool	   *set = palloc0(rel->ncolumns * sizeof(bool));
	bool		any = false;

	for (int i = 0; i < rel->ncolumns; i++)
	{
		set[i] = w->r->set[i];
		any |= set[i];
	}
	/* at least the key, to see whether it is there */
	set[rel->keys[0]] |= !any;
	if (!ent_rowquery_read(rel, set, NULL, w->c->values, NULL, values, nulls))
		return false;
	for (int i = 0; i < rel->ncolumns; i++)
	{
		EntColumn  *col = &rel->columns[i];

		if (!w->r->set[i])
			continue;
		if (nulls[i] != w->nulls[i] ||
			(!nulls[i] && !datum_image_eq(values[i], w->values[i], col->typbyval,
										  col->typlen)))
			return false;
	}
	return true;
}

static EntApplyOutcome
write_row(EntApplyWrite *w)
{
	EntApply   *a = w->a;
	EntApplyRow *r = w->r;

	if (r->op == ENT_ROW_DELETE)
	{
		if (ent_rowquery_delete(a->rel, w->c->values) > 0 ||
			!ent_rowquery_exists(a->rel, w->c->values, NULL))
			return ENT_APPLY_STORED;
		/* without its object it would be nobody's */
		return ENT_APPLY_INVISIBLE;
	}
	decode(w);
	if (w->c->taken_out)
	{
		put_in(w);
		return ENT_APPLY_STORED;
	}
	if (w->compare && has_values(w))
		return ENT_APPLY_SAME;
	if (w->keep)
		return ENT_APPLY_OLDER;
	if ((w->c->exists || w->careful) &&
		ent_rowquery_update(a->rel, r->set, w->c->values, w->values, w->nulls) > 0)
		return ENT_APPLY_STORED;
	if (r->op == ENT_ROW_DELTA)
		return ENT_APPLY_MISSING;
	if (w->careful && ent_rowquery_exists(a->rel, w->c->values, NULL))
		return ENT_APPLY_INVISIBLE;
	ent_rowquery_insert(a->rel, r->set, w->c->values, w->values, w->nulls);
	return ENT_APPLY_STORED;
}

static EntApplyOutcome
take_out(EntApplyWrite *w)
{
	EntRelation *rel = w->a->rel;
	EntApplyCopy *c = w->c;
	bool	   *rest = palloc(rel->ncolumns * sizeof(bool));
	bool		any = false;

	c->old = palloc0(rel->ncolumns * sizeof(Datum));
	c->old_nulls = palloc0(rel->ncolumns * sizeof(bool));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		rest[i] = !w->r->set[i];
		any |= rest[i];
	}
	if (any && !ent_rowquery_read(rel, rest, NULL, c->values, NULL, c->old,
								  c->old_nulls))
		return ENT_APPLY_MISSING;
	c->taken_out = ent_rowquery_delete(rel, c->values) > 0;
	return c->taken_out ? ENT_APPLY_STORED : ENT_APPLY_MISSING;
}

/* What is read along with a write. */
typedef struct Reading
{
	EntApplyWrite w;			/* must be first */
	const bool *may;
	Datum	   *values;
	bool	   *nulls;
} Reading;

static EntApplyOutcome
read_row(EntApplyWrite *w)
{
	Reading    *r = (Reading *) w;

	return ent_rowquery_read(w->a->rel, r->may, NULL, w->c->values, NULL,
							 r->values, r->nulls) ? ENT_APPLY_SAME : ENT_APPLY_MISSING;
}

static EntApplyOutcome
decode_only(EntApplyWrite *w)
{
	decode(w);
	return ENT_APPLY_STORED;
}

/* Rows that are stored together. */
typedef struct Storing
{
	EntApplyWrite w;			/* must be first */
	EntApplyWrite *rows;
	int			n;
} Storing;

static EntRowsetRow *
decode_rows(Storing *s)
{
	EntRowsetRow *rows = palloc0(s->n * sizeof(EntRowsetRow));

	for (int i = 0; i < s->n; i++)
	{
		decode(&s->rows[i]);
		rows[i].key = s->rows[i].c->values;
		rows[i].values = s->rows[i].values;
		rows[i].nulls = s->rows[i].nulls;
	}
	return rows;
}

static EntApplyOutcome
insert_rows(EntApplyWrite *w)
{
	Storing    *s = (Storing *) w;
	EntRowsetRow *rows = decode_rows(s);

	(void) ent_rowset_insert(w->a->rel, s->rows[0].r->set, rows, s->n);
	for (int i = 0; i < s->n; i++)
		s->rows[i].outcome = ENT_APPLY_STORED;
	pfree(rows);
	return ENT_APPLY_STORED;
}

/* Those that were not found have to be looked at one by one. */
static EntApplyOutcome
update_rows(EntApplyWrite *w)
{
	Storing    *s = (Storing *) w;
	EntRowsetRow *rows = decode_rows(s);

	ent_rowset_update(w->a->rel, s->rows[0].r->set, rows, s->n);
	for (int i = 0; i < s->n; i++)
		s->rows[i].outcome = rows[i].found ? ENT_APPLY_STORED : write_row(&s->rows[i]);
	pfree(rows);
	return ENT_APPLY_STORED;
}

static void
as_peer(EntApplyWrite *w, EntApplyOutcome (*fn) (EntApplyWrite *w))
{
	Oid			save_user;
	int			save_context;
	int			save_role = SessionReplicationRole;
	bool		save_applying = ent_rowquery_applying;
	RepOriginId save_origin = replorigin_session_origin;

	GetUserIdAndSecContext(&save_user, &save_context);
	SetUserIdAndSecContext(w->a->role, save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	ent_rowquery_applying = true;
	replorigin_session_origin = DoNotReplicateId;
	PG_TRY();
	{
		w->outcome = fn(w);
	}
	PG_FINALLY();
	{
		ent_rowquery_applying = save_applying;
		replorigin_session_origin = save_origin;
		SessionReplicationRole = save_role;
		SetUserIdAndSecContext(save_user, save_context);
	}
	PG_END_TRY();
}

void
ent_apply_write(EntApplyWrite *w)
{
	as_peer(w, write_row);
}

void
ent_apply_write_together(EntApplyWrite *w, int n)
{
	Storing		s = {.w = {.a = w[0].a}, .rows = w, .n = n};

	if (n == 1)
		ent_apply_write(w);
	else
		as_peer(&s.w, w[0].c->exists ? update_rows : insert_rows);
}

void
ent_apply_take_out(EntApplyWrite *w)
{
	as_peer(w, take_out);
}

void
ent_apply_decode(EntApplyWrite *w)
{
	as_peer(w, decode_only);
}

bool
ent_apply_read(EntApplyWrite *w, const bool *may, Datum *values, bool *nulls)
{
	Reading		r = {*w, may, values, nulls};

	as_peer(&r.w, read_row);
	return r.w.outcome == ENT_APPLY_SAME;
}
