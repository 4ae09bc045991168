/*
 * step/digest.c
 *	  The rows of a table in the order of their keys, each as a hash.
 *
 * Our tables are read as their owner, the user's as the role, a thousand
 * objects at a time.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "guard/hook.h"
#include "step/digest.h"
#include "store/changelog.h"
#include "store/keytype.h"
#include "store/object.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

#define MAX_OBJECTS	1000		/* read at a time */

static EntQuery objects_query = {
	"SELECT o.key, o.owner, o.epoch, o.serial, w.id, w.peer "
	"FROM entanglement.object o JOIN entanglement.owner w "
	"ON w.no OPERATOR(pg_catalog.=) o.owner "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 "
	"AND ($2 OPERATOR(pg_catalog.=) 0 OR o.owner OPERATOR(pg_catalog.=) $2) "
	"AND ($3 IS NULL OR o.key OPERATOR(pg_catalog.>) $3) "
	"AND ($4 IS NULL OR o.key OPERATOR(pg_catalog.<=) $4) "
	"ORDER BY o.key LIMIT $5",
	5, {INT4OID, INT4OID, BYTEAOID, BYTEAOID, INT8OID}, NULL
};

typedef struct Object
{
	bytea	   *key;
	int32		owner;
	int32		epoch;
	int64		serial;
	pg_uuid_t	id;				/* of the owner */
	bool		theirs;			/* he comes from the peer */
} Object;

typedef struct Walk
{
	EntDigestJob *job;
	EntKeySet	unfolded;
	pg_cryptohash_ctx *hash;
	bool	   *read;			/* by column: to be read */
	EntHooks   *hooks;			/* that decide which may be sent; NULL: none */
	Object	   *objects;		/* of this chunk */
	int			n;
	MemoryContext row;
} Walk;

bool
ent_digest_ordered(EntRelation *rel)
{
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return true;
	for (int i = 0; i < rel->nkeys; i++)
		if (ent_keytype_textual(rel->columns[rel->keys[i]].keytype))
			return false;
	return true;
}

/* ---- hashes ---- */

static void
add_bytes(Walk *s, const void *data, size_t len)
{
	if (pg_cryptohash_update(s->hash, data, len) < 0)
		elog(ERROR, "could not compute a hash");
}

/* As on the wire: 0 for NULL, else the length and one, and the bytes. */
static void
add_value(Walk *s, EntColumn *col, Datum value, bool null)
{
	uint8		number[ENT_WIRE_MAX_VARINT];
	const char *data = NULL;
	size_t		len = 0;

	if (!null)
		data = ent_value_encode(col, value, &len);
	add_bytes(s, number, ent_wire_encode_varint(number, null ? 0 : len + 1));
	if (!null)
		add_bytes(s, data, len);
}

static EntWireSum
sum_of(const uint8 *bytes)
{
	EntWireSum	sum = {0};

	for (int i = 0; i < 8; i++)
	{
		sum.high = sum.high << 8 | bytes[i];
		sum.low = sum.low << 8 | bytes[8 + i];
	}
	return sum;
}

static EntWireSum
hash_row(Walk *s, const Object *o, const uint8 *key, size_t keylen,
		 const Datum *values, const bool *nulls)
{
	EntDigestJob *job = s->job;
	uint8		number[ENT_WIRE_MAX_VARINT];
	uint8		bytes[PG_SHA256_DIGEST_LENGTH];

	if (pg_cryptohash_init(s->hash) < 0)
		elog(ERROR, "could not compute a hash");
	add_bytes(s, number, ent_wire_encode_varint(number, keylen));
	add_bytes(s, key, keylen);
	add_bytes(s, o->id.data, UUID_LEN);
	for (int i = 0; i < job->ncolumns; i++)
	{
		int			c = job->columns[i];

		if (!job->rel->columns[c].in_key_only)
			add_value(s, &job->rel->columns[c], values[c], nulls[c]);
	}
	if (pg_cryptohash_final(s->hash, bytes, sizeof(bytes)) < 0)
		elog(ERROR, "could not compute a hash");
	return sum_of(bytes);
}

