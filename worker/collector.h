/*
 * worker/collector.h
 *	  One background worker per database: folds captured changes, starts
 *	  dialers, prunes tombstones.
 */
#ifndef ENT_WORKER_COLLECTOR_H
#define ENT_WORKER_COLLECTOR_H

#include "postgres.h"

/*
 * bgw main; arg: database oid. Ends with exit code 0 when the database has no
 * extension.
 */
extern PGDLLEXPORT void ent_collector_main(Datum arg);

#endif							/* ENT_WORKER_COLLECTOR_H */
