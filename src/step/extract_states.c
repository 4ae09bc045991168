/*
 * step/extract_states.c
 *	  Objects of tables of which no committed state is left out, state by state.
 *
 * What a newer version has replaced is in the journal. The newest version is in
 * the user's table, unless somebody has replaced it there and that has not been
 * folded: then the log has what he replaced. All is of one snapshot.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "rule/colserial.h"
#include "step/extract.h"
#include "store/image.h"
#include "store/journal.h"
#include "store/query.h"

/* The first change of each object that has not been folded. */
static EntQuery replaced_query = {
	"SELECT u.n, r.image FROM pg_catalog.unnest($2) WITH ORDINALITY AS u(key, n) "
	"JOIN (SELECT DISTINCT ON (c.key) c.key, c.image FROM entanglement.change c "
	"WHERE c.rel OPERATOR(pg_catalog.=) $1 AND c.key OPERATOR(pg_catalog.=) ANY ($2) "
	"AND c.place IS NOT NULL ORDER BY c.key, (c.image IS NULL), c.place) r "
	"ON r.key OPERATOR(pg_catalog.=) u.key WHERE r.image IS NOT NULL",
	2, {INT4OID, BYTEAARRAYOID}, NULL
};
static EntQuery version_query = {
	"SELECT epoch, serial, born, column_serials FROM entanglement.object "
	"WHERE rel OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 "
	"AND owner OPERATOR(pg_catalog.=) $3 AND born OPERATOR(pg_catalog.>) 0",
	3, {INT4OID, BYTEAOID, INT4OID}, NULL
};

typedef struct Job
{
	EntRelation *rel;
	const EntExtractFor *whom;
	Snapshot	snapshot;
	EntExtract *items;
	int			n;
	Datum	   *keys;
	bool	   *done;
} Job;

static bytea *
key_image(const EntExtract *x)
{
	bytea	   *b = palloc(VARHDRSZ + x->keylen);

	SET_VARSIZE(b, VARHDRSZ + x->keylen);
	memcpy(VARDATA(b), x->key, x->keylen);
	return b;
}

/* What of this state the peer lacks; as extract.c decides of the newest one. */
static void
decide(Job *j, EntExtract *x, const EntState *s)
{
	EntRelation *rel = j->rel;
	int64	   *v = palloc(rel->natts * sizeof(int64));

	x->kind = x->since <= 0 || s->born > x->since ? ENT_EXTRACT_FULL : ENT_EXTRACT_DELTA;
	x->set = palloc0(rel->ncolumns * sizeof(bool));
	x->values = palloc0(rel->ncolumns * sizeof(Datum));
	x->nulls = palloc0(rel->ncolumns * sizeof(bool));
	ent_colserial_unpack((uint8 *) VARDATA_ANY(s->columns),
						 VARSIZE_ANY_EXHDR(s->columns), s->serial, s->born, v,
						 rel->natts);
	for (int c = 0; c < rel->ncolumns; c++)
		x->set[c] = j->whom->may[c] && !rel->columns[c].in_key_only &&
			(x->kind == ENT_EXTRACT_FULL ||
			 v[rel->columns[c].attnum - 1] > x->since);
	if (x->kind == ENT_EXTRACT_DELTA)
		x->base = ent_colserial_base(v, rel->natts, x->since);
	pfree(v);
}

/*
 * Answers with that state; false when it cannot be told any more, because the
 * table has other columns by now.
 */
static bool
answer(Job *j, EntExtract *x, const EntState *s)
{
	x->epoch = s->epoch;
	x->serial = s->serial;
	if (s->image == NULL)
	{
		x->kind = ENT_EXTRACT_DEAD;
		return true;
	}
	decide(j, x, s);
	x->raw = palloc0(j->rel->ncolumns * sizeof(char *));
	x->rawlen = palloc0(j->rel->ncolumns * sizeof(size_t));
	if (!ent_image_read(j->rel, s->image, x->set, x->raw, x->rawlen))
	{
		x->kind = ENT_EXTRACT_NOTHING;
		x->raw = NULL;
		return false;
	}
	for (int c = 0; c < j->rel->ncolumns; c++)
		x->nulls[c] = x->raw[c] == NULL;
	return true;
}

