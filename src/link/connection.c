/*
 * link/connection.c
 *	  One libpq connection of a dialer, never waited for.
 *
 * Place: link. Only looking up a host name may block, inside libpq; an
 * address in the conninfo (hostaddr) avoids that. Every PGresult is either
 * the answer kept or cleared where it was got.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "catalog/pg_type.h"
#include "libpq-fe.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"

#include "base/cert.h"
#include "base/compat.h"
#include "base/ent.h"
#include "base/guc.h"
#include "base/report.h"
#include "rule/wire.h"
#include "link/connection.h"

#define STATEMENT	"e"			/* name of the prepared one */
#define MAX_REMOTE_TEXT 400		/* bytes of each part of a remote message */

int64
ent_connection_clock(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MICROSEC(t);
}

/* ---- failing ---- */

/* A harmless copy of a text from outside; NULL stays NULL. */
static char *
clean_copy(const char *text)
{
	char	   *copy;

	if (text == NULL)
		return NULL;
	copy = pnstrdup(text, MAX_REMOTE_TEXT);
	ent_report_clean(copy);
	return copy;
}

/* libpq says what failed; this is where to look. */
static const char *
dialing_advice(EntConnection *c, const char *verdict)
{
	if (verdict != NULL)
		return "Check sslrootcert in the peer's conninfo, which names the authority to trust, and the certificate of the server there.";
	if (PQsslInUse(c->pg))
		return "A server was reached with TLS: check dbname, user, password and sslcert in the peer's conninfo, and pg_hba.conf and ssl_ca_file there.";
	return "Check the peer's conninfo, whether a server listens there with a certificate for that host name, and whether its pg_hba.conf lets this node in.";
}

pg_noreturn static void
fail_dialing(EntConnection *c)
{
	char	   *text = clean_copy(PQerrorMessage(c->pg));
	const char *verdict = ent_cert_verdict();

	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect: %s", text),
			 verdict ? errdetail("The server's certificate is not trusted: %s.",
								 verdict) : 0,
			 errhint("%s", dialing_advice(c, verdict))));
}

pg_noreturn static void
fail_connected(EntConnection *c)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection failed: %s",
					clean_copy(PQerrorMessage(c->pg)))));
}

/* What the administrator should do about some errors of the remote. */
static const char *
advice(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_INVALID_SCHEMA_NAME:
			return "The database reached is not a node of entanglement. Correct the peer's conninfo, or run CREATE EXTENSION entanglement there.";
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return "On the node reached, the role that logs in must stand for a peer: SELECT entanglement.add_peer(name, role => '...').";
		default:
			return NULL;
	}
}

/* Raises what a result reports; clears it. */
pg_noreturn static void
fail_result(EntConnection *c, PGresult *r)
{
	char	   *state = clean_copy(PQresultErrorField(r, PG_DIAG_SQLSTATE));
	char	   *message = clean_copy(PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY));
	char	   *detail = clean_copy(PQresultErrorField(r, PG_DIAG_MESSAGE_DETAIL));
	char	   *hint = clean_copy(PQresultErrorField(r, PG_DIAG_MESSAGE_HINT));
	ExecStatusType status = PQresultStatus(r);
	int			sqlstate = ERRCODE_CONNECTION_FAILURE;

	PQclear(r);
	if (status != PGRES_FATAL_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the peer's server sent a result of an unexpected kind"),
				 errdetail("libpq calls it %s.", PQresStatus(status))));
	if (state == NULL || message == NULL)
		fail_connected(c);
	if (strlen(state) == 5 && strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
		sqlstate = MAKE_SQLSTATE(state[0], state[1], state[2], state[3],
								 state[4]);
	if (advice(sqlstate) != NULL)
		hint = pstrdup(advice(sqlstate));
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

static void
drop_notice(void *arg, const PGresult *r)
{
}

/* ---- dialing ---- */

void
ent_connection_dial(EntConnection *c, const EntConninfo *conninfo)
{
	Assert(c->state == ENT_CONNECTION_CLOSED);
	memset(c, 0, sizeof(*c));
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not connect: too many files are open")));
	ent_cert_watch();
	c->pg = PQconnectStartParams(conninfo->keywords, conninfo->values, 0);
	if (c->pg == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	c->state = ENT_CONNECTION_DIALING;
	c->polling = PGRES_POLLING_WRITING;
	c->heard_at = ent_connection_clock();
	PQsetNoticeReceiver(c->pg, drop_notice, NULL);
	if (PQstatus(c->pg) == CONNECTION_BAD)
		fail_dialing(c);
}

/* host=/folder hostaddr=... is TCP, so the socket itself is asked. */
static bool
is_unix_socket(PGconn *pg)
{
	struct sockaddr_storage address;
	socklen_t	len = sizeof(address);

	return getpeername(PQsocket(pg), (struct sockaddr *) &address, &len) == 0 &&
		address.ss_family == AF_UNIX;
}

static void
check_safe(EntConnection *c)
{
	if (ent_require_tls && !PQsslInUse(c->pg) && !is_unix_socket(c->pg))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the connection is not encrypted"),
				 errdetail("The setting entanglement.require_tls is on: peers connect with TLS or over a Unix socket."),
				 errhint("Leave sslmode out of the conninfo (it is verify-full then), or turn entanglement.require_tls off on both nodes.")));
}

