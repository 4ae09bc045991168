/*
 * step/apply_private.h
 *	  What the files of apply share: a copy, and writing it as the peer's role.
 */
#ifndef ENT_STEP_APPLY_PRIVATE_H
#define ENT_STEP_APPLY_PRIVATE_H

#include "postgres.h"

#include "step/apply.h"
#include "store/journal.h"
#include "store/version.h"

/* What is here of one row's object. */
typedef struct EntApplyCopy
{
	bytea	   *key;			/* local image */
	bool		foreign_key;	/* no, the peer's: it has no equivalent here */
	Datum		values[ENT_WIRE_MAX_KEYS];
	bool		exists;			/* object row: */
	ItemPointerData at;
	int32		owner;
	int32		epoch;
	int64		serial;
	int64		born;
	bool		ahead;			/* the row may be newer than that */
	bytea	   *columns;
	bool		parked;
	bool		buried;			/* tombstone of this owner: */
	int32		grave_epoch;
	int64		grave_serial;
	bool		grave_ahead;	/* the row was perhaps newer than that */
	bool		stored;			/* what came is here now */
	bool		taken_out;		/* its row, which had by local column: */
	Datum	   *old;
	bool	   *old_nulls;
} EntApplyCopy;

typedef enum EntApplyOutcome
{
	ENT_APPLY_STORED,
	ENT_APPLY_MISSING,			/* delta on a row that is not there */
	ENT_APPLY_INVISIBLE,		/* the row exists, but not for this role */
	ENT_APPLY_SAME,				/* nothing to do: the row has these values */
	ENT_APPLY_OLDER,			/* nothing was done: the row may have newer ones */
} EntApplyOutcome;

typedef struct EntApplyWrite
{
	EntApply   *a;
	EntApplyCopy *c;
	EntApplyRow *r;
	bool		careful;		/* an INSERT failed before: look first */
	bool		compare;		/* the version is here already: look first
								 * whether the row is as it should be */
	bool		keep;			/* leave it if it is not */
	Datum	   *values;			/* by column, once decoded */
	bool	   *nulls;
	EntApplyOutcome outcome;
} EntApplyWrite;

/*
 * Stores the row as the peer's role, triggers asleep, nothing captured. Errors
 * are the row's or the server's.
 */
extern void ent_apply_write(EntApplyWrite *w);
/*
 * The same for n rows at once that are all not here yet, or all here, with values for the
 * same columns.
 */
extern void ent_apply_write_together(EntApplyWrite *w, int n);

/*
 * What w->r says in values, and the columns of the row as it is here that may
 * marks: as the peer's role. read returns false when it sees no such row. Errors
 * as above.
 */
extern void ent_apply_decode(EntApplyWrite *w);
extern bool ent_apply_read(EntApplyWrite *w, const bool *may, Datum *values,
						   bool *nulls);

/*
 * Takes the row of the copy out, so that other rows can have its place in an
 * index; the next write puts it in again. Only within a subtransaction that
 * fails if that does not come about. Nothing happens if the role does not see it.
 */
extern void ent_apply_take_out(EntApplyWrite *w);

/* Of a death without a version: the serial under which it is noted. */
extern int64 ent_apply_last_serial(EntApply *a, int32 epoch, int64 serial);

static inline bool
ent_apply_newer(int32 epoch, int64 serial, int32 than_epoch, int64 than_serial)
{
	return epoch > than_epoch || (epoch == than_epoch && serial > than_serial);
}

/*
 * Has the copy here that version already, or a newer one? Of a copy that is
 * this owner's or not here.
 */
extern bool ent_apply_stale(EntApply *a, EntApplyCopy *c, EntApplyRow *r);

/* Only a role that may read all columns can compare. */
extern bool ent_apply_may_compare(EntApply *a);

/*
 * The object has been handed over to another owner: it becomes his, with what
 * comes along or else as it is here. True when that was noted.
 */
extern bool ent_apply_inherit(EntApplyWrite *w, EntVersions *versions);

/* apply_note.c */
/*
 * Does it come so late that our have, and so perhaps those of our other peers,
 * covers it already?
 */
extern bool ent_apply_late(EntApply *a, EntApplyRow *r);
/* Notes that the object has to be asked for again. */
extern void ent_apply_note_parked(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
								  const char *sqlstate, const char *message,
								  const char *detail);
/* The same, and tells the log the first time, if it is time. */
extern void ent_apply_park(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
						   const char *sqlstate, const char *message,
						   const char *detail);
/* Why a row cannot be stored now. */
typedef struct EntApplyReason
{
	const char *sqlstate;
	const char *message;
	const char *detail;			/* or NULL */
	int64		waits_for;		/* 0: nothing that would be noticed */
} EntApplyReason;

extern void ent_apply_park_because(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
								   const EntApplyReason *why);
/* That version is not missed any more. */
extern void ent_apply_unpark(EntApply *a, EntApplyCopy *c, EntApplyRow *r);
/* The object's place is free: others parked for the same key may come. */
extern void ent_apply_wake_parked(EntApply *a, EntApplyCopy *c);
/* Our other peers would not get it by its serial. */
extern void ent_apply_owe_others(EntApply *a, EntApplyCopy *c, EntApplyRow *r);

/* apply_hook.c */
/*
 * May what is about to be written be? False: a hook has said no, and the row has
 * been parked.
 */
extern bool ent_apply_ask_hooks(EntApplyWrite *w);

/* apply_journal.c */
/*
 * A newer version is about to replace what is here, in a table with every_state:
 * what has to be kept of it for other peers; NULL: nothing.
 */
extern EntState *ent_apply_replaced(EntApply *a, EntApplyCopy *c,
									EntApplyRow *r);
/* It has. */
extern void ent_apply_keep(EntState *state);

/* apply.c */
/* Fills in copies whose key is known. */
extern void ent_apply_find_copies(const EntApplyRow *rows, EntApplyCopy *copies, int n);

/*
 * Rows that are stored by one statement: all not here yet, or all here, with the same
 * columns.
 */
typedef struct EntApplyTogether
{
	EntApplyWrite *w;
	int			n;
	int			max;			/* 0: each by itself */
} EntApplyTogether;

/*
 * Stores one row, or adds it to those that will be together; c->stored when it was. Errors
 * are the row's or the server's.
 */
extern void ent_apply_row(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
						  EntVersions *versions, bool careful,
						  EntApplyTogether *together);
/* Stores those; likewise. */
extern void ent_apply_together(EntApplyTogether *together, EntVersions *versions);

/* apply_section.c */
/* Is this error about the data, so that trying again as is makes no sense? */
extern bool ent_apply_about_the_row(int sqlstate);

/* apply_integrity.c */
/*
 * The row is about to be stored or deleted: notes what has to be looked at
 * in the end. True when it was found to break a foreign key in an earlier try:
 * it has been parked.
 */
extern bool ent_integrity_holds_back(EntApply *a, EntApplyCopy *c,
									 EntApplyRow *r);

#endif							/* ENT_STEP_APPLY_PRIVATE_H */
