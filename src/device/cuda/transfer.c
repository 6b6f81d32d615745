/*
 * Transfers: taken in, cut, issued, collected and told, as transfer.h describes them.
 */
#include "src/device/cuda/transfer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOAD_SLICE	(4ull << 20)	/* of a load, at most: how finely its progress is seen */
#define LOADS_A_TURN	8u		/* slices issued; fewer, when they have as many runs as one slice may have */

struct transfer {
	struct turn turn;		/* first; in ready or parked while it has something to cut */
	struct copy copy;
	struct transfer *hash_next, *tell_next;
	bool to_tell, bounced, parked;
	uint64_t pin_changes;		/* when `bounced` was found */
	uint64_t least_run;
	uint32_t failed_told;
	struct engine_copy_item *items;
	struct device_pool **pools;	/* by item, as items' `pool` says */
	uint8_t *failed;
	uint8_t ids[];			/* the items as they came */
};

int transfers_open(struct transfers *t, struct streams *streams, struct pin *pin, struct views *views,
		   uint32_t copies_max, uint64_t slice_bytes)
{
	const uint32_t slices = streams->n_lanes * LANE_DEPTH;
	uint32_t hash = 16;

	*t = (struct transfers){ .streams = streams, .pin = pin, .views = views, .slice_bytes = slice_bytes,
				 .copies_max = copies_max };
	while (hash < copies_max && hash < 1u << 16)
		hash *= 2;
	t->hash_mask = hash - 1;
	t->hash = calloc(hash, sizeof(struct transfer *));
	t->slices = calloc(slices, sizeof(*t->slices));
	if (!t->hash || !t->slices)
		return -ENOMEM;
	for (uint32_t i = 0; i < slices; i++) {
		t->slices[i].next = t->free_slices;
		t->free_slices = &t->slices[i];
	}
	plan_begin(&t->plan, pin->extent_bytes);
	return 0;
}

static struct transfer **hash_place(struct transfers *t, uint32_t number)
{
	struct transfer **place = &t->hash[(number * 2654435761u >> 8) & t->hash_mask];

	while (*place && (*place)->copy.request.copy != number)
		place = &(*place)->hash_next;
	return place;
}

static struct transfer *transfer_of(const struct copy *copy)
{
	return (struct transfer *)((uint8_t *)copy - offsetof(struct transfer, copy));
}

/* After any change: is there something to tell? */
static void look_at(struct transfers *t, struct transfer *x)
{
	if (x->to_tell || (!copy_is_over(&x->copy) && copy_layers(&x->copy) <= x->copy.layers_told))
		return;
	x->to_tell = true;
	x->tell_next = NULL;
	if (t->tell_first)
		t->tell_last->tell_next = x;
	else
		t->tell_first = x;
	t->tell_last = x;
}

/* ---- taken in ------------------------------------------------------------------------------------ */

/* The view of an item if the two fit, else NULL. */
static struct view *view_of(const struct transfers *t, const struct wire_item *item)
{
	struct view *view = item->pool == WIRE_NO_POOL ? NULL : view_find(t->views, item->pool);

	if (!view || item->n_ids != view->pool.blocks)
		return NULL;
	if (view->payload_bytes > t->pin->arena_bytes || item->payload > t->pin->arena_bytes - view->payload_bytes)
		return NULL;
	return view;
}

/* Does any item touch an extent that is not registered? Extents only become so. */
static void find_bounced(const struct transfers *t, struct transfer *x)
{
	x->pin_changes = t->pin->changes;
	x->bounced = false;
	for (uint32_t i = 0; i < x->copy.request.n_items && !x->bounced; i++) {
		const struct view *view = (const struct view *)x->pools[i];

		x->bounced = view && !pin_covers(t->pin, x->items[i].payload, view->payload_bytes);
	}
}

/* Bind the items that lie in x->ids; how many layers any of them has. */
static uint32_t bind_items(const struct transfers *t, struct transfer *x, const struct wire_command *command)
{
	uint32_t layers = 0;
	uint64_t at = 0;

	x->least_run = UINT64_MAX;
	for (uint32_t i = 0; i < command->n_items; i++) {
		const struct wire_item *item = (const struct wire_item *)(const void *)(x->ids + at);
		struct view *view;

		assert(command->bytes - at >= sizeof(*item));
		assert(item->n_ids <= (command->bytes - at - sizeof(*item)) / sizeof(uint32_t));
		at += (sizeof(*item) + item->n_ids * sizeof(uint32_t) + 7) & ~(uint64_t)7;
		at = at < command->bytes ? at : command->bytes;
		view = view_of(t, item);
		x->items[i] = (struct engine_copy_item){ .payload = item->payload, .pool = i, .ids = item->ids,
							 .part = view ? view->pool.part : 0 };
		if (!view)
			continue;
		view->copies++;
		x->pools[i] = &view->pool;
		layers = view->pool.n_layers > layers ? view->pool.n_layers : layers;
		x->least_run = view->least_run < x->least_run ? view->least_run : x->least_run;
	}
	return layers;
}

