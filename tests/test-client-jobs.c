/* Jobs: what a submit puts into ring and slot, what polling and finishing make of the broker's words. */
#include <poll.h>
#include <pthread.h>

#include "tests/client-rig.h"

static struct rig rig;

static void begin(void)
{
	rig_full(&rig, "jobs", NULL, NULL);
}

static void end(void)
{
	rig_end(&rig);
}

START_TEST(a_ping_goes_from_none_to_done_and_its_slot_comes_back)
{
	struct stoker_job job, next;
	struct fake_request request;

	ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_NONE);
	ck_assert_int_eq(stoker_finish(rig.c, job, NULL, NULL, 0, NULL, 0), -EAGAIN);
	request = rig_take(&rig, STOKER_OP_PING);
	ck_assert_uint_eq(request.head.slot, job.slot);
	ck_assert_uint_eq(request.head.generation, job.generation);
	rig_done(&rig, &request, STOKER_STATUS_OK);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_DONE);
	ck_assert_uint_eq(rig_finish(&rig, job).status, STOKER_STATUS_OK);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_NONE);
	ck_assert_int_eq(stoker_finish(rig.c, job, NULL, NULL, 0, NULL, 0), -ENOENT);
	ck_assert_int_eq(stoker_ping(rig.c, &next), 0);
	ck_assert_uint_eq(next.slot, job.slot);
	ck_assert_uint_ne(next.generation, job.generation);
}
END_TEST

START_TEST(a_lookup_carries_its_arguments_and_brings_its_answer)
{
	const struct stoker_lookup_options options = {
		.size = sizeof(options), .flags = STOKER_LOOKUP_NO_PARTIAL | STOKER_LOOKUP_ANY, .have = 3, .groups = 1,
		.tiers = 5, .priority = 2, .readers = 6, .deadline_ms = 7, .lease_ms = 8, .session = 9, .account = 10,
		.extend = { { 11, 12 } },
	};
	struct fake_answer answer = { .stage = STOKER_STAGE_PROBED, .found = 5, .found_l1 = 4, .expected_us = 100, .ready = 4 };
	const uint64_t bits = 0x1f;
	struct stoker_progress progress = { .size = sizeof(progress) };
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_key keys[10];
	struct fake_request request;
	struct stoker_job job;
	uint64_t bitmap[2] = { 99, 99 };

	rig_keys(keys, 10, 1);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, 10, &options, &job), 0);
	request = rig_take(&rig, STOKER_OP_LOOKUP);
	ck_assert_uint_eq(request.head.flags, STOKER_F_PREFETCH | STOKER_F_ANY | STOKER_F_RENEW);
	ck_assert_uint_eq(request.head.n_keys, 10);
	ck_assert_uint_eq(request.head.priority, 2);
	ck_assert_uint_eq(request.head.deadline_us, 7000);
	ck_assert_uint_eq(request.head.session, 9);
	ck_assert_uint_eq(request.head.lease[1], 12);
	ck_assert_uint_eq(request.line.lookup.have, 3);
	ck_assert_uint_eq(request.line.lookup.groups, 1);
	ck_assert_uint_eq(request.line.lookup.tiers, 5);
	ck_assert_uint_eq(request.line.lookup.readers, 6);
	ck_assert_uint_eq(request.line.lookup.lease_ms, 8);
	ck_assert_uint_eq(request.line.lookup.account, 10);
	ck_assert_mem_eq(request.input, keys, sizeof(keys));

	fake_publish(rig.fake, job.slot, job.generation, &answer);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_PROBED);
	ck_assert_int_eq(stoker_progress(rig.c, job, &progress), 0);
	ck_assert_uint_eq(progress.found, 5);
	ck_assert_uint_eq(progress.found_l1, 4);
	ck_assert_uint_eq(progress.expected_us, 100);

	answer = (struct fake_answer){ .stage = STOKER_STAGE_DONE, .n = 5, .counts = { 4, 1, 0 }, .lease_ms = 1000,
				       .lease = { 21, 22 }, .output = &bits, .output_bytes = sizeof(bits) };
	fake_publish(rig.fake, job.slot, job.generation, &answer);
	ck_assert_int_eq(stoker_finish(rig.c, job, &result, bitmap, 2, NULL, 0), 0);
	ck_assert_uint_eq(result.n, 5);
	ck_assert_uint_eq(result.counts[1], 1);
	ck_assert_uint_eq(result.lease_ms, 1000);
	ck_assert_uint_eq(result.lease.token[0], 21);
	ck_assert_uint_eq(bitmap[0], 0x1f);
	ck_assert_uint_eq(bitmap[1], 0);
}
END_TEST

