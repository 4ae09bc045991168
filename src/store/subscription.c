/*
 * store/subscription.c
 *	  What is wanted from peers, and what they have said they want.
 *
 * Place: store. A peer's wishes are kept, since they also count for who asks
 * on another connection (verify) and must be known before anything is sent;
 * written only when they differ from what is kept.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "store/query.h"
#include "store/subscription.h"

static EntQuery set_query = {
	"INSERT INTO entanglement.subscription AS s (peer, relid, filter) VALUES ($1, $2, $3) "
	"ON CONFLICT (peer, relid) DO UPDATE SET filter = EXCLUDED.filter, "
	"round = DEFAULT, sqlstate = NULL, message = NULL",
	3, {INT4OID, REGCLASSOID, TEXTOID}, NULL
};
static EntQuery drop_query = {
	"DELETE FROM entanglement.subscription WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND relid OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, REGCLASSOID}, NULL
};
static EntQuery all_query = {
	"SELECT r.no, s.round, s.filter, s.sqlstate, s.message FROM entanglement.subscription s "
	"LEFT JOIN entanglement.relation r ON r.relid OPERATOR(pg_catalog.=) s.relid "
	"WHERE s.peer OPERATOR(pg_catalog.=) $1 ORDER BY r.no",
	1, {INT4OID}, NULL
};
static EntQuery judged_query = {
	"UPDATE entanglement.subscription s SET sqlstate = $4, message = $5 "
	"FROM entanglement.relation r WHERE r.no OPERATOR(pg_catalog.=) $2 "
	"AND s.relid OPERATOR(pg_catalog.=) r.relid AND s.peer OPERATOR(pg_catalog.=) $1 "
	"AND s.round OPERATOR(pg_catalog.=) $3 "
	"AND (s.sqlstate IS NULL OR s.sqlstate OPERATOR(pg_catalog.<>) $4 "
	"OR COALESCE(s.message, '') OPERATOR(pg_catalog.<>) COALESCE($5, ''))",
	5, {INT4OID, INT4OID, INT8OID, TEXTOID, TEXTOID}, NULL
};
static EntQuery wanted_query = {
	"SELECT rel, round, filter, sqlstate, message FROM entanglement.wanted "
	"WHERE peer OPERATOR(pg_catalog.=) $1 ORDER BY rel",
	1, {INT4OID}, NULL
};
static EntQuery wanted_one_query = {
	"SELECT rel, round, filter, sqlstate, message FROM entanglement.wanted "
	"WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND (rel OPERATOR(pg_catalog.=) 0 OR rel OPERATOR(pg_catalog.=) $2) ORDER BY rel",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery unwant_query = {
	"DELETE FROM entanglement.wanted WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.<>) ALL ($2)",
	2, {INT4OID, INT4ARRAYOID}, NULL
};
static EntQuery want_query = {
	"INSERT INTO entanglement.wanted AS w (peer, rel, round, filter) VALUES ($1, $2, $3, $4) "
	"ON CONFLICT (peer, rel) DO UPDATE SET round = EXCLUDED.round, "
	"filter = EXCLUDED.filter, sqlstate = NULL, message = NULL",
	4, {INT4OID, INT4OID, INT8OID, TEXTOID}, NULL
};
static EntQuery judge_query = {
	"UPDATE entanglement.wanted SET sqlstate = $4, message = $5 "
	"WHERE peer OPERATOR(pg_catalog.=) $1 AND rel OPERATOR(pg_catalog.=) $2 "
	"AND round OPERATOR(pg_catalog.=) $3",
	5, {INT4OID, INT4OID, INT8OID, TEXTOID, TEXTOID}, NULL
};

static Datum
text_or_null(const char *s, char *null)
{
	*null = s ? ' ' : 'n';
	return s ? CStringGetTextDatum(s) : (Datum) 0;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Those with a table; *selective: there are rows at all. */
static List *
read_wishes(bool *selective)
{
	List	   *wishes = NIL;

	*selective = SPI_processed > 0;
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntWish    *wish = palloc0(sizeof(EntWish));
		char	   *sqlstate = ent_query_text(row, 4);

		wish->rel = ent_query_int4(row, 1, NULL);
		wish->round = ent_query_int8(row, 2, NULL);
		wish->filter = ent_query_text(row, 3);
		if (sqlstate)
			strlcpy(wish->sqlstate, sqlstate, sizeof(wish->sqlstate));
		wish->message = ent_query_text(row, 5);
		if (wish->rel != 0)
			wishes = lappend(wishes, wish);
	}
	SPI_freetuptable(SPI_tuptable);
	return wishes;
}

/* ---- ours ---- */

