/*
 * api/become.c
 *	  SQL function become: what a copy of a node is to be.
 *
 * Until it is called nobody has folded and nobody has spoken here, and while it
 * runs nobody writes to synchronized tables: what was captured is what is in the
 * log. One transaction makes the copy the node itself, in new epochs, or
 * another node whose owners are at home where they were.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api/integrity.h"
#include "api/triggers.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "store/epoch.h"
#include "store/identity.h"
#include "store/life.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/timeline.h"

PG_FUNCTION_INFO_V1(ent_sql_place);
PG_FUNCTION_INFO_V1(ent_sql_become);

/*
 * Changes that came with the dump have small letters (sql/install/90_dump.sql).
 * Those without a key are of whole tables.
 */
#define OP_IN(list) "c.op OPERATOR(pg_catalog.=) ANY ('" list "'::pg_catalog.\"char\"[])"
#define SAME_KEY(a, b) \
	a ".rel OPERATOR(pg_catalog.=) " b ".rel AND " a ".key OPERATOR(pg_catalog.=) " b ".key"
#define HAS_OBJECT \
	"EXISTS (SELECT FROM entanglement.object o WHERE " SAME_KEY("o", "c") ")"

static EntQuery tables_query = {
	"SELECT no, relid::pg_catalog.oid, key_index::pg_catalog.text "
	"FROM entanglement.relation ORDER BY relid::pg_catalog.oid",
	0, {0}, NULL
};
static EntQuery names_query = {
	"UPDATE entanglement.relation r SET key_index = $2, owner_column = "
	"(SELECT a.attnum FROM pg_catalog.pg_attribute a "
	"WHERE a.attrelid OPERATOR(pg_catalog.=) r.relid "
	"AND a.attname OPERATOR(pg_catalog.=) r.owner_column_name) "
	"WHERE no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, NAMEOID}, NULL
};

/* Numbers of columns have changed: all of them count as changed. $1, $2: rel, natts. */
static const char *const renumber[] = {
	"UPDATE entanglement.object SET digests = NULL "
	"WHERE rel OPERATOR(pg_catalog.=) $1 AND digests IS NOT NULL",
	"UPDATE entanglement.object SET column_serials = "
	"pg_catalog.decode(pg_catalog.repeat('00', $2), 'hex') "
	"WHERE rel OPERATOR(pg_catalog.=) $1 AND column_serials OPERATOR(pg_catalog.<>) ''",
	"UPDATE entanglement.change c SET digests = NULL, columns = "
	"pg_catalog.decode(pg_catalog.repeat('ff', ($2 OPERATOR(pg_catalog.+) 7) OPERATOR(pg_catalog./) 8), 'hex') "
	"WHERE c.rel OPERATOR(pg_catalog.=) $1 AND " OP_IN("{u}"),
};

/* Rows that were loaded behind the triggers were captured, and are known. */
static const char *const captured_load =
	"DELETE FROM entanglement.change c USING ("
	"SELECT n.rel, n.key FROM entanglement.change n WHERE n.key IS NOT NULL "
	"GROUP BY n.rel, n.key HAVING pg_catalog.bool_and("
	"n.op OPERATOR(pg_catalog.=) ANY ('{I,U,i,u}'::pg_catalog.\"char\"[]))) k "
	"WHERE " OP_IN("{I}") " AND " SAME_KEY("k", "c") " "
	"AND NOT EXISTS (SELECT FROM entanglement.change t "
	"WHERE t.key IS NULL AND t.rel OPERATOR(pg_catalog.=) c.rel) "
	"AND (" HAS_OBJECT " OR EXISTS (SELECT FROM entanglement.change i "
	"WHERE " SAME_KEY("i", "c") " AND i.op OPERATOR(pg_catalog.=) 'i'::pg_catalog.\"char\"))";

