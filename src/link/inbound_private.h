/*
 * link/inbound_private.h
 *	  What the files of the receiving end share: inbound.c (batches, claims,
 *	  answers), inroute.c (owners), inwant.c (what is asked for),
 *	  inarrears.c (what is fetched anew), intable.c (tables), inobject.c (rows),
 *	  inrequest.c (requests),
 *	  insubscribe.c (which tables and rows are wanted),
 *	  inlife.c (owners that end or move), inconfirm.c (objects handed over),
 *	  inrun.c (state that stands together), infragment.c (objects in fragments).
 */
#ifndef ENT_LINK_INBOUND_PRIVATE_H
#define ENT_LINK_INBOUND_PRIVATE_H

#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/shmem.h"
#include "link/inbound.h"
#include "rule/wire.h"
#include "store/owner.h"
#include "store/refusal.h"
#include "store/relinfo.h"

typedef enum EntInSeek
{
	ENT_IN_SEEK_NOT = 0,
	ENT_IN_SEEK_LATER,			/* if it lasts */
	ENT_IN_SEEK_NOW
} EntInSeek;

/* An owner as the sender advertised it. */
typedef struct EntInOwner
{
	uint32		number;			/* hash key: the sender's */
	pg_uuid_t	id;
	pg_uuid_t	home;
	char		name[ENT_WIRE_MAX_NAME + 1];	/* UTF-8 */
	int32		sender_epoch;
	int64		sender_serial;	/* it had come so far */
	int32		distance;		/* from the sender to its home */
	bool		lost;			/* ... where it does not get now */
	bool		partial;		/* it gives some of the objects only */
	int			nancestors;		/* of sender_epoch */
	EntWireAncestor *ancestors; /* NULL: none */
	bool		compared;		/* from one of them we could not go on */
	int32		no;				/* ours; 0: local here or unusable */
	int32		known;			/* ours, also when local; 0: not known here */
	bool		local;			/* at home here */
	bool		credible;		/* what it says of the home */
	bool		wanted;			/* we take it from this peer */
	bool		answered;		/* the sender has been told */
	bool		ignored;		/* it has sent what was not taken */
	int32		epoch;			/* of our have */
	int64		have;
	int64		told;			/* the greatest have we ever had, in this epoch */
	int32		told_epoch;		/* our have as the sender was last told */
	int64		told_have;
	bool		based;			/* it sends what is newer than this: */
	int32		base_epoch;		/* our have when we asked for the owner, raised */
	int64		base_have;		/* by the sender's own claims */
	bool		told_wanted;	/* as the sender was last told */
	uint64		told_in;		/* the answer in which it was told something else
								 * than before, or to begin again */
	EntInSeek	seek;			/* an offer beyond this: */
	int32		seek_epoch;
	int64		seek_serial;
	int32		sought_epoch;	/* as the sender was last asked */
	int64		sought_serial;
	TimestampTz sought_at;		/* ... or it was first thought of; 0: neither */
	int32		kept_epoch;		/* newest version here that the home does not know: to be
								 * told; serial 0: none */
	int64		kept;
	bool		disputed;		/* reported already: a home that we do not believe */
	int32		beyond_epoch;	/* of what follows; 0: not looked yet */
	int64		beyond;			/* newest version of his objects here when we turned to
								 * this peer: compared when it has come so far */
	bool		behind;			/* ... for which a table waits */
} EntInOwner;

/* A table as the sender announced it, and how it fits ours. */
typedef struct EntInTable
{
	uint32		number;			/* hash key: the sender's */
	EntWireTable wire;			/* columns in context */
	MemoryContext context;
	bool		known;			/* there is a fitting table here */
	bool		replaced;		/* another number has its name now */
	bool		answered;		/* the sender has been told */
	bool		fresh;			/* arrears are to be asked for (again) */
	int32		rel;			/* ours, 0: none */
	uint64		generation;		/* of the EntRelation the map belongs to */
	int		   *map;			/* wire column -> our column, or -1 */
	EntWireFormat *formats;		/* by our column */
	Oid		   *sender_types;	/* by our column */
} EntInTable;

