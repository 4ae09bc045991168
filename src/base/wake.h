/*
 * base/wake.h
 *	  What happens when this transaction commits: post events, wake workers.
 *
 * Callbacks registered with the transaction machinery; everything is
 * forgotten at abort. A subtransaction's abort forgets its events and freed
 * peers, but may leave a wake-up behind, which is harmless. All happens after
 * the commit's invalidations have been sent and its locks released. PREPARE
 * TRANSACTION is refused (ERRCODE_FEATURE_NOT_SUPPORTED) when there is
 * something to do, except to wake the collector, which COMMIT PREPARED does.
 */
#ifndef ENT_BASE_WAKE_H
#define ENT_BASE_WAKE_H

#include "postgres.h"

#include "base/ring.h"

/* Wake this database's collector at commit (cheap; call per row). */
extern void ent_wake_collector_at_commit(void);
/* Wake the launcher at commit: this database wants a collector. */
extern void ent_wake_launcher_at_commit(void);
/* ent_shmem_routes_changed() at commit. */
extern void ent_wake_routes_at_commit(void);
/*
 * Requests were made, have arrived or were answered: wakes senders and whoever
 * waits for an answer. Cheap; call per row.
 */
extern void ent_wake_requests_at_commit(void);
/* Posts the event (key copied) to the ring at commit, then wakes senders. */
extern void ent_wake_post_at_commit(const EntEvent *event);
/*
 * From now until this transaction has ended, and sent its invalidations,
 * ent_wake_is_marking is true in all sessions of this database.
 */
extern void ent_wake_marking(void);
/* To be asked before AcceptInvalidationMessages: false, and these tell all there is. */
extern bool ent_wake_is_marking(void);
/* Frees a peer's slot at commit. */
extern void ent_wake_free_peer_at_commit(int32 peer);

/* Registers the callbacks, from _PG_init. */
extern void ent_wake_init(void);

#endif							/* ENT_BASE_WAKE_H */
