/*
 * Recovery: objects that the tables of an older broker name. The arena's keep their record's number,
 * are UNVERIFIED until the first lookup wants them, and those that were held at the crash are pinned
 * for a while. Nothing is evicted for what is recovered: what does not fit, or is more than its tenant's
 * share of the index, is dropped, and so is what a crash brought back of an earlier life of its chunk.
 */
#include "src/engine/internal.h"

/* The object's part if all of it agrees with an open model, else NONE. */
static uint32_t part_check(const struct engine *e, const struct engine_place *place,
			   const struct engine_object *object)
{
	const struct model *model;

	if (object->model >= e->models_max || !e->models[object->model].open)
		return NONE;
	model = &e->models[object->model];
	if (object->epoch != model->epoch || object->tokens == 0 || object->tokens > model->chunk_tokens ||
	    object->first_token > UINT32_MAX)
		return NONE;
	if (place->tier != NONE && place->tier >= e->config.n_tiers)
		return NONE;
	for (uint32_t i = 0; i < model->n_parts; i++)
		if (model->parts[i].group == object->group && model->parts[i].shard == object->shard)
			return model->parts[i].image_bytes == place->bytes ? i : NONE;
	return NONE;
}

/* Images say what their chunk was when they were stored: of an earlier life of it, one would be found corrupt. */
static bool is_of_chunk(const struct engine *e, uint32_t number, const struct engine_object *object)
{
	const struct entry *entry = index_entry(e->index, number);

	return (entry->tokens & ~TOKENS_UNVERIFIED) == object->tokens && entry->first_token == object->first_token &&
	       entry->account == object->account &&
	       memcmp(&e->parents[number], &object->parent, sizeof(object->parent)) == 0;
}

static uint32_t entry_make(struct engine *e, const struct engine_object *object)
{
	const struct model *model = &e->models[object->model];
	const struct bound *bound = &e->tenants[model->tenant].entries;
	uint32_t number = index_find(e->index, model->incarnation, &object->key);
	struct entry *entry;

	if (number == NONE && bound->used < bound->max)
		number = index_add(e->index, model->incarnation, &object->key);
	if (number == NONE)
		return NONE;
	entry = entry_of(e, number);
	if (entry->records == NONE && entry->pins + entry->io == 0) {
		entry->tokens = object->tokens;
		entry->first_token = (uint32_t)object->first_token;
		entry->tenant = (uint8_t)model->tenant;
		entry->account = object->account;
		e->parents[number] = object->parent;
	} else if (!is_of_chunk(e, number, object)) {
		return NONE;
	}
	entry_link(e, number);
	return number;
}

static void remember(struct engine *e, uint32_t number, const struct engine_object *object)
{
	record_of(e, number)->checksum = object->checksum;
	record_of(e, number)->sequence = object->sequence;
	if (object->sequence > e->sequence)
		e->sequence = object->sequence;
}

static void in_arena(struct engine *e, uint32_t number, uint32_t unit, const struct engine_object *object)
{
	struct record *record = record_of(e, number);
	struct entry *entry = entry_of(e, record->entry);
	struct was was;

	record_place(e, number, unit);
	was = entry_was(e, record->entry);
	record->state = RECORD_UNVERIFIED;
	record->flags = RECORD_COMMITTED;
	record->version += record->version & 1;
	remember(e, number, object);
	entry->filling &= ~(1ull << record->part);
	entry->l1 |= 1ull << record->part;
	entry->tokens |= TOKENS_UNVERIFIED;
	e->unverified++;
	entry_touch(e, record->entry);
	entry_settle(e, record->entry, &was);
}

static uint32_t recover_arena(struct engine *e, uint32_t number, uint32_t entry, uint32_t part,
			      const struct engine_place *place, const struct engine_object *object, bool was_held)
{
	struct tenant *keeper = &e->tenants[entry_of(e, entry)->tenant];

	if (number >= e->config.records || index_record_find(e->index, entry, part) != NONE ||
	    keeper->records.used >= keeper->records.max)
		return NONE;
	if (!space_take(e->space, place->unit, place->bytes))
		return NONE;
	if (!index_record_add_at(e->index, number, entry, part)) {
		space_free(e->space, place->unit);
		return NONE;
	}
	record_used(e, number);
	in_arena(e, number, place->unit, object);
	if (was_held && e->chunks_taken < e->config.leased_chunks && keeper->chunks.used < keeper->chunks.max &&
	    !bound_is_pinned(keeper, 0)) {
		entry_pin(e, entry);
		keeper->chunks.used++;
		chunks_count(e, NONE, 1, 0);
		chunks_append(e, &e->recovered, entry);
	}
	return number;
}

static uint32_t recover_disk(struct engine *e, uint32_t entry, uint32_t part, const struct engine_place *place,
			     const struct engine_object *object)
{
	const uint32_t tier = entry_tier(e, entry_of(e, entry));
	const struct bound *bound = &e->tenants[entry_of(e, entry)->tenant].records;
	uint32_t number = index_record_find(e->index, entry, part);
	const bool known = number != NONE;

	if (!known && bound->used >= bound->max)
		return NONE;
	if ((tier != NONE && tier != place->tier) ||
	    (known && (record_of(e, number)->disk_place != NONE || record_of(e, number)->sequence != object->sequence)))
		return NONE;
	if (!space_take(e->tiers[place->tier].space, place->unit, place->bytes))
		return NONE;
	if (!known)
		number = index_record_add(e->index, entry, part);
	if (number == NONE) {
		space_free(e->tiers[place->tier].space, place->unit);
		return NONE;
	}
	if (!known) {
		record_used(e, number);
		remember(e, number, object);
		entry_touch(e, entry);
	}
	record_set_disk(e, number, place->tier, place->unit);
	return number;
}

uint32_t engine_recover(struct engine *e, uint32_t record, const struct engine_place *place,
			const struct engine_object *object, bool was_held)
{
	const uint32_t part = part_check(e, place, object);
	uint32_t entry, ret;

	if (part == NONE)
		return NONE;
	entry = entry_make(e, object);
	if (entry == NONE)
		return NONE;
	entry_pin(e, entry);		/* whatever becomes of it, it is looked at again below */
	ret = place->tier == NONE ? recover_arena(e, record, entry, part, place, object, was_held)
				  : recover_disk(e, entry, part, place, object);
	entry_unpin(e, entry);
	return ret;
}

/* All tables have been read. */
void recover_end(struct engine *e)
{
	if (e->recovered.n > 0)
		timers_set(e->timers, timer_of_recovery(e), e->now + e->config.recovered_hold_ns);
	if (e->unverified > 0 && tier_can_write(e)) {
		e->sweep_recovered = true;
		sweep_start(e);
	}
}
