/*
 * store/hook.c
 *	  entanglement.hook, and the functions it names, cached.
 *
 * Read again as a whole whenever a row or any function has changed: there are few.
 * What was read before lives on until the end of the transaction, since
 * somebody up the stack may be asking. A function is looked at each time, so that
 * one that is not what add_hook saw is never called. It is known by its name, since
 * that is what a dump can carry.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "store/catalog.h"
#include "store/hook.h"
#include "store/query.h"

const EntHookType ent_hook_types[] = {
	[ENT_HOOK_SEND] = {
		"should_send", 5, {TEXTOID, TEXTOID, REGCLASSOID, JSONBOID, JSONBOID},
		"(peer text, owner text, relation regclass, key jsonb, row jsonb)"
	},
	[ENT_HOOK_LISTEN] = {
		"should_listen", 7,
		{TEXTOID, TEXTOID, REGCLASSOID, TEXTOID, JSONBOID, TEXTARRAYOID, JSONBOID},
		"(peer text, owner text, relation regclass, operation text, key jsonb, columns text[], \"values\" jsonb)"
	},
	[ENT_HOOK_CONSTRUCTED] = {
		"should_listen_constructed", 5,
		{TEXTOID, TEXTOID, REGCLASSOID, JSONBOID, JSONBOID},
		"(peer text, owner text, relation regclass, old jsonb, new jsonb)"
	},
};

StaticAssertDecl(lengthof(ent_hook_types) == ENT_HOOK_KINDS,
				 "each kind of hook has its arguments");

static EntQuery all_query = {
	"SELECT h.no, h.kind, h.function, h.relid::pg_catalog.oid, h.peer "
	"FROM entanglement.hook h ORDER BY h.ordinal, h.no",
	0, {0}, NULL
};

static List *lists[ENT_HOOK_KINDS];
static MemoryContext context = NULL;	/* of the lists */
static bool valid = false;
static uint64 version = 1;

/* ---- invalidation ---- */

static void
forget(void)
{
	valid = false;
	version++;
}

static void
relation_invalidated(Oid relid)
{
	if (relid == InvalidOid || ent_catalog_is(ENT_CATALOG_HOOK, relid))
		forget();
}

static void
function_invalidated(Datum arg, int cacheid, uint32 hash)
{
	/* without hooks a change of some function is nothing to us */
	for (int i = 0; i < ENT_HOOK_KINDS; i++)
		if (lists[i] != NIL)
			forget();
}

uint64
ent_hook_version(void)
{
	return version;
}

void
ent_hook_init(void)
{
	ent_catalog_watch(relation_invalidated);
	CacheRegisterSyscacheCallback(PROCOID, function_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, function_invalidated, (Datum) 0);
}

void
ent_hook_invalidate(void)
{
	Oid			relid = ent_catalog_oid(ENT_CATALOG_HOOK);

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

/* ---- functions ---- */

static const char *
fault(const EntHookType *type, Form_pg_proc form, bool *arguments)
{
	*arguments = false;
	if (form->prokind != PROKIND_FUNCTION)
		return "It is no ordinary function.";
	if (form->proretset)
		return "It returns a set.";
	if (form->prorettype != BOOLOID)
		return "It does not return boolean.";
	*arguments = true;
	if (form->pronargs != type->nargs ||
		memcmp(form->proargtypes.values, type->args,
			   type->nargs * sizeof(Oid)) != 0)
		return "It has other arguments.";
	return NULL;
}

const char *
ent_hook_fault(EntHookKind kind, Oid function, bool *arguments)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	const char *result;

	*arguments = true;
	if (!HeapTupleIsValid(tuple))
		return "It does not exist.";
	result = fault(&ent_hook_types[kind], (Form_pg_proc) GETSTRUCT(tuple),
				   arguments);
	ReleaseSysCache(tuple);
	return result;
}

/* InvalidOid: there is none. */
static Oid
function_named(Datum name)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		oid;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = name;
	fcinfo->args[0].isnull = false;
	oid = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(oid);
}

static void
look_at_function(EntHook *h)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(h->function));
	Form_pg_proc form;
	bool		arguments;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	h->owner = form->proowner;
	h->version = HeapTupleHeaderGetRawXmin(tuple->t_data);
	if (fault(&ent_hook_types[h->kind], form, &arguments) == NULL)
		h->name = MemoryContextStrdup(h->context, NameStr(form->proname));
	ReleaseSysCache(tuple);
}

/* ---- the cache ---- */

static EntHookKind
kind_named(const char *name)
{
	for (int i = 0; i < ENT_HOOK_KINDS; i++)
		if (strcmp(ent_hook_types[i].name, name) == 0)
			return i;
	elog(ERROR, "there is no kind of hook \"%s\"", name);
}

static void
add_to_list(List **to, MemoryContext in, uint64 row)
{
	EntHook    *h = MemoryContextAllocZero(in, sizeof(EntHook));
	MemoryContext old;
	bool		null;

	h->context = in;
	h->no = ent_query_int4(row, 1, NULL);
	h->kind = kind_named(ent_query_text(row, 2));
	h->function = function_named(ent_query_datum(row, 3, &null));
	h->relid = DatumGetObjectId(ent_query_datum(row, 4, &null));
	if (null)
		h->relid = InvalidOid;
	h->peer = ent_query_int4(row, 5, NULL);
	look_at_function(h);
	old = MemoryContextSwitchTo(in);
	to[h->kind] = lappend(to[h->kind], h);
	MemoryContextSwitchTo(old);
}

static void
load(void)
{
	List	   *read[ENT_HOOK_KINDS] = {NIL};
	MemoryContext fresh = AllocSetContextCreate(CurrentMemoryContext,
												"entanglement hooks",
												ALLOCSET_SMALL_SIZES);

	/*
	 * What is changed while it is read is read once more next time; what was
	 * changed before is seen, whatever this transaction sees else.
	 */
	(void) ent_catalog_oid(ENT_CATALOG_HOOK);
	valid = true;
	PG_TRY();
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		ent_query_run(&all_query, NULL, NULL, SPI_OK_SELECT, snapshot);
		UnregisterSnapshot(snapshot);
		for (uint64 i = 0; i < SPI_processed; i++)
			add_to_list(read, fresh, i);
		SPI_freetuptable(SPI_tuptable);
	}
	PG_CATCH();
	{
		valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (context)
		MemoryContextSetParent(context, TopTransactionContext);
	MemoryContextSetParent(fresh, TopMemoryContext);
	context = fresh;
	memcpy(lists, read, sizeof(lists));
}

List *
ent_hook_list(EntHookKind kind)
{
	if (!valid)
		load();
	return lists[kind];
}
