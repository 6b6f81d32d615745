/*
 * Where everything in a channel is, worked out from its geometry alone. Broker and client both do
 * this for themselves: neither believes an offset or a size that it reads in shared memory.
 *
 * All bounds are far below what 64 bits hold (the greatest channel has less than 12 MiB), so the
 * sums below cannot wrap once the geometry has been checked.
 */
#include "shm/layout.h"

#include <errno.h>

/*
 * Areas of neighbouring slots begin an odd number of lines, or an odd multiple of two, apart: with
 * strides of a power of two the first lines of all slots would compete for the same cache sets.
 */
#define SMALL_STRIDE ((uint64_t)STOKER_SMALL_INPUT + STOKER_SMALL_OUTPUT)
#define LARGE_STRIDE ((uint64_t)STOKER_LARGE_INPUT + STOKER_LARGE_OUTPUT)

static_assert(SMALL_STRIDE % STOKER_LINE == 0 && LARGE_STRIDE % STOKER_LINE == 0,
	      "areas begin on a cache line");
static_assert((SMALL_STRIDE & (SMALL_STRIDE - 1)) != 0 && (LARGE_STRIDE & (LARGE_STRIDE - 1)) != 0,
	      "a stride of a power of two wastes the cache");
static_assert(STOKER_SMALL_KEYS * sizeof(struct stoker_wire_key) <= STOKER_SMALL_INPUT &&
	      STOKER_LARGE_KEYS * sizeof(struct stoker_wire_key) <= STOKER_LARGE_INPUT,
	      "the keys of a slot fit its input area");
static_assert(STOKER_SMALL_KEYS / 8 + STOKER_SMALL_KEYS <= STOKER_SMALL_OUTPUT &&
	      STOKER_LARGE_KEYS / 8 + STOKER_LARGE_KEYS <= STOKER_LARGE_OUTPUT,
	      "bitmap and statuses of a slot's keys fit its output area");
static_assert(sizeof(struct stoker_mapped) <= STOKER_SMALL_OUTPUT, "a mapping fits every output area");
static_assert(sizeof(struct channel_header) <= STOKER_PAGE, "the header fits its page");

static uint32_t power_of_two_from(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

static uint64_t page_up(uint64_t bytes)
{
	return (bytes + STOKER_PAGE - 1) & ~(uint64_t)(STOKER_PAGE - 1);
}

static int geometry_check(const struct channel_geometry *geometry)
{
	if (geometry->slots_small < 1 || geometry->slots_small > CHANNEL_SMALL_MAX)
		return -EINVAL;
	if (geometry->slots_large < 1 || geometry->slots_large > CHANNEL_LARGE_MAX)
		return -EINVAL;
	if (geometry->ready_words < 1 || geometry->ready_words > CHANNEL_READY_MAX ||
	    geometry->ready_words % (STOKER_PAGE / sizeof(uint32_t)) != 0)
		return -EINVAL;
	if (geometry->reserved != 0)
		return -EINVAL;
	return 0;
}

int channel_plan_make(const struct channel_geometry *geometry, struct channel_plan *ret)
{
	struct channel_plan plan = { .geometry = *geometry };
	const int r = geometry_check(&plan.geometry);

	if (r < 0)
		return r;
	plan.slots = plan.geometry.slots_small + plan.geometry.slots_large;
	plan.requests = power_of_two_from(4 * plan.slots);
	plan.responses = power_of_two_from(2 * plan.slots);

	plan.request_offset = STOKER_PAGE;
	plan.response_offset = plan.request_offset + (uint64_t)plan.requests * sizeof(struct stoker_entry);
	/* Pages of their own: a worker registers them with its device, and only them. */
	plan.ready_offset = page_up(plan.response_offset + (uint64_t)plan.responses * sizeof(uint64_t));
	plan.slot_offset = plan.ready_offset + (uint64_t)plan.geometry.ready_words * sizeof(uint32_t);
	plan.small_offset = plan.slot_offset + (uint64_t)plan.slots * sizeof(struct stoker_slot);
	plan.large_offset = plan.small_offset + plan.geometry.slots_small * SMALL_STRIDE;
	plan.bytes = page_up(plan.large_offset + plan.geometry.slots_large * LARGE_STRIDE);
	*ret = plan;
	return 0;
}

uint64_t plan_input_offset(const struct channel_plan *plan, uint32_t slot)
{
	assert(slot < plan->slots);
	if (slot < plan->geometry.slots_small)
		return plan->small_offset + slot * SMALL_STRIDE;
	return plan->large_offset + (slot - plan->geometry.slots_small) * LARGE_STRIDE;
}

uint64_t plan_output_offset(const struct channel_plan *plan, uint32_t slot)
{
	return plan_input_offset(plan, slot) + plan_slot_input(plan, slot);
}
