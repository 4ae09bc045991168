/*
 * link/outbound_private.h
 *	  What the files of the sending end share: outbound.c (life, ring, batch),
 *	  outscan.c (adverts, catching up), outprogress.c (how far that is),
 *	  outdata.c (objects), outstates.c (which states went), outfragment.c
 *	  (objects in fragments), outflight.c (what is in flight), outclaim.c
 *	  (claims), outtogether.c (what goes as of one cut),
 *	  outpartial.c (which owners come in part),
 *	  outpresent.c (which keys live), outresend.c (tables to be sent anew),
 *	  outshow.c (what the peer may see), outconfirm.c (objects handed over),
 *	  outrequest.c (requests),
 *	  outresponse.c (their answers), outanswer.c (what the receiver answers),
 *	  outlife.c (owners that are no more), outsubscribe.c (what is wanted).
 */
#ifndef ENT_LINK_OUTBOUND_PRIVATE_H
#define ENT_LINK_OUTBOUND_PRIVATE_H

#include "postgres.h"

#include "lib/ilist.h"
#include "nodes/bitmapset.h"
#include "utils/hsearch.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "guard/show.h"
#include "link/outbound.h"
#include "rule/queue.h"
#include "rule/wire.h"
#include "store/owner.h"
#include "store/relinfo.h"

/* In the flags of a queue entry: the peer has asked for it by its key. */
#define ENT_OUT_ASKED	0x100
/* ... it is one of those that a long scan has counted. */
#define ENT_OUT_COPY	0x200

/*
 * A batch that has been built, or is being built, and what its answer will
 * settle. Answers come in the order of the batches.
 */
typedef struct EntOutFlight
{
	dlist_node	node;
	uint64		number;
	uint64		asked;			/* slot->asked when it was built */
	bool		arrears;		/* it says that a table is complete */
	uint64		min_position;	/* least position of what it carries */
	int64		oldest;			/* least stale_at of what it carries */
	List	   *late;			/* of EntOutLate *: debts */
	List	   *handed;			/* of EntOutLate *: brought for local owners to heirs
								 * elsewhere */
	List	   *forgotten;		/* of EntOutLate *: not held by the peer any more */
	List	   *claims;			/* of EntOutClaimed * */
	List	   *resent;			/* of EntOutResent *: tables to their end */
	List	   *told;			/* of pg_uuid_t *: answers */
	List	   *graves;			/* of EntGrave * */
} EntOutFlight;

/* A statement that may be made once all entries up to position have gone. */
typedef struct EntOutClaim
{
	int64		serial;			/* 0: none */
	uint64		position;
} EntOutClaim;

typedef struct EntOutRange EntOutRange;

/* An owner advertised to the peer; number on the wire: owner.no. */
typedef struct EntOutOwner
{
	int32		no;				/* hash key */
	uint32		digest;			/* of the advert as last sent */
	bool		offered;		/* ... which says that we get to the home or not,
								 * but not that we take it from the peer */
	int32		distance;		/* as last sent */
	int32		sought_epoch;	/* the peer seeks an offer beyond this; 0: none */
	int64		sought_serial;
	bool		sought;			/* to be looked at: has just come */
	TimestampTz passed_on_at;	/* when such a wish was last passed on */
	bool		answered;		/* the peer has said whether it wants it */
	bool		wanted;
	bool		withheld;		/* we are in arrears: no claims */
	bool		scanning;		/* catching up from the object table */
	int32		epoch;
	int64		floor;			/* scanning: the peer had all up to here */
	int64		scanned;		/* scanning: objects up to here are queued */
	bool		counted;		/* scanning: for entanglement.progress */
	int64		counted_to;		/* ... up to here, until the peer has all; a scan
								 * that begins anew counts those behind it */
	uint64		position;		/* scanning: ring position noted at its start */
	uint64		run_position;	/* scanning: of the first event since then that told of
								 * new objects, 0: none has; */
	int64		run_since;		/* ... they are behind this serial */
	EntOutRange *sent;	/* versions sent since ent_outbound_start_scan, by */
	int			nsent;			/* ... rising serial */
	int			maxsent;
	int64		claimed;		/* the peer has it up to here (acknowledged) */
	int64		claiming_serial;	/* greatest in flight, 0: none */
	bool		unsaved;		/* claimed is newer than peer_owner says */
	bool		claiming;		/* is in EntOutbound.claiming */
	bool		gapped;			/* the last claim had gaps, as far as is known */
	bool		there;			/* the owner exists (at the last advertising) */
	bool		partial;		/* so offered: it gives or gets some objects only */
	bool		lost_history;	/* this peer has had it start a new epoch */
	EntOutClaim current;		/* next to be made */
	EntOutClaim next;			/* newest wish after that */
	dlist_node	node;
} EntOutOwner;

