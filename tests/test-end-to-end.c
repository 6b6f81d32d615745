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
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

static void setup(void)
{
	whole_make();
	whole.memory = "192M";
	whole_start();
}

static void setup_with_tier(void)
{
	whole_make();
	whole.tier = true;
	whole_start();
}

/* Store chunks @first to @first + @n - 1 from the first places of the pool. */
static struct stoker_result store(struct worker *w, uint32_t first, uint32_t n)
{
	struct stoker_job job;

	ck_assert_msg(worker_store(w, first, n, 0, 1, &job) == 0, "%s", stoker_error(w->c));
	return worker_finish(w, job);
}

/* Retrieve the first @n chunks of @lease, which are @first and following, into places from @place on. */
static struct stoker_job retrieve_submit(struct worker *w, const struct stoker_lease *lease, uint32_t first, uint32_t n,
					 uint32_t place, const struct stoker_retrieve_options *options)
{
	struct stoker_job job;

	for (uint32_t i = 0; i < n; i++)
		worker_fill(w->expected, place + i, first + i);
	ck_assert_msg(worker_retrieve(w, lease, n, place, 1, options, &job) == 0, "%s", stoker_error(w->c));
	return job;
}

static struct stoker_result retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t first, uint32_t n,
				     uint32_t place)
{
	return worker_finish(w, retrieve_submit(w, lease, first, n, place, NULL));
}

/* ---- in memory --------------------------------------------------------------------------------------- */

START_TEST(a_ping_goes_through_the_rings_and_back)
{
	struct worker w;
	struct stoker_job job;

	worker_start(&w);
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(stoker_ping(w.c, &job), 0);
		ck_assert_uint_eq(worker_finish(&w, job).status, STOKER_STATUS_OK);
	}
	worker_end(&w);
}
END_TEST

START_TEST(a_miss_is_no_chunks_and_no_error)
{
	struct worker w;
	struct stoker_result result;

	worker_start(&w);
	result = worker_looks_up(&w, 0, 10);
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
	result = store(&a, 0, 32);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 32);
	worker_check(&a);
	ck_assert_uint_eq(store(&b, 0, 8).counts[0], 8);	/* present already */

	worker_wipe(&b, 0xa5);
	result = worker_looks_up(&b, 0, 40);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 32);
	ck_assert_uint_eq(result.counts[0], 32);
	expect(result.lease_ms > 0);
	ck_assert_uint_eq(retrieve(&b, &result.lease, 0, 32, 32).n, 32);
	worker_check(&b);
	ck_assert_int_eq(stoker_release(b.c, &result.lease, 0), 0);
	worker_end(&a);
	worker_end(&b);
}
END_TEST

START_TEST(a_mapped_object_is_its_payload_layer_by_layer)
{
	const size_t bytes = WORKER_BLOCKS * WORKER_BYTES;	/* of a chunk in one plane */
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	struct stoker_result result;
	struct worker w;
	const uint8_t *at;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	result = worker_looks_up(&w, 0, 4);
	ck_assert_msg(stoker_map(w.c, &result.lease, 2, 0, 0, &mapping) == 0, "%s", stoker_error(w.c));
	ck_assert_uint_eq(mapping.bytes, WORKER_ROWS * bytes);
	at = mapping.data;
	for (uint32_t row = 0; row < WORKER_ROWS; row++)
		ck_assert_mem_eq(at + row * bytes, w.memory + row * WORKER_PLANE + 2 * bytes, bytes);
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
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	result = worker_looks_up(&w, 0, 4);
	stoker_ready_set(w.c, 3, 9);
	job = retrieve_submit(&w, &result.lease, 0, 4, 32, &options);
	ck_assert_int_eq(stoker_wait(w.c, job, 50000), -ETIMEDOUT);
	expect(memcmp(w.memory, w.expected, WORKER_POOL) != 0);	/* nothing has been written yet */
	stoker_ready_set(w.c, 3, 10);
	ck_assert_uint_eq(worker_finish(&w, job).n, 4);
	worker_check(&w);
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
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	result = worker_looks_up(&w, 0, 4);
	job = retrieve_submit(&w, &result.lease, 0, 4, 32, &options);
	ck_assert_int_eq(stoker_cancel(w.c, job), 0);
	ck_assert_uint_eq(worker_finish(&w, job).status, STOKER_STATUS_CANCELLED);
	stoker_ready_set(w.c, 3, 10);
	memset(w.expected, 0, WORKER_POOL);
	for (uint32_t i = 0; i < 4; i++)
		worker_fill(w.expected, i, i);
	worker_check(&w);
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
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	worker_keys(keys, 0, 4);
	ck_assert_int_eq(stoker_lookup(w.c, w.model, keys, 4, &options, &job), 0);
	result = worker_finish(&w, job);
	ck_assert_uint_eq(result.n, 4);
	ck_assert_int_eq(stoker_end_session(w.c, 77), 0);
	ck_assert_uint_eq(retrieve(&w, &result.lease, 0, 4, 32).status, STOKER_STATUS_EXPIRED);
	worker_end(&w);
}
END_TEST

