/*
 * step/clear.c
 *	  The rows of an owner that is no more are deleted here.
 *
 * First all rows of a piece in one subtransaction; when that fails, one by
 * one, so that the bad one stays behind alone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "base/wake.h"
#include "step/clear.h"
#include "store/life.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

#define PIECE			5000	/* rows of a transaction */
#define LOCK_TIMEOUT	"200ms" /* the fold waits as long */

typedef struct Doomed
{
	int32		rel;
	bytea	   *key;
} Doomed;

typedef struct Clear
{
	int32		owner;
	Oid			role;
	Doomed	   *rows;
	int			from,			/* of rows, at present */
				to;
	int			left;			/* rows that stay */
	char	   *why;			/* the first of these did */
} Clear;

static EntQuery doomed_query = {
	"SELECT rel, key FROM entanglement.object WHERE owner OPERATOR(pg_catalog.=) $1 "
	"ORDER BY serial LIMIT $2",
	2, {INT4OID, INT8OID}, NULL
};
static EntQuery forget_query = {
	"DELETE FROM entanglement.object o USING unnest($2, $3) AS u(rel, key) "
	"WHERE o.rel OPERATOR(pg_catalog.=) u.rel AND o.key OPERATOR(pg_catalog.=) u.key "
	"AND o.owner OPERATOR(pg_catalog.=) $1",
	3, {INT4OID, INT4ARRAYOID, BYTEAARRAYOID}, NULL
};

static int
read_doomed(Clear *c)
{
	Datum		args[2] = {Int32GetDatum(c->owner), Int64GetDatum(PIECE)};
	int			n;

	ent_query_run(&doomed_query, args, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	c->rows = palloc((n + 1) * sizeof(Doomed));
	for (int i = 0; i < n; i++)
	{
		bool		null;

		c->rows[i].rel = ent_query_int4(i, 1, NULL);
		c->rows[i].key = DatumGetByteaPCopy(ent_query_datum(i, 2, &null));
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
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
		delete_row(&c->rows[i]);
	}
}

static void
delete_as_peer(Clear *c)
{
	int			save_role = SessionReplicationRole;

	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	ent_rowquery_applying = true;
	PG_TRY();
	{
		ent_query_as(c->role, delete_rows, c);
	}
	PG_FINALLY();
	{
		ent_rowquery_applying = false;
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

/* NULL: deleted; else the error, in the caller's context. */
static ErrorData *
try_rows(Clear *c)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		delete_as_peer(c);
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

	for (int i = 0; i < n; i++)
	{
		rels[i] = Int32GetDatum(c->rows[i].rel);
		keys[i] = PointerGetDatum(c->rows[i].key);
	}
	args[1] = ent_query_array(INT4OID, rels, NULL, n);
	args[2] = ent_query_array(BYTEAOID, keys, NULL, n);
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

EntClearResult
ent_clear(void)
{
	Clear		c = {0};
	int			n,
				done;

	c.owner = ent_life_next_gone(&c.role);
	if (c.owner == 0)
		return ENT_CLEAR_DONE;
	ent_relinfo_refresh();
	n = read_doomed(&c);
	if (n == 0)
	{
		ent_life_forget(c.owner);
		return ENT_CLEAR_MORE;
	}
	defer_nothing();
	done = delete_piece(&c, n);
	if (done > 0)
		forget_objects(&c, done);
	if (c.left > 0)
		report_left(&c);
	return done < n ? ENT_CLEAR_LATER : ENT_CLEAR_MORE;
}
