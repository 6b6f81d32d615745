/* See copier-plain.h. */
#include "tests/copier-plain.h"

#include <check.h>
#include <poll.h>

#include "tests/fake-cuda/rig.h"

const uint32_t plain_ids[16] = { 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15 };

int plain_pool(struct copier_rig *c, uint32_t number, uint32_t region)
{
	struct {
		struct wire_pool pool;
		struct wire_row rows[PLAIN_LAYERS];
	} m = { .pool = { .header = { WIRE_POOL, sizeof(m) }, .pool = number, .blocks = PLAIN_BLOCKS, .n_blocks = 16,
			  .n_rows = PLAIN_LAYERS, .n_layers = PLAIN_LAYERS, .payload_bytes = PLAIN_PAYLOAD } };

	for (uint32_t i = 0; i < PLAIN_LAYERS; i++)
		m.rows[i] = (struct wire_row){ .payload = i * PLAIN_BLOCKS * PLAIN_BYTES, .block_bytes = PLAIN_BYTES,
			.offset = i * 16 * PLAIN_BYTES, .block_stride = PLAIN_BYTES, .run_stride = PLAIN_BYTES, .runs = 1,
			.run_bytes = PLAIN_BYTES, .region = region, .layer = i };
	ck_assert_int_eq(wire_send(c->control, true, &m, NULL, 0), 0);
	return copier_answer(c, WIRE_POOL, number).result;
}

struct worker plain_open(struct copier_rig *c, bool vmm)
{
	struct worker worker = worker_start(PLAIN_REGION_BYTES, vmm);

	copier_start(c);
	ck_assert_msg(c->up.result == 0, "%s", c->up.why);
	copier_extents(c, RIG_EXTENTS);
	ck_assert_int_eq(copier_region(c, &worker, 0), 0);
	ck_assert_int_eq(plain_pool(c, 0, 0), 0);
	return worker;
}

void plain_close(struct copier_rig *c, struct worker *worker)
{
	if (!c->gone) {
		ck_assert_int_eq(copier_number(c, WIRE_POOL_CLOSE, 0), 0);
		ck_assert_int_eq(copier_number(c, WIRE_REGION_CLOSE, 0), 0);
	}
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	worker_free(worker);
	copier_free(c);
}

void plain_copy(struct copier_rig *c, uint32_t copy, bool store, uint32_t slot, uint32_t n)
{
	struct copier_item items[RIG_ITEMS_MAX];

	ck_assert(store || n <= 2);		/* more would write the same blocks, in no order */
	for (uint32_t i = 0; i < n; i++)
		items[i] = (struct copier_item){ (slot + i) % 8 * (uint64_t)PLAIN_PAYLOAD, 0, PLAIN_BLOCKS,
						 plain_ids + i % 2 * PLAIN_BLOCKS };
	copier_copy(c, copy, store, 0, UINT16_MAX, items, n);
}

uint64_t plain_calls(enum fake_call call)
{
	return atomic_load(&rig_control->calls[call]);
}

void plain_wait_for_batches(uint64_t n)
{
	while (plain_calls(FAKE_CALL_copy_batch_13) < PLAIN_TRIALS + n)
		poll(NULL, 0, 1);
}

void plain_let_turn(struct copier_rig *c, uint64_t turns)
{
	const uint64_t end = atomic_load(&c->segment->beats) + turns;

	while (atomic_load(&c->segment->beats) < end)
		poll(NULL, 0, 1);
}
