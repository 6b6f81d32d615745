/*
 * faults --broker NAME --broker-pid PID [--library FILE] [--memory plain|segments|both] [--kills N] [--copier-kills N]
 * [--seconds S] [--seed N]:
 * workers on a GPU are killed by SIGKILL at random instants, while they attach, register, store and retrieve;
 * afterwards device memory in use is where it was, and a new worker is served. Then the copier is killed, a few
 * times: a new worker is served again.
 *
 * What "where it was" is: the use after the first few kills, when the copier has its context and whatever the
 * driver keeps. A process of its own looks at it, because the driver does not survive fork(). Workers of one
 * round are alive together, with "both" half of them with memory of cudaMalloc and half with descriptors.
 *
 * A line for each part, "ok" or "failed". Exit 0 if all were ok.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/gpu/worker.h"

#define CROWD		4u		/* workers alive at once */
#define SETTLED		2u		/* rounds after which memory in use is taken as the baseline */
#define SLACK		(16ull << 20)
#define SETTLE_S	20u

static struct {
	const char *broker, *library, *memory;
	uint64_t broker_pid, kills, copier_kills, seconds, seed;
} options = { .memory = "both", .kills = 200, .copier_kills = 3, .seconds = 150, .seed = 1 };

static const struct layout layout = { "faults", 4, 2, 16, 1, 32768, false, 256 };	/* 64 MiB */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t chance(void)
{
	options.seed ^= options.seed << 13;
	options.seed ^= options.seed >> 7;
	return options.seed ^= options.seed << 17;
}

/* ---- who looks at the device's memory ------------------------------------------------------------- */

static int ask = -1, hear = -1;

