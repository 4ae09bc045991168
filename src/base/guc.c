/*
 * base/guc.c
 *	  The settings, one row each.
 *
 * Floor 0. Sizes of shared memory are fixed when the server starts; a session
 * that loads the library by itself has no shared memory and may not define
 * PGC_POSTMASTER settings, so there those two are plain ones without effect.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/ent.h"
#include "base/guc.h"

char	   *ent_owner;
bool		ent_require_tls;
int			ent_max_peers;
int			ent_ring_size;
int			ent_policy_interval;
int			ent_heartbeat;
int			ent_dead_after;
int			ent_connect_timeout;
int			ent_reconnect_max;
int			ent_max_batch;
int			ent_fold_limit;
int			ent_busy_rest;
int			ent_fold_fallback;
int			ent_scan_chunk;
int			ent_retry_parked;
int			ent_prune_interval;
int			ent_log_interval;
int			ent_request_retention;
int			ent_max_owners;
int			ent_journal_limit;
int			ent_compression_level;
int			ent_compression_window;

typedef struct NumberSetting
{
	const char *name;
	int		   *variable;
	int			boot,
				min,
				max;
	GucContext	context;
	int			unit;
	const char *what;
	const char *detail;
} NumberSetting;

static const NumberSetting numbers[] = {
	{ENT_NAME ".max_peers", &ent_max_peers, 64, 1, 10000,
		PGC_POSTMASTER, 0,
		"Sets the maximum number of peers, over all databases.",
	NULL},
	{ENT_NAME ".ring_size", &ent_ring_size, 4096, 256, 1024 * 1024,
		PGC_POSTMASTER, GUC_UNIT_KB,
		"Sets the size of the shared ring of recent changes.",
	"A link that falls further behind reads the object table instead."},
	{ENT_NAME ".heartbeat", &ent_heartbeat, 5000, 10, 3600 * 1000,
		PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how often an idle link says that it is alive.",
	NULL},
	{ENT_NAME ".policy_interval", &ent_policy_interval, 10000, 10,
		24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how often an idle link looks whether its peer's rights have changed.",
	"A link that has something to send looks each time."},
	{ENT_NAME ".dead_after", &ent_dead_after, 20000, 100, 24 * 3600 * 1000,
		PGC_SIGHUP, GUC_UNIT_MS,
		"Sets the silence after which a link is given up.",
	"Should be several times the peer's entanglement.heartbeat."},
	{ENT_NAME ".connect_timeout", &ent_connect_timeout, 10000, 100,
		3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how long connecting to a peer may take.",
	NULL},
	{ENT_NAME ".reconnect_max", &ent_reconnect_max, 30000, 10,
		24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets the longest pause between attempts to connect to a peer.",
	NULL},
	{ENT_NAME ".max_batch", &ent_max_batch, 1024, 4, 128 * 1024,
		PGC_SIGHUP, GUC_UNIT_KB,
		"Sets the size that a batch should not exceed.",
	"A larger row is sent alone in a batch of its own."},
	{ENT_NAME ".compression_level", &ent_compression_level, 1, 0, 19,
		PGC_SIGHUP, 0,
		"Sets how hard zstd tries to compress what is sent; 0 sends it as it is.",
	"It counts for links that are made from then on."},
	{ENT_NAME ".compression_window", &ent_compression_window, 512, 64, 2048,
		PGC_SIGHUP, GUC_UNIT_KB,
		"Sets how much of what a link has sent is context for what it sends next.",
	"Rounded down to a power of two. It counts for links that are made from then on."},
	{ENT_NAME ".fold_limit", &ent_fold_limit, 10000, 1, 10000000,
		PGC_SIGHUP, 0,
		"Sets how many captured changes are folded in one transaction.",
	NULL},
	{ENT_NAME ".busy_rest", &ent_busy_rest, 2000, 40, 60000,
		PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how long the collector may rest while the processors are busy.",
	"Otherwise it rests for 40 ms at most. The longer the more of them is left to writers; what peers are shown may be older by it."},
	{ENT_NAME ".fold_fallback", &ent_fold_fallback, 10000, 10,
		24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how often the collector looks for changes by itself.",
	"Ordinarily a committing transaction wakes it at once."},
	{ENT_NAME ".scan_chunk", &ent_scan_chunk, 5000, 1, 1000000,
		PGC_SIGHUP, 0,
		"Sets how many objects are queued at a time when a peer catches up.",
	NULL},
	{ENT_NAME ".retry_parked", &ent_retry_parked, 60000, 10,
		24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how often parked objects are asked for again.",
	NULL},
	{ENT_NAME ".prune_interval", &ent_prune_interval, 30000, 10,
		24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how often tombstones that every peer has heard of are removed.",
	NULL},
	{ENT_NAME ".log_interval", &ent_log_interval, 60000, 0,
		24 * 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how often the same kind of refusal to a peer is logged.",
	"Of a peer, kind and table; all are counted or listed in views."},
	{ENT_NAME ".request_retention", &ent_request_retention, 7 * 24 * 3600, 1,
		365 * 24 * 3600, PGC_SIGHUP, GUC_UNIT_S,
		"Sets when requests without an answer expire, and how long answered ones are kept.",
	NULL},
	{ENT_NAME ".max_owners", &ent_max_owners, 10000, 1, 1000000,
		PGC_SIGHUP, 0,
		"Sets how many owners a database gets to know.",
	"Those that peers offer beyond that are not taken."},
	{ENT_NAME ".journal_limit", &ent_journal_limit, 1024 * 1024, 64, INT_MAX,
		PGC_SIGHUP, GUC_UNIT_KB,
		"Sets how much of replaced states a database keeps for peers that have not received them.",
	"Of tables with every_state. Beyond that the oldest are given up, and only the newest state arrives."},
};

void
ent_guc_init(void)
{
	for (int i = 0; i < lengthof(numbers); i++)
	{
		const NumberSetting *n = &numbers[i];
		GucContext	context = n->context;

		if (context == PGC_POSTMASTER &&
			!process_shared_preload_libraries_in_progress)
			context = PGC_SIGHUP;
		DefineCustomIntVariable(n->name, n->what, n->detail, n->variable,
								n->boot, n->min, n->max, context, n->unit,
								NULL, NULL, NULL);
	}

	DefineCustomBoolVariable(ENT_NAME ".require_tls",
							 "Refuses links that use neither TLS nor a Unix socket.",
							 NULL, &ent_require_tls, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(ENT_NAME ".owner",
							   "Sets the local owner that new rows get.",
							   "If empty, new rows get the node's default owner.",
							   &ent_owner, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved(ENT_NAME);
}
