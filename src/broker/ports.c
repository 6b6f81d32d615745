/*
 * The engine's ports, plugged into what is there: device backend, tiers, arena table, channels, and
 * the threads that answer control operations. And the way back: completions of device and tiers.
 *
 * A port that cannot even ask (a queue is full, a tier is gone) must not answer from within the call:
 * its failure is kept and handed over in the next round.
 */
#include <errno.h>
#include <string.h>

#include "src/broker/core-state.h"

static void late_add(struct core *core, int type, uint32_t number)
{
	assert(core->n_late < core->late_max);
	core->late[core->n_late].type = type;
	core->late[core->n_late++].number = number;
}

static struct image_identity identity_of(const struct core *core, const struct engine_object *object)
{
	const struct model *model = core->by_engine[object->model];
	struct image_identity identity = { .payload_bytes = model->layout->parts[object->part].payload_bytes };

	memcpy(identity.model_digest, model->identity, sizeof(identity.model_digest));
	return identity;
}

/* ---- disks and checks -------------------------------------------------------------------------- */

static void io_submit(struct core *core, bool write, const struct engine_io *io)
{
	const struct image_identity identity = identity_of(core, &io->object);
	struct tier *tier = core->tiers[io->tier];

	if (tier && tier_submit(tier, write, io, &identity) == 0)
		core->io_out++;
	else
		late_add(core, LATE_IO, io->io);
}

static void port_read(void *shell, const struct engine_io *io)
{
	io_submit(shell, false, io);
}

static void port_write(void *shell, const struct engine_io *io)
{
	io_submit(shell, true, io);
}

static void check_submit(struct core *core, bool seal, const struct engine_check *check)
{
	const struct image_identity identity = identity_of(core, &check->object);

	const struct core_device *host = &core->devices[0];

	if (host->device &&
	    (host->backend->check ? host->backend->check : device_check)(host->device, seal, check, &identity) == 0)
		core->copies_out++;
	else
		late_add(core, LATE_CHECK, check->io);
}

static void port_seal(void *shell, const struct engine_check *check)
{
	check_submit(shell, true, check);
}

static void port_verify(void *shell, const struct engine_check *check)
{
	check_submit(shell, false, check);
}

/* ---- copies ------------------------------------------------------------------------------------ */

static void port_copy(void *shell, const struct engine_copy *copy)
{
	struct core *core = shell;
	const struct device_copy order = {
		.request = *copy,
		.layout = core->by_engine[copy->model]->layout,
		.pools = core->channels[copy->client]->pools,
	};

	const struct core_device *to = &core->devices[copy->device];

	if (to->device && to->backend->copy(to->device, &order) == 0)
		core->copies_out++;
	else
		late_add(core, LATE_COPY, copy->copy);
}

static void port_copy_cancel(void *shell, uint32_t device, uint32_t copy)
{
	struct core *core = shell;
	const struct core_device *of = &core->devices[device];

	if (of->device)
		of->backend->cancel(of->device, copy);
}

static void port_watch(void *shell, uint32_t client, uint32_t slot, uint32_t index, uint32_t value)
{
	struct core *core = shell;

	watch_add(core, core->channels[client], slot, index, value);
}

static void port_unwatch(void *shell, uint32_t client, uint32_t slot)
{
	struct core *core = shell;

	watch_remove(core, core->channels[client], slot);
}

/* ---- clients ----------------------------------------------------------------------------------- */

static void port_publish(void *shell, uint32_t client, uint32_t slot, uint32_t generation,
			 const struct engine_answer *answer)
{
	struct core *core = shell;
	struct channel *channel = core->channels[client];
	const bool wanted = channel_publish(channel, slot, generation, answer);

	if (answer->measured)
		block_record(core->block, (enum stoker_histogram)(answer->measured - 1),
			     clock_now(&core->clock) - channel->slot[slot].taken_ns);
	if (!wanted || channel->wake || channel->out)
		return;
	channel->wake = true;
	core->wakes[core->n_wakes++] = (uint16_t)client;
}

static void port_expel(void *shell, uint32_t client, const char *why)
{
	struct core *core = shell;

	core_expel(core, core->channels[client], why);
}