typedef struct EntInAgain
{
	uint32		table;			/* the sender's number */
	uint32		owner;			/* the sender's number */
	const uint8 *key;
	size_t		keylen;
} EntInAgain;

/* A section of a batch. */
typedef struct EntInSection
{
	unsigned	type;
	EntReader	body;
} EntInSection;

struct EntInbound
{
	MemoryContext context;
	int32		peer;
	Oid			role;
	EntPeerSlot *slot;
	void		(*meanwhile) (void *arg);	/* NULL: nothing is to be done */
	void	   *meanwhile_arg;
	HTAB	   *owners;			/* EntInOwner by number */
	HTAB	   *tables;			/* EntInTable by number */
	uint64		routes;			/* counter when adverts were last looked at */
	uint64		tables_version; /* of relinfo at that time */
	TimestampTz parked_at;		/* when parked objects were last asked for */
	TimestampTz told_at;		/* when haves of owners that come by another
								 * way were last told */
	uint64		number;			/* of the last batch applied */
	uint64		heard;			/* the sender of the current one had had the answers
								 * up to this one */
	bool		announced;		/* a batch with tables has come: what is not
								 * announced now the sender does not have */
	bool		arrears_due;	/* arrears are to be asked for */
	bool		subscriptions_due;	/* look whether the peer knows what is wanted */
	uint8	   *subscribed;		/* SUBSCRIBE as last said; NULL: never */
	size_t		subscribed_len;
	HTAB	   *asked;			/* those asked for (inarrears.c) */
	MemoryContext batch;		/* lasts until the answer; sections have their
								 * own */
	List	   *again;			/* of EntInAgain *, current batch only */
	List	   *helped;			/* of bigint[]: what parked rows may have waited
								 * for; current batch only */
	bool		ask_all;		/* for all that is parked; current batch only */
	struct EntIntegrity *integrity; /* of the sections being applied, or NULL */
	int			requests;		/* in the current batch */
	int			ends;			/* likewise: owners that are no more */
	bool		homes_heard;
	int			ncolumns;		/* of all tables announced */
	int64		room;			/* so many more owners may become known here */
	bool		full;			/* no room: has been reported */
	bool		node_known;
	pg_uuid_t	node;			/* the peer's id */
	int32		newest;			/* owner there was when the session began */
	HTAB	   *rumours;		/* EntGrave by id: ends that we do not believe from
								 * this peer, as things are */
	struct EntInFragment *fragment;		/* of an object, as far as it has come; or NULL */
	List	   *lived_on;		/* owners of ours that it has buried in this session */
};

/* inbound.c */
extern void ent_inbound_check(EntReader *r, const char *what);
/*
 * The owner behind a number, if this peer may speak for it now: it was
 * advertised here, is not ours, and this peer is its route and knows what it
 * was last told of the owner. Else NULL, and a
 * violation unless that may be a coincidence. rel: the table that it speaks of,
 * or 0. Raises ERRCODE_PROTOCOL_VIOLATION when the owner was never announced.
 */
extern EntInOwner *ent_inbound_authorized_owner(EntInbound *ib, uint32 number,
												int32 rel);
/* Once more in this batch, the peer had no right to say that. */
extern void ent_inbound_violation(EntRefusal kind, EntInOwner *in, int32 rel);
/* Is it not an older epoch? Else a violation, unless the peer cannot help it. */
extern bool ent_inbound_epoch_counts(EntInbound *ib, EntInOwner *in,
									 uint32 epoch, int32 rel);
/* The same is raised for a table; one that does not fit is returned. */
extern EntInTable *ent_inbound_announced_table(EntInbound *ib, uint32 number);

/* Numbers the sender gave to an owner and a table of ours; false: none. */
extern bool ent_inbound_sender_numbers(EntInbound *ib, const pg_uuid_t *owner,
									   int32 rel, EntWireAgain *a);
/*
 * Arrears of that owner have been paid or forgotten: what he has come to may
 * be claimed again, also by who never saw that there were any.
 */
extern void ent_inbound_may_claim(int32 owner);

