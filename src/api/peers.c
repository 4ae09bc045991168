/*
 * api/peers.c
 *	  SQL functions on peers: add, alter, drop, pause, resume.
 *
 * Place: api. They write entanglement.peer and leave the rest to the workers
 * and sessions, which look again when the transaction has committed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/sight.h"
#include "base/cert.h"
#include "base/report.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "guard/show.h"
#include "rule/wire.h"
#include "store/hook.h"
#include "store/identity.h"
#include "store/peer.h"

PG_FUNCTION_INFO_V1(ent_sql_add_peer);
PG_FUNCTION_INFO_V1(ent_sql_alter_peer);
PG_FUNCTION_INFO_V1(ent_sql_drop_peer);
PG_FUNCTION_INFO_V1(ent_sql_pause_peer);
PG_FUNCTION_INFO_V1(ent_sql_resume_peer);

#define MAX_PEER_NAME	63		/* bytes */

/* ---- arguments ---- */

static char *
text_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

static char *
name_argument(FunctionCallInfo fcinfo, int i)
{
	char	   *name = text_argument(fcinfo, i);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("peer name must not be NULL")));
	return name;
}

static bool
is_true(FunctionCallInfo fcinfo, int i)
{
	return !PG_ARGISNULL(i) && PG_GETARG_BOOL(i);
}

static void
check_new_name(const char *name)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("peer name must not be empty")));
	if (strlen(name) > MAX_PEER_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("peer name \"%s\" is too long", name),
				 errdetail("It has %zu bytes, the limit is %d.",
						   strlen(name), MAX_PEER_NAME)));
}

static void
check_bandwidth(int64 bandwidth)
{
	if (bandwidth <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bandwidth must be greater than zero"),
				 errdetail("It is given in bytes of payload per second."),
				 errhint("NULL means no limit; to remove one: entanglement.alter_peer(name, reset => '{bandwidth}').")));
}

/*
 * libpq quotes what it stumbles over, which may be a piece of a password.
 * Where there can be one, only quoted single characters remain; a translated
 * message, with who knows which quotation marks, does not.
 */
static char *
without_secrets(const char *message, const char *conninfo)
{
	StringInfoData text;
	const char *p = message;

	if (strstr(conninfo, "pass") == NULL && strchr(conninfo, '@') == NULL)
		return pstrdup(message);
	for (const char *c = message; *c != '\0'; c++)
		if (IS_HIGHBIT_SET(*c))
			return pstrdup("syntax error");
	initStringInfo(&text);
	while (*p != '\0')
	{
		const char *end = *p == '"' ? strrchr(p + 1, '"') : NULL;

		/* two quoted texts: =" after "...; the first is libpq's own */
		if (end != NULL && p[1] != '\0' && p[2] == '"')
			end = p + 2;
		if (end == NULL)
			appendStringInfoChar(&text, *p++);
		else
		{
			if (end == p + 2)
				appendBinaryStringInfo(&text, p, 3);
			else
				appendStringInfoString(&text, "\"...\"");
			p = end + 1;
		}
	}
	return text.data;
}

static void
check_conninfo(const char *conninfo)
{
	char	   *message = NULL;
	PQconninfoOption *options;
	bool		replication = false;

	/* the dialer runs as the server's own user, with that user's files */
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to set a peer's conninfo"),
				 errdetail("The connection is made with the files and the network access of the server's operating system user.")));
	if (conninfo[strspn(conninfo, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("conninfo must not be empty"),
				 errhint("NULL means that the peer dials this node.")));

	options = PQconninfoParse(conninfo, &message);
	if (options == NULL)
	{
		char	   *detail = without_secrets(message ? message :
											 "out of memory", conninfo);

		PQfreemem(message);
		ent_report_clean(detail);
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("conninfo cannot be parsed"),
				 errdetail("libpq says: %s.", detail),
				 errhint("Write it as host=... dbname=... user=... or as postgresql://user@host/dbname.")));
	}
	for (PQconninfoOption *o = options; o->keyword != NULL; o++)
		if (o->val != NULL && strcmp(o->keyword, "replication") == 0)
			replication = true;
	PQconninfoFree(options);
	if (replication)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("conninfo must not contain \"replication\""),
				 errdetail("Peers exchange batches over ordinary connections.")));
}

