/*
 * LOOKUP: keys into a slot, or into several.
 *
 * A chain of more keys than a large slot holds is asked for by a head and pieces, each in a large
 * slot of its own, submitted one after the other. All slots are taken before anything is written,
 * because the caller's keys are read during this call only. Pieces are the library's: it forgets
 * them when they are DONE, for all results are in the head.
 */
#include <string.h>

#include "src/client/client.h"

#define KNOWN_FLAGS (STOKER_LOOKUP_PROBE | STOKER_LOOKUP_NO_PREFETCH | STOKER_LOOKUP_NO_PARTIAL | STOKER_LOOKUP_ANY)

static_assert(sizeof(struct stoker_key) == sizeof(struct stoker_wire_key), "keys travel as they are");
static_assert(STOKER_SMALL_INPUT >= STOKER_SMALL_KEYS * sizeof(struct stoker_key) &&
	      STOKER_LARGE_INPUT >= STOKER_LARGE_KEYS * sizeof(struct stoker_key), "a slot holds its keys");

uint32_t deadline_us(uint32_t deadline_ms)
{
	return deadline_ms > UINT32_MAX / 1000 ? UINT32_MAX : deadline_ms * 1000;
}

uint8_t *slot_input(struct stoker *c, uint32_t slot)
{
	return c->at->channel + plan_input_offset(&c->at->plan, slot);
}

int client_ready(struct stoker *c, struct stoker_model *model)
{
	const int r = client_need_broker(c);

	if (r < 0)
		return r;
	if (!model || model->object.c != c)
		return client_fail(c, -EINVAL, "the model is not of this handle");
	return object_need(&model->object, "model");
}

uint32_t stoker_keys_max(const struct stoker *c)
{
	uint32_t large;

	if (!c || !c->at)
		return 0;
	large = c->at->plan.geometry.slots_large;
	return STOKER_LARGE_KEYS * (large < STOKER_PIECES_MAX + 1 ? large : STOKER_PIECES_MAX + 1);
}

static int options_check(struct stoker *c, const struct stoker_lookup_options *o, uint32_t n_keys)
{
	if (o->flags & ~KNOWN_FLAGS)
		return client_fail(c, -EINVAL, "lookup: unknown flag");
	if (o->priority > 7)
		return client_fail(c, -EINVAL, "lookup: priority is 0 to 7");
	if (o->have > n_keys)
		return client_fail(c, -EINVAL, "lookup: have is %u of %u keys", o->have, n_keys);
	return 0;
}

static uint32_t head_flags(const struct stoker_lookup_options *o)
{
	uint32_t flags = 0;

	if (o->flags & STOKER_LOOKUP_PROBE)
		flags |= STOKER_F_PROBE;
	else if (!(o->flags & STOKER_LOOKUP_NO_PREFETCH))
		flags |= STOKER_F_PREFETCH;
	if (!(o->flags & STOKER_LOOKUP_NO_PARTIAL))
		flags |= STOKER_F_PARTIAL;
	if (o->flags & STOKER_LOOKUP_ANY)
		flags |= STOKER_F_ANY;
	if (o->extend.token[0] | o->extend.token[1])
		flags |= STOKER_F_RENEW;
	return flags;
}

static void head_submit(struct stoker *c, uint32_t slot, const struct stoker_model *model,
			const struct stoker_key *keys, uint32_t n_keys, uint32_t pieces,
			const struct stoker_lookup_options *o)
{
	struct stoker_request_head head = {
		.op = STOKER_OP_LOOKUP,
		.priority = (uint8_t)o->priority,
		.flags = head_flags(o),
		.model = model->object.number,
		.n_keys = n_keys,
		.deadline_us = deadline_us(o->deadline_ms),
		.session = o->session,
		.lease = { o->extend.token[0], o->extend.token[1] },
	};

	c->slots[slot].request = (union stoker_request_line){ .lookup = {
		.account = o->account,
		.readers = o->readers,
		.have = o->have,
		.groups = o->groups,
		.tiers = o->tiers,
		.lease_ms = o->lease_ms,
		.pieces = pieces,
	} };
	memcpy(slot_input(c, slot), keys, n_keys * sizeof(*keys));
	slot_submit(c, slot, &head, OWNER_CALLER);
}

static void piece_submit(struct stoker *c, uint32_t slot, uint32_t head_slot, uint32_t piece,
			 const struct stoker_model *model, const struct stoker_key *keys, uint32_t n_keys,
			 uint32_t priority)
{
	struct stoker_request_head head = {
		.op = STOKER_OP_LOOKUP_MORE,
		.priority = (uint8_t)priority,
		.model = model->object.number,
		.n_keys = n_keys,
	};

	c->slots[slot].request = (union stoker_request_line){ .more = {
		.head_slot = head_slot,
		.head_generation = c->jobs[head_slot].generation,
		.piece = piece,
	} };
	memcpy(slot_input(c, slot), keys, n_keys * sizeof(*keys));
	slot_submit(c, slot, &head, OWNER_LIBRARY);
}

static int take_slots(struct stoker *c, uint32_t n_keys, uint32_t *slots, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const int slot = slot_take(c, n_keys <= STOKER_SMALL_KEYS ? SLOT_SMALL : SLOT_LARGE);

		if (slot < 0) {
			while (i-- > 0)
				slot_give_back(c, slots[i]);
			return -EAGAIN;
		}
		slots[i] = (uint32_t)slot;
	}
	return 0;
}

static int lookup(struct stoker *c, struct stoker_model *model, const struct stoker_key *keys, uint32_t n_keys,
		  const struct stoker_lookup_options *options, struct stoker_job *ret)
{
	struct stoker_lookup_options o;
	uint32_t slots[STOKER_PIECES_MAX + 1] = { 0 };
	const uint32_t n = (n_keys + STOKER_LARGE_KEYS - 1) / STOKER_LARGE_KEYS;
	int r = client_ready(c, model);

	if (r < 0)
		return r;
	if (n_keys == 0 || n_keys > stoker_keys_max(c) || !keys || !ret)
		return client_fail(c, -EINVAL, "lookup: %u keys; 1 to %u fit", n_keys, stoker_keys_max(c));
	r = client_take_options(c, &o, sizeof(o), options);
	if (r == 0)
		r = options_check(c, &o, n_keys);
	if (r == 0)
		r = take_slots(c, n_keys, slots, n);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t at = i * STOKER_LARGE_KEYS;
		const uint32_t left = n_keys - at < STOKER_LARGE_KEYS ? n_keys - at : STOKER_LARGE_KEYS;

		if (i == 0)
			head_submit(c, slots[0], model, keys, left, n - 1, &o);
		else
			piece_submit(c, slots[i], slots[0], i, model, keys + at, left, o.priority);
	}
	c->jobs[slots[0]].n_keys = n_keys;
	*ret = (struct stoker_job){ slots[0], c->jobs[slots[0]].generation };
	return 0;
}

int stoker_lookup(struct stoker *c, struct stoker_model *model, const struct stoker_key *keys, uint32_t n_keys,
		  const struct stoker_lookup_options *options, struct stoker_job *ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, lookup(c, model, keys, n_keys, options, ret));
}
