/*
 * The engine's operations: PING, what is no request, and LOOKUP. STORE is in test-engine-store.c, leases
 * and what is done with them in test-engine-leases.c, loads, tiers and room in test-engine-tiers.c,
 * clients, models and restarts in test-engine-life.c.
 */
#include "tests/engine-fixture.h"

/* ---- PING, and what is no request ---------------------------------------------------------------- */

START_TEST(a_ping_is_answered_at_once)
{
	struct engine_request request = ask(w, 0, 0, STOKER_OP_PING, ENGINE_NONE);
	const struct seen *seen = submit(w, 0, &request);

	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->n, 1);
}
END_TEST

START_TEST(an_unknown_operation_is_a_bad_request)
{
	struct engine_request request = ask(w, 0, 0, 99, ENGINE_NONE);

	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_BAD_REQUEST);
	ck_assert(!w->expelled[0]);
}
END_TEST

START_TEST(a_submit_on_a_slot_whose_job_lives_expels_the_client)
{
	struct engine_request request;

	w->hold[PENDING_COPY] = true;
	request = ask_store(w, 0, 0, PLAIN, 1, 0, 1);
	submit(w, 0, &request);
	ck_assert(!w->expelled[0]);
	request.head.generation++;
	engine_request(w->engine, 0, &request);
	ck_assert(w->expelled[0]);
}
END_TEST

START_TEST(a_generation_of_0_and_a_slot_that_is_none_expel_the_client)
{
	struct engine_request request = ask(w, 1, 0, STOKER_OP_PING, ENGINE_NONE);

	engine_request(w->engine, 1, &request);
	ck_assert(w->expelled[1]);
	request = ask(w, 2, 0, STOKER_OP_PING, ENGINE_NONE);
	request.head.generation = 1;
	request.head.slot = WORLD_SLOTS;
	engine_request(w->engine, 2, &request);
	ck_assert(w->expelled[2]);
}
END_TEST

/* ---- LOOKUP ------------------------------------------------------------------------------------------ */

START_TEST(a_miss_is_0_chunks_with_status_ok_and_no_lease)
{
	const struct seen *seen = do_lookup(w, 1, 5, STOKER_F_PREFETCH);

	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 0);
	ck_assert_uint_eq(seen->answer.lease_ms, 0);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_MISSES), 5);
}
END_TEST

START_TEST(a_prefix_ends_at_its_first_gap)
{
	struct engine_request request;

	do_store(w, 1, 3);
	request = ask_store(w, 0, 0, PLAIN, 1, 5, 3);	/* 5, 6, 7 */
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(do_lookup(w, 1, 8, 0)->answer.n, 3);
	ck_assert_uint_eq(w->seen[0][1].bitmap[0], 0x7);
}
END_TEST

START_TEST(what_the_asker_has_counts_as_there_and_is_not_leased)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 3, 2);	/* 3 and 4 */
	const struct seen *seen;
	uint64_t lease[2];

	submit(w, 0, &request);
	world_run(w);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 6, 0);
	request.line.lookup.have = 3;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 5);
	ck_assert_uint_eq(seen->bitmap[0], 0x18);	/* lengths 4 and 5; none below have */
	ck_assert_uint_eq(seen->answer.counts[0], 2);
	lease_of(seen, lease);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 2 * 8192);
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 2, 3);	/* places are those of the keys; 2 is no part of it */
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(seen->answer.counts[0], 1);
	ck_assert_uint_eq(seen->chunks[0], STOKER_CHUNK_FAILED);
	ck_assert_uint_eq(seen->chunks[1], STOKER_CHUNK_RETRIEVED);
}
END_TEST

START_TEST(a_probe_says_what_exists_and_leases_nothing)
{
	const struct seen *seen;

	do_store(w, 1, 4);
	seen = do_lookup(w, 1, 4, STOKER_F_PROBE);
	ck_assert_uint_eq(seen->answer.found, 4);
	ck_assert_uint_eq(seen->answer.n, 4);
	ck_assert_uint_eq(seen->answer.lease_ms, 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
}
END_TEST

START_TEST(independent_keys_are_found_each_for_itself)
{
	struct engine_request request;
	const struct seen *seen;
	uint64_t lease[2];

	do_store(w, 1, 6);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 6, STOKER_F_ANY);
	w->slots[0][1]->keys[0] = key_of(9, 9);
	w->slots[0][1]->keys[3] = key_of(9, 8);
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 4);
	ck_assert_uint_eq(seen->bitmap[0], 0x36);
	lease_of(seen, lease);
	seen = do_retrieve(w, lease, 6);
	ck_assert_uint_eq(seen->answer.n, 4);
	ck_assert_uint_eq(seen->chunks[3], STOKER_CHUNK_FAILED);
	ck_assert_uint_eq(seen->chunks[4], STOKER_CHUNK_RETRIEVED);
}
END_TEST

