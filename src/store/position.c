/*
 * store/position.c
 *	  entanglement.log_position: one row, written with what was found in the log.
 *
 * So a slot that is further than it, made anew or moved by hand, is known by
 * that, also after a crash in between.
 */
#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/pg_lsn.h"

#include "store/direct.h"
#include "store/position.h"

typedef struct Row
{
	EntPosition position;
	ItemPointerData at;			/* invalid: there is none */
} Row;

static bool
take(void *arg, TupleTableSlot *slot)
{
	Row		   *row = arg;
	int64		read_to = ent_direct_int8(slot, ENT_LOG_POSITION_READ_TO);
	int64		horizon = ent_direct_int8(slot, ENT_LOG_POSITION_HORIZON);

	row->position.read_to = (XLogRecPtr) read_to;
	row->position.horizon = FullTransactionIdFromU64((uint64) horizon);
	row->at = slot->tts_tid;
	return false;
}

static Row
find(EntDirect *table)
{
	Row			row = {.position = {InvalidXLogRecPtr, InvalidFullTransactionId}};

	ItemPointerSetInvalid(&row.at);
	ent_direct_scan(table, take, &row);
	return row;
}

EntPosition
ent_position_read(void)
{
	EntDirect  *table = ent_direct_open(ENT_CATALOG_LOG_POSITION, ENT_CATALOGS,
										AccessShareLock, NULL);
	Row			row = find(table);

	ent_direct_close(table);
	return row.position;
}

void
ent_position_write(const EntPosition *position)
{
	EntDirect  *table = ent_direct_open(ENT_CATALOG_LOG_POSITION, ENT_CATALOGS,
										RowExclusiveLock, NULL);
	Row			row = find(table);
	Datum		values[] = {LSNGetDatum(position->read_to),
	UInt64GetDatum(U64FromFullTransactionId(position->horizon))};
	bool		nulls[] = {false, false};

	if (!ItemPointerIsValid(&row.at))
		ent_direct_insert(table, values, nulls);
	else if (ent_direct_update(table, &row.at, values, nulls) != ENT_DIRECT_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("somebody else has written how far the log was read")));
	ent_direct_close(table);
}
