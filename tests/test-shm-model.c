/*
 * Models: what follows from a valid description, every rule that makes one invalid with the reason
 * that is given, and the digest as an identity.
 */
#include "shm/model.h"
#include "tests/model-build.h"
#include "tests/suite.h"

#include <errno.h>
#include <stdio.h>

#define WHY 192

/* 2 layers of K and V in 16-token blocks, 2 shards; a sliding window; a state of one shard. */
static struct model_build *hybrid(void)
{
	struct model_build *build = model_build_new("hybrid-9b", 256);

	model_build_group(build, MODEL_GROUP_FULL, 0, 16, 16);
	model_build_group(build, MODEL_GROUP_WINDOW, 1, 32, 2);
	model_build_group(build, MODEL_GROUP_STATE, 1, 256, 1);
	for (uint32_t shard = 0; shard < 2; shard++) {
		for (uint32_t layer = 0; layer < 2; layer++) {
			model_build_row(build, 0, shard, layer, 0, 4096);
			model_build_row(build, 0, shard, layer, 1, 8192);
		}
	}
	model_build_row(build, 1, 0, 3, 0, 1000);
	model_build_row(build, 1, 0, 7, 0, 3000);
	model_build_row(build, 2, 5, 9, 0, 4097);
	return build;
}

static struct model_layout *layout_of(const struct model_build *build)
{
	struct model_layout *layout = NULL;
	char why[WHY] = "";
	size_t bytes;
	uint8_t *description = model_build_bytes(build, &bytes);

	ck_assert_msg(model_layout_make(description, bytes, why, &layout) == 0, "refused: %s", why);
	free(description);
	return layout;
}

/* It is refused with just this reason. Frees @build. */
static void assert_refused(struct model_build *build, const char *reason)
{
	struct model_layout *layout = NULL;
	char why[WHY];
	size_t bytes;
	uint8_t *description = model_build_bytes(build, &bytes);

	memset(why, 'x', sizeof(why));
	ck_assert_int_eq(model_layout_make(description, bytes, why, &layout),
			 strstr(reason, "larger than") ? -E2BIG : -EBADMSG);
	ck_assert_str_eq(why, reason);
	ck_assert_ptr_null(layout);
	free(description);
	free(build);
}

START_TEST(a_part_is_made_for_each_group_and_shard_that_has_bytes)
{
	static const struct {
		uint8_t group, shard;
		uint16_t layers;
		uint32_t first_row, n_rows, blocks;
		uint64_t payload;
	} parts[] = {
		{ 0, 0, 2, 0, 4, 16, 2 * 16 * (4096 + 8192) },
		{ 0, 1, 2, 4, 4, 16, 2 * 16 * (4096 + 8192) },
		{ 1, 0, 2, 8, 2, 2, 2 * (1000 + 3000) },
		{ 2, 5, 1, 10, 1, 1, 4097 },
	};
	struct model_build *build = hybrid();
	struct model_layout *layout = layout_of(build);

	ck_assert_uint_eq(layout->n_parts, 4);
	for (uint32_t i = 0; i < 4; i++) {
		const struct model_part *part = &layout->parts[i];

		ck_assert_uint_eq(part->group, parts[i].group);
		ck_assert_uint_eq(part->shard, parts[i].shard);
		ck_assert_uint_eq(part->layers, parts[i].layers);
		ck_assert_uint_eq(part->first_row, parts[i].first_row);
		ck_assert_uint_eq(part->n_rows, parts[i].n_rows);
		ck_assert_uint_eq(part->blocks, parts[i].blocks);
		ck_assert_uint_eq(part->payload_bytes, parts[i].payload);
		ck_assert_uint_eq(part->image_bytes % 4096, 0);
		ck_assert_uint_ge(part->image_bytes, part->payload_bytes + MODEL_IMAGE_HEADER);
		ck_assert_uint_lt(part->image_bytes, part->payload_bytes + MODEL_IMAGE_HEADER + 4096);
	}
	ck_assert_uint_eq(layout->group_parts[0], 3);
	ck_assert_uint_eq(layout->group_parts[1], 4);
	ck_assert_uint_eq(layout->group_parts[2], 8);
	ck_assert_uint_eq(layout->group_parts[3], 0);
	ck_assert_mem_eq(&layout->wire, &build->wire, sizeof(build->wire));
	model_layout_free(layout);
	model_layout_free(NULL);
	free(build);
}
END_TEST

