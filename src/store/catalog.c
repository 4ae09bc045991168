/*
 * store/catalog.c
 *	  Our own tables by oid.
 *
 * The cache survives DROP EXTENSION and CREATE EXTENSION: an oid is
 * forgotten when its relation is invalidated, and what is missing is looked
 * for each time.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "base/ent.h"
#include "store/catalog.h"

static const char *const names[] = {
	"relation",
	"relation_pkey",
	"relation_relid_key",
	"owner",
	"owner_pkey",
	"object",
	"object_pkey",
	"change",
	"handover",
	"handover_key",
	"request",
	"request_applied",
	"seek",
	"seek_local",
	"hook",
	"tombstone",
	"tombstone_pkey",
	"parked",
	"parked_pkey",
	"arrears",
	"arrears_pkey",
	"speaker",
	"speaker_pkey",
	"shown",
	"log_position",
};

StaticAssertDecl(lengthof(names) == ENT_CATALOGS,
				 "each of our catalogs has a name");

#define MAX_WATCHERS	8

static Oid	oids[ENT_CATALOGS];
static void (*watchers[MAX_WATCHERS]) (Oid relid);
static int	nwatchers = 0;
static bool registered = false;

static void
invalidate(Datum arg, Oid relid)
{
	for (int i = 0; i < nwatchers; i++)
		watchers[i] (relid);
	for (int i = 0; i < ENT_CATALOGS; i++)
		if (relid == InvalidOid || oids[i] == relid)
			oids[i] = InvalidOid;
}

static void
register_once(void)
{
	if (registered)
		return;
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
	registered = true;
}

void
ent_catalog_watch(void (*watch) (Oid relid))
{
	register_once();
	if (nwatchers == MAX_WATCHERS)
		elog(ERROR, "too many watchers of invalidations");
	watchers[nwatchers++] = watch;
}

Oid
ent_catalog_oid(EntCatalog which)
{
	Oid			schema;

	if (OidIsValid(oids[which]))
		return oids[which];
	register_once();
	schema = get_namespace_oid(ENT_SCHEMA, true);
	if (OidIsValid(schema))
		oids[which] = get_relname_relid(names[which], schema);
	return oids[which];
}

Relation
ent_catalog_open(EntCatalog which, LOCKMODE lock)
{
	Oid			relid = ent_catalog_oid(which);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", ENT_NAME)));
	return table_open(relid, lock);
}

bool
ent_catalog_any(EntCatalog table, EntCatalog index)
{
	Relation	rel;
	bool		found;

	if (!OidIsValid(ent_catalog_oid(table)))
		return false;
	rel = ent_catalog_open(table, AccessShareLock);
	found = RelationGetNumberOfBlocks(rel) > 0;
	if (found)
	{
		SysScanDesc scan = systable_beginscan(rel, ent_catalog_oid(index), true,
											  NULL, 0, NULL);

		found = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);
	return found;
}

bool
ent_catalog_is(EntCatalog which, Oid relid)
{
	return OidIsValid(relid) && oids[which] == relid;
}
