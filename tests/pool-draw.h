/* Pools of random models with random planes, over two regions of the host backend, for tests of copies. */
#ifndef TESTS_POOL_DRAW_H
#define TESTS_POOL_DRAW_H

#include "src/device/pool.h"
#include "tests/device-rig.h"

#define DRAW_ROWS_MAX	8u
#define DRAW_BLOCKS_MAX	8u	/* of an object */
#define DRAW_REGION_BYTES (2u << 20)	/* of each region, at least */

struct drawn_pool {
	struct model_layout *layout;
	struct device_pool *pool;
};

/*
 * Layers of 1 to 3 planes; a plane cuts each block into 1 to 4 runs, dense or with gaps. Planes lie where they
 * like, often one behind the other; @disjoint: none overlaps another, and some pools have cross-layer blocks.
 */
struct drawn_pool pool_draw(struct rig *rig, struct device_region *const regions[2], bool disjoint);
void pool_drawn_free(struct drawn_pool *drawn);

/* Ids of an object: rising, scattered, sometimes none. @used: n_blocks flags of ids not to be drawn again, or NULL. */
void ids_draw(struct rig *rig, const struct device_pool *pool, bool *used, uint32_t *ids);

#endif
