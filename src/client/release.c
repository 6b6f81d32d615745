/*
 * RELEASE and END_SESSION, which nobody waits for; PING; and cancelling.
 *
 * What gives things back must get through when everything is in use: it has slots of its own, and if
 * the broker has not answered in those yet, waits for it for a millisecond at most. What is not given
 * back after all ends with the lease's expiry. Who does nothing else never polls: so it is here that one
 * looks whether there is a broker at all.
 */
#include "src/client/client.h"

#define PATIENCE_NS 1000000u

int slot_take_kept_back(struct stoker *c)
{
	int slot = slot_take(c, SLOT_KEPT_BACK);
	uint64_t end;

	if (slot >= 0)
		return slot;
	end = talk_now_ns() + PATIENCE_NS;
	while (slot < 0 && talk_now_ns() < end) {
		wait_relax();
		slot = slot_take(c, SLOT_KEPT_BACK);
	}
	if (slot < 0 && gone_ticks() >= c->look_ticks && gone_look(c))
		return -EPIPE;
	return slot;
}

static int submit_and_forget(struct stoker *c, struct stoker_request_head *head, const union stoker_request_line *line)
{
	const int slot = slot_take_kept_back(c);

	if (slot == -EPIPE)
		return slot;
	if (slot < 0)
		return client_fail(c, -EAGAIN, "the broker has not taken what was given back before; try again, or leave "
				   "it to the lease's expiry");
	if (line)
		c->slots[slot].request = *line;
	slot_submit(c, (uint32_t)slot, head, OWNER_LIBRARY);
	return 0;
}

int release_share(struct stoker *c, const struct stoker_lease *lease, uint32_t reader)
{
	struct stoker_request_head head = { .op = STOKER_OP_RELEASE, .lease = { lease->token[0], lease->token[1] } };
	const union stoker_request_line line = { .release.reader = reader };

	return submit_and_forget(c, &head, &line);
}

static int release(struct stoker *c, const struct stoker_lease *lease, uint32_t reader)
{
	const int r = client_need_broker(c);

	if (!lease || !(lease->token[0] | lease->token[1]) || reader > 63)
		return client_fail(c, -EINVAL, "release: no lease, or a reader above 63");
	return r < 0 ? r : release_share(c, lease, reader);
}

int stoker_release(struct stoker *c, const struct stoker_lease *lease, uint32_t reader)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, release(c, lease, reader));
}

static int end_session(struct stoker *c, uint64_t session)
{
	struct stoker_request_head head = { .op = STOKER_OP_END_SESSION, .session = session };
	const int r = client_need_broker(c);

	if (session == 0)
		return client_fail(c, -EINVAL, "end-session: 0 is no session");
	return r < 0 ? r : submit_and_forget(c, &head, NULL);
}

int stoker_end_session(struct stoker *c, uint64_t session)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, end_session(c, session));
}

static int ping(struct stoker *c, struct stoker_job *ret)
{
	struct stoker_request_head head = { .op = STOKER_OP_PING };
	const int r = client_need_broker(c);
	int slot;

	if (!ret)
		return -EINVAL;
	slot = r < 0 ? r : slot_take(c, SLOT_SMALL);
	if (slot < 0)
		return slot;
	slot_submit(c, (uint32_t)slot, &head, OWNER_CALLER);
	*ret = (struct stoker_job){ (uint32_t)slot, c->jobs[slot].generation };
	return 0;
}

int stoker_ping(struct stoker *c, struct stoker_job *ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, ping(c, ret));
}

static int cancel(struct stoker *c, struct stoker_job job)
{
	const struct batch *batch = batch_find(c, job);

	if (batch) {
		for (uint32_t i = 0; i < batch->n_parts; i++)
			slot_cancel(c, batch->slot[i]);
		return 0;
	}
	if (!job_find(c, job))
		return -ENOENT;
	slot_cancel(c, job.slot);
	return 0;
}

int stoker_cancel(struct stoker *c, struct stoker_job job)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, cancel(c, job));
}
