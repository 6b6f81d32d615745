/*
 * The world: sizes, models and keys from the seed; admin; crashes and what comes back.
 *
 * Each world has its own mean corners: one or two tenants with quotas and accounts with soft ones, tables
 * so small that they run out (entries, records, leases, leased chunks, holds, I/Os, accounts), random bits in drops, tiers that come up late
 * or never, recovery that ends after clients have come.
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
	*config = (struct engine_model_config){ .chunk_tokens = 64, .epoch = 1,
						.tenant = (uint32_t)(model - sim->models) % sim->n_tenants,
						.n_groups = 1 + sim_below(&sim->random, 3) };
	model->epoch = model->durable = model->newest = 1;
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
			const uint32_t layers = 1 + sim_below(&sim->random, SIM_LAYERS);

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

/* Now and then one of the tables is too small for what the clients want. */
static uint32_t scarce(struct sim *sim, uint32_t enough, uint32_t least)
{
	if (sim->roomy || !sim_chance(&sim->random, 200))
		return enough;
	return least + sim_below(&sim->random, enough / 8);
}

/* Of accounts: they refuse nothing, so they may change at any time, and be there in roomy worlds too. */
static void soft_quotas(struct sim *sim, struct engine_quota *quota)
{
	const uint64_t arena = sim->config.extents * sim->config.extent_bytes;

	quota->account_arena_bytes = sim_chance(&sim->random, 500) ? sim_draw(&sim->random) % (arena / 4) : 0;
	quota->account_disk_bytes = sim_chance(&sim->random, 500) ? sim_draw(&sim->random) % (arena / 4) : 0;
}

/* Hard limits of a tenant's, from a few objects up; 0: none. */
static void make_quotas(struct sim *sim)
{
	const uint64_t arena = sim->config.extents * sim->config.extent_bytes;

	for (uint32_t t = 0; t < sim->n_tenants; t++) {
		sim->quotas[t] = (struct engine_quota){ 0 };
		soft_quotas(sim, &sim->quotas[t]);
		if (sim->roomy)
			continue;
		if (sim_chance(&sim->random, 200))
			sim->quotas[t].leases = 1 + sim_below(&sim->random, sim->config.leases);
		if (sim_chance(&sim->random, 200))
			sim->quotas[t].leased_chunks = 1 + sim_below(&sim->random, sim->config.leased_chunks);
		if (sim_chance(&sim->random, 200))
			sim->quotas[t].holds = 1 + sim_below(&sim->random, sim->config.holds);
		if (sim_chance(&sim->random, 400))
			sim->quotas[t].arena_bytes = sim_draw(&sim->random) % arena;
		if (sim_chance(&sim->random, 400))
			sim->quotas[t].disk_bytes = sim_draw(&sim->random) % arena;
	}
}

