/*
 * Regions and pools of a client: opened by the device that their memory is on, and made known to the core
 * when they are whole. What the core knows is closed only after it has let go.
 *
 * A device that answers later gets an order as its token, which counts as one of the session's: the session
 * lives until it is answered. One that leaves meanwhile closes what there is when the core has let it go;
 * the answers that are still to come then find nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/broker/closer.h"
#include "src/broker/devices.h"
#include "src/broker/session.h"
#include "src/broker/share.h"
#include "src/device/guard.h"

enum stoker_status register_status(int error)
{
	switch (error) {
	case -ENOMEM:
		return STOKER_STATUS_NO_MEMORY;
	case -EPERM:
	case -EACCES:
		return STOKER_STATUS_NOT_PERMITTED;
	default:
		return STOKER_STATUS_BAD_REQUEST;
	}
}

/* ---- regions ----------------------------------------------------------------------------------- */

static uint64_t ranges_of(const struct session *session)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++)
		n += session->regions[i].n_ranges;
	return n;
}

/* Ranges are mappings, of which a process has some 65,000, and most of them take a guard. */
static bool has_room_for_ranges(const struct session *session, uint32_t n)
{
	const struct share ranges = { .total = GUARD_RANGES_MAX, .of = ranges_of, .by_tenant = true };

	return share_allows(session, &ranges, n);
}

/** struct closing - a region of a backend that closes at once, on the way to the thread that does it. */
struct closing {
	const struct device_backend *backend;
	struct device_region *region;
};

static void closing_run(void *arg)
{
	const struct closing *closing = arg;

	closing->backend->region_close(closing->region, 0);
	free(arg);
}

/*
 * Nobody touches it any more. Where its client is gone, to unmap it is to free it: a hundred GiB of a staging
 * pool would keep this thread from all others for ten seconds. Returns as region_close of struct device_backend.
 */
static int region_let_go(struct session *session, const struct session_region *region, uint64_t token)
{
	const struct device_backend *backend = session->broker->devices[region->device].backend;
	struct closing *closing = backend->tend ? NULL : malloc(sizeof(*closing));

	if (!closing)
		return backend->region_close(region->region, token);
	*closing = (struct closing){ backend, region->region };
	closer_run(session->peer.uid, closing_run, closing);
	return 0;
}

int register_region_number(struct session *session, uint64_t request)
{
	uint32_t number = 0;

	while (number < SESSION_REGIONS_MAX && session->regions[number].state != REGION_FREE)
		number++;
	if (number < SESSION_REGIONS_MAX)
		return (int)number;
	session_refuse(session, request, STOKER_STATUS_REFUSED, "%u regions are registered, which is the limit: drop some, "
		       "or join them", number);
	return -1;
}

static void region_is_open(struct session *session, uint64_t request, uint32_t number)
{
	struct session_region *region = &session->regions[number];
	const struct broker_device *device = &session->broker->devices[region->device];
	const struct message_answer answer = { .number = number,
					       .value = device->backend->region_bytes(region->region) };

	region->state = REGION_OPEN;
	devices_proven(session->broker, region->device);
	session_answer(session, request, &answer);
}

void register_region_open(struct session *session, uint64_t request, uint32_t number, uint32_t device,
			  struct device_memory *memory)
{
	struct broker_device *on = &session->broker->devices[device];
	struct session_region *region = &session->regions[number];
	struct order *order = session_order(session, request, ORDER_REGION_ADD);
	struct message_answer answer = { 0 };

	if (!order) {
		for (uint32_t i = 0; i < memory->n_fds; i++)
			closer_close(session->peer.uid, memory->fds[i]);
		*region = (struct session_region){ 0 };
		return;
	}
	order->region = number;
	memory->token = (uint64_t)(uintptr_t)order;
	region->device = device;
	const int r = on->backend->region_add(on->device, memory, answer.reason, &region->region);
	if (r == DEVICE_LATER) {
		region->state = REGION_OPENING;
		on->next_ns = 0;
		return;
	}
	free(order);
	if (r < 0) {
		*region = (struct session_region){ 0 };
		answer.status = register_status(r);
		session_answer(session, request, &answer);
	} else {
		region_is_open(session, request, number);
	}
	session_release(session);
}

