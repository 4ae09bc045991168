/*
 * link/outconfirm.c
 *	  The sending end: has an object that was handed over died since?
 *
 * The peer has heard that it was, but nothing of its new owner: the end may have
 * been told and forgotten while it was not listening. Who has heard of the hand-over
 * without gaps, and holds no such object, has seen it die: that is told as of what is
 * asked for and gone (AGAIN), to the peer alone. Only when somebody else holds it is a
 * tombstone made anew, of an object that the peer may see: what a peer asks must not
 * make us forget what others have, nor remember what it makes up. Where the table was
 * not there in time, or is being fetched anew, nobody knows; nor where the giver comes in
 * part by another way than from the peer, which knows itself what it has shown us.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "guard/policy.h"
#include "link/outbound_private.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

/*
 * Who holds the object, if it is known here what became of it: all of the giver up
 * to that version and of the heir as far as the question goes has come, and nothing
 * about the object is parked. Nothing is known of one that waits for its heir here as
 * well: who is shown a part would take the answer for its end. $12: the peer is shown
 * a part, and may not see the row: then nothing counts that the answer would tell it of
 * the object.
 */
static EntQuery holder_query = {
	"SELECT o.owner FROM entanglement.owner w "
	"LEFT JOIN entanglement.owner f ON f.id OPERATOR(pg_catalog.=) $6 "
	"LEFT JOIN entanglement.object o ON o.rel OPERATOR(pg_catalog.=) $1 "
	"AND o.key OPERATOR(pg_catalog.=) $2 "
	"WHERE w.no OPERATOR(pg_catalog.=) $3 AND ($12 OR o.owner IS NULL "
	"OR o.owner OPERATOR(pg_catalog.<>) w.no OR o.born OPERATOR(pg_catalog.>) 0) "
	"AND ((NOT $12 AND o.owner OPERATOR(pg_catalog.=) w.no) OR ("
	"w.epoch OPERATOR(pg_catalog.=) $4 AND w.serial OPERATOR(pg_catalog.>=) $5 "
	"AND ($12 OR o.owner IS NULL OR o.owner OPERATOR(pg_catalog.<>) f.no) "
	"AND (f.epoch, CASE WHEN f.local THEN f.serial ELSE f.sure END) "
	"OPERATOR(pg_catalog.>=) ($7, $8) AND ($12 OR o.owner IS NOT NULL OR NOT $11) "
	"AND (f.local OR ((NOT f.partial OR f.peer OPERATOR(pg_catalog.=) $13) "
	"AND EXISTS (SELECT FROM entanglement.peer_table p "
	"WHERE p.peer OPERATOR(pg_catalog.=) f.peer AND p.known "
	"AND p.schema_name OPERATOR(pg_catalog.=) $9 AND p.table_name OPERATOR(pg_catalog.=) $10))) "
	"AND NOT EXISTS (SELECT FROM entanglement.arrears a "
	"WHERE a.rel OPERATOR(pg_catalog.=) $1 "
	"AND a.owner OPERATOR(pg_catalog.=) ANY (ARRAY[w.no, f.no])) "
	"AND ($12 OR NOT EXISTS (SELECT FROM entanglement.parked p "
	"WHERE p.rel OPERATOR(pg_catalog.=) $1 AND p.key OPERATOR(pg_catalog.=) $2))))",
	13, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID, UUIDOID, INT4OID, INT8OID, TEXTOID, TEXTOID, BOOLOID, BOOLOID,
	INT4OID}, NULL
};
/* An object that somebody else holds by now is his. */
static EntQuery bury_query = {
	"INSERT INTO entanglement.tombstone (rel, owner, epoch, serial, changed_at, key, "
	"heir, heir_epoch, heir_serial) "
	"SELECT $1, $3, $4, $5, pg_catalog.now(), $2, o.owner, o.epoch, "
	"CASE WHEN o.born OPERATOR(pg_catalog.=) 0 THEN o.serial "
	"ELSE o.serial OPERATOR(pg_catalog.-) 1 END "
	"FROM entanglement.object o WHERE o.rel OPERATOR(pg_catalog.=) $1 "
	"AND o.key OPERATOR(pg_catalog.=) $2 ON CONFLICT DO NOTHING",
	5, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID}, NULL
};

static bool
may_see(EntOutbound *ob, EntOutTable *t, EntRelation *rel, Datum *key)
{
	return !t->nothing && !t->idle &&
		ent_policy_sees_row(rel, ob->role, t->filter, key);
}

/* Should the peer be told, and if somebody else holds the object, whose it is? */
static bool
know(EntOutbound *ob, EntOutTable *t, EntRelation *rel, Datum *key, Datum *args)
{
	int32		holder = 0;
	bool		visible = may_see(ob, t, rel, key),
				hidden = !visible && (t->partial || t->idle),
				known;

	args[11] = BoolGetDatum(hidden);
	ent_query_run(&holder_query, args, NULL, SPI_OK_SELECT, NULL);
	known = SPI_processed > 0;
	if (known)
		holder = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	/* what it may not see is answered like what there is not */
	if (!known || hidden || holder == 0 || holder == DatumGetInt32(args[2]))
		return known;
	if (!visible)
		return false;
	ent_query_run(&bury_query, args, NULL, SPI_OK_INSERT, NULL);
	return true;
}

void
ent_outbound_take_confirm(EntOutbound *ob, EntReader *r)
{
	EntWireConfirm c;
	pg_uuid_t	from;
	int32		table,
				owner;
	EntOutOwner *o;
	EntOutTable *t;
	EntRelation *rel;
	Datum		values[ENT_WIRE_MAX_KEYS];
	Datum		args[13];
	bytea	   *key;

	ent_wire_read_confirm(r, &c);
	ent_outbound_check(r, "confirm");
	table = c.object.table;
	owner = c.object.owner;
	o = hash_search(ob->owners, &owner, HASH_FIND, NULL);
	t = ent_outbound_asked_table(ob, table);
	rel = ent_relinfo_get(table);
	if (o == NULL || !o->wanted || t == NULL || !t->known || rel == NULL)
		return;
	key = ent_key_from_wire(rel, ob->role, c.object.key, c.object.keylen, values);
	memcpy(from.data, c.from.bytes, UUID_LEN);
	args[0] = Int32GetDatum(table);
	args[1] = PointerGetDatum(key);
	args[2] = Int32GetDatum(owner);
	args[3] = Int32GetDatum((int32) c.epoch);
	args[4] = Int64GetDatum(c.serial);
	args[5] = UUIDPGetDatum(&from);
	args[6] = Int32GetDatum((int32) c.from_epoch);
	args[7] = Int64GetDatum(c.from_serial);
	args[8] = CStringGetTextDatum(rel->schema);
	args[9] = CStringGetTextDatum(rel->name);
	/* a row that is nobody's was here before the table was synchronized (again) */
	args[10] = BoolGetDatum(ent_rowquery_exists(rel, values, NULL));
	args[12] = Int32GetDatum(ob->peer);
	if (know(ob, t, rel, values, args))
		ent_outbound_ask_again(ob, t, owner, key);
}
