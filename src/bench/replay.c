/*
 * replay: the main job on real input. Worker processes serve the requests of a trace through a broker,
 * with real bytes, all of which are checked.
 *
 * One pass over the trace; after it, if asked to, damage (--flip) or a crash (--then-restart), and a
 * second pass over its last requests. Figures without a prefix are of the first pass; restart_* and
 * the verdicts (wrong_bytes, checksum_errors, evicted ...) count both.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/bench/bench.h"
#include "src/bench/crew.h"
#include "src/bench/machine.h"
#include "src/bench/progress.h"
#include "src/bench/replay.h"

#define POLLS_MAX (1u << 20)

static struct {
	const char *trace, *flip;
	uint64_t workers, object_size, l1, disk, requests, blocks, pool, then_restart;
	bool progress, cold;
} options = { .workers = 1, .object_size = 65536, .l1 = 1ull << 30, .blocks = 1, .pool = 16u << 20 };

static const struct option_row option_rows[] = {
	{ "trace", OPTION_TEXT, &options.trace, 0, 0, "FILE", "one JSON object a line: timestamp, hash_ids" },
	{ "workers", OPTION_COUNT, &options.workers, 1, 64, "N",
	  "worker processes; they share the requests round robin, one keeps the trace's order" },
	{ "object-size", OPTION_SIZE, &options.object_size, 64, 1ull << 30, "S", "bytes of a block's KV" },
	{ "l1", OPTION_SIZE, &options.l1, 1, 0, "S", "size of the broker's arena" },
	{ "disk", OPTION_SIZE, &options.disk, 0, 0, "S", "size of its disk tier; 0: none" },
	{ "requests", OPTION_COUNT, &options.requests, 0, 0, "N", "the first N requests only; 0: all" },
	{ "blocks", OPTION_COUNT, &options.blocks, 1, 512, "N", "blocks of a worker's pool that an object fills" },
	{ "pool", OPTION_SIZE, &options.pool, 4096, 0, "S",
	  "about the size of a worker's pool; what is longer goes in rounds" },
	{ "then-restart", OPTION_COUNT, &options.then_restart, 0, 0, "N",
	  "afterwards kill the broker, start it again, replay the last N requests once more; 0: do not" },
	{ "cold", OPTION_SWITCH, &options.cold, 0, 0, NULL,
	  "with it: shared memory is lost, as in a reboot, and only the tier is left" },
	{ "flip", OPTION_TEXT, &options.flip, 0, 0, "arena|disk",
	  "self-test: afterwards flip a bit of what is stored there, and replay the last request once more" },
	{ "progress", OPTION_SWITCH, &options.progress, 0, 0, NULL, "show progress even if stderr is no terminal" },
	{ 0 },
};

struct pass {
	struct replay_plan plan;
	struct progress progress;
	struct replay_figures *of[CREW_MAX];	/* shared */
	struct replay_figures sum;
	double seconds;
};

struct replay {
	struct trace *trace;
	struct own_broker broker;
	struct pass first, again;
	bool passed_again;
	int64_t flipped;
	uint64_t checksum_errors;	/* of brokers that are gone */
	uint64_t restart_ns;		/* from exec to serving again */
};

/* ---- one pass ---------------------------------------------------------------------------------- */

static struct replay_figures *new_figures(uint64_t requests)
{
	struct replay_figures *figures = machine_shared(sizeof(*figures));

	if (!figures)
		return NULL;
	figures->lookups = samples_new(requests + 1);
	figures->polls = samples_new(POLLS_MAX);
	return figures->lookups && figures->polls ? figures : NULL;
}

static int work(void *arg, uint32_t i)
{
	struct pass *pass = arg;

	return replay_work(&pass->plan, i, pass->of[i]);
}

