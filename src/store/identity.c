/*
 * store/identity.c
 *	  entanglement.identity: which node this database is, and whether it is.
 *
 * Read where a process or a session begins, never per row.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/wake.h"
#include "store/identity.h"
#include "store/query.h"

#define IDENTITY_COLUMNS \
	"id, name, default_owner, used, place OPERATOR(pg_catalog.=) $1, " \
	"place, encoding::pg_catalog.text, timeline "

static EntQuery get_query = {
	"SELECT " IDENTITY_COLUMNS "FROM entanglement.identity", 1, {TEXTOID}, NULL
};
static EntQuery lock_query = {
	"SELECT " IDENTITY_COLUMNS "FROM entanglement.identity FOR UPDATE",
	1, {TEXTOID}, NULL
};
static EntQuery new_ids_query = {
	"WITH node AS (SELECT pg_catalog.gen_random_uuid() AS id), "
	"own AS (UPDATE entanglement.owner o SET id = pg_catalog.gen_random_uuid(), home = node.id "
	"FROM node WHERE o.local) "
	"UPDATE entanglement.identity SET id = node.id, place = $1, timeline = 0 FROM node",
	1, {TEXTOID}, NULL
};
static EntQuery timeline_query = {
	"UPDATE entanglement.identity SET timeline = $1", 1, {INT4OID}, NULL
};
static EntQuery use_query = {
	"UPDATE entanglement.identity SET used = true", 0, {0}, NULL
};

char *
ent_identity_place(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

/* pg_upgrade keeps the database's OID and changes the cluster. */
static bool
same_database(const char *place, const char *here)
{
	const char *oid = strrchr(place, '/');

	return oid != NULL && strcmp(oid, strrchr(here, '/')) == 0 &&
		strcmp(place, here) != 0;
}

int32
ent_identity_timeline_now(void)
{
	return RecoveryInProgress() ? 0 : (int32) GetWALInsertionTimeLine();
}

static EntIdentity *
read_identity(EntQuery *query)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *here = ent_identity_place();
	Datum		args[1] = {CStringGetTextDatum(here)};
	EntIdentity *id;
	char	   *place;
	bool		null;

	ent_query_run(query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no node identity"),
				 errdetail("Table entanglement.identity has %llu rows, not 1.",
						   (unsigned long long) SPI_processed)));
	id = MemoryContextAllocZero(context, sizeof(EntIdentity));
	id->id = *DatumGetUUIDP(ent_query_datum(0, 1, &null));
	id->name = MemoryContextStrdup(context, ent_query_text(0, 2));
	id->default_owner = ent_query_int4(0, 3, NULL);
	id->used = ent_query_bool(0, 4);
	id->here = ent_query_bool(0, 5);
	place = ent_query_text(0, 6);
	id->loaded = place[0] == '\0';
	id->upgraded = same_database(place, here);
	id->encoding = MemoryContextStrdup(context, ent_query_text(0, 7));
	id->timeline = ent_query_int4(0, 8, NULL);
	SPI_freetuptable(SPI_tuptable);
	return id;
}

EntIdentity *
ent_identity_get(void)
{
	return read_identity(&get_query);
}

EntIdentity *
ent_identity_lock(void)
{
	return read_identity(&lock_query);
}

/* In the current context, without SPI of the caller. */
static EntIdentity *
look(void)
{
	MemoryContext context = CurrentMemoryContext;
	EntIdentity *id;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
	id = ent_identity_get();
	SPI_finish();
	MemoryContextSwitchTo(context);
	return id;
}

bool
ent_identity_ready(void)
{
	EntIdentity *id = look();

	return id->used && id->here;
}

void
ent_identity_refuse_undecided(void)
{
	EntIdentity *id = look();

	if (ent_identity_undecided(id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy of node \"%s\" and has not been told what it is",
						id->name),
				 errdetail("It was restored from a dump, or copied from another database or cluster, and the original may still be there."),
				 errhint("On the node that reports this: SELECT entanglement.become('replacement') if the original is no more, or entanglement.become('new') if it goes on.")));
}

void
ent_identity_refuse_branched(void)
{
	EntIdentity *id = look();

	if (id->timeline != 0 && id->timeline != ent_identity_timeline_now())
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("node \"%s\" has been promoted just now, or is a standby",
						id->name),
				 errdetail("Its collector has to start new epochs of its owners before anything is exchanged.")));
}

void
ent_identity_note_timeline(void)
{
	Datum		args[1] = {Int32GetDatum(ent_identity_timeline_now())};

	ent_query_run(&timeline_query, args, NULL, SPI_OK_UPDATE, NULL);
}

void
ent_identity_use(void)
{
	Datum		args[1] = {CStringGetTextDatum(ent_identity_place())};
	EntIdentity *id = ent_identity_get();

	if (id->used)
		return;
	id = ent_identity_lock();
	if (id->used)
		return;
	if (!id->here)
		ent_query_run(&new_ids_query, args, NULL, SPI_OK_UPDATE, NULL);
	ent_query_run(&use_query, NULL, NULL, SPI_OK_UPDATE, NULL);
	ent_wake_routes_at_commit();
}
