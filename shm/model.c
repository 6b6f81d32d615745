/*
 * Model descriptions: are they in order, and what follows from them. A description comes from a
 * peer: it is copied out of the message first, and every sum of its sizes is bounded before it is
 * made, so that none can wrap. What is refused is refused with the field and the row that is wrong.
 *
 * The canonical form is what makes the digest an identity: unused bytes are zero, rows are in one
 * order only, and a field that its kind has no use for has one value only.
 */
#include "shm/model.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHY_BYTES 192

static_assert(sizeof(struct model_wire) == 272, "the description is digested: it has no padding");
static_assert(sizeof(struct model_wire_group) == 16, "groups travel without padding");
static_assert(sizeof(struct model_wire_row) == 12, "rows travel without padding");

__attribute__((format(printf, 2, 3)))
static int refuse(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, WHY_BYTES, format, args);
	va_end(args);
	return -EBADMSG;
}

static int text_check(const char *text, size_t bytes, const char *field, char *why)
{
	const char *end = memchr(text, '\0', bytes);

	if (!end)
		return refuse(why, "the model's %s is not terminated within its %zu bytes", field, bytes);
	for (const char *p = end; p < text + bytes; p++) {
		if (*p != '\0')
			return refuse(why, "the model's %s has bytes other than zero behind its end", field);
	}
	return 0;
}

static int wire_check(const struct model_wire *wire, size_t bytes, char *why)
{
	size_t expected;
	int r;

	r = text_check(wire->name, sizeof(wire->name), "name", why);
	if (r == 0)
		r = text_check(wire->revision, sizeof(wire->revision), "revision", why);
	if (r < 0)
		return r;
	if (wire->chunk_tokens == 0)
		return refuse(why, "chunk_tokens is 0; a chunk has at least one token");
	if (wire->n_groups < 1 || wire->n_groups > STOKER_GROUPS_MAX)
		return refuse(why, "%u groups; 1 to %u are allowed", wire->n_groups, STOKER_GROUPS_MAX);
	if (wire->n_rows < 1 || wire->n_rows > MODEL_ROWS_MAX)
		return refuse(why, "%u rows; 1 to %u are allowed", wire->n_rows, MODEL_ROWS_MAX);
	if (wire->reserved != 0)
		return refuse(why, "the reserved field of the description is %u; it must be 0", wire->reserved);
	expected = sizeof(*wire) + wire->n_groups * sizeof(struct model_wire_group) +
		   wire->n_rows * sizeof(struct model_wire_row);
	if (bytes != expected)
		return refuse(why, "the description has %zu bytes; %u groups and %u rows make it %zu",
			      bytes, wire->n_groups, wire->n_rows, expected);
	return 0;
}

static int window_check(const struct model_wire_group *group, uint32_t g, char *why)
{
	switch (group->kind) {
	case MODEL_GROUP_FULL:
		if (group->window != 0)
			return refuse(why, "group %u is full and has a window of %u; it must be 0", g, group->window);
		return 0;
	case MODEL_GROUP_WINDOW:
		if (group->window == 0)
			return refuse(why, "group %u is a window of 0 chunks; it must have at least 1", g);
		return 0;
	case MODEL_GROUP_STATE:
		if (group->window != 1)
			return refuse(why, "group %u is state and has a window of %u; it must be 1", g, group->window);
		return 0;
	default:
		return refuse(why, "group %u is of kind %u, which is unknown", g, group->kind);
	}
}