void register_region(struct session *session, struct incoming *in)
{
	const struct message_region_add *message = (const void *)in->data;
	const uint64_t request = message->header.request;
	struct broker *broker = session->broker;
	struct device_memory memory = { .uid = session->peer.uid, .n_fds = in->n_fds, .fds = in->fds, .host = message,
					.fence = -1 };

	if (message->n_fds < 1 || message->n_fds > MESSAGE_FDS_MAX || message->n_fds != in->n_fds) {
		broker_count(broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it registered a region with another number of descriptors than it says");
		return;
	}
	const int number = register_region_number(session, request);
	if (number < 0)
		return;
	if (message->kind != broker->devices[0].backend->kind) {
		session_refuse(session, request, STOKER_STATUS_BAD_REQUEST, "this broker has no backend for memory of kind "
			       "%u", message->kind);
		return;
	}
	if (!has_room_for_ranges(session, in->n_fds)) {
		session_refuse(session, request, STOKER_STATUS_REFUSED, "uid %u of tenant %s has its share of the %u ranges "
			       "that all regions may have: drop some, or join them", (unsigned)session->peer.uid,
			       broker->config.tenants[session->tenant].name, GUARD_RANGES_MAX);
		return;
	}
	for (uint32_t i = 0; i < in->n_fds; i++) {
		if (!closer_must(in->fds[i]))
			continue;
		session_refuse(session, request, STOKER_STATUS_BAD_REQUEST, "cannot register range %u: its descriptor is no "
			       "file in shared memory; use memfd_create, shm_open or hugetlbfs", i);
		return;
	}
	session->regions[number].n_ranges = in->n_fds;
	in->n_fds = 0;	/* the backend's from here on */
	register_region_open(session, request, (uint32_t)number, 0, &memory);
}

/* It is closed, by whomever it was open. */
static void region_is_closed(struct session *session, uint64_t request, uint32_t number)
{
	const struct message_answer answer = { .number = number };

	session->regions[number] = (struct session_region){ 0 };
	session_answer(session, request, &answer);
}

void register_region_drop(struct session *session, const struct incoming *in)
{
	const struct message_drop *message = (const void *)in->data;
	const uint64_t request = message->header.request;
	const uint32_t number = message->number;

	if (number >= SESSION_REGIONS_MAX || session->regions[number].state != REGION_OPEN) {
		session_refuse(session, request, STOKER_STATUS_NOT_FOUND, "region %u is not registered", number);
		return;
	}
	for (uint32_t i = 0; i < CHANNEL_POOLS_MAX; i++) {
		if (!session->pools[i].pool || !(session->pools[i].regions & 1ull << number))
			continue;
		session_refuse(session, request, STOKER_STATUS_REFUSED, "pool %u uses region %u: drop the pool first", i,
			       number);
		return;
	}
	struct session_region *region = &session->regions[number];
	struct broker_device *device = &session->broker->devices[region->device];
	struct order *order = session_order(session, request, ORDER_REGION_DROP);
	if (!order)
		return;
	order->region = number;
	if (region_let_go(session, region, (uint64_t)(uintptr_t)order) == DEVICE_LATER) {
		region->region = NULL;
		region->state = REGION_CLOSING;
		device->next_ns = 0;
		return;
	}
	free(order);
	region_is_closed(session, request, number);
	session_release(session);
}

/* ---- pools ------------------------------------------------------------------------------------- */

/* Regions that the planes name, as a mask; those out of range are the backend's to refuse. */
static uint64_t regions_of(const struct message_plane *planes, uint32_t n)
{
	uint64_t mask = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (planes[i].region < SESSION_REGIONS_MAX)
			mask |= 1ull << planes[i].region;
	}
	return mask;
}

static int pool_number(const struct session *session)
{
	for (int i = 0; i < (int)CHANNEL_POOLS_MAX; i++) {
		if (!session->pools[i].pool)
			return i;
	}
	return -1;
}

static uint64_t pools_of(const struct session *session)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < CHANNEL_POOLS_MAX; i++)
		n += session->pools[i].pool != NULL;
	return n;
}

static bool has_room_for_a_pool(const struct session *session)
{
	const struct share pools = { .total = session->broker->config.limits.pools, .of = pools_of, .by_tenant = true };

	return share_allows(session, &pools, 1);
}

