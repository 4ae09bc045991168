/*
 * store/rowquery.h
 *	  Statements on users' tables, prepared per table: by key look, read,
 *	  update, insert, delete.
 *
 * Plans are kept per process and rebuilt when the table's EntRelation is
 * (generation). Statements run as whoever is the current user, so rights and
 * row-level security are that user's at that moment; all names, operators included,
 * are schema-qualified. SPI must be connected.
 */
#ifndef ENT_STORE_ROWQUERY_H
#define ENT_STORE_ROWQUERY_H

#include "postgres.h"

#include "executor/spi.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "store/relinfo.h"

/*
 * Set (and restored, also on error) around the writes of apply: capture
 * skips what a peer wrote.
 */
extern bool ent_rowquery_applying;

/*
 * Whoever may see the row, under that snapshot (NULL: the newest): a look
 * into the key's index that runs nobody's code and needs no SPI.
 */
extern bool ent_rowquery_exists(EntRelation *rel, const Datum *key,
								Snapshot snapshot);

/* The same, and calls fn with the row, if there is one and fn is not NULL. */
typedef void (*EntRowVisitor) (void *arg, Relation heap, TupleTableSlot *slot);
extern bool ent_rowquery_visit(EntRelation *rel, const Datum *key,
							   Snapshot snapshot, EntRowVisitor fn, void *arg);

/*
 * Appends " WHERE ..." for the row of a table, called t, whose key is $1, $2, ...
 */
extern void ent_rowquery_where(StringInfo sql, EntRelation *rel);

/*
 * Reads the columns with may[i] set of the row with that key under snapshot,
 * read-only. Fills values/nulls by column index (others are left alone), in
 * the current memory context. false: no such row for this user, or the filter is
 * not true of it. filter: what ent_filter_sql made (then this needs
 * ent_value_enter, and raises what the filter raises on that row), or NULL.
 */
extern bool ent_rowquery_read(EntRelation *rel, const bool *may,
							  const char *filter, const Datum *key,
							  Snapshot snapshot, Datum *values, bool *nulls);

/*
 * Calls fn with the key of each row that the current user sees, under the
 * active snapshot, read-only. Not prepared. fn may switch contexts, not users.
 */
extern void ent_rowquery_keys(EntRelation *rel,
							  void (*fn) (void *arg, const Datum *key), void *arg);

/*
 * May the current user see the row with that key? Raises
 * ERRCODE_INSUFFICIENT_PRIVILEGE without the right to read the key columns.
 * filter: as of ent_rowquery_read.
 */
extern bool ent_rowquery_visible(EntRelation *rel, const char *filter,
								 const Datum *key);

/*
 * The same, and locks the row against changes until the transaction ends;
 * needs the right to UPDATE it.
 */
extern bool ent_rowquery_lock(EntRelation *rel, const Datum *key);

/*
 * set[i]: column i is given in values/nulls. UPDATE leaves key columns that are in_key_only
 * alone, and becomes DELETE and INSERT when it sets an identity_always column.
 * Return the number of rows.
 */
extern uint64 ent_rowquery_update(EntRelation *rel, const bool *set,
								  const Datum *key, const Datum *values,
								  const bool *nulls);
extern uint64 ent_rowquery_insert(EntRelation *rel, const bool *set,
								  const Datum *key, const Datum *values,
								  const bool *nulls);
/*
 * A new row of these columns, the rest by default; the key it got goes to key,
 * in the current context. Not prepared. Number of rows.
 */
extern uint64 ent_rowquery_create(EntRelation *rel, const bool *set,
								  const Datum *values, const bool *nulls,
								  Datum *key);
extern uint64 ent_rowquery_delete(EntRelation *rel, const Datum *key);
/*
 * The same between AfterTriggerBeginQuery and AfterTriggerEndQuery, the latter
 * of which fires AFTER triggers, foreign keys among them: as if all that is
 * deleted were deleted by one statement.
 */
extern uint64 ent_rowquery_delete_together(EntRelation *rel, const Datum *key);

#endif							/* ENT_STORE_ROWQUERY_H */
