/*
 * api/hello.c
 *	  How a peer that dials begins: hello, on each connection.
 *
 * Place: api; called by the peer's login. What follows is in api/exchange.c, or
 * api/verify.c.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "api/session.h"
#include "api/verify.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "link/greet.h"
#include "link/hello.h"
#include "store/identity.h"

PG_FUNCTION_INFO_V1(ent_sql_hello);

/* What a long conversation needs, whatever the database's defaults are. */
static void
prepare_connection(void)
{
	const struct
	{
		const char *name;
		const char *value;
	}			settings[] = {
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"tcp_keepalives_idle", psprintf("%d", Max(1, ent_heartbeat / 1000))},
		{"tcp_keepalives_interval",
		psprintf("%d", Max(1, ent_dead_after / 4000))},
		{"tcp_keepalives_count", "3"},
		{"tcp_user_timeout", psprintf("%d", ent_dead_after)},
	};

	for (int i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value,
							PGC_USERSET, PGC_S_SESSION);
}

static void
refuse_null(const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be NULL", argument)));
}

Datum
ent_sql_hello(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	EntDirection direction = ENT_PUSH;
	char	   *name;
	bool		verify;
	EntWireHello hello;
	EntPeer    *peer;
	bytea	   *theirs;
	bytea	   *ours;

	if (PG_ARGISNULL(0))
		refuse_null("direction");
	if (PG_ARGISNULL(1))
		refuse_null("hello");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	verify = strcmp(name, "verify") == 0;
	if (!verify)
		direction = ent_session_direction(name);
	theirs = PG_GETARG_BYTEA_PP(1);
	ent_shmem_require("entanglement's exchange");
	ent_identity_refuse_undecided();
	ent_identity_refuse_branched();
	ent_hello_read(VARDATA_ANY(theirs), VARSIZE_ANY_EXHDR(theirs), &hello);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	peer = ent_greet_caller(&hello, !verify);
	ours = ent_hello_build();
	if (verify)
		ent_verify_greeted(peer->no);
	else
		ent_session_open(direction, peer->no);
	SPI_finish();
	prepare_connection();
	PG_RETURN_BYTEA_P(ours);
}
