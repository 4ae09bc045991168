/*
 * store/rowset.c
 *	  Statements on users' tables for many rows at once.
 *
 * The rows come to a statement as triggers' transition tables do: as an ephemeral named
 * relation, whose name comes before any table's of a search_path.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"

#include "store/query.h"
#include "store/rowheap.h"
#include "store/rowset.h"
#include "store/rowstatement.h"

/* ---- the relation ---- */

static void
add_attribute(TupleDesc desc, int number, const char *prefix, int i,
			  const EntColumn *col)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s%d", prefix, i);
	TupleDescInitEntry(desc, number, name, col->type, -1, 0);
	TupleDescInitEntryCollation(desc, number, col->collation);
}

/* Is it given besides the key? */
static bool
is_given(const EntRelation *rel, const bool *set, int i)
{
	return set != NULL && set[i] && !rel->columns[i].in_key_only;
}

/* set: NULL, only keys. */
static TupleDesc
describe(EntRelation *rel, const bool *set)
{
	TupleDesc	desc;
	int			n = 1 + rel->nkeys;

	for (int i = 0; i < rel->ncolumns; i++)
		n += is_given(rel, set, i);
	desc = CreateTemplateTupleDesc(n);
	TupleDescInitEntry(desc, 1, "n", INT4OID, -1, 0);
	for (int i = 0; i < rel->nkeys; i++)
		add_attribute(desc, i + 2, "k", i + 1, &rel->columns[rel->keys[i]]);
	n = 1 + rel->nkeys;
	for (int i = 0; i < rel->ncolumns; i++)
		if (is_given(rel, set, i))
			add_attribute(desc, ++n, "c", i, &rel->columns[i]);
	return desc;
}

static Tuplestorestate *
store(EntRelation *rel, const bool *set, TupleDesc desc, const EntRowsetRow *rows,
	  int n)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc0(desc->natts * sizeof(bool));

	for (int i = 0; i < n; i++)
	{
		int			at = 1 + rel->nkeys;

		values[0] = Int32GetDatum(i);
		memcpy(&values[1], rows[i].key, rel->nkeys * sizeof(Datum));
		for (int c = 0; c < rel->ncolumns; c++)
		{
			if (!is_given(rel, set, c))
				continue;
			values[at] = rows[i].values[c];
			nulls[at++] = rows[i].nulls[c];
		}
		tuplestore_putvalues(store, desc, values, nulls);
	}
	pfree(values);
	pfree(nulls);
	return store;
}

/* What SPI found goes to the rows that it belongs to; of updated ones nothing is read. */
static void
take(EntRelation *rel, const EntStatement *st, EntRowsetRow *rows)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		EntRowsetRow *row;

		heap_deform_tuple(SPI_tuptable->vals[i], desc, values, nulls);
		row = &rows[DatumGetInt32(values[0])];
		row->found = true;
		for (int a = 0; a < desc->natts - 1; a++)
		{
			int			c = st->columns[a];

			row->nulls[c] = nulls[a + 1];
			row->values[c] = nulls[a + 1] ? (Datum) 0 :
				datumCopy(values[a + 1], rel->columns[c].typbyval, rel->columns[c].typlen);
		}
	}
	SPI_freetuptable(SPI_tuptable);
	pfree(values);
	pfree(nulls);
}

/* ---- running ---- */

typedef struct Run
{
	EntRelation *rel;
	EntStatementKind kind;
	const bool *set;
	const char *filter;
	Snapshot	snapshot;		/* NULL: it writes */
	EntRowsetRow *rows;
	int			n;
} Run;

static uint64
execute(Run *r, EphemeralNamedRelation enr, MemoryContext context)
{
	EntStatement *st;
	int			rc = SPI_register_relation(enr);
	uint64		n;

	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register rows: %s", SPI_result_code_string(rc));
	st = ent_statement(r->rel, r->kind, r->set, r->filter);
	rc = SPI_execute_snapshot(st->plan, NULL, NULL, r->snapshot, InvalidSnapshot,
							  r->snapshot != NULL, true, 0);
	if (rc < 0)
		elog(ERROR, "statement on table \"%s\" failed: %s", r->rel->name,
			 SPI_result_code_string(rc));
	n = SPI_processed;
	MemoryContextSwitchTo(context);
	if (r->kind != ENT_STATEMENT_INSERT_SET)
		take(r->rel, st, r->rows);
	return n;
}

/* A connection of its own, with which goes what SPI notes the relation in. */
static uint64
run(Run *r, const bool *stored)
{
	MemoryContext context = CurrentMemoryContext;
	TupleDesc	desc = describe(r->rel, stored);
	Tuplestorestate *rows = store(r->rel, stored, desc, r->rows, r->n);
	EphemeralNamedRelationData enr = {
		.md = {
			.name = ENT_ROWSET_NAME, .tupdesc = desc, .enrtype = ENR_NAMED_TUPLESTORE,
			.enrtuples = r->n
		},
		.reldata = rows
	};
	EntPlanning saved;
	volatile uint64 n = 0;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	saved = ent_query_plan_by_index();
	PG_TRY();
	{
		n = execute(r, &enr, context);
	}
	PG_FINALLY();
	{
		ent_query_plan_restore(&saved);
	}
	PG_END_TRY();
	SPI_finish();
	MemoryContextSwitchTo(context);
	tuplestore_end(rows);
	return n;
}

void
ent_rowset_read(EntRelation *rel, const bool *may, const char *filter,
				EntRowsetRow *rows, int n, Snapshot snapshot)
{
	Run			r = {rel, ENT_STATEMENT_READ_SET, may, filter, snapshot, rows, n};

	if (filter == NULL && ent_rowheap_read(rel, may, rows, n, snapshot))
		return;
	for (int i = 0; i < n; i++)
		rows[i].found = false;
	(void) run(&r, NULL);
}

uint64
ent_rowset_insert(EntRelation *rel, const bool *set, EntRowsetRow *rows, int n)
{
	Run			r = {rel, ENT_STATEMENT_INSERT_SET, set, NULL, NULL, rows, n};

	return ent_rowheap_insert(rel, set, rows, n) ? n : run(&r, set);
}

bool
ent_rowset_updates(EntRelation *rel, const bool *set)
{
	return ent_statement_updates_sets(rel, set);
}

void
ent_rowset_update(EntRelation *rel, const bool *set, EntRowsetRow *rows, int n)
{
	Run			r = {rel, ENT_STATEMENT_UPDATE_SET, set, NULL, NULL, rows, n};

	for (int i = 0; i < n; i++)
		rows[i].found = false;
	(void) run(&r, set);
}