static uint64_t done_so_far(const struct pass *pass, char *ret_beside, size_t bytes)
{
	uint64_t done = 0, hits = 0;

	for (uint32_t i = 0; i < pass->plan.workers; i++) {
		done += atomic_load(&pass->of[i]->done);
		hits += atomic_load(&pass->of[i]->hits);
	}
	snprintf(ret_beside, bytes, "%llu requests, %llu blocks from cache", (unsigned long long)done,
		 (unsigned long long)hits);
	return done;
}

static void watch(void *arg)
{
	struct pass *pass = arg;
	char beside[96];
	const uint64_t done = done_so_far(pass, beside, sizeof(beside));

	progress_show(&pass->progress, done, beside);
}

static void add_up(struct pass *pass)
{
	struct replay_figures *sum = &pass->sum;

	for (uint32_t i = 0; i < pass->plan.workers; i++) {
		const struct replay_figures *one = pass->of[i];

		sum->done += one->done;
		sum->hits += one->hits;
		sum->blocks += one->blocks;
		sum->hits_l1 += one->hits_l1;
		sum->hits_disk += one->hits_disk;
		sum->retrieved += one->retrieved;
		sum->stored += one->stored;
		sum->elsewhere += one->elsewhere;
		sum->refused += one->refused;
		sum->wrong_bytes += one->wrong_bytes;
		sum->lookup_ns += one->lookup_ns;
		sum->retrieve_ns += one->retrieve_ns;
		sum->store_ns += one->store_ns;
		sum->disk_lookup_ns += one->disk_lookup_ns;
	}
}

/* Objects of one transfer: what half a pool of the wished size holds, and no more than a request has. */
static uint32_t window(const struct trace *trace)
{
	uint64_t objects = options.pool / 2 / options.object_size;

	if (objects > trace->longest)
		objects = trace->longest;
	if (objects > 1024)
		objects = 1024;
	return objects ? (uint32_t)objects : 1;
}

static bool run_pass(struct replay *replay, struct pass *pass, const char *title, uint64_t count)
{
	char beside[96];
	uint64_t start, done;
	bool ok = true;

	pass->plan = (struct replay_plan){
		.broker = replay->broker.name,
		.trace = replay->trace,
		.object_bytes = options.object_size,
		.blocks = (uint32_t)options.blocks,
		.window = window(replay->trace),
		.workers = (uint32_t)options.workers,
		.first = replay->trace->requests - count,
		.count = count,
	};
	for (uint32_t i = 0; ok && i < options.workers; i++)
		ok = (pass->of[i] = new_figures(count)) != NULL;
	if (!ok) {
		bench_say("no memory for the figures of the workers");
		return false;
	}
	progress_begin(&pass->progress, title, count, options.progress);
	start = now_ns();
	ok = crew_run(&replay->broker, (uint32_t)options.workers, work, watch, pass);
	pass->seconds = (double)(now_ns() - start) / 1e9;
	done = done_so_far(pass, beside, sizeof(beside));
	progress_end(&pass->progress, done, beside);
	add_up(pass);
	return ok;
}

/* ---- afterwards -------------------------------------------------------------------------------- */

static bool restart(struct replay *replay, bool reboot)
{
	replay->checksum_errors += own_broker_counter(&replay->broker, STOKER_COUNTER_CHECKSUM_ERRORS);
	own_broker_kill(&replay->broker, reboot);
	if (strcmp(options.flip ? options.flip : "", "disk") == 0) {
		/* The first block of the last request is the one that will surely be asked for. */
		const uint64_t last = replay->trace->first[replay->trace->requests - 1];

		replay->flipped = flip_disk(&replay->broker, replay->trace->ids[last]);
		if (replay->flipped < 0)
			return false;
	}
	if (own_broker_again(&replay->broker) < 0 || !own_broker_serving(&replay->broker))
		return false;
	replay->restart_ns = now_ns() - replay->broker.started_ns;
	return true;
}

static bool flip_in_arena(struct replay *replay)
{
	const uint64_t last = replay->trace->first[replay->trace->requests - 1];

	replay->flipped = flip_arena(&replay->broker, replay->trace->ids[last]);
	return replay->flipped >= 0;
}