static const char *const replacement[] = {
	"UPDATE entanglement.identity SET place = $1, timeline = 0",
	("UPDATE entanglement.change c SET op = pg_catalog.upper(c.op::pg_catalog.text)::pg_catalog.\"char\" "
	 "WHERE " OP_IN("{i,u,d,t,h}")),
};

/* $1: place; $2: numbers of the owners that were at home here. */
static const char *const new_node[] = {
	/* the original has these as well, and will send what comes of them */
	"DELETE FROM entanglement.change c WHERE " OP_IN("{i,u,d,t,h}"),
	/* ... as it does rows that were born by them */
	"DELETE FROM entanglement.change c WHERE " OP_IN("{U,D}") " AND NOT " HAS_OBJECT
	" AND NOT EXISTS (SELECT FROM entanglement.change i WHERE " SAME_KEY("i", "c")
	" AND i.op OPERATOR(pg_catalog.=) 'I'::pg_catalog.\"char\")",
	"INSERT INTO entanglement.arrears (owner, rel) SELECT DISTINCT n.no, c.rel "
	"FROM entanglement.change c, pg_catalog.unnest($2) AS n (no) "
	"WHERE " OP_IN("{T}") " ON CONFLICT DO NOTHING",
	"DELETE FROM entanglement.change c WHERE " OP_IN("{H}"),
	"DELETE FROM entanglement.handover",
	"DELETE FROM entanglement.speaker",
	"DELETE FROM entanglement.seek",
	/* the original answers for those that came to it */
	"DELETE FROM entanglement.request WHERE role IS NULL",
	"UPDATE entanglement.request SET carrier = NULL, alone = false, "
	"state = CASE WHEN state OPERATOR(pg_catalog.=) 'sent' THEN 'waiting' ELSE state END "
	"WHERE carrier IS NOT NULL OR state OPERATOR(pg_catalog.=) 'sent'",
	"UPDATE entanglement.identity SET id = pg_catalog.gen_random_uuid(), "
	"name = pg_catalog.current_database(), place = $1, timeline = 0",
	"INSERT INTO entanglement.owner (id, name, local, home) "
	"SELECT pg_catalog.gen_random_uuid(), i.name, true, i.id FROM entanglement.identity i",
	"UPDATE entanglement.identity SET default_owner = "
	"(SELECT no FROM entanglement.owner WHERE local)",
	/* rows that were made here since it became a copy are this node's own */
	"UPDATE entanglement.change c SET owner = i.default_owner FROM entanglement.identity i "
	"WHERE " OP_IN("{I}") " AND c.owner OPERATOR(pg_catalog.=) ANY ($2) "
	"AND pg_catalog.age(c.xmin) OPERATOR(pg_catalog.<) $3",
};

/* What is here of each owner, for the route that it will get. */
static const char *const held[] = {
	"UPDATE entanglement.owner SET held = CASE WHEN local THEN 0 ELSE COALESCE(peer, held) END",
	"INSERT INTO entanglement.peer_table (peer, schema_name, table_name, number, known, mapped, missing) "
	"SELECT 0, n.nspname, c.relname, 0, true, ARRAY(SELECT a.attname::pg_catalog.text "
	"FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid "
	"AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped), '{}' "
	"FROM entanglement.relation r "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.relid "
	"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
	"ON CONFLICT (peer, schema_name, table_name) DO UPDATE SET mapped = EXCLUDED.mapped",
};

/* How long ago this database was made, in transactions, if it was copied. */
static const char *const made_ago =
	"SELECT pg_catalog.age(d.xmin) FROM pg_catalog.pg_database d "
	"WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

/* A statement over whole tables, planned as such. */
typedef struct Statement
{
	const char *sql;
	int			nargs;
	Oid		   *types;
	Datum	   *args;
} Statement;

static void
execute(void *arg)
{
	Statement  *s = arg;
	int			result = SPI_execute_with_args(s->sql, s->nargs, s->types, s->args,
											   NULL, false, 0);

	if (result < 0)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), s->sql);
}