START_TEST(a_reset_makes_everything_a_miss)
{
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	ck_assert_msg(stoker_reset(w.c, w.model, NULL, 10000) == 0, "%s", stoker_error(w.c));
	ck_assert_uint_eq(worker_looks_up(&w, 0, 4).n, 0);
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	ck_assert_uint_eq(worker_looks_up(&w, 0, 4).n, 4);
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
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	ck_assert_int_eq(stoker_attach(whole.name, NULL, &scheduler.c), 0);
	ck_assert_int_eq(stoker_model_open_digest(scheduler.c, digest, &scheduler.model), 0);
	ck_assert_uint_eq(worker_looks_up(&scheduler, 0, 4).n, 4);
	digest[0] ^= 1;		/* one that no worker has described */
	ck_assert_int_eq(stoker_model_open_digest(scheduler.c, digest, &scheduler.model), 0);
	worker_keys(keys, 0, 4);
	ck_assert_int_eq(stoker_lookup(scheduler.c, scheduler.model, keys, 4, NULL, &job), 0);
	ck_assert_uint_eq(worker_finish(&scheduler, job).status, STOKER_STATUS_NO_LAYOUT);
	stoker_close(scheduler.c);
	worker_end(&w);
}
END_TEST

START_TEST(a_model_whose_objects_are_too_large_for_the_arena_is_told_so)
{
	const struct stoker_plane_bytes row = { .bytes = 512 << 20 };
	const struct stoker_group full = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 16, .name = "thick", .revision = "1", .groups = &full,
		.n_groups = 1, .n_rows = 1, .rows = &row,
	};
	struct stoker_model *model;
	struct worker w;

	worker_start(&w);
	ck_assert_int_eq(stoker_model_open(w.c, &description, &model), -E2BIG);
	ck_assert_msg(strstr(stoker_error(w.c), "no chunk fits") != NULL, "%s", stoker_error(w.c));
	worker_end(&w);
}
END_TEST

/* ---- larger than a payload ---------------------------------------------------------------------------- */

enum { LONG = 9000 };		/* chunks, each one block of 64 bytes */

static void long_pool(struct worker *w, struct stoker_model **ret_model, struct stoker_pool **ret_pool, uint64_t **ret)
{
	const struct stoker_plane_bytes row = { .bytes = 64 };
	const struct stoker_group full = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 16, .name = "thin", .revision = "1", .groups = &full,
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
	worker_keys(keys, 0, LONG + 10);
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
	result = worker_finish(&w, job);
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
	ck_assert_uint_eq(store(&w, 0, 48).n, 48);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_int_eq(whole_ctl("evict 100%"), 0);
	worker_wipe(&w, 0x5a);
	result = worker_looks_up(&w, 0, 48);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, 48);
	ck_assert_uint_eq(result.counts[1], 48);
	ck_assert_uint_eq(retrieve(&w, &result.lease, 0, 48, 16).n, 48);
	worker_check(&w);
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

	worker_keys(keys, 0, n);
	do {
		expect(time(NULL) < end);
		usleep(2000);
		if (stoker_lookup(w->c, w->model, keys, n, NULL, &job) < 0)
			continue;
		result = worker_finish(w, job);
	} while (result.n < n);
	return result;
}

