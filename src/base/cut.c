/*
 * base/cut.c
 *	  The state of the database as of a fold, for those who send it.
 *
 * A fold is one REPEATABLE READ transaction: it reads under snapshot F and
 * commits as transaction x. The cut is F with x taken as committed, and every
 * transaction from F's xmax to x as running. That is a state of the database:
 * fold consumes what F shows and nothing of what came after.
 *
 * The cut's subtransactions are not listed. It is marked as overflowed, so
 * PostgreSQL looks for the parent of each that is in doubt in pg_subtrans,
 * which goes back as far as the oldest snapshot of the server.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/cut.h"

#define GAP_XIDS		1024	/* that may begin between snapshot and commit */
#define POSTING_WAIT_US 100000	/* for events of what a fold has seen */
#define POSTING_LOOK_US 50

/* A process that commits what it has events of. */
typedef struct Posting
{
	pg_atomic_uint64 turn;		/* odd: between commit and posting */
	Oid			database;
	TransactionId xid;
} Posting;

/* The latest cut of a database. */
typedef struct Cut
{
	pg_atomic_uint64 asked;		/* ticket of the newest one asked for */
	uint64		ticket;			/* of the fold that it is of; 0: none */
	Oid			database;
	TransactionId xmin;			/* Invalid: that fold has no cut */
	TransactionId xmax;
	int			nxids;
} Cut;

typedef struct Shared
{
	int			nprocs;
	int			max_xids;
	Cut			cuts[ENT_MAX_DATABASES];
	Posting		postings[FLEXIBLE_ARRAY_MEMBER];
	/* then max_xids of each cut */
} Shared;

struct EntCutDraft
{
	TransactionId xmin;
	TransactionId xmax;
	int			nxids;
	TransactionId xids[FLEXIBLE_ARRAY_MEMBER];
};

static Shared *shared = NULL;

/* ---- shared memory ---- */

static Size
postings_end(void)
{
	return MAXALIGN(add_size(offsetof(Shared, postings),
							 mul_size(sizeof(Posting), MaxBackends)));
}

static int
max_xids(void)
{
	return MaxBackends + max_prepared_xacts + GAP_XIDS;
}

Size
ent_cut_shmem_size(void)
{
	return add_size(postings_end(),
					mul_size(mul_size(sizeof(TransactionId), max_xids()),
							 ENT_MAX_DATABASES));
}

void
ent_cut_shmem_startup(void *memory, bool found)
{
	shared = memory;
	if (found)
		return;
	memset(shared, 0, ent_cut_shmem_size());
	shared->nprocs = MaxBackends;
	shared->max_xids = max_xids();
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
		pg_atomic_init_u64(&shared->cuts[i].asked, 0);
	for (int i = 0; i < shared->nprocs; i++)
		pg_atomic_init_u64(&shared->postings[i].turn, 0);
}

static Cut *
cut_of(EntDatabaseSlot *db)
{
	return &shared->cuts[db - ent_shared->databases];
}

static TransactionId *
xids_of(Cut *cut)
{
	TransactionId *all = (TransactionId *) ((char *) shared + postings_end());

	return all + (cut - shared->cuts) * shared->max_xids;
}

void
ent_cut_forget(EntDatabaseSlot *db)
{
	Cut		   *cut = cut_of(db);

	LWLockAcquire(ent_shared->cut_lock, LW_EXCLUSIVE);
	pg_atomic_write_u64(&cut->asked, 0);
	cut->ticket = 0;
	cut->database = InvalidOid;
	LWLockRelease(ent_shared->cut_lock);
}

/* ---- posting ---- */

static Posting *
my_posting(void)
{
	int			i = ent_compat_proc_number();

	return shared == NULL || i < 0 || i >= shared->nprocs ? NULL :
		&shared->postings[i];
}

void
ent_cut_posting_begins(void)
{
	Posting    *p = my_posting();

	if (p == NULL || (pg_atomic_read_u64(&p->turn) & 1) != 0)
		return;
	p->database = MyDatabaseId;
	p->xid = GetTopTransactionIdIfAny();
	pg_atomic_fetch_add_u64(&p->turn, 1);	/* a full barrier */
}

void
ent_cut_posting_ends(void)
{
	Posting    *p = my_posting();

	if (p != NULL && (pg_atomic_read_u64(&p->turn) & 1) != 0)
		pg_atomic_fetch_add_u64(&p->turn, 1);
}

/*
 * Whatever the snapshot shows and has events is in the ring afterwards. Whoever
 * committed before the snapshot was taken has said so before; false when it
 * takes too long.
 */
static bool
wait_for_postings(Snapshot snapshot)
{
	int			budget = POSTING_WAIT_US / POSTING_LOOK_US;

	for (int i = 0; i < shared->nprocs; i++)
	{
		Posting    *p = &shared->postings[i];
		uint64		turn = pg_atomic_read_u64(&p->turn);
		TransactionId xid;

		if ((turn & 1) == 0)
			continue;
		pg_read_barrier();
		xid = p->xid;
		if (p->database != MyDatabaseId || !TransactionIdIsValid(xid) ||
			TransactionIdIsCurrentTransactionId(xid) ||
			XidInMVCCSnapshot(xid, snapshot))
			continue;
		while (pg_atomic_read_u64(&p->turn) == turn)
		{
			if (budget-- <= 0)
				return false;
			pg_usleep(POSTING_LOOK_US);
		}
	}
	return true;
}

