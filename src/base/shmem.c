/*
 * base/shmem.c
 *	  Shared memory: its making, its tidying, and whom to wake.
 *
 * Floor 0; the slots themselves are in shmem_database.c and shmem_peer.c.
 * Everything is found by scanning short arrays under ent_shared->lock; nobody
 * keeps the lock across anything that may wait. No pid outlives its process:
 * what a process entered is given back when it exits.
 */
#include "postgres.h"

#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "base/cut.h"
#include "base/guc.h"
#include "base/place.h"
#include "base/ring.h"
#include "base/shmem_private.h"

EntShared  *ent_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* ---- setting up ---- */

static Size
shared_size(void)
{
	return add_size(offsetof(EntShared, peers),
					mul_size(sizeof(EntPeerSlot), ent_max_peers));
}

static void
request_shmem(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestAddinShmemSpace(ent_ring_shmem_size());
	RequestAddinShmemSpace(ent_cut_shmem_size());
	RequestAddinShmemSpace(ent_place_shmem_size());
	RequestNamedLWLockTranche(ENT_NAME, 3);
}

/* The postmaster asks before it begins to recover, after a crash of a process as well. */
static bool
has_crashed(void)
{
	bool		ok;
	ControlFileData *control = get_controlfile(DataDir, &ok);
	bool		crashed = !ok || control->state != DB_SHUTDOWNED;

	pfree(control);
	return crashed;
}

static void
init_shared(EntShared *shared)
{
	LWLockPadded *locks = GetNamedLWLockTranche(ENT_NAME);

	memset(shared, 0, shared_size());
	shared->lock = &locks[0].lock;
	shared->ring_lock = &locks[1].lock;
	shared->cut_lock = &locks[2].lock;
	shared->npeers = ent_max_peers;
	ConditionVariableInit(&shared->progress);
	shared->crashed = has_crashed();
	pg_atomic_init_u32(&shared->committing, 0);
	pg_atomic_init_u64(&shared->committed, 1);
	ent_shmem_init_databases(shared);
	ent_shmem_init_peers(shared);
}

static void
startup_shmem(void)
{
	bool		found;
	bool		part_found;
	void	   *part;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ent_shared = ShmemInitStruct(ENT_NAME, shared_size(), &found);
	if (!found)
		init_shared(ent_shared);
	part = ShmemInitStruct(ENT_NAME " ring", ent_ring_shmem_size(), &part_found);
	ent_ring_shmem_startup(part, part_found);
	part = ShmemInitStruct(ENT_NAME " cuts", ent_cut_shmem_size(), &part_found);
	ent_cut_shmem_startup(part, part_found);
	part = ShmemInitStruct(ENT_NAME " places", ent_place_shmem_size(), &part_found);
	ent_place_shmem_startup(part, part_found);
	LWLockRelease(AddinShmemInitLock);
}

void
ent_shmem_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

void
ent_shmem_require(const char *what)
{
	if (ent_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs the library \"%s\" to be preloaded",
						what, ENT_NAME),
				 errhint("Add \"%s\" to \"shared_preload_libraries\" and restart the server.",
						 ENT_NAME)));
}

void
ent_shmem_warn(void)
{
	if (ent_shared == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing is exchanged with peers until the library \"%s\" is preloaded",
						ENT_NAME),
				 errdetail("What you set is stored, what changes is captured; both will be used then."),
				 errhint("Add \"%s\" to \"shared_preload_libraries\" and restart the server.",
						 ENT_NAME)));
}

/* ---- leaving no trace of a process that exits ---- */

static void
release_all(int code, Datum arg)
{
	Latch	   *launcher = NULL;
	bool		had_links;

	if (ent_shared == NULL)
		return;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	if (ent_shared->launcher_pid == MyProcPid)
	{
		ent_shared->launcher_pid = 0;
		ent_shared->launcher_latch = NULL;
	}
	if (ent_shmem_release_database())
		launcher = ent_shared->launcher_latch;
	had_links = ent_shmem_release_peers();
	LWLockRelease(ent_shared->lock);

	ent_shmem_wake(launcher);
	if (had_links)
		ConditionVariableBroadcast(&ent_shared->progress);
}

void
ent_shmem_release_at_exit(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(release_all, (Datum) 0);
	registered = true;
}

/* ---- waking ---- */

void
ent_shmem_wake_senders(void)
{
	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (slot->database == MyDatabaseId)
			ent_shmem_wake(slot->sender.latch);
	}
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_objects_changed(void)
{
	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];
		uint64		none = 0;

		if (slot->database == MyDatabaseId &&
			slot->state != ENT_LINK_CONNECTED)
			(void) pg_atomic_compare_exchange_u64(&slot->stale_since, &none,
												  (uint64) GetCurrentTimestamp());
	}
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_routes_changed(void)
{
	EntDatabaseSlot *database;

	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	database = ent_shmem_find_database(MyDatabaseId);
	if (database != NULL)
	{
		pg_atomic_fetch_add_u64(&database->routes, 1);
		ent_shmem_wake(database->collector_latch);
	}
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (slot->database != MyDatabaseId)
			continue;
		ent_shmem_wake(slot->dialer.latch);
		ent_shmem_wake(slot->sender.latch);
		ent_shmem_wake(slot->receiver.latch);
	}
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_wake_collector(void)
{
	EntDatabaseSlot *database;

	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	database = ent_shmem_find_database(MyDatabaseId);
	if (database != NULL)
		ent_shmem_wake(database->collector_latch);
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_hurry(void)
{
	EntDatabaseSlot *database = ent_shmem_database(false);

	if (database != NULL)
		database->hurry = true;
}

void
ent_shmem_wake_launcher(void)
{
	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	ent_shmem_wake(ent_shared->launcher_latch);
	LWLockRelease(ent_shared->lock);
}

uint64
ent_shmem_fold_ticket(void)
{
	EntDatabaseSlot *database = ent_shmem_database(true);
	uint64		ticket;

	if (database == NULL)
		return 0;
	ticket = pg_atomic_add_fetch_u64(&database->fold_asked, 1);
	ent_shmem_wake_collector();
	return ticket;
}

void
ent_shmem_folded(EntDatabaseSlot *database, uint64 ticket)
{
	if (pg_atomic_read_u64(&database->fold_done) >= ticket)
		return;
	pg_atomic_write_u64(&database->fold_done, ticket);
	ConditionVariableBroadcast(&ent_shared->progress);
}

void
ent_shmem_heard(EntPeerSlot *slot, uint64 asked)
{
	if (pg_atomic_read_u64(&slot->heard) == asked)
		return;
	pg_write_barrier();			/* acked comes first */
	pg_atomic_write_u64(&slot->heard, asked);
	ConditionVariableBroadcast(&ent_shared->progress);
}

void
ent_shmem_acked(EntPeerSlot *slot, uint64 position)
{
	if (slot == NULL || pg_atomic_read_u64(&slot->acked) == position)
		return;
	pg_atomic_write_u64(&slot->acked, position);
	ConditionVariableBroadcast(&ent_shared->progress);
}
