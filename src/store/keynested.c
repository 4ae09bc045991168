/*
 * store/keynested.c
 *	  Arrays, ranges, multiranges and composites in a key image.
 *
 * Their image is made of the images of their parts, each after its length, and
 * the rest of what tells one value from another: dimensions, which bounds
 * there are and belong to it. A type of parts that cannot be in a key cannot
 * be in one itself.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "rule/wire.h"
#include "store/keytype_private.h"

#define RANGE_FLAGS \
	(RANGE_EMPTY | RANGE_LB_INC | RANGE_UB_INC | RANGE_LB_INF | RANGE_UB_INF)

/* ---- what can be in a key ---- */

/* Adds a part; false when it is of a type that no key can contain. */
static bool
add_part(EntKeyType *kt, Oid type, int32 typmod, Oid collation)
{
	EntKeyType *part = ent_keytype_make(type, typmod, collation);

	if (part == NULL)
		return false;
	kt->exact &= part->exact;
	kt->textual |= part->textual;
	kt->parts[kt->nparts++] = part;
	return true;
}

static bool
prepare_array(EntKeyType *kt, Oid element, Oid collation)
{
	kt->kind = ENT_KIND_ARRAY;
	kt->parts = palloc(sizeof(EntKeyType *));
	get_typlenbyvalalign(element, &kt->typlen, &kt->typbyval, &kt->typalign);
	return add_part(kt, element, kt->typmod, collation);
}

static bool
prepare_range(EntKeyType *kt)
{
	Oid			subtype;
	Oid			opclass;
	Oid			input;

	kt->kind = ENT_KIND_RANGE;
	kt->cache = lookup_type_cache(kt->type, TYPECACHE_RANGE_INFO);
	subtype = kt->cache->rngelemtype->type_id;
	opclass = GetDefaultOpClass(subtype, BTREE_AM_OID);
	if (!OidIsValid(opclass))
		return false;
	input = get_opclass_input_type(opclass);
	/* a range may have been made with another order than the usual one */
	if (get_opfamily_proc(get_opclass_family(opclass), input, input,
						  BTORDER_PROC) != kt->cache->rng_cmp_proc_finfo.fn_oid)
		return false;
	kt->parts = palloc(sizeof(EntKeyType *));
	return add_part(kt, subtype, -1, kt->cache->rng_collation);
}

static bool
prepare_multirange(EntKeyType *kt)
{
	kt->kind = ENT_KIND_MULTIRANGE;
	kt->parts = palloc(sizeof(EntKeyType *));
	if (!add_part(kt, get_multirange_range(kt->type), -1, InvalidOid))
		return false;
	kt->cache = kt->parts[0]->cache;
	return true;
}

static bool
prepare_row(EntKeyType *kt)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(kt->type, -1);

	kt->kind = ENT_KIND_ROW;
	kt->desc = desc;
	kt->parts = palloc(desc->natts * sizeof(EntKeyType *));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			kt->parts[kt->nparts++] = NULL;
		else if (!add_part(kt, att->atttypid, att->atttypmod,
						   att->attcollation))
			return false;
	}
	return true;
}

bool
ent_keynested_prepare(EntKeyType *kt, Oid collation)
{
	Oid			element = get_element_type(kt->type);

	if (OidIsValid(element))
		return prepare_array(kt, element, collation);
	switch (get_typtype(kt->type))
	{
		case TYPTYPE_RANGE:
			return prepare_range(kt);
		case TYPTYPE_MULTIRANGE:
			return prepare_multirange(kt);
		case TYPTYPE_COMPOSITE:
			return prepare_row(kt);
		default:
			return false;
	}
}

/* ---- encoding ---- */

static void
put_varint(StringInfo out, uint64 value)
{
	uint8		buf[ENT_WIRE_MAX_VARINT];

	appendBinaryStringInfo(out, (char *) buf,
						   ent_wire_encode_varint(buf, value));
}

/* A part of something: length plus one and the bytes, or 0 for NULL. */
static void
put_part(EntKeyType *kt, Datum value, bool isnull, StringInfo out)
{
	StringInfoData part;

	if (isnull)
	{
		put_varint(out, 0);
		return;
	}
	initStringInfo(&part);
	ent_keytype_encode(kt, value, &part);
	put_varint(out, (uint64) part.len + 1);
	appendBinaryStringInfo(out, part.data, part.len);
	pfree(part.data);
}

