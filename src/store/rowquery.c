/*
 * store/rowquery.c
 *	  Statements on users' tables, prepared per table.
 *
 * Texts are built from the catalogs only (never from what a peer sent) and
 * name every object and operator with its schema, so no search_path can
 * redirect them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "store/direct.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery_private.h"

#define MAX_STATEMENTS	64		/* kept for a table: sets of columns vary */

typedef struct Statements
{
	int32		rel;			/* hash key */
	uint64		generation;
	MemoryContext context;
	dlist_head	list;			/* what was used last comes first */
	int			n;
} Statements;

bool		ent_rowquery_applying = false;

static HTAB *statements = NULL;

static void
forget_last(Statements *s)
{
	EntStatement  *st = dlist_tail_element(EntStatement, node, &s->list);

	dlist_delete(&st->node);
	s->n--;
	if (st->plan)
		SPI_freeplan(st->plan);
	pfree(st->columns);
	pfree(st->set);
	if (st->filter)
		pfree(st->filter);
	pfree(st);
}

static void
forget(Statements *s)
{
	while (s->n > 0)
		forget_last(s);
}

static Statements *
statements_of(EntRelation *rel)
{
	Statements *s;
	bool		found;

	if (statements == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(Statements)};

		statements = hash_create("entanglement statements", 64, &ctl,
								 HASH_ELEM | HASH_BLOBS);
	}
	s = hash_search(statements, &rel->no, HASH_ENTER, &found);
	if (!found)
	{
		dlist_init(&s->list);
		s->n = 0;
		s->generation = 0;
		s->context = AllocSetContextCreate(TopMemoryContext,
										   "entanglement statements",
										   ALLOCSET_SMALL_SIZES);
	}
	if (s->generation != rel->generation)
	{
		forget(s);
		s->generation = rel->generation;
	}
	return s;
}

char *
ent_statement_equality(Relation index, int keyno)
{
	Oid			op = get_opfamily_member(index->rd_opfamily[keyno],
										 index->rd_opcintype[keyno],
										 index->rd_opcintype[keyno],
										 BTEqualStrategyNumber);
	HeapTuple	tup = SearchSysCache1(OPEROID, ObjectIdGetDatum(op));
	Form_pg_operator form;
	char	   *result;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "no equality operator for key column %d of index \"%s\"",
			 keyno + 1, RelationGetRelationName(index));
	form = (Form_pg_operator) GETSTRUCT(tup);
	result = psprintf("OPERATOR(%s.%s)",
					  quote_identifier(get_namespace_name(form->oprnamespace)),
					  NameStr(form->oprname));
	ReleaseSysCache(tup);
	return result;
}

const char *
ent_statement_table(EntRelation *rel)
{
	return quote_qualified_identifier(rel->schema, rel->name);
}

void
ent_rowquery_where(StringInfo sql, EntRelation *rel)
{
	Relation	index = index_open(rel->key_index, AccessShareLock);

	for (int i = 0; i < rel->nkeys; i++)
	{
		EntColumn  *col = &rel->columns[rel->keys[i]];

		appendStringInfo(sql, "%s t.%s %s $%d", i == 0 ? " WHERE" : " AND",
						 quote_identifier(col->name), ent_statement_equality(index, i), i + 1);
	}
	index_close(index, AccessShareLock);
}

const char *
ent_statement_only(EntRelation *rel)
{
	return rel->partitioned ? "" : "ONLY ";
}

static void
append_read(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set)
{
	const char *sep = "SELECT ";

	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i])
		{
			appendStringInfo(sql, "%st.%s", sep, quote_identifier(rel->columns[i].name));
			st->columns[st->nargs++] = i;
			sep = ", ";
		}
	appendStringInfo(sql, " FROM %s%s t", ent_statement_only(rel), ent_statement_table(rel));
	ent_rowquery_where(sql, rel);
}

static void
append_filter(StringInfo sql, const char *filter)
{
	if (filter != NULL)
		appendStringInfo(sql, " AND (%s)", filter);
}

/*
 * No UPDATE can set a column that is GENERATED ALWAYS AS IDENTITY: the row is
 * taken out and put in again, with what is not set as it was.
 */
static void
append_replace(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set)
{
	StringInfoData names,
				values;

	initStringInfo(&names);
	initStringInfo(&values);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		const char *sep = i == 0 ? "" : ", ";
		const char *name = quote_identifier(rel->columns[i].name);

		appendStringInfo(&names, "%s%s", sep, name);
		if (set[i] && !rel->columns[i].in_key_only)
		{
			appendStringInfo(&values, "%s$%d", sep, rel->nkeys + st->nargs + 1);
			st->columns[st->nargs++] = i;
		}
		else
			appendStringInfo(&values, "%sold.%s", sep, name);
	}
	appendStringInfo(sql, "WITH old AS (DELETE FROM %s%s t", ent_statement_only(rel), ent_statement_table(rel));
	ent_rowquery_where(sql, rel);
	appendStringInfo(sql, " RETURNING %s) INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM old",
					 names.data, ent_statement_table(rel), names.data, values.data);
}

