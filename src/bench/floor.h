/*
 * What the machine itself can do between two cores, to compare with: the bare ping-pong of two words in
 * shared memory, and the bare wake of a process that sleeps in a pipe. The other end is a process of
 * its own, pinned, which sleeps while it is not being measured.
 *
 * The machine's speed moves by a factor of three within minutes: take a block of these, a block of
 * what is compared with them, and so on in turns.
 */
#ifndef STOKER_BENCH_FLOOR_H
#define STOKER_BENCH_FLOOR_H

#include <stdint.h>

#include "src/bench/sample.h"

struct floor;

struct floor *floor_start(int core);	/* NULL: it could not be started */
void floor_end(struct floor *floor);	/* NULL is fine */

/* @n round trips, one sample each, in ticks. */
void floor_ping_pong(struct floor *floor, uint32_t n, struct samples *ret);
/* One wake: from writing the pipe to seeing the woken process's word, in ticks. It must have had time to sleep. */
uint64_t floor_wake(struct floor *floor);

/* A clock that costs little: cycles where there are such, else ns. */
static inline uint64_t tick_now(void);
double tick_ns(void);			/* of one; measured once, over 50 ms */

#if defined(__x86_64__)
static inline uint64_t tick_now(void)
{
	return __builtin_ia32_rdtsc();
}
#else
#include "src/bench/machine.h"
static inline uint64_t tick_now(void)
{
	return now_ns();
}
#endif

#endif
