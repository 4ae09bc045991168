/*
 * store/triggered.h
 *	  A synchronized table as its triggers see it: the table itself or a
 *	  partition of it, whose columns may have another order.
 *
 * Cached per process; cheap enough to be asked for each row.
 */
#ifndef ENT_STORE_TRIGGERED_H
#define ENT_STORE_TRIGGERED_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "store/relinfo.h"

typedef struct EntTriggered
{
	Oid			relid;			/* hash key */
	bool		is_root;		/* some partition's entry depends on it */
	uint32		marks;			/* grows with each invalidation */
	uint32		read_at;		/* marks when it was read; */
	uint64		read_in;		/* ... and the epoch */
	MemoryContext context;		/* holds what follows; NULL: nothing yet */
	EntRelation *root;			/* NULL: not synchronized */
	int			natts;
	AttrNumber *root_attnum;	/* by attnum - 1; 0: no column of ours */
	AttrNumber	keys[ENT_WIRE_MAX_KEYS];	/* attnums here, in key order */
	AttrNumber	last_key;		/* the greatest of them */
	AttrNumber	owner_column;	/* here; names the owner of a new row; 0: none */
	bool		guarded;		/* the trigger that makes requests is enabled: no
								 * row of a remote owner gets past it */
} EntTriggered;

/*
 * What we know of the table a trigger fired on; NULL: not synchronized. Good
 * until the transaction ends, also when it is invalidated meanwhile.
 */
extern EntTriggered *ent_triggered(Relation rel);

/*
 * The same, read anew as (a partition of) the synchronized table with that
 * number, which its catalogs may not say any more; ent_triggered_forget lets
 * the next call find out whose table it is.
 */
extern EntTriggered *ent_triggered_as(Relation rel, int32 root);
extern void ent_triggered_forget(Oid relid);

/* Key image of a row; raises ERRCODE_NOT_NULL_VIOLATION. */
extern bytea *ent_triggered_key(EntTriggered *t, TupleTableSlot *slot);

/*
 * The owner that a new row is to belong to: the one that decides about a
 * request, or the one that the table's owner column names, or the session's
 * (ent_owner_current). Raises as that does.
 */
extern int32 ent_triggered_new_owner(EntTriggered *t, TupleTableSlot *slot);

/*
 * Bitmap of the root's columns, by attribute number, that differ; NULL: none.
 * Compared as they are stored: what only looks changed costs bytes later.
 */
extern bytea *ent_triggered_changed(EntTriggered *t, TupleDesc desc,
									TupleTableSlot *old, TupleTableSlot *new);

/* Is a key column among them? */
extern bool ent_triggered_touches_key(EntTriggered *t, bytea *columns);

/* Are two key images the same? */
extern bool ent_triggered_same_key(bytea *a, bytea *b);

#endif							/* ENT_STORE_TRIGGERED_H */
