/*
 * store/rowkeys.c
 *	  The keys of all rows of a user's table that the current user sees.
 *
 * As in store/rowquery.c, the text is built from the catalogs only and names
 * everything with its schema.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "store/rowquery.h"

#define FETCH_KEYS	1000		/* rows at a time */

void
ent_rowquery_keys(EntRelation *rel, void (*fn) (void *arg, const Datum *key),
				  void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	StringInfoData sql;
	Portal		cursor;
	SPIPlanPtr	plan;
	Datum		key[ENT_WIRE_MAX_KEYS];
	uint64		n;

	initStringInfo(&sql);
	for (int i = 0; i < rel->nkeys; i++)
		appendStringInfo(&sql, "%s t.%s", i == 0 ? "SELECT" : ",",
						 quote_identifier(rel->columns[rel->keys[i]].name));
	appendStringInfo(&sql, " FROM %s%s t", rel->partitioned ? "" : "ONLY ",
					 quote_qualified_identifier(rel->schema, rel->name));
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data,
			 SPI_result_code_string(SPI_result));
	cursor = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	do
	{
		SPI_cursor_fetch(cursor, true, FETCH_KEYS);
		MemoryContextSwitchTo(context); /* SPI leaves us in its own */
		n = SPI_processed;
		for (uint64 row = 0; row < n; row++)
		{
			for (int i = 0; i < rel->nkeys; i++)
			{
				bool		null;

				key[i] = SPI_getbinval(SPI_tuptable->vals[row],
									   SPI_tuptable->tupdesc, i + 1, &null);
			}
			CHECK_FOR_INTERRUPTS();
			fn(arg, key);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (n > 0);
	SPI_cursor_close(cursor);
	SPI_freeplan(plan);
}
