/*
 * store/keytype.c
 *	  How values of a type go into a key image, and come out again.
 *
 * The usual types take a short way that makes the same bytes as their send
 * functions; every other type is asked for them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/stratnum.h"
#include "access/tupdesc.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/multirangetypes.h"
#include "utils/numeric.h"
#include "utils/rangetypes.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "rule/wire.h"
#include "store/keytype.h"
#include "store/value.h"

typedef enum Kind
{
	KIND_BYTE,					/* bool, "char" */
	KIND_INT2,
	KIND_INT4,					/* integers and what is stored as one */
	KIND_INT8,
	KIND_UUID,
	KIND_BYTES,
	KIND_TEXT,
	KIND_BPCHAR,
	KIND_NUMERIC,
	KIND_FLOAT4,
	KIND_FLOAT8,
	KIND_SEND,					/* whatever the send function says */
	KIND_ARRAY,
	KIND_RANGE,
	KIND_MULTIRANGE,
	KIND_ROW
} Kind;

struct EntKeyType
{
	Kind		kind;
	Oid			type;			/* below domains */
	Oid			domain;			/* the declared type, if it is a domain */
	void	   *domain_extra;
	int32		typmod;
	bool		exact;
	bool		textual;
	FmgrInfo	send;			/* leaves */
	FmgrInfo	receive;
	Oid			ioparam;
	MemoryContext context;
	/* of an array's element and of a range's and multirange's bounds */
	int16		typlen;
	bool		typbyval;
	char		typalign;
	TypeCacheEntry *cache;		/* of a range */
	TupleDesc	desc;			/* of a row */
	int			nparts;
	EntKeyType **parts;			/* NULL: dropped attribute */
};

/* Built-in types with a way of their own. */
static const struct
{
	Oid			type;
	Kind		kind;
	bool		exact;
	bool		textual;
}			known[] =
{
	{BOOLOID, KIND_BYTE, true, false},
	{CHAROID, KIND_BYTE, true, false},
	{INT2OID, KIND_INT2, true, false},
	{INT4OID, KIND_INT4, true, false},
	{OIDOID, KIND_INT4, true, false},
	{DATEOID, KIND_INT4, true, false},
	{INT8OID, KIND_INT8, true, false},
	{TIMEOID, KIND_INT8, true, false},
	{TIMESTAMPOID, KIND_INT8, true, false},
	{TIMESTAMPTZOID, KIND_INT8, true, false},
	{UUIDOID, KIND_UUID, true, false},
	{BYTEAOID, KIND_BYTES, true, false},
	{TEXTOID, KIND_TEXT, true, true},
	{VARCHAROID, KIND_TEXT, true, true},
	{BPCHAROID, KIND_BPCHAR, false, true},
	{NUMERICOID, KIND_NUMERIC, false, false},
	{FLOAT4OID, KIND_FLOAT4, false, false},
	{FLOAT8OID, KIND_FLOAT8, false, false},
};

/* ---- what can be in a key ---- */

/*
 * Does the default btree operator class promise that equal values have equal
 * images? As the backend's _bt_allequalimage asks.
 */
static bool
equal_image(Oid type, Oid collation)
{
	Oid			opclass = GetDefaultOpClass(type, BTREE_AM_OID);
	Oid			input;
	Oid			proc;

	if (!OidIsValid(opclass))
		return false;
	input = get_opclass_input_type(opclass);
	proc = get_opfamily_proc(get_opclass_family(opclass), input, input,
							 BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation,
										  ObjectIdGetDatum(input)));
}

static bool
prepare_leaf(EntKeyType *kt)
{
	Oid			function;
	bool		varlena;

	if (!ent_value_exchangeable(kt->type))
		return false;
	getTypeBinaryOutputInfo(kt->type, &function, &varlena);
	fmgr_info(function, &kt->send);
	getTypeBinaryInputInfo(kt->type, &function, &kt->ioparam);
	fmgr_info(function, &kt->receive);
	return true;
}

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
	kt->kind = KIND_ARRAY;
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

	kt->kind = KIND_RANGE;
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
	kt->kind = KIND_MULTIRANGE;
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

	kt->kind = KIND_ROW;
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

static bool
prepare_known(EntKeyType *kt)
{
	for (int i = 0; i < lengthof(known); i++)
		if (known[i].type == kt->type)
		{
			kt->kind = known[i].kind;
			kt->exact = known[i].exact;
			kt->textual = known[i].textual;
			return prepare_leaf(kt);
		}
	return false;
}

