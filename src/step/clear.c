/*
 * step/clear.c
 *	  The rows of an owner that is no more are deleted here.
 *
 * First all rows of a piece in one subtransaction; when that fails, one by
 * one, so that the bad one stays behind alone. A row that a row of somebody
 * else's references with integrity stays until that has gone: it is passed
 * over, and looked at once more when all others have been.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "replication/origin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/wake.h"
#include "step/clear.h"
#include "store/fkquery.h"
#include "store/foreignkey.h"
#include "store/life.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

#define PIECE			5000	/* rows of a transaction */
#define LOCK_TIMEOUT	"200ms" /* the fold waits as long */
#define PASS_MS			1000	/* from one pass over rows that stay to the next */

typedef struct Doomed
{
	int32		rel;
	bytea	   *key;
	bool		held;			/* somebody else's row references it */
} Doomed;

/* What a row was to those that reference it. */
typedef struct Former
{
	EntForeignKey *fk;
	Datum	   *values;
	Doomed	   *row;
} Former;

typedef struct Clear
{
	int32		owner;
	Oid			role;
	Doomed	   *rows;
	int			from,			/* of rows, at present */
				to;
	int			left;			/* rows that stay */
	char	   *why;			/* the first of these did */
	List	   *fks;			/* of tables with integrity */
	List	   *former;			/* of Former *, of rows from..to */
	int			held;			/* rows that this has been said of */
} Clear;

/* Owners and rows that this pass has left behind because they are referenced. */
static struct
{
	int32		after;			/* owners up to this one have been looked at */
	int64		kept;			/* rows of the next one, first in order */
	bool		any;
	int32		told;			/* owner of which the log has been told */
	TimestampTz ended;			/* when the last such pass did */
}			pass;

static EntQuery doomed_query = {
	"SELECT rel, key FROM entanglement.object WHERE owner OPERATOR(pg_catalog.=) $1 "
	"ORDER BY serial, rel, key LIMIT $2 OFFSET $3",
	3, {INT4OID, INT8OID, INT8OID}, NULL
};
static EntQuery forget_query = {
	"WITH gone AS (DELETE FROM entanglement.object o USING unnest($2, $3) AS u(rel, key) "
	"WHERE o.rel OPERATOR(pg_catalog.=) u.rel AND o.key OPERATOR(pg_catalog.=) u.key "
	"AND o.owner OPERATOR(pg_catalog.=) $1 RETURNING o.rel, o.key) "
	"DELETE FROM entanglement.holding h USING gone g "
	"WHERE h.rel OPERATOR(pg_catalog.=) g.rel AND h.key OPERATOR(pg_catalog.=) g.key",
	3, {INT4OID, INT4ARRAYOID, BYTEAARRAYOID}, NULL
};

