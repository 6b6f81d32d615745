/*
 * Simulated clients: what they ask, and how they lie, leave and die.
 *
 * A slot's request lives in private memory of its own, as the broker's shell would keep it, and is
 * overwritten as soon as the job is DONE: an engine that looks at it later finds rubbish.
 */
#include "tests/simulation/sim.h"

struct sim_slot *client_slot(struct sim *sim, uint32_t client, uint32_t slot)
{
	return &sim->clients[client].slots[slot];
}

uint32_t model_stable(const struct sim *sim, uint32_t number)
{
	for (uint32_t m = 0; m < sim->n_models; m++)
		if (sim->models[m].number == number)
			return m;
	return ENGINE_NONE;
}

static uint32_t slot_keys_max(uint32_t slot)
{
	return slot == SIM_SLOTS - 1 ? STOKER_LARGE_KEYS : STOKER_SMALL_KEYS;
}

uint32_t client_model(struct sim *sim, uint32_t number)
{
	const uint32_t tenant = client_tenant(sim, number);
	const uint32_t n = (sim->n_models - tenant + sim->n_tenants - 1) / sim->n_tenants;

	return tenant + sim->n_tenants * sim_below(&sim->random, n);
}

void client_attach(struct sim *sim, uint32_t number)
{
	const struct engine_client_config config = {
		.tenant = client_tenant(sim, number), .user = client_user(number), .slots_small = SIM_SLOTS - 1, .slots = SIM_SLOTS,
	};
	struct sim_client *client = &sim->clients[number];

	client->attached = true;
	client->leaving = client->expelled = false;
	memset(client->holds, 0, sizeof(client->holds));
	memset(client->strays, 0, sizeof(client->strays));
	engine_client_in(sim->engine, number, &config);
	for (uint32_t p = 0; p < SIM_MODELS * SIM_PARTS; p++)
		pools_add(sim, number, p);
	for (uint32_t s = 0; s < SIM_SLOTS; s++)
		client->slots[s].state = SIM_FREE;
}

void client_leave(struct sim *sim, uint32_t number)
{
	sim->clients[number].leaving = true;
	sim->figures[SIM_FIG_DEATHS]++;
	for (uint32_t i = 0; i < sim->n_leases; i++)
		if (sim->leases[i].owner == number)
			sim->leases[i].ended = sim->leases[i].over = true;
	engine_client_out(sim->engine, number);
}

void client_slot_over(struct sim *sim, uint32_t number, uint32_t s)
{
	struct sim_client *client = &sim->clients[number];
	struct sim_slot *slot = &client->slots[s];

	if (slot->state == SIM_FREE)
		return;
	for (uint32_t part = 0; part < SIM_PARTS; part++)
		for (uint32_t c = 0; c < SIM_DEPTH && slot->part_pool[part] != ENGINE_NONE; c++)
			for (uint32_t b = 0; b < 8; b++)
				if (slot->blocks[part][c][b] != STOKER_NO_BLOCK)
					client->pools[slot->part_pool[part]].busy[slot->blocks[part][c][b]] = false;
	memset(slot->input, 0xee, sizeof(slot->input));
	if (slot->junk || slot->bulk)
		memset(slot->big, 0xee, STOKER_LARGE_KEYS * sizeof(struct stoker_wire_key));
	slot->watched = slot->copying = slot->waits = false;
	slot->state = SIM_FREE;
}

/* ---- building a request ------------------------------------------------------------------------ */

struct sim_slot *client_begin(struct sim *sim, uint32_t number, uint32_t s, enum stoker_op op, uint32_t model)
{
	struct sim_slot *slot = &sim->clients[number].slots[s];
	const uint32_t generation = slot->generation + 1;
	uint8_t *scratch = slot->scratch, *big = slot->big;

