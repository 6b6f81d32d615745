/*
 * The copier process on the fake driver: what it copies is held against the host backend's pool_copy() byte for
 * byte, in every way that it has; what it imports is given back; and whatever fails costs what it must, and no more.
 * The fake aborts where CUDA leaves a thing undefined, and a test fails on that (rig_teardown).
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/device/region.h"
#include "tests/copier-plain.h"
#include "tests/fake-cuda/rig.h"
#include "tests/pool-draw.h"
#include "tests/suite.h"

#define SLOTS		15u
#define SLOT_BYTES	(256u << 10)	/* an object's room in the arena, across two extents */
#define SLOT_FIRST	(100u << 10)

/** struct world - a copier with the memory of two workers, and the same as the host backend sees it. */
struct world {
	struct copier_rig copier;
	struct worker workers[2];
	struct rig random;			/* its seed alone */
	struct rig_memory mirrors[2];
	struct device_region *regions[2];
	uint8_t *arena;				/* as copier.arena should be */
	struct drawn_pool drawn;
	uint32_t pools;				/* added so far; the last one is `drawn` */
	bool used[64];				/* block ids of this round */
	uint64_t slots[SLOTS];			/* places of this round, shuffled */
	uint32_t n_slots;
};

static struct device_region *open_mirror(const struct rig_memory *memory)
{
	const struct message_region_add message = { .kind = MESSAGE_REGION_HOST, .n_fds = 1,
						    .ranges = { { 0, memory->size } } };
	const struct region_rules rules = { .bytes_max = 1u << 30 };
	struct device_region *region;
	char why[MESSAGE_REASON] = "";

	ck_assert_msg(region_open(&rules, &message, &memory->fd, why, &region) == 0, "%s", why);
	return region;
}

static void fill_all(struct world *w)
{
	rig_fill(&w->random, w->arena, RIG_ARENA_BYTES);
	memcpy(w->copier.arena, w->arena, RIG_ARENA_BYTES);
	for (uint32_t i = 0; i < 2; i++) {
		rig_fill(&w->random, w->mirrors[i].bytes, DRAW_REGION_BYTES);
		memcpy(w->workers[i].window, w->mirrors[i].bytes, DRAW_REGION_BYTES);
		worker_upload(&w->workers[i]);
	}
}

/* After copier_make(): workers, their regions (0 and 1), memory with random bytes. */
static void world_open(struct world *w, uint64_t seed)
{
	memset(&w->random, 0, sizeof(w->random));
	w->random.seed = seed;
	for (uint32_t i = 0; i < 2; i++)
		w->workers[i] = worker_start(DRAW_REGION_BYTES, i == seed % 2);
	copier_start(&w->copier);
	ck_assert_msg(w->copier.up.result == 0, "%s", w->copier.up.why);
	w->arena = malloc(RIG_ARENA_BYTES);
	ck_assert_ptr_nonnull(w->arena);
	for (uint32_t i = 0; i < 2; i++) {
		w->mirrors[i] = rig_memory(DRAW_REGION_BYTES, true);
		w->regions[i] = open_mirror(&w->mirrors[i]);
		ck_assert_int_eq(copier_region(&w->copier, &w->workers[i], i), 0);
	}
	fill_all(w);
	w->pools = 0;
}

static void world_pool(struct world *w)
{
	if (w->pools) {
		ck_assert_int_eq(copier_number(&w->copier, WIRE_POOL_CLOSE, w->pools - 1), 0);
		pool_drawn_free(&w->drawn);
	}
	w->drawn = pool_draw(&w->random, w->regions, true);
	ck_assert_int_eq(copier_pool(&w->copier, w->pools++, w->drawn.pool, w->drawn.layout->parts[0].payload_bytes,
				     w->regions, 2), 0);
}

/* All is given back: no import is left, and workers free their memory without a word of the fake's. */
static void world_close(struct world *w)
{
	if (w->pools && !w->copier.gone)
		ck_assert_int_eq(copier_number(&w->copier, WIRE_POOL_CLOSE, w->pools - 1), 0);
	for (uint32_t i = 0; i < 2 && !w->copier.gone; i++)
		ck_assert_int_eq(copier_number(&w->copier, WIRE_REGION_CLOSE, i), 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, w->copier.gone ? 0 : w->copier.pid), 0);
	if (w->pools)
		pool_drawn_free(&w->drawn);
	for (uint32_t i = 0; i < 2; i++) {
		region_close(w->regions[i]);
		rig_memory_free(&w->mirrors[i]);
		worker_free(&w->workers[i]);
	}
	copier_free(&w->copier);
	free(w->arena);
}

