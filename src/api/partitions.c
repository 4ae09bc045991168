/*
 * api/partitions.c
 *	  Which partitions synchronized tables have, and what changes with them.
 *
 * The capture of rows comes to a partition by itself, but TRUNCATE of it
 * alone, and rows that come or go with it, concern no trigger of the table: an
 * event trigger compares what is with what was (entanglement.partition). Works
 * without the library being preloaded.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "api/logged.h"
#include "api/partitions.h"
#include "api/triggers.h"
#include "rule/coalesce.h"
#include "step/capture.h"
#include "store/owner.h"
#include "store/query.h"

PG_FUNCTION_INFO_V1(ent_sql_partitions_changed);

/* A row of entanglement.partition that came or went. */
typedef struct Partition
{
	Oid			relid;
	int32		rel;
} Partition;

#define PARTITIONS_NOW \
	"SELECT t.relid, r.no FROM entanglement.relation r " \
	"CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.relid) t " \
	"WHERE t.isleaf AND t.relid OPERATOR(pg_catalog.<>) r.relid"

static EntQuery gone_query = {
	"DELETE FROM entanglement.partition p WHERE NOT EXISTS (" PARTITIONS_NOW
	" AND t.relid OPERATOR(pg_catalog.=) p.relid "
	"AND r.no OPERATOR(pg_catalog.=) p.rel) "
	"RETURNING p.relid::pg_catalog.oid, p.rel",
	0, {0}, NULL
};
static EntQuery new_query = {
	"INSERT INTO entanglement.partition (relid, rel) " PARTITIONS_NOW
	" ON CONFLICT DO NOTHING RETURNING relid::pg_catalog.oid, rel",
	0, {0}, NULL
};
static EntQuery dropped_query = {
	"DELETE FROM entanglement.partition p WHERE NOT EXISTS (SELECT FROM "
	"pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) p.relid) "
	"RETURNING p.relid::pg_catalog.oid, p.rel",
	0, {0}, NULL
};
static EntQuery forget_query = {
	"DELETE FROM entanglement.partition WHERE rel OPERATOR(pg_catalog.=) $1 "
	"RETURNING relid::pg_catalog.oid, rel",
	1, {INT4OID}, NULL
};

static EntQuery unlogged_query = {
	"SELECT c.relname::pg_catalog.text FROM (SELECT relid FROM entanglement.relation "
	"UNION ALL SELECT relid FROM entanglement.partition) x "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.relid "
	"WHERE c.relpersistence OPERATOR(pg_catalog.=) 'u'::pg_catalog.\"char\" LIMIT 1",
	0, {0}, NULL
};

/* Runs it; what it returned, copied. */
static Partition *
run(EntQuery *query, int expected, Datum *args, uint64 *n)
{
	Partition  *result;

	ent_query_run(query, args, NULL, expected, NULL);
	*n = SPI_processed;
	result = palloc(Max(*n, 1) * sizeof(Partition));
	for (uint64 i = 0; i < *n; i++)
	{
		bool		null;

		result[i].relid = DatumGetObjectId(ent_query_datum(i, 1, &null));
		result[i].rel = ent_query_int4(i, 2, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

void
ent_partitions_settle(bool capture)
{
	uint64		n;
	Partition  *p = run(&gone_query, SPI_OK_DELETE_RETURNING, NULL, &n);

	for (uint64 i = 0; i < n; i++)
	{
		if (get_rel_name(p[i].relid) == NULL)
			continue;			/* dropped: that has been seen to */
		ent_triggers_drop_on_partition(p[i].relid);
		ent_capture_rows(p[i].relid, p[i].rel, ENT_CHANGE_DELETE, 0);
	}
	p = run(&new_query, SPI_OK_INSERT_RETURNING, NULL, &n);
	for (uint64 i = 0; i < n; i++)
	{
		ent_triggers_create_on_partition(p[i].relid);
		if (capture)
			ent_capture_rows(p[i].relid, p[i].rel, ENT_CHANGE_INSERT,
							 ent_owner_current());
	}
}

void
ent_partitions_forget(int32 rel)
{
	Datum		args[1] = {Int32GetDatum(rel)};
	uint64		n;
	Partition  *p = run(&forget_query, SPI_OK_DELETE_RETURNING, args, &n);

	for (uint64 i = 0; i < n; i++)
		if (get_rel_name(p[i].relid) != NULL)
			ent_triggers_drop_on_partition(p[i].relid);
}

/* What was in a partition that was dropped is known to the fold alone. */
static void
settle_dropped(void)
{
	uint64		n;
	Partition  *p = run(&dropped_query, SPI_OK_DELETE_RETURNING, NULL, &n);
	int32		last = 0;

	for (uint64 i = 0; i < n; i++)
	{
		if (p[i].rel != last)
			ent_capture_vanished(p[i].rel);
		last = p[i].rel;
	}
}

/* A crash empties unlogged tables, and nobody would hear of it. */
static void
refuse_unlogged(void)
{
	ent_query_run(&unlogged_query, NULL, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("table \"%s\" is synchronized and cannot be unlogged",
						ent_query_text(0, 1)),
				 errdetail("Its rows would not survive a crash."),
				 errhint("End its synchronization first, with entanglement.desynchronize.")));
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Can partitions come or go, or become unlogged, or replica identities change
 * with that statement?
 */
static bool
moves_partitions(Node *stmt)
{
	ListCell   *lc;

	if (IsA(stmt, CreateStmt))
		return ((CreateStmt *) stmt)->partbound != NULL;
	if (!IsA(stmt, AlterTableStmt))
		return true;
	foreach(lc, ((AlterTableStmt *) stmt)->cmds)
	{
		AlterTableType type = lfirst_node(AlterTableCmd, lc)->subtype;

		if (type == AT_AttachPartition || type == AT_DetachPartition ||
			type == AT_DetachPartitionFinalize || type == AT_SetUnLogged ||
			type == AT_ReplicaIdentity)
			return true;
	}
	return false;
}

Datum
ent_sql_partitions_changed(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = (EventTriggerData *) fcinfo->context;
	bool		dropped;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.partitions_changed() must be called by an event trigger")));
	dropped = strcmp(data->event, "sql_drop") == 0;
	if (!ent_query_installed() ||
		(!dropped && !moves_partitions(data->parsetree)))
		PG_RETURN_NULL();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (dropped)
		settle_dropped();
	else
	{
		ent_partitions_settle(true);
		refuse_unlogged();
	}
	ent_logged_check_all();
	SPI_finish();
	PG_RETURN_NULL();
}