	memset(slot, 0, offsetof(struct sim_slot, input));
	slot->scratch = scratch;
	slot->big = big;
	slot->watched = slot->lies = slot->certain = slot->cut = slot->harmed = slot->renews = false;
	slot->copying = slot->waits = false;
	slot->ending = STOKER_STATUS_OK;
	slot->must = STOKER_STATUS_OK;
	slot->asked = slot->pieces = slot->sent = slot->junk = slot->outside = slot->loose = 0;
	slot->wide = slot->bulk = false;
	slot->base = slot->total = slot->asked_blocks = 0;
	slot->generation = generation ? generation : 1;
	slot->model = model;
	slot->epoch = sim->models[model].epoch;
	slot->n = 0;
	for (uint32_t part = 0; part < SIM_PARTS; part++)
		slot->part_pool[part] = ENGINE_NONE;
	memset(slot->blocks, 0xff, sizeof(slot->blocks));
	memset(slot->input, 0, sizeof(slot->input));
	slot->request = (struct engine_request){
		.head = { .op = (uint8_t)op, .priority = (uint8_t)sim_below(&sim->random, 8), .slot = (uint16_t)s,
			  .generation = slot->generation, .model = model },
		.model = sim->models[model].number, .keys_max = slot_keys_max(s),
		.scratch = scratch, .scratch_bytes = SIM_SCRATCH_BYTES(s),
	};
	if (!sim->roomy && (sim->step < sim->storm_until || sim_chance(&sim->random, 150))) {
		slot->request.head.deadline_us =
			1 + sim_below(&sim->random, sim->step < sim->storm_until ? 200 : 20000);
		slot->cut = true;
	}
	if (sim_chance(&sim->random, 300))
		slot->request.head.session = 1 + sim_below(&sim->random, 4);
	return slot;
}

void client_ask(struct sim *sim, uint32_t number, struct sim_slot *slot)
{
	slot->state = SIM_ASKED;
	slot->stage = STOKER_STAGE_NONE;
	slot->ready = slot->layers = 0;
	slot->asked_ns = 0;
	slot->owed = slot->request.head.op == STOKER_OP_LOOKUP ? oracle_owed(sim, slot) : 0;
	if (sim_chance(&sim->random, 4) && !slot->lies &&
	    (slot->request.head.op == STOKER_OP_LOOKUP || slot->request.head.op == STOKER_OP_STORE ||
	     slot->request.head.op == STOKER_OP_RETRIEVE))
		chain_bend(sim, slot);
	sim_note(sim, number, (uint64_t)slot->request.head.op << 32 | slot->request.head.slot);
	engine_request(sim->engine, number, &slot->request);
}

uint32_t client_chain(const struct sim *sim, uint32_t tip, uint32_t keys[SIM_DEPTH])
{
	const uint32_t n = sim->keys[tip].depth + 1;

	for (uint32_t i = n; i-- > 0; tip = sim->keys[tip].parent)
		keys[i] = tip;
	return n;
}

void client_put_keys(const struct sim *sim, struct sim_slot *slot, uint32_t first, uint32_t end)
{
	struct stoker_wire_key *keys = (struct stoker_wire_key *)slot->input;

	for (uint32_t i = first; i < end; i++)
		keys[i - first] = sim->keys[slot->keys[i]].key;
	slot->request.keys = keys;
	slot->request.head.n_keys = end - first;
}

/* ---- what they ask ------------------------------------------------------------------------------ */

/*
 * What one asks for others often ask for too, with another priority; what went is stored anew; and the rest of a
 * chunk comes while its first parts are being written.
 */
static uint32_t some_key(struct sim *sim)
{
	const struct sim_pending *p = &sim->pending[sim->n_pending ? sim_below(&sim->random, sim->n_pending) : 0];

	if (sim->n_pending && p->kind == SIM_WRITE && p->io.tier == sim->slow_tier && sim_chance(&sim->random, 300))
		return (uint32_t)p->io.object.key.word[0] - 1;
	return sim_chance(&sim->random, 300) ? (uint32_t)(sim_mix(sim->step / 64) % SIM_KEYS) :
					       sim_below(&sim->random, SIM_KEYS);
}

