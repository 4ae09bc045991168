/*
 * api/tables.c
 *	  Which tables are synchronized: synchronize and desynchronize.
 *
 * DDL runs with the caller's rights (who must own the table); the registry is
 * written as the extension's owner.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "api/integrity.h"
#include "api/logged.h"
#include "api/partitions.h"
#include "api/triggers.h"
#include "base/compat.h"
#include "base/ent.h"
#include "base/wake.h"
#include "step/capture.h"
#include "step/decode.h"
#include "store/foreignkey.h"
#include "store/identity.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_synchronize);
PG_FUNCTION_INFO_V1(ent_sql_desynchronize);
PG_FUNCTION_INFO_V1(ent_sql_set_every_state);

static EntQuery add_query = {
	"INSERT INTO entanglement.relation (relid, key_index, capture, priority, "
	"keys_from_others, integrity, priority_given, owner_column, owner_column_name, every_state) "
	"SELECT $1, c.relname, $9, $3, $4, $5, $6, a.attnum, a.attname, $8 "
	"FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_attribute a "
	"ON a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.=) $7 "
	"AND a.attnum OPERATOR(pg_catalog.>) 0 "
	"WHERE c.oid OPERATOR(pg_catalog.=) $2 RETURNING no",
	9, {OIDOID, OIDOID, INT4OID, BOOLOID, BOOLOID, BOOLOID, INT2OID, BOOLOID, TEXTOID}, NULL
};
static EntQuery arrears_query = {
	"INSERT INTO entanglement.arrears (owner, rel) "
	"SELECT no, $1 FROM entanglement.owner "
	"WHERE NOT local AND serial OPERATOR(pg_catalog.>) 0",
	1, {INT4OID}, NULL
};
static EntQuery every_state_query = {
	"UPDATE entanglement.relation SET every_state = $2 WHERE no OPERATOR(pg_catalog.=) $1 "
	"AND NOT ($2 AND capture OPERATOR(pg_catalog.=) 'wal')",
	2, {INT4OID, BOOLOID}, NULL
};
static EntQuery forget_query = {
	"DELETE FROM entanglement.journal WHERE rel OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery remove_queries[] = {
	{"DELETE FROM entanglement.inherited WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.handover WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.relation WHERE no OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.change WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.object WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.journal WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.journal_loss WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.tombstone WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.arrears WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.resend WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.wanted WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.owed WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.shown WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.holding WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.request WHERE rel OPERATOR(pg_catalog.=) $1", 1, {INT4OID}, NULL}
};
static void
refuse_null(FunctionCallInfo fcinfo, int i, const char *argument)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", argument)));
}

static void
refuse(Oid relid, int code, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("table \"%s\" cannot be synchronized", get_rel_name(relid)),
			 errdetail("%s", why),
			 hint ? errhint("%s", hint) : 0));
}

/*
 * May the caller synchronize it, and is it a table of a kind whose rows can be
 * objects? Asked before it is locked, since others need not wait for what is
 * refused, and again after, since it may have changed meanwhile.
 */
static void
check_table(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	form = (Form_pg_class) GETSTRUCT(tuple);
	if (!ent_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(form->relkind),
					   NameStr(form->relname));
	if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", NameStr(form->relname)),
				 errdetail_relkind_not_supported(form->relkind),
				 errhint("Only ordinary and partitioned tables can be synchronized.")));
	if (relid < FirstNormalObjectId)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE, "It belongs to the system.", NULL);
	if (get_namespace_oid(ENT_SCHEMA, true) == form->relnamespace)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE,
			   "It belongs to the extension \"" ENT_NAME "\".", NULL);
	if (form->relpersistence == RELPERSISTENCE_TEMP)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE, "It is temporary.", NULL);
	if (form->relpersistence != RELPERSISTENCE_PERMANENT)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE,
			   "It is unlogged: its rows do not survive a crash.",
			   "Make it permanent with ALTER TABLE ... SET LOGGED.");
	if (form->relispartition)
		refuse(relid, ERRCODE_WRONG_OBJECT_TYPE, "It is a partition.",
			   "Synchronize the partitioned table it belongs to.");
	ReleaseSysCache(tuple);
}

/* Why an index cannot be the key of a table, or NULL. */
static const char *
index_fault(Oid table, Oid index, EntIndexKey *key)
{
	HeapTuple	tuple;
	Form_pg_index form;
	const char *fault = NULL;

	if (!ent_relinfo_index_key(index, key))
		return "It is not an index.";
	if (key->relid != table)
		return "It is an index of another table.";
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return "It is not an index.";
	form = (Form_pg_index) GETSTRUCT(tuple);
	if (!form->indisunique)
		fault = "It is not unique.";
	else if (!form->indimmediate)
		fault = "It belongs to a deferrable constraint.";
	else if (!heap_attisnull(tuple, Anum_pg_index_indpred, NULL))
		fault = "It has a condition.";
	else if (!heap_attisnull(tuple, Anum_pg_index_indexprs, NULL))
		fault = "It has an expression.";
	else if (!key->usable)
		fault = "It is not valid.";
	ReleaseSysCache(tuple);
	return fault;
}

