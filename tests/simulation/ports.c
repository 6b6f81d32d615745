/*
 * What the engine asked for and what becomes of it: reads, writes, seals, verifies, copies, epochs.
 *
 * All of it is kept in one bag; each step of the simulation takes any of it and lets it go on, so
 * completions come late and in any order. Faults are drawn here: an I/O fails, a read comes back
 * with a flipped byte, an item of a copy faults, an I/O of a crashed broker lands or not.
 */
#include "tests/simulation/sim.h"

#define HEADER_MAGIC 0x53494d494d414745ull

struct image_header {
	uint64_t magic, sequence, checksum, payload_bytes, account, first_token;
	struct stoker_wire_key key, parent;
	uint32_t model, epoch, part, tokens;
};

static struct sim_pending *pend(struct sim *sim, enum sim_pending_kind kind)
{
	if (sim->n_pending == SIM_PENDING)
		sim_fail(sim, "more than %u things are under way", SIM_PENDING);

	struct sim_pending *p = &sim->pending[sim->n_pending++];

	*p = (struct sim_pending){ .kind = kind };
	return p;
}

static uint64_t payload_bytes(const struct sim *sim, uint32_t model, uint32_t part)
{
	return sim->models[model].config.parts[part].payload_bytes;
}

static uint64_t image_bytes(const struct sim *sim, uint32_t model, uint32_t part)
{
	return sim->models[model].config.parts[part].image_bytes;
}

/* ---- the ports: note, check, hold, put into the bag ------------------------------------------- */

static void check_io(struct sim *sim, const struct engine_io *io, const char *who)
{
	const uint32_t model = model_stable(sim, io->object.model);

	sim_note(sim, io->io, io->arena.unit + ((uint64_t)io->disk.unit << 32));
	if (io->tier >= sim->config.n_tiers || io->disk.tier != io->tier || io->arena.tier != ENGINE_NONE)
		sim_fail(sim, "%s names tier %u, places in %u and %u", who, io->tier, io->disk.tier, io->arena.tier);
	if (io->arena.bytes != io->disk.bytes || io->arena.bytes != image_bytes(sim, model, io->object.part))
		sim_fail(sim, "%s of %llu and %llu bytes of an image of %llu", who,
			 (unsigned long long)io->arena.bytes, (unsigned long long)io->disk.bytes,
			 (unsigned long long)image_bytes(sim, model, io->object.part));
}

/* A place is to be overwritten: no table may still promise what lay there. */
static void check_unpromised(struct sim *sim, const struct sim_table_entry *table, uint32_t n, uint32_t unit,
			     uint64_t bytes, const char *who)
{
	for (uint32_t i = 0; i < n; i++)
		if (table[i].used && table[i].place.unit < unit + bytes / SIM_UNIT &&
		    unit < table[i].place.unit + table[i].place.bytes / SIM_UNIT)
			sim_fail(sim, "%s into unit %u, where a table still promises entry %u", who, unit, i);
}

static void port_read(void *shell, const struct engine_io *io)
{
	struct sim *sim = shell;

	check_io(sim, io, "a read");
	inside_read(sim, io);
	check_unpromised(sim, sim->table, sim->config.records, io->arena.unit, io->arena.bytes, "a read");
	memory_hold_arena(sim, io->arena.unit, io->arena.bytes, true, "a read");
	memory_hold_tier(sim, io->tier, io->disk.unit, io->disk.bytes, false);
	pend(sim, SIM_READ)->io = *io;
}

static void port_write(void *shell, const struct engine_io *io)
{
	struct sim *sim = shell;

	check_io(sim, io, "a write");
	check_unpromised(sim, sim->tiers[io->tier].slabs, sim->tiers[io->tier].units, io->disk.unit,
			 io->disk.bytes, "a write");
	memory_hold_arena(sim, io->arena.unit, SIM_UNIT, true, "a stamp");
	memory_hold_arena(sim, io->arena.unit + 1, io->arena.bytes - SIM_UNIT, false, "a write");
	memory_hold_tier(sim, io->tier, io->disk.unit, io->disk.bytes, true);
	pend(sim, SIM_WRITE)->io = *io;
}