int transfer_begin(struct transfers *t, const struct wire_command *command, const uint8_t *items)
{
	const size_t each = sizeof(struct engine_copy_item) + sizeof(struct device_pool *) + 1;
	const size_t ids = (sizeof(struct transfer) + command->bytes + 15) & ~(size_t)15;
	struct transfer *x = calloc(1, ids + command->n_items * each);
	uint32_t layers;

	if (!x)
		return -ENOMEM;
	assert(t->n < t->copies_max);
	assert(*hash_place(t, command->copy) == NULL);
	memcpy(x->ids, items, command->bytes);
	x->items = (struct engine_copy_item *)(void *)((uint8_t *)x + ids);
	x->pools = (struct device_pool **)(x->items + command->n_items);
	x->failed = (uint8_t *)(x->pools + command->n_items);
	layers = bind_items(t, x, command);

	const struct engine_copy request = {
		.copy = command->copy, .store = command->store, .priority = command->priority,
		.layer_first = command->layer_first, .layer_end = command->layer_end,
		.n_items = command->n_items, .items = x->items, .failed = x->failed,
	};

	copy_begin(&x->copy, &request, x->pools, layers);
	/* Of which layers an item without a pool has nobody knows here: it fails also where the others have none. */
	for (uint32_t i = 0; i < command->n_items; i++) {
		x->failed[i] = !x->pools[i];
		x->copy.failed |= !x->pools[i];
	}
	find_bounced(t, x);
	x->turn.queue = command->priority < 8 ? command->priority : 7;
	*hash_place(t, command->copy) = x;
	t->n++;
	if (copy_is_cut(&x->copy))
		look_at(t, x);
	else
		turns_put(&t->ready[command->store], &x->turn);
	return 0;
}

void transfer_cancel(struct transfers *t, uint32_t number)
{
	struct transfer *x = *hash_place(t, number);

	if (!x)
		return;
	turns_remove(&(x->parked ? t->parked : t->ready)[x->copy.request.store], &x->turn);
	x->parked = false;
	copy_cancel(&x->copy);
	look_at(t, x);
}

/* ---- issued -------------------------------------------------------------------------------------- */

static uint64_t slice_bytes(const struct transfers *t, const struct transfer *x)
{
	const uint64_t runs = x->least_run < UINT64_MAX / t->streams->mover->runs_max
			      ? x->least_run * t->streams->mover->runs_max : UINT64_MAX;
	uint64_t bytes = t->slice_bytes;

	if (!x->copy.request.store && bytes > LOAD_SLICE)
		bytes = LOAD_SLICE;
	if (x->bounced && bytes > t->pin->slot_bytes)
		bytes = t->pin->slot_bytes;
	return bytes < runs ? bytes : runs;
}

static void put_back(struct transfers *t, struct transfer *x)
{
	if (!copy_is_cut(&x->copy))
		turns_put(&t->ready[x->copy.request.store], &x->turn);
	look_at(t, x);
}

/* One slice of the transfer whose turn it is, or its parking. */
static enum cuda_result issue_one(struct transfers *t, bool store, struct lane *lane, uint64_t now_ns)
{
	struct transfer *x = (struct transfer *)turns_take(&t->ready[store]);
	struct slice *slice = t->free_slices;
	struct bounce *bounce = NULL;
	enum cuda_result result;

	if (x->bounced && x->pin_changes != t->pin->changes)
		find_bounced(t, x);
	if (x->bounced && !(bounce = bounce_take(t->pin, store))) {
		x->parked = true;
		turns_put(&t->parked[store], &x->turn);
		return CUDA_OK;
	}
	if (!copy_cut(&x->copy, slice_bytes(t, x), &slice->piece)) {
		if (bounce)
			bounce_put(t->pin, bounce, false);
		put_back(t, x);
		return CUDA_OK;
	}
	t->free_slices = slice->next;
	slice->bounce = bounce;
	plan_piece(&t->plan, &slice->piece);
	result = streams_issue(t->streams, lane, slice, &t->plan, t->pin, now_ns);
	if (bounce && bounce->used == 0) {
		slice->bounce = NULL;
		bounce_put(t->pin, bounce, false);
	}
	t->n_slices++;
	put_back(t, x);
	return result;
}

