/*
 * step/apply.h
 *	  Rows from a peer become rows here.
 *
 * Takes rows of one table, already authorised (the peer is the route of their
 * owners) and mapped to local columns; stores what is newer under the
 * peer's role; writes base rows and object rows in the caller's transaction and leaves ring events
 * for its commit. One bad row is parked alone.
 */
#ifndef ENT_STEP_APPLY_H
#define ENT_STEP_APPLY_H

#include "postgres.h"

#include "guard/hook.h"
#include "rule/wire.h"
#include "store/relinfo.h"
#include "store/version.h"

typedef struct EntApplyRow
{
	struct EntApply *a;			/* of its owner */
	EntRowOp	op;
	unsigned	flags;			/* ENT_ROW_... */
	int64		serial;
	int64		base;
	const uint8 *wirekey;
	size_t		wirekeylen;
	/* by local column; raw values point into the batch */
	bool	   *set;			/* column is given */
	const char **data;			/* NULL: SQL NULL */
	size_t	   *len;
	bool		withdrawn;		/* a DELETE in the version that is here, whichever */
	EntHand		heir;			/* with ENT_ROW_HEIR; owner 0: not known here */
	EntHand		from;			/* with ENT_ROW_FROM; likewise */
	/* answered */
	bool		again;			/* ask the sender for it in full */
	int64		kept;			/* what is here is newer, although this was to be stored
								 * again: that serial; else 0 */
} EntApplyRow;

typedef struct EntApply
{
	EntRelation *rel;
	Oid			role;			/* under whose rights */
	int32		peer;			/* who sent it */
	int32		owner;			/* local number of the (remote) owner */
	int32		epoch;
	int64		have;			/* ours of this owner, in this epoch; durable,
								 * and locked against claims of other peers */
	int64		base;			/* have from which on the peer sends */
	bool		home;			/* the peer is the owner's home: what it sends is the newest */
	/* by local column: how the sender encodes */
	const EntWireFormat *formats;
	const Oid  *sender_types;
	struct EntIntegrity *integrity; /* foreign keys are kept; NULL: not */
	EntHooks   *listen;			/* to be asked of each row; NULL: none */
	EntHooks   *constructed;	/* likewise */
	int64		stored;			/* counts rows stored (out) */
	bool		looked;			/* may_read has been found out */
	bool		may_read;		/* the role may read all columns */
	bool		looked_for_peers;	/* journaled has been found out */
	bool		journaled;		/* some other peer may lack states */
} EntApply;

/*
 * Rows of several owners, but of one table, peer and role, and each of another object.
 * SPI connected, in a transaction.
 */
extern void ent_apply(EntApplyRow *rows, int n);

/* A key image as it came. */
typedef struct EntApplyKey
{
	const uint8 *data;
	size_t		len;
} EntApplyKey;

typedef struct EntApplyPresent
{
	EntApplyKey lo;				/* exclusive; data NULL: open */
	EntApplyKey hi;				/* inclusive; likewise */
	EntApplyKey *keys;			/* sorted here */
	int			nkeys;
} EntApplyPresent;

/*
 * PRESENT: deletes this owner's objects in the key range that are not listed
 * and not newer than serial. Ranges are of images as they travel: in another
 * encoding keys are in another order.
 */
extern void ent_apply_present(EntApply *a, EntApplyPresent *p, int64 serial);

/*
 * Foreign keys of tables with integrity, over what is applied in one
 * subtransaction of the caller's: rows may come in any order, at its end all
 * must be right. Those that are not are remembered; the caller rolls back and
 * applies all again, and they are parked instead.
 *
 *	begin, and for each try: reset, ent_apply..., check; until check is true.
 */
typedef struct EntIntegrity EntIntegrity;

/* In the current memory context; NULL: no table has integrity. */
extern EntIntegrity *ent_integrity_begin(void);
extern void ent_integrity_reset(EntIntegrity *in);
extern bool ent_integrity_check(EntIntegrity *in);
/* What parked rows may have waited for (parked.waits_for), of what is done. */
extern List *ent_integrity_helped(EntIntegrity *in);	/* of int64 * */
/* ... and of rows that were held back for the first time. */
extern List *ent_integrity_missed(EntIntegrity *in);

#endif							/* ENT_STEP_APPLY_H */