static void port_seal(void *shell, const struct engine_check *check)
{
	struct sim *sim = shell;

	sim_note(sim, check->io, check->arena.unit);
	memory_hold_arena(sim, check->arena.unit, SIM_UNIT, true, "a seal");
	memory_hold_arena(sim, check->arena.unit + 1, check->arena.bytes - SIM_UNIT, false, "a seal");
	pend(sim, SIM_SEAL)->check = *check;
}

static void port_verify(void *shell, const struct engine_check *check)
{
	struct sim *sim = shell;

	sim_note(sim, check->io, check->arena.unit + 1ull);
	memory_hold_arena(sim, check->arena.unit, check->arena.bytes, false, "a verify");
	pend(sim, SIM_VERIFY)->check = *check;
}

static uint32_t slot_of_ids(struct sim *sim, const struct engine_copy *copy)
{
	for (uint32_t s = 0; s < SIM_SLOTS; s++) {
		const struct sim_slot *slot = &sim->clients[copy->client].slots[s];
		const uint8_t *ids = (const uint8_t *)copy->items[0].ids;

		if ((ids >= (const uint8_t *)slot->input && ids < (const uint8_t *)slot->input + SIM_INPUT) ||
		    (ids >= slot->scratch && ids < slot->scratch + slot->request.scratch_bytes) ||
		    (slot->bulk && ids >= slot->big && ids < slot->big + STOKER_LARGE_KEYS * 32u))
			return s;
	}
	sim_fail(sim, "the ids of copy %u lie in no slot of client %u", copy->copy, copy->client);
}

static void hold_copy(struct sim *sim, const struct engine_copy *copy, bool hold)
{
	const uint32_t model = model_stable(sim, copy->model);

	for (uint32_t i = 0; i < copy->n_items; i++) {
		const struct engine_copy_item *item = &copy->items[i];
		const uint32_t unit = (uint32_t)(item->payload / SIM_UNIT) - 1;
		const uint64_t bytes = image_bytes(sim, model, item->part);

		if (copy->store && hold)
			memory_hold_arena(sim, unit, bytes, true, "a store");
		else if (copy->store)
			memory_drop_arena(sim, unit, bytes, true);
		else if (hold)
			memory_hold_arena(sim, unit + 1, bytes - SIM_UNIT, false, "a retrieve");
		else
			memory_drop_arena(sim, unit + 1, bytes - SIM_UNIT, false);
	}
}

/* Copies of all devices at once. */
static void reach_three(struct sim *sim)
{
	uint32_t devices = 0;

	for (uint32_t i = 0; i < sim->n_pending; i++)
		devices |= sim->pending[i].kind == SIM_COPY ? 1u << sim->pending[i].copy.device : 0;
	if (devices == (2u << SIM_GPUS) - 1)
		sim_reach(sim, SIM_REACH_GPU_THREE);
}

static void port_copy(void *shell, const struct engine_copy *copy)
{
	struct sim *sim = shell;
	struct sim_slot *slot;
	struct sim_pending *p;

	sim_note(sim, copy->copy, copy->n_items);
	if (copy->n_items == 0)
		sim_fail(sim, "copy %u has no items", copy->copy);
	for (uint32_t i = 0; i < copy->n_items; i++) {
		const struct engine_copy_item *item = &copy->items[i];

		if (item->payload % SIM_UNIT != 0 || item->payload == 0)
			sim_fail(sim, "copy %u: payload at %llu", copy->copy, (unsigned long long)item->payload);
		if (item->pool >= SIM_MODELS * SIM_PARTS || sim->clients[copy->client].pools[item->pool].dropped)
			sim_fail(sim, "copy %u names pool %u of client %u, which it has not", copy->copy,
				 item->pool, copy->client);
		if (copy->device != sim_device(copy->client, model_stable(sim, copy->model)))
			sim_fail(sim, "copy %u is for device %u, where its pools are not", copy->copy, copy->device);
		sim_note(sim, item->payload, item->pool);
		if (copy->store)
			check_unpromised(sim, sim->table, sim->config.records,
					 (uint32_t)(item->payload / SIM_UNIT) - 1,
					 image_bytes(sim, model_stable(sim, copy->model), item->part), "a store");
	}
	hold_copy(sim, copy, true);
	p = pend(sim, SIM_COPY);
	p->copy = *copy;
	p->slot = slot_of_ids(sim, copy);
	p->layer = copy->layer_first;
	p->serial = ++sim->copies;
	slot = &sim->clients[copy->client].slots[p->slot];
	slot->copying = true;
	if (slot->waits)
		sim_fail(sim, "copy %u begins before its ready word has been reached", copy->copy);
	if (copy->device != 0)
		gpus_copy(sim, copy);
	reach_three(sim);
}

