/*
 * Copies under way, and the pieces that they are cut into.
 *
 * A copy is a walk: for each layer of its range, for each item that has it, the bytes of that layer.
 * A cursor is a place in that walk, and a piece so many bytes from a cursor on: a few items of one
 * layer, part of one, or several small layers. Pieces are cut in the walk's order, so the earliest piece
 * that still runs says which layers are over.
 *
 * The core thread cuts and finishes; a helper thread runs a piece between the two and then only reads
 * the copy. `failed` bytes of the engine are written by the core thread alone. A copier process cuts the
 * same way, and gives its pieces to streams (cuda/streams.h) in the place of helpers.
 */
#ifndef STOKER_DEVICE_COPY_H
#define STOKER_DEVICE_COPY_H

#include <stdatomic.h>

#include "src/device/pool.h"
#include "src/device/workers.h"

#define PIECE_STEPS 256u	/* (layer, item) steps of a piece, at most: bounds the core's work for it */

struct copy_cursor {
	uint32_t layer, item;
	uint64_t offset;	/* bytes of the item's layer that are behind it */
};

struct copy;
struct copy_piece {
	struct worker_task task;	/* first; task.bytes is how much it copies, run what a helper does */
	struct copy *copy;
	struct copy_cursor from;
	uint32_t steps;			/* of the walk that it spans, empty ones included */
	uint64_t failed[PIECE_STEPS / 64];	/* bit i: the i-th step was not wholly copied */
	bool faulted;			/* a pool's memory was not there */
	struct copy_piece *prev, *next;	/* running pieces of the copy, in the walk's order; or free ones */
};

struct copy {
	struct engine_copy request;
	struct device_pool *const *pools;
	struct copy_cursor at;		/* what has not been cut yet */
	uint32_t layer_end;
	struct copy_piece *first, *last;	/* running */
	uint32_t layers_told;
	bool failed;			/* an item did: layers are no longer told */
	_Atomic bool cancelled;		/* read by helpers before each step */
};

/* @pools: by the items' numbers; @layers: as many as any of them has. */
void copy_begin(struct copy *copy, const struct engine_copy *request, struct device_pool *const *pools,
		uint32_t layers);

/*
 * Cut the next piece, of at most @bytes. False: the walk went on but found nothing to copy (items that
 * lack the layer, or have no pool and have failed).
 */
bool copy_cut(struct copy *copy, uint64_t bytes, struct copy_piece *piece);
bool copy_is_cut(const struct copy *copy);	/* nothing is left to cut */

/* Bytes [@from, @from + @bytes) of layer @layer of an item; @to is the caller's. False: not all were copied. */
typedef bool (*copy_step)(void *to, const struct device_pool *pool, bool store, const struct engine_copy_item *item,
			  uint32_t layer, uint64_t from, uint64_t bytes);
/* Run a piece: @step for each of its steps that has bytes, none after the copy has been cancelled. */
void copy_piece_steps(struct copy_piece *piece, copy_step step, void *to);
/* A piece whose steps have all been begun turns out not to have been copied. */
void copy_piece_fail(struct copy_piece *piece);
/* A piece has been run. Pools that turned out dead are put before *dead, once each. */
void copy_piece_over(struct copy_piece *piece, struct device_pool **dead);
/* Cut nothing more: what has not been cut has failed. */
void copy_cancel(struct copy *copy);

/* Layers of the range that are wholly copied, or 0 once something failed. */
uint32_t copy_layers(const struct copy *copy);
static inline bool copy_is_over(const struct copy *copy)
{
	return copy_is_cut(copy) && !copy->first;
}

#endif
