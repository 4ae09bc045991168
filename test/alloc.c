/*
 * test/alloc.c
 *	  Memory for what is under test; contract in alloc.h.
 */
#include "alloc.h"

#include <stdio.h>
#include <stdlib.h>

void
alloc_init(AllocState *state)
{
	state->limit = (size_t) 1 << 30;
	state->asked = state->pieces = state->calls = 0;
	state->armed = false;
}

static void
refuse(AllocState *state, size_t size)
{
	if (state->armed)
		longjmp(state->refused, 1);
	fprintf(stderr, "%zu bytes refused\n", size);
	abort();
}

static void *
grow(void *ctx, void *old, size_t size)
{
	AllocState *state = ctx;
	void	   *p;

	state->calls++;
	if (size > state->asked)
		state->asked = size;
	if (size > state->limit)
		refuse(state, size);
	p = realloc(old, size > 0 ? size : 1);
	if (p == NULL)
		abort();
	if (old == NULL)
		state->pieces++;
	return p;
}

static void *
take(void *ctx, size_t size)
{
	return grow(ctx, NULL, size);
}

static void
give(void *ctx, void *p)
{
	alloc_release(ctx, p);
}

void
alloc_release(AllocState *state, void *p)
{
	if (p != NULL)
		state->pieces--;
	free(p);
}

EntWireAllocator
alloc_for_wire(AllocState *state)
{
	EntWireAllocator alloc = {grow, state};

	return alloc;
}

EntQueueAllocator
alloc_for_queue(AllocState *state)
{
	EntQueueAllocator alloc = {take, give, state};

	return alloc;
}
