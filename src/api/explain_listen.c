/*
 * api/explain_listen.c
 *	  explain_listen: would something be stored for a peer, or done as it asks, and
 *	  which rule says so?
 *
 * At the owner's home it is about a request, elsewhere about the owner's state.
 * In the end it is tried, as the peer's role, and undone: ordinary triggers and
 * foreign keys sleep, so that to ask has no effects.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "api/explain.h"
#include "guard/policy.h"
#include "store/object.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_explain_listen);

static const struct
{
	const char *name;
	char		op;
	AclMode		right;
	const char *right_name;
	char		policies;
}			operations[] = {
	{"insert", ENT_REQUEST_OP_CREATE, ACL_INSERT, "INSERT", 'a'},
	{"update", ENT_REQUEST_OP_FORWARD, ACL_UPDATE, "UPDATE", 'w'},
	{"delete", ENT_REQUEST_OP_DELETE, ACL_DELETE, "DELETE", 'd'},
};

/* Index into operations of the one asked about. */
static int
operation(EntExplain *x)
{
	int			i = 0;

	while (operations[i].op != x->asked.op)
		i++;
	return i;
}

/* ---- rules ---- */

static void
ask_owner(EntExplain *x)
{
	ent_explain_say(x, ENT_VERDICT_YES, "owner \"%s\" is at home %s", x->owner->name,
					x->owner->local ? "here: it would be a request, and decided here" :
					"elsewhere: it would be his state");
}

static void
ask_route(EntExplain *x)
{
	EntPeer    *peer = x->owner->peer == 0 ? NULL : ent_peer_get(x->owner->peer);

	if (x->owner->local)
		ent_explain_say(x, ENT_VERDICT_YES, "requests are taken from every peer");
	else if (peer == NULL)
		ent_explain_say(x, ENT_VERDICT_NO, "the owner has no route at present");
	else
		ent_explain_say(x, peer->no == x->peer->no ? ENT_VERDICT_YES : ENT_VERDICT_NO,
						"the owner is taken from peer \"%s\"", peer->name);
}

static void
ask_speaker(EntExplain *x)
{
	if (x->owner->local)
		return;
	if (!x->owner->pinned)
		ent_explain_say(x, ENT_VERDICT_YES, "every peer may speak for the owner");
	else
		ent_explain_say(x, ent_owner_may_speak(x->owner, x->peer->no) ?
						ENT_VERDICT_YES : ENT_VERDICT_NO,
						"the owner is pinned to certain peers (bind_owner)");
}

static void
ask_object(EntExplain *x)
{
	int32		no = 0;

	if (x->asked.has_key)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		no = ent_object_owner(x->rel->no, ent_key_image(x->rel, x->asked.key));
		PopActiveSnapshot();
	}
	if (no != 0 && no != x->owner->no)
		ent_explain_say(x, ENT_VERDICT_NO, "an object with this key belongs to owner \"%s\"",
						ent_object_owner_name(no));
	else if (no != 0)
		ent_explain_say(x, ENT_VERDICT_YES, "the object is here");
	else
		ent_explain_say(x, x->asked.op == ENT_REQUEST_OP_CREATE ?
						ENT_VERDICT_YES : ENT_VERDICT_NEUTRAL,
						"there is no object with this key here");
}

static void
ask_key(EntExplain *x)
{
	if (!x->owner->local || x->asked.op != ENT_REQUEST_OP_CREATE)
		return;
	if (!x->asked.has_key)
		ent_explain_say(x, ENT_VERDICT_YES, "this database chooses the key");
	else
		ent_explain_say(x, x->rel->keys_from_others ? ENT_VERDICT_YES : ENT_VERDICT_NO,
						"who asks for a new row may %schoose its key (keys_from_others)",
						x->rel->keys_from_others ? "" : "not ");
}

/* Is the right missing on the table, or on a column that is set? */
static void
add_missing(EntExplain *x, StringInfo missing)
{
	AclMode		right = operations[operation(x)].right;
	Oid			relid = x->rel->relid;
	Oid			role = x->peer->role;

	if (pg_class_aclcheck(relid, role, right) == ACLCHECK_OK)
		return;
	if (right == ACL_DELETE)
	{
		appendStringInfoString(missing, "DELETE");
		return;
	}
	for (int i = 0; i < x->rel->ncolumns; i++)
	{
		EntColumn  *col = &x->rel->columns[i];
		bool		key = right == ACL_INSERT && col->key > 0 && x->asked.has_key;

		if ((x->asked.set[i] || key) &&
			pg_attribute_aclcheck(relid, col->attnum, role, right) != ACLCHECK_OK)
			appendStringInfo(missing, "%s%s (%s)", missing->len > 0 ? ", " : "",
							 operations[operation(x)].right_name,
							 quote_identifier(col->name));
	}
}

