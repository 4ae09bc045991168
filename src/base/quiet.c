/*
 * base/quiet.c
 *	  What a peer causes again and again is logged now and then.
 *
 * Place: base. When something was last logged stands in the peer's slot in
 * shared memory, so that a peer that connects anew is not heard anew. The
 * slot has room for so many kinds: more than that of one peer are not logged
 * within the interval, whatever it does.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/quiet.h"
#include "base/shmem.h"

/* The entry of that kind, else one whose time is over; NULL: neither. Locked. */
static EntQuiet *
find(EntPeerSlot *slot, uint32 kind, TimestampTz now)
{
	EntQuiet   *room = NULL;

	for (int i = 0; i < ENT_QUIET_KINDS; i++)
	{
		EntQuiet   *q = &slot->quiet[i];

		if (q->at != 0 && q->kind == kind)
			return q;
		if (room == NULL &&
			(q->at == 0 || TimestampDifferenceExceeds(q->at, now, ent_log_interval)))
			room = q;
	}
	return room;
}

bool
ent_quiet_due(int32 peer, const char *kind, uint32 about, int64 *more)
{
	EntPeerSlot *slot = ent_shmem_peer(peer, false);
	TimestampTz now = GetCurrentTimestamp();
	uint32		hash = hash_combine(hash_bytes((const unsigned char *) kind, strlen(kind)), about);
	EntQuiet   *q;
	bool		due;

	*more = 0;
	if (slot == NULL)
		return true;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	q = find(slot, hash, now);
	due = q != NULL && (q->at == 0 || q->kind != hash ||
						TimestampDifferenceExceeds(q->at, now, ent_log_interval));
	if (due)
	{
		*more = q->at != 0 && q->kind == hash ? q->more : 0;
		q->kind = hash;
		q->at = now;
		q->more = 0;
	}
	else if (q != NULL)
		q->more++;
	LWLockRelease(ent_shared->lock);
	return due;
}

char *
ent_quiet_more(int64 more)
{
	return more == 0 ? NULL :
		psprintf("Since the last such line %lld more were not logged.", (long long) more);
}
