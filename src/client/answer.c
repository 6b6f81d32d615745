/*
 * Answers: polling, progress, results, and which jobs are over.
 *
 * The broker writes a slot's fields first and its word last; here the word is loaded first (acquire)
 * and the fields after it. A word that bears another generation answers another job: this one has
 * not been taken from the ring yet.
 */
#include <string.h>

#include "src/client/client.h"

static inline uint32_t get32(const _Atomic uint32_t *field)
{
	return atomic_load_explicit(field, memory_order_relaxed);
}

uint64_t job_word(const struct job *job, uint32_t slot)
{
	const uint64_t word = atomic_load_explicit(&attachment_slot(job->at, slot)->broker.word, memory_order_acquire);

	return slot_word_generation(word) == job->generation ? word : 0;
}

bool job_is_done(const struct job *job, uint32_t slot)
{
	if (job->state == JOB_RUNNING)
		return slot_word_stage(job_word(job, slot)) == STOKER_STAGE_DONE;
	return job->state == JOB_GONE;
}

struct job *job_find(struct stoker *c, struct stoker_job id)
{
	struct job *job;

	if (id.slot >= CLIENT_SLOTS_MAX)
		return NULL;
	job = &c->jobs[id.slot];
	if (job->state == JOB_FREE || job->owner != OWNER_CALLER || job->generation != id.generation)
		return NULL;
	return job;
}

static enum stoker_stage job_stage(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];

	if (job->state == JOB_FENCED)
		gone_fences(c);
	switch (job->state) {
	case JOB_RUNNING:
		return (enum stoker_stage)slot_word_stage(job_word(job, slot));
	case JOB_FENCED:
		return STOKER_STAGE_ENDING;
	case JOB_GONE:
		return STOKER_STAGE_DONE;
	default:
		return STOKER_STAGE_NONE;
	}
}

/* All that is not "a job of one slot at the present attachment", and the look at the broker's life. */
static __attribute__((noinline)) enum stoker_stage poll_otherwise(struct stoker *c, struct stoker_job id)
{
	struct batch *batch;

	if (!c || c->forked)
		return STOKER_STAGE_NONE;
	if (c->at && (++c->polls & 15) == 0 && gone_ticks() >= c->look_ticks)
		gone_look(c);
	batch = batch_find(c, id);
	if (batch)
		return batch_stage(c, batch);
	return job_find(c, id) ? job_stage(c, id.slot) : STOKER_STAGE_NONE;
}

static __attribute__((noinline)) enum stoker_stage poll_look(struct stoker *c, struct stoker_job id,
							     enum stoker_stage stage)
{
	if (gone_ticks() < c->look_ticks || !gone_look(c))
		return stage;
	return job_find(c, id) ? job_stage(c, id.slot) : STOKER_STAGE_NONE;
}

enum stoker_stage stoker_poll(struct stoker *c, struct stoker_job id)
{
	uint64_t word;
	enum stoker_stage stage;

	if (__builtin_expect(!c || id.slot >= c->n_slots || c->jobs[id.slot].live != id.generation, 0))
		return poll_otherwise(c, id);
	word = atomic_load_explicit(&c->slots[id.slot].broker.word, memory_order_acquire);
	stage = slot_word_generation(word) == id.generation ? (enum stoker_stage)slot_word_stage(word) :
							      STOKER_STAGE_NONE;
	if (stage == STOKER_STAGE_DONE || __builtin_expect((++c->polls & 15) != 0, 1))
		return stage;
	return poll_look(c, id, stage);
}

/* ---- progress and results ----------------------------------------------------------------------- */

/* Copy the part of a struct that its owner knows; @size is what the owner says. */
static int give_struct(void *to, uint32_t size, void *from, size_t bytes)
{
	if (size < sizeof(uint32_t))
		return -EINVAL;
	memcpy(from, &size, sizeof(size));
	memcpy(to, from, size < bytes ? size : bytes);
	return 0;
}

