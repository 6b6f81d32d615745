/*
 * gpu: how fast blocks go between the arena and the memory of a GPU: bytes a second by block size and number of
 * blocks, each way and both at once, and the latency of a small and of a large retrieve; each in turns with
 * plain pinned copies of the same bytes through the driver in the same process: one copy of all, which is what
 * the link gives, and one copy a block, which is what a worker would do without Stoker.
 *
 * The driver does not survive fork(): every measurement runs in a worker process of its own, which leaves its
 * figures in shared memory. With --progress each is also appended to a file as soon as it is there, one JSON
 * object a line, so that a run that is cut off has told what it knew.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/crew.h"
#include "src/bench/gpu-mover.h"
#include "src/bench/machine.h"
#include "src/bench/sample.h"

#define POINTS_MAX	128u
#define ROUNDS_MIN	3u
#define ROUNDS_MAX	100u
#define WORKERS		2u
#define SAMPLES_MAX	4096u
#define LATENCY_SHARES	4u	/* of the budget that one latency has, where one way of measuring a point has one */

static struct {
	const char *library, *memory, *progress;
	uint64_t transfer, arena, round_ms, latency_rounds, budget_s;
} options = { .memory = "plain", .transfer = 256u << 20, .arena = 4ull << 30, .round_ms = 300, .latency_rounds = 200,
	      .budget_s = 240 };

static const struct option_row option_rows[] = {
	{ "library", OPTION_TEXT, &options.library, 0, 0, "FILE", "the driver's library, for worker and broker" },
	{ "memory", OPTION_TEXT, &options.memory, 0, 0, "plain|segments",
	  "the worker's memory: as of cudaMalloc (legacy IPC), or as expandable segments (descriptors)" },
	{ "transfer", OPTION_SIZE, &options.transfer, 65536, 1ull << 36, "S", "bytes of one transfer at most" },
	{ "arena", OPTION_SIZE, &options.arena, 0, 0, "S", "the broker's arena" },
	{ "round-ms", OPTION_COUNT, &options.round_ms, 1, 60000, "N", "timed for each point at least, where 100 rounds allow" },
	{ "latency-rounds", OPTION_COUNT, &options.latency_rounds, 1, SAMPLES_MAX, "N", "retrieves whose latency is taken" },
	{ "budget", OPTION_COUNT, &options.budget_s, 1, 3600, "S", "seconds after which no further point is begun" },
	{ "progress", OPTION_TEXT, &options.progress, 0, 0, "FILE", "append each result as it is measured" },
	{ 0 },
};

/* In the order in which they are measured: what no time is left for is what goals say least about. */
static const uint32_t block_sizes[] = { 262144, 1u << 20, 32768, 4096, 4u << 20, 65536, 2u << 20, 16384 };
static const uint32_t block_counts[] = { 1, 16, 256, 4096 };
enum direction { LOAD, STORE, BOTH, DIRECTIONS };
static const char *const direction_names[] = { "load", "store", "both" };

enum left_out { MEASURED, TOO_LARGE, TOO_LATE };
struct point {
	uint32_t block_bytes, blocks, rounds;
	uint32_t left_out;		/* enum left_out */
	struct gpu_times ns[DIRECTIONS];	/* of all rounds */
	uint32_t rounds_both;
};

struct latency {
	uint64_t stoker_p50, stoker_p99, bare_p50, bare_p99;	/* 0: not measured */
};

/* What the worker processes leave behind. */
struct figures {
	struct point points[POINTS_MAX];
	uint32_t n_points;
	struct latency small, large;
	uint64_t wrong[WORKERS];
	uint64_t bounced_before, bounced;	/* when measuring began; in all */
	struct { uint64_t bytes, load_ns, store_ns; } together[WORKERS];
	char device[128], how[400], refused[600];
	int version;
	uint64_t rendezvous;
};
static struct figures *figures;
static struct own_broker broker;
static uint64_t begun_ns;
static uint64_t share_ns;	/* of the budget */

static bool is_late(void)
{
	return now_ns() - begun_ns > options.budget_s * 1000000000ull;
}

static bool is_too_large(uint32_t block_bytes, uint32_t blocks)
{
	return (uint64_t)block_bytes * blocks > options.transfer;
}

/* On a fast link filling and checking take far longer than what is timed: no point may use up the others' time. */
static void share_budget(void)
{
	uint64_t parts = 2 * LATENCY_SHARES;

	for (uint32_t s = 0; s < sizeof(block_sizes) / sizeof(block_sizes[0]); s++)
		for (uint32_t c = 0; c < sizeof(block_counts) / sizeof(block_counts[0]); c++)
			parts += is_too_large(block_sizes[s], block_counts[c]) ? 0 : 2;
	share_ns = options.budget_s * 1000000000ull / parts;
}

