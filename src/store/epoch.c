/*
 * store/epoch.c
 *	  Epochs of owners, and entanglement.ancestor.
 *
 * Versions are (epoch, serial), and all that a node has of an owner is of one epoch,
 * but for what is being compared or asked for. So what goes on in another one is
 * written anew.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "base/ring.h"
#include "base/wake.h"
#include "store/epoch.h"
#include "store/query.h"

#define MAX_IN_DOUBT	1000	/* objects; if more are, everything is compared */

static EntQuery begin_queries[] = {
	{"UPDATE entanglement.owner SET epoch = $2 "
		"WHERE no OPERATOR(pg_catalog.=) $1 AND local AND epoch OPERATOR(pg_catalog.<) $2",
	2, {INT4OID, INT4OID}, NULL},
	{"UPDATE entanglement.object SET epoch = $2 WHERE owner OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT4OID}, NULL},
	{"UPDATE entanglement.tombstone SET epoch = $2 WHERE owner OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT4OID}, NULL}
};
static EntQuery journal_query = {
	"UPDATE entanglement.journal SET epoch = $2 "
	"WHERE owner OPERATOR(pg_catalog.=) $1 AND epoch OPERATOR(pg_catalog.=) $3",
	3, {INT4OID, INT4OID, INT4OID}, NULL
};
static EntQuery ancestors_query = {
	"SELECT epoch, serial FROM entanglement.ancestor "
	"WHERE owner OPERATOR(pg_catalog.=) $1 ORDER BY epoch DESC LIMIT $2",
	2, {INT4OID, INT8OID}, NULL
};
/* Of what died later, in vain, nobody has to hear. */
static EntQuery pruned_query = {
	"UPDATE entanglement.owner SET pruned = LEAST(pruned, $2) "
	"WHERE no OPERATOR(pg_catalog.=) $1",
	2, {INT4OID, INT8OID}, NULL
};
static EntQuery forget_query = {
	"DELETE FROM entanglement.ancestor WHERE owner OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
static EntQuery add_query = {
	"INSERT INTO entanglement.ancestor (owner, epoch, serial) VALUES ($1, $2, $3)",
	3, {INT4OID, INT4OID, INT8OID}, NULL
};
/*
 * What is here of a remote owner whose epoch $2 another one, $5, goes on from, with all
 * versions up to $3. An object is in doubt if it has a newer one, or its row may be
 * newer than its version: then what the row holds may not be of the new epoch; unless its
 * version is, which came before the offer. Those whose tombstones are newer died in vain.
 */
#define DOUBTFUL \
	"(b.serial OPERATOR(pg_catalog.>) $3 " \
	"OR COALESCE(b.digests OPERATOR(pg_catalog.=) ''::pg_catalog.bytea, false))"
#define IN_DOUBT \
	"SELECT b.rel, b.key, b.serial FROM entanglement.object b " \
	"WHERE b.owner OPERATOR(pg_catalog.=) $1 " \
	"AND b.epoch OPERATOR(pg_catalog.<>) $5 AND " DOUBTFUL " UNION ALL " \
	"SELECT t.rel, t.key, t.serial FROM entanglement.tombstone t " \
	"WHERE (t.owner OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) $1 " \
	"AND t.serial OPERATOR(pg_catalog.>) $3 AND t.epoch OPERATOR(pg_catalog.=) $2 "

static EntQuery fits_query = {
	"SELECT 1 FROM entanglement.owner o "
	"WHERE o.no OPERATOR(pg_catalog.=) $1 AND o.epoch OPERATOR(pg_catalog.=) $2 "
	/* who died, that is no more known, may live */
	"AND o.pruned OPERATOR(pg_catalog.<=) $3 "
	/* it is being compared with yet another one */
	"AND NOT EXISTS (SELECT FROM entanglement.object b "
	"WHERE b.owner OPERATOR(pg_catalog.=) $1 AND b.epoch OPERATOR(pg_catalog.<>) $2 "
	"AND b.epoch OPERATOR(pg_catalog.<>) $5) "
	/* the heir's versions are not undone by his giver's */
	"AND NOT EXISTS (SELECT FROM entanglement.tombstone t "
	"WHERE (t.owner OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) $1 "
	"AND t.serial OPERATOR(pg_catalog.>) $3 "
	"AND (t.heir IS NOT NULL OR t.from_owner IS NOT NULL)) "
	"AND NOT EXISTS (SELECT FROM entanglement.owed d "
	"WHERE d.owner OPERATOR(pg_catalog.=) $1 AND d.serial OPERATOR(pg_catalog.>) $3) "
	"AND (SELECT pg_catalog.count(*) FROM (" IN_DOUBT " LIMIT $4) AS d) OPERATOR(pg_catalog.<) $4",
	5, {INT4OID, INT4OID, INT8OID, INT8OID, INT4OID}, NULL
};
static EntQuery park_query = {
	"INSERT INTO entanglement.parked (rel, key, owner, peer, epoch, serial, sqlstate, message) "
	"SELECT d.rel, d.key, $1, $4, $2, d.serial, '55000', "
	"'what is here may be of a history that its owner has lost' FROM (" IN_DOUBT ") AS d "
	"ON CONFLICT DO NOTHING",
	5, {INT4OID, INT4OID, INT8OID, INT4OID, INT4OID}, NULL
};
/* What was reached anew was reached at the distance that it has now. */
static EntQuery adopt_queries[] = {
	{"UPDATE entanglement.object b SET epoch = $2 "
		"WHERE b.owner OPERATOR(pg_catalog.=) $1 AND NOT " DOUBTFUL,
	4, {INT4OID, INT4OID, INT8OID, INT4OID}, NULL},
	{"UPDATE entanglement.tombstone SET epoch = $2, ahead = false "
		"WHERE owner OPERATOR(pg_catalog.=) $1 AND epoch OPERATOR(pg_catalog.=) $4 "
		"AND serial OPERATOR(pg_catalog.<=) $3",
	4, {INT4OID, INT4OID, INT8OID, INT4OID}, NULL},
	{"UPDATE entanglement.journal SET epoch = $2 "
		"WHERE owner OPERATOR(pg_catalog.=) $1 AND epoch OPERATOR(pg_catalog.=) $4 "
		"AND serial OPERATOR(pg_catalog.<=) $3",
	4, {INT4OID, INT4OID, INT8OID, INT4OID}, NULL},
	{"UPDATE entanglement.owner SET epoch = $2, serial = LEAST(serial, $3), "
		"sure = LEAST(sure, $3), told = LEAST(told, $3), nearest = distance "
		"WHERE no OPERATOR(pg_catalog.=) $1 AND NOT local AND epoch OPERATOR(pg_catalog.=) $4",
	4, {INT4OID, INT4OID, INT8OID, INT4OID}, NULL},
};

static void
add_ancestor(int32 no, int32 epoch, int64 serial)
{
	Datum		args[3] = {Int32GetDatum(no), Int32GetDatum(epoch),
	Int64GetDatum(serial)};

	ent_query_run(&add_query, args, NULL, SPI_OK_INSERT, NULL);
}

/* It is to be offered anew. */
static void
post(int32 no)
{
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = no};

	ent_wake_post_at_commit(&ev);
	ent_wake_routes_at_commit();
}

static void
begin(int32 no, int32 epoch)
{
	Datum		args[2] = {Int32GetDatum(no), Int32GetDatum(epoch)};

	for (int i = 0; i < lengthof(begin_queries); i++)
		ent_query_run(&begin_queries[i], args, NULL, SPI_OK_UPDATE, NULL);
	post(no);
}

void
ent_epoch_begin(int32 no, int32 epoch)
{
	begin(no, epoch);
	ent_epoch_set_ancestors(no, 0, NULL, 0);
}

void
ent_epoch_branch(const EntOwner *o, int32 epoch)
{
	Datum		args[3] = {Int32GetDatum(o->no), Int32GetDatum(epoch),
	Int32GetDatum(o->epoch)};

	begin(o->no, epoch);
	ent_query_run(&journal_query, args, NULL, SPI_OK_UPDATE, NULL);
	add_ancestor(o->no, o->epoch, o->serial);
}

int
ent_epoch_ancestors(int32 no, EntWireAncestor *ancestors)
{
	Datum		args[2] = {Int32GetDatum(no), Int64GetDatum(ENT_WIRE_MAX_ANCESTORS)};
	int			n;

	ent_query_run(&ancestors_query, args, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	for (int i = 0; i < n; i++)
	{
		ancestors[i].epoch = ent_query_int4(i, 1, NULL);
		ancestors[i].serial = ent_query_int8(i, 2, NULL);
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

void
ent_epoch_set_ancestors(int32 no, int32 was, const EntWireAncestor *ancestors,
						int n)
{
	Datum		args[2] = {Int32GetDatum(no)};

	ent_query_run(&forget_query, args, NULL, SPI_OK_DELETE, NULL);
	for (int i = 0; i < n; i++)
	{
		add_ancestor(no, ancestors[i].epoch, ancestors[i].serial);
		args[1] = Int64GetDatum(ancestors[i].serial);
		if ((int32) ancestors[i].epoch == was)
			ent_query_run(&pruned_query, args, NULL, SPI_OK_UPDATE, NULL);
	}
}

bool
ent_epoch_adopt(const EntOwner *o, int32 epoch, int64 upto, int32 peer)
{
	Datum		args[5] = {Int32GetDatum(o->no), Int32GetDatum(o->epoch),
	Int64GetDatum(upto), Int64GetDatum(MAX_IN_DOUBT), Int32GetDatum(epoch)};
	bool		fits;

	ent_query_run(&fits_query, args, NULL, SPI_OK_SELECT, NULL);
	fits = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	if (!fits)
		return false;
	args[3] = Int32GetDatum(peer);
	ent_query_run(&park_query, args, NULL, SPI_OK_INSERT, NULL);
	args[1] = Int32GetDatum(epoch);
	args[3] = Int32GetDatum(o->epoch);
	for (int i = 0; i < lengthof(adopt_queries); i++)
		ent_query_run(&adopt_queries[i], args, NULL, SPI_OK_UPDATE, NULL);
	post(o->no);
	return true;
}