void slot_progress(struct stoker *c, uint32_t slot, struct stoker_progress *ret)
{
	const struct job *job = &c->jobs[slot];
	const struct stoker_slot_broker *line;
	uint64_t word;

	memset(ret, 0, sizeof(*ret));
	ret->stage = job_stage(c, slot);
	if (job->state != JOB_RUNNING) {
		ret->status = STOKER_STATUS_BROKER_GONE;
		return;
	}
	line = &attachment_slot(job->at, slot)->broker;
	word = job_word(job, slot);
	ret->stage = slot_word_stage(word);
	if (ret->stage >= STOKER_STAGE_ENDING)
		ret->status = slot_word_status(word);
	if (ret->stage >= STOKER_STAGE_PROBED) {
		ret->found = get32(&line->found);
		ret->found_l1 = get32(&line->found_l1);
		ret->expected_us = get32(&line->expected_us);
		ret->ready = get32(&line->ready);
		ret->layers = get32(&line->layers);
	}
}

static int progress(struct stoker *c, struct stoker_job id, struct stoker_progress *ret)
{
	struct stoker_progress own;
	struct batch *batch;

	if (!ret || ret->size < sizeof(uint32_t))
		return client_fail(c, -EINVAL, "progress: there is no place for it, or its size is not set");
	if (c->at && gone_ticks() >= c->look_ticks)
		gone_look(c);
	batch = batch_find(c, id);
	if (batch)
		batch_progress(c, batch, &own);
	else if (job_find(c, id))
		slot_progress(c, id.slot, &own);
	else
		return -ENOENT;
	return give_struct(ret, ret->size, &own, sizeof(own));
}

int stoker_progress(struct stoker *c, struct stoker_job job, struct stoker_progress *ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, progress(c, job, ret));
}

void slot_result(struct stoker *c, uint32_t slot, struct stoker_result *ret)
{
	const struct job *job = &c->jobs[slot];
	const struct stoker_slot_broker *line;

	memset(ret, 0, sizeof(*ret));
	if (job->state != JOB_RUNNING) {
		ret->status = STOKER_STATUS_BROKER_GONE;
		return;
	}
	line = &attachment_slot(job->at, slot)->broker;
	ret->status = slot_word_status(job_word(job, slot));
	ret->n = get32(&line->n);
	for (int i = 0; i < 3; i++)
		ret->counts[i] = get32(&line->counts[i]);
	ret->lease_ms = get32(&line->lease_ms);
	for (int i = 0; i < 2; i++)
		ret->lease.token[i] = atomic_load_explicit(&line->lease[i], memory_order_relaxed);
}

/* Bytes of what became of each chunk; @chunks beyond those of the job stay as they are. */
void slot_chunks(struct stoker *c, uint32_t slot, uint8_t *chunks, uint32_t n)
{
	const struct job *job = &c->jobs[slot];

	if (n > job->n_chunks)
		n = job->n_chunks;
	if (n == 0)
		return;
	if (job->state != JOB_RUNNING) {
		memset(chunks, STOKER_CHUNK_FAILED, n);
		return;
	}
	memcpy(chunks, job->at->channel + plan_output_offset(&job->at->plan, slot) +
	       plan_status_offset(&job->at->plan, slot), n);
}

/* Bits @shift and up of @to are or'ed with @n words of @from. */
static void bits_shifted(uint64_t *to, uint32_t to_words, const uint64_t *from, uint32_t n, uint32_t shift)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t at = shift / 64 + i;

		if (at < to_words)
			to[at] |= from[i] << (shift % 64);
		if (shift % 64 && at + 1 < to_words)
			to[at + 1] |= from[i] >> (64 - shift % 64);
	}
}

/*
 * The bitmap of usable lengths. That of a chained lookup has the last STOKER_LARGE_KEYS lengths, so
 * it begins somewhere in the caller's.
 */
static void slot_bitmap(struct stoker *c, uint32_t slot, uint64_t *bitmap, uint32_t words)
{
	const struct job *job = &c->jobs[slot];
	const uint64_t *from;
	uint32_t keys, left_out;

	memset(bitmap, 0, words * sizeof(*bitmap));
	if (job->state != JOB_RUNNING || job->op != STOKER_OP_LOOKUP)
		return;
	keys = plan_slot_keys(&job->at->plan, slot);
	left_out = job->n_keys > keys ? job->n_keys - keys : 0;
	from = (const uint64_t *)(job->at->channel + plan_output_offset(&job->at->plan, slot));
	bits_shifted(bitmap, words, from, (job->n_keys - left_out + 63) / 64, left_out);
}

