/*
 * start: from exec of the daemon to the first answer, how fast the arena is populated behind it, and what
 * lookups take meanwhile and afterwards.
 */
#include "config.h"

#include <errno.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/chain.h"
#include "src/bench/machine.h"
#include "src/bench/own-broker.h"

#define KEYS	    4u
#define SAMPLES_MAX (1u << 22)
#define STEP	    16u		/* lookups one after the other */
#define PAUSE_NS    20000	/* after them, asleep: a client that spins would take the core that populates */
#define AFTER_NS    2000000000ull

static struct {
	uint64_t memory;
} options = { .memory = 4ull << 30 };

static const struct option_row option_rows[] = {
	{ "memory", OPTION_SIZE, &options.memory, 64u << 20, 0, "S", "size of the arena" },
	{ 0 },
};

struct start {
	struct own_broker broker;
	struct mover mover;
	uint64_t first_answer_ns;
	uint64_t began_bytes, began_ns, bytes, ended_ns;	/* of populating, as seen from here */
	struct samples *during, *after;
};

static int first_answer(struct start *start)
{
	const struct mover_config config = {
		.broker = start->broker.name, .model = "start", .object_bytes = 4096, .blocks = 1, .window = KEYS,
	};
	const struct stoker_options patient = { .size = sizeof(patient), .attach_timeout_ms = BENCH_ATTACH_MS };
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_job job;
	int r;

	/* The pool that comes with a mover is no part of an answer. */
	r = stoker_attach(start->broker.name, &patient, &start->mover.stoker);
	if (r < 0)
		return mover_fail(&start->mover, r, "could not attach: %s", stoker_attach_error());
	r = stoker_ping(start->mover.stoker, &job);
	if (r == 0)
		r = stoker_wait(start->mover.stoker, job, 10000000);
	if (r == 0)
		r = stoker_finish(start->mover.stoker, job, &result, NULL, 0, NULL, 0);
	if (r < 0)
		return mover_fail(&start->mover, r, "the first request failed: %s", stoker_error(start->mover.stoker));
	start->first_answer_ns = now_ns() - start->broker.started_ns;
	stoker_close(start->mover.stoker);
	return mover_open(&config, &start->mover);
}

/* The first chain, as soon as there is an extent to hold it. */
static int store_first(struct start *start)
{
	const uint64_t until = now_ns() + 10000000000ull;
	int r;

	do {
		r = chain_store(&start->mover, 0, KEYS, NULL);
		if (r == -ENOSPC || r == -EIO)
			usleep(1000);
	} while ((r == -ENOSPC || r == -EIO) && now_ns() < until);
	return r;
}

/*
 * As a scheduler does in a step: some questions, then it is away for a while. With a pause after each, chance
 * decided what was measured: a sleep of 20 us takes some 40 here, and after 50 the broker sleeps too.
 */
static int some_lookups(struct start *start, struct samples *to)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct stoker_result result;
	int r = 0;

	for (uint32_t i = 0; i < STEP && r == 0; i++) {
		uint64_t took = 0;

		r = chain_lookup(&start->mover, 0, KEYS, &result, &took);
		if (r < 0)
			break;
		samples_add(to, took);
		stoker_release(start->mover.stoker, &result.lease, 0);
	}
	nanosleep(&pause, NULL);
	return r;
}

static int measure(struct start *start)
{
	const uint64_t total = own_broker_gauge(&start->broker, STOKER_GAUGE_ARENA_BYTES);
	uint64_t grown;
	int r = store_first(start);

	start->began_bytes = start->bytes = own_broker_gauge(&start->broker, STOKER_GAUGE_ARENA_POPULATED);
	start->began_ns = start->ended_ns = grown = now_ns();
	/* It is over when all is there, or when it has not grown for five seconds: then the machine had no more. */
	while (r == 0 && start->bytes < total && now_ns() - grown < 5000000000ull) {
		const uint64_t bytes = own_broker_gauge(&start->broker, STOKER_GAUGE_ARENA_POPULATED);

		if (bytes != start->bytes)
			start->ended_ns = grown = now_ns();
		start->bytes = bytes;
		r = some_lookups(start, start->during);
	}
	for (const uint64_t begin = now_ns(); r == 0 && now_ns() - begin < AFTER_NS;)
		r = some_lookups(start, start->after);
	return r;
}

static void fill_report(struct report *report, struct start *start)
{
	report_count(report, "first_answer_ns", start->first_answer_ns);
	report_count(report, "ready_ns", start->broker.ready_ns - start->broker.started_ns);
	report_rate(report, "populate_bytes_per_s",
		    (double)(start->bytes - start->began_bytes) * 1e9 / (double)(start->ended_ns - start->began_ns),
		    start->bytes > start->began_bytes, "the arena was populated before the first look");
	report_rate(report, "lookup_ns_p99_during", (double)samples_quantile(&start->during, 1, 0.99),
		    start->during->n >= 100, "the arena was populated before a hundred lookups were over");
	report_real(report, "lookup_ns_p99_after", (double)samples_quantile(&start->after, 1, 0.99));
	report_count(report, "lookups_during", start->during->n);
	report_count(report, "populated_bytes", start->bytes);
}

static int run(struct report *report)
{
	const struct own_broker_config config = { .memory = options.memory };
	static struct start start;
	bool ok;
	int r;

	if (bench_common.attach) {
		bench_say("start measures a start: it takes no --attach");
		return BENCH_USAGE;
	}
	start.during = samples_new(SAMPLES_MAX);
	start.after = samples_new(SAMPLES_MAX);
	ok = start.during && start.after && own_broker_start(&config, &start.broker) == 0;
	if (ok) {
		prctl(PR_SET_TIMERSLACK, 1000ul);
		r = first_answer(&start);
		if (r == 0)
			r = measure(&start);
		if (r < 0)
			bench_say("%s", start.mover.why);
		ok = r == 0;
	}
	if (ok)
		fill_report(report, &start);
	mover_close(&start.mover);
	ok = own_broker_stop(&start.broker) && ok;
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_start = {
	.name = "start",
	.meaning = "from exec to the first answer; populating; lookups meanwhile",
	.options = option_rows,
	.broker = true,
	.run = run,
};
