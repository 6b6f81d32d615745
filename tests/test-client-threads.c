/*
 * A handle belongs to one thread at a time: while one thread sleeps in a call, every call of another one
 * answers -EBUSY, asks the broker nothing, and leaves the first one to its end.
 */
#include <pthread.h>

#include "tests/client-rig.h"

static struct rig rig;
static struct stoker_job asleep;
static struct stoker_key key;
static const struct stoker_lease lease = { { 1, 2 } };

static void begin(void)
{
	rig_full(&rig, "threads", NULL, NULL);
	rig_keys(&key, 1, 1);
}

static void end(void)
{
	rig_end(&rig);
}

/* ---- every call that takes a handle, and can be refused -------------------------------------------- */

static struct stoker_job job;
static const uint32_t ids[RIG_BLOCKS] = { 0, 1, 2, 3 };

static int lookup(void)
{
	return stoker_lookup(rig.c, rig.model, &key, 1, NULL, &job);
}

static int store(void)
{
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = 1, .ids = ids };

	return stoker_store(rig.c, rig.model, &key, 1, &blocks, 1, NULL, &job);
}

static int retrieve(void)
{
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = 1, .ids = ids };

	return stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, NULL, &job);
}

static int release(void)
{
	return stoker_release(rig.c, &lease, 0);
}

static int end_session(void)
{
	return stoker_end_session(rig.c, 7);
}

static int ping(void)
{
	return stoker_ping(rig.c, &job);
}

static int cancel(void)
{
	return stoker_cancel(rig.c, asleep);
}

static int progress(void)
{
	struct stoker_progress is = { .size = sizeof(is) };

	return stoker_progress(rig.c, asleep, &is);
}

static int finish(void)
{
	return stoker_finish(rig.c, asleep, NULL, NULL, 0, NULL, 0);
}

static int wait_too(void)
{
	return stoker_wait(rig.c, asleep, 1000);
}

static int arm(void)
{
	return stoker_arm(rig.c);
}

static int reattach(void)
{
	return stoker_reattach(rig.c);
}

static int map(void)
{
	struct stoker_mapping mapping = { .size = sizeof(mapping) };

	return stoker_map(rig.c, &lease, 0, 0, 0, &mapping);
}

static int unmap(void)
{
	struct stoker_mapping mapping = { .size = sizeof(mapping) };

	return stoker_unmap(rig.c, &mapping);
}

static int model_open_digest(void)
{
	const uint8_t digest[32] = { 1 };
	struct stoker_model *model;

	return stoker_model_open_digest(rig.c, digest, &model);
}

static int model_open(void)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_plane_bytes row = { .bytes = 256 };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 64, .name = "other", .revision = "1", .groups = &group,
		.n_groups = 1, .n_rows = 1, .rows = &row,
	};
	struct stoker_model *model;

	return stoker_model_open(rig.c, &description, &model);
}

static int reset(void)
{
	return stoker_reset(rig.c, rig.model, NULL, 1000);
}

static int region_add(void)
{
	const struct stoker_range range = { .fd = 0, .bytes = 4096 };
	struct stoker_region *region;

	return stoker_region_add(rig.c, &range, 1, &region);
}

static int region_drop(void)
{
	return stoker_region_drop(rig.region);
}

static int pool_add(void)
{
	const struct stoker_plane plane = { .region = rig.region, .bytes = 256, .block_stride = 256 };
	struct stoker_pool *pool;

	return stoker_pool_add(rig.model, 0, 0, 16, &plane, 1, &pool);
}

static int pool_drop(void)
{
	return stoker_pool_drop(rig.pool);
}

static int (*const calls[])(void) = {
	lookup, store, retrieve, release, end_session, ping, cancel, progress, finish, wait_too, arm, reattach, map, unmap,
	model_open_digest, model_open, reset, region_add, region_drop, pool_add, pool_drop,
};
#define CALLS (int)(sizeof(calls) / sizeof(calls[0]))

/* ---- two threads ------------------------------------------------------------------------------------ */

static void *sleep_in_wait(void *arg)
{
	*(int *)arg = stoker_wait(rig.c, asleep, UINT64_MAX);
	return NULL;
}

START_TEST(a_call_that_finds_another_one_running_answers_busy_and_touches_nothing)
{
	struct fake_request request, none;
	struct stoker_job done;
	pthread_t sleeper;
	int waited = 1;

	ck_assert_int_eq(stoker_ping(rig.c, &asleep), 0);
	request = rig_take(&rig, STOKER_OP_PING);
	ck_assert_int_eq(pthread_create(&sleeper, NULL, sleep_in_wait, &waited), 0);
	while (!fake_is_waited_for(rig.fake, asleep.slot, asleep.generation))
		usleep(1000);
	for (int twice = 0; twice < 2; twice++)
		ck_assert_int_eq(calls[_i](), -EBUSY);
	ck_assert_uint_eq(stoker_done(rig.c, &done, 1), 0);
	ck_assert_int_eq(fake_take(rig.fake, &none), 0);
	rig_done(&rig, &request, STOKER_STATUS_OK);
	ck_assert_int_eq(pthread_join(sleeper, NULL), 0);
	ck_assert_int_eq(waited, 0);
	/* The handle is free again, and its objects are as they were. */
	ck_assert_uint_eq(rig_finish(&rig, asleep).status, STOKER_STATUS_OK);
	ck_assert_int_eq(stoker_pool_drop(rig.pool), 0);
	ck_assert_int_eq(stoker_region_drop(rig.region), 0);
	ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
	rig_take(&rig, STOKER_OP_PING);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-threads");
	TCase *tests = tcase_create("one at a time");

	tcase_add_checked_fixture(tests, begin, end);
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, a_call_that_finds_another_one_running_answers_busy_and_touches_nothing, 0, CALLS);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