static void port_copy_cancel(void *shell, uint32_t device, uint32_t copy)
{
	struct sim *sim = shell;

	sim_note(sim, copy, 3);
	for (uint32_t i = 0; i < sim->n_pending; i++)
		if (sim->pending[i].kind == SIM_COPY && sim->pending[i].copy.copy == copy &&
		    sim->pending[i].copy.device == device) {
			sim->pending[i].cancelled = true;
			if (device != 0)
				gpus_cancel(sim, device, copy);
			return;
		}
	sim_fail(sim, "cancel of copy %u, which does not run", copy);
}

static void port_watch(void *shell, uint32_t client, uint32_t slot, uint32_t index, uint32_t value)
{
	struct sim *sim = shell;

	sim_note(sim, client, slot + ((uint64_t)index << 32));
	if (sim->clients[client].slots[slot].watched)
		sim_fail(sim, "slot %u of client %u is watched already", slot, client);
	sim->clients[client].slots[slot].watched = true;
	sim->clients[client].slots[slot].watch_value = value;
}

static void port_unwatch(void *shell, uint32_t client, uint32_t slot)
{
	struct sim *sim = shell;

	sim_note(sim, client, slot + 4ull);
	sim->clients[client].slots[slot].watched = false;
}

static void port_expel(void *shell, uint32_t client, const char *why)
{
	struct sim *sim = shell;

	sim_note(sim, client, 5);
	if (why == NULL || why[0] == '\0')
		sim_fail(sim, "client %u is expelled without a reason", client);
	sim->clients[client].expelled = true;
}

static void port_client_gone(void *shell, uint32_t client)
{
	struct sim *sim = shell;

	sim_note(sim, client, 6);
	if (!sim->clients[client].leaving)
		sim_fail(sim, "client %u is said to be gone, but did not leave", client);
	if (ports_copy_runs(sim, client, ENGINE_NONE))
		sim_fail(sim, "client %u is said to be gone, but a copy of it runs", client);
	for (uint32_t s = 0; s < SIM_SLOTS; s++) {
		if (sim->clients[client].slots[s].watched)
			sim_fail(sim, "client %u is said to be gone, but a ready word of it is watched", client);
		client_slot_over(sim, client, s);
	}
	sim->clients[client].attached = sim->clients[client].leaving = false;
	gpus_client_gone(sim, client);
}

static void port_persist_epoch(void *shell, uint32_t model, uint32_t epoch, uint64_t tag)
{
	struct sim *sim = shell;
	struct sim_pending *p = pend(sim, SIM_EPOCH);

	sim_note(sim, epoch, tag);
	p->model = model_stable(sim, model);
	p->epoch = epoch;
}

static void port_control(void *shell, engine_token token, enum stoker_status status, uint64_t value)
{
	struct sim *sim = shell;

	sim_note(sim, token, value ^ (uint64_t)status << 56);
	if (token >> 16 == 0 || token >> 16 > sim->tokens_given)
		sim_fail(sim, "answer to token %llu, which was never given", (unsigned long long)token);
	sim->tokens_answered++;
	world_answered(sim, token, status, value);
}

const struct engine_ports sim_ports = {
	.read = port_read, .write = port_write, .seal = port_seal, .verify = port_verify,
	.copy = port_copy, .copy_cancel = port_copy_cancel, .watch = port_watch, .unwatch = port_unwatch,
	.publish = oracle_publish, .expel = port_expel, .client_gone = port_client_gone,
	.commit = memory_commit, .uncommit = memory_uncommit, .held = memory_held,
	.slab_add = memory_slab_add, .slab_remove = memory_slab_remove,
	.persist_epoch = port_persist_epoch, .control = port_control,
};

