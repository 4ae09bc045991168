/*
 * worker/dialer.h
 *	  One background worker per peer that we dial: two connections, push and
 *	  pull, and the life of the link.
 */
#ifndef ENT_WORKER_DIALER_H
#define ENT_WORKER_DIALER_H

#include "postgres.h"

/* What starts a dialer: bgw_extra. */
typedef struct EntDialerStart
{
	Oid			database;
	int			delay;			/* ms before dialing */
} EntDialerStart;

/* bgw main; arg: peer.no; an EntDialerStart in bgw_extra. */
extern PGDLLEXPORT void ent_dialer_main(Datum arg);

/*
 * Starts a dialer for each peer with a conninfo that has none and is not
 * paused. Called by the collector at start and whenever routes changed,
 * outside a transaction. A failure to register is remembered in the peer's slot (SQLSTATE 53000,
 * hint max_worker_processes).
 */
extern void ent_dialer_start_missing(void);

#endif							/* ENT_WORKER_DIALER_H */