static void ask_lookup(struct sim *sim, uint32_t number, uint32_t s)
{
	struct sim_slot *slot = client_begin(sim, number, s, STOKER_OP_LOOKUP, client_model(sim, number));
	uint32_t flags = STOKER_F_PREFETCH | STOKER_F_PARTIAL;

	slot->n = client_chain(sim, some_key(sim), slot->keys);
	if (sim_chance(&sim->random, 100))
		flags = STOKER_F_PROBE;
	else if (sim_chance(&sim->random, 100))
		flags = STOKER_F_PARTIAL;
	else if (sim_chance(&sim->random, 100))
		flags = STOKER_F_PREFETCH;
	else if (sim_chance(&sim->random, 30))
		flags = 0;
	if (sim_chance(&sim->random, 60))
		flags |= STOKER_F_ANY;
	slot->request.head.flags = flags;
	if (!(flags & STOKER_F_ANY) && sim_chance(&sim->random, 200))
		slot->request.line.lookup.have = sim_below(&sim->random, slot->n + 2);
	if (!(flags & STOKER_F_ANY) && sim_chance(&sim->random, 5))	/* more than there can be */
		slot->request.line.lookup.have = UINT32_MAX - sim_below(&sim->random, 2);
	if (sim_chance(&sim->random, 150))
		slot->request.line.lookup.groups = 1 + sim_below(&sim->random, (1u << sim->models[slot->model].config.n_groups) - 1);
	if (sim_chance(&sim->random, 80))
		slot->request.line.lookup.tiers = 1 + sim_below(&sim->random, (2u << sim->config.n_tiers) - 1);
	if (sim_chance(&sim->random, 200))
		slot->request.line.lookup.readers = 1 + sim_below(&sim->random, 15);
	if (sim_chance(&sim->random, 200))
		slot->request.line.lookup.lease_ms = 1 + sim_below(&sim->random, 2000);
	client_put_keys(sim, slot, 0, slot->n);
	client_ask(sim, number, slot);
}

static void ask_store(struct sim *sim, uint32_t number, uint32_t s)
{
	const uint32_t model = client_model(sim, number);
	struct sim_slot *slot = client_begin(sim, number, s, STOKER_OP_STORE, model);
	const struct engine_model_config *config = &sim->models[model].config;
	const uint32_t only = sim_chance(&sim->random, sim->shifting ? 700 : 250) ? sim_below(&sim->random, config->n_parts)
									 : ENGINE_NONE;
	uint32_t all[SIM_DEPTH], n = client_chain(sim, some_key(sim), all), from = 0;
	struct sim_writer w = { 0 };
	uint32_t *tokens;

	if (pools_lack(sim, number, model))
		return;
	if (sim_chance(&sim->random, 500))
		from = sim_below(&sim->random, n);
	for (slot->n = 0; from + slot->n < n; slot->n++) {
		const uint32_t c = slot->n;

		slot->keys[c] = all[from + c];
		for (uint32_t part = 0; part < config->n_parts; part++) {
			if (only != ENGINE_NONE && part != only)
				continue;
			slot->part_pool[part] = model * SIM_PARTS + part;
			slot->harmed |= sim->clients[number].pools[slot->part_pool[part]].dead;
			slot->lies |= sim->clients[number].pools[slot->part_pool[part]].dropped;
			if (!request_take_blocks(sim, number, slot, part, c, oracle_blocks(sim, model, part, slot->keys[c])))
				goto enough;
			request_fill(sim, number, slot, part, c);
		}
	}
enough:
	if (from + slot->n < n)
		for (uint32_t part = 0; part < config->n_parts; part++)
			if (slot->part_pool[part] != ENGINE_NONE)
				request_untake(sim, number, slot, part, slot->n);
	if (slot->n == 0)
		return;
	client_put_keys(sim, slot, 0, slot->n);
	tokens = (uint32_t *)(slot->input + slot->n * 4);
	for (uint32_t c = 0; c < slot->n; c++)
		tokens[c] = sim->keys[slot->keys[c]].is_short ? config->chunk_tokens / 2 : config->chunk_tokens;
	slot->request.tokens = tokens;
	slot->request.line.store.flags = STOKER_STORE_TOKENS;
	for (uint32_t part = 0; part < config->n_parts; part++)
		if (slot->part_pool[part] != ENGINE_NONE) {
			request_segment(sim, &w, slot, part, 0, slot->n);
			slot->asked |= 1u << part;
		}
	request_write(slot, &w, slot->n * 36);
	if (from > 0)
		slot->request.line.store.parent = sim->keys[all[from - 1]].key;
	if (sim_chance(&sim->random, 20))	/* a lie that nobody can see: it may be its own child's, or its own */
		slot->request.line.store.parent = sim->keys[sim_below(&sim->random, SIM_KEYS)].key;
	slot->request.line.store.account = sim_below(&sim->random, 4);
	slot->request.line.store.first_token = (uint64_t)from * config->chunk_tokens;
	if (sim_chance(&sim->random, 200))
		slot->request.head.flags |= STOKER_F_WAIT;
	request_watch_maybe(sim, number, slot);
	if (sim_chance(&sim->random, 20))
		request_bend(sim, slot);
	for (uint32_t c = 0; c < slot->n && !slot->lies; c++)
		for (uint32_t part = 0; part < config->n_parts; part++)
			if (slot->asked >> part & 1)
				sim->models[model].may[slot->keys[c]][part] |= sim_epoch_bit(slot->epoch);
	client_ask(sim, number, slot);
}

