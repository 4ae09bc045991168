/*
 * worker/launcher.c
 *	  Keeps one collector per database that has the extension, and keeps
 *	  workers out of a database while a statement needs it for itself.
 *
 * Place: worker. Which databases want a collector is in shared memory; how
 * often each was restarted is the launcher's own memory, lost with it. A
 * collector is the database's only one because it says so in its slot
 * (ent_shmem_collector_enter), not because the launcher counts.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ent.h"
#include "base/shmem.h"
#include "worker/launcher.h"

#define FIRST_RESTART_MS	1000	/* after a first crash */
#define RESTART_MS			5000	/* after a further one */
#define HEALTHY_MS			60000	/* after that long a crash is a first */
#define NO_SLOT_MS			1000	/* until the next attempt to register */
#define PATIENCE			10		/* so many attempts at a slot pass silently */
#define LAUNCHER_RESTART_S	5

/* A database the launcher knows; key is its oid. */
typedef struct Tended
{
	Oid			database;
	bool		present;		/* in pg_database, and may be connected to */
	bool		tried;			/* has had its first collector */
	BackgroundWorkerHandle *handle; /* of the last collector; NULL: none */
	int			failures;		/* crashes in a row */
	TimestampTz not_before;		/* of the next start */
	int			refusals;		/* for lack of worker slots, in a row */
	int			slotless;		/* attempts at a database slot, in a row */
} Tended;

static HTAB *tended = NULL;
static bool complained = false; /* of refusals, and they have not ended */

/* ---- looking ---- */

static Tended *
tend(Oid database)
{
	bool		found;
	Tended	   *t = hash_search(tended, &database, HASH_ENTER, &found);

	if (!found)
	{
		memset(t, 0, sizeof(*t));
		t->database = database;
	}
	return t;
}

/* Sees which databases there are. */
static void
scan_databases(void)
{
	HASH_SEQ_STATUS all;
	Tended	   *t;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	hash_seq_init(&all, tended);
	while ((t = hash_seq_search(&all)) != NULL)
		t->present = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn &&
			form->datconnlimit != DATCONNLIMIT_INVALID_DB)
			tend(form->oid)->present = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/* Has the last collector ended? Then sees whether it crashed. */
static void
reap(Tended *t, EntDatabaseSlot *slot, TimestampTz now)
{
	pid_t		pid;

	if (t->handle == NULL ||
		GetBackgroundWorkerPid(t->handle, &pid) != BGWH_STOPPED)
		return;
	pfree(t->handle);
	t->handle = NULL;
	t->not_before = 0;

	if (slot == NULL || slot->excused)
		t->failures = 0;
	else
	{
		if (TimestampDifferenceExceeds(slot->started, now, HEALTHY_MS))
			t->failures = 0;
		t->failures++;
		t->not_before = TimestampTzPlusMilliseconds(now,
													t->failures == 1 ?
													FIRST_RESTART_MS :
													RESTART_MS);
	}
}

/* ---- starting ---- */

static bool
register_collector(Tended *t)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, ENT_NAME,
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "ent_collector_main",
			sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, BGW_MAXLEN,
			 ENT_NAME " collector for database %u", t->database);
	strlcpy(worker.bgw_type, ENT_NAME " collector", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(t->database);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, &t->handle);
}

/*
 * No worker slot is free. That is worth a line when it lasts, one for all
 * databases: collectors that only look around soon make room.
 */
static void
refused(Tended *t)
{
	t->refusals++;
	if (t->refusals < 2 || complained)
		return;
	complained = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start an entanglement collector for database %u",
					t->database),
			 errdetail("All slots for background workers are in use; it will be tried again."),
			 errhint("Increase \"max_worker_processes\" and restart the server.")));
}

/* A database seen for the first time wants a collector to look into it. */
static EntDatabaseSlot *
try_first(Tended *t, EntDatabaseSlot *slot, TimestampTz now)
{
	if (slot == NULL)
		slot = ent_shmem_database_of(t->database, true,
									 ++t->slotless != PATIENCE);
	if (slot == NULL)
	{
		t->not_before = TimestampTzPlusMilliseconds(now, NO_SLOT_MS);
		return NULL;
	}
	t->tried = true;
	slot->wanted = true;
	return slot;
}

/*
 * Does what there is to do for one database; returns when there will be
 * more, or DT_NOEND when only a wake-up can tell.
 */
static TimestampTz
tend_database(Tended *t, TimestampTz now)
{
	EntDatabaseSlot *slot = ent_shmem_database_of(t->database, false, true);

	reap(t, slot, now);
	if (!t->present)
		return DT_NOEND;
	if (!t->tried && t->not_before <= now)
		slot = try_first(t, slot, now);
	if (!t->tried)
		return t->not_before;
	if (slot == NULL || !slot->wanted || slot->stopped > 0 ||
		slot->collector_pid != 0 || t->handle != NULL)
		return DT_NOEND;
	if (t->not_before > now)
		return t->not_before;

	slot->excused = false;
	slot->started = now;
	if (register_collector(t))
	{
		t->refusals = 0;
		return DT_NOEND;
	}
	t->handle = NULL;
	refused(t);
	t->not_before = TimestampTzPlusMilliseconds(now, NO_SLOT_MS);
	return t->not_before;
}

/* One round over all databases; when the next is due. */
static TimestampTz
tend_all(void)
{
	HASH_SEQ_STATUS all;
	Tended	   *t;
	TimestampTz next = DT_NOEND;
	TimestampTz now = GetCurrentTimestamp();
	bool		lacking = false;

	scan_databases();
	hash_seq_init(&all, tended);
	while ((t = hash_seq_search(&all)) != NULL)
	{
		TimestampTz due = tend_database(t, now);

		next = Min(next, due);
		if (t->present && t->refusals > 0)
			lacking = true;
		if (!t->present && t->handle == NULL)
			hash_search(tended, &t->database, HASH_REMOVE, NULL);
	}
	if (!lacking)
		complained = false;
	return next;
}

void
ent_launcher_main(Datum arg)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(Tended)};

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	ent_shmem_launcher_enter();
	/* handles, which must last, are allocated in the current context */
	MemoryContextSwitchTo(TopMemoryContext);
	tended = hash_create(ENT_NAME " databases", ENT_MAX_DATABASES, &ctl,
						 HASH_ELEM | HASH_BLOBS);

	for (;;)
	{
		TimestampTz next;
		long		timeout = -1;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		next = tend_all();
		MemoryContextSwitchTo(TopMemoryContext);
		if (next != DT_NOEND)
		{
			timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													  next);
			events |= WL_TIMEOUT;
		}
		(void) WaitLatch(MyLatch, events, timeout, PG_WAIT_EXTENSION);
	}
}

void
ent_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = LAUNCHER_RESTART_S;
	strlcpy(worker.bgw_library_name, ENT_NAME,
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "ent_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, ENT_NAME " launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, ENT_NAME " launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