/* ---- how it goes on ---------------------------------------------------------------------------- */

static void take_out(struct sim *sim, uint32_t i, struct sim_pending *ret)
{
	*ret = sim->pending[i];
	sim->pending[i] = sim->pending[--sim->n_pending];
}

static uint8_t *arena_at(struct sim *sim, uint32_t unit)
{
	return sim->arena + (uint64_t)unit * SIM_UNIT;
}

static uint8_t *disk_at(struct sim *sim, uint32_t tier, uint32_t unit)
{
	return sim->tiers[tier].bytes + (uint64_t)unit * SIM_UNIT;
}

/* The shell tells the time before an event, or leaves it to the next turn. */
static void clock_maybe(struct sim *sim)
{
	if (sim->step < sim->clock_from || sim_chance(&sim->random, 500))
		return;
	sim->turned_ns = sim->now_ns;
	engine_clock(sim->engine, sim->now_ns);
}

static void finish_read(struct sim *sim, const struct sim_pending *p)
{
	const struct engine_io *io = &p->io;
	enum engine_result result = ENGINE_OK;

	if (sim->tiers[io->tier].dead || sim_chance(&sim->random, sim->fault_permille))
		result = ENGINE_FAILED;
	else
		memcpy(arena_at(sim, io->arena.unit), disk_at(sim, io->tier, io->disk.unit), io->arena.bytes);
	if (result == ENGINE_OK && sim_chance(&sim->random, sim->fault_permille / 4))
		result = ENGINE_CORRUPT;	/* its reader has seen it already */
	if (result == ENGINE_OK && sim_chance(&sim->random, sim->fault_permille)) {
		const uint64_t payload = payload_bytes(sim, model_stable(sim, io->object.model), io->object.part);

		arena_at(sim, io->arena.unit)[SIM_UNIT + sim_draw(&sim->random) % payload] ^= 0x40;
		sim->figures[SIM_FIG_CORRUPT]++;
	}
	if (sim_is_planted(sim, "stray-read") && io->arena.unit >= io->arena.bytes / SIM_UNIT)
		memcpy(arena_at(sim, io->arena.unit) - io->arena.bytes, arena_at(sim, io->arena.unit), io->arena.bytes);
	memory_drop_arena(sim, io->arena.unit, io->arena.bytes, true);
	memory_drop_tier(sim, io->tier, io->disk.unit, io->disk.bytes, false);
	clock_maybe(sim);
	engine_io_done(sim->engine, io->io, result);
}

static void finish_write(struct sim *sim, const struct sim_pending *p)
{
	const struct engine_io *io = &p->io;
	enum engine_result result = ENGINE_OK;

	if (sim->tiers[io->tier].dead || sim_chance(&sim->random, sim->fault_permille))
		result = ENGINE_FAILED;
	else
		memcpy(disk_at(sim, io->tier, io->disk.unit), arena_at(sim, io->arena.unit), io->arena.bytes);
	memory_drop_arena(sim, io->arena.unit, SIM_UNIT, true);
	memory_drop_arena(sim, io->arena.unit + 1, io->arena.bytes - SIM_UNIT, false);
	memory_drop_tier(sim, io->tier, io->disk.unit, io->disk.bytes, true);
	if (result == ENGINE_OK && memory_other_tier(sim, io->tier, &io->object) != ENGINE_NONE)
		sim_reach(sim, SIM_REACH_SECOND_TIER);
	clock_maybe(sim);
	engine_io_done(sim->engine, io->io, result);
}

