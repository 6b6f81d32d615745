/*
 * rtt: what a request costs that asks for nothing. A PING through the rings with both sides awake, one
 * poll of a job that is pending, and a PING to a broker that sleeps; in turns with the bare ping-pong
 * of two words and the bare wake by a pipe, between the same two cores.
 *
 * A PING counts from submit until DONE is seen by polling.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "src/bench/bench.h"
#include "src/bench/mover.h"
#include "src/bench/floor.h"
#include "src/bench/machine.h"
#include "src/bench/own-broker.h"
#include "src/bench/payload.h"

#define BLOCK	 2000u		/* round trips of one kind before the other's turn */
#define WAKES	 20u
#define QUIET_NS 400000u	/* after which a broker that polls for 50 us has long been asleep */

static struct {
	uint64_t rounds;
} options = { .rounds = 50 };

static const struct option_row option_rows[] = {
	{ "rounds", OPTION_COUNT, &options.rounds, 1, 100000, "N", "turns of 2,000 round trips and 20 wakes of each kind" },
	{ 0 },
};

struct rtt {
	struct own_broker broker;
	struct mover mover;
	struct floor *floor;
	struct samples *ping, *wake, *poll, *floor_ping, *floor_wake;
};

/* In ticks; 0 if it failed. */
static uint64_t ping(struct mover *mover)
{
	struct stoker_result result = { .size = sizeof(result) };
	const uint64_t start = tick_now();
	struct stoker_job job;
	uint64_t took;

	if (stoker_ping(mover->stoker, &job) < 0)
		return 0;
	while (stoker_poll(mover->stoker, job) != STOKER_STAGE_DONE)
		;
	took = tick_now() - start;
	if (stoker_finish(mover->stoker, job, &result, NULL, 0, NULL, 0) < 0 || result.status != STOKER_STATUS_OK)
		return 0;
	return took;
}

static void stay_quiet(void)
{
	const uint64_t start = now_ns();

	/* Awake, as an engine's thread is: only the other side is to sleep. */
	while (now_ns() - start < QUIET_NS)
		cpu_relax();
}

static bool ping_block(struct rtt *rtt)
{
	for (uint32_t i = 0; i < BLOCK + 64; i++) {
		const uint64_t took = ping(&rtt->mover);

		if (took == 0)
			return false;
		if (i >= 64)
			samples_add(rtt->ping, took);
	}
	return true;
}

static bool wake_block(struct rtt *rtt)
{
	for (uint32_t i = 0; i < WAKES; i++) {
		uint64_t took;

		stay_quiet();
		samples_add(rtt->floor_wake, floor_wake(rtt->floor));
		stay_quiet();
		took = ping(&rtt->mover);
		if (took == 0)
			return false;
		samples_add(rtt->wake, took);
	}
	return true;
}

