/*
 * store/image.h
 *	  All values of a row, as bytes that travel, to be kept after the row is no
 *	  more.
 *
 * By column: its number in the root table, type, format, and the value as
 * ent_value_encode makes it. What the key says is left out. Of use only in the
 * database that made it.
 */
#ifndef ENT_STORE_IMAGE_H
#define ENT_STORE_IMAGE_H

#include "postgres.h"

#include "executor/tuptable.h"

#include "store/relinfo.h"
#include "store/triggered.h"

/* Of a row of the table or partition; in the current context. */
extern bytea *ent_image_make(EntTriggered *t, TupleTableSlot *slot);

/* Of the row with that key as it is now, whoever may see it; NULL: none. */
extern bytea *ent_image_of_row(EntRelation *rel, const Datum *key);

/*
 * Values by column, pointing into the image; data[i] NULL: SQL NULL. False when
 * one of the needed ones is missing, because the column came later or had
 * another type.
 */
extern bool ent_image_read(EntRelation *rel, bytea *image, const bool *needed,
						   const char **data, size_t *len);

#endif							/* ENT_STORE_IMAGE_H */
