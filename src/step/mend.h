/*
 * step/mend.h
 *	  Rows and objects that do not belong together, because somebody wrote
 *	  behind capture's back (session_replication_role = replica).
 *
 * An object of a local owner whose row is gone is dead: its deletion is
 * captured late. A row that is no object is nobody's, whatever its values: it
 * is counted, and removed or made an owner's. What is captured and not yet
 * folded, or parked, is neither.
 */
#ifndef ENT_STEP_MEND_H
#define ENT_STEP_MEND_H

#include "postgres.h"

#include "store/relinfo.h"

typedef enum EntMendRows
{
	ENT_MEND_LEAVE = 0,			/* rows that are no objects stay as they are */
	ENT_MEND_REMOVE,			/* ... are deleted as the table's owner */
	ENT_MEND_ADOPT,				/* ... become objects of the owner */
} EntMendRows;

typedef struct EntMend
{
	EntMendRows rows;
	bool		objects;		/* look for objects without a row: */
	int32		owner;			/* this local owner's, or 0: of all; and who
								 * adopts */
	/* answered */
	int64		nrows;			/* that were removed or adopted */
	int64		nobjects;		/* whose deletion was captured */
} EntMend;

/*
 * Looks through one table. In a transaction with SPI; reads it whole, under
 * the newest snapshot, which need not be the caller's. rel as from
 * ent_relinfo_get.
 */
extern void ent_mend(EntRelation *rel, EntMend *m);

#endif							/* ENT_STEP_MEND_H */
