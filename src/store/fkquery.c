/*
 * store/fkquery.c
 *	  Statements that look whether a foreign key holds, prepared per constraint.
 *
 * PostgreSQL's own triggers cannot be asked: they fire row by row for rows
 * that come in any order, and are bound to whoever runs the statement.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "store/fkquery.h"
#include "store/query.h"
#include "store/rowquery.h"

typedef enum Kind
{
	CHILD_VALUES,
	PARENT_VALUES,
	LOCK_PARENT,
	PARENT_EXISTS,
	CHILD_EXISTS
} Kind;

typedef struct StatementKey
{
	Oid			constraint;
	Kind		kind;
} StatementKey;

typedef struct Statement
{
	StatementKey key;			/* hash key */
	uint64		round;			/* text was compared in this round */
	char	   *text;
	SPIPlanPtr	plan;
} Statement;

static HTAB *statements = NULL;
static uint64 current_round = 1;

void
ent_fkquery_refresh(void)
{
	current_round++;
}

/* ---- texts ---- */

static char *
column(Oid relid, AttrNumber attnum)
{
	return psprintf("t.%s", quote_identifier(get_attname(relid, attnum, false)));
}

/* " FROM [ONLY] table t" */
static void
append_from(StringInfo sql, Oid relid)
{
	const char *only = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";

	appendStringInfo(sql, " FROM %s%s t", only,
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												get_rel_name(relid)));
}

static Oid
type_of(EntForeignKey *fk, bool child, int i)
{
	return child ? get_atttype(fk->child, fk->child_atts[i]) :
		get_atttype(fk->parent, fk->parent_atts[i]);
}

/* $n, compared under the collation of the parent's column. */
static char *
parameter(EntForeignKey *fk, int i)
{
	Oid			type,
				collation;
	int32		typmod;

	get_atttypetypmodcoll(fk->parent, fk->parent_atts[i], &type, &typmod,
						  &collation);
	if (!OidIsValid(collation) || collation == DEFAULT_COLLATION_OID)
		return psprintf("$%d", i + 1);
	return psprintf("($%d COLLATE %s)", i + 1, generate_collation_name(collation));
}

/* The condition on column i; values are of the child's types or the parent's. */
static void
append_condition(StringInfo sql, EntForeignKey *fk, Kind kind, int i)
{
	char	   *param = parameter(fk, i);
	Oid			parent_type = type_of(fk, false, i);
	Oid			child_type = type_of(fk, true, i);

	appendStringInfoString(sql, i == 0 ? " WHERE " : " AND ");
	switch (kind)
	{
		case LOCK_PARENT:		/* parent's column = child's value */
			generate_operator_clause(sql, column(fk->parent, fk->parent_atts[i]),
									 parent_type, fk->operators[i], param,
									 child_type);
			break;
		case CHILD_EXISTS:		/* parent's value = child's column */
			generate_operator_clause(sql, param, parent_type, fk->operators[i],
									 column(fk->child, fk->child_atts[i]),
									 child_type);
			break;
		default:
			elog(ERROR, "unexpected kind of statement");
	}
}

/* A parent's value is found by the equality of the index it is unique in. */
static void
append_parent_condition(StringInfo sql, EntForeignKey *fk, int i)
{
	Oid			type = type_of(fk, false, i);

	appendStringInfoString(sql, i == 0 ? " WHERE " : " AND ");
	generate_operator_clause(sql, column(fk->parent, fk->parent_atts[i]), type,
							 fk->parent_operators[i], parameter(fk, i), type);
}

static char *
text_of(EntForeignKey *fk, Kind kind, EntRelation *rel)
{
	bool		of_child = kind == CHILD_VALUES || kind == CHILD_EXISTS;
	Oid			relid = of_child ? fk->child : fk->parent;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	if (kind == CHILD_VALUES || kind == PARENT_VALUES)
		for (int i = 0; i < fk->nkeys; i++)
			appendStringInfo(&sql, "%s%s", i == 0 ? "" : ", ",
							 column(relid, of_child ? fk->child_atts[i] : fk->parent_atts[i]));
	else
		appendStringInfoString(&sql, "1");
	append_from(&sql, relid);
	if (rel)
	{
		ent_rowquery_where(&sql, rel);
		return sql.data;
	}
	for (int i = 0; i < fk->nkeys; i++)
		if (kind == PARENT_EXISTS)
			append_parent_condition(&sql, fk, i);
		else
			append_condition(&sql, fk, kind, i);
	appendStringInfoString(&sql, " FOR KEY SHARE OF t");
	return sql.data;
}

/* ---- plans ---- */