static bool
advance_dialing(EntConnection *c, uint32 events)
{
	if (events == 0)
		return false;
	c->polling = PQconnectPoll(c->pg);
	if (c->polling == PGRES_POLLING_FAILED)
		fail_dialing(c);
	if (c->polling != PGRES_POLLING_OK)
		return false;
	check_safe(c);
	if (PQsetnonblocking(c->pg, 1) != 0)
		fail_connected(c);
	c->state = ENT_CONNECTION_IDLE;
	return true;
}

/* ---- asking ---- */

static void
drop_answer(EntConnection *c)
{
	PQclear(c->answer);
	c->answer = NULL;
}

static void
flush(EntConnection *c)
{
	int			result = PQflush(c->pg);

	if (result < 0)
		fail_connected(c);
	c->flushing = result > 0;
}

/* After a PQsend function, whose result is sent. */
static void
begin(EntConnection *c, int sent)
{
	if (!sent)
		fail_connected(c);
	/* rows one by one, so that no server can make us collect them */
	(void) PQsetSingleRowMode(c->pg);
	c->state = ENT_CONNECTION_BUSY;
	c->heard_at = ent_connection_clock();
	flush(c);
}

void
ent_connection_hello(EntConnection *c, const char *direction,
					 const bytea *hello)
{
	const Oid	types[2] = {TEXTOID, BYTEAOID};
	const char *const values[2] = {direction, VARDATA_ANY(hello)};
	const int	lengths[2] = {strlen(direction), VARSIZE_ANY_EXHDR(hello)};
	const int	formats[2] = {1, 1};

	drop_answer(c);
	begin(c, PQsendQueryParams(c->pg, "SELECT entanglement.hello($1, $2)", 2,
							   types, values, lengths, formats, 1));
}

void
ent_connection_prepare(EntConnection *c, const char *sql)
{
	const Oid	types[1] = {BYTEAOID};

	drop_answer(c);
	begin(c, PQsendPrepare(c->pg, STATEMENT, sql, 1, types));
}

void
ent_connection_execute(EntConnection *c, const bytea *argument)
{
	const char *const values[1] = {VARDATA_ANY(argument)};
	const int	lengths[1] = {VARSIZE_ANY_EXHDR(argument)};
	const int	formats[1] = {1};

	drop_answer(c);
	begin(c, PQsendQueryPrepared(c->pg, STATEMENT, 1, values, lengths,
								 formats, 1));
}

void
ent_connection_stream(EntConnection *c, const char *direction)
{
	const Oid	types[1] = {TEXTOID};
	const char *const values[1] = {direction};

	drop_answer(c);
	begin(c, PQsendQueryParams(c->pg, "CALL entanglement.stream($1)", 1, types,
							   values, NULL, NULL, 1));
}

/* ---- collecting ---- */

static void
keep_answer(EntConnection *c, PGresult *r)
{
	if (c->answer != NULL || PQntuples(r) != 1 || PQnfields(r) != 1 ||
		PQfformat(r, 0) != 1 ||
		PQgetlength(r, 0, 0) > (int) ENT_WIRE_MAX_BATCH)
	{
		PQclear(r);
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the peer's server sent more than one answer, or too large a one")));
	}
	c->answer = r;
}

static void
take_result(EntConnection *c, PGresult *r)
{
	switch (PQresultStatus(r))
	{
		case PGRES_SINGLE_TUPLE:
			keep_answer(c, r);
			break;
		case PGRES_TUPLES_OK:	/* the end of the rows */
		case PGRES_COMMAND_OK:
			PQclear(r);
			break;
		case PGRES_COPY_BOTH:
			PQclear(r);
			c->state = ENT_CONNECTION_STREAMING;
			break;
		default:
			fail_result(c, r);
	}
}

