/*
 * base/shmem.h
 *	  Shared memory: a slot per database, a slot per peer.
 *
 * Exists only when the library is preloaded. Slots hold what must be seen
 * across processes and may be lost in a crash: latches, states, counters.
 * One LWLock (ent_shared->lock) guards allocation and text; counters are
 * atomics. The ring is in base/ring.h.
 */
#ifndef ENT_BASE_SHMEM_H
#define ENT_BASE_SHMEM_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ent.h"

typedef enum EntLinkState
{
	ENT_LINK_IDLE = 0,			/* nobody has tried yet */
	ENT_LINK_WAITING,			/* the peer dials us; it has not */
	ENT_LINK_CONNECTING,
	ENT_LINK_CONNECTED,			/* hello exchanged on both directions */
	ENT_LINK_DOWN,				/* failed; will be retried */
	ENT_LINK_PAUSED,
	ENT_LINK_REFUSED,			/* needs an administrator (fingerprint, version,
								 * identity); still retried, slowly */
	ENT_LINK_STATES
} EntLinkState;

/* What one direction's process shows and is woken through. */
typedef struct EntEnd
{
	int			pid;			/* 0: none */
	Latch	   *latch;			/* of that process; may be stale, harmless */
	uint32		generation;		/* grows with every session that takes over; an
								 * older session finds it changed and ends */
	pg_atomic_uint64 idle_since;	/* TimestampTz; a backend's end: since when
									 * the peer has been expected to call, 0
									 * while a call runs */
} EntEnd;

/*
 * The log of changes has got rows in pages: of each so many pages (by number) it is
 * counted, so that who remembers what they hold looks into few of them again.
 */
#define ENT_LOG_MARKS	256

/* Something that the peer caused and that was logged. */
#define ENT_QUIET_KINDS 32

typedef struct EntQuiet
{
	uint32		kind;			/* hash */
	int64		more;			/* that were not logged since */
	TimestampTz at;				/* when it was; 0: entry is free */
} EntQuiet;

/* How far a peer is with a table that it is being sent as a whole. */
#define ENT_MAX_COPIES	16		/* of a peer; more are not shown */

typedef struct EntCopyProgress
{
	int32		rel;
	TimestampTz since;
	int64		done;			/* objects */
	int64		total;
} EntCopyProgress;

typedef struct EntPeerSlot
{
	Oid			database;		/* InvalidOid: slot is free */
	int32		peer;			/* entanglement.peer.no */
	EntLinkState state;
	TimestampTz since;			/* of that state */
	char		sqlstate[6];
	char		last_error[ENT_ERROR_LENGTH];	/* database encoding */
	EntEnd		dialer;			/* the worker, when we dial */
	EntEnd		sender;			/* process that sends to the peer */
	EntEnd		receiver;		/* process that receives from the peer */
	bool		alter;			/* dialer: read your peer row again */
	bool		nudge;			/* sender: ask the peer to call its other
								 * connection */
	bool		called;			/* sender: the peer asks so: send something at
								 * once, if only a heartbeat */

	pg_atomic_uint64 acked;		/* ring position up to which all is durable at
								 * the peer; 0 while not connected, or while it
								 * is sent a table anew */
	pg_atomic_uint64 asked;		/* drains that want to hear from the peer, and */
	pg_atomic_uint64 heard;		/* ... those that did, in an answer to what was
								 * sent later */
	pg_atomic_uint64 queued;	/* entries */
	pg_atomic_uint64 oldest;	/* TimestampTz of the oldest stale copy, 0 none */
	pg_atomic_uint64 stale_since;	/* TimestampTz of the first change since the
									 * link went down, until the peer has caught
									 * up; 0 none */
	pg_atomic_uint64 round_trip;	/* us, 0 unknown */
	pg_atomic_uint64 rate;		/* bytes/s */
	pg_atomic_uint64 bytes_sent;
	pg_atomic_uint64 bytes_received;
	pg_atomic_uint64 batches_sent;
	pg_atomic_uint64 batches_received;
	pg_atomic_uint64 objects_sent;
	pg_atomic_uint64 objects_received;
	pg_atomic_uint64 coalesced;
	EntQuiet	quiet[ENT_QUIET_KINDS];
	int			ncopies;
	EntCopyProgress copies[ENT_MAX_COPIES];
} EntPeerSlot;

