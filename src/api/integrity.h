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

#endif							/* ENT_API_INTEGRITY_H */
