/*
 * Registration of the arena, and the bounce buffer, as pin.h describes them.
 */
#include "src/device/cuda/pin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "src/device/refuse.h"

#define PAGE 4096u
#define PAUSE_MIN_NS 1000000000ull
#define PAUSE_MAX_NS 60000000000ull

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

static uint64_t locked_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 ? limit.rlim_cur : 0;
}

bool pin_is_due(struct pin *pin, uint64_t now_ns)
{
	if (pin->n_wanted)
		return true;
	if (!pin->n_refused || now_ns < pin->look_ns)
		return false;
	pin->look_ns = now_ns + PAUSE_MIN_NS;
	return now_ns >= pin->retry_ns || locked_limit() > pin->limit;
}

/* The first extent of that state, from @extent on; there is one. */
static uint32_t next_extent(const struct pin *pin, uint32_t extent, enum pin_state state)
{
	while (pin->extents[extent] != (uint8_t)state)
		extent++;
	return extent;
}

static void refused(struct pin *pin, uint32_t extent, enum cuda_result result, bool again, uint64_t now_ns)
{
	pin->n_refused += !again;
	pin->extents[extent] = PIN_REFUSED;
	pin->refusals++;
	pin->refusal = result;
	pin->limit = locked_limit();
	pin->pause_ns = !again || pin->pause_ns == 0 ? PAUSE_MIN_NS :
			pin->pause_ns < PAUSE_MAX_NS / 2 ? pin->pause_ns * 2 : PAUSE_MAX_NS;
	pin->retry_ns = pin->look_ns = now_ns + pin->pause_ns;
	if (pin->look_ns > now_ns + PAUSE_MIN_NS)
		pin->look_ns = now_ns + PAUSE_MIN_NS;
}

enum cuda_result pin_step(struct pin *pin, uint64_t now_ns)
{
	const bool again = !pin->n_wanted;
	const uint32_t extent = again ? next_extent(pin, 0, PIN_REFUSED) : next_extent(pin, pin->look_from, PIN_WANTED);
	const uint64_t at = extent * pin->extent_bytes, left = pin->arena_bytes - at;
	const uint64_t bytes = left < pin->extent_bytes ? left : pin->extent_bytes;
	enum cuda_result result;

	if (!again) {
		pin->look_from = extent + 1;
		pin->n_wanted--;
	}
	result = pin->cuda->host_register(pin->arena + at, bytes, CUDA_MEMHOSTREGISTER_PORTABLE);
	if (result != CUDA_OK) {
		refused(pin, extent, result, again, now_ns);
		return cuda_result_is_fatal(result) ? result : CUDA_OK;
	}
	pin->extents[extent] = PIN_REGISTERED;
	pin->registered_bytes += bytes;
	pin->changes++;
	if (again) {			/* and now the next one */
		pin->n_refused--;
		pin->retry_ns = pin->look_ns = now_ns;
		pin->pause_ns = 0;
	}
	return CUDA_OK;
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
