/*
 * Ready words: 32-bit counters in a client's channel that its device raises. The slots whose jobs wait
 * for one form a list through their private descriptors; the core looks at all of them in every round
 * while there are any, and sleeps at most 50 us meanwhile.
 */
#include "src/broker/core-state.h"

static uint32_t place_of(const struct channel *channel, uint32_t slot)
{
	return channel->number << 16 | slot;
}

static struct channel_slot *slot_at(struct core *core, uint32_t place)
{
	return &core->channels[place >> 16]->slot[place & 0xffff];
}

void watch_add(struct core *core, struct channel *channel, uint32_t slot, uint32_t index, uint32_t value)
{
	struct channel_slot *at = &channel->slot[slot];

	assert(!at->watched);
	at->watched = true;
	at->ready_index = index;
	at->ready_value = value;
	at->watch_next = core->watch_first;
	core->watch_first = place_of(channel, slot);
	core->n_watched++;
}

/* Take out of the list what @link names; it names the next one then. */
static void watch_unlink(struct core *core, uint32_t *link)
{
	struct channel_slot *at = slot_at(core, *link);

	at->watched = false;
	*link = at->watch_next;
	core->n_watched--;
}

void watch_remove(struct core *core, struct channel *channel, uint32_t slot)
{
	const uint32_t place = place_of(channel, slot);

	if (!channel->slot[slot].watched)
		return;
	for (uint32_t *link = &core->watch_first; *link != ENGINE_NONE; link = &slot_at(core, *link)->watch_next) {
		if (*link == place) {
			watch_unlink(core, link);
			return;
		}
	}
}

void watch_remove_client(struct core *core, struct channel *channel)
{
	for (uint32_t *link = &core->watch_first; *link != ENGINE_NONE;) {
		if (*link >> 16 == channel->number)
			watch_unlink(core, link);
		else
			link = &slot_at(core, *link)->watch_next;
	}
}

bool watch_poll(struct core *core)
{
	uint32_t reached[64], n = 0;

	for (uint32_t *link = &core->watch_first; *link != ENGINE_NONE && n < 64;) {
		const struct channel_slot *at = slot_at(core, *link);
		const uint32_t word = channel_ready_word(core->channels[*link >> 16], at->ready_index);

		if ((int32_t)(word - at->ready_value) < 0) {
			link = &slot_at(core, *link)->watch_next;
			continue;
		}
		reached[n++] = *link;
		watch_unlink(core, link);
	}
	/* The engine may watch and unwatch from within the event: the list is whole again by now. */
	for (uint32_t i = 0; i < n; i++)
		engine_ready(core->engine, reached[i] >> 16, reached[i] & 0xffff);
	return n > 0;
}