static int group_check(const struct model_wire *wire, const struct model_wire_group *group, uint32_t g,
		       char *why)
{
	const int r = window_check(group, g, why);

	if (r < 0)
		return r;
	if (group->block_tokens == 0)
		return refuse(why, "group %u has blocks of 0 tokens; they have at least one", g);
	if (group->blocks == 0)
		return refuse(why, "group %u has 0 blocks an object; it must have at least 1", g);
	if (group->kind == MODEL_GROUP_STATE)
		return 0;
	if (wire->chunk_tokens % group->block_tokens != 0)
		return refuse(why, "group %u has blocks of %u tokens, which do not divide a chunk of %u",
			      g, group->block_tokens, wire->chunk_tokens);
	if (group->blocks > wire->chunk_tokens / group->block_tokens)
		return refuse(why, "group %u has %u blocks an object; a chunk of %u tokens has %u of %u",
			      g, group->blocks, wire->chunk_tokens,
			      wire->chunk_tokens / group->block_tokens, group->block_tokens);
	if (group->blocks < wire->chunk_tokens / group->block_tokens &&
	    (group->kind == MODEL_GROUP_FULL || group->window > 1))
		return refuse(why, "group %u keeps %u of the %u blocks of a chunk, but all of its tokens are needed: only a "
			      "window of 1 chunk, or a state, may keep fewer", g, group->blocks,
			      wire->chunk_tokens / group->block_tokens);
	return 0;
}

/* (group, shard, layer, plane) as one number that sorts like them. */
static uint64_t row_place(const struct model_wire_row *row)
{
	return (uint64_t)row->group << 48 | (uint64_t)row->shard << 32 | (uint64_t)row->layer << 16 | row->plane;
}

static bool rows_share_part(const struct model_wire_row *a, const struct model_wire_row *b)
{
	return a->group == b->group && a->shard == b->shard;
}

static int row_check(const struct model_layout *layout, uint32_t i, char *why)
{
	const struct model_wire_row *row = &layout->rows[i];

	if (row->group >= layout->wire.n_groups)
		return refuse(why, "row %u is of group %u; there are %u", i, row->group, layout->wire.n_groups);
	if (row->shard > UINT8_MAX)
		return refuse(why, "row %u is of shard %u; 0 to %u are allowed", i, row->shard, UINT8_MAX);
	if (row->bytes == 0)
		return refuse(why, "row %u has 0 bytes; leave out what has none", i);
	if (i > 0 && row_place(row) <= row_place(row - 1))
		return refuse(why, "row %u is not above row %u; rows ascend strictly by group, shard, layer, plane",
			      i, i - 1);
	return 0;
}

static int part_begin(struct model_layout *layout, uint32_t i, char *why)
{
	const struct model_wire_row *row = &layout->rows[i];
	const uint32_t number = layout->n_parts;

	if (number >= STOKER_PARTS_MAX)
		return refuse(why, "row %u begins part %u, a (group, shard); at most %u are allowed",
			      i, number + 1, STOKER_PARTS_MAX);
	layout->parts[number] = (struct model_part){
		.group = (uint8_t)row->group,
		.shard = (uint8_t)row->shard,
		.first_row = i,
		.blocks = layout->groups[row->group].blocks,
	};
	layout->group_parts[row->group] |= 1ull << number;
	layout->n_parts++;
	return 0;
}

/* Add row @i to the part that was begun last. */
static int part_add(struct model_layout *layout, uint32_t i, char *why)
{
	const struct model_wire_row *row = &layout->rows[i];
	struct model_part *part = &layout->parts[layout->n_parts - 1];
	const uint64_t run = (uint64_t)part->blocks * row->bytes;	/* 32 x 32 bits: cannot wrap */

	if (part->n_rows == 0 || row->layer != row[-1].layer) {
		if (part->layers >= MODEL_LAYERS_MAX)
			return refuse(why, "group %u, shard %u has more than %u layers", row->group, row->shard,
				      MODEL_LAYERS_MAX);
		part->layers++;
	}
	/* The payload is at most MODEL_OBJECT_MAX, so the difference cannot be below 0. */
	if (run > MODEL_OBJECT_MAX - part->payload_bytes) {
		refuse(why, "an object of group %u, shard %u is larger than %llu bytes; use shorter chunks", row->group,
		       row->shard, MODEL_OBJECT_MAX);
		return -E2BIG;
	}
	layout->row_offset[i] = part->payload_bytes;
	part->payload_bytes += run;
	part->n_rows++;
	return 0;
}

