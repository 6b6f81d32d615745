/* STORE and RETRIEVE cut into parts: what each part carries, and where its chunks' results go. */
#include "tests/client-rig.h"

static struct rig rig;

static void begin(void)
{
	rig_full(&rig, "parts", NULL, NULL);
}

static void end(void)
{
	rig_end(&rig);
}

/* What a broker says of chunk @chunk, told apart from its neighbours'. */
static uint8_t became_of(uint32_t chunk)
{
	return (uint8_t)(STOKER_CHUNK_STORED + chunk % 7);
}

/*
 * Answer every part as a broker does: bytes begin at the first key of a STORE, at the lowest chunk that a
 * segment of a RETRIEVE names, and end at the last. Returns how many parts; each has to name something.
 * @firsts: place of each part's first byte among the job's chunks.
 */
static uint32_t answer_parts(enum stoker_op op, uint32_t *firsts)
{
	static uint8_t became[STOKER_LARGE_KEYS];
	struct fake_request request;
	uint32_t parts = 0;

	while (fake_take(rig.fake, &request) > 0) {
		const struct stoker_segment *segments = (const void *)(request.input + request.head.n_keys * sizeof(struct stoker_key));
		uint32_t first = UINT32_MAX, last = 0;
		struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .chunks = became };

		ck_assert_uint_eq(request.head.op, op);
		ck_assert_uint_gt(request.head.n_segments, 0);
		for (uint32_t i = 0; i < request.head.n_segments; i++) {
			first = segments[i].first < first ? segments[i].first : first;
			last = segments[i].first + segments[i].chunks > last ? segments[i].first + segments[i].chunks : last;
		}
		if (op == STOKER_OP_STORE) {	/* keys say which of the job's chunks they are: see rig_keys() */
			uint32_t number;

			memcpy(&number, request.input, sizeof(number));
			first = number - 1;
			last = first + request.head.n_keys;
		}
		memset(became, STOKER_CHUNK_NONE, sizeof(became));
		for (uint32_t i = 0; op == STOKER_OP_STORE && i < request.head.n_segments; i++)
			for (uint32_t j = 0; j < segments[i].chunks; j++)
				became[segments[i].first + j] = became_of(first + segments[i].first + j);
		for (uint32_t i = 0; op == STOKER_OP_RETRIEVE && i < request.head.n_segments; i++)
			for (uint32_t j = 0; j < segments[i].chunks; j++)
				became[segments[i].first - first + j] = became_of(segments[i].first + j);
		answer.n_chunks = last - first;
		firsts[parts++] = first;
		fake_publish(rig.fake, request.head.slot, request.head.generation, &answer);
	}
	return parts;
}

enum { FAR = 9010, N_RUNS = 3 };
static const uint32_t named[N_RUNS] = { 0, 5000, 9000 };	/* ten chunks each */

static void blocks_apart(struct stoker_blocks blocks[N_RUNS], const uint32_t *ids)
{
	for (uint32_t i = 0; i < N_RUNS; i++)
		blocks[i] = (struct stoker_blocks){ .pool = rig.pool, .first = named[i], .chunks = 10, .ids = ids };
}

static void results_are_of_their_chunks(struct stoker_job job)
{
	uint8_t chunks[FAR];
	uint32_t i = 0;

	memset(chunks, 0xee, sizeof(chunks));
	ck_assert_int_eq(stoker_finish(rig.c, job, NULL, NULL, 0, chunks, FAR), 0);
	for (uint32_t chunk = 0; chunk < FAR; chunk++) {
		while (i < N_RUNS && chunk >= named[i] + 10)
			i++;
		ck_assert_uint_eq(chunks[chunk], i < N_RUNS && chunk >= named[i] ? became_of(chunk) : STOKER_CHUNK_NONE);
	}
}

START_TEST(a_retrieve_in_parts_may_leave_chunks_out)
{
	const struct stoker_lease lease = { { 1, 2 } };
	const uint32_t ids[10 * RIG_BLOCKS] = { 0 };
	struct stoker_blocks blocks[N_RUNS];
	uint32_t firsts[8];
	struct stoker_job job;

	blocks_apart(blocks, ids);
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, blocks, N_RUNS, NULL, &job), 0);
	ck_assert_uint_eq(answer_parts(STOKER_OP_RETRIEVE, firsts), 2);
	ck_assert_uint_eq(firsts[0], 0);
	ck_assert_uint_eq(firsts[1], 5000);
	results_are_of_their_chunks(job);
}
END_TEST

