/*
 * The cuda backend: its row of functions, and the core thread's part of it.
 *
 * A copy waits until rings and byte space have room, loads before stores, and is then the copier's until its
 * DONE. Its items and ids are written where the copier reads them once. While there is no lane, because the
 * copier is being replaced, copies fail at once: a fault of a GPU costs that GPU's jobs.
 *
 * What the copier says is believed as far as it harms nobody but its own GPU: numbers are looked at before they
 * are used, since a driver that has gone mad may have written anywhere in that process.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/control.h"
#include "src/device/cuda/backend.h"

/* ---- lists ----------------------------------------------------------------------------------- */

static void list_put(struct gpu_copies *list, struct gpu_copy *copy, enum gpu_copy_state state)
{
	copy->state = (uint8_t)state;
	copy->next = NULL;
	copy->prev = list->last;
	if (list->last)
		list->last->next = copy;
	else
		list->first = copy;
	list->last = copy;
}

static void list_remove(struct gpu_copies *list, struct gpu_copy *copy)
{
	if (copy->prev)
		copy->prev->next = copy->next;
	else
		list->first = copy->next;
	if (copy->next)
		copy->next->prev = copy->prev;
	else
		list->last = copy->prev;
}

/* It ends without the copier: nothing of it can be relied on. */
static void fail(struct device *device, struct gpu_copy *copy)
{
	memset(copy->request.failed, 1, copy->request.n_items);
	copy->failed = true;
	list_put(&device->over, copy, COPY_OVER);
	bell_ring(device->host.bell);
}

/* ---- to the copier --------------------------------------------------------------------------- */

static uint64_t item_bytes(uint32_t n_ids)
{
	return (sizeof(struct wire_item) + (uint64_t)n_ids * sizeof(uint32_t) + 7) & ~7ull;
}

/* The pool that an item names, if there is one and its memory can be opened. */
static struct gpu_pool *pool_of(const struct gpu_copy *copy, const struct engine_copy_item *item)
{
	struct device_pool *view = copy->pools[item->pool];
	struct gpu_pool *pool = view ? view->of : NULL;

	return pool && !atomic_load_explicit(&pool->lost, memory_order_acquire) ? pool : NULL;
}

/* Where its items go: a free-running place; UINT64_MAX: there is no room yet. */
static uint64_t items_place(const struct lane *lane, uint64_t bytes)
{
	const uint64_t offset = lane->items_at & (lane->item_bytes - 1);
	const uint64_t taken = atomic_load_explicit(&lane->segment->bytes_taken, memory_order_acquire);
	uint64_t at = lane->items_at;

	if (offset + bytes > lane->item_bytes)
		at += lane->item_bytes - offset;
	return at + bytes - taken <= lane->item_bytes ? at : UINT64_MAX;
}

/* Returns how many bytes they are: fewer than were counted on, if a pool has been lost since. */
static uint64_t items_write(const struct gpu_copy *copy, uint8_t *to)
{
	const uint8_t *from = to;

	for (uint32_t i = 0; i < copy->request.n_items; i++) {
		const struct engine_copy_item *item = &copy->request.items[i];
		const struct gpu_pool *pool = pool_of(copy, item);
		struct wire_item *wire = (struct wire_item *)to;

		wire->payload = item->payload;
		wire->pool = pool ? pool->number : WIRE_NO_POOL;
		wire->n_ids = pool ? pool->view->blocks : 0;
		memcpy(wire->ids, item->ids, wire->n_ids * sizeof(uint32_t));
		to += item_bytes(wire->n_ids);
	}
	return (uint64_t)(to - from);
}

