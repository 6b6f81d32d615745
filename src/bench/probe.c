#include "config.h"

#include "src/bench/probe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/engine/index.h"

#define AHEAD 32u

/* As the engine's: two cache lines, all that a probe reads in the first. */
struct probe_entry {
	struct stoker_key key;
	uint32_t next, pins;
	uint64_t masks[3];
	uint64_t second[8];
};
static_assert(sizeof(struct probe_entry) == sizeof(struct entry), "the bare probe's entries are as large as the index's");

struct probe {
	uint32_t mask, n;
	uint32_t *buckets;		/* first entry + 1 */
	struct probe_entry *entries;
};

static void *reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	madvise(at, bytes, MADV_HUGEPAGE);	/* as the broker's index */
	return at;
}

struct probe *probe_new(uint32_t entries)
{
	struct probe *probe = calloc(1, sizeof(*probe));

	if (!probe)
		return NULL;
	probe->mask = 1023;
	while (probe->mask < entries)
		probe->mask = 2 * probe->mask + 1;
	probe->buckets = reserve(((size_t)probe->mask + 1) * sizeof(*probe->buckets));
	probe->entries = reserve((size_t)entries * sizeof(*probe->entries));
	if (!probe->buckets || !probe->entries)
		return NULL;
	return probe;
}

/* The keys of the bench are random already: their first word will do. */
static inline uint32_t bucket_of(const struct probe *probe, const struct stoker_key *key)
{
	uint64_t word;

	memcpy(&word, key->bytes, sizeof(word));
	return (uint32_t)(word >> 16) & probe->mask;
}

void probe_add(struct probe *probe, const struct stoker_key *key)
{
	const uint32_t bucket = bucket_of(probe, key), number = probe->n++;

	probe->entries[number].key = *key;
	probe->entries[number].next = probe->buckets[bucket];
	probe->entries[number].masks[0] = 1;
	probe->buckets[bucket] = number + 1;
}

static inline uint32_t find(struct probe *probe, const struct stoker_key *key, uint32_t number)
{
	while (number) {
		struct probe_entry *entry = &probe->entries[number - 1];

		if (memcmp(&entry->key, key, sizeof(*key)) == 0 && entry->masks[0]) {
			entry->pins++;
			return number - 1;
		}
		number = entry->next;
	}
	return UINT32_MAX;
}

uint32_t probe_run(struct probe *probe, const struct stoker_key *keys, uint32_t n, uint32_t *ret)
{
	uint32_t buckets[AHEAD], firsts[AHEAD];

	for (uint32_t at = 0; at < n; at += AHEAD) {
		const uint32_t many = n - at < AHEAD ? n - at : AHEAD;

		for (uint32_t i = 0; i < many; i++) {
			buckets[i] = bucket_of(probe, &keys[at + i]);
			__builtin_prefetch(&probe->buckets[buckets[i]]);
		}
		for (uint32_t i = 0; i < many; i++) {
			firsts[i] = probe->buckets[buckets[i]];
			__builtin_prefetch(&probe->entries[firsts[i] ? firsts[i] - 1 : 0]);
		}
		for (uint32_t i = 0; i < many; i++) {
			ret[at + i] = find(probe, &keys[at + i], firsts[i]);
			if (ret[at + i] == UINT32_MAX)
				return at + i;
		}
	}
	return n;
}
