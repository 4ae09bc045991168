/*
 * step/extract.h
 *	  The newest state of objects, read by key as a peer's role.
 *
 * All of one call belongs to one snapshot: the object's version, the row,
 * and the changes of it that are committed but not yet folded (whose columns
 * are added, so that no mixture of two versions is ever made: I1).
 */
#ifndef ENT_STEP_EXTRACT_H
#define ENT_STEP_EXTRACT_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "guard/hook.h"
#include "store/relinfo.h"
#include "store/version.h"

typedef enum EntExtractKind
{
	ENT_EXTRACT_NOTHING = 0,	/* gone without trace, or not for this role */
	ENT_EXTRACT_DEAD,			/* tombstone; with an heir it lives on as his */
	ENT_EXTRACT_DELTA,
	ENT_EXTRACT_FULL,			/* with an heir: what it was last */
	ENT_EXTRACT_WITHDRAWN		/* it may live, but not for this role */
} EntExtractKind;

/* For whom. */
typedef struct EntExtractFor
{
	int32		peer;
	Oid			role;
	const bool *may;			/* by column: the role may see it */
	const char *filter;			/* of rows, as ent_filter_sql made it, or NULL; with
								 * it this needs ent_value_enter */
	bool		partial;		/* nothing is told of what the peer does not hold
								 * (ent_shown_held) and may not see now */
	bool		nothing;		/* it may see no row */
} EntExtractFor;

typedef struct EntExtract
{
	/* asked */
	const uint8 *key;
	size_t		keylen;
	int32		owner;			/* expected; another owner's object is nothing */
	int64		since;			/* the peer's copy is complete up to here; 0: in full */
	int64		after;			/* rel->every_state: states newer than this come
								 * first */
	bool		asked;			/* by the peer, which may still have what died so
								 * long ago that it has left no trace */
	/* answered */
	EntExtractKind kind;
	bool		held;			/* partial: the peer has been told of it */
	bool		leaving;		/* ... and told to give it up, which it may have done */
	bool		elsewhere;		/* another owner has it here: the peer may hold his */
	bool		passed;			/* born again under another owner, not yet folded:
								 * what the row holds is not this owner's */
	int32		epoch;
	int64		serial;
	int64		base;			/* delta: oldest copy it fits on */
	EntHand		heir;			/* handed over; owner 0: no */
	EntHand		from;			/* dead or handed over: by whom it was before */
	bool		more;			/* there are newer states */
	bool		ahead;			/* delta or full: some of it is of a change that has no
								 * serial yet */
	bool	   *set;			/* by column: to be sent */
	Datum	   *values;			/* by column */
	bool	   *nulls;
	const char **raw;			/* by column: as it travels; then values are not
								 * filled in. NULL: they are */
	size_t	   *rawlen;
} EntExtract;

/*
 * Answers n questions about one table, each of another key. SPI connected; answers live in the SPI procedure's context, and may point
 * to TOASTed values: the caller keeps the snapshot registered until it is done with them.
 */
extern void ent_extract(EntRelation *rel, const EntExtractFor *whom,
						Snapshot snapshot, EntExtract *items, int n);

/*
 * The same for a table with every_state. Who is shown the whole table gets what was
 * committed, state by state, and nothing of what has not been folded; who is shown a
 * part gets what ent_extract gives, since whether he may have seen a row that is no
 * more cannot be asked of the table.
 */
extern void ent_extract_states(EntRelation *rel, const EntExtractFor *whom,
							   Snapshot snapshot, EntExtract *items, int n);

#endif							/* ENT_STEP_EXTRACT_H */
