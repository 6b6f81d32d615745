/*
 * Pools: how the blocks of one part lie in a client's regions. A pool holds all that a copy needs, as
 * addresses and sizes that have been checked once; it does not keep the layout.
 *
 * The host backend makes them from what a client lists (pool_open). A copier makes its own from what the
 * broker has checked; its regions are imports (`struct device_region` of cuda/import.h), its addresses the
 * device's, and it only computes with them.
 */
#ifndef STOKER_DEVICE_POOL_H
#define STOKER_DEVICE_POOL_H

#include "src/device/device.h"

/** struct pool_row - one (layer, plane): where its blocks are in the payload and in the region. */
struct pool_row {
	uint64_t payload;	/* offset of the row's run in the payload */
	uint64_t block_bytes;	/* of one block in this plane: runs x run_bytes */
	uint8_t *base;		/* of block 0; in a copier an address of the device */
	uint64_t block_stride, run_stride;
	uint32_t runs, run_bytes;
	bool dense;		/* neighbouring ids are neighbours in memory */
	struct device_region *region;
};

/** struct pool_layer - a layer's rows, and the run of payload bytes that they are. */
struct pool_layer {
	uint64_t payload;
	uint32_t row;
};

struct device_pool {
	uint32_t client, number;
	uint32_t part;
	uint32_t blocks;		/* of an object */
	uint32_t n_blocks;		/* ids 0 to n_blocks - 1 */
	uint32_t n_rows, n_layers;
	struct pool_row *rows;
	struct pool_layer *layers;	/* n_layers, and one that says where the last one ends */
	bool dead;			/* it has been said that its memory faulted; the core thread's */
	struct device_pool *next_dead;	/* likewise: the list of those still to be told */
	void *of;			/* what a backend keeps of it besides */
};

/* As pool_add of struct device_backend. */
int pool_open(uint32_t client, uint32_t number, const struct model_layout *layout, uint32_t part,
	      uint32_t n_blocks, const struct message_plane *planes, uint32_t n_planes,
	      struct device_region *const *regions, uint32_t n_regions, char *why, struct device_pool **ret);
void pool_close(struct device_pool *pool);	/* NULL is fine */

/* Runs of a row that lie one behind the other are one run, and so may its blocks be: fewer and longer copies. */
void pool_row_join(struct pool_row *row);

/* Has memory of any of its regions gone away? */
bool pool_has_faulted(const struct device_pool *pool);

/* Bytes of payload that layer @layer (a count of the part's layers, from 0) is; 0: it has no such layer. */
static inline uint64_t pool_layer_bytes(const struct device_pool *pool, uint32_t layer)
{
	return layer < pool->n_layers ? pool->layers[layer + 1].payload - pool->layers[layer].payload : 0;
}

/*
 * Copy bytes [@from, @from + @bytes) of layer @layer's run between the payload of an object and its
 * blocks @ids. Returns false if they were not all copied: memory is gone, or an id is out of range.
 */
bool pool_copy(const struct device_pool *pool, bool store, uint8_t *payload, const uint32_t *ids, uint32_t layer,
	       uint64_t from, uint64_t bytes);

#endif
