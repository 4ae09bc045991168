/*
 * store/foreignkey.c
 *	  Foreign keys between synchronized tables that keep them (integrity).
 *
 * Read from pg_constraint and cached until a constraint or one of our tables
 * changes. Constraints that PostgreSQL derived for partitions are left out: the
 * one they come from speaks for them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/wake.h"
#include "rule/rank.h"
#include "store/catalog.h"
#include "store/foreignkey.h"
#include "store/query.h"
#include "store/relinfo.h"

static EntQuery tables_query = {
	"SELECT no, relid::pg_catalog.oid, priority, priority_given, integrity "
	"FROM entanglement.relation ORDER BY no",
	0, {0}, NULL
};
/* Only tables with integrity get another priority. */
static EntQuery settle_query = {
	"UPDATE entanglement.relation SET integrity = true, priority = $2 "
	"WHERE no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT4OID}, NULL
};

static MemoryContext cache_context = NULL;
static List *cache = NIL;
static uint64 cached_version = 0;	/* of relinfo; 0: nothing cached */

static void
constraint_changed(Datum arg, int cacheid, uint32 hash)
{
	cached_version = 0;
}

void
ent_foreignkey_init(void)
{
	CacheRegisterSyscacheCallback(CONSTROID, constraint_changed, (Datum) 0);
}

/* ---- reading ---- */

static Oid
root_of(Oid relid)
{
	List	   *ancestors;

	if (!get_rel_relispartition(relid))
		return relid;
	ancestors = get_partition_ancestors(relid);
	return ancestors == NIL ? relid : llast_oid(ancestors);
}

static EntForeignKey *
read_constraint(HeapTuple tup, Oid root)
{
	Form_pg_constraint form = (Form_pg_constraint) GETSTRUCT(tup);
	EntForeignKey *fk = palloc0(sizeof(EntForeignKey));
	int			unused;

	fk->oid = form->oid;
	fk->name = form->conname;
	fk->child = form->conrelid;
	fk->parent = form->confrelid;
	fk->child_root = root;
	fk->parent_root = root_of(form->confrelid);
	fk->full = form->confmatchtype == 'f';
	fk->temporal = ent_compat_foreign_key_temporal(form);
	DeconstructFkConstraintRow(tup, &fk->nkeys, fk->child_atts, fk->parent_atts,
							   fk->operators, fk->parent_operators, NULL, &unused,
							   NULL);
	return fk;
}

/* Those of a table itself. */
static List *
read_table(Oid relid, Oid root, List *fks)
{
	Relation	rel = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tup;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, ConstraintRelidTypidNameIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		Form_pg_constraint form = (Form_pg_constraint) GETSTRUCT(tup);

		if (form->contype == CONSTRAINT_FOREIGN &&
			!OidIsValid(form->conparentid) &&
			ent_compat_foreign_key_enforced(form))
			fks = lappend(fks, read_constraint(tup, root));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return fks;
}

List *
ent_foreignkey_of(Oid root)
{
	List	   *fks = NIL;
	ListCell   *lc;

	if (get_rel_relkind(root) != RELKIND_PARTITIONED_TABLE)
		return read_table(root, root, NIL);
	foreach(lc, find_all_inheritors(root, NoLock, NULL))
		fks = read_table(lfirst_oid(lc), root, fks);
	return fks;
}

static int
by_child(const ListCell *a, const ListCell *b)
{
	const EntForeignKey *x = lfirst(a),
			   *y = lfirst(b);

	if (x->child_rel != y->child_rel)
		return x->child_rel < y->child_rel ? -1 : 1;
	return (x->oid > y->oid) - (x->oid < y->oid);
}

/* ---- the cache ---- */

/* Where the referenced columns are in the parent. */
static void
find_columns(EntForeignKey *fk, EntRelation *parent)
{
	fk->by_key = true;
	for (int i = 0; i < fk->nkeys; i++)
	{
		char	   *name = get_attname(fk->parent, fk->parent_atts[i], true);
		EntColumn  *col = name ? ent_relinfo_column(parent, name) : NULL;

		fk->parent_columns[i] = col ? col - parent->columns : -1;
		if (col == NULL || col->key == 0)
			fk->by_key = false;
	}
}

List *
ent_foreignkey_read_all(void)
{
	List	   *rels = ent_relinfo_all();
	List	   *fks = NIL;
	ListCell   *lc,
			   *lf;

	foreach(lc, rels)
	{
		EntRelation *rel = lfirst(lc);

		if (!rel->integrity)
			continue;
		foreach(lf, ent_foreignkey_of(rel->relid))
		{
			EntForeignKey *fk = lfirst(lf);
			EntRelation *parent = ent_relinfo_by_oid(fk->parent_root);

			fk->child_rel = rel->no;
			fk->parent_rel = parent ? parent->no : 0;
			if (parent)
				find_columns(fk, parent);
			if (!fk->temporal)
				fks = lappend(fks, fk);
		}
	}
	list_sort(fks, by_child);
	return fks;
}

