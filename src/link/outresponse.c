/*
 * link/outresponse.c
 *	  The sending end: answers on their way back to who asked.
 *
 * An answer follows the state that it speaks of: whoever learns that his change
 * was accepted sees it. It is sent until the batch that carries it has been
 * acknowledged.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/uuid.h"

#include "link/outbound_private.h"
#include "store/object.h"
#include "store/query.h"
#include "store/value.h"

#define MAX_ANSWERS		1000	/* looked at for a batch */

static EntQuery answers_query = {
	"SELECT q.id, q.owner, q.state OPERATOR(pg_catalog.=) 'accepted', q.epoch, q.serial, "
	"q.sqlstate, q.message, q.detail, q.constraint_name, q.rel, q.on_the_way, "
	"CASE WHEN q.op OPERATOR(pg_catalog.=) 'C' THEN q.key END, o.id "
	"FROM entanglement.request q LEFT JOIN entanglement.owner o "
	"ON o.no OPERATOR(pg_catalog.=) q.owner WHERE $1 OPERATOR(pg_catalog.=) ANY (untold) "
	"AND untold OPERATOR(pg_catalog.<>) '{}' AND decided_at IS NOT NULL "
	"AND state OPERATOR(pg_catalog.=) ANY (ARRAY['accepted', 'refused']) "
	"ORDER BY decided_at LIMIT $2",
	2, {INT4OID, INT8OID}, NULL
};
static EntQuery told_query = {
	"UPDATE entanglement.request SET untold = pg_catalog.array_remove(untold, $2) "
	"WHERE id OPERATOR(pg_catalog.=) $1",
	2, {UUIDOID, INT4OID}, NULL
};

/*
 * Cuts a text where it fits, between characters. What has no equivalent in
 * UTF-8, or is of no known encoding, becomes question marks.
 */
static void
put_text(char *out, size_t max, const char *text, bool ascii)
{
	char	   *utf8;

	out[0] = '\0';
	if (text == NULL)
		return;
	utf8 = ascii ? pstrdup(text) : ent_name_to_wire(text);
	for (char *p = utf8; ascii && *p; p++)
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	strlcpy(out, utf8, pg_encoding_mbcliplen(PG_UTF8, utf8, strlen(utf8), max) + 1);
}

/* Is the state it speaks of on its way, or will it go another way? */
static bool
may_follow(EntOutbound *ob, int32 owner, int32 epoch, int64 serial)
{
	EntOutOwner *o = hash_search(ob->owners, &owner, HASH_FIND, NULL);

	return o == NULL || !o->wanted || o->withheld || o->epoch != epoch ||
		serial <= Max(o->claimed, o->claiming_serial);
}

static EntOutTable *
announced(EntOutbound *ob, EntRelation *rel)
{
	EntOutTable *t = hash_search(ob->tables, &rel->no, HASH_FIND, NULL);

	return t != NULL && t->known && t->generation == rel->generation ? t : NULL;
}

/*
 * A detail may show the whole row to the one whose rights it was made under:
 * us, unless the owner is at home here.
 */
static bool
may_see_all(EntOutbound *ob, EntRelation *rel, int32 owner)
{
	EntOutTable *t = rel ? announced(ob, rel) : NULL;

	if (ent_object_owner_is_local(owner))
		return true;
	if (t == NULL || check_enable_rls(rel->relid, ob->role, true) == RLS_ENABLED)
		return false;
	for (int i = 0; i < rel->ncolumns; i++)
		if (!t->may[i])
			return false;
	return true;
}

static bool
may_see_key(EntOutbound *ob, EntRelation *rel)
{
	EntOutTable *t = announced(ob, rel);

	for (int i = 0; t != NULL && i < rel->nkeys; i++)
		if (!t->may[rel->keys[i]])
			return false;
	return t != NULL;
}

/* An answer to be sent, as the query gives it. */
typedef struct Answering
{
	EntOutbound *ob;
	EntWriter  *w;
	pg_uuid_t	id;
	int32		owner;
	EntRelation *rel;
	bytea	   *key;			/* or NULL */
	EntWireResponse s;
	char	   *message;
	char	   *detail;
	char	   *constraint;
	bool		ascii;
} Answering;

