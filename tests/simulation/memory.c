/*
 * Simulated memory: the arena, the tiers, and the tables that survive a crash.
 *
 * Every operation that is under way holds the units that it reads or writes: two that write, or one
 * that writes what another reads, is a place given twice or freed too early.
 */
#include "tests/simulation/sim.h"

void memory_make(struct sim *sim)
{
	sim->arena_units = (uint32_t)(sim->config.extents * sim->config.extent_bytes / SIM_UNIT);
	sim->arena = calloc(sim->arena_units, SIM_UNIT);
	sim->readers = calloc(sim->arena_units, sizeof(*sim->readers));
	sim->writer = calloc(sim->arena_units, sizeof(*sim->writer));
	sim->table = calloc(sim->config.records, sizeof(*sim->table));
	sim->extent_added = calloc(sim->config.extents, sizeof(*sim->extent_added));
	sim->extent_failed = calloc(sim->config.extents, sizeof(*sim->extent_failed));
	for (uint32_t t = 0; t < sim->config.n_tiers; t++) {
		struct sim_tier *tier = &sim->tiers[t];

		tier->units = (uint32_t)(sim->config.tiers[t].extents * sim->config.extent_bytes / SIM_UNIT);
		tier->bytes = calloc(tier->units, SIM_UNIT);
		tier->slabs = calloc(tier->units, sizeof(*tier->slabs));
		tier->readers = calloc(tier->units, sizeof(*tier->readers));
		tier->writer = calloc(tier->units, sizeof(*tier->writer));
	}
}

void memory_free(struct sim *sim)
{
	free(sim->arena);
	free(sim->readers);
	free(sim->writer);
	free(sim->table);
	free(sim->extent_added);
	free(sim->extent_failed);
	for (uint32_t t = 0; t < sim->config.n_tiers; t++) {
		free(sim->tiers[t].bytes);
		free(sim->tiers[t].slabs);
		free(sim->tiers[t].readers);
		free(sim->tiers[t].writer);
	}
}

static void hold(struct sim *sim, const char *where, uint16_t *readers, uint8_t *writer, uint32_t total,
		 uint32_t unit, uint64_t bytes, bool write, const char *who)
{
	const uint32_t n = (uint32_t)((bytes + SIM_UNIT - 1) / SIM_UNIT);

	if (unit > total || n > total - unit)
		sim_fail(sim, "%s of %s units %u + %u lies beyond its %u units", who, where, unit, n, total);
	for (uint32_t u = unit; u < unit + n; u++) {
		if (writer[u] || (write && readers[u]))
			sim_fail(sim, "%s of %s unit %u, which somebody else %s", who, where, u,
				 writer[u] ? "writes" : "reads");
		if (write)
			writer[u] = 1;
		else
			readers[u]++;
	}
}

static void drop(uint16_t *readers, uint8_t *writer, uint32_t unit, uint64_t bytes, bool write)
{
	const uint32_t n = (uint32_t)((bytes + SIM_UNIT - 1) / SIM_UNIT);

	for (uint32_t u = unit; u < unit + n; u++) {
		if (write)
			writer[u] = 0;
		else
			readers[u]--;
	}
}

void memory_hold_arena(struct sim *sim, uint32_t unit, uint64_t bytes, bool write, const char *who)
{
	hold(sim, "arena", sim->readers, sim->writer, sim->arena_units, unit, bytes, write, who);
	for (uint32_t u = unit; u < unit + (bytes + SIM_UNIT - 1) / SIM_UNIT; u++)
		if (!sim->extent_added[u * (uint64_t)SIM_UNIT / sim->config.extent_bytes])
			sim_fail(sim, "%s of arena unit %u, whose extent was never added", who, u);
}

void memory_drop_arena(struct sim *sim, uint32_t unit, uint64_t bytes, bool write)
{
	drop(sim->readers, sim->writer, unit, bytes, write);
}