/* ---- objects ---- */

typedef struct Read
{
	Walk	   *walk;
	const char *filter;
	Datum	   *key;
	Datum	   *values;
	bool	   *nulls;
	bool		found;
} Read;

static void
read_row(void *arg)
{
	Read	   *r = arg;
	EntDigestJob *job = r->walk->job;

	r->found = ent_rowquery_read(job->rel, r->walk->read, r->filter, r->key,
								 job->snapshot, r->values, r->nulls);
}

/* They are told all that the role may see, whichever columns are compared. */
static bool
hooks_agree(Walk *s, const Object *o, const Datum *key)
{
	EntRelation *rel = s->job->rel;
	const bool *may;
	Datum	   *values;
	bool	   *nulls;
	EntHookRow	row;
	EntHookRefusal ignored;

	if (s->hooks == NULL)
		return true;
	may = ent_hooks_visible(s->hooks);
	values = palloc0(rel->ncolumns * sizeof(Datum));
	nulls = palloc0(rel->ncolumns * sizeof(bool));
	if (may == NULL || !ent_rowquery_read(rel, may, NULL, key, s->job->snapshot,
										  values, nulls))
		return false;
	row = (EntHookRow) {may, values, nulls};
	return ent_hook_may_send(s->hooks, o->owner, key, &row, &ignored);
}

/* A row on which the filter fails does not match. */
static bool
find_row(Walk *s, const Object *o, Datum *key, Datum *values, bool *nulls)
{
	Read		r = {s, o->theirs ? NULL : s->job->filter, key, values, nulls, false};

	if (s->job->nothing && !o->theirs)
		return false;
	if (r.filter == NULL)
		read_row(&r);
	else if (ent_query_attempt(read_row, &r) != NULL)
		return false;
	return r.found && (o->theirs || hooks_agree(s, o, key));
}

static void
visit_object(Walk *s, const Object *o)
{
	EntDigestJob *job = s->job;
	EntRelation *rel = job->rel;
	Datum	   *values = palloc0(rel->ncolumns * sizeof(Datum));
	bool	   *nulls = palloc0(rel->ncolumns * sizeof(bool));
	Datum		key[ENT_WIRE_MAX_KEYS];
	EntDigestRow row = {.owner = o->owner, .epoch = o->epoch, .serial = o->serial};

	ent_key_values(rel, (uint8 *) VARDATA_ANY(o->key),
				   VARSIZE_ANY_EXHDR(o->key), key);
	if (!find_row(s, o, key, values, nulls))
		return;
	row.unfolded = ent_changelog_has(&s->unfolded, o->key);
	row.key = ent_key_to_wire(rel, (uint8 *) VARDATA_ANY(o->key),
							  VARSIZE_ANY_EXHDR(o->key), &row.keylen);
	row.hash = hash_row(s, o, row.key, row.keylen, values, nulls);
	job->visit(job->arg, &row);
}

/* To be called as the role. */
static void
visit_objects(void *arg)
{
	Walk	   *s = arg;

	for (int i = 0; i < s->n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(s->row);

		CHECK_FOR_INTERRUPTS();
		visit_object(s, &s->objects[i]);
		MemoryContextSwitchTo(old);
		MemoryContextReset(s->row);
	}
}

