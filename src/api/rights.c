/*
 * api/rights.c
 *	  SQL function refresh: what a peer may see is looked at again; and what
 *	  happens in a transaction that changes rights.
 *
 * Place: api. Links hear of changed rights by themselves. But which rows a peer may
 * have been told of before must be known before others are written.
 */
#include "postgres.h"

#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "base/shmem.h"
#include "base/wake.h"
#include "guard/show.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/shown.h"

PG_FUNCTION_INFO_V1(ent_sql_refresh);
PG_FUNCTION_INFO_V1(ent_sql_rights_changed);

/* (peer) */
Datum
ent_sql_refresh(PG_FUNCTION_ARGS)
{
	EntPeer    *peer;
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("peer name must not be NULL")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ent_shmem_warn();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	peer = ent_peer_by_name(name);
	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
	ent_shown_review_all(peer->no);
	SPI_finish();
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}

Datum
ent_sql_rights_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.rights_changed() must be called by an event trigger")));
	if (!ent_query_installed())
		PG_RETURN_NULL();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_show_settle();
	SPI_finish();
	PG_RETURN_NULL();
}
