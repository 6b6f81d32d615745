/*
 * Images, the part that only this room knows: the header's bytes, and seals and verifies in steps,
 * so that the one of a large image does not keep a helper thread from copies. device.h has the rest.
 */
#ifndef STOKER_DEVICE_IMAGE_H
#define STOKER_DEVICE_IMAGE_H

#include <assert.h>
#include <stddef.h>

#define XXH_STATIC_LINKING_ONLY	/* for the size of XXH3_state_t, which is embedded below */
#include <xxhash.h>

#include "src/device/device.h"

#define IMAGE_MAGIC	0x676d496e656b6f74ull	/* "tokenImg" */
#define IMAGE_FORMAT	1u	/* another number: another layout, which this code cannot read */
#define IMAGE_VERSION	1u	/* rises when a reserved byte gets a meaning that old readers may miss */

/** struct image_header - the first 4,096 bytes of an image, in the arena and on disk. Little endian. */
struct image_header {
	uint64_t magic;
	uint32_t format;
	uint32_t version;
	uint8_t tier_uuid[16];		/* zero in the arena until a write stamps it */
	uint8_t model_digest[MODEL_DIGEST_BYTES];	/* of description and tenant */
	struct stoker_wire_key key, parent;
	uint64_t account;
	uint64_t sequence;
	uint64_t first_token;
	uint64_t payload_bytes;
	uint64_t payload_checksum;	/* XXH3-64, 1 where that is 0 */
	uint32_t epoch;
	uint32_t tokens;
	uint16_t group, shard;
	uint32_t reserved;		/* 0 */
	uint64_t own_checksum;		/* XXH3-64 of the whole header with this field zero */
	uint8_t rest[MODEL_IMAGE_HEADER - 192];	/* 0 */
};
static_assert(sizeof(struct image_header) == MODEL_IMAGE_HEADER, "a header is one page");
static_assert(offsetof(struct image_header, tier_uuid) == 16, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, model_digest) == 32, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, key) == 64, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, parent) == 96, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, account) == 128, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, payload_bytes) == 152, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, epoch) == 168, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, own_checksum) == 184, "on disk: raise IMAGE_FORMAT");
static_assert(offsetof(struct image_header, rest) == 192, "on disk: raise IMAGE_FORMAT");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "images are little endian, and so are we");

/** struct image_task - one seal or verify under way; plain data but for the image it points to. */
struct image_task {
	XXH3_state_t sum;		/* first: it wants 64-byte alignment */
	uint8_t *image;
	bool seal;
	struct engine_object object;
	struct image_identity identity;
	uint64_t summed;		/* bytes of the payload that are in `sum` */
	enum engine_result result;	/* valid when image_task_step() has returned true */
	uint64_t checksum;		/* likewise: of the payload; 0 if the header was wrong already */
};

/* @image is written by a seal only. */
void image_task_begin(struct image_task *task, bool seal, void *image, const struct engine_object *object,
		      const struct image_identity *identity);
/* Go on by up to @bytes of payload, above 0. Returns true when it is over. */
bool image_task_step(struct image_task *task, uint64_t bytes);

#endif
