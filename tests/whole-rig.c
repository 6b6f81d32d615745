#include "tests/whole-rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/suite.h"

struct whole whole;
static const struct control_page *page;

/* Longer than anything may take on a machine that has other things to do. */
#define PATIENCE_S 60

/* ---- a broker ---------------------------------------------------------------------------------- */

static void objects_remove(const char *name)
{
	char path[128];

	for (const char *const *end = (const char *const[]){ "", ".arena", ".table", NULL }; *end; end++) {
		snprintf(path, sizeof(path), "/dev/shm%s%s", name, *end);
		unlink(path);
	}
}

/* At the end of the test's process, and of the children that do not outlive it, what it left is removed. */
static void janitor_start(void)
{
	const struct timespec moment = { .tv_nsec = 100000000 };	/* for those that die of its end */
	char command[128], second[72];
	int end[2];

	ck_assert_int_eq(pipe2(end, O_CLOEXEC), 0);
	const pid_t janitor = fork();
	ck_assert_int_ge(janitor, 0);
	if (janitor > 0) {
		close(end[0]);
		return;		/* the other end is held until the process ends */
	}
	setsid();		/* Check kills the group of a test that takes too long */
	close(end[1]);
	while (read(end[0], command, 1) < 0 && errno == EINTR)
		;
	nanosleep(&moment, NULL);
	snprintf(second, sizeof(second), "%s-b", whole.name);
	objects_remove(whole.name);
	objects_remove(second);
	snprintf(command, sizeof(command), "rm -rf '%s'", whole.directory);
	_exit(system(command) != 0);
}

void whole_make(void)
{
	snprintf(whole.directory, sizeof(whole.directory), "/tmp/stoker-whole-XXXXXX");
	expect(mkdtemp(whole.directory));
	snprintf(whole.name, sizeof(whole.name), "/stoker-whole-%d", (int)getpid());
	whole.memory = "24M";
	janitor_start();
}

pid_t whole_fork(void)
{
	const pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

void whole_clean_objects(void)
{
	objects_remove(whole.name);
}

void whole_clean(void)
{
	char command[192];

	if (whole.broker > 0)
		whole_end(SIGKILL);
	/* What a sanitizer, or an assertion, found in a broker shows nowhere else. */
	const uint32_t found = whole_logged("Sanitizer") + whole_logged("runtime error") + whole_logged("Assertion");
	whole_clean_objects();
	snprintf(command, sizeof(command), "%s '%s'/log >&2; rm -rf '%s'", found ? "cat" : ": ", whole.directory,
		 whole.directory);
	ck_assert_int_eq(system(command), 0);
	ck_assert_uint_eq(found, 0);
}

static void path_of(char ret[256], const char *what)
{
	const char *top = getenv("top_builddir");

	snprintf(ret, 256, "%s/%s", top ? top : ".", what);
}

static void broker_exec(int ready)
{
	static char stokerd[256], launcher[256], runtime[256], state[256], tier[256], log[256];
	const char *arguments[32];
	int n = 0;

	path_of(stokerd, "stokerd");
	snprintf(runtime, sizeof(runtime), "broker.runtime_directory=%s/run", whole.directory);
	snprintf(state, sizeof(state), "broker.state_directory=%s/state", whole.directory);
	snprintf(tier, sizeof(tier), "%s/tier:64M", whole.directory);
	snprintf(log, sizeof(log), "%s/log", whole.directory);
	if (whole.forbidden) {
		path_of(launcher, "tests/forbid");
		arguments[n++] = launcher;
		arguments[n++] = whole.forbidden;
	}
	arguments[n++] = stokerd;
	for (const char *const *more = (const char *const[]){ "--name", whole.name, "--memory", whole.memory, "--log-level",
			"info", "--set", runtime, "--set", state, "--set", "arena.extent=4M", "--set",
			"arena.entries=16384", NULL }; *more; more++)
		arguments[n++] = *more;
	for (int i = 0; i < 4 && whole.settings[i]; i++) {
		arguments[n++] = "--set";
		arguments[n++] = whole.settings[i];
	}
	if (whole.tier) {
		arguments[n++] = "--tier";
		arguments[n++] = tier;
	}
	arguments[n] = NULL;
	dup2(ready, STDOUT_FILENO);
	dup2(open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), STDERR_FILENO);
	execv(arguments[0], (char *const *)(uintptr_t)arguments);
	_exit(127);
}

