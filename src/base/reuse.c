/*
 * base/reuse.c
 *	  Memory of a process whose rounds take much and give all of it back.
 *
 * A thousand rows take some megabytes until they are stored. The C library gives such
 * memory back to the system each time, which then clears every page anew: that took a
 * third of the time of a first copy.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/reuse.h"

void
ent_reuse_memory(void)
{
#ifdef __GLIBC__
	/* an array of more than that is a queue's: it goes back as soon as it is freed */
	(void) mallopt(M_MMAP_THRESHOLD, 8 * 1024 * 1024);
	(void) mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
	(void) mallopt(M_TOP_PAD, 1024 * 1024);
#endif
}