static void
put_array(EntKeyType *kt, ArrayType *array, StringInfo out)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	put_varint(out, ARR_NDIM(array));
	for (int i = 0; i < ARR_NDIM(array); i++)
	{
		put_varint(out, ARR_DIMS(array)[i]);
		put_varint(out, (uint32) ARR_LBOUND(array)[i]);
	}
	deconstruct_array(array, ARR_ELEMTYPE(array), kt->typlen, kt->typbyval,
					  kt->typalign, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
		put_part(kt->parts[0], values[i], nulls[i], out);
}

static void
put_range(EntKeyType *kt, RangeType *range, StringInfo out)
{
	RangeBound	lower,
				upper;
	bool		empty;

	range_deserialize(kt->cache, range, &lower, &upper, &empty);
	put_varint(out, range_get_flags(range) & RANGE_FLAGS);
	if (empty)
		return;
	put_part(kt->parts[0], lower.val, lower.infinite, out);
	put_part(kt->parts[0], upper.val, upper.infinite, out);
}

static void
put_multirange(EntKeyType *kt, MultirangeType *multirange, StringInfo out)
{
	RangeType **ranges;
	int32		n;

	multirange_deserialize(kt->cache, multirange, &n, &ranges);
	put_varint(out, n);
	for (int i = 0; i < n; i++)
		put_part(kt->parts[0], RangeTypePGetDatum(ranges[i]), false, out);
}

static void
put_row(EntKeyType *kt, HeapTupleHeader header, StringInfo out)
{
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),
	.t_data = header};
	Datum	   *values = palloc(kt->nparts * sizeof(Datum));
	bool	   *nulls = palloc(kt->nparts * sizeof(bool));

	ItemPointerSetInvalid(&tuple.t_self);
	heap_deform_tuple(&tuple, kt->desc, values, nulls);
	for (int i = 0; i < kt->nparts; i++)
		if (kt->parts[i] != NULL)
			put_part(kt->parts[i], values[i], nulls[i], out);
}

void
ent_keynested_encode(EntKeyType *kt, Datum value, StringInfo out)
{
	switch (kt->kind)
	{
		case ENT_KIND_ARRAY:
			put_array(kt, DatumGetArrayTypeP(value), out);
			break;
		case ENT_KIND_RANGE:
			put_range(kt, DatumGetRangeTypeP(value), out);
			break;
		case ENT_KIND_MULTIRANGE:
			put_multirange(kt, DatumGetMultirangeTypeP(value), out);
			break;
		default:
			put_row(kt, DatumGetHeapTupleHeader(value), out);
			break;
	}
}

/* ---- decoding ---- */

/* false: NULL, or nothing more */
static bool
get_part(EntReader *r, const uint8 **data, size_t *len)
{
	uint64		n = ent_wire_read_bounded(r, ENT_WIRE_MAX_KEY + 1);

	*data = NULL;
	*len = 0;
	if (n == 0)
		return false;
	*len = n - 1;
	*data = ent_wire_read_raw(r, *len);
	if (r->error != ENT_WIRE_OK)
		ent_keytype_malformed();
	return true;
}

static Datum
get_array(EntKeyType *kt, EntReader *r, bool foreign)
{
	int			ndim = ent_wire_read_bounded(r, MAXDIM);
	int			dims[MAXDIM] = {0};
	int			lbounds[MAXDIM] = {0};
	Datum	   *values;
	bool	   *nulls;
	int			n;

	for (int i = 0; i < ndim; i++)
	{
		dims[i] = ent_wire_read_bounded(r, ENT_WIRE_MAX_KEY);
		lbounds[i] = (int) ent_wire_read_bounded(r, PG_UINT32_MAX);
	}
	if (r->error != ENT_WIRE_OK)
		ent_keytype_malformed();
	n = ArrayGetNItems(ndim, dims);
	ArrayCheckBounds(ndim, dims, lbounds);
	/* each element takes a byte at least */
	if (n > r->end - r->p || (n == 0 && ndim > 0))
		ent_keytype_malformed();
	values = palloc0((n + 1) * sizeof(Datum));
	nulls = palloc0((n + 1) * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		const uint8 *data;
		size_t		len;

		nulls[i] = !get_part(r, &data, &len);
		if (!nulls[i])
			values[i] = ent_keytype_decode(kt->parts[0], data, len, foreign);
	}
	if (ndim == 0)
		return PointerGetDatum(construct_empty_array(get_element_type(kt->type)));
	return PointerGetDatum(construct_md_array(values, nulls, ndim, dims,
											  lbounds,
											  get_element_type(kt->type),
											  kt->typlen, kt->typbyval,
											  kt->typalign));
}

