/*
 * store/rowjson.c
 *	  Rows and keys as jsonb, for users' functions.
 *
 * Each value goes through to_jsonb(), which must be told the type of what it
 * is given as if it were called from an expression.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "store/rowjson.h"

static Jsonb *
to_jsonb_of(EntColumn *col, Datum value)
{
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo	fn;
	Const	   *arg = makeNullConst(col->type, col->typmod, col->collation);

	fmgr_info(F_TO_JSONB, &fn);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(arg),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL), &fn);
	InitFunctionCallInfoData(*fcinfo, &fn, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = value;
	fcinfo->args[0].isnull = false;
	return DatumGetJsonbP(FunctionCallInvoke(fcinfo));
}

static void
push(JsonbParseState **state, EntColumn *col, Datum value, bool isnull)
{
	JsonbValue	v = {.type = jbvString};

	v.val.string.val = col->name;
	v.val.string.len = strlen(col->name);
	(void) pushJsonbValue(state, WJB_KEY, &v);
	if (isnull)
		v.type = jbvNull;
	else
	{
		Jsonb	   *json = to_jsonb_of(col, value);

		v.type = jbvBinary;
		v.val.binary.len = VARSIZE(json) - VARHDRSZ;
		v.val.binary.data = &json->root;
	}
	(void) pushJsonbValue(state, WJB_VALUE, &v);
}

Datum
ent_rowjson(EntRelation *rel, const bool *which, const Datum *values,
			const bool *nulls)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < rel->ncolumns; i++)
		if (which[i])
			push(&state, &rel->columns[i], values[i], nulls[i]);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

Datum
ent_rowjson_key(EntRelation *rel, const Datum *key)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < rel->nkeys; i++)
		push(&state, &rel->columns[rel->keys[i]], key[i], false);
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