/* inroute.c */
extern void ent_inbound_take_owner(EntInbound *ib, EntReader *body);
/* Maps tables that appeared, reconsiders routes; all owners held. */
extern void ent_inbound_reconsider(EntInbound *ib);
/* Notes what the epoch that we have come to goes on from. */
extern void ent_inbound_note_ancestors(EntInOwner *in, int32 epoch);
/* The first batch offers all that the peer has: what it does not, is lost. */
extern void ent_inbound_first_offers(EntInbound *ib);

/* inwant.c */
/* As the peer numbers it; NULL: it offers no such owner. */
extern EntInOwner *ent_inbound_owner_of(EntInbound *ib, const pg_uuid_t *id);
/* WANT, SEEK, ARREARS, TABLE_STATE sections that are due. */
extern void ent_inbound_answer_routes(EntInbound *ib, EntWriter *w);

/* inarrears.c */
extern HTAB *ent_inbound_asked_create(MemoryContext context);
/* The owner comes by another way now, or by this one again: ask anew. */
extern void ent_inbound_forget_asked(EntInbound *ib, EntInOwner *in);
/* ARREARS sections that are due. */
extern void ent_inbound_ask_arrears(EntInbound *ib, EntWriter *w);
extern void ent_inbound_take_arrears_done(EntInbound *ib, EntReader *body);

/* insubscribe.c */
/* SUBSCRIBE, if what is wanted is not what was said last. */
extern void ent_inbound_write_subscriptions(EntInbound *ib, EntWriter *w);
extern void ent_inbound_take_filter_state(EntInbound *ib, EntReader *body);

/* intable.c */
extern void ent_inbound_take_table(EntInbound *ib, EntReader *body);
/* Rebuilds the map if our table changed. NULL: not known here. */
extern EntRelation *ent_inbound_relation(EntInbound *ib, EntInTable *t);
/* Maps tables that appeared or changed here. */
extern void ent_inbound_reconsider_tables(EntInbound *ib);

/* inobject.c */
/* As many of the n as can be taken together: sections of objects of one table; how many. */
extern int	ent_inbound_take_objects(EntInbound *ib, const EntInSection *sections, int n);
extern void ent_inbound_take_present(EntInbound *ib, EntReader *body);

/* inconfirm.c */
/* CONFIRM sections for what is unconfirmed here. */
extern void ent_inbound_write_confirms(EntInbound *ib, EntWriter *w);

/* inrun.c */
/* Does a section of that type bring rows, or take them away? */
extern bool ent_inbound_is_state(unsigned type);
/* Such sections that follow each other. */
extern void ent_inbound_take_run(EntInbound *ib, EntInSection *sections, int n);

/* infragment.c */
/* The last one of an object has it stored. */
extern void ent_inbound_take_fragment(EntInbound *ib, EntReader *body);

/* inrequest.c */
extern void ent_inbound_take_request(EntInbound *ib, EntReader *body);
extern void ent_inbound_take_response(EntInbound *ib, EntReader *body);

/* inroute.c */
/* The peer's node: true when it is that one. */
extern bool ent_inbound_is_node(EntInbound *ib, const pg_uuid_t *id);
/* Of its offer nothing is taken, nor is the peer told what we have. */
extern void ent_inbound_ignore(EntInOwner *in);

/* inlife.c */
extern void ent_inbound_take_gone(EntInbound *ib, EntReader *body);
extern void ent_inbound_take_homes(EntInbound *ib, EntReader *body);
/* What this peer said of ends may be believed now. */
extern void ent_inbound_reconsider_ends(EntInbound *ib);
/*
 * Is an owner that is not known here one that is no more? fresh: the peer has
 * said just now that it lives, and is to be told. A new life is let pass.
 */
extern bool ent_inbound_is_dead(EntInbound *ib, EntInOwner *in, bool fresh);
/*
 * The offer names another home than we know. True: it has moved there, which
 * has been written down; the owner may be remote now where it was local.
 */
extern bool ent_inbound_moved(EntInbound *ib, EntInOwner *in, EntOwner *o);

#endif							/* ENT_LINK_INBOUND_PRIVATE_H */
