/*
 * Copies of the host backend: over random models and pools each byte is compared with a slow copy that
 * follows the definition of the layout; then what becomes of copies that are cancelled, that are many,
 * or that are less urgent than others.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/device/image.h"
#include "tests/device-rig.h"
#include "tests/suite.h"

#define HOST	device_host_backend
#define SEEDS	24
#define ITEMS	3u	/* objects of each part */

/** struct view - a pool, its memory, and what is to be in that memory. */
struct view {
	uint32_t part, n_blocks;
	uint32_t n_planes;
	struct message_plane planes[64];
	struct rig_memory memory[2];
	uint8_t *expected[2];
	struct device_region *regions[2];
	struct device_pool *pool;
};

struct world {
	struct rig rig;
	struct model_layout *layout;
	struct view views[STOKER_PARTS_MAX];
	struct device_pool *pools[STOKER_PARTS_MAX];
	uint8_t *expected_arena;
	uint32_t n_items;
	struct engine_copy_item items[STOKER_PARTS_MAX * ITEMS];
	uint8_t failed[STOKER_PARTS_MAX * ITEMS];
};

static struct model_layout *random_layout(struct rig *rig)
{
	struct model_wire_row rows[64];
	const uint32_t groups = 1 + rig_below(rig, 2), shards = 1 + rig_below(rig, 2), planes = 1 + rig_below(rig, 2);
	uint32_t n = 0;

	for (uint32_t g = 0; g < groups; g++)
		for (uint32_t s = 0; s < shards; s++) {
			const uint32_t layers = 1 + rig_below(rig, 6), first = rig_below(rig, 3);

			for (uint32_t l = 0; l < layers; l++)	/* layer numbers may begin late and leave gaps */
				for (uint32_t p = 0; p < planes; p++)
					rows[n++] = (struct model_wire_row){
						.group = (uint16_t)g, .shard = (uint16_t)s,
						.layer = (uint16_t)(first + l * (1 + first)), .plane = (uint16_t)p,
						.bytes = rig_below(rig, 3) ? 256 * (1 + rig_below(rig, 8))
									   : 1 + rig_below(rig, 3000),
					};
		}
	return rig_layout(groups, 1 + rig_below(rig, 16), rows, n);
}

/* vLLM's K and V tensors of each layer, SGLang's dense tokens, heads cut out of a page: each plane alone. */
static void place_apart(struct rig *rig, struct view *v, uint64_t at[2])
{
	const bool dense = rig_below(rig, 2);

	for (uint32_t i = 0; i < v->n_planes; i++) {
		struct message_plane *p = &v->planes[i];
		const uint64_t span = (p->rows - 1) * p->row_stride + p->bytes;

		p->region = rig_below(rig, 2);
		p->block_stride = span + (dense ? 0 : rig_below(rig, 100));
		p->offset = at[p->region];
		at[p->region] += v->n_blocks * p->block_stride;
	}
}

/* Blocks that hold all layers. */
static void place_across(struct view *v, uint64_t at[2])
{
	const uint64_t base = at[1];
	uint64_t span = 0;

	for (uint32_t i = 0; i < v->n_planes; i++) {
		v->planes[i].region = 1;
		v->planes[i].offset = base + span;
		span += (v->planes[i].rows - 1) * v->planes[i].row_stride + v->planes[i].bytes;
	}
	for (uint32_t i = 0; i < v->n_planes; i++)
		v->planes[i].block_stride = span;
	at[1] += v->n_blocks * span;
}

