/*
 * What the core thread does with orders: one function an order, one table of them. Answers that the
 * engine gives later come back through the port `control`, with the order's address as the token.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "src/broker/core-state.h"

/* A bounded number a look, so that a recovery in full flow cannot hold up the rings. */
#define ORDERS_A_LOOK 4

static engine_token token_of(struct order *order)
{
	return (engine_token)(uintptr_t)order;
}

/* ---- clients ----------------------------------------------------------------------------------- */

static void client_in(struct core *core, struct order *order)
{
	struct channel *channel = order->channel;
	const struct engine_client_config client = {
		.tenant = channel->tenant,
		.user = channel->row.uid,
		.slots_small = channel->plan.geometry.slots_small,
		.slots = channel->plan.slots,
	};
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = channel->number };

	core->channels[channel->number] = channel;
	core->n_attached++;
	engine_client_in(core->engine, channel->number, &client);
	figures_client(core, channel, true);
	if (epoll_ctl(core->epoll, EPOLL_CTL_ADD, channel->doorbell, &event) < 0)
		core_expel(core, channel, "its doorbell cannot be listened to: the machine is out of memory");
	link_tell(&core->control, order);
}

static void client_out(struct core *core, struct order *order)
{
	struct channel *channel = order->channel;

	core_detach(core, channel);
	/* The order goes home first: GONE ends the channel, of which it may be a part. */
	link_tell(&core->control, order);
	engine_client_out(core->engine, channel->number);
}

/* ---- models, epochs, pools --------------------------------------------------------------------- */

static void model_open(struct core *core, struct order *order)
{
	struct model *model = order->model.model;
	const int64_t number = engine_model_open(core->engine, order->model.config);

	order->result = number < 0 ? (int)number : 0;
	if (number >= MODELS_MAX)
		order->result = -ENOMEM;
	if (order->result == 0) {
		model->engine = (uint32_t)number;
		core->models[model->number] = model;
		core->by_engine[number] = model;
		figures_model(core, model, order->model.config->epoch);
	}
	link_tell(&core->control, order);
}

static void model_close(struct core *core, struct order *order)
{
	engine_model_close(core->engine, order->model.model->engine, order->model.evict,
			   token_of(order));
}

/*
 * An epoch that a crash kept from becoming durable is known to nobody but the objects of it that had been
 * written already. It must not be used again: they would be taken for objects of the new weights.
 */
static void reset_begin(struct core *core, struct order *order)
{
	const struct model *model = order->model.model;

	if (order->model.epoch <= model->epoch_named && model->epoch_named < UINT32_MAX)
		order->model.epoch = model->epoch_named + 1;
	engine_reset(core->engine, model->engine, order->model.epoch, order->model.tag, token_of(order));
}

/*
 * A broker that drains may well be stopped before it has read its tables: whoever waits for an epoch is told
 * now that there will be none, or it would never hear.
 */
static void reset_refuse(struct core *core, struct order *order)
{
	order->status = STOKER_STATUS_STARTING;
	link_tell(&core->control, order);
}

static void reset(struct core *core, struct order *order)
{
	if (core->phase == CORE_SERVES) {
		reset_begin(core, order);
	} else if (core->draining) {
		reset_refuse(core, order);
	} else {
		order->next = core->resets;
		core->resets = order;
	}
}

static struct order *reset_next(struct core *core)
{
	struct order *order = core->resets;

	if (order)
		core->resets = order->next;
	return order;
}

static void epoch_saved(struct core *core, struct order *order)
{
	struct model *model = order->model.model;

	/* The state directory's word is the one that counts; a tier that missed it loses those objects. */
	model->save_failed |= order->result < 0;
	if (--model->saves_awaited == 0)
		engine_epoch_persisted(core->engine, model->engine, !model->save_failed);
}

