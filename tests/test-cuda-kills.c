/*
 * Workers and copiers of a GPU that are killed again and again, at any instant: device memory in use, imports and the
 * broker's descriptors are where they were afterwards, and whoever stays is served.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda-whole-rig.h"
#include "tests/suite.h"

#define PARTS	300u		/* more than two messages carry */
#define CROWD	4u		/* workers alive at once */

/* As many as the gpu-check of a real machine kills; fewer where a sanitizer makes each of them slow. */
static uint32_t kills(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return getenv("STOKER_CHECK_LONG") ? 200 : 20;
#else
	return 200;
#endif
}

/* ---- workers ------------------------------------------------------------------------------------- */

/* A worker in a process of its own. It says so when it has a pool, and stores until it is killed. */
static pid_t worker(uint32_t parts, uint32_t first, int *ret_said)
{
	int said[2];

	ck_assert_int_eq(pipe2(said, O_CLOEXEC), 0);
	const pid_t child = whole_fork();
	if (child == 0) {
		struct gpu_worker g;

		close(said[0]);
		cuda = rig_open();
		gpu_start_parts(&g, parts);
		if (write(said[1], "!", 1) != 1)
			_exit(1);
		for (uint32_t i = 0;; i++) {
			gpu_store(&g, first + 100 * i, 5);
			usleep(500);
		}
	}
	close(said[1]);
	*ret_said = said[0];
	return child;
}

static void await_word(int said)
{
	char byte;

	ck_assert_int_eq(read(said, &byte, 1), 1);
	close(said);
}

static void end(pid_t child)
{
	int status;

	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a worker ended by itself, with status %#x",
		      (unsigned)status);
}

static uint32_t descriptors(pid_t of)
{
	char path[64];
	uint32_t n = 0;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)of);
	directory = opendir(path);
	ck_assert_ptr_nonnull(directory);
	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

/** struct use - what is in use with one worker that stays. */
static struct use { uint64_t memory; uint32_t imports, broker_fds, copier_fds; pid_t stays, copier; } before;

static void use_note(void)
{
	struct control_gpu row;
	int said;

	before.stays = worker(0, 1000000, &said);
	await_word(said);
	/* While extents are registered the fake has one file more open now and then. */
	await(control_read_gpu(whole_page(), 0, &row) && row.registered_bytes == whole_gauge(STOKER_GAUGE_ARENA_BYTES));
	before.memory = fake_cuda_memory(rig_directory, 0);
	before.imports = fake_cuda_imports(rig_directory, 0);
	before.copier = gpu_copier();
	before.broker_fds = descriptors(whole.broker);
	before.copier_fds = descriptors(before.copier);
	ck_assert_uint_eq(before.imports, 1);
}

static void use_is_as_before(void)
{
	await(fake_cuda_memory(rig_directory, 0) == before.memory);
	await(fake_cuda_imports(rig_directory, 0) == before.imports);
	await(whole_gauge(STOKER_GAUGE_CLIENTS) == 1);
	await(whole_gauge(STOKER_GAUGE_POOLS) == 1);
	await(descriptors(whole.broker) == before.broker_fds);
	ck_assert_int_eq(gpu_copier(), before.copier);
	await(descriptors(before.copier) == before.copier_fds);
	end(before.stays);
	await(fake_cuda_imports(rig_directory, 0) == 0);
	await(fake_cuda_memory(rig_directory, 0) == 0);
}

/* At any instant from the start of a process to well into its work; one of four registers in several messages. */
START_TEST(workers_that_are_killed_at_any_instant_leave_nothing_in_use)
{
	const uint32_t n = kills();

	srand(7);
	use_note();
	for (uint32_t i = 0; i < n; i += CROWD) {
		pid_t crowd[CROWD];
		int said[CROWD];

		for (uint32_t k = 0; k < CROWD; k++)
			crowd[k] = worker(k == 3 ? PARTS : k % 2 ? 2 : 0, (i + k + 1) * 10000, &said[k]);
		for (uint32_t k = 0; k < CROWD; k++) {
			usleep((useconds_t)(rand() % 30000));
			end(crowd[k]);
			close(said[k]);
		}
	}
	use_is_as_before();
}
END_TEST