/* Is part @part of chunk @c covered by the lease? */
static bool leased(const struct sim *sim, const struct sim_lease *lease, uint32_t part, uint32_t c)
{
	const struct engine_model_config *config = &sim->models[lease->model].config;
	const uint32_t g = config->parts[part].group;

	if (!(lease->groups >> g & 1))
		return false;
	if (lease->any)
		return lease->exists >> c & 1;
	if (config->groups[g].window != 0)
		return c + config->groups[g].window >= lease->n;
	return c >= lease->have;
}

/* Not a part of it, of any group? */
static bool is_outside(const struct sim *sim, const struct sim_lease *lease, uint32_t c)
{
	for (uint32_t part = 0; part < sim->models[lease->model].config.n_parts; part++)
		if (leased(sim, lease, part, c))
			return false;
	return !lease->renewed && !lease->vague;
}

bool client_lease_certain(const struct sim *sim, const struct sim_lease *lease, uint32_t reader)
{
	return !lease->ended && !lease->vague && ((lease->readers & ~lease->leaving) >> reader & 1) && lease->expires_ns > sim->now_ns + 1000000 &&
	       lease->epoch == sim->models[lease->model].epoch;
}

/* Is there no such lease any more, beyond doubt? */
static bool lease_is_over(const struct sim *sim, const struct sim_lease *lease)
{
	return lease->over || lease->epoch != sim->models[lease->model].epoch ||
	       lease->expires_ns + 1000000000ull < sim->turned_ns;
}

/* Any lease that was ever given, but mostly one that is alive. */
struct sim_lease *client_lease(struct sim *sim)
{
	struct sim_lease *lease = &sim->leases[0];

	for (uint32_t tries = 0; tries < 8 && sim->n_leases; tries++) {
		lease = &sim->leases[sim_below(&sim->random, sim->n_leases)];
		if (!lease->ended && lease->readers && lease->expires_ns > sim->now_ns)
			break;
	}
	return lease;
}

/* Mostly one of the lease's readers that has not returned. */
static uint32_t pick_reader(struct sim *sim, const struct sim_lease *lease)
{
	uint32_t reader = sim_below(&sim->random, 4);

	for (uint32_t tries = 0; tries < 8 && !(lease->readers >> reader & 1); tries++)
		reader = sim_below(&sim->random, 4);
	return reader;
}

static uint32_t model_layers(const struct sim *sim, uint32_t model)
{
	const struct engine_model_config *config = &sim->models[model].config;
	uint32_t layers = 0;

	for (uint32_t part = 0; part < config->n_parts; part++)
		layers = config->parts[part].layers > layers ? config->parts[part].layers : layers;
	return layers;
}

