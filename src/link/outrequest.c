/*
 * link/outrequest.c
 *	  The sending end: requests on their way to an owner.
 *
 * What leaves is marked as sent in the transaction that builds the batch, and
 * sent again by the next link, or by another one when the owner's route has
 * changed, until there is an answer: ids make that harmless. Changes of one row
 * that were made here and have not left yet, so that nobody else knows their
 * ids, go as one request that speaks for all of them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "link/outbound_private.h"
#include "store/query.h"
#include "store/request.h"
#include "store/value.h"

#define MAX_REQUESTS	ENT_WIRE_MAX_REQUESTS	/* looked at for a batch */
#define MAX_JOINT		(16 * 1024 * 1024)	/* bytes of values that are joined */

static EntQuery under_way_query = {
	"SELECT q.id FROM entanglement.request q "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) q.owner "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1 AND q.state OPERATOR(pg_catalog.=) 'sent' "
	"AND q.carrier IS NULL AND NOT $1 OPERATOR(pg_catalog.=) ANY (q.peers) "
	"AND NOT $1 OPERATOR(pg_catalog.=) ANY (q.refused_by)",
	1, {INT4OID}, NULL
};
static EntQuery again_query = {
	"UPDATE entanglement.request SET state = 'waiting' "
	"WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND state OPERATOR(pg_catalog.=) 'sent'",
	1, {UUIDARRAYOID}, NULL
};
static EntQuery waiting_query = {
	"SELECT q.id, q.rel, o.id, q.op, q.key, q.columns, q.values, "
	"q.alone OR q.role IS NULL OR q.sent_to OPERATOR(pg_catalog.<>) '{}', "
	"pg_catalog.floor(EXTRACT(epoch FROM q.expires_at OPERATOR(pg_catalog.-) "
	"pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8, "
	"q.owner FROM entanglement.request q "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) q.owner "
	"WHERE q.state OPERATOR(pg_catalog.=) 'waiting' AND o.peer OPERATOR(pg_catalog.=) $1 "
	"AND NOT $1 OPERATOR(pg_catalog.=) ANY (q.peers) "
	"AND q.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() "
	"AND q.rel OPERATOR(pg_catalog.=) ANY ($3) "
	/* who has been handed a row over may not know it yet */
	"AND NOT EXISTS (SELECT 1 FROM entanglement.object b "
	"WHERE b.rel OPERATOR(pg_catalog.=) q.rel AND b.key OPERATOR(pg_catalog.=) q.key "
	"AND b.owner OPERATOR(pg_catalog.=) q.owner AND b.born OPERATOR(pg_catalog.=) 0) "
	"AND NOT EXISTS (SELECT 1 FROM entanglement.handover h "
	"WHERE h.rel OPERATOR(pg_catalog.=) q.rel AND h.key OPERATOR(pg_catalog.=) q.key "
	"AND h.heir OPERATOR(pg_catalog.=) q.owner) ORDER BY q.no LIMIT $2 "
	"FOR UPDATE OF q SKIP LOCKED",
	3, {INT4OID, INT8OID, INT4ARRAYOID}, NULL
};
static EntQuery sent_query = {
	"UPDATE entanglement.request SET state = 'sent', "
	"sent_to = pg_catalog.array_append(pg_catalog.array_remove(sent_to, $1), $1) "
	"WHERE id OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, UUIDOID}, NULL
};
static EntQuery joint_query = {
	"INSERT INTO entanglement.request (no, id, rel, owner, op, key, columns, values, "
	"state, sent_to, joint, made_at, expires_at) OVERRIDING SYSTEM VALUE "
	"SELECT pg_catalog.min(no), pg_catalog.gen_random_uuid(), $2, $3, 'F', $4, $5, $6, 'sent', ARRAY[$1], true, "
	"pg_catalog.clock_timestamp(), pg_catalog.max(expires_at) "
	"FROM entanglement.request WHERE id OPERATOR(pg_catalog.=) ANY ($7) RETURNING id",
	7, {INT4OID, INT4OID, INT4OID, BYTEAOID, TEXTARRAYOID, TEXTARRAYOID, UUIDARRAYOID}, NULL
};
static EntQuery join_query = {
	"UPDATE entanglement.request SET state = 'sent', carrier = $1 "
	"WHERE id OPERATOR(pg_catalog.=) ANY ($2)",
	2, {UUIDOID, UUIDARRAYOID}, NULL
};
/* A request that is to leave now. */
typedef struct Leaving
{
	pg_uuid_t	id;
	int32		rel;
	int32		owner_no;
	pg_uuid_t	owner;
	char		op;
	bytea	   *key;
	int			ncolumns;
	char	  **columns;
	char	  **values;
	bool		alone;			/* not to be joined with others */
	int64		left;
	List	   *members;		/* of pg_uuid_t *: those it speaks for */
} Leaving;

