/*
 * api/integrity.h
 *	  Tables with integrity reference none but tables with integrity.
 */
#ifndef ENT_API_INTEGRITY_H
#define ENT_API_INTEGRITY_H

#include "postgres.h"

#include "store/foreignkey.h"

/* The caller owns what a table references, where that changes with it. */
extern void ent_integrity_check_owners(Oid relid);

/* Raises ERRCODE_FEATURE_NOT_SUPPORTED for a foreign key with PERIOD. */
extern void ent_integrity_refuse_temporal(const EntForeignKey *fk);

/*
 * Raises ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST when another table with integrity
 * references this one.
 */
extern void ent_integrity_refuse_leaving(Oid relid);

/* Raises ERRCODE_FEATURE_NOT_SUPPORTED: it is, or is to be, with every_state. */
extern void ent_integrity_refuse_states(const char *table);

/*
 * Puts tables with integrity in order by their foreign keys; raises
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE for one that references a table that
 * is not synchronized. SPI must be connected.
 */
extern void ent_integrity_settle(void);

#endif							/* ENT_API_INTEGRITY_H */
