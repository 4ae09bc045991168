/*
 * base/shmem.c
 *	  Shared memory: a slot per database, a slot per peer.
 *
 * Floor 0. Everything here is found by scanning short arrays under
 * ent_shared->lock; nobody keeps the lock across anything that may wait. No
 * pid outlives its process: what a process entered is given back when it exits.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "base/guc.h"
#include "base/ring.h"
#include "base/shmem.h"

EntShared  *ent_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static const char *const state_names[] = {
	[ENT_LINK_IDLE] = "idle",
	[ENT_LINK_WAITING] = "waiting",
	[ENT_LINK_CONNECTING] = "connecting",
	[ENT_LINK_CONNECTED] = "connected",
	[ENT_LINK_DOWN] = "down",
	[ENT_LINK_PAUSED] = "paused",
	[ENT_LINK_REFUSED] = "refused",
};

StaticAssertDecl(lengthof(state_names) == ENT_LINK_STATES,
				 "each link state has a name");

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
	RequestNamedLWLockTranche(ENT_NAME, 2);
}

/* The counters of a peer's slot, to be treated all alike. */
static void
visit_counters(EntPeerSlot *slot,
			   void (*visit) (volatile pg_atomic_uint64 *counter, uint64 value))
{
	visit(&slot->acked, 0);
	visit(&slot->queued, 0);
	visit(&slot->oldest, 0);
	visit(&slot->round_trip, 0);
	visit(&slot->rate, 0);
	visit(&slot->bytes_sent, 0);
	visit(&slot->bytes_received, 0);
	visit(&slot->batches_sent, 0);
	visit(&slot->batches_received, 0);
	visit(&slot->objects_sent, 0);
	visit(&slot->objects_received, 0);
	visit(&slot->coalesced, 0);
}

static void
init_counter(volatile pg_atomic_uint64 *counter, uint64 value)
{
	pg_atomic_init_u64(counter, value);
}

static void
write_counter(volatile pg_atomic_uint64 *counter, uint64 value)
{
	pg_atomic_write_u64(counter, value);
}

static void
init_shared(EntShared *shared)
{
	LWLockPadded *locks = GetNamedLWLockTranche(ENT_NAME);

	memset(shared, 0, shared_size());
	shared->lock = &locks[0].lock;
	shared->ring_lock = &locks[1].lock;
	shared->npeers = ent_max_peers;
	ConditionVariableInit(&shared->progress);
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
	{
		EntDatabaseSlot *slot = &shared->databases[i];

		pg_atomic_init_u64(&slot->fold_asked, 0);
		pg_atomic_init_u64(&slot->fold_done, 0);
		pg_atomic_init_u64(&slot->folded, 0);
		pg_atomic_init_u64(&slot->routes, 0);
	}
	for (int i = 0; i < shared->npeers; i++)
		visit_counters(&shared->peers[i], init_counter);
}

