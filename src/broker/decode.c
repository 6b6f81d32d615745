/*
 * From an entry in a channel to a request of the engine's: taken once, checked, kept in private
 * memory. What an operation may carry is one row of a table.
 */
#include <errno.h>

#include "src/broker/channel.h"

enum { HAS_KEYS = 1, HAS_SEGMENTS = 2, HAS_LINE = 4 };

#define RESERVED(member) \
	(uint8_t)offsetof(union stoker_request_line, member), \
	(uint8_t)sizeof(((union stoker_request_line *)NULL)->member)

/** struct op_rule - what the entry, line and payload of an operation may hold. */
struct op_rule {
	bool known;
	uint8_t has;
	uint16_t flags;			/* allowed STOKER_F_* */
	uint8_t reserved_at, reserved_bytes;	/* of the line: must be 0 */
};

static const struct op_rule op_rules[] = {
	[STOKER_OP_LOOKUP] = { true, HAS_KEYS | HAS_LINE,
		STOKER_F_PROBE | STOKER_F_PREFETCH | STOKER_F_PARTIAL | STOKER_F_ANY | STOKER_F_RENEW,
		RESERVED(lookup.reserved) },
	[STOKER_OP_LOOKUP_MORE] = { true, HAS_KEYS | HAS_LINE, 0, RESERVED(more.reserved) },
	[STOKER_OP_RETRIEVE] = { true, HAS_SEGMENTS | HAS_LINE, STOKER_F_END_SHARE | STOKER_F_READY,
		RESERVED(retrieve.reserved) },
	[STOKER_OP_STORE] = { true, HAS_KEYS | HAS_SEGMENTS | HAS_LINE, STOKER_F_WAIT | STOKER_F_READY,
		RESERVED(store.reserved) },
	[STOKER_OP_RELEASE] = { true, HAS_LINE, 0, RESERVED(release.reserved) },
	[STOKER_OP_MAP] = { true, HAS_LINE, 0, RESERVED(map.reserved) },
	[STOKER_OP_UNMAP] = { true, 0, 0, 0, 0 },
	[STOKER_OP_END_SESSION] = { true, 0, 0, 0, 0 },
	[STOKER_OP_PING] = { true, 0, 0, 0, 0 },
	[STOKER_OP_CANCEL] = { true, 0, 0, 0, 0 },
};

/** struct payload - byte offsets of what lies in an input area. */
struct payload {
	uint32_t tokens, segments, ids, end;
};

static enum channel_taken broken(struct channel *channel, const char *why)
{
	channel->why = why;
	return CHANNEL_BROKEN;
}

static const char *head_check(const struct channel *channel, const struct stoker_request_head *head)
{
	if (head->op >= sizeof(op_rules) / sizeof(op_rules[0]) || !op_rules[head->op].known)
		return "an entry names an unknown operation";
	const struct op_rule *rule = &op_rules[head->op];
	if (head->slot >= channel->plan.slots)
		return "an entry names a slot that there is not";
	if (head->generation == 0)
		return "an entry has generation 0";
	if (head->priority > 7)
		return "an entry has a priority above 7";
	if (head->flags & ~(uint32_t)rule->flags)
		return "an entry has a flag that its operation does not know";
	if (head->n_keys > (rule->has & HAS_KEYS ? plan_slot_keys(&channel->plan, head->slot) : 0))
		return "an entry has more keys than its slot or operation";
	if (head->n_segments > (rule->has & HAS_SEGMENTS ? STOKER_SEGMENTS_MAX : 0))
		return "an entry has more segments than its operation";
	if (head->n_ids > (rule->has & HAS_SEGMENTS ? plan_slot_input(&channel->plan, head->slot) / 4 : 0))
		return "an entry has more block ids than its slot or operation";
	return NULL;
}

static const char *line_check(const struct op_rule *rule, const union stoker_request_line *line, uint8_t op)
{
	const uint8_t *bytes = (const uint8_t *)line + rule->reserved_at;

	for (uint32_t i = 0; i < rule->reserved_bytes; i++) {
		if (bytes[i] != 0)
			return "a request line has a reserved bit set";
	}
	if (op == STOKER_OP_STORE && line->store.flags & ~STOKER_STORE_TOKENS)
		return "a store has an unknown flag";
	return NULL;
}