START_TEST(a_payload_is_layer_major_without_gaps)
{
	struct model_build *build = hybrid();
	struct model_layout *layout = layout_of(build);

	for (uint32_t i = 0; i < layout->n_parts; i++) {
		const struct model_part *part = &layout->parts[i];
		uint64_t offset = 0;

		for (uint32_t row = part->first_row; row < part->first_row + part->n_rows; row++) {
			ck_assert_uint_eq(layout->row_offset[row], offset);
			offset += (uint64_t)part->blocks * layout->rows[row].bytes;
		}
		ck_assert_uint_eq(offset, part->payload_bytes);
	}
	model_layout_free(layout);
	free(build);
}
END_TEST

START_TEST(a_part_is_found_by_its_group_and_shard_and_no_other_is)
{
	struct model_build *build = hybrid();
	struct model_layout *layout = layout_of(build);

	ck_assert_int_eq(model_part_find(layout, 0, 0), 0);
	ck_assert_int_eq(model_part_find(layout, 0, 1), 1);
	ck_assert_int_eq(model_part_find(layout, 2, 5), 3);
	ck_assert_int_eq(model_part_find(layout, 2, 0), -1);
	ck_assert_int_eq(model_part_find(layout, 256, 0), -1);
	ck_assert_int_eq(model_part_find(layout, 0, 256), -1);
	ck_assert_int_eq(model_part_find(layout, UINT32_MAX, UINT32_MAX), -1);
	model_layout_free(layout);
	free(build);
}
END_TEST

START_TEST(the_greatest_description_is_taken)
{
	struct model_build *build = model_build_new("", UINT32_MAX);
	struct model_layout *layout;

	memset(build->wire.name, 'n', sizeof(build->wire.name) - 1);
	memset(build->wire.revision, 'r', sizeof(build->wire.revision) - 1);
	memset(build->wire.tag, 0xff, sizeof(build->wire.tag));
	for (uint32_t g = 0; g < STOKER_GROUPS_MAX; g++)
		model_build_group(build, MODEL_GROUP_WINDOW, UINT32_MAX, UINT32_MAX, 1);
	for (uint32_t part = 0; part < STOKER_PARTS_MAX; part++) {
		for (uint32_t i = 0; i < MODEL_ROWS_MAX / STOKER_PARTS_MAX; i++)
			model_build_row(build, part / 8, 248 + part % 8, 65000 + i, 65535, 8 << 20);
	}
	layout = layout_of(build);
	ck_assert_uint_eq(layout->n_parts, STOKER_PARTS_MAX);
	ck_assert_uint_eq(layout->parts[63].payload_bytes, MODEL_OBJECT_MAX);
	ck_assert_uint_eq(layout->parts[63].image_bytes, MODEL_OBJECT_MAX + 4096);
	ck_assert_uint_eq(layout->group_parts[7], 0xffull << 56);
	model_layout_free(layout);
	free(build);
}
END_TEST

START_TEST(a_state_may_have_blocks_as_it_likes_and_a_window_fewer_than_a_chunk_has)
{
	struct model_build *build = model_build_new("m", 100);
	struct model_layout *layout;

	model_build_group(build, MODEL_GROUP_STATE, 1, 7, 1000);
	model_build_group(build, MODEL_GROUP_WINDOW, 1, 10, 3);
	model_build_row(build, 0, 0, 0, 0, 1);
	model_build_row(build, 1, 0, 0, 0, 1);
	layout = layout_of(build);
	ck_assert_uint_eq(layout->parts[0].payload_bytes, 1000);
	ck_assert_uint_eq(layout->parts[1].payload_bytes, 3);
	model_layout_free(layout);
	free(build);
}
END_TEST

/* ---- what is refused --------------------------------------------------------------------- */

#define REFUSED(change, reason) \
	do { \
		struct model_build *b = hybrid(); \
		change; \
		assert_refused(b, reason); \
	} while (0)