/* End of a broker that did not come up. */
static int broker_wait(void)
{
	int status = 0;

	ck_assert_int_eq(waitpid(whole.broker, &status, 0), whole.broker);
	whole.broker = 0;
	if (page)
		control_unmap(page);
	page = NULL;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int whole_try(void)
{
	char line[128] = "", expected[128];
	int ready[2];
	ssize_t n;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	whole.broker = whole_fork();
	if (whole.broker == 0)
		broker_exec(ready[1]);
	close(ready[1]);
	n = read(ready[0], line, sizeof(line) - 1);
	close(ready[0]);
	if (n == 0)
		return broker_wait();
	snprintf(expected, sizeof(expected), "ready %s\n", whole.name);
	ck_assert_str_eq(line, expected);
	return 0;
}

/* All extents have come: before that there is little room, and stores evict. */
static void await_populated(void)
{
	const time_t end = time(NULL) + PATIENCE_S;

	while (whole_gauge(STOKER_GAUGE_ARENA_POPULATED) != whole_gauge(STOKER_GAUGE_ARENA_BYTES) ||
	       whole_gauge(STOKER_GAUGE_ARENA_BYTES) == 0) {
		expect(time(NULL) < end);
		usleep(1000);
	}
}

void whole_start(void)
{
	ck_assert_int_eq(whole_try(), 0);
	whole_await_state(STOKER_STATE_SERVING);
	await_populated();
}

int whole_end(int signal_number)
{
	expect(whole.broker > 0);
	kill(whole.broker, signal_number);
	return broker_wait();
}

const struct control_page *whole_page(void)
{
	if (!page)
		ck_assert_int_eq(control_map(whole.name, &page), 0);
	return page;
}

uint64_t whole_gauge(enum stoker_gauge gauge)
{
	return atomic_load_explicit(&whole_page()->gauges[gauge], memory_order_relaxed);
}

uint64_t whole_counter(enum stoker_counter counter)
{
	return control_counter(whole_page(), counter);
}

void whole_await_gauge(enum stoker_gauge gauge, uint64_t value)
{
	const time_t end = time(NULL) + PATIENCE_S;

	while (whole_gauge(gauge) != value) {
		if (time(NULL) >= end)
			ck_abort_msg("%s stays at %llu and is to be %llu", stoker_gauge_row((int)gauge)->name,
				     (unsigned long long)whole_gauge(gauge), (unsigned long long)value);
		usleep(1000);
	}
}

void whole_await_state(enum stoker_state state)
{
	const time_t end = time(NULL) + PATIENCE_S;

	while (atomic_load_explicit(&whole_page()->state, memory_order_acquire) != state) {
		expect(time(NULL) < end);
		usleep(1000);
	}
}

int whole_ctl(const char *arguments)
{
	char program[256], command[768];

	path_of(program, "stokerctl");
	snprintf(command, sizeof(command), "'%s' --name %s %s >>'%s/ctl.out' 2>&1", program, whole.name, arguments,
		 whole.directory);
	return WEXITSTATUS(system(command));
}

uint32_t whole_logged(const char *text)
{
	char path[128], line[2048];
	uint32_t n = 0;
	FILE *log;

	snprintf(path, sizeof(path), "%s/log", whole.directory);
	log = fopen(path, "re");
	while (log && fgets(line, sizeof(line), log))
		n += strstr(line, text) != NULL;
	if (log)
		fclose(log);
	return n;
}

uint32_t whole_descriptors(void)
{
	char path[64];
	uint32_t n = 0;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)whole.broker);
	directory = opendir(path);
	expect(directory);
	while (readdir(directory))
		n++;
	closedir(directory);
	return n - 2;	/* "." and ".." */
}

static int text_compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

void whole_objects(char *ret, size_t bytes)
{
	const size_t length = strlen(whole.name + 1);
	char found[16][64];
	uint32_t n = 0;
	DIR *directory = opendir("/dev/shm");
	struct dirent *entry;
	size_t at = 0;

	expect(directory);
	while ((entry = readdir(directory)) && n < 16) {
		const char *rest = entry->d_name + length;

		if (strncmp(entry->d_name, whole.name + 1, length) == 0 && (*rest == '\0' || *rest == '.'))
			snprintf(found[n++], sizeof(found[0]), "%s", *rest ? rest + 1 : ".");
	}
	closedir(directory);
	qsort(found, n, sizeof(found[0]), text_compare);
	ret[0] = '\0';
	for (uint32_t i = 0; i < n && at < bytes; i++)
		at += (size_t)snprintf(ret + at, bytes - at, "%s%s", i ? " " : "", found[i]);
}

