/*
 * store/journal.c
 *	  entanglement.journal: versions that newer ones have replaced.
 *
 * Fold writes those of local owners, apply those of others. Writers never wait
 * for it nor fail because of it: the collector gives up what does not fit.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "base/guc.h"
#include "store/journal.h"
#include "store/peer.h"
#include "store/query.h"

static EntQuery wanted_query = {
	"SELECT 1 FROM entanglement.peer WHERE no OPERATOR(pg_catalog.<>) $1 LIMIT 1",
	1, {INT4OID}, NULL
};
static EntQuery add_query = {
	"INSERT INTO entanglement.journal "
	"(rel, owner, epoch, serial, born, key, column_serials, image) "
	"SELECT u.rel, u.owner, u.epoch, u.serial, u.born, u.key, u.columns, u.image "
	"FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) "
	"AS u(rel, owner, epoch, serial, born, key, columns, image) ON CONFLICT DO NOTHING",
	8, {INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
	BYTEAARRAYOID, BYTEAARRAYOID, BYTEAARRAYOID}, NULL
};
static EntQuery add_graves_query = {
	"INSERT INTO entanglement.journal (rel, owner, epoch, serial, born, key, column_serials) "
	"SELECT t.rel, t.owner, t.epoch, t.serial, 0, t.key, '' "
	"FROM unnest($1, $2, $3) AS u(rel, owner, key), LATERAL ("
	"SELECT t.* FROM entanglement.tombstone t "
	"WHERE t.owner OPERATOR(pg_catalog.=) u.owner AND t.rel OPERATOR(pg_catalog.=) u.rel "
	"AND t.key OPERATOR(pg_catalog.=) u.key AND t.heir IS NULL OFFSET 0) t "
	"ON CONFLICT DO NOTHING",
	3, {INT4ARRAYOID, INT4ARRAYOID, BYTEAARRAYOID}, NULL
};
static EntQuery next_query = {
	"SELECT u.n, j.epoch, j.serial, j.born, j.column_serials, j.image "
	"FROM unnest($2, $3, $4) WITH ORDINALITY AS u(key, owner, since, n), "
	"LATERAL (SELECT j.* FROM entanglement.journal j "
	"WHERE j.rel OPERATOR(pg_catalog.=) $1 AND j.key OPERATOR(pg_catalog.=) u.key "
	"AND j.owner OPERATOR(pg_catalog.=) u.owner AND j.serial OPERATOR(pg_catalog.>) u.since "
	"AND j.epoch OPERATOR(pg_catalog.=) (SELECT o.epoch FROM entanglement.owner o "
	"WHERE o.no OPERATOR(pg_catalog.=) u.owner) ORDER BY j.serial LIMIT 1) j",
	4, {INT4OID, BYTEAARRAYOID, INT4ARRAYOID, INT8ARRAYOID}, NULL
};
/* As tombstones (worker/prune.c), but for those that never told what they have. */
static EntQuery prune_query = {
	"WITH RECURSIVE " ENT_PEER_HOLDERS("entanglement.journal", "t.owner") ", " ENT_PEER_HEARD
	"DELETE FROM entanglement.journal j USING heard h "
	"WHERE j.owner OPERATOR(pg_catalog.=) h.no "
	"AND (j.serial OPERATOR(pg_catalog.<=) h.upto "
	"OR j.epoch OPERATOR(pg_catalog.<) h.epoch)",
	0, {0}, NULL
};

#define STATE_BYTES \
	"(200 OPERATOR(pg_catalog.+) pg_catalog.octet_length(j.key) " \
	"OPERATOR(pg_catalog.+) pg_catalog.octet_length(j.column_serials) " \
	"OPERATOR(pg_catalog.+) COALESCE(pg_catalog.octet_length(j.image), 0))::pg_catalog.int8"

