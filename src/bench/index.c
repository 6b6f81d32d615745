/*
 * index: the engine alone. Objects are stored as chains; then random chains are looked up, leased and
 * given back, by requests as the core hands them over. No ring, no slot, no byte.
 */
#include "config.h"

#include <string.h>

#include "src/bench/bench.h"
#include "src/bench/machine.h"
#include "src/bench/payload.h"
#include "src/bench/solo.h"

static struct {
	uint64_t objects, keys, seconds, shards;
} options = { .objects = 1000000, .keys = 128, .seconds = 3, .shards = 1 };

static const struct option_row option_rows[] = {
	{ "objects", OPTION_COUNT, &options.objects, 1, 100000000, "N", "chunks in the index" },
	{ "keys", OPTION_COUNT, &options.keys, 1, STOKER_LARGE_KEYS, "N", "keys of a lookup" },
	{ "shards", OPTION_COUNT, &options.shards, 1, STOKER_PARTS_MAX, "N", "objects of a chunk" },
	{ "seconds", OPTION_COUNT, &options.seconds, 1, 3600, "N", "how long to look up" },
	{ 0 },
};

static void chain(struct stoker_wire_key *keys, uint64_t number, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct stoker_key key = payload_key(number * n + i);

		memcpy(&keys[i], &key, sizeof(key));
	}
}

static bool fill(struct solo *solo, uint64_t chains, uint32_t n)
{
	struct stoker_wire_key keys[STOKER_LARGE_KEYS];
	const struct stoker_wire_key root = { 0 };

	for (uint64_t c = 0; c < chains; c++) {
		chain(keys, c, n);
		if (solo_store(solo, keys, n, &root, 0) != n) {
			bench_say("the engine did not take all %u chunks of chain %llu", n, (unsigned long long)c);
			return false;
		}
	}
	return true;
}

/* Keys of a run of random chains are made beforehand: making them is the client's work. */
#define BATCH 64u

static bool look_up(struct solo *solo, uint64_t chains, uint32_t n, uint64_t *ret_keys, uint64_t *ret_ns)
{
	static struct stoker_wire_key keys[BATCH][STOKER_LARGE_KEYS];
	const uint64_t end = now_ns() + options.seconds * 1000000000ull;
	uint64_t random = 88172645463325252ull;

	while (now_ns() < end) {
		uint64_t start;

		for (uint32_t b = 0; b < BATCH; b++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			chain(keys[b], random % chains, n);
		}
		start = now_ns();
		for (uint32_t b = 0; b < BATCH; b++) {
			const struct solo_answer answer = solo_lookup(solo, keys[b], n);

			if (answer.n != n) {
				bench_say("a lookup of %u keys found %u", n, answer.n);
				return false;
			}
			solo_release(solo, &answer);
		}
		*ret_ns += now_ns() - start;
		*ret_keys += (uint64_t)BATCH * n;
	}
	return true;
}

static int run(struct report *report)
{
	const uint32_t n = (uint32_t)(options.keys < options.objects ? options.keys : options.objects);
	const uint64_t chains = options.objects / n;
	const struct solo_config config = {
		.policy = ENGINE_POLICY_LRU,
		.extent_bytes = 64u << 20,
		/* Objects of 8 KiB, each shard a place of its own; two extents more for the slabs' ends. */
		.extents = (uint32_t)(chains * n * options.shards / 8192 + 4),
		.payload_bytes = 4096,
		.shards = (uint32_t)options.shards,
		.entries = (uint32_t)(chains * n + 4096),
	};
	struct solo *solo = solo_new(&config);
	uint64_t keys = 0, ns = 0, start = now_ns(), fill_ns;
	bool ok = solo && fill(solo, chains, n);

	fill_ns = now_ns() - start;
	ok = ok && look_up(solo, chains, n, &keys, &ns);
	if (ok) {
		report_real(report, "keys_per_s", (double)keys * 1e9 / (double)ns);
		report_real(report, "stored_keys_per_s", (double)(chains * n) * 1e9 / (double)fill_ns);
		report_count(report, "objects", chains * n);
	}
	solo_free(solo);
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_index = {
	.name = "index",
	.meaning = "keys per second of the engine alone, looked up and leased",
	.options = option_rows,
	.run = run,
};
