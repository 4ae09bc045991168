/*
 * store/rowquery.c
 *	  Statements on users' tables, prepared per table, row by row.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "store/direct.h"
#include "store/query.h"
#include "store/rowstatement.h"

bool		ent_rowquery_applying = false;

/* What AFTER triggers do is done at once, or when the caller says so. */
static bool fire_triggers = true;

/* Runs it; returns the number of rows. */
static uint64
execute(EntRelation *rel, EntStatement *st, const Datum *key, const Datum *values,
		const bool *nulls, Snapshot snapshot)
{
	int			n = rel->nkeys + (values ? st->nargs : 0);
	Datum	   *args = palloc(n * sizeof(Datum));
	char	   *isnull = palloc(n + 1);
	MemoryContext context = CurrentMemoryContext;
	EntPlanning saved;
	volatile int rc = 0;

	for (int i = 0; i < rel->nkeys; i++)
	{
		args[i] = key[i];
		isnull[i] = ' ';
	}
	for (int i = rel->nkeys; i < n; i++)
	{
		int			c = st->columns[i - rel->nkeys];

		args[i] = values[c];
		isnull[i] = nulls[c] ? 'n' : ' ';
	}
	isnull[n] = '\0';
	saved = ent_query_plan_by_index();
	PG_TRY();
	{
		rc = SPI_execute_snapshot(st->plan, args, isnull, snapshot,
								  InvalidSnapshot, snapshot != NULL,
								  fire_triggers, 0);
	}
	PG_FINALLY();
	{
		ent_query_plan_restore(&saved);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context); /* SPI leaves us in its own */
	if (rc < 0)
		elog(ERROR, "statement on table \"%s\" failed: %s", rel->name,
			 SPI_result_code_string(rc));
	pfree(args);
	pfree(isnull);
	return SPI_processed;
}

/* ---- does the row exist? ---- */

/* Looks into one index, whose table is no partitioned one. */
static bool
probe_index(Relation heap, Oid indexid, int nkeys, const Datum *key,
			Snapshot snapshot, EntRowVisitor fn, void *arg)
{
	Relation	index = index_open(indexid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	ScanKeyData keys[INDEX_MAX_KEYS];
	IndexScanDesc scan;
	bool		found;

	(void) ent_direct_keys(index, keys);
	for (int i = 0; i < nkeys; i++)
		keys[i].sk_argument = key[i];
	scan = ent_compat_index_beginscan(heap, index, snapshot, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found && fn != NULL)
		fn(arg, heap, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return found;
}

static bool
probe(Oid relid, Oid index, int nkeys, const Datum *key, Snapshot snapshot,
	  EntRowVisitor fn, void *arg)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		found = false;
	ListCell   *lc;

	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		found = probe_index(rel, index, nkeys, key, snapshot, fn, arg);
	else
		foreach(lc, find_inheritance_children(relid, AccessShareLock))
		{
			Relation	part = table_open(lfirst_oid(lc), NoLock);
			Oid			its = index_get_partition(part, index);

			table_close(part, NoLock);
			if (!found && OidIsValid(its))
				found = probe(lfirst_oid(lc), its, nkeys, key, snapshot, fn, arg);
		}
	table_close(rel, AccessShareLock);
	return found;
}

bool
ent_rowquery_visit(EntRelation *rel, const Datum *key, Snapshot snapshot,
				   EntRowVisitor fn, void *arg)
{
	bool		found;

	if (snapshot == NULL)
		CommandCounterIncrement();
	snapshot = RegisterSnapshot(snapshot ? snapshot : GetLatestSnapshot());
	found = probe(rel->relid, rel->key_index, rel->nkeys, key, snapshot, fn, arg);
	UnregisterSnapshot(snapshot);
	return found;
}

bool
ent_rowquery_exists(EntRelation *rel, const Datum *key, Snapshot snapshot)
{
	return ent_rowquery_visit(rel, key, snapshot, NULL, NULL);
}

bool
ent_rowquery_read(EntRelation *rel, const bool *may, const char *filter,
				  const Datum *key, Snapshot snapshot, Datum *values,
				  bool *nulls)
{
	EntStatement  *st = ent_statement(rel, ENT_STATEMENT_READ, may, filter);
	uint64		n = execute(rel, st, key, NULL, NULL, snapshot);

	for (int i = 0; n > 0 && i < st->nargs; i++)
	{
		int			c = st->columns[i];
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, i + 1, &nulls[c]);

		values[c] = nulls[c] ? (Datum) 0 :
			datumCopy(value, rel->columns[c].typbyval, rel->columns[c].typlen);
	}
	/* a batch reads many rows, and each has a memory context of its own */
	SPI_freetuptable(SPI_tuptable);
	return n > 0;
}