START_TEST(options_without_a_size_are_refused_with_a_text_of_their_own)
{
	struct stoker_lookup_options lookup = { .size = 0 };
	const struct stoker_store_options store = { .size = 0 };
	const struct stoker_retrieve_options retrieve = { .size = 0 };
	struct { struct stoker_lookup_options options; uint32_t later; } newer = { .options.size = sizeof(newer), .later = 1 };
	struct stoker_progress progress = { .size = 0 };
	const uint32_t block = 0;
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = 1, .ids = &block };
	const struct stoker_lease lease = { { 1, 2 } };
	struct stoker_key key;
	struct stoker_job job;

	rig_keys(&key, 1, 1);
	/* Each comes after a failure with another text, which must not stay. */
	ck_assert_int_eq(stoker_end_session(rig.c, 0), -EINVAL);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, &key, 1, &lookup, &job), -EINVAL);
	expect(strstr(stoker_error(rig.c), "size of the options"));
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, &key, 1, &newer.options, &job), -E2BIG);
	expect(strstr(stoker_error(rig.c), "this library does not know"));
	ck_assert_int_eq(stoker_store(rig.c, rig.model, &key, 1, &blocks, 1, &store, &job), -EINVAL);
	expect(strstr(stoker_error(rig.c), "size of the options"));
	ck_assert_int_eq(stoker_end_session(rig.c, 0), -EINVAL);
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, &retrieve, &job), -EINVAL);
	expect(strstr(stoker_error(rig.c), "size of the options"));
	lookup.size = sizeof(lookup);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, &key, 1, &lookup, &job), 0);
	ck_assert_int_eq(stoker_progress(rig.c, job, &progress), -EINVAL);
	expect(strstr(stoker_error(rig.c), "progress: "));
}
END_TEST

START_TEST(a_chained_lookup_is_a_head_and_pieces_in_order)
{
	enum { N = 2 * 4096 + 100 };
	struct stoker_key *keys = calloc(N, sizeof(*keys));
	uint64_t *bitmap = calloc(N / 64 + 1, sizeof(*bitmap));
	uint64_t bits[64] = { 1 };		/* the first length that the head's bitmap covers */
	struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .output = bits, .output_bytes = sizeof(bits) };
	struct fake_request head, piece;
	struct stoker_job job, other;

	bits[63] = 1ull << 63;			/* the last */
	rig_keys(keys, N, 1);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, N, NULL, &job), 0);
	head = rig_take(&rig, STOKER_OP_LOOKUP);
	ck_assert_uint_eq(head.line.lookup.pieces, 2);
	ck_assert_uint_eq(head.head.n_keys, 4096);
	for (uint32_t i = 1; i <= 2; i++) {
		piece = rig_take(&rig, STOKER_OP_LOOKUP_MORE);
		ck_assert_uint_eq(piece.line.more.head_slot, head.head.slot);
		ck_assert_uint_eq(piece.line.more.head_generation, head.head.generation);
		ck_assert_uint_eq(piece.line.more.piece, i);
		ck_assert_uint_eq(piece.head.n_keys, i == 1 ? 4096 : 100);
		ck_assert_mem_eq(piece.input, keys + i * 4096, piece.head.n_keys * sizeof(*keys));
		rig_done(&rig, &piece, STOKER_STATUS_OK);
	}
	/* Pieces are forgotten by themselves: beside the fourth large slot their two are there again. */
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, N, NULL, &other), 0);
	ck_assert_uint_eq(rig_take(&rig, STOKER_OP_LOOKUP).line.lookup.pieces, 2);
	free(keys);
	fake_publish(rig.fake, job.slot, job.generation, &answer);
	ck_assert_int_eq(stoker_finish(rig.c, job, NULL, bitmap, N / 64 + 1, NULL, 0), 0);
	/* The bitmap has the last 4,096 lengths: bit 0 is length N - 4095, the last one N. */
	for (uint32_t i = 0; i < N; i++)
		ck_assert_int_eq(bitmap[i / 64] >> i % 64 & 1, i == N - 4096 || i == N - 1);
	free(bitmap);
}
END_TEST

