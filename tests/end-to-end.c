/* See end-to-end.h. */
#include "tests/end-to-end.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/suite.h"

char name[64];
static char directory[64];
static bool with_tier;
pid_t broker;
static int janitor = -1;

/* ---- a broker ------------------------------------------------------------------------------------- */

static void path_of(char to[256], const char *what)
{
	const char *top = getenv("top_builddir");

	snprintf(to, 256, "%s/%s", top ? top : ".", what);
}

/*
 * A test that fails ends without its teardown. Whoever it leaves behind is ended by a process that waits
 * for it: it is told the broker's number, and at end of file it kills that broker and removes the files.
 */
static void clean_up(pid_t pid)
{
	char command[512];

	if (pid > 0)
		kill(pid, SIGKILL);
	snprintf(command, sizeof(command), "rm -rf '%s' '/dev/shm%s' '/dev/shm%s.arena' '/dev/shm%s.table'", directory, name,
		 name, name);
	if (system(command) != 0)
		perror(command);
}

static void janitor_start(void)
{
	pid_t pid = 0, left;
	int told[2];

	ck_assert_int_eq(pipe2(told, O_CLOEXEC), 0);
	left = fork();
	ck_assert_int_ge(left, 0);
	if (left == 0) {
		setsid();	/* Check ends the group of a test that runs too long */
		close(told[1]);
		while (read(told[0], &pid, sizeof(pid)) == sizeof(pid))
			;
		clean_up(pid);
		_exit(0);
	}
	close(told[0]);
	janitor = told[1];
}

void janitor_tell(pid_t pid)
{
	ck_assert_int_eq(write(janitor, &pid, sizeof(pid)), sizeof(pid));
}

void broker_exec(int ready)
{
	char program[256], runtime[256], state[256], tier[256];

	path_of(program, "stokerd");
	snprintf(runtime, sizeof(runtime), "broker.runtime_directory=%s", directory);
	snprintf(state, sizeof(state), "broker.state_directory=%s/state", directory);
	snprintf(tier, sizeof(tier), "%s/tier:256M", directory);
	dup2(ready, 1);
	execl(program, program, "--name", name, "--memory", "192M", "--log-level", "warning", "--set", runtime, "--set",
	      state, "--set", "arena.extent=8M", "--set", "arena.entries=32768", with_tier ? "--tier" : NULL, tier,
	      NULL);
	perror(program);
	_exit(127);
}

void broker_start(void)
{
	char line[128] = "", expected[128];
	int ready[2];

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	broker = fork();
	ck_assert_int_ge(broker, 0);
	if (broker == 0)
		broker_exec(ready[1]);
	janitor_tell(broker);
	close(ready[1]);
	ck_assert_int_gt(read(ready[0], line, sizeof(line) - 1), 0);
	close(ready[0]);
	snprintf(expected, sizeof(expected), "ready %s\n", name);
	ck_assert_str_eq(line, expected);
}

/* End it by @signal_number; returns its exit status, or 1000 + the signal. */
int broker_end(int signal_number)
{
	int status = 0;

	kill(broker, signal_number);
	ck_assert_int_eq(waitpid(broker, &status, 0), broker);
	broker = 0;
	janitor_tell(0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int run_ctl(const char *arguments)
{
	char program[256], command[512];

	path_of(program, "stokerctl");
	snprintf(command, sizeof(command), "'%s' --name %s %s", program, name, arguments);
	return WEXITSTATUS(system(command));
}

/* Wait until stokerctl's status has a line with @text. */
void await_status(const char *text)
{
	const time_t end = time(NULL) + 60;
	char arguments[256];

	snprintf(arguments, sizeof(arguments), "--json status | grep -qF '%s'", text);
	while (run_ctl(arguments) != 0) {
		expect(time(NULL) < end);
		usleep(2000);
	}
}

/* ---- a worker --------------------------------------------------------------------------------------- */

static const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };

static void model_open(struct worker *w)
{
	struct stoker_plane_bytes rows[LAYERS * PLANES];
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 64, .name = "tiny", .revision = "1", .groups = &group,
		.n_groups = 1, .n_rows = LAYERS * PLANES, .rows = rows,
	};

	for (uint16_t i = 0; i < LAYERS * PLANES; i++)
		rows[i] = (struct stoker_plane_bytes){ .layer = i / PLANES, .plane = i % PLANES, .bytes = BLOCK_BYTES };
	ck_assert_msg(stoker_model_open(w->c, &description, &w->model) == 0, "%s", stoker_error(w->c));
}

static void pool_add(struct worker *w)
{
	const int fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const struct stoker_range range = { .fd = fd, .bytes = POOL_BYTES };
	struct stoker_plane planes[LAYERS * PLANES];

	expect(fd >= 0 && posix_fallocate(fd, 0, POOL_BYTES) == 0);
	w->memory = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	w->expected = calloc(1, POOL_BYTES);
	expect(w->memory != MAP_FAILED && w->expected);
	ck_assert_msg(stoker_region_add(w->c, &range, 1, &w->region) == 0, "%s", stoker_error(w->c));
	close(fd);
	for (uint16_t i = 0; i < LAYERS * PLANES; i++)
		planes[i] = (struct stoker_plane){ .region = w->region, .layer = i / PLANES, .plane = i % PLANES,
						   .bytes = BLOCK_BYTES, .offset = i * PLANE_BYTES,
						   .block_stride = BLOCK_BYTES };
	ck_assert_msg(stoker_pool_add(w->model, 0, 0, POOL_BLOCKS, planes, LAYERS * PLANES, &w->pool) == 0, "%s",
		      stoker_error(w->c));
}

