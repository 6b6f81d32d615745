/*
 * Models and their epochs.
 *
 * In the index a model is known by its incarnation: its number in the low bits, and above them a count
 * that a RESET raises. So a reset takes effect at once: lookups find nothing of what was, and what was
 * goes when its last pin or io ends, or when the sweep (sweep.c) comes by. The caller is answered
 * when the new epoch is durable and no job of an older incarnation touches a pool.
 *
 * A model is forgotten when nobody has it open and nothing is left of it; its number is then the next
 * one's. One that has objects still can be emptied for that: all of it is made stale, as by a reset,
 * and it is forgotten when the last I/O of the last object has ended.
 */
#include "src/engine/internal.h"

static bool parts_are_sane(const struct engine_model_config *config)
{
	if (config->n_groups == 0 || config->n_groups > STOKER_GROUPS_MAX || config->n_parts == 0 ||
	    config->n_parts > STOKER_PARTS_MAX || config->chunk_tokens == 0 ||
	    config->chunk_tokens >= TOKENS_UNVERIFIED)
		return false;
	for (uint32_t i = 0; i < config->n_parts; i++) {
		const struct engine_part_config *part = &config->parts[i];

		if (part->group >= config->n_groups || part->layers == 0 || part->blocks == 0 ||
		    part->image_bytes % UNIT || part->payload_bytes == 0 ||
		    part->image_bytes < part->payload_bytes + MODEL_IMAGE_HEADER)
			return false;
	}
	return true;
}

static bool parts_fit(const struct engine *e, const struct engine_model_config *config)
{
	const uint64_t arena = (uint64_t)e->config.extents * e->config.extent_bytes;

	for (uint32_t i = 0; i < config->n_parts; i++) {
		const uint64_t bytes = config->parts[i].image_bytes;

		if (bytes > MODEL_OBJECT_MAX || bytes > arena / 4 || bytes > 16 * e->config.extent_bytes)
			return false;
	}
	return true;
}

/*
 * Extents that a chunk takes at the least. A slab holds objects of one size, so each size that differs from the
 * others takes a run of its own, and the parts of a chunk must all be in the arena to be of use.
 */
static uint64_t extents_least(const struct engine *e, const struct engine_model_config *config)
{
	uint64_t extents = 0;

	for (uint32_t i = 0; i < config->n_parts; i++) {
		uint64_t run = 1;
		uint32_t same = 0;

		while (config->parts[same].image_bytes != config->parts[i].image_bytes)
			same++;
		if (same < i)
			continue;
		while (run * e->config.extent_bytes < config->parts[i].image_bytes)
			run *= 2;
		extents += run;
	}
	return extents;
}

static void model_fill(struct model *model, const struct engine_model_config *config)
{
	model->tenant = config->tenant;
	model->epoch = config->epoch;
	model->chunk_tokens = config->chunk_tokens;
	model->n_groups = config->n_groups;
	model->n_parts = config->n_parts;
	model->all = model->bytes = model->layers = 0;
	for (uint32_t g = 0; g < config->n_groups; g++) {
		model->groups[g].kind = config->groups[g].kind;
		model->groups[g].window = config->groups[g].window ? config->groups[g].window : 1;
		model->groups[g].block_tokens = config->groups[g].block_tokens;
		model->groups[g].blocks = config->groups[g].blocks;
		model->groups[g].parts = 0;
	}
	for (uint32_t i = 0; i < config->n_parts; i++) {
		const struct engine_part_config *part = &config->parts[i];

		model->parts[i] = *part;
		model->groups[part->group].parts |= 1ull << i;
		model->all |= 1ull << i;
		model->bytes += part->image_bytes;
		if (part->layers > model->layers)
			model->layers = part->layers;
	}
}

/* What was of it is stale from now on. */
static void incarnation_raise(const struct engine *e, struct model *model)
{
	model->incarnation += e->models_max;
	if (model->incarnation == NONE)		/* an entry's model is never that */
		model->incarnation += e->models_max;
}

int64_t engine_model_open(struct engine *e, const struct engine_model_config *config)
{
	uint32_t number = 0;

	if (!parts_are_sane(config) || config->tenant >= e->config.tenants)
		return -EINVAL;
	if (!parts_fit(e, config))
		return -E2BIG;
	if (extents_least(e, config) > e->config.extents)
		return -ENOSPC;
	while (number < e->config.models && e->models[number].open)
		number++;
	if (number == e->config.models)
		return -ENOMEM;
	model_fill(&e->models[number], config);
	e->models[number].open = true;
	incarnation_raise(e, &e->models[number]);
	e->models_open++;
	return number;
}

