/*
 * api/subscriptions.c
 *	  SQL functions subscribe, unsubscribe, check_filter.
 *
 * Place: api. What is wanted is written down; the receiving end of the link
 * tells the peer (link/insubscribe.c), which decides what a filter may be.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/shmem.h"
#include "base/wake.h"
#include "guard/filter.h"
#include "rule/wire.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/subscription.h"

PG_FUNCTION_INFO_V1(ent_sql_subscribe);
PG_FUNCTION_INFO_V1(ent_sql_unsubscribe);
PG_FUNCTION_INFO_V1(ent_sql_check_filter);

static void
refuse_null(FunctionCallInfo fcinfo, int i, const char *argument)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", argument)));
}

static EntPeer *
lock_peer(FunctionCallInfo fcinfo)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	EntPeer    *peer = ent_peer_lock(name);

	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
	return peer;
}

static EntRelation *
synchronized(Oid relid)
{
	EntRelation *rel;
	const char *name = get_rel_name(relid);

	ent_relinfo_refresh();
	rel = ent_relinfo_read_by_oid(relid);
	if (rel == NULL && name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not synchronized", name),
				 get_rel_relispartition(relid) ?
				 errhint("It is a partition. Name the partitioned table that it belongs to.") :
				 errhint("Synchronized tables are shown by the view entanglement.tables.")));
	return rel;
}

/* What can be said here already: the rest is up to the peer. */
static const char *
check_text(const char *filter)
{
	const char *wire = pg_server_to_any(filter, strlen(filter), PG_UTF8);

	if (strlen(wire) > ENT_WIRE_MAX_FILTER)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("filter is too long"),
				 errdetail("It has %zu bytes in UTF-8; at most %d are possible.",
						   strlen(wire), ENT_WIRE_MAX_FILTER)));
	ent_filter_check_syntax(filter);
	return filter;
}

/* (peer, relation, filter) */
Datum
ent_sql_subscribe(PG_FUNCTION_ARGS)
{
	const char *filter = NULL;
	EntPeer    *peer;

	refuse_null(fcinfo, 0, "peer name");
	refuse_null(fcinfo, 1, "relation");
	if (!PG_ARGISNULL(2))
		filter = check_text(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	peer = lock_peer(fcinfo);
	(void) synchronized(PG_GETARG_OID(1));
	ent_subscription_set(peer->no, PG_GETARG_OID(1), filter);
	SPI_finish();
	ent_shmem_warn();
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}

/* (peer, relation) */
Datum
ent_sql_unsubscribe(PG_FUNCTION_ARGS)
{
	EntPeer    *peer;
	const char *name;

	refuse_null(fcinfo, 0, "peer name");
	refuse_null(fcinfo, 1, "relation");
	name = get_rel_name(PG_GETARG_OID(1));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	peer = lock_peer(fcinfo);
	if (!ent_subscription_drop(peer->no, PG_GETARG_OID(1)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no subscription to table \"%s\" of peer \"%s\"",
						name ? name : "?", peer->name),
				 errhint("There are: SELECT peer, relation FROM entanglement.subscriptions WHERE direction = 'ours'.")));
	SPI_finish();
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}

/* (filter, relation, role) */
Datum
ent_sql_check_filter(PG_FUNCTION_ARGS)
{
	Oid			role = PG_ARGISNULL(2) ? GetUserId() : PG_GETARG_OID(2);
	const char *filter;

	refuse_null(fcinfo, 0, "filter");
	refuse_null(fcinfo, 1, "relation");
	(void) GetUserNameFromId(role, false);
	filter = check_text(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_TEXT_P(cstring_to_text(ent_filter_sql(synchronized(PG_GETARG_OID(1)),
													role, filter)));
}
