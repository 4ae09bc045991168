/*
 * api/hooks.c
 *	  add_hook and remove_hook.
 *
 * A hook runs as its function's owner, so nobody makes another one's function
 * run as that one who could not anyway: he is a member of the owner, or the
 * function is SECURITY DEFINER. Nobody takes away what another one has added.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/ent.h"
#include "base/wake.h"
#include "guard/show.h"
#include "store/hook.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"

PG_FUNCTION_INFO_V1(ent_sql_add_hook);
PG_FUNCTION_INFO_V1(ent_sql_remove_hook);

static EntQuery add_query = {
	"INSERT INTO entanglement.hook (kind, function, relid, peer, ordinal, added_by) "
	"VALUES ($1, $2, $3, $4, $5, $6) RETURNING no",
	6, {TEXTOID, TEXTOID, OIDOID, INT4OID, INT4OID, OIDOID}, NULL
};
static EntQuery find_query = {
	"SELECT added_by::pg_catalog.oid FROM entanglement.hook "
	"WHERE no OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	1, {INT4OID}, NULL
};
static EntQuery remove_query = {
	"DELETE FROM entanglement.hook WHERE no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};

static void
refuse_null(FunctionCallInfo fcinfo, int i, const char *argument)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", argument)));
}

static EntHookKind
check_kind(const char *name)
{
	for (int i = 0; i < ENT_HOOK_KINDS; i++)
		if (strcmp(ent_hook_types[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no kind of hook \"%s\"", name),
			 errhint("Use \"should_send\", \"should_listen\" or \"should_listen_constructed\".")));
}

/* May the caller have it run as its owner? */
static void
check_rights(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function with OID %u does not exist", function)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!ent_compat_may_execute(function, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, NameStr(form->proname));
	if (!form->prosecdef && !has_privs_of_role(GetUserId(), form->proowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function \"%s\" cannot be made a hook by role \"%s\"",
						NameStr(form->proname), GetUserNameFromId(GetUserId(), false)),
				 errdetail("A hook runs as its function's owner, role \"%s\".",
						   GetUserNameFromId(form->proowner, false)),
				 errhint("Use a function of your own, or one that is SECURITY DEFINER.")));
	ReleaseSysCache(tuple);
}

static void
check_function(EntHookKind kind, Oid function)
{
	bool		arguments;
	const char *fault = ent_hook_fault(kind, function, &arguments);

	if (fault == NULL)
		return;
	ereport(ERROR,
			(errcode(arguments ? ERRCODE_UNDEFINED_FUNCTION :
					 ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("function %s cannot be a hook \"%s\"",
					format_procedure(function), ent_hook_types[kind].name),
			 errdetail("%s", fault),
			 errhint("It must be a function %s RETURNS boolean.",
					 ent_hook_types[kind].signature)));
}

/* A table whose rows can be objects, whether they are already or not. */
static void
check_relation(Oid relid)
{
	char		kind = get_rel_relkind(relid);
	const char *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	if ((kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE) ||
		get_rel_namespace(relid) == get_namespace_oid(ENT_SCHEMA, true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot have hooks", name),
				 errhint("Name a table that is, or will be, synchronized.")));
	if (get_rel_relispartition(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot have hooks", name),
				 errdetail("It is a partition."),
				 errhint("Name the partitioned table that it belongs to.")));
}

static int32
peer_number(text *name)
{
	EntPeer    *peer = ent_peer_lock(text_to_cstring(name));

	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", text_to_cstring(name))));
	return peer->no;
}

/*
 * As with a policy: whoever writes a row from now on waits until every session has
 * heard of the hook, so that no link can send that row without asking it.
 */
static void
keep_writers_away(Oid relid)
{
	ListCell   *lc;

	if (OidIsValid(relid))
		LockRelationOid(relid, ShareRowExclusiveLock);
	else
		foreach(lc, ent_relinfo_all())
			LockRelationOid(((EntRelation *) lfirst(lc))->relid,
							ShareRowExclusiveLock);
}

/* Links look anew, and ask again for what was refused. */
static void
changed(void)
{
	ent_hook_invalidate();
	ent_wake_routes_at_commit();
}

/* (kind, function, relation, peer, ordinal) */
Datum
ent_sql_add_hook(PG_FUNCTION_ARGS)
{
	EntHookKind kind;
	Datum		args[6];
	char		nulls[] = "      ";
	int32		no;

	refuse_null(fcinfo, 0, "kind");
	refuse_null(fcinfo, 1, "function");
	refuse_null(fcinfo, 4, "ordinal");
	kind = check_kind(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	check_rights(PG_GETARG_OID(1));
	check_function(kind, PG_GETARG_OID(1));
	if (!PG_ARGISNULL(2))
		check_relation(PG_GETARG_OID(2));
	for (int i = 0; i < 5; i++)
	{
		args[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	args[1] = CStringGetTextDatum(format_procedure_qualified(PG_GETARG_OID(1)));
	args[5] = ObjectIdGetDatum(GetUserId());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (!PG_ARGISNULL(3))
		args[3] = Int32GetDatum(peer_number(PG_GETARG_TEXT_PP(3)));
	if (kind == ENT_HOOK_SEND)
		keep_writers_away(PG_ARGISNULL(2) ? InvalidOid : PG_GETARG_OID(2));
	ent_query_run(&add_query, args, nulls, SPI_OK_INSERT_RETURNING, NULL);
	no = ent_query_int4(0, 1, NULL);
	changed();
	if (kind == ENT_HOOK_SEND)
	{
		/* which rows peers may have been told of is known before others come */
		CommandCounterIncrement();
		ent_show_settle();
	}
	SPI_finish();
	PG_RETURN_INT32(no);
}

Datum
ent_sql_remove_hook(PG_FUNCTION_ARGS)
{
	Datum		args[1];
	Oid			added_by;
	bool		null;

	refuse_null(fcinfo, 0, "hook");
	args[0] = PG_GETARG_DATUM(0);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_query_run(&find_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("hook %d does not exist", DatumGetInt32(args[0])),
				 errhint("There are: SELECT * FROM entanglement.hooks.")));
	added_by = DatumGetObjectId(ent_query_datum(0, 1, &null));
	if (!superuser() && !has_privs_of_role(GetUserId(), added_by))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("hook %d was added by another role", DatumGetInt32(args[0]))));
	ent_query_run(&remove_query, args, NULL, SPI_OK_DELETE, NULL);
	changed();
	SPI_finish();
	PG_RETURN_VOID();
}
