/*
 * worker/dialer.c
 *	  One background worker per peer that we dial: the life of its link.
 *
 * Place: worker. A link rests, dials, greets, is live, fails, and rests again
 * for a while. One wait with everything in it: the latch, both sockets, the
 * next thing due. Whatever fails is the link's failure, shown in the peer's
 * slot; the worker itself ends only when its peer is none to dial any more.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/cert.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/report.h"
#include "base/reuse.h"
#include "guard/role.h"
#include "link/greet.h"
#include "link/hello.h"
#include "rule/backoff.h"
#include "store/identity.h"
#include "store/query.h"
#include "worker/dialer.h"
#include "worker/live.h"

#define HEALTHY_US	5000000		/* a link that lived so long failed anew */
#define OTHERS_US	1000000		/* look again whether others hold the link */

/* How far a connection has come. */
typedef enum Stage
{
	STAGE_DIALING = 0,
	STAGE_GREETING,
	STAGE_OPENING,
	STAGE_READY,
} Stage;

typedef struct Side
{
	const char *direction;		/* as hello calls it */
	Stage		stage;
	EntConnection connection;
	uint32		events;			/* what the last wait reported */
} Side;

typedef enum Phase
{
	PHASE_RESTING = 0,			/* until resume_at */
	PHASE_DIALING,				/* until both sides are ready, or deadline */
	PHASE_LIVE,
} Phase;

typedef struct Dialer
{
	int32		no;				/* peer.no */
	EntPeer    *peer;
	MemoryContext peer_context; /* holds peer */
	MemoryContext attempt;		/* reset for each attempt to dial */
	MemoryContext tick;			/* reset in each round */
	EntPeerSlot *slot;
	uint32		generation;		/* of its dialer's end */
	uint64		routes;			/* counter at the last look at the peer */
	Phase		phase;
	int64		resume_at;		/* us */
	int64		deadline;		/* us */
	bytea	   *hello;
	Side		sides[2];
	EntLive		live;
	WaitEventSet *set;			/* while live: kept from wait to wait */
	int			positions[2];	/* of the sides in set */
	EntBackoff	backoff;
	char		logged[ENT_ERROR_LENGTH];	/* failure last written to the log */
} Dialer;

/* ---- the peer ---- */

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Would a link made for one peer be wrong for the other? */
static bool
needs_redial(const EntPeer *was, const EntPeer *is)
{
	return !same_text(was->conninfo, is->conninfo) ||
		was->role != is->role ||
		(was->has_node && !is->has_node) ||
		(was->has_node && memcmp(&was->node, &is->node, UUID_LEN) != 0) ||
		(was->fingerprint != NULL &&
		 !same_text(was->fingerprint, is->fingerprint));
}

static EntPeer *
copy_peer(Dialer *d, const EntPeer *p)
{
	MemoryContext old = MemoryContextSwitchTo(d->peer_context);
	EntPeer    *copy;

	MemoryContextReset(d->peer_context);
	copy = palloc(sizeof(EntPeer));
	*copy = *p;
	copy->name = pstrdup(p->name);
	copy->conninfo = p->conninfo ? pstrdup(p->conninfo) : NULL;
	copy->fingerprint = p->fingerprint ? pstrdup(p->fingerprint) : NULL;
	MemoryContextSwitchTo(old);
	return copy;
}

static void
hang_up(Dialer *d)
{
	if (d->set != NULL)
		FreeWaitEventSet(d->set);
	d->set = NULL;
	ent_live_end(&d->live);
	for (int i = 0; i < lengthof(d->sides); i++)
	{
		ent_connection_close(&d->sides[i].connection);
		d->sides[i].stage = STAGE_DIALING;
		d->sides[i].events = 0;
	}
	MemoryContextReset(d->attempt);
	d->hello = NULL;
}

/*
 * Where both nodes dial each other, the other's dialing may have made the
 * link; then there is nothing to do here.
 */
