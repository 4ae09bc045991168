/*
 * link/inviolation.c
 *	  The receiving end: what the peer had no right to say, or what a hook kept
 *	  out; and, of either end, hooks that failed.
 *
 * It is refused, and the link goes on with the rest. Counted in memory while
 * the batch lasts, so that a flood costs one row; written with the batch, so
 * that a batch that fails as a whole leaves its error instead. A peer gets so
 * many rows and no more, and a line in the log now and then.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "link/inbound_private.h"
#include "link/violation.h"
#include "store/object.h"
#include "store/query.h"
#include "store/value.h"

#define MAX_KEPT	1000		/* rows of one peer; beyond, they become one of
								 * their kind */
#define MAX_BATCH	100			/* of one batch, likewise */
#define LOG_EVERY_S	60			/* of one kind and peer */

typedef struct EntInViolation
{
	EntInWrong	wrong;
	int32		owner;			/* entanglement.owner.no; 0: unknown here */
	int32		rel;
	int64		count;
	char	   *message;		/* for the log; NULL: that of its kind, of this: */
	char	   *name;			/* the owner, as the peer says */
} EntInViolation;

static const struct
{
	const char *kind;			/* in the view */
	const char *message;
}			wrongs[] = {
	[ENT_IN_WRONG_HOME] = {"home",
	"the peer offers owner \"%s\", which is at home elsewhere, as its own; refused"},
	[ENT_IN_WRONG_LOCAL] = {"local",
	"the peer sent state of owner \"%s\", which is at home here; refused"},
	[ENT_IN_WRONG_SPEAKER] = {"speaker",
	"the peer sent state of owner \"%s\", for which it may not speak; refused"},
	[ENT_IN_WRONG_EPOCH] = {"epoch",
	"the peer sent state of an older epoch of owner \"%s\"; refused"},
	[ENT_IN_WRONG_HOOK] = {"hook refused",
	"hook \"%s\" refused what the peer sent of owner \"%s\""},
	[ENT_IN_WRONG_HOOK_FAILED] = {"hook failed",
	"hook \"%s\" failed on what the peer sent of owner \"%s\", which was refused: %s: %s"},
};

StaticAssertDecl(lengthof(wrongs) == ENT_IN_WRONGS,
				 "each kind of violation has a name and a message");

/* Returns whether it is to be logged. */
static EntQuery record_query = {
	"WITH news AS (SELECT pg_catalog.max(v.latest) OPERATOR(pg_catalog.<) "
	"(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $6)) AS old "
	"FROM entanglement.violation v WHERE v.peer OPERATOR(pg_catalog.=) $1 "
	"AND v.kind OPERATOR(pg_catalog.=) $2), "
	"kept AS (SELECT (SELECT pg_catalog.count(*) FROM entanglement.violation v "
	"WHERE v.peer OPERATOR(pg_catalog.=) $1) OPERATOR(pg_catalog.<) $7 OR EXISTS ("
	"SELECT FROM entanglement.violation v WHERE v.peer OPERATOR(pg_catalog.=) $1 "
	"AND v.kind OPERATOR(pg_catalog.=) $2 AND v.owner OPERATOR(pg_catalog.=) $3 "
	"AND v.rel OPERATOR(pg_catalog.=) $4) AS room) "
	"INSERT INTO entanglement.violation AS v (peer, kind, owner, rel, count, latest) "
	"SELECT $1, $2, CASE WHEN room THEN $3 ELSE 0 END, CASE WHEN room THEN $4 ELSE 0 END, "
	"$5, pg_catalog.clock_timestamp() FROM kept "
	"ON CONFLICT (peer, kind, owner, rel) DO UPDATE "
	"SET count = v.count OPERATOR(pg_catalog.+) EXCLUDED.count, latest = EXCLUDED.latest "
	"RETURNING COALESCE((SELECT old FROM news), true)",
	7, {INT4OID, TEXTOID, INT4OID, INT4OID, INT8OID, FLOAT8OID, INT8OID}, NULL
};

/* The note of that kind; NULL: there is none in this batch. */
static EntInViolation *
find(List *notes, EntInWrong wrong, int32 owner, int32 rel)
{
	ListCell   *lc;

	foreach(lc, notes)
	{
		EntInViolation *v = lfirst(lc);

		if (v->wrong == wrong && v->owner == owner && v->rel == rel)
			return v;
	}
	return NULL;
}

/* Once more; what is returned is a new note, whose texts are to be filled in. */
static EntInViolation *
count(List **notes, MemoryContext context, EntInWrong wrong, int32 owner,
	  int32 rel)
{
	EntInViolation *v = find(*notes, wrong, owner, rel);
	MemoryContext old;

	if (v == NULL && list_length(*notes) >= MAX_BATCH)
	{
		owner = rel = 0;
		v = find(*notes, wrong, owner, rel);
	}
	if (v != NULL)
	{
		v->count++;
		return NULL;
	}
	old = MemoryContextSwitchTo(context);
	v = palloc0(sizeof(EntInViolation));
	v->wrong = wrong;
	v->owner = owner;
	v->rel = rel;
	v->count = 1;
	*notes = lappend(*notes, v);
	MemoryContextSwitchTo(old);
	return v;
}

void
ent_inbound_violation(EntInbound *ib, EntInWrong wrong, EntInOwner *in,
					  int32 rel)
{
	EntInViolation *v = count(&ib->violations, ib->batch, wrong, in->known, rel);

	if (v != NULL)
		v->name = MemoryContextStrdup(ib->batch, ent_name_from_wire(in->name));
}

void
ent_violation_hook(List **notes, MemoryContext context, bool sending, int32 owner,
				   int32 rel, const EntHookRefusal *why)
{
	EntInWrong	wrong = why->failed ? ENT_IN_WRONG_HOOK_FAILED : ENT_IN_WRONG_HOOK;
	EntInViolation *v = count(notes, context, wrong, owner, rel);
	char	   *name;

	if (v == NULL)
		return;
	name = ent_object_owner_name(owner);
	v->message = MemoryContextStrdup(context,
									 psprintf(sending ?
											  "hook \"%s\" failed on what was to be sent to the peer of owner \"%s\", which was held back: %s: %s" :
											  wrongs[wrong].message, why->hook,
											  name ? name : "?", why->sqlstate,
											  why->message));
}

static void
record(int32 peer, EntPeerSlot *slot, EntInViolation *v)
{
	Datum		args[7] = {Int32GetDatum(peer),
		CStringGetTextDatum(wrongs[v->wrong].kind), Int32GetDatum(v->owner),
		Int32GetDatum(v->rel), Int64GetDatum(v->count),
	Float8GetDatum(LOG_EVERY_S), Int64GetDatum(MAX_KEPT)};
	bool		news;
	char	   *message;

	ent_query_run(&record_query, args, NULL, SPI_OK_INSERT_RETURNING, NULL);
	news = ent_query_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	if (!news)
		return;
	message = v->message ? v->message :
		psprintf(wrongs[v->wrong].message, v->name);
	ent_shmem_set_error(slot, "42501", message);
	ereport(LOG, (errmsg("%s", message),
				  errhint("What else there was is counted in the view entanglement.violations.")));
}

void
ent_violations_record(List *notes, int32 peer, EntPeerSlot *slot)
{
	ListCell   *lc;

	foreach(lc, notes)
		record(peer, slot, lfirst(lc));
}

void
ent_inbound_record_violations(EntInbound *ib)
{
	ent_violations_record(ib->violations, ib->peer, ib->slot);
	ib->violations = NIL;
}
