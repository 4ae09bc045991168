/*
 * store/peer.c
 *	  entanglement.peer, read and written.
 *
 * Place: store. conninfo is read here and handed to the dialer only; no
 * function of ours returns it to a user.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/ent.h"
#include "store/peer.h"
#include "store/query.h"

#define PEER_COLUMNS \
	"no, name, conninfo, role::pg_catalog.oid, bandwidth, paused, node, fingerprint "

static EntQuery all_query = {
	"SELECT " PEER_COLUMNS "FROM entanglement.peer ORDER BY no", 0, {0}, NULL
};
static EntQuery get_query = {
	"SELECT " PEER_COLUMNS "FROM entanglement.peer "
	"WHERE no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery by_name_query = {
	"SELECT " PEER_COLUMNS "FROM entanglement.peer "
	"WHERE name OPERATOR(pg_catalog.=) $1",
	1, {TEXTOID}, NULL
};
static EntQuery lock_query = {
	"SELECT " PEER_COLUMNS "FROM entanglement.peer "
	"WHERE name OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	1, {TEXTOID}, NULL
};
static EntQuery bind_query = {
	"UPDATE entanglement.peer SET node = $2, "
	"fingerprint = COALESCE($3, fingerprint) "
	"WHERE no OPERATOR(pg_catalog.=) $1 "
	"AND (node IS NULL OR node OPERATOR(pg_catalog.=) $2) "
	"AND ($3 IS NULL OR fingerprint IS NULL "
	"OR fingerprint OPERATOR(pg_catalog.=) $3)",
	3, {INT4OID, UUIDOID, TEXTOID}, NULL
};
static EntQuery insert_query = {
	"INSERT INTO entanglement.peer (name, conninfo, role, bandwidth) "
	"VALUES ($1, $2, $3, $4) "
	"ON CONFLICT (name) DO NOTHING RETURNING no",
	4, {TEXTOID, TEXTOID, REGROLEOID, INT8OID}, NULL
};
static EntQuery remind_query = {
	"UPDATE entanglement.grave SET untold = pg_catalog.array_append(untold, $1)",
	1, {INT4OID}, NULL
};
static EntQuery update_query = {
	"UPDATE entanglement.peer SET name = $2, conninfo = $3, role = $4, "
	"bandwidth = $5, paused = $6, node = $7, fingerprint = $8 "
	"WHERE no OPERATOR(pg_catalog.=) $1",
	8, {INT4OID, TEXTOID, TEXTOID, REGROLEOID, INT8OID, BOOLOID, UUIDOID,
	TEXTOID}, NULL
};
static EntQuery role_used_query = {
	"SELECT 1 FROM entanglement.peer "
	"WHERE role OPERATOR(pg_catalog.=) $1 LIMIT 1",
	1, {OIDOID}, NULL
};

/* What else refers to a peer; a row per statement, all with peer.no as $1. */
static EntQuery delete_queries[] = {
	{"UPDATE entanglement.owner SET peer = NULL "
		"WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"UPDATE entanglement.grave SET untold = pg_catalog.array_remove(untold, $1) "
		"WHERE $1 OPERATOR(pg_catalog.=) ANY (untold)",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.peer_owner WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	/* but for what tells of owners until they have another route */
	{"DELETE FROM entanglement.peer_table WHERE peer OPERATOR(pg_catalog.=) $1 "
		"AND NOT EXISTS (SELECT 1 FROM entanglement.owner WHERE held OPERATOR(pg_catalog.=) $1)",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.owed WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.journal_loss WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.resend WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.hook WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.subscription WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.wanted WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.shown WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.holding WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.violation WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	/* what was pinned to it alone stays pinned: to nobody */
	{"UPDATE entanglement.speaker SET peers = pg_catalog.array_remove(peers, $1) "
		"WHERE $1 OPERATOR(pg_catalog.=) ANY (peers)",
	1, {INT4OID}, NULL},
	/* what was asked through it waits for another way, and nobody there is
	 * answered any more */
	{"UPDATE entanglement.request SET peers = pg_catalog.array_remove(peers, $1), "
		"untold = pg_catalog.array_remove(untold, $1), "
		"sent_to = pg_catalog.array_remove(sent_to, $1), "
		"refused_by = pg_catalog.array_remove(refused_by, $1), "
		"state = CASE WHEN state OPERATOR(pg_catalog.=) 'sent' AND carrier IS NULL "
		"AND pg_catalog.array_remove(sent_to, $1) OPERATOR(pg_catalog.=) '{}' "
		"THEN 'waiting' ELSE state END "
		"WHERE $1 OPERATOR(pg_catalog.=) ANY (pg_catalog.array_cat(peers, sent_to))",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.request WHERE role IS NULL AND NOT joint "
		"AND peers OPERATOR(pg_catalog.=) '{}' "
		"AND state OPERATOR(pg_catalog.=) 'waiting'",
	0, {0}, NULL},
	{"DELETE FROM entanglement.peer WHERE no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
};

/*
 * Peers that are no more, in what keeps other things from going, or is small. What
 * is owed may be much: its index is asked for the next peer.
 */
static EntQuery orphans_query = {
	"WITH RECURSIVE owing(n) AS (SELECT pg_catalog.min(peer) FROM entanglement.owed "
	"UNION ALL SELECT (SELECT pg_catalog.min(d.peer) FROM entanglement.owed d "
	"WHERE d.peer OPERATOR(pg_catalog.>) w.n) FROM owing w WHERE w.n IS NOT NULL) "
	"SELECT n FROM (SELECT n FROM owing "
	"UNION SELECT peer FROM entanglement.owner "
	"UNION SELECT peer FROM entanglement.peer_owner "
	"UNION SELECT peer FROM entanglement.resend "
	"UNION SELECT peer FROM entanglement.wanted "
	"UNION SELECT peer FROM entanglement.shown "
	"UNION SELECT peer FROM entanglement.journal_loss "
	"UNION SELECT pg_catalog.unnest(untold) FROM entanglement.grave "
	"UNION SELECT pg_catalog.unnest(untold) FROM entanglement.request "
	"WHERE decided_at IS NOT NULL AND untold OPERATOR(pg_catalog.<>) '{}') AS named(n) "
	"WHERE n IS NOT NULL AND NOT EXISTS (SELECT FROM entanglement.peer p "
	"WHERE p.no OPERATOR(pg_catalog.=) n)",
	0, {0}, NULL
};

static char *
text_at(uint64 row, int col, MemoryContext context)
{
	char	   *s = ent_query_text(row, col);

	return s ? MemoryContextStrdup(context, s) : NULL;
}

static EntPeer *
peer_at(uint64 row, MemoryContext context)
{
	EntPeer    *p = MemoryContextAllocZero(context, sizeof(EntPeer));
	bool		null;
	Datum		d;

	p->no = ent_query_int4(row, 1, NULL);
	p->name = text_at(row, 2, context);
	p->conninfo = text_at(row, 3, context);
	p->role = DatumGetObjectId(ent_query_datum(row, 4, &null));
	p->bandwidth = ent_query_int8(row, 5, NULL);
	p->paused = ent_query_bool(row, 6);
	d = ent_query_datum(row, 7, &null);
	p->has_node = !null;
	if (!null)
		p->node = *DatumGetUUIDP(d);
	p->fingerprint = text_at(row, 8, context);
	return p;
}

List *
ent_peer_all(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;

	ent_query_run(&all_query, NULL, NULL, SPI_OK_SELECT, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		EntPeer    *p = peer_at(i, context);
		MemoryContext old = MemoryContextSwitchTo(context);

		result = lappend(result, p);
		MemoryContextSwitchTo(old);
	}
	return result;
}

static EntPeer *
find(EntQuery *query, Datum arg)
{
	MemoryContext context = CurrentMemoryContext;

	ent_query_run(query, &arg, NULL, SPI_OK_SELECT, NULL);
	return SPI_processed == 0 ? NULL : peer_at(0, context);
}

EntPeer *
ent_peer_get(int32 no)
{
	return find(&get_query, Int32GetDatum(no));
}

EntPeer *
ent_peer_by_name(const char *name)
{
	return find(&by_name_query, CStringGetTextDatum(name));
}

EntPeer *
ent_peer_lock(const char *name)
{
	return find(&lock_query, CStringGetTextDatum(name));
}

void
ent_peer_bind(int32 no, const pg_uuid_t *node, const char *fingerprint)
{
	EntPeer    *known = ent_peer_get(no);
	Datum		args[3] = {Int32GetDatum(no), UUIDPGetDatum(node), (Datum) 0};
	char		nulls[4] = "  n";

	if (known != NULL && known->has_node &&
		memcmp(&known->node, node, sizeof(pg_uuid_t)) == 0 &&
		(fingerprint == NULL ||
		 (known->fingerprint != NULL &&
		  strcmp(known->fingerprint, fingerprint) == 0)))
		return;

	if (fingerprint != NULL)
	{
		args[2] = CStringGetTextDatum(fingerprint);
		nulls[2] = ' ';
	}
	ent_query_run(&bind_query, args, nulls, SPI_OK_UPDATE, NULL);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the peer was changed by another session at the same time")));
}

static void
complain_duplicate(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("peer \"%s\" already exists", name)));
}

/* Fills an argument that may be NULL. */
static void
set_text(Datum *args, char *nulls, int i, const char *value)
{
	nulls[i] = value ? ' ' : 'n';
	args[i] = value ? CStringGetTextDatum(value) : (Datum) 0;
}

static void
set_bandwidth(Datum *args, char *nulls, int i, int64 value)
{
	nulls[i] = value > 0 ? ' ' : 'n';
	args[i] = Int64GetDatum(value);
}

void
ent_peer_insert(EntPeer *peer)
{
	Datum		args[4];
	char		nulls[5] = "    ";

	args[0] = CStringGetTextDatum(peer->name);
	set_text(args, nulls, 1, peer->conninfo);
	args[2] = ObjectIdGetDatum(peer->role);
	set_bandwidth(args, nulls, 3, peer->bandwidth);
	ent_query_run(&insert_query, args, nulls, SPI_OK_INSERT_RETURNING, NULL);
	if (SPI_processed == 0)
		complain_duplicate(peer->name);
	peer->no = ent_query_int4(0, 1, NULL);
	/* it may be one that was forgotten, and hold what has gone since */
	args[0] = Int32GetDatum(peer->no);
	ent_query_run(&remind_query, args, NULL, SPI_OK_UPDATE, NULL);
}

void
ent_peer_update(const EntPeer *peer)
{
	EntPeer    *other = ent_peer_by_name(peer->name);
	Datum		args[8];
	char		nulls[9] = "        ";

	if (other != NULL && other->no != peer->no)
		complain_duplicate(peer->name);

	args[0] = Int32GetDatum(peer->no);
	args[1] = CStringGetTextDatum(peer->name);
	set_text(args, nulls, 2, peer->conninfo);
	args[3] = ObjectIdGetDatum(peer->role);
	set_bandwidth(args, nulls, 4, peer->bandwidth);
	args[5] = BoolGetDatum(peer->paused);
	args[6] = UUIDPGetDatum(&peer->node);
	nulls[6] = peer->has_node ? ' ' : 'n';
	set_text(args, nulls, 7, peer->fingerprint);
	ent_query_run(&update_query, args, nulls, SPI_OK_UPDATE, NULL);
}

void
ent_peer_delete(int32 no)
{
	Datum		args[1] = {Int32GetDatum(no)};

	for (int i = 0; i < lengthof(delete_queries); i++)
		ent_query_run(&delete_queries[i], args, NULL, 0, NULL);
}

void
ent_peer_sweep(void)
{
	uint64		n;
	int32	   *orphans;

	ent_query_run(&orphans_query, NULL, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	orphans = palloc((n + 1) * sizeof(int32));
	for (uint64 i = 0; i < n; i++)
		orphans[i] = ent_query_int4(i, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	for (uint64 i = 0; i < n; i++)
		ent_peer_delete(orphans[i]);
}

/* ---- rights ---- */

#define EXCHANGE_ROUTINES \
	"ROUTINE entanglement.hello(pg_catalog.text, pg_catalog.bytea), " \
	"entanglement.push(pg_catalog.bytea), entanglement.pull, " \
	"entanglement.stream(pg_catalog.text), entanglement.digest(pg_catalog.bytea)"

static void
execute(void *arg)
{
	const char *command = arg;
	int			result = SPI_execute(command, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), command);
}

void
ent_peer_grant(Oid role)
{
	const char *quoted = quote_identifier(GetUserNameFromId(role, false));

	/* the tables' owner has all rights, not to be touched */
	if (role == ent_query_owner())
		return;
	ent_query_as_owner(execute,
					   psprintf("GRANT USAGE ON SCHEMA entanglement TO %s",
								quoted));
	ent_query_as_owner(execute,
					   psprintf("GRANT EXECUTE ON " EXCHANGE_ROUTINES " TO %s",
								quoted));
}

void
ent_peer_revoke(Oid role)
{
	Datum		args[1] = {ObjectIdGetDatum(role)};
	char	   *name = GetUserNameFromId(role, true);

	/* a role that is gone took its rights along */
	if (name == NULL || role == ent_query_owner())
		return;
	ent_query_run(&role_used_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		return;
	ent_query_as_owner(execute,
					   psprintf("REVOKE USAGE ON SCHEMA entanglement FROM %s",
								quote_identifier(name)));
	ent_query_as_owner(execute,
					   psprintf("REVOKE EXECUTE ON " EXCHANGE_ROUTINES " FROM %s",
								quote_identifier(name)));
}