/* ---- a worker ----------------------------------------------------------------------------------- */

static void model_open(struct worker *w)
{
	static const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 32 };
	struct stoker_plane_bytes rows[WORKER_ROWS];
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 32 * WORKER_BLOCKS, .name = "whole", .revision = "1",
		.groups = &group, .n_groups = 1, .n_rows = WORKER_ROWS, .rows = rows,
	};

	for (uint16_t i = 0; i < WORKER_ROWS; i++)
		rows[i] = (struct stoker_plane_bytes){ .layer = i / 2, .plane = i % 2, .bytes = WORKER_BYTES };
	ck_assert_msg(stoker_model_open(w->c, &description, &w->model) == 0, "%s", stoker_error(w->c));
}

static void pool_add(struct worker *w)
{
	const int fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const struct stoker_range range = { .fd = fd, .bytes = WORKER_POOL };
	struct stoker_plane planes[WORKER_ROWS];

	expect(fd >= 0 && posix_fallocate(fd, 0, (off_t)WORKER_POOL) == 0);
	w->memory = mmap(NULL, WORKER_POOL, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	w->expected = calloc(1, WORKER_POOL);
	expect(w->memory != MAP_FAILED && w->expected);
	ck_assert_msg(stoker_region_add(w->c, &range, 1, &w->region) == 0, "%s", stoker_error(w->c));
	close(fd);
	for (uint16_t i = 0; i < WORKER_ROWS; i++)
		planes[i] = (struct stoker_plane){ .region = w->region, .layer = i / 2, .plane = i % 2,
						   .bytes = WORKER_BYTES, .offset = i * WORKER_PLANE,
						   .block_stride = WORKER_BYTES };
	ck_assert_msg(stoker_pool_add(w->model, 0, 0, WORKER_POOL_BLOCKS, planes, WORKER_ROWS, &w->pool) == 0, "%s",
		      stoker_error(w->c));
}

void worker_start(struct worker *w)
{
	memset(w, 0, sizeof(*w));
	ck_assert_msg(stoker_attach(whole.name, NULL, &w->c) == 0, "%s", stoker_attach_error());
	model_open(w);
	pool_add(w);
}

void worker_end(struct worker *w)
{
	stoker_close(w->c);
	munmap(w->memory, WORKER_POOL);
	free(w->expected);
}

void worker_wipe(struct worker *w, uint8_t byte)
{
	memset(w->memory, byte, WORKER_POOL);
	memset(w->expected, byte, WORKER_POOL);
}

/* Word @i of block @block in row @row of a chunk. */
static uint64_t kv(uint32_t chunk, uint32_t row, uint32_t block, uint32_t i)
{
	const uint64_t x = ((uint64_t)chunk << 32 | row << 24 | block << 16 | i) * 0x9e3779b97f4a7c15ull;

	return x ^ x >> 29;
}

void worker_fill(uint8_t *memory, uint32_t place, uint32_t chunk)
{
	for (uint32_t row = 0; row < WORKER_ROWS; row++) {
		for (uint32_t block = 0; block < WORKER_BLOCKS; block++) {
			uint64_t *at = (uint64_t *)(memory + row * WORKER_PLANE + (place * WORKER_BLOCKS + block) * WORKER_BYTES);

			for (uint32_t i = 0; i < WORKER_BYTES / 8; i++)
				at[i] = kv(chunk, row, block, i);
		}
	}
}

bool worker_holds(const uint8_t *memory, uint32_t place, uint32_t chunk)
{
	for (uint32_t row = 0; row < WORKER_ROWS; row++) {
		for (uint32_t block = 0; block < WORKER_BLOCKS; block++) {
			const uint64_t *at = (const uint64_t *)(memory + row * WORKER_PLANE +
								(place * WORKER_BLOCKS + block) * WORKER_BYTES);

			for (uint32_t i = 0; i < WORKER_BYTES / 8; i++) {
				if (at[i] != kv(chunk, row, block, i))
					return false;
			}
		}
	}
	return true;
}

void worker_check(const struct worker *w)
{
	if (memcmp(w->memory, w->expected, WORKER_POOL) == 0)
		return;
	for (size_t i = 0; i < WORKER_POOL; i++) {
		if (w->memory[i] != w->expected[i])
			ck_abort_msg("byte %zu of row %zu, block %zu is wrong", i % WORKER_BYTES, i / WORKER_PLANE,
				     i % WORKER_PLANE / WORKER_BYTES);
	}
}

void worker_keys(struct stoker_key *keys, uint32_t first, uint32_t n)
{
	memset(keys, 0, n * sizeof(*keys));
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t number = first + i + 1;

		memcpy(keys[i].bytes, &number, sizeof(number));
		memcpy(keys[i].bytes + 16, "whole", 5);
	}
}

