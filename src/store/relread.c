/*
 * store/relread.c
 *	  Reads what we know of a synchronized table from the catalogs.
 *
 * Takes no lock on the table: everything comes from the system caches, so a
 * long ALTER TABLE in somebody's transaction holds up nobody here. What was read
 * half before and half after a change is invalidated by that change and read
 * again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "store/catalog.h"
#include "store/keytype.h"
#include "store/relinfo_private.h"
#include "store/value.h"

/* A row of entanglement.relation. */
typedef struct Row
{
	int32		no;
	Oid			relid;
	NameData	key_index;
	int32		priority;
	bool		keys_from_others;
	bool		integrity;
	bool		every_state;
	bool		wal;
	bool		remote;
	int			digested;
	AttrNumber	owner_column;	/* 0: none */
	NameData	owner_column_name;
} Row;

static uint64 generations = 0;

/* ---- our registry ---- */

/* Finds the row with that value in an indexed column, as committed now. */
static bool
find_row(EntCatalog by, AttrNumber attnum, RegProcedure equals, Datum value,
		 Row *row)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_RELATION);
	Oid			index = ent_catalog_oid(by);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tup;

	if (!OidIsValid(relid) || !OidIsValid(index))
		return false;
	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, attnum, BTEqualStrategyNumber, equals, value);
	scan = systable_beginscan(rel, index, true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		null;

		row->no = DatumGetInt32(heap_getattr(tup, ENT_RELATION_NO, desc, &null));
		row->relid = DatumGetObjectId(heap_getattr(tup, ENT_RELATION_RELID,
												   desc, &null));
		row->key_index = *DatumGetName(heap_getattr(tup, ENT_RELATION_KEY_INDEX,
													desc, &null));
		row->priority = DatumGetInt32(heap_getattr(tup, ENT_RELATION_PRIORITY,
												   desc, &null));
		row->keys_from_others =
			DatumGetBool(heap_getattr(tup, ENT_RELATION_KEYS_FROM_OTHERS,
									  desc, &null));
		row->integrity = DatumGetBool(heap_getattr(tup, ENT_RELATION_INTEGRITY,
												   desc, &null));
		row->every_state = DatumGetBool(heap_getattr(tup, ENT_RELATION_EVERY_STATE,
													 desc, &null));
		row->wal = DatumGetBool(heap_getattr(tup, ENT_RELATION_WAL, desc, &null));
		row->digested = DatumGetInt16(heap_getattr(tup, ENT_RELATION_DIGESTED, desc,
												   &null));
		row->remote = DatumGetBool(heap_getattr(tup, ENT_RELATION_REMOTE, desc,
												&null));
		row->owner_column = DatumGetInt16(heap_getattr(tup, ENT_RELATION_OWNER_COLUMN,
													   desc, &null));
		if (null)
			row->owner_column = 0;
		else
			row->owner_column_name =
				*DatumGetName(heap_getattr(tup, ENT_RELATION_OWNER_COLUMN_NAME,
										   desc, &null));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tup);
}

