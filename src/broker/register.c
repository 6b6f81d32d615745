/*
 * Regions and pools of a client: opened by the device backend here, where it may take its time, and
 * made known to the core when they are whole. What the core knows is closed only after it has let go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/broker/closer.h"
#include "src/broker/session.h"
#include "src/broker/share.h"
#include "src/device/guard.h"

static enum stoker_status status_of(int error)
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
		n += session->regions[i] ? session->n_ranges[i] : 0;
	return n;
}

/* Ranges are mappings, of which a process has some 65,000, and most of them take a guard. */
static bool has_room_for_ranges(const struct session *session, uint32_t n)
{
	const struct share ranges = { .total = GUARD_RANGES_MAX, .of = ranges_of, .by_tenant = true };

	return share_allows(session, &ranges, n);
}

void register_region(struct session *session, struct incoming *in)
{
	const struct message_region_add *message = (const void *)in->data;
	struct broker *broker = session->broker;
	struct message_answer answer = { 0 };
	uint32_t number = 0;

	if (message->n_fds < 1 || message->n_fds > MESSAGE_FDS_MAX || message->n_fds != in->n_fds) {
		broker_count(broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it registered a region with another number of descriptors than it says");
		return;
	}
	while (number < SESSION_REGIONS_MAX && session->regions[number])
		number++;
	if (number == SESSION_REGIONS_MAX) {
		session_refuse(session, message->header.request, STOKER_STATUS_REFUSED,
			       "%u regions are registered, which is the limit: drop some, or join them", number);
		return;
	}
	if (message->kind != broker->backend->kind) {
		session_refuse(session, message->header.request, STOKER_STATUS_BAD_REQUEST,
			       "this broker has no backend for memory of kind %u", message->kind);
		return;
	}
	if (!has_room_for_ranges(session, in->n_fds)) {
		session_refuse(session, message->header.request, STOKER_STATUS_REFUSED, "uid %u of tenant %s has its share "
			       "of the %u ranges that all regions may have: drop some, or join them",
			       (unsigned)session->peer.uid, broker->config.tenants[session->tenant].name, GUARD_RANGES_MAX);
		return;
	}
	for (uint32_t i = 0; i < in->n_fds; i++) {
		if (!closer_must(in->fds[i]))
			continue;
		session_refuse(session, message->header.request, STOKER_STATUS_BAD_REQUEST,
			       "cannot register range %u: its descriptor is no file in shared memory; use memfd_create, "
			       "shm_open or hugetlbfs", i);
		return;
	}
	in->n_fds = 0;	/* the backend's from here on */
	const int r = broker->backend->region_add(broker->device, message, in->fds, answer.reason,
						  &session->regions[number]);
	if (r < 0) {
		session->regions[number] = NULL;
		answer.status = status_of(r);
	} else {
		session->n_ranges[number] = (uint8_t)message->n_fds;
		answer.number = number;
		answer.value = broker->backend->region_bytes(session->regions[number]);
		answer.reason[0] = '\0';
	}
	session_answer(session, message->header.request, &answer);
}

void register_region_drop(struct session *session, const struct incoming *in)
{
	const struct message_drop *message = (const void *)in->data;
	const uint32_t number = message->number;
	const struct message_answer answer = { .number = number };

	if (number >= SESSION_REGIONS_MAX || !session->regions[number]) {
		session_refuse(session, message->header.request, STOKER_STATUS_NOT_FOUND,
			       "region %u is not registered", number);
		return;
	}
	for (uint32_t i = 0; i < CHANNEL_POOLS_MAX; i++) {
		if (!session->pools[i].pool || !(session->pools[i].regions & 1ull << number))
			continue;
		session_refuse(session, message->header.request, STOKER_STATUS_REFUSED,
			       "pool %u uses region %u: drop the pool first", i, number);
		return;
	}
	session->broker->backend->region_close(session->regions[number]);
	session->regions[number] = NULL;
	session_answer(session, message->header.request, &answer);
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

static void pool_send(struct session *session, const struct message_pool_add *message, struct model *model,
		      uint32_t part, uint32_t number)
{
	struct order *order = session_order(session, message->header.request, ORDER_POOL_ADD);

	if (!order) {
		session->broker->backend->pool_close(session->pools[number].pool);
		session->pools[number].pool = NULL;
		return;
	}
	order->pool.channel = session->channel;
	order->pool.model = model;
	order->pool.opened = session->pools[number].pool;
	order->pool.number = number;
	order->pool.part = part;
	order->pool.n_blocks = message->n_blocks;
	link_order(session->broker->link, order);
}

void register_pool(struct session *session, const struct incoming *in)
{
	const struct message_pool_add *message = (const void *)in->data;
	const struct message_plane *planes = (const void *)(message + 1);
	const uint64_t request = message->header.request;
	struct broker *broker = session->broker;
	struct model *model = describe_find(session, message->model);
	struct message_answer answer = { 0 };

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
	const bool room = has_room_for_a_pool(session);
	if (part < 0 || number < 0 || !room) {
		if (part < 0)
			session_refuse(session, request, STOKER_STATUS_BAD_REQUEST, "the model has no bytes in group %u, "
				       "shard %u", message->group, message->shard);
		else if (!room)
			session_refuse(session, request, STOKER_STATUS_REFUSED, "uid %u of tenant %s has its share of the "
				       "pools: drop some, or raise limits.pools", (unsigned)session->peer.uid,
				       broker->config.tenants[session->tenant].name);
		else
			session_refuse(session, request, STOKER_STATUS_REFUSED, "%u pools are registered, which is the "
				       "limit of a client: drop some", CHANNEL_POOLS_MAX);
		return;
	}
	struct session_pool *pool = &session->pools[number];
	const int r = broker->backend->pool_add(broker->device, session->number, (uint32_t)number, model->layout,
						(uint32_t)part, message->n_blocks, planes, message->n_planes,
						session->regions, SESSION_REGIONS_MAX, answer.reason, &pool->pool);
	if (r < 0) {
		pool->pool = NULL;
		answer.status = status_of(r);
		session_answer(session, request, &answer);
		return;
	}
	pool->regions = regions_of(planes, message->n_planes);
	pool->dropping = false;
	pool_send(session, message, model, (uint32_t)part, (uint32_t)number);
}

void register_pool_drop(struct session *session, const struct incoming *in)
{
	const struct message_drop *message = (const void *)in->data;
	const uint32_t number = message->number;
	struct order *order;

	if (number >= CHANNEL_POOLS_MAX || !session->pools[number].pool || session->pools[number].dropping) {
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

	if (pool->pool)
		session->broker->backend->pool_close(pool->pool);
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
	}
	session_answer(session, order->request, &answer);
	free(order);
	session_release(session);
}

void register_close(struct session *session)
{
	for (uint32_t i = 0; i < CHANNEL_POOLS_MAX; i++)
		pool_close(session, i);
	for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++) {
		if (session->regions[i])
			session->broker->backend->region_close(session->regions[i]);
		session->regions[i] = NULL;
	}
}
