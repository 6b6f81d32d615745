#include "config.h"

#include "src/bench/crew.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/bench/bench.h"

#define GLANCE_US 10000u

pid_t crew_start(int (*work)(void *arg, uint32_t i), void *arg, uint32_t i)
{
	const pid_t parent = getpid();
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		bench_say("could not start worker %u: %s", i, strerror(errno));
	if (pid != 0)
		return pid;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	_exit(work(arg, i));
}

static void kill_all(pid_t *pids, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (pids[i] <= 0)
			continue;
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		pids[i] = 0;
	}
}

/* Take the statuses of those that have ended. Returns how many run still, or -1 if one failed. */
static int32_t glance(pid_t *pids, uint32_t n)
{
	int32_t running = 0;

	for (uint32_t i = 0; i < n; i++) {
		int status = 0;
		pid_t ended;

		if (pids[i] <= 0)
			continue;
		ended = waitpid(pids[i], &status, WNOHANG);
		if (ended == 0) {
			running++;
			continue;
		}
		pids[i] = 0;
		if (ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		if (WIFSIGNALED(status))
			bench_say("worker %u was ended by signal %d", i, WTERMSIG(status));
		return -1;
	}
	return running;
}

bool crew_run(struct own_broker *broker, uint32_t n, int (*work)(void *arg, uint32_t i),
	      void (*watch)(void *arg), void *arg)
{
	pid_t pids[CREW_MAX] = { 0 };
	bool ok = n <= CREW_MAX;
	uint32_t turn = 0;
	int32_t running = 1;

	for (uint32_t i = 0; ok && i < n; i++) {
		pids[i] = crew_start(work, arg, i);
		ok = pids[i] > 0;
	}
	while (ok && running > 0) {
		running = glance(pids, n);
		if (running < 0 || (broker && own_broker_died(broker)))
			ok = false;
		else if (running > 0)
			usleep(turn < 20 ? 500 : GLANCE_US);	/* short runs end without waiting for it */
		if (watch && turn++ % 10 == 0)
			watch(arg);
	}
	kill_all(pids, n);
	return ok;
}