List *
ent_relinfo_numbers(void)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_RELATION);
	List	   *result = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tup;

	if (!OidIsValid(relid))
		return NIL;
	rel = table_open(relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		bool		null;

		result = lappend_int(result,
							 DatumGetInt32(heap_getattr(tup, ENT_RELATION_NO,
														RelationGetDescr(rel),
														&null)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(result, list_int_cmp);
	return result;
}

int32
ent_relinfo_number(Oid relid)
{
	Row			row;

	return find_row(ENT_CATALOG_RELATION_RELID, ENT_RELATION_RELID, F_OIDEQ,
					ObjectIdGetDatum(relid), &row) ? row.no : 0;
}

/* ---- the key ---- */

bool
ent_relinfo_index_key(Oid index, EntIndexKey *key)
{
	HeapTuple	tup = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	bool		null;
	oidvector  *classes;
	oidvector  *collations;

	if (!HeapTupleIsValid(tup))
		return false;
	form = (Form_pg_index) GETSTRUCT(tup);
	classes = (oidvector *)
		DatumGetPointer(SysCacheGetAttr(INDEXRELID, tup,
										Anum_pg_index_indclass, &null));
	collations = (oidvector *)
		DatumGetPointer(SysCacheGetAttr(INDEXRELID, tup,
										Anum_pg_index_indcollation, &null));
	key->relid = form->indrelid;
	key->nkeys = form->indnkeyatts;
	key->attnums = palloc(key->nkeys * sizeof(AttrNumber));
	key->opclasses = palloc(key->nkeys * sizeof(Oid));
	key->collations = palloc(key->nkeys * sizeof(Oid));
	for (int i = 0; i < key->nkeys; i++)
	{
		key->attnums[i] = form->indkey.values[i];
		key->opclasses[i] = classes->values[i];
		key->collations[i] = collations->values[i];
	}
	key->primary = form->indisprimary;
	key->usable = form->indisunique && form->indimmediate &&
		form->indisvalid && form->indisready && form->indislive &&
		heap_attisnull(tup, Anum_pg_index_indpred, NULL);
	ReleaseSysCache(tup);
	return true;
}

/* The relation of an index's kind that an object depends on, or InvalidOid. */
static Oid
index_needed_by(Oid classid, Oid objid)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tup;
	Oid			result = InvalidOid;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(classid));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(objid));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2,
							  keys);
	while (result == InvalidOid && HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tup);
		char		kind;

		if (form->refclassid != RelationRelationId)
			continue;
		kind = get_rel_relkind(form->refobjid);
		if (kind == RELKIND_INDEX || kind == RELKIND_PARTITIONED_INDEX)
			result = form->refobjid;
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return result;
}

Oid
ent_relinfo_protected_index(Oid relid)
{
	Oid			trigger = get_trigger_oid(relid, ENT_CAPTURE_TRIGGER, true);

	if (!OidIsValid(trigger))
		return InvalidOid;
	return index_needed_by(TriggerRelationId, trigger);
}

Oid
ent_relinfo_index_named(Oid relid, const char *name)
{
	return get_relname_relid(name, get_rel_namespace(relid));
}

static bool
is_key(Oid index, Oid table, EntIndexKey *key)
{
	return OidIsValid(index) && ent_relinfo_index_key(index, key) &&
		key->relid == table && key->usable;
}

/*
 * Fills in key_index and the keys; false when there is no usable key. In a
 * copy that has not been told what it is the trigger holds on to none.
 */
static bool
read_key(EntRelation *rel, const char *name)
{
	EntIndexKey key;
	Oid			key_index = ent_relinfo_protected_index(rel->relid);

	if (!is_key(key_index, rel->relid, &key))
	{
		key_index = ent_relinfo_index_named(rel->relid, name);
		if (!is_key(key_index, rel->relid, &key))
			return false;
	}
	rel->key_index = key_index;
	rel->nkeys = key.nkeys;
	rel->keys = palloc(key.nkeys * sizeof(int));
	for (int i = 0; i < key.nkeys; i++)
	{
		EntColumn  *col = NULL;

		for (int c = 0; c < rel->ncolumns; c++)
			if (rel->columns[c].attnum == key.attnums[i])
				col = &rel->columns[c];
		if (col == NULL)
			return false;
		col->keytype = ent_keytype_make(col->type, col->typmod,
										key.collations[i]);
		if (col->keytype == NULL)
			return false;
		col->key = i + 1;
		col->in_key_only = ent_keytype_exact(col->keytype);
		rel->keys[i] = col - rel->columns;
	}
	return true;
}

/* ---- columns ---- */

