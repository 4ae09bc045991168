/*
 * store/shown.c
 *	  What peers have been shown of each table: whole, or in part, and then which
 *	  objects (I5).
 *
 * Only the process that sends to a peer writes what is held by it, but for the moment in
 * which a table stops being shown whole. It is read
 * as it is now, not under the snapshot of the rows: what was sent a moment ago is held.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "store/query.h"
#include "store/shown.h"

static EntQuery get_query = {
	"SELECT kind, target, digest FROM entanglement.shown "
	"WHERE peer OPERATOR(pg_catalog.=) $1 AND rel OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery put_query = {
	"INSERT INTO entanglement.shown (peer, rel, kind, target, digest) "
	"VALUES ($1, $2, $3, $4, $5) ON CONFLICT (peer, rel) DO UPDATE "
	"SET kind = EXCLUDED.kind, target = EXCLUDED.target, digest = EXCLUDED.digest",
	5, {INT4OID, INT4OID, CHAROID, CHAROID, INT8OID}, NULL
};
static EntQuery whole_query = {
	"SELECT w.peer, p.role::pg_catalog.oid, w.rel FROM entanglement.shown w "
	"JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) w.peer "
	"WHERE w.kind OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\"",
	0, {0}, NULL
};
static EntQuery narrow_query = {
	"UPDATE entanglement.shown SET kind = 's', target = 's', digest = 0 "
	"WHERE (peer, rel) OPERATOR(pg_catalog.=) (SELECT w.peer, w.rel FROM entanglement.shown w "
	"WHERE w.peer OPERATOR(pg_catalog.=) $1 AND w.rel OPERATOR(pg_catalog.=) $2 "
	"AND w.kind OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\" FOR UPDATE SKIP LOCKED)",
	2, {INT4OID, INT4OID}, NULL
};
/* Of a table, what has died and the peer may not have been told yet. */
#define UNTOLD \
	"entanglement.tombstone t JOIN entanglement.peer_owner h " \
	"ON h.peer OPERATOR(pg_catalog.=) $1 AND h.owner OPERATOR(pg_catalog.=) t.owner " \
	"WHERE t.rel OPERATOR(pg_catalog.=) $2 " \
	"AND (h.epoch, h.have) OPERATOR(pg_catalog.<) (t.epoch, t.serial) "

