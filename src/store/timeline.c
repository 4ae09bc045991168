/*
 * store/timeline.c
 *	  This database went back to what it was at an earlier moment, and goes on from
 *	  there.
 *
 * Serials tell what was lost only as long as they have not been given out again. So
 * that is not waited for: the timeline that the log is written on is remembered in
 * the identity, and another one starts epochs.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"

#include "store/epoch.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/timeline.h"

/*
 * Epochs of one branch are drawn from so many; all together are less than a home
 * believes of a peer that holds a younger one than it knows.
 */
#define EPOCHS_OF_BRANCH	16
#define MAX_BRANCHES		6

/* What peers owed us was acknowledged since, perhaps, and forgotten; */
static EntQuery owed_query = {
	"UPDATE entanglement.owner SET serial = sure "
	"WHERE NOT local AND sure OPERATOR(pg_catalog.<) serial",
	0, {0}, NULL
};
/* ... as was what they took from us again, which has no version. */
static EntQuery withdrawn_query = {
	"INSERT INTO entanglement.arrears AS a (owner, rel) "
	"SELECT o.no, r.no FROM entanglement.owner o, entanglement.relation r "
	"WHERE NOT o.local AND o.partial AND o.peer IS NOT NULL "
	"ON CONFLICT (owner, rel) DO UPDATE SET round = a.round OPERATOR(pg_catalog.+) 1",
	0, {0}, NULL
};
/* What those peers hold that are shown a part is not known. */
static EntQuery parts_query = {
	"INSERT INTO entanglement.resend AS s (peer, owner, rel, compare) "
	"SELECT w.peer, o.no, w.rel, true FROM entanglement.shown w, entanglement.owner o "
	"WHERE w.kind OPERATOR(pg_catalog.<>) 'a'::pg_catalog.\"char\" AND ($1 OR NOT o.local) "
	"AND (o.peer IS NULL OR o.peer OPERATOR(pg_catalog.<>) w.peer) "
	"ON CONFLICT (peer, owner, rel) DO UPDATE SET compare = true, "
	"round = s.round OPERATOR(pg_catalog.+) 1",
	1, {BOOLOID}, NULL
};

void
ent_timeline_went_back(bool local)
{
	Datum		args[1] = {BoolGetDatum(local)};

	ent_query_run(&owed_query, NULL, NULL, SPI_OK_UPDATE, NULL);
	ent_query_run(&withdrawn_query, NULL, NULL, SPI_OK_INSERT, NULL);
	ent_query_run(&parts_query, args, NULL, SPI_OK_INSERT, NULL);
}

int32
ent_timeline_epoch_after(int32 epoch, int32 branches)
{
	return epoch + EPOCHS_OF_BRANCH * (Min(Max(branches, 1), MAX_BRANCHES) - 1) +
		(int32) pg_prng_uint64_range(&pg_global_prng_state, 1, EPOCHS_OF_BRANCH);
}

void
ent_timeline_settle(const EntIdentity *id)
{
	int32		now = ent_identity_timeline_now();
	ListCell   *lc;

	if (id->timeline == now)
		return;
	if (id->timeline != 0)
	{
		ereport(LOG,
				(errmsg("node \"%s\" goes on in new epochs of its owners", id->name),
				 errdetail("The write-ahead log was on timeline %d and is on %d. What had been told to peers and did not come here is undone.",
						   id->timeline, now)));
		ent_timeline_went_back(true);
		foreach(lc, ent_owner_all())
		{
			EntOwner   *o = lfirst(lc);

			if (o->local)
				ent_epoch_branch(o, ent_timeline_epoch_after(o->epoch, now - id->timeline));
		}
	}
	ent_identity_note_timeline();
}