static void
read_types(EntColumn *col)
{
	Oid			out,
				in;
	bool		varlena;

	col->basetype = getBaseType(col->type);
	get_typlenbyvalalign(col->type, &col->typlen, &col->typbyval,
						 &col->typalign);
	getTypeInputInfo(col->type, &in, &col->in_text_ioparam);
	fmgr_info(in, &col->in_text);
	if (ent_value_binary(col->basetype))
	{
		col->format = ENT_FORMAT_BINARY;
		getTypeBinaryOutputInfo(col->basetype, &out, &varlena);
		getTypeBinaryInputInfo(col->type, &in, &col->in_binary_ioparam);
		fmgr_info(in, &col->in_binary);
	}
	else
	{
		col->format = ENT_FORMAT_TEXT;
		getTypeOutputInfo(col->type, &out, &varlena);
		/* xml_out takes the declaration of the encoding away */
		if (col->basetype == XMLOID)
			out = F_TEXTOUT;
	}
	fmgr_info(out, &col->out);
}

static void
read_columns(EntRelation *rel)
{
	rel->columns = palloc0(rel->natts * sizeof(EntColumn));
	for (AttrNumber attnum = 1; attnum <= rel->natts; attnum++)
	{
		HeapTuple	tup = SearchSysCache2(ATTNUM,
										  ObjectIdGetDatum(rel->relid),
										  Int16GetDatum(attnum));
		Form_pg_attribute att;
		EntColumn  *col = &rel->columns[rel->ncolumns];

		if (!HeapTupleIsValid(tup))
			continue;
		att = (Form_pg_attribute) GETSTRUCT(tup);
		if (!att->attisdropped && att->attgenerated == '\0')
		{
			col->attnum = attnum;
			col->name = pstrdup(NameStr(att->attname));
			col->type = att->atttypid;
			col->typmod = att->atttypmod;
			col->collation = att->attcollation;
			col->identity_always = att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS;
			rel->ncolumns++;
		}
		ReleaseSysCache(tup);
	}
	for (int i = 0; i < rel->ncolumns; i++)
		read_types(&rel->columns[i]);
}

/* The table itself; false when it has gone or cannot be ours any more. */
static bool
read_table(EntRelation *rel)
{
	HeapTuple	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(rel->relid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tup))
		return false;
	form = (Form_pg_class) GETSTRUCT(tup);
	rel->schema = get_namespace_name(form->relnamespace);
	rel->name = pstrdup(NameStr(form->relname));
	rel->partitioned = form->relkind == RELKIND_PARTITIONED_TABLE;
	rel->natts = form->relnatts;
	ReleaseSysCache(tup);
	return rel->schema != NULL;
}

static EntRelation *
read_relation(const Row *row)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "entanglement table",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	EntRelation *rel = palloc0(sizeof(EntRelation));
	bool		complete;

	rel->no = row->no;
	rel->relid = row->relid;
	rel->priority = row->priority;
	rel->keys_from_others = row->keys_from_others;
	rel->integrity = row->integrity;
	rel->every_state = row->every_state;
	rel->wal = row->wal;
	rel->digested = row->digested;
	rel->remote = row->remote;
	rel->owner_column = row->owner_column;
	if (row->owner_column != 0)
	{
		AttrNumber	named = get_attnum(row->relid, NameStr(row->owner_column_name));

		/* a dump leaves out dropped columns: those behind have other numbers */
		if (named != InvalidAttrNumber)
			rel->owner_column = named;
	}
	rel->context = context;
	rel->generation = ++generations;
	complete = read_table(rel);
	if (complete)
	{
		read_columns(rel);
		complete = read_key(rel, NameStr(row->key_index));
	}
	MemoryContextSwitchTo(old);
	if (!complete)
	{
		MemoryContextDelete(context);
		return NULL;
	}
	return rel;
}

EntRelation *
ent_relinfo_read(int32 no)
{
	Row			row;

	if (!find_row(ENT_CATALOG_RELATION_NO, ENT_RELATION_NO, F_INT4EQ,
				  Int32GetDatum(no), &row))
		return NULL;
	return read_relation(&row);
}

EntRelation *
ent_relinfo_read_by_oid(Oid relid)
{
	Row			row;

	if (!find_row(ENT_CATALOG_RELATION_RELID, ENT_RELATION_RELID, F_OIDEQ,
				  ObjectIdGetDatum(relid), &row))
		return NULL;
	return read_relation(&row);
}