static void new_round(struct world *w)
{
	memset(w->used, 0, sizeof(w->used));
	w->n_slots = SLOTS;
	for (uint32_t i = 0; i < SLOTS; i++)
		w->slots[i] = SLOT_FIRST + (uint64_t)i * SLOT_BYTES;
}

static uint64_t draw_place(struct world *w)
{
	const uint64_t payload_bytes = w->drawn.layout->parts[0].payload_bytes;
	const uint32_t i = rig_below(&w->random, w->n_slots);
	const uint64_t slot = w->slots[i];

	ck_assert_uint_le(payload_bytes, SLOT_BYTES);
	w->slots[i] = w->slots[--w->n_slots];
	return slot + (rig_below(&w->random, (uint32_t)(SLOT_BYTES - payload_bytes) + 1) & ~7u);
}

/* Ask the copier for a random copy, and do at once what it should do. Items without a pool now and then. */
static void copy_at_random(struct world *w, uint32_t number, bool store, bool whole)
{
	const struct device_pool *pool = w->drawn.pool;
	const uint32_t n = 1 + rig_below(&w->random, 3);
	const uint32_t first = whole ? 0 : rig_below(&w->random, pool->n_layers);
	const uint32_t end = whole ? UINT16_MAX : first + 1 + rig_below(&w->random, pool->n_layers);
	uint32_t ids[3][DRAW_BLOCKS_MAX];
	struct copier_item items[3];

	for (uint32_t i = 0; i < n; i++) {
		const bool lost = !whole && !rig_below(&w->random, 8);

		ids_draw(&w->random, pool, w->used, ids[i]);
		items[i] = (struct copier_item){ draw_place(w), lost ? WIRE_NO_POOL : w->pools - 1, pool->blocks, ids[i] };
		for (uint32_t layer = first; layer < end && layer < pool->n_layers && !lost; layer++)
			ck_assert(pool_copy(pool, store, w->arena + items[i].payload, ids[i], layer, 0,
					    pool_layer_bytes(pool, layer)));
	}
	copier_copy(&w->copier, number, store, first, end, items, n);
	for (uint32_t i = 0; i < n; i++)	/* heard of at DONE */
		w->copier.copies[number].expected[i] = items[i].pool == WIRE_NO_POOL;
}

static void compare(struct world *w)
{
	ck_assert(memcmp(w->arena, w->copier.arena, RIG_ARENA_BYTES) == 0);
	for (uint32_t i = 0; i < 2; i++) {
		worker_download(&w->workers[i]);
		ck_assert(memcmp(w->workers[i].window, w->mirrors[i].bytes, DRAW_REGION_BYTES) == 0);
	}
}

/* Some copies each way at once, several times over, on pools of random models. */
static void copy_and_compare(struct world *w, uint32_t pools)
{
	for (uint32_t p = 0; p < pools; p++) {
		world_pool(w);
		for (uint32_t round = 0; round < 3; round++) {
			const uint32_t n = 1 + rig_below(&w->random, 4);

			new_round(w);
			for (uint32_t i = 0; i < n; i++)
				copy_at_random(w, i, rig_below(&w->random, 2), false);
			for (uint32_t i = 0; i < n; i++)
				copier_wait(&w->copier, i);
			ck_assert_msg(!w->copier.gone, "%s", w->copier.fatal.why);
			for (uint32_t i = 0; i < n; i++)
				ck_assert(memcmp(w->copier.copies[i].failed, w->copier.copies[i].expected, RIG_ITEMS_MAX) == 0);
			compare(w);
		}
	}
}

/* ---- bytes --------------------------------------------------------------------------------------- */

