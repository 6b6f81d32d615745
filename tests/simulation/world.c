/*
 * The world: sizes, models and keys from the seed; admin; crashes and what comes back; the end.
 */
#include "tests/simulation/sim.h"

static void make_keys(struct sim *sim)
{
	for (uint32_t k = 0; k < SIM_KEYS; k++) {
		struct sim_key *key = &sim->keys[k];

		key->parent = ENGINE_NONE;
		if (k >= 8)
			for (uint32_t tries = 0; tries < 16; tries++) {
				/* Mostly a recent key, so that chains grow long; short chunks have no children. */
				const uint32_t parent = sim_chance(&sim->random, 700) && k > 24 ?
					k - 1 - sim_below(&sim->random, 16) : sim_below(&sim->random, k);

				if (sim->keys[parent].is_short || sim->keys[parent].depth + 1 >= SIM_DEPTH)
					continue;
				key->parent = parent;
				key->depth = sim->keys[parent].depth + 1;
				break;
			}
		key->is_short = key->parent != ENGINE_NONE && sim_chance(&sim->random, 80);
		key->key.word[0] = k + 1;
		for (int i = 1; i < 4; i++)
			key->key.word[i] = sim_draw(&sim->random);
	}
}

static void make_model(struct sim *sim, struct sim_model *model)
{
	struct engine_model_config *config = &model->config;
	const uint32_t layers = 2 + sim_below(&sim->random, SIM_LAYERS - 1);

	*config = (struct engine_model_config){ .chunk_tokens = 64, .epoch = 1,
						.n_groups = 1 + sim_below(&sim->random, 3) };
	model->epoch = 1;
	for (uint32_t g = 0; g < config->n_groups; g++) {
		const uint32_t kind = g == 0 && sim_chance(&sim->random, 800) ? 0 : sim_below(&sim->random, 3);
		const uint32_t shards = 1 + sim_below(&sim->random, 2);
		const uint32_t blocks = kind == 2 ? 1 : 1u << sim_below(&sim->random, 3);

		config->groups[g].kind = kind;
		config->groups[g].window = kind == 0 ? 0 : kind == 2 ? 1 : 1 + sim_below(&sim->random, 5);
		config->groups[g].block_tokens = kind == 2 ? 64 : 64 / blocks;
		config->groups[g].blocks = blocks;
		for (uint32_t shard = 0; shard < shards; shard++) {
			struct engine_part_config *part = &config->parts[config->n_parts];

			*part = (struct engine_part_config){
				.group = (uint8_t)g, .shard = (uint8_t)shard, .layers = (uint16_t)layers,
				.blocks = blocks, .payload_bytes = (uint64_t)layers * blocks * 8,
				.image_bytes = SIM_UNIT * (2 + sim_below(&sim->random, 4)),
			};
			model->group_parts[g] |= 1ull << config->n_parts++;
		}
	}
}

/* Bytes of every object that can ever be: all keys of all models. */
static uint64_t all_bytes(const struct sim *sim)
{
	uint64_t bytes = 0;

	for (uint32_t m = 0; m < sim->n_models; m++)
		for (uint32_t part = 0; part < sim->models[m].config.n_parts; part++)
			bytes += SIM_KEYS * sim->models[m].config.parts[part].image_bytes;
	return bytes;
}

