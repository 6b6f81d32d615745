/*
 * Segments of a RETRIEVE or STORE: from what the client wrote to a list of items, one an object.
 *
 * segments_begin() checks each segment as a whole: its pool belongs to the client and to the part that
 * is named, its chunks are in range, its ids are as many as they must be; all pools are on one device, for
 * one backend makes the copy. segments_step() then goes
 * through the ids, in bounded steps: each is looked at, runs are spelled out, and each object
 * becomes an item, sorted by chunk. Nothing is pinned, placed or copied before all of it is done.
 *
 * Everything lies in the job's scratch: statuses, ends, parts given, entries (by chunk), pools (by
 * segment), items, spelled-out ids; the rest of it is for the copy.
 */
#include "src/engine/internal.h"

#define IDS_A_STEP 8192u

/* ---- begin --------------------------------------------------------------------------------------- */

static const struct engine_part_config *part_of(const struct engine *e, const struct job *job,
						const struct pool *pool)
{
	return &e->models[job->model].parts[pool->part];
}

static enum stoker_status segment_check(struct engine *e, struct job *job, uint32_t i, uint32_t limit)
{
	const struct stoker_segment *segment = &job->segments[i];
	const uint32_t number = pool_find(e, job->client, segment->pool);
	const struct pool *pool;
	uint64_t ids;

	if (number == NONE || e->pools[number].dropping)
		return STOKER_STATUS_BAD_REQUEST;
	pool = &e->pools[number];
	if (pool->model != job->model || part_of(e, job, pool)->group != segment->group ||
	    part_of(e, job, pool)->shard != segment->shard)
		return STOKER_STATUS_BAD_REQUEST;
	if (segment->reserved || (segment->flags & ~STOKER_SEGMENT_RUNS) || segment->chunks == 0 ||
	    segment->first >= limit || segment->chunks > limit - segment->first)
		return STOKER_STATUS_BAD_REQUEST;
	ids = (uint64_t)segment->chunks * part_of(e, job, pool)->blocks;
	if (segment->flags & STOKER_SEGMENT_RUNS ? segment->n_ids == 0 || segment->n_ids % 2 : segment->n_ids != ids)
		return STOKER_STATUS_BAD_REQUEST;
	return pool->dead ? STOKER_STATUS_FAULT : STOKER_STATUS_OK;
}

/** struct sizes - what the scratch has to hold. */
struct sizes { uint64_t items, spelled, ids; uint32_t first, end, device; };

static enum stoker_status segments_check(struct engine *e, struct job *job, uint32_t limit, struct sizes *ret)
{
	*ret = (struct sizes){ .first = NONE };
	if (job->n_segments == 0 || job->n_segments > STOKER_SEGMENTS_MAX)
		return STOKER_STATUS_BAD_REQUEST;
	for (uint32_t i = 0; i < job->n_segments; i++) {
		const struct stoker_segment *segment = &job->segments[i];
		const enum stoker_status status = segment_check(e, job, i, limit);
		const struct pool *pool;

		if (status != STOKER_STATUS_OK)
			return status;
		pool = &e->pools[pool_find(e, job->client, segment->pool)];
		if (i > 0 && pool->device != ret->device)
			return STOKER_STATUS_BAD_REQUEST;
		ret->device = pool->device;
		ret->items += segment->chunks;
		ret->ids += segment->n_ids;
		if (segment->flags & STOKER_SEGMENT_RUNS)
			ret->spelled += (uint64_t)segment->chunks * part_of(e, job, pool)->blocks;
		if (segment->first < ret->first)
			ret->first = segment->first;
		if (segment->first + segment->chunks > ret->end)
			ret->end = segment->first + segment->chunks;
	}
	return ret->ids == job->n_ids ? STOKER_STATUS_OK : STOKER_STATUS_BAD_REQUEST;
}

/* The next @bytes of the scratch, 8-aligned; NULL: there is not so much. */
static void *cut(struct job *job, size_t *at, uint64_t bytes)
{
	void *part = job->scratch + *at;

	if (bytes > job->scratch_bytes - *at)
		return NULL;
	*at += (bytes + 7) & ~7ull;
	if (*at > job->scratch_bytes)
		*at = job->scratch_bytes;
	return part;
}