START_TEST(more_keys_than_all_large_slots_hold_are_refused)
{
	const uint32_t n = stoker_keys_max(rig.c) + 1;
	struct stoker_key *keys = calloc(n, sizeof(*keys));
	struct stoker_job job, second;

	ck_assert_uint_eq(n, 4 * 4096 + 1);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, n, NULL, &job), -EINVAL);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, 0, NULL, &job), -EINVAL);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, n - 1, NULL, &job), 0);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, 65, NULL, &second), -EAGAIN);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, 64, NULL, &second), 0);
	free(keys);
}
END_TEST

START_TEST(when_every_slot_is_in_use_a_submit_says_so_and_a_release_still_goes_through)
{
	const struct stoker_lease lease = { { 1, 2 } };
	struct stoker_job jobs[256];
	struct fake_request request;
	uint32_t n = 0, releases = 0;

	while (stoker_ping(rig.c, &jobs[n]) == 0)
		n++;
	ck_assert_uint_eq(n, 64 + 4);
	ck_assert_int_eq(stoker_ping(rig.c, &jobs[n]), -EAGAIN);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(stoker_release(rig.c, &lease, 3), 0);
	ck_assert_int_eq(stoker_release(rig.c, &lease, 3), -EAGAIN);
	while (fake_take(rig.fake, &request) > 0) {
		releases += request.head.op == STOKER_OP_RELEASE && request.line.release.reader == 3 &&
			    request.head.lease[1] == 2;
		rig_done(&rig, &request, STOKER_STATUS_OK);
	}
	ck_assert_uint_eq(releases, 8);
	ck_assert_int_eq(stoker_release(rig.c, &lease, 3), 0);
	ck_assert_int_eq(stoker_end_session(rig.c, 77), 0);
	ck_assert_uint_eq(rig_take(&rig, STOKER_OP_RELEASE).head.n_keys, 0);
	ck_assert_uint_eq(rig_take(&rig, STOKER_OP_END_SESSION).head.session, 77);
	for (uint32_t i = 0; i < n; i++)
		rig_finish(&rig, jobs[i]);
}
END_TEST

START_TEST(a_store_carries_keys_tokens_segments_and_ids)
{
	const uint32_t ids[3 * RIG_BLOCKS] = { 10, 11, 12, 13, 20, 21, 22, 23, 30, 31, STOKER_NO_BLOCK, 33 };
	const uint32_t tokens[3] = { 64, 64, 40 };
	const uint8_t became[3] = { STOKER_CHUNK_STORED, STOKER_CHUNK_PRESENT, STOKER_CHUNK_INCOMPLETE };
	const struct stoker_blocks blocks = { .pool = rig.pool, .first = 0, .chunks = 3, .ids = ids };
	struct stoker_key keys[4];
	const struct stoker_store_options options = {
		.size = sizeof(options), .flags = STOKER_STORE_WAIT | STOKER_STORE_READY, .parent = &keys[3],
		.tokens = tokens, .first_token = 640, .account = 5, .ready_index = 6, .ready_value = 7,
	};
	struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .n = 1, .counts = { 1, 0, 1 }, .chunks = became,
				      .n_chunks = 3 };
	uint8_t chunks[4] = { 99, 99, 99, 99 };
	const struct stoker_segment *segment;
	struct fake_request request;
	struct stoker_job job;

	rig_keys(keys, 4, 1);
	ck_assert_int_eq(stoker_store(rig.c, rig.model, keys, 3, &blocks, 1, &options, &job), 0);
	request = rig_take(&rig, STOKER_OP_STORE);
	ck_assert_uint_eq(request.head.flags, STOKER_F_WAIT | STOKER_F_READY);
	ck_assert_uint_eq(request.head.n_keys, 3);
	ck_assert_uint_eq(request.head.n_segments, 1);
	ck_assert_uint_eq(request.head.n_ids, 12);
	ck_assert_mem_eq(&request.line.store.parent, &keys[3], sizeof(keys[3]));
	ck_assert_uint_eq(request.line.store.first_token, 640);
	ck_assert_uint_eq(request.line.store.ready_index, 6);
	ck_assert_uint_eq(request.line.store.ready_value, 7);
	ck_assert_uint_eq(request.line.store.flags, STOKER_STORE_TOKENS);
	ck_assert_mem_eq(request.input, keys, 3 * sizeof(keys[0]));
	ck_assert_mem_eq(request.input + 96, tokens, sizeof(tokens));
	segment = (const struct stoker_segment *)(request.input + 96 + 16);
	ck_assert_uint_eq(segment->first, 0);
	ck_assert_uint_eq(segment->chunks, 3);
	ck_assert_uint_eq(segment->n_ids, 12);
	ck_assert_mem_eq(segment + 1, ids, sizeof(ids));
	fake_publish(rig.fake, job.slot, job.generation, &answer);
	ck_assert_int_eq(stoker_finish(rig.c, job, NULL, NULL, 0, chunks, 4), 0);
	ck_assert_mem_eq(chunks, became, 3);
	ck_assert_uint_eq(chunks[3], STOKER_CHUNK_NONE);
}
END_TEST

