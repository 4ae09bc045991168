/*
 * entanglement.c
 *	  The library is loaded: settings, callbacks, and, when it is preloaded,
 *	  shared memory, the launcher and the utility hook.
 *
 * Above every floor: the only file that knows them all. Loaded later, into
 * one session, the library captures changes and answers what needs no worker.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/durable.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "guard/show.h"
#include "step/propose.h"
#include "store/foreignkey.h"
#include "store/hook.h"
#include "store/relinfo.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	ent_guc_init();
	ent_wake_init();
	ent_relinfo_init();
	ent_show_init();
	ent_foreignkey_init();
	ent_hook_init();
	ent_propose_init();

	if (!process_shared_preload_libraries_in_progress)
		return;
	ent_shmem_init();
	ent_durable_init();
	ent_launcher_install_hook();
	if (!IsBinaryUpgrade)
		ent_launcher_register();
}
