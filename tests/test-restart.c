/*
 * Ends and beginnings: what a broker finds again that came after one that was stopped, killed or robbed
 * of its files, and that what it finds is right to the byte. And what becomes of a broker whose
 * clients are killed, again and again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/random.h"
#include "tests/raw-client.h"
#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

#define PATIENCE_S 60

static void setup(void)
{
	whole_make();
	whole.tier = false;
}

static void setup_with_tier(void)
{
	whole_make();
	whole.tier = true;
}

static void tier_path(char ret[128], const char *file)
{
	snprintf(ret, 128, "%s/tier/%s", whole.directory, file);
}

static void expect_objects(const char *expected)
{
	char objects[256];

	whole_objects(objects, sizeof(objects));
	ck_assert_str_eq(objects, expected);
}

/* The file's bytes; *ret_bytes: how many. */
static uint8_t *file_read(const char *path, size_t *ret_bytes)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *bytes;

	ck_assert_msg(fd >= 0 && fstat(fd, &st) == 0, "%s: %m", path);
	*ret_bytes = (size_t)st.st_size;
	bytes = malloc(*ret_bytes + 1);
	expect(bytes);
	for (size_t at = 0; at < *ret_bytes;) {
		const ssize_t n = pread(fd, bytes + at, *ret_bytes - at, (off_t)at);

		expect(n > 0);
		at += (size_t)n;
	}
	close(fd);
	return bytes;
}

/* ---- a warm start -------------------------------------------------------------------------------- */

START_TEST(after_term_the_next_broker_serves_everything_from_the_arena)
{
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 64);
	worker_stores(&w, 1000, 64);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	expect_objects("arena table");

	whole_start();
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_L1), 128);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERY_DROPPED), 0);
	worker_end(&w);
	worker_start(&w);
	worker_gets(&w, 0, 64, 64);
	worker_gets(&w, 1000, 64, 64);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_HITS_L1), 128);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_DISK_READS), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_CHECKSUM_ERRORS), 0);
	expect_objects(". arena table");
	worker_end(&w);
}
END_TEST

START_TEST(a_byte_that_changed_in_the_arena_meanwhile_is_a_miss)
{
	uint8_t image[64], *arena;
	char path[128];
	struct worker w;
	size_t bytes;
	int fd;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 16);
	memcpy(image, w.memory + 5 * WORKER_BLOCKS * WORKER_BYTES, sizeof(image));	/* where chunk 5 begins */
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	snprintf(path, sizeof(path), "/dev/shm%s.arena", whole.name);
	arena = file_read(path, &bytes);
	const uint8_t *found = memmem(arena, bytes, image, sizeof(image));
	expect(found);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, &(uint8_t){ (uint8_t)(*found ^ 1) }, 1, found - arena), 1);
	close(fd);
	free(arena);

	whole_start();
	worker_start(&w);
	worker_gets(&w, 0, 16, 5);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_CHECKSUM_ERRORS), 1);
	worker_stores(&w, 5, 1);	/* and can be stored anew */
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
}
END_TEST

START_TEST(without_arena_and_table_the_disk_serves_alone)
{
	char path[128];
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 64);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	snprintf(path, sizeof(path), "/dev/shm%s.arena", whole.name);
	ck_assert_int_eq(unlink(path), 0);
	snprintf(path, sizeof(path), "/dev/shm%s.table", whole.name);
	ck_assert_int_eq(unlink(path), 0);

	whole_start();
	worker_end(&w);
	worker_start(&w);
	const struct stoker_result result = worker_gets(&w, 0, 64, 64);
	ck_assert_uint_eq(result.counts[0], 0);
	ck_assert_uint_eq(result.counts[1], 64);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_DISK), 64);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_DISK_READS), 64);
	worker_end(&w);
}
END_TEST

START_TEST(an_arena_of_another_geometry_is_dropped_with_one_line_and_the_disk_serves)
{
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 64);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	whole.memory = "16M";
	whole_start();
	ck_assert_uint_eq(whole_logged("is not taken over: it was made for another geometry; it begins empty"), 1);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_L1), 0);
	worker_start(&w);
	ck_assert_uint_eq(worker_gets(&w, 0, 64, 64).counts[1], 64);
	worker_end(&w);
}
END_TEST

