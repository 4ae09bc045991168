/*
 * store/request.h
 *	  entanglement.request: changes asked of owners, and their answers.
 *
 * A row is a request at this node: made here, passing through, or for a local
 * owner to decide. Its id is the same at every node it comes to, so that it
 * is done once however often it arrives. All functions need a transaction and
 * SPI unless said otherwise.
 */
#ifndef ENT_STORE_REQUEST_H
#define ENT_STORE_REQUEST_H

#include "postgres.h"

#include "utils/uuid.h"

#define ENT_REQUEST_CHANNEL	"entanglement_requests"

/* entanglement.request.op */
#define ENT_REQUEST_OP_CREATE	'C'
#define ENT_REQUEST_OP_FORWARD	'F'
#define ENT_REQUEST_OP_DELETE	'D'

typedef struct EntRequest
{
	int64		no;
	pg_uuid_t	id;
	int32		rel;			/* 0: a table unknown here */
	int32		owner;			/* 0: an owner unknown here */
	char		op;
	bytea	   *key;			/* image; NULL: not known yet */
	int			ncolumns;
	char	  **columns;		/* names, database encoding */
	char	  **values;			/* text forms, database encoding; NULL: NULL */
	int32		peer;			/* it came from there; 0: made here */
	Oid			role;			/* who made it here, else InvalidOid */
	int64		left;			/* ms until it expires */
	bool		alone;			/* not to be joined with others */
} EntRequest;

/* What became of it. */
typedef struct EntRequestAnswer
{
	bool		accepted;
	bool		on_the_way;		/* refused before it came to the owner's home */
	pg_uuid_t	owner;			/* accepted: who decided */
	int32		epoch;			/* ... 0: given out by the next fold */
	int64		serial;
	const char *sqlstate;		/* refused */
	const char *message;
	const char *detail;			/* or NULL */
	const char *constraint;		/* or NULL */
} EntRequestAnswer;

/* Makes a request of this session's; needs no SPI. Sets q->id. */
extern void ent_request_make(EntRequest *q);
/* The latest one made in this session whose making was not rolled back. */
extern bool ent_request_last(pg_uuid_t *id);

/*
 * A request that arrived. state: waiting (to be passed on) or applied; with an
 * answer it is refused. Event at commit.
 */
extern void ent_request_store(const EntRequest *q, const char *state,
							  const EntRequestAnswer *answer);

typedef enum EntRequestKnown
{
	ENT_REQUEST_NEW,			/* never seen */
	ENT_REQUEST_OPEN,			/* under way from here */
	ENT_REQUEST_DECIDED
} EntRequestKnown;

/*
 * Has it been here before? If so it is answered to that peer, too.
 */
extern EntRequestKnown ent_request_seen(const pg_uuid_t *id, int32 peer);

/*
 * The answer to a request that we sent to that peer, or that came from there;
 * key: of the object created, or NULL. Answers nobody waits for are ignored.
 * Tells who waits here, those for whom it spoke, and all peers that have it.
 */
extern void ent_request_answered(const pg_uuid_t *id, int32 peer,
								 const EntRequestAnswer *answer, bytea *key);

/* The table in which a request that we sent to that peer creates; 0: none. */
extern int32 ent_request_creates_in(const pg_uuid_t *id, int32 peer);

/* Refuses one that is waiting here; the same consequences. */
extern void ent_request_refuse(const pg_uuid_t *id,
							   const EntRequestAnswer *answer);

/* Refuses all that wait for that owner or are under way to it. */
extern void ent_request_refuse_all(int32 owner, const EntRequestAnswer *answer);
/* Why: it is no more; it is at home here now. */
extern const EntRequestAnswer ent_request_owner_gone;
extern const EntRequestAnswer ent_request_owner_here;

/*
 * Gives applied requests the versions their objects have, when the log has been
 * read completely in this transaction's snapshot.
 */
extern void ent_request_settle(void);
/* Is there any to settle? Cheap, without SPI. */
extern bool ent_request_any_applied(void);

/*
 * Expires what was not answered in time, refuses what nobody will be asked any
 * more, removes what was kept long enough.
 */
extern void ent_request_prune(void);

#endif							/* ENT_STORE_REQUEST_H */