static void make_config(struct sim *sim)
{
	struct engine_config *c = &sim->config;
	uint32_t large;

	*c = (struct engine_config){
		.clients = SIM_CLIENTS, .slots = SIM_SLOTS, .models = SIM_MODELS,
		.pools = SIM_CLIENTS * SIM_MODELS * SIM_PARTS, .tenants = 1,
		.entries = sim->roomy ? 4096 : 64 + sim_below(&sim->random, 2048),
		.records = sim->roomy ? 16384 : 128 + sim_below(&sim->random, 4096),
		.leases = 64, .holds = 32, .leased_chunks = 4096, .ios = 64,
		.extent_bytes = SIM_UNIT * (8 + 4 * sim_below(&sim->random, 7)),
		.extents = 16 + sim_below(&sim->random, 24),
		.n_tiers = sim_below(&sim->random, 3),
		.policy = sim_chance(&sim->random, 500) ? ENGINE_POLICY_LRU : ENGINE_POLICY_ARC,
		.refill_permille = sim_chance(&sim->random, 500) ? 0 : sim_below(&sim->random, 200),
		.write_back = !sim_chance(&sim->random, 100),
		.deadline_default_ns = 30000000000ull, .deadline_max_ns = 600000000000ull,
		.lease_default_ns = 30000000000ull, .lease_max_ns = 60000000000ull,
		.recovered_hold_ns = 1000000000ull, .held_bytes_permille = 250,
		.seed = sim_draw(&sim->random), .counters = sim->counters,
	};
	/* A slab may waste an eighth, and each size of objects begins slabs of its own. */
	large = sim->roomy ? (uint32_t)(2 * all_bytes(sim) / c->extent_bytes) + 256 : 1;
	c->extents += large;
	for (uint32_t t = 0; t < c->n_tiers; t++) {
		c->tiers[t].extents = 8 + large + sim_below(&sim->random, 100);
		c->tiers[t].depth_bytes = SIM_UNIT * (8 + sim_below(&sim->random, 100));
	}
}

static void make_engine(struct sim *sim)
{
	struct engine_ports ports = sim_ports;

	ports.shell = sim;
	memset(sim->memory, 0, sim->memory_bytes);
	sim->engine = engine_new(&sim->config, &ports, sim->memory);
	sim->serving = false;
	for (uint32_t m = 0; m < sim->n_models; m++) {
		int64_t number;

		sim->models[m].config.epoch = sim->models[m].epoch;
		number = engine_model_open(sim->engine, &sim->models[m].config);
		if (number < 0)
			sim_fail(sim, "model %u is refused: %lld", m, (long long)number);
		sim->models[m].number = (uint32_t)number;
		sim->models[m].resetting = false;
	}
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		sim->tiers[t].up = sim->tiers[t].dead = false;
}

static void serve(struct sim *sim)
{
	for (uint32_t t = 0; t < sim->config.n_tiers; t++) {
		engine_tier_up(sim->engine, t);
		sim->tiers[t].up = true;
	}
	engine_serve(sim->engine, sim->now_ns);
	sim->serving = true;
}

void world_extent(struct sim *sim)
{
	const uint32_t start = sim_below(&sim->random, sim->config.extents);

	for (uint32_t i = 0; i < sim->config.extents; i++) {
		const uint32_t extent = (start + i) % sim->config.extents;

		if (sim->extent_added[extent] || sim->extent_failed[extent])
			continue;
		if (!sim->roomy && sim_chance(&sim->random, 5)) {
			sim->extent_failed[extent] = true;
			engine_extent_failed(sim->engine, extent);
		} else {
			sim->extent_added[extent] = true;
			engine_extent_added(sim->engine, extent);
		}
		return;
	}
}

void world_make(struct sim *sim)
{
	sim->random.state = sim_mix(sim->seed);
	sim->roomy = sim->seed % 4 == 0;
	sim->fault_permille = sim->roomy ? 0 : sim->plant ? 150 : sim_below(&sim->random, 60);
	sim->now_ns = 1000000000ull;
	sim->counters = aligned_alloc(64, sizeof(*sim->counters));
	memset(sim->counters, 0, sizeof(*sim->counters));
	make_keys(sim);
	sim->n_models = 1 + sim_below(&sim->random, SIM_MODELS);
	for (uint32_t m = 0; m < sim->n_models; m++)
		make_model(sim, &sim->models[m]);
	make_config(sim);
	memory_make(sim);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t s = 0; s < SIM_SLOTS; s++)
			sim->clients[c].slots[s].scratch = aligned_alloc(64,
				(ENGINE_SCRATCH_BYTES(s == SIM_SLOTS - 1 ? STOKER_LARGE_KEYS : STOKER_SMALL_KEYS,
						      SIM_INPUT) + 63) & ~(size_t)63);
	sim->memory_bytes = engine_bytes(&sim->config);
	if (sim->memory_bytes == 0)
		sim_fail(sim, "the engine refuses its configuration");
	sim->memory = aligned_alloc(64, (sim->memory_bytes + 63) & ~(size_t)63);
	make_engine(sim);
	for (uint32_t i = 0; i < sim->config.extents; i++)
		if (sim->roomy || sim_chance(&sim->random, 500))
			world_extent(sim);
	serve(sim);
}

