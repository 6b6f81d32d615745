/*
 * Regions and pools of a GPU: what clients have registered, and what of it the copier has been told.
 *
 * Nothing is kept to be sent: what the copier lacks follows from the state of each, so that a new copier is
 * told all over again by the same few lines. Closings go first, pools before the regions that they look at;
 * then regions, then pools whose regions are known. A question is answered by the copier in the order in
 * which it was put, so the first one that is open when a copier ends is the one that it ended over: it is
 * refused if it is new, and given up after a few copiers, one after the other, if it is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/control.h"
#include "src/common/log.h"
#include "src/device/cuda/backend.h"
#include "src/device/refuse.h"

#define DEATHS_MAX	3u		/* copiers that may end over something that others had opened */
#define FDS_A_MESSAGE	(WIRE_FDS_MAX - 1)	/* with the fence */

/* ---- answers --------------------------------------------------------------------------------- */

static struct reply *reply_new(uint64_t token)
{
	struct reply *reply = token ? calloc(1, sizeof(*reply)) : NULL;

	if (reply)
		reply->answer.token = token;
	return reply;
}

/* Nobody may wait for it; who does is told once. */
static void reply_send(struct device *device, struct reply **from, int result, const char *why)
{
	struct reply *reply = *from;

	if (!reply)
		return;
	*from = NULL;
	reply->next = NULL;
	reply->answer.result = result;
	snprintf(reply->answer.why, sizeof(reply->answer.why), "%s", why);
	*device->replies_end = reply;
	device->replies_end = &reply->next;
}

bool registry_answer(struct device *device, struct device_answer *ret)
{
	struct reply *reply = device->replies;

	if (!reply)
		return false;
	*ret = reply->answer;
	device->replies = reply->next;
	if (!device->replies)
		device->replies_end = &device->replies;
	free(reply);
	return true;
}

/* ---- the end of one -------------------------------------------------------------------------- */

static void region_free(struct gpu_region *region)
{
	struct device *device = region->device;

	device->n_regions--;
	*region->link = region->next;
	if (region->next)
		region->next->link = region->link;
	else
		device->regions_end = region->link;
	for (uint32_t i = 0; i < region->n_fds; i++)
		device->host.close_fd(region->uid, region->fds[i]);
	if (region->fence >= 0)
		close(region->fence);
	reply_send(device, &region->opening, -EPIPE, "it was dropped before it could be opened");
	reply_send(device, &region->closing, 0, "");
	free(region->spare);
	free(region->fds);
	free(region->fd_bytes);
	free(region);
}

static void pool_forget(struct gpu_pool *pool)
{
	pool->device->n_pools--;
	*pool->link = pool->next;
	if (pool->next)
		pool->next->link = pool->link;
	else
		pool->device->pools_end = pool->link;
	reply_send(pool->device, &pool->opening, -EPIPE, "it was dropped before it could be opened");
	pool_close(pool->view);
	free(pool);
}

/* Closed by its owner, unknown to the copier, and looked at by no pool that the copier has still to close. */
static bool region_is_over(const struct gpu_region *region)
{
	return region->closed && region->seen.pools == 0 &&
	       (region->state == GPU_LOST || (region->state == GPU_WANTED && region->sent_fds == 0));
}

int registry_region_close(struct device_region *seen, uint64_t token)
{
	struct gpu_region *region = gpu_region_of(seen);
	bool later;

	reply_send(region->device, &region->opening, -EPIPE, "it was dropped before it could be opened");
	region->closed = true;
	later = token != 0;
	if (later) {
		region->closing = region->spare;
		region->closing->answer.token = token;
		region->spare = NULL;
	}
	if (region_is_over(region))
		region_free(region);
	return later ? DEVICE_LATER : 0;
}