static void
ask_rights(EntExplain *x)
{
	char	   *role = GetUserNameFromId(x->peer->role, false);
	StringInfoData missing;

	initStringInfo(&missing);
	add_missing(x, &missing);
	if (!x->readable)
		appendStringInfo(&missing, "%sSELECT on the key", missing.len > 0 ? ", " : "");
	if (missing.len > 0)
		ent_explain_say(x, ENT_VERDICT_NO, "role \"%s\" lacks %s", role, missing.data);
	else
		ent_explain_say(x, ENT_VERDICT_YES, "role \"%s\" may %s", role,
						operations[operation(x)].right_name);
}

static void
read_old(void *arg)
{
	EntExplain *x = arg;
	Datum	   *values = palloc0((x->rel->ncolumns + 1) * sizeof(Datum));
	bool	   *nulls = palloc0((x->rel->ncolumns + 1) * sizeof(bool));

	if (ent_rowquery_read(x->rel, x->may, NULL, x->asked.key, NULL, values, nulls))
		x->old = (EntHookRow) {x->may, values, nulls};
}

static void
ask_listen(EntExplain *x)
{
	EntAsked   *asked = &x->asked;
	EntHooks   *hooks = ent_hooks_for(ENT_HOOK_LISTEN, x->rel, x->peer->no,
									  x->peer->role);
	EntHookRow	values = {asked->set, asked->values, asked->nulls};
	EntHookRefusal ignored;

	if (hooks == NULL)
	{
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "no hook");
		return;
	}
	ent_hooks_tell(hooks, ent_explain_hook, x);
	(void) ent_hook_may_listen(hooks, x->owner->no, operations[operation(x)].name,
							   asked->has_key ? asked->key : NULL,
							   asked->op == ENT_REQUEST_OP_DELETE ? NULL : &values,
							   &ignored);
}

static void
ask_constructed(EntExplain *x)
{
	EntAsked   *asked = &x->asked;
	EntHooks   *hooks = ent_hooks_for(ENT_HOOK_CONSTRUCTED, x->rel, x->peer->no,
									  x->peer->role);
	EntHookRow	set = {asked->set, asked->values, asked->nulls},
			   *new = NULL;
	EntHookRefusal ignored;

	if (hooks == NULL)
	{
		ent_explain_say(x, ENT_VERDICT_NEUTRAL, "no hook");
		return;
	}
	if (x->readable && asked->has_key)
		ent_query_as(x->peer->role, read_old, x);
	if (asked->op != ENT_REQUEST_OP_DELETE)
	{
		if (!asked->has_key)
			ent_explain_say(x, ENT_VERDICT_NEUTRAL,
							"asked without the key, which this database would choose");
		new = ent_hook_row(x->rel, &set, asked->has_key ? asked->key : NULL,
						   x->old.given ? &x->old : NULL);
	}
	ent_hooks_tell(hooks, ent_explain_hook, x);
	(void) ent_hook_may_construct(hooks, x->owner->no,
								  x->old.given ? &x->old : NULL, new, &ignored);
}

static void
ask_trial(EntExplain *x)
{
	char	   *policies = ent_explain_policies(x, operations[operation(x)].policies);
	EntRequestAnswer answer = {0};
	bool		done;

	x->asked.state = !x->owner->local;
	(void) ent_decide_rehearse(&x->asked, &answer);
	done = strcmp(answer.sqlstate, ENT_DECIDE_REHEARSED) == 0;
	ent_explain_say(x, done ? ENT_VERDICT_YES : ENT_VERDICT_NO, "%s%s%s%s%s%s",
					done ? "done, and undone" : answer.sqlstate,
					done ? "" : ": ", done ? "" : answer.message,
					done || !answer.detail ? "" : psprintf(" (%s)", answer.detail),
					policies ? "; policies for the role: " : "",
					policies ? policies : "");
}

static const EntExplainRule rules[] = {
	{"link", ent_explain_link},
	{"owner", ask_owner},
	{"route", ask_route},
	{"speaker", ask_speaker},
	{"object", ask_object},
	{"key", ask_key},
	{"schema", ent_explain_schema},
	{"rights", ask_rights},
	{"should_listen", ask_listen},
	{"should_listen_constructed", ask_constructed},
	{"trial", ask_trial},
};

/* ---- what is asked about ---- */

typedef struct Given
{
	EntExplain *x;
	Jsonb	   *json;
	bool		key;			/* it is the key */
	List	   *columns;		/* indexes */
} Given;

static void
list_columns(Given *g)
{
	JsonbIterator *it = JsonbIteratorInit(&g->json->root);
	JsonbValue	v;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;
		EntColumn  *col;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(v.val.string.val, v.val.string.len);
		col = ent_relinfo_column(g->x->rel, name);
		if (col == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist", name,
							g->x->rel->name)));
		if (g->key && col->key == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("column \"%s\" is not in the key of table \"%s\"", name,
							g->x->rel->name)));
		g->columns = lappend_int(g->columns, col - g->x->rel->columns);
	}
}

