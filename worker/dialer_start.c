/*
 * worker/dialer_start.c
 *	  Which peers lack a dialer, in the collector.
 *
 * Place: worker. The slot of a peer says whether its dialer lives; what was
 * registered and has not shown up there yet is remembered here, so that no
 * peer gets two.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/ent.h"
#include "base/report.h"
#include "base/shmem.h"
#include "store/peer.h"
#include "worker/dialer.h"
#include "worker/live.h"

#define SOON_MS		5000		/* a dialer that ended so soon waits ... */
#define DELAY_MS	1000		/* ... that long when it is started again */

/* A dialer that was registered; key is peer.no. */
typedef struct Started
{
	int32		peer;
	BackgroundWorkerHandle *handle;
	uint32		generation;		/* of the dialer's end before */
	TimestampTz at;
} Started;

static HTAB *started = NULL;

/* Is a registered dialer still on its way to its slot? */
static bool
is_coming(const Started *s, const EntPeerSlot *slot)
{
	pid_t		pid;

	return s->handle != NULL && s->generation == slot->dialer.generation &&
		GetBackgroundWorkerPid(s->handle, &pid) != BGWH_STOPPED;
}

static bool
start(Started *s, const EntPeer *peer, int delay)
{
	BackgroundWorker worker;
	EntDialerStart how = {.database = MyDatabaseId,.delay = delay};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		ok;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, ENT_NAME,
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "ent_dialer_main",
			sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, BGW_MAXLEN, ENT_NAME " dialer for peer %s",
			 peer->name);
	strlcpy(worker.bgw_type, ENT_NAME " dialer", BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(peer->no);
	memcpy(worker.bgw_extra, &how, sizeof(how));
	worker.bgw_notify_pid = MyProcPid;

	if (s->handle != NULL)
		pfree(s->handle);
	s->handle = NULL;
	ok = RegisterDynamicBackgroundWorker(&worker, &s->handle);
	MemoryContextSwitchTo(old);
	return ok;
}

static void
complain(EntPeerSlot *slot)
{
	ent_shmem_set_state(slot, ENT_LINK_DOWN, "53000",
						ent_report_text("could not start a background worker for this peer",
										"All slots for background workers are in use; it will be tried again.",
										"Increase max_worker_processes and restart the server."));
}

static void
start_missing(const EntPeer *peer, EntPeerSlot *slot)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		found;
	bool		soon;
	Started    *s = hash_search(started, &peer->no, HASH_ENTER, &found);

	if (!found)
	{
		s->handle = NULL;
		s->at = 0;
	}
	if (slot->dialer.pid != 0 || is_coming(s, slot))
		return;

	soon = !TimestampDifferenceExceeds(s->at, now, SOON_MS);
	/* it did not even come to dialing: wait for the next round */
	if (soon && s->handle != NULL && s->generation == slot->dialer.generation)
		return;
	s->generation = slot->dialer.generation;
	s->at = now;
	if (!start(s, peer, soon ? DELAY_MS : 0))
		complain(slot);
}

void
ent_dialer_start_missing(void)
{
	List	   *peers;
	ListCell   *lc;

	if (started == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(Started)};

		started = hash_create("entanglement dialers", 16, &ctl,
							  HASH_ELEM | HASH_BLOBS);
	}

	ent_live_begin();
	peers = ent_peer_all();
	ent_live_commit();
	foreach(lc, peers)
	{
		EntPeer    *peer = lfirst(lc);
		EntPeerSlot *slot = ent_shmem_peer(peer->no, true);

		if (slot == NULL)
			continue;
		if (peer->paused)
		{
			if (slot->sender.pid == 0 && slot->receiver.pid == 0)
				ent_shmem_set_state(slot, ENT_LINK_PAUSED, NULL, NULL);
		}
		else if (peer->conninfo != NULL)
			start_missing(peer, slot);
		else if (slot->state == ENT_LINK_IDLE ||
				 slot->state == ENT_LINK_PAUSED ||
				 slot->state == ENT_LINK_DOWN)
			ent_shmem_set_state(slot, ENT_LINK_WAITING, NULL, NULL);
	}
}