static void monitor_start(void)
{
	int to[2], from[2];
	pid_t pid;

	if (pipe(to) < 0 || pipe(from) < 0 || (pid = fork()) < 0)
		give_up("could not start a process: %s", strerror(errno));
	if (pid == 0) {
		uint64_t used;
		char byte;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		if (trial_open(options.library) < 0)
			give_up("%s", trial_why());
		while (read(to[0], &byte, 1) == 1) {
			if (trial_used(&used) < 0 || write(from[1], &used, sizeof(used)) < 0)
				give_up("could not see how much device memory is in use: %s", trial_why());
		}
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	ask = to[1];
	hear = from[0];
}

static uint64_t used(void)
{
	uint64_t bytes;

	if (write(ask, "", 1) != 1 || read(hear, &bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
		give_up("nobody sees how much device memory is in use");
	return bytes;
}

/* The least that is in use while @seconds pass, or as soon as it is @enough or less. */
static uint64_t least_used(uint64_t enough, uint64_t seconds)
{
	const uint64_t until = now_ms() + seconds * 1000;
	uint64_t least = used();

	while (least > enough && now_ms() < until) {
		const uint64_t now = used();

		least = now < least ? now : least;
		usleep(20 * 1000);
	}
	return least;
}

/* ---- workers ------------------------------------------------------------------------------------- */

/* Stores and retrieves for ever, or @rounds of them; a byte that is wrong is a failure in any case. */
static void work(uint64_t number, uint64_t rounds)
{
	const bool both = strcmp(options.memory, "both") == 0;
	const bool segments = both ? number % 2 : strcmp(options.memory, "segments") == 0;
	struct gpu_worker w;

	worker_open(&w, options.broker, options.library, segments ? TRIAL_SEGMENTS : TRIAL_PLAIN, &layout);
	for (uint64_t i = 0; i < rounds; i++) {
		const uint64_t wrong = worker_round_trip(&w, number << 20 | i, 1 + (uint32_t)(i % 8));

		if (wrong)
			give_up("%llu bytes were wrong", (unsigned long long)wrong);
	}
	worker_close(&w);
}

static pid_t start_worker(uint64_t number, uint64_t rounds)
{
	const pid_t pid = fork();

	if (pid < 0)
		give_up("could not start a process: %s", strerror(errno));
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(ask);
	close(hear);
	work(number, rounds);
	exit(0);
}

/* Does a new worker get what it asks for? Tries again until @seconds have passed: a copier may be starting. */
static bool is_served(uint64_t *number, uint64_t seconds)
{
	const uint64_t until = now_ms() + seconds * 1000;

	do {
		const pid_t pid = start_worker((*number)++, 4);
		int status = 0;

		waitpid(pid, &status, 0);
		if (status == 0)
			return true;
		usleep(200 * 1000);
	} while (now_ms() < until);
	return false;
}

/* A round: a crowd is started and killed one by one at random instants. Returns how many went by themselves. */
static uint32_t kill_crowd(uint64_t *number, uint64_t start_ms)
{
	pid_t crowd[CROWD];
	uint32_t failed = 0;

	for (uint32_t i = 0; i < CROWD; i++)
		crowd[i] = start_worker((*number)++, UINT64_MAX);
	for (uint32_t i = 0; i < CROWD; i++) {
		int status = 0;

		/* Any instant from the start of a process to well into its work. */
		usleep((useconds_t)(chance() % (start_ms * 1000) + 1));
		kill(crowd[i], SIGKILL);
		waitpid(crowd[i], &status, 0);
		failed += !WIFSIGNALED(status);
	}
	return failed;
}

static bool kill_workers(void)
{
	const uint64_t until = now_ms() + options.seconds * 1000;
	uint64_t number = 1, killed = 0, baseline = 0, after, begun, start_ms;
	uint32_t failed = 0;

	if (!is_served(&number, 30)) {
		printf("failed  faults: no worker is served, before any was killed\n");
		return false;
	}
	begun = now_ms();		/* the copier has been started */
	if (!is_served(&number, 30)) {
		printf("failed  faults: only the first worker is served\n");
		return false;
	}
	start_ms = (now_ms() - begun) / 2 + 5;	/* of what a worker takes from start to end */
	/* As many as are asked for have to fit: half of this on average, and a driver takes its time to bury each. */
	if (start_ms > options.seconds * 1000 / options.kills)
		start_ms = options.seconds * 1000 / options.kills;
	for (uint64_t round = 0; killed < options.kills && now_ms() < until; round++) {
		if (round == SETTLED)
			baseline = least_used(0, 2);
		failed += kill_crowd(&number, start_ms);
		killed += CROWD;
	}
	if (!is_served(&number, 30)) {
		printf("failed  faults: no worker is served after %llu kills\n", (unsigned long long)killed);
		return false;
	}
	after = least_used(baseline + SLACK, SETTLE_S);
	printf("%-7s faults: %llu workers killed (%llu were asked for), device memory in use %llu MiB then and %llu MiB "
	       "before%s\n", after <= baseline + SLACK && killed >= options.kills && !failed ? "ok" : "failed",
	       (unsigned long long)killed, (unsigned long long)options.kills, (unsigned long long)after >> 20,
	       (unsigned long long)baseline >> 20, failed ? "; some had ended by themselves" : "");
	fflush(stdout);
	return after <= baseline + SLACK && killed >= options.kills && !failed;
}

/* ---- the copier ---------------------------------------------------------------------------------- */

static bool is_copier(pid_t pid)
{
	char path[64], text[4096];
	size_t n;
	int parent = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	/* The name in parentheses may hold anything; the parent is the second field after it. */
	if (!strrchr(text, ')') || sscanf(strrchr(text, ')') + 1, " %*c %d", &parent) != 1 ||
	    (uint64_t)parent != options.broker_pid)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	for (size_t i = 0; i < n; i++)
		text[i] = text[i] ? text[i] : ' ';
	text[n] = '\0';
	return strstr(text, "--copier") != NULL;
}

static pid_t find_copier(void)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	while (directory && !found && (entry = readdir(directory))) {
		const long pid = strtol(entry->d_name, NULL, 10);

		if (pid > 0 && is_copier((pid_t)pid))
			found = (pid_t)pid;
	}
	if (directory)
		closedir(directory);
	return found;
}

static bool kill_copiers(void)
{
	uint64_t number = 1u << 20;

	for (uint64_t i = 0; i < options.copier_kills; i++) {
		const pid_t worker = start_worker(number++, UINT64_MAX);
		int status = 0;
		pid_t copier;

		usleep(1500 * 1000);
		copier = find_copier();
		if (copier)
			kill(copier, SIGKILL);
		usleep(200 * 1000);
		kill(worker, SIGKILL);
		waitpid(worker, &status, 0);
		if (!copier || kill((pid_t)options.broker_pid, 0) < 0 || !is_served(&number, 40)) {
			printf("failed  faults: copier %llu: %s\n", (unsigned long long)i,
			       !copier ? "there was none to be killed" : kill((pid_t)options.broker_pid, 0) < 0 ?
			       "the broker died with it" : "no worker was served afterwards");
			return false;
		}
	}
	printf("ok      faults: %llu copiers killed, and the broker served on\n", (unsigned long long)options.copier_kills);
	return true;
}

int main(int argc, char **argv)
{
	bool ok;

	for (int i = 1; i + 1 < argc; i += 2) {
		const struct { const char *name; uint64_t *to; } numbers[] = {
			{ "--broker-pid", &options.broker_pid }, { "--kills", &options.kills }, { "--seed", &options.seed },
			{ "--copier-kills", &options.copier_kills }, { "--seconds", &options.seconds },
		};

		if (strcmp(argv[i], "--broker") == 0)
			options.broker = argv[i + 1];
		if (strcmp(argv[i], "--library") == 0)
			options.library = argv[i + 1];
		if (strcmp(argv[i], "--memory") == 0)
			options.memory = argv[i + 1];
		for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++) {
			if (strcmp(argv[i], numbers[n].name) == 0)
				*numbers[n].to = strtoull(argv[i + 1], NULL, 10);
		}
	}
	if (!options.broker || !options.broker_pid || !options.kills || argc % 2 == 0) {
		fprintf(stderr, "usage: faults --broker NAME --broker-pid PID [--library FILE] [--memory plain|segments|both] "
			"[--kills N] [--copier-kills N] [--seconds S] [--seed N]\n");
		return 2;
	}
	if (options.seed == 0)
		options.seed = 1;
	signal(SIGPIPE, SIG_IGN);
	monitor_start();
	ok = kill_workers();
	return kill_copiers() && ok ? 0 : 1;
}
