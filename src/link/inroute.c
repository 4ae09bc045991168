/*
 * link/inroute.c
 *	  The receiving end: which owners we take from this peer, and how its
 *	  tables fit ours.
 *
 * An owner's objects are taken from one peer at a time, its route: the one
 * that offered the shortest way, as long as its link lives. Whatever passed by
 * before a table or column was here is put down in entanglement.arrears and
 * asked for until it has come.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "base/ring.h"
#include "base/wake.h"
#include "link/inbound_private.h"
#include "store/owner.h"
#include "store/peer.h"
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
	"AND ($3 OR o.serial OPERATOR(pg_catalog.>) 0) ON CONFLICT DO NOTHING",
	3, {INT4OID, INT4OID, BOOLOID}, NULL
};
static EntQuery switch_arrears_query = {
	"INSERT INTO entanglement.arrears (owner, rel) "
	"SELECT $1, r.no FROM entanglement.relation r "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.relid "
	"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
	"JOIN entanglement.peer_table f ON f.peer OPERATOR(pg_catalog.=) $3 AND f.known "
	"AND f.schema_name OPERATOR(pg_catalog.=) n.nspname "
	"AND f.table_name OPERATOR(pg_catalog.=) c.relname "
	"WHERE NOT EXISTS (SELECT 1 FROM entanglement.peer_table p "
	"WHERE p.peer OPERATOR(pg_catalog.=) $2 AND p.known "
	"AND p.schema_name OPERATOR(pg_catalog.=) n.nspname "
	"AND p.table_name OPERATOR(pg_catalog.=) c.relname "
	"AND f.mapped OPERATOR(pg_catalog.<@) p.mapped) ON CONFLICT DO NOTHING",
	3, {INT4OID, INT4OID, INT4OID}, NULL
};
static EntQuery arrears_query = {
	"SELECT o.id, a.rel FROM entanglement.arrears a "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) a.owner "
	"WHERE o.peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery no_arrears_query = {
	"DELETE FROM entanglement.arrears a USING entanglement.owner o "
	"WHERE o.no OPERATOR(pg_catalog.=) a.owner AND o.peer OPERATOR(pg_catalog.=) $1 "
	"AND a.rel OPERATOR(pg_catalog.<>) ALL ($2) RETURNING a.owner",
	2, {INT4OID, INT4ARRAYOID}, NULL
};

static EntQuery haves_query = {
	"SELECT u.n, o.epoch, o.serial "
	"FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(no, n) "
	"JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) u.no",
	1, {INT4ARRAYOID}, NULL
};

/* ---- owners ---- */

/* Is that peer's link up, so that it may keep the route it has? */
static bool
route_lives(int32 peer)
{
	EntPeerSlot *slot = ent_shmem_peer(peer, false);

	return slot != NULL && slot->state == ENT_LINK_CONNECTED;
}

static void
take_route(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	char	   *name = ent_name_from_wire(in->name);
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = o->no};

	if (o->peer == ib->peer && o->distance == in->distance + 1 &&
		strcmp(o->name, name) == 0)
		return;
	if (o->peer != ib->peer && o->serial > 0)
	{
		/* the new route may offer tables or columns the old one did not */
		Datum		args[3] = {Int32GetDatum(o->no), Int32GetDatum(o->peer),
		Int32GetDatum(ib->peer)};

		ent_query_run(&switch_arrears_query, args, NULL, SPI_OK_INSERT, NULL);
	}
	ent_owner_set_route(o->no, ib->peer, in->distance + 1, name);
	if (o->peer != ib->peer)
		in->have = o->sure;		/* the route before still owed the rest */
	ent_wake_post_at_commit(&ev);	/* advertise it further */
	ent_wake_routes_at_commit();
}

/* Keeps the first error of its kind where the administrator looks. */
static void
report(EntInbound *ib, bool *reported, const char *sqlstate, const char *message)
{
	if (*reported)
		return;
	*reported = true;
	ent_shmem_set_error(ib->slot, sqlstate, message);
	ereport(LOG, (errmsg("%s", message)));
}

/*
 * An owner not heard of before becomes known here, as long as there is room:
 * it stays known, and is offered to all peers. NULL: there is none.
 */
static EntOwner *
learn(EntInbound *ib, EntInOwner *in)
{
	int32		no;

	if (ib->room <= 0 && !ib->full)
		ib->room = ent_max_owners - ent_owner_count();
	if (ib->room <= 0)
	{
		report(ib, &ib->full, "53400",
			   psprintf("too many owners: \"%s\" and others that the peer offers are not taken",
						ent_name_from_wire(in->name)));
		return NULL;
	}
	ib->room--;
	no = ent_owner_learn(&in->id, &in->home, ent_name_from_wire(in->name),
						 in->sender_epoch);
	return ent_owner_get(no);
}