START_TEST(a_store_in_parts_leaves_out_keys_without_blocks)
{
	const uint32_t ids[10 * RIG_BLOCKS] = { 0 };
	struct stoker_key *keys = calloc(FAR, sizeof(*keys));
	struct stoker_blocks blocks[N_RUNS];
	uint32_t firsts[8];
	struct stoker_job job;

	rig_keys(keys, FAR, 1);
	blocks_apart(blocks, ids);
	ck_assert_int_eq(stoker_store(rig.c, rig.model, keys, FAR, blocks, N_RUNS, NULL, &job), 0);
	ck_assert_uint_eq(answer_parts(STOKER_OP_STORE, firsts), 2);
	ck_assert_uint_eq(firsts[1], 5000);
	results_are_of_their_chunks(job);
	free(keys);
}
END_TEST

/* As a scheduler that is a worker too: the pool's model is another opening of the same. */
START_TEST(a_model_by_digest_alone_stores_in_parts)
{
	struct stoker_key *keys = calloc(FAR, sizeof(*keys));
	uint32_t *ids = calloc(FAR * RIG_BLOCKS, sizeof(*ids)), firsts[8], parts = 0;
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = FAR, .ids = ids };
	struct stoker_model *same;
	struct fake_request request;
	struct stoker_job job;
	uint8_t digest[32];

	rig_keys(keys, FAR, 1);
	stoker_model_digest(rig.model, digest);
	ck_assert_int_eq(stoker_model_open_digest(rig.c, digest, &same), 0);
	ck_assert_int_eq(stoker_store(rig.c, same, keys, FAR, &blocks, 1, NULL, &job), 0);
	while (fake_take(rig.fake, &request) > 0) {
		firsts[parts++] = (uint32_t)request.line.store.first_token;
		rig_done(&rig, &request, STOKER_STATUS_OK);
	}
	ck_assert_uint_eq(parts, 3);
	ck_assert_uint_eq(firsts[2], 2 * STOKER_LARGE_KEYS * 64);
	rig_finish(&rig, job);
	free(keys);
	free(ids);
}
END_TEST

START_TEST(chunks_whose_numbers_would_wrap_are_refused)
{
	const struct stoker_lease lease = { { 1, 2 } };
	const uint32_t ids[10 * RIG_BLOCKS] = { 0 };
	struct stoker_blocks blocks[2] = { { .pool = rig.pool, .chunks = 10, .ids = ids },
					   { .pool = rig.pool, .first = UINT32_MAX, .chunks = 2, .ids = ids } };
	struct stoker_key keys[10];
	struct stoker_job job;

	rig_keys(keys, 10, 1);
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, blocks, 2, NULL, &job), -EINVAL);
	ck_assert_int_eq(stoker_store(rig.c, rig.model, keys, 10, blocks, 2, NULL, &job), -EINVAL);
	blocks[1].first = UINT32_MAX / 2 + 1;
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, blocks, 2, NULL, &job), -EINVAL);
}
END_TEST

enum { MANY = 10000 };		/* chunks: three parts */

static void many(struct stoker_key **keys, uint32_t **ids)
{
	*keys = calloc(MANY, sizeof(**keys));
	*ids = calloc(MANY * RIG_BLOCKS, sizeof(**ids));
	rig_keys(*keys, MANY, 1);
	for (uint32_t i = 0; i < MANY * RIG_BLOCKS; i++)
		(*ids)[i] = i % 1024;
}