/* Drivers and devices that make the copier take each of its ways. */
static const struct { const char *name, *value, *how; uint32_t extents; } ways[] = {
	{ "FAKE_CUDA_VERSION", "13000", "batched copies (CUDA 13)", RIG_EXTENTS },
	{ "FAKE_CUDA_VERSION", "12080", "batched copies (CUDA 12.8)", RIG_EXTENTS },
	{ "FAKE_CUDA_VERSION", "12000", "a copy for each run", RIG_EXTENTS },
	{ "FAKE_CUDA_LACKS", "batch", "batched copies do not work here", RIG_EXTENTS },	/* there, and not supported */
	{ "FAKE_CUDA_FAIL", "cuMemcpyBatchAsync_v2:2:1", "batched copies do not work here", RIG_EXTENTS },	/* stores' */
	{ "FAKE_CUDA_FAIL", "cuMemcpyBatchAsync_v2:4:1", "batched copies (CUDA 13)", RIG_EXTENTS },	/* after the trial */
	{ "FAKE_CUDA_LACKS", "stream-values", "polled events", RIG_EXTENTS },
	{ "FAKE_CUDA_VERSION", "11040", "polled events", RIG_EXTENTS },
	{ "FAKE_CUDA_FAIL", "cuMemHostRegister:2:801", "polled events", RIG_EXTENTS },	/* of the words */
	{ "FAKE_CUDA_FAIL", "cuMemHostGetDevicePointer:1:801", "polled events", RIG_EXTENTS },
	{ "FAKE_CUDA_FAIL", "cuStreamWriteValue32:1:801", "polled events", RIG_EXTENTS },
	{ "FAKE_CUDA_MISSING", "cuMemcpyBatchAsync", "a copy for each run", RIG_EXTENTS },
	{ "FAKE_CUDA_VERSION", "13000", "stream-ordered writes", 0 },		/* all through the bounce buffer */
	{ "FAKE_CUDA_VERSION", "12000", "stream-ordered writes", RIG_EXTENTS / 2 },
};
#define WAYS ((int)(sizeof(ways) / sizeof(ways[0])))

START_TEST(what_is_copied_is_what_the_host_backend_copies)
{
	static struct world w;
	char seed[16];

	snprintf(seed, sizeof(seed), "%d", _i + 1);
	setenv("FAKE_CUDA_SEED", seed, 1);
	setenv(ways[_i % WAYS].name, ways[_i % WAYS].value, 1);
	copier_make(&w.copier);
	/* Slices of every size, down to less than a block. */
	w.copier.start.slice_bytes = 4096u << _i % 7;
	world_open(&w, (uint64_t)_i + 1);
	ck_assert_msg(strstr(w.copier.up.how, ways[_i % WAYS].how) != NULL, "%s", w.copier.up.how);
	if (ways[_i % WAYS].extents)
		copier_extents(&w.copier, ways[_i % WAYS].extents);
	copy_and_compare(&w, 8);
	world_close(&w);
}
END_TEST

START_TEST(extents_that_cannot_be_registered_go_through_the_bounce_buffer_and_are_counted)
{
	static struct world w;

	/* The bounce buffer, a page for words, and five of sixteen extents. */
	setenv("FAKE_CUDA_PIN_MAX", "1576960", 1);
	copier_make(&w.copier);
	world_open(&w, 7);
	copier_extents(&w.copier, 5);
	for (uint32_t i = 5; i < RIG_EXTENTS; i++)
		ck_assert_int_eq(wire_send(w.copier.control, true, &(struct wire_number){
			.header = { WIRE_EXTENT, sizeof(struct wire_number) }, .number = i }, NULL, 0), 0);
	copy_and_compare(&w, 6);
	while (w.copier.figures.bounced_bytes == 0)
		copier_hear(&w.copier);
	ck_assert_uint_eq(w.copier.figures.registered_bytes, 5 * RIG_EXTENT_BYTES);
	world_close(&w);
}
END_TEST

START_TEST(extents_are_registered_while_copies_go_on)
{
	static struct world w;

	copier_make(&w.copier);
	world_open(&w, 8);
	world_pool(&w);
	for (uint32_t i = 0; i < RIG_EXTENTS; i++) {
		ck_assert_int_eq(wire_send(w.copier.control, true, &(struct wire_number){
			.header = { WIRE_EXTENT, sizeof(struct wire_number) }, .number = i }, NULL, 0), 0);
		new_round(&w);
		copy_at_random(&w, i, i % 2, true);
		copier_wait(&w.copier, i);
		compare(&w);
	}
	world_close(&w);
}
END_TEST

/* ---- order --------------------------------------------------------------------------------------- */