static bool
prepare(EntKeyType *kt, Oid collation)
{
	Oid			element;

	kt->exact = true;
	if (prepare_known(kt))
		return true;
	element = get_element_type(kt->type);
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
		case TYPTYPE_BASE:
		case TYPTYPE_ENUM:
			kt->kind = KIND_SEND;
			kt->textual = true;
			return prepare_leaf(kt) && equal_image(kt->type, collation);
		default:
			return false;
	}
}

EntKeyType *
ent_keytype_make(Oid type, int32 typmod, Oid collation)
{
	EntKeyType *kt = palloc0(sizeof(EntKeyType));

	check_stack_depth();
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		return NULL;
	kt->typmod = typmod;
	kt->type = getBaseTypeAndTypmod(type, &kt->typmod);
	kt->domain = kt->type == type ? InvalidOid : type;
	kt->context = CurrentMemoryContext;
	return prepare(kt, collation) ? kt : NULL;
}

bool
ent_keytype_exact(const EntKeyType *kt)
{
	return kt->exact;
}

bool
ent_keytype_textual(const EntKeyType *kt)
{
	return kt->textual;
}

int
ent_keytype_set_encoding(int encoding)
{
	int			before = pg_get_client_encoding();

	/* preparing is expensive, and seldom needed */
	if (encoding != before && SetClientEncoding(encoding) < 0 &&
		(PrepareClientEncoding(encoding) < 0 ||
		 SetClientEncoding(encoding) < 0))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("conversion between %s and %s is not supported",
						pg_encoding_to_char(encoding),
						GetDatabaseEncodingName())));
	return before;
}

/* ---- encoding ---- */

static void
put_bigendian(StringInfo out, uint64 value, int bytes)
{
	uint64		swapped = pg_hton64(value);

	appendBinaryStringInfo(out, (char *) &swapped + (8 - bytes), bytes);
}

static void
put_varint(StringInfo out, uint64 value)
{
	uint8		buf[ENT_WIRE_MAX_VARINT];

	appendBinaryStringInfo(out, (char *) buf,
						   ent_wire_encode_varint(buf, value));
}

static void
put_text(StringInfo out, const char *text, int len)
{
	char	   *converted = pg_server_to_client(text, len);

	appendBinaryStringInfo(out, converted,
						   converted == text ? len : strlen(converted));
}

static void
put_bytea(StringInfo out, bytea *bytes)
{
	appendBinaryStringInfo(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}

static void
put_float4(StringInfo out, float4 value)
{
	uint32		bits;

	if (value == 0)
		value = 0;
	else if (isnan(value))
		value = get_float4_nan();
	memcpy(&bits, &value, sizeof(bits));
	put_bigendian(out, bits, 4);
}

static void
put_float8(StringInfo out, float8 value)
{
	uint64		bits;

	if (value == 0)
		value = 0;
	else if (isnan(value))
		value = get_float8_nan();
	memcpy(&bits, &value, sizeof(bits));
	put_bigendian(out, bits, 8);
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

#define RANGE_FLAGS \
	(RANGE_EMPTY | RANGE_LB_INC | RANGE_UB_INC | RANGE_LB_INF | RANGE_UB_INF)

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
ent_keytype_encode(EntKeyType *kt, Datum value, StringInfo out)
{
	void	   *p;

	switch (kt->kind)
	{
		case KIND_BYTE:
			appendStringInfoChar(out, DatumGetChar(value));
			break;
		case KIND_INT2:
			put_bigendian(out, (uint16) DatumGetInt16(value), 2);
			break;
		case KIND_INT4:
			put_bigendian(out, DatumGetUInt32(value), 4);
			break;
		case KIND_INT8:
			put_bigendian(out, (uint64) DatumGetInt64(value), 8);
			break;
		case KIND_UUID:
			appendBinaryStringInfo(out, (char *) DatumGetUUIDP(value)->data,
								   UUID_LEN);
			break;
		case KIND_BYTES:
			put_bytea(out, DatumGetByteaPP(value));
			break;
		case KIND_TEXT:
			p = DatumGetTextPP(value);
			put_text(out, VARDATA_ANY(p), VARSIZE_ANY_EXHDR(p));
			break;
		case KIND_BPCHAR:
			p = DatumGetBpCharPP(value);
			put_text(out, VARDATA_ANY(p),
					 bpchartruelen(VARDATA_ANY(p), VARSIZE_ANY_EXHDR(p)));
			break;
		case KIND_NUMERIC:
			put_bytea(out, SendFunctionCall(&kt->send,
											DirectFunctionCall1(numeric_trim_scale,
																value)));
			break;
		case KIND_FLOAT4:
			put_float4(out, DatumGetFloat4(value));
			break;
		case KIND_FLOAT8:
			put_float8(out, DatumGetFloat8(value));
			break;
		case KIND_SEND:
			put_bytea(out, SendFunctionCall(&kt->send, value));
			break;
		case KIND_ARRAY:
			put_array(kt, DatumGetArrayTypeP(value), out);
			break;
		case KIND_RANGE:
			put_range(kt, DatumGetRangeTypeP(value), out);
			break;
		case KIND_MULTIRANGE:
			put_multirange(kt, DatumGetMultirangeTypeP(value), out);
			break;
		case KIND_ROW:
			put_row(kt, DatumGetHeapTupleHeader(value), out);
			break;
	}
}

/* ---- decoding ---- */

static void
malformed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("malformed key")));
}

