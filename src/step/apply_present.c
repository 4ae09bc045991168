/*
 * step/apply_present.c
 *	  What a peer says is all there is of an owner in a range of keys.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "step/apply_private.h"
#include "store/query.h"
#include "store/value.h"

static EntQuery absent_query = {
	"SELECT o.key, o.epoch, o.serial, o.born FROM entanglement.object o "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 AND o.owner OPERATOR(pg_catalog.=) $2 "
	"AND ($3 IS NULL OR o.key OPERATOR(pg_catalog.>) $3) "
	"AND ($4 IS NULL OR o.key OPERATOR(pg_catalog.<=) $4) "
	"AND (o.epoch OPERATOR(pg_catalog.<) $6 OR o.serial OPERATOR(pg_catalog.<=) $5) "
	/* what its owner was handed over he may not have yet */
	"AND o.born OPERATOR(pg_catalog.>) 0",
	6, {INT4OID, INT4OID, BYTEAOID, BYTEAOID, INT8OID, INT4OID}, NULL
};

static int
compare_keys(const void *a, const void *b)
{
	const EntApplyKey *x = a,
			   *y = b;
	int			c = memcmp(x->data, y->data, Min(x->len, y->len));

	return c != 0 ? c : (x->len > y->len) - (x->len < y->len);
}

/* Should it be on the list, and is not? */
static bool
is_absent(const EntApplyPresent *p, const EntApplyKey *key)
{
	if ((p->lo.data && compare_keys(key, &p->lo) <= 0) ||
		(p->hi.data && compare_keys(key, &p->hi) > 0))
		return false;
	return bsearch(key, p->keys, p->nkeys, sizeof(EntApplyKey),
				   compare_keys) == NULL;
}

static Datum
key_datum(const EntApplyKey *key)
{
	if (key->data == NULL)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len((const char *) key->data,
													key->len));
}

/*
 * The owner's objects that may be meant: those in the range, where local images
 * are in the order of the wire's.
 */
static void
read_candidates(EntApply *a, const EntApplyPresent *p, int64 serial)
{
	bool		ranged = ent_key_is_wire(a->rel);
	Datum		args[6] = {Int32GetDatum(a->rel->no), Int32GetDatum(a->owner),
		ranged ? key_datum(&p->lo) : (Datum) 0,
		ranged ? key_datum(&p->hi) : (Datum) 0,
	Int64GetDatum(serial), Int32GetDatum(a->epoch)};
	char		nulls[] = "      ";

	nulls[2] = args[2] ? ' ' : 'n';
	nulls[3] = args[3] ? ' ' : 'n';
	ent_query_run(&absent_query, args, nulls, SPI_OK_SELECT, NULL);
}

void
ent_apply_present(EntApply *a, EntApplyPresent *p, int64 serial)
{
	EntApplyRow *rows;
	SPITupleTable *found;
	uint64		n;
	int			absent = 0;

	qsort(p->keys, p->nkeys, sizeof(EntApplyKey), compare_keys);
	read_candidates(a, p, serial);
	found = SPI_tuptable;
	n = SPI_processed;
	rows = palloc0((n + 1) * sizeof(EntApplyRow));
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		bytea	   *local = DatumGetByteaPCopy(SPI_getbinval(found->vals[i],
														  found->tupdesc, 1, &null));
		EntApplyRow *r = &rows[absent];
		EntApplyKey key;

		key.data = ent_key_to_wire(a->rel, (uint8 *) VARDATA_ANY(local),
								   VARSIZE_ANY_EXHDR(local), &key.len);
		if (!is_absent(p, &key))
			continue;
		r->a = a;
		r->op = ENT_ROW_DELETE;
		r->flags = ENT_ROW_REFRESH;
		r->serial = ent_apply_last_serial(a,
										  DatumGetInt32(SPI_getbinval(found->vals[i],
																	  found->tupdesc, 2, &null)),
										  DatumGetInt64(SPI_getbinval(found->vals[i],
																	  found->tupdesc, 3, &null)));
		r->wirekey = key.data;
		r->wirekeylen = key.len;
		absent++;
	}
	SPI_freetuptable(found);
	ent_apply(rows, absent);
}