static void
startup_shmem(void)
{
	bool		found;
	bool		ring_found;
	void	   *ring;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ent_shared = ShmemInitStruct(ENT_NAME, shared_size(), &found);
	if (!found)
		init_shared(ent_shared);
	ring = ShmemInitStruct(ENT_NAME " ring", ent_ring_shmem_size(),
						   &ring_found);
	ent_ring_shmem_startup(ring, ring_found);
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

/* ---- leaving no trace of a process that exits ---- */

static void
clear_end(EntEnd *end)
{
	end->pid = 0;
	end->latch = NULL;
}

static void
wake(Latch *latch)
{
	if (latch != NULL)
		SetLatch(latch);
}

static void
set_state_locked(EntPeerSlot *slot, EntLinkState state)
{
	if (slot->state != state)
		slot->since = GetCurrentTimestamp();
	slot->state = state;
}

/* Gives back what this process holds of a link; the link is down then. */
static void
release_link(EntPeerSlot *slot)
{
	bool		dialed = slot->dialer.pid != 0;
	bool		ours = false;

	if (slot->sender.pid == MyProcPid)
	{
		clear_end(&slot->sender);
		pg_atomic_write_u64(&slot->acked, 0);
		ours = true;
	}
	if (slot->receiver.pid == MyProcPid)
	{
		clear_end(&slot->receiver);
		ours = true;
	}
	if (slot->dialer.pid == MyProcPid)
	{
		clear_end(&slot->dialer);
		ours = true;
	}
	if (ours && slot->sender.pid == 0 && slot->receiver.pid == 0 &&
		(slot->state == ENT_LINK_CONNECTED ||
		 slot->state == ENT_LINK_CONNECTING))
		set_state_locked(slot, dialed ? ENT_LINK_DOWN : ENT_LINK_WAITING);
}

static void
release_at_exit(int code, Datum arg)
{
	Latch	   *launcher = NULL;

	if (ent_shared == NULL)
		return;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
	{
		EntDatabaseSlot *slot = &ent_shared->databases[i];

		if (slot->collector_pid == MyProcPid)
		{
			slot->collector_pid = 0;
			slot->collector_latch = NULL;
			launcher = ent_shared->launcher_latch;
		}
	}
	for (int i = 0; i < ent_shared->npeers; i++)
		release_link(&ent_shared->peers[i]);
	if (ent_shared->launcher_pid == MyProcPid)
	{
		ent_shared->launcher_pid = 0;
		ent_shared->launcher_latch = NULL;
		launcher = NULL;
	}
	LWLockRelease(ent_shared->lock);
	wake(launcher);
}

static void
release_at_exit_once(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(release_at_exit, (Datum) 0);
	registered = true;
}

/* ---- databases ---- */

static EntDatabaseSlot *
find_database(Oid database)
{
	if (!OidIsValid(database))
		return NULL;
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
		if (ent_shared->databases[i].database == database)
			return &ent_shared->databases[i];
	return NULL;
}

/* Takes a free slot; NULL when there is none. Lock held exclusively. */
static EntDatabaseSlot *
create_database(Oid database)
{
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
	{
		EntDatabaseSlot *slot = &ent_shared->databases[i];

		if (OidIsValid(slot->database))
			continue;
		slot->collector_pid = 0;
		slot->collector_latch = NULL;
		slot->wanted = false;
		slot->asked = 0;
		slot->stopped = 0;
		slot->excused = false;
		slot->started = 0;
		pg_atomic_write_u64(&slot->fold_asked, 0);
		pg_atomic_write_u64(&slot->fold_done, 0);
		pg_atomic_write_u64(&slot->folded, 0);
		pg_atomic_write_u64(&slot->routes, 0);
		slot->database = database;
		return slot;
	}
	return NULL;
}

EntDatabaseSlot *
ent_shmem_database_of(Oid database, bool create, bool quiet)
{
	EntDatabaseSlot *slot;

	if (ent_shared == NULL)
		return NULL;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	slot = find_database(database);
	LWLockRelease(ent_shared->lock);
	if (slot != NULL || !create)
		return slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot == NULL)
		slot = create_database(database);
	LWLockRelease(ent_shared->lock);
	if (slot == NULL && !quiet)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases use entanglement"),
				 errdetail("No more than %d databases of a server can.",
						   ENT_MAX_DATABASES)));
	return slot;
}

EntDatabaseSlot *
ent_shmem_database(bool create)
{
	return ent_shmem_database_of(MyDatabaseId, create, false);
}

static void free_peer(EntPeerSlot *slot);

static void
free_database(Oid database)
{
	EntDatabaseSlot *slot = find_database(database);

	if (slot != NULL)
	{
		slot->database = InvalidOid;
		slot->collector_pid = 0;
		slot->collector_latch = NULL;
		slot->wanted = false;
	}
	for (int i = 0; i < ent_shared->npeers; i++)
		if (ent_shared->peers[i].database == database)
			free_peer(&ent_shared->peers[i]);
}

void
ent_shmem_database_free(Oid database)
{
	if (ent_shared == NULL || !OidIsValid(database))
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	free_database(database);
	LWLockRelease(ent_shared->lock);
}

/* ---- keeping workers out ---- */

bool
ent_shmem_keep_out(Oid database)
{
	EntDatabaseSlot *slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL)
	{
		slot->stopped++;
		slot->excused = true;
	}
	LWLockRelease(ent_shared->lock);
	return slot != NULL;
}

