/*
 * store/request.c
 *	  entanglement.request: changes asked of owners, and their answers.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/guc.h"
#include "base/wake.h"
#include "store/catalog.h"
#include "store/query.h"
#include "store/request.h"

static EntQuery make_query = {
	"INSERT INTO entanglement.request "
	"(id, rel, owner, op, key, columns, values, state, peers, untold, role, sqlstate, "
	"message, detail, constraint_name, on_the_way, made_at, expires_at, decided_at) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13, $14, $16, "
	"pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) "
	"($15 OPERATOR(pg_catalog.*) '1 ms'::pg_catalog.interval), "
	"CASE WHEN $11 IS NOT NULL THEN pg_catalog.clock_timestamp() END)",
	16, {UUIDOID, INT4OID, INT4OID, CHAROID, BYTEAOID, TEXTARRAYOID, TEXTARRAYOID,
	TEXTOID, INT4ARRAYOID, OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, FLOAT8OID, BOOLOID}, NULL
};
static EntQuery seen_query = {
	"SELECT state OPERATOR(pg_catalog.=) ANY (ARRAY['accepted', 'refused']) "
	"FROM entanglement.request WHERE id OPERATOR(pg_catalog.=) $1",
	1, {UUIDOID}, NULL
};
static EntQuery redirect_query = {
	"UPDATE entanglement.request SET "
	"peers = pg_catalog.array_append(pg_catalog.array_remove(peers, $2), $2), "
	"untold = pg_catalog.array_append(pg_catalog.array_remove(untold, $2), $2) "
	"WHERE id OPERATOR(pg_catalog.=) $1",
	2, {UUIDOID, INT4OID}, NULL
};
static EntQuery open_query = {
	"SELECT joint FROM entanglement.request WHERE id OPERATOR(pg_catalog.=) $1 "
	"AND state OPERATOR(pg_catalog.=) ANY (ARRAY['waiting', 'sent', 'expired']) "
	"AND ($2 IS NULL OR $2 OPERATOR(pg_catalog.=) ANY (pg_catalog.array_cat(sent_to, peers))) "
	"FOR UPDATE",
	2, {UUIDOID, INT4OID}, NULL
};
static EntQuery refused_query = {
	"UPDATE entanglement.request SET state = 'sent', "
	"refused_by = CASE WHEN $2 IS NULL THEN refused_by ELSE "
	"pg_catalog.array_append(pg_catalog.array_remove(refused_by, $2), $2) END "
	"WHERE id OPERATOR(pg_catalog.=) $1 RETURNING sent_to OPERATOR(pg_catalog.<@) refused_by",
	2, {UUIDOID, INT4OID}, NULL
};
static EntQuery decide_query = {
	"UPDATE entanglement.request SET state = $2, epoch = $3, serial = $4, sqlstate = $5, "
	"message = $6, detail = $7, constraint_name = $8, on_the_way = $11, "
	"owner = COALESCE((SELECT no FROM entanglement.owner WHERE id OPERATOR(pg_catalog.=) $12), owner), "
	"key = CASE WHEN op OPERATOR(pg_catalog.=) 'C'::pg_catalog.\"char\" THEN COALESCE($9, key) ELSE key END, "
	"decided_at = pg_catalog.clock_timestamp(), "
	/* those who were asked in vain learn that it is settled */
	"untold = pg_catalog.array_remove(pg_catalog.array_cat(untold, sent_to), $10) "
	"WHERE id OPERATOR(pg_catalog.=) $1 OR carrier OPERATOR(pg_catalog.=) $1 "
	"RETURNING id::pg_catalog.text, state, role IS NOT NULL",
	12, {UUIDOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT4OID, BOOLOID, UUIDOID}, NULL
};
static EntQuery part_query = {
	"UPDATE entanglement.request SET state = 'waiting', carrier = NULL, alone = true "
	"WHERE carrier OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) 'sent'",
	1, {UUIDOID}, NULL
};
static EntQuery creates_query = {
	"SELECT rel FROM entanglement.request WHERE id OPERATOR(pg_catalog.=) $1 "
	"AND op OPERATOR(pg_catalog.=) 'C'::pg_catalog.\"char\" "
	"AND $2 OPERATOR(pg_catalog.=) ANY (sent_to)",
	2, {UUIDOID, INT4OID}, NULL
};
static EntQuery settle_query = {
	"UPDATE entanglement.request q SET state = 'accepted', "
	"decided_at = pg_catalog.clock_timestamp(), "
	"epoch = COALESCE(o.epoch, t.epoch, w.epoch), "
	"serial = COALESCE(o.serial, t.serial, w.serial) "
	"FROM entanglement.request a "
	"JOIN entanglement.owner w ON w.no OPERATOR(pg_catalog.=) a.owner "
	"LEFT JOIN entanglement.object o ON o.rel OPERATOR(pg_catalog.=) a.rel "
	"AND o.key OPERATOR(pg_catalog.=) a.key AND o.owner OPERATOR(pg_catalog.=) a.owner "
	"LEFT JOIN entanglement.tombstone t ON t.owner OPERATOR(pg_catalog.=) a.owner "
	"AND t.rel OPERATOR(pg_catalog.=) a.rel AND t.key OPERATOR(pg_catalog.=) a.key "
	"WHERE q.id OPERATOR(pg_catalog.=) a.id AND a.state OPERATOR(pg_catalog.=) 'applied'",
	0, {0}, NULL
};
/*
 * Of whom something is asked and open, by the index, with a NULL at the end. owner + 0: as the
 * index has it, so that no plan takes it for what is to be sent in order.
 */
