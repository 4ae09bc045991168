/*
 * worker/live.c
 *	  A dialed link while it is up: batches out by push, batches in by pull.
 *
 * Place: worker. What is in flight is bounded by rule/pace.h. An answer is sent
 * only after the transaction it speaks of was committed, here and there, so it
 * always speaks of what is durable (I3).
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/durable.h"
#include "base/guc.h"
#include "worker/live.h"

/* Claims and parked rows fall due by themselves; looked at this often. */
#define LOOK_US			1000000

/*
 * A batch may take a while on a slow link before anything is heard: bytes at
 * a quarter of the rate, which is taken to be at least this.
 */
#define SLOWEST_RATE	8000.0

#define MEANWHILE		8		/* batches that may be applied before we push again */

void
ent_live_begin(void)
{
	MemoryContext context = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(context);
}

static void
commit(void *arg)
{
	MemoryContext context = CurrentMemoryContext;

	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	pgstat_report_stat(false);
}

void
ent_live_commit(void)
{
	commit(NULL);
}

/* Commits what others here are to see at once, and the peer once it is durable. */
static void
commit_and_flush(void)
{
	ent_durable_commit_later(commit, NULL);
	ent_durable_flush();
}

/* ---- pull ---- */

/*
 * Answers leave once what they speak of is on disk. While further batches are applied
 * others see to that: it is waited for only until at most so many are left.
 */
static void
send_answers(EntLive *l, int left)
{
	int			n = 0;

	while (n < l->nanswers && (l->nanswers - n > left || ent_durable_already(l->answers[n].end)))
	{
		ent_durable_flush_to(l->answers[n].end);
		ent_connection_send(l->pull, l->answers[n].answer);
		pfree(l->answers[n++].answer);
		l->asked = false;
	}
	l->nanswers -= n;
	memmove(l->answers, l->answers + n, l->nanswers * sizeof(EntLiveAnswer));
}

static void
look_at_answers(void *l)
{
	ent_durable_start();
	send_answers(l, ENT_LIVE_ANSWERS);
}

static void
keep_answer(EntLive *l, const bytea *answer)
{
	EntLiveAnswer *a;

	send_answers(l, ENT_LIVE_ANSWERS - 1);
	a = &l->answers[l->nanswers++];
	a->answer = MemoryContextAlloc(l->context, VARSIZE(answer));
	memcpy(a->answer, answer, VARSIZE(answer));
	a->end = ent_durable_end();
}

static void
begin_pull(EntLive *l)
{
	bytea	   *answer;

	ent_live_begin();
	ent_inbound_begin(l->in);
	answer = ent_inbound_answer(l->in);
	commit_and_flush();
	ent_connection_send(l->pull, answer);
}

static void
take_batch(EntLive *l, const char *batch, size_t len)
{
	bytea	   *answer;

	ent_live_begin();
	pg_atomic_fetch_add_u64(&l->slot->bytes_received, len);
	ent_unpack(l->unpacker, &batch, &len);
	answer = ent_inbound_apply(l->in, batch, len);
	ent_durable_commit_later(commit, NULL);
	keep_answer(l, answer);
}

/*
 * All batches that are here by now, and some that come meanwhile: not all, since there is
 * something to push, too.
 */
static void
take_batches(EntLive *l)
{
	const char *message;
	size_t		len;

	for (int n = 0; (message = ent_connection_receive(l->pull, &len)) != NULL; n++)
	{
		take_batch(l, message, len);
		if (n < MEANWHILE)
			(void) ent_connection_advance(l->pull, WL_SOCKET_READABLE);
	}
	send_answers(l, 0);
}

/* ---- push ---- */

static void
take_answer(EntLive *l, const char *answer, size_t len)
{
	ent_live_begin();
	ent_outbound_answered(l->out, answer, len);
	ent_live_commit();
	ent_outbound_heard(l->out);
	ent_pace_acked(&l->pace, ent_connection_clock());
	pg_atomic_write_u64(&l->slot->rate, (uint64) ent_pace_rate(&l->pace));
	pg_atomic_write_u64(&l->slot->round_trip,
						Max(ent_pace_rtt(&l->pace), 0));
}

static void
push(EntLive *l, size_t max_bytes, bool heartbeat)
{
	bytea	   *batch;
	bool		read_only;

	ent_live_begin();
	batch = ent_outbound_build(l->out, max_bytes, heartbeat);
	read_only = batch != NULL && ent_durable_has_only_read();
	if (!read_only)
		ent_live_commit();
	if (batch == NULL)
		return;
	batch = ent_pack(l->packer, batch);
	ent_durable_flush_to(ent_outbound_durable_to(l->out));
	pg_atomic_fetch_add_u64(&l->slot->bytes_sent, VARSIZE(batch) - VARHDRSZ);
	l->pushed_at = ent_connection_clock();
	ent_pace_sent(&l->pace, VARSIZE(batch) - VARHDRSZ,
				  ent_outbound_backlog(l->out), l->pushed_at);
	ent_connection_send(l->push, batch);
	if (read_only)
		ent_live_commit();
	l->more = true;
}