/* A table announced to the peer; number on the wire: relation.no. */
typedef struct EntOutTable
{
	int32		no;				/* hash key */
	uint32		digest;			/* of the announcement as last sent */
	bool		announced;
	bool		named;			/* ... at some time on this connection */
	bool		withheld;		/* the role may not see it */
	bool		known;			/* the peer has such a table */
	int32		priority;
	bool		integrity;
	int			ncolumns;
	bool	   *may;			/* by column: announced */
	uint64		generation;		/* of the EntRelation may belongs to */
	int64		told_round;		/* the wish of which the peer was told last ... */
	char		told_state[6];	/* ... what became of it; round 0: of none */
	bool		told;			/* it has been, or there is nothing to tell */
	char	   *told_message;	/* likewise, or is to be; may be NULL */
	bool		partial;		/* what the peer holds is remembered */
	bool		nothing;		/* it may see nothing any more, and is told so */
	bool		idle;			/* it wants nothing of it, and holds nothing */
	bool		ended;			/* it has been shown, and is not any more */
	bool		unknown;		/* it has said that it has no such table */
	char	   *filter;			/* SQL, ANDed to what is read; NULL: none */
	bool		filter_failed;	/* on some row, which was reported */
	int64		copied;			/* of what long scans have counted */
	int64		to_copy;		/* ... in all; 0: none is under way */
	TimestampTz copying_since;
	uint64		show_version;	/* of what all this was derived from */
} EntOutTable;

/* An owner's table that is sent anew. */
typedef struct EntOutArrears
{
	dlist_node	node;
	int32		owner;
	int32		rel;
	bool		resend;			/* not, or not only, because the peer wants it: */
	int64		round;			/* that of our note */
	bool		review;			/* only what it has gained or lost sight of */
	int64		scanned;
	uint64		position;
	bool		queued;			/* scanned to the end: confirm when sent */
	bool		counted;		/* for entanglement.progress */
} EntOutArrears;

/* Tombstones the peer needed are gone: tell which keys of a table live. */
typedef struct EntOutPresent
{
	dlist_node	node;
	int32		owner;
	int32		rel;
	bytea	   *lo;				/* listed up to here, NULL: from the start */
	bytea	   *seen;			/* looked at up to here, NULL: up to lo */
	int64		serial;			/* least of the snapshots between the two */
	/* where local images are not in the order of the wire's: all of them, in */
	MemoryContext sorted_context;	/* that order, as they were at serial */
	bytea	  **sorted;
	int			nsorted;
	int			next;			/* to be looked at */
} EntOutPresent;

/* An object that goes in fragments, encoded when the first of them went. */
typedef struct EntOutTransit
{
	EntQueueEntry entry;		/* as it was taken from the queue; key palloc'd */
	EntOutFlight *flight;		/* what the answer to the last fragment settles */
	uint8	   *data;			/* one byte, then the section: */
	size_t		len;
	size_t		sent;
	uint64		generation;		/* of the table, and */
	uint64		show_version;	/* ... of what the peer may see, when encoded */
	int32		epoch;			/* of the owner, likewise */
} EntOutTransit;

