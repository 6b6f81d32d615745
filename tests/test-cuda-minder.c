/*
 * Copiers that die at any instant, hang, talk nonsense, cannot open what they had, or are not needed any more: what
 * that costs, and what it does not.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "tests/backend-rig.h"
#include "tests/slow-file.h"

/* ---- copiers that end -------------------------------------------------------------------------- */

START_TEST(copies_of_a_copier_that_is_killed_fail_and_the_next_one_knows_all_again)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->hold, 1);
	for (uint32_t i = 0; i < 10; i++)
		copy(i, i % 2, pool, i, 0);
	until(atomic_load(&w.knobs->held) == 10);
	ck_assert_uint_eq(w.running, 10);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(w.running == 0);
	for (uint32_t i = 0; i < 10; i++) {
		ck_assert_uint_eq(w.done[i], 1);
		ck_assert_int_eq(w.ended[i], ENGINE_FAILED);
		ck_assert_uint_eq(jobs[i].failed, 1);
	}
	atomic_store(&w.knobs->hold, 0);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 20);
	ck_assert_uint_eq(w.deaths, 0);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

/* The core thread, for the test below: it asks for copies as fast as they end. */
static struct { _Atomic bool stop; struct device_pool *pools[2]; uint64_t ok, failed; } busy;

static void *core_main(void *arg)
{
	uint32_t n = 0;

	(void)arg;
	while (!atomic_load(&busy.stop) || w.running) {
		const uint32_t number = n % COPIES;

		if (!atomic_load(&busy.stop) && w.running < COPIES / 2 && w.done[number] == (n >= COPIES)) {
			if (n >= COPIES) {
				busy.ok += w.ended[number] == ENGINE_OK;
				busy.failed += w.ended[number] != ENGINE_OK;
			}
			copy(number, n % 2, busy.pools[n % 3 == 0], number, number);
			if (n % 7 == 0)
				GPU.cancel(w.device, number);
			n++;
		}
		core_once();
		for (uint32_t i = 0; i < COPIES; i++)
			expect(w.done[i] <= 1);
	}
	return NULL;
}

START_TEST(a_copier_may_die_at_any_instant)
{
	struct piece a = ipc(), b = vmm(200);
	pthread_t core;

	srand((unsigned)_i);
	busy.pools[0] = pool_on(&a, 1);
	busy.pools[1] = pool_on(&b, 2);
	ck_assert_int_eq(pthread_create(&core, NULL, core_main, NULL), 0);
	for (uint32_t death = 0; death < 4; death++) {
		const uint32_t starts = atomic_load(&w.knobs->starts);
		const uint64_t end = now_ns() + 30000000000ull;

		atomic_store(&w.knobs->dies_in, 1 + (uint32_t)rand() % 3000);
		while (atomic_load(&w.knobs->starts) == starts || atomic_load(&w.knobs->pools) < 2) {
			struct pollfd wait = { GPU.watch(w.device), POLLIN, 0 };

			poll(&wait, 1, 2);
			tend();
			ck_assert_uint_lt(now_ns(), end);
		}
	}
	atomic_store(&busy.stop, true);
	while (pthread_tryjoin_np(core, NULL) != 0) {
		tend();
		usleep(100);
	}
	ck_assert_uint_gt(busy.ok, 0);
	ck_assert_uint_gt(busy.failed, 0);
	ck_assert_uint_eq(w.deaths, 0);
	until_back(busy.pools[1]);
	there_and_back(&b, busy.pools[1], 9);
	GPU.pool_close(busy.pools[0]);
	GPU.pool_close(busy.pools[1]);
	drop(&a);
	drop(&b);
}
END_TEST

START_TEST(what_cannot_be_opened_again_is_a_dead_pool_and_the_rest_lives)
{
	struct piece gone = ipc(), stays = ipc();
	struct device_pool *dead = pool_on(&gone, 1), *alive = pool_on(&stays, 2);

	shm_unlink(gone.name);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(alive);
	there_and_back(&stays, alive, 3);
	for (uint32_t i = 10; i < 12; i++) {
		copy(i, true, dead, 1, 0);
		until(w.done[i]);
		ck_assert_int_eq(w.ended[i], ENGINE_FAILED);
		ck_assert_uint_eq(jobs[i].failed, 1);
	}
	ck_assert_uint_eq(w.deaths, 1);
	GPU.pool_close(dead);
	GPU.pool_close(alive);
	GPU.region_close(gone.region, 0);
	drop(&stays);
}
END_TEST