START_TEST(a_head_that_breaks_a_rule_is_refused_with_the_reason)
{
	REFUSED(memset(b->wire.name, 'x', 128), "the model's name is not terminated within its 128 bytes");
	REFUSED(b->wire.name[100] = 1, "the model's name has bytes other than zero behind its end");
	REFUSED(memset(b->wire.revision, 'x', 64), "the model's revision is not terminated within its 64 bytes");
	REFUSED(b->wire.revision[63] = 'x', "the model's revision has bytes other than zero behind its end");
	REFUSED(b->wire.chunk_tokens = 0, "chunk_tokens is 0; a chunk has at least one token");
	REFUSED(b->wire.n_groups = 0, "0 groups; 1 to 8 are allowed");
	REFUSED(b->wire.n_groups = 9, "9 groups; 1 to 8 are allowed");
	REFUSED(b->wire.n_rows = 0, "0 rows; 1 to 8192 are allowed");
	REFUSED(b->wire.n_rows = 8193, "8193 rows; 1 to 8192 are allowed");
	REFUSED(b->wire.reserved = 7, "the reserved field of the description is 7; it must be 0");
}
END_TEST

START_TEST(a_length_that_is_not_what_the_counts_ask_for_is_refused)
{
	struct model_build *build = hybrid();
	struct model_layout *layout = NULL;
	char why[WHY];
	size_t bytes;
	uint8_t *description = model_build_bytes(build, &bytes);

	ck_assert_uint_eq(bytes, 272 + 3 * 16 + 11 * 12);
	for (size_t n = 0; n < bytes; n++) {
		uint8_t *cut = malloc(n + (n == 0));	/* AddressSanitizer sees what is read behind it */

		memcpy(cut, description, n);
		ck_assert_int_eq(model_layout_make(cut, n, why, &layout), -EBADMSG);
		free(cut);
	}
	ck_assert_str_eq(why, "the description has 451 bytes; 3 groups and 11 rows make it 452");
	ck_assert_int_eq(model_layout_make(description, 100, why, &layout), -EBADMSG);
	ck_assert_str_eq(why, "the description has 100 bytes; it has at least 272");
	description = realloc(description, bytes + 12);
	ck_assert_int_eq(model_layout_make(description, bytes + 12, why, &layout), -EBADMSG);
	ck_assert_str_eq(why, "the description has 464 bytes; 3 groups and 11 rows make it 452");
	memset(description + offsetof(struct model_wire, n_groups), 0xff, 8);	/* counts whose sizes would wrap */
	ck_assert_int_eq(model_layout_make(description, bytes, why, &layout), -EBADMSG);
	ck_assert_str_eq(why, "4294967295 groups; 1 to 8 are allowed");
	free(description);
	free(build);
}
END_TEST

START_TEST(a_group_that_breaks_a_rule_is_refused_with_the_reason)
{
	REFUSED(b->groups[0].kind = 3, "group 0 is of kind 3, which is unknown");
	REFUSED(b->groups[0].window = 2, "group 0 is full and has a window of 2; it must be 0");
	REFUSED(b->groups[1].window = 0, "group 1 is a window of 0 chunks; it must have at least 1");
	REFUSED(b->groups[2].window = 0, "group 2 is state and has a window of 0; it must be 1");
	REFUSED(b->groups[2].window = 2, "group 2 is state and has a window of 2; it must be 1");
	REFUSED(b->groups[0].block_tokens = 0, "group 0 has blocks of 0 tokens; they have at least one");
	REFUSED(b->groups[2].block_tokens = 0, "group 2 has blocks of 0 tokens; they have at least one");
	REFUSED(b->groups[1].block_tokens = 48, "group 1 has blocks of 48 tokens, which do not divide a chunk of 256");
	REFUSED(b->groups[1].block_tokens = 512, "group 1 has blocks of 512 tokens, which do not divide a chunk of 256");
	REFUSED(b->groups[0].blocks = 0, "group 0 has 0 blocks an object; it must have at least 1");
	REFUSED(b->groups[2].blocks = 0, "group 2 has 0 blocks an object; it must have at least 1");
	REFUSED(b->groups[0].blocks = 17, "group 0 has 17 blocks an object; a chunk of 256 tokens has 16 of 16");
	REFUSED(b->groups[1].blocks = UINT32_MAX,
		"group 1 has 4294967295 blocks an object; a chunk of 256 tokens has 8 of 32");
	REFUSED(b->groups[0].blocks = 15, "group 0 keeps 15 of the 16 blocks of a chunk, but all of its tokens are needed: "
		"only a window of 1 chunk, or a state, may keep fewer");
	REFUSED(b->groups[1].window = 2, "group 1 keeps 2 of the 8 blocks of a chunk, but all of its tokens are needed: "
		"only a window of 1 chunk, or a state, may keep fewer");
	REFUSED(model_build_group(b, MODEL_GROUP_FULL, 0, 16, 16), "group 3 has no row");
}
END_TEST

