/*
 * link/verify.c
 *	  Comparing our rows with a peer's: the conversation.
 *
 * Totals first, then ranges that differ, divided again and again: the number
 * of questions is logarithmic in that of the rows, and what is told
 * proportional to what differs. The peer is not trusted: what it tells is checked, and
 * what it may make us ask is limited. What differed is looked at again after
 * a moment, since rows that are on their way are no difference.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/cert.h"
#include "base/guc.h"
#include "link/connection.h"
#include "link/greet.h"
#include "link/hello.h"
#include "link/verify_private.h"
#include "store/identity.h"
#include "store/owner.h"
#include "store/subscription.h"
#include "store/value.h"

#define STATEMENT		"SELECT entanglement.digest($1)"
#define MAX_TABLES		100		/* asked for at a time */
#define MAX_TASKS		250
#define MAX_PASSES		6		/* looks at what differs */
#define PAUSE_MS		250		/* between two of them */

void
ent_verify_complain(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("malformed digest from peer"),
			 errdetail("%s", detail)));
}

void
ent_verify_check(EntReader *r, const char *what)
{
	if (r->error != ENT_WIRE_OK)
		ent_verify_complain(psprintf("In %s: %s.", what,
									 ent_wire_error_text(r->error)));
}

EntVerifyOwner *
ent_verify_owner(EntVerify *v, const uint8 *id)
{
	pg_uuid_t	uuid;
	EntVerifyOwner *o;
	EntOwner   *ours;
	bool		found;

	memcpy(uuid.data, id, UUID_LEN);
	o = hash_search(v->owners, &uuid, HASH_ENTER, &found);
	if (!found)
	{
		/* the peer has not told of him */
		MemoryContext old = MemoryContextSwitchTo(v->context);

		ours = ent_owner_by_id(&uuid);
		o->no = ours ? ours->no : 0;
		o->name = ours ? ours->name : "?";
		o->epoch = 0;
		o->serial = 0;
		o->from_us = false;
		MemoryContextSwitchTo(old);
	}
	return o;
}

/* ---- asking ---- */

/* Waits until the connection is idle. until: us of the clock, 0: for ever. */
static void
wait_idle(EntConnection *c, int64 until)
{
	uint32		events = 0;

	while (!ent_connection_advance(c, events))
	{
		int			flags = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT;
		int64		left = until == 0 ? 1000000 : until - ent_connection_clock();
		int			got;

		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("could not connect: timed out after %d ms",
							ent_connect_timeout)));
		got = WaitLatchOrSocket(MyLatch, flags | ent_connection_events(c),
								ent_connection_socket(c), left / 1000 + 1,
								PG_WAIT_EXTENSION);
		if (got & WL_LATCH_SET)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		events = got & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE);
	}
}

static void
connect_to(const EntPeer *peer, EntConnection *c)
{
	int64		until = ent_connection_clock() + (int64) ent_connect_timeout * 1000;
	char		fingerprint[ENT_FINGERPRINT_LENGTH + 1];
	EntWireHello hello;
	const char *answer;
	size_t		len;

	ent_connection_dial(c, ent_conninfo_prepare(peer->conninfo,
												ent_identity_get()->name));
	wait_idle(c, until);
	ent_connection_hello(c, "verify", ent_hello_build());
	wait_idle(c, until);
	answer = ent_connection_answer(c, &len);
	ent_hello_read(answer, len, &hello);
	ent_connection_fingerprint(c, fingerprint);
	ent_greet_check(peer, &hello, fingerprint);
	ent_connection_prepare(c, STATEMENT);
	wait_idle(c, until);
}

static void *
writer_grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc(old, size) : MemoryContextAlloc(ctx, size);
}

static void
begin_question(EntWriter *w)
{
	EntWireHeader header = {.version = ENT_WIRE_VERSION};

	ent_wire_writer_init(w, (EntWireAllocator) {writer_grow, CurrentMemoryContext});
	ent_wire_write_raw(w, "\0\0\0\0", VARHDRSZ);
	ent_wire_write_header(w, &header);
}

/* Asks, and leaves r behind the header of the answer. */
static void
ask(EntVerify *v, EntConnection *c, EntWriter *w, EntReader *r)
{
	EntWireHeader header;
	const char *answer;
	size_t		len;

	SET_VARSIZE(w->data, w->len);
	ent_connection_execute(c, (bytea *) w->data);
	wait_idle(c, 0);
	answer = ent_connection_answer(c, &len);
	v->result->exchanges++;
	v->result->sent += w->len - VARHDRSZ;
	v->result->received += len;
	ent_wire_reader_init(r, answer, len);
	ent_wire_read_header(r, &header);
	ent_verify_check(r, "header");
}