static void
refuse_column(Relation rel, Form_pg_attribute att, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" of table \"%s\" cannot be in a key",
					NameStr(att->attname), RelationGetRelationName(rel)),
			 errdetail("%s", why),
			 errhint("Name a unique index over other columns: entanglement.synchronize(%s, index => '...').",
					 quote_literal_cstr(quote_identifier(RelationGetRelationName(rel))))));
}

/* The index of the primary key, also of one that is deferrable. */
static Oid
primary_key(Relation rel)
{
	Oid			constraint = InvalidOid;

	bms_free(get_primary_key_attnos(RelationGetRelid(rel), true, &constraint));
	return OidIsValid(constraint) ? get_constraint_index(constraint) : InvalidOid;
}

/* The index whose columns are the key, checked. */
static Oid
choose_key(Relation rel, Oid named)
{
	Oid			index = OidIsValid(named) ? named : primary_key(rel);
	EntIndexKey key;
	const char *fault;

	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key", RelationGetRelationName(rel)),
				 errhint("Add one, or name a unique index over NOT NULL columns: entanglement.synchronize(%s, index => '...').",
						 quote_literal_cstr(quote_identifier(RelationGetRelationName(rel))))));
	fault = index_fault(RelationGetRelid(rel), index, &key);
	if (fault != NULL)
	{
		const char *name = get_rel_name(index);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 name ? errmsg("\"%s\" cannot be the key of table \"%s\"",
							   name, RelationGetRelationName(rel)) :
				 errmsg("relation with OID %u cannot be the key of table \"%s\"",
						index, RelationGetRelationName(rel)),
				 errdetail("%s", fault),
				 errhint("Name a unique index of the table over NOT NULL columns, without condition or expression.")));
	}
	for (int i = 0; i < key.nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel),
											  key.attnums[i] - 1);

		if (!att->attnotnull)
			refuse_column(rel, att, "It may be NULL.");
		if (att->attgenerated != '\0')
			refuse_column(rel, att, "It is generated.");
		if (!ent_relinfo_type_keyable(att->atttypid, key.collations[i]))
			refuse_column(rel, att,
						  psprintf("Equal values of its type, %s, or under its collation may be different bytes.",
								   format_type_be(att->atttypid)));
	}
	return index;
}

/* How a table is to be synchronized. */
typedef struct Options
{
	Oid			index;			/* InvalidOid: the primary key */
	bool		wal;			/* captured from the log */
	bool		priority_given;
	int32		priority;
	bool		take_over;
	bool		keys_from_others;
	bool		integrity;
	const char *owner_column;	/* NULL: none */
	bool		every_state;
} Options;

/* 0: none. */
static AttrNumber
owner_column(Relation rel, const char *name)
{
	AttrNumber	attnum;
	Form_pg_attribute att;
	Oid			type;

	if (name == NULL)
		return 0;
	attnum = get_attnum(RelationGetRelid(rel), name);
	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name,
						RelationGetRelationName(rel))));
	att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	type = getBaseType(att->atttypid);
	if (att->attgenerated != '\0' ||
		(type != TEXTOID && type != VARCHAROID && type != BPCHAROID &&
		 type != NAMEOID && type != UUIDOID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table \"%s\" cannot name owners", name,
						RelationGetRelationName(rel)),
				 errdetail("It is generated, or of type %s.", format_type_be(att->atttypid)),
				 errhint("Use a column of type text, varchar, char, name or uuid.")));
	return attnum;
}


/* Is it to be captured from the log? */
static bool
check_capture(const char *capture)
{
	if (strcmp(capture, "wal") == 0)
		return true;
	if (strcmp(capture, "auto") != 0 && strcmp(capture, "trigger") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized value for capture: \"%s\"", capture),
				 errhint("Use \"auto\", \"trigger\" or \"wal\".")));
	return false;
}