START_TEST(a_row_that_breaks_a_rule_is_refused_with_the_reason)
{
	REFUSED(b->rows[10].group = 3, "row 10 is of group 3; there are 3");
	REFUSED(b->rows[10].shard = 256, "row 10 is of shard 256; 0 to 255 are allowed");
	REFUSED(b->rows[0].bytes = 0, "row 0 has 0 bytes; leave out what has none");
	REFUSED(b->rows[9] = b->rows[8], "row 9 is not above row 8; rows ascend strictly by group, shard, layer, plane");
	REFUSED(b->rows[1].plane = 0, "row 1 is not above row 0; rows ascend strictly by group, shard, layer, plane");
	REFUSED(b->rows[9].layer = 2, "row 9 is not above row 8; rows ascend strictly by group, shard, layer, plane");
	REFUSED(b->rows[3].shard = 1, "row 4 is not above row 3; rows ascend strictly by group, shard, layer, plane");
	REFUSED(b->rows[8].group = 2, "row 9 is not above row 8; rows ascend strictly by group, shard, layer, plane");
}
END_TEST

START_TEST(more_parts_or_layers_than_are_allowed_are_refused)
{
	struct model_build *build = model_build_new("m", 16);

	model_build_group(build, MODEL_GROUP_FULL, 0, 16, 1);
	for (uint32_t shard = 0; shard <= STOKER_PARTS_MAX; shard++)
		model_build_row(build, 0, shard, 0, 0, 1);
	assert_refused(build, "row 64 begins part 65, a (group, shard); at most 64 are allowed");

	build = model_build_new("m", 16);
	model_build_group(build, MODEL_GROUP_FULL, 0, 16, 1);
	for (uint32_t layer = 0; layer <= MODEL_LAYERS_MAX; layer++)
		model_build_row(build, 0, 3, layer, 0, 1);
	assert_refused(build, "group 0, shard 3 has more than 1024 layers");
}
END_TEST

START_TEST(an_object_that_is_too_large_is_refused_however_its_sum_would_wrap)
{
	static const char *const reason =
		"an object of group 0, shard 0 is larger than 1073741824 bytes; use shorter chunks";
	static const struct { uint32_t blocks, bytes, rows; } objects[] = {
		{ 1, (1u << 30) + 1, 1 },
		{ 1u << 30, 2, 1 },
		{ 1u << 15, 1u << 15, 2 },
		{ 1u << 31, 1u << 31, 4 },		/* 4 x 2^62 */
		{ UINT32_MAX, UINT32_MAX, 1 },
		{ 1u << 31, UINT32_MAX, MODEL_ROWS_MAX },
	};

	for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		struct model_build *build = model_build_new("m", UINT32_MAX);

		model_build_group(build, MODEL_GROUP_STATE, 1, 1, objects[i].blocks);
		for (uint32_t row = 0; row < objects[i].rows; row++)
			model_build_row(build, 0, 0, 0, row, objects[i].bytes);
		assert_refused(build, reason);
	}
}
END_TEST

/* ---- digests ----------------------------------------------------------------------------- */

