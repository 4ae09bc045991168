/*
 * store/owner.c
 *	  entanglement.owner.
 *
 * Our have of a remote owner only ever rises within an epoch; the SQL that
 * raises it says so itself (invariant I2).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/ent.h"
#include "base/guc.h"
#include "base/ring.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "store/direct.h"
#include "store/identity.h"
#include "store/owner.h"
#include "store/query.h"

#define OWNER_COLUMNS \
	"o.no, o.id, o.home, o.name, o.local, o.epoch, o.serial, o.pruned, o.peer, o.distance, " \
	"o.sure, o.told, o.nearest, o.lost, " \
	"EXISTS (SELECT 1 FROM entanglement.arrears a WHERE a.owner OPERATOR(pg_catalog.=) o.no), " \
	"(SELECT s.peers FROM entanglement.speaker s WHERE s.owner OPERATOR(pg_catalog.=) o.no), " \
	"o.gone_as IS NOT NULL, o.partial " \
	"FROM entanglement.owner o "

static EntQuery all_query = {
	"SELECT " OWNER_COLUMNS "ORDER BY o.no", 0, {0}, NULL
};
static EntQuery by_id_query = {
	"SELECT " OWNER_COLUMNS "WHERE o.id OPERATOR(pg_catalog.=) $1",
	1, {UUIDOID}, NULL
};
static EntQuery learn_query = {
	"INSERT INTO entanglement.owner (id, home, name, local, epoch) "
	"VALUES ($1, $2, $3, false, $4) RETURNING no",
	4, {UUIDOID, UUIDOID, TEXTOID, INT4OID}, NULL
};
static EntQuery count_query = {
	"SELECT (SELECT pg_catalog.count(*) FROM entanglement.owner) OPERATOR(pg_catalog.+) "
	"(SELECT pg_catalog.count(*) FROM entanglement.grave "
	"WHERE untold OPERATOR(pg_catalog.<>) '{}')", 0, {0}, NULL
};
static EntQuery route_query = {
	"UPDATE entanglement.owner SET "
	"peer = CASE WHEN $2 OPERATOR(pg_catalog.<>) 0 THEN $2 END, distance = $3, nearest = $4, "
	"lost = $5, name = $6, partial = $7, held = CASE WHEN $2 OPERATOR(pg_catalog.=) 0 THEN held END, "
	"serial = CASE WHEN peer OPERATOR(pg_catalog.=) $2 THEN serial ELSE sure END "
	"WHERE no OPERATOR(pg_catalog.=) $1 AND NOT local",
	7, {INT4OID, INT4OID, INT4OID, INT4OID, BOOLOID, TEXTOID, BOOLOID}, NULL
};
static EntQuery routed_query = {
	"SELECT no, id FROM entanglement.owner "
	"WHERE peer OPERATOR(pg_catalog.=) $1 AND NOT local AND NOT lost",
	1, {INT4OID}, NULL
};
static EntQuery lose_query = {
	"UPDATE entanglement.owner SET lost = true WHERE no OPERATOR(pg_catalog.=) ANY ($1)",
	1, {INT4ARRAYOID}, NULL
};
static EntQuery hold_all_query = {
	"SELECT 1 FROM entanglement.owner WHERE NOT local ORDER BY no FOR NO KEY UPDATE",
	0, {0}, NULL
};
static EntQuery named_query = {
	"SELECT o.no, o.local FROM entanglement.owner o "
	"WHERE (o.name OPERATOR(pg_catalog.=) $1 OR o.id OPERATOR(pg_catalog.=) $2) "
	"AND o.gone_as IS NULL ORDER BY o.local DESC LIMIT 2",
	2, {TEXTOID, UUIDOID}, NULL
};

static pg_uuid_t
uuid_at(uint64 row, int col)
{
	bool		null;
	Datum		d = ent_query_datum(row, col, &null);

	return *DatumGetUUIDP(d);
}

static void
read_speakers(EntOwner *o, Datum array, bool null, MemoryContext context)
{
	ArrayType  *a;

	o->pinned = !null;
	if (null)
		return;
	a = DatumGetArrayTypeP(array);
	o->nspeakers = ArrayGetNItems(ARR_NDIM(a), ARR_DIMS(a));
	o->speakers = MemoryContextAlloc(context, (o->nspeakers + 1) * sizeof(int32));
	memcpy(o->speakers, ARR_DATA_PTR(a), o->nspeakers * sizeof(int32));
}

static EntOwner *
owner_at(uint64 row, MemoryContext context)
{
	EntOwner   *o = MemoryContextAllocZero(context, sizeof(EntOwner));
	char	   *name = ent_query_text(row, 4);
	bool		unpinned;
	Datum		speakers = ent_query_datum(row, 16, &unpinned);

	o->no = ent_query_int4(row, 1, NULL);
	o->id = uuid_at(row, 2);
	o->home = uuid_at(row, 3);
	o->name = MemoryContextStrdup(context, name);
	o->local = ent_query_bool(row, 5);
	o->epoch = ent_query_int4(row, 6, NULL);
	o->serial = ent_query_int8(row, 7, NULL);
	o->pruned = ent_query_int8(row, 8, NULL);
	o->peer = ent_query_int4(row, 9, NULL);
	o->distance = ent_query_int4(row, 10, NULL);
	o->sure = ent_query_int8(row, 11, NULL);
	o->told = ent_query_int8(row, 12, NULL);
	o->nearest = ent_query_int4(row, 13, NULL);
	o->lost = ent_query_bool(row, 14);
	o->arrears = ent_query_bool(row, 15);
	read_speakers(o, speakers, unpinned, context);
	o->gone = ent_query_bool(row, 17);
	o->partial = ent_query_bool(row, 18);
	return o;
}

/* What was read, or NULL. Adverts are many: nothing is left behind. */
static EntOwner *
only_owner(MemoryContext context)
{
	EntOwner   *o = SPI_processed == 0 ? NULL : owner_at(0, context);

	SPI_freetuptable(SPI_tuptable);
	return o;
}

