/*
 * store/value.c
 *	  Values as bytes, independent of any session's settings.
 *
 * Built-in types go in the binary form of their send functions, others as
 * text under pinned settings; text is UTF-8 whatever the database's encoding.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/xml.h"

#include "rule/wire.h"
#include "store/value.h"

/* Settings that input and output functions listen to. */
typedef enum Setting
{
	PINNED_CLIENT_ENCODING = 0,
	PINNED_SEARCH_PATH,
	PINNED_DATE_STYLE,
	PINNED_INTERVAL_STYLE,
	PINNED_TIME_ZONE,
	PINNED_FLOAT_DIGITS,
	PINNED_BYTEA_OUTPUT,
	PINNED_XML_OPTION,
	PINNED_ARRAY_NULLS,
	PINNED_LC_MONETARY,
	/* ... and what the parser listens to */
	PINNED_CONFORMING_STRINGS,
	PINNED_NULL_EQUALS
} Setting;

static const struct
{
	const char *name;
	const char *value;
}			pinned[] =
{
	[PINNED_CLIENT_ENCODING] = {"client_encoding", "UTF8"},
	[PINNED_SEARCH_PATH] = {"search_path", "pg_catalog, pg_temp"},
	[PINNED_DATE_STYLE] = {"DateStyle", "ISO, YMD"},
	[PINNED_INTERVAL_STYLE] = {"IntervalStyle", "postgres"},
	[PINNED_TIME_ZONE] = {"TimeZone", "UTC"},
	[PINNED_FLOAT_DIGITS] = {"extra_float_digits", "3"},
	[PINNED_BYTEA_OUTPUT] = {"bytea_output", "hex"},
	[PINNED_XML_OPTION] = {"xmloption", "content"},
	[PINNED_ARRAY_NULLS] = {"array_nulls", "on"},
	[PINNED_LC_MONETARY] = {"lc_monetary", "C"},
	[PINNED_CONFORMING_STRINGS] = {"standard_conforming_strings", "on"},
	[PINNED_NULL_EQUALS] = {"transform_null_equals", "off"},
};

/* Is it as above? Its variable is asked: to look it up by name takes 2 us. */
static bool
is_pinned(Setting which)
{
	switch (which)
	{
		case PINNED_CLIENT_ENCODING:
			return pg_get_client_encoding() == PG_UTF8;
		case PINNED_SEARCH_PATH:
			return strcmp(namespace_search_path, pinned[which].value) == 0;
		case PINNED_DATE_STYLE:
			return DateStyle == USE_ISO_DATES && DateOrder == DATEORDER_YMD;
		case PINNED_INTERVAL_STYLE:
			return IntervalStyle == INTSTYLE_POSTGRES;
		case PINNED_TIME_ZONE:
			return strcmp(pg_get_timezone_name(session_timezone), "UTC") == 0 ||
				strcmp(pg_get_timezone_name(session_timezone), "Etc/UTC") == 0;
		case PINNED_FLOAT_DIGITS:
			return extra_float_digits == 3;
		case PINNED_BYTEA_OUTPUT:
			return bytea_output == BYTEA_OUTPUT_HEX;
		case PINNED_XML_OPTION:
			return xmloption == XMLOPTION_CONTENT;
		case PINNED_ARRAY_NULLS:
			return Array_nulls;
		case PINNED_LC_MONETARY:		/* its header wants those of ICU */
			return strcmp(GetConfigOption(pinned[which].name, false, false),
						  pinned[which].value) == 0;
		case PINNED_CONFORMING_STRINGS:
			return standard_conforming_strings;
		case PINNED_NULL_EQUALS:
			return !Transform_null_equals;
	}
	return false;
}

int
ent_value_enter(void)
{
	int			nestlevel = NewGUCNestLevel();

	for (int i = 0; i < lengthof(pinned); i++)
		if (!is_pinned((Setting) i))
			(void) set_config_option(pinned[i].name, pinned[i].value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	return nestlevel;
}

void
ent_value_leave(int nestlevel)
{
	AtEOXact_GUC(true, nestlevel);
}

/* ---- types ---- */

/* Types whose binary form names something of this database, or cannot be read. */
static const Oid local_types[] = {
	REGPROCOID, REGPROCEDUREOID, REGOPEROID, REGOPERATOROID, REGCLASSOID,
	REGCOLLATIONOID, REGTYPEOID, REGROLEOID, REGNAMESPACEOID, REGCONFIGOID,
	REGDICTIONARYOID, XMLOID, ACLITEMOID, PG_NODE_TREEOID, PG_NDISTINCTOID,
	PG_DEPENDENCIESOID, PG_MCV_LISTOID, PG_BRIN_BLOOM_SUMMARYOID,
	PG_BRIN_MINMAX_MULTI_SUMMARYOID
};

bool
ent_value_exchangeable(Oid type)
{
	HeapTuple	tup;
	Form_pg_type form;
	bool		result;

	for (int i = 0; i < lengthof(local_types); i++)
		if (local_types[i] == type)
			return false;
	tup = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tup))
		return false;
	form = (Form_pg_type) GETSTRUCT(tup);
	result = OidIsValid(form->typsend) && OidIsValid(form->typreceive) &&
		form->typtype != TYPTYPE_PSEUDO;
	ReleaseSysCache(tup);
	return result;
}

