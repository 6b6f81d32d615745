/*
 * Images: what a seal writes, and that a verify accepts that and nothing else.
 */
#include "tests/image-whole.h"

#include <stdlib.h>
#include <string.h>

#include "tests/suite.h"

#define ROOM (MODEL_IMAGE_HEADER + 64 * 1024)

/* Lengths at which padding, stripes of the checksum and its internal buffers end. */
static const uint64_t lengths[] = { 1, 16, 240, 241, 1024, 4095, 4096, 4097, 12288, 50001 };
#define LENGTHS ((int)(sizeof(lengths) / sizeof(lengths[0])))

struct sealed {
	uint8_t *image;
	struct engine_object object;
	struct image_identity identity;
	uint64_t checksum;
};

static struct sealed sealed_of(uint64_t payload_bytes)
{
	struct sealed s = {
		.image = aligned_alloc(4096, ROOM),
		.object = { .key = { { 1, 2, 3, 4 } }, .parent = { { 5, 6, 7, 8 } }, .account = 9, .sequence = 10,
			    .first_token = 11, .model = 3, .epoch = 12, .tokens = 13, .group = 1, .shard = 2,
			    .part = 5 },
		.identity = { .model_digest = "a digest of thirty-two bytes ...", .payload_bytes = payload_bytes },
	};

	ck_assert_ptr_nonnull(s.image);
	memset(s.image, 0xa5, ROOM);
	for (uint64_t i = 0; i < payload_bytes; i++)
		s.image[MODEL_IMAGE_HEADER + i] = (uint8_t)(i * 7 + i / 251);
	s.checksum = seal_whole(s.image, &s.object, &s.identity);
	return s;
}

static enum engine_result verify(const struct sealed *s)
{
	return verify_whole(s->image, &s->object, &s->identity, NULL);
}

START_TEST(a_seal_returns_the_payloads_checksum_and_is_verified)
{
	struct sealed s = sealed_of(lengths[_i]);
	uint64_t checksum = 0;

	ck_assert_uint_eq(s.checksum, XXH3_64bits(s.image + MODEL_IMAGE_HEADER, lengths[_i]));
	ck_assert_int_eq(verify_whole(s.image, &s.object, &s.identity, &checksum), ENGINE_OK);
	ck_assert_uint_eq(checksum, s.checksum);
	free(s.image);
}
END_TEST

START_TEST(a_known_checksum_must_be_the_stated_one_and_0_accepts_any)
{
	struct sealed s = sealed_of(lengths[_i]);

	s.object.checksum = s.checksum;
	ck_assert_int_eq(verify(&s), ENGINE_OK);
	s.object.checksum = s.checksum + 1;
	ck_assert_int_eq(verify(&s), ENGINE_CORRUPT);
	s.object.checksum = 0;
	ck_assert_int_eq(verify(&s), ENGINE_OK);
	free(s.image);
}
END_TEST

START_TEST(every_flipped_bit_of_header_or_payload_is_seen)
{
	struct sealed s = sealed_of(4097);

	for (uint64_t i = 0; i < MODEL_IMAGE_HEADER + s.identity.payload_bytes; i++) {
		const uint8_t bit = (uint8_t)(1u << (i % 8));

		s.image[i] ^= bit;
		ck_assert_msg(verify(&s) == ENGINE_CORRUPT, "byte %llu was flipped and nobody saw it",
			      (unsigned long long)i);
		s.image[i] ^= bit;
	}
	ck_assert_int_eq(verify(&s), ENGINE_OK);
	free(s.image);
}
END_TEST

START_TEST(an_image_of_another_object_is_refused_whatever_differs)
{
	struct sealed s = sealed_of(1024);
	const struct sealed good = s;

#define DIFFERS(field, other) do { \
		s.field = (other); \
		ck_assert_msg(verify(&s) == ENGINE_CORRUPT, "another " #field " was accepted"); \
		s = good; \
	} while (0)
	for (int i = 0; i < 4; i++) {
		DIFFERS(object.key.word[i], 99);
		DIFFERS(object.parent.word[i], 99);
	}
	DIFFERS(object.account, 99);
	DIFFERS(object.sequence, 99);
	DIFFERS(object.first_token, 99);
	DIFFERS(object.epoch, 99);
	DIFFERS(object.tokens, 99);
	DIFFERS(object.group, 99);
	DIFFERS(object.shard, 99);
	DIFFERS(identity.payload_bytes, 1023);
	DIFFERS(identity.payload_bytes, 1025);
	DIFFERS(identity.model_digest[0], 'b');
	DIFFERS(identity.model_digest[31], 'b');
#undef DIFFERS
	s.object.model = 77;	/* numbers of this boot are not in an image */
	s.object.part = 77;
	ck_assert_int_eq(verify(&s), ENGINE_OK);
	free(s.image);
}
END_TEST