static void view_open(struct world *w, uint32_t part)
{
	struct view *v = &w->views[part];
	const struct model_part *p = &w->layout->parts[part];
	uint64_t at[2] = { rig_below(&w->rig, 5000), rig_below(&w->rig, 5000) };
	char why[MESSAGE_REASON] = "";

	v->part = part;
	v->n_blocks = p->blocks * ITEMS + rig_below(&w->rig, 4);
	v->n_planes = p->n_rows;
	for (uint32_t i = 0; i < v->n_planes; i++) {
		const struct model_wire_row *row = &w->layout->rows[p->first_row + i];
		const uint32_t runs = 1 + rig_below(&w->rig, 4);

		v->planes[i] = (struct message_plane){ .layer = row->layer, .plane = row->plane, .bytes = row->bytes,
						       .rows = 1 };
		if (row->bytes % runs == 0) {
			v->planes[i].rows = runs;
			v->planes[i].bytes = row->bytes / runs;
			v->planes[i].row_stride = v->planes[i].bytes + rig_below(&w->rig, 2) * rig_below(&w->rig, 64);
		}
	}
	if (rig_below(&w->rig, 3))
		place_apart(&w->rig, v, at);
	else
		place_across(v, at);
	for (uint32_t i = 0; i < 2; i++) {
		v->memory[i] = rig_memory((at[i] + 4095 + 64) & ~4095ull, rig_below(&w->rig, 2));
		v->expected[i] = malloc(v->memory[i].size);
		v->regions[i] = rig_region(&w->rig, &v->memory[i]);
	}
	ck_assert_msg(HOST.pool_add(w->rig.device, 0, 7, part, w->layout, part, v->n_blocks, v->planes, v->n_planes,
				    v->regions, 2, why, &v->pool) == 0, "%s", why);
	w->pools[part] = v->pool;
}

static void view_close(struct view *v)
{
	HOST.pool_close(v->pool);
	for (uint32_t i = 0; i < 2; i++) {
		HOST.region_close(v->regions[i], 0);
		rig_memory_free(&v->memory[i]);
		free(v->expected[i]);
	}
}

static void world_open(struct world *w, uint64_t seed)
{
	uint64_t payload = 4096;

	memset(w, 0, sizeof(*w));
	rig_start(&w->rig, 1 + (uint32_t)seed % 3, 4096 << (seed % 4), 8 << 20);
	w->rig.seed = seed;
	w->layout = random_layout(&w->rig);
	w->expected_arena = malloc(w->rig.arena.size);
	for (uint32_t p = 0; p < w->layout->n_parts; p++) {
		view_open(w, p);
		for (uint32_t i = 0; i < ITEMS; i++) {
			w->items[w->n_items++] = (struct engine_copy_item){ .payload = payload, .pool = p, .part = p };
			payload += (w->layout->parts[p].payload_bytes + 4096 + 4095) & ~4095ull;
		}
	}
	ck_assert_uint_le(payload, w->rig.arena.size);
}

static void world_close(struct world *w)
{
	for (uint32_t p = 0; p < w->layout->n_parts; p++)
		view_close(&w->views[p]);
	for (uint32_t i = 0; i < w->n_items; i++)
		free((uint32_t *)w->items[i].ids);
	free(w->expected_arena);
	model_layout_free(w->layout);
	rig_stop(&w->rig);
}

/* Blocks for every item, no block twice, in order or mixed, a few missing. */
static void choose_ids(struct world *w)
{
	for (uint32_t i = 0; i < w->n_items; i += ITEMS) {
		const struct view *v = &w->views[w->items[i].part];
		const uint32_t blocks = w->layout->parts[v->part].blocks;
		const bool mixed = rig_below(&w->rig, 2);
		uint32_t *order = malloc(v->n_blocks * sizeof(*order));

		for (uint32_t b = 0; b < v->n_blocks; b++) {
			const uint32_t other = mixed ? rig_below(&w->rig, b + 1) : b;

			order[b] = order[other];
			order[other] = b;
		}
		for (uint32_t k = 0; k < ITEMS; k++) {
			uint32_t *ids = malloc(blocks * sizeof(*ids));

			for (uint32_t b = 0; b < blocks; b++)
				ids[b] = rig_below(&w->rig, 8) ? order[k * blocks + b] : STOKER_NO_BLOCK;
			free((uint32_t *)w->items[i + k].ids);
			w->items[i + k].ids = ids;
		}
		free(order);
	}
}

