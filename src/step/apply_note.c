/*
 * step/apply_note.c
 *	  What apply writes down about rows that it could not store, and about
 *	  those that came late.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "base/quiet.h"
#include "base/wake.h"
#include "step/apply_private.h"
#include "store/query.h"
#include "store/refusal.h"
#include "store/value.h"

static EntQuery park_query = {
	"INSERT INTO entanglement.parked AS p "
	"(rel, key, owner, peer, serial, sqlstate, message, detail, foreign_key, epoch, waits_for) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) "
	"ON CONFLICT (rel, key, owner) DO UPDATE SET peer = EXCLUDED.peer, "
	"epoch = EXCLUDED.epoch, serial = EXCLUDED.serial, "
	"sqlstate = EXCLUDED.sqlstate, "
	"message = EXCLUDED.message, detail = EXCLUDED.detail, "
	"tries = p.tries OPERATOR(pg_catalog.+) 1, waits_for = EXCLUDED.waits_for "
	"WHERE (p.epoch, p.serial) OPERATOR(pg_catalog.<=) (EXCLUDED.epoch, EXCLUDED.serial)",
	11, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, INT4OID, INT8OID}, NULL
};
/* An older version, by another way, is not the one that is missed. */
static EntQuery unpark_query = {
	"DELETE FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 AND owner OPERATOR(pg_catalog.=) $3 "
	"AND (epoch, serial) OPERATOR(pg_catalog.<=) ($4, $5)",
	5, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID}, NULL
};
static EntQuery freed_query = {
	"SELECT owner FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, BYTEAOID}, NULL
};
static EntQuery owe_query = {
	"INSERT INTO entanglement.owed AS d (peer, rel, owner, key, serial) "
	"SELECT p.no, $2, $3, $4, $5 FROM entanglement.peer p "
	"WHERE p.no OPERATOR(pg_catalog.<>) $1 "
	"ON CONFLICT (peer, owner, rel, key) DO UPDATE SET serial = EXCLUDED.serial "
	"WHERE d.serial OPERATOR(pg_catalog.<) EXCLUDED.serial",
	5, {INT4OID, INT4OID, INT4OID, BYTEAOID, INT8OID}, NULL
};
/*
 * Does it come so late that our have, and so perhaps those of our other peers,
 * covers it already? Then they would not get it by its serial.
 */
bool
ent_apply_late(EntApply *a, EntApplyRow *r)
{
	return (r->flags & ENT_ROW_LATE) != 0 || r->serial <= a->have;
}

void
ent_apply_unpark(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	Datum		args[5] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key),
		Int32GetDatum(a->owner), Int32GetDatum(a->epoch),
	Int64GetDatum(r->serial)};

	if (!c->parked)
		return;
	ent_query_run(&unpark_query, args, NULL, SPI_OK_DELETE, NULL);
}

static char *
key_text(EntApply *a, EntApplyCopy *c)
{
	if (c->foreign_key)
		return TextDatumGetCString(DirectFunctionCall2(binary_encode,
													   PointerGetDatum(c->key),
													   CStringGetTextDatum("hex")));
	return ent_key_text(a->rel, (uint8 *) VARDATA_ANY(c->key),
						VARSIZE_ANY_EXHDR(c->key));
}

/* Notes that the object has to be asked for again. */
static void
note_parked(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
			const EntApplyReason *why)
{
	Datum		args[11] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key),
		Int32GetDatum(a->owner), Int32GetDatum(a->peer),
		Int64GetDatum(r->serial), CStringGetTextDatum(why->sqlstate),
		CStringGetTextDatum(why->message), (Datum) 0, BoolGetDatum(c->foreign_key),
	Int32GetDatum(a->epoch), Int64GetDatum(why->waits_for)};
	char		nulls[] = "           ";

	if (why->detail)
		args[7] = CStringGetTextDatum(why->detail);
	else
		nulls[7] = 'n';
	if (why->waits_for == 0)
		nulls[10] = 'n';
	ent_query_run(&park_query, args, nulls, SPI_OK_INSERT, NULL);
	c->parked = true;
}

void
ent_apply_note_parked(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
					  const char *sqlstate, const char *message,
					  const char *detail)
{
	EntApplyReason why = {sqlstate, message, detail, 0};

	note_parked(a, c, r, &why);
}

/* A refused value must not be lost nor hold up others: note it, ask later. */
void
ent_apply_park_because(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
					   const EntApplyReason *why)
{
	bool		was_parked = c->parked;
	int64		more;
	char	   *detail;

	note_parked(a, c, r, why);
	if (was_parked)
		return;
	if (strcmp(why->sqlstate, "42501") == 0)
		ent_refusal_note(ENT_REFUSED_WRITE, a->owner, a->rel->no, NULL);
	if (!ent_quiet_due(a->peer, psprintf("parked %s", why->sqlstate), a->rel->no,
					   &more))
		return;
	detail = ent_quiet_more(more);
	ereport(LOG,
			(errmsg("object %s of table \"%s.%s\" could not be stored: %s",
					key_text(a, c), a->rel->schema, a->rel->name,
					why->message),
			 detail ? errdetail("%s", detail) : 0,
			 errhint("See entanglement.parked_rows; it will be tried again.")));
}

void
ent_apply_park(EntApply *a, EntApplyCopy *c, EntApplyRow *r,
			   const char *sqlstate, const char *message, const char *detail)
{
	EntApplyReason why = {sqlstate, message, detail, 0};

	ent_apply_park_because(a, c, r, &why);
}

/* The object's place is free: others parked for the same key may come. */
void
ent_apply_wake_parked(EntApply *a, EntApplyCopy *c)
{
	Datum		args[2] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key)};

	ent_query_run(&freed_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		ent_wake_routes_at_commit();
	SPI_freetuptable(SPI_tuptable);
}

void
ent_apply_owe_others(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	Datum		args[5] = {Int32GetDatum(a->peer), Int32GetDatum(a->rel->no),
		Int32GetDatum(a->owner), PointerGetDatum(c->key),
	Int64GetDatum(r->serial)};

	ent_query_run(&owe_query, args, NULL, SPI_OK_INSERT, NULL);
}
