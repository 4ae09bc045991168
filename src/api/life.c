/*
 * api/life.c
 *	  SQL functions on the life of owners: drop_owner, adopt.
 *
 * Dropping an owner at its home is an ordinary deletion of its rows, as by the
 * caller, with constraints and triggers; what follows from it elsewhere is
 * told once, by owner (store/life.h).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/shmem.h"
#include "store/identity.h"
#include "store/life.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_drop_owner);
PG_FUNCTION_INFO_V1(ent_sql_adopt);

#define RECHECK_MS	1000
#define PATIENCE_MS	30000		/* for the fold, which may wait for somebody who
								 * waits for us */

static EntQuery named_query = {
	"SELECT no FROM entanglement.owner WHERE gone_as IS NULL AND (name OPERATOR(pg_catalog.=) $1 "
	"OR id::pg_catalog.text OPERATOR(pg_catalog.=) $1) AND local OPERATOR(pg_catalog.=) $2 LIMIT 2",
	2, {TEXTOID, BOOLOID}, NULL
};
static EntQuery lock_query = {
	"SELECT 1 FROM entanglement.owner WHERE no OPERATOR(pg_catalog.=) $1 "
	"AND local OPERATOR(pg_catalog.=) $2 AND gone_as IS NULL FOR UPDATE",
	2, {INT4OID, BOOLOID}, NULL
};
static EntQuery unfolded_query = {
	"SELECT 1 FROM entanglement.change LIMIT 1", 0, {0}, NULL
};
/* inherited knows the latest giver, tombstones the earlier ones. */
static EntQuery under_way_query = {
	"SELECT pg_catalog.count(*), pg_catalog.min(w.name) FROM entanglement.object o "
	"JOIN entanglement.owner w ON w.no OPERATOR(pg_catalog.=) o.owner "
	"JOIN (SELECT rel, key FROM entanglement.inherited "
	"WHERE from_owner OPERATOR(pg_catalog.=) $1 "
	"UNION SELECT rel, key FROM entanglement.tombstone "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND heir IS NOT NULL) h "
	"ON h.rel OPERATOR(pg_catalog.=) o.rel AND h.key OPERATOR(pg_catalog.=) o.key "
	"WHERE o.born OPERATOR(pg_catalog.=) 0",
	1, {INT4OID}, NULL
};
static EntQuery objects_query = {
	"SELECT rel, key FROM entanglement.object WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};

static char *
name_argument(FunctionCallInfo fcinfo, const char *what)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", what)));
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

/* Number of the only owner of that name or id on that side; 0: none. */
static int32
find_owner(const char *name, bool local)
{
	Datum		args[2] = {CStringGetTextDatum(name), BoolGetDatum(local)};
	int32		no = 0;

	ent_query_run(&named_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_ALIAS),
				 errmsg("more than one owner is named \"%s\"", name),
				 errhint("Give the id of one of them: SELECT id, name, peer FROM entanglement.owners.")));
	if (SPI_processed == 1)
		no = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return no;
}

static void
complain_unknown(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no owner is named \"%s\"", name),
			 errhint("Owners are shown by the view entanglement.owners.")));
}

/* Keeps it as it is until commit. */
static EntOwner *
lock_owner(int32 no, bool local, const char *name)
{
	Datum		args[2] = {Int32GetDatum(no), BoolGetDatum(local)};
	bool		found;

	ent_query_run(&lock_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("owner \"%s\" was changed by another session at the same time",
						name)));
	return ent_owner_get(no);
}

/* ---- drop_owner ---- */

static int32
find_to_drop(const char *name)
{
	int32		no = find_owner(name, true);

	if (no != 0)
		name = ent_owner_get(no)->name;
	if (no != 0 && no == ent_identity_get()->default_owner)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("owner \"%s\" is this node's default owner", name),
				 errdetail("New rows belong to it unless entanglement.owner names another one."),
				 errhint("Delete its rows.")));
	if (no != 0)
		return no;
	if (find_owner(name, false) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner \"%s\" is not at home here", name),
				 errhint("Only its home can drop it. If that is lost for good: entanglement.adopt.")));
	complain_unknown(name);
	return 0;
}