/* ---- texts ---- */

static char **
read_texts(Datum array, int *n)
{
	Datum	   *elems;
	bool	   *nulls;
	char	  **texts;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elems, &nulls, n);
	texts = palloc((*n + 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
		texts[i] = nulls[i] ? NULL : TextDatumGetCString(elems[i]);
	return texts;
}

static void
write_field(EntWriter *w, const char *name, const char *value)
{
	EntWireField f = {0};

	strlcpy(f.name, ent_name_to_wire(name), sizeof(f.name));
	if (value != NULL)
	{
		f.value = (const uint8 *) pg_server_to_any(value, strlen(value), PG_UTF8);
		f.len = strlen((const char *) f.value);
		if (f.len > ENT_WIRE_MAX_VALUE)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("value of column \"%s\" is too large to be sent", name)));
	}
	ent_wire_write_field(w, &f);
}

void
ent_outbound_write_key(EntWriter *w, EntRelation *rel, bytea *key)
{
	Datum		values[ENT_WIRE_MAX_KEYS];

	ent_key_values(rel, (uint8 *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), values);
	for (int i = 0; i < rel->nkeys; i++)
	{
		EntColumn  *col = &rel->columns[rel->keys[i]];
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(col->type, &function, &varlena);
		write_field(w, col->name, OidOutputFunctionCall(function, values[i]));
	}
}

/* ---- requests ---- */

/* Tables that the peer has; what is about others waits. */
static Datum
known_tables(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutTable *t;
	Datum	   *rels = palloc((hash_get_num_entries(ob->tables) + 1) * sizeof(Datum));
	int			n = 0;

	hash_seq_init(&seq, ob->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known)
			rels[n++] = Int32GetDatum(t->no);
	return ent_query_array(INT4OID, rels, NULL, n);
}

static List *
read_waiting(EntOutbound *ob)
{
	Datum		args[3] = {Int32GetDatum(ob->peer), Int64GetDatum(MAX_REQUESTS),
	known_tables(ob)};
	List	   *result = NIL;

	ent_query_run(&waiting_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Leaving    *l = palloc0(sizeof(Leaving));
		Datum		key;
		bool		null;
		int			n;

		l->id = *DatumGetUUIDP(ent_query_datum(row, 1, &null));
		l->rel = ent_query_int4(row, 2, NULL);
		l->owner = *DatumGetUUIDP(ent_query_datum(row, 3, &null));
		l->op = DatumGetChar(ent_query_datum(row, 4, &null));
		key = ent_query_datum(row, 5, &null);
		l->key = null ? NULL : DatumGetByteaPCopy(key);
		l->columns = read_texts(ent_query_datum(row, 6, &null), &l->ncolumns);
		l->values = read_texts(ent_query_datum(row, 7, &null), &n);
		l->alone = ent_query_bool(row, 8);
		l->left = ent_query_int8(row, 9, NULL);
		l->owner_no = ent_query_int4(row, 10, NULL);
		result = lappend(result, l);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

static bool
same_row(const Leaving *a, const Leaving *b)
{
	return a->rel == b->rel && a->owner_no == b->owner_no &&
		a->key != NULL && b->key != NULL &&
		VARSIZE(a->key) == VARSIZE(b->key) &&
		memcmp(a->key, b->key, VARSIZE(a->key)) == 0;
}

static size_t
size_of(const Leaving *l)
{
	size_t		size = 0;

	for (int i = 0; i < l->ncolumns; i++)
		size += l->values[i] ? strlen(l->values[i]) : 0;
	return size;
}

/* The newer of two values of a column is the one that is asked for. */
static void
join(Leaving *l, Leaving *more)
{
	if (l->members == NIL)
	{
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

		*id = l->id;
		l->members = list_make1(id);
	}
	l->members = lappend(l->members, &more->id);
	l->columns = repalloc(l->columns, (l->ncolumns + more->ncolumns + 1) * sizeof(char *));
	l->values = repalloc(l->values, (l->ncolumns + more->ncolumns + 1) * sizeof(char *));
	for (int i = 0; i < more->ncolumns; i++)
	{
		int			c = 0;

		while (c < l->ncolumns && strcmp(l->columns[c], more->columns[i]) != 0)
			c++;
		if (c == l->ncolumns)
			l->columns[l->ncolumns++] = more->columns[i];
		l->values[c] = more->values[i];
	}
	l->left = Max(l->left, more->left);
}

/*
 * Forwards of one row that follow each other become one. Each is compared with
 * the last request before it about its row only, so that order is kept.
 */
static List *
coalesce(List *waiting)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, waiting)
	{
		Leaving    *l = lfirst(lc);
		Leaving    *before = NULL;
		ListCell   *rc;

		if (l->op != ENT_REQUEST_OP_CREATE)
			foreach(rc, result)
				if (same_row(lfirst(rc), l))
					before = lfirst(rc);
		if (before != NULL && before->op == ENT_REQUEST_OP_FORWARD &&
			l->op == ENT_REQUEST_OP_FORWARD && !before->alone && !l->alone &&
			size_of(before) + size_of(l) < MAX_JOINT)
			join(before, l);
		else
			result = lappend(result, l);
	}
	return result;
}

