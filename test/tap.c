/*
 * test/tap.c
 *	  The harness of the tests without a server; contract in tap.h.
 */
#include "tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_EXPLAINED	10		/* failed checks of one promise shown */

static const char *current;		/* promise, NULL before the first */
static int	failed_checks;		/* of the current promise */
static int	promises;
static int	broken;

static void
conclude(void)
{
	if (current == NULL)
		return;
	promises++;
	if (failed_checks > 0)
		broken++;
	printf("%sok %d - %s\n", failed_checks > 0 ? "not " : "", promises,
		   current);
	fflush(stdout);
	current = NULL;
}

void
tap_promise(const char *promise)
{
	conclude();
	current = promise;
	failed_checks = 0;
}

bool
tap_check_case(bool holds, const char *file, int line, const char *condition,
			   const char *name)
{
	if (holds)
		return true;
	if (++failed_checks <= MAX_EXPLAINED)
		printf("# %s:%d: does not hold: %s%s%s\n", file, line, condition,
			   name != NULL ? " -- case " : "", name != NULL ? name : "");
	return false;
}

bool
tap_check(bool holds, const char *file, int line, const char *condition)
{
	return tap_check_case(holds, file, line, condition, NULL);
}

void
tap_note(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	printf("# ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
}

int
tap_done(void)
{
	conclude();
	printf("1..%d\n", promises);
	fflush(stdout);
	return broken > 0 ? 1 : 0;
}

bool
tap_long(void)
{
	const char *value = getenv("ENT_LONG");

	return value != NULL && strcmp(value, "1") == 0;
}

/* ---- random numbers: splitmix64 ---- */

uint64_t
random_next(Random *r)
{
	uint64_t	z = r->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t
random_below(Random *r, uint64_t n)
{
	return random_next(r) % n;
}

double
random_unit(Random *r)
{
	return (double) (random_next(r) >> 11) / 9007199254740992.0;
}

uint64_t
random_any_size(Random *r)
{
	uint64_t	bits = random_below(r, 65);

	return bits == 0 ? 0 : random_next(r) >> (64 - bits);
}

void
random_fill(Random *r, void *buf, size_t len)
{
	uint8_t    *p = buf;

	while (len-- > 0)
		*p++ = (uint8_t) random_next(r);
}