bool
ent_rowquery_visible(EntRelation *rel, const char *filter, const Datum *key)
{
	uint64		n = execute(rel, ent_statement(rel, ENT_STATEMENT_LOOK, NULL, filter), key, NULL,
							NULL, NULL);

	SPI_freetuptable(SPI_tuptable);
	return n > 0;
}

bool
ent_rowquery_lock(EntRelation *rel, const Datum *key)
{
	uint64		n = execute(rel, ent_statement(rel, ENT_STATEMENT_LOCK_ROW, NULL, NULL), key, NULL, NULL, NULL);

	SPI_freetuptable(SPI_tuptable);
	return n > 0;
}

uint64
ent_rowquery_update(EntRelation *rel, const bool *set, const Datum *key,
					const Datum *values, const bool *nulls)
{
	EntStatement  *st = ent_statement(rel, ENT_STATEMENT_UPDATE, set, NULL);

	if (st->plan != NULL)
		return execute(rel, st, key, values, nulls, NULL);
	return ent_rowquery_visible(rel, NULL, key) ? 1 : 0;
}

uint64
ent_rowquery_insert(EntRelation *rel, const bool *set, const Datum *key,
					const Datum *values, const bool *nulls)
{
	return execute(rel, ent_statement(rel, ENT_STATEMENT_INSERT, set, NULL), key, values, nulls, NULL);
}

uint64
ent_rowquery_delete(EntRelation *rel, const Datum *key)
{
	return execute(rel, ent_statement(rel, ENT_STATEMENT_DELETE, NULL, NULL), key, NULL, NULL, NULL);
}

uint64
ent_rowquery_delete_together(EntRelation *rel, const Datum *key)
{
	uint64		n = 0;

	fire_triggers = false;
	PG_TRY();
	{
		n = ent_rowquery_delete(rel, key);
	}
	PG_FINALLY();
	{
		fire_triggers = true;
	}
	PG_END_TRY();
	return n;
}

uint64
ent_rowquery_create(EntRelation *rel, const bool *set, const Datum *values,
					const bool *nulls, Datum *key)
{
	MemoryContext context = CurrentMemoryContext;
	Oid		   *types = palloc((rel->ncolumns + 1) * sizeof(Oid));
	Datum	   *args = palloc((rel->ncolumns + 1) * sizeof(Datum));
	char	   *isnull = palloc(rel->ncolumns + 1);
	StringInfoData names,
				params,
				returning;
	int			n = 0;
	uint64		rows;

	initStringInfo(&names);
	initStringInfo(&params);
	initStringInfo(&returning);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		if (!set[i])
			continue;
		types[n] = rel->columns[i].type;
		args[n] = values[i];
		isnull[n] = nulls[i] ? 'n' : ' ';
		appendStringInfo(&names, "%s%s", n == 0 ? "" : ", ",
						 quote_identifier(rel->columns[i].name));
		appendStringInfo(&params, "%s$%d", n == 0 ? "" : ", ", n + 1);
		n++;
	}
	for (int i = 0; i < rel->nkeys; i++)
		appendStringInfo(&returning, "%s%s", i == 0 ? "" : ", ",
						 quote_identifier(rel->columns[rel->keys[i]].name));
	if (SPI_execute_with_args(n == 0 ?
							  psprintf("INSERT INTO %s DEFAULT VALUES RETURNING %s",
									   ent_statement_table(rel), returning.data) :
							  psprintf("INSERT INTO %s (%s) VALUES (%s) RETURNING %s",
									   ent_statement_table(rel), names.data, params.data,
									   returning.data),
							  n, types, args, isnull, false, 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "statement on table \"%s\" failed", rel->name);
	MemoryContextSwitchTo(context);
	rows = SPI_processed;
	for (int i = 0; rows > 0 && i < rel->nkeys; i++)
	{
		EntColumn  *col = &rel->columns[rel->keys[i]];
		bool		null;

		key[i] = datumCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										 i + 1, &null), col->typbyval, col->typlen);
	}
	SPI_freetuptable(SPI_tuptable);
	return rows;
}
