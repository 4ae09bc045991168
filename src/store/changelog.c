/*
 * store/changelog.c
 *	  entanglement.change: what was written and is not folded yet.
 *
 * A heap without index, written as the backend writes its catalogs, since
 * every captured row pays for it.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/shmem.h"
#include "base/wake.h"
#include "store/catalog.h"
#include "store/changelog.h"
#include "store/direct.h"
#include "store/query.h"

static EntQuery keys_query = {
	"SELECT key FROM entanglement.change "
	"WHERE rel OPERATOR(pg_catalog.=) $1 AND key IS NOT NULL "
	"UNION ALL SELECT key FROM entanglement.parked "
	"WHERE rel OPERATOR(pg_catalog.=) $1 AND NOT foreign_key",
	1, {INT4OID}, NULL
};

/* Changes that are written together; NULL: each by itself. */
typedef struct Together
{
	EntDirect  *log;
	int			n;
	Datum		values[ENT_DIRECT_MANY][ENT_CHANGE_ATTRIBUTES];
	bool		nulls[ENT_DIRECT_MANY][ENT_CHANGE_ATTRIBUTES];
} Together;

static Together *together = NULL;

static void
write_row(Datum *values, bool *nulls)
{
	Relation	log = ent_catalog_open(ENT_CATALOG_CHANGE, RowExclusiveLock);
	HeapTuple	tup = heap_form_tuple(RelationGetDescr(log), values, nulls);

	simple_heap_insert(log, tup);
	ent_shmem_log_mark(ItemPointerGetBlockNumber(&tup->t_self));
	heap_freetuple(tup);
	table_close(log, NoLock);
}

void
ent_changelog_flush(void)
{
	if (together == NULL || together->n == 0)
		return;
	ent_direct_insert_many(together->log, together->n, together->values[0],
						   together->nulls[0]);
	for (int i = 0; i < together->n; i++)
		ent_shmem_log_mark(ItemPointerGetBlockNumber(ent_direct_written(together->log, i)));
	together->n = 0;
}

void
ent_changelog_together(void (*fn) (void *arg), void *arg)
{
	together = palloc(sizeof(Together));
	together->n = 0;
	PG_TRY();
	{
		together->log = ent_direct_open(ENT_CATALOG_CHANGE, ENT_CATALOGS,
										RowExclusiveLock, GetActiveSnapshot());
		fn(arg);
		ent_changelog_flush();
		ent_direct_close(together->log);
	}
	PG_FINALLY();
	{
		together = NULL;
	}
	PG_END_TRY();
}

static void
write_change(int32 rel, int32 owner, char op, bytea *key, bytea *columns,
			 XLogRecPtr place, bytea *image, bytea *digests)
{
	Datum		one[ENT_CHANGE_ATTRIBUTES];
	bool		its[ENT_CHANGE_ATTRIBUTES];
	Datum	   *values = together ? together->values[together->n] : one;
	bool	   *nulls = together ? together->nulls[together->n] : its;
	bool		ordered = !XLogRecPtrIsInvalid(place);

	memset(nulls, 0, ENT_CHANGE_ATTRIBUTES * sizeof(bool));
	values[ENT_CHANGE_REL - 1] = Int32GetDatum(rel);
	values[ENT_CHANGE_OWNER - 1] = Int32GetDatum(owner);
	values[ENT_CHANGE_OP - 1] = CharGetDatum(op);
	values[ENT_CHANGE_KEY - 1] = PointerGetDatum(key);
	nulls[ENT_CHANGE_KEY - 1] = key == NULL;
	values[ENT_CHANGE_COLUMNS - 1] = PointerGetDatum(columns);
	nulls[ENT_CHANGE_COLUMNS - 1] = columns == NULL;
	values[ENT_CHANGE_PLACE - 1] = LSNGetDatum(place);
	nulls[ENT_CHANGE_PLACE - 1] = !ordered;
	values[ENT_CHANGE_XID - 1] = TransactionIdGetDatum(ordered ? GetTopTransactionId() : InvalidTransactionId);
	nulls[ENT_CHANGE_XID - 1] = !ordered;
	values[ENT_CHANGE_IMAGE - 1] = PointerGetDatum(image);
	nulls[ENT_CHANGE_IMAGE - 1] = image == NULL;
	values[ENT_CHANGE_DIGESTS - 1] = PointerGetDatum(digests);
	nulls[ENT_CHANGE_DIGESTS - 1] = digests == NULL;

	if (together == NULL)
		write_row(values, nulls);
	else if (++together->n == ENT_DIRECT_MANY)
		ent_changelog_flush();
	ent_wake_collector_at_commit();
}

void
ent_changelog_write(int32 rel, int32 owner, char op, bytea *key,
					bytea *columns)
{
	write_change(rel, owner, op, key, columns, InvalidXLogRecPtr, NULL, NULL);
}

/*
 * Who changes an object after us waits for our commit, so the place in the log
 * rises with an object's changes.
 */
void
ent_changelog_write_state(int32 rel, int32 owner, char op, bytea *key,
						  bytea *columns, bytea *image)
{
	write_change(rel, owner, op, key, columns, GetXLogInsertRecPtr(), image, NULL);
}

void
ent_changelog_write_told(int32 rel, char op, bytea *key, bytea *columns,
						 XLogRecPtr place, bytea *digests)
{
	write_change(rel, 0, op, key, columns, place, NULL, digests);
}

void
ent_changelog_written(void)
{
	for (int i = 0; i < ENT_LOG_MARKS; i++)
		ent_shmem_log_mark(i);
	ent_wake_collector_at_commit();
}

static int
compare_keys(const void *a, const void *b)
{
	const bytea *x = *(bytea *const *) a,
			   *y = *(bytea *const *) b;
	Size		nx = VARSIZE_ANY_EXHDR(x),
				ny = VARSIZE_ANY_EXHDR(y);
	int			c = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(nx, ny));

	return c != 0 ? c : (nx > ny) - (nx < ny);
}

void
ent_changelog_keys(int32 rel, Snapshot snapshot, EntKeySet *set)
{
	Datum		args[1] = {Int32GetDatum(rel)};

	ent_query_run(&keys_query, args, NULL, SPI_OK_SELECT, snapshot);
	set->n = SPI_processed;
	set->keys = MemoryContextAllocHuge(CurrentMemoryContext,
									   (SPI_processed + 1) * sizeof(bytea *));
	for (int i = 0; i < set->n; i++)
	{
		bool		null;

		set->keys[i] = DatumGetByteaPCopy(ent_query_datum(i, 1, &null));
	}
	SPI_freetuptable(SPI_tuptable);
	qsort(set->keys, set->n, sizeof(bytea *), compare_keys);
}

bool
ent_changelog_has(const EntKeySet *set, bytea *key)
{
	return bsearch(&key, set->keys, set->n, sizeof(bytea *), compare_keys) != NULL;
}