/* false: nothing to set */
static bool
append_update(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set)
{
	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i] && rel->columns[i].identity_always &&
			!rel->columns[i].in_key_only)
		{
			append_replace(sql, rel, st, set);
			return true;
		}
	appendStringInfo(sql, "UPDATE %s%s t", ent_statement_only(rel), ent_statement_table(rel));
	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i] && !rel->columns[i].in_key_only)
		{
			appendStringInfo(sql, "%s %s = $%d", st->nargs == 0 ? " SET" : ",",
							 quote_identifier(rel->columns[i].name),
							 rel->nkeys + st->nargs + 1);
			st->columns[st->nargs++] = i;
		}
	ent_rowquery_where(sql, rel);
	return st->nargs > 0;
}

static void
append_insert(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set)
{
	StringInfoData values;
	const char *sep = "";

	initStringInfo(&values);
	appendStringInfo(sql, "INSERT INTO %s (", ent_statement_table(rel));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		EntColumn  *col = &rel->columns[i];
		int			param;

		if (col->in_key_only)
			param = col->key;
		else if (set[i])
		{
			param = rel->nkeys + st->nargs + 1;
			st->columns[st->nargs++] = i;
		}
		else if (col->key > 0)
			param = col->key;
		else
			continue;
		appendStringInfo(sql, "%s%s", sep, quote_identifier(col->name));
		appendStringInfo(&values, "%s$%d", sep, param);
		sep = ", ";
	}
	appendStringInfo(sql, ") OVERRIDING SYSTEM VALUE VALUES (%s)", values.data);
}

static EntStatement *
prepare(EntRelation *rel, Statements *s, EntStatementKind kind, const bool *set,
		const char *filter)
{
	MemoryContext old = MemoryContextSwitchTo(s->context);
	EntStatement  *st = palloc0(sizeof(EntStatement));
	StringInfoData sql;
	Oid		   *types;
	bool		useful = true;

	st->kind = kind;
	st->columns = palloc(rel->ncolumns * sizeof(int));
	st->set = palloc0(rel->ncolumns * sizeof(bool));
	if (set)
		memcpy(st->set, set, rel->ncolumns * sizeof(bool));
	if (filter)
		st->filter = pstrdup(filter);
	MemoryContextSwitchTo(old);

	initStringInfo(&sql);
	switch (kind)
	{
		case ENT_STATEMENT_LOOK:
			appendStringInfo(&sql, "SELECT 1 FROM %s%s t", ent_statement_only(rel), ent_statement_table(rel));
			ent_rowquery_where(&sql, rel);
			append_filter(&sql, filter);
			break;
		case ENT_STATEMENT_LOCK_ROW:
			appendStringInfo(&sql, "SELECT 1 FROM %s%s t", ent_statement_only(rel), ent_statement_table(rel));
			ent_rowquery_where(&sql, rel);
			appendStringInfoString(&sql, " FOR NO KEY UPDATE OF t");
			break;
		case ENT_STATEMENT_READ:
			append_read(&sql, rel, st, set);
			append_filter(&sql, filter);
			break;
		case ENT_STATEMENT_UPDATE:
			useful = append_update(&sql, rel, st, set);
			break;
		case ENT_STATEMENT_INSERT:
			append_insert(&sql, rel, st, set);
			break;
		case ENT_STATEMENT_READ_SET:
			ent_rowset_append_read(&sql, rel, st, set, filter);
			break;
		case ENT_STATEMENT_INSERT_SET:
			ent_rowset_append_insert(&sql, rel, st, set);
			break;
		case ENT_STATEMENT_DELETE:
			appendStringInfo(&sql, "DELETE FROM %s%s t", ent_statement_only(rel), ent_statement_table(rel));
			ent_rowquery_where(&sql, rel);
			break;
	}
	types = palloc((rel->nkeys + rel->ncolumns) * sizeof(Oid));
	for (int i = 0; i < rel->nkeys; i++)
		types[i] = rel->columns[rel->keys[i]].type;
	if (kind == ENT_STATEMENT_UPDATE || kind == ENT_STATEMENT_INSERT)
		for (int i = 0; i < st->nargs; i++)
			types[rel->nkeys + i] = rel->columns[st->columns[i]].type;
	if (useful)
	{
		int			n = rel->nkeys +
			(kind == ENT_STATEMENT_UPDATE || kind == ENT_STATEMENT_INSERT ? st->nargs : 0);

		if (kind == ENT_STATEMENT_READ_SET || kind == ENT_STATEMENT_INSERT_SET)
			n = 0;

		st->plan = SPI_prepare(sql.data, n, types);
		if (st->plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql.data,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(st->plan);
	}
	if (s->n >= MAX_STATEMENTS)
		forget_last(s);
	dlist_push_head(&s->list, &st->node);
	s->n++;
	return st;
}

static bool
same_filter(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

EntStatement *
ent_statement(EntRelation *rel, EntStatementKind kind, const bool *set,
		  const char *filter)
{
	Statements *s = statements_of(rel);
	dlist_iter	iter;

	dlist_foreach(iter, &s->list)
	{
		EntStatement  *st = dlist_container(EntStatement, node, iter.cur);

		if (st->kind != kind || !same_filter(st->filter, filter) ||
			(set != NULL &&
			 memcmp(st->set, set, rel->ncolumns * sizeof(bool)) != 0))
			continue;
		dlist_move_head(&s->list, &st->node);
		return st;
	}
	return prepare(rel, s, kind, set, filter);
}

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