/*
 * An answer is the only way to tell the other side what it did not ask: when
 * there is something, it is asked to send a batch.
 */
static void
ask_for_pull(EntLive *l)
{
	if (l->asked || !ent_inbound_has_news(l->in))
		return;
	l->slot->nudge = true;
	l->asked = true;
}

static void
consider_push(EntLive *l)
{
	int64		now = ent_connection_clock();
	bool		work = ent_outbound_poll(l->out);
	size_t		most = (size_t) ent_max_batch * 1024;
	bool		heartbeat;
	int64		pause;

	l->more = false;
	ask_for_pull(l);
	pause = ent_pace_wait(&l->pace, now, ent_pack_shrink(l->packer, ent_outbound_backlog(l->out)));
	heartbeat = ent_pace_has_slot(&l->pace) &&
		(l->slot->nudge || l->slot->called || l->pushed_at == 0 ||
		 now - l->pushed_at >= (int64) ent_heartbeat * 1000);
	if (!heartbeat && (!work || pause > 0))
		return;
	l->slot->called = false;
	push(l, pause > 0 ? 1 :
		 Min(ent_pack_expand(l->packer, ent_pace_batch_size(&l->pace, most)), most),
		 heartbeat);
}

/* ---- life ---- */

void
ent_live_start(EntLive *l, const EntPeer *peer, EntPeerSlot *slot,
			   EntConnection *push, EntConnection *pull)
{
	memset(l, 0, sizeof(*l));
	l->up = true;
	l->slot = slot;
	l->push = push;
	l->pull = pull;
	l->since = ent_connection_clock();
	ent_pace_init(&l->pace, peer->bandwidth, l->since);
	l->context = AllocSetContextCreate(TopMemoryContext, "entanglement link",
									   ALLOCSET_SMALL_SIZES);
	l->packer = ent_pack_create(l->context);
	l->unpacker = ent_unpack_create(l->context);
	l->sender = ent_shmem_take(&slot->sender);
	l->receiver = ent_shmem_take(&slot->receiver);
	l->out = ent_outbound_create(peer->no, peer->role, slot);
	l->in = ent_inbound_create(peer->no, peer->role, slot);
	ent_inbound_meanwhile(l->in, look_at_answers, l);
	ent_shmem_set_state(slot, ENT_LINK_CONNECTED, "", "");
	ent_shmem_routes_changed();
	begin_pull(l);
	consider_push(l);
}

void
ent_live_set_bandwidth(EntLive *l, int64 bandwidth)
{
	if (l->up)
		ent_pace_set_bandwidth(&l->pace, bandwidth, ent_connection_clock());
}

bool
ent_live_superseded(const EntLive *l)
{
	return !ent_shmem_holds(&l->slot->sender, l->sender) ||
		!ent_shmem_holds(&l->slot->receiver, l->receiver);
}

/* When silence means death: us of the clock. */
static int64
dead_at(EntLive *l)
{
	double		rate = Max(ent_pace_rate(&l->pace), SLOWEST_RATE);
	int64		heard = Max(l->push->heard_at, l->pull->heard_at);

	return heard + ((int64) ent_heartbeat + ent_dead_after) * 1000 +
		(int64) (ent_pace_in_flight(&l->pace) * 4 / rate * 1e6);
}

void
ent_live_advance(EntLive *l, uint32 push_events, uint32 pull_events)
{
	const char *message;
	size_t		len;

	(void) ent_connection_advance(l->push, push_events);
	while ((message = ent_connection_receive(l->push, &len)) != NULL)
		take_answer(l, message, len);
	(void) ent_connection_advance(l->pull, pull_events);
	take_batches(l);
	consider_push(l);
	if (ent_connection_clock() > dead_at(l))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("nothing was heard from the peer for too long"),
				 errdetail("entanglement.dead_after is %d ms; the peer's entanglement.heartbeat should be well below it.",
						   ent_dead_after)));
}

int64
ent_live_wait(EntLive *l)
{
	int64		now = ent_connection_clock();
	int64		until = Min(now + LOOK_US, dead_at(l));
	int64		pause = ent_pace_wait(&l->pace, now, ent_pack_shrink(l->packer, ent_outbound_backlog(l->out)));

	if (l->more)
		return 0;
	until = Min(until, l->pushed_at + (int64) ent_heartbeat * 1000);
	if (pause > 0 && pause < LOOK_US)
		until = Min(until, now + pause);
	return Max(until - now, 0);
}

void
ent_live_end(EntLive *l)
{
	bool		ours;

	if (!l->up)
		return;
	l->up = false;
	ours = ent_shmem_holds(&l->slot->sender, l->sender);
	ent_shmem_release(&l->slot->sender, l->sender);
	ent_shmem_release(&l->slot->receiver, l->receiver);
	if (l->out != NULL)
		ent_outbound_destroy(l->out);
	if (l->in != NULL)
		ent_inbound_destroy(l->in);
	if (l->context != NULL)
		MemoryContextDelete(l->context);
	if (ours)
		ent_shmem_acked(l->slot, 0);
	ent_shmem_routes_changed();
}
