/*
 * Registration of the arena, and the bounce buffer, as pin.h describes them.
 */
#include "src/device/cuda/pin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/device/refuse.h"

#define PAGE 4096u

static int open_bounce(struct pin *pin, uint64_t bytes, char *why)
{
	const uint64_t slot = bytes / (2 * BOUNCE_SLOTS) & ~(uint64_t)(PAGE - 1);
	enum cuda_result result;
	char text[CUDA_TEXT];
	void *memory;

	pin->slot_bytes = slot > BOUNCE_BYTES_MIN ? slot : BOUNCE_BYTES_MIN;
	pin->bounce_bytes = pin->slot_bytes * 2 * BOUNCE_SLOTS;
	memory = mmap(NULL, pin->bounce_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		return refuse(why, -errno, "could not map %llu bytes for the bounce buffer: %s; set gpu.bounce lower",
			      (unsigned long long)pin->bounce_bytes, strerror(errno));
	pin->bounce_memory = memory;
	result = pin->cuda->host_register(memory, pin->bounce_bytes, CUDA_MEMHOSTREGISTER_PORTABLE);
	if (result != CUDA_OK)
		return refuse(why, -ENOMEM, "could not pin %llu bytes for the bounce buffer: %s; raise the limit of locked "
			      "memory, or set gpu.bounce lower", (unsigned long long)pin->bounce_bytes,
			      cuda_error_text(pin->cuda, result, text));
	for (uint32_t i = 0; i < 2 * BOUNCE_SLOTS; i++) {
		struct bounce *s = &pin->slots[i];

		*s = (struct bounce){ .store = i % 2, .memory = pin->bounce_memory + i * pin->slot_bytes };
		s->next_free = pin->free_slots[s->store];
		pin->free_slots[s->store] = s;
	}
	return 0;
}

int pin_open(struct pin *pin, const struct cuda_driver *cuda, uint8_t *arena, uint64_t arena_bytes,
	     uint64_t extent_bytes, uint64_t bounce_bytes, char *why)
{
	assert(extent_bytes > 0 && extent_bytes <= PIN_CALL_MAX);
	*pin = (struct pin){ .cuda = cuda, .arena = arena, .arena_bytes = arena_bytes, .extent_bytes = extent_bytes };
	pin->n_extents = (uint32_t)((arena_bytes + extent_bytes - 1) / extent_bytes);
	pin->extents = calloc(pin->n_extents, 1);
	if (!pin->extents)
		return refuse(why, -ENOMEM, "could not begin: the copier is out of memory");
	return open_bounce(pin, bounce_bytes, why);
}

void pin_want(struct pin *pin, uint32_t extent)
{
	assert(extent < pin->n_extents);
	if (pin->extents[extent] != PIN_UNKNOWN)
		return;
	pin->extents[extent] = PIN_WANTED;
	pin->n_wanted++;
	if (extent < pin->look_from)
		pin->look_from = extent;
}

enum cuda_result pin_step(struct pin *pin)
{
	uint32_t extent = pin->look_from;
	enum cuda_result result;

	if (!pin->n_wanted)
		return CUDA_OK;
	while (pin->extents[extent] != PIN_WANTED)
		extent++;

	const uint64_t at = extent * pin->extent_bytes, left = pin->arena_bytes - at;
	const uint64_t bytes = left < pin->extent_bytes ? left : pin->extent_bytes;

	pin->look_from = extent + 1;
	pin->n_wanted--;
	result = pin->cuda->host_register(pin->arena + at, bytes, CUDA_MEMHOSTREGISTER_PORTABLE);
	if (result == CUDA_OK) {
		pin->extents[extent] = PIN_REGISTERED;
		pin->registered_bytes += bytes;
		pin->changes++;
		return CUDA_OK;
	}
	pin->extents[extent] = PIN_REFUSED;
	pin->n_refused++;
	pin->refusal = result;
	return cuda_result_is_fatal(result) ? result : CUDA_OK;
}

bool pin_covers(const struct pin *pin, uint64_t offset, uint64_t bytes)
{
	for (uint64_t i = offset / pin->extent_bytes; i * pin->extent_bytes < offset + bytes; i++)
		if (pin->extents[i] != PIN_REGISTERED)
			return false;
	return true;
}

/* ---- the bounce buffer --------------------------------------------------------------------------- */

struct bounce *bounce_take(struct pin *pin, bool store)
{
	struct bounce *slot = pin->free_slots[store];

	if (slot) {
		pin->free_slots[store] = slot->next_free;
		slot->used = 0;
		slot->n_parts = 0;
	}
	return slot;
}

/* Note where a store's bytes have to go; neighbours on both sides are one part. */
static bool note_part(struct bounce *slot, const struct plan_run *run)
{
	struct bounce_part *last = slot->n_parts ? &slot->parts[slot->n_parts - 1] : NULL;

	if (last && last->host + last->bytes == run->host && last->at + last->bytes == slot->used) {
		last->bytes += run->bytes;
		return true;
	}
	if (slot->n_parts == slot->parts_room) {
		const uint32_t room = slot->parts_room ? 2 * slot->parts_room : 256;
		struct bounce_part *parts = realloc(slot->parts, room * sizeof(*parts));

		if (!parts)
			return false;
		slot->parts = parts;
		slot->parts_room = room;
	}
	slot->parts[slot->n_parts++] = (struct bounce_part){ run->host, slot->used, run->bytes };
	return true;
}

uint8_t *bounce_place(struct pin *pin, struct bounce *slot, const struct plan_run *run)
{
	uint8_t *place = slot->memory + slot->used;

	if (run->bytes > pin->slot_bytes - slot->used)
		return NULL;
	if (!slot->store)
		memcpy(place, pin->arena + run->host, run->bytes);
	else if (!note_part(slot, run))
		return NULL;
	slot->used += run->bytes;
	pin->bounced_bytes += run->bytes;
	return place;
}

void bounce_put(struct pin *pin, struct bounce *slot, bool copied)
{
	for (uint32_t i = 0; copied && i < slot->n_parts; i++) {
		const struct bounce_part *part = &slot->parts[i];

		memcpy(pin->arena + part->host, slot->memory + part->at, part->bytes);
	}
	slot->next_free = pin->free_slots[slot->store];
	pin->free_slots[slot->store] = slot;
}