static void fill_all(struct world *w)
{
	rig_fill(&w->rig, w->rig.arena.bytes, w->rig.arena.size / 64);
	memcpy(w->expected_arena, w->rig.arena.bytes, w->rig.arena.size);
	for (uint32_t p = 0; p < w->layout->n_parts; p++)
		for (uint32_t i = 0; i < 2; i++) {
			struct rig_memory *m = &w->views[p].memory[i];

			rig_fill(&w->rig, m->bytes, m->size);
			memcpy(w->views[p].expected[i], m->bytes, m->size);
		}
}

/* One plane of one block, byte by byte, as the definition of layout and plane says. */
static void expect_block(struct world *w, const struct view *v, bool store, const struct message_plane *p,
			 uint64_t payload, uint32_t id)
{
	for (uint32_t r = 0; r < p->rows; r++)
		for (uint32_t k = 0; k < p->bytes; k++) {
			uint8_t *in_arena = &w->expected_arena[payload + r * p->bytes + k];
			uint8_t *in_pool = id == STOKER_NO_BLOCK ? NULL :
				&v->expected[p->region][p->offset + id * p->block_stride + r * p->row_stride + k];

			if (store)
				*in_arena = in_pool ? *in_pool : 0;
			else if (in_pool)
				*in_pool = *in_arena;
		}
}

static void expect_item(struct world *w, bool store, const struct engine_copy_item *item, uint32_t first, uint32_t end)
{
	const struct view *v = &w->views[item->part];
	const struct model_part *part = &w->layout->parts[item->part];
	uint32_t layer = 0;

	for (uint32_t i = 0; i < part->n_rows; i++) {
		const struct model_wire_row *row = &w->layout->rows[part->first_row + i];

		layer += i > 0 && row->layer != row[-1].layer;
		if (layer < first || layer >= end)
			continue;
		for (uint32_t b = 0; b < part->blocks; b++)
			expect_block(w, v, store, &v->planes[i], item->payload +
				     w->layout->row_offset[part->first_row + i] + (uint64_t)b * row->bytes, item->ids[b]);
	}
}

/* All items in a few copies at once, and then every byte everywhere. */
static void copy_all(struct world *w, bool store, uint32_t first, uint32_t end)
{
	const uint32_t n_copies = 1 + rig_below(&w->rig, 3);
	uint32_t layers = 0;

	for (uint32_t p = 0; p < w->layout->n_parts; p++)
		layers = w->layout->parts[p].layers > layers ? w->layout->parts[p].layers : layers;
	layers = end < layers ? end : layers;
	for (uint32_t i = 0; i < w->n_items; i++)
		expect_item(w, store, &w->items[i], first, end);
	for (uint32_t c = 0; c < n_copies; c++) {
		const uint32_t from = w->n_items * c / n_copies, to = w->n_items * (c + 1) / n_copies;

		rig_copy_layers(&w->rig, c, store, w->layout, w->pools, w->items + from, to - from,
				w->failed + from, first, end);
	}
	rig_wait(&w->rig);
	for (uint32_t c = 0; c < n_copies; c++) {
		ck_assert_int_eq(w->rig.told[c].result, ENGINE_OK);
		ck_assert_uint_eq(w->rig.told[c].layers, layers > first ? layers - first : 0);
	}
	for (uint32_t i = 0; i < w->n_items; i++)
		ck_assert_uint_eq(w->failed[i], 0);
	ck_assert(memcmp(w->rig.arena.bytes, w->expected_arena, w->rig.arena.size) == 0);
	for (uint32_t p = 0; p < w->layout->n_parts; p++)
		for (uint32_t i = 0; i < 2; i++)
			ck_assert(memcmp(w->views[p].memory[i].bytes, w->views[p].expected[i],
					 w->views[p].memory[i].size) == 0);
}