START_TEST(thousands_of_keys_are_probed_in_steps_and_in_turns)
{
	struct engine_request request;
	const struct seen *long_one, *short_one;

	do_store(w, 1, 100);
	request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 4096, 0);
	long_one = submit(w, 0, &request);
	ck_assert_uint_eq(long_one->answer.n, 100);	/* it ended at the gap, in the first step */
	request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 4096, STOKER_F_ANY | STOKER_F_PROBE);
	long_one = submit(w, 0, &request);
	ck_assert(!long_one->done);
	request = ask_lookup(w, 1, 0, PLAIN, 1, 4, 0);
	short_one = submit(w, 1, &request);
	ck_assert(short_one->done);			/* it does not wait for the long one */
	world_run(w);
	ck_assert(long_one->done);
	ck_assert_uint_eq(long_one->answer.n, 100);
}
END_TEST

START_TEST(a_model_known_by_digest_alone_has_no_layout_yet)
{
	struct engine_request request = ask_lookup(w, 0, 1, ENGINE_NONE, 1, 4, 0);

	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_NO_LAYOUT);
}
END_TEST

START_TEST(a_bad_lookup_is_refused)
{
	struct engine_request request = ask_lookup(w, 0, 1, PLAIN, 1, 4, 0);

	switch (_i) {
	case 0: request.head.flags = STOKER_F_WAIT; break;
	case 1: request.head.n_keys = 0; break;
	case 2: request.line.lookup.groups = 2; break;		/* it has one group */
	case 3: request.line.lookup.pieces = 1; break;		/* in a small slot */
	case 4: request.line.lookup.reserved[2] = 1; break;
	case 5: request.head.flags = STOKER_F_ANY; request.line.lookup.have = 1; break;
	case 6: request.model = 5; break;			/* not open */
	case 7: request.head.n_keys = STOKER_SMALL_KEYS + 1; break;
	default: request.head.n_ids = 1; break;
	}
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_BAD_REQUEST);
}
END_TEST

START_TEST(a_lookup_waits_for_random_bits_rather_than_grant_a_lease_that_can_be_guessed)
{
	const uint64_t words[2] = { 0x1111, 0x2222222200000000 };
	const struct seen *seen;
	struct world *dry = world_new(&(struct world_options){ .no_random = true });
	struct engine_request request = ask_store(dry, 0, 0, PLAIN, 1, 0, 2);

	submit(dry, 0, &request);
	world_run(dry);
	request = ask_lookup(dry, 0, 1, PLAIN, 1, 2, 0);
	seen = submit(dry, 0, &request);
	world_run(dry);
	ck_assert(!seen->done);
	engine_random(dry->engine, words, 2);
	world_run(dry);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 2);
	world_free(dry);
}
END_TEST

/* A world whose random bits are used up: of chain 1 two chunks are stored and leased. */
static struct world *dry_world(struct engine_request *lookup)
{
	const uint64_t words[2] = { 11, 22 };
	struct world *dry = world_new(&(struct world_options){ .no_random = true, .tiers = 1 });
	struct engine_request request = ask_store(dry, 0, 0, PLAIN, 1, 0, 2);

	submit(dry, 0, &request);
	world_run(dry);
	engine_random(dry->engine, words, 2);
	*lookup = ask_lookup(dry, 0, 1, PLAIN, 1, 2, 0);
	submit(dry, 0, lookup);
	world_run(dry);
	ck_assert_uint_eq(dry->seen[0][1].answer.n, 2);
	return dry;
}

START_TEST(a_partial_lookup_without_random_bits_waits_for_its_deadline_and_no_longer)
{
	struct engine_request request;
	struct world *dry = dry_world(&request);
	const struct seen *seen;

	/* Two chunks more, on a tier alone that does not answer: they cannot come before the deadline. */
	request = ask_store(dry, 0, 0, PLAIN, 1, 2, 2);
	submit(dry, 0, &request);
	world_run(dry);
	engine_evict(dry->engine, 1 << 30, 1);
	world_run(dry);
	dry->hold[PENDING_READ] = true;
	request = ask_lookup(dry, 0, 2, PLAIN, 1, 4, STOKER_F_PREFETCH | STOKER_F_PARTIAL | (_i ? STOKER_F_ANY : 0));
	request.head.deadline_us = 5000;
	seen = submit(dry, 0, &request);
	world_run(dry);
	ck_assert(!seen->done);
	world_pass(dry, 20);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_DEADLINE);
	ck_assert_uint_eq(seen->answer.n, 0);
	world_free(dry);
}
END_TEST

