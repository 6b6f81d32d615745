/*
 * Models: a caller's description made canonical, its digest and layout, and opening by either.
 *
 * The layout is worked out here from the same bytes that the broker gets, by the same code, so both
 * agree on parts and payloads without a word. Opened by digest, the description comes with the
 * broker's answer as soon as a worker has given one, and is digested before it is believed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/client/client.h"

static int describe_bad(struct stoker *c, const char *what)
{
	return client_fail(c, -EINVAL, "this is no model: %s", what);
}

static int describe_check(struct stoker *c, const struct stoker_model_description *d)
{
	if (!d->name || !d->name[0] || strlen(d->name) > 127)
		return describe_bad(c, "its name has 1 to 127 bytes");
	if (d->revision && strlen(d->revision) > 63)
		return describe_bad(c, "its revision has at most 63 bytes");
	if (d->tag_bytes > 64 || (d->tag_bytes > 0 && !d->tag))
		return describe_bad(c, "its tag has at most 64 bytes");
	if (d->n_groups < 1 || d->n_groups > STOKER_GROUPS_MAX || !d->groups)
		return describe_bad(c, "it has 1 to 8 groups");
	if (d->n_rows < 1 || d->n_rows > MODEL_ROWS_MAX || !d->rows)
		return describe_bad(c, "it has 1 to 8192 rows of plane bytes");
	return 0;
}

static struct model_wire_group group_canonical(const struct stoker_group *group, uint32_t chunk_tokens)
{
	struct model_wire_group ret = {
		.kind = group->kind,
		.window = group->window,
		.block_tokens = group->block_tokens,
		.blocks = group->blocks,
	};

	if (group->kind == STOKER_GROUP_FULL)
		ret.window = 0;
	if (group->kind == STOKER_GROUP_STATE)
		ret.window = 1;
	if (ret.blocks == 0 && ret.block_tokens > 0)
		ret.blocks = ret.block_tokens < chunk_tokens ? chunk_tokens / ret.block_tokens : 1;
	return ret;
}

/* The canonical description: the bytes that travel and are digested. NULL: no memory. */
static uint8_t *describe(const struct stoker_model_description *d, uint32_t *ret_bytes)
{
	const size_t bytes = sizeof(struct model_wire) + d->n_groups * sizeof(struct model_wire_group) +
			     d->n_rows * sizeof(struct model_wire_row);
	uint8_t *to = calloc(1, bytes);
	struct model_wire *wire = (struct model_wire *)to;
	struct model_wire_group *groups;
	struct model_wire_row *rows;

	if (!to)
		return NULL;
	snprintf(wire->name, sizeof(wire->name), "%s", d->name);
	snprintf(wire->revision, sizeof(wire->revision), "%s", d->revision ? d->revision : "");
	if (d->tag_bytes > 0)
		memcpy(wire->tag, d->tag, d->tag_bytes);
	wire->chunk_tokens = d->chunk_tokens;
	wire->n_groups = d->n_groups;
	wire->n_rows = d->n_rows;
	groups = (struct model_wire_group *)(wire + 1);
	for (uint32_t i = 0; i < d->n_groups; i++)
		groups[i] = group_canonical(&d->groups[i], d->chunk_tokens);
	rows = (struct model_wire_row *)(groups + d->n_groups);
	for (uint32_t i = 0; i < d->n_rows; i++)
		rows[i] = (struct model_wire_row){ .group = d->rows[i].group, .shard = d->rows[i].shard,
						   .layer = d->rows[i].layer, .plane = d->rows[i].plane,
						   .bytes = d->rows[i].bytes };
	*ret_bytes = (uint32_t)bytes;
	return to;
}

static int model_lay_out(struct stoker *c, struct stoker_model *model, const void *description, size_t bytes)
{
	char why[TALK_WHY] = "";
	const int r = model_layout_make(description, bytes, why, &model->layout);

	if (r == -EBADMSG || r == -E2BIG)
		return client_fail(c, r == -E2BIG ? r : -EINVAL, "this is no model: %s", why);
	return r < 0 ? client_fail(c, r, "could not describe the model: %s", strerror(-r)) : 0;
}

int model_send(struct stoker_model *model, int sock, uint64_t deadline_ns)
{
	struct message_model_open *open = (struct message_model_open *)model->object.c->message;

	memset(open, 0, sizeof(*open));
	open->header.type = MESSAGE_MODEL_OPEN;
	memcpy(open->digest, model->digest, sizeof(open->digest));
	if (model->description) {
		open->description_bytes = model->description_bytes;
		memcpy(open + 1, model->description, model->description_bytes);
	} else {
		open->flags = MESSAGE_MODEL_BY_DIGEST;
	}
	return object_send(&model->object, QUESTION_OPEN, sock, open, sizeof(*open) + open->description_bytes, NULL, 0,
			   deadline_ns);
}

