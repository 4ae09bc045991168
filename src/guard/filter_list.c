/*
 * guard/filter_list.c
 *	  Types, operators and functions that a filter may have.
 *
 * Place: guard. Lists of what is allowed, not of what is not: each of them is
 * PostgreSQL's own, immutable, and needs for a row no more time than the
 * length of the filter times that of the row, and no more memory than the
 * two together. So there is nothing that repeats, pads, joins strings or multiplies
 * numbers without bound, nor regular expressions; what compares each part of one value
 * with each of another one takes a constant on one side.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "guard/filter_private.h"

/* ---- types ---- */

static const struct
{
	Oid			type;
	EntFilterClass class;
}			types[] =
{
	{BOOLOID, ENT_FILTER_BOOL},
	{INT2OID, ENT_FILTER_INT},
	{INT4OID, ENT_FILTER_INT},
	{INT8OID, ENT_FILTER_INT},
	{FLOAT4OID, ENT_FILTER_FLOAT},
	{FLOAT8OID, ENT_FILTER_FLOAT},
	{NUMERICOID, ENT_FILTER_NUMERIC},
	{TEXTOID, ENT_FILTER_TEXT},
	{VARCHAROID, ENT_FILTER_TEXT},
	{BPCHAROID, ENT_FILTER_TEXT},
	{NAMEOID, ENT_FILTER_TEXT},
	{CHAROID, ENT_FILTER_TEXT},
	{DATEOID, ENT_FILTER_TIME},
	{TIMEOID, ENT_FILTER_TIME},
	{TIMETZOID, ENT_FILTER_TIME},
	{TIMESTAMPOID, ENT_FILTER_TIME},
	{TIMESTAMPTZOID, ENT_FILTER_TIME},
	{INTERVALOID, ENT_FILTER_TIME},
	{INETOID, ENT_FILTER_NET},
	{CIDROID, ENT_FILTER_NET},
	{MACADDROID, ENT_FILTER_NET},
	{MACADDR8OID, ENT_FILTER_NET},
	{POINTOID, ENT_FILTER_GEO},
	{LSEGOID, ENT_FILTER_GEO},
	{PATHOID, ENT_FILTER_GEO},
	{BOXOID, ENT_FILTER_GEO},
	{POLYGONOID, ENT_FILTER_GEO},
	{LINEOID, ENT_FILTER_GEO},
	{CIRCLEOID, ENT_FILTER_GEO},
	{JSONBOID, ENT_FILTER_JSONB},
	{UUIDOID, ENT_FILTER_UUID},
	{BYTEAOID, ENT_FILTER_OTHER},
	{BITOID, ENT_FILTER_OTHER},
	{VARBITOID, ENT_FILTER_OTHER},
	{MONEYOID, ENT_FILTER_OTHER},
	{OIDOID, ENT_FILTER_OTHER},
	{PG_LSNOID, ENT_FILTER_OTHER},
};

/*
 * A domain counts as what it is over: that it is met by a value nobody checks
 * again. What others have made has operators of others, but for enums.
 */
int
ent_filter_class(Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element;

	for (int i = 0; i < lengthof(types); i++)
		if (types[i].type == base)
			return types[i].class;
	switch (get_typtype(base))
	{
		case TYPTYPE_ENUM:
			return ENT_FILTER_ENUM;
		case TYPTYPE_RANGE:
		case TYPTYPE_MULTIRANGE:
			return base < FirstGenbkiObjectId ? ENT_FILTER_RANGE : 0;
		case TYPTYPE_BASE:
			element = get_element_type(base);
			return OidIsValid(element) && ent_filter_class(element) != 0 ?
				ENT_FILTER_ARRAY : 0;
		default:
			return 0;
	}
}

bool
ent_filter_tells_time(Oid type)
{
	Oid			base = getBaseType(type);

	switch (ent_filter_class(base))
	{
		case ENT_FILTER_TIME:
		case ENT_FILTER_RANGE:
			return true;
		case ENT_FILTER_ARRAY:
			return ent_filter_tells_time(get_element_type(base));
		default:
			return false;
	}
}

/* ---- what is PostgreSQL's own ---- */

static bool
is_plain(Oid function)
{
	HeapTuple	tup;
	Form_pg_proc form;
	bool		result;

	if (function >= FirstGenbkiObjectId)
		return false;
	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tup))
		return false;
	form = (Form_pg_proc) GETSTRUCT(tup);
	result = form->pronamespace == PG_CATALOG_NAMESPACE &&
		form->prolang == INTERNALlanguageId &&
		form->prokind == PROKIND_FUNCTION &&
		form->provolatile == PROVOLATILE_IMMUTABLE && !form->proretset;
	ReleaseSysCache(tup);
	return result;
}