static bool
others_hold_link(const Dialer *d)
{
	return (d->slot->sender.pid != 0 && d->slot->sender.pid != MyProcPid) ||
		(d->slot->receiver.pid != 0 && d->slot->receiver.pid != MyProcPid);
}

/* The peer is none to dial any more. */
pg_noreturn static void
retire(Dialer *d, const EntPeer *peer)
{
	hang_up(d);
	if (peer != NULL && !others_hold_link(d))
		ent_shmem_set_state(d->slot, peer->paused ? ENT_LINK_PAUSED :
							ENT_LINK_WAITING, NULL, NULL);
	proc_exit(0);
}

static uint64
current_routes(void)
{
	EntDatabaseSlot *database = ent_shmem_database(false);

	return database ? pg_atomic_read_u64(&database->routes) : 0;
}

/* Looks at the peer's row again if anything was configured meanwhile. */
static void
look_at_peer(Dialer *d)
{
	uint64		routes = current_routes();
	EntPeer    *peer;

	if (d->peer != NULL && routes == d->routes && !d->slot->alter)
		return;
	d->slot->alter = false;
	ent_live_begin();
	peer = ent_query_installed() ? ent_peer_get(d->no) : NULL;
	ent_live_commit();
	d->routes = routes;
	if (peer == NULL || peer->paused || peer->conninfo == NULL)
		retire(d, peer);

	if (d->peer != NULL)
	{
		if (needs_redial(d->peer, peer))
		{
			hang_up(d);
			ent_backoff_reset(&d->backoff);
			d->phase = PHASE_RESTING;
			d->resume_at = 0;
		}
		if (d->peer->bandwidth != peer->bandwidth)
			ent_live_set_bandwidth(&d->live, peer->bandwidth);
	}
	d->peer = copy_peer(d, peer);
}

/* ---- resting ---- */

static void
start_dialing(Dialer *d)
{
	MemoryContext old = MemoryContextSwitchTo(d->attempt);
	EntConninfo *conninfo;

	/* after a failure the link stays down until it is up */
	if (d->backoff.failures == 0)
		ent_shmem_set_state(d->slot, ENT_LINK_CONNECTING, NULL, NULL);
	ent_cert_forget_verdict();
	ent_live_begin();
	conninfo = ent_conninfo_prepare(d->peer->conninfo,
									ent_identity_get()->name);
	d->hello = ent_hello_build();
	ent_live_commit();
	MemoryContextSwitchTo(old);

	d->phase = PHASE_DIALING;
	d->deadline = ent_connection_clock() + (int64) ent_connect_timeout * 1000;
	for (int i = 0; i < lengthof(d->sides); i++)
		ent_connection_dial(&d->sides[i].connection, conninfo);
}

static void
rest(Dialer *d)
{
	int64		now = ent_connection_clock();

	if (now < d->resume_at)
		return;
	if (others_hold_link(d))
		d->resume_at = now + OTHERS_US;
	else
		start_dialing(d);
}

/* ---- dialing ---- */

static void
greet(Dialer *d, Side *side)
{
	size_t		len;
	const char *answer = ent_connection_answer(&side->connection, &len);
	char		fingerprint[ENT_FINGERPRINT_LENGTH + 1];
	EntWireHello hello;
	EntPeer    *peer;

	ent_hello_read(answer, len, &hello);
	ent_connection_fingerprint(&side->connection, fingerprint);
	ent_live_begin();
	peer = ent_peer_get(d->no); /* the other side may just have bound it */
	if (peer != NULL)
	{
		ent_greet_check(peer, &hello, fingerprint);
		if (side == &d->sides[0])
			ent_role_log_excess(peer->role, peer->name);	/* once */
	}
	ent_live_commit();
}

/* The connection has become idle: what comes next. */
static void
next_stage(Dialer *d, Side *side)
{
	switch (side->stage)
	{
		case STAGE_DIALING:
			ent_connection_hello(&side->connection, side->direction, d->hello);
			side->stage = STAGE_GREETING;
			break;
		case STAGE_GREETING:
			greet(d, side);
			ent_connection_stream(&side->connection, side->direction);
			side->stage = STAGE_OPENING;
			break;
		case STAGE_OPENING:
		case STAGE_READY:
			side->stage = STAGE_READY;
			break;
	}
}

