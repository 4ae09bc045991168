/*
 * worker/prune.c
 *	  Collecting tombstones and graves once every peer has heard, old
 *	  requests, and what is left of peers that were dropped.
 *
 * A peer that never told what it has of an owner keeps that owner's
 * tombstones alive; drop the peer if it does not come back.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "base/guc.h"
#include "store/journal.h"
#include "store/life.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/request.h"
#include "worker/prune.h"

/*
 * All peers have heard of it, and nobody needs it for something else. OFFSET 0: each is
 * looked up by the whole key, also in a plan made while there is nothing.
 */
#define NOT_NEEDED \
	"AND NOT EXISTS (SELECT 1 FROM creditor c, LATERAL (SELECT 1 FROM entanglement.owed d " \
	"WHERE d.peer OPERATOR(pg_catalog.=) c.no AND d.owner OPERATOR(pg_catalog.=) t.owner " \
	"AND d.rel OPERATOR(pg_catalog.=) t.rel AND d.key OPERATOR(pg_catalog.=) t.key " \
	"OFFSET 0) AS d) " \
	/* what is under way to an heir: a peer may come to have the table only then */ \
	"AND (t.heir IS NULL OR NOT EXISTS (SELECT 1 FROM entanglement.object b " \
	"WHERE b.rel OPERATOR(pg_catalog.=) t.rel AND b.key OPERATOR(pg_catalog.=) t.key " \
	"AND b.born OPERATOR(pg_catalog.=) 0 OFFSET 0)) " \
	/* one who still has to hear of the hand-over before would not know of the end */ \
	"AND (t.from_owner IS NULL OR NOT EXISTS (SELECT 1 FROM entanglement.owner f " \
	"WHERE f.no OPERATOR(pg_catalog.=) t.from_owner AND NOT f.local " \
	"AND (f.epoch, f.sure) OPERATOR(pg_catalog.<) (t.from_epoch, t.from_serial) OFFSET 0)) " \
	"RETURNING t.owner, t.serial) "
#define OWNER "(t.owner OPERATOR(pg_catalog.+) 0)"

/*
 * Only those that may go are looked at, of the owners that have any: of the present epoch by
 * serial, of older ones by epoch. epoch + 0: no index takes that for a bound.
 */
static EntQuery prune_query = {
	"WITH RECURSIVE " ENT_PEER_CREDITORS ", "
	ENT_PEER_HOLDERS("entanglement.tombstone", OWNER) ", " ENT_PEER_HEARD ", "
	"gone AS (DELETE FROM entanglement.tombstone t USING heard h "
	"WHERE " OWNER " OPERATOR(pg_catalog.=) h.no AND h.complete "
	"AND t.serial OPERATOR(pg_catalog.<=) h.upto "
	"AND (t.epoch OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.>=) h.epoch " NOT_NEEDED ", "
	"old AS (DELETE FROM entanglement.tombstone t USING heard h "
	"WHERE " OWNER " OPERATOR(pg_catalog.=) h.no AND h.complete "
	"AND t.epoch OPERATOR(pg_catalog.<) h.epoch " NOT_NEEDED
	"UPDATE entanglement.owner o SET pruned = GREATEST(o.pruned, g.serial) "
	"FROM (SELECT owner, pg_catalog.max(serial) AS serial "
	"FROM (SELECT * FROM gone UNION ALL SELECT * FROM old) AS g GROUP BY owner) g "
	"WHERE o.no OPERATOR(pg_catalog.=) g.owner",
	0, {0}, NULL
};

void
ent_prune(void)
{
	ent_peer_sweep();
	ent_query_run(&prune_query, NULL, NULL, SPI_OK_UPDATE, NULL);
	ent_journal_prune();
	ent_request_prune();
	ent_life_prune(ent_max_owners);
}
