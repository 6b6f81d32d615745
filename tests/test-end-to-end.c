/*
 * The whole, end to end: stokerd as it is built, clients with libstoker, bytes in and bytes out.
 *
 * Every test starts a broker of its own under a private name, with private directories, and looks at
 * every byte of its pools: those that were to be written, and those that were not.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/end-to-end.h"
#include "tests/suite.h"

/* ---- tests ------------------------------------------------------------------------------------------ */

START_TEST(a_ping_goes_through_the_rings_and_back)
{
	struct worker w;
	struct stoker_job job;

	worker_start(&w);
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(stoker_ping(w.c, &job), 0);
		ck_assert_uint_eq(finish(&w, job).status, STOKER_STATUS_OK);
	}
	worker_end(&w);
}
END_TEST

START_TEST(a_miss_is_no_chunks_and_no_error)
{
	struct worker w;
	struct stoker_result result;

	worker_start(&w);
	result = lookup(&w, 0, 10);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 0);
	ck_assert_uint_eq(result.lease_ms, 0);
	worker_end(&w);
}
END_TEST

START_TEST(what_one_worker_stored_another_retrieves_byte_for_byte)
{
	struct stoker_result result;
	struct worker a, b;

	worker_start(&a);
	worker_start(&b);
	result = store(&a, 0, 32, 0);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 32);
	check_pool(&a);
	ck_assert_uint_eq(store(&b, 0, 8, 0).counts[0], 8);	/* present already */

	memset(b.memory, 0xa5, POOL_BYTES);
	memset(b.expected, 0xa5, POOL_BYTES);
	result = lookup(&b, 0, 40);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 32);
	ck_assert_uint_eq(result.counts[0], 32);
	expect(result.lease_ms > 0);
	ck_assert_uint_eq(retrieve(&b, &result.lease, 0, 32, 100).n, 32);
	check_pool(&b);
	ck_assert_int_eq(stoker_release(b.c, &result.lease, 0), 0);
	worker_end(&a);
	worker_end(&b);
}
END_TEST

START_TEST(a_mapped_object_is_its_payload_layer_by_layer)
{
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	struct stoker_result result;
	struct worker w;
	const uint8_t *at;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	result = lookup(&w, 0, 4);
	ck_assert_msg(stoker_map(w.c, &result.lease, 2, 0, 0, &mapping) == 0, "%s", stoker_error(w.c));
	ck_assert_uint_eq(mapping.bytes, OBJECT_BYTES);
	at = mapping.data;
	for (uint32_t row = 0; row < LAYERS * PLANES; row++)
		for (uint32_t block = 0; block < BLOCKS; block++)
			for (uint32_t i = 0; i < BLOCK_BYTES; i++, at++)
				expect(*at == kv(2, row, block, i));
	ck_assert_int_eq(stoker_unmap(w.c, &mapping), 0);
	ck_assert_int_eq(stoker_map(w.c, &result.lease, 4, 0, 0, &mapping), -EINVAL);
	worker_end(&w);
}
END_TEST

START_TEST(a_retrieve_waits_for_its_ready_word)
{
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_READY,
							 .ready_index = 3, .ready_value = 10 };
	struct stoker_result result;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	result = lookup(&w, 0, 4);
	stoker_ready_set(w.c, 3, 9);
	job = retrieve_submit(&w, &result.lease, 0, 4, 100, &options);
	ck_assert_int_eq(stoker_wait(w.c, job, 50000), -ETIMEDOUT);
	expect(memcmp(w.memory, w.expected, POOL_BYTES) != 0);	/* nothing has been written yet */
	stoker_ready_set(w.c, 3, 10);
	ck_assert_uint_eq(finish(&w, job).n, 4);
	check_pool(&w);
	worker_end(&w);
}
END_TEST

