/*
 * store/life.c
 *	  The end of owners, and owners that change their home.
 *
 * A grave outlives its owner: whoever has not heard is told when he comes
 * back, and an old offer that goes around does not bring the owner back.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/ring.h"
#include "base/wake.h"
#include "rule/coalesce.h"
#include "store/changelog.h"
#include "store/epoch.h"
#include "store/life.h"
#include "store/object.h"
#include "store/query.h"
#include "store/request.h"

static EntQuery grave_query = {
	"SELECT id, home, epoch FROM entanglement.grave WHERE id OPERATOR(pg_catalog.=) $1",
	1, {UUIDOID}, NULL
};
static EntQuery bury_query = {
	"INSERT INTO entanglement.grave (id, name, home, epoch, untold) "
	"SELECT o.id, o.name, o.home, $2, ARRAY(SELECT p.no FROM entanglement.peer p "
	"WHERE p.no OPERATOR(pg_catalog.<>) $3) "
	"FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) $1 "
	"ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, home = EXCLUDED.home, "
	"epoch = EXCLUDED.epoch, untold = EXCLUDED.untold, buried_at = EXCLUDED.buried_at",
	3, {INT4OID, INT4OID, INT4OID}, NULL
};
static EntQuery revive_query = {
	"DELETE FROM entanglement.grave WHERE id OPERATOR(pg_catalog.=) $1",
	1, {UUIDOID}, NULL
};
static EntQuery remind_query = {
	"UPDATE entanglement.grave SET untold = pg_catalog.array_append(untold, $2) "
	"WHERE id OPERATOR(pg_catalog.=) $1 AND $2 OPERATOR(pg_catalog.<>) ALL (untold)",
	2, {UUIDOID, INT4OID}, NULL
};
static EntQuery untold_query = {
	"SELECT id, home, epoch FROM entanglement.grave "
	"WHERE $1 OPERATOR(pg_catalog.=) ANY (untold) AND untold OPERATOR(pg_catalog.<>) '{}' "
	"ORDER BY buried_at LIMIT $2",
	2, {INT4OID, INT8OID}, NULL
};
static EntQuery told_query = {
	"UPDATE entanglement.grave SET untold = pg_catalog.array_remove(untold, $3) "
	"WHERE id OPERATOR(pg_catalog.=) $1 AND epoch OPERATOR(pg_catalog.=) $2",
	3, {UUIDOID, INT4OID, INT4OID}, NULL
};
static EntQuery leave_query = {
	"UPDATE entanglement.owner SET peer = NULL, distance = 0, gone_as = $2 "
	"WHERE no OPERATOR(pg_catalog.=) $1 AND NOT local AND gone_as IS NULL "
	"AND epoch OPERATOR(pg_catalog.<=) $3",
	3, {INT4OID, OIDOID, INT4OID}, NULL
};
static EntQuery next_gone_query = {
	"SELECT no, gone_as FROM entanglement.owner WHERE gone_as IS NOT NULL "
	"AND no OPERATOR(pg_catalog.>) $1 ORDER BY no LIMIT 1",
	1, {INT4OID}, NULL
};
/* Nobody will send these any more. */
static EntQuery unfinished_queries[] = {
	{"DELETE FROM entanglement.arrears WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.resend WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.owed WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.parked WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
};
/* What else is remembered of an owner; a row per statement, all with its number. */
static EntQuery forget_queries[] = {
	{"DELETE FROM entanglement.journal WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.tombstone WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.peer_owner WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.speaker WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.seek WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.violation WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.handover WHERE heir OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.inherited i USING entanglement.object b "
		"WHERE b.owner OPERATOR(pg_catalog.=) $1 AND i.rel OPERATOR(pg_catalog.=) b.rel "
		"AND i.key OPERATOR(pg_catalog.=) b.key",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.holding h USING entanglement.object b "
		"WHERE b.owner OPERATOR(pg_catalog.=) $1 AND h.rel OPERATOR(pg_catalog.=) b.rel "
		"AND h.key OPERATOR(pg_catalog.=) b.key",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.object WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.ancestor WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
	{"DELETE FROM entanglement.owner WHERE no OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL},
};
/* What links wrote down of owners that went at the same time. */
static EntQuery sweep_queries[] = {
	{"DELETE FROM entanglement.peer_owner h WHERE NOT EXISTS "
		"(SELECT 1 FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) h.owner)",
	0, {0}, NULL},
	{"DELETE FROM entanglement.arrears a WHERE NOT EXISTS "
		"(SELECT 1 FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) a.owner)",
	0, {0}, NULL},
	{"DELETE FROM entanglement.seek s WHERE NOT EXISTS "
		"(SELECT 1 FROM entanglement.owner o WHERE o.no OPERATOR(pg_catalog.=) s.owner)",
	0, {0}, NULL},
	{"DELETE FROM entanglement.peer_table t WHERE NOT EXISTS "
		"(SELECT 1 FROM entanglement.peer p WHERE p.no OPERATOR(pg_catalog.=) t.peer) AND NOT EXISTS "
		"(SELECT 1 FROM entanglement.owner o WHERE o.held OPERATOR(pg_catalog.=) t.peer)",
	0, {0}, NULL},
};
static EntQuery prune_query = {
	"DELETE FROM entanglement.grave WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY("
	"SELECT id FROM entanglement.grave ORDER BY buried_at DESC OFFSET $1)) "
	"AND untold OPERATOR(pg_catalog.=) '{}'",
	1, {INT8OID}, NULL
};
static EntQuery home_is_peer_query = {
	"SELECT 1 FROM entanglement.peer WHERE node OPERATOR(pg_catalog.=) $1 LIMIT 1",
	1, {UUIDOID}, NULL
};
static EntQuery move_query = {
	"UPDATE entanglement.owner SET local = false, home = $2, "
	"sure = CASE WHEN local THEN serial ELSE sure END, "
	"told = CASE WHEN local THEN serial ELSE told END, "
	"nearest = CASE WHEN local THEN 2147483647 ELSE nearest END, "
	"peer = CASE WHEN local THEN NULL ELSE peer END WHERE no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, UUIDOID}, NULL
};
static EntQuery adopt_query = {
	"UPDATE entanglement.owner o SET local = true, home = i.id, peer = NULL, distance = 0, "
	"nearest = 2147483647, lost = false, sure = 0, told = 0, epoch = GREATEST(o.epoch, "
	"(SELECT pg_catalog.max(b.epoch) FROM entanglement.object b WHERE b.owner OPERATOR(pg_catalog.=) $1), "
	"(SELECT pg_catalog.max(t.epoch) FROM entanglement.tombstone t WHERE t.owner OPERATOR(pg_catalog.=) $1)) "
	"OPERATOR(pg_catalog.+) 1, serial = GREATEST(o.serial, o.told, "
	"(SELECT pg_catalog.max(b.serial) FROM entanglement.object b WHERE b.owner OPERATOR(pg_catalog.=) $1), "
	"(SELECT pg_catalog.max(t.serial) FROM entanglement.tombstone t WHERE t.owner OPERATOR(pg_catalog.=) $1)) "
	/* one that nobody has: it is claimed, and so the epoch gets around */
	"OPERATOR(pg_catalog.+) 1 FROM entanglement.identity i WHERE o.no OPERATOR(pg_catalog.=) $1 AND NOT o.local "
	"AND o.gone_as IS NULL RETURNING o.epoch",
	1, {INT4OID}, NULL
};
/* What was handed over to it and not confirmed yet gets a version of its own. */
static EntQuery inherited_query = {
	"SELECT rel, key FROM entanglement.object "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND born OPERATOR(pg_catalog.=) 0",
	1, {INT4OID}, NULL
};
static EntQuery newest_query = {
	"SELECT pg_catalog.max(no) FROM entanglement.owner", 0, {0}, NULL
};

/* The owner is another one than it was: everybody looks again. */
static void
changed(int32 owner)
{
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = owner};

	ent_owner_invalidate();
	ent_wake_post_at_commit(&ev);
	ent_wake_routes_at_commit();
}

static void
give_birth(int32 owner)
{
	Datum		args[1] = {Int32GetDatum(owner)};
	SPITupleTable *rows;
	uint64		n;

	ent_query_run(&inherited_query, args, NULL, SPI_OK_SELECT, NULL);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		int32		rel = DatumGetInt32(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &null));
		Datum		key = SPI_getbinval(rows->vals[i], rows->tupdesc, 2, &null);

		ent_changelog_write(rel, owner, ENT_CHANGE_INSERT, DatumGetByteaPP(key), NULL);
	}
	SPI_freetuptable(rows);
}

