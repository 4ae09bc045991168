/*
 * link/intable.c
 *	  The receiving end: how the peer's tables fit ours.
 *
 * A table that the peer announces is matched by name and key, its columns by
 * name. What is found is remembered in entanglement.peer_table: what newly
 * fits was passed by until now, and so all owners of this peer owe it, which is
 * put down in entanglement.arrears; what is newly missing is reported once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/quiet.h"
#include "base/wake.h"
#include "link/inbound_private.h"
#include "store/query.h"
#include "store/value.h"

/* What one peer may offer; more is harmful, not useful. */
#define MAX_PEER_TABLES		10000	/* also with those of earlier connections */
#define MAX_PEER_COLUMNS	200000	/* of all of them, on this connection */

static EntQuery table_query = {
	"SELECT known, mapped, missing, number FROM entanglement.peer_table "
	"WHERE peer OPERATOR(pg_catalog.=) $1 AND schema_name OPERATOR(pg_catalog.=) $2 "
	"AND table_name OPERATOR(pg_catalog.=) $3",
	3, {INT4OID, TEXTOID, TEXTOID}, NULL
};
static EntQuery save_table_query = {
	"INSERT INTO entanglement.peer_table "
	"(peer, schema_name, table_name, known, mapped, missing, number) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7) "
	"ON CONFLICT (peer, schema_name, table_name) DO UPDATE SET "
	"known = EXCLUDED.known, mapped = EXCLUDED.mapped, missing = EXCLUDED.missing, number = EXCLUDED.number",
	7, {INT4OID, TEXTOID, TEXTOID, BOOLOID, TEXTARRAYOID, TEXTARRAYOID, INT4OID}, NULL
};
static EntQuery count_tables_query = {
	"SELECT pg_catalog.count(*) FROM entanglement.peer_table "
	"WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery add_arrears_query = {
	"INSERT INTO entanglement.arrears (owner, rel) "
	"SELECT o.no, $2 FROM entanglement.owner o "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1 AND NOT o.local "
	"AND ($3 OR o.serial OPERATOR(pg_catalog.>) 0 OR o.no OPERATOR(pg_catalog.=) ANY ($4)) "
	"ON CONFLICT DO NOTHING",
	4, {INT4OID, INT4OID, BOOLOID, INT4ARRAYOID}, NULL
};

/* ---- what fits ---- */

static List *
text_list(Datum array)
{
	Datum	   *elems;
	int			n;
	List	   *result = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elems, NULL, &n);
	for (int i = 0; i < n; i++)
		result = lappend(result, makeString(TextDatumGetCString(elems[i])));
	return result;
}

static Datum
text_array(List *strings)
{
	int			n = list_length(strings),
				i = 0;
	Datum	   *elems = palloc((n + 1) * sizeof(Datum));
	ListCell   *lc;

	foreach(lc, strings)
		elems[i++] = CStringGetTextDatum(strVal(lfirst(lc)));
	return ent_query_array(TEXTOID, elems, NULL, n);
}

/* Do the sender's key columns, in their order, make the same key image? */
static bool
keys_fit(EntInTable *t, EntRelation *rel)
{
	if (t->wire.nkeys != rel->nkeys)
		return false;
	for (int i = 0; i < t->wire.ncolumns; i++)
	{
		EntWireColumn *c = &t->wire.columns[i];
		EntColumn  *col;
		const char *schema,
				   *name;

		if (c->key == 0)
			continue;
		col = &rel->columns[rel->keys[c->key - 1]];
		if (strcmp(col->name, ent_name_from_wire(c->name)) != 0 ||
			c->format != col->format)
			return false;
		ent_value_type_name(col, &schema, &name);
		if (c->format == ENT_FORMAT_BINARY &&
			(strcmp(c->type_schema, schema) != 0 || strcmp(c->type_name, name) != 0))
			return false;
	}
	return true;
}