START_TEST(after_a_kill_the_same_handles_are_served_by_the_next_broker)
{
	struct stoker_result result;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	ck_assert_uint_eq(store(&w, 0, 32).n, 32);
	ck_assert_int_eq(whole_ctl("ping"), 0);
	usleep(200000);		/* checksums of fresh stores are made in the background */
	ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);
	while (stoker_ping(w.c, &job) == 0)	/* it notices within 10 ms of polling */
		worker_finish(&w, job);
	ck_assert_int_eq(whole_ctl("status"), 3);
	ck_assert_int_eq(whole_ctl("ping"), 3);

	whole_launch();
	worker_wipe(&w, 0xa5);
	result = lookup_again(&w, 32);
	ck_assert_uint_eq(stoker_attachments(w.c), 2);
	ck_assert_uint_eq(retrieve(&w, &result.lease, 0, 32, 32).n, 32);
	worker_check(&w);
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
	ck_assert_uint_eq(store(&w, 0, 4).n, 4);
	result = worker_looks_up(&w, 0, 4);
	job = retrieve_submit(&w, &result.lease, 0, 4, 32, &options);
	whole_end(SIGKILL);
	ck_assert_uint_eq(worker_finish(&w, job).status, STOKER_STATUS_BROKER_GONE);
	ck_assert_int_eq(stoker_pool_drop(w.pool), 0);
	ck_assert_int_eq(stoker_region_drop(w.region), 0);
	worker_end(&w);
}
END_TEST

/* Store a few chunks, look them up, and retrieve them. Whatever was asked, no byte may be wrong. */
static uint32_t serve_once(struct worker *w, uint32_t first)
{
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_key keys[4];
	struct stoker_job job;
	uint32_t served = 0;
	uint8_t chunks[4];

	if (worker_store(w, first, 4, 0, 1, &job) == 0)
		worker_finish(w, job);
	worker_keys(keys, first, 4);
	if (stoker_lookup(w->c, w->model, keys, 4, NULL, &job) < 0)
		return 0;
	result = worker_finish(w, job);
	if (result.n == 0 || worker_retrieve(w, &result.lease, result.n, 32, 1, NULL, &job) < 0)
		return 0;
	ck_assert_int_eq(stoker_wait(w->c, job, 30000000), 0);
	ck_assert_int_eq(stoker_finish(w->c, job, NULL, NULL, 0, chunks, 4), 0);
	for (uint32_t i = 0; i < result.n; i++) {
		if (chunks[i] != STOKER_CHUNK_RETRIEVED)
			continue;
		served++;
		ck_assert_msg(worker_holds(w->memory, 32 + i, first + i), "chunk %u is wrong", first + i);
	}
	return served;
}

struct served_worker {
	struct worker w;
	_Atomic bool over;
	uint32_t served;
};

static void *serve_until_over(void *arg)
{
	struct served_worker *s = arg;

	for (uint32_t n = 0; !s->over; n++) {
		s->served += serve_once(&s->w, n % 64 * 4);
		usleep(200);
	}
	return NULL;
}

START_TEST(a_worker_goes_on_through_the_deaths_of_brokers)
{
	static struct served_worker s;
	pthread_t server;

	worker_start(&s.w);
	ck_assert_int_eq(pthread_create(&server, NULL, serve_until_over, &s), 0);
	for (int i = 0; i < 4; i++) {
		usleep(200000);
		whole_end(SIGKILL);
		whole_launch();
	}
	usleep(200000);
	s.over = true;
	pthread_join(server, NULL);
	while (!stoker_is_attached(s.w.c))
		serve_once(&s.w, 0);
	ck_assert_uint_ge(stoker_attachments(s.w.c), 2);
	ck_assert_uint_gt(s.served, 0);
	worker_end(&s.w);
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
		store(&w, 0, 16);
		worker_looks_up(&w, 0, 16);
		raise(SIGKILL);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(WTERMSIG(status), SIGKILL);
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 0);
	whole_await_gauge(STOKER_GAUGE_POOLS, 0);
	whole_await_gauge(STOKER_GAUGE_LEASES, 0);
	worker_start(&w);
	ck_assert_uint_eq(worker_looks_up(&w, 0, 16).n, 16);	/* what it stored is everybody's */
	worker_end(&w);
}
END_TEST

START_TEST(commands_end_as_they_promise)
{
	const pid_t first = whole.broker;

	ck_assert_int_eq(whole_ctl("status"), 0);
	ck_assert_int_eq(whole_ctl("--json stat"), 0);
	ck_assert_int_eq(whole_ctl("clients"), 0);
	ck_assert_int_eq(whole_ctl("clear"), 0);
	ck_assert_int_eq(whole_try(), 3);		/* the name is taken */
	whole.broker = first;
	ck_assert_int_eq(kill(whole.broker, SIGSTOP), 0);	/* it hangs: its page can be read all the same */
	ck_assert_int_eq(whole_ctl("status"), 0);
	ck_assert_int_eq(kill(whole.broker, SIGCONT), 0);
	ck_assert_int_eq(whole_ctl("stop"), 0);
	ck_assert_int_eq(whole_wait(), 0);
	ck_assert_int_eq(whole_ctl("status"), 3);
}
END_TEST