/* ---- graves ---- */

static EntGrave
grave_at(uint64 row)
{
	EntGrave	g;
	bool		null;

	g.id = *DatumGetUUIDP(ent_query_datum(row, 1, &null));
	g.home = *DatumGetUUIDP(ent_query_datum(row, 2, &null));
	g.epoch = ent_query_int4(row, 3, NULL);
	return g;
}

bool
ent_life_grave(const pg_uuid_t *id, EntGrave *out)
{
	Datum		args[1] = {UUIDPGetDatum(id)};
	bool		found;

	ent_query_run(&grave_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	if (found)
		*out = grave_at(0);
	SPI_freetuptable(SPI_tuptable);
	return found;
}

void
ent_life_revive(const pg_uuid_t *id)
{
	Datum		args[1] = {UUIDPGetDatum(id)};

	ent_query_run(&revive_query, args, NULL, SPI_OK_DELETE, NULL);
}

void
ent_life_remind(const pg_uuid_t *id, int32 peer)
{
	Datum		args[2] = {UUIDPGetDatum(id), Int32GetDatum(peer)};

	ent_query_run(&remind_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed > 0)
		ent_wake_routes_at_commit();
}

List *
ent_life_untold(int32 peer, int max)
{
	Datum		args[2] = {Int32GetDatum(peer), Int64GetDatum(max)};
	List	   *result = NIL;

	ent_query_run(&untold_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntGrave   *g = palloc(sizeof(EntGrave));

		*g = grave_at(row);
		result = lappend(result, g);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

void
ent_life_told(const List *graves, int32 peer)
{
	ListCell   *lc;

	foreach(lc, graves)
	{
		EntGrave   *g = lfirst(lc);
		Datum		args[3] = {UUIDPGetDatum(&g->id), Int32GetDatum(g->epoch),
		Int32GetDatum(peer)};

		ent_query_run(&told_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
}

void
ent_life_prune(int64 keep)
{
	Datum		args[1] = {Int64GetDatum(keep)};

	ent_query_run(&prune_query, args, NULL, SPI_OK_DELETE, NULL);
	for (int i = 0; i < lengthof(sweep_queries); i++)
		ent_query_run(&sweep_queries[i], NULL, NULL, SPI_OK_DELETE, NULL);
}

/* ---- the end ---- */

static void
bury(int32 owner, int32 epoch, int32 peer)
{
	Datum		args[3] = {Int32GetDatum(owner), Int32GetDatum(epoch),
	Int32GetDatum(peer)};

	ent_query_run(&bury_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_request_refuse_all(owner, &ent_request_owner_gone);
}

bool
ent_life_end(const EntOwner *o, int32 epoch, int32 peer, Oid role)
{
	Datum		args[3] = {Int32GetDatum(o->no), ObjectIdGetDatum(role),
	Int32GetDatum(epoch)};

	ent_query_run(&leave_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed == 0)
		return false;
	bury(o->no, epoch, peer);
	changed(o->no);
	ent_wake_collector_at_commit();
	return true;
}

void
ent_life_end_local(const EntOwner *o)
{
	bury(o->no, o->epoch, 0);
	ent_life_forget(o->no);
}

int32
ent_life_next_gone(int32 after, Oid *role)
{
	Datum		args[1] = {Int32GetDatum(after)};
	int32		no = 0;

	ent_query_run(&next_gone_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
	{
		bool		null;

		no = ent_query_int4(0, 1, NULL);
		*role = DatumGetObjectId(ent_query_datum(0, 2, &null));
	}
	SPI_freetuptable(SPI_tuptable);
	return no;
}

void
ent_life_forget(int32 owner)
{
	Datum		args[1] = {Int32GetDatum(owner)};

	/* those that were made while it went */
	ent_request_refuse_all(owner, &ent_request_owner_gone);
	for (int i = 0; i < lengthof(unfinished_queries); i++)
		ent_query_run(&unfinished_queries[i], args, NULL, SPI_OK_DELETE, NULL);
	for (int i = 0; i < lengthof(forget_queries); i++)
		ent_query_run(&forget_queries[i], args, NULL, SPI_OK_DELETE, NULL);
	changed(owner);
}

/* ---- another home ---- */

bool
ent_life_home_is_peer(const EntOwner *o)
{
	Datum		args[1] = {UUIDPGetDatum(&o->home)};
	bool		found;

	ent_query_run(&home_is_peer_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

bool
ent_life_may_move(const EntOwner *o, int32 peer, bool route)
{
	if (o->pinned)
		return ent_owner_may_speak(o, peer);
	return !o->local && route && !ent_life_home_is_peer(o);
}

void
ent_life_move(const EntOwner *o, const pg_uuid_t *home)
{
	Datum		args[2] = {Int32GetDatum(o->no), UUIDPGetDatum(home)};

	ent_query_run(&move_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (o->local)
		ent_object_note_remote(0);
	changed(o->no);
}

int32
ent_life_adopt(const EntOwner *o, int64 *lost)
{
	Datum		args[1] = {Int32GetDatum(o->no)};
	int32		epoch;

	ent_query_run(&adopt_query, args, NULL, SPI_OK_UPDATE_RETURNING, NULL);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("owner \"%s\" was changed by another session at the same time",
						o->name)));
	epoch = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < lengthof(unfinished_queries); i++)
		ent_query_run(&unfinished_queries[i], args, NULL, SPI_OK_DELETE, NULL);
	*lost = SPI_processed;
	ent_epoch_begin(o->no, epoch);
	give_birth(o->no);
	ent_request_refuse_all(o->no, &ent_request_owner_here);
	changed(o->no);
	return epoch;
}

int32
ent_life_newest(void)
{
	int32		no;

	ent_query_run(&newest_query, NULL, NULL, SPI_OK_SELECT, NULL);
	no = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return no;
}
