/* Numbers drawn from a seed, for randomised tests: the same seed, the same test. */
#ifndef STOKER_TESTS_RANDOM_H
#define STOKER_TESTS_RANDOM_H

#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)	/* SplitMix64 */
{
	uint64_t x = rng->state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint32_t rng_below(struct rng *rng, uint32_t n)	/* n > 0 */
{
	return (uint32_t)((rng_next(rng) >> 32) * n >> 32);
}

#endif
