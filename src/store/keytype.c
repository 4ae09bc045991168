/*
 * store/keytype.c
 *	  How values of a type go into a key image, and come out again.
 *
 * The usual types take a short way that makes the same bytes as their send
 * functions; every other type is asked for them. What is made of values of
 * other types is the business of store/keynested.c.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

#include "store/keytype_private.h"
#include "store/value.h"

/* Built-in types with a way of their own. */
static const struct
{
	Oid			type;
	EntKeyKind	kind;
	bool		exact;
	bool		textual;
}			known[] =
{
	{BOOLOID, ENT_KIND_BYTE, true, false},
	{CHAROID, ENT_KIND_BYTE, true, false},
	{INT2OID, ENT_KIND_INT2, true, false},
	{INT4OID, ENT_KIND_INT4, true, false},
	{OIDOID, ENT_KIND_INT4, true, false},
	{DATEOID, ENT_KIND_INT4, true, false},
	{INT8OID, ENT_KIND_INT8, true, false},
	{TIMEOID, ENT_KIND_INT8, true, false},
	{TIMESTAMPOID, ENT_KIND_INT8, true, false},
	{TIMESTAMPTZOID, ENT_KIND_INT8, true, false},
	{UUIDOID, ENT_KIND_UUID, true, false},
	{BYTEAOID, ENT_KIND_BYTES, true, false},
	{TEXTOID, ENT_KIND_TEXT, true, true},
	{VARCHAROID, ENT_KIND_TEXT, true, true},
	{BPCHAROID, ENT_KIND_BPCHAR, false, true},
	{NUMERICOID, ENT_KIND_NUMERIC, false, false},
	{FLOAT4OID, ENT_KIND_FLOAT4, false, false},
	{FLOAT8OID, ENT_KIND_FLOAT8, false, false},
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
	char		typtype;

	kt->exact = true;
	if (prepare_known(kt))
		return true;
	typtype = get_typtype(kt->type);
	if (OidIsValid(get_element_type(kt->type)) ||
		(typtype != TYPTYPE_BASE && typtype != TYPTYPE_ENUM))
		return ent_keynested_prepare(kt, collation);
	kt->kind = ENT_KIND_SEND;
	kt->textual = true;
	return prepare_leaf(kt) && equal_image(kt->type, collation);
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

void
ent_keytype_encode(EntKeyType *kt, Datum value, StringInfo out)
{
	void	   *p;

	switch (kt->kind)
	{
		case ENT_KIND_BYTE:
			appendStringInfoChar(out, DatumGetChar(value));
			break;
		case ENT_KIND_INT2:
			put_bigendian(out, (uint16) DatumGetInt16(value), 2);
			break;
		case ENT_KIND_INT4:
			put_bigendian(out, DatumGetUInt32(value), 4);
			break;
		case ENT_KIND_INT8:
			put_bigendian(out, (uint64) DatumGetInt64(value), 8);
			break;
		case ENT_KIND_UUID:
			appendBinaryStringInfo(out, (char *) DatumGetUUIDP(value)->data,
								   UUID_LEN);
			break;
		case ENT_KIND_BYTES:
			put_bytea(out, DatumGetByteaPP(value));
			break;
		case ENT_KIND_TEXT:
			p = DatumGetTextPP(value);
			put_text(out, VARDATA_ANY(p), VARSIZE_ANY_EXHDR(p));
			break;
		case ENT_KIND_BPCHAR:
			p = DatumGetBpCharPP(value);
			put_text(out, VARDATA_ANY(p),
					 bpchartruelen(VARDATA_ANY(p), VARSIZE_ANY_EXHDR(p)));
			break;
		case ENT_KIND_NUMERIC:
			put_bytea(out, SendFunctionCall(&kt->send,
											DirectFunctionCall1(numeric_trim_scale,
																value)));
			break;
		case ENT_KIND_FLOAT4:
			put_float4(out, DatumGetFloat4(value));
			break;
		case ENT_KIND_FLOAT8:
			put_float8(out, DatumGetFloat8(value));
			break;
		case ENT_KIND_SEND:
			put_bytea(out, SendFunctionCall(&kt->send, value));
			break;
		case ENT_KIND_ARRAY:
		case ENT_KIND_RANGE:
		case ENT_KIND_MULTIRANGE:
		case ENT_KIND_ROW:
			ent_keynested_encode(kt, value, out);
			break;
	}
}

/* ---- decoding ---- */

void
ent_keytype_malformed(void)
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
		ent_keytype_malformed();
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
		ent_keytype_malformed();
	pfree(buf.data);
	return result;
}

static Datum
get_uuid(const uint8 *data, size_t len)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	if (len != UUID_LEN)
		ent_keytype_malformed();
	memcpy(uuid->data, data, UUID_LEN);
	return UUIDPGetDatum(uuid);
}

/* What this backend itself wrote, in the database's encoding. */
static Datum
get_leaf(EntKeyType *kt, const uint8 *data, size_t len)
{
	switch (kt->kind)
	{
		case ENT_KIND_BYTE:
			return CharGetDatum((char) get_bigendian(data, len, 1));
		case ENT_KIND_INT2:
			return Int16GetDatum((int16) get_bigendian(data, len, 2));
		case ENT_KIND_INT4:
			return Int32GetDatum((int32) get_bigendian(data, len, 4));
		case ENT_KIND_INT8:
			return Int64GetDatum((int64) get_bigendian(data, len, 8));
		case ENT_KIND_UUID:
			return get_uuid(data, len);
		case ENT_KIND_BYTES:
		case ENT_KIND_TEXT:
			return PointerGetDatum(cstring_to_text_with_len((const char *) data,
															len));
		default:
			return receive(kt, data, len);
	}
}

Datum
ent_keytype_decode(EntKeyType *kt, const uint8 *data, size_t len, bool foreign)
{
	Datum		result;

	check_stack_depth();
	if (kt->kind >= ENT_KIND_ARRAY)
		result = ent_keynested_decode(kt, data, len, foreign);
	else if (foreign)
		result = receive(kt, data, len);
	else
		result = get_leaf(kt, data, len);
	if (foreign && OidIsValid(kt->domain))
		domain_check(result, false, kt->domain, &kt->domain_extra,
					 kt->context);
	return result;
}