/* A store that waits for a ready word is pending for as long as one likes. */
static int poll_block(struct rtt *rtt)
{
	static uint32_t value;
	const struct stoker_key key = payload_key(value);
	const struct stoker_store_options store = {
		.size = sizeof(store),
		.flags = STOKER_STORE_READY,
		.ready_value = ++value,
	};
	struct mover *mover = &rtt->mover;
	struct stoker_blocks blocks;
	struct stoker_result result;
	struct stoker_job job;
	uint8_t chunk;
	int r;

	mover_choose(mover, 0, 1);
	blocks = mover_blocks(mover, 0, 1);
	r = stoker_store(mover->stoker, mover->model, &key, 1, &blocks, 1, &store, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a store: %s", stoker_error(mover->stoker));
	for (uint32_t i = 0; i < BLOCK / MOVER_POLLS; i++) {
		const uint64_t start = tick_now();

		for (uint32_t p = 0; p < MOVER_POLLS; p++)
			(void)stoker_poll(mover->stoker, job);
		samples_add(rtt->poll, tick_now() - start);
	}
	stoker_ready_set(mover->stoker, 0, value);
	return mover_finish(mover, "store", job, &result, &chunk, 1);
}

static int measure(struct rtt *rtt)
{
	for (uint64_t i = 0; i < options.rounds; i++) {
		int r;

		stay_quiet();		/* the broker has let go of the core that the echo needs */
		floor_ping_pong(rtt->floor, BLOCK, rtt->floor_ping);
		if (!ping_block(rtt) || !wake_block(rtt))
			return mover_fail(&rtt->mover, -EIO, "a ping failed: %s", stoker_error(rtt->mover.stoker));
		r = poll_block(rtt);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A broker that was there before gets its cores back, however this ends. */
static struct machine_lent lent;

static void on_signal(int number)
{
	machine_give_back(&lent);
	signal(number, SIG_DFL);
	raise(number);
}

static int pin_broker(const struct rtt *rtt, int core)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	const struct sigaction action = { .sa_handler = on_signal };
	const pid_t thread = machine_thread((pid_t)rtt->broker.page->pid, "stokerd-core");

	if (thread < 0)
		return thread;
	if (!bench_common.attach)
		return machine_pin(thread, core);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
	return machine_lend(thread, core, &lent);
}

static bool prepare(struct rtt *rtt)
{
	struct own_broker_config config = { .memory = 128u << 20 };
	struct mover_config mover = { .model = "rtt", .object_bytes = 4096, .blocks = 1, .window = 1 };
	const int core = machine_core(1);

	if (own_broker_start(&config, &rtt->broker) < 0 || !own_broker_serving(&rtt->broker))
		return false;
	rtt->floor = floor_start(core);
	if (!rtt->floor) {
		bench_say("could not start the other end of the ping-pong");
		return false;
	}
	mover.broker = rtt->broker.name;
	if (mover_open(&mover, &rtt->mover) < 0) {
		bench_say("%s", rtt->mover.why);
		return false;
	}
	if (pin_broker(rtt, core) < 0 || machine_pin(0, machine_core(0)) < 0) {
		bench_say("could not pin the broker's core thread and this one to two cores");
		return false;
	}
	return true;
}

static void report_quantile(struct report *report, const char *field, struct samples *samples, double q, double per)
{
	report_real(report, field, (double)samples_quantile(&samples, 1, q) * tick_ns() / per);
}

static void fill_report(struct report *report, const struct rtt *rtt)
{
	report_quantile(report, "floor_ns_p50", rtt->floor_ping, 0.5, 1);
	report_quantile(report, "floor_ns_p99", rtt->floor_ping, 0.99, 1);
	report_quantile(report, "noop_ns_p50", rtt->ping, 0.5, 1);
	report_quantile(report, "noop_ns_p99", rtt->ping, 0.99, 1);
	report_quantile(report, "poll_ns_p50", rtt->poll, 0.5, MOVER_POLLS);
	report_quantile(report, "pipe_ns_p50", rtt->floor_wake, 0.5, 1);
	report_quantile(report, "wake_ns_p50", rtt->wake, 0.5, 1);
	report_count(report, "round_trips", rtt->ping->n);
}

static int run(struct report *report)
{
	static struct rtt rtt;
	bool ok;

	if (machine_cores() < 2) {
		static const char *const fields[] = { "floor_ns_p50", "floor_ns_p99", "noop_ns_p50", "noop_ns_p99",
						      "poll_ns_p50", "pipe_ns_p50", "wake_ns_p50" };

		for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
			report_skip(report, fields[i], "a round trip between two cores needs two of them");
		return BENCH_OK;
	}
	rtt.ping = samples_new(options.rounds * BLOCK);
	rtt.floor_ping = samples_new(options.rounds * BLOCK);
	rtt.poll = samples_new(options.rounds * BLOCK);
	rtt.wake = samples_new(options.rounds * WAKES);
	rtt.floor_wake = samples_new(options.rounds * WAKES);
	ok = rtt.ping && rtt.floor_ping && rtt.poll && rtt.wake && rtt.floor_wake && prepare(&rtt);
	if (ok && measure(&rtt) < 0) {
		bench_say("%s", rtt.mover.why);
		ok = false;
	}
	if (ok)
		fill_report(report, &rtt);
	machine_give_back(&lent);
	mover_close(&rtt.mover);
	floor_end(rtt.floor);
	ok = own_broker_stop(&rtt.broker) && ok;
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_rtt = {
	.name = "rtt",
	.meaning = "a PING through the rings beside a bare ping-pong, and the wake of a sleeping broker",
	.options = option_rows,
	.broker = true,
	.run = run,
};
