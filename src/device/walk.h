/*
 * The walk through a payload: where each of its bytes lies in a pool.
 *
 * A payload is layer-major: row after row, in a row block after block. A range of it is walked in that
 * order and handed to a sink as runs; blocks that are neighbours in the payload and in the pool are one
 * run, which matters for pools whose block is a single token. The host backend's sink copies (move.c), a
 * copier's writes down what is to be copied (cuda/plan.c): both by this one walk, inlined with the sink's
 * functions so that the host pays nothing for it.
 */
#ifndef STOKER_DEVICE_WALK_H
#define STOKER_DEVICE_WALK_H

#include "src/device/pool.h"

/** struct walk_sink - what is done with the walk's runs; @at is an offset from the row's base. */
struct walk_sink {
	void (*run)(void *to, const struct pool_row *row, uint64_t at, uint64_t payload, uint64_t bytes);
	/* A store of a short last chunk: no block is there, and the payload gets zeros. */
	void (*hole)(void *to, uint64_t payload, uint64_t bytes);
	/* Asked before and after each row: is its memory gone? */
	bool (*gone)(const struct pool_row *row);
};

/* @bytes of the blocks from @id on, @skip bytes into the first: one block, or neighbours if dense. */
static inline __attribute__((always_inline))
void walk_blocks(const struct walk_sink *sink, void *to, const struct pool_row *row, uint64_t payload, uint32_t id,
		 uint64_t skip, uint64_t bytes)
{
	const uint64_t block = id * row->block_stride;

	if (row->runs == 1) {
		sink->run(to, row, block + skip, payload, bytes);
		return;
	}
	uint64_t run = skip / row->run_bytes, in = skip % row->run_bytes;
	while (bytes) {
		const uint64_t n = bytes < row->run_bytes - in ? bytes : row->run_bytes - in;

		sink->run(to, row, block + run * row->run_stride + in, payload, n);
		payload += n;
		bytes -= n;
		run++;
		in = 0;
	}
}

/* How many ids from ids[0] on count up by one: at least 1, at most @max and @max_ids. */
static inline uint32_t walk_neighbours(const uint32_t *ids, uint32_t max, uint32_t max_ids)
{
	const uint32_t most = max < max_ids ? max : max_ids;
	uint32_t n = 1;

	while (n < most && ids[n] == ids[0] + n)
		n++;
	return n;
}

/* Bytes [from, to) of a row's run. False: an id is none of the pool's. */
static inline __attribute__((always_inline))
bool walk_row(const struct walk_sink *sink, void *context, const struct device_pool *pool, const struct pool_row *row,
	      bool store, const uint32_t *ids, uint64_t from, uint64_t to)
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
			n = walk_neighbours(ids + block, whole_end - block, pool->n_blocks - id);

		const uint64_t left = to - from, run = n * row->block_bytes - skip;
		const uint64_t bytes = run < left ? run : left;

		if (id != STOKER_NO_BLOCK)
			walk_blocks(sink, context, row, row->payload + from, id, skip, bytes);
		else if (store)
			sink->hole(context, row->payload + from, bytes);
		from += bytes;
		block += n;
		skip = 0;
	}
	return true;
}

/*
 * Bytes [@from, @from + @bytes) of layer @layer's run. False: memory is gone or an id is out of range, and
 * not all of it went to the sink.
 */
static inline __attribute__((always_inline))
bool walk_layer(const struct walk_sink *sink, void *context, const struct device_pool *pool, bool store,
		const uint32_t *ids, uint32_t layer, uint64_t from, uint64_t bytes)
{
	uint64_t at = pool->layers[layer].payload + from;
	const uint64_t end = at + bytes;

	for (uint32_t i = pool->layers[layer].row; at < end; i++) {
		const struct pool_row *row = &pool->rows[i];
		const uint64_t row_end = row->payload + pool->blocks * row->block_bytes;
		const uint64_t stop = row_end < end ? row_end : end;

		if (at >= stop)
			continue;
		if (sink->gone(row) ||
		    !walk_row(sink, context, pool, row, store, ids, at - row->payload, stop - row->payload) ||
		    sink->gone(row))
			return false;
		at = stop;
	}
	return true;
}

#endif
