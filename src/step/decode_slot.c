/*
 * step/decode_slot.c
 *	  The slot, without what is read through it.
 *
 * One a database, by its oid: a copy of a database never takes the slot of the
 * original for its own.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/ent.h"
#include "step/decode.h"

char *
ent_decode_slot_name(void)
{
	return psprintf(ENT_NAME "_%u", MyDatabaseId);
}

/*
 * Servers from 15.19, 16.15, 17.11 and 18.6 on load as output plugins what this
 * setting names only; older ones have no such setting.
 */
static void
check_plugin_allowed(void)
{
	const char *setting = GetConfigOption("output_plugin_libraries", true, false);
	List	   *names;
	ListCell   *lc;

	if (setting == NULL)
		return;
	if (SplitDirectoriesString(pstrdup(setting), ',', &names))
		foreach(lc, names)
			if (strcmp(lfirst(lc), ENT_NAME) == 0 ||
				strcmp(lfirst(lc), "$libdir/" ENT_NAME) == 0)
				return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this server does not allow \"" ENT_NAME "\" as an output plugin"),
			 errdetail("output_plugin_libraries is \"%s\".", setting),
			 errhint("Set output_plugin_libraries = '%s%s" ENT_NAME "' in postgresql.conf and reload it, or use capture \"trigger\".",
					 setting, *setting ? ", " : "")));
}

void
ent_decode_check_server(void)
{
	if (wal_level < WAL_LEVEL_LOGICAL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("capture \"wal\" requires wal_level >= logical"),
				 errhint("Set wal_level = logical in postgresql.conf and restart the server, or use capture \"trigger\".")));
	if (max_replication_slots == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("capture \"wal\" requires max_replication_slots > 0"),
				 errhint("Set max_replication_slots in postgresql.conf and restart the server.")));
	check_plugin_allowed();
}

static XLogReaderRoutine routine = {
	.page_read = read_local_xlog_page,
	.segment_open = wal_segment_open,
	.segment_close = wal_segment_close
};

void
ent_decode_create_slot(void)
{
	LogicalDecodingContext *ctx;

	ent_decode_check_server();
	ent_compat_slot_create(ent_decode_slot_name());
	ctx = CreateInitDecodingContext(ENT_NAME, NIL, false, InvalidXLogRecPtr,
									&routine, NULL, NULL, NULL);
	DecodingContextFindStartpoint(ctx);
	FreeDecodingContext(ctx);
	ReplicationSlotPersist();
	ReplicationSlotRelease();
}

void
ent_decode_drop_slot(void)
{
	ent_decode_release();
	if (SearchNamedReplicationSlot(ent_decode_slot_name(), true) != NULL)
		ReplicationSlotDrop(ent_decode_slot_name(), true);
}

XLogRecPtr
ent_decode_slot_position(void)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(ent_decode_slot_name(), true);
	XLogRecPtr	result = InvalidXLogRecPtr;

	if (slot == NULL)
		return result;
	SpinLockAcquire(&slot->mutex);
	result = slot->data.confirmed_flush;
	SpinLockRelease(&slot->mutex);
	return result;
}