static void make_config(struct sim *sim)
{
	struct engine_config *c = &sim->config;
	uint32_t large;

	*c = (struct engine_config){
		.clients = SIM_CLIENTS, .slots = SIM_SLOTS, .models = SIM_MODELS,
		.pools = SIM_CLIENTS * SIM_MODELS * SIM_PARTS, .tenants = sim->n_tenants,
		.accounts = sim_below(&sim->random, 12),
		.entries = scarce(sim, sim->roomy ? 4096 : 64 + sim_below(&sim->random, 2048), 24),
		.records = scarce(sim, sim->roomy ? 16384 : 128 + sim_below(&sim->random, 4096), 32),
		.leases = scarce(sim, 128, 1), .holds = scarce(sim, 64, 1),
		.leased_chunks = scarce(sim, sim->roomy ? 65536 : 4096, 16), .ios = scarce(sim, 64, 8),
		.extent_bytes = SIM_UNIT * (8 + 4 * sim_below(&sim->random, 7)),
		.extents = 16 + sim_below(&sim->random, 24),
		.n_tiers = sim->plant ? 1 + sim_below(&sim->random, 3) : sim_below(&sim->random, 4),
		.policy = sim_chance(&sim->random, 500) ? ENGINE_POLICY_LRU : ENGINE_POLICY_ARC,
		.refill_permille = sim_chance(&sim->random, 500) ? 0 : sim_below(&sim->random, 200),
		.write_back = !sim_chance(&sim->random, 100),
		.deadline_default_ns = 30000000000ull, .deadline_max_ns = 600000000000ull,
		.lease_default_ns = 30000000000ull, .lease_max_ns = 60000000000ull,
		.recovered_hold_ns = 1000000000ull, .held_bytes_permille = scarce(sim, 16, 0),
		.seed = sim_draw(&sim->random), .counters = sim->counters,
	};
	if (!sim->roomy && sim_chance(&sim->random, 150)) {	/* objects are larger than an extent, and slabs are long runs */
		c->extent_bytes = SIM_UNIT * (2 + sim_below(&sim->random, 4));
		c->extents += 32 + sim_below(&sim->random, 64);
	}
	/* A slab may waste an eighth, and each size of objects begins slabs of its own. */
	if (sim->shifting)
		c->n_tiers = 3;
	sim->slow_tier = c->n_tiers && (sim->shifting || sim_chance(&sim->random, 400)) ?
		sim_below(&sim->random, c->n_tiers) : ENGINE_NONE;
	large = sim->roomy ? (uint32_t)(2 * all_bytes(sim) / c->extent_bytes) + 256 : 1;
	c->extents += large;
	for (uint32_t t = 0; t < c->n_tiers; t++) {
		c->tiers[t].extents = 8 + large + sim_below(&sim->random, 100);
		c->tiers[t].depth_bytes = SIM_UNIT * (2 + sim_below(&sim->random, sim_chance(&sim->random, 500) ? 16 : 100));
	}
}

static void open_model(struct sim *sim, uint32_t m)
{
	struct sim_model *model = &sim->models[m];
	int64_t number;

	model->config.epoch = model->epoch;
	number = engine_model_open(sim->engine, &model->config);
	if (number < 0)
		sim_fail(sim, "model %u is refused: %lld", m, (long long)number);
	model->number = (uint32_t)number;
	model->life = SIM_OPEN;
}

static void make_engine(struct sim *sim)
{
	struct engine_ports ports = sim_ports;

	ports.shell = sim;
	inside_make(sim);
	memset(sim->memory, 0, sim->memory_bytes);
	sim->engine = engine_new(&sim->config, &ports, sim->memory);
	sim->serving = false;
	sim->sequence = 0;
	sim->clock_from = sim->step + (sim_chance(&sim->random, 300) ? sim_below(&sim->random, 200) : 0);
	for (uint32_t m = 0; m < sim->n_models; m++) {
		if (sim->models[m].durable != sim->models[m].epoch)
			sim_reach(sim, SIM_REACH_EPOCH_LOST);
		sim->models[m].epoch = sim->models[m].durable;
		sim->models[m].resetting = 0;
		sim->models[m].number = ENGINE_NONE;
		if (sim->models[m].life != SIM_CLOSED)
			open_model(sim, m);
	}
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		sim->tiers[t].up = sim->tiers[t].dead = false;
	for (uint32_t t = 0; t < sim->n_tenants; t++)
		engine_tenant(sim->engine, t, &sim->quotas[t]);
}

uint32_t world_share(const struct sim *sim, uint32_t set, uint32_t all)
{
	const uint32_t share = set ? set : all / sim->n_tenants;

	return share == 0 ? 1 : share < all ? share : all;
}

void world_tier(struct sim *sim)
{
	for (uint32_t t = 0; t < sim->config.n_tiers; t++) {
		if (sim->tiers[t].up || sim->tiers[t].dead)
			continue;
		engine_tier_up(sim->engine, t);
		sim->tiers[t].up = true;
		return;
	}
}

bool world_extent(struct sim *sim)
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
			gpus_extent(sim, extent);
		}
		return true;
	}
	return false;
}

