/*
 * base/wake.c
 *	  What happens when this transaction commits: post events, wake workers.
 *
 * Floor 0. Notes are kept in the top transaction's memory and acted upon in
 * the resource owner's last release phase rather than in the commit callback:
 * only there have the commit's invalidations been sent, so that whoever is
 * woken sees the catalogs as they are now, and its locks been released.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/cut.h"
#include "base/ent.h"
#include "base/shmem.h"
#include "base/wake.h"

/* What to do; a set of these. */
#define WAKE_COLLECTOR	0x01
#define WAKE_LAUNCHER	0x02
#define WAKE_ROUTES		0x04
#define WAKE_REQUESTS	0x08

typedef struct Posting
{
	EntEvent	event;
	int			level;			/* transaction nest level */
} Posting;

typedef struct Freeing
{
	int32		peer;
	int			level;
} Freeing;

/* Rows with rising nest level, in TopTransactionContext. */
typedef struct Notes
{
	int			wakes;
	Posting    *postings;
	int			npostings,
				maxpostings;
	Freeing    *freeings;
	int			nfreeings,
				maxfreeings;
	EntDatabaseSlot *marking;	/* counts us; NULL: it does not */
	bool		committed;		/* act upon them now */
} Notes;

static Notes notes;

/* Makes room for one row more in an array of notes. */
static void *
grow(void *rows, int n, int *max, Size size)
{
	if (n < *max)
		return rows;
	if (rows == NULL)
	{
		*max = 16;
		return MemoryContextAlloc(TopTransactionContext, *max * size);
	}
	*max *= 2;
	return repalloc_huge(rows, *max * size);
}

void
ent_wake_collector_at_commit(void)
{
	notes.wakes |= WAKE_COLLECTOR;
}

void
ent_wake_launcher_at_commit(void)
{
	/* a full table is better complained about before the commit */
	(void) ent_shmem_database(true);
	notes.wakes |= WAKE_LAUNCHER;
}

void
ent_wake_routes_at_commit(void)
{
	notes.wakes |= WAKE_ROUTES;
}

void
ent_wake_requests_at_commit(void)
{
	notes.wakes |= WAKE_REQUESTS;
}

void
ent_wake_marking(void)
{
	if (notes.marking != NULL || ent_shared == NULL)
		return;
	notes.marking = ent_shmem_database(true);
	if (notes.marking != NULL)
		pg_atomic_fetch_add_u32(&notes.marking->marking, 1);
}

bool
ent_wake_is_marking(void)
{
	EntDatabaseSlot *slot = ent_shmem_database(false);
	bool		marking = slot == NULL || pg_atomic_read_u32(&slot->marking) > 0;

	pg_read_barrier();
	return marking;
}

void
ent_wake_post_at_commit(const EntEvent *event)
{
	Posting    *posting;

	if (ent_shared == NULL)
		return;
	notes.postings = grow(notes.postings, notes.npostings,
						  &notes.maxpostings, sizeof(Posting));
	posting = &notes.postings[notes.npostings];
	posting->event = *event;
	if (event->kind == ENT_EVENT_OBJECT && event->keylen > 0)
	{
		uint8	   *key = MemoryContextAlloc(TopTransactionContext,
											 event->keylen);

		memcpy(key, event->key, event->keylen);
		posting->event.key = key;
	}
	posting->level = GetCurrentTransactionNestLevel();
	notes.npostings++;
}

void
ent_wake_free_peer_at_commit(int32 peer)
{
	if (ent_shared == NULL)
		return;
	notes.freeings = grow(notes.freeings, notes.nfreeings,
						  &notes.maxfreeings, sizeof(Freeing));
	notes.freeings[notes.nfreeings].peer = peer;
	notes.freeings[notes.nfreeings].level = GetCurrentTransactionNestLevel();
	notes.nfreeings++;
}

/* Posts in pieces, since the ring takes plain events. */
static void
post_all(void)
{
	EntEvent	events[64];
	int			n = 0;

	for (int i = 0; i < notes.npostings; i++)
	{
		events[n++] = notes.postings[i].event;
		if (n == lengthof(events) || i == notes.npostings - 1)
		{
			ent_ring_post(events, n);
			n = 0;
		}
	}
}

static void
act(void)
{
	/* wanted first: the collector's slot may be what the others look for */
	if (notes.wakes & WAKE_LAUNCHER)
		ent_shmem_want_collector();
	for (int i = 0; i < notes.nfreeings; i++)
		ent_shmem_peer_free(notes.freeings[i].peer);
	if (notes.npostings > 0)
	{
		post_all();
		ent_cut_posting_ends();
		ent_shmem_objects_changed();
		ent_shmem_wake_senders();
	}
	if (notes.wakes & WAKE_REQUESTS)
	{
		EntEvent	event = {.kind = ENT_EVENT_REQUEST};

		ent_ring_post(&event, 1);
		ent_shmem_hurry();
		ent_shmem_wake_senders();
		ConditionVariableBroadcast(&ent_shared->progress);
	}
	if (notes.wakes & WAKE_ROUTES)
		ent_shmem_routes_changed();
	if (notes.wakes & WAKE_COLLECTOR)
		ent_shmem_wake_collector();
}

static void
forget(void)
{
	if (notes.marking != NULL)
		pg_atomic_fetch_sub_u32(&notes.marking->marking, 1);
	memset(&notes, 0, sizeof(notes));
}

static void
at_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (notes.npostings > 0)
				ent_cut_posting_begins();
			break;
		case XACT_EVENT_COMMIT:
			notes.committed = true;
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (ent_shared != NULL &&
				((notes.wakes & ~WAKE_COLLECTOR) != 0 ||
				 notes.npostings > 0 || notes.nfreeings > 0))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 (notes.wakes & WAKE_REQUESTS) ?
						 errmsg("cannot PREPARE a transaction that has made requests of remote owners") :
						 errmsg("cannot PREPARE a transaction that has changed the configuration of entanglement")));
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			ent_cut_posting_ends();
			forget();
			break;
		default:
			break;
	}
}

/* Rows of an aborted subtransaction go, those of a released one move up. */
static void
at_subtransaction(SubXactEvent event, SubTransactionId mySubid,
				  SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (notes.npostings > 0 &&
			   notes.postings[notes.npostings - 1].level >= level)
			notes.npostings--;
		while (notes.nfreeings > 0 &&
			   notes.freeings[notes.nfreeings - 1].level >= level)
			notes.nfreeings--;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = notes.npostings - 1;
			 i >= 0 && notes.postings[i].level >= level; i--)
			notes.postings[i].level = level - 1;
		for (int i = notes.nfreeings - 1;
			 i >= 0 && notes.freeings[i].level >= level; i--)
			notes.freeings[i].level = level - 1;
	}
}

static void
at_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
		   void *arg)
{
	if (!notes.committed || phase != RESOURCE_RELEASE_AFTER_LOCKS ||
		!isTopLevel)
		return;
	if (ent_shared != NULL)
		act();
	forget();
}

void
ent_wake_init(void)
{
	RegisterXactCallback(at_transaction, NULL);
	RegisterSubXactCallback(at_subtransaction, NULL);
	RegisterResourceReleaseCallback(at_release, NULL);
}
