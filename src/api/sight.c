/*
 * api/sight.c
 *	  Whether a role may stand for a peer, and what its rights show the peer.
 *
 * Place: api. Nothing is visible by default: add_peer says what is, and names
 * the grants that are missing; the view peers says so at any time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "api/sight.h"
#include "base/compat.h"
#include "guard/role.h"
#include "store/relinfo.h"

PG_FUNCTION_INFO_V1(ent_sql_may_see);

#define MAX_NAMED	5			/* tables named in a message */

/* What a role sees of all synchronized tables. */
typedef struct Sight
{
	int			tables;
	int			hidden;			/* not at all */
	int			partly;
	StringInfoData hidden_names;
	StringInfoData partly_names;
	List	   *schemas;		/* whose USAGE is missing, of those named */
	StringInfoData selects;		/* whose SELECT is missing, likewise */
} Sight;

void
ent_sight_check(Oid role, const char *peer, bool dials, bool privileged)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	char	   *name,
			   *excess = ent_role_excess(role),
			   *reach;
	bool		can_login;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	name = pstrdup(NameStr(((Form_pg_authid) GETSTRUCT(tuple))->rolname));
	can_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	ent_compat_check_can_set_role(GetUserId(), role);
	if (excess != NULL && !privileged)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" has more rights than peer \"%s\" should have",
						name, peer),
				 errdetail("It has %s.", excess),
				 errhint("CREATE ROLE with the rights that the peer should have, and name it: role => '...'. If you mean this one: privileged => true.")));
	reach = ent_role_reach(role);
	if (reach != NULL)
		ereport(WARNING,
				(errmsg("role \"%s\" of peer \"%s\" can get at more than what it is granted",
						name, peer),
				 errdetail("It is a member of %s.", reach)));
	if (dials && !can_login)
		ereport(WARNING,
				(errmsg("role \"%s\" of peer \"%s\" cannot log in", name, peer),
				 errhint("A peer that dials this node logs in as its role: ALTER ROLE %s LOGIN.",
						 quote_identifier(name))));
}

/* ---- what it can see ---- */

static void
append(StringInfo list, const char *what)
{
	appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", what);
}

/* What the role sees of one more table. */
static void
add_table(Sight *s, EntRelation *rel, Oid role)
{
	char	   *name = quote_qualified_identifier(rel->schema, rel->name);
	EntRoleSight sight;

	if (!ent_role_sight(rel, role, &sight))
		return;
	s->tables++;
	if (!sight.usage || !sight.keys)
	{
		if (s->hidden++ >= MAX_NAMED)
			return;
		append(&s->hidden_names, name);
		if (!sight.usage)
			s->schemas = list_append_unique(s->schemas, makeString(rel->schema));
		if (!sight.keys)
			append(&s->selects, name);
	}
	else if (!sight.columns || !sight.rows)
	{
		if (s->partly++ < MAX_NAMED)
			append(&s->partly_names, name);
	}
}

static void
look(Sight *s, Oid role)
{
	ListCell   *lc;

	memset(s, 0, sizeof(*s));
	initStringInfo(&s->hidden_names);
	initStringInfo(&s->partly_names);
	initStringInfo(&s->selects);
	ent_relinfo_refresh();
	foreach(lc, ent_relinfo_all())
		add_table(s, lfirst(lc), role);
}

static void
append_rest(StringInfo list, int n)
{
	if (n > MAX_NAMED)
		appendStringInfo(list, ", and %d more", n - MAX_NAMED);
}

/* What would show the tables that were named. */
static char *
missing_grants(Sight *s, const char *role)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, s->schemas)
		appendStringInfo(&text, "GRANT USAGE ON SCHEMA %s TO %s; ",
						 quote_identifier(strVal(lfirst(lc))), role);
	if (s->selects.len > 0)
		appendStringInfo(&text, "GRANT SELECT ON %s TO %s; ",
						 s->selects.data, role);
	if (text.len > 0)
		text.data[text.len - 2] = '\0';
	return text.data;
}

static char *
named_tables(Sight *s)
{
	StringInfoData text;

	append_rest(&s->hidden_names, s->hidden);
	append_rest(&s->partly_names, s->partly);
	initStringInfo(&text);
	if (s->hidden > 0)
		appendStringInfo(&text, "It cannot see %s.", s->hidden_names.data);
	if (s->partly > 0)
		appendStringInfo(&text, "%sBy column privileges or row-level security it sees parts of %s.",
						 s->hidden > 0 ? " " : "", s->partly_names.data);
	return text.data;
}

void
ent_sight_notice(Oid role)
{
	char	   *name = GetUserNameFromId(role, false);
	Sight		s;

	look(&s, role);
	if (s.tables == 0)
		return;
	ereport(NOTICE,
			(errmsg("role \"%s\" can see %d of %d synchronized tables",
					name, s.tables - s.hidden, s.tables),
			 s.hidden + s.partly > 0 ? errdetail("%s", named_tables(&s)) : 0,
			 s.hidden > 0 ?
			 errhint("%s.", missing_grants(&s, quote_identifier(name))) : 0));
}

/* (role): as the view peers shows it */
Datum
ent_sql_may_see(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	char	   *excess = ent_role_excess(role);
	StringInfoData text;
	Sight		s;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		PG_RETURN_NULL();
	look(&s, role);
	initStringInfo(&text);
	appendStringInfo(&text, "%d of %d tables", s.tables - s.hidden, s.tables);
	if (s.partly > 0)
		appendStringInfo(&text, ", %d of them in part", s.partly);
	if (excess != NULL)
		appendStringInfo(&text, ", as %s", excess);
	PG_RETURN_TEXT_P(cstring_to_text(text.data));
}