static void
run(const char *sql, int nargs, Oid *types, Datum *args)
{
	Statement	s = {sql, nargs, types, args};
	MemoryContext context = CurrentMemoryContext;

	ent_query_as_owner(execute, &s);
	MemoryContextSwitchTo(context);
}

/* ---- the tables ---- */

typedef struct Table
{
	int32		no;
	Oid			relid;
	char	   *key_index;
} Table;

/* In the order of their oids, and kept from writers until commit. */
static List *
lock_tables(void)
{
	List	   *tables = NIL;
	ListCell   *lc;

	ent_query_run(&tables_query, NULL, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Table	   *t = palloc(sizeof(Table));
		bool		null;

		t->no = ent_query_int4(row, 1, NULL);
		t->relid = DatumGetObjectId(ent_query_datum(row, 2, &null));
		t->key_index = ent_query_text(row, 3);
		tables = lappend(tables, t);
	}
	SPI_freetuptable(SPI_tuptable);
	foreach(lc, tables)
	{
		Table	   *t = lfirst(lc);

		LockRelationOid(t->relid, ShareRowExclusiveLock);
		(void) find_all_inheritors(t->relid, ShareRowExclusiveLock, NULL);
	}
	return tables;
}

/* The index that was the key, or the primary key if that had another name. */
static Oid
find_key(Relation rel, const char *name)
{
	Oid			relid = RelationGetRelid(rel);
	Oid			index = ent_relinfo_index_named(relid, name);
	EntIndexKey key;

	if (!OidIsValid(index) || !ent_relinfo_index_key(index, &key) ||
		key.relid != relid || !key.usable)
		index = ent_compat_primary_key_index(rel);
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("synchronized table \"%s\" has no key here",
						RelationGetRelationName(rel)),
				 errdetail("It was index \"%s\".", name),
				 errhint("Restore the whole dump, or create that index.")));
	return index;
}

/* What a dump does not carry: the triggers' hold on the key, and numbers. */
static void
attach_table(const Table *t, bool loaded)
{
	Relation	rel = relation_open(t->relid, NoLock);
	Oid			index = ent_relinfo_protected_index(t->relid);
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		args[2] = {Int32GetDatum(t->no)};
	NameData	name;

	if (!OidIsValid(index))
	{
		index = find_key(rel, t->key_index);
		ent_triggers_create(rel, index);
	}
	namestrcpy(&name, get_rel_name(index));
	args[1] = NameGetDatum(&name);
	ent_query_run(&names_query, args, NULL, SPI_OK_UPDATE, NULL);
	args[1] = Int32GetDatum(RelationGetNumberOfAttributes(rel));
	for (int i = 0; loaded && i < lengthof(renumber); i++)
		run(renumber[i], 2, types, args);
	relation_close(rel, NoLock);
}

/* ---- what it becomes ---- */

/* Numbers of local owners as an int4[]. */
static Datum
local_owners(List *owners)
{
	Datum	   *nos = palloc((list_length(owners) + 1) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, owners)
	{
		EntOwner   *o = lfirst(lc);

		if (o->local)
			nos[n++] = Int32GetDatum(o->no);
	}
	return ent_query_array(INT4OID, nos, NULL, n);
}

/*
 * What the old node gave out after the dump is not known here, and may have come
 * anywhere: everybody compares. A dump that is restored twice must not start
 * the same epoch twice, so it is not simply the next one. pg_upgrade lost nothing.
 */
static void
become_replacement(const EntIdentity *id)
{
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {CStringGetTextDatum(ent_identity_place())};
	ListCell   *lc;

	for (int i = 0; i < lengthof(replacement); i++)
		run(replacement[i], i == 0 ? 1 : 0, types, args);
	if (id->upgraded)
		return;
	ent_timeline_went_back(false);
	foreach(lc, ent_owner_all())
	{
		EntOwner   *o = lfirst(lc);

		if (o->local)
			ent_epoch_begin(o->no, ent_timeline_epoch_after(o->epoch, 1));
	}
}