static bool
is_constant(Node *node)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
			return true;
		case T_RelabelType:
			return is_constant((Node *) ((RelabelType *) node)->arg);
		case T_CollateExpr:
			return is_constant((Node *) ((CollateExpr *) node)->arg);
		case T_ArrayExpr:
			foreach(lc, ((ArrayExpr *) node)->elements)
				if (!is_constant(lfirst(lc)))
					return false;
			return true;
		case T_FuncExpr:		/* the length of a type, or LIKE's ESCAPE */
			foreach(lc, ((FuncExpr *) node)->args)
				if (!is_constant(lfirst(lc)))
					return false;
			return true;
		default:
			return false;
	}
}

/* ---- operators ---- */

#define ANY_CLASS	0xffff
#define NUMBER		(ENT_FILTER_INT | ENT_FILTER_FLOAT | ENT_FILTER_NUMERIC)
#define SPATIAL		(ENT_FILTER_GEO | ENT_FILTER_RANGE)
/* Each part of one value may be compared with each part of the other. */
#define COMPOUND	(ENT_FILTER_GEO | ENT_FILTER_ARRAY | ENT_FILTER_JSONB)

/* A row per name: the classes that operands may have, and which need a constant beside them. */
static const struct
{
	const char *name;
	int			left;
	int			right;
	int			constant;		/* operands of these classes: one is to be constant */
}			operators[] =
{
	{"=", ANY_CLASS, ANY_CLASS, 0},
	{"<>", ANY_CLASS, ANY_CLASS, 0},
	{"<", ANY_CLASS, ANY_CLASS, 0},
	{"<=", ANY_CLASS, ANY_CLASS, 0},
	{">", ANY_CLASS, ANY_CLASS, 0},
	{">=", ANY_CLASS, ANY_CLASS, 0},
	{"+", NUMBER | ENT_FILTER_TIME | ENT_FILTER_OTHER, NUMBER | ENT_FILTER_TIME | ENT_FILTER_OTHER, 0},
	{"-", NUMBER | ENT_FILTER_TIME | ENT_FILTER_OTHER, NUMBER | ENT_FILTER_TIME | ENT_FILTER_OTHER, 0},
	{"*", NUMBER | ENT_FILTER_TIME, NUMBER | ENT_FILTER_TIME, ENT_FILTER_NUMERIC},
	{"/", NUMBER | ENT_FILTER_TIME, NUMBER | ENT_FILTER_TIME, ENT_FILTER_NUMERIC},
	{"%", ENT_FILTER_INT, ENT_FILTER_INT, 0},
	{"@", NUMBER, NUMBER, 0},
	{"&", ENT_FILTER_INT, ENT_FILTER_INT, 0},
	{"|", ENT_FILTER_INT, ENT_FILTER_INT, 0},
	{"#", ENT_FILTER_INT, ENT_FILTER_INT, 0},
	{"~", ENT_FILTER_INT, ENT_FILTER_INT, 0},
	{"<<", ENT_FILTER_INT | ENT_FILTER_NET | SPATIAL, ENT_FILTER_INT | ENT_FILTER_NET | SPATIAL, ENT_FILTER_GEO},
	{">>", ENT_FILTER_INT | ENT_FILTER_NET | SPATIAL, ENT_FILTER_INT | ENT_FILTER_NET | SPATIAL, ENT_FILTER_GEO},
	{"<<=", ENT_FILTER_NET, ENT_FILTER_NET, 0},
	{">>=", ENT_FILTER_NET, ENT_FILTER_NET, 0},
	{"&&", ENT_FILTER_NET | SPATIAL | ENT_FILTER_ARRAY, ENT_FILTER_NET | SPATIAL | ENT_FILTER_ARRAY, COMPOUND},
	{"@>", SPATIAL | ENT_FILTER_ARRAY | ENT_FILTER_JSONB, ANY_CLASS, COMPOUND},
	{"<@", ANY_CLASS, SPATIAL | ENT_FILTER_ARRAY | ENT_FILTER_JSONB, COMPOUND},
	{"-|-", ENT_FILTER_RANGE, ENT_FILTER_RANGE, 0},
	{"&<", SPATIAL, SPATIAL, ENT_FILTER_GEO},
	{"&>", SPATIAL, SPATIAL, ENT_FILTER_GEO},
	{"<<|", ENT_FILTER_GEO, ENT_FILTER_GEO, ENT_FILTER_GEO},
	{"|>>", ENT_FILTER_GEO, ENT_FILTER_GEO, ENT_FILTER_GEO},
	{"&<|", ENT_FILTER_GEO, ENT_FILTER_GEO, ENT_FILTER_GEO},
	{"|&>", ENT_FILTER_GEO, ENT_FILTER_GEO, ENT_FILTER_GEO},
	{"~=", ENT_FILTER_GEO, ENT_FILTER_GEO, ENT_FILTER_GEO},
	{"<->", ENT_FILTER_GEO, ENT_FILTER_GEO, ENT_FILTER_GEO},
	{"~~", ENT_FILTER_TEXT, ENT_FILTER_TEXT, ENT_FILTER_TEXT},
	{"!~~", ENT_FILTER_TEXT, ENT_FILTER_TEXT, ENT_FILTER_TEXT},
	{"~~*", ENT_FILTER_TEXT, ENT_FILTER_TEXT, ENT_FILTER_TEXT},
	{"!~~*", ENT_FILTER_TEXT, ENT_FILTER_TEXT, ENT_FILTER_TEXT},
	{"^@", ENT_FILTER_TEXT, ENT_FILTER_TEXT, 0},
	{"->", ENT_FILTER_JSONB, ENT_FILTER_TEXT | ENT_FILTER_INT, 0},
	{"->>", ENT_FILTER_JSONB, ENT_FILTER_TEXT | ENT_FILTER_INT, 0},
	{"#>", ENT_FILTER_JSONB, ENT_FILTER_ARRAY, 0},
	{"#>>", ENT_FILTER_JSONB, ENT_FILTER_ARRAY, 0},
	{"?", ENT_FILTER_JSONB, ENT_FILTER_TEXT, 0},
	{"?|", ENT_FILTER_JSONB, ENT_FILTER_ARRAY, ENT_FILTER_JSONB},
	{"?&", ENT_FILTER_JSONB, ENT_FILTER_ARRAY, ENT_FILTER_JSONB},
};