List *
ent_owner_all(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;

	ent_query_run(&all_query, NULL, NULL, SPI_OK_SELECT, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		EntOwner   *o = owner_at(i, context);
		MemoryContext old = MemoryContextSwitchTo(context);

		result = lappend(result, o);
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
	return result;
}

static pg_uuid_t
uuid_of(TupleTableSlot *row, AttrNumber attnum)
{
	bool		null;

	return *DatumGetUUIDP(slot_getattr(row, attnum, &null));
}

/* As owner_at, from the table's row. */
static EntOwner *
owner_of(TupleTableSlot *row)
{
	EntOwner   *o = palloc0(sizeof(EntOwner));
	bool		null;

	o->no = ent_direct_int4(row, ENT_OWNER_NO);
	o->id = uuid_of(row, ENT_OWNER_ID);
	o->home = uuid_of(row, ENT_OWNER_HOME);
	o->name = TextDatumGetCString(slot_getattr(row, ENT_OWNER_NAME, &null));
	o->local = ent_direct_bool(row, ENT_OWNER_LOCAL);
	o->epoch = ent_direct_int4(row, ENT_OWNER_EPOCH);
	o->serial = ent_direct_int8(row, ENT_OWNER_SERIAL);
	o->pruned = ent_direct_int8(row, ENT_OWNER_PRUNED);
	o->peer = ent_direct_int4(row, ENT_OWNER_PEER);
	o->distance = ent_direct_int4(row, ENT_OWNER_DISTANCE);
	o->sure = ent_direct_int8(row, ENT_OWNER_SURE);
	o->told = ent_direct_int8(row, ENT_OWNER_TOLD);
	o->nearest = ent_direct_int4(row, ENT_OWNER_NEAREST);
	o->lost = ent_direct_bool(row, ENT_OWNER_LOST);
	(void) slot_getattr(row, ENT_OWNER_GONE_AS, &null);
	o->gone = !null;
	o->partial = ent_direct_bool(row, ENT_OWNER_PARTIAL);
	return o;
}

bool
ent_owner_in_arrears(int32 no)
{
	Datum		key[1] = {Int32GetDatum(no)};
	EntDirect  *arrears = ent_direct_open(ENT_CATALOG_ARREARS, ENT_CATALOG_ARREARS_KEY,
										  AccessShareLock, NULL);
	bool		any = ent_direct_any(arrears, 1, key);

	ent_direct_close(arrears);
	return any;
}

/* What other tables say of it. */
static void
look_around(EntOwner *o)
{
	Datum		key[1] = {Int32GetDatum(o->no)};
	EntDirect  *speakers = ent_direct_open(ENT_CATALOG_SPEAKER,
										   ENT_CATALOG_SPEAKER_OWNER,
										   AccessShareLock, NULL);
	TupleTableSlot *row = ent_direct_find(speakers, key);
	bool		null = true;
	Datum		peers = row ? slot_getattr(row, ENT_SPEAKER_PEERS, &null) : (Datum) 0;

	read_speakers(o, peers, null, CurrentMemoryContext);
	ent_direct_close(speakers);
	o->arrears = ent_owner_in_arrears(o->no);
}

EntOwner *
ent_owner_get(int32 no)
{
	Datum		key[1] = {Int32GetDatum(no)};
	EntDirect  *owners = ent_direct_open(ENT_CATALOG_OWNER, ENT_CATALOG_OWNER_NO,
										 AccessShareLock, NULL);
	TupleTableSlot *row = ent_direct_find(owners, key);
	EntOwner   *o = row ? owner_of(row) : NULL;

	ent_direct_close(owners);
	if (o != NULL)
		look_around(o);
	return o;
}

EntOwner *
ent_owner_by_id(const pg_uuid_t *id)
{
	Datum		args[1] = {UUIDPGetDatum(id)};
	MemoryContext context = CurrentMemoryContext;

	ent_query_run(&by_id_query, args, NULL, SPI_OK_SELECT, NULL);
	return only_owner(context);
}

void
ent_owner_invalidate(void)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("owner",
													 get_namespace_oid(ENT_SCHEMA, false)));
}

