/*
 * store/rowstatement.c
 *	  Statements on users' tables: their texts, and those that are prepared.
 *
 * Texts are built from the catalogs only (never from what a peer sent) and
 * name every object and operator with its schema, so no search_path can
 * redirect them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "catalog/pg_operator.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "store/rowstatement.h"

#define MAX_STATEMENTS	64		/* kept for a table: sets of columns vary */

typedef struct Statements
{
	int32		rel;			/* hash key */
	uint64		generation;
	MemoryContext context;
	dlist_head	list;			/* what was used last comes first */
	int			n;
} Statements;

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

/* schema.operator of equality for a key column's type, as in the index. */
static char *
equality(Relation index, int keyno)
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

/* Of what is called prefix1, prefix2, ... */
static void
append_where(StringInfo sql, EntRelation *rel, const char *prefix)
{
	Relation	index = index_open(rel->key_index, AccessShareLock);

	for (int i = 0; i < rel->nkeys; i++)
	{
		EntColumn  *col = &rel->columns[rel->keys[i]];

		appendStringInfo(sql, "%s t.%s %s %s%d", i == 0 ? " WHERE" : " AND",
						 quote_identifier(col->name), equality(index, i), prefix, i + 1);
	}
	index_close(index, AccessShareLock);
}

void
ent_rowquery_where(StringInfo sql, EntRelation *rel)
{
	append_where(sql, rel, "$");
}

static const char *
only(EntRelation *rel)
{
	return rel->partitioned ? "" : "ONLY ";
}

static void
append_filter(StringInfo sql, const char *filter)
{
	if (filter != NULL)
		appendStringInfo(sql, " AND (%s)", filter);
}

/*
 * together: by the keys of a set, one after the other by the index; the fence keeps
 * it so.
 */
static void
append_read(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set,
			const char *filter, bool together)
{
	const char *sep = "";

	appendStringInfoString(sql, together ?
						   "SELECT r.n, x.* FROM " ENT_ROWSET_NAME " r, LATERAL (SELECT " :
						   "SELECT ");
	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i])
		{
			appendStringInfo(sql, "%st.%s", sep, quote_identifier(rel->columns[i].name));
			st->columns[st->nargs++] = i;
			sep = ", ";
		}
	appendStringInfo(sql, " FROM %s%s t", only(rel), ent_statement_table(rel));
	append_where(sql, rel, together ? "r.k" : "$");
	append_filter(sql, filter);
	if (together)
		appendStringInfoString(sql, " OFFSET 0) x");
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
	appendStringInfo(sql, "WITH old AS (DELETE FROM %s%s t", only(rel), ent_statement_table(rel));
	ent_rowquery_where(sql, rel);
	appendStringInfo(sql, " RETURNING %s) INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM old",
					 names.data, ent_statement_table(rel), names.data, values.data);
}

static bool
any_identity(EntRelation *rel, const bool *set)
{
	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i] && rel->columns[i].identity_always &&
			!rel->columns[i].in_key_only)
			return true;
	return false;
}

bool
ent_statement_updates_sets(EntRelation *rel, const bool *set)
{
	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i] && !rel->columns[i].in_key_only)
			return !any_identity(rel, set);
	return false;
}

/* together: as append_insert; tells which rows it found. false: nothing to set */
static bool
append_update(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set,
			  bool together)
{
	if (any_identity(rel, set))
	{
		append_replace(sql, rel, st, set);
		return true;
	}
	appendStringInfo(sql, "UPDATE %s%s t", only(rel), ent_statement_table(rel));
	for (int i = 0; i < rel->ncolumns; i++)
		if (set[i] && !rel->columns[i].in_key_only)
		{
			appendStringInfo(sql, together ? "%s %s = r.c%d" : "%s %s = $%d",
							 st->nargs == 0 ? " SET" : ",",
							 quote_identifier(rel->columns[i].name),
							 together ? i : rel->nkeys + st->nargs + 1);
			st->columns[st->nargs++] = i;
		}
	if (together)
		appendStringInfoString(sql, " FROM " ENT_ROWSET_NAME " r");
	append_where(sql, rel, together ? "r.k" : "$");
	if (together)
		appendStringInfoString(sql, " RETURNING r.n");
	return st->nargs > 0;
}

/* together: of the rows of a set, which come from a relation, not as arguments. */
static void
append_insert(StringInfo sql, EntRelation *rel, EntStatement *st, const bool *set,
			  bool together)
{
	StringInfoData values;
	const char *sep = "";

	initStringInfo(&values);
	appendStringInfo(sql, "INSERT INTO %s (", ent_statement_table(rel));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		EntColumn  *col = &rel->columns[i];
		bool		from_key = col->in_key_only || (!set[i] && col->key > 0);

		if (!set[i] && !from_key)
			continue;
		if (!from_key)
			st->columns[st->nargs++] = i;
		appendStringInfo(sql, "%s%s", sep, quote_identifier(col->name));
		if (!together)
			appendStringInfo(&values, "%s$%d", sep,
							 from_key ? col->key : rel->nkeys + st->nargs);
		else if (from_key)
			appendStringInfo(&values, "%sr.k%d", sep, col->key);
		else
			appendStringInfo(&values, "%sr.c%d", sep, i);
		sep = ", ";
	}
	appendStringInfo(sql, together ? ") OVERRIDING SYSTEM VALUE SELECT %s FROM " ENT_ROWSET_NAME " r" :
					 ") OVERRIDING SYSTEM VALUE VALUES (%s)", values.data);
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
			appendStringInfo(&sql, "SELECT 1 FROM %s%s t", only(rel), ent_statement_table(rel));
			ent_rowquery_where(&sql, rel);
			append_filter(&sql, filter);
			break;
		case ENT_STATEMENT_LOCK_ROW:
			appendStringInfo(&sql, "SELECT 1 FROM %s%s t", only(rel), ent_statement_table(rel));
			ent_rowquery_where(&sql, rel);
			appendStringInfoString(&sql, " FOR NO KEY UPDATE OF t");
			break;
		case ENT_STATEMENT_READ:
		case ENT_STATEMENT_READ_SET:
			append_read(&sql, rel, st, set, filter, kind == ENT_STATEMENT_READ_SET);
			break;
		case ENT_STATEMENT_UPDATE:
		case ENT_STATEMENT_UPDATE_SET:
			useful = append_update(&sql, rel, st, set, kind == ENT_STATEMENT_UPDATE_SET);
			break;
		case ENT_STATEMENT_INSERT:
		case ENT_STATEMENT_INSERT_SET:
			append_insert(&sql, rel, st, set, kind == ENT_STATEMENT_INSERT_SET);
			break;
		case ENT_STATEMENT_DELETE:
			appendStringInfo(&sql, "DELETE FROM %s%s t", only(rel), ent_statement_table(rel));
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

		if (kind == ENT_STATEMENT_READ_SET || kind == ENT_STATEMENT_INSERT_SET ||
			kind == ENT_STATEMENT_UPDATE_SET)
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