START_TEST(a_region_that_copiers_die_of_is_refused_and_costs_nobody_else_his)
{
	struct piece good = ipc(), bad;
	struct device_pool *pool = pool_on(&good, 1);

	atomic_store(&w.knobs->poison, 8192);
	ask_ipc(&bad, 8192, 4096, -1);
	until(w.answered[bad.token]);
	ck_assert_int_eq(w.result[bad.token], -EIO);
	ck_assert_int_eq(GPU.region_close(bad.region, 0), 0);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&good, pool, 1);
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 2);
	GPU.pool_close(pool);
	drop(&good);
}
END_TEST

START_TEST(a_region_is_not_blamed_for_a_copier_that_ended_over_an_earlier_question)
{
	struct piece stays = ipc(), dropped = ipc(), new;
	struct device_pool *pool = pool_on(&stays, 1);
	const uint64_t of = token();

	atomic_store(&w.knobs->hangs, 1);
	until(atomic_load(&w.knobs->hanging));
	ck_assert_int_eq(GPU.region_close(dropped.region, of), DEVICE_LATER);
	tend();
	ask_ipc(&new, 4096, POOL_BYTES, -1);
	tend();
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	atomic_store(&w.knobs->hangs, 0);
	until(w.answered[of] && w.answered[new.token]);
	ck_assert_int_eq(w.result[of], 0);
	ck_assert_msg(w.result[new.token] == 0, "%s", w.why);
	until_back(pool);
	GPU.pool_close(pool);
	drop(&new);
	drop(&stays);
}
END_TEST

START_TEST(a_copier_that_becomes_poisoned_by_what_it_had_gives_that_up_in_the_end)
{
	struct piece good = ipc(), bad;
	struct device_pool *pool = pool_on(&good, 1);

	ask_ipc(&bad, 8192, 4096, -1);
	until(w.answered[bad.token]);
	ck_assert_int_eq(w.result[bad.token], 0);
	atomic_store(&w.knobs->poison, 8192);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) == 5 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&good, pool, 1);
	GPU.pool_close(pool);
	GPU.region_close(bad.region, 0);
	drop(&good);
}
END_TEST

/* In a worker's long life copiers are killed now and then, and sometimes while they open what it has. */
START_TEST(what_was_opened_again_begins_anew_to_be_suspected)
{
	struct piece piece;
	struct device_pool *pool;

	ask_ipc(&piece, 8192, POOL_BYTES, -1);
	until(w.answered[piece.token]);
	ck_assert_int_eq(w.result[piece.token], 0);
	pool = pool_on(&piece, 1);
	for (uint32_t i = 0; i < 3; i++) {
		const uint32_t starts = atomic_load(&w.knobs->starts);

		atomic_store(&w.knobs->poison, 8192);
		kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
		until(atomic_load(&w.knobs->starts) == starts + 1);
		until(kill((pid_t)atomic_load(&w.knobs->pid), 0) != 0);
		atomic_store(&w.knobs->poison, 0);
		until(atomic_load(&w.knobs->pools) == 1);
		until_back(pool);
	}
	ck_assert_uint_eq(w.deaths, 0);
	there_and_back(&piece, pool, 5);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

START_TEST(a_copier_that_talks_nonsense_is_replaced)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->nonsense, 1);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 1);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

START_TEST(a_copier_that_hangs_is_replaced_and_its_copies_end)
{
	struct piece piece;
	struct device_pool *pool;

	GPU.stop(w.device);
	w.device = device_new(60000000000ull, 100);
	piece = ipc();
	pool = pool_on(&piece, 1);
	atomic_store(&w.knobs->hangs, 1);
	until(atomic_load(&w.knobs->hanging));
	copy(1, true, pool, 1, 0);
	until(w.done[1]);
	ck_assert_int_eq(w.ended[1], ENGINE_FAILED);
	atomic_store(&w.knobs->hangs, 0);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 2);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