void memory_hold_tier(struct sim *sim, uint32_t tier, uint32_t unit, uint64_t bytes, bool write)
{
	struct sim_tier *t = &sim->tiers[tier];

	hold(sim, "disk", t->readers, t->writer, t->units, unit, bytes, write, write ? "a write" : "a read");
}

void memory_drop_tier(struct sim *sim, uint32_t tier, uint32_t unit, uint64_t bytes, bool write)
{
	drop(sim->tiers[tier].readers, sim->tiers[tier].writer, unit, bytes, write);
}

void memory_quiet(struct sim *sim)
{
	memset(sim->readers, 0, sim->arena_units * sizeof(*sim->readers));
	memset(sim->writer, 0, sim->arena_units * sizeof(*sim->writer));
	for (uint32_t t = 0; t < sim->config.n_tiers; t++) {
		memset(sim->tiers[t].readers, 0, sim->tiers[t].units * sizeof(*sim->tiers[t].readers));
		memset(sim->tiers[t].writer, 0, sim->tiers[t].units * sizeof(*sim->tiers[t].writer));
	}
}

/* Stands for XXH3 of the payload; never 0, which means "not sealed". */
uint64_t memory_payload_sum(const uint8_t *image, uint64_t payload_bytes)
{
	uint64_t sum = payload_bytes;

	for (uint64_t i = 0; i + 8 <= payload_bytes; i += 8) {
		uint64_t word;

		memcpy(&word, image + SIM_UNIT + i, 8);
		sum = sim_mix(sum ^ word);
	}
	return sum ? sum : 1;
}

static bool overlap(const struct engine_place *a, const struct engine_place *b)
{
	return a->unit < b->unit + b->bytes / SIM_UNIT && b->unit < a->unit + a->bytes / SIM_UNIT;
}

static bool is_of_chunk(const struct sim_table_entry *entry, const struct engine_object *object, uint32_t model)
{
	return entry->used && entry->model == model && entry->object.epoch == object->epoch &&
	       memcmp(&entry->object.key, &object->key, sizeof(object->key)) == 0;
}

static bool is_object(const struct sim_table_entry *entry, const struct engine_object *object, uint32_t model)
{
	return is_of_chunk(entry, object, model) && entry->object.part == object->part &&
	       entry->object.sequence == object->sequence;
}

void memory_commit(void *shell, uint32_t record, const struct engine_place *place,
		   const struct engine_object *object)
{
	struct sim *sim = shell;

	sim_note(sim, record, place->unit);
	if (record >= sim->config.records)
		sim_fail(sim, "commit of record %u of %u", record, sim->config.records);
	if (sim->table[record].used)
		sim_fail(sim, "commit of record %u, which is committed already", record);
	if (object->checksum == 0)
		sim_fail(sim, "commit of record %u, which is not sealed", record);
	for (uint32_t r = 0; r < sim->config.records; r++)
		if (sim->table[r].used && overlap(&sim->table[r].place, place))
			sim_fail(sim, "commit of record %u at unit %u overlaps record %u", record,
				 place->unit, r);
	sim->table[record] = (struct sim_table_entry){ .used = true, .place = *place, .object = *object,
						       .model = model_stable(sim, object->model) };
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		for (uint32_t u = 0; u < sim->tiers[t].units && !sim->table[record].written; u++)
			sim->table[record].written = is_object(&sim->tiers[t].slabs[u], object, sim->table[record].model);
}

/* Has a tier had it at any time, or is it a life older? */
bool memory_was_written(const struct sim *sim, uint32_t record)
{
	return sim->table[record].written;
}

void memory_uncommit(void *shell, uint32_t record)
{
	struct sim *sim = shell;

	sim_note(sim, record, 1);
	if (record >= sim->config.records || !sim->table[record].used)
		sim_fail(sim, "uncommit of record %u, which is not committed", record);
	sim->table[record].used = sim_is_planted(sim, "kept-promise");
}