/* ---- files that are not what they should be --------------------------------------------------------- */

/* Change the byte at which @what begins in the tier's file. */
static void flip(const void *what, size_t n)
{
	char path[128];
	size_t bytes;
	uint8_t *file;
	int fd;

	tier_path(path, "stoker-tier");
	file = file_read(path, &bytes);
	const uint8_t *found = memmem(file, bytes, what, n);
	expect(found);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, &(uint8_t){ (uint8_t)(*found ^ 0x10) }, 1, found - file), 1);
	close(fd);
	free(file);
}

START_TEST(a_byte_that_changed_on_disk_is_a_miss_and_counted)
{
	struct control_tier tier;
	struct stoker_key header[2];	/* of an image: its key, then its parent's */
	uint8_t payload[64];
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 1000, 16);
	worker_stores(&w, 0, 16);
	memcpy(payload, w.memory + 5 * WORKER_BLOCKS * WORKER_BYTES, sizeof(payload));
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	flip(payload, sizeof(payload));
	worker_keys(&header[0], 1009, 1);
	worker_keys(&header[1], 1008, 1);
	flip(header, sizeof(header));
	whole.memory = "16M";			/* so that nothing is in the arena */
	whole_start();
	worker_start(&w);
	worker_gets(&w, 0, 16, 5);
	worker_gets(&w, 1000, 16, 9);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_CHECKSUM_ERRORS), 2);
	expect(control_read_tier(whole_page(), 0, &tier));
	ck_assert_uint_eq(tier.state, STOKER_TIER_SERVING);
	worker_stores(&w, 5, 1);
	worker_stores(&w, 1009, 1);
	worker_gets(&w, 0, 16, 16);
	worker_gets(&w, 1000, 16, 16);
	worker_end(&w);
}
END_TEST

/*
 * Wrong checksums in a row are a fault of the disk. Other objects than the tier's table names (_i = 1) are not: the
 * table could not be kept for a while.
 */
START_TEST(a_disk_whose_checksums_are_wrong_again_and_again_is_taken_out_of_service)
{
	const uint32_t max = 16;		/* TIER_ERRORS_MAX of the broker */
	struct stoker_key header[2];		/* of an image: its key, then its parent's */
	uint8_t payload[17][64];
	struct control_tier tier;
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, max + 1);
	for (uint32_t i = 0; i <= max; i++)
		memcpy(payload[i], w.memory + i * WORKER_BLOCKS * WORKER_BYTES, sizeof(payload[i]));
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	for (uint32_t i = 1; i <= max; i++) {
		worker_keys(&header[0], i, 1);
		worker_keys(&header[1], i - 1, 1);
		flip(_i ? (void *)header : payload[i], _i ? sizeof(header) : sizeof(payload[i]));
	}
	whole.memory = "16M";			/* so that nothing is in the arena */
	whole_start();
	worker_start(&w);
	for (uint32_t i = 1; i <= max; i++) {
		expect(control_read_tier(whole_page(), 0, &tier));
		ck_assert_uint_eq(tier.state, STOKER_TIER_SERVING);
		worker_gets(&w, i, 1, 0);
	}
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_CHECKSUM_ERRORS), max);
	worker_gets(&w, 0, 1, _i);		/* the one that is right */
	await(control_read_tier(whole_page(), 0, &tier) && tier.state == (_i ? STOKER_TIER_SERVING : STOKER_TIER_FAILED));
	await(whole_logged("out of service after 16 objects in a row whose checksums were wrong") == !_i);
	worker_stores(&w, 2000, 16);		/* the arena goes on */
	worker_gets(&w, 2000, 16, 16);
	worker_end(&w);
}
END_TEST

