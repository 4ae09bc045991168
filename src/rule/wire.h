/*
 * rule/wire.h
 *	  The bytes on the wire: every section, every field, every limit.
 *
 * Pure C. A batch is a header followed by sections; each section is a type
 * and a length followed by its payload. Integers are LEB128 varints (zigzag
 * where signed). Every length and count is checked against the limits below
 * before anything is allocated or copied; a reader that has failed stays
 * failed and yields zeros. docs/protocol.md has the byte tables.
 */
#ifndef ENT_RULE_WIRE_H
#define ENT_RULE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENT_WIRE_MAGIC			0xE7	/* first byte of a batch */
#define ENT_WIRE_VERSION		1		/* of this software */
#define ENT_WIRE_MIN_VERSION	1		/* oldest it can speak to */

/* Limits, all checked by the reader; see docs/protocol.md */
#define ENT_WIRE_MAX_BATCH		(512u * 1024 * 1024)	/* bytes of a batch */
#define ENT_WIRE_MAX_VALUE		(256u * 1024 * 1024)	/* bytes of a value */
#define ENT_WIRE_MAX_KEY		8000	/* bytes of a key image */
#define ENT_WIRE_MAX_NAME		252		/* bytes of a name in UTF-8 */
#define ENT_WIRE_MAX_TEXT		1000	/* bytes of a message for people */
#define ENT_WIRE_MAX_COLUMNS	1600	/* columns of a table */
#define ENT_WIRE_MAX_KEYS		32		/* columns of a key */
#define ENT_WIRE_MAX_TABLES		100000	/* greatest number of a table */
#define ENT_WIRE_MAX_OWNERS		1000000 /* greatest number of an owner */
#define ENT_WIRE_MAX_PRESENT	10000	/* keys of a PRESENT section */
/* bytes of a column set */
#define ENT_WIRE_MAX_SET		((ENT_WIRE_MAX_COLUMNS + 7) / 8)
#define ENT_WIRE_MAX_REQUESTS	1000	/* in a batch */
#define ENT_WIRE_MAX_GONE		1000	/* likewise */
#define ENT_WIRE_MAX_FILTER		8192	/* bytes of a filter */
#define ENT_WIRE_MAX_RANGES		256		/* of all COMPAREs of a message, which are at
										 * most as many */
#define ENT_WIRE_MAX_PARTS		32		/* of a DIGEST */
#define ENT_WIRE_MAX_EPOCH		INT32_MAX
#define ENT_WIRE_MAX_ANCESTORS	8	/* earlier epochs that one goes on from */
#define ENT_WIRE_MAX_DISTANCE	INT32_MAX
#define ENT_WIRE_MAX_SERIAL		INT64_MAX

/*
 * Sections. Types with ENT_SECTION_OPTIONAL set may be skipped by a reader
 * that does not know them; an unknown one without it ends the link.
 */
#define ENT_SECTION_OPTIONAL	0x40
typedef enum EntSectionType
{
	ENT_SECTION_HELLO = 1,		/* who speaks; first on each connection */
	ENT_SECTION_OWNER = 2,		/* sender knows an owner */
	ENT_SECTION_TABLE = 3,		/* sender numbers a table */
	ENT_SECTION_OBJECTS = 4,	/* rows of one table and owner */
	ENT_SECTION_CLAIM = 5,		/* sender: you now have an owner up to */
	ENT_SECTION_ARREARS_DONE = 6,	/* sender: that table is complete now */
	ENT_SECTION_PRESENT = 7,	/* sender: these keys, and no others, live in
								 * this range */
	ENT_SECTION_WANT = 8,		/* receiver: send me that owner from here on */
	ENT_SECTION_ARREARS = 9,	/* receiver: send me that owner's table anew */
	ENT_SECTION_TABLE_STATE = 10,	/* receiver: I have (not) that table */
	ENT_SECTION_AGAIN = 11,		/* receiver: send me that object in full */
	ENT_SECTION_NUDGE = 12 | ENT_SECTION_OPTIONAL,	/* call me on the other
													 * connection */
	ENT_SECTION_REQUEST = 13,	/* towards an owner: may this be done? */
	ENT_SECTION_RESPONSE = 14,	/* from there: what became of it */
	ENT_SECTION_CLAIM_GAPS = 15,	/* as CLAIM, but some of it comes later */
	ENT_SECTION_CONFIRM = 17,	/* receiver: has an object that was handed over
								 * died since? */
	ENT_SECTION_SEEK = 16 | ENT_SECTION_OPTIONAL,	/* receiver: offer me that
													 * owner when you have more */
	ENT_SECTION_SUBSCRIBE = 18, /* receiver: of your tables I want these */
	ENT_SECTION_FILTER_STATE = 19 | ENT_SECTION_OPTIONAL,	/* sender: what became
															 * of such a wish */
	ENT_SECTION_FRAGMENT = 20,		/* of an OBJECTS section that is too large to go
								 * at once */
	ENT_SECTION_KEPT = 21 | ENT_SECTION_OPTIONAL,	/* receiver: when all was compared I
													 * had a newer version */
	ENT_SECTION_GONE = 24,		/* sender: that owner is no more */
	ENT_SECTION_HOMES = 25,		/* sender: these were all at home with me */
	ENT_SECTION_COMPARE = 32,	/* who verifies: what do you have of this table? */
	ENT_SECTION_DIGEST = 33,	/* how many rows, and their sum */
} EntSectionType;

