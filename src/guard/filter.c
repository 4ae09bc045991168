/*
 * guard/filter.c
 *	  The way of a filter: text -> raw tree -> checked tree -> SQL.
 *
 * Place: guard. Nothing of the text is kept but what has been allowed by
 * name: node types, types, operators, functions. What is new in a later
 * PostgreSQL is refused until somebody has thought about it. All happens under
 * pinned settings and as the peer's role, in a security-restricted context.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "guard/filter.h"
#include "guard/filter_private.h"
#include "store/query.h"
#include "store/value.h"

void
ent_filter_refuse(const char *format,...)
{
	StringInfoData buf;
	int			more;

	initStringInfo(&buf);
	do
	{
		va_list		args;

		va_start(args, format);
		more = appendStringInfoVA(&buf, format, args);
		va_end(args);
		if (more > 0)
			enlargeStringInfo(&buf, more);
	} while (more > 0);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("filter is not allowed"),
			 errdetail_internal("%s", buf.data)));
}

void
ent_filter_descend(EntFilterJob *job)
{
	if (++job->depth > ENT_FILTER_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("filter is nested too deeply"),
				 errdetail("At most %d levels are possible.", ENT_FILTER_MAX_DEPTH)));
}

/* ---- columns ---- */

static bool
may_select(EntFilterJob *job, AttrNumber attnum)
{
	Oid			relid = job->rel->relid;

	return pg_class_aclcheck(relid, job->role, ACL_SELECT) == ACLCHECK_OK ||
		pg_attribute_aclcheck(relid, attnum, job->role, ACL_SELECT) == ACLCHECK_OK;
}

/* Without a qualifier, or with the table's name. NULL: no column at all. */
static const char *
column_name(EntFilterJob *job, ColumnRef *ref)
{
	Node	   *first = linitial(ref->fields),
			   *last = llast(ref->fields);

	if (list_length(ref->fields) > 2 || !IsA(first, String) || !IsA(last, String))
		return NULL;
	if (list_length(ref->fields) == 2 &&
		strcmp(strVal(first), job->rel->name) != 0)
		return NULL;
	return strVal(last);
}

/* What there is and what may be seen are not to be told apart. */
static Node *
find_column(ParseState *pstate, ColumnRef *ref)
{
	EntFilterJob *job = pstate->p_ref_hook_state;
	const char *name = column_name(job, ref);
	HeapTuple	tup = name == NULL ? NULL :
		SearchSysCacheAttName(job->rel->relid, name);
	Form_pg_attribute att;
	Var		   *var;

	if (!HeapTupleIsValid(tup) ||
		((Form_pg_attribute) GETSTRUCT(tup))->attnum <= 0 ||
		!may_select(job, ((Form_pg_attribute) GETSTRUCT(tup))->attnum))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("filter names a column that does not exist or may not be read: %s",
						NameListToString(ref->fields))));
	att = (Form_pg_attribute) GETSTRUCT(tup);
	var = makeVar(1, att->attnum, att->atttypid, att->atttypmod,
				  att->attcollation, 0);
	var->location = ref->location;
	ReleaseSysCache(tup);
	/* literals beside it would be read by its type's input function */
	if (ent_filter_class(var->vartype) == 0 &&
		!list_member_int(job->bare, ref->location))
		ent_filter_refuse("Column \"%s\" is of type %s, and may only be compared with NULL.",
						  name, format_type_be(var->vartype));
	return (Node *) var;
}

/* ---- the whole way ---- */

typedef struct Way
{
	EntFilterJob job;
	MemoryContext context;		/* of the result */
	char	   *sql;
} Way;

static Node *
analyse(EntFilterJob *job, Node *raw)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *tree;

	pstate->p_sourcetext = job->text;
	pstate->p_ref_hook_state = job;
	pstate->p_pre_columnref_hook = find_column;
	tree = transformExpr(pstate, raw, EXPR_KIND_WHERE);
	tree = coerce_to_boolean(pstate, tree, "filter");
	assign_expr_collations(pstate, tree);
	free_parsestate(pstate);
	return tree;
}

/* To be called as the role. */
static void
walk(void *arg)
{
	Way		   *way = arg;
	EntFilterJob *job = &way->job;
	Node	   *raw = ent_filter_parse(job->text);
	Node	   *tree;
	char	   *sql;

	ent_filter_gate(job, raw);
	tree = analyse(job, raw);
	ent_filter_check_tree(job, tree);
	sql = deparse_expression(tree, deparse_context_for("t", job->rel->relid),
							 true, false);
	if (strlen(sql) > ENT_FILTER_MAX_SQL)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("filter is too long"),
				 errdetail("Written out it has %zu bytes; at most %d are possible.",
						   strlen(sql), ENT_FILTER_MAX_SQL)));
	way->sql = MemoryContextStrdup(way->context, sql);
}

char *
ent_filter_sql(EntRelation *rel, Oid role, const char *text)
{
	MemoryContext old,
				context = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement filter",
												ALLOCSET_DEFAULT_SIZES);
	Way			way = {.job = {.rel = rel, .role = role, .text = text},
	.context = CurrentMemoryContext};
	int			level = ent_value_enter();

	old = MemoryContextSwitchTo(context);
	ent_query_as(role, walk, &way);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	ent_value_leave(level);
	return way.sql;
}

typedef struct Try
{
	EntRelation *rel;
	Oid			role;
	const char *text;
	char	   *sql;
} Try;

static void
try(void *arg)
{
	Try		   *t = arg;

	t->sql = ent_filter_sql(t->rel, t->role, t->text);
}

char *
ent_filter_try(EntRelation *rel, Oid role, const char *text, ErrorData **error)
{
	Try			t = {rel, role, text, NULL};

	*error = ent_query_attempt(try, &t);
	return *error == NULL ? t.sql : NULL;
}

void
ent_filter_check_syntax(const char *text)
{
	int			level = ent_value_enter();

	(void) ent_filter_parse(text);
	ent_value_leave(level);
}