/* What lies there before the first start, byte for byte; the tier is refused and left as it is. */
static void refused(const char *file, size_t bytes, const char *why)
{
	char path[128], directory[128];
	struct rng rng = { bytes };
	struct control_tier tier;
	uint8_t *before, *after;
	size_t n;
	int fd;

	tier_path(directory, "");
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	tier_path(path, file);
	before = malloc(bytes);
	expect(before);
	for (size_t i = 0; i < bytes; i++)
		before[i] = (uint8_t)rng_next(&rng);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, before, bytes), (ssize_t)bytes);
	close(fd);

	ck_assert_int_eq(whole_try(), 0);	/* it serves from memory, and says so */
	whole_await_state(STOKER_STATE_DEGRADED);
	expect(control_read_tier(whole_page(), 0, &tier));
	ck_assert_uint_eq(tier.state, STOKER_TIER_FAILED);
	ck_assert_uint_eq(whole_logged("tier disk0 is out of service: "), 1);
	ck_assert_uint_eq(whole_logged(why), 1);
	struct worker w;
	worker_start(&w);
	for (uint32_t chain = 0; chain < 16; chain++)	/* more than the arena holds: nothing waits to be written */
		worker_stores(&w, chain * 1000, 64);
	worker_gets(&w, 15000, 64, 64);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	ck_assert_uint_eq(whole_logged("not everything could be written back"), 0);
	after = file_read(path, &n);
	ck_assert_uint_eq(n, bytes);
	ck_assert_int_eq(memcmp(before, after, bytes), 0);
	free(before);
	free(after);
}

START_TEST(a_foreign_file_in_a_tiers_directory_is_refused_and_left_as_it_is)
{
	static const struct { const char *file; size_t bytes; const char *why; } kinds[] = {
		{ "stoker-tier", 200000, "stoker-tier is no tier of stoker's" },
		{ "stoker-tier", 100, "stoker-tier is no tier of stoker's (it is too short); move it away" },
		{ "stoker-slabs", 200000, "stoker-slabs" },
		{ "stoker-slabs", 10, "stoker-slabs" },
	};

	refused(kinds[_i].file, kinds[_i].bytes, kinds[_i].why);
}
END_TEST

/* A second broker, with another name, in the same directories. Its log goes to the same file. */
START_TEST(a_tier_belongs_to_one_broker_and_a_name_too)
{
	char expected[256], text[16] = "";
	int ready[2], status;

	/* The first one is another process's child, so that the rig can have the second. */
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	const pid_t first = whole_fork();
	if (first == 0) {
		whole_start();
		dprintf(ready[1], "%d", (int)whole.broker);
		close(ready[1]);
		waitpid(whole.broker, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 100);
	}
	close(ready[1]);
	expect(read(ready[0], text, sizeof(text) - 1) > 0);
	close(ready[0]);
	const pid_t holder = (pid_t)atoi(text);

	ck_assert_int_eq(whole_try(), 3);
	snprintf(expected, sizeof(expected), "the name %s is in use: pid %d holds ", whole.name, (int)holder);
	ck_assert_uint_eq(whole_logged(expected), 1);
	strcat(whole.name, "-b");
	ck_assert_int_eq(whole_try(), 0);
	whole_await_state(STOKER_STATE_DEGRADED);
	snprintf(expected, sizeof(expected), "/tier is in use by another broker (pid %d); stop it or name another directory",
		 (int)holder);
	ck_assert_uint_eq(whole_logged(expected), 1);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	whole_clean_objects();
	whole.name[strlen(whole.name) - 2] = '\0';
	ck_assert_int_eq(kill(holder, SIGTERM), 0);
	ck_assert_int_eq(waitpid(first, &status, 0), first);
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	whole_start();			/* and both are free again */
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* ---- kills in the middle of everything ------------------------------------------------------------------ */

enum { CHAINS = 24, LENGTH = 32, WORKERS = 2, KILLS = 20 };

/* struct shared - between the test and its workers. */
struct shared {
	_Atomic bool stop;
	_Atomic uint32_t attachments[WORKERS];	/* of the last retrieve that brought something */
	_Atomic uint32_t rounds[WORKERS];
	_Atomic uint64_t verified[WORKERS], gone[WORKERS];
};

/*
 * Places 0, 2, 4 ... of the pool are copied from and to; what lies between must never change. After a
 * retrieve whose broker went away, what the places hold is not known, and yet nobody writes there
 * any more: `memory` is compared with what it was at that moment.
 */
static void remember(struct worker *w)
{
	memcpy(w->expected, w->memory, WORKER_POOL);
}

static void between_is_untouched(const struct worker *w)
{
	for (size_t row = 0; row < WORKER_ROWS; row++) {
		for (uint32_t place = 1; place < WORKER_CHUNKS; place += 2) {
			const size_t at = row * WORKER_PLANE + place * WORKER_BLOCKS * WORKER_BYTES;

			expect(memcmp(w->memory + at, w->expected + at, WORKER_BLOCKS * WORKER_BYTES) == 0);
		}
	}
}

static void retrieve_round(struct worker *w, uint32_t first, const struct stoker_result *found, struct shared *shared,
			   uint32_t me)
{
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_END_SHARE };
	struct stoker_result result;
	struct stoker_job job;

	worker_check(w);	/* nobody has written since the last job was over */
	worker_wipe(w, 0xa5);
	if (worker_retrieve(w, &found->lease, found->n, 0, 2, &options, &job) < 0)
		return;
	result = worker_finish(w, job);
	between_is_untouched(w);
	if (result.status == STOKER_STATUS_OK) {
		ck_assert_uint_eq(result.n, found->n);	/* what is leased stays */
		for (uint32_t i = 0; i < found->n; i++)
			ck_assert_msg(worker_holds(w->memory, 2 * i, first + i), "chunk %u is wrong", first + i);
		atomic_fetch_add(&shared->verified[me], found->n);
		atomic_store(&shared->attachments[me], stoker_attachments(w->c));
	} else if (result.status == STOKER_STATUS_BROKER_GONE) {
		atomic_fetch_add(&shared->gone[me], 1);
	}
	remember(w);
}

