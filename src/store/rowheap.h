/*
 * store/rowheap.h
 *	  Rows of users' tables read and written without a statement.
 *
 * What rowset.h does, for a fraction of that: where it comes to the same. So it does for
 * plain tables of which nothing but the current user's rights to the whole table decides,
 * and for whose new rows nothing has to be made up or done besides.
 */
#ifndef ENT_STORE_ROWHEAP_H
#define ENT_STORE_ROWHEAP_H

#include "postgres.h"

#include "store/rowset.h"

/* As ent_rowset_read; false: it takes a statement, and nothing has been done. */
extern bool ent_rowheap_read(EntRelation *rel, const bool *may, EntRowsetRow *rows,
							 int n, Snapshot snapshot);

/*
 * As ent_rowset_insert; likewise. That a key is there already is said as ent_direct_insert
 * does.
 */
extern bool ent_rowheap_insert(EntRelation *rel, const bool *set, EntRowsetRow *rows,
							   int n);

#endif							/* ENT_STORE_ROWHEAP_H */
