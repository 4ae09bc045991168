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
#include "step/decode_digest.h"
#include "step/decode_row.h"
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

/* Is this column known to be as it was? Notes what it is now. */
static bool
is_same(uint64 *digest, Row *n, Row *o, int i, Form_pg_attribute att)
{
	uint64		was = *digest;

	if (o != NULL)
	{
		*digest = 0;
		return n->nulls[i] == o->nulls[i] &&
			(n->nulls[i] || datum_image_eq(n->values[i], o->values[i],
										   att->attbyval, att->attlen));
	}
	*digest = ent_digest_value(n->values[i], n->nulls[i], att->attbyval, att->attlen);
	return was == *digest;
}

bytea *
ent_decode_changed(EntRelation *root, Relation rel, bytea *key, HeapTuple old,
				   HeapTuple new)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		whole = old != NULL &&
		rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL;
	uint64	   *digests = ent_digest_of(root, key);
	Row		   *n = deform(rel, new);
	Row		   *o = whole ? deform(rel, old) : NULL;
	bytea	   *result = palloc0(VARHDRSZ + ENT_SET_MAX_BYTES);
	uint8	   *set = (uint8 *) VARDATA(result);
	int			len = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		EntColumn  *col = column_of(root, rel, att);
		int			bit = col ? col->attnum - 1 : 0;

		if (col == NULL || is_untold(n, i, att) ||
			is_same(&digests[bit], n, o, i, att))
			continue;
		set[bit / 8] |= 1 << (bit % 8);
		len = Max(len, bit / 8 + 1);
	}
	pfree(n);
	if (o)
		pfree(o);
	SET_VARSIZE(result, VARHDRSZ + len);
	return len == 0 ? NULL : result;
}
