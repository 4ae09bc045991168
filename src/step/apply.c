/*
 * step/apply.c
 *	  Rows from a peer become rows here.
 *
 * First all rows of a section in one subtransaction; when that fails, one by
 * one, each in its own, so that a bad row is parked alone. A row is stored
 * only if its (epoch, serial) is newer than what is here (I2), a delta only
 * on a copy it fits on (I1); otherwise the sender is asked again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/ring.h"
#include "base/wake.h"
#include "guard/policy.h"
#include "rule/colserial.h"
#include "step/apply_private.h"
#include "store/direct.h"
#include "store/handover.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"
#include "store/version.h"

#define MAX_TRIES_TOGETHER	100

typedef EntApplyCopy Copy;

static EntQuery pending_query = {
	"SELECT 1 FROM entanglement.change WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 LIMIT 1",
	2, {INT4OID, BYTEAOID}, NULL
};
static EntQuery absent_query = {
	"SELECT o.key, o.epoch, o.serial, o.born FROM entanglement.object o "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 AND o.owner OPERATOR(pg_catalog.=) $2 "
	"AND ($3 IS NULL OR o.key OPERATOR(pg_catalog.>) $3) "
	"AND ($4 IS NULL OR o.key OPERATOR(pg_catalog.<=) $4) "
	"AND (o.epoch OPERATOR(pg_catalog.<) $6 OR o.serial OPERATOR(pg_catalog.<=) $5) "
	/* what its owner was handed over he may not have yet */
	"AND o.born OPERATOR(pg_catalog.>) 0",
	6, {INT4OID, INT4OID, BYTEAOID, BYTEAOID, INT8OID, INT4OID}, NULL
};

/* Our tables, while copies are looked for in them. */
typedef struct Tables
{
	EntDirect  *objects,
			   *parked,
			   *graves;
} Tables;

static void
find_copy(EntApply *a, Tables *t, Copy *c)
{
	Datum		object[2] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key)};
	Datum		parked[3] = {object[0], object[1], Int32GetDatum(a->owner)};
	Datum		grave[3] = {Int32GetDatum(a->owner), object[0], object[1]};
	TupleTableSlot *row = ent_direct_find(t->objects, object);

	c->exists = row != NULL;
	if (c->exists)
	{
		c->at = row->tts_tid;
		c->owner = ent_direct_int4(row, ENT_OBJECT_OWNER);
		c->epoch = ent_direct_int4(row, ENT_OBJECT_EPOCH);
		c->serial = ent_direct_int8(row, ENT_OBJECT_SERIAL);
		c->born = ent_direct_int8(row, ENT_OBJECT_BORN);
		c->columns = ent_direct_bytea(row, ENT_OBJECT_COLUMN_SERIALS);
	}
	c->parked = ent_direct_find(t->parked, parked) != NULL;
	row = ent_direct_find(t->graves, grave);
	c->buried = row != NULL;
	if (c->buried)
	{
		c->grave_epoch = ent_direct_int4(row, ENT_TOMBSTONE_EPOCH);
		c->grave_serial = ent_direct_int8(row, ENT_TOMBSTONE_SERIAL);
	}
}

/* Fills in copies whose key is known. */
static void
find_copies(EntApply *a, Copy *copies, int n)
{
	Tables		t;

	t.objects = ent_direct_open(ENT_CATALOG_OBJECT, ENT_CATALOG_OBJECT_KEY,
								AccessShareLock, NULL);
	t.parked = ent_direct_open(ENT_CATALOG_PARKED, ENT_CATALOG_PARKED_KEY,
							   AccessShareLock, NULL);
	t.graves = ent_direct_open(ENT_CATALOG_TOMBSTONE, ENT_CATALOG_TOMBSTONE_KEY,
							   AccessShareLock, NULL);
	for (int i = 0; i < n; i++)
		if (copies[i].key)
			find_copy(a, &t, &copies[i]);
	ent_direct_close(t.graves);
	ent_direct_close(t.parked);
	ent_direct_close(t.objects);
}

