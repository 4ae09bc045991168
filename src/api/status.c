/*
 * api/status.c
 *	  SQL functions that look: the links' state and counters, drain; and the
 *	  one that starts this database's worker.
 *
 * Place: api. Everything here comes from shared memory; what is in tables is
 * joined to it by the views of sql/install/50_status.sql.
 */
#include "postgres.h"

#include <math.h>

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/ring.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "store/identity.h"
#include "store/peer.h"
#include "store/value.h"

PG_FUNCTION_INFO_V1(ent_sql_start_worker);
PG_FUNCTION_INFO_V1(ent_sql_is_preloaded);
PG_FUNCTION_INFO_V1(ent_sql_log_capture_error);
PG_FUNCTION_INFO_V1(ent_sql_link_states);
PG_FUNCTION_INFO_V1(ent_sql_key_text);
PG_FUNCTION_INFO_V1(ent_sql_drain);

/* An acknowledgement that was not broadcast is seen this much later. */
#define DRAIN_RECHECK_MS	20

Datum
ent_sql_start_worker(PG_FUNCTION_ARGS)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to start entanglement's worker")));
	ent_shmem_warn();
	if (ent_shared != NULL)
		ent_wake_launcher_at_commit();
	PG_RETURN_VOID();
}

Datum
ent_sql_is_preloaded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(ent_shared != NULL);
}

Datum
ent_sql_log_capture_error(PG_FUNCTION_ARGS)
{
	char		sqlstate[6];
	char		message[ENT_ERROR_LENGTH];
	TimestampTz since = ent_shared ? ent_shmem_decode_error(sqlstate, message) : 0;
	bool		nulls[2] = {since == 0, since == 0};
	Datum		values[2] = {TimestampTzGetDatum(since)};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (since != 0)
		values[1] = CStringGetTextDatum(psprintf("%s: %s", sqlstate, message));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
													  nulls)));
}

/* ---- links ---- */

/* What is NULL as long as it is not known. */
static void
put_interval(Datum *value, bool *null, int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	*value = IntervalPGetDatum(interval);
	*null = us < 0;
}

static void
put_text(Datum *value, bool *null, const char *text)
{
	*null = text[0] == '\0';
	*value = *null ? (Datum) 0 : CStringGetTextDatum(text);
}

/* Columns as declared in sql/install/50_status.sql. */
#define LINK_COLUMNS	16

static void
put_link(EntPeerSlot *slot, TimestampTz now, ReturnSetInfo *rsinfo)
{
	Datum		values[LINK_COLUMNS] = {0};
	bool		nulls[LINK_COLUMNS] = {false};
	pg_atomic_uint64 *counters[] = {
		&slot->queued, &slot->bytes_sent, &slot->bytes_received,
		&slot->batches_sent, &slot->batches_received,
		&slot->objects_sent, &slot->objects_received, &slot->coalesced
	};
	uint64		round_trip = pg_atomic_read_u64(&slot->round_trip);
	uint64		rate = pg_atomic_read_u64(&slot->rate);
	uint64		oldest = pg_atomic_read_u64(&slot->oldest);
	uint64		stale = pg_atomic_read_u64(&slot->stale_since);
	int			c = 0;

	values[c++] = Int32GetDatum(slot->peer);
	values[c++] = CStringGetTextDatum(ent_shmem_state_name(slot->state));
	values[c++] = TimestampTzGetDatum(slot->since);
	put_text(&values[c], &nulls[c], slot->sqlstate);
	c++;
	put_text(&values[c], &nulls[c], slot->last_error);
	c++;
	put_interval(&values[c], &nulls[c], round_trip > 0 ? round_trip : -1);
	c++;
	values[c] = Int64GetDatum((int64) rate);
	nulls[c++] = rate == 0;
	if (stale > 0 && (oldest == 0 || stale < oldest))
		oldest = stale;
	put_interval(&values[c], &nulls[c],
				 oldest > 0 ? Max(now - (TimestampTz) oldest, 0) : -1);
	c++;
	for (int i = 0; i < lengthof(counters); i++)
		values[c++] = Int64GetDatum((int64) pg_atomic_read_u64(counters[i]));
	Assert(c == LINK_COLUMNS);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
ent_sql_link_states(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	EntPeerSlot *copy = palloc(sizeof(EntPeerSlot));

	InitMaterializedSRF(fcinfo, 0);
	if (ent_shared == NULL)
		PG_RETURN_VOID();
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		/* nothing that may fail or wait while the lock is held */
		LWLockAcquire(ent_shared->lock, LW_SHARED);
		memcpy(copy, &ent_shared->peers[i], sizeof(EntPeerSlot));
		LWLockRelease(ent_shared->lock);
		if (copy->database == MyDatabaseId)
			put_link(copy, now, rsinfo);
	}
	PG_RETURN_VOID();
}

