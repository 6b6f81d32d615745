/*
 * policy: what the engine's real eviction keeps of a trace, without a byte moved. A request is a
 * LOOKUP, whose lease is given back, and a STORE of what was missing; hits are strict prefixes.
 *
 * A capacity in per cent is of the trace's unique blocks, and counted in objects: slabs without waste.
 * A capacity in bytes is that of an arena, cut into slabs of the extents that a broker has, so that
 * `replay --l1` with the same sizes keeps the same.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/bench/bench.h"
#include "src/bench/own-broker.h"
#include "src/bench/payload.h"
#include "src/bench/solo.h"
#include "src/bench/trace.h"
#include "src/common/size.h"

#define HEADER	 4096u
#define LIST_MAX 16u
#define OBJECTS_MIN 4u		/* an engine takes no model whose objects are larger than that share of its arena */
#define OBJECT_EXTENTS_MAX 16u	/* nor larger than that many extents */
#define OBJECTS_MAX (1ull << 30)	/* what an engine can number */
#define EXTENTS_MAX (1ull << 24)

static struct {
	const char *trace, *capacity, *policy;
	uint64_t object_size, extent, requests;
} options = { .capacity = "5%,10%,20%", .policy = "lru,arc", .object_size = 4096, .extent = 64u << 20 };

static const struct option_row option_rows[] = {
	{ "trace", OPTION_TEXT, &options.trace, 0, 0, "FILE", "one JSON object a line: timestamp, hash_ids" },
	{ "capacity", OPTION_TEXT, &options.capacity, 0, 0, "LIST",
	  "per cent of the trace's unique blocks, or sizes of an arena" },
	{ "policy", OPTION_TEXT, &options.policy, 0, 0, "LIST", "lru, arc" },
	{ "object-size", OPTION_SIZE, &options.object_size, 64, 1ull << 30, "S", "bytes of a block's KV" },
	{ "extent", OPTION_SIZE, &options.extent, 65536, 1ull << 30, "S",
	  "extents of an arena whose capacity is a size; smaller ones if that is less than one" },
	{ "requests", OPTION_COUNT, &options.requests, 0, 0, "N", "the first N requests only; 0: all" },
	{ 0 },
};

struct list {
	uint32_t n;
	char text[LIST_MAX][32];
};

static int split(const char *name, const char *text, struct list *ret)
{
	ret->n = 0;
	/* One round more than there are commas: what is empty, also behind the last, is refused. */
	for (;;) {
		const size_t length = strcspn(text, ",");

		if (length == 0) {
			bench_say("--%s has a comma too many, or no value: it takes 1 to %u of them between commas", name,
				  LIST_MAX);
			return -EINVAL;
		}
		if (length >= sizeof(ret->text[0]) || ret->n == LIST_MAX) {
			bench_say("--%s takes up to %u values between commas, not \"%s\"", name, LIST_MAX, text);
			return -EINVAL;
		}
		memcpy(ret->text[ret->n], text, length);
		ret->text[ret->n++][length] = '\0';
		if (text[length] == '\0')
			return 0;
		text += length + 1;
	}
}

static int parse_policy(const char *text, enum engine_policy *ret)
{
	if (strcmp(text, "lru") == 0)
		*ret = ENGINE_POLICY_LRU;
	else if (strcmp(text, "arc") == 0)
		*ret = ENGINE_POLICY_ARC;
	else
		return -EINVAL;
	return 0;
}

/*
 * How many objects an extent holds, so that whole extents hold @objects, or nearly: hundreds of extents
 * are quick to search, one for each object are not.
 */
static uint64_t objects_of_extent(uint64_t objects)
{
	for (uint64_t n = 64; n >= 8; n--) {
		if (n <= objects && objects % n == 0)
			return n;
	}
	/* A large prime, say: at 64 an extent, less than one in a thousand is lost. */
	return objects >= 65536 ? 64 : objects >= 8192 ? 8 : 1;
}

/* Extents of the arena that a capacity means. @ret_objects: what it holds. A share of nothing is nothing. */
static int parse_capacity(const char *text, const struct trace *trace, struct solo_config *ret, uint64_t *ret_objects)
{
	const uint64_t image = (HEADER + options.object_size + 4095) & ~4095ull;
	char *end;

	if (text[strlen(text) - 1] == '%') {
		const double share = strtod(text, &end);

		if (*end != '%' || !(share > 0 && share <= 100))
			return -EINVAL;
		*ret_objects = (uint64_t)(share / 100 * (double)trace->unique + 0.5);
		if (trace->unique == 0)
			return 0;
		ret->extent_bytes = image * objects_of_extent(*ret_objects);
		ret->extents = (uint32_t)(*ret_objects * image / ret->extent_bytes);
		*ret_objects = ret->extents * ret->extent_bytes / image;
	} else {
		uint64_t bytes;

		if (size_parse(text, 0, &bytes) < 0)
			return -EINVAL;
		ret->extent_bytes = bytes < options.extent ? own_broker_extent(bytes) : options.extent;
		if (bytes / ret->extent_bytes > EXTENTS_MAX || bytes / image > OBJECTS_MAX)
			return -EINVAL;
		ret->extents = (uint32_t)(bytes / ret->extent_bytes);
		*ret_objects = bytes / image;
	}
	return ret->extents ? 0 : -EINVAL;
}