/* May the peer's role see these columns here? Else nothing of them leaves. */
static const char *
hidden_column(EntOutTable *t, EntRelation *rel, const Leaving *l)
{
	for (int i = 0; i < rel->nkeys; i++)
		if (!t->may[rel->keys[i]])
			return rel->columns[rel->keys[i]].name;
	for (int i = 0; i < l->ncolumns; i++)
	{
		EntColumn  *col = ent_relinfo_column(rel, l->columns[i]);

		if (col != NULL && !t->may[col - rel->columns])
			return col->name;
	}
	return NULL;
}

static void
refuse(const Leaving *l, const EntRequestAnswer *a)
{
	ListCell   *lc;

	if (l->members == NIL)
		ent_request_refuse(&l->id, a);
	foreach(lc, l->members)
		ent_request_refuse(lfirst(lc), a);
}

/* Notes that it leaves; a joint one gets its own id here. */
static void
mark_sent(EntOutbound *ob, Leaving *l)
{
	Datum		args[7] = {Int32GetDatum(ob->peer), UUIDPGetDatum(&l->id)};
	int			n = list_length(l->members),
				i = 0;
	Datum	   *ids = palloc((n + 1) * sizeof(Datum));
	ListCell   *lc;
	bool		null;

	if (n == 0)
	{
		ent_query_run(&sent_query, args, NULL, SPI_OK_UPDATE, NULL);
		return;
	}
	foreach(lc, l->members)
		ids[i++] = UUIDPGetDatum(lfirst(lc));
	args[1] = Int32GetDatum(l->rel);
	args[2] = Int32GetDatum(l->owner_no);
	args[3] = PointerGetDatum(l->key);
	args[4] = ent_query_text_array(l->columns, l->ncolumns);
	args[5] = ent_query_text_array(l->values, l->ncolumns);
	args[6] = ent_query_array(UUIDOID, ids, NULL, n);
	ent_query_run(&joint_query, args, NULL, SPI_OK_INSERT_RETURNING, NULL);
	l->id = *DatumGetUUIDP(ent_query_datum(0, 1, &null));
	args[0] = UUIDPGetDatum(&l->id);
	args[1] = args[6];
	ent_query_run(&join_query, args, NULL, SPI_OK_UPDATE, NULL);
}

static void
write_request(EntWriter *w, EntRelation *rel, const Leaving *l)
{
	size_t		mark = ent_wire_open_section(w, ENT_SECTION_REQUEST);
	EntWireRequest q = {
		.op = l->op == ENT_REQUEST_OP_CREATE ? ENT_REQUEST_CREATE :
		l->op == ENT_REQUEST_OP_FORWARD ? ENT_REQUEST_FORWARD : ENT_REQUEST_DELETE,
		.left = Max(l->left, 0),
		.nkeys = l->op == ENT_REQUEST_OP_CREATE ? 0 : rel->nkeys,
		.ncolumns = l->ncolumns
	};

	memcpy(q.id.bytes, l->id.data, UUID_LEN);
	memcpy(q.owner.bytes, l->owner.data, UUID_LEN);
	strlcpy(q.schema, ent_name_to_wire(rel->schema), sizeof(q.schema));
	strlcpy(q.table, ent_name_to_wire(rel->name), sizeof(q.table));
	ent_wire_write_request(w, &q);
	if (q.nkeys > 0)
		ent_outbound_write_key(w, rel, l->key);
	for (int i = 0; i < l->ncolumns; i++)
		write_field(w, l->columns[i], l->values[i]);
	ent_wire_close_section(w, mark);
}

