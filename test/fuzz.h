/*
 * test/fuzz.h
 *	  What a fuzz target is: an entry point, and a maker of good inputs.
 *
 * The entry point is libFuzzer's, so clang can drive it with -fsanitize=fuzzer
 * (make fuzz); fuzz_main.c drives it with seeded mutations of good inputs
 * where there is nothing but a C compiler (part of make check).
 */
#ifndef ENT_TEST_FUZZ_H
#define ENT_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "tap.h"

#define FUZZ_MAX_INPUT	16384

/* What is promised of every input, and inputs tried by make check. */
extern const char *const fuzz_promise;
extern const int fuzz_rounds;

/* Tries an input; ends the program when the promise is broken. */
extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A good input in buf (FUZZ_MAX_INPUT bytes); returns its length. */
extern size_t fuzz_good_input(Random *r, uint8_t *buf);

#define FUZZ_CHECK(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, \
					__LINE__, #condition); \
			abort(); \
		} \
	} while (0)

#endif							/* ENT_TEST_FUZZ_H */