static int parts_make(struct model_layout *layout, char *why)
{
	for (uint32_t i = 0; i < layout->wire.n_rows; i++) {
		int r = row_check(layout, i, why);

		if (r == 0 && (i == 0 || !rows_share_part(&layout->rows[i], &layout->rows[i - 1])))
			r = part_begin(layout, i, why);
		if (r == 0)
			r = part_add(layout, i, why);
		if (r < 0)
			return r;
	}
	for (uint32_t g = 0; g < layout->wire.n_groups; g++) {
		if (layout->group_parts[g] == 0)
			return refuse(why, "group %u has no row", g);
	}
	for (uint32_t i = 0; i < layout->n_parts; i++) {
		struct model_part *part = &layout->parts[i];

		part->image_bytes = (MODEL_IMAGE_HEADER + part->payload_bytes + STOKER_PAGE - 1) &
				    ~(uint64_t)(STOKER_PAGE - 1);
	}
	return 0;
}

static struct model_layout *layout_new(const struct model_wire *wire)
{
	struct model_layout *layout = calloc(1, sizeof(*layout));

	if (!layout)
		return NULL;
	layout->wire = *wire;
	layout->rows = calloc(wire->n_rows, sizeof(*layout->rows));
	layout->row_offset = calloc(wire->n_rows, sizeof(*layout->row_offset));
	if (!layout->rows || !layout->row_offset) {
		model_layout_free(layout);
		return NULL;
	}
	return layout;
}

/* Fill in what follows from the description, whose length is known to be right. */
static int layout_fill(struct model_layout *layout, const uint8_t *description, size_t bytes, char *why)
{
	const size_t groups_bytes = layout->wire.n_groups * sizeof(layout->groups[0]);

	memcpy(layout->groups, description + sizeof(layout->wire), groups_bytes);
	memcpy(layout->rows, description + sizeof(layout->wire) + groups_bytes,
	       layout->wire.n_rows * sizeof(layout->rows[0]));
	for (uint32_t g = 0; g < layout->wire.n_groups; g++) {
		const int r = group_check(&layout->wire, &layout->groups[g], g, why);

		if (r < 0)
			return r;
	}
	if (!EVP_Digest(description, bytes, layout->digest, NULL, EVP_sha256(), NULL))
		return -ENOMEM;	/* of the ways to fail, a digest of memory knows only this one */
	return parts_make(layout, why);
}

int model_layout_make(const void *description, size_t bytes, char *why, struct model_layout **ret)
{
	struct model_wire wire;
	struct model_layout *layout;
	int r;

	if (bytes < sizeof(wire))
		return refuse(why, "the description has %zu bytes; it has at least %zu", bytes, sizeof(wire));
	memcpy(&wire, description, sizeof(wire));
	r = wire_check(&wire, bytes, why);
	if (r < 0)
		return r;
	layout = layout_new(&wire);
	if (!layout)
		return -ENOMEM;
	r = layout_fill(layout, description, bytes, why);
	if (r < 0) {
		model_layout_free(layout);
		return r;
	}
	*ret = layout;
	return 0;
}

void model_layout_free(struct model_layout *layout)
{
	if (!layout)
		return;
	free(layout->rows);
	free(layout->row_offset);
	free(layout);
}

int model_part_find(const struct model_layout *layout, uint32_t group, uint32_t shard)
{
	for (uint32_t i = 0; i < layout->n_parts; i++) {
		if (layout->parts[i].group == group && layout->parts[i].shard == shard)
			return (int)i;
	}
	return -1;
}

void model_digest_with_tenant(const uint8_t digest[MODEL_DIGEST_BYTES], const char *tenant,
			      uint8_t ret[MODEL_DIGEST_BYTES])
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	/* Without memory for a digest there is no identity to go on with; a guess would mix tenants. */
	if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(context, digest, MODEL_DIGEST_BYTES) ||
	    !EVP_DigestUpdate(context, tenant, strlen(tenant)) || !EVP_DigestFinal_ex(context, ret, NULL))
		abort();
	EVP_MD_CTX_free(context);
}