START_TEST(every_byte_of_a_store_and_of_a_retrieve_arrives_and_no_other_changes)
{
	static struct world w;

	world_open(&w, (uint64_t)_i + 1);
	fill_all(&w);
	choose_ids(&w);
	copy_all(&w, true, 0, UINT32_MAX);
	fill_all(&w);
	choose_ids(&w);
	copy_all(&w, false, 0, UINT32_MAX);
	world_close(&w);
}
END_TEST

START_TEST(a_layer_range_moves_those_layers_alone)
{
	static struct world w;

	world_open(&w, 1000 + (uint64_t)_i);
	for (uint32_t first = 0; first < 7; first += 2) {
		fill_all(&w);
		choose_ids(&w);
		copy_all(&w, true, first, first + 2);
		copy_all(&w, false, first + 1, first + 3);
	}
	copy_all(&w, false, 3, 3);		/* no layer at all */
	copy_all(&w, false, 99, UINT32_MAX);	/* none that anybody has */
	world_close(&w);
}
END_TEST

/* ---- one large pool: a model of 8 layers, 4 blocks of 16 KiB an object and layer ------------------ */

#define LAYERS	8u
#define BLOCKS	4u
#define BLOCK	16384u
#define PAYLOAD	((uint64_t)LAYERS * BLOCKS * BLOCK)
#define OBJECTS	16u

struct large {
	struct rig rig;
	struct model_layout *layout;
	struct rig_memory memory;
	struct device_region *region;
	struct device_pool *pool;
	uint32_t ids[OBJECTS][BLOCKS];
	struct engine_copy_item items[OBJECTS];
	uint8_t failed[RIG_COPIES][OBJECTS];
};

static void large_open(struct large *l, uint32_t threads)
{
	struct model_wire_row rows[LAYERS];
	struct message_plane planes[LAYERS];
	char why[MESSAGE_REASON] = "";

	memset(l, 0, sizeof(*l));
	rig_start(&l->rig, threads, 4096, OBJECTS * (PAYLOAD + 4096));
	for (uint32_t i = 0; i < LAYERS; i++) {
		rows[i] = (struct model_wire_row){ .layer = (uint16_t)i, .bytes = BLOCK };
		planes[i] = (struct message_plane){ .layer = (uint16_t)i, .bytes = BLOCK, .rows = 1,
						    .offset = (uint64_t)i * OBJECTS * BLOCKS * BLOCK,
						    .block_stride = BLOCK };
	}
	l->layout = rig_layout(1, BLOCKS, rows, LAYERS);
	l->memory = rig_memory(OBJECTS * PAYLOAD, true);
	l->region = rig_region(&l->rig, &l->memory);
	ck_assert_msg(HOST.pool_add(l->rig.device, 0, 7, 0, l->layout, 0, OBJECTS * BLOCKS, planes, LAYERS, &l->region, 1,
				    why, &l->pool) == 0, "%s", why);
	for (uint32_t i = 0; i < OBJECTS; i++) {
		for (uint32_t b = 0; b < BLOCKS; b++)
			l->ids[i][b] = i * BLOCKS + b;
		l->items[i] = (struct engine_copy_item){ .payload = i * (PAYLOAD + 4096) + 4096, .ids = l->ids[i] };
	}
}

static void large_close(struct large *l)
{
	HOST.pool_close(l->pool);
	HOST.region_close(l->region, 0);
	rig_memory_free(&l->memory);
	model_layout_free(l->layout);
	rig_stop(&l->rig);
}

static void large_copy(struct large *l, uint32_t number, bool store, uint32_t first_item, uint32_t n)
{
	rig_copy(&l->rig, number, store, l->layout, &l->pool, l->items + first_item, n, l->failed[number]);
}

static bool item_is_copied(const struct large *l, uint32_t item)
{
	for (uint32_t i = 0; i < LAYERS; i++)
		if (memcmp(l->rig.arena.bytes + l->items[item].payload + (uint64_t)i * BLOCKS * BLOCK,
			   l->memory.bytes + ((uint64_t)i * OBJECTS + item) * BLOCKS * BLOCK, BLOCKS * BLOCK) != 0)
			return false;
	return true;
}