static void
dial(Dialer *d)
{
	bool		ready = true;

	for (int i = 0; i < lengthof(d->sides); i++)
	{
		Side	   *side = &d->sides[i];

		if (ent_connection_advance(&side->connection, side->events))
			next_stage(d, side);
		ready = ready && side->stage == STAGE_READY;
	}
	if (ready)
	{
		FreeWaitEventSet(d->set);	/* the sockets stay from here on */
		d->set = NULL;
		d->phase = PHASE_LIVE;
		ent_live_start(&d->live, d->peer, d->slot, &d->sides[0].connection,
					   &d->sides[1].connection);
		d->logged[0] = '\0';
		ereport(LOG,
				(errmsg("link with peer \"%s\" is up", d->peer->name)));
	}
	else if (ent_connection_clock() > d->deadline)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect: timed out after %d ms",
						ent_connect_timeout),
				 errdetail("The host did not answer, or not to the end."),
				 errhint("Check host and port in the peer's conninfo, the network, and firewalls; or increase entanglement.connect_timeout.")));
}

/* ---- a round ---- */

static void
run_link(Dialer *d)
{
	if (ent_live_superseded(&d->live))
	{
		hang_up(d);
		d->phase = PHASE_RESTING;
		d->resume_at = ent_connection_clock() + OTHERS_US;
		return;
	}
	ent_live_advance(&d->live, d->sides[0].events, d->sides[1].events);
}

static void
do_round(Dialer *d)
{
	look_at_peer(d);
	switch (d->phase)
	{
		case PHASE_RESTING:
			rest(d);
			break;
		case PHASE_DIALING:
			dial(d);
			break;
		case PHASE_LIVE:
			run_link(d);
			break;
	}
}

/* What only an administrator can mend. */
static bool
is_refusal(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) ==
		ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
		sqlstate == ERRCODE_FEATURE_NOT_SUPPORTED ||
		sqlstate == ERRCODE_UNDEFINED_FUNCTION ||
		sqlstate == ERRCODE_INVALID_SCHEMA_NAME ||
		sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE;
}

/* The link has failed: shows it and rests. */
static void
fail(Dialer *d, const ErrorData *e)
{
	char	   *text = ent_report_text(e->message, e->detail, e->hint);
	const char *sqlstate = unpack_sql_state(e->sqlerrcode);
	double		random = pg_prng_double(&pg_global_prng_state);
	bool		lived = d->live.up &&
		ent_connection_clock() - d->live.since > HEALTHY_US;

	hang_up(d);
	if (!others_hold_link(d) &&
		ent_shmem_holds(&d->slot->dialer, d->generation))
		ent_shmem_set_state(d->slot, is_refusal(e->sqlerrcode) ?
							ENT_LINK_REFUSED : ENT_LINK_DOWN, sqlstate, text);
	if (strncmp(d->logged, text, sizeof(d->logged) - 1) != 0)
		ereport(LOG,
				(errmsg("link with peer \"%s\" is down: %s: %s",
						d->peer ? d->peer->name : "?", sqlstate, text)));
	strlcpy(d->logged, text, sizeof(d->logged));

	if (lived)
		ent_backoff_reset(&d->backoff);
	d->phase = PHASE_RESTING;
	d->resume_at = ent_connection_clock() +
		ent_backoff_next(&d->backoff, (int64) ent_reconnect_max * 1000, random);
}

