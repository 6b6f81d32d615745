/*
 * STORE and RETRIEVE: keys, segments and block ids into a slot, or into several.
 *
 * A job whose input does not fit the largest slot, or the room that the broker has for such a slot's
 * job, is cut between chunks, into as many parts as need be. All slots are taken before anything is
 * written: callers' keys and ids are read during the call only, so nothing is left to submit later. With
 * fewer free slots the answer is -EAGAIN, with fewer slots than parts in all -E2BIG.
 */
#include <string.h>

#include "src/client/client.h"

/* The ids of one stoker_blocks that belong to the chunks of a part. */
struct cut {
	uint32_t lo, hi;	/* chunks; lo >= hi: none */
	uint64_t words;		/* of the id area */
};

static uint64_t overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
	const uint64_t lo = a > b ? a : b;
	const uint64_t hi = a_end < b_end ? a_end : b_end;

	return hi > lo ? hi - lo : 0;
}

/* Runs of @blocks that touch ids @from to @end of its id stream, clipped; written to @to unless NULL. */
static uint32_t runs_cut(const struct stoker_blocks *blocks, uint64_t from, uint64_t end, uint32_t *to)
{
	uint32_t n = 0;
	uint64_t at = 0;

	for (uint32_t i = 0; i < blocks->runs && at < end; i++) {
		const uint32_t id = blocks->ids[2 * i], count = blocks->ids[2 * i + 1];
		const uint64_t part = overlap(at, at + count, from, end);

		if (part > 0) {
			if (to) {
				/* A run of no block stays one: its id does not count up. */
				to[2 * n] = id == STOKER_NO_BLOCK || at >= from ? id : id + (uint32_t)(from - at);
				to[2 * n + 1] = (uint32_t)part;
			}
			n++;
		}
		at += count;
	}
	return n;
}

static struct cut blocks_cut(const struct stoker_blocks *blocks, uint32_t a, uint32_t b)
{
	const uint32_t end = blocks->first + blocks->chunks;
	const uint32_t per_chunk = blocks->pool->blocks;
	struct cut cut = { .lo = a > blocks->first ? a : blocks->first, .hi = b < end ? b : end };

	if (cut.lo >= cut.hi)
		return cut;
	if (blocks->runs == 0)
		cut.words = (uint64_t)(cut.hi - cut.lo) * per_chunk;
	else
		cut.words = 2ull * runs_cut(blocks, (uint64_t)(cut.lo - blocks->first) * per_chunk,
					 (uint64_t)(cut.hi - blocks->first) * per_chunk, NULL);
	return cut;
}

/* What chunks a to b - 1 need of an input area, and of the room that the broker has for such a job. */
struct need {
	uint32_t segments;
	uint64_t ids, bytes;
	uint64_t scratch;
};

static uint32_t token_bytes(const struct transfer *t, uint32_t chunks)
{
	return t->tokens ? (chunks + 1) / 2 * 8 : 0;
}

static struct need need_of(const struct transfer *t, uint32_t a, uint32_t b)
{
	struct need need = { 0 };
	uint64_t items = 0, spelled = 0;

	for (uint32_t i = 0; i < t->n_blocks; i++) {
		const struct cut cut = blocks_cut(&t->blocks[i], a, b);

		if (cut.lo >= cut.hi)
			continue;
		need.segments++;
		need.ids += cut.words;
		items += cut.hi - cut.lo;
		if (t->blocks[i].runs)
			spelled += (uint64_t)(cut.hi - cut.lo) * t->blocks[i].pool->blocks;
	}
	if (t->keys)
		need.bytes = (uint64_t)(b - a) * sizeof(struct stoker_key) + token_bytes(t, b - a);
	need.bytes += need.segments * sizeof(struct stoker_segment) + (need.ids + 1) / 2 * 8;
	need.scratch = STOKER_SCRATCH_NEED(b - a, need.segments, items, spelled);
	return need;
}

static bool need_fits(const struct need *need, uint32_t chunks, uint32_t keys, uint32_t input)
{
	return chunks <= keys && need->segments <= STOKER_SEGMENTS_MAX && need->bytes <= input &&
	       need->scratch <= STOKER_SCRATCH_BYTES(keys, input);
}

static bool part_fits(const struct transfer *t, uint32_t a, uint32_t b)
{
	const struct need need = need_of(t, a, b);

	return need_fits(&need, b - a, STOKER_LARGE_KEYS, STOKER_LARGE_INPUT);
}

/* The end of the longest part that begins at @a; @a if not one chunk fits. */
static uint32_t part_end(const struct transfer *t, uint32_t a)
{
	uint32_t fits = a, not = t->end - a > STOKER_LARGE_KEYS ? a + STOKER_LARGE_KEYS + 1 : t->end + 1;

	while (not - fits > 1) {
		const uint32_t middle = fits + (not - fits) / 2;

		if (part_fits(t, a, middle))
			fits = middle;
		else
			not = middle;
	}
	return fits;
}