/* Some neighbouring chunks of one part, now and then one that the lease has not before them. */
static void retrieve_part(struct sim *sim, uint32_t number, struct sim_slot *slot, const struct sim_lease *lease,
			  uint32_t part, struct sim_writer *w)
{
	const uint32_t blocks = sim->models[lease->model].config.parts[part].blocks;
	struct sim_pool *pool = &sim->clients[number].pools[lease->model * SIM_PARTS + part];
	uint32_t first = 0, end;

	while (first < lease->n && !leased(sim, lease, part, first))
		first++;
	if (first == lease->n || sim_chance(&sim->random, 100))
		return;
	if (first > 0 && sim_chance(&sim->random, 100))
		first--;
	else
		first += sim_below(&sim->random, lease->n - first);
	slot->part_pool[part] = lease->model * SIM_PARTS + part;
	for (end = first; end < lease->n && (end == first || leased(sim, lease, part, end)); end++)
		if (!request_take_blocks(sim, number, slot, part, end, blocks)) {
			request_untake(sim, number, slot, part, end);
			break;
		}
	if (end == first) {
		slot->part_pool[part] = ENGINE_NONE;
		return;
	}
	for (uint32_t c = first; c < end; c++)	/* a block that the engine already has is left alone */
		if (blocks > 1 && sim_chance(&sim->random, 50)) {
			pool->busy[slot->blocks[part][c][0]] = false;
			slot->blocks[part][c][0] = STOKER_NO_BLOCK;
		}
	if (!leased(sim, lease, part, first)) {
		slot->loose |= 1u << first;
		slot->outside |= (uint32_t)is_outside(sim, lease, first) << first;
	}
	request_segment(sim, w, slot, part, first, end - first);
	w->segments[w->n_segments - 1].first += lease->base;
	slot->lies |= pool->dropped;
}

static void ask_retrieve(struct sim *sim, uint32_t number, uint32_t s)
{
	struct sim_lease *lease = client_lease(sim);
	struct sim_slot *slot;
	struct sim_writer w = { 0 };
	const uint32_t reader = pick_reader(sim, lease);

	if (sim->n_leases == 0 || lease->n == 0)
		return;
	if (model_tenant(sim, lease->model) != client_tenant(sim, number)) {
		if (sim_chance(&sim->random, 100))
			chain_steal(sim, number, s);
		return;
	}
	if (pools_lack(sim, number, lease->model))
		return;
	slot = client_begin(sim, number, s, STOKER_OP_RETRIEVE, lease->model);
	slot->lease = *lease;
	slot->n = lease->n;
	slot->epoch = lease->epoch;
	for (uint32_t part = 0; part < sim->models[lease->model].config.n_parts; part++)
		retrieve_part(sim, number, slot, lease, part, &w);
	if (w.n_segments == 0)
		return;
	request_write(slot, &w, 0);
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	slot->request.line.retrieve.reader = reader;
	if (sim_chance(&sim->random, 200))
		slot->request.line.retrieve.layer_first = sim_below(&sim->random, model_layers(sim, lease->model));
	if (sim_chance(&sim->random, 200))
		slot->request.line.retrieve.layer_count = 1;
	slot->certain = client_lease_certain(sim, lease, reader) && !slot->lies;
	if (lease_is_over(sim, lease) || (lease->returned >> reader & 1))
		slot->must = STOKER_STATUS_EXPIRED;
	for (uint32_t part = 0; part < SIM_PARTS; part++)
		slot->harmed |= slot->part_pool[part] != ENGINE_NONE &&
				sim->clients[number].pools[slot->part_pool[part]].dead;
	request_watch_maybe(sim, number, slot);
	if (slot->request.head.flags & STOKER_F_READY)
		slot->certain = false;	/* it may wait longer than its lease lives */
	if (sim_chance(&sim->random, 20))
		request_bend(sim, slot);
	else if (sim_chance(&sim->random, 20)) {
		slot->request.head.lease[sim_below(&sim->random, 2)] ^= 1ull << sim_below(&sim->random, 64);
		slot->lies = true;
		slot->certain = false;
		slot->must = STOKER_STATUS_EXPIRED;
	} else if (sim_chance(&sim->random, 300)) {
		slot->request.head.flags |= STOKER_F_END_SHARE;
		lease->leaving |= 1ull << reader;
		lease->readers &= ~(1ull << reader);
	}
	client_ask(sim, number, slot);
}

