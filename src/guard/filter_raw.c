/*
 * guard/filter_raw.c
 *	  A filter before its analysis: is it one expression, and safe to be
 *	  analysed?
 *
 * Place: guard. Analysis reads literals with the input functions of types
 * and looks tables up, so what could make it run users' code, take locks or
 * tell what there is does not get that far: names are those of pg_catalog,
 * types those of filter_list.c, and nodes those below.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "parser/parse_type.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "guard/filter_private.h"

/* ---- one expression ---- */

static bool
is_one_expression(SelectStmt *s)
{
	return list_length(s->targetList) == 1 &&
		s->distinctClause == NIL && s->intoClause == NULL &&
		s->fromClause == NIL && s->whereClause == NULL &&
		s->groupClause == NIL && s->havingClause == NULL &&
		s->windowClause == NIL && s->valuesLists == NIL &&
		s->sortClause == NIL && s->limitOffset == NULL &&
		s->limitCount == NULL && s->lockingClause == NIL &&
		s->withClause == NULL && s->op == SETOP_NONE;
}

Node *
ent_filter_parse(const char *text)
{
	List	   *parsed = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *s = list_length(parsed) == 1 ?
		(SelectStmt *) linitial_node(RawStmt, parsed)->stmt : NULL;
	ResTarget  *target = NULL;

	if (s != NULL && IsA(s, SelectStmt) && is_one_expression(s))
		target = linitial_node(ResTarget, s->targetList);
	if (target == NULL || target->name != NULL || target->indirection != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("filter is not one expression"),
				 errhint("Write what would stand behind WHERE, as in: kind = 'ship' AND speed > 3.")));
	return target->val;
}

/* ---- what may be analysed ---- */

/* What people try first, and what it is called; other nodes are "of a kind". */
static const struct
{
	NodeTag		tag;
	const char *name;
}			refused[] =
{
	{T_SubLink, "a subquery"},
	{T_ParamRef, "a parameter"},
	{T_SQLValueFunction, "a function of the session, as current_user or current_date"},
	{T_RowExpr, "a row"},
	{T_A_Star, "a whole row"},
	{T_NamedArgExpr, "an argument with a name"},
	{T_XmlExpr, "an XML expression"},
	{T_XmlSerialize, "an XML expression"},
	{T_GroupingFunc, "a grouping"},
	{T_SetToDefault, "a default"},
	{T_String, "a field of a composite value"},
};

/* An unqualified name, or one of pg_catalog; returns the name. */
static const char *
plain_name(List *names, const char *what)
{
	if (list_length(names) != 1 &&
		(list_length(names) != 2 || strcmp(strVal(linitial(names)), "pg_catalog") != 0))
		ent_filter_refuse("It names %s outside of pg_catalog: %s.", what,
						  NameListToString(names));
	return strVal(llast(names));
}

static void
gate_operator(A_Expr *e)
{
	switch (e->kind)
	{
		case AEXPR_OP:
		case AEXPR_OP_ANY:
		case AEXPR_OP_ALL:
		case AEXPR_DISTINCT:
		case AEXPR_NOT_DISTINCT:
		case AEXPR_NULLIF:
		case AEXPR_IN:
		case AEXPR_LIKE:
		case AEXPR_ILIKE:
		case AEXPR_BETWEEN:
		case AEXPR_NOT_BETWEEN:
		case AEXPR_BETWEEN_SYM:
		case AEXPR_NOT_BETWEEN_SYM:
			break;
		default:
			ent_filter_refuse("It has SIMILAR TO, or an operator of a kind that is not known.");
	}
	(void) plain_name(e->name, "an operator");
}

static void
gate_function(FuncCall *f)
{
	const char *name = plain_name(f->funcname, "a function");

	/* arguments of others may be read as what they take, as regclass */
	if (!ent_filter_knows_function(name))
		ent_filter_refuse("It calls \"%s\".", name);
	if (f->agg_order != NIL || f->agg_filter != NULL || f->over != NULL ||
		f->agg_within_group || f->agg_star || f->agg_distinct || f->func_variadic)
		ent_filter_refuse("It calls \"%s\" other than as an ordinary function.", name);
}

static void
gate_type(TypeName *t)
{
	const char *name = plain_name(t->names, "a type");
	Type		tup;
	Oid			type;
	ListCell   *lc;

	if (t->setof || t->pct_type)
		ent_filter_refuse("It has SETOF or %%TYPE.");
	foreach(lc, t->typmods)
	{
		A_Const    *c = lfirst(lc);

		if (!IsA(c, A_Const) || c->isnull || nodeTag(&c->val) != T_Integer ||
			intVal(&c->val) > ENT_FILTER_MAX_TYPMOD)
			ent_filter_refuse("It gives type \"%s\" a length that is greater than %d, or none.",
							  name, ENT_FILTER_MAX_TYPMOD);
	}
	tup = LookupTypeName(NULL, t, NULL, true);
	if (tup == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("filter names a type that does not exist: %s",
						NameListToString(t->names))));
	type = typeTypeId(tup);
	ReleaseSysCache(tup);
	if (ent_filter_class(type) == 0)
		ent_filter_refuse("It names type %s.", format_type_be(type));
}

/* Some of these words in a date mean the time at which it is read. */
static void
note_constant(EntFilterJob *job, A_Const *c)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
	char	   *s;

	if (c->isnull || nodeTag(&c->val) != T_String)
		return;
	s = downcase_identifier(strVal(&c->val), strlen(strVal(&c->val)), false, false);
	for (int i = 0; i < lengthof(words); i++)
		if (strstr(s, words[i]) != NULL)
			job->timely = lappend_int(job->timely, c->location);
	pfree(s);
}

static void
refuse_node(Node *node)
{
	for (int i = 0; i < lengthof(refused); i++)
		if (nodeTag(node) == refused[i].tag)
			ent_filter_refuse("It has %s.", refused[i].name);
	ent_filter_refuse("It has an expression of a kind that is not known.");
}

static bool
gate(Node *node, void *context)
{
	EntFilterJob *job = context;
	bool		result;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_A_Expr:
			gate_operator((A_Expr *) node);
			break;
		case T_FuncCall:
			gate_function((FuncCall *) node);
			break;
		case T_TypeName:
			gate_type((TypeName *) node);
			break;
		case T_CollateClause:
			(void) plain_name(((CollateClause *) node)->collname, "a collation");
			break;
		case T_A_Const:
			note_constant(job, (A_Const *) node);
			return false;
		case T_ColumnRef:
			return false;		/* looked up by filter.c */
		case T_NullTest:
			if (IsA(((NullTest *) node)->arg, ColumnRef))
				job->bare = lappend_int(job->bare,
										((ColumnRef *) ((NullTest *) node)->arg)->location);
			break;
		case T_List:
		case T_Integer:			/* the bounds of an array type */
		case T_BoolExpr:
		case T_TypeCast:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_A_ArrayExpr:
		case T_A_Indirection:
		case T_A_Indices:
			break;
		default:
			refuse_node(node);
	}
	ent_filter_descend(job);
	result = raw_expression_tree_walker(node, gate, job);
	job->depth--;
	return result;
}

void
ent_filter_gate(EntFilterJob *job, Node *raw)
{
	job->depth = 0;
	(void) gate(raw, job);
}
