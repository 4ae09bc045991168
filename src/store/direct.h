/*
 * store/direct.h
 *	  Tables, mostly our own, by key, without a plan.
 *
 * What a single change costs is mostly the making and unmaking of executor
 * states: so the tables that every change touches are looked up, written and
 * scanned here as the backend does it with its catalogs, index by index. Nobody's
 * rights are checked. Values are those of the table's columns in order.
 */
#ifndef ENT_STORE_DIRECT_H
#define ENT_STORE_DIRECT_H

#include "postgres.h"

#include "access/skey.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "store/catalog.h"

typedef struct EntDirect EntDirect;

/*
 * Conditions that the columns of a btree's key are equal to what the caller fills in
 * as sk_argument, in their order; returns how many.
 */
extern int	ent_direct_keys(Relation index, ScanKeyData *keys);

typedef enum EntDirectResult
{
	ENT_DIRECT_DONE,
	ENT_DIRECT_BY_US,			/* this command has written that row already */
	ENT_DIRECT_BY_OTHERS		/* somebody else has, or is about to commit it */
} EntDirectResult;

/*
 * Opens a table, to be looked up by a unique index of it (ENT_CATALOGS: by none),
 * under a snapshot, which the caller keeps; NULL: the newest that the transaction may
 * take, which sees what it has written itself so far. The lock stays until the transaction ends. Lives
 * in the current memory context.
 */
extern EntDirect *ent_direct_open(EntCatalog table, EntCatalog index,
								  LOCKMODE lock, Snapshot snapshot);
/*
 * The same for any table that is no partitioned one, and any btree of it that is unique
 * (InvalidOid: none).
 */
extern EntDirect *ent_direct_open_table(Oid table, Oid index, LOCKMODE lock,
										Snapshot snapshot);
extern void ent_direct_close(EntDirect *d);
extern Relation ent_direct_heap(const EntDirect *d);

/* The row with that key, valid until the next call; NULL: there is none. */
extern TupleTableSlot *ent_direct_find(EntDirect *d, const Datum *key);
/*
 * Of an index with one column (ent_direct_is_simple): rows with keys from lo to hi, one by
 * one in their order there, as ent_direct_find; and how two keys are to each other. No more
 * than *left entries of the index are looked at, also of rows that the snapshot does not show.
 */
extern bool ent_direct_is_simple(EntDirect *d);
extern void ent_direct_begin_range(EntDirect *d, Datum lo, Datum hi);
extern TupleTableSlot *ent_direct_next(EntDirect *d, int *left);
extern int	ent_direct_compare(EntDirect *d, Datum a, Datum b);

/*
 * The version at tid of whatever row, likewise; NULL: none that the snapshot shows. tid may
 * be wrong, or of another time.
 */
extern TupleTableSlot *ent_direct_at(EntDirect *d, const ItemPointerData *tid);
/* Is there one whose key begins with these n values? */
extern bool ent_direct_any(EntDirect *d, int n, const Datum *key);

/*
 * Has the index an entry with such a key, be it of a row that nobody sees? keys: conditions
 * as of an index scan. Takes no longer when there are many.
 */
extern bool ent_direct_any_entry(EntDirect *d, int n, ScanKeyData *keys);

/*
 * Calls fn with each row in their order in the table until it returns false. fn
 * may delete the row.
 */
extern void ent_direct_scan(EntDirect *d,
							bool (*fn) (void *arg, TupleTableSlot *slot),
							void *arg);

/*
 * Change the row at tid, which was found under the snapshot. What others have
 * written meanwhile is waited for. What unique indexes are over stays as it is.
 */
extern EntDirectResult ent_direct_update(EntDirect *d, const ItemPointerData *tid,
										 const Datum *values, const bool *nulls);
extern EntDirectResult ent_direct_delete(EntDirect *d, const ItemPointerData *tid);
/*
 * Locks the row at tid, or its newest version, as an UPDATE of it would, until the
 * transaction ends; returns that version as ent_direct_find does. NULL: it has been
 * deleted.
 */
extern TupleTableSlot *ent_direct_lock(EntDirect *d, const ItemPointerData *tid);
/*
 * Raises ERRCODE_UNIQUE_VIOLATION when a unique index has that key, which the
 * caller has looked for: it comes twice, or somebody has been faster.
 */
extern void ent_direct_insert(EntDirect *d, const Datum *values, const bool *nulls);

/* Can rows be inserted so, for all that the table's indexes ask for? */
extern bool ent_direct_indexes_plain(EntDirect *d);

#define ENT_DIRECT_MANY	256

/*
 * The same for n rows, at most so many; their values one after the other. Constraints of the
 * table are checked.
 */
extern void ent_direct_insert_many(EntDirect *d, int n, const Datum *values,
								   const bool *nulls);

/* Where the rows that were written last are, or (0) the row or version. */
extern const ItemPointerData *ent_direct_written(const EntDirect *d, int i);

/* Columns of a row; NULL is 0. */
extern bool ent_direct_bool(TupleTableSlot *slot, AttrNumber attnum);
extern int32 ent_direct_int4(TupleTableSlot *slot, AttrNumber attnum);
extern int64 ent_direct_int8(TupleTableSlot *slot, AttrNumber attnum);
/* A copy in the current memory context; NULL: the column is. */
extern bytea *ent_direct_bytea(TupleTableSlot *slot, AttrNumber attnum);

#endif							/* ENT_STORE_DIRECT_H */
