/*
 * worker/hook.c
 *	  Statements that concern the workers: they make way for those that need
 *	  a database for themselves, and hear of those that give them work.
 *
 * Place: worker; the implementation of ent_launcher_install_hook. Workers
 * stay away until the end of the transaction, however it ends, because only
 * then are the statement's locks released and its effects seen.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "worker/launcher.h"

#define WAIT_FOR_WORKERS_MS	10000	/* then the statement must see itself */
#define LOOK_AGAIN_MS		10

static ProcessUtility_hook_type previous_hook = NULL;

/* What this transaction has done; the list is in TopTransactionContext. */
static List *kept_out = NIL;	/* a database for each ent_shmem_keep_out */
static Oid	dropped = InvalidOid;
static bool databases_changed = false;

/* ---- which database does a statement need for itself? ---- */

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/* InvalidOid unless the user may alter it and is not in it. */
static Oid
altered_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && database != MyDatabaseId &&
		ent_compat_owns_database(database, GetUserId()))
		return database;
	return InvalidOid;
}

/* As CREATE DATABASE asks; the server's own function is not always exported. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return may;
}

/* InvalidOid unless the user may copy it. */
static Oid
template_database(CreatedbStmt *stmt)
{
	DefElem    *option = find_option(stmt->options, "template");
	const char *name = option && option->arg ? defGetString(option) :
		"template1";
	Oid			database = get_database_oid(name, true);
	HeapTuple	tuple;
	bool		may;

	if (!OidIsValid(database) || !may_create_databases())
		return InvalidOid;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	may = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate ||
		ent_compat_owns_database(database, GetUserId());
	ReleaseSysCache(tuple);
	return may ? database : InvalidOid;
}

/*
 * Only what the user is allowed to do stops workers, so that nobody can keep
 * them from working by statements that are refused anyway.
 */
static Oid
needed_database(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreatedbStmt:
			return template_database((CreatedbStmt *) stmt);
		case T_DropdbStmt:
			return altered_database(((DropdbStmt *) stmt)->dbname);
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				return altered_database(((RenameStmt *) stmt)->subname);
			return InvalidOid;
		case T_AlterDatabaseStmt:
			if (find_option(((AlterDatabaseStmt *) stmt)->options,
							"tablespace") != NULL)
				return altered_database(((AlterDatabaseStmt *) stmt)->dbname);
			return InvalidOid;
		default:
			return InvalidOid;
	}
}

/* ---- workers make way ---- */

/*
 * Tells workers to end that have not been told, and returns whether any is
 * still there: in its slot, or, having left it, still a backend.
 */
static bool
any_worker_left(Oid database, List **told)
{
	int		   *pids;
	int			n = ent_shmem_workers(database, &pids);
	bool		left = n > 0;
	ListCell   *cell;

	for (int i = 0; i < n; i++)
	{
		if (list_member_int(*told, pids[i]))
			continue;
		(void) kill(pids[i], SIGTERM);
		*told = lappend_int(*told, pids[i]);
	}
	pfree(pids);
	foreach(cell, *told)
		if (BackendPidGetProc(lfirst_int(cell)) != NULL)
			left = true;
	return left;
}

static void
make_way(Oid database)
{
	TimestampTz deadline;
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	List	   *told = NIL;

	kept_out = lappend_oid(kept_out, database);
	MemoryContextSwitchTo(old);
	if (!ent_shmem_keep_out(database))
	{
		kept_out = list_delete_last(kept_out);
		return;
	}

	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   WAIT_FOR_WORKERS_MS);
	while (any_worker_left(database, &told) &&
		   GetCurrentTimestamp() < deadline)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_AGAIN_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	list_free(told);
}

static void
at_transaction(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (kept_out == NIL && !databases_changed)
		return;
	if (event == XACT_EVENT_COMMIT)
		ent_shmem_database_free(dropped);
	foreach(cell, kept_out)
		ent_shmem_admit(lfirst_oid(cell));
	kept_out = NIL;
	dropped = InvalidOid;
	databases_changed = false;
	ent_shmem_wake_launcher();
}

/* ---- the hook ---- */

static bool
is_commit_prepared(Node *stmt)
{
	return IsA(stmt, TransactionStmt) &&
		((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED;
}

static bool
is_drop_extension(Node *stmt)
{
	return IsA(stmt, DropStmt) &&
		((DropStmt *) stmt)->removeType == OBJECT_EXTENSION;
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString,
				bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	NodeTag		tag = nodeTag(stmt);
	bool		commits_prepared = is_commit_prepared(stmt);
	bool		drops_extension = is_drop_extension(stmt);
	Oid			database = needed_database(stmt);

	if (OidIsValid(database))
		make_way(database);

	if (previous_hook)
		previous_hook(pstmt, queryString, readOnlyTree, context, params,
					  queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);

	/* the statement itself may be gone by now */
	if (commits_prepared)
		ent_shmem_wake_collector();
	if (drops_extension)
		ent_wake_collector_at_commit();
	if (tag == T_DropdbStmt)
		dropped = database;
	if (tag == T_CreatedbStmt || tag == T_AlterDatabaseStmt)
		databases_changed = true;
}

void
ent_launcher_install_hook(void)
{
	RegisterXactCallback(at_transaction, NULL);
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
