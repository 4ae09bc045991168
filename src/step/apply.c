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

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/ring.h"
#include "base/wake.h"
#include "rule/colserial.h"
#include "step/apply.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"
#include "store/version.h"

static EntQuery find_query = {
	"SELECT u.n, o.owner, o.epoch, o.serial, o.born, o.column_serials, "
	"EXISTS (SELECT 1 FROM entanglement.parked p WHERE p.rel OPERATOR(pg_catalog.=) $1 "
	"AND p.key OPERATOR(pg_catalog.=) u.key AND p.owner OPERATOR(pg_catalog.=) $3), "
	"t.epoch, t.serial "
	"FROM pg_catalog.unnest($2) WITH ORDINALITY AS u(key, n) "
	"LEFT JOIN LATERAL (SELECT o.* FROM entanglement.object o "
	"WHERE o.rel OPERATOR(pg_catalog.=) $1 AND o.key OPERATOR(pg_catalog.=) u.key "
	"OFFSET 0) o ON true "
	"LEFT JOIN LATERAL (SELECT t.* FROM entanglement.tombstone t "
	"WHERE t.owner OPERATOR(pg_catalog.=) $3 AND t.rel OPERATOR(pg_catalog.=) $1 "
	"AND t.key OPERATOR(pg_catalog.=) u.key OFFSET 0) t ON true",
	3, {INT4OID, BYTEAARRAYOID, INT4OID}, NULL
};
static EntQuery park_query = {
	"INSERT INTO entanglement.parked AS p "
	"(rel, key, owner, peer, serial, sqlstate, message, detail, foreign_key, epoch) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
	"ON CONFLICT (rel, key, owner) DO UPDATE SET peer = EXCLUDED.peer, "
	"epoch = EXCLUDED.epoch, serial = EXCLUDED.serial, "
	"sqlstate = EXCLUDED.sqlstate, "
	"message = EXCLUDED.message, detail = EXCLUDED.detail, "
	"tries = p.tries OPERATOR(pg_catalog.+) 1 "
	"WHERE (p.epoch, p.serial) OPERATOR(pg_catalog.<=) (EXCLUDED.epoch, EXCLUDED.serial)",
	10, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, INT4OID}, NULL
};
/* An older version, by another way, is not the one that is missed. */
static EntQuery unpark_query = {
	"DELETE FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 AND owner OPERATOR(pg_catalog.=) $3 "
	"AND (epoch, serial) OPERATOR(pg_catalog.<=) ($4, $5)",
	5, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID}, NULL
};
static EntQuery freed_query = {
	"SELECT owner FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2",
	2, {INT4OID, BYTEAOID}, NULL
};
static EntQuery owe_query = {
	"INSERT INTO entanglement.owed AS d (peer, rel, owner, key, serial) "
	"SELECT p.no, $2, $3, $4, $5 FROM entanglement.peer p "
	"WHERE p.no OPERATOR(pg_catalog.<>) $1 "
	"ON CONFLICT (owner, rel, key, peer) DO UPDATE SET serial = EXCLUDED.serial "
	"WHERE d.serial OPERATOR(pg_catalog.<) EXCLUDED.serial",
	5, {INT4OID, INT4OID, INT4OID, BYTEAOID, INT8OID}, NULL
};
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
	"AND (o.epoch OPERATOR(pg_catalog.<) $7 OR o.serial OPERATOR(pg_catalog.<=) $5) "
	"AND o.key OPERATOR(pg_catalog.<>) ALL ($6)",
	7, {INT4OID, INT4OID, BYTEAOID, BYTEAOID, INT8OID, BYTEAARRAYOID, INT4OID}, NULL
};

/* What is here of one row's object. */
typedef struct Copy
{
	bytea	   *key;			/* local image */
	bool		foreign_key;	/* no, the peer's: it has no equivalent here */
	Datum		values[ENT_WIRE_MAX_KEYS];
	bool		exists;			/* object row: */
	int32		owner;
	int32		epoch;
	int64		serial;
	int64		born;
	bytea	   *columns;
	bool		parked;
	bool		buried;			/* tombstone of this owner: */
	int32		grave_epoch;
	int64		grave_serial;
} Copy;

static bool
newer(int32 epoch, int64 serial, int32 than_epoch, int64 than_serial)
{
	return epoch > than_epoch || (epoch == than_epoch && serial > than_serial);
}

