/*
 * link/inconfirm.c
 *	  The receiving end: objects that were handed over, and of whose new owner
 *	  nothing has come for a while.
 *
 * Each is asked about at the peer from which the new owner's objects come, but only
 * if that peer has got it from us, or we from it, or if it is shown all of the table and has
 * come so far: else it would not know, and we may be the last who has it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "base/guc.h"
#include "link/inbound_private.h"
#include "store/query.h"
#include "store/value.h"

#define MAX_CONFIRM		1000	/* asked about at a time */

static EntQuery unconfirmed_query = {
	"SELECT i.rel, w.id, i.key, o.epoch, o.serial, f.id, i.from_epoch, i.from_serial "
	"FROM (SELECT * FROM entanglement.object u "
	"WHERE u.born OPERATOR(pg_catalog.=) 0 OFFSET 0) o "
	"JOIN entanglement.inherited i ON i.rel OPERATOR(pg_catalog.=) o.rel "
	"AND i.key OPERATOR(pg_catalog.=) o.key "
	"JOIN entanglement.owner w ON w.no OPERATOR(pg_catalog.=) o.owner "
	"AND w.peer OPERATOR(pg_catalog.=) $1 "
	"JOIN entanglement.owner f ON f.no OPERATOR(pg_catalog.=) i.from_owner "
	"WHERE (f.peer OPERATOR(pg_catalog.=) $1 OR $1 OPERATOR(pg_catalog.=) ANY (i.delivered) "
	/* or has heard of it by another way, and may see all */
	"OR (EXISTS (SELECT 1 FROM entanglement.shown s WHERE s.peer OPERATOR(pg_catalog.=) $1 "
	"AND s.rel OPERATOR(pg_catalog.=) i.rel AND s.kind OPERATOR(pg_catalog.=) 'a') "
	"AND EXISTS (SELECT 1 FROM entanglement.peer_owner h WHERE h.peer OPERATOR(pg_catalog.=) $1 "
	"AND h.owner OPERATOR(pg_catalog.=) i.from_owner "
	"AND (h.epoch, h.have) OPERATOR(pg_catalog.>=) (i.from_epoch, i.from_serial)))) "
	"AND o.changed_at OPERATOR(pg_catalog.+) ($2 OPERATOR(pg_catalog.*) '1 ms'::pg_catalog.interval) "
	"OPERATOR(pg_catalog.<) pg_catalog.clock_timestamp() LIMIT $3",
	3, {INT4OID, FLOAT8OID, INT8OID}, NULL
};

void
ent_inbound_write_confirms(EntInbound *ib, EntWriter *w)
{
	Datum		args[3] = {Int32GetDatum(ib->peer),
	Float8GetDatum((double) ent_retry_parked), Int64GetDatum(MAX_CONFIRM)};

	ent_query_run(&unconfirmed_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		null;
		int32		no = ent_query_int4(row, 1, NULL);
		EntRelation *rel = ent_relinfo_get(no);
		bytea	   *key = DatumGetByteaPP(ent_query_datum(row, 3, &null));
		EntWireConfirm c = {
			.epoch = ent_query_int4(row, 4, NULL),
			.serial = ent_query_int8(row, 5, NULL),
			.from_epoch = ent_query_int4(row, 7, NULL),
			.from_serial = ent_query_int8(row, 8, NULL)
		};

		if (rel == NULL ||
			!ent_inbound_sender_numbers(ib, DatumGetUUIDP(ent_query_datum(row, 2, &null)),
										no, &c.object))
			continue;
		c.object.key = ent_key_to_wire(rel, (uint8 *) VARDATA_ANY(key),
									   VARSIZE_ANY_EXHDR(key), &c.object.keylen);
		memcpy(c.from.bytes, DatumGetUUIDP(ent_query_datum(row, 6, &null))->data,
			   UUID_LEN);
		ent_wire_write_confirm(w, &c);
	}
	SPI_freetuptable(SPI_tuptable);
}
