/*
 * base/quiet.h
 *	  What a peer causes again and again is logged now and then.
 */
#ifndef ENT_BASE_QUIET_H
#define ENT_BASE_QUIET_H

#include "postgres.h"

/*
 * Is it time to log something of this kind, caused by the peer, about that
 * (0: nothing in particular)? At most once in entanglement.log_interval, and
 * no more than ENT_QUIET_KINDS kinds meanwhile. more: how often the answer was
 * no since it was last yes.
 */
extern bool ent_quiet_due(int32 peer, const char *kind, uint32 about,
						  int64 *more);

/* For errdetail: "12 more were not logged.", or NULL for none. */
extern char *ent_quiet_more(int64 more);

#endif							/* ENT_BASE_QUIET_H */