int32
ent_owner_learn(const pg_uuid_t *id, const pg_uuid_t *home,
				const char *name, int32 epoch)
{
	Datum		args[4] = {UUIDPGetDatum(id), UUIDPGetDatum(home),
	CStringGetTextDatum(name), Int32GetDatum(epoch)};
	int32		no;

	ent_query_run(&learn_query, args, NULL, SPI_OK_INSERT_RETURNING, NULL);
	ent_owner_invalidate();
	no = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return no;
}

int64
ent_owner_count(void)
{
	int64		n;

	ent_query_run(&count_query, NULL, NULL, SPI_OK_SELECT, NULL);
	n = ent_query_int8(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return n;
}

bool
ent_owner_up(const EntOwner *o)
{
	EntPeerSlot *slot;

	if (o->local)
		return true;
	if (o->peer == 0 || o->lost)
		return false;
	slot = ent_shmem_peer(o->peer, false);
	return slot != NULL && slot->state == ENT_LINK_CONNECTED;
}

bool
ent_owner_may_speak(const EntOwner *o, int32 peer)
{
	for (int i = 0; i < o->nspeakers; i++)
		if (o->speakers[i] == peer)
			return true;
	return !o->pinned;
}

void
ent_owner_set_route(int32 no, int32 peer, int32 distance, int32 nearest,
					bool lost, bool partial, const char *name)
{
	Datum		args[7] = {Int32GetDatum(no), Int32GetDatum(peer),
		Int32GetDatum(distance), Int32GetDatum(nearest), BoolGetDatum(lost),
	CStringGetTextDatum(name), BoolGetDatum(partial)};

	ent_query_run(&route_query, args, NULL, SPI_OK_UPDATE, NULL);
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t));
}

void
ent_owner_lose(int32 peer, pg_uuid_t *ids, int n)
{
	Datum		args[1] = {Int32GetDatum(peer)};
	Datum	   *lost;
	int			m = 0;

	qsort(ids, n, sizeof(pg_uuid_t), compare_ids);
	ent_query_run(&routed_query, args, NULL, SPI_OK_SELECT, NULL);
	lost = palloc((SPI_processed + 1) * sizeof(Datum));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		pg_uuid_t	id = uuid_at(i, 2);

		if (bsearch(&id, ids, n, sizeof(pg_uuid_t), compare_ids) == NULL)
			lost[m++] = Int32GetDatum(ent_query_int4(i, 1, NULL));
	}
	SPI_freetuptable(SPI_tuptable);
	if (m == 0)
		return;
	args[0] = ent_query_array(INT4OID, lost, NULL, m);
	ent_query_run(&lose_query, args, NULL, SPI_OK_UPDATE, NULL);
	ent_wake_routes_at_commit();
}