/* One line of the file, whole or not at all. */
__attribute__((format(printf, 1, 2))) static void progress(const char *format, ...)
{
	char line[512];
	va_list arguments;
	int fd, n;

	if (!options.progress)
		return;
	va_start(arguments, format);
	n = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	fd = open(options.progress, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || n >= (int)sizeof(line) || write(fd, line, (size_t)n) != n)
		bench_say("could not append to \"%s\": %s", options.progress, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static double rate(uint64_t bytes, uint64_t ns)
{
	return ns ? (double)bytes * 1e9 / (double)ns : 0;
}

/* ---- in a worker --------------------------------------------------------------------------------- */

static struct gpu_mover mover;

/* @i: of all worker processes, those that measure alone included. */
static int open_worker(uint32_t i)
{
	const struct gpu_mover_config config = {
		.broker = broker.name,
		.library = options.library,
		.memory = strcmp(options.memory, "segments") == 0 ? TRIAL_SEGMENTS : TRIAL_PLAIN,
		.transfer_max = options.transfer,
		.run = begun_ns * 0x9e3779b97f4a7c15ull,
		.worker = i,
	};
	const int r = gpu_mover_open(&config, &mover);

	if (r == 0 && i == 0) {
		snprintf(figures->device, sizeof(figures->device), "%s", trial_device());
		figures->version = trial_version();
	}
	/* What the machine cannot is no failure of ours: it is reported, not measured. */
	if (r == -ENODEV || r == -EOPNOTSUPP)
		snprintf(figures->refused, sizeof(figures->refused), "%s", mover.why);
	else if (r < 0)
		bench_say("%s", mover.why);
	return r;
}

static void add(struct gpu_times *to, const struct gpu_times *one)
{
	to->stoker += one->stoker;
	to->whole += one->whole;
	to->pieces += one->pieces;
}

/* Has a point another round, after @rounds of them in which @timed_ns were timed? @until: the end of its share. */
static bool goes_on(uint32_t rounds, uint64_t timed_ns, uint64_t until)
{
	if (rounds < ROUNDS_MIN)
		return true;
	return rounds < ROUNDS_MAX && timed_ns < options.round_ms * 1000000 && now_ns() < until;
}

/* Rounds until enough has been timed: all that is compared had as many. The first warms up. */
static int measure_ways(struct point *point)
{
	const uint64_t until = now_ns() + share_ns;
	struct gpu_times load, store;
	int r = gpu_mover_round(&mover, &load, &store);

	while (r == 0 && goes_on(point->rounds, point->ns[LOAD].stoker + point->ns[STORE].stoker, until)) {
		r = gpu_mover_round(&mover, &load, &store);
		if (r < 0)
			break;
		add(&point->ns[LOAD], &load);
		add(&point->ns[STORE], &store);
		point->rounds++;
	}
	return r;
}

static int measure_both(struct point *point)
{
	const uint64_t until = now_ns() + share_ns;
	struct gpu_times both;
	int r = gpu_mover_round_both(&mover, &both);

	while (r == 0 && goes_on(point->rounds_both, point->ns[BOTH].stoker, until)) {
		r = gpu_mover_round_both(&mover, &both);
		if (r < 0)
			break;
		add(&point->ns[BOTH], &both);
		point->rounds_both++;
	}
	return r;
}

static void tell_point(const struct point *point)
{
	for (uint32_t d = 0; d < DIRECTIONS; d++) {
		const uint64_t rounds = d == BOTH ? 2 * point->rounds_both : point->rounds;
		const uint64_t bytes = rounds * point->block_bytes * point->blocks;

		progress("{\"block_bytes\": %u, \"blocks\": %u, \"direction\": \"%s\", \"rounds\": %u, "
			 "\"bytes_per_s\": %.0f, \"plain_bytes_per_s\": %.0f, \"pieces_bytes_per_s\": %.0f, "
			 "\"wrong_bytes\": %" PRIu64 "}\n", point->block_bytes, point->blocks, direction_names[d],
			 d == BOTH ? point->rounds_both : point->rounds, rate(bytes, point->ns[d].stoker),
			 rate(bytes, point->ns[d].whole), rate(bytes, point->ns[d].pieces), mover.wrong);
	}
}

/* What a transfer takes: pools of four on the device, and an arena of four at least. */
static const char *why_left_out(const struct point *point, char *text, size_t bytes)
{
	const uint64_t transfer = (uint64_t)point->block_bytes * point->blocks;

	if (point->left_out == TOO_LARGE)
		snprintf(text, bytes, "a transfer of %" PRIu64 " MiB is more than --transfer allows (%" PRIu64 " MiB); it takes "
			 "four times as much of the GPU's memory and of the arena", transfer >> 20, options.transfer >> 20);
	else
		snprintf(text, bytes, "there was no time left for it (--budget)");
	return text;
}

static void tell_left_out(const struct point *point)
{
	char why[200];

	progress("{\"block_bytes\": %u, \"blocks\": %u, \"skipped\": \"%s\"}\n", point->block_bytes, point->blocks,
		 why_left_out(point, why, sizeof(why)));
}

static int measure_point(struct point *point, uint32_t block_bytes, uint32_t blocks)
{
	int r = gpu_mover_point(&mover, block_bytes, blocks);

	*point = (struct point){ .block_bytes = block_bytes, .blocks = blocks };
	if (r == 0)
		r = measure_ways(point);
	gpu_mover_point_end(&mover);
	if (r == 0)
		r = gpu_mover_point(&mover, block_bytes, blocks);
	if (r == 0)
		r = measure_both(point);
	gpu_mover_point_end(&mover);
	if (r == 0)
		tell_point(point);
	return r;
}

static int measure_latency(const char *name, uint32_t block_bytes, uint32_t blocks, struct latency *ret)
{
	struct samples *stoker = samples_new(SAMPLES_MAX), *bare = samples_new(SAMPLES_MAX);
	const uint64_t until = now_ns() + LATENCY_SHARES * share_ns;
	struct gpu_times load, store;
	int r = stoker && bare ? gpu_mover_point(&mover, block_bytes, blocks) : -ENOMEM;

	for (uint64_t i = 0; r == 0 && i <= options.latency_rounds && !(i > ROUNDS_MIN && now_ns() > until); i++) {
		r = gpu_mover_round(&mover, &load, &store);
		if (r < 0 || i == 0)
			continue;
		samples_add(stoker, load.stoker);
		samples_add(bare, load.whole);
	}
	gpu_mover_point_end(&mover);
	if (r < 0)
		return r;
	ret->stoker_p50 = samples_quantile(&stoker, 1, .5);
	ret->stoker_p99 = samples_quantile(&stoker, 1, .99);
	ret->bare_p50 = samples_quantile(&bare, 1, .5);
	ret->bare_p99 = samples_quantile(&bare, 1, .99);
	progress("{\"latency\": \"%s\", \"ns_p50\": %" PRIu64 ", \"ns_p99\": %" PRIu64 ", \"bare_ns_p50\": %" PRIu64
		 ", \"bare_ns_p99\": %" PRIu64 "}\n", name, ret->stoker_p50, ret->stoker_p99, ret->bare_p50, ret->bare_p99);
	return 0;
}

static int measure_all(void)
{
	int r;

	share_budget();
	r = measure_latency("4k", 4096, 1, &figures->small);

	if (r == 0 && (16u << 20) <= options.transfer)
		r = measure_latency("16m", 262144, 64, &figures->large);
	for (uint32_t s = 0; s < sizeof(block_sizes) / sizeof(block_sizes[0]); s++) {
		for (uint32_t c = 0; r == 0 && c < sizeof(block_counts) / sizeof(block_counts[0]); c++) {
			struct point *point = &figures->points[figures->n_points];

			*point = (struct point){ .block_bytes = block_sizes[s], .blocks = block_counts[c] };
			if (is_too_large(block_sizes[s], block_counts[c]))
				point->left_out = TOO_LARGE;
			else if (figures->n_points && is_late())
				point->left_out = TOO_LATE;
			else
				r = measure_point(point, block_sizes[s], block_counts[c]);
			if (r == 0 && point->left_out)
				tell_left_out(point);
			figures->n_points += r == 0;
		}
	}
	return r;
}

/*
 * The copier registers the arena with the driver while it serves, and what it has not come to yet goes through
 * its bounce buffer, at another speed: rounds, until for a second none has. As it stays so on a machine that
 * registers little, the wait is bounded, and the report has the bytes that were bounced.
 */
static int await_registration(void)
{
	const uint64_t until = now_ns() + 20000000000ull;
	uint64_t bounced = own_broker_counter(&broker, STOKER_COUNTER_GPU_BOUNCED_BYTES);
	struct gpu_times load, store;
	int r = gpu_mover_point(&mover, 4096, 16);

	for (uint32_t quiet = 0; r == 0 && quiet < 10 && now_ns() < until; quiet++) {
		r = gpu_mover_round(&mover, &load, &store);
		usleep(100 * 1000);
		if (own_broker_counter(&broker, STOKER_COUNTER_GPU_BOUNCED_BYTES) == bounced)
			continue;
		bounced = own_broker_counter(&broker, STOKER_COUNTER_GPU_BOUNCED_BYTES);
		quiet = 0;
	}
	gpu_mover_point_end(&mover);
	figures->bounced_before = bounced;
	return r;
}

/* The worker's end: 0 and 1 are the crew's words. What was refused is in the figures. */
static int end_worker(int r, uint32_t i)
{
	if (r < 0 && !figures->refused[0])
		bench_say("%s", mover.why);
	if (mover.stoker && i == 0)
		snprintf(figures->how, sizeof(figures->how), "%s", stoker_cuda_how(mover.stoker));
	figures->wrong[i] += mover.wrong;
	gpu_mover_close(&mover);
	return r < 0 && !figures->refused[0] ? 1 : 0;
}

/* Is there anything to be measured? Before a broker is started for it. */
static int work_probe(void *arg, uint32_t i)
{
	(void)arg;
	(void)i;
	if (trial_open(options.library) < 0)
		snprintf(figures->refused, sizeof(figures->refused), "%s", trial_why());
	return 0;
}

static int work_alone(void *arg, uint32_t i)
{
	int r = open_worker(i);

	(void)arg;
	if (r == 0) {
		r = await_registration();
		begun_ns = now_ns();
		if (r == 0)
			r = measure_all();
		return end_worker(r, i);
	}
	gpu_mover_close(&mover);
	return figures->refused[0] ? 0 : 1;
}

/* Both begin each round when the other does, with a transfer of blocks of 256 KiB. */
static void meet(uint64_t round)
{
	_Atomic uint64_t *met = (_Atomic uint64_t *)&figures->rendezvous;
	const uint64_t until = now_ns() + 20000000000ull;

	atomic_fetch_add(met, 1);
	while (atomic_load(met) < WORKERS * (round + 1) && now_ns() < until)
		cpu_relax();
}

static int work_together(void *arg, uint32_t i)
{
	const uint32_t blocks = options.transfer >= 64u << 20 ? 256 : 16;
	const uint32_t block_bytes = options.transfer >= 4u << 20 ? 262144 : 4096;
	struct gpu_times load, store;
	int r = open_worker(1 + i);

	(void)arg;
	if (r == 0)
		r = gpu_mover_point(&mover, block_bytes, blocks);
	for (uint64_t round = 0; r == 0 && round < 10; round++) {
		meet(round);
		r = gpu_mover_round(&mover, &load, &store);
		if (r < 0 || round == 0)
			continue;
		figures->together[i].load_ns += load.stoker;
		figures->together[i].store_ns += store.stoker;
		figures->together[i].bytes += (uint64_t)blocks * block_bytes;
	}
	return end_worker(r, i);
}

/* ---- the report ---------------------------------------------------------------------------------- */

static void report_latency(struct report *report, const char *name, const struct latency *latency, const char *why)
{
	const struct { const char *what, *quantile; uint64_t value; } rows[] = {
		{ "latency", "p50", latency->stoker_p50 }, { "latency", "p99", latency->stoker_p99 },
		{ "bare", "p50", latency->bare_p50 },	   { "bare", "p99", latency->bare_p99 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char field[40];

		snprintf(field, sizeof(field), "%s_%s_ns_%s", rows[i].what, name, rows[i].quantile);
		if (rows[i].value)
			report_count(report, field, rows[i].value);
		else
			report_skip(report, field, why);
	}
}

/* What was not measured is null, never 0. */
static void set_rate(json_t *row, const char *name, const struct point *point, double value)
{
	json_object_set_new(row, name, point->left_out ? json_null() : json_real(value));
}

static json_t *points_json(void)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < figures->n_points; i++) {
		const struct point *point = &figures->points[i];

		for (uint32_t d = 0; d < DIRECTIONS; d++) {
			const uint64_t rounds = d == BOTH ? 2 * point->rounds_both : point->rounds;
			const uint64_t bytes = rounds * point->block_bytes * point->blocks;
			const struct gpu_times *ns = &point->ns[d];
			json_t *row = json_object();
			char why[200];

			json_object_set_new(row, "block_bytes", json_integer(point->block_bytes));
			json_object_set_new(row, "blocks", json_integer(point->blocks));
			json_object_set_new(row, "direction", json_string(direction_names[d]));
			json_object_set_new(row, "rounds", json_integer(d == BOTH ? point->rounds_both : point->rounds));
			set_rate(row, "bytes_per_s", point, rate(bytes, ns->stoker));
			set_rate(row, "plain_bytes_per_s", point, rate(bytes, ns->whole));
			set_rate(row, "pieces_bytes_per_s", point, rate(bytes, ns->pieces));
			if (point->left_out)
				json_object_set_new(row, "skipped", json_string(why_left_out(point, why, sizeof(why))));
			json_array_append_new(list, row);
		}
	}
	return list;
}

static void report_together(struct report *report, const char *why)
{
	double load = 0, store = 0;
	bool all = true;

	for (uint32_t i = 0; i < WORKERS; i++) {
		load += rate(figures->together[i].bytes, figures->together[i].load_ns);
		store += rate(figures->together[i].bytes, figures->together[i].store_ns);
		all &= figures->together[i].load_ns > 0;
	}
	report_rate(report, "two_workers_load_bytes_per_s", load, all, why);
	report_rate(report, "two_workers_store_bytes_per_s", store, all, why);
}

static void fill_report(struct report *report)
{
	const char *why = figures->refused[0] ? "the GPU could not be used" : "there was no time left for it";

	if (!figures->refused[0]) {
		report_text(report, "device", figures->device);
		report_count(report, "driver_version", (uint64_t)figures->version);
		report_text(report, "ways", figures->how);
	} else {
		report_skip(report, "device", figures->refused);
		report_skip(report, "driver_version", why);
		report_skip(report, "ways", why);
	}
	report_latency(report, "4k", &figures->small, why);
	report_latency(report, "16m", &figures->large,
		       (16u << 20) <= options.transfer ? why : "a transfer of 16 MiB is more than --transfer allows");
	if (figures->n_points > 0)
		report_json(report, "points", points_json());
	else
		report_skip(report, "points", why);
	report_together(report, why);
	if (!figures->refused[0])
		report_count(report, "bounced_bytes", figures->bounced - figures->bounced_before);
	else
		report_skip(report, "bounced_bytes", why);
	/* Where no byte was moved none was compared. */
	if (figures->refused[0] && figures->wrong[0] + figures->wrong[1] == 0)
		report_skip(report, "wrong_bytes", why);
	else
		report_count(report, "wrong_bytes", figures->wrong[0] + figures->wrong[1]);
}

static bool options_are_right(void)
{
	if (strcmp(options.memory, "plain") != 0 && strcmp(options.memory, "segments") != 0) {
		bench_say("--memory takes plain or segments, not \"%s\"", options.memory);
		return false;
	}
	if (options.arena < 4 * options.transfer) {
		bench_say("an arena of four transfers at least is needed: raise --arena, or lower --transfer");
		return false;
	}
	if (options.progress) {
		const int fd = open(options.progress, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

		if (fd < 0) {
			bench_say("--progress \"%s\" could not be opened: %s", options.progress, strerror(errno));
			return false;
		}
		close(fd);
	}
	return true;
}

static bool measure(const struct own_broker_config *config)
{
	bool ok = own_broker_start(config, &broker) == 0 && own_broker_serving(&broker);

	ok = ok && crew_run(&broker, 1, work_alone, NULL, NULL);
	if (ok && !figures->refused[0])
		ok = crew_run(&broker, WORKERS, work_together, NULL, NULL);
	if (broker.page)
		figures->bounced = own_broker_counter(&broker, STOKER_COUNTER_GPU_BOUNCED_BYTES);
	return own_broker_stop(&broker) && ok;
}

static int run(struct report *report)
{
	struct own_broker_config config = { .memory = options.arena };
	bool ok;

	if (!options_are_right())
		return BENCH_USAGE;
	begun_ns = now_ns();
	figures = machine_shared(sizeof(*figures));
	if (!figures) {
		bench_say("no memory for the figures");
		return BENCH_FAILED;
	}
	if (options.library)
		own_broker_set(&config, "gpu.library=%s", options.library);
	ok = crew_run(NULL, 1, work_probe, NULL, NULL);
	if (ok && !figures->refused[0])
		ok = measure(&config);
	if (ok)
		fill_report(report);
	if (figures->wrong[0] + figures->wrong[1])
		bench_say("%llu bytes were wrong", (unsigned long long)(figures->wrong[0] + figures->wrong[1]));
	return ok && figures->wrong[0] + figures->wrong[1] == 0 ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_gpu = {
	.name = "gpu",
	.meaning = "load and store between arena and a GPU, beside plain copies",
	.options = option_rows,
	.broker = true,
	.run = run,
};