/* Counts are bounded by head_check(), so the sums here cannot wrap. */
static struct payload payload_plan(const struct stoker_request_head *head, const union stoker_request_line *line)
{
	const bool tokens = head->op == STOKER_OP_STORE && line->store.flags & STOKER_STORE_TOKENS;
	struct payload payload;

	payload.tokens = head->n_keys * (uint32_t)sizeof(struct stoker_wire_key);
	payload.segments = payload.tokens + (tokens ? (head->n_keys + 1) / 2 * 8 : 0);
	payload.ids = payload.segments + head->n_segments * (uint32_t)sizeof(struct stoker_segment);
	payload.end = payload.ids + (head->n_ids + 1) / 2 * 8;
	return payload;
}

static const char *segments_check(const struct engine_request *request)
{
	for (uint32_t i = 0; i < request->head.n_segments; i++) {
		if (request->segments[i].flags & ~STOKER_SEGMENT_RUNS || request->segments[i].reserved != 0)
			return "a segment has an unknown flag or a reserved bit set";
	}
	return NULL;
}

/* Load the used part of the input area into private memory and point the request into the copy. */
static const char *payload_take(struct channel *channel, struct engine_request *request)
{
	const struct stoker_request_head *head = &request->head;
	const struct payload payload = payload_plan(head, &request->line);
	uint8_t *copy = (uint8_t *)(uintptr_t)request->keys;

	if (payload.end > plan_slot_input(&channel->plan, head->slot))
		return "the payload of an entry is larger than its slot";
	shm_take(copy, channel->base + plan_input_offset(&channel->plan, head->slot), payload.end);
	request->tokens = payload.segments > payload.tokens ? (const uint32_t *)(copy + payload.tokens) : NULL;
	request->segments = (const struct stoker_segment *)(copy + payload.segments);
	request->ids = (const uint32_t *)(copy + payload.ids);
	return segments_check(request);
}

/* The cancel word says which generation; the entry only that it is time to look. */
static enum channel_taken cancel_take(struct channel *channel, struct engine_request *request)
{
	const struct stoker_slot *slot = &channel->slots[request->head.slot];

	request->head.generation = atomic_load_explicit(&slot->client.cancel, memory_order_acquire);
	return CHANNEL_CANCEL;
}

/* Arguments that only this side can judge, and that an application can get wrong. */
static bool is_refused(const struct channel *channel, const struct engine_request *request)
{
	const union stoker_request_line *line = &request->line;
	uint32_t index;

	if (!(request->head.flags & STOKER_F_READY))
		return false;
	index = request->head.op == STOKER_OP_STORE ? line->store.ready_index : line->retrieve.ready_index;
	return index >= channel->plan.geometry.ready_words;
}

enum channel_taken channel_take(struct channel *channel, struct engine_request **ret)
{
	struct stoker_request_head head;
	const char *why;

	const int r = request_take(&channel->requests, &head);
	if (r == 0)
		return CHANNEL_NOTHING;
	if (r < 0)
		return broken(channel, "the request ring has an entry out of sequence");
	why = head_check(channel, &head);
	if (why)
		return broken(channel, why);

	struct channel_slot *slot = &channel->slot[head.slot];
	const struct op_rule *rule = &op_rules[head.op];
	if (head.op == STOKER_OP_CANCEL) {
		static _Thread_local struct engine_request cancel;

		cancel.head = head;
		*ret = &cancel;
		return cancel_take(channel, &cancel);
	}
	if (slot->busy)
		return broken(channel, "a slot is asked for while its job lives");
	slot->request.head = head;
	*ret = &slot->request;
	if (rule->has & HAS_LINE) {
		shm_take(&slot->request.line, &channel->slots[head.slot].request, sizeof(slot->request.line));
		why = line_check(rule, &slot->request.line, head.op);
	}
	if (!why && rule->has & (HAS_KEYS | HAS_SEGMENTS))
		why = payload_take(channel, &slot->request);
	if (why)
		return broken(channel, why);
	if (is_refused(channel, &slot->request))
		return CHANNEL_REFUSED;
	slot->busy = true;
	return CHANNEL_REQUEST;
}