static EntQuery fill_query = {
	"INSERT INTO entanglement.holding (peer, rel, key) "
	"SELECT $1, $2, o.key FROM entanglement.object o WHERE o.rel OPERATOR(pg_catalog.=) $2 "
	"UNION ALL "
	"SELECT $1, $2, t.key FROM " UNTOLD "ON CONFLICT DO NOTHING",
	2, {INT4OID, INT4OID}, NULL
};
/* Who notes more than one does so in one order, by table and owner. */
static EntQuery review_query = {
	"INSERT INTO entanglement.resend AS s (peer, owner, rel, compare) "
	"SELECT $1, o.no, $2, false FROM entanglement.owner o "
	"WHERE o.local OR o.peer IS NULL OR o.peer OPERATOR(pg_catalog.<>) $1 ORDER BY o.no "
	"ON CONFLICT (peer, owner, rel) DO UPDATE SET round = s.round OPERATOR(pg_catalog.+) 1",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery review_all_query = {
	"INSERT INTO entanglement.resend AS s (peer, owner, rel, compare) "
	"SELECT $1, o.no, w.rel, false FROM entanglement.shown w, entanglement.owner o "
	"WHERE w.peer OPERATOR(pg_catalog.=) $1 AND w.kind OPERATOR(pg_catalog.=) 's'::pg_catalog.\"char\" "
	"AND (o.local OR o.peer IS NULL OR o.peer OPERATOR(pg_catalog.<>) $1) ORDER BY w.rel, o.no "
	"ON CONFLICT (peer, owner, rel) DO UPDATE SET round = s.round OPERATOR(pg_catalog.+) 1",
	1, {INT4OID}, NULL
};
static EntQuery compare_query = {
	"INSERT INTO entanglement.resend AS s (peer, owner, rel, compare) "
	"SELECT $1, u.no, $2, true FROM pg_catalog.unnest($3) AS u(no) ORDER BY u.no "
	"ON CONFLICT (peer, owner, rel) DO UPDATE SET compare = true, "
	"round = s.round OPERATOR(pg_catalog.+) 1",
	3, {INT4OID, INT4OID, INT4ARRAYOID}, NULL
};
/*
 * A table is not shown whole before the peer has passed all that died unseen: from then
 * on whatever dies is told to it, and counts as held should that end.
 */
static EntQuery reviewed_query = {
	"UPDATE entanglement.shown w SET kind = w.target "
	"WHERE w.peer OPERATOR(pg_catalog.=) $1 AND w.rel OPERATOR(pg_catalog.=) $2 "
	"AND w.kind OPERATOR(pg_catalog.<>) w.target "
	"AND NOT EXISTS (SELECT 1 FROM entanglement.resend s "
	"WHERE s.peer OPERATOR(pg_catalog.=) $1 AND s.rel OPERATOR(pg_catalog.=) $2) "
	"AND (w.target OPERATOR(pg_catalog.<>) 'a'::pg_catalog.\"char\" "
	"OR NOT EXISTS (SELECT 1 FROM " UNTOLD
	"AND NOT EXISTS (SELECT 1 FROM entanglement.holding g WHERE g.peer OPERATOR(pg_catalog.=) $1 "
	"AND g.rel OPERATOR(pg_catalog.=) $2 AND g.key OPERATOR(pg_catalog.=) t.key)))",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery unshow_query = {
	"DELETE FROM entanglement.shown WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery forget_query = {
	"DELETE FROM entanglement.holding WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, INT4OID}, NULL
};
static EntQuery held_query = {
	"SELECT u.n, h.leaving FROM pg_catalog.unnest($3) WITH ORDINALITY AS u(key, n), LATERAL ("
	"SELECT h.leaving FROM entanglement.holding h WHERE h.peer OPERATOR(pg_catalog.=) $1 "
	"AND h.rel OPERATOR(pg_catalog.=) $2 AND h.key OPERATOR(pg_catalog.=) u.key "
	"OFFSET 0) h",
	3, {INT4OID, INT4OID, BYTEAARRAYOID}, NULL
};
static EntQuery hold_query = {
	"INSERT INTO entanglement.holding (peer, rel, key) "
	"SELECT $1, $2, u.key FROM pg_catalog.unnest($3) AS u(key) "
	"ON CONFLICT (rel, key, peer) DO UPDATE SET leaving = false",
	3, {INT4OID, INT4OID, BYTEAARRAYOID}, NULL
};
static EntQuery leave_query = {
	"UPDATE entanglement.holding SET leaving = true WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.=) $2 AND key OPERATOR(pg_catalog.=) ANY ($3)",
	3, {INT4OID, INT4OID, BYTEAARRAYOID}, NULL
};
static EntQuery release_query = {
	"DELETE FROM entanglement.holding WHERE peer OPERATOR(pg_catalog.=) $1 "
	"AND rel OPERATOR(pg_catalog.=) $2 AND key OPERATOR(pg_catalog.=) ANY ($3)",
	3, {INT4OID, INT4OID, BYTEAARRAYOID}, NULL
};
static EntQuery policies_query = {
	"WITH RECURSIVE up(role) AS (SELECT $2 UNION "
	"SELECT m.roleid FROM pg_catalog.pg_auth_members m "
	"JOIN up ON m.member OPERATOR(pg_catalog.=) up.role) "
	"SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws('|', "
	"(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', p.oid, p.polcmd, "
	"p.polpermissive, p.polroles, p.polqual), ';' ORDER BY p.oid) "
	"FROM pg_catalog.pg_policy p WHERE p.polrelid OPERATOR(pg_catalog.=) $1), "
	"(SELECT pg_catalog.string_agg(m::pg_catalog.text, ';' ORDER BY m.member, m.roleid) "
	"FROM pg_catalog.pg_auth_members m JOIN up ON m.member OPERATOR(pg_catalog.=) up.role), "
	"(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', r.oid, r.rolname, "
	"r.rolinherit), ';' ORDER BY r.oid) FROM pg_catalog.pg_roles r "
	"JOIN up ON r.oid OPERATOR(pg_catalog.=) up.role)), 0)",
	2, {OIDOID, OIDOID}, NULL
};

bool
ent_shown_get(int32 peer, int32 rel, EntShown *shown)
{
	Datum		args[2] = {Int32GetDatum(peer), Int32GetDatum(rel)};
	bool		null,
				found;

	ent_query_run(&get_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	if (found)
	{
		shown->kind = DatumGetChar(ent_query_datum(0, 1, &null));
		shown->target = DatumGetChar(ent_query_datum(0, 2, &null));
		shown->digest = ent_query_int8(0, 3, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

void
ent_shown_put(int32 peer, int32 rel, const EntShown *shown)
{
	Datum		args[5] = {Int32GetDatum(peer), Int32GetDatum(rel),
		CharGetDatum((char) shown->kind), CharGetDatum((char) shown->target),
	Int64GetDatum(shown->digest)};

	ent_query_run(&put_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_shown_forget(int32 peer, int32 rel)
{
	Datum		args[2] = {Int32GetDatum(peer), Int32GetDatum(rel)};

	ent_query_run(&unshow_query, args, NULL, SPI_OK_DELETE, NULL);
	if (SPI_processed > 0)
		ent_query_run(&forget_query, args, NULL, SPI_OK_DELETE, NULL);
}

bool
ent_shown_narrow(int32 peer, int32 rel)
{
	Datum		args[2] = {Int32GetDatum(peer), Int32GetDatum(rel)};

	ent_query_run(&narrow_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed == 0)
		return false;
	ent_query_run(&fill_query, args, NULL, SPI_OK_INSERT, NULL);
	return true;
}

List *
ent_shown_whole(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;

	ent_query_run(&whole_query, NULL, NULL, SPI_OK_SELECT, NULL);
	MemoryContextSwitchTo(context);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		EntShownWhole *w = palloc(sizeof(EntShownWhole));
		bool		null;

		w->peer = ent_query_int4(row, 1, NULL);
		w->role = DatumGetObjectId(ent_query_datum(row, 2, &null));
		w->rel = ent_query_int4(row, 3, NULL);
		result = lappend(result, w);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

void
ent_shown_review(int32 peer, int32 rel)
{
	Datum		args[2] = {Int32GetDatum(peer), Int32GetDatum(rel)};

	ent_query_run(&review_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_shown_review_all(int32 peer)
{
	Datum		args[1] = {Int32GetDatum(peer)};

	ent_query_run(&review_all_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_shown_compare(int32 peer, int32 rel, Datum owners)
{
	Datum		args[3] = {Int32GetDatum(peer), Int32GetDatum(rel), owners};

	ent_query_run(&compare_query, args, NULL, SPI_OK_INSERT, NULL);
}

bool
ent_shown_reviewed(int32 peer, int32 rel)
{
	Datum		args[2] = {Int32GetDatum(peer), Int32GetDatum(rel)};

	ent_query_run(&reviewed_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed == 0)
		return false;
	/* nothing is held, or all may be */
	ent_query_run(&forget_query, args, NULL, SPI_OK_DELETE, NULL);
	return true;
}

void
ent_shown_held(int32 peer, int32 rel, Datum keys, bool *held, bool *leaving)
{
	Datum		args[3] = {Int32GetDatum(peer), Int32GetDatum(rel), keys};

	ent_query_run(&held_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int			i = ent_query_int8(row, 1, NULL) - 1;

		held[i] = true;
		leaving[i] = ent_query_bool(row, 2);
	}
	SPI_freetuptable(SPI_tuptable);
}

void
ent_shown_hold(int32 peer, int32 rel, Datum keys)
{
	Datum		args[3] = {Int32GetDatum(peer), Int32GetDatum(rel), keys};

	ent_query_run(&hold_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_shown_leave(int32 peer, int32 rel, Datum keys)
{
	Datum		args[3] = {Int32GetDatum(peer), Int32GetDatum(rel), keys};

	ent_query_run(&leave_query, args, NULL, SPI_OK_UPDATE, NULL);
}

void
ent_shown_release(int32 peer, int32 rel, Datum keys)
{
	Datum		args[3] = {Int32GetDatum(peer), Int32GetDatum(rel), keys};

	ent_query_run(&release_query, args, NULL, SPI_OK_DELETE, NULL);
}

int64
ent_shown_policies(Oid relid, Oid role)
{
	Datum		args[2] = {ObjectIdGetDatum(relid), ObjectIdGetDatum(role)};
	int64		digest;

	ent_query_run(&policies_query, args, NULL, SPI_OK_SELECT, NULL);
	digest = ent_query_int8(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return digest;
}
