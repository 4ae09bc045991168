/*
 * step/fold_private.h
 *	  What the files of the fold share: what is gathered of the log
 *	  (fold_take.c) and judged (fold.c).
 */
#ifndef ENT_STEP_FOLD_PRIVATE_H
#define ENT_STEP_FOLD_PRIVATE_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "utils/hsearch.h"

#include "rule/coalesce.h"
#include "store/journal.h"
#include "store/relinfo.h"
#include "store/version.h"

typedef struct EntFoldKey
{
	int32		rel;
	int32		len;
	const uint8 *key;
} EntFoldKey;

/* One touched object. */
typedef struct EntFoldEntry
{
	EntFoldKey		k;				/* hash key */
	EntFolded	folded;
	EntRelation *rel;
	EntVerdict	verdict;
	bytea	   *image;			/* the key as a datum */
	bool		exists;			/* has an object row: */
	ItemPointerData at;			/* ... there */
	bool		local;			/* ... with a local owner */
	int32		owner;			/* of that row, then of the new version */
	int32		epoch;
	int64		serial;			/* of that row, then the new one */
	int64		born;
	bytea	   *columns;		/* packed column serials */
	int32		old_owner;		/* birth under another owner: whose tombstone
								 * stays; else 0 */
	bool		handed;			/* a hand-over is among the changes: */
	bool		heir_local;
	EntHand		heir;			/* owner 0: to nobody, after all */
	EntHand		from;			/* who had handed it over to the owner that has
								 * it no more */
	struct EntFoldStates *states;	/* of a table with every_state; else NULL */
	struct EntFoldDigests *digests; /* what the log told, and the object has; or
									 * NULL */
} EntFoldEntry;

/* A local owner touched by this fold. */
typedef struct EntFoldOwner
{
	int32		no;
	int32		epoch;
	int64		next;			/* serial to give out */
	int64		last;
	int64		wanted;			/* how many serials, and */
	int64		given;			/* ... with those left out */
	int			births;			/* that may go as a run, if that is enough; */
	int64		run_since;		/* ... which begins behind this serial */
	int64		run_to;			/* 0: there is none */
	bool		local;
} EntFoldOwner;

typedef struct EntFold
{
	HTAB	   *objects;
	List	   *entries;		/* of EntFoldEntry *, in order of arrival */
	HTAB	   *owners;
	bool		complete;		/* the log was read to its end */
	bool		doubt;			/* an earlier fold may have taken a TRUNCATE */
	bool		integrity;		/* an object is of a table that keeps its foreign
								 * keys */
	bool		truncated;		/* this one has */
	int			handed;			/* how many were handed over */
	int			stated;			/* entries with states */
	bool		keeps;			/* ... which somebody may lack */
	int32		default_owner;	/* 0: has not been asked for */
} EntFold;

/* fold_states.c */
/* One change of a table with every_state; what it points to is copied. */
extern void ent_fold_add_step(EntFold *f, EntFoldEntry *e, uint64 place,
							  TransactionId xid, char op, int32 owner,
							  const bytea *columns, const bytea *image);
/* Something of the entry has no place: which states there were is not known. */
extern void ent_fold_disorder(EntFold *f, EntFoldEntry *e);
/*
 * The entry has been judged: which committed states came before the one that
 * is? They want serials of its owner.
 */
extern void ent_fold_plan_states(EntFold *f, EntFoldEntry *e);
extern int	ent_fold_states_wanted(const EntFoldEntry *e);
/* Gives them their versions, from the owner's next serial on. */
extern void ent_fold_settle_states(EntFold *f, EntFoldEntry *e, EntFoldOwner *o,
								   EntJournal *journal);

/* fold_digest.c */
typedef struct EntFoldDigests EntFoldDigests;

/* A change that the log told: at its place, columns if it knew which changed. */
extern void ent_fold_note_told(EntFoldEntry *e, uint64 place, char op,
							   const bytea *digests, const bytea *columns);
/* One of which nobody told to what. */
extern void ent_fold_note_blind(EntFoldEntry *e, char op, const bytea *columns);
/* What the object was; kept by reference. */
extern void ent_fold_note_stored(EntFoldEntry *e, bytea *digests);
/* Adds the columns that changed to folded. */
extern void ent_fold_compare(EntFoldEntry *e);
/* Compared: has nothing changed at all? */
extern bool ent_fold_is_same(const EntFoldEntry *e);
/* What the new version is; NULL: nothing is known, or needed. */
extern bytea *ent_fold_digests(EntFoldEntry *e);

/* In the current context, which is to last as long as it is used. */
extern EntFold *ent_fold_create(void);

/* Takes changes from the log; returns how many. Of an object all there are. */
extern uint64 ent_fold_take(EntFold *f, int limit);

/* Fills in what the object table says of the entries. */
extern void ent_fold_find_existing(EntFold *f);
/* To whom were objects handed over? Takes the notes of that away. */
extern void ent_fold_find_heirs(EntFold *f);

#endif							/* ENT_STEP_FOLD_PRIVATE_H */
