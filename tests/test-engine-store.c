/*
 * STORE: what becomes of each chunk, ready words, cancels and deadlines; and what is wrong with the
 * segments of a store or retrieve.
 */
#include "tests/engine-fixture.h"

/* ---- STORE ----------------------------------------------------------------------------------------- */

START_TEST(what_was_stored_is_found_leased_and_retrieved)
{
	const struct seen *seen = do_store(w, 1, 8);
	uint64_t lease[2];

	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 8);
	for (uint32_t i = 0; i < 8; i++)
		ck_assert_uint_eq(seen->chunks[i], STOKER_CHUNK_STORED);
	seen = do_lookup(w, 1, 8, STOKER_F_PREFETCH);
	ck_assert_uint_eq(seen->answer.n, 8);
	ck_assert_uint_eq(seen->answer.counts[0], 8);
	ck_assert_uint_eq(seen->bitmap[0], 0xff);
	ck_assert_uint_eq(seen->n, 1);		/* all in the arena: DONE at once, no stage before it */
	lease_of(seen, lease);
	seen = do_retrieve(w, lease, 8);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 8);
	ck_assert_uint_eq(seen->answer.layers, 2);
	for (uint32_t c = 0; c < 8; c++)
		for (uint32_t b = 0; b < WORLD_BLOCKS; b++)
			ck_assert_uint_eq(w->blocks[0][0][c * WORLD_BLOCKS + b], block_value(1, c, b));
	do_release(w, lease);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
}
END_TEST

START_TEST(nothing_is_visible_before_its_copy_has_ended)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 4);

	w->hold[PENDING_COPY] = true;
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(do_lookup(w, 1, 4, STOKER_F_PREFETCH)->answer.n, 0);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert_uint_eq(do_lookup(w, 1, 4, STOKER_F_PREFETCH)->answer.n, 4);
}
END_TEST

START_TEST(chunks_that_are_there_are_present)
{
	const struct seen *seen;

	do_store(w, 1, 4);
	seen = do_store(w, 1, 6);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(seen->answer.counts[0], 4);
	ck_assert_uint_eq(seen->chunks[3], STOKER_CHUNK_PRESENT);
	ck_assert_uint_eq(seen->chunks[4], STOKER_CHUNK_STORED);
}
END_TEST

START_TEST(chunks_that_another_job_stores_are_elsewhere_at_once)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	submit(w, 0, &request);
	request = ask_store(w, 1, 0, PLAIN, 1, 0, 2);
	seen = submit(w, 1, &request);
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.counts[1], 2);
	ck_assert_uint_eq(seen->chunks[0], STOKER_CHUNK_ELSEWHERE);
}
END_TEST

START_TEST(a_store_that_waits_finds_present_what_the_other_stored)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	submit(w, 0, &request);
	request = ask_store(w, 1, 0, PLAIN, 1, 0, 2);
	request.head.flags = STOKER_F_WAIT;
	seen = submit(w, 1, &request);
	world_run(w);
	ck_assert(!seen->done);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.counts[0], 2);
}
END_TEST

START_TEST(a_store_that_waits_takes_over_what_the_other_failed_to_store)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	submit(w, 0, &request);
	request = ask_store(w, 1, 0, PLAIN, 1, 0, 2);
	request.head.flags = STOKER_F_WAIT;
	seen = submit(w, 1, &request);
	world_run(w);
	w->hold[PENDING_COPY] = false;
	w->fail[PENDING_COPY] = 1;
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.status, STOKER_STATUS_FAULT);
	ck_assert_uint_eq(w->seen[0][0].chunks[0], STOKER_CHUNK_FAILED);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(do_lookup(w, 1, 2, 0)->answer.n, 2);
}
END_TEST

START_TEST(a_store_that_waits_takes_over_when_the_other_client_dies)
{
	struct engine_request request = ask_store(w, 2, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	submit(w, 2, &request);
	request = ask_store(w, 1, 0, PLAIN, 1, 0, 2);
	request.head.flags = STOKER_F_WAIT;
	seen = submit(w, 1, &request);
	world_out(w, 2);
	ck_assert(!w->gone[2]);		/* its copy is being drained */
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(w->gone[2]);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 2);
}
END_TEST

