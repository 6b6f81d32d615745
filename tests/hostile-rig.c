#include "config.h"

#include "tests/hostile-rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <stoker/stoker.h>

char rig_name[64], rig_directory[64];
static pid_t broker;

void rig_become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(99);
}

pid_t rig_start_as(uid_t uid, int (*child)(void))
{
	const pid_t pid = fork();

	if (pid == 0) {
		rig_become(uid);
		_exit(child());
	}
	return pid;
}

int rig_run_as(uid_t uid, int (*child)(void))
{
	const pid_t pid = rig_start_as(uid, child);
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- the broker ---------------------------------------------------------------------------------- */

/*
 * An attacker that names a block twice makes two helpers write it at once. That is a race in its own
 * memory and harms nobody, but ThreadSanitizer cannot tell: there, the broker has one helper.
 */
#ifdef STOKER_SANITIZE_THREAD
#define THREADS 1
#else
#define THREADS 2
#endif

static void write_config(const char *path)
{
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fprintf(file,
		"[broker]\nname = %s\nruntime_directory = %s/run\nstate_directory = %s/state\nlog_level = warning\n"
		"threads = %d\n"
		"[arena]\nsize = 64M\nextent = 4M\n"
		"[limits]\nclients = 40\nleases = 4096\n"
		"[tenant honest]\nuids = %d\n[tenant hostile]\nuids = %d %d\n",
		rig_name, rig_directory, rig_directory, THREADS, HONEST_UID, HOSTILE_UID, NEIGHBOUR_UID);
	ck_assert_int_eq(fclose(file), 0);
}

static void broker_start(void)
{
	const char *build = getenv("top_builddir") ? getenv("top_builddir") : ".";
	char path[512], config[128], line[128];
	int ready[2], binary;
	ssize_t n;

	snprintf(rig_name, sizeof(rig_name), "/stoker-hostile-%d", getpid());
	snprintf(rig_directory, sizeof(rig_directory), "/tmp/stoker-hostile-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(rig_directory));
	ck_assert_int_eq(chmod(rig_directory, 0755), 0);
	snprintf(config, sizeof(config), "%s/stoker.conf", rig_directory);
	write_config(config);
	ck_assert_int_eq(chown(rig_directory, BROKER_UID, BROKER_UID), 0);
	snprintf(path, sizeof(path), "%s/stokerd", build);
	/* Opened as root: the build tree may lie where the broker's uid cannot go. */
	binary = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_msg(binary >= 0, "could not open %s", path);
	ck_assert_int_eq(pipe(ready), 0);
	broker = fork();
	ck_assert_int_ge(broker, 0);
	if (broker == 0) {
		const char *arguments[] = { "stokerd", "--config", config, NULL };

		dup2(ready[1], STDOUT_FILENO);
		close(ready[0]);
		close(ready[1]);
		rig_become(BROKER_UID);
		fexecve(binary, (char *const *)arguments, environ);
		_exit(127);
	}
	close(binary);
	close(ready[1]);
	n = read(ready[0], line, sizeof(line) - 1);
	ck_assert_msg(n > 6 && strncmp(line, "ready ", 6) == 0, "the broker did not say that it is ready");
	close(ready[0]);
}

static void broker_stop(void)
{
	char command[128];
	int status;

	ck_assert_msg(waitpid(broker, &status, WNOHANG) == 0, "the broker is dead");
	kill(broker, SIGTERM);
	ck_assert_int_eq(waitpid(broker, &status, 0), broker);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the broker ended with status %x", status);
	for (const char *const *end = (const char *const[]){ "", ".arena", ".table", NULL }; *end; end++) {
		char object[96];

		snprintf(object, sizeof(object), "%s%s", rig_name, *end);
		shm_unlink(object);
	}
	snprintf(command, sizeof(command), "rm -rf %s", rig_directory);
	ck_assert_int_eq(system(command), 0);
}

uint64_t rig_counter(enum stoker_counter which)
{
	const struct control_page *page;
	uint64_t value;

	ck_assert_int_eq(control_map(rig_name, &page), 0);
	value = control_counter(page, which);
	control_unmap(page);
	return value;
}

bool rig_gauge_becomes(enum stoker_gauge which, uint64_t value)
{
	const struct control_page *page;
	bool is = false;

	if (control_map(rig_name, &page) < 0)
		return false;
	for (int i = 0; i < 300 && !is; i++) {
		is = atomic_load(&page->gauges[which]) == value;
		if (!is)
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	control_unmap(page);
	return is;
}

void rig_broker_pause(bool pause)
{
	kill(broker, pause ? SIGSTOP : SIGCONT);
}

uint64_t rig_broker_kib(const char *field)
{
	unsigned long long value = 0;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)broker);
	file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, field, strlen(field)) == 0)
			sscanf(line + strlen(field), ": %llu", &value);
	fclose(file);
	return value;
}

