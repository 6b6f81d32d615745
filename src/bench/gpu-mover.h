/*
 * A worker on a GPU for the command gpu: an attached client, one range of device memory, and for each point
 * that is measured a model and a pool of scattered blocks in it.
 *
 * What the pool must hold is kept on the host, all of it, guards between the blocks included. Before each
 * transfer the device is made to hold that, afterwards all of it is fetched and compared.
 */
#ifndef STOKER_BENCH_GPU_MOVER_H
#define STOKER_BENCH_GPU_MOVER_H

#include <stdint.h>

#include <stoker/cuda.h>

#include "src/device/cuda/trial.h"

#define GPU_BLOCKS	16u	/* of an object, where a transfer has as many */
#define GPU_BLOCKS_MAX	4096u	/* of a transfer */

struct gpu_mover_config {
	const char *broker, *library;
	enum trial_memory memory;
	uint64_t transfer_max;		/* bytes of one transfer at most */
	uint64_t run;			/* parts of every key: of this run of the bench, */
	uint32_t worker;		/* and of this process */
};

/** struct gpu_side - the blocks of one direction: those that are loaded, or those that are stored. */
struct gpu_side {
	struct stoker_key keys[GPU_BLOCKS_MAX];
	uint32_t ids[GPU_BLOCKS_MAX];
};

/** struct gpu_times - ns of one round; Stoker's way, one plain copy of as many bytes, a plain copy of each block. */
struct gpu_times {
	uint64_t stoker, whole, pieces;
};

struct gpu_mover {
	struct gpu_mover_config config;
	struct stoker *stoker;
	struct stoker_region *region;
	uint64_t device, device_bytes;
	uint8_t *expected, *got;	/* as many bytes */
	uint8_t *pinned;		/* two transfers, for plain copies */
	/* the point */
	struct stoker_model *model;
	struct stoker_pool *pool;
	uint32_t block_bytes, n_blocks, per_object, n_objects;
	uint64_t transfer_bytes, pool_bytes;
	struct gpu_side load, store;
	uint8_t *before;		/* bytes of the store before: what the next load brings */
	bool first;			/* no round of the point has been */
	uint64_t rounds, wrong;		/* of all points */
	char why[600];
};

/* 0; -EOPNOTSUPP or -ENODEV: this machine or memory cannot, with the reason in mover->why; else -errno. */
int gpu_mover_open(const struct gpu_mover_config *config, struct gpu_mover *mover);
void gpu_mover_close(struct gpu_mover *mover);
/* Blocks of @block_bytes (a multiple of 64), @n_blocks of them a transfer (1, or a multiple of GPU_BLOCKS). */
int gpu_mover_point(struct gpu_mover *mover, uint32_t block_bytes, uint32_t n_blocks);
void gpu_mover_point_end(struct gpu_mover *mover);
/*
 * One round of the point: a store and the load of what it stored, one after the other. Every byte is checked
 * outside the times; mover->wrong is added to. 0 or -errno with a text.
 */
int gpu_mover_round(struct gpu_mover *mover, struct gpu_times *load, struct gpu_times *store);
/* The store and the load of what the round before stored, at once; the first call of a point has no load to time,
 * and gives 0 in @both->stoker. */
int gpu_mover_round_both(struct gpu_mover *mover, struct gpu_times *both);

#endif