START_TEST(a_chunk_with_a_missing_block_is_incomplete_and_the_others_are_stored)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 3);
	const struct seen *seen;

	w->slots[0][0]->ids[2 * WORLD_BLOCKS + 1] = STOKER_NO_BLOCK;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(seen->answer.counts[2], 1);
	ck_assert_uint_eq(seen->chunks[2], STOKER_CHUNK_INCOMPLETE);
	ck_assert_uint_eq(do_lookup(w, 1, 3, 0)->answer.n, 2);
}
END_TEST

START_TEST(a_short_last_chunk_may_lack_the_blocks_that_its_tokens_do_not_reach)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	struct slot_memory *slot = w->slots[0][0];
	const struct seen *seen;

	request.tokens = slot->tokens;
	request.line.store.flags = STOKER_STORE_TOKENS;
	slot->tokens[0] = 64;
	slot->tokens[1] = 17;		/* two blocks of 16 */
	slot->ids[WORLD_BLOCKS + 2] = slot->ids[WORLD_BLOCKS + 3] = STOKER_NO_BLOCK;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 2);
	request = ask_store(w, 0, 0, PLAIN, 2, 0, 2);
	request.tokens = slot->tokens;
	request.line.store.flags = STOKER_STORE_TOKENS;
	slot->ids[WORLD_BLOCKS + 1] = STOKER_NO_BLOCK;	/* the second is needed */
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->chunks[1], STOKER_CHUNK_INCOMPLETE);
}
END_TEST

START_TEST(ids_may_be_given_as_runs)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	struct slot_memory *slot = w->slots[0][0];
	uint64_t lease[2];

	slot->segments[0].flags = STOKER_SEGMENT_RUNS;
	slot->segments[0].n_ids = request.head.n_ids = 4;
	memcpy(slot->ids, (uint32_t[]){ 100, 3, 7, 5 }, 16);
	for (uint32_t i = 0; i < 8; i++)
		w->blocks[0][0][i < 3 ? 100 + i : 4 + i] = 1000 + i;
	ck_assert(submit(w, 0, &request));
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.n, 2);
	lease_of(do_lookup(w, 1, 2, 0), lease);
	do_retrieve(w, lease, 2);
	for (uint32_t i = 0; i < 8; i++)
		ck_assert_uint_eq(w->blocks[0][0][i], 1000 + i);
}
END_TEST

START_TEST(a_chunk_is_found_only_when_all_its_shards_are_stored)
{
	struct engine_request request = ask_store(w, 0, 0, SHARDED, 1, 0, 2);
	const struct seen *seen;

	request.head.n_segments = 1;	/* shard 0 alone */
	request.head.n_ids = 2 * WORLD_BLOCKS;
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.n, 2);
	request = ask_lookup(w, 0, 1, SHARDED, 1, 2, 0);
	seen = submit(w, 0, &request);
	ck_assert_uint_eq(seen->answer.n, 0);
	request = ask_store(w, 0, 0, SHARDED, 1, 0, 2);
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.n, 2);
	request = ask_lookup(w, 0, 1, SHARDED, 1, 2, 0);
	seen = submit(w, 0, &request);
	ck_assert_uint_eq(seen->answer.n, 2);
}
END_TEST

