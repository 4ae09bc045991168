/*
 * store/key.c
 *	  Key images: a length and the bytes of each key column, in key order.
 *
 * The bytes of one column are the business of store/keytype.c; here they
 * are put together, taken apart, and carried between encodings.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "rule/wire.h"
#include "store/keytype.h"
#include "store/query.h"
#include "store/value.h"

/* How much of one value, and of all, people get to see. */
#define TEXT_VALUE_MAX	60
#define TEXT_MAX		200

static EntColumn *
key_column(EntRelation *rel, int i)
{
	return &rel->columns[rel->keys[i]];
}

static bool
textual(EntRelation *rel)
{
	for (int i = 0; i < rel->nkeys; i++)
		if (ent_keytype_textual(key_column(rel, i)->keytype))
			return true;
	return false;
}

/* ---- work that needs the client's encoding to be a certain one ---- */

typedef struct Job
{
	EntRelation *rel;
	const Datum *in;
	Datum	   *out;
	const uint8 *key;
	size_t		len;
	bool		foreign;
	StringInfoData buf;
} Job;

static void
run(Job *job, void (*work) (Job *job), int encoding)
{
	int			before;

	if (pg_get_client_encoding() == encoding || !textual(job->rel))
	{
		work(job);
		return;
	}
	before = ent_keytype_set_encoding(encoding);
	PG_TRY();
	{
		work(job);
	}
	PG_FINALLY();
	{
		(void) SetClientEncoding(before);
	}
	PG_END_TRY();
}

/* The encoding of text on the wire. */
static int
wire_encoding(void)
{
	return GetDatabaseEncoding() == PG_SQL_ASCII ? PG_SQL_ASCII : PG_UTF8;
}

/* ---- putting together ---- */

/*
 * Appends one column. Its length is put in front afterwards: one byte is
 * reserved, which is nearly always enough.
 */
static void
append_column(StringInfo buf, EntKeyType *kt, Datum value)
{
	int			start = buf->len;
	int			len;
	uint8		varint[ENT_WIRE_MAX_VARINT];
	int			n;

	appendStringInfoCharMacro(buf, '\0');
	ent_keytype_encode(kt, value, buf);
	len = buf->len - start - 1;
	n = ent_wire_encode_varint(varint, len);
	if (n > 1)
	{
		enlargeStringInfo(buf, n - 1);
		memmove(buf->data + start + n, buf->data + start + 1, len);
		buf->len += n - 1;
	}
	memcpy(buf->data + start, varint, n);
}

/* The image behind room for a varlena header. */
static void
build(Job *job)
{
	StringInfo	buf = &job->buf;

	/* a StringInfo of its usual size would be much too large */
	buf->data = palloc(64);
	buf->maxlen = 64;
	buf->len = VARHDRSZ;
	buf->cursor = 0;
	for (int i = 0; i < job->rel->nkeys; i++)
		append_column(buf, key_column(job->rel, i)->keytype, job->in[i]);
	SET_VARSIZE(buf->data, buf->len);
}

bytea *
ent_key_image(EntRelation *rel, const Datum *values)
{
	Job			job = {.rel = rel, .in = values};
	int			len;

	run(&job, build, GetDatabaseEncoding());
	len = job.buf.len - VARHDRSZ;
	if (len > ENT_KEY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("key of a row of synchronized table \"%s\" is too long",
						rel->name),
				 errdetail("It takes %d bytes; the limit is %d.",
						   len, ENT_KEY_MAX)));
	return (bytea *) job.buf.data;
}

/* ---- taking apart ---- */

static void
parse(Job *job)
{
	EntReader	r;

	ent_wire_reader_init(&r, job->key, job->len);
	for (int i = 0; i < job->rel->nkeys; i++)
	{
		size_t		len;
		const uint8 *data = ent_wire_read_bytes(&r, ENT_WIRE_MAX_KEY, &len);

		if (r.error != ENT_WIRE_OK)
			break;
		job->out[i] = ent_keytype_decode(key_column(job->rel, i)->keytype,
										 data, len, job->foreign);
	}
	if (r.error != ENT_WIRE_OK || r.p != r.end)
		ereport(ERROR,
				(errcode(job->foreign ? ERRCODE_INVALID_BINARY_REPRESENTATION :
						 ERRCODE_DATA_CORRUPTED),
				 errmsg("malformed key of table \"%s\"", job->rel->name)));
}

void
ent_key_values(EntRelation *rel, const uint8 *key, size_t len, Datum *values)
{
	Job			job = {.rel = rel, .key = key, .len = len, .out = values};

	run(&job, parse, GetDatabaseEncoding());
}

/* ---- the wire ---- */

bool
ent_key_is_wire(EntRelation *rel)
{
	return wire_encoding() == GetDatabaseEncoding() || !textual(rel);
}

const uint8 *
ent_key_to_wire(EntRelation *rel, const uint8 *key, size_t len, size_t *outlen)
{
	Datum		values[ENT_WIRE_MAX_KEYS];
	Job			job = {.rel = rel, .in = values};

	*outlen = len;
	if (ent_key_is_wire(rel))
		return key;
	ent_key_values(rel, key, len, values);
	run(&job, build, wire_encoding());
	*outlen = job.buf.len - VARHDRSZ;
	return (uint8 *) job.buf.data + VARHDRSZ;
}

static void
parse_foreign(void *arg)
{
	run(arg, parse, wire_encoding());
}

bytea *
ent_key_from_wire(EntRelation *rel, Oid role, const uint8 *key, size_t len,
				  Datum *values)
{
	Job			job = {.rel = rel, .key = key, .len = len, .out = values,
	.foreign = true};

	ent_query_as(role, parse_foreign, &job);
	return ent_key_image(rel, values);
}

/* ---- for people ---- */

static void
append_clipped(StringInfo out, const char *text, int max)
{
	int			len = strlen(text);
	int			clipped = pg_mbcliplen(text, len, max);

	appendBinaryStringInfo(out, text, clipped);
	if (clipped < len)
		appendStringInfoString(out, "...");
}

char *
ent_key_text(EntRelation *rel, const uint8 *key, size_t len)
{
	Datum		values[ENT_WIRE_MAX_KEYS];
	StringInfoData all,
				clipped;

	ent_key_values(rel, key, len, values);
	initStringInfo(&all);
	for (int i = 0; i < rel->nkeys; i++)
		appendStringInfo(&all, "%s%s", i == 0 ? "(" : ", ",
						 key_column(rel, i)->name);
	appendStringInfoString(&all, ")=(");
	for (int i = 0; i < rel->nkeys; i++)
	{
		Oid			out;
		bool		varlena;

		getTypeOutputInfo(key_column(rel, i)->basetype, &out, &varlena);
		if (i > 0)
			appendStringInfoString(&all, ", ");
		append_clipped(&all, OidOutputFunctionCall(out, values[i]),
					   TEXT_VALUE_MAX);
	}
	appendStringInfoChar(&all, ')');
	initStringInfo(&clipped);
	append_clipped(&clipped, all.data, TEXT_MAX);
	pfree(all.data);
	return clipped.data;
}