/*
 * A RETRIEVE is one copy, whose items take the items' own room; a STORE goes in rounds, each of as
 * many items as the rest of the scratch has room for.
 */
static bool lay_copy(struct job *job, size_t at, uint64_t items)
{
	struct transfer *t = &job->transfer;
	const size_t rest = job->scratch_bytes - at;
	const uint64_t most = rest < 64 ? 0 : (rest - 64) / (sizeof(struct engine_copy_item) + 5);

	if (job->op == STOKER_OP_RETRIEVE) {
		t->copy_max = (uint32_t)items;
		t->copy = (struct engine_copy_item *)(void *)t->items;
		t->copy_items = cut(job, &at, items * 4);
		t->copy_failed = t->copy_items ? cut(job, &at, items) : NULL;
		return t->copy_failed != NULL;
	}
	t->copy_max = (uint32_t)(most < items ? most : items);
	t->copy = cut(job, &at, (uint64_t)t->copy_max * sizeof(struct engine_copy_item));
	t->copy_items = cut(job, &at, (uint64_t)t->copy_max * 4);
	t->copy_failed = cut(job, &at, t->copy_max);
	return t->copy_max > 0;
}

static bool lay_scratch(struct job *job, const struct sizes *sizes)
{
	struct transfer *t = &job->transfer;
	const uint32_t chunks = t->chunks;
	size_t at = 0;

	t->given = cut(job, &at, chunks * 8ull);
	t->ends = cut(job, &at, chunks * 4ull + 4);
	t->entries = cut(job, &at, chunks * 4ull);
	t->statuses = cut(job, &at, chunks);
	t->pools = cut(job, &at, job->n_segments * 4ull);
	t->items = cut(job, &at, sizes->items * sizeof(struct item));
	if (!t->items)
		return false;
	t->ids = cut(job, &at, sizes->spelled * 4);
	return t->ids && lay_copy(job, at, sizes->items);
}

/* How many items each chunk has, then where its first one goes. */
static void lay_items(struct job *job)
{
	struct transfer *t = &job->transfer;
	uint32_t open = 0, items = 0;

	memset(t->ends, 0, ((size_t)t->chunks + 1) * sizeof(uint32_t));
	for (uint32_t i = 0; i < job->n_segments; i++) {
		t->ends[job->segments[i].first - t->first]++;
		t->ends[job->segments[i].first + job->segments[i].chunks - t->first]--;
	}
	for (uint32_t c = 0; c < t->chunks; c++) {
		open += t->ends[c];
		t->ends[c] = items;
		items += open;
	}
	t->n_items = items;
}

enum stoker_status segments_begin(struct engine *e, struct job *job, uint32_t limit)
{
	struct transfer *t = &job->transfer;
	struct sizes sizes;
	const enum stoker_status status = segments_check(e, job, limit, &sizes);

	if (status != STOKER_STATUS_OK)
		return status;
	t->first = job->op == STOKER_OP_STORE ? 0 : sizes.first;
	t->chunks = job->op == STOKER_OP_STORE ? limit : sizes.end - sizes.first;
	if (t->chunks > job->keys_max || !lay_scratch(job, &sizes))
		return STOKER_STATUS_BAD_REQUEST;
	memset(t->given, 0, t->chunks * sizeof(uint64_t));
	memset(t->statuses, STOKER_CHUNK_NONE, t->chunks);
	for (uint32_t c = 0; c < t->chunks; c++)
		t->entries[c] = NONE;
	lay_items(job);
	t->device = sizes.device;
	for (uint32_t i = 0; i < job->n_segments; i++) {
		t->pools[i] = pool_find(e, job->client, job->segments[i].pool);
		pool_use(e, t->pools[i]);
	}
	t->in_use = true;
	return STOKER_STATUS_OK;
}

void segments_end(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;

	for (uint32_t i = 0; t->in_use && i < job->n_segments; i++)
		pool_unuse(e, t->pools[i]);
	t->in_use = false;
}

/* ---- ids ------------------------------------------------------------------------------------------- */

/* Blocks that an object of a chunk of so many tokens cannot do without: its first ones. */
static uint32_t blocks_needed(const struct model *model, uint32_t group, uint32_t blocks, uint32_t tokens)
{
	const uint32_t of_block = model->groups[group].block_tokens;
	uint64_t have;

	if (model->groups[group].kind == MODEL_GROUP_STATE || tokens >= model->chunk_tokens || of_block == 0)
		return blocks;
	have = ((uint64_t)tokens + of_block - 1) / of_block;
	return have < blocks ? (uint32_t)have : blocks;
}