struct EntOutbound
{
	MemoryContext context;
	int32		peer;
	Oid			role;
	EntPeerSlot *slot;
	EntQueue   *queue;
	EntQueue   *together;		/* of tables with integrity: what is in it goes
								 * as of one cut */
	EntQueue   *large;			/* too large to go at once: in fragments, one after the
								 * other */
	EntQueue   *behind;			/* the object in transit, and what has its key: wait
								 * for it */
	EntOutTransit *transit;		/* or NULL */
	uint64		round;			/* of asking for cuts: what was queued in an
								 * earlier one is in the cut */
	uint64		cut_ticket;		/* of the cut asked for, 0: none */
	uint64		cut_position;	/* in the ring, when it was asked for */
	TimestampTz cut_at;			/* likewise */
	HTAB	   *owners;			/* EntOutOwner */
	HTAB	   *tables;			/* EntOutTable */
	Bitmapset  *withheld;		/* owners that the last adverts left out, since they
								 * come from the peer, or nobody gets to them */
	dlist_head	claiming;		/* owners with a claim to make */
	dlist_head	arrears;		/* EntOutArrears */
	dlist_head	presents;		/* EntOutPresent */
	TimestampTz claimed_at;		/* when claims last went out */
	TimestampTz gaps_at;		/* when closed gaps were last looked for */
	TimestampTz saved_at;		/* when haves were last saved */

	uint64		ring_position;	/* read up to here */
	uint64		routes;			/* counter when adverts were last due */
	uint64		tables_version; /* of relinfo at that time */
	uint64		show_version;	/* of what peers may see, likewise */
	TimestampTz show_at;		/* when that was last looked at */
	bool		partial;		/* any table is shown in part, or not any more */
	Bitmapset  *lacking;		/* peers that do not offer us all that this one takes */
	Bitmapset  *owing;			/* owners of whom something is owed to it */
	bool		complete_due;	/* one is offered as partial for what is owed only */
	bool		adverts_due;
	uint64		adverts_position;	/* ring position at which they became due */
	bool		owed_due;
	bool		resend_due;		/* look which tables are to be sent anew or reviewed */
	bool		unreviewed;		/* a table is not shown yet as it will be */
	bool		filters_due;	/* tell what becomes of what the peer wants */
	bool		wishes_heard;	/* it has said what, on this connection */
	bool		looked;			/* at keys that may not be told: there is more */
	HTAB	   *states_sent;	/* of every_state: objects and versions sent on this
								 * link; NULL: none */
	bool		copying;		/* entanglement.progress shows something */
	bool		copies_moved;	/* ... and not yet the latest */
	int			scans;			/* owners scanning and arrears not yet queued */
	uint64		scan_position;	/* least ring position any scan began at */
	uint64		catch_position; /* greatest ring position any scan began at */

	uint64		number;			/* of the last batch built */
	XLogRecPtr	shown_at;		/* end of the log when what it tells was read */
	XLogRecPtr	durable_to;		/* as ent_outbound_durable_to says */
	dlist_head	flights;		/* EntOutFlight, the oldest first */
	EntOutFlight *flight;		/* of the batch being built, or to be built */
	uint64		asked;			/* slot->asked as the last batch knew it */
	uint64		heard;			/* asked of the batch that was answered last, if not told yet */
	bool		answered_once;	/* the peer has told its haves */
	size_t		row_bytes;		/* moving average of an encoded row */

	bool		requests_due;	/* look for requests and answers to be sent */
	bool		again_due;		/* routes may have changed: look which requests
								 * have to be sent again */
	HTAB	   *requests;		/* ids of those that this link has sent */
	bool		answers_held;	/* some wait for a claim */
	bool		seeks_due;		/* an owner has sought set */
	bool		graves_left;	/* more than went into the last batch */
	bool		homes_told;		/* all that is at home here was offered */
};