static void
hide_statement(void *arg)
{
	errhidestmt(true);
	errhidecontext(true);		/* where functions show their statements */
}

/*
 * Runs add_peer or alter_peer. A statement with a conninfo (argument 1) may
 * hold a password: from here on pg_stat_activity does not show it, and it is
 * not logged along with errors and warnings.
 */
static void
run_hidden(FunctionCallInfo fcinfo, void (*run) (FunctionCallInfo fcinfo))
{
	ErrorContextCallback callback = {.previous = error_context_stack,
	.callback = hide_statement};

	if (!PG_ARGISNULL(1))
	{
		pgstat_report_activity(STATE_RUNNING,
							   "entanglement: a statement with a peer's conninfo");
		error_context_stack = &callback;
	}
	run(fcinfo);
	error_context_stack = callback.previous;
}

static void
connect_spi(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

/* The peer of that name, locked until commit. */
static EntPeer *
existing_peer(const char *name)
{
	EntPeer    *peer = ent_peer_lock(name);

	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("peer \"%s\" does not exist", name)));
	return peer;
}

/* ---- functions ---- */

static void
add_peer(FunctionCallInfo fcinfo)
{
	EntPeer		peer = {0};

	peer.name = name_argument(fcinfo, 0);
	peer.conninfo = text_argument(fcinfo, 1);
	peer.role = PG_ARGISNULL(2) ? GetUserId() : PG_GETARG_OID(2);
	check_new_name(peer.name);
	if (peer.conninfo != NULL)
		check_conninfo(peer.conninfo);
	if (!PG_ARGISNULL(3))
	{
		peer.bandwidth = PG_GETARG_INT64(3);
		check_bandwidth(peer.bandwidth);
	}

	connect_spi();
	ent_identity_use();
	ent_sight_check(peer.role, peer.name, peer.conninfo == NULL, is_true(fcinfo, 4));
	ent_peer_insert(&peer);
	ent_peer_grant(peer.role);
	ent_sight_notice(peer.role);
	SPI_finish();
	ent_shmem_warn();
	ent_wake_routes_at_commit();
}

Datum
ent_sql_add_peer(PG_FUNCTION_ARGS)
{
	run_hidden(fcinfo, add_peer);
	PG_RETURN_VOID();
}

static void
set_fingerprint(EntPeer *peer, const char *text)
{
	char		fingerprint[ENT_FINGERPRINT_LENGTH + 1];

	if (!ent_cert_parse(text, fingerprint))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a SHA-256 fingerprint", text),
				 errdetail("A fingerprint has %d hexadecimal digits, with or without colons in between.",
						   ENT_FINGERPRINT_LENGTH),
				 errhint("It is shown by: openssl x509 -noout -fingerprint -sha256 -in server.crt")));
	peer->fingerprint = pstrdup(fingerprint);
}

static void
reset_conninfo(EntPeer *peer)
{
	peer->conninfo = NULL;
}

static void
reset_bandwidth(EntPeer *peer)
{
	peer->bandwidth = 0;
}

static void
reset_fingerprint(EntPeer *peer)
{
	peer->fingerprint = NULL;
}

static void
reset_node(EntPeer *peer)
{
	peer->has_node = false;
}

/* A row per property that alter_peer can take away; -1: not settable. */
static const struct
{
	const char *name;
	int			argument;		/* that sets it */
	void		(*reset) (EntPeer *peer);
}			resets[] = {
	{"conninfo", 1, reset_conninfo},
	{"bandwidth", 3, reset_bandwidth},
	{"fingerprint", 4, reset_fingerprint},
	{"node", -1, reset_node},
};