/* The next id of a segment that has runs; false: the runs are at an end, or name a wrong block. */
static bool run_id(struct transfer *t, const uint32_t *runs, uint32_t n, uint32_t n_blocks, uint32_t *ret)
{
	while (t->run_left == 0) {
		const uint32_t first = runs[t->run_at], blocks = runs[t->run_at + 1];

		if (t->run_at >= n || blocks == 0)
			return false;
		if (first != STOKER_NO_BLOCK && (first >= n_blocks || blocks > n_blocks - first))
			return false;
		t->run_next = first;
		t->run_left = blocks;
		t->run_at += 2;
	}
	*ret = t->run_next;
	t->run_next += t->run_next != STOKER_NO_BLOCK;
	t->run_left--;
	return true;
}

/* Ids of one object: false if one of them is wrong. *ret_holes: blocks missing among the first @needed. */
static bool ids_take(struct job *job, const struct pool *pool, uint32_t blocks, uint32_t needed,
		     const uint32_t **ret, bool *ret_holes)
{
	struct transfer *t = &job->transfer;
	const struct stoker_segment *segment = &job->segments[t->segment];
	const uint32_t *ids = job->ids + t->id_at;

	*ret_holes = false;
	if (segment->flags & STOKER_SEGMENT_RUNS) {
		uint32_t *spelled = t->ids + t->spelled;

		for (uint32_t i = 0; i < blocks; i++)
			if ((t->run_left == 0 && t->run_at >= segment->n_ids) ||
			    !run_id(t, ids, segment->n_ids, pool->n_blocks, &spelled[i]))
				return false;
		t->spelled += blocks;
		ids = spelled;
	} else {
		ids += (size_t)t->chunk * blocks;
	}
	for (uint32_t i = 0; i < blocks; i++) {
		if (ids[i] == STOKER_NO_BLOCK)
			*ret_holes |= i < needed;
		else if (ids[i] >= pool->n_blocks)
			return false;
	}
	*ret = ids;
	return true;
}

/* The item of the chunk at hand. */
static bool item_add(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	const struct stoker_segment *segment = &job->segments[t->segment];
	const struct pool *pool = &e->pools[t->pools[t->segment]];
	const struct model *model = &e->models[job->model];
	const uint32_t blocks = model->parts[pool->part].blocks;
	const uint32_t chunk = segment->first + t->chunk - t->first;
	const uint32_t tokens = job->tokens ? job->tokens[chunk] : model->chunk_tokens;
	struct item *item;
	const uint32_t *ids;
	bool holes;

	if (t->given[chunk] >> pool->part & 1)
		return false;		/* one object, two sources */
	if (!ids_take(job, pool, blocks, blocks_needed(model, segment->group, blocks, tokens), &ids, &holes))
		return false;
	t->given[chunk] |= 1ull << pool->part;
	item = &t->items[t->ends[chunk]++];
	*item = (struct item){
		.ids = ids, .pool = segment->pool, .record = NONE, .chunk = (uint16_t)chunk,
		.part = (uint8_t)pool->part,
		.state = holes && job->op == STOKER_OP_STORE ? ITEM_INCOMPLETE : ITEM_NEW,
	};
	return true;
}

enum segments segments_step(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	uint32_t left = IDS_A_STEP;

	while (t->segment < job->n_segments) {
		const struct stoker_segment *segment = &job->segments[t->segment];
		const uint32_t blocks = e->models[job->model].parts[e->pools[t->pools[t->segment]].part].blocks;

		if (left == 0)
			return SEGMENTS_MORE;
		if (!item_add(e, job))
			return SEGMENTS_BAD;
		left -= blocks + 1 < left ? blocks + 1 : left;
		if (++t->chunk < segment->chunks)
			continue;
		if (segment->flags & STOKER_SEGMENT_RUNS && (t->run_left || t->run_at != segment->n_ids))
			return SEGMENTS_BAD;
		t->id_at += segment->n_ids;
		t->segment++;
		t->chunk = t->run_at = t->run_left = 0;
	}
	return SEGMENTS_DONE;
}