/* ---- questions ---- */

/* The fields of a COMPARE in front of its ranges; the section stays open. */
static size_t
open_compare(EntWriter *w, EntVerifyTable *t)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_COMPARE);

	ent_wire_write_compare(w, &t->wire);
	for (int i = 0; i < t->ncolumns; i++)
		ent_wire_write_string(w, ent_name_to_wire(t->rel->columns[t->columns[i]].name));
	return mark;
}

static void
ask_description(EntVerify *v, EntConnection *c)
{
	EntWriter	w;
	EntReader	r;
	MemoryContext old;

	begin_question(&w);
	ask(v, c, &w, &r);
	old = MemoryContextSwitchTo(v->context);
	ent_verify_take_description(v, &r);
	MemoryContextSwitchTo(old);
}

static void
ask_totals(EntVerify *v, EntConnection *c)
{
	int			n = list_length(v->tables);

	for (int first = 0; first < n; first += MAX_TABLES)
	{
		int			some = Min(n - first, MAX_TABLES);
		EntWriter	w;
		EntReader	r;

		begin_question(&w);
		for (int i = 0; i < some; i++)
			ent_wire_close_section(&w, open_compare(&w, list_nth(v->tables, first + i)));
		ask(v, c, &w, &r);
		ent_verify_totals(v, &r, first, some);
	}
}

static void
write_task(EntWriter *w, EntVerifyTask *task)
{
	EntWireRange range = {.each = task->each};

	memcpy(range.owner.bytes, task->owner->id.data, UUID_LEN);
	range.has_lo = task->lo != NULL;
	range.has_hi = task->hi != NULL;
	if (task->lo)
	{
		range.lo = (uint8 *) VARDATA(task->lo);
		range.lolen = VARSIZE(task->lo) - VARHDRSZ;
	}
	if (task->hi)
	{
		range.hi = (uint8 *) VARDATA(task->hi);
		range.hilen = VARSIZE(task->hi) - VARHDRSZ;
	}
	ent_wire_write_range(w, &range);
}

/* Each task is a COMPARE of its own, so that an answer names it by one number. */
static void
ask_tasks(EntVerify *v, EntConnection *c, List *tasks, int first, int n)
{
	bool	   *answered = palloc0(n * sizeof(bool));
	MemoryContext chunk = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement parts",
												ALLOCSET_DEFAULT_SIZES);
	EntWriter	w;
	EntReader	r,
				body;
	unsigned	type;

	begin_question(&w);
	for (int i = 0; i < n; i++)
	{
		EntVerifyTask *task = list_nth(tasks, first + i);
		size_t		mark = open_compare(&w, task->table);

		write_task(&w, task);
		ent_wire_close_section(&w, mark);
	}
	ask(v, c, &w, &r);
	while (ent_wire_read_section(&r, &type, &body))
	{
		EntWireDigest d;
		EntVerifyTask *task;
		MemoryContext old = MemoryContextSwitchTo(chunk);

		if (type != ENT_SECTION_DIGEST)
			ent_verify_complain("It is not a digest.");
		ent_wire_read_digest(&body, &d);
		ent_verify_check(&body, "digest");
		if (d.compare >= n || d.range != 0 || answered[d.compare])
			ent_verify_complain("It answers what was not asked.");
		answered[d.compare] = true;
		task = list_nth(tasks, first + d.compare);
		if (memcmp(d.owner.bytes, task->owner->id.data, UUID_LEN) != 0)
			ent_verify_complain("It speaks of another owner.");
		ent_verify_parts(v, task, &body);
		MemoryContextSwitchTo(old);
		MemoryContextReset(chunk);
	}
	ent_verify_check(&r, "sections");
	MemoryContextDelete(chunk);
}