/* Fills in copies whose key is known. */
static void
find_copies(EntApply *a, Copy *copies, int n)
{
	Datum	   *keys = palloc(n * sizeof(Datum));
	int		   *index = palloc(n * sizeof(int));
	int			m = 0;
	Datum		args[3];

	for (int i = 0; i < n; i++)
		if (copies[i].key)
		{
			index[m] = i;
			keys[m++] = PointerGetDatum(copies[i].key);
		}
	if (m == 0)
		return;
	args[0] = Int32GetDatum(a->rel->no);
	args[1] = ent_query_array(BYTEAOID, keys, NULL, m);
	args[2] = Int32GetDatum(a->owner);
	ent_query_run(&find_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Copy	   *c = &copies[index[ent_query_int8(row, 1, NULL) - 1]];
		bool		null;

		c->owner = ent_query_int4(row, 2, &null);
		c->exists = !null;
		if (c->exists)
		{
			c->epoch = ent_query_int4(row, 3, NULL);
			c->serial = ent_query_int8(row, 4, NULL);
			c->born = ent_query_int8(row, 5, NULL);
			c->columns = DatumGetByteaPCopy(ent_query_datum(row, 6, &null));
		}
		c->parked = ent_query_bool(row, 7);
		c->grave_epoch = ent_query_int4(row, 8, &null);
		c->buried = !null;
		c->grave_serial = ent_query_int8(row, 9, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* ---- writing our own tables ---- */

/*
 * Does it come so late that our have, and so perhaps those of our other peers,
 * covers it already? Then they would not get it by its serial.
 */
static bool
late(EntApply *a, EntApplyRow *r)
{
	return (r->flags & ENT_ROW_LATE) != 0 || r->serial <= a->have;
}

static void
post(EntApply *a, Copy *c, EntApplyRow *r, int64 since)
{
	EntEvent	ev = {
		.kind = ENT_EVENT_OBJECT, .owner = a->owner, .rel = a->rel->no,
		.serial = r->serial, .since = since,
		.flags = late(a, r) ? ENT_ROW_REFRESH | ENT_ROW_LATE : r->flags,
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

static void
unpark(EntApply *a, Copy *c, EntApplyRow *r)
{
	Datum		args[5] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key),
		Int32GetDatum(a->owner), Int32GetDatum(a->epoch),
	Int64GetDatum(r->serial)};

	if (!c->parked)
		return;
	ent_query_run(&unpark_query, args, NULL, SPI_OK_DELETE, NULL);
}

static char *
key_text(EntApply *a, Copy *c)
{
	if (c->foreign_key)
		return TextDatumGetCString(DirectFunctionCall2(binary_encode,
													   PointerGetDatum(c->key),
													   CStringGetTextDatum("hex")));
	return ent_key_text(a->rel, (uint8 *) VARDATA_ANY(c->key),
						VARSIZE_ANY_EXHDR(c->key));
}

/* Notes that the object has to be asked for again. */
static void
note_parked(EntApply *a, Copy *c, EntApplyRow *r, const char *sqlstate,
	 const char *message, const char *detail)
{
	Datum		args[10] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key),
		Int32GetDatum(a->owner), Int32GetDatum(a->peer),
		Int64GetDatum(r->serial), CStringGetTextDatum(sqlstate),
		CStringGetTextDatum(message), (Datum) 0, BoolGetDatum(c->foreign_key),
	Int32GetDatum(a->epoch)};
	char		nulls[] = "          ";

	if (detail)
		args[7] = CStringGetTextDatum(detail);
	else
		nulls[7] = 'n';
	ent_query_run(&park_query, args, nulls, SPI_OK_INSERT, NULL);
	c->parked = true;
}

/* A refused value must not be lost nor hold up others: note it, ask later. */
static void
park(EntApply *a, Copy *c, EntApplyRow *r, const char *sqlstate,
	 const char *message, const char *detail)
{
	bool		was_parked = c->parked;

	note_parked(a, c, r, sqlstate, message, detail);
	if (!was_parked)
		ereport(LOG,
				(errmsg("object %s of table \"%s.%s\" could not be stored: %s",
						key_text(a, c), a->rel->schema, a->rel->name,
						message),
				 errhint("See entanglement.parked_rows; it will be tried again.")));
}

/* The object's place is free: others parked for the same key may come. */
static void
wake_parked(EntApply *a, Copy *c)
{
	Datum		args[2] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key)};

	ent_query_run(&freed_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		ent_wake_routes_at_commit();
	SPI_freetuptable(SPI_tuptable);
}