START_TEST(a_header_of_zeroes_or_of_another_format_is_no_image)
{
	struct sealed s = sealed_of(1024);
	struct image_header *header = (struct image_header *)s.image;

	header->format++;
	header->own_checksum = 0;
	header->own_checksum = XXH3_64bits(header, sizeof(*header));	/* sound, but not ours to read */
	ck_assert_int_eq(verify(&s), ENGINE_CORRUPT);
	memset(header, 0, sizeof(*header));
	ck_assert_int_eq(verify(&s), ENGINE_CORRUPT);
	free(s.image);
}
END_TEST

START_TEST(a_seal_clears_the_rest_of_its_last_page_and_nothing_behind_it)
{
	struct sealed s = sealed_of(lengths[_i]);
	const uint64_t end = MODEL_IMAGE_HEADER + lengths[_i];
	const uint64_t page_end = (end + 4095) & ~4095ull;

	for (uint64_t i = end; i < ROOM; i++)
		ck_assert_uint_eq(s.image[i], i < page_end ? 0 : 0xa5);
	free(s.image);
}
END_TEST

START_TEST(a_stamp_names_one_tier_and_leaves_the_image_sound)
{
	static const uint8_t ours[16] = "tier number one", other[16] = "tier number two", none[16];
	struct sealed s = sealed_of(4096);

	ck_assert(image_is_of(s.image, none));
	ck_assert(!image_is_of(s.image, ours));
	image_stamp(s.image, ours);
	ck_assert(image_is_of(s.image, ours));
	ck_assert(!image_is_of(s.image, other));
	ck_assert_int_eq(verify(&s), ENGINE_OK);
	image_stamp(s.image, other);
	ck_assert(image_is_of(s.image, other));
	ck_assert_int_eq(verify(&s), ENGINE_OK);
	s.image[200] ^= 1;
	ck_assert(!image_is_of(s.image, other));
	free(s.image);
}
END_TEST

START_TEST(seal_and_verify_in_steps_are_the_same_as_in_one)
{
	struct sealed s = sealed_of(lengths[_i]);
	uint8_t *whole = malloc(ROOM);
	struct image_task *task = aligned_alloc(64, sizeof(*task));
	uint32_t steps = 0;

	ck_assert(whole && task);
	memcpy(whole, s.image, ROOM);
	memset(s.image, 0xee, MODEL_IMAGE_HEADER);
	image_task_begin(task, true, s.image, &s.object, &s.identity);
	while (!image_task_step(task, 1000))
		steps++;
	ck_assert_uint_eq(steps, (lengths[_i] - 1) / 1000);
	ck_assert_int_eq(task->result, ENGINE_OK);
	ck_assert_uint_eq(task->checksum, s.checksum);
	ck_assert(memcmp(whole, s.image, ROOM) == 0);

	image_task_begin(task, false, s.image, &s.object, &s.identity);
	while (!image_task_step(task, 1000))
		;
	ck_assert_int_eq(task->result, ENGINE_OK);
	s.image[MODEL_IMAGE_HEADER + lengths[_i] - 1] ^= 0x80;
	image_task_begin(task, false, s.image, &s.object, &s.identity);
	while (!image_task_step(task, 1000))
		;
	ck_assert_int_eq(task->result, ENGINE_CORRUPT);
	free(task);
	free(whole);
	free(s.image);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("device-image");
	TCase *images = tcase_create("images");

	tcase_add_loop_test(images, a_seal_returns_the_payloads_checksum_and_is_verified, 0, LENGTHS);
	tcase_add_loop_test(images, a_known_checksum_must_be_the_stated_one_and_0_accepts_any, 0, LENGTHS);
	tcase_add_test(images, every_flipped_bit_of_header_or_payload_is_seen);
	tcase_add_test(images, an_image_of_another_object_is_refused_whatever_differs);
	tcase_add_test(images, a_header_of_zeroes_or_of_another_format_is_no_image);
	tcase_add_loop_test(images, a_seal_clears_the_rest_of_its_last_page_and_nothing_behind_it, 0, LENGTHS);
	tcase_add_test(images, a_stamp_names_one_tier_and_leaves_the_image_sound);
	tcase_add_loop_test(images, seal_and_verify_in_steps_are_the_same_as_in_one, 0, LENGTHS);
	suite_add_tcase(s, images);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
