/*
 * store/rowdigest.c
 *	  What the columns of a row are, in a few bytes each.
 *
 * Packed: for each column its kind in a byte, and as many bytes as that says.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/lsyscache.h"

#include "store/rowdigest.h"
#include "store/rowquery.h"

#define KIND_UNKNOWN	0
#define KIND_NULL		1
#define KIND_VALUE		2		/* and so many bytes of value as it is more */
#define KIND_HASH		UINT8_MAX

StaticAssertDecl(sizeof(EntDigest) == 1 + ENT_DIGEST_BYTES,
				 "digests are compared as bytes");

static void
hash(EntDigest *d, const void *data, size_t len)
{
	uint8		sum[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *h = pg_cryptohash_create(PG_SHA256);

	if (h == NULL || pg_cryptohash_init(h) < 0 ||
		pg_cryptohash_update(h, data, len) < 0 ||
		pg_cryptohash_final(h, sum, sizeof(sum)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the digest of a column")));
	pg_cryptohash_free(h);
	d->kind = KIND_HASH;
	memcpy(d->bytes, sum, ENT_DIGEST_BYTES);
}

static void
digest_bytes(EntDigest *d, const void *data, size_t len)
{
	if (len > ENT_DIGEST_BYTES)
	{
		hash(d, data, len);
		return;
	}
	d->kind = KIND_VALUE + len;
	memcpy(d->bytes, data, len);
}

/* Of a datum only the bytes that are stored count: the rest may be sign or zero. */
static void
digest_by_value(EntDigest *d, Datum value, int16 len)
{
	uint64		v = (uint64) value;

	if (len < (int16) sizeof(v))
		v &= (UINT64CONST(1) << (len * BITS_PER_BYTE)) - 1;
	digest_bytes(d, &v, sizeof(v));
}

EntDigest
ent_digest_of(Datum value, bool null, bool typbyval, int16 typlen)
{
	EntDigest	d = {KIND_NULL, {0}};

	if (null)
		return d;
	if (typbyval)
		digest_by_value(&d, value, typlen);
	else if (typlen == -1)
	{
		struct varlena *v = PG_DETOAST_DATUM_PACKED(value);

		digest_bytes(&d, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
		if ((Pointer) v != DatumGetPointer(value))
			pfree(v);
	}
	else
		digest_bytes(&d, DatumGetPointer(value),
					 typlen == -2 ? strlen(DatumGetCString(value)) : typlen);
	return d;
}

/* How many bytes come behind a kind; -1: there is no such kind. */
static int
length_of(uint8 kind)
{
	if (kind <= KIND_NULL)
		return 0;
	if (kind == KIND_HASH)
		return ENT_DIGEST_BYTES;
	return kind - KIND_VALUE <= ENT_DIGEST_BYTES ? kind - KIND_VALUE : -1;
}

bytea *
ent_digest_pack(const EntDigest *digests, int natts)
{
	bytea	   *packed = palloc(VARHDRSZ + natts * sizeof(EntDigest));
	uint8	   *p = (uint8 *) VARDATA(packed);

	while (natts > 0 && digests[natts - 1].kind == KIND_UNKNOWN)
		natts--;
	for (int i = 0; i < natts; i++)
	{
		int			len = length_of(digests[i].kind);

		*p++ = digests[i].kind;
		memcpy(p, digests[i].bytes, len);
		p += len;
	}
	SET_VARSIZE(packed, (char *) p - (char *) packed);
	return natts == 0 ? NULL : packed;
}

void
ent_digest_unpack(const bytea *packed, EntDigest *digests, int natts)
{
	const uint8 *p = packed ? (const uint8 *) VARDATA_ANY(packed) : NULL;
	const uint8 *end = packed ? p + VARSIZE_ANY_EXHDR(packed) : NULL;

	memset(digests, 0, natts * sizeof(EntDigest));
	for (int i = 0; i < natts && p < end; i++)
	{
		int			len = length_of(*p);

		if (len < 0 || len > end - p - 1)
			return;
		digests[i].kind = *p++;
		memcpy(digests[i].bytes, p, len);
		p += len;
	}
}

typedef struct Reading
{
	EntRelation *rel;
	EntDigest  *digests;
} Reading;

/* Partitions may have their columns in another order. */
static void
digest_row(void *arg, Relation heap, TupleTableSlot *slot)
{
	Reading    *r = arg;
	EntRelation *rel = r->rel;
	bool		is_root = RelationGetRelid(heap) == rel->relid;

	slot_getallattrs(slot);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		const EntColumn *col = &rel->columns[i];
		AttrNumber	attnum = is_root ? col->attnum :
			get_attnum(RelationGetRelid(heap), col->name);

		if (attnum > 0 && attnum <= slot->tts_nvalid)
			r->digests[col->attnum - 1] =
				ent_digest_of(slot->tts_values[attnum - 1],
							  slot->tts_isnull[attnum - 1], col->typbyval, col->typlen);
	}
}

bool
ent_digest_read(EntRelation *rel, const Datum *key, Snapshot snapshot,
				EntDigest *digests)
{
	Reading		r = {rel, digests};

	memset(digests, 0, rel->natts * sizeof(EntDigest));
	return ent_rowquery_visit(rel, key, snapshot, digest_row, &r);
}
