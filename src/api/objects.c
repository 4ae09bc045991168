/*
 * api/objects.c
 *	  Whose a row is, and whose it becomes: owner_of, transfer.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "api/row.h"
#include "base/compat.h"
#include "guard/policy.h"
#include "store/handover.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/rowquery.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_owner_of);
PG_FUNCTION_INFO_V1(ent_sql_transfer);

static EntQuery pending_query = {
	"SELECT o.name FROM entanglement.change c JOIN entanglement.owner o "
	"ON o.no OPERATOR(pg_catalog.=) c.owner WHERE c.rel OPERATOR(pg_catalog.=) $1 "
	"AND c.key OPERATOR(pg_catalog.=) $2 AND c.op OPERATOR(pg_catalog.=) 'I'::pg_catalog.\"char\"",
	2, {INT4OID, BYTEAOID}, NULL
};

/* ---- owner_of ---- */

/* Tables that are being looked into; a policy may lead to the next one. */
typedef struct Looking
{
	Oid			relid;
	struct Looking *outer;
} Looking;

static Looking *looking = NULL;

static bool
is_looked_into(Oid relid)
{
	for (Looking *l = looking; l != NULL; l = l->outer)
		if (l->relid == relid)
			return true;
	return false;
}

/*
 * A row given to owner_of may be made up: nobody learns so of a key what the
 * table would not tell. Its policies may themselves ask who owns a row of it: what
 * the look into a table asks of that table is not looked for again.
 */
static bool
may_know(EntRelation *rel, const Datum *key)
{
	Looking		l = {rel->relid, looking};
	bool		visible = true;

	if (check_enable_rls(rel->relid, InvalidOid, true) != RLS_ENABLED)
	{
		if (pg_class_aclcheck(rel->relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
			return true;
		for (int i = 0; i < rel->nkeys; i++)
			if (pg_attribute_aclcheck(rel->relid, rel->columns[rel->keys[i]].attnum,
									  GetUserId(), ACL_SELECT) != ACLCHECK_OK)
				aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, rel->name);
		return true;
	}
	if (is_looked_into(rel->relid))
		return true;
	looking = &l;
	PG_TRY();
	{
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		visible = ent_rowquery_visible(rel, NULL, key);
		SPI_finish();
	}
	PG_FINALLY();
	{
		looking = l.outer;
	}
	PG_END_TRY();
	return visible;
}

Datum
ent_sql_owner_of(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	EntRelation *rel;
	Datum		values[ENT_WIRE_MAX_KEYS];
	Datum		args[2];
	bytea	   *key;
	char	   *name = NULL;
	int32		owner;

	if (!ent_row_read(PG_GETARG_HEAPTUPLEHEADER(0),
				  "SELECT entanglement.owner_of(t) FROM synchronized_table t.",
				  &rel, values) || !may_know(rel, values))
		PG_RETURN_NULL();
	key = ent_key_image(rel, values);
	owner = ent_object_owner(rel->no, key);
	if (owner != 0)
		name = ent_object_owner_name(owner);
	else
	{
		args[0] = Int32GetDatum(rel->no);
		args[1] = PointerGetDatum(key);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		MemoryContextSwitchTo(context);
		ent_query_run(&pending_query, args, NULL, SPI_OK_SELECT,
					  GetActiveSnapshot());
		if (SPI_processed > 0)
			name = ent_query_text(SPI_processed - 1, 1);
		SPI_finish();
	}
	if (name == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/* ---- transfer ---- */

typedef struct Look
{
	EntRelation *rel;
	Datum	   *values;
	bool		visible;
} Look;

static void
look(void *arg)
{
	Look	   *l = arg;

	l->visible = ent_rowquery_visible(l->rel, NULL, l->values);
}

/*
 * What the heir's way begins with must be able to see the row; about nodes
 * further on nothing is known here.
 */
static void
check_reachable(EntRelation *rel, Datum *values, EntOwner *heir)
{
	EntPeer    *peer = heir->peer == 0 ? NULL : ent_peer_get(heir->peer);
	bool	   *may = palloc(rel->ncolumns * sizeof(bool));
	Look		l = {rel, values, false};
	int			level;

	if (peer == NULL)
		return;
	level = ent_query_plain_path();
	if (ent_policy_columns(rel, peer->role, may))
		ent_query_as(peer->role, look, &l);
	AtEOXact_GUC(true, level);
	if (!l.visible)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the row of table \"%s\" cannot come to owner \"%s\"",
						rel->name, heir->name),
				 errdetail("Peer \"%s\", through which he is reached, may not see it.",
						   peer->name),
				 errhint("GRANT SELECT on the table to role \"%s\", and see its row-level security.",
						 GetUserNameFromId(peer->role, false))));
}

/* Its owner now; raises unless that is one at home here. */
static int32
check_our_row(EntRelation *rel, bytea *key)
{
	int32		owner;

	PushActiveSnapshot(GetLatestSnapshot());
	owner = ent_object_owner(rel->no, key);
	PopActiveSnapshot();
	if (owner != 0 && !ent_object_owner_is_local(owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("row of table \"%s\" is owned by \"%s\", not by this node",
						rel->name, ent_object_owner_name(owner)),
				 errdetail("Key %s.", ent_key_text(rel, (uint8 *) VARDATA_ANY(key),
												   VARSIZE_ANY_EXHDR(key))),
				 errhint("Hand it over at the node that is its owner's home.")));
	return owner;
}

/*
 * The row is locked first: who waits for it sees the new owner then, and what
 * he wanted to do becomes a request.
 */
Datum
ent_sql_transfer(PG_FUNCTION_ARGS)
{
	EntRelation *rel;
	Datum		values[ENT_WIRE_MAX_KEYS];
	bytea	   *key;
	EntOwner   *heir;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("%s must not be NULL",
							   PG_ARGISNULL(0) ? "row" : "owner")));
	if (!ent_row_read(PG_GETARG_HEAPTUPLEHEADER(0),
				  "SELECT entanglement.transfer(t, 'red') FROM synchronized_table t.",
				  &rel, values))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("not found: no such row in table \"%s\"", rel->name)));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	heir = ent_owner_get(ent_owner_named(text_to_cstring(PG_GETARG_TEXT_PP(1)),
										 NULL));
	key = ent_key_image(rel, values);
	if (!ent_rowquery_lock(rel, values))
	{
		(void) check_our_row(rel, key);
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("not found: no such row in table \"%s\"", rel->name)));
	}
	if (check_our_row(rel, key) != heir->no)
	{
		if (!heir->local)
			check_reachable(rel, values, heir);
		ent_handover_make(rel->no, key, heir->no);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
