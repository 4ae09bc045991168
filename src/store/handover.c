/*
 * store/handover.c
 *	  entanglement.handover: objects handed over and not folded yet.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/wake.h"
#include "rule/coalesce.h"
#include "store/catalog.h"
#include "store/changelog.h"
#include "store/handover.h"
#include "store/object.h"
#include "store/query.h"

static EntQuery make_query = {
	"INSERT INTO entanglement.handover (rel, key, heir) VALUES ($1, $2, $3)",
	3, {INT4OID, BYTEAOID, INT4OID}, NULL
};
static EntQuery take_query = {
	"WITH asked AS (SELECT u.rel, u.key, u.n FROM unnest($1, $2) "
	"WITH ORDINALITY AS u(rel, key, n)), "
	"gone AS (DELETE FROM entanglement.handover h USING asked u "
	"WHERE h.rel OPERATOR(pg_catalog.=) u.rel AND h.key OPERATOR(pg_catalog.=) u.key "
	"RETURNING u.n, u.rel, u.key, h.no, h.heir) "
	"SELECT g.n, o.no, o.local, o.epoch, CASE WHEN o.local THEN o.serial "
	"ELSE GREATEST(o.serial, o.told, (SELECT t.serial FROM entanglement.tombstone t "
	"WHERE t.owner OPERATOR(pg_catalog.=) o.no AND t.rel OPERATOR(pg_catalog.=) g.rel "
	"AND t.key OPERATOR(pg_catalog.=) g.key AND t.epoch OPERATOR(pg_catalog.=) o.epoch)) END "
	"FROM (SELECT DISTINCT ON (n) n, rel, key, heir FROM gone ORDER BY n, no DESC) g "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) g.heir",
	2, {INT4ARRAYOID, BYTEAARRAYOID}, NULL
};
static EntQuery grave_query = {
	"SELECT t.epoch, t.serial, t.heir, t.heir_epoch, t.heir_serial "
	"FROM entanglement.tombstone t WHERE t.owner OPERATOR(pg_catalog.=) $1 "
	"AND t.rel OPERATOR(pg_catalog.=) $2 AND t.key OPERATOR(pg_catalog.=) $3",
	3, {INT4OID, INT4OID, BYTEAOID}, NULL
};
static EntQuery believe_query = {
	"SELECT LEAST($3, GREATEST(o.serial, o.told, t.serial)) FROM entanglement.owner o "
	"LEFT JOIN entanglement.tombstone t ON t.owner OPERATOR(pg_catalog.=) o.no "
	"AND t.rel OPERATOR(pg_catalog.=) $2 AND t.key OPERATOR(pg_catalog.=) $4 "
	"AND t.epoch OPERATOR(pg_catalog.=) o.epoch WHERE o.no OPERATOR(pg_catalog.=) $1",
	4, {INT4OID, INT4OID, INT8OID, BYTEAOID}, NULL
};
static EntQuery inherited_query = {
	"INSERT INTO entanglement.inherited (rel, key, from_owner, from_epoch, from_serial) "
	"VALUES ($1, $2, $3, $4, $5) ON CONFLICT (rel, key) DO UPDATE "
	"SET from_owner = EXCLUDED.from_owner, from_epoch = EXCLUDED.from_epoch, "
	"from_serial = EXCLUDED.from_serial, delivered = '{}'",
	5, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID}, NULL
};
static EntQuery disinherit_query = {
	"DELETE FROM entanglement.inherited i USING unnest($1, $2) WITH ORDINALITY AS u(rel, key, n) "
	"WHERE i.rel OPERATOR(pg_catalog.=) u.rel AND i.key OPERATOR(pg_catalog.=) u.key "
	"RETURNING u.n, i.from_owner, i.from_epoch, i.from_serial",
	2, {INT4ARRAYOID, BYTEAARRAYOID}, NULL
};

static EntQuery delivered_query = {
	"UPDATE entanglement.inherited SET delivered = pg_catalog.array_append("
	"pg_catalog.array_remove(delivered, $3), $3) WHERE rel OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 "
	"AND from_owner OPERATOR(pg_catalog.=) $4",
	4, {INT4OID, BYTEAOID, INT4OID, INT4OID}, NULL
};
static EntQuery confirmed_query = {
	"DELETE FROM entanglement.inherited "
	"WHERE rel OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, BYTEAOID}, NULL
};

#define MAX_HEIRS	100			/* that followed each other */

void
ent_handover_make(int32 rel, bytea *key, int32 heir)
{
	Datum		args[3] = {Int32GetDatum(rel), PointerGetDatum(key),
	Int32GetDatum(heir)};

	if (!ent_object_owner_is_local(heir))
		ent_object_note_remote(rel);
	ent_query_run(&make_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_changelog_write(rel, heir, ENT_CHANGE_HANDOVER, key, NULL);
}

/* Calls look with each heir noted for the key, or in the table if it is NULL. */
static void
look_at_heirs(int32 no, bytea *key, void (*look) (int64 no, int32 heir, void *arg),
			  void *arg)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_HANDOVER);
	Relation	rel;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tup;

	if (!OidIsValid(relid))
		return;
	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&keys[0], ENT_HANDOVER_REL, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(no));
	if (key != NULL)
		ScanKeyInit(&keys[1], ENT_HANDOVER_KEY, BTEqualStrategyNumber,
					F_BYTEAEQ, PointerGetDatum(key));
	scan = systable_beginscan(rel, ent_catalog_oid(ENT_CATALOG_HANDOVER_KEY),
							  true, GetActiveSnapshot(), key ? 2 : 1, keys);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		null;

		look(DatumGetInt64(heap_getattr(tup, ENT_HANDOVER_NO, desc, &null)),
			 DatumGetInt32(heap_getattr(tup, ENT_HANDOVER_HEIR, desc, &null)),
			 arg);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