static SPIPlanPtr
prepare(EntForeignKey *fk, Kind kind, EntRelation *rel, const char *text)
{
	Oid			types[INDEX_MAX_KEYS];
	int			n = rel ? rel->nkeys : fk->nkeys;
	SPIPlanPtr	plan;

	for (int i = 0; i < n; i++)
		types[i] = rel ? rel->columns[rel->keys[i]].type :
			type_of(fk, kind == LOCK_PARENT, i);
	plan = SPI_prepare(text, n, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", text,
			 SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static Statement *
find_statement(EntForeignKey *fk, Kind kind)
{
	StatementKey key;
	Statement  *st;
	bool		found;

	if (statements == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(StatementKey), .entrysize = sizeof(Statement)};

		statements = hash_create("entanglement foreign key statements", 64, &ctl,
								 HASH_ELEM | HASH_BLOBS);
	}
	memset(&key, 0, sizeof(key));
	key.constraint = fk->oid;
	key.kind = kind;
	st = hash_search(statements, &key, HASH_ENTER, &found);
	if (!found)
	{
		st->round = 0;
		st->text = NULL;
		st->plan = NULL;
	}
	return st;
}

/*
 * Names are compared once a round: what was renamed has another text. Types
 * cannot change without the constraint's being made anew.
 */
static SPIPlanPtr
plan_of(EntForeignKey *fk, Kind kind, EntRelation *rel)
{
	Statement  *st = find_statement(fk, kind);
	char	   *text;

	if (st->plan && st->round == current_round)
		return st->plan;
	text = text_of(fk, kind, rel);
	if (st->plan && strcmp(st->text, text) != 0)
	{
		SPI_freeplan(st->plan);
		st->plan = NULL;
	}
	if (st->plan == NULL)
	{
		st->plan = prepare(fk, kind, rel, text);
		if (st->text)
			pfree(st->text);
		st->text = MemoryContextStrdup(TopMemoryContext, text);
	}
	st->round = current_round;
	pfree(text);
	return st->plan;
}

/* ---- running ---- */

static uint64
execute(SPIPlanPtr plan, const Datum *args)
{
	MemoryContext context = CurrentMemoryContext;
	EntPlanning saved = ent_query_plan_by_index();
	volatile int rc = 0;

	PG_TRY();
	{
		rc = SPI_execute_snapshot(plan, (Datum *) args, NULL, InvalidSnapshot,
								  InvalidSnapshot, false, false, 1);
	}
	PG_FINALLY();
	{
		ent_query_plan_restore(&saved);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "look at a foreign key failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

Oid
ent_fkquery_owner(Oid relid)
{
	HeapTuple	tup = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tup))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	owner = ((Form_pg_class) GETSTRUCT(tup))->relowner;
	ReleaseSysCache(tup);
	return owner;
}

/* Prepares and runs it as the owner of the table that it looks into. */
static uint64
run(EntForeignKey *fk, Kind kind, EntRelation *rel, const Datum *args)
{
	bool		of_child = kind == CHILD_VALUES || kind == CHILD_EXISTS;
	Oid			owner = ent_fkquery_owner(of_child ? fk->child : fk->parent),
				save_user;
	int			save_context;
	volatile uint64 rows = 0;

	GetUserIdAndSecContext(&save_user, &save_context);
	SetUserIdAndSecContext(owner, save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	PG_TRY();
	{
		rows = execute(plan_of(fk, kind, rel), args);
	}
	PG_FINALLY();
	{
		SetUserIdAndSecContext(save_user, save_context);
	}
	PG_END_TRY();
	return rows;
}

static bool
look(EntForeignKey *fk, Kind kind, const Datum *values)
{
	uint64		n = run(fk, kind, NULL, values);

	SPI_freetuptable(SPI_tuptable);
	return n > 0;
}

static bool
read_values(EntForeignKey *fk, Kind kind, EntRelation *rel, const Datum *key,
			Datum *values, bool *nulls)
{
	uint64		n = run(fk, kind, rel, key);

	for (int i = 0; n > 0 && i < fk->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(SPI_tuptable->tupdesc, i);
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, i + 1, &nulls[i]);

		values[i] = nulls[i] ? (Datum) 0 :
			datumCopy(value, att->attbyval, att->attlen);
	}
	SPI_freetuptable(SPI_tuptable);
	return n > 0;
}

bool
ent_fkquery_child_values(EntForeignKey *fk, EntRelation *child,
						 const Datum *key, Datum *values, bool *nulls)
{
	return read_values(fk, CHILD_VALUES, child, key, values, nulls);
}

bool
ent_fkquery_parent_values(EntForeignKey *fk, EntRelation *parent,
						  const Datum *key, Datum *values, bool *nulls)
{
	return read_values(fk, PARENT_VALUES, parent, key, values, nulls);
}

bool
ent_fkquery_lock_parent(EntForeignKey *fk, const Datum *values)
{
	return look(fk, LOCK_PARENT, values);
}

bool
ent_fkquery_parent_exists(EntForeignKey *fk, const Datum *values)
{
	return look(fk, PARENT_EXISTS, values);
}

bool
ent_fkquery_child_exists(EntForeignKey *fk, const Datum *values)
{
	return look(fk, CHILD_EXISTS, values);
}

/* ---- telling ---- */

static char *
value_text(EntForeignKey *fk, bool child, int i, Datum value)
{
	Oid			out;
	bool		varlena;

	getTypeOutputInfo(type_of(fk, child, i), &out, &varlena);
	return OidOutputFunctionCall(out, value);
}

char *
ent_fkquery_text(EntForeignKey *fk, bool child, const Datum *values)
{
	StringInfoData names,
				texts;
	Oid			relid = child ? fk->child : fk->parent;

	initStringInfo(&names);
	initStringInfo(&texts);
	for (int i = 0; i < fk->nkeys; i++)
	{
		const char *sep = i == 0 ? "" : ", ";

		appendStringInfo(&names, "%s%s", sep,
						 get_attname(relid, child ? fk->child_atts[i] : fk->parent_atts[i], false));
		appendStringInfo(&texts, "%s%s", sep, value_text(fk, child, i, values[i]));
	}
	return psprintf("(%s)=(%s)", names.data, texts.data);
}

int64
ent_fkquery_hash(EntForeignKey *fk, bool parent_comes, bool child,
				 const Datum *values)
{
	uint64		h = ((uint64) fk->oid << 1) | parent_comes;

	for (int i = 0; i < fk->nkeys; i++)
	{
		char	   *text = value_text(fk, child, i, values[i]);

		h = DatumGetUInt64(hash_any_extended((unsigned char *) text,
											 strlen(text), h));
	}
	return (int64) h;
}