void world_make(struct sim *sim)
{
	sim->random.state = sim_mix(sim->seed);
	sim->roomy = sim->seed % 4 == 0;
	sim->shifting = sim->seed % 4 == 3;
	sim->fault_permille = sim->roomy ? 0 : sim->plant ? 150 : sim_below(&sim->random, 60);
	/* Now and then a lap of the engine's timers is about to end, which lasts twelve days. */
	sim->now_ns = sim_chance(&sim->random, 300) ? (1000000ull << 30) - sim_below(&sim->random, 2000000000u) : 1000000000ull;
	sim->counters = aligned_alloc(64, sizeof(*sim->counters));
	memset(sim->counters, 0, sizeof(*sim->counters));
	make_keys(sim);
	sim->n_models = 1 + sim_below(&sim->random, SIM_MODELS);
	sim->n_tenants = sim->n_models > 1 && sim_chance(&sim->random, 500) ? 2 : 1;
	sim->starving = sim_chance(&sim->random, 200);
	for (uint32_t m = 0; m < sim->n_models; m++)
		make_model(sim, &sim->models[m]);
	make_config(sim);
	make_quotas(sim);
	memory_make(sim);
	gpus_make(sim);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t s = 0; s < SIM_SLOTS; s++) {
			/* Generations are about to begin anew. */
			sim->clients[c].slots[s].generation = 0u - sim_below(&sim->random, 30);
			sim->clients[c].slots[s].scratch = aligned_alloc(64, (SIM_SCRATCH_BYTES(s) + 63) & ~(size_t)63);
		}
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		sim->clients[c].slots[SIM_SLOTS - 1].big = calloc(STOKER_LARGE_KEYS, sizeof(struct stoker_wire_key));
	sim->memory_bytes = engine_bytes(&sim->config);
	if (sim->memory_bytes == 0)
		sim_fail(sim, "the engine refuses its configuration");
	sim->memory = aligned_alloc(64, (sim->memory_bytes + 63) & ~(size_t)63);
	make_engine(sim);
	for (uint32_t i = 0; i < sim->config.extents; i++)
		if (sim->roomy || sim_chance(&sim->random, 500))
			world_extent(sim);
	if (sim->roomy || sim_chance(&sim->random, 500))
		world_serve(sim);
}

void world_free(struct sim *sim)
{
	gpus_free(sim);
	memory_free(sim);
	inside_free(sim);
	free(sim->memory);
	free(sim->counters);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t s = 0; s < SIM_SLOTS; s++)
			free(sim->clients[c].slots[s].scratch);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		free(sim->clients[c].slots[SIM_SLOTS - 1].big);
}

/* ---- crashes ------------------------------------------------------------------------------------ */

/*
 * The newest changes of the slab tables had not reached the disk, or were still being appended when the
 * broker was killed: the tables are as they were before.
 */
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

/* Rows that no broker wrote: what is out of range, of no model, or lies over what is there is dropped. */
static void recover_garbage(struct sim *sim, const struct sim_table_entry *row)
{
	struct engine_place place = row->place;
	struct engine_object object = row->object;
	const uint32_t last = sim->config.records - 1;
	uint32_t record = sim->table[last].used ? ENGINE_NONE : last;	/* of the arena: a number that is free */

	switch (sim_below(&sim->random, 9)) {
	case 0: place.unit += 1; break;	/* into the midst of what is there */
	case 1: place.unit = 0xfffffff0u; break;
	case 2: place.bytes += SIM_UNIT; break;
	case 3: place.tier = sim->config.n_tiers; break;
	case 4: object.model = SIM_MODELS + sim_below(&sim->random, 1000); break;
	case 5: object.epoch++; break;
	case 6: object.tokens = 0; break;
	case 7: object.shard += 10; break;
	case 8:			/* another key at a place that is taken */
		object.key.word[3]++;
		break;
	}
	if (engine_recover(sim->engine, record, &place, &object, false) != ENGINE_NONE)
		sim_fail(sim, "a row that is garbage is recovered");
}

/* What a dying machine wrote over: only a verification sees it. */
static void rot(struct sim *sim, const struct sim_table_entry *row)
{
	const uint64_t bytes = sim->models[row->model].config.parts[row->object.part].payload_bytes;

	sim->arena[((uint64_t)row->place.unit + 1) * SIM_UNIT + sim_draw(&sim->random) % bytes] ^= 0x20;
	sim->figures[SIM_FIG_CORRUPT]++;
}