static EntQuery size_query = {
	"SELECT COALESCE(pg_catalog.sum(" STATE_BYTES "), 0)::pg_catalog.int8 "
	"FROM entanglement.journal j",
	0, {0}, NULL
};
/* The newest states that fit stay; who lacked the others is noted. */
static EntQuery trim_query = {
	"WITH cut AS (SELECT pg_catalog.max(s.no) AS no FROM ("
	"SELECT j.no, pg_catalog.sum(" STATE_BYTES ") OVER (ORDER BY j.no DESC) AS bytes "
	"FROM entanglement.journal j) s WHERE s.bytes OPERATOR(pg_catalog.>) $1), "
	"given AS (DELETE FROM entanglement.journal j USING cut "
	"WHERE j.no OPERATOR(pg_catalog.<=) cut.no RETURNING j.rel, j.owner, j.epoch, j.serial), "
	"lost AS (SELECT p.no AS peer, g.rel, pg_catalog.count(*) AS states FROM given g "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) g.owner "
	"JOIN entanglement.peer p ON o.peer IS NULL OR p.no OPERATOR(pg_catalog.<>) o.peer "
	"LEFT JOIN entanglement.peer_owner h ON h.peer OPERATOR(pg_catalog.=) p.no "
	"AND h.owner OPERATOR(pg_catalog.=) g.owner AND h.epoch OPERATOR(pg_catalog.=) g.epoch "
	"WHERE g.epoch OPERATOR(pg_catalog.=) o.epoch "
	"AND COALESCE(h.have, 0) OPERATOR(pg_catalog.<) g.serial GROUP BY p.no, g.rel), "
	"noted AS (INSERT INTO entanglement.journal_loss AS l (peer, rel, states, latest) "
	"SELECT peer, rel, states, pg_catalog.now() FROM lost "
	"ON CONFLICT (peer, rel) DO UPDATE SET latest = EXCLUDED.latest, "
	"states = l.states OPERATOR(pg_catalog.+) EXCLUDED.states) "
	"SELECT COALESCE(pg_catalog.sum(states), 0)::pg_catalog.int8 FROM lost",
	1, {INT8OID}, NULL
};

static EntQuery table_size_query = {
	"SELECT pg_catalog.pg_table_size('entanglement.journal'::pg_catalog.regclass)",
	0, {0}, NULL
};

struct EntJournal
{
	EntState   *states;
	int			n;
	int			max;
	EntState   *graves;
	int			ngraves;
	int			max_graves;
};

/* What this process knows of its size; others add to it until it is measured. */
static int64 bytes_known = 0;
static bool measured = false;

static int64
limit_bytes(void)
{
	return (int64) ent_journal_limit * 1024;
}

bool
ent_journal_wanted(int32 but_peer)
{
	Datum		args[1] = {Int32GetDatum(but_peer)};
	bool		any;

	ent_query_run(&wanted_query, args, NULL, SPI_OK_SELECT, NULL);
	any = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return any;
}

/* ---- writing ---- */

EntJournal *
ent_journal_create(void)
{
	return palloc0(sizeof(EntJournal));
}

static void
append(EntState **states, int *n, int *max, const EntState *state)
{
	if (*n == *max)
	{
		*max = *max == 0 ? 16 : *max * 2;
		*states = *states == NULL ? palloc(*max * sizeof(EntState)) :
			repalloc_huge(*states, *max * sizeof(EntState));
	}
	(*states)[(*n)++] = *state;
}

void
ent_journal_add(EntJournal *j, const EntState *state)
{
	append(&j->states, &j->n, &j->max, state);
}

void
ent_journal_add_grave(EntJournal *j, int32 rel, int32 owner, bytea *key)
{
	EntState	state = {.rel = rel, .owner = owner, .key = key};

	append(&j->graves, &j->ngraves, &j->max_graves, &state);
}

static void
write_states(EntJournal *j)
{
	static const Oid types[8] = {INT4OID, INT4OID, INT4OID, INT8OID, INT8OID,
	BYTEAOID, BYTEAOID, BYTEAOID};
	Datum	   *v[8];
	Datum		args[8];
	bool	   *dead = palloc(j->n * sizeof(bool));
	bytea	   *none = palloc(VARHDRSZ);

	SET_VARSIZE(none, VARHDRSZ);
	for (int c = 0; c < 8; c++)
		v[c] = palloc(j->n * sizeof(Datum));
	for (int i = 0; i < j->n; i++)
	{
		EntState   *s = &j->states[i];

		v[0][i] = Int32GetDatum(s->rel);
		v[1][i] = Int32GetDatum(s->owner);
		v[2][i] = Int32GetDatum(s->epoch);
		v[3][i] = Int64GetDatum(s->serial);
		v[4][i] = Int64GetDatum(s->born);
		v[5][i] = PointerGetDatum(s->key);
		v[6][i] = PointerGetDatum(s->columns ? s->columns : none);
		v[7][i] = PointerGetDatum(s->image);
		dead[i] = s->image == NULL;
		bytes_known += 200 + VARSIZE_ANY(s->key) + (s->image ? VARSIZE_ANY(s->image) : 0);
	}
	for (int c = 0; c < 8; c++)
		args[c] = ent_query_array(types[c], v[c], c == 7 ? dead : NULL, j->n);
	ent_query_run(&add_query, args, NULL, SPI_OK_INSERT, NULL);
}

