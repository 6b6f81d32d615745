/*
 * Helper threads. A helper is given little at a time (tasks and bytes are bounded), so that what is
 * more urgent never stands behind a long queue; and it goes to whoever has least, so that one slow
 * helper does not hold up the others.
 *
 * A helper that runs out of tasks looks again for a few microseconds before it sleeps: between two
 * pieces of a copy there is only a turn of the core's loop, and a sleep costs more than that.
 *
 * Signals: a helper takes the synchronous ones alone. SIGBUS must stay open: a blocked one kills the
 * process where src/device/guard.c would have mended the fault.
 */
#include "src/device/workers.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SPIN_NS 10000

struct worker {
	struct workers *all;
	pthread_t thread;
	bool started, has_bell;
	struct bell bell;		/* the helper sleeps on it */
	struct queue *todo, *done;
	uint32_t tasks;			/* the owner's: put and not taken back */
	uint64_t bytes;			/* likewise */
};

struct workers {
	struct bell *owner;
	uint64_t bytes_max;
	uint32_t n;
	uint32_t next;			/* whose finished tasks are taken next */
	uint32_t busy;
	_Atomic bool stop;
	struct worker worker[WORKERS_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run_all(struct worker *w)
{
	struct worker_task *task;

	while ((task = queue_get(w->todo))) {
		task->run(task);
		/* There is room: the owner bounds what it puts, and a task is in one queue at a time. */
		const bool put = queue_put(w->done, task);
		assert(put);
		(void)put;
		bell_ring(w->all->owner);
	}
}

/* Wait for a task without sleeping, for a moment. Returns whether there is one. */
static bool spin(struct worker *w)
{
	const uint64_t end = now_ns() + SPIN_NS;

	do {
		for (int i = 0; i < 32; i++) {
			if (!queue_is_empty(w->todo))
				return true;
#if defined(__x86_64__)
			__builtin_ia32_pause();
#endif
		}
	} while (now_ns() < end);
	return false;
}

static void sleep_until_rung(struct worker *w)
{
	struct pollfd wait = { .fd = w->bell.fd, .events = POLLIN };

	bell_arm(&w->bell);
	if (queue_is_empty(w->todo) && !atomic_load(&w->all->stop))
		(void)poll(&wait, 1, -1);	/* a signal is as good as a ring: all is looked at again */
	bell_disarm(&w->bell);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		run_all(w);
		if (atomic_load(&w->all->stop))
			return NULL;
		if (!spin(w))
			sleep_until_rung(w);
	}
}

static int thread_start(struct worker *w, uint32_t number)
{
	sigset_t all, before;
	char name[16];
	int r;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return -r;
	w->started = true;
	snprintf(name, sizeof(name), "helper-%u", number & 0xff);
	pthread_setname_np(w->thread, name);
	return 0;
}

static int worker_start(struct workers *all, uint32_t number)
{
	struct worker *w = &all->worker[number];
	int r;

	w->all = all;
	w->todo = queue_new(WORKERS_DEPTH);
	w->done = queue_new(WORKERS_DEPTH);
	if (!w->todo || !w->done)
		return -ENOMEM;
	r = bell_init(&w->bell);
	if (r < 0)
		return r;
	w->has_bell = true;
	return thread_start(w, number);
}

int workers_start(uint32_t n, uint64_t bytes, struct bell *owner, struct workers **ret)
{
	struct workers *workers;
	int r = 0;

	assert(n >= 1 && n <= WORKERS_MAX && bytes > 0);
	workers = calloc(1, sizeof(*workers));
	if (!workers)
		return -ENOMEM;
	workers->owner = owner;
	workers->bytes_max = bytes;
	workers->n = n;
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = worker_start(workers, i);
	if (r < 0) {
		workers_stop(workers);
		return r;
	}
	*ret = workers;
	return 0;
}

void workers_stop(struct workers *workers)
{
	if (!workers)
		return;
	assert(workers->busy == 0);
	atomic_store(&workers->stop, true);
	for (uint32_t i = 0; i < workers->n; i++) {
		struct worker *w = &workers->worker[i];

		if (w->started) {
			bell_ring(&w->bell);
			pthread_join(w->thread, NULL);
		}
		if (w->has_bell)
			bell_fini(&w->bell);
		queue_free(w->todo);
		queue_free(w->done);
	}
	free(workers);
}

static bool has_room(const struct workers *workers, const struct worker *w)
{
	return w->tasks < WORKERS_DEPTH && w->bytes < workers->bytes_max;
}

bool workers_have_room(const struct workers *workers)
{
	for (uint32_t i = 0; i < workers->n; i++)
		if (has_room(workers, &workers->worker[i]))
			return true;
	return false;
}

void workers_put(struct workers *workers, struct worker_task *task)
{
	struct worker *least = NULL;

	for (uint32_t i = 0; i < workers->n; i++) {
		struct worker *w = &workers->worker[i];

		if (has_room(workers, w) && (!least || w->bytes < least->bytes))
			least = w;
	}
	assert(least);
	task->worker = (uint32_t)(least - workers->worker);
	least->tasks++;
	least->bytes += task->bytes;
	workers->busy++;
	const bool put = queue_put(least->todo, task);
	assert(put);
	(void)put;
	bell_ring(&least->bell);
}

struct worker_task *workers_take(struct workers *workers)
{
	for (uint32_t i = 0; i < workers->n && workers->busy; i++) {
		struct worker *w = &workers->worker[workers->next];
		struct worker_task *task = w->tasks ? queue_get(w->done) : NULL;

		if (task) {
			w->tasks--;
			w->bytes -= task->bytes;
			workers->busy--;
			return task;
		}
		workers->next = (workers->next + 1) % workers->n;
	}
	return NULL;
}

uint32_t workers_busy(const struct workers *workers)
{
	return workers->busy;
}