uint32_t rig_broker_fds(void)
{
	char path[64];
	uint32_t n = 0;
	DIR *all;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)broker);
	all = opendir(path);
	ck_assert_ptr_nonnull(all);
	while (readdir(all))
		n++;
	closedir(all);
	return n;
}

/* ---- the honest client --------------------------------------------------------------------------- */

enum { ASK_FOR_A_ROUND = 1, ASK_TO_LEND = 2 };
enum { BLOCK = 8192, BLOCKS = 64, CHUNKS = 8 };

static uint8_t *honest_memory;
static struct stoker *honest;
static struct stoker_model *honest_model;
static struct stoker_pool *honest_pool;

static int honest_attach(const char *model)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 256 };
	const struct stoker_plane_bytes row = { .bytes = BLOCK };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 256, .name = model, .revision = "1",
		.groups = &group, .n_groups = 1, .rows = &row, .n_rows = 1,
	};
	const struct stoker_options options = { .size = sizeof(options), .broker_uid = BROKER_UID };
	const int fd = memfd_create("honest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stoker_range range = { .fd = fd, .bytes = BLOCK * BLOCKS };
	struct stoker_plane plane = { .bytes = BLOCK, .block_stride = BLOCK };

	if (fd < 0 || ftruncate(fd, BLOCK * BLOCKS) < 0 || posix_fallocate(fd, 0, BLOCK * BLOCKS) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return 1;
	honest_memory = mmap(NULL, BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (stoker_attach(rig_name, &options, &honest) < 0) {
		fprintf(stderr, "honest: %s\n", stoker_attach_error());
		return 2;
	}
	if (stoker_model_open(honest, &description, &honest_model) < 0 ||
	    stoker_region_add(honest, &range, 1, &plane.region) < 0 ||
	    stoker_pool_add(honest_model, 0, 0, BLOCKS, &plane, 1, &honest_pool) < 0) {
		fprintf(stderr, "honest: %s\n", stoker_error(honest));
		return 3;
	}
	return 0;
}

static int finish(struct stoker_job job, struct stoker_result *result)
{
	result->size = sizeof(*result);
	if (stoker_wait(honest, job, 10000000) < 0)
		return -1;
	return stoker_finish(honest, job, result, NULL, 0, NULL, 0);
}

/* Store CHUNKS chunks, find them, read them into other blocks, compare. 0: every byte is right. */
static int honest_round(uint32_t round)
{
	const struct stoker_retrieve_options last = { .size = sizeof(last), .flags = STOKER_RETRIEVE_END_SHARE };
	struct stoker_key keys[CHUNKS] = { 0 };
	uint32_t from[CHUNKS], to[CHUNKS];
	struct stoker_blocks blocks = { .pool = honest_pool, .chunks = CHUNKS, .ids = from };
	struct stoker_result result;
	struct stoker_job job;

	for (uint32_t i = 0; i < CHUNKS; i++) {
		memcpy(keys[i].bytes, &round, sizeof(round));
		keys[i].bytes[31] = (uint8_t)(i + 1);
		from[i] = i;
		to[i] = BLOCKS / 2 + i;
		memset(honest_memory + from[i] * BLOCK, (int)(round * 31 + i), BLOCK);
		memset(honest_memory + to[i] * BLOCK, 0xaa, BLOCK);
	}
	if (stoker_store(honest, honest_model, keys, CHUNKS, &blocks, 1, NULL, &job) < 0 ||
	    finish(job, &result) < 0 || result.status != STOKER_STATUS_OK || result.n != CHUNKS)
		return 11;
	if (stoker_lookup(honest, honest_model, keys, CHUNKS, NULL, &job) < 0 || finish(job, &result) < 0 ||
	    result.n != CHUNKS)
		return 12;
	blocks.ids = to;
	if (stoker_retrieve(honest, honest_model, &result.lease, &blocks, 1, &last, &job) < 0 ||
	    finish(job, &result) < 0 || result.n != CHUNKS)
		return 13;
	for (uint32_t i = 0; i < CHUNKS; i++)
		if (memcmp(honest_memory + from[i] * BLOCK, honest_memory + to[i] * BLOCK, BLOCK) != 0)
			return 14;
	return 0;
}

/* Tell of a lease on what the last round stored, as it would be told to a worker. */
static int honest_lend(int to)
{
	struct stoker_result result = { 0 };
	struct rig_loan loan = { 0 };
	struct stoker_key key = { 0 };
	struct stoker_job job;

	key.bytes[0] = 1;	/* the first round's */
	key.bytes[31] = 1;
	if (stoker_lookup(honest, honest_model, &key, 1, NULL, &job) == 0 && finish(job, &result) == 0 && result.n == 1)
		memcpy(loan.lease, result.lease.token, sizeof(loan.lease));
	stoker_model_digest(honest_model, loan.digest);
	return write(to, &loan, sizeof(loan)) == (ssize_t)sizeof(loan) && loan.lease[0] ? 0 : 21;
}

/* The honest client lives in a process of its own and makes a round for each byte that it is sent. */
static int honest_in, honest_out;
static pid_t honest_pid;

static void honest_start(void)
{
	int in[2], out[2];
	char answer = 99;

	ck_assert_int_eq(pipe(in), 0);
	ck_assert_int_eq(pipe(out), 0);
	honest_pid = fork();
	if (honest_pid == 0) {
		uint32_t round = 0;
		char byte;

		close(in[1]);
		rig_become(HONEST_UID);
		byte = (char)honest_attach("honest");
		while (write(out[1], &byte, 1) == 1 && read(in[0], &byte, 1) == 1)
			byte = (char)(byte == ASK_TO_LEND ? honest_lend(out[1]) : honest_round(++round));
		stoker_close(honest);
		_exit(0);
	}
	close(in[0]);
	close(out[1]);
	honest_in = in[1];
	honest_out = out[0];
	ck_assert_int_eq(read(honest_out, &answer, 1), 1);
	ck_assert_msg(answer == 0, "the honest client could not attach: %d", answer);
}

void rig_honest_is_served(void)
{
	char byte = ASK_FOR_A_ROUND;

	ck_assert_int_eq(write(honest_in, &byte, 1), 1);
	ck_assert_int_eq(read(honest_out, &byte, 1), 1);
	ck_assert_msg(byte == 0, "the honest client is not served any more: %d", byte);
}

static uint32_t newcomers = 1000000;	/* each has a model and keys of its own */

struct rig_loan rig_honest_lends(void)
{
	struct rig_loan loan;
	char byte = ASK_TO_LEND;

	ck_assert_int_eq(write(honest_in, &byte, 1), 1);
	ck_assert_int_eq(read(honest_out, &loan, sizeof(loan)), sizeof(loan));
	ck_assert_int_eq(read(honest_out, &byte, 1), 1);
	ck_assert_msg(byte == 0, "the honest client got no lease");
	return loan;
}

static int newcomer(void)
{
	char model[32];
	int r;

	snprintf(model, sizeof(model), "newcomer %u", newcomers);
	r = honest_attach(model);
	return r ? r : honest_round(newcomers);
}

void rig_newcomer_is_served(void)
{
	newcomers++;
	const int r = rig_run_as(HONEST_UID, newcomer);

	ck_assert_msg(r == 0, "an honest client that comes now is not served: %d", r);
}

void rig_setup(void)
{
	broker_start();
	honest_start();
	rig_honest_is_served();
}

void rig_teardown(void)
{
	rig_honest_is_served();
	close(honest_in);
	waitpid(honest_pid, NULL, 0);
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_CLIENTS, 0), "clients are left over");
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_LEASES, 0), "leases are left over");
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_POOLS, 0), "pools are left over");
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_ARENA_PINNED, 0), "something is pinned still");
	broker_stop();
}
