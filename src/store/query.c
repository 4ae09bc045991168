/*
 * store/query.c
 *	  Our own SQL: prepared once, run with the extension owner's rights.
 *
 * Plans are kept for the life of the process. They are keyed by nothing but
 * their text because they always run as the same user; PostgreSQL itself
 * replans when the catalogs change.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "catalog/pg_type.h"
#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

#include "base/ent.h"
#include "store/query.h"

Oid
ent_query_owner(void)
{
	Oid			nspoid = get_namespace_oid(ENT_SCHEMA, true);
	Oid			relid = InvalidOid;
	HeapTuple	tup;
	Oid			owner;

	if (OidIsValid(nspoid))
		relid = get_relname_relid("object", nspoid);
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", ENT_NAME),
				 errhint("Run CREATE EXTENSION %s.", ENT_NAME)));
	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tup))->relowner;
	ReleaseSysCache(tup);
	return owner;
}

bool
ent_query_installed(void)
{
	Oid			nspoid;

	if (!OidIsValid(get_extension_oid(ENT_NAME, true)))
		return false;
	nspoid = get_namespace_oid(ENT_SCHEMA, true);
	return OidIsValid(nspoid) &&
		OidIsValid(get_relname_relid("identity", nspoid));
}

void
ent_query_as(Oid role, void (*fn) (void *arg), void *arg)
{
	Oid			save_user;
	int			save_context;

	GetUserIdAndSecContext(&save_user, &save_context);
	SetUserIdAndSecContext(role, save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	PG_TRY();
	{
		fn(arg);
	}
	PG_FINALLY();
	{
		SetUserIdAndSecContext(save_user, save_context);
	}
	PG_END_TRY();
}

int
ent_query_plain_path(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "\"$user\", public, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return level;
}

void
ent_query_as_owner(void (*fn) (void *arg), void *arg)
{
	ent_query_as(ent_query_owner(), fn, arg);
}

EntPlanning
ent_query_plan_by_index(void)
{
	EntPlanning saved = {enable_seqscan, enable_hashjoin, enable_mergejoin,
	jit_enabled, plan_cache_mode};

	enable_seqscan = false;
	enable_hashjoin = false;
	enable_mergejoin = false;
	jit_enabled = false;
	plan_cache_mode = PLAN_CACHE_MODE_FORCE_GENERIC_PLAN;
	return saved;
}

void
ent_query_plan_restore(const EntPlanning *saved)
{
	enable_seqscan = saved->seqscan;
	enable_hashjoin = saved->hashjoin;
	enable_mergejoin = saved->mergejoin;
	jit_enabled = saved->jit;
	plan_cache_mode = saved->cache_mode;
}

typedef struct RunArg
{
	EntQuery   *query;
	Datum	   *args;
	const char *nulls;
	Snapshot	snapshot;
	int			result;
} RunArg;

static void
run(void *arg)
{
	RunArg	   *r = arg;
	EntQuery   *q = r->query;

	if (q->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(q->text, q->nargs, q->types);

		if (plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", q->text,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		q->plan = plan;
	}
	r->result = SPI_execute_snapshot(q->plan, r->args, r->nulls,
									 r->snapshot, InvalidSnapshot,
									 r->snapshot != NULL, false, 0);
}

void
ent_query_run(EntQuery *query, Datum *args, const char *nulls,
			  int expected, Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	RunArg		r = {query, args, nulls, snapshot, 0};
	EntPlanning saved = ent_query_plan_by_index();

	PG_TRY();
	{
		ent_query_as_owner(run, &r);
	}
	PG_FINALLY();
	{
		ent_query_plan_restore(&saved);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context); /* SPI leaves us in its own */
	if (expected != 0 && r.result != expected)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(r.result), query->text);
}

Datum
ent_query_datum(uint64 row, int col, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 col, isnull);
}

int32
ent_query_int4(uint64 row, int col, bool *isnull)
{
	bool		null;
	Datum		d = ent_query_datum(row, col, &null);

	if (isnull)
		*isnull = null;
	return null ? 0 : DatumGetInt32(d);
}

int64
ent_query_int8(uint64 row, int col, bool *isnull)
{
	bool		null;
	Datum		d = ent_query_datum(row, col, &null);

	if (isnull)
		*isnull = null;
	return null ? 0 : DatumGetInt64(d);
}

bool
ent_query_bool(uint64 row, int col)
{
	bool		null;
	Datum		d = ent_query_datum(row, col, &null);

	return !null && DatumGetBool(d);
}

char *
ent_query_text(uint64 row, int col)
{
	bool		null;
	Datum		d = ent_query_datum(row, col, &null);

	return null ? NULL : TextDatumGetCString(d);
}

Datum
ent_query_array(Oid type, Datum *values, bool *nulls, int n)
{
	int16		typlen;
	bool		typbyval;
	char		typalign;
	int			lb = 1;

	if (n == 0)
		return PointerGetDatum(construct_empty_array(type));
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lb, type,
											  typlen, typbyval, typalign));
}

Datum
ent_query_text_array(char *const *texts, int n)
{
	Datum	   *values = palloc((n + 1) * sizeof(Datum));
	bool	   *nulls = palloc((n + 1) * sizeof(bool));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	return ent_query_array(TEXTOID, values, nulls, n);
}

static ErrorData *
try(void (*fn) (void *arg), void *arg, bool undo)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		fn(arg);
		if (undo)
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
	return error;
}

ErrorData *
ent_query_try(void (*fn) (void *arg), void *arg)
{
	return try(fn, arg, false);
}

ErrorData *
ent_query_try_and_undo(void (*fn) (void *arg), void *arg)
{
	return try(fn, arg, true);
}

ErrorData *
ent_query_attempt(void (*fn) (void *arg), void *arg)
{
	ErrorData  *error = ent_query_try(fn, arg);

	if (error == NULL)
		return NULL;
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			ReThrowError(error);
	}
	return error;
}
