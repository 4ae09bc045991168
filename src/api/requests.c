/*
 * api/requests.c
 *	  SQL functions on requests: last_request, wait_for, cancel_request, and
 *	  what the view shows of keys.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/request.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_last_request);
PG_FUNCTION_INFO_V1(ent_sql_wait_for);
PG_FUNCTION_INFO_V1(ent_sql_cancel_request);
PG_FUNCTION_INFO_V1(ent_sql_key_values);

#define RECHECK_MS	100			/* should a broadcast be missed */

static EntQuery state_query = {
	"SELECT role, state, sqlstate, message, detail, constraint_name, xmin "
	"FROM entanglement.request WHERE id OPERATOR(pg_catalog.=) $1 AND role IS NOT NULL",
	1, {UUIDOID}, NULL
};
static EntQuery cancel_query = {
	"DELETE FROM entanglement.request WHERE id OPERATOR(pg_catalog.=) $1 "
	"AND state OPERATOR(pg_catalog.=) 'waiting' AND sent_to OPERATOR(pg_catalog.=) '{}' AND NOT alone",
	1, {UUIDOID}, NULL
};

static void
refuse_null(FunctionCallInfo fcinfo, int i, const char *argument)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", argument)));
}

typedef struct State
{
	Oid			role;
	char	   *state;
	char	   *sqlstate;
	char	   *message;
	char	   *detail;
	char	   *constraint;
	TransactionId xmin;
} State;

Datum
ent_sql_last_request(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	if (!ent_request_last(id))
		PG_RETURN_NULL();
	PG_RETURN_UUID_P(id);
}

/*
 * The request as it is now, whatever the caller's snapshot: it changes while
 * we wait. Only to those who could have made it.
 */
static State
read_state(const pg_uuid_t *id)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		args[1] = {UUIDPGetDatum(id)};
	State		s = {0};
	Snapshot	snapshot;
	bool		null;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ent_query_run(&state_query, args, NULL, SPI_OK_SELECT, snapshot);
	UnregisterSnapshot(snapshot);
	if (SPI_processed > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		s.role = DatumGetObjectId(ent_query_datum(0, 1, &null));
		s.state = ent_query_text(0, 2);
		s.sqlstate = ent_query_text(0, 3);
		s.message = ent_query_text(0, 4);
		s.detail = ent_query_text(0, 5);
		s.constraint = ent_query_text(0, 6);
		s.xmin = DatumGetTransactionId(ent_query_datum(0, 7, &null));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	if (s.state == NULL || !has_privs_of_role(GetUserId(), s.role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no such request: %s",
						DatumGetCString(DirectFunctionCall1(uuid_out, args[0]))),
				 errhint("The requests of your roles are shown by the view entanglement.requests; answered ones are kept for entanglement.request_retention.")));
	return s;
}

pg_noreturn static void
raise_refusal(const State *s)
{
	int			sqlstate = MAKE_SQLSTATE(s->sqlstate[0], s->sqlstate[1],
										 s->sqlstate[2], s->sqlstate[3],
										 s->sqlstate[4]);

	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s", s->message),
			 s->detail ? errdetail("%s", s->detail) : 0,
			 s->constraint ? err_generic_string(PG_DIAG_CONSTRAINT_NAME,
												s->constraint) : 0,
			 errcontext("answer of the row's owner")));
}

/* Microseconds; a timeout of months is far enough. */
static int64
timeout_us(const Interval *i)
{
	double		us = (double) i->time +
		((double) i->day + 30.0 * i->month) * USECS_PER_DAY;

	return (int64) Min(Max(us, 0.0), 1e15);
}

Datum
ent_sql_wait_for(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id;
	TimestampTz end;
	State		s;
	long		left = 0;

	refuse_null(fcinfo, 0, "request");
	refuse_null(fcinfo, 1, "timeout");
	ent_shmem_require("entanglement.wait_for()");
	id = PG_GETARG_UUID_P(0);
	end = GetCurrentTimestamp() + timeout_us(PG_GETARG_INTERVAL_P(1));
	s = read_state(id);
	if (TransactionIdIsCurrentTransactionId(s.xmin))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the request was made by this transaction"),
				 errhint("It leaves when the transaction commits; wait for it after that.")));

	ConditionVariablePrepareToSleep(&ent_shared->progress);
	while (strcmp(s.state, "accepted") != 0 && s.sqlstate == NULL)
	{
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&ent_shared->progress,
										   Min(left, RECHECK_MS),
										   PG_WAIT_EXTENSION);
		s = read_state(id);
	}
	ConditionVariableCancelSleep();
	if (s.sqlstate != NULL)
		raise_refusal(&s);
	if (strcmp(s.state, "accepted") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the request was not answered in time"),
				 errdetail("It is %s and stays in force.",
						   strcmp(s.state, "waiting") == 0 ? "waiting for a way to its owner" : "on its way"),
				 errhint("Wait again, look at entanglement.requests, or withdraw it with entanglement.cancel_request.")));
	PG_RETURN_TEXT_P(cstring_to_text(s.state));
}

Datum
ent_sql_cancel_request(PG_FUNCTION_ARGS)
{
	Datum		args[1] = {PG_GETARG_DATUM(0)};
	bool		gone;

	refuse_null(fcinfo, 0, "request");
	(void) read_state(PG_GETARG_UUID_P(0));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_query_run(&cancel_query, args, NULL, SPI_OK_DELETE, NULL);
	gone = SPI_processed > 0;
	SPI_finish();
	PG_RETURN_BOOL(gone);
}

Datum
ent_sql_key_values(PG_FUNCTION_ARGS)
{
	EntRelation *rel = ent_relinfo_read(PG_GETARG_INT32(0));
	bytea	   *key = PG_GETARG_BYTEA_PP(1);
	Datum		values[ENT_WIRE_MAX_KEYS];
	Datum		texts[ENT_WIRE_MAX_KEYS * 2];
	int			level;

	if (rel == NULL)
		PG_RETURN_NULL();
	ent_key_values(rel, (uint8 *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), values);
	level = ent_value_enter();
	for (int i = 0; i < rel->nkeys; i++)
	{
		EntColumn  *col = &rel->columns[rel->keys[i]];
		Oid			function;
		bool		varlena;
		char	   *text;

		getTypeOutputInfo(col->type, &function, &varlena);
		texts[2 * i] = CStringGetTextDatum(col->name);
		text = OidOutputFunctionCall(function, values[i]);
		/* anybody may call this, with bytes that no node has written */
		(void) pg_verifymbstr(text, strlen(text), false);
		texts[2 * i + 1] = CStringGetTextDatum(text);
	}
	ent_value_leave(level);
	PG_RETURN_DATUM(ent_query_array(TEXTOID, texts, NULL, 2 * rel->nkeys));
}
