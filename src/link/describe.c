/*
 * link/describe.c
 *	  What a peer is told of our tables and owners.
 *
 * Only columns that the peer's role may read are named, and no table whose
 * key it may not read (I5).
 */
#include "postgres.h"

#include "guard/policy.h"
#include "link/describe.h"
#include "store/value.h"

void
ent_describe_columns(EntRelation *rel, const bool *may, EntWireTable *wire)
{
	memset(wire, 0, sizeof(EntWireTable));
	wire->number = rel->no;
	strlcpy(wire->schema, ent_name_to_wire(rel->schema), sizeof(wire->schema));
	strlcpy(wire->name, ent_name_to_wire(rel->name), sizeof(wire->name));
	wire->nkeys = rel->nkeys;
	wire->columns = palloc0(rel->ncolumns * sizeof(EntWireColumn));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		EntColumn  *col = &rel->columns[i];
		EntWireColumn *c;
		const char *schema,
				   *name;

		if (!may[i])
			continue;
		c = &wire->columns[wire->ncolumns++];
		ent_value_type_name(col, &schema, &name);
		strlcpy(c->name, ent_name_to_wire(col->name), sizeof(c->name));
		strlcpy(c->type_schema, ent_name_to_wire(schema), sizeof(c->type_schema));
		strlcpy(c->type_name, ent_name_to_wire(name), sizeof(c->type_name));
		c->format = col->format;
		c->key = col->key;
		c->in_key_only = col->in_key_only;
	}
}

bool
ent_describe_table(EntRelation *rel, Oid role, bool *may, EntWireTable *wire)
{
	if (!ent_policy_columns(rel, role, may))
		return false;
	ent_describe_columns(rel, may, wire);
	return true;
}

void
ent_describe_owner(const EntOwner *o, EntWireOwner *wire)
{
	memset(wire, 0, sizeof(EntWireOwner));
	wire->number = o->no;
	memcpy(wire->id.bytes, o->id.data, UUID_LEN);
	memcpy(wire->home.bytes, o->home.data, UUID_LEN);
	strlcpy(wire->name, ent_name_to_wire(o->name), sizeof(wire->name));
	wire->epoch = o->epoch;
	wire->serial = o->serial;
	wire->distance = o->distance;
}
