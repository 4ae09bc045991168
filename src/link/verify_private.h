/*
 * link/verify_private.h
 *	  What the files of verifying share: verify.c (the conversation),
 *	  verify_tables.c (what is comparable), verify_parts.c (what differs).
 */
#ifndef ENT_LINK_VERIFY_PRIVATE_H
#define ENT_LINK_VERIFY_PRIVATE_H

#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "guard/show.h"
#include "link/tally.h"
#include "link/verify.h"
#include "rule/wire.h"
#include "store/relinfo.h"

/* A table that both have, and the columns that both show and encode alike. */
typedef struct EntVerifyTable
{
	EntRelation *rel;
	const char *name;			/* for people */
	EntWireCompare wire;
	int			ncolumns;
	int		   *columns;		/* indexes into rel->columns */
	bool		ordered;		/* ranges of keys mean the same at any node */
	EntShow		show;			/* what the peer is shown of it */
} EntVerifyTable;

/* An owner as the peer knows it. */
typedef struct EntVerifyOwner
{
	pg_uuid_t	id;				/* hash key */
	int32		no;				/* ours; 0: not known here */
	const char *name;
	int32		epoch;			/* of what the peer has: up to here */
	int64		serial;
	bool		from_us;		/* the peer has him from us */
} EntVerifyOwner;

/* Keys lo < k <= hi of one owner in one table, in which something differs. */
typedef struct EntVerifyTask
{
	EntVerifyTable *table;
	EntVerifyOwner *owner;
	bytea	   *lo;				/* NULL: from the first on */
	bytea	   *hi;				/* NULL: to the last */
	uint64		each;			/* rows of a part */
} EntVerifyTask;

/* A difference in the making. */
typedef struct EntVerifyFinding
{
	EntDifference d;
	EntVerifyTable *table;		/* of rows of an owner: looked at again */
	EntVerifyOwner *owner;
	bytea	   *lo;				/* it lies in this range, */
	bytea	   *hi;
	bool		begins;			/* and is the first in it */
	bool		ends;			/* ... the last */
} EntVerifyFinding;

typedef struct EntVerify
{
	const EntPeer *peer;
	MemoryContext context;
	bool		selective;		/* one of us wants from the other not everything */
	List	   *tables;			/* of EntVerifyTable * */
	HTAB	   *owners;			/* EntVerifyOwner */
	List	   *tasks;			/* to be asked */
	List	   *findings;		/* of EntVerifyFinding * */
	int			ranges;			/* looked at so far, in this pass */
	int			rounds;			/* of questions about ranges, likewise */
	EntVerified *result;
} EntVerify;

/* More is not looked into: what differs is listed as it is known then. */
#define ENT_VERIFY_MAX_RANGES	20000
#define ENT_VERIFY_MAX_ROUNDS	100
/* With rows in one table; more are not believed. */
#define ENT_VERIFY_MAX_OWNERS	1000000

/* verify.c */
extern void ent_verify_check(EntReader *r, const char *what);
pg_noreturn extern void ent_verify_complain(const char *detail);
extern EntVerifyOwner *ent_verify_owner(EntVerify *v, const uint8 *id);

/* verify_tables.c */
/* Takes in what the peer described; lists what only one of us offers. */
extern void ent_verify_take_description(EntVerify *v, EntReader *r);

/* verify_parts.c */
/* Our totals against theirs, from the DIGESTs of tables first .. first + n - 1. */
extern void ent_verify_totals(EntVerify *v, EntReader *r, int first, int n);
/* Our rows against the parts that the peer divides a task's range into. */
extern void ent_verify_parts(EntVerify *v, EntVerifyTask *task, EntReader *body);
/* Our rows of the table, as the peer is shown them. */
extern EntDigestJob ent_verify_job(EntVerify *v, EntVerifyTable *table);
/* A range of which the peer has about count rows is to be divided. */
extern void ent_verify_add_task(EntVerify *v, EntVerifyTable *table,
								EntVerifyOwner *owner, bytea *lo, bytea *hi,
								uint64 count);
extern EntVerifyFinding *ent_verify_add(EntVerify *v, EntVerifyTable *table,
										EntVerifyOwner *owner, const char *what,
										int64 ours, int64 theirs);

#endif							/* ENT_LINK_VERIFY_PRIVATE_H */
