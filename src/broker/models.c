/* See models.h. */
#include "src/broker/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void models_init(struct models *models, uint32_t max)
{
	*models = (struct models){ .max = max < MODELS_MAX ? max : MODELS_MAX };
}

static void model_free(struct model *model)
{
	if (model)
		model_layout_free(model->layout);
	free(model);
}

void models_fini(struct models *models)
{
	for (uint32_t i = 0; i < MODELS_MAX; i++) {
		model_free(models->model[i]);
		models->model[i] = NULL;
	}
}

/* A model stays while a client has it open, so that one tenant could take every place. */
static uint32_t tenant_max(const struct models *models, const struct config *config, uint32_t tenant)
{
	const uint64_t set = config->tenants[tenant].models;

	if (set)
		return set < models->max ? (uint32_t)set : models->max;
	return models->max > config->n_tenants ? models->max / config->n_tenants : 1;
}

/* Is there room for one more? A text says why not. */
static bool has_room(const struct models *models, const struct config *config, uint32_t tenant, bool described,
		     enum models_lack *lack, char *why)
{
	const uint32_t most = tenant_max(models, config, tenant);
	uint32_t all = 0, bare = 0, of_tenant = 0;

	for (uint32_t i = 0; i < models->max; i++) {
		const struct model *model = models->model[i];

		all += model != NULL;
		bare += model && model->state == MODEL_BARE && model->tenant == tenant;
		of_tenant += model && model->tenant == tenant;
	}
	*lack = MODELS_LACK_OTHER;
	if (!described && bare * 4 >= most) {
		snprintf(why, MESSAGE_REASON, "%u models are known by digest alone: let a worker describe them first",
			 bare);
	} else if (of_tenant >= most) {
		*lack = MODELS_LACK_SHARE;
		snprintf(why, MESSAGE_REASON, "tenant %s has %u models, which is its limit, and none that could be forgotten "
			 "now: let the clients of one of them leave, or raise tenant.models", config->tenants[tenant].name,
			 of_tenant);
	} else if (all == models->max) {
		*lack = MODELS_LACK_PLACE;
		snprintf(why, MESSAGE_REASON, "there are %u models, which is the limit, and none that could be forgotten for "
			 "tenant %s now: let the clients of one of them leave, or raise limits.models", all,
			 config->tenants[tenant].name);
	} else {
		return true;
	}
	return false;
}

static bool is_of(const struct model *model, uint32_t tenant, bool any)
{
	return model && (any || model->tenant == tenant);
}

struct model *models_coldest(const struct models *models, uint32_t tenant, bool any, uint64_t but)
{
	struct model *coldest = NULL;

	for (uint32_t i = 0; i < models->max; i++) {
		struct model *model = models->model[i];

		if (!is_of(model, tenant, any) || but >> i & 1 || model->state != MODEL_OPEN || model->clients > 0 ||
		    model->resetting)
			continue;
		if (!coldest || model->used_ns < coldest->used_ns)
			coldest = model;
	}
	return coldest;
}

bool models_is_closing(const struct models *models, uint32_t tenant, bool any)
{
	for (uint32_t i = 0; i < models->max; i++)
		if (is_of(models->model[i], tenant, any) && models->model[i]->state == MODEL_CLOSING)
			return true;
	return false;
}

static struct model *model_new(uint32_t number, uint32_t tenant, const uint8_t digest[MODEL_DIGEST_BYTES],
			       const uint8_t identity[MODEL_DIGEST_BYTES])
{
	struct model *model;

	if (posix_memalign((void **)&model, 64, sizeof(*model)) != 0)
		return NULL;
	memset(model, 0, sizeof(*model));
	model->number = number;
	model->tenant = tenant;
	model->engine = ENGINE_NONE;
	memcpy(model->digest, digest, MODEL_DIGEST_BYTES);
	memcpy(model->identity, identity, MODEL_DIGEST_BYTES);
	return model;
}

struct model *models_get(struct models *models, const struct config *config, uint32_t tenant,
			 const uint8_t digest[MODEL_DIGEST_BYTES], bool described, enum models_lack *lack, char *why)
{
	uint8_t identity[MODEL_DIGEST_BYTES];
	uint32_t free_at = MODELS_MAX;

	model_digest_with_tenant(digest, config->tenants[tenant].name, identity);
	for (uint32_t i = models->max; i-- > 0;) {
		if (!models->model[i])
			free_at = i;
		else if (memcmp(models->model[i]->identity, identity, sizeof(identity)) == 0)
			return models->model[i];
	}
	if (!has_room(models, config, tenant, described, lack, why))
		return NULL;
	models->model[free_at] = model_new(free_at, tenant, digest, identity);
	if (!models->model[free_at])
		snprintf(why, MESSAGE_REASON, "the broker has no memory for another model");
	return models->model[free_at];
}

void model_describe(struct model *model, struct model_layout *layout)
{
	struct engine_model_config *config = &model->config;

	*config = (struct engine_model_config){
		.tenant = model->tenant,
		.epoch = model->epoch,
		.chunk_tokens = layout->wire.chunk_tokens,
		.n_groups = layout->wire.n_groups,
		.n_parts = layout->n_parts,
	};
	for (uint32_t i = 0; i < config->n_groups; i++) {
		config->groups[i].kind = layout->groups[i].kind;
		config->groups[i].window = layout->groups[i].window;
		config->groups[i].block_tokens = layout->groups[i].block_tokens;
		config->groups[i].blocks = layout->groups[i].blocks;
	}
	for (uint32_t i = 0; i < config->n_parts; i++) {
		const struct model_part *part = &layout->parts[i];

		config->parts[i] = (struct engine_part_config){
			.group = part->group,
			.shard = part->shard,
			.layers = part->layers,
			.blocks = part->blocks,
			.image_bytes = part->image_bytes,
			.payload_bytes = part->payload_bytes,
		};
	}
	model->layout = layout;
	model->state = MODEL_OPENING;
}

void models_put(struct models *models, struct model *model)
{
	if (model->clients == 0 && model->state == MODEL_BARE)
		models_drop(models, model);
}

void models_drop(struct models *models, struct model *model)
{
	models->model[model->number] = NULL;
	model_free(model);
}