START_TEST(a_cancelled_copy_starts_nothing_more_says_what_is_missing_and_is_done_once)
{
	static struct large l;
	uint32_t failed = 0;

	large_open(&l, 2);
	memset(l.memory.bytes, 0x11, l.memory.size);
	large_copy(&l, 0, true, 0, OBJECTS);
	for (int i = 0; i < _i * 8; i++)	/* at once, and after some of it has been told */
		rig_reap(&l.rig);
	HOST.cancel(l.rig.device, 0);
	HOST.cancel(l.rig.device, 0);		/* repeats do nothing */
	rig_wait(&l.rig);
	HOST.cancel(l.rig.device, 0);		/* nor does a late one */

	ck_assert_int_eq(l.rig.told[0].result, ENGINE_FAILED);
	for (uint32_t i = 0; i < OBJECTS; i++) {
		failed += l.failed[0][i];
		ck_assert(l.failed[0][i] || item_is_copied(&l, i));
	}
	ck_assert_uint_gt(failed, 0);
	ck_assert_uint_lt(l.rig.told[0].layers, LAYERS);
	memset(l.memory.bytes, 0x22, l.memory.size);	/* nobody reads it any more */
	ck_assert_ptr_null(memchr(l.rig.arena.bytes, 0x22, l.rig.arena.size));
	large_copy(&l, 0, true, 0, OBJECTS);		/* its number and place serve again */
	rig_wait(&l.rig);
	ck_assert_int_eq(l.rig.told[0].result, ENGINE_OK);
	large_close(&l);
}
END_TEST

START_TEST(a_cancel_that_comes_late_takes_nothing_back)
{
	static struct large l;

	large_open(&l, 1);
	rig_fill(&l.rig, l.memory.bytes, l.memory.size);
	rig_copy_layers(&l.rig, 0, true, l.layout, &l.pool, l.items, 0, l.failed[0], 0, LAYERS);	/* no items */
	HOST.cancel(l.rig.device, 0);
	rig_wait(&l.rig);
	ck_assert_int_eq(l.rig.told[0].result, ENGINE_OK);

	/* Wherever the cancel falls, failed[] and the result say the same, and it is true. */
	for (uint32_t wait = 0; wait < 40; wait++) {
		memset(l.rig.arena.bytes, 0, l.rig.arena.size);
		large_copy(&l, 1, true, 0, 1);
		for (uint32_t i = 0; i < wait && !l.rig.told[1].done; i++)
			rig_reap(&l.rig);
		HOST.cancel(l.rig.device, 1);
		rig_wait(&l.rig);
		ck_assert_uint_eq(l.failed[1][0], l.rig.told[1].result == ENGINE_FAILED);
		ck_assert_uint_eq(l.failed[1][0], !item_is_copied(&l, 0));
	}
	large_close(&l);
}
END_TEST

/* What was told of a copy's layers is there, at every look. Returns how many times something was told. */
static uint32_t watch_layers(struct large *l, uint32_t copy)
{
	large_copy(l, copy, true, 0, OBJECTS);
	while (l->rig.running) {
		rig_reap(&l->rig);
		for (uint32_t layer = 0; layer < l->rig.told[copy].layers; layer++)
			for (uint32_t i = 0; i < OBJECTS; i += 7)
				ck_assert(memcmp(l->rig.arena.bytes + l->items[i].payload + layer * BLOCKS * BLOCK,
						 l->memory.bytes + (layer * OBJECTS + i) * BLOCKS * BLOCK,
						 BLOCKS * BLOCK) == 0);
	}
	ck_assert_uint_eq(l->rig.told[copy].layers, LAYERS);
	return l->rig.told[copy].progress;
}

START_TEST(layers_are_told_as_they_become_whole)
{
	static struct large l;
	uint32_t told = 0;

	large_open(&l, 2);
	rig_fill(&l.rig, l.memory.bytes, l.memory.size);
	/* A machine that is busy elsewhere may let this thread look at the end only; not every time. */
	for (uint32_t copy = 0; copy < RIG_COPIES && told <= 1; copy++) {
		memset(l.rig.arena.bytes, 0, l.rig.arena.size);
		told = watch_layers(&l, copy);
	}
	ck_assert_uint_gt(told, 1);
	large_close(&l);
}
END_TEST

