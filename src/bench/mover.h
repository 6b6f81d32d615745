/*
 * A worker as an engine has it, for the commands that move bytes: an attached client, a model with
 * layers and planes, and a paged pool of blocks in shared memory of its own. Bytes are those of
 * payload.h; blocks that nobody should have written hold the pattern.
 *
 * A pool has twice the blocks of its window, and those of one transfer are scattered over it: the
 * rest are guards, and every check looks at all of them.
 */
#ifndef STOKER_BENCH_MOVER_H
#define STOKER_BENCH_MOVER_H

#include <stdbool.h>
#include <stdint.h>

#include <stoker/stoker.h>

#include "shm/layout.h"
#include "src/bench/sample.h"

#define MOVER_POLLS 64u	/* polls in one sample of their time */
#define MOVER_WHY   256u
/* Large slots that it asks for, and so the longest lookup, if the broker grants them: its own does. */
#define MOVER_SLOTS_LARGE 4u
#define MOVER_KEYS_MAX	  (MOVER_SLOTS_LARGE * STOKER_LARGE_KEYS)

struct mover_config {
	const char *broker;
	const char *model;		/* name; part of every byte */
	uint64_t object_bytes;		/* a multiple of 64 */
	uint32_t blocks;		/* of an object */
	uint32_t window;		/* objects of one transfer, at most */
};

struct mover {
	struct mover_config config;
	struct stoker *stoker;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
	uint32_t layers, planes;	/* of a model; planes of a layer */
	uint32_t block_bytes;		/* of one block in one plane */
	uint32_t pool_blocks;
	uint8_t *memory;
	size_t memory_bytes;
	uint32_t *ids;			/* of the transfer: window x blocks */
	uint8_t *taken;			/* by block: part of the transfer */
	struct samples *polls;		/* NULL, or times of MOVER_POLLS polls of a pending job */
	char why[MOVER_WHY];		/* of the last failure */
};

/* Is there a layout for such objects? Else -EINVAL after saying why on stderr. */
int mover_check(uint64_t object_bytes, uint64_t blocks);

/* Returns 0 or -errno with the text in mover->why. mover_close() in any case. */
int mover_open(const struct mover_config *config, struct mover *mover);
void mover_close(struct mover *mover);

/* Choose the blocks for @n objects; @turn varies them. */
void mover_choose(struct mover *mover, uint64_t turn, uint32_t n);
/* The chosen blocks := bytes of these objects. */
void mover_fill(struct mover *mover, const struct stoker_key *keys, uint32_t n);
/* The chosen blocks := the pattern again. */
void mover_wipe(struct mover *mover, uint32_t n);
/* Bytes of the chosen blocks that are not those of these objects, and in all others, not the pattern. */
uint64_t mover_wrong(const struct mover *mover, const struct stoker_key *keys, uint32_t n);

/* The chosen blocks as an argument, for chunks from @first on. */
struct stoker_blocks mover_blocks(const struct mover *mover, uint32_t first, uint32_t n);

/* Wait for DONE: poll for a while, then sleep. 0, or -errno with a text. */
int mover_wait(struct mover *mover, struct stoker_job job);
/*
 * Wait and take the result. 0 only if the status is OK; else -EIO, or -EPIPE if the broker is gone,
 * with a text that names @what.
 */
int mover_finish(struct mover *mover, const char *what, struct stoker_job job, struct stoker_result *ret,
		  uint8_t *chunks, uint32_t n_chunks);
/* A text for mover->why. Returns @r. */
__attribute__((format(printf, 3, 4))) int mover_fail(struct mover *mover, int r, const char *format, ...);

#endif
