/*
 * api/logged.c
 *	  Tables that are captured from the log: in, out, and compared.
 *
 * entanglement.relation.capture says how a table is to be captured, wal whether
 * the collector reads it from the log. The triggers follow: full until it does,
 * full again before it stops.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "api/logged.h"
#include "api/triggers.h"
#include "base/compat.h"
#include "base/wake.h"
#include "rule/coalesce.h"
#include "step/capture.h"
#include "step/decode.h"
#include "store/changelog.h"
#include "store/position.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_set_capture);

static EntQuery set_query = {
	"UPDATE entanglement.relation SET capture = $2 "
	"WHERE no OPERATOR(pg_catalog.=) $1 AND capture OPERATOR(pg_catalog.<>) $2",
	2, {INT4OID, TEXTOID}, NULL
};
static EntQuery waiting_query = {
	"SELECT no FROM entanglement.relation WHERE NOT wal AND capture OPERATOR(pg_catalog.=) 'wal'",
	0, {0}, NULL
};
static EntQuery running_query = {
	"SELECT no FROM entanglement.relation WHERE wal",
	0, {0}, NULL
};
static EntQuery start_query = {
	"UPDATE entanglement.relation SET wal = true, digested = 0 WHERE no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery undigested_query = {
	"UPDATE entanglement.relation SET digested = 0 WHERE no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery partitions_query = {
	"SELECT relid FROM entanglement.partition WHERE rel OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
/* Those with rows whose identity lacks a column of the key. */
static EntQuery silent_query = {
	"SELECT c.relname::pg_catalog.text FROM entanglement.relation r "
	"JOIN pg_catalog.pg_class root ON root.oid OPERATOR(pg_catalog.=) r.relid "
	"JOIN pg_catalog.pg_class k ON k.relname OPERATOR(pg_catalog.=) r.key_index "
	"AND k.relnamespace OPERATOR(pg_catalog.=) root.relnamespace "
	"JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) k.oid "
	"JOIN pg_catalog.pg_index ki ON ki.indexrelid OPERATOR(pg_catalog.=) k.oid "
	"AND a.attnum OPERATOR(pg_catalog.<=) ki.indnkeyatts "
	"JOIN pg_catalog.pg_attribute ra ON ra.attrelid OPERATOR(pg_catalog.=) root.oid "
	"AND ra.attnum OPERATOR(pg_catalog.=) ki.indkey[a.attnum OPERATOR(pg_catalog.-) 1::int2] "
	"CROSS JOIN LATERAL (SELECT r.relid::pg_catalog.oid AS relid UNION ALL "
	"SELECT p.relid::pg_catalog.oid FROM entanglement.partition p WHERE p.rel OPERATOR(pg_catalog.=) r.no) x "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.relid "
	"WHERE (r.wal OR r.capture OPERATOR(pg_catalog.=) 'wal') "
	"AND c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relreplident OPERATOR(pg_catalog.<>) 'f' "
	"AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i "
	"JOIN pg_catalog.pg_attribute ia ON ia.attrelid OPERATOR(pg_catalog.=) c.oid "
	"AND ia.attname OPERATOR(pg_catalog.=) ra.attname "
	"AND ia.attnum OPERATOR(pg_catalog.=) ANY "
	"((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts OPERATOR(pg_catalog.-) 1]) "
	"WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid "
	"AND CASE WHEN c.relreplident OPERATOR(pg_catalog.=) 'd' THEN i.indisprimary "
	"ELSE c.relreplident OPERATOR(pg_catalog.=) 'i' AND i.indisreplident END) LIMIT 1",
	0, {0}, NULL
};
static EntQuery objects_query = {
	"SELECT o.key FROM entanglement.object o JOIN entanglement.owner w "
	"ON w.no OPERATOR(pg_catalog.=) o.owner AND w.local "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};

/* Are the key's columns in what the log tells of a row that goes? */
static bool
identity_tells(Relation rel, Relation root, Oid key_index)
{
	Relation	index;
	Bitmapset  *told;
	bool		result = true;

	if (rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return true;
	told = RelationGetIdentityKeyBitmap(rel);
	index = index_open(key_index, AccessShareLock);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
	{
		int			attnum = index->rd_index->indkey.values[i];
		char	   *name = NameStr(TupleDescAttr(RelationGetDescr(root), attnum - 1)->attname);

		if (!bms_is_member(get_attnum(RelationGetRelid(rel), name) -
						   FirstLowInvalidHeapAttributeNumber, told))
			result = false;
	}
	index_close(index, AccessShareLock);
	return result;
}

static void
refuse_silent(int code, const char *table)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("table \"%s\" cannot be captured from the log", table),
			 errdetail("Its replica identity does not tell the columns of its key."),
			 errhint("ALTER TABLE ... REPLICA IDENTITY FULL, or USING INDEX with the index of the key, or use capture \"trigger\".")));
}

void
ent_logged_check(Relation root, Oid key_index)
{
	ListCell   *lc;

	ent_decode_check_server();
	foreach(lc, find_all_inheritors(RelationGetRelid(root), AccessShareLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION &&
			!identity_tells(rel, root, key_index))
			refuse_silent(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						  RelationGetRelationName(rel));
		table_close(rel, NoLock);
	}
}