START_TEST(a_retrieve_carries_lease_reader_layers_and_runs)
{
	const uint32_t runs[4] = { 100, 5, 200, 3 };
	const struct stoker_blocks blocks = { .pool = rig.pool, .first = 7, .chunks = 2, .ids = runs, .runs = 2 };
	const struct stoker_lease lease = { { 31, 32 } };
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_END_SHARE,
							 .reader = 4, .layer_first = 1, .layer_count = 1 };
	struct fake_answer answer = { .stage = STOKER_STAGE_ENDING, .status = STOKER_STATUS_CANCELLED };
	struct stoker_progress progress = { .size = sizeof(progress) };
	const struct stoker_segment *segment;
	struct fake_request request;
	struct stoker_job job;

	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, &options, &job), 0);
	request = rig_take(&rig, STOKER_OP_RETRIEVE);
	ck_assert_uint_eq(request.head.flags, STOKER_F_END_SHARE);
	ck_assert_uint_eq(request.head.lease[0], 31);
	ck_assert_uint_eq(request.line.retrieve.reader, 4);
	ck_assert_uint_eq(request.line.retrieve.layer_first, 1);
	segment = (const struct stoker_segment *)request.input;
	ck_assert_uint_eq(segment->flags, STOKER_SEGMENT_RUNS);
	ck_assert_uint_eq(segment->first, 7);
	ck_assert_uint_eq(segment->n_ids, 4);
	ck_assert_mem_eq(segment + 1, runs, sizeof(runs));
	fake_publish(rig.fake, job.slot, job.generation, &answer);
	ck_assert_int_eq(stoker_progress(rig.c, job, &progress), 0);
	ck_assert_uint_eq(progress.stage, STOKER_STAGE_ENDING);
	ck_assert_uint_eq(progress.status, STOKER_STATUS_CANCELLED);
	ck_assert_int_eq(stoker_finish(rig.c, job, NULL, NULL, 0, NULL, 0), -EAGAIN);
	rig_done(&rig, &request, STOKER_STATUS_CANCELLED);
	ck_assert_uint_eq(rig_finish(&rig, job).status, STOKER_STATUS_CANCELLED);
}
END_TEST

START_TEST(blocks_that_make_no_sense_are_refused_with_a_reason)
{
	const uint32_t runs[2] = { 0, 3 };
	const struct stoker_lease lease = { { 1, 1 } };
	struct stoker_blocks blocks = { .pool = rig.pool, .chunks = 1, .ids = runs, .runs = 1 };
	struct stoker_key key = { { 1 } };
	struct stoker_job job;

	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, NULL, &job), -EINVAL);
	expect(strstr(stoker_error(rig.c), "add up to 3 blocks, not 4"));
	blocks.runs = 0;
	blocks.first = 1;
	ck_assert_int_eq(stoker_store(rig.c, rig.model, &key, 1, &blocks, 1, NULL, &job), -EINVAL);
	expect(strstr(stoker_error(rig.c), "there are 1 keys"));
	blocks.pool = NULL;
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, NULL, &job), -EINVAL);
	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, NULL, 0, NULL, &job), -EINVAL);
}
END_TEST

/* ---- which are done ------------------------------------------------------------------------------- */

START_TEST(a_lapped_client_finds_every_job_that_is_over)
{
	struct stoker_job jobs[20], done[32];
	struct fake_request request;

	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(stoker_ping(rig.c, &jobs[i]), 0);
	for (int i = 0; i < 20; i++) {
		request = rig_take(&rig, STOKER_OP_PING);
		if (i % 2 == 0)
			rig_done(&rig, &request, STOKER_STATUS_OK);
	}
	for (int i = 0; i < 5000; i++)		/* laps of hints about a slot that says nothing */
		fake_hint(rig.fake, jobs[19].slot);
	ck_assert_uint_eq(stoker_done(rig.c, done, 32), 10);
	for (int i = 0; i < 10; i++)
		rig_finish(&rig, done[i]);
	ck_assert_uint_eq(stoker_done(rig.c, done, 32), 0);
}
END_TEST

