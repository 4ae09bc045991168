/*
 * api/explain_send.c
 *	  explain_send: is a row sent to a peer, and which rule says so?
 *
 * The row is read as the peer's role, as it is when it is sent.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "api/explain.h"
#include "api/row.h"
#include "store/object.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_explain_send);

/* ---- rules ---- */

static void
ask_object(EntExplain *x)
{
	if (x->owner == NULL)
		ent_explain_say(x, ENT_VERDICT_NO, "the row is no object, or not yet");
	else
		ent_explain_say(x, ENT_VERDICT_YES, "it belongs to owner \"%s\", at home %s",
						x->owner->name, x->owner->local ? "here" : "elsewhere");
}

/* Which way the peer chooses it decides; we know which one we have chosen. */
static void
ask_route(EntExplain *x)
{
	if (x->owner == NULL)
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "no owner");
	else if (x->owner->local)
		ent_explain_say(x, ENT_VERDICT_YES, "this is the owner's home");
	else if (x->owner->peer == x->peer->no)
		ent_explain_say(x, ENT_VERDICT_NO, "the owner is taken from this peer");
	else
		ent_explain_say(x, ENT_VERDICT_NEUTRAL,
						"it is passed on if the peer takes the owner from here");
}

static void
ask_columns(EntExplain *x)
{
	char	   *role = GetUserNameFromId(x->peer->role, false);
	StringInfoData left_out;

	if (!x->readable)
	{
		ent_explain_say(x, ENT_VERDICT_NO,
						"role \"%s\" may not SELECT every column of the key", role);
		return;
	}
	initStringInfo(&left_out);
	for (int i = 0; i < x->rel->ncolumns; i++)
		if (!x->may[i])
			appendStringInfo(&left_out, "%s%s", left_out.len > 0 ? ", " : "",
							 quote_identifier(x->rel->columns[i].name));
	if (left_out.len > 0)
		ent_explain_say(x, ENT_VERDICT_YES,
						"role \"%s\" may not SELECT %s, which are left out", role,
						left_out.data);
	else
		ent_explain_say(x, ENT_VERDICT_YES, "role \"%s\" may SELECT all columns", role);
}

static void
read_row(void *arg)
{
	EntExplain *x = arg;

	x->visible = ent_rowquery_read(x->rel, x->may, NULL, x->key, NULL,
								   (Datum *) x->row.values, (bool *) x->row.nulls);
}

/* What the filter is about, as the peer's role. */
static void
match(void *arg)
{
	EntExplain *x = arg;

	x->wanted = ent_rowquery_visible(x->rel, x->show.filter, x->key);
}

static void
match_as_role(void *arg)
{
	EntExplain *x = arg;
	int			level = ent_value_enter();

	ent_query_as(x->peer->role, match, x);
	ent_value_leave(level);
}

/* The peer's subscription, as it last said. */
static void
ask_subscription(EntExplain *x)
{
	EntWish    *wish = x->show.wish;
	ErrorData  *error;

	if (x->show.nothing)
		ent_explain_say(x, ENT_VERDICT_NO, "%s%s", wish == NULL ?
						"the peer wants other tables, not this one" :
						"its filter is refused: ", wish == NULL ? "" : x->show.message);
	else if (wish == NULL)
		ent_explain_say(x, ENT_VERDICT_YES, "the peer wants everything");
	else if (x->show.filter == NULL)
		ent_explain_say(x, ENT_VERDICT_YES, "the peer wants the whole table");
	else if (!x->visible)
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "not asked: there is nothing to be sent");
	else
	{
		error = ent_query_attempt(match_as_role, x);
		ent_explain_say(x, x->wanted ? ENT_VERDICT_YES : ENT_VERDICT_NO,
						"the row %s the peer's filter: %s%s%s",
						x->wanted ? "matches" : "does not match", wish->filter,
						error ? ", which fails: " : "", error ? error->message : "");
	}
}

static void
ask_security(EntExplain *x)
{
	char	   *policies = ent_explain_policies(x, 'r');

	if (!x->readable)
	{
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "not asked: the role cannot read the row");
		return;
	}
	x->row.given = x->may;
	x->row.values = palloc0((x->rel->ncolumns + 1) * sizeof(Datum));
	x->row.nulls = palloc0((x->rel->ncolumns + 1) * sizeof(bool));
	ent_query_as(x->peer->role, read_row, x);
	if (policies)
		ent_explain_say(x, x->visible ? ENT_VERDICT_YES : ENT_VERDICT_NO,
						"the row is %s; policies for role \"%s\": %s",
						x->visible ? "visible" : "not visible, or not there",
						GetUserNameFromId(x->peer->role, false), policies);
	else if (x->visible)
		ent_explain_say(x, ENT_VERDICT_YES, "not active for role \"%s\"",
						GetUserNameFromId(x->peer->role, false));
	else
		ent_explain_say(x, ENT_VERDICT_NO, "there is no such row");
}

static void
ask_hooks(EntExplain *x)
{
	EntHooks   *hooks = ent_hooks_for(ENT_HOOK_SEND, x->rel, x->peer->no,
									  x->peer->role);
	EntHookRefusal ignored;

	if (hooks == NULL)
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "no hook");
	else if (!x->visible || x->owner == NULL)
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "not asked: there is nothing to be sent");
	else
	{
		ent_hooks_tell(hooks, ent_explain_hook, x);
		(void) ent_hook_may_send(hooks, x->owner->no, x->key, &x->row, &ignored);
	}
}

static const EntExplainRule rules[] = {
	{"link", ent_explain_link},
	{"object", ask_object},
	{"route", ask_route},
	{"schema", ent_explain_schema},
	{"columns", ask_columns},
	{"row-level security", ask_security},
	{"subscription", ask_subscription},
	{"should_send", ask_hooks},
};

/* ---- the function ---- */

/* Whose it is, also before it is folded. */
static EntOwner *
owner_of(EntExplain *x)
{
	bytea	   *key = ent_key_image(x->rel, x->key);
	int32		no;

	PushActiveSnapshot(GetLatestSnapshot());
	no = ent_object_owner(x->rel->no, key);
	PopActiveSnapshot();
	return no == 0 ? NULL : ent_owner_get(no);
}

/* (row, peer) */
Datum
ent_sql_explain_send(PG_FUNCTION_ARGS)
{
	EntExplain	x;
	EntRelation *rel;
	Datum		key[ENT_WIRE_MAX_KEYS];
	int			level;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("row must not be NULL")));
	if (!ent_row_read(PG_GETARG_HEAPTUPLEHEADER(0),
					  "SELECT x.* FROM synchronized_table t, entanglement.explain_send(t, 'peer') x.",
					  &rel, key))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("not found: no such row in table \"%s\"", rel->name)));
	ent_explain_begin(&x, fcinfo, 1);
	x.rel = rel;
	memcpy(x.key, key, sizeof(key));
	x.owner = owner_of(&x);
	x.may = palloc0((rel->ncolumns + 1) * sizeof(bool));
	ent_show_table(rel, x.peer->no, x.peer->role, x.may, &x.show);
	x.readable = x.show.sees;
	level = ent_query_plain_path();
	ent_explain_ask(&x, rules, lengthof(rules));
	AtEOXact_GUC(true, level);
	PG_RETURN_VOID();
}
