/*
 * api/tables.c
 *	  Which tables are synchronized: synchronize, desynchronize, owner_of.
 *
 * DDL runs with the caller's rights (who must own the table); the registry is
 * written as the extension's owner.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/ent.h"
#include "base/wake.h"
#include "step/capture.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_synchronize);
PG_FUNCTION_INFO_V1(ent_sql_desynchronize);
PG_FUNCTION_INFO_V1(ent_sql_owner_of);

static EntQuery add_query = {
	"INSERT INTO entanglement.relation (relid, key_index, capture, priority) "
	"VALUES ($1, $2, 'trigger', $3) RETURNING no",
	3, {OIDOID, OIDOID, INT4OID}, NULL
};
static EntQuery arrears_query = {
	"INSERT INTO entanglement.arrears (owner, rel) "
	"SELECT no, $1 FROM entanglement.owner "
	"WHERE NOT local AND serial OPERATOR(pg_catalog.>) 0",
	1, {INT4OID}, NULL
};
static EntQuery remove_queries[] = {
	{"DELETE FROM entanglement.relation WHERE no OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.change WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.object WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.tombstone WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.arrears WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.owed WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL}
};
static EntQuery pending_query = {
	"SELECT o.name FROM entanglement.change c JOIN entanglement.owner o "
	"ON o.no OPERATOR(pg_catalog.=) c.owner WHERE c.rel OPERATOR(pg_catalog.=) $1 "
	"AND c.key OPERATOR(pg_catalog.=) $2 AND c.op OPERATOR(pg_catalog.=) 'I'::pg_catalog.\"char\"",
	2, {INT4OID, BYTEAOID}, NULL
};

static void
refuse(Oid relid, int code, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("table \"%s\" cannot be synchronized", get_rel_name(relid)),
			 errdetail("%s", why),
			 hint ? errhint("%s", hint) : 0));
}

/* Is it a table of a kind whose rows can be objects? */
static void
check_table(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	char		kind = rel->rd_rel->relkind;

	if (!ent_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
				 errhint("Only ordinary and partitioned tables can be synchronized.")));
	if (relid < FirstNormalObjectId || strcmp(get_namespace_name(rel->rd_rel->relnamespace), ENT_SCHEMA) == 0)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE, "It belongs to the system.", NULL);
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE,
			   "Its rows do not survive: it is temporary or unlogged.",
			   "ALTER TABLE ... SET LOGGED makes an unlogged table permanent.");
	if (rel->rd_rel->relispartition)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE, "It is a partition.",
			   "Synchronize the partitioned table it belongs to.");
}

/* The index whose columns are the key, checked. */
static Oid
choose_key(Relation rel, Oid named)
{
	Oid			index = OidIsValid(named) ? named : ent_compat_primary_key(rel);
	EntIndexKey key;

	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key", RelationGetRelationName(rel)),
				 errhint("Add a primary key, or name a unique index over NOT NULL columns: entanglement.synchronize('%s', index => '...').",
						 RelationGetRelationName(rel))));
	if (!ent_relinfo_index_key(index, &key) || key.relid != RelationGetRelid(rel) || !key.usable)
		refuse(RelationGetRelid(rel), ERRCODE_INVALID_PARAMETER_VALUE,
			   "The key needs a valid, unique, immediate index of this table without a condition.", NULL);
	for (int i = 0; i < key.nkeys; i++)
	{
		Form_pg_attribute att;

		if (key.attnums[i] <= 0)
			refuse(RelationGetRelid(rel), ERRCODE_INVALID_PARAMETER_VALUE,
				   "The key's index has an expression.", NULL);
		att = TupleDescAttr(RelationGetDescr(rel), key.attnums[i] - 1);
		if (!att->attnotnull || att->attgenerated != '\0' ||
			!ent_relinfo_type_keyable(att->atttypid, key.collations[i]))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of table \"%s\" cannot be in a key",
							NameStr(att->attname), RelationGetRelationName(rel)),
					 errdetail("Key columns are NOT NULL, not generated, and of a type whose equal values are the same in every database; their collation is deterministic."),
					 errhint("Name a unique index over other columns: entanglement.synchronize('%s', index => '...').",
							 RelationGetRelationName(rel))));
	}
	return index;
}

static void
run_ddl(const char *sql)
{
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run \"%s\"", sql);
}