static void
write_answer(void *arg)
{
	Answering  *a = arg;
	size_t		mark = ent_wire_open_section(a->w, ENT_SECTION_RESPONSE);

	if (!a->s.accepted)
	{
		put_text(a->s.message, ENT_WIRE_MAX_TEXT, a->message, a->ascii);
		put_text(a->s.detail, ENT_WIRE_MAX_TEXT, a->detail, a->ascii);
		put_text(a->s.constraint, ENT_WIRE_MAX_NAME, a->constraint, a->ascii);
	}
	a->s.nkeys = a->key == NULL ? 0 : a->rel->nkeys;
	ent_wire_write_response(a->w, &a->s);
	if (a->key != NULL)
		ent_outbound_write_key(a->w, a->rel, a->key);
	ent_wire_close_section(a->w, mark);
}

static void
read_answer(Answering *a, uint64 row)
{
	bool		null;
	Datum		key,
				owner;

	a->id = *DatumGetUUIDP(ent_query_datum(row, 1, &null));
	a->owner = ent_query_int4(row, 2, NULL);
	memcpy(a->s.id.bytes, a->id.data, UUID_LEN);
	a->s.accepted = ent_query_bool(row, 3);
	a->s.epoch = ent_query_int4(row, 4, &null);
	a->s.serial = ent_query_int8(row, 5, &null);
	owner = ent_query_datum(row, 13, &null);
	if (!null)
		memcpy(a->s.owner.bytes, DatumGetUUIDP(owner)->data, UUID_LEN);
	if (!a->s.accepted)
		strlcpy(a->s.sqlstate, ent_query_text(row, 6), sizeof(a->s.sqlstate));
	a->message = ent_query_text(row, 7);
	a->detail = ent_query_text(row, 8);
	a->constraint = ent_query_text(row, 9);
	a->rel = ent_relinfo_get(ent_query_int4(row, 10, NULL));
	a->s.on_the_way = ent_query_bool(row, 11);
	key = ent_query_datum(row, 12, &null);
	if (!null && a->rel != NULL && a->s.accepted && may_see_key(a->ob, a->rel))
		a->key = DatumGetByteaPCopy(key);
	if (!may_see_all(a->ob, a->rel, a->owner))
		a->detail = NULL;
}

static bool
is_among(List *ids, const pg_uuid_t *id)
{
	ListCell   *lc;

	foreach(lc, ids)
		if (memcmp(lfirst(lc), id, UUID_LEN) == 0)
			return true;
	return false;
}

/* Is it in a batch in flight, or in this one? */
static bool
being_told(EntOutbound *ob, const pg_uuid_t *id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->flights)
		if (is_among(dlist_container(EntOutFlight, node, iter.cur)->told, id))
			return true;
	return is_among(ob->flight->told, id);
}

static void
send_answer(Answering *a)
{
	if (being_told(a->ob, &a->id))
		return;
	if (a->s.accepted && !may_follow(a->ob, a->owner, a->s.epoch, a->s.serial))
	{
		a->ob->answers_held = true;
		return;
	}
	if (ent_outbound_try(write_answer, a, a->w) != NULL)
	{
		a->ascii = true;
		a->key = NULL;
		write_answer(a);
	}
	*(pg_uuid_t *) ent_outbound_note(a->ob, &a->ob->flight->told,
									 sizeof(pg_uuid_t)) = a->id;
}

void
ent_outbound_write_answers(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	Datum		args[2] = {Int32GetDatum(ob->peer), Int64GetDatum(MAX_ANSWERS)};
	Answering  *answers;
	int			level = ent_value_enter();
	uint64		n,
				i = 0;

	ob->answers_held = false;
	ent_query_run(&answers_query, args, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	answers = palloc0((n + 1) * sizeof(Answering));
	for (i = 0; i < n; i++)
	{
		answers[i].ob = ob;
		answers[i].w = w;
		read_answer(&answers[i], i);
	}
	SPI_freetuptable(SPI_tuptable);
	for (i = 0; i < n && w->len < max_bytes; i++)
		send_answer(&answers[i]);
	ent_value_leave(level);
	if (n == MAX_ANSWERS || i < n)
		ob->answers_held = true;
}

void
ent_outbound_settle_requests(EntOutbound *ob, EntOutFlight *f)
{
	ListCell   *lc;

	foreach(lc, f->told)
	{
		Datum		args[2] = {UUIDPGetDatum(lfirst(lc)), Int32GetDatum(ob->peer)};

		ent_query_run(&told_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
	if (f->told != NIL && ob->answers_held)
		ob->requests_due = true;
	list_free_deep(f->told);
}