void
ent_subscription_set(int32 peer, Oid relid, const char *filter)
{
	char		nulls[] = "   ";
	Datum		args[3] = {Int32GetDatum(peer), ObjectIdGetDatum(relid),
	text_or_null(filter, &nulls[2])};

	ent_query_run(&set_query, args, nulls, SPI_OK_INSERT, NULL);
}

bool
ent_subscription_drop(int32 peer, Oid relid)
{
	Datum		args[2] = {Int32GetDatum(peer), ObjectIdGetDatum(relid)};

	ent_query_run(&drop_query, args, NULL, SPI_OK_DELETE, NULL);
	return SPI_processed > 0;
}

List *
ent_subscription_all(int32 peer, bool *selective)
{
	Datum		args[1] = {Int32GetDatum(peer)};

	ent_query_run(&all_query, args, NULL, SPI_OK_SELECT, NULL);
	return read_wishes(selective);
}

void
ent_subscription_judged(int32 peer, int32 rel, int64 round,
						const char *sqlstate, const char *message)
{
	char		nulls[] = "     ";
	Datum		args[5] = {Int32GetDatum(peer), Int32GetDatum(rel),
		Int64GetDatum(round), CStringGetTextDatum(sqlstate),
	text_or_null(message, &nulls[4])};

	ent_query_run(&judged_query, args, nulls, SPI_OK_UPDATE, NULL);
}

/* ---- theirs ---- */

static void
want(int32 peer, int32 rel, int64 round, const char *filter)
{
	char		nulls[] = "    ";
	Datum		args[4] = {Int32GetDatum(peer), Int32GetDatum(rel),
	Int64GetDatum(round), text_or_null(filter, &nulls[3])};

	ent_query_run(&want_query, args, nulls, SPI_OK_INSERT, NULL);
}

static bool
unwant_others(int32 peer, bool selective, List *wishes)
{
	Datum	   *rels = palloc((list_length(wishes) + 1) * sizeof(Datum));
	Datum		args[2] = {Int32GetDatum(peer)};
	int			n = 0;
	ListCell   *lc;

	if (selective)
		rels[n++] = Int32GetDatum(0);
	foreach(lc, wishes)
		rels[n++] = Int32GetDatum(((EntWish *) lfirst(lc))->rel);
	args[1] = ent_query_array(INT4OID, rels, NULL, n);
	ent_query_run(&unwant_query, args, NULL, SPI_OK_DELETE, NULL);
	return SPI_processed > 0;
}

static EntWish *
find(List *wishes, int32 rel)
{
	ListCell   *lc;

	foreach(lc, wishes)
		if (((EntWish *) lfirst(lc))->rel == rel)
			return lfirst(lc);
	return NULL;
}

bool
ent_wanted_set(int32 peer, bool selective, List *wishes)
{
	bool		was_selective;
	List	   *was = ent_wanted_all(peer, &was_selective);
	bool		changed;
	ListCell   *lc;

	if (!selective)
		wishes = NIL;
	changed = was != NIL || was_selective ?
		unwant_others(peer, selective, wishes) : false;
	if (selective && !was_selective)
	{
		want(peer, 0, 0, NULL);
		changed = true;
	}
	foreach(lc, wishes)
	{
		EntWish    *wish = lfirst(lc);
		EntWish    *old = find(was, wish->rel);

		if (old && old->round == wish->round && same_text(old->filter, wish->filter))
			continue;
		want(peer, wish->rel, wish->round, wish->filter);
		changed = true;
	}
	return changed;
}

bool
ent_wanted_get(int32 peer, int32 rel, EntWish **wish)
{
	Datum		args[2] = {Int32GetDatum(peer), Int32GetDatum(rel)};
	bool		selective;
	List	   *wishes;

	ent_query_run(&wanted_one_query, args, NULL, SPI_OK_SELECT, NULL);
	wishes = read_wishes(&selective);
	*wish = wishes == NIL ? NULL : linitial(wishes);
	return !selective || *wish != NULL;
}

List *
ent_wanted_all(int32 peer, bool *selective)
{
	Datum		args[1] = {Int32GetDatum(peer)};

	ent_query_run(&wanted_query, args, NULL, SPI_OK_SELECT, NULL);
	return read_wishes(selective);
}

void
ent_wanted_judge(int32 peer, EntWish *wish, const char *sqlstate,
				 const char *message)
{
	char		nulls[] = "     ";
	Datum		args[5] = {Int32GetDatum(peer), Int32GetDatum(wish->rel),
		Int64GetDatum(wish->round), CStringGetTextDatum(sqlstate),
	text_or_null(message, &nulls[4])};

	if (strcmp(wish->sqlstate, sqlstate) == 0 && same_text(wish->message, message))
		return;
	ent_query_run(&judge_query, args, nulls, SPI_OK_UPDATE, NULL);
	strlcpy(wish->sqlstate, sqlstate, sizeof(wish->sqlstate));
	wish->message = message ? pstrdup(message) : NULL;
}
