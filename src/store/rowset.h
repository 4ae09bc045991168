/*
 * store/rowset.h
 *	  Statements on users' tables for many rows at once.
 *
 * What rowquery.h does row by row, at a fraction of the cost: the statement is started
 * once, and reads keys or rows from a relation that exists only in memory. An error of
 * one row is an error of all of them. Statements run as whoever is the current user.
 * SPI must be connected.
 */
#ifndef ENT_STORE_ROWSET_H
#define ENT_STORE_ROWSET_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "store/relinfo.h"

typedef struct EntRowsetRow
{
	const Datum *key;			/* by key column */
	Datum	   *values;			/* by column */
	bool	   *nulls;
	bool		found;			/* of read and update: there is such a row */
} EntRowsetRow;

/* As ent_rowquery_read, of each of the n rows; read-only. */
extern void ent_rowset_read(EntRelation *rel, const bool *may,
							const char *filter, EntRowsetRow *rows, int n,
							Snapshot snapshot);

/*
 * As ent_rowquery_insert, all of the same set of columns. AFTER triggers fire when all
 * are there. Fewer than n rows: a trigger kept some out.
 */
extern uint64 ent_rowset_insert(EntRelation *rel, const bool *set,
								EntRowsetRow *rows, int n);

/* Can rows be updated so with these columns? If not, then one by one. */
extern bool ent_rowset_updates(EntRelation *rel, const bool *set);

/*
 * As ent_rowquery_update, all of the same set of columns. Triggers likewise. Tells which
 * were found; a key that comes twice is found once.
 */
extern void ent_rowset_update(EntRelation *rel, const bool *set,
							  EntRowsetRow *rows, int n);

#endif							/* ENT_STORE_ROWSET_H */
