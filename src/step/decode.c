/*
 * step/decode.c
 *	  Changes that the log tells of become rows of the change log.
 *
 * The decoding context lives from round to round: a new one would read the log
 * from the slot's restart point again. What the output plugin is called with is
 * rolled back by the reorder buffer, and sees catalogs as they were; so changes
 * are gathered in memory there, and written when the round's log is read.
 * A change that is told twice, or of too many columns, costs bytes only.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/message.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "replication/slot.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/durable.h"
#include "base/ent.h"
#include "rule/coalesce.h"
#include "step/decode.h"
#include "step/decode_row.h"
#include "store/changelog.h"
#include "store/position.h"
#include "store/query.h"
#include "store/relinfo.h"

/* What a round finds. */
typedef struct Found
{
	int32		rel;
	char		op;
	bytea	   *key;
	bytea	   *columns;
	bytea	   *digests;
	XLogRecPtr	place;
} Found;

static LogicalDecodingContext *decoding = NULL;
static MemoryContext round_context = NULL;	/* reset by each round */
static List *tables = NIL;		/* of EntRelation * */
static List *leaving = NIL;		/* their triggers capture again; of int32 */
static List *found = NIL;		/* of Found * */
static List *doubtful = NIL;	/* tables to be compared; of int32 */
static List *xids = NIL;		/* committed, of TransactionId */
static EntPosition position;	/* what this round has read */
static XLogRecPtr kept = InvalidXLogRecPtr; /* what the slot has been told */

/* Rounds that find nothing in so many bytes leave nothing to be kept. */
#define KEEP_AFTER	(1024 * 1024)

static EntQuery tables_query = {
	"SELECT no, capture OPERATOR(pg_catalog.=) 'trigger' FROM entanglement.relation WHERE wal",
	0, {0}, NULL
};

static EntQuery leave_query = {
	"UPDATE entanglement.relation SET wal = false "
	"WHERE no OPERATOR(pg_catalog.=) $1 AND capture OPERATOR(pg_catalog.=) 'trigger'",
	1, {INT4OID}, NULL
};

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *cb);

/* ---- what the log tells ---- */

static void
note(EntRelation *root, ReorderBufferChange *change, char op, bytea *key)
{
	Found	   *f = palloc0(sizeof(Found));

	f->rel = root->no;
	f->op = op;
	f->key = key;
	f->place = change->lsn;
	found = lappend(found, f);
}

static void
note_row(EntRelation *root, Relation rel, ReorderBufferChange *change, char op,
		 bytea *key)
{
	HeapTuple	old = op == ENT_CHANGE_UPDATE ? ent_compat_old_tuple(change) : NULL;
	bytea	   *columns;
	bytea	   *digests = ent_decode_digests(root, rel, old,
											 ent_compat_new_tuple(change), &columns);
	Found	   *f;

	if (columns != NULL && VARSIZE(columns) == VARHDRSZ)
		return;					/* written as it was */
	note(root, change, op, key);
	f = llast(found);
	f->columns = columns;
	f->digests = digests;
}

static EntRelation *
table_of(Oid relid)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		EntRelation *root = lfirst(lc);

		if (root->relid == relid)
			return root;
	}
	return NULL;
}

/* The table of ours that it is, or was a partition of. */
static EntRelation *
root_of(Relation rel)
{
	EntRelation *root = table_of(RelationGetRelid(rel));
	ListCell   *lc;

	if (root != NULL || !rel->rd_rel->relispartition)
		return root;
	foreach(lc, get_partition_ancestors(RelationGetRelid(rel)))
		if (root == NULL)
			root = table_of(lfirst_oid(lc));
	return root;
}

/* What the log does not tell, a comparison does. */
static void
doubt(EntRelation *root)
{
	doubtful = list_append_unique_int(doubtful, root->no);
}