/* Say why there can be no pool, if so. */
static bool pool_is_refused(struct session *session, uint64_t request, int part, int number,
			    const struct message_pool_add *message)
{
	if (part < 0)
		session_refuse(session, request, STOKER_STATUS_BAD_REQUEST, "the model has no bytes in group %u, shard %u",
			       message->group, message->shard);
	else if (!has_room_for_a_pool(session))
		session_refuse(session, request, STOKER_STATUS_REFUSED, "uid %u of tenant %s has its share of the pools: drop "
			       "some, or raise limits.pools", (unsigned)session->peer.uid,
			       session->broker->config.tenants[session->tenant].name);
	else if (number < 0)
		session_refuse(session, request, STOKER_STATUS_REFUSED, "%u pools are registered, which is the limit of a "
			       "client: drop some", CHANNEL_POOLS_MAX);
	else
		return false;
	return true;
}

/*
 * The device of the first plane's region, and the regions that it has; the others are as good as none. -1: some
 * of @mask are on another device.
 */
static int regions_on_one_device(const struct session *session, uint64_t mask,
				 struct device_region *ret[SESSION_REGIONS_MAX])
{
	int device = -1;

	for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++) {
		const struct session_region *region = &session->regions[i];

		ret[i] = region->state == REGION_OPEN ? region->region : NULL;
		if (!ret[i] || !(mask & 1ull << i))
			continue;
		if (device >= 0 && region->device != (uint32_t)device)
			return -1;
		device = (int)region->device;
	}
	for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++)
		ret[i] = device >= 0 && session->regions[i].device == (uint32_t)device ? ret[i] : NULL;
	return device < 0 ? 0 : device;		/* it will find that none of them is there */
}

/* Ask the device for it. Returns as pool_add of struct device_backend. */
static int pool_open_at(struct session *session, const struct message_pool_add *message, struct order *order,
			char *why)
{
	const struct message_plane *planes = (const void *)(message + 1);
	struct session_pool *pool = &session->pools[order->pool.number];
	struct device_region *regions[SESSION_REGIONS_MAX];
	struct broker_device *device;

	*pool = (struct session_pool){ .regions = regions_of(planes, message->n_planes) };
	const int on = regions_on_one_device(session, pool->regions, regions);
	if (on < 0) {
		snprintf(why, MESSAGE_REASON, "cannot add pool %u: its planes are on several devices; make a pool for each",
			 order->pool.number);
		return -EINVAL;
	}
	pool->device = order->pool.device = (uint32_t)on;
	device = &session->broker->devices[on];
	const int r = device->backend->pool_add(device->device, (uint64_t)(uintptr_t)order, session->number,
						order->pool.number, order->pool.model->layout, order->pool.part,
						message->n_blocks, planes, message->n_planes, regions,
						SESSION_REGIONS_MAX, why, &pool->pool);
	if (r < 0)
		return r;
	order->pool.opened = pool->pool;
	device->next_ns = 0;
	return r;
}

void register_pool(struct session *session, const struct incoming *in)
{
	const struct message_pool_add *message = (const void *)in->data;
	const uint64_t request = message->header.request;
	struct model *model = describe_find(session, message->model);
	struct message_answer answer = { 0 };
	struct order *order;

	if (!model) {
		session_refuse(session, request, STOKER_STATUS_BAD_REQUEST, "model %u is not open here", message->model);
		return;
	}
	if (model->state != MODEL_OPEN) {
		session_refuse(session, request, STOKER_STATUS_NO_LAYOUT, "the model has not been described yet: open it "
			       "by its description");
		return;
	}
	const int part = model_part_find(model->layout, message->group, message->shard);
	const int number = pool_number(session);
	if (pool_is_refused(session, request, part, number, message))
		return;
	order = session_order(session, request, ORDER_POOL_ADD);
	if (!order)
		return;
	order->pool.channel = session->channel;
	order->pool.model = model;
	order->pool.number = (uint32_t)number;
	order->pool.part = (uint32_t)part;
	order->pool.n_blocks = message->n_blocks;
	const int r = pool_open_at(session, message, order, answer.reason);
	if (r == 0)
		link_order(session->broker->link, order);
	if (r >= 0)
		return;
	session->pools[number] = (struct session_pool){ 0 };
	answer.status = register_status(r);
	session_answer(session, request, &answer);
	free(order);
	session_release(session);
}