/* From where objects are taken into a batch, and how many. */
typedef struct EntOutSource
{
	EntQueue   *queue;
	bool		cut;			/* all under this snapshot, else each chunk under a
								 * newer one */
	Snapshot	snapshot;
	size_t		max_bytes;		/* of the whole batch; exceeded by one row at most,
								 * or by as much again */
	size_t		max_objects;
	size_t		large;			/* bytes of an object that goes in fragments */
	/* used within */
	MemoryContext context;
	List	   *later;
	List	   *rest;			/* more states of what was sent */
} EntOutSource;

typedef struct EntOutLate
{
	int32		rel;
	int32		owner;
	bytea	   *key;
	int64		serial;			/* of the version sent */
} EntOutLate;

/* Void once the owner is not sent any more, or the peer has said what it has. */
typedef struct EntOutClaimed
{
	EntOutOwner *owner;			/* NULL: void */
	int64		serial;
} EntOutClaimed;

typedef struct EntOutResent
{
	int32		owner;
	int32		rel;
	int64		round;
	bool		compare;
} EntOutResent;

/* outanswer.c */
/* Writes down what the peer has. */
extern void ent_outbound_save_haves(EntOutbound *ob);
/* Raises ERRCODE_PROTOCOL_VIOLATION unless the reader is content. */
extern void ent_outbound_check(EntReader *r, const char *what);
/*
 * A table that the peer asks for, by the number that it was told on this
 * connection. NULL: it was not told that one, which is noted as a refusal.
 */
extern EntOutTable *ent_outbound_asked_table(EntOutbound *ob, int32 no);
/* Queues an object that the peer asks for whatever it has. */
extern void ent_outbound_ask_again(EntOutbound *ob, EntOutTable *t, int32 owner,
								   bytea *key);

/* outflight.c */
/* Begins what is noted of the next batch; once it is sent, the next one's. */
extern void ent_outbound_begin_flight(EntOutbound *ob);
/* Least ring position, and time, of what is in flight. */
extern uint64 ent_outbound_flight_position(EntOutbound *ob);
extern int64 ent_outbound_flight_oldest(EntOutbound *ob);
/* Adds to a list of the batch being built; what is noted is palloc'd here. */
extern void *ent_outbound_note(EntOutbound *ob, List **list, size_t size);
/* What one flight is to settle the other one settles; the first is freed. */
extern void ent_outbound_join_flight(EntOutbound *ob, EntOutFlight *to,
									 EntOutFlight *from);
/* A claim in the batch being built. */
extern void ent_outbound_note_claim(EntOutbound *ob, EntOutOwner *o, int64 serial);
/* Claims of this owner count no more: those of the oldest batch, or all. */
extern void ent_outbound_void_claims(EntOutbound *ob, EntOutOwner *o, bool all);
/* What a batch in flight has the peer forget it is told of again behind that. */
extern void ent_outbound_holds_again(EntOutbound *ob, const EntQueueEntry *e);
/* What the oldest batch carried is durable at the peer. */
extern void ent_outbound_settle_flight(EntOutbound *ob);

/* outconfirm.c */
extern void ent_outbound_take_confirm(EntOutbound *ob, EntReader *r);

/* outbound.c */
extern uint64 ent_outbound_settled(EntOutbound *ob);
/*
 * Queues an object of a table; priority and round are filled in. What the entry
 * says of versions is true of what is committed.
 */
extern void ent_outbound_push(EntOutbound *ob, EntOutTable *t, EntQueueEntry *e);
/* Entries of both queues, and the least position of all. */
extern size_t ent_outbound_queued(const EntOutbound *ob);
extern uint64 ent_outbound_min_position(const EntOutbound *ob);
/* Takes what is new in the ring. */
extern void ent_outbound_read_ring(EntOutbound *ob);
/* Tells drain what is durable at the peer. */
extern void ent_outbound_show(EntOutbound *ob);
extern void ent_outbound_claim(EntOutbound *ob, EntOutOwner *o, int64 serial,
							   uint64 position);