static int run_trace(struct solo *solo, const struct trace *trace, uint64_t *ret_hits)
{
	struct stoker_wire_key keys[STOKER_LARGE_KEYS];
	const struct stoker_wire_key root = { 0 };
	uint64_t hits = 0;

	for (uint64_t r = 0; r < trace->requests; r++) {
		const uint32_t n = (uint32_t)trace_length(trace, r);
		struct solo_answer answer;

		if (n == 0)
			continue;
		for (uint32_t i = 0; i < n; i++) {
			const struct stoker_key key = payload_key(trace->ids[trace->first[r] + i]);

			memcpy(&keys[i], &key, sizeof(key));
		}
		answer = solo_lookup(solo, keys, n);
		if (answer.status != STOKER_STATUS_OK) {
			bench_say("request %llu: the engine answered status %u", (unsigned long long)r, answer.status);
			return -EIO;
		}
		solo_release(solo, &answer);
		hits += answer.n;
		if (answer.n < n)
			solo_store(solo, keys + answer.n, n - answer.n, answer.n ? &keys[answer.n - 1] : &root,
				   (uint64_t)answer.n * 512);
	}
	*ret_hits = hits;
	return 0;
}

static int run_one(const struct trace *trace, const char *policy, const char *capacity, json_t *results)
{
	struct solo_config config = { .payload_bytes = options.object_size, .shards = 1 };
	uint64_t objects = 0, hits = 0;
	struct solo *solo;
	int r;

	if (parse_policy(policy, &config.policy) < 0) {
		bench_say("--policy takes lru and arc, not \"%s\"", policy);
		return -EINVAL;
	}
	if (parse_capacity(capacity, trace, &config, &objects) < 0) {
		bench_say("--capacity takes shares above 0%% and up to 100%% of the trace's unique blocks, at least one of "
			  "them, and sizes from 64 KiB to %llu extents and %llu objects, not \"%s\"", EXTENTS_MAX,
			  OBJECTS_MAX, capacity);
		return -EINVAL;
	}
	if (trace->blocks == 0)
		return 0;
	if (objects < OBJECTS_MIN) {
		bench_say("--capacity %s holds %llu objects of %llu bytes (--object-size): it must hold at least %u", capacity,
			  (unsigned long long)objects, (unsigned long long)options.object_size, OBJECTS_MIN);
		return -EINVAL;
	}
	if (options.object_size + HEADER > OBJECT_EXTENTS_MAX * config.extent_bytes) {
		bench_say("--object-size and its header must fit %u extents (--extent) of %llu bytes", OBJECT_EXTENTS_MAX,
			  (unsigned long long)config.extent_bytes);
		return -EINVAL;
	}
	/* Entries never bound what is kept: room for what is there, for as many that are remembered, and a request. */
	config.entries = (uint32_t)(2 * objects + 2 * trace->longest + 65536);
	solo = solo_new(&config);
	if (!solo)
		return -ENOMEM;
	r = run_trace(solo, trace, &hits);
	if (r == 0 && solo_audit(solo)) {
		bench_say("the engine's books are wrong: %s", solo_audit(solo));
		r = -EIO;
	}
	solo_free(solo);
	if (r == 0)
		json_array_append_new(results, json_pack("{s:s, s:s, s:f, s:I, s:I}", "policy", policy, "capacity",
							 capacity, "hit_ratio",
							 (double)hits / (double)trace->blocks, "hits",
							 (json_int_t)hits, "objects", (json_int_t)objects));
	return r;
}

static void report_policy(struct report *report, const struct trace *trace, json_t *results)
{
	static const char empty[] = "no request of the trace has blocks";

	report_count(report, "requests", trace->requests);
	report_count(report, "blocks", trace->blocks);
	report_count(report, "unique_blocks", trace->unique);
	report_rate(report, "hit_ratio_unbounded", (double)trace->prefix_hits / (double)trace->blocks, trace->blocks > 0,
		    empty);
	if (trace->blocks > 0) {
		report_json(report, "results", results);
		return;
	}
	json_decref(results);
	report_skip(report, "results", empty);
}

static int run(struct report *report)
{
	struct list policies, capacities;
	json_t *results = json_array();
	struct trace *trace = NULL;
	int r = 0;

	if (!options.trace)
		bench_say("policy needs --trace FILE");
	if (options.extent % 4096 != 0)
		bench_say("--extent takes a multiple of 4096, not %llu", (unsigned long long)options.extent);
	if (!options.trace || options.extent % 4096 != 0 || split("policy", options.policy, &policies) < 0 ||
	    split("capacity", options.capacity, &capacities) < 0 ||
	    trace_read(options.trace, options.requests, &trace) < 0) {
		json_decref(results);
		return BENCH_USAGE;
	}
	if (trace->longest > STOKER_LARGE_KEYS) {
		bench_say("trace \"%s\", line %llu: the request has %llu blocks; a lookup of this command takes %u",
			  options.trace, (unsigned long long)trace->longest_line, (unsigned long long)trace->longest,
			  STOKER_LARGE_KEYS);
		r = -EINVAL;
	}
	for (uint32_t p = 0; r == 0 && p < policies.n; p++) {
		for (uint32_t c = 0; r == 0 && c < capacities.n; c++)
			r = run_one(trace, policies.text[p], capacities.text[c], results);
	}
	if (r == 0)
		report_policy(report, trace, results);
	else
		json_decref(results);
	trace_free(trace);
	return r == -EINVAL ? BENCH_USAGE : r < 0 ? BENCH_FAILED : BENCH_OK;
}

const struct bench_command bench_policy = {
	.name = "policy",
	.meaning = "hit ratios of the engine's eviction policies on a trace, without bytes",
	.options = option_rows,
	.run = run,
};
