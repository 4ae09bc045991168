/*
 * test/alloc.h
 *	  Memory for what is under test: counted, and refused beyond a limit.
 *
 * A refusal jumps to where alloc_refused was set with setjmp, as PostgreSQL's
 * allocator would; without such a place it ends the program.
 */
#ifndef ENT_TEST_ALLOC_H
#define ENT_TEST_ALLOC_H

#include <setjmp.h>
#include <stdbool.h>

#include "rule/queue.h"
#include "rule/wire.h"

typedef struct AllocState
{
	size_t		limit;			/* largest single piece given */
	size_t		asked;			/* largest piece asked for */
	size_t		pieces;			/* not yet released */
	size_t		calls;
	bool		armed;			/* refused is set */
	jmp_buf		refused;
} AllocState;

extern void alloc_init(AllocState *state);
extern EntWireAllocator alloc_for_wire(AllocState *state);
extern EntQueueAllocator alloc_for_queue(AllocState *state);
extern void alloc_release(AllocState *state, void *p);

#endif							/* ENT_TEST_ALLOC_H */