typedef enum EntWireError
{
	ENT_WIRE_OK = 0,
	ENT_WIRE_TRUNCATED,			/* a field runs past the end */
	ENT_WIRE_OVERFLOW,			/* a number does not fit its field */
	ENT_WIRE_LIMIT,				/* a limit above is exceeded */
	ENT_WIRE_MALFORMED,			/* a value that has no meaning */
	ENT_WIRE_BAD_MAGIC,			/* not a batch at all */
	ENT_WIRE_ERRORS				/* how many there are */
} EntWireError;

/* What an error means, for people; never NULL. */
extern const char *ent_wire_error_text(EntWireError error);

/*
 * Memory comes through one seam. grow(ctx, old, size) behaves like realloc
 * and never returns NULL (it raises or aborts instead).
 */
typedef struct EntWireAllocator
{
	void	   *(*grow) (void *ctx, void *old, size_t size);
	void	   *ctx;
} EntWireAllocator;

/* ---- writing ---- */

typedef struct EntWriter
{
	uint8_t    *data;
	size_t		len;
	size_t		cap;
	EntWireAllocator alloc;
} EntWriter;

/*
 * Starts an empty buffer; data is grown through alloc and belongs to it. The
 * writer checks no limits: what is given must keep them.
 */
extern void ent_wire_writer_init(EntWriter *w, EntWireAllocator alloc);
/* Bytes of v at buf, which holds ENT_WIRE_MAX_VARINT; returns how many. */
#define ENT_WIRE_MAX_VARINT		10
extern size_t ent_wire_encode_varint(uint8_t *buf, uint64_t v);
extern void ent_wire_write_u8(EntWriter *w, uint8_t v);
extern void ent_wire_write_varint(EntWriter *w, uint64_t v);
extern void ent_wire_write_zigzag(EntWriter *w, int64_t v);
extern void ent_wire_write_raw(EntWriter *w, const void *data, size_t len);
/* varint length, then the bytes */
extern void ent_wire_write_bytes(EntWriter *w, const void *data, size_t len);
extern void ent_wire_write_string(EntWriter *w, const char *s);
/*
 * Sections: open writes the type (one byte) and reserves room for the length;
 * close, given what open returned, fills it in (moving the payload so that
 * the length takes as few bytes as it needs). Sections do not nest. To take
 * back an open section, set w->len to the mark.
 */
extern size_t ent_wire_open_section(EntWriter *w, EntSectionType type);
extern void ent_wire_close_section(EntWriter *w, size_t mark);

/* ---- reading ---- */

typedef struct EntReader
{
	const uint8_t *p;
	const uint8_t *end;
	EntWireError error;			/* sticky */
} EntReader;

/* More than ENT_WIRE_MAX_BATCH bytes fail at once. */
extern void ent_wire_reader_init(EntReader *r, const void *data, size_t len);
/* The first error stays. */
extern void ent_wire_fail(EntReader *r, EntWireError error);
extern uint8_t ent_wire_read_u8(EntReader *r);
/*
 * At most ten bytes; more than 64 bits are ENT_WIRE_OVERFLOW, and a number
 * written longer than it needs is ENT_WIRE_MALFORMED.
 */