typedef struct EntDatabaseSlot
{
	Oid			database;		/* InvalidOid: free */
	int			collector_pid;	/* 0: none */
	Latch	   *collector_latch;
	bool		wanted;			/* a collector should run; the launcher sees to
								 * that */
	uint32		asked;			/* grows with each CREATE EXTENSION */
	int			stopped;		/* statements (DROP DATABASE and the like) that
								 * keep workers away; not 0: do not start */
	bool		excused;		/* a statement stopped the collector: its end is
								 * no crash */
	TimestampTz started;		/* last start of the collector */
	pg_atomic_uint64 fold_asked;	/* tickets; see ent_shmem_fold_ticket */
	pg_atomic_uint64 fold_done;
	pg_atomic_uint64 folded;	/* changes folded */
	bool		refolded;		/* all was once that was there at the start */
	bool		hurry;			/* a request waits for a fold, perhaps */
	char		decode_sqlstate[6]; /* why the log is not read, database encoding */
	char		decode_error[ENT_ERROR_LENGTH]; /* empty: nothing is wrong */
	TimestampTz decode_failed;	/* first time in a row; 0: nothing is wrong */
	pg_atomic_uint32 marking;	/* transactions by which sessions come to know
								 * of objects of remote owners in a table */
	pg_atomic_uint32 log_marks[ENT_LOG_MARKS];	/* see ent_shmem_log_mark; goes on
												 * when the slot changes hands */
	pg_atomic_uint64 routes;	/* grows when a link comes or goes or a table or
								 * owner changes: look at your adverts again */
} EntDatabaseSlot;

typedef struct EntShared
{
	LWLock	   *lock;
	LWLock	   *ring_lock;
	LWLock	   *cut_lock;
	int			launcher_pid;
	Latch	   *launcher_latch;
	ConditionVariable progress; /* broadcast when fold_done, an acked or a
								 * heard has advanced */
	bool		crashed;		/* the server was not shut down before this start */
	pg_atomic_uint32 committing;	/* transactions that are to be seen before they
									 * are on disk; see base/durable.c */
	pg_atomic_uint64 committed; /* the end of the last of them in the log */
	EntDatabaseSlot databases[ENT_MAX_DATABASES];
	int			npeers;			/* ent_max_peers */
	EntPeerSlot peers[FLEXIBLE_ARRAY_MEMBER];
} EntShared;

extern EntShared *ent_shared;	/* NULL: not preloaded */

/* From _PG_init while shared_preload_libraries is processed. */
extern void ent_shmem_init(void);

/* The calling process is the launcher, until it exits. */
extern void ent_shmem_launcher_enter(void);

/*
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE with a hint about
 * shared_preload_libraries unless preloaded. what: who needs it, such as
 * "entanglement.drain()"; the message continues "... needs the library".
 */
extern void ent_shmem_require(const char *what);

/* A WARNING of the same kind, for what has its effect once preloaded. */
extern void ent_shmem_warn(void);

/*
 * This database's slot; created when missing and create is set. NULL when
 * not preloaded, not there, or (with a WARNING) the table is full.
 */
extern EntDatabaseSlot *ent_shmem_database(bool create);
/* That of any database, for the launcher; quiet leaves out the WARNING. */
extern EntDatabaseSlot *ent_shmem_database_of(Oid database, bool create,
											  bool quiet);
/* Frees a dropped database's slot and those of its peers. */
extern void ent_shmem_database_free(Oid database);

/*
 * Keeps workers from starting in a database until as many calls of admit have
 * been made. keep_out returns false when there is no slot, hence no worker.
 */
extern bool ent_shmem_keep_out(Oid database);
extern void ent_shmem_admit(Oid database);
/*
 * Pids of a database's collector and dialers, palloc'd; their number is
 * returned.
 */
extern int	ent_shmem_workers(Oid database, int **pids);

/*
 * A collector calls enter first thing, before it connects: from then on it is
 * the database's collector, seen by whoever must stop it, until it exits.
 * Returns NULL when it must exit instead: workers are to stay away (stopped),
 * another collector lives, or the slot has gone.
 */
extern EntDatabaseSlot *ent_shmem_collector_enter(Oid database);
/*
 * The collector has found no extension and is about to exit for good: frees
 * the database's slot and those of its peers. asked: slot->asked as read
 * before looking. Returns false when the extension was created meanwhile: look
 * again.
 */
