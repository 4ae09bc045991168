/*
 * link/outconfirm.c
 *	  The sending end: has an object that was handed over died since?
 *
 * The peer has heard that it was, but nothing of its new owner: the end may have
 * been told and forgotten while it was not listening. Who has heard of the hand-over
 * without gaps, and holds no such object, has seen it die: it makes the tombstone anew,
 * which is sent as every other. Where the table was not there in time, or is
 * being fetched anew, nobody knows.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "link/outbound_private.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

/* An object that somebody else holds by now is his. */
static EntQuery bury_query = {
	"INSERT INTO entanglement.tombstone (rel, owner, epoch, serial, changed_at, key, "
	"heir, heir_epoch, heir_serial) "
	"SELECT $1, w.no, $4, $5, pg_catalog.now(), $2, o.owner, o.epoch, "
	"CASE o.born WHEN 0 THEN o.serial ELSE o.serial OPERATOR(pg_catalog.-) 1 END "
	"FROM entanglement.owner w "
	"JOIN entanglement.owner f ON f.id OPERATOR(pg_catalog.=) $6 "
	"LEFT JOIN entanglement.object o ON o.rel OPERATOR(pg_catalog.=) $1 "
	"AND o.key OPERATOR(pg_catalog.=) $2 "
	"WHERE w.no OPERATOR(pg_catalog.=) $3 AND w.epoch OPERATOR(pg_catalog.=) $4 "
	"AND w.serial OPERATOR(pg_catalog.>=) $5 "
	"AND o.owner IS DISTINCT FROM w.no AND o.owner IS DISTINCT FROM f.no "
	"AND (f.epoch, CASE WHEN f.local THEN f.serial ELSE f.sure END) "
	"OPERATOR(pg_catalog.>=) ($7, $8) AND (o.owner IS NOT NULL OR NOT $11) "
	"AND (f.local OR EXISTS (SELECT 1 FROM entanglement.peer_table p "
	"WHERE p.peer OPERATOR(pg_catalog.=) f.peer AND p.known "
	"AND p.schema_name OPERATOR(pg_catalog.=) $9 AND p.table_name OPERATOR(pg_catalog.=) $10)) "
	"AND NOT EXISTS (SELECT 1 FROM entanglement.arrears a "
	"WHERE a.rel OPERATOR(pg_catalog.=) $1 "
	"AND (a.owner OPERATOR(pg_catalog.=) w.no OR a.owner OPERATOR(pg_catalog.=) f.no)) "
	"ON CONFLICT DO NOTHING",
	11, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID, UUIDOID, INT4OID, INT8OID, TEXTOID, TEXTOID, BOOLOID}, NULL
};

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
	Datum		args[11];
	bytea	   *key;

	ent_wire_read_confirm(r, &c);
	ent_outbound_check(r, "confirm");
	table = c.object.table;
	owner = c.object.owner;
	o = hash_search(ob->owners, &owner, HASH_FIND, NULL);
	t = hash_search(ob->tables, &table, HASH_FIND, NULL);
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
	ent_query_run(&bury_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_outbound_ask_again(ob, t, owner, key);
}