void
ent_owner_hold_all(void)
{
	ent_query_run(&hold_all_query, NULL, NULL, SPI_OK_SELECT, NULL);
	SPI_freetuptable(SPI_tuptable);
}

List *
ent_owner_hold(const Bitmapset *nos)
{
	EntDirect  *owners = ent_direct_open(ENT_CATALOG_OWNER, ENT_CATALOG_OWNER_NO,
										 RowShareLock, NULL);
	List	   *held = NIL;
	int			no = -1;

	while ((no = bms_next_member(nos, no)) >= 0)
	{
		Datum		key[1] = {Int32GetDatum(no)};
		TupleTableSlot *row = ent_direct_find(owners, key);

		if (row != NULL && !ent_direct_bool(row, ENT_OWNER_LOCAL))
			row = ent_direct_lock(owners, &row->tts_tid);
		if (row != NULL)
			held = lappend(held, owner_of(row));
	}
	ent_direct_close(owners);
	return held;
}

/* The have that the row is to say; false: no other one. */
static bool
raise_have(TupleTableSlot *row, Datum *values, int32 epoch, int64 serial, bool gaps)
{
	int32		old_epoch = ent_direct_int4(row, ENT_OWNER_EPOCH);
	int64		old_serial = ent_direct_int8(row, ENT_OWNER_SERIAL),
				told = ent_direct_int8(row, ENT_OWNER_TOLD);
	bool		begins = old_epoch < epoch;

	if (ent_direct_bool(row, ENT_OWNER_LOCAL) || old_epoch > epoch ||
		(!begins && (gaps ? old_serial >= serial : old_serial > serial)))
		return false;
	values[ENT_OWNER_EPOCH - 1] = Int32GetDatum(epoch);
	values[ENT_OWNER_SERIAL - 1] = Int64GetDatum(serial);
	if (!gaps)
		values[ENT_OWNER_SURE - 1] = Int64GetDatum(serial);
	else if (begins)
		values[ENT_OWNER_SURE - 1] = Int64GetDatum(0);
	if (begins || told < serial)
	{
		values[ENT_OWNER_NEAREST - 1] = values[ENT_OWNER_DISTANCE - 1];
		values[ENT_OWNER_TOLD - 1] = Int64GetDatum(serial);
	}
	return true;
}

void
ent_owner_set_have(int32 no, int32 epoch, int64 serial, bool gaps)
{
	Datum		key[1] = {Int32GetDatum(no)};
	EntDirect  *owners = ent_direct_open(ENT_CATALOG_OWNER, ENT_CATALOG_OWNER_NO,
										 RowExclusiveLock, NULL);
	TupleTableSlot *row = ent_direct_find(owners, key);

	if (row != NULL)
	{
		Datum		values[ENT_OWNER_ATTRIBUTES];

		slot_getallattrs(row);
		memcpy(values, row->tts_values, sizeof(values));
		if (raise_have(row, values, epoch, serial, gaps) &&
			ent_direct_update(owners, &row->tts_tid, values,
							  row->tts_isnull) != ENT_DIRECT_DONE)
			elog(ERROR, "owner %d is not held", no);
	}
	ent_direct_close(owners);
}

/* Owners of which this process has given out serials since a crash. */
static Bitmapset *given = NULL;

static void
forget_given(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_ABORT)
		return;
	bms_free(given);
	given = NULL;
}

/* How many are passed over? */
static int64
at_risk(int32 no)
{
	static bool registered = false;
	MemoryContext old;

	if (ent_shared == NULL || !ent_shared->crashed || bms_is_member(no, given))
		return 0;
	if (!registered)
		RegisterXactCallback(forget_given, NULL);
	registered = true;
	old = MemoryContextSwitchTo(TopMemoryContext);
	given = bms_add_member(given, no);
	MemoryContextSwitchTo(old);
	return ENT_SERIALS_AT_RISK;
}