#define OPEN "state OPERATOR(pg_catalog.=) ANY (ARRAY['waiting', 'sent']) "
#define OWNER "(q.owner OPERATOR(pg_catalog.+) 0)"
#define ASKED \
	"WITH RECURSIVE asked(owner) AS (SELECT pg_catalog.min(" OWNER ") FROM entanglement.request q " \
	"WHERE " OPEN "UNION ALL SELECT (SELECT pg_catalog.min(" OWNER ") FROM entanglement.request q " \
	"WHERE q." OPEN "AND " OWNER " OPERATOR(pg_catalog.>) a.owner) " \
	"FROM asked a WHERE a.owner IS NOT NULL) "

/* now(), which an index can be asked for: each round is a transaction of its own. */
static EntQuery expire_query = {
	ASKED "UPDATE entanglement.request SET state = 'expired', sqlstate = '57014', "
	"message = 'the request expired without an answer', "
	"decided_at = pg_catalog.clock_timestamp() "
	"WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.id FROM asked a, LATERAL ("
	"SELECT q.id FROM entanglement.request q WHERE " OWNER " OPERATOR(pg_catalog.=) a.owner "
	"AND q." OPEN "AND q.expires_at OPERATOR(pg_catalog.<) pg_catalog.now() OFFSET 0) r)) "
	/* still open; said such that no plan reads all that are */
	"AND state OPERATOR(pg_catalog.<>) ALL (ARRAY['applied', 'accepted', 'refused', 'expired']) "
	"RETURNING id::pg_catalog.text, state, role IS NOT NULL",
	0, {0}, NULL
};
static EntQuery prune_query = {
	"DELETE FROM entanglement.request WHERE decided_at OPERATOR(pg_catalog.<) "
	"(pg_catalog.now() OPERATOR(pg_catalog.-) ($1 OPERATOR(pg_catalog.*) '1 s'::pg_catalog.interval)) "
	"AND expires_at OPERATOR(pg_catalog.<) "
	"(pg_catalog.now() OPERATOR(pg_catalog.-) '1 day'::pg_catalog.interval)",
	1, {FLOAT8OID}, NULL
};
static EntQuery open_of_query = {
	"SELECT id FROM entanglement.request q WHERE " OWNER " OPERATOR(pg_catalog.=) $1 "
	"AND " OPEN "AND carrier IS NULL",
	1, {INT4OID}, NULL
};
/* Of those whose owner nobody is asked for any more: gone, or at home here. */
static EntQuery stranded_query = {
	ASKED "SELECT a.owner, o.no IS NOT NULL AND o.local FROM asked a "
	"LEFT JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) a.owner "
	"WHERE a.owner IS NOT NULL AND (o.no IS NULL OR o.local OR o.gone_as IS NOT NULL)",
	0, {0}, NULL
};

/* ---- the session's latest ---- */

/* One per nest level of transactions that made requests, in rising order. */
typedef struct Latest
{
	int			level;
	pg_uuid_t	id;
} Latest;

static Latest *latest = NULL;	/* in TopTransactionContext */
static int	nlatest = 0,
			maxlatest = 0;
static bool committed_valid = false;
static pg_uuid_t committed;		/* of an earlier transaction */

static void
at_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && nlatest > 0)
	{
		committed = latest[nlatest - 1].id;
		committed_valid = true;
	}
	latest = NULL;
	nlatest = maxlatest = 0;
}

static void
at_subtransaction(SubXactEvent event, SubTransactionId mine,
				  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (nlatest == 0 || latest[nlatest - 1].level < level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		nlatest--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		latest[nlatest - 1].level = level - 1;
		if (nlatest > 1 && latest[nlatest - 2].level == level - 1)
		{
			latest[nlatest - 2] = latest[nlatest - 1];
			nlatest--;
		}
	}
}