/* Extents are not answered: nobody waits for a word of it but those whose questions find no room any more. */
START_TEST(a_copier_that_hangs_while_extents_fill_its_socket_is_replaced)
{
	struct piece piece, next;

	GPU.stop(w.device);
	w.extent_bytes = 512;
	w.device = device_new(60000000000ull, 100);
	piece = ipc();
	atomic_store(&w.knobs->hangs, 1);
	until(atomic_load(&w.knobs->hanging));
	for (uint32_t i = 0; i < ARENA / 512; i++)
		GPU.extent(w.device, i);
	tend();
	ask_ipc(&next, 4096, POOL_BYTES, -1);
	tend();
	ck_assert_uint_eq(w.answered[next.token], 0);
	until(kill((pid_t)atomic_load(&w.knobs->pid), 0) != 0);
	atomic_store(&w.knobs->hangs, 0);
	until(w.answered[next.token] == 1);
	ck_assert_msg(w.result[next.token] == 0, "%s", w.why);
	until(atomic_load(&w.knobs->regions) == 2 && atomic_load(&w.knobs->extents) == ARENA / 512);
	drop(&next);
	drop(&piece);
}
END_TEST

START_TEST(a_copier_without_regions_ends_and_the_next_region_starts_one)
{
	struct piece piece;

	GPU.stop(w.device);
	w.device = device_new(1000000, 10000);
	piece = ipc();
	drop(&piece);
	until(GPU.is_idle(w.device));
	ck_assert_int_eq(kill((pid_t)atomic_load(&w.knobs->pid), 0), -1);
	piece = ipc();
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 2);
	there_and_back(&piece, pool_on(&piece, 1), 1);
}
END_TEST

/* As another copier has that is being started: all of ours is open in it until it is executed. */
START_TEST(a_copier_that_ended_is_watched_no_more_though_others_have_its_files_open)
{
	int copies[128], n = 0;
	struct piece piece;

	GPU.stop(w.device);
	w.device = device_new(1000000, 10000);
	piece = ipc();
	for (int fd = 3; fd < 128; fd++) {
		const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 128);

		if (copy >= 0)
			copies[n++] = copy;
	}
	drop(&piece);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);	/* it would wait for the end of its socket, which is open */
	until(GPU.is_idle(w.device));
	tend();
	ck_assert_int_eq(poll(&(struct pollfd){ GPU.watch(w.device), POLLIN, 0 }, 1, 0), 0);
	while (n > 0)
		close(copies[--n]);
}
END_TEST

/*
 * A copier that is started may not even for a moment have what clients have handed over: it would have to close it,
 * and could not be killed before it has.
 */
START_TEST(a_copier_starts_though_something_is_open_that_nobody_can_close)
{
	struct slow_file slow;
	struct piece piece;

	if (!slow_file_make(&slow)) {
		printf("# no file can be made here whose close never ends: not tried\n");
		return;
	}
	ask_ipc(&piece, 4096, POOL_BYTES, -1);
	for (uint32_t i = 0; i < 3000 && !w.answered[piece.token]; i++) {
		tend();
		usleep(1000);
	}
	const bool answered = w.answered[piece.token];
	slow_file_end(&slow);
	until(w.answered[piece.token]);
	ck_assert(answered);
	ck_assert_msg(w.result[piece.token] == 0, "%s", w.why);
	drop(&piece);
}
END_TEST

/* More is said than a socket holds: the rest follows when there is room, in an order that makes sense. */
START_TEST(a_copier_that_reads_nothing_for_a_while_is_told_all_in_the_end)
{
	enum { POOLS = 400, REGIONS = 8 };
	struct device_pool *pools[POOLS];
	struct piece piece = ipc(), parts[REGIONS];
	uint64_t of = 0;

	atomic_store(&w.knobs->hangs, 1);
	until(atomic_load(&w.knobs->hanging));
	for (uint32_t i = 0; i < POOLS; i++) {
		pools[i] = ask_pool(&piece, i, &of);
		tend();
	}
	for (uint32_t i = 0; i < REGIONS; i++)
		ask_vmm(&parts[i], 500);		/* several messages each */
	tend();
	ck_assert_uint_eq(w.answered[of], 0);
	for (uint32_t i = 0; i < POOLS; i += 2)
		GPU.pool_close(pools[i]);
	ck_assert_int_eq(GPU.region_close(parts[0].region, 0), 0);
	atomic_store(&w.knobs->hangs, 0);
	until(w.answered[of] && w.answered[parts[REGIONS - 1].token]);
	until(atomic_load(&w.knobs->pools) == POOLS / 2 && atomic_load(&w.knobs->regions) == REGIONS);
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 1);
	for (uint32_t i = 1; i < POOLS; i += 2)
		GPU.pool_close(pools[i]);
	drop(&piece);
}
END_TEST