START_TEST(a_cancelled_retrieve_ends_and_touches_nothing)
{
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_READY,
							 .ready_index = 3, .ready_value = 10 };
	struct stoker_result result;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	result = lookup(&w, 0, 4);
	job = retrieve_submit(&w, &result.lease, 0, 4, 100, &options);
	ck_assert_int_eq(stoker_cancel(w.c, job), 0);
	ck_assert_uint_eq(finish(&w, job).status, STOKER_STATUS_CANCELLED);
	stoker_ready_set(w.c, 3, 10);
	memset(w.expected, 0, POOL_BYTES);
	for (uint32_t i = 0; i < 4; i++)
		fill(w.expected, i * BLOCKS, i);
	check_pool(&w);
	worker_end(&w);
}
END_TEST

START_TEST(a_session_that_ends_takes_its_leases_along)
{
	const struct stoker_lookup_options options = { .size = sizeof(options), .session = 77 };
	struct stoker_key keys[4];
	struct stoker_result result;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	keys_of(keys, 0, 4);
	ck_assert_int_eq(stoker_lookup(w.c, w.model, keys, 4, &options, &job), 0);
	result = finish(&w, job);
	ck_assert_uint_eq(result.n, 4);
	ck_assert_int_eq(stoker_end_session(w.c, 77), 0);
	ck_assert_uint_eq(retrieve(&w, &result.lease, 0, 4, 100).status, STOKER_STATUS_EXPIRED);
	worker_end(&w);
}
END_TEST

START_TEST(a_reset_makes_everything_a_miss)
{
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	ck_assert_msg(stoker_reset(w.c, w.model, NULL, 10000) == 0, "%s", stoker_error(w.c));
	ck_assert_uint_eq(lookup(&w, 0, 4).n, 0);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	ck_assert_uint_eq(lookup(&w, 0, 4).n, 4);
	worker_end(&w);
}
END_TEST

START_TEST(a_scheduler_knows_a_model_by_its_digest_alone)
{
	struct stoker_key keys[4];
	struct stoker_job job;
	struct worker w, scheduler = { 0 };
	uint8_t digest[32];

	worker_start(&w);
	stoker_model_digest(w.model, digest);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	ck_assert_int_eq(stoker_attach(name, NULL, &scheduler.c), 0);
	ck_assert_int_eq(stoker_model_open_digest(scheduler.c, digest, &scheduler.model), 0);
	ck_assert_uint_eq(lookup(&scheduler, 0, 4).n, 4);
	digest[0] ^= 1;		/* one that no worker has described */
	ck_assert_int_eq(stoker_model_open_digest(scheduler.c, digest, &scheduler.model), 0);
	keys_of(keys, 0, 4);
	ck_assert_int_eq(stoker_lookup(scheduler.c, scheduler.model, keys, 4, NULL, &job), 0);
	ck_assert_uint_eq(finish(&scheduler, job).status, STOKER_STATUS_NO_LAYOUT);
	stoker_close(scheduler.c);
	worker_end(&w);
}
END_TEST

/* ---- larger than a payload ---------------------------------------------------------------------------- */

enum { LONG = 9000 };		/* chunks, each one block of 64 bytes */

static void long_pool(struct worker *w, struct stoker_model **ret_model, struct stoker_pool **ret_pool, uint64_t **ret)
{
	const struct stoker_plane_bytes row = { .bytes = 64 };
	const struct stoker_group whole = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 16, .name = "thin", .revision = "1", .groups = &whole,
		.n_groups = 1, .n_rows = 1, .rows = &row,
	};
	const size_t bytes = (2 * LONG * 64 + 4095) / 4096 * 4096;
	const int fd = memfd_create("long", MFD_CLOEXEC);
	const struct stoker_range range = { .fd = fd, .bytes = bytes };
	struct stoker_plane plane = { .bytes = 64, .block_stride = 64 };

	expect(fd >= 0 && posix_fallocate(fd, 0, (off_t)bytes) == 0);
	*ret = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	expect(*ret != MAP_FAILED);
	ck_assert_int_eq(stoker_region_add(w->c, &range, 1, &plane.region), 0);
	ck_assert_int_eq(stoker_model_open(w->c, &description, ret_model), 0);
	ck_assert_msg(stoker_pool_add(*ret_model, 0, 0, 2 * LONG, &plane, 1, ret_pool) == 0, "%s", stoker_error(w->c));
	close(fd);
}

