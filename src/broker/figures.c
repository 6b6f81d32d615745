/*
 * What the control page shows: state, gauges, and the rows of tiers, clients and models. The core
 * thread writes all of it, at most every 100 ms while it works, and once more before it sleeps.
 */
#include <string.h>

#include "src/broker/core-state.h"

void figures_state(struct core *core)
{
	enum stoker_state state = STOKER_STATE_SERVING;

	if (core->draining)
		state = STOKER_STATE_DRAINING;
	else if (core->phase == CORE_RECOVERING)
		state = STOKER_STATE_STARTING;
	else if (core->degraded)
		state = STOKER_STATE_DEGRADED;
	atomic_store_explicit(&core->page->state, state, memory_order_release);
}

static void gauges_write(struct core *core)
{
	uint64_t gauges[STOKER_GAUGE_END] = { 0 };

	engine_gauges(core->engine, gauges);
	for (uint32_t i = 0; i < STOKER_GAUGE_END; i++)
		atomic_store_explicit(&core->page->gauges[i], gauges[i], memory_order_relaxed);
}

void figures_tiers(struct core *core)
{
	for (uint32_t i = 0; i < core->n_tiers; i++) {
		struct control_tier *row = &core->tier_rows[i];
		struct engine_tier_figures figures;

		engine_tier_figures(core->engine, i, &figures);
		row->used_bytes = figures.used_bytes;
		row->objects = figures.objects;
		row->read_errors = figures.read_errors;
		row->write_errors = figures.write_errors;
		row->checksum_errors = figures.checksum_errors;
		control_write_tier(core->page, i, row);
	}
}

static void client_write(struct core *core, struct channel *channel)
{
	struct control_client *row = &channel->row;
	struct engine_client_figures figures;

	engine_client_figures(core->engine, channel->number, &figures);
	row->jobs = figures.jobs;
	row->leases = figures.leases;
	row->holds = figures.holds;
	row->pools = figures.pools;
	row->lookups = figures.lookups;
	row->retrieves = figures.retrieves;
	row->stores = figures.stores;
	control_write_client(core->page, channel->number, row);
}

void figures_client(struct core *core, struct channel *channel, bool in)
{
	static const struct control_client nobody;

	if (in)
		client_write(core, channel);
	else
		control_write_client(core->page, channel->number, &nobody);
}

void figures_model(struct core *core, const struct model *model, uint32_t epoch)
{
	struct control_model row = { .used = 1, .epoch = epoch, .parts = model->layout->n_parts,
				     .chunk_tokens = model->layout->wire.chunk_tokens };

	memcpy(row.digest, model->digest, sizeof(row.digest));
	for (uint32_t i = 0; i < model->layout->n_parts; i++) {
		if (model->layout->parts[i].image_bytes > row.object_bytes)
			row.object_bytes = model->layout->parts[i].image_bytes;
	}
	control_write_model(core->page, model->number, &row);
}

void figures_model_gone(struct core *core, uint32_t number)
{
	static const struct control_model none;

	control_write_model(core->page, number, &none);
}

void figures_refresh(struct core *core)
{
	gauges_write(core);
	figures_tiers(core);
	for (uint32_t i = 0; i < CORE_CLIENTS; i++) {
		if (core->channels[i])
			client_write(core, core->channels[i]);
	}
	figures_state(core);
}
