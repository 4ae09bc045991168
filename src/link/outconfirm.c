/*
 * link/outconfirm.c
 *	  The sending end: has an object that was handed over died since?
 *
 * The peer has heard that it was, but nothing of its new owner: the end may have
 * been told and forgotten while it was not listening. Who has heard of the hand-over
 * without gaps, and holds no such object, has seen it die: it makes the tombstone anew,
 * which is sent as every other.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "link/outbound_private.h"
#include "store/query.h"
#include "store/value.h"

/* An object that somebody else holds by now is his. */
static EntQuery bury_query = {
	"INSERT INTO entanglement.tombstone (rel, owner, epoch, serial, changed_at, key, "
	"heir, heir_epoch, heir_serial) "
	"SELECT $1, w.no, $4, $5, pg_catalog.now(), $2, o.owner, o.epoch, "
	"CASE WHEN o.born OPERATOR(pg_catalog.=) 0 THEN o.serial ELSE o.serial OPERATOR(pg_catalog.-) 1 END "
	"FROM entanglement.owner w "
	"JOIN entanglement.owner f ON f.id OPERATOR(pg_catalog.=) $6 "
	"LEFT JOIN entanglement.object o ON o.rel OPERATOR(pg_catalog.=) $1 "
	"AND o.key OPERATOR(pg_catalog.=) $2 "
	"WHERE w.no OPERATOR(pg_catalog.=) $3 AND w.epoch OPERATOR(pg_catalog.=) $4 "
	"AND w.serial OPERATOR(pg_catalog.>=) $5 "
	"AND (o.owner IS NULL OR (o.owner OPERATOR(pg_catalog.<>) w.no "
	"AND o.owner OPERATOR(pg_catalog.<>) f.no)) "
	"AND NOT EXISTS (SELECT 1 FROM entanglement.parked p "
	"WHERE p.rel OPERATOR(pg_catalog.=) $1 AND p.key OPERATOR(pg_catalog.=) $2) "
	"AND NOT EXISTS (SELECT 1 FROM entanglement.arrears a "
	"WHERE a.rel OPERATOR(pg_catalog.=) $1 "
	"AND a.owner OPERATOR(pg_catalog.=) ANY (ARRAY[w.no, f.no])) "
	"AND (f.epoch, CASE WHEN f.local THEN f.serial ELSE f.sure END) "
	"OPERATOR(pg_catalog.>=) ($7, $8) ON CONFLICT DO NOTHING",
	8, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID, UUIDOID, INT4OID, INT8OID}, NULL
};

/* Is there anything to tell of it? What is unconfirmed here, too, is not. */
static EntQuery told_query = {
	"SELECT 1 FROM entanglement.object o WHERE o.rel OPERATOR(pg_catalog.=) $1 "
	"AND o.key OPERATOR(pg_catalog.=) $2 AND o.owner OPERATOR(pg_catalog.=) $3 "
	"AND o.born OPERATOR(pg_catalog.>) 0 "
	"UNION ALL SELECT 1 FROM entanglement.tombstone t "
	"WHERE t.owner OPERATOR(pg_catalog.=) $3 AND t.rel OPERATOR(pg_catalog.=) $1 "
	"AND t.key OPERATOR(pg_catalog.=) $2",
	3, {INT4OID, BYTEAOID, INT4OID}, NULL
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
	Datum		args[8];
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
	ent_query_run(&bury_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_query_run(&told_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		ent_outbound_ask_again(ob, t, owner, key);
	SPI_freetuptable(SPI_tuptable);
}
