/*
 * flush.c
 *	  A disk that takes its time: preloaded into a server, it lets each
 *	  fdatasync and fsync last FLUSH_US microseconds longer.
 *
 * For machines whose disk confirms what it has not stored, where no writer
 * ever waits for one.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void
take_time(void)
{
	static long us = -1;
	struct timespec t;

	if (us < 0)
		us = getenv("FLUSH_US") != NULL ? atol(getenv("FLUSH_US")) : 0;
	t = (struct timespec) {us / 1000000, us % 1000000 * 1000};
	nanosleep(&t, NULL);
}

static int
flush(const char *name, int fd)
{
	int			(*real) (int);

	*(void **) &real = dlsym(RTLD_NEXT, name);
	take_time();
	return real(fd);
}

int
fdatasync(int fd)
{
	return flush("fdatasync", fd);
}

int
fsync(int fd)
{
	return flush("fsync", fd);
}