static void finish_seal(struct sim *sim, const struct sim_pending *p)
{
	const struct engine_check *check = &p->check;
	const uint32_t model = model_stable(sim, check->object.model);
	uint8_t *image = arena_at(sim, check->arena.unit);
	enum engine_result result = ENGINE_OK;
	struct image_header header = {
		.magic = HEADER_MAGIC, .sequence = check->object.sequence, .account = check->object.account,
		.payload_bytes = payload_bytes(sim, model, check->object.part), .key = check->object.key,
		.model = model, .epoch = check->object.epoch, .part = check->object.part,
		.tokens = check->object.tokens, .parent = check->object.parent, .first_token = check->object.first_token,
	};

	if (sim->serving && check->object.sequence <= sim->sequence)
		sim_fail(sim, "a store is number %llu, but the tables had %llu already",
			 (unsigned long long)check->object.sequence, (unsigned long long)sim->sequence);
	header.checksum = memory_payload_sum(image, header.payload_bytes);
	if (sim_chance(&sim->random, sim->fault_permille / 8))
		result = ENGINE_FAILED;
	else
		memcpy(image, &header, sizeof(header));
	memory_drop_arena(sim, check->arena.unit, SIM_UNIT, true);
	memory_drop_arena(sim, check->arena.unit + 1, check->arena.bytes - SIM_UNIT, false);
	engine_check_done(sim->engine, check->io, result, header.checksum);
}

/* The rest of what a header says: nobody changes that, so who asks for it must know it as it was sealed. */
static bool is_named(const struct image_header *header, const struct engine_object *object)
{
	return header->account == object->account && header->tokens == object->tokens &&
	       header->first_token == object->first_token &&
	       memcmp(&header->parent, &object->parent, sizeof(header->parent)) == 0;
}

static void finish_verify(struct sim *sim, const struct sim_pending *p)
{
	const struct engine_check *check = &p->check;
	const struct engine_object *object = &check->object;
	const uint32_t model = model_stable(sim, object->model);
	const uint64_t bytes = payload_bytes(sim, model, object->part);
	enum engine_result result = ENGINE_OK;
	struct image_header header;
	uint64_t sum;

	memcpy(&header, arena_at(sim, check->arena.unit), sizeof(header));
	sum = memory_payload_sum(arena_at(sim, check->arena.unit), bytes);
	if (header.magic != HEADER_MAGIC || header.sequence != object->sequence || header.model != model ||
	    header.epoch != object->epoch || header.part != object->part ||
	    memcmp(&header.key, &object->key, sizeof(header.key)) != 0 || header.payload_bytes != bytes ||
	    header.checksum != sum || (object->checksum != 0 && object->checksum != sum))
		result = ENGINE_CORRUPT;
	if (result == ENGINE_OK && !is_named(&header, object))
		sim_fail(sim, "an object is sound, but would be taken for a corrupt one: account %llu, not %llu, %u tokens, not %u",
			 (unsigned long long)header.account, (unsigned long long)object->account, header.tokens, object->tokens);
	if (sim_is_planted(sim, "trust-header") && header.magic == HEADER_MAGIC)
		result = ENGINE_OK;
	if (sim_is_planted(sim, "blind-verify"))
		result = ENGINE_OK;
	memory_drop_arena(sim, check->arena.unit, check->arena.bytes, false);
	engine_check_done(sim->engine, check->io, result, sum);
}

/* One item of one layer: words between the payload and the pool's blocks. */
static void copy_words(struct sim *sim, struct sim_pending *p, uint32_t i)
{
	const struct engine_copy_item *item = &p->copy.items[i];
	const struct engine_part_config *part =
		&sim->models[model_stable(sim, p->copy.model)].config.parts[item->part];
	struct sim_pool *pool = &sim->clients[p->copy.client].pools[item->pool];
	uint64_t *payload = (uint64_t *)(sim->arena + item->payload);

	if (pool->dead) {
		p->copy.failed[i] = 1;
		sim->clients[p->copy.client].slots[p->slot].harmed = true;
	}
	if (p->layer >= part->layers || p->copy.failed[i])
		return;
	if (sim_is_planted(sim, "short-copy") && p->copy.store && p->layer + 1 == part->layers)
		return;
	for (uint32_t b = 0; b < part->blocks; b++) {
		uint64_t *word = &payload[p->layer * part->blocks + b];

		if (item->ids[b] != STOKER_NO_BLOCK && item->ids[b] >= SIM_BLOCKS)
			sim_fail(sim, "copy %u names block %u", p->copy.copy, item->ids[b]);
		if (p->copy.store)
			*word = item->ids[b] == STOKER_NO_BLOCK ? 0 : pool->word[p->layer][item->ids[b]];
		else if (item->ids[b] != STOKER_NO_BLOCK)
			pool->word[p->layer][item->ids[b]] = *word;
	}
}

