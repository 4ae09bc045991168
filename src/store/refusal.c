/*
 * store/refusal.c
 *	  What peers said or asked and had no right to (entanglement.violation).
 *
 * It is refused, and the link goes on with the rest. Counted in memory while
 * the transaction lasts, so that a flood costs one row; written at its end, so
 * that a batch that fails as a whole leaves its error instead. A peer gets so
 * many rows and no more, and a line in the log now and then.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/quiet.h"
#include "store/query.h"
#include "store/refusal.h"

#define MAX_KEPT	1000		/* rows of one peer; beyond, they become one of
								 * their kind */
#define MAX_NOTED	100			/* in a transaction, likewise */

typedef struct Note
{
	EntRefusal	kind;
	int32		owner;
	int32		rel;
	SubTransactionId sub;		/* that noted it */
	int64		count;
	char	   *what;
} Note;

static const struct
{
	const char *kind;			/* in the view */
	const char *message;		/* of what; NULL: the caller has told the log */
}			refusals[] = {
	[ENT_REFUSED_HOME] = {"home",
	"the peer offers owner \"%s\", which is at home elsewhere, as its own; refused"},
	[ENT_REFUSED_LOCAL] = {"local",
	"the peer sent state of owner \"%s\", which is at home here; refused"},
	[ENT_REFUSED_SPEAKER] = {"speaker",
	"the peer sent state of owner \"%s\", for which it may not speak; refused"},
	[ENT_REFUSED_EPOCH] = {"epoch",
	"the peer sent state of an older epoch of owner \"%s\"; refused"},
	[ENT_REFUSED_WRITE] = {"write", NULL},
	[ENT_REFUSED_REQUEST] = {"request",
	"the peer asked for what its role may not do: %s"},
	[ENT_REFUSED_ASK] = {"ask",
	"the peer asked for a table that it was not told of, number %s; refused"},
	[ENT_REFUSED_HOOK] = {"hook refused", "%s"},
	[ENT_REFUSED_HOOK_FAILED] = {"hook failed", "%s"},
};

StaticAssertDecl(lengthof(refusals) == ENT_REFUSALS,
				 "each kind of refusal has a name");

static EntQuery record_query = {
	"WITH kept AS (SELECT (SELECT pg_catalog.count(*) FROM entanglement.violation v "
	"WHERE v.peer OPERATOR(pg_catalog.=) $1) OPERATOR(pg_catalog.<) $6 OR EXISTS ("
	"SELECT FROM entanglement.violation v WHERE v.peer OPERATOR(pg_catalog.=) $1 "
	"AND v.kind OPERATOR(pg_catalog.=) $2 AND v.owner OPERATOR(pg_catalog.=) $3 "
	"AND v.rel OPERATOR(pg_catalog.=) $4) AS room) "
	"INSERT INTO entanglement.violation AS v (peer, kind, owner, rel, count, latest) "
	"SELECT $1, $2, CASE WHEN room THEN $3 ELSE 0 END, CASE WHEN room THEN $4 ELSE 0 END, "
	"$5, pg_catalog.clock_timestamp() FROM kept "
	"ON CONFLICT (peer, kind, owner, rel) DO UPDATE "
	"SET count = v.count OPERATOR(pg_catalog.+) EXCLUDED.count, latest = EXCLUDED.latest",
	6, {INT4OID, TEXTOID, INT4OID, INT4OID, INT8OID, INT8OID}, NULL
};

static List *notes = NIL;		/* of Note *, with the transaction's memory */

static Note *
find(EntRefusal kind, int32 owner, int32 rel, SubTransactionId sub)
{
	ListCell   *lc;

	foreach(lc, notes)
	{
		Note	   *n = lfirst(lc);

		if (n->kind == kind && n->owner == owner && n->rel == rel &&
			n->sub == sub)
			return n;
	}
	return NULL;
}

/* ---- with transactions ---- */

static void
at_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		notes = NIL;
}

/* What a subtransaction noted is its parent's, or nobody's. */
static void
at_subtransaction(SubXactEvent event, SubTransactionId sub,
				  SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(lc, notes)
	{
		Note	   *n = lfirst(lc),
				   *same = NULL;

		if (n->sub != sub)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			same = find(n->kind, n->owner, n->rel, parent);
			if (same == NULL)
			{
				n->sub = parent;
				continue;
			}
			same->count += n->count;
		}
		notes = foreach_delete_current(notes, lc);
	}
}

void
ent_refusal_note(EntRefusal kind, int32 owner, int32 rel, const char *what)
{
	static bool watching = false;
	SubTransactionId sub = GetCurrentSubTransactionId();
	Note	   *n = find(kind, owner, rel, sub);
	MemoryContext old;

	if (n == NULL && list_length(notes) >= MAX_NOTED)
	{
		owner = rel = 0;
		n = find(kind, owner, rel, sub);
	}
	if (n != NULL)
	{
		n->count++;
		return;
	}
	if (!watching)
	{
		RegisterXactCallback(at_transaction, NULL);
		RegisterSubXactCallback(at_subtransaction, NULL);
		watching = true;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	n = palloc(sizeof(Note));
	n->kind = kind;
	n->owner = owner;
	n->rel = rel;
	n->sub = sub;
	n->count = 1;
	n->what = what ? pstrdup(what) : NULL;
	notes = lappend(notes, n);
	MemoryContextSwitchTo(old);
}

/* ---- written down ---- */

static void
tell(int32 peer, EntPeerSlot *slot, const Note *n)
{
	int64		more;
	char	   *message,
			   *detail;

	if (refusals[n->kind].message == NULL)
		return;
	message = psprintf(refusals[n->kind].message, n->what ? n->what : "");
	ent_shmem_set_error(slot, "42501", message);
	if (!ent_quiet_due(peer, refusals[n->kind].kind, 0, &more))
		return;
	detail = ent_quiet_more(more);
	ereport(LOG, (errmsg("%s", message), detail ? errdetail("%s", detail) : 0,
				  errhint("What else there was is counted in the view entanglement.violations.")));
}

void
ent_refusal_write(int32 peer, EntPeerSlot *slot)
{
	ListCell   *lc;

	foreach(lc, notes)
	{
		Note	   *n = lfirst(lc);
		Datum		args[6] = {Int32GetDatum(peer),
			CStringGetTextDatum(refusals[n->kind].kind), Int32GetDatum(n->owner),
		Int32GetDatum(n->rel), Int64GetDatum(n->count), Int64GetDatum(MAX_KEPT)};

		ent_query_run(&record_query, args, NULL, SPI_OK_INSERT, NULL);
		tell(peer, slot, n);
	}
	notes = NIL;
}