START_TEST(jobs_larger_than_a_payload_are_stored_looked_up_and_retrieved_whole)
{
	static struct stoker_key keys[LONG + 10];
	static uint8_t chunks[LONG];
	static uint64_t bitmap[(LONG + 10) / 64 + 1];
	const uint32_t from[2] = { 0, LONG }, to[2] = { LONG, LONG };
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_blocks blocks = { .chunks = LONG, .ids = from, .runs = 1 };
	struct stoker_model *model;
	struct stoker_job job;
	struct worker w;
	uint64_t *words;

	worker_start(&w);
	long_pool(&w, &model, &blocks.pool, &words);
	keys_of(keys, 0, LONG + 10);
	for (uint64_t i = 0; i < LONG * 8; i++)
		words[i] = i * 0x9e3779b97f4a7c15ull;
	ck_assert_msg(stoker_store(w.c, model, keys, LONG, &blocks, 1, NULL, &job) == 0, "%s", stoker_error(w.c));
	ck_assert_int_eq(stoker_wait(w.c, job, 30000000), 0);
	ck_assert_int_eq(stoker_finish(w.c, job, &result, NULL, 0, chunks, LONG), 0);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, LONG);
	for (uint32_t i = 0; i < LONG; i++)
		ck_assert_uint_eq(chunks[i], STOKER_CHUNK_STORED);

	ck_assert_int_eq(stoker_lookup(w.c, model, keys, LONG + 10, NULL, &job), 0);
	ck_assert_int_eq(stoker_wait(w.c, job, 30000000), 0);
	ck_assert_int_eq(stoker_finish(w.c, job, &result, bitmap, sizeof(bitmap) / 8, NULL, 0), 0);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, LONG);
	/* The last 4,096 lengths: those up to LONG are usable, the ten beyond are not. */
	for (uint32_t i = LONG + 10 - 4096; i < LONG + 10; i++)
		ck_assert_int_eq(bitmap[i / 64] >> i % 64 & 1, i < LONG);

	blocks.ids = to;
	ck_assert_int_eq(stoker_retrieve(w.c, model, &result.lease, &blocks, 1, NULL, &job), 0);
	result = finish(&w, job);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, LONG);
	ck_assert_int_eq(memcmp(words, words + LONG * 8, LONG * 64), 0);
	worker_end(&w);
}
END_TEST

/* ---- disk, death and return ----------------------------------------------------------------------------- */

START_TEST(what_left_the_arena_comes_back_from_disk)
{
	struct stoker_result result;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 64, 0).n, 64);
	ck_assert_int_eq(run_ctl("drain >/dev/null"), 0);
	ck_assert_int_eq(run_ctl("evict 100% >/dev/null"), 0);
	memset(w.memory, 0x5a, POOL_BYTES);
	memset(w.expected, 0x5a, POOL_BYTES);
	result = lookup(&w, 0, 64);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 64);
	ck_assert_uint_eq(result.counts[1], 64);
	ck_assert_uint_eq(retrieve(&w, &result.lease, 0, 64, 200).n, 64);
	check_pool(&w);
	worker_end(&w);
}
END_TEST

/* Look up again and again until a broker is there and answers. */
static struct stoker_result lookup_again(struct worker *w, uint32_t n)
{
	struct stoker_key keys[128];
	struct stoker_result result = { .size = sizeof(result) };
	const time_t end = time(NULL) + 30;
	struct stoker_job job;

	keys_of(keys, 0, n);
	do {
		expect(time(NULL) < end);
		usleep(2000);
		if (stoker_lookup(w->c, w->model, keys, n, NULL, &job) < 0)
			continue;
		result = finish(w, job);
	} while (result.n < n);
	return result;
}

