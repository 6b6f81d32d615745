/*
 * Images: a header of one page, then the payload, then zeroes up to a multiple of 4,096.
 *
 * The header says whose payload follows and what its checksum is, and has a checksum of its own, so
 * that an image found anywhere (a tier, an arena that outlived its broker) proves what it is. A seal
 * takes the payload's checksum from the arena's bytes, never from a pool, which its client may
 * change at any instant.
 *
 * Who seals or verifies an image is its only writer meanwhile; the engine's io counts see to that.
 */
#include "src/device/image.h"

#include <string.h>

/* 0 means "not sealed yet" in an engine_object, so the one payload in 2^64 that sums to it bears 1. */
static uint64_t sum_as_stated(uint64_t sum)
{
	return sum ? sum : 1;
}

static uint64_t header_sum(const struct image_header *header)
{
	struct image_header copy = *header;

	copy.own_checksum = 0;
	return XXH3_64bits(&copy, sizeof(copy));
}

static void header_write(struct image_header *header, const struct engine_object *object,
			 const struct image_identity *identity, uint64_t checksum)
{
	memset(header, 0, sizeof(*header));
	header->magic = IMAGE_MAGIC;
	header->format = IMAGE_FORMAT;
	header->version = IMAGE_VERSION;
	memcpy(header->model_digest, identity->model_digest, sizeof(header->model_digest));
	header->key = object->key;
	header->parent = object->parent;
	header->account = object->account;
	header->sequence = object->sequence;
	header->first_token = object->first_token;
	header->payload_bytes = identity->payload_bytes;
	header->payload_checksum = checksum;
	header->epoch = object->epoch;
	header->tokens = object->tokens;
	header->group = object->group;
	header->shard = object->shard;
	header->own_checksum = header_sum(header);
}

static bool header_is_sound(const struct image_header *header)
{
	return header->magic == IMAGE_MAGIC && header->format == IMAGE_FORMAT &&
	       header->own_checksum == header_sum(header);
}

static bool header_says(const struct image_header *header, const struct engine_object *object,
			const struct image_identity *identity)
{
	return memcmp(header->model_digest, identity->model_digest, sizeof(header->model_digest)) == 0 &&
	       memcmp(&header->key, &object->key, sizeof(header->key)) == 0 &&
	       memcmp(&header->parent, &object->parent, sizeof(header->parent)) == 0 &&
	       header->account == object->account && header->sequence == object->sequence &&
	       header->first_token == object->first_token && header->epoch == object->epoch &&
	       header->tokens == object->tokens && header->group == object->group &&
	       header->shard == object->shard && header->payload_bytes == identity->payload_bytes &&
	       (object->checksum == 0 || object->checksum == header->payload_checksum);
}

/* What follows the payload in its last unit: bytes of an older object have no business on disk. */
static void clear_rest(uint8_t *image, uint64_t payload_bytes)
{
	const uint64_t end = MODEL_IMAGE_HEADER + payload_bytes;
	const uint64_t rest = -end & (STOKER_PAGE - 1);

	memset(image + end, 0, rest);
}

void image_task_begin(struct image_task *task, bool seal, void *image, const struct engine_object *object,
		      const struct image_identity *identity)
{
	XXH3_64bits_reset(&task->sum);
	task->image = image;
	task->seal = seal;
	task->object = *object;
	task->identity = *identity;
	task->summed = 0;
	task->result = ENGINE_OK;
	task->checksum = 0;
}

static bool task_end(struct image_task *task, enum engine_result result)
{
	task->result = result;
	return true;
}

bool image_task_step(struct image_task *task, uint64_t bytes)
{
	struct image_header *header = (struct image_header *)task->image;
	const uint64_t left = task->identity.payload_bytes - task->summed;
	const uint64_t now = bytes < left ? bytes : left;

	/* A wrong header is told before gigabytes behind it are read. */
	if (!task->seal && task->summed == 0 &&
	    !(header_is_sound(header) && header_says(header, &task->object, &task->identity)))
		return task_end(task, ENGINE_CORRUPT);
	XXH3_64bits_update(&task->sum, task->image + MODEL_IMAGE_HEADER + task->summed, now);
	task->summed += now;
	if (now < left)
		return false;

	task->checksum = sum_as_stated(XXH3_64bits_digest(&task->sum));
	if (!task->seal)
		return task_end(task, task->checksum == header->payload_checksum ? ENGINE_OK : ENGINE_CORRUPT);
	clear_rest(task->image, task->identity.payload_bytes);
	header_write(header, &task->object, &task->identity, task->checksum);
	return task_end(task, ENGINE_OK);
}

void image_stamp(void *image, const uint8_t tier_uuid[16])
{
	struct image_header *header = image;

	memcpy(header->tier_uuid, tier_uuid, sizeof(header->tier_uuid));
	header->own_checksum = header_sum(header);
}

bool image_is_of(const void *image, const uint8_t tier_uuid[16])
{
	const struct image_header *header = image;

	return header_is_sound(header) &&
	       memcmp(header->tier_uuid, tier_uuid, sizeof(header->tier_uuid)) == 0;
}