START_TEST(done_comes_only_after_the_streams_have_run)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	worker = plain_open(&c, false);
	for (uint32_t i = 0; i < 8; i++) {
		const bool store = i % 2;

		memset(c.arena, store ? 0 : 'a', PLAIN_PAYLOAD);
		memset(worker.window, 's', worker.bytes);
		worker_upload(&worker);
		atomic_store(&rig_control->hold, 1);
		const uint64_t before = plain_calls(FAKE_CALL_copy_batch_13);

		plain_copy(&c, i, store, 0, 1);
		plain_wait_for_batches(before + 1);
		plain_let_turn(&c, 200);
		ck_assert(shared_queue_is_empty(wire_events(c.segment)));
		atomic_store(&rig_control->hold, 0);
		copier_wait(&c, i);
		ck_assert_uint_eq(c.copies[i].result, ENGINE_OK);
		/* The first thing that is looked at after DONE is the last thing that can have been copied. */
		if (store) {
			expect(c.arena[PLAIN_PAYLOAD - 1] == 's' && c.arena[0] == 's');
			for (uint32_t k = 0; k < PLAIN_PAYLOAD; k++)
				expect(c.arena[k] == 's');
		} else {
			worker_download(&worker);
			for (uint32_t k = 0; k < 16 * PLAIN_LAYERS; k++)
				expect(worker.window[k * PLAIN_BYTES] == (k % 2 ? 's' : 'a'));
		}
	}
	plain_close(&c, &worker);
}
END_TEST

/* What is stored is taken at once by somebody else: bytes that come after DONE would destroy theirs. */
START_TEST(nobody_touches_the_arena_after_done)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	c.start.slice_bytes = 16384;
	worker = plain_open(&c, true);
	memset(worker.window, 's', worker.bytes);
	worker_upload(&worker);
	for (uint32_t i = 0; i < 40; i++) {
		plain_copy(&c, i, true, 0, 1);
		if (i % 3 == 0)
			copier_cancel(&c, i);
		copier_wait(&c, i);
		memset(c.arena, (int)i, PLAIN_PAYLOAD);
		plain_copy(&c, i + 1, false, 4, 1);	/* turns of the loop, and of the fake's thread */
		copier_wait(&c, i + 1);
		i++;
		for (uint32_t k = 0; k < PLAIN_PAYLOAD; k++)
			expect(c.arena[k] == (uint8_t)(i - 1));
	}
	plain_close(&c, &worker);
}
END_TEST

START_TEST(a_load_is_told_layer_by_layer)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	c.start.slice_bytes = PLAIN_BLOCKS * PLAIN_BYTES;
	c.start.streams_load = 1;
	worker = plain_open(&c, false);
	memset(c.arena, 'x', RIG_ARENA_BYTES);
	plain_copy(&c, 0, false, 0, 2);
	while (!c.copies[0].done) {
		const uint32_t layers = c.copies[0].layers;

		copier_hear(&c);
		if (c.copies[0].layers == layers)
			continue;
		worker_download(&worker);
		for (uint32_t k = 0; k < c.copies[0].layers * 16; k++)
			expect(worker.window[k * PLAIN_BYTES] == 'x');
	}
	ck_assert_uint_eq(c.copies[0].layers, PLAIN_LAYERS);
	ck_assert_uint_gt(c.copies[0].progress, 1);
	plain_close(&c, &worker);
}
END_TEST

START_TEST(a_load_waits_for_few_slices_of_a_store)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	c.start.slice_bytes = 65536;
	worker = plain_open(&c, false);
	atomic_store(&rig_control->hold, 1);
	plain_copy(&c, 0, true, 0, 8);		/* 64 slices */
	plain_wait_for_batches(4);
	plain_let_turn(&c, 100);
	ck_assert_uint_eq(plain_calls(FAKE_CALL_copy_batch_13), PLAIN_TRIALS + 4);	/* two streams of stores, two slices each */
	plain_copy(&c, 1, false, 0, 1);
	plain_wait_for_batches(5);			/* though the store is not over */
	atomic_store(&rig_control->hold, 0);
	copier_wait(&c, 0);
	copier_wait(&c, 1);
	ck_assert_uint_eq(c.order[0], 1);
	plain_close(&c, &worker);
}
END_TEST

