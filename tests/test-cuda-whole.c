/*
 * The whole with a GPU: stokerd as it is built, its copier, libstoker in a worker, and the fake driver under both.
 * What is stored from device memory comes back to it; copiers and workers that are killed cost what they
 * have to, and nothing of anybody else's.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda-whole-rig.h"
#include "tests/suite.h"

/* Little may be pinned: the bounce buffer of 64 MiB, and 2. */
static void setup_limited(void)
{
	setenv("FAKE_CUDA_PIN_MAX", "69206016", 1);
	gpu_setup();
	unsetenv("FAKE_CUDA_PIN_MAX");
	cuda = rig_open();
}

static void setup_limited_and_quiet(void)
{
	gpu_further_option = "--set=broker.log_level=error";
	setup_limited();
}

/* ---- tests ------------------------------------------------------------------------------------- */

START_TEST(what_is_stored_from_a_gpu_comes_back_to_it)
{
	struct gpu_worker g;

	gpu_start(&g, _i);
	gpu_stores(&g, 1000, 20);
	gpu_gets(&g, 1000, 20);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_GPU_IMPORTS), 1);
	ck_assert_uint_ge(whole_counter(STOKER_COUNTER_GPU_COPIES), 2);
	await(whole_counter(STOKER_COUNTER_GPU_LOAD_BYTES) == whole_counter(STOKER_COUNTER_LOAD_BYTES));
	await(whole_counter(STOKER_COUNTER_GPU_STORE_BYTES) == whole_counter(STOKER_COUNTER_STORE_BYTES));
	gpu_end(&g);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
}
END_TEST

START_TEST(a_gpu_and_the_host_share_what_is_stored)
{
	struct gpu_worker g;
	struct worker w;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 10);
	worker_start(&w);
	worker_gets(&w, 1000, 10, 10);
	worker_stores(&w, 2000, 10);
	gpu_gets(&g, 2000, 10);
	worker_end(&w);
	gpu_end(&g);
}
END_TEST

START_TEST(planes_on_several_devices_are_no_pool)
{
	const int fd = memfd_create("pool", MFD_CLOEXEC);
	const struct stoker_range range = { .fd = fd, .bytes = WORKER_POOL };
	struct stoker_plane planes[WORKER_ROWS];
	struct stoker_region *host;
	struct stoker_pool *pool;
	struct gpu_worker g;

	gpu_start(&g, false);
	ck_assert_int_eq(posix_fallocate(fd, 0, WORKER_POOL), 0);
	ck_assert_msg(stoker_region_add(g.w.c, &range, 1, &host) == 0, "%s", stoker_error(g.w.c));
	for (uint16_t i = 0; i < WORKER_ROWS; i++)
		planes[i] = (struct stoker_plane){ .region = i == 2 ? host : g.w.region, .layer = i / 2, .plane = i % 2,
						   .bytes = WORKER_BYTES, .offset = i * WORKER_PLANE,
						   .block_stride = WORKER_BYTES };
	ck_assert_int_eq(stoker_pool_add(g.w.model, 0, 0, WORKER_POOL_BLOCKS, planes, WORKER_ROWS, &pool), -EINVAL);
	ck_assert_ptr_nonnull(strstr(stoker_error(g.w.c), "several devices"));
	close(fd);
	gpu_end(&g);
}
END_TEST

START_TEST(a_copier_that_is_killed_costs_its_jobs_and_is_replaced)
{
	struct stoker_result result;
	struct gpu_worker g;
	struct stoker_job job;
	struct worker w;

	gpu_start(&g, _i);
	worker_start(&w);
	gpu_stores(&g, 1000, 10);
	const pid_t first = gpu_copier();
	ck_assert_int_gt(first, 0);
	atomic_store(&rig_control->hold, 1);
	worker_fill(g.w.memory, 0, 3000);
	ck_assert_int_eq(worker_store(&g.w, 3000, 4, 0, 1, &job), 0);
	usleep(20000);
	ck_assert_int_eq(stoker_poll(g.w.c, job) == STOKER_STAGE_DONE, 0);
	kill(first, SIGKILL);
	result = worker_finish(&g.w, job);
	ck_assert_uint_ne(result.status, STOKER_STATUS_OK);
	atomic_store(&rig_control->hold, 0);
	worker_stores(&w, 4000, 5);	/* nobody else notices */
	worker_gets(&w, 4000, 5, 5);
	gpu_until_well(&g, 5000);
	ck_assert_int_ne(gpu_copier(), first);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_GPU_RESTARTS), 1);
	gpu_gets(&g, 1000, 10);
	ck_assert_uint_eq(worker_looks_up(&w, 3000, 4).n, 0);
	worker_end(&w);
	gpu_end(&g);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
}
END_TEST