void memory_held(void *shell, uint32_t record, bool held)
{
	struct sim *sim = shell;

	sim_note(sim, record, held);
	if (record >= sim->config.records || !sim->table[record].used || sim->table[record].held == held)
		sim_fail(sim, "record %u is %s, which was so or is not committed", record, held ? "held" : "let go");
	sim->table[record].held = held;
}

static void log_change(struct sim_tier *tier, bool add, const struct sim_table_entry *entry)
{
	const uint32_t room = sizeof(tier->log) / sizeof(tier->log[0]);

	if (tier->log_n == room) {
		memcpy(&tier->log[0], &tier->log[room / 2], sizeof(tier->log) / 2);
		tier->log_n = room / 2;
	}
	tier->log[tier->log_n].add = add;
	tier->log[tier->log_n++].entry = *entry;
}

/* A tier other than @tier that has a part of the object's chunk, or ENGINE_NONE. */
uint32_t memory_other_tier(const struct sim *sim, uint32_t tier, const struct engine_object *object)
{
	const uint32_t model = model_stable(sim, object->model);

	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		for (uint32_t u = 0; u < sim->tiers[t].units && t != tier; u++)
			if (is_of_chunk(&sim->tiers[t].slabs[u], object, model))
				return t;
	return ENGINE_NONE;
}

/* Numbers that stores of the lives before were given. */
void memory_see_sequences(struct sim *sim)
{
	for (uint32_t r = 0; r < sim->config.records; r++)
		if (sim->table[r].used && sim->table[r].object.sequence > sim->sequence)
			sim->sequence = sim->table[r].object.sequence;
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		for (uint32_t u = 0; u < sim->tiers[t].units; u++)
			if (sim->tiers[t].slabs[u].used && sim->tiers[t].slabs[u].object.sequence > sim->sequence)
				sim->sequence = sim->tiers[t].slabs[u].object.sequence;
}

void memory_slab_add(void *shell, const struct engine_place *disk, const struct engine_object *object)
{
	struct sim *sim = shell;
	struct sim_tier *tier = &sim->tiers[disk->tier];

	sim_note(sim, disk->tier, disk->unit);
	for (uint32_t u = 0; u < tier->units; u++)
		if (tier->slabs[u].used && overlap(&tier->slabs[u].place, disk))
			sim_fail(sim, "slab table of tier %u: unit %u is added over the live unit %u",
				 disk->tier, disk->unit, u);
	if (memory_other_tier(sim, disk->tier, object) != ENGINE_NONE)
		sim_fail(sim, "parts of a chunk are on tiers %u and %u", memory_other_tier(sim, disk->tier, object),
			 disk->tier);
	tier->slabs[disk->unit] = (struct sim_table_entry){ .used = true, .place = *disk, .object = *object,
							    .model = model_stable(sim, object->model) };
	log_change(tier, true, &tier->slabs[disk->unit]);
	for (uint32_t r = 0; r < sim->config.records; r++)
		sim->table[r].written |= is_object(&sim->table[r], object, tier->slabs[disk->unit].model);
}

void memory_slab_remove(void *shell, const struct engine_place *disk, const struct engine_object *object)
{
	struct sim *sim = shell;
	struct sim_tier *tier = &sim->tiers[disk->tier];

	sim_note(sim, disk->unit, 2);
	if (disk->unit >= tier->units || !tier->slabs[disk->unit].used)
		sim_fail(sim, "slab table of tier %u: unit %u is removed, but not there", disk->tier, disk->unit);
	if (memcmp(&tier->slabs[disk->unit].object.key, &object->key, sizeof(object->key)) != 0)
		sim_fail(sim, "slab table of tier %u: unit %u is removed for another key", disk->tier, disk->unit);
	log_change(tier, false, &tier->slabs[disk->unit]);
	tier->slabs[disk->unit].used = false;
}