/*
 * All messages of a registration are on their way, or some, or an import is under way, when the worker dies: the
 * broker, or the copier, stands still until it is dead.
 */
START_TEST(a_worker_that_is_killed_amid_a_registration_of_several_messages_leaves_nothing_in_use)
{
	const bool broker = _i % 2;
	int said;

	use_note();
	for (uint32_t i = 0; i < 6; i++) {
		const pid_t who = broker ? whole.broker : before.copier;
		const pid_t child = worker(PARTS, 10000 * (i + 1), &said);

		if (i < 3 && !broker)
			kill(who, SIGSTOP);
		/* The device memory is there: its export and its messages are next. */
		await(fake_cuda_memory(rig_directory, 0) >= before.memory + PARTS * (2ull << 20));
		kill(who, SIGSTOP);
		usleep(i % 3 * 10000);
		end(child);
		close(said);
		kill(who, SIGCONT);
		await(fake_cuda_memory(rig_directory, 0) == before.memory);
	}
	use_is_as_before();
}
END_TEST

/* ---- copiers ------------------------------------------------------------------------------------- */

/* The pause before the next one grows each time, so they are few. */
START_TEST(copiers_that_are_killed_at_any_instant_leave_nothing_in_use)
{
	const uint32_t n = getenv("STOKER_CHECK_LONG") ? 8 : 4;
	struct gpu_worker g[2];
	uint64_t memory;
	uint32_t imports, fds;

	srand(9);
	for (uint32_t k = 0; k < 2; k++)
		gpu_start(&g[k], k);
	gpu_stores(&g[0], 500, 5);
	memory = fake_cuda_memory(rig_directory, 0);
	imports = fake_cuda_imports(rig_directory, 0);
	fds = descriptors(whole.broker);
	for (uint32_t i = 0; i < n; i++) {
		struct stoker_job job;
		const pid_t copier = gpu_copier();

		ck_assert_int_gt(copier, 0);
		gpu_upload(&g[i % 2], 1000 * (i + 1), 5);
		ck_assert_int_eq(worker_store(&g[i % 2].w, 1000 * (i + 1), 5, 0, 1, &job), 0);
		usleep((useconds_t)(rand() % 3000));
		kill(copier, SIGKILL);
		worker_finish(&g[i % 2].w, job);
		gpu_until_well(&g[0], 1000 * (i + 1) + 100);
		gpu_until_well(&g[1], 1000 * (i + 1) + 200);
		ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), memory);
		ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), imports);
	}
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_GPU_RESTARTS), n);
	await(descriptors(whole.broker) == fds);
	gpu_gets(&g[0], 500, 5);
	for (uint32_t k = 0; k < 2; k++)
		gpu_end(&g[k]);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cuda-kills");
	TCase *workers = tcase_create("workers"), *copiers = tcase_create("copiers");

	if (!rig_library()) {
		printf("1..0 # SKIP the fake driver is a shared library, which this build has not\n");
		return 0;
	}
	tcase_add_checked_fixture(workers, gpu_setup, gpu_teardown);
	tcase_set_timeout(workers, 240);
	tcase_add_test(workers, workers_that_are_killed_at_any_instant_leave_nothing_in_use);
	tcase_add_loop_test(workers, a_worker_that_is_killed_amid_a_registration_of_several_messages_leaves_nothing_in_use, 0,
			    2);
	suite_add_tcase(suite, workers);
	tcase_add_checked_fixture(copiers, gpu_setup_with_driver, gpu_teardown);
	tcase_set_timeout(copiers, 240);
	tcase_add_test(copiers, copiers_that_are_killed_at_any_instant_leave_nothing_in_use);
	suite_add_tcase(suite, copiers);
	return suite_run(suite);
}