/* Only an owner's home says that it is at home there, and homes do not change. */
static bool
credible(EntInbound *ib, EntInOwner *in, EntOwner *o)
{
	if (!ib->node_known)
	{
		EntPeer    *peer = ent_peer_get(ib->peer);

		if (peer == NULL || !peer->has_node)
			return false;
		ib->node = peer->node;
		ib->node_known = true;
	}
	return memcmp(&in->home, &o->home, sizeof(pg_uuid_t)) == 0 &&
		(in->distance > 0 || memcmp(&in->home, &ib->node, sizeof(pg_uuid_t)) == 0);
}

/* Decides whether this owner is to come from this peer. */
static void
consider(EntInbound *ib, EntInOwner *in)
{
	EntOwner   *o = ent_owner_by_id(&in->id);
	bool		believed,
				want;

	if (o == NULL)
		o = learn(ib, in);
	if (o == NULL)
		return;
	believed = o->local || credible(ib, in, o);
	if (!believed)
		report(ib, &in->refused, "42501",
			   psprintf("the peer offers owner \"%s\", which is at home elsewhere, as its own; refused",
						ent_name_from_wire(in->name)));
	in->local = o->local;
	in->no = o->local ? 0 : o->no;
	in->epoch = o->epoch;
	in->have = o->serial;
	in->told = o->told;
	want = !o->local && believed && in->distance + 1 < ENT_MAX_DISTANCE &&
		in->sender_epoch >= o->epoch &&
		(o->peer == 0 || o->peer == ib->peer ||
		 in->distance + 1 < o->distance || !route_lives(o->peer));
	if (want != in->wanted)
	{
		in->answered = false;
		in->asked = false;
		ib->arrears_due = true;
	}
	in->wanted = want;
	if (want)
		take_route(ib, in, o);
}

void
ent_inbound_take_owner(EntInbound *ib, EntReader *body)
{
	EntWireOwner wire;
	EntInOwner *in;
	bool		found;

	ent_wire_read_owner(body, &wire);
	ent_inbound_check(body, "owner");
	if (!OidIsValid(wire.epoch) || wire.epoch > PG_INT32_MAX || wire.name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("An owner has no name or no epoch.")));
	in = hash_search(ib->owners, &wire.number, HASH_ENTER, &found);
	if (!found)
		memset((char *) in + sizeof(uint32), 0, sizeof(EntInOwner) - sizeof(uint32));
	else if (memcmp(in->id.data, wire.id.bytes, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("Owner number %u is another owner than before.",
						   wire.number)));
	memcpy(in->id.data, wire.id.bytes, UUID_LEN);
	memcpy(in->home.data, wire.home.bytes, UUID_LEN);
	strlcpy(in->name, wire.name, sizeof(in->name));
	if (in->sender_epoch != (int32) wire.epoch)
		in->based = false;		/* it begins anew */
	in->sender_epoch = wire.epoch;
	in->distance = Min(wire.distance, ENT_MAX_DISTANCE);
	in->answered = false;
	consider(ib, in);
}

/* ---- tables ---- */

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
	if (rel != NULL && !(was_known && same && subset(mapped, was_mapped)))
	{
		/* objects left out before are covered by claims yet to come, too */
		Datum		more[3] = {Int32GetDatum(ib->peer), Int32GetDatum(rel->no),
		BoolGetDatum(was_there)};

		ent_query_run(&add_arrears_query, more, NULL, SPI_OK_INSERT, NULL);
		t->fresh = true;
		ib->arrears_due = true;
	}
	if (rel == NULL && (was_known || !was_there))
		ereport(LOG,
				(errmsg("peer offers table \"%s.%s\", which is not synchronized here or has another key",
						TextDatumGetCString(args[1]), TextDatumGetCString(args[2])),
				 errhint("Create it if necessary and run entanglement.synchronize.")));
	if (rel != NULL && !subset(missing, was_missing))
		ereport(LOG,
				(errmsg("peer offers columns of table \"%s.%s\" that are missing here: %s",
						rel->schema, rel->name, comma_list(missing))));
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
}

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

/* ---- looking again, and answering ---- */

void
ent_inbound_reconsider(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;
	EntInOwner *in;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known)
			ent_inbound_relation(ib, t);
		else if (!t->replaced)
			map_table(ib, t);
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		consider(ib, in);
	/* a table that joined here may be one that this peer does not offer */
	ib->arrears_due = true;
}

static EntInTable *
table_of(EntInbound *ib, int32 rel)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known && t->rel == rel)
		{
			hash_seq_term(&seq);
			return t;
		}
	return NULL;
}

