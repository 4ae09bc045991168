/*
 * link/outpartial.c
 *	  The sending end: which owners are offered as some that come in part.
 *
 * Somebody who has an owner from us and changes to another way compares what he has
 * when one of the two gives a part only. So that is said of an owner as long as the
 * peer may lack something of his for any other reason than that it is on its way:
 * here, or on the way from his home to us.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "link/outbound_private.h"
#include "store/owner.h"
#include "store/query.h"

/* Peers that do not offer us all columns of these tables. */
static EntQuery lacking_query = {
	"SELECT p.no FROM entanglement.peer p WHERE EXISTS ("
	"SELECT 1 FROM unnest($1, $2) AS u(rel, columns) "
	"JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) u.rel "
	"JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.relid "
	"JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
	"WHERE NOT EXISTS (SELECT 1 FROM entanglement.peer_table f "
	"WHERE f.peer OPERATOR(pg_catalog.=) p.no AND f.known "
	"AND f.schema_name OPERATOR(pg_catalog.=) n.nspname::pg_catalog.text "
	"AND f.table_name OPERATOR(pg_catalog.=) c.relname::pg_catalog.text "
	"AND pg_catalog.cardinality(f.mapped) OPERATOR(pg_catalog.>=) u.columns))",
	2, {INT4ARRAYOID, INT4ARRAYOID}, NULL
};
static EntQuery owing_query = {
	"SELECT DISTINCT owner FROM entanglement.owed WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};

static Bitmapset *
numbers(EntOutbound *ob, EntQuery *query, Datum *args)
{
	MemoryContext old;
	Bitmapset  *result = NULL;

	ent_query_run(query, args, NULL, SPI_OK_SELECT, NULL);
	old = MemoryContextSwitchTo(ob->context);
	for (uint64 row = 0; row < SPI_processed; row++)
		result = bms_add_member(result, ent_query_int4(row, 1, NULL));
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
	return result;
}

void
ent_outbound_look_for_parts(EntOutbound *ob)
{
	HASH_SEQ_STATUS seq;
	EntOutTable *t;
	long		max = hash_get_num_entries(ob->tables) + 1;
	Datum	   *rels = palloc(max * sizeof(Datum)),
			   *columns = palloc(max * sizeof(Datum));
	Datum		args[2],
				peer[1] = {Int32GetDatum(ob->peer)};
	int			n = 0;

	ob->partial = ob->complete_due = false;
	hash_seq_init(&seq, ob->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		/* what it never was shown of is not offered, which it knows */
		ob->partial |= t->partial || t->idle || t->ended;
		if (!t->known)
			continue;
		rels[n] = Int32GetDatum(t->no);
		columns[n++] = Int32GetDatum(t->ncolumns);
	}
	args[0] = ent_query_array(INT4OID, rels, NULL, n);
	args[1] = ent_query_array(INT4OID, columns, NULL, n);
	bms_free(ob->lacking);
	ob->lacking = numbers(ob, &lacking_query, args);
	bms_free(ob->owing);
	ob->owing = numbers(ob, &owing_query, peer);
}

bool
ent_outbound_gives_part(EntOutbound *ob, EntOutOwner *out, EntOwner *o)
{
	bool		part = ob->partial || (!o->local && o->partial) ||
		(!o->local && bms_is_member(o->peer, ob->lacking));

	/* what has become whole is so once the rest has come, and has been passed on */
	if (!part && !o->local && (out->partial || !out->offered) &&
		(o->arrears || bms_is_member(o->no, ob->owing)))
		part = ob->complete_due = true;
	out->partial = part;
	return part;
}

void
ent_outbound_complete(EntOutbound *ob)
{
	if (!ob->complete_due)
		return;
	if (!ob->adverts_due)
		ob->adverts_position = ob->ring_position;
	ob->adverts_due = true;
}