START_TEST(finished_jobs_are_taken_in_batches_as_often_as_asked)
{
	struct stoker_job jobs[6], done[6];

	for (int i = 0; i < 6; i++)
		stoker_ping(rig.c, &jobs[i]);
	for (int i = 0; i < 6; i++) {
		const struct fake_request request = rig_take(&rig, STOKER_OP_PING);

		rig_done(&rig, &request, STOKER_STATUS_OK);
	}
	ck_assert_uint_eq(stoker_done(rig.c, done, 4), 4);
	ck_assert_uint_eq(stoker_done(rig.c, done, 6), 6);
	rig_finish(&rig, done[2]);
	ck_assert_uint_eq(stoker_done(rig.c, done, 6), 5);
}
END_TEST

/* ---- cancelling ----------------------------------------------------------------------------------- */

START_TEST(the_fullest_schedule_of_cancels_never_overruns_the_ring)
{
	/* Submit, DONE, cancel too late?, submit, cancel: the broker takes nothing but what it must. */
	struct fake_request request;
	struct stoker_job job;

	for (int round = 0; round < 1000; round++) {
		ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
		ck_assert_int_eq(stoker_cancel(rig.c, job), 0);
		ck_assert_int_eq(stoker_cancel(rig.c, job), 0);		/* once is enough: no second entry */
		request = rig_take(&rig, STOKER_OP_PING);
		ck_assert_uint_eq(fake_cancel_word(rig.fake, job.slot), job.generation);
		rig_done(&rig, &request, STOKER_STATUS_CANCELLED);	/* its cancel is stale in the ring now */
		rig_finish(&rig, job);
		ck_assert_int_eq(stoker_cancel(rig.c, job), -ENOENT);
		ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
		ck_assert_int_eq(stoker_cancel(rig.c, job), 0);
		rig_take(&rig, STOKER_OP_CANCEL);
		request = rig_take(&rig, STOKER_OP_PING);
		rig_take(&rig, STOKER_OP_CANCEL);
		rig_done(&rig, &request, STOKER_STATUS_CANCELLED);
		rig_finish(&rig, job);
	}
	ck_assert_int_eq(fake_take(rig.fake, &request), 0);
}
END_TEST

/* ---- waking --------------------------------------------------------------------------------------- */

START_TEST(the_doorbell_rings_only_while_the_broker_sleeps)
{
	struct stoker_job job;

	stoker_ping(rig.c, &job);
	ck_assert_uint_eq(fake_rings(rig.fake), 0);
	fake_need_wake(rig.fake, 1);
	stoker_ping(rig.c, &job);
	ck_assert_uint_eq(fake_rings(rig.fake), 1);
	fake_need_wake(rig.fake, 0);
	stoker_ping(rig.c, &job);
	ck_assert_uint_eq(fake_rings(rig.fake), 0);
}
END_TEST

START_TEST(a_wait_ends_at_its_time_and_the_job_goes_on)
{
	struct fake_request request;
	struct stoker_job job;

	ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
	ck_assert_int_eq(stoker_wait(rig.c, job, 0), -ETIMEDOUT);
	ck_assert_int_eq(stoker_wait(rig.c, job, 20000), -ETIMEDOUT);
	request = rig_take(&rig, STOKER_OP_PING);
	/* The client wants a wake still: one byte too many in the pipe wakes somebody for nothing, once. */
	rig_done(&rig, &request, STOKER_STATUS_OK);
	ck_assert_int_eq(stoker_wait(rig.c, job, UINT64_MAX), 0);
	rig_finish(&rig, job);
	ck_assert_int_eq(stoker_wait(rig.c, job, 0), -ENOENT);
}
END_TEST

static _Atomic uint32_t woken;

static void answer_late(struct fake *fake, const struct fake_request *request)
{
	const struct fake_answer answer = { .stage = STOKER_STAGE_DONE };

	usleep(3000);		/* long after the client has gone to sleep */
	woken += fake_publish(fake, request->head.slot, request->head.generation, &answer);
}

