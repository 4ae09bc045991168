/*
 * api/resync.c
 *	  SQL function resync: what a link's two ends hold is compared as a whole,
 *	  and what differs repaired.
 *
 * Place: api. It notes what is to be compared (entanglement.arrears,
 * entanglement.resend) and leaves the rest to the link, but for what concerns
 * this node's own owners and nobody's rows, which is done at once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/shmem.h"
#include "base/wake.h"
#include "step/mend.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"

PG_FUNCTION_INFO_V1(ent_sql_resync);

static EntQuery owner_query = {
	"SELECT o.no FROM entanglement.owner o "
	"WHERE o.name OPERATOR(pg_catalog.=) $1 OR o.id::pg_catalog.text OPERATOR(pg_catalog.=) $1 "
	"LIMIT 2",
	1, {TEXTOID}, NULL
};
/* Tables that the peer offers and we have. */
#define OFFERED \
	"entanglement.peer_table f JOIN pg_catalog.pg_namespace n " \
	"ON f.schema_name OPERATOR(pg_catalog.=) n.nspname::pg_catalog.text " \
	"JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid " \
	"AND f.table_name OPERATOR(pg_catalog.=) c.relname::pg_catalog.text " \
	"JOIN entanglement.relation r ON r.relid OPERATOR(pg_catalog.=) c.oid "

static EntQuery fetch_query = {
	"INSERT INTO entanglement.arrears AS a (owner, rel) "
	"SELECT o.no, r.no FROM entanglement.owner o, " OFFERED
	"WHERE f.peer OPERATOR(pg_catalog.=) $1 AND f.known "
	"AND NOT o.local AND o.peer OPERATOR(pg_catalog.=) $1 "
	"AND ($2 OPERATOR(pg_catalog.=) 0 OR o.no OPERATOR(pg_catalog.=) $2) "
	"ON CONFLICT (owner, rel) DO UPDATE SET round = a.round OPERATOR(pg_catalog.+) 1",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery send_query = {
	"INSERT INTO entanglement.resend AS s (peer, owner, rel) "
	"SELECT $1, o.no, r.no FROM entanglement.owner o, entanglement.relation r "
	"WHERE (o.local OR o.peer OPERATOR(pg_catalog.<>) $1) "
	"AND ($2 OPERATOR(pg_catalog.=) 0 OR o.no OPERATOR(pg_catalog.=) $2) ORDER BY r.no, o.no "
	"ON CONFLICT (peer, owner, rel) DO UPDATE SET compare = true, "
	"round = s.round OPERATOR(pg_catalog.+) 1",
	2, {INT4OID, INT4OID}, NULL
};
/* Those where nothing is missing any more that could make rows objects. */
static EntQuery complete_query = {
	"SELECT r.no FROM " OFFERED
	"WHERE f.peer OPERATOR(pg_catalog.=) $1 AND f.known "
	"AND NOT EXISTS (SELECT 1 FROM entanglement.arrears a "
	"WHERE a.rel OPERATOR(pg_catalog.=) r.no) ORDER BY r.no",
	1, {INT4OID}, NULL
};

static EntPeer *
find_peer(const char *name)
{
	EntPeer    *peer = ent_peer_by_name(name);

	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
	return peer;
}

static EntOwner *
find_owner(const char *name)
{
	Datum		args[1] = {CStringGetTextDatum(name)};

	ent_query_run(&owner_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no owner is named \"%s\"", name),
				 errhint("See: SELECT id, name, peer FROM entanglement.owners.")));
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_ALIAS),
				 errmsg("more than one owner is named \"%s\"", name),
				 errhint("Give the id of one of them: SELECT id, name, peer FROM entanglement.owners.")));
	return ent_owner_get(ent_query_int4(0, 1, NULL));
}

static void
check_on_link(const EntPeer *peer, const EntOwner *owner)
{
	if (owner != NULL && !owner->local && owner->peer == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("owner \"%s\" is neither taken from nor given to peer \"%s\"",
						owner->name, peer->name),
				 errdetail("There is no way to its home at present.")));
}

