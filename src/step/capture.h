/*
 * step/capture.h
 *	  In the writer's transaction: note which object changed.
 *
 * One C trigger function, AFTER ROW on INSERT, UPDATE, DELETE and AFTER
 * STATEMENT on TRUNCATE, named entanglement_capture; its argument is
 * relation.no, so that clones on partitions know their root. Inserts rows
 * into entanglement.change directly (no SPI). An UPDATE that changes no column
 * writes nothing; one that changes the key writes a delete and a birth.
 * Skips everything while ent_rowquery_applying (store/rowquery.h) is set. Works without the library being preloaded.
 */
#ifndef ENT_STEP_CAPTURE_H
#define ENT_STEP_CAPTURE_H

#include "postgres.h"

/*
 * Writes an 'I' change for every row that relation.no's table holds now:
 * take-over of existing rows; the caller holds a lock that keeps writers
 * out. Returns the number of rows.
 */
extern uint64 ent_capture_existing(int32 rel, int32 owner);

#endif							/* ENT_STEP_CAPTURE_H */
