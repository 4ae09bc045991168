/*
 * api/row.c
 *	  A row, given to a function as its table's row type.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "api/row.h"

bool
ent_row_read(HeapTupleHeader row, const char *usage, EntRelation **rel,
			 Datum *values)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
											  HeapTupleHeaderGetTypMod(row));
	Oid			relid = get_typ_typrelid(HeapTupleHeaderGetTypeId(row));
	bool		null = false;

	*rel = OidIsValid(relid) ? ent_relinfo_read_by_oid(relid) : NULL;
	if (*rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the row is not of a synchronized table"),
				 errhint("Use it as: %s", usage)));
	for (int i = 0; i < (*rel)->nkeys && !null; i++)
		values[i] = GetAttributeByName(row, (*rel)->columns[(*rel)->keys[i]].name,
									   &null);
	ReleaseTupleDesc(desc);
	return !null;
}
