/*
 * link/verify_tables.c
 *	  What is comparable: tables and columns that both nodes show each other.
 *
 * Tables and columns are matched by name, as on a link. A column counts if both
 * roles may read it and both nodes encode it alike; values of different
 * types are not compared.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "link/describe.h"
#include "link/verify_private.h"
#include "store/owner.h"
#include "store/value.h"

/* More than a peer's tables that a link takes (link/intable.c) is harm. */
#define MAX_THEIR_TABLES	10000
#define MAX_THEIR_COLUMNS	200000	/* of all of them */

static void *
table_grow(void *ctx, void *old, size_t size)
{
	return old ? repalloc(old, size) : MemoryContextAlloc(ctx, size);
}

static const EntWireColumn *
find_column(const EntWireTable *t, const char *name)
{
	for (unsigned i = 0; i < t->ncolumns; i++)
		if (strcmp(t->columns[i].name, name) == 0)
			return &t->columns[i];
	return NULL;
}

static bool
encoded_alike(const EntWireColumn *a, const EntWireColumn *b)
{
	return a->format == b->format && a->in_key_only == b->in_key_only &&
		(a->format == ENT_FORMAT_TEXT ||
		 (strcmp(a->type_schema, b->type_schema) == 0 &&
		  strcmp(a->type_name, b->type_name) == 0));
}

/* Do both make the same key image of the same key? */
static bool
same_key(const EntWireTable *ours, const EntWireTable *theirs)
{
	if (ours->nkeys != theirs->nkeys)
		return false;
	for (unsigned i = 0; i < ours->ncolumns; i++)
	{
		const EntWireColumn *mine = &ours->columns[i];
		const EntWireColumn *other;

		if (mine->key == 0)
			continue;
		other = find_column(theirs, mine->name);
		if (other == NULL || other->key != mine->key || !encoded_alike(mine, other))
			return false;
	}
	return true;
}

static const char *
table_name(const EntWireTable *t)
{
	return quote_qualified_identifier(ent_name_from_wire(t->schema),
									  ent_name_from_wire(t->name));
}

static void
add_table(EntVerify *v, EntRelation *rel, const EntWireTable *ours,
		  const EntWireTable *theirs)
{
	EntVerifyTable *t = palloc0(sizeof(EntVerifyTable));

	t->rel = rel;
	t->name = table_name(ours);
	t->ordered = ent_digest_ordered(rel);
	strlcpy(t->wire.schema, ours->schema, sizeof(t->wire.schema));
	strlcpy(t->wire.table, ours->name, sizeof(t->wire.table));
	ent_show_table(rel, v->peer->no, v->peer->role,
				   palloc(rel->ncolumns * sizeof(bool)), &t->show);
	t->columns = palloc(rel->ncolumns * sizeof(int));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		const char *name = ent_name_to_wire(rel->columns[i].name);
		const EntWireColumn *mine = find_column(ours, name);
		const EntWireColumn *other = find_column(theirs, name);

		if (mine != NULL && other != NULL && encoded_alike(mine, other))
			t->columns[t->ncolumns++] = i;
	}
	t->wire.ncolumns = t->ncolumns;
	v->tables = lappend(v->tables, t);
}

static void
not_comparable(EntVerify *v, const char *name, int32 rel, const char *what)
{
	EntVerifyFinding *f = ent_verify_add(v, NULL, NULL, what, -1, -1);

	f->d.relation = name;
	f->d.rel = rel;
}

/* Matches one of ours with theirs, which is taken off the list. */
static void
match_table(EntVerify *v, EntRelation *rel, List **theirs)
{
	bool	   *may = palloc0(rel->ncolumns * sizeof(bool));
	EntWireTable ours,
			   *found = NULL;
	bool		offered = ent_describe_table(rel, v->peer->role, may, &ours);
	const char *schema = ent_name_to_wire(rel->schema);
	const char *name = ent_name_to_wire(rel->name);
	ListCell   *lc;

	foreach(lc, *theirs)
	{
		EntWireTable *t = lfirst(lc);

		if (strcmp(t->schema, schema) == 0 && strcmp(t->name, name) == 0)
			found = t;
	}
	*theirs = list_delete_ptr(*theirs, found);
	if (offered && found && same_key(&ours, found))
		add_table(v, rel, &ours, found);
	else
		not_comparable(v, quote_qualified_identifier(rel->schema, rel->name), rel->no,
					   !offered && !found ? "not offered" :
					   !offered ? "not offered here" :
					   !found ? "not offered there" : "another key");
}

static void
take_owner(EntVerify *v, EntReader *body)
{
	EntWireOwner wire;
	EntVerifyOwner *o;
	EntOwner   *ours;
	pg_uuid_t	id;
	bool		found;

	ent_wire_read_owner(body, &wire);
	ent_verify_check(body, "owner");
	/* of more than we would ever know we do without */
	if (hash_get_num_entries(v->owners) >= ent_max_owners)
		return;
	memcpy(id.data, wire.id.bytes, UUID_LEN);
	o = hash_search(v->owners, &id, HASH_ENTER, &found);
	ours = ent_owner_by_id(&id);
	o->no = ours ? ours->no : 0;
	o->name = ours ? ours->name : ent_name_from_wire(wire.name);
	o->epoch = wire.epoch;
	o->serial = wire.serial;
	o->from_us = wire.lost;
}

void
ent_verify_take_description(EntVerify *v, EntReader *r)
{
	EntWireAllocator alloc = {table_grow, CurrentMemoryContext};
	List	   *theirs = NIL;
	EntReader	body;
	unsigned	type,
				columns = 0;
	ListCell   *lc;

	while (ent_wire_read_section(r, &type, &body))
	{
		CHECK_FOR_INTERRUPTS();
		if (type == ENT_SECTION_TABLE)
		{
			EntWireTable *t = palloc0(sizeof(EntWireTable));

			ent_wire_read_table(&body, t, alloc);
			ent_verify_check(&body, "table");
			columns += t->ncolumns;
			if (list_length(theirs) == MAX_THEIR_TABLES ||
				columns > MAX_THEIR_COLUMNS)
				ent_verify_complain("It describes too many tables.");
			theirs = lappend(theirs, t);
		}
		else if (type == ENT_SECTION_OWNER)
			take_owner(v, &body);
		else if (!(type & ENT_SECTION_OPTIONAL))
			ent_verify_complain("It describes something unknown.");
	}
	ent_verify_check(r, "description");
	foreach(lc, ent_relinfo_all())
		match_table(v, lfirst(lc), &theirs);
	foreach(lc, theirs)
		not_comparable(v, table_name(lfirst(lc)), 0, "not offered here");
}
