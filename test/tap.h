/*
 * test/tap.h
 *	  The harness of the tests without a server: promises, checked, as TAP.
 *
 * A test program is a row of promises. Between tap_promise and the next one
 * any number of CHECKs may fail; the promise is kept if none did. main ends
 * with `return tap_done();`. Randomness is seeded and reproducible.
 */
#ifndef ENT_TEST_TAP_H
#define ENT_TEST_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Begins a promise: one line of TAP, printed when the next begins. */
extern void tap_promise(const char *promise);

/* A condition of the current promise; failures are explained on stdout. */
#define CHECK(condition) \
	tap_check((condition), __FILE__, __LINE__, #condition)

/* The same, naming the case of a table that is being tried. */
#define CHECK_CASE(condition, name) \
	tap_check_case((condition), __FILE__, __LINE__, #condition, (name))

extern bool tap_check(bool holds, const char *file, int line,
					  const char *condition);
extern bool tap_check_case(bool holds, const char *file, int line,
						   const char *condition, const char *name);

/* A comment line. */
extern void tap_note(const char *format,...)
			__attribute__((format(printf, 1, 2)));

/* Prints the plan; 0 when all promises were kept. */
extern int	tap_done(void);

/* Is ENT_LONG=1 set: may tests take minutes? */
extern bool tap_long(void);

/* ---- random numbers ---- */

typedef struct Random
{
	uint64_t	state;
} Random;

extern uint64_t random_next(Random *r);
/* 0 .. n - 1 */
extern uint64_t random_below(Random *r, uint64_t n);
/* [0, 1) */
extern double random_unit(Random *r);
/* as many bits as random_below(65) says: small numbers as often as big ones */
extern uint64_t random_any_size(Random *r);
extern void random_fill(Random *r, void *buf, size_t len);

#endif							/* ENT_TEST_TAP_H */