START_TEST(the_digest_is_sha_256_of_the_description_and_changes_with_every_bit)
{
	/* Of the bytes that hybrid() makes, by sha256sum. */
	static const char known[] = "1c4237b2eb7f16890144debc9532d442d1de99445dee075c584470d83f3b1af0";
	struct model_build *build = hybrid();
	struct model_layout *layout = layout_of(build);
	char hex[2 * MODEL_DIGEST_BYTES + 1];
	char why[WHY];
	size_t bytes, others = 0;
	uint8_t *description = model_build_bytes(build, &bytes);

	for (int i = 0; i < (int)MODEL_DIGEST_BYTES; i++)
		sprintf(hex + 2 * i, "%02x", layout->digest[i]);
	ck_assert_str_eq(hex, known);
	for (size_t i = 0; i < 8 * bytes; i++) {
		struct model_layout *other;

		description[i / 8] ^= (uint8_t)(1 << i % 8);
		if (model_layout_make(description, bytes, why, &other) == 0) {
			others++;
			expect(memcmp(other->digest, layout->digest, MODEL_DIGEST_BYTES) != 0);
			model_layout_free(other);
		}
		description[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	ck_assert_uint_gt(others, 64 * 8);	/* of the tag alone every bit is free */
	free(description);
	model_layout_free(layout);
	free(build);
}
END_TEST

START_TEST(each_field_of_a_description_goes_into_its_digest)
{
	struct model_layout *first;
	struct model_build *build = hybrid();

	first = layout_of(build);
	free(build);
#define CHANGES(change) \
	do { \
		struct model_build *b = hybrid(); \
		struct model_layout *layout; \
		change; \
		layout = layout_of(b); \
		ck_assert_mem_ne(layout->digest, first->digest, MODEL_DIGEST_BYTES); \
		model_layout_free(layout); \
		free(b); \
	} while (0)
	CHANGES(strcpy(b->wire.name, "hybrid-9c"));
	CHANGES(strcpy(b->wire.revision, "next"));
	CHANGES(b->wire.tag[63] = 1);
	CHANGES((b->wire.chunk_tokens = 512, b->groups[0].blocks = 32));
	CHANGES((b->groups[1].window = 5, b->groups[1].blocks = 8));
	CHANGES(b->groups[1].block_tokens = 64);
	CHANGES(b->groups[1].blocks = 3);
	CHANGES((b->groups[2].kind = MODEL_GROUP_WINDOW));
	CHANGES(b->rows[10].shard = 6);
	CHANGES(b->rows[10].layer = 10);
	CHANGES(b->rows[10].plane = 1);
	CHANGES(b->rows[10].bytes++);
	CHANGES(model_build_row(b, 2, 6, 0, 0, 1));
	model_layout_free(first);
}
END_TEST

START_TEST(two_tenants_never_share_a_model)
{
	/* By sha256sum, of 32 zero bytes and "alpha". */
	static const char known[] = "f3dc49b1a3581985d2eecd24b71ebd46a976110217c3719e5017498c0c76ab76";
	const uint8_t digest[MODEL_DIGEST_BYTES] = { 0 };
	uint8_t alpha[MODEL_DIGEST_BYTES], again[MODEL_DIGEST_BYTES], beta[MODEL_DIGEST_BYTES], none[MODEL_DIGEST_BYTES];
	char hex[2 * MODEL_DIGEST_BYTES + 1];

	model_digest_with_tenant(digest, "alpha", alpha);
	model_digest_with_tenant(digest, "alpha", again);
	model_digest_with_tenant(digest, "beta", beta);
	model_digest_with_tenant(digest, "", none);
	for (int i = 0; i < (int)MODEL_DIGEST_BYTES; i++)
		sprintf(hex + 2 * i, "%02x", alpha[i]);
	ck_assert_str_eq(hex, known);
	ck_assert_mem_eq(alpha, again, MODEL_DIGEST_BYTES);
	ck_assert_mem_ne(alpha, beta, MODEL_DIGEST_BYTES);
	ck_assert_mem_ne(alpha, none, MODEL_DIGEST_BYTES);
	ck_assert_mem_ne(none, digest, MODEL_DIGEST_BYTES);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("shm-model");
	TCase *valid = tcase_create("valid");
	TCase *refused = tcase_create("refused");
	TCase *digests = tcase_create("digests");

	tcase_add_test(valid, a_part_is_made_for_each_group_and_shard_that_has_bytes);
	tcase_add_test(valid, a_payload_is_layer_major_without_gaps);
	tcase_add_test(valid, a_part_is_found_by_its_group_and_shard_and_no_other_is);
	tcase_add_test(valid, the_greatest_description_is_taken);
	tcase_add_test(valid, a_state_may_have_blocks_as_it_likes_and_a_window_fewer_than_a_chunk_has);
	tcase_add_test(refused, a_head_that_breaks_a_rule_is_refused_with_the_reason);
	tcase_add_test(refused, a_length_that_is_not_what_the_counts_ask_for_is_refused);
	tcase_add_test(refused, a_group_that_breaks_a_rule_is_refused_with_the_reason);
	tcase_add_test(refused, a_row_that_breaks_a_rule_is_refused_with_the_reason);
	tcase_add_test(refused, more_parts_or_layers_than_are_allowed_are_refused);
	tcase_add_test(refused, an_object_that_is_too_large_is_refused_however_its_sum_would_wrap);
	tcase_add_test(digests, the_digest_is_sha_256_of_the_description_and_changes_with_every_bit);
	tcase_add_test(digests, each_field_of_a_description_goes_into_its_digest);
	tcase_add_test(digests, two_tenants_never_share_a_model);
	suite_add_tcase(s, valid);
	suite_add_tcase(s, refused);
	suite_add_tcase(s, digests);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
