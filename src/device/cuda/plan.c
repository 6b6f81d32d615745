/*
 * A sink for the walk of src/device/walk.h that writes runs down, as plan.h says.
 */
#include "src/device/cuda/plan.h"

#include <stdlib.h>

#include "src/device/walk.h"

static void append(struct plan *plan, const struct plan_run *run)
{
	if (plan->n == plan->room) {
		const uint32_t room = plan->room ? plan->room * 2 : 1024;
		struct plan_run *runs = realloc(plan->runs, room * sizeof(*runs));

		if (!runs) {
			plan->short_of_memory = true;
			return;
		}
		plan->runs = runs;
		plan->room = room;
	}
	plan->runs[plan->n++] = *run;
}

/* Does @run, which begins no extent, go on where the last one ends? */
static bool goes_on(const struct plan *plan, const struct plan_run *run, const struct device_region *region)
{
	const struct plan_run *last = plan->n ? &plan->runs[plan->n - 1] : NULL;

	if (!last || last->host + last->bytes != run->host || plan->region != region)
		return false;
	return last->device == PLAN_ZEROS ? run->device == PLAN_ZEROS : last->device + last->bytes == run->device;
}

static void add(struct plan *plan, uint64_t device, const struct device_region *region, uint64_t host, uint64_t bytes)
{
	while (bytes) {
		const uint64_t in_extent = host % plan->extent_bytes, left = plan->extent_bytes - in_extent;
		const struct plan_run run = { device, host, bytes < left ? bytes : left };

		if (in_extent && goes_on(plan, &run, region))
			plan->runs[plan->n - 1].bytes += run.bytes;
		else
			append(plan, &run);
		plan->region = region;
		device += device == PLAN_ZEROS ? 0 : run.bytes;
		host += run.bytes;
		bytes -= run.bytes;
	}
}

static void plan_run(void *to, const struct pool_row *row, uint64_t at, uint64_t payload, uint64_t bytes)
{
	struct plan *plan = to;

	add(plan, (uintptr_t)row->base + at, row->region, plan->payload + payload, bytes);
}

static void plan_hole(void *to, uint64_t payload, uint64_t bytes)
{
	struct plan *plan = to;

	add(plan, PLAN_ZEROS, NULL, plan->payload + payload, bytes);
}

/* An import is there until it is closed, and that waits for its copies. */
static bool never_gone(const struct pool_row *row)
{
	(void)row;
	return false;
}

static const struct walk_sink planning = { .run = plan_run, .hole = plan_hole, .gone = never_gone };

static bool plan_step(void *to, const struct device_pool *pool, bool store, const struct engine_copy_item *item,
		      uint32_t layer, uint64_t from, uint64_t bytes)
{
	struct plan *plan = to;

	plan->payload = item->payload;
	return walk_layer(&planning, plan, pool, store, item->ids, layer, from, bytes);
}

void plan_begin(struct plan *plan, uint64_t extent_bytes)
{
	*plan = (struct plan){ .extent_bytes = extent_bytes };
}

void plan_end(struct plan *plan)
{
	free(plan->runs);
	plan->runs = NULL;
}

void plan_piece(struct plan *plan, struct copy_piece *piece)
{
	plan->n = 0;
	plan->short_of_memory = false;
	copy_piece_steps(piece, plan_step, plan);
}
