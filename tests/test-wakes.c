/*
 * One worker alone, with pauses: the core goes to sleep at every instant at which it can, with copies,
 * reads, writes and checks under way, and whatever it forgets then nobody else brings to its mind. A
 * forgotten job shows as one that never ends, or that its deadline ends, which is counted.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/random.h"
#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

enum { CHAINS = 24, LENGTH = 32, ROUNDS = 800 };

/* Pauses around the time after which a client is parked, and the core sleeps. */
static const char *const spins[] = { "--set=broker.spin_us=0", "--set=broker.spin_us=20", "--set=broker.spin_us=50" };

static void setup(void)
{
	whole_make();
	whole.tier = true;
	whole.memory = "12M";	/* less than what is stored: the disk is at work both ways */
}

static void pause_for_a_while(struct rng *rng)
{
	if (rng_below(rng, 2))
		usleep(rng_below(rng, 150));
}

/* As an event loop waits. */
static void await_by_descriptor(struct worker *w, struct stoker_job job)
{
	struct pollfd wait = { .fd = stoker_fd(w->c), .events = POLLIN };
	struct stoker_job done;

	while (stoker_poll(w->c, job) != STOKER_STAGE_DONE) {
		if (stoker_arm(w->c) == 0)
			expect(poll(&wait, 1, 60000) > 0);
		stoker_done(w->c, &done, 1);
	}
}

static struct stoker_result end(struct worker *w, struct rng *rng, struct stoker_job job)
{
	pause_for_a_while(rng);
	if (rng_below(rng, 3) == 0)
		await_by_descriptor(w, job);
	return worker_finish(w, job);
}

static void retrieve(struct worker *w, struct rng *rng, const struct stoker_result *found, uint32_t first, uint32_t turn)
{
	const struct stoker_retrieve_options options = {
		.size = sizeof(options), .flags = STOKER_RETRIEVE_END_SHARE | (turn % 2 ? STOKER_RETRIEVE_READY : 0),
		.ready_index = 1, .ready_value = turn,
	};
	struct stoker_result result;
	struct stoker_job job;

	worker_wipe(w, 0xa5);
	ck_assert_int_eq(worker_retrieve(w, &found->lease, found->n, 0, 1, &options, &job), 0);
	if (turn % 2) {
		pause_for_a_while(rng);
		stoker_ready_set(w->c, 1, turn);
	}
	result = end(w, rng, job);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, found->n);
	for (uint32_t i = 0; i < found->n; i++)
		expect(worker_holds(w->memory, i, first + i));
}

static void round_of(struct worker *w, struct rng *rng, uint32_t turn)
{
	const uint32_t first = rng_below(rng, CHAINS) * 1000, n = 1 + rng_below(rng, LENGTH);
	struct stoker_key keys[LENGTH];
	struct stoker_result found;
	struct stoker_job job;

	if (rng_below(rng, 4) == 0) {
		ck_assert_int_eq(stoker_ping(w->c, &job), 0);
		ck_assert_uint_eq(end(w, rng, job).status, STOKER_STATUS_OK);
		pause_for_a_while(rng);
	}
	worker_keys(keys, first, n);
	ck_assert_int_eq(stoker_lookup(w->c, w->model, keys, n, NULL, &job), 0);
	found = end(w, rng, job);
	ck_assert_uint_eq(found.status, STOKER_STATUS_OK);
	if (found.n > 0)
		retrieve(w, rng, &found, first, turn);
	if (found.n == n)
		return;
	pause_for_a_while(rng);
	ck_assert_int_eq(worker_store(w, first + found.n, n - found.n, 0, 1, &job), 0);
	ck_assert_uint_eq(end(w, rng, job).status, STOKER_STATUS_OK);
}

START_TEST(no_job_waits_for_another_event_than_its_own)
{
	const uint32_t rounds = getenv("STOKER_CHECK_LONG") ? 20 * ROUNDS : ROUNDS;
	struct rng rng = { (uint64_t)_i };
	struct worker w;

	whole.options[0] = spins[_i];
	whole_start();
	worker_start(&w);
	for (uint32_t turn = 1; turn <= rounds; turn++)
		round_of(&w, &rng, turn);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_JOBS_DEADLINE), 0);
	expect(whole_counter(STOKER_COUNTER_HITS_DISK) > 0 && whole_counter(STOKER_COUNTER_CORE_SLEEPS) > 0);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wakes");
	TCase *wakes = tcase_create("wakes");

	tcase_add_checked_fixture(wakes, setup, whole_clean);
	tcase_set_timeout(wakes, 600);
	tcase_add_loop_test(wakes, no_job_waits_for_another_event_than_its_own, 0, sizeof(spins) / sizeof(spins[0]));
	suite_add_tcase(suite, wakes);
	return suite_run(suite);
}
