/*
 * api/row.h
 *	  A row, given to a function as its table's row type.
 */
#ifndef ENT_API_ROW_H
#define ENT_API_ROW_H

#include "postgres.h"

#include "access/htup.h"

#include "store/relinfo.h"

/*
 * Its table, which is synchronized (else ERRCODE_WRONG_OBJECT_TYPE with usage as
 * hint), and its key; false: the key has a NULL, so it is no row of that table.
 */
extern bool ent_row_read(HeapTupleHeader row, const char *usage,
						 EntRelation **rel, Datum *values);

#endif							/* ENT_API_ROW_H */