static void ask_release(struct sim *sim, uint32_t number, uint32_t s)
{
	struct sim_lease *lease = client_lease(sim);
	struct sim_slot *slot;

	if (sim->n_leases == 0 || model_tenant(sim, lease->model) != client_tenant(sim, number))
		return;
	slot = client_begin(sim, number, s, STOKER_OP_RELEASE, lease->model);
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	slot->request.line.release.reader = sim_below(&sim->random, 4);
	lease->readers &= ~(1ull << slot->request.line.release.reader);
	lease->returned |= 1ull << slot->request.line.release.reader;
	client_ask(sim, number, slot);
}

static void ask_map(struct sim *sim, uint32_t number, uint32_t s)
{
	const struct sim_lease *lease = client_lease(sim);
	struct sim_client *client = &sim->clients[number];
	struct sim_slot *slot;
	uint32_t part, c;

	for (uint32_t i = 0; i < SIM_SLOTS; i++)	/* one at a time: holds are noted at DONE */
		if (client->slots[i].state == SIM_ASKED && client->slots[i].request.head.op == STOKER_OP_MAP)
			return;
	for (c = 0; c < SIM_HOLDS && client->holds[c].used; c++)
		;
	if (sim->n_leases == 0 || lease->n == 0 || c == SIM_HOLDS ||
	    model_tenant(sim, lease->model) != client_tenant(sim, number))
		return;
	part = sim_below(&sim->random, sim->models[lease->model].config.n_parts);
	c = sim_below(&sim->random, lease->n);
	if (!leased(sim, lease, part, c))
		return;
	slot = client_begin(sim, number, s, STOKER_OP_MAP, lease->model);
	slot->lease = *lease;
	slot->epoch = lease->epoch;
	slot->map_part = part;
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	slot->request.line.map.chunk = lease->base + c;
	if (lease_is_over(sim, lease))
		slot->must = STOKER_STATUS_EXPIRED;
	slot->request.line.map.group = sim->models[lease->model].config.parts[part].group;
	slot->request.line.map.shard = sim->models[lease->model].config.parts[part].shard;
	client_ask(sim, number, slot);
}

static void ask_unmap(struct sim *sim, uint32_t number, uint32_t s)
{
	const uint32_t at = sim_below(&sim->random, SIM_HOLDS);
	struct sim_hold *hold = &sim->clients[number].holds[at];
	struct sim_slot *slot;

	for (uint32_t i = 0; i < SIM_SLOTS; i++)
		if (sim->clients[number].slots[i].state == SIM_ASKED &&
		    sim->clients[number].slots[i].request.head.op == STOKER_OP_UNMAP)
			return;
	if (!hold->used)
		return;
	slot = client_begin(sim, number, s, STOKER_OP_UNMAP, hold->model);
	slot->hold = at;
	memcpy(slot->request.head.lease, hold->token, sizeof(hold->token));
	client_ask(sim, number, slot);
}

static void ask_plain(struct sim *sim, uint32_t number, uint32_t s, enum stoker_op op)
{
	struct sim_slot *slot = client_begin(sim, number, s, op, client_model(sim, number));

	if (op == STOKER_OP_END_SESSION) {
		slot->request.head.session = 1 + sim_below(&sim->random, 4);
		for (uint32_t i = 0; i < sim->n_leases; i++)
			if (sim->leases[i].owner == number && sim->leases[i].session == slot->request.head.session)
				sim->leases[i].ended = true;
		for (uint32_t i = 0; i < SIM_SLOTS; i++)	/* its lookups may be cut short */
			sim->clients[number].slots[i].cut = true;
	}
	client_ask(sim, number, slot);
}

