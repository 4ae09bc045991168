/*
 * link/connection.h
 *	  One libpq connection of a dialer, never waited for: dial, greet, stream.
 *
 * The dialed server is not trusted: one row of one column is taken for an
 * answer, sizes are limited, its messages are cleaned data, notices and
 * notifications are dropped. Whatever fails raises an error with the
 * remote's SQLSTATE, or 08001 (dialing) or 08006 (later); the connection is then to
 * be closed.
 */
#ifndef ENT_LINK_CONNECTION_H
#define ENT_LINK_CONNECTION_H

#include "postgres.h"

#include "link/conninfo.h"

typedef enum EntConnectionState
{
	ENT_CONNECTION_CLOSED = 0,
	ENT_CONNECTION_DIALING,
	ENT_CONNECTION_IDLE,
	ENT_CONNECTION_BUSY,		/* a question is under way */
	ENT_CONNECTION_STREAMING,	/* messages go both ways */
} EntConnectionState;

typedef struct EntConnection
{
	struct pg_conn *pg;
	EntConnectionState state;
	int			polling;		/* DIALING: what PQconnectPoll wants */
	bool		flushing;		/* the socket does not take it all */
	struct pg_result *answer;	/* the row, until the next question */
	char	   *message;		/* the one received last */
	int64		heard_at;		/* us: last progress in either direction */
} EntConnection;

/* Begins to dial. The connection must be CLOSED. */
extern void ent_connection_dial(EntConnection *c, const EntConninfo *conninfo);

/*
 * Does what can be done without waiting. events: what the wait reported of
 * its socket (WL_SOCKET_...), 0: nothing. Returns true when it has just
 * become IDLE: dialed, or the answer is complete (the remote's transaction has
 * ended); or STREAMING.
 */
extern bool ent_connection_advance(EntConnection *c, uint32 events);

/* What to wait for; 0 when CLOSED. And where. */
extern uint32 ent_connection_events(const EntConnection *c);
extern int	ent_connection_socket(const EntConnection *c);

/* Questions; the connection must be IDLE. */
extern void ent_connection_hello(EntConnection *c, const char *direction,
								 const bytea *hello);
/* The statement has one parameter of type bytea. */
extern void ent_connection_prepare(EntConnection *c, const char *sql);
extern void ent_connection_execute(EntConnection *c, const bytea *argument);

/* What follows is a stream, of the direction that hello said. */
extern void ent_connection_stream(EntConnection *c, const char *direction);

/* A message of a STREAMING connection. */
extern void ent_connection_send(EntConnection *c, const bytea *message);
/*
 * The next one that has come, valid until the next call, or NULL. Raises
 * ERRCODE_PROTOCOL_VIOLATION when it is too large.
 */
extern const char *ent_connection_receive(EntConnection *c, size_t *len);

/*
 * The answer, valid until the next question. Raises
 * ERRCODE_PROTOCOL_VIOLATION when there is none or it is NULL.
 */
extern const char *ent_connection_answer(const EntConnection *c, size_t *len);

/* The server's certificate's fingerprint, or "". out as in base/cert.h */
extern void ent_connection_fingerprint(const EntConnection *c, char *out);

/* Closes it, if open. */
extern void ent_connection_close(EntConnection *c);

/* Microseconds of a clock that only goes forward. */
extern int64 ent_connection_clock(void);

#endif							/* ENT_LINK_CONNECTION_H */