void registry_pool_close(struct device_pool *view)
{
	struct gpu_pool *pool = view->of;

	reply_send(pool->device, &pool->opening, -EPIPE, "it was dropped before it could be opened");
	pool->closed = true;
	if (pool->state == GPU_WANTED || pool->state == GPU_LOST)
		pool_forget(pool);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static int region_fill(struct gpu_region *region, const struct device_memory *memory)
{
	const struct message_region_add_cuda *message = memory->cuda;

	region->opening = reply_new(memory->token);
	region->spare = calloc(1, sizeof(*region->spare));
	region->fds = malloc((memory->n_fds + 1) * sizeof(*region->fds));
	region->fd_bytes = malloc((memory->n_fds + 1) * sizeof(*region->fd_bytes));
	region->fence = memory->fence < 0 ? -1 : fcntl(memory->fence, F_DUPFD_CLOEXEC, 3);
	if (!region->opening || !region->spare || !region->fds || !region->fd_bytes ||
	    (memory->fence >= 0 && region->fence < 0))
		return -ENOMEM;
	for (uint32_t i = 0; i < memory->n_fds; i++) {
		region->fds[i] = memory->fds[i];
		region->fd_bytes[i] = memory->fd_bytes[i];
	}
	memcpy(region->handle, message->handle, sizeof(region->handle));
	region->n_fds = memory->n_fds;
	region->uid = memory->uid;
	region->kind = (enum message_cuda_kind)message->kind;
	region->offset = message->offset;
	region->seen.bytes = message->bytes;
	return 0;
}

int registry_region_add(struct device *device, const struct device_memory *memory, char *why,
			struct device_region **ret)
{
	struct gpu_region *region = calloc(1, sizeof(*region));

	if (region)
		region->fence = -1;
	if (!region || region_fill(region, memory) < 0) {
		for (uint32_t i = 0; i < memory->n_fds; i++)
			device->host.close_fd(memory->uid, memory->fds[i]);
		if (region) {
			if (region->fence >= 0)
				close(region->fence);
			free(region->opening);
			free(region->spare);
			free(region->fds);
			free(region->fd_bytes);
		}
		free(region);
		return refuse(why, -ENOMEM, "could not register memory of %s: the broker is out of memory; try again",
			      device->name);
	}
	region->device = device;
	region->number = device->next_number++;
	region->link = device->regions_end;
	*device->regions_end = region;
	device->regions_end = &region->next;
	device->n_regions++;
	*ret = &region->seen;
	return DEVICE_LATER;
}

uint64_t registry_region_bytes(const struct device_region *region)
{
	return region->bytes;
}

int registry_pool_add(struct device *device, uint64_t token, uint32_t client, uint32_t number,
		      const struct model_layout *layout, uint32_t part, uint32_t n_blocks,
		      const struct message_plane *planes, uint32_t n_planes, struct device_region *const *regions,
		      uint32_t n_regions, char *why, struct device_pool **ret)
{
	struct gpu_pool *pool = calloc(1, sizeof(*pool));
	int r = -ENOMEM;

	if (pool)
		pool->opening = reply_new(token);
	if (!pool || !pool->opening)
		refuse(why, r, "could not add pool %u: the broker is out of memory; try again", number);
	else
		r = pool_open(client, number, layout, part, n_blocks, planes, n_planes, regions, n_regions, why,
			      &pool->view);
	if (r < 0) {
		if (pool)
			free(pool->opening);
		free(pool);
		return r;
	}
	pool->view->of = pool;
	pool->device = device;
	pool->number = device->next_number++;
	pool->link = device->pools_end;
	*device->pools_end = pool;
	device->pools_end = &pool->next;
	device->n_pools++;
	*ret = pool->view;
	return DEVICE_LATER;
}

/* ---- telling --------------------------------------------------------------------------------- */

static void ask(struct device *device, enum gpu_state *state, uint64_t *asked, enum gpu_state next)
{
	*state = next;
	*asked = ++device->questions;
	device->unanswered++;
}

static int tell_number(struct device *device, enum wire_type type, uint32_t number)
{
	const struct wire_number message = { .header = { type, sizeof(message) }, .number = number };

	return wire_send(device->minder.socket, false, &message, NULL, 0);
}

/* The next message of a region, the fence with the first one. */
static int tell_region(struct device *device, struct gpu_region *region)
{
	const uint32_t left = region->n_fds - region->sent_fds;
	struct wire_region message = {
		.header = { WIRE_REGION, sizeof(message) },
		.region = region->number,
		.kind = region->kind == MESSAGE_CUDA_VMM ? WIRE_REGION_VMM : WIRE_REGION_IPC,
		.offset = region->offset,
		.bytes = region->seen.bytes,
		.n_fds = left < FDS_A_MESSAGE ? left : FDS_A_MESSAGE,
		.more = left > FDS_A_MESSAGE,
		.fence = region->fence >= 0 && region->sent_fds == 0,
	};
	int fds[WIRE_FDS_MAX], r;

	memcpy(fds, region->fds + region->sent_fds, message.n_fds * sizeof(fds[0]));
	memcpy(message.fd_bytes, region->fd_bytes + region->sent_fds, message.n_fds * sizeof(message.fd_bytes[0]));
	memcpy(message.handle, region->handle, sizeof(message.handle));
	fds[message.n_fds] = region->fence;
	r = wire_send(device->minder.socket, false, &message, fds, message.n_fds + message.fence);
	if (r == 0)
		region->sent_fds += message.n_fds;
	return r;
}

/* All messages of a region: one that was begun is ended, whatever becomes of it meanwhile. */
static int tell_regions(struct device *device)
{
	for (struct gpu_region *region = device->regions; region; region = region->next) {
		if (region->state != GPU_WANTED || (region->closed && region->sent_fds == 0))
			continue;
		do {
			const int r = tell_region(device, region);

			if (r < 0)
				return r;
		} while (region->sent_fds < region->n_fds);
		region->sent_fds = 0;
		ask(device, &region->state, &region->asked, GPU_ASKED);
	}
	return 0;
}

/* Are all regions that it looks at open? A lost one makes it lost, once. */
static bool is_ready(struct gpu_pool *pool)
{
	bool ready = true;

	for (uint32_t i = 0; i < pool->view->n_rows; i++) {
		const struct gpu_region *region = gpu_region_of(pool->view->rows[i].region);

		if (region->state == GPU_LOST) {
			pool->state = GPU_LOST;
			atomic_store_explicit(&pool->lost, true, memory_order_release);
			reply_send(pool->device, &pool->opening, -EFAULT, "memory of its regions has gone away; register it "
				   "again");
			return false;
		}
		ready &= region->state == GPU_KNOWN;
	}
	return ready;
}

static int tell_pool(struct device *device, struct gpu_pool *pool)
{
	const struct device_pool *view = pool->view;
	struct wire_pool *message = (struct wire_pool *)device->message;
	struct wire_row *rows = (struct wire_row *)(message + 1);
	uint32_t layer = 0;

	*message = (struct wire_pool){
		.header = { WIRE_POOL, (uint32_t)(sizeof(*message) + view->n_rows * sizeof(*rows)) },
		.pool = pool->number, .part = view->part, .blocks = view->blocks, .n_blocks = view->n_blocks,
		.n_rows = view->n_rows, .n_layers = view->n_layers,
		.payload_bytes = view->layers[view->n_layers].payload,
	};
	for (uint32_t i = 0; i < view->n_rows; i++) {
		const struct pool_row *row = &view->rows[i];

		while (i >= view->layers[layer + 1].row)
			layer++;
		rows[i] = (struct wire_row){
			.payload = row->payload, .block_bytes = row->block_bytes, .offset = (uintptr_t)row->base,
			.block_stride = row->block_stride, .run_stride = row->run_stride, .runs = row->runs,
			.run_bytes = row->run_bytes, .region = gpu_region_of(row->region)->number, .layer = layer,
		};
	}
	return wire_send(device->minder.socket, false, message, NULL, 0);
}

static int tell_pools(struct device *device)
{
	for (struct gpu_pool *pool = device->pools; pool; pool = pool->next) {
		if (pool->state != GPU_WANTED || !is_ready(pool))
			continue;
		const int r = tell_pool(device, pool);

		if (r < 0)
			return r;
		ask(device, &pool->state, &pool->asked, GPU_ASKED);
	}
	return 0;
}

static int tell_closings(struct device *device)
{
	for (struct gpu_pool *pool = device->pools; pool; pool = pool->next) {
		if (!pool->closed || pool->state != GPU_KNOWN)
			continue;
		const int r = tell_number(device, WIRE_POOL_CLOSE, pool->number);

		if (r < 0)
			return r;
		ask(device, &pool->state, &pool->asked, GPU_CLOSING);
	}
	for (struct gpu_region *region = device->regions, *next; region; region = next) {
		next = region->next;
		if (region_is_over(region)) {
			region_free(region);
			continue;
		}
		if (!region->closed || region->state != GPU_KNOWN || region->seen.pools > 0)
			continue;
		const int r = tell_number(device, WIRE_REGION_CLOSE, region->number);

		if (r < 0)
			return r;
		ask(device, &region->state, &region->asked, GPU_CLOSING);
	}
	return 0;
}

static int tell_extents(struct device *device)
{
	for (uint32_t w = 0; w <= device->n_extents / 64; w++) {
		uint64_t news = atomic_load_explicit(&device->extents[w], memory_order_acquire) & ~device->minder.told[w];

		for (; news; news &= news - 1) {
			const uint32_t bit = (uint32_t)__builtin_ctzll(news);
			const int r = tell_number(device, WIRE_EXTENT, w * 64 + bit);

			if (r < 0)
				return r;
			device->minder.told[w] |= 1ull << bit;
		}
	}
	return 0;
}

int registry_tell(struct device *device)
{
	int r = tell_closings(device);

	if (r == 0)
		r = tell_regions(device);
	if (r == 0)
		r = tell_pools(device);
	return r == 0 ? tell_extents(device) : r;
}

/* ---- what the copier answers ----------------------------------------------------------------- */

static struct gpu_region *region_find(struct device *device, uint32_t number)
{
	struct gpu_region *region = device->regions;

	while (region && region->number != number)
		region = region->next;
	return region;
}

static struct gpu_pool *pool_find(struct device *device, uint32_t number)
{
	struct gpu_pool *pool = device->pools;

	while (pool && pool->number != number)
		pool = pool->next;
	return pool;
}

/* It cannot be opened (any more). Who waits is told; others find out by their next copy. */
static void region_lose(struct gpu_region *region, int error, const char *why)
{
	if (!region->opening && !region->closed)
		log_warning("memory of %s cannot be opened any more, its pools are dead: %s", region->device->name, why);
	region->state = GPU_LOST;
	atomic_store(&region->seen.faulted, 1);
	reply_send(region->device, &region->opening, error, why);
}

static void pool_lose(struct gpu_pool *pool, int error, const char *why)
{
	if (!pool->opening && !pool->closed)
		log_warning("a pool on %s cannot be opened any more: %s", pool->device->name, why);
	pool->state = GPU_LOST;
	atomic_store_explicit(&pool->lost, true, memory_order_release);
	reply_send(pool->device, &pool->opening, error, why);
}

static bool region_take(struct device *device, const struct wire_answer *answer)
{
	struct gpu_region *region = region_find(device, answer->number);

	if (!region || region->state != GPU_ASKED)
		return false;
	if (answer->result < 0) {
		region_lose(region, answer->result, answer->why);
		if (region_is_over(region))
			region_free(region);
		return true;
	}
	region->state = GPU_KNOWN;
	region->again = true;
	region->deaths = 0;
	if (device->gpu.control_block)
		block_add(device->gpu.control_block, STOKER_COUNTER_GPU_IMPORTS, 1);
	reply_send(device, &region->opening, 0, "");
	return true;
}

static bool pool_take(struct device *device, const struct wire_answer *answer)
{
	struct gpu_pool *pool = pool_find(device, answer->number);

	if (!pool || pool->state != GPU_ASKED)
		return false;
	if (answer->result < 0) {
		pool_lose(pool, answer->result, answer->why);
		if (pool->closed)
			pool_forget(pool);
		return true;
	}
	pool->state = GPU_KNOWN;
	pool->again = true;
	pool->deaths = 0;
	reply_send(device, &pool->opening, 0, "");
	return true;
}

static bool closing_take(struct device *device, const struct wire_answer *answer)
{
	struct gpu_region *region;
	struct gpu_pool *pool;

	if (answer->to == WIRE_POOL_CLOSE) {
		pool = pool_find(device, answer->number);
		if (!pool || pool->state != GPU_CLOSING)
			return false;
		pool_forget(pool);
		return true;
	}
	region = region_find(device, answer->number);
	if (!region || region->state != GPU_CLOSING)
		return false;
	if (answer->result < 0)
		log_warning("memory of %s could not be given back: %s", device->name, answer->why);
	region_free(region);
	return true;
}

bool registry_take(struct device *device, const struct wire_answer *answer)
{
	bool asked;

	switch (answer->to) {
	case WIRE_REGION:
		asked = region_take(device, answer);
		break;
	case WIRE_POOL:
		asked = pool_take(device, answer);
		break;
	case WIRE_REGION_CLOSE:
	case WIRE_POOL_CLOSE:
		asked = closing_take(device, answer);
		break;
	default:
		return false;
	}
	device->unanswered -= asked;
	return asked;
}

/* ---- copiers that end ------------------------------------------------------------------------ */

bool registry_is_back(const struct device *device)
{
	for (const struct gpu_region *region = device->regions; region; region = region->next)
		if (region->again && !region->closed && (region->state == GPU_WANTED || region->state == GPU_ASKED))
			return false;
	for (const struct gpu_pool *pool = device->pools; pool; pool = pool->next)
		if (pool->again && !pool->closed && (pool->state == GPU_WANTED || pool->state == GPU_ASKED))
			return false;
	return true;
}

static bool is_open_question(enum gpu_state state)
{
	return state == GPU_ASKED || state == GPU_CLOSING;
}

/* What was asked first, of all that has not been answered: UINT64_MAX: nothing. */
static uint64_t first_asked(const struct device *device)
{
	uint64_t first = UINT64_MAX;

	for (const struct gpu_region *region = device->regions; region; region = region->next)
		if (is_open_question(region->state) && region->asked < first)
			first = region->asked;
	for (const struct gpu_pool *pool = device->pools; pool; pool = pool->next)
		if (is_open_question(pool->state) && pool->asked < first)
			first = pool->asked;
	return first;
}

static void regions_down(struct device *device, uint64_t guilty, bool never_up, int error, const char *why)
{
	struct gpu_region *region, *next;

	for (region = device->regions; region; region = next) {
		/* One of which all has not been told yet is the last that it heard of. */
		const bool ended_over = region->sent_fds ? guilty == UINT64_MAX :
							   region->state == GPU_ASKED && region->asked == guilty;

		next = region->next;
		region->sent_fds = 0;
		if (region->closed) {
			region_free(region);
			continue;
		}
		if (region->state == GPU_LOST)
			continue;
		region->state = GPU_WANTED;
		region->deaths += ended_over;
		if (region->opening ? never_up || ended_over : region->deaths >= DEATHS_MAX)
			region_lose(region, error, why);
	}
}

static void pools_down(struct device *device, uint64_t guilty, bool never_up, int error, const char *why)
{
	struct gpu_pool *pool, *next;

	for (pool = device->pools; pool; pool = next) {
		const bool ended_over = pool->state == GPU_ASKED && pool->asked == guilty;

		next = pool->next;
		if (pool->closed) {
			pool_forget(pool);
			continue;
		}
		if (pool->state == GPU_LOST)
			continue;
		pool->state = GPU_WANTED;
		pool->deaths += ended_over;
		if (pool->opening ? never_up || ended_over : pool->deaths >= DEATHS_MAX)
			pool_lose(pool, error, why);
	}
}

void registry_down(struct device *device, bool never_up, int error, const char *why)
{
	const uint64_t guilty = first_asked(device);

	device->unanswered = 0;
	/* Pools first: closed regions go only when no view looks at them. */
	pools_down(device, guilty, never_up, error, why);
	regions_down(device, guilty, never_up, error, why);
}

void registry_free(struct device *device)
{
	struct device_answer answer;

	while (device->pools)
		pool_forget(device->pools);
	while (device->regions)
		region_free(device->regions);
	while (registry_answer(device, &answer))
		;
}
