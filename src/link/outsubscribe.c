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
#include "utils/elog.h"

#include "guard/filter.h"
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
	(void) ent_wanted_set(ob->peer, s.selective, wishes);
	ob->filters_due = true;
}

/* ---- what becomes of it ---- */

static void
judge(EntOutbound *ob, EntWish *wish, EntRelation *rel)
{
	ErrorData  *error = NULL;
	char	   *message = NULL;

	if (wish->filter != NULL)
		(void) ent_filter_try(rel, ob->role, wish->filter, &error);
	if (error != NULL)
		message = error->detail == NULL ? error->message :
			psprintf("%s: %s", error->message, error->detail);
	ent_wanted_judge(ob->peer, wish,
					 error ? unpack_sql_state(error->sqlerrcode) : "00000", message);
}

static void
write_state(EntWriter *w, const EntWish *wish)
{
	EntWireFilterState s = {.table = wish->rel, .round = wish->round};

	memcpy(s.sqlstate, wish->sqlstate, sizeof(s.sqlstate));
	if (wish->message != NULL)
	{
		const char *message = ent_name_to_wire(wish->message);

		memcpy(s.message, message,
			   pg_encoding_mbcliplen(PG_UTF8, message, strlen(message),
									 ENT_WIRE_MAX_TEXT));
	}
	ent_wire_write_filter_state(w, &s);
}

void
ent_outbound_write_filter_states(EntOutbound *ob, EntWriter *w)
{
	bool		selective;
	ListCell   *lc;

	ob->filters_due = false;
	foreach(lc, ent_wanted_all(ob->peer, &selective))
	{
		EntWish    *wish = lfirst(lc);
		EntRelation *rel = ent_relinfo_get(wish->rel);
		EntOutTable *t = hash_search(ob->tables, &wish->rel, HASH_FIND, NULL);

		if (rel == NULL || t == NULL || !t->announced)
			continue;
		judge(ob, wish, rel);
		if (t->told_round == wish->round &&
			strcmp(t->told_state, wish->sqlstate) == 0)
			continue;
		write_state(w, wish);
		t->told_round = wish->round;
		strlcpy(t->told_state, wish->sqlstate, sizeof(t->told_state));
	}
}