/* Builds the map; lists what fits and what is missing here. */
static void
map_columns(EntInTable *t, EntRelation *rel, List **mapped, List **missing)
{
	MemoryContext old = MemoryContextSwitchTo(t->context);

	t->map = palloc((t->wire.ncolumns + 1) * sizeof(int));
	t->formats = palloc0((rel->ncolumns + 1) * sizeof(EntWireFormat));
	t->sender_types = palloc0((rel->ncolumns + 1) * sizeof(Oid));
	MemoryContextSwitchTo(old);
	for (int i = 0; i < t->wire.ncolumns; i++)
	{
		EntWireColumn *c = &t->wire.columns[i];
		char	   *name = ent_name_from_wire(c->name);
		EntColumn  *col = ent_relinfo_column(rel, name);
		Oid			type = c->format == ENT_FORMAT_BINARY ?
			ent_value_builtin_type(c->type_schema, c->type_name) : InvalidOid;

		t->map[i] = -1;
		if (col == NULL ||
			(c->format == ENT_FORMAT_BINARY && !OidIsValid(type)))
		{
			*missing = lappend(*missing, makeString(name));
			continue;
		}
		t->map[i] = col - rel->columns;
		t->formats[t->map[i]] = c->format;
		t->sender_types[t->map[i]] = type;
		*mapped = lappend(*mapped, makeString(name));
	}
}

static char *
comma_list(List *strings)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, strings)
		appendStringInfo(&buf, "%s\"%s\"", buf.len > 0 ? ", " : "",
						 strVal(lfirst(lc)));
	return buf.data;
}

static bool
subset(List *a, List *b)
{
	return list_difference(a, b) == NIL;
}

static void
report(EntInbound *ib, const char *kind, uint32 table, const char *message,
	   const char *hint)
{
	int64		more;
	char	   *detail;

	if (!ent_quiet_due(ib->peer, kind, table, &more))
		return;
	detail = ent_quiet_more(more);
	ereport(LOG, (errmsg("%s", message), detail ? errdetail("%s", detail) : 0,
				  errhint("%s", hint)));
}

static void
complain_tables(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("peer offers too many tables"),
			 errdetail("At most %d tables of a peer are remembered, with %d columns.",
					   MAX_PEER_TABLES, MAX_PEER_COLUMNS),
			 errhint("If it means well: drop the peer and add it again, which forgets the tables it once had.")));
}

/* There is room for one more table of this peer. */
static void
check_room(EntInbound *ib)
{
	Datum		args[1] = {Int32GetDatum(ib->peer)};
	int64		n;

	ent_query_run(&count_tables_query, args, NULL, SPI_OK_SELECT, NULL);
	n = ent_query_int8(0, 1, NULL);
	SPI_freetuptable(SPI_tuptable);
	if (n >= MAX_PEER_TABLES)
		complain_tables();
}

/*
 * What passed by before the table was here, or was announced, is in arrears. Of
 * an owner that the peer was asked for on this connection that may be all there
 * is, covered by a claim yet to come.
 */
static void
add_arrears(EntInbound *ib, int32 rel, bool was_there)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;
	Datum	   *asked = palloc((hash_get_num_entries(ib->owners) + 1) * sizeof(Datum));
	Datum		args[4] = {Int32GetDatum(ib->peer), Int32GetDatum(rel),
	BoolGetDatum(was_there)};
	int			n = 0;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (in->told_wanted)
			asked[n++] = Int32GetDatum(in->no);
	args[3] = ent_query_array(INT4OID, asked, NULL, n);
	ent_query_run(&add_arrears_query, args, NULL, SPI_OK_INSERT, NULL);
}

/*
 * Compares with what we knew of this peer's table before: what newly fits, or
 * has another number because the peer left the table and joined it again, has
 * to be fetched from the start; what is newly missing is reported once.
 */
