/*
 * Expecting and falling cross: the expecter stores what it waits for, then loads whether the fence has
 * fallen; the thread stores that it has, then loads what is waited for. All four are sequentially
 * consistent, so one of the two lets the stream through. Both only raise `done`: a generation that is
 * over never closes the gate for a later one.
 */
#include "src/device/cuda/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static void let_through(struct stoker_slot *slot, uint32_t generation)
{
	uint32_t done = atomic_load(&slot->device.done);

	while ((int32_t)(generation - done) > 0 && !atomic_compare_exchange_weak(&slot->device.done, &done, generation))
		;
}

void gate_init(struct gate *gate, struct stoker_slot *slots)
{
	*gate = (struct gate){ .slots = slots, .fence = -1, .stop = { -1, -1 } };
}

void gate_open(struct gate *gate)
{
	for (uint32_t slot = 0; slot < GATE_SLOTS; slot++) {
		const uint32_t generation = atomic_load(&gate->waited[slot]);

		if (generation != 0)
			let_through(&gate->slots[slot], generation);
	}
}

static void *gate_main(void *arg)
{
	struct gate *gate = arg;
	struct pollfd set[2] = { { .fd = gate->fence, .events = POLLIN }, { .fd = gate->stop[0], .events = POLLIN } };

	prctl(PR_SET_NAME, "stoker-gate");
	for (;;) {
		if (poll(set, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (set[1].revents)
			return NULL;
		if (set[0].revents)
			break;
	}
	atomic_store(&gate->fallen, true);
	gate_open(gate);
	return NULL;
}

static void close_all(struct gate *gate)
{
	int *const fds[] = { &gate->fence, &gate->stop[0], &gate->stop[1] };

	for (int i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

/* The thread takes no signal of the worker's. */
static int thread_start(struct gate *gate)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&gate->thread, NULL, gate_main, gate);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int gate_start(struct gate *gate, int fence)
{
	int r = 0;

	if (gate->fence >= 0)
		return 0;
	gate->fence = fcntl(fence, F_DUPFD_CLOEXEC, 3);
	if (gate->fence < 0 || pipe2(gate->stop, O_CLOEXEC) < 0)
		r = -errno;
	if (r == 0)
		r = thread_start(gate);
	if (r < 0)
		close_all(gate);
	return r;
}

void gate_expect(struct gate *gate, uint32_t slot, uint32_t generation)
{
	atomic_store(&gate->waited[slot], generation);
	if (atomic_load(&gate->fallen))
		let_through(&gate->slots[slot], generation);
}

void gate_stop(struct gate *gate, bool forked)
{
	if (gate->fence < 0)
		return;
	if (!forked) {
		close(gate->stop[1]);
		gate->stop[1] = -1;
		pthread_join(gate->thread, NULL);
	}
	close_all(gate);
}
