/*
 * link/conninfo.c
 *	  How a peer is dialed: what the administrator wrote, and what we add.
 *
 * Place: link. A parameter given twice takes its last value (libpq), so
 * the administrator's come first, then ours: those that must be as they are,
 * and those that were not given.
 */
#include "postgres.h"

#include "libpq-fe.h"
#include "mb/pg_wchar.h"

#include "base/ent.h"
#include "base/guc.h"
#include "link/conninfo.h"

#define MAX_ADDED	16

/* The remote session waits and holds on as long as we want. */
#define SESSION_OPTIONS \
	"-c statement_timeout=0 -c lock_timeout=0 " \
	"-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0"

static const char *
given(const PQconninfoOption *options, const char *keyword)
{
	for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
		if (strcmp(o->keyword, keyword) == 0)
			return o->val != NULL && o->val[0] != '\0' ? o->val : NULL;
	return NULL;
}

static void
add(EntConninfo *c, const char *keyword, const char *value)
{
	int			n = 0;

	while (c->keywords[n] != NULL)
		n++;
	c->keywords[n] = keyword;
	c->values[n] = value;
}

static void
add_default(EntConninfo *c, const PQconninfoOption *options,
			const char *keyword, const char *value)
{
	if (given(options, keyword) == NULL)
		add(c, keyword, value);
}

/* As far as can be told before connecting. */
static bool
may_be_tcp(const PQconninfoOption *options)
{
	const char *host = given(options, "host");

	if (given(options, "hostaddr") != NULL)
		return true;
	if (host == NULL)
		return false;
	/* a list of hosts: any that is no folder counts */
	for (const char *p = host; p != NULL; p = strchr(p, ','))
	{
		if (*p == ',')
			p++;
		if (*p != '/' && *p != '@' && *p != ',' && *p != '\0')
			return true;
	}
	return false;
}

static const char *
choose_sslmode(const PQconninfoOption *options)
{
	const char *mode = given(options, "sslmode");

	if (!ent_require_tls)
		return mode;
	if (mode == NULL)
		return "verify-full";
	if (strcmp(mode, "disable") == 0 && may_be_tcp(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the connection would not be encrypted: its conninfo says sslmode=disable"),
				 errdetail("The setting entanglement.require_tls is on: peers connect with TLS or over a Unix socket."),
				 errhint("Leave sslmode out (it is verify-full then), or turn entanglement.require_tls off on both nodes.")));
	if (strcmp(mode, "allow") == 0 || strcmp(mode, "prefer") == 0)
		return "require";
	return mode;
}

static void
add_ours(EntConninfo *c, const PQconninfoOption *options,
		 const char *node_name)
{
	const char *mode = choose_sslmode(options);
	const char *session = given(options, "options");

	add(c, "gssencmode", "disable");
	add(c, "client_encoding", GetDatabaseEncodingName());
	add(c, "options", session == NULL ? SESSION_OPTIONS :
		psprintf("%s %s", session, SESSION_OPTIONS));
	if (mode != NULL)
		add(c, "sslmode", mode);
	add_default(c, options, "ssl_min_protocol_version", "TLSv1.2");
	add_default(c, options, "fallback_application_name",
				psprintf("%s %s", ENT_NAME, node_name));
	add_default(c, options, "keepalives_idle",
				psprintf("%d", Max(1, ent_heartbeat / 1000)));
	add_default(c, options, "keepalives_interval",
				psprintf("%d", Max(1, ent_dead_after / 4000)));
	add_default(c, options, "keepalives_count", "3");
	add_default(c, options, "tcp_user_timeout",
				psprintf("%d", ent_dead_after));
}

EntConninfo *
ent_conninfo_prepare(const char *conninfo, const char *node_name)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	EntConninfo *c = palloc0(sizeof(EntConninfo));
	PQconninfoOption *copy;
	int			n = 0;

	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the peer's conninfo cannot be parsed")));
	while (options[n].keyword != NULL)
		n++;

	/* a copy in our memory, so that nothing of libpq's is lost by an error */
	copy = palloc0((n + 1) * sizeof(PQconninfoOption));
	c->keywords = palloc0((n + MAX_ADDED + 1) * sizeof(char *));
	c->values = palloc0((n + MAX_ADDED + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		copy[i].keyword = pstrdup(options[i].keyword);
		copy[i].val = options[i].val ? pstrdup(options[i].val) : NULL;
	}
	PQconninfoFree(options);

	for (int i = 0; i < n; i++)
		if (given(copy, copy[i].keyword) != NULL)
			add(c, copy[i].keyword, copy[i].val);
	add_ours(c, copy, node_name);
	return c;
}