/* It failed somewhere: one of its items is not what it should be. */
static void spoil(struct sim *sim, const struct sim_pending *p)
{
	const struct engine_copy_item *item = &p->copy.items[sim_below(&sim->random, p->copy.n_items)];
	struct sim_pool *pool = &sim->clients[p->copy.client].pools[item->pool];

	sim->clients[p->copy.client].slots[p->slot].harmed = true;
	if (p->copy.store)
		*(uint64_t *)(sim->arena + item->payload) ^= 0x10;
	else if (item->ids[0] != STOKER_NO_BLOCK && p->copy.layer_first == 0)
		pool->word[0][item->ids[0]] ^= 0x10;
}

void ports_copy_end(struct sim *sim, uint32_t at, enum engine_result result)
{
	struct sim_slot *slot;
	struct sim_pending p;

	take_out(sim, at, &p);
	hold_copy(sim, &p.copy, false);
	slot = &sim->clients[p.copy.client].slots[p.slot];
	engine_copy_done(sim->engine, p.copy.copy, result);
	if (!ports_copy_runs(sim, p.copy.client, p.slot))
		slot->copying = false;
}

static void finish_copy(struct sim *sim, uint32_t at)
{
	const struct sim_pending p = sim->pending[at];
	bool failed = false;

	for (uint32_t i = 0; i < p.copy.n_items; i++) {
		if (p.cancelled && p.layer < p.copy.layer_end)
			p.copy.failed[i] = 1;
		failed |= p.copy.failed[i] != 0;
	}
	if (sim_is_planted(sim, "late-copy") && !p.copy.store && p.copy.items[0].ids[0] < SIM_BLOCKS)
		sim->clients[p.copy.client].pools[p.copy.items[0].pool].word[0]
			[(p.copy.items[0].ids[0] + 1) % SIM_BLOCKS] ^= 1;
	if (!failed && sim_chance(&sim->random, sim->fault_permille / 4)) {
		failed = true;		/* all of it, and nobody knows which */
		spoil(sim, &p);
	}
	ports_copy_end(sim, at, failed ? ENGINE_FAILED : ENGINE_OK);
}

/* A few items further; a layer that is whole may be told. */
static void progress_copy(struct sim *sim, uint32_t at)
{
	struct sim_pending *p = &sim->pending[at];
	uint32_t left = 1 + sim_below(&sim->random, 8);

	while (left-- > 0 && p->layer < p->copy.layer_end && !p->cancelled) {
		if (sim_chance(&sim->random, sim->fault_permille / 4)) {
			p->copy.failed[p->item] = 1;
			sim->clients[p->copy.client].slots[p->slot].harmed = true;
		}
		copy_words(sim, p, p->item);
		if (++p->item < p->copy.n_items)
			continue;
		p->item = 0;
		p->layer++;
		if (sim_chance(&sim->random, 500)) {
			engine_copy_progress(sim->engine, p->copy.copy,
					     p->layer - p->copy.layer_first + sim_is_planted(sim, "hasty-progress"));
			return;		/* the event may have put other things into the bag */
		}
	}
	if (p->layer >= p->copy.layer_end || p->cancelled)
		finish_copy(sim, at);
}

static void epoch_lands(struct sim *sim, const struct sim_pending *p)
{
	if (p->epoch > sim->models[p->model].durable)
		sim->models[p->model].durable = p->epoch;
}

static void finish_epoch(struct sim *sim, const struct sim_pending *p)
{
	const bool ok = !sim_chance(&sim->random, sim->fault_permille);

	if (ok)
		epoch_lands(sim, p);
	engine_epoch_persisted(sim->engine, sim->models[p->model].number, ok);
}