static void
note_mapping(EntInbound *ib, EntInTable *t, EntRelation *rel, List *mapped,
			 List *missing)
{
	Datum		args[7] = {Int32GetDatum(ib->peer),
		CStringGetTextDatum(ent_name_from_wire(t->wire.schema)),
		CStringGetTextDatum(ent_name_from_wire(t->wire.name)),
		BoolGetDatum(rel != NULL), text_array(mapped),
	text_array(missing), Int32GetDatum(t->number)};
	List	   *was_mapped = NIL,
			   *was_missing = NIL;
	bool		was_known = false,
				same = false,	/* number */
				was_there;

	ent_query_run(&table_query, args, NULL, SPI_OK_SELECT, NULL);
	was_there = SPI_processed == 1;
	if (was_there)
	{
		bool		null;

		was_known = ent_query_bool(0, 1);
		was_mapped = text_list(ent_query_datum(0, 2, &null));
		was_missing = text_list(ent_query_datum(0, 3, &null));
		same = ent_query_int4(0, 4, NULL) == (int32) t->number;
	}
	SPI_freetuptable(SPI_tuptable);
	if (was_there && same && was_known == (rel != NULL) &&
		subset(mapped, was_mapped) && subset(was_mapped, mapped) &&
		subset(missing, was_missing) && subset(was_missing, missing))
		return;
	if (!was_there)
		check_room(ib);
	ent_query_run(&save_table_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_wake_routes_at_commit();	/* what we have not from it others have not from us */
	if (rel != NULL && !(was_known && same && subset(mapped, was_mapped)))
	{
		add_arrears(ib, rel->no, was_there);
		t->fresh = true;
		ib->arrears_due = true;
	}
	if (rel == NULL && (was_known || !was_there))
		report(ib, "table", t->number,
			   psprintf("peer offers table \"%s.%s\", which is not synchronized here or has another key",
						TextDatumGetCString(args[1]), TextDatumGetCString(args[2])),
			   "Create it if necessary and run entanglement.synchronize. All such tables: entanglement.peers, waiting_for.");
	if (rel != NULL && !subset(missing, was_missing))
		report(ib, "columns", t->number,
			   psprintf("peer offers columns of table \"%s.%s\" that are missing here: %s",
						rel->schema, rel->name, comma_list(missing)),
			   "All such columns: entanglement.peers, waiting_for.");
}

static void
map_table(EntInbound *ib, EntInTable *t)
{
	EntRelation *rel = ent_relinfo_by_name(ent_name_from_wire(t->wire.schema),
										   ent_name_from_wire(t->wire.name));
	List	   *mapped = NIL,
			   *missing = NIL;
	bool		known;

	if (rel != NULL && !keys_fit(t, rel))
		rel = NULL;
	known = rel != NULL;
	if (known && t->rel != rel->no)
	{
		/* joined just now: what synchronize noted is to be asked for */
		t->fresh = true;
		ib->arrears_due = true;
	}
	t->rel = known ? rel->no : 0;
	t->generation = known ? rel->generation : 0;
	if (known)
		map_columns(t, rel, &mapped, &missing);
	note_mapping(ib, t, rel, mapped, missing);
	if (known != t->known)
		t->answered = false;
	t->known = known;
	ib->subscriptions_due = true;
}

/* ---- taking and looking again ---- */

static void *
table_grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc(old, size) : MemoryContextAlloc(ctx, size);
}

/* A table's name under a new number: the old one has nothing to say now. */
static void
replace_namesakes(EntInbound *ib, EntInTable *t)
{
	HASH_SEQ_STATUS seq;
	EntInTable *old;

	hash_seq_init(&seq, ib->tables);
	while ((old = hash_seq_search(&seq)) != NULL)
		if (old != t && strcmp(old->wire.name, t->wire.name) == 0 &&
			strcmp(old->wire.schema, t->wire.schema) == 0)
		{
			old->known = false;
			old->replaced = true;
		}
}

void
ent_inbound_take_table(EntInbound *ib, EntReader *body)
{
	MemoryContext context = AllocSetContextCreate(ib->context,
												  "entanglement table received",
												  ALLOCSET_SMALL_SIZES);
	EntWireAllocator alloc = {table_grow, context};
	EntWireTable wire;
	EntInTable *t;
	bool		found;

	ent_wire_read_table(body, &wire, alloc);
	ent_inbound_check(body, "table");
	t = hash_search(ib->tables, &wire.number, HASH_ENTER, &found);
	if (found)
	{
		ib->ncolumns -= t->wire.ncolumns;
		MemoryContextDelete(t->context);
	}
	ib->ncolumns += wire.ncolumns;
	if (ib->ncolumns > MAX_PEER_COLUMNS ||
		hash_get_num_entries(ib->tables) > MAX_PEER_TABLES)
		complain_tables();
	memset((char *) t + sizeof(uint32), 0, sizeof(EntInTable) - sizeof(uint32));
	t->wire = wire;
	t->context = context;
	replace_namesakes(ib, t);
	map_table(ib, t);
	t->answered = t->known;		/* "known" is what the sender assumes */
	ib->announced = true;
}

EntRelation *
ent_inbound_relation(EntInbound *ib, EntInTable *t)
{
	EntRelation *rel = t->known ? ent_relinfo_get(t->rel) : NULL;

	if (t->known && (rel == NULL || rel->generation != t->generation))
	{
		map_table(ib, t);
		rel = t->known ? ent_relinfo_get(t->rel) : NULL;
	}
	return rel;
}

void
ent_inbound_reconsider_tables(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known)
			ent_inbound_relation(ib, t);
		else if (!t->replaced)
			map_table(ib, t);
}
