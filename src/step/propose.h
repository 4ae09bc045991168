/*
 * step/propose.h
 *	  In the session of somebody who is not the owner: a change becomes a
 *	  request.
 *
 * A trigger BEFORE ROW leaves the row as it is. To the statement's author it
 * counts all the same: rows that became requests are part of the count that
 * INSERT, UPDATE, DELETE and MERGE report, since object-relational mappers
 * take a smaller one for a lost race.
 */
#ifndef ENT_STEP_PROPOSE_H
#define ENT_STEP_PROPOSE_H

#include "postgres.h"

/* Installs the hook that counts, from _PG_init. */
extern void ent_propose_init(void);

#endif							/* ENT_STEP_PROPOSE_H */