/* Each row spoils a good store or retrieve in one way. */
static void spoil(struct engine_request *request, struct slot_memory *slot, int how)
{
	switch (how) {
	case 0: slot->segments[0].pool = 9; break;			/* no such pool */
	case 1: slot->segments[0].pool = 1; break;			/* of another model */
	case 2: slot->segments[0].shard = 1; break;			/* not that pool's part */
	case 3: slot->segments[0].group = 7; break;
	case 4: slot->segments[0].chunks = 0; break;
	case 5: slot->segments[0].chunks++; break;			/* beyond the keys or the lease */
	case 6: slot->segments[0].first = 0xffffffff; break;		/* the sum would wrap */
	case 7: slot->segments[0].n_ids--; break;			/* not exactly as many */
	case 8: request->head.n_ids++; break;
	case 9: slot->ids[3] = WORLD_POOL; break;			/* beyond the pool */
	case 10: slot->segments[0].reserved = 1; break;
	case 11: slot->segments[0].flags = 2; break;
	case 12: request->head.n_segments = 0; break;
	case 13: request->head.flags |= STOKER_F_ANY; break;
	case 14: request->head.priority = 8; break;
	case 15:							/* the same object twice */
		slot->segments[1] = slot->segments[0];
		memcpy(slot->ids + 8, slot->ids, 32);
		request->head.n_segments = 2;
		request->head.n_ids = 16;
		break;
	case 16:							/* runs that are too short */
		slot->segments[0].flags = STOKER_SEGMENT_RUNS;
		slot->segments[0].n_ids = request->head.n_ids = 2;
		memcpy(slot->ids, (uint32_t[]){ 0, 7 }, 8);
		break;
	case 17:							/* runs that are too long */
		slot->segments[0].flags = STOKER_SEGMENT_RUNS;
		slot->segments[0].n_ids = request->head.n_ids = 2;
		memcpy(slot->ids, (uint32_t[]){ 0, 9 }, 8);
		break;
	case 18:							/* a run that leaves the pool */
		slot->segments[0].flags = STOKER_SEGMENT_RUNS;
		slot->segments[0].n_ids = request->head.n_ids = 2;
		memcpy(slot->ids, (uint32_t[]){ WORLD_POOL - 7, 8 }, 8);
		break;
	case 19: request->model = 77; break;
	default: request->line.store.flags = 0x10; request->line.retrieve.reserved[10] = 1; break;
	}
}
#define SPOILT 21

START_TEST(a_bad_store_is_refused_before_anything_is_placed)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	spoil(&request, w->slots[0][0], _i);
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_BAD_REQUEST);
	ck_assert_uint_eq(w->asked[PENDING_COPY], 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
}
END_TEST

START_TEST(a_bad_retrieve_is_refused_before_anything_is_copied)
{
	struct engine_request request;
	uint64_t lease[2];
	const struct seen *seen;

	lease_make(2, lease);
	request = ask_retrieve(w, 0, 0, PLAIN, lease, 0, 2);
	spoil(&request, w->slots[0][0], _i);
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_BAD_REQUEST);
	ck_assert_uint_eq(w->asked[PENDING_COPY], 1);	/* the store's */
}
END_TEST

/* Positions are kept in 32 bits: a chain that goes beyond them is refused, however long its chunks are. */
START_TEST(a_store_whose_tokens_have_no_position_is_refused)
{
	struct engine_model_config vast = { .epoch = 1, .chunk_tokens = 1u << 30, .n_groups = 1, .n_parts = 1 };
	struct engine_request request;
	int64_t model;

	vast.groups[0].block_tokens = vast.chunk_tokens / WORLD_BLOCKS;
	vast.groups[0].blocks = WORLD_BLOCKS;
	vast.parts[0] = (struct engine_part_config){ .layers = 2, .blocks = WORLD_BLOCKS, .payload_bytes = 4096,
						     .image_bytes = 8192 };
	model = engine_model_open(w->engine, &vast);
	ck_assert_int_gt(model, 0);
	ck_assert_int_eq(engine_pool_added(w->engine, 0, 9, (uint32_t)model, 0, WORLD_POOL, 0), 0);
	for (uint32_t keys = 3; keys <= 5; keys++) {
		request = ask_store(w, 0, 0, (uint32_t)model, keys, 0, keys);
		w->slots[0][0]->segments[0].pool = 9;
		submit(w, 0, &request);
		world_run(w);
		ck_assert_uint_eq(w->seen[0][0].answer.status, keys == 3 ? STOKER_STATUS_OK : STOKER_STATUS_BAD_REQUEST);
	}
	request = ask_store(w, 0, 0, (uint32_t)model, 9, 0, 5);
	w->slots[0][0]->segments[0].pool = 9;
	request.line.store.first_token = UINT64_MAX - (2ull << 32);
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.status, STOKER_STATUS_BAD_REQUEST);
}
END_TEST

START_TEST(a_store_begins_when_its_ready_word_has_been_reached)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	request.head.flags = STOKER_F_READY;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert(w->watched[0][0]);
	ck_assert_uint_eq(w->asked[PENDING_COPY], 0);
	request = ask_store(w, 1, 0, PLAIN, 1, 0, 2);	/* it claims nothing yet: another one may store */
	submit(w, 1, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[1][0].answer.n, 2);
	w->watched[0][0] = false;
	engine_ready(w->engine, 0, 0);
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.counts[0], 2);
}
END_TEST