START_TEST(a_sleeping_client_is_woken)
{
	struct stoker_job job;

	fake_serve(rig.fake, answer_late);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
		ck_assert_int_eq(stoker_wait(rig.c, job, UINT64_MAX), 0);
		rig_finish(&rig, job);
	}
	fake_serve_end(rig.fake);
	ck_assert_uint_ge(woken, 1);
}
END_TEST

static void answer_at_once(struct fake *fake, const struct fake_request *request)
{
	const struct fake_answer answer = { .stage = STOKER_STAGE_DONE };

	fake_publish(fake, request->head.slot, request->head.generation, &answer);
}

START_TEST(no_wake_is_lost_between_arming_and_sleeping)
{
	struct pollfd set = { .fd = stoker_fd(rig.c), .events = POLLIN };
	struct stoker_job job, done[4];
	uint32_t n;

	fake_serve(rig.fake, answer_at_once);
	for (int i = 0; i < 500; i++) {
		ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
		while ((n = stoker_done(rig.c, done, 4)) == 0) {
			if (stoker_arm(rig.c) == 0)
				ck_assert_int_eq(poll(&set, 1, 10000), 1);
		}
		ck_assert_uint_eq(n, 1);
		rig_finish(&rig, done[0]);
	}
	fake_serve_end(rig.fake);
}
END_TEST

START_TEST(arming_says_when_a_job_is_over_already)
{
	struct fake_request request;
	struct stoker_job job;

	ck_assert_int_eq(stoker_arm(rig.c), 0);
	ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
	ck_assert_int_eq(stoker_arm(rig.c), 0);
	request = rig_take(&rig, STOKER_OP_PING);
	rig_done(&rig, &request, STOKER_STATUS_OK);
	ck_assert_int_eq(stoker_arm(rig.c), -EAGAIN);
	rig_finish(&rig, job);
	ck_assert_int_eq(stoker_arm(rig.c), 0);
}
END_TEST

/* ---- the rest ------------------------------------------------------------------------------------- */

START_TEST(ready_words_are_the_channels_own)
{
	uint32_t n = 0;
	volatile uint32_t *words = stoker_ready_words(rig.c, &n);

	ck_assert_uint_eq(n, 1024);
	ck_assert_uint_eq((uintptr_t)words % 4096, 0);
	stoker_ready_set(rig.c, 1023, 7);
	ck_assert_uint_eq(words[1023], 7);
	ck_assert_uint_eq(fake_ready_word(rig.fake, 1023), 7);
	stoker_ready_set(rig.c, 1024, 8);	/* beyond the array: nothing happens */
}
END_TEST

START_TEST(a_null_where_something_is_needed_is_an_answer)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_plane_bytes row = { .bytes = 256 };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 64, .name = "nulls", .groups = &group, .n_groups = 1, .n_rows = 1,
		.rows = &row,
	};
	const struct stoker_plane planes[2] = { { .region = rig.region, .layer = 0, .bytes = 256, .block_stride = 512 },
						{ .region = rig.region, .layer = 1, .bytes = 256, .block_stride = 512 } };
	const struct stoker_range range = { .fd = 0, .bytes = 4096 };
	uint8_t digest[32] = { 1 };
	struct stoker_model *model;
	struct stoker_region *region;
	struct fake_request request;
	struct stoker_job job;

	ck_assert_int_eq(stoker_model_open(rig.c, &description, NULL), -EINVAL);
	ck_assert_int_eq(stoker_model_open_digest(rig.c, NULL, &model), -EINVAL);
	ck_assert_int_eq(stoker_model_open_digest(rig.c, digest, NULL), -EINVAL);
	stoker_model_digest(NULL, digest);
	ck_assert_uint_eq(digest[0], 0);	/* of no model: zeros */
	stoker_model_digest(rig.model, NULL);
	ck_assert_int_eq(stoker_region_add(rig.c, NULL, 1, &region), -EINVAL);
	ck_assert_int_eq(stoker_region_add(rig.c, &range, 1, NULL), -EINVAL);
	ck_assert_int_eq(stoker_pool_add(rig.model, 0, 0, 2, NULL, 2, &rig.pool), -EINVAL);
	ck_assert_int_eq(stoker_pool_add(rig.model, 0, 0, 2, planes, 2, NULL), -EINVAL);
	ck_assert_int_eq(stoker_fd(NULL), -EINVAL);
	ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
	request = rig_take(&rig, STOKER_OP_PING);
	rig_done(&rig, &request, STOKER_STATUS_OK);
	ck_assert_uint_eq(stoker_done(rig.c, NULL, 2), 0);
}
END_TEST