bool
ent_owner_allocate(int32 no, int64 *n, int64 *last, int32 *epoch)
{
	Datum		key[1] = {Int32GetDatum(no)};
	EntDirect  *owners = ent_direct_open(ENT_CATALOG_OWNER, ENT_CATALOG_OWNER_NO,
										 RowExclusiveLock, NULL);
	TupleTableSlot *row = ent_direct_find(owners, key);
	bool		local = row != NULL && ent_direct_bool(row, ENT_OWNER_LOCAL);

	if (local)
	{
		Datum		values[ENT_OWNER_ATTRIBUTES];

		*n += at_risk(no);
		*last = ent_direct_int8(row, ENT_OWNER_SERIAL) + *n;
		*epoch = ent_direct_int4(row, ENT_OWNER_EPOCH);
		slot_getallattrs(row);
		memcpy(values, row->tts_values, sizeof(values));
		values[ENT_OWNER_SERIAL - 1] = Int64GetDatum(*last);
		if (ent_direct_update(owners, &row->tts_tid, values,
							  row->tts_isnull) != ENT_DIRECT_DONE)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("owner %d was changed meanwhile", no)));
	}
	ent_direct_close(owners);
	return local;
}

/* Owners by name, as sessions and owner columns give them; '' is the default. */
typedef struct Named
{
	char		name[NAMEDATALEN * 4];	/* hash key */
	int32		no;
} Named;

static HTAB *names = NULL;

static void
forget_names(void)
{
	if (names != NULL)
		hash_destroy(names);
	names = NULL;
}

static void
forget_on_inval(Datum arg, Oid relid)
{
	forget_names();
}

/* An owner made in an aborted transaction went with it. */
static void
forget_on_abort(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		forget_names();
}

static void
forget_on_subabort(SubXactEvent event, SubTransactionId mine,
				   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_names();
}

/* Is it an id as it is printed? */
static bool
is_uuid(const char *text)
{
	static const char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	for (int i = 0; i < (int) sizeof(pattern); i++)
		if (pattern[i] == 'x' ?
			text[i] == '\0' || strchr("0123456789abcdef", text[i]) == NULL :
			text[i] != pattern[i])
			return false;
	return true;
}

int32
ent_owner_named(const char *name, const char *detail)
{
	bool		id = is_uuid(name);
	Datum		args[2] = {CStringGetTextDatum(name),
	id ? DirectFunctionCall1(uuid_in, CStringGetDatum(name)) : (Datum) 0};
	int32		no;

	ent_query_run(&named_query, args, id ? "  " : " n", SPI_OK_SELECT, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no owner is named \"%s\"", name),
				 detail ? errdetail("%s", detail) : 0,
				 errhint("Create it with entanglement.create_owner, or name one of: SELECT name FROM entanglement.owners.")));
	if (SPI_processed > 1 && !ent_query_bool(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_ALIAS),
				 errmsg("more than one owner is named \"%s\"", name),
				 detail ? errdetail("%s", detail) : 0,
				 errhint("Give the id of one of them: SELECT id, name, peer FROM entanglement.owners.")));
	no = ent_query_int4(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	return no;
}

static void
watch_names(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterRelcacheCallback(forget_on_inval, (Datum) 0);
	RegisterXactCallback(forget_on_abort, NULL);
	RegisterSubXactCallback(forget_on_subabort, NULL);
	registered = true;
}

/* Between the look and the note the names may be forgotten. */
static void
remember(const char *key, int32 no)
{
	HASHCTL		ctl = {.keysize = sizeof(((Named *) 0)->name),
	.entrysize = sizeof(Named)};
	Named	   *n;

	if (names == NULL)
		names = hash_create("entanglement owners by name", 64, &ctl,
							HASH_ELEM | HASH_BLOBS);
	n = hash_search(names, key, HASH_ENTER, NULL);
	n->no = no;
}

int32
ent_owner_look_up(const char *name, const char *detail)
{
	char		key[sizeof(((Named *) 0)->name)] = {0};
	bool		fits = strlen(name) < sizeof(key);	/* others are looked up each time */
	Named	   *n = NULL;
	int32		no;

	watch_names();
	if (fits)
		strlcpy(key, name, sizeof(key));
	if (fits && names != NULL)
		n = hash_search(names, key, HASH_FIND, NULL);
	if (n != NULL)
		return n->no;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	no = name[0] == '\0' ? ent_identity_get()->default_owner :
		ent_owner_named(name, detail);
	SPI_finish();
	if (fits)
		remember(key, no);
	return no;
}

int32		ent_owner_forced = 0;

int32
ent_owner_current(void)
{
	if (ent_owner_forced != 0)
		return ent_owner_forced;
	return ent_owner_look_up(ent_owner, "Setting entanglement.owner names the owner of new rows.");
}