static void recover_arena(struct sim *sim)
{
	for (uint32_t r = 0; r < sim->config.records; r++) {
		struct sim_table_entry *entry = &sim->table[r];

		if (!entry->used)
			continue;
		entry->object.model = sim->models[entry->model].number;
		const bool was_held = entry->held || sim_chance(&sim->random, 100);

		entry->held = false;
		entry->written = true;
		if (sim_chance(&sim->random, sim->fault_permille))
			rot(sim, entry);
		if (engine_recover(sim->engine, r, &entry->place, &entry->object, was_held) == ENGINE_NONE)
			entry->used = false;
		else if (sim_chance(&sim->random, 20))
			recover_garbage(sim, entry);
	}
}

/* The arena has another version of that object: then the tier's is of the past. */
static bool is_superseded(const struct sim *sim, const struct sim_table_entry *row)
{
	for (uint32_t r = 0; r < sim->config.records; r++)
		if (sim->table[r].used && sim->table[r].model == row->model && sim->table[r].object.part == row->object.part &&
		    sim->table[r].object.epoch == row->object.epoch &&
		    memcmp(&sim->table[r].object.key, &row->object.key, sizeof(row->object.key)) == 0)
			return sim->table[r].object.sequence != row->object.sequence;
	return false;
}

static void recover_tier(struct sim *sim, uint32_t t)
{
	struct sim_tier *tier = &sim->tiers[t];

	for (uint32_t u = 0; u < tier->units; u++) {
		struct sim_table_entry *entry = &tier->slabs[u];

		if (!entry->used)
			continue;
		entry->object.model = sim->models[entry->model].number;
		const bool old = is_superseded(sim, entry);

		if (old)
			sim_reach(sim, SIM_REACH_OLD_COPY);
		if (engine_recover(sim->engine, ENGINE_NONE, &entry->place, &entry->object, false) == ENGINE_NONE)
			entry->used = false;
		else if (old)
			sim_fail(sim, "tier %u, unit %u: a copy of another version than the arena's is recovered", t, u);
		else if (sim_chance(&sim->random, 20))
			recover_garbage(sim, entry);
	}
	tier->log_n = 0;
}

void world_serve(struct sim *sim)
{
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		recover_tier(sim, t);
	while (sim->roomy || sim_chance(&sim->random, 700)) {	/* the rest come up late, or never */
		uint32_t up = 0;

		for (uint32_t t = 0; t < sim->config.n_tiers; t++)
			up += sim->tiers[t].up;
		if (up == sim->config.n_tiers)
			break;
		world_tier(sim);
	}
	sim->turned_ns = sim->now_ns;
	engine_serve(sim->engine, sim->now_ns);
	sim->serving = true;
	memory_see_sequences(sim);
}

void world_crash(struct sim *sim, bool power)
{
	sim->figures[SIM_FIG_CRASHES]++;
	sim_note(sim, sim->step, power);
	gpus_stop(sim);
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
	}
	if (power || sim_chance(&sim->random, 500)) {
		sim->resurrected = true;
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
	if (sim->roomy || sim_chance(&sim->random, 500))
		world_serve(sim);	/* else clients come while the tiers' tables are being read */
}

/* ---- admin -------------------------------------------------------------------------------------- */

engine_token world_token(struct sim *sim, enum sim_after after, uint32_t what)
{
	return ++sim->tokens_given << 16 | (uint64_t)after << 12 | what;
}

/* ---- models that are forgotten -------------------------------------------------------------------- */

/* A worker's model is not needed any more: its tenant's clients go, and nobody comes before it has ended. */
static void close_model(struct sim *sim)
{
	const uint32_t m = sim_below(&sim->random, sim->n_models);

	if (sim->models[m].life != SIM_OPEN)
		return;
	sim->models[m].life = SIM_TO_CLOSE;
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		if (client_tenant(sim, c) == model_tenant(sim, m) && sim->clients[c].attached &&
		    !sim->clients[c].leaving)
			client_leave(sim, c);
}

void world_close_some(struct sim *sim)
{
	for (uint32_t m = 0; m < sim->n_models; m++) {
		struct sim_model *model = &sim->models[m];
		bool anybody = false;

		for (uint32_t c = 0; c < SIM_CLIENTS; c++)
			anybody |= client_tenant(sim, c) == model_tenant(sim, m) && sim->clients[c].attached;
		if (model->life != SIM_TO_CLOSE || anybody)
			continue;
		model->life = SIM_CLOSING;
		model->emptied = sim_chance(&sim->random, 800);
		engine_model_close(sim->engine, model->number, model->emptied, world_token(sim, SIM_AFTER_CLOSE, m));
	}
}

