/*
 * The bytes themselves: between an object's payload in the arena and its blocks in a pool, run by run of
 * the walk (walk.h). Runs by helper threads, on memory that a client may change or take away at any
 * instant: what was copied is bytes and is never interpreted; whether memory was there is asked after
 * the copy (src/device/guard.h).
 */
#include <string.h>

#include "src/device/region.h"
#include "src/device/walk.h"

static void retrieve_run(void *payload, const struct pool_row *row, uint64_t at, uint64_t from, uint64_t bytes)
{
	region_enter(row->region, row->base + at, bytes);
	memcpy(row->base + at, (const uint8_t *)payload + from, bytes);
}

static void store_run(void *payload, const struct pool_row *row, uint64_t at, uint64_t to, uint64_t bytes)
{
	memcpy((uint8_t *)payload + to, row->base + at, bytes);
}

static void store_hole(void *payload, uint64_t to, uint64_t bytes)
{
	memset((uint8_t *)payload + to, 0, bytes);
}

static bool has_faulted(const struct pool_row *row)
{
	return atomic_load_explicit(&row->region->faulted, memory_order_acquire);
}

static const struct walk_sink retrieving = { .run = retrieve_run, .hole = store_hole, .gone = has_faulted };
static const struct walk_sink storing = { .run = store_run, .hole = store_hole, .gone = has_faulted };

bool pool_copy(const struct device_pool *pool, bool store, uint8_t *payload, const uint32_t *ids, uint32_t layer,
	       uint64_t from, uint64_t bytes)
{
	return store ? walk_layer(&storing, payload, pool, true, ids, layer, from, bytes)
		     : walk_layer(&retrieving, payload, pool, false, ids, layer, from, bytes);
}
