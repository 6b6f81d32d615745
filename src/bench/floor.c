#include "config.h"

#include "src/bench/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/bench/machine.h"

/* Two words, 128 bytes apart so that no prefetcher couples them. */
struct words {
	alignas(128) _Atomic uint64_t there;
	alignas(128) _Atomic uint64_t back;
	alignas(128) _Atomic uint64_t count;	/* of the coming block */
};

struct floor {
	struct words *words;
	int pipe;
	pid_t pid;
	uint64_t turn;
};

double tick_ns(void)
{
	static double ns;

	if (ns == 0) {
		const uint64_t ticks = tick_now(), start = now_ns();

		while (now_ns() - start < 50000000)
			;
		ns = (double)(now_ns() - start) / (double)(tick_now() - ticks);
	}
	return ns;
}

static void echo(struct words *words, int pipe, int core)
{
	uint64_t turn = 0;
	char order;

	machine_pin(0, core);
	prctl(PR_SET_TIMERSLACK, 1000ul);
	for (;;) {
		const ssize_t n = read(pipe, &order, 1);

		if (n == 0 || (n < 0 && errno != EINTR))
			_exit(0);
		if (n < 0)
			continue;
		if (order == 'w') {
			atomic_store(&words->back, ++turn);
			continue;
		}
		for (uint64_t count = atomic_load(&words->count); count > 0; count--) {
			turn++;
			while (atomic_load_explicit(&words->there, memory_order_acquire) != turn)
				;
			atomic_store(&words->back, turn);
		}
	}
}

struct floor *floor_start(int core)
{
	struct floor *floor = calloc(1, sizeof(*floor));
	const pid_t parent = getpid();
	int ends[2];

	if (!floor)
		return NULL;
	floor->words = machine_shared(sizeof(*floor->words));
	if (!floor->words || pipe2(ends, O_CLOEXEC) < 0) {
		free(floor);
		return NULL;
	}
	floor->pid = fork();
	if (floor->pid == 0) {
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		signal(SIGHUP, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[1]);
		if (getppid() == parent)
			echo(floor->words, ends[0], core);
		_exit(0);
	}
	close(ends[0]);
	floor->pipe = ends[1];
	if (floor->pid > 0)
		return floor;
	close(ends[1]);
	free(floor);
	return NULL;
}

void floor_end(struct floor *floor)
{
	if (!floor)
		return;
	close(floor->pipe);
	waitpid(floor->pid, NULL, 0);
	free(floor);
}

static void order(const struct floor *floor, char what)
{
	while (write(floor->pipe, &what, 1) < 0 && errno == EINTR)
		;
}

static inline uint64_t round_trip(struct floor *floor)
{
	const uint64_t start = tick_now();

	atomic_store(&floor->words->there, ++floor->turn);
	while (atomic_load_explicit(&floor->words->back, memory_order_acquire) != floor->turn)
		;
	return tick_now() - start;
}

void floor_ping_pong(struct floor *floor, uint32_t n, struct samples *ret)
{
	const uint32_t warm = 64;	/* until the other end is awake and both lines are where they belong */

	atomic_store(&floor->words->count, n + warm);
	order(floor, 'p');
	for (uint32_t i = 0; i < warm; i++)
		round_trip(floor);
	for (uint32_t i = 0; i < n; i++)
		samples_add(ret, round_trip(floor));
}

uint64_t floor_wake(struct floor *floor)
{
	const uint64_t start = tick_now();

	floor->turn++;
	order(floor, 'w');
	while (atomic_load_explicit(&floor->words->back, memory_order_acquire) != floor->turn)
		;
	return tick_now() - start;
}