/* x = ANY (array) applies the operator to the elements. */
static int
class_of_operand(Oid declared, Node *node)
{
	Oid			type = exprType(node);
	int			class = ent_filter_class(type);

	if (class == ENT_FILTER_ARRAY && !IsPolymorphicType(declared) &&
		!OidIsValid(get_element_type(declared)))
		return ent_filter_class(get_element_type(getBaseType(type)));
	return class;
}

static void
check_operands(int row, Form_pg_operator form, Node *left, Node *right)
{
	int			l = left == NULL ? 0 : class_of_operand(form->oprleft, left);
	int			r = class_of_operand(form->oprright, right);
	bool		divides;

	if ((left != NULL && !(l & operators[row].left)) || !(r & operators[row].right))
		ent_filter_refuse("It has operator %s between %s and %s.",
						  operators[row].name, format_type_be(form->oprleft),
						  format_type_be(form->oprright));
	divides = strcmp(operators[row].name, "/") == 0;
	if (left != NULL && ((l | r) & operators[row].constant) &&
		!is_constant(right) && (divides || !is_constant(left)))
		ent_filter_refuse("It has operator %s without a constant %s it.",
						  operators[row].name, divides ? "behind" : "beside");
}

void
ent_filter_check_operator(Oid op, Node *left, Node *right)
{
	HeapTuple	tup = SearchSysCache1(OPEROID, ObjectIdGetDatum(op));
	Form_pg_operator form;
	int			row;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for operator %u", op);
	form = (Form_pg_operator) GETSTRUCT(tup);
	for (row = 0; row < lengthof(operators); row++)
		if (strcmp(NameStr(form->oprname), operators[row].name) == 0)
			break;
	if (op >= FirstGenbkiObjectId || form->oprnamespace != PG_CATALOG_NAMESPACE ||
		row == lengthof(operators) || !is_plain(form->oprcode))
		ent_filter_refuse("It has operator %s between %s and %s.",
						  NameStr(form->oprname), format_type_be(form->oprleft),
						  format_type_be(form->oprright));
	if (right == NULL)
		check_operands(row, form, NULL, left);
	else
		check_operands(row, form, left, right);
	ReleaseSysCache(tup);
}

/* ---- functions ---- */

