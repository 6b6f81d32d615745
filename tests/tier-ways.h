/*
 * What the tests of a disk tier begin with: one bench for each test, and the four ways in which a tier
 * can move bytes. A test of moving goes through all of them.
 */
#ifndef STOKER_TESTS_TIER_WAYS_H
#define STOKER_TESTS_TIER_WAYS_H

#include "tests/suite.h"
#include "tests/tier-bench.h"

#define MIB	1048576u
#define UNITS	(BENCH_EXTENT / 4096)

static struct bench bench;

static const struct { bool no_uring, no_direct; const char *method; } ways[] = {
	{ false, false, "io_uring" }, { false, true, "io_uring" },
	{ true, false, "pread and pwrite" }, { true, true, "pread and pwrite, buffered" },
};
#define WAYS (int)(sizeof(ways) / sizeof(ways[0]))

static inline void up(void)
{
	bench_init(&bench, 32 * MIB);
}

static inline void down(void)
{
	bench_fini(&bench);
}

static inline void start_way(int way)
{
	bench.config.no_uring = ways[way].no_uring;
	bench.config.no_direct = ways[way].no_direct;
	bench_start(&bench);
	if (!strstr(tier_method(bench.tier), ways[way].method))
		printf("# skipped in part: no io_uring here, so way %d ran as \"%s\"\n", way, tier_method(bench.tier));
}

/* A suite of @n cases, each with a bench of its own for every test. */
static inline Suite *suite_of(const char *name, TCase *const cases[], size_t n)
{
	Suite *suite = suite_create(name);

	for (size_t i = 0; i < n; i++) {
		tcase_add_checked_fixture(cases[i], up, down);
		tcase_set_timeout(cases[i], 120);
		suite_add_tcase(suite, cases[i]);
	}
	return suite;
}

#endif
