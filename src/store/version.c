/*
 * store/version.c
 *	  New versions of objects, gathered and written set-wise.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "base/place.h"
#include "store/direct.h"
#include "store/object.h"
#include "store/query.h"
#include "store/version.h"

static EntQuery put_query = {
	"INSERT INTO entanglement.object AS o "
	"(rel, owner, epoch, serial, born, changed_at, key, column_serials, digests) "
	"SELECT u.rel, u.owner, u.epoch, u.serial, u.born, $9, u.key, u.columns, u.digests "
	"FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) "
	"AS u(rel, owner, epoch, serial, born, key, columns, digests) "
	"ON CONFLICT (rel, key) DO UPDATE SET owner = EXCLUDED.owner, "
	"epoch = EXCLUDED.epoch, serial = EXCLUDED.serial, born = EXCLUDED.born, "
	"changed_at = EXCLUDED.changed_at, column_serials = EXCLUDED.column_serials, "
	"digests = EXCLUDED.digests",
	9, {INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
	BYTEAARRAYOID, BYTEAARRAYOID, BYTEAARRAYOID, TIMESTAMPTZOID}, NULL
};
static EntQuery drop_query = {
	"DELETE FROM entanglement.object o USING unnest($1, $2) AS u(rel, key) "
	"WHERE o.rel OPERATOR(pg_catalog.=) u.rel AND o.key OPERATOR(pg_catalog.=) u.key",
	2, {INT4ARRAYOID, BYTEAARRAYOID}, NULL
};
static EntQuery bury_query = {
	"INSERT INTO entanglement.tombstone "
	"(rel, owner, epoch, serial, changed_at, key, heir, heir_epoch, heir_serial, "
	"from_owner, from_epoch, from_serial, ahead) "
	"SELECT u.rel, u.owner, u.epoch, u.serial, $6, u.key, "
	"u.heir, u.heir_epoch, u.heir_serial, u.from_owner, u.from_epoch, u.from_serial, "
	"u.ahead FROM unnest($1, $2, $3, $4, $5, $7, $8, $9, $10, $11, $12, $13) "
	"AS u(rel, owner, epoch, serial, key, heir, heir_epoch, heir_serial, "
	"from_owner, from_epoch, from_serial, ahead) "
	"ON CONFLICT (owner, rel, key) DO UPDATE SET epoch = EXCLUDED.epoch, "
	"serial = EXCLUDED.serial, changed_at = EXCLUDED.changed_at, "
	"heir = EXCLUDED.heir, heir_epoch = EXCLUDED.heir_epoch, "
	"heir_serial = EXCLUDED.heir_serial, from_owner = EXCLUDED.from_owner, "
	"from_epoch = EXCLUDED.from_epoch, from_serial = EXCLUDED.from_serial, "
	"ahead = EXCLUDED.ahead",
	13, {INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID,
		BYTEAARRAYOID, TIMESTAMPTZOID, INT4ARRAYOID, INT4ARRAYOID,
	INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, BOOLARRAYOID}, NULL
};
static EntQuery unbury_query = {
	"DELETE FROM entanglement.tombstone t USING unnest($1, $2, $3) AS u(owner, rel, key) "
	"WHERE t.owner OPERATOR(pg_catalog.=) u.owner AND t.rel OPERATOR(pg_catalog.=) u.rel "
	"AND t.key OPERATOR(pg_catalog.=) u.key",
	3, {INT4ARRAYOID, INT4ARRAYOID, BYTEAARRAYOID}, NULL
};
#define FEW_KEYS	16			/* are looked for one by one */

/* Columns of the arrays handed to a query. */
typedef struct Rows
{
	int			n;
	int			max;
	ItemPointerData *at;		/* invalid: to be looked for */
	bool	   *fresh;			/* there is nothing to be looked for but at */
	Datum	   *rel,
			   *owner,
			   *epoch,
			   *serial,
			   *born,
			   *key,
			   *columns,
			   *digests,
			   *heir,
			   *heir_epoch,
			   *heir_serial,
			   *from,
			   *from_epoch,
			   *from_serial,
			   *ahead;
	bool	   *no_digests,
			   *no_heir,
			   *no_from;
} Rows;