START_TEST(a_cancel_before_the_copy_ends_a_store_at_once)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	request.head.flags = STOKER_F_READY;
	seen = submit(w, 0, &request);
	engine_cancel(w->engine, 0, 0, seen->generation + 1);	/* another generation: not this job */
	ck_assert(!seen->done);
	engine_cancel(w->engine, 0, 0, seen->generation);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_CANCELLED);
	ck_assert(!w->watched[0][0]);
	engine_cancel(w->engine, 0, 0, seen->generation);	/* too late: nothing happens */
}
END_TEST

START_TEST(a_cancel_of_a_running_copy_is_told_at_once_and_done_follows_the_drain)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	seen = submit(w, 0, &request);
	engine_cancel(w->engine, 0, 0, seen->generation);
	world_run(w);
	ck_assert(!seen->done);
	ck_assert_uint_eq(seen->answer.stage, STOKER_STAGE_ENDING);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_CANCELLED);
	ck_assert_uint_ne(w->cancelled_copy, 0);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_CANCELLED);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
}
END_TEST

START_TEST(a_deadline_is_told_like_a_cancel)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	request.head.deadline_us = 5000;
	seen = submit(w, 0, &request);
	world_run(w);
	world_pass(w, 4);
	ck_assert_uint_eq(seen->answer.stage, STOKER_STAGE_ACCEPTED);
	world_pass(w, 3);
	ck_assert_uint_eq(seen->answer.stage, STOKER_STAGE_ENDING);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_DEADLINE);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(seen->done);
}
END_TEST

/* ---- an arena that is being populated ------------------------------------------------------------------ */

/* Its only extent that is there already has 8 places; all of them are leased. */
static struct world *early(void)
{
	struct world *early = world_new(&(struct world_options){ .extents = 3, .later_extents = 2 });

	ck_assert_uint_eq(do_store(early, 1, 8)->answer.n, 8);
	ck_assert_uint_eq(do_lookup(early, 1, 8, 0)->answer.n, 8);
	return early;
}

START_TEST(a_store_waits_for_extents_that_are_still_to_come)
{
	struct world *e = early();
	struct engine_request request = ask_store(e, 0, 0, PLAIN, 2, 0, 8);
	const struct seen *seen = submit(e, 0, &request);

	world_run(e);
	ck_assert(!seen->done);
	engine_extent_added(e->engine, 1);
	world_run(e);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 8);
	/* The next one is the last: when it fails, there is nothing to wait for. */
	request = ask_store(e, 0, 0, PLAIN, 3, 0, 8);
	ck_assert_uint_eq(do_lookup(e, 2, 8, 0)->answer.n, 8);
	seen = submit(e, 0, &request);
	world_run(e);
	ck_assert(!seen->done);
	engine_extent_failed(e->engine, 2);
	world_run(e);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_NO_MEMORY);
	world_free(e);
}
END_TEST

START_TEST(a_store_waits_for_extents_no_longer_than_its_deadline)
{
	struct world *e = early();
	struct engine_request request = ask_store(e, 0, 0, PLAIN, 2, 0, 8);
	const struct seen *seen;

	request.head.deadline_us = 5000;
	seen = submit(e, 0, &request);
	world_run(e);
	ck_assert(!seen->done);
	world_pass(e, 20);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_DEADLINE);
	world_free(e);
}
END_TEST

/* ---- what is to be written ------------------------------------------------------------------------- */

START_TEST(writes_that_come_to_nothing_do_not_leave_the_others_waiting)
{
	struct world *late = world_new(&(struct world_options){ .tiers = 1, .tiers_later = true });

	/* More of them than a turn begins; none is allowed a place. */
	engine_tenant(late->engine, 0, &(struct engine_quota){ .disk_bytes = 4096 });
	ck_assert_uint_eq(do_store(late, 1, 100)->answer.n, 100);
	ck_assert_uint_eq(world_gauge(late, STOKER_GAUGE_WRITEBACK), 100);
	engine_tier_up(late->engine, 0);
	world_run(late);
	ck_assert_uint_eq(world_gauge(late, STOKER_GAUGE_WRITEBACK), 0);
	world_free(late);
}
END_TEST

/* ---- what a job needs ------------------------------------------------------------------------------- */