START_TEST(a_store_beyond_one_payload_is_cut_between_chunks_and_is_one_job)
{
	struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .counts = { 1, 2, 3 } };
	struct stoker_result result = { .size = sizeof(result) };
	uint8_t *chunks = malloc(MANY), *became = malloc(MANY);
	struct stoker_key *keys;
	struct stoker_job job, done[4];
	uint32_t *ids, at = 0, parts = 0;

	many(&keys, &ids);
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = MANY, .ids = ids };
	const struct stoker_store_options options = { .size = sizeof(options), .first_token = 1000 };

	ck_assert_int_eq(stoker_store(rig.c, rig.model, keys, MANY, &blocks, 1, &options, &job), 0);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_NONE);
	for (struct fake_request request; fake_take(rig.fake, &request) > 0; parts++) {
		const uint32_t n = request.head.n_keys;
		const struct stoker_segment *segment = (const void *)(request.input + n * sizeof(*keys));

		ck_assert_mem_eq(request.input, keys + at, n * sizeof(*keys));
		ck_assert_uint_eq(segment->first, 0);
		ck_assert_uint_eq(segment->chunks, n);
		ck_assert_mem_eq(segment + 1, ids + at * RIG_BLOCKS, n * RIG_BLOCKS * sizeof(*ids));
		ck_assert_uint_eq(request.line.store.first_token, 1000 + (uint64_t)at * 64);
		if (at > 0)
			ck_assert_mem_eq(&request.line.store.parent, &keys[at - 1], sizeof(*keys));
		ck_assert_uint_eq(stoker_done(rig.c, done, 4), 0);
		memset(became, (int)(STOKER_CHUNK_STORED + parts), n);
		answer.n = n;
		answer.chunks = became;
		answer.n_chunks = n;
		answer.status = parts == 1 ? STOKER_STATUS_NO_MEMORY : STOKER_STATUS_OK;
		fake_publish(rig.fake, request.head.slot, request.head.generation, &answer);
		at += n;
	}
	ck_assert_uint_eq(at, MANY);
	ck_assert_uint_eq(parts, 3);
	ck_assert_uint_eq(stoker_done(rig.c, done, 4), 1);
	ck_assert_uint_eq(done[0].slot, job.slot);
	ck_assert_int_eq(stoker_finish(rig.c, job, &result, NULL, 0, chunks, MANY), 0);
	ck_assert_uint_eq(result.n, MANY);
	ck_assert_uint_eq(result.status, STOKER_STATUS_NO_MEMORY);
	ck_assert_uint_eq(result.counts[2], 9);
	for (uint32_t i = 0; i < MANY; i++)
		ck_assert_uint_eq(chunks[i], STOKER_CHUNK_STORED + i / 4096);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_NONE);
	free(chunks);
	free(became);
	free(keys);
	free(ids);
}
END_TEST

START_TEST(a_retrieve_in_parts_ends_its_share_when_all_parts_are_done)
{
	const struct stoker_lease lease = { { 41, 42 } };
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_END_SHARE,
							 .reader = 5 };
	uint32_t runs[4] = { 7, MANY * RIG_BLOCKS - 10, STOKER_NO_BLOCK, 10 }, first = 100, ids = 0;
	const struct stoker_blocks blocks = { .pool = rig.pool, .first = 100, .chunks = MANY, .ids = runs, .runs = 2 };
	struct fake_request request;
	struct stoker_job job;

	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, &options, &job), 0);
	while (fake_take(rig.fake, &request) > 0) {
		const struct stoker_segment *segment = (const void *)request.input;
		const uint32_t *pairs = (const uint32_t *)(segment + 1);

		ck_assert_uint_eq(request.head.flags, 0);
		ck_assert_uint_eq(segment->first, first);
		ck_assert_uint_eq(pairs[0], 7 + ids);
		for (uint32_t i = 0; i < segment->n_ids / 2; i++)
			ids += pairs[2 * i + 1];
		first += segment->chunks;
		if (first == 100 + MANY)
			ck_assert_uint_eq(pairs[2], STOKER_NO_BLOCK);
		rig_done(&rig, &request, STOKER_STATUS_OK);
	}
	ck_assert_uint_eq(ids, MANY * RIG_BLOCKS);
	rig_finish(&rig, job);
	request = rig_take(&rig, STOKER_OP_RELEASE);
	ck_assert_uint_eq(request.head.lease[0], 41);
	ck_assert_uint_eq(request.line.release.reader, 5);
}
END_TEST

START_TEST(a_job_that_all_large_slots_together_do_not_hold_is_too_big)
{
	const uint32_t n = 5 * 4096;
	uint32_t *ids = calloc(n * RIG_BLOCKS, sizeof(*ids));
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = n, .ids = ids };
	const struct stoker_blocks half = { .pool = rig.pool, .chunks = 3 * 4096, .ids = ids };
	const struct stoker_lease lease = { { 1, 1 } };
	struct stoker_job job, second;

	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, NULL, &job), -E2BIG);
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &half, 1, NULL, &job), 0);
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &half, 1, NULL, &second), -EAGAIN);
	free(ids);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-parts");
	TCase *tests = tcase_create("parts");

	tcase_add_checked_fixture(tests, begin, end);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_retrieve_in_parts_may_leave_chunks_out);
	tcase_add_test(tests, a_store_in_parts_leaves_out_keys_without_blocks);
	tcase_add_test(tests, a_model_by_digest_alone_stores_in_parts);
	tcase_add_test(tests, chunks_whose_numbers_would_wrap_are_refused);
	tcase_add_test(tests, a_store_beyond_one_payload_is_cut_between_chunks_and_is_one_job);
	tcase_add_test(tests, a_retrieve_in_parts_ends_its_share_when_all_parts_are_done);
	tcase_add_test(tests, a_job_that_all_large_slots_together_do_not_hold_is_too_big);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