extern uint64_t ent_wire_read_varint(EntReader *r);
/* a varint that must not exceed max, else ENT_WIRE_LIMIT */
extern uint64_t ent_wire_read_bounded(EntReader *r, uint64_t max);
extern int64_t ent_wire_read_zigzag(EntReader *r);
/* Points into the batch, or NULL after an error. */
extern const uint8_t *ent_wire_read_raw(EntReader *r, size_t len);
/*
 * varint length <= max and the bytes, pointing into the batch; NULL and 0
 * after an error, never NULL otherwise
 */
extern const uint8_t *ent_wire_read_bytes(EntReader *r, size_t max,
										  size_t *len);
/*
 * A string of at most max bytes without NUL bytes, copied with a terminating
 * NUL into buf, which holds max + 1 bytes.
 */
extern void ent_wire_read_string(EntReader *r, char *buf, size_t max);
/* A serial: a varint in 0 .. INT64_MAX. */
extern int64_t ent_wire_read_serial(EntReader *r);
/*
 * Next section: false at the end or after an error. *type is the raw type;
 * *body covers the payload and *r stands behind it.
 */
extern bool ent_wire_read_section(EntReader *r, unsigned *type,
								  EntReader *body);
static inline bool
ent_wire_at_end(const EntReader *r)
{
	return r->error != ENT_WIRE_OK || r->p >= r->end;
}

/*
 * ---- the batch header: magic, version, flags, batch number, heard ----
 *
 * Several batches may be on their way. heard is there, as the difference to
 * number - 1, when it is not that. Flags unknown to version 1 are refused in a batch of version 1. Another
 * version is for the caller to judge: a hello can be read in all of them.
 */

typedef struct EntWireHeader
{
	unsigned	version;
	unsigned	flags;			/* ENT_HEADER_..., in version 1 filled in by write */
	uint64_t	number;			/* counts batches of this connection from 1; an
								 * answer repeats the number it answers */
	uint64_t	heard;			/* of a batch: its sender has had the answers up
								 * to this one, < number; of others: no meaning */
} EntWireHeader;

#define ENT_HEADER_HEARD	0x01	/* heard follows */

extern void ent_wire_write_header(EntWriter *w, const EntWireHeader *h);
extern void ent_wire_read_header(EntReader *r, EntWireHeader *h);

/*
 * ---- sections: every write beside its read ----
 *
 * ent_wire_write_<section> writes a whole section, type and length included.
 * Some are open-ended instead, because more follows: ent_wire_write_objects,
 * _present, _homes, _request, _response and _subscribe write the fields at the start of a
 * section that the caller opened and will close, after the rows, keys, ids or
 * columns.
 * NUDGE has no payload. ent_wire_read_<section> reads the fields from the body
 * that ent_wire_read_section gave; bytes behind them are left to the caller.
 * What a failed read leaves in its result are zeros and empty strings from
 * the failing field on: look at r->error before using any of it.
 */

typedef struct EntWireUuid
{
	uint8_t		bytes[16];
} EntWireUuid;

typedef struct EntWireHello
{
	unsigned	max_version;	/* newest protocol version spoken */
	unsigned	min_version;	/* oldest */
	EntWireUuid node;
	char		name[ENT_WIRE_MAX_NAME + 1];
	char		software[ENT_WIRE_MAX_NAME + 1];	/* "entanglement 0.1.0" */
} EntWireHello;

extern void ent_wire_write_hello(EntWriter *w, const EntWireHello *h);
extern void ent_wire_read_hello(EntReader *r, EntWireHello *h);

/* Versions of that epoch, up to that serial, are versions of a later one as well. */
typedef struct EntWireAncestor
{
	uint32_t	epoch;
	int64_t		serial;
} EntWireAncestor;

typedef struct EntWireOwner
{
	uint32_t	number;			/* the sender's, on this link; repeated adverts
								 * of an owner reuse it */
	EntWireUuid id;
	EntWireUuid home;			/* node it is at home on */
	char		name[ENT_WIRE_MAX_NAME + 1];
	uint32_t	epoch;
	int64_t		serial;			/* how far the sender has come */
	uint32_t	distance;		/* links from the sender to the home, 0: here */
	bool		lost;			/* the sender does not get to the home now */
	bool		partial;		/* the sender, or a node behind it, gives some of its
								 * objects only */
	unsigned	nancestors;
	EntWireAncestor ancestors[ENT_WIRE_MAX_ANCESTORS];	/* of the epoch; newest
														 * first */
} EntWireOwner;

extern void ent_wire_write_owner(EntWriter *w, const EntWireOwner *o);
extern void ent_wire_read_owner(EntReader *r, EntWireOwner *o);

