/*
 * step/capture.h
 *	  In the writer's transaction: note which object changed.
 *
 * Two C trigger functions: AFTER ROW on INSERT, UPDATE, DELETE (trigger
 * entanglement_capture on the root table, cloned to its partitions), and
 * BEFORE STATEMENT on TRUNCATE (entanglement_truncate on the table, or on each leaf
 * partition). They take no arguments: a table is known by its oid or by its
 * ancestors', and on a table that is not synchronized, as after restoring a dump, they do
 * nothing. Rows go into entanglement.change directly (no SPI). An UPDATE that
 * changes no column writes nothing; one that changes the key writes a delete and a
 * birth. Skips everything while ent_rowquery_applying (store/rowquery.h) is set. Works without
 * the library being preloaded.
 */
#ifndef ENT_STEP_CAPTURE_H
#define ENT_STEP_CAPTURE_H

#include "postgres.h"

#include "access/transam.h"

/*
 * Writes an 'I' change for every row that relation.no's table holds now:
 * take-over of existing rows; the caller holds a lock that keeps writers
 * out. Returns the number of rows.
 */
extern uint64 ent_capture_existing(int32 rel, int32 owner);

/*
 * Writes a change for every row of one table with storage (relid), which is that of
 * relation.no, a partition of it, or was one until just now; lock as above.
 * op (rule/coalesce.h): INSERT, born to owner; or DELETE, refused if an owner is
 * remote.
 */
extern uint64 ent_capture_rows(Oid relid, int32 rel, char op, int32 owner);
/*
 * A change of all columns for each of its rows, but for those of remote owners, that
 * was written by the transaction first or a later one, and for some older ones;
 * for all rows, if first is invalid. Any lock will do.
 */
extern uint64 ent_capture_rows_since(Oid relid, int32 rel, FullTransactionId first);

/*
 * All objects of the table have to be looked at: the rows of a partition are
 * gone. Refused (55000) while any row of the table has a remote owner.
 */
extern void ent_capture_vanished(int32 rel);

#endif							/* ENT_STEP_CAPTURE_H */