void world_free(struct sim *sim)
{
	memory_free(sim);
	free(sim->memory);
	free(sim->counters);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t s = 0; s < SIM_SLOTS; s++)
			free(sim->clients[c].slots[s].scratch);
}

/* ---- crashes ------------------------------------------------------------------------------------ */

/* The newest changes of the slab tables had not reached the disk: the tables are as they were before. */
static void lose_slab_changes(struct sim *sim, struct sim_tier *tier)
{
	uint32_t lost = tier->log_n ? sim_below(&sim->random, tier->log_n + 1) : 0;

	while (lost-- > 0) {
		const struct sim_table_entry *entry = &tier->log[--tier->log_n].entry;

		if (tier->log[tier->log_n].add)
			tier->slabs[entry->place.unit].used = false;
		else
			tier->slabs[entry->place.unit] = *entry;
	}
}

static void recover_arena(struct sim *sim)
{
	for (uint32_t r = 0; r < sim->config.records; r++) {
		struct sim_table_entry *entry = &sim->table[r];

		if (!entry->used)
			continue;
		entry->object.model = sim->models[entry->model].number;
		if (engine_recover(sim->engine, r, &entry->place, &entry->object,
				   sim_chance(&sim->random, 100)) == ENGINE_NONE)
			entry->used = false;
	}
}

static void recover_tier(struct sim *sim, uint32_t t)
{
	struct sim_tier *tier = &sim->tiers[t];

	for (uint32_t u = 0; u < tier->units; u++) {
		struct sim_table_entry *entry = &tier->slabs[u];

		if (!entry->used)
			continue;
		entry->object.model = sim->models[entry->model].number;
		if (engine_recover(sim->engine, ENGINE_NONE, &entry->place, &entry->object, false) == ENGINE_NONE)
			entry->used = false;
	}
	tier->log_n = 0;
}

void world_crash(struct sim *sim, bool power)
{
	sim->figures[SIM_FIG_CRASHES]++;
	sim_note(sim, sim->step, power);
	ports_crash(sim);
	memory_quiet(sim);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		for (uint32_t s = 0; s < SIM_SLOTS; s++)
			client_slot_over(sim, c, s);
		sim->clients[c].attached = sim->clients[c].leaving = false;
	}
	sim->n_leases = 0;
	sim->tokens_answered = sim->tokens_given;	/* nobody waits for them any more */
	if (power) {
		memset(sim->table, 0, sim->config.records * sizeof(*sim->table));
		memset(sim->arena, 0x5a, (size_t)sim->arena_units * SIM_UNIT);
		for (uint32_t t = 0; t < sim->config.n_tiers; t++)
			lose_slab_changes(sim, &sim->tiers[t]);
	}
	make_engine(sim);
	memset(sim->extent_added, 0, sim->config.extents * sizeof(*sim->extent_added));
	/* Recovered objects may lie in extents that come later: all of them are populated already. */
	for (uint32_t i = 0; i < sim->config.extents; i++) {
		sim->extent_added[i] = true;
		sim->extent_failed[i] = false;
		engine_extent_added(sim->engine, i);
	}
	recover_arena(sim);
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		recover_tier(sim, t);
	serve(sim);
}

/* ---- admin -------------------------------------------------------------------------------------- */

static engine_token token(struct sim *sim, uint32_t tag)
{
	return ++sim->tokens_given << 4 | tag;
}

static void reset(struct sim *sim)
{
	const uint32_t m = sim_below(&sim->random, sim->n_models);
	struct sim_model *model = &sim->models[m];

	if (model->resetting)
		return;
	model->resetting = true;
	model->epoch++;
	sim->figures[SIM_FIG_RESETS]++;
	engine_reset(sim->engine, model->number, model->epoch, sim_draw(&sim->random), token(sim, m + 1));
}

