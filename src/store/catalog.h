/*
 * store/catalog.h
 *	  Our own tables by oid, for the places that read or write them directly.
 *
 * Triggers and lookups per row cannot afford SPI; they open our tables as
 * the backend opens its catalogs. Nobody's rights are checked there.
 */
#ifndef ENT_STORE_CATALOG_H
#define ENT_STORE_CATALOG_H

#include "postgres.h"

#include "storage/lockdefs.h"
#include "utils/relcache.h"

typedef enum EntCatalog
{
	ENT_CATALOG_RELATION = 0,
	ENT_CATALOG_RELATION_NO,	/* index on no */
	ENT_CATALOG_RELATION_RELID, /* index on relid */
	ENT_CATALOG_OWNER,
	ENT_CATALOG_OWNER_NO,		/* index on no */
	ENT_CATALOG_OBJECT,
	ENT_CATALOG_OBJECT_KEY,		/* index on rel, key */
	ENT_CATALOG_CHANGE,
	ENT_CATALOG_HANDOVER,
	ENT_CATALOG_HANDOVER_KEY,	/* index on rel, key */
	ENT_CATALOG_REQUEST,
	ENT_CATALOG_REQUEST_APPLIED,	/* index on no of those applied */
	ENT_CATALOG_SEEK,
	ENT_CATALOG_SEEK_LOCAL,		/* index on owner of local ones */
	ENT_CATALOG_HOOK,
	ENT_CATALOG_TOMBSTONE,
	ENT_CATALOG_TOMBSTONE_KEY,	/* index on owner, rel, key */
	ENT_CATALOG_PARKED,
	ENT_CATALOG_PARKED_KEY,		/* index on rel, key, owner */
	ENT_CATALOG_ARREARS,
	ENT_CATALOG_ARREARS_KEY,	/* index on owner, rel */
	ENT_CATALOG_SPEAKER,
	ENT_CATALOG_SPEAKER_OWNER,	/* index on owner */
	ENT_CATALOG_SHOWN,
	ENT_CATALOG_LOG_POSITION,
	ENT_CATALOGS
} EntCatalog;

/* Columns, as in sql/install/00_schema.sql. */
typedef enum EntRelationAttribute
{
	ENT_RELATION_NO = 1,
	ENT_RELATION_RELID,
	ENT_RELATION_KEY_INDEX,
	ENT_RELATION_CAPTURE,
	ENT_RELATION_PRIORITY,
	ENT_RELATION_KEYS_FROM_OTHERS,
	ENT_RELATION_INTEGRITY,
	ENT_RELATION_PRIORITY_GIVEN,
	ENT_RELATION_OWNER_COLUMN,
	ENT_RELATION_OWNER_COLUMN_NAME,
	ENT_RELATION_EVERY_STATE,
	ENT_RELATION_WAL,
	ENT_RELATION_REMOTE,
	ENT_RELATION_DIGESTED
} EntRelationAttribute;

typedef enum EntOwnerAttribute
{
	ENT_OWNER_NO = 1,
	ENT_OWNER_ID,
	ENT_OWNER_NAME,
	ENT_OWNER_LOCAL,
	ENT_OWNER_HOME,
	ENT_OWNER_EPOCH,
	ENT_OWNER_SERIAL,
	ENT_OWNER_SURE,
	ENT_OWNER_TOLD,
	ENT_OWNER_PRUNED,
	ENT_OWNER_PEER,
	ENT_OWNER_DISTANCE,
	ENT_OWNER_NEAREST,
	ENT_OWNER_LOST,
	ENT_OWNER_GONE_AS,
	ENT_OWNER_INITIAL,
	ENT_OWNER_HELD,
	ENT_OWNER_PARTIAL,
	ENT_OWNER_ATTRIBUTES = ENT_OWNER_PARTIAL
} EntOwnerAttribute;

typedef enum EntSpeakerAttribute
{
	ENT_SPEAKER_OWNER = 1,
	ENT_SPEAKER_PEERS
} EntSpeakerAttribute;

typedef enum EntShownAttribute
{
	ENT_SHOWN_PEER = 1,
	ENT_SHOWN_REL,
	ENT_SHOWN_KIND
} EntShownAttribute;

typedef enum EntObjectAttribute
{
	ENT_OBJECT_REL = 1,
	ENT_OBJECT_OWNER,
	ENT_OBJECT_EPOCH,
	ENT_OBJECT_SERIAL,
	ENT_OBJECT_BORN,
	ENT_OBJECT_CHANGED_AT,
	ENT_OBJECT_KEY,
	ENT_OBJECT_COLUMN_SERIALS,
	ENT_OBJECT_DIGESTS,
	ENT_OBJECT_ATTRIBUTES = ENT_OBJECT_DIGESTS
} EntObjectAttribute;

typedef enum EntTombstoneAttribute
{
	ENT_TOMBSTONE_REL = 1,
	ENT_TOMBSTONE_OWNER,
	ENT_TOMBSTONE_EPOCH,
	ENT_TOMBSTONE_SERIAL,
	ENT_TOMBSTONE_AHEAD = 13
} EntTombstoneAttribute;

typedef enum EntChangeAttribute
{
	ENT_CHANGE_REL = 1,
	ENT_CHANGE_OWNER,
	ENT_CHANGE_OP,
	ENT_CHANGE_KEY,
	ENT_CHANGE_COLUMNS,
	ENT_CHANGE_PLACE,
	ENT_CHANGE_XID,
	ENT_CHANGE_IMAGE,
	ENT_CHANGE_DIGESTS,
	ENT_CHANGE_ATTRIBUTES = ENT_CHANGE_DIGESTS
} EntChangeAttribute;

typedef enum EntLogPositionAttribute
{
	ENT_LOG_POSITION_READ_TO = 1,
	ENT_LOG_POSITION_HORIZON
} EntLogPositionAttribute;

typedef enum EntHandoverAttribute
{
	ENT_HANDOVER_NO = 1,
	ENT_HANDOVER_REL,
	ENT_HANDOVER_KEY,
	ENT_HANDOVER_HEIR
} EntHandoverAttribute;

/*
 * Its oid, cached until it is dropped; InvalidOid when there is no extension
 * in this database. Needs a transaction.
 */
extern Oid	ent_catalog_oid(EntCatalog which);

/*
 * Opens one of the tables. Raises ERRCODE_UNDEFINED_OBJECT when there is no extension.
 */
extern Relation ent_catalog_open(EntCatalog which, LOCKMODE lock);

/* Is any row of the table in that index of it? Not without the extension. */
extern bool ent_catalog_any(EntCatalog table, EntCatalog index);

/*
 * Has watch called with the oid of every table whose relcache entry is
 * invalidated, InvalidOid for all of them; before ent_catalog_oid forgets that
 * oid. The backend has room for few such callbacks, so all of ours share one.
 * Watchers stay for the life of the process and must not touch catalogs.
 */
extern void ent_catalog_watch(void (*watch) (Oid relid));

/* Is it that one, as known here? Touches no catalog: for watchers. */
extern bool ent_catalog_is(EntCatalog which, Oid relid);

#endif							/* ENT_STORE_CATALOG_H */