static uint64
get_bigendian(const uint8 *data, size_t len, size_t bytes)
{
	uint64		value = 0;

	if (len != bytes)
		malformed();
	for (size_t i = 0; i < len; i++)
		value = value << 8 | data[i];
	return value;
}

static Datum
receive(EntKeyType *kt, const uint8 *data, size_t len)
{
	StringInfoData buf;
	Datum		result;

	/* receive functions want a buffer of their own that ends with NUL */
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, (const char *) data, len);
	result = ReceiveFunctionCall(&kt->receive, &buf, kt->ioparam, kt->typmod);
	if (buf.cursor != buf.len)
		malformed();
	pfree(buf.data);
	return result;
}

static Datum
get_uuid(const uint8 *data, size_t len)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	if (len != UUID_LEN)
		malformed();
	memcpy(uuid->data, data, UUID_LEN);
	return UUIDPGetDatum(uuid);
}

/* What this backend itself wrote, in the database's encoding. */
static Datum
get_leaf(EntKeyType *kt, const uint8 *data, size_t len)
{
	switch (kt->kind)
	{
		case KIND_BYTE:
			return CharGetDatum((char) get_bigendian(data, len, 1));
		case KIND_INT2:
			return Int16GetDatum((int16) get_bigendian(data, len, 2));
		case KIND_INT4:
			return Int32GetDatum((int32) get_bigendian(data, len, 4));
		case KIND_INT8:
			return Int64GetDatum((int64) get_bigendian(data, len, 8));
		case KIND_UUID:
			return get_uuid(data, len);
		case KIND_BYTES:
		case KIND_TEXT:
			return PointerGetDatum(cstring_to_text_with_len((const char *) data,
															len));
		default:
			return receive(kt, data, len);
	}
}

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
		malformed();
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
		malformed();
	n = ArrayGetNItems(ndim, dims);
	ArrayCheckBounds(ndim, dims, lbounds);
	/* each element takes a byte at least */
	if (n > r->end - r->p || (n == 0 && ndim > 0))
		malformed();
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
		malformed();
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
		malformed();
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
		malformed();
	ranges = palloc((n + 1) * sizeof(RangeType *));
	for (int i = 0; i < n; i++)
	{
		const uint8 *data;
		size_t		len;

		if (!get_part(r, &data, &len))
			malformed();
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
			malformed();
		nulls[i] = !get_part(r, &data, &len);
		if (!nulls[i])
			values[i] = ent_keytype_decode(kt->parts[i], data, len, foreign);
	}
	return HeapTupleGetDatum(heap_form_tuple(kt->desc, values, nulls));
}

static Datum
get_container(EntKeyType *kt, const uint8 *data, size_t len, bool foreign)
{
	EntReader	r;
	Datum		result;

	ent_wire_reader_init(&r, data, len);
	switch (kt->kind)
	{
		case KIND_ARRAY:
			result = get_array(kt, &r, foreign);
			break;
		case KIND_RANGE:
			result = get_range(kt, &r, foreign);
			break;
		case KIND_MULTIRANGE:
			result = get_multirange(kt, &r, foreign);
			break;
		default:
			result = get_row(kt, &r, foreign);
			break;
	}
	if (r.error != ENT_WIRE_OK || r.p != r.end)
		malformed();
	return result;
}

Datum
ent_keytype_decode(EntKeyType *kt, const uint8 *data, size_t len, bool foreign)
{
	Datum		result;

	check_stack_depth();
	if (kt->kind >= KIND_ARRAY)
		result = get_container(kt, data, len, foreign);
	else if (foreign)
		result = receive(kt, data, len);
	else
		result = get_leaf(kt, data, len);
	if (foreign && OidIsValid(kt->domain))
		domain_check(result, false, kt->domain, &kt->domain_extra,
					 kt->context);
	return result;
}
