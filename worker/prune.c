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

/* MATERIALIZED: what is asked of an owner is not asked for each of his tombstones. */
static EntQuery prune_query = {
	"WITH RECURSIVE " ENT_PEER_CREDITORS ", heard AS MATERIALIZED ("
	"SELECT o.no, o.epoch, (SELECT pg_catalog.min(CASE WHEN h.epoch OPERATOR(pg_catalog.=) o.epoch "
	"THEN h.have ELSE 0 END) FROM entanglement.peer p "
	"LEFT JOIN entanglement.peer_owner h ON h.peer OPERATOR(pg_catalog.=) p.no "
	"AND h.owner OPERATOR(pg_catalog.=) o.no "
	"WHERE o.peer IS NULL OR p.no OPERATOR(pg_catalog.<>) o.peer) AS upto, "
	"NOT EXISTS (SELECT 1 FROM entanglement.peer p LEFT JOIN entanglement.peer_owner h "
	"ON h.peer OPERATOR(pg_catalog.=) p.no AND h.owner OPERATOR(pg_catalog.=) o.no "
	"WHERE (o.peer IS NULL OR p.no OPERATOR(pg_catalog.<>) o.peer) AND h.peer IS NULL) AS complete "
	"FROM entanglement.owner o), "
	"gone AS (DELETE FROM entanglement.tombstone t USING heard h "
	"WHERE (t.owner OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) h.no AND h.complete "
	"AND (h.upto IS NULL OR t.serial OPERATOR(pg_catalog.<=) h.upto "
	"OR t.epoch OPERATOR(pg_catalog.<) h.epoch) "
	/* OFFSET 0: by the whole key, also in a plan made while nothing is owed */
	"AND NOT EXISTS (SELECT 1 FROM creditor c, LATERAL (SELECT 1 FROM entanglement.owed d "
	"WHERE d.peer OPERATOR(pg_catalog.=) c.no AND d.owner OPERATOR(pg_catalog.=) t.owner "
	"AND d.rel OPERATOR(pg_catalog.=) t.rel AND d.key OPERATOR(pg_catalog.=) t.key "
	"OFFSET 0) AS d) "
	/* what is under way to an heir: a peer may come to have the table only then */
	"AND NOT EXISTS (SELECT 1 FROM entanglement.object b WHERE t.heir IS NOT NULL "
	"AND b.rel OPERATOR(pg_catalog.=) t.rel AND b.key OPERATOR(pg_catalog.=) t.key "
	"AND b.born OPERATOR(pg_catalog.=) 0) "
	/* one who still has to hear of the hand-over before would not know of the end */
	"AND NOT EXISTS (SELECT 1 FROM entanglement.owner f "
	"WHERE f.no OPERATOR(pg_catalog.=) t.from_owner AND NOT f.local "
	"AND (f.epoch, f.sure) OPERATOR(pg_catalog.<) (t.from_epoch, t.from_serial)) "
	"RETURNING t.owner, t.serial) "
	"UPDATE entanglement.owner o SET pruned = GREATEST(o.pruned, g.serial) "
	"FROM (SELECT owner, pg_catalog.max(serial) AS serial FROM gone GROUP BY owner) g "
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