static void
become_new(const EntIdentity *id)
{
	List	   *owners = ent_owner_all();
	Oid			types[3] = {TEXTOID, INT4ARRAYOID, INT4OID};
	Datum		args[3] = {CStringGetTextDatum(ent_identity_place()),
	local_owners(owners), Int32GetDatum(PG_INT32_MAX)};
	ListCell   *lc;

	if (!id->loaded)
	{
		bool		null;

		run(made_ago, 0, NULL, NULL);
		args[2] = ent_query_datum(0, 1, &null);
	}
	for (int i = 0; i < lengthof(held); i++)
		run(held[i], 0, NULL, NULL);
	foreach(lc, ent_peer_all())
	{
		EntPeer    *p = lfirst(lc);

		ent_peer_delete(p->no);
		ent_wake_free_peer_at_commit(p->no);
	}
	foreach(lc, owners)
	{
		EntOwner   *o = lfirst(lc);

		if (o->local)
			ent_life_move(o, &id->id);
	}
	for (int i = 0; i < lengthof(new_node); i++)
		run(new_node[i], 3, types, args);
}

static const struct
{
	const char *what;
	void		(*become) (const EntIdentity *id);
}			choices[] = {
	{"replacement", become_replacement},
	{"new", become_new},
};

/* ---- SQL ---- */

static int
choice_argument(FunctionCallInfo fcinfo)
{
	char	   *what;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("what must not be NULL")));
	what = text_to_cstring(PG_GETARG_TEXT_PP(0));
	for (int i = 0; i < lengthof(choices); i++)
		if (strcmp(what, choices[i].what) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a node cannot become \"%s\"", what),
			 errhint("Use \"replacement\" if the original is no more, or \"new\" if it goes on.")));
	return 0;
}

static void
check_circumstances(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to say what a node becomes")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("entanglement.become needs the isolation level read committed"),
				 errdetail("It has to see what others have committed by the time they let it.")));
}

static void
check_identity(const EntIdentity *id)
{
	if (!ent_identity_undecided(id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is node \"%s\" already", id->name),
				 errdetail("Only a copy of a node, restored from a dump or copied from another database or cluster, has to be told what it is.")));
	if (strcmp(id->encoding, GetDatabaseEncodingName()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a copy of a node cannot have another encoding than the original"),
				 errdetail("Keys are kept in encoding %s, this database has %s.",
						   id->encoding, GetDatabaseEncodingName()),
				 errhint("Restore the dump into a database with the encoding it was made from, or DROP EXTENSION entanglement CASCADE and create it anew.")));
}

/* (what) */
Datum
ent_sql_become(PG_FUNCTION_ARGS)
{
	int			choice = choice_argument(fcinfo);
	MemoryContext context = CurrentMemoryContext;
	EntIdentity *id;
	List	   *tables;
	ListCell   *lc;

	check_circumstances();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
	check_identity(ent_identity_get());
	tables = lock_tables();
	id = ent_identity_lock();
	check_identity(id);
	foreach(lc, tables)
		attach_table(lfirst(lc), id->loaded);
	ent_relinfo_invalidate();
	if (id->loaded)
		run(captured_load, 0, NULL, NULL);
	choices[choice].become(id);
	ent_relinfo_refresh();
	ent_integrity_settle();
	SPI_finish();
	ent_owner_invalidate();
	ent_wake_routes_at_commit();
	ent_wake_collector_at_commit();
	ent_wake_launcher_at_commit();
	ent_shmem_warn();
	ereport(LOG,
			(errmsg("this copy of node \"%s\" becomes %s", id->name,
					choice == 0 ? "its replacement" : "a new node")));
	PG_RETURN_VOID();
}

Datum
ent_sql_place(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(ent_identity_place()));
}
