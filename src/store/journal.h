/*
 * store/journal.h
 *	  entanglement.journal: versions that newer ones have replaced, of tables
 *	  with every_state, until every peer has them.
 *
 * SPI connected.
 */
#ifndef ENT_STORE_JOURNAL_H
#define ENT_STORE_JOURNAL_H

#include "postgres.h"

#include "utils/snapshot.h"

typedef struct EntJournal EntJournal;

/* One version of an object. */
typedef struct EntState
{
	int32		rel;
	int32		owner;
	int32		epoch;
	int64		serial;
	int64		born;
	bytea	   *key;
	bytea	   *columns;		/* packed column serials; NULL: a death */
	bytea	   *image;			/* NULL: a death */
} EntState;

/* Is there a peer, other than this one (0: any), that may lack something? */
extern bool ent_journal_wanted(int32 but_peer);

/* States are gathered, and written at once. Lives in the current context. */
extern EntJournal *ent_journal_create(void);
extern void ent_journal_add(EntJournal *j, const EntState *state);
/* The death of this owner's object, if its tombstone is here: it is born again. */
extern void ent_journal_add_grave(EntJournal *j, int32 rel, int32 owner,
								  bytea *key);
extern void ent_journal_write(EntJournal *j);

/*
 * The first state of each object of a table, in the owner's epoch, that is newer
 * than since, as of a snapshot: found[i] says whether there is one.
 */
extern void ent_journal_next(int32 rel, Datum keys, Datum owners, Datum sinces,
							 Snapshot snapshot, EntState *states, bool *found);

/* What every peer has goes. */
extern void ent_journal_prune(void);
/*
 * Has it perhaps grown beyond entanglement.journal_limit? Then trim gives up the
 * oldest states that do not fit, and notes who will not get them.
 */
extern bool ent_journal_is_full(void);
extern void ent_journal_trim(void);

#endif							/* ENT_STORE_JOURNAL_H */