/* A worker in a process of its own, which opens the driver there: it stores, says so, and waits. */
static pid_t worker_child(bool virtual, uint32_t first, int *ret_said)
{
	int said[2];
	char byte;

	ck_assert_int_eq(pipe(said), 0);
	const pid_t child = whole_fork();
	if (child == 0) {
		struct gpu_worker g;

		cuda = rig_open();
		gpu_start(&g, virtual);
		gpu_stores(&g, first, 5);
		if (write(said[1], "!", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(said[1]);
	ck_assert_int_eq(read(said[0], &byte, 1), 1);
	*ret_said = said[0];
	return child;
}

START_TEST(a_worker_that_is_killed_leaves_no_memory_in_use)
{
	int stays_said, said;
	const pid_t stays = worker_child(false, 6000, &stays_said);	/* its copier is there, and stays */
	const uint64_t before = fake_cuda_memory(rig_directory, 0);

	for (int i = 0; i < 4; i++) {
		const pid_t child = worker_child(i % 2, 7000 + 1000 * (uint32_t)i, &said);

		ck_assert_uint_gt(fake_cuda_memory(rig_directory, 0), before);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(said);
		await(fake_cuda_memory(rig_directory, 0) == before);
		await(fake_cuda_imports(rig_directory, 0) == 1);
	}
	kill(stays, SIGKILL);
	waitpid(stays, NULL, 0);
	close(stays_said);
	await(fake_cuda_imports(rig_directory, 0) == 0);
	await(whole_gauge(STOKER_GAUGE_POOLS) == 0);
}
END_TEST

START_TEST(a_broker_that_is_killed_takes_its_copier_along)
{
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 5);
	const pid_t process = gpu_copier();
	ck_assert_int_gt(process, 0);
	whole_end(SIGKILL);
	await(kill(process, 0) < 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	gpu_close(&g);
}
END_TEST

static void use_limited(void)
{
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 20);
	gpu_gets(&g, 1000, 20);
	await(whole_counter(STOKER_COUNTER_GPU_REFUSALS) > 0);
	await(whole_counter(STOKER_COUNTER_GPU_BOUNCED_BYTES) > 0);
	gpu_end(&g);
}

START_TEST(an_arena_of_which_not_all_can_be_registered_is_told_counted_and_served)
{
	use_limited();
	ck_assert_uint_eq(whole_logged("could not register an extent"), 1);
}
END_TEST

START_TEST(a_copier_logs_no_more_than_its_broker)
{
	use_limited();
	ck_assert_uint_eq(whole_logged("could not register an extent"), 0);
}
END_TEST

START_TEST(a_copier_outlasts_a_broker_that_is_killed_until_its_streams_have_run)
{
	struct stoker_job job;
	struct gpu_worker g;

	gpu_start(&g, _i);
	gpu_stores(&g, 1000, 5);
	const pid_t process = gpu_copier();
	ck_assert_int_gt(process, 0);
	gpu_upload(&g, 2000, 4);
	atomic_store(&rig_control->hold, 1);
	ck_assert_int_eq(worker_store(&g.w, 2000, 4, 0, 1, &job), 0);
	usleep(50000);
	whole_end(SIGKILL);
	usleep(200000);
	ck_assert_int_eq(kill(process, 0), 0);	/* it would have been left to the driver to stop what is under way */
	ck_assert_uint_gt(fake_cuda_imports(rig_directory, process), 0);
	atomic_store(&rig_control->hold, 0);
	await(kill(process, 0) < 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	gpu_close(&g);
}
END_TEST

START_TEST(a_copier_is_ended_when_the_broker_stops)
{
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 5);
	const pid_t process = gpu_copier();
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	ck_assert_int_lt(kill(process, 0), 0);
	ck_assert_uint_eq(whole_logged("did not end in time"), 0);
	gpu_close(&g);
}
END_TEST

static void setup_without_pidfds(void)
{
	gpu_forbidden = "pidfd";
	gpu_setup_with_driver();
}

/* Sandboxes have none: that a copier is gone is seen by looking for it. */
START_TEST(where_there_are_no_pidfds_copiers_are_replaced_and_ended_too)
{
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 5);
	const pid_t first = gpu_copier();
	kill(first, SIGKILL);
	gpu_until_well(&g, 2000);
	const pid_t second = gpu_copier();
	ck_assert_int_ne(second, first);
	gpu_upload(&g, 3000, 5);
	atomic_store(&rig_control->hang_in, 1);
	ck_assert_uint_ne(gpu_store_uploaded(&g, 3000, 5).status, STOKER_STATUS_OK);
	gpu_until_well(&g, 4000);
	gpu_gets(&g, 1000, 5);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_GPU_RESTARTS), 2);
	const pid_t third = gpu_copier();
	ck_assert_int_ne(third, second);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	ck_assert_int_lt(kill(third, 0), 0);
	gpu_close(&g);
}
END_TEST