static void pool_add(struct core *core, struct order *order)
{
	struct channel *channel = order->pool.channel;
	const uint32_t number = order->pool.number, model = order->pool.model->engine;

	order->result = 0;
	if (channel->out)
		order->result = -EPIPE;
	else
		order->result = engine_pool_added(core->engine, channel->number, number, model, order->pool.part,
						  order->pool.n_blocks, order->pool.device);
	if (order->result == 0) {
		channel->pools[number] = order->pool.opened;
		channel->pool_model[number] = model;
	}
	link_tell(&core->control, order);
}

static void pool_drop(struct core *core, struct order *order)
{
	engine_pool_drop(core->engine, order->pool.channel->number, order->pool.number, token_of(order));
}

/* ---- verbs ------------------------------------------------------------------------------------- */

static void tenant(struct core *core, struct order *order)
{
	engine_tenant(core->engine, order->tenant.number, &order->tenant.quota);
	link_tell(&core->control, order);
}

static void ping(struct core *core, struct order *order)
{
	link_tell(&core->control, order);
}

static void evict(struct core *core, struct order *order)
{
	engine_evict(core->engine, order->value, token_of(order));
}

static void clear(struct core *core, struct order *order)
{
	engine_clear(core->engine, token_of(order));
}

static void accounts(struct core *core, struct order *order)
{
	const uint64_t rows = engine_account_rows(core->engine);
	struct order_accounts *ret = order->accounts;
	uint64_t row = order->value;

	for (uint32_t i = 0; i < MESSAGE_ACCOUNTS_MAX && row < rows; i++, row++)
		ret->n += engine_account_at(core->engine, (uint32_t)row, &ret->each[ret->n]);
	order->value = row < rows ? row : 0;
	link_tell(&core->control, order);
}

static void drain(struct core *core, struct order *order)
{
	struct order *waiting;

	core->draining = true;
	figures_state(core);
	while ((waiting = reset_next(core)))
		reset_refuse(core, waiting);
	engine_drain(core->engine, token_of(order));
}

static void quit(struct core *core, struct order *order)
{
	core->quit = true;
	core->quit_deadline = clock_now(&core->clock) + CORE_QUIT_NS;
	link_tell(&core->control, order);
}

/* ---- arena, tiers, recovery -------------------------------------------------------------------- */

static void machine(struct core *core, struct order *order)
{
	core->arena = order->machine.arena;
	core->devices[0] = (struct core_device){ order->machine.backend, order->machine.device };
	core->n_devices = 1;
	link_tell(&core->control, order);
}

static void device(struct core *core, struct order *order)
{
	const struct core_device added = { order->device.backend, order->device.device };

	core->devices[order->device.number] = added;
	if (core->n_devices <= order->device.number)
		core->n_devices = order->device.number + 1;
	for (uint32_t i = 0; added.backend->extent && i < core->n_extents; i++) {
		if (core->extents[i / 64] & 1ull << i % 64)
			added.backend->extent(added.device, i);
	}
	link_tell(&core->control, order);
}

static void tier_open_order(struct core *core, struct order *order)
{
	const uint32_t number = order->tier.number;

	core->tiers[number] = order->tier.tier;
	core->tier_rows[number].state = STOKER_TIER_RECOVERING;
	for (uint32_t i = 0; i < core->n_extents; i++) {
		if (core->extents[i / 64] & 1ull << i % 64)
			tier_extent_ready(core->tiers[number], i);
	}
	link_tell(&core->control, order);
}

static void tier_up(struct core *core, struct order *order)
{
	struct control_tier *row = &core->tier_rows[order->tier.number];

	if (order->result < 0) {
		row->state = STOKER_TIER_FAILED;
		core->degraded = true;
		core->tiers[order->tier.number] = NULL;	/* nobody would ever answer */
		/* Or what is stored would wait for it, and keep its place in the arena, for ever. */
		engine_tier_down(core->engine, order->tier.number);
	} else {
		row->state = STOKER_TIER_SERVING;
		engine_tier_up(core->engine, order->tier.number);
	}
	figures_tiers(core);
	figures_state(core);
}

