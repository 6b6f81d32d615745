/*
 * The arena's table: which object lies where, for the broker that comes after this one.
 *
 * The order that makes it safe against an end between any two instructions: state := 0, then the
 * place goes to whoever writes it; the payload is complete, then fields and check, then state :=
 * committed. The memory outlives us as it is, so what counts is the order in which this thread made
 * its stores; release keeps the compiler and the machine to it. An entry that a successor finds committed
 * was whole; the check is for what no order helps against (a table that somebody scribbled on).
 * And the payload's own checksum is verified before it is served once.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "src/broker/arena.h"
#include "src/broker/places.h"

#define TOKENS_BITS	24

static uint32_t entry_check(const struct arena_entry *entry)
{
	const size_t first = offsetof(struct arena_entry, group);

	return (uint32_t)XXH3_64bits((const uint8_t *)entry + first, offsetof(struct arena_entry, check) - first);
}

void arena_uncommit(struct arena *arena, uint32_t record)
{
	assert(record < arena->records);
	atomic_store_explicit(&arena->table[record].state, 0, memory_order_release);
}

void arena_commit(struct arena *arena, uint32_t record, const struct engine_place *place,
		  const struct engine_object *object, const uint8_t model_digest[MODEL_DIGEST_BYTES])
{
	struct arena_entry *entry = &arena->table[record];

	arena_uncommit(arena, record);
	/* What the entry cannot say is not kept; no real position of a token is that large. */
	if (object->first_token >> (64 - TOKENS_BITS) || object->tokens >> TOKENS_BITS)
		return;
	entry->group = object->group;
	entry->shard = object->shard;
	entry->key = object->key;
	entry->parent = object->parent;
	entry->account = object->account;
	entry->sequence = object->sequence;
	entry->checksum = object->checksum;
	memcpy(&entry->model_digest64, model_digest, sizeof(entry->model_digest64));
	entry->tokens = object->first_token << TOKENS_BITS | object->tokens;
	entry->unit = place->unit;
	entry->units = (uint32_t)(place->bytes / 4096);
	entry->epoch = object->epoch;
	entry->check = entry_check(entry);
	atomic_store_explicit(&entry->held, 0, memory_order_relaxed);
	atomic_store_explicit(&entry->state, ARENA_COMMITTED, memory_order_release);
}

void arena_set_held(struct arena *arena, uint32_t record, bool held)
{
	assert(record < arena->records);
	atomic_store_explicit(&arena->table[record].held, held, memory_order_relaxed);
}

/* Read from an entry that is whole and within the arena what it says. */
static void entry_tell(const struct arena_entry *entry, uint32_t record, struct arena_found *ret)
{
	*ret = (struct arena_found){
		.place = { .tier = ENGINE_NONE, .unit = entry->unit, .bytes = (uint64_t)entry->units * 4096 },
		.object = {
			.key = entry->key, .parent = entry->parent, .account = entry->account,
			.sequence = entry->sequence, .checksum = entry->checksum, .epoch = entry->epoch,
			.first_token = entry->tokens >> TOKENS_BITS,
			.tokens = (uint32_t)(entry->tokens & ((1u << TOKENS_BITS) - 1)),
			.group = entry->group, .shard = entry->shard,
		},
		.model_digest64 = entry->model_digest64,
		.record = record,
		.was_held = atomic_load_explicit(&entry->held, memory_order_relaxed) != 0,
	};
}

int arena_recover(struct arena *arena, bool (*each)(void *arg, const struct arena_found *found), void *arg,
		  uint64_t *dropped)
{
	const uint64_t units = arena->bytes / 4096;
	uint64_t *places = places_new(units);
	bool go_on = true;

	*dropped = 0;
	if (!places)
		return -ENOMEM;
	for (uint32_t i = 0; i < arena->records && go_on; i++) {
		struct arena_entry *entry = &arena->table[i];
		const uint32_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
		struct arena_found found;

		if (state == 0)
			continue;
		if (state != ARENA_COMMITTED || entry->check != entry_check(entry) || entry->units == 0 ||
		    entry->unit >= units || entry->units > units - entry->unit ||
		    !places_claim(places, entry->unit, entry->units)) {
			arena_uncommit(arena, i);
			++*dropped;
			continue;
		}
		entry_tell(entry, i, &found);
		/* Whoever held it is gone with the broker before. */
		atomic_store_explicit(&entry->held, 0, memory_order_relaxed);
		go_on = each(arg, &found);
	}
	free(places);
	return 0;
}