static void
take_update(EntRelation *root, Relation rel, ReorderBufferChange *change)
{
	HeapTuple	old = ent_compat_old_tuple(change);
	bytea	   *key = ent_decode_key(root, rel, ent_compat_new_tuple(change), old);
	bytea	   *before = old ? ent_decode_key(root, rel, old, NULL) : key;

	if (key == NULL || before == NULL ||
		(old == NULL && !ent_decode_tells_key(root, rel)))
		doubt(root);
	else if (VARSIZE(key) != VARSIZE(before) ||
			 memcmp(key, before, VARSIZE(key)) != 0)
	{
		note(root, change, ENT_CHANGE_DELETE, before);
		note_row(root, rel, change, ENT_CHANGE_INSERT, key);
	}
	else
		note_row(root, rel, change, ENT_CHANGE_UPDATE, key);
}

static void
take_row(EntRelation *root, Relation rel, ReorderBufferChange *change)
{
	HeapTuple	old = ent_compat_old_tuple(change);
	bytea	   *key;

	switch (change->action)
	{
		case REORDER_BUFFER_CHANGE_INSERT:
			key = ent_decode_key(root, rel, ent_compat_new_tuple(change), NULL);
			if (key == NULL)
				doubt(root);
			else
				note_row(root, rel, change, ENT_CHANGE_INSERT, key);
			break;
		case REORDER_BUFFER_CHANGE_UPDATE:
			take_update(root, rel, change);
			break;
		case REORDER_BUFFER_CHANGE_DELETE:
			key = old ? ent_decode_key(root, rel, old, NULL) : NULL;
			if (key == NULL)
				doubt(root);
			else
				note(root, change, ENT_CHANGE_DELETE, key);
			break;
		default:
			break;
	}
}

/* Rows that came from peers carry the origin that step/apply gives them. */
static void
on_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation rel,
		  ReorderBufferChange *change)
{
	EntRelation *root;
	MemoryContext old;

	if (change->origin_id == DoNotReplicateId)
		return;
	old = MemoryContextSwitchTo(round_context);
	root = root_of(rel);
	if (root != NULL)
		take_row(root, rel, change);
	MemoryContextSwitchTo(old);
}

static void
on_commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr lsn)
{
	MemoryContext old = MemoryContextSwitchTo(round_context);

	xids = lappend_int(xids, (int) txn->xid);
	MemoryContextSwitchTo(old);
}

static void
on_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
}

static void
on_startup(LogicalDecodingContext *ctx, OutputPluginOptions *options,
		   bool is_init)
{
	options->output_type = OUTPUT_PLUGIN_BINARY_OUTPUT;
	/* only we know what to do with what we tell */
	if (!is_init && round_context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("replication slots of entanglement are read by its collector only")));
}

void
_PG_output_plugin_init(OutputPluginCallbacks *cb)
{
	cb->startup_cb = on_startup;
	cb->begin_cb = on_begin;
	cb->change_cb = on_change;
	cb->commit_cb = on_commit;
}

/* ---- the slot ---- */

static XLogReaderRoutine routine = {
	.page_read = read_local_xlog_page,
	.segment_open = wal_segment_open,
	.segment_close = wal_segment_close
};

static void
open_slot(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (round_context == NULL)
		round_context = AllocSetContextCreate(TopMemoryContext,
											  "entanglement decoding",
											  ALLOCSET_DEFAULT_SIZES);
	ent_compat_slot_acquire(ent_decode_slot_name());
	decoding = CreateDecodingContext(InvalidXLogRecPtr, NIL, false, &routine,
									 NULL, NULL, NULL);
	MemoryContextSwitchTo(old);
	XLogBeginRead(decoding->reader, MyReplicationSlot->data.restart_lsn);
	kept = MyReplicationSlot->data.confirmed_flush;
	InvalidateSystemCaches();
}

