/*
 * Requests of thousands of blocks, and rushes of all clients at once: what takes the engine more steps than a
 * turn, or a step of a job, has.
 *
 * A bulk request names hundreds of chunks with all their block ids, most of which are no block: a STORE refuses
 * those chunks as incomplete, a RETRIEVE leaves their blocks alone. A few neighbouring chunks in their midst,
 * those from slot->base on, have blocks, and are known to the oracle as any others.
 */
#include "tests/simulation/sim.h"

/* Part of a bulk request under way: what lies in the large slot's memory. */
struct bulk {
	struct stoker_segment *segments;
	uint32_t *ids;
	uint32_t n_segments, n_ids, room;
};

static struct bulk bulk_at(struct sim_slot *slot, size_t at)
{
	struct bulk bulk = { .segments = (struct stoker_segment *)(slot->big + ((at + 7) & ~(size_t)7)) };

	bulk.ids = (uint32_t *)(bulk.segments + SIM_PARTS);
	bulk.room = (uint32_t)((uint32_t *)(slot->big + STOKER_LARGE_KEYS * sizeof(struct stoker_wire_key)) - bulk.ids);
	return bulk;
}

/* @n chunks from the first on, with real blocks for those that slot->blocks has; false: no room for so many ids. */
static bool bulk_segment(struct sim *sim, struct bulk *bulk, const struct sim_slot *slot, uint32_t part, uint32_t n)
{
	const struct engine_part_config *config = &sim->models[slot->model].config.parts[part];
	const bool runs = sim_chance(&sim->random, 300);
	const uint32_t from = bulk->n_ids;

	if (n * config->blocks > bulk->room - bulk->n_ids)
		return false;
	for (uint32_t c = 0; c < n; c++)
		for (uint32_t b = 0; b < config->blocks; b++) {
			const uint32_t in = c - slot->base;	/* wraps: not one of the few */
			const uint32_t id = in < slot->n ? slot->blocks[part][in][b] : STOKER_NO_BLOCK;

			if (runs && bulk->n_ids > from && id == STOKER_NO_BLOCK && bulk->ids[bulk->n_ids - 2] == id) {
				bulk->ids[bulk->n_ids - 1]++;
				continue;
			}
			bulk->ids[bulk->n_ids++] = id;
			if (runs)
				bulk->ids[bulk->n_ids++] = 1;
		}
	bulk->segments[bulk->n_segments++] = (struct stoker_segment){
		.pool = slot->part_pool[part], .group = config->group, .shard = config->shard, .first = 0, .chunks = n,
		.n_ids = bulk->n_ids - from, .flags = runs ? STOKER_SEGMENT_RUNS : 0,
	};
	return true;
}

static void bulk_write(struct sim_slot *slot, const struct bulk *bulk)
{
	slot->request.segments = bulk->segments;
	slot->request.ids = bulk->ids;
	slot->request.head.n_segments = bulk->n_segments;
	slot->request.head.n_ids = bulk->n_ids;
	slot->bulk = true;
}

/* Blocks for each part of the few chunks of @slot; false: a pool is dropped, or has too few. */
static bool bulk_blocks(struct sim *sim, uint32_t client, struct sim_slot *slot, bool store)
{
	const struct engine_model_config *config = &sim->models[slot->model].config;

	for (uint32_t part = 0; part < config->n_parts; part++) {
		slot->part_pool[part] = slot->model * SIM_PARTS + part;
		slot->lies |= sim->clients[client].pools[slot->part_pool[part]].dropped;
		slot->harmed |= sim->clients[client].pools[slot->part_pool[part]].dead;
		for (uint32_t c = 0; c < slot->n; c++) {
			const uint32_t blocks = store ? oracle_blocks(sim, slot->model, part, slot->keys[c])
						      : config->parts[part].blocks;

			if (!request_take_blocks(sim, client, slot, part, c, blocks))
				return false;
			if (store)
				request_fill(sim, client, slot, part, c);
		}
	}
	return true;
}

/* All that was taken is given back: there were too few. */
static void bulk_give_up(struct sim *sim, uint32_t client, struct sim_slot *slot)
{
	for (uint32_t part = 0; part < SIM_PARTS; part++)
		for (uint32_t c = 0; c < slot->n && slot->part_pool[part] != ENGINE_NONE; c++)
			request_untake(sim, client, slot, part, c);
}