/* ---- writing our own tables ---- */

static void
post(EntApply *a, Copy *c, EntApplyRow *r, int64 since)
{
	EntEvent	ev = {
		.kind = ENT_EVENT_OBJECT, .owner = a->owner, .rel = a->rel->no,
		.serial = r->serial, .since = since,
		.flags = ent_apply_late(a, r) ? ENT_ROW_REFRESH | ENT_ROW_LATE :
		r->flags & ENT_ROW_REFRESH,
		.keylen = VARSIZE_ANY_EXHDR(c->key), .key = (uint8 *) VARDATA_ANY(c->key)
	};

	ent_wake_post_at_commit(&ev);
}

/* The column serials of the copy once the row is stored. */
static bytea *
new_columns(EntApply *a, Copy *c, EntApplyRow *r)
{
	int			natts = a->rel->natts;
	size_t		len = 0;
	bytea	   *out = palloc(VARHDRSZ + ENT_COLSERIAL_MAX_BYTES(natts));

	if (r->op == ENT_ROW_DELTA)
	{
		int64	   *v = palloc(natts * sizeof(int64));

		ent_colserial_unpack((uint8 *) VARDATA_ANY(c->columns),
							 VARSIZE_ANY_EXHDR(c->columns), c->serial, c->born,
							 v, natts);
		for (int i = 0; i < a->rel->ncolumns; i++)
			if (r->set[i])
				v[a->rel->columns[i].attnum - 1] = r->serial;
		len = ent_colserial_pack(v, natts, r->serial, c->born,
								 (uint8 *) VARDATA(out));
		pfree(v);
	}
	SET_VARSIZE(out, VARHDRSZ + len);
	return out;
}

/* ---- one row ---- */

/*
 * The row is here although no object says so: somebody's local row not yet
 * folded, or a copy made by other means, which becomes the owner's.
 */