static const Oid functions[] = {
	F_ABS_INT2, F_ABS_INT4, F_ABS_INT8, F_ABS_FLOAT4, F_ABS_FLOAT8, F_ABS_NUMERIC,
	F_CEIL_FLOAT8, F_CEIL_NUMERIC, F_CEILING_FLOAT8, F_CEILING_NUMERIC,
	F_FLOOR_FLOAT8, F_FLOOR_NUMERIC, F_ROUND_FLOAT8, F_ROUND_NUMERIC,
	F_ROUND_NUMERIC_INT4, F_TRUNC_FLOAT8, F_TRUNC_NUMERIC, F_TRUNC_NUMERIC_INT4,
	F_MOD_INT2_INT2, F_MOD_INT4_INT4, F_MOD_INT8_INT8,
	F_LENGTH_TEXT, F_LENGTH_BPCHAR, F_CHAR_LENGTH_TEXT, F_CHAR_LENGTH_BPCHAR,
	F_CHARACTER_LENGTH_TEXT, F_CHARACTER_LENGTH_BPCHAR, F_OCTET_LENGTH_TEXT,
	F_OCTET_LENGTH_BYTEA, F_LOWER_TEXT, F_UPPER_TEXT, F_LEFT, F_RIGHT,
	F_SUBSTR_TEXT_INT4, F_SUBSTR_TEXT_INT4_INT4,
	F_SUBSTRING_TEXT_INT4, F_SUBSTRING_TEXT_INT4_INT4,
	F_BTRIM_TEXT, F_LTRIM_TEXT, F_RTRIM_TEXT,
	F_STRPOS, F_POSITION_TEXT_TEXT, F_STARTS_WITH, F_LIKE_ESCAPE_TEXT_TEXT,
	F_EXTRACT_TEXT_DATE, F_EXTRACT_TEXT_TIME, F_EXTRACT_TEXT_TIMESTAMP,
	F_EXTRACT_TEXT_INTERVAL, F_DATE_PART_TEXT_TIME,
	F_DATE_PART_TEXT_TIMESTAMP, F_DATE_PART_TEXT_INTERVAL,
	F_DATE_TRUNC_TEXT_TIMESTAMP, F_DATE_TRUNC_TEXT_INTERVAL,
	F_LOWER_ANYRANGE, F_UPPER_ANYRANGE, F_ISEMPTY_ANYRANGE, F_LOWER_INC_ANYRANGE,
	F_UPPER_INC_ANYRANGE, F_LOWER_INF_ANYRANGE, F_UPPER_INF_ANYRANGE,
	F_LOWER_ANYMULTIRANGE, F_UPPER_ANYMULTIRANGE, F_ISEMPTY_ANYMULTIRANGE,
	F_CARDINALITY, F_ARRAY_LENGTH, F_FAMILY, F_MASKLEN,
	F_JSONB_TYPEOF, F_JSONB_ARRAY_LENGTH,
};

bool
ent_filter_knows_function(const char *name)
{
	for (int i = 0; i < lengthof(functions); i++)
	{
		char	   *known = get_func_name(functions[i]);
		bool		found = known != NULL && strcmp(known, name) == 0;

		if (known != NULL)
			pfree(known);
		if (found)
			return true;
	}
	return false;
}

/* What is looked for, each character compared with each, is to be constant. */
static bool
seeks_what_varies(FuncExpr *f)
{
	return (f->funcid == F_STRPOS || f->funcid == F_POSITION_TEXT_TEXT) &&
		!is_constant(lsecond(f->args));
}

/* Of a cast: the classes it goes between are looked at as any value's are. */
static bool
is_listed(FuncExpr *f)
{
	if (f->funcformat == COERCE_EXPLICIT_CAST || f->funcformat == COERCE_IMPLICIT_CAST)
		return true;
	for (int i = 0; i < lengthof(functions); i++)
		if (functions[i] == f->funcid)
			return !seeks_what_varies(f);
	return false;
}

void
ent_filter_check_function(FuncExpr *f)
{
	if (f->funcvariadic || f->funcretset || !is_plain(f->funcid) || !is_listed(f))
		ent_filter_refuse("It calls %s.", format_procedure(f->funcid));
}

/* By the text of a value. Not of what grows when it is written again and again. */
void
ent_filter_check_io(Oid from, Oid to)
{
	int			allowed = NUMBER | ENT_FILTER_BOOL | ENT_FILTER_TEXT | ENT_FILTER_UUID;
	Oid			in,
				out,
				ioparam;
	bool		varlena;

	if ((ent_filter_class(from) & allowed) && (ent_filter_class(to) & allowed))
	{
		getTypeOutputInfo(from, &out, &varlena);
		getTypeInputInfo(to, &in, &ioparam);
		if (getBaseType(to) == to && is_plain(in) && is_plain(out))
			return;
	}
	ent_filter_refuse("It casts %s to %s.", format_type_be(from), format_type_be(to));
}