static void setup_without_broker(void)
{
	whole_make();
}

/* Fewer seats, and one line, instead of clients that fail in the middle of something. */
START_TEST(where_few_files_may_be_open_there_are_fewer_seats)
{
	const struct rlimit limit = { 768, 768 };
	struct stoker *clients[80];
	uint32_t n = 0;
	int r;

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	whole_start();
	ck_assert_uint_eq(whole_logged("open files are enough for"), 1);
	while (n < 80 && (r = stoker_attach(whole.name, NULL, &clients[n])) == 0)
		n++;
	ck_assert_uint_gt(n, 20);
	ck_assert_uint_lt(n, 80);
	expect(strstr(stoker_attach_error(), "limits.clients"));
	expect(whole_descriptors() < 768 - 128);
	while (n > 0)
		stoker_close(clients[--n]);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/*
 * What the page says of a histogram: how often, and whether most took no time at all. Single ones may: when the
 * broker's clock was ahead of the kernel's, it stands until that has caught up.
 */
static uint64_t measured(enum stoker_histogram histogram)
{
	const struct control_page *page = whole_page();
	uint64_t n = 0;

	for (uint32_t b = 0; b < CONTROL_BLOCKS; b++)
		for (uint32_t i = 0; i < CONTROL_BUCKETS; i++)
			n += atomic_load_explicit(&page->blocks[b].histograms[histogram][i], memory_order_relaxed);
	ck_assert_msg(n == 0 || control_quantile(page, histogram, 0.5) > 0, "histogram %u: most jobs took no time", histogram);
	return n;
}

START_TEST(what_every_job_took_is_measured_also_if_it_was_answered_at_once)
{
	struct worker w;

	worker_start(&w);
	for (uint32_t chain = 0; chain < 5; chain++)
		worker_stores(&w, chain * 1000, 16);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_int_eq(whole_ctl("evict 100%"), 0);
	for (uint32_t i = 0; i < 9; i++)
		worker_gets(&w, 0, 16, 16);
	for (uint32_t i = 0; i < 50; i++)
		worker_looks_up(&w, 0, 16);
	await(measured(STOKER_HISTOGRAM_RETRIEVE_NS) == 9);
	ck_assert_uint_ge(measured(STOKER_HISTOGRAM_LOOKUP_NS), 50);
	ck_assert_uint_ge(measured(STOKER_HISTOGRAM_STORE_NS), 5);
	ck_assert_uint_ge(measured(STOKER_HISTOGRAM_READ_NS), 1);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("end-to-end");
	TCase *memory = tcase_create("memory"), *disk = tcase_create("disk"), *bare = tcase_create("bare");

	tcase_add_checked_fixture(memory, setup, whole_clean);
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
	tcase_add_test(memory, a_model_whose_objects_are_too_large_for_the_arena_is_told_so);
	tcase_add_test(memory, jobs_larger_than_a_payload_are_stored_looked_up_and_retrieved_whole);
	tcase_add_test(memory, after_a_kill_the_same_handles_are_served_by_the_next_broker);
	tcase_add_test(memory, a_killed_broker_ends_what_is_pending);
	tcase_add_test(memory, a_worker_goes_on_through_the_deaths_of_brokers);
	tcase_add_test(memory, a_client_that_is_killed_leaves_nothing_behind);
	tcase_add_test(memory, commands_end_as_they_promise);
	suite_add_tcase(suite, memory);
	tcase_add_checked_fixture(bare, setup_without_broker, whole_clean);
	tcase_set_timeout(bare, 120);
	tcase_add_test(bare, where_few_files_may_be_open_there_are_fewer_seats);
	suite_add_tcase(suite, bare);
	tcase_add_checked_fixture(disk, setup_with_tier, whole_clean);
	tcase_set_timeout(disk, 120);
	tcase_add_test(disk, what_left_the_arena_comes_back_from_disk);
	tcase_add_test(disk, what_every_job_took_is_measured_also_if_it_was_answered_at_once);
	suite_add_tcase(suite, disk);
	return suite_run(suite);
}