START_TEST(after_a_kill_the_same_handles_are_served_by_the_next_broker)
{
	struct stoker_result result;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 32, 0).n, 32);
	ck_assert_int_eq(run_ctl("ping >/dev/null"), 0);
	usleep(200000);		/* checksums of fresh stores are made in the background */
	ck_assert_int_eq(broker_end(SIGKILL), 1000 + SIGKILL);
	while (stoker_ping(w.c, &job) == 0)	/* it notices within 10 ms of polling */
		finish(&w, job);
	ck_assert_int_eq(run_ctl("status >/dev/null"), 3);
	ck_assert_int_eq(run_ctl("ping >/dev/null"), 3);

	broker_start();
	memset(w.memory, 0xa5, POOL_BYTES);
	memset(w.expected, 0xa5, POOL_BYTES);
	result = lookup_again(&w, 32);
	ck_assert_uint_eq(stoker_attachments(w.c), 2);
	ck_assert_uint_eq(retrieve(&w, &result.lease, 0, 32, 100).n, 32);
	check_pool(&w);
	worker_end(&w);
}
END_TEST

START_TEST(a_killed_broker_ends_what_is_pending)
{
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_READY,
							 .ready_index = 3, .ready_value = 10 };
	struct stoker_result result;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4, 0).n, 4);
	result = lookup(&w, 0, 4);
	job = retrieve_submit(&w, &result.lease, 0, 4, 100, &options);
	broker_end(SIGKILL);
	ck_assert_uint_eq(finish(&w, job).status, STOKER_STATUS_BROKER_GONE);
	ck_assert_int_eq(stoker_pool_drop(w.pool), 0);
	ck_assert_int_eq(stoker_region_drop(w.region), 0);
	worker_end(&w);
}
END_TEST

static void *kill_and_start(void *arg)
{
	_Atomic bool *over = arg;

	for (int i = 0; i < 4; i++) {
		usleep(200000);
		broker_end(SIGKILL);
		broker_start();
	}
	usleep(200000);
	*over = true;
	return NULL;
}

/* Store a few chunks, look them up, and retrieve them. Whatever was asked, no byte may be wrong. */
static uint32_t serve_once(struct worker *w, uint32_t first)
{
	struct stoker_key keys[4];
	uint32_t ids[4 * BLOCKS], served = 0;
	uint8_t chunks[4];
	struct stoker_blocks blocks = { .pool = w->pool, .chunks = 4, .ids = ids };
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_job job;

	keys_of(keys, first, 4);
	ids_from(ids, 0, 4 * BLOCKS);
	for (uint32_t i = 0; i < 4; i++)
		fill(w->memory, i * BLOCKS, first + i);
	if (stoker_store(w->c, w->model, keys, 4, &blocks, 1, NULL, &job) == 0)
		finish(w, job);
	if (stoker_lookup(w->c, w->model, keys, 4, NULL, &job) < 0)
		return 0;
	result = finish(w, job);
	if (result.n == 0)
		return 0;
	blocks.chunks = result.n;
	ids_from(ids, 100, result.n * BLOCKS);
	if (stoker_retrieve(w->c, w->model, &result.lease, &blocks, 1, NULL, &job) < 0)
		return 0;
	ck_assert_int_eq(stoker_wait(w->c, job, 30000000), 0);
	ck_assert_int_eq(stoker_finish(w->c, job, NULL, NULL, 0, chunks, 4), 0);
	for (uint32_t i = 0; i < result.n; i++) {
		if (chunks[i] != STOKER_CHUNK_RETRIEVED)
			continue;
		served++;
		for (uint32_t row = 0; row < LAYERS * PLANES; row++)
			ck_assert_mem_eq(w->memory + row * PLANE_BYTES + (100 + i * BLOCKS) * BLOCK_BYTES,
					 w->memory + row * PLANE_BYTES + i * BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES);
	}
	return served;
}

START_TEST(a_worker_goes_on_through_the_deaths_of_brokers)
{
	_Atomic bool over = false;
	uint32_t n = 0, served = 0;
	pthread_t killer;
	struct worker w;

	worker_start(&w);
	ck_assert_int_eq(pthread_create(&killer, NULL, kill_and_start, (void *)&over), 0);
	for (; !over; n++) {
		served += serve_once(&w, n % 64 * 4);
		usleep(200);
	}
	pthread_join(killer, NULL);
	while (!stoker_is_attached(w.c))
		serve_once(&w, 0);
	ck_assert_uint_ge(stoker_attachments(w.c), 2);
	ck_assert_uint_gt(served, 0);
	worker_end(&w);
}
END_TEST

