/*
 * api/owners.c
 *	  Local owners and the node's name.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "base/ring.h"
#include "base/wake.h"
#include "store/identity.h"
#include "store/owner.h"
#include "store/query.h"

PG_FUNCTION_INFO_V1(ent_sql_create_owner);
PG_FUNCTION_INFO_V1(ent_sql_set_node_name);

static EntQuery add_query = {
	"INSERT INTO entanglement.owner (id, name, local, home) "
	"SELECT $2, $1, true, i.id FROM entanglement.identity i RETURNING no",
	2, {TEXTOID, UUIDOID}, NULL
};
static EntQuery other_query = {
	"SELECT local AND name OPERATOR(pg_catalog.=) $1 "
	"FROM (SELECT id, name, local FROM entanglement.owner "
	"UNION ALL SELECT id, name, false FROM entanglement.grave) o "
	"WHERE id OPERATOR(pg_catalog.=) $2 "
	"OR (local AND name OPERATOR(pg_catalog.=) $1) ORDER BY 1 DESC LIMIT 1",
	2, {TEXTOID, UUIDOID}, NULL
};
static EntQuery default_query = {
	"SELECT o.id FROM entanglement.owner o JOIN entanglement.identity i "
	"ON o.no OPERATOR(pg_catalog.=) i.default_owner AND o.local "
	"WHERE EXISTS (SELECT FROM entanglement.owner n WHERE n.local "
	"AND n.name OPERATOR(pg_catalog.=) $1 "
	"AND n.no OPERATOR(pg_catalog.<>) o.no) "
	"AND o.name OPERATOR(pg_catalog.=) i.name",
	1, {TEXTOID}, NULL
};
static EntQuery rename_owner_query = {
	"UPDATE entanglement.owner o SET name = $1 FROM entanglement.identity i "
	"WHERE o.no OPERATOR(pg_catalog.=) i.default_owner AND o.local "
	"AND o.name OPERATOR(pg_catalog.=) i.name RETURNING o.no",
	1, {TEXTOID}, NULL
};
static EntQuery rename_node_query = {
	"UPDATE entanglement.identity SET name = $1", 1, {TEXTOID}, NULL
};

static char *
check_name(FunctionCallInfo fcinfo)
{
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("name must not be NULL")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("name must not be empty")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name \"%s\" is too long", name),
				 errdetail("It has %zu bytes, the limit is %d.",
						   strlen(name), NAMEDATALEN - 1)));
	return name;
}

/*
 * Names of local owners are unique, and so are ids. Two sessions that make
 * the same owner at the same time meet the table's indexes instead.
 */
static void
check_unused(Datum name, Datum id)
{
	Datum		args[2] = {name, id};

	ent_query_run(&other_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed == 0)
		return;
	if (ent_query_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("local owner \"%s\" already exists",
						TextDatumGetCString(name))));
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("an owner with id %s already exists",
					DatumGetCString(DirectFunctionCall1(uuid_out, id)))));
}

static void
advertise(int32 no)
{
	EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = no};

	ent_wake_post_at_commit(&ev);
	ent_wake_routes_at_commit();
}

Datum
ent_sql_create_owner(PG_FUNCTION_ARGS)
{
	char	   *name = check_name(fcinfo);
	Datum		args[2] = {CStringGetTextDatum(name), PG_GETARG_DATUM(1)};

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("id must not be NULL")));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_identity_refuse_undecided();
	ent_identity_use();
	check_unused(args[0], args[1]);
	ent_query_run(&add_query, args, NULL, SPI_OK_INSERT_RETURNING, NULL);
	advertise(ent_query_int4(0, 1, NULL));
	SPI_finish();
	PG_RETURN_DATUM(PG_GETARG_DATUM(1));
}

Datum
ent_sql_set_node_name(PG_FUNCTION_ARGS)
{
	char	   *name = check_name(fcinfo);
	Datum		args[1] = {CStringGetTextDatum(name)};

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_query_run(&default_query, args, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("local owner \"%s\" already exists", name),
				 errdetail("The node's default owner is renamed along with the node."),
				 errhint("Choose another name for the node.")));
	ent_query_run(&rename_owner_query, args, NULL, SPI_OK_UPDATE_RETURNING, NULL);
	if (SPI_processed > 0)
		advertise(ent_query_int4(0, 1, NULL));
	ent_query_run(&rename_node_query, args, NULL, SPI_OK_UPDATE, NULL);
	SPI_finish();
	PG_RETURN_VOID();
}
