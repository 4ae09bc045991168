/*
 * store/seek.c
 *	  entanglement.seek.
 *
 * A local owner's row is never updated, only deleted by the fold that serves
 * it: a fold sees one snapshot, and would fail on a row that changed since.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/wake.h"
#include "store/catalog.h"
#include "store/query.h"
#include "store/seek.h"

static EntQuery note_local_query = {
	"INSERT INTO entanglement.seek (owner, local, epoch, serial) "
	"VALUES ($1, true, $2, $3) ON CONFLICT DO NOTHING",
	3, {INT4OID, INT4OID, INT8OID}, NULL
};
static EntQuery note_query = {
	"INSERT INTO entanglement.seek AS s (owner, local, epoch, serial) "
	"VALUES ($1, false, $2, $3) ON CONFLICT (owner) DO UPDATE "
	"SET epoch = EXCLUDED.epoch, serial = EXCLUDED.serial "
	"WHERE (s.epoch, s.serial) OPERATOR(pg_catalog.<) (EXCLUDED.epoch, EXCLUDED.serial)",
	3, {INT4OID, INT4OID, INT8OID}, NULL
};
static EntQuery through_query = {
	"SELECT o.id, s.epoch, s.serial FROM entanglement.seek s "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) s.owner "
	"WHERE NOT s.local AND o.peer OPERATOR(pg_catalog.=) $1 "
	"AND (s.epoch, s.serial) OPERATOR(pg_catalog.>=) (o.epoch, o.told)",
	1, {INT4OID}, NULL
};
static EntQuery take_local_query = {
	"DELETE FROM entanglement.seek WHERE local RETURNING owner",
	0, {0}, NULL
};

void
ent_seek_note(const EntOwner *o, int32 epoch, int64 serial)
{
	Datum		args[3] = {Int32GetDatum(o->no), Int32GetDatum(epoch),
	Int64GetDatum(serial)};

	if (o->local && (epoch != o->epoch || serial > o->serial))
		return;
	ent_query_run(o->local ? &note_local_query : &note_query, args, NULL,
				  SPI_OK_INSERT, NULL);
	if (SPI_processed == 0)
		return;
	if (o->local)
		ent_wake_collector_at_commit();
	else
		ent_wake_routes_at_commit();
}

List *
ent_seek_through(int32 peer)
{
	Datum		args[1] = {Int32GetDatum(peer)};
	List	   *result = NIL;

	ent_query_run(&through_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntSeek    *s = palloc(sizeof(EntSeek));
		bool		null;

		s->owner = *DatumGetUUIDP(ent_query_datum(row, 1, &null));
		s->epoch = ent_query_int4(row, 2, NULL);
		s->serial = ent_query_int8(row, 3, NULL);
		result = lappend(result, s);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

bool
ent_seek_any_local(void)
{
	return ent_catalog_any(ENT_CATALOG_SEEK, ENT_CATALOG_SEEK_LOCAL);
}

List *
ent_seek_take_local(void)
{
	List	   *result = NIL;

	ent_query_run(&take_local_query, NULL, NULL, SPI_OK_DELETE_RETURNING, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
		result = lappend_int(result, ent_query_int4(row, 1, NULL));
	SPI_freetuptable(SPI_tuptable);
	return result;
}
