/*
 * rule/pace.h
 *	  How much may be sent, and when: rate, round trip, window, budget.
 *
 * Pure C; the caller brings a clock (microseconds) that should not go back.
 * Several batches are in flight and acknowledged in order. As in BBR
 * (draft-ietf-ccwg-bbr): what is delivered per time, at its greatest over the
 * last rounds, is the rate; the least time to an acknowledgement, less what
 * the batch itself took on the way, is the round trip; what may be in flight is
 * their product and a batch, and two batches at least: one is made while the other
 * is applied; three while there is more than a second's worth to send, since one may have been
 * applied and wait for the peer's disk. The time a peer takes to apply grows with the bytes
 * and so counts as transmission. Rates, windows and the configured bandwidth
 * count bytes as they are on the wire, with what PostgreSQL's protocol, TLS, TCP
 * and IP add: see ent_pace_wire.
 */
#ifndef ENT_RULE_PACE_H
#define ENT_RULE_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENT_PACE_MIN_BATCH	256		/* bytes; never asks for less */
#define ENT_PACE_FLIGHTS	32		/* batches in flight, at most; */
#define ENT_PACE_SHORT_FLIGHTS 8	/* ... on a path of no length */
#define ENT_PACE_ROUNDS		18		/* that the rate is the greatest of */
#define ENT_PACE_MEMORY_US	10000000	/* for which a round trip is believed */
#define ENT_PACE_BATCH_US	20000	/* a batch takes so long on the way, or an
									 * eighth of the round trip if that is more; */
#define ENT_PACE_SHORT_US	10000	/* ... or so long, and a sixteenth, while all there
									 * is to send takes less than a second */
#define ENT_PACE_GATHER_US	2000	/* less than a batch waits so long for more, or
									 * for all to be acknowledged; or a sixteenth
									 * of the round trip if that is more */

typedef struct EntPaceFlight
{
	int64_t		sent_at;		/* us */
	double		bytes;			/* on the wire */
	size_t		payload;
	double		delivered;		/* when it was sent: bytes acknowledged so far */
	int64_t		delivered_at;	/* ... and when that was */
	int64_t		first_sent_at;	/* ... and when the batch was sent whose
								 * acknowledgement that was */
	double		ahead;			/* bytes in flight with it */
	bool		limited;		/* there was not enough to send */
	bool		alone;			/* nothing else was in flight */
} EntPaceFlight;

typedef struct EntPace
{
	int64_t		bandwidth;		/* bytes/s allowed, 0: no limit */
	double		debt;			/* bytes sent ahead of the bandwidth */
	int64_t		refilled_at;	/* us; debt is as of then */

	EntPaceFlight flights[ENT_PACE_FLIGHTS];	/* a ring */
	unsigned	first;			/* the oldest of them */
	unsigned	count;
	double		in_flight;		/* bytes on the wire */
	size_t		payload;		/* of that, what was handed in */
	size_t		backlog;		/* bytes there were to send when last asked */
	int64_t		began_at;		/* us; when it said last that one may be sent */
	int64_t		sent_at;		/* us; of the last batch */
	double		due_at;			/* us; when the next one may be made */

	double		delivered;		/* bytes acknowledged since the beginning */
	int64_t		delivered_at;	/* us */
	int64_t		first_sent_at;	/* us; see EntPaceFlight */
	double		limited_until;	/* delivered, up to which there was too little */
	int64_t		held_at;		/* us; first time since the last batch that it had
								 * to wait; 0: none */
	double		held;			/* us that the batch being made had to wait */

	double		rates[ENT_PACE_ROUNDS]; /* greatest of each round, bytes/s */
	unsigned	round;			/* its index, modulo ENT_PACE_ROUNDS */
	double		round_end;		/* delivered, at which it ends */
	double		round_began;	/* delivered, at which it began */
	int64_t		round_began_at; /* us */
	double		before_began;	/* the same of the round before */
	int64_t		before_began_at;
	bool		round_full;		/* in it there was always enough to send */
	int			phase;			/* rounds since more was tried */
	double		rate;			/* greatest of all, 0: no sample yet */
	double		rtt;			/* us */
	int64_t		rtt_at;			/* us; when it was last as small */
	bool		measured;		/* rtt is one */
	bool		probe_due;		/* it is to be looked for, however long ago that was */
	int64_t		probe_end;		/* us; it is looked for until then; 0: it is not */
	double		probe_mark;		/* delivered, until which it is, too */
	double		probed;			/* us; the least seen meanwhile */
	double		usual;			/* us; its mean, our own queue included */
	double		noise;			/* us; mean difference from that */
	double		rtt_bytes;		/* of the batch that rtt is with, until filled */
	int			crowded;		/* batches in a row that took much longer, until
								 * filled */
	int64_t		crowded_since;	/* us; the first of them was acknowledged */

	bool		filled;			/* the path is: the beginning is over */
	int			late;			/* batches in a row, later than estimated */
	int64_t		late_since;		/* us; the first of them was acknowledged */
	double		full_rate;		/* greatest before the last rounds */
	int			full_rounds;	/* in which it hardly grew */
} EntPace;

extern void ent_pace_init(EntPace *p, int64_t bandwidth, int64_t now);
extern void ent_pace_set_bandwidth(EntPace *p, int64_t bandwidth, int64_t now);
/*
 * Bytes on the wire of a message of so many: 5 of PostgreSQL's protocol, 22 of
 * TLS 1.3 for each 8 kB, 52 of TCP and IP for each 1448 bytes.
 */
extern double ent_pace_wire(size_t bytes);
/*
 * Bytes the next batch should have at most (>= ENT_PACE_MIN_BATCH, and above
 * all <= max_batch): what rate or bandwidth carry in ENT_PACE_BATCH_US or a
 * fifth of the round trip.
 */
extern size_t ent_pace_batch_size(const EntPace *p, size_t max_batch);
/*
 * Microseconds until something may be sent, if nothing is acknowledged before;
 * 0: now, INT64_MAX: not before. backlog: bytes there are to send, about.
 */
extern int64_t ent_pace_wait(EntPace *p, int64_t now, size_t backlog);
/* May anything be sent at all, whatever the pace? */
extern bool ent_pace_has_slot(const EntPace *p);
/* backlog: bytes there are left to send, about. Needs a slot. */
extern void ent_pace_sent(EntPace *p, size_t bytes, size_t backlog, int64_t now);
/* The oldest batch in flight was acknowledged. Without one it does nothing. */
extern void ent_pace_acked(EntPace *p, int64_t now);
/* Bytes in flight, as they were handed in. */
extern size_t ent_pace_in_flight(const EntPace *p);
extern double ent_pace_rate(const EntPace *p);	/* bytes/s; 0: no sample yet */
extern int64_t ent_pace_rtt(const EntPace *p);	/* us; -1: no sample yet */

#endif							/* ENT_RULE_PACE_H */
