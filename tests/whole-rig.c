#include "tests/whole-rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/suite.h"

struct whole whole;
static const struct control_page *page;

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
	if (whole.tier) {
		arguments[n++] = "--tier";
		arguments[n++] = tier;
	}
	for (int i = 0; i < 8 && whole.options[i]; i++)
		arguments[n++] = whole.options[i];
	arguments[n] = NULL;
	dup2(ready, STDOUT_FILENO);
	dup2(open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), STDERR_FILENO);
	execv(arguments[0], (char *const *)(uintptr_t)arguments);
	_exit(127);
}

int whole_wait(void)
{
	int status = 0;

	ck_assert_int_eq(waitpid(whole.broker, &status, 0), whole.broker);
	whole.broker = 0;
	if (page)
		control_unmap(page);
	page = NULL;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* The end of a pipe where what it says on stdout can be read. */
static int broker_fork(void)
{
	int said[2];

	ck_assert_int_eq(pipe2(said, O_CLOEXEC), 0);
	whole.broker = whole_fork();
	if (whole.broker == 0)
		broker_exec(said[1]);
	close(said[1]);
	return said[0];
}

int whole_run(char *said, size_t bytes)
{
	const int from = broker_fork();
	size_t n = 0;
	ssize_t got;

	while ((got = read(from, said + n, bytes - 1 - n)) > 0)
		n += (size_t)got;
	said[n] = '\0';
	close(from);
	return whole_wait();
}

int whole_try(void)
{
	const int from = broker_fork();
	char line[128] = "", expected[128];
	const ssize_t n = read(from, line, sizeof(line) - 1);

	close(from);
	if (n == 0)
		return whole_wait();
	snprintf(expected, sizeof(expected), "ready %s\n", whole.name);
	ck_assert_str_eq(line, expected);
	return 0;
}

void whole_launch(void)
{
	ck_assert_int_eq(whole_try(), 0);
}

void whole_start(void)
{
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	/* All extents have come: before that there is little room, and stores evict. */
	await(whole_gauge(STOKER_GAUGE_ARENA_BYTES) > 0 &&
	      whole_gauge(STOKER_GAUGE_ARENA_POPULATED) == whole_gauge(STOKER_GAUGE_ARENA_BYTES));
}

int whole_end(int signal_number)
{
	expect(whole.broker > 0);
	kill(whole.broker, signal_number);
	return whole_wait();
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
	const time_t end = time(NULL) + 60;

	while (whole_gauge(gauge) != value) {
		if (time(NULL) >= end)
			ck_abort_msg("%s stays at %llu and is to be %llu", stoker_gauge_row((int)gauge)->name,
				     (unsigned long long)whole_gauge(gauge), (unsigned long long)value);
		usleep(1000);
	}
}

void whole_await_state(enum stoker_state state)
{
	await(atomic_load_explicit(&whole_page()->state, memory_order_acquire) == state);
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
