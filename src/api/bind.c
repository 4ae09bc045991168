/*
 * api/bind.c
 *	  Who may speak for an owner.
 *
 * Place: api. The receiving ends look at it whenever they decide about a route;
 * what is under way from a peer that may not any more is not taken.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/ring.h"
#include "base/wake.h"
#include "store/peer.h"
#include "store/query.h"

PG_FUNCTION_INFO_V1(ent_sql_bind_owner);

static EntQuery named_query = {
	"SELECT o.no, o.local FROM entanglement.owner o "
	"WHERE (o.name OPERATOR(pg_catalog.=) $1 OR o.id::pg_catalog.text OPERATOR(pg_catalog.=) $1) "
	"AND o.gone_as IS NULL ORDER BY o.local DESC LIMIT 2",
	1, {TEXTOID}, NULL
};
static EntQuery bind_query = {
	"INSERT INTO entanglement.speaker (owner, peers) VALUES ($1, $2) "
	"ON CONFLICT (owner) DO UPDATE SET peers = EXCLUDED.peers",
	2, {INT4OID, INT4ARRAYOID}, NULL
};
static EntQuery unbind_query = {
	"DELETE FROM entanglement.speaker WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
/* as ent_owner_set_route does: the next route is asked for all it may owe */
static EntQuery drop_route_query = {
	"UPDATE entanglement.owner SET peer = NULL, serial = sure "
	"WHERE no OPERATOR(pg_catalog.=) $1 AND NOT local "
	"AND peer OPERATOR(pg_catalog.<>) ALL ($2)",
	2, {INT4OID, INT4ARRAYOID}, NULL
};

static int32
owner_number(FunctionCallInfo fcinfo)
{
	Datum		args[1];
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("owner must not be NULL")));
	args[0] = PG_GETARG_DATUM(0);
	name = TextDatumGetCString(args[0]);
	ent_query_run(&named_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no owner is named \"%s\"", name),
				 errhint("There are: SELECT name FROM entanglement.owners.")));
	if (SPI_processed > 1 && !ent_query_bool(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_ALIAS),
				 errmsg("more than one owner is named \"%s\"", name),
				 errhint("Give the id of one of them: SELECT id, name, peer FROM entanglement.owners.")));
	return ent_query_int4(0, 1, NULL);
}

/* Their numbers; *n: how many. */
static Datum
peer_numbers(FunctionCallInfo fcinfo, int *n)
{
	Datum	   *names;
	bool	   *nulls;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("peers must not be NULL")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false,
					  TYPALIGN_INT, &names, &nulls, n);
	for (int i = 0; i < *n; i++)
	{
		char	   *name;
		EntPeer    *peer;

		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("peers must not contain NULL")));
		name = TextDatumGetCString(names[i]);
		peer = ent_peer_lock(name);
		if (peer == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("peer \"%s\" does not exist", name)));
		names[i] = Int32GetDatum(peer->no);
	}
	return ent_query_array(INT4OID, names, NULL, *n);
}

/* (owner, VARIADIC peers) */
Datum
ent_sql_bind_owner(PG_FUNCTION_ARGS)
{
	Datum		args[2];
	EntEvent	ev = {.kind = ENT_EVENT_OWNER};
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ev.owner = owner_number(fcinfo);
	args[0] = Int32GetDatum(ev.owner);
	args[1] = peer_numbers(fcinfo, &n);
	if (n == 0)
		ent_query_run(&unbind_query, args, NULL, SPI_OK_DELETE, NULL);
	else
	{
		ent_query_run(&bind_query, args, NULL, SPI_OK_INSERT, NULL);
		ent_query_run(&drop_route_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
	ent_wake_post_at_commit(&ev);
	ent_wake_routes_at_commit();
	SPI_finish();
	PG_RETURN_VOID();
}