static bool
pending_locally(EntApply *a, Copy *c)
{
	Datum		args[2] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key)};
	bool		found;

	ent_query_run(&pending_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * What was asked for counts although it is no newer: the object in full, and
 * that it is not to be had any more, which has no version of its own
 * (ent_apply_present). So one that was not to be seen for a while comes back
 * under the version it had. A hand-over is a version of its own.
 */
bool
ent_apply_stale(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	bool		refresh = (r->flags & ENT_ROW_REFRESH) != 0;
	bool		again = refresh &&
		(r->op == ENT_ROW_FULL ||
		 (r->op == ENT_ROW_DELETE &&
		  ((r->flags & ENT_ROW_HEIR) == 0 || c->born == 0)));

	/* the version of what is unconfirmed is nobody's: it may have died with it */
	if (c->exists)
		return !ent_apply_newer(a->epoch, r->serial, c->epoch, c->serial) &&
			!(again && a->epoch == c->epoch && r->serial == c->serial);
	if (c->buried && !ent_apply_newer(a->epoch, r->serial, c->grave_epoch, c->grave_serial))
		return !(again && r->op == ENT_ROW_FULL &&
				 (r->flags & ENT_ROW_HEIR) == 0 &&
				 a->epoch == c->grave_epoch && r->serial == c->grave_serial);
	/* not here although the peer knew that we had it: it was deleted since */
	return !refresh && !c->parked && r->serial <= a->base;
}

/*
 * A delta without the copy it belongs to: the sender is asked for the whole
 * object. The note outlives an answer that is lost on the way, since a have
 * may cover the object from now on.
 */
static void
ask_again(EntApply *a, Copy *c, EntApplyRow *r)
{
	r->again = true;
	ent_apply_note_parked(a, c, r, "55000", "the object came in part, its copy here is missing or too old",
				NULL);
}

/*
 * Is the row to be stored? Sets r->again when the sender has to send it in
 * full first; parks what another owner's object keeps out.
 */
static bool
acceptable(EntApply *a, Copy *c, EntApplyRow *r)
{
	if (c->exists && c->owner != a->owner)
	{
		if (r->op == ENT_ROW_DELETE)
			return true;		/* concerns only tombstone and parked row */
		if (c->buried && !ent_apply_newer(a->epoch, r->serial, c->grave_epoch,
										  c->grave_serial))
			return false;		/* it was, before it became the other one's */
		ent_apply_park(a, c, r, "23505", "another owner has an object with this key here",
			 NULL);
		return false;
	}
	if (ent_apply_stale(a, c, r))
		return false;
	if (r->op == ENT_ROW_DELTA &&
		(!c->exists || c->parked || c->epoch != a->epoch || c->serial < r->base))
	{
		ask_again(a, c, r);
		return false;
	}
	return true;
}

/* He knows that it was handed over to him. */
static void
confirm(EntApply *a, Copy *c)
{
	if (c->exists && c->owner == a->owner && c->born == 0)
		ent_handover_confirmed(a->rel->no, c->key);
}

static void
note_deleted(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions)
{
	bool		mine = c->exists && c->owner == a->owner;

	if (mine)
		ent_versions_drop(versions, a->rel->no, c->key);
	ent_versions_bury(versions, a->rel->no, a->owner, a->epoch, r->serial,
					  c->key, r->heir, r->from);
	confirm(a, c);
	ent_apply_unpark(a, c, r);
	if (mine)
		ent_apply_wake_parked(a, c);
	if (mine && ent_apply_late(a, r))
		ent_apply_owe_others(a, c, r);
}

static void
note_stored(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions)
{
	if (!c->exists && !c->buried && r->op == ENT_ROW_FULL)
		ent_versions_add(versions, a->rel->no, a->owner, a->epoch, r->serial, c->key,
						 new_columns(a, c, r));
	else if (!c->exists || ent_apply_newer(a->epoch, r->serial, c->epoch, c->serial))
		ent_versions_put(versions, a->rel->no, a->owner, a->epoch, r->serial,
						 r->op == ENT_ROW_DELTA ? c->born : r->serial, c->key,
						 new_columns(a, c, r), NULL, c->exists ? &c->at : NULL);
	confirm(a, c);
	ent_apply_unpark(a, c, r);
	if (ent_apply_late(a, r))
		ent_apply_owe_others(a, c, r);
}

bool
ent_apply_may_compare(EntApply *a)
{
	if (!a->looked)
	{
		bool	   *may = palloc0(a->rel->ncolumns * sizeof(bool));

		a->may_read = ent_policy_columns(a->rel, a->role, may);
		for (int i = 0; i < a->rel->ncolumns; i++)
			a->may_read &= may[i];
		a->looked = true;
		pfree(may);
	}
	return a->may_read;
}

/*
 * What comes again although this very version is here mostly is as it should
 * be: then nothing is written, and nothing is passed on.
 */
static bool
worth_comparing(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	return r->op == ENT_ROW_FULL && c->exists && c->owner == a->owner &&
		c->epoch == a->epoch && c->serial == r->serial && c->born != 0 &&
		ent_apply_may_compare(a);
}

/* Rows that are not here yet, of the same columns: they are stored together. */
typedef struct Births
{
	EntApplyWrite *w;
	int			n;
	int			max;			/* 0: each by itself */
} Births;

static bool
is_birth(const Births *births, const EntApplyWrite *w)
{
	return births->n < births->max && w->r->op == ENT_ROW_FULL &&
		!w->c->exists && !w->c->parked && !w->c->buried &&
		!w->a->rel->every_state && w->a->listen == NULL &&
		w->a->constructed == NULL &&
		(births->n == 0 ||
		 memcmp(births->w[0].r->set, w->r->set, w->a->rel->ncolumns * sizeof(bool)) == 0);
}

static void
store_births(Births *births, EntVersions *versions)
{
	if (births->n > 0)
		ent_apply_insert(births->w, births->n);
	for (int i = 0; i < births->n; i++)
		note_stored(births->w[i].a, births->w[i].c, births->w[i].r, versions);
	births->n = 0;
}

/*
 * It is not to be had any more: what is here of it goes, and nothing of it is waited for.
 * In which version is not said, so that one counts which is here; it may come back
 * in the same one.
 */
static bool
withdraw(EntApply *a, Copy *c, EntApplyRow *r)
{
	if (c->exists && c->owner == a->owner)
	{
		r->serial = c->serial;
		return true;
	}
	r->serial = PG_INT64_MAX;
	ent_apply_unpark(a, c, r);
	return false;
}

/*
 * Stores one row; true when it was, or is one of those to be inserted. Errors are the
 * row's or the server's.
 */
static bool
apply_row(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions,
		  bool careful, Births *births)
{
	EntApplyWrite w = {.a = a, .c = c, .r = r, .careful = careful};
	bool		writes = r->op != ENT_ROW_DELETE ||
		(c->exists && c->owner == a->owner);
	EntState   *replaced;

	if (r->flags & ENT_ROW_HEIR)
		return ent_apply_inherit(&w, versions);
	if (r->withdrawn && !withdraw(a, c, r))
		return false;
	if (!acceptable(a, c, r))
		return false;
	if (writes && !ent_apply_ask_hooks(&w))
		return false;
	if (ent_integrity_holds_back(a, c, r))
		return false;
	if (!is_birth(births, &w))
		store_births(births, versions);
	if (is_birth(births, &w))
	{
		births->w[births->n++] = w;
		return true;
	}
	w.compare = worth_comparing(a, c, r);
	replaced = ent_apply_replaced(a, c, r);
	if (writes)
		ent_apply_write(&w);
	switch (w.outcome)
	{
		case ENT_APPLY_MISSING:
			ask_again(a, c, r);
			return false;
		case ENT_APPLY_INVISIBLE:
			ent_apply_park(a, c, r, "42501", "the row exists but the peer's role may not change it",
				 NULL);
			return false;
		case ENT_APPLY_SAME:
			ent_apply_unpark(a, c, r);
			return false;
		case ENT_APPLY_STORED:
			break;
	}
	ent_apply_keep(replaced);
	if (r->op == ENT_ROW_DELETE)
		note_deleted(a, c, r, versions);
	else
		note_stored(a, c, r, versions);
	return true;
}

/* ---- a section: all at once, or one by one ---- */

typedef struct Section
{
	EntApply   *a;
	EntApplyRow *rows;
	Copy	   *copies;
	bool	   *stored;
	int			from,
				to;
	bool		careful;
	bool		together;		/* take all out before any is put in */
	int			at;				/* the row being stored */
} Section;

/* Rows whose places in a unique index depend on each other make room. */
static void
take_out_rows(Section *s)
{
	for (int i = s->from; i < s->to; i++)
	{
		EntApplyWrite w = {.a = s->a, .c = &s->copies[i], .r = &s->rows[i]};

		if (w.c->exists && w.c->owner == s->a->owner)
			ent_apply_take_out(&w);
	}
}

static void
apply_rows(void *section)
{
	Section    *s = section;
	EntVersions *versions = ent_versions_create();
	Births		births = {.max = s->careful || s->together ? 0 : s->to - s->from};

	births.w = palloc0((births.max + 1) * sizeof(EntApplyWrite));
	for (int i = s->from; i < s->to; i++)
	{
		Copy	   *c = &s->copies[i];

		memset(c, 0, sizeof(Copy));
		s->rows[i].again = false;
		s->stored[i] = false;
		c->key = ent_key_from_wire(s->a->rel, s->a->role, s->rows[i].wirekey,
								   s->rows[i].wirekeylen, c->values);
	}
	find_copies(s->a, s->copies + s->from, s->to - s->from);
	if (s->together)
		take_out_rows(s);
	for (int i = s->from; i < s->to; i++)
	{
		s->at = i;
		s->stored[i] = apply_row(s->a, &s->copies[i], &s->rows[i], versions,
								 s->careful, &births);
		if (s->copies[i].taken_out && !s->stored[i])
			elog(ERROR, "a row that was taken out was not put in again");
	}
	store_births(&births, versions);
	ent_versions_write(versions);
}

bool
ent_apply_about_the_row(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return true;
	}
}