Datum
ent_sql_key_text(PG_FUNCTION_ARGS)
{
	EntRelation *rel;
	bytea	   *key = PG_GETARG_BYTEA_PP(1);

	ent_relinfo_refresh();
	rel = ent_relinfo_get(PG_GETARG_INT32(0));
	if (rel == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(ent_key_text(rel,
												  (uint8 *) VARDATA_ANY(key),
												  VARSIZE_ANY_EXHDR(key))));
}

/* ---- drain ---- */

static int32
peer_number(const char *name)
{
	EntPeer    *peer;
	int32		no;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	peer = ent_peer_by_name(name);
	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
	no = peer->no;
	SPI_finish();
	return no;
}

/* Microseconds of a timeout that must not be negative. */
static int64
timeout_us(Interval *timeout)
{
	double		us = (double) timeout->time +
		((double) timeout->month * DAYS_PER_MONTH + timeout->day) * USECS_PER_DAY;

	if (us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	/* a century is for ever, and far from overflowing */
	return (int64) Min(us, 100.0 * DAYS_PER_YEAR * USECS_PER_DAY);
}

typedef struct Drain
{
	EntDatabaseSlot *database;
	uint64		ticket;
	bool		folded;
	int32		peer;
	uint64		position;		/* of the ring, once folded */
	uint64	   *asked;			/* by slot; 0: not yet */
} Drain;

/*
 * Is all before that ring position durable at the peer? It must have been heard
 * since: a table may have appeared there.
 */
static bool
acknowledged(Drain *d, EntPeerSlot *slot)
{
	uint64	   *asked = &d->asked[slot - ent_shared->peers];

	if (*asked == 0)
	{
		*asked = pg_atomic_add_fetch_u64(&slot->asked, 1);
		ent_shmem_wake_senders();
		return false;
	}
	if (pg_atomic_read_u64(&slot->heard) < *asked)
		return false;
	pg_read_barrier();
	return pg_atomic_read_u64(&slot->acked) >= d->position;
}

/* ... or, no peer being named, at every peer that is connected? */
static bool
all_acknowledged(Drain *d)
{
	bool		all = true;

	if (d->peer != 0)
	{
		EntPeerSlot *slot = ent_shmem_peer(d->peer, false);

		return slot != NULL && acknowledged(d, slot);
	}
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (slot->database == MyDatabaseId &&
			slot->state == ENT_LINK_CONNECTED && !acknowledged(d, slot))
			all = false;
	}
	return all;
}

static bool
drained(Drain *d)
{
	if (!d->folded &&
		pg_atomic_read_u64(&d->database->fold_done) >= d->ticket)
	{
		d->folded = true;
		d->position = ent_ring_head();
	}
	return d->folded && all_acknowledged(d);
}

/* (peer, timeout) */
Datum
ent_sql_drain(PG_FUNCTION_ARGS)
{
	Drain		d = {0};
	TimestampTz end;
	bool		done;

	ent_shmem_require("entanglement.drain()");
	ent_identity_refuse_undecided();
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be NULL")));
	end = GetCurrentTimestamp() + timeout_us(PG_GETARG_INTERVAL_P(1));
	if (!PG_ARGISNULL(0))
		d.peer = peer_number(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	d.database = ent_shmem_database(true);
	if (d.database == NULL)
		PG_RETURN_BOOL(false);
	d.asked = palloc0(ent_shared->npeers * sizeof(uint64));
	d.ticket = ent_shmem_fold_ticket();

	ConditionVariablePrepareToSleep(&ent_shared->progress);
	while (!(done = drained(&d)))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														   end);

		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&ent_shared->progress,
										   Min(left, DRAIN_RECHECK_MS),
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(done);
}
