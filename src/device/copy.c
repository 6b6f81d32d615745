/*
 * The walk of a copy, as copy.h describes it: cut by the core thread, gone through again by helpers.
 */
#include "src/device/copy.h"

#include <string.h>

/* The pool of an item, or NULL if there is none for its part. */
static const struct device_pool *pool_of(const struct copy *copy, uint32_t item)
{
	const struct engine_copy_item *i = &copy->request.items[item];
	const struct device_pool *pool = copy->pools[i->pool];

	return pool && pool->part == i->part ? pool : NULL;
}

static uint64_t bytes_at(const struct copy *copy, const struct copy_cursor *at)
{
	const struct device_pool *pool = pool_of(copy, at->item);

	return pool ? pool_layer_bytes(pool, at->layer) - at->offset : 0;
}

/* Go on by up to @bytes within the cursor's item and layer, and beyond both when that is all of it. */
static uint64_t step(const struct copy *copy, struct copy_cursor *at, uint64_t bytes)
{
	const uint64_t left = bytes_at(copy, at);

	if (bytes < left) {
		at->offset += bytes;
		return bytes;
	}
	at->offset = 0;
	if (++at->item == copy->request.n_items) {
		at->item = 0;
		at->layer++;
	}
	return left;
}

static void item_failed(struct copy *copy, uint32_t item)
{
	copy->request.failed[item] = 1;
	copy->failed = true;
}

void copy_begin(struct copy *copy, const struct engine_copy *request, struct device_pool *const *pools,
		uint32_t layers)
{
	copy->request = *request;
	copy->pools = pools;
	copy->layer_end = copy->request.layer_end < layers ? copy->request.layer_end : layers;
	if (copy->request.n_items == 0 || copy->layer_end < copy->request.layer_first)
		copy->layer_end = copy->request.layer_first;
	copy->at = (struct copy_cursor){ .layer = copy->request.layer_first };
	copy->first = copy->last = NULL;
	copy->layers_told = 0;
	copy->failed = false;
	atomic_store_explicit(&copy->cancelled, false, memory_order_relaxed);
}

bool copy_is_cut(const struct copy *copy)
{
	return copy->at.layer >= copy->layer_end;
}

void copy_piece_steps(struct copy_piece *piece, copy_step take, void *to)
{
	const struct copy *copy = piece->copy;
	struct copy_cursor at = piece->from;
	uint64_t left = piece->task.bytes;

	for (uint32_t i = 0; i < piece->steps; i++) {
		const struct copy_cursor here = at;
		const struct engine_copy_item *item = &copy->request.items[here.item];
		const uint64_t bytes = step(copy, &at, left);
		const bool cancelled = atomic_load_explicit(&copy->cancelled, memory_order_relaxed);

		left -= bytes;
		if (!bytes || (!cancelled && take(to, copy->pools[item->pool], copy->request.store, item, here.layer,
						  here.offset, bytes)))
			continue;
		piece->failed[i / 64] |= 1ull << (i % 64);
		piece->faulted |= !cancelled;
	}
}

void copy_piece_fail(struct copy_piece *piece)
{
	struct copy_cursor at = piece->from;
	uint64_t left = piece->task.bytes;

	for (uint32_t i = 0; i < piece->steps; i++) {
		const uint64_t bytes = step(piece->copy, &at, left);

		left -= bytes;
		if (bytes)
			piece->failed[i / 64] |= 1ull << (i % 64);
	}
}

static void append(struct copy *copy, struct copy_piece *piece)
{
	piece->next = NULL;
	piece->prev = copy->last;
	if (copy->last)
		copy->last->next = piece;
	else
		copy->first = piece;
	copy->last = piece;
}

static void take_out(struct copy *copy, struct copy_piece *piece)
{
	if (piece->prev)
		piece->prev->next = piece->next;
	else
		copy->first = piece->next;
	if (piece->next)
		piece->next->prev = piece->prev;
	else
		copy->last = piece->prev;
}

bool copy_cut(struct copy *copy, uint64_t bytes, struct copy_piece *piece)
{
	*piece = (struct copy_piece){ .copy = copy, .from = copy->at };
	while (!copy_is_cut(copy) && piece->steps < PIECE_STEPS && piece->task.bytes < bytes) {
		if (!pool_of(copy, copy->at.item))
			item_failed(copy, copy->at.item);
		piece->task.bytes += step(copy, &copy->at, bytes - piece->task.bytes);
		piece->steps++;
	}
	if (!piece->task.bytes)
		return false;
	append(copy, piece);
	return true;
}

/* Memory was not there: was it this item's? */
static void look_at_pool(struct copy *copy, uint32_t item, struct device_pool **dead)
{
	struct device_pool *pool = copy->pools[copy->request.items[item].pool];

	if (!pool->dead && pool_has_faulted(pool)) {
		pool->dead = true;
		pool->next_dead = *dead;
		*dead = pool;
	}
}

void copy_piece_over(struct copy_piece *piece, struct device_pool **dead)
{
	struct copy *copy = piece->copy;
	uint64_t any = 0, left = piece->task.bytes;
	struct copy_cursor at = piece->from;

	take_out(copy, piece);
	for (uint32_t i = 0; i < PIECE_STEPS / 64; i++)
		any |= piece->failed[i];
	if (!any)
		return;
	for (uint32_t i = 0; i < piece->steps; i++) {
		const uint32_t item = at.item;

		left -= step(copy, &at, left);
		if (!(piece->failed[i / 64] >> (i % 64) & 1))
			continue;
		item_failed(copy, item);
		if (piece->faulted)
			look_at_pool(copy, item, dead);
	}
}

void copy_cancel(struct copy *copy)
{
	const struct copy_cursor at = copy->at;

	atomic_store_explicit(&copy->cancelled, true, memory_order_relaxed);
	if (copy_is_cut(copy))
		return;
	copy->at.layer = copy->layer_end;
	for (uint32_t i = 0; i < copy->request.n_items; i++) {
		const struct device_pool *pool = pool_of(copy, i);
		/* The first layer of the item that has bytes left to be cut; one without a pool has failed anyway. */
		const uint32_t layer = i < at.item ? at.layer + 1 : at.layer;

		if (!pool || (layer < copy->layer_end && layer < pool->n_layers))
			item_failed(copy, i);
	}
}

uint32_t copy_layers(const struct copy *copy)
{
	const uint32_t layer = copy->first ? copy->first->from.layer : copy->at.layer;

	return copy->failed ? 0 : layer - copy->request.layer_first;
}