/* Answers those that have a next state in the journal. */
static void
read_journal(Job *j)
{
	Datum	   *keys = palloc(j->n * sizeof(Datum)),
			   *owners = palloc(j->n * sizeof(Datum)),
			   *sinces = palloc(j->n * sizeof(Datum));
	int		   *index = palloc(j->n * sizeof(int));
	int64	   *since = palloc(j->n * sizeof(int64));
	EntState   *states = palloc(j->n * sizeof(EntState));
	bool	   *found = palloc(j->n * sizeof(bool));
	bool		again = true;

	for (int i = 0; i < j->n; i++)
		since[i] = j->items[i].after;
	while (again)
	{
		int			m = 0;

		again = false;
		for (int i = 0; i < j->n; i++)
		{
			if (j->done[i])
				continue;
			keys[m] = j->keys[i];
			owners[m] = Int32GetDatum(j->items[i].owner);
			sinces[m] = Int64GetDatum(since[i]);
			index[m++] = i;
		}
		if (m == 0)
			return;
		memset(found, 0, m * sizeof(bool));
		ent_journal_next(j->rel->no, ent_query_array(BYTEAOID, keys, NULL, m),
						 ent_query_array(INT4OID, owners, NULL, m),
						 ent_query_array(INT8OID, sinces, NULL, m),
						 j->snapshot, states, found);
		for (int i = 0; i < m; i++)
		{
			EntExtract *x = &j->items[index[i]];

			if (!found[i])
				continue;
			x->more = j->done[index[i]] = answer(j, x, &states[i]);
			since[index[i]] = states[i].serial;
			again |= !x->more;
		}
	}
}

static bool
read_version(Job *j, int i, EntState *s)
{
	Datum		args[3] = {Int32GetDatum(j->rel->no), j->keys[i],
	Int32GetDatum(j->items[i].owner)};
	bool		found,
				null;

	ent_query_run(&version_query, args, NULL, SPI_OK_SELECT, j->snapshot);
	found = SPI_processed > 0;
	if (found)
	{
		s->epoch = ent_query_int4(0, 1, NULL);
		s->serial = ent_query_int8(0, 2, NULL);
		s->born = ent_query_int8(0, 3, NULL);
		s->columns = DatumGetByteaPCopy(ent_query_datum(0, 4, &null));
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * The newest version of these is not in the user's table any more, though what
 * is there has not been folded. The fold brings that.
 */
static void
read_replaced(Job *j)
{
	Datum		args[2] = {Int32GetDatum(j->rel->no),
	ent_query_array(BYTEAOID, j->keys, NULL, j->n)};
	SPITupleTable *rows;
	uint64		n;

	ent_query_run(&replaced_query, args, NULL, SPI_OK_SELECT, j->snapshot);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 row = 0; row < n; row++)
	{
		bool		null;
		int			i = DatumGetInt64(SPI_getbinval(rows->vals[row], rows->tupdesc, 1, &null)) - 1;
		EntState	s = {
			.image = DatumGetByteaPCopy(SPI_getbinval(rows->vals[row],
													  rows->tupdesc, 2, &null))
		};

		if (!j->done[i] && read_version(j, i, &s))
			j->done[i] = answer(j, &j->items[i], &s);
	}
	SPI_freetuptable(rows);
}

/* The rest is as the user's table has it. */
static void
read_newest(Job *j)
{
	EntExtract *rest = palloc(j->n * sizeof(EntExtract));
	int		   *index = palloc(j->n * sizeof(int));
	int			n = 0;

	for (int i = 0; i < j->n; i++)
	{
		if (j->done[i])
			continue;
		index[n] = i;
		rest[n++] = j->items[i];
	}
	if (n > 0)
		ent_extract(j->rel, j->whom, j->snapshot, rest, n);
	for (int i = 0; i < n; i++)
		j->items[index[i]] = rest[i];
}

void
ent_extract_states(EntRelation *rel, const EntExtractFor *whom,
				   Snapshot snapshot, EntExtract *items, int n)
{
	Job			j = {.rel = rel, .whom = whom, .snapshot = snapshot,
	.items = items, .n = n};

	if (whom->partial || whom->nothing || whom->filter != NULL)
	{
		ent_extract(rel, whom, snapshot, items, n);
		return;
	}
	j.keys = palloc(n * sizeof(Datum));
	j.done = palloc0(n * sizeof(bool));
	for (int i = 0; i < n; i++)
		j.keys[i] = PointerGetDatum(key_image(&items[i]));
	read_journal(&j);
	read_replaced(&j);
	read_newest(&j);
}