/* The lowest chunk from @from on that is named; t->end if none is. */
static uint32_t named_from(const struct transfer *t, uint32_t from)
{
	uint32_t lowest = t->end;

	for (uint32_t i = 0; i < t->n_blocks; i++) {
		const struct stoker_blocks *blocks = &t->blocks[i];
		const uint32_t first = blocks->first > from ? blocks->first : from;

		if (first < blocks->first + blocks->chunks && first < lowest)
			lowest = first;
	}
	return lowest;
}

/* The end of the highest chunk below @end that is named; there is one. */
static uint32_t named_to(const struct transfer *t, uint32_t end)
{
	uint32_t highest = 0;

	for (uint32_t i = 0; i < t->n_blocks; i++) {
		const struct stoker_blocks *blocks = &t->blocks[i];
		const uint32_t last = blocks->first + blocks->chunks < end ? blocks->first + blocks->chunks : end;

		if (blocks->first < end && last > highest)
			highest = last;
	}
	return highest;
}

struct part { uint32_t a, b; };

/*
 * A part begins and ends with a chunk that is named: what no blocks name between two parts belongs to none,
 * for a request without segments is a bad one, and the statuses of a RETRIEVE begin at the lowest that is named.
 * @parts has room for CHANNEL_LARGE_MAX. Returns how many parts, or -E2BIG.
 */
static int plan_parts(struct stoker *c, const struct transfer *t, struct part *parts)
{
	const uint32_t most = c->at->plan.geometry.slots_large;
	uint32_t n = 0;

	for (uint32_t a = named_from(t, t->first); a < t->end; a = named_from(t, parts[n - 1].b)) {
		const uint32_t end = n < most ? part_end(t, a) : a;

		if (end == a)
			return client_fail(c, -E2BIG, "the job needs more than the %u large slots of this handle: make it in "
					   "several calls, or ask for more slots_large at attach", most);
		parts[n++] = (struct part){ a, named_to(t, end) };
	}
	return (int)n;
}

/* ---- writing a part -------------------------------------------------------------------------------- */

static void segments_write(const struct transfer *t, uint32_t a, uint32_t b, uint8_t *input, uint32_t n_segments)
{
	struct stoker_segment *segment = (struct stoker_segment *)input;
	uint32_t *ids = (uint32_t *)(segment + n_segments);

	for (uint32_t i = 0; i < t->n_blocks; i++) {
		const struct stoker_blocks *blocks = &t->blocks[i];
		const struct cut cut = blocks_cut(blocks, a, b);
		const uint64_t from = (uint64_t)(cut.lo - blocks->first) * blocks->pool->blocks;

		if (cut.lo >= cut.hi)
			continue;
		*segment++ = (struct stoker_segment){
			.pool = blocks->pool->object.number,
			.group = (uint8_t)blocks->pool->group,
			.shard = (uint8_t)blocks->pool->shard,
			.flags = blocks->runs ? STOKER_SEGMENT_RUNS : 0,
			.first = t->keys ? cut.lo - a : cut.lo,
			.chunks = cut.hi - cut.lo,
			.n_ids = (uint32_t)cut.words,
		};
		if (blocks->runs)
			runs_cut(blocks, from, (uint64_t)(cut.hi - blocks->first) * blocks->pool->blocks, ids);
		else
			memcpy(ids, blocks->ids + from, cut.words * sizeof(*ids));
		ids += cut.words;
	}
}

static uint8_t *keys_write(const struct transfer *t, uint32_t a, uint32_t b, uint8_t *input)
{
	memcpy(input, t->keys + a, (b - a) * sizeof(*t->keys));
	input += (b - a) * sizeof(*t->keys);
	if (t->tokens) {
		memset(input, 0, token_bytes(t, b - a));
		memcpy(input, t->tokens + a, (b - a) * sizeof(*t->tokens));
	}
	return input + token_bytes(t, b - a);
}

/* The line of a later part: its first key's parent is the key before, its position further on. */
static union stoker_request_line part_line(const struct transfer *t, uint32_t a)
{
	/* The pools', because @model may be another opening of the same, by digest alone. */
	const struct model_layout *layout = t->blocks[0].pool->model->layout;
	union stoker_request_line line = t->line;

	if (!t->keys || a == 0)
		return line;
	memcpy(&line.store.parent, &t->keys[a - 1], sizeof(line.store.parent));
	for (uint32_t i = 0; i < a; i++)
		line.store.first_token += t->tokens ? t->tokens[i] : layout->wire.chunk_tokens;
	return line;
}