/* Its segments' ids as one run each, or left as they are; and no more scratch than a client counts with. */
static const struct seen *submit_tight(struct engine_request *request, uint32_t chunks, bool runs)
{
	struct slot_memory *memory = w->slots[0][request->head.slot];
	const uint32_t n = request->head.n_segments;

	for (uint32_t i = 0; runs && i < n; i++) {
		memory->segments[i].flags = STOKER_SEGMENT_RUNS;
		memory->segments[i].n_ids = 2;
		memory->ids[2 * i] = 0;
		memory->ids[2 * i + 1] = chunks * WORLD_BLOCKS;
	}
	if (runs)
		request->head.n_ids = 2 * n;
	request->scratch_bytes = STOKER_SCRATCH_NEED(chunks, n, chunks * n, runs ? chunks * n * WORLD_BLOCKS : 0);
	submit(w, 0, request);
	world_run(w);
	return &w->seen[0][request->head.slot];
}

/* What the library counts with (shm/layout.h) is enough, for any number of chunks. */
START_TEST(a_job_needs_no_more_scratch_than_is_said)
{
	const uint32_t model = _i & 1 ? SHARDED : PLAIN;
	const bool runs = _i & 2;

	for (uint32_t n = 1; n <= 40; n++) {
		struct engine_request request = ask_store(w, 0, 0, model, 1, 0, n);
		const struct seen *seen = submit_tight(&request, n, runs);
		uint64_t lease[2];

		ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
		request = ask_lookup(w, 0, 1, model, 1, n, STOKER_F_PREFETCH);
		submit(w, 0, &request);
		world_run(w);
		seen = &w->seen[0][1];
		ck_assert_uint_eq(seen->answer.n, n);
		lease_of(seen, lease);
		request = ask_retrieve(w, 0, 2, model, lease, 0, n);
		seen = submit_tight(&request, n, runs);
		ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
		ck_assert_uint_eq(seen->answer.n, n);
		do_release(w, lease);
	}
}
END_TEST

/* ---- the suite -------------------------------------------------------------------------------------------------------- */

static TCase *stores(void)
{
	TCase *tests = with_world("store", no_tier);

	tcase_add_test(tests, what_was_stored_is_found_leased_and_retrieved);
	tcase_add_test(tests, nothing_is_visible_before_its_copy_has_ended);
	tcase_add_test(tests, chunks_that_are_there_are_present);
	tcase_add_test(tests, chunks_that_another_job_stores_are_elsewhere_at_once);
	tcase_add_test(tests, a_store_that_waits_finds_present_what_the_other_stored);
	tcase_add_test(tests, a_store_that_waits_takes_over_what_the_other_failed_to_store);
	tcase_add_test(tests, a_store_that_waits_takes_over_when_the_other_client_dies);
	tcase_add_test(tests, a_chunk_with_a_missing_block_is_incomplete_and_the_others_are_stored);
	tcase_add_test(tests, a_short_last_chunk_may_lack_the_blocks_that_its_tokens_do_not_reach);
	tcase_add_test(tests, ids_may_be_given_as_runs);
	tcase_add_test(tests, a_chunk_is_found_only_when_all_its_shards_are_stored);
	tcase_add_loop_test(tests, a_bad_store_is_refused_before_anything_is_placed, 0, SPOILT);
	tcase_add_loop_test(tests, a_bad_retrieve_is_refused_before_anything_is_copied, 0, SPOILT);
	tcase_add_test(tests, a_store_whose_tokens_have_no_position_is_refused);
	tcase_add_test(tests, a_store_begins_when_its_ready_word_has_been_reached);
	tcase_add_test(tests, a_cancel_before_the_copy_ends_a_store_at_once);
	tcase_add_test(tests, a_cancel_of_a_running_copy_is_told_at_once_and_done_follows_the_drain);
	tcase_add_test(tests, a_deadline_is_told_like_a_cancel);
	tcase_add_test(tests, a_store_waits_for_extents_that_are_still_to_come);
	tcase_add_test(tests, a_store_waits_for_extents_no_longer_than_its_deadline);
	tcase_add_loop_test(tests, a_job_needs_no_more_scratch_than_is_said, 0, 4);
	tcase_add_test(tests, writes_that_come_to_nothing_do_not_leave_the_others_waiting);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-store");

	suite_add_tcase(suite, stores());
	return suite_run(suite);
}
