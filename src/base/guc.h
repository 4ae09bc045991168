/*
 * base/guc.h
 *	  The settings, defined in one table in guc.c.
 *
 * Each variable ent_<name> is the setting entanglement.<name>.
 */
#ifndef ENT_BASE_GUC_H
#define ENT_BASE_GUC_H

extern int	ent_journal_limit;
extern char *ent_owner;			/* name of the local owner of new rows; empty:
								 * the node's default owner. USERSET */
extern bool ent_require_tls;	/* SIGHUP, on: neither dial nor serve without
								 * TLS or a Unix socket */
extern int	ent_max_peers;		/* POSTMASTER, 64: peers over all databases */
extern int	ent_ring_size;		/* POSTMASTER, kB, 4096: shared ring */
extern int	ent_policy_interval;	/* SIGHUP, ms, 10000: changes of rights are
									 * looked for at least this often */
extern int	ent_heartbeat;		/* SIGHUP, ms, 5000: an idle link says so this often */
extern int	ent_dead_after;		/* SIGHUP, ms, 20000: silence after which a link
								 * is given up */
extern int	ent_connect_timeout;	/* SIGHUP, ms, 10000 */
extern int	ent_reconnect_max;	/* SIGHUP, ms, 30000: cap of the back-off */
extern int	ent_max_batch;		/* SIGHUP, kB, 1024: bytes of a batch before a
								 * single larger row is sent alone */
extern int	ent_compression_level;	/* SIGHUP, 1: of zstd; 0: none */
extern int	ent_compression_window; /* SIGHUP, kB, 512: history of a link */
extern int	ent_fold_limit;		/* SIGHUP, 10000: changes folded per transaction */
extern int	ent_busy_rest;		/* SIGHUP, ms, 2000: longest rest between folds while
								 * processors are busy */
extern int	ent_fold_fallback;	/* SIGHUP, ms, 10000: the collector looks by
								 * itself this often */
extern int	ent_scan_chunk;		/* SIGHUP, 5000: objects queued at a time when a
								 * peer catches up */
extern int	ent_retry_parked;	/* SIGHUP, ms, 60000: parked objects are asked for
								 * again this often */
extern int	ent_log_interval;	/* SIGHUP, ms, 60000: between two lines of one
								 * kind that a peer causes */
extern int	ent_prune_interval; /* SIGHUP, ms, 30000: tombstones are collected
								 * this often */
extern int	ent_request_retention;	/* SIGHUP, s, 604800: undecided requests
									 * expire after that, decided ones are kept
									 * so long */
extern int	ent_max_owners;		/* SIGHUP, 10000: owners this database gets to
								 * know, its own included */

/* Defines them all; called from _PG_init, preloaded or not. */
extern void ent_guc_init(void);

#endif							/* ENT_BASE_GUC_H */
