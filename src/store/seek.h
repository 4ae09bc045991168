/*
 * store/seek.h
 *	  entanglement.seek: what peers seek, so that they may change their route.
 *
 * A node may follow only who stands higher (rule/route.h). When its route is
 * lost and nobody who offers another one does, it seeks: it asks for an offer
 * beyond what it has reached. Who cannot make one asks its own route; at the
 * home the next fold gives out a serial. One row per owner, the greatest wins.
 */
#ifndef ENT_STORE_SEEK_H
#define ENT_STORE_SEEK_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/uuid.h"

#include "store/owner.h"

typedef struct EntSeek
{
	pg_uuid_t	owner;
	int32		epoch;			/* more than this is sought */
	int64		serial;
} EntSeek;

/* All need a transaction and SPI unless said otherwise. */

/*
 * A peer seeks more of that owner than we have. Events at commit for who can do
 * something about it; nothing when it is under way already, or is beyond what a
 * local owner ever gave out. Of several owners: in the order of their numbers.
 */
extern void ent_seek_note(const EntOwner *o, int32 epoch, int64 serial);

/* What is to be asked of that peer, since it is the owner's route. */
extern List *ent_seek_through(int32 peer);	/* of EntSeek * */

/* Are local owners sought? Cheap, without SPI. */
extern bool ent_seek_any_local(void);
/* Their numbers, forgotten here: each is to get a serial. */
extern List *ent_seek_take_local(void);

#endif							/* ENT_STORE_SEEK_H */