void bulk_store(struct sim *sim, uint32_t client)
{
	const uint32_t s = SIM_SLOTS - 1, model = client_model(sim, client);
	struct sim_slot *slot = client_slot(sim, client, s);
	const uint32_t first = sim_below(&sim->random, SIM_KEYS), n = 100 + sim_below(&sim->random, SIM_KEYS - 100);
	struct stoker_wire_key *keys = (struct stoker_wire_key *)slot->big;
	uint32_t *tokens = (uint32_t *)(keys + n);
	struct bulk bulk = bulk_at(slot, n * (sizeof(*keys) + sizeof(*tokens)));
	bool fits;

	if (slot->state != SIM_FREE || pools_lack(sim, client, model))
		return;
	slot = client_begin(sim, client, s, STOKER_OP_STORE, model);
	slot->n = 1 + sim_below(&sim->random, 8);
	slot->base = sim_below(&sim->random, n - slot->n);
	slot->total = n;
	for (uint32_t c = 0; c < slot->n; c++)
		slot->keys[c] = (first + slot->base + c) % SIM_KEYS;
	for (uint32_t c = 0; c < n; c++) {
		const struct sim_key *key = &sim->keys[(first + c) % SIM_KEYS];

		keys[c] = key->key;
		tokens[c] = key->is_short ? sim->models[model].config.chunk_tokens / 2 : sim->models[model].config.chunk_tokens;
	}
	fits = bulk_blocks(sim, client, slot, true);
	for (uint32_t part = 0; part < sim->models[model].config.n_parts && fits; part++) {
		fits = bulk_segment(sim, &bulk, slot, part, n);
		slot->asked |= 1u << part;
	}
	if (!fits) {
		bulk_give_up(sim, client, slot);
		return;
	}
	bulk_write(slot, &bulk);
	for (uint32_t part = 0; part < sim->models[model].config.n_parts; part++)
		slot->asked_blocks += n * sim->models[model].config.parts[part].blocks;
	slot->request.keys = keys;
	slot->request.tokens = tokens;
	slot->request.head.n_keys = n;
	slot->request.line.store.flags = STOKER_STORE_TOKENS;
	for (uint32_t c = 0; c < slot->n && !slot->lies; c++)
		for (uint32_t part = 0; part < sim->models[model].config.n_parts; part++)
			sim->models[model].may[slot->keys[c]][part] |= sim_epoch_bit(slot->epoch);
	client_ask(sim, client, slot);
}

void bulk_retrieve(struct sim *sim, uint32_t client)
{
	const uint32_t s = SIM_SLOTS - 1;
	const struct sim_lease *lease = NULL;
	struct sim_slot *slot = client_slot(sim, client, s);
	struct bulk bulk = bulk_at(slot, 0);

	for (uint32_t tries = 0; tries < sim->n_leases && !lease; tries++) {
		const uint32_t i = sim_below(&sim->random, sim->n_leases);

		if (sim->leases[i].end > SIM_DEPTH && !sim->leases[i].ended &&
		    model_tenant(sim, sim->leases[i].model) == client_tenant(sim, client))
			lease = &sim->leases[i];
	}
	if (slot->state != SIM_FREE || !lease || lease->n == 0 || pools_lack(sim, client, lease->model))
		return;
	slot = client_begin(sim, client, s, STOKER_OP_RETRIEVE, lease->model);
	slot->lease = *lease;
	slot->epoch = lease->epoch;
	slot->base = lease->base;
	slot->n = lease->n;
	if (!bulk_blocks(sim, client, slot, false))
		goto enough;
	for (uint32_t part = 0; part < sim->models[lease->model].config.n_parts; part++)
		if (!bulk_segment(sim, &bulk, slot, part, lease->end))
			goto enough;
	bulk_write(slot, &bulk);
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	slot->loose = ~lease->exists;
	slot->certain = client_lease_certain(sim, lease, 0) && !slot->lies;
	slot->request.line.retrieve.reader = 0;
	client_ask(sim, client, slot);
	return;
enough:
	bulk_give_up(sim, client, slot);
}

/* Everybody asks for as much as there are slots for, before the engine has a turn. */
void bulk_rush(struct sim *sim)
{
	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		if (!sim->clients[c].attached || sim->clients[c].leaving)
			continue;
		switch (sim_below(&sim->random, 4)) {
		case 0: bulk_store(sim, c); break;
		case 1: bulk_retrieve(sim, c); break;
		default: chain_ask(sim, c, true); break;
		}
		for (uint32_t i = 0; i < 4 * SIM_SLOTS && !sim->clients[c].leaving; i++)
			client_act(sim, c);
	}
	sim_turn(sim);
}