static bool is_of(const struct sim_table_entry *entry, uint32_t model)
{
	return entry->used && entry->model == model;
}

/* The engine says that nothing is left of it: no table names it, and nothing of it is under way. */
static void forgotten(struct sim *sim, uint32_t m)
{
	struct sim_model *model = &sim->models[m];

	for (uint32_t r = 0; r < sim->config.records; r++)
		if (is_of(&sim->table[r], m))
			sim_fail(sim, "model %u is forgotten, but the arena's table has record %u of it", m, r);
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		for (uint32_t u = 0; u < sim->tiers[t].units; u++)
			if (is_of(&sim->tiers[t].slabs[u], m))
				sim_fail(sim, "model %u is forgotten, but tier %u has an object of it", m, t);
	for (uint32_t i = 0; i < sim->n_pending; i++) {
		const struct sim_pending *p = &sim->pending[i];
		const uint32_t number = p->kind == SIM_READ || p->kind == SIM_WRITE ? p->io.object.model :
					p->kind == SIM_SEAL || p->kind == SIM_VERIFY ? p->check.object.model :
					p->kind == SIM_COPY ? p->copy.model : ENGINE_NONE;

		if (number == model->number || (p->kind == SIM_EPOCH && p->model == m))
			sim_fail(sim, "model %u is forgotten, but something of it is under way", m);
	}
	model->life = SIM_CLOSED;
	model->number = ENGINE_NONE;
	sim->figures[SIM_FIG_FORGOTTEN]++;
}

/* One that was never begun before, even if that was lost in a crash. */
static void begin_epoch(struct sim_model *model)
{
	model->epoch = ++model->newest;
	for (uint32_t k = 0; k < SIM_KEYS; k++)
		for (uint32_t part = 0; part < SIM_PARTS; part++) {
			model->may[k][part] &= ~sim_epoch_bit(model->epoch);
			model->must[k][part] &= ~sim_epoch_bit(model->epoch);
		}
}

bool world_may_attach(struct sim *sim, uint32_t client)
{
	for (uint32_t m = client_tenant(sim, client); m < sim->n_models; m += sim->n_tenants)
		if (sim->models[m].life == SIM_TO_CLOSE || sim->models[m].life == SIM_CLOSING)
			return false;
	for (uint32_t m = client_tenant(sim, client); m < sim->n_models; m += sim->n_tenants)
		if (sim->models[m].life == SIM_CLOSED) {
			/* What a tier's table may still bring back is of the same epoch, or of a dead one. */
			if (sim_chance(&sim->random, 500)) {
				begin_epoch(&sim->models[m]);
				sim->models[m].durable = sim->models[m].epoch;
			}
			open_model(sim, m);
		}
	return true;
}

/* ---- answers --------------------------------------------------------------------------------------- */

/* The answer has come. */
void world_answered(struct sim *sim, engine_token given, enum stoker_status status, uint64_t value)
{
	const uint32_t what = given & 0xfff;

	switch ((enum sim_after)(given >> 12 & 15)) {
	case SIM_AFTER_RESET:
		if (status == STOKER_STATUS_OK && sim->models[what].durable < value)
			sim_fail(sim, "a reset to epoch %u is done, and %u is what a crash would leave", (uint32_t)value,
				 sim->models[what].durable);
		sim->models[what].resetting--;
		break;
	case SIM_AFTER_DROP:
		if (ports_copy_touches(sim, what / (SIM_MODELS * SIM_PARTS), what % (SIM_MODELS * SIM_PARTS)))
			sim_fail(sim, "a pool is said to be quiet, but a copy touches it");
		gpus_pool_dropped(sim, what / (SIM_MODELS * SIM_PARTS), what % (SIM_MODELS * SIM_PARTS));
		sim->clients[what / (SIM_MODELS * SIM_PARTS)].pools[what % (SIM_MODELS * SIM_PARTS)].dropping = false;
		break;
	case SIM_AFTER_CLOSE:
		if (status == STOKER_STATUS_OK)
			forgotten(sim, what);
		else
			sim->models[what].life = SIM_OPEN;
		break;
	case SIM_AFTER_NOTHING:
		break;
	}
}