/* outshow.c */
/* Is it time to look whether rights have changed? */
extern bool ent_outbound_show_due(const EntOutbound *ob);
/* Looks; what has to be announced or reviewed becomes due. */
extern void ent_outbound_look_at_rights(EntOutbound *ob);
/* What the peer is shown of this table, or of all (0), may be another thing now. */
extern void ent_outbound_look_anew(EntOutbound *ob, int32 rel);
/*
 * What the peer may see of the table now: fills in t, and has the table reviewed
 * when that is not what it was. False: nothing, and it holds nothing.
 */
extern bool ent_outbound_show_table(EntOutbound *ob, EntRelation *rel,
									EntOutTable *t);
/* For whom objects of the table are read; the result points into t. */
extern struct EntExtractFor ent_outbound_whom(const EntOutbound *ob,
											  const EntOutTable *t);
/* What the peer was to forget has been acknowledged. */
extern void ent_outbound_settle_forgotten(EntOutbound *ob, EntOutFlight *f);
/* A key image as bytea. */
extern Datum ent_outbound_key(const uint8 *key, size_t keylen);

/* outpartial.c */
/* Before owners are offered: what they are offered as depends on. */
extern void ent_outbound_look_for_parts(EntOutbound *ob);
/* Does the peer get some of the owner's objects only, through us? To be offered so. */
extern bool ent_outbound_gives_part(EntOutbound *ob, EntOutOwner *out,
									EntOwner *o);
/* What is owed has become less: an owner may come as a whole by now. */
extern void ent_outbound_complete(EntOutbound *ob);

/* outscan.c */
extern void ent_outbound_advertise(EntOutbound *ob, EntWriter *w);
extern void ent_outbound_unwant(EntOutbound *ob, EntOutOwner *o);
extern void ent_outbound_start_scan(EntOutbound *ob, EntOutOwner *o,
									int64 from, uint64 position);
/* For objects behind that serial, of which an event at that position tells. */
extern void ent_outbound_scan_on(EntOutbound *ob, EntOutOwner *o, int64 since,
								 uint64 position);
extern EntOutArrears *ent_outbound_start_arrears(EntOutbound *ob, int32 owner,
												 int32 rel, uint64 position);
/* Likewise, but only what the peer may see now and does not hold, or the contrary. */
extern EntOutArrears *ent_outbound_start_review(EntOutbound *ob, int32 owner,
												int32 rel, uint64 position);
extern void ent_outbound_scan(EntOutbound *ob);

/* outstates.c */
/*
 * The version of the object that was sent last on this link, in order, of a table
 * with every_state; 0: none, or it is not remembered.
 */
extern int64 ent_outbound_state_sent(const EntOutbound *ob,
									 const EntQueueEntry *e);
/* outsent.c */
/* Has that version of an object been sent since ent_outbound_start_scan? */
extern bool ent_outbound_was_sent(const EntOutOwner *o, int64 serial);
extern void ent_outbound_note_sent(EntOutbound *ob, EntOutOwner *o, int64 serial);
extern void ent_outbound_forget_sent(EntOutOwner *o);

extern void ent_outbound_note_state(EntOutbound *ob, const EntQueueEntry *e,
									int64 serial);
/* The peer may not have what it was sent. */
extern void ent_outbound_forget_states(EntOutbound *ob);

/* outprogress.c */
/*
 * A scan has found more than a chunk: what it will bring of each table, from
 * objects behind that serial on, is counted. rel 0: of all tables.
 */
extern void ent_outbound_count_copies(EntOutbound *ob, int32 owner, int32 rel,
									  int64 behind, Snapshot snapshot);
extern void ent_outbound_copied(EntOutbound *ob, EntOutTable *t);
/* Shows how far it is; caught_up: it is done. */
extern void ent_outbound_show_copies(EntOutbound *ob, bool caught_up);

/* outdata.c */
extern void ent_outbound_write_objects(EntOutbound *ob, EntWriter *w,
									   size_t max_bytes);
