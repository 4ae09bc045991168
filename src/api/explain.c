/*
 * api/explain.c
 *	  Which rule decides, for a person who debugs policy: the frame.
 *
 * Rules are rows of a table, asked in the order in which they are asked of real
 * traffic, all of them: a no does not hide the next.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rls.h"
#include "utils/tuplestore.h"

#include "api/explain.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "store/query.h"

static EntQuery state_query = {
	"SELECT state, last_error FROM entanglement.peers "
	"WHERE name OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}, NULL
};
static EntQuery policies_query = {
	"SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.polname::pg_catalog.text), ', ' "
	"ORDER BY p.polname::pg_catalog.text COLLATE \"C\") FROM pg_catalog.pg_policy p "
	"WHERE p.polrelid OPERATOR(pg_catalog.=) $1 "
	"AND p.polcmd OPERATOR(pg_catalog.=) ANY (ARRAY['*', $2]::pg_catalog.\"char\"[]) "
	"AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) AS r (oid) "
	"WHERE r.oid OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_has_role($3, r.oid, 'USAGE'))",
	3, {OIDOID, CHAROID, OIDOID}, NULL
};

void
ent_explain_begin(EntExplain *x, FunctionCallInfo fcinfo, int arg)
{
	char	   *name;

	memset(x, 0, sizeof(EntExplain));
	x->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	x->context = CurrentMemoryContext;
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("peer name must not be NULL")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	InitMaterializedSRF(fcinfo, 0);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(x->context);
	x->peer = ent_peer_by_name(name);
	if (x->peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
}

static void
put(EntExplain *x, EntVerdict verdict, const char *detail)
{
	static const char *const words[] = {"no", "neutral", "yes"};
	Datum		values[3] = {CStringGetTextDatum(x->rule),
		CStringGetTextDatum(words[verdict + 1]), (Datum) 0};
	bool		nulls[3] = {false, false, detail == NULL};

	if (detail)
		values[2] = CStringGetTextDatum(detail);
	tuplestore_putvalues(x->rsinfo->setResult, x->rsinfo->setDesc, values, nulls);
}

void
ent_explain_say(EntExplain *x, EntVerdict verdict, const char *format,...)
{
	StringInfoData detail;
	int			needed;

	initStringInfo(&detail);
	do
	{
		va_list		args;

		va_start(args, format);
		needed = appendStringInfoVA(&detail, format, args);
		va_end(args);
		if (needed > 0)
			enlargeStringInfo(&detail, needed);
	} while (needed > 0);
	put(x, verdict, detail.data);
	if (verdict == ENT_VERDICT_NO && x->refused_by == NULL)
		x->refused_by = pstrdup(x->rule);
}

void
ent_explain_ask(EntExplain *x, const EntExplainRule *rules, int n)
{
	for (int i = 0; i < n; i++)
	{
		x->rule = rules[i].name;
		rules[i].ask(x);
		MemoryContextSwitchTo(x->context);
	}
	x->rule = "decision";
	put(x, x->refused_by ? ENT_VERDICT_NO : ENT_VERDICT_YES, x->refused_by);
	SPI_finish();
}

/* ---- rules of both ---- */

/* What waits for the link is not forbidden. */
void
ent_explain_link(EntExplain *x)
{
	Datum		args[1] = {CStringGetTextDatum(x->peer->name)};
	char	   *state = NULL,
			   *error = NULL;

	ent_query_run(&state_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
	{
		state = ent_query_text(0, 1);
		error = ent_query_text(0, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	if (state && strcmp(state, "connected") == 0)
		ent_explain_say(x, ENT_VERDICT_YES, "connected; it stands behind role \"%s\"",
						GetUserNameFromId(x->peer->role, false));
	else
		ent_explain_say(x, ENT_VERDICT_NEUTRAL,
						"%s%s%s: nothing is exchanged now; it stands behind role \"%s\"",
						state ? state : "unknown", error ? ", " : "",
						error ? error : "", GetUserNameFromId(x->peer->role, false));
}

void
ent_explain_schema(EntExplain *x)
{
	bool		may = ent_compat_schema_usage(get_rel_namespace(x->rel->relid),
											  x->peer->role);

	ent_explain_say(x, may ? ENT_VERDICT_YES : ENT_VERDICT_NO,
					"role \"%s\" has %sUSAGE on schema \"%s\"",
					GetUserNameFromId(x->peer->role, false), may ? "" : "no ",
					x->rel->schema);
}

char *
ent_explain_policies(EntExplain *x, char command)
{
	Datum		args[3] = {ObjectIdGetDatum(x->rel->relid), CharGetDatum(command),
	ObjectIdGetDatum(x->peer->role)};
	char	   *result;

	if (check_enable_rls(x->rel->relid, x->peer->role, true) != RLS_ENABLED)
		return NULL;
	ent_query_run(&policies_query, args, NULL, SPI_OK_SELECT, NULL);
	result = ent_query_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return result ? result : pstrdup("none");
}

void
ent_explain_hook(void *arg, const EntHook *hook, int answer, const char *error)
{
	EntExplain *x = arg;
	const char *rule = x->rule;

	x->rule = psprintf("%s, hook %d", rule, hook->no);
	ent_explain_say(x, (EntVerdict) answer, "%s%s%s",
					hook->name ? format_procedure(hook->function) : "the function has gone or was changed",
					error ? ", which failed with " : "", error ? error : "");
	x->rule = rule;
}
