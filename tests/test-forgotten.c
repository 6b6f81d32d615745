/*
 * Models that were forgotten for others' sake, and come back: what they had is gone, or is what it was. Never is
 * anything served that a reset had killed, whatever of it lies on a disk still.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/raw-client.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

static struct worker w;

static void setup(void)
{
	whole_make();
	whole.tier = true;
	whole.options[0] = "--set=limits.models=1";
}

/* The worker leaves, and its model is forgotten: there is one place, and somebody wants it for another. */
static void forget(void)
{
	const uint64_t forgotten = whole_counter(STOKER_COUNTER_MODELS_FORGOTTEN);
	const uint64_t gone = whole_counter(STOKER_COUNTER_CLIENTS_GONE);
	struct raw raw;

	worker_end(&w);
	await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == gone + 1);
	ck_assert_int_eq(raw_attach(whole.name, &raw), 0);
	ck_assert_int_eq(raw_model(&raw, "another", 4096), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_MODELS_FORGOTTEN), forgotten + 1);
	raw_close(&raw);
	await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == gone + 2);
}

static void store(uint32_t n)
{
	worker_stores(&w, 0, n);
	whole_await_gauge(STOKER_GAUGE_WRITEBACK, 0);
}

static void reset(void)
{
	ck_assert_msg(stoker_reset(w.c, w.model, NULL, 30000) == 0, "%s", stoker_error(w.c));
}

static uint32_t found(uint32_t n)
{
	return worker_looks_up(&w, 0, n).n;
}

static void arena_is_lost(void)
{
	char path[128];

	snprintf(path, sizeof(path), "/dev/shm%s.arena", whole.name);
	ck_assert_int_eq(unlink(path), 0);
	snprintf(path, sizeof(path), "/dev/shm%s.table", whole.name);
	ck_assert_int_eq(unlink(path), 0);
}

/* With the model known from its file, so that all that tables name of it is looked at. */
static void start_anew(void)
{
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	arena_is_lost();
	whole_start();
	worker_start(&w);
}

START_TEST(a_model_that_was_forgotten_begins_empty_and_is_as_good_as_new)
{
	whole_start();
	worker_start(&w);
	store(16);
	forget();
	worker_start(&w);
	ck_assert_uint_eq(found(16), 0);
	store(16);
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
	start_anew();
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(what_a_reset_killed_stays_dead_though_its_model_is_forgotten_and_the_broker_killed)
{
	uint32_t n;

	whole_start();
	worker_start(&w);
	store(16);
	reset();
	store(8);
	forget();
	/* Whether the tier has noted yet that they are gone is anybody's guess. */
	whole_end(SIGKILL);
	arena_is_lost();
	whole_start();
	worker_start(&w);
	ck_assert_uint_eq(found(16), 0);	/* when the tables were read nobody knew the model */
	worker_end(&w);
	start_anew();
	n = found(16);
	ck_assert_uint_le(n, 8);
	worker_gets(&w, 0, 16, n);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_tier_that_was_away_does_not_revive_what_was_reset_before_its_model_was_forgotten)
{
	whole_start();
	worker_start(&w);
	store(16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);

	whole.tier = false;
	whole_start();
	worker_start(&w);
	ck_assert_uint_eq(found(16), 16);	/* in the arena */
	reset();
	ck_assert_uint_eq(found(16), 0);
	forget();
	ck_assert_int_eq(whole_end(SIGTERM), 0);

	whole.tier = true;
	whole_start();
	worker_start(&w);
	ck_assert_uint_eq(found(16), 0);
	worker_end(&w);
	start_anew();
	ck_assert_uint_eq(found(16), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_DISK), 0);
	store(16);
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("forgotten models");
	TCase *tests = tcase_create("forgotten");

	tcase_add_checked_fixture(tests, setup, whole_clean);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_model_that_was_forgotten_begins_empty_and_is_as_good_as_new);
	tcase_add_test(tests, what_a_reset_killed_stays_dead_though_its_model_is_forgotten_and_the_broker_killed);
	tcase_add_test(tests, a_tier_that_was_away_does_not_revive_what_was_reset_before_its_model_was_forgotten);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
