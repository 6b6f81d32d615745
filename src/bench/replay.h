/*
 * Replay of a trace, the parts: what one worker does (replay-worker.c), damage on purpose (flip.c),
 * and the command itself (replay.c).
 */
#ifndef STOKER_BENCH_REPLAY_H
#define STOKER_BENCH_REPLAY_H

#include <stdatomic.h>
#include <stdint.h>

#include "src/bench/mover.h"
#include "src/bench/own-broker.h"
#include "src/bench/trace.h"

#define REPLAY_MODEL "replay"

/** struct replay_figures - of one worker, in memory shared with the command. */
struct replay_figures {
	_Atomic uint64_t done, hits;		/* requests and chunks so far, for the progress bar */
	uint64_t blocks;
	uint64_t hits_l1, hits_disk;		/* chunks, by where the lookup found them */
	uint64_t retrieved, stored, elsewhere, refused;		/* chunks */
	uint64_t wrong_bytes;
	uint64_t lookup_ns, retrieve_ns, store_ns;	/* from submit to DONE */
	uint64_t disk_lookup_ns;		/* of lookups that loaded from disk */
	struct samples *lookups, *polls;
};

struct replay_plan {
	const char *broker;
	const struct trace *trace;
	uint64_t object_bytes;
	uint32_t blocks, window, workers;
	uint64_t first, count;			/* requests of this pass */
};

/* Worker @i of the plan: every workers-th request, in the trace's order. 0, or 1 after saying why. */
int replay_work(const struct replay_plan *plan, uint32_t i, struct replay_figures *figures);

/*
 * Flip one bit of the payload of block @id in the arena, or in the file of the tier, wherever it is
 * found. Returns how many copies were found, or -1 after saying why it could not look.
 */
int64_t flip_arena(const struct own_broker *broker, uint64_t id);
int64_t flip_disk(const struct own_broker *broker, uint64_t id);

#endif