static void store_round(struct worker *w, uint32_t first, uint32_t n, struct shared *shared, uint32_t me)
{
	struct stoker_result result;
	struct stoker_job job;

	worker_check(w);
	worker_wipe(w, 0x5a);
	if (worker_store(w, first, n, 0, 2, &job) == 0) {
		result = worker_finish(w, job);
		atomic_fetch_add(&shared->gone[me], result.status == STOKER_STATUS_BROKER_GONE);
	}
	worker_check(w);	/* a store writes into no pool */
}

static void work_round(struct worker *w, struct rng *rng, struct shared *shared, uint32_t me)
{
	const uint32_t first = rng_below(rng, CHAINS) * 1000, n = 1 + rng_below(rng, LENGTH);
	const struct stoker_lookup_options options = { .size = sizeof(options), .session = 1 + rng_below(rng, 4) };
	struct stoker_result found;
	struct stoker_key keys[LENGTH];
	struct stoker_job job;

	worker_keys(keys, first, n);
	if (stoker_lookup(w->c, w->model, keys, n, &options, &job) < 0) {
		usleep(500);		/* there is no broker now: a worker would compute */
		return;
	}
	if (rng_below(rng, 16) == 0)
		stoker_cancel(w->c, job);
	found = worker_finish(w, job);
	if (found.status == STOKER_STATUS_OK && found.n > 0)
		retrieve_round(w, first, &found, shared, me);
	if (found.status == STOKER_STATUS_OK && found.n < n)
		store_round(w, first + found.n, n - found.n, shared, me);
	if (rng_below(rng, 8) == 0)
		stoker_end_session(w->c, options.session);
}

static void work(struct shared *shared, uint32_t me)
{
	struct rng rng = { me };
	struct worker w;

	worker_start(&w);
	while (!atomic_load(&shared->stop)) {
		work_round(&w, &rng, shared, me);
		atomic_fetch_add(&shared->rounds[me], 1);
	}
	worker_end(&w);
	exit(0);
}