static bool afterwards(struct replay *replay)
{
	const bool flip_disk_too = options.flip && strcmp(options.flip, "disk") == 0;
	uint64_t count = options.then_restart;

	if (options.then_restart || flip_disk_too) {
		if (!own_broker_settled(&replay->broker, 60000))
			bench_say("not all was sealed and written to disk within 60 s; the rest will be missed");
		if (!restart(replay, options.cold || flip_disk_too))
			return false;
	}
	if (options.flip && !flip_disk_too && !flip_in_arena(replay))
		return false;
	if (!options.then_restart && !options.flip)
		return true;
	count = count == 0 ? 1 : count;
	replay->passed_again = true;
	return run_pass(replay, &replay->again, "once more",
			count < replay->trace->requests ? count : replay->trace->requests);
}

/* ---- the report -------------------------------------------------------------------------------- */

static void report_times(struct report *report, const struct pass *pass)
{
	struct samples *lookups[CREW_MAX], *polls[CREW_MAX];
	const struct replay_figures *sum = &pass->sum;
	const uint32_t n = pass->plan.workers;
	const double size = (double)options.object_size;

	for (uint32_t i = 0; i < n; i++) {
		lookups[i] = pass->of[i]->lookups;
		polls[i] = pass->of[i]->polls;
	}
	if (samples_count(lookups, n) > 0) {
		report_count(report, "lookup_ns_p50", samples_quantile(lookups, n, 0.5));
		report_count(report, "lookup_ns_p99", samples_quantile(lookups, n, 0.99));
	} else {
		report_skip(report, "lookup_ns_p50", "nothing was looked up");
		report_skip(report, "lookup_ns_p99", "nothing was looked up");
	}
	report_rate(report, "poll_ns_p50", (double)samples_quantile(polls, n, 0.5) / MOVER_POLLS,
		    samples_count(polls, n) > 0, "every job was over before it could be polled often enough");
	report_rate(report, "retrieve_bytes_per_s", (double)sum->retrieved * size * 1e9 / (double)sum->retrieve_ns,
		    sum->retrieved > 0, "nothing was retrieved");
	report_rate(report, "store_bytes_per_s", (double)sum->stored * size * 1e9 / (double)sum->store_ns,
		    sum->stored > 0, "nothing was stored");
	report_rate(report, "prefetch_bytes_per_s",
		    (double)sum->hits_disk * size * 1e9 / (double)sum->disk_lookup_ns, sum->hits_disk > 0,
		    "nothing came from disk");
}

static void report_replay(struct report *report, const struct replay *replay)
{
	const struct replay_figures *sum = &replay->first.sum, *again = &replay->again.sum;

	report_count(report, "requests", sum->done);
	report_count(report, "blocks", sum->blocks);
	report_count(report, "unique_blocks", replay->trace->unique);
	report_count(report, "hits_l1", sum->hits_l1);
	report_count(report, "hits_disk", sum->hits_disk);
	report_rate(report, "hit_ratio", (double)(sum->hits_l1 + sum->hits_disk) / (double)sum->blocks, sum->blocks > 0,
		    "no request had blocks");
	report_rate(report, "hit_ratio_unbounded", (double)replay->trace->prefix_hits / (double)sum->blocks,
		    sum->blocks > 0, "no request had blocks");
	report_count(report, "verified_bytes", sum->retrieved * options.object_size);
	report_count(report, "wrong_bytes", sum->wrong_bytes + again->wrong_bytes);
	report_times(report, &replay->first);
	report_real(report, "seconds", replay->first.seconds);
	report_count(report, "stored_blocks", sum->stored);
	report_count(report, "stored_elsewhere_blocks", sum->elsewhere);
	report_count(report, "refused_blocks", sum->refused);
	report_count(report, "checksum_errors",
		     replay->checksum_errors + (replay->broker.page ?
			own_broker_counter(&replay->broker, STOKER_COUNTER_CHECKSUM_ERRORS) : 0));
	if (options.flip)
		report_count(report, "flipped_copies", (uint64_t)(replay->flipped > 0 ? replay->flipped : 0));
	if (!replay->passed_again)
		return;
	if (replay->restart_ns)
		report_count(report, "restart_ns", replay->restart_ns);
	report_count(report, "restart_requests", again->done);
	report_count(report, "restart_blocks", again->blocks);
	report_count(report, "restart_hits_l1", again->hits_l1);
	report_count(report, "restart_hits_disk", again->hits_disk);
	report_count(report, "restart_verified_bytes", again->retrieved * options.object_size);
	report_real(report, "restart_seconds", replay->again.seconds);
}