static bool put(struct lane *lane, const struct gpu_copy *copy)
{
	const struct engine_copy *request = &copy->request;
	const uint64_t at = items_place(lane, copy->bytes);
	struct wire_command command = {
		.type = WIRE_COPY, .copy = request->copy, .store = request->store, .priority = request->priority,
		.layer_first = (uint16_t)request->layer_first,
		.layer_end = (uint16_t)(request->layer_end < UINT16_MAX ? request->layer_end : UINT16_MAX),
		.n_items = request->n_items, .at = at,
	};

	if (at == UINT64_MAX)
		return false;
	command.bytes = items_write(copy, lane->items + (at & (lane->item_bytes - 1)));
	if (!shared_queue_put(lane->commands, &command))
		return false;
	lane->items_at = at + command.bytes;
	atomic_store_explicit(&lane->under_way, atomic_load_explicit(&lane->under_way, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	return true;
}

static bool put_cancel(struct lane *lane, const struct gpu_copy *copy)
{
	const struct wire_command command = { .type = WIRE_CANCEL, .copy = copy->request.copy };

	return shared_queue_put(lane->commands, &command);
}

static bool put_cancels(struct device *device, struct lane *lane)
{
	bool any = false;

	for (struct gpu_copy *copy = device->sent.first; copy && device->cancels; copy = copy->next) {
		if (!copy->cancel)
			continue;
		if (!put_cancel(lane, copy))
			break;
		copy->cancel = false;
		device->cancels--;
		any = true;
	}
	return any;
}

/* Whatever waits and finds room; without a lane all of it fails. */
static void send_waiting(struct device *device)
{
	struct lane *lane = device->core_lane;
	bool any = lane && device->cancels && put_cancels(device, lane);

	for (uint32_t i = 0; i < 2; i++) {
		struct gpu_copy *copy;

		while ((copy = device->waiting[i].first)) {
			if (lane && copy->bytes <= lane->item_bytes / 2 && !put(lane, copy))
				break;
			list_remove(&device->waiting[i], copy);
			if (lane && copy->bytes <= lane->item_bytes / 2) {
				list_put(&device->sent, copy, COPY_SENT);
				any = true;
			} else {
				fail(device, copy);
			}
		}
		if (copy)
			break;		/* a store does not take the room that a load waits for */
	}
	if (any)
		shared_bell_ring(&lane->segment->copier_bell, lane->bell_fd);
}

/* Take over the lane that is offered, if there is one. */
static void lane_take(struct device *device)
{
	uint32_t is = atomic_load_explicit(&device->lane_is, memory_order_relaxed);

	if (is == LANE_OFFERED && atomic_compare_exchange_strong_explicit(&device->lane_is, &is, LANE_TAKEN,
									   memory_order_acquire, memory_order_relaxed))
		device->core_lane = atomic_load_explicit(&device->lane, memory_order_relaxed);
}

/* A pool of it that cannot be opened any more: it has to be told once. */
static void look_for_lost(struct device *device, struct gpu_copy *copy)
{
	for (uint32_t i = 0; i < copy->request.n_items; i++) {
		struct device_pool *view = copy->pools[copy->request.items[i].pool];

		copy->bytes += item_bytes(view ? view->blocks : 0);
		if (!view || view->dead || pool_of(copy, &copy->request.items[i]))
			continue;
		view->dead = true;
		view->next_dead = device->dead;
		device->dead = view;
	}
}

static int cuda_copy(struct device *device, const struct device_copy *asked)
{
	struct gpu_copy *copy = &device->copies[asked->request.copy];

	assert(asked->request.copy < device->host.copies);
	assert(copy->state == COPY_NONE);
	*copy = (struct gpu_copy){ .request = asked->request, .pools = asked->pools };
	look_for_lost(device, copy);
	list_put(&device->waiting[asked->request.store], copy, COPY_WAITS);
	lane_take(device);
	send_waiting(device);
	return 0;
}

static void cuda_cancel(struct device *device, uint32_t number)
{
	struct gpu_copy *copy = &device->copies[number];

	if (copy->state == COPY_WAITS) {
		list_remove(&device->waiting[copy->request.store], copy);
		fail(device, copy);
	} else if (copy->state == COPY_SENT && !copy->cancel) {
		copy->cancel = true;
		device->cancels++;
		send_waiting(device);
	}
}

/* ---- from the copier ------------------------------------------------------------------------- */

static struct device_event done(struct device *device, struct gpu_copy *copy, bool ok)
{
	const struct device_event event = { .type = DEVICE_DONE, .copy = copy->request.copy,
					    .result = ok && !copy->failed ? ENGINE_OK : ENGINE_FAILED };

	if (copy->cancel)
		device->cancels--;
	copy->cancel = false;
	copy->state = COPY_NONE;
	if (device->gpu.core_block)
		block_add(device->gpu.core_block, STOKER_COUNTER_GPU_COPIES, 1);
	return event;
}

/* False: it says nothing to the engine. */
static bool event_take(struct device *device, struct lane *lane, const struct wire_event *from,
		       struct device_event *ret)
{
	struct gpu_copy *copy = from->copy < device->host.copies ? &device->copies[from->copy] : NULL;

	if (!copy || copy->state != COPY_SENT)
		return false;
	switch (from->type) {
	case WIRE_PROGRESS:
		if (copy->failed || from->value <= copy->layers_told ||
		    from->value > copy->request.layer_end - copy->request.layer_first)
			return false;
		copy->layers_told = from->value;
		*ret = (struct device_event){ .type = DEVICE_PROGRESS, .copy = from->copy, .layers = from->value };
		return true;
	case WIRE_FAILED:
		copy->failed = true;
		if (from->value < copy->request.n_items)
			copy->request.failed[from->value] = 1;
		return false;
	case WIRE_DONE:
		list_remove(&device->sent, copy);
		atomic_store_explicit(&lane->under_way,
				      atomic_load_explicit(&lane->under_way, memory_order_relaxed) - 1,
				      memory_order_relaxed);
		*ret = done(device, copy, from->value == ENGINE_OK);
		return true;
	default:
		return false;
	}
}

/* Its process is gone, and all that it had said has been taken. */
static void lane_release(struct device *device)
{
	struct gpu_copy *copy;

	while ((copy = device->sent.first)) {
		list_remove(&device->sent, copy);
		fail(device, copy);
	}
	device->core_lane = NULL;
	atomic_store_explicit(&device->lane, NULL, memory_order_relaxed);
	atomic_store_explicit(&device->lane_is, LANE_NONE, memory_order_release);
	bell_ring(&device->minder.bell);
}

static uint32_t tell_dead(struct device *device, struct device_event *ret, uint32_t n)
{
	uint32_t told = 0;

	for (; told < n && device->dead; told++) {
		ret[told] = (struct device_event){ .type = DEVICE_POOL_DEAD, .client = device->dead->client,
						   .pool = device->dead->number };
		device->dead = device->dead->next_dead;
	}
	return told;
}

static uint32_t cuda_reap(struct device *device, struct device_event *ret, uint32_t n)
{
	uint32_t told = tell_dead(device, ret, n);
	struct wire_event event;
	struct lane *lane;

	lane_take(device);
	lane = device->core_lane;
	if (lane) {
		/* Looked at first: what it had said was all there when it was retired. */
		const bool retired = atomic_load_explicit(&lane->retired, memory_order_acquire);

		while (told < n && shared_queue_get(lane->events, &event))
			told += event_take(device, lane, &event, &ret[told]);
		if (retired && told < n)
			lane_release(device);
	}
	for (; told < n && device->over.first; told++) {
		struct gpu_copy *copy = device->over.first;

		list_remove(&device->over, copy);
		ret[told] = done(device, copy, false);
	}
	if (device->waiting[0].first || device->waiting[1].first || device->cancels)
		send_waiting(device);
	return told;
}

static void cuda_arm(struct device *device)
{
	if (device->core_lane)
		shared_bell_arm(&device->core_lane->segment->core_bell);
}

static void cuda_extent(struct device *device, uint32_t extent)
{
	if (extent >= device->n_extents)
		return;
	atomic_fetch_or_explicit(&device->extents[extent / 64], 1ull << extent % 64, memory_order_release);
	bell_ring(&device->minder.bell);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void name_make(struct device *device)
{
	const uint8_t *u = device->gpu.uuid;

	snprintf(device->name, sizeof(device->name), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
		 u[12], u[13], u[14], u[15]);
}

/* After all copies have ended, or with nobody left to tell. */
static void cuda_stop(struct device *device)
{
	if (!device)
		return;
	minder_fini(device);
	registry_free(device);
	free(device->message);
	free(device->extents);
	free(device->copies);
	free(device);
}

static int cuda_start(const struct device_host *host, struct device **ret)
{
	struct device *device;
	uint32_t words;
	int r;

	if (!host->gpu || host->copies < 1 || host->gpu->extent_bytes == 0)
		return -EINVAL;
	if (posix_memalign((void **)&device, 64, sizeof(*device)) != 0)
		return -ENOMEM;
	memset(device, 0, sizeof(*device));
	device->host = *host;
	device->gpu = *host->gpu;
	snprintf(device->program, sizeof(device->program), "%s", host->gpu->program);
	name_make(device);
	device->regions_end = &device->regions;
	device->pools_end = &device->pools;
	device->replies_end = &device->replies;
	device->n_extents = (uint32_t)(host->arena_bytes / host->gpu->extent_bytes);
	words = device->n_extents / 64 + 1;
	device->minder.socket = device->minder.pidfd = device->minder.epoll = device->minder.bell.fd = -1;
	device->copies = calloc(host->copies, sizeof(*device->copies));
	device->extents = calloc(words, sizeof(*device->extents));
	device->minder.told = calloc(words, sizeof(*device->minder.told));
	device->message = malloc(WIRE_MESSAGE_MAX);
	r = device->copies && device->extents && device->minder.told && device->message ? minder_init(device) : -ENOMEM;
	if (r < 0) {
		cuda_stop(device);
		return r;
	}
	*ret = device;
	return 0;
}

static int cuda_watch(const struct device *device)
{
	return device->minder.epoll;
}

static bool cuda_is_idle(const struct device *device)
{
	return !device->regions && !device->pools && !device->replies && device->minder.state == MINDER_DOWN;
}

const struct device_backend device_cuda_backend = {
	.name = "cuda",
	.kind = MESSAGE_REGION_CUDA,
	.start = cuda_start,
	.stop = cuda_stop,
	.region_add = registry_region_add,
	.region_close = registry_region_close,
	.region_bytes = registry_region_bytes,
	.pool_add = registry_pool_add,
	.pool_close = registry_pool_close,
	.watch = cuda_watch,
	.tend = minder_tend,
	.answer = registry_answer,
	.is_idle = cuda_is_idle,
	.figures = minder_figures,
	.copy = cuda_copy,
	.cancel = cuda_cancel,
	.reap = cuda_reap,
	.arm = cuda_arm,
	.extent = cuda_extent,
};