/* A round whose errors are the link's. */
static void
try_round(Dialer *d)
{
	MemoryContextReset(d->tick);
	MemoryContextSwitchTo(d->tick);
	PG_TRY();
	{
		do_round(d);
	}
	PG_CATCH();
	{
		ErrorData  *e;

		MemoryContextSwitchTo(d->tick);
		HOLD_INTERRUPTS();
		e = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		LWLockReleaseAll();
		MemoryContextSwitchTo(d->tick);
		fail(d, e);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/* ---- the wait ---- */

static int64
until_due(Dialer *d)
{
	int64		now = ent_connection_clock();

	switch (d->phase)
	{
		case PHASE_RESTING:
			return Max(d->resume_at - now, 0);
		case PHASE_DIALING:
			return Max(d->deadline - now, 0);
		case PHASE_LIVE:
			return ent_live_wait(&d->live);
	}
	return 0;
}

/* While a connection is being made its socket may change at any time. */
static void
renew_set(Dialer *d)
{
	if (d->set != NULL)
		FreeWaitEventSet(d->set);
	d->set = ent_compat_wait_event_set(2 + lengthof(d->sides));
	AddWaitEventToSet(d->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(d->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL,
					  NULL);
	for (int i = 0; i < lengthof(d->sides); i++)
	{
		EntConnection *c = &d->sides[i].connection;

		if (ent_connection_events(c) != 0)
			d->positions[i] = AddWaitEventToSet(d->set,
												ent_connection_events(c),
												ent_connection_socket(c),
												NULL, &d->sides[i]);
	}
}

static void
wait_for_anything(Dialer *d)
{
	WaitEvent	events[2 + lengthof(d->sides)];
	int64		us = until_due(d);
	int			n;

	if (d->set == NULL || d->phase != PHASE_LIVE)
		renew_set(d);
	else
		for (int i = 0; i < lengthof(d->sides); i++)
			ModifyWaitEvent(d->set, d->positions[i],
							ent_connection_events(&d->sides[i].connection),
							NULL);

	for (int i = 0; i < lengthof(d->sides); i++)
		d->sides[i].events = 0;
	n = WaitEventSetWait(d->set, us > 0 ? (long) (us / 1000 + 1) : 0, events,
						 lengthof(events), PG_WAIT_EXTENSION);
	for (int i = 0; i < n; i++)
		if (events[i].user_data != NULL)
			((Side *) events[i].user_data)->events = events[i].events;
}

/* ---- life ---- */

/* Whoever starts dialers should see that this one has gone. */
static void
tell_end(int code, Datum arg)
{
	ent_shmem_routes_changed();
}

static void
set_up(Dialer *d, const EntDialerStart *how)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(how->database, InvalidOid, 0);
	pgstat_report_appname("entanglement dialer");
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET,
					PGC_S_OVERRIDE);

	d->peer_context = AllocSetContextCreate(TopMemoryContext,
											"entanglement peer",
											ALLOCSET_SMALL_SIZES);
	d->attempt = AllocSetContextCreate(TopMemoryContext,
									   "entanglement attempt",
									   ALLOCSET_SMALL_SIZES);
	d->tick = AllocSetContextCreate(TopMemoryContext, "entanglement tick",
									ALLOCSET_DEFAULT_SIZES);
	d->sides[0].direction = "push";
	d->sides[1].direction = "pull";

	before_shmem_exit(tell_end, (Datum) 0);
	d->slot = ent_shmem_peer(d->no, true);
	if (d->slot == NULL)
		proc_exit(0);
	d->generation = ent_shmem_take(&d->slot->dialer);
	d->resume_at = ent_connection_clock() + (int64) how->delay * 1000;
}

void
ent_dialer_main(Datum arg)
{
	Dialer	   *d = MemoryContextAllocZero(TopMemoryContext, sizeof(Dialer));
	EntDialerStart how;

	memcpy(&how, MyBgworkerEntry->bgw_extra, sizeof(how));
	d->no = DatumGetInt32(arg);
	set_up(d, &how);
	ent_reuse_memory();

	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		/* the peer was dropped, or another dialer has taken over */
		if (!ent_shmem_holds(&d->slot->dialer, d->generation))
			proc_exit(0);
		pgstat_report_activity(STATE_RUNNING, NULL);
		try_round(d);
		pgstat_report_activity(STATE_IDLE, NULL);
		wait_for_anything(d);
	}
}