static EntInOwner *
owner_of(EntInbound *ib, const pg_uuid_t *id)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (memcmp(&in->id, id, sizeof(pg_uuid_t)) == 0)
		{
			hash_seq_term(&seq);
			return in;
		}
	return NULL;
}

/* Arrears in tables this peer does not offer cannot be paid by it. */
static void
forget_unpayable(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;
	Datum	   *rels = palloc((hash_get_num_entries(ib->tables) + 1) * sizeof(Datum));
	int			n = 0;
	Datum		args[2] = {Int32GetDatum(ib->peer)};

	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		if (t->known)
			rels[n++] = Int32GetDatum(t->rel);
	args[1] = ent_query_array(INT4OID, rels, NULL, n);
	ent_query_run(&no_arrears_query, args, NULL, SPI_OK_DELETE_RETURNING, NULL);
	if (SPI_processed > 0)
		ent_wake_routes_at_commit();
	SPI_freetuptable(SPI_tuptable);
}

static void
answer_arrears(EntInbound *ib, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *o;
	EntInTable *table;
	Datum		args[1] = {Int32GetDatum(ib->peer)};

	ent_query_run(&arrears_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		null;
		EntInOwner *in = owner_of(ib, DatumGetUUIDP(ent_query_datum(row, 1, &null)));
		EntInTable *t = table_of(ib, ent_query_int4(row, 2, NULL));
		EntWireArrears a;

		if (in == NULL || !in->wanted || t == NULL || (in->asked && !t->fresh))
			continue;
		a.owner = in->number;
		a.table = t->number;
		ent_wire_write_arrears(w, ENT_SECTION_ARREARS, &a);
	}
	SPI_freetuptable(SPI_tuptable);
	hash_seq_init(&seq, ib->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		o->asked = o->wanted;
	hash_seq_init(&seq, ib->tables);
	while ((table = hash_seq_search(&seq)) != NULL)
		table->fresh = false;
	ib->arrears_due = false;
}

/*
 * A peer that is not an owner's route keeps its tombstones for us all the
 * same until it knows that we have heard by another way.
 */
static void
tell_haves(EntInbound *ib)
{
	HASH_SEQ_STATUS seq;
	EntInOwner *in;
	long		max = hash_get_num_entries(ib->owners) + 1;
	EntInOwner **ins = palloc(max * sizeof(EntInOwner *));
	Datum	   *nos = palloc(max * sizeof(Datum)),
				args[1];
	int			n = 0;

	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
		if (in->no != 0 && !in->wanted)
		{
			ins[n] = in;
			nos[n++] = Int32GetDatum(in->no);
		}
	ib->told_at = GetCurrentTimestamp();
	if (n == 0)
		return;
	args[0] = ent_query_array(INT4OID, nos, NULL, n);
	ent_query_run(&haves_query, args, NULL, SPI_OK_SELECT, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int32		epoch = ent_query_int4(row, 2, NULL);
		int64		have = ent_query_int8(row, 3, NULL);

		in = ins[ent_query_int8(row, 1, NULL) - 1];
		if (in->told_epoch != epoch || in->told_have != have)
			in->answered = false;
		in->epoch = epoch;
		in->have = have;
	}
	SPI_freetuptable(SPI_tuptable);
}

void
ent_inbound_answer_routes(EntInbound *ib, EntWriter *w)
{
	HASH_SEQ_STATUS seq;
	EntInTable *t;
	EntInOwner *in;

	if (TimestampDifferenceExceeds(ib->told_at, GetCurrentTimestamp(),
								   ent_prune_interval))
		tell_haves(ib);
	hash_seq_init(&seq, ib->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		EntWireTableState s = {.table = t->number, .known = t->known};

		if (t->answered)
			continue;
		ent_wire_write_table_state(w, &s);
		t->answered = true;
	}
	hash_seq_init(&seq, ib->owners);
	while ((in = hash_seq_search(&seq)) != NULL)
	{
		EntWireWant want = {.owner = in->number, .wanted = in->wanted,
		.epoch = in->have > 0 ? in->epoch : 0, .have = in->have};

		if (in->answered)
			continue;
		if (in->ignored)
		{
			/* wanted again, it must begin again */
			want.wanted = in->based = false;
			ent_wire_write_want(w, &want);
			want.wanted = in->wanted;
		}
		if (in->wanted || !in->ignored)
			ent_wire_write_want(w, &want);
		in->answered = true;
		in->ignored = false;
		in->told_epoch = in->epoch;
		in->told_have = in->have;
		/* asked again, it goes on from where it is */
		if (in->wanted && !in->based)
		{
			in->base_epoch = in->epoch;
			in->base_have = in->have;
		}
		in->based = in->wanted;
	}
	if (!ib->arrears_due || !ib->announced)
		return;
	forget_unpayable(ib);
	answer_arrears(ib, w);
}