/*
 * Runs apply_rows in a subtransaction. NULL: done; else the error, in the
 * caller's context. Errors that are not about the data are raised again.
 */
static ErrorData *
try_rows(Section *s)
{
	ErrorData  *error = ent_query_try(apply_rows, s);

	if (error && !ent_apply_about_the_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* Parks row i with the error that kept it out. */
static void
park_failed(Section *s, int i, ErrorData *error)
{
	Copy	   *c = &s->copies[i];

	if (c->key == NULL)			/* the key itself could not be converted */
	{
		Datum		key = PointerGetDatum(cstring_to_text_with_len((const char *) s->rows[i].wirekey,
																   s->rows[i].wirekeylen));

		/* one that is too long for our index is told by its digest */
		if (s->rows[i].wirekeylen > ENT_KEY_MAX)
			key = DirectFunctionCall1(sha256_bytea, key);
		c->foreign_key = true;
		c->key = DatumGetByteaP(key);
		c->parked = s->rows[i].op == ENT_ROW_DELETE;
	}
	if (c->foreign_key && s->rows[i].op == ENT_ROW_DELETE)
	{
		if (s->rows[i].withdrawn)
			s->rows[i].serial = PG_INT64_MAX;
		ent_apply_unpark(s->a, c, &s->rows[i]);		/* all that can be here of it */
		return;
	}
	ent_apply_park(s->a, c, &s->rows[i],
		 c->foreign_key && s->rows[i].wirekeylen > ENT_KEY_MAX ? "54000" :
		 unpack_sql_state(error->sqlerrcode), error->message, error->detail);
}

/* NULL: it is stored, or parked for a reason of its own. */
static ErrorData *
apply_alone(Section *s, int i)
{
	ErrorData  *error;

	s->from = i;
	s->to = i + 1;
	s->careful = false;
	error = try_rows(s);
	if (error && error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		s->rows[i].op == ENT_ROW_FULL && !s->copies[i].exists)
	{
		if (pending_locally(s->a, &s->copies[i]))
		{
			ent_apply_park(s->a, &s->copies[i], &s->rows[i], "23505",
				 "a row of this node has the same key", NULL);
			return NULL;
		}
		s->careful = true;
		error = try_rows(s);
	}
	return error;
}

static bool
by_another_row(ErrorData *error)
{
	return error && (error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION ||
					 error->sqlerrcode == ERRCODE_EXCLUSION_VIOLATION);
}

/*
 * Rows that exchanged values of a unique column stand in each other's way
 * whatever the order: those that failed for that are tried all together. One
 * that fails even so stays behind; after some of these it is not worth it.
 */
static void
apply_together(Section *s, ErrorData **errors, int n)
{
	Section		t = {.a = s->a, .together = true};
	int		   *index = palloc(n * sizeof(int));
	int			tries = 0;

	for (int i = 0; i < n; i++)
		if (by_another_row(errors[i]))
			index[t.to++] = i;
	t.rows = palloc(n * sizeof(EntApplyRow));
	t.copies = palloc(n * sizeof(Copy));
	t.stored = palloc(n * sizeof(bool));
	while (t.to > 0 && tries++ < MAX_TRIES_TOGETHER)
	{
		t.at = 0;
		for (int i = 0; i < t.to; i++)
			t.rows[i] = s->rows[index[i]];
		if (try_rows(&t) == NULL)
			break;
		t.to--;
		memmove(&index[t.at], &index[t.at + 1], (t.to - t.at) * sizeof(int));
	}
	for (int i = 0; i < t.to && tries <= MAX_TRIES_TOGETHER; i++)
	{
		s->rows[index[i]] = t.rows[i];
		s->copies[index[i]] = t.copies[i];
		s->stored[index[i]] = t.stored[i];
		errors[index[i]] = NULL;
	}
}

static void
apply_one_by_one(Section *s, int n)
{
	ErrorData **errors = palloc0(n * sizeof(ErrorData *));

	for (int i = 0; i < n; i++)
		errors[i] = apply_alone(s, i);
	apply_together(s, errors, n);
	for (int i = 0; i < n; i++)
		if (errors[i])
			park_failed(s, i, errors[i]);
}

void
ent_apply(EntApply *a, EntApplyRow *rows, int n)
{
	Section		s = {.a = a, .rows = rows, .to = n};

	if (n == 0)
		return;
	s.copies = palloc0(n * sizeof(Copy));
	s.stored = palloc0(n * sizeof(bool));
	if (try_rows(&s) != NULL)
		apply_one_by_one(&s, n);
	for (int i = 0; i < n; i++)
		if (s.stored[i])
		{
			bool		same = rows[i].op == ENT_ROW_FULL && s.copies[i].exists &&
				rows[i].serial == s.copies[i].serial;

			a->stored++;
			post(a, &s.copies[i], &rows[i], same ? 0 : rows[i].serial - 1);
		}
}

static int
compare_keys(const void *a, const void *b)
{
	const EntApplyKey *x = a,
			   *y = b;
	int			c = memcmp(x->data, y->data, Min(x->len, y->len));

	return c != 0 ? c : (x->len > y->len) - (x->len < y->len);
}

/* Should it be on the list, and is not? */
static bool
is_absent(const EntApplyPresent *p, const EntApplyKey *key)
{
	if ((p->lo.data && compare_keys(key, &p->lo) <= 0) ||
		(p->hi.data && compare_keys(key, &p->hi) > 0))
		return false;
	return bsearch(key, p->keys, p->nkeys, sizeof(EntApplyKey),
				   compare_keys) == NULL;
}

static Datum
key_datum(const EntApplyKey *key)
{
	if (key->data == NULL)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len((const char *) key->data,
													key->len));
}

/*
 * The owner's objects that may be meant: those in the range, where local images
 * are in the order of the wire's.
 */
static void
read_candidates(EntApply *a, const EntApplyPresent *p, int64 serial)
{
	bool		ranged = ent_key_is_wire(a->rel);
	Datum		args[6] = {Int32GetDatum(a->rel->no), Int32GetDatum(a->owner),
		ranged ? key_datum(&p->lo) : (Datum) 0,
		ranged ? key_datum(&p->hi) : (Datum) 0,
	Int64GetDatum(serial), Int32GetDatum(a->epoch)};
	char		nulls[] = "      ";

	nulls[2] = args[2] ? ' ' : 'n';
	nulls[3] = args[3] ? ' ' : 'n';
	ent_query_run(&absent_query, args, nulls, SPI_OK_SELECT, NULL);
}

void
ent_apply_present(EntApply *a, EntApplyPresent *p, int64 serial)
{
	EntApplyRow *rows;
	SPITupleTable *found;
	uint64		n;
	int			absent = 0;

	qsort(p->keys, p->nkeys, sizeof(EntApplyKey), compare_keys);
	read_candidates(a, p, serial);
	found = SPI_tuptable;
	n = SPI_processed;
	rows = palloc0((n + 1) * sizeof(EntApplyRow));
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		bytea	   *local = DatumGetByteaPCopy(SPI_getbinval(found->vals[i],
														  found->tupdesc, 1, &null));
		EntApplyRow *r = &rows[absent];
		EntApplyKey key;

		key.data = ent_key_to_wire(a->rel, (uint8 *) VARDATA_ANY(local),
								   VARSIZE_ANY_EXHDR(local), &key.len);
		if (!is_absent(p, &key))
			continue;
		/* in which version it died is not known, so it keeps the last one */
		r->op = ENT_ROW_DELETE;
		r->flags = ENT_ROW_REFRESH;
		r->serial = DatumGetInt64(SPI_getbinval(found->vals[i],
												found->tupdesc, 3, &null));
		r->wirekey = key.data;
		r->wirekeylen = key.len;
		absent++;
	}
	SPI_freetuptable(found);
	ent_apply(a, rows, absent);
}
