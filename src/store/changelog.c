/*
 * store/changelog.c
 *	  entanglement.change: what was written and is not folded yet.
 *
 * A heap without index, written as the backend writes its catalogs, since
 * every captured row pays for it.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"

#include "base/wake.h"
#include "store/catalog.h"
#include "store/changelog.h"

void
ent_changelog_write(int32 rel, int32 owner, char op, bytea *key,
					bytea *columns)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_CHANGE);
	Relation	log;
	Datum		values[ENT_CHANGE_ATTRIBUTES];
	bool		nulls[ENT_CHANGE_ATTRIBUTES] = {false};
	HeapTuple	tup;

	values[ENT_CHANGE_REL - 1] = Int32GetDatum(rel);
	values[ENT_CHANGE_OWNER - 1] = Int32GetDatum(owner);
	values[ENT_CHANGE_OP - 1] = CharGetDatum(op);
	values[ENT_CHANGE_KEY - 1] = PointerGetDatum(key);
	nulls[ENT_CHANGE_KEY - 1] = key == NULL;
	values[ENT_CHANGE_COLUMNS - 1] = PointerGetDatum(columns);
	nulls[ENT_CHANGE_COLUMNS - 1] = columns == NULL;

	log = table_open(relid, RowExclusiveLock);
	tup = heap_form_tuple(RelationGetDescr(log), values, nulls);
	simple_heap_insert(log, tup);
	heap_freetuple(tup);
	table_close(log, NoLock);
	ent_wake_collector_at_commit();
}