typedef struct Newest
{
	int64		no;
	int32		heir;
} Newest;

static void
keep_newest(int64 no, int32 heir, void *arg)
{
	Newest	   *newest = arg;

	if (no > newest->no)
	{
		newest->no = no;
		newest->heir = heir;
	}
}

int32
ent_handover_heir(int32 rel, bytea *key)
{
	Newest		newest = {0};

	look_at_heirs(rel, key, keep_newest, &newest);
	return newest.heir;
}

static void
keep_remote(int64 no, int32 heir, void *arg)
{
	if (!ent_object_owner_is_local(heir))
		*(int32 *) arg = heir;
}

int32
ent_handover_remote_in(int32 rel)
{
	int32		heir = 0;

	look_at_heirs(rel, NULL, keep_remote, &heir);
	return heir;
}

int
ent_handover_take(Datum rels, Datum keys, EntHandover **out)
{
	Datum		args[2] = {rels, keys};
	MemoryContext context = CurrentMemoryContext;
	int			n;

	ent_query_run(&take_query, args, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	*out = MemoryContextAllocZero(context, (n + 1) * sizeof(EntHandover));
	for (int i = 0; i < n; i++)
	{
		EntHandover *h = &(*out)[i];

		h->n = ent_query_int8(i, 1, NULL) - 1;
		h->heir = ent_query_int4(i, 2, NULL);
		h->local = ent_query_bool(i, 3);
		h->epoch = ent_query_int4(i, 4, NULL);
		h->serial = ent_query_int8(i, 5, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* True when the heir's tombstone is newer than the hand-over: where it leads. */
static bool
next_heir(int32 rel, bytea *key, EntHand *heir, Snapshot snapshot,
		  bool *deleted)
{
	Datum		args[3] = {Int32GetDatum(heir->owner), Int32GetDatum(rel),
	PointerGetDatum(key)};
	bool		since = false;

	ent_query_run(&grave_query, args, NULL, SPI_OK_SELECT, snapshot);
	if (SPI_processed > 0)
	{
		int32		epoch = ent_query_int4(0, 1, NULL);
		int64		serial = ent_query_int8(0, 2, NULL);

		since = epoch > heir->epoch ||
			(epoch == heir->epoch && serial > heir->serial);
	}
	if (since)
	{
		heir->owner = ent_query_int4(0, 3, deleted);
		heir->epoch = ent_query_int4(0, 4, NULL);
		heir->serial = ent_query_int8(0, 5, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
	return since;
}

bool
ent_handover_follow(int32 rel, bytea *key, EntHand *heir, Snapshot snapshot)
{
	bool		deleted = false;

	for (int i = 0; i < MAX_HEIRS && !deleted; i++)
		if (!next_heir(rel, key, heir, snapshot, &deleted))
			break;
	return !deleted;
}

int64
ent_handover_believable(int32 rel, bytea *key, const EntHand *heir)
{
	Datum		args[4] = {Int32GetDatum(heir->owner), Int32GetDatum(rel),
	Int64GetDatum(heir->serial), PointerGetDatum(key)};
	int64		serial = 0;

	ent_query_run(&believe_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		serial = ent_query_int8(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return serial;
}

void
ent_handover_inherited(int32 rel, bytea *key, EntHand from)
{
	Datum		args[5] = {Int32GetDatum(rel), PointerGetDatum(key),
		Int32GetDatum(from.owner), Int32GetDatum(from.epoch),
	Int64GetDatum(from.serial)};

	ent_query_run(&inherited_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_handover_delivered(int32 rel, bytea *key, int32 from, int32 peer)
{
	Datum		args[4] = {Int32GetDatum(rel), PointerGetDatum(key),
	Int32GetDatum(peer), Int32GetDatum(from)};

	ent_query_run(&delivered_query, args, NULL, SPI_OK_UPDATE, NULL);
}

void
ent_handover_confirmed(int32 rel, bytea *key)
{
	Datum		args[2] = {Int32GetDatum(rel), PointerGetDatum(key)};

	ent_query_run(&confirmed_query, args, NULL, SPI_OK_DELETE, NULL);
	ent_wake_requests_at_commit();
}

void
ent_handover_take_inherited(Datum rels, Datum keys, EntHand *from)
{
	Datum		args[2] = {rels, keys};

	ent_query_run(&disinherit_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntHand    *f = &from[ent_query_int8(row, 1, NULL) - 1];

		f->owner = ent_query_int4(row, 2, NULL);
		f->epoch = ent_query_int4(row, 3, NULL);
		f->serial = ent_query_int8(row, 4, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
}