static void part_submit(struct stoker *c, const struct transfer *t, uint32_t slot, uint32_t a, uint32_t b,
			enum job_owner owner)
{
	const struct need need = need_of(t, a, b);
	struct stoker_request_head head = t->head;
	uint8_t *input = slot_input(c, slot);

	head.n_segments = need.segments;
	head.n_ids = (uint32_t)need.ids;
	if (t->keys) {
		head.n_keys = b - a;
		input = keys_write(t, a, b, input);
	}
	segments_write(t, a, b, input, need.segments);
	c->slots[slot].request = part_line(t, a);
	slot_submit(c, slot, &head, owner);
	c->jobs[slot].n_chunks = b - a;
}

/* ---- the whole job --------------------------------------------------------------------------------- */

static int batch_submit(struct stoker *c, struct transfer *t, struct stoker_job *ret)
{
	struct part parts[CHANNEL_LARGE_MAX];
	const int n = plan_parts(c, t, parts);
	struct batch *batch;

	if (n < 0)
		return n;
	if (c->free[SLOT_LARGE].n < (uint32_t)n)
		slots_recycle(c);
	if (c->free[SLOT_LARGE].n < (uint32_t)n)
		return -EAGAIN;
	batch = batch_new(c, ret);
	if (!batch)
		return -EAGAIN;
	if (t->head.flags & STOKER_F_END_SHARE) {
		/* Parts end in any order: the share ends with the last of them, when it is finished. */
		t->head.flags &= ~STOKER_F_END_SHARE;
		batch->end_share = true;
		batch->reader = t->line.retrieve.reader;
		batch->lease = (struct stoker_lease){ { t->head.lease[0], t->head.lease[1] } };
	}
	for (int i = 0; i < n; i++) {
		const uint32_t slot = (uint32_t)slot_take(c, SLOT_LARGE);

		part_submit(c, t, slot, parts[i].a, parts[i].b, OWNER_BATCH);
		batch->slot[i] = (uint16_t)slot;
		batch->first[i] = parts[i].a - t->first;
	}
	batch->n_parts = (uint32_t)n;
	return 0;
}

static int blocks_check(struct stoker *c, const struct transfer *t, const struct stoker_blocks *blocks)
{
	uint64_t ids = 0;
	int r;

	if (!blocks->pool || blocks->pool->object.c != c)
		return client_fail(c, -EINVAL, "blocks name no pool of this handle");
	r = object_need(&blocks->pool->object, "pool");
	if (r < 0)
		return r;
	if (memcmp(blocks->pool->model->digest, t->model->digest, sizeof(t->model->digest)) != 0)
		return client_fail(c, -EINVAL, "blocks name a pool of another model");
	if (blocks->chunks == 0 || !blocks->ids || blocks->first > UINT32_MAX / 2 ||
	    blocks->chunks > UINT32_MAX / 2 - blocks->first)
		return client_fail(c, -EINVAL, "blocks name no chunk, or too many, or no ids");
	if (t->keys && blocks->first + blocks->chunks > t->end)
		return client_fail(c, -EINVAL, "blocks name chunk %u, but there are %u keys",
				   blocks->first + blocks->chunks - 1, t->end);
	for (uint32_t i = 0; i < blocks->runs; i++)
		ids += blocks->ids[2 * i + 1];
	if (blocks->runs && ids != (uint64_t)blocks->chunks * blocks->pool->blocks)
		return client_fail(c, -EINVAL, "the runs of %u chunks add up to %llu blocks, not %llu", blocks->chunks,
				   (unsigned long long)ids, (unsigned long long)blocks->chunks * blocks->pool->blocks);
	return 0;
}

static int transfer_check(struct stoker *c, struct transfer *t)
{
	if (t->n_blocks == 0 || !t->blocks)
		return client_fail(c, -EINVAL, "there are no blocks to copy");
	if (!t->keys)
		t->first = UINT32_MAX;
	for (uint32_t i = 0; i < t->n_blocks; i++) {
		const struct stoker_blocks *blocks = &t->blocks[i];
		const int r = blocks_check(c, t, blocks);

		if (r < 0)
			return r;
		if (t->keys)
			continue;
		if (blocks->first < t->first)
			t->first = blocks->first;
		if (blocks->first + blocks->chunks > t->end)
			t->end = blocks->first + blocks->chunks;
	}
	return 0;
}