START_TEST(a_context_that_dies_costs_its_jobs_and_is_replaced)
{
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 5);
	gpu_upload(&g, 2000, 5);
	fake_cuda_fail(rig_control, FAKE_CALL_execute, 1, CUDA_RESULT_ILLEGAL_ADDRESS);
	ck_assert_uint_ne(gpu_store_uploaded(&g, 2000, 5).status, STOKER_STATUS_OK);
	gpu_until_well(&g, 3000);
	gpu_gets(&g, 1000, 5);
	gpu_end(&g);
}
END_TEST

START_TEST(a_stream_that_hangs_ends_and_is_replaced)
{
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 5);
	gpu_upload(&g, 2000, 5);
	atomic_store(&rig_control->hang_in, 1);
	ck_assert_uint_ne(gpu_store_uploaded(&g, 2000, 5).status, STOKER_STATUS_OK);
	gpu_until_well(&g, 3000);
	gpu_gets(&g, 1000, 5);
	gpu_end(&g);
}
END_TEST

/* The row of the one GPU, once @what holds of it. */
#define await_row(row, what) await(control_read_gpu(whole_page(), ROW, &(row)) && (what))
#define ROW	0

START_TEST(the_control_page_tells_of_a_gpu_what_its_broker_knows)
{
	struct control_gpu row;
	struct gpu_worker g;
	char name[64];

	ck_assert(control_read_gpu(whole_page(), ROW, &row));
	ck_assert_uint_eq(row.state, STOKER_GPU_ABSENT);
	gpu_start(&g, false);
	gpu_stores(&g, 1000, 10);
	gpu_gets(&g, 1000, 10);
	await_row(row, row.load_bytes > 0 && row.registered_bytes == whole_gauge(STOKER_GAUGE_ARENA_BYTES));
	ck_assert_uint_eq(row.state, STOKER_GPU_UP);
	ck_assert_uint_eq(row.restarts, 0);
	ck_assert_uint_eq(row.regions, 1);
	ck_assert_uint_eq(row.pools, 1);
	ck_assert_uint_eq(row.imported_bytes, g.bytes);
	ck_assert_str_eq(row.why, "");
	ck_assert_uint_eq(strlen(row.name), strlen("GPU-") + 36);
	memcpy(name, row.name, sizeof(row.name));
	await_row(row, row.load_bytes == whole_counter(STOKER_COUNTER_LOAD_BYTES) &&
		  row.store_bytes == whole_counter(STOKER_COUNTER_STORE_BYTES));

	/* Bytes are counted over its copiers; what a copier has open is its own. */
	const uint64_t stored = row.store_bytes;
	kill(gpu_copier(), SIGKILL);
	gpu_until_well(&g, 2000);
	await_row(row, row.store_bytes > stored);
	ck_assert_uint_eq(row.state, STOKER_GPU_UP);
	ck_assert_uint_eq(row.restarts, 1);
	ck_assert_uint_eq(row.imported_bytes, g.bytes);
	ck_assert_ptr_nonnull(strstr(row.why, "signal 9"));
	ck_assert_str_eq(row.name, name);

	/* From the page alone: a broker that hangs is no hindrance. */
	kill(whole.broker, SIGSTOP);
	ck_assert_int_eq(whole_ctl("--json status"), 0);
	kill(whole.broker, SIGCONT);
	gpu_end(&g);
	await_row(row, row.regions == 0 && row.pools == 0 && row.imported_bytes == 0);
}
END_TEST