extern bool ent_shmem_collector_leave(uint32 asked);

/* A peer's slot in this database, as above. */
extern EntPeerSlot *ent_shmem_peer(int32 peer, bool create);
/*
 * Frees it; waits for nobody: its ends' generations grow and their latches are
 * set, so that their processes end. Called at commit of drop_peer.
 */
extern void ent_shmem_peer_free(int32 peer);

/*
 * Ends the backends of this database's links whose peer has been silent for
 * that long on every connection it has; an idle backend cannot notice so by
 * itself. Returns the peer whose link was ended, 0 when there is none (more).
 */
extern int32 ent_shmem_end_silent(int64 ms);

/* Sets state, since (if changed) and, unless message is NULL, the error. */
extern void ent_shmem_set_state(EntPeerSlot *slot, EntLinkState state,
								const char *sqlstate, const char *message);
extern const char *ent_shmem_state_name(EntLinkState state);
/* Remembers an error without changing the state. */
extern void ent_shmem_set_error(EntPeerSlot *slot, const char *sqlstate,
								const char *message);

/*
 * The calling process takes over an end (as sender, receiver or dialer): its
 * pid and latch are written, generation grows, the old process's latch is set.
 * Returns the generation; ent_shmem_holds tells whether it is still ours (it
 * never was when the peer has just been dropped). What a process holds when
 * it exits, however it does, is given back by itself, and its link's state is
 * no longer connected. Raises FATAL for a dialer's end while the database's
 * workers are to stay away.
 */
extern uint32 ent_shmem_take(EntEnd *end);
static inline bool
ent_shmem_holds(const EntEnd *end, uint32 generation)
{
	return end->generation == generation;
}
/*
 * A backend holds the end, and its peer is expected to call (or is calling):
 * for ent_shmem_end_silent.
 */
extern void ent_shmem_expect_call(EntEnd *end, bool expected);
/* Gives it back when it is still ours. */
extern void ent_shmem_release(EntEnd *end, uint32 generation);

/* Wakes everybody who sends in this database (after ring events). */
extern void ent_shmem_wake_senders(void);
/* Objects have changed: copies at peers without a link are stale from now on. */
extern void ent_shmem_objects_changed(void);
/* ... and nudges receivers and senders: a table, owner, link changed. */
extern void ent_shmem_routes_changed(void);
extern void ent_shmem_wake_collector(void);
/* A request may wait for a fold: the collector does not rest for long. */
extern void ent_shmem_hurry(void);
extern void ent_shmem_wake_launcher(void);
/* This database wants a collector: tells the launcher so. */
extern void ent_shmem_want_collector(void);

/*
 * A row has been written into that page of the log of changes; before its
 * transaction commits. The counts, ENT_LOG_MARKS of them, that of page n at n %
 * ENT_LOG_MARKS: who has a snapshot that sees the row finds it counted. NULL: not
 * preloaded, or no slot.
 */
extern void ent_shmem_log_mark(uint32 page);
extern pg_atomic_uint32 *ent_shmem_log_marks(void);

/*
 * Takes a ticket: when fold_done reaches it, everything committed before the
 * call has been folded. Wakes the collector. 0 when not preloaded.
 */
extern uint64 ent_shmem_fold_ticket(void);
/* The collector has folded what the ticket asked for: tells drain. */
extern void ent_shmem_folded(EntDatabaseSlot *database, uint64 ticket);
/*
 * The collector cannot read the log, for that reason; message NULL: it can. Asked by
 * others: when did that begin (0: it can), into room for both texts.
 */
extern void ent_shmem_set_decode_error(EntDatabaseSlot *database,
									   const char *sqlstate, const char *message);
extern TimestampTz ent_shmem_decode_error(char *sqlstate, char *message);
/* All before that ring position is durable at the peer: tells drain. */
extern void ent_shmem_acked(EntPeerSlot *slot, uint64 position);
/* Sender: what it copies, n of them; those that there is no room for are left out. */
extern void ent_shmem_show_copies(EntPeerSlot *slot, const EntCopyProgress *copies,
								  int n);
/* Sender: what was asked when the batch was built has been answered. */
extern void ent_shmem_heard(EntPeerSlot *slot, uint64 asked);

#endif							/* ENT_BASE_SHMEM_H */
