/*
 * What a piece of a copy comes to: runs of bytes, each between one place in the device's memory and one in
 * the arena. Pure arithmetic: no call of the driver, and no byte is touched.
 *
 * Runs are in the order of the walk (src/device/walk.h). Neighbours on both sides are one run, also across
 * rows (a cross-layer block of one object is a single run), but never across two regions, which are two
 * allocations even where their addresses meet, and never across extents of the arena, which are registered
 * with the device one by one. A run of zeros has no place in the device's memory.
 */
#ifndef STOKER_DEVICE_CUDA_PLAN_H
#define STOKER_DEVICE_CUDA_PLAN_H

#include "src/device/copy.h"

#define PLAN_ZEROS 0u		/* as `device`: the arena's bytes become zero (a store's missing last blocks) */

struct plan_run {
	uint64_t device;
	uint64_t host;		/* offset in the arena */
	uint64_t bytes;
};

struct plan {
	uint64_t extent_bytes;
	struct plan_run *runs;
	uint32_t n, room;
	bool short_of_memory;	/* runs are missing */
	/* While a piece is walked: */
	uint64_t payload;	/* of the item, in the arena */
	const struct device_region *region;	/* of the last run */
};

void plan_begin(struct plan *plan, uint64_t extent_bytes);	/* an empty plan */
void plan_end(struct plan *plan);
/* The runs of @piece in the place of what @plan held. Steps that cannot be planned (ids) fail in the piece. */
void plan_piece(struct plan *plan, struct copy_piece *piece);

#endif