void
ent_shmem_admit(Oid database)
{
	EntDatabaseSlot *slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL && slot->stopped > 0)
	{
		slot->stopped--;
		if (slot->stopped == 0 && !slot->wanted && slot->collector_pid == 0)
			free_database(database);
	}
	LWLockRelease(ent_shared->lock);
}

int
ent_shmem_workers(Oid database, int **pids)
{
	EntDatabaseSlot *slot;
	int			n = 0;

	*pids = palloc((1 + ent_shared->npeers) * sizeof(int));
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	slot = find_database(database);
	if (slot != NULL && slot->collector_pid != 0)
		(*pids)[n++] = slot->collector_pid;
	for (int i = 0; i < ent_shared->npeers; i++)
		if (ent_shared->peers[i].database == database &&
			ent_shared->peers[i].dialer.pid != 0)
			(*pids)[n++] = ent_shared->peers[i].dialer.pid;
	LWLockRelease(ent_shared->lock);
	return n;
}

/* ---- launcher and collectors ---- */

void
ent_shmem_launcher_enter(void)
{
	release_at_exit_once();
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	ent_shared->launcher_pid = MyProcPid;
	ent_shared->launcher_latch = MyLatch;
	LWLockRelease(ent_shared->lock);
}

EntDatabaseSlot *
ent_shmem_collector_enter(Oid database)
{
	EntDatabaseSlot *slot;

	if (ent_shared == NULL)
		return NULL;
	release_at_exit_once();
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL && (slot->stopped > 0 || slot->collector_pid != 0))
		slot = NULL;
	if (slot != NULL)
	{
		slot->collector_pid = MyProcPid;
		slot->collector_latch = MyLatch;
	}
	LWLockRelease(ent_shared->lock);
	return slot;
}

bool
ent_shmem_collector_leave(uint32 asked)
{
	EntDatabaseSlot *slot;
	bool		done = true;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_database(MyDatabaseId);
	if (slot != NULL && slot->collector_pid == MyProcPid)
	{
		done = slot->asked == asked;
		if (done && slot->stopped > 0)
			slot->wanted = false;	/* the last to admit frees it */
		else if (done)
			free_database(MyDatabaseId);
	}
	LWLockRelease(ent_shared->lock);
	return done;
}

/* ---- peers ---- */

static EntPeerSlot *
find_peer(Oid database, int32 peer)
{
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (slot->database == database && slot->peer == peer)
			return slot;
	}
	return NULL;
}

/*
 * Takes a free slot; NULL when there is none. Lock held exclusively. The
 * ends' generations go on growing, so that no process of the slot's former
 * peer takes it for its own.
 */
static EntPeerSlot *
create_peer(Oid database, int32 peer)
{
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (OidIsValid(slot->database))
			continue;
		slot->peer = peer;
		slot->state = ENT_LINK_IDLE;
		slot->since = GetCurrentTimestamp();
		slot->sqlstate[0] = '\0';
		slot->last_error[0] = '\0';
		slot->alter = false;
		slot->nudge = false;
		visit_counters(slot, write_counter);
		slot->database = database;
		return slot;
	}
	return NULL;
}

EntPeerSlot *
ent_shmem_peer(int32 peer, bool create)
{
	EntPeerSlot *slot;

	if (ent_shared == NULL)
		return NULL;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	slot = find_peer(MyDatabaseId, peer);
	LWLockRelease(ent_shared->lock);
	if (slot != NULL || !create)
		return slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_peer(MyDatabaseId, peer);
	if (slot == NULL)
		slot = create_peer(MyDatabaseId, peer);
	LWLockRelease(ent_shared->lock);
	if (slot == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many peers"),
				 errdetail("All %d slots for peers are in use.",
						   ent_shared->npeers),
				 errhint("Increase \"%s.max_peers\" and restart the server.",
						 ENT_NAME)));
	return slot;
}

static void
end_session(EntEnd *end)
{
	end->generation++;
	wake(end->latch);
	clear_end(end);
}