static void
owe_others(EntApply *a, Copy *c, EntApplyRow *r)
{
	Datum		args[5] = {Int32GetDatum(a->peer), Int32GetDatum(a->rel->no),
		Int32GetDatum(a->owner), PointerGetDatum(c->key),
	Int64GetDatum(r->serial)};

	ent_query_run(&owe_query, args, NULL, SPI_OK_INSERT, NULL);
}

/* ---- writing the user's table, as the peer's role ---- */

typedef struct Values
{
	Datum	   *values;
	bool	   *nulls;
} Values;

static Values
decode(EntApply *a, EntApplyRow *r)
{
	int			n = a->rel->ncolumns;
	Values		v = {palloc0(n * sizeof(Datum)), palloc0(n * sizeof(bool))};

	for (int i = 0; i < n; i++)
	{
		if (!r->set[i])
			continue;
		v.nulls[i] = r->data[i] == NULL;
		if (!v.nulls[i])
			v.values[i] = ent_value_decode(&a->rel->columns[i], a->formats[i],
										   a->sender_types[i], r->data[i],
										   r->len[i]);
	}
	return v;
}

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

typedef enum Outcome
{
	STORED,
	MISSING,					/* delta on a row that is not there */
	INVISIBLE					/* the row exists, but not for this role */
} Outcome;

typedef struct Write
{
	EntApply   *a;
	Copy	   *c;
	EntApplyRow *r;
	bool		careful;		/* an INSERT failed before: look first */
	Outcome		outcome;
} Write;

static Outcome
write_row(Write *w)
{
	EntApply   *a = w->a;
	EntApplyRow *r = w->r;
	Values		v;

	if (r->op == ENT_ROW_DELETE)
	{
		ent_rowquery_delete(a->rel, w->c->values);
		return STORED;
	}
	v = decode(a, r);
	if ((w->c->exists || w->careful) &&
		ent_rowquery_update(a->rel, r->set, w->c->values, v.values, v.nulls) > 0)
		return STORED;
	if (r->op == ENT_ROW_DELTA)
		return MISSING;
	if (w->careful && ent_rowquery_exists(a->rel, w->c->values, NULL))
		return INVISIBLE;
	ent_rowquery_insert(a->rel, r->set, w->c->values, v.values, v.nulls);
	return STORED;
}

/* Runs write_row as the peer's role, triggers asleep, nothing captured. */
static void
write_as_peer(Write *w)
{
	Oid			save_user;
	int			save_context;
	int			save_role = SessionReplicationRole;
	bool		save_applying = ent_rowquery_applying;

	GetUserIdAndSecContext(&save_user, &save_context);
	SetUserIdAndSecContext(w->a->role, save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	ent_rowquery_applying = true;
	PG_TRY();
	{
		w->outcome = write_row(w);
	}
	PG_FINALLY();
	{
		ent_rowquery_applying = save_applying;
		SessionReplicationRole = save_role;
		SetUserIdAndSecContext(save_user, save_context);
	}
	PG_END_TRY();
}

/* ---- one row ---- */

/* Has the copy here that version already (or a newer one)? */
static bool
stale(EntApply *a, Copy *c, EntApplyRow *r)
{
	bool		refresh = (r->flags & ENT_ROW_REFRESH) != 0;

	if (c->exists)
		return !newer(a->epoch, r->serial, c->epoch, c->serial) &&
			!(refresh && r->op == ENT_ROW_FULL &&
			  a->epoch == c->epoch && r->serial == c->serial);
	if (c->buried && !newer(a->epoch, r->serial, c->grave_epoch, c->grave_serial))
		return true;
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
	note_parked(a, c, r, "55000", "the object came in part, its copy here is missing or too old",
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
		park(a, c, r, "23505", "another owner has an object with this key here",
			 NULL);
		return false;
	}
	if (stale(a, c, r))
		return false;
	if (r->op == ENT_ROW_DELTA &&
		(!c->exists || c->parked || c->epoch != a->epoch || c->serial < r->base))
	{
		ask_again(a, c, r);
		return false;
	}
	return true;
}

static void
note_deleted(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions)
{
	bool		mine = c->exists && c->owner == a->owner;

	if (mine)
		ent_versions_drop(versions, a->rel->no, c->key);
	ent_versions_bury(versions, a->rel->no, a->owner, a->epoch, r->serial,
					  c->key);
	unpark(a, c, r);
	if (mine)
		wake_parked(a, c);
	if (mine && late(a, r))
		owe_others(a, c, r);
}

static void
note_stored(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions)
{
	if (!c->exists || newer(a->epoch, r->serial, c->epoch, c->serial))
		ent_versions_put(versions, a->rel->no, a->owner, a->epoch, r->serial,
						 r->op == ENT_ROW_DELTA ? c->born : r->serial, c->key,
						 new_columns(a, c, r));
	unpark(a, c, r);
	if (late(a, r))
		owe_others(a, c, r);
}

/* Stores one row; true when it was. Errors are the row's or the server's. */
static bool
apply_row(EntApply *a, Copy *c, EntApplyRow *r, EntVersions *versions,
		  bool careful)
{
	Write		w = {.a = a, .c = c, .r = r, .careful = careful};

	if (!acceptable(a, c, r))
		return false;
	if (r->op != ENT_ROW_DELETE || (c->exists && c->owner == a->owner))
		write_as_peer(&w);
	switch (w.outcome)
	{
		case MISSING:
			ask_again(a, c, r);
			return false;
		case INVISIBLE:
			park(a, c, r, "42501", "the row exists but the peer's role may not change it",
				 NULL);
			return false;
		case STORED:
			break;
	}
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
} Section;

static void
apply_rows(Section *s)
{
	EntVersions *versions = ent_versions_create();

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
	for (int i = s->from; i < s->to; i++)
		s->stored[i] = apply_row(s->a, &s->copies[i], &s->rows[i], versions,
								 s->careful);
	ent_versions_write(versions);
}

/* Is this error about the data, so that trying again as is makes no sense? */
static bool
about_the_row(int sqlstate)
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
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		apply_rows(s);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error && !about_the_row(error->sqlerrcode))
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
		unpark(s->a, c, &s->rows[i]);		/* all that can be here of it */
		return;
	}
	park(s->a, c, &s->rows[i],
		 c->foreign_key && s->rows[i].wirekeylen > ENT_KEY_MAX ? "54000" :
		 unpack_sql_state(error->sqlerrcode), error->message, error->detail);
}