int transfer_submit(struct stoker *c, struct transfer *t, struct stoker_job *ret)
{
	int r = transfer_check(c, t);
	struct need need;
	int slot;

	if (r < 0)
		return r;
	need = need_of(t, t->first, t->end);
	if (!need_fits(&need, t->end - t->first, STOKER_LARGE_KEYS, STOKER_LARGE_INPUT))
		return batch_submit(c, t, ret);
	slot = slot_take(c, need_fits(&need, t->end - t->first, STOKER_SMALL_KEYS, STOKER_SMALL_INPUT) ? SLOT_SMALL :
			 SLOT_LARGE);
	if (slot < 0)
		return slot;
	part_submit(c, t, (uint32_t)slot, t->first, t->end, OWNER_CALLER);
	*ret = (struct stoker_job){ (uint32_t)slot, c->jobs[slot].generation };
	return 0;
}

/* ---- STORE and RETRIEVE ----------------------------------------------------------------------------- */

static int store(struct stoker *c, struct stoker_model *model, const struct stoker_key *keys, uint32_t n_keys,
		 const struct stoker_blocks *blocks, uint32_t n, const struct stoker_store_options *options,
		 struct stoker_job *ret)
{
	struct stoker_store_options o;
	struct transfer t = { .model = model, .blocks = blocks, .n_blocks = n, .keys = keys, .end = n_keys };
	int r = client_ready(c, model);

	if (r == 0)
		r = client_take_options(c, &o, sizeof(o), options);
	if (r < 0)
		return r;
	if (!keys || n_keys == 0 || n_keys > UINT32_MAX / 2 || !ret || o.priority > 7 ||
	    (o.flags & ~(STOKER_STORE_WAIT | STOKER_STORE_READY)))
		return client_fail(c, -EINVAL, "store: no keys, an unknown flag, or a priority above 7");
	t.tokens = o.tokens;
	t.head = (struct stoker_request_head){
		.op = STOKER_OP_STORE,
		.priority = (uint8_t)o.priority,
		.flags = (o.flags & STOKER_STORE_WAIT ? STOKER_F_WAIT : 0) |
			 (o.flags & STOKER_STORE_READY ? STOKER_F_READY : 0),
		.model = model->object.number,
		.deadline_us = deadline_us(o.deadline_ms),
		.session = o.session,
	};
	t.line.store.account = o.account;
	t.line.store.first_token = o.first_token;
	t.line.store.ready_index = o.ready_index;
	t.line.store.ready_value = o.ready_value;
	t.line.store.flags = o.tokens ? STOKER_STORE_TOKENS : 0;
	if (o.parent)
		memcpy(&t.line.store.parent, o.parent, sizeof(t.line.store.parent));
	return transfer_submit(c, &t, ret);
}

int stoker_store(struct stoker *c, struct stoker_model *model, const struct stoker_key *keys, uint32_t n_keys,
		 const struct stoker_blocks *blocks, uint32_t n, const struct stoker_store_options *options,
		 struct stoker_job *ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, store(c, model, keys, n_keys, blocks, n, options, ret));
}

static int retrieve(struct stoker *c, struct stoker_model *model, const struct stoker_lease *lease,
		    const struct stoker_blocks *blocks, uint32_t n, const struct stoker_retrieve_options *options,
		    struct stoker_job *ret)
{
	struct stoker_retrieve_options o;
	struct transfer t = { .model = model, .blocks = blocks, .n_blocks = n };
	int r = client_ready(c, model);

	if (r == 0)
		r = client_take_options(c, &o, sizeof(o), options);
	if (r < 0)
		return r;
	if (!lease || !ret || o.priority > 7 || o.reader > 63 ||
	    (o.flags & ~(STOKER_RETRIEVE_END_SHARE | STOKER_RETRIEVE_READY)))
		return client_fail(c, -EINVAL, "retrieve: no lease, an unknown flag, a reader above 63 or a priority above 7");
	t.head = (struct stoker_request_head){
		.op = STOKER_OP_RETRIEVE,
		.priority = (uint8_t)o.priority,
		.flags = (o.flags & STOKER_RETRIEVE_END_SHARE ? STOKER_F_END_SHARE : 0) |
			 (o.flags & STOKER_RETRIEVE_READY ? STOKER_F_READY : 0),
		.model = model->object.number,
		.deadline_us = deadline_us(o.deadline_ms),
		.session = o.session,
		.lease = { lease->token[0], lease->token[1] },
	};
	t.line.retrieve.reader = o.reader;
	t.line.retrieve.layer_first = o.layer_first;
	t.line.retrieve.layer_count = o.layer_count;
	t.line.retrieve.ready_index = o.ready_index;
	t.line.retrieve.ready_value = o.ready_value;
	return transfer_submit(c, &t, ret);
}

int stoker_retrieve(struct stoker *c, struct stoker_model *model, const struct stoker_lease *lease,
		    const struct stoker_blocks *blocks, uint32_t n, const struct stoker_retrieve_options *options,
		    struct stoker_job *ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, retrieve(c, model, lease, blocks, n, options, ret));
}