START_TEST(what_has_not_been_issued_is_not_copied_after_a_cancel)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	c.start.slice_bytes = 65536;
	c.start.streams_store = 1;
	worker = plain_open(&c, false);
	memset(worker.window, 's', worker.bytes);
	worker_upload(&worker);
	memset(c.arena, 'a', RIG_ARENA_BYTES);
	atomic_store(&rig_control->hold, 1);
	plain_copy(&c, 0, true, 0, 8);
	plain_wait_for_batches(2);
	copier_cancel(&c, 0);
	copier_cancel(&c, 63);			/* there is no such copy: nothing happens */
	plain_let_turn(&c, 100);
	ck_assert(!c.copies[0].done && shared_queue_is_empty(wire_events(c.segment)));	/* two slices are under way */
	atomic_store(&rig_control->hold, 0);
	copier_wait(&c, 0);
	ck_assert_uint_eq(c.copies[0].result, ENGINE_FAILED);
	ck_assert_uint_eq(c.copies[0].n_failed, 8);
	ck_assert_uint_eq(plain_calls(FAKE_CALL_copy_batch_13), PLAIN_TRIALS + 2);
	for (uint32_t k = 65536 / PLAIN_LAYERS; k < PLAIN_PAYLOAD; k++)
		expect(c.arena[k] == 'a' || k < 65536);
	plain_close(&c, &worker);
}
END_TEST

/* ---- what is wrong in a copy --------------------------------------------------------------------- */

START_TEST(items_that_cannot_be_right_fail_and_no_others)
{
	static const uint32_t bad_ids[8] = { 0, 1, 2, 3, 16, 5, 6, 7 };
	const struct copier_item items[] = {
		{ 0, 0, 8, plain_ids }, { PLAIN_PAYLOAD, WIRE_NO_POOL, 8, plain_ids }, { PLAIN_PAYLOAD, 99, 8, plain_ids },
		{ PLAIN_PAYLOAD, 0, 7, plain_ids }, { PLAIN_PAYLOAD, 0, 8, bad_ids }, { PLAIN_PAYLOAD, 0, 0, plain_ids },
		{ RIG_ARENA_BYTES - PLAIN_PAYLOAD + 8, 0, 8, plain_ids }, { UINT64_MAX - 7, 0, 8, plain_ids },
		{ 2 * PLAIN_PAYLOAD, 0, 8, plain_ids + 8 },
	};
	static const uint8_t failed[RIG_ITEMS_MAX] = { 0, 1, 1, 1, 1, 1, 1, 1, 0 };
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	worker = plain_open(&c, false);
	memset(worker.window, 's', worker.bytes);
	worker_upload(&worker);
	copier_copy(&c, 0, true, 0, UINT16_MAX, items, 9);
	copier_copy(&c, 1, true, 0, UINT16_MAX, items + 1, 1);
	copier_copy(&c, 2, true, 9, 10, items, 1);		/* layers that nobody has */
	copier_copy(&c, 3, true, 9, 10, items, 2);		/* that the one without a pool may have had */
	for (uint32_t i = 0; i < 4; i++)
		copier_wait(&c, i);
	ck_assert(memcmp(c.copies[0].failed, failed, sizeof(failed)) == 0);
	ck_assert_uint_eq(c.copies[1].n_failed, 1);
	ck_assert_uint_eq(c.copies[2].result, ENGINE_OK);
	ck_assert_uint_eq(c.copies[3].n_failed, 1);
	ck_assert_uint_eq(c.copies[3].failed[1], 1);
	for (uint32_t k = 0; k < PLAIN_PAYLOAD; k++)
		expect(c.arena[k] == 's' && c.arena[2 * PLAIN_PAYLOAD + k] == 's');
	plain_close(&c, &worker);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cuda-copier");
	TCase *bytes = tcase_create("bytes"), *order = tcase_create("order");

	if (!rig_library()) {
		printf("1..0 # SKIP this build has no fake driver (--disable-shared)\n");
		return 0;
	}
	for (TCase **t = (TCase *[]){ bytes, order, NULL }; *t; t++) {
		tcase_add_checked_fixture(*t, rig_setup, rig_teardown);
		tcase_set_timeout(*t, 120);
		suite_add_tcase(suite, *t);
	}
	tcase_add_loop_test(bytes, what_is_copied_is_what_the_host_backend_copies, 0, 2 * WAYS);
	tcase_add_test(bytes, extents_that_cannot_be_registered_go_through_the_bounce_buffer_and_are_counted);
	tcase_add_test(bytes, extents_are_registered_while_copies_go_on);
	tcase_add_test(bytes, items_that_cannot_be_right_fail_and_no_others);
	tcase_add_test(order, done_comes_only_after_the_streams_have_run);
	tcase_add_test(order, nobody_touches_the_arena_after_done);
	tcase_add_test(order, a_load_is_told_layer_by_layer);
	tcase_add_test(order, a_load_waits_for_few_slices_of_a_store);
	tcase_add_test(order, what_has_not_been_issued_is_not_copied_after_a_cancel);
	return suite_run(suite);
}