static void ids_make(uint32_t *ids, uint32_t n, uint32_t place, uint32_t step)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t block = 0; block < WORKER_BLOCKS; block++)
			ids[i * WORKER_BLOCKS + block] = (place + i * step) * WORKER_BLOCKS + block;
}

int worker_store(struct worker *w, uint32_t first, uint32_t n, uint32_t place, uint32_t step, struct stoker_job *ret)
{
	struct stoker_key keys[WORKER_CHUNKS], parent;
	uint32_t ids[WORKER_POOL_BLOCKS];
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = n, .ids = ids };
	struct stoker_store_options options = { .size = sizeof(options) };

	expect(place + (n - 1) * step < WORKER_CHUNKS);
	worker_keys(keys, first, n);
	if (first % 1000 > 0) {
		worker_keys(&parent, first - 1, 1);
		options.parent = &parent;
		options.first_token = first % 1000 * 32 * WORKER_BLOCKS;
	}
	ids_make(ids, n, place, step);
	for (uint32_t i = 0; i < n; i++) {
		worker_fill(w->memory, place + i * step, first + i);
		worker_fill(w->expected, place + i * step, first + i);
	}
	return stoker_store(w->c, w->model, keys, n, &blocks, 1, &options, ret);
}

int worker_retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t n, uint32_t place, uint32_t step,
		    const struct stoker_retrieve_options *options, struct stoker_job *ret)
{
	uint32_t ids[WORKER_POOL_BLOCKS];
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = n, .ids = ids };

	expect(place + (n - 1) * step < WORKER_CHUNKS);
	ids_make(ids, n, place, step);
	return stoker_retrieve(w->c, w->model, lease, &blocks, 1, options, ret);
}

struct stoker_result worker_finish(struct worker *w, struct stoker_job job)
{
	struct stoker_result result = { .size = sizeof(result) };
	const int r = stoker_wait(w->c, job, PATIENCE_S * 1000000ull);

	ck_assert_msg(r == 0, "a job does not end: %s; stage %s", strerror(-r), stoker_stage_name(stoker_poll(w->c, job)));
	ck_assert_int_eq(stoker_finish(w->c, job, &result, NULL, 0, NULL, 0), 0);
	return result;
}

void worker_stores(struct worker *w, uint32_t first, uint32_t n)
{
	struct stoker_result result;
	struct stoker_job job;

	ck_assert_msg(worker_store(w, first, n, 0, 1, &job) == 0, "%s", stoker_error(w->c));
	result = worker_finish(w, job);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, n);
}

struct stoker_result worker_looks_up(struct worker *w, uint32_t first, uint32_t n)
{
	struct stoker_key keys[WORKER_CHUNKS];
	struct stoker_job job;

	worker_keys(keys, first, n);
	ck_assert_msg(stoker_lookup(w->c, w->model, keys, n, NULL, &job) == 0, "%s", stoker_error(w->c));
	return worker_finish(w, job);
}

struct stoker_result worker_gets(struct worker *w, uint32_t first, uint32_t n, uint32_t found)
{
	const struct stoker_result result = worker_looks_up(w, first, n);
	struct stoker_result retrieved;
	struct stoker_job job;

	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, found);
	worker_wipe(w, 0xa5);
	if (found == 0)
		return result;
	for (uint32_t i = 0; i < found; i++)
		worker_fill(w->expected, i, first + i);
	ck_assert_msg(worker_retrieve(w, &result.lease, found, 0, 1, NULL, &job) == 0, "%s", stoker_error(w->c));
	retrieved = worker_finish(w, job);
	ck_assert_uint_eq(retrieved.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(retrieved.n, found);
	worker_check(w);
	ck_assert_int_eq(stoker_release(w->c, &result.lease, 0), 0);
	return result;
}