/* Every worker has had something from the broker that is there now, by a handle that it attached anew. */
static void await_workers(struct shared *shared, uint32_t least)
{
	const time_t end = time(NULL) + PATIENCE_S;

	for (uint32_t i = 0; i < WORKERS; i++) {
		while (atomic_load(&shared->attachments[i]) < least) {
			if (time(NULL) >= end)
				ck_abort_msg("worker %u is not served by broker %u: %u rounds, attachment %u", i, least,
					     atomic_load(&shared->rounds[i]), atomic_load(&shared->attachments[i]));
			usleep(1000);
		}
	}
}

START_TEST(a_broker_that_is_killed_in_the_middle_is_followed_by_one_that_serves_right_bytes)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const uint32_t kills = getenv("STOKER_CHECK_LONG") ? 10 * KILLS : KILLS;
	struct rng rng = { 7 };
	pid_t workers[WORKERS];
	uint64_t verified = 0;
	int status;

	expect(shared != MAP_FAILED);
	whole.memory = "12M";		/* less than what is stored, so that the disk is always at work */
	whole_start();
	for (uint32_t i = 0; i < WORKERS; i++) {
		workers[i] = whole_fork();
		if (workers[i] == 0)
			work(shared, i);
	}
	for (uint32_t kill = 1; kill <= kills; kill++) {
		await_workers(shared, kill);
		usleep(rng_below(&rng, 100000));
		/* Every fourth is told to stop, in the middle of the same. */
		if (kill % 4 == 0)
			ck_assert_int_eq(whole_end(SIGTERM), 0);
		else
			ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);
		ck_assert_int_eq(whole_try(), 0);
	}
	await_workers(shared, kills + 1);
	atomic_store(&shared->stop, true);
	for (uint32_t i = 0; i < WORKERS; i++) {
		ck_assert_int_eq(waitpid(workers[i], &status, 0), workers[i]);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "worker %u ended with status %x", i, status);
		verified += atomic_load(&shared->verified[i]);
	}
	expect(verified > 0);
	expect_objects(". arena table");
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 0);
	whole_await_gauge(STOKER_GAUGE_LEASES, 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	expect_objects("arena table");
	munmap(shared, sizeof(*shared));
}
END_TEST

/* ---- clients that are killed -------------------------------------------------------------------------------- */

/* Attach, get hold of one of everything there is, and die in the middle of two jobs. */
static void live_and_die(void)
{
	const struct stoker_retrieve_options ready = { .size = sizeof(ready), .flags = STOKER_RETRIEVE_READY,
						       .ready_index = 1, .ready_value = 1 };
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	struct stoker_result found;
	struct stoker_job job;
	struct worker w;

	worker_start(&w);
	found = worker_looks_up(&w, 0, 16);
	expect(found.n == 16);
	expect(stoker_map(w.c, &found.lease, 3, 0, 0, &mapping) == 0);
	expect(worker_retrieve(&w, &found.lease, 16, 0, 1, &ready, &job) == 0);
	expect(worker_store(&w, 5000 + (uint32_t)getpid() % 1000 * 1000, 16, 32, 1, &job) == 0);
	raise(SIGKILL);
}

/* The broker knows nothing of @n clients any more. */
static void await_gone(uint32_t n)
{
	const time_t end = time(NULL) + PATIENCE_S;

	while (whole_counter(STOKER_COUNTER_CLIENTS_GONE) < n) {
		expect(time(NULL) < end);
		usleep(1000);
	}
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_CLIENTS_GONE), n);
}