extern void ent_outbound_write_source(EntOutbound *ob, EntWriter *w,
									  EntOutSource *source);
/*
 * Runs something that reads rows in a subtransaction, and takes back what it
 * wrote if that fails. NULL: done, else the error, which is about some row.
 */
extern ErrorData *ent_outbound_try(void (*run) (void *), void *arg,
								   EntWriter *w);

/* outfragment.c */
/* Is it the object in transit, or has it its key? */
extern bool ent_outbound_is_in_transit(const EntOutbound *ob, const EntQueueEntry *e);
/* Fills the batch up with fragments of what is too large to go at once. */
extern void ent_outbound_write_fragments(EntOutbound *ob, EntWriter *w, size_t max_bytes);

/* outclaim.c */
extern void ent_outbound_write_claims(EntOutbound *ob, EntWriter *w);

/* outtogether.c */
/*
 * Objects that go together, as of a cut: first ask, when all that is to be in
 * it has been queued, then write.
 */
extern void ent_outbound_ask_cut(EntOutbound *ob);
extern void ent_outbound_write_together(EntOutbound *ob, EntWriter *w);
/* No more is to be scanned before it has been sent. */
extern bool ent_outbound_together_full(EntOutbound *ob);
/* outresend.c */
extern void ent_outbound_load_resend(EntOutbound *ob);
/* All of this table is in the batch being built. */
extern void ent_outbound_note_resent(EntOutbound *ob, EntOutArrears *a);
/* ... and has arrived. */
extern void ent_outbound_settle_resent(EntOutbound *ob, EntOutFlight *f);

/* outpresent.c */
/* The peer is to be told, from the first key on, which of these live. */
extern void ent_outbound_start_present(EntOutbound *ob, int32 owner, int32 rel);
extern void ent_outbound_start_presents(EntOutbound *ob, EntOutOwner *o);
extern void ent_outbound_write_presents(EntOutbound *ob, EntWriter *w,
										size_t max_bytes);
/* Is there something to list now? Of this owner, now or later? */
extern bool ent_outbound_presents_due(EntOutbound *ob);
extern bool ent_outbound_presents_left(EntOutbound *ob, int32 owner);

/* outrequest.c */
/*
 * Requests and answers go before objects, however many of these there are; answers
 * that wait for a claim of this batch, behind it.
 */
extern void ent_outbound_write_requests(EntOutbound *ob, EntWriter *w,
										size_t max_bytes);
/* A key's columns and values. Needs ent_value_enter. */
extern void ent_outbound_write_key(EntWriter *w, EntRelation *rel, bytea *key);

/* outresponse.c */
extern void ent_outbound_write_answers(EntOutbound *ob, EntWriter *w,
									   size_t max_bytes);
/* The answers have arrived. */
extern void ent_outbound_settle_requests(EntOutbound *ob, EntOutFlight *f);

/* outsubscribe.c */
extern void ent_outbound_take_subscribe(EntOutbound *ob, EntReader *r);
/* The peer wants an owner: it has said all that it is going to say before. */
extern void ent_outbound_wishes_heard(EntOutbound *ob);
/* Writes down what becomes of the peer's wish, to be told if that is news. */
extern void ent_outbound_judge(EntOutbound *ob, EntOutTable *t,
							   const EntShow *show);
/* FILTER_STATE for what the peer has not been told yet. */
extern void ent_outbound_write_filter_states(EntOutbound *ob, EntWriter *w);

/* outlife.c */
extern void ent_outbound_write_graves(EntOutbound *ob, EntWriter *w);
extern void ent_outbound_settle_graves(EntOutbound *ob, EntOutFlight *f);
/* owners: of EntOwner *, all there are. */
extern void ent_outbound_write_homes(EntOutbound *ob, EntWriter *w,
									 List *owners);
extern void ent_outbound_unwant_missing(EntOutbound *ob, List *owners);

#endif							/* ENT_LINK_OUTBOUND_PRIVATE_H */