List *
ent_foreignkey_all(void)
{
	MemoryContext old;
	uint64		version;

	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "entanglement foreign keys",
											  ALLOCSET_SMALL_SIZES);
	version = ent_relinfo_version();
	if (cached_version == version)
		return cache;
	cache = NIL;
	MemoryContextReset(cache_context);
	/* what changes while it is read is read again next time */
	cached_version = version;
	old = MemoryContextSwitchTo(cache_context);
	PG_TRY();
	{
		cache = ent_foreignkey_read_all();
	}
	PG_CATCH();
	{
		cached_version = 0;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return cache;
}

/* ---- priorities ---- */

typedef struct Table
{
	int32		no;
	Oid			relid;
	int32		priority;
	bool		given;
	bool		integrity;
	bool		gets_integrity;
	int32		new_priority;
} Table;

static Table *
read_tables(int *n)
{
	Table	   *tables;

	ent_query_run(&tables_query, NULL, NULL, SPI_OK_SELECT, NULL);
	*n = SPI_processed;
	tables = palloc0((*n + 1) * sizeof(Table));
	for (int i = 0; i < *n; i++)
	{
		bool		null;

		tables[i].no = ent_query_int4(i, 1, NULL);
		tables[i].relid = DatumGetObjectId(ent_query_datum(i, 2, &null));
		tables[i].priority = ent_query_int4(i, 3, NULL);
		tables[i].given = ent_query_bool(i, 4);
		tables[i].integrity = ent_query_bool(i, 5);
	}
	SPI_freetuptable(SPI_tuptable);
	return tables;
}

static int
find_table(const Table *tables, int n, Oid relid)
{
	for (int i = 0; i < n; i++)
		if (tables[i].relid == relid)
			return i;
	return -1;
}

/*
 * The foreign keys of one table as edges, tables by index; what it references
 * gets integrity: more is set when that is so. Returns one that cannot be
 * kept, or NULL.
 */
static EntForeignKey *
add_edges(Table *tables, int n, int from, List **edges, bool *more)
{
	ListCell   *lc;

	foreach(lc, ent_foreignkey_of(tables[from].relid))
	{
		EntForeignKey *fk = lfirst(lc);
		EntRankEdge *e = palloc(sizeof(EntRankEdge));
		int			to = find_table(tables, n, fk->parent_root);

		if (to < 0 || fk->temporal)
			return fk;
		e->from = from;
		e->to = to;
		*edges = lappend(*edges, e);
		if (tables[to].integrity || tables[to].gets_integrity)
			continue;
		tables[to].gets_integrity = true;
		*more = true;
	}
	return NULL;
}

static EntForeignKey *
collect_edges(Table *tables, int n, List **edges)
{
	EntForeignKey *bad = NULL;
	bool		more;

	do
	{
		more = false;
		*edges = NIL;
		for (int i = 0; i < n && bad == NULL; i++)
			if (tables[i].integrity || tables[i].gets_integrity)
				bad = add_edges(tables, n, i, edges, &more);
	} while (more && bad == NULL);
	return bad;
}

static void
rank(Table *tables, int n, List *edges)
{
	EntRankEdge *array = palloc((list_length(edges) + 1) * sizeof(EntRankEdge));
	bool	   *given = palloc((n + 1) * sizeof(bool));
	int32	   *ranks = palloc((n + 1) * sizeof(int32));
	int		   *scratch = palloc(ENT_RANK_SCRATCH(n) * sizeof(int));
	int			nedges = 0;
	ListCell   *lc;

	foreach(lc, edges)
		array[nedges++] = *(EntRankEdge *) lfirst(lc);
	for (int i = 0; i < n; i++)
	{
		given[i] = tables[i].given ||
			!(tables[i].integrity || tables[i].gets_integrity);
		ranks[i] = tables[i].priority;
	}
	ent_rank(n, array, nedges, given, ranks, scratch);
	for (int i = 0; i < n; i++)
		tables[i].new_priority = ranks[i];
}

/* What is, and what should be. */
static Table *
plan(int *n, EntForeignKey **bad)
{
	Table	   *tables = read_tables(n);
	List	   *edges;

	*bad = collect_edges(tables, *n, &edges);
	if (*bad == NULL)
		rank(tables, *n, edges);
	return tables;
}

static bool
differs(const Table *t)
{
	return t->gets_integrity || t->new_priority != t->priority;
}

EntForeignKey *
ent_foreignkey_settle(void)
{
	EntForeignKey *bad;
	bool		any = false;
	int			n;
	Table	   *tables = plan(&n, &bad);

	for (int i = 0; bad == NULL && i < n; i++)
		any |= differs(&tables[i]);
	if (!any)
		return bad;
	/* DDL that changes nothing of this waits for nobody */
	LockRelationOid(ent_catalog_oid(ENT_CATALOG_RELATION), ShareRowExclusiveLock);
	tables = plan(&n, &bad);
	if (bad)
		return bad;
	for (int i = 0; i < n; i++)
	{
		Datum		args[2] = {Int32GetDatum(tables[i].no),
		Int32GetDatum(tables[i].new_priority)};

		if (differs(&tables[i]))
			ent_query_run(&settle_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
	ent_relinfo_invalidate();
	ent_wake_routes_at_commit();
	CommandCounterIncrement();
	return NULL;
}