/* SPI connected. */
static void
synchronize(Oid relid, const Options *o)
{
	Relation	rel;
	Datum		args[9];
	int32		no;

	check_table(relid);
	rel = relation_open(relid, ShareRowExclusiveLock);
	check_table(relid);
	ent_relinfo_refresh();
	if (ent_relinfo_read_by_oid(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is synchronized already", RelationGetRelationName(rel)),
				 errhint("To change how, end it first with entanglement.desynchronize.")));
	args[0] = ObjectIdGetDatum(relid);
	args[1] = ObjectIdGetDatum(choose_key(rel, o->index));
	args[2] = Int32GetDatum(o->priority);
	args[3] = BoolGetDatum(o->keys_from_others);
	args[4] = BoolGetDatum(o->integrity);
	args[5] = BoolGetDatum(o->priority_given);
	args[6] = Int16GetDatum(owner_column(rel, o->owner_column));
	args[7] = BoolGetDatum(o->every_state);
	args[8] = CStringGetTextDatum(o->wal ? "wal" : "trigger");
	if (o->wal)
		ent_logged_check(rel, DatumGetObjectId(args[1]));
	ent_triggers_create(rel, DatumGetObjectId(args[1]));
	ent_query_run(&add_query, args, NULL, SPI_OK_INSERT_RETURNING, NULL);
	no = ent_query_int4(0, 1, NULL);
	args[0] = Int32GetDatum(no);
	ent_query_run(&arrears_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_relinfo_invalidate();
	CommandCounterIncrement();
	ent_partitions_settle(false);
	if (o->take_over)
		(void) ent_capture_existing(no, ent_owner_current());
	relation_close(rel, NoLock);
	ent_wake_routes_at_commit();
}

/*
 * What a table with integrity references takes part along with it: else its
 * rows could not be told from those whose parents never come.
 */
static void
synchronize_along(Oid relid, const Options *options)
{
	Options		o = *options;
	EntForeignKey *fk;

	o.index = InvalidOid;
	o.priority_given = false;
	o.priority = 0;
	o.owner_column = NULL;
	ent_integrity_check_owners(relid);
	while ((fk = ent_foreignkey_settle()) != NULL)
	{
		ent_integrity_refuse_temporal(fk);
		ereport(NOTICE,
				(errmsg("table \"%s\" is synchronized along, because \"%s\" references it",
						get_rel_name(fk->parent_root), get_rel_name(fk->child_root))));
		synchronize(fk->parent_root, &o);
		ent_integrity_check_owners(fk->parent_root);
	}
}

Datum
ent_sql_synchronize(PG_FUNCTION_ARGS)
{
	Options		o = {
		.index = PG_ARGISNULL(3) ? InvalidOid : PG_GETARG_OID(3),
		.priority_given = !PG_ARGISNULL(2),
		.priority = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2),
		.take_over = PG_ARGISNULL(4) || PG_GETARG_BOOL(4),
		.keys_from_others = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5),
		.integrity = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6),
		.owner_column = PG_ARGISNULL(7) ? NULL : NameStr(*PG_GETARG_NAME(7)),
		.every_state = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8)
	};

	refuse_null(fcinfo, 0, "relation");
	refuse_null(fcinfo, 1, "capture");
	o.wal = check_capture(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (o.every_state && o.integrity)
		ent_integrity_refuse_states(get_rel_name(PG_GETARG_OID(0)));
	if (o.every_state && o.wal)
		ent_logged_refuse_states(get_rel_name(PG_GETARG_OID(0)));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (o.wal)
		ent_decode_check_server();
	ent_identity_use();
	synchronize(PG_GETARG_OID(0), &o);
	if (o.integrity)
		synchronize_along(PG_GETARG_OID(0), &o);
	SPI_finish();
	PG_RETURN_VOID();
}

static void
complain_not_synchronized(Oid relid)
{
	const char *name = get_rel_name(relid);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("table \"%s\" is not synchronized", name ? name : "?"),
			 get_rel_relispartition(relid) ?
			 errhint("It is a partition. Name the partitioned table that it belongs to.") :
			 errhint("Synchronized tables are shown by the view entanglement.tables.")));
}

/* Is synchronized, and the caller's; locked against writers or more. */
static EntRelation *
lock_synchronized(Oid relid, LOCKMODE lockmode)
{
	const char *name = get_rel_name(relid);
	EntRelation *info;

	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	if (!ent_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relid)), name);
	ent_relinfo_refresh();
	if (ent_relinfo_read_by_oid(relid) == NULL)
		complain_not_synchronized(relid);
	LockRelationOid(relid, lockmode);
	ent_relinfo_refresh();
	info = ent_relinfo_read_by_oid(relid);
	if (info == NULL)
		complain_not_synchronized(relid);
	return info;
}

/* Who writes has ended by then, so nobody captures half of his states. */
Datum
ent_sql_set_every_state(PG_FUNCTION_ARGS)
{
	EntRelation *info;
	Datum		args[2];

	refuse_null(fcinfo, 0, "relation");
	refuse_null(fcinfo, 1, "every_state");
	info = lock_synchronized(PG_GETARG_OID(0), ShareRowExclusiveLock);
	if (PG_GETARG_BOOL(1) && info->integrity)
		ent_integrity_refuse_states(info->name);
	args[0] = Int32GetDatum(info->no);
	args[1] = PG_GETARG_DATUM(1);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_query_run(&every_state_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed == 0)
		ent_logged_refuse_states(info->name);
	if (!PG_GETARG_BOOL(1))
		ent_query_run(&forget_query, args, NULL, SPI_OK_DELETE, NULL);
	SPI_finish();
	ent_relinfo_invalidate();
	PG_RETURN_VOID();
}

Datum
ent_sql_desynchronize(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	EntRelation *info;
	Datum		args[1];

	refuse_null(fcinfo, 0, "relation");
	info = lock_synchronized(relid, AccessExclusiveLock);
	args[0] = Int32GetDatum(info->no);
	ent_integrity_refuse_leaving(relid);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	for (int i = 0; i < lengthof(remove_queries); i++)
		ent_query_run(&remove_queries[i], args, NULL, SPI_OK_DELETE, NULL);
	ent_partitions_forget(info->no);
	ent_triggers_drop(relid);
	SPI_finish();
	ent_relinfo_invalidate();
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}