/* ---- the collector ---- */

bool
ent_cut_wanted(EntDatabaseSlot *db)
{
	Cut		   *cut = shared ? cut_of(db) : NULL;

	return cut != NULL && (pg_atomic_read_u64(&cut->asked) > cut->ticket ||
						   cut->database != MyDatabaseId);
}

EntCutDraft *
ent_cut_draft(MemoryContext context)
{
	Snapshot	f = GetActiveSnapshot();
	TransactionId own = GetTopTransactionIdIfAny();
	TransactionId *children;
	EntCutDraft *d;

	if (f->takenDuringRecovery || xactGetCommittedChildren(&children) > 0 ||
		f->xcnt > (uint32) shared->max_xids - GAP_XIDS || !wait_for_postings(f))
		return NULL;
	d = MemoryContextAlloc(context, offsetof(EntCutDraft, xids) +
						   shared->max_xids * sizeof(TransactionId));
	d->xmin = f->xmin;
	d->xmax = f->xmax;
	d->nxids = f->xcnt;
	if (f->xcnt > 0)
		memcpy(d->xids, f->xip, f->xcnt * sizeof(TransactionId));
	if (!TransactionIdIsValid(own))
		return d;
	/* what began since, but for ourselves, has not ended as far as F knows */
	for (TransactionId x = f->xmax; TransactionIdPrecedes(x, own);)
	{
		if (d->nxids == shared->max_xids)
			return NULL;
		d->xids[d->nxids++] = x;
		TransactionIdAdvance(x);
	}
	d->xmax = own;
	TransactionIdAdvance(d->xmax);
	return d;
}

void
ent_cut_publish(EntDatabaseSlot *db, const EntCutDraft *draft, uint64 ticket)
{
	Cut		   *cut = cut_of(db);

	LWLockAcquire(ent_shared->cut_lock, LW_EXCLUSIVE);
	cut->ticket = ticket;
	cut->database = MyDatabaseId;
	cut->xmin = draft ? draft->xmin : InvalidTransactionId;
	if (draft)
	{
		cut->xmax = draft->xmax;
		cut->nxids = draft->nxids;
		memcpy(xids_of(cut), draft->xids, draft->nxids * sizeof(TransactionId));
	}
	LWLockRelease(ent_shared->cut_lock);
}

/* ---- a link ---- */

uint64
ent_cut_ask(void)
{
	EntDatabaseSlot *db = ent_shmem_database(false);
	Cut		   *cut;
	uint64		ticket,
				asked;

	if (db == NULL || shared == NULL)
		return 0;
	cut = cut_of(db);
	ticket = pg_atomic_add_fetch_u64(&db->fold_asked, 1);
	asked = pg_atomic_read_u64(&cut->asked);
	while (asked < ticket &&
		   !pg_atomic_compare_exchange_u64(&cut->asked, &asked, ticket))
		;
	ent_shmem_wake_collector();
	return ticket;
}

/* A copy, registered; NULL: it is of an earlier fold, or there is none. */
static Snapshot
copy_cut(Cut *cut, uint64 ticket)
{
	SnapshotData s;
	Snapshot	own = GetActiveSnapshot();
	TransactionId *xids = palloc(shared->max_xids * sizeof(TransactionId));
	bool		good;

	memset(&s, 0, sizeof(s));
	LWLockAcquire(ent_shared->cut_lock, LW_SHARED);
	good = cut->database == MyDatabaseId && cut->ticket >= ticket &&
		TransactionIdIsValid(cut->xmin) &&
		TransactionIdFollowsOrEquals(cut->xmin, own->xmin);
	if (good)
	{
		s.xmin = cut->xmin;
		s.xmax = cut->xmax;
		s.xcnt = cut->nxids;
		memcpy(xids, xids_of(cut), cut->nxids * sizeof(TransactionId));
	}
	LWLockRelease(ent_shared->cut_lock);
	if (!good)
		return NULL;
	s.snapshot_type = SNAPSHOT_MVCC;
	s.xip = xids;
	s.suboverflowed = true;
	s.curcid = own->curcid;
	ent_compat_snapshot_age(&s, own);
	/* it is static as far as it knows, so a copy is made and registered */
	return RegisterSnapshot(&s);
}

Snapshot
ent_cut_take(uint64 ticket, long ms)
{
	EntDatabaseSlot *db = ent_shmem_database(false);
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	if (ticket == 0 || db == NULL)
		return NULL;
	ConditionVariablePrepareToSleep(&ent_shared->progress);
	while (pg_atomic_read_u64(&db->fold_done) < ticket)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (left <= 0 ||
			ConditionVariableTimedSleep(&ent_shared->progress, left,
										PG_WAIT_EXTENSION))
			break;
	}
	ConditionVariableCancelSleep();
	SetLatch(MyLatch);			/* it may have been set for other reasons */
	pg_read_barrier();
	return copy_cut(cut_of(db), ticket);
}