/* Lock held exclusively. */
static void
free_peer(EntPeerSlot *slot)
{
	slot->database = InvalidOid;
	slot->peer = 0;
	end_session(&slot->dialer);
	end_session(&slot->sender);
	end_session(&slot->receiver);
}

void
ent_shmem_peer_free(int32 peer)
{
	EntPeerSlot *slot;

	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = find_peer(MyDatabaseId, peer);
	if (slot != NULL)
		free_peer(slot);
	LWLockRelease(ent_shared->lock);
}

/* Lock held exclusively. Cuts the message where a character ends. */
static void
set_error_locked(EntPeerSlot *slot, const char *sqlstate, const char *message)
{
	int			len = strlen(message);

	if (len >= ENT_ERROR_LENGTH)
		len = pg_mbcliplen(message, len, ENT_ERROR_LENGTH - 1);
	memcpy(slot->last_error, message, len);
	slot->last_error[len] = '\0';
	strlcpy(slot->sqlstate, sqlstate ? sqlstate : "", sizeof(slot->sqlstate));
}

void
ent_shmem_set_state(EntPeerSlot *slot, EntLinkState state,
					const char *sqlstate, const char *message)
{
	if (slot == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	set_state_locked(slot, state);
	if (message != NULL)
		set_error_locked(slot, sqlstate, message);
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_set_error(EntPeerSlot *slot, const char *sqlstate,
					const char *message)
{
	if (slot == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	set_error_locked(slot, sqlstate, message);
	LWLockRelease(ent_shared->lock);
}

const char *
ent_shmem_state_name(EntLinkState state)
{
	return state >= 0 && state < ENT_LINK_STATES ? state_names[state] : "?";
}

/* Must workers stay away from the database whose dialer has this end? */
static bool
is_dialer_of_stopped(const EntEnd *end)
{
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (end == &slot->dialer)
		{
			EntDatabaseSlot *database = find_database(slot->database);

			return database != NULL && database->stopped > 0;
		}
	}
	return false;
}

uint32
ent_shmem_take(EntEnd *end)
{
	Latch	   *former = NULL;
	uint32		generation;

	release_at_exit_once();
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	if (is_dialer_of_stopped(end))
	{
		LWLockRelease(ent_shared->lock);
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("entanglement's workers must stay away from this database for now")));
	}
	if (end->pid != MyProcPid)
		former = end->latch;
	end->pid = MyProcPid;
	end->latch = MyLatch;
	generation = ++end->generation;
	LWLockRelease(ent_shared->lock);
	wake(former);
	return generation;
}

void
ent_shmem_release(EntEnd *end, uint32 generation)
{
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	if (end->generation == generation && end->pid == MyProcPid)
		clear_end(end);
	LWLockRelease(ent_shared->lock);
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
			wake(slot->sender.latch);
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
	database = find_database(MyDatabaseId);
	if (database != NULL)
	{
		pg_atomic_fetch_add_u64(&database->routes, 1);
		wake(database->collector_latch);
	}
	for (int i = 0; i < ent_shared->npeers; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (slot->database != MyDatabaseId)
			continue;
		wake(slot->dialer.latch);
		wake(slot->sender.latch);
		wake(slot->receiver.latch);
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
	database = find_database(MyDatabaseId);
	if (database != NULL)
		wake(database->collector_latch);
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_wake_launcher(void)
{
	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	wake(ent_shared->launcher_latch);
	LWLockRelease(ent_shared->lock);
}

void
ent_shmem_want_collector(void)
{
	EntDatabaseSlot *database;

	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	database = find_database(MyDatabaseId);
	if (database == NULL)
		database = create_database(MyDatabaseId);
	if (database != NULL)
	{
		database->wanted = true;
		database->asked++;
		wake(database->collector_latch);
	}
	wake(ent_shared->launcher_latch);
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
ent_shmem_acked(EntPeerSlot *slot, uint64 position)
{
	if (slot == NULL || pg_atomic_read_u64(&slot->acked) == position)
		return;
	pg_atomic_write_u64(&slot->acked, position);
	ConditionVariableBroadcast(&ent_shared->progress);
}
