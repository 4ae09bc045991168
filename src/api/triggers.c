/*
 * api/triggers.c
 *	  The triggers that capture what happens to a synchronized table, or turn it
 *	  into requests.
 *
 * Whose triggers they are tells their function's schema. All of them go with
 * the extension (DEPENDS ON EXTENSION), and the key's index stays as long as
 * they do.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/reltrigger.h"

#include "api/triggers.h"
#include "base/ent.h"
#include "store/query.h"
#include "store/relinfo.h"

/* A trigger of ours, by its name, and when it fires. */
typedef struct OurTrigger
{
	const char *name;
	const char *when;
	const char *how;
} OurTrigger;

static const OurTrigger row_trigger = {
	ENT_CAPTURE_TRIGGER, "AFTER INSERT OR UPDATE OR DELETE",
	"ROW EXECUTE FUNCTION entanglement.capture_trigger()"
};
/* ... of a table that is captured from the log: what that does not tell */
static const OurTrigger birth_trigger = {
	ENT_CAPTURE_TRIGGER, "AFTER INSERT",
	"ROW EXECUTE FUNCTION entanglement.capture_trigger()"
};
static const OurTrigger owner_trigger = {
	ENT_CAPTURE_TRIGGER, "AFTER INSERT",
	"ROW WHEN (pg_catalog.current_setting('entanglement.owner', true) OPERATOR(pg_catalog.<>) '') "
	"EXECUTE FUNCTION entanglement.capture_trigger()"
};
static const OurTrigger request_trigger = {
	ENT_REQUEST_TRIGGER, "BEFORE INSERT OR UPDATE OR DELETE",
	"ROW EXECUTE FUNCTION entanglement.request_trigger()"
};
static const OurTrigger truncate_trigger = {
	"entanglement_truncate", "BEFORE TRUNCATE",
	"STATEMENT EXECUTE FUNCTION entanglement.truncate_trigger()"
};

static void
run_ddl(void *arg)
{
	const char *sql = arg;

	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run \"%s\"", sql);
}

/* Does the table have a trigger of that name that is ours? */
static bool
has_ours(Relation rel, const OurTrigger *t)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
		if (strcmp(desc->triggers[i].tgname, t->name) == 0 &&
			get_func_namespace(desc->triggers[i].tgfoid) ==
			get_namespace_oid(ENT_SCHEMA, true))
			return true;
	return false;
}

static const char *
name_of(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static void
as_caller(const char *sql)
{
	run_ddl(unconstify(char *, sql));
}

static void
as_owner(const char *sql)
{
	ent_query_as_owner(run_ddl, unconstify(char *, sql));
}

static void
create(Relation rel, const OurTrigger *t, void (*run) (const char *sql))
{
	const char *name = name_of(RelationGetRelid(rel));

	run(psprintf("CREATE %sTRIGGER %s %s ON %s FOR EACH %s",
				 has_ours(rel, t) ? "OR REPLACE " : "", t->name, t->when,
				 name, t->how));
	run(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION " ENT_NAME,
				 t->name, name));
}

static void
drop(Oid relid, const OurTrigger *t, void (*run) (const char *sql))
{
	run(psprintf("DROP TRIGGER %s ON %s", t->name, name_of(relid)));
}

/* The key's index stays as long as the trigger does. */
static void
protect(Relation rel, Oid key_index)
{
	ObjectAddress trigger,
				index;

	ObjectAddressSet(trigger, TriggerRelationId,
					 get_trigger_oid(RelationGetRelid(rel), ENT_CAPTURE_TRIGGER, false));
	ObjectAddressSet(index, RelationRelationId, key_index);
	recordDependencyOn(&trigger, &index, DEPENDENCY_NORMAL);
}

void
ent_triggers_create(Relation rel, Oid key_index)
{
	create(rel, &row_trigger, as_caller);
	create(rel, &request_trigger, as_caller);
	create(rel, &truncate_trigger, as_caller);
	protect(rel, key_index);
}

void
ent_triggers_set_capture(Relation rel, Oid key_index, EntTriggersCapture what)
{
	create(rel, what == ENT_TRIGGERS_ALL ? &row_trigger :
		   what == ENT_TRIGGERS_BIRTHS ? &birth_trigger : &owner_trigger,
		   as_owner);
	protect(rel, key_index);
}

void
ent_triggers_drop(Oid relid)
{
	drop(relid, &row_trigger, as_caller);
	drop(relid, &request_trigger, as_caller);
	drop(relid, &truncate_trigger, as_caller);
}

void
ent_triggers_create_on_partition(Oid relid)
{
	Relation	rel = table_open(relid, ShareRowExclusiveLock);

	create(rel, &truncate_trigger, as_owner);
	table_close(rel, NoLock);
}

void
ent_triggers_drop_on_partition(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);
	bool		ours = has_ours(rel, &truncate_trigger);

	table_close(rel, NoLock);
	if (ours)
		drop(relid, &truncate_trigger, as_owner);
}