void ports_progress(struct sim *sim)
{
	struct sim_pending p;
	uint32_t at;

	if (sim->n_pending == 0)
		return;
	at = sim_below(&sim->random, sim->n_pending);
	if ((sim->pending[at].kind == SIM_WRITE || sim->pending[at].kind == SIM_READ) &&
	    sim->pending[at].io.tier == sim->slow_tier && !sim_chance(&sim->random, 50))
		return;
	for (uint32_t i = 0; i < sim->n_pending; i++)	/* a model's epochs are made durable in order */
		if (sim->pending[at].kind == SIM_EPOCH && sim->pending[i].kind == SIM_EPOCH &&
		    sim->pending[i].model == sim->pending[at].model && sim->pending[i].epoch < sim->pending[at].epoch)
			at = i;
	if (sim->pending[at].kind == SIM_COPY) {
		if (sim->pending[at].copy.device == 0)
			progress_copy(sim, at);
		else
			gpus_progress(sim, sim->pending[at].copy.device);
		return;
	}
	take_out(sim, at, &p);
	if (sim_is_planted(sim, "lost-read") && p.kind == SIM_READ && sim_chance(&sim->random, 300))
		return;
	switch (p.kind) {
	case SIM_READ:   finish_read(sim, &p); break;
	case SIM_WRITE:  finish_write(sim, &p); break;
	case SIM_SEAL:   finish_seal(sim, &p); break;
	case SIM_VERIFY: finish_verify(sim, &p); break;
	case SIM_EPOCH:  finish_epoch(sim, &p); break;
	case SIM_COPY:   break;
	}
}

bool ports_copy_runs(const struct sim *sim, uint32_t client, uint32_t slot)
{
	for (uint32_t i = 0; i < sim->n_pending; i++)
		if (sim->pending[i].kind == SIM_COPY && sim->pending[i].copy.client == client &&
		    (slot == ENGINE_NONE || sim->pending[i].slot == slot))
			return true;
	return false;
}

uint32_t ports_copy_find(const struct sim *sim, uint32_t device, uint32_t copy)
{
	for (uint32_t i = 0; i < sim->n_pending; i++)
		if (sim->pending[i].kind == SIM_COPY && sim->pending[i].copy.device == device &&
		    sim->pending[i].copy.copy == copy)
			return i;
	return ENGINE_NONE;
}

uint64_t ports_copy_serial(const struct sim *sim, uint32_t device, uint32_t copy)
{
	const uint32_t at = ports_copy_find(sim, device, copy);

	return at == ENGINE_NONE ? 0 : sim->pending[at].serial;
}

void ports_copy_excuse(struct sim *sim, uint32_t device, uint32_t copy)
{
	const uint32_t at = ports_copy_find(sim, device, copy);

	if (at == ENGINE_NONE)
		sim_fail(sim, "copy %u of device %u is not under way", copy, device);
	sim->pending[at].excused = true;
}

bool ports_copy_touches(const struct sim *sim, uint32_t client, uint32_t pool)
{
	for (uint32_t i = 0; i < sim->n_pending; i++) {
		const struct engine_copy *copy = &sim->pending[i].copy;

		for (uint32_t item = 0; sim->pending[i].kind == SIM_COPY && item < copy->n_items; item++)
			if (copy->client == client && copy->items[item].pool == pool)
				return true;
	}
	return false;
}

/* The broker is gone. What the kernel already had may land wholly, in part, or not at all. */
void ports_crash(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->n_pending; i++) {
		const struct sim_pending *p = &sim->pending[i];
		uint64_t bytes = p->io.arena.bytes;

		if (p->kind == SIM_EPOCH && sim_chance(&sim->random, 300)) {
			sim_reach(sim, SIM_REACH_EPOCH_KEPT);
			epoch_lands(sim, p);
		}
		if (p->kind != SIM_READ && p->kind != SIM_WRITE)
			continue;
		bytes = sim_below(&sim->random, 3) * bytes / 2;
		if (p->kind == SIM_READ)
			memcpy(arena_at(sim, p->io.arena.unit), disk_at(sim, p->io.tier, p->io.disk.unit), bytes);
		else
			memcpy(disk_at(sim, p->io.tier, p->io.disk.unit), arena_at(sim, p->io.arena.unit), bytes);
	}
	sim->n_pending = 0;
}
