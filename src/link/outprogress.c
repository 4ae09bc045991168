/*
 * link/outprogress.c
 *	  The sending end: how far the peer is with what it is sent as a whole.
 *
 * Counted only when a scan finds more than one chunk, and shown in shared memory
 * after each batch as long as that lasts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/hsearch.h"

#include "link/outbound_private.h"
#include "store/query.h"

static EntQuery count_query = {
	"SELECT rel, pg_catalog.count(*) FROM entanglement.object "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND serial OPERATOR(pg_catalog.>) $2 "
	"AND ($3 OPERATOR(pg_catalog.=) 0 OR rel OPERATOR(pg_catalog.=) $3) GROUP BY rel",
	3, {INT4OID, INT8OID, INT4OID}, NULL
};

void
ent_outbound_count_copies(EntOutbound *ob, int32 owner, int32 rel, int64 behind,
						  Snapshot snapshot)
{
	Datum		args[3] = {Int32GetDatum(owner), Int64GetDatum(behind),
	Int32GetDatum(rel)};

	ent_query_run(&count_query, args, NULL, SPI_OK_SELECT, snapshot);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int32		no = ent_query_int4(row, 1, NULL);
		EntOutTable *t = hash_search(ob->tables, &no, HASH_FIND, NULL);

		if (t == NULL || !t->known || t->idle)
			continue;
		if (t->to_copy == 0)
			t->copying_since = GetCurrentTimestamp();
		t->to_copy += ent_query_int8(row, 2, NULL);
		ob->copying = ob->copies_moved = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

void
ent_outbound_copied(EntOutbound *ob, EntOutTable *t)
{
	/* what changes meanwhile is met again by the scan */
	t->copied++;
	ob->copies_moved = true;
}

void
ent_outbound_show_copies(EntOutbound *ob, bool caught_up)
{
	EntCopyProgress copies[ENT_MAX_COPIES];
	HASH_SEQ_STATUS seq;
	EntOutTable *t;
	int			n = 0;

	if (!caught_up && !ob->copies_moved)
		return;
	hash_seq_init(&seq, ob->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		if (caught_up)
			t->copied = t->to_copy = 0;
		if (t->to_copy > 0 && n < ENT_MAX_COPIES)
			copies[n++] = (EntCopyProgress) {
				.rel = t->no, .since = t->copying_since,
				.done = Min(t->copied, t->to_copy), .total = t->to_copy
			};
	}
	ent_shmem_show_copies(ob->slot, copies, n);
	ob->copies_moved = false;
	ob->copying = !caught_up;
}