/* Only the control thread: a core hears of a GPU when the first region of it is open. */
static void await_without_core(const struct device *device, const uint32_t *answered)
{
	const uint64_t end = now_ns() + 30000000000ull;

	while (answered ? !*answered : !GPU.is_idle(device)) {
		struct pollfd wait = { GPU.watch(w.device), POLLIN, 0 };

		poll(&wait, 1, 5);
		tend();
		ck_assert_msg(now_ns() < end, "it is never %s", answered ? "answered" : "idle");
	}
}

START_TEST(a_gpu_of_which_nothing_was_ever_open_is_given_up_and_can_be_had_again)
{
	struct piece piece;

	GPU.stop(w.device);
	w.device = device_new(1000000, 10000);
	for (uint32_t i = 1; i <= 3; i++) {
		ask_ipc(&piece, 4096, POOL_BYTES, -1);
		shm_unlink(piece.name);
		await_without_core(w.device, &w.answered[piece.token]);
		ck_assert_int_lt(w.result[piece.token], 0);
		ck_assert_int_eq(GPU.region_close(piece.region, 0), 0);
		await_without_core(w.device, NULL);
		ck_assert_uint_eq(atomic_load(&w.knobs->starts), i);
	}
	piece = ipc();
	there_and_back(&piece, pool_on(&piece, 1), 1);
}
END_TEST

START_TEST(extents_are_told_as_they_come_and_told_again)
{
	struct piece piece;

	GPU.extent(w.device, 0);
	GPU.extent(w.device, 5);
	piece = ipc();
	until(atomic_load(&w.knobs->extents) == 2);
	GPU.extent(w.device, 7);
	GPU.extent(w.device, 5);
	GPU.extent(w.device, 1000);	/* there is none */
	until(atomic_load(&w.knobs->extents) == 3);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->extents) == 3);
	drop(&piece);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite;
	TCase *tests;

	if (argc == 3 && strcmp(argv[1], "--copier") == 0)
		return fake_copier_main(atoi(argv[2]));
	suite = suite_create("cuda-minder");
	tests = tcase_create("cuda-minder");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, copies_of_a_copier_that_is_killed_fail_and_the_next_one_knows_all_again);
	tcase_add_loop_test(tests, a_copier_may_die_at_any_instant, 0, 6);
	tcase_add_test(tests, what_cannot_be_opened_again_is_a_dead_pool_and_the_rest_lives);
	tcase_add_test(tests, a_region_that_copiers_die_of_is_refused_and_costs_nobody_else_his);
	tcase_add_test(tests, a_region_is_not_blamed_for_a_copier_that_ended_over_an_earlier_question);
	tcase_add_test(tests, a_copier_that_becomes_poisoned_by_what_it_had_gives_that_up_in_the_end);
	tcase_add_test(tests, what_was_opened_again_begins_anew_to_be_suspected);
	tcase_add_test(tests, a_copier_that_talks_nonsense_is_replaced);
	tcase_add_test(tests, a_copier_that_hangs_is_replaced_and_its_copies_end);
	tcase_add_test(tests, a_copier_that_hangs_while_extents_fill_its_socket_is_replaced);
	tcase_add_test(tests, a_copier_without_regions_ends_and_the_next_region_starts_one);
	tcase_add_test(tests, a_copier_that_ended_is_watched_no_more_though_others_have_its_files_open);
	tcase_add_test(tests, a_copier_starts_though_something_is_open_that_nobody_can_close);
	tcase_add_test(tests, a_copier_that_reads_nothing_for_a_while_is_told_all_in_the_end);
	tcase_add_test(tests, a_gpu_of_which_nothing_was_ever_open_is_given_up_and_can_be_had_again);
	tcase_add_test(tests, extents_are_told_as_they_come_and_told_again);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
