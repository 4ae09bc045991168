/*
 * step/decode_digest.c
 *	  What rows were when the log told of them last.
 *
 * Whoever finds a digest other than that of the new value knows that the column
 * changed. Unknown rows count as changed as a whole, so forgetting is always
 * safe: at a limit all are forgotten.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "step/decode_digest.h"

#define ROWS_MAX	200000

typedef struct DigestKey
{
	int64		rel;
	uint64		key;			/* hash of the key image */
} DigestKey;

typedef struct Digest
{
	DigestKey	k;
	int			natts;
	uint64	   *columns;
} Digest;

static MemoryContext context = NULL;
static HTAB *digests = NULL;

static DigestKey
key_of(EntRelation *root, bytea *key)
{
	DigestKey	k;

	k.rel = root->no;
	k.key = DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(key),
											 VARSIZE_ANY_EXHDR(key), 0));
	return k;
}

void
ent_digest_forget_all(void)
{
	if (context != NULL)
		MemoryContextDelete(context);
	context = NULL;
	digests = NULL;
}

static void
start(void)
{
	HASHCTL		ctl = {.keysize = sizeof(DigestKey),.entrysize = sizeof(Digest)};

	context = AllocSetContextCreate(TopMemoryContext, "entanglement digests",
									ALLOCSET_DEFAULT_SIZES);
	ctl.hcxt = context;
	digests = hash_create("entanglement digests", 1024, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

uint64 *
ent_digest_of(EntRelation *root, bytea *key)
{
	DigestKey	k = key_of(root, key);
	Digest	   *d;
	bool		known;

	if (digests != NULL && hash_get_num_entries(digests) >= ROWS_MAX)
		ent_digest_forget_all();
	if (digests == NULL)
		start();
	d = hash_search(digests, &k, HASH_ENTER, &known);
	if (known && d->natts >= root->natts)
		return d->columns;
	d->natts = root->natts;
	d->columns = MemoryContextAllocZero(context, root->natts * sizeof(uint64));
	return d->columns;
}

void
ent_digest_forget(EntRelation *root, bytea *key)
{
	DigestKey	k = key_of(root, key);
	Digest	   *d;

	if (digests == NULL)
		return;
	d = hash_search(digests, &k, HASH_FIND, NULL);
	if (d == NULL)
		return;
	pfree(d->columns);
	hash_search(digests, &k, HASH_REMOVE, NULL);
}

uint64
ent_digest_value(Datum value, bool isnull, bool byval, int16 len)
{
	uint64		h;

	if (isnull)
		return 1;
	if (byval)
		h = DatumGetUInt64(hash_any_extended((unsigned char *) &value, sizeof(value), 0));
	else if (len == -1)
	{
		struct varlena *v = PG_DETOAST_DATUM_PACKED(value);

		h = DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(v),
											 VARSIZE_ANY_EXHDR(v), 0));
		if ((Pointer) v != DatumGetPointer(value))
			pfree(v);
	}
	else
		h = DatumGetUInt64(hash_any_extended((unsigned char *) DatumGetPointer(value),
											 len == -2 ? strlen(DatumGetCString(value)) : len, 0));
	return h < 2 ? 2 : h;
}