/* Works off the tasks, and those that come of them. */
static void
divide_ranges(EntVerify *v, EntConnection *c)
{
	MemoryContext round = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement round",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(round);

	v->rounds = 0;
	while (v->tasks != NIL)
	{
		List	   *tasks = v->tasks;
		int			n = list_length(tasks);

		v->tasks = NIL;
		v->rounds++;
		for (int first = 0; first < n; first += MAX_TASKS)
		{
			ask_tasks(v, c, tasks, first, Min(n - first, MAX_TASKS));
			MemoryContextReset(round);
		}
		list_free(tasks);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(round);
}

/* ---- looking again ---- */

/* Takes the findings of rows off the list. */
static List *
take_row_findings(EntVerify *v)
{
	List	   *rows = NIL,
			   *others = NIL;
	ListCell   *lc;

	foreach(lc, v->findings)
	{
		EntVerifyFinding *f = lfirst(lc);

		if (f->owner != NULL)
			rows = lappend(rows, f);
		else
			others = lappend(others, f);
	}
	v->findings = others;
	return rows;
}

static bool
same_range(const EntVerifyFinding *a, const EntVerifyFinding *b)
{
	return a->table == b->table && a->owner == b->owner && a->lo == b->lo &&
		a->hi == b->hi;
}

/* Looks again at the ranges in which something was found. */
static void
look_again(EntVerify *v, EntConnection *c)
{
	MemoryContext old = MemoryContextSwitchTo(v->context);
	List	   *rows = take_row_findings(v);
	EntVerifyFinding *before = NULL;
	ListCell   *lc;

	v->ranges = 0;
	foreach(lc, rows)
	{
		EntVerifyFinding *f = lfirst(lc);

		if (before == NULL || !same_range(before, f))
			ent_verify_add_task(v, f->table, f->owner, f->lo, f->hi,
								Max(f->d.theirs, 1));
		before = f;
	}
	MemoryContextSwitchTo(old);
	divide_ranges(v, c);
}

static void
rest(void)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PAUSE_MS);

	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		CHECK_FOR_INTERRUPTS();
		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* ---- the result ---- */

static int
compare_bytea(const bytea *a, const bytea *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return ent_tally_compare(VARDATA_ANY(a), VARSIZE_ANY_EXHDR(a),
							 VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
}

static int
by_table_owner_key(const ListCell *a, const ListCell *b)
{
	const EntVerifyFinding *x = lfirst(a),
			   *y = lfirst(b);
	int			c = strcmp(x->d.relation, y->d.relation);

	if (c == 0)
		c = strcmp(x->d.owner ? x->d.owner : "", y->d.owner ? y->d.owner : "");
	return c != 0 ? c : compare_bytea(x->d.first, y->d.first);
}

/* Do they differ in the same way, with no other row between them? */
static bool
neighbours(const EntVerifyFinding *a, const EntVerifyFinding *b)
{
	return a->owner != NULL && a->owner == b->owner && a->table == b->table &&
		strcmp(a->d.what, b->d.what) == 0 && a->ends && b->begins && a->hi != NULL &&
		compare_bytea(a->hi, b->lo) == 0;
}

/* Neighbours are listed as one range. */
static void
list_differences(EntVerify *v)
{
	EntVerifyFinding *last = NULL;
	ListCell   *lc;

	list_sort(v->findings, by_table_owner_key);
	foreach(lc, v->findings)
	{
		EntVerifyFinding *f = lfirst(lc);

		if (last != NULL && neighbours(last, f))
		{
			last->d.last = f->d.last;
			last->d.ours += f->d.ours;
			last->d.theirs += f->d.theirs;
			last->ends = f->ends;
			last->hi = f->hi;
			continue;
		}
		v->result->differences = lappend(v->result->differences, &f->d);
		last = f;
	}
}

static int
count_row_findings(EntVerify *v)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, v->findings)
		n += ((EntVerifyFinding *) lfirst(lc))->owner != NULL;
	return n;
}

static bool
is_selective(const EntPeer *peer)
{
	bool		ours,
				theirs;

	(void) ent_subscription_all(peer->no, &ours);
	(void) ent_wanted_all(peer->no, &theirs);
	return ours || theirs;
}

static void
compare(EntVerify *v, EntConnection *c)
{
	int			found,
				before = -1;

	v->selective = is_selective(v->peer);
	ask_description(v, c);
	ask_totals(v, c);
	divide_ranges(v, c);
	found = count_row_findings(v);
	/* until looking again finds nothing less */
	for (int pass = 1; pass < MAX_PASSES && found > 0 && found != before; pass++)
	{
		before = found;
		rest();
		look_again(v, c);
		found = count_row_findings(v);
	}
	list_differences(v);
}

EntVerified *
ent_verify(const EntPeer *peer)
{
	EntConnection c = {0};
	EntVerify	v = {.peer = peer, .context = CurrentMemoryContext};
	HASHCTL		ctl = {.keysize = sizeof(pg_uuid_t),
	.entrysize = sizeof(EntVerifyOwner), .hcxt = CurrentMemoryContext};

	v.result = palloc0(sizeof(EntVerified));
	v.owners = hash_create("entanglement owners compared", 64, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ent_relinfo_refresh();
	PG_TRY();
	{
		connect_to(peer, &c);
		compare(&v, &c);
	}
	PG_FINALLY();
	{
		ent_connection_close(&c);
	}
	PG_END_TRY();
	return v.result;
}