static void reset(struct sim *sim)
{
	const uint32_t m = sim_below(&sim->random, sim->n_models);
	struct sim_model *model = &sim->models[m];

	if (model->resetting == 4 || model->life == SIM_CLOSING || model->life == SIM_CLOSED)
		return;		/* a fifth would be refused, and nobody resets what is not open */
	model->resetting++;
	if (sim_chance(&sim->random, 200))
		sim->crash_at = sim->step + sim_below(&sim->random, 20);
	begin_epoch(model);
	sim->figures[SIM_FIG_RESETS]++;
	engine_reset(sim->engine, model->number, model->epoch, sim_draw(&sim->random), world_token(sim, SIM_AFTER_RESET, m));
}

/* Does a slow tier write? Then the end of another one sends what it has not begun elsewhere. */
static bool is_writing_slowly(const struct sim *sim)
{
	for (uint32_t i = 0; i < sim->n_pending; i++)
		if (sim->pending[i].kind == SIM_WRITE && sim->pending[i].io.tier == sim->slow_tier)
			return true;
	return false;
}

void world_break_tier(struct sim *sim)
{
	struct sim_tier *tier = &sim->tiers[sim_below(&sim->random, sim->config.n_tiers)];

	if (tier->dead || ((uint32_t)(tier - sim->tiers) == sim->slow_tier && sim_chance(&sim->random, 900)))
		return;
	if (sim->shifting && !is_writing_slowly(sim))
		return;
	tier->up = false;
	tier->dead = true;
	engine_tier_down(sim->engine, (uint32_t)(tier - sim->tiers));
}

/* Quotas are told anew. */
static void reload(struct sim *sim)
{
	const uint32_t t = sim_below(&sim->random, sim->n_tenants);

	soft_quotas(sim, &sim->quotas[t]);
	if (sim_chance(&sim->random, 300)) {	/* it has too much, perhaps, until it needs room the next time */
		sim->quotas[t].arena_bytes = sim_draw(&sim->random) % (sim->config.extents * sim->config.extent_bytes);
		sim->quotas[t].disk_bytes = sim_draw(&sim->random) % (sim->config.extents * sim->config.extent_bytes);
		sim->resurrected = true;
	}
	engine_tenant(sim->engine, t, &sim->quotas[t]);
}

void world_admin(struct sim *sim)
{
	const uint32_t what = sim_below(&sim->random, 1000);

	if (sim->roomy)
		return;
	if (what < 60)
		close_model(sim);
	else if (what < 200)
		engine_evict(sim->engine, sim_draw(&sim->random) %	/* most of it, now and then: then there is much to read */
			     (sim->config.extent_bytes * (sim_chance(&sim->random, 400) ? sim->config.extents : 4)),
			     world_token(sim, SIM_AFTER_NOTHING, 0));
	else if (what < 230) {
		engine_clear(sim->engine, world_token(sim, SIM_AFTER_NOTHING, 0));
		if (sim_chance(&sim->random, 300))
			sim->crash_at = sim->step + 100 + sim_below(&sim->random, 600);
	}
	else if (what < 370)
		reset(sim);
	else if (what < 373)
		for (uint32_t i = 0; i < 20; i++)	/* more than it keeps in mind */
			engine_evict(sim->engine, SIM_UNIT, world_token(sim, SIM_AFTER_NOTHING, 0));
	else if (what < 600)
		pools_drop_some(sim);
	else if (what < 640)
		pools_kill_some(sim);
	else if (what < 660 && sim->config.n_tiers)
		world_break_tier(sim);
	else if (what < 800)
		world_tier(sim);
	else if (what < 805)
		reload(sim);
	else if (what < 808) {	/* no more stores in this life, which is short */
		engine_drain(sim->engine, world_token(sim, SIM_AFTER_NOTHING, 0));
		sim->crash_at = sim->step + 100 + sim_below(&sim->random, 600);
	}
	else if (what < 830)
		sim->storm_until = sim->step + sim_below(&sim->random, 400);
	else if (what < 980 && !sim->serving)
		world_serve(sim);
	else if (what >= 980)
		calm(sim);
}