START_TEST(a_client_that_is_killed_leaves_nothing_behind)
{
	struct worker w;
	int status;
	const pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		worker_start(&w);
		store(&w, 0, 16, 0);
		lookup(&w, 0, 16);
		raise(SIGKILL);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(WTERMSIG(status), SIGKILL);
	await_status("\"clients\": 0");
	await_status("\"pools\": 0");
	await_status("\"leases\": 0");
	worker_start(&w);
	ck_assert_uint_eq(lookup(&w, 0, 16).n, 16);	/* what it stored is everybody's */
	worker_end(&w);
}
END_TEST

START_TEST(commands_end_as_they_promise)
{
	int status;
	pid_t second;

	ck_assert_int_eq(run_ctl("status >/dev/null"), 0);
	ck_assert_int_eq(run_ctl("--json stat >/dev/null"), 0);
	ck_assert_int_eq(run_ctl("clients >/dev/null"), 0);
	ck_assert_int_eq(run_ctl("clear >/dev/null"), 0);
	second = fork();		/* the name is taken */
	ck_assert_int_ge(second, 0);
	if (second == 0)
		broker_exec(2);
	ck_assert_int_eq(waitpid(second, &status, 0), second);
	ck_assert_int_eq(WEXITSTATUS(status), 3);
	ck_assert_int_eq(kill(broker, SIGSTOP), 0);	/* it hangs: its page can be read all the same */
	ck_assert_int_eq(run_ctl("status >/dev/null"), 0);
	ck_assert_int_eq(kill(broker, SIGCONT), 0);
	ck_assert_int_eq(run_ctl("stop >/dev/null"), 0);
	ck_assert_int_eq(waitpid(broker, &status, 0), broker);
	broker = 0;
	janitor_tell(0);
	ck_assert_int_eq(WIFEXITED(status) ? WEXITSTATUS(status) : 1000, 0);
	ck_assert_int_eq(run_ctl("status >/dev/null"), 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("end-to-end");
	TCase *memory = tcase_create("memory"), *disk = tcase_create("disk");

	tcase_add_checked_fixture(memory, setup, teardown);
	tcase_set_timeout(memory, 120);
	tcase_add_test(memory, a_ping_goes_through_the_rings_and_back);
	tcase_add_test(memory, a_miss_is_no_chunks_and_no_error);
	tcase_add_test(memory, what_one_worker_stored_another_retrieves_byte_for_byte);
	tcase_add_test(memory, a_mapped_object_is_its_payload_layer_by_layer);
	tcase_add_test(memory, a_retrieve_waits_for_its_ready_word);
	tcase_add_test(memory, a_cancelled_retrieve_ends_and_touches_nothing);
	tcase_add_test(memory, a_session_that_ends_takes_its_leases_along);
	tcase_add_test(memory, a_reset_makes_everything_a_miss);
	tcase_add_test(memory, a_scheduler_knows_a_model_by_its_digest_alone);
	tcase_add_test(memory, jobs_larger_than_a_payload_are_stored_looked_up_and_retrieved_whole);
	tcase_add_test(memory, after_a_kill_the_same_handles_are_served_by_the_next_broker);
	tcase_add_test(memory, a_killed_broker_ends_what_is_pending);
	tcase_add_test(memory, a_worker_goes_on_through_the_deaths_of_brokers);
	tcase_add_test(memory, a_client_that_is_killed_leaves_nothing_behind);
	tcase_add_test(memory, commands_end_as_they_promise);
	suite_add_tcase(suite, memory);
	tcase_add_checked_fixture(disk, setup_with_tier, teardown);
	tcase_set_timeout(disk, 120);
	tcase_add_test(disk, what_left_the_arena_comes_back_from_disk);
	suite_add_tcase(suite, disk);
	return suite_run(suite);
}