START_TEST(an_object_of_more_than_a_gigabyte_is_too_big)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_plane_bytes row = { .bytes = 512u << 20 };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 64, .name = "thick", .groups = &group, .n_groups = 1, .n_rows = 1,
		.rows = &row,
	};
	struct stoker_model *model;

	ck_assert_int_eq(stoker_model_open(rig.c, &description, &model), -E2BIG);
	ck_assert_msg(strstr(stoker_error(rig.c), "use shorter chunks") != NULL, "%s", stoker_error(rig.c));
}
END_TEST

START_TEST(a_region_in_use_is_not_dropped_and_the_pool_goes_first)
{
	ck_assert_int_eq(stoker_region_drop(rig.region), -EBUSY);
	ck_assert_int_eq(stoker_pool_drop(rig.pool), 0);
	ck_assert_int_eq(stoker_region_drop(rig.region), 0);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_POOL_DROP), 1);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_DROP), 1);
	ck_assert_int_eq(stoker_reset(rig.c, rig.model, NULL, 1000), 0);
	stoker_model_close(rig.model);
}
END_TEST

START_TEST(a_pool_that_does_not_fit_its_model_says_which_plane)
{
	struct stoker_plane planes[2] = { { .region = rig.region, .layer = 0, .bytes = 256 },
					  { .region = rig.region, .layer = 2, .bytes = 256 } };
	struct stoker_pool *pool;

	ck_assert_int_eq(stoker_pool_add(rig.model, 0, 0, 16, planes, 2, &pool), -EINVAL);
	expect(strstr(stoker_error(rig.c), "lacks layer 1 plane 0"));
	planes[1].layer = 1;
	planes[1].bytes = 128;
	ck_assert_int_eq(stoker_pool_add(rig.model, 0, 0, 16, planes, 2, &pool), -EINVAL);
	expect(strstr(stoker_error(rig.c), "the model says 256 bytes"));
	ck_assert_int_eq(stoker_pool_add(rig.model, 0, 1, 16, planes, 2, &pool), -EINVAL);
	expect(strstr(stoker_error(rig.c), "no bytes for group 0 shard 1"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-jobs");
	TCase *tests = tcase_create("jobs");

	tcase_add_checked_fixture(tests, begin, end);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_ping_goes_from_none_to_done_and_its_slot_comes_back);
	tcase_add_test(tests, a_lookup_carries_its_arguments_and_brings_its_answer);
	tcase_add_test(tests, options_without_a_size_are_refused_with_a_text_of_their_own);
	tcase_add_test(tests, a_chained_lookup_is_a_head_and_pieces_in_order);
	tcase_add_test(tests, more_keys_than_all_large_slots_hold_are_refused);
	tcase_add_test(tests, when_every_slot_is_in_use_a_submit_says_so_and_a_release_still_goes_through);
	tcase_add_test(tests, a_store_carries_keys_tokens_segments_and_ids);
	tcase_add_test(tests, a_retrieve_carries_lease_reader_layers_and_runs);
	tcase_add_test(tests, blocks_that_make_no_sense_are_refused_with_a_reason);
	tcase_add_test(tests, a_lapped_client_finds_every_job_that_is_over);
	tcase_add_test(tests, finished_jobs_are_taken_in_batches_as_often_as_asked);
	tcase_add_test(tests, the_fullest_schedule_of_cancels_never_overruns_the_ring);
	tcase_add_test(tests, the_doorbell_rings_only_while_the_broker_sleeps);
	tcase_add_test(tests, a_wait_ends_at_its_time_and_the_job_goes_on);
	tcase_add_test(tests, a_sleeping_client_is_woken);
	tcase_add_test(tests, no_wake_is_lost_between_arming_and_sleeping);
	tcase_add_test(tests, arming_says_when_a_job_is_over_already);
	tcase_add_test(tests, ready_words_are_the_channels_own);
	tcase_add_test(tests, a_null_where_something_is_needed_is_an_answer);
	tcase_add_test(tests, an_object_of_more_than_a_gigabyte_is_too_big);
	tcase_add_test(tests, a_region_in_use_is_not_dropped_and_the_pool_goes_first);
	tcase_add_test(tests, a_pool_that_does_not_fit_its_model_says_which_plane);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