static void
check_circumstances(void)
{
	ent_shmem_require("entanglement.drop_owner()");
	ent_identity_refuse_undecided();
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("entanglement.drop_owner needs the isolation level read committed"),
				 errdetail("It has to see what others have committed by the time they let it.")));
	if (ent_rowquery_applying)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("entanglement.drop_owner cannot be called while rows of a peer are stored")));
}

/*
 * From now on nobody writes rows or hands them over; what was done is
 * committed. All tables, since rows of the owner may be under way to any.
 */
static void
lock_tables(void)
{
	ListCell   *lc;

	foreach(lc, ent_relinfo_all())
	{
		EntRelation *rel = lfirst(lc);

		LockRelationOid(rel->relid, ExclusiveLock);
		if (rel->partitioned)
			(void) find_all_inheritors(rel->relid, ExclusiveLock, NULL);
	}
	ent_relinfo_refresh();
}

/* ... and is known to be the owner's. */
static void
wait_for_fold(void)
{
	EntDatabaseSlot *database = ent_shmem_database(true);
	uint64		ticket = ent_shmem_fold_ticket();
	TimestampTz since = GetCurrentTimestamp();

	ConditionVariablePrepareToSleep(&ent_shared->progress);
	while (database != NULL &&
		   pg_atomic_read_u64(&database->fold_done) < ticket)
	{
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), PATIENCE_MS))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("the changes of synchronized tables were not folded in time"),
					 errdetail("entanglement.drop_owner waits %d seconds for the collector.",
							   PATIENCE_MS / 1000),
					 errhint("Try again. The server's log may tell what the collector waits for.")));
		(void) ConditionVariableTimedSleep(&ent_shared->progress, RECHECK_MS,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
check_all_folded(void)
{
	ent_query_run(&unfolded_query, NULL, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("entanglement.drop_owner cannot follow changes of synchronized tables in one transaction"),
				 errhint("COMMIT first.")));
	SPI_freetuptable(SPI_tuptable);
}

/*
 * What the owner has handed over travels as his last word, which would end with
 * him: the heirs' own words must have come instead.
 */
static void
check_nothing_under_way(const EntOwner *o)
{
	Datum		args[1] = {Int32GetDatum(o->no)};
	bool		null;
	int64		n;

	ent_query_run(&under_way_query, args, NULL, SPI_OK_SELECT, NULL);
	n = ent_query_int8(0, 1, &null);
	if (n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows that owner \"%s\" has handed over have not arrived yet",
						o->name),
				 errdetail_plural("%lld row, for owner \"%s\".",
								  "%lld rows, for owner \"%s\" or others.",
								  n, (long long) n, ent_query_text(0, 2)),
				 errhint("Try again when the new owner's home has been reached.")));
	SPI_freetuptable(SPI_tuptable);
}

static void
delete_row(EntOwner *o, EntRelation *rel, bytea *key)
{
	Datum		values[ENT_WIRE_MAX_KEYS];

	ent_key_values(rel, (uint8 *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), values);
	if (ent_rowquery_delete_together(rel, values) > 0 ||
		!ent_rowquery_exists(rel, values, NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("a row of owner \"%s\" in table \"%s\" was left as it is",
					o->name, rel->name),
			 errdetail("Key %s.", ent_key_text(rel, (uint8 *) VARDATA_ANY(key),
											   VARSIZE_ANY_EXHDR(key))),
			 errhint("A row-level security policy or a trigger kept it.")));
}