void register_pool_drop(struct session *session, const struct incoming *in)
{
	const struct message_drop *message = (const void *)in->data;
	const uint32_t number = message->number;
	struct order *order;

	if (number >= CHANNEL_POOLS_MAX || !session->pools[number].pool || !session->pools[number].known ||
	    session->pools[number].dropping) {
		session_refuse(session, message->header.request, STOKER_STATUS_NOT_FOUND,
			       "pool %u is not registered", number);
		return;
	}
	order = session_order(session, message->header.request, ORDER_POOL_DROP);
	if (!order)
		return;
	session->pools[number].dropping = true;
	order->pool.channel = session->channel;
	order->pool.number = number;
	link_order(session->broker->link, order);
}

/* ---- what the core says ------------------------------------------------------------------------ */

static void pool_close(struct session *session, uint32_t number)
{
	struct session_pool *pool = &session->pools[number];
	struct broker_device *device = &session->broker->devices[pool->device];

	if (pool->pool) {
		device->backend->pool_close(pool->pool);
		device->next_ns = device->backend->tend ? 0 : device->next_ns;
	}
	*pool = (struct session_pool){ 0 };
}

void register_answer(struct session *session, struct order *order)
{
	const uint32_t number = order->pool.number;
	struct message_answer answer = { .number = number };

	if (order->type == ORDER_POOL_DROP) {
		pool_close(session, number);
	} else if (order->result < 0) {
		pool_close(session, number);
		answer.status = STOKER_STATUS_NO_MEMORY;
		snprintf(answer.reason, sizeof(answer.reason), "the broker has as many pools as it can: raise "
			 "limits.pools");
	} else {
		session->pools[number].known = true;
	}
	session_answer(session, order->request, &answer);
	free(order);
	session_release(session);
}

/* ---- what a device says later ------------------------------------------------------------------ */

static void pool_answer(struct session *session, struct order *order, const struct device_answer *from)
{
	const struct message_answer answer = { .status = register_status(from->result) };

	if (from->result == 0) {
		link_order(session->broker->link, order);
		return;
	}
	pool_close(session, order->pool.number);
	session_refuse(session, order->request, answer.status, "%s", from->why);
	free(order);
	session_release(session);
}

static void region_answer(struct session *session, const struct order *order, const struct device_answer *from)
{
	struct session_region *region = &session->regions[order->region];
	struct broker_device *device = &session->broker->devices[region->device];

	if (order->type == ORDER_REGION_DROP) {
		region_is_closed(session, order->request, order->region);
		return;
	}
	if (from->result == 0) {
		region_is_open(session, order->request, order->region);
		return;
	}
	/* Asked for outright, a driver that cannot be opened is something that is lacking. */
	if (!device->proven && (from->result == -ENOENT || from->result == -ENOSYS) &&
	    strcmp(session->broker->config.gpu.enabled, "yes") == 0)
		broker_degraded(session->broker);
	device->backend->region_close(region->region, 0);
	device->next_ns = 0;
	*region = (struct session_region){ 0 };
	session_refuse(session, order->request, register_status(from->result), "%s", from->why);
}

void register_device_answer(const struct device_answer *answer)
{
	struct order *order = (struct order *)(uintptr_t)answer->token;
	struct session *session = order->owner;

	/* Of one that leaves nothing is made known any more: all that it has is closed when the core lets it go. */
	if (session->state != SESSION_LEAVING && order->type == ORDER_POOL_ADD) {
		pool_answer(session, order, answer);
		return;
	}
	if (session->state != SESSION_LEAVING)
		region_answer(session, order, answer);
	free(order);
	session_release(session);
}

void register_close(struct session *session)
{
	for (uint32_t i = 0; i < CHANNEL_POOLS_MAX; i++)
		pool_close(session, i);
	for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++) {
		struct session_region *region = &session->regions[i];
		struct broker_device *device = &session->broker->devices[region->device];

		if (region->region) {
			region_let_go(session, region, 0);
			device->next_ns = device->backend->tend ? 0 : device->next_ns;
		}
		*region = (struct session_region){ 0 };
	}
}
