/* See pool-draw.h. */
#include "tests/pool-draw.h"

#include <check.h>
#include <stdlib.h>

static const uint32_t sizes[] = { 16, 20, 48, 64, 512, 1024 };

/* The sizes of a plane, its place left open. */
static struct message_plane draw_plane(struct rig *rig, uint32_t layer, uint32_t plane)
{
	const uint32_t runs = 1u << rig_below(rig, 3), bytes = sizes[rig_below(rig, 6)];
	const bool dense = rig_below(rig, 2);
	const uint64_t run_stride = dense ? bytes : bytes + 16 * rig_below(rig, 3);

	return (struct message_plane){
		.region = rig_below(rig, 2), .layer = (uint16_t)layer, .plane = (uint16_t)plane, .bytes = bytes,
		.rows = runs, .row_stride = run_stride,
		.block_stride = runs * run_stride + (dense ? 0 : 32 * rig_below(rig, 3)),
	};
}

static void place_apart(struct rig *rig, struct message_plane *planes, uint32_t n, uint32_t n_blocks)
{
	const bool cross_layer = rig_below(rig, 3) == 0;
	uint64_t at[2] = { 0, 0 }, stride = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct message_plane *p = &planes[i];

		if (cross_layer) {
			p->region = 0;
			p->offset = stride;
			stride += p->block_stride;
		} else {
			p->offset = at[p->region];
			at[p->region] += n_blocks * p->block_stride;
		}
	}
	for (uint32_t i = 0; i < n && cross_layer; i++)
		planes[i].block_stride = stride;
}

/* Often where the row before ends: then runs go on across rows. */
static void place_anywhere(struct rig *rig, struct message_plane *planes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		planes[i].offset = rig_below(rig, 3) || i == 0 ? rig_below(rig, DRAW_REGION_BYTES / 4) & ~15u
							       : planes[i - 1].offset + planes[i - 1].bytes;
}

struct drawn_pool pool_draw(struct rig *rig, struct device_region *const regions[2], bool disjoint)
{
	struct model_wire_row rows[DRAW_ROWS_MAX];
	struct message_plane planes[DRAW_ROWS_MAX];
	const uint32_t n = 1 + rig_below(rig, DRAW_ROWS_MAX), n_blocks = DRAW_BLOCKS_MAX + rig_below(rig, 24);
	uint32_t layer = 0, plane = 0;
	struct drawn_pool drawn;
	char why[MESSAGE_REASON] = "";

	for (uint32_t i = 0; i < n; i++) {
		planes[i] = draw_plane(rig, layer, plane);
		rows[i] = (struct model_wire_row){ .layer = (uint16_t)layer, .plane = (uint16_t)plane,
						   .bytes = planes[i].rows * planes[i].bytes };
		if (rig_below(rig, 2)) {
			layer++;
			plane = 0;
		} else {
			plane++;
		}
	}
	if (disjoint)
		place_apart(rig, planes, n, n_blocks);
	else
		place_anywhere(rig, planes, n);
	drawn.layout = rig_layout(1, 1 + rig_below(rig, DRAW_BLOCKS_MAX), rows, n);
	ck_assert_msg(pool_open(0, 0, drawn.layout, 0, n_blocks, planes, n, regions, 2, why, &drawn.pool) == 0, "%s", why);
	return drawn;
}

void pool_drawn_free(struct drawn_pool *drawn)
{
	pool_close(drawn->pool);
	model_layout_free(drawn->layout);
}

void ids_draw(struct rig *rig, const struct device_pool *pool, bool *used, uint32_t *ids)
{
	uint32_t id = rig_below(rig, pool->n_blocks);

	for (uint32_t b = 0; b < pool->blocks; b++) {
		id = rig_below(rig, 3) ? (id + 1) % pool->n_blocks : rig_below(rig, pool->n_blocks);
		ids[b] = rig_below(rig, 12) && !(used && used[id]) ? id : STOKER_NO_BLOCK;
		if (used)
			used[id] = true;
	}
}
