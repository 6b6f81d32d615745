/* Killing clients, the parts: what a worker does (kill-worker.c), and the command itself (kill.c). */
#ifndef STOKER_BENCH_KILL_H
#define STOKER_BENCH_KILL_H

#include <stdatomic.h>
#include <stdint.h>

#define KILL_CHAIN 8u		/* objects of a chain, and of a transfer */

/* What a worker is at. */
enum kill_phase { KILL_ATTACHING, KILL_LOOKING_UP, KILL_RETRIEVING, KILL_STORING, KILL_PHASES };

/** struct kill_state - of one worker, in memory shared with the command. */
struct kill_state {
	_Atomic uint32_t phase;
	_Atomic uint64_t attach_ns;	/* from its start until it had a pool; 0: it has none yet */
	_Atomic uint64_t rounds;
	_Atomic uint64_t verified_bytes, wrong_bytes;	/* also of those that had its place before */
	_Atomic uint32_t stop;		/* leave in order */
};

struct kill_plan {
	const char *broker;
	uint64_t object_bytes, chains;
	uint64_t seed;			/* of the chains that the next worker takes */
	uint64_t rounds;		/* 0: until it is stopped */
};

/* Numbers that look random, from @state on. */
static inline uint64_t kill_draw(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;	/* splitmix64 */

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* A worker's life. 0, or 1 after saying why. */
int kill_work(const struct kill_plan *plan, struct kill_state *state);

#endif
