/*
 * api/progress.c
 *	  SQL function that shows how far peers are with what they are sent as a
 *	  whole, for the view progress.
 *
 * Place: api. All of it comes from shared memory, where the senders put it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/shmem.h"

PG_FUNCTION_INFO_V1(ent_sql_copies);

/* Columns as declared in sql/install/52_progress.sql. */
#define COPY_COLUMNS	5

static void
put_copy(int32 peer, const EntCopyProgress *c, ReturnSetInfo *rsinfo)
{
	Datum		values[COPY_COLUMNS] = {
		Int32GetDatum(peer), Int32GetDatum(c->rel), Int64GetDatum(c->done),
		Int64GetDatum(c->total), TimestampTzGetDatum(c->since)
	};
	bool		nulls[COPY_COLUMNS] = {false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
ent_sql_copies(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
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
		for (int j = 0; copy->database == MyDatabaseId && j < copy->ncopies; j++)
			put_copy(copy->peer, &copy->copies[j], rsinfo);
	}
	PG_RETURN_VOID();
}
