/*
 * Ready words: 32-bit counters in a client's channel that its device raises. The slots whose jobs wait for
 * one form a circle for each client, and the clients that have such slots form another.
 *
 * A round of the core looks at WATCH_ROUND words at most, so that nobody makes rounds longer by waiting
 * for much: some words of the client whose turn it is, then of the next one, each time those that it
 * has not looked at for longest. With a thousand words among all clients each is still seen every 50 us; a client
 * that waits for more makes its own words wait, and those of others by its few words a turn. The core
 * sleeps only when it has looked at all of them, and at most 50 us.
 */
#include "src/broker/core-state.h"

#define WATCH_ROUND	16u	/* words a round: some 60 ns */
#define WATCH_TURN	4u	/* of them, of one client */

/* ---- the two circles --------------------------------------------------------------------------- */

static void clients_link(struct core *core, struct channel *channel)
{
	struct channel *at = core->watch_turn;

	if (!at) {
		core->watch_turn = channel->watch_next = channel->watch_prev = channel;
		return;
	}
	/* Before the one whose turn is next: the newcomer is last. */
	channel->watch_next = at;
	channel->watch_prev = at->watch_prev;
	at->watch_prev->watch_next = channel;
	at->watch_prev = channel;
}

static void clients_unlink(struct core *core, struct channel *channel)
{
	channel->watch_prev->watch_next = channel->watch_next;
	channel->watch_next->watch_prev = channel->watch_prev;
	if (core->watch_turn == channel)
		core->watch_turn = channel->watch_next == channel ? NULL : channel->watch_next;
}

static void slots_link(struct channel *channel, uint32_t slot)
{
	struct channel_slot *slots = channel->slot;
	const uint32_t at = channel->watch_slot;

	if (channel->n_watched == 0) {
		channel->watch_slot = slots[slot].watch_next = slots[slot].watch_prev = slot;
		return;
	}
	slots[slot].watch_next = at;
	slots[slot].watch_prev = slots[at].watch_prev;
	slots[slots[at].watch_prev].watch_next = slot;
	slots[at].watch_prev = slot;
}

static void slots_unlink(struct channel *channel, uint32_t slot)
{
	struct channel_slot *slots = channel->slot;

	slots[slots[slot].watch_prev].watch_next = slots[slot].watch_next;
	slots[slots[slot].watch_next].watch_prev = slots[slot].watch_prev;
	if (channel->watch_slot == slot)
		channel->watch_slot = slots[slot].watch_next;
}

/* ---- in and out -------------------------------------------------------------------------------- */

void watch_add(struct core *core, struct channel *channel, uint32_t slot, uint32_t index, uint32_t value)
{
	struct channel_slot *at = &channel->slot[slot];

	assert(!at->watched);
	at->watched = true;
	at->ready_index = index;
	at->ready_value = value;
	slots_link(channel, slot);
	if (channel->n_watched++ == 0)
		clients_link(core, channel);
	core->n_watched++;
	at->watch_lap = core->watch_lap - 1;
	core->watch_left++;
}

/* The core has slept: all words have to be looked at before it may again. */
void watch_woken(struct core *core)
{
	core->watch_lap++;
	core->watch_left = core->n_watched;
}

void watch_remove(struct core *core, struct channel *channel, uint32_t slot)
{
	if (!channel->slot[slot].watched)
		return;
	channel->slot[slot].watched = false;
	slots_unlink(channel, slot);
	core->n_watched--;
	core->watch_left -= channel->slot[slot].watch_lap != core->watch_lap;
	if (--channel->n_watched == 0)
		clients_unlink(core, channel);
}

void watch_remove_client(struct core *core, struct channel *channel)
{
	while (channel->n_watched)
		watch_remove(core, channel, channel->watch_slot);
}

/* ---- a round ----------------------------------------------------------------------------------- */

static bool is_reached(struct core *core, const struct channel *channel, uint32_t slot)
{
	struct channel_slot *at = &channel->slot[slot];

	core->watch_left -= at->watch_lap != core->watch_lap;
	at->watch_lap = core->watch_lap;
	return (int32_t)(channel_ready_word(channel, at->ready_index) - at->ready_value) >= 0;
}

bool watch_poll(struct core *core)
{
	const uint32_t all = core->n_watched < WATCH_ROUND ? core->n_watched : WATCH_ROUND;
	struct { uint32_t client, slot; } reached[WATCH_ROUND];
	uint32_t n = 0, looked = 0;

	while (looked < all && core->watch_turn) {
		struct channel *channel = core->watch_turn;

		core->watch_turn = channel->watch_next;
		const uint32_t turn = channel->n_watched < WATCH_TURN ? channel->n_watched : WATCH_TURN;
		for (uint32_t i = 0; i < turn && looked < all; i++, looked++) {
			const uint32_t slot = channel->watch_slot;

			channel->watch_slot = channel->slot[slot].watch_next;
			if (!is_reached(core, channel, slot))
				continue;
			reached[n].client = channel->number;
			reached[n++].slot = slot;
			watch_remove(core, channel, slot);
		}
	}
	/* The engine may watch and unwatch from within the event: the circles are whole again by now. */
	for (uint32_t i = 0; i < n; i++)
		engine_ready(core->engine, reached[i].client, reached[i].slot);
	return n > 0;
}