static void port_client_gone(void *shell, uint32_t client)
{
	struct core *core = shell;
	struct channel *channel = core->channels[client];

	core_detach(core, channel);
	watch_remove_client(core, channel);
	for (uint32_t i = 0; i < core->n_wakes; i++) {
		if (core->wakes[i] == client)
			core->wakes[i--] = core->wakes[--core->n_wakes];
	}
	core->channels[client] = NULL;
	core->n_attached--;
	figures_client(core, channel, false);
	channel->gone_order = (struct order){ .type = ORDER_GONE, .channel = channel };
	link_tell(&core->control, &channel->gone_order);
}

/* ---- tables and epochs ------------------------------------------------------------------------- */

static void port_commit(void *shell, uint32_t record, const struct engine_place *place,
			const struct engine_object *object)
{
	struct core *core = shell;

	arena_commit(core->arena, record, place, object, core->by_engine[object->model]->identity);
}

static void port_uncommit(void *shell, uint32_t record)
{
	struct core *core = shell;

	arena_uncommit(core->arena, record);
}

static void port_held(void *shell, uint32_t record, bool held)
{
	struct core *core = shell;

	arena_set_held(core->arena, record, held);
}

static void slab_note(struct core *core, bool add, const struct engine_place *disk,
		      const struct engine_object *object)
{
	const struct image_identity identity = identity_of(core, object);

	/* A note that is lost makes a lost object after a restart, never a wrong one: its image says what it is. */
	if (core->tiers[disk->tier])
		(void)tier_slab(core->tiers[disk->tier], add, disk, object, &identity);
}

static void port_slab_add(void *shell, const struct engine_place *disk, const struct engine_object *object)
{
	slab_note(shell, true, disk, object);
}

static void port_slab_remove(void *shell, const struct engine_place *disk, const struct engine_object *object)
{
	slab_note(shell, false, disk, object);
}

static void port_persist_epoch(void *shell, uint32_t number, uint32_t epoch, uint64_t tag)
{
	struct core *core = shell;
	struct model *model = core->by_engine[number];

	model->saves_awaited = 1;
	model->save_failed = false;
	for (uint32_t i = 0; i < core->n_tiers; i++) {
		if (core->tiers[i] && tier_persist_epoch(core->tiers[i], model->identity, epoch, tag, number) == 0) {
			model->saves_awaited++;
			core->io_out++;
		}
	}
	model->save_order = (struct order){ .type = ORDER_SAVE_EPOCH, .model = { .model = model, .epoch = epoch,
										 .tag = tag } };
	link_tell(&core->control, &model->save_order);
}

static void model_forget(struct core *core, const struct model *model)
{
	core->models[model->number] = NULL;
	core->by_engine[model->engine] = NULL;
	figures_model_gone(core, model->number);
}

/*
 * All is written; it is drained when it would also survive the machine's end. True: a tier is still to answer. One that
 * is still being read has nothing of ours, and answers nobody before it works, which it may never do.
 */
static bool tiers_flush(struct core *core, struct order *order)
{
	order->drain.awaited = 0;
	for (uint32_t i = 0; i < core->n_tiers; i++) {
		if (core->tiers[i] && core->tier_rows[i].state != STOKER_TIER_RECOVERING &&
		    tier_flush(core->tiers[i], (uintptr_t)order) == 0) {
			order->drain.awaited++;
			core->io_out++;
		}
	}
	return order->drain.awaited > 0;
}

static void port_control(void *shell, engine_token token, enum stoker_status status, uint64_t value)
{
	struct core *core = shell;
	struct order *order = (struct order *)(uintptr_t)token;

	order->status = status;
	order->value = value;
	if (order->type == ORDER_POOL_DROP)
		order->pool.channel->pools[order->pool.number] = NULL;
	if (order->type == ORDER_RESET && status == STOKER_STATUS_OK)
		figures_model(core, order->model.model, order->model.epoch);
	if (order->type == ORDER_MODEL_CLOSE && status == STOKER_STATUS_OK)
		model_forget(core, order->model.model);
	if (order->type == ORDER_DRAIN && status == STOKER_STATUS_OK && tiers_flush(core, order))
		return;
	link_tell(&core->control, order);
}

const struct engine_ports core_ports = {
	.read = port_read,
	.write = port_write,
	.seal = port_seal,
	.verify = port_verify,
	.copy = port_copy,
	.copy_cancel = port_copy_cancel,
	.watch = port_watch,
	.unwatch = port_unwatch,
	.publish = port_publish,
	.expel = port_expel,
	.client_gone = port_client_gone,
	.commit = port_commit,
	.uncommit = port_uncommit,
	.held = port_held,
	.slab_add = port_slab_add,
	.slab_remove = port_slab_remove,
	.persist_epoch = port_persist_epoch,
	.control = port_control,
};