START_TEST(a_map_waits_for_random_bits_as_a_lookup_does)
{
	const uint64_t words[2] = { 33, 44 };
	struct engine_request request;
	struct world *dry = dry_world(&request);
	const struct seen *seen, *late;

	request = ask(dry, 0, 2, STOKER_OP_MAP, ENGINE_NONE);
	memcpy(request.head.lease, dry->seen[0][1].answer.lease, sizeof(request.head.lease));
	seen = submit(dry, 0, &request);
	request.head.slot = 3;
	request.head.deadline_us = 5000;
	late = submit(dry, 0, &request);
	world_run(dry);
	ck_assert(!seen->done);
	world_pass(dry, 20);
	ck_assert(late->done);
	ck_assert_uint_eq(late->answer.status, STOKER_STATUS_DEADLINE);
	engine_random(dry->engine, words, 2);
	world_run(dry);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->mapped.bytes, 4096);
	world_free(dry);
}
END_TEST

/* ---- chained lookups ------------------------------------------------------------------------------------ */

static const struct seen *piece(uint32_t slot, const struct seen *head, uint32_t number, uint64_t chain,
				uint32_t first, uint32_t n)
{
	struct engine_request request = ask(w, 0, slot, STOKER_OP_LOOKUP_MORE, PLAIN);

	for (uint32_t i = 0; i < n; i++)
		w->slots[0][slot]->keys[i] = key_of(chain, first + i);
	request.head.n_keys = n;
	request.line.more.head_slot = WORLD_SMALL;
	request.line.more.head_generation = head->generation;
	request.line.more.piece = number;
	return submit(w, 0, &request);
}

START_TEST(a_chained_lookup_is_answered_in_its_head_over_all_its_pieces)
{
	struct engine_request request;
	const struct seen *head, *one, *two;

	do_store(w, 1, 100);
	request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 40, STOKER_F_PREFETCH);
	request.line.lookup.pieces = 2;
	head = submit(w, 0, &request);
	world_run(w);
	ck_assert(!head->done);
	one = piece(4, head, 1, 1, 40, 40);
	world_run(w);
	ck_assert(one->done);		/* its keys are not needed any more */
	ck_assert(!head->done);
	two = piece(5, head, 2, 1, 80, 30);
	world_run(w);
	ck_assert(two->done && head->done);
	ck_assert_uint_eq(two->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(head->answer.n, 100);
	ck_assert_uint_eq(head->answer.bitmap_words, 2);
	ck_assert_uint_eq(head->bitmap[1], (1ull << 36) - 1);
}
END_TEST

START_TEST(the_bitmap_of_a_chained_lookup_covers_its_last_4096_lengths)
{
	struct engine_request request;
	const struct seen *head;

	do_store(w, 1, 100);
	request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 4096, STOKER_F_PROBE);
	request.line.lookup.pieces = 1;
	head = submit(w, 0, &request);
	piece(4, head, 1, 1, 4096, 33);
	world_run(w);
	ck_assert(head->done);
	ck_assert_uint_eq(head->answer.n, 100);
	ck_assert_uint_eq(head->answer.bitmap_words, 64);
	ck_assert_uint_eq(head->bitmap[0], ~0ull);	/* lengths 34 to 97 */
	ck_assert_uint_eq(head->bitmap[1], 7);		/* 98, 99, 100 */
}
END_TEST

START_TEST(a_piece_out_of_order_or_of_no_head_is_a_bad_request)
{
	struct engine_request request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 40, 0);
	struct seen stranger = { .generation = 77 };
	const struct seen *head;

	request.line.lookup.pieces = 2;
	head = submit(w, 0, &request);
	ck_assert_uint_eq(piece(4, head, 2, 1, 40, 4)->answer.status, STOKER_STATUS_BAD_REQUEST);
	ck_assert_uint_eq(piece(4, &stranger, 1, 1, 40, 4)->answer.status, STOKER_STATUS_BAD_REQUEST);
	piece(4, head, 1, 1, 40, 4);
	world_run(w);
	ck_assert(!head->done);
	world_pass(w, 11000);		/* a piece that never comes: the deadline */
	ck_assert(head->done);
	ck_assert_uint_eq(head->answer.status, STOKER_STATUS_DEADLINE);
	ck_assert_uint_eq(piece(4, head, 2, 1, 44, 4)->answer.status, STOKER_STATUS_BAD_REQUEST);
}
END_TEST

