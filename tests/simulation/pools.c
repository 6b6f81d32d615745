/*
 * Pools of clients: registered, with the host at once and with a GPU later; dropped while they are in use or not; and
 * dead, when the memory behind them is gone.
 */
#include "tests/simulation/sim.h"

/* Memory of its own, zeroed, registered: with a GPU it is known later, if at all. */
void pools_add(struct sim *sim, uint32_t number, uint32_t p)
{
	struct sim_client *client = &sim->clients[number];
	struct sim_pool *pool = &client->pools[p];
	const uint32_t model = p / SIM_PARTS, part = p % SIM_PARTS;

	memset(pool, 0, sizeof(*pool));
	pool->model = model;
	pool->part = part;
	pool->dropped = true;
	if (model >= sim->n_models || part >= sim->models[model].config.n_parts ||
	    model_tenant(sim, model) != client_tenant(sim, number))
		return;
	if (sim_device(number, model) == 0)
		pools_known(sim, number, p);
	else
		gpus_pool_add(sim, number, p, sim_device(number, model));
}

void pools_known(struct sim *sim, uint32_t number, uint32_t p)
{
	struct sim_client *client = &sim->clients[number];
	const uint32_t model = p / SIM_PARTS, part = p % SIM_PARTS;

	client->pools[p].dropped = false;
	if (engine_pool_added(sim->engine, number, p, sim->models[model].number, part, SIM_BLOCKS,
			      sim_device(number, model)) != 0)
		sim_fail(sim, "pool %u of client %u is refused", p, number);
	/* A second pool of the first part, on another device: what names both is to be refused. */
	if (part == 0 && !client->strays[model]) {
		client->strays[model] = true;
		if (engine_pool_added(sim->engine, number, SIM_STRAY(model), sim->models[model].number, 0, SIM_BLOCKS,
				      sim_device(number, model) + 1) != 0)
			sim_fail(sim, "the second pool of client %u is refused", number);
	}
}

/* Mostly; now and then one does, or names what it could not register, and is refused. */
bool pools_lack(struct sim *sim, uint32_t number, uint32_t model)
{
	for (uint32_t part = 0; part < sim->models[model].config.n_parts; part++) {
		const struct sim_pool *pool = &sim->clients[number].pools[model * SIM_PARTS + part];

		if (pool->opening || (pool->dropped && sim_device(number, model) != 0))
			return !sim_chance(&sim->random, 50);
	}
	return false;
}

/* Jobs that have the pool in hand may end early, and not well. */
static void harm(struct sim *sim, uint32_t c, uint32_t p)
{
	for (uint32_t s = 0; s < SIM_SLOTS; s++)
		for (uint32_t part = 0; part < SIM_PARTS; part++)
			sim->clients[c].slots[s].harmed |= sim->clients[c].slots[s].part_pool[part] == p;
}

/* A worker drops a pool, in use or not, or registers one again. */
void pools_drop_some(struct sim *sim)
{
	const uint32_t c = sim_below(&sim->random, SIM_CLIENTS);
	const uint32_t p = sim_below(&sim->random, SIM_MODELS * SIM_PARTS);
	struct sim_pool *pool = &sim->clients[c].pools[p];

	if (!sim->clients[c].attached || sim->clients[c].leaving || pool->dropping || pool->opening)
		return;
	if (pool->dropped) {
		pools_add(sim, c, p);
	} else {
		harm(sim, c, p);
		pool->dropped = pool->dropping = true;
		engine_pool_drop(sim->engine, c, p, world_token(sim, SIM_AFTER_DROP, c * SIM_MODELS * SIM_PARTS + p));
	}
}

void pools_died(struct sim *sim, uint32_t c, uint32_t p)
{
	sim->clients[c].pools[p].dead = true;
	harm(sim, c, p);
	engine_pool_dead(sim->engine, c, p);
}

/* The memory behind a pool is gone: copies of it fail from now on. Of a GPU's that is known by its copier alone. */
void pools_kill_some(struct sim *sim)
{
	const uint32_t c = sim_below(&sim->random, SIM_CLIENTS);
	const uint32_t p = sim_below(&sim->random, SIM_MODELS * SIM_PARTS);
	struct sim_pool *pool = &sim->clients[c].pools[p];

	if (sim->clients[c].attached && !sim->clients[c].leaving && !pool->dropped && !pool->dead &&
	    sim_device(c, p / SIM_PARTS) == 0)
		pools_died(sim, c, p);
}