static void extent(struct core *core, struct order *order)
{
	const uint32_t i = order->extent;

	if (order->result < 0) {
		engine_extent_failed(core->engine, i);
		core->degraded = true;
		figures_state(core);
		return;
	}
	core->extents[i / 64] |= 1ull << i % 64;
	for (uint32_t t = 0; t < core->n_tiers; t++) {
		if (core->tiers[t])
			tier_extent_ready(core->tiers[t], i);
	}
	for (uint32_t d = 0; d < core->n_devices; d++) {
		if (core->devices[d].device && core->devices[d].backend->extent)
			core->devices[d].backend->extent(core->devices[d].device, i);
	}
	engine_extent_added(core->engine, i);
}

static void found(struct core *core, struct order *order)
{
	for (uint32_t i = 0; i < order->found->n; i++) {
		const uint32_t record = order->found->each[i].record;
		const struct engine_object *object = &order->found->each[i].object;
		struct model *model = object->model != ENGINE_NONE ? core->by_engine[object->model] : NULL;

		if (model && object->epoch > model->epoch_named)
			model->epoch_named = object->epoch;
		/* A model that nobody remembers has no number: its objects are not known either. */
		const bool taken = object->model != ENGINE_NONE &&
				   engine_recover(core->engine, record, &order->found->each[i].place, object,
						  order->found->each[i].was_held) != ENGINE_NONE;

		if (taken)
			core_count(core, record != ENGINE_NONE ? STOKER_COUNTER_RECOVERED_L1 :
				   STOKER_COUNTER_RECOVERED_DISK);
		else
			core_count(core, STOKER_COUNTER_RECOVERY_DROPPED);
		/* What the engine does not know must not be believed by the next broker either. */
		if (!taken && record != ENGINE_NONE)
			arena_uncommit(core->arena, record);
	}
}

static void serve(struct core *core, struct order *order)
{
	struct order *waiting;

	(void)order;
	engine_serve(core->engine, clock_now(&core->clock));
	core->phase = CORE_SERVES;
	figures_state(core);
	while ((waiting = reset_next(core)))
		reset_begin(core, waiting);
}

static void degraded(struct core *core, struct order *order)
{
	core->degraded = true;
	figures_state(core);
	link_tell(&core->control, order);
}

/* ---- the tables -------------------------------------------------------------------------------- */

static void (*const order_handlers[])(struct core *core, struct order *order) = {
	[ORDER_CLIENT_IN] = client_in,
	[ORDER_CLIENT_OUT] = client_out,
	[ORDER_MODEL_OPEN] = model_open,
	[ORDER_MODEL_CLOSE] = model_close,
	[ORDER_POOL_ADD] = pool_add,
	[ORDER_POOL_DROP] = pool_drop,
	[ORDER_RESET] = reset,
	[ORDER_TENANT] = tenant,
	[ORDER_PING] = ping,
	[ORDER_EVICT] = evict,
	[ORDER_CLEAR] = clear,
	[ORDER_ACCOUNTS] = accounts,
	[ORDER_DRAIN] = drain,
	[ORDER_QUIT] = quit,
	[ORDER_MACHINE] = machine,
	[ORDER_DEVICE] = device,
	[ORDER_TIER_OPEN] = tier_open_order,
	[ORDER_EPOCH_SAVED] = epoch_saved,
	[ORDER_DEGRADED] = degraded,
	/* The starter's: each goes back to it, to be used again. */
	[ORDER_TIER_UP] = tier_up,
	[ORDER_EXTENT] = extent,
	[ORDER_FOUND] = found,
	[ORDER_SERVE] = serve,
};

bool core_orders(struct core *core)
{
	struct order *order;
	int n = 0;

	while (n < ORDERS_A_LOOK && (order = link_take(&core->control))) {
		order_handlers[order->type](core, order);
		n++;
	}
	while (n < ORDERS_A_LOOK && (order = link_take(&core->starter))) {
		order_handlers[order->type](core, order);
		link_tell(&core->starter, order);
		n++;
	}
	return n > 0;
}