bool transfers_issue(struct transfers *t, uint64_t now_ns, enum cuda_result *ret)
{
	bool any = false;
	struct lane *lane;

	*ret = CUDA_OK;
	for (uint32_t i = 0, runs = 0; i < LOADS_A_TURN && runs < t->streams->mover->runs_max && t->ready[0].waiting &&
				       (lane = streams_lane(t->streams, false)); i++, runs += t->plan.n) {
		t->plan.n = 0;
		*ret = issue_one(t, false, lane, now_ns);
		any = true;
		if (*ret != CUDA_OK)
			return any;
	}
	if (t->ready[1].waiting && (lane = streams_lane(t->streams, true))) {
		*ret = issue_one(t, true, lane, now_ns);
		any = true;
	}
	return any;
}

/* ---- collected ----------------------------------------------------------------------------------- */

static void slot_free(struct transfers *t, struct bounce *bounce, bool copied)
{
	const bool store = bounce->store;

	bounce_put(t->pin, bounce, copied);
	while (t->parked[store].waiting) {
		struct transfer *x = (struct transfer *)turns_take(&t->parked[store]);

		x->parked = false;
		turns_put(&t->ready[store], &x->turn);
	}
}

static void slice_over(struct transfers *t, struct slice *slice)
{
	struct transfer *x = transfer_of(slice->piece.copy);
	struct device_pool *dead = NULL;

	if (slice->bounce)
		slot_free(t, slice->bounce, !slice->failed);
	if (slice->failed)
		copy_piece_fail(&slice->piece);
	else
		*(x->copy.request.store ? &t->store_bytes : &t->load_bytes) += slice->piece.task.bytes;
	slice->piece.faulted = false;	/* a step fails for its ids; memory of a device does not vanish */
	copy_piece_over(&slice->piece, &dead);
	assert(!dead);
	slice->next = t->free_slices;
	t->free_slices = slice;
	t->n_slices--;
	look_at(t, x);
}

bool transfers_collect(struct transfers *t, uint64_t now_ns, enum cuda_result *ret)
{
	struct slice *slice;
	bool any = false;

	*ret = CUDA_OK;
	for (uint32_t i = 0; i < t->streams->n_lanes && *ret == CUDA_OK; i++) {
		while ((slice = streams_ended(t->streams, &t->streams->lanes[i], now_ns, ret))) {
			slice_over(t, slice);
			any = true;
		}
	}
	return any;
}

/* ---- told ---------------------------------------------------------------------------------------- */

static void forget(struct transfers *t, struct transfer *x)
{
	struct transfer **place = hash_place(t, x->copy.request.copy);

	assert(*place == x);
	*place = x->hash_next;
	for (uint32_t i = 0; i < x->copy.request.n_items; i++)
		if (x->pools[i])
			((struct view *)x->pools[i])->copies--;
	free(x);
	t->n--;
}

/* The next event of a transfer; false: there is none for now. */
static bool next_event(struct transfer *x, struct wire_event *ret)
{
	struct copy *copy = &x->copy;

	*ret = (struct wire_event){ .copy = copy->request.copy };
	if (copy_layers(copy) > copy->layers_told) {
		ret->type = WIRE_PROGRESS;
		ret->value = copy_layers(copy);
		return true;
	}
	if (!copy_is_over(copy))
		return false;
	while (x->failed_told < copy->request.n_items && !x->failed[x->failed_told])
		x->failed_told++;
	ret->type = x->failed_told < copy->request.n_items ? WIRE_FAILED : WIRE_DONE;
	ret->value = ret->type == WIRE_FAILED ? x->failed_told : copy->failed ? ENGINE_FAILED : ENGINE_OK;
	return true;
}

uint32_t transfers_tell(struct transfers *t, struct shared_queue *events)
{
	struct wire_event event;
	uint32_t told = 0;

	while (t->tell_first) {
		struct transfer *x = t->tell_first;
		const bool any = next_event(x, &event);

		if (any && !shared_queue_put(events, &event))
			return told;
		told += any;
		if (any && event.type == WIRE_PROGRESS) {
			x->copy.layers_told = event.value;
			continue;
		}
		if (any && event.type == WIRE_FAILED) {
			x->failed_told++;
			continue;
		}
		t->tell_first = x->tell_next;
		x->to_tell = false;
		if (any)
			forget(t, x);
	}
	return told;
}
