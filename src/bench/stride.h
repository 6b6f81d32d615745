/* The order in which a bench goes through the blocks of a pool: scattered, and each once. */
#ifndef STOKER_BENCH_STRIDE_H
#define STOKER_BENCH_STRIDE_H

#include <stdint.h>

/* The first stride from @from on that has no divisor in common with @n: it visits each of @n once. */
static inline uint32_t stride_of(uint32_t n, uint32_t from)
{
	for (;; from++) {
		uint32_t a = from, b = n;

		while (b) {
			const uint32_t rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			return from;
	}
}

#endif