void model_closed(struct engine *e, uint32_t number)
{
	struct model *model = &e->models[number];

	ENGINE_ASSERT(model->open && model->objects == 0 && model->jobs == NONE);
	model->open = model->closing = false;
	e->models_open--;
}

/* Is it in nobody's hands? What survived a crash in a client's is kept for that client, and may come yet. */
static bool may_close(const struct engine *e, const struct model *model)
{
	return e->serving && model->open && !model->closing && model->jobs == NONE && model->draining == 0 &&
	       model->n_resets == 0;
}

void engine_model_close(struct engine *e, uint32_t number, bool evict, engine_token token)
{
	struct model *model = &e->models[number];

	ENGINE_ASSERT(number < e->models_max);
	if (may_close(e, model) && model->objects == 0) {
		model_closed(e, number);
		e->ports.control(e->ports.shell, token, STOKER_STATUS_OK, 0);
		return;
	}
	if (!may_close(e, model) || !evict || e->recovered.n > 0 || !admin_close(e, number, token)) {
		e->ports.control(e->ports.shell, token, STOKER_STATUS_REFUSED, model->objects);
		return;
	}
	model->closing = true;
	incarnation_raise(e, model);
	sweep_start(e);
}

/* ---- jobs of a model ----------------------------------------------------------------------------- */

void model_link(struct engine *e, struct job *job)
{
	const uint32_t number = job_number(e, job);
	struct model *model;

	if (job->model == NONE)
		return;
	model = &e->models[job->model];
	job->of_model = (struct link){ .next = model->jobs, .prev = NONE };
	if (model->jobs != NONE)
		e->jobs[model->jobs].of_model.prev = number;
	model->jobs = number;
}

void model_unlink(struct engine *e, struct job *job)
{
	if (job->model == NONE)
		return;
	if (job->of_model.prev == NONE)
		e->models[job->model].jobs = job->of_model.next;
	else
		e->jobs[job->of_model.prev].of_model.next = job->of_model.next;
	if (job->of_model.next != NONE)
		e->jobs[job->of_model.next].of_model.prev = job->of_model.prev;
}

/* ---- reset ------------------------------------------------------------------------------------------ */

static void resets_answer(struct engine *e, struct model *model)
{
	while (model->n_persisted > 0 && model->draining == 0) {
		const struct reset reset = model->resets[0];

		model->n_resets--;
		model->n_persisted--;
		memmove(&model->resets[0], &model->resets[1], model->n_resets * sizeof(struct reset));
		e->ports.control(e->ports.shell, reset.token, reset.ok ? STOKER_STATUS_OK : STOKER_STATUS_IO,
				 reset.epoch);
	}
}

void model_drained(struct engine *e, uint32_t number)
{
	struct model *model = &e->models[number];

	ENGINE_ASSERT(model->draining > 0);
	model->draining--;
	resets_answer(e, model);
}

/* Jobs of what is older from now on: they end, or are being drained. */
static void jobs_stop(struct engine *e, struct model *model)
{
	uint32_t next;

	for (uint32_t number = model->jobs; number != NONE; number = next) {
		struct job *job = &e->jobs[number];

		next = job->of_model.next;
		job_stop(e, job, STOKER_STATUS_RESET);
		if (job->phase != PHASE_FREE && !job->counted) {
			job->counted = true;
			model->draining++;
		}
	}
}

void engine_reset(struct engine *e, uint32_t number, uint32_t epoch, uint64_t tag, engine_token token)
{
	struct model *model = &e->models[number];

	ENGINE_ASSERT(number < e->models_max);
	if (!model->open || model->closing || model->n_resets == RESETS) {
		e->ports.control(e->ports.shell, token, STOKER_STATUS_REFUSED, 0);
		return;
	}
	count(e, STOKER_COUNTER_RESETS, 1);
	model->epoch = epoch;
	incarnation_raise(e, model);
	model->resets[model->n_resets++] = (struct reset){ .token = token, .epoch = epoch };
	jobs_stop(e, model);
	sweep_start(e);
	e->ports.persist_epoch(e->ports.shell, number, epoch, tag);
}

void engine_epoch_persisted(struct engine *e, uint32_t number, bool ok)
{
	struct model *model = &e->models[number];

	ENGINE_ASSERT(number < e->models_max && model->n_persisted < model->n_resets);
	model->resets[model->n_persisted].ok = ok;
	model->n_persisted++;
	resets_answer(e, model);
}