static int finish(struct stoker *c, struct stoker_job id, struct stoker_result *ret, uint64_t *bitmap,
		  uint32_t bitmap_words, uint8_t *chunks, uint32_t n_chunks)
{
	struct stoker_result own;
	struct batch *batch = batch_find(c, id);
	struct job *job = job_find(c, id);

	if (!batch && !job)
		return -ENOENT;
	if (ret && ret->size < sizeof(uint32_t))
		return client_fail(c, -EINVAL, "the result's size is not set");
	if ((batch ? batch_stage(c, batch) : job_stage(c, id.slot)) != STOKER_STAGE_DONE) {
		if (c->at && gone_ticks() >= c->look_ticks)
			gone_look(c);
		return -EAGAIN;
	}
	if (chunks)
		memset(chunks, STOKER_CHUNK_NONE, n_chunks);
	if (batch) {
		if (bitmap)
			memset(bitmap, 0, bitmap_words * sizeof(*bitmap));
		batch_finish(c, batch, &own, chunks, n_chunks);
	} else {
		slot_result(c, id.slot, &own);
		if (bitmap)
			slot_bitmap(c, id.slot, bitmap, bitmap_words);
		if (chunks)
			slot_chunks(c, id.slot, chunks, n_chunks);
		slot_give_back(c, id.slot);
	}
	return ret ? give_struct(ret, ret->size, &own, sizeof(own)) : 0;
}

int stoker_finish(struct stoker *c, struct stoker_job job, struct stoker_result *ret, uint64_t *bitmap,
		  uint32_t bitmap_words, uint8_t *chunks, uint32_t n_chunks)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, finish(c, job, ret, bitmap, bitmap_words, chunks, n_chunks));
}

/* ---- which jobs are over ------------------------------------------------------------------------- */

static void mark_if_done(struct stoker *c, uint32_t slot)
{
	const struct job *job = &c->jobs[slot];

	if (job->state != JOB_FREE && job->owner != OWNER_LIBRARY && job_is_done(job, slot))
		c->done[slot / 64] |= 1ull << (slot % 64);
}

/*
 * Hints from the response ring. When it has lapped us, what we did not read is in the slots: every
 * pending one is looked at once.
 */
void answers_take(struct stoker *c)
{
	uint32_t slot;
	int r = 0;

	if (c->fenced > 0)
		gone_fences(c);
	while (c->at && (r = response_take(&c->responses, &slot)) != 0) {
		if (r < 0) {
			for (slot = 0; slot < c->n_slots; slot++)
				mark_if_done(c, slot);
		} else if (slot < c->n_slots) {
			mark_if_done(c, slot);
		}
	}
}

/* Jobs in c->done that are a caller's own; those of a batch count when all of it is done. */
static uint32_t done_jobs(struct stoker *c, struct stoker_job *ret, uint32_t n)
{
	uint32_t taken = 0;

	for (uint32_t word = 0; word < sizeof(c->done) / sizeof(c->done[0]); word++) {
		for (uint64_t bits = c->done[word]; bits && taken < n; bits &= bits - 1) {
			const uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);

			if (c->jobs[slot].owner == OWNER_CALLER)
				ret[taken++] = (struct stoker_job){ slot, c->jobs[slot].generation };
		}
	}
	for (uint32_t i = 0; i < CLIENT_BATCHES && taken < n; i++) {
		if (c->batches[i].n_parts > 0 && batch_stage(c, &c->batches[i]) == STOKER_STAGE_DONE)
			ret[taken++] = (struct stoker_job){ CLIENT_BATCH_BASE + i, c->batches[i].generation };
	}
	return taken;
}

uint32_t stoker_done(struct stoker *c, struct stoker_job *ret, uint32_t n)
{
	uint32_t taken;

	if (client_enter(c) < 0)
		return 0;
	if (!ret)
		n = 0;
	answers_take(c);
	if (c->own.n > 0 && c->at)
		slots_recycle(c);
	taken = done_jobs(c, ret, n);
	if (taken == 0 && c->at && gone_ticks() >= c->look_ticks && gone_look(c))
		taken = done_jobs(c, ret, n);
	return (uint32_t)client_leave(c, (int)taken);
}
