/*
 * Mapping objects of a lease where they lie in the arena, for readers that need no copy.
 *
 * A hold pins the object until it is given back or its client dies. The arena's mapping belongs to the
 * attachment, which a mapping keeps: after the broker's death the bytes stay readable, though
 * nobody vouches for them any more, and stoker_unmap() says so.
 */
#include <errno.h>
#include <string.h>

#include "src/client/client.h"

#define PATIENCE_NS 5000000000u

static int map_slot(struct stoker *c, uint32_t slot, struct stoker_mapped *ret, uint64_t hold[2])
{
	const struct job *job = &c->jobs[slot];
	struct stoker_result result;

	slot_result(c, slot, &result);
	if (job->state == JOB_RUNNING)
		memcpy(ret, job->at->channel + plan_output_offset(&job->at->plan, slot), sizeof(*ret));
	memcpy(hold, result.lease.token, sizeof(result.lease.token));
	if (result.status == STOKER_STATUS_REFUSED)	/* not a matter of rights: see stoker_map(3) */
		return client_fail(c, -ENOMEM, "the object cannot be mapped: as much is mapped already as may be");
	if (result.status != STOKER_STATUS_OK)
		return client_fail(c, client_status_errno(result.status), "the object cannot be mapped: %s",
				   stoker_status_meaning(result.status));
	return 0;
}

/* Submit in @slot, wait for the answer and give the slot back. */
static int map_ask(struct stoker *c, uint32_t slot, struct stoker_request_head *head, struct stoker_mapped *ret,
		   uint64_t hold[2])
{
	int r;

	slot_submit(c, slot, head, OWNER_CALLER);
	r = wait_until(c, (struct stoker_job){ slot, c->jobs[slot].generation }, talk_now_ns() + PATIENCE_NS);
	if (r < 0) {
		slot_cancel(c, slot);
		slot_disown(c, slot);
		return client_fail(c, r, "the broker did not answer in time; if stokerctl ping hangs too, the broker does");
	}
	r = map_slot(c, slot, ret, hold);
	slot_give_back(c, slot);
	return r;
}

static int map(struct stoker *c, const struct stoker_lease *lease, uint32_t chunk, uint32_t group, uint32_t shard,
	       struct stoker_mapping *ret)
{
	struct stoker_request_head head = { .op = STOKER_OP_MAP };
	struct stoker_mapping own = { 0 };
	struct stoker_mapped mapped = { 0 };
	struct attachment *at;
	int slot, r = client_need_broker(c);

	if (r < 0)
		return r;
	if (!lease || !ret || ret->size < sizeof(own))
		return client_fail(c, -EINVAL, "map: no lease, or the size of the mapping is not set");
	at = c->at;
	if (!at->arena)
		return client_fail(c, -EACCES, "this client was not given the arena: its tenant is not trusted, or it attached "
				   "with STOKER_OPTION_NO_ARENA; retrieve copies instead");
	slot = slot_take(c, SLOT_SMALL);
	if (slot < 0)
		return slot;
	memcpy(head.lease, lease->token, sizeof(head.lease));
	c->slots[slot].request = (union stoker_request_line){ .map = { .chunk = chunk, .group = group, .shard = shard } };
	attachment_get(at);
	r = map_ask(c, (uint32_t)slot, &head, &mapped, own.hold);
	if (r == 0 && (mapped.bytes > at->arena_bytes || mapped.offset > at->arena_bytes - mapped.bytes))
		r = client_fail(c, -EPROTO, "the broker named a place outside the arena");
	if (r < 0) {
		attachment_put(c, at);
		return r;
	}
	own.size = ret->size;
	own.data = at->arena + mapped.offset;
	own.bytes = mapped.bytes;
	own.hold[2] = at->ordinal;
	memcpy(ret, &own, sizeof(own));
	return 0;
}

int stoker_map(struct stoker *c, const struct stoker_lease *lease, uint32_t chunk, uint32_t group, uint32_t shard,
	       struct stoker_mapping *ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, map(c, lease, chunk, group, shard, ret));
}

static int unmap(struct stoker *c, struct stoker_mapping *mapping)
{
	struct stoker_request_head head = { .op = STOKER_OP_UNMAP };
	struct stoker_mapped mapped = { 0 };
	struct attachment *at = c->attachments;
	uint64_t hold[2];
	int slot, r = -ESTALE;

	if (!mapping || !mapping->data)
		return client_fail(c, -EINVAL, "unmap: nothing is mapped");
	while (at && at->ordinal != mapping->hold[2])
		at = at->next;
	if (!at)
		return client_fail(c, -EINVAL, "unmap: the mapping is not of this handle");
	if (at == c->at) {
		slot = slot_take_kept_back(c);
		if (slot == -EAGAIN)
			return slot;
		memcpy(head.lease, mapping->hold, sizeof(head.lease));
		if (slot >= 0)
			r = map_ask(c, (uint32_t)slot, &head, &mapped, hold);
	}
	mapping->data = NULL;
	attachment_put(c, at);
	return r == 0 && mapped.held == 1 ? 0 : -ESTALE;
}

int stoker_unmap(struct stoker *c, struct stoker_mapping *mapping)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, unmap(c, mapping));
}
