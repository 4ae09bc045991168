/*
 * api/verify.c
 *	  SQL functions verify, which compares with a peer, and digest, which the
 *	  peer's verify calls here.
 *
 * Place: api. Nothing is changed on either side, nothing kept but who greeted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "api/verify.h"
#include "link/digest.h"
#include "link/verify.h"
#include "store/identity.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"

PG_FUNCTION_INFO_V1(ent_sql_verify);
PG_FUNCTION_INFO_V1(ent_sql_digest);

static EntQuery key_query = {
	"SELECT entanglement.request_key(r.no, r.relid, $2) FROM entanglement.relation r "
	"WHERE r.no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, BYTEAOID}, NULL
};

static int32 greeted = 0;		/* peer.no; 0: nobody has said hello here */

void
ent_verify_greeted(int32 peer)
{
	greeted = peer;
}

/* ---- asked ---- */

/* Whoever greeted, as it stands now. */
static EntPeer *
caller(void)
{
	EntPeer    *peer = greeted == 0 ? NULL : ent_peer_get(greeted);

	if (greeted == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nobody has said hello on this connection to verify"),
				 errhint("Digests are for nodes of entanglement, not for people: call entanglement.verify.")));
	if (peer == NULL || peer->role != GetSessionUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the peer was dropped or altered; it must connect anew")));
	if (peer->paused)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("peer \"%s\" is paused", peer->name)));
	return peer;
}

Datum
ent_sql_digest(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	bytea	   *question;
	bytea	   *answer;
	EntPeer    *peer;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("question must not be NULL")));
	ent_identity_refuse_undecided();
	question = PG_GETARG_BYTEA_PP(0);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	peer = caller();
	MemoryContextSwitchTo(context);
	answer = ent_digest_answer(peer, VARDATA_ANY(question),
							   VARSIZE_ANY_EXHDR(question));
	SPI_finish();
	PG_RETURN_BYTEA_P(answer);
}

/* ---- asking ---- */

static EntPeer *
find_peer(const char *name)
{
	EntPeer    *peer = ent_peer_by_name(name);

	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
	if (peer->conninfo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("peer \"%s\" has no conninfo: it dials this node", name),
				 errhint("Call entanglement.verify on that node.")));
	return peer;
}

/* A key as jsonb; null when there is none, or its table is not ours. */
static void
put_key(Datum *value, bool *null, const EntDifference *d, bytea *key,
		MemoryContext context)
{
	Datum		args[2] = {Int32GetDatum(d->rel), PointerGetDatum(key)};

	*null = key == NULL || d->rel == 0;
	if (*null)
		return;
	ent_query_run(&key_query, args, NULL, SPI_OK_SELECT, NULL);
	*null = SPI_processed == 0;
	if (!*null)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		*value = ent_query_datum(0, 1, null);
		if (!*null)
			*value = PointerGetDatum(PG_DETOAST_DATUM_COPY(*value));
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
put_number(Datum *value, bool *null, int64 n)
{
	*null = n < 0;
	*value = Int64GetDatum(n);
}

#define COLUMNS	7				/* as declared in sql/install/30_peers.sql */

static void
put_difference(const EntDifference *d, ReturnSetInfo *rsinfo)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS] = {false};

	values[0] = CStringGetTextDatum(d->relation);
	nulls[1] = d->owner == NULL;
	if (d->owner)
		values[1] = CStringGetTextDatum(d->owner);
	values[2] = CStringGetTextDatum(d->what);
	put_key(&values[3], &nulls[3], d, d->first, context);
	put_key(&values[4], &nulls[4], d, d->last, context);
	put_number(&values[5], &nulls[5], d->ours);
	put_number(&values[6], &nulls[6], d->theirs);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* (peer) */
Datum
ent_sql_verify(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext context = CurrentMemoryContext;
	EntVerified *verified;
	ListCell   *lc;
	int			level;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("peer name must not be NULL")));
	ent_identity_refuse_undecided();
	InitMaterializedSRF(fcinfo, 0);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
	/* our rows are read as the peer's role */
	level = ent_query_plain_path();
	verified = ent_verify(find_peer(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	AtEOXact_GUC(true, level);
	foreach(lc, verified->differences)
		put_difference(lfirst(lc), rsinfo);
	SPI_finish();
	ereport(DEBUG1,
			(errmsg_internal("verified in %d exchanges: %zu bytes sent, %zu received",
							 verified->exchanges, verified->sent,
							 verified->received)));
	PG_RETURN_VOID();
}