void
ent_logged_check_all(void)
{
	ent_query_run(&silent_query, NULL, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		refuse_silent(ERRCODE_OBJECT_IN_USE, ent_query_text(0, 1));
	SPI_freetuptable(SPI_tuptable);
}

/* The numbers that a query returns; all are read before any is used. */
static List *
numbers(EntQuery *query)
{
	List	   *result = NIL;

	ent_query_run(query, NULL, NULL, SPI_OK_SELECT, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		result = lappend_int(result, ent_query_int4(i, 1, NULL));
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/* What the slot does not tell any more has been captured otherwise. */
static void
keep(EntPosition position)
{
	position.read_to = ent_decode_slot_position();
	ent_position_write(&position);
}

void
ent_logged_start(void)
{
	ListCell   *lc;

	if (numbers(&running_query) == NIL)
		keep(ent_position_read());
	foreach(lc, numbers(&waiting_query))
	{
		Datum		args[1] = {Int32GetDatum(lfirst_int(lc))};
		EntRelation *root = ent_relinfo_read(lfirst_int(lc));
		Relation	rel;

		if (root == NULL)
			continue;
		rel = table_open(root->relid, ShareRowExclusiveLock);
		ent_triggers_set_capture(rel, ent_relinfo_protected_index(root->relid),
								 root->owner_column != 0 ? ENT_TRIGGERS_BIRTHS : ENT_TRIGGERS_OWNERS);
		ent_query_run(&start_query, args, NULL, SPI_OK_UPDATE, NULL);
		table_close(rel, NoLock);
		ent_relinfo_invalidate();
	}
}

/* Objects of ours without a row have died. */
static void
compare_objects(EntRelation *root)
{
	Datum		args[1] = {Int32GetDatum(root->no)};
	SPITupleTable *rows;
	uint64		n;

	ent_query_run(&objects_query, args, NULL, SPI_OK_SELECT, NULL);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		Datum		values[ENT_WIRE_MAX_KEYS];
		bool		null;
		bytea	   *key = DatumGetByteaPP(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &null));

		ent_key_values(root, (uint8 *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), values);
		if (!ent_rowquery_exists(root, values, GetActiveSnapshot()))
			ent_changelog_write(root->no, 0, ENT_CHANGE_DELETE, key, NULL);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_freetuptable(rows);
}

static void
compare_rows(EntRelation *root, FullTransactionId since)
{
	Datum		args[1] = {Int32GetDatum(root->no)};
	List	   *relids = NIL;
	ListCell   *lc;

	if (!root->partitioned)
		relids = list_make1_oid(root->relid);
	else
	{
		ent_query_run(&partitions_query, args, NULL, SPI_OK_SELECT, NULL);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		null;

			relids = lappend_oid(relids, DatumGetObjectId(ent_query_datum(i, 1, &null)));
		}
		SPI_freetuptable(SPI_tuptable);
	}
	foreach(lc, relids)
	{
		LockRelationOid(lfirst_oid(lc), AccessShareLock);
		(void) ent_capture_rows_since(lfirst_oid(lc), root->no, since);
	}
}

bool
ent_logged_interrupted(void)
{
	return ent_position_read().read_to < ent_decode_slot_position();
}

void
ent_logged_compare_tables(List *nos)
{
	FullTransactionId since;
	ListCell   *lc;

	if (nos == NIL)
		return;
	since = ent_position_read().horizon;
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(lc, nos)
	{
		EntRelation *root = ent_relinfo_get(lfirst_int(lc));
		Datum		args[1] = {Int32GetDatum(lfirst_int(lc))};

		if (root == NULL)
			continue;
		LockRelationOid(root->relid, AccessShareLock);
		compare_objects(root);
		compare_rows(root, since);
		ent_query_run(&undigested_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
	ent_relinfo_invalidate();
	PopActiveSnapshot();
}

void
ent_logged_compare(void)
{
	ent_relinfo_refresh();
	ent_logged_compare_tables(numbers(&running_query));
	keep(ent_position_read());
}

/* ---- set_capture ---- */

static void
set_capture(Relation rel, EntRelation *root, const char *capture)
{
	Oid			index = ent_relinfo_protected_index(root->relid);
	Datum		args[2] = {Int32GetDatum(root->no), CStringGetTextDatum(capture)};

	if (strcmp(capture, "wal") == 0)
		ent_logged_check(rel, index);
	ent_query_run(&set_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed == 0)
		return;
	if (strcmp(capture, "trigger") == 0)
		ent_triggers_set_capture(rel, index, ENT_TRIGGERS_ALL);
	ent_relinfo_invalidate();
	ent_wake_routes_at_commit();
}

void
ent_logged_refuse_states(const char *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table \"%s\" cannot be captured from the log and have every state sent", table),
			 errdetail("What a transaction replaced is kept by the trigger."),
			 errhint("Use capture => 'trigger', or every_state => false.")));
}

Datum
ent_sql_set_capture(PG_FUNCTION_ARGS)
{
	Oid			relid;
	const char *capture;
	const char *name;
	EntRelation *root;
	Relation	rel;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", PG_ARGISNULL(0) ? "relation" : "capture")));
	relid = PG_GETARG_OID(0);
	capture = text_to_cstring(PG_GETARG_TEXT_PP(1));
	name = get_rel_name(relid);
	if (strcmp(capture, "auto") == 0)
		capture = "trigger";
	if (strcmp(capture, "trigger") != 0 && strcmp(capture, "wal") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized value for capture: \"%s\"", capture),
				 errhint("Use \"auto\", \"trigger\" or \"wal\".")));
	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	if (!ent_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relid)), name);
	LockRelationOid(relid, ShareRowExclusiveLock);
	ent_relinfo_refresh();
	root = ent_relinfo_read_by_oid(relid);
	if (root == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not synchronized", name),
				 errhint("Synchronized tables are shown by the view entanglement.tables.")));
	if (root->every_state && strcmp(capture, "wal") == 0)
		ent_logged_refuse_states(name);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rel = table_open(relid, NoLock);
	set_capture(rel, root, capture);
	table_close(rel, NoLock);
	SPI_finish();
	PG_RETURN_VOID();
}
