/*
 * The bytes themselves: between an object's payload in the arena and its blocks in a pool.
 *
 * A payload is layer-major: row after row, in a row block after block. A range of it is walked in that
 * order; blocks that are neighbours on both sides are one memcpy, which matters for pools whose
 * block is a single token. Runs by helper threads, on memory that a client may change or take away at
 * any instant: what was copied is bytes and is never interpreted; whether memory was there is asked
 * after the copy (src/device/guard.h).
 */
#include "src/device/pool.h"

#include <string.h>

static void move_run(const struct pool_row *row, uint8_t *pool, bool store, uint8_t *payload, uint64_t bytes)
{
	if (store) {
		memcpy(payload, pool, bytes);
		return;
	}
	region_enter(row->region, pool, bytes);
	memcpy(pool, payload, bytes);
}

/* @bytes of the blocks from @id on, @skip bytes into the first: one block, or neighbours if dense. */
static void move_blocks(const struct pool_row *row, bool store, uint8_t *payload, uint32_t id, uint64_t skip,
			uint64_t bytes)
{
	uint8_t *block = row->base + id * row->block_stride;

	if (row->runs == 1) {
		move_run(row, block + skip, store, payload, bytes);
		return;
	}
	uint64_t run = skip / row->run_bytes, in = skip % row->run_bytes;
	while (bytes) {
		const uint64_t n = bytes < row->run_bytes - in ? bytes : row->run_bytes - in;

		move_run(row, block + run * row->run_stride + in, store, payload, n);
		payload += n;
		bytes -= n;
		run++;
		in = 0;
	}
}

/* How many ids from ids[0] on count up by one: at least 1, at most @max and @max_ids. */
static uint32_t neighbours(const uint32_t *ids, uint32_t max, uint32_t max_ids)
{
	const uint32_t most = max < max_ids ? max : max_ids;
	uint32_t n = 1;

	while (n < most && ids[n] == ids[0] + n)
		n++;
	return n;
}

/* Bytes [from, to) of a row's run. False: an id is none of the pool's. */
static bool move_row(const struct device_pool *pool, const struct pool_row *row, bool store, uint8_t *payload,
		     const uint32_t *ids, uint64_t from, uint64_t to)
{
	const uint32_t whole_end = (uint32_t)(to / row->block_bytes);	/* blocks from here on are cut off */
	uint32_t block = (uint32_t)(from / row->block_bytes);
	uint64_t skip = from % row->block_bytes;

	while (from < to) {
		const uint32_t id = ids[block];
		uint32_t n = 1;

		if (id != STOKER_NO_BLOCK && id >= pool->n_blocks)
			return false;
		if (row->dense && !skip && id != STOKER_NO_BLOCK && block < whole_end)
			n = neighbours(ids + block, whole_end - block, pool->n_blocks - id);

		const uint64_t left = to - from, run = n * row->block_bytes - skip;
		const uint64_t bytes = run < left ? run : left;

		if (id != STOKER_NO_BLOCK)
			move_blocks(row, store, payload + from, id, skip, bytes);
		else if (store)
			memset(payload + from, 0, bytes);	/* a short last chunk has no block there */
		from += bytes;
		block += n;
		skip = 0;
	}
	return true;
}

static bool has_faulted(const struct pool_row *row)
{
	return atomic_load_explicit(&row->region->faulted, memory_order_acquire);
}

bool pool_copy(const struct device_pool *pool, bool store, uint8_t *payload, const uint32_t *ids, uint32_t layer,
	       uint64_t from, uint64_t bytes)
{
	uint64_t at = pool->layers[layer].payload + from;
	const uint64_t end = at + bytes;

	for (uint32_t i = pool->layers[layer].row; at < end; i++) {
		const struct pool_row *row = &pool->rows[i];
		const uint64_t row_end = row->payload + pool->blocks * row->block_bytes;
		const uint64_t stop = row_end < end ? row_end : end;

		if (at >= stop)
			continue;
		if (has_faulted(row) || !move_row(pool, row, store, payload + row->payload, ids, at - row->payload,
						  stop - row->payload) || has_faulted(row))
			return false;
		at = stop;
	}
	return true;
}
