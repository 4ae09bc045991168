/*
 * base/shmem_peer.c
 *	  The slots of peers: a link's state, and who holds its ends.
 *
 * Floor 0; part of base/shmem.h. An end belongs to the session that took it
 * last; a generation that only ever grows tells an older session so, even
 * when the slot has become another peer's.
 */
#include "postgres.h"

#include <signal.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "base/shmem_private.h"

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

/* ---- slots ---- */

void
ent_shmem_show_copies(EntPeerSlot *slot, const EntCopyProgress *copies, int n)
{
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot->ncopies = Min(n, ENT_MAX_COPIES);
	if (slot->ncopies > 0)
		memcpy(slot->copies, copies, slot->ncopies * sizeof(EntCopyProgress));
	LWLockRelease(ent_shared->lock);
}

/* The counters of a peer's slot, to be treated all alike. */
static void
visit_counters(EntPeerSlot *slot,
			   void (*visit) (volatile pg_atomic_uint64 *counter, uint64 value))
{
	visit(&slot->acked, 0);
	visit(&slot->asked, 0);
	visit(&slot->heard, 0);
	visit(&slot->queued, 0);
	visit(&slot->oldest, 0);
	visit(&slot->stale_since, 0);
	visit(&slot->round_trip, 0);
	visit(&slot->rate, 0);
	visit(&slot->bytes_sent, 0);
	visit(&slot->bytes_received, 0);
	visit(&slot->batches_sent, 0);
	visit(&slot->batches_received, 0);
	visit(&slot->objects_sent, 0);
	visit(&slot->objects_received, 0);
	visit(&slot->coalesced, 0);
	visit(&slot->dialer.idle_since, 0);
	visit(&slot->sender.idle_since, 0);
	visit(&slot->receiver.idle_since, 0);
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

void
ent_shmem_init_peers(EntShared *shared)
{
	for (int i = 0; i < shared->npeers; i++)
		visit_counters(&shared->peers[i], init_counter);
}

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
		slot->ncopies = 0;
		slot->called = false;
		memset(slot->quiet, 0, sizeof(slot->quiet));
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
clear_end(EntEnd *end)
{
	end->pid = 0;
	end->latch = NULL;
}

static void
end_session(EntEnd *end)
{
	end->generation++;
	ent_shmem_wake(end->latch);
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
ent_shmem_free_peers(Oid database)
{
	for (int i = 0; i < ent_shared->npeers; i++)
		if (ent_shared->peers[i].database == database)
			free_peer(&ent_shared->peers[i]);
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

/* ---- state ---- */

static void
set_state_locked(EntPeerSlot *slot, EntLinkState state)
{
	if (slot->state != state)
		slot->since = GetCurrentTimestamp();
	slot->state = state;
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

/* ---- ends ---- */

static EntPeerSlot *
slot_of(const EntEnd *end)
{
	Size		offset = (const char *) end - (const char *) ent_shared->peers;

	return &ent_shared->peers[offset / sizeof(EntPeerSlot)];
}

/* Is it a dialer's, of a database that workers must stay away from? */
static bool
is_kept_out(const EntEnd *end)
{
	EntPeerSlot *slot = slot_of(end);
	EntDatabaseSlot *database;

	if (end != &slot->dialer)
		return false;
	database = ent_shmem_find_database(slot->database);
	return database != NULL && database->stopped > 0;
}

uint32
ent_shmem_take(EntEnd *end)
{
	Latch	   *former = NULL;
	uint32		generation;

	ent_shmem_release_at_exit();
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	if (is_kept_out(end))
	{
		LWLockRelease(ent_shared->lock);
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("entanglement's workers must stay away from this database"),
				 errdetail("A statement needs it for itself.")));
	}
	if (slot_of(end)->database == MyDatabaseId)
	{
		generation = ++end->generation;
		if (end->pid != MyProcPid)
			former = end->latch;
		end->pid = MyProcPid;
		end->latch = MyLatch;
		pg_atomic_write_u64(&end->idle_since, 0);
	}
	else
		generation = end->generation - 1;	/* the peer was dropped just now */
	LWLockRelease(ent_shared->lock);
	ent_shmem_wake(former);
	return generation;
}

void
ent_shmem_expect_call(EntEnd *end, bool expected)
{
	pg_atomic_write_u64(&end->idle_since,
						expected ? (uint64) GetCurrentTimestamp() : 0);
}

/* Has nothing to say against it that the link is dead. */
static bool
is_silent(EntEnd *end, TimestampTz now, int64 ms)
{
	uint64		since = pg_atomic_read_u64(&end->idle_since);

	return end->pid == 0 ||
		(since != 0 && now - (TimestampTz) since > ms * 1000);
}

/* A link that a dialer of ours holds sees to itself. */
static bool
is_silent_link(EntPeerSlot *slot, TimestampTz now, int64 ms)
{
	return slot->database == MyDatabaseId &&
		(slot->sender.pid != 0 || slot->receiver.pid != 0) &&
		(slot->dialer.pid == 0 || (slot->sender.pid != slot->dialer.pid &&
								   slot->receiver.pid != slot->dialer.pid)) &&
		is_silent(&slot->sender, now, ms) &&
		is_silent(&slot->receiver, now, ms);
}

int32
ent_shmem_end_silent(int64 ms)
{
	TimestampTz now = GetCurrentTimestamp();
	int32		peer = 0;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ent_shared->npeers && peer == 0; i++)
	{
		EntPeerSlot *slot = &ent_shared->peers[i];

		if (!is_silent_link(slot, now, ms))
			continue;
		peer = slot->peer;
		/* whoever exits takes its pid out of the slot, under this lock */
		if (slot->sender.pid != 0)
			kill(slot->sender.pid, SIGTERM);
		if (slot->receiver.pid != 0)
			kill(slot->receiver.pid, SIGTERM);
		/* once is enough */
		pg_atomic_write_u64(&slot->sender.idle_since, 0);
		pg_atomic_write_u64(&slot->receiver.idle_since, 0);
	}
	LWLockRelease(ent_shared->lock);
	return peer;
}

void
ent_shmem_release(EntEnd *end, uint32 generation)
{
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	if (end->generation == generation && end->pid == MyProcPid)
		clear_end(end);
	LWLockRelease(ent_shared->lock);
}

/*
 * Gives back what this process holds of a link; the link is down then.
 * Returns whether it held anything.
 */
static bool
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
	return ours;
}

bool
ent_shmem_release_peers(void)
{
	bool		had = false;

	for (int i = 0; i < ent_shared->npeers; i++)
		if (release_link(&ent_shared->peers[i]))
			had = true;
	return had;
}
