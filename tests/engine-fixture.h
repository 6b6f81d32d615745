/* What each test of the engine's operations begins with: a world of its own, w, which may have a tier. */
#ifndef STOKER_TESTS_ENGINE_FIXTURE_H
#define STOKER_TESTS_ENGINE_FIXTURE_H

#include "tests/engine-world.h"
#include "tests/suite.h"

static struct world *w;

static inline void make_world(const struct world_options *options)
{
	w = world_new(options);
}

static inline void no_tier(void)
{
	make_world(NULL);
}

static inline void one_tier(void)
{
	make_world(&(struct world_options){ .tiers = 1 });
}

static inline void end(void)
{
	world_free(w);
}

static inline void lease_of(const struct seen *seen, uint64_t ret[2])
{
	ret[0] = seen->answer.lease[0];
	ret[1] = seen->answer.lease[1];
}

/* A lease over @n stored chunks of chain 1. */
static inline void lease_make(uint32_t n, uint64_t ret[2])
{
	const struct seen *seen;

	do_store(w, 1, n);
	seen = do_lookup(w, 1, n, STOKER_F_PREFETCH);
	ck_assert_uint_eq(seen->answer.n, n);
	lease_of(seen, ret);
}

static inline TCase *with_world(const char *name, void (*make)(void))
{
	TCase *tests = tcase_create(name);

	tcase_add_checked_fixture(tests, make, end);
	tcase_set_timeout(tests, 60);
	return tests;
}

#endif