int model_hear(struct stoker_model *model, const struct message_answer *answer, size_t bytes)
{
	struct stoker *c = model->object.c;
	int r;

	if (model->layout || answer->described_bytes == 0)
		return 0;
	if (bytes != sizeof(*answer) + answer->described_bytes)
		return client_fail(c, -EPROTO, "the broker described the model in a message of a wrong length");
	r = model_lay_out(c, model, answer + 1, answer->described_bytes);
	if (r == 0 && memcmp(model->layout->digest, model->digest, sizeof(model->digest)) != 0) {
		model_layout_free(model->layout);
		model->layout = NULL;
		return client_fail(c, -EPROTO, "the broker described another model than the digest names");
	}
	return r;
}

void model_free(struct stoker_model *model)
{
	if (!model)
		return;
	model_layout_free(model->layout);
	free(model->description);
	free(model);
}

/* Register @model (taken in any case) with the broker. */
static int model_enter(struct stoker *c, struct stoker_model *model, struct stoker_model **ret)
{
	int r = client_need_broker(c);

	if (r < 0) {
		model_free(model);
		return client_fail(c, r, "there is no broker \"%s\" to open the model", c->name);
	}
	object_add(c, &model->object, OBJECT_MODEL);
	r = object_open(&model->object);
	if (r < 0) {
		object_forget(&model->object);
		model_free(model);
		return r;
	}
	*ret = model;
	return 0;
}

static int model_open(struct stoker *c, const struct stoker_model_description *description, struct stoker_model **ret)
{
	struct stoker_model_description own;
	struct stoker_model *model;
	int r;

	if (!ret)
		return client_fail(c, -EINVAL, "there is no place for the model");
	r = description ? client_take_struct(&own, sizeof(own), description) : -EINVAL;
	if (r < 0)
		return client_fail(c, r, "the description's size is not set, or a field is set that this library lacks");
	r = describe_check(c, &own);
	if (r < 0)
		return r;
	model = calloc(1, sizeof(*model));
	if (model)
		model->description = describe(&own, &model->description_bytes);
	if (!model || !model->description) {
		model_free(model);
		return client_fail(c, -ENOMEM, "could not open the model: out of memory");
	}
	r = model_lay_out(c, model, model->description, model->description_bytes);
	if (r < 0) {
		model_free(model);
		return r;
	}
	memcpy(model->digest, model->layout->digest, sizeof(model->digest));
	return model_enter(c, model, ret);
}

int stoker_model_open(struct stoker *c, const struct stoker_model_description *description, struct stoker_model **ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, model_open(c, description, ret));
}

static int model_open_digest(struct stoker *c, const uint8_t digest[32], struct stoker_model **ret)
{
	struct stoker_model *model;

	if (!digest || !ret)
		return client_fail(c, -EINVAL, "there is no digest, or no place for the model");
	model = calloc(1, sizeof(*model));
	if (!model)
		return client_fail(c, -ENOMEM, "could not open the model: out of memory");
	memcpy(model->digest, digest, sizeof(model->digest));
	return model_enter(c, model, ret);
}

int stoker_model_open_digest(struct stoker *c, const uint8_t digest[32], struct stoker_model **ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, model_open_digest(c, digest, ret));
}

void stoker_model_digest(const struct stoker_model *model, uint8_t ret[32])
{
	if (ret && model)
		memcpy(ret, model->digest, sizeof(model->digest));
	else if (ret)
		memset(ret, 0, sizeof(model->digest));
}

void model_put(struct stoker_model *model)
{
	model->object.users--;
	if (model->closed && model->object.users == 0) {
		object_forget(&model->object);
		model_free(model);
	}
}

/* The broker keeps the model as long as anybody's objects are in it: closing tells it nothing. */
void stoker_model_close(struct stoker_model *model)
{
	if (!model)
		return;
	if (model->object.users > 0) {
		model->closed = true;
		return;
	}
	object_forget(&model->object);
	model_free(model);
}

static int model_reset(struct stoker *c, struct stoker_model *model, const uint64_t *tag, uint32_t timeout_ms)
{
	const uint64_t end = talk_now_ns() + timeout_ms * 1000000ull;
	struct message_reset reset = { .header.type = MESSAGE_RESET, .has_tag = tag != NULL, .tag = tag ? *tag : 0 };
	int r = client_need_broker(c);

	if (r == 0)
		r = object_need(&model->object, "model");
	if (r < 0)
		return r;
	reset.model = model->object.number;
	r = object_send(&model->object, QUESTION_RESET, c->at->sock, &reset, sizeof(reset), NULL, 0, end);
	if (r == -EPIPE)
		gone_end(c);
	return r < 0 ? r : object_await(&model->object, end);
}

int stoker_reset(struct stoker *c, struct stoker_model *model, const uint64_t *tag, uint32_t timeout_ms)
{
	int r = client_enter(c);

	if (r < 0)
		return r;
	if (!model || model->object.c != c)
		return client_leave(c, client_fail(c, -EINVAL, "the model is not of this handle"));
	return client_leave(c, model_reset(c, model, tag, timeout_ms));
}