struct EntVersions
{
	MemoryContext context;
	Rows		put;
	Rows		drop;
	Rows		bury;
};

EntVersions *
ent_versions_create(void)
{
	EntVersions *v = palloc0(sizeof(EntVersions));

	v->context = CurrentMemoryContext;
	return v;
}

static void
grow(EntVersions *v, Rows *r)
{
	Datum	  **all[] = {&r->rel, &r->owner, &r->epoch, &r->serial, &r->born,
	&r->key, &r->columns, &r->digests, &r->heir, &r->heir_epoch, &r->heir_serial, &r->from,
	&r->from_epoch, &r->from_serial, &r->ahead};

	bool	  **nulls[] = {&r->fresh, &r->no_digests, &r->no_heir, &r->no_from};

	r->max = r->max == 0 ? 64 : r->max * 2;
	for (int i = 0; i < lengthof(all); i++)
		*all[i] = *all[i] == NULL ?
			MemoryContextAlloc(v->context, r->max * sizeof(Datum)) :
			repalloc_huge(*all[i], r->max * sizeof(Datum));
	for (int i = 0; i < lengthof(nulls); i++)
		*nulls[i] = *nulls[i] == NULL ?
			MemoryContextAlloc(v->context, r->max * sizeof(bool)) :
			repalloc_huge(*nulls[i], r->max * sizeof(bool));
	r->at = r->at == NULL ?
		MemoryContextAlloc(v->context, r->max * sizeof(ItemPointerData)) :
		repalloc_huge(r->at, r->max * sizeof(ItemPointerData));
}

/* Another row; its place. */
static int
add(EntVersions *v, Rows *r, int32 rel, int32 owner, int32 epoch,
	int64 serial, int64 born, bytea *key, bytea *columns)
{
	if (r->n == r->max)
		grow(v, r);
	r->rel[r->n] = Int32GetDatum(rel);
	r->owner[r->n] = Int32GetDatum(owner);
	r->epoch[r->n] = Int32GetDatum(epoch);
	r->serial[r->n] = Int64GetDatum(serial);
	r->born[r->n] = Int64GetDatum(born);
	r->key[r->n] = PointerGetDatum(key);
	r->columns[r->n] = PointerGetDatum(columns);
	r->fresh[r->n] = false;
	return r->n++;
}

void
ent_versions_put(EntVersions *v, int32 rel, int32 owner, int32 epoch,
				 int64 serial, int64 born, bytea *key, bytea *columns,
				 bytea *digests, const ItemPointerData *at)
{
	int			i = add(v, &v->put, rel, owner, epoch, serial, born, key, columns);

	v->put.digests[i] = PointerGetDatum(digests);
	v->put.no_digests[i] = digests == NULL;
	if (at != NULL)
		v->put.at[i] = *at;
	else
		ItemPointerSetInvalid(&v->put.at[i]);
}

void
ent_versions_add(EntVersions *v, int32 rel, int32 owner, int32 epoch,
				 int64 serial, bytea *key, bytea *columns)
{
	ent_versions_put(v, rel, owner, epoch, serial, serial, key, columns, NULL, NULL);
	ent_versions_no_grave(v);
}

void
ent_versions_no_grave(EntVersions *v)
{
	v->put.fresh[v->put.n - 1] = true;
}

void
ent_versions_drop(EntVersions *v, int32 rel, bytea *key)
{
	add(v, &v->drop, rel, 0, 0, 0, 0, key, NULL);
}

void
ent_versions_bury(EntVersions *v, int32 rel, int32 owner, int32 epoch,
				  int64 serial, bytea *key, EntHand heir, EntHand from)
{
	Rows	   *r = &v->bury;
	int			i = add(v, r, rel, owner, epoch, serial, 0, key, NULL);

	r->heir[i] = Int32GetDatum(heir.owner);
	r->heir_epoch[i] = Int32GetDatum(heir.epoch);
	r->heir_serial[i] = Int64GetDatum(heir.serial);
	r->no_heir[i] = heir.owner == 0;
	r->from[i] = Int32GetDatum(from.owner);
	r->from_epoch[i] = Int32GetDatum(from.epoch);
	r->from_serial[i] = Int64GetDatum(from.serial);
	r->no_from[i] = from.owner == 0;
	r->ahead[i] = BoolGetDatum(false);
}

