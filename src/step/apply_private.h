/*
 * step/apply_private.h
 *	  What the files of apply share: a copy, and writing it as the peer's role.
 */
#ifndef ENT_STEP_APPLY_PRIVATE_H
#define ENT_STEP_APPLY_PRIVATE_H

#include "postgres.h"

#include "step/apply.h"

/* What is here of one row's object. */
typedef struct EntApplyCopy
{
	bytea	   *key;			/* local image */
	bool		foreign_key;	/* no, the peer's: it has no equivalent here */
	Datum		values[ENT_WIRE_MAX_KEYS];
	bool		exists;			/* object row: */
	int32		owner;
	int32		epoch;
	int64		serial;
	int64		born;
	bytea	   *columns;
	bool		parked;
	bool		buried;			/* tombstone of this owner: */
	int32		grave_epoch;
	int64		grave_serial;
	bool		taken_out;		/* its row, which had by local column: */
	Datum	   *old;
	bool	   *old_nulls;
} EntApplyCopy;

typedef enum EntApplyOutcome
{
	ENT_APPLY_STORED,
	ENT_APPLY_MISSING,			/* delta on a row that is not there */
	ENT_APPLY_INVISIBLE,		/* the row exists, but not for this role */
} EntApplyOutcome;

typedef struct EntApplyWrite
{
	EntApply   *a;
	EntApplyCopy *c;
	EntApplyRow *r;
	bool		careful;		/* an INSERT failed before: look first */
	EntApplyOutcome outcome;
} EntApplyWrite;

/*
 * Stores the row as the peer's role, triggers asleep, nothing captured. Errors
 * are the row's or the server's.
 */
extern void ent_apply_write(EntApplyWrite *w);

/*
 * Takes the row of the copy out, so that other rows can have its place in an
 * index; the next write puts it in again. Only within a subtransaction that
 * fails if that does not come about. Nothing happens if the role does not see it.
 */
extern void ent_apply_take_out(EntApplyWrite *w);

#endif							/* ENT_STEP_APPLY_PRIVATE_H */