static void
reset_one(FunctionCallInfo fcinfo, EntPeer *peer, const char *what)
{
	for (int i = 0; i < lengthof(resets); i++)
	{
		if (strcmp(what, resets[i].name) != 0)
			continue;
		if (resets[i].argument >= 0 && !PG_ARGISNULL(resets[i].argument))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" can be either set or reset", what)));
		resets[i].reset(peer);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a peer has no property \"%s\" to reset", what),
			 errhint("There are: conninfo, bandwidth, fingerprint, node.")));
}

static void
reset_all(FunctionCallInfo fcinfo, EntPeer *peer, ArrayType *what)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(what, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls,
					  &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("reset must not contain NULL")));
		reset_one(fcinfo, peer, TextDatumGetCString(names[i]));
	}
}

/* (name, conninfo, role, bandwidth, fingerprint, new_name, reset, privileged) */
static void
alter_peer(FunctionCallInfo fcinfo)
{
	char	   *name = name_argument(fcinfo, 0);
	EntPeer    *peer;
	Oid			old_role;

	connect_spi();
	peer = existing_peer(name);
	old_role = peer->role;
	if (!PG_ARGISNULL(1))
	{
		peer->conninfo = text_argument(fcinfo, 1);
		check_conninfo(peer->conninfo);
	}
	if (!PG_ARGISNULL(3))
	{
		peer->bandwidth = PG_GETARG_INT64(3);
		check_bandwidth(peer->bandwidth);
	}
	if (!PG_ARGISNULL(4))
		set_fingerprint(peer, text_argument(fcinfo, 4));
	if (!PG_ARGISNULL(5))
	{
		peer->name = text_argument(fcinfo, 5);
		check_new_name(peer->name);
		ent_hook_invalidate();	/* they are told it */
	}
	if (!PG_ARGISNULL(6))
		reset_all(fcinfo, peer, PG_GETARG_ARRAYTYPE_P(6));
	if (!PG_ARGISNULL(2))
	{
		peer->role = PG_GETARG_OID(2);
		ent_sight_check(peer->role, peer->name, peer->conninfo == NULL,
						 is_true(fcinfo, 7));
	}

	ent_peer_update(peer);
	if (peer->role != old_role)
	{
		ent_peer_grant(peer->role);
		ent_peer_revoke(old_role);
		ent_show_settle();
		ent_sight_notice(peer->role);
	}
	SPI_finish();
	ent_shmem_warn();
	ent_wake_routes_at_commit();
}

Datum
ent_sql_alter_peer(PG_FUNCTION_ARGS)
{
	run_hidden(fcinfo, alter_peer);
	PG_RETURN_VOID();
}

Datum
ent_sql_drop_peer(PG_FUNCTION_ARGS)
{
	EntPeer    *peer;

	connect_spi();
	peer = existing_peer(name_argument(fcinfo, 0));
	ent_peer_delete(peer->no);
	ent_peer_revoke(peer->role);
	ent_wake_free_peer_at_commit(peer->no);
	SPI_finish();
	ent_wake_routes_at_commit();
	PG_RETURN_VOID();
}

static void
set_paused(const char *name, bool paused)
{
	EntPeer    *peer;

	connect_spi();
	peer = existing_peer(name);
	if (peer->paused != paused)
	{
		peer->paused = paused;
		ent_peer_update(peer);
		ent_wake_routes_at_commit();
	}
	SPI_finish();
}

Datum
ent_sql_pause_peer(PG_FUNCTION_ARGS)
{
	set_paused(name_argument(fcinfo, 0), true);
	PG_RETURN_VOID();
}

Datum
ent_sql_resume_peer(PG_FUNCTION_ARGS)
{
	set_paused(name_argument(fcinfo, 0), false);
	ent_shmem_warn();
	PG_RETURN_VOID();
}
