/* Model descriptions for tests: made field by field, as they travel. */
#ifndef STOKER_TESTS_MODEL_BUILD_H
#define STOKER_TESTS_MODEL_BUILD_H

#include "shm/model.h"

#include <stdlib.h>
#include <string.h>

struct model_build {
	struct model_wire wire;
	struct model_wire_group groups[STOKER_GROUPS_MAX + 1];
	struct model_wire_row rows[MODEL_ROWS_MAX + 1];
};

static inline struct model_build *model_build_new(const char *name, uint32_t chunk_tokens)
{
	struct model_build *build = calloc(1, sizeof(*build));

	if (!build)
		abort();
	strncpy(build->wire.name, name, sizeof(build->wire.name) - 1);
	strcpy(build->wire.revision, "main");
	memcpy(build->wire.tag, "bf16", 4);
	build->wire.chunk_tokens = chunk_tokens;
	return build;
}

static inline struct model_wire_group *model_build_group(struct model_build *build, uint32_t kind, uint32_t window,
							 uint32_t block_tokens, uint32_t blocks)
{
	struct model_wire_group *group = &build->groups[build->wire.n_groups++];

	*group = (struct model_wire_group){ kind, window, block_tokens, blocks };
	return group;
}

static inline struct model_wire_row *model_build_row(struct model_build *build, uint32_t group, uint32_t shard,
						     uint32_t layer, uint32_t plane, uint32_t bytes)
{
	struct model_wire_row *row = &build->rows[build->wire.n_rows++];

	*row = (struct model_wire_row){ (uint16_t)group, (uint16_t)shard, (uint16_t)layer, (uint16_t)plane, bytes };
	return row;
}

/* The bytes as they travel, in memory of exactly their length, to be freed. */
static inline uint8_t *model_build_bytes(const struct model_build *build, size_t *ret)
{
	const size_t groups = build->wire.n_groups * sizeof(build->groups[0]);
	const size_t rows = build->wire.n_rows * sizeof(build->rows[0]);
	uint8_t *bytes = malloc(sizeof(build->wire) + groups + rows);

	if (!bytes)
		abort();
	memcpy(bytes, &build->wire, sizeof(build->wire));
	memcpy(bytes + sizeof(build->wire), build->groups, groups);
	memcpy(bytes + sizeof(build->wire) + groups, build->rows, rows);
	*ret = sizeof(build->wire) + groups + rows;
	return bytes;
}

#endif
