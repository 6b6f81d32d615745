/*
 * A crew: worker processes of a command. Their results lie in shared memory; a worker that does not
 * end in order is an error, and so is the death of the broker.
 */
#ifndef STOKER_BENCH_CREW_H
#define STOKER_BENCH_CREW_H

#include <stdbool.h>
#include <stdint.h>

#include "src/bench/own-broker.h"

#define CREW_MAX 256u

/*
 * Run @work(arg, i) in @n processes, i from 0. It returns 0, or 1 after saying on stderr what failed.
 * Meanwhile @watch(arg) is called about ten times a second (NULL: nothing). Returns true if all
 * returned 0 and the broker (NULL: none) is alive; the others are killed when one fails.
 */
bool crew_run(struct own_broker *broker, uint32_t n, int (*work)(void *arg, uint32_t i),
	      void (*watch)(void *arg), void *arg);

/* Start one such worker, which dies with us, for who looks after it himself. Its pid, or -1 after saying why. */
pid_t crew_start(int (*work)(void *arg, uint32_t i), void *arg, uint32_t i);

#endif
