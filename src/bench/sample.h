/*
 * Samples of a time, kept one by one, so that quantiles are exact. Memory comes from the caller (it
 * may be shared with a worker process); beyond `max` samples a random choice of all stays (reservoir).
 */
#ifndef STOKER_BENCH_SAMPLE_H
#define STOKER_BENCH_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

struct samples {
	uint64_t n;		/* recorded, also those that were not kept */
	uint64_t max;
	uint64_t random;
	uint64_t value[];
};

static inline size_t samples_bytes(uint64_t max)
{
	return sizeof(struct samples) + max * sizeof(uint64_t);
}
void samples_init(struct samples *samples, uint64_t max);	/* of zeroed memory: it is not touched */
/* In memory of its own, shared with processes that are forked later; populated as it fills. NULL: none. */
struct samples *samples_new(uint64_t max);
void samples_add(struct samples *samples, uint64_t value);

/* Quantile @q (0 to 1) over @n sets together; 0 if they hold nothing. Sorts copies; NULL sets are skipped. */
uint64_t samples_quantile(struct samples *const *sets, uint32_t n, double q);
uint64_t samples_count(struct samples *const *sets, uint32_t n);

#endif