/* The next objects after that key, in the current context. */
static void
read_objects(Walk *s, bytea *after)
{
	EntDigestJob *job = s->job;
	Datum		args[5] = {Int32GetDatum(job->rel->no), Int32GetDatum(job->owner),
		PointerGetDatum(after), PointerGetDatum(job->hi),
	Int64GetDatum(MAX_OBJECTS)};
	char		nulls[] = "     ";

	nulls[2] = after ? ' ' : 'n';
	nulls[3] = job->hi ? ' ' : 'n';
	ent_query_run(&objects_query, args, nulls, SPI_OK_SELECT, job->snapshot);
	s->n = SPI_processed;
	s->objects = palloc((s->n + 1) * sizeof(Object));
	for (int i = 0; i < s->n; i++)
	{
		Object	   *o = &s->objects[i];
		bool		null;

		o->key = DatumGetByteaPCopy(ent_query_datum(i, 1, &null));
		o->owner = ent_query_int4(i, 2, NULL);
		o->epoch = ent_query_int4(i, 3, NULL);
		o->serial = ent_query_int8(i, 4, NULL);
		o->id = *DatumGetUUIDP(ent_query_datum(i, 5, &null));
		o->theirs = ent_query_int4(i, 6, NULL) == job->peer;
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
walk_begin(Walk *s, EntDigestJob *job)
{
	EntRelation *rel = job->rel;

	memset(s, 0, sizeof(*s));
	s->job = job;
	s->row = AllocSetContextCreate(CurrentMemoryContext, "entanglement row",
								   ALLOCSET_DEFAULT_SIZES);
	ent_changelog_keys(rel->no, job->snapshot, &s->unfolded);
	s->hooks = ent_hooks_for(ENT_HOOK_SEND, rel, job->peer, job->role);
	s->read = palloc0(rel->ncolumns * sizeof(bool));
	/* at least the key, to see whether the row is there */
	s->read[rel->keys[0]] = true;
	for (int i = 0; i < job->ncolumns; i++)
		s->read[job->columns[i]] = true;
}

void
ent_digest_objects(EntDigestJob *job)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext scan = AllocSetContextCreate(outer, "entanglement digest",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext chunks[2];
	Walk		s;
	bytea	   *after = job->lo;
	int			level;

	MemoryContextSwitchTo(scan);
	walk_begin(&s, job);
	for (int i = 0; i < 2; i++)
		chunks[i] = AllocSetContextCreate(scan, "entanglement objects",
										  ALLOCSET_DEFAULT_SIZES);
	s.hash = pg_cryptohash_create(PG_SHA256);
	if (s.hash == NULL)
		elog(ERROR, "out of memory");
	level = ent_value_enter();
	/* the last key of one chunk is needed to find the next */
	for (int i = 0;; i = 1 - i)
	{
		MemoryContextReset(chunks[i]);
		MemoryContextSwitchTo(chunks[i]);
		read_objects(&s, after);
		ent_query_as(job->role, visit_objects, &s);
		if (s.n < MAX_OBJECTS)
			break;
		after = s.objects[s.n - 1].key;
	}
	ent_value_leave(level);
	pg_cryptohash_free(s.hash);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(scan);
}

/* ---- rows that are no objects ---- */

static void
visit_stranger(void *arg, const Datum *key)
{
	Walk	   *s = arg;
	EntDigestJob *job = s->job;
	MemoryContext old = MemoryContextSwitchTo(s->row);
	bytea	   *image = ent_key_image(job->rel, key);
	EntObject	object;
	EntDigestRow row = {0};

	if (!ent_object_find(job->rel->no, image, &object) &&
		!ent_changelog_has(&s->unfolded, image))
	{
		row.key = ent_key_to_wire(job->rel, (uint8 *) VARDATA_ANY(image),
								  VARSIZE_ANY_EXHDR(image), &row.keylen);
		job->visit(job->arg, &row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(s->row);
}

/* To be called as the role. */
static void
visit_strangers(void *arg)
{
	Walk	   *s = arg;

	ent_rowquery_keys(s->job->rel, visit_stranger, s);
}

void
ent_digest_strangers(EntDigestJob *job)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext scan = AllocSetContextCreate(outer, "entanglement digest",
											   ALLOCSET_DEFAULT_SIZES);
	Walk		s;

	MemoryContextSwitchTo(scan);
	walk_begin(&s, job);
	PushActiveSnapshot(job->snapshot);
	ent_query_as(job->role, visit_strangers, &s);
	PopActiveSnapshot();
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(scan);
}