void
ent_versions_bury_ahead(EntVersions *v)
{
	v->bury.ahead[v->bury.n - 1] = BoolGetDatum(true);
}

/* ---- where they were written last ---- */

/*
 * What has changed is looked for soon, by whoever sends it, and mostly changes again:
 * then it is found without the index.
 */
static uint64
hash_key(int32 rel, bytea *key)
{
	return hash_bytes_extended((unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
							   (uint64) MyDatabaseId << 32 | (uint32) rel);
}

void
ent_versions_note(int32 rel, bytea *key, const ItemPointerData *at)
{
	ent_place_note(hash_key(rel, key), at);
}

static bool
is_object(TupleTableSlot *row, int32 rel, bytea *key)
{
	bool		null;
	bytea	   *its;

	if (ent_direct_int4(row, ENT_OBJECT_REL) != rel)
		return false;
	its = DatumGetByteaPP(slot_getattr(row, ENT_OBJECT_KEY, &null));
	return VARSIZE_ANY_EXHDR(its) == VARSIZE_ANY_EXHDR(key) &&
		memcmp(VARDATA_ANY(its), VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)) == 0;
}

TupleTableSlot *
ent_versions_find(EntDirect *objects, int32 rel, bytea *key)
{
	Datum		values[2] = {Int32GetDatum(rel), PointerGetDatum(key)};
	ItemPointerData at;

	if (ent_place_find(hash_key(rel, key), &at))
	{
		TupleTableSlot *row = ent_direct_at(objects, &at);

		if (row != NULL && is_object(row, rel, key))
			return row;
	}
	return ent_direct_find(objects, values);
}

int
ent_versions_compare(const bytea *a, const bytea *b)
{
	Size		alen = VARSIZE_ANY_EXHDR(a),
				blen = VARSIZE_ANY_EXHDR(b);
	int			result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(alen, blen));

	return result != 0 ? result : (alen > blen) - (alen < blen);
}

void
ent_versions_widen(EntKeyRange *range, const bytea *key)
{
	if (range->n == 0 || ent_versions_compare(key, range->least) < 0)
		range->least = key;
	if (range->n == 0 || ent_versions_compare(key, range->greatest) > 0)
		range->greatest = key;
	range->n++;
}

bool
ent_versions_any(EntDirect *objects, int32 rel, const EntKeyRange *range)
{
	ScanKeyData keys[3];

	if (range->n < FEW_KEYS)
		return true;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(rel));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_BYTEAGE,
				PointerGetDatum(range->least));
	ScanKeyInit(&keys[2], 2, BTLessEqualStrategyNumber, F_BYTEALE,
				PointerGetDatum(range->greatest));
	return ent_direct_any_entry(objects, lengthof(keys), keys);
}

/* ---- writing them ---- */

bytea *
ent_versions_all_born(void)
{
	static varattrib_4b none;

	SET_VARSIZE(&none, VARHDRSZ);
	return (bytea *) &none;
}

#define ARRAY(type, rows, field) \
	ent_query_array(type, (rows).field, NULL, (rows).n)

/* The owner's tombstone for the object goes; false: somebody else is at it. */
static bool
unbury(EntDirect *graves, const Rows *r, int i)
{
	Datum		key[3] = {r->owner[i], r->rel[i], r->key[i]};
	TupleTableSlot *grave = ent_direct_find(graves, key);

	return grave == NULL ||
		ent_direct_delete(graves, &grave->tts_tid) != ENT_DIRECT_BY_OTHERS;
}

/* Objects that are written now; those that were not there are, many at a time. */
typedef struct Putting
{
	EntDirect  *objects;
	TimestampTz now;
	bool		local;			/* owners of what is put */
	int			n;				/* of these: */
	Datum		values[ENT_DIRECT_MANY][ENT_OBJECT_ATTRIBUTES];
	bool		nulls[ENT_DIRECT_MANY][ENT_OBJECT_ATTRIBUTES];
} Putting;

