/*
 * link/outsubscribe.c
 *	  The sending end: which of our tables the peer wants, and which of their
 *	  rows.
 *
 * What it says is kept (entanglement.wanted) before anything is sent of it;
 * what its filters may do here is decided by guard/filter.c, and told to the
 * peer.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "nodes/bitmapset.h"
#include "utils/memutils.h"

#include "guard/show.h"
#include "link/outbound_private.h"
#include "store/query.h"
#include "store/subscription.h"
#include "store/value.h"

/* ---- what it wants ---- */

typedef struct Text
{
	const char *wire;
	int			len;
	char	   *text;
} Text;

static void
convert(void *arg)
{
	Text	   *t = arg;

	t->text = pg_any_to_server(t->wire, t->len, PG_UTF8);
}

/* What this database cannot write down is kept as something that is no filter. */
static char *
filter_from_wire(const EntWireWish *wish)
{
	Text		t = {.len = wish->len};

	t.wire = pnstrdup((const char *) wish->filter, wish->len);
	(void) pg_verify_mbstr(PG_UTF8, t.wire, t.len, false);
	if (ent_query_try(convert, &t) == NULL)
		return t.text;
	return psprintf("\\ %s", ent_name_from_wire(t.wire));
}

static EntWish *
take_wish(EntOutbound *ob, EntReader *r, Bitmapset **seen)
{
	EntWireWish wire;
	EntWish    *wish;
	EntOutTable *t;
	int32		no;

	ent_wire_read_wish(r, &wire);
	if (r->error == ENT_WIRE_OK && bms_is_member(wire.table, *seen))
		ent_wire_fail(r, ENT_WIRE_MALFORMED);
	ent_outbound_check(r, "subscribe");
	*seen = bms_add_member(*seen, wire.table);
	no = wire.table;
	t = hash_search(ob->tables, &no, HASH_FIND, NULL);
	if (t == NULL || !t->announced)
		return NULL;
	wish = palloc0(sizeof(EntWish));
	wish->rel = no;
	wish->round = wire.round;
	if (wire.filter != NULL)
		wish->filter = filter_from_wire(&wire);
	return wish;
}

void
ent_outbound_take_subscribe(EntOutbound *ob, EntReader *r)
{
	EntWireSubscribe s;
	List	   *wishes = NIL;
	Bitmapset  *seen = NULL;

	ent_wire_read_subscribe(r, &s);
	ent_outbound_check(r, "subscribe");
	while (!ent_wire_at_end(r))
	{
		EntWish    *wish = take_wish(ob, r, &seen);

		if (wish != NULL)
			wishes = lappend(wishes, wish);
	}
	ent_outbound_check(r, "subscribe");
	if (ent_wanted_set(ob->peer, s.selective, wishes))
		ent_outbound_look_anew(ob, 0);
	ent_outbound_wishes_heard(ob);
}

void
ent_outbound_wishes_heard(EntOutbound *ob)
{
	if (ob->wishes_heard)
		return;
	ob->wishes_heard = true;
	ob->filters_due = true;
	ent_outbound_look_anew(ob, 0);
}

/* ---- what becomes of it ---- */

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

void
ent_outbound_judge(EntOutbound *ob, EntOutTable *t, const EntShow *show)
{
	if (show->wish == NULL)
	{
		t->told = true;
		t->told_round = 0;
		return;
	}
	ent_wanted_judge(ob->peer, show->wish, show->sqlstate, show->message);
	if (t->told_round == show->wish->round &&
		strcmp(t->told_state, show->sqlstate) == 0 &&
		same_text(t->told_message, show->message))
		return;
	t->told = false;
	t->told_round = show->wish->round;
	strlcpy(t->told_state, show->sqlstate, sizeof(t->told_state));
	if (t->told_message != NULL)
		pfree(t->told_message);
	t->told_message = show->message == NULL ? NULL :
		MemoryContextStrdup(ob->context, show->message);
	ob->filters_due = true;
}

static void
write_state(EntOutTable *t, EntWriter *w)
{
	EntWireFilterState s = {.table = t->no, .round = t->told_round};

	memcpy(s.sqlstate, t->told_state, sizeof(s.sqlstate));
	if (t->told_message != NULL)
	{
		const char *message = ent_name_to_wire(t->told_message);

		memcpy(s.message, message,
			   pg_encoding_mbcliplen(PG_UTF8, message, strlen(message),
									 ENT_WIRE_MAX_TEXT));
	}
	ent_wire_write_filter_state(w, &s);
}

/* What was told on an earlier connection is told again: it may not have arrived. */
void
ent_outbound_write_filter_states(EntOutbound *ob, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntOutTable *t;

	if (!ob->wishes_heard)
		return;
	ob->filters_due = false;
	hash_seq_init(&seq, ob->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		if (t->told || t->told_round == 0 || !t->announced)
			continue;
		write_state(t, w);
		t->told = true;
	}
}