/* ---- completions ------------------------------------------------------------------------------- */

#define REAP 32u

static void tier_fail(struct core *core, uint32_t number)
{
	core->tier_rows[number].state = STOKER_TIER_FAILED;
	core->degraded = true;
	figures_tiers(core);
	figures_state(core);
	engine_tier_down(core->engine, number);
}

/*
 * An object was not what had been written: does its tier give back nothing else any more? A table that could
 * not be kept names places that have other objects by now, which are misses and no fault of the disk.
 */
static void tiers_look(struct core *core)
{
	for (uint32_t i = 0; i < core->n_tiers; i++) {
		struct engine_tier_figures figures;

		engine_tier_figures(core->engine, i, &figures);
		if (figures.corrupt_in_a_row < TIER_ERRORS_MAX || core->tier_rows[i].state != STOKER_TIER_SERVING)
			continue;
		core->corrupt_orders[i] = (struct order){ .type = ORDER_TIER_CORRUPT, .tier = { .number = i } };
		link_tell(&core->control, &core->corrupt_orders[i]);
		tier_fail(core, i);
	}
}

static void pool_dead(struct core *core, uint32_t client, uint32_t pool)
{
	if (core->channels[client])
		engine_pool_dead(core->engine, client, pool);
}

static void device_event_take(struct core *core, const struct device_event *event)
{
	switch (event->type) {
	case DEVICE_PROGRESS:
		engine_copy_progress(core->engine, event->copy, event->layers);
		break;
	case DEVICE_DONE:
		core->copies_out--;
		engine_copy_done(core->engine, event->copy, event->result);
		break;
	case DEVICE_CHECKED:
		core->copies_out--;
		engine_check_done(core->engine, event->copy, event->result, event->checksum);
		if (event->result == ENGINE_CORRUPT)
			tiers_look(core);
		break;
	case DEVICE_POOL_DEAD:
		pool_dead(core, event->client, event->pool);
		break;
	}
}

static void tier_event_take(struct core *core, uint32_t number, const struct tier_event *event)
{
	struct order *order;
	struct model *model;

	switch (event->type) {
	case TIER_IO_DONE:
		core->io_out--;
		engine_clock(core->engine, clock_now(&core->clock));	/* how long it took, not when the last turn was */
		engine_io_done(core->engine, event->io, event->result);
		break;
	case TIER_EPOCH_DONE:
		core->io_out--;
		model = core->by_engine[event->token];
		if (--model->saves_awaited == 0)
			engine_epoch_persisted(core->engine, model->engine, !model->save_failed);
		break;
	case TIER_FLUSHED:
		core->io_out--;
		order = (struct order *)(uintptr_t)event->token;
		if (--order->drain.awaited == 0)
			link_tell(&core->control, order);
		break;
	case TIER_FAILED:
		tier_fail(core, number);
		break;
	}
}

static bool late_reap(struct core *core)
{
	const uint32_t n = core->n_late;

	/* The engine may ask for more from within the event: that is for the next round. */
	for (uint32_t i = 0; i < n; i++) {
		const struct core_late late = core->late[i];

		if (late.type == LATE_IO)
			engine_io_done(core->engine, late.number, ENGINE_FAILED);
		else if (late.type == LATE_CHECK)
			engine_check_done(core->engine, late.number, ENGINE_FAILED, 0);
		else
			engine_copy_done(core->engine, late.number, ENGINE_FAILED);
	}
	core->n_late -= n;
	memmove(core->late, core->late + n, core->n_late * sizeof(core->late[0]));
	return n > 0;
}

bool core_reap(struct core *core)
{
	struct device_event device[REAP];
	struct tier_event tier[REAP];
	bool any = core->n_late > 0 && late_reap(core);
	uint32_t n;

	for (uint32_t d = 0; d < core->n_devices; d++) {
		const struct core_device *from = &core->devices[d];

		n = from->device ? from->backend->reap(from->device, device, REAP) : 0;
		for (uint32_t i = 0; i < n; i++)
			device_event_take(core, &device[i]);
		any |= n > 0;
	}
	for (uint32_t t = 0; t < core->n_tiers; t++) {
		n = core->tiers[t] ? tier_reap(core->tiers[t], tier, REAP) : 0;
		for (uint32_t i = 0; i < n; i++)
			tier_event_take(core, t, &tier[i]);
		any |= n > 0;
	}
	return any;
}
