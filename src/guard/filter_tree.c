/*
 * guard/filter_tree.c
 *	  A filter after its analysis: is every node allowed?
 *
 * Place: guard. What decides is here, whatever filter_raw.c let pass: a node is
 * refused unless it is listed, its type has a class, and its operator or
 * function is in the lists of filter_list.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "guard/filter_private.h"

static void
check_constant(EntFilterJob *job, Const *c)
{
	if (list_member_int(job->timely, c->location) &&
		ent_filter_tells_time(c->consttype))
		ent_filter_refuse("It has a constant of type %s that is another one each day.",
						  format_type_be(c->consttype));
	if (c->consttype == NUMERICOID && !c->constisnull &&
		strlen(OidOutputFunctionCall(F_NUMERIC_OUT, c->constvalue)) > ENT_FILTER_MAX_NUMERIC)
		ent_filter_refuse("It has a number of more than %d digits.",
						  ENT_FILTER_MAX_NUMERIC);
}

static void
check_collation(CollateExpr *e)
{
	HeapTuple	tup = SearchSysCache1(COLLOID, ObjectIdGetDatum(e->collOid));
	bool		builtin = HeapTupleIsValid(tup) &&
		((Form_pg_collation) GETSTRUCT(tup))->collnamespace == PG_CATALOG_NAMESPACE;

	if (HeapTupleIsValid(tup))
		ReleaseSysCache(tup);
	if (!builtin)
		ent_filter_refuse("It names a collation outside of pg_catalog.");
}

static void
check_type(Node *node)
{
	Oid			type = exprType(node);

	if (ent_filter_class(type) == 0)
		ent_filter_refuse("It has a value of type %s.", format_type_be(type));
}

static bool
check(Node *node, void *context)
{
	EntFilterJob *job = context;
	bool		result;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
			check_constant(job, (Const *) node);
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			{
				OpExpr	   *e = (OpExpr *) node;

				ent_filter_check_operator(e->opno, linitial(e->args),
										  list_length(e->args) == 2 ? lsecond(e->args) : NULL);
				break;
			}
		case T_ScalarArrayOpExpr:
			{
				ScalarArrayOpExpr *e = (ScalarArrayOpExpr *) node;

				ent_filter_check_operator(e->opno, linitial(e->args), lsecond(e->args));
				break;
			}
		case T_FuncExpr:
			ent_filter_check_function((FuncExpr *) node);
			break;
		case T_CoerceViaIO:
			ent_filter_check_io(exprType((Node *) ((CoerceViaIO *) node)->arg),
								((CoerceViaIO *) node)->resulttype);
			break;
		case T_CollateExpr:
			check_collation((CollateExpr *) node);
			break;
		case T_NullTest:
			if (IsA(((NullTest *) node)->arg, Var))
				return false;	/* whatever its type */
			break;
		case T_List:
		case T_CaseWhen:
		case T_Var:				/* made by filter.c */
		case T_BoolExpr:
		case T_BooleanTest:
		case T_RelabelType:
		case T_ArrayCoerceExpr:
		case T_ArrayExpr:
		case T_SubscriptingRef:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
			break;
		default:
			ent_filter_refuse("It has an expression of a kind that is not known.");
	}
	if (!IsA(node, List) && !IsA(node, CaseWhen))
		check_type(node);
	ent_filter_descend(job);
	result = expression_tree_walker(node, check, job);
	job->depth--;
	return result;
}

void
ent_filter_check_tree(EntFilterJob *job, Node *tree)
{
	job->depth = 0;
	(void) check(tree, job);
}