static uint32_t place_in_order(const struct rig *rig, uint32_t number)
{
	for (uint32_t i = 0; i < rig->n_order; i++)
		if (rig->order[i] == number)
			return i;
	ck_abort_msg("%u was never told", number);
	return 0;
}

START_TEST(a_large_copy_does_not_hold_up_a_small_one_that_comes_after_it)
{
	static struct large l;

	large_open(&l, 1);
	for (uint32_t store = 0; store < 2; store++) {
		l.rig.n_order = 0;
		large_copy(&l, 0, store, 0, OBJECTS - 1);
		large_copy(&l, 1, store, OBJECTS - 1, 1);
		rig_wait(&l.rig);
		ck_assert_uint_lt(place_in_order(&l.rig, 1), place_in_order(&l.rig, 0));
	}
	large_close(&l);
}
END_TEST

START_TEST(what_somebody_waits_for_goes_first)
{
	static struct large l;
	struct engine_check check = { .io = 5, .arena = { .tier = ENGINE_NONE, .bytes = PAYLOAD + 4096 } };
	const struct image_identity identity = { .payload_bytes = PAYLOAD };

	large_open(&l, 1);
	ck_assert_int_eq(device_check(l.rig.device, true, &check, &identity), 0);
	large_copy(&l, 1, true, 8, 1);		/* store */
	large_copy(&l, 2, false, 9, 1);		/* retrieve */
	rig_wait(&l.rig);
	while (!l.rig.checks)
		rig_reap(&l.rig);
	ck_assert_uint_lt(place_in_order(&l.rig, 2), place_in_order(&l.rig, 1));
	ck_assert_uint_lt(place_in_order(&l.rig, 1), place_in_order(&l.rig, 1005));

	l.rig.n_order = l.rig.checks = 0;	/* a verify stands between the two */
	large_copy(&l, 1, true, 1, 11);
	ck_assert_int_eq(device_check(l.rig.device, false, &check, &identity), 0);
	large_copy(&l, 2, false, 12, 1);
	rig_wait(&l.rig);
	while (!l.rig.checks)
		rig_reap(&l.rig);
	ck_assert_uint_lt(place_in_order(&l.rig, 2), place_in_order(&l.rig, 1));
	ck_assert_uint_lt(place_in_order(&l.rig, 1005), place_in_order(&l.rig, 1));
	large_close(&l);
}
END_TEST

START_TEST(many_copies_both_ways_at_once_end_right_and_one_too_many_is_told_to_come_back)
{
	static struct large l;
	struct device_copy extra = { .request = { .copy = 999, .n_items = 0 }, .pools = &l.pool };

	large_open(&l, 2);
	rig_fill(&l.rig, l.memory.bytes, l.memory.size);
	large_copy(&l, 0, true, 0, OBJECTS);
	rig_wait(&l.rig);
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < RIG_COPIES; i++)	/* half of an object's layers each */
			rig_copy_layers(&l.rig, i, i / 2 % 2, l.layout, &l.pool, &l.items[i / 2], 1, l.failed[i],
					i % 2 * LAYERS / 2, (i % 2 + 1) * LAYERS / 2);
		extra.layout = l.layout;
		ck_assert_int_eq(HOST.copy(l.rig.device, &extra), -EAGAIN);
		rig_wait(&l.rig);
		for (uint32_t i = 0; i < RIG_COPIES; i++)
			ck_assert_int_eq(l.rig.told[i].result, ENGINE_OK);
	}
	for (uint32_t i = 0; i < OBJECTS; i++)
		ck_assert(item_is_copied(&l, i));
	large_close(&l);
}
END_TEST

