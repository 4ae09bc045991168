/*
 * test/fuzz_main.c
 *	  Drives a fuzz target with seeded mutations of good inputs.
 *
 *	  fuzz_x				tries fuzz_rounds inputs (50 times as many with
 *							ENT_LONG=1), the same ones each time
 *	  fuzz_x FILE...		tries the files
 *	  fuzz_x --write DIR	writes good inputs for libFuzzer to start from
 *
 * An input that ends the program is printed in hexadecimal.
 */
#include <signal.h>
#include <string.h>

#include "fuzz.h"

static uint8_t input[FUZZ_MAX_INPUT];
static size_t input_len;

extern void __sanitizer_set_death_callback(void (*callback) (void))
			__attribute__((weak));

static void
print_input(void)
{
	fprintf(stderr, "\ninput of %zu bytes:", input_len);
	for (size_t i = 0; i < input_len; i++)
		fprintf(stderr, "%s%02x", i % 32 == 0 ? "\n" : "", input[i]);
	fprintf(stderr, "\n");
}

static void
on_abort(int signal_number)
{
	(void) signal_number;
	print_input();
}

/* ---- mutations: each changes input in place ---- */

static void
flip_bit(Random *r)
{
	if (input_len > 0)
		input[random_below(r, input_len)] ^= (uint8_t) (1 << random_below(r, 8));
}

static void
set_byte(Random *r)
{
	static const uint8_t bytes[] = {0, 1, 2, 3, 4, 5, 7, 0x3f, 0x40, 0x7f,
	0x80, 0x81, 0xe7, 0xfe, 0xff};

	if (input_len > 0)
		input[random_below(r, input_len)] =
			bytes[random_below(r, sizeof(bytes))];
}

static void
cut(Random *r)
{
	input_len = random_below(r, input_len + 1);
}

static void
remove_some(Random *r)
{
	size_t		at = random_below(r, input_len + 1);
	size_t		n = random_below(r, 9);

	if (n > input_len - at)
		n = input_len - at;
	memmove(input + at, input + at + n, input_len - at - n);
	input_len -= n;
}

/* Makes room for n bytes somewhere; NULL when there is none. */
static uint8_t *
open_gap(Random *r, size_t n)
{
	size_t		at = random_below(r, input_len + 1);

	if (n > FUZZ_MAX_INPUT - input_len)
		return NULL;
	memmove(input + at + n, input + at, input_len - at);
	input_len += n;
	return input + at;
}

static void
insert_number(Random *r)
{
	uint8_t		number[10];
	uint64_t	v = random_any_size(r);
	size_t		n = 0;
	uint8_t    *gap;

	for (; v >= 0x80; v >>= 7)
		number[n++] = (uint8_t) (v | 0x80);
	number[n++] = (uint8_t) v;
	gap = open_gap(r, n);
	if (gap != NULL)
		memcpy(gap, number, n);
}

static void
repeat_some(Random *r)
{
	uint8_t		some[64];
	size_t		at = random_below(r, input_len + 1);
	size_t		n = random_below(r, sizeof(some));
	uint8_t    *gap;

	if (n > input_len - at)
		n = input_len - at;
	memcpy(some, input + at, n);
	gap = open_gap(r, n);
	if (gap != NULL)
		memcpy(gap, some, n);
}

static void
overwrite_number(Random *r)
{
	size_t		at = random_below(r, input_len + 1);
	uint64_t	v = random_any_size(r);

	for (; at < input_len; at++, v >>= 7)
	{
		input[at] = (uint8_t) (v >= 0x80 ? v | 0x80 : v);
		if (v < 0x80)
			break;
	}
}

static void
mutate(Random *r)
{
	static void (*const mutations[]) (Random *) = {
		flip_bit, flip_bit, set_byte, set_byte, cut, remove_some,
		insert_number, repeat_some, overwrite_number,
	};
	static const size_t n = sizeof(mutations) / sizeof(mutations[0]);

	for (uint64_t i = random_below(r, 6); i > 0; i--)
		mutations[random_below(r, n)] (r);
}

/* ---- running ---- */

/* As libFuzzer does: from memory of exactly this size. */
static void
try_input(void)
{
	uint8_t    *copy = malloc(input_len > 0 ? input_len : 1);

	memcpy(copy, input, input_len);
	LLVMFuzzerTestOneInput(copy, input_len);
	free(copy);
}

static void
try_many(void)
{
	Random		r = {6};
	int			rounds = tap_long() ? fuzz_rounds * 50 : fuzz_rounds;

	for (int i = 0; i < rounds; i++)
	{
		input_len = fuzz_good_input(&r, input);
		if (i % 16 != 0)
			mutate(&r);
		try_input();
	}
	tap_note("%d inputs tried", rounds);
}

static int
try_file(const char *name)
{
	FILE	   *file = fopen(name, "rb");

	if (file == NULL)
	{
		perror(name);
		return 1;
	}
	input_len = fread(input, 1, sizeof(input), file);
	fclose(file);
	try_input();
	return 0;
}

static int
write_inputs(const char *directory)
{
	Random		r = {7};

	for (int i = 0; i < 200; i++)
	{
		char		name[4096];
		FILE	   *file;

		input_len = fuzz_good_input(&r, input);
		snprintf(name, sizeof(name), "%s/good-%03d", directory, i);
		file = fopen(name, "wb");
		if (file == NULL || fwrite(input, 1, input_len, file) != input_len)
		{
			perror(name);
			return 1;
		}
		fclose(file);
	}
	return 0;
}

int
main(int argc, char **argv)
{
	if (__sanitizer_set_death_callback != NULL)
		__sanitizer_set_death_callback(print_input);
	signal(SIGABRT, on_abort);
	if (argc == 3 && strcmp(argv[1], "--write") == 0)
		return write_inputs(argv[2]);
	for (int i = 1; i < argc; i++)
		if (try_file(argv[i]) != 0)
			return 1;
	if (argc > 1)
		return 0;
	tap_promise(fuzz_promise);
	try_many();
	return tap_done();
}