static void
set_column(Given *g, int c, Datum value, bool null)
{
	EntExplain *x = g->x;
	EntColumn  *col = &x->rel->columns[c];

	value = null ? (Datum) 0 : datumCopy(value, col->typbyval, col->typlen);
	if (!g->key)
	{
		x->asked.set[c] = true;
		x->asked.values[c] = value;
		x->asked.nulls[c] = null;
	}
	else if (null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key column \"%s\" must not be NULL", col->name)));
	else
		x->asked.key[col->key - 1] = value;
}

/* As the peer's role: a type's input may be somebody's code. */
static void
read_columns(void *arg)
{
	Given	   *g = arg;
	StringInfoData sql;
	Oid			type = JSONBOID;
	Datum		json = JsonbPGetDatum(g->json);
	ListCell   *lc;

	list_columns(g);
	if (g->columns == NIL)
		return;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT * FROM pg_catalog.jsonb_to_record($1) AS t (");
	foreach(lc, g->columns)
	{
		EntColumn  *col = &g->x->rel->columns[lfirst_int(lc)];

		appendStringInfo(&sql, "%s%s %s", foreach_current_index(lc) > 0 ? ", " : "",
						 quote_identifier(col->name),
						 format_type_extended(col->type, col->typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
	}
	appendStringInfoChar(&sql, ')');
	if (SPI_execute_with_args(sql.data, 1, &type, &json, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read columns of table \"%s\"", g->x->rel->name);
	MemoryContextSwitchTo(g->x->context);
	foreach(lc, g->columns)
	{
		bool		null;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										  foreach_current_index(lc) + 1, &null);

		set_column(g, lfirst_int(lc), value, null);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Returns how many columns are given. */
static int
read_json(EntExplain *x, FunctionCallInfo fcinfo, int arg, bool key)
{
	Given		g = {.x = x, .key = key};

	if (PG_ARGISNULL(arg))
		return 0;
	g.json = PG_GETARG_JSONB_P(arg);
	if (!JB_ROOT_IS_OBJECT(g.json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be an object of columns", key ? "key" : "values")));
	ent_query_as(x->peer->role, read_columns, &g);
	return list_length(g.columns);
}

static void
read_asked(EntExplain *x, FunctionCallInfo fcinfo)
{
	EntAsked   *asked = &x->asked;
	int			n;

	asked->rel = x->rel;
	asked->peer = x->peer->no;
	asked->role = x->peer->role;
	asked->owner = x->owner->no;
	asked->set = palloc0((x->rel->ncolumns + 1) * sizeof(bool));
	asked->values = palloc0((x->rel->ncolumns + 1) * sizeof(Datum));
	asked->nulls = palloc0((x->rel->ncolumns + 1) * sizeof(bool));
	(void) read_json(x, fcinfo, 5, false);
	n = read_json(x, fcinfo, 4, true);
	asked->has_key = n == x->rel->nkeys;
	/* only a row that is asked for may get its key here */
	if (!asked->has_key &&
		!(n == 0 && x->owner->local && asked->op == ENT_REQUEST_OP_CREATE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must name each column of the key of table \"%s\"",
						x->rel->name)));
	for (int i = 0; i < x->rel->nkeys && asked->has_key &&
		 x->owner->local && asked->op == ENT_REQUEST_OP_CREATE; i++)
	{
		asked->set[x->rel->keys[i]] = true;
		asked->values[x->rel->keys[i]] = asked->key[i];
	}
}

static char
check_operation(const char *name)
{
	for (int i = 0; i < lengthof(operations); i++)
		if (strcmp(operations[i].name, name) == 0)
			return operations[i].op;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no operation \"%s\"", name),
			 errhint("Use \"insert\", \"update\" or \"delete\".")));
}

static void
refuse_nulls(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"peer name", "owner", "relation", "operation"};

	for (int i = 0; i < lengthof(names); i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("%s must not be NULL", names[i])));
}

/* (peer, owner, relation, operation, key, values) */
Datum
ent_sql_explain_listen(PG_FUNCTION_ARGS)
{
	EntExplain	x;
	char		op;
	int			level;

	refuse_nulls(fcinfo);
	op = check_operation(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	ent_explain_begin(&x, fcinfo, 0);
	x.asked.op = op;
	x.owner = ent_owner_get(ent_owner_named(text_to_cstring(PG_GETARG_TEXT_PP(1)),
											NULL));
	x.rel = ent_relinfo_read_by_oid(PG_GETARG_OID(2));
	if (x.rel == NULL)
	{
		char	   *name = get_rel_name(PG_GETARG_OID(2));

		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not synchronized", name ? name : "?"),
				 errhint("Synchronized tables are shown by the view entanglement.tables.")));
	}
	x.may = palloc0((x.rel->ncolumns + 1) * sizeof(bool));
	x.readable = ent_policy_columns(x.rel, x.peer->role, x.may);
	level = ent_query_plain_path();
	read_asked(&x, fcinfo);
	ent_explain_ask(&x, rules, lengthof(rules));
	AtEOXact_GUC(true, level);
	PG_RETURN_VOID();
}
