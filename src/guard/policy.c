/*
 * guard/policy.c
 *	  What a peer's role may see and do here: PostgreSQL's own rights.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "guard/policy.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

bool
ent_policy_columns(EntRelation *rel, Oid role, bool *may)
{
	bool		all;

	if (!ent_compat_schema_usage(get_rel_namespace(rel->relid), role))
		return false;
	all = pg_class_aclcheck(rel->relid, role, ACL_SELECT) == ACLCHECK_OK;
	for (int i = 0; i < rel->ncolumns; i++)
	{
		EntColumn  *col = &rel->columns[i];

		may[i] = all ||
			pg_attribute_aclcheck(rel->relid, col->attnum, role,
								  ACL_SELECT) == ACLCHECK_OK;
		if (!may[i] && col->key > 0)
			return false;
	}
	return true;
}

/* ---- rows ---- */

typedef struct Look
{
	EntRelation *rel;
	Oid			role;
	const char *filter;
	const Datum *key;
	bool		visible;
} Look;

/* To be called as the role. */
static void
look(void *arg)
{
	Look	   *l = arg;

	l->visible = ent_rowquery_visible(l->rel, l->filter, l->key);
}

static void
look_as_role(void *arg)
{
	int			level = ent_value_enter();

	ent_query_as(((Look *) arg)->role, look, arg);
	ent_value_leave(level);
}

bool
ent_policy_sees_row(EntRelation *rel, Oid role, const char *filter,
					const Datum *key)
{
	Look		l = {rel, role, filter, key, false};

	return ent_policy_columns(rel, role, palloc(rel->ncolumns * sizeof(bool))) &&
		ent_query_attempt(look_as_role, &l) == NULL && l.visible;
}