/* ---- this node's own ---- */

static void
mend_table(int32 no, EntMend *m)
{
	EntRelation *rel = ent_relinfo_get(no);
	const char *name;

	if (rel == NULL)
		return;
	name = quote_qualified_identifier(rel->schema, rel->name);
	ent_mend(rel, m);
	if (m->nrows > 0 && m->rows == ENT_MEND_REMOVE)
		ereport(NOTICE,
				(errmsg_plural("removed %lld row of table %s that was no object",
							   "removed %lld rows of table %s that were no objects",
							   m->nrows, (long long) m->nrows, name),
				 errdetail("They were not captured, and no owner known here has them. ROLLBACK brings them back.")));
	if (m->nrows > 0 && m->rows == ENT_MEND_ADOPT)
		ereport(NOTICE,
				(errmsg_plural("%lld row of table %s becomes an object",
							   "%lld rows of table %s become objects",
							   m->nrows, (long long) m->nrows, name)));
	if (m->nobjects > 0)
		ereport(NOTICE,
				(errmsg_plural("%lld object of table %s has no row any more: it counts as deleted",
							   "%lld objects of table %s have no row any more: they count as deleted",
							   m->nobjects, (long long) m->nobjects, name)));
}

/* Numbers of tables, as the query says. */
static List *
complete_tables(int32 peer)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		args[1] = {Int32GetDatum(peer)};
	List	   *result = NIL;

	ent_query_run(&complete_query, args, NULL, SPI_OK_SELECT, NULL);
	MemoryContextSwitchTo(context);
	for (uint64 row = 0; row < SPI_processed; row++)
		result = lappend_int(result, ent_query_int4(row, 1, NULL));
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/*
 * Rows that are nobody's: with all owners compared they are too many, since
 * whoever has them has said so by now (that is why tables of which something
 * is still to come are left alone); with a local owner named, they are his.
 */
static void
mend(List *complete, EntOwner *owner)
{
	ListCell   *lc;

	foreach(lc, ent_relinfo_all())
	{
		int32		no = ((EntRelation *) lfirst(lc))->no;
		EntMend		m = {.objects = true, .owner = owner ? owner->no : 0};

		if (owner != NULL)
			m.rows = ENT_MEND_ADOPT;
		else if (list_member_int(complete, no))
			m.rows = ENT_MEND_REMOVE;
		mend_table(no, &m);
	}
}

static void
tell_when(const EntPeer *peer)
{
	EntPeerSlot *slot = ent_shared ? ent_shmem_peer(peer->no, false) : NULL;

	if (peer->paused)
		ereport(NOTICE,
				(errmsg("peer \"%s\" is paused", peer->name),
				 errdetail("It is resynchronized when its link is up again.")));
	else if (ent_shared != NULL &&
			 (slot == NULL || slot->state != ENT_LINK_CONNECTED))
		ereport(NOTICE,
				(errmsg("peer \"%s\" is not connected", peer->name),
				 errdetail("It is resynchronized when its link is up.")));
}

/* (peer, owner) */
Datum
ent_sql_resync(PG_FUNCTION_ARGS)
{
	EntPeer    *peer;
	EntOwner   *owner = NULL;
	List	   *complete;
	Datum		args[2];

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("peer name must not be NULL")));
	ent_shmem_warn();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_relinfo_refresh();
	peer = find_peer(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!PG_ARGISNULL(1))
		owner = find_owner(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	check_on_link(peer, owner);
	complete = complete_tables(peer->no);
	args[0] = Int32GetDatum(peer->no);
	args[1] = Int32GetDatum(owner ? owner->no : 0);
	ent_query_run(&fetch_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_query_run(&send_query, args, NULL, SPI_OK_INSERT, NULL);
	if (owner == NULL || owner->local)
		mend(complete, owner);
	SPI_finish();
	ent_wake_routes_at_commit();
	tell_when(peer);
	PG_RETURN_VOID();
}