bool
ent_value_binary(Oid type)
{
	Oid			part;

	if (type >= FirstNormalObjectId || !ent_value_exchangeable(type))
		return false;
	switch (get_typtype(type))
	{
		case TYPTYPE_BASE:
			part = get_element_type(type);
			return !OidIsValid(part) || ent_value_binary(part);
		case TYPTYPE_RANGE:
			return ent_value_binary(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return ent_value_binary(get_multirange_range(type));
		default:
			return false;
	}
}

Oid
ent_value_builtin_type(const char *schema, const char *name)
{
	Oid			type;

	if (strcmp(schema, "pg_catalog") != 0)
		return InvalidOid;
	type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
						   CStringGetDatum(name),
						   ObjectIdGetDatum(PG_CATALOG_NAMESPACE));
	return OidIsValid(type) && ent_value_binary(type) ? type : InvalidOid;
}

void
ent_value_type_name(EntColumn *col, const char **schema, const char **name)
{
	Oid			type = col->format == ENT_FORMAT_BINARY ? col->basetype : col->type;
	HeapTuple	tup = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tup);
	*schema = get_namespace_name(form->typnamespace);
	*name = pstrdup(NameStr(form->typname));
	ReleaseSysCache(tup);
	if (*schema == NULL)
		elog(ERROR, "cache lookup failed for the schema of type %u", type);
}

/* ---- values ---- */

const char *
ent_value_encode(EntColumn *col, Datum value, size_t *len)
{
	const char *data;

	if (col->format == ENT_FORMAT_BINARY)
	{
		bytea	   *bytes = SendFunctionCall(&col->out, value);

		data = VARDATA(bytes);
		*len = VARSIZE(bytes) - VARHDRSZ;
	}
	else
	{
		char	   *text = OutputFunctionCall(&col->out, value);

		*len = strlen(text);
		data = pg_server_to_any(text, *len, PG_UTF8);
		if (data != text)
			*len = strlen(data);
	}
	if (*len > ENT_WIRE_MAX_VALUE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value of column \"%s\" is too long to be sent to peers",
						col->name),
				 errdetail("It takes %zu bytes; the limit is %u.",
						   *len, ENT_WIRE_MAX_VALUE)));
	return data;
}

/* A string in the database encoding, NUL-terminated. */
static char *
text_from_wire(const char *data, size_t len)
{
	char	   *text = pg_any_to_server(data, len, PG_UTF8);

	return text == data ? pnstrdup(data, len) : text;
}

/* receive functions want a buffer of their own that ends with NUL */
static void
copy_to_buffer(StringInfo buf, const char *data, size_t len)
{
	initStringInfo(buf);
	appendBinaryStringInfo(buf, data, len);
}

static void
check_read_to_end(EntColumn *col, StringInfo buf)
{
	if (buf->cursor != buf->len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("incorrect binary data format for column \"%s\"",
						col->name)));
}

/* A binary value of another type, taken over through its text. */
static char *
text_of_other_type(EntColumn *col, Oid type, const char *data, size_t len)
{
	Oid			in,
				out,
				ioparam;
	bool		varlena;
	StringInfoData buf;
	Datum		value;

	getTypeBinaryInputInfo(type, &in, &ioparam);
	getTypeOutputInfo(type, &out, &varlena);
	copy_to_buffer(&buf, data, len);
	value = OidReceiveFunctionCall(in, &buf, ioparam, -1);
	check_read_to_end(col, &buf);
	pfree(buf.data);
	return OidOutputFunctionCall(out, value);
}

Datum
ent_value_decode(EntColumn *col, EntWireFormat format, Oid sender_type,
				 const char *data, size_t len)
{
	char	   *text;

	if (format == ENT_FORMAT_BINARY && sender_type == col->basetype &&
		OidIsValid(col->in_binary.fn_oid))
	{
		StringInfoData buf;
		Datum		value;

		copy_to_buffer(&buf, data, len);
		value = ReceiveFunctionCall(&col->in_binary, &buf,
									col->in_binary_ioparam, col->typmod);
		check_read_to_end(col, &buf);
		pfree(buf.data);
		return value;
	}
	if (format == ENT_FORMAT_TEXT)
		text = text_from_wire(data, len);
	else if (OidIsValid(sender_type))
		text = text_of_other_type(col, sender_type, data, len);
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" has a type on the sending side that is not known here",
						col->name)));
	return InputFunctionCall(&col->in_text, text, col->in_text_ioparam,
							 col->typmod);
}

/* ---- names ---- */

char *
ent_name_to_wire(const char *name)
{
	char	   *result = pg_server_to_any(name, strlen(name), PG_UTF8);

	return result == name ? pstrdup(name) : result;
}

/*
 * Character by character, since one without equivalent is to be told apart
 * from bytes that are no UTF-8.
 */
static char *
escaped_name(const char *name, int encoding)
{
	Oid			proc = FindDefaultConversionProc(PG_UTF8, encoding);
	StringInfoData out;
	int			len;

	if (!OidIsValid(proc))
		return text_from_wire(name, strlen(name));
	initStringInfo(&out);
	for (const char *p = name; *p; p += len)
	{
		unsigned char converted[MAX_CONVERSION_GROWTH * MAX_MULTIBYTE_CHAR_LEN + 1];

		len = pg_utf_mblen((const unsigned char *) p);
		if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
										  (unsigned char *) p, len, converted,
										  sizeof(converted), true) == len)
			appendStringInfoString(&out, (char *) converted);
		else
			appendStringInfo(&out, "\\%04X",
							 utf8_to_unicode((const unsigned char *) p));
	}
	return out.data;
}

char *
ent_name_from_wire(const char *name)
{
	int			encoding = GetDatabaseEncoding();

	(void) pg_verify_mbstr(PG_UTF8, name, strlen(name), false);
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return pstrdup(name);
	return escaped_name(name, encoding);
}