static void
get_bound(EntKeyType *kt, EntReader *r, bool foreign, bool infinite,
		  RangeBound *bound)
{
	const uint8 *data;
	size_t		len;

	bound->infinite = infinite;
	if (get_part(r, &data, &len) == infinite)
		ent_keytype_malformed();
	if (!infinite)
		bound->val = ent_keytype_decode(kt->parts[0], data, len, foreign);
}

static Datum
get_range(EntKeyType *kt, EntReader *r, bool foreign)
{
	unsigned	flags = ent_wire_read_bounded(r, RANGE_FLAGS);
	RangeBound	lower = {.inclusive = (flags & RANGE_LB_INC) != 0,.lower = true};
	RangeBound	upper = {.inclusive = (flags & RANGE_UB_INC) != 0,.lower = false};
	bool		empty = (flags & RANGE_EMPTY) != 0;

	if (r->error != ENT_WIRE_OK || (flags & ~RANGE_FLAGS) != 0)
		ent_keytype_malformed();
	if (!empty)
	{
		get_bound(kt, r, foreign, (flags & RANGE_LB_INF) != 0, &lower);
		get_bound(kt, r, foreign, (flags & RANGE_UB_INF) != 0, &upper);
	}
	return RangeTypePGetDatum(ent_compat_make_range(kt->cache, &lower, &upper,
													empty));
}

static Datum
get_multirange(EntKeyType *kt, EntReader *r, bool foreign)
{
	int			n = ent_wire_read_bounded(r, ENT_WIRE_MAX_KEY);
	RangeType **ranges;

	if (r->error != ENT_WIRE_OK || n > r->end - r->p)
		ent_keytype_malformed();
	ranges = palloc((n + 1) * sizeof(RangeType *));
	for (int i = 0; i < n; i++)
	{
		const uint8 *data;
		size_t		len;

		if (!get_part(r, &data, &len))
			ent_keytype_malformed();
		ranges[i] = DatumGetRangeTypeP(ent_keytype_decode(kt->parts[0], data,
														  len, foreign));
	}
	return MultirangeTypePGetDatum(make_multirange(kt->type, kt->cache, n,
												   ranges));
}

static Datum
get_row(EntKeyType *kt, EntReader *r, bool foreign)
{
	Datum	   *values = palloc0((kt->nparts + 1) * sizeof(Datum));
	bool	   *nulls = palloc0((kt->nparts + 1) * sizeof(bool));

	for (int i = 0; i < kt->nparts; i++)
	{
		const uint8 *data;
		size_t		len;

		nulls[i] = kt->parts[i] == NULL;
		if (nulls[i])
			continue;
		if (ent_wire_at_end(r))
			ent_keytype_malformed();
		nulls[i] = !get_part(r, &data, &len);
		if (!nulls[i])
			values[i] = ent_keytype_decode(kt->parts[i], data, len, foreign);
	}
	return HeapTupleGetDatum(heap_form_tuple(kt->desc, values, nulls));
}

Datum
ent_keynested_decode(EntKeyType *kt, const uint8 *data, size_t len,
					 bool foreign)
{
	EntReader	r;
	Datum		result;

	ent_wire_reader_init(&r, data, len);
	switch (kt->kind)
	{
		case ENT_KIND_ARRAY:
			result = get_array(kt, &r, foreign);
			break;
		case ENT_KIND_RANGE:
			result = get_range(kt, &r, foreign);
			break;
		case ENT_KIND_MULTIRANGE:
			result = get_multirange(kt, &r, foreign);
			break;
		default:
			result = get_row(kt, &r, foreign);
			break;
	}
	if (r.error != ENT_WIRE_OK || r.p != r.end)
		ent_keytype_malformed();
	return result;
}
