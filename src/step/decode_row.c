/*
 * step/decode_row.c
 *	  A row as the log tells it, in terms of the synchronized table.
 *
 * Runs under a historic snapshot: touches catalogs only. The root's columns
 * are found by number, a partition's by name; what cannot be told counts as
 * changed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "utils/datum.h"
#include "utils/relcache.h"

#include "base/compat.h"
#include "rule/coalesce.h"
#include "step/decode_row.h"
#include "store/rowdigest.h"
#include "store/value.h"

typedef struct Row
{
	Datum		values[MaxTupleAttributeNumber];
	bool		nulls[MaxTupleAttributeNumber];
} Row;

static Row *
deform(Relation rel, HeapTuple tuple)
{
	Row		   *r = palloc(sizeof(Row));

	heap_deform_tuple(tuple, RelationGetDescr(rel), r->values, r->nulls);
	return r;
}

/* The column of the root that an attribute of rel is; NULL: none now. */
static EntColumn *
column_of(EntRelation *root, Relation rel, Form_pg_attribute att)
{
	if (att->attisdropped)
		return NULL;
	if (RelationGetRelid(rel) != root->relid)
		return ent_relinfo_column(root, NameStr(att->attname));
	for (int i = 0; i < root->ncolumns; i++)
		if (root->columns[i].attnum == att->attnum)
			return &root->columns[i];
	return NULL;
}

/* Stored apart, and the log has not got it: as it was before. */
static bool
is_untold(Row *r, int i, Form_pg_attribute att)
{
	return att->attlen == -1 && !r->nulls[i] &&
		VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(r->values[i]));
}

bytea *
ent_decode_key(EntRelation *root, Relation rel, HeapTuple row, HeapTuple other)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Row		   *r = deform(rel, row);
	Row		   *o = other ? deform(rel, other) : NULL;
	Datum		values[ENT_WIRE_MAX_KEYS];
	int			n = 0;
	bytea	   *key;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col = column_of(root, rel, att);
		Row		   *from = r;

		if (col == NULL || col->key == 0)
			continue;
		if (is_untold(r, i, att) && o != NULL)
			from = o;
		if (from->nulls[i] || is_untold(from, i, att) ||
			att->atttypid != col->type)
			return NULL;
		values[col->key - 1] = from->values[i];
		n++;
	}
	key = n == root->nkeys ? ent_key_image(root, values) : NULL;
	pfree(r);
	if (o)
		pfree(o);
	return key;
}

bool
ent_decode_tells_key(EntRelation *root, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *told;
	int			n = 0;

	if (rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return true;
	told = RelationGetIdentityKeyBitmap(rel);
	for (int i = -1; (i = bms_next_member(told, i)) >= 0;)
	{
		int			attnum = i + FirstLowInvalidHeapAttributeNumber;
		EntColumn  *col = attnum <= 0 ? NULL :
			column_of(root, rel, TupleDescAttr(desc, attnum - 1));

		n += col != NULL && col->key != 0;
	}
	bms_free(told);
	return n == root->nkeys;
}

/* By attribute number of the root less one; of what is not told nothing is known. */
static EntDigest *
digests_of(EntRelation *root, Relation rel, Row *r)
{
	TupleDesc	desc = RelationGetDescr(rel);
	EntDigest  *digests = palloc0(root->natts * sizeof(EntDigest));

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col = column_of(root, rel, att);

		if (col != NULL && !is_untold(r, i, att))
			digests[col->attnum - 1] =
				ent_digest_of(r->values[i], r->nulls[i], att->attbyval, att->attlen);
	}
	return digests;
}

/* Bitmap of the columns that are others now. */
static bytea *
compare(EntRelation *root, Relation rel, Row *n, Row *o)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bytea	   *result = palloc0(VARHDRSZ + ENT_SET_MAX_BYTES);
	uint8	   *set = (uint8 *) VARDATA(result);
	int			len = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col = column_of(root, rel, att);
		int			bit = col ? col->attnum - 1 : 0;

		if (col == NULL || is_untold(n, i, att))
			continue;
		if (n->nulls[i] == o->nulls[i] &&
			(n->nulls[i] || datum_image_eq(n->values[i], o->values[i],
										   att->attbyval, att->attlen)))
			continue;
		set[bit / 8] |= 1 << (bit % 8);
		len = Max(len, bit / 8 + 1);
	}
	SET_VARSIZE(result, VARHDRSZ + len);
	return result;
}

bytea *
ent_decode_digests(EntRelation *root, Relation rel, HeapTuple old, HeapTuple new,
				   bytea **columns)
{
	Row		   *n = deform(rel, new);
	EntDigest  *digests = digests_of(root, rel, n);
	bytea	   *packed = ent_digest_pack(digests, root->natts);

	*columns = NULL;
	if (old != NULL && rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
	{
		Row		   *o = deform(rel, old);

		*columns = compare(root, rel, n, o);
		pfree(o);
	}
	pfree(digests);
	pfree(n);
	return packed;
}