static void
delete_rows(EntOwner *o)
{
	Datum		args[1] = {Int32GetDatum(o->no)};
	SPITupleTable *rows;
	uint64		n;
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "entanglement row",
											  ALLOCSET_DEFAULT_SIZES);

	ent_query_run(&objects_query, args, NULL, SPI_OK_SELECT, NULL);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(row);
		bool		null;
		int32		no = DatumGetInt32(SPI_getbinval(rows->vals[i], rows->tupdesc,
													 1, &null));
		bytea	   *key = DatumGetByteaPP(SPI_getbinval(rows->vals[i], rows->tupdesc,
														2, &null));
		EntRelation *rel = ent_relinfo_get(no);

		CHECK_FOR_INTERRUPTS();
		if (rel != NULL)
			delete_row(o, rel, key);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
	}
	MemoryContextDelete(row);
	SPI_freetuptable(rows);
}

/*
 * All that goes counts as deleted by one statement: what AFTER triggers do is
 * done at its end, foreign keys among them, whatever the order of the rows.
 */
static void
delete_together(EntOwner *o)
{
	EState	   *estate = CreateExecutorState();

	AfterTriggerBeginQuery();
	delete_rows(o);
	AfterTriggerEndQuery(estate);
	ExecCloseResultRelations(estate);
	FreeExecutorState(estate);
}

Datum
ent_sql_drop_owner(PG_FUNCTION_ARGS)
{
	char	   *name = name_argument(fcinfo, "name");
	EntOwner   *o;
	int32		no;

	check_circumstances();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	no = find_to_drop(name);
	lock_tables();
	wait_for_fold();
	check_all_folded();
	o = lock_owner(no, true, name);
	check_nothing_under_way(o);
	delete_together(o);
	ent_life_end_local(o);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- adopt ---- */

static char *
uuid_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

static int32
find_to_adopt(const char *name)
{
	int32		no = find_owner(name, false);

	if (no == 0 && find_owner(name, true) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("owner \"%s\" is at home here already", name)));
	if (no == 0)
		complain_unknown(name);
	return no;
}

/* A home with which there is a link is not lost. */
static void
check_lost(const EntOwner *o)
{
	ListCell   *lc;

	foreach(lc, ent_peer_all())
	{
		EntPeer    *p = lfirst(lc);
		EntPeerSlot *slot = ent_shmem_peer(p->no, false);

		if (p->has_node && slot != NULL && slot->state == ENT_LINK_CONNECTED &&
			memcmp(&p->node, &o->home, sizeof(pg_uuid_t)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the home of owner \"%s\" is not lost", o->name),
					 errdetail("It is peer \"%s\", and connected.", p->name)));
	}
}

static void
check_adoptable(const EntOwner *o, const pg_uuid_t *from)
{
	if (memcmp(&o->home, from, sizeof(pg_uuid_t)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("owner \"%s\" is not at home at node %s", o->name,
						uuid_text(from)),
				 errdetail("Its home is node %s.", uuid_text(&o->home))));
	check_lost(o);
	if (find_owner(o->name, true) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("local owner \"%s\" already exists", o->name),
				 errdetail("Names of local owners are unique.")));
}

Datum
ent_sql_adopt(PG_FUNCTION_ARGS)
{
	char	   *name = name_argument(fcinfo, "owner");
	EntOwner   *o;
	int64		lost;
	int32		epoch,
				no;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("from_node must not be NULL")));
	ent_identity_refuse_undecided();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	no = find_to_adopt(name);
	o = lock_owner(no, false, name);
	check_adoptable(o, PG_GETARG_UUID_P(1));
	epoch = ent_life_adopt(o, &lost);
	ereport(LOG,
			(errmsg("owner \"%s\" is at home here from now on, in epoch %d", o->name,
					epoch),
			 errdetail("Its home was node %s.", uuid_text(&o->home))));
	if (lost > 0)
		ereport(WARNING,
				(errmsg_plural("%lld object of owner \"%s\" could not be stored here and is lost",
							   "%lld objects of owner \"%s\" could not be stored here and are lost",
							   (long) lost, (long long) lost, o->name)));
	SPI_finish();
	PG_RETURN_VOID();
}