static void
fill_values(const Putting *p, const Rows *r, int i, Datum *values, bool *nulls)
{
	memset(nulls, 0, ENT_OBJECT_ATTRIBUTES * sizeof(bool));
	values[ENT_OBJECT_REL - 1] = r->rel[i];
	values[ENT_OBJECT_OWNER - 1] = r->owner[i];
	values[ENT_OBJECT_EPOCH - 1] = r->epoch[i];
	values[ENT_OBJECT_SERIAL - 1] = r->serial[i];
	values[ENT_OBJECT_BORN - 1] = r->born[i];
	values[ENT_OBJECT_CHANGED_AT - 1] = TimestampTzGetDatum(p->now);
	values[ENT_OBJECT_KEY - 1] = r->key[i];
	values[ENT_OBJECT_COLUMN_SERIALS - 1] = r->columns[i];
	values[ENT_OBJECT_DIGESTS - 1] = r->digests[i];
	nulls[ENT_OBJECT_DIGESTS - 1] = r->no_digests[i];
}

/* The i-th of those written last is there. */
static void
note_place(const Putting *p, const Datum *values, int i)
{
	ent_versions_note(DatumGetInt32(values[ENT_OBJECT_REL - 1]),
					  DatumGetByteaPP(values[ENT_OBJECT_KEY - 1]),
					  ent_direct_written(p->objects, i));
}

static void
insert_gathered(Putting *p)
{
	if (p->n == 0)
		return;
	ent_direct_insert_many(p->objects, p->n, p->values[0], p->nulls[0]);
	/* links find so many by a scan, and note for themselves what they come to */
	for (int i = 0; i < p->n && (p->n < ENT_DIRECT_MANY || !p->local); i++)
		note_place(p, p->values[i], i);
	p->n = 0;
}

/* false: somebody else is writing it. */
static bool
put(Putting *p, const Rows *r, int i)
{
	Datum		values[ENT_OBJECT_ATTRIBUTES];
	bool		nulls[ENT_OBJECT_ATTRIBUTES];
	ItemPointerData at = r->at[i];
	EntDirectResult result;

	if (!ItemPointerIsValid(&at))
	{
		/* with one snapshot for all it would be found as the caller found it: not */
		TupleTableSlot *row = r->fresh[i] || IsolationUsesXactSnapshot() ? NULL :
			ent_versions_find(p->objects, DatumGetInt32(r->rel[i]), DatumGetByteaPP(r->key[i]));

		if (row == NULL)
		{
			fill_values(p, r, i, p->values[p->n], p->nulls[p->n]);
			if (++p->n == ENT_DIRECT_MANY)
				insert_gathered(p);
			return true;
		}
		at = row->tts_tid;
	}
	fill_values(p, r, i, values, nulls);
	result = ent_direct_update(p->objects, &at, values, nulls);
	if (result == ENT_DIRECT_BY_US)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("an object has two versions at once")));
	if (result == ENT_DIRECT_DONE)
		note_place(p, values, 0);
	return result == ENT_DIRECT_DONE;
}

/* What somebody else is writing is waited for, and written after him. */
static void
write_contended(Rows *r, TimestampTz now)
{
	Datum		args[9];

	args[0] = ARRAY(INT4OID, *r, owner);
	args[1] = ARRAY(INT4OID, *r, rel);
	args[2] = ARRAY(BYTEAOID, *r, key);
	ent_query_run(&unbury_query, args, NULL, SPI_OK_DELETE, NULL);
	args[0] = args[1];
	args[1] = ARRAY(INT4OID, *r, owner);
	args[2] = ARRAY(INT4OID, *r, epoch);
	args[3] = ARRAY(INT8OID, *r, serial);
	args[4] = ARRAY(INT8OID, *r, born);
	args[5] = ARRAY(BYTEAOID, *r, key);
	args[6] = ARRAY(BYTEAOID, *r, columns);
	args[7] = ent_query_array(BYTEAOID, r->digests, r->no_digests, r->n);
	args[8] = TimestampTzGetDatum(now);
	ent_query_run(&put_query, args, NULL, SPI_OK_INSERT, NULL);
}

