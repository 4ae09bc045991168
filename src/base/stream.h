/*
 * base/stream.h
 *	  Messages in both directions over a backend's client connection.
 *
 * PostgreSQL's copy-both mode, which any libpq speaks (PQputCopyData,
 * PQgetCopyData): as walsenders use it, but within a procedure that was called.
 * Nothing here waits, except for a client that does not read.
 */
#ifndef ENT_BASE_STREAM_H
#define ENT_BASE_STREAM_H

#include "postgres.h"

#include "lib/stringinfo.h"

typedef struct EntStream
{
	StringInfoData message;		/* received */
	MemoryContext context;		/* holds it */
	bool		begun;			/* a message is being received */
	int			head;			/* of its type and length, bytes received */
	char		type;
	uint32		length;			/* of what follows the length */
	bool		ended;			/* by the client, in due form */
} EntStream;

/* Switches the connection to copy-both mode; messages in the current context. */
extern void ent_stream_begin(EntStream *s);

/*
 * True: s->message has the client's next one, until the next call. False: there
 * is no whole one yet, or s->ended. Raises ERRCODE_CONNECTION_FAILURE when the
 * client has gone, ERRCODE_PROTOCOL_VIOLATION when it says something else, or
 * more than max bytes.
 */
extern bool ent_stream_read(EntStream *s, size_t max);

extern void ent_stream_write(const char *data, size_t len);

/* After s->ended: back to ordinary mode. */
extern void ent_stream_end(void);

/* Until the latch is set, the client says something, or ms have passed; -1: for ever. */
extern void ent_stream_wait(long ms);

#endif							/* ENT_BASE_STREAM_H */