START_TEST(an_item_whose_pool_is_gone_fails_and_the_others_are_copied)
{
	static struct large l;
	struct device_pool *pools[3] = { NULL, NULL, NULL };

	large_open(&l, 1);
	rig_fill(&l.rig, l.memory.bytes, l.memory.size);
	pools[2] = l.pool;
	for (uint32_t i = 0; i < 4; i++)
		l.items[i].pool = i % 2 ? 2 : 0;
	l.items[3].part = 1;		/* and one of a part that its pool is not for */
	rig_copy(&l.rig, 0, true, l.layout, pools, l.items, 4, l.failed[0]);
	rig_wait(&l.rig);
	ck_assert_int_eq(l.rig.told[0].result, ENGINE_FAILED);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_uint_eq(l.failed[0][i], i != 1);
	ck_assert(item_is_copied(&l, 1));
	ck_assert_uint_eq(l.rig.deaths, 0);
	large_close(&l);
}
END_TEST

START_TEST(seals_and_verifies_are_answered_each_once_with_the_payloads_checksum)
{
	static struct large l;
	const struct image_identity identity = { .model_digest = "digest", .payload_bytes = PAYLOAD };
	struct engine_check check = { .arena = { .tier = ENGINE_NONE, .bytes = PAYLOAD + 4096 } };

	large_open(&l, 2);
	rig_fill(&l.rig, l.rig.arena.bytes, l.rig.arena.size / 16);
	for (uint32_t i = 0; i < OBJECTS; i++) {
		const uint8_t *payload = l.rig.arena.bytes + l.items[i].payload;

		check.io = 100 + i;
		check.arena.unit = (uint32_t)((l.items[i].payload - 4096) / 4096);
		check.object = (struct engine_object){ .key = { { i } }, .tokens = 256 };
		for (int seal = 1; seal >= 0; seal--) {
			l.rig.checks = 0;
			ck_assert_int_eq(device_check(l.rig.device, seal, &check, &identity), 0);
			while (!l.rig.checks)
				rig_reap(&l.rig);
			ck_assert_int_eq(l.rig.checked.result, ENGINE_OK);
			ck_assert_uint_eq(l.rig.checked.copy, 100 + i);
			ck_assert_uint_eq(l.rig.checked.checksum, XXH3_64bits(payload, PAYLOAD));
			check.object.checksum = l.rig.checked.checksum;
		}
		l.rig.arena.bytes[l.items[i].payload + PAYLOAD - 1] ^= 1;
		l.rig.checks = 0;
		ck_assert_int_eq(device_check(l.rig.device, false, &check, &identity), 0);
		while (!l.rig.checks)
			rig_reap(&l.rig);
		ck_assert_int_eq(l.rig.checked.result, ENGINE_CORRUPT);
	}
	large_close(&l);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("device-host");
	TCase *copies = tcase_create("copies");

	tcase_set_timeout(copies, 120);
	tcase_add_loop_test(copies, every_byte_of_a_store_and_of_a_retrieve_arrives_and_no_other_changes, 0, SEEDS);
	tcase_add_loop_test(copies, a_layer_range_moves_those_layers_alone, 0, SEEDS / 4);
	tcase_add_loop_test(copies, a_cancelled_copy_starts_nothing_more_says_what_is_missing_and_is_done_once, 0, 4);
	tcase_add_test(copies, a_cancel_that_comes_late_takes_nothing_back);
	tcase_add_test(copies, layers_are_told_as_they_become_whole);
	tcase_add_test(copies, a_large_copy_does_not_hold_up_a_small_one_that_comes_after_it);
	tcase_add_test(copies, what_somebody_waits_for_goes_first);
	tcase_add_test(copies, many_copies_both_ways_at_once_end_right_and_one_too_many_is_told_to_come_back);
	tcase_add_test(copies, an_item_whose_pool_is_gone_fails_and_the_others_are_copied);
	tcase_add_test(copies, seals_and_verifies_are_answered_each_once_with_the_payloads_checksum);
	suite_add_tcase(s, copies);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
