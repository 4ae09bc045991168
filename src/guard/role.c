/*
 * guard/role.c
 *	  What a role is that stands for a peer, and which tables it can see.
 *
 * A peer may do what its role may, so the role should have no more than the
 * grants that somebody gave it: none of the attributes that are above them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "guard/role.h"
#include "store/query.h"

static EntQuery reach_query = {
	"SELECT pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' ORDER BY r.rolname) "
	"FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.<>) $1 "
	"AND (r.rolsuper OR r.rolreplication OR r.rolbypassrls OR r.rolname OPERATOR(pg_catalog.=) "
	"ANY (ARRAY['pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', "
	"'pg_write_server_files', 'pg_execute_server_program']::pg_catalog.name[])) "
	"AND pg_catalog.pg_has_role($1, r.oid, 'MEMBER')",
	1, {OIDOID}, NULL
};

static void
append(StringInfo list, const char *what)
{
	appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", what);
}

char *
ent_role_excess(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	Form_pg_authid form;
	StringInfoData list;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_authid) GETSTRUCT(tuple);
	initStringInfo(&list);
	if (form->rolsuper)
		append(&list, "SUPERUSER");
	if (form->rolreplication)
		append(&list, "REPLICATION");
	if (form->rolbypassrls)
		append(&list, "BYPASSRLS");
	ReleaseSysCache(tuple);
	return list.len > 0 ? list.data : NULL;
}

char *
ent_role_reach(Oid role)
{
	Datum		args[1] = {ObjectIdGetDatum(role)};
	char	   *list;

	if (superuser_arg(role))
		return NULL;			/* it need not become anybody */
	ent_query_run(&reach_query, args, NULL, SPI_OK_SELECT, NULL);
	list = ent_query_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return list;
}

void
ent_role_log_excess(Oid role, const char *peer)
{
	char	   *excess = ent_role_excess(role);

	if (excess != NULL)
		ereport(LOG,
				(errmsg("role \"%s\" of peer \"%s\" has more rights than a peer should have",
						GetUserNameFromId(role, true), peer),
				 errdetail("It has %s.", excess),
				 errhint("ALTER ROLE, or make another role and name it: entanglement.alter_peer(name, role => '...').")));
}

bool
ent_role_sight(EntRelation *rel, Oid role, EntRoleSight *sight)
{
	Oid			schema = get_rel_namespace(rel->relid);
	bool		all;

	if (!OidIsValid(schema))
		return false;
	sight->usage = ent_compat_schema_usage(schema, role);
	all = pg_class_aclcheck(rel->relid, role, ACL_SELECT) == ACLCHECK_OK;
	sight->keys = sight->columns = true;
	for (int i = 0; !all && i < rel->ncolumns; i++)
	{
		EntColumn  *col = &rel->columns[i];

		if (pg_attribute_aclcheck(rel->relid, col->attnum, role,
								  ACL_SELECT) == ACLCHECK_OK)
			continue;
		sight->columns = false;
		sight->keys &= col->key == 0;
	}
	sight->rows = check_enable_rls(rel->relid, role, true) != RLS_ENABLED;
	return true;
}
