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
