#include "config.h"

#include "src/bench/payload.h"

#include <string.h>

#define GOLDEN	0x9e3779b97f4a7c15ull
#define PATTERN 0xdbdbdbdbdbdbdbdbull

/* The finalizer of splitmix64. */
static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* One multiplication less than mix(): this runs for every word of every object, and only has to tell objects apart. */
static inline uint64_t word_at(uint64_t seed, uint64_t index)
{
	const uint64_t x = (seed + index * GOLDEN) * 0xd6e8feb86659fd93ull;

	return x ^ x >> 32;
}

uint64_t payload_seed(const char *model, const struct stoker_key *key, uint32_t group, uint32_t shard)
{
	uint64_t seed = mix((uint64_t)group << 32 | shard), word;

	for (; *model; model++)
		seed = mix(seed + GOLDEN + (uint8_t)*model);
	for (size_t i = 0; i < sizeof(key->bytes); i += 8) {
		memcpy(&word, key->bytes + i, 8);
		seed = mix(seed + GOLDEN + word);
	}
	return seed;
}

void payload_fill(void *to, uint64_t seed, uint64_t offset, size_t bytes)
{
	uint64_t *word = to;

	for (size_t i = 0; i < bytes / 8; i++)
		word[i] = word_at(seed, offset / 8 + i);
}

static uint64_t bytes_that_differ(uint64_t difference)
{
	uint64_t n = 0;

	for (; difference; difference >>= 8)
		n += (difference & 0xff) != 0;
	return n;
}

uint64_t payload_wrong(const void *from, uint64_t seed, uint64_t offset, size_t bytes)
{
	const uint64_t *word = from;
	uint64_t all = 0, wrong = 0;

	for (size_t i = 0; i < bytes / 8; i++)
		all |= word[i] ^ word_at(seed, offset / 8 + i);
	for (size_t i = 0; all && i < bytes / 8; i++)
		wrong += bytes_that_differ(word[i] ^ word_at(seed, offset / 8 + i));
	return wrong;
}

void pattern_fill(void *to, size_t bytes)
{
	memset(to, (int)(PATTERN & 0xff), bytes);
}

uint64_t pattern_wrong(const void *from, size_t bytes)
{
	const uint64_t *word = from;
	uint64_t all = 0, wrong = 0;

	for (size_t i = 0; i < bytes / 8; i++)
		all |= word[i] ^ PATTERN;
	for (size_t i = 0; all && i < bytes / 8; i++)
		wrong += bytes_that_differ(word[i] ^ PATTERN);
	return wrong;
}

/* Each step is reversible, so that different ids, of all 64 bits, have different keys. */
struct stoker_key payload_key(uint64_t id)
{
	const uint64_t seed = mix(id + GOLDEN);
	struct stoker_key key;

	for (uint64_t i = 0; i < 4; i++) {
		const uint64_t word = mix(seed + i);

		memcpy(key.bytes + 8 * i, &word, 8);
	}
	return key;
}