/* ---- groups -------------------------------------------------------------------------------------------------------- */

/* Store parts of one chunk of a MIXED chain (full, window of 2, state), by mask. */
static void store_parts(uint64_t chain, uint32_t chunk, uint32_t parts)
{
	struct engine_request request = ask(w, 0, 0, STOKER_OP_STORE, MIXED);

	w->slots[0][0]->keys[0] = key_of(chain, chunk);
	request.head.n_keys = 1;
	if (chunk)
		request.line.store.parent = key_of(chain, chunk - 1);
	for (uint32_t part = 0; part < 3; part++)
		if (parts >> part & 1)
			add_segment(w, &request, 0, 10 + part, part, 0, 0, 1, 0);
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.n, 1);
}

START_TEST(each_group_is_needed_where_its_window_says)
{
	static const uint32_t parts[] = { 1, 3, 7, 3, 1, 3 };	/* full; + window; + state */
	struct engine_request request;
	const struct seen *seen;

	for (uint32_t part = 0; part < 3; part++)
		ck_assert_int_eq(engine_pool_added(w->engine, 0, 10 + part, MIXED, part, WORLD_POOL, 0), 0);
	for (uint32_t i = 0; i < 6; i++)
		store_parts(1, i, parts[i]);
	request = ask_lookup(w, 0, 1, MIXED, 1, 6, 0);
	seen = submit(w, 0, &request);
	ck_assert_uint_eq(seen->answer.n, 3);		/* the only length with a state; chunks 1 and 2 have windows */
	ck_assert_uint_eq(seen->bitmap[0], 0x4);
	request = ask_lookup(w, 0, 1, MIXED, 1, 6, 0);
	request.line.lookup.groups = 3;			/* full and window alone */
	seen = submit(w, 0, &request);
	ck_assert_uint_eq(seen->answer.n, 4);
	ck_assert_uint_eq(seen->bitmap[0], 0xc);
	request = ask_lookup(w, 0, 1, MIXED, 1, 6, 0);
	request.line.lookup.groups = 1;
	ck_assert_uint_eq(submit(w, 0, &request)->answer.n, 6);
	request = ask_lookup(w, 0, 1, MIXED, 1, 6, 0);
	request.line.lookup.groups = 4;			/* state alone: the last one there is */
	seen = submit(w, 0, &request);
	ck_assert_uint_eq(seen->answer.n, 3);
	ck_assert_uint_eq(seen->answer.counts[0], 3);
}
END_TEST

/* ---- the suite -------------------------------------------------------------------------------------------------------- */

static TCase *lookups(void)
{
	TCase *tests = with_world("lookup", no_tier);

	tcase_add_loop_test(tests, a_partial_lookup_without_random_bits_waits_for_its_deadline_and_no_longer, 0, 2);
	tcase_add_test(tests, a_map_waits_for_random_bits_as_a_lookup_does);
	tcase_add_test(tests, a_ping_is_answered_at_once);
	tcase_add_test(tests, an_unknown_operation_is_a_bad_request);
	tcase_add_test(tests, a_submit_on_a_slot_whose_job_lives_expels_the_client);
	tcase_add_test(tests, a_generation_of_0_and_a_slot_that_is_none_expel_the_client);
	tcase_add_test(tests, a_miss_is_0_chunks_with_status_ok_and_no_lease);
	tcase_add_test(tests, a_prefix_ends_at_its_first_gap);
	tcase_add_test(tests, what_the_asker_has_counts_as_there_and_is_not_leased);
	tcase_add_test(tests, a_probe_says_what_exists_and_leases_nothing);
	tcase_add_test(tests, independent_keys_are_found_each_for_itself);
	tcase_add_test(tests, thousands_of_keys_are_probed_in_steps_and_in_turns);
	tcase_add_test(tests, a_model_known_by_digest_alone_has_no_layout_yet);
	tcase_add_loop_test(tests, a_bad_lookup_is_refused, 0, 9);
	tcase_add_test(tests, a_lookup_waits_for_random_bits_rather_than_grant_a_lease_that_can_be_guessed);
	tcase_add_test(tests, a_chained_lookup_is_answered_in_its_head_over_all_its_pieces);
	tcase_add_test(tests, the_bitmap_of_a_chained_lookup_covers_its_last_4096_lengths);
	tcase_add_test(tests, a_piece_out_of_order_or_of_no_head_is_a_bad_request);
	tcase_add_test(tests, each_group_is_needed_where_its_window_says);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-ops");

	suite_add_tcase(suite, lookups());
	return suite_run(suite);
}