void worker_start(struct worker *w)
{
	memset(w, 0, sizeof(*w));
	ck_assert_msg(stoker_attach(name, NULL, &w->c) == 0, "%s", stoker_attach_error());
	model_open(w);
	pool_add(w);
}

void worker_end(struct worker *w)
{
	stoker_close(w->c);
	munmap(w->memory, POOL_BYTES);
	free(w->expected);
}

/* Byte @i of plane @row of block @block of chunk number @chunk: what its KV is, everywhere. */
uint8_t kv(uint32_t chunk, uint32_t row, uint32_t block, uint32_t i)
{
	const uint64_t x = ((uint64_t)chunk << 32 | row << 24 | block << 16 | i / 8) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)((x ^ x >> 29) >> i % 8 * 8);
}

/* Write chunk @chunk's KV for blocks @first to @first + 3 into @memory. */
void fill(uint8_t *memory, uint32_t first, uint32_t chunk)
{
	for (uint32_t row = 0; row < LAYERS * PLANES; row++) {
		for (uint32_t block = 0; block < BLOCKS; block++) {
			uint8_t *at = memory + row * PLANE_BYTES + (first + block) * BLOCK_BYTES;

			for (uint32_t i = 0; i < BLOCK_BYTES; i++)
				at[i] = kv(chunk, row, block, i);
		}
	}
}

void check_pool(const struct worker *w)
{
	for (size_t i = 0; i < POOL_BYTES; i++) {
		if (w->memory[i] != w->expected[i])
			ck_abort_msg("byte %zu of plane %zu, block %zu is wrong", i % BLOCK_BYTES, i / PLANE_BYTES,
				     i % PLANE_BYTES / BLOCK_BYTES);
	}
}

/* Keys of chunks @first to @first + @n - 1. */
void keys_of(struct stoker_key *keys, uint32_t first, uint32_t n)
{
	memset(keys, 0, n * sizeof(*keys));
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t number = first + i + 1;

		memcpy(keys[i].bytes, &number, sizeof(number));
	}
}

void ids_from(uint32_t *ids, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		ids[i] = first + i;
}

struct stoker_result finish(struct worker *w, struct stoker_job job)
{
	struct stoker_result result = { .size = sizeof(result) };

	ck_assert_int_eq(stoker_wait(w->c, job, 30000000), 0);
	ck_assert_int_eq(stoker_finish(w->c, job, &result, NULL, 0, NULL, 0), 0);
	return result;
}

/* Store chunks @first to @first + @n - 1 from blocks @block on. */
struct stoker_result store(struct worker *w, uint32_t first, uint32_t n, uint32_t block)
{
	struct stoker_key keys[128], parent;
	uint32_t ids[128 * BLOCKS];
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = n, .ids = ids };
	struct stoker_store_options options = { .size = sizeof(options) };
	struct stoker_job job;

	keys_of(keys, first, n);
	if (first > 0) {
		keys_of(&parent, first - 1, 1);
		options.parent = &parent;
		options.first_token = first * 64;
	}
	ids_from(ids, block, n * BLOCKS);
	for (uint32_t i = 0; i < n; i++) {
		fill(w->memory, block + i * BLOCKS, first + i);
		fill(w->expected, block + i * BLOCKS, first + i);
	}
	ck_assert_msg(stoker_store(w->c, w->model, keys, n, &blocks, 1, &options, &job) == 0, "%s", stoker_error(w->c));
	return finish(w, job);
}

struct stoker_result lookup(struct worker *w, uint32_t first, uint32_t n)
{
	struct stoker_key keys[128];
	struct stoker_job job;

	keys_of(keys, first, n);
	ck_assert_msg(stoker_lookup(w->c, w->model, keys, n, NULL, &job) == 0, "%s", stoker_error(w->c));
	return finish(w, job);
}

/* Retrieve the first @n chunks of @lease, which are @first and following, into blocks @block and following. */
struct stoker_job retrieve_submit(struct worker *w, const struct stoker_lease *lease, uint32_t first, uint32_t n,
					 uint32_t block, const struct stoker_retrieve_options *options)
{
	uint32_t ids[128 * BLOCKS];
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = n, .ids = ids };
	struct stoker_job job;

	ids_from(ids, block, n * BLOCKS);
	for (uint32_t i = 0; i < n; i++)
		fill(w->expected, block + i * BLOCKS, first + i);
	ck_assert_msg(stoker_retrieve(w->c, w->model, lease, &blocks, 1, options, &job) == 0, "%s", stoker_error(w->c));
	return job;
}

struct stoker_result retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t first, uint32_t n,
				     uint32_t block)
{
	return finish(w, retrieve_submit(w, lease, first, n, block, NULL));
}

void setup(void)
{
	snprintf(directory, sizeof(directory), "/tmp/stoker-e2e-XXXXXX");
	expect(mkdtemp(directory));
	snprintf(name, sizeof(name), "/stoker-e2e-%d", (int)getpid());
	janitor_start();
	broker_start();
	await_status("\"serving\"");
	await_status("\"populated_bytes\": 201326592");	/* before that, little room: stores evict */
}

void setup_with_tier(void)
{
	with_tier = true;
	setup();
}

void teardown(void)
{
	if (broker > 0)
		broker_end(SIGKILL);
	clean_up(0);
	close(janitor);
	with_tier = false;
}
