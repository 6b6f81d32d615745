/*
 * src/device/cuda/plan.c against the host backend: what is planned for a copy, carried out run by run, must
 * leave the same bytes in arena and pool as pool_copy() does. Models, planes, ids and cuts are drawn at
 * random; a plain pool of the host serves as the "device", since a plan only computes with addresses.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "src/device/copy.h"
#include "src/device/cuda/plan.h"
#include "src/device/region.h"
#include "tests/pool-draw.h"
#include "tests/suite.h"

#define ARENA_BYTES	(2u << 20)
#define EXTENT_BYTES	(1u << 16)
#define ITEMS_MAX	6u

struct world {
	struct rig rig;
	struct rig_memory memories[2];
	struct device_region *regions[2];
	struct drawn_pool drawn;
	struct engine_copy_item items[ITEMS_MAX];
	uint32_t ids[ITEMS_MAX][DRAW_BLOCKS_MAX];
	uint8_t failed[ITEMS_MAX];
	uint64_t runs;			/* planned so far */
};

/* Ids are sometimes beyond the pool. */
static void make_items(struct world *w)
{
	ck_assert_uint_lt(w->drawn.layout->parts[0].payload_bytes, ARENA_BYTES / ITEMS_MAX);
	for (uint32_t i = 0; i < ITEMS_MAX; i++) {
		ids_draw(&w->rig, w->drawn.pool, NULL, w->ids[i]);
		if (!rig_below(&w->rig, 20))
			w->ids[i][rig_below(&w->rig, w->drawn.pool->blocks)] = w->drawn.pool->n_blocks + rig_below(&w->rig, 2);
		/* Objects lie apart in the arena, and across its extents. */
		w->items[i] = (struct engine_copy_item){ .payload = (uint64_t)i * (ARENA_BYTES / ITEMS_MAX) & ~15ull,
							 .ids = w->ids[i] };
	}
}

static bool copied(void *arena, const struct device_pool *pool, bool store, const struct engine_copy_item *item,
		   uint32_t layer, uint64_t from, uint64_t bytes)
{
	return pool_copy(pool, store, (uint8_t *)arena + item->payload, item->ids, layer, from, bytes);
}

static void carry_out(struct world *w, const struct plan *plan, bool store)
{
	for (uint32_t i = 0; i < plan->n; i++) {
		const struct plan_run *run = &plan->runs[i], *last = i ? run - 1 : NULL;
		uint8_t *host = w->rig.arena.bytes + run->host;

		expect(run->bytes > 0 && run->host + run->bytes <= ARENA_BYTES);
		expect(run->host / EXTENT_BYTES == (run->host + run->bytes - 1) / EXTENT_BYTES);
		/* What could be one run is one, but where an extent or a region begins. */
		expect(!last || last->host + last->bytes != run->host || run->host % EXTENT_BYTES == 0 ||
		       last->device + last->bytes != run->device || last->device == PLAN_ZEROS ||
		       run->device == (uintptr_t)w->memories[0].bytes || run->device == (uintptr_t)w->memories[1].bytes);
		if (run->device == PLAN_ZEROS) {
			expect(store);
			memset(host, 0, run->bytes);
		} else if (store) {
			memcpy(host, (void *)(uintptr_t)run->device, run->bytes);
		} else {
			memcpy((void *)(uintptr_t)run->device, host, run->bytes);
		}
		w->runs++;
	}
}

/* Go through a whole copy, by the host's copying or by plans; which items failed is left in w->failed. */
static void go_through(struct world *w, bool planned, const struct engine_copy *request, uint64_t seed)
{
	struct device_pool *const pools[] = { w->drawn.pool };
	struct device_pool *dead = NULL;
	struct copy_piece piece;
	struct plan plan;
	struct copy copy;

	w->rig.seed = seed;		/* both ways are cut alike */
	memset(w->failed, 0, sizeof(w->failed));
	plan_begin(&plan, EXTENT_BYTES);
	copy_begin(&copy, request, pools, w->drawn.pool->n_layers);
	while (!copy_is_cut(&copy)) {
		if (!copy_cut(&copy, 1 + rig_below(&w->rig, 1u << (4 + rig_below(&w->rig, 14))), &piece))
			continue;
		if (planned) {
			plan_piece(&plan, &piece);
			expect(!plan.short_of_memory);
			carry_out(w, &plan, request->store);
		} else {
			copy_piece_steps(&piece, copied, w->rig.arena.bytes);
		}
		piece.faulted = false;		/* bad ids are no faults of memory */
		copy_piece_over(&piece, &dead);
	}
	expect(copy_is_over(&copy));
	plan_end(&plan);
}