static void
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
			park(s->a, &s->copies[i], &s->rows[i], "23505",
				 "a row of this node has the same key", NULL);
			return;
		}
		s->careful = true;
		error = try_rows(s);
	}
	if (error)
		park_failed(s, i, error);
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
		for (int i = 0; i < n; i++)
			apply_alone(&s, i);
	for (int i = 0; i < n; i++)
		if (s.stored[i])
		{
			bool		same = rows[i].op == ENT_ROW_FULL && s.copies[i].exists &&
				rows[i].serial == s.copies[i].serial;

			a->stored++;
			post(a, &s.copies[i], &rows[i], same ? 0 : rows[i].serial - 1);
		}
}

void
ent_apply_present(EntApply *a, bytea *lo, bytea *hi, int64 serial,
				  Datum *keys, int nkeys)
{
	char		nulls[] = "       ";
	Datum		args[7] = {Int32GetDatum(a->rel->no), Int32GetDatum(a->owner),
		PointerGetDatum(lo), PointerGetDatum(hi), Int64GetDatum(serial),
	ent_query_array(BYTEAOID, keys, NULL, nkeys), Int32GetDatum(a->epoch)};
	EntApplyRow *rows;
	SPITupleTable *found;
	uint64		n;

	nulls[2] = lo ? ' ' : 'n';
	nulls[3] = hi ? ' ' : 'n';
	ent_query_run(&absent_query, args, nulls, SPI_OK_SELECT, NULL);
	found = SPI_tuptable;
	n = SPI_processed;
	rows = palloc0((n + 1) * sizeof(EntApplyRow));
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		bytea	   *key = DatumGetByteaPCopy(SPI_getbinval(found->vals[i],
														found->tupdesc, 1, &null));

		/* deleted in the very next version, whichever that was */
		rows[i].op = ENT_ROW_DELETE;
		rows[i].flags = ENT_ROW_REFRESH;
		rows[i].serial = DatumGetInt64(SPI_getbinval(found->vals[i],
													 found->tupdesc, 3, &null));
		if (rows[i].serial < PG_INT64_MAX)
			rows[i].serial++;
		rows[i].wirekey = ent_key_to_wire(a->rel, (uint8 *) VARDATA_ANY(key),
										  VARSIZE_ANY_EXHDR(key),
										  &rows[i].wirekeylen);
	}
	SPI_freetuptable(found);
	ent_apply(a, rows, n);
}
