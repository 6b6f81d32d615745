/*
 * A bitmap of places: which units of 4,096 bytes of an arena or a tier somebody has claimed. It
 * finds entries of a table that overlap, and in a log read backwards those that something newer has
 * overwritten.
 */
#ifndef STOKER_BROKER_PLACES_H
#define STOKER_BROKER_PLACES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

static inline uint64_t *places_new(uint64_t units)
{
	return calloc(units / 64 + 1, sizeof(uint64_t));
}

/* Claim units [first, first + n), which must be within the bitmap. True if nobody had any of them. */
static inline bool places_claim(uint64_t *places, uint64_t first, uint64_t n)
{
	uint64_t taken = 0;

	while (n > 0) {
		const uint64_t bit = first % 64, run = n < 64 - bit ? n : 64 - bit;
		const uint64_t mask = (run == 64 ? UINT64_MAX : (1ull << run) - 1) << bit;

		taken |= places[first / 64] & mask;
		places[first / 64] |= mask;
		first += run;
		n -= run;
	}
	return taken == 0;
}

#endif