typedef enum EntWireFormat
{
	ENT_FORMAT_TEXT = 0,		/* the type's output function */
	ENT_FORMAT_BINARY = 1		/* the type's send function */
} EntWireFormat;

typedef struct EntWireColumn
{
	char		name[ENT_WIRE_MAX_NAME + 1];
	char		type_schema[ENT_WIRE_MAX_NAME + 1]; /* of the base type when
													 * binary */
	char		type_name[ENT_WIRE_MAX_NAME + 1];
	EntWireFormat format;
	unsigned	key;			/* 1-based position in the key, 0: not in it */
	bool		in_key_only;	/* value travels in the key and is not repeated */
} EntWireColumn;

typedef struct EntWireTable
{
	uint32_t	number;			/* the sender's, on this link; a new section
								 * with the same number replaces the old */
	char		schema[ENT_WIRE_MAX_NAME + 1];
	char		name[ENT_WIRE_MAX_NAME + 1];
	unsigned	ncolumns;
	unsigned	nkeys;
	EntWireColumn *columns;		/* ncolumns of them */
} EntWireTable;

extern void ent_wire_write_table(EntWriter *w, const EntWireTable *t);
/*
 * Columns come from alloc, after the counts were checked against what the
 * bytes left can hold. Refused: a table without key, key positions that are
 * not exactly 1 .. nkeys, empty names. When it fails, ncolumns is 0; columns
 * is NULL or still the caller's to release.
 */
extern void ent_wire_read_table(EntReader *r, EntWireTable *t,
								EntWireAllocator alloc);

/*
 * OBJECTS: table number, owner number, epoch, then rows to the section's end.
 * A row is: flags and operation (one byte), serial (zigzag difference from
 * the row before; the first from 0), key; for a delta: serial minus base, and
 * the column set (a bitmap with a length in bytes, bit i is column i of the
 * table's announcement); with HEIR: the heir's id, an epoch and a serial; likewise
 * with FROM; for
 * full and delta: the values, in announcement
 * order, of the columns of the set (full: all that are not in_key_only), each
 * as varint length + 1 then the bytes, or 0 for NULL.
 */
typedef enum EntRowOp
{
	ENT_ROW_DELETE = 0,			/* the owner deleted it */
	ENT_ROW_DELTA = 1,			/* these columns, on any copy >= base */
	ENT_ROW_FULL = 2,			/* all columns */
	ENT_ROW_WITHDRAW = 3,		/* not to be had from the sender any more; it may
								 * live on: without serial and flags */
	ENT_ROW_OPS
} EntRowOp;

#define ENT_ROW_OP_MASK		0x03
#define ENT_ROW_REFRESH		0x04	/* apply even if the copy has that serial
									 * already (arrears, again) */
#define ENT_ROW_LATE		0x08	/* with REFRESH: answers AGAIN or a debt, pass
									 * on to peers that are ahead of it */
#define ENT_ROW_HEIR		0x10	/* no delta: the object is another owner's from
									 * now on; full: with what it was last,
									 * delete: the receiver keeps what it has */
#define ENT_ROW_FROM		0x20	/* delete, or with HEIR: the owner had got the
									 * object from another one */
#define ENT_ROW_AHEAD		0x40	/* delta or full, without HEIR: of a change that
									 * has no serial yet some is in it */

typedef struct EntWireObjects
{
	uint32_t	table;
	uint32_t	owner;
	uint32_t	epoch;
} EntWireObjects;

extern void ent_wire_write_objects(EntWriter *w, const EntWireObjects *o);
extern void ent_wire_read_objects(EntReader *r, EntWireObjects *o);

typedef struct EntWireRow
{
	EntRowOp	op;
	unsigned	flags;			/* ENT_ROW_... */
	int64_t		serial;
	int64_t		base;			/* delta: oldest copy it fits on */
	const uint8_t *key;			/* reading: points into the batch */
	size_t		keylen;
	const uint8_t *set;			/* delta: column set */
	size_t		setlen;			/* bytes */
	EntWireUuid heir;			/* with ENT_ROW_HEIR: the new owner, */
	uint32_t	heir_epoch;		/* ... whose first version is newer than this */
	int64_t		heir_serial;
	EntWireUuid from;			/* with ENT_ROW_FROM: the owner before, */
	uint32_t	from_epoch;		/* ... and his version that said so */
	int64_t		from_serial;
} EntWireRow;

