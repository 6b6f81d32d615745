/*
 * What a broker of the bench's own holds, seen from outside: the kernel's list of its descriptors and
 * mappings, the names that it made, its control page. Nothing is asked of the broker, which could only say
 * what it knows of.
 *
 * Counted are mappings that are shared, which is what clients hand over and channels are. Private memory (heap,
 * stacks of threads that come and go) is told beside them: it grows and shrinks as libc likes.
 */
#ifndef STOKER_BENCH_FOOTPRINT_H
#define STOKER_BENCH_FOOTPRINT_H

#include <stdbool.h>
#include <stdint.h>

#include "src/bench/own-broker.h"

/* A worker's pool is a memfd of this name and its pid, so that the broker's mappings tell whose they are. */
#define FOOTPRINT_POOL "stoker-bench-pool-"

struct footprint {
	bool told;			/* the kernel shows the next three */
	uint64_t descriptors, mapped_bytes, private_bytes;
	uint64_t files;			/* of its name in shared memory, and in its runtime directory */
	/* as the control page has them, 100 ms old at most */
	uint64_t clients, pools, jobs, leases, pinned_bytes;
};

void footprint_take(const struct own_broker *broker, struct footprint *ret);

/*
 * What the broker still has of process @pid, which was killed and is not reaped yet: as a text, or NULL for
 * nothing. @living: clients that have channels of right, at most. Once the process itself has let go of its own.
 */
const char *footprint_of(const struct own_broker *broker, pid_t pid, uint32_t living);

#endif