/* ---- the command ------------------------------------------------------------------------------- */

static int check_options(void)
{
	if (!options.trace) {
		bench_say("replay needs --trace FILE");
		return -EINVAL;
	}
	if (options.flip && strcmp(options.flip, "arena") != 0 && strcmp(options.flip, "disk") != 0) {
		bench_say("--flip takes arena or disk, not \"%s\"", options.flip);
		return -EINVAL;
	}
	if (options.flip && strcmp(options.flip, "disk") == 0 && !options.disk) {
		bench_say("--flip disk needs a tier: --disk SIZE");
		return -EINVAL;
	}
	if (bench_common.attach && (options.flip || options.then_restart)) {
		bench_say("--flip and --then-restart need a broker of their own, not --attach");
		return -EINVAL;
	}
	return mover_check(options.object_size, options.blocks);
}

/* A broker that is attached to may grant less yet: that is known when a worker is there. */
static int check_trace(const struct trace *trace)
{
	if (options.flip && trace_length(trace, trace->requests - 1) == 0) {
		bench_say("trace \"%s\": its last request has no blocks, and --flip changes one of that; name another trace, "
			  "or fewer --requests", options.trace);
		return -EINVAL;
	}
	if (trace->longest <= MOVER_KEYS_MAX)
		return 0;
	bench_say("trace \"%s\", line %llu: the request has %llu blocks; a lookup takes %u", options.trace,
		  (unsigned long long)trace->longest_line, (unsigned long long)trace->longest, MOVER_KEYS_MAX);
	return -E2BIG;
}

static int start_broker(struct replay *replay)
{
	struct own_broker_config config = { .memory = options.l1, .disk = options.disk };
	/* Objects smaller than the default expects need more entries; ARC remembers as many that have gone. */
	const uint64_t entries = 2 * ((options.l1 + options.disk) / (options.object_size + 4096)) + 65536;
	int r;

	own_broker_set(&config, "arena.entries=%llu", (unsigned long long)entries);
	r = own_broker_start(&config, &replay->broker);
	return r < 0 || own_broker_serving(&replay->broker) ? r : -ETIMEDOUT;
}

static int run(struct report *report)
{
	static struct replay replay;
	bool ok;

	if (check_options() < 0)
		return BENCH_USAGE;
	if (trace_read(options.trace, options.requests, &replay.trace) < 0)
		return BENCH_USAGE;
	if (check_trace(replay.trace) < 0) {
		trace_free(replay.trace);
		return BENCH_USAGE;
	}
	ok = start_broker(&replay) == 0;
	if (ok) {
		ok = run_pass(&replay, &replay.first, "replay", replay.trace->requests) && afterwards(&replay);
		ok = !own_broker_died(&replay.broker) && ok;
		report_replay(report, &replay);
	}
	if (replay.first.sum.wrong_bytes + replay.again.sum.wrong_bytes > 0) {
		bench_say("%llu bytes were wrong",
			  (unsigned long long)(replay.first.sum.wrong_bytes + replay.again.sum.wrong_bytes));
		ok = false;
	}
	ok = own_broker_stop(&replay.broker) && ok;
	trace_free(replay.trace);
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_replay = {
	.name = "replay",
	.meaning = "replay a trace of requests with real bytes, and check every byte",
	.options = option_rows,
	.broker = true,
	.run = run,
};