/* *last is the serial of the row before in the section (0 at its start). */
extern void ent_wire_write_row(EntWriter *w, const EntWireRow *row,
							   int64_t *last);
extern void ent_wire_read_row(EntReader *r, EntWireRow *row, int64_t *last);
static inline bool
ent_wire_in_set(const uint8_t *set, size_t setlen, unsigned column)
{
	return column / 8 < setlen && (set[column / 8] >> (column % 8)) & 1;
}

/*
 * value: NULL data means SQL NULL. Reading: points into the batch; NULL with
 * *isnull set and *len 0 for SQL NULL and after an error.
 */
extern void ent_wire_write_value(EntWriter *w, const void *data, size_t len);
extern const uint8_t *ent_wire_read_value(EntReader *r, size_t *len,
										  bool *isnull);

typedef struct EntWireClaim
{
	uint32_t	owner;
	uint32_t	epoch;
	int64_t		serial;			/* all you may see up to here has been sent */
} EntWireClaim;

/*
 * type: ENT_SECTION_CLAIM or ENT_SECTION_CLAIM_GAPS, or ENT_SECTION_SEEK, where
 * it is the receiver that asks for an offer of more than that, or ENT_SECTION_KEPT,
 * where it has an object in that version, which the home knows in an older one
 */
extern void ent_wire_write_claim(EntWriter *w, EntSectionType type,
								 const EntWireClaim *c);
extern void ent_wire_read_claim(EntReader *r, EntWireClaim *c);

/*
 * FRAGMENT: bytes of a whole OBJECTS section, type and length included, of that
 * owner. They follow to the section's end. offset 0 begins a new one: what was
 * begun before and is not complete is no more. At most ENT_WIRE_MAX_BATCH in all.
 */
typedef struct EntWireFragment
{
	uint32_t	owner;
	uint64_t	total;			/* bytes of the section, at least 1 */
	uint64_t	offset;			/* of these within it, less than total */
} EntWireFragment;

extern void ent_wire_write_fragment(EntWriter *w, const EntWireFragment *p,
								const void *bytes, size_t len);
extern void ent_wire_read_fragment(EntReader *r, EntWireFragment *p);

/* ARREARS (receiver asks) and ARREARS_DONE (sender confirms) */
typedef struct EntWireArrears
{
	uint32_t	owner;
	uint32_t	table;
} EntWireArrears;

extern void ent_wire_write_arrears(EntWriter *w, EntSectionType type,
								   const EntWireArrears *a);
extern void ent_wire_read_arrears(EntReader *r, EntWireArrears *a);

/*
 * PRESENT: of an owner's objects in a table whose key image k satisfies
 * lo < k (when has_lo) and k <= hi (when has_hi), compared as bytes, exactly
 * the keys listed live with a serial <= serial; the receiver deletes others it
 * holds with a serial <= serial. Keys follow to the section's end, each as
 * bytes.
 */
typedef struct EntWirePresent
{
	uint32_t	owner;
	uint32_t	table;
	int64_t		serial;
	bool		has_lo,
				has_hi;
	const uint8_t *lo;
	size_t		lolen;
	const uint8_t *hi;
	size_t		hilen;
} EntWirePresent;

extern void ent_wire_write_present(EntWriter *w, const EntWirePresent *p);
extern void ent_wire_read_present(EntReader *r, EntWirePresent *p);

typedef struct EntWireWant
{
	uint32_t	owner;			/* the number the sender gave it */
	bool		wanted;			/* false: I have a better route or it is mine */
	uint32_t	epoch;			/* of the have; 0: never heard of it */
	int64_t		have;
} EntWireWant;

extern void ent_wire_write_want(EntWriter *w, const EntWireWant *x);
extern void ent_wire_read_want(EntReader *r, EntWireWant *x);

typedef struct EntWireTableState
{
	uint32_t	table;
	bool		known;			/* false: do not send its objects */
} EntWireTableState;

extern void ent_wire_write_table_state(EntWriter *w,
									   const EntWireTableState *s);
extern void ent_wire_read_table_state(EntReader *r, EntWireTableState *s);

typedef struct EntWireAgain
{
	uint32_t	table;
	uint32_t	owner;
	const uint8_t *key;
	size_t		keylen;
} EntWireAgain;

extern void ent_wire_write_again(EntWriter *w, const EntWireAgain *a);
extern void ent_wire_read_again(EntReader *r, EntWireAgain *a);

