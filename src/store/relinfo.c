/*
 * store/relinfo.c
 *	  What we know of synchronized tables, cached by number.
 *
 * Invalidation only marks; ent_relinfo_refresh reads marked tables again and
 * replaces those that are really different, so that an autovacuum, which
 * invalidates as well, costs neither plans nor announcements.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/ent.h"
#include "store/catalog.h"
#include "store/keytype.h"
#include "store/relinfo_private.h"

typedef struct Entry
{
	int32		no;				/* hash key */
	Oid			relid;
	EntRelation *rel;			/* never NULL */
	uint32		marks;			/* grows with each invalidation */
	uint32		read_at;		/* marks when it was read */
} Entry;

static HTAB *entries = NULL;
static bool any_marked = false;
static uint64 version = 1;		/* grows with each change */

/* ---- invalidation ---- */

static void
mark(Oid relid)
{
	HASH_SEQ_STATUS seq;
	Entry	   *e;

	if (entries == NULL)
		return;
	hash_seq_init(&seq, entries);
	while ((e = hash_seq_search(&seq)) != NULL)
		if (relid == InvalidOid || e->relid == relid)
		{
			e->marks++;
			any_marked = true;
		}
}

bool
ent_relinfo_knows(Oid relid)
{
	HASH_SEQ_STATUS seq;
	Entry	   *e;

	if (entries == NULL)
		return false;
	hash_seq_init(&seq, entries);
	while ((e = hash_seq_search(&seq)) != NULL)
		if (e->relid == relid)
		{
			hash_seq_term(&seq);
			return true;
		}
	return false;
}

static void
relation_invalidated(Oid relid)
{
	if (ent_catalog_is(ENT_CATALOG_RELATION, relid))
	{
		version++;
		relid = InvalidOid;
	}
	mark(relid);
}

/* Schemas are in names; which one it was does not matter. */
static void
schema_invalidated(Datum arg, int cacheid, uint32 hash)
{
	mark(InvalidOid);
}

void
ent_relinfo_invalidate(void)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_RELATION);

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

void
ent_relinfo_init(void)
{
	ent_catalog_watch(relation_invalidated);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_invalidated, (Datum) 0);
}

/* ---- the cache ---- */

static bool
same_string(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static bool
same_column(const EntColumn *a, const EntColumn *b)
{
	return a->attnum == b->attnum && same_string(a->name, b->name) &&
		a->type == b->type && a->basetype == b->basetype &&
		a->typmod == b->typmod && a->collation == b->collation &&
		a->key == b->key && a->in_key_only == b->in_key_only &&
		a->identity_always == b->identity_always && a->format == b->format &&
		a->out.fn_oid == b->out.fn_oid &&
		a->in_text.fn_oid == b->in_text.fn_oid &&
		a->in_binary.fn_oid == b->in_binary.fn_oid;
}

static bool
same_relation(const EntRelation *a, const EntRelation *b)
{
	if (a->relid != b->relid || !same_string(a->schema, b->schema) ||
		!same_string(a->name, b->name) || a->key_index != b->key_index ||
		a->priority != b->priority || a->partitioned != b->partitioned ||
		a->keys_from_others != b->keys_from_others ||
		a->integrity != b->integrity ||
		a->every_state != b->every_state ||
		a->owner_column != b->owner_column ||
		a->natts != b->natts || a->ncolumns != b->ncolumns ||
		a->nkeys != b->nkeys)
		return false;
	for (int i = 0; i < a->ncolumns; i++)
		if (!same_column(&a->columns[i], &b->columns[i]))
			return false;
	return true;
}

/*
 * Somebody up the stack may still hold it: it lives until the end of the
 * transaction.
 */
static void
release(EntRelation *rel)
{
	MemoryContextSetParent(rel->context, TopTransactionContext);
}

/* Reads a marked entry again; true when it changed or has gone. */
static bool
reread(Entry *e)
{
	uint32		marks = e->marks;
	EntRelation *rel = ent_relinfo_read(e->no);

	if (rel != NULL && same_relation(e->rel, rel))
	{
		e->rel->wal = rel->wal;
		e->rel->digested = rel->digested;
		e->rel->remote = rel->remote;
		MemoryContextDelete(rel->context);
		e->read_at = marks;
		return false;
	}
	release(e->rel);
	if (rel == NULL)
	{
		hash_search(entries, &e->no, HASH_REMOVE, NULL);
		return true;
	}
	MemoryContextSetParent(rel->context, TopMemoryContext);
	e->rel = rel;
	e->relid = rel->relid;
	e->read_at = marks;
	return true;
}

/* The entries that were invalidated after they had been read. */
static List *
marked_entries(void)
{
	List	   *result = NIL;
	HASH_SEQ_STATUS seq;
	Entry	   *e;

	hash_seq_init(&seq, entries);
	while ((e = hash_seq_search(&seq)) != NULL)
		if (e->marks != e->read_at)
			result = lappend(result, e);
	return result;
}

void
ent_relinfo_refresh(void)
{
	ListCell   *lc;

	AcceptInvalidationMessages();
	if (!any_marked)
		return;
	/* after an error the rest is done next time */
	foreach(lc, marked_entries())
		if (reread(lfirst(lc)))
			version++;
	any_marked = marked_entries() != NIL;
}

uint64
ent_relinfo_version(void)
{
	return version;
}

static void
create_cache(void)
{
	HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(Entry)};

	entries = hash_create("entanglement tables", 64, &ctl,
						  HASH_ELEM | HASH_BLOBS);
}