static void
remember(const pg_uuid_t *id)
{
	static bool registered = false;
	int			level = GetCurrentTransactionNestLevel();

	if (!registered)
	{
		RegisterXactCallback(at_transaction, NULL);
		RegisterSubXactCallback(at_subtransaction, NULL);
		registered = true;
	}
	if (nlatest == 0 || latest[nlatest - 1].level < level)
	{
		if (nlatest == maxlatest)
		{
			maxlatest = maxlatest == 0 ? 8 : maxlatest * 2;
			latest = latest == NULL ?
				MemoryContextAlloc(TopTransactionContext, maxlatest * sizeof(Latest)) :
				repalloc(latest, maxlatest * sizeof(Latest));
		}
		latest[nlatest++].level = level;
	}
	latest[nlatest - 1].id = *id;
}

bool
ent_request_last(pg_uuid_t *id)
{
	if (nlatest > 0)
		*id = latest[nlatest - 1].id;
	else if (committed_valid)
		*id = committed;
	return nlatest > 0 || committed_valid;
}

/* ---- making and storing ---- */

static Datum
text_or_null(const char *text, char *null)
{
	*null = text == NULL ? 'n' : ' ';
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

void
ent_request_store(const EntRequest *q, const char *state,
				  const EntRequestAnswer *answer)
{
	static const EntRequestAnswer none = {0};
	const EntRequestAnswer *a = answer ? answer : &none;
	Datum		peer = Int32GetDatum(q->peer);
	Datum		peers = ent_query_array(INT4OID, &peer, NULL, q->peer == 0 ? 0 : 1);
	char		nulls[] = "                ";
	Datum		args[16] = {
		UUIDPGetDatum(&q->id), Int32GetDatum(q->rel), Int32GetDatum(q->owner),
		CharGetDatum(q->op), PointerGetDatum(q->key),
		ent_query_text_array(q->columns, q->ncolumns), ent_query_text_array(q->values, q->ncolumns),
		CStringGetTextDatum(answer ? "refused" : state),
		peers, ObjectIdGetDatum(q->role),
		text_or_null(a->sqlstate, &nulls[10]), text_or_null(a->message, &nulls[11]),
		text_or_null(a->detail, &nulls[12]), text_or_null(a->constraint, &nulls[13]),
		Float8GetDatum((double) q->left), BoolGetDatum(a->on_the_way)
	};

	nulls[4] = q->key == NULL ? 'n' : ' ';
	nulls[9] = OidIsValid(q->role) ? ' ' : 'n';
	ent_query_run(&make_query, args, nulls, SPI_OK_INSERT, NULL);
	ent_wake_requests_at_commit();
}

void
ent_request_make(EntRequest *q)
{
	if (!pg_strong_random(&q->id, sizeof(q->id)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	/* version 4, RFC 4122 section 4.4 */
	q->id.data[6] = (q->id.data[6] & 0x0f) | 0x40;
	q->id.data[8] = (q->id.data[8] & 0x3f) | 0x80;
	q->left = (int64) ent_request_retention * 1000;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_request_store(q, "waiting", NULL);
	SPI_finish();
	remember(&q->id);
}

EntRequestKnown
ent_request_seen(const pg_uuid_t *id, int32 peer)
{
	Datum		args[2] = {UUIDPGetDatum(id), Int32GetDatum(peer)};
	EntRequestKnown result = ENT_REQUEST_NEW;

	ent_query_run(&seen_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		result = ent_query_bool(0, 1) ? ENT_REQUEST_DECIDED : ENT_REQUEST_OPEN;
	SPI_freetuptable(SPI_tuptable);
	if (result != ENT_REQUEST_NEW)
	{
		ent_query_run(&redirect_query, args, NULL, SPI_OK_UPDATE, NULL);
		ent_wake_requests_at_commit();
	}
	return result;
}

/* ---- answers ---- */

/* Tells listeners of those that were made here. Reads SPI's result. */
static void
notify(void)
{
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		if (!ent_query_bool(row, 3))
			continue;
		Async_Notify(ENT_REQUEST_CHANNEL,
					 psprintf("{\"request\": \"%s\", \"state\": \"%s\"}",
							  ent_query_text(row, 1), ent_query_text(row, 2)));
	}
	SPI_freetuptable(SPI_tuptable);
	ent_wake_requests_at_commit();
}

static void
decide(const pg_uuid_t *id, int32 peer, const EntRequestAnswer *a, bytea *key)
{
	char		nulls[] = "            ";
	Datum		args[12] = {
		UUIDPGetDatum(id), CStringGetTextDatum(a->accepted ? "accepted" : "refused"),
		Int32GetDatum(a->epoch), Int64GetDatum(a->serial),
		text_or_null(a->sqlstate, &nulls[4]), text_or_null(a->message, &nulls[5]),
		text_or_null(a->detail, &nulls[6]), text_or_null(a->constraint, &nulls[7]),
		PointerGetDatum(key), Int32GetDatum(peer), BoolGetDatum(a->on_the_way),
		UUIDPGetDatum(&a->owner)
	};

	nulls[2] = nulls[3] = nulls[11] = a->accepted ? ' ' : 'n';
	nulls[8] = key == NULL ? 'n' : ' ';
	ent_query_run(&decide_query, args, nulls, SPI_OK_UPDATE_RETURNING, NULL);
	notify();
}

/*
 * Refused on the way, by that peer or (0) by ourselves: has it gone no other
 * way? One of them may have come to the owner's home, which then decides.
 */
static bool
refused_everywhere(const pg_uuid_t *id, int32 peer)
{
	Datum		args[2] = {UUIDPGetDatum(id), Int32GetDatum(peer)};
	bool		result;

	ent_query_run(&refused_query, args, peer == 0 ? " n" : NULL,
				  SPI_OK_UPDATE_RETURNING, NULL);
	result = SPI_processed > 0 && ent_query_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/* peer 0: one that is waiting here. */
static void
answered(const pg_uuid_t *id, int32 peer, const EntRequestAnswer *a,
		 bytea *key)
{
	Datum		args[2] = {UUIDPGetDatum(id), Int32GetDatum(peer)};
	bool		found,
				joint;

	ent_query_run(&open_query, args, peer == 0 ? " n" : NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	joint = found && ent_query_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	if (!found || (a->on_the_way && !refused_everywhere(id, peer)))
		return;
	/* which of those it speaks for was refused, each finds out for itself */
	if (joint && !a->accepted)
		ent_query_run(&part_query, args, NULL, SPI_OK_UPDATE, NULL);
	decide(id, peer, a, key);
}

int32
ent_request_creates_in(const pg_uuid_t *id, int32 peer)
{
	Datum		args[2] = {UUIDPGetDatum(id), Int32GetDatum(peer)};
	int32		rel = 0;

	ent_query_run(&creates_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		rel = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return rel;
}

void
ent_request_answered(const pg_uuid_t *id, int32 peer,
					 const EntRequestAnswer *answer, bytea *key)
{
	answered(id, peer, answer, key);
}

void
ent_request_refuse(const pg_uuid_t *id, const EntRequestAnswer *answer)
{
	answered(id, 0, answer, NULL);
}

/* Members of a joint request are open by themselves once it is refused. */
void
ent_request_refuse_all(int32 owner, const EntRequestAnswer *answer)
{
	Datum		args[1] = {Int32GetDatum(owner)};
	pg_uuid_t  *ids;
	uint64		n;

	do
	{
		ent_query_run(&open_of_query, args, NULL, SPI_OK_SELECT, NULL);
		n = SPI_processed;
		ids = palloc((n + 1) * sizeof(pg_uuid_t));
		for (uint64 row = 0; row < n; row++)
		{
			bool		null;

			ids[row] = *DatumGetUUIDP(ent_query_datum(row, 1, &null));
		}
		SPI_freetuptable(SPI_tuptable);
		for (uint64 i = 0; i < n; i++)
			ent_request_refuse(&ids[i], answer);
		pfree(ids);
	} while (n > 0);
}

const EntRequestAnswer ent_request_owner_gone = {
	.sqlstate = "42704",.message = "the owner is no more"
};
const EntRequestAnswer ent_request_owner_here = {
	.sqlstate = "40001",
	.message = "the node at which the request waited has become the home of the owner; ask again"
};

/* Made while its owner went, or changed sides. */
static void
refuse_stranded(void)
{
	int32	   *owners;
	bool	   *local;
	uint64		n;

	ent_query_run(&stranded_query, NULL, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	owners = palloc((n + 1) * sizeof(int32));
	local = palloc((n + 1) * sizeof(bool));
	for (uint64 row = 0; row < n; row++)
	{
		owners[row] = ent_query_int4(row, 1, NULL);
		local[row] = ent_query_bool(row, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	for (uint64 i = 0; i < n; i++)
		ent_request_refuse_all(owners[i], local[i] ? &ent_request_owner_here :
							   &ent_request_owner_gone);
}

/* ---- versions, age ---- */

bool
ent_request_any_applied(void)
{
	return ent_catalog_any(ENT_CATALOG_REQUEST, ENT_CATALOG_REQUEST_APPLIED);
}

void
ent_request_settle(void)
{
	ent_query_run(&settle_query, NULL, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed > 0)
		ent_wake_requests_at_commit();
}

void
ent_request_prune(void)
{
	Datum		args[1] = {Float8GetDatum((double) ent_request_retention)};

	refuse_stranded();
	ent_query_run(&expire_query, NULL, NULL, SPI_OK_UPDATE_RETURNING, NULL);
	if (SPI_processed > 0)
		notify();
	else
		SPI_freetuptable(SPI_tuptable);
	ent_query_run(&prune_query, args, NULL, SPI_OK_DELETE, NULL);
}