static void cancel_one(struct sim *sim, uint32_t number)
{
	struct sim_slot *slot = &sim->clients[number].slots[sim_below(&sim->random, SIM_SLOTS)];

	if (slot->state != SIM_ASKED)
		return;
	slot->cut = true;
	engine_cancel(sim->engine, number, slot->request.head.slot,
		      sim_chance(&sim->random, 900) ? slot->generation : slot->generation - 1);
}

static void submit_twice(struct sim *sim, uint32_t number)
{
	struct sim_slot *slot = &sim->clients[number].slots[sim_below(&sim->random, SIM_SLOTS)];
	struct engine_request again = slot->request;

	if (slot->state != SIM_ASKED || slot->request.head.op == STOKER_OP_END_SESSION)
		return;
	again.head.generation++;
	if (sim_chance(&sim->random, 300))
		again.head.generation = 0;
	else if (sim_chance(&sim->random, 300))
		again.head.slot = (uint16_t)(SIM_SLOTS + sim_below(&sim->random, 60000));
	engine_request(sim->engine, number, &again);
	if (!sim->clients[number].expelled)
		sim_fail(sim, "client %u submitted on a slot that is busy or is none, and was not expelled", number);
}

/* What was on its way when its client was let go, or its job had ended: it changes nothing, and is answered by nothing. */
static void too_late(struct sim *sim, uint32_t number, uint32_t s)
{
	const struct sim_slot *slot = &sim->clients[number].slots[s];
	const struct engine_request request = {
		.head = { .op = STOKER_OP_PING, .slot = (uint16_t)s, .generation = 7 }, .model = ENGINE_NONE,
	};

	if (!slot->watched)
		engine_ready(sim->engine, number, s);
	if (!sim->clients[number].leaving)
		return;
	engine_cancel(sim->engine, number, s, slot->generation);
	engine_request(sim->engine, number, &request);
}

void client_act(struct sim *sim, uint32_t number)
{
	struct sim_client *client = &sim->clients[number];
	const uint32_t s = sim_below(&sim->random, SIM_SLOTS), what = sim_below(&sim->random, 1000);

	if (client->attached && sim_chance(&sim->random, 10))
		too_late(sim, number, s);
	if (client->leaving)
		return;
	if (!client->attached) {
		if (sim_chance(&sim->random, 200) && world_may_attach(sim, number))
			client_attach(sim, number);
		return;
	}
	if (client->expelled || (!sim->roomy && sim_chance(&sim->random, 2))) {
		client_leave(sim, number);
		return;
	}
	if (what < 40) {
		if (!sim->roomy)
			cancel_one(sim, number);
	} else if (what < 42) {
		if (!sim->roomy)
			submit_twice(sim, number);
	} else if (what < 100) {
		while (chain_send(sim, number, !sim_chance(&sim->random, 50)) && sim_chance(&sim->random, 500))
			;
	} else if (what < 130) {
		if (sim_chance(&sim->random, 300))
			chain_renew_long(sim, number);
		else
			chain_ask(sim, number, false);
	} else if (what < 135) {
		chain_wide(sim, number);
	} else if (what < 142) {
		bulk_store(sim, number);
	} else if (what < 160) {
		bulk_retrieve(sim, number);
	} else if (client->slots[s].state != SIM_FREE) {
		return;
	} else if (what < 170) {
		chain_renew(sim, number, s);
	} else if (what < 350) {
		ask_lookup(sim, number, s);
	} else if (what < 600) {
		ask_store(sim, number, s);
	} else if (what < 850) {
		ask_retrieve(sim, number, s);
	} else if (what < 900) {
		ask_release(sim, number, s);
	} else if (what < 930) {
		ask_map(sim, number, s);
	} else if (what < 960) {
		ask_unmap(sim, number, s);
	} else if (what < 970) {
		chain_nonsense(sim, number, s);
	} else if (what < 985) {
		ask_plain(sim, number, s, STOKER_OP_PING);
	} else {
		ask_plain(sim, number, s, STOKER_OP_END_SESSION);
	}
}
