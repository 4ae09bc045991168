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

static Relation
open_catalog(EntCatalog which)
{
	Oid			relid = ent_catalog_oid(which);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"entanglement\" is not installed in this database")));
	return table_open(relid, AccessShareLock);
}

/* Looks at all owners: there are not many. */
static bool
find_remote_owner(void)
{
	Relation	rel = open_catalog(ENT_CATALOG_OWNER);
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
	Relation	rel = open_catalog(ENT_CATALOG_OWNER);
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

char *
ent_object_owner_name(int32 owner)
{
	bool		local;
	char	   *name;

	return read_owner(owner, &local, &name) ? name : NULL;
}

/* ---- objects ---- */

/* Scans objects by the first nkeys columns of their key. */
static SysScanDesc
scan_objects(Relation rel, int32 no, bytea *key)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], ENT_OBJECT_REL, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(no));
	if (key != NULL)
		ScanKeyInit(&keys[1], ENT_OBJECT_KEY, BTEqualStrategyNumber, F_BYTEAEQ,
					PointerGetDatum(key));
	return systable_beginscan(rel, ent_catalog_oid(ENT_CATALOG_OBJECT_KEY),
							  true, GetActiveSnapshot(), key ? 2 : 1, keys);
}

static int32
object_int4(HeapTuple tup, Relation rel, AttrNumber attnum)
{
	bool		null;

	return DatumGetInt32(heap_getattr(tup, attnum, RelationGetDescr(rel),
									  &null));
}

static int64
object_int8(HeapTuple tup, Relation rel, AttrNumber attnum)
{
	bool		null;

	return DatumGetInt64(heap_getattr(tup, attnum, RelationGetDescr(rel),
									  &null));
}

bool
ent_object_find(int32 no, bytea *key, EntObject *out)
{
	Relation	rel = open_catalog(ENT_CATALOG_OBJECT);
	SysScanDesc scan = scan_objects(rel, no, key);
	HeapTuple	tup = systable_getnext(scan);

	if (HeapTupleIsValid(tup))
	{
		out->owner = object_int4(tup, rel, ENT_OBJECT_OWNER);
		out->epoch = object_int4(tup, rel, ENT_OBJECT_EPOCH);
		out->serial = object_int8(tup, rel, ENT_OBJECT_SERIAL);
		out->born = object_int8(tup, rel, ENT_OBJECT_BORN);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tup);
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
	Relation	rel = open_catalog(ENT_CATALOG_OBJECT);
	SysScanDesc scan = scan_objects(rel, no, NULL);
	HeapTuple	tup;
	int32		found = 0;

	while (found == 0 && HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		int32		owner = object_int4(tup, rel, ENT_OBJECT_OWNER);

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