static void try_once(struct world *w, uint8_t *before[3], uint8_t *after[3])
{
	uint8_t *const bytes[3] = { w->rig.arena.bytes, w->memories[0].bytes, w->memories[1].bytes };
	const uint64_t size[3] = { ARENA_BYTES, DRAW_REGION_BYTES, DRAW_REGION_BYTES };
	const uint32_t layer_first = rig_below(&w->rig, w->drawn.pool->n_layers);
	const struct engine_copy request = {
		.store = rig_below(&w->rig, 2), .n_items = 1 + rig_below(&w->rig, ITEMS_MAX), .items = w->items,
		.failed = w->failed, .layer_first = layer_first,
		.layer_end = layer_first + 1 + rig_below(&w->rig, w->drawn.pool->n_layers),
	};
	uint8_t failed[ITEMS_MAX];
	const uint64_t seed = rig_random(&w->rig);

	for (uint32_t i = 0; i < 3; i++)
		memcpy(before[i], bytes[i], size[i]);
	go_through(w, false, &request, seed);
	memcpy(failed, w->failed, sizeof(failed));
	for (uint32_t i = 0; i < 3; i++) {
		memcpy(after[i], bytes[i], size[i]);
		memcpy(bytes[i], before[i], size[i]);
	}
	go_through(w, true, &request, seed);
	for (uint32_t i = 0; i < 3; i++)
		expect(memcmp(bytes[i], after[i], size[i]) == 0);
	expect(memcmp(w->failed, failed, sizeof(failed)) == 0);
}

START_TEST(planned_runs_do_to_bytes_what_the_host_backend_does)
{
	static struct world w;
	uint8_t *before[3], *after[3];

	rig_start(&w.rig, 1, 0, ARENA_BYTES);
	w.rig.seed = (uint64_t)_i + 1;
	for (uint32_t i = 0; i < 3; i++) {
		before[i] = malloc(ARENA_BYTES);
		after[i] = malloc(ARENA_BYTES);
		ck_assert(before[i] && after[i]);
	}
	for (uint32_t i = 0; i < 2; i++) {
		w.memories[i] = rig_memory(DRAW_REGION_BYTES, true);
		w.regions[i] = rig_region(&w.rig, &w.memories[i]);
		rig_fill(&w.rig, w.memories[i].bytes, DRAW_REGION_BYTES);
	}
	rig_fill(&w.rig, w.rig.arena.bytes, ARENA_BYTES);
	for (uint32_t i = 0; i < 20; i++) {
		w.drawn = pool_draw(&w.rig, w.regions, false);
		make_items(&w);
		for (uint32_t k = 0; k < 4; k++)
			try_once(&w, before, after);
		pool_drawn_free(&w.drawn);
	}
	ck_assert_uint_gt(w.runs, 100);
	for (uint32_t i = 0; i < 3; i++) {
		free(before[i]);
		free(after[i]);
	}
	for (uint32_t i = 0; i < 2; i++) {
		region_close(w.regions[i]);
		rig_memory_free(&w.memories[i]);
	}
	rig_stop(&w.rig);
}
END_TEST

/* Blocks of [block][layer][plane], one block an object: the payload is one run on both sides. */
START_TEST(a_cross_layer_block_is_one_run)
{
	struct model_wire_row rows[4];
	struct message_plane planes[4];
	uint32_t id = 3;
	uint8_t failed = 0;
	const struct engine_copy_item item = { .payload = 4096, .ids = &id };
	const struct engine_copy request = { .n_items = 1, .items = &item, .failed = &failed, .layer_end = UINT32_MAX };
	struct rig_memory memory = rig_memory(DRAW_REGION_BYTES, true);
	struct copy_piece piece;
	struct device_pool *pool, *dead = NULL;
	struct rig rig;
	struct plan plan;
	struct copy copy;
	char why[MESSAGE_REASON];

	rig_start(&rig, 1, 0, ARENA_BYTES);
	struct device_region *region = rig_region(&rig, &memory);

	for (uint32_t i = 0; i < 4; i++) {
		rows[i] = (struct model_wire_row){ .layer = (uint16_t)(i / 2), .plane = (uint16_t)(i % 2), .bytes = 1024 };
		planes[i] = (struct message_plane){ .layer = (uint16_t)(i / 2), .plane = (uint16_t)(i % 2),
			.offset = i * 1024, .block_stride = 4096, .bytes = 1024, .rows = 1, .row_stride = 1024 };
	}
	struct model_layout *layout = rig_layout(1, 1, rows, 4);

	ck_assert_int_eq(pool_open(0, 0, layout, 0, 8, planes, 4, &region, 1, why, &pool), 0);
	plan_begin(&plan, EXTENT_BYTES);
	copy_begin(&copy, &request, &pool, pool->n_layers);
	ck_assert(copy_cut(&copy, 1 << 20, &piece));
	ck_assert(copy_is_cut(&copy));
	plan_piece(&plan, &piece);
	ck_assert_uint_eq(plan.n, 1);
	ck_assert_uint_eq(plan.runs[0].device, (uintptr_t)pool->rows[0].base + 3 * 4096);
	ck_assert_uint_eq(plan.runs[0].host, 4096);
	ck_assert_uint_eq(plan.runs[0].bytes, 4096);
	copy_piece_over(&piece, &dead);
	plan_end(&plan);
	pool_close(pool);
	region_close(region);
	model_layout_free(layout);
	rig_memory_free(&memory);
	rig_stop(&rig);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cuda-plan");
	TCase *plans = tcase_create("plan");

	tcase_set_timeout(plans, 60);
	tcase_add_loop_test(plans, planned_runs_do_to_bytes_what_the_host_backend_does, 0, 8);
	tcase_add_test(plans, a_cross_layer_block_is_one_run);
	suite_add_tcase(suite, plans);
	return suite_run(suite);
}
