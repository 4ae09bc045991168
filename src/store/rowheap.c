/*
 * store/rowheap.c
 *	  Rows of users' tables read and written without a statement.
 *
 * Whatever else there is about a table (row-level security, triggers that fire, rules,
 * generated columns, defaults that are wanted, somebody who wants to be asked) is left to
 * a statement.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "store/direct.h"
#include "store/rowheap.h"

/* Is the right to the table all that it takes? */
static bool
is_plain(Relation heap, AclMode mode)
{
	Oid			user = GetUserId();

	return heap->rd_rel->relkind == RELKIND_RELATION &&
		!heap->rd_rel->relispartition && !heap->rd_rel->relhasrules &&
		ExecutorCheckPerms_hook == NULL &&
		ent_compat_schema_usage(RelationGetNamespace(heap), user) &&
		pg_class_aclcheck(RelationGetRelid(heap), user, mode) == ACLCHECK_OK &&
		check_enable_rls(RelationGetRelid(heap), InvalidOid, true) == RLS_NONE;
}

/* ---- reading ---- */

#define FEW_ROWS	16			/* are looked up one by one */

static void
take_row(EntRelation *rel, const bool *may, TupleTableSlot *slot, EntRowsetRow *row)
{
	row->found = true;
	for (int c = 0; c < rel->ncolumns; c++)
	{
		EntColumn  *col = &rel->columns[c];
		Datum		value;

		if (!may[c])
			continue;
		value = slot_getattr(slot, col->attnum, &row->nulls[c]);
		row->values[c] = row->nulls[c] ? (Datum) 0 :
			datumCopy(value, col->typbyval, col->typlen);
	}
}

/* Of so many rows, from the first one on, the keys rise, in an index with one column. */
static int
rising(EntDirect *d, const EntRowsetRow *rows, int n)
{
	int			run = 1;

	while (run < n && ent_direct_compare(d, rows[run - 1].key[0], rows[run].key[0]) < 0)
		run++;
	return run;
}

/*
 * Rows whose keys rise, by one walk through the index, which is given up when it leads by
 * more than are asked for. How many are done.
 */
static int
read_in_order(EntDirect *d, EntRelation *rel, const bool *may, EntRowsetRow *rows, int n)
{
	AttrNumber	key = rel->columns[rel->keys[0]].attnum;
	TupleTableSlot *slot;
	int			left = 2 * n,
				i = 0;

	ent_direct_begin_range(d, rows[0].key[0], rows[n - 1].key[0]);
	while ((slot = ent_direct_next(d, &left)) != NULL)
	{
		bool		null;
		Datum		value = slot_getattr(slot, key, &null);
		int			order = -1;

		while (i < n && (order = ent_direct_compare(d, rows[i].key[0], value)) < 0)
			rows[i++].found = false;
		if (i < n && order == 0)
			take_row(rel, may, slot, &rows[i++]);
	}
	while (left > 0 && i < n)
		rows[i++].found = false;
	return i;
}

static void
read_one_by_one(EntDirect *d, EntRelation *rel, const bool *may, EntRowsetRow *rows, int n)
{
	for (int i = 0; i < n; i++)
	{
		TupleTableSlot *slot = ent_direct_find(d, rows[i].key);

		rows[i].found = slot != NULL;
		if (slot != NULL)
			take_row(rel, may, slot, &rows[i]);
	}
}

bool
ent_rowheap_read(EntRelation *rel, const bool *may, EntRowsetRow *rows, int n,
				 Snapshot snapshot)
{
	EntDirect  *d = ent_direct_open_table(rel->relid, rel->key_index, AccessShareLock,
										  snapshot);
	bool		plain = is_plain(ent_direct_heap(d), ACL_SELECT);
	bool		simple = plain && ent_direct_is_simple(d);

	for (int from = 0, to; from < n && plain; from = to)
	{
		int			done = 0;

		to = simple ? from + rising(d, rows + from, n - from) : n;
		if (simple && to - from >= FEW_ROWS)
			done = read_in_order(d, rel, may, rows + from, to - from);
		read_one_by_one(d, rel, may, rows + from + done, to - from - done);
	}
	ent_direct_close(d);
	return plain;
}

/* ---- writing ---- */

/* The executor would call no trigger of rows that a peer sends. */
static bool
triggers_sleep(Relation heap)
{
	TriggerDesc *desc = heap->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		const Trigger *t = &desc->triggers[i];

		if (TRIGGER_FOR_INSERT(t->tgtype) &&
			(SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA ||
			 t->tgenabled == TRIGGER_FIRES_ON_REPLICA || t->tgenabled == TRIGGER_FIRES_ALWAYS))
			return false;
	}
	return true;
}

/* Where a row's values come from, by attribute. */
typedef struct Source
{
	int			key;			/* 1-based position in the key, or 0: */
	int			column;
} Source;

/* false: not all of them are given as they are stored. */
static bool
find_sources(EntRelation *rel, const bool *set, TupleDesc desc, Source *sources)
{
	int			c = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col;

		if (att->attisdropped)
			continue;
		while (c < rel->ncolumns && rel->columns[c].attnum < att->attnum)
			c++;
		col = &rel->columns[c];
		if (c == rel->ncolumns || col->attnum != att->attnum || col->type != att->atttypid ||
			att->attgenerated != '\0' || (!set[c] && col->key == 0))
			return false;
		sources[i].column = c;
		if (set[c] && !col->in_key_only)
			continue;
		/* how long a value may be is known of those that were sent */
		sources[i].key = col->key;
		if (att->atttypmod >= 0)
			return false;
	}
	return true;
}

static void
fill_values(const Source *sources, TupleDesc desc, const EntRowsetRow *row, Datum *values,
			bool *nulls)
{
	for (int i = 0; i < desc->natts; i++)
	{
		const Source *s = &sources[i];

		nulls[i] = TupleDescAttr(desc, i)->attisdropped ||
			(s->key == 0 && row->nulls[s->column]);
		values[i] = nulls[i] ? (Datum) 0 :
			s->key != 0 ? row->key[s->key - 1] : row->values[s->column];
	}
}

static void
insert(EntDirect *d, const Source *sources, const EntRowsetRow *rows, int n)
{
	TupleDesc	desc = RelationGetDescr(ent_direct_heap(d));
	int			max = Min(n, ENT_DIRECT_MANY);
	Datum	   *values = palloc(max * desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(max * desc->natts * sizeof(bool));

	/* for functions of constraints and indexes */
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int from = 0; from < n; from += max)
	{
		int			some = Min(max, n - from);

		for (int i = 0; i < some; i++)
			fill_values(sources, desc, &rows[from + i], values + i * desc->natts,
						nulls + i * desc->natts);
		ent_direct_insert_many(d, some, values, nulls);
	}
	PopActiveSnapshot();
	CommandCounterIncrement();
	pfree(values);
	pfree(nulls);
}

bool
ent_rowheap_insert(EntRelation *rel, const bool *set, EntRowsetRow *rows, int n)
{
	EntDirect  *d = ent_direct_open_table(rel->relid, InvalidOid, RowExclusiveLock,
										  InvalidSnapshot);
	Relation	heap = ent_direct_heap(d);
	Source	   *sources = palloc0(RelationGetDescr(heap)->natts * sizeof(Source));
	bool		plain = is_plain(heap, ACL_INSERT) && triggers_sleep(heap) &&
		find_sources(rel, set, RelationGetDescr(heap), sources) &&
		ent_direct_indexes_plain(d);

	if (plain)
		insert(d, sources, rows, n);
	ent_direct_close(d);
	pfree(sources);
	return plain;
}