/* An error leaves it to memory: what the context holds may be half done. */
void
ent_decode_release(void)
{
	if (decoding != NULL && decoding->reader->seg.ws_file >= 0)
		wal_segment_close(decoding->reader);
	if (decoding != NULL)
		MemoryContextDelete(decoding->context);
	decoding = NULL;
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

/* ---- a round ---- */

static void
read_tables(void)
{
	MemoryContext old = MemoryContextSwitchTo(round_context);

	MemoryContextReset(round_context);
	tables = leaving = found = doubtful = xids = NIL;
	ent_query_run(&tables_query, NULL, NULL, SPI_OK_SELECT, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		EntRelation *root = ent_relinfo_read(ent_query_int4(i, 1, NULL));

		if (root != NULL)
			tables = lappend(tables, root);
		if (ent_query_bool(i, 2))
			leaving = lappend_int(leaving, ent_query_int4(i, 1, NULL));
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(old);
}

/* The end of what is committed, asynchronously too, which can be read only then. */
static XLogRecPtr
end_of_log(void)
{
	XLogRecPtr	end = ent_durable_end();

	XLogFlush(end);
	return end;
}

/* What was read must be there for whoever reads rows from now on. */
static void
wait_until_visible(void)
{
	ListCell   *lc;

	foreach(lc, xids)
	{
		TransactionId xid = (TransactionId) lfirst_int(lc);

		if (TransactionIdIsInProgress(xid))
			XactLockTableWait(xid, NULL, NULL, XLTW_None);
	}
}

static void
read_log(XLogRecPtr end, int limit)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	while (decoding->reader->EndRecPtr < end && list_length(found) < limit)
	{
		char	   *error = NULL;
		XLogRecord *record;

		/* the reader keeps what it allocates, and replay leaves its own behind */
		MemoryContextSwitchTo(decoding->context);
		CurrentResourceOwner = owner;
		record = XLogReadRecord(decoding->reader, &error);
		if (error)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read the write-ahead log for capture: %s", error)));
		if (record != NULL)
			LogicalDecodingProcessRecord(decoding, decoding->reader);
		CHECK_FOR_INTERRUPTS();
	}
	position.read_to = decoding->reader->EndRecPtr;
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
}

/* What their triggers did not capture has been read. */
static void
let_go(void)
{
	ListCell   *lc;

	foreach(lc, leaving)
	{
		Datum		args[1] = {Int32GetDatum(lfirst_int(lc))};

		ent_query_run(&leave_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
	ent_relinfo_invalidate();
}

/* All older transactions have ended, and the log to be read tells of them. */
static FullTransactionId
horizon(void)
{
	FullTransactionId next = ReadNextFullTransactionId();
	TransactionId oldest = GetActiveSnapshot()->xmin;

	return FullTransactionIdFromU64(U64FromFullTransactionId(next) -
									(uint32) (XidFromFullTransactionId(next) - oldest));
}

uint64
ent_decode(int limit, bool *more, bool *left)
{
	FullTransactionId before = horizon();
	XLogRecPtr	end;
	ListCell   *lc;

	if (decoding == NULL)
		open_slot();
	read_tables();
	position = ent_position_read();
	end = end_of_log();
	read_log(end, limit);
	*more = position.read_to < end;
	if (!*more)
		position.horizon = before;
	wait_until_visible();
	foreach(lc, found)
	{
		Found	   *f = lfirst(lc);

		ent_changelog_write_told(f->rel, f->op, f->key, f->columns, f->place,
								 f->digests);
	}
	*left = !*more && leaving != NIL;
	if (*left)
		let_go();
	return list_length(found);
}

List *
ent_decode_doubtful(void)
{
	return doubtful;
}

bool
ent_decode_keep(void)
{
	if (found == NIL && doubtful == NIL &&
		position.read_to < kept + KEEP_AFTER)
		return false;
	ent_position_write(&position);
	return true;
}

void
ent_decode_confirm(void)
{
	LogicalConfirmReceivedLocation(position.read_to);
	kept = position.read_to;
}
