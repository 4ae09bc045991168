/*
 * step/clear.h
 *	  The rows of an owner that is no more are deleted here.
 *
 * In pieces, each in a transaction of its own, so that a large owner neither
 * holds up its link nor the fold. As the role of the peer that said so, which
 * must have the right to; triggers asleep, nothing captured, as in apply. A
 * row that this role may not delete stays, as a row of nobody's, and is
 * reported.
 */
#ifndef ENT_STEP_CLEAR_H
#define ENT_STEP_CLEAR_H

#include "postgres.h"

typedef enum EntClearResult
{
	ENT_CLEAR_DONE,				/* there is no such owner (any more) */
	ENT_CLEAR_MORE,				/* call again, in another transaction */
	ENT_CLEAR_LATER				/* a row is locked, or referenced with integrity:
								 * call again in a while */
} EntClearResult;

/* The next piece. SPI connected, in a transaction without other work. */
extern EntClearResult ent_clear(void);

#endif							/* ENT_STEP_CLEAR_H */