EntRelation *
ent_relinfo_get(int32 no)
{
	Entry	   *e;
	EntRelation *rel;

	if (entries == NULL)
		create_cache();
	e = hash_search(entries, &no, HASH_FIND, NULL);
	if (e != NULL)
		return e->rel;
	rel = ent_relinfo_read(no);
	if (rel == NULL)
		return NULL;
	e = hash_search(entries, &no, HASH_ENTER, NULL);
	MemoryContextSetParent(rel->context, TopMemoryContext);
	e->relid = rel->relid;
	e->rel = rel;
	/* what changed while it was read was not marked: look once more */
	e->marks = 1;
	e->read_at = 0;
	any_marked = true;
	return rel;
}

EntRelation *
ent_relinfo_by_oid(Oid relid)
{
	HASH_SEQ_STATUS seq;
	Entry	   *e;
	EntRelation *rel = NULL;
	int32		no;

	if (entries != NULL)
	{
		hash_seq_init(&seq, entries);
		while ((e = hash_seq_search(&seq)) != NULL)
			if (e->relid == relid)
				rel = e->rel;
	}
	if (rel != NULL)
		return rel;
	no = ent_relinfo_number(relid);
	return no == 0 ? NULL : ent_relinfo_get(no);
}

EntRelation *
ent_relinfo_by_name(const char *schema, const char *name)
{
	Oid			nspoid = get_namespace_oid(schema, true);
	Oid			relid = InvalidOid;

	if (OidIsValid(nspoid))
		relid = get_relname_relid(name, nspoid);
	return OidIsValid(relid) ? ent_relinfo_by_oid(relid) : NULL;
}

List *
ent_relinfo_all(void)
{
	List	   *numbers = ent_relinfo_numbers();
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, numbers)
	{
		EntRelation *rel = ent_relinfo_get(lfirst_int(lc));

		if (rel != NULL)
			result = lappend(result, rel);
	}
	list_free(numbers);
	return result;
}

EntColumn *
ent_relinfo_column(EntRelation *rel, const char *name)
{
	for (int i = 0; i < rel->ncolumns; i++)
		if (same_string(rel->columns[i].name, name))
			return &rel->columns[i];
	return NULL;
}

bool
ent_relinfo_type_keyable(Oid type, Oid collation)
{
	return ent_keytype_make(type, -1, collation) != NULL;
}
