/*
 * Pools: the planes that a client lists, compared with the model's rows field by field, and bound to
 * addresses. Every place that a block may have is computed here, in 128 bits and in full, so that a
 * copy needs no check but the block id's.
 *
 * Planes may overlap, and so may pools: engines do that on purpose (groups that share tensors), and
 * what they overwrite is their own.
 */
#include "src/device/pool.h"

#include <errno.h>
#include <stdlib.h>

#include "src/device/refuse.h"
#include "src/device/region.h"

typedef unsigned __int128 u128;

static int check_plane(uint32_t number, uint32_t i, const struct message_plane *plane,
		       const struct model_wire_row *row, char *why)
{
	const uint64_t bytes = (uint64_t)plane->rows * plane->bytes;

	if (plane->layer != row->layer || plane->plane != row->plane)
		return refuse(why, -EINVAL, "cannot add pool %u: its plane %u is layer %u, plane %u where the model has "
			      "layer %u, plane %u; list them as the model does", number, i, plane->layer,
			      plane->plane, row->layer, row->plane);
	if (bytes != row->bytes)
		return refuse(why, -EINVAL, "cannot add pool %u: rows %u x bytes %u of layer %u, plane %u differ from "
			      "the model's %u bytes of a block; describe the model anew or mend the plane", number,
			      plane->rows, plane->bytes, row->layer, row->plane, row->bytes);
	return 0;
}

static int check_range(uint32_t number, const struct message_plane *plane, uint32_t n_blocks,
		       const struct device_region *region, char *why)
{
	const u128 end = (u128)plane->offset + (u128)(n_blocks - 1) * plane->block_stride +
			 (u128)(plane->rows - 1) * plane->row_stride + plane->bytes;

	if (end > region->bytes)
		return refuse(why, -ERANGE, "cannot add pool %u: layer %u, plane %u: block %u lies beyond the %llu bytes "
			      "of region %u; check offset, block_stride, row_stride and n_blocks", number,
			      plane->layer, plane->plane, n_blocks - 1, (unsigned long long)region->bytes,
			      plane->region);
	return 0;
}

static int check_region(uint32_t number, const struct message_plane *plane, struct device_region *const *regions,
			uint32_t n_regions, char *why)
{
	if (plane->region >= n_regions || !regions[plane->region])
		return refuse(why, -ENOENT, "cannot add pool %u: layer %u, plane %u: region %u is not registered; "
			      "register it first", number, plane->layer, plane->plane, plane->region);
	if (atomic_load(&regions[plane->region]->faulted))
		return refuse(why, -EFAULT, "cannot add pool %u: memory of region %u has gone away; register the "
			      "region again", number, plane->region);
	return 0;
}

void pool_row_join(struct pool_row *row)
{
	if (row->runs > 1 && row->run_stride == row->run_bytes && row->block_bytes <= UINT32_MAX) {
		row->run_bytes = (uint32_t)row->block_bytes;
		row->runs = 1;
	}
	row->dense = row->runs == 1 && row->block_stride == row->block_bytes;
}

static void bind_row(struct pool_row *ret, const struct message_plane *plane, uint64_t payload,
		     struct device_region *region)
{
	*ret = (struct pool_row){
		.payload = payload,
		.block_bytes = (uint64_t)plane->rows * plane->bytes,
		/* A region whose memory is elsewhere has no address here: the offset stands for it. */
		.base = (uint8_t *)((uintptr_t)region->base + plane->offset),
		.block_stride = plane->block_stride,
		.run_stride = plane->row_stride,
		.runs = plane->rows,
		.run_bytes = plane->bytes,
		.region = region,
	};
	pool_row_join(ret);
}

/* Where each layer begins, from the rows, which are in ascending order of layers. */
static void find_layers(struct device_pool *pool, const struct model_wire_row *rows, uint64_t payload_bytes)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < pool->n_rows; i++)
		if (i == 0 || rows[i].layer != rows[i - 1].layer)
			pool->layers[n++] = (struct pool_layer){ pool->rows[i].payload, i };
	pool->layers[n] = (struct pool_layer){ payload_bytes, pool->n_rows };
	pool->n_layers = n;
}

static int bind_planes(struct device_pool *pool, const struct model_layout *layout,
		       const struct message_plane *planes, struct device_region *const *regions, uint32_t n_regions,
		       char *why)
{
	const struct model_part *part = &layout->parts[pool->part];

	for (uint32_t i = 0; i < pool->n_rows; i++) {
		int r = check_plane(pool->number, i, &planes[i], &layout->rows[part->first_row + i], why);

		if (r == 0)
			r = check_region(pool->number, &planes[i], regions, n_regions, why);
		if (r == 0)
			r = check_range(pool->number, &planes[i], pool->n_blocks, regions[planes[i].region], why);
		if (r < 0)
			return r;
		bind_row(&pool->rows[i], &planes[i], layout->row_offset[part->first_row + i],
			 regions[planes[i].region]);
	}
	find_layers(pool, &layout->rows[part->first_row], part->payload_bytes);
	return 0;
}

int pool_open(uint32_t client, uint32_t number, const struct model_layout *layout, uint32_t part,
	      uint32_t n_blocks, const struct message_plane *planes, uint32_t n_planes,
	      struct device_region *const *regions, uint32_t n_regions, char *why, struct device_pool **ret)
{
	struct device_pool *pool;
	int r;

	if (part >= layout->n_parts)
		return refuse(why, -EINVAL, "cannot add pool %u: the model has no part %u; it has %u", number, part,
			      layout->n_parts);
	if (n_blocks == 0)
		return refuse(why, -EINVAL, "cannot add pool %u: n_blocks is 0; name how many blocks it has", number);
	if (n_planes != layout->parts[part].n_rows)
		return refuse(why, -EINVAL, "cannot add pool %u: it has %u planes where group %u, shard %u of the model "
			      "has %u; list one for each (layer, plane)", number, n_planes,
			      layout->parts[part].group, layout->parts[part].shard, layout->parts[part].n_rows);
	pool = calloc(1, sizeof(*pool));
	if (pool) {
		pool->rows = calloc(n_planes, sizeof(*pool->rows));
		pool->layers = calloc((size_t)n_planes + 1, sizeof(*pool->layers));
	}
	if (!pool || !pool->rows || !pool->layers) {
		pool_close(pool);
		return refuse(why, -ENOMEM, "could not add pool %u: the broker is out of memory; try again", number);
	}
	pool->client = client;
	pool->number = number;
	pool->part = part;
	pool->blocks = layout->parts[part].blocks;
	pool->n_blocks = n_blocks;
	pool->n_rows = n_planes;
	r = bind_planes(pool, layout, planes, regions, n_regions, why);
	if (r < 0) {
		pool->n_rows = 0;	/* no region has been told yet that this pool looks at it */
		pool_close(pool);
		return r;
	}
	for (uint32_t i = 0; i < n_planes; i++)
		pool->rows[i].region->pools++;
	*ret = pool;
	return 0;
}

void pool_close(struct device_pool *pool)
{
	if (!pool)
		return;
	for (uint32_t i = 0; pool->rows && i < pool->n_rows; i++)
		pool->rows[i].region->pools--;
	free(pool->rows);
	free(pool->layers);
	free(pool);
}

bool pool_has_faulted(const struct device_pool *pool)
{
	for (uint32_t i = 0; i < pool->n_rows; i++)
		if (atomic_load_explicit(&pool->rows[i].region->faulted, memory_order_acquire))
			return true;
	return false;
}
