/*
 * The guard: a table that the handler of SIGBUS reads without a lock, written under one.
 *
 * An entry is published by its `start`, stored last with release and cleared first; the handler reads
 * start, the rest, and start again, and believes only what did not change meanwhile. A range that
 * somebody is copying is never removed, so the entry of a real fault is always stable.
 *
 * The handler calls nothing but mmap() (a bare system call), sigaction() and raise(), which are
 * async-signal-safe, and keeps errno.
 */
#include "src/device/guard.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

struct guard_entry {
	_Atomic uintptr_t start;	/* 0: free */
	_Atomic uintptr_t end;
	_Atomic(_Atomic uint32_t *) faulted;
};

static struct guard_entry entries[GUARD_RANGES_MAX];
static _Atomic uint32_t entries_used;	/* entries from here on have never been used */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t users;
static struct sigaction action_before;

/* Put anonymous memory over the guarded range that @address lies in. False: it lies in none. */
static bool mend(uintptr_t address)
{
	const uint32_t n = atomic_load_explicit(&entries_used, memory_order_acquire);

	for (uint32_t i = 0; i < n; i++) {
		struct guard_entry *e = &entries[i];
		const uintptr_t start = atomic_load_explicit(&e->start, memory_order_acquire);
		const uintptr_t end = atomic_load_explicit(&e->end, memory_order_acquire);
		_Atomic uint32_t *faulted = atomic_load_explicit(&e->faulted, memory_order_acquire);

		if (!start || address < start || address >= end ||
		    atomic_load_explicit(&e->start, memory_order_relaxed) != start)
			continue;
		/* The mark comes first: who sees the new memory can see why. */
		atomic_store(faulted, 1);
		return mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
	}
	return false;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	const int errno_before = errno;

	(void)context;
	/* si_code is above 0 for what the kernel found; kill() and its kin carry no address. */
	if (info->si_code > 0 && mend((uintptr_t)info->si_addr)) {
		errno = errno_before;
		return;
	}
	/* Not ours to mend. The faulting instruction runs again, or the signal is sent again. */
	sigaction(SIGBUS, &action_before, NULL);
	if (info->si_code <= 0)
		raise(number);
	errno = errno_before;
}

int guard_start(void)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	int r = 0;

	pthread_mutex_lock(&lock);
	sigemptyset(&action.sa_mask);
	if (users == 0 && sigaction(SIGBUS, &action, &action_before) < 0)
		r = -errno;
	if (r == 0)
		users++;
	pthread_mutex_unlock(&lock);
	return r;
}

void guard_stop(void)
{
	pthread_mutex_lock(&lock);
	assert(users > 0);
	if (--users == 0)
		sigaction(SIGBUS, &action_before, NULL);
	pthread_mutex_unlock(&lock);
}

int guard_add(void *start, size_t bytes, _Atomic uint32_t *faulted)
{
	int r = -ENOSPC;

	assert(start && bytes);
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < GUARD_RANGES_MAX; i++) {
		struct guard_entry *e = &entries[i];

		if (atomic_load_explicit(&e->start, memory_order_relaxed))
			continue;
		atomic_store_explicit(&e->end, (uintptr_t)start + bytes, memory_order_release);
		atomic_store_explicit(&e->faulted, faulted, memory_order_release);
		atomic_store_explicit(&e->start, (uintptr_t)start, memory_order_release);
		if (i >= atomic_load_explicit(&entries_used, memory_order_relaxed))
			atomic_store_explicit(&entries_used, i + 1, memory_order_release);
		r = 0;
		break;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

void guard_remove(void *start)
{
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < atomic_load_explicit(&entries_used, memory_order_relaxed); i++)
		if (atomic_load_explicit(&entries[i].start, memory_order_relaxed) == (uintptr_t)start) {
			atomic_store_explicit(&entries[i].start, 0, memory_order_release);
			break;
		}
	pthread_mutex_unlock(&lock);
}