static void
write_graves(EntJournal *j)
{
	static const Oid types[3] = {INT4OID, INT4OID, BYTEAOID};
	Datum	   *v[3];
	Datum		args[3];

	for (int c = 0; c < 3; c++)
		v[c] = palloc(j->ngraves * sizeof(Datum));
	for (int i = 0; i < j->ngraves; i++)
	{
		v[0][i] = Int32GetDatum(j->graves[i].rel);
		v[1][i] = Int32GetDatum(j->graves[i].owner);
		v[2][i] = PointerGetDatum(j->graves[i].key);
	}
	for (int c = 0; c < 3; c++)
		args[c] = ent_query_array(types[c], v[c], NULL, j->ngraves);
	ent_query_run(&add_graves_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_journal_write(EntJournal *j)
{
	/* an object's states in their order, and its death before its next life */
	if (j->ngraves > 0)
		write_graves(j);
	if (j->n > 0)
		write_states(j);
	j->n = j->ngraves = 0;
}

/* ---- reading ---- */

void
ent_journal_next(int32 rel, Datum keys, Datum owners, Datum sinces,
				 Snapshot snapshot, EntState *states, bool *found)
{
	Datum		args[4] = {Int32GetDatum(rel), keys, owners, sinces};

	ent_query_run(&next_query, args, NULL, SPI_OK_SELECT, snapshot);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int			i = ent_query_int8(row, 1, NULL) - 1;
		EntState   *s = &states[i];
		bool		null;
		Datum		image;

		found[i] = true;
		s->rel = rel;
		s->epoch = ent_query_int4(row, 2, NULL);
		s->serial = ent_query_int8(row, 3, NULL);
		s->born = ent_query_int8(row, 4, NULL);
		s->columns = DatumGetByteaPCopy(ent_query_datum(row, 5, &null));
		image = ent_query_datum(row, 6, &null);
		s->image = null ? NULL : DatumGetByteaPCopy(image);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* ---- bounds ---- */

void
ent_journal_prune(void)
{
	ent_query_run(&prune_query, NULL, NULL, SPI_OK_DELETE, NULL);
	if (SPI_processed > 0)
		measured = false;
	/* apply adds to it in other processes */
	ent_query_run(&table_size_query, NULL, NULL, SPI_OK_SELECT, NULL);
	measured &= ent_query_int8(0, 1, NULL) <= limit_bytes();
	SPI_freetuptable(SPI_tuptable);
	if (ent_journal_is_full())
		ent_journal_trim();
}

bool
ent_journal_is_full(void)
{
	return !measured || bytes_known > limit_bytes();
}

static void
measure(void)
{
	ent_query_run(&size_query, NULL, NULL, SPI_OK_SELECT, NULL);
	bytes_known = ent_query_int8(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	measured = true;
}

void
ent_journal_trim(void)
{
	Datum		args[1] = {Int64GetDatum(limit_bytes() / 10 * 9)};
	int64		lost;

	measure();
	if (bytes_known <= limit_bytes())
		return;
	ent_query_run(&trim_query, args, NULL, SPI_OK_SELECT, NULL);
	lost = ent_query_int8(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	measured = false;
	if (lost > 0)
		ereport(WARNING,
				(errmsg("the journal has reached entanglement.journal_limit"),
				 errdetail("Peers that are away will not receive %lld states that newer ones have replaced.",
						   (long long) lost),
				 errhint("See entanglement.lost_states; raise entanglement.journal_limit, or drop peers that do not come back.")));
}
