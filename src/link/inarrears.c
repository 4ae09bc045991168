/*
 * link/inarrears.c
 *	  The receiving end: tables of owners that are fetched anew.
 *
 * What passed by before a table or column was here, or is to be compared as a
 * whole (entanglement.resync), stands in entanglement.arrears and is asked for
 * until it has come. A note has a round, which grows when the same table is
 * needed anew while it is on its way: then what was under way does not count,
 * and it is asked for once more.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "link/inbound_private.h"
#include "store/query.h"

static EntQuery arrears_query = {
	"SELECT o.id, a.rel, a.round, o.epoch, o.serial, COALESCE("
	"(SELECT b.serial FROM entanglement.object b WHERE b.owner OPERATOR(pg_catalog.=) o.no "
	"AND b.epoch OPERATOR(pg_catalog.=) o.epoch AND b.born OPERATOR(pg_catalog.>) 0 "
	"ORDER BY b.serial DESC LIMIT 1), 0) FROM entanglement.arrears a "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) a.owner "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery no_arrears_query = {
	"DELETE FROM entanglement.arrears a USING entanglement.owner o "
	"WHERE o.no OPERATOR(pg_catalog.=) a.owner AND o.peer OPERATOR(pg_catalog.=) $1 "
	"AND a.rel OPERATOR(pg_catalog.<>) ALL ($2) RETURNING a.owner",
	2, {INT4OID, INT4ARRAYOID}, NULL
};
static EntQuery paid_query = {
	"DELETE FROM entanglement.arrears WHERE owner OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.=) $2 AND round OPERATOR(pg_catalog.=) $3",
	3, {INT4OID, INT4OID, INT8OID}, NULL
};

/* What the sender was asked for on this connection. */
typedef struct AskedKey
{
	uint32		owner;			/* the sender's number */
	int32		rel;			/* ours */
} AskedKey;

typedef struct Asked
{
	AskedKey	key;			/* hash key */
	int64		round;			/* of the note */
	uint64		in;				/* number of the answer that asked */
} Asked;

HTAB *
ent_inbound_asked_create(MemoryContext context)
{
	HASHCTL		ctl = {.keysize = sizeof(AskedKey), .entrysize = sizeof(Asked),
	.hcxt = context};

	return hash_create("entanglement arrears asked for", 64, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
ent_inbound_forget_asked(EntInbound *ib, EntInOwner *in)
{
	HASH_SEQ_STATUS seq;
	Asked	   *asked;

	hash_seq_init(&seq, ib->asked);
	while ((asked = hash_seq_search(&seq)) != NULL)
		if (asked->key.owner == in->number)
			hash_search(ib->asked, &asked->key, HASH_REMOVE, NULL);
	in->beyond_epoch = 0;
	in->behind = false;
	ib->arrears_due = true;
}

/* ---- asking ---- */

/*
 * Has the peer come as far as what is here by another way? Before that it cannot say
 * of all of it whether it is to be had. epoch, serial: how far it has come; newest: of
 * the objects here.
 */
static bool
has_come(EntInOwner *in, int32 epoch, int64 serial, int64 newest)
{
	if (in->beyond_epoch != epoch)
	{
		in->beyond_epoch = epoch;
		in->beyond = newest;
	}
	in->behind |= serial < in->beyond;
	return serial >= in->beyond;
}

static EntInTable *
table_of(EntInbound *ib, int32 rel)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known && t->rel == rel)
		{
			hash_seq_term(&seq);
			return t;
		}
	return NULL;
}

/* Arrears in tables this peer does not offer cannot be paid by it. */
static void
forget_unpayable(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;
	Datum	   *rels = palloc((hash_get_num_entries(ib->tables) + 1) * sizeof(Datum));
	int			n = 0;
	Datum		args[2] = {Int32GetDatum(ib->peer)};
	int32	   *owners;
	uint64		forgotten;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known)
			rels[n++] = Int32GetDatum(t->rel);
	args[1] = ent_query_array(INT4OID, rels, NULL, n);
	ent_query_run(&no_arrears_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
	forgotten = SPI_processed;
	owners = palloc((forgotten + 1) * sizeof(int32));
	for (uint64 row = 0; row < forgotten; row++)
		owners[row] = ent_query_int4(row, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	for (uint64 row = 0; row < forgotten; row++)
		ent_inbound_may_claim(owners[row]);
}

/* Asks for one table of an owner, unless that is under way already. */
static void
ask(EntInbound *ib, EntWriter *w, EntInOwner *in, EntInTable *t, int64 round)
{
	AskedKey	key = {in->number, t->rel};
	EntWireArrears a = {.owner = in->number, .table = t->number};
	bool		found;
	Asked	   *asked = hash_search(ib->asked, &key, HASH_ENTER, &found);

	if (found && asked->round == round && !t->fresh)
		return;
	asked->round = round;
	asked->in = ib->number;
	ent_wire_write_arrears(w, ENT_SECTION_ARREARS, &a);
}

void
ent_inbound_ask_arrears(EntInbound *ib, EntWriter *w)
{
	HASH_SEQ_STATUS seq,
				owners;
	EntInTable *table;
	EntInOwner *in;
	Datum		args[1] = {Int32GetDatum(ib->peer)};

	forget_unpayable(ib);
	hash_seq_init(&owners, ib->owners);
	while ((in = hash_seq_search(&owners)) != NULL)
		in->behind = false;
	ent_query_run(&arrears_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		null;
		EntInTable *t = table_of(ib, ent_query_int4(row, 2, NULL));

		in = ent_inbound_owner_of(ib, DatumGetUUIDP(ent_query_datum(row, 1, &null)));
		if (in != NULL && in->wanted && t != NULL &&
			has_come(in, ent_query_int4(row, 4, NULL), ent_query_int8(row, 5, NULL),
					 ent_query_int8(row, 6, NULL)))
			ask(ib, w, in, t, ent_query_int8(row, 3, NULL));
	}
	SPI_freetuptable(SPI_tuptable);
	hash_seq_init(&seq, ib->tables);
	while ((table = hash_seq_search(&seq)) != NULL)
		table->fresh = false;
	ib->arrears_due = false;
}

/* ---- getting ---- */

/*
 * The sender has told all. It may do so without having been asked, when it
 * was resynchronized; then this is no news.
 */
void
ent_inbound_take_arrears_done(EntInbound *ib, EntReader *body)
{
	EntWireArrears done;
	EntInTable *t;
	EntInOwner *in;
	Asked	   *asked;
	AskedKey	key;
	Datum		args[3];

	ent_wire_read_arrears(body, &done);
	ent_inbound_check(body, "arrears done");
	in = hash_search(ib->owners, &done.owner, HASH_FIND, NULL);
	t = ent_inbound_announced_table(ib, done.table);
	if (in == NULL || in->no == 0 || !in->wanted || !t->known)
		return;
	key.owner = in->number;
	key.rel = t->rel;
	asked = hash_search(ib->asked, &key, HASH_FIND, NULL);
	/* it may also have been done before the sender heard that it is to do it */
	if (asked == NULL || ib->heard < asked->in)
		return;
	args[0] = Int32GetDatum(in->no);
	args[1] = Int32GetDatum(t->rel);
	args[2] = Int64GetDatum(asked->round);
	ent_query_run(&paid_query, args, NULL, SPI_OK_DELETE, NULL);
	hash_search(ib->asked, &key, HASH_REMOVE, NULL);
	ib->arrears_due = true;		/* it may be needed once more */
	ent_inbound_may_claim(in->no);
}
