/*
 * store/object.c
 *	  entanglement.object: looking up one object's owner cheaply.
 *
 * Reads our tables as the backend reads its catalogs. Which owners are local
 * is remembered; whoever learns of a new one, or changes an owner's home,
 * invalidates the table (ent_owner_invalidate).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/wake.h"
#include "store/catalog.h"
#include "store/direct.h"
#include "store/handover.h"
#include "store/object.h"
#include "store/query.h"
#include "store/relinfo.h"

static EntQuery remote_query = {
	"UPDATE entanglement.relation SET remote = true "
	"WHERE ($1 OPERATOR(pg_catalog.=) 0 OR no OPERATOR(pg_catalog.=) $1) AND NOT remote",
	1, {INT4OID}, NULL
};

/* ---- owners ---- */

typedef struct Side
{
	int32		owner;			/* hash key */
	bool		local;
} Side;

static HTAB *sides = NULL;
static enum
{
	REMOTE_UNKNOWN,
	REMOTE_NONE,
	REMOTE_SOME
}			any_remote = REMOTE_UNKNOWN;
static bool watching = false;
static uint32 invalidations = 0;

static void
forget_owners(Oid relid)
{
	if (OidIsValid(relid) && !ent_catalog_is(ENT_CATALOG_OWNER, relid))
		return;
	invalidations++;
	any_remote = REMOTE_UNKNOWN;
	if (sides != NULL)
		hash_destroy(sides);
	sides = NULL;
}

static void
watch_owners(void)
{
	if (!watching)
		ent_catalog_watch(forget_owners);
	watching = true;
}

/* Looks at all owners: there are not many. */
static bool
find_remote_owner(void)
{
	Relation	rel = ent_catalog_open(ENT_CATALOG_OWNER, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tup;
	bool		found = false;

	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (!found && HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		bool		null;

		found = !DatumGetBool(heap_getattr(tup, ENT_OWNER_LOCAL,
										   RelationGetDescr(rel), &null));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

bool
ent_object_any_remote(void)
{
	watch_owners();
	if (any_remote == REMOTE_UNKNOWN)
	{
		uint32		before = invalidations;
		bool		found = find_remote_owner();

		if (before != invalidations)
			return true;
		any_remote = found ? REMOTE_SOME : REMOTE_NONE;
	}
	return any_remote == REMOTE_SOME;
}

/* The owner's side and, unless NULL, its name. */
static bool
read_owner(int32 owner, bool *local, char **name)
{
	Relation	rel = ent_catalog_open(ENT_CATALOG_OWNER, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tup;

	ScanKeyInit(&key, ENT_OWNER_NO, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(owner));
	scan = systable_beginscan(rel, ent_catalog_oid(ENT_CATALOG_OWNER_NO), true,
							  NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		null;

		*local = DatumGetBool(heap_getattr(tup, ENT_OWNER_LOCAL, desc, &null));
		if (name != NULL)
			*name = TextDatumGetCString(heap_getattr(tup, ENT_OWNER_NAME, desc,
													 &null));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tup);
}

bool
ent_object_owner_is_local(int32 owner)
{
	Side	   *side = NULL;
	bool		local;
	uint32		before = invalidations;

	watch_owners();
	if (sides != NULL)
		side = hash_search(sides, &owner, HASH_FIND, NULL);
	if (side != NULL)
		return side->local;
	if (!read_owner(owner, &local, NULL))
		return false;
	if (before != invalidations)
		return local;
	if (sides == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(Side)};

		sides = hash_create("entanglement owners", 64, &ctl,
							HASH_ELEM | HASH_BLOBS);
	}
	side = hash_search(sides, &owner, HASH_ENTER, NULL);
	side->local = local;
	return local;
}

bool
ent_object_is_ahead(TupleTableSlot *object)
{
	bool		null;
	Datum		digests = slot_getattr(object, ENT_OBJECT_DIGESTS, &null);

	return !null && VARSIZE_ANY_EXHDR(DatumGetPointer(digests)) == 0;
}

bytea *
ent_object_ahead(void)
{
	bytea	   *empty = palloc(VARHDRSZ);

	SET_VARSIZE(empty, VARHDRSZ);
	return empty;
}

char *
ent_object_owner_name(int32 owner)
{
	bool		local;
	char	   *name;

	return read_owner(owner, &local, &name) ? name : NULL;
}

/* ---- objects ---- */

bool
ent_object_find(int32 no, bytea *key, EntObject *out)
{
	Datum		keys[2] = {Int32GetDatum(no), PointerGetDatum(key)};
	EntDirect  *objects = ent_direct_open(ENT_CATALOG_OBJECT, ENT_CATALOG_OBJECT_KEY,
										  AccessShareLock, GetActiveSnapshot());
	TupleTableSlot *row = ent_direct_find(objects, keys);

	if (row != NULL)
	{
		out->owner = ent_direct_int4(row, ENT_OBJECT_OWNER);
		out->epoch = ent_direct_int4(row, ENT_OBJECT_EPOCH);
		out->serial = ent_direct_int8(row, ENT_OBJECT_SERIAL);
		out->born = ent_direct_int8(row, ENT_OBJECT_BORN);
	}
	ent_direct_close(objects);
	return row != NULL;
}

int32
ent_object_owner(int32 no, bytea *key)
{
	EntObject	object = {0};
	int32		heir;

	if (ent_object_find(no, key, &object) &&
		!ent_object_owner_is_local(object.owner))
		return object.owner;
	heir = ent_handover_heir(no, key);
	return heir != 0 ? heir : object.owner;
}

int32
ent_object_remote_owner(int32 no, bytea *key)
{
	int32		owner;

	if (!ent_object_any_remote())
		return 0;
	/* the row may have become somebody's after our statement began */
	PushActiveSnapshot(GetLatestSnapshot());
	owner = ent_object_owner(no, key);
	PopActiveSnapshot();
	return owner != 0 && !ent_object_owner_is_local(owner) ? owner : 0;
}

int32
ent_object_remote_in(int32 no)
{
	Relation	rel = ent_catalog_open(ENT_CATALOG_OBJECT, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tup;
	int32		found = 0;

	ScanKeyInit(&key, ENT_OBJECT_REL, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(no));
	scan = systable_beginscan(rel, ent_catalog_oid(ENT_CATALOG_OBJECT_KEY), true,
							  GetActiveSnapshot(), 1, &key);
	while (found == 0 && HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		bool		null;
		int32		owner = DatumGetInt32(heap_getattr(tup, ENT_OBJECT_OWNER,
													   RelationGetDescr(rel), &null));

		if (!ent_object_owner_is_local(owner))
			found = owner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found != 0 ? found : ent_handover_remote_in(no);
}

void
ent_object_note_remote(int32 no)
{
	Datum		args[1] = {Int32GetDatum(no)};
	EntRelation *rel = no == 0 ? NULL : ent_relinfo_get(no);

	if (no != 0 && (rel == NULL || rel->remote))
		return;
	ent_wake_marking();
	ent_query_run(&remote_query, args, NULL, SPI_OK_UPDATE, NULL);
	if (SPI_processed == 0)
		return;
	if (rel != NULL)
		CacheInvalidateRelcacheByRelid(rel->relid);
	else
		ent_relinfo_invalidate();
}