static int
read_doomed(Clear *c)
{
	Datum		args[3] = {Int32GetDatum(c->owner), Int64GetDatum(PIECE),
	Int64GetDatum(pass.kept)};
	int			n;

	ent_query_run(&doomed_query, args, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	c->rows = palloc0((n + 1) * sizeof(Doomed));
	for (int i = 0; i < n; i++)
	{
		bool		null;

		c->rows[i].rel = ent_query_int4(i, 1, NULL);
		c->rows[i].key = DatumGetByteaPCopy(ent_query_datum(i, 2, &null));
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* ---- rows that are referenced ---- */

static void
note_former(Clear *c, Doomed *d)
{
	EntRelation *rel = ent_relinfo_get(d->rel);
	Datum		key[ENT_WIRE_MAX_KEYS];
	ListCell   *lc;

	if (rel == NULL || !rel->integrity)
		return;
	ent_key_values(rel, (uint8 *) VARDATA_ANY(d->key),
				   VARSIZE_ANY_EXHDR(d->key), key);
	foreach(lc, c->fks)
	{
		EntForeignKey *fk = lfirst(lc);
		Datum	   *values = palloc0(fk->nkeys * sizeof(Datum));
		bool		nulls[INDEX_MAX_KEYS] = {0};
		bool		any_null = false;
		Former	   *f;

		if (fk->parent_rel != rel->no ||
			!ent_fkquery_parent_values(fk, rel, key, values, nulls))
			continue;
		for (int i = 0; i < fk->nkeys; i++)
			any_null |= nulls[i];
		if (any_null)
			continue;
		f = palloc(sizeof(Former));
		f->fk = fk;
		f->values = values;
		f->row = d;
		c->former = lappend(c->former, f);
	}
}

/* After the deletion: who is missed? Returns whether anybody is. */
static bool
hold_missed(Clear *c)
{
	bool		found = false;
	ListCell   *lc;

	foreach(lc, c->former)
	{
		Former	   *f = lfirst(lc);

		if (f->row->held || ent_fkquery_parent_exists(f->fk, f->values) ||
			!ent_fkquery_child_exists(f->fk, f->values))
			continue;
		f->row->held = found = true;
		c->held++;
	}
	return found;
}

/* ---- rows ---- */

static void
delete_row(Doomed *d)
{
	EntRelation *rel = ent_relinfo_get(d->rel);
	Datum		values[ENT_WIRE_MAX_KEYS];

	if (rel == NULL)
		return;					/* no longer synchronized */
	ent_key_values(rel, (uint8 *) VARDATA_ANY(d->key),
				   VARSIZE_ANY_EXHDR(d->key), values);
	if (ent_rowquery_delete(rel, values) > 0 ||
		!ent_rowquery_exists(rel, values, NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the row exists but the peer's role may not change it")));
}

static void
delete_rows(void *arg)
{
	Clear	   *c = arg;

	for (int i = c->from; i < c->to; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!c->rows[i].held)
			delete_row(&c->rows[i]);
	}
}

static void
delete_as_peer(Clear *c)
{
	int			save_role = SessionReplicationRole;
	RepOriginId save_origin = replorigin_session_origin;

	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	ent_rowquery_applying = true;
	replorigin_session_origin = DoNotReplicateId;
	PG_TRY();
	{
		ent_query_as(c->role, delete_rows, c);
	}
	PG_FINALLY();
	{
		ent_rowquery_applying = false;
		replorigin_session_origin = save_origin;
		SessionReplicationRole = save_role;
	}
	PG_END_TRY();
}

/* Is this error about the rows, so that trying again makes no sense? */
static bool
about_the_row(int sqlstate)
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
			return sqlstate != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/* Deletes them, but for those held. False: one more has to be. */
static bool
delete_unmissed(Clear *c)
{
	c->former = NIL;
	for (int i = c->from; i < c->to && c->fks != NIL; i++)
		if (!c->rows[i].held)
			note_former(c, &c->rows[i]);
	delete_as_peer(c);
	return !hold_missed(c);
}

/* NULL: deleted, or again is set; else the error, in the caller's context. */
static ErrorData *
try_once(Clear *c, volatile bool *again)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*again = !delete_unmissed(c);
		if (*again)
			RollbackAndReleaseCurrentSubTransaction();
		else
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		!about_the_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* NULL: deleted, or held; else the error. */
static ErrorData *
try_rows(Clear *c)
{
	volatile bool again = false;
	ErrorData  *error;

	do
		error = try_once(c, &again);
	while (error == NULL && again);
	return error;
}

/* Returns how many were dealt with before one was locked. */
static int
try_one_by_one(Clear *c, int n)
{
	for (int i = 0; i < n; i++)
	{
		ErrorData  *error;

		c->from = i;
		c->to = i + 1;
		error = try_rows(c);
		if (error == NULL)
			continue;
		if (!about_the_row(error->sqlerrcode))
			return i;
		if (c->left++ == 0)
			c->why = error->message;
	}
	return n;
}

/* ---- a piece ---- */

static void
forget_objects(Clear *c, int n)
{
	Datum	   *rels = palloc(n * sizeof(Datum));
	Datum	   *keys = palloc(n * sizeof(Datum));
	Datum		args[3] = {Int32GetDatum(c->owner)};
	int			m = 0;

	for (int i = 0; i < n; i++)
	{
		if (c->rows[i].held)
			continue;
		rels[m] = Int32GetDatum(c->rows[i].rel);
		keys[m++] = PointerGetDatum(c->rows[i].key);
	}
	args[1] = ent_query_array(INT4OID, rels, NULL, m);
	args[2] = ent_query_array(BYTEAOID, keys, NULL, m);
	ent_query_run(&forget_query, args, NULL, SPI_OK_DELETE, NULL);
	/* others parked for the same keys may come now */
	ent_wake_routes_at_commit();
}

static void
report_left(Clear *c)
{
	EntOwner   *o = ent_owner_get(c->owner);
	char	   *role = GetUserNameFromId(c->role, true);

	ereport(LOG,
			(errmsg_plural("%d row of owner \"%s\", which is no more, could not be deleted: %s",
						   "%d rows of owner \"%s\", which is no more, could not be deleted: %s",
						   c->left, c->left, o ? o->name : "?", c->why),
			 errdetail("Role \"%s\" stands for the peer that said so.",
					   role ? role : "?"),
			 errhint("They belong to nobody now; delete them here.")));
}

static Doomed *
first_held(Clear *c)
{
	Doomed	   *d = c->rows;

	while (!d->held)
		d++;
	return d;
}

static void
report_held(Clear *c)
{
	EntOwner   *o = ent_owner_get(c->owner);

	if (pass.told == c->owner)
		return;
	pass.told = c->owner;
	ereport(LOG,
			(errmsg("rows of owner \"%s\", which is no more, are referenced by rows of others and stay until these are gone",
					o ? o->name : "?"),
			 errhint("Table \"%s\" holds such rows.",
					 ent_relinfo_get(first_held(c)->rel)->name)));
}

/*
 * What users' deferred triggers would do at commit, with the rights of the
 * worker, they do at the end of each statement, as the peer's role.
 */
static void
defer_nothing(void)
{
	ConstraintsSetStmt all = {.type = T_ConstraintsSetStmt};

	AfterTriggerSetState(&all);
}

/* Returns how many were dealt with: less than n when a row is locked. */
static int
delete_piece(Clear *c, int n)
{
	ErrorData  *error;
	int			level;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(c->role)))
	{
		c->left = n;
		c->why = "the role was dropped";
		return n;
	}
	level = NewGUCNestLevel();
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	c->to = n;
	error = try_rows(c);
	if (error)
		n = try_one_by_one(c, n);
	AtEOXact_GUC(true, level);
	return n;
}

/* All owners have been looked at. */
static EntClearResult
end_pass(void)
{
	bool		first = pass.after == 0,
				any = pass.any;

	pass.after = 0;
	pass.any = false;
	if (any)
		pass.ended = GetCurrentTimestamp();
	return any ? ENT_CLEAR_LATER : first ? ENT_CLEAR_DONE : ENT_CLEAR_MORE;
}

/* All rows of this owner have been: is anything left of it? */
static EntClearResult
end_owner(Clear *c)
{
	if (pass.kept == 0)
		ent_life_forget(c->owner);
	else
		pass.any = true;
	pass.after = c->owner;
	pass.kept = 0;
	return ENT_CLEAR_MORE;
}

EntClearResult
ent_clear(void)
{
	Clear		c = {0};
	int			n,
				done;

	if (pass.after == 0 && pass.kept == 0 &&
		!TimestampDifferenceExceeds(pass.ended, GetCurrentTimestamp(), PASS_MS))
		return ENT_CLEAR_LATER;
	c.owner = ent_life_next_gone(pass.after, &c.role);
	if (c.owner == 0)
		return end_pass();
	ent_relinfo_refresh();
	n = read_doomed(&c);
	if (n == 0)
		return end_owner(&c);
	c.fks = ent_foreignkey_all();
	ent_fkquery_refresh();
	defer_nothing();
	done = delete_piece(&c, n);
	if (done > 0)
		forget_objects(&c, done);
	if (c.left > 0)
		report_left(&c);
	if (c.held > 0)
		report_held(&c);
	for (int i = 0; i < done; i++)
		pass.kept += c.rows[i].held;
	return done < n ? ENT_CLEAR_LATER : ENT_CLEAR_MORE;
}
