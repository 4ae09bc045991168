/*
 * api/verify.h
 *	  A peer that has said hello to compare its rows with ours.
 */
#ifndef ENT_API_VERIFY_H
#define ENT_API_VERIFY_H

#include "postgres.h"

/* From now on this backend answers entanglement.digest for that peer. */
extern void ent_verify_greeted(int32 peer);

#endif							/* ENT_API_VERIFY_H */