typedef struct Sending
{
	EntOutbound *ob;
	EntWriter  *w;
	EntRelation *rel;
	Leaving    *leaving;
} Sending;

static void
mark_and_write(void *arg)
{
	Sending    *s = arg;

	if (size_of(s->leaving) > ENT_WIRE_MAX_BATCH / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the request is too large to be sent")));
	mark_sent(s->ob, s->leaving);
	write_request(s->w, s->rel, s->leaving);
}

static void
send_request(EntOutbound *ob, EntWriter *w, Leaving *l)
{
	EntRelation *rel = ent_relinfo_get(l->rel);
	Sending		s;
	ErrorData  *error;
	EntOutTable *t = hash_search(ob->tables, &l->rel, HASH_FIND, NULL);
	const char *hidden;

	if (rel == NULL || t == NULL || !t->known ||
		t->generation != rel->generation)
		return;					/* announced again first */
	hidden = hidden_column(t, rel, l);
	if (hidden != NULL)
	{
		EntRequestAnswer a = {
			.on_the_way = true,
			.sqlstate = "42501",
			.message = psprintf("the peer through which the owner is reached may not see column \"%s\" of table \"%s\"",
								hidden, rel->name)
		};

		refuse(l, &a);
		return;
	}
	s.ob = ob;
	s.w = w;
	s.rel = rel;
	s.leaving = l;
	error = ent_outbound_try(mark_and_write, &s, w);
	if (error == NULL)
		(void) hash_search(ob->requests, &l->id, HASH_ENTER, NULL);
	else
	{
		/* too large, or in characters that cannot be sent */
		EntRequestAnswer a = {
			.on_the_way = true,
			.sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode)),
			.message = error->message,.detail = error->detail
		};

		refuse(l, &a);
	}
}

/*
 * What is under way and should go by this peer, but was not sent by this link,
 * may have been lost with another: it waits again.
 */
static void
send_again(EntOutbound *ob)
{
	Datum		args[1] = {Int32GetDatum(ob->peer)};
	HASHCTL		ctl = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(pg_uuid_t),
	.hcxt = ob->context};
	HTAB	   *known = ob->requests;
	Datum	   *lost;
	int			n = 0;

	ob->again_due = false;
	ob->requests = hash_create("entanglement requests sent", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ent_query_run(&under_way_query, args, NULL, SPI_OK_SELECT, NULL);
	lost = palloc((SPI_processed + 1) * sizeof(Datum));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		null;
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

		*id = *DatumGetUUIDP(ent_query_datum(row, 1, &null));
		if (known != NULL && hash_search(known, id, HASH_FIND, NULL) != NULL)
			(void) hash_search(ob->requests, id, HASH_ENTER, NULL);
		else
			lost[n++] = UUIDPGetDatum(id);
	}
	SPI_freetuptable(SPI_tuptable);
	if (known != NULL)
		hash_destroy(known);
	if (n == 0)
		return;
	args[0] = ent_query_array(UUIDOID, lost, NULL, n);
	ent_query_run(&again_query, args, NULL, SPI_OK_UPDATE, NULL);
}

void
ent_outbound_write_requests(EntOutbound *ob, EntWriter *w, size_t max_bytes)
{
	List	   *waiting;
	ListCell   *lc;
	size_t		start = w->len;
	int			level;

	if (ob->again_due)
		send_again(ob);
	waiting = ob->requests_due ? read_waiting(ob) : NIL;
	ob->requests_due = list_length(waiting) == MAX_REQUESTS;
	level = ent_value_enter();
	foreach(lc, coalesce(waiting))
	{
		if (w->len > start && w->len >= max_bytes)
		{
			ob->requests_due = true;
			break;
		}
		send_request(ob, w, lfirst(lc));
	}
	ent_value_leave(level);
	ent_outbound_write_answers(ob, w, max_bytes);
}