static void
create_triggers(Relation rel)
{
	const char *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												  RelationGetRelationName(rel));

	run_ddl(psprintf("CREATE TRIGGER entanglement_capture AFTER INSERT OR UPDATE OR DELETE ON %s "
					 "FOR EACH ROW EXECUTE FUNCTION entanglement.capture_trigger()", name));
	run_ddl(psprintf("ALTER TRIGGER entanglement_capture ON %s DEPENDS ON EXTENSION entanglement", name));
	run_ddl(psprintf("CREATE TRIGGER entanglement_truncate BEFORE TRUNCATE ON %s "
					 "FOR EACH STATEMENT EXECUTE FUNCTION entanglement.truncate_trigger()", name));
	run_ddl(psprintf("ALTER TRIGGER entanglement_truncate ON %s DEPENDS ON EXTENSION entanglement", name));
}

Datum
ent_sql_synchronize(PG_FUNCTION_ARGS)
{
	Oid			relid;
	char	   *capture;
	bool		take_over = PG_ARGISNULL(4) || PG_GETARG_BOOL(4);
	Relation	rel;
	Datum		args[3];
	int32		no;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("relation and capture must not be NULL")));
	relid = PG_GETARG_OID(0);
	capture = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(capture, "auto") != 0 && strcmp(capture, "trigger") != 0)
		ereport(ERROR,
				(errcode(strcmp(capture, "wal") == 0 ? ERRCODE_FEATURE_NOT_SUPPORTED :
						 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("capture \"%s\" is not available", capture),
				 errhint("Use 'auto' or 'trigger'.")));
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	rel = relation_open(relid, ShareRowExclusiveLock);
	check_table(rel);
	ent_relinfo_refresh();
	if (ent_relinfo_read_by_oid(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is synchronized already", RelationGetRelationName(rel))));
	args[0] = ObjectIdGetDatum(relid);
	args[1] = ObjectIdGetDatum(choose_key(rel, PG_ARGISNULL(3) ? InvalidOid : PG_GETARG_OID(3)));
	args[2] = Int32GetDatum(PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	create_triggers(rel);
	ent_query_run(&add_query, args, NULL, SPI_OK_INSERT_RETURNING, NULL);
	no = ent_query_int4(0, 1, NULL);
	args[0] = Int32GetDatum(no);
	ent_query_run(&arrears_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_relinfo_invalidate();
	CommandCounterIncrement();
	if (take_over)
		(void) ent_capture_existing(no, ent_owner_current());
	SPI_finish();
	relation_close(rel, NoLock);
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}

Datum
ent_sql_desynchronize(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	EntRelation *info;
	const char *name;
	Datum		args[1];

	ent_relinfo_refresh();
	info = ent_relinfo_read_by_oid(relid);
	if (info == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("table \"%s\" is not synchronized", get_rel_name(relid) ? get_rel_name(relid) : "?")));
	if (!ent_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
	LockRelationOid(relid, AccessExclusiveLock);
	args[0] = Int32GetDatum(info->no);
	name = quote_qualified_identifier(info->schema, info->name);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	run_ddl(psprintf("DROP TRIGGER entanglement_capture ON %s", name));
	run_ddl(psprintf("DROP TRIGGER entanglement_truncate ON %s", name));
	for (int i = 0; i < lengthof(remove_queries); i++)
		ent_query_run(&remove_queries[i], args, NULL, SPI_OK_DELETE, NULL);
	SPI_finish();
	ent_relinfo_invalidate();
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}

/* The owner of a row, given as its table's row type. */
Datum
ent_sql_owner_of(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
											  HeapTupleHeaderGetTypMod(row));
	Oid			relid = get_typ_typrelid(HeapTupleHeaderGetTypeId(row));
	EntRelation *rel;
	Datum		values[ENT_WIRE_MAX_KEYS];
	Datum		args[2];
	EntObject	object;
	bytea	   *key;
	char	   *name = NULL;

	rel = OidIsValid(relid) ? ent_relinfo_read_by_oid(relid) : NULL;
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the row is not of a synchronized table"),
				 errhint("Use it as: SELECT entanglement.owner_of(t) FROM synchronized_table t.")));
	for (int i = 0; i < rel->nkeys; i++)
	{
		bool		null;

		values[i] = GetAttributeByName(row, rel->columns[rel->keys[i]].name, &null);
		if (null)
		{
			ReleaseTupleDesc(desc);
			PG_RETURN_NULL();
		}
	}
	ReleaseTupleDesc(desc);
	key = ent_key_image(rel, values);
	if (ent_object_find(rel->no, key, &object))
		name = ent_object_owner_name(object.owner);
	else
	{
		args[0] = Int32GetDatum(rel->no);
		args[1] = PointerGetDatum(key);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		MemoryContextSwitchTo(context);
		ent_query_run(&pending_query, args, NULL, SPI_OK_SELECT, NULL);
		if (SPI_processed > 0)
			name = ent_query_text(SPI_processed - 1, 1);
		SPI_finish();
	}
	if (name == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}
