/*
 * base/stream.c
 *	  Messages in both directions over a backend's client connection.
 *
 * Place: base. The client is not trusted: what it announces is compared with the
 * limit before anything is allocated, and memory grows with what has come. A
 * connection that an error ends in the middle of a message is closed by
 * PostgreSQL, since nobody knows any more where the next one begins.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"

/* as in base/cert.c */
#undef ENABLE_GSS
#include "libpq/libpq-be.h"
#include "libpq/libpq.h"
#include "libpq/pqformat.h"

#include "base/compat.h"
#include "base/stream.h"

#define HEAD		((int) (1 + sizeof(uint32)))
#define MAX_IDLE	65536			/* bytes of memory kept between messages */
#define MAX_PIECE	65536			/* bytes read at a time */

void
ent_stream_begin(EntStream *s)
{
	StringInfoData buf;

	memset(s, 0, sizeof(*s));
	s->context = CurrentMemoryContext;
	initStringInfo(&s->message);
	pq_beginmessage(&buf, 'W'); /* CopyBothResponse: binary, no columns */
	pq_sendbyte(&buf, 1);
	pq_sendint16(&buf, 0);
	pq_endmessage(&buf);
	pq_flush();
}

void
ent_stream_write(const char *data, size_t len)
{
	pq_putmessage('d', data, len);
	if (pq_flush() != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the peer has closed the connection")));
}

void
ent_stream_end(void)
{
	pq_putemptymessage('c');
}

/* A byte, if there is one. */
static bool
next_byte(unsigned char *c)
{
	int			r = pq_getbyte_if_available(c);

	if (r < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the peer has closed the connection")));
	return r > 0;
}

static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("malformed message from peer"),
			 errdetail_internal("%s", detail)));
}

/* The client has announced what follows. */
static void
check_head(EntStream *s, size_t max)
{
	if (s->length < sizeof(uint32))
		refuse("Its length is impossible.");
	s->length -= sizeof(uint32);
	switch (s->type)
	{
		case 'd':				/* CopyData */
			if (s->length > max)
				refuse(psprintf("It has %u bytes; at most %zu are possible.",
								s->length, max));
			break;
		case 'c':				/* CopyDone */
		case 'H':				/* Flush */
		case 'S':				/* Sync: that of the call */
			if (s->length > 0)
				refuse("Something follows where nothing may.");
			break;
		case 'X':				/* Terminate */
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("the peer has closed the connection")));
			break;
		default:
			refuse("It is none of a stream.");
	}
}

/* The head, as far as it has come; true: all of it. */
static bool
read_head(EntStream *s, size_t max)
{
	unsigned char c;

	while (s->head < HEAD)
	{
		if (!next_byte(&c))
			return false;
		if (s->head++ == 0)
			s->type = (char) c;
		else
			s->length = s->length << 8 | c;
		if (s->head == HEAD)
			check_head(s, max);
	}
	return true;
}

/*
 * Bytes that are there, at most n; 0: none. Those that PostgreSQL has read already
 * come first; the others are not read through its buffer, which would take them one
 * by one.
 */
static int
next_bytes(char *to, int n)
{
	unsigned char c;
	int			r;

	if (pq_buffer_remaining_data() > 0)
	{
		(void) next_byte(&c);
		*to = (char) c;
		return 1;
	}
	MyProcPort->noblock = true;
	r = secure_read(MyProcPort, to, n);
	if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (r <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the peer has closed the connection")));
	return r;
}

static bool
read_body(EntStream *s)
{
	while ((uint32) s->message.len < s->length)
	{
		int			left = (int) Min(s->length - (uint32) s->message.len, MAX_PIECE);
		int			n;

		enlargeStringInfo(&s->message, left);
		n = next_bytes(s->message.data + s->message.len, left);
		if (n == 0)
			return false;
		s->message.len += n;
	}
	return true;
}

static void
empty_message(EntStream *s)
{
	MemoryContext old;

	resetStringInfo(&s->message);
	if (s->message.maxlen <= MAX_IDLE)
		return;
	pfree(s->message.data);
	old = MemoryContextSwitchTo(s->context);
	initStringInfo(&s->message);
	MemoryContextSwitchTo(old);
}

bool
ent_stream_read(EntStream *s, size_t max)
{
	while (!s->ended)
	{
		if (!s->begun)
		{
			pq_startmsgread();
			s->begun = true;
			s->head = 0;
			s->length = 0;
			empty_message(s);
		}
		if (!read_head(s, max) || !read_body(s))
		{
			if (s->head == 0)
			{
				pq_endmsgread();
				s->begun = false;
			}
			return false;
		}
		pq_endmsgread();
		s->begun = false;
		s->ended = s->type == 'c';
		if (s->type == 'd')
			return true;
	}
	return false;
}

void
ent_stream_wait(long ms)
{
	WaitEvent	event;

	ModifyWaitEvent(FeBeWaitSet, FeBeWaitSetSocketPos, WL_SOCKET_READABLE, NULL);
	if (WaitEventSetWait(FeBeWaitSet, ms, &event, 1, PG_WAIT_EXTENSION) == 1 &&
		(event.events & WL_POSTMASTER_DEATH))
		proc_exit(1);
}