static void
drop_notifications(EntConnection *c)
{
	PGnotify   *n;

	while ((n = PQnotifies(c->pg)) != NULL)
		PQfreemem(n);
}

/* The server may have said why before it hung up. */
pg_noreturn static void
fail_reading(EntConnection *c)
{
	PGresult   *r;

	while (!PQisBusy(c->pg) && (r = PQgetResult(c->pg)) != NULL)
	{
		if (PQresultStatus(r) == PGRES_FATAL_ERROR &&
			PQresultErrorField(r, PG_DIAG_SQLSTATE) != NULL)
			fail_result(c, r);
		PQclear(r);
	}
	fail_connected(c);
}

/* Results, until nothing more is here; true at the end of the last one. */
static bool
collect(EntConnection *c)
{
	while (!PQisBusy(c->pg))
	{
		PGresult   *r = PQgetResult(c->pg);

		if (r == NULL)
		{
			c->state = ENT_CONNECTION_IDLE;
			return true;
		}
		take_result(c, r);
		if (c->state == ENT_CONNECTION_STREAMING)
			return true;
	}
	return false;
}

bool
ent_connection_advance(EntConnection *c, uint32 events)
{
	if (c->state == ENT_CONNECTION_CLOSED || events == 0)
		return false;
	c->heard_at = ent_connection_clock();
	if (c->state == ENT_CONNECTION_DIALING)
		return advance_dialing(c, events);

	if ((events & WL_SOCKET_READABLE) && !PQconsumeInput(c->pg))
		fail_reading(c);
	drop_notifications(c);
	if (c->state == ENT_CONNECTION_IDLE)
	{
		/* nothing was asked: only an end can have come */
		if (PQstatus(c->pg) == CONNECTION_BAD)
			fail_reading(c);
		return false;
	}
	if (c->flushing)
		flush(c);
	return c->state == ENT_CONNECTION_BUSY && collect(c);
}

/* ---- streaming ---- */

void
ent_connection_send(EntConnection *c, const bytea *message)
{
	Assert(c->state == ENT_CONNECTION_STREAMING);
	if (PQputCopyData(c->pg, VARDATA_ANY(message),
					  VARSIZE_ANY_EXHDR(message)) != 1)
		fail_connected(c);
	flush(c);
}

static void
drop_message(EntConnection *c)
{
	if (c->message != NULL)
		PQfreemem(c->message);
	c->message = NULL;
}

const char *
ent_connection_receive(EntConnection *c, size_t *len)
{
	int			n;

	drop_message(c);
	n = PQgetCopyData(c->pg, &c->message, 1);
	if (n == 0)
		return NULL;
	if (n < 0)
		fail_reading(c);
	if ((size_t) n > ENT_WIRE_MAX_BATCH)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the peer's server sent too large a message")));
	*len = n;
	return c->message;
}

const char *
ent_connection_answer(const EntConnection *c, size_t *len)
{
	if (c->answer == NULL || PQgetisnull(c->answer, 0, 0))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the peer's server sent no answer")));
	*len = PQgetlength(c->answer, 0, 0);
	return PQgetvalue(c->answer, 0, 0);
}

uint32
ent_connection_events(const EntConnection *c)
{
	switch (c->state)
	{
		case ENT_CONNECTION_DIALING:
			return c->polling == PGRES_POLLING_READING ?
				WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		case ENT_CONNECTION_IDLE:
			return WL_SOCKET_READABLE;
		case ENT_CONNECTION_BUSY:
		case ENT_CONNECTION_STREAMING:
			return WL_SOCKET_READABLE |
				(c->flushing ? WL_SOCKET_WRITEABLE : 0);
		default:
			return 0;
	}
}

int
ent_connection_socket(const EntConnection *c)
{
	return c->pg != NULL ? PQsocket(c->pg) : -1;
}

void
ent_connection_fingerprint(const EntConnection *c, char *out)
{
	(void) ent_cert_of_server(PQsslStruct(c->pg, "OpenSSL"), out);
}

void
ent_connection_close(EntConnection *c)
{
	if (c->state == ENT_CONNECTION_CLOSED)
		return;
	drop_answer(c);
	drop_message(c);
	PQfinish(c->pg);
	ReleaseExternalFD();
	memset(c, 0, sizeof(*c));
}