/* An object that was handed over, of which its new owner has not told yet. */
typedef struct EntWireConfirm
{
	EntWireAgain object;
	uint32_t	epoch;			/* the version it has meanwhile */
	int64_t		serial;
	EntWireUuid from;			/* who handed it over, */
	uint32_t	from_epoch;		/* ... and his version that said so */
	int64_t		from_serial;
} EntWireConfirm;

extern void ent_wire_write_confirm(EntWriter *w, const EntWireConfirm *c);
extern void ent_wire_read_confirm(EntReader *r, EntWireConfirm *c);

/*
 * SUBSCRIBE: all that the receiver wishes, instead of what it wished before.
 * Wishes follow to the section's end, one for a table at most.
 */
typedef struct EntWireSubscribe
{
	bool		selective;		/* no other tables than those that follow */
} EntWireSubscribe;

extern void ent_wire_write_subscribe(EntWriter *w, const EntWireSubscribe *s);
extern void ent_wire_read_subscribe(EntReader *r, EntWireSubscribe *s);

typedef struct EntWireWish
{
	uint32_t	table;			/* the number the sender gave it */
	int64_t		round;			/* of the wish, for FILTER_STATE; any serial */
	const uint8_t *filter;		/* UTF-8, no NUL; NULL: every row. Reading: points
								 * into the batch */
	size_t		len;
} EntWireWish;

extern void ent_wire_write_wish(EntWriter *w, const EntWireWish *wish);
extern void ent_wire_read_wish(EntReader *r, EntWireWish *wish);

typedef struct EntWireFilterState
{
	uint32_t	table;
	int64_t		round;
	char		sqlstate[6];	/* five of 0-9 and A-Z; 00000: it is in force */
	char		message[ENT_WIRE_MAX_TEXT + 1];
} EntWireFilterState;

extern void ent_wire_write_filter_state(EntWriter *w,
										const EntWireFilterState *s);
extern void ent_wire_read_filter_state(EntReader *r, EntWireFilterState *s);

/*
 * REQUEST: a change asked of an owner. The fields are followed by the key's
 * columns and then by the columns to be set, nkeys + ncolumns of them, each a
 * name and a value; values are the types' text form, NULL for SQL NULL. A
 * request travels by names, not by numbers: who passes it on need not have
 * announced the table. ent_wire_write_request and ent_wire_write_response are
 * open-ended, as ent_wire_write_objects is; their reads refuse counts that the
 * bytes left cannot hold, so that room may be made for all fields at once.
 */
typedef enum EntWireOperation
{
	ENT_REQUEST_CREATE = 0,		/* a new object; a key it should have is among
								 * the columns */
	ENT_REQUEST_FORWARD = 1,	/* these columns of an object that exists */
	ENT_REQUEST_DELETE = 2,		/* no columns */
	ENT_REQUEST_OPERATIONS
} EntWireOperation;

typedef struct EntWireRequest
{
	EntWireUuid id;				/* the same all the way */
	EntWireUuid owner;
	EntWireOperation op;
	uint64_t	left;			/* ms until it expires */
	char		schema[ENT_WIRE_MAX_NAME + 1];
	char		table[ENT_WIRE_MAX_NAME + 1];
	unsigned	nkeys;			/* 0 when it creates, and only then */
	unsigned	ncolumns;		/* 0 when it deletes */
} EntWireRequest;

extern void ent_wire_write_request(EntWriter *w, const EntWireRequest *q);
extern void ent_wire_read_request(EntReader *r, EntWireRequest *q);

/* One column of a request or a response. Reading: points into the batch. */
typedef struct EntWireField
{
	char		name[ENT_WIRE_MAX_NAME + 1];
	const uint8_t *value;		/* NULL: SQL NULL */
	size_t		len;
} EntWireField;

extern void ent_wire_write_field(EntWriter *w, const EntWireField *f);
extern void ent_wire_read_field(EntReader *r, EntWireField *f);

/* RESPONSE: the key's columns, nkeys of them, follow. */
typedef struct EntWireResponse
{
	EntWireUuid id;				/* of the request */
	bool		accepted;
	bool		on_the_way;		/* refused, but not by the owner's home: it may
								 * have come there another way */
	EntWireUuid owner;			/* accepted: who decided, and */
	uint32_t	epoch;			/* ... the version that carries the result */
	int64_t		serial;
	char		sqlstate[6];	/* refused: five of 0-9 and A-Z */
	char		message[ENT_WIRE_MAX_TEXT + 1];
	char		detail[ENT_WIRE_MAX_TEXT + 1];	/* empty: none */
	char		constraint[ENT_WIRE_MAX_NAME + 1];	/* empty: none */
	unsigned	nkeys;			/* accepted: of the object created, else 0 */
} EntWireResponse;