static void drop_pool(struct sim *sim)
{
	const uint32_t c = sim_below(&sim->random, SIM_CLIENTS);
	const uint32_t p = sim_below(&sim->random, SIM_MODELS * SIM_PARTS);

	if (!sim->clients[c].attached || sim->clients[c].leaving || sim->clients[c].pools[p].dropped)
		return;
	for (uint32_t s = 0; s < SIM_SLOTS; s++)	/* a worker drops a pool that it does not use */
		for (uint32_t part = 0; part < SIM_PARTS; part++)
			if (sim->clients[c].slots[s].state == SIM_ASKED &&
			    sim->clients[c].slots[s].part_pool[part] == p)
				return;
	sim->clients[c].pools[p].dropped = true;
	engine_pool_drop(sim->engine, c, p, token(sim, 0));
}

void world_admin(struct sim *sim)
{
	const uint32_t what = sim_below(&sim->random, 1000);

	if (sim->roomy)
		return;
	if (what < 200)
		engine_evict(sim->engine, sim_draw(&sim->random) % (sim->config.extent_bytes * 4), token(sim, 0));
	else if (what < 230)
		engine_clear(sim->engine, token(sim, 0));
	else if (what < 400)
		reset(sim);
	else if (what < 450)
		drop_pool(sim);
	else if (what < 470 && sim->config.n_tiers) {
		struct sim_tier *tier = &sim->tiers[sim_below(&sim->random, sim->config.n_tiers)];

		if (tier->up) {
			tier->up = false;
			tier->dead = true;
			engine_tier_down(sim->engine, (uint32_t)(tier - sim->tiers));
		}
	}
}

/* ---- the end ------------------------------------------------------------------------------------ */

static bool anybody(const struct sim *sim)
{
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		if (sim->clients[c].attached)
			return true;
	return false;
}

void world_end(struct sim *sim)
{
	uint64_t gauges[STOKER_GAUGE_END];
	const char *broken;

	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		if (sim->clients[c].attached && !sim->clients[c].leaving)
			client_leave(sim, c);
	for (uint32_t i = 0; i < 200000 && (anybody(sim) || sim->n_pending > 0 ||
					    sim->tokens_answered < sim->tokens_given); i++) {
		ports_progress(sim);
		sim->now_ns += 10000;
		for (uint32_t turns = 0; turns < 4; turns++)
			engine_turn(sim->engine, sim->now_ns);
	}
	if (anybody(sim) || sim->n_pending > 0 || sim->tokens_answered < sim->tokens_given)
		sim_fail(sim, "the world does not come to rest: %s attached, %u under way, %llu of %llu controls answered",
			 anybody(sim) ? "somebody" : "nobody", sim->n_pending,
			 (unsigned long long)sim->tokens_answered, (unsigned long long)sim->tokens_given);
	sim->now_ns += 100000000000ull;	/* what was held at a crash is let go */
	for (uint32_t i = 0; i < 20000; i++) {
		ports_progress(sim);
		engine_turn(sim->engine, sim->now_ns);
	}
	broken = engine_audit(sim->engine);
	if (broken)
		sim_fail(sim, "audit at the end: %s", broken);
	engine_gauges(sim->engine, gauges);
	if (gauges[STOKER_GAUGE_JOBS] || gauges[STOKER_GAUGE_LEASES] || gauges[STOKER_GAUGE_HOLDS] ||
	    gauges[STOKER_GAUGE_ARENA_PINNED])
		sim_fail(sim, "left over when all are gone: %llu jobs, %llu leases, %llu holds, %llu bytes pinned",
			 (unsigned long long)gauges[STOKER_GAUGE_JOBS], (unsigned long long)gauges[STOKER_GAUGE_LEASES],
			 (unsigned long long)gauges[STOKER_GAUGE_HOLDS],
			 (unsigned long long)gauges[STOKER_GAUGE_ARENA_PINNED]);
}
