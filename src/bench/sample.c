#include "config.h"

#include "src/bench/sample.h"

#include <stdlib.h>
#include <string.h>

#include "src/bench/machine.h"

void samples_init(struct samples *samples, uint64_t max)
{
	samples->n = 0;
	samples->max = max;
	samples->random = 0x9e3779b97f4a7c15ull;
}

struct samples *samples_new(uint64_t max)
{
	struct samples *samples = machine_shared(samples_bytes(max));

	if (samples)
		samples_init(samples, max);
	return samples;
}

void samples_add(struct samples *samples, uint64_t value)
{
	uint64_t at = samples->n++;

	if (at >= samples->max) {
		/* xorshift: good enough for choosing which sample to replace */
		samples->random ^= samples->random << 13;
		samples->random ^= samples->random >> 7;
		samples->random ^= samples->random << 17;
		at = samples->random % samples->n;
		if (at >= samples->max)
			return;
	}
	samples->value[at] = value;
}

static uint64_t kept(const struct samples *samples)
{
	return samples->n < samples->max ? samples->n : samples->max;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t samples_quantile(struct samples *const *sets, uint32_t n, double q)
{
	uint64_t total = 0, at = 0, result, *all;

	for (uint32_t i = 0; i < n; i++)
		total += sets[i] ? kept(sets[i]) : 0;
	if (total == 0)
		return 0;
	all = malloc(total * sizeof(*all));
	if (!all)
		return 0;
	for (uint32_t i = 0; i < n; i++) {
		if (!sets[i])
			continue;
		memcpy(all + at, sets[i]->value, kept(sets[i]) * sizeof(*all));
		at += kept(sets[i]);
	}
	qsort(all, total, sizeof(*all), by_value);
	at = (uint64_t)(q * (double)total);
	result = all[at < total ? at : total - 1];
	free(all);
	return result;
}

uint64_t samples_count(struct samples *const *sets, uint32_t n)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < n; i++)
		total += sets[i] ? sets[i]->n : 0;
	return total;
}