START_TEST(a_gpu_that_nobody_uses_any_more_is_down_and_asked_for)
{
	struct control_gpu row;
	struct gpu_worker g;

	gpu_start(&g, false);
	gpu_stores(&g, 1000, 10);
	gpu_end(&g);
	await_row(row, row.state == STOKER_GPU_DOWN);
	ck_assert_uint_eq(row.registered_bytes, 0);
	ck_assert_uint_gt(row.store_bytes, 0);
	ck_assert_str_eq(row.why, "");
	ck_assert_int_eq(gpu_copier(), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cuda-whole");
	TCase *tests = tcase_create("cuda-whole"), *alone = tcase_create("processes"),
	      *limited = tcase_create("limited"), *quiet = tcase_create("quiet"), *sandboxed = tcase_create("sandboxed");

	if (!rig_library()) {
		printf("1..0 # SKIP the fake driver is a shared library, which this build has not\n");
		return 0;
	}
	tcase_add_checked_fixture(tests, gpu_setup_with_driver, gpu_teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, what_is_stored_from_a_gpu_comes_back_to_it, 0, 2);
	tcase_add_test(tests, a_gpu_and_the_host_share_what_is_stored);
	tcase_add_test(tests, planes_on_several_devices_are_no_pool);
	tcase_add_loop_test(tests, a_copier_that_is_killed_costs_its_jobs_and_is_replaced, 0, 2);
	tcase_add_test(tests, a_broker_that_is_killed_takes_its_copier_along);
	tcase_add_test(tests, the_control_page_tells_of_a_gpu_what_its_broker_knows);
	tcase_add_test(tests, a_gpu_that_nobody_uses_any_more_is_down_and_asked_for);
	tcase_add_loop_test(tests, a_copier_outlasts_a_broker_that_is_killed_until_its_streams_have_run, 0, 2);
	tcase_add_test(tests, a_copier_is_ended_when_the_broker_stops);
	tcase_add_test(tests, a_context_that_dies_costs_its_jobs_and_is_replaced);
	tcase_add_test(tests, a_stream_that_hangs_ends_and_is_replaced);
	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(limited, setup_limited, gpu_teardown);
	tcase_set_timeout(limited, 120);
	tcase_add_test(limited, an_arena_of_which_not_all_can_be_registered_is_told_counted_and_served);
	suite_add_tcase(suite, limited);
	tcase_add_checked_fixture(quiet, setup_limited_and_quiet, gpu_teardown);
	tcase_set_timeout(quiet, 120);
	tcase_add_test(quiet, a_copier_logs_no_more_than_its_broker);
	suite_add_tcase(suite, quiet);
	tcase_add_checked_fixture(sandboxed, setup_without_pidfds, gpu_teardown);
	tcase_set_timeout(sandboxed, 120);
	tcase_add_test(sandboxed, where_there_are_no_pidfds_copiers_are_replaced_and_ended_too);
	suite_add_tcase(suite, sandboxed);
	tcase_add_checked_fixture(alone, gpu_setup, gpu_teardown);
	tcase_set_timeout(alone, 120);
	tcase_add_test(alone, a_worker_that_is_killed_leaves_no_memory_in_use);
	suite_add_tcase(suite, alone);
	return suite_run(suite);
}
