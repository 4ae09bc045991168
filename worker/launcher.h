/*
 * worker/launcher.h
 *	  One launcher per server keeps one collector per database that has the
 *	  extension; each collector keeps one dialer per peer with a conninfo.
 *
 * A database in which the extension was just created wakes the launcher
 * (base/wake.h). At start it tries each connectable database once: the
 * collector ends by itself where there is no extension.
 */
#ifndef ENT_WORKER_LAUNCHER_H
#define ENT_WORKER_LAUNCHER_H

#include "postgres.h"

/* Registers the launcher, from _PG_init when preloaded. */
extern void ent_launcher_register(void);
extern PGDLLEXPORT void ent_launcher_main(Datum arg);

/*
 * Utility hook (hook.c): before DROP DATABASE, ALTER DATABASE ... RENAME or
 * SET TABLESPACE, and CREATE DATABASE ... TEMPLATE the workers of that
 * database (collector, dialers) are stopped and waited for; when the
 * transaction has ended they may start again. Users who may not do it stop
 * nothing. After COMMIT PREPARED and DROP EXTENSION the collector is woken,
 * after CREATE and ALTER DATABASE the launcher.
 */
extern void ent_launcher_install_hook(void);

#endif							/* ENT_WORKER_LAUNCHER_H */
