/* SPDX-License-Identifier: GPL-2.0 */
/* Tests that print one KTAP line each. */
#ifndef UNIT_UNIT_H
#define UNIT_UNIT_H

#include <stdio.h>
#include <stdlib.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct unit_test {
	const char *name;
	void (*run)(void);
};

static unsigned int unit_faults;

/* Something that must be so. The first few faults of a test are shown. */
#define CHECK(condition)                                                         \
	do {                                                                     \
		if (!(condition) && unit_faults++ < 5)                           \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition); \
	} while (0)

static inline int unit_run(const struct unit_test *tests, unsigned int n)
{
	unsigned int failed = 0;

	printf("TAP version 13\n1..%u\n", n);
	for (unsigned int i = 0; i < n; i++) {
		unit_faults = 0;
		tests[i].run();
		failed += !!unit_faults;
		printf("%sok %u %s\n", unit_faults ? "not " : "", i + 1, tests[i].name);
		fflush(stdout);
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The same numbers in every run, so that a fault comes again (xorshift). */
static inline unsigned int unit_random(unsigned int *seed)
{
	unsigned int x = *seed;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return *seed = x;
}

#endif