extern void ent_wire_write_response(EntWriter *w, const EntWireResponse *s);
extern void ent_wire_read_response(EntReader *r, EntWireResponse *s);

/* GONE: an owner, by id: it need not have been announced. */
typedef struct EntWireGone
{
	EntWireUuid id;
	EntWireUuid home;			/* where it was at home at the end */
	uint32_t	epoch;			/* its last one, at least 1 */
} EntWireGone;

extern void ent_wire_write_gone(EntWriter *w, const EntWireGone *g);
extern void ent_wire_read_gone(EntReader *r, EntWireGone *g);

/*
 * HOMES: after the adverts of a new connection. Ids of owners follow, to the
 * section's end: those known that are at home elsewhere and were not offered
 * only because there is no way to them.
 */
typedef struct EntWireHomes
{
	uint32_t	here;			/* owners offered so far as at home here */
} EntWireHomes;

extern void ent_wire_write_homes(EntWriter *w, const EntWireHomes *h);
extern void ent_wire_read_homes(EntReader *r, EntWireHomes *h);
extern void ent_wire_write_elsewhere(EntWriter *w, const EntWireUuid *id);
extern void ent_wire_read_elsewhere(EntReader *r, EntWireUuid *id);

/*
 * COMPARE: the columns' names follow (ent_wire_read_string), ncolumns of them,
 * and then ranges to the section's end; without any, each owner's total is
 * asked for. Open-ended, as is DIGEST.
 */
typedef struct EntWireCompare
{
	char		schema[ENT_WIRE_MAX_NAME + 1];
	char		table[ENT_WIRE_MAX_NAME + 1];
	unsigned	ncolumns;		/* what the sum is made of, in this order */
} EntWireCompare;

extern void ent_wire_write_compare(EntWriter *w, const EntWireCompare *c);
extern void ent_wire_read_compare(EntReader *r, EntWireCompare *c);

/* Keys lo < k <= hi of an owner's objects, to be divided. */
typedef struct EntWireRange
{
	EntWireUuid owner;
	bool		has_lo,
				has_hi;
	const uint8_t *lo;
	size_t		lolen;
	const uint8_t *hi;
	size_t		hilen;
	uint64_t	each;			/* rows of a part, at least 1 */
} EntWireRange;

extern void ent_wire_write_range(EntWriter *w, const EntWireRange *range);
extern void ent_wire_read_range(EntReader *r, EntWireRange *range);

/*
 * DIGEST: parts to the section's end, by rising keys. A part begins behind
 * the last key of the one before; the last one reaches to the range's end.
 */
typedef struct EntWireDigest
{
	uint32_t	compare;		/* which COMPARE it answers, from 0 on */
	uint32_t	range;			/* which of its ranges; of totals 0 */
	EntWireUuid owner;			/* zeros: nobody's rows */
} EntWireDigest;

extern void ent_wire_write_digest(EntWriter *w, const EntWireDigest *d);
extern void ent_wire_read_digest(EntReader *r, EntWireDigest *d);

/* A sum modulo 2^128 of the rows' hashes. */
typedef struct EntWireSum
{
	uint64_t	high;
	uint64_t	low;
} EntWireSum;

static inline void
ent_wire_sum_add(EntWireSum *sum, EntWireSum more)
{
	sum->low += more.low;
	sum->high += more.high + (sum->low < more.low);
}

typedef struct EntWirePart
{
	uint64_t	count;			/* 0: nothing else is told */
	bool		unfolded;		/* a row has changed, and has no version for it */
	const uint8_t *first;		/* keys; the same if count is 1 */
	size_t		firstlen;
	const uint8_t *last;
	size_t		lastlen;
	uint32_t	epoch;			/* of the oldest version among them */
	int64_t		serial;
	EntWireSum	sum;
} EntWirePart;

extern void ent_wire_write_part(EntWriter *w, const EntWirePart *part);
extern void ent_wire_read_part(EntReader *r, EntWirePart *part);

#endif							/* ENT_RULE_WIRE_H */