START_TEST(clients_that_are_killed_leave_nothing_behind)
{
	const uint32_t times = getenv("STOKER_CHECK_LONG") ? 1000 : 50;
	struct worker w;
	int status;

	whole_start();
	const uint32_t descriptors = whole_descriptors();
	worker_start(&w);
	worker_stores(&w, 0, 16);
	worker_end(&w);
	for (uint32_t i = 0; i < times; i++) {
		const pid_t child = whole_fork();

		if (child == 0)
			live_and_die();
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "client %u ended with status %x", i, status);
	}
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 0);
	whole_await_gauge(STOKER_GAUGE_JOBS, 0);
	whole_await_gauge(STOKER_GAUGE_LEASES, 0);
	whole_await_gauge(STOKER_GAUGE_POOLS, 0);
	whole_await_gauge(STOKER_GAUGE_HOLDS, 0);
	whole_await_gauge(STOKER_GAUGE_ARENA_PINNED, 0);
	await_gone(times + 1);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_CLIENTS_EXPELLED), 0);
	for (const time_t end = time(NULL) + PATIENCE_S; whole_descriptors() != descriptors; usleep(1000))
		ck_assert_msg(time(NULL) < end, "%u descriptors are open, and were %u", whole_descriptors(), descriptors);
	expect_objects(". arena table");
	worker_start(&w);
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
}
END_TEST

START_TEST(a_client_that_hangs_up_its_doorbell_keeps_nobody_awake)
{
	struct raw raw;

	whole_start();
	ck_assert_int_eq(raw_attach(whole.name, &raw), 0);
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 1);
	close(raw.fds[2]);
	usleep(50000);
	const uint64_t before = whole_counter(STOKER_COUNTER_WAKES_TAKEN);
	usleep(300000);
	/* Nobody rings. A core that is kept awake by the hanging up itself hears thousands. */
	expect(whole_counter(STOKER_COUNTER_WAKES_TAKEN) - before < 100);
	raw.fds[2] = -1;
	raw_close(&raw);
	await_gone(1);
}
END_TEST

START_TEST(a_model_that_was_emptied_for_another_is_gone_in_the_next_life_too)
{
	struct worker w;
	struct raw raw;

	whole.options[0] = "--set=limits.models=1";
	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 16);
	whole_await_gauge(STOKER_GAUGE_WRITEBACK, 0);
	worker_end(&w);
	await_gone(1);
	ck_assert_int_eq(raw_attach(whole.name, &raw), 0);
	ck_assert_int_eq(raw_model(&raw, "another", 4096), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_MODELS_FORGOTTEN), 1);
	whole_await_gauge(STOKER_GAUGE_ARENA_OBJECTS, 0);
	raw_close(&raw);
	whole_end(SIGKILL);

	whole_start();
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_L1), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_DISK), 0);
	worker_start(&w);
	worker_gets(&w, 0, 16, 0);
	worker_stores(&w, 0, 16);
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("restart");
	TCase *memory = tcase_create("memory"), *disk = tcase_create("disk");

	tcase_add_checked_fixture(memory, setup, whole_clean);
	tcase_set_timeout(memory, 300);
	tcase_add_test(memory, after_term_the_next_broker_serves_everything_from_the_arena);
	tcase_add_test(memory, a_byte_that_changed_in_the_arena_meanwhile_is_a_miss);
	tcase_add_test(memory, clients_that_are_killed_leave_nothing_behind);
	tcase_add_test(memory, a_client_that_hangs_up_its_doorbell_keeps_nobody_awake);
	suite_add_tcase(suite, memory);
	tcase_add_checked_fixture(disk, setup_with_tier, whole_clean);
	tcase_set_timeout(disk, 600);
	tcase_add_test(disk, without_arena_and_table_the_disk_serves_alone);
	tcase_add_test(disk, an_arena_of_another_geometry_is_dropped_with_one_line_and_the_disk_serves);
	tcase_add_test(disk, a_byte_that_changed_on_disk_is_a_miss_and_counted);
	tcase_add_loop_test(disk, a_disk_whose_checksums_are_wrong_again_and_again_is_taken_out_of_service, 0, 2);
	tcase_add_loop_test(disk, a_foreign_file_in_a_tiers_directory_is_refused_and_left_as_it_is, 0, 4);
	tcase_add_test(disk, a_tier_belongs_to_one_broker_and_a_name_too);
	tcase_add_test(disk, a_broker_that_is_killed_in_the_middle_is_followed_by_one_that_serves_right_bytes);
	tcase_add_test(disk, a_model_that_was_emptied_for_another_is_gone_in_the_next_life_too);
	suite_add_tcase(suite, disk);
	return suite_run(suite);
}
