/* See filler.h. Whoever takes the next number populates that extent; results are handed over in no order. */
#include "src/broker/filler.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* Where in its life an extent is; below 0: over, with that error. */
enum { EXTENT_LEFT = 0, EXTENT_OVER = 1, EXTENT_TAKEN = 2 };

#define WARY_PARTS	8	/* some 10 ms */

struct filler {
	struct arena *arena;
	const struct bell *core;
	const _Atomic bool *stop;
	bool few;			/* processors: what is not preempted is waited for */
	_Atomic int wary;		/* parts to populate by small pages still, once the core thread sleeps */
	_Atomic uint32_t next;		/* extent that nobody has begun */
	_Atomic uint64_t bytes;
	uint32_t first_open;		/* the owner's: all before it are taken */
	pthread_t thread;
	bool started;
	_Atomic int state[];		/* of each extent of the arena */
};

/* One for the core thread, one for a client, one for this, and one for whoever wakes meanwhile. */
static bool processors_are_few(void)
{
	cpu_set_t processors;

	return sched_getaffinity(0, sizeof(processors), &processors) == 0 && CPU_COUNT(&processors) < 4;
}

/*
 * Where processors are few: not while the core thread is awake, nor for a while after. A client that was kept waiting finds
 * it asleep, and would be kept waiting again.
 */
static bool may_stall(struct filler *filler)
{
	if (!filler->few)
		return true;
	if (!bell_is_armed(filler->core))
		atomic_store_explicit(&filler->wary, WARY_PARTS, memory_order_relaxed);
	else if (atomic_load_explicit(&filler->wary, memory_order_relaxed) > 0)
		atomic_fetch_sub_explicit(&filler->wary, 1, memory_order_relaxed);
	return atomic_load_explicit(&filler->wary, memory_order_relaxed) <= 0;
}

/* Returns false if no extent was left, or it is to stop. */
static bool populate_next(struct filler *filler)
{
	const uint64_t whole = filler->arena->extent_bytes;
	const uint32_t extent = atomic_fetch_add(&filler->next, 1);
	int r = 0;

	if (extent >= filler->arena->extents)
		return false;
	for (uint64_t at = 0; at < whole && r == 0; at += ARENA_PART) {
		const uint64_t bytes = whole - at < ARENA_PART ? whole - at : ARENA_PART;

		if (atomic_load_explicit(filler->stop, memory_order_relaxed))
			return false;
		r = arena_populate_part(filler->arena, extent, at, bytes, may_stall(filler));
		atomic_fetch_add_explicit(&filler->bytes, bytes, memory_order_relaxed);
	}
	if (r < 0)
		arena_vacate(filler->arena, extent);
	atomic_store_explicit(&filler->state[extent], r < 0 ? r : EXTENT_OVER, memory_order_release);
	return true;
}

static void *filler_main(void *arg)
{
	const struct sched_param none = { 0 };

	prctl(PR_SET_NAME, "stokerd-fill");
	/* The way back would take a privilege, so this is a thread of its own. */
	if (sched_setscheduler(0, SCHED_IDLE, &none) < 0)
		setpriority(PRIO_PROCESS, 0, 19);	/* on Linux the thread's own */
	while (populate_next(arg))
		;
	return NULL;
}

int filler_start(struct arena *arena, uint32_t first, const struct bell *core, const _Atomic bool *stop,
		 struct filler **ret)
{
	struct filler *filler = calloc(1, sizeof(*filler) + arena->extents * sizeof(filler->state[0]));

	if (!filler)
		return -ENOMEM;
	filler->arena = arena;
	filler->core = core;
	filler->stop = stop;
	filler->few = processors_are_few();
	filler->first_open = first;
	atomic_init(&filler->next, first);
	filler->started = pthread_create(&filler->thread, NULL, filler_main, filler) == 0;
	*ret = filler;
	return 0;
}

void filler_end(struct filler *filler)
{
	if (!filler)
		return;
	if (filler->started)
		pthread_join(filler->thread, NULL);
	free(filler);
}

bool filler_take(struct filler *filler, uint32_t *ret_extent, int *ret_result)
{
	const uint32_t n = filler->arena->extents;
	uint32_t end = atomic_load_explicit(&filler->next, memory_order_relaxed);

	while (filler->first_open < n && atomic_load(&filler->state[filler->first_open]) == EXTENT_TAKEN)
		filler->first_open++;
	/* Of those that were begun, all but what the two threads are at are over. */
	if (end > n)
		end = n;
	for (uint32_t i = filler->first_open; i < end; i++) {
		const int state = atomic_load_explicit(&filler->state[i], memory_order_acquire);

		if (state == EXTENT_LEFT || state == EXTENT_TAKEN)
			continue;
		*ret_extent = i;
		*ret_result = state < 0 ? state : 0;
		atomic_store_explicit(&filler->state[i], EXTENT_TAKEN, memory_order_relaxed);
		return true;
	}
	return false;
}

uint64_t filler_bytes(const struct filler *filler)
{
	return atomic_load_explicit(&filler->bytes, memory_order_relaxed);
}

void filler_help(struct filler *filler)
{
	populate_next(filler);
}