/* From now on writers of these tables have to look whose a row is. */
static void
note_remote(const Rows *r)
{
	for (int i = 0; i < r->n; i++)
		if (i == 0 || r->owner[i] != r->owner[i - 1] || r->rel[i] != r->rel[i - 1])
			if (!ent_object_owner_is_local(DatumGetInt32(r->owner[i])))
				ent_object_note_remote(DatumGetInt32(r->rel[i]));
}

static void
write_put(EntVersions *v)
{
	Rows	   *r = &v->put;
	int			n = r->n;
	Putting    *p = palloc(sizeof(Putting));
	EntDirect  *graves;

	note_remote(r);
	graves = ent_direct_open(ENT_CATALOG_TOMBSTONE, ENT_CATALOG_TOMBSTONE_KEY,
							 RowExclusiveLock, NULL);
	p->objects = ent_direct_open(ENT_CATALOG_OBJECT, ENT_CATALOG_OBJECT_KEY,
								 RowExclusiveLock, NULL);
	p->now = GetCurrentTimestamp();
	p->local = n > 0 && ent_object_owner_is_local(DatumGetInt32(r->owner[0]));
	p->n = 0;
	/* contended ones gather at the front */
	r->n = 0;
	for (int i = 0; i < n; i++)
		if ((!r->fresh[i] && !unbury(graves, r, i)) || !put(p, r, i))
		{
			r->owner[r->n] = r->owner[i];
			r->rel[r->n] = r->rel[i];
			r->key[r->n] = r->key[i];
			r->epoch[r->n] = r->epoch[i];
			r->serial[r->n] = r->serial[i];
			r->born[r->n] = r->born[i];
			r->digests[r->n] = r->digests[i];
			r->no_digests[r->n] = r->no_digests[i];
			r->columns[r->n++] = r->columns[i];
		}
	insert_gathered(p);
	ent_direct_close(p->objects);
	ent_direct_close(graves);
	CommandCounterIncrement();
	if (r->n > 0)
		write_contended(r, p->now);
	pfree(p);
}

static void
write_drop(EntVersions *v)
{
	Datum		args[2];

	args[0] = ARRAY(INT4OID, v->drop, rel);
	args[1] = ARRAY(BYTEAOID, v->drop, key);
	ent_query_run(&drop_query, args, NULL, SPI_OK_DELETE, NULL);
}

static void
write_bury(EntVersions *v)
{
	Datum		args[13];
	bool	   *no_heir = v->bury.no_heir,
			   *no_from = v->bury.no_from;

	args[0] = ARRAY(INT4OID, v->bury, rel);
	args[1] = ARRAY(INT4OID, v->bury, owner);
	args[2] = ARRAY(INT4OID, v->bury, epoch);
	args[3] = ARRAY(INT8OID, v->bury, serial);
	args[4] = ARRAY(BYTEAOID, v->bury, key);
	args[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	args[6] = ent_query_array(INT4OID, v->bury.heir, no_heir, v->bury.n);
	args[7] = ent_query_array(INT4OID, v->bury.heir_epoch, no_heir, v->bury.n);
	args[8] = ent_query_array(INT8OID, v->bury.heir_serial, no_heir, v->bury.n);
	args[9] = ent_query_array(INT4OID, v->bury.from, no_from, v->bury.n);
	args[10] = ent_query_array(INT4OID, v->bury.from_epoch, no_from, v->bury.n);
	args[11] = ent_query_array(INT8OID, v->bury.from_serial, no_from, v->bury.n);
	args[12] = ARRAY(BOOLOID, v->bury, ahead);
	ent_query_run(&bury_query, args, NULL, SPI_OK_INSERT, NULL);
}

void
ent_versions_write(EntVersions *v)
{
	if (v->put.n > 0)
		write_put(v);
	if (v->drop.n > 0)
		write_drop(v);
	if (v->bury.n > 0)
		write_bury(v);
	v->put.n = v->drop.n = v->bury.n = 0;
}
