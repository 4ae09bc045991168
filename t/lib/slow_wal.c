/*
 * t/lib/slow_wal.c
 *	  While the file that SLOW_WAL names exists, what is written to the log takes
 *	  some seconds to get there: a preloaded library for tests that stop a server
 *	  between a commit and its reaching the disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define SECONDS 5

static void
wait_if_asked(int fd)
{
	const char *flag = getenv("SLOW_WAL");
	char		link[64],
				path[1024];
	ssize_t		n;

	if (flag == NULL || access(flag, F_OK) != 0)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return;
	path[n] = '\0';
	for (int i = 0; strstr(path, "/pg_wal/") != NULL && i < SECONDS * 100 &&
		 access(flag, F_OK) == 0; i++)
		usleep(10000);
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
	static ssize_t (*next) (int, const void *, size_t, off64_t) = NULL;

	if (next == NULL)
		next = (ssize_t (*) (int, const void *, size_t, off64_t)) dlsym(RTLD_NEXT, "pwrite64");
	wait_if_asked(fd);
	return next(fd, data, len, offset);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	return pwrite64(fd, data, len, offset);
}
