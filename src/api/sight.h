/*
 * api/sight.h
 *	  Whether a role may stand for a peer, and what its rights show the peer.
 */
#ifndef ENT_API_SIGHT_H
#define ENT_API_SIGHT_H

#include "postgres.h"

/*
 * May the caller let this role stand for a peer? Raises
 * ERRCODE_INSUFFICIENT_PRIVILEGE if not, and, unless privileged, if the role
 * has an attribute that is above all grants. Warns where it could become one
 * that has, or lacks what it needs. SPI.
 */
extern void ent_sight_check(Oid role, const char *peer, bool dials,
							 bool privileged);

/* Tells the caller which synchronized tables the role can see. */
extern void ent_sight_notice(Oid role);

#endif							/* ENT_API_SIGHT_H */
