/*
 * Models: what is cached, in which sizes. The description as it travels and is digested, and the
 * layout that follows from it. Both sides work it out from the same bytes.
 *
 * A model has up to 8 groups (layers cached alike) and, per group, shards; a (group, shard) with
 * bytes is a part. The payload of a part is layer-major: for each layer, for each of its planes,
 * for each block in token order, its bytes. So a layer range is one contiguous run.
 *
 * The digest is SHA-256 over the canonical description: struct model_wire as it travels (unused
 * bytes zero), its groups and its rows. The broker hashes the tenant in as well for its own use.
 */
#ifndef STOKER_SHM_MODEL_H
#define STOKER_SHM_MODEL_H

#include <stdbool.h>

#include "shm/layout.h"

#define MODEL_ROWS_MAX		8192u	/* (group, shard, layer, plane) rows of a description */
#define MODEL_LAYERS_MAX	1024u	/* of one part */
#define MODEL_DIGEST_BYTES	32u
#define MODEL_IMAGE_HEADER	4096u	/* bytes of an object's image before its payload */
#define MODEL_OBJECT_MAX	(1ull << 30)

enum model_group_kind {
	MODEL_GROUP_FULL   = 0,	/* every chunk of the prefix is needed */
	MODEL_GROUP_WINDOW = 1,	/* only the last `window` chunks */
	MODEL_GROUP_STATE  = 2,	/* only the last chunk */
};

struct model_wire_group {
	uint32_t kind;
	uint32_t window;	/* chunks; FULL: 0, STATE: 1 */
	uint32_t block_tokens;	/* tokens of a block; divides chunk_tokens, or STATE: any */
	uint32_t blocks;	/* blocks that an object holds: chunk_tokens / block_tokens; the last ones of a */
				/* window of 1 chunk may be fewer */
};

struct model_wire_row {		/* strictly ascending by (group, shard, layer, plane) */
	uint16_t group, shard, layer, plane;
	uint32_t bytes;		/* of one block in this plane; above 0 */
};

/** struct model_wire - a description as it travels; its groups and rows follow at once. */
struct model_wire {
	char name[128];		/* NUL-terminated, rest zero */
	char revision[64];
	uint8_t tag[64];	/* opaque: what tells equal sizes apart (dtype, byte order, interleave) */
	uint32_t chunk_tokens;
	uint32_t n_groups;	/* 1 to STOKER_GROUPS_MAX */
	uint32_t n_rows;	/* 1 to MODEL_ROWS_MAX */
	uint32_t reserved;
};

/** struct model_part - a (group, shard) that has bytes. */
struct model_part {
	uint8_t group;
	uint8_t shard;
	uint16_t layers;		/* distinct layers */
	uint32_t first_row, n_rows;	/* its rows of the description */
	uint32_t blocks;		/* blocks of an object */
	uint64_t payload_bytes;
	uint64_t image_bytes;		/* header + payload, rounded up to 4,096 */
};

/** struct model_layout - what follows from a valid description. Owned by who made it. */
struct model_layout {
	struct model_wire wire;
	struct model_wire_group groups[STOKER_GROUPS_MAX];
	uint64_t group_parts[STOKER_GROUPS_MAX];	/* mask of the parts of each group */
	uint32_t n_parts;				/* 1 to STOKER_PARTS_MAX */
	struct model_part parts[STOKER_PARTS_MAX];
	uint8_t digest[MODEL_DIGEST_BYTES];		/* of the description alone */
	struct model_wire_row *rows;
	uint64_t *row_offset;	/* of each row's run (blocks x bytes) in its part's payload */
};

/*
 * Check a description of @bytes bytes and work out its layout. Returns 0 and a layout to be freed
 * with model_layout_free(), -EBADMSG or -E2BIG (an object above MODEL_OBJECT_MAX) with the reason in @why (at least
 * 192 bytes), or -ENOMEM.
 */
int model_layout_make(const void *description, size_t bytes, char *why, struct model_layout **ret);
void model_layout_free(struct model_layout *layout);	/* NULL is fine */

/* The part of (group, shard), or -1. */
int model_part_find(const struct model_layout *layout, uint32_t group, uint32_t shard);

/* SHA-256 of description digest and tenant name: the identity of a model within a broker. */
void model_digest_with_tenant(const uint8_t digest[MODEL_DIGEST_BYTES], const char *tenant,
			      uint8_t ret[MODEL_DIGEST_BYTES]);

#endif
